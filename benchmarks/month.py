"""One month of a shop of 100,000 customers and 5 million lines, from new files to published scores, stage by stage.

    python -m benchmarks.month
    python -m benchmarks.month --customers 20000 --folder var/month    # what is made is kept there for the next time

The shop has run up to the month before; that is made ready first, and not counted. Then a month's files arrive, and
`perennial run` is started as a user would start it: it takes them in, computes the snapshots, watches, trains three
models without tuning, judges them against the champions, scores and publishes. What is to be reached, 10 minutes and
8 GB on two cores, stands below the sum. Beside the seconds on the clock stand those of the processor, which other work
on the machine hardly changes; the memory is the most that was held during the stage.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import yaml

from benchmarks import figures, needs, tables
from simulation.world import simulate
from workspace import storage

BEFORE, AS_OF = date(2024, 12, 1), date(2025, 1, 1)
YEARS = 3
EVENTS = ("transactions", "interactions")
OTHERS = ("customers", "products", "campaigns")
LIMITS = "180 s for the first month, 120 s for a further one; 3 GB"


@dataclass
class Used:
    """By one stage: seconds on the clock and of the processor, and the most gigabytes held."""

    stage: str
    seconds: float
    processor: float
    gigabytes: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--customers", type=int, default=106_000, help="106,000 of them buy 5 million lines")
    parser.add_argument("--folder", type=Path, help="where the shop is kept; thrown away if absent")
    asked = parser.parse_args()
    needs.refuse_without(minutes=round(asked.customers / 7_000))
    with tempfile.TemporaryDirectory() as thrown_away:
        folder = (asked.folder or Path(thrown_away)).absolute() / f"shop-{asked.customers}"
        if not (folder / "ready").exists():
            make_ready(folder, asked.customers)
        stages = a_month(folder)
    used = [asdict(one) for one in (*stages, summed(stages))]
    measured = {"customers": asked.customers, "stages": used, "to_reach": LIMITS}
    print(tables.month(measured))
    figures.write("month", measured)


def summed(stages: list[Used]) -> Used:
    seconds, processor = sum(used.seconds for used in stages), sum(used.processor for used in stages)
    return Used("all", seconds, processor, max(used.gigabytes for used in stages))


def make_ready(folder: Path, customers: int) -> None:
    """The shop as it stood a month before the end: its files, its tables taken in, its models trained and promoted."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    simulate(folder / "world", customers, YEARS, seed=3, ends=AS_OF)
    for table in EVENTS:
        _split(folder / "world" / table, folder / table, folder / f"{table}-month.parquet")
    (folder / "workspace.yaml").write_text(yaml.safe_dump(settings_of(folder)))
    run_by_stage(folder / "workspace.yaml", folder / "home", folder, BEFORE)
    (folder / "ready").touch()


def _split(world: Path, history: Path, month: Path) -> None:
    """Into a folder with what happened before the month, and what has no time, and a file with the rest."""
    history.mkdir()
    rows = f"SELECT * FROM {storage.reader(sorted(world.glob('*.parquet')))}"
    before = f"coalesce(occurred_at < TIMESTAMPTZ '{BEFORE} 00:00:00Z', true)"
    for file, wanted in ((history / "history.parquet", before), (month, f"NOT {before}")):
        duckdb.execute(f"COPY ({rows} WHERE {wanted}) TO {storage.quoted(file)} (FORMAT parquet)")


def settings_of(folder: Path, events: Path | None = None) -> dict[str, Any]:
    """Of the shop in `folder`, whose transactions and interactions lie there or in another folder."""
    tables: dict[str, Any] = {table: {"path": str((events or folder) / table)} for table in EVENTS}
    tables |= {table: {"path": str(folder / "world" / f"{table}.parquet")} for table in OTHERS}
    tables["customers"]["complete"] = True
    attributes = ["region", "age", "acquisition_channel"]
    retraining = {"max_age": 28}  # a training every month
    return {"name": "month", "tables": tables, "attributes": attributes, "retraining": retraining}


def a_month(folder: Path) -> list[Used]:
    """The month's files arrive in copies of the home and the registry, which stay as they were."""
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        shutil.copytree(folder / "home", Path(scratch) / "home")
        shutil.copy(folder / "mlflow.db", scratch)  # its artifacts are read where they were, new ones lie beside it
        for table in EVENTS:
            shutil.copy(folder / f"{table}-month.parquet", folder / table / "month.parquet")
        try:
            return run_by_stage(folder / "workspace.yaml", Path(scratch) / "home", Path(scratch), AS_OF)
        finally:
            for table in EVENTS:
                (folder / table / "month.parquet").unlink()


def run_by_stage(config: Path, home: Path, registry: Path, as_of: date) -> list[Used]:
    """What each stage of `perennial run` used; what the run says goes to the terminal."""
    environment = os.environ | {"MLFLOW_TRACKING_URI": f"sqlite:///{registry}/mlflow.db"}
    command = [sys.executable, "-m", "perennial", "run", "-c", str(config), "--home", str(home), "--as-of", str(as_of)]
    stages: list[Used] = []
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as run:
        process, start, before = Path(f"/proc/{run.pid}"), time.monotonic(), 0.0
        assert run.stderr is not None
        for line in run.stderr:
            print(f"    {line}", end="", flush=True)
            said = re.search(r"\[\d/\d\] (\w+)|page: .*/run-", line)
            if said is None:
                continue
            if stages:
                now, processor = time.monotonic(), _processor_seconds(process)
                stages[-1] = Used(stages[-1].stage, now - start, processor - before, _peak_gigabytes(process))
                start, before = now, processor
            (process / "clear_refs").write_text("5")  # the peak is counted anew
            if said[1]:
                stages.append(Used(said[1], 0.0, 0.0, 0.0))
    if run.returncode == 2:
        raise SystemExit("the run could not be started")
    return stages


def _processor_seconds(process: Path) -> float:
    user, system = (process / "stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def _peak_gigabytes(process: Path) -> float:
    return int((process / "status").read_text().split("VmHWM:")[1].split()[0]) / 1024**2


if __name__ == "__main__":
    main()
