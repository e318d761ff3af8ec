"""The rows of one source as DuckDB SQL, and a table's column map applied to them, with errors that name the setting."""

from __future__ import annotations

import csv
import errno
import gzip
import hashlib
import io
import itertools
import json
import re
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import IO, Any

import duckdb

from ingest.sources import Source
from workspace import ids
from workspace.settings import SettingsError, Table
from workspace.storage import quoted, quoted_path, replacing
from workspace.tables import Contract

# Where a row is in its source, under a name that no source has: of CSV the line of the file, as an editor shows it, and
# of other sources the number of the row.
LINE = "perennial_line"
# What DuckDB reads by itself; other encodings are copied to UTF-8 first.
_NATIVE = ("utf-8", "latin-1")
_WESTERN = ("latin-1", "windows-1252")
_SAMPLE = 4 << 20  # bytes that tell what a file is written in
_LINES_BEFORE = 50  # lines among which a header is looked for
_UTF_16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_DELIMITERS = ",;\t|"
# Texts that are numbers and would not read otherwise as numbers: 007 is an id, and so are 19 digits.
_WHOLE = "-?(0|[1-9][0-9]{0,17})"
_DECIMAL = "[-+]?(0|[1-9][0-9]{0,17})?([.][0-9]*)?([eE][-+]?[0-9]{1,3})?"
# Three digits after a comma may be a fraction, or thousands.
_THOUSANDS = "[-+]?[0-9]{1,3}(,[0-9]{3})+"
# Reads 7, 12,50 and 1.234,50; not 1,000, which is a thousand to some.
DECIMAL_COMMA = (
    "CASE WHEN regexp_full_match(column, '-?[0-9]{1,3}([.]?[0-9]{3})*(,[0-9]{1,2})?')"
    " THEN CAST(replace(replace(column, '.', ''), ',', '.') AS DOUBLE) END"
)
_CONVERSIONS = ("try_strptime", "replace", "translate", "regexp_replace", "regexp_extract", "regexp_full_match")
_OF_VALUES = ("Conversion Error", "Could not parse", "Out of Range Error", "Invalid Input Error: Cannot")
_NUMERIC = {"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "HUGEINT",
            "FLOAT", "DOUBLE", "DECIMAL"}  # fmt: skip


@dataclass(frozen=True)
class Rows:
    """SQL for the rows of one source, each with its `LINE`; `types` are DuckDB's of its columns."""

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
    """A canonical column's expression over a source, the type it has there, and the type it is to have.

    `written` is SQL for what the source has where the expression converts it and may give nothing; null where a column
    that it reads is blank.
    """

    expression: str
    given: str
    wanted: str
    written: str | None = None


def opened(
    connection: duckdb.DuckDBPyConnection, source: Source, table: Table, contract: Contract,
    attributes: Sequence[str], scratch: Path,
) -> Rows:  # fmt: skip
    """The rows of a source, ready to be mapped.

    `line` numbers them from 1 for the settings' expressions, of any kind of source, unless it has such a column. Texts
    as written, that an expression uses or an attribute is, become numbers if each of their column reads as one.

    Raises:
        SettingsError: the file is damaged, or is not in the encoding that the settings say.
    """
    with explained(contract.name, source):
        reader = _csv(connection, source, table, contract, scratch) if source.is_csv else _parquet(source)
        if table.fill_down:
            reader = _filled_down(connection, reader, table, contract)
        columns = [row[0] for row in connection.execute(f"DESCRIBE SELECT * FROM {reader}").fetchall()]
        numbers = _numbers(
            connection, reader, _computed(columns, table, contract, attributes) if source.as_text else ()
        )
        number = "row_number() OVER ()" if source.is_csv else LINE
        line = "" if "line" in map(str.lower, columns) else f"{number} AS line, "
        shown = ", ".join(numbers.get(column, identifier(column)) for column in columns if column != LINE)
        sql = f"(SELECT {LINE}, {line}{shown} FROM {reader})"
        return Rows(sql, {row[0]: row[1] for row in connection.execute(f"DESCRIBE SELECT * FROM {sql}").fetchall()})


