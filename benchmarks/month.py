"""One month of a shop of 100,000 customers and 5 million lines, from new files to published scores, stage by stage.

    python -m benchmarks.month
    python -m benchmarks.month --customers 20000 --folder var/month    # what is made is kept there for the next time

The shop has run up to the month before; that is made ready first, and not counted. Then a month's files arrive, and
`perennial run` is started as a user would start it: it takes them in, computes the snapshots, watches, trains three
models, judges them against the champions, scores and publishes. What is to be reached, 10 minutes and 8 GB on two
cores, stands below the sum; `peak` is the most memory that the process has held up to the end of the stage.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import yaml

from perennial import storage
from perennial.simulate import simulate

RESULTS = Path("benchmarks/results")
BEFORE, AS_OF = date(2024, 12, 1), date(2025, 1, 1)
YEARS = 3
EVENTS = ("transactions", "interactions")
LIMITS = "600 s, 8 GB"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--customers", type=int, default=106_000, help="106,000 of them buy 5 million lines")
    parser.add_argument("--folder", type=Path, help="where the shop is kept; thrown away if absent")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as thrown_away:
        folder = (asked.folder or Path(thrown_away)).absolute() / f"shop-{asked.customers}"
        if not (folder / "ready").exists():
            make_ready(folder, asked.customers)
        found = measured(folder)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "month.json").write_text(json.dumps({"customers": asked.customers, "stages": found}, indent=1))


def make_ready(folder: Path, customers: int) -> None:
    """The shop as it stood a month before the end: its files, its tables taken in, its models trained and promoted."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    simulate(folder / "world", customers, YEARS, seed=3, ends=AS_OF)
    for table in EVENTS:
        _split(folder / "world" / table, folder / table)
    (folder / "workspace.yaml").write_text(yaml.safe_dump(_settings(folder)))
    _run(folder, BEFORE)
    (folder / "ready").touch()


def _split(world: Path, to: Path) -> None:
    """`history.parquet` has what happened before the month, and what has no time; `month.parquet` the rest, apart."""
    to.mkdir()
    rows = f"SELECT * FROM {storage.reader(sorted(world.glob('*.parquet')))}"
    for file, wanted in (
        (to / "history.parquet", "coalesce({}, true)"),
        (to.with_name(f"{to.name}-month.parquet"), "NOT {}"),
    ):
        condition = wanted.format(f"(occurred_at < '{BEFORE}')")
        duckdb.execute(f"COPY ({rows} WHERE {condition}) TO {storage.quoted(file)} (FORMAT parquet)")


def _settings(folder: Path) -> dict[str, Any]:
    tables = {table: {"path": str(folder / table)} for table in EVENTS}
    tables |= {
        table: {"path": str(folder / "world" / f"{table}.parquet")} for table in ("customers", "products", "campaigns")
    }
    return {
        "name": "month",
        "home": str(folder / "home"),
        "tables": tables,
        "attributes": ["region", "age", "acquisition_channel"],
    }


def _run(folder: Path, as_of: date) -> None:
    environment = os.environ | {"MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"}
    command = [sys.executable, "-m", "perennial", "run", "-c", str(folder / "workspace.yaml"), "--as-of", str(as_of)]
    subprocess.run(command, env=environment, check=False)


if __name__ == "__main__":
    main()
