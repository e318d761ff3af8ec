"""Grades at the edges of their rules: order and level, mean and worst, against naive rules and the field's models."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from training.backtests.grade import OF_CHURN, OF_OFFERS, OF_VALUE, RULES, Letter, Outcomes, graded
from training.backtests.scoreboard import Contender, Scoreboard, Spread

ENOUGH = Outcomes(500, 500)
DAYS = tuple(date(2024, month, 1) for month in (1, 2, 3, 4))


def make_board(
    learnt_from: int = 6, ahead: tuple[float, float] = (-0.1, 0.1), stated: float = 0.8, **figures: Sequence[float]
) -> Scoreboard:
    """At as many cutoffs as there are values: `auc`, `brier`, `ece` ours; `naive_auc`, `btyd_brier` a rival's.

    ahead: what chance makes of ours less the purchase-history model's order; stated: what bounds are to hold.
    """
    at = len(next(iter(figures.values())))
    sides: dict[str, dict[str, Spread]] = {"ours": {}, "naive": {}, "btyd": {}}
    for name, each in figures.items():
        side, _, metric = name.partition("_") if name.startswith(("naive", "btyd")) else ("ours", "", name)
        sides[side][metric] = Spread.of(metric, each)
    if "coverage" in figures:
        sides["ours"]["coverage_stated"] = Spread.of("coverage_stated", [stated] * at)
    drawn = {metric: Spread(0.0, 0.0, 0.0, (0.0,) * at, *ahead) for metric in ("auc", "ngini")}
    contenders = tuple(Contender(side, side, spread, drawn) for side, spread in sides.items() if spread)  # type: ignore[arg-type]
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
    return graded(OF_CHURN, make_good(**changed), ENOUGH).letter


def test_an_a_beats_the_naive_rule_everywhere_and_is_exact() -> None:
    """Mean gain of 5 % of the way to perfection, no cutoff behind, ece of 0.05 on average and 0.10 at the worst."""
    grade = graded(OF_CHURN, make_good(auc=[0.631, 0.60, 0.631]), ENOUGH)
    assert grade.letter == "A"
    assert grade.reason == (
        "its order of customers (auc) is 0.621 on average over 3 cutoffs, 0.600 at the worst. The best naive rule has"
        " 0.600. Probabilities are off by 4.7 points on average, 10.0 points at the worst"
    )


@pytest.mark.parametrize(
    ("changed", "held_back"),
    [
        ({"auc": [0.63, 0.60, 0.627]}, "its order is 4.8% of the way from the best naive rule's to a perfect one, not"
         " 5%"),
        ({"auc": [0.65, 0.599, 0.65]}, "a naive rule's order of customers (auc) is 0.600 at 2024-02-01, this model's"
         " 0.599"),
        ({"auc": [0.65] * 3, "btyd_auc": [0.655] * 3}, "a purchase-history model's order of customers (auc) is 0.655"),
        ({"auc": [0.65] * 3, "brier": [0.201] * 3}, "a naive rule's squared error (brier) is 0.200, this model's"
         " 0.201"),
        ({"auc": [0.65] * 3, "btyd_brier": [0.19] * 3}, "a purchase-history model's squared error (brier) is 0.190"),
        ({"auc": [0.65] * 3, "ece": [0.051] * 3}, "probabilities are off by more than 5 points on average"),
        ({"auc": [0.65] * 3, "ece": [0.01, 0.01, 0.101]}, "probabilities are off by more than 10 points at 2024-03-01"),
        ({"auc": [0.65] * 3, "btyd_auc": [0.651] * 3, "ahead": (-0.002, -0.0001)},
         "a purchase-history model's order of customers (auc) is 0.651, better beyond noise"),
    ],
)  # fmt: skip
def test_one_failing_condition_takes_the_a_and_is_named(changed: dict[str, Any], held_back: str) -> None:
    """Order alone, or level alone, or a good mean over one bad cutoff, is never enough."""
    grade = graded(OF_CHURN, make_good(**changed), ENOUGH)
    assert grade.letter == "B"
    assert f"It is not A: {held_back}" in grade.reason


def test_a_good_order_with_a_wrong_level_is_nothing() -> None:
    """Nor is a right level with an order no better than the naive rule's by more than the tolerance."""
    assert letter(auc=[0.95] * 3, ece=[0.13] * 3) == "none"
    assert letter(auc=[0.95] * 3, ece=[0.01, 0.01, 0.21]) == "none"
    assert letter(auc=[0.599] * 3, ece=[0.0] * 3, brier=[0.1] * 3, btyd_auc=[0.5] * 3) == "none"
    assert letter(auc=[0.6001] * 3, ece=[0.0] * 3, brier=[0.1] * 3, btyd_auc=[0.5] * 3) == "C"


