"""Tenths of customers by what was said of them, beside what happened: what rules learn from and figures are made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

BINS = 10


@dataclass(frozen=True)
class Deciles:
    """Ten bins of equal count by prediction, the lowest first; counts differ by one if ten does not divide the rows."""

    count: NDArray[np.int64]
    predicted: Floats
    actual: Floats


def decile_table(actual: ArrayLike, predicted: ArrayLike) -> Deciles:
    """Mean predicted and mean actual value of each tenth of the rows. Raises ValueError with fewer than ten rows."""
    ranked = Ranked.of(*checked(actual, predicted))
    if ranked.actual.size < BINS:
        raise ValueError(f"{ranked.actual.size} rows do not fill {BINS} bins")
    parts = [np.array_split(column, BINS) for column in (ranked.predicted, ranked.actual)]
    means = [np.array([part.mean() for part in column]) for column in parts]
    return Deciles(np.array([part.size for part in parts[0]]), *means)


class Ranked(NamedTuple):
    predicted: Floats  # ascending
    actual: Floats  # where predictions tie, their mean

    @classmethod
    def of(cls, actual: Floats, predicted: Floats) -> Self:
        values, group, counts = np.unique(predicted, return_inverse=True, return_counts=True)
        means = np.bincount(group, weights=actual) / counts
        return cls(np.repeat(values, counts), np.repeat(means, counts))


def checked(actual: ArrayLike, predicted: ArrayLike) -> tuple[Floats, Floats]:
    """Both as columns of numbers. Raises ValueError where lengths differ or values are missing."""
    first, second = np.asarray(actual, dtype=float), np.asarray(predicted, dtype=float)
    if first.ndim != 1 or first.shape != second.shape or first.size == 0:
        raise ValueError(f"actual has shape {first.shape}, predicted {second.shape}; expected one row per customer")
    for name, column in (("actual", first), ("predicted", second)):
        missing = int((~np.isfinite(column)).sum())
        if missing:
            raise ValueError(f"{name} is missing or infinite in {missing} of {column.size} rows")
    return first, second
