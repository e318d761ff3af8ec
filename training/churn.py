"""Learning who leaves: a booster on several cutoffs, calibrated on a later one, beside what the history alone says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perennial.settings import Workspace
from perennial.storage import CheckFailed
from training import metrics
from training.datasets import Cutoff, Dataset, outcome_days, stacked
from training.models.bg_nbd import MINIMUM_REPEAT_BUYERS
from training.models.churn_model import ChurnModel, fit_booster

Floats = NDArray[np.floating]

MIN_OUTCOMES = 100
"""Of either kind; with fewer, a booster learns the accidents of the sample."""


@dataclass(frozen=True)
class Backtest:
    """The model as it would have been trained at the latest closed cutoff, against what then happened."""

    actual: Floats
    predicted: Floats
    naive: Floats

    def figures(self) -> dict[str, float]:
        """Metrics of the model, and of the naive rule (who has been silent longest), by name."""
        return {
            "auc": metrics.auc(self.actual, self.predicted),
            "average_precision": metrics.average_precision(self.actual, self.predicted),
            "brier": metrics.brier(self.actual, self.predicted),
            "log_loss": metrics.log_loss(self.actual, self.predicted),
            "ece": metrics.ece(self.actual, self.predicted),
            "lift10": metrics.lift_at(self.actual, self.predicted, 0.1),
            "naive_auc": metrics.auc(self.actual, self.naive),
        }


def train(data: Dataset, workspace: Workspace) -> tuple[ChurnModel, Backtest | None]:
    """The model for `data.current`, and its backtest where an earlier training has a closed window to be judged on.

    Raises:
        CheckFailed: neither a labelled window nor enough returning customers to learn from.
    """
    model = fit(data, workspace, data.closed, data.current)
    return model, _backtest(data, workspace)


def fit(data: Dataset, workspace: Workspace, closed: Sequence[Cutoff], current: Cutoff) -> ChurnModel:
    """The model for `current`, from `closed` cutoffs alone; the latest of them calibrates, the earlier ones teach.

    The booster is then taught again by all of them, under the line that the calibration found.
    """
    churn = workspace.churn
    if current.history_model is None:
        raise CheckFailed(
            f"churn cannot be learnt at {current.as_of}: too few customers came back for a second purchase"
            f" (at least {MINIMUM_REPEAT_BUYERS} are needed); collect a longer history"
        )
    active_window = None if churn.kind == "event" else churn.active_window
    plain = ChurnModel(data.inputs, current.history_model, churn.horizon, churn.gap, active_window)
    if data.taught.churn.horizon != churn.horizon:
        closed = ()  # windows of another length say something else
    teaching, calibrating = (closed[:-1], closed[-1]) if closed else ((), current)
    design, churned = stacked(data.inputs, teaching, churn.horizon, churn.gap, "churned")
    if not closed or min(churned.sum(), (1 - churned).sum()) < MIN_OUTCOMES or calibrating.history_model is None:
        if active_window is None:
            raise CheckFailed(f"event churn needs {MIN_OUTCOMES} cancellations in closed windows; there are fewer")
        return plain
    judged = ~np.isnan(calibrating.churned)
    first = ChurnModel(
        data.inputs, calibrating.history_model, churn.horizon, churn.gap, active_window,
        fit_booster(data.inputs, design, churned, workspace.training.seed),
    ).calibrated(calibrating.vectors[judged], calibrating.churned[judged])  # fmt: skip
    design, churned = stacked(data.inputs, closed, churn.horizon, churn.gap, "churned")
    booster = fit_booster(data.inputs, design, churned, workspace.training.seed)
    return ChurnModel(
        data.inputs,
        current.history_model,
        churn.horizon,
        churn.gap,
        active_window,
        booster,
        first.slope,
        first.intercept,
    )


def _backtest(data: Dataset, workspace: Workspace) -> Backtest | None:
    if not data.closed or data.closed[-1].history_model is None or data.taught.churn.horizon != workspace.churn.horizon:
        return None
    judge = data.closed[-1]
    rows = ~np.isnan(judge.churned)
    if len(set(judge.churned[rows])) < 2:
        return None
    try:
        model = fit(data, workspace, data.closed_by(judge.as_of, outcome_days(workspace)), judge)
    except CheckFailed:
        return None
    silence = data.inputs.column(judge.vectors, "days_since_last_purchase")
    return Backtest(judge.churned[rows], model.probability(judge.vectors[rows]), np.nan_to_num(silence[rows], nan=1e6))
