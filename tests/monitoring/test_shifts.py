"""How far two columns are apart; when something has moved: the least, the past, what no past can hide."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from monitoring import shifts
from monitoring.shifts import Column, Numbers, Pair

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
    assert shifts.numbers(Numbers(before), Numbers(after)).score < shifts.MOVED
    pair = shifts.tail(Numbers(before), Numbers(after))
    assert pair is not None
    assert pair.score > np.log(30)
    assert shifts.tail(Numbers(before * 0), Numbers(after)) is None


MEANINGS = {code: "other" if code == 3 else f"plan {code}" for code in range(20)}
"""Of more texts than are told apart; one of them is called as the rest is."""
SIDES: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "all different": lambda random, rows: random.lognormal(0, 1, rows),
    "few values": lambda random, rows: random.integers(0, 4, rows) / 7,
    "many ties": lambda random, rows: random.lognormal(1, 1, rows).round(),
    "one value": lambda _, rows: np.full(rows, 2.0),
    "none at all": lambda _, rows: np.full(rows, np.nan),
    "some missing": lambda random, rows: np.where(
        random.random(rows) < 0.3, np.nan, random.normal(0, 2, rows).round(1)
    ),
    "mostly missing": lambda random, rows: np.where(random.random(rows) < 0.9, np.nan, random.normal(0, 2, rows)),
    "below and above zero": lambda random, rows: random.choice([-np.inf, -1.0, -0.0, 0.0, 1.0], rows),
    "codes": lambda random, rows: np.where(random.random(rows) < 0.1, np.nan, random.poisson(6, rows) % 22),
}


@pytest.mark.parametrize("meanings", [None, MEANINGS], ids=["numbers", "texts"])
def test_columns_that_are_looked_through_once_compare_as_row_by_row(meanings: Mapping[int, str] | None) -> None:
    """Each of many columns against each: the same score and levels as by going through the rows of every pair."""
    random = np.random.default_rng(11)
    cells = [pd.Series(make(random, rows), dtype="float32") for make in SIDES.values() for rows in (1, 37, 120)]
    columns = [Column(of, meanings) for of in cells]
    for before, one in zip(cells, columns, strict=True):
        for after, other in zip(cells, columns, strict=True):
            if before.notna().any() or after.notna().any() or meanings:
                pair, (how, score, *levels) = shifts.compared(one, other), row_by_row(before, after, meanings)
                assert pair.compared == how
                assert pair.score == pytest.approx(score, rel=1e-12, abs=1e-12)
                found = [level for level in (pair.before, pair.after) if level is not None]
                assert found == pytest.approx(levels, rel=1e-12, abs=1e-12)


def row_by_row(before: pd.Series, after: pd.Series, meanings: Mapping[int, str] | None) -> tuple[object, ...]:
    """What is compared, the score and the levels of two sides, from every row anew."""
    known, now_known = before.notna().mean(), after.notna().mean()
    if min(known, now_known) < max(known, now_known) / 2:
        return "presence", abs(known - now_known), known, now_known
    if meanings:
        then, now = ([meanings.get(code, "unknown") for code in side] for side in (before, after))
        common = {*pd.Series(then).value_counts().index[:10]}
        then, now = ([text if text in common else "other" for text in side] for side in (then, now))
        return "categories", sum(abs(share(then, text) - share(now, text)) for text in {*then, *now}) / 2
    olds, news = before.dropna().astype(float), after.dropna().astype(float)
    score = max(abs((olds <= value).mean() - (news <= value).mean()) for value in {*olds, *news})
    return "values", score, olds.mean(), news.mean()


def share(texts: list[str], text: str) -> float:
    return texts.count(text) / len(texts)
