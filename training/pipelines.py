"""Training end to end: dataset, model, backtest, MLflow run, registered version; a training already done is reused."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from features import snapshot
from perennial.registry import KINDS, as_kind
from perennial.settings import Workspace
from training import (
    backtest,
    churn,
    cross_sell,
    datasets,
    evaluation,
    labels,
    lifetime_value,
    offer_backtest,
    tracking,
    tuning,
)
from training.model_card import card
from training.models.churn_model import ChurnModel
from training.models.offer_model import OfferModel
from training.models.rule import OURS
from training.models.value_model import ValueModel

if TYPE_CHECKING:
    from feast import FeatureStore
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion


def cutoffs(workspace: Workspace, as_of: date, kinds: Sequence[str] = KINDS) -> list[date]:
    """Every as_of whose snapshot the trainings at `as_of` need, `as_of` itself last."""
    wanted = set(map(as_kind, kinds))
    found = [cross_sell.cutoffs(workspace, as_of)] if "cross_sell" in wanted else []
    if wanted - {"cross_sell"}:
        found.append(datasets.cutoffs(workspace, as_of))
    return [*sorted({day for days in found for day in days}), as_of]


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

    for kind in map(as_kind, kinds):
        settings, reported = workspace, None
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
            model, training = _TRAIN[kind](store, settings, as_of, dataset, reported)
        except cross_sell.NoCrossSell as problem:
            progress(f"cross_sell: {problem}")
            continue
        versions[kind] = tracking.record(tracker, settings, training, model, key)
        training.card(card_folder(workspace, kind, str(versions[kind].version)))
        progress(f"{kind}: version {versions[kind].version}, grade {training.grade.letter}: {training.grade.reason}")
        for remark in training.remarks:
            progress(f"{kind}: {remark}")
    return versions


def fit(store: FeatureStore, workspace: Workspace, kind: str, as_of: date, contender: str = OURS) -> _Model:
    """The model of a contender alone, neither judged nor recorded.

    Raises:
        CheckFailed: it cannot be learnt.
    """
    kind = as_kind(kind)
    if kind == "cross_sell":
        return cross_sell.train(workspace, as_of, None if contender == OURS else contender)
    data = datasets.load(store, workspace, as_of)
    if contender != OURS:
        simpler = (churn if kind == "churn" else lifetime_value).simpler
        return simpler(data, workspace, data.closed, data.current)[contender]
    if kind == "churn":
        return churn.train(data, workspace)
    return lifetime_value.fit(data, workspace, data.closed, data.current)


def card_folder(workspace: Workspace, kind: str, version: str) -> Path:
    """Where a version's card lies beside MLflow's copy: `card.html` and `card.json`."""
    return workspace.home_path / "reports" / "models" / f"{kind}-{version}"


_Reported = Sequence[date] | None  # None: those of an untuned training
_Dataset = Callable[[], datasets.Dataset]
_Model = ChurnModel | ValueModel | OfferModel
_Trained = tuple[_Model, tracking.Training]


def _train_churn(
    store: FeatureStore, workspace: Workspace, as_of: date, dataset: _Dataset, reported: _Reported
) -> _Trained:
    data = dataset()
    simpler = churn.simpler(data, workspace, data.closed, data.current)
    ours = backtest.learnt(lambda: churn.train(data, workspace), simpler)
    found = evaluation.of_churn(ours, *_to_judge(workspace, data, reported))
    model = simpler.get(found.choice.name, ours)
    assert model is not None
    return model, _training(workspace, model, found, as_of, _dates(data), data)


def _train_lifetime_value(
    store: FeatureStore, workspace: Workspace, as_of: date, dataset: _Dataset, reported: _Reported
) -> _Trained:
    data = dataset()
    simpler = lifetime_value.simpler(data, workspace, data.closed, data.current)
    ours = backtest.learnt(lambda: lifetime_value.fit(data, workspace, data.closed, data.current), simpler)
    found = evaluation.of_value(ours, *_to_judge(workspace, data, reported))
    model = simpler.get(found.choice.name, ours)
    assert model is not None
    return model, _training(workspace, model, found, as_of, _dates(data), data)


def _train_cross_sell(
    store: FeatureStore, workspace: Workspace, as_of: date, dataset: _Dataset, reported: _Reported
) -> _Trained:
    """Judged only where the snapshots that it learns from are enough: `perennial backtest` computes further ones."""
    model = cross_sell.train(workspace, as_of)
    closed = cross_sell.cutoffs(workspace, as_of)
    dates = offer_backtest.cutoffs(workspace, as_of, workspace.training.backtest_cutoffs, among=closed)
    dates = {day: learnt_from for day, learnt_from in dates.items() if reported is None or day in reported}
    found = evaluation.of_offers(workspace, as_of, dates)
    if found.choice.name != OURS:
        model = cross_sell.train(workspace, as_of, found.choice.name)
    return model, _training(workspace, model, found, as_of, closed)


def answers_by(model: _Model) -> str:
    """The plain name of what a model answers by."""
    if isinstance(model, OfferModel):
        return model.rule or OURS
    if isinstance(model, ValueModel):
        rule, boosters = model.rules.get("value"), bool(model.boosters)
    else:
        rule, boosters = model.rule, model.booster is not None
    return rule.name if rule else OURS if boosters else churn.HISTORIES


def _dates(data: datasets.Dataset) -> list[date]:
    return [cutoff.as_of for cutoff in data.closed]


def _to_judge(
    workspace: Workspace, data: datasets.Dataset, reported: _Reported
) -> tuple[datasets.Dataset, Workspace, Sequence[date]]:
    """What a training is judged on: the cutoffs that it has, and of many customers a sample, one for all models."""
    training = workspace.training
    if reported is None:
        reported = backtest.judged_dates(workspace, _dates(data), training.backtest_cutoffs)
    share = datasets.share_of(workspace, data.current.as_of, training.backtest_customers)
    return data.sampled(share), workspace, reported


def _training(
    workspace: Workspace, model: _Model, found: evaluation.Evaluation, as_of: date, closed: Sequence[date],
    data: datasets.Dataset | None = None,
) -> tracking.Training:  # fmt: skip
    """What to record; `data` are the customers learnt from, null for offers."""
    names = model.names if isinstance(model, OfferModel) else model.inputs.packed
    choice = found.choice
    own = model.remarks if isinstance(model, ChurnModel) else ()
    remarks = (*filter(None, (choice.reason, choice.no_skill, choice.withheld)), *own)
    fingerprint = snapshot.fingerprint(workspace)
    return tracking.Training(
        found.kind, as_of, closed, snapshot.features_hash(names), fingerprint, found.figures(),
        lambda folder: found.draw(folder, workspace.currency), found.grade, remarks, found.judged,
        card(workspace, model, found, as_of, closed, fingerprint, data, own, answers_by(model)).write,
        choice, answers_by(model),
    )  # fmt: skip


_TRAIN = {"churn": _train_churn, "lifetime_value": _train_lifetime_value, "cross_sell": _train_cross_sell}
