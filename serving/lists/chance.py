"""How many buyers two items would share by chance: some customers buy of many items, and some items sell to many.

The null model is the bipartite configuration model (Saracco, Di Clemente, Gabrielli, Squartini 2015): whether a
customer bought an item depends on nothing but how many items the customer bought and how many customers bought the
item. Two items that busy customers buy, because busy customers buy everything, are then no pair; a plain test of lift
takes them for one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import betainc

Floats = NDArray[np.floating]
Ints = NDArray[np.int64]

# Up to so many items each number of items is a group of customers of its own; above, those within a twentieth.
_APART = 30
_STEPS, _CLOSE = 2_000, 1e-7
_MOST = 1e12  # odds of who bought everything, which are infinite
_AT_ONCE = 20_000  # pairs


@dataclass(frozen=True)
class Chance:
    """customers: by group. bought: by group and item size, the chance that a customer of the group bought such an item.

    sizes: buyers of an item, rising. drawn: by group, how much two items of one customer are in each other's way: who
    bought two items and bought this one can have only one more.
    """

    customers: Floats
    sizes: Floats
    bought: Floats
    drawn: Floats

    @classmethod
    def of(cls, items_each: Ints, buyers_each: Ints) -> Self:
        """From the number of items that each customer bought, and of customers that bought each item."""
        customers, items = _grouped(items_each)
        sizes, alike = np.unique(buyers_each, return_counts=True)
        bought = _fitted(items, customers, sizes.astype(float), alike.astype(float))
        spread = (bought * (1 - bought)) @ alike * (1 - 1 / len(buyers_each))
        return cls(customers, sizes.astype(float), bought, spread)

    def p_values(self, both: Ints, first: Ints, second: Ints) -> Floats:
        """Of pairs with so many common buyers, and buyers of either: how likely chance brings as many or more."""
        starts = range(0, len(both), _AT_ONCE)
        parts = [self._p_values(*(column[at : at + _AT_ONCE] for column in (both, first, second))) for at in starts]
        return np.concatenate(parts) if parts else np.empty(0)

    def _p_values(self, both: Ints, first: Ints, second: Ints) -> Floats:
        """By a binomial distribution of the same mean and variance, given how many bought either."""
        p, q = (self.bought[:, np.searchsorted(self.sizes, size)] for size in (first, second))
        n, a, b = self.customers[:, None], p * (1 - p), q * (1 - q)
        crowding = np.divide(a * b, self.drawn[:, None], out=np.zeros_like(a), where=self.drawn[:, None] > 0)
        mean = (n * np.maximum(p * q - crowding, 0)).sum(axis=0)
        variance = (n * a * b).sum(axis=0) + _between(n * a, q) + _between(n * b, p)
        return _at_least(both, mean, np.minimum(variance, mean))


def _grouped(items_each: Ints) -> tuple[Floats, Floats]:
    """Customers by how many items they bought: how many customers, and the mean of their items."""
    step = np.where(items_each <= _APART, items_each, _APART + np.log(items_each / _APART) // 0.05 + 1)
    _, group = np.unique(step, return_inverse=True)
    customers = np.bincount(group)
    return customers.astype(float), np.bincount(group, weights=items_each) / customers


def _fitted(items: Floats, customers: Floats, sizes: Floats, alike: Floats) -> Floats:
    """x y / (1 + x y) for each group and size, so that each group buys its items, and each item has its buyers."""
    root = np.sqrt(items @ customers)
    x, y = items / root, sizes / root
    for _ in range(_STEPS):
        before = x
        x = np.minimum(items / (alike * y / (1 + np.outer(x, y))).sum(axis=1), _MOST)
        y = np.minimum(sizes / ((customers * x)[:, None] / (1 + np.outer(x, y))).sum(axis=0), _MOST)
        if np.abs(x / before - 1).max() < _CLOSE:
            break
    odds = np.outer(x, y)
    return odds / (1 + odds)


def _between(weight: Floats, chance: Floats) -> Floats:
    """What is left of a variance by groups once the number of buyers is given: about the groups' weighted mean."""
    total = weight.sum(axis=0)
    mean = np.divide((weight * chance).sum(axis=0), total, out=np.zeros_like(total), where=total > 0)
    return (weight * (chance - mean) ** 2).sum(axis=0)


def _at_least(count: Ints, mean: Floats, variance: Floats) -> Floats:
    """P(X >= count) of a binomial X, its number of trials any positive number."""
    share = np.clip(1 - variance / np.maximum(mean, 1e-12), 1e-9, 1 - 1e-9)
    trials = mean / share
    possible = np.maximum(trials - count + 1, 1e-12)
    return np.where(count > 0, betainc(np.maximum(count, 1), possible, share), 1.0)


def among(p_values: Floats, tested: int, false_share: float) -> NDArray[np.bool_]:
    """Which of the smallest p-values of `tested` questions hold if at most this share of them may be false.

    Benjamini and Hochberg (1995); questions without a p-value here count as answered no.
    """
    order = np.argsort(p_values)
    passes = p_values[order] <= false_share * np.arange(1, len(order) + 1) / max(tested, 1)
    holds = np.zeros(len(p_values), dtype=bool)
    holds[order[: np.flatnonzero(passes).max(initial=-1) + 1]] = True
    return holds
