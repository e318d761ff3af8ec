"""How far a model may be trusted: A, B, C or none, by rules over every judged cutoff, and why in plain words.

A grade asks for the right order AND the right level, on average AND at the worst cutoff, held against the best naive
rule and the field's purchase-history models. `RULES` and the limits of `Measures` are the whole of it; docs/models.md
explains them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from training.backtests.scoreboard import Scoreboard
from workspace import sentences

Letter = Literal["A", "B", "C", "none"]

MIN_OUTCOMES = 100
"""Of either kind, at the judged cutoffs together; with fewer, chance decides who looks better."""


class Rule(NamedTuple):
    """What a letter asks for at the least, but for the shortfall.

    order: share of the way from a rival's ranking to a perfect one that ours goes; level: share of a rival's error that
    ours takes away. Against the best naive rule on average and, for the order, at the worst cutoff; against the best
    of the field's models on average. btyd_noise: nor may one of them be better in order by any more than chance.
    shortfall: how many too few may lie within their bounds (value), as a share of all customers.
    """

    cutoffs: int
    order: float
    worst_order: float
    level: float
    btyd_order: float
    btyd_level: float
    btyd_noise: bool
    shortfall: float


RULES: dict[Letter, Rule] = {
    #        cutoffs  order  worst  level  btyd_order  btyd_level  btyd_noise  shortfall
    "A": Rule(3,      0.05,  0.00,  0.00,  -0.01,      -0.05,      True,       0.05),
    "B": Rule(2,      0.02, -0.01, -0.05,  -0.02,      -0.15,      False,      0.10),
    "C": Rule(1,      0.00, -0.05, -0.20,  -0.05,      -0.30,      False,      0.15),
}  # fmt: skip


class Errors(NamedTuple):
    """How far off the level itself may be, on average and at the worst cutoff."""

    mean: float
    worst: float


@dataclass(frozen=True)
class Measures:
    """What a kind of model is graded by: which figures stand for order, level and the level's error.

    order: an order of lists carries their length behind this name; ordered: what is put in order; words, level_words:
    of the error and of the level; limits: how large the error may be.
    in_points: the error is a difference of two probabilities, else a share of what happened. is_total: it is one of a
    total, which of few customers too is more than noise.
    """

    order: str
    ordered: str
    level: str
    level_words: str
    error: str
    words: str
    limits: Mapping[Letter, Errors]
    in_points: bool = False
    is_total: bool = False

    def order_among(self, figures: Iterable[str]) -> str:
        """The order's whole name."""
        return next(name for name in figures if name.rstrip("0123456789") == self.order)

    def shown(self, error: float, digits: int = 1) -> str:
        """An error as people read it."""
        return f"{100 * error:.{digits}f} points" if self.in_points else f"{error:.{digits}%}"

    @property
    def furthest(self) -> float:
        """How far off a level may be at the worst judged cutoff for amounts to be shown: as far as a grade C allows."""
        return self.limits["C"].worst


OF_CHURN = Measures(
    "auc", "customers", "brier", "squared error", "ece", "probabilities are off by {}",
    {"A": Errors(0.05, 0.10), "B": Errors(0.08, 0.15), "C": Errors(0.12, 0.20)}, in_points=True,
)  # fmt: skip
OF_VALUE = Measures(
    "ngini", "customers", "decile_wape", "error by tenths", "bias", "the total is off by {}",
    {"A": Errors(0.10, 0.25), "B": Errors(0.20, 0.40), "C": Errors(0.35, 0.60)}, is_total=True,
)  # fmt: skip
OF_OFFERS = Measures(
    "ndcg", "offers", "", "", "relative_ece", "probabilities are off by {} of their mean",
    {"A": Errors(0.15, 0.30), "B": Errors(0.25, 0.50), "C": Errors(0.40, 0.75)},
)  # fmt: skip


@dataclass(frozen=True)
class Grade:
    letter: Letter
    reason: str


