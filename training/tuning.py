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
from datetime import date
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from training.kinds import kind_of
from training.records import tracking
from training.trials import Judge, Plan
from workspace.remaining import Remaining
from workspace.settings import Boosting, Workspace
from workspace.storage import CheckFailed

if TYPE_CHECKING:
    import optuna
    from feast import FeatureStore
    from mlflow import MlflowClient

Say = Callable[[str], None]

SPACE: Mapping[str, tuple[float, float]] = {
    "rounds": (50, 600), "learning_rate": (0.01, 0.2), "num_leaves": (4, 64), "min_child_samples": (20, 400),
    "feature_fraction": (0.1, 1.0), "lambda_l2": (0.1, 100.0),
}  # fmt: skip
"""From, to; all but the share of features are searched in logarithms."""
_WHOLE = {"rounds", "num_leaves", "min_child_samples"}
_STARTUP = 5  # trials drawn at random, before the others' values say where to look


def plan(workspace: Workspace, kind: str, as_of: date) -> Plan:
    """As many reported dates as an untuned training has, or the latest of them where the history leaves room for few.

    Raises:
        CheckFailed: the history is too short to tune on anything but what is reported.
    """
    planned = kind_of(kind).plan(workspace, as_of)
    if planned is None:
        raise CheckFailed(
            f"{kind} cannot be tuned at {as_of}: no window closes before those that are reported on, with another one"
            " to learn from; ingest an earlier history, or shorten the horizon"
        )
    return planned


def cutoffs(workspace: Workspace, kind: str, as_of: date) -> list[date]:
    """Every as_of whose snapshot a tuning needs beside those of the training."""
    return kind_of(kind).tuning_days(workspace, as_of)


def tune(
    store: FeatureStore, workspace: Workspace, tracker: MlflowClient, kind: str, as_of: date, data: str, trials: int,
    say: Say = lambda _: None,
) -> tuple[Workspace, Plan]:  # fmt: skip
    """The workspace with the best `boosting` of so many trials, those of an earlier call with the same data among them.

    The first trial is what the workspace says; so the best is never worse than that on the dates tuned on.

    Raises:
        CheckFailed: as in `plan`.
    """
    of = kind_of(kind)
    kind, chosen = of.name, plan(workspace, of.name, as_of)
    say(f"{kind}: tuning on {', '.join(map(str, chosen.tuned))}; reported on {', '.join(map(str, chosen.reported))}")
    name = _name(workspace, kind, as_of, data, chosen)
    best = search(tracker, workspace, kind, name, trials, lambda: of.judges(store, workspace, as_of, chosen.tuned), say)
    say(f"{kind}: to keep this way to learn, write into the workspace's file\n{as_settings(kind, best)}")
    return _with(workspace, kind, best), chosen


def as_settings(kind: str, best: Mapping[str, float]) -> str:
    """As the workspace's file takes it."""
    return yaml.safe_dump({kind_of(kind).group: {"boosting": dict(best)}}, sort_keys=False).rstrip()


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
    study = _study(tracker, workspace.name, name)
    finished = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)
    done = len(study.get_trials(deepcopy=False, states=finished))
    if done:
        say(f"{kind}: {done} trials were made before{_best(study)}")
    judges, left = load() if done < trials else [], Remaining(trials - done)
    for number in range(done, trials):
        study.sampler = optuna.samplers.TPESampler(seed=workspace.training.seed + number, n_startup_trials=_STARTUP)
        if number == 0:
            study.enqueue_trial(_own(workspace, kind), skip_if_exists=True)
        study.optimize(lambda trial: _value(trial, workspace, kind, judges), n_trials=1)
        say(f"{kind}: trial {number + 1} of {trials}{left.after_one()}{_best(study)}")
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


def _study(tracker: MlflowClient, shop: str, name: str) -> optuna.Study:
    """The study of this name among the shop's, gone on with or new."""
    import optuna
    from mlflow.optuna.storage import MlflowStorage

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow calls its storage experimental
        experiment_id = tracking.experiment(tracker, shop)
        storage = MlflowStorage(experiment_id=experiment_id, batch_flush_interval=60.0)
    pruner = optuna.pruners.MedianPruner(n_startup_trials=_STARTUP)
    if storage.get_study_id_by_name_if_exists(name) is None:  # MLflow's storage would make a second one
        return optuna.create_study(storage=storage, study_name=name, direction="maximize", pruner=pruner)
    study = optuna.load_study(storage=storage, study_name=name, pruner=pruner)
    for trial in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
        storage.set_trial_state_values(trial._trial_id, optuna.trial.TrialState.FAIL)  # a kill cut it off
    return study


def _value(trial: optuna.Trial, workspace: Workspace, kind: str, judges: Sequence[Judge]) -> float:
    """The mean over the dates, the latest first: where it is worse than most after some, the others are left out."""
    import optuna

    settings, losses = _with(workspace, kind, {name: _drawn(trial, name) for name in SPACE}), []
    for place, judge in enumerate(reversed(judges)):
        losses.append(judge(settings))
        trial.report(float(np.mean(losses)), place)
        if place + 1 < len(judges) and trial.should_prune():
            raise optuna.TrialPruned
    return float(np.mean(losses))


def _drawn(trial: optuna.Trial, name: str) -> float:
    low, high = SPACE[name]
    if name in _WHOLE:
        return trial.suggest_int(name, int(low), int(high), log=True)
    return trial.suggest_float(name, low, high, log=name != "feature_fraction")


def _own(workspace: Workspace, kind: str) -> dict[str, float]:
    """What the workspace, or the model itself, would learn with, as near as the space allows."""
    of = kind_of(kind)
    own = {**of.boosting, **of.settings(workspace).boosting.model_dump(exclude_none=True)}
    return {name: min(max(own[name], low), high) for name, (low, high) in SPACE.items()}


def _with(workspace: Workspace, kind: str, boosting: Mapping[str, Any]) -> Workspace:
    of = kind_of(kind)
    group = of.settings(workspace).model_copy(update={"boosting": Boosting(**boosting)})
    return workspace.model_copy(update={of.group: group})