def test_fewer_cutoffs_prove_less() -> None:
    """The same figures at three, two and one cutoffs are an A, a B and a C."""
    best = {"auc": 0.9, "brier": 0.1, "ece": 0.01, "naive_auc": 0.6, "naive_brier": 0.2}
    letters = [graded(OF_CHURN, make_board(**{n: [v] * k for n, v in best.items()}), ENOUGH).letter for k in (3, 2, 1)]
    assert letters == ["A", "B", "C"]


def test_figures_that_are_not_defined_meet_no_rule() -> None:
    """An area without both kinds of outcome, or an error that nobody knows, is no reason to trust."""
    nan = float("nan")
    assert letter(auc=[nan] * 3) == "none"
    assert letter(auc=[0.9] * 3, ece=[nan] * 3) == "none"
    for name, words in (("auc", "order of customers (auc)"), ("ece", "error (ece)")):
        found = graded(OF_CHURN, make_good(**({"auc": [0.9] * 3} | {name: [0.05, nan, nan]})), ENOUGH)
        assert found.letter == "none"
        assert found.reason.endswith(f". It is not C: its {words} is not defined at 2024-02-01, 2024-03-01")
    assert letter(auc=[0.65] * 3, brier=[nan] * 3) == "none"
    assert letter(auc=[0.65] * 3, btyd_auc=[0.651] * 3, ahead=(nan, nan)) == "B"


def test_the_total_counts_in_either_direction() -> None:
    """Too much at one cutoff and too little at the next does not even out."""
    good = {"ngini": [0.8] * 3, "decile_wape": [0.1] * 3, "naive_ngini": [0.7] * 3, "naive_decile_wape": [0.3] * 3}
    exact = make_board(**good, bias=[0.05, -0.05, 0.05], coverage=[0.8] * 3)
    even = make_board(**good, bias=[-0.5, 0.5, 0.0], coverage=[0.8] * 3)
    assert [graded(OF_VALUE, board, ENOUGH).letter for board in (exact, even)] == ["A", "C"]
    reason = graded(OF_VALUE, even, ENOUGH).reason
    assert "The total is off by 33.3% on average, 50.0% at the worst" in reason
    assert (
        "not B: the total is off by more than 20% on average. The total is off by more than 40% at 2024-01-" in reason
    )


@pytest.mark.parametrize(("stated", "held", "letter"), [
    (0.8, 0.751, "A"), (0.8, 0.749, "B"), (0.5, 0.46, "A"), (0.5, 0.45, "A"), (0.5, 0.44, "B"), (0.95, 0.89, "B"),
    (0.95, 0.801, "C"), (0.95, 0.79, "none"),
])  # fmt: skip
def test_bounds_are_held_to_what_they_state(stated: float, held: float, letter: str) -> None:
    """Whatever share the workspace asks its bounds to hold, five points fewer are the most for an A."""
    figures = {"ngini": [0.8] * 3, "decile_wape": [0.1] * 3, "naive_ngini": [0.7] * 3, "naive_decile_wape": [0.3] * 3,
               "bias": [0.0] * 3, "coverage": [held] * 3}  # fmt: skip
    grade = graded(OF_VALUE, make_board(stated=stated, **figures), ENOUGH)
    assert grade.letter == letter
    told = f"{held:.1%} of the customers lie within bounds that should hold {stated:.0%}"
    assert (told in grade.reason) is (letter != "A")


def test_ninety_nine_outcomes_of_a_kind_are_too_few() -> None:
    """Chance then decides who looks better; the reason counts them."""
    grade = graded(OF_CHURN, make_good(auc=[0.9] * 3), Outcomes(99, 901))
    assert grade.letter == "none"
    assert "99 of 1,000 outcomes at the judged cutoffs are of one kind. At least 100" in grade.reason
    assert graded(OF_CHURN, make_good(auc=[0.9] * 3), Outcomes(100, 900)).letter == "A"


