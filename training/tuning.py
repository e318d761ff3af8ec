"""Choosing how a model's boosters learn: Optuna's trials, judged on cutoffs that closed before any reported one.

A trial teaches the model at up to three earlier dates, as the backtest does, and its main metric there is the trial's
value; one that is worse than the median of the others so far is given up. The windows that a training reports on, and
that promotion compares at, begin only after the last of these has ended. The study lies in MLflow, a run per trial
below a run of its own, so a stopped tuning goes on; each trial's draw is seeded by its place, so it goes on as it would
have without the stop.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from perennial.registry import as_kind
from perennial.settings import Boosting, Workspace
from perennial.storage import CheckFailed
from training import backtest, cross_sell, datasets, offer_backtest, tracking
from training.grade import MEASURES
from training.models import churn_model, offer_model, value_model
from training.offer_backtest import JudgedOffers

if TYPE_CHECKING:
    import optuna
    from feast import FeatureStore
    from mlflow import MlflowClient

Say = Callable[[str], None]
Judge = Callable[[Workspace], float]

SPACE: Mapping[str, tuple[float, float]] = {
    "rounds": (50, 600), "learning_rate": (0.01, 0.2), "num_leaves": (4, 64), "min_child_samples": (20, 400),
    "feature_fraction": (0.1, 1.0), "lambda_l2": (0.1, 100.0),
}  # fmt: skip
"""From, to; all but the share of features are searched in logarithms."""
_WHOLE = {"rounds", "num_leaves", "min_child_samples"}
_DEFAULTS: Mapping[str, dict[str, Any]] = {
    "churn": churn_model.PARAMETERS | {"rounds": churn_model.ROUNDS},
    "lifetime_value": value_model.TREES | {"rounds": value_model.ROUNDS},
    "cross_sell": offer_model.PARAMETERS | {"rounds": offer_model.ROUNDS},
}
_DATES = 3
_STARTUP = 5  # trials drawn at random, before the others' values say where to look
_ENOUGH = 2  # cutoffs before a date that a trial is judged at: one to teach, one to calibrate


@dataclass(frozen=True)
class Plan:
    """Where to tune and where to report, oldest first; every window of the former has ended by the latter's first."""

    tuned: tuple[date, ...]
    reported: tuple[date, ...]


def plan(workspace: Workspace, kind: str, as_of: date) -> Plan:
    """As many reported dates as an untuned training has, or the latest of them where the history leaves room for few.

    Raises:
        CheckFailed: the history is too short to tune on anything but what is reported.
    """
    found = _plan_of_offers(workspace, as_of) if kind == "cross_sell" else _plan_of_customers(workspace, as_of)
    if found is None:
        raise CheckFailed(
            f"{kind} cannot be tuned at {as_of}: no window closes before those that are reported on, with another one"
            " to learn from; ingest an earlier history, or shorten the horizon"
        )
    return found


def _plan_of_customers(workspace: Workspace, as_of: date) -> Plan | None:
    count, days = workspace.training.backtest_cutoffs, datasets.outcome_days(workspace)
    if datasets.outcome_days(datasets.taught(workspace, as_of)) != days:
        return None
    closed = backtest.cutoffs(workspace, as_of, count + _DATES)
    reported = backtest.judged_dates(workspace, closed[-workspace.training.cutoffs :], count)
    while reported:
        before = [day for day in closed if (reported[0] - day).days >= days]
        able = [d for d in backtest.judged_dates(workspace, before, _DATES) if _learnt(d, before, days) >= _ENOUGH]
        if able:
            return Plan(tuple(able), tuple(reported))
        del reported[0]
    return None


def _learnt(day: date, closed: Sequence[date], days: int) -> int:
    return sum((day - cutoff).days >= days for cutoff in closed)


