"""How good predictions are, once the window has closed.

Every function takes what happened first and what was predicted second, one row per customer; the order of rows never
matters: where rows with equal predictions would have to be ranked, each counts with the mean of what happened to them.
NaN means the metric is not defined for these rows (all outcomes alike, nothing bought); wrong input (lengths, missing
values, labels other than 0 and 1, too few rows for ten bins) raises ValueError.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import log_loss as sklearn_log_loss

from training.learning.deciles import Deciles, Ranked, checked, decile_table

Floats = NDArray[np.float64]


def ngini(actual: ArrayLike, predicted: ArrayLike) -> float:
    """Normalised Gini: 1 when the ranking is perfect, 0 when it is random; NaN if all actual values are equal.

    The area between the diagonal and the concentration curve of `actual` ordered by `predicted`, over the same area
    with the true order (Frees, Meyers, Cummings, 'Summarizing Insurance Scores Using a Gini Index', JASA 106, 2011).
    """
    actual_, predicted_ = checked(actual, predicted)
    if actual_.min() == actual_.max():
        return math.nan
    return _concentration(Ranked.of(actual_, predicted_).actual) / _concentration(np.sort(actual_))


def ngini_of_draws(actual: ArrayLike, predicted: ArrayLike, times: NDArray[np.floating]) -> Floats:
    """`ngini` of many resamples at once: a row of `times` says how often each customer is in one."""
    actual_, predicted_ = checked(actual, predicted)
    ideal = _concentrations(actual_, actual_, times)
    shares = np.full(len(times), math.nan)
    return np.divide(_concentrations(actual_, predicted_, times), ideal, out=shares, where=ideal > 0)


def _concentrations(actual: Floats, predicted: Floats, times: NDArray[np.floating]) -> Floats:
    """`_concentration` of `actual` ranked by `predicted`, for each row of `times`; equal predictions share a rank."""
    order = np.argsort(predicted, kind="stable")
    starts = np.flatnonzero(np.diff(predicted[order], prepend=np.nan) != 0)
    count = np.add.reduceat(times[:, order], starts, axis=1)
    total = np.add.reduceat(times[:, order] * actual[order], starts, axis=1)
    middle = 2 * np.cumsum(count, axis=1) - count - count.sum(axis=1, keepdims=True)
    return np.asarray((total * middle).sum(axis=1))


def decile_wape(actual: ArrayLike, predicted: ArrayLike) -> float:
    """`dec_wape`: sum over prediction deciles of |mean predicted - mean actual| over the sum of their mean actual."""
    deciles = decile_table(actual, predicted)
    return _ratio(float(np.abs(deciles.predicted - deciles.actual).sum()), float(deciles.actual.sum()))


def bias(actual: ArrayLike, predicted: ArrayLike) -> float:
    """Total predicted over total actual, minus 1; NaN if the total actual is 0."""
    actual_, predicted_ = checked(actual, predicted)
    return _ratio(float(predicted_.sum()), float(actual_.sum())) - 1


def spearman(actual: ArrayLike, predicted: ArrayLike) -> float:
    """Spearman's rank correlation with mean ranks for ties; NaN if either column is constant."""
    first, second = (_mean_ranks(column) for column in checked(actual, predicted))
    first, second = first - first.mean(), second - second.mean()
    return _ratio(float(first @ second), math.sqrt(float((first @ first) * (second @ second))))


def top_decile_capture(actual: ArrayLike, predicted: ArrayLike) -> float:
    """Share of the total actual value that falls to the tenth of customers predicted highest; NaN if the total is 0."""
    ranked = Ranked.of(*checked(actual, predicted))
    return _ratio(float(ranked.actual[-_rows_of_share(0.1, ranked.actual.size) :].sum()), float(ranked.actual.sum()))


def auc(actual: ArrayLike, predicted: ArrayLike) -> float:
    """Area under the ROC curve: the share of pairs of a 1 and a 0 in the right order; NaN if all labels are equal."""
    ones, zeros = _at_least(*_labels(actual, predicted))
    areas = np.diff(zeros, prepend=0) * (ones + np.append(0, ones[:-1]))
    return _ratio(float(areas.sum()), float(2 * ones[-1] * zeros[-1]))


