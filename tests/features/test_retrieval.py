"""Features out of Feast: the snapshot of exactly the as_of asked for."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd
import pytest
from builders import make_transactions

from features import retrieval, snapshot
from features.families.engagement import TREATMENT
from tests.features.shops import open_shop, random_tables
from workspace import storage
from workspace.settings import Workspace
from workspace.storage import CheckFailed

if TYPE_CHECKING:
    from feast import FeatureStore

SUMMER, DAY_AFTER, WINTER = date(2022, 7, 1), date(2022, 7, 2), date(2022, 12, 21)
# Clocks go forward on the first of these: it has 23 hours.
SHORT_DAY, AFTER_SHORT_DAY = date(2022, 3, 27), date(2022, 3, 28)
AS_OF = (SHORT_DAY, AFTER_SHORT_DAY, SUMMER, DAY_AFTER, WINTER)


class Shop(NamedTuple):
    workspace: Workspace
    store: FeatureStore


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """Snapshots at five dates; `fading` and `faded` last bought 365 and 366 days ago."""
    folder = tmp_path_factory.mktemp("shop")
    tables = random_tables(5)
    rows = [("fading", "2021-07-01", 5.0), ("faded", "2021-06-30", 5.0), ("Zoë/7 & co", "2022-01-01", 5.0)]
    lines = make_transactions(rows, product_id="p0").astype({"occurred_at": "datetime64[us]"})
    tables["transactions"] = pd.concat([tables["transactions"], lines], ignore_index=True)
    workspace = open_shop(folder, tables, timezone="Europe/Berlin", attributes=["city", "birth_year"])
    snapshot.snapshot(workspace, AS_OF)
    return Shop(workspace, retrieval.apply(workspace))


def part_of(shop: Shop, family: str, as_of: date) -> pd.DataFrame:
    return pd.read_parquet(storage.snapshot_part(shop.workspace.home_path, family, as_of)).drop(columns="as_of")


def names_of(shop: Shop) -> list[str]:
    return [feature.name for feature in snapshot.customer_features(shop.workspace)]


@contextmanager
def without(part: Path) -> Iterator[None]:
    part.rename(part.with_suffix(".away"))
    try:
        yield
    finally:
        part.with_suffix(".away").rename(part)


def test_each_row_has_the_snapshot_of_its_own_as_of(shop: Shop) -> None:
    """Asked for at once, in summer and in winter time, on consecutive days, every family's part comes back whole."""
    rows = retrieval.customer_rows(shop.store, shop.workspace, AS_OF)
    assert rows["as_of"].unique().tolist() == [pd.Timestamp(as_of) for as_of in AS_OF]
    for as_of in AS_OF:
        of_day = rows[rows["as_of"] == pd.Timestamp(as_of)]
        expected = part_of(shop, "profile", as_of)[["customer_id"]]
        for family in snapshot.CUSTOMER_FAMILIES:
            expected = expected.merge(part_of(shop, family, as_of), on="customer_id", how="left")
        expected = expected.sort_values("customer_id", ignore_index=True)
        pd.testing.assert_frame_equal(of_day.drop(columns="as_of").reset_index(drop=True), expected, obj=str(as_of))


@pytest.mark.parametrize("as_of", [SUMMER, DAY_AFTER])
def test_the_rows_at_an_as_of_are_those_that_feast_joins(shop: Shop, as_of: date) -> None:
    """What is scored is read straight from the snapshot: the same customers, columns and numbers."""
    joined = retrieval.customer_rows(shop.store, shop.workspace, [as_of])
    pd.testing.assert_frame_equal(retrieval.rows_at(shop.workspace, as_of), joined)


@pytest.mark.parametrize("customers", [1, 3, 1_000])
def test_blocks_are_the_rows_in_order(shop: Shop, customers: int) -> None:
    """So many customers each, the last one what is left; also where an engine wrote a part as several files."""
    whole = retrieval.rows_at(shop.workspace, SUMMER)
    part = storage.snapshot_part(shop.workspace.home_path, "basket", SUMMER)
    blocks = [*retrieval.blocks_at(shop.workspace, SUMMER, customers)]
    assert {len(block) for block in blocks[:-1]} <= {customers}
    assert sum(map(len, blocks)) == retrieval.count_at(shop.workspace, SUMMER) == len(whole)
    pd.testing.assert_frame_equal(pd.concat(blocks, ignore_index=True), whole)
    with without(part):
        part.mkdir()
        rows = pd.read_parquet(part.with_suffix(".away"))
        for start in (0, 1):
            rows.iloc[start::2].to_parquet(part / f"part-{start}.parquet", index=False)
        blocks = [*retrieval.blocks_at(shop.workspace, SUMMER, customers)]
        pd.testing.assert_frame_equal(pd.concat(blocks, ignore_index=True), whole)
        shutil.rmtree(part)


def test_features_that_are_not_asked_for_are_not_read(shop: Shop) -> None:
    """The customers are the same, whatever families the others are of."""
    whole, asked = retrieval.rows_at(shop.workspace, SUMMER), ["spend_365d", "tenure_days"]
    expected = whole[["customer_id", "as_of", *asked]]
    pd.testing.assert_frame_equal(retrieval.rows_at(shop.workspace, SUMMER, asked), expected)
    [block] = retrieval.blocks_at(shop.workspace, SUMMER, len(whole), asked)
    pd.testing.assert_frame_equal(block, expected)


