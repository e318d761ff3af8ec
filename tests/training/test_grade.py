"""Grades at the edges of their rules: order and level, mean and worst, against naive rules and the field's models."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any

import pytest

from training.grade import ERRORS, RULES, Outcomes, graded
from training.scoreboard import Contender, Scoreboard, Spread

ENOUGH = Outcomes(500, 500)
DAYS = tuple(date(2024, month, 1) for month in (1, 2, 3, 4))


def make_board(learnt_from: int = 6, **figures: Sequence[float]) -> Scoreboard:
    """Churn at as many cutoffs as there are values: `auc`, `brier`, `ece` ours; `naive_auc`, `btyd_brier` a rival's."""
    at = len(next(iter(figures.values())))
    kinds: dict[str, dict[str, Spread]] = {"ours": {}, "naive": {}, "btyd": {}}
    for name, each in figures.items():
        kind, _, metric = name.partition("_") if name.startswith(("naive", "btyd")) else ("ours", "", name)
        kinds[kind][metric] = Spread.of(metric, each)
    contenders = tuple(Contender(kind, kind, found, {}) for kind, found in kinds.items() if found)  # type: ignore[arg-type]
    taught = tuple(DAYS[:1] * learnt_from for _ in range(at))
    return Scoreboard(DAYS[:at], taught, (1000,) * at, contenders, (), {}, {})


def make_good(**changed: Any) -> Scoreboard:
    """An A with nothing to spare: naive auc .6, the rule's 5 % of the way to 1; as exact as allowed."""
    figures: dict[str, Any] = {
        "auc": [0.63, 0.60, 0.63], "brier": [0.2] * 3, "ece": [0.02, 0.02, 0.10],
        "naive_auc": [0.6] * 3, "naive_brier": [0.2] * 3, "btyd_auc": [0.62] * 3, "btyd_brier": [0.2] * 3,
    }  # fmt: skip
    return make_board(**(figures | changed))


def letter(**changed: Any) -> str:
    return graded("churn", make_good(**changed), ENOUGH).letter


def test_an_a_beats_the_naive_rule_everywhere_and_is_exact() -> None:
    """Mean gain of 5 % of the way to perfection, no cutoff behind, ece of 0.05 on average and 0.10 at the worst."""
    grade = graded("churn", make_good(auc=[0.631, 0.60, 0.631]), ENOUGH)
    assert grade.letter == "A"
    assert "auc 0.621 on average over 3 cutoffs, 0.600 at the worst" in grade.reason
    assert "the best naive rule has 0.600" in grade.reason
    assert "not A" not in grade.reason


@pytest.mark.parametrize(
    ("changed", "held_back"),
    [
        ({"auc": [0.63, 0.60, 0.627]}, "its order is"),
        ({"auc": [0.65, 0.599, 0.65]}, "a naive rule has auc 0.600 at 2024-02-01, this model 0.599"),
        ({"auc": [0.65] * 3, "btyd_auc": [0.655] * 3}, "a purchase-history model has auc 0.655"),
        ({"auc": [0.65] * 3, "brier": [0.201] * 3}, "a naive rule has brier 0.200, this model 0.201"),
        ({"auc": [0.65] * 3, "btyd_brier": [0.19] * 3}, "a purchase-history model has brier 0.190"),
        ({"auc": [0.65] * 3, "ece": [0.051] * 3}, "probabilities are off by more than 5% on average"),
        ({"auc": [0.65] * 3, "ece": [0.01, 0.01, 0.101]}, "probabilities are off by more than 10% at 2024-03-01"),
    ],
)  # fmt: skip
def test_one_failing_condition_takes_the_a_and_is_named(changed: dict[str, Any], held_back: str) -> None:
    """Order alone, or level alone, or a good mean over one bad cutoff, is never enough."""
    grade = graded("churn", make_good(**changed), ENOUGH)
    assert grade.letter == "B"
    assert f"not A: {held_back}" in grade.reason


