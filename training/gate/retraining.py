"""When a champion is to be challenged: what it learnt from has moved, it is old, or what is asked for has changed."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

from features import snapshot
from training.kinds import Kind, kind_of
from training.records import tracking
from workspace.registry import Unfit, answering, champion, model_name
from workspace.settings import Workspace

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

REST = 7
"""Days after a training in which age and drift call for no other: hardly a window has closed since."""


def due(tracker: MlflowClient, workspace: Workspace, kind: str, as_of: date, drift: bool) -> str | None:
    """Why the champion of this kind is to be challenged at `as_of`, in words; None while it need not be.

    For a day before its training the champion is what answers about that day. `drift` says whether what moved since it
    was trained matters to the models.
    """
    of = kind_of(kind)
    reigning = champion(tracker, workspace, of.name)
    if reigning is None:
        return "there is no champion yet"
    try:
        reigning = answering(tracker, workspace, of.name, as_of) or reigning
    except Unfit as problem:
        return _changed(tracker, workspace, of, reigning, as_of) or str(problem)
    if changed := _changed(tracker, workspace, of, reigning, as_of):
        return changed
    age, rest = _days_since(reigning, as_of), _days_since(_latest(tracker, workspace, of.name), as_of)
    if age == 0 or 0 < rest < REST:
        return None
    if age > workspace.retraining.max_age:
        return f"the champion is {age} days old, more than retraining.max_age ({workspace.retraining.max_age})"
    return "what the champion learnt from has moved, and it matters" if drift else None


def _changed(tracker: MlflowClient, workspace: Workspace, of: Kind, reigning: ModelVersion, as_of: date) -> str | None:
    """What makes the champion's answers others than those asked for."""
    if reigning.tags.get("recipe") != tracking.recipe(workspace, of, of.features_hash(workspace)):
        return "the champion was made with other settings, features or code than those of now"
    age = _days_since(reigning, as_of)
    if age < 0:
        return f"the champion was trained at {reigning.tags['as_of']}, which {as_of} could not know of"
    assert reigning.run_id is not None
    recorded = tracker.get_run(reigning.run_id).data.params
    if age == 0 and recorded["data_fingerprint"] != snapshot.fingerprint(workspace):
        return "the tables are others than those that the champion was trained on at this day"
    return None


def _latest(tracker: MlflowClient, workspace: Workspace, kind: str) -> ModelVersion:
    versions = tracker.search_model_versions(f"name = '{model_name(workspace, kind)}'")
    return max(versions, key=lambda version: int(version.version))


def _days_since(version: ModelVersion, as_of: date) -> int:
    return (as_of - date.fromisoformat(version.tags["as_of"])).days
