"""Which version answers: the alias `champion` of each registered model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perennial.registry import model_name
from perennial.settings import Workspace
from perennial.storage import CheckFailed

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion


def promote(tracker: MlflowClient, workspace: Workspace, kind: str, version: str | None = None) -> ModelVersion:
    """Makes a version, the latest unless one is named, the champion.

    Raises:
        CheckFailed: there is no such version.
    """
    name = model_name(workspace, kind)
    versions = {str(v.version): v for v in tracker.search_model_versions(f"name = '{name}'")}
    wanted = version or max(versions, key=int, default="1")
    if wanted not in versions:
        raise CheckFailed(f"{name} has no version {wanted}; `perennial train` makes one")
    tracker.set_registered_model_alias(name, "champion", wanted)
    return versions[wanted]
