"""Feature snapshots beside DuckDB's bare group by, the floor, and beside the same features in pandas.

    python -m benchmarks.features --transactions 2000000 --customers 40000 --cutoffs 12
    python -m benchmarks.features --transactions 50000000 --customers 1000000 --cutoffs 12    # about 20 minutes

A simulated shop of three years is taken in as exports in the order of time, a file per quarter, its last day apart.
Every measurement is a process of its own. Beyond `--pandas` lines pandas runs on a shop of that many lines.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd

from benchmarks import figures, needs, pandas_features, tables
from features import snapshot
from ingest import intake
from simulation.world import simulate
from workspace import settings, storage
from workspace.settings import Workspace

ENDS = date(2025, 1, 1)
LAST_DAY = ENDS - timedelta(days=1)
# Lines of a simulated customer in three years, per line of a purchase.
_LINES = 47.3 / 3.5
_AFTERWARDS = datetime(2025, 1, 2, tzinfo=UTC)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--transactions", type=int, default=2_000_000, help="lines, about")
    parser.add_argument("--customers", type=int, default=40_000)
    parser.add_argument("--cutoffs", type=int, default=12, help="as_of dates, 30 days apart")
    parser.add_argument(
        "--pandas", type=int, default=2_000_000, help="lines that pandas is given at most; 0: leave out"
    )
    parser.add_argument("--spark", action="store_true", help="the small shop on Spark too (the extra `spark`)")
    parser.add_argument("--folder", type=Path, help="where shops are kept for the next run; thrown away if absent")
    asked = parser.parse_args()
    needs.refuse_without(minutes=round(asked.transactions * asked.cutoffs / 30_000_000))
    with tempfile.TemporaryDirectory() as thrown_away:
        folder = asked.folder or Path(thrown_away)
        measured = {asked.transactions: _on_a_copy(
            folder, asked.transactions, asked.customers, lambda shop: _measure(shop, asked.cutoffs)
        )}  # fmt: skip
        if asked.pandas:
            lines = min(asked.pandas, asked.transactions)
            customers = round(asked.customers * lines / asked.transactions)
            others = _on_a_copy(folder, lines, customers, lambda shop: _beside_others(shop, asked.spark))
            measured[lines] = measured.get(lines, {}) | others
    parts = {f"{lines:,} lines": part for lines, part in measured.items()}
    for shop in parts:
        print(f"\n{tables.features(parts, shop)}")
    figures.write("features", parts)


def _on_a_copy(
    folder: Path, lines: int, customers: int, measure: Callable[[Workspace], dict[str, Any]]
) -> dict[str, Any]:
    """Measures on a copy of the shop of that size, which is made first if it is not there."""
    shop = folder / f"shop-{lines}-{customers}"
    if not shop.exists():
        _make(shop.with_suffix(".draft"), lines, customers)
        shop.with_suffix(".draft").rename(shop)
    with tempfile.TemporaryDirectory(dir=folder) as copy:
        shutil.copytree(shop, copy, dirs_exist_ok=True)
        return measure(_workspace(Path(copy)))


def _workspace(folder: Path) -> Workspace:
    tables = {
        **{table: {"path": str(folder / "exports" / table)} for table in ("transactions", "interactions")},
        **{table: {"path": str(folder / f"{table}.parquet")} for table in ("customers", "products", "campaigns")},
    }
    return settings.parse({"name": "bench", "home": str(folder / "home"), "tables": tables}, "benchmark")


def _make(folder: Path, lines: int, customers: int) -> None:
    """A workspace that has taken in all but the last day of a simulated shop."""
    shutil.rmtree(folder, ignore_errors=True)
    world = folder / "world"
    simulate(world, customers, 3, seed=3, ends=ENDS, lines_per_purchase=max(lines / customers / _LINES, 1.0))
    with duckdb.connect() as connection:
        for table in ("transactions", "interactions"):
            _export(connection, world / table, folder / "exports" / table)
    for table in ("customers", "products", "campaigns"):
        (world / f"{table}.parquet").rename(folder / f"{table}.parquet")
    shutil.rmtree(world)
    start = time.monotonic()
    accounts = intake.ingest(_workspace(folder), _AFTERWARDS)
    taken = sum(account.accepted for account in accounts)
    print(f"ingest: {taken:,} rows in {time.monotonic() - start:.0f} s", flush=True)


def _export(connection: duckdb.DuckDBPyConnection, source: Path, target: Path) -> None:
    """The rows in the order in which they were recorded, as a till would export them."""
    target.mkdir(parents=True)
    rows = f"(SELECT *, coalesce(recorded_at, occurred_at)::DATE AS booked FROM '{source}/*.parquet')"
    starts = [date(year, month, 1) for year in (2022, 2023, 2024) for month in (1, 4, 7, 10)]
    for start, end in zip(starts, [*starts[1:], LAST_DAY], strict=True):
        where = f"booked >= '{start}' AND booked < '{end}'" if start > starts[0] else f"booked < '{end}'"
        _copy(
            connection, rows, f"{where} OR booked IS NULL" if start == starts[0] else where, target / f"{start}.parquet"
        )
    _copy(connection, rows, f"booked >= '{LAST_DAY}'", target / "last.later")


def _copy(connection: duckdb.DuckDBPyConnection, rows: str, where: str, path: Path) -> None:
    connection.execute(
        f"COPY (SELECT * EXCLUDE (booked) FROM {rows} WHERE {where} ORDER BY occurred_at) TO '{path}' (FORMAT parquet)"
    )


def _measure(workspace: Workspace, cutoffs: int) -> dict[str, Any]:
    floor = {table: _floor(workspace, table) for table in ("transactions", "interactions")}
    measured: dict[str, Any] = {
        "rows": _size(workspace),
        "floor": floor,
        "one": _apart(_snapshots, workspace, [LAST_DAY]),
    }
    if cutoffs > 1:
        _forget(workspace)
        days = [LAST_DAY - timedelta(days=30 * i) for i in range(cutoffs)]
        measured |= {"dates": cutoffs, "many": _apart(_snapshots, workspace, days)}
    return measured | _next_day(workspace)


def _next_day(workspace: Workspace) -> dict[str, Any]:
    """A day of data more: only what is new is summed up; the result is that of starting over."""
    for later in workspace.home_path.parent.glob("exports/*/last.later"):
        later.rename(later.with_suffix(".parquet"))
    intake.ingest(workspace, _AFTERWARDS)
    following = _apart(_snapshots, workspace, [ENDS])
    parts = [storage.snapshot_part(workspace.home_path, family, ENDS) for family in snapshot.families(workspace)]
    before = [pd.read_parquet(part) for part in parts]
    _forget(workspace)
    whole = _apart(_snapshots, workspace, [ENDS])
    for rows, part in zip(before, parts, strict=True):
        pd.testing.assert_frame_equal(rows, pd.read_parquet(part), rtol=1e-6, atol=1e-9)
    return {"next day": following, "next day from scratch": whole}


def _beside_others(workspace: Workspace, spark: bool) -> dict[str, Any]:
    measured = {"rows": _size(workspace), "ours": _apart(_snapshots, workspace, [LAST_DAY])}
    measured |= {"pandas": _apart(_in_pandas, workspace), "agree": _compared(workspace)}
    if spark:
        _forget(workspace)
        measured["spark"] = _apart(_snapshots, workspace.model_copy(update={"engine": "spark"}), [LAST_DAY])
    return measured


def _floor(workspace: Workspace, table: str) -> float:
    """The median of three times what the barest question about all customers takes, in seconds."""
    figure = "sum(amount)" if table == "transactions" else "sum(value)"
    rows, seconds = storage.rows_of(workspace.home_path, table), []
    with storage.connect(workspace.home_path) as connection:
        for _ in range(3):
            start = time.monotonic()
            query = f"SELECT customer_id, count(*), {figure}, max(occurred_at) FROM {rows} GROUP BY customer_id"
            connection.execute(f"CREATE OR REPLACE TEMP TABLE floor AS {query}").fetchall()
            seconds.append(time.monotonic() - start)
    return statistics.median(seconds)


def _size(workspace: Workspace) -> dict[str, int]:
    """Rows by table."""
    names = ("transactions", "interactions", "customers")
    counts = (f"SELECT count(*) FROM {storage.rows_of(workspace.home_path, name)}" for name in names)
    return {name: duckdb.execute(count).fetchall()[0][0] for name, count in zip(names, counts, strict=True)}


def _apart(work: Callable[..., None], *arguments: Any) -> tuple[float, float]:
    """Seconds and peak gigabytes of `work` in a fresh process, its imports left out of the time."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_timed, (work, *arguments))


