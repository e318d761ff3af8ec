"""What a backtest found: every contender's figures at every judged cutoff, their mean and spread, by segment."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from training.backtests import metrics
from training.backtests.baselines import Answer, Side

Floats = NDArray[np.floating]
Better = Literal["high", "low", "zero"]
Rows = Literal["customers", "offers"]

CHURN: dict[str, Callable[[Floats, Floats], float]] = {
    "auc": metrics.auc, "average_precision": metrics.average_precision, "lift10": metrics.lift_at,
    "lift_100": lambda actual, predicted: metrics.lift_at_capacity(actual, predicted, 100),
    "brier": metrics.brier, "log_loss": metrics.log_loss, "ece": metrics.ece,
}  # fmt: skip
VALUE: dict[str, Callable[[Floats, Floats], float]] = {
    "ngini": metrics.ngini, "spearman": metrics.spearman, "top_decile_capture": metrics.top_decile_capture,
    "decile_wape": metrics.decile_wape, "bias": metrics.bias,
}  # fmt: skip
OF_LEVEL = frozenset(("brier", "log_loss", "ece", "decile_wape", "bias"))
"""Figures that only a probability or an amount has; the others need no more than an order."""
_SMALL = {"brier", "log_loss", "ece", "relative_ece", "decile_wape"}
_DRAWN = {"auc", "average_precision", "brier", "ece", "ngini", "spearman", "decile_wape", "bias"}
ORDERS = ("auc", "ngini")
"""How well customers are ordered, by probability of leaving and by value."""
_FEWEST_ROWS = 20
_DRAWS = 200
_SEED = 7  # of the draws that every grade needs; the default of `training.seed`, so that a backtest draws the same


def better(metric: str) -> Better:
    """Which way a figure is good: high, low, or near zero."""
    if metric == "bias":
        return "zero"
    return "low" if metric in _SMALL else "high"


def size(metric: str, value: float) -> float:
    """What is compared and averaged: of a figure that is good near zero how far it is from it, whichever the side."""
    return abs(value) if better(metric) == "zero" else value


def worth(metric: str, value: float) -> float:
    """More is better, whichever way the figure is good."""
    return value if better(metric) == "high" else -size(metric, value)


class Kept(NamedTuple):
    """What is kept of a judged cutoff beside ids and segments: columns with a row per customer and, of offers, with a
    row per (customer, item)."""

    by_customer: Mapping[str, Any]
    by_pair: Mapping[str, Any]


class JudgedCutoff(Protocol):
    """One model at one judged cutoff; `figures` of an answer are over the customers at the given places.

    rows: what a row of `actual` is of. What is said of one answer, `times` says how often each customer counts, a row
    per draw.
    """

    @property
    def rows(self) -> Rows: ...
    @property
    def as_of(self) -> date: ...
    @property
    def learnt_from(self) -> tuple[date, ...]: ...
    @property
    def customer_ids(self) -> NDArray[np.object_]: ...
    @property
    def actual(self) -> Floats: ...
    @property
    def answers(self) -> tuple[Answer, ...]: ...
    @property
    def segments(self) -> Mapping[str, NDArray[np.bool_]]: ...
    @property
    def refused(self) -> tuple[str, ...]: ...
    def figures(
        self, answer: Answer, at: NDArray[np.int64], among: Iterable[str] | None = None
    ) -> dict[str, float]: ...
    def figure(self, answer: Answer, at: NDArray[np.int64], metric: str) -> float:
        """One of the `figures`; nan where there is no such one."""
        ...

    def asked(self, metric: str) -> NDArray[np.bool_]:
        """Which customers a figure of the first answer is of."""
        ...

    def scores(self, metric: str) -> Floats:
        """What the first answer said of each customer or, of offers, how good their list is by the metric."""
        ...

    @property
    def outcomes(self) -> Floats | None:
        """What then happened of each customer; null for offers, of which a customer has many."""
        ...

    @property
    def interval(self) -> float | None:
        """The share of outcomes that bounds are meant to hold; null where there are none."""
        ...

    @property
    def has_chance(self) -> bool:
        """Whether it is known what a random order would come to."""
        ...

    def order_over_chance(self, answer: Answer, times: Floats) -> Floats:
        """How far above a random order, on a scale to 1."""
        ...

    def loss(self, answer: Answer, times: Floats) -> Floats | None:
        """Of the level; null where it is none of single customers."""
        ...

    def level_error(self, answer: Answer) -> float:
        """How far the level is off, without sign."""
        ...

    def tenths(self) -> Mapping[str, NDArray]:
        """Columns with a row per tenth by the first answer: how many, what was predicted and what happened."""
        ...

    def of_customers(self, places: NDArray[np.int64]) -> Self:
        """The same, of the customers at these places alone."""
        ...

    def answered_by(self, name: str) -> Self:
        """The same with this contender's answer first, as the one that answers; as it is where it has none."""
        ...

    def beside(self, own: Self) -> Self:
        """The same as it would have been judged beside what stood beside `own`."""
        ...

    def kept(self) -> Kept: ...


