"""Rules of association: counted again from the lines, and only what chance does not bring."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from builders import take_in, write_workspace
from numpy.typing import NDArray

from features import snapshot
from serving.lists.bought_with import bought_with, rules
from serving.lists.chance import Chance, among
from serving.lists.filters import NoSuchFilter
from workspace import settings, storage
from workspace.settings import Workspace
from workspace.storage import CheckFailed

AS_OF = pd.Timestamp("2024-07-01").date()
ITEMS = [f"kind {letter}" for letter in "abcdefghijkl"]
PLANTED = {("kind a", "kind b"), ("kind c", "kind d")}

Bought = NDArray[np.bool_]


def baskets(seed: int, customers: int, items: int, spread: float = 1.0) -> Bought:
    """Who bought what, by customer and item: independently, but some customers buy much and some items sell much."""
    random = np.random.default_rng(seed)
    liked = random.dirichlet(np.full(items, 3.0))
    tries = 1 + random.poisson(random.gamma(1 / spread, 4 * spread, customers))
    bought = np.zeros((customers, items), dtype=bool)
    for customer, count in enumerate(tries):
        bought[customer, random.choice(items, count, p=liked)] = True
    return bought


def beyond(bought: Bought) -> tuple[set[tuple[int, int]], set[tuple[int, int]]]:
    """The pairs of items that are said to go together, and those whose lift is above 1."""
    bought = bought[bought.any(axis=1)]
    size, both = bought.sum(axis=0), bought.T.astype(int) @ bought.astype(int)
    first, second = np.triu_indices(len(size), 1)
    count = both[first, second]
    p_values = Chance.of(bought.sum(axis=1), size).p_values(count, size[first], size[second])
    holds = among(p_values, len(p_values), 0.05)
    lifted = count * len(bought) > size[first] * size[second]
    pairs = list(zip(first.tolist(), second.tolist(), strict=True))
    return {p for p, h in zip(pairs, holds, strict=True) if h}, {p for p, h in zip(pairs, lifted, strict=True) if h}


@pytest.mark.parametrize("customers", [300, 2000])
@pytest.mark.parametrize("spread", [0.1, 1.0])
def test_independent_baskets_have_no_pairs(customers: int, spread: float) -> None:
    """Over ten shops of 105 pairs each at most a stray one, where lift alone calls a third or more of them pairs."""
    shops = [beyond(baskets(seed, customers, 15, spread)) for seed in range(10)]
    assert sum(len(pairs) for pairs, _ in shops) <= 2
    assert sum(len(lifted) for _, lifted in shops) > 300


@pytest.mark.parametrize("share", [0.2, 0.35])
def test_planted_pairs_are_found(share: float) -> None:
    """Of who bought the first, some buy the second for its sake: found in nine of ten shops, and little else."""
    planted_seen, others = 0, 0
    for seed in range(10):
        bought = baskets(seed, 2000, 15)
        first, second = np.argsort(bought.sum(axis=0))[6:8]
        bought[bought[:, first] & (np.random.default_rng(seed).random(2000) < share), second] = True
        pairs, _ = beyond(bought)
        planted = (min(first, second), max(first, second))
        planted_seen += planted in pairs
        others += len(pairs - {planted})
    assert planted_seen >= 9
    assert others <= 5


def test_one_that_bought_everything_is_no_pair() -> None:
    """Who bought all there is says nothing of what goes together, nor does an item that everybody bought."""
    bought = baskets(0, 500, 8)
    bought[:40] = True
    bought[:, 0] = True
    assert beyond(bought)[0] == set()


def test_of_many_questions_few_may_be_false() -> None:
    """Benjamini and Hochberg: the smallest p-values as far as they pass, those not asked of counting as answered no."""
    p_values = np.array([0.9, 0.001, 0.02, 0.012])
    assert among(p_values, 4, 0.05).tolist() == [False, True, True, True]
    assert among(p_values, 40, 0.05).tolist() == [False, True, False, False]
    assert among(np.empty(0), 0, 0.05).tolist() == []


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A shop of twelve kinds of goods; who buys a, or c, often takes b, or d, as well."""
    bought, random = baskets(3, 900, len(ITEMS)), np.random.default_rng(3)
    for first, second in ((0, 1), (2, 3)):
        bought[bought[:, first] & (random.random(900) < 0.4), second] = True
    lines = [(f"c{c:03}", "2024-05-01", 5.0, ITEMS[i]) for c, i in zip(*np.nonzero(bought), strict=True)]
    transactions = pd.DataFrame(lines, columns=["customer_id", "occurred_at", "amount", "product_id"])
    transactions["transaction_id"] = "t" + transactions["customer_id"]
    products = pd.DataFrame({"product_id": ITEMS, "category": ITEMS})
    folder = tmp_path_factory.mktemp("pairs")
    path = write_workspace(folder, transactions, tables={"products": products})
    take_in(path)
    workspace = settings.read(path)
    snapshot.snapshot(workspace, [AS_OF])
    file_rules(workspace)
    return workspace


