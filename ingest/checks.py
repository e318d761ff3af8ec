"""What is wrong with every row: sources typed, judged and compared, in one DuckDB table called `checked`.

`checked` has one row per row of a source: `source` (its number in the batch), `line`, the canonical columns, `reason`
(null when nothing is wrong) and `as_written`, the texts of the canonical columns of a row that has a reason.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import duckdb

from ingest.revisions import ORDER
from ingest.rows import Mapped, Rows, identifier, mapped
from workspace import ids
from workspace.money import FILTERED, NOTHING, Money, summed
from workspace.settings import Table
from workspace.storage import quoted, reader
from workspace.tables import ABSURD_AMOUNT, DATED, EARLIEST, Contract

FUTURE = "occurred_at is in the future"
ELSEWHERE = "already in another source"
REPLACED = "replaced by a later source"
ERASED = "erased customer"
# Rows that other sources hold as well, or that may not be kept, are no sign of a bad source.
NOT_THE_SOURCES_FAULT = (ELSEWHERE, REPLACED, ERASED)

_NOT_OF_TYPE = {"TIMESTAMPTZ": "is not a time", "DOUBLE": "is not a number", "BOOLEAN": "is not true or false"}
_TIME = (
    r"^([0-9]{4}[-/][0-9]{1,2}[-/][0-9]{1,2})[Tt ] *([0-9]{1,2}:[0-9]{2}(?::[0-9]{2}(?:[.,][0-9]+)?)?)"
    r" *([Zz]|[+-][0-9]{2}(?::?[0-9]{2})?|)$"
)
_FRACTIONS = ("FLOAT", "DOUBLE", "DECIMAL")


@dataclass(frozen=True)
class Rules:
    """What rows are judged by beyond their types: the clock, and who is a customer (SQL, where that is known)."""

    contract: Contract
    now: datetime
    customers: str | None


@dataclass(frozen=True)
class Filtered:
    """What a table's filter drops of one source: rows, and their money where they have any."""

    rows: int
    money: Money | None


def create(connection: duckdb.DuckDBPyConnection, columns: Mapping[str, str]) -> None:
    """An empty table `checked` for rows of these canonical columns and types."""
    types = ", ".join(f"{identifier(name)} {kind}" for name, kind in columns.items())
    columns_of_all = f"source INTEGER, line BIGINT, {types}, reason VARCHAR, as_written VARCHAR[]"
    connection.execute(f"CREATE OR REPLACE TEMP TABLE checked ({columns_of_all})")


def add(
    connection: duckdb.DuckDBPyConnection, number: int, table: Table, rows: Rows, expressions: Mapping[str, Mapped],
    columns: Mapping[str, str], rules: Rules,
) -> None:  # fmt: skip
    """Puts the rows of one source into `checked`, in the order of their lines, each with the first thing wrong."""
    raw = mapped(
        table,
        rows,
        {_raw(name): source.expression for name, source in expressions.items()}
        | {_written(name): source.written for name, source in expressions.items() if source.written},
    )
    typed = ", ".join(
        f"{_typed(name, kind, expressions.get(name), name in rules.contract.ids)} AS {identifier(name)}"
        for name, kind in columns.items()
    )
    texts = [_as_written(name, expressions[name]) if name in expressions else "NULL" for name in columns]
    if table.group_by:  # sums and ties of parallel aggregates differ from run to run
        connection.execute("SET threads = 1")
    connection.execute(f"""
        INSERT INTO checked
        WITH given AS ({raw}),
             typed AS (SELECT *, {typed} FROM given),
             judged AS (SELECT *, {_reason(rules, expressions, columns)} AS reason FROM typed)
        SELECT {number}, line, {", ".join(map(identifier, columns))}, reason,
               CASE WHEN reason IS NOT NULL THEN [{", ".join(texts)}] END
        FROM judged {"ORDER BY line" if table.group_by else ""}""")
    connection.execute("RESET threads")


def _raw(name: str) -> str:
    return identifier(f"raw_{name}")


def _written(name: str) -> str:
    return identifier(f"written_{name}")


