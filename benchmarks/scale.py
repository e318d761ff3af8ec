"""All kinds of model at size: trained on six cutoffs of a million customers, and a million customers scored.

    python -m benchmarks.scale --customers 100000
    python -m benchmarks.scale --customers 1000000 --folder var/scale      # the shop is kept there for the next time
    python -m benchmarks.scale --customers 100000 --copies 100             # ten million are scored: an hour, and 40 GB

Of a simulated shop so many customers are known at every cutoff. Making the shop, its snapshots, training (on a sample
of `training.customers` and with its backtests, as always), scoring, a page of the list and publishing are each a
process of its own; what is to be reached (10 minutes and 12 GB, 30 seconds) stands beside the two that have a limit,
and holds for a million customers on two cores. With `--copies` the snapshot that is scored is laid so often beside
itself, each time under other ids: what answers take hangs on how many customers there are, not on where they come from.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, date, datetime
from pathlib import Path
from typing import NamedTuple

import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks import figures, needs
from benchmarks.fits import peak_gigabytes
from features import retrieval, snapshot
from features.snapshot import CUSTOMER_FAMILIES
from ingest import intake
from perennial import month
from serving import scoring
from serving.lists import churn_risk
from serving.predictor import Predictor
from simulation.world import simulate
from training import pipelines
from training.gate import promotion
from workspace import registry, settings, storage
from workspace.settings import Workspace

AS_OF = date(2025, 1, 1)
CUTOFFS = 6
KINDS = ("churn", "lifetime_value", "cross_sell")
LIMITS = {"train": "600 s, 12 GB", "score": "30 s"}
# Of the simulated customers this many are known at the first cutoff, 270 days before the end.
_KNOWN = 0.8
_ROW_GROUP = 122_880  # as DuckDB writes a snapshot

Notes = Callable[[str], None]


class Shop(NamedTuple):
    """`customers` are known at every cutoff, about, and `copies` of each of them are scored."""

    folder: Path
    customers: int
    copies: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--customers", type=int, default=1_000_000, help="known at every cutoff, about")
    parser.add_argument("--folder", type=Path, help="where the shop is kept; thrown away if absent")
    parser.add_argument("--copies", type=int, default=1, help="of each customer, who are scored and published")
    asked = parser.parse_args()
    needs.refuse_without(minutes=round(asked.customers / 50_000))
    with tempfile.TemporaryDirectory() as thrown_away:
        folder = (asked.folder or Path(thrown_away)) / f"shop-{asked.customers}"
        folder.mkdir(parents=True, exist_ok=True)
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder.absolute()}/mlflow.db"
        shop = Shop(folder, asked.customers, asked.copies)
        found = {stage.__name__: _apart(stage, shop) for stage in STAGES}
    figures.write("scale", {"customers": asked.customers, "copies": asked.copies, "stages": found})


def _apart(stage: Callable[[Shop, Notes], None], shop: Shop) -> dict[str, float]:
    """Seconds and peak gigabytes of a stage in a fresh process."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:  # its process may start others
        seconds, gigabytes = pool.submit(_timed, stage, shop).result()
    limit = f"   (at most {LIMITS[stage.__name__]})" if stage.__name__ in LIMITS and shop.copies == 1 else ""
    print(f"{stage.__name__:9} {seconds:7.1f} s {gigabytes:6.2f} GB{limit}", flush=True)
    return {"seconds": seconds, "gigabytes": gigabytes}


def _timed(stage: Callable[[Shop, Notes], None], shop: Shop) -> tuple[float, float]:
    start = time.monotonic()

    def note(message: str) -> None:
        print(f"    {time.monotonic() - start:7.1f} s {peak_gigabytes():6.2f} GB: {message}", flush=True)

    stage(shop, note)
    return time.monotonic() - start, peak_gigabytes()


def make(shop: Shop, note: Notes) -> None:
    """The shop's tables, taken in; nothing to do if the folder has them."""
    if (shop.folder / "home/ready").exists():
        return
    simulate(shop.folder / "world", round(shop.customers / _KNOWN), 3, seed=3, ends=AS_OF)
    note("simulated")
    intake.ingest(_workspace(shop), datetime(2025, 1, 2, tzinfo=UTC))
    (shop.folder / "home/ready").touch()


def snapshots(shop: Shop, note: Notes) -> None:
    workspace = _workspace(shop)
    days = pipelines.cutoffs(workspace, AS_OF)
    snapshot.snapshot(workspace, days)
    known = [len(retrieval.customers_at(workspace, day)) for day in days]
    note(f"customers known at {len(days) - 1} cutoffs and the as_of: {', '.join(f'{count:,}' for count in known)}")


def train(shop: Shop, note: Notes) -> None:
    workspace, tracker = _workspace(shop), registry.client()
    versions = pipelines.train(retrieval.apply(workspace), workspace, tracker, AS_OF, KINDS, note)
    for kind, version in versions.items():
        promotion.promote(tracker, workspace, kind, str(version.version))


def copy(shop: Shop, note: Notes) -> None:
    """Each customer so often in the snapshot that is scored; the next `snapshots` makes it anew."""
    for family in (*CUSTOMER_FAMILIES, "product_affinity") if shop.copies > 1 else ():
        lay_beside(storage.snapshot_part(_workspace(shop).home_path, family, AS_OF), shop.copies)


def lay_beside(part: Path, copies: int) -> None:
    """Writes the rows of a part so often, sorted by customer: before the id stands a number, but for the first."""
    file = part / "part.parquet"
    rows = pq.read_table(file)
    with pq.ParquetWriter(part / "copies", rows.schema) as written:
        for number in range(copies):
            ids = pc.binary_join_element_wise(f"~{number:06}-" if number else "", rows["customer_id"], "")
            place = rows.schema.get_field_index("customer_id")
            written.write_table(rows.set_column(place, rows.schema.field(place), ids), row_group_size=_ROW_GROUP)
    (part / "copies").replace(file)
    (part / "_stamp").write_text(f"{copies} copies", encoding="utf-8")


def score(shop: Shop, note: Notes) -> None:
    workspace = _workspace(shop)
    scoring.score(Predictor.load(workspace, registry.client(), AS_OF), AS_OF, note)


def page(shop: Shop, note: Notes) -> None:
    """The first hundred of the list, with their reasons."""
    workspace = _workspace(shop)
    predictor = Predictor.that_scored(workspace, registry.client, AS_OF)
    note(f"{len(churn_risk.churn_risk(predictor, AS_OF)):,} listed")


def publish(shop: Shop, note: Notes) -> None:
    month.publish(_workspace(shop), AS_OF, note)


STAGES = (make, snapshots, train, copy, score, page, publish)


def _workspace(shop: Shop) -> Workspace:
    world, home = shop.folder / "world", shop.folder / "home"
    tables = {table: {"path": str(world / table)} for table in ("transactions", "interactions")}
    tables |= {table: {"path": str(world / f"{table}.parquet")} for table in ("customers", "products")}
    raw = {"name": "scale", "home": str(home), "tables": tables, "training": {"cutoffs": CUTOFFS}}
    return settings.parse(raw, "benchmark")


if __name__ == "__main__":
    main()
