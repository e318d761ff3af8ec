"""Churn: taught and calibrated on different dates, modest without outcomes, and dearer with silence."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from features import retrieval, snapshot
from features.families import purchases
from ingest import intake
from tests.training.conftest import TRAINED_AT, World
from training.backtests import metrics
from training.learning import churn, labels
from training.learning.datasets import Cutoff, Dataset
from training.models.buy_till_you_die import History
from training.models.churn_model import ChurnModel, design, fit_booster, lessons_of
from workspace.settings import Boosting
from workspace.storage import CheckFailed

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
    *teaching, latest = world.data.closed
    rows, _ = churn.labelled(model, world.data.closed)
    lessons = lessons_of(model.inputs, rows, model.leaving, Boosting(), 7)
    first = replace(model, booster=fit_booster(lessons, churn.labelled(model, teaching)[1]))
    known = ~np.isnan(latest.churned)
    outlook = model.outlook_by(latest.history_model, latest.vectors[known])
    line = first.calibrated(latest.vectors[known], latest.churned[known], outlook)
    assert (model.slope, model.intercept) == (line.slope, line.intercept)
    assert model.slope != 1


def test_labelled_rows_have_the_outlook_of_their_own_cutoff(world: World, model: ChurnModel) -> None:
    """Two cutoffs together are the rows of one above those of the other, and only those with an outcome."""
    closed = world.data.closed[:2]
    rows, churned = churn.labelled(model, closed)
    apart = [churn.labelled(model, [cutoff])[0] for cutoff in closed]
    np.testing.assert_array_equal(rows, np.concatenate(apart))
    assert len(churned) == sum(int((~np.isnan(cutoff.churned)).sum()) for cutoff in closed)


def test_the_final_booster_is_taught_by_every_closed_cutoff(world: World, model: ChurnModel) -> None:
    """No labelled window is kept back once the line is known."""
    rows, churned = churn.labelled(model, world.data.closed)
    booster = fit_booster(lessons_of(model.inputs, rows, model.leaving, Boosting(), 7), churned)
    assert model.booster is not None
    assert model.booster.model_to_string() == booster.model_to_string()


def test_without_a_labelled_window_the_history_stands_alone(world: World) -> None:
    """The probability is then what the purchase histories say, and the run says so."""
    data = replace(world.data, closed=())
    model = churn.train(data, world.workspace)
    said = model.outlook_by(data.current.history_model, data.current.vectors)
    assert model.booster is None
    assert model.remarks == ("learnt from purchase histories alone: there are not two cutoffs with closed windows, one"
                             " to teach and one to calibrate",)  # fmt: skip
    between = np.sqrt(said.no_purchase * np.exp(-said.expected_purchases))
    np.testing.assert_allclose(model.probability(data.current.vectors), between, rtol=1e-9)


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


@pytest.fixture(scope="module")
def falling_silent(world: World) -> list[NDArray[np.float32]]:
    """The same customers now, a month and two months later, in a shop that closed today; all else is as it was today.

    Only the purchases move on; what the season, the baskets, the interactions and the profile say stays.
    """
    dates = [TRAINED_AT + timedelta(days=days) for days in (0, 30, 60)]
    tables = world.workspace.tables
    closed = tables.transactions.model_copy(update={"where": f"occurred_at < '{TRAINED_AT}'"})
    silent = world.workspace.model_copy(
        update={"home": f"{world.workspace.home}_silent", "tables": tables.model_copy(update={"transactions": closed})}
    )
    intake.ingest(silent, datetime(2026, 1, 1, tzinfo=UTC))
    snapshot.snapshot(silent, dates)
    rows = retrieval.customer_rows(retrieval.apply(silent), silent, dates)
    packed = world.data.inputs.packed
    moves = {feature.name for feature in purchases.FEATURES if not feature.name.endswith("_last_year")}
    held = [index for index, name in enumerate(packed) if name not in moves]
    now = rows[(rows["as_of"] == pd.Timestamp(dates[0])) & (rows["spend_30d"] >= 0) & (rows["spend_90d"] >= 0)]
    listed = now.loc[now["days_since_last_purchase"] <= 300, "customer_id"]
    vectors = [
        retrieval.matrix(rows[rows["as_of"] == pd.Timestamp(day)].set_index("customer_id").loc[listed], packed)
        for day in dates
    ]
    for later in vectors[1:]:
        later[:, held] = vectors[0][:, held]
    return vectors


@pytest.mark.parametrize(("horizon", "rounding"), [(None, 1e-9), (30, 1e-3), (120, 1e-3)])
def test_longer_silence_never_lowers_the_risk(
    model: ChurnModel, falling_silent: list[NDArray[np.float32]], horizon: int | None, rounding: float
) -> None:
    """Of no customer; at another horizon than was trained for, by no more than a tenth of a point."""
    now, month, two = (model.probability(vectors, horizon) for vectors in falling_silent)
    assert len(now) > 300
    assert (month - now).min() > -rounding
    assert (two - month).min() > -rounding
    assert (two > now).mean() > 0.95


def test_a_longer_horizon_never_raises_the_probability_of_no_purchase(world: World, model: ChurnModel) -> None:
    """Who buys nothing in 90 days bought nothing in 30 of them; the workspace's own horizon is one among the others."""
    vectors = world.data.current.vectors[model.can_churn(world.data.current.vectors)]
    curve = np.array([model.probability(vectors, days) for days in (1, 7, 30, 59, 60, 61, 120, 365)])
    assert np.diff(curve, axis=0).max() < 1e-12
    assert curve[0].min() > 0.5
    np.testing.assert_array_equal(curve[4], model.probability(vectors))