def _as_written(name: str, source: Mapped) -> str:
    text = f"CAST({_raw(name)} AS VARCHAR)"
    return f"coalesce({text}, {_written(name)})" if source.written else text


def _typed(name: str, kind: str, source: Mapped | None, is_id: bool = False) -> str:
    """The value in its canonical type; null where it has none."""
    if source is None:
        return f"CAST(NULL AS {kind})"
    raw = _raw(name)
    if kind == "VARCHAR":
        return as_id(raw, source.given) if is_id else as_text(raw, source.given)
    value = f"TRY_CAST({_trimmed(raw) if source.given == 'VARCHAR' else raw} AS {kind})"
    if kind == "TIMESTAMPTZ" and source.given == "VARCHAR":
        value = f"coalesce({value}, TRY_CAST({_spelled(_trimmed(raw))} AS {kind}))"
    return f"CASE WHEN isfinite({value}) THEN {value} END" if kind in ("DOUBLE", "TIMESTAMPTZ") else value


def _spelled(time: str) -> str:
    """SQL for a time as DuckDB spells it: the standards also allow a blank before the offset, `t`, `z` and commas."""
    day, clock, offset = (f"regexp_extract({time}, {quoted(_TIME)}, {group})" for group in (1, 2, 3))
    return f"{day} || ' ' || replace({clock}, ',', '.') || upper({offset})"


def _trimmed(raw: str) -> str:
    return ids.trimmed(f"CAST({raw} AS VARCHAR)")


def as_id(raw: str, given: str) -> str:
    """SQL for the id that an expression of type `given` means, null where it means none."""
    return _whole_or(raw, given, ids.usable(f"CAST({raw} AS VARCHAR)"))


def as_text(raw: str, given: str) -> str:
    """SQL for the canonical text of an expression of type `given`, null for a blank."""
    return _whole_or(raw, given, ids.normalized(f"CAST({raw} AS VARCHAR)"))


def _whole_or(raw: str, given: str, text: str) -> str:
    """An id that is kept as a number with fractions is 17850, not 17850.0."""
    if given not in _FRACTIONS:
        return text
    whole = f"CAST(CAST({raw} AS BIGINT) AS VARCHAR)"
    return f"CASE WHEN {raw} = trunc({raw}) AND abs({raw}) < 1e15 THEN {whole} ELSE {text} END"


def _is_blank(name: str, kind: str, source: Mapped) -> str:
    """SQL: nothing was given. NaN is how pandas and numpy write that of a number."""
    raw = _raw(name)
    if source.written:
        return f"({raw} IS NULL AND {_written(name)} IS NULL)"
    if source.given in ("FLOAT", "DOUBLE"):
        return f"({raw} IS NULL OR isnan({raw}))"
    if source.given == "VARCHAR":
        nothing = "('', 'nan')" if kind == "DOUBLE" else "('')"
        return f"coalesce(lower({ids.trimmed(raw)}), '') IN {nothing}"
    return f"{raw} IS NULL"


def _reason(rules: Rules, expressions: Mapping[str, Mapped], columns: Mapping[str, str]) -> str:
    """The first thing wrong with a row, as a SQL expression over its raw and typed columns; null when nothing."""
    wrong = [_unusable(name, columns[name], source, rules.contract) for name, source in expressions.items()]
    if rules.contract.is_event:
        wrong.append(_when(f"occurred_at > TIMESTAMPTZ {quoted(rules.now.isoformat())}", FUTURE))
        wrong.append(_when(f"occurred_at < TIMESTAMPTZ '{EARLIEST}-01-01'", f"occurred_at is before {EARLIEST}"))
    if "amount" in columns:
        wrong.append(_when(f"abs(amount) > {ABSURD_AMOUNT:.0f}", "absurd amount"))
    if rules.customers is not None:
        wrong.append(_when(f"customer_id NOT IN ({rules.customers})", "unknown customer"))
    return f"coalesce({', '.join(wrong)})"


