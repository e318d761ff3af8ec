"""BG/CNBD-k and MBG/CNBD-k: BG/NBD and MBG/NBD with gaps that are Erlang-k, more regular than Poisson's.

Source: M. Platzer, T. Reutterer, 'Ticking Away the Moments: Timing Regularity Helps to Better Predict Customer
Activity', Marketing Science 35 (2016) 779-799. Every k-th event of a Poisson process of rate lambda is a purchase; of
those since the last one, 0 to k - 1 have passed unseen. They are here to be measured, and are not in the product:
docs/decisions/0006-purchase-models.md. Symbols as in `training/models/bg_nbd.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from scipy.special import betainc, digamma, expit, gammaln, logsumexp

from training.models import bg_nbd
from training.models.histories import Floats, Histories, by_distinct_rows
from training.models.likelihood import maximise

_LEAST_P = 1e-7  # below, 1 - E[(1 - p)^purchases] would be rounded away


@dataclass(frozen=True)
class CNBD:
    """`first_chance`: 1 if a customer may leave right after the first purchase (MBG), 0 if not (BG)."""

    k: int
    first_chance: int
    r: float
    alpha: float
    a: float
    b: float

    @classmethod
    def fit(cls, k: int, first_chance: int, x: Floats, t_x: Floats, T: Floats) -> Self:
        """The gaps' own part of the likelihood, the product of t^(k - 1) / (k - 1)!, has no parameter but k."""
        histories = Histories.of(x, t_x, T)
        columns = (histories.x, histories.t_x, histories.T, histories.x + first_chance)
        starts = [(r, alpha / k, a, b) for r, alpha, a, b in ((0.5, 0.5, 0.5, 2), (1, 1, 1, 10), (1, 0.5, 3, 10))]
        peak = maximise(lambda *row: _scores(k, *row), columns, histories.weights, starts, ("r", "alpha", "a", "b"))
        r, alpha, a, b = (float(value) for value in peak.parameters)
        return cls(k, first_chance, r, alpha * histories.unit, a, b)

    def outlook(self, x: Floats, t_x: Floats, T: Floats, horizon: float) -> tuple[Floats, Floats]:
        """Expected purchases in (T, T + horizon], and the probability of none."""
        phases = _phases(self.k, self.r, self.alpha, x, t_x, T)
        chances = x + self.first_chance
        total = logsumexp(phases, axis=1)
        log_odds = _log_odds_left(self.k, self.r, self.alpha, self.a, self.b, x, t_x, T, chances) - total
        active, weights = expit(-log_odds), np.exp(phases - total[:, None])
        purchases, silence = np.zeros_like(T), np.zeros_like(T)
        for phase in range(self.k):
            shape, share = self.r + self.k * x + phase, horizon / (self.alpha + T + horizon)
            expected = by_distinct_rows(lambda *row, j=phase: self._purchases(j, *row), chances, shape, share)
            purchases += weights[:, phase] * expected
            # At most k - phase - 1 events, which are negative binomial.
            silence += weights[:, phase] * betainc(shape, float(self.k - phase), 1 - share)
        return active * purchases, 1 - active + active * silence

    def _purchases(self, phase: int, chances: Floats, shape: Floats, share: Floats) -> Floats:
        """(1 - E[(1 - p)^floor((N + phase) / k)]) / p for N negative binomial, averaged over p ~ Beta(a, b + chances).

        The floor is dissolved by the k-th roots of unity: q^floor(m / k) is a sum over the k roots z of q of c_z z^m.
        """
        p, weights = bg_nbd._beta_nodes(self.a, self.b + chances)
        p = np.clip(p, _LEAST_P, 1 - 1e-12)
        q = 1 - p
        power = np.zeros(p.shape, dtype=complex)
        for root in range(self.k):
            z = q ** (1 / self.k) * np.exp(2j * np.pi * root / self.k)
            odds = (share / (1 - share))[:, None]
            power += (1 - 1 / q) / (1 - 1 / z) / self.k * z**phase * np.exp(-shape[:, None] * np.log1p((1 - z) * odds))
        return np.einsum("ij,ij->i", weights, (1 - power.real) / p)


def _phases(k: int, r: float, alpha: float, x: Floats, t_x: Floats, T: Floats) -> Floats:
    """Log weights, rows x k, of the events since the last purchase, given activity."""
    shape, j = (r + k * x)[:, None], np.arange(k)
    with np.errstate(divide="ignore", invalid="ignore"):
        passed = np.where(j > 0, j * np.log((T - t_x) / (alpha + T))[:, None], 0.0)
    return gammaln(shape + j) - gammaln(shape) - gammaln(j + 1.0) + passed


def _log_odds_left(
    k: int, r: float, alpha: float, a: float, b: float, x: Floats, t_x: Floats, T: Floats, chances: Floats
) -> Floats:
    """As in BG/NBD, before the phases' total is taken off."""
    return bg_nbd._log_odds_left(r + (k - 1) * x, alpha, a, b, x, t_x, T, chances)


def _scores(k: int, parameters: Floats, x: Floats, t_x: Floats, T: Floats, chances: Floats) -> tuple[Floats, Floats]:
    """Log likelihood by row, without the gaps' own part, and its derivatives by r, alpha, a, b."""
    r, alpha, a, b = parameters
    phases, j, shape = _phases(k, r, alpha, x, t_x, T), np.arange(k), r + k * x
    total = logsumexp(phases, axis=1)
    weights = np.exp(phases - total[:, None])
    log_odds = _log_odds_left(k, r, alpha, a, b, x, t_x, T, chances) - total
    left = expit(log_odds)
    active = 1 - left
    at_last, at_end = np.log(alpha + t_x), np.log(alpha + T)
    log_likelihood = (
        gammaln(shape) - gammaln(r) + r * np.log(alpha) - shape * at_end + total
        + gammaln(b + chances) - gammaln(b) + gammaln(a + b) - gammaln(a + b + chances) + np.logaddexp(0, log_odds)
    )  # fmt: skip
    total_by_r = np.einsum("ij,ij->i", weights, digamma(shape[:, None] + j) - digamma(shape)[:, None])
    either = digamma(a + b) - digamma(a + b + chances)
    slopes = np.stack([
        digamma(shape) - digamma(r) + np.log(alpha) - active * at_end - left * at_last + active * total_by_r,
        r / alpha - shape * (active / (alpha + T) + left / (alpha + t_x)) - active * (weights @ j) / (alpha + T),
        either + left / a,
        either + digamma(b + chances) - digamma(b) - left / np.where(left > 0, b + chances - 1, 1),
    ])  # fmt: skip
    return log_likelihood, slopes
