"""The rows that came in lately: how many, how fresh, with what in them, table by table, before customers are looked at.

A fault of a source shows here at once, in every row that it touches, where in the features of customers it drowns among
those who did not buy lately.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import pandas as pd

from monitoring import shifts
from monitoring.shifts import Numbers, Pair, Texts
from workspace import storage
from workspace.settings import Workspace
from workspace.tables import CONTRACTS, TREATMENT_KINDS
from workspace.windows import days_after

DAYS = 30
"""Before an as_of, whose rows are compared."""
TABLES = ("transactions", "interactions")
_NUMBERS = {"transactions": ("amount", "quantity", "discount", "cost"), "interactions": ("value",)}
_MONEY = ("amount", "cost")  # quantities may be pieces and grams at once
_TEXTS = {"transactions": ("channel", "location", "category"), "interactions": ("kind", "channel")}
_NEW = {"transactions": (*_TEXTS["transactions"], "product_id"), "interactions": _TEXTS["interactions"]}
_FEWEST_ROWS, _FEWEST_OF_A_TAIL = 30, 300  # of a side, to compare what is in them, and its largest hundredth


@dataclass(frozen=True)
class Recent:
    """The rows of one table in the `DAYS` before an as_of: a sample of them, and figures of all.

    `missing` and `new` are shares by column, `repeated` a share; `pause` days since the last row, `DAYS` without any.
    """

    rows: pd.DataFrame
    count: int
    pause: int
    repeated: float
    missing: Mapping[str, float]
    new: Mapping[str, float]

    @functools.cached_property
    def numbers(self) -> dict[str, Numbers]:
        """By column of `rows`, what is not missing of it."""
        columns = self.rows.select_dtypes("number")
        return {str(name): Numbers(columns[name].dropna().to_numpy(dtype=np.float64)) for name in columns}

    @functools.cached_property
    def texts(self) -> dict[str, Texts]:
        """By column of `rows`, what is not missing of it."""
        columns = self.rows.select_dtypes(exclude="number")
        return {str(name): Texts(columns[name].dropna().astype(str)) for name in columns}


def first_day(workspace: Workspace) -> date | None:
    """Of the first purchase; none before any was ingested."""
    if not _has(workspace, "transactions"):
        return None
    query = f"SELECT min(day) FROM {storage.rows_of(workspace.home_path, 'transactions')}"
    with storage.connect(workspace.home_path, workspace.timezone) as connection:
        day: date | None = connection.execute(query).fetchall()[0][0]
    return day


class Lately:
    """The rows that came in before one as_of or another; it keeps what it has looked at."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.tables = [table for table in TABLES if _has(workspace, table)]
        self._connection = storage.connect(workspace.home_path, workspace.timezone)
        self._held = {table: self._columns(table) for table in self.tables}
        self._by_day: dict[date, dict[str, Recent]] = {}
        for table in self.tables:
            self._note_first(table)
            self._sort(table)

    def at(self, as_of: date) -> dict[str, Recent]:
        """What each table of events holds of the `DAYS` before `as_of`, as known then."""
        if as_of not in self._by_day:
            self._by_day[as_of] = {table: self._recent(table, as_of) for table in self.tables}
        return self._by_day[as_of]

    def _columns(self, table: str) -> set[str]:
        described = self._connection.execute(f"DESCRIBE SELECT * FROM {_accepted(self.workspace, table)}").fetchall()
        return {row[0] for row in described}

    def _note_first(self, table: str) -> None:
        """The first day of every value, once for all as_ofs."""
        for name in self._among(table, _NEW):
            self._connection.execute(f"""
                CREATE TEMP TABLE first_{table}_{name} AS SELECT {name}, min(day) AS "{name} first"
                FROM {_accepted(self.workspace, table)} WHERE {name} IS NOT NULL GROUP BY ALL""")

    def _sort(self, table: str) -> None:
        """The rows by day, so that a month is read without the others; `line` stands for all that a row says."""
        line, seed, new = ", ".join(self._given(table)), self.workspace.training.seed, self._among(table, _NEW)
        shown = ["day", "known_day", "hour", *self._among(table, _NUMBERS), *self._among(table, _TEXTS)]
        empty = [f'{name} IS NULL AS "{name} empty"' for name in self._given(table)]
        first = [f'"{name} first"' for name in new]
        joined = " ".join(f"LEFT JOIN first_{table}_{name} USING ({name})" for name in new)
        self._connection.execute(f"""
            CREATE TEMP TABLE {table} AS
            SELECT {", ".join([*shown, *empty, *first])}, hash({line}) AS line, hash({line}, {seed}) AS chance
            FROM {_accepted(self.workspace, table)} {joined} ORDER BY day""")

    def _given(self, table: str) -> list[str]:
        return [name for name in CONTRACTS[table].names if name in self._held[table] and name != "campaign_id"]

    def _among(self, table: str, of: Mapping[str, Sequence[str]]) -> list[str]:
        return [name for name in of[table] if name in self._held[table]]

    def _recent(self, table: str, as_of: date) -> Recent:
        start, given, valued = days_after(as_of, -DAYS), self._given(table), self._among(table, _NEW)
        rows = f"{table} WHERE day >= DATE '{start}' AND day < DATE '{as_of}' AND known_day < DATE '{as_of}'"
        empty = [f'"{name} empty"' for name in given]
        new = [f"""coalesce("{name} first" >= DATE '{start}', FALSE)""" for name in valued]
        shares = ", ".join(f"coalesce(avg(({is_so})::INT), 0)" for is_so in [*empty, *new])
        count, last, distinct, *of = self._connection.execute(
            f"SELECT count(*), max(day), count(DISTINCT line), {shares} FROM {rows}"
        ).fetchall()[0]
        shown = ", ".join([*self._among(table, _NUMBERS), *self._among(table, _TEXTS), "hour"])
        chosen = f"ORDER BY chance LIMIT {self.workspace.monitoring.sample}"
        return Recent(
            rows=self._connection.execute(f"SELECT {shown} FROM {rows} {chosen}").df(),
            count=count,
            pause=(as_of - timedelta(days=1) - last).days if last else DAYS,
            repeated=1 - distinct / count if count else 0.0,
            missing=dict(zip(given, of[: len(given)], strict=True)),
            new=dict(zip(valued, of[len(given) :], strict=True)),
        )


