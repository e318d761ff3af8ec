"""The MLflow registry: where it is, what a workspace's models are called in it, and where a version's files lie."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from perennial.settings import Workspace
from perennial.storage import CheckFailed

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

_log = logging.getLogger("perennial")

DIGESTS = "files"
"""The tag of a version that holds the digests of its files, as JSON."""
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
        ChangedModel: they are not those that were registered.
    """
    import mlflow
    from mlflow.exceptions import MlflowException

    uri = f"models:/{version.name}/{version.version}"
    try:
        # By the version's own address MLflow would write a note beside its files, which may be read-only.
        place = mlflow.MlflowClient().get_model_version_download_uri(version.name, version.version)
        folder = Path(mlflow.artifacts.download_artifacts(place))
    except (MlflowException, OSError) as problem:
        raise FileNotFoundError(f"the files of {uri} cannot be read: {problem}") from problem
    found = next(folder.rglob("model.json"), None)
    if found is None:
        raise FileNotFoundError(f"{uri} has no model.json below {folder}; train it again")
    _refuse_changed(version, found.parent)
    return found.parent


class ChangedModel(CheckFailed):
    """The files of a version are not those that were registered."""


def file_digests(folder: Path) -> dict[str, str]:
    """The SHA-256 of every file in a folder, by its path in there."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _refuse_changed(version: ModelVersion, folder: Path) -> None:
    """Before anything reads them: LightGBM ends the process at a text that is not whole.

    The digests are in the registry's database, the files elsewhere. A version of before there were any passes.

    Raises:
        ChangedModel: a file is missing, another one, or was not there.
    """
    noted = version.tags.get(DIGESTS)
    if noted is None:
        _log.warning(
            "%s/%s was registered without digests, so its files are taken as they are", version.name, version.version
        )
        return
    registered, found = json.loads(noted), file_digests(folder)
    changed = sorted(name for name in {*registered, *found} if registered.get(name) != found.get(name))
    if changed:
        raise ChangedModel(
            f"{version.name} version {version.version} is not what was registered: {', '.join(changed[:5])} changed"
            f" since, in {folder}; put a back-up's files there, let the version before answer (`perennial rollback`),"
            " or train again"
        )
