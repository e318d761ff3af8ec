"""The probability that a customer buys an item (a category or a product) within the horizon."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import lightgbm as lgb
import numpy as np
from numpy.typing import NDArray

from perennial.settings import CrossSell
from training.models.customer_model import PyFunc, Stored, boosted, predicted

Floats = NDArray[np.floating]

PARAMETERS: dict[str, Any] = {
    "objective": "binary", "learning_rate": 0.1, "num_leaves": 31, "min_child_samples": 100, "feature_fraction": 0.8,
    "bagging_fraction": 0.5, "bagging_freq": 1, "lambda_l2": 5.0,
}  # fmt: skip
ROUNDS = 100


@dataclass(frozen=True)
class OfferModel:
    """A booster over (customer, item) rows whose columns are `names`, in order; it sees those in `used`."""

    names: tuple[str, ...]
    used: tuple[str, ...]
    horizon: int
    level: str
    booster: lgb.Booster

    def probability(self, rows: NDArray[np.float32]) -> Floats:
        """Per (customer, item) row of float32 features in the order of `names`."""
        return predicted(self.booster, _columns(rows, self.names, self.used))

    def save(self, folder: Path) -> None:
        parameters = {"names": self.names, "used": self.used, "horizon": self.horizon, "level": self.level}
        Stored(parameters, {"booster": self.booster}).write(folder)

    @classmethod
    def load(cls, folder: Path) -> Self:
        stored = Stored.read(folder)
        p = stored.parameters
        return cls(tuple(p["names"]), tuple(p["used"]), p["horizon"], p["level"], stored.boosters["booster"])


def fit(
    rows: NDArray[np.float32], bought: Floats, names: tuple[str, ...], used: tuple[str, ...], sell: CrossSell, seed: int
) -> OfferModel:
    """Fitted on (customer, item) rows of several cutoffs; `bought` is 1 where the item was bought in the horizon."""
    booster = boosted(_columns(rows, names, used), bought, used, PARAMETERS, ROUNDS, seed, sell.boosting)
    return OfferModel(names, used, sell.horizon, sell.level, booster)


def _columns(rows: NDArray[np.float32], names: tuple[str, ...], used: tuple[str, ...]) -> NDArray[np.float32]:
    return rows if used == names else rows[:, [names.index(name) for name in used]]


def _load_pyfunc(path: str) -> PyFunc:
    """MLflow's entry: `predict` takes (customer, item) rows."""
    return PyFunc(OfferModel.load(Path(path)).probability)
