"""The rows of one source as DuckDB SQL, and a table's column map applied to them, with errors that name the setting."""

from __future__ import annotations

import csv
import errno
import gzip
import hashlib
import io
import itertools
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import IO

import duckdb

from perennial.settings import SettingsError, Table
from perennial.sources import Source
from perennial.storage import quoted, quoted_path, replacing
from perennial.tables import Contract

# The number of a row in its source, under a name that no source has.
LINE = "perennial_line"
# What DuckDB reads by itself; other encodings are copied to UTF-8 first.
_NATIVE = ("utf-8", "latin-1")
_UTF_16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_DELIMITERS = ",;\t|"
# Texts that are numbers and would not read otherwise as numbers: 007 is an id, and so are 19 digits.
_WHOLE = "-?(0|[1-9][0-9]{0,17})"
_DECIMAL = "[-+]?(0|[1-9][0-9]{0,17})?([.][0-9]*)?([eE][-+]?[0-9]{1,3})?"
_OF_VALUES = ("Conversion Error", "Could not parse", "Out of Range Error", "Invalid Input Error: Cannot")
_NUMERIC = {"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "HUGEINT",
            "FLOAT", "DOUBLE", "DECIMAL"}  # fmt: skip


@dataclass(frozen=True)
class Rows:
    """SQL for the rows of one source, each with its `LINE`, counted from 1; `types` are DuckDB's of its columns."""

    sql: str
    types: Mapping[str, str]

    def column(self, text: str) -> str | None:
        """The column that `text` names, in whatever case."""
        if text in self.types:
            return text
        return next((column for column in self.types if column.lower() == text.lower()), None)

    def columns(self) -> str:
        shown = [column for column in self.types if column not in (LINE, "line")]
        return ", ".join(shown[:20]) + (" ..." if len(shown) > 20 else "")


@dataclass(frozen=True)
class Mapped:
    """A canonical column's expression over a source, the type it has there, and the type it is to have."""

    expression: str
    given: str
    wanted: str


def opened(
    connection: duckdb.DuckDBPyConnection, source: Source, table: Table, contract: Contract,
    attributes: Sequence[str], scratch: Path,
) -> Rows:  # fmt: skip
    """The rows of a source, ready to be mapped.

    `line` numbers them for the settings' expressions too, unless the source has a column of that name. A column of
    texts as written, that an expression uses or an attribute is, becomes numbers if each of them reads as one.

    Raises:
        SettingsError: the file is damaged, or is not in the encoding that the settings say.
    """
    with explained(contract.name, source):
        reader = _csv(source, table, contract.name, scratch) if source.is_csv else _parquet(source)
        columns = [row[0] for row in connection.execute(f"DESCRIBE SELECT * FROM {reader}").fetchall()]
        numbers = _numbers(
            connection, reader, _computed(columns, table, contract, attributes) if source.as_text else ()
        )
        line = "" if "line" in map(str.lower, columns) else f"{LINE} AS line, "
        shown = ", ".join(numbers.get(column, identifier(column)) for column in columns if column != LINE)
        sql = f"(SELECT {LINE}, {line}{shown} FROM {reader})"
        return Rows(sql, {row[0]: row[1] for row in connection.execute(f"DESCRIBE SELECT * FROM {sql}").fetchall()})


def _parquet(source: Source) -> str:
    file = f"read_parquet({quoted_path(source.file)}, file_row_number=true)"
    return f"(SELECT file_row_number + 1 AS {LINE}, * EXCLUDE (file_row_number) FROM {file})"


def _csv(source: Source, table: Table, name: str, scratch: Path) -> str:
    """Every value as it was written: a guessed id would lose its leading zeros, a guessed date its order."""
    file = source.file if table.encoding in _NATIVE else _as_utf8(source.file, table.encoding, scratch)
    encoding = table.encoding if table.encoding in _NATIVE else "utf-8"
    delimiter, columns = _header(file, encoding)
    if not columns:
        raise SettingsError(f"{name}: {source.origin} is empty: not even a header is in it")
    types = ", ".join(f"{quoted(column)}: 'VARCHAR'" for column in columns)
    options = (
        f"auto_detect=false, header=true, hive_partitioning=false, encoding={quoted(encoding)}, quote='\"', escape='\"'"
    )
    read = f"read_csv({quoted_path(file)}, {options}, delim={quoted(delimiter)}, columns={{{types}}})"
    return f"(SELECT row_number() OVER () AS {LINE}, * FROM {read})"


