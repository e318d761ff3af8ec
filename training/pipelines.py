"""Training end to end: dataset, model, backtest, MLflow run, registered version; a training already done is reused."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from features import snapshot
from training import tuning
from training.kinds import Kind, Trained, kind_of
from training.learning import datasets, labels
from training.models.rule import OURS
from training.records import tracking
from training.records.model_card import card
from workspace.registry import KINDS
from workspace.settings import Workspace

if TYPE_CHECKING:
    from feast import FeatureStore
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion


def cutoffs(workspace: Workspace, as_of: date, kinds: Sequence[str] = KINDS) -> list[date]:
    """Every as_of whose snapshot the trainings at `as_of` need, `as_of` itself last."""
    asked = {kind_of(name).cutoffs for name in kinds}  # of kinds that learn from the same days once
    return [*sorted({day for days in asked for day in days(workspace, as_of)}), as_of]


def train(
    store: FeatureStore,
    workspace: Workspace,
    tracker: MlflowClient,
    as_of: date,
    kinds: Sequence[str] = KINDS,
    progress: Callable[[str], None] = lambda _: None,
    trials: int = 0,
) -> dict[str, ModelVersion]:
    """The registered version of each kind for `as_of`; kinds that the data cannot teach are left out, with a word why.

    With `trials`, so many ways for the boosters to learn are tried first, and the best one is trained.

    Raises:
        CheckFailed: churn or lifetime value cannot be learnt, or the history is too short to tune on.
    """
    if (until := labels.recorded_until(workspace, as_of)) < as_of:
        progress(f"no purchase is recorded after {until}, a silence as never before: no later window counts as closed")
    data, versions = snapshot.fingerprint(workspace), {}

    @functools.cache
    def dataset() -> datasets.Dataset:
        return datasets.load(store, workspace, as_of)

    for of in map(kind_of, kinds):
        kind, settings, reported = of.name, workspace, None
        if trials:
            settings, plan = tuning.tune(store, workspace, tracker, kind, as_of, data, trials, progress)
            reported = plan.reported
        key = tracking.training_key(settings, kind, as_of, data)
        done = tracking.registered(tracker, workspace, kind, key)
        if done is not None:
            progress(f"{kind}: version {done.version} was trained on the same data and settings before")
            versions[kind] = done
            continue
        try:
            trained = of.train(settings, as_of, dataset, reported, _about(kind, progress))
        except datasets.NotLearnt as problem:
            progress(f"{kind}: {problem}")
            continue
        training = _training(of, settings, as_of, trained)
        versions[kind] = tracking.record(tracker, settings, training, trained.model, key)
        training.card(card_folder(workspace.home_path, kind, str(versions[kind].version)))
        progress(f"{kind}: version {versions[kind].version}, grade {training.grade.letter}: {training.grade.reason}")
        for remark in training.remarks:
            progress(f"{kind}: {remark}")
    return versions


def fit(store: FeatureStore, workspace: Workspace, kind: str, as_of: date, contender: str = OURS) -> tracking.Model:
    """The model of a contender alone, neither judged nor recorded.

    Raises:
        CheckFailed: it cannot be learnt.
    """
    return kind_of(kind).fit(store, workspace, as_of, contender)


def card_folder(home: Path, kind: str, version: str) -> Path:
    """Where a version's card lies beside MLflow's copy: `card.html` and `card.json`."""
    return home / "reports" / "models" / f"{kind}-{version}"


def _about(kind: str, progress: Callable[[str], None]) -> Callable[[str], None]:
    return lambda line: progress(f"{kind}: {line}")


def _training(kind: Kind, workspace: Workspace, as_of: date, trained: Trained) -> tracking.Training:
    """What to record."""
    model, evaluation, closed = trained.model, trained.evaluation, trained.closed
    choice, fingerprint = evaluation.choice, snapshot.fingerprint(workspace)
    remarks = (*filter(None, (choice.reason, choice.no_skill, choice.withheld)), *model.remarks)
    told = card(workspace, evaluation, as_of, closed, fingerprint, trained.drivers, model.remarks, model.answers_by)
    return tracking.Training(
        kind, as_of, closed, snapshot.features_hash(model.columns), fingerprint, evaluation.figures(),
        evaluation.draw, evaluation.grade, remarks, evaluation.judged,
        told.write, choice, model.answers_by,
    )  # fmt: skip
