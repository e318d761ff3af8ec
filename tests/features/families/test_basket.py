"""What lies in baskets: shares, kinds, and null where the shop notes nothing."""

from __future__ import annotations

import math
from datetime import date
from pathlib import Path

import pandas as pd
import pytest
from builders import make_transactions

from features.families.basket import FEATURES, basket
from tests.features.shops import family_at, open_shop

AS_OF = date(2024, 7, 1)
PRODUCTS = pd.DataFrame({"product_id": ["p0", "p1"], "category": ["tea", "cake"], "unit_cost": [1.0, None]})


def basket_of(folder: Path, lines: pd.DataFrame, **tables: pd.DataFrame) -> pd.DataFrame:
    rows = family_at(open_shop(folder, {"transactions": lines} | tables), basket, AS_OF)
    return rows[[feature.name for feature in FEATURES]]


def test_what_the_shop_does_not_note_is_null(tmp_path: Path) -> None:
    """With four columns only lines, prices, returns and the hour are known; nothing is zero for want of data."""
    lines = make_transactions([("a", "2024-06-01", 1.0), ("a", "2024-06-02", -1.0)])
    basket_of_a = basket_of(tmp_path, lines).loc["a"].dropna()
    assert basket_of_a.to_dict() == {
        "lines_per_purchase_365d": 1,
        "return_share_365d": 1,
        "price_mean_365d": 1,
        "price_change_90d": 1,
        "n_return_days_365d": 1,
        "n_return_days_90d": 1,
        "hour_mean_365d": 0,
    }


def test_kinds_are_counted_among_what_was_bought(tmp_path: Path) -> None:
    """A category that was only returned is none of those bought; an unknown product has none."""
    rows = [("a", "2024-01-01", 1.0), ("a", "2024-06-02", 1.0), ("a", "2024-06-03", -1.0)]
    lines = make_transactions(rows, product_id=["p0", "p9", "p1"])
    basket_of_a = basket_of(tmp_path, lines, products=PRODUCTS).loc["a"]
    assert basket_of_a[["n_categories_365d", "n_categories_90d"]].tolist() == [1, 0]


def test_a_line_without_a_quantity_is_one_piece(tmp_path: Path) -> None:
    """Four pieces for 10 and one for 90 are 20 apiece."""
    lines = make_transactions([("a", "2024-06-01", 10.0), ("a", "2024-06-02", 90.0)], quantity=[4.0, None])
    basket_of_a = basket_of(tmp_path, lines).loc["a"]
    assert basket_of_a["price_mean_365d"] == 20


def test_a_cost_of_the_line_outranks_that_of_its_product(tmp_path: Path) -> None:
    """The margin is what was paid less the line's cost, or else the product's; a line without either is left out."""
    rows = [("a", "2024-06-01", 10.0), ("b", "2024-06-01", 10.0), ("b", "2024-06-01", 90.0)]
    lines = make_transactions(rows, product_id=["p0", "p0", "p1"], quantity=3.0, cost=[2.0, None, None])
    margins = basket_of(tmp_path, lines, products=PRODUCTS)["margin_365d"]
    assert margins.to_dict() == {"a": 8, "b": 7}


def test_a_discount_counts_with_either_sign(tmp_path: Path) -> None:
    """Systems note discounts as 2 or as -2; both are a fifth of what 8 would have cost."""
    rows = [("a", "2024-06-01", 8.0), ("b", "2024-06-01", 8.0), ("c", "2024-06-01", 8.0)]
    shares = basket_of(tmp_path, make_transactions(rows, discount=[2.0, -2.0, None]))["discount_share_365d"]
    assert shares.dropna().to_dict() == {"a": 0.2, "b": 0.2}


def test_who_only_returned_has_no_shares(tmp_path: Path) -> None:
    """Without anything bought there is nothing to divide by; the returns are counted."""
    basket_of_a = basket_of(tmp_path, make_transactions([("a", "2024-06-01", -8.0)])).loc["a"]
    assert basket_of_a.dropna().to_dict() == {"n_return_days_365d": 1, "n_return_days_90d": 1}


def test_a_year_of_silence_leaves_no_row(tmp_path: Path) -> None:
    """The 365th day before as_of is the last that counts."""
    lines = make_transactions([("in", "2023-07-02", 1.0), ("out", "2023-07-01", 1.0)])
    assert basket_of(tmp_path, lines).index.tolist() == ["in"]


def test_diversity_is_that_of_spend(tmp_path: Path) -> None:
    """Half and half is ln 2; what was free has no share of it."""
    rows = [("a", "2024-06-01", 5.0), ("a", "2024-06-01", 5.0), ("b", "2024-06-01", 5.0), ("b", "2024-06-01", 0.0)]
    lines = make_transactions(rows, product_id=["p0", "p1"] * 2)
    baskets = basket_of(tmp_path, lines, products=PRODUCTS)
    assert baskets["category_entropy_365d"].tolist() == pytest.approx([math.log(2), 0])
    assert baskets["top_category_share_365d"].to_dict() == {"a": 0.5, "b": 1}
