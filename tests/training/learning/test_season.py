"""The shop's calendar: what the coming window brings, from the same days a year ago, or from windows gone by."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import pytest

from training.learning.season import YEAR, ClosedWindow, ShopDays, recent_level, seasonal_level

FIRST = date(2022, 1, 1)


def shop_of(days: int, growth: float = 1.0, peak: float = 3.0) -> ShopDays:
    """1 a day, `peak` a day in the last 28 days of each 52 weeks, all of it `growth` times as much each 52 weeks."""
    day = np.arange(days)
    return ShopDays(FIRST, np.where(day % YEAR >= YEAR - 28, peak, 1.0) * growth ** (day // YEAR))


def window(as_of: date, level: float, known_share: float = 0.8) -> ClosedWindow:
    return ClosedWindow(as_of, expected=100.0, happened=100.0 * level, shop=100.0 * level / known_share)


def test_the_coming_weeks_are_those_of_last_year() -> None:
    """Before a peak the peak is expected, after it the ordinary days."""
    assert shop_of(2 * YEAR - 28).coming(28) == pytest.approx(28 * 3)
    assert shop_of(2 * YEAR).coming(28) == pytest.approx(28)


def test_growth_since_last_year_goes_on() -> None:
    """A shop that sells twice what it sold in the same weeks of last year is expected to go on so."""
    assert shop_of(2 * YEAR + 91, growth=2.0).coming(28) == pytest.approx(28 * 4)


def test_windows_longer_than_a_year_repeat_the_year() -> None:
    """Two years and four weeks are twice a year's sales and four weeks'."""
    shop = shop_of(2 * YEAR)
    year = (YEAR - 28) + 28 * 3
    assert shop.coming(2 * YEAR + 28) == pytest.approx(2 * year + 28)


@pytest.mark.parametrize("days", [0, 100, YEAR, YEAR + 27])
def test_without_a_year_and_four_weeks_nothing_is_said(days: int) -> None:
    """There is then no last year to compare with."""
    assert shop_of(days).coming(28) is None
    assert seasonal_level([], shop_of(days), 28, 100.0) is None


def test_the_known_customers_bring_their_share() -> None:
    """84 are coming, four fifths of it from customers known today, of whom histories expect 100: level 0.672."""
    closed = [window(FIRST + timedelta(days=400 + 30 * i), 1.0) for i in range(3)]
    assert seasonal_level(closed, shop_of(2 * YEAR - 28), 28, 100.0) == pytest.approx(84 * 0.8 / 100)


def test_last_years_window_counts_as_much_as_the_total() -> None:
    """The geometric mean of 0.672 and the level 2.688 of the window that began a year ago is 1.344."""
    shop = shop_of(2 * YEAR - 28)
    closed = [window(shop.as_of - timedelta(days=360), 2.688)]
    assert seasonal_level(closed, shop, 28, 100.0) == pytest.approx(1.344)


def test_recent_windows_count_more() -> None:
    """A window one horizon older counts half; three spanned horizons stand against two of doubt."""
    closed = [window(FIRST + timedelta(days=60 * i), level) for i, level in enumerate((1.0, 1.0, 2.0))]
    weighted = np.log(2.0) * 1 / (1 + 0.5 + 0.25)
    assert recent_level(closed, 60) == pytest.approx(np.exp(weighted * 3 / 5))


def test_what_brought_nothing_is_left_out() -> None:
    """A window without sales has no level; with no other one, histories are taken at their word."""
    empty = ClosedWindow(FIRST, 100.0, 0.0, 0.0)
    assert recent_level([empty], 60) == recent_level([], 60) == 1.0
    assert seasonal_level([empty], shop_of(2 * YEAR), 28, 100.0) is None
