"""BG/NBD: a customer buys at a steady rate of their own and, after each repeat purchase, may leave for good.

Source: P. S. Fader, B. G. S. Hardie, K. L. Lee, '"Counting Your Customers" the Easy Way: An Alternative to the
Pareto/NBD Model', Marketing Science 24 (2005) 275-284; equations are numbered as there. An active customer buys as a
Poisson process with rate lambda ~ Gamma(r, alpha); each repeat purchase is the last with probability p ~ Beta(a, b).

Symbols, one row per customer: x `frequency` (repeat purchase days), t_x `recency` (last minus first purchase), `T`
(as_of minus first purchase). Times are in any one unit; `alpha`, horizons and gaps are in that unit too.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import digamma, expit, gammaln

from training.models.histories import Floats, Histories, by_distinct_rows, checked_duration, checked_histories
from training.models.likelihood import Peak, maximise

_TAIL = 40.0  # a quadrature leaves out what is e^-40 of the peak
_BETA_NODES = 96  # relative error below 1e-7 for a > 0.02 and horizons up to 400 (alpha + T), measured against mpmath


@dataclass(frozen=True)
class BGNBD:
    """Parameters of a fit: r, alpha of the purchase rates, a, b of the drop-out probabilities (section 3)."""

    r: float
    alpha: float
    a: float
    b: float
    log_likelihood: float

    @classmethod
    def fit(cls, frequency: ArrayLike, recency: ArrayLike, T: ArrayLike, weights: ArrayLike | None = None) -> Self:
        """Maximum likelihood, equation (6); one row per customer, or per `weights` equal customers.

        Raises ValueError for impossible rows and `NotIdentified` where the data do not determine the parameters.
        """
        histories = Histories.of(frequency, recency, T, weights)
        return cls._at(cls._peak(histories).certain(), histories)

    @classmethod
    def fit_regardless(cls, frequency: ArrayLike, recency: ArrayLike, T: ArrayLike) -> tuple[Self, str]:
        """As `fit`, and the doubt in place of an error: why the data do not determine the parameters, "" if they do.

        Parameters among which the likelihood cannot choose predict nearly the same within horizons like the history,
        but say nothing about the customers' drop-out. Too few repeat buyers are refused all the same.
        """
        histories = Histories.of(frequency, recency, T)
        peak = cls._peak(histories)
        return cls._at(peak, histories), peak.doubt

    @classmethod
    def _peak(cls, histories: Histories) -> Peak:
        columns = (histories.x, histories.t_x, histories.T, cls._chances(histories.x))
        starts = ((0.5, 0.5, 0.5, 2.0), (1.0, 1.0, 1.0, 10.0), (1.0, 0.5, 3.0, 10.0))
        return maximise(_scores, columns, histories.weights, starts, ("r", "alpha", "a", "b"))

    @classmethod
    def _at(cls, peak: Peak, histories: Histories) -> Self:
        r, alpha, a, b = (float(value) for value in peak.parameters)
        return cls(r, alpha * histories.unit, a, b, peak.log_likelihood + histories.log_unit_change)

    @staticmethod
    def _chances(x: Floats) -> Floats:
        """How often a customer with x repeat purchases may have left: after each of them."""
        return x

    def p_alive(self, frequency: ArrayLike, recency: ArrayLike, T: ArrayLike) -> Floats:
        """Probability that the customer has not left by T, given the history.

        In BG/NBD always 1 without a repeat purchase: nobody leaves before one.
        Source: Fader, Hardie, Lee, 'Computing P(alive) Using the BG/NBD Model' (2008), brucehardie.com/notes/021.
        """
        return self._p_alive(*checked_histories(frequency, recency, T))

    def _p_alive(self, x: Floats, t_x: Floats, T: Floats) -> Floats:
        return expit(-_log_odds_left(self.r, self.alpha, self.a, self.b, x, t_x, T, self._chances(x)))

    def expected_purchases(
        self, frequency: ArrayLike, recency: ArrayLike, T: ArrayLike, horizon: ArrayLike, gap: ArrayLike = 0.0
    ) -> Floats:
        """Expected purchase days in (T + gap, T + gap + horizon], given the history; with no gap, equation (10)."""
        return self.window(frequency, recency, T, horizon, gap)[1]

    def probability_of_no_purchase(
        self, frequency: ArrayLike, recency: ArrayLike, T: ArrayLike, horizon: ArrayLike, gap: ArrayLike = 0.0
    ) -> Floats:
        """Probability of no purchase in (T + gap, T + gap + horizon], given the history, whatever the gap brings.

        With no gap: 1 - p_alive (1 - ((alpha + T) / (alpha + T + horizon))^(r + x)).
        """
        return self.window(frequency, recency, T, horizon, gap)[2]

    def window(
        self, frequency: ArrayLike, recency: ArrayLike, T: ArrayLike, horizon: ArrayLike, gap: ArrayLike = 0.0
    ) -> tuple[Floats, Floats, Floats]:
        """`p_alive`, `expected_purchases` and `probability_of_no_purchase`, what they share computed once."""
        days = checked_duration("horizon", horizon), checked_duration("gap", gap)
        x, t_x, age = checked_histories(frequency, recency, T)
        alive = self._p_alive(x, t_x, age)
        purchases, purchase = by_distinct_rows(self._of_active, x, age, *days)
        return alive, alive * purchases, 1 - alive * purchase

    def draw_purchases(
        self,
        frequency: ArrayLike,
        recency: ArrayLike,
        T: ArrayLike,
        horizon: float,
        rng: np.random.Generator,
    ) -> Floats:
        """One possible number of purchase days in (T, T + horizon] for each history, from the model itself.

        An active customer makes as many purchases as the Poisson process brings, but none after the one that is last.
        """
        x, t_x, age = checked_histories(frequency, recency, T)
        active = rng.random(x.shape) < self.p_alive(x, t_x, age)
        arrivals = rng.poisson(rng.gamma(self.r + x) / (self.alpha + age) * horizon)
        p = np.clip(rng.beta(self.a, self.b + self._chances(x)), 1e-12, 1.0)  # rng.geometric overflows below
        return active * np.minimum(arrivals, rng.geometric(p)).astype(float)

    def _of_active(self, x: Floats, T: Floats, horizon: Floats, gap: Floats) -> Floats:
        """Expected purchases in the window, and the probability of any, of customers active at T (2 x rows).

        Last purchases come at rate lambda p, so with known lambda, p the customer is active at T + u with probability
        exp(-lambda p u), buys (exp(-lambda p gap) - exp(-lambda p (gap + horizon))) / p times in the window, and at
        least once with probability exp(-lambda p gap) (1 - exp(-lambda horizon)); averaged over lambda ~ Gamma(r + x,
        alpha + T) and p ~ Beta(a, b + chances), independently. Equation (10), the first in closed form, divides by
        a - 1 and overflows for frequent buyers.
        """
        p, weights = self._leaving(x)
        shape, rate, skipped = (self.r + x)[:, None], (self.alpha + T)[:, None], p * gap[:, None]
        times = _event_after(shape, rate, skipped, p * horizon[:, None]) / p
        any_time = _event_after(shape, rate, skipped, horizon[:, None])
        return np.stack([np.einsum("ij,ij->i", weights, of) for of in (times, any_time)])

    def _leaving(self, x: Floats) -> tuple[Floats, Floats]:
        """Nodes and weights over the drop-out probability of each row's customer, given that the customer is active."""
        values, rows = np.unique(x, return_inverse=True)
        nodes = [_nodes_at(self.a, b) for b in (self.b + self._chances(values)).tolist()]
        both = np.reshape(nodes, (len(nodes), 2, _BETA_NODES))
        return both[rows, 0], both[rows, 1]


