"""Rules of association, beside the same counts from the lines themselves."""

from __future__ import annotations

from itertools import permutations

import duckdb
import pandas as pd
import pytest
from workspaces import AS_OF

from perennial import storage
from perennial.storage import CheckFailed
from serving.bought_with import bought_with

from .conftest import Shop


def test_rules_are_those_of_the_lines(shop: Shop) -> None:
    """Buyers of both, their share of the item's buyers and the lift, recounted; nothing no better than chance."""
    home = shop.workspace.home_path
    lines, products = (storage.rows_of(home, table) for table in ("transactions", "products"))
    rows = duckdb.execute(f"""
        SELECT category, list(DISTINCT customer_id) FROM {lines} JOIN {products} USING (product_id)
        WHERE amount >= 0 AND known_day < DATE '{AS_OF}' AND day >= DATE '{AS_OF}' - 365 GROUP BY ALL""").fetchall()
    buyers = {category: set(customers) for category, customers in rows}
    everybody = len(set().union(*buyers.values()))
    expected = {}
    for item, other in permutations(buyers, 2):
        both = len(buyers[item] & buyers[other])
        share, chance = both / len(buyers[item]), len(buyers[other]) / everybody
        if both >= 5 and share / chance > 1:
            expected[item, other] = (both, share, share / chance)
    found = bought_with(shop.workspace, AS_OF, None, 20).set_index(["item", "bought_with"])
    assert set(found.index) == set(expected)
    for rule, figures in expected.items():
        assert found.loc[rule, ["buyers", "share", "lift"]].tolist() == pytest.approx(figures, rel=1e-5)


def test_the_nearest_come_first(shop: Shop) -> None:
    """One item's are the first of all its rules, by rank."""
    every = bought_with(shop.workspace, None, None, 20)
    item = every["item"].iloc[0]
    found = bought_with(shop.workspace, None, item, 2)
    pd.testing.assert_frame_equal(found, every[every["item"] == item].head(2).reset_index(drop=True))
    assert found["rank"].tolist() == [1, 2][: len(found)]


def test_an_item_without_a_rule_is_refused(shop: Shop) -> None:
    """The sentence says what a rule needs."""
    with pytest.raises(CheckFailed, match="nothing is known to go with 'hammers' at 2023-07-01: it needs a companion"):
        bought_with(shop.workspace, AS_OF, "hammers", 5)