def test_a_model_judged_in_a_simpler_form_gets_a_c_at_most() -> None:
    """Where a judged cutoff had only histories to learn from, it says little of a model that learnt from outcomes."""
    board = make_good(auc=[0.9] * 3, learnt_from=0)
    grade = graded(OF_CHURN, board, ENOUGH)
    assert grade.letter == "C"
    assert "learnt from purchase histories alone" in grade.reason
    assert (
        graded(OF_CHURN, board, ENOUGH, simpler="learnt from purchase histories alone, since it is new").letter == "A"
    )
    assert "It is not B: a judged cutoff had to be learnt from purchase histories alone" in grade.reason
    mixed = Scoreboard(board.as_of, ((DAYS[0],), (), (DAYS[0],)), *(getattr(board, name) for name in (
        "customers", "contenders", "missing", "segments", "segment_customers")))  # fmt: skip
    assert graded(OF_CHURN, mixed, ENOUGH).letter == "C"


def test_nothing_judged_is_no_grade_and_says_so() -> None:
    """With the reason why the model is the simpler one."""
    grade = graded(OF_CHURN, None, Outcomes(0, 0), "learnt from purchase histories alone, since it is new")
    assert grade.letter == "none"
    assert grade.reason == "no earlier date could be judged. Learnt from purchase histories alone, since it is new"


@pytest.mark.parametrize(("better", "worse"), [("A", "B"), ("B", "C")])
def test_every_rule_asks_for_more_than_the_next(better: str, worse: str) -> None:
    """A better letter is never easier to get in any column of the tables."""
    first, second = RULES[better], RULES[worse]  # type: ignore[index]
    assert all(a >= b for a, b in zip(first[:-1], second[:-1], strict=True))
    assert RULES["A"].btyd_noise
    assert first.shortfall <= second.shortfall
    for limits in (measures.limits for measures in KINDS.values()):
        assert all(a < b for a, b in zip(limits[better], limits[worse], strict=True))  # type: ignore[index]


KINDS = {"churn": OF_CHURN, "lifetime_value": OF_VALUE, "cross_sell": OF_OFFERS}
MEANT = {"churn": ("auc", "brier", "ece"), "lifetime_value": ("ngini", "decile_wape", "bias")}
CONDITIONS = ("order", "worst_order", "level", "btyd_order", "btyd_level", "mean", "worst", "cutoffs")


def at_the_edge(kind: str, letter: Letter, missed: str = "") -> Scoreboard:
    """Every condition of a letter met by a millionth, and one missed by as much."""
    order, level, error = MEANT[kind]
    rule, limits = RULES[letter], KINDS[kind].limits[letter]
    by = dict.fromkeys(CONDITIONS, 1e-6) | ({missed: -1e-6} if missed else {})
    at = 3 if missed != "cutoffs" else rule.cutoffs - 1
    ways = [rule.order + by["order"]] * 3
    if missed != "order":  # the worst cutoff at its own edge, and the mean kept
        lowest = rule.worst_order + by["worst_order"]
        ways = [lowest, *[(3 * ways[0] - lowest) / 2] * 2]
    ours = [0.6 + 0.4 * way for way in ways]
    behind = rule.btyd_order + by["btyd_order"]
    errors = [limits.worst - by["worst"], *[(3 * (limits.mean - by["mean"]) - limits.worst + by["worst"]) / 2] * 2]
    figures = {
        order: ours, f"naive_{order}": [0.6] * 3, level: [0.2] * 3, error: [-errors[0], *errors[1:]],
        f"naive_{level}": [0.2 / (1 - rule.level - by["level"])] * 3,
        f"btyd_{order}": [(sum(ours) / 3 - behind) / (1 - behind)] * 3,
        f"btyd_{level}": [0.2 / (1 - rule.btyd_level - by["btyd_level"])] * 3,
    }  # fmt: skip
    return make_board(**{name: each[:at] for name, each in figures.items()})


@pytest.mark.parametrize("kind", MEANT)
@pytest.mark.parametrize("letter", RULES)
def test_each_condition_alone_decides(kind: str, letter: Letter) -> None:
    """All of a letter's conditions met by a hair give it; any one missed by a hair does not."""
    assert graded(KINDS[kind], at_the_edge(kind, letter), ENOUGH).letter == letter
    for missed in CONDITIONS[: len(CONDITIONS) - (letter == "C")]:
        grade = graded(KINDS[kind], at_the_edge(kind, letter, missed), ENOUGH)
        assert [*RULES, "none"].index(grade.letter) > [*RULES].index(letter), (missed, grade.reason)


