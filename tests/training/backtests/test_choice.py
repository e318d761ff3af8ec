"""Which contender answers: ours, unless another is better beyond noise; nobody claims an order that chance has."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from training.backtests import evaluation, metrics
from training.backtests.backtest import Bounds, Judged
from training.backtests.baselines import Answer, Side
from training.backtests.choice import Choice, chosen
from training.backtests.grade import OF_CHURN, OF_OFFERS, OF_VALUE
from training.backtests.offer_backtest import CHANCE, JudgedOffers
from training.models.rule import BASE_RATE, OURS
from training.models.value_model import Forecast

Floats = NDArray[np.floating]
CUTOFFS, CUSTOMERS = 3, 500
RULE = "last year's rate"


def make_answer(name: str, said: Floats, is_value: bool) -> Answer:
    """A candidate; a value has bounds, here as wide as can be."""
    wide = Forecast(said, said, said, np.zeros(len(said)), np.full(len(said), 1e9)) if is_value else None
    side: Side = "ours" if name == OURS else "aside" if name == BASE_RATE else "naive"
    return Answer(name, side, said, may_answer=True, forecast=wide)


def make_judged(place: int, actual: Floats, said: Mapping[str, Floats], is_value: bool) -> Judged:
    """One judged cutoff; the same customers at each of them."""
    ids = np.array([f"c{number:05}" for number in range(len(actual))], dtype=object)
    answers = tuple(make_answer(name, column, is_value) for name, column in said.items())
    bounds = Bounds(np.zeros(len(actual)), np.full(len(actual), 1e9), 0.8) if is_value else None
    counts = (actual, actual) if is_value else None
    return Judged(date(2024, 1 + place, 1), (date(2023, 1, 1),), ids, actual, answers, {}, (), bounds, counts)


def churn(seed: int, customers: int = CUSTOMERS, **said: Any) -> list[Judged]:
    """Each customer leaves with a chance of their own; `said` maps these chances to what a contender says."""
    random = np.random.default_rng(seed)
    cutoffs = []
    for place in range(CUTOFFS):
        chance = random.beta(2, 2, customers)
        left = (random.random(customers) < chance).astype(float)
        columns = {name: np.clip(say(chance, random), 0.001, 0.999) for name, say in said.items()}
        cutoffs.append(make_judged(place, left, columns | {BASE_RATE: np.full(customers, 0.5)}, False))
    return cutoffs


def value(seed: int, customers: int = CUSTOMERS, **said: Any) -> list[Judged]:
    """As `churn`; amounts are lognormal about what is to be expected of each customer."""
    random = np.random.default_rng(seed)
    cutoffs = []
    for place in range(CUTOFFS):
        expected = random.lognormal(3, 1, customers)
        spent = expected * random.lognormal(-0.5, 1, customers) * (random.random(customers) < 0.6) / 0.6
        columns = {name.replace("_", " "): say(expected, random) for name, say in said.items()}
        cutoffs.append(make_judged(place, spent, columns | {BASE_RATE: np.full(customers, spent.mean())}, True))
    return cutoffs


def as_it_is(known: Floats, random: np.random.Generator) -> Floats:
    return known


def by_chance(known: Floats, random: np.random.Generator) -> Floats:
    return random.permutation(known)


def times(factor: float) -> Any:
    return lambda known, random: known * factor


def test_ngini_of_draws_is_ngini_of_the_drawn_rows() -> None:
    """Weighing each row by how often it was drawn gives what the drawn rows give, ties and all."""
    random = np.random.default_rng(3)
    actual, said = random.gamma(1.0, 2.0, 60), random.integers(0, 9, 60).astype(float)
    drawn = random.integers(60, size=(5, 60))
    often = np.stack([np.bincount(rows, minlength=60) for rows in drawn])
    wanted = [metrics.ngini(actual[rows], said[rows]) for rows in drawn]
    assert metrics.ngini_of_draws(actual, said, often) == pytest.approx(wanted)


def test_ours_answers_unless_another_is_better_beyond_noise() -> None:
    """A rule that is a hair better, as chance may have it, takes no one's place: neither in order nor in level."""
    for seed in range(10):
        near = churn(seed, **{OURS: as_it_is, RULE: lambda p, random: p + random.normal(0, 0.02, len(p))})
        assert chosen(OF_CHURN, near, 7) == Choice()


def test_a_rule_of_a_better_order_answers() -> None:
    """Beyond noise: a model that has learnt accidents gives way, and says to whom and by how much."""
    choice = chosen(OF_CHURN, churn(1, **{OURS: lambda p, random: random.permutation(p), RULE: as_it_is}), 7)
    assert choice.name == RULE
    assert choice.reason.startswith(f"{RULE} answers, not {OURS}: its order is 0.")


