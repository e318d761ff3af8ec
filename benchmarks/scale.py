"""Churn and lifetime value at size: trained on six cutoffs of a million customers, and a million customers scored.

    python -m benchmarks.scale --customers 100000
    python -m benchmarks.scale --customers 1000000 --folder var/scale      # the shop is kept there for the next time

Of a simulated shop so many customers are known at every cutoff. Making the shop, its snapshots, training (on a sample
of `training.customers` and with its backtests, as always) and scoring are each a process of its own; what is to be
reached (10 minutes and 12 GB, 30 seconds) stands beside the two that have a limit, and holds for a million customers on
two cores.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path

from benchmarks import figures
from benchmarks.fits import peak_gigabytes
from features import retrieval, snapshot
from ingest import intake
from serving import scoring
from serving.predictor import Predictor
from simulation.world import simulate
from training import pipelines
from training.gate import promotion
from workspace import registry, settings
from workspace.settings import Workspace

AS_OF = date(2025, 1, 1)
CUTOFFS = 6
KINDS = ("churn", "lifetime_value")
LIMITS = {"train": "600 s, 12 GB", "score": "30 s"}
# Of the simulated customers this many are known at the first cutoff, 270 days before the end.
_KNOWN = 0.8

Notes = Callable[[str], None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--customers", type=int, default=1_000_000, help="known at every cutoff, about")
    parser.add_argument("--folder", type=Path, help="where the shop is kept; thrown away if absent")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as thrown_away:
        folder = (asked.folder or Path(thrown_away)) / f"shop-{asked.customers}"
        folder.mkdir(parents=True, exist_ok=True)
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder.absolute()}/mlflow.db"
        found = {stage.__name__: _apart(stage, folder, asked.customers) for stage in STAGES}
    figures.write("scale", {"customers": asked.customers, "stages": found})


def _apart(stage: Callable[[Path, int, Notes], None], folder: Path, customers: int) -> dict[str, float]:
    """Seconds and peak gigabytes of a stage in a fresh process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        seconds, gigabytes = pool.apply(_timed, (stage, folder, customers))
    limit = f"   (at most {LIMITS[stage.__name__]})" if stage.__name__ in LIMITS else ""
    print(f"{stage.__name__:9} {seconds:7.1f} s {gigabytes:6.2f} GB{limit}", flush=True)
    return {"seconds": seconds, "gigabytes": gigabytes}


def _timed(stage: Callable[[Path, int, Notes], None], folder: Path, customers: int) -> tuple[float, float]:
    start = time.monotonic()

    def note(message: str) -> None:
        print(f"    {time.monotonic() - start:7.1f} s {peak_gigabytes():6.2f} GB: {message}", flush=True)

    stage(folder, customers, note)
    return time.monotonic() - start, peak_gigabytes()


def make(folder: Path, customers: int, note: Notes) -> None:
    """The shop's tables, taken in; nothing to do if the folder has them."""
    if (folder / "home/ready").exists():
        return
    simulate(folder / "world", round(customers / _KNOWN), 3, seed=3, ends=AS_OF)
    note("simulated")
    intake.ingest(_workspace(folder), datetime(2025, 1, 2, tzinfo=UTC))
    (folder / "home/ready").touch()


def snapshots(folder: Path, customers: int, note: Notes) -> None:
    workspace = _workspace(folder)
    days = pipelines.cutoffs(workspace, AS_OF)
    snapshot.snapshot(workspace, days)
    known = [len(retrieval.customers_at(workspace, day)) for day in days]
    note(f"customers known at {len(days) - 1} cutoffs and the as_of: {', '.join(f'{count:,}' for count in known)}")


def train(folder: Path, customers: int, note: Notes) -> None:
    workspace, tracker = _workspace(folder), registry.client()
    versions = pipelines.train(retrieval.apply(workspace), workspace, tracker, AS_OF, KINDS, note)
    for kind, version in versions.items():
        promotion.promote(tracker, workspace, kind, str(version.version))


def score(folder: Path, customers: int, note: Notes) -> None:
    workspace = _workspace(folder)
    scoring.score(Predictor.load(workspace, registry.client(), AS_OF), AS_OF, note)


STAGES = (make, snapshots, train, score)


def _workspace(folder: Path) -> Workspace:
    tables = {table: {"path": str(folder / "world" / table)} for table in ("transactions", "interactions")}
    tables["customers"] = {"path": str(folder / "world/customers.parquet")}
    return settings.parse(
        {"name": "scale", "home": str(folder / "home"), "tables": tables, "training": {"cutoffs": CUTOFFS}}, "benchmark"
    )


if __name__ == "__main__":
    main()
