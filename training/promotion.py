"""Which version answers: the gate that a challenger must pass, the alias `champion`, and the way back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from perennial.registry import champion, model_name
from perennial.settings import Workspace
from perennial.storage import CheckFailed

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

Say = Callable[[str], None]


@dataclass(frozen=True)
class Verdict:
    """Of the gate on one version; `reasons` are sentences, those for it and those against."""

    passed: bool
    reasons: tuple[str, ...]


def judge(
    tracker: MlflowClient, workspace: Workspace, kind: str, version: str | None = None, say: Say = lambda _: None
) -> Verdict:
    """Whether a version, the latest unless one is named, may take the champion's place; it moves no alias.

    Raises:
        CheckFailed: there is no such version, or it cannot answer here at all.
    """
    challenger = version_of(tracker, workspace, kind, version)
    reigning = champion(tracker, workspace, kind)
    if reigning is not None and reigning.version == challenger.version:
        return Verdict(True, (f"version {challenger.version} is the champion already",))
    return _as_the_first(challenger)


def _as_the_first(challenger: ModelVersion) -> Verdict:
    letter, why = challenger.tags.get("grade", "none"), challenger.tags.get("grade_reason", "it was never judged")
    if letter == "none":
        return Verdict(False, (f"there is no champion, and a first one needs a grade; this has none: {why}",))
    return Verdict(True, (f"there is no champion to be better than, and this version has grade {letter}",))


def promote(
    tracker: MlflowClient, workspace: Workspace, kind: str, version: str | None = None, forced: str = ""
) -> ModelVersion:
    """Makes a version, the latest unless one is named, the champion, whatever the gate says of it.

    The version notes whose place it took and, where the gate was passed by, the reason in `forced`.

    Raises:
        CheckFailed: there is no such version.
    """
    found = version_of(tracker, workspace, kind, version)
    reigning = champion(tracker, workspace, kind)
    if reigning is not None and reigning.version != found.version:
        tracker.set_model_version_tag(found.name, found.version, "promoted_over", str(reigning.version))
    if forced:
        tracker.set_model_version_tag(found.name, found.version, "forced", forced)
    tracker.set_registered_model_alias(found.name, "champion", found.version)
    return found


def rollback(tracker: MlflowClient, workspace: Workspace, kind: str) -> ModelVersion:
    """Makes the version that answered before the champion the champion again.

    Raises:
        CheckFailed: there is no champion, or none before it.
    """
    reigning = champion(tracker, workspace, kind)
    before = reigning.tags.get("promoted_over") if reigning else None
    if reigning is None or before is None:
        raise CheckFailed(f"{model_name(workspace, kind)} has no earlier champion to go back to")
    tracker.set_model_version_tag(reigning.name, reigning.version, "rolled_back", "true")
    tracker.set_registered_model_alias(reigning.name, "champion", before)
    return tracker.get_model_version(reigning.name, before)


def version_of(tracker: MlflowClient, workspace: Workspace, kind: str, version: str | None) -> ModelVersion:
    """A registered version, the latest unless one is named.

    Raises:
        CheckFailed: there is no such version.
    """
    name = model_name(workspace, kind)
    versions = {str(v.version): v for v in tracker.search_model_versions(f"name = '{name}'")}
    wanted = version or max(versions, key=int, default="1")
    if wanted not in versions:
        raise CheckFailed(f"{name} has no version {wanted}; `perennial train` makes one")
    return versions[wanted]