class Outcomes(NamedTuple):
    """Of both kinds, at all judged cutoffs together: left and stayed, bought something and nothing, pairs alike."""

    yes: int
    no: int

    @classmethod
    def of(cls, actual: Sequence[NDArray[np.floating]]) -> Self:
        """Of what happened at each judged cutoff."""
        yes = sum(int((column > 0).sum()) for column in actual)
        return cls(yes, sum(map(len, actual)) - yes)

    @property
    def are_too_few(self) -> bool:
        """Chance would decide who looks better."""
        return min(self) < MIN_OUTCOMES


def graded(
    measures: Measures, board: Scoreboard | None, outcomes: Outcomes, simpler: str = "", dropout_doubt: str = ""
) -> Grade:
    """The best letter whose every condition is met; the reason says what held it back from the next better one.

    `simpler` says why the model is the simpler one, learnt from purchase histories alone, "" where it is not. Judged
    cutoffs that were learnt from histories alone say less than half of a model that is not: C is then the most.
    `dropout_doubt` says why nothing is known of how customers leave.
    """
    because = [simpler] if simpler else []
    because += [f"nothing can be said of p_alive here: {dropout_doubt}"] if dropout_doubt else []
    if board is None:
        return Grade("none", sentences.joined(["no earlier date could be judged", *because]))
    if outcomes.are_too_few:
        counted = f"{min(outcomes):,} of {sum(outcomes):,} outcomes at the judged cutoffs are of one kind"
        needed = f"at least {MIN_OUTCOMES} of either kind are needed"
        return Grade("none", sentences.joined([counted, needed, *because]))
    evidence = _Evidence(measures, board)
    half = not simpler and not all(board.learnt_from)
    held_back: list[str] = []
    for letter in RULES:
        unmet = list(evidence.unmet(letter))
        if half and letter != "C":
            unmet.append("a judged cutoff had to be learnt from purchase histories alone")
        if not unmet:
            return Grade(letter, sentences.joined([*evidence.in_short, *_short_of(letter, held_back), *because]))
        held_back = unmet
    return Grade("none", sentences.joined([*evidence.in_short, *_short_of("none", held_back), *because]))


def _short_of(letter: Letter, held_back: Sequence[str]) -> list[str]:
    """What the next better letter asks for and is not there."""
    better = {"B": "A", "C": "B", "none": "C"}.get(letter)
    return [f"it is not {better}: {held_back[0]}", *held_back[1:]] if better else []