def _bytes(file: Path) -> IO[bytes]:
    return gzip.open(file) if file.suffix.lower() == ".gz" else file.open("rb")  # type: ignore[return-value]


def _plain(file: Path, encoding: str) -> IO[str]:
    """A CSV file opened for reading, unpacked, without its byte-order mark."""
    return io.TextIOWrapper(_bytes(file), "utf-8-sig" if encoding == "utf-8" else encoding, newline="")


def _as_utf8(file: Path, encoding: str, scratch: Path) -> Path:
    copy = scratch / f"{hashlib.sha256(bytes(file)).hexdigest()}.csv"
    with _bytes(file) as given:
        if encoding == "utf-16" and given.read(2) not in _UTF_16_MARKS:
            raise UnicodeError("it does not begin as UTF-16 does")
    with (
        replacing(copy) as draft,
        _plain(file, encoding) as given,
        draft.open("w", encoding="utf-8", newline="") as out,
    ):
        shutil.copyfileobj(given, out, 1 << 20)
    return copy


def _header(file: Path, encoding: str) -> tuple[str, list[str]]:
    """The delimiter, which is the most frequent one of the first line, and the columns' names, each once."""
    with _plain(file, encoding) as lines:
        first = lines.readline()
        unquoted = re.sub(r'"[^"]*"?', "", first)
        delimiter = max(_DELIMITERS, key=unquoted.count)
        cells = next(csv.reader(itertools.chain([first], lines), delimiter=delimiter), [])
    names: list[str] = []
    for number, cell in enumerate(cells, 1):
        name = base = cell.strip() or f"column{number}"
        for again in itertools.count(2):
            if name.lower() not in map(str.lower, names):
                break
            name = f"{base}_{again}"
        names.append(name)
    return delimiter, names


def _computed(columns: Sequence[str], table: Table, contract: Contract, attributes: Sequence[str]) -> list[str]:
    """Columns that may have to be numbers: those in an expression, and attributes."""
    plain = {table.columns.get(c.name, c.name).lower() for c in contract.columns if c.type != "DOUBLE"}
    own = {table.columns.get(attribute, attribute).lower() for attribute in attributes}
    names = {column.lower() for column in columns}
    texts = [text.lower() for text in (table.where, table.group_by, *table.columns.values()) if text]
    expressions = [text for text in texts if text not in names]
    return [
        column
        for column in columns
        if column.lower() not in plain and (column.lower() in own or any(column.lower() in e for e in expressions))
    ]


def _numbers(connection: duckdb.DuckDBPyConnection, reader: str, columns: Sequence[str]) -> dict[str, str]:
    """For each of `columns` with nothing but numbers in it, or nothing at all: the SQL that makes it so."""
    if not columns:
        return {}
    texts = {column: f"nullif(trim({identifier(column)}), '')" for column in columns}
    tests = ", ".join(
        f"count({text}), " + ", ".join(f"bool_and(regexp_full_match({text}, '{form}'))" for form in (_WHOLE, _DECIMAL))
        for text in texts.values()
    )
    found = iter(connection.execute(f"SELECT {tests} FROM {reader}").fetchall()[0])
    casts = {}
    for column, (filled, whole, decimal) in zip(columns, zip(found, found, found, strict=True), strict=True):
        if not filled:
            casts[column] = f"NULL AS {identifier(column)}"
        elif whole or decimal:
            kind = "BIGINT" if whole else "DOUBLE"
            casts[column] = f"TRY_CAST({texts[column]} AS {kind}) AS {identifier(column)}"
    return casts


def mapped(table: Table, rows: Rows, columns: Mapping[str, str]) -> str:
    """SQL that gives `line` and each of `columns` (name: expression) for the rows that the table's filter keeps."""
    given = "".join(f", {expression}\n AS {name}" for name, expression in columns.items())
    where = f" WHERE ({table.where}\n)" if table.where else ""
    if table.group_by:
        return f"SELECT min({LINE}) AS line{given} FROM {rows.sql}{where} GROUP BY {table.group_by}"
    return f"SELECT {LINE} AS line{given} FROM {rows.sql}{where}"


