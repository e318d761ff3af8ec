"""BG/NBD: a customer buys at a steady rate of their own and, after each repeat purchase, may leave for good.

Source: P. S. Fader, B. G. S. Hardie, K. L. Lee, '"Counting Your Customers" the Easy Way: An Alternative to the
Pareto/NBD Model', Marketing Science 24 (2005) 275-284; equations are numbered as there. An active customer buys as a
Poisson process with rate lambda ~ Gamma(r, alpha); each repeat purchase is the last with probability p ~ Beta(a, b).

Symbols, one row per customer: x `frequency` (repeat purchase days), t_x `recency` (last minus first purchase), `T`
(as_of minus first purchase). Times are in any one unit; `alpha`, horizons and gaps are in that unit too.

Also here, because all models of the family need them: `Histories` (the checked input), `maximise` and `NotIdentified`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize
from scipy.special import digamma, expit, gammaln

Floats = NDArray[np.float64]

MINIMUM_REPEAT_BUYERS = 30
"""With fewer customers who came back, nothing can be said about how customers differ."""

LARGEST_LOG_ERROR = 2.0
"""A parameter whose logarithm has a larger standard error is not known to within a factor of 50 either way."""

_LOG_BOUND = 10.0  # parameters stay within e^-10 .. e^10, times being in multiples of the mean T
_THINNED_ROWS = 4_000
_CHUNK_ROWS = 4_096  # a chunk's rows times quadrature nodes stay in the processor's cache
_TAIL = 40.0  # a quadrature leaves out what is e^-40 of the peak
_BETA_NODES = 96  # relative error below 1e-7 for a > 0.02 and horizons up to 400 (alpha + T), measured against mpmath


class NotIdentified(ValueError):
    """The data do not determine the parameters: too few repeat buyers, or a likelihood that is flat or has no peak."""


def check_rows(problem: str, bad: NDArray[np.bool_], *columns: Floats) -> None:
    """Raise ValueError with the number of `bad` rows and the values of the first five, if there are any."""
    if bad.any():
        first = [tuple(float(column[row]) for column in columns) for row in np.flatnonzero(bad)[:5]]
        shown = ", ".join(str(values if len(values) > 1 else values[0]) for values in first)
        raise ValueError(f"{problem} in {int(bad.sum())} of {bad.size} rows: {shown}")


def check_weights(weights: ArrayLike | None, rows: int) -> Floats:
    """Weights as floats, ones if None. A weight of n stands for n equal rows."""
    if weights is None:
        return np.ones(rows)
    weights = np.asarray(weights, dtype=float)
    if weights.shape != (rows,):
        raise ValueError(f"weights have shape {weights.shape}, expected ({rows},): one for each row")
    check_rows("weight is not a positive number", ~(np.isfinite(weights) & (weights > 0)), weights)
    return weights


def check_columns(**columns: ArrayLike) -> list[Floats]:
    """The columns as floats; ValueError unless they are of one length and hold at least one row."""
    arrays = [np.asarray(column, dtype=float) for column in columns.values()]
    if any(array.ndim != 1 or array.shape != arrays[0].shape for array in arrays):
        shapes = ", ".join(f"{name} {array.shape}" for name, array in zip(columns, arrays, strict=True))
        raise ValueError(f"columns differ in shape: {shapes}; expected one row per customer in each")
    if arrays[0].size == 0:
        raise ValueError(f"no customers: {', '.join(columns)} are empty")
    return arrays


def distinct_rows(columns: Sequence[Floats], weights: Floats) -> tuple[list[Floats], Floats]:
    """The distinct rows of `columns` in ascending order, and the sum of the `weights` of each."""
    order, first = sorted_rows(columns)
    return [column[order[first]] for column in columns], np.add.reduceat(weights[order], np.flatnonzero(first))


def sorted_rows(columns: Sequence[Floats]) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """The ascending order of the rows, and which of the rows so ordered differ from the one before."""
    order = np.lexsort(tuple(reversed(columns)))
    first = np.ones(order.size, dtype=bool)
    first[1:] = np.any([column[order[1:]] != column[order[:-1]] for column in columns], axis=0)
    return order, first


def check_histories(x: Floats, t_x: Floats, T: Floats) -> None:
    """Refuse (ValueError) what cannot be a purchase history."""
    for name, column in (("frequency", x), ("recency", t_x), ("T", T)):
        check_rows(f"{name} is missing, infinite or negative", ~(np.isfinite(column) & (column >= 0)), column)
    check_rows("frequency is not a whole number", x != np.floor(x), x)
    check_rows("recency exceeds T: (recency, T)", t_x > T, t_x, T)
    check_rows("frequency is 0 but recency, first to last purchase, is not", (x == 0) & (t_x > 0), t_x)


@dataclass(frozen=True)
class Histories:
    """Distinct purchase histories and how many customers have each; `t_x`, `T` in multiples of `unit`, the mean T."""

    x: Floats
    t_x: Floats
    T: Floats
    weights: Floats
    unit: float

    @classmethod
    def of(cls, frequency: ArrayLike, recency: ArrayLike, T: ArrayLike, weights: ArrayLike | None = None) -> Self:
        """Raises ValueError for impossible rows and `NotIdentified` for too few repeat buyers."""
        x, t_x, age = check_columns(frequency=frequency, recency=recency, T=T)
        check_histories(x, t_x, age)
        counts = check_weights(weights, x.size)
        check_repeat_buyers(float(counts[x > 0].sum()), float(counts.sum()))
        (x, t_x, age), counts = distinct_rows((x, t_x, age), counts)
        unit = float(np.average(age, weights=counts))
        return cls(x, t_x / unit, age / unit, counts, unit)

    @property
    def log_unit_change(self) -> float:
        """Added to the log likelihood, gives that of times in the caller's unit: a repeat purchase has a density."""
        return float(-np.log(self.unit) * (self.weights @ self.x))


