"""The probability that a customer buys nothing (or cancels) in the outcome window."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import lightgbm as lgb
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from training.models.buy_till_you_die import BuyTillYouDie, Outlook
from training.models.customer_model import Inputs, PyFunc, Stored, boosted, logit, predicted, sigmoid

Floats = NDArray[np.floating]

# Small trees on few columns at a time: a shop has thousands of customers and a hundred correlated features.
PARAMETERS: dict[str, Any] = {
    "objective": "binary", "learning_rate": 0.03, "num_leaves": 7, "min_child_samples": 100, "feature_fraction": 0.3,
    "bagging_fraction": 0.7, "bagging_freq": 1, "lambda_l2": 5.0,
}  # fmt: skip
ROUNDS = 300


@dataclass(frozen=True)
class ChurnModel:
    """A booster and the history's own outlook, averaged in log-odds and calibrated by a line.

    `active_window` is null for event churn, where the history says nothing of cancelling and only the booster counts.
    Averaging the two ranks better than either on every earlier cutoff of the real sets, and than weights fitted on one
    calibration date (see docs/decisions/models.md). Without a booster (no labelled window) the outlook stands alone.
    """

    inputs: Inputs
    history_model: BuyTillYouDie
    horizon: int
    gap: int
    active_window: int | None
    booster: lgb.Booster | None = None
    slope: float = 1.0
    intercept: float = 0.0

    def can_churn(self, vectors: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Who has not left already: bought within the active window, or for event churn never cancelled."""
        if self.active_window is None:
            return np.isnan(self.inputs.column(vectors, "days_since_cancellation"))
        return self.inputs.column(vectors, "days_since_last_purchase") <= self.active_window

    def probability(
        self, vectors: NDArray[np.float32], horizon: int | None = None, outlook: Outlook | None = None
    ) -> Floats:
        """Per row of packed feature vectors, over the model's own horizon unless told; nan for who never bought.

        Another horizon moves the log-odds as far as it moves those of the history's outlook; where that says nothing
        of leaving, cancelling has the same chance every day. `outlook` is the model's own, where it is known already.
        """
        outlook = outlook or self.outlook(vectors)
        own = outlook.no_purchase
        if self.booster is not None:
            own = sigmoid(self.slope * self._score(vectors, outlook) + self.intercept)
        if horizon is None or horizon == self.horizon:
            return own
        if self.active_window is None:
            return 1 - (1 - own) ** (horizon / self.horizon)
        other = self.history_model.outlook(self.inputs.history(vectors), horizon, self.gap)
        return sigmoid(logit(own) + logit(other.no_purchase) - logit(outlook.no_purchase))

    def outlook(self, vectors: NDArray[np.float32]) -> Outlook:
        return self.history_model.outlook(self.inputs.history(vectors), self.horizon, self.gap)

    def _score(self, vectors: NDArray[np.float32], outlook: Outlook) -> Floats:
        assert self.booster is not None
        raw = predicted(self.booster, self.inputs.design(vectors, outlook), raw_score=True)
        return raw if self.active_window is None else (raw + logit(outlook.no_purchase)) / 2

    def contributions(
        self, vectors: NDArray[np.float32], outlook: Outlook | None = None
    ) -> tuple[tuple[str, ...], Floats]:
        """Names and SHAP values, in the booster's log-odds, of every used feature for each row; zeros without booster.

        What the booster takes from the history's outlook is silence measured by the customer's own rhythm: it counts
        for `silence_vs_gap`, or for `days_since_last_purchase` where one purchase gives no rhythm.
        """
        used = self.inputs.used
        if self.booster is None:
            return used, np.zeros((len(vectors), len(used)))
        design = self.inputs.design(vectors, outlook or self.outlook(vectors))
        shap = predicted(self.booster, design, pred_contrib=True)
        own, by_outlook = shap[:, : len(used)], shap[:, len(used) : -1].sum(axis=1)
        rhythm = ~np.isnan(self.inputs.column(vectors, "silence_vs_gap"))
        own[:, used.index("silence_vs_gap")] += np.where(rhythm, by_outlook, 0)
        own[:, used.index("days_since_last_purchase")] += np.where(rhythm, 0, by_outlook)
        return used, own

    def calibrated(self, vectors: NDArray[np.float32], churned: Floats) -> Self:
        """The same model with slope and intercept fitted on a later cutoff (Platt 1999, with his smoothed targets)."""
        outlook = self.history_model.outlook(self.inputs.history(vectors), self.horizon, self.gap)
        score = self._score(vectors, outlook)
        positive, negative = churned.sum(), (1 - churned).sum()
        target = np.where(churned > 0, (positive + 1) / (positive + 2), 1 / (negative + 2))

        def loss(line: Floats) -> tuple[float, Floats]:
            z = line[0] * score + line[1]
            error = sigmoid(z) - target
            return float(np.mean(np.logaddexp(0, z) - target * z)), np.array([np.mean(error * score), np.mean(error)])

        slope, intercept = minimize(loss, np.array([1.0, 0.0]), jac=True, method="L-BFGS-B").x
        return replace(self, slope=float(slope), intercept=float(intercept))

    def save(self, folder: Path) -> None:
        parameters = {
            "packed": self.inputs.packed, "used": self.inputs.used, "history_model": self.history_model.to_json(),
            "horizon": self.horizon, "gap": self.gap, "active_window": self.active_window,
            "slope": self.slope, "intercept": self.intercept,
        }  # fmt: skip
        Stored(parameters, self.booster).write(folder)

    @classmethod
    def load(cls, folder: Path) -> Self:
        stored = Stored.read(folder)
        p = stored.parameters
        return cls(
            Inputs(tuple(p["packed"]), tuple(p["used"])), BuyTillYouDie.from_json(p["history_model"]),
            p["horizon"], p["gap"], p["active_window"], stored.booster, p["slope"], p["intercept"],
        )  # fmt: skip


def fit_booster(inputs: Inputs, design: Floats, churned: Floats, seed: int) -> lgb.Booster:
    """The booster on rows of several cutoffs, each with the outlook of the history model of its own cutoff."""
    return boosted(design, churned, inputs.booster_names, PARAMETERS, ROUNDS, seed)


def _load_pyfunc(path: str) -> PyFunc:
    """MLflow's entry: `predict` takes packed vectors."""
    return PyFunc(ChurnModel.load(Path(path)).probability)
