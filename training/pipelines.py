"""Training end to end: dataset, model, backtest, MLflow run, registered version; a training already done is reused."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date
from typing import TYPE_CHECKING

from features import online, snapshot
from perennial.registry import KINDS
from perennial.settings import Workspace
from training import backtest, churn, cross_sell, datasets, evaluation, labels, lifetime_value, offer_backtest, tracking

if TYPE_CHECKING:
    from feast import FeatureStore
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion


def cutoffs(workspace: Workspace, as_of: date) -> list[date]:
    """Every as_of whose snapshot the trainings at `as_of` need, `as_of` itself last."""
    learnt_from = {*datasets.cutoffs(workspace, as_of), *cross_sell.cutoffs(workspace, as_of)}
    return [*sorted(learnt_from), as_of]


def train(
    store: FeatureStore,
    workspace: Workspace,
    tracker: MlflowClient,
    as_of: date,
    kinds: Sequence[str] = KINDS,
    progress: Callable[[str], None] = lambda _: None,
) -> dict[str, ModelVersion]:
    """The registered version of each kind for `as_of`; kinds that the data cannot teach are left out, with a word why.

    Raises:
        CheckFailed: churn or lifetime value cannot be learnt.
    """
    if (until := labels.recorded_until(workspace, as_of)) < as_of:
        progress(f"no purchase is recorded after {until}, a silence as never before: no later window counts as closed")
    data = snapshot.fingerprint(workspace)
    keys = {kind: tracking.training_key(workspace, kind, as_of, data) for kind in kinds}
    done = {kind: tracking.registered(tracker, workspace, kind, key) for kind, key in keys.items()}
    versions = {kind: version for kind, version in done.items() if version is not None}

    @functools.cache
    def dataset() -> datasets.Dataset:
        return datasets.load(store, workspace, as_of)

    for kind in kinds:
        if kind in versions:
            progress(f"{kind}: version {versions[kind].version} was trained on the same data and settings before")
            continue
        try:
            model, training = _TRAIN[kind](store, workspace, as_of, dataset)
        except cross_sell.NoCrossSell as problem:
            progress(f"cross_sell: {problem}")
            continue
        versions[kind] = tracking.record(tracker, workspace, training, model, keys[kind])
        progress(f"{kind}: version {versions[kind].version}, grade {training.grade.letter}: {training.grade.reason}")
        for remark in training.remarks:
            progress(f"{kind}: {remark}")
    return versions


_Dataset = Callable[[], datasets.Dataset]
_Trained = tuple[tracking.Savable, tracking.Training]


def _train_churn(store: FeatureStore, workspace: Workspace, as_of: date, dataset: _Dataset) -> _Trained:
    data = dataset()
    model = churn.train(data, workspace)
    found = evaluation.of_churn(model, *_to_judge(store, workspace, data))
    training = _training(workspace, found, as_of, _dates(data), online.expected_hash(workspace))
    return model, replace(training, remarks=model.remarks)


def _train_lifetime_value(store: FeatureStore, workspace: Workspace, as_of: date, dataset: _Dataset) -> _Trained:
    data = dataset()
    model = lifetime_value.fit(data, workspace, data.closed, data.current)
    found = evaluation.of_value(model, *_to_judge(store, workspace, data))
    return model, _training(workspace, found, as_of, _dates(data), online.expected_hash(workspace))


def _train_cross_sell(store: FeatureStore, workspace: Workspace, as_of: date, dataset: _Dataset) -> _Trained:
    """Judged only where the snapshots that it learns from are enough: `perennial backtest` computes further ones."""
    model = cross_sell.train(store, workspace, as_of)
    closed = cross_sell.cutoffs(workspace, as_of)
    dates = offer_backtest.cutoffs(workspace, as_of, workspace.training.backtest_cutoffs, among=closed)
    found = evaluation.of_offers(store, workspace, as_of, dates)
    return model, _training(workspace, found, as_of, closed, snapshot.features_hash(model.names))


def _dates(data: datasets.Dataset) -> list[date]:
    return [cutoff.as_of for cutoff in data.closed]


def _to_judge(
    store: FeatureStore, workspace: Workspace, data: datasets.Dataset
) -> tuple[datasets.Dataset, Workspace, list[date]]:
    """What a training is judged on: the cutoffs that it has, and of many customers a sample."""
    most, closed = workspace.training.backtest_customers, _dates(data)
    if len(data.current.customer_ids) > most:
        data = datasets.load(store, workspace, data.current.as_of, most=most)
    return data, workspace, backtest.judged_dates(workspace, closed, workspace.training.backtest_cutoffs)


def _training(
    workspace: Workspace, found: evaluation.Evaluation, as_of: date, closed: Sequence[date], features_hash: str
) -> tracking.Training:
    return tracking.Training(
        found.kind, as_of, closed, features_hash, snapshot.fingerprint(workspace), found.figures(),
        lambda folder: found.draw(folder, workspace.currency), found.grade,
    )  # fmt: skip


_TRAIN = {"churn": _train_churn, "lifetime_value": _train_lifetime_value, "cross_sell": _train_cross_sell}