def _unusable(name: str, kind: str, source: Mapped, contract: Contract) -> str:
    """SQL: why a column has no value. What was written is only looked at where there is none, which is seldom."""
    blank = quoted(f"no {name}") if name in contract.required else "NULL"
    other = quoted(f"{name} {_NOT_OF_TYPE[kind]}") if kind in _NOT_OF_TYPE else blank
    if name in contract.ids:
        other = ids.why_not(name, f"CAST({_raw(name)} AS VARCHAR)")
    why = f"CASE WHEN {_is_blank(name, kind, source)} THEN {blank} ELSE {other} END"
    return f"CASE WHEN {identifier(name)} IS NULL THEN {why} END"


def _when(condition: str, reason: str) -> str:
    return f"CASE WHEN {condition} THEN {quoted(reason)} END"


def mark_further_lines(connection: duckdb.DuckDBPyConnection) -> None:
    """Tells lines that want what another line of their order has from those of which nothing is known."""
    connection.execute("""
        UPDATE checked SET reason = 'further line without ' || substr(reason, 4)
        WHERE reason IN ('no customer_id', 'no occurred_at') AND transaction_id IN (
            SELECT transaction_id FROM checked WHERE customer_id IS NOT NULL AND occurred_at IS NOT NULL)""")


def mark_erased(connection: duckdb.DuckDBPyConnection, marks: Collection[str]) -> None:
    """Gives the rows of customers with these marks their reason, whatever else is wrong with them."""
    customers = "SELECT DISTINCT customer_id FROM checked WHERE customer_id IS NOT NULL"
    connection.execute(
        f"""UPDATE checked SET reason = {quoted(ERASED)} WHERE customer_id IN (
                SELECT customer_id FROM ({customers}) WHERE mark(customer_id) IN (SELECT unnest(?)))""",
        [list(marks)],
    )


def mark_repeats(connection: duckdb.DuckDBPyConnection, key: Sequence[str], what: str) -> None:
    """Gives every repetition of a key within `checked` a reason: the first line of the last source stays.

    Only rows whose hash occurs twice are compared, which keeps millions of different lines cheap.
    """
    names = _names(key)
    connection.execute(f"""
        UPDATE checked SET reason = fault FROM (
            SELECT rowid AS repeated,
                   CASE WHEN max(source) OVER (PARTITION BY {names}) > source
                        THEN {quoted(REPLACED)} ELSE {quoted(f"duplicate {what}")} END AS fault
            FROM checked
            WHERE reason IS NULL AND hash({names}) IN (
                SELECT hash({names}) FROM checked WHERE reason IS NULL GROUP BY 1 HAVING count(*) > 1)
            QUALIFY row_number() OVER (PARTITION BY {names} ORDER BY source DESC, line) > 1
        ) WHERE checked.rowid = repeated""")


def mark_elsewhere(connection: duckdb.DuckDBPyConnection, key: Sequence[str], earlier: str) -> None:
    """Gives a reason to rows that `earlier` (SQL) holds too: as many of each as it holds, so that copies count.

    Where the key is the whole line, only the days that both cover are read.
    """
    names = _names(key)
    days = ""
    if "occurred_at" in key:
        first, last = (f"(SELECT {end}(occurred_at) FROM checked)" for end in ("min", "max"))
        days = f" WHERE occurred_at BETWEEN {first} AND {last}"
    connection.execute(f"""
        CREATE OR REPLACE TEMP TABLE shared AS
        SELECT {names}, count(*) AS copies FROM (SELECT {names} FROM {earlier}{days})
        WHERE hash({names}) IN (SELECT hash({names}) FROM checked WHERE reason IS NULL) GROUP BY ALL""")
    same = " AND ".join(f"mine.{name} IS NOT DISTINCT FROM shared.{name}" for name in map(identifier, key))
    connection.execute(f"""
        UPDATE checked SET reason = {quoted(ELSEWHERE)} FROM (
            SELECT mine.repeated FROM (
                SELECT rowid AS repeated, {names}, row_number() OVER (PARTITION BY {names} ORDER BY line) AS copy
                FROM checked WHERE reason IS NULL AND hash({names}) IN (SELECT hash({names}) FROM shared)
            ) AS mine JOIN shared ON {same} AND mine.copy <= shared.copies
        ) AS twice WHERE checked.rowid = twice.repeated""")
    connection.execute("DROP TABLE shared")