@pytest.mark.parametrize("days", [0, -1, 100_000])
def test_a_horizon_beyond_the_data_is_refused(world: World, model: ChurnModel, days: int) -> None:
    """Nor is one of less than a day."""
    with pytest.raises(ValueError, match=f"a horizon of {days} days cannot be answered"):
        model.probability(world.data.current.vectors, days)


@pytest.mark.parametrize("days", [20, 60])
def test_it_is_calibrated_within_intervals_at_any_horizon(world: World, model: ChurnModel, days: int) -> None:
    """In each fifth of the probability what happened lies within the 99.9 % interval of what was said, give or take
    three points for the season; at the workspace's horizon and at another one."""
    able = model.can_churn(world.data.current.vectors)
    asked = world.workspace.model_copy(update={"churn": world.workspace.churn.model_copy(update={"horizon": days})})
    bought = labels.outcomes(asked, [TRAINED_AT], LATER).set_index("customer_id")["bought"]
    left = 1.0 - bought.reindex(world.data.current.customer_ids[able]).eq(True).to_numpy(dtype=float)
    said = model.probability(world.data.current.vectors[able], days)
    for fifth in np.array_split(np.argsort(said), 5):
        expected = said[fifth].mean()
        error = 3.3 * np.sqrt(expected * (1 - expected) / len(fifth))
        assert abs(left[fifth].mean() - expected) < error + 0.03


def with_season(world: World, left: int) -> ChurnModel:
    """The model where the first cutoff is of a year ago, when of its customers all but so many, or none, stayed."""
    first, *others = world.data.closed
    judged = ~np.isnan(first.churned)
    churned = np.where(judged, (np.cumsum(judged) <= left).astype(float), np.nan)
    then = replace(first, as_of=TRAINED_AT - timedelta(days=365), churned=churned)
    return churn.fit(world.data, world.workspace, (then, *others), world.data.current)


def test_the_base_rate_moves_towards_last_years_season(world: World) -> None:
    """The more left a year ago, the higher every probability; the model says from which mean to which."""
    few, many = with_season(world, 50), with_season(world, 500)
    assert few.correction.log_odds < many.correction.log_odds
    assert many.correction.after > many.correction.before
    vectors = world.data.current.vectors[many.can_churn(world.data.current.vectors)]
    assert many.probability(vectors).mean() == pytest.approx(many.correction.after)
    assert re.search(rf"{many.correction.before:.3f} -> {many.correction.after:.3f}", many.remarks[-1])


def test_without_a_last_year_the_season_is_left_alone(model: ChurnModel) -> None:
    """Five cutoffs of half a year say nothing of a season; the run says so."""
    assert model.correction.log_odds == 0
    assert model.remarks == ("season: no cutoff a year ago to correct the base rate by",)


def test_where_no_window_has_closed_a_shorter_one_teaches(world: World) -> None:
    """What cutoffs with a shorter window taught is carried to the horizon by the histories."""
    data = world.data  # whose windows have 60 days
    longer = world.workspace.model_copy(update={"churn": world.workspace.churn.model_copy(update={"horizon": 180})})
    model = churn.fit(data, longer, data.closed, data.current)
    vectors = data.current.vectors[model.can_churn(data.current.vectors)]
    assert model.booster is not None
    assert model.remarks[0] == "learnt on windows of 60 days, carried to 180"
    assert (model.probability(vectors) < model.probability(vectors, 60)).all()


