"""What a customer will spend over the horizon, and between which bounds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import lightgbm as lgb
import numpy as np
from numpy.typing import NDArray

from training.models.buy_till_you_die import BuyTillYouDie, Outlook
from training.models.customer_model import Inputs, PyFunc, Stored, boosted, predicted

Floats = NDArray[np.floating]

PARAMETERS: dict[str, Any] = {
    "objective": "tweedie", "tweedie_variance_power": 1.3, "learning_rate": 0.03, "num_leaves": 7,
    "min_child_samples": 100, "feature_fraction": 0.3, "bagging_fraction": 0.7, "bagging_freq": 1, "lambda_l2": 5.0,
}  # fmt: skip
ROUNDS = 300
BOUNDS = (0.1, 0.9)
_BINS = 20


class Forecast(NamedTuple):
    """One row per customer; nan for who never bought. `low` and `high` bound the middle 80 % of outcomes."""

    p_alive: Floats
    expected_purchases: Floats
    value: Floats
    low: Floats
    high: Floats


@dataclass(frozen=True)
class Spread:
    """How outcomes scatter about predictions: quantiles of the outcome at increasing predicted values."""

    predicted: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]

    @classmethod
    def of(cls, predicted: Floats, actual: Floats) -> Self:
        """From pairs of a backtest: the outcome's quantiles in bins of equally many predictions, made to rise."""
        order = np.argsort(predicted, kind="stable")
        bins = [rows for rows in np.array_split(order, min(_BINS, max(1, len(order) // 20))) if len(rows)]
        middle = np.array([predicted[rows].mean() for rows in bins])
        low, high = (np.array([np.quantile(actual[rows], q) for rows in bins]) for q in BOUNDS)
        return cls(*(tuple(np.maximum.accumulate(column).tolist()) for column in (middle, low, high)))

    def bounds(self, value: Floats) -> tuple[Floats, Floats]:
        """Between the bins in proportion, outside them as at the nearest; the value always lies within."""
        scale = np.maximum(value / max(self.predicted[-1], 1e-12), 1.0)  # beyond the last bin in proportion to it
        low, high = (np.interp(value, self.predicted, column) * scale for column in (self.low, self.high))
        return np.minimum(low, value), np.maximum(high, value)


@dataclass(frozen=True)
class ValueModel:
    """The history's own value and a Tweedie booster, blended: `weight` is the booster's part."""

    inputs: Inputs
    history_model: BuyTillYouDie
    horizon: int
    discount_rate: float
    spread: Spread | None = None
    booster: lgb.Booster | None = None
    weight: float = 0.0

    def value(self, vectors: NDArray[np.float32], outlook: Outlook | None = None) -> Floats:
        """Expected discounted spend over the horizon; nan for who never bought."""
        outlook = outlook or self.outlook(vectors)
        by_history = outlook.value * self._mean_discount()
        if self.booster is None or self.weight == 0:
            return by_history
        boosted_value = predicted(self.booster, self.inputs.design(vectors, outlook))
        return (1 - self.weight) * by_history + self.weight * boosted_value

    def outlook(self, vectors: NDArray[np.float32]) -> Outlook:
        return self.history_model.outlook(self.inputs.history(vectors), self.horizon)

    def forecast(
        self, vectors: NDArray[np.float32], horizon: int | None = None, outlook: Outlook | None = None
    ) -> Forecast:
        """Over the model's own horizon unless told; `outlook` is the model's own, where it is known already.

        Over another horizon the value and its bounds change in proportion to what the history alone expects.
        """
        outlook = outlook or self.outlook(vectors)
        value = self.value(vectors, outlook)
        low, high = self.spread.bounds(value) if self.spread else (np.full_like(value, np.nan),) * 2
        if horizon is None or horizon == self.horizon:
            return Forecast(outlook.p_alive, outlook.expected_purchases, value, low, high)
        other = self.history_model.outlook(self.inputs.history(vectors), horizon)
        share = other.value / np.maximum(outlook.value, 1e-12)
        return Forecast(other.p_alive, other.expected_purchases, value * share, low * share, high * share)

    def _mean_discount(self) -> float:
        """The mean of (1 + rate)^-years over the horizon, purchases being spread evenly over it."""
        force = np.log1p(self.discount_rate) * self.horizon / 365
        return float(-np.expm1(-force) / force) if force else 1.0

    def save(self, folder: Path) -> None:
        parameters = {
            "packed": self.inputs.packed, "used": self.inputs.used, "history_model": self.history_model.to_json(),
            "horizon": self.horizon, "discount_rate": self.discount_rate, "weight": self.weight,
            "spread": self.spread.__dict__ if self.spread else None,
        }  # fmt: skip
        Stored(parameters, self.booster).write(folder)

    @classmethod
    def load(cls, folder: Path) -> Self:
        stored = Stored.read(folder)
        p = stored.parameters
        spread = Spread(**{name: tuple(column) for name, column in p["spread"].items()}) if p["spread"] else None
        return cls(
            Inputs(tuple(p["packed"]), tuple(p["used"])), BuyTillYouDie.from_json(p["history_model"]),
            p["horizon"], p["discount_rate"], spread, stored.booster, p["weight"],
        )  # fmt: skip


def fit_booster(inputs: Inputs, design: Floats, value: Floats, seed: int) -> lgb.Booster:
    """The booster on rows of several cutoffs; a net return counts as nothing spent, as Tweedie has no negatives."""
    return boosted(design, np.maximum(value, 0), inputs.booster_names, PARAMETERS, ROUNDS, seed)


def _load_pyfunc(path: str) -> PyFunc:
    """MLflow's entry: `predict` takes packed vectors."""
    return PyFunc(ValueModel.load(Path(path)).value)
