"""Which contender of a backtest answers: our full model, the history alone, a rule or the base rate.

Ours answers unless another contender is better beyond noise: in its order or, where the orders are alike within noise,
in its level, if that also earns a better letter of `Measures.limits`. Three things come before that:

- where the outcomes suffice and nobody orders better than chance, the base rate answers, and no order is claimed;
- whose order is no better than chance does not answer while another's is;
- whose level is further off than `Measures.furthest` allows answers only where everybody else with an order is so too:
  the order is then shown, and no amount.

A better order does not count where its level alone would cost the grade that the other one's level allows.

Noise is the bootstrap's over customers, the same ones for all contenders and cutoffs; each limit is so strict that all
the comparisons together err as rarely as one would (Bonferroni). Nothing but the judged cutoffs counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from training.backtests import metrics
from training.backtests.baselines import Answer
from training.backtests.grade import MIN_OUTCOMES, RULES, Measures, Outcomes
from training.backtests.scoreboard import JudgedCutoff
from training.models.rule import BASE_RATE, OURS

Floats = NDArray[np.floating]

_DRAWS = 200
_BETTER, _SKILLED = 0.01, 0.001
"""How often chance alone may make another contender look better than ours, and any look skilled."""
_SMALL = 1e-9
_LAST = list(RULES).index("C")


@dataclass(frozen=True)
class Choice:
    """`name` of the contender that answers and why another one than ours does; why no amount is shown and why no order
    is claimed: both "" where they are."""

    name: str = OURS
    reason: str = ""
    withheld: str = ""
    no_skill: str = ""


OURS_ANSWERS = Choice()


@dataclass(frozen=True)
class _Contender:
    """`order`: over chance, the mean of the cutoffs; `loss` of its level; both as judged, then once per draw.

    errors: how far the level is off at each cutoff, without sign; loss: null where it is none of single customers.
    """

    name: str
    measures: Measures
    order: Floats
    loss: Floats | None
    errors: tuple[float, ...]

    @property
    def worst(self) -> float:
        """Nothing where nothing happened that a level could be held against."""
        return max((error for error in self.errors if error == error), default=0.0)

    @property
    def letter(self) -> int:
        """Of its level alone: 0 for A, 3 for none."""
        mean, limits = float(np.nanmean(self.errors)), list(self.measures.limits.values())
        met = [mean <= limit.mean and self.worst <= limit.worst for limit in limits]
        return met.index(True) if any(met) else len(limits)


def chosen(measures: Measures, judged: Sequence[JudgedCutoff], seed: int) -> Choice:
    """By what the contenders said at the judged cutoffs, at least one, and what followed."""
    contenders = _contenders(measures, judged, seed)
    outcomes = Outcomes.of([cutoff.actual for cutoff in judged])
    suffice = min(outcomes) >= MIN_OUTCOMES
    skilled = [one for one in contenders if _is_beyond(one.order, _SKILLED / len(contenders))]
    if suffice and not skilled:
        return _without_order(measures, contenders, outcomes)
    if not suffice and contenders[0].name != OURS:
        return Choice(BASE_RATE, f"the {BASE_RATE} answers: too few outcomes are known to judge an order")
    ordering = skilled if suffice else [one for one in contenders if one.order.any()] or contenders
    # Of few customers an error of calibration is mostly noise; a total is not.
    is_told = suffice or measures.is_total
    within = [one for one in ordering if not is_told or one.worst <= measures.furthest]
    answers = _best(within or ordering, _BETTER / max(len(contenders) - 1, 1))
    withheld = "" if within else _withheld(measures, answers)
    return Choice(answers.name, _reason(contenders[0], answers), withheld)


def _best(contenders: Sequence[_Contender], limit: float) -> _Contender:
    """The first one, ours where it is there, unless another one is better; of several the one of the best order."""
    answers, *others = contenders
    for rival in sorted(others, key=lambda one: -one.order[0]):
        if _is_better(rival, answers, limit):
            answers = rival
    return answers


def _is_better(rival: _Contender, answers: _Contender, limit: float) -> bool:
    if _is_beyond(rival.order - answers.order, limit):
        return rival.letter <= max(answers.letter, _LAST)
    if _is_beyond(answers.order - rival.order, limit) or rival.loss is None or answers.loss is None:
        return False
    return rival.letter < answers.letter and _is_beyond(answers.loss - rival.loss, limit)


def _is_beyond(gain: Floats, limit: float) -> bool:
    """Whether a gain, as judged and then as drawn, is above nothing by more than chance brings once in 1 / limit."""
    spread = float(np.nanstd(gain[1:])) if np.isfinite(gain[1:]).any() else np.nan
    return bool(gain[0] > max(float(norm.isf(limit)) * spread, _SMALL))


def no_skill(measures: Measures, judged: Sequence[JudgedCutoff], seed: int) -> str:
    """Why the answers that come first claim no order; "" where they may, or where too few outcomes are known."""
    outcomes = Outcomes.of([cutoff.actual for cutoff in judged])
    if not judged or not all(cutoff.has_chance for cutoff in judged) or min(outcomes) < MIN_OUTCOMES:
        return ""
    first = _contender(measures, judged, [cutoff.answers[0] for cutoff in judged], _times(judged, seed))
    return "" if _is_beyond(first.order, _SKILLED) else _told(first, outcomes)


def _without_order(measures: Measures, contenders: Sequence[_Contender], outcomes: Outcomes) -> Choice:
    best = max(contenders, key=lambda one: one.order[0])
    by_rate = next((one for one in contenders if one.name == BASE_RATE), best)
    withheld = _withheld(measures, by_rate) if by_rate.worst > measures.furthest else ""
    return Choice(BASE_RATE, "", withheld, _told(best, outcomes))


def _told(best: _Contender, outcomes: Outcomes) -> str:
    return (
        f"no skill: nothing orders customers better than chance beyond noise, with {min(outcomes):,} of"
        f" {sum(outcomes):,} outcomes of the rarer kind. The best, {best.name}, is {best.order[0]:.3f} above chance on"
        " a scale to 1"
    )


def _withheld(measures: Measures, answers: _Contender) -> str:
    words = measures.words.format(f"{answers.worst:.0%}")
    return (
        f"no amount is shown: in the backtest {words} at the worst cutoff, more than the {measures.furthest:.0%}"
        " allowed, and no other contender with an order is nearer"
    )


def _reason(ours: _Contender, answers: _Contender) -> str:
    if answers.name == ours.name:
        return ""
    return (
        f"{answers.name} answers, not {ours.name}: its order is {answers.order[0]:.3f} above chance against"
        f" {ours.order[0]:.3f}, its level off by {answers.worst:.1%} at the worst cutoff against {ours.worst:.1%}"
    )


def _contenders(measures: Measures, judged: Sequence[JudgedCutoff], seed: int) -> list[_Contender]:
    """Who could answer at every cutoff, ours first; of two that say the same everywhere the first."""
    able = [{answer.name: answer for answer in cutoff.answers if answer.may_answer} for cutoff in judged]
    said = {name: [of[name] for of in able] for name in able[0] if all(name in of for of in able)}
    names = list(said)
    distinct = [
        name for place, name in enumerate(names)
        if not any(_same(said[name], said[earlier]) for earlier in names[:place])
    ]  # fmt: skip
    times = _times(judged, seed)
    return [_contender(measures, judged, said[name], times) for name in distinct]


def _same(one: Sequence[Answer], other: Sequence[Answer]) -> bool:
    return all(np.allclose(a.predicted, b.predicted) for a, b in zip(one, other, strict=True))


def _times(judged: Sequence[JudgedCutoff], seed: int) -> list[Floats]:
    """For each cutoff how often each customer counts: once as judged, then as drawn, a row per draw."""
    sizes = [len(cutoff.customer_ids) for cutoff in judged]
    drawn = list(metrics.customer_draws([cutoff.customer_ids for cutoff in judged], _DRAWS, seed))
    return [
        np.stack([np.ones(size), *(np.bincount(rows[place], minlength=size) for rows in drawn)])
        for place, size in enumerate(sizes)
    ]


def _contender(
    measures: Measures, judged: Sequence[JudgedCutoff], said: Sequence[Answer], times: Sequence[Floats]
) -> _Contender:
    each = list(zip(judged, said, times, strict=True))
    orders = np.stack([cutoff.order_over_chance(answer, own) for cutoff, answer, own in each])
    losses = [loss for cutoff, answer, own in each if (loss := cutoff.loss(answer, own)) is not None]
    loss = _mean(np.stack(losses)) if losses else None
    errors = tuple(cutoff.level_error(answer) for cutoff, answer, _ in each)
    return _Contender(said[0].name, measures, _mean(orders), loss, errors)


def _mean(of_cutoffs: Floats) -> Floats:
    """Over the cutoffs at which there is something to order, or a level; 0 where there is none."""
    known = np.isfinite(of_cutoffs)
    return np.where(known, of_cutoffs, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
