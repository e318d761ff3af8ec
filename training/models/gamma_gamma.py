"""Gamma-Gamma: what a customer spends per purchase, shrunk towards the population's mean the fewer purchases were seen.

Source: P. S. Fader, B. G. S. Hardie, 'The Gamma-Gamma Model of Monetary Value' (2013), brucehardie.com/notes/025;
equations are numbered as there. A purchase's amount is Gamma(p, nu), with nu ~ Gamma(q, v) over customers, whatever
the customer's purchase rate. Symbols, one row per customer: x `frequency` (repeat purchases), z `monetary_value` (mean
amount of those). `v` is in the currency of the amounts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import betaln, digamma

from training.models.histories import (
    Floats,
    check_columns,
    check_repeat_buyers,
    check_rows,
    check_weights,
    distinct_rows,
)
from training.models.likelihood import maximise


@dataclass(frozen=True)
class GammaGamma:
    """Parameters of a fit: p of the amounts within a customer, q, v of the differences between customers."""

    p: float
    q: float
    v: float
    log_likelihood: float

    @classmethod
    def fit(cls, frequency: ArrayLike, monetary_value: ArrayLike, weights: ArrayLike | None = None) -> Self:
        """Maximum likelihood, equation (1a), on customers with frequency > 0 and monetary_value > 0: select them first.

        Raises ValueError for other rows and `NotIdentified` where the data do not determine the parameters.
        """
        x, z = check_columns(frequency=frequency, monetary_value=monetary_value)
        check_rows("frequency is not a positive number", ~(np.isfinite(x) & (x > 0)), x)
        check_rows("monetary_value is not a positive number", ~(np.isfinite(z) & (z > 0)), z)
        counts = check_weights(weights, x.size)
        check_repeat_buyers(float(counts.sum()), float(counts.sum()))
        (x, z), counts = distinct_rows((x, z), counts)
        unit = float(np.average(z, weights=counts))
        starts = ((2.0, 2.0, 1.0), (6.0, 4.0, 0.5), (1.0, 5.0, 4.0))
        peak = maximise(scores, (x, z / unit), counts, starts, ("p", "q", "v")).certain()
        p, q, v = (float(value) for value in peak.parameters)
        return cls(p, q, v * unit, peak.log_likelihood - float(np.log(unit) * counts.sum()))

    @property
    def population_mean(self) -> float:
        """Mean amount per purchase over customers, p v / (q - 1); NaN if q <= 1, where it is infinite."""
        return self.p * self.v / (self.q - 1) if self.q > 1 else float("nan")

    def expected_spend(self, frequency: ArrayLike, monetary_value: ArrayLike) -> Floats:
        """Expected amount per future purchase given the history, equation (5).

        The population mean for customers without repeat purchases or with monetary_value missing (NaN). NaN where the
        expectation does not exist (p x + q <= 1). ValueError for negative or infinite values.
        """
        x, z = np.broadcast_arrays(np.asarray(frequency, dtype=float), np.asarray(monetary_value, dtype=float))
        check_rows("frequency is missing, infinite or negative", ~(np.isfinite(x) & (x >= 0)).ravel(), x.ravel())
        check_rows("monetary_value is infinite or negative", (np.isinf(z) | (z < 0)).ravel(), z.ravel())
        x = np.where(np.isnan(z), 0.0, x)
        excess = self.p * x + self.q - 1
        total = self.v + np.where(x > 0, x * z, 0.0)
        return np.divide(self.p * total, excess, out=np.full(x.shape, np.nan), where=excess > 0)


def scores(parameters: Sequence[Floats] | Floats, x: Floats, z: Floats) -> tuple[Floats, Floats]:
    """Log of equation (1a) by row and its derivatives by p, q, v, in a form that does not cancel for large p x."""
    p, q, v = parameters
    spent = x * z
    share, tail = np.log1p(v / spent), np.log(v / (v + spent))
    log_likelihood = -betaln(p * x, q) + q * tail - p * x * share - np.log(z)
    both = digamma(p * x + q)
    slopes = np.stack([
        x * (both - digamma(p * x) - share),
        both - digamma(q) + tail,
        q / v - (p * x + q) / (v + spent),
    ])  # fmt: skip
    return log_likelihood, slopes