@pytest.mark.parametrize("everybody", [0.0, 1.0])
def test_all_or_none_who_left_teach_nothing(world: World, everybody: float) -> None:
    """The histories stand alone, with the counts; an event has no history to stand on and is refused."""
    same = tuple(
        replace(cutoff, churned=np.where(np.isnan(cutoff.churned), np.nan, everybody)) for cutoff in world.data.closed
    )
    model = churn.fit(world.data, world.workspace, same, world.data.current)
    assert model.booster is None
    assert re.search(
        r"alone: [\d,]+ customers who left and [\d,]+ customers who stayed .* fewer than 100", model.remarks[0]
    )
    event = world.workspace.model_copy(update={"churn": world.workspace.churn.model_copy(update={"kind": "event"})})
    with pytest.raises(
        CheckFailed, match=r"event churn cannot be learnt at 2024-07-01: [\d,]+ cancellations and .* fewer than 100"
    ):
        churn.fit(world.data, event, same, world.data.current)


def test_constant_features_do_no_harm(world: World) -> None:
    """Features that are the same for everybody leave what the histories say."""

    def flat(cutoff: Cutoff) -> Cutoff:
        names = (*History._fields, "days_since_last_purchase", "n_purchases")
        kept = [world.data.inputs.packed.index(name) for name in names]
        vectors = np.ones_like(cutoff.vectors)
        vectors[:, kept] = cutoff.vectors[:, kept]
        return replace(cutoff, vectors=vectors)

    data = replace(world.data, closed=tuple(map(flat, world.data.closed)), current=flat(world.data.current))
    model = churn.fit(data, world.workspace, data.closed, data.current)
    assert np.isfinite(model.probability(data.current.vectors[model.can_churn(data.current.vectors)])).all()


def leaking(world: World, name: str) -> Dataset:
    """The data with a feature that is 1 for exactly those who left after the latest closed cutoff."""
    *earlier, latest = world.data.closed
    vectors = latest.vectors.copy()
    vectors[:, world.data.inputs.packed.index(name)] = np.nan_to_num(latest.churned)
    return replace(world.data, closed=(*earlier, replace(latest, vectors=vectors)))


def test_a_feature_that_separates_alone_stops_training_by_its_name(world: World) -> None:
    """Unless `churn.allow_leaks` is set: then the run says so."""
    data = leaking(world, "n_call_90d")
    with pytest.raises(CheckFailed, match=r"feature `n_call_90d` separates who left .* churn.allow_leaks: true"):
        churn.train(data, world.workspace)
    allowed = world.workspace.model_copy(
        update={"churn": world.workspace.churn.model_copy(update={"allow_leaks": True})}
    )
    model = churn.train(data, allowed)
    assert model.remarks[0].startswith("trained although feature `n_call_90d` separates who left")


def test_an_attribute_that_gives_the_outcome_away_stops_training_by_its_name(world: World) -> None:
    """One whose value tells who left, as the data check finds it."""
    *earlier, latest = world.data.closed
    region = world.data.inputs.column(latest.vectors, "attribute_region")
    left = np.where(np.isnan(latest.churned), np.nan, (region == 0).astype(float))
    data = replace(world.data, closed=(*earlier, replace(latest, churned=left)))
    with pytest.raises(CheckFailed, match="churn is not trained at 2024-07-01: attribute `region`"):
        churn.train(data, world.workspace)


def test_too_few_who_came_back_are_refused_with_what_to_do(world: World) -> None:
    """Without a history model there is nothing to predict with; the sentence says what would help."""
    current = replace(world.data.current, history_model=None)
    with pytest.raises(CheckFailed, match=r"churn cannot be learnt at 2024-07-01: too few .* collect a longer history"):
        churn.fit(world.data, world.workspace, world.data.closed, current)


def test_event_churn_takes_the_booster_alone(world: World) -> None:
    """With `kind: event` the histories say nothing about cancelling, so they are neither averaged in nor needed; the
    probability never falls with the horizon."""
    event = world.workspace.model_copy(update={"churn": world.workspace.churn.model_copy(update={"kind": "event"})})
    model = churn.fit(world.data, event, world.data.closed, world.data.current)
    vectors = world.data.current.vectors
    rows = design(model.inputs, vectors, model.outlook_by(model.history_model, vectors))
    assert model.booster is not None
    score = model.slope * model.booster.predict(rows, raw_score=True) + model.intercept
    np.testing.assert_allclose(model.probability(vectors), 1 / (1 + np.exp(-score)), rtol=1e-9)
    curve = np.array([model.probability(vectors, days) for days in (1, 30, 60, 120)])
    assert np.diff(curve, axis=0).min() >= 0
    np.testing.assert_allclose(curve[2], model.probability(vectors), rtol=1e-12)
    assert ((curve[1] >= model.carried(0.4, 30)) == (curve[2] >= 0.4)).all()
    bare = tuple(replace(cutoff, history_model=None) for cutoff in world.data.closed)
    without = churn.fit(world.data, event, bare, replace(world.data.current, history_model=None))
    assert np.isfinite(without.probability(vectors)).all()