def average_precision(actual: ArrayLike, predicted: ArrayLike) -> float:
    """Mean precision over the steps of recall; NaN without a positive label."""
    ones, zeros = _at_least(*_labels(actual, predicted))
    return _ratio(float(np.diff(ones, prepend=0) @ (ones / (ones + zeros))), float(ones[-1]))


def _at_least(labels: Floats, scores: Floats) -> tuple[Floats, Floats]:
    """How many 1s and how many 0s are scored at least so high, at each distinct score, the highest first.

    scikit-learn's ROC and precision-recall curves have the same counts; its checks of the input take fifty times as
    long as the counting for some hundred customers, and a backtest draws 200 resamples.
    """
    order = np.argsort(-scores)
    last = np.flatnonzero(np.diff(scores[order], append=np.nan))
    ones = np.cumsum(labels[order])[last]
    return ones, last + 1 - ones


def brier(actual: ArrayLike, predicted: ArrayLike) -> float:
    """Mean squared difference of probability and label (Brier 1950)."""
    labels, probabilities = _probabilities(actual, predicted)
    return float(np.mean((probabilities - labels) ** 2))


def log_loss(actual: ArrayLike, predicted: ArrayLike) -> float:
    """Mean of minus the log probability of what happened, scikit-learn's: it keeps 0 and 1 a machine epsilon away."""
    labels, probabilities = _probabilities(actual, predicted)
    return float(sklearn_log_loss(labels, probabilities, labels=[0, 1]))


def ece(actual: ArrayLike, predicted: ArrayLike) -> float:
    """Expected calibration error: mean |mean probability - rate| over ten bins of equal COUNT, weighted by their size.

    Bins of equal width, the other custom (Naeini, Cooper, Hauskrecht 2015), leave most bins empty when churn is rare.
    """
    labels, probabilities = _probabilities(actual, predicted)
    bins = decile_table(labels, probabilities)
    return float(np.average(np.abs(bins.predicted - bins.actual), weights=bins.count))


def lift_at(actual: ArrayLike, predicted: ArrayLike, share: float = 0.1) -> float:
    """`lift10` for a share of 0.1: rate of 1s in the top `share` of rows over the base rate; NaN if the base rate is 0.

    The top has round(share x rows) rows and at least one.
    """
    labels, scores = _labels(actual, predicted)
    return lift_at_capacity(labels, scores, _rows_of_share(share, labels.size))


def lift_at_capacity(actual: ArrayLike, predicted: ArrayLike, capacity: int) -> float:
    """Rate of 1s among the `capacity` rows scored highest over the base rate; 1 if the list takes everyone."""
    if capacity < 1:
        raise ValueError(f"capacity is {capacity}; a list holds at least one customer")
    ranked = Ranked.of(*_labels(actual, predicted))
    return _ratio(float(ranked.actual[-capacity:].mean()), float(ranked.actual.mean()))


def expected_profit(
    churn: ArrayLike, value: ArrayLike, *, acceptance: float, contact_cost: float, incentive_cost: float = 0.0
) -> float:
    """Profit, in the unit of `value`, of contacting every customer on a list.

    `churn` is the churn probability (profit expected) or the 0/1 label (profit with hindsight), `value` what a
    customer is worth if kept. A churner accepts the offer with probability `acceptance`, stays, and costs the
    incentive; everyone else on the list takes the incentive without need (Neslin, Gupta, Kamakura, Lu, Mason,
    'Defection Detection', Journal of Marketing Research 43, 2006, with each customer's own value). An empty list
    earns 0.
    """
    churn_, value_ = np.asarray(churn, dtype=float), np.asarray(value, dtype=float)
    if churn_.size == 0 and value_.size == 0:
        return 0.0
    churn_, value_ = checked(churn_, value_)
    _check_within_unit("churn", churn_)
    _check_within_unit("acceptance", np.array([acceptance]))
    kept = churn_ * acceptance * (value_ - incentive_cost)
    return float(np.sum(kept - (1 - churn_) * incentive_cost - contact_cost))


Baskets = Sequence[Sequence[Hashable]]
Ideal = Literal["basket", "top_k"]