@dataclass(frozen=True)
class _Evidence:
    measures: Measures
    board: Scoreboard

    @property
    def order(self) -> str:
        return self.measures.order_among(self.board.ours.figures)

    @property
    def errors(self) -> list[float]:
        return [abs(value) for value in self.board.ours.figures[self.measures.error].each]

    @property
    def in_words(self) -> str:
        """The order, with the name of its figure."""
        return f"order of {self.measures.ordered} ({self.order})"

    @property
    def in_short(self) -> Iterator[str]:
        ours, naive = self.board.ours.figures[self.order], self.board.best("naive", self.order)
        btyd, error = self.board.best("btyd", self.order), self.board.ours.figures[self.measures.error]
        count = len(self.board.as_of)
        over = f"on average over {count} cutoffs, {ours.worst:.3f} at the worst" if count > 1 else "at one cutoff"
        yield f"its {self.in_words} is {ours.mean:.3f} {over}"
        if naive:
            yield f"the best naive rule has {naive.mean:.3f}"
        if btyd is not None and btyd.mean > ours.mean:
            yield f"the best purchase-history model has {btyd.mean:.3f}"
        yield f"{self._off(error.mean)} on average, {self.measures.shown(abs(error.worst))} at the worst"

    def _off(self, by: float, digits: int = 1, more_than: str = "") -> str:
        return self.measures.words.format(more_than + self.measures.shown(by, digits))

    def unmet(self, letter: Letter) -> Iterator[str]:
        """In plain words, each condition of a letter that the evidence does not meet; an unknown figure meets none."""
        rule, figures = RULES[letter], self.board.ours.figures
        if len(self.board.as_of) < rule.cutoffs:
            yield f"{rule.cutoffs} judged cutoffs are asked for"
        yield from self._unknown(self.order, self.in_words) or self._unmet_order(rule)
        yield from self._unmet_level(rule)
        error = self.measures.error
        yield from self._unknown(error, f"error ({error})") or self._unmet_error(self.measures.limits[letter])
        if "coverage" in figures:
            held, stated = figures["coverage"].mean, figures["coverage_stated"].mean
            if not held >= stated - rule.shortfall:
                yield f"{held:.1%} of the customers lie within bounds that should hold {stated:.0%}"

    def _unknown(self, metric: str, words: str) -> list[str]:
        each = zip(self.board.as_of, self.board.ours.figures[metric].each, strict=True)
        days = ", ".join(str(day) for day, value in each if math.isnan(value))
        return [f"its {words} is not defined at {days}"] if days else []

    def _unmet_error(self, limits: Errors) -> Iterator[str]:
        errors = self.errors
        if not _mean(errors) <= limits.mean:
            yield f"{self._off(limits.mean, 0, 'more than ')} on average"
        if not max(errors) <= limits.worst:
            day = self.board.as_of[errors.index(max(errors))]
            yield f"{self._off(limits.worst, 0, 'more than ')} at {day}"

    def _unmet_order(self, rule: Rule) -> Iterator[str]:
        ours, naive = self.board.ours.figures[self.order], self.board.best("naive", self.order)
        if naive is not None:
            ways = [_way(a, b) for a, b in zip(ours.each, naive.each, strict=True)]
            if not _mean(ways) >= rule.order:
                yield (
                    f"its order is {_mean(ways):.1%} of the way from the best naive rule's to a perfect one, not"
                    f" {rule.order:.0%}"
                )
            if not min(ways) >= rule.worst_order:
                place = ways.index(min(ways))
                yield (
                    f"a naive rule's {self.in_words} is {naive.each[place]:.3f} at {self.board.as_of[place]}, this"
                    f" model's {ours.each[place]:.3f}"
                )
        btyd, beyond_noise = self.board.best("btyd", self.order), self._better_beyond_noise()
        if btyd is not None and not _way(ours.mean, btyd.mean) >= rule.btyd_order:
            yield f"a purchase-history model's {self.in_words} is {btyd.mean:.3f}"
        elif rule.btyd_noise and beyond_noise:
            yield f"a purchase-history model's {self.in_words} is {max(beyond_noise):.3f}, better beyond noise"

    def _better_beyond_noise(self) -> list[float]:
        """The orders of purchase-history models that are better than ours, and not by chance as far as is known."""
        ours = self.board.ours.figures[self.order].mean
        rivals = [c for c in self.board.contenders if c.side == "btyd" and self.order in c.figures]
        better = [c for c in rivals if c.figures[self.order].mean > ours]
        return [c.figures[self.order].mean for c in better if not (c.ahead[self.order].high >= 0)]

    def _unmet_level(self, rule: Rule) -> Iterator[str]:
        name = self.measures.level
        rivals: tuple[tuple[Literal["naive", "btyd"], float, str], ...] = (
            ("naive", rule.level, "a naive rule"), ("btyd", rule.btyd_level, "a purchase-history model"),
        )  # fmt: skip
        for side, least, words in rivals:
            rival = self.board.best(side, name)
            if rival is None:
                continue
            ours = self.board.ours.figures[name].mean
            if not _saved(ours, rival.mean) >= least:
                error = f"{self.measures.level_words} ({name})"
                yield f"{words}'s {error} is {rival.mean:.3f}, this model's {ours:.3f}"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _way(ours: float, rival: float) -> float:
    """Share of the way from the rival to perfection, 1; negative where ours is behind."""
    return (ours - rival) / (1 - rival) if rival < 1 else ours - rival


def _saved(ours: float, rival: float) -> float:
    """Share of the rival's error that ours takes away."""
    return 1 - ours / rival if rival else -float(ours > 0)
