"""A SQL table as a source: copied in blocks to a Parquet file that is then read like any other."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workspace.settings import SettingsError, Table
from workspace.storage import replacing

if TYPE_CHECKING:
    import pyarrow as pa
    import sqlalchemy

_BLOCK = 100_000  # rows in memory at a time


def origin(table: Table) -> str:
    """The table's address without its secrets: what an account calls it by."""
    return f"{_url(table).set(query={}).render_as_string(hide_password=True)}#{table.table}"


def is_sqlite(table: Table) -> bool:
    """SQLite keeps any value in any column, so its values are copied as texts."""
    return _url(table).get_backend_name() == "sqlite"


def copy(name: str, table: Table, path: Path) -> None:
    """Writes all rows of the SQL table to `path`, in the order of its primary key.

    Raises:
        SettingsError: no such database or table, no driver for it, values that do not fit the column's type.
    """
    import sqlalchemy

    with _explained(name, table):
        engine = sqlalchemy.create_engine(_existing(_url(table)))
        try:
            columns, query = _reflected(engine, str(table.table))
            kinds = [_string() if is_sqlite(table) else _arrow_type(column.type) for column in columns]
            _write(engine, query, _schema([column.name for column in columns], kinds), path)
        finally:
            engine.dispose()


def _write(engine: sqlalchemy.Engine, query: sqlalchemy.Select, schema: pa.Schema, path: Path) -> None:
    import pyarrow.parquet as pq

    with engine.connect() as connection, replacing(path) as draft, pq.ParquetWriter(draft, schema) as writer:
        rows = connection.execution_options(stream_results=True, max_row_buffer=_BLOCK).execute(query)
        for block in rows.partitions(_BLOCK):
            writer.write_table(_block(block, schema))


def _url(table: Table) -> sqlalchemy.URL:
    import sqlalchemy

    try:
        url = sqlalchemy.make_url(table.database.get_secret_value() if table.database else "")
    except sqlalchemy.exc.ArgumentError as problem:  # its text may hold the password
        raise SettingsError(
            "a table's `database` is not a SQLAlchemy URL such as postgresql://user:password@host/name"
        ) from problem
    # SQLAlchemy would take psycopg2, which is not among our dependencies.
    return url.set(drivername="postgresql+psycopg") if url.drivername in ("postgresql", "postgres") else url


def _existing(url: sqlalchemy.URL) -> sqlalchemy.URL:
    """SQLite would create a file that is not there."""
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").is_file():
        raise FileNotFoundError(f"there is no file {Path(url.database or '').absolute()}")
    return url


@contextmanager
def _explained(name: str, table: Table) -> Iterator[None]:
    import pyarrow as pa
    import sqlalchemy

    try:
        yield
    except (sqlalchemy.exc.SQLAlchemyError, ImportError, FileNotFoundError, pa.ArrowException) as problem:
        reason = (str(problem).splitlines() or [""])[0] or type(problem).__name__
        if isinstance(problem, ImportError):
            reason += "; install the database's driver (PostgreSQL: pip install 'perennial-crm[postgres]')"
        raise SettingsError(f"tables.{name}: {origin(table)} cannot be read: {reason}") from problem


def _reflected(engine: sqlalchemy.Engine, wanted: str) -> tuple[Sequence[sqlalchemy.Column], sqlalchemy.Select]:
    """The columns of a table (or view) and a query for its raw values, which no type of SQLAlchemy's has touched."""
    import sqlalchemy

    schema, _, bare = wanted.rpartition(".")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sqlalchemy.exc.SAWarning)  # of column types it does not know: texts to us
        try:
            reflected = sqlalchemy.Table(bare, sqlalchemy.MetaData(), autoload_with=engine, schema=schema or None)
        except sqlalchemy.exc.NoSuchTableError as problem:
            present = sqlalchemy.inspect(engine).get_table_names(schema or None)
            shown = ", ".join(sorted(present)[:20]) or "no table"
            raise sqlalchemy.exc.InvalidRequestError(f"there is no table {wanted}; there is {shown}") from problem
    raw: dict[str, Any] = {column.name: sqlalchemy.column(column.name) for column in reflected.columns}
    rows = sqlalchemy.table(bare, schema=schema or None)
    keys = [raw[key.name] for key in reflected.primary_key.columns]
    return list(reflected.columns), sqlalchemy.select(*raw.values()).select_from(rows).order_by(*keys)


def _arrow_type(kind: Any) -> pa.DataType:
    import pyarrow as pa
    from sqlalchemy import types

    if isinstance(kind, types.DateTime):
        return pa.timestamp("us", tz="UTC" if kind.timezone else None)
    families = (
        (types.Date, pa.date32()),
        (types.Boolean, pa.bool_()),
        (types.Integer, pa.int64()),
        (types.Numeric, pa.float64()),
    )
    return next((arrow for family, arrow in families if isinstance(kind, family)), _string())


def _string() -> pa.DataType:
    import pyarrow as pa

    return pa.string()


def _schema(names: Sequence[str], kinds: Sequence[pa.DataType]) -> pa.Schema:
    import pyarrow as pa

    return pa.schema(list(zip(names, kinds, strict=True)))


def _block(rows: Sequence[Sequence[Any]], schema: pa.Schema) -> pa.Table:
    import pyarrow as pa
    import pyarrow.types as kinds

    arrays = []
    for values, kind in zip(zip(*rows, strict=True), schema.types, strict=True):
        convert = _text if kinds.is_string(kind) else float if kinds.is_floating(kind) else _same
        arrays.append(pa.array([None if value is None else convert(value) for value in values], kind))
    return pa.Table.from_arrays(arrays, schema=schema)


def _same(value: Any) -> Any:
    return value


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        return str(int(value))  # an id kept as a number
    if isinstance(value, bytes | memoryview):
        return bytes(value).decode("utf-8", errors="replace")
    return json.dumps(value) if isinstance(value, dict | list) else str(value)
