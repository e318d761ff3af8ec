"""MLflow: one run and one registered version for every training, the same training never twice."""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from features import snapshot
from training.backtests.choice import OURS_ANSWERS, Choice
from training.backtests.grade import Grade
from training.backtests.scoreboard import JudgedCutoff
from training.learning.datasets import outcome_days
from training.models.rule import OURS
from training.records import carried, judged_windows
from workspace import digests, registry, settings, source_code
from workspace.consents import said_of_profiling
from workspace.registry import DIGESTS, model_name
from workspace.settings import SettingsError, Workspace
from workspace.storage import CheckFailed

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.models.model import ModelInfo

ROOT = Path(__file__).resolve().parents[2]


class Model(Protocol):
    """What every kind's model can do, whatever it answers."""

    @property
    def columns(self) -> tuple[str, ...]: ...
    @property
    def answers_by(self) -> str: ...
    @property
    def remarks(self) -> tuple[str, ...]: ...
    def predict(self, rows: NDArray[np.float32]) -> NDArray[np.floating]: ...
    def save(self, folder: Path) -> None: ...
    @classmethod
    def load(cls, folder: Path) -> Self: ...


class RecordedKind(Protocol):
    """A kind of model, as far as what is recorded of it is concerned; `training.kinds` says more."""

    @property
    def name(self) -> str: ...
    @property
    def group(self) -> str: ...
    @property
    def answer(self) -> str: ...
    @property
    def model(self) -> type[Model]: ...
    def columns(self, workspace: Workspace) -> tuple[str, ...]: ...
    def features_hash(self, workspace: Workspace) -> str: ...


@dataclass(frozen=True)
class Training:
    """What one run records, beside its model: `figures` by name, the grade, `draw` writes plots into a folder.

    `remarks` are sentences of the training about itself: a season corrected, a leak let through. `judged` is what
    the figures are of; `card` writes the model's card into a folder. `choice` says which contender was the one to
    answer, `answers_by` in plain words what the model that it made answers by.
    """

    kind: RecordedKind
    as_of: date
    cutoffs: Sequence[date]
    features_hash: str
    data: str
    figures: Mapping[str, float]
    draw: Callable[[Path], None]
    grade: Grade
    remarks: Sequence[str] = ()
    judged: Sequence[JudgedCutoff] = ()
    card: Callable[[Path], None] = lambda folder: None
    choice: Choice = OURS_ANSWERS
    answers_by: str = OURS


_LEARNING = (
    *(f"learning/{name}.py" for name in (
        "churn", "lifetime_value", "cross_sell", "datasets", "deciles", "labels", "season",
    )),
    "backtests/choice.py", "models/*.py",
)  # fmt: skip
"""The code that a model comes from; the rest of it judges, records and shows."""
_LIBRARIES = ("python", "duckdb", "ibis-framework", "lightgbm", "numpy", "pandas", "scikit-learn", "scipy")


def code() -> str:
    """A hash of the code that models come from."""
    files = [path for pattern in _LEARNING for path in sorted((ROOT / "training").glob(pattern))]
    return source_code.hashed(files)[:16]


def recipe(workspace: Workspace, kind: RecordedKind, features_hash: str) -> str:
    """How a model is made, hashed, whatever the data: two versions with the same one differ in what they learnt from.

    The other kinds' settings count as far as they say which windows are learnt from.
    """
    own = workspace.model_dump(
        mode="json", include={kind.group: True, "training": {"cutoffs", "customers", "spacing", "min_history"}}
    )
    windows = [outcome_days(workspace), workspace.churn.active_window, workspace.timezone]
    return hashlib.sha256(json.dumps([kind.name, own, windows, features_hash, code()]).encode()).hexdigest()[:16]


def libraries() -> dict[str, str]:
    """The versions of what a model's numbers depend on."""
    return {name: platform.python_version() if name == "python" else version(name) for name in _LIBRARIES}


def training_key(workspace: Workspace, kind: str, as_of: date, data: str) -> str:
    """Everything that a training depends on, hashed: two with the same key would give the same model."""
    shaping = workspace.model_dump(
        mode="json", include={"churn", "lifetime_value", "cross_sell", "training", "timezone"}
    )
    for name in ("stock", "exclude", "margin_floor", "one_off", "kind"):  # what is offered, not what is learnt
        del shaping["cross_sell"][name]
    folders = ("features", "training")
    code = source_code.hashed(path for folder in folders for path in sorted((ROOT / folder).rglob("*.py")))
    said = sorted(said_of_profiling(workspace.home_path).items())
    return hashlib.sha256(json.dumps([kind, str(as_of), data, shaping, code, said]).encode()).hexdigest()