def _event_after(shape: Floats, rate: Floats, skipped: Floats, length: Floats) -> Floats:
    """E[exp(-lambda skipped) (1 - exp(-lambda length))] for lambda ~ Gamma(shape, rate)."""
    before = np.exp(-shape * np.log1p(skipped / rate))
    return -before * np.expm1(-shape * np.log1p(length / (rate + skipped)))


def _log_odds_left(
    r: float, alpha: float, a: float, b: float, x: Floats, t_x: Floats, T: Floats, chances: Floats
) -> Floats:
    """Log odds of having left after the last purchase against being active at T; -inf where there was no chance to."""
    odds_after_last = np.divide(a, b + chances - 1, out=np.zeros_like(T), where=chances > 0)
    with np.errstate(divide="ignore"):
        return np.log(odds_after_last) + (r + x) * np.log((alpha + T) / (alpha + t_x))


def _scores(parameters: Floats, x: Floats, t_x: Floats, T: Floats, chances: Floats) -> tuple[Floats, Floats]:
    """Log of equation (6) by row and its derivatives by r, alpha, a, b.

    Written as the likelihood of being active at T times 1 + the odds of having left.
    """
    r, alpha, a, b = parameters
    log_odds = _log_odds_left(r, alpha, a, b, x, t_x, T, chances)
    left = expit(log_odds)
    at_last, at_end = np.log(alpha + t_x), np.log(alpha + T)
    log_likelihood = (
        gammaln(r + x) - gammaln(r) + r * np.log(alpha) - (r + x) * at_end
        + gammaln(b + chances) - gammaln(b) + gammaln(a + b) - gammaln(a + b + chances)
        + np.logaddexp(0, log_odds)
    )  # fmt: skip
    either = digamma(a + b) - digamma(a + b + chances)
    slopes = np.stack([
        digamma(r + x) - digamma(r) + np.log(alpha) - at_end + left * (at_end - at_last),
        r / alpha - (r + x) * ((1 - left) / (alpha + T) + left / (alpha + t_x)),
        either + left / a,
        either + digamma(b + chances) - digamma(b) - left / np.where(left > 0, b + chances - 1, 1),
    ])  # fmt: skip
    return log_likelihood, slopes


