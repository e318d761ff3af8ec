"""How good the models would have been: trained at earlier dates on what was known then, held against what followed.

A judged cutoff is an earlier as_of whose outcome window has closed. Its models learn only from windows that had closed
by it, with labels as they were recorded by it, and are asked about the customers known at it, beside naive rules and
the field's purchase-history models on the very same rows.

Segments, by what was known at the cutoff (the top decile overlaps the others):

- `new`: first bought less than 90 days before it;
- `one-time`: bought on one day only, 90 days or longer before it;
- `repeat`: bought on two days or more, the first 90 days or longer before it;
- `top decile`: the tenth of the customers who spent most in the 365 days before it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import partial
from typing import ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from training.backtests import metrics, scoreboard
from training.backtests.baselines import Answer, Histories, Side, pace, silence
from training.backtests.scoreboard import Kept
from training.learning import churn, datasets, lifetime_value
from training.learning.datasets import Cutoff, Dataset, TooFewReturned
from training.learning.deciles import decile_table
from training.models.customer_model import Inputs
from training.models.rule import BASE_RATE, HISTORIES, OURS
from workspace import cores
from workspace.remaining import Remaining
from workspace.settings import Workspace
from workspace.storage import CheckFailed
from workspace.windows import judged_cutoffs

Floats = NDArray[np.floating]
Rows = NDArray[np.bool_]

SEGMENTS = ("new", "one-time", "repeat", "top decile")
OVERLAPPING = frozenset({"top decile"})
_NEW_DAYS = 90
# Closed before a judged cutoff: as many as wished for, else at least so many, before one is judged without any.
_ENOUGH = (4, 2, 1, 0)


@dataclass(frozen=True)
class Bounds:
    """Of each row's value, as the model gave them; `interval`: the share of outcomes that they are meant to hold."""

    low: Floats
    high: Floats
    interval: float

    def of(self, places: NDArray[np.int64]) -> Bounds:
        """The same, of the rows at these places alone."""
        return replace(self, low=self.low[places], high=self.high[places])


