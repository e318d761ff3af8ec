"""Small tables and workspaces for tests, built from what the test is about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import yaml

from ingest.intake import Account, ingest
from workspace import settings, storage
from workspace.settings import Workspace

# What the tests take for the present.
NOW = datetime(2024, 7, 1, 12, tzinfo=UTC)


def make_transactions(rows: Sequence[tuple[Any, Any, Any]], **columns: Any) -> pd.DataFrame:
    """One line per (customer_id, occurred_at, amount), in a transaction of its own unless `columns` say otherwise."""
    lines = pd.DataFrame(rows, columns=["customer_id", "occurred_at", "amount"])
    lines.insert(0, "transaction_id", [f"t{number}" for number in range(1, len(lines) + 1)])
    return lines.assign(**columns)


def many_transactions(count: int, **columns: Any) -> pd.DataFrame:
    """So many different lines of 2024's first half, ten customers taking turns."""
    number = pd.Series(range(count), dtype="int64")
    lines = pd.DataFrame(
        {
            "transaction_id": "t" + (number + 1).astype(str),
            "customer_id": "c" + (number % 10).astype(str),
            "occurred_at": pd.Timestamp("2024-01-01")
            + pd.to_timedelta(number * (150 * 86400 // max(count, 1)), unit="s"),
            "amount": number.astype(float),
        }
    )
    return lines.assign(**columns)


def write(path: Path, rows: pd.DataFrame | str | bytes) -> Path:
    """Writes rows as what the ending says, or a CSV file's text as it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(rows, bytes):
        path.write_bytes(rows)
    elif isinstance(rows, str):
        path.write_bytes(rows.encode())
    elif path.suffix == ".parquet":
        rows.to_parquet(path, index=False)
    else:
        rows.to_csv(path, index=False)
    return path


def write_workspace(
    folder: Path, transactions: Mapping[str, Any] | pd.DataFrame | str, *, tables: Mapping[str, Any] | None = None,
    **keys: Any,
) -> Path:  # fmt: skip
    """A workspace file in `folder`, its home in `folder/home`; `tables` are the others besides `transactions`.

    A table is its settings, or its rows, which become a Parquet file, or the text of a CSV file.
    """
    wanted = {"transactions": transactions, **(tables or {})}
    given = {name: _table(folder, name, rows) for name, rows in wanted.items()}
    path = folder / "shop.yaml"
    whole = {"name": "shop", "home": str(folder / "home"), "tables": given, **keys}
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(whole, allow_unicode=True), encoding="utf-8")
    return path


def _table(folder: Path, name: str, rows: Mapping[str, Any] | pd.DataFrame | str) -> dict[str, Any]:
    if isinstance(rows, Mapping):
        return dict(rows)
    return {"path": str(write(folder / f"{name}{'.csv' if isinstance(rows, str) else '.parquet'}", rows))}


def take_in(path: Path, now: datetime = NOW, *overrides: str) -> dict[str, Account]:
    """Ingests a workspace file's tables; an account per table."""
    return {account.table: account for account in ingest(settings.read(path, overrides), now)}


def accepted(path: Path, table: str = "transactions") -> pd.DataFrame:
    """The accepted rows of a table, all parts, in the order of their columns' values."""
    workspace = settings.read(path)
    with storage.connect(workspace.home_path, workspace.timezone) as connection:
        times = _times(connection, workspace, table)
        query = f"SELECT * REPLACE ({times}) FROM {_accepted(workspace, table)} ORDER BY ALL"
        return connection.execute(query).df()


def _accepted(workspace: Workspace, table: str) -> str:
    return storage.rows_of(workspace.home_path, table)


def _times(connection: duckdb.DuckDBPyConnection, workspace: Workspace, table: str) -> str:
    """Instants and days as texts, which compare the same whatever pandas makes of them."""
    described = connection.execute(f"DESCRIBE SELECT * FROM {_accepted(workspace, table)}").fetchall()
    return ", ".join(f"CAST({row[0]} AS VARCHAR) AS {row[0]}" for row in described if row[1] != "DOUBLE")


def quarantined(path: Path, table: str = "transactions", refused: bool = False) -> pd.DataFrame:
    """The rows in quarantine, or those for which ingest refused a source, in the order of their lines."""
    name = f"{table}.refused.parquet" if refused else f"{table}.parquet"
    return pd.read_parquet(settings.read(path).home_path / "quarantine" / name).sort_values(["source", "line"])
