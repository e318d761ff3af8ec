"""Which items may be offered: settings, files beside them, margins, and what its owners never buy again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from builders import make_transactions

from features.items.assortment import Assortment
from tests.features.shops import open_shop
from workspace.settings import Workspace
from workspace.storage import CheckFailed

ITEMS = pd.DataFrame({"item_rebought_share": [0.3, 0.004, np.nan]}, index=pd.Index(["bed", "cake", "tea"], name="item"))
PRODUCTS = pd.DataFrame(
    {"product_id": ["p0", "p1", "p2", "p3"], "category": ["tea", "tea", "cake", "bed"],
     "list_price": [10.0, 30.0, 10.0, None], "unit_cost": [5.0, 25.0, 2.0, 9.0]}
)  # fmt: skip


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    lines = make_transactions([("a", "2024-06-01", 1.0)], product_id=["p0"])
    return open_shop(tmp_path_factory.mktemp("assortment"), {"transactions": lines, "products": PRODUCTS})


def offered(workspace: Workspace, **settings: Any) -> tuple[list[str], list[str]]:
    """What may be offered with these settings, and what was said."""
    sell, said = workspace.cross_sell.model_copy(update=settings), list[str]()
    assortment = Assortment.of(workspace.model_copy(update={"cross_sell": sell}), ITEMS, said.append)
    return ITEMS.index[assortment.offered].tolist(), said


def test_everything_may_be_offered_unless_said_otherwise(shop: Workspace) -> None:
    """No word is lost on it either."""
    assert offered(shop) == (["bed", "cake", "tea"], [])


def test_stock_and_exclusions_are_items_or_files_of_them(shop: Workspace, tmp_path: Path) -> None:
    """Both kinds of file, beside plain names; what nobody bought is said, not silently passed over."""
    pd.DataFrame({"item": ["cake", "lamp"]}).to_csv(tmp_path / "out.csv", index=False)
    pd.DataFrame({"item": ["tea", "cake"]}).to_parquet(tmp_path / "in.parquet")
    items, said = offered(shop, stock=(str(tmp_path / "in.parquet"),), exclude=(str(tmp_path / "out.csv"), "bed"))
    assert items == ["tea"]
    assert said == [
        "not offered, of 3 items: 2 excluded, 1 out of stock",
        "cross_sell.exclude names 1 that nobody bought in the last 365 days: lamp",
    ]


def test_the_margin_floor_weighs_prices(shop: Workspace) -> None:
    """Tea's two products leave 10 of 40, cake's 8 of 10; the bed has no price, so its margin is not known."""
    items, said = offered(shop, margin_floor=0.25)
    assert items == ["cake", "tea"]
    assert said == ["not offered, of 3 items: 1 without a known margin"]
    assert offered(shop, margin_floor=0.26)[0] == ["cake"]


def test_what_is_never_rebought_is_kept_from_its_owners_alone(shop: Workspace) -> None:
    """The cake's owners do not buy it again; of the tea too little is known to say."""
    assortment = Assortment.of(shop, ITEMS)
    item = np.array([0, 1, 2, 1])
    assert assortment.may_offer(item, np.array([True, True, True, False])).tolist() == [True, False, True, True]


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"stock": ("nowhere.csv",)}, "cross_sell.stock names nowhere.csv, which is not there; write it, or take it out"),
     ({"exclude": ("{folder}/wrong.csv",)}, r"wrong.csv \(cross_sell.exclude\) has no column `item`; it has sku")],
)  # fmt: skip
def test_a_file_that_cannot_be_used_is_refused(
    shop: Workspace, tmp_path: Path, settings: dict[str, tuple[str]], message: str
) -> None:
    """The sentence names the setting, the file and what it has."""
    pd.DataFrame({"sku": ["tea"]}).to_csv(tmp_path / "wrong.csv", index=False)
    with pytest.raises(CheckFailed, match=message):
        offered(shop, **{name: (value[0].format(folder=tmp_path),) for name, value in settings.items()})


def test_a_margin_floor_without_prices_is_refused(tmp_path: Path) -> None:
    """Nothing would be offered at all; the sentence says which columns to map."""
    lines = make_transactions([("a", "2024-06-01", 1.0)], product_id=["p0"])
    bare = open_shop(tmp_path, {"transactions": lines, "products": PRODUCTS[["product_id", "category"]]})
    with pytest.raises(CheckFailed, match="no product has both unit_cost and list_price; map them"):
        offered(bare, margin_floor=0.1)