def _filled_down(
    connection: duckdb.DuckDBPyConnection, reader: str, table: Table, contract: Contract
) -> str:  # fmt: skip
    """The rows with what the first lines of an order have taken over by its further lines, nothing by other orders.

    Raises:
        SettingsError: a column to fill is none of the source.
    """
    given = Rows(reader, {row[0]: row[1] for row in connection.execute(f"DESCRIBE SELECT * FROM {reader}").fetchall()})
    key = f"tables.{contract.name}.fill_down"
    order = table.columns.get(contract.names[0], contract.names[0])
    order = identifier(column) if (column := given.column(order)) is not None else f"({order}\n)"
    _bind(connection, f"SELECT {order} FROM {reader}", key, order, given)
    filled = []
    for name in table.fill_down:
        if (column := given.column(name)) is None:
            raise SettingsError(f"{key}: {_what_is_wrong(name, 'no such column', given)}")
        own = identifier(column)
        value = ids.trimmed(own) if given.types[column] == "VARCHAR" else own
        above = f"last_value({value} IGNORE NULLS) OVER (PARTITION BY {order} ORDER BY {LINE})"
        filled.append(f"CASE WHEN {order} IS NULL THEN {own} ELSE {above} END AS {own}")
    return f"(SELECT * REPLACE ({', '.join(filled)}) FROM {reader} ORDER BY {LINE})"


def _parquet(source: Source) -> str:
    file = f"read_parquet({quoted_path(source.file)}, file_row_number=true)"
    return f"(SELECT file_row_number + 1 AS {LINE}, * EXCLUDE (file_row_number) FROM {file})"


@dataclass(frozen=True)
class _Csv:
    """A file that DuckDB reads, with as many `lines`; `before` more came before them in the source.

    `told` is the delimiter that a first line `sep=;` says, as Excel writes it.
    """

    file: Path
    encoding: str
    told: str | None
    before: int
    lines: int


def _csv(connection: duckdb.DuckDBPyConnection, source: Source, table: Table, contract: Contract, scratch: Path) -> str:
    """Every value as it was written: a guessed id would lose its leading zeros, a guessed date its order."""
    _refuse_other_script(source, table, contract.name)
    copy = scratch / f"{hashlib.sha256(bytes(source.file)).hexdigest()}.csv"
    given = _readable(source.file, table, copy)
    delimiter, columns, of_header = _header(given)
    _refuse_lines_before(source.origin, given, columns, table, contract)
    if not columns:
        what = (
            "begins with an empty line, where a header should be"
            if given.lines
            else "is empty: not even a header is in it"
        )
        raise SettingsError(f"{contract.name}: {source.origin} {what}")
    read = _read(given.file, given.encoding, delimiter, columns)
    try:
        rows = connection.execute(f"SELECT count(*) FROM {read}").fetchall()[0][0]
    except duckdb.Error as problem:
        if "CSV Error" in str(problem) and (odd := _odd_line(given, delimiter, len(columns))):
            raise SettingsError(f"{contract.name}: {source.origin} cannot be read: {odd}") from problem
        raise
    if rows == given.lines - of_header:
        return f"(SELECT row_number() OVER () + {given.before + of_header} AS {LINE}, * FROM {read})"
    _copy_numbered(given, delimiter, len(columns), copy)
    numbered = _read(copy, "utf-8", delimiter, [LINE, *columns])
    return f"(SELECT * REPLACE (CAST({LINE} AS BIGINT) AS {LINE}) FROM {numbered})"


def _read(file: Path, encoding: str, delimiter: str, columns: Sequence[str]) -> str:
    types = ", ".join(f"{quoted(column)}: 'VARCHAR'" for column in columns)
    options = (
        f"auto_detect=false, header=true, hive_partitioning=false, encoding={quoted(encoding)}, quote='\"', escape='\"'"
    )
    return f"read_csv({quoted_path(file)}, {options}, delim={quoted(delimiter)}, columns={{{types}}})"