def test_a_good_order_with_a_wrong_level_is_nothing() -> None:
    """Nor is a right level with an order no better than the naive rule's by more than the tolerance."""
    assert letter(auc=[0.95] * 3, ece=[0.13] * 3) == "none"
    assert letter(auc=[0.95] * 3, ece=[0.01, 0.01, 0.21]) == "none"
    assert letter(auc=[0.599] * 3, ece=[0.0] * 3, brier=[0.1] * 3, btyd_auc=[0.5] * 3) == "none"
    assert letter(auc=[0.6001] * 3, ece=[0.0] * 3, brier=[0.1] * 3, btyd_auc=[0.5] * 3) == "C"


def test_fewer_cutoffs_prove_less() -> None:
    """The same figures at three, two and one cutoffs are an A, a B and a C."""
    best = {"auc": 0.9, "brier": 0.1, "ece": 0.01, "naive_auc": 0.6, "naive_brier": 0.2}
    found = [graded("churn", make_board(**{n: [v] * k for n, v in best.items()}), ENOUGH).letter for k in (3, 2, 1)]
    assert found == ["A", "B", "C"]


def test_figures_that_are_not_defined_meet_no_rule() -> None:
    """An area without both kinds of outcome, or an error that nobody knows, is no reason to trust."""
    nan = float("nan")
    assert letter(auc=[nan] * 3) == "none"
    assert letter(auc=[0.9] * 3, ece=[nan] * 3) == "none"


def test_the_total_counts_in_either_direction() -> None:
    """Too much at one cutoff and too little at the next does not even out."""
    good = {"ngini": [0.8] * 3, "decile_wape": [0.1] * 3, "naive_ngini": [0.7] * 3, "naive_decile_wape": [0.3] * 3}
    exact = make_board(**good, bias=[0.05, -0.05, 0.05], coverage=[0.8] * 3)
    even = make_board(**good, bias=[0.5, -0.5, 0.0], coverage=[0.8] * 3)
    short = make_board(**good, bias=[0.0] * 3, coverage=[0.74] * 3)
    assert [graded("lifetime_value", board, ENOUGH).letter for board in (exact, even, short)] == ["A", "C", "B"]


def test_ninety_nine_outcomes_of_a_kind_are_too_few() -> None:
    """Chance then decides who looks better; the reason counts them."""
    grade = graded("churn", make_good(auc=[0.9] * 3), Outcomes(99, 901))
    assert grade.letter == "none"
    assert "99 of 1,000 outcomes at the judged cutoffs are of one kind; at least 100" in grade.reason
    assert graded("churn", make_good(auc=[0.9] * 3), Outcomes(100, 900)).letter == "A"


def test_a_model_judged_in_a_simpler_form_gets_a_c_at_most() -> None:
    """Where a judged cutoff had only histories to learn from, it says little of a model that learnt from outcomes."""
    board = make_good(auc=[0.9] * 3, learnt_from=0)
    grade = graded("churn", board, ENOUGH)
    assert grade.letter == "C"
    assert "learnt from purchase histories alone" in grade.reason
    assert graded("churn", board, ENOUGH, simpler="learnt from purchase histories alone, since it is new").letter == "A"


def test_nothing_judged_is_no_grade_and_says_so() -> None:
    """With the reason why the model is the simpler one."""
    grade = graded("churn", None, Outcomes(0, 0), "learnt from purchase histories alone, since it is new")
    assert grade.letter == "none"
    assert grade.reason == "no earlier date could be judged; learnt from purchase histories alone, since it is new"


@pytest.mark.parametrize(("better", "worse"), [("A", "B"), ("B", "C")])
def test_every_rule_asks_for_more_than_the_next(better: str, worse: str) -> None:
    """A better letter is never easier to get in any column of the tables."""
    first, second = RULES[better], RULES[worse]  # type: ignore[index]
    assert all(a >= b for a, b in zip(first[:-1], second[:-1], strict=True))
    assert first.shortfall <= second.shortfall
    for limits in ERRORS.values():
        assert all(a < b for a, b in zip(limits[better], limits[worse], strict=True))  # type: ignore[index]