@dataclass(frozen=True)
class Judged:
    """One model at one judged cutoff: a row per customer in every array.

    learnt_from: the cutoffs that taught it, none where purchase histories alone did; answers: ours first; refused:
    models that the data did not identify; n_purchases: how many days each customer bought on, and how many we had
    expected (with bounds: lifetime value only).
    """

    as_of: date
    learnt_from: tuple[date, ...]
    customer_ids: NDArray[np.object_]
    actual: Floats
    answers: tuple[Answer, ...]
    segments: Mapping[str, Rows]
    refused: tuple[str, ...] = ()
    bounds: Bounds | None = None
    n_purchases: tuple[Floats, Floats] | None = None
    rows: ClassVar[scoreboard.Rows] = "customers"
    has_chance: ClassVar[bool] = True

    @property
    def outcomes(self) -> Floats:
        return self.actual

    @property
    def interval(self) -> float | None:
        return self.bounds.interval if self.bounds else None

    def of_customers(self, places: NDArray[np.int64]) -> Judged:
        """The same, of the customers at these places alone."""
        bounds = self.bounds and self.bounds.of(places)
        counts = self.n_purchases and (self.n_purchases[0][places], self.n_purchases[1][places])
        return replace(
            self, customer_ids=self.customer_ids[places], actual=self.actual[places], bounds=bounds, n_purchases=counts,
            answers=tuple(replace(a, predicted=a.predicted[places], forecast=None) for a in self.answers),
            segments={name: rows[places] for name, rows in self.segments.items()},
        )  # fmt: skip

    def answered_by(self, name: str) -> Judged:
        """The same with this contender's answer first, as the one that answers; as it is where it has none."""
        answers = led_by(self.answers, name)
        said = answers[0].forecast
        if said is None or self.bounds is None or self.n_purchases is None:
            return replace(self, answers=answers)
        bounds = replace(self.bounds, low=said.low, high=said.high)
        counts = (self.n_purchases[0], said.expected_purchases)
        return replace(self, answers=answers, bounds=bounds, n_purchases=counts)

    def figures(self, answer: Answer, at: NDArray[np.int64], among: Iterable[str] | None = None) -> dict[str, float]:
        """Of churn or, where there are bounds, of value; over the customers at `at`."""
        functions = scoreboard.CHURN if self.bounds is None else scoreboard.VALUE
        figures = scoreboard.customer_figures(functions, self.actual, answer, at, among)
        if answer.side == "ours" and self.bounds and self.n_purchases and among is None:
            low, high, counts = self.bounds.low[at], self.bounds.high[at], [column[at] for column in self.n_purchases]
            # A segment may have nobody at one cutoff: unknown there, and known at the others.
            figures["coverage"] = metrics.coverage(self.actual[at], low, high) if len(at) else math.nan
            figures["coverage_stated"] = self.bounds.interval
            figures["count_correlation"] = metrics.count_correlation(*counts) if len(at) else math.nan
        return figures

    def figure(self, answer: Answer, at: NDArray[np.int64], metric: str) -> float:
        return self.figures(answer, at, (metric,)).get(metric, math.nan)

    def asked(self, metric: str) -> Rows:
        return np.ones(len(self.customer_ids), dtype=bool)

    def scores(self, metric: str) -> Floats:
        return self.answers[0].predicted

    def order_over_chance(self, answer: Answer, times: Floats) -> Floats:
        """Normalised Gini, of labels 2 auc - 1."""
        return metrics.ngini_of_draws(self.actual, answer.predicted, times)

    def loss(self, answer: Answer, times: Floats) -> Floats:
        """Of probabilities Brier's, of money how far the total is off."""
        if self.bounds is None:
            return times @ (answer.predicted - self.actual) ** 2 / times.sum(axis=1)
        total = times @ self.actual
        off = np.full(len(total), np.nan)
        return np.abs(np.divide(times @ answer.predicted, total, out=off, where=total > 0) - 1)

    def level_error(self, answer: Answer) -> float:
        """Of probabilities `ece`, of money `bias`."""
        metric = "ece" if self.bounds is None else "bias"
        return abs(self.figures(answer, np.arange(len(self.customer_ids)), (metric,))[metric])

    def tenths(self) -> dict[str, NDArray]:
        """Those of value with the share within bounds, those of probabilities with intervals."""
        ours = self.answers[0].predicted
        if self.bounds is None:
            return vars(metrics.reliability_table(self.actual, ours))
        held = metrics.decile_coverage(self.actual, ours, self.bounds.low, self.bounds.high)
        return vars(decile_table(self.actual, ours)) | {"within_bounds": held}

    def beside(self, own: Judged) -> Judged:
        return replace(self, answers=(self.answers[0], *others(own.answers, self.answers[0])))

    def kept(self) -> Kept:
        said = {f"by {answer.name}": answer.predicted for answer in self.answers}
        columns = {"actual": self.actual} | said
        if self.bounds is not None:
            columns |= {"low": self.bounds.low, "high": self.bounds.high}
        if self.n_purchases is not None:
            columns |= dict(zip(("n_purchases", "expected_purchases"), self.n_purchases, strict=True))
        return Kept(columns, {})


def led_by(answers: Sequence[Answer], name: str) -> tuple[Answer, ...]:
    """With this one's first, as the one that answers, which so is no rival of its own."""
    chosen = next((answer for answer in answers if answer.name == name and answer.may_answer), answers[0])
    others = [
        replace(one, side=_SIDES.get(one.name, "naive")) if one.side == "ours" else one
        for one in answers if one is not chosen
    ]  # fmt: skip
    return (replace(chosen, side="ours"), *others)


def others(answers: Sequence[Answer], first: Answer) -> Iterator[Answer]:
    """The rivals among the answers, but for the one that is called as `first` is."""
    return (answer for answer in answers[1:] if answer.name != first.name)