class Hits(NamedTuple):
    """A row per customer: which of the first k ranked items the true basket has, (customers, k), and its size."""

    among: NDArray[np.bool_]
    basket: NDArray[np.int64]

    @classmethod
    def of(cls, baskets: Baskets, ranked: Baskets, k: int) -> Self:
        if len(baskets) != len(ranked) or len(baskets) == 0 or k < 1:
            raise ValueError(
                f"{len(baskets)} baskets, {len(ranked)} rankings, k {k}: expected as many of both, k above 0"
            )
        among = np.zeros((len(baskets), k), dtype=bool)
        for row, (basket, items) in enumerate(zip(baskets, ranked, strict=True)):
            wanted, top = set(basket), list(items[:k])
            if not wanted or len(set(top)) < len(top):
                raise ValueError(
                    f"customer in row {row}: the basket is empty, or the ranking repeats an item: {top[:5]}"
                )
            among[row, : len(top)] = [item in wanted for item in top]
        return cls(among, np.array([len(set(basket)) for basket in baskets]))

    def recalls(self) -> Floats:
        """For each customer: the share of the basket's distinct items found among the first k ranked ones."""
        return self.among.sum(axis=1) / self.basket

    def any_found(self) -> Floats:
        """For each customer: 1 with at least one item of the basket among the first k ranked ones, else 0."""
        return self.among.any(axis=1).astype(float)

    def ndcgs(self, ideal: Ideal = "basket") -> Floats:
        """For each customer: the first k items' discounted gain, 1 / log2(1 + rank) per hit, over the ideal one.

        The ideal sums over the whole true basket ("basket", as in the next-basket literature: with more than k items
        in it nobody can reach 1) or over min(k, basket) items ("top_k", as in scikit-learn's `ndcg_score`; Jarvelin,
        Kekalainen, 'Cumulated Gain-Based Evaluation of IR Techniques', ACM TOIS 20, 2002).
        """
        k = self.among.shape[1]
        discounts = 1 / np.log2(np.arange(2, max(k, int(self.basket.max(initial=1))) + 2))
        best = self.basket if ideal == "basket" else np.minimum(k, self.basket)
        return (self.among @ discounts[:k]) / discounts.cumsum()[best - 1]


def recall_at(baskets: Baskets, ranked: Baskets, k: int) -> float:
    """Mean over customers of `Hits.recalls`."""
    return float(Hits.of(baskets, ranked, k).recalls().mean())


def hit_at(baskets: Baskets, ranked: Baskets, k: int) -> float:
    """Share of customers with at least one item of the true basket among the first `k` ranked items."""
    return float(Hits.of(baskets, ranked, k).any_found().mean())


def ndcg_at(baskets: Baskets, ranked: Baskets, k: int, ideal: Ideal = "basket") -> float:
    """Mean over customers of `Hits.ndcgs`."""
    return float(Hits.of(baskets, ranked, k).ndcgs(ideal).mean())


def coverage(actual: ArrayLike, low: ArrayLike, high: ArrayLike) -> float:
    """Share of rows whose actual value lies within its own bounds, both ends included.

    Bounds that are to hold 0.8 of the outcomes hold that; more where so many spend nothing that the lower bound is 0
    for them.
    """
    return float(_within(actual, low, high).mean())


def decile_coverage(actual: ArrayLike, predicted: ArrayLike, low: ArrayLike, high: ArrayLike) -> Floats:
    """`coverage` of each tenth of the rows by prediction, the lowest first: right overall can be wrong in every one.

    Rows with equal predictions are spread as their mean. Raises ValueError with fewer than ten rows.
    """
    return decile_table(_within(actual, low, high), predicted).actual


def _within(actual: ArrayLike, low: ArrayLike, high: ArrayLike) -> Floats:
    actual_, low_ = checked(actual, low)
    _, high_ = checked(actual, high)
    crossed = low_ > high_
    if crossed.any():
        raise ValueError(f"the lower bound exceeds the upper one in {int(crossed.sum())} of {crossed.size} rows")
    return ((actual_ >= low_) & (actual_ <= high_)).astype(float)


def count_correlation(actual: ArrayLike, expected: ArrayLike) -> float:
    """Pearson correlation of the customers' numbers of purchases with the expected ones; NaN if either is constant."""
    first, second = checked(actual, expected)
    first, second = first - first.mean(), second - second.mean()
    return _ratio(float(first @ second), math.sqrt(float((first @ first) * (second @ second))))


class Interval(NamedTuple):
    """Both ends belong to it."""

    low: float
    high: float


