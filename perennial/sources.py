"""A workspace's source tables as DuckDB relations: Parquet, CSV and SQL, with errors that say what to mend."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import Any

import duckdb

from perennial.settings import SettingsError, Table
from perennial.storage import quoted, replacing
from perennial.tables import Contract

_PARQUET, _CSV = (".parquet", ".pq"), (".csv", ".csv.gz", ".tsv", ".txt")


@dataclass(frozen=True)
class Source:
    """One file, or one SQL table copied to a file. `origin` is its stable name, `file` where its rows are."""

    origin: str
    file: Path

    def fingerprint(self) -> str:
        """SHA-256 of the content: the same file under another name is the same source."""
        with self.file.open("rb") as handle:
            return hashlib.file_digest(handle, "sha256").hexdigest()


def find(name: str, table: Table, scratch: Path) -> list[Source]:
    """The sources of a canonical table, in the order of their names.

    Raises:
        SettingsError: a file or folder that does not exist or holds nothing readable, an unreachable database.
    """
    if table.database is not None:
        return [_copy_of_sql(name, table, scratch)]
    files = [file for pattern in table.path or () for file in _matches(name, pattern)]
    return [Source(str(file), file) for file in dict.fromkeys(files)]


def _matches(name: str, pattern: str) -> list[Path]:
    path = Path(pattern)
    if path.is_dir():
        found = sorted(f for f in path.iterdir() if f.name.lower().endswith(_PARQUET + _CSV))
        problem = f"the folder {path} holds no Parquet or CSV file"
    else:
        found = [path] if path.is_file() else sorted(map(Path, glob(pattern, recursive=True)))
        problem = f"no file matches {pattern} (looked from {Path.cwd()})"
    if not found:
        raise SettingsError(f"tables.{name}.path: {problem}")
    return [file.resolve() for file in found]


def _copy_of_sql(name: str, table: Table, scratch: Path) -> Source:
    """Reads the SQL table in blocks into one Parquet file that DuckDB then treats as any other."""
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq
    import sqlalchemy

    try:
        url = sqlalchemy.make_url(table.database or "")
        shown = f"{url.render_as_string(hide_password=True)}#{table.table}"
        engine = sqlalchemy.create_engine(url)
        wanted = sqlalchemy.Table(str(table.table), sqlalchemy.MetaData(), autoload_with=engine)
    except (sqlalchemy.exc.SQLAlchemyError, ImportError) as problem:
        reason = str(problem).splitlines()[0] or type(problem).__name__
        raise SettingsError(f"tables.{name}: table {table.table} of the database cannot be read: {reason}") from problem
    schema = pa.schema([(column.name, _arrow_type(column.type, url.get_backend_name())) for column in wanted.columns])
    copy = scratch / f"{name}.parquet"
    query = sqlalchemy.text(str(sqlalchemy.select(wanted)))
    with engine.connect() as connection, replacing(copy) as draft, pq.ParquetWriter(draft, schema) as writer:
        for rows in pd.read_sql(query, connection.execution_options(stream_results=True), chunksize=200_000):
            try:
                writer.write_table(pa.Table.from_pandas(rows, schema=schema, preserve_index=False))
            except pa.ArrowException as problem:
                raise SettingsError(f"tables.{name}: {shown} holds values unlike its types: {problem}") from problem
    return Source(shown, copy)


def _arrow_type(kind: Any, backend: str) -> Any:
    """The Arrow type of a reflected SQL column; SQLite keeps times as text, which DuckDB then parses."""
    import pyarrow as pa
    from sqlalchemy import types

    if isinstance(kind, types.DateTime) and backend != "sqlite":
        return pa.timestamp("us", tz="UTC" if kind.timezone else None)
    if isinstance(kind, types.Date) and backend != "sqlite":
        return pa.date32()
    for family, arrow in ((types.Boolean, pa.bool_()), (types.Integer, pa.int64()), (types.Numeric, pa.float64())):
        if isinstance(kind, family):
            return arrow
    return pa.string()


def relation(source: Source, contract: Contract, table: Table) -> str:
    """SQL that reads `source`, each row with its `line` number in it (counted from 1, a CSV header aside)."""
    return f"(SELECT row_number() OVER () AS line, * FROM {_reader(source, contract, table)})"


def _reader(source: Source, contract: Contract, table: Table) -> str:
    if not source.file.name.lower().endswith(_CSV):
        return f"read_parquet({quoted(source.file)})"
    # Texts, ids and times stay as they were written: a sniffed id loses its leading zeros, a sniffed date its order.
    as_written = {table.columns.get(c.name, c.name) for c in contract.columns if c.type != "DOUBLE"}
    options = f"encoding={quoted(table.encoding)}, header=true, sample_size=-1"
    head = f"read_csv({quoted(source.file)}, {options}, all_varchar=true)"
    present = [row[0] for row in duckdb.execute(f"DESCRIBE SELECT * FROM {head}").fetchall()]
    types = ", ".join(f"{quoted(column)}: 'VARCHAR'" for column in present if column in as_written)
    return f"read_csv({quoted(source.file)}, {options}" + (f", types={{{types}}})" if types else ")")


def mapped(table: Table, rows: str, columns: Mapping[str, str]) -> str:
    """SQL that gives `line` and each of `columns` (name: expression) for the rows that the table's filter keeps."""
    given = ", ".join(f"{expression} AS {name}" for name, expression in columns.items())
    where = f" WHERE ({table.where})" if table.where else ""
    if table.group_by:
        return f"SELECT min(line) AS line, {given} FROM {rows}{where} GROUP BY {table.group_by}"
    return f"SELECT line, {given} FROM {rows}{where}"


