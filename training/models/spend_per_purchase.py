"""Spend per purchase: Gamma-Gamma in which the first purchase counts too, as far as the data say that it foretells.

Gamma-Gamma (`gamma_gamma`) looks at repeat purchases only, so all customers who bought once are alike to it. Here the
first purchase, of amount f, counts as a share w of a purchase: a customer's nu is Gamma(q + p w, v + w f) before, and
Gamma(q + p (w + x), v + w f + x z) after, x repeat purchases of mean z. w is fitted along with p, q, v to what the
repeat purchases were, given the first one; with w = 0 the model is Gamma-Gamma. What it brings:
docs/decisions/0006-purchase-models.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike

from training.models import gamma_gamma
from training.models.histories import Floats, check_columns, check_repeat_buyers, check_rows, distinct_rows
from training.models.likelihood import maximise


@dataclass(frozen=True)
class SpendPerPurchase:
    """Parameters of a fit: p, q, v as of Gamma-Gamma, and the weight w of the first purchase, between 0 and 1."""

    p: float
    q: float
    v: float
    first_weight: float
    log_likelihood: float

    @classmethod
    def fit(cls, frequency: ArrayLike, monetary_value: ArrayLike, spend_first: ArrayLike) -> Self:
        """Maximum likelihood on customers who came back, all three columns above 0: select them first.

        Raises ValueError for other rows and `NotIdentified` where the data do not determine p, q, v.
        """
        columns = check_columns(frequency=frequency, monetary_value=monetary_value, spend_first=spend_first)
        for name, column in zip(("frequency", "monetary_value", "spend_first"), columns, strict=True):
            check_rows(f"{name} is not a positive number", ~(np.isfinite(column) & (column > 0)), column)
        customers = columns[0].size
        check_repeat_buyers(float(customers), float(customers))
        (x, z, f), counts = distinct_rows(columns, np.ones(customers))
        unit = float(np.average(z, weights=counts))
        starts = ((2.0, 2.0, 1.0, 0.3), (6.0, 4.0, 0.5, 0.1), (1.0, 5.0, 4.0, 3.0))
        peak = maximise(_scores, (x, z / unit, f / unit), counts, starts, ("p", "q", "v", "")).certain()
        p, q, v, odds = (float(value) for value in peak.parameters)
        return cls(p, q, v * unit, odds / (1 + odds), peak.log_likelihood - float(np.log(unit) * customers))

    def expected(self, frequency: ArrayLike, monetary_value: ArrayLike, spend_first: ArrayLike) -> Floats:
        """Expected amount per future purchase given the history; NaN where that does not exist (q <= 1, nothing seen).

        Amounts that are missing (NaN) or not above 0 say nothing about the size of the next purchase and are left out.
        """
        shape, rate = self._posterior(frequency, monetary_value, spend_first)
        return np.divide(self.p * rate, shape - 1, out=np.full(shape.shape, np.nan), where=shape > 1)

    def draw(
        self,
        frequency: ArrayLike,
        monetary_value: ArrayLike,
        spend_first: ArrayLike,
        purchases: Floats,
        rng: np.random.Generator,
    ) -> Floats:
        """One possible sum of so many future purchases for each history; 0 for none."""
        shape, rate = self._posterior(frequency, monetary_value, spend_first)
        nu = rng.gamma(shape) / rate
        return rng.gamma(np.maximum(self.p * purchases, 1e-12)) / nu * (purchases > 0)

    def _posterior(
        self, frequency: ArrayLike, monetary_value: ArrayLike, spend_first: ArrayLike
    ) -> tuple[Floats, Floats]:
        """Shape and rate of the customer's own nu."""
        x, z, f = (np.asarray(column, dtype=float) for column in (frequency, monetary_value, spend_first))
        x, z = np.where(z > 0, x, 0.0), np.where(z > 0, z, 0.0)
        w, f = np.where(f > 0, self.first_weight, 0.0), np.where(f > 0, f, 0.0)
        return self.q + self.p * (w + x), self.v + w * f + x * z


def _scores(parameters: Floats, x: Floats, z: Floats, f: Floats) -> tuple[Floats, Floats]:
    """Log density of z given f by row and its derivatives by p, q, v and the odds w / (1 - w)."""
    p, q, v, odds = parameters
    w = odds / (1 + odds)
    log_likelihood, (by_p, by_q, by_v) = gamma_gamma.scores((p, q + p * w, v + w * f), x, z)
    by_w = p * by_q + f * by_v
    return log_likelihood, np.stack([by_p + w * by_q, by_q, by_v, by_w / (1 + odds) ** 2])
