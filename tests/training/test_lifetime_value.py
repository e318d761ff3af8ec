"""Lifetime value: the backtest decides between history and booster, and the bounds hold what is then spent."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import numpy as np
import pytest
from numpy.typing import NDArray

from perennial.storage import CheckFailed
from training import datasets, labels, lifetime_value, metrics
from training.lifetime_value import Backtest
from training.models.value_model import ValueModel

from .conftest import TRAINED_AT, World

LATER = date(2025, 1, 1)


@pytest.fixture(scope="module")
def trained(world: World) -> tuple[ValueModel, Backtest]:
    model, backtest = lifetime_value.train(world.data, world.workspace)
    assert backtest is not None
    return model, backtest


@pytest.fixture(scope="module")
def spent(world: World) -> NDArray[np.floating]:
    """By every current customer, in months that no training saw; nan for who never bought."""
    value = labels.outcomes(world.workspace, [TRAINED_AT], LATER).set_index("customer_id")["value"]
    found = value.reindex(world.data.current.customer_ids).fillna(0.0).to_numpy()
    return np.where(np.isnan(world.data.inputs.column(world.data.current.vectors, "T")), np.nan, found)


def judged_by(world: World, weight: float, backtest: Backtest) -> datasets.Dataset:
    """A world in which the latest cutoff's customers spent exactly what the blend of this weight had predicted."""
    *earlier, judge = world.data.closed
    value = np.zeros_like(judge.value)
    value[~np.isnan(world.data.inputs.column(judge.vectors, "T"))] = backtest.by_weight[weight]
    return replace(world.data, closed=(*earlier, replace(judge, value=value)))


@pytest.mark.parametrize("right", [0.0, 0.5, 1.0])
def test_the_backtest_chooses_what_was_right(right: float, world: World, trained: tuple[ValueModel, Backtest]) -> None:
    """Where history alone, both, or the booster alone had foretold the spend, that is what answers."""
    model, backtest = lifetime_value.train(judged_by(world, right, trained[1]), world.workspace)
    assert backtest is not None
    scores = {weight: metrics.ngini(backtest.actual, value) for weight, value in backtest.by_weight.items()}
    assert max(scores, key=lambda weight: scores[weight]) == right
    assert model.weight == backtest.chosen
    assert backtest.chosen == (right if scores[right] - scores[0.5] > 0.01 else 0.5)


def test_the_choice_answers_in_the_figures(trained: tuple[ValueModel, Backtest]) -> None:
    """The recorded figures are those of the chosen blend, beside the naive rule's and the history's."""
    model, backtest = trained
    figures = backtest.figures()
    assert figures["booster_weight"] == model.weight
    assert figures["ngini"] == metrics.ngini(backtest.actual, backtest.by_weight[model.weight])
    assert figures["ngini"] > figures["naive_ngini"]


def test_the_backtest_knows_no_outcome_that_was_open_at_its_date(
    world: World, trained: tuple[ValueModel, Backtest]
) -> None:
    """Taking all spend from cutoffs that closed later than the judged one changes none of its predictions."""
    *earlier, judge = world.data.closed
    other = tuple(replace(c, value=np.zeros_like(c.value)) if (judge.as_of - c.as_of).days < 65 else c for c in earlier)
    _, again = lifetime_value.train(replace(world.data, closed=(*other, judge)), world.workspace)
    assert again is not None
    for weight, predicted in trained[1].by_weight.items():
        np.testing.assert_array_equal(predicted, again.by_weight[weight])


def test_every_value_lies_within_its_bounds(world: World, trained: tuple[ValueModel, Backtest]) -> None:
    """Low, value and high come in that order for everyone who ever bought, and are unknown for everyone else."""
    forecast = trained[0].forecast(world.data.current.vectors)
    bought = ~np.isnan(world.data.inputs.column(world.data.current.vectors, "T"))
    assert (forecast.low[bought] <= forecast.value[bought]).all()
    assert (forecast.value[bought] <= forecast.high[bought]).all()
    assert (forecast.low[bought] >= 0).all()
    assert np.isnan(forecast.value[~bought]).all()


def test_one_in_ten_spends_more_than_the_upper_bound(
    trained: tuple[ValueModel, Backtest], world: World, spent: NDArray[np.floating]
) -> None:
    """In months that no training saw; and at most one in ten less than the lower, which is 0 where many buy nothing."""
    forecast, bought = trained[0].forecast(world.data.current.vectors), ~np.isnan(spent)
    assert (spent > forecast.high)[bought].mean() == pytest.approx(0.1, abs=0.04)
    assert (spent < forecast.low)[bought].mean() < 0.14


def test_without_a_closed_window_the_bounds_are_drawn_from_the_histories(
    world: World, spent: NDArray[np.floating]
) -> None:
    """They then err on the wide side: at most one in ten spends more, and at least eight in ten lie within."""
    model, backtest = lifetime_value.train(replace(world.data, closed=()), world.workspace)
    assert backtest is None
    assert (model.booster, model.weight) == (None, 0)
    forecast, bought = model.forecast(world.data.current.vectors), ~np.isnan(spent)
    assert (spent > forecast.high)[bought].mean() < 0.14
    assert ((spent >= forecast.low) & (spent <= forecast.high))[bought].mean() > 0.8


def test_values_add_up_to_what_was_spent(
    world: World, trained: tuple[ValueModel, Backtest], spent: NDArray[np.floating]
) -> None:
    """The shop as a whole sells what was foretold, give or take a quarter, and the order of customers is right."""
    value, bought = trained[0].value(world.data.current.vectors), ~np.isnan(spent)
    assert value[bought].sum() == pytest.approx(spent[bought].sum(), rel=0.25)
    assert metrics.ngini(spent[bought], value[bought]) > 0.6


def test_fewer_than_a_hundred_buyers_leave_the_history_alone(world: World) -> None:
    """19 buyers in each of five windows teach no booster; 20 do."""
    for buyers, weighed in ((19, False), (20, True)):
        few = [np.where(np.cumsum(c.value > 0) <= buyers, c.value, 0.0) for c in world.data.closed]
        closed = tuple(replace(c, value=value) for c, value in zip(world.data.closed, few, strict=True))
        model, _ = lifetime_value.train(replace(world.data, closed=closed), world.workspace)
        assert (model.booster is not None) == weighed
        assert (model.weight > 0) == weighed


def test_discounting_lowers_the_history_by_the_mean_discount(world: World) -> None:
    """At 20 % a year over 60 days: the mean of 1.2^-t over the window, by hand 0.9852."""
    data = replace(world.data, closed=())
    yearly = world.workspace.lifetime_value.model_copy(update={"discount_rate": 0.2})
    plain, _ = lifetime_value.train(data, world.workspace)
    discounted, _ = lifetime_value.train(data, world.workspace.model_copy(update={"lifetime_value": yearly}))
    ratio = discounted.value(data.current.vectors) / plain.value(data.current.vectors)
    np.testing.assert_allclose(ratio[~np.isnan(ratio)], 0.98516, atol=5e-6)


def test_too_few_who_came_back_are_refused_with_what_to_do(world: World) -> None:
    """Without a history model there is nothing to value with; the sentence says what would help."""
    data = replace(world.data, current=replace(world.data.current, history_model=None))
    with pytest.raises(CheckFailed, match=r"lifetime value cannot be learnt at 2024-07-01: .* collect a longer"):
        lifetime_value.train(data, world.workspace)
