"""Which pairs are candidates, and what is known of each."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from builders import make_transactions

from features import retrieval, snapshot
from features.items import candidates, launches
from features.items.candidates import Shelf
from tests.features.shops import open_shop
from workspace.settings import Workspace
from workspace.storage import CheckFailed

AS_OF = date(2024, 7, 1)
DAYS = {"june": "2024-06-10", "may": "2024-05-10", "old": "2023-06-01"}
# Who bought what, and when: tea goes with cups, cake with jam; d has the taste of a.
BOUGHT = {
    "a": {"tea": "june", "cups": "may", "honey": "june"}, "b": {"tea": "june", "cups": "june"},
    "c": {"cake": "may", "jam": "june"}, "d": {"tea": "may", "cups": "june"}, "e": {"jam": "may", "lamp": "old"},
}  # fmt: skip
CATEGORIES = {"tea": "drinks", "cups": "things", "honey": "food", "cake": "food", "jam": "food", "lamp": "things"}


def opened(folder: Path, level: str) -> tuple[Workspace, pd.DataFrame]:
    """The shop with its snapshot, and everybody's features."""
    lines = [(who, DAYS[day], item) for who, items in BOUGHT.items() for item, day in items.items()]
    tables = {
        "transactions": make_transactions(
            [(who, day, 1.0) for who, day, _ in lines], product_id=[item for *_, item in lines]
        ),
        "products": pd.DataFrame({"product_id": [*CATEGORIES, "pie"], "category": [*CATEGORIES.values(), "food"]}),
    }
    workspace = open_shop(folder, tables, cross_sell={"level": level})
    snapshot.snapshot(workspace, [AS_OF])
    return workspace, retrieval.customer_rows(retrieval.apply(workspace), workspace, [AS_OF])


def table(workspace: Workspace, customers: pd.DataFrame) -> pd.DataFrame:
    """The pairs with their named features."""
    pairs = Shelf.at(workspace, AS_OF).pairs(customers)
    return pd.concat([pairs.keys, pd.DataFrame(pairs.rows, columns=candidates.names(workspace))], axis=1).set_index(
        ["customer_id", "item"]
    )


@pytest.fixture(scope="module")
def by_item(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, pd.DataFrame]:
    return opened(tmp_path_factory.mktemp("items"), "item")


def few(monkeypatch: pytest.MonkeyPatch, **most: int) -> None:
    """As if the shop had too many items to offer all of them, and so many of each kind were candidates."""
    limits: dict[str, Any] = {"ALL_ITEMS": 0, "POPULAR": 0, "RISING": 0, "CO_PURCHASED": 0, "SIMILAR": 0}
    for name, limit in (limits | most).items():
        monkeypatch.setattr(candidates, name, limit)


def test_every_category_is_a_candidate_for_everybody(tmp_path: Path) -> None:
    """The customer's own features are null where nothing was bought; those of the item and the customer never are."""
    workspace, customers = opened(tmp_path, "category")
    pairs = table(workspace, customers)
    assert len(pairs) == len(BOUGHT) * 3
    own = {(who, CATEGORIES[item]) for who, items in BOUGHT.items() for item in items} - {("e", "things")}
    assert set(pairs.index[pairs["item_n_purchases_365d"] > 0]) == own
    assert pairs["item_buyers_365d"].notna().all()
    T = customers.set_index("customer_id")["T"]
    np.testing.assert_array_equal(pairs["T"], T[pairs.index.get_level_values("customer_id")])


def test_of_many_items_the_own_ones_are_candidates(
    by_item: tuple[Workspace, pd.DataFrame], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What sold to nobody in a year is off the shelf, even for who bought it before."""
    few(monkeypatch)
    pairs = table(*by_item)
    assert set(pairs.index) == {(who, item) for who, items in BOUGHT.items() for item in items} - {("e", "lamp")}


@pytest.mark.parametrize(
    ("most", "pair"),
    [({"POPULAR": 1}, ("c", "cups")), ({"RISING": 1}, ("c", "cups")), ({"CO_PURCHASED": 1}, ("e", "cake")),
     ({"SIMILAR": 3}, ("d", "honey"))],
)  # fmt: skip
def test_each_kind_brings_its_candidates(
    by_item: tuple[Workspace, pd.DataFrame],
    monkeypatch: pytest.MonkeyPatch,
    most: dict[str, int],
    pair: tuple[str, str],
) -> None:
    """What is popular, what is rising, what goes with the own purchases, what customers of a like taste buy."""
    few(monkeypatch, **most)
    assert pair in table(*by_item).index


def test_similar_customers_are_others(by_item: tuple[Workspace, pd.DataFrame], monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is a neighbour of oneself: honey, which a alone bought, says nothing to a, and something to b and d."""
    few(monkeypatch, SIMILAR=10)
    similar = table(*by_item)["item_similar_customers"].xs("honey", level="item")
    assert np.isnan(similar["a"])
    assert min(similar["b"], similar["d"]) > 0


def test_a_block_of_customers_has_the_pairs_of_the_whole(by_item: tuple[Workspace, pd.DataFrame]) -> None:
    """Whoever is asked for beside them."""
    workspace, customers = by_item
    whole, block = table(workspace, customers), table(workspace, customers.iloc[2:4])
    pd.testing.assert_frame_equal(block, whole.loc[["c", "d"]])


def test_a_launch_goes_to_who_buys_its_category(by_item: tuple[Workspace, pd.DataFrame]) -> None:
    """Nobody has bought the pie; a third of a's purchases are food, all of c's and e's, none of b's and d's."""
    workspace, customers = by_item
    shelf = Shelf.at(workspace, AS_OF)
    launched = launches.shares(shelf, pd.Index(customers["customer_id"]), pd.Index(["pie", "unheard of"]))
    shares = launched.set_index(["customer_id", "item"])["share"].to_dict()
    assert shares == pytest.approx({("a", "pie"): 1 / 3, ("c", "pie"): 1, ("e", "pie"): 1})


def test_without_a_snapshot_it_says_which_command_makes_one(by_item: tuple[Workspace, pd.DataFrame]) -> None:
    """The sentence names the family, the day and the command."""
    with pytest.raises(CheckFailed, match="popularity has no snapshot at 2024-07-02; run `perennial snapshot"):
        Shelf.at(by_item[0], date(2024, 7, 2))


def test_a_shop_that_sold_nothing_for_a_year_has_no_pairs(by_item: tuple[Workspace, pd.DataFrame]) -> None:
    """Its customers are known, its shelf is empty."""
    workspace, customers = by_item
    later = date(2026, 7, 1)
    snapshot.snapshot(workspace, [later])
    pairs = Shelf.at(workspace, later).pairs(customers)
    assert pairs.rows.shape == (0, len(candidates.names(workspace)))
    assert pairs.keys.empty
