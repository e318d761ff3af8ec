"""What the registry says of the models that scored is noted in the home, and asked for again once it may be another."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient
from workspaces import AS_OF

from serving import champions
from serving.champions import NoChampion
from tests.serving.conftest import Shop
from workspace import registry, storage
from workspace.digests import ChangedModel
from workspace.settings import Workspace

Asked = Callable[[], int]


@pytest.fixture
def noted(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    """A workspace whose home has the note, as a run leaves it."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", shop.tracking_uri)
    champions.that_scored(shop.workspace, registry.client, AS_OF)
    yield shop.workspace
    (shop.workspace.home_path / "champions.json").unlink()


def never() -> MlflowClient:
    raise AssertionError("MLflow was asked")


def test_mlflow_is_not_asked_again_while_nothing_changes(noted: Workspace) -> None:
    """The same versions, grades and files as MLflow names."""
    again = champions.that_scored(noted, never, AS_OF)
    (noted.home_path / "champions.json").write_text("{}")
    assert again == champions.that_scored(noted, registry.client, AS_OF)


def test_mlflow_is_asked_once_whether_there_are_champions(noted: Workspace) -> None:
    """Whatever is noted of the scores: without an alias nothing answers, and that is noted by nobody."""
    champions.refuse_without(noted, registry.client, AS_OF)
    champions.refuse_without(noted, never, AS_OF)
    name, tracker = registry.model_name(noted, "churn"), registry.client()
    version = str(tracker.get_model_version_by_alias(name, "champion").version)
    tracker.delete_registered_model_alias(name, "champion")
    try:
        champions.that_scored(noted, registry.client, AS_OF)
        for _ in range(2):
            with pytest.raises(NoChampion, match="has no churn champion"):
                champions.refuse_without(noted, registry.client, AS_OF)
    finally:
        tracker.set_registered_model_alias(name, "champion", version)
    (noted.home_path / "promoted.json").write_text("{")
    champions.refuse_without(noted, registry.client, AS_OF)


def test_mlflow_is_asked_once_anything_was_written_to_it(noted: Workspace) -> None:
    """A tag may withhold an amount, an alias let another version answer."""
    champion = registry.champion(registry.client(), noted, "churn")
    assert champion is not None
    registry.client().set_model_version_tag(champion.name, champion.version, "withheld", "a test")
    try:
        answering = champions.that_scored(noted, registry.client, AS_OF)
        assert answering["churn"].registered.withheld == "a test"
    finally:
        registry.client().delete_model_version_tag(champion.name, champion.version, "withheld")


def test_mlflow_is_asked_where_the_question_or_the_scores_are_others(noted: Workspace) -> None:
    """Another setting may make the models unfit to answer, another run of scores name other models."""
    with pytest.raises(AssertionError, match="MLflow was asked"):
        champions.that_scored(noted.model_copy(update={"currency": "XXX"}), never, AS_OF)
    scores = storage.scores_path(noted.home_path, AS_OF)
    shutil.copy2(scores, draft := scores.with_suffix(".copy"))
    draft.replace(scores)
    with pytest.raises(AssertionError, match="MLflow was asked"):
        champions.that_scored(noted, never, AS_OF)


def test_what_is_noted_does_not_excuse_changed_files(noted: Workspace) -> None:
    """The digests are held against the files each time."""
    model: Path = champions.that_scored(noted, never, AS_OF)["churn"].folder / "model.json"
    was = model.read_bytes()
    try:
        model.write_bytes(was + b" ")
        with pytest.raises(ChangedModel, match=r"model\.json changed since"):
            champions.that_scored(noted, never, AS_OF)
    finally:
        model.write_bytes(was)


def test_a_broken_note_is_as_none(noted: Workspace) -> None:
    """It is only a shortcut."""
    note = noted.home_path / "champions.json"
    key = storage.read_json(note)["key"]
    for text in ("", "{}", '{"key": 1}', "[]", json.dumps({"key": key}), json.dumps({"key": key, "answering": []})):
        note.write_text(text)
        assert champions.that_scored(noted, registry.client, AS_OF)["churn"].registered.version