def check_repeat_buyers(repeat_buyers: float, customers: float) -> None:
    """Raise `NotIdentified` if fewer customers than `MINIMUM_REPEAT_BUYERS` came back."""
    if repeat_buyers < MINIMUM_REPEAT_BUYERS:
        raise NotIdentified(
            f"{repeat_buyers:g} of {customers:g} customers bought again, at least {MINIMUM_REPEAT_BUYERS} must have: "
            "use a longer history"
        )


Scores = Callable[..., tuple[Floats, Floats]]
"""(parameters, *columns) -> (log likelihood of each row, its derivatives by each parameter: parameters x rows)"""


@dataclass(frozen=True)
class _Totals:
    log_likelihood: float
    gradient: Floats
    information: Floats  # sum of the outer products of the rows' gradients, which estimates minus the Hessian


def _totals(scores: Scores, log_parameters: Floats, columns: Sequence[Floats], weights: Floats) -> _Totals:
    """Sums over weighted rows; derivatives are by the logarithms of the parameters."""
    parameters = np.exp(log_parameters)
    log_likelihood, gradient, information = 0.0, np.zeros(len(parameters)), np.zeros((len(parameters),) * 2)
    for rows in _chunks(weights.size):
        value, slopes = scores(parameters, *(column[rows] for column in columns))
        slopes *= parameters[:, None]
        log_likelihood += float(value @ weights[rows])
        gradient += slopes @ weights[rows]
        information += (slopes * weights[rows]) @ slopes.T
    return _Totals(log_likelihood, gradient, information)


def _chunks(rows: int) -> Iterator[slice]:
    return (slice(start, start + _CHUNK_ROWS) for start in range(0, rows, _CHUNK_ROWS))


class Peak(NamedTuple):
    """Where the search for the highest likelihood ended, and why that is no peak; `doubt` is empty if it is one."""

    parameters: Floats
    log_likelihood: float
    doubt: str

    def certain(self) -> Self:
        """The peak itself. Raises `NotIdentified` with the doubt, if there is one."""
        if self.doubt:
            raise NotIdentified(self.doubt)
        return self


def maximise(
    scores: Scores,
    columns: Sequence[Floats],
    weights: Floats,
    starts: Sequence[Sequence[float]],
    names: Sequence[str],
) -> Peak:
    """The positive parameters of the highest likelihood over all weighted rows.

    The starts race on rows thinned evenly over their sorted order (all rows if few); from the winner the search goes on
    over all rows. In doubt if a parameter runs off or its logarithm's standard error is too large; a parameter without
    a name, "", may run off.
    """
    begin = _best_start(scores, columns, weights, starts)
    log_parameters = _polish(scores, columns, weights, begin)
    totals = _totals(scores, log_parameters, columns, weights)
    return Peak(np.exp(log_parameters), totals.log_likelihood, _doubt(log_parameters, totals, names))