def file_rules(workspace: Workspace) -> None:
    path = storage.bought_with_path(workspace.home_path, AS_OF)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(rules(workspace, AS_OF), path)


def test_rules_are_those_of_the_lines(workspace: Workspace) -> None:
    """The planted pairs in both directions, with their buyers, share and lift counted again."""
    lines = pd.read_parquet(storage.parts(storage.tables_folder(workspace.home_path, "transactions")))
    buyers = {item: set(own["customer_id"]) for item, own in lines.groupby("product_id")}
    everybody = lines["customer_id"].nunique()
    companions = bought_with(workspace, AS_OF, None, 20).set_index(["item", "bought_with"])
    assert set(companions.index) == PLANTED | {(b, a) for a, b in PLANTED}
    for item, other in companions.index:
        both = len(buyers[item] & buyers[other])
        share, chance = both / len(buyers[item]), len(buyers[other]) / everybody
        told = companions.loc[(item, other), ["buyers", "share", "lift"]].tolist()
        assert told == pytest.approx([both, share, share / chance], rel=1e-5)


def test_the_order_of_the_lines_and_other_items_change_nothing(workspace: Workspace) -> None:
    """Computed again, the rules are the same bytes."""
    assert rules(workspace, AS_OF).equals(rules(workspace, AS_OF))


def test_an_item_is_found_in_any_case(workspace: Workspace) -> None:
    """One item's are the first of all its rules, by rank."""
    every = bought_with(workspace, AS_OF, None, 20)
    wanted = every[every["item"] == "kind a"].head(1).reset_index(drop=True)
    for asked in ("kind a", "KIND A", " Kind a "):
        pd.testing.assert_frame_equal(bought_with(workspace, AS_OF, asked, 1), wanted)
    assert wanted["rank"].tolist() == [1]


def test_an_item_without_a_rule_is_refused(workspace: Workspace) -> None:
    """The sentence says what a rule needs; an item that nobody bought is told apart, with the nearest."""
    with pytest.raises(CheckFailed, match="nothing is known to go with 'kind l' at 2024-07-01: it needs a companion"):
        bought_with(workspace, AS_OF, "kind l", 5)
    with pytest.raises(NoSuchFilter, match=r"item 'kinda': nobody bought it in .* days; the nearest are kind a, "):
        bought_with(workspace, AS_OF, "kinda", 5)


def test_a_shop_without_pairs_has_no_rules(workspace: Workspace, tmp_path: Path) -> None:
    """Nothing is listed for want of something better."""
    home = shutil.copytree(workspace.home_path, tmp_path / "home")
    part = storage.snapshot_part(home, "co_purchase", AS_OF)
    for file in part.glob("*.parquet"):
        rows = pq.read_table(file)
        pq.write_table(rows.slice(0, 0), file)
    assert rules(workspace.model_copy(update={"home": str(home)}), AS_OF).num_rows == 0


def test_a_shop_without_products_is_told_so(tmp_path: Path) -> None:
    """No command would make the rules: what is missing is a table."""
    workspace = settings.read(write_workspace(tmp_path, "transaction_id,customer_id,occurred_at,amount\n"))
    with pytest.raises(CheckFailed, match="has no `products` table: nothing says what is bought together"):
        bought_with(workspace, AS_OF, None, 5)
