"""How many customers a training needs to look at (`training.customers`), on a simulated shop.

    python -m benchmarks.customers
    python -m benchmarks.customers --customers 30000 --sizes 5000 10000 30000

Churn and lifetime value learn as they would have at the latest cutoff whose window has closed, from samples of the
customers of each size, and are asked about everybody.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks import figures
from features import retrieval, snapshot
from ingest import intake
from simulation.world import simulate
from training import kinds, pipelines
from training.backtests import backtest
from training.learning import datasets
from workspace import settings
from workspace.settings import Workspace

AS_OF = date(2025, 1, 1)
EVERYBODY = 10**9
KINDS = {"churn": ("auc", "average_precision", "brier"), "lifetime_value": ("ngini", "spearman", "decile_wape")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--customers", type=int, default=100_000)
    parser.add_argument("--sizes", type=int, nargs="+", default=[12_500, 25_000, 50_000, 100_000])
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        workspace = _shop(Path(folder), asked.customers)
        whole = datasets.load(retrieval.apply(workspace), workspace, AS_OF, most=EVERYBODY)
        measured = {}
        for size in sorted(asked.sizes):
            part = whole.sampled(datasets.share_of(workspace, AS_OF, size))
            measured[f"{size:,} customers"] = _figures(part, whole, workspace)
            print(pd.DataFrame(measured).T.to_string(float_format=lambda figure: f"{figure:.4f}"), flush=True)
    figures.write("customers", measured)


def _shop(folder: Path, customers: int) -> Workspace:
    simulate(folder / "world", customers, 3, seed=3, ends=AS_OF)
    tables = {table: {"path": str(folder / "world" / table)} for table in ("transactions", "interactions")}
    tables["customers"] = {"path": str(folder / "world/customers.parquet")}
    workspace = settings.parse({"name": "customers", "home": str(folder / "home"), "tables": tables}, "benchmark")
    intake.ingest(workspace, datetime(2025, 1, 2, tzinfo=UTC))
    snapshot.snapshot(workspace, pipelines.cutoffs(workspace, AS_OF, tuple(KINDS)))
    return workspace


def _figures(part: datasets.Dataset, whole: datasets.Dataset, workspace: Workspace) -> dict[str, float]:
    """Of models taught by a part of the customers, asked about all of them; and the seconds that teaching took."""
    known = backtest.known_at(part, workspace, part.closed[-1])
    figures: dict[str, float] = {}
    for kind, metrics in KINDS.items():
        start = time.monotonic()
        judged = kinds.kind_of(kind).judge_at(known, workspace, whole.closed[-1], None)
        figures |= {f"{kind}, s": time.monotonic() - start}
        figures |= judged.figures(judged.answers[0], np.arange(len(judged.actual)), metrics)
    return figures


if __name__ == "__main__":
    main()
