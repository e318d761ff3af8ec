"""A registered version: found, sure that it can answer here, and loaded with what it was judged on."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from training.backtests.scoreboard import JudgedCutoff
from training.models.customer_model import read_model
from training.records import judged_windows, tracking
from training.records.tracking import Model, RecordedKind
from workspace.registry import model_folder, model_name
from workspace.settings import Workspace
from workspace.storage import CheckFailed

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

LETTERS = ("none", "C", "B", "A")


@dataclass(frozen=True)
class Version:
    """A registered version that can answer: its model, its files, its settings and what it was judged on."""

    number: str
    tags: dict[str, str]
    folder: Path
    model: Model
    workspace: Workspace
    judged: tuple[JudgedCutoff, ...]

    @classmethod
    def of(
        cls, tracker: MlflowClient, workspace: Workspace, kind: RecordedKind, version: ModelVersion, fits: bool = True
    ) -> Version:
        """With `fits`, only a version that the features of this code fit.

        Raises:
            CheckFailed: its run or its files are gone or of other code, it comes from another workspace, or learnt
                other features.
        """
        folder = usable(tracker, workspace, kind, version, fits)
        run_id = str(version.run_id)
        own = tracking.settings_of(tracking.artifacts(tracker, run_id), run_id)
        model = read_model(kind.model, folder)
        judged = tuple(judged_windows.read(workspace.home_path, run_id))
        return cls(str(version.version), dict(version.tags), folder, model, own, judged)

    @property
    def grade(self) -> str:
        return self.tags.get("grade", "none")

    @property
    def as_of(self) -> date:
        return date.fromisoformat(self.tags["as_of"])


def version_of(tracker: MlflowClient, workspace: Workspace, kind: str, version: str | None) -> ModelVersion:
    """A registered version, the latest unless one is named.

    Raises:
        CheckFailed: there is no such version.
    """
    name = model_name(workspace, kind)
    versions = {str(v.version): v for v in tracker.search_model_versions(f"name = '{name}'")}
    wanted = version or max(versions, key=int, default="1")
    if not versions:
        raise CheckFailed(f"{name} has no version yet; `perennial train` makes one")
    if wanted not in versions:
        raise CheckFailed(f"{name} has no version {wanted}; there are {', '.join(sorted(versions, key=int))}")
    return versions[wanted]


def usable(
    tracker: MlflowClient, workspace: Workspace, kind: RecordedKind, version: ModelVersion, fits: bool = True
) -> Path:
    """The folder of a version's files, once it is sure that it can answer here.

    Raises:
        CheckFailed: its run or its files are gone, it comes from another workspace or, with `fits`, it learnt other
            features than this code makes.
    """
    title = f"{version.name} version {version.version}"
    tracking.belongs(tracker, workspace.name, str(version.run_id or ""), title)
    try:
        folder = model_folder(tracker, version)
    except FileNotFoundError as problem:
        raise CheckFailed(f"{title} cannot answer: {problem}; `perennial train` makes another one") from problem
    expected = kind.features_hash(workspace)
    if fits and (learnt := version.tags.get("features_hash")) != expected:
        commit = tracker.get_run(str(version.run_id)).data.tags.get("git_commit", "unknown")
        raise CheckFailed(
            f"{title} cannot answer: it learnt features {learnt}, this workspace has {expected}; go back to the code"
            f" that it was made with (commit {commit}), or train again"
        )
    return folder