def test_where_the_orders_are_alike_the_better_level_answers() -> None:
    """A total off by 164 % gives way to one off by 10 % of the same order, whichever of them is ours."""
    off, near = times(2.64), times(1.1)
    assert chosen(OF_VALUE, value(1, **{OURS: off, "last_year's_rate": near}), 7).name == RULE
    assert chosen(OF_VALUE, value(1, **{OURS: near, "last_year's_rate": off}), 7).name == OURS


def test_probabilities_at_the_wrong_level_give_way_too() -> None:
    """Of the same order, the rule whose probabilities come true answers."""
    assert chosen(OF_CHURN, churn(1, **{OURS: lambda p, _: p / 3, RULE: as_it_is}), 7).name == RULE


def test_no_amount_is_shown_where_every_level_is_too_far_off() -> None:
    """The order stays; the sentence says by how much, and how much is allowed."""
    choice = chosen(OF_VALUE, value(1, **{OURS: times(2.64), "last_year's_rate": times(3.0)}), 7)
    assert choice.name == OURS
    assert not choice.no_skill
    assert "more than the 60% allowed" in choice.withheld
    assert "the total is off by" in choice.withheld
    assert OF_VALUE.furthest == 0.60


def test_a_worse_order_with_amounts_answers_before_a_better_one_without() -> None:
    """While any contender with an order is near enough in its level, amounts are shown."""
    rough = {"last_year's_rate": lambda v, random: v * random.lognormal(-0.5, 1, len(v))}
    choice = chosen(OF_VALUE, value(1, **{OURS: times(2.64), **rough}), 7)
    assert (choice.name, choice.withheld) == (RULE, "")


@pytest.mark.parametrize("shop", [churn, value])
def test_nobody_claims_skill_on_shuffled_outcomes(shop: Any) -> None:
    """In 40 shops where chance alone decides who does what, the base rate answers every time and the grade is none."""
    for seed in range(40):
        measures = OF_CHURN if shop is churn else OF_VALUE
        said = {OURS: by_chance, "last_year's_rate": by_chance, "histories": by_chance, "silence": by_chance}
        judged = shop(seed, **said)
        choice = chosen(measures, judged, seed)
        assert choice.name == BASE_RATE, seed
        assert choice.no_skill.startswith("no skill: "), seed
        grade = evaluation.grade(measures, judged)
        assert grade.letter == "none"
        assert grade.reason.startswith("no skill: ")


def test_skill_is_seen_where_there_is_some() -> None:
    """A modest order on the fewest outcomes that are judged is told from chance."""
    modest = {OURS: lambda p, random: np.clip(p + random.normal(0, 0.1, len(p)), 0, 1)}
    assert not chosen(OF_CHURN, churn(2, customers=90, **modest), 7).no_skill


def test_too_few_outcomes_judge_nobody() -> None:
    """Without a hundred outcomes of either kind nothing is said of skill, and ours answers."""
    assert chosen(OF_CHURN, churn(2, customers=60, **{OURS: by_chance, RULE: by_chance}), 7) == Choice()


def test_who_answers_is_no_rival_of_its_own() -> None:
    """A rule that answers leaves the naive rules, and the model that lost is none of them."""
    [first, *_] = churn(1, **{OURS: by_chance, RULE: as_it_is})
    led = first.answered_by(RULE)
    assert [(answer.name, answer.side) for answer in led.answers] == [
        (RULE, "ours"), (OURS, "aside"), (BASE_RATE, "aside")]  # fmt: skip


def offers(seed: int, skill: float) -> list[JudgedOffers]:
    """Lists of five for 300 customers; ours finds `skill` more of what was bought than a random order does."""
    random = np.random.default_rng(seed)
    cutoffs = []
    for place in range(2):
        ids = np.array([f"c{number:05}" for number in range(300)], dtype=object)
        bought = (random.random(3000) < 0.2).astype(float)
        said = np.full(3000, 0.2)
        by_customer = {
            name: {"ndcg5": np.clip(random.beta(2, 6, 300) + more, 0, 1)}
            for name, more in ((OURS, skill), (BASE_RATE, 0.0), (CHANCE, 0.0))
        }
        answers = (
            Answer(OURS, "ours", said, may_answer=True), Answer(BASE_RATE, "naive", said, may_answer=True),
            Answer(CHANCE, "naive", said, is_level=False),
        )  # fmt: skip
        cutoffs.append(JudgedOffers(date(2024, 1 + place, 1), (), ids, bought, answers, {}, by_customer))
    return cutoffs


def test_offers_claim_skill_only_beyond_a_random_order() -> None:
    """Random lists are no skill in 20 shops; lists a little better than that are one."""
    assert all(chosen(OF_OFFERS, offers(seed, 0.0), seed).no_skill for seed in range(20))
    assert chosen(OF_OFFERS, offers(1, 0.1), 7) == Choice()