def customer_figures(
    functions: Mapping[str, Callable[[Floats, Floats], float]], actual: Floats, answer: Answer,
    at: NDArray[np.int64], among: Iterable[str] | None = None,
) -> dict[str, float]:  # fmt: skip
    """Each metric over the customers at `at`; those of a level where the answer has one; nan for a handful."""
    wanted = [name for name in among or functions if name in functions and (answer.is_level or name not in OF_LEVEL)]
    if len(at) < _FEWEST_ROWS:
        return dict.fromkeys(wanted, math.nan)
    return {name: functions[name](actual[at], answer.predicted[at]) for name in wanted}


@dataclass(frozen=True)
class Spread:
    """A figure over the judged cutoffs: mean, standard deviation (0 for one), the worst, one per cutoff.

    low, high: 95 % bootstrap interval of the mean, over customers; nan where it was not drawn. Of a figure that is good
    near zero, mean, deviation and interval are of its size, since too much at one cutoff does not make up for too
    little at the next; the worst and each keep their signs.
    """

    mean: float
    sd: float
    worst: float
    each: tuple[float, ...]
    low: float = math.nan
    high: float = math.nan

    @classmethod
    def of(cls, metric: str, each: Sequence[float], drawn: Sequence[float] = ()) -> Spread:
        """`drawn` are means over the cutoffs, of sizes."""
        known = _known(each)
        worst = min(known, key=lambda value: worth(metric, value), default=math.nan)
        return cls._of([size(metric, value) for value in known], worst, each, drawn)

    @classmethod
    def ahead(cls, metric: str, ours: Sequence[float], theirs: Sequence[float], drawn: Sequence[float] = ()) -> Spread:
        """Ours less theirs, by size: above 0 is better where high is good, below 0 where low, or near zero, is."""
        each = [size(metric, a) - size(metric, b) for a, b in zip(ours, theirs, strict=True)]
        worst = (min if better(metric) == "high" else max)(_known(each), default=math.nan)
        return cls._of(_known(each), worst, each, drawn)

    @classmethod
    def _of(cls, known: Sequence[float], worst: float, each: Sequence[float], drawn: Sequence[float]) -> Spread:
        sd = float(np.std(known, ddof=1)) if len(known) > 1 else 0.0 if known else math.nan
        return cls(_mean(known), sd, float(worst), tuple(each), *metrics.percentile_interval(drawn))


def _known(values: Iterable[float]) -> list[float]:
    return [value for value in values if not math.isnan(value)]


def _mean(values: Iterable[float]) -> float:
    """Of those that are defined."""
    known = _known(values)
    return float(np.mean(known)) if known else math.nan


@dataclass(frozen=True)
class Contender:
    """Its figures by metric; `ahead`: ours minus its own, on the same customers.

    The interval of `ahead` is always drawn for the order of a purchase-history model that is better than ours on
    average: a grade asks whether that is beyond noise.
    """

    name: str
    side: Side
    figures: Mapping[str, Spread]
    ahead: Mapping[str, Spread]


@dataclass(frozen=True)
class Scoreboard:
    """One model's backtest. Contenders that could not answer at every cutoff are in `missing`, with nothing else.

    customers: how many were judged at each cutoff; segments: the contenders again, on a part of the customers each.
    """

    as_of: tuple[date, ...]
    learnt_from: tuple[tuple[date, ...], ...]
    customers: tuple[int, ...]
    contenders: tuple[Contender, ...]
    missing: tuple[str, ...]
    segments: Mapping[str, tuple[Contender, ...]]
    segment_customers: Mapping[str, tuple[int, ...]]

    @property
    def ours(self) -> Contender:
        return self.contenders[0]

    def best(self, side: Literal["naive", "btyd"], metric: str) -> Spread | None:
        """At each cutoff the best that any contender of a side reaches; none where there is no such figure."""
        rivals = [c.figures[metric].each for c in self.contenders if c.side == side and metric in c.figures]
        if not rivals:
            return None
        each = zip(*rivals, strict=True)
        return Spread.of(
            metric, [max(_known(values), key=lambda v: worth(metric, v), default=math.nan) for values in each]
        )

    def recorded(self, metric: str) -> dict[str, float]:
        """Our figure as a run records it: mean and `_worst`; of one that has a sign also `_signed`, the mean of the
        signed ones, in which cutoffs cancel, and each cutoff's own as `_at_<day>`."""
        spread = self.ours.figures[metric]
        figures = {metric: spread.mean, f"{metric}_worst": spread.worst}
        if better(metric) == "zero":
            figures[f"{metric}_signed"] = _mean(spread.each)
            figures |= {f"{metric}_at_{day}": value for day, value in zip(self.as_of, spread.each, strict=True)}
        return figures


