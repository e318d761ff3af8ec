"""Two models on the same customers: how much better one is, by how much that could be chance, and for whom."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.backtests import metrics
from training.backtests.grade import Measures
from training.backtests.scoreboard import JudgedCutoff, better, size

Pair = tuple[JudgedCutoff, JudgedCutoff]

_DRAWS = 200


@dataclass(frozen=True)
class Difference:
    """One metric of two models, means over the cutoffs on the same customers; of a bias, of its size.

    gain: how much better the second is, whichever way the metric is good; low, high: its 95 % bootstrap interval over
    customers, nan where the metric is none of single customers.
    """

    metric: str
    first: float
    second: float
    gain: float
    low: float
    high: float

    @property
    def is_better(self) -> bool:
        """Beyond noise."""
        return self.low > 0

    def is_worse(self, by: float = 0.0) -> bool:
        """By more than so much, and beyond noise."""
        return self.gain < -by and not self.high >= 0

    def __str__(self) -> str:
        spread = "" if math.isnan(self.low) else f", 95 % {self.low:+.4f} to {self.high:+.4f}"
        name = f"|{self.metric}|" if better(self.metric) == "zero" else self.metric
        return f"{name} {self.first:.4f} -> {self.second:.4f} (gain {self.gain:+.4f}{spread})"


def paired(first: Sequence[JudgedCutoff], second: Sequence[JudgedCutoff]) -> list[Pair]:
    """Both at the cutoffs that both have, oldest first, cut down to the customers that both have."""
    by_day = {cutoff.as_of: cutoff for cutoff in first}
    pairs = []
    for mine in second:
        theirs = by_day.get(mine.as_of)
        if theirs is None:
            continue
        _, places, own = np.intersect1d(theirs.customer_ids, mine.customer_ids, return_indices=True)
        if len(places):
            pairs.append((theirs.of_customers(places), mine.of_customers(own)))
    return pairs


def measured(by: Measures, pairs: Sequence[Pair]) -> tuple[str, str]:
    """The names of the main metric, and of the error of the level."""
    figures = pairs[0][0].figures(pairs[0][0].answers[0], np.arange(len(pairs[0][0].customer_ids)))
    return by.order_among(figures), by.error


def difference(pairs: Sequence[Pair], metric: str, seed: int, segment: str | None = None) -> Difference:
    """Over all customers of the pairs, or over those of a segment; nan where the metric is not defined on them."""
    inside = [_inside(cutoff, segment) for cutoff, _ in pairs]
    at = [np.flatnonzero(rows) for rows in inside]
    first, second = _means(pairs, metric, at)
    drawn: list[float] = []
    if not math.isnan(first) and _is_of_customers(pairs, metric):
        for draw in metrics.customer_draws([cutoff.customer_ids for cutoff, _ in pairs], _DRAWS, seed):
            places = [rows[part[rows]] for rows, part in zip(draw, inside, strict=True)]
            drawn.append(_gain(metric, *_means(pairs, metric, places)))
    low, high = metrics.percentile_interval(drawn)
    return Difference(metric, first, second, _gain(metric, first, second), low, high)


def _inside(cutoff: JudgedCutoff, segment: str | None) -> NDArray[np.bool_]:
    return np.ones(len(cutoff.customer_ids), dtype=bool) if segment is None else cutoff.segments[segment]


def _is_of_customers(pairs: Sequence[Pair], metric: str) -> bool:
    """Whether it can be drawn anew over customers: the level of offers is one of (customer, item) pairs."""
    cutoff = pairs[0][0]
    return metric in cutoff.figures(cutoff.answers[0], np.arange(len(cutoff.customer_ids) - 1))


def _means(pairs: Sequence[Pair], metric: str, at: Sequence[NDArray[np.int64]]) -> tuple[float, float]:
    """Of both models over the cutoffs where the metric is defined for these customers, each by its size; else nan."""
    figures = [[_figure(cutoff, metric, rows) for cutoff in pair] for pair, rows in zip(pairs, at, strict=True)]
    known = [values for values in figures if not any(map(math.isnan, values))]
    if not known:
        return math.nan, math.nan
    first, second = np.mean(known, axis=0)
    return float(first), float(second)


def _figure(cutoff: JudgedCutoff, metric: str, rows: NDArray[np.int64]) -> float:
    return size(metric, cutoff.figure(cutoff.answers[0], rows, metric))


def _gain(metric: str, first: float, second: float) -> float:
    return second - first if better(metric) == "high" else first - second
