"""Lifetime value: the model orders customers, adds up to what the shop sells, and is bounded by what then comes."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import date

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.training.conftest import TRAINED_AT, World
from training.backtests import metrics
from training.learning import labels, lifetime_value
from training.learning.datasets import Cutoff
from training.models.value_model import Spread, ValueModel
from workspace.storage import CheckFailed

LATER = date(2025, 1, 1)


def fitted(world: World, closed: tuple[Cutoff, ...] | None = None, **changes: object) -> ValueModel:
    closed = world.data.closed if closed is None else closed
    settings = world.workspace.lifetime_value.model_copy(update=changes)
    return lifetime_value.fit(
        world.data, world.workspace.model_copy(update={"lifetime_value": settings}), closed, world.data.current
    )


@pytest.fixture(scope="module")
def model(world: World) -> ValueModel:
    return fitted(world)


@pytest.fixture(scope="module")
def spent(world: World) -> NDArray[np.floating]:
    """By every current customer, in months that no training saw; nan for who never bought."""
    value = labels.outcomes(world.workspace, [TRAINED_AT], LATER).set_index("customer_id")["value"]
    spend = value.reindex(world.data.current.customer_ids).fillna(0.0).to_numpy()
    return np.where(np.isnan(world.data.inputs.column(world.data.current.vectors, "T")), np.nan, spend)


def test_a_window_that_was_open_then_changes_nothing(world: World) -> None:
    """At an earlier cutoff only windows that had closed by it teach: what came later may be anything."""
    *_, judge = world.data.closed
    seen = world.data.closed_by(judge.as_of, 65)
    blank = {"value": np.zeros_like(judge.value), "n_purchases": np.zeros_like(judge.value)}
    hidden = replace(world.data, closed=tuple(c if c in seen else replace(c, **blank) for c in world.data.closed))
    first = lifetime_value.fit(world.data, world.workspace, world.data.closed_by(judge.as_of, 65), judge)
    again = lifetime_value.fit(hidden, world.workspace, hidden.closed_by(judge.as_of, 65), replace(judge, **blank))
    assert 0 < len(seen) < len(world.data.closed)
    np.testing.assert_array_equal(first.value(judge.vectors), again.value(judge.vectors))


def test_every_value_lies_within_its_bounds(world: World, model: ValueModel) -> None:
    """Low, value and high come in that order for everyone who ever bought, and are unknown for everyone else."""
    forecast = model.forecast(world.data.current.vectors)
    bought = ~np.isnan(world.data.inputs.column(world.data.current.vectors, "T"))
    assert (forecast.low[bought] <= forecast.value[bought]).all()
    assert (forecast.value[bought] <= forecast.high[bought]).all()
    assert (forecast.low[bought] >= 0).all()
    assert np.isnan(forecast.value[~bought]).all()
    assert np.isnan(forecast.expected_purchases[~bought]).all()


def test_four_in_five_spend_within_the_bounds(world: World, model: ValueModel, spent: NDArray[np.floating]) -> None:
    """In months that no training saw; who is asked for half of the outcomes gets narrower bounds."""
    bought = ~np.isnan(spent)
    forecast = model.forecast(world.data.current.vectors)
    inside = (spent >= forecast.low) & (spent <= forecast.high)
    assert inside[bought].mean() == pytest.approx(0.8, abs=0.12)
    narrow = fitted(world, interval=0.5).forecast(world.data.current.vectors)
    assert np.nanmean(narrow.high - narrow.low) < np.nanmean(forecast.high - forecast.low)


def test_without_a_closed_window_the_bounds_are_drawn_from_the_histories(
    world: World, spent: NDArray[np.floating]
) -> None:
    """They then hold at least seven in ten, and the value is the history's own."""
    model = fitted(world, ())
    assert model.boosters == {}
    forecast, bought = model.forecast(world.data.current.vectors), ~np.isnan(spent)
    outlook = model.outlook(world.data.current.vectors, 60)
    np.testing.assert_allclose(forecast.value[bought], outlook.value[bought])
    assert ((spent >= forecast.low) & (spent <= forecast.high))[bought].mean() > 0.7


def test_values_add_up_to_what_was_spent(world: World, model: ValueModel, spent: NDArray[np.floating]) -> None:
    """The shop as a whole sells what was foretold, give or take a fifth, and customers are in a better order than
    their histories alone put them."""
    value, bought = model.value(world.data.current.vectors), ~np.isnan(spent)
    alone = fitted(world, ()).value(world.data.current.vectors)
    assert value[bought].sum() == pytest.approx(spent[bought].sum(), rel=0.2)
    assert metrics.ngini(spent[bought], value[bought]) > metrics.ngini(spent[bought], alone[bought])


