"""When a champion is to be challenged."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import mlflow
import pytest
from registries import new_registry

from features import publications, snapshot
from training.gate import retraining
from training.kinds import CHURN
from training.records import tracking
from workspace import settings
from workspace.settings import Workspace

TRAINED = date(2024, 6, 1)


def workspace(folder: Path, **more: Any) -> Workspace:
    """Of a name of its own, since one registry serves all tests here."""
    raw = {"name": folder.name.lower(), "home": str(folder / "home"), "tables": {"transactions": {"path": "none.csv"}}}
    return settings.parse(raw | more, "the tests")


@pytest.fixture(scope="module")
def tracker(tmp_path_factory: pytest.TempPathFactory) -> mlflow.MlflowClient:
    return mlflow.MlflowClient(new_registry(tmp_path_factory.mktemp("registry") / "mlflow.db"))


@pytest.fixture
def train(tracker: mlflow.MlflowClient, tmp_path: Path) -> Callable[..., None]:
    """Registers what a training of the churn model registers, and promotes it if it is to be."""
    shop = workspace(tmp_path)
    name = f"{shop.name}.churn"
    tracker.create_registered_model(name)
    experiment = tracker.create_experiment(shop.name)

    def train(as_of: date = TRAINED, promoted: bool = True, known: str = "") -> None:
        run = tracker.create_run(experiment)
        tracker.log_param(run.info.run_id, "data_fingerprint", known or snapshot.fingerprint(shop))
        tags = {"as_of": str(as_of), "recipe": tracking.recipe(shop, CHURN, publications.expected_hash(shop))}
        version = tracker.create_model_version(name, "file:///nowhere", run.info.run_id, tags=tags)
        if promoted:
            tracker.set_registered_model_alias(name, "champion", version.version)

    return train


def due(tracker: mlflow.MlflowClient, shop: Workspace, days: int, drift: bool = False) -> str | None:
    return retraining.due(tracker, shop, "churn", TRAINED + timedelta(days=days), drift)


def test_the_first_training_is_due(tracker: mlflow.MlflowClient, tmp_path: Path) -> None:
    """Without a champion there is nothing that could answer, be there a version or not."""
    assert due(tracker, workspace(tmp_path), 0) == "there is no champion yet"


def test_an_old_champion_is_challenged(
    tracker: mlflow.MlflowClient, train: Callable[..., None], tmp_path: Path
) -> None:
    """From the day after `max_age` on, counted from what it was trained at."""
    train()
    assert [due(tracker, workspace(tmp_path), days) for days in (0, 1, 90)] == [None] * 3
    assert due(tracker, workspace(tmp_path), 91) == "the champion is 91 days old, more than retraining.max_age (90)"
    assert due(tracker, workspace(tmp_path, retraining={"max_age": 30}), 31) is not None


def test_drift_that_matters_calls_for_a_training(
    tracker: mlflow.MlflowClient, train: Callable[..., None], tmp_path: Path
) -> None:
    """But not on the day of the last, nor within a week of it: there would be nothing else to learn from."""
    train()
    reasons = [due(tracker, workspace(tmp_path), days, drift=True) for days in (0, 6, 7)]
    assert reasons == [None, None, "what the champion learnt from has moved, and it matters"]


def test_a_challenger_that_was_refused_is_not_trained_again_the_next_day(
    tracker: mlflow.MlflowClient, train: Callable[..., None], tmp_path: Path
) -> None:
    """The champion is still old; on the day itself a run that was cut off goes on to the verdict."""
    train()
    train(TRAINED + timedelta(days=91), promoted=False)
    is_due = [due(tracker, workspace(tmp_path), days) is not None for days in (91, 92, 97, 98)]
    assert is_due == [True, False, False, True]


@pytest.mark.parametrize("changed", [{"churn": {"horizon": 60}}, {"training": {"spacing": 7}}])
def test_a_champion_of_other_settings_is_challenged(
    changed: dict[str, Any], tracker: mlflow.MlflowClient, train: Callable[..., None], tmp_path: Path
) -> None:
    """It answers another question, or learnt otherwise; another model's settings are none of its own."""
    train()
    assert "made with other settings" in (due(tracker, workspace(tmp_path, **changed), 1) or "")
    assert due(tracker, workspace(tmp_path, cross_sell={"top": 3}), 1) is None


def test_a_champion_of_other_features_is_challenged(
    tracker: mlflow.MlflowClient, train: Callable[..., None], tmp_path: Path
) -> None:
    """It could not even answer."""
    train()
    tables = {"transactions": {"path": "none.csv"}, "customers": {"path": "none.csv"}}
    shop = workspace(tmp_path, attributes=["region"], tables=tables)
    assert "other settings, features or code" in (due(tracker, shop, 1) or "")


def test_a_champion_that_knows_the_future_is_challenged(
    tracker: mlflow.MlflowClient, train: Callable[..., None], tmp_path: Path
) -> None:
    """For an earlier day its answers would be hindsight."""
    train()
    assert (
        due(tracker, workspace(tmp_path), -1)
        == "the champion was trained at 2024-06-01, which 2024-05-31 could not know of"
    )


def test_who_answered_before_is_asked_about_an_earlier_day(
    tracker: mlflow.MlflowClient, train: Callable[..., None], tmp_path: Path
) -> None:
    """A champion of then, still young on that day, is not challenged because there is a later one by now."""
    train(TRAINED - timedelta(days=60))
    train()
    tracker.set_model_version_tag(f"{workspace(tmp_path).name}.churn", "2", "promoted_over", "1")
    assert due(tracker, workspace(tmp_path), -1) is None
    assert "the champion is 59 days old" in (due(tracker, workspace(tmp_path, retraining={"max_age": 30}), -1) or "")


def test_corrected_tables_call_for_a_training_on_the_same_day(
    tracker: mlflow.MlflowClient, train: Callable[..., None], tmp_path: Path
) -> None:
    """A run that is repeated because its data were wrong does not keep the model of the wrong data."""
    train(known="other tables")
    assert "the tables are others" in (due(tracker, workspace(tmp_path), 0) or "")
    assert due(tracker, workspace(tmp_path), 1) is None