def scoreboard(judged: Sequence[JudgedCutoff], seed: int | None = None) -> Scoreboard:
    """Of at least one judged cutoff; with a seed, intervals of everything are drawn."""
    names = [answer.name for answer in judged[0].answers]
    everywhere = [name for name in names if all(name in {a.name for a in cutoff.answers} for cutoff in judged)]
    missing = {a.name for cutoff in judged for a in cutoff.answers} - set(everywhere)
    missing |= {name for cutoff in judged for name in cutoff.refused}
    whole = [np.arange(len(cutoff.customer_ids)) for cutoff in judged]
    drawn = _drawn(judged, everywhere, seed) if seed is not None else _drawn_behind(judged, everywhere, whole)
    parts = {name: [np.flatnonzero(cutoff.segments[name]) for cutoff in judged] for name in judged[0].segments}
    return Scoreboard(
        tuple(cutoff.as_of for cutoff in judged),
        tuple(cutoff.learnt_from for cutoff in judged),
        tuple(len(cutoff.customer_ids) for cutoff in judged),
        _contenders(judged, everywhere, whole, drawn),
        tuple(sorted(missing)),
        {name: _contenders(judged, everywhere, at, {}) for name, at in parts.items()},
        {name: tuple(map(len, at)) for name, at in parts.items()},
    )


_Drawn = dict[str, dict[str, list[float]]]  # contender, metric: the mean over cutoffs, one per draw


def _contenders(
    judged: Sequence[JudgedCutoff], names: Sequence[str], at: Sequence[NDArray[np.int64]], drawn: _Drawn
) -> tuple[Contender, ...]:
    each = {name: _each(judged, name, at) for name in names}
    ours, contenders = each[names[0]], []
    for name in names:
        answer = _answer(judged[0], name)
        figures = {m: Spread.of(m, values, drawn.get(name, {}).get(m, ())) for m, values in each[name].items()}
        ahead = {} if name == names[0] else {
            m: Spread.ahead(m, ours[m], values, _drawn_ahead(drawn, names[0], name, m))
            for m, values in each[name].items()
        }  # fmt: skip
        contenders.append(Contender(name, answer.side, figures, ahead))
    return tuple(contenders)


def _each(
    judged: Sequence[JudgedCutoff], name: str, at: Sequence[NDArray[np.int64]], among: Iterable[str] | None = None
) -> dict[str, list[float]]:
    """By metric, the figures of one contender at each cutoff."""
    by_cutoff = [cutoff.figures(_answer(cutoff, name), rows, among) for cutoff, rows in zip(judged, at, strict=True)]
    return {metric: [figures[metric] for figures in by_cutoff] for metric in by_cutoff[0]}


def _answer(cutoff: JudgedCutoff, name: str) -> Answer:
    return next(answer for answer in cutoff.answers if answer.name == name)


def _drawn_ahead(drawn: _Drawn, ours: str, other: str, metric: str) -> list[float]:
    """Draw by draw; none where the other's were not drawn."""
    theirs = drawn.get(other, {}).get(metric)
    return [] if theirs is None else [a - b for a, b in zip(drawn[ours][metric], theirs, strict=True)]


def _drawn_behind(judged: Sequence[JudgedCutoff], names: Sequence[str], at: Sequence[NDArray[np.int64]]) -> _Drawn:
    """Of ours and the purchase-history models that order the customers better on average; mostly nobody."""
    models = [name for name in names if _answer(judged[0], name).side == "btyd"]
    if not models:
        return {}
    means = {name: [_mean(each) for each in _each(judged, name, at, ORDERS).values()] for name in (names[0], *models)}
    ahead = [name for name in models if any(b > a for a, b in zip(means[names[0]], means[name], strict=True))]
    return _drawn(judged, [names[0], *ahead], _SEED, ORDERS) if ahead else {}


def _drawn(judged: Sequence[JudgedCutoff], names: Sequence[str], seed: int, among: Iterable[str] = _DRAWN) -> _Drawn:
    """The same customers for all contenders and cutoffs, so that differences have intervals of their own."""
    samples: _Drawn = {}
    for at in metrics.customer_draws([cutoff.customer_ids for cutoff in judged], _DRAWS, seed):
        for name in names:
            for metric, values in _each(judged, name, at, among).items():
                drawn = samples.setdefault(name, {}).setdefault(metric, [])
                drawn.append(_mean(size(metric, value) for value in values))
    return samples
