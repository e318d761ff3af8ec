"""Tuning: on windows that end before the reported ones, seeded, given up early where hopeless, and gone on with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date

import mlflow
import numpy as np
import pytest
import yaml
from registries import new_registry

from tests.training.conftest import TRAINED_AT, World
from training import tuning
from training.backtests import offer_backtest
from training.learning import datasets
from workspace import registry, settings
from workspace.settings import Workspace
from workspace.storage import CheckFailed

SHOP = settings.parse({"name": "tuned", "tables": {"transactions": {"path": "none.csv"}}}, "the tests")


@pytest.fixture(scope="module")
def tracker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[mlflow.MlflowClient]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", new_registry(tmp_path_factory.mktemp("tuning") / "mlflow.db"))
        yield registry.client()


def near(leaves: float) -> Callable[[Workspace], float]:
    """A judge to whom a certain number of leaves is best."""

    def judge(trial: Workspace) -> float:
        boosting = trial.churn.boosting
        assert boosting.num_leaves is not None
        assert boosting.learning_rate is not None
        return -abs(np.log(boosting.num_leaves / leaves)) - abs(np.log(boosting.learning_rate / 0.05))

    return judge


class Stopped(Exception):
    """Somebody pressed the button."""


def stopping(after: int) -> Callable[[Workspace], float]:
    """A judge who answers so often, and is then stopped."""
    answers = iter(range(after))

    def judge(trial: Workspace) -> float:
        if next(answers, None) is None:
            raise Stopped
        return near(20)(trial)

    return judge


def trials_of(tracker: mlflow.MlflowClient, name: str) -> list[tuple[str, float | None, dict[str, str]]]:
    """State, value and parameters of each finished trial, in the order of their start, as MLflow has them."""
    experiment = tracker.get_experiment_by_name(SHOP.name).experiment_id
    [study] = tracker.search_runs([experiment], f"tags.mlflow.runName = '{name}'")
    runs = tracker.search_runs(
        [experiment], f"tags.mlflow.parentRunId = '{study.info.run_id}'", order_by=["attributes.start_time"]
    )
    return [(r.info.status, r.data.metrics.get("value"), r.data.params) for r in runs if r.info.status != "FAILED"]


TRIALS = 8


@pytest.fixture(scope="module")
def whole(tracker: mlflow.MlflowClient) -> tuple[dict[str, float], list[str]]:
    """The best of a tuning that nobody stopped, and what it said."""
    said: list[str] = []
    return tuning.search(tracker, SHOP, "churn", "whole", TRIALS, lambda: [near(20)], said.append), said


def test_a_stopped_tuning_goes_on_as_if_it_had_not_been_stopped(
    tracker: mlflow.MlflowClient, whole: tuple[dict[str, float], list[str]]
) -> None:
    """The trials of both halves, and the best, are those of a tuning that nobody stopped; nothing is tried twice."""
    with pytest.raises(Stopped):
        tuning.search(tracker, SHOP, "churn", "halves", TRIALS, lambda: [stopping(after=6)])
    said: list[str] = []
    halves = tuning.search(tracker, SHOP, "churn", "halves", TRIALS, lambda: [near(20)], said.append)
    assert said[0].startswith("churn: 6 trials were made before; best")
    assert len(said) == 1 + 2
    assert halves == whole[0]
    assert trials_of(tracker, "halves") == trials_of(tracker, "whole")
    assert len(trials_of(tracker, "whole")) == TRIALS


def test_the_first_trial_is_the_models_own_and_progress_names_the_best(
    tracker: mlflow.MlflowClient, whole: tuple[dict[str, float], list[str]]
) -> None:
    """So tuning gives nothing worse, on the dates it is tuned on, than what was there."""
    best, said = whole
    state, value, first = trials_of(tracker, "whole")[0]
    assert (state, first["num_leaves"], first["rounds"]) == ("FINISHED", "7", "200")
    values = [value for _, value, _ in trials_of(tracker, "whole") if value is not None]
    assert max(values) > float(value or 0)
    assert f"churn: trial 8 of 8; best {max(values):.4f} of trial {1 + int(np.argmax(values))}" in said[-1]
    assert f"num_leaves {best['num_leaves']}" in said[-1]
    kept = settings.parse(SHOP.model_dump(mode="json") | yaml.safe_load(tuning.as_settings("churn", best)), "the shop")
    assert kept.churn.boosting.model_dump(exclude_none=True) == best


def test_a_hopeless_trial_is_given_up(tracker: mlflow.MlflowClient) -> None:
    """After the first date where it is worse than most; the other dates are not asked."""
    answers, asked = iter([*range(1, 6), 0, 9, 0]), []

    def earlier(trial: Workspace) -> float:
        asked.append(trial)
        return 0.0

    tuning.search(tracker, SHOP, "churn", "pruned", 8, lambda: [earlier, lambda _: float(next(answers))])
    states = [state for state, _, _ in trials_of(tracker, "pruned")]
    assert states == [*["FINISHED"] * 5, "KILLED", "FINISHED", "KILLED"]  # MLflow's word for a pruned one
    assert len(asked) == 6


def test_what_cannot_be_judged_is_no_best(tracker: mlflow.MlflowClient) -> None:
    """Where the outcomes are all alike no metric is defined, and nothing is chosen."""
    with pytest.raises(CheckFailed, match="churn: none of 2 trials could be judged"):
        tuning.search(tracker, SHOP, "churn", "alike", 2, lambda: [lambda _: float("nan")])


@pytest.mark.parametrize("kind", registry.KINDS)
def test_what_is_reported_is_never_tuned_on(kind: str, world: World) -> None:
    """Every window tuned on has ended when the first reported one begins, and each date has others to learn from."""
    plan = tuning.plan(world.workspace, kind, TRAINED_AT)
    days = 60 if kind == "cross_sell" else datasets.outcome_days(world.workspace)
    assert plan.tuned
    assert plan.reported
    assert (plan.reported[0] - plan.tuned[-1]).days >= days
    needed = tuning.cutoffs(world.workspace, kind, TRAINED_AT)
    assert {*plan.tuned} <= {*needed}
    for day in plan.tuned:
        assert sum((day - cutoff).days >= days for cutoff in needed) >= (1 if kind == "cross_sell" else 2)


def test_a_reported_date_of_a_tuned_training_is_one_of_an_untuned(world: World) -> None:
    """So that a tuned challenger can be compared with a champion that nobody tuned."""
    closed = [cutoff.as_of for cutoff in world.data.closed]
    assert {*tuning.plan(world.workspace, "churn", TRAINED_AT).reported} <= {*closed}
    offers = offer_backtest.cutoffs(world.workspace, TRAINED_AT, 3)
    assert {*tuning.plan(world.workspace, "cross_sell", TRAINED_AT).reported} <= {*offers}


def test_a_short_history_is_not_tuned_on_what_it_reports(world: World) -> None:
    """Rather than tune on the only window there is, it says what is missing."""
    with pytest.raises(CheckFailed, match=r"churn cannot be tuned at 2023-02-01: no window closes before those"):
        tuning.plan(world.workspace, "churn", date(2023, 2, 1))
