"""A run built again: the same predictions, or a sentence on what is no longer as it was."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from features import retrieval
from tests.training.conftest import TRAINED_AT, World
from training.gate import reproduction
from training.gate.reproduction import TOLERANCE, Rebuilt, Recorded
from training.models.churn_model import ChurnModel
from training.records import tracking
from workspace.storage import CheckFailed


@pytest.fixture(scope="module")
def recorded(world: World) -> Recorded:
    return Recorded.of(world.tracker, "world.churn/1")


@pytest.fixture(scope="module")
def rebuilt(recorded: Recorded) -> Rebuilt:
    return reproduction.rebuild(recorded)


def test_a_run_is_built_again_from_what_it_recorded(recorded: Recorded, rebuilt: Rebuilt, world: World) -> None:
    """From the tables alone, features made anew, everybody gets the same probability; the workspace is left alone."""
    assert (recorded.kind, recorded.as_of) == ("churn", TRAINED_AT)
    assert len(rebuilt.rows) == len(retrieval.rows_at(world.workspace, TRAINED_AT))
    assert reproduction.apart(recorded, rebuilt) <= TOLERANCE
    assert recorded.changed_data() == []


def test_another_model_is_apart(recorded: Recorded, rebuilt: Rebuilt, tmp_path: Path) -> None:
    """One parameter of the stored model changed in the seventh digit is found."""
    model = ChurnModel.load(recorded.folder)
    replace(model, intercept=model.intercept + 1e-7).save(tmp_path)
    assert 1e-9 < reproduction.apart(replace(recorded, folder=tmp_path), rebuilt) < 1e-6


def test_another_seed_is_apart(recorded: Recorded, rebuilt: Rebuilt, world: World) -> None:
    """The seed is part of what a run is made from: with another one customers get other probabilities."""
    from training.learning import churn

    training = world.workspace.training.model_copy(update={"seed": 8})
    other = churn.train(world.data, world.workspace.model_copy(update={"training": training}))
    assert reproduction.apart(recorded, Rebuilt(other, rebuilt.rows)) > 1e-4


def test_what_differs_is_named(recorded: Recorded, world: World) -> None:
    """The commit, a library, a setting and the data, each with what it was and what it is."""
    older = replace(
        recorded, commit="0" * 40, libraries=dict(recorded.libraries) | {"lightgbm": "3.0.0"},
        data=dict(recorded.data) | {"transactions": [*recorded.data["transactions"], "lost"]},
    )  # fmt: skip
    churn = world.workspace.churn.model_copy(update={"horizon": 92})
    said = older.differences(world.workspace.model_copy(update={"churn": churn}))
    assert [sentence.partition(":")[0] for sentence in said] == ["commit", "library", "setting", "data"]
    assert said[0].startswith(f"commit: {'0' * 40} then, ")
    assert re.fullmatch(r"library: lightgbm 3.0.0 then, [\d.]+ now", said[1])
    assert said[2] == "setting: churn.horizon 60 then, 92 in the file"
    assert "data: 1 of 2 parts of transactions are gone, 0 are new" in said[3]


def test_uncommitted_code_is_named(recorded: Recorded) -> None:
    """Nobody can check it out, so the present code is what is tried."""
    dirty = replace(recorded, commit=f"{'a' * 40}-dirty")
    assert dirty.differences()[0] == f"commit: the run was made from changes to {'a' * 40} never committed"
    assert not dirty.can_be_checked_out


def test_other_data_are_not_learnt_from(recorded: Recorded) -> None:
    """Where the tables are not those of the run, nothing is built."""
    other = replace(recorded, data={"transactions": ["lost"]})
    with pytest.raises(
        CheckFailed, match=r"cannot be built again: data: 1 of 1 parts of transactions are gone, 1 are new"
    ):
        reproduction.rebuild(other)


def test_a_run_without_its_files_or_version_is_refused(world: World) -> None:
    """A sentence each: nothing to hold the new model to, or nothing that says how it was made."""
    first = world.versions["churn"]
    run = world.tracker.create_run(tracking.experiment(world.tracker, "world"))
    world.tracker.log_param(run.info.run_id, "feature_service", "churn_v1")
    with pytest.raises(CheckFailed, match=r"the files of run \w+ "):
        Recorded.of(world.tracker, run.info.run_id)
    kept = tracking.artifacts(world.tracker, str(first.run_id))
    for name in ("settings.json", "libraries.json", "data.json"):
        world.tracker.log_artifact(run.info.run_id, str(kept / name))
    with pytest.raises(CheckFailed, match=r"no registered version comes from run \w+"):
        Recorded.of(world.tracker, run.info.run_id)


def test_a_run_of_another_time_is_refused(world: World, tmp_path: Path) -> None:
    """Settings that this code does not know: the run is another version's, and the sentence names the setting."""
    run = world.tracker.create_run(tracking.experiment(world.tracker, "world"))
    world.tracker.log_param(run.info.run_id, "feature_service", "churn_v1")
    raw = json.loads(
        (tracking.artifacts(world.tracker, str(world.versions["churn"].run_id)) / "settings.json").read_text()
    )
    (tmp_path / "settings.json").write_text(json.dumps(raw | {"colour": "blue"}))
    world.tracker.log_artifact(run.info.run_id, str(tmp_path / "settings.json"))
    with pytest.raises(CheckFailed, match=r"(?s)recorded by another version of Perennial: .*colour"):
        Recorded.of(world.tracker, run.info.run_id)


def test_a_commit_is_checked_out_beside_the_present_code() -> None:
    """Its files are there while they are needed, and the repository knows nothing of it afterwards."""
    head = tracking.commit().removesuffix("-dirty")
    if head == "unknown":
        pytest.skip("git, or a checkout of Perennial")
    with reproduction._checkout(head) as folder:
        assert (folder / "training" / "records" / "tracking.py").exists()
    left = subprocess.run(
        ["git", "-C", str(tracking.ROOT), "worktree", "list"], capture_output=True, text=True, check=True
    )
    assert not folder.exists()
    assert str(folder) not in left.stdout