def cutoffs(workspace: Workspace, as_of: date, count: int) -> list[date]:
    """The closed cutoffs of a backtest with `count` judged ones, oldest first; each needs a snapshot.

    So many that the oldest judged one, its window apart from the next one's, has as many before it as a training.
    """
    apart, waiting = _spacings(workspace), _spacings(workspace)
    return datasets.cutoffs(workspace, as_of, workspace.training.cutoffs + waiting + apart * (count - 1))


def _spacings(workspace: Workspace) -> int:
    """Cutoffs from one to the first whose window does not overlap its own."""
    return math.ceil(datasets.outcome_days(workspace) / workspace.training.spacing)


def judged_dates(workspace: Workspace, closed: Sequence[date], count: int) -> list[date]:
    """As `windows.judged_cutoffs`, with as many before each as a training has, or as few as none."""
    return judged_cutoffs(
        closed, count, outcome_days=datasets.outcome_days(workspace), spacing=workspace.training.spacing,
        enough=(workspace.training.cutoffs, *_ENOUGH),
    )  # fmt: skip


JudgeAt = Callable[[Dataset, Workspace, Cutoff, Histories | None], Judged]
"""What was known on a day, and what then followed, to how right the model would have been."""


def alike(judged: Iterable[Judged]) -> list[Judged]:
    """Those at which our own model could be learnt; where it never could, all: rules are judged then."""
    windows = list(judged)
    return [cutoff for cutoff in windows if cutoff.answers[0].name == OURS] or windows


def judge(
    judge_at: JudgeAt, data: Dataset, workspace: Workspace, dates: Sequence[date],
    progress: Callable[[str], None] = lambda _: None, peers: bool = True,
) -> Iterator[Judged]:  # fmt: skip
    """At each date at which the model could have been learnt; without `peers` the field's purchase-history models are
    not fitted."""
    tasks = judging(judge_at, data, workspace, dates, peers)
    yield from told(cores.side_by_side(tasks), Remaining(len(tasks)), progress)


def judging(
    judge_at: JudgeAt, data: Dataset, workspace: Workspace, dates: Sequence[date], peers: bool = True
) -> list[Callable[[], Judged | str]]:
    """A task for each date, oldest first, which says how right the model would have been, or why nobody knows."""
    if datasets.outcome_days(data.taught) != datasets.outcome_days(workspace):
        return [lambda: "not judged: no window as long as the horizon has closed after enough history"]

    def judged(cutoff: Cutoff) -> Judged | str:
        then = known_at(data, workspace, cutoff)
        try:
            return judge_at(then, workspace, cutoff, Histories.fit(data.inputs, cutoff) if peers else None)
        except CheckFailed as problem:
            return f"{cutoff.as_of}: not judged: {problem}"

    return [partial(judged, cutoff) for cutoff in data.closed if cutoff.as_of in dates]


def told(results: Iterable[Judged | str], left: Remaining, progress: Callable[[str], None]) -> Iterator[Judged]:
    """Those that were judged, with a word on each date."""
    for judged in results:
        if isinstance(judged, str):
            progress(f"{judged}{left.after_one()}")
            continue
        learnt, customers = f"learnt from {len(judged.learnt_from)} cutoffs", f"{len(judged.actual):,} customers"
        progress(f"{judged.as_of}: {learnt}, {customers}{left.after_one()}")
        yield judged


def known_at(data: Dataset, workspace: Workspace, cutoff: Cutoff) -> Dataset:
    """What a training on the day of this cutoff would have had to learn from."""
    seen = datasets.seen_at(data, workspace, cutoff.as_of)
    return replace(data, closed=seen, current=_unlabelled(cutoff))


def _unlabelled(cutoff: Cutoff) -> Cutoff:
    """As it was on its day: nobody knew what would follow."""
    unknown = np.full(len(cutoff.customer_ids), np.nan)
    return replace(cutoff, churned=unknown, value=unknown, n_purchases=unknown)


_Model = TypeVar("_Model")
_SIDES: Mapping[str, Side] = {
    OURS: "aside", HISTORIES: "aside", BASE_RATE: "aside", churn.SILENCE: "naive", lifetime_value.PACE: "naive",
}  # fmt: skip