def expressions(
    connection: duckdb.DuckDBPyConnection, table: Table, contract: Contract, rows: str, attributes: Sequence[str]
) -> dict[str, tuple[str, str]]:
    """For every column that the source gives: the DuckDB expression over `rows` for it, and its canonical type.

    Raises:
        SettingsError: a mapped name that is no column, a required column without a source, a broken expression.
    """
    name = contract.name
    present = {row[0]: row[1] for row in connection.execute(f"DESCRIBE SELECT * FROM {rows}").fetchall()}
    known = (*contract.names, *attributes)
    if unknown := [column for column in table.columns if column not in known]:
        raise SettingsError(f"tables.{name}.columns: no column {unknown[0]} in {name}; it has {', '.join(known)}")
    _bind(connection, table, rows, "1", f"tables.{name}.where", present)
    canonical = {column.name: column.type for column in contract.columns}
    found = {}
    for column in known:
        text = table.columns.get(column, column if column in present else None)
        if text is not None:
            expression = f'"{text}"' if text in present else text
            given = _bind(connection, table, rows, expression, f"tables.{name}.columns.{column}", present)
            found[column] = (expression, canonical.get(column) or ("DOUBLE" if given in _NUMERIC else "VARCHAR"))
        elif column in contract.required or column in attributes:
            raise SettingsError(f"tables.{name}.columns: {column} is required; the source has {_few(present)}")
    return found


_NUMERIC = {"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "HUGEINT",
            "FLOAT", "DOUBLE", "DECIMAL"}  # fmt: skip


def _bind(
    connection: duckdb.DuckDBPyConnection, table: Table, rows: str, expression: str, key: str, present: Iterable[str]
) -> str:
    """DuckDB's type of an expression over the source; an error that names the setting where it has none."""
    try:
        described = connection.execute(f"DESCRIBE {mapped(table, rows, {'x': expression})}").fetchall()
    except (
        duckdb.BinderException,
        duckdb.ParserException,
        duckdb.CatalogException,
        duckdb.ConversionException,
    ) as problem:
        reason = str(problem).splitlines()[0]
        if "explicit type casts" in reason:
            reason += " (a text column needs TRY_CAST(column AS DOUBLE))"
        shown = table.where if key.endswith("where") else expression
        raise SettingsError(f"{key}: `{shown}` does not work: {reason}; the source has {_few(present)}") from problem
    return str(described[1][1]).split("(")[0]


def _few(names: Iterable[str], most: int = 20) -> str:
    names = [name for name in names if name != "line"]
    return ", ".join(names[:most]) + (" ..." if len(names) > most else "")