def _has(workspace: Workspace, table: str) -> bool:
    given = table in workspace.tables.given()
    return given and bool(storage.parts(storage.tables_folder(workspace.home_path, table)))


def _accepted(workspace: Workspace, table: str) -> str:
    """SQL: the rows of a table; transactions with the product's category, interactions without the marketer's own.

    Campaigns come when the marketer wants: their days are no news of the world.
    """
    rows = storage.rows_of(workspace.home_path, table)
    if table == "interactions":
        treatment = ", ".join(map(storage.quoted, TREATMENT_KINDS))
        return f"(SELECT * FROM {rows} WHERE kind NOT IN ({treatment}))"
    if not _has(workspace, "products"):
        return rows
    products = storage.rows_of(workspace.home_path, "products")
    return (
        f"(SELECT lines.*, category FROM {rows} AS lines"
        f" LEFT JOIN (SELECT product_id, category FROM {products}) USING (product_id))"
    )


def pairs(before: Mapping[str, Recent], after: Mapping[str, Recent]) -> dict[str, Pair]:
    """Each table's volume, freshness and repeated lines, each column's values, empty cells and new values, by name."""
    by_name: dict[str, Pair] = {}
    for table in before.keys() & after.keys():
        then, now = before[table], after[table]
        by_name[table] = _volume(then, now)
        by_name[f"{table} since"] = Pair("pause", (now.pause - then.pause) / DAYS, 0.0, then.pause, now.pause)
        if min(then.count, now.count) < _FEWEST_ROWS:
            continue
        grown = now.repeated - then.repeated
        by_name[f"{table} lines"] = Pair("repeated", grown, 0.0, then.repeated, now.repeated)
        for name, share in now.missing.items():
            other = then.missing.get(name, 1.0)
            by_name[f"{table}.{name} empty"] = Pair("missing", abs(share - other), 0.0, other, share)
        for name, share in now.new.items():
            other = then.new.get(name, 0.0)
            by_name[f"{table}.{name} new"] = Pair("new", share - other, 0.0, other, share)
        by_name |= _numbers(table, then, now) | _texts(table, then, now)
    return by_name


def _numbers(table: str, then: Recent, now: Recent) -> dict[str, Pair]:
    by_name: dict[str, Pair] = {}
    for name, before in then.numbers.items():
        after = now.numbers[name]
        fewest = min(before.rows, after.rows)
        if fewest >= _FEWEST_ROWS:
            by_name[f"{table}.{name}"] = shifts.numbers(before, after)
        if name in _MONEY and fewest >= _FEWEST_OF_A_TAIL and (extremes := shifts.tail(before, after)):
            by_name[f"{table}.{name} tail"] = extremes
    return by_name


def _texts(table: str, then: Recent, now: Recent) -> dict[str, Pair]:
    return {
        f"{table}.{name}": shifts.categories(before, now.texts[name])
        for name, before in then.texts.items()
        if min(before.rows, now.texts[name].rows) >= _FEWEST_ROWS
    }


def _volume(then: Recent, now: Recent) -> Pair:
    score = abs(math.log((now.count + 1) / (then.count + 1)))
    chance = 3 * math.sqrt(1 / (then.count + 1) + 1 / (now.count + 1))
    return Pair("volume", score, chance, then.count / DAYS, now.count / DAYS)
