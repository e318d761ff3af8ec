"""Learning what customers will spend: the history's own value, a Tweedie booster, or both, as a backtest decides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import lightgbm as lgb
import numpy as np
from numpy.typing import NDArray

from perennial.settings import Workspace
from perennial.storage import CheckFailed
from training import metrics
from training.datasets import Cutoff, Dataset, outcome_days, stacked
from training.models.bg_nbd import MINIMUM_REPEAT_BUYERS
from training.models.value_model import Spread, ValueModel, fit_booster

Floats = NDArray[np.floating]

MIN_BUYERS = 100
"""Who spent something in the labelled windows; with fewer there is nothing for a booster to learn."""
_WEIGHTS = (0.0, 0.5, 1.0)
_NOISE = 0.01
"""Of ngini: the two together are left only for a part that ranks better by more than this on the backtest."""
_DRAWN_CUSTOMERS = 20_000


@dataclass(frozen=True)
class Backtest:
    """Predictions made as at the latest closed cutoff, by weight of the booster, against what was then spent."""

    actual: Floats
    by_weight: dict[float, Floats]
    naive: Floats
    chosen: float

    @property
    def predicted(self) -> Floats:
        return self.by_weight[self.chosen]

    def figures(self) -> dict[str, float]:
        """Metrics of the chosen blend, and of the naive rule (last year's spend again), by name."""
        return {
            "ngini": metrics.ngini(self.actual, self.predicted),
            "spearman": metrics.spearman(self.actual, self.predicted),
            "decile_wape": metrics.decile_wape(self.actual, self.predicted),
            "bias": metrics.bias(self.actual, self.predicted),
            "top_decile_capture": metrics.top_decile_capture(self.actual, self.predicted),
            "naive_ngini": metrics.ngini(self.actual, self.naive),
            "history_ngini": metrics.ngini(self.actual, self.by_weight[0.0]),
            "booster_weight": self.chosen,
        }


def train(data: Dataset, workspace: Workspace) -> tuple[ValueModel, Backtest | None]:
    """The model for `data.current`, and the backtest that chose its blend and its bounds, where there is one.

    Raises:
        CheckFailed: too few customers came back to learn from.
    """
    backtest = _backtest(data, workspace)
    model = _history_only(data, workspace, data.current)
    booster = _booster(data, workspace, data.closed)
    if booster is not None:
        compared = backtest is not None and len(backtest.by_weight) > 1
        model = replace(model, booster=booster, weight=backtest.chosen if backtest and compared else 0.5)
    if backtest is not None:
        return replace(model, spread=Spread.of(backtest.predicted, backtest.actual)), backtest
    return replace(model, spread=_drawn_spread(model, data.current, workspace.training.seed)), None


def fit(data: Dataset, workspace: Workspace, closed: Sequence[Cutoff], current: Cutoff) -> ValueModel:
    """The model for `current`, learnt and chosen from `closed` cutoffs alone."""
    return train(replace(data, closed=tuple(closed), current=current), workspace)[0]


def _history_only(data: Dataset, workspace: Workspace, cutoff: Cutoff) -> ValueModel:
    if cutoff.history_model is None:
        raise CheckFailed(
            f"lifetime value cannot be learnt at {cutoff.as_of}: too few customers came back for a second purchase"
            f" (at least {MINIMUM_REPEAT_BUYERS} are needed); collect a longer history"
        )
    value = workspace.lifetime_value
    return ValueModel(data.inputs, cutoff.history_model, value.horizon, value.discount_rate)


def _booster(data: Dataset, workspace: Workspace, closed: Sequence[Cutoff]) -> lgb.Booster | None:
    design, value = stacked(data.inputs, closed, workspace.lifetime_value.horizon, 0, "value")
    if (value > 0).sum() < MIN_BUYERS:
        return None
    return fit_booster(data.inputs, design, value, workspace.training.seed)


def _backtest(data: Dataset, workspace: Workspace) -> Backtest | None:
    """Judged at the latest closed cutoff by what could be trained there; None where there is no closed cutoff."""
    if not data.closed or data.closed[-1].history_model is None:
        return None
    judge = data.closed[-1]
    bought = ~np.isnan(data.inputs.column(judge.vectors, "T"))
    vectors, actual = judge.vectors[bought], judge.value[bought]
    if not (actual > 0).any():
        return None
    model = _history_only(data, workspace, judge)
    booster = _booster(data, workspace, data.closed_by(judge.as_of, outcome_days(workspace)))
    weights = _WEIGHTS if booster is not None else (0.0,)
    by_weight = {w: replace(model, booster=booster, weight=w).value(vectors) for w in weights}
    naive = data.inputs.column(vectors, "spend_365d")
    return Backtest(actual, by_weight, naive, _choose(actual, by_weight))


def _choose(actual: Floats, by_weight: dict[float, Floats]) -> float:
    scores = {weight: metrics.ngini(actual, predicted) for weight, predicted in by_weight.items()}
    best = max(scores, key=lambda weight: scores[weight])
    return 0.5 if 0.5 in scores and scores[best] - scores[0.5] <= _NOISE else best


def _drawn_spread(model: ValueModel, cutoff: Cutoff, seed: int) -> Spread:
    """The scatter that the history model itself implies, where nothing has yet happened to measure it on."""
    rng = np.random.default_rng(seed)
    bought = np.flatnonzero(~np.isnan(model.inputs.column(cutoff.vectors, "T")))
    drawn = rng.choice(bought, min(len(bought), _DRAWN_CUSTOMERS), replace=False)
    vectors = cutoff.vectors[drawn]
    actual = model.history_model.draw_value(model.inputs.history(vectors), model.horizon, rng)
    return Spread.of(model.value(vectors), actual)
