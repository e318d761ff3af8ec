"""What the canonical tables hold: rows, columns, days covered, ids that lead nowhere. All in aggregate, by DuckDB."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import pairwise
from statistics import median
from typing import Any

import duckdb

from ingest.intake import Account
from workspace import storage
from workspace.settings import Workspace
from workspace.tables import CONTRACTS

# Which column of which table names a row of which other.
_REFERENCES = (
    ("transactions", "customer_id", "customers"),
    ("transactions", "product_id", "products"),
    ("interactions", "customer_id", "customers"),
    ("interactions", "product_id", "products"),
    ("interactions", "campaign_id", "campaigns"),
)
_TIME = "TIMESTAMP WITH TIME ZONE"
_KINDS = {_TIME: "time", "DOUBLE": "number", "BOOLEAN": "yes or no", "VARCHAR": "text"}
# Rows that quartiles and the most frequent value are taken from, at least, where there are more.
_SAMPLED = 1_000_000
_FEW_DAYS = 7
_BEFORE = 3
SUDDEN = 2.5
"""A month with so many times the rows per day of the three before it, or that much less, is a sudden change."""


@dataclass(frozen=True)
class Column:
    """One column of the accepted rows. `low` to `high` are numbers, or ISO dates of times, or texts without quartiles.

    distinct: exact to about 6 %; common: the most frequent text, null for ids, numbers and times. Where there are more
    than two million rows, quartiles and `common` are those of a part of them.
    """

    name: str
    type: str
    missing: int
    distinct: int
    low: float | str | None
    lower_quartile: float | str | None
    median: float | str | None
    upper_quartile: float | str | None
    high: float | str | None
    common: str | None


@dataclass(frozen=True)
class Month:
    """Accepted rows of an event table in one month, `YYYY-MM`, of which `days` lie within what the table covers."""

    month: str
    rows: int
    days: int


@dataclass(frozen=True)
class Jump:
    """A month whose rows per day are far from the median of the months before it."""

    month: str
    rows_per_day: float
    usual: float


@dataclass(frozen=True)
class Coverage:
    """The days of an event table's accepted rows. `longest_silence`: the days between two days with rows, at most."""

    first: date
    last: date
    months: tuple[Month, ...]
    empty_months: tuple[str, ...]
    jumps: tuple[Jump, ...]
    longest_silence: int
    silent_after: date | None
    not_known_yet: int


@dataclass(frozen=True)
class Orphans:
    """Ids that the other table does not have: how many, in how many rows, and the first of them."""

    column: str
    table: str
    ids: int
    rows: int
    example: str


@dataclass(frozen=True)
class Table:
    """One canonical table: `read = accepted + quarantined`.

    duplicates: rows quarantined as such; equal_lines: accepted rows that equal another one, where the workspace keeps
    them; coverage: null for tables that describe.
    """

    name: str
    read: int
    filtered: int
    accepted: int
    quarantined: Mapping[str, int]
    duplicates: int
    equal_lines: int
    columns: tuple[Column, ...]
    coverage: Coverage | None
    orphans: tuple[Orphans, ...]


def describe(connection: duckdb.DuckDBPyConnection, workspace: Workspace, account: Account, as_of: date) -> Table:
    """The figures of one ingested table; `as_of` only says which of its rows were known."""
    name = account.table
    rows = storage.rows_of(workspace.home_path, name)
    names = (*CONTRACTS[name].names, *(workspace.attributes if name == "customers" else ()))
    keeps = name == "transactions" and workspace.tables.transactions.duplicates == "keep"
    return Table(
        name, account.read, account.filtered, account.accepted, dict(sorted(account.quarantined.items())),
        sum(count for reason, count in account.quarantined.items() if reason.startswith("duplicate ")),
        _equal_lines(connection, rows) if keeps else 0,
        columns(connection, rows, names, account.accepted),
        coverage(connection, rows, as_of) if CONTRACTS[name].is_event else None,
        _orphans(connection, workspace, name),
    )  # fmt: skip


def columns(
    connection: duckdb.DuckDBPyConnection, rows: str, names: Sequence[str], accepted: int
) -> tuple[Column, ...]:
    """One entry per name, in one pass over `rows` (SQL that reads Parquet parts), of which `accepted` are there."""
    types = {row[0]: row[1] for row in connection.execute(f"DESCRIBE SELECT * FROM {rows}").fetchall()}
    wanted = list(dict.fromkeys(names))
    sampled = f"FILTER (file_row_number % {max(1, accepted // _SAMPLED)} = 0)"
    figures = [f"{{{_figures(name, types[name], sampled)}}}" for name in wanted]
    count, *each = connection.execute(f"SELECT count(*), {', '.join(figures)} FROM {rows}").fetchall()[0]
    return tuple(_column(name, types[name], count, f) for name, f in zip(wanted, each, strict=True))