def test_an_a_may_be_behind_a_purchase_history_model_by_chance_only() -> None:
    """The reason then shows the other's order; beyond noise, or not known to be chance, it is a B."""
    behind: dict[str, Any] = {"auc": [0.65] * 3, "btyd_auc": [0.651] * 3}
    grade = graded(OF_CHURN, make_good(**behind, ahead=(-0.003, 0.0)), ENOUGH)
    assert grade.letter == "A"
    assert "The best naive rule has 0.600. The best purchase-history model has 0.651. Prob" in grade.reason
    assert letter(**behind, ahead=(-0.003, -0.001)) == "B"
    assert letter(**(behind | {"btyd_auc": [0.64, 0.64, 0.66]}), ahead=(-0.003, -0.001)) == "A"
    equal = make_good(auc=[0.65] * 3, btyd_auc=[0.65] * 3, ahead=(-0.003, -0.001))
    assert graded(OF_CHURN, equal, ENOUGH).letter == "A"
    assert "purchase-history" not in graded(OF_CHURN, equal, ENOUGH).reason


def test_a_limit_that_is_just_reached_is_met() -> None:
    """Errors of just the most that is allowed, an order just as far behind, two judged cutoffs for a B."""
    board = make_board(auc=[0.9] * 2, brier=[0.1] * 2, ece=[0.08] * 2, naive_auc=[0.6] * 2)
    grade = graded(OF_CHURN, board, ENOUGH)
    assert grade.letter == "B"
    assert grade.reason.startswith(
        "its order of customers (auc) is 0.900 on average over 2 cutoffs, 0.900 at the worst"
    )
    assert graded(OF_CHURN, make_board(auc=[0.9] * 2, brier=[0.1] * 2, ece=[0.15, 0.0]), ENOUGH).letter == "B"
    value = {"decile_wape": [0.1] * 2, "bias": [0.0] * 2, "naive_ngini": [-0.5] * 2, "btyd_ngini": [0.0] * 2}
    assert graded(OF_VALUE, make_board(ngini=[-0.02] * 2, **value), ENOUGH).letter == "B"
    same = {"auc": [0.6] * 2, "brier": [0.2] * 2, "ece": [0.0] * 2, "naive_auc": [0.6] * 2, "naive_brier": [0.16] * 2}
    assert graded(OF_CHURN, make_board(**same), ENOUGH).letter == "none"
    assert graded(OF_CHURN, make_board(**same | {"naive_brier": [0.2] * 2}), ENOUGH).letter == "C"
    assert graded(OF_CHURN, make_board(**same | {"brier": [0.0] * 2, "naive_brier": [0.0] * 2}), ENOUGH).letter == "C"


def test_only_purchase_history_models_are_held_to_noise() -> None:
    """A naive rule that is better has sentences of its own, and a model without an order is no rival in it."""
    board = make_good(auc=[0.59] * 3, ahead=(-0.003, -0.001), btyd_auc=[0.5] * 3)
    assert "beyond noise" not in graded(OF_CHURN, board, ENOUGH).reason
    level = Contender("level alone", "btyd", {"brier": Spread.of("brier", [0.3] * 3)}, {})
    made = Scoreboard(board.as_of, board.learnt_from, board.customers, (*make_good(auc=[0.65] * 3).contenders, level),
                      (), {}, {})  # fmt: skip
    assert graded(OF_CHURN, made, ENOUGH).letter == "A"


def test_every_purchase_history_model_is_looked_at() -> None:
    """One that is behind ours, or whose advantage is chance, excuses none of the others."""
    board = make_good(auc=[0.65] * 3, btyd_auc=[0.651] * 3)
    one = board.contenders[2]
    worse = Contender("worse", "btyd", {"auc": Spread.of("auc", [0.5] * 3)}, {})
    better = Contender("better", "btyd", {"auc": Spread.of("auc", [0.652] * 3)},
                       {"auc": Spread(-0.002, 0.0, -0.002, (-0.002,) * 3, -0.003, -0.001)})  # fmt: skip
    for others, letter in (((one,), "A"), ((worse, one), "A"), ((worse, one, better), "B"), ((better, worse), "B")):
        made = Scoreboard(board.as_of, board.learnt_from, board.customers, (*board.contenders[:2], *others), (), {}, {})
        grade = graded(OF_CHURN, made, ENOUGH)
        assert grade.letter == letter
    other = Contender("other", "btyd", {"auc": Spread.of("auc", [0.651] * 3)}, better.ahead)
    for pair in ((better, other), (other, better)):
        made = Scoreboard(board.as_of, board.learnt_from, board.customers, (*board.contenders[:2], *pair), (), {}, {})
        assert "(auc) is 0.652, better beyond noise" in graded(OF_CHURN, made, ENOUGH).reason