def _readable(file: Path, table: Table, copy: Path) -> _Csv:
    """The file, or a copy where it is in an encoding that DuckDB does not read, has lines before its header, or lines
    that end in two ways."""
    encoding = table.encoding
    if encoding not in _NATIVE:
        _copy_as_utf8(file, encoding, copy)
        file, encoding = copy, "utf-8"
    with _plain(file, encoding) as lines:
        told = re.fullmatch(r'"?sep=(.)"?\s*', lines.readline(), re.IGNORECASE | re.DOTALL)
    before = max(table.skip_lines, 1 if told else 0)
    n_lines, are_mixed = _line_ends(file)
    if before or are_mixed:
        _copy_from(file, before, copy)
        file = copy
    return _Csv(file, encoding, told[1] if told else None, before, n_lines - before)


def _copy_numbered(given: _Csv, delimiter: str, columns: int, copy: Path) -> None:
    """In UTF-8, with each row's line in a first column: where rows go over several lines, or lines are empty."""
    csv.field_size_limit(sys.maxsize)
    taken: list[str] = []

    def noted(lines: Iterable[str]) -> Iterator[str]:
        for line in lines:
            taken.append(line)
            yield line

    with (
        replacing(copy) as draft,
        _plain(given.file, given.encoding) as lines,
        draft.open("w", encoding="utf-8", newline="") as out,
    ):
        number, records = given.before + 1, csv.reader(noted(lines), delimiter=delimiter)
        for cells in records:
            if cells or columns == 1:  # DuckDB passes over an empty line, but where it is the only column's
                out.write(f"{number}{delimiter}{''.join(taken)}")
            taken.clear()
            number = given.before + records.line_num + 1


def _odd_line(given: _Csv, delimiter: str, columns: int) -> str | None:
    """What is wrong with the first row that is not as the header says; none where every row is.

    DuckDB's own numbers of lines count a row over several lines as one, and begin behind those that were passed over.
    """
    csv.field_size_limit(sys.maxsize)
    number = given.before + 1
    with _plain(given.file, given.encoding) as lines:
        records = csv.reader(lines, delimiter=delimiter, strict=True)
        try:
            for cells in records:
                if cells and len(cells) != columns:
                    fields = f"{len(cells):,} field{'' if len(cells) == 1 else 's'}, the header has {columns:,}"
                    return (
                        f"line {number:,} has {fields}; mend that line: a delimiter in a field needs quotes around it"
                    )
                number = given.before + records.line_num + 1
        except csv.Error:
            wrong = f"the row that begins at line {number:,} has a quote without its pair"
            return f"{wrong}; mend that line: a quote in a field is doubled"
    return None


def _copy_from(file: Path, before: int, copy: Path) -> None:
    """Without its first lines, and with every line ended in the same way."""
    with replacing(copy) as draft, _bytes(file) as given, draft.open("wb") as out:
        for _ in range(before):
            given.readline()
        ends_in_cr = False
        while piece := given.read(1 << 20):
            piece = b"\r" * ends_in_cr + piece
            ends_in_cr = piece.endswith(b"\r")
            out.write(piece[: len(piece) - ends_in_cr].replace(b"\r\n", b"\n"))
        out.write(b"\r" * ends_in_cr)


def _line_ends(file: Path) -> tuple[int, bool]:
    """How many lines there are, and whether some end as Windows has it and others do not, as in files that were put
    together."""
    both, all_, last = 0, 0, b"\n"
    with _bytes(file) as given:
        while piece := given.read(1 << 20):
            both += piece.count(b"\r\n") + (last == b"\r" and piece.startswith(b"\n"))
            all_ += piece.count(b"\n")
            last = piece[-1:]
    return all_ + (last != b"\n"), 0 < both < all_


def _bytes(file: Path) -> IO[bytes]:
    return gzip.open(file) if file.suffix.lower() == ".gz" else file.open("rb")  # type: ignore[return-value]


