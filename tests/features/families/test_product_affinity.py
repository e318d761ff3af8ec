"""What a customer buys again, and what the shop's customers buy."""

from __future__ import annotations

import math
from datetime import date
from pathlib import Path

import pandas as pd
import pytest
from builders import make_transactions

from features import snapshot
from features.families.product_affinity import POPULARITY, product_affinity
from tests.features.shops import family_at, features_at, open_shop

AS_OF = date(2024, 7, 1)
PRODUCTS = pd.DataFrame({"product_id": ["p0", "p1", "p2"], "category": ["tea", "tea", "cake"]})
LINES = make_transactions(
    [("a", "2024-06-01", 2.0), ("a", "2024-06-01", 3.0), ("a", "2024-06-11", 1.0), ("a", "2024-06-11", -1.0),
     ("b", "2024-01-01", 1.0), ("b", "2024-01-01", 1.0)],
    product_id=["p0", "p1", "p0", "p2", "p2", "p9"],
)  # fmt: skip


def test_products_of_a_category_are_one_item(tmp_path: Path) -> None:
    """Two teas on one day are one purchase of tea; what was only returned, or has no category, is no item."""
    workspace = open_shop(tmp_path, {"transactions": LINES, "products": PRODUCTS})
    rows = family_at(workspace, product_affinity, AS_OF)
    assert rows.index.tolist() == [("a", "tea"), ("b", "cake")]
    tea = rows.loc[("a", "tea"), ["item_n_purchases", "item_spend_365d", "item_gap_mean", "item_silence_vs_gap"]]
    assert tea.tolist() == [2, 6, 10, 2]


def test_an_item_can_be_a_product(tmp_path: Path) -> None:
    """At item level every product sold is one, in the table of products or not."""
    tables = {"transactions": LINES, "products": PRODUCTS}
    rows = family_at(open_shop(tmp_path, tables, cross_sell={"level": "item"}), product_affinity, AS_OF)
    assert rows["item_n_purchases"].to_dict() == {("a", "p0"): 2, ("a", "p1"): 1, ("b", "p2"): 1, ("b", "p9"): 1}
    assert rows["item_share_365d"].loc["a"].tolist() == [2 / 3, 1 / 3]
    assert rows["item_gap_mean"].isna().tolist() == [False, True, True, True]


def test_popularity_is_a_share_of_the_buyers(tmp_path: Path) -> None:
    """In 30 days one bought, and bought tea; in a year two did."""
    workspace = open_shop(tmp_path, {"transactions": LINES, "products": PRODUCTS})
    shares = features_at(workspace, AS_OF)["popularity"][[feature.name for feature in POPULARITY]]
    assert shares.loc["tea"].iloc[:5].tolist() == [1, 1, 0.5, 2, 0]
    assert shares.loc["cake"].iloc[:5].tolist() == [0, 0, 0.5, 0, 0]


def test_an_item_is_new_to_buyers_rebought_or_young(tmp_path: Path) -> None:
    """Tea won a buyer lately, who is too recent to say that it is rebought; cake's earlier buyer had it once."""
    workspace = open_shop(tmp_path, {"transactions": LINES, "products": PRODUCTS})
    items = features_at(workspace, AS_OF)["popularity"]
    figures = items[["item_new_buyers_90d", "item_rebought_share", "item_days_on_sale"]]
    assert figures.loc["tea"].tolist() == pytest.approx([1, math.nan, 30], nan_ok=True)
    assert figures.loc["cake"].tolist() == pytest.approx([0, 1 / 21, 182])


def test_an_item_is_popular_for_a_year(tmp_path: Path) -> None:
    """What was last bought 365 days ago is ranked, what was last bought the day before is not."""
    lines = make_transactions([("a", "2023-07-02", 1.0), ("a", "2023-07-01", 1.0)], product_id=["in", "out"])
    workspace = open_shop(tmp_path, {"transactions": lines}, cross_sell={"level": "item"})
    items = features_at(workspace, AS_OF)["popularity"]
    assert items.index.tolist() == ["in"]


def test_popularity_of_a_silent_month_is_null(tmp_path: Path) -> None:
    """Where nobody bought anything no item has a share of it."""
    workspace = open_shop(tmp_path, {"transactions": LINES, "products": PRODUCTS})
    items = features_at(workspace, date(2024, 10, 1))["popularity"]
    assert items[["item_buyers_30d", "item_buyers_90d", "item_rising"]].isna().all(axis=None)


def test_without_products_there_is_no_category_to_rank(tmp_path: Path) -> None:
    """No family of items is built."""
    workspace = open_shop(tmp_path, {"transactions": LINES})
    assert list(features_at(workspace, AS_OF)) == list(snapshot.CUSTOMER_FAMILIES)


def test_items_without_product_ids_are_none(tmp_path: Path) -> None:
    """At item level, without a product on any line, their families are there and empty."""
    workspace = open_shop(tmp_path, {"transactions": LINES.drop(columns="product_id")}, cross_sell={"level": "item"})
    features = features_at(workspace, AS_OF)
    assert features["product_affinity"].empty
    assert features["popularity"].empty


def test_lift_compares_with_chance(tmp_path: Path) -> None:
    """Who buys tea always buys cups, which half of all do: twice what chance gives; strangers have no row."""
    rows = [("a", "2024-06-01", 1.0), ("a", "2024-06-02", 1.0), ("b", "2024-06-01", 1.0), ("b", "2024-05-01", 1.0),
            ("c", "2024-06-01", 1.0), ("d", "2024-06-01", 1.0)]  # fmt: skip
    lines = make_transactions(rows, product_id=["tea", "cups", "tea", "cups", "cake", "cake"])
    features = features_at(open_shop(tmp_path, {"transactions": lines}, cross_sell={"level": "item"}), AS_OF)
    assert features["co_purchase"].loc[("cups", "tea")].tolist() == pytest.approx([2, 1, 2, 2 / 12])
    assert ("cake", "tea") not in features["co_purchase"].index
