"""The estimators on a shop's own rows: what the service learns from them, to the last digit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pandas as pd
import pytest

from perennial.models import ChurnClassifier, CutoffSplit, LifetimeValueRegressor
from tests.training.conftest import World
from training.backtests import backtest
from training.learning import churn, lifetime_value
from training.learning.datasets import Cutoff, Dataset
from training.learning.season import YEAR
from workspace.settings import Boosting, Workspace


def frame(data: Dataset, cutoffs: Sequence[Cutoff]) -> pd.DataFrame:
    """Of everybody at the cutoffs, as a training set has them; codes of texts are categories."""
    used, codes = [*data.inputs.used], range(len(data.inputs.coded) * 50)
    rows = [
        pd.DataFrame(cutoff.vectors, columns=list(data.inputs.packed))[used].assign(as_of=pd.Timestamp(cutoff.as_of))
        for cutoff in cutoffs
    ]
    found = pd.concat(rows, ignore_index=True)
    return found.assign(**{name: pd.Categorical(found[name], categories=codes) for name in data.inputs.coded})


FEW = {"rounds": 40}  # trees, to be quick


def asked(world: World) -> Workspace:
    """The shop's questions, learnt with few trees."""
    few, own = Boosting(**FEW), world.workspace
    groups = {name: getattr(own, name).model_copy(update={"boosting": few}) for name in ("churn", "lifetime_value")}
    return own.model_copy(update=groups)


@pytest.mark.parametrize("has_last_year", [False, True])
def test_churn_is_the_services(world: World, has_last_year: bool) -> None:
    """With everybody known on each day, and the day that is asked about: the same probabilities, season and all."""
    first, *others = world.data.closed
    then = replace(first, as_of=world.data.current.as_of - timedelta(days=YEAR)) if has_last_year else first
    data = replace(world.data, closed=(then, *others))
    known, churned = frame(data, data.closed), np.concatenate([cutoff.churned for cutoff in data.closed])
    could = ~np.isnan(churned)
    model = ChurnClassifier(horizon=60, gap=5, **FEW).fit(
        known[could], churned[could], known=pd.concat([known, frame(data, [data.current])])
    )
    service = churn.fit(data, asked(world), data.closed, data.current)
    assert bool(service.correction.log_odds) == has_last_year
    able = service.can_churn(data.current.vectors)
    said = model.predict_proba(frame(data, [data.current])[able])[:, 1]
    np.testing.assert_array_equal(said, service.probability(data.current.vectors[able]))


def test_value_is_the_services(world: World) -> None:
    """With today's customers and what the shop has sold: the same values and bounds."""
    data, sold = world.data, world.data.current.shop_value
    today, rows = frame(data, [data.current]), frame(data, data.closed)
    sales = pd.Series(sold.sold, index=pd.date_range(sold.first, periods=len(sold.sold)))
    value, days = (np.concatenate([getattr(c, name) for c in data.closed]) for name in ("value", "n_purchases"))
    model = LifetimeValueRegressor(horizon=60, **FEW).fit(rows, value, n_purchases=days, known=today, sales=sales)
    forecast = lifetime_value.fit(data, asked(world), data.closed, data.current).forecast(data.current.vectors)
    np.testing.assert_array_equal(model.predict(today), forecast.value)
    np.testing.assert_array_equal(model.predict_bounds(today), np.column_stack([forecast.low, forecast.high]))
    assert np.isnan(model.predict(today)).any()


def test_what_is_judged_is_what_a_backtest_judges(world: World) -> None:
    """The same days, taught by the same ones."""
    rows = frame(world.data, world.data.closed)
    dates = backtest.judged_dates(world.workspace, [cutoff.as_of for cutoff in world.data.closed], 1)
    ((train, test),) = CutoffSplit(n_splits=1, horizon=60, gap=5).split(rows)
    assert {day.date() for day in rows["as_of"].iloc[test]} == {*dates}
    (cutoff,) = (cutoff for cutoff in world.data.closed if cutoff.as_of == dates[0])
    seen = backtest.known_at(world.data, world.workspace, cutoff).closed
    assert {day.date() for day in rows["as_of"].iloc[train]} == {one.as_of for one in seen}
