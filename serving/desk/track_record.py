"""What was predicted of one customer before, beside what came of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

from workspace import storage
from workspace.settings import Workspace
from workspace.windows import outcome_window

Purchases = Sequence[tuple[date, float, bool]]
"""As in `History`."""
_MOST = 12
_FIGURES = "as_of, churn_probability, lifetime_value, question"


class Prediction(NamedTuple):
    """Of one earlier batch: the risk and whether the customer left, the value and what they brought.

    `left` and `brought` are null while the window is open, and where the days do not tell: of a cancellation, of a
    silence by each customer's own measure, of a margin.
    """

    as_of: date
    risk: float | None
    left: bool | None
    value: float | None
    brought: float | None


@storage.read_again
def predictions_before(workspace: Workspace, customer_id: str, as_of: date, purchases: Purchases) -> list[Prediction]:
    """The latest twelve before `as_of`, newest first; `purchases` are all that are known by then."""
    batches = [file for day in sorted(_days(workspace.home_path, as_of))[-_MOST:] for file in _batches(day)]
    if not batches:
        return []
    query = f"SELECT {_FIGURES} FROM {storage.reader(batches)} WHERE customer_id = ? ORDER BY as_of DESC"
    with storage.connect(workspace.home_path, memory=1.0) as connection:
        rows = connection.execute(query, [customer_id]).fetchall()
    return [_held_against(purchases, as_of, *row) for row in rows]


def _days(home: Path, as_of: date) -> list[Path]:
    return [day for day in (home / "predictions").glob("????-??-??") if day.name < str(as_of)]


def _batches(day: Path) -> list[Path]:
    """The champions' last one of a day."""
    return sorted(day.glob("batch-champion-*.parquet"), key=lambda path: path.stat().st_mtime)[-1:]


def _held_against(
    purchases: Purchases, today: date, day: date, risk: float | None, value: float | None, asked: str
) -> Prediction:
    question: dict[str, Any] = json.loads(asked)
    left, brought = None, None
    churn, worth = question["churn"], question["lifetime_value"]
    window = outcome_window(day, churn["horizon"], churn["gap"])
    if churn["kind"] == "inactivity" and churn["inactivity"] == "fixed" and window.end <= today:
        left = not any(bought for on, _, bought in purchases if window.start <= on < window.end)
    window = outcome_window(day, worth["horizon"])
    if worth["measure"] == "spend" and window.end <= today:
        brought = sum(amount for on, amount, _ in purchases if window.start <= on < window.end)
    return Prediction(day, risk, left, value, brought)
