"""MLflow: one run and one registered version for every training, the same training never twice."""

from __future__ import annotations

import hashlib
import json
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from perennial.registry import model_name
from perennial.settings import Workspace
from training.grade import Grade

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

_ROOT = Path(__file__).resolve().parents[1]


class Savable(Protocol):
    def save(self, folder: Path) -> None: ...


@dataclass(frozen=True)
class Training:
    """What one run records, beside its model: `figures` by name, the grade, `draw` writes plots into a folder.

    `remarks` are sentences of the training about itself: a season corrected, a leak let through.
    """

    kind: str
    as_of: date
    cutoffs: Sequence[date]
    features_hash: str
    data: str
    figures: Mapping[str, float]
    draw: Callable[[Path], None]
    grade: Grade
    remarks: Sequence[str] = ()


def training_key(workspace: Workspace, kind: str, as_of: date, data: str) -> str:
    """Everything that a training depends on, hashed: two with the same key would give the same model."""
    settings = workspace.model_dump(
        mode="json", include={"churn", "lifetime_value", "cross_sell", "training", "timezone"}
    )
    for name in ("stock", "exclude", "margin_floor", "one_off", "kind"):  # what is offered, not what is learnt
        del settings["cross_sell"][name]
    folders = ("features", "training")
    code = [path.read_bytes().hex() for folder in folders for path in sorted((_ROOT / folder).rglob("*.py"))]
    return hashlib.sha256(json.dumps([kind, str(as_of), data, settings, code]).encode()).hexdigest()


def registered(tracker: MlflowClient, workspace: Workspace, kind: str, key: str) -> ModelVersion | None:
    """The version that was trained with this key, if there is one."""
    found = tracker.search_model_versions(f"name = '{model_name(workspace, kind)}' and tag.training_key = '{key}'")
    return max(found, key=lambda version: int(version.version), default=None)


def record(tracker: MlflowClient, workspace: Workspace, training: Training, model: Savable, key: str) -> ModelVersion:
    """Logs the run with its plots and model and registers the version, its key set in the same stroke."""
    import mlflow

    name = model_name(workspace, training.kind)
    experiment_id = _experiment(workspace.name)
    _close_killed(tracker, experiment_id, key)
    grade = {"grade": training.grade.letter, "grade_reason": training.grade.reason}
    title = f"{training.kind} {training.as_of}"
    with (
        mlflow.start_run(experiment_id=experiment_id, run_name=title, tags={"training_key": key}) as run,
        tempfile.TemporaryDirectory() as scratch,
    ):
        mlflow.log_params(_parameters(workspace, training))
        mlflow.set_tags({"git_commit": _commit(), "remarks": ". ".join(training.remarks)} | grade)
        mlflow.log_metrics({name: value for name, value in training.figures.items() if value == value})
        mlflow.log_dict(workspace.model_dump(mode="json"), "settings.json")
        plots, stored = Path(scratch) / "plots", Path(scratch) / "model"
        plots.mkdir()
        training.draw(plots)
        mlflow.log_artifacts(str(plots), "plots")
        model.save(stored)
        logged = mlflow.pyfunc.log_model(
            name="model", data_path=str(stored), loader_module=type(model).__module__, pip_requirements=["perennial"]
        )
    if not tracker.search_registered_models(f"name = '{name}'"):
        tracker.create_registered_model(name)
    tags = {"training_key": key, "as_of": str(training.as_of), "features_hash": training.features_hash} | grade
    return tracker.create_model_version(name, logged.model_uri, run.info.run_id, tags=tags, model_id=logged.model_id)


def record_backtest(
    workspace: Workspace, as_of: date, tags: Mapping[str, str], figures: Mapping[date, Mapping[str, float]],
    draw: Callable[[Path], None], files: Sequence[Path],
) -> str:  # fmt: skip
    """Logs a backtest as a run of its own and returns the run's id; a figure's step is its day, counted from 1970."""
    import mlflow

    experiment_id, title = _experiment(workspace.name), f"backtest {as_of}"
    with (
        mlflow.start_run(experiment_id=experiment_id, run_name=title, tags=dict(tags)) as run,
        tempfile.TemporaryDirectory() as scratch,
    ):
        mlflow.log_params({"as_of": str(as_of), "seed": workspace.training.seed})
        mlflow.set_tags({"git_commit": _commit()})
        for day, found in figures.items():
            known = {name: value for name, value in found.items() if value == value}
            mlflow.log_metrics(known, step=(day - date(1970, 1, 1)).days)
        mlflow.log_dict(workspace.model_dump(mode="json"), "settings.json")
        draw(Path(scratch))
        mlflow.log_artifacts(scratch, "plots")
        for file in files:
            mlflow.log_artifact(str(file))
    return str(run.info.run_id)


def _close_killed(tracker: MlflowClient, experiment_id: str, key: str) -> None:
    """Marks the runs of this training that a kill cut off; MLflow would show them as running for ever."""
    cut_off = f"tags.training_key = '{key}' and attributes.status = 'RUNNING'"
    for run in tracker.search_runs([experiment_id], cut_off):
        tracker.set_terminated(run.info.run_id, "KILLED")


def _experiment(name: str) -> str:
    import mlflow

    if (experiment := mlflow.get_experiment_by_name(name)) is not None:
        return str(experiment.experiment_id)
    uri = mlflow.get_tracking_uri()
    location = None
    if uri.startswith("sqlite:///"):
        location = (Path(uri.removeprefix("sqlite:///")).parent / "artifacts" / name).resolve().as_uri()
    return str(mlflow.create_experiment(name, artifact_location=location))


def _parameters(workspace: Workspace, training: Training) -> dict[str, Any]:
    settings = getattr(workspace, training.kind).model_dump(mode="json")
    return settings | {
        "as_of": str(training.as_of),
        "cutoffs": " ".join(map(str, training.cutoffs)),
        "seed": workspace.training.seed,
        "feature_service": f"{training.kind}_v1",
        "features_hash": training.features_hash,
        "data_fingerprint": training.data,
    }


def _commit() -> str:
    """The commit that the code is at, `-dirty` behind it where files differ; `unknown` outside a checkout."""
    ask = ["git", "-C", str(_ROOT), "describe", "--always", "--dirty", "--abbrev=40"]
    answer = subprocess.run(ask, capture_output=True, text=True, check=False)
    return answer.stdout.strip() or "unknown"
