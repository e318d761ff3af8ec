"""Churn: taught and calibrated on different dates, modest without outcomes, and dearer with silence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from features import retrieval, snapshot
from perennial import ingest
from perennial.storage import CheckFailed
from training import churn, datasets, labels, metrics
from training.datasets import Cutoff
from training.models.churn_model import ChurnModel, fit_booster

from .conftest import TRAINED_AT, World

LATER = date(2025, 1, 1)


def with_outcomes(cutoffs: Sequence[Cutoff], left: float, count: int) -> tuple[Cutoff, ...]:
    """The same cutoffs, of whose judged customers `count` each have the outcome `left` and the others the opposite."""

    def changed(churned: NDArray[np.floating]) -> NDArray[np.floating]:
        judged = ~np.isnan(churned)
        return np.where(judged, np.where(np.cumsum(judged) <= count, left, 1 - left), np.nan)

    return tuple(replace(cutoff, churned=changed(np.asarray(cutoff.churned))) for cutoff in cutoffs)


@pytest.fixture(scope="module")
def model(world: World) -> ChurnModel:
    return churn.fit(world.data, world.workspace, world.data.closed, world.data.current)


@pytest.fixture(scope="module")
def happened(world: World) -> tuple[NDArray[np.bool_], NDArray[np.floating]]:
    """Who of the current customers could leave, and which of them did, in months that no training saw."""
    able = world.data.inputs.column(world.data.current.vectors, "days_since_last_purchase") <= 365
    bought = labels.outcomes(world.workspace, [TRAINED_AT], LATER).set_index("customer_id")["bought"]
    stayed = bought.reindex(world.data.current.customer_ids[able]).eq(True).to_numpy()
    return able, 1.0 - stayed.astype(float)


def test_it_is_calibrated_on_a_later_date_than_it_was_taught_by(world: World, model: ChurnModel) -> None:
    """The line is that of a booster taught by the earlier cutoffs, fitted on the latest and on nothing else."""
    inputs, (*teaching, latest) = world.data.inputs, world.data.closed
    assert latest.history_model is not None
    booster = fit_booster(inputs, *datasets.stacked(inputs, teaching, 60, 5, "churned"), seed=7)
    known = ~np.isnan(latest.churned)
    taught = ChurnModel(inputs, latest.history_model, 60, 5, 365, booster)
    line = taught.calibrated(latest.vectors[known], latest.churned[known])
    assert (model.slope, model.intercept) == (line.slope, line.intercept)
    assert model.slope != 1


def test_the_final_booster_is_taught_by_every_closed_cutoff(world: World, model: ChurnModel) -> None:
    """No labelled window is kept back once the line is known."""
    inputs = world.data.inputs
    booster = fit_booster(inputs, *datasets.stacked(inputs, world.data.closed, 60, 5, "churned"), seed=7)
    assert model.booster is not None
    assert model.booster.model_to_string() == booster.model_to_string()


def test_without_a_labelled_window_the_history_stands_alone(world: World) -> None:
    """The probability is then that of no purchase by the purchase histories."""
    data = replace(world.data, closed=())
    model = churn.fit(data, world.workspace, (), data.current)
    outlook = model.history_model.outlook(data.inputs.history(data.current.vectors), 60, 5)
    assert model.booster is None
    np.testing.assert_array_equal(model.probability(data.current.vectors), outlook.no_purchase)


@pytest.mark.parametrize("left", [0.0, 1.0])
@pytest.mark.parametrize(("of_each", "boosted"), [(24, False), (25, True)])
def test_a_hundred_outcomes_of_either_kind_are_needed(left: float, of_each: int, boosted: bool, world: World) -> None:
    """96 who left, or 96 who stayed, in the four cutoffs that teach leave the history alone; 100 do not."""
    closed = with_outcomes(world.data.closed, left, of_each)
    model = churn.fit(world.data, world.workspace, closed, world.data.current)
    assert (model.booster is not None) == boosted


def test_probabilities_are_near_what_happened_then(
    world: World, model: ChurnModel, happened: tuple[NDArray[np.bool_], NDArray[np.floating]]
) -> None:
    """In the months after, which no training saw, the expected calibration error is small and the mean right."""
    able, left = happened
    predicted = model.probability(world.data.current.vectors[able])
    assert metrics.ece(left, predicted) < 0.08
    assert predicted.mean() == pytest.approx(left.mean(), abs=0.06)
    assert metrics.auc(left, predicted) > 0.8


def test_the_longer_a_customer_is_silent_the_likelier_they_have_left(world: World, model: ChurnModel) -> None:
    """The same customers in snapshots of a month and of two months later, in a shop that closed on the first day."""
    dates = [TRAINED_AT + timedelta(days=days) for days in (0, 30, 60)]
    silent = world.workspace.model_copy(
        update={"home": f"{world.workspace.home}_silent", "tables": world.workspace.tables.model_copy(update={
            name: table.model_copy(update={"where": f"occurred_at < '{TRAINED_AT}'"})
            for name in ("transactions", "interactions")
            if (table := getattr(world.workspace.tables, name))})}
    )  # fmt: skip
    ingest.ingest(silent, datetime(2026, 1, 1, tzinfo=UTC))
    snapshot.snapshot(silent, dates)
    rows = retrieval.customer_rows(retrieval.apply(silent), silent, dates)
    rows["probability"] = model.probability(retrieval.matrix(rows, world.data.inputs.packed))
    wide = rows.pivot_table(index="customer_id", columns="as_of", values="probability")
    able = rows[(rows["as_of"] == pd.Timestamp(dates[-1])) & (rows["days_since_last_purchase"] <= 365)]["customer_id"]
    now, month, two = (wide.loc[able, pd.Timestamp(day)] for day in dates)
    assert len(able) > 300
    assert (two > now).mean() > 0.95
    assert (now - two > 0.05).mean() < 0.01
    assert now.mean() < month.mean() < two.mean()


def test_too_few_who_came_back_are_refused_with_what_to_do(world: World) -> None:
    """Without a history model there is nothing to predict with; the sentence says what would help."""
    current = replace(world.data.current, history_model=None)
    with pytest.raises(CheckFailed, match=r"churn cannot be learnt at 2024-07-01: too few .* collect a longer history"):
        churn.fit(world.data, world.workspace, world.data.closed, current)


def test_event_churn_takes_the_booster_alone(world: World) -> None:
    """With `kind: event` the histories say nothing about cancelling, so they are not averaged in."""
    event = world.workspace.model_copy(update={"churn": world.workspace.churn.model_copy(update={"kind": "event"})})
    model = churn.fit(world.data, event, world.data.closed, world.data.current)
    inputs, vectors = world.data.inputs, world.data.current.vectors
    design = inputs.design(vectors, model.history_model.outlook(inputs.history(vectors), 60, 5))
    assert model.active_window is None
    assert model.booster is not None
    score = model.slope * model.booster.predict(design, raw_score=True) + model.intercept
    np.testing.assert_allclose(model.probability(vectors), 1 / (1 + np.exp(-score)), rtol=1e-9)
