"""Purchase histories, which the models of purchases and of spend learn from and predict for: their checks, their rows.

One row per customer: x `frequency` (repeat purchase days), t_x `recency` (last minus first purchase), `T` (as_of minus
first purchase). Times are in any one unit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

MINIMUM_REPEAT_BUYERS = 30
"""With fewer customers who came back, nothing can be said about how customers differ."""

_CHUNK_ROWS = 4_096  # a chunk's rows times quadrature nodes stay in the processor's cache


class NotIdentified(ValueError):
    """The data do not determine the parameters: too few repeat buyers, or a likelihood that is flat or has no peak."""


@dataclass(frozen=True)
class Histories:
    """What a fit learns from: one row per distinct history, in ascending order, and how many customers have it."""

    x: Floats
    t_x: Floats  # in multiples of `unit`
    T: Floats  # in multiples of `unit`
    weights: Floats  # customers
    unit: float  # mean T, in the caller's unit

    @classmethod
    def of(cls, frequency: ArrayLike, recency: ArrayLike, T: ArrayLike, weights: ArrayLike | None = None) -> Self:
        """One row per customer, or per `weights` equal customers.

        Raises ValueError for impossible rows and `NotIdentified` for too few repeat buyers.
        """
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
    """The columns as floats, in the order given; ValueError unless they are of one length and hold at least one row."""
    arrays = [np.asarray(column, dtype=float) for column in columns.values()]
    if any(array.ndim != 1 or array.shape != arrays[0].shape for array in arrays):
        shapes = ", ".join(f"{name} {array.shape}" for name, array in zip(columns, arrays, strict=True))
        raise ValueError(f"columns differ in shape: {shapes}; expected one row per customer in each")
    if arrays[0].size == 0:
        raise ValueError(f"no customers: {', '.join(columns)} are empty")
    return arrays


def check_histories(x: Floats, t_x: Floats, T: Floats) -> None:
    """Refuse (ValueError) what cannot be a purchase history; one-dimensional columns of equal length."""
    for name, column in (("frequency", x), ("recency", t_x), ("T", T)):
        check_rows(f"{name} is missing, infinite or negative", ~(np.isfinite(column) & (column >= 0)), column)
    check_rows("frequency is not a whole number", x != np.floor(x), x)
    check_rows("recency exceeds T: (recency, T)", t_x > T, t_x, T)
    check_rows("frequency is 0 but recency, first to last purchase, is not", (x == 0) & (t_x > 0), t_x)


def check_repeat_buyers(repeat_buyers: float, customers: float) -> None:
    """Raise `NotIdentified` if fewer customers than `MINIMUM_REPEAT_BUYERS` came back."""
    if repeat_buyers < MINIMUM_REPEAT_BUYERS:
        raise NotIdentified(
            f"{repeat_buyers:g} of {customers:g} customers bought again, at least {MINIMUM_REPEAT_BUYERS} must have: "
            "use a longer history"
        )


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


def by_rows(function: Callable[..., Floats], *columns: Floats) -> Floats:
    """`function` of the broadcast columns, a chunk of rows at a time; its last axis, or its only one, is of rows."""
    broadcast = np.broadcast_arrays(*columns)
    flat = [column.ravel() for column in broadcast]
    if flat[0].size <= _CHUNK_ROWS:
        result = function(*flat)
    else:
        chunks = row_chunks(flat[0].size)
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


def row_chunks(rows: int) -> Iterator[slice]:
    """Slices that cover `rows` rows in order, as many at a time as the processor's cache holds; none for no rows."""
    return (slice(start, start + _CHUNK_ROWS) for start in range(0, rows, _CHUNK_ROWS))
