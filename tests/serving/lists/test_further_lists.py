"""The win-back and the cross-sell list: who is on them, in which order, and never who objected."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from workspaces import AS_OF

from serving.consent import Consents
from serving.lists import cross_selling, win_back
from serving.lists.filters import NoSuchFilter
from serving.lists.list_query import CrossSellQuery, Rules, WinBackQuery
from serving.terms import Terms
from tests.serving.conftest import NOW, Shop
from workspace import storage
from workspace.settings import Workspace

LISTS: dict[Any, type[Rules]] = {win_back: WinBackQuery, cross_selling: CrossSellQuery}


@pytest.fixture
def workspace(shop: Shop, tmp_path: Path) -> Workspace:
    """A copy whose consents a test may change."""
    shutil.copytree(shop.workspace.home_path, tmp_path / "home", ignore=shutil.ignore_patterns("predictions"))
    return shop.workspace.model_copy(update={"home": str(tmp_path / "home")})


@pytest.fixture(scope="module")
def scores(shop: Shop) -> pd.DataFrame:
    return pd.read_parquet(storage.scores_path(shop.workspace.home_path, AS_OF))


@pytest.fixture(scope="module")
def offers(shop: Shop) -> pd.DataFrame:
    return pd.read_parquet(storage.offers_path(shop.workspace.home_path, AS_OF))


def listed(of: Any, workspace: Workspace, **asked: Any) -> pd.DataFrame:
    """All of a list, by pages."""
    query = LISTS[of].model_validate({"unproven_offers": True} if of is cross_selling else {}).model_copy(update=asked)
    pages: list[pd.DataFrame] = []
    cursor = None
    while True:
        page = of.page(workspace, AS_OF, query.model_copy(update={"cursor": cursor}), terms(workspace))
        pages += page.blocks
        if (cursor := page.cursor) is None:
            return pd.concat(pages, ignore_index=True)


def terms(workspace: Workspace) -> Terms:
    return Terms.of_scores(workspace, AS_OF)


def table(workspace: Workspace, name: str) -> pd.DataFrame:
    with storage.connect(workspace.home_path) as connection:
        return connection.execute(f"FROM {storage.rows_of(workspace.home_path, name)}").df()


def may_be_contacted(workspace: Workspace) -> set[str]:
    customers = table(workspace, "customers")
    return set(customers.loc[customers["marketing_consent"].eq(True), "customer_id"])


def test_who_left_is_won_back(workspace: Workspace, scores: pd.DataFrame) -> None:
    """All of them who may be contacted, and with what they bought by their own lines."""
    rows = listed(win_back, workspace)
    left = scores[scores["not_scored_reason"].fillna("").str.startswith("already churned")]
    assert set(rows["customer_id"]) == set(left["customer_id"]) & may_be_contacted(workspace)
    assert len(rows) > 5
    lines = table(workspace, "transactions")
    lines = lines[lines["occurred_at"] < pd.Timestamp(AS_OF, tz="Europe/Berlin")]
    own = lines[lines["customer_id"] == rows["customer_id"][0]]
    last = own.loc[own["amount"] >= 0, "occurred_at"].max().tz_convert("Europe/Berlin")
    assert rows["last_purchase"][0].date() == last.date()
    assert rows["silent_days"][0] == (AS_OF - last.date()).days
    assert rows["left_by"].str.startswith("no purchase in the last").all()


@pytest.mark.parametrize(("of", "sort", "column"), [
    (win_back, "lifetime_value", "lifetime_value"), (win_back, "spend", "spend"),
    (win_back, "last_purchase", "last_purchase"), (cross_selling, "probability", "offer_probability"),
    (cross_selling, "lifetime_value", "lifetime_value"), (cross_selling, "value_at_risk", "value_at_risk"),
])  # fmt: skip
def test_pages_follow_each_other_in_order(of: Any, sort: str, column: str, workspace: Workspace) -> None:
    """Nobody is missing, and nobody comes twice."""
    whole, pages = (listed(of, workspace, sort=sort, top=top) for top in (100_000, 7))
    assert whole[column].dropna().is_monotonic_decreasing
    assert whole["customer_id"].is_unique
    pd.testing.assert_frame_equal(whole, pages)
    query = LISTS[of].model_validate({"sort": sort})
    query = query.model_copy(update={"unproven_offers": True})
    assert of.total(workspace, AS_OF, query, terms(workspace)).customers == len(whole)


def test_a_place_in_one_list_is_none_in_another(workspace: Workspace) -> None:
    """Though both are in the order of the same amount."""
    asked = WinBackQuery(top=1, sort="lifetime_value")
    cursor = win_back.page(workspace, AS_OF, asked, terms(workspace)).cursor
    assert win_back.page(workspace, AS_OF, asked.model_copy(update={"cursor": cursor}), terms(workspace)).rows == 1
    other = CrossSellQuery(sort="lifetime_value", unproven_offers=True, cursor=cursor)
    with pytest.raises(NoSuchFilter, match="cursor"):
        cross_selling.page(workspace, AS_OF, other, terms(workspace))


def test_each_customer_is_offered_their_best(workspace: Workspace, offers: pd.DataFrame) -> None:
    """Of all items, of one kind, and of one item whoever it was offered to."""
    first = offers.sort_values("rank").drop_duplicates("customer_id").set_index("customer_id")
    best = listed(cross_selling, workspace).set_index("customer_id")
    assert set(best.index) == set(first.index) & may_be_contacted(workspace)
    assert (best["offer"] == first["item"].reindex(best.index)).all()
    new = offers[offers["kind"] == "new"].sort_values("rank").drop_duplicates("customer_id").set_index("customer_id")
    best_new = listed(cross_selling, workspace, kind="new").set_index("customer_id")
    assert (best_new["offer"] == new["item"].reindex(best_new.index)).all()
    item = offers["item"].value_counts().index[0]
    offered = listed(cross_selling, workspace, item=item.upper())
    wanted = set(offers.loc[offers["item"] == item, "customer_id"]) & may_be_contacted(workspace)
    assert set(offered["customer_id"]) == wanted
    assert set(offered["offer"]) == {item}
    with pytest.raises(NoSuchFilter, match="it is offered to nobody"):
        listed(cross_selling, workspace, item="no such thing")


@pytest.mark.parametrize("of", [win_back, cross_selling])
def test_who_objects_is_on_no_list(of: Any, workspace: Workspace) -> None:
    """From the next view on; and filters leave who is asked for."""
    before = listed(of, workspace)["customer_id"].tolist()
    Consents(workspace.home_path).put(before[0], {"marketing": False}, NOW)
    assert listed(of, workspace)["customer_id"].tolist() == before[1:]
    assert listed(of, workspace, search=before[1])["customer_id"].tolist() == [before[1]]


def test_offers_that_are_not_proven_are_listed_only_on_request(workspace: Workspace) -> None:
    """As in every other list."""
    unproven = Terms(**terms(workspace).__dict__ | {"standings": {}})
    doubtful = Terms(**unproven.__dict__ | {"standings": {"cross_sell": type(terms(workspace).standing("churn"))()}})
    asked = CrossSellQuery.model_validate({})
    assert not cross_selling.page(workspace, AS_OF, asked, doubtful).rows
    all_the_same = asked.model_copy(update={"unproven_offers": True})
    assert cross_selling.page(workspace, AS_OF, all_the_same, doubtful).rows > 0
