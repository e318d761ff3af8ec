"""Snapshots computed by DuckDB, in this process: the engine that everyone starts with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, datetime
from pathlib import Path

import duckdb
import ibis
import ibis.expr.types as ir

from features import day_files
from features.families.known import Tables
from workspace import storage
from workspace.settings import Workspace


@contextmanager
def opened(workspace: Workspace, progress: Callable[[str], None]) -> Iterator[OnDuckDB]:
    """DuckDB over the workspace's days, which are brought up to date with its tables first."""
    with storage.connect(workspace.home_path, workspace.timezone, workspace.memory) as connection:
        yield OnDuckDB(connection, day_files.read(connection, workspace, progress))


@ibis.udf.scalar.builtin(name="getvariable", signature=(("string",), "date"))
def _variable(called: str) -> date:  # type: ignore[empty-body]
    """DuckDB's own: what a variable of the connection was set to."""


def set_as_of(connection: duckdb.DuckDBPyConnection, as_of: date) -> ir.DateScalar:
    """The as_of of what the connection runs from now on, as expressions name it."""
    connection.execute(f"SET VARIABLE as_of = DATE '{as_of}'")
    return _variable("as_of")


class OnDuckDB:
    """What `features.on_spark.OnSpark` does, on one connection.

    The as_of is a variable in all that is put together here, each thing once for all dates: that takes longer than most
    of it runs.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection, tables: Tables) -> None:
        self.connection, self.tables = connection, tables
        self.backend = ibis.duckdb.from_connection(connection)
        self.views: set[str] = set()

    def set_as_of(self, as_of: date) -> ir.DateScalar:
        return set_as_of(self.connection, as_of)

    def keep(self, name: str, rows: Callable[[], ir.Table]) -> ir.Table:
        """The same rows, computed once; those kept by this name before are let go."""
        view = self._view(name, rows)
        self.connection.execute(f"CREATE OR REPLACE TEMP TABLE {name} AS FROM {view}")
        return self.backend.table(name)

    def write(
        self, family: str, rows: Callable[[], ir.Table], keys: tuple[str, ...], as_of: datetime, features: list[str],
        folder: Path,
    ) -> None:  # fmt: skip
        """Writes `keys`, the instant `as_of` and float32 `features` to one file, sorted by key."""
        floats = ", ".join(f'CAST("{name}" AS FLOAT) AS "{name}"' for name in features)
        by, instant = ", ".join(keys), f"TIMESTAMPTZ '{as_of.isoformat()}' AS as_of"
        query = f"SELECT {by}, {instant}, {floats} FROM {self._view(family, rows)} ORDER BY {by}"
        storage.copy_to(self.connection, query, folder / "part.parquet")

    def _view(self, name: str, rows: Callable[[], ir.Table]) -> str:
        """The name of a view of the rows, which asks for the as_of whenever it is read."""
        view = f"{name}_at_as_of"
        if view not in self.views:
            self.backend.create_view(view, rows())
            self.views.add(view)
        return view