def _plan_of_offers(workspace: Workspace, as_of: date) -> Plan | None:
    closed, count = cross_sell.cutoffs(workspace, as_of), workspace.training.backtest_cutoffs
    reported = [*offer_backtest.cutoffs(workspace, as_of, count, among=closed)]
    able = [*offer_backtest.cutoffs(workspace, as_of, count + _DATES)]
    while reported:
        before = [day for day in able if day < reported[0]][-_DATES:]
        if before:
            return Plan(tuple(before), tuple(reported))
        del reported[0]
    return None


def cutoffs(workspace: Workspace, kind: str, as_of: date) -> list[date]:
    """Every as_of whose snapshot a tuning needs beside those of the training."""
    if as_kind(kind) != "cross_sell":
        return backtest.cutoffs(workspace, as_of, workspace.training.backtest_cutoffs + _DATES)
    wanted = offer_backtest.cutoffs(workspace, as_of, workspace.training.backtest_cutoffs + _DATES)
    return sorted({*wanted, *(day for learnt_from in wanted.values() for day in learnt_from)})


def tune(
    store: FeatureStore, workspace: Workspace, tracker: MlflowClient, kind: str, as_of: date, data: str, trials: int,
    say: Say = lambda _: None,
) -> tuple[Workspace, Plan]:  # fmt: skip
    """The workspace with the best `boosting` of so many trials, those of an earlier call with the same data among them.

    The first trial is what the workspace says; so the best is never worse than that on the dates tuned on.

    Raises:
        CheckFailed: as in `plan`.
    """
    kind = as_kind(kind)
    chosen = plan(workspace, kind, as_of)
    say(f"{kind}: tuning on {', '.join(map(str, chosen.tuned))}; reported on {', '.join(map(str, chosen.reported))}")
    name = _name(workspace, kind, as_of, data, chosen)
    best = search(
        tracker, workspace, kind, name, trials, lambda: _judges(store, workspace, kind, as_of, chosen.tuned), say
    )
    say(f"{kind}: to keep this way to learn, write into the workspace's file\n{as_settings(kind, best)}")
    return _with(workspace, kind, best), chosen


def as_settings(kind: str, best: Mapping[str, float]) -> str:
    """As the workspace's file takes it."""
    return yaml.safe_dump({kind: {"boosting": dict(best)}}, sort_keys=False).rstrip()


