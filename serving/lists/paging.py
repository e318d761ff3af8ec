"""Pages of a list: its rows in a fixed order, who of them is asked for, and where the next page begins."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

import duckdb
import pandas as pd
from pydantic import Field, FiniteFloat, TypeAdapter

from serving.consent import Consents
from serving.lists.filters import NoSuchFilter
from workspace import storage
from workspace.settings import Workspace

_MEMORY = 1.0  # gigabytes of reading pages; what needs more goes to disk

Ties = Sequence[str]
"""Columns that rows are ordered by, highest first and unknown last; who is alike in all of them is ordered by id."""


@dataclass(frozen=True)
class Where:
    """SQL conditions over the rows of a list, and the values in them."""

    conditions: list[str]
    values: dict[str, Any]

    def add(self, condition: str, **values: Any) -> None:
        self.conditions.append(condition)
        self.values.update(values)

    def __str__(self) -> str:
        return " AND ".join(self.conditions)


@dataclass(frozen=True)
class Totals:
    """So many customers, and what of an amount they have together, null where that is withheld."""

    customers: int
    amount: float | None


# Of a page: the values of its last row in the order of the ties, and whose it is.
_End = tuple[list[float | None], str]
_Place = tuple[date, str, list[FiniteFloat | None], Annotated[str, Field(max_length=1_000)]]
_PLACE: TypeAdapter[_Place] = TypeAdapter(_Place)


def order(ties: Ties) -> str:
    return ", ".join([*(f"{name} DESC NULLS LAST" for name in ties), "customer_id"])


def read(workspace: Workspace, rows: str, where: Where, ties: Ties, top: int) -> pd.DataFrame:
    """The first `top` rows of a list; `rows` is SQL that has them all."""
    query = f"SELECT * FROM {rows} WHERE {where} ORDER BY {order(ties)} LIMIT {top}"
    with reader(workspace.home_path).cursor() as connection:
        Consents(workspace.home_path).tell(connection)
        return connection.execute(query, where.values).df()


def total(workspace: Workspace, rows: str, where: Where, amount: str) -> Totals:
    """Of all rows of a list."""
    with reader(workspace.home_path).cursor() as connection:
        Consents(workspace.home_path).tell(connection)
        query = f"SELECT count(*), sum({amount}) FROM {rows} WHERE {where}"
        return Totals(*connection.execute(query, where.values).fetchall()[0])


@lru_cache(maxsize=4)
def reader(home: Path) -> duckdb.DuckDBPyConnection:
    """Kept: to open one takes longer than to read a page. Its cursors may be used by any thread."""
    connection = storage.connect(home, memory=_MEMORY)
    connection.execute("SET parquet_metadata_cache = true")
    return connection


def go_on(where: Where, cursor: str, as_of: date, sort: str, ties: Ties) -> None:
    """Only what comes behind the last row of a page.

    Raises:
        NoSuchFilter: the cursor is of another list.
    """
    values, customer_id = _place_of(cursor, as_of, sort, ties)
    behind = "customer_id > $last_id"
    for place, (name, value) in reversed(list(enumerate(zip(ties, values, strict=True)))):
        if value is None:
            behind = f"({name} IS NULL AND {behind})"
            continue
        behind = f"({name} < $last_{place} OR {name} IS NULL OR ({name} = $last_{place} AND {behind}))"
        where.values[f"last_{place}"] = value
    where.add(behind, last_id=customer_id)


def cursor(as_of: date, sort: str, ties: Ties, last: pd.Series) -> str:
    """Where a page ends whose last row this is."""
    values = [None if pd.isna(last[name]) else float(last[name]) for name in ties]
    place = [str(as_of), sort, values, str(last["customer_id"])]
    return base64.urlsafe_b64encode(json.dumps(place).encode()).decode().rstrip("=")


def _place_of(cursor: str, as_of: date, sort: str, ties: Ties) -> _End:
    """Where a page ended. A cursor is a caller's: whatever it says is checked, as a body is."""
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        place = _PLACE.validate_json(base64.b64decode(padded, altchars=b"-_", validate=True), strict=True)
    except ValueError as problem:
        raise NoSuchFilter("query.cursor: take it as it stands in the header `Link` of the last page") from problem
    day, by, values, customer_id = place
    if (day, by, len(values)) != (as_of, sort, len(ties)):
        raise NoSuchFilter(f"query.cursor: it is of the list of {day} by {by}; begin anew without one"[:200])
    return values, customer_id
