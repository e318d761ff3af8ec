"""How far the coming window departs from what histories alone expect: the shop's calendar, from what it sold before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]

YEAR = 364
"""Days: 52 weeks, so that a Saturday is compared with a Saturday."""
_GROWTH_DAYS = 91
_LEAST_GROWTH_DAYS = 28
_SAME_SEASON = 16
"""Days either side of a year ago within which an earlier cutoff's window counts as the same season."""


@dataclass(frozen=True)
class ShopDays:
    """What the whole shop sold, a number a day from `first` to the day before an as_of, as known then."""

    first: date
    sold: Floats

    @property
    def as_of(self) -> date:
        return self.first + timedelta(days=len(self.sold))

    def total(self, start: date, days: int) -> float:
        """Over `[start, start + days)`; days that the shop has not lived, or not yet, count as nothing."""
        begin = (start - self.first).days
        return float(self.sold[max(begin, 0) : max(begin + days, 0)].sum())

    def coming(self, days: int) -> float | None:
        """What it will sell in the next `days`: what it sold in them a year ago, times its growth since then.

        None with less than a year and `_LEAST_GROWTH_DAYS` days of history, or where a year ago nothing was sold.
        """
        behind = min(len(self.sold) - YEAR, _GROWTH_DAYS)
        if behind < _LEAST_GROWTH_DAYS:
            return None
        before, now = (self.total(self.as_of - timedelta(days=ago), behind) for ago in (behind + YEAR, behind))
        last_year = self._a_year_ago(days)
        return last_year * now / before if min(before, now, last_year) > 0 else None

    def _a_year_ago(self, days: int) -> float:
        years, rest = divmod(days, YEAR)
        start = self.as_of - timedelta(days=YEAR)
        return years * self.total(start, YEAR) + self.total(start, rest)


@dataclass(frozen=True)
class ClosedWindow:
    """What the known customers of an earlier cutoff were expected to bring by their histories, and what they brought.

    `shop` is what everybody brought in that window, newcomers too.
    """

    as_of: date
    expected: float
    happened: float
    shop: float

    @property
    def level(self) -> float:
        """1 where histories alone foretold the total; nan where nothing was expected or came."""
        return self.happened / self.expected if self.expected > 0 and self.happened > 0 else float("nan")

    @property
    def known_share(self) -> float:
        return self.happened / self.shop if self.shop > 0 else float("nan")


_DOUBT = 2
"""Horizons: in a shop's first year the season of the coming window is unknown, and differs from those gone by."""
_RECENT = 3
"""Closed windows whose share of known customers counts: it grows as a shop gets older."""


def seasonal_level(closed: Sequence[ClosedWindow], shop: ShopDays, horizon: int, expected: float) -> float | None:
    """The coming window's total over `expected`, what the histories of the known customers alone expect.

    The mean, in logarithms, of two forecasts: the shop's sales of these days a year ago times its growth and the share
    of known customers; and the level of the window that began a year ago. None where there is no year to look back on.
    """
    coming = shop.coming(horizon)
    shares = [window.known_share for window in closed[-_RECENT:] if window.known_share > 0]
    if coming is None or not shares or expected <= 0:
        return None
    forecasts = [coming * float(np.exp(np.mean(np.log(shares)))) / expected]
    year_ago = shop.as_of - timedelta(days=365)
    same = [w.level for w in closed if abs((w.as_of - year_ago).days) <= _SAME_SEASON and w.level > 0]
    return float(np.exp(np.mean(np.log([*forecasts, *same[-1:]]))))


def recent_level(closed: Sequence[ClosedWindow], horizon: int) -> float:
    """Where there is no last year: the mean level of closed windows in logarithms, halved in weight each horizon back.

    Shrunk towards 1, what histories alone expect: windows that span n horizons count as n against `_DOUBT`.
    """
    usable = [window for window in closed if window.level > 0]
    if not usable:
        return 1.0
    ages = np.array([(usable[-1].as_of - window.as_of).days for window in usable])
    levels = np.log([window.level for window in usable])
    spanned = ages.max() / horizon + 1
    mean = float(np.average(levels, weights=0.5 ** (ages / horizon)))
    return float(np.exp(mean * spanned / (spanned + _DOUBT)))