def test_without_any_rival_order_and_level_stand_alone() -> None:
    """The error and the number of cutoffs still decide."""
    grade = graded(OF_CHURN, make_board(auc=[0.7] * 3, brier=[0.2] * 3, ece=[0.06] * 3), ENOUGH)
    assert grade.reason == (
        "its order of customers (auc) is 0.700 on average over 3 cutoffs, 0.700 at the worst. Probabilities are off by"
        " 6.0 points on average, 6.0 points at the worst. It is not A: probabilities are off by more than 5 points on"
        " average"
    )
    alone = graded(OF_CHURN, make_board(auc=[0.7], brier=[0.2], ece=[0.01], btyd_auc=[0.71]), ENOUGH)
    assert alone.reason.startswith(
        "its order of customers (auc) is 0.700 at one cutoff. The best purchase-history model has 0.710. Prob"
    )


def test_a_rival_that_is_perfect_is_not_divided_by() -> None:
    """Its order of 1, or its error of 0, leaves no way to go: ours is behind by what it lacks."""
    assert letter(auc=[0.99] * 3, naive_auc=[1.0] * 3, btyd_auc=[0.5] * 3) == "none"
    assert letter(auc=[1.0] * 3, naive_auc=[1.0] * 3, btyd_auc=[0.5] * 3) == "C"
    assert letter(auc=[0.9] * 3, naive_brier=[0.0] * 3, btyd_brier=[0.2] * 3) == "none"
    assert letter(auc=[0.9] * 3, brier=[0.0] * 3, naive_brier=[0.0] * 3, btyd_brier=[0.2] * 3) == "A"


def test_offers_are_graded_by_the_order_of_lists_and_their_error() -> None:
    """Whatever the length of the list, and with an error that is a share of the mean."""
    board = make_board(
        recall7=[0.5] * 3, ndcg7=[0.8] * 3, ndcg7_basket=[0.1] * 3, relative_ece=[0.2, 0.1, 0.3], naive_ndcg7=[0.7] * 3
    )
    grade = graded(OF_OFFERS, board, ENOUGH)
    assert grade.letter == "B"
    assert grade.reason == (
        "its order of offers (ndcg7) is 0.800 on average over 3 cutoffs, 0.800 at the worst. The best naive rule has"
        " 0.700. Probabilities are off by 20.0% of their mean on average, 30.0% at the worst. It is not A:"
        " probabilities are off by more than 15% of their mean on average"
    )


def test_outcomes_are_counted_over_all_cutoffs() -> None:
    """What came and what did not, spend being above nothing; a refund is no purchase."""
    assert Outcomes.of([np.array([1.0, 0.0, 1.0]), np.array([12.5, 0.0, -3.0, 0.0])]) == (3, 4)
    assert Outcomes.of([]).are_too_few
    assert Outcomes(99, 500).are_too_few
    assert Outcomes(500, 99).are_too_few
    assert not Outcomes(100, 100).are_too_few


def test_doubts_are_told_with_any_grade() -> None:
    """Beside the reason, also where there is no grade."""
    told = ". Nothing can be said of p_alive here: a and b are open"
    assert graded(OF_CHURN, make_good(), ENOUGH, dropout_doubt="a and b are open").reason.endswith(told)
    assert graded(OF_CHURN, None, ENOUGH, "it is new", "a and b are open").reason.endswith(f". It is new{told}")
    assert graded(OF_CHURN, make_good(), Outcomes(1, 2), "it is new").reason.endswith(". It is new")
    assert graded(OF_CHURN, make_good(ece=[0.5] * 3), ENOUGH, "it is new").reason.endswith(". It is new")


def test_the_page_of_models_has_every_rule() -> None:
    """The tables in the documentation are those that grades are given by."""
    text = (Path(__file__).parents[3] / "docs" / "models.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.strip("| \n").split("|")] for line in text.splitlines() if line[:1] == "|"]
    for letter, rule in RULES.items():
        shares = [per_cent(share) for share in (
            rule.order, rule.worst_order, rule.level, rule.btyd_order, rule.btyd_level)]  # fmt: skip
        noise = "no" if rule.btyd_noise else "yes"
        assert [letter, str(rule.cutoffs), *shares, points(rule.shortfall), noise] in rows
        errors = [per_cent(error) for of in (OF_VALUE, OF_OFFERS) for error in of.limits[letter]]
        assert [letter, *map(points, OF_CHURN.limits[letter]), *errors] in rows


def per_cent(share: float) -> str:
    return f"{100 * share:.6g}%".replace("-", "−")


def points(share: float) -> str:
    return f"{100 * share:.6g} points"
