"""Draws that several parts of the simulation make: one of several, some of many, a moment of a day."""

import numpy as np

from simulation.parameters import DAY, HOURS, Floats, Ints


def cumulative_shares(weights: Floats) -> Floats:
    """Row-wise cumulative probabilities, in the shape of `weights`; each row ends in exactly 1."""
    sums = weights.cumsum(axis=1)
    return sums / sums[:, -1:]


def choose(rng: np.random.Generator, cumulative: Floats, rows: Ints) -> Ints:
    """One column per entry of `rows`, drawn from that row's cumulative probabilities."""
    height, width = cumulative.shape
    ladder = (cumulative + np.arange(height)[:, None]).ravel()  # ascending: one search serves all rows
    columns = np.searchsorted(ladder, rows + rng.random(len(rows)), side="right") - width * rows
    return np.minimum(columns, width - 1)


def some_of(rng: np.random.Generator, share: Floats | float, n: int) -> Ints:
    """Ascending positions drawn out of `n`, each with probability `share`: one for all, or one per position."""
    return np.flatnonzero(rng.random(n) < share)


def random_moments(rng: np.random.Generator, days: Ints) -> Ints:
    """A second of each day, between 06:00 and midnight UTC, in microseconds since 1970: one per entry of `days`."""
    hours = np.searchsorted(HOURS, rng.random(len(days)), side="right")
    return days * DAY + (hours * 3600 + rng.integers(3600, size=len(days))) * 1_000_000
