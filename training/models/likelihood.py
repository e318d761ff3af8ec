"""Maximum likelihood for the models of purchases and of spend: where the peak is, and whether the data determine it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
from threadpoolctl import threadpool_limits

from training.models.histories import Floats, NotIdentified, row_chunks

LARGEST_LOG_ERROR = 2.0
"""A parameter whose logarithm has a larger standard error is not known to within a factor of 50 either way."""

_LOG_BOUND = 10.0  # parameters stay within e^-10 .. e^10, times being in multiples of the mean T
_THINNED_ROWS = 4_000

Scores = Callable[..., tuple[Floats, Floats]]
"""(parameters, *columns) -> (log likelihood of each row, its derivatives by each parameter: parameters x rows)"""


class Peak(NamedTuple):
    """Where the search for the highest likelihood ended, and why that is no peak; `doubt` is empty if it is one."""

    parameters: Floats  # in the order of the names
    log_likelihood: float  # of all weighted rows, in the columns' own units
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
    """The positive parameters of the highest likelihood over all weighted rows: `columns` hold one entry per row.

    The starts race on rows thinned evenly over their sorted order (all rows if few); from the winner the search goes on
    over all rows. In doubt if a parameter runs off or its logarithm's standard error is too large; a parameter without
    a name, "", may run off. A peak that this process has found once is not searched for again: the models of churn and
    of value are judged beside the same ones.
    """
    asked = scores, _digest((*columns, weights)), tuple(map(tuple, starts)), tuple(names)
    if asked not in _PEAKS:
        if len(_PEAKS) >= _MOST_PEAKS:
            _PEAKS.clear()
        _PEAKS[asked] = _searched(scores, columns, weights, starts, names)
    return _PEAKS[asked]


_PEAKS: dict[tuple[object, ...], Peak] = {}
_MOST_PEAKS = 500


def _digest(columns: Sequence[Floats]) -> bytes:
    digest = hashlib.sha256()
    for column in columns:
        digest.update(column.tobytes())
    return digest.digest()


def _searched(
    scores: Scores, columns: Sequence[Floats], weights: Floats, starts: Sequence[Sequence[float]], names: Sequence[str]
) -> Peak:
    # The search's linear algebra is of four numbers: threads that wait for it between steps would cost more than it.
    with threadpool_limits(1, "blas"):
        begin = _best_start(scores, columns, weights, starts)
        log_parameters = _polish(scores, columns, weights, begin)
        totals = _totals(scores, log_parameters, columns, weights)
    return Peak(np.exp(log_parameters), totals.log_likelihood, _doubt(log_parameters, totals, names))


def _best_start(
    scores: Scores, columns: Sequence[Floats], weights: Floats, starts: Sequence[Sequence[float]]
) -> Floats:
    from scipy.optimize import minimize  # only to fit, and slow to load

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
    from scipy.optimize import minimize  # only to fit, and slow to load

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


@dataclass(frozen=True)
class _Totals:
    log_likelihood: float
    gradient: Floats
    information: Floats  # sum of the outer products of the rows' gradients, which estimates minus the Hessian


def _totals(scores: Scores, log_parameters: Floats, columns: Sequence[Floats], weights: Floats) -> _Totals:
    """Sums over weighted rows; derivatives are by the logarithms of the parameters."""
    parameters = np.exp(log_parameters)
    log_likelihood, gradient, information = 0.0, np.zeros(len(parameters)), np.zeros((len(parameters),) * 2)
    for rows in row_chunks(weights.size):
        value, slopes = scores(parameters, *(column[rows] for column in columns))
        slopes *= parameters[:, None]
        log_likelihood += float(value @ weights[rows])
        gradient += slopes @ weights[rows]
        information += (slopes * weights[rows]) @ slopes.T
    return _Totals(log_likelihood, gradient, information)