def mark_taken(connection: duckdb.DuckDBPyConnection, column: str, elsewhere: str) -> None:
    """Gives a reason to rows whose `column` is one of those in `elsewhere` (SQL), whatever else they say."""
    connection.execute(
        f"UPDATE checked SET reason = {quoted(ELSEWHERE)}"
        f" WHERE reason IS NULL AND {identifier(column)} IN (SELECT {identifier(column)} FROM {elsewhere})"
    )


def start_known(connection: duckdb.DuckDBPyConnection, key: Sequence[str], parts: Sequence[Path]) -> None:
    """A table `known_keys` of the keys in these parts."""
    types = ", ".join(f"{identifier(name)} VARCHAR" for name in key)
    connection.execute(f"CREATE TEMP TABLE known_keys ({types})")
    if parts:
        connection.execute(f"INSERT INTO known_keys SELECT {_names(key)} FROM {reader(parts)}")


def remember(connection: duckdb.DuckDBPyConnection, key: Sequence[str]) -> None:
    """Adds the keys of the rows without a reason to `known_keys`."""
    connection.execute(f"INSERT INTO known_keys SELECT {_names(key)} FROM checked WHERE reason IS NULL")


def _names(columns: Sequence[str]) -> str:
    return ", ".join(map(identifier, columns))


def counts(connection: duckdb.DuckDBPyConnection, number: int) -> dict[str | None, int]:
    """Rows of one source by reason; those accepted under None."""
    query = f"SELECT reason, count(*) FROM checked WHERE source = {number} GROUP BY 1 ORDER BY 1"
    return dict(connection.execute(query).fetchall())


def money(connection: duckdb.DuckDBPyConnection, number: int) -> Money:
    """What became of the amounts of one source's rows."""
    query = f"SELECT reason, {summed('amount')} FROM checked WHERE source = {number} GROUP BY 1 ORDER BY 1"
    sums = {reason: (amount, unknown) for reason, amount, unknown in connection.execute(query).fetchall()}
    accepted, _ = sums.pop(None, (NOTHING, 0))
    unknown = {reason: rows for reason, (_, rows) in sums.items() if rows}
    return Money(accepted, quarantined={reason: amount for reason, (amount, _) in sums.items()}, unknown=unknown)


def filtered(
    connection: duckdb.DuckDBPyConnection, table: Table, rows: Rows, expressions: Mapping[str, Mapped], has_money: bool
) -> Filtered:
    """What the table's filter drops of a source; of rows with money also a table `dropped` of their orders.

    With each order stands the largest amount that was dropped of it, where one is not known that is taken for 0.
    """
    if not has_money:
        return Filtered(_dropped(connection, table, rows), None)
    connection.execute('CREATE OR REPLACE TEMP TABLE dropped ("order" UBIGINT, amount DOUBLE)')
    if not table.where:
        return Filtered(0, Money())
    for names in (("transaction_id", "amount"), ("transaction_id",)):
        with suppress(duckdb.Error):  # the column map need not work for rows that are not meant to be read
            largest = "max(coalesce(amount, 0))" if "amount" in names else "0"
            lines = f"{_of_dropped(table, rows, expressions, names)} WHERE transaction_id IS NOT NULL"
            connection.execute(f"INSERT INTO dropped SELECT {ORDER}, {largest} FROM ({lines}) GROUP BY 1")
            break
    return Filtered(_dropped(connection, table, rows), _dropped_money(connection, table, rows, expressions))


def _dropped(connection: duckdb.DuckDBPyConnection, table: Table, rows: Rows) -> int:
    if not table.where:
        return 0
    query = f"SELECT count(*) FROM {rows.sql} WHERE ({table.where}\n) IS NOT TRUE"
    return int(connection.execute(query).fetchall()[0][0])


def _dropped_money(
    connection: duckdb.DuckDBPyConnection, table: Table, rows: Rows, expressions: Mapping[str, Mapped]
) -> Money:  # fmt: skip
    """Where no amount can be computed it is unknown."""
    try:
        query = f"SELECT {summed('amount')} FROM ({_of_dropped(table, rows, expressions, ['amount'])})"
        amount, unknown = connection.execute(query).fetchall()[0]
    except duckdb.Error:
        amount, unknown = NOTHING, _dropped(connection, table, rows)
    return Money(filtered=amount, unknown={FILTERED: unknown} if unknown else {})


