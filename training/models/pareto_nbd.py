"""Pareto/NBD: a customer buys at a steady rate of their own and may leave at any moment, unseen.

Sources: D. C. Schmittlein, D. G. Morrison, R. Colombo, 'Counting Your Customers: Who Are They and What Will They Do
Next?', Management Science 33 (1987) 1-24; P. S. Fader, B. G. S. Hardie, 'A Note on Deriving the Pareto/NBD Model and
Related Expressions' (2005), brucehardie.com/notes/009. An active customer buys as a Poisson process with rate lambda ~
Gamma(r, alpha) and leaves after an exponential lifetime with rate mu ~ Gamma(s, beta).

Symbols and units as in `bg_nbd`: x `frequency`, t_x `recency`, `T`; `alpha` and `beta` are in the unit of time.

The note writes its integrals over the moment of leaving as differences of hypergeometric functions, which cancel or
overflow for frequent buyers. Here the integrals themselves are computed: all terms are positive and in log space.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import digamma, expit, exprel, gammaln

from training.models.histories import Floats, Histories, by_rows, checked_duration, checked_histories
from training.models.likelihood import Peak, maximise

_TAIL = 36.0  # an integral leaves out what is e^-36 of the integrand's first value
_POINTS, _POINT_WEIGHTS = np.polynomial.legendre.leggauss(24)  # relative error below 1e-9, measured against mpmath


@dataclass(frozen=True)
class ParetoNBD:
    """Parameters of a fit: r, alpha of the purchase rates, s, beta of the drop-out rates."""

    r: float
    alpha: float
    s: float
    beta: float
    log_likelihood: float

    @classmethod
    def fit(cls, frequency: ArrayLike, recency: ArrayLike, T: ArrayLike, weights: ArrayLike | None = None) -> Self:
        """Maximum likelihood; one row per customer, or per `weights` equal customers.

        Raises ValueError for impossible rows and `NotIdentified` where the data do not determine the parameters.
        """
        histories = Histories.of(frequency, recency, T, weights)
        return cls._at(cls._peak(histories).certain(), histories)

    @classmethod
    def fit_regardless(cls, frequency: ArrayLike, recency: ArrayLike, T: ArrayLike) -> tuple[Self, str]:
        """As `fit`, and the doubt in place of an error: see `BGNBD.fit_regardless`."""
        histories = Histories.of(frequency, recency, T)
        peak = cls._peak(histories)
        return cls._at(peak, histories), peak.doubt

    @classmethod
    def _peak(cls, histories: Histories) -> Peak:
        columns = (histories.x, histories.t_x, histories.T)
        starts = ((0.5, 0.5, 0.5, 0.5), (1.0, 1.0, 0.5, 5.0), (1.0, 0.5, 3.0, 3.0))
        return maximise(_scores, columns, histories.weights, starts, ("r", "alpha", "s", "beta"))

    @classmethod
    def _at(cls, peak: Peak, histories: Histories) -> Self:
        r, alpha, s, beta = (float(value) for value in peak.parameters)
        unit = histories.unit
        return cls(r, alpha * unit, s, beta * unit, peak.log_likelihood + histories.log_unit_change)

    def p_alive(self, frequency: ArrayLike, recency: ArrayLike, T: ArrayLike) -> Floats:
        """Probability that the customer has not left by T, given the history."""
        return by_rows(self._p_alive, *checked_histories(frequency, recency, T))

    def expected_purchases(
        self, frequency: ArrayLike, recency: ArrayLike, T: ArrayLike, horizon: ArrayLike, gap: ArrayLike = 0.0
    ) -> Floats:
        """Expected purchase days in (T + gap, T + gap + horizon], given the history."""
        columns = checked_histories(frequency, recency, T)
        return by_rows(self._purchases, *columns, checked_duration("horizon", horizon), checked_duration("gap", gap))

    def probability_of_no_purchase(
        self, frequency: ArrayLike, recency: ArrayLike, T: ArrayLike, horizon: ArrayLike, gap: ArrayLike = 0.0
    ) -> Floats:
        """Probability of no purchase in (T + gap, T + gap + horizon], given the history, whatever the gap brings."""
        columns = checked_histories(frequency, recency, T)
        return by_rows(self._silence, *columns, checked_duration("horizon", horizon), checked_duration("gap", gap))

    def _p_alive(self, x: Floats, t_x: Floats, T: Floats) -> Floats:
        parameters = (self.r, self.alpha, self.s, self.beta)
        return expit(-_log_odds_left(*parameters, x, t_x, T, _moment_of_leaving(*parameters, x, t_x, T).integral))

    def _purchases(self, x: Floats, t_x: Floats, T: Floats, horizon: Floats, gap: Floats) -> Floats:
        # Given activity at T, lambda ~ Gamma(r + x, alpha + T) and mu ~ Gamma(s, beta + T), independently: E[lambda]
        # times the integral of P(active at T + u) = (1 + u / (beta + T))^-s over the window. exprel is finite at s = 1.
        rate, before = (self.r + x) / (self.alpha + T), self.beta + T
        span = np.log1p(horizon / (before + gap))
        active_time = (before + gap) * np.exp(-self.s * np.log1p(gap / before)) * span * exprel((1 - self.s) * span)
        return self._p_alive(x, t_x, T) * rate * active_time

    def _silence(self, x: Floats, t_x: Floats, T: Floats, horizon: Floats, gap: Floats) -> Floats:
        # For a customer active at T the first purchase after the gap comes at gap + u, nobody having left before, with
        # density E[lambda exp(-lambda u)] E[exp(-mu (gap + u))].
        shape, rate, before = self.r + x, self.alpha + T, self.beta + T
        shape_of_leaving = np.full_like(T, self.s)
        density = shape / rate * np.exp(-self.s * np.log1p(gap / before))
        purchase = density * _decay(rate, shape + 1, before + gap, shape_of_leaving, horizon).integral
        return 1 - self._p_alive(x, t_x, T) * purchase


class _Decay(NamedTuple):
    """The integral of (1 + u / c)^-k (1 + u / d)^-m over u from 0 to width, and means weighted by the integrand."""

    integral: Floats
    log_c: Floats  # mean of log(1 + u / c)
    log_d: Floats
    inverse_c: Floats  # mean of 1 / (c + u)
    inverse_d: Floats


def _decay(c: Floats, k: Floats, d: Floats, m: Floats, width: Floats) -> _Decay:
    """Gauss-Legendre in log(c + u), c being the smaller of c and d: in it both factors are smooth even for a tiny c."""
    swap = c > d
    c, d, k, m = np.where(swap, d, c), np.where(swap, c, d), np.where(swap, m, k), np.where(swap, k, m)
    with np.errstate(over="ignore"):
        width = np.minimum(width, np.minimum(c * np.expm1(_TAIL / k), d * np.expm1(_TAIL / m)))
    span = np.log1p(width / c)
    log_c = span[:, None] * ((_POINTS + 1) / 2)
    u = c[:, None] * np.expm1(log_c)
    log_d = np.log1p(u / d[:, None])
    density = np.exp((1 - k)[:, None] * log_c - m[:, None] * log_d) * (_POINT_WEIGHTS / 2)
    total = density.sum(axis=1)
    density /= total[:, None]
    columns = (log_c, log_d, 1 / (c[:, None] + u), 1 / (d[:, None] + u))
    means = [np.einsum("ij,ij->i", density, values) for values in columns]
    mean_log_c, mean_log_d, inverse_c, inverse_d = means
    return _Decay(
        c * span * total,
        np.where(swap, mean_log_d, mean_log_c), np.where(swap, mean_log_c, mean_log_d),
        np.where(swap, inverse_d, inverse_c), np.where(swap, inverse_c, inverse_d),
    )  # fmt: skip


def _moment_of_leaving(r: float, alpha: float, s: float, beta: float, x: Floats, t_x: Floats, T: Floats) -> _Decay:
    """Over u, the time from the last purchase to an unseen departure before T."""
    return _decay(alpha + t_x, r + x, beta + t_x, np.full_like(T, s + 1), T - t_x)


def _log_odds_left(
    r: float, alpha: float, s: float, beta: float, x: Floats, t_x: Floats, T: Floats, integral: Floats
) -> Floats:
    """Log odds of having left between t_x and T against being active at T; -inf if t_x = T."""
    shares = (r + x) * np.log((alpha + T) / (alpha + t_x)) + s * np.log((beta + T) / (beta + t_x))
    with np.errstate(divide="ignore"):
        return np.log(integral * s / (beta + t_x)) + shares


def _scores(parameters: Floats, x: Floats, t_x: Floats, T: Floats) -> tuple[Floats, Floats]:
    """Log likelihood by row and its derivatives by r, alpha, s, beta.

    Note 009's likelihood before the integral over the moment tau of leaving is solved: Gamma(r + x) / Gamma(r) alpha^r
    beta^s times (alpha + T)^-(r + x) (beta + T)^-s + s Integral from t_x to T of (alpha + tau)^-(r + x)
    (beta + tau)^-(s + 1), written as the likelihood of being active at T times 1 + the odds of having left.
    """
    r, alpha, s, beta = parameters
    leaving = _moment_of_leaving(r, alpha, s, beta, x, t_x, T)
    log_odds = _log_odds_left(r, alpha, s, beta, x, t_x, T, leaving.integral)
    left = expit(log_odds)
    active = 1 - left
    buying, staying = np.log(alpha + T), np.log(beta + T)
    log_likelihood = (
        gammaln(r + x) - gammaln(r) + r * np.log(alpha) - (r + x) * buying
        + s * np.log(beta) - s * staying + np.logaddexp(0, log_odds)
    )  # fmt: skip
    slopes = np.stack([
        digamma(r + x) - digamma(r) + np.log(alpha) - active * buying - left * (np.log(alpha + t_x) + leaving.log_c),
        r / alpha - (r + x) * (active / (alpha + T) + left * leaving.inverse_c),
        np.log(beta) - active * staying + left * (1 / s - np.log(beta + t_x) - leaving.log_d),
        s / beta - active * s / (beta + T) - left * (s + 1) * leaving.inverse_d,
    ])  # fmt: skip
    return log_likelihood, slopes