def test_a_level_of_the_closed_windows_teaches_nothing_about_customers(world: World, model: ValueModel) -> None:
    """Had everybody spent thrice as much in one window, the customers' order and shares would be the same."""
    first, *others = world.data.closed
    tripled = fitted(world, (replace(first, value=first.value * 3), *others)).value(world.data.current.vectors)
    known = ~np.isnan(tripled)
    ratio = (tripled / model.value(world.data.current.vectors))[known]
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-6)


def test_longer_horizons_are_worth_more(world: World, model: ValueModel) -> None:
    """One fit answers for any horizon: no customer is worth less over more days, the trained one is the default."""
    vectors = world.data.current.vectors
    by_days = [model.value(vectors, days) for days in (1, 30, 60, 90, 180, 365)]
    for shorter, longer in itertools.pairwise(by_days):
        assert (shorter <= longer + 1e-9)[~np.isnan(longer)].all()
    np.testing.assert_array_equal(model.value(vectors), by_days[2])


@pytest.mark.parametrize(("boosted", "rate"), [(True, 0.0), (False, 0.3)])
def test_no_figure_falls_with_the_horizon(boosted: bool, rate: float, world: World, model: ValueModel) -> None:
    """Neither value nor bounds nor purchases, over any of 730 days; the value always lies between its bounds, whatever
    the season, the discount, and however soon a customer fades."""
    steep = Spread((1.0, 50.0, 100.0, 400.0), (0.0, 0.0, 40.0, 300.0), (9.0, 150.0, 200.0, 700.0))
    asked = replace(model if boosted else fitted(world, ()), discount_rate=rate, spread=steep)
    assert bool(asked.boosters) == boosted
    known = world.data.current.vectors[~np.isnan(world.data.inputs.column(world.data.current.vectors, "T"))]
    few = known[np.argsort(-asked.value(known))[[0, 5, 20, 60, 150, 300, -1]]]
    by_days = np.array([asked.forecast(few, days)[1:] for days in range(1, 731)])
    assert np.diff(by_days, axis=0).min() >= -1e-9
    _, value, low, high = by_days.transpose(1, 0, 2)
    assert (low <= value).all()
    assert (value <= high).all()
    assert (np.ptp(low, axis=0) > 0).any()
    trained = np.array(asked.forecast(few)[1:])
    np.testing.assert_allclose(by_days[world.workspace.lifetime_value.horizon - 1], trained, rtol=1e-12)


def test_a_stored_model_answers_the_same(world: World, model: ValueModel, tmp_path_factory) -> None:  # type: ignore[no-untyped-def]
    """Every number of a forecast survives being written and read."""
    folder = tmp_path_factory.mktemp("value")
    model.save(folder)
    vectors = world.data.current.vectors[:200]
    for column, again in zip(model.forecast(vectors), ValueModel.load(folder).forecast(vectors), strict=True):
        np.testing.assert_allclose(column, again, rtol=1e-12)


def test_fewer_than_a_hundred_buyers_leave_the_history_alone(world: World) -> None:
    """19 buyers in each of five windows teach no booster; 20 do."""
    for buyers, taught in ((19, False), (20, True)):
        few = [np.where(np.cumsum(c.value > 0) <= buyers, c.value, 0.0) for c in world.data.closed]
        closed = tuple(replace(c, value=value) for c, value in zip(world.data.closed, few, strict=True))
        assert bool(fitted(world, closed).boosters) == taught


def test_discounting_lowers_the_history_by_the_mean_discount(world: World) -> None:
    """At 20 % a year over 60 days: the mean of 1.2^-t over the window, by hand 0.9852; of who fades a little more is
    left, since what they buy comes early."""
    vectors = world.data.current.vectors
    ratio = fitted(world, (), discount_rate=0.2).value(vectors) / fitted(world, ()).value(vectors)
    assert np.nanmin(ratio) >= 0.98516 - 1e-5
    assert np.nanmax(ratio) <= 0.98516 + 1e-3


def test_too_few_who_came_back_are_refused_with_what_to_do(world: World) -> None:
    """Without a history model there is nothing to value with; the sentence says what would help."""
    current = replace(world.data.current, history_model=None)
    told = r"cannot be learnt at 2024-07-01: .* 30 are needed\), and for a base rate no window has closed .* collect"
    with pytest.raises(CheckFailed, match=told):
        lifetime_value.fit(world.data, world.workspace, world.data.closed, current)
