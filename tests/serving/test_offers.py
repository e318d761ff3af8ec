"""The best items of each customer, out of rows in any order."""

from __future__ import annotations

import numpy as np
import pytest

from serving.offers import _best


@pytest.mark.parametrize("digits", [1, 2, 12])
def test_the_best_are_those_of_a_sort_by_all_three_columns(digits: int) -> None:
    """However many are equally probable: ties go by the item, also where more are tied than may be offered."""
    random = np.random.default_rng(digits)
    customer, item = np.divmod(random.permutation(60 * 40)[:2000], 40)
    probability = random.random(2000).round(digits)
    best, ranks = _best(customer, item, probability, 5)
    order = np.lexsort((item, -probability, customer))
    place = np.arange(2000) - np.searchsorted(customer[order], customer[order]) + 1
    assert best.tolist() == order[place <= 5].tolist()
    assert ranks.tolist() == place[place <= 5].tolist()


def test_nothing_has_no_best() -> None:
    best, ranks = _best(np.array([], int), np.array([], int), np.array([], float), 5)
    assert best.size == ranks.size == 0
