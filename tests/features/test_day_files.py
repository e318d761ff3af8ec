"""Days kept on disk: extended by what is new, started over when what they say has changed, equal to the whole."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pandas as pd
import pytest
from builders import make_transactions

from features import on_duckdb, snapshot
from ingest import intake
from tests.features.shops import NOW, features_at, open_shop, random_tables
from workspace import settings, storage
from workspace.settings import Workspace

BEFORE, AFTER = date(2022, 12, 20), date(2022, 12, 21)
KEYS = {"timezone": "Europe/Berlin", "attributes": ["city", "birth_year"], "max_quarantined": 1.0}


def names_of(workspace: Workspace) -> list[str]:
    """The layers in use; every folder is one of them."""
    noted = [layer["name"] for layer in storage.read_json(workspace.home_path / "days/segments.json")["segments"]]
    assert sorted(noted) == sorted(path.name for path in (workspace.home_path / "days").glob("*/"))
    return noted


def deliver(folder: Path, table: str, rows: pd.DataFrame, name: str) -> None:
    (folder / table).mkdir(parents=True, exist_ok=True)
    rows.to_parquet(folder / table / f"{name}.parquet", index=False)


def shop_of(folder: Path, tables: dict[str, pd.DataFrame], **keys: object) -> Workspace:
    """A workspace whose tables are folders of deliveries, the first of them taken in."""
    for table, rows in tables.items():
        deliver(folder, table, rows, "0")
    paths = {table: {"path": str(folder / table)} for table in tables}
    workspace = settings.parse({"name": "shop", "home": str(folder / "home"), "tables": paths} | keys, "test")
    intake.ingest(workspace, NOW)
    return workspace


def split(tables: dict[str, pd.DataFrame], day: date) -> tuple[dict[str, pd.DataFrame], dict[str, pd.DataFrame]]:
    """What had been recorded before `day`, and the events recorded since."""
    before, since = dict(tables), {}
    for table in ("transactions", "interactions"):
        booked = tables[table]["recorded_at"].fillna(tables[table]["occurred_at"])
        early = booked < pd.Timestamp(day)
        before[table], since[table] = tables[table][early], tables[table][~early]
    return before, since


@pytest.mark.parametrize("level", ["category", "item"])
def test_a_later_delivery_gives_what_all_at_once_gives(level: str, tmp_path: Path) -> None:
    """New days, late lines of old days and a second file of days that are known already: equal to one delivery."""
    tables = random_tables(6)
    before, since = split(tables, date(2023, 12, 1))
    again = before["transactions"].iloc[::40]
    before["transactions"] = before["transactions"].drop(again.index)
    since["transactions"] = pd.concat([since["transactions"], again])
    workspace = shop_of(tmp_path / "parts", before, **KEYS, cross_sell={"level": level})
    features_at(workspace, AFTER)
    first = names_of(workspace)
    for table, rows in since.items():
        deliver(tmp_path / "parts", table, rows, "1")
    intake.ingest(workspace, NOW)
    whole = open_shop(tmp_path / "whole", tables, **KEYS, cross_sell={"level": level})
    for as_of in (AFTER, date(2024, 7, 1)):
        features, expected = features_at(workspace, as_of), features_at(whole, as_of)
        for family, rows in expected.items():
            pd.testing.assert_frame_equal(features[family], rows, rtol=1e-6, atol=1e-9, obj=f"{family} at {as_of}")
    assert names_of(workspace)[:1] == first
    assert len(names_of(workspace)) == 2


def test_many_small_deliveries_are_put_together(tmp_path: Path) -> None:
    """When the later layers have grown to a quarter of the first, one layer replaces them all."""
    lines = make_transactions([("a", f"2022-01-{day:02}", 1.0) for day in range(1, 21)])
    workspace = shop_of(tmp_path, {"transactions": lines})
    counts = []
    for number in range(1, 8):
        more = make_transactions([("a", f"2022-02-{number:02}", 1.0)], transaction_id=f"more{number}")
        deliver(tmp_path, "transactions", more, str(number))
        intake.ingest(workspace, NOW)
        assert features_at(workspace, AFTER)["purchases"].loc["a", "n_purchases"] == 20 + number
        counts.append(len(names_of(workspace)))
    assert counts == [1, 2, 3, 4, 5, 6, 1]


def test_a_delivery_that_is_withdrawn_is_forgotten(tmp_path: Path) -> None:
    """A layer of a part that the table no longer has does not count."""
    workspace = shop_of(tmp_path, {"transactions": make_transactions([("a", "2022-01-01", 1.0)])})
    deliver(tmp_path, "transactions", make_transactions([("b", "2022-02-01", 1.0)], transaction_id="b"), "1")
    intake.ingest(workspace, NOW)
    assert features_at(workspace, AFTER)["purchases"].index.tolist() == ["a", "b"]
    deliver(tmp_path, "transactions", make_transactions([("c", "2022-02-01", 1.0)], transaction_id="c"), "1")
    intake.ingest(workspace, NOW)
    assert features_at(workspace, AFTER)["purchases"].index.tolist() == ["a", "c"]


def test_a_product_that_moves_to_another_category_takes_its_past_along(tmp_path: Path) -> None:
    """Days are summed up by category: when the products say otherwise they are summed up anew."""
    products = pd.DataFrame({"product_id": ["p0", "p1"], "category": ["tea", "cake"]})
    lines = make_transactions([("a", "2022-01-01", 1.0), ("a", "2022-01-02", 2.0)], product_id=["p0", "p9"])
    workspace = shop_of(tmp_path, {"transactions": lines, "products": products})
    assert features_at(workspace, AFTER)["product_affinity"].index.tolist() == [("a", "tea")]
    moved = pd.DataFrame({"product_id": ["p0", "p1", "p9"], "category": ["drinks", "cake", "cups"]})
    deliver(tmp_path, "products", moved, "0")
    intake.ingest(workspace, NOW)
    assert features_at(workspace, AFTER)["product_affinity"].index.tolist() == [("a", "cups"), ("a", "drinks")]


def test_a_product_that_nobody_bought_changes_no_layer(tmp_path: Path) -> None:
    """New products arrive every day; what was summed up before them stays."""
    products = pd.DataFrame({"product_id": ["p0"], "category": ["tea"]})
    lines = make_transactions([("a", "2022-01-01", 1.0)], product_id="p0")
    workspace = shop_of(tmp_path, {"transactions": lines, "products": products})
    features_at(workspace, AFTER)
    days = list((workspace.home_path / "days").rglob("*.parquet"))
    written = {path: path.stat().st_mtime_ns for path in days}
    deliver(tmp_path, "products", pd.DataFrame({"product_id": ["p0", "new"], "category": ["tea", "cake"]}), "0")
    intake.ingest(workspace, NOW)
    features_at(workspace, AFTER)
    assert {path: path.stat().st_mtime_ns for path in days} == written


def test_a_new_day_leaves_earlier_snapshots_as_they_are(tmp_path: Path) -> None:
    """What happened on the as_of or later says nothing of it; a late line of an earlier day does."""
    workspace = shop_of(tmp_path, {"transactions": make_transactions([("a", "2022-01-01", 1.0)])})
    part = snapshot.snapshot(workspace, [BEFORE])[0]
    written = part.stat().st_mtime_ns
    deliver(tmp_path, "transactions", make_transactions([("a", "2022-12-20", 1.0)], transaction_id="new"), "1")
    intake.ingest(workspace, NOW)
    snapshot.snapshot(workspace, [BEFORE, AFTER])
    assert part.stat().st_mtime_ns == written
    deliver(tmp_path, "transactions", make_transactions([("a", "2022-12-19", 1.0)], transaction_id="late"), "2")
    intake.ingest(workspace, NOW)
    assert features_at(workspace, BEFORE)["purchases"].loc["a", "n_purchases"] == 2


def test_features_keep_to_the_memory_they_are_given(tmp_path: Path) -> None:
    """`memory` bounds DuckDB, which puts the rest on disk: 630,000 days are summed right in a tenth of a GB."""
    days = pd.date_range("2021-01-01", "2022-12-01", freq="D")
    customers = [f"customer-{number:05}" for number in range(900)]
    index = pd.MultiIndex.from_product([customers, days], names=["customer_id", "occurred_at"])
    lines = index.to_frame(index=False).assign(amount=1.0)
    lines["transaction_id"] = [f"t{number}" for number in range(len(lines))]
    workspace = shop_of(tmp_path, {"transactions": lines.astype({"occurred_at": "datetime64[us]"})}, memory=0.1)
    with on_duckdb.opened(workspace, lambda _: None) as engine:
        limit = engine.connection.execute("SELECT current_setting('memory_limit')").fetchall()[0][0]
    assert limit == "95.3 MiB"
    purchases = features_at(workspace, AFTER)["purchases"]
    assert purchases["n_purchases"].tolist() == [len(days)] * len(customers)