def _best_start(
    scores: Scores, columns: Sequence[Floats], weights: Floats, starts: Sequence[Sequence[float]]
) -> Floats:
    step = -(-weights.size // _THINNED_ROWS)
    thinned, thinned_weights = [column[::step] for column in columns], weights[::step] / weights[::step].sum()

    def loss(log_parameters: Floats) -> tuple[float, Floats]:
        totals = _totals(scores, log_parameters, thinned, thinned_weights)
        return -totals.log_likelihood, -totals.gradient

    bounds = [(-_LOG_BOUND, _LOG_BOUND)] * len(starts[0])
    runs = [minimize(loss, np.log(start), jac=True, method="L-BFGS-B", bounds=bounds) for start in starts]
    return min(runs, key=lambda run: run.fun).x


def _polish(scores: Scores, columns: Sequence[Floats], weights: Floats, begin: Floats) -> Floats:
    """Go on from `begin` over all rows, in coordinates in which the likelihood is about equally curved every way."""
    information = _totals(scores, begin, columns, weights).information
    axes = np.linalg.inv(np.linalg.cholesky(information + np.eye(begin.size))).T

    def position(steps: Floats) -> Floats:
        return np.clip(begin + axes @ steps, -_LOG_BOUND, _LOG_BOUND)

    def loss(steps: Floats) -> tuple[float, Floats]:
        totals = _totals(scores, position(steps), columns, weights)
        return -totals.log_likelihood, -axes.T @ totals.gradient

    options = {"ftol": 1e-15, "gtol": 1e-4, "maxcor": 20}
    return position(minimize(loss, np.zeros(begin.size), jac=True, method="L-BFGS-B", options=options).x)


def _doubt(log_parameters: Floats, totals: _Totals, names: Sequence[str]) -> str:
    covariance = np.linalg.inv(totals.information + 1e-9 * np.eye(len(names)))
    errors = np.sqrt(np.diag(covariance))
    named = np.array([bool(name) for name in names])
    unknown = named & ((errors > LARGEST_LOG_ERROR) | (np.abs(log_parameters) > _LOG_BOUND - 1e-3))
    if unknown.any():
        shown = ", ".join(f"{name} ({error:.3g})" for name, error in zip(names, errors, strict=True) if name)
        return (
            f"the data do not determine {', '.join(np.array(names)[unknown])}: standard errors of the parameters' "
            f"logarithms are {shown}, at most {LARGEST_LOG_ERROR:g} is accepted; use a longer history or more customers"
        )
    slope = totals.gradient[named]
    if slope @ covariance[np.ix_(named, named)] @ slope > 1e-3:
        return "the search found no peak of the likelihood; use a longer history or more customers"
    return ""


def by_rows(function: Callable[..., Floats], *columns: Floats) -> Floats:
    """`function` of the broadcast columns, a chunk of rows at a time; its last axis, or its only one, is of rows."""
    broadcast = np.broadcast_arrays(*columns)
    flat = [column.ravel() for column in broadcast]
    if flat[0].size <= _CHUNK_ROWS:
        result = function(*flat)
    else:
        chunks = _chunks(flat[0].size)
        result = np.concatenate([function(*(column[rows] for column in flat)) for rows in chunks], axis=-1)
    return result.reshape(result.shape[:-1] + broadcast[0].shape)


def by_distinct_rows(function: Callable[..., Floats], *columns: Floats) -> Floats:
    """As `by_rows`, but computed once for equal rows: a million customers share some ten thousand pairs of x and T."""
    broadcast = np.broadcast_arrays(*columns)
    if broadcast[0].size == 1:
        return by_rows(function, *broadcast)
    flat = [column.ravel() for column in broadcast]
    order, first = sorted_rows(flat)
    place = np.empty_like(order)
    place[order] = np.cumsum(first) - 1
    result = by_rows(function, *(column[order[first]] for column in flat))[..., place]
    return result.reshape(result.shape[:-1] + broadcast[0].shape)


def checked_histories(frequency: ArrayLike, recency: ArrayLike, T: ArrayLike) -> tuple[Floats, Floats, Floats]:
    """The histories to predict for, as float arrays of one shape; ValueError for impossible ones."""
    x, t_x, age = np.broadcast_arrays(*(np.asarray(column, dtype=float) for column in (frequency, recency, T)))
    check_histories(x.ravel(), t_x.ravel(), age.ravel())
    return x, t_x, age


def checked_duration(name: str, duration: ArrayLike) -> Floats:
    """A horizon or gap as floats; ValueError unless finite and not negative."""
    duration = np.asarray(duration, dtype=float)
    flat = duration.ravel()
    check_rows(f"{name} is missing, infinite or negative", ~(np.isfinite(flat) & (flat >= 0)), flat)
    return duration


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
