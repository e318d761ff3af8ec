"""The training set out of Feast: every customer feature of 12 as_of dates x 100,000 customers, point-in-time.

    python -m benchmarks.training_join
    python -m benchmarks.training_join --customers 20000 --cutoffs 3

A row is lost if a customer known at an as_of is not in the answer, or comes without that as_of's snapshot: either is an
error (`features.retrieval.customer_rows`). The same rows read from the Parquet parts and joined by pandas stand beside.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pandas as pd

from benchmarks import figures, tables
from features import retrieval, snapshot
from ingest import intake
from simulation.world import simulate
from workspace import settings, storage
from workspace.settings import Workspace

ENDS = date(2025, 1, 1)
# Of the simulated customers nine in ten are known a year before the end.
_SPARE = 1.2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--customers", type=int, default=100_000, help="known at every as_of, at least")
    parser.add_argument("--cutoffs", type=int, default=12)
    asked = parser.parse_args()
    dates = [ENDS - timedelta(days=30 * i) for i in range(asked.cutoffs)]
    with tempfile.TemporaryDirectory() as folder:
        workspace = _shop(Path(folder), round(asked.customers * _SPARE))
        snapshot.snapshot(workspace, dates)
        least = min(len(retrieval.customers_at(workspace, day)) for day in dates)
        print(f"{len(dates)} as_of dates, {least:,} customers known at the earliest of them", flush=True)
        found = {work.__name__[1:]: _apart(work, workspace, dates) for work in (_feast, _pandas)}
    for way in found:
        print(f"{way:8} {tables.join(found, way)}")
    figures.write("training_join", found)


def _shop(folder: Path, customers: int) -> Workspace:
    world = folder / "world"
    simulate(world, customers, 3, seed=3, ends=ENDS)
    tables = {table: {"path": str(world / table)} for table in ("transactions", "interactions")}
    tables |= {table: {"path": str(world / f"{table}.parquet")} for table in ("customers", "products", "campaigns")}
    workspace = settings.parse({"name": "bench", "home": str(folder / "home"), "tables": tables}, "benchmark")
    intake.ingest(workspace, datetime(2025, 1, 2, tzinfo=UTC))
    return workspace


def _feast(workspace: Workspace, dates: Sequence[date]) -> pd.DataFrame:
    return retrieval.customer_rows(retrieval.apply(workspace), workspace, dates)


def _pandas(workspace: Workspace, dates: Sequence[date]) -> pd.DataFrame:
    def rows(day: date) -> pd.DataFrame:
        families = [
            pd.read_parquet(storage.snapshot_part(workspace.home_path, family, day)).drop(columns="as_of")
            for family in snapshot.CUSTOMER_FAMILIES
        ]
        joined = families[0]
        for more in families[1:]:
            joined = joined.merge(more, on="customer_id", validate="one_to_one")
        return joined.assign(as_of=pd.Timestamp(day))

    return pd.concat([rows(day) for day in dates], ignore_index=True)


def _apart(
    work: Callable[[Workspace, Sequence[date]], pd.DataFrame], workspace: Workspace, dates: Sequence[date]
) -> dict[str, float]:
    """Seconds, peak gigabytes, rows and columns of `work` in a fresh process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_timed, (work, workspace, dates))


def _timed(
    work: Callable[[Workspace, Sequence[date]], pd.DataFrame], workspace: Workspace, dates: Sequence[date]
) -> dict[str, float]:
    start = time.monotonic()
    rows = work(workspace, dates)
    seconds, gigabytes = time.monotonic() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    return {"rows": len(rows), "columns": rows.shape[1], "seconds": seconds, "gigabytes": gigabytes}


if __name__ == "__main__":
    main()