def bootstrap_interval(
    metric: Callable[..., float], *columns: Sequence, n: int = 200, seed: int, level: float = 0.95
) -> Interval:
    """Percentile interval of `metric(*columns)` over `n` resamples of the rows (Efron, Tibshirani 1993, chapter 13).

    Resamples for which the metric is not defined (NaN) are left out; if all are, both ends are NaN.
    """
    rows = len(columns[0])
    if any(len(column) != rows for column in columns) or rows == 0:
        raise ValueError(f"columns have {[len(column) for column in columns]} rows; expected one number above 0")
    generator = np.random.default_rng(seed)
    draws = (generator.integers(rows, size=rows) for _ in range(n))
    return percentile_interval([metric(*(_take(column, draw) for column in columns)) for draw in draws], level)


def percentile_interval(drawn: ArrayLike, level: float = 0.95) -> Interval:
    """The middle `level` of values computed on resamples; both ends NaN where none is defined."""
    values = np.asarray(drawn, dtype=float)
    values = values[~np.isnan(values)]
    if values.size == 0:
        return Interval(math.nan, math.nan)
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))


def customer_draws(customer_ids: Sequence[ArrayLike], n: int, seed: int) -> Iterator[list[NDArray[np.int64]]]:
    """`n` resamples of the customers of several cutoffs: for each cutoff the rows to take, with repetitions.

    Whoever is drawn twice is there twice at every cutoff, so that what is alike between cutoffs, and between models
    judged on the same draw, stays alike (the cluster bootstrap: Field, Welsh, JRSS B 69, 2007).
    """
    names, codes = np.unique(np.concatenate([np.asarray(ids) for ids in customer_ids]), return_inverse=True)
    of_cutoff = np.split(codes, np.cumsum([len(np.asarray(ids)) for ids in customer_ids])[:-1])
    generator = np.random.default_rng(seed)
    for _ in range(n):
        times = np.bincount(generator.integers(names.size, size=names.size), minlength=names.size)
        yield [np.repeat(np.arange(rows.size), times[rows]) for rows in of_cutoff]


def _take(column: Sequence, rows: NDArray[np.int64]) -> Sequence | NDArray:
    return [column[row] for row in rows] if isinstance(column, list | tuple) else np.asarray(column)[rows]


@dataclass(frozen=True)
class Reliability(Deciles):
    """Mean probability and rate of 1s in each bin, with the Wilson 95 % interval of the rate."""

    low: Floats
    high: Floats


def reliability_table(actual: ArrayLike, predicted: ArrayLike) -> Reliability:
    """The calibration plot's points: `decile_table` of labels and probabilities with intervals (Wilson 1927)."""
    bins = decile_table(*_probabilities(actual, predicted))
    z, n, rate = 1.959964, bins.count, bins.actual
    centre = (rate + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(rate * (1 - rate) / n + z**2 / (4 * n**2))
    return Reliability(bins.count, bins.predicted, bins.actual, centre - half, centre + half)


def _concentration(actual: Floats) -> float:
    """The area between diagonal and concentration curve of values in ascending rank, times rows times total."""
    n = actual.size
    return float((2 * np.arange(1, n + 1) - n - 1) @ actual)


def _mean_ranks(column: Floats) -> Floats:
    _, group, counts = np.unique(column, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[group]


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else math.nan


def _rows_of_share(share: float, rows: int) -> int:
    if not 0 < share <= 1:
        raise ValueError(f"share is {share}; expected above 0 and at most 1")
    return max(1, round(share * rows))


def _labels(actual: ArrayLike, predicted: ArrayLike) -> tuple[Floats, Floats]:
    labels, scores = checked(actual, predicted)
    other = np.unique(labels[(labels != 0) & (labels != 1)])
    if other.size:
        raise ValueError(f"actual has labels other than 0 and 1: {other[:5].tolist()}")
    return labels, scores


def _probabilities(actual: ArrayLike, predicted: ArrayLike) -> tuple[Floats, Floats]:
    labels, probabilities = _labels(actual, predicted)
    _check_within_unit("predicted", probabilities)
    return labels, probabilities


def _check_within_unit(name: str, column: Floats) -> None:
    outside = column[~((column >= 0) & (column <= 1))]
    if outside.size:
        raise ValueError(f"{name} is outside 0..1 in {outside.size} of {column.size} rows: {outside[:5].tolist()}")
