"""Training end to end: dataset, model, backtest, MLflow run, registered version; a training already done is reused."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from features import online, snapshot
from perennial.registry import KINDS
from perennial.settings import Workspace
from training import churn, cross_sell, datasets, lifetime_value, plots, tracking

if TYPE_CHECKING:
    from feast import FeatureStore
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion


def cutoffs(workspace: Workspace, as_of: date) -> list[date]:
    """Every as_of whose snapshot the trainings at `as_of` need, `as_of` itself last."""
    of_churn = {*datasets.cutoffs(workspace, as_of), *datasets.shorter_cutoffs(workspace, as_of)}
    learnt_from = {*of_churn, *cross_sell.cutoffs(workspace, as_of)}
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
        figures = ", ".join(f"{name} {value:.3f}" for name, value in list(training.figures.items())[:6])
        progress(f"{kind}: version {versions[kind].version}; {figures or training.notes}")
        if figures and training.notes:
            progress(f"{kind}: {training.notes}")
    return versions


_Dataset = Callable[[], datasets.Dataset]
_NO_BACKTEST = "no labelled window to judge it on: learnt from purchase histories alone"


def _train_churn(
    store: FeatureStore, workspace: Workspace, as_of: date, dataset: _Dataset
) -> tuple[tracking.Savable, tracking.Training]:
    model, backtest = churn.train(dataset(), workspace)

    def draw(folder: Path) -> None:
        if backtest is not None:
            plots.calibration(backtest.actual, backtest.predicted, folder / "calibration.png", "churn")
            plots.lift(backtest.actual, backtest.predicted, folder / "lift.png", "churn")

    training = _training(workspace, "churn", as_of, dataset(), backtest.figures() if backtest else {}, draw)
    return model, replace(training, notes="; ".join(filter(None, (training.notes, *model.remarks))))


def _train_lifetime_value(
    store: FeatureStore, workspace: Workspace, as_of: date, dataset: _Dataset
) -> tuple[tracking.Savable, tracking.Training]:
    model, backtest = lifetime_value.train(dataset(), workspace)

    def draw(folder: Path) -> None:
        if backtest is not None:
            plots.deciles(backtest.actual, backtest.predicted, folder / "deciles.png", workspace.currency)
            plots.lift(backtest.actual, backtest.predicted, folder / "lift.png", "spend")

    return model, _training(workspace, "lifetime_value", as_of, dataset(), backtest.figures() if backtest else {}, draw)


def _train_cross_sell(
    store: FeatureStore, workspace: Workspace, as_of: date, dataset: _Dataset
) -> tuple[tracking.Savable, tracking.Training]:
    model, backtest = cross_sell.train(store, workspace, as_of)

    def draw(folder: Path) -> None:
        if backtest is not None:
            plots.calibration(backtest.bought, backtest.predicted, folder / "calibration.png", "a purchase")
            plots.lift(backtest.bought, backtest.predicted, folder / "lift.png", "purchases")

    return model, tracking.Training(
        "cross_sell", as_of, cross_sell.cutoffs(workspace, as_of), snapshot.features_hash(model.names),
        snapshot.fingerprint(workspace), backtest.figures() if backtest else {}, draw,
        "" if backtest else "no second closed window to judge it on",
    )  # fmt: skip


def _training(
    workspace: Workspace, kind: str, as_of: date, data: datasets.Dataset, figures: dict[str, float],
    draw: Callable[[Path], None],
) -> tracking.Training:  # fmt: skip
    return tracking.Training(
        kind, as_of, [cutoff.as_of for cutoff in data.closed], online.expected_hash(workspace),
        snapshot.fingerprint(workspace), figures, draw, "" if figures else _NO_BACKTEST,
    )  # fmt: skip


_TRAIN = {"churn": _train_churn, "lifetime_value": _train_lifetime_value, "cross_sell": _train_cross_sell}
