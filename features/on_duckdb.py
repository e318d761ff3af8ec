"""Snapshots computed by DuckDB, in this process: the engine that everyone starts with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import duckdb
import ibis
import ibis.expr.types as ir

from features import segments
from features.known import Tables
from perennial import storage
from perennial.settings import Workspace


@contextmanager
def opened(workspace: Workspace, progress: Callable[[str], None]) -> Iterator[OnDuckDB]:
    """DuckDB over the workspace's days, which are brought up to date with its tables first."""
    with storage.connect(workspace.home_path, workspace.timezone, workspace.memory) as connection:
        yield OnDuckDB(connection, segments.read(connection, workspace, progress))


class OnDuckDB:
    """What `features.on_spark.OnSpark` does, on one connection."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, tables: Tables) -> None:
        self.connection, self.tables = connection, tables
        self.backend = ibis.duckdb.from_connection(connection)

    def read(self, part: Path) -> ir.Table:
        """The rows of a part that was written."""
        return self.backend.read_parquet(str(part / "*.parquet"))

    def keep(self, rows: ir.Table) -> ir.Table:
        """The same rows, computed once; the rows kept before are let go."""
        self.connection.execute("DROP TABLE IF EXISTS kept")
        return self.backend.create_table("kept", rows, temp=True)

    def write(self, rows: ir.Table, keys: tuple[str, ...], as_of: datetime, features: list[str], folder: Path) -> None:
        """Writes `keys`, the instant `as_of` and float32 `features` to one file, sorted by key."""
        floats = ", ".join(f'CAST("{name}" AS FLOAT) AS "{name}"' for name in features)
        by, instant = ", ".join(keys), f"TIMESTAMPTZ '{as_of.isoformat()}' AS as_of"
        self.backend.create_view("family_rows", rows, overwrite=True)
        query = f"SELECT {by}, {instant}, {floats} FROM family_rows ORDER BY {by}"
        storage.copy_to(self.connection, query, folder / "part.parquet")
