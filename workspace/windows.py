"""All date arithmetic: as_of dates, half-open windows, and which cutoffs have closed outcomes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo


@dataclass(frozen=True)
class Window:
    """Whole days `[start, end)` in the workspace's timezone."""

    start: date
    end: date

    def __post_init__(self) -> None:
        if self.start > self.end:
            raise ValueError(f"start ({self.start}) is later than end ({self.end})")

    @property
    def days(self) -> int:
        return (self.end - self.start).days


def outcome_window(as_of: date, horizon: int, gap: int = 0) -> Window:
    """The days in which the outcome of a prediction made at `as_of` happens."""
    start = as_of + timedelta(days=gap)
    return Window(start, start + timedelta(days=horizon))


def midnight(as_of: date, timezone: str) -> datetime:
    """The instant, in UTC, at which `as_of` begins in `timezone`."""
    return datetime(as_of.year, as_of.month, as_of.day, tzinfo=ZoneInfo(timezone)).astimezone(UTC)


def days_after(as_of: date, days: int) -> date:
    return as_of + timedelta(days=days)


def closed_cutoffs(
    as_of: date, first_day: date, *, outcome_days: int, spacing: int, most: int, min_history: int
) -> list[date]:
    """Cutoffs, oldest first, whose outcome window has closed by `as_of` and whose history is long enough.

    The latest is `as_of - outcome_days`, the others lie `spacing` days apart before it. Empty where the history
    between `first_day` and `as_of` has no room for one: then nothing supervised can be learnt.
    """
    latest = as_of - timedelta(days=outcome_days)
    candidates = (latest - timedelta(days=spacing * i) for i in range(most))
    return sorted(cutoff for cutoff in candidates if (cutoff - first_day).days >= min_history)


def judged_cutoffs(
    closed: Sequence[date], count: int, *, outcome_days: int, spacing: int, enough: Sequence[int]
) -> list[date]:
    """Which of the `closed` cutoffs, oldest first, to judge at: `count` of them, or as many as there can be.

    The latest and others before it, as far apart as leaves each so many closed cutoffs to learn from as the first of
    `enough` that can be had, but no further than that their windows just do not overlap.
    """
    apart = math.ceil(outcome_days / spacing)
    for least in enough:
        able = [day for day in closed if sum((day - c).days >= outcome_days for c in closed) >= least][::-1]
        if len(able) >= count or (able and least <= 2):
            stride = min(apart, max(1, (len(able) - 1) // max(1, count - 1)))
            return able[::stride][:count][::-1]
    return []
