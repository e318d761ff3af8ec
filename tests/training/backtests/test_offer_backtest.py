"""Offers held against what was bought: each buyer's figures by hand, from rows in any order."""

from __future__ import annotations

from datetime import date

import numpy as np
import pandas as pd
import pytest

from training.backtests.offer_backtest import JudgedOffers
from training.learning.cross_sell import Backtest

SECOND = 1 / np.log2(3)  # what a hit at the second rank gains


@pytest.fixture
def judged() -> JudgedOffers:
    """Ada bought tea, which she had before, jam, and salt, which was no candidate; Ben rice, new to him; Cy nothing.

    Ada is offered bread and jam before tea, Ben tea before rice, which is as likely as salt.
    """
    rows = [
        ("cy", "tea", 0, 0.9, True), ("ada", "tea", 1, 0.2, True), ("ben", "tea", 0, 0.8, True),
        ("ada", "jam", 1, 0.4, False), ("ben", "salt", 0, 0.5, False), ("ada", "bread", 0, 0.6, False),
        ("ben", "rice", 1, 0.5, False),
    ]  # fmt: skip
    customer, item, bought, score, owned = map(list, zip(*rows, strict=True))
    said = np.array(score)
    missed = pd.DataFrame({"customer_id": ["ada"], "item": ["salt"]})
    keys = pd.DataFrame({"customer_id": customer, "item": item})
    offered = Backtest(keys, np.array(bought, dtype=float), said, -said, np.array(owned), missed)
    return JudgedOffers.of(offered, (), date(2024, 7, 1), 2)


@pytest.mark.parametrize(
    ("metric", "ada", "ben"),
    [
        ("recall2", 1 / 3, 1.0), ("hit2", 1.0, 1.0),
        ("ndcg2", SECOND / (1 + SECOND), SECOND), ("ndcg2_basket", SECOND / (1.5 + SECOND), SECOND),
        ("recall2_repeat", 1.0, np.nan), ("ndcg2_repeat", 1.0, np.nan),
        ("recall2_new", 1 / 2, 1.0), ("ndcg2_new", SECOND / (1 + SECOND), 1.0),
    ],
)  # fmt: skip
def test_a_buyers_figures_are_those_of_the_first_items(
    judged: JudgedOffers, metric: str, ada: float, ben: float
) -> None:
    """What was no candidate is in the basket, as new; of equal scores the first name comes first."""
    assert list(judged.customer_ids) == ["ada", "ben"]
    np.testing.assert_allclose(judged.by_customer["Perennial"][metric], [ada, ben])


def test_a_contrary_order_finds_other_items(judged: JudgedOffers) -> None:
    """The naive answer here is ours turned round: Ada's tea and jam come first, and Ben's rice."""
    np.testing.assert_allclose(judged.by_customer["personal frequency"]["ndcg2"], [1.0, 1.0])