def _timed(work: Callable[..., None], *arguments: Any) -> tuple[float, float]:
    start = time.monotonic()
    work(*arguments)
    return time.monotonic() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2


def _snapshots(workspace: Workspace, as_of_dates: list[date]) -> None:
    snapshot.snapshot(workspace, as_of_dates)


def _in_pandas(workspace: Workspace) -> None:
    by_family = pandas_features.compute(_frames(workspace), LAST_DAY)
    for family, rows in by_family.items():
        rows.astype("float32").to_parquet(workspace.home_path / f"pandas-{family}.parquet")


def _frames(workspace: Workspace) -> dict[str, pd.DataFrame]:
    names = ("transactions", "interactions", "customers", "products")
    folders = {name: storage.tables_folder(workspace.home_path, name) for name in names}
    rows = {name: pd.concat(map(pd.read_parquet, storage.parts(folder))) for name, folder in folders.items()}
    for table in rows.values():
        for name in table.columns.intersection(["day", "known_day", "resolved_day", "signed_up_day"]):
            table[name] = pd.to_datetime(table[name])
    return rows


def _compared(workspace: Workspace) -> int:
    """How many features pandas has computed; a value that differs from ours by more than rounding is an error."""
    count = 0
    for family in snapshot.families(workspace):
        ours = pd.read_parquet(storage.snapshot_part(workspace.home_path, family, LAST_DAY))
        ours = ours.set_index(list(snapshot.KEYS[family]))
        theirs = pd.read_parquet(workspace.home_path / f"pandas-{family}.parquet").reindex(ours.index)
        for name in theirs:
            np.testing.assert_allclose(theirs[name], ours[name], rtol=1e-3, atol=1e-2, err_msg=f"{family}: {name}")
        count += theirs.shape[1]
    return count


def _forget(workspace: Workspace) -> None:
    for folder in ("days", "snapshots"):
        shutil.rmtree(workspace.home_path / folder)


if __name__ == "__main__":
    main()