@lru_cache(maxsize=4096)
def _nodes_at(a: float, b: float) -> tuple[Floats, Floats]:
    """Those of one b, kept: customers share few numbers of purchases, and the service asks about one at a time."""
    p, weights = _beta_nodes(a, np.array([b]))
    return p[0], weights[0]


def _beta_nodes(a: float, b: Floats) -> tuple[Floats, Floats]:
    """Nodes and weights (rows x nodes, weights of a row sum to 1) for means over p ~ Beta(a, b).

    The trapezoidal rule in v, where logit p = mode + scale sinh(v): exponentially accurate because the integrand dies
    off at both ends, and equally so for a below 1, where p^(a - 1) has a pole, and for b in the thousands.
    """
    a_, b_ = np.full((b.size, 1), a), b[:, None]
    mode = np.log(a_ / b_)
    scale = np.minimum(1.0, np.sqrt(1 / a_ + 1 / b_))
    low, high = np.arcsinh(_tail_length(a_, b_) / scale), np.arcsinh(_tail_length(b_, a_) / scale)
    v = np.linspace(0, 1, _BETA_NODES) * (low + high) - low
    logit = mode + scale * np.sinh(v)
    log_density = a_ * logit - (a_ + b_) * np.logaddexp(0, logit)
    weights = np.exp(log_density - log_density.max(axis=1, keepdims=True)) * np.cosh(v)
    return np.maximum(expit(logit), np.finfo(float).tiny), weights / weights.sum(axis=1, keepdims=True)


def _tail_length(a: Floats, b: Floats) -> Floats:
    """How far below its mode in logit p the density of Beta(a, b) has fallen to e^-`_TAIL`; above: swap a and b."""
    mode = np.log(a / b)
    at_mode = np.logaddexp(0, mode)
    length = (_TAIL + (a + b) * at_mode) / a  # too long: Newton's method comes down from here, the fall being convex
    for _ in range(6):
        fall = a * length - (a + b) * (at_mode - np.logaddexp(0, mode - length))
        length = length - (fall - _TAIL) / (a - (a + b) * expit(mode - length))
    return length
