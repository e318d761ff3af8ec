"""When something has moved: the least, the past, the season, and what no past can hide."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from monitoring import shifts
from monitoring.shifts import Pair

KNOWN_SEASON = Pair("values", 0.2, 0.01, 1.0, 2.0, has_last_year=True)


@pytest.mark.parametrize(
    ("past", "pair", "expected"),
    [
        ([0.02] * 6, KNOWN_SEASON, 0.1),  # quiet: the least
        ([0.02] * 5 + [0.1], KNOWN_SEASON, 0.15),  # half as much again as ever before
        ([0.02] * 6, replace(KNOWN_SEASON, has_last_year=False), 0.2),  # a first year: the season is not known
        ([0.02] * 2, KNOWN_SEASON, 0.3),  # two months are no past
        ([0.9] * 6, KNOWN_SEASON, 0.5),  # the range was replaced once: half of the rows is news all the same
        ([0.02] * 6, replace(KNOWN_SEASON, chance=0.6), 0.6),  # so few rows that chance alone does it
    ],
)
def test_the_limit_is_learnt_from_the_past_within_bounds(past: list[float], pair: Pair, expected: float) -> None:
    """Never below what is least or chance, never above what is news in any case."""
    assert shifts.threshold(pair, past) == pytest.approx(expected)


def test_another_unit_in_a_few_rows_is_seen_in_the_tail() -> None:
    """One in twenty amounts in pence moves a twentieth of the rows, and the largest hundredth a hundredfold or so."""
    random = np.random.default_rng(3)
    before, after = random.lognormal(3, 0.5, (2, 20_000))
    after[::20] *= 100
    assert shifts.numbers(before, after).score < shifts.MOVED
    pair = shifts.tail(before, after)
    assert pair is not None
    assert pair.score > np.log(30)
    assert shifts.tail(before * 0, after) is None