def test_less_memory_is_smaller_blocks(shop: Shop) -> None:
    """The setting `memory` bounds what is in memory at a time; much of it makes no larger blocks than are quick."""
    settings = [shop.workspace.model_copy(update={"memory": gigabytes}) for gigabytes in (0.1, 0.5, 6.0, 60.0)]
    assert [retrieval.at_once(one, 10_000) for one in settings] == [2_500, 12_500, 50_000, 50_000]
    assert retrieval.at_once(settings[0], 10**12) == 1


@pytest.mark.parametrize("lost", [slice(1, None), slice(None, -1)])
def test_parts_of_other_customers_are_not_laid_beside_each_other(shop: Shop, lost: slice) -> None:
    """One row that is missing would shift all that follow: the family is named instead."""
    part = storage.snapshot_part(shop.workspace.home_path, "basket", SUMMER)
    with without(part):
        part.mkdir()
        fewer = pd.read_parquet(part.with_suffix(".away")).iloc[lost]
        fewer.to_parquet(part / "part.parquet", index=False)
        with pytest.raises(CheckFailed, match=f"basket at {SUMMER} is not of the customers that profile knows"):
            retrieval.rows_at(shop.workspace, SUMMER)
        with pytest.raises(CheckFailed, match=f"basket at {SUMMER} is not of the customers that profile knows"):
            [*retrieval.blocks_at(shop.workspace, SUMMER, 1)]
        shutil.rmtree(part)


def test_a_snapshot_does_not_stand_in_for_the_next_days(shop: Shop) -> None:
    """Whose last line leaves the year overnight has no basket the day after, though yesterday's is still there."""
    rows = retrieval.customer_rows(shop.store, shop.workspace, [SUMMER, DAY_AFTER]).set_index("customer_id")
    assert rows.loc["fading", "lines_per_purchase_365d"].isna().tolist() == [False, True]


def test_the_join_loses_no_customer(shop: Shop) -> None:
    """Every customer known at an as_of has one row there, whatever families miss them."""
    rows = retrieval.customer_rows(shop.store, shop.workspace, [WINTER, SUMMER])
    counts = rows.groupby("as_of")["customer_id"].agg(["size", "nunique"])
    for as_of in (SUMMER, WINTER):
        known = retrieval.customers_at(shop.workspace, as_of)
        assert counts.loc[pd.Timestamp(as_of)].tolist() == [len(known), len(known)]
    assert rows["n_purchases"].isna().any()


def test_an_as_of_without_a_snapshot_is_refused(shop: Shop) -> None:
    """Nothing is made up for a date that has no snapshot, though there is one of the day before."""
    with pytest.raises(CheckFailed, match="profile has no snapshot at 2022-07-03; run `perennial snapshot"):
        retrieval.customer_rows(shop.store, shop.workspace, [date(2022, 7, 3)])


@pytest.mark.parametrize("family", ["purchases", "basket"])
def test_a_family_without_a_snapshot_is_refused(shop: Shop, family: str) -> None:
    """One part that is missing does not become nulls, or the day before's values."""
    with (
        without(storage.snapshot_part(shop.workspace.home_path, family, DAY_AFTER)),
        pytest.raises(CheckFailed, match=f"{family} has no snapshot at {DAY_AFTER}"),
    ):
        retrieval.customer_rows(shop.store, shop.workspace, [SUMMER, DAY_AFTER])


def test_items_without_a_snapshot_are_refused(shop: Shop) -> None:
    """The families of items are checked as those of customers are."""
    asked = pd.DataFrame({"item": ["tea"], "as_of": [pd.Timestamp(2022, 7, 3)]})
    with pytest.raises(CheckFailed, match="popularity has no snapshot at 2022-07-03"):
        retrieval.item_rows(shop.store, shop.workspace, asked, "popularity")


def test_items_come_in_the_order_of_their_keys_with_null_for_what_was_never_bought(shop: Shop) -> None:
    """An item that the customer never bought is a row without figures, not a row less."""
    keys = [("c05", "cake"), ("c05", "nothing"), ("nobody", "tea")]
    asked = pd.DataFrame(keys, columns=["customer_id", "item"]).assign(as_of=pd.Timestamp(WINTER))
    items = retrieval.item_rows(shop.store, shop.workspace, asked, "product_affinity")
    expected = part_of(shop, "product_affinity", WINTER).set_index(["customer_id", "item"])
    assert list(zip(items["customer_id"], items["item"], strict=True)) == keys
    assert items.loc[0, list(expected)].tolist() == pytest.approx(expected.loc[keys[0]].tolist(), nan_ok=True)
    assert items.loc[1:, list(expected)].isna().all(axis=None)


def test_no_model_sees_treatment_or_consent(shop: Shop) -> None:
    """The services of the customer models hold every feature but what the marketer did and the customer allowed."""
    hidden = {feature.name for feature in TREATMENT} | {"profiling_consent"}
    hidden |= {"days_since_contract_end", "days_until_contract_end"}
    for service in ("churn_v1", "lifetime_value_v1"):
        projections = shop.store.get_feature_service(service).feature_view_projections
        seen = {field.name for projection in projections for field in projection.features}
        assert seen == set(names_of(shop)) - hidden