def _of_dropped(table: Table, rows: Rows, expressions: Mapping[str, Mapped], names: Sequence[str]) -> str:
    """SQL for canonical columns of the rows that the table's filter drops; null where one cannot be computed."""
    dropped = table.model_copy(update={"where": f"({table.where}\n) IS NOT TRUE"})
    plain = {name: expressions[name].expression for name in names}
    safe = plain if table.group_by else {name: f"TRY({expression}\n)" for name, expression in plain.items()}
    given = mapped(dropped, rows, {_raw(name): expression for name, expression in safe.items()})
    kinds = {name: "DOUBLE" if name == "amount" else "VARCHAR" for name in names}
    typed = ", ".join(f"{_typed(n, kind, expressions[n], kind == 'VARCHAR')} AS {n}" for n, kind in kinds.items())
    return f"SELECT * FROM (SELECT {typed} FROM ({given}))"


def times(connection: duckdb.DuckDBPyConnection) -> tuple[int | None, int | None, int | None]:
    """When accepted rows lie, from and to, and when the first of the rows in the future will no longer be there.

    In microseconds since 1970; none where there are no such rows.
    """
    first, last, due = connection.execute(f"""
        SELECT epoch_us(min(occurred_at) FILTER (reason IS NULL)), epoch_us(max(occurred_at) FILTER (reason IS NULL)),
               epoch_us(min(occurred_at) FILTER (reason = {quoted(FUTURE)})) FROM checked""").fetchall()[0]
    return first, last, due


def accepted(contract: Contract, columns: Sequence[str]) -> str:
    """SQL for the rows without a reason, in the order of their lines, with the days and the hour that features read."""
    return f"SELECT {_names(columns)}{days(contract, columns)} FROM checked WHERE reason IS NULL"


def days(contract: Contract, columns: Sequence[str]) -> str:
    """SQL for the columns that features read beside the canonical ones: days and an hour, in the session's timezone."""
    sql = ""
    if contract.is_event:
        day, recorded = "CAST(occurred_at AS DATE)", "CAST(recorded_at AS DATE)"
        sql = f", {day} AS day, greatest({day}, coalesce({recorded}, {day})) AS known_day"
        sql += ", CAST(hour(occurred_at) AS UTINYINT) AS hour"
    for name in DATED:
        if name in columns:
            sql += f", CAST({name} AS DATE) AS {name.removesuffix('_at')}_day"
    return sql


def quarantined(origins: Sequence[str], part: str, columns: Sequence[str]) -> str:
    """SQL for the rows with a reason: where they are, and their canonical columns as texts, as they were written.

    Without those of erased customers, who may not be kept here either.
    """
    names = "[" + ", ".join(map(quoted, origins)) + "]"
    written = ", ".join(
        f"coalesce(as_written[{place}], CAST({name} AS VARCHAR)) AS {name}"
        for place, name in enumerate(map(identifier, columns), 1)
    )
    return f"""SELECT {names}[source + 1] AS source, line, reason, {written}, {quoted(part)} AS part
               FROM checked WHERE reason IS NOT NULL AND reason <> {quoted(ERASED)} ORDER BY ALL"""


def examples(
    connection: duckdb.DuckDBPyConnection, number: int, reason: str, columns: Sequence[str], are_lines: bool
) -> str:
    """The first three rows with a reason: their lines, where the source has any, or numbers, and what was written where
    the reason names a column."""
    place = next((place for place, name in enumerate(columns, 1) if reason.startswith(f"{name} is ")), None)
    shown = "NULL" if place is None else f"left(as_written[{place}], 40)"
    where = f"source = {number} AND reason = {quoted(reason)}"
    rows = connection.execute(f"SELECT line, {shown} FROM checked WHERE {where} ORDER BY line LIMIT 3").fetchall()
    what = "line" if are_lines else "row"
    return ", ".join(f"{what} {line}" + ("" if text is None else f": {text}") for line, text in rows)