def registered(tracker: MlflowClient, workspace: Workspace, kind: str, key: str) -> ModelVersion | None:
    """The version that was trained with this key, if there is one."""
    versions = tracker.search_model_versions(f"name = '{model_name(workspace, kind)}' and tag.training_key = '{key}'")
    return max(versions, key=lambda version: int(version.version), default=None)


def record(tracker: MlflowClient, workspace: Workspace, training: Training, model: Model, key: str) -> ModelVersion:
    """Logs the run with its plots and model and registers the version, its key set in the same stroke."""
    import mlflow

    name, title = model_name(workspace, training.kind.name), f"{training.kind.name} {training.as_of}"
    experiment_id = experiment(tracker, workspace.name)
    _close_killed(tracker, experiment_id, key)
    with (
        mlflow.start_run(experiment_id=experiment_id, run_name=title, tags={"training_key": key}) as run,
        tempfile.TemporaryDirectory() as scratch,
    ):
        _log_training(workspace, training, Path(scratch))
        judged_windows.write(workspace.home_path, run.info.run_id, training.judged)
        logged, written = _log_model(workspace, training, model, Path(scratch))
    if not tracker.search_registered_models(f"name = '{name}'"):
        tracker.create_registered_model(name)
    tags = _graded(training) | {
        "training_key": key, "as_of": str(training.as_of), "features_hash": training.features_hash, "code": code(),
        "recipe": recipe(workspace, training.kind, training.features_hash), DIGESTS: json.dumps(written),
    }  # fmt: skip
    if (sold := registry.sales(workspace, training.as_of)) is not None:
        tags["sales"] = json.dumps(sold._asdict())
    return tracker.create_model_version(name, logged.model_uri, run.info.run_id, tags=tags, model_id=logged.model_id)


def _graded(training: Training) -> dict[str, str]:
    """The tags that run and version share: the grade, and what answers."""
    withheld = {"withheld": training.choice.withheld} if training.choice.withheld else {}
    told = {"answers_by": training.answers_by, "contender": training.choice.name} | withheld
    return {"grade": training.grade.letter, "grade_reason": training.grade.reason} | told


def _log_training(workspace: Workspace, training: Training, scratch: Path) -> None:
    """What the training was made from and came to, its plots and its card; into the run that is open."""
    import mlflow

    mlflow.log_params(_parameters(workspace, training))
    mlflow.set_tags({"git_commit": commit(), "remarks": ". ".join(training.remarks)} | _graded(training))
    mlflow.log_metrics({name: value for name, value in training.figures.items() if value == value})
    mlflow.log_dict(workspace.model_dump(mode="json"), "settings.json")
    mlflow.log_dict(libraries(), "libraries.json")
    mlflow.log_dict(snapshot.contents(workspace, training.as_of), "data.json")
    plots, kept = scratch / "plots", scratch / "kept"
    plots.mkdir()
    training.draw(plots)
    mlflow.log_artifacts(str(plots), "plots")
    kept.mkdir()
    training.card(kept)
    mlflow.log_artifacts(str(kept))


def _log_model(
    workspace: Workspace, training: Training, model: Model, scratch: Path
) -> tuple[ModelInfo, dict[str, str]]:
    """The model with its code and what it learnt from, into the run that is open; and the digests of its files."""
    import mlflow

    stored, module = scratch / "model", type(model).__module__
    model.save(stored)
    written, columns = digests.of(stored), training.kind.columns(workspace)
    made_from = (training.data, training.features_hash, *map(str, training.cutoffs))
    learnt = carried.training_set(workspace, training.kind.name, training.as_of, columns, made_from)
    mlflow.log_input(learnt, context="training")
    logged = mlflow.pyfunc.log_model(
        name="model", data_path=str(stored), loader_module=module,
        code_paths=carried.code(module, scratch / "code"), pip_requirements=carried.requirements(module),
        signature=carried.signature(columns, training.kind.answer), input_example=carried.example(columns),
    )  # fmt: skip
    return logged, written


def record_backtest(
    tracker: MlflowClient, workspace: Workspace, as_of: date, tags: Mapping[str, str],
    figures: Mapping[date, Mapping[str, float]], draw: Callable[[Path], None], files: Sequence[Path],
) -> str:  # fmt: skip
    """Logs a backtest as a run of its own and returns the run's id; a figure's step is its day, counted from 1970."""
    import mlflow

    experiment_id, title = experiment(tracker, workspace.name), f"backtest {as_of}"
    with (
        mlflow.start_run(experiment_id=experiment_id, run_name=title, tags=dict(tags)) as run,
        tempfile.TemporaryDirectory() as scratch,
    ):
        mlflow.log_params({"as_of": str(as_of), "seed": workspace.training.seed})
        mlflow.set_tags({"git_commit": commit()})
        for day, values in figures.items():
            known = {name: value for name, value in values.items() if value == value}
            mlflow.log_metrics(known, step=(day - date(1970, 1, 1)).days)
        mlflow.log_dict(workspace.model_dump(mode="json"), "settings.json")
        draw(Path(scratch))
        mlflow.log_artifacts(scratch, "plots")
        for file in files:
            mlflow.log_artifact(str(file))
    return str(run.info.run_id)


