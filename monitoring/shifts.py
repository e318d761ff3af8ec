"""How far two sides of one thing lie apart, by measures that more rows do not change, and what is usual of it.

| compared | what | score |
|---|---|---|
| `values` | numbers | Kolmogorov-Smirnov distance: the share of rows that would have to change |
| `categories` | texts | total variation distance: the same share |
| `presence` | a feature that most of its holders lost, or gained | the difference of the shares who have it |
| `missing` | empty cells of a column | the difference of their shares |
| `tail` | the number that one row in a hundred exceeds | the logarithm of the ratio, up or down |
| `new` | rows with a value never seen before | by how much their share grew |
| `repeated` | lines that are there more than once | by how much their share grew |
| `volume` | rows a day | the logarithm of their ratio, up or down |
| `pause` | days without a row, before the as_of | by how many thirtieths of a month it grew |
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd

Comparison = Literal["values", "categories", "presence", "missing", "tail", "new", "repeated", "volume", "pause"]

MOVED = 0.1
"""Of customers or rows, that must have changed for anything to have moved, however quiet the past was."""
LEAST: dict[Comparison, float] = {
    "values": MOVED, "categories": MOVED, "presence": MOVED, "missing": 0.05, "tail": math.log(2), "new": 0.1,
    "repeated": 0.05, "volume": math.log(1.5), "pause": 5 / 30,
}  # fmt: skip
MOST: dict[Comparison, float] = dict.fromkeys(LEAST, 0.5) | {"tail": math.log(10), "volume": math.log(5)}
"""Has moved in any case: a past in which the whole range was replaced must not hide that amounts come in pence."""
BY_CHANCE = 1.63
"""Times sqrt(1/n + 1/m): the Kolmogorov-Smirnov distance that 1 in 100 pairs of equal samples exceeds."""
MARGIN = 1.5
"""Times the largest score of the workspace's own past: this and what follows was chosen on months of the benchmark's
shops that it does not report (benchmarks/drift.py)."""
UNKNOWN_SEASON = 2.0
"""Times the least score, where there is no last year to tell the season by."""
FEWEST_PAST, UNKNOWN_PAST = 3, 3.0
"""Times the least score, where fewer past months than that say what is usual."""

METHOD = (
    "scores: see monitoring/shifts.py. Against last year's season too where there is one; the smaller score counts."
    f" Moved: beyond {MARGIN} times the largest score of the workspace's own past months, and beyond what is least"
    f" ({', '.join(f'{name} {least:.2f}' for name, least in LEAST.items())}) or chance"
    f" ({BY_CHANCE} * sqrt(1/n + 1/m)); {UNKNOWN_SEASON} times those without a last year, {UNKNOWN_PAST} times with"
    f" fewer than {FEWEST_PAST} past months; in any case beyond"
    f" {', '.join(f'{name} {most:.2f}' for name, most in MOST.items())}"
)
_CATEGORIES, _OTHER = 10, "other"  # of one text; many rare ones would differ by chance alone


@dataclass(frozen=True)
class Pair:
    """One thing on two sides. `before` and `after` are means, shares or rows a day, null for `categories`.

    `chance` is the score that samples of this size reach by chance.
    """

    compared: Comparison
    score: float
    chance: float
    before: float | None
    after: float | None
    has_last_year: bool = False

    @property
    def least(self) -> float:
        return max(LEAST[self.compared], self.chance)


@dataclass(frozen=True)
class Shift:
    """Something that moved, by `score`, beyond `threshold`; `importance` is its share of what the champion decides by.

    `past` is the largest score of the workspace's own past, null where too little of it is known.
    """

    feature: str
    compared: Comparison
    score: float
    threshold: float
    past: float | None
    before: float | None
    after: float | None
    importance: float | None = None

    def __str__(self) -> str:
        before, after = self.before, self.after
        if before is None or after is None:
            return f"{self.score:.2f}  other categories"
        match self.compared:
            case "presence":
                return f"{self.score:.2f}  known of {before:.0%} -> {after:.0%} of customers"
            case "missing":
                return f"{self.score:.2f}  empty in {before:.1%} -> {after:.1%} of rows"
            case "new":
                return f"{self.score:.2f}  never seen before in {before:.1%} -> {after:.1%} of rows"
            case "repeated":
                return f"{self.score:.2f}  there more than once: {before:.1%} -> {after:.1%} of rows"
            case "tail":
                return f"{self.score:.2f}  one in a hundred above {before:,.4g} -> {after:,.4g}"
            case "volume":
                return f"{self.score:.2f}  {before:,.1f} -> {after:,.1f} rows a day"
            case "pause":
                return f"{self.score:.2f}  no row for {before:.0f} -> {after:.0f} days"
        return f"{self.score:.2f}  mean {before:,.4g} -> {after:,.4g}"


class Numbers:
    """A column of numbers, none missing, sorted once for all it is held against: its distinct values, and the share of
    rows at or below each of them."""

    def __init__(self, values: np.ndarray) -> None:
        self.rows, self.mean = len(values), float(values.mean(dtype=float)) if len(values) else math.nan
        self.distinct, counts = np.unique(values, return_counts=True)
        self._rows_up_to = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)

    @property
    def shares(self) -> np.ndarray:
        return self._rows_up_to[1:] / self.rows

    def share_up_to(self, values: np.ndarray) -> np.ndarray:
        """The share of rows at or below each of `values`, which are any numbers."""
        return self._rows_up_to[np.searchsorted(self.distinct, values, side="right")] / self.rows

    @functools.cached_property
    def exceeded_by_a_hundredth(self) -> float:
        return float(np.quantile(np.repeat(self.distinct, np.diff(self._rows_up_to)), 0.99))


class Texts:
    """A column of texts, none missing: how many rows have each, the most frequent first."""

    def __init__(self, values: pd.Series) -> None:
        self.rows = len(values)
        self._counts = {str(text): int(count) for text, count in values.value_counts().items()}

    @property
    def common(self) -> list[str]:
        return list(self._counts)[:_CATEGORIES]

    def shares(self, common: Sequence[str]) -> dict[str, float]:
        """Of each of these texts, and of all others together."""
        lumped: dict[str, int] = {}
        for text, count in self._counts.items():
            name = text if text in common else _OTHER
            lumped[name] = lumped.get(name, 0) + count
        return {name: count / self.rows for name, count in lumped.items()}


class Column:
    """One side of a feature of customers, looked through once however often it is compared.

    `meanings` are what the codes of a text stand for; None for numbers. No code is `unknown`.
    """

    def __init__(self, cells: pd.Series, meanings: Mapping[int, str] | None = None) -> None:
        self.cells, self.meanings = cells, meanings
        self._is_known = ~np.asarray(pd.isna(cells.to_numpy()))
        self.rows, self.known = len(cells), float(self._is_known.mean())

    @functools.cached_property
    def numbers(self) -> Numbers:
        return Numbers(self.cells.to_numpy(dtype=float)[self._is_known])

    @functools.cached_property
    def texts(self) -> Texts:
        return Texts(self.cells.map(self.meanings or {}).fillna("unknown"))


def compared(before: Column, after: Column) -> Pair:
    """Two sides of a feature: numbers as they are, codes as what they stand for.

    Where most holders are gone or new, who holds any is compared.
    """
    if changed_hands(before, after):
        chance = _chance(before.rows, after.rows)
        return Pair("presence", abs(before.known - after.known), chance, before.known, after.known)
    if before.meanings is not None:
        return categories(before.texts, after.texts)
    return numbers(before.numbers, after.numbers)


def changed_hands(before: Column, after: Column) -> bool:
    """Whether more than half of the holders of a feature are gone, or new."""
    return min(before.known, after.known) < max(before.known, after.known) / 2


def numbers(before: Numbers, after: Numbers) -> Pair:
    """Two columns of numbers, neither empty.

    The score is free of units, of outliers and, but for chance, of the number of rows. Evidently's own choice is not:
    with Wasserstein distance over the standard deviation, and its threshold of 0.1, two thirds of the features of two
    samples of 200 customers from one population (Online Retail II) differ, since the few largest customers decide.
    """
    sides = (before, after), (after, before)
    score = max(float(np.abs(one.shares - other.share_up_to(one.distinct)).max()) for one, other in sides)
    return Pair("values", score, _chance(before.rows, after.rows), before.mean, after.mean)


def tail(before: Numbers, after: Numbers) -> Pair | None:
    """How far the largest hundredth lies: what another unit in a few rows moves most. None where it is not above 0."""
    levels = before.exceeded_by_a_hundredth, after.exceeded_by_a_hundredth
    if min(levels) <= 0:
        return None
    return Pair("tail", abs(math.log(levels[1] / levels[0])), 0.0, *levels)


def categories(before: Texts, after: Texts) -> Pair:
    """Two columns of texts: the ten most frequent before, and all others together."""
    then, now = before.shares(before.common), after.shares(before.common)
    score = sum(abs(then.get(text, 0.0) - now.get(text, 0.0)) for text in sorted({*then, *now})) / 2
    return Pair("categories", score, _chance(before.rows, after.rows), None, None)


def lumped(before: pd.Series, after: pd.Series) -> tuple[pd.Series, pd.Series]:
    """As `categories` compares them: rarer texts are one."""
    common = Texts(before).common
    return before.where(before.isin(common), _OTHER), after.where(after.isin(common), _OTHER)


def _chance(rows: int, other: int) -> float:
    return BY_CHANCE * math.sqrt(1 / max(rows, 1) + 1 / max(other, 1))


def seasonal(reference: Mapping[str, Pair], last_year: Mapping[str, Pair]) -> dict[str, Pair]:
    """What differs from the reference, and no more than it differs from the same season last year.

    What did not move since last year is the season; what did not move since the reference never moved.
    """
    return {
        name: replace(pair, score=min(pair.score, last_year[name].score), has_last_year=True)
        if name in last_year
        else pair
        for name, pair in reference.items()
    }


def threshold(pair: Pair, past: Sequence[float]) -> float:
    """The score from which it has moved, given the scores of past months."""
    if len(past) < FEWEST_PAST:
        usual = pair.least * UNKNOWN_PAST
    else:
        usual = max(pair.least * (1 if pair.has_last_year else UNKNOWN_SEASON), MARGIN * max(past))
    return max(pair.least, min(usual, MOST[pair.compared]))


def limits(now: Mapping[str, Pair], past: Sequence[Mapping[str, Pair]]) -> dict[str, float]:
    """The score from which each thing has moved, given past months."""
    return {name: threshold(pair, _scores(name, past)) for name, pair in now.items()}


def _scores(name: str, past: Sequence[Mapping[str, Pair]]) -> list[float]:
    return [month[name].score for month in past if name in month]


def moved(
    now: Mapping[str, Pair], past: Sequence[Mapping[str, Pair]], importance: Mapping[str, float] | None = None
) -> list[Shift]:
    """What moved, farthest beyond its own limit first."""
    shifted = []
    for name, limit in limits(now, past).items():
        pair, before = now[name], _scores(name, past)
        if pair.score >= limit:
            usual = max(before) if len(before) >= FEWEST_PAST else None
            weight = importance.get(name, 0.0) if importance else None
            levels = (pair.before, pair.after)
            shifted.append(Shift(name, pair.compared, pair.score, limit, usual, *levels, weight))
    return sorted(shifted, key=lambda shift: -shift.score / shift.threshold)