def _plain(file: Path, encoding: str) -> IO[str]:
    """A CSV file opened for reading, unpacked, without its byte-order mark."""
    return io.TextIOWrapper(_bytes(file), "utf-8-sig" if encoding == "utf-8" else encoding, newline="")


def _copy_as_utf8(file: Path, encoding: str, copy: Path) -> None:
    with _bytes(file) as given:
        if encoding == "utf-16" and given.read(2) not in _UTF_16_MARKS:
            raise UnicodeError("it does not begin as UTF-16 does")
    with (
        replacing(copy) as draft,
        _plain(file, encoding) as given,
        draft.open("w", encoding="utf-8", newline="") as out,
    ):
        shutil.copyfileobj(given, out, 1 << 20)


def _header(given: _Csv) -> tuple[str, list[str], int]:
    """The delimiter, which if it is not told is the most frequent one of the first line, the columns' names, each there
    once, and how many lines they take."""
    with _plain(given.file, given.encoding) as lines:
        first = lines.readline()
        delimiter = given.told or _most_frequent(first)
        records = csv.reader(itertools.chain([first], lines), delimiter=delimiter)
        cells = next(records, [])
    names: list[str] = []
    for number, cell in enumerate(cells, 1):
        name = base = cell.strip() or f"column{number}"
        for again in itertools.count(2):
            if name.lower() not in map(str.lower, names):
                break
            name = f"{base}_{again}"
        names.append(name)
    return delimiter, names, records.line_num


def _most_frequent(line: str) -> str:
    unquoted = re.sub(r'"[^"]*"?', "", line)
    return max(_DELIMITERS, key=unquoted.count)


def _refuse_lines_before(
    origin: str, given: _Csv, columns: Sequence[str], table: Table, contract: Contract
) -> None:  # fmt: skip
    """Where nothing that is wanted is in the header, but in a line below."""
    wanted = {table.columns.get(name, name).lower() for name in contract.required}
    if wanted & set(map(str.lower, columns)):
        return
    with _plain(given.file, given.encoding) as lines:
        for number, line in enumerate(itertools.islice(lines, _LINES_BEFORE)):
            names = {cell.strip().lower() for cell in next(csv.reader([line], delimiter=_most_frequent(line)), [])}
            if len(wanted & names) >= min(2, len(wanted)):
                before = number + given.before
                raise SettingsError(
                    f"{contract.name}: the header of {origin} seems to be line {before + 1}: set"
                    f" `tables.{contract.name}.skip_lines: {before}`"
                )


def _refuse_other_script(source: Source, table: Table, name: str) -> None:
    """Western encodings give every byte a letter: what is in none of them would be read as garbage, in silence."""
    if table.encoding in _WESTERN and _script(source.file):
        raise SettingsError(f"{name}: {source.origin} is not in {table.encoding}{_encoding_hint(name, source)}")


def _script(file: Path) -> str | None:
    """What the bytes of a file look like that is not in UTF-8 and in no Western encoding; None if they may be.

    Western texts have a letter with an accent here and there, seldom two in a row. Chinese, Japanese and Korean ones
    have two bytes a character, whose first is mostly below 0xD8; Cyrillic, Greek, Hebrew and Arabic ones whole words.
    """
    with _bytes(file) as given:
        sample = given.read(_SAMPLE)
    runs = re.findall(rb"[\x80-\xff]+", sample)
    try:
        return "UTF-8" if sample.decode() and runs else None
    except UnicodeDecodeError as problem:
        if problem.end == len(sample) == _SAMPLE:
            return "UTF-8"
    if all(len(run) % 2 == 0 for run in runs):
        pairs = [run[place : place + 2] for run in runs for place in range(0, len(run), 2)]
        common = [pair for pair in pairs if 0xA1 <= pair[0] <= 0xD7 and pair[1] >= 0xA1]
        if len(set(common)) >= 3 and len(common) > 0.7 * len(pairs):
            return "Chinese or Korean (GBK, EUC)"
    words = [run for run in runs if len(run) >= 3]
    if len(set(words)) >= 2 and sum(map(len, words)) > 0.5 * sum(map(len, runs)):
        return "another script (Cyrillic, Greek, Chinese, Japanese ...)"
    return None


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
    texts = {column: ids.trimmed(identifier(column)) for column in columns}
    tests = ", ".join(
        f"count({text}), " + ", ".join(f"bool_and(regexp_full_match({text}, '{form}'))" for form in (_WHOLE, _DECIMAL))
        for text in texts.values()
    )
    figures = iter(connection.execute(f"SELECT {tests} FROM {reader}").fetchall()[0])
    casts = {}
    for column, (filled, whole, decimal) in zip(columns, zip(figures, figures, figures, strict=True), strict=True):
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
    columns = {}
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
        kind = wanted.get(name) or ("DOUBLE" if given in _NUMERIC else "VARCHAR")
        columns[name] = Mapped(expression, given, kind)
        if column is None and name in contract.required and kind != "VARCHAR" and not table.group_by:
            columns[name] = _conversion(connection, columns[name], rows)
    return columns


