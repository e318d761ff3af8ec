"""What the data check says: one thing that deserves a look, where, how much of it, and what to do about it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import duckdb

from workspace.settings import Table

Lines = duckdb.DuckDBPyRelation
"""Canonical transactions, a row each."""
Purchases = duckdb.DuckDBPyRelation
"""A row per customer_id and day."""

MODELS = ("churn", "lifetime_value", "cross_sell")


@dataclass(frozen=True)
class Remark:
    """name: what is remarked, as docs/data_check.md lists it; about: the table or attribute; says: what, where and how
    much; do: what to do, with the setting where there is one; doubts: models whose numbers cannot be trusted before it
    is looked at, none where it is only worth knowing.
    """

    name: str
    about: str
    says: str
    do: str
    doubts: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.about}: {self.says}; {self.do}"


def asked(rows: duckdb.DuckDBPyRelation, name: str, query: str) -> list[tuple[Any, ...]]:
    """The answer to a query that calls `rows` by this name."""
    answer = rows.query(name, query)
    return [] if answer is None else answer.fetchall()


def source_of(table: Table, column: str) -> str:
    """How the settings write a canonical column of a table: a column of the source, or an expression."""
    return table.columns.get(column, column)


def written_as(source: str) -> str:
    """A column of the source, or an expression, as a part of a longer expression."""
    if re.fullmatch(r"[^\W\d]\w*", source):
        return source
    return f'"{source}"' if re.fullmatch(r"\w+( \w+)*", source) else f"({source})"


def time_of(table: Table) -> str:
    """SQL for when something happened, over the source: what is written there, as a time."""
    return _as(table, "occurred_at", "TIMESTAMP")


def number_of(table: Table, column: str) -> str:
    """SQL for a canonical number over the source."""
    return _as(table, column, "DOUBLE")


def _as(table: Table, column: str, type_: str) -> str:
    """A column of a file may hold texts; an expression has its type."""
    source = source_of(table, column)
    written = written_as(source)
    return f"TRY_CAST({written} AS {type_})" if written.strip('"') == source else written


def kept_only(table: Table, condition: str) -> str:
    """The setting that keeps nothing but the rows of a condition, beside the one that is there."""
    both = f"({table.where}) AND {condition}" if table.where else condition
    return f"tables.transactions.where: {' '.join(both.split())}"


def listed(items: Sequence[str], most: int = 5) -> str:
    """The first of them, and how many more there are."""
    return ", ".join(items[:most]) + (f" and {len(items) - most:,} more" if len(items) > most else "")


def shown(text: str) -> str:
    """A value of the data, short and on one line."""
    line = " ".join(text.split())
    return f"`{line}`" if len(line) <= 40 else f"`{line[:37]}...`"


def percent(share: float) -> str:
    """One digit below ten per cent, none above."""
    return f"{share:.1%}" if share < 0.0995 else f"{share:.0%}"
