"""Cross-validation over time: what is judged at a day was taught by what had happened by then."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.model_selection import BaseCrossValidator

from workspace.windows import judged_cutoffs

AS_OF = "as_of"
"""The column that names the day of a row."""

_ENOUGH = (4, 2)  # cutoffs to teach, where there are not `max_cutoffs`: with fewer nothing is calibrated


class CutoffSplit(BaseCrossValidator):
    """A scikit-learn cross-validator: each split judges one `as_of`, and trains on the outcomes known by it.

    A row is of an `as_of` and of the window `[as_of + gap, as_of + gap + horizon)`. It may teach where that window had
    ended by the judged `as_of`: `as_of + gap + horizon <= judged`. Rows between are in neither. The judged days are
    those of a backtest of the shop: the latest, and others before it, so far apart that their windows do not overlap
    where there is room. A split trains on the latest `max_cutoffs` days that may teach.

    Days are `groups`, or the column `as_of` of a data frame.

    >>> days = ["2024-01-01", "2024-02-01", "2024-03-01", "2024-04-01", "2024-05-01"]
    >>> X = pd.DataFrame({"as_of": np.repeat(days, 2), "spend_90d": range(10)})
    >>> for train, test in CutoffSplit(n_splits=2, horizon=30).split(X):
    ...     print(sorted({*X["as_of"][train]}), "->", *{*X["as_of"][test]})
    ['2024-01-01', '2024-02-01', '2024-03-01'] -> 2024-04-01
    ['2024-01-01', '2024-02-01', '2024-03-01', '2024-04-01'] -> 2024-05-01
    >>> next(CutoffSplit(n_splits=3, horizon=90).split(X))
    Traceback (most recent call last):
    ValueError: 3 splits cannot be had of 5 days with windows of 90 days: 1 has two closed ones before it; ...
    """

    # `groups` is routed to `split` by scikit-learn, as to its own splitters.
    __metadata_request__split = {"groups": True}  # noqa: RUF012

    def __init__(self, n_splits: int = 3, *, horizon: int = 90, gap: int = 0, max_cutoffs: int = 12) -> None:
        self.n_splits, self.horizon, self.gap, self.max_cutoffs = n_splits, horizon, gap, max_cutoffs

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        return self.n_splits

    def split(
        self, X: Any, y: Any = None, groups: Any = None
    ) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:  # fmt: skip
        """Places of rows to train on and to judge, the earliest judged day first.

        Raises:
            ValueError: no days are given, they are no days, or too few have closed windows before them.
        """
        days = days_of(_given(X, groups))
        known = [day.date() for day in days.unique().sort_values()]
        for judged in self._judged(known):
            closed = [day for day in known if self._has_closed(day, judged)][-self.max_cutoffs :]
            yield np.flatnonzero(days.isin(pd.DatetimeIndex(closed))), np.flatnonzero(days == pd.Timestamp(judged))

    def _has_closed(self, day: date, judged: date) -> bool:
        return (judged - day).days >= self.gap + self.horizon

    def _judged(self, known: list[date]) -> list[date]:
        spacing = min((later - day).days for day, later in pairwise(known)) if known[1:] else 1
        outcome_days, enough = self.gap + self.horizon, (self.max_cutoffs, *_ENOUGH)
        judged = judged_cutoffs(known, self.n_splits, outcome_days=outcome_days, spacing=spacing, enough=enough)
        if len(judged) < self.n_splits:
            able = sum(sum(self._has_closed(c, day) for c in known) >= min(_ENOUGH) for day in known)
            raise ValueError(
                f"{self.n_splits} splits cannot be had of {len(known)} days with windows of {outcome_days} days: {able}"
                f" {'has' if able == 1 else 'have'} two closed ones before it; give earlier days, or n_splits={able}"
            )
        return judged


def _given(X: Any, groups: Any) -> Any:
    if groups is not None:
        return groups
    if isinstance(X, pd.DataFrame) and AS_OF in X:
        return X[AS_OF]
    raise ValueError(f"the days of the rows are not known: pass groups=, or a data frame with a column {AS_OF}")


def days_of(as_of: Any) -> pd.DatetimeIndex:
    """Days as such: of dates, midnights or texts like `2025-01-01`.

    Raises:
        ValueError: some are no days, or none.
    """
    given = pd.Index(as_of)
    if pd.api.types.is_numeric_dtype(given):
        raise ValueError(f"{AS_OF} is numbers ({given[0]}, ...): it must be days, such as 2025-01-01")
    days = pd.DatetimeIndex(pd.to_datetime(given))
    if wrong := [*days[days.isna() | (days != days.normalize())][:3]]:
        raise ValueError(f"{AS_OF} must be days without a time: {', '.join(map(str, wrong))}")
    return days
