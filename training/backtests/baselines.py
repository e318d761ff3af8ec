"""Who a model is held against: rules that anyone could apply, and the field's models of purchase histories."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from training.learning.churn import NEVER
from training.learning.datasets import Cutoff
from training.models.bg_nbd import BGNBD
from training.models.customer_model import Inputs
from training.models.gamma_gamma import GammaGamma
from training.models.histories import NotIdentified
from training.models.pareto_nbd import ParetoNBD
from training.models.rule import Rule
from training.models.value_model import Forecast

Floats = NDArray[np.floating]


Side = Literal["ours", "naive", "btyd", "aside"]


@dataclass(frozen=True)
class Answer:
    """What one contender says of every row; `is_level` where it is a probability or money, not just an order.

    side: `ours` is the one that answers; `aside` are no rivals to be graded by: our full model and our history model
    where another one answers, and one answer for everybody, whose tenths are right whenever its total is. may_answer:
    whether it is a candidate (`choice`), as which a value has its `forecast`, bounds and all.
    """

    name: str
    side: Side
    predicted: Floats
    is_level: bool = True
    may_answer: bool = False
    forecast: Forecast | None = None


@dataclass(frozen=True)
class Histories:
    """The field's models by name, fitted on everyone who had bought by a cutoff, and those that the data refused.

    BG/NBD predicts the same wherever its likelihood is flat, so it is there even where drop-out is not identified;
    Pareto/NBD only where it is.
    """

    inputs: Inputs
    purchases: dict[str, BGNBD | ParetoNBD]
    spend: GammaGamma | None
    refused: tuple[str, ...]

    @classmethod
    def fit(cls, inputs: Inputs, cutoff: Cutoff) -> Histories:
        x, t_x, T, z = inputs.history(cutoff.vectors)[:4]
        bought, repeat = ~np.isnan(x), (x > 0) & (z > 0)
        columns = x[bought], t_x[bought], T[bought]
        fits: dict[str, Callable[[], BGNBD | ParetoNBD]] = {
            "BG/NBD": lambda: BGNBD.fit_regardless(*columns)[0],
            "Pareto/NBD": lambda: ParetoNBD.fit(*columns),
        }
        fitted = {name: model for name, fit in fits.items() if (model := _identified(fit)) is not None}
        spend = _identified(lambda: GammaGamma.fit(x[repeat], z[repeat])) if repeat.any() else None
        return cls(inputs, fitted, spend, tuple(name for name in fits if name not in fitted))

    def churn(self, vectors: NDArray[np.float32], horizon: int, gap: int) -> list[Answer]:
        """As the field's practice has it, exp(-expected purchases), and the exact probability of no purchase."""
        x, t_x, T = self.inputs.history(vectors)[:3]
        rules = []
        for name, model in self.purchases.items():
            expected = model.expected_purchases(x, t_x, T, horizon, gap)
            silence = model.probability_of_no_purchase(x, t_x, T, horizon, gap)
            rules += [
                Answer(f"{name}, exp(-purchases)", "btyd", np.exp(-expected)),
                Answer(f"{name}, no purchase", "btyd", np.clip(silence, 0, 1)),
            ]
        return rules

    def value(self, vectors: NDArray[np.float32], horizon: int) -> list[Answer]:
        """Expected purchases times expected spend per purchase; nothing where Gamma-Gamma has no finite mean."""
        if self.spend is None or self.spend.q <= 1:
            return []
        x, t_x, T, z = self.inputs.history(vectors)[:4]
        usable = (x > 0) & (z > 0)
        spend = self.spend.expected_spend(np.where(usable, x, 0.0), np.where(usable, z, np.nan))
        return [
            Answer(f"{name} + Gamma-Gamma", "btyd", model.expected_purchases(x, t_x, T, horizon) * spend)
            for name, model in self.purchases.items()
        ]


_Model = TypeVar("_Model")


def _identified(fit: Callable[[], _Model]) -> _Model | None:
    try:
        return fit()
    except NotIdentified:
        return None


def silence(inputs: Inputs, vectors: NDArray[np.float32]) -> Answer:
    """Who has been silent longest leaves: an order without a level."""
    days = np.nan_to_num(inputs.column(vectors, "days_since_last_purchase"), nan=NEVER)
    return Answer("silence", "naive", days, is_level=False)


def pace(inputs: Inputs, vectors: NDArray[np.float32], rule: Rule) -> Answer:
    """Everyone goes on at the daily rate of the last 365 days."""
    return Answer(rule.name, "naive", rule(inputs, vectors))
