"""What a batch of scores comes to: how many customers, how much money is at risk, and what has changed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from workspace import storage


@dataclass(frozen=True)
class Batch:
    """The scores of one as_of. Amounts, and who is at high risk, are null where they are withheld from everybody.

    `value` is what the scored customers are expected to spend, `at_risk` the sum of risk x value over them, and
    `at_risk_high` the part of it that is of the `high` customers in the high band. `models` are names with versions.
    `question` says in which currency, over how many days and of what measure; it is empty where an earlier version of
    this program wrote the scores.
    """

    as_of: date
    customers: int
    scored: int
    high: int | None
    value: float | None
    at_risk: float | None
    at_risk_high: float | None
    not_scored: Mapping[str, int]
    models: tuple[str, ...]
    question: Mapping[str, Any]


@dataclass(frozen=True)
class Change:
    """From the batch `before`. Customers who came, who are known no more, who are scored no more though they are known,
    and, of those scored in both, who moved into the high band and out of it."""

    before: Batch
    came: int
    gone: int
    unscored: int
    into_high: int
    out_of_high: int


def at(home: Path, as_of: date) -> Batch:
    """The scores of `as_of`, which are there."""
    path = storage.scores_path(home, as_of)
    rows = storage.reader([path])
    with storage.connect(home) as connection:
        customers, scored, banded, high, value, at_risk, of_high = connection.execute(f"""
            SELECT count(*), count(*) FILTER (not_scored_reason IS NULL), count(churn_band),
                   count(*) FILTER (churn_band = 'high'),
                   sum(lifetime_value) FILTER (not_scored_reason IS NULL), sum(value_at_risk),
                   sum(value_at_risk) FILTER (churn_band = 'high')
            FROM {rows}""").fetchall()[0]
        why_not = connection.execute(f"""
            SELECT not_scored_reason, count(*) FROM {rows} WHERE not_scored_reason IS NOT NULL
            GROUP BY ALL ORDER BY 2 DESC, 1""").fetchall()
        models = connection.execute(f"""
            SELECT max(churn_model), max(lifetime_value_model), max(cross_sell_model) FROM {rows}""").fetchall()[0]
    named = tuple(name for name in models if name)
    return Batch(
        as_of, customers, scored, high if banded else None, value, at_risk, of_high, dict(why_not), named,
        _question(path),
    )  # fmt: skip


def _question(path: Path) -> dict[str, Any]:
    """What the scores are of, as their file says beside its rows."""
    noted = (pq.read_metadata(path).metadata or {}).get(b"terms")
    return {name: value for name, value in json.loads(noted).items() if name != "standings"} if noted else {}


def change(home: Path, as_of: date) -> Change | None:
    """Since the as_of before that has scores; None where none has."""
    earlier = [day for day in storage.scored(home) if day < as_of]
    if not earlier:
        return None
    now, then = (storage.reader([storage.scores_path(home, day)]) for day in (as_of, earlier[-1]))
    with storage.connect(home) as connection:
        moved = connection.execute(f"""
            SELECT count(*) FILTER (before.customer_id IS NULL), count(*) FILTER (after.customer_id IS NULL),
                   count(*) FILTER (before.not_scored_reason IS NULL AND after.not_scored_reason IS NOT NULL
                                    AND before.customer_id IS NOT NULL),
                   count(*) FILTER (after.churn_band = 'high' AND before.churn_band <> 'high'),
                   count(*) FILTER (before.churn_band = 'high' AND after.churn_band <> 'high')
            FROM {now} AS after FULL JOIN {then} AS before USING (customer_id)""").fetchall()[0]
    return Change(at(home, earlier[-1]), *moved)