def belongs(tracker: MlflowClient, name: str, run_id: str, title: str) -> Run:
    """The run, once it is sure that it is one of this workspace; `title` names whose run it is.

    Raises:
        CheckFailed: the run is gone, or another workspace's.
    """
    from mlflow.exceptions import MlflowException

    try:
        run = tracker.get_run(run_id)
    except MlflowException as problem:
        if problem.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise CheckFailed(f"{title}: MLflow has no run {run_id or 'of it'} (any more)") from problem
        raise
    owner = tracker.get_experiment(run.info.experiment_id).name
    if owner != name:
        raise CheckFailed(f"{title}: run {run_id} is of the workspace {owner}, not of {name}")
    return run


def training_run(tracker: MlflowClient, text: str) -> Run:
    """The run of a training, by its id or by a version that it made, such as `demo.churn/3`.

    Raises:
        CheckFailed: there is no such run or version, or the run is no training.
    """
    from mlflow.exceptions import MlflowException

    name, slash, number = text.rpartition("/")
    try:
        run_id = tracker.get_model_version(name.replace("-", "_"), number).run_id if slash else text
        run = tracker.get_run(str(run_id))
    except MlflowException as problem:
        if problem.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            models = sorted(f"{model.name}/1" for model in tracker.search_registered_models())
            wanted = f"a version, such as {' or '.join(models)}" if models else "a version, once there is one"
            raise CheckFailed(
                f"MLflow has no {'version' if slash else 'run'} {text}; name a run's id, or {wanted}"
            ) from problem
        raise
    if "feature_service" not in run.data.params:
        raise CheckFailed(f"run {text} ({run.info.run_name}) is no training: it made no model")
    return run


def kind_of(run: Run) -> str:
    """Which model a training made."""
    return str(run.data.params["feature_service"]).removesuffix("_v1")


def settings_of(kept: Path, run_id: str) -> Workspace:
    """The workspace that a run, whose files are `kept`, was made with.

    Raises:
        CheckFailed: it has settings that this code does not know.
    """
    try:
        return settings.parse(json.loads((kept / "settings.json").read_text(encoding="utf-8")), f"run {run_id}")
    except SettingsError as problem:
        raise CheckFailed(f"run {run_id} was recorded by another version of Perennial: {problem}") from problem


def artifacts(tracker: MlflowClient, run_id: str) -> Path:
    """Where the files of a run lie on this machine.

    Raises:
        CheckFailed: they are gone.
    """
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        folder = Path(mlflow.artifacts.download_artifacts(run_id=run_id, tracking_uri=tracker.tracking_uri))
    except (MlflowException, OSError) as problem:
        raise CheckFailed(f"the files of run {run_id} cannot be read: {problem}") from problem
    if not (folder / "settings.json").exists():
        raise CheckFailed(f"the files of run {run_id} are gone from {folder}")
    return folder


def _close_killed(tracker: MlflowClient, experiment_id: str, key: str) -> None:
    """Marks the runs of this training that a kill cut off; MLflow would show them as running for ever."""
    cut_off = f"tags.training_key = '{key}' and attributes.status = 'RUNNING'"
    for run in tracker.search_runs([experiment_id], cut_off):
        tracker.set_terminated(run.info.run_id, "KILLED")


def experiment(tracker: MlflowClient, name: str) -> str:
    """The id of a workspace's experiment, made where there is none yet; what is logged next goes to it."""
    registry.turn_to(tracker)
    if (experiment := tracker.get_experiment_by_name(name)) is not None:
        return str(experiment.experiment_id)
    uri = tracker.tracking_uri
    location = None
    if uri.startswith("sqlite:///"):
        location = (Path(uri.removeprefix("sqlite:///")).parent / "artifacts" / name).resolve().as_uri()
    return str(tracker.create_experiment(name, artifact_location=location))


def _parameters(workspace: Workspace, training: Training) -> dict[str, Any]:
    own = getattr(workspace, training.kind.group).model_dump(mode="json")
    return own | {
        "as_of": str(training.as_of),
        "cutoffs": " ".join(map(str, training.cutoffs)),
        "seed": workspace.training.seed,
        "feature_service": f"{training.kind.name}_v1",
        "features_hash": training.features_hash,
        "data_fingerprint": training.data,
        "answers_by": training.answers_by,
        "contender": training.choice.name,
    }


def commit() -> str:
    """The commit that the code is at, `-dirty` behind it where files differ; `unknown` outside a checkout."""
    ask = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=40"]
    answer = subprocess.run(ask, capture_output=True, text=True, check=False)
    return answer.stdout.strip() or "unknown"
