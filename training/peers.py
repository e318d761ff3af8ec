"""Who a model is held against: rules that anyone could apply, and the field's models of purchase histories."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from perennial.settings import Workspace
from training.datasets import Cutoff
from training.metrics import decile_table
from training.models.bg_nbd import BGNBD, NotIdentified
from training.models.customer_model import Inputs
from training.models.gamma_gamma import GammaGamma
from training.models.pareto_nbd import ParetoNBD

Floats = NDArray[np.floating]

_NEVER = 1e6  # days of silence of who never bought


@dataclass(frozen=True)
class Answer:
    """What one contender says of every row; `is_level` where it is a probability or money, not just an order."""

    name: str
    kind: Literal["ours", "naive", "btyd"]
    predicted: Floats
    is_level: bool = True


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
            "BG/NBD": lambda: BGNBD.fit(*columns, refuse_unidentified=False),
            "Pareto/NBD": lambda: ParetoNBD.fit(*columns),
        }
        fitted = {name: model for name, fit in fits.items() if (model := _identified(fit)) is not None}
        spend = _identified(lambda: GammaGamma.fit(x[repeat], z[repeat]))
        return cls(inputs, fitted, spend, tuple(name for name in fits if name not in fitted))

    def churn(self, vectors: NDArray[np.float32], horizon: int, gap: int) -> list[Answer]:
        """As the field's practice has it, exp(-expected purchases), and the exact probability of no purchase."""
        x, t_x, T = self.inputs.history(vectors)[:3]
        found = []
        for name, model in self.purchases.items():
            expected = model.expected_purchases(x, t_x, T, horizon, gap)
            silence = model.probability_of_no_purchase(x, t_x, T, horizon, gap)
            found += [
                Answer(f"{name}, exp(-purchases)", "btyd", np.exp(-expected)),
                Answer(f"{name}, no purchase", "btyd", np.clip(silence, 0, 1)),
            ]
        return found

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


def dropout_doubt(inputs: Inputs, cutoff: Cutoff) -> str:
    """Why the histories do not say how customers leave, so that `p_alive` means nothing; "" where they do."""
    bought = ~np.isnan(inputs.column(cutoff.vectors, "frequency"))
    try:
        BGNBD.fit(*(column[bought] for column in inputs.history(cutoff.vectors)[:3]))
    except NotIdentified as problem:
        return str(problem)
    return ""


def naive_churn(inputs: Inputs, vectors: NDArray[np.float32], seen: Sequence[Cutoff]) -> list[Answer]:
    """Who has been silent longest leaves; and with a level, the rate at which the equally silent left last time.

    The rates are those of tenths of the customers of the latest window that had closed, made to rise with silence.
    """
    silence = _silence(inputs, vectors)
    answers = [Answer("silence", "naive", silence, is_level=False)]
    known = ~np.isnan(seen[-1].churned) if seen else np.zeros(0, dtype=bool)
    if known.sum() >= 10:
        tenths = decile_table(seen[-1].churned[known], _silence(inputs, seen[-1].vectors[known]))
        rates = np.interp(silence, tenths.predicted, np.maximum.accumulate(tenths.actual))
        answers.append(Answer("silence, at last window's rates", "naive", rates))
    return answers


def _silence(inputs: Inputs, vectors: NDArray[np.float32]) -> Floats:
    return np.nan_to_num(inputs.column(vectors, "days_since_last_purchase"), nan=_NEVER)


def naive_value(inputs: Inputs, vectors: NDArray[np.float32], workspace: Workspace) -> list[Answer]:
    """Everyone goes on at the daily rate of the last 365 days."""
    rate = np.nan_to_num(inputs.column(vectors, "spend_365d")) / 365
    return [Answer("last year's rate", "naive", rate * workspace.lifetime_value.horizon)]