def _conversion(connection: duckdb.DuckDBPyConnection, given: Mapped, rows: Rows) -> Mapped:
    """An expression that turns texts into something else, with what they were; any other as it is.

    A comma that it makes a point is not taken for one where it may as well part thousands: 1,000 is not 1.
    """
    query = f"SELECT json_serialize_sql({quoted(f'SELECT {given.expression}')})"
    parsed = json.loads(connection.execute(query).fetchall()[0][0])
    nodes = list(_nodes(parsed))
    if not any(node.get("try_cast") or node.get("function_name", "") in _CONVERSIONS for node in nodes):
        return given
    texts = [ids.trimmed(f"CAST({identifier(column)} AS VARCHAR)") for column in _columns_in(nodes, rows)]
    if not texts:
        return given
    blank = " OR ".join(f"{text} IS NULL" for text in texts)
    written = f"CASE WHEN NOT ({blank}) THEN concat_ws(' ', {', '.join(texts)}) END"
    replaced = [node for node in nodes if node.get("function_name") == "replace" and _arguments(node)[1:] == [",", "."]]
    pointed = [
        f"regexp_full_match({ids.trimmed(f'CAST({identifier(column)} AS VARCHAR)')}, '{_THOUSANDS}')"
        for column in _columns_in([inner for node in replaced for inner in _nodes(node)], rows)
    ]
    if not pointed:
        return replace(given, written=written)
    guarded = f"CASE WHEN ({' OR '.join(pointed)}) IS NOT TRUE THEN {given.expression}\n END"
    return replace(given, expression=guarded, written=written)


def _nodes(parsed: Any) -> Iterator[dict[str, Any]]:
    """Every node of a statement that DuckDB has parsed."""
    if isinstance(parsed, dict):
        yield parsed
    inner = parsed.values() if isinstance(parsed, dict) else parsed if isinstance(parsed, list) else ()
    for one in inner:
        yield from _nodes(one)


def _columns_in(nodes: Iterable[dict[str, Any]], rows: Rows) -> list[str]:
    """The columns of the source that these nodes name, each once."""
    named = (node["column_names"][-1] for node in nodes if node.get("column_names"))
    return list(dict.fromkeys(column for name in named if (column := rows.column(name)) is not None))


def _arguments(node: dict[str, Any]) -> list[Any]:
    """The constants among a function's arguments; None for what is none."""
    return [one["expression"].get("literal", {}).get("text") for one in node["arguments"]]


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
    script = None if marked or not source.is_csv else _script(source.file)
    if script is not None:
        saved = "" if script == "UTF-8" else "save the file as UTF-8, and "
        return f"; its bytes look like {script}: {saved}leave `tables.{name}.encoding` out"
    wanted = "utf-16" if marked else "utf-8, windows-1252 or latin-1"
    return f"; set `tables.{name}.encoding` to what the file is in ({wanted}?) or save the file as UTF-8"
