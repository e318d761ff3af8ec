"""Who comes back after being called gone: whether `churn.active_window` is as long as customers are silent."""

from __future__ import annotations

import math
from datetime import date, timedelta

import duckdb

from training.check.remarks import Remark, asked, percent
from training.models.leaving import SHORTEST
from workspace.settings import Churn

YEAR = 365
MUCH = 0.10
"""Of the customers who come back within a year, so many may have been called gone."""
_HELD = 0.95
_LEAST = 30
_STEP = 30


def beyond(purchases: duckdb.DuckDBPyRelation, churn: Churn, until: date) -> list[Remark]:
    """Of who bought in the last year before `until` and earlier too: who had been silent for longer than is allowed.

    `purchases`: a row per customer_id and day.
    """
    start = until - timedelta(days=YEAR)
    back, gone, held = asked(purchases, "purchases", f"""
        WITH habits AS (
            SELECT max(day) FILTER (day < DATE '{start}') AS last, min(day) AS first,
                   count(DISTINCT day) FILTER (day < DATE '{start}') AS n
            FROM purchases WHERE day < DATE '{until}' GROUP BY customer_id HAVING max(day) >= DATE '{start}'),
        silences AS (
            SELECT DATE '{start}' - last AS silence, (last - first) / nullif(n - 1, 0) AS gap FROM habits
            WHERE last IS NOT NULL)
        SELECT count(*), count(*) FILTER (silence > {_limit(churn)}), quantile_disc(silence, {_HELD})
        FROM silences""")[0]  # fmt: skip
    if gone < max(_LEAST, MUCH * back):
        return []
    says = (
        f"of {back:,} earlier customers who bought in the year from {start} on, {gone:,} ({percent(gone / back)}) had"
        f" been silent for {_too_long(churn)} by then, and were called gone"
    )
    return [Remark("comers-back called gone", "churn.active_window", says, _longer(churn, held), ("churn",))]


def _limit(churn: Churn) -> str:
    """SQL: the days of silence after which a customer is called gone, as `training.models.leaving` has it."""
    if churn.inactivity == "fixed":
        return str(churn.active_window)
    return (
        f"least({churn.active_window}, coalesce(greatest({churn.patience} * gap, {SHORTEST}), {churn.active_window}))"
    )


def _too_long(churn: Churn) -> str:
    fixed = f"more than {churn.active_window} days"
    return fixed if churn.inactivity == "fixed" else f"over {churn.patience:g} times their usual gap, or {fixed},"


def _longer(churn: Churn, held: int) -> str:
    window = math.ceil(held / _STEP) * _STEP
    if window > churn.active_window:
        return f"ask about them too: churn.active_window: {window} holds {_HELD:.0%} of those who came back"
    return f"ask about them too: churn.patience, now {churn.patience:g}, can be more, or churn.inactivity: fixed"