def search(
    tracker: MlflowClient, workspace: Workspace, kind: str, name: str, trials: int, load: Callable[[], list[Judge]],
    say: Say = lambda _: None,
) -> dict[str, float]:  # fmt: skip
    """The best point of `SPACE` by the mean of what the loaded judges say of it, after so many trials of this name.

    Raises:
        CheckFailed: no trial had a value.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = _study(tracker, workspace, name)
    finished = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)
    done = len(study.get_trials(deepcopy=False, states=finished))
    if done:
        say(f"{kind}: {done} trials were made before{_best(study)}")
    judges = load() if done < trials else []
    for number in range(done, trials):
        study.sampler = optuna.samplers.TPESampler(seed=workspace.training.seed + number, n_startup_trials=_STARTUP)
        if number == 0:
            study.enqueue_trial(_own(workspace, kind), skip_if_exists=True)
        study.optimize(lambda trial: _value(trial, workspace, kind, judges), n_trials=1)
        say(f"{kind}: trial {number + 1} of {trials}{_best(study)}")
    tracker.set_terminated(str(study._study_id))
    if not _best(study):
        raise CheckFailed(f"{kind}: none of {trials} trials could be judged: nothing differs in the outcomes")
    return study.best_params


def _best(study: optuna.Study) -> str:
    if all(trial.value is None for trial in study.get_trials(deepcopy=False)):
        return ""
    best = study.best_trial
    told = ", ".join(f"{name} {value:.4g}" for name, value in best.params.items())
    return f"; best {best.value:.4f} of trial {best.number + 1}: {told}"


def _name(workspace: Workspace, kind: str, as_of: date, data: str, chosen: Plan) -> str:
    """Of the study: another one for other data, settings, code, dates or space."""
    parts = [tracking.training_key(workspace, kind, as_of, data), str(chosen), sorted(SPACE.items())]
    return f"tuning {kind} {as_of} {hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]}"


def _study(tracker: MlflowClient, workspace: Workspace, name: str) -> optuna.Study:
    """The study of this name, gone on with or new."""
    import optuna
    from mlflow.optuna.storage import MlflowStorage

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow calls its storage experimental
        experiment_id = tracking.experiment(tracker, workspace.name)
        storage = MlflowStorage(experiment_id=experiment_id, batch_flush_interval=60.0)
    pruner = optuna.pruners.MedianPruner(n_startup_trials=_STARTUP)
    if storage.get_study_id_by_name_if_exists(name) is None:  # MLflow's storage would make a second one
        return optuna.create_study(storage=storage, study_name=name, direction="maximize", pruner=pruner)
    study = optuna.load_study(storage=storage, study_name=name, pruner=pruner)
    for trial in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
        storage.set_trial_state_values(trial._trial_id, optuna.trial.TrialState.FAIL)  # a kill cut it off
    return study


def _judges(store: FeatureStore, workspace: Workspace, kind: str, as_of: date, dates: Sequence[date]) -> list[Judge]:
    """For each date a function from settings to the main metric there; what all trials share is loaded once."""
    if kind == "cross_sell":
        learnt = offer_backtest.cutoffs(workspace, as_of, workspace.training.backtest_cutoffs + _DATES)
        return [_judge_of_offers(workspace, day, learnt[day], as_of) for day in dates]
    closed, most = cutoffs(workspace, kind, as_of), workspace.training.backtest_customers
    data = datasets.load(store, workspace, as_of, closed, most)
    return [_judge_of_customers(data, workspace, kind, day) for day in dates]


def _judge_of_customers(data: datasets.Dataset, workspace: Workspace, kind: str, day: date) -> Judge:
    cutoff = next(cutoff for cutoff in data.closed if cutoff.as_of == day)
    then, metric = backtest.known_at(data, workspace, cutoff), MEASURES[kind].order

    def judge(trial: Workspace) -> float:
        judged = backtest.JUDGES[kind](then, trial, cutoff, None)
        return judged.figures(judged.answers[0], np.arange(len(judged.actual)), (metric,))[metric]

    return judge


def _judge_of_offers(workspace: Workspace, day: date, learnt_from: Sequence[date], known_by: date) -> Judge:
    answered, top = cross_sell.learner(workspace, day, learnt_from, known_by), workspace.cross_sell.top

    def judge(trial: Workspace) -> float:
        judged = JudgedOffers.of(answered(trial), learnt_from, day, top)
        return judged.figures(judged.answers[0], np.arange(len(judged.customer_ids)))[f"ndcg{top}"]

    return judge


def _value(trial: optuna.Trial, workspace: Workspace, kind: str, judges: Sequence[Judge]) -> float:
    """The mean over the dates, the latest first: where it is worse than most after some, the others are left out."""
    import optuna

    settings, found = _with(workspace, kind, {name: _drawn(trial, name) for name in SPACE}), []
    for place, judge in enumerate(reversed(judges)):
        found.append(judge(settings))
        trial.report(float(np.mean(found)), place)
        if place + 1 < len(judges) and trial.should_prune():
            raise optuna.TrialPruned
    return float(np.mean(found))


def _drawn(trial: optuna.Trial, name: str) -> float:
    low, high = SPACE[name]
    if name in _WHOLE:
        return trial.suggest_int(name, int(low), int(high), log=True)
    return trial.suggest_float(name, low, high, log=name != "feature_fraction")


def _own(workspace: Workspace, kind: str) -> dict[str, float]:
    """What the workspace, or the model itself, would learn with, as near as the space allows."""
    own = _DEFAULTS[kind] | getattr(workspace, kind).boosting.model_dump(exclude_none=True)
    return {name: min(max(own[name], low), high) for name, (low, high) in SPACE.items()}


def _with(workspace: Workspace, kind: str, boosting: Mapping[str, Any]) -> Workspace:
    group = getattr(workspace, kind)
    return workspace.model_copy(update={kind: group.model_copy(update={"boosting": Boosting(**boosting)})})
