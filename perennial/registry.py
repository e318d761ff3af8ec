"""The MLflow registry: where it is, what a workspace's models are called in it, and where a version's files lie."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from perennial.settings import Workspace

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

KINDS = ("churn", "lifetime_value", "cross_sell")


def as_kind(name: str) -> str:
    """The kind of model that a name means, written with an underscore or a dash.

    Raises:
        ValueError: there is no such kind.
    """
    found = name.replace("-", "_")
    if found not in KINDS:
        raise ValueError(f"{name!r} is no kind of model; there are {', '.join(KINDS)}")
    return found


def client() -> MlflowClient:
    """The MLflow of MLFLOW_TRACKING_URI, or of `mlruns/mlflow.db` below the current folder.

    It is left configured for the `mlflow` module as well, since loading by alias goes through that.
    """
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    import mlflow

    if "MLFLOW_TRACKING_URI" not in os.environ:
        folder = Path("mlruns").resolve()
        folder.mkdir(exist_ok=True)
        mlflow.set_tracking_uri(f"sqlite:///{folder / 'mlflow.db'}")
    # A page of migrations at the first start, a line per registered version, the trace of an error that it raises too.
    for noisy in ("alembic", "mlflow"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
    return mlflow.MlflowClient()


def model_name(workspace: Workspace, kind: str) -> str:
    """The registered model's name: one registry holds many workspaces."""
    return f"{workspace.name}.{as_kind(kind)}"


def champion(tracker: MlflowClient, workspace: Workspace, kind: str) -> ModelVersion | None:
    """The version that answers now; none where nothing was promoted yet."""
    return _by_alias(tracker, workspace, kind, "champion")


def challenger(tracker: MlflowClient, workspace: Workspace, kind: str) -> ModelVersion | None:
    """The version that was judged last and stayed out, which answers unseen; none where there is none."""
    return _by_alias(tracker, workspace, kind, "challenger")


def _by_alias(tracker: MlflowClient, workspace: Workspace, kind: str, alias: str) -> ModelVersion | None:
    from mlflow.exceptions import MlflowException

    try:
        return tracker.get_model_version_by_alias(model_name(workspace, kind), alias)
    except MlflowException as problem:
        if problem.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def has_versions(tracker: MlflowClient, workspace: Workspace, kind: str) -> bool:
    """Whether anything of this kind was ever trained for the workspace."""
    return bool(tracker.search_model_versions(f"name = '{model_name(workspace, kind)}'", max_results=1))


def model_folder(version: ModelVersion) -> Path:
    """Where the files of a version lie on this machine: `model.json` and, where there is one, `booster.txt`.

    Raises:
        FileNotFoundError: the registry knows the version, but its files are gone.
    """
    import mlflow
    from mlflow.exceptions import MlflowException

    uri = f"models:/{version.name}/{version.version}"
    try:
        folder = Path(mlflow.artifacts.download_artifacts(uri))
    except (MlflowException, OSError) as problem:
        raise FileNotFoundError(f"the files of {uri} cannot be read: {problem}") from problem
    found = next(folder.rglob("model.json"), None)
    if found is None:
        raise FileNotFoundError(f"{uri} has no model.json below {folder}; train it again")
    return found.parent