def _figures(name: str, kind: str, sampled: str) -> str:
    """SQL for the fields of a struct. Memory is bounded at any number of rows: distinct is a sketch."""
    value = f'"{name}"'
    fields = [f"'filled': count({value}), 'distinct': approx_count_distinct({value})"]
    if kind != "BOOLEAN":
        fields += [f"'{field}': {_shown(f'{end}({value})', kind)}" for field, end in (("low", "min"), ("high", "max"))]
    if kind in ("DOUBLE", _TIME):
        quartiles = f"quantile_disc({value}, [0.25, 0.5, 0.75]) {sampled}"
        fields.append(f"'quartiles': list_transform({quartiles}, lambda x: {_shown('x', kind)})")
    if kind in ("VARCHAR", "BOOLEAN") and not name.endswith("_id"):
        fields.append(f"'common': approx_top_k(CAST({value} AS VARCHAR), 1) {sampled}")
    return ", ".join(fields)


def _shown(value: str, kind: str) -> str:
    return f"CAST(CAST({value} AS DATE) AS VARCHAR)" if kind == _TIME else value


def _column(name: str, kind: str, rows: int, figures: dict[str, Any]) -> Column:
    filled = figures["filled"]
    lower, middle, upper = figures.get("quartiles") or (None, None, None)
    return Column(
        name, _KINDS[kind], rows - filled, min(figures["distinct"], filled), figures.get("low"), lower, middle, upper,
        figures.get("high"), next(iter(figures.get("common") or ()), None),
    )  # fmt: skip


def coverage(connection: duckdb.DuckDBPyConnection, rows: str, as_of: date) -> Coverage:
    """The days of an event table's rows (SQL), of which it has at least one."""
    query = f"SELECT day, count(*), count(*) FILTER (known_day >= DATE '{as_of}') FROM {rows} GROUP BY day ORDER BY day"
    counted = connection.execute(query).fetchall()
    per_day = {day: count for day, count, _ in counted}
    days = list(per_day)
    months = _months(per_day)
    longest, after = max(((later - day).days - 1, day) for day, later in pairwise(days)) if len(days) > 1 else (0, None)
    return Coverage(
        days[0], days[-1], months, tuple(m.month for m in months if m.rows == 0), _jumps(months),
        longest, after if longest else None, sum(late for _, _, late in counted),
    )  # fmt: skip


def _months(per_day: Mapping[date, int]) -> tuple[Month, ...]:
    """Every month from the first day with rows to the last, those without any included."""
    first, last = min(per_day), max(per_day)
    rows: dict[str, int] = {}
    days: dict[str, int] = {}
    for number in range((last - first).days + 1):
        day = first + timedelta(days=number)
        month = f"{day:%Y-%m}"
        rows[month] = rows.get(month, 0) + per_day.get(day, 0)
        days[month] = days.get(month, 0) + 1
    return tuple(Month(month, rows[month], days[month]) for month in rows)


def _jumps(months: Sequence[Month]) -> tuple[Jump, ...]:
    """Months with over 2.5 times, or under 1 / 2.5 of, the rows per day that the three before had in the middle.

    The first and last months count only if the data reach over a week of them; empty months are told apart from these.
    """
    judged = [(m.month, m.rows / m.days) for m in months if m.days >= _FEW_DAYS and m.rows]
    jumps = []
    for place in range(_BEFORE, len(judged)):
        month, rate = judged[place]
        usual = median(rate for _, rate in judged[place - _BEFORE : place])
        if not usual / SUDDEN <= rate <= usual * SUDDEN:
            jumps.append(Jump(month, rate, usual))
    return tuple(jumps)


def _equal_lines(connection: duckdb.DuckDBPyConnection, rows: str) -> int:
    """How many rows repeat another one; they are told apart by a 64-bit hash."""
    counts = connection.execute(f"SELECT count(*) - count(DISTINCT hash(t)) FROM {rows} AS t").fetchall()
    return int(counts[0][0])


def _orphans(connection: duckdb.DuckDBPyConnection, workspace: Workspace, name: str) -> tuple[Orphans, ...]:
    orphans = []
    for table, column, other in _REFERENCES:
        if table != name or other not in workspace.tables.given():
            continue
        key = CONTRACTS[other].key[0]
        rows, others = (storage.rows_of(workspace.home_path, each) for each in (table, other))
        ids, count, example = connection.execute(f"""
            SELECT count(*), sum(rows), min(id)
            FROM (SELECT {column} AS id, count(*) AS rows FROM {rows} WHERE {column} IS NOT NULL GROUP BY 1)
            ANTI JOIN (SELECT {key} AS id FROM {others}) USING (id)""").fetchall()[0]
        if ids:
            orphans.append(Orphans(column, other, ids, int(count), example))
    return tuple(orphans)