def expressions(
    connection: duckdb.DuckDBPyConnection, table: Table, contract: Contract, rows: Rows, attributes: Sequence[str]
) -> dict[str, Mapped]:
    """For every canonical column that the source gives: how.

    Raises:
        SettingsError: a mapped name that is no column, a required column without a source, a broken expression.
    """
    key = f"tables.{contract.name}"
    known = dict.fromkeys((*contract.names, *attributes))
    if unknown := [column for column in table.columns if column not in known]:
        raise SettingsError(
            f"{key}.columns: there is no column {unknown[0]} in {contract.name}; it has {', '.join(known)}"
        )
    if table.where:
        _bind(connection, f"SELECT 1 FROM {rows.sql} WHERE ({table.where}\n)", f"{key}.where", table.where, rows)
    if table.group_by:
        _bind(
            connection, f"SELECT 1 FROM {rows.sql} GROUP BY {table.group_by}", f"{key}.group_by", table.group_by, rows
        )
    wanted = {column.name: column.type for column in contract.columns}
    found = {}
    for name in known:
        text = table.columns.get(name, name)
        column = rows.column(text)
        if column is None and name not in table.columns:
            if name in contract.required or name in attributes:
                raise SettingsError(f"{key}.columns: {name} is required; the source has {rows.columns()}")
            continue
        expression = identifier(column) if column is not None else text
        query = mapped(table, rows, {"x": expression})
        given = _bind(connection, query, f"{key}.columns.{name}", text, rows)
        found[name] = Mapped(expression, given, wanted.get(name) or ("DOUBLE" if given in _NUMERIC else "VARCHAR"))
    return found


def _bind(connection: duckdb.DuckDBPyConnection, query: str, key: str, text: str, rows: Rows) -> str:
    """DuckDB's type of the query's last column; an error that names the setting where it has none."""
    try:
        described = connection.execute(f"DESCRIBE {query}").fetchall()
    except (duckdb.ProgrammingError, duckdb.NotSupportedError, duckdb.DataError) as problem:
        raise SettingsError(f"{key}: {_what_is_wrong(text, str(problem), rows)}") from problem
    return str(described[-1][1]).split("(")[0]


def _what_is_wrong(text: str, reason: str, rows: Rows) -> str:
    if re.fullmatch(r"[\w .-]+", text):
        near = get_close_matches(text, rows.types, 1)
        meant = f" (did you mean {near[0]}?)" if near else ""
        return f"there is no column `{text}`{meant}; the source has {rows.columns()}"
    hint = " (a text column needs TRY_CAST(column AS DOUBLE))" if "explicit type casts" in reason else ""
    return f"`{text}` does not work: {reason.splitlines()[0]}{hint}; the source has {rows.columns()}"


def identifier(name: str) -> str:
    """A name as a SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


@contextmanager
def explained(name: str, source: Source) -> Iterator[None]:
    """DuckDB's complaint about a source, in terms of the table and what to do."""
    try:
        yield
    except UnicodeError as problem:
        raise SettingsError(
            f"{name}: {source.origin} cannot be read: {problem}{_encoding_hint(name, source)}"
        ) from problem
    except OSError as problem:
        if problem.errno == errno.ENOSPC:
            raise
        raise SettingsError(f"{name}: {source.origin} cannot be read: {problem.strerror or problem}") from problem
    except duckdb.Error as problem:
        text = str(problem)
        if "No space left" in text or isinstance(problem, duckdb.OutOfMemoryException):
            raise
        raise SettingsError(f"{name}: {source.origin} cannot be read: {_advice(name, source, text)}") from problem


def _advice(name: str, source: Source, text: str) -> str:
    first = " ".join(text.splitlines()[:3]) if "CSV Error" in text else text.splitlines()[0]
    if "not utf-8" in text or "byte sequence" in text or "not latin-1" in text:
        return first + _encoding_hint(name, source)
    if "CSV Error" in text:
        return f"{first}; mend that line: its fields must be as many as the header's, a quote in one doubled"
    if any(kind in text for kind in _OF_VALUES):
        return f"{first}; a value does not fit an expression: write TRY_CAST or try_strptime, which give null"
    return f"{first}; the file is damaged or incomplete: copy it again"


def _encoding_hint(name: str, source: Source) -> str:
    with source.file.open("rb") as handle:
        marked = handle.read(2) in _UTF_16_MARKS
    wanted = "utf-16" if marked else "utf-8, windows-1252 or latin-1"
    return f"; set `tables.{name}.encoding` to what the file is in ({wanted}?) or save the file as UTF-8"