def learnt(ours: Callable[[], _Model], simpler: Mapping[str, _Model]) -> _Model | None:
    """Our own model; none where too few came back to learn it from, and the base rate can still be learnt.

    Raises:
        CheckFailed: nothing can be learnt.
    """
    try:
        return ours()
    except TooFewReturned:
        if BASE_RATE not in simpler:
            raise
        return None


def _contenders(ours: Callable[[], _Model], simpler: Mapping[str, _Model]) -> dict[str, _Model]:
    """By name, ours first if it can be learnt."""
    own = learnt(ours, simpler)
    return {**({} if own is None else {OURS: own}), **simpler}


def _side(place: int, name: str) -> Side:
    return "ours" if place == 0 else _SIDES[name]


def churn_at(then: Dataset, workspace: Workspace, cutoff: Cutoff, histories: Histories | None) -> Judged:
    """Among the customers who could leave."""
    settings, inputs = workspace.churn, then.inputs
    rows = ~np.isnan(cutoff.churned)
    vectors = cutoff.vectors[rows]
    models = _contenders(
        lambda: churn.fit(then, workspace, then.closed, then.current),
        churn.simpler(then, workspace, then.closed, then.current),
    )
    field = histories if settings.kind == "inactivity" else None
    first, *others = [
        Answer(name, _side(place, name), model.probability(vectors), may_answer=True)
        for place, (name, model) in enumerate(models.items())
    ]
    told = field.churn(vectors, settings.horizon, settings.gap) if field else []
    answers = [first, silence(inputs, vectors), *others[:1], *told, *others[1:]]
    return Judged(
        cutoff.as_of, _dates(then.closed), cutoff.customer_ids[rows], cutoff.churned[rows], tuple(answers),
        segments(inputs, vectors), histories.refused if histories else (),
    )  # fmt: skip


def value_at(then: Dataset, workspace: Workspace, cutoff: Cutoff, histories: Histories | None) -> Judged:
    """Of everyone who had bought."""
    rows = then.inputs.bought(cutoff.vectors)
    vectors = cutoff.vectors[rows]
    models = _contenders(
        lambda: lifetime_value.fit(then, workspace, then.closed, then.current),
        lifetime_value.simpler(then, workspace, then.closed, then.current),
    )
    forecasts = {name: model.forecast(vectors) for name, model in models.items()}
    answers = [
        Answer(name, _side(place, name), forecast.value, may_answer=True, forecast=forecast)
        for place, (name, forecast) in enumerate(forecasts.items())
    ]
    if lifetime_value.PACE not in forecasts:
        rule = lifetime_value.pace(then, workspace.lifetime_value, then.current)["value"]
        answers.insert(1, pace(then.inputs, vectors, rule))
    answers[2:2] = histories.value(vectors, workspace.lifetime_value.horizon) if histories else []
    first = next(iter(forecasts.values()))
    return Judged(
        cutoff.as_of, _dates(then.closed), cutoff.customer_ids[rows], cutoff.value[rows], tuple(answers),
        segments(then.inputs, vectors), histories.refused if histories else (),
        Bounds(first.low, first.high, workspace.lifetime_value.interval),
        (cutoff.n_purchases[rows], first.expected_purchases),
    )  # fmt: skip


def _dates(closed: Sequence[Cutoff]) -> tuple[date, ...]:
    return tuple(cutoff.as_of for cutoff in closed)


def segments(inputs: Inputs, vectors: NDArray[np.float32]) -> dict[str, Rows]:
    """Which rows belong to each of `SEGMENTS`, by what was known at the cutoff; who never bought, to none."""
    age, repeats, spent = (inputs.column(vectors, name) for name in ("T", "frequency", "spend_365d"))
    new, known = age < _NEW_DAYS, age >= _NEW_DAYS
    highest = np.argsort(-np.nan_to_num(spent), kind="stable")[: max(1, round(len(spent) / 10))]
    top = np.zeros(len(spent), dtype=bool)
    top[highest] = True
    return dict(zip(SEGMENTS, (new, known & (repeats == 0), known & (repeats > 0), top & ~np.isnan(age)), strict=True))
