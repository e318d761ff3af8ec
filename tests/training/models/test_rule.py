"""Rules as models: they answer row by row, over any horizon, within bounds, and come back from a file as they were."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from training.models.churn_model import ChurnModel
from training.models.customer_model import Inputs, read_model
from training.models.leaving import Leaving
from training.models.offer_model import FREQUENCY, OfferModel
from training.models.rule import BASE_RATE, Rule
from training.models.value_model import Spread, ValueModel

NAMES = (
    "frequency", "recency", "T", "monetary_value", "spend_first", "days_since_last_purchase", "spend_365d",
    "n_purchases_365d", "n_purchases",
)  # fmt: skip
INPUTS = Inputs(NAMES, NAMES)
NAN = np.nan
# Bought lately, long ago, and never.
ROWS = np.array(
    [[1, 50, 100, 20, 20, 10, 73, 2, 2], [0, 0, 400, NAN, 20, 400, 0, 0, 1], [NAN] * 7 + [0, 0]], dtype=np.float32
)
SILENCE = Rule("silence", "days_since_last_purchase", (5.0, 100.0, 300.0), (0.1, 0.4, 0.9), 1e6)
EVERYBODY = Rule.for_everybody(0.3)
LEAVING = Leaving("inactivity", 60, 0, 365, None, 1)


def churn_by(rule: Rule, kind: str = "inactivity") -> ChurnModel:
    return ChurnModel(INPUTS, None, replace(LEAVING, kind=kind), 60, 400, rule=rule)


def value_by(value: Rule, purchases: Rule) -> ValueModel:
    spread = Spread((10.0,), (0.0,), (30.0,))
    return ValueModel(INPUTS, None, 60, 0.0, 60, {}, spread=spread, rules={"value": value, "purchases": purchases})


PACE = value_by(Rule("pace", "spend_365d", (365.0,), (60.0,)), Rule("pace", "n_purchases_365d", (365.0,), (60.0,)))


def test_a_rule_says_what_its_knots_say() -> None:
    """Straight between knots and level beyond; one knot is a proportion, no feature one answer for all."""
    assert SILENCE(INPUTS, ROWS) == pytest.approx([0.1 + 0.3 * 5 / 95, 0.9, 0.9])
    assert EVERYBODY(INPUTS, ROWS).tolist() == [0.3] * 3
    assert PACE.value(ROWS)[:2] == pytest.approx([12.0, 0.0])


@pytest.mark.parametrize("model", [churn_by(SILENCE), churn_by(EVERYBODY), PACE, value_by(EVERYBODY, EVERYBODY)])
def test_a_rule_is_stored_and_answers_as_before(model: ChurnModel | ValueModel, tmp_path: Path) -> None:
    """All at once or one by one, and read again from its file; who never bought has no answer."""
    model.save(tmp_path)
    again = read_model(type(model), tmp_path)
    ask = ChurnModel.probability if isinstance(model, ChurnModel) else ValueModel.value
    said = ask(model, ROWS)  # type: ignore[arg-type]
    np.testing.assert_array_equal(ask(again, ROWS), said)  # type: ignore[arg-type]
    one_by_one = [ask(model, ROWS[place : place + 1])[0] for place in range(3)]  # type: ignore[arg-type]
    np.testing.assert_array_equal(one_by_one, said)
    assert np.isnan(said).tolist() == [False, False, True]
    assert not model.contributions(ROWS)[1].any()


@pytest.mark.parametrize("rule", [SILENCE, EVERYBODY, Rule.for_everybody(1.0)])
def test_a_rule_carries_to_other_horizons(rule: Rule) -> None:
    """Leaving by silence is rarer in a longer window, a cancellation is not; within 0 and 1 in any case."""
    silent = [churn_by(rule).probability(ROWS[:2], days) for days in (30, 60, 120)]
    assert (np.diff(silent, axis=0) <= 0).all()
    cancelled = [churn_by(rule, "event").probability(ROWS[:2], days) for days in (30, 60, 120)]
    assert (np.diff(cancelled, axis=0) >= 0).all()
    assert all(((column >= 0) & (column <= 1)).all() for column in (*silent, *cancelled))


def test_a_rules_value_has_bounds_and_grows_with_the_horizon() -> None:
    """Twice the days, twice of everything."""
    once, twice = PACE.forecast(ROWS[:2]), PACE.forecast(ROWS[:2], 120)
    assert (once.low <= once.value).all()
    assert (once.value <= once.high).all()
    for name in ("expected_purchases", "value", "low", "high"):
        np.testing.assert_allclose(getattr(twice, name), 2 * np.array(getattr(once, name)))


def test_only_an_order_is_an_order() -> None:
    """One rate for everybody tells nobody apart, and says so."""
    assert churn_by(SILENCE).has_order
    assert not churn_by(EVERYBODY).has_order


def test_a_rule_of_offers_keeps_its_order_and_meets_its_level(tmp_path: Path) -> None:
    """What is bought most often comes first; its probabilities add up to what was bought."""
    names = ("item_n_purchases", "item_n_purchases_365d", "item_days_since_last", "item_buyers_365d")
    random = np.random.default_rng(5)
    often = random.poisson(1.0, 4000).astype(np.float32)
    rows = np.column_stack([often, often, np.where(often > 0, 20, NAN), random.random(4000)]).astype(np.float32)
    bought = (random.random(4000) < 0.05 + 0.15 * np.minimum(often, 5)).astype(float)
    for rule in (FREQUENCY, BASE_RATE):
        model = OfferModel(names, names, 60, "category", None, rule=rule).calibrated(rows, bought)
        model.save(tmp_path / rule)
        said = read_model(OfferModel, tmp_path / rule).probability(rows)
        np.testing.assert_array_equal(said, model.probability(rows))
        assert said.sum() == pytest.approx(bought.sum(), rel=0.01)
    ordered = OfferModel(names, names, 60, "category", None, rule=FREQUENCY).probability(rows)
    assert ordered[often >= 2].min() > ordered[often == 1].max() > ordered[often == 0].max()
