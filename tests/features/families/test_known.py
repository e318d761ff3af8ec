"""What was known at as_of: nothing later changes a feature, days are the workspace's, files may lie as they like."""

from __future__ import annotations

import shutil
import tempfile
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pytest
from builders import make_transactions
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from features.families.basket import basket
from features.families.engagement import engagement
from features.families.purchases import purchases
from features.snapshot import snapshot
from tests.features.shops import (
    family_at,
    features_at,
    make_interactions,
    open_shop,
    random_tables,
)
from workspace.windows import midnight

FIRST = datetime(2022, 1, 1)
PRODUCTS = pd.DataFrame({"product_id": ["p0", "p1", "p2"], "category": ["tea", "tea", "cake"], "unit_cost": [1, 2, 3]})
Features = dict[str, pd.DataFrame]


class Row(NamedTuple):
    """A line or an event: `what` is its amount and product, or its kind and value; the rest are hours and days."""

    customer: str
    hour: int
    what: tuple[object, object]
    recorded_after: int | None
    resolved_after: int | None

    @property
    def occurred_at(self) -> datetime:
        return FIRST + timedelta(hours=self.hour)

    @property
    def recorded_at(self) -> datetime | None:
        return None if self.recorded_after is None else self.occurred_at + timedelta(hours=self.recorded_after)

    @property
    def resolved_at(self) -> datetime | None:
        return None if self.resolved_after is None else self.occurred_at + timedelta(hours=self.resolved_after)

    def is_known(self, as_of: date) -> bool:
        start = datetime.combine(as_of, datetime.min.time())
        return self.occurred_at < start and (self.recorded_at is None or self.recorded_at < start)


class World(NamedTuple):
    lines: list[Row]
    events: list[Row]
    newcomers: list[Row]

    def known(self, as_of: date) -> World:
        """The rows known before as_of; a complaint that was resolved later was still open."""
        start = datetime.combine(as_of, datetime.min.time())
        lines, events, newcomers = ([row for row in rows if row.is_known(as_of)] for rows in self)
        open_then = [e if e.resolved_at and e.resolved_at < start else e._replace(resolved_after=None) for e in events]
        return World(lines, open_then, newcomers)

    def unknown(self, as_of: date) -> World:
        return World(*([row for row in rows if not row.is_known(as_of)] for rows in self))


Whats = st.SearchStrategy[tuple[object, object]]
# Days around as_of, or up to three years of them.
AS_OF = FIRST.date() + timedelta(days=800)
DAYS = st.integers(797, 802) | st.integers(760, 800) | st.integers(0, 1100)
HOURS = st.builds(lambda day, hour: 24 * day + hour, DAYS, st.sampled_from([0, 12, 23]))
LATER = st.none() | st.integers(0, 24 * 40)


def rows_of(what: Whats, customers: str) -> st.SearchStrategy[list[Row]]:
    """Rows at and around midnight, some of them recorded or resolved weeks later."""
    return st.lists(st.builds(Row, st.sampled_from(customers), HOURS, what, LATER, LATER), min_size=8, max_size=30)


def newcomers_of(what: Whats, customers: str) -> st.SearchStrategy[list[Row]]:
    """At most one sign-up of each customer."""
    row = st.builds(Row, st.sampled_from(customers), HOURS, what, st.none(), st.none())
    return st.lists(row, unique_by=lambda row: row.customer)


WORLDS = st.builds(
    World,
    rows_of(st.tuples(st.sampled_from([-8.0, 0.0, 4.0, 32.0]), st.sampled_from([None, "p0", "p1", "p2", "p9"])), "abc"),
    rows_of(st.tuples(st.sampled_from(["visit", "review", "complaint", "email_sent"]), st.integers(1, 5)), "abcd"),
    newcomers_of(st.tuples(st.sampled_from(["Aachen", "Bonn"]), st.integers(1960, 1990)), "abcde"),
)


NOTHING = World([], [], [])


def tables_of(world: World, other: World) -> dict[str, pd.DataFrame]:
    """The tables of two worlds together, of the second only what has ids of its own."""
    lines = _frame(
        [Row("z", 0, (1.0, None), None, None), *world.lines], "a", "transaction_id", ("amount", "product_id")
    )
    more = _frame(other.lines, "b", "transaction_id", ("amount", "product_id"))
    # A resolved complaint, so that the shop keeps track of them in every world.
    first = Row("z", 0, ("complaint", 1), None, 0)
    events = _frame([first, *world.events], "a", "interaction_id", ("kind", "value"))
    return {
        "transactions": pd.concat([lines, more], ignore_index=True).drop(columns="resolved_at"),
        "interactions": pd.concat(
            [events, _frame(other.events, "b", "interaction_id", ("kind", "value"))], ignore_index=True
        ),
        "customers": _customers([*world.newcomers, *other.newcomers]),
        "products": PRODUCTS,
    }


def _frame(rows: list[Row], prefix: str, key: str, names: tuple[str, str]) -> pd.DataFrame:
    frame = pd.DataFrame(
        [(r.customer, r.occurred_at, *r.what, r.recorded_at, r.resolved_at) for r in rows],
        columns=["customer_id", "occurred_at", *names, "recorded_at", "resolved_at"],
    )
    times = ["occurred_at", "recorded_at", "resolved_at"]
    frame[times] = frame[times].astype("datetime64[us]")
    return frame.astype({names[0]: object, names[1]: object}).assign(
        **{key: [f"{prefix}{i}" for i in range(len(rows))]}
    )


def _customers(newcomers: list[Row]) -> pd.DataFrame:
    """The first row of each customer, after two that name every city, whose codes then do not depend on the rest."""
    rows = {"y": ("Aachen", 1950, FIRST), "z": ("Bonn", 1950, FIRST)}
    for row in newcomers:
        rows.setdefault(row.customer, (*row.what, row.occurred_at))
    frame = pd.DataFrame(rows.values(), columns=["city", "birth_year", "signed_up_at"])
    return frame.assign(customer_id=list(rows))


def features_in(tables: dict[str, pd.DataFrame], as_of: date) -> Features:
    with tempfile.TemporaryDirectory() as folder:
        workspace = open_shop(Path(folder), tables, timezone="America/New_York", attributes=["city", "birth_year"])
        return features_at(workspace, as_of)


def assert_same(features: Features, expected: Features) -> None:
    assert features.keys() == expected.keys()
    for family, rows in expected.items():
        pd.testing.assert_frame_equal(features[family], rows, rtol=1e-6, atol=1e-9, obj=family)


# Every step of shrinking takes in two shops: minutes, to make a readable example only shorter.
@settings(
    max_examples=6, deadline=None, derandomize=True, database=None, phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow],
)  # fmt: skip
@given(WORLDS, WORLDS, st.integers(-2, 2))
def test_what_was_not_known_changes_no_feature(world: World, other: World, shift: int) -> None:
    """Rows unknown at as_of can be added, changed or deleted: every family stays as it was."""
    as_of = AS_OF + timedelta(days=shift)
    features = features_in(tables_of(world, NOTHING), as_of)
    assert_same(features_in(tables_of(world.known(as_of), other.unknown(as_of)), as_of), features)


@pytest.mark.parametrize(("recorded_at", "known_from"), [("2024-03-09 23:59", 10), ("2024-03-10 00:00", 11)])
def test_a_late_row_appears_from_the_day_after_its_recording_on(
    recorded_at: str, known_from: int, tmp_path: Path
) -> None:
    """A purchase recorded late is absent until then, and afterwards as old as it is."""
    lines = make_transactions([("a", "2024-02-01", 1.0), ("a", "2024-03-01", 2.0)], recorded_at=[None, recorded_at])
    workspace = open_shop(tmp_path, {"transactions": lines}, timezone="Europe/Berlin")
    before = family_at(workspace, purchases, date(2024, 3, known_from - 1)).loc["a"]
    assert (before["n_purchases"], before["days_since_last_purchase"]) == (1, known_from - 1 + 28)
    after = family_at(workspace, purchases, date(2024, 3, known_from)).loc["a"]
    assert (after["n_purchases"], after["days_since_last_purchase"]) == (2, known_from - 1)


def test_a_late_event_appears_from_the_day_after_its_recording_on(tmp_path: Path) -> None:
    """The same holds for interactions."""
    events = make_interactions([("a", "2024-03-01", "visit")], recorded_at="2024-03-09 12:00")
    tables = {"transactions": make_transactions([("b", "2024-01-01", 1.0)]), "interactions": events}
    workspace = open_shop(tmp_path, tables)
    assert family_at(workspace, engagement, date(2024, 3, 9)).empty
    assert family_at(workspace, engagement, date(2024, 3, 10)).loc["a", "days_since_visit"] == 9


def test_a_recording_before_the_fact_makes_no_row_known_earlier(tmp_path: Path) -> None:
    """A purchase booked in advance counts from the day after it happens."""
    lines = make_transactions([("a", "2024-03-05", 1.0)], recorded_at="2024-03-01")
    workspace = open_shop(tmp_path, {"transactions": lines})
    assert family_at(workspace, purchases, date(2024, 3, 5)).empty
    assert family_at(workspace, purchases, date(2024, 3, 6)).loc["a", "T"] == 1


def test_days_are_those_of_the_workspace(tmp_path: Path) -> None:
    """One minute apart in Shanghai, at its midnight, two purchases lie on two days; in London they are one."""
    lines = make_transactions([("a", "2024-01-05T15:59:00Z", 1.0), ("a", "2024-01-05T16:00:00Z", 1.0)])
    days = {}
    for zone in ("Asia/Shanghai", "Europe/London"):
        workspace = open_shop(tmp_path / zone, {"transactions": lines}, timezone=zone)
        days[zone] = [family_at(workspace, purchases, date(2024, 1, day))["n_purchases"].tolist() for day in (6, 7)]
    assert days == {"Asia/Shanghai": [[1], [2]], "Europe/London": [[1], [1]]}


def test_the_hour_is_the_workspaces(tmp_path: Path) -> None:
    """Half past seven in the evening in Shanghai is hour 19, whatever it is in Greenwich."""
    workspace = open_shop(
        tmp_path, {"transactions": make_transactions([("a", "2024-01-05T11:30:00Z", 1.0)])}, timezone="Asia/Shanghai"
    )
    assert family_at(workspace, basket, date(2024, 2, 1)).loc["a", "hour_mean_365d"] == 19


@pytest.mark.parametrize(
    ("zone", "as_of", "first_instant"),
    [
        ("Europe/Berlin", date(2024, 3, 31), "2024-03-30T23:00:00Z"),  # 23 hours long
        ("Europe/Berlin", date(2024, 4, 1), "2024-03-31T22:00:00Z"),
        ("Europe/Berlin", date(2024, 10, 27), "2024-10-26T22:00:00Z"),  # 25 hours long
        ("Europe/Berlin", date(2024, 10, 28), "2024-10-27T23:00:00Z"),
        ("America/Santiago", date(2024, 9, 8), "2024-09-08T04:00:00Z"),  # has no midnight: it begins at one
        ("America/Havana", date(2024, 11, 3), "2024-11-03T04:00:00Z"),  # has two
    ],
)
def test_as_of_begins_with_its_day_when_clocks_change(
    zone: str, as_of: date, first_instant: str, tmp_path: Path
) -> None:
    """The last second before the day's first instant is known, one day old; that instant itself is not."""
    begins = pd.Timestamp(first_instant)
    assert midnight(as_of, zone) == begins
    rows = [("known", begins - pd.Timedelta(seconds=1), 1.0), ("unknown", begins, 1.0)]
    workspace = open_shop(tmp_path, {"transactions": make_transactions(rows)}, timezone=zone)
    counted = family_at(workspace, purchases, as_of)
    assert counted["T"].to_dict() == {"known": 1}
    assert pd.read_parquet(snapshot(workspace, [as_of])[0])["as_of"].tolist() == [begins]


def test_ages_count_days_across_a_clock_change(tmp_path: Path) -> None:
    """A purchase just before the clocks change is as many days old as the calendar says, in either direction."""
    rows = [("a", "2024-03-30 23:30", 1.0), ("a", "2024-04-01 00:30", 1.0), ("b", "2024-10-26 00:30", 1.0)]
    workspace = open_shop(tmp_path, {"transactions": make_transactions(rows)}, timezone="Europe/Berlin")
    spring, autumn = (family_at(workspace, purchases, day) for day in (date(2024, 4, 2), date(2024, 10, 28)))
    assert spring.loc["a", ["recency", "T", "gap_last"]].tolist() == [2, 3, 2]
    assert autumn.loc["b", "T"] == 2


def test_the_order_of_rows_their_files_and_copies_of_them_do_not_matter(tmp_path: Path) -> None:
    """Shuffled rows in overlapping parts, one of them there twice, give the features of the one file."""
    tables = random_tables(4)
    keys = {"timezone": "Europe/Berlin", "attributes": ["city", "birth_year"], "max_quarantined": 1.0}
    whole = open_shop(tmp_path / "whole", tables, **keys)
    written = {name: _in_parts(rows, tmp_path / name) for name, rows in tables.items()}
    parts = open_shop(tmp_path / "parts", written, **keys)
    as_of = date(2022, 12, 21)
    assert_same(features_at(parts, as_of), features_at(whole, as_of))


def _in_parts(rows: pd.DataFrame, folder: Path) -> dict[str, str]:
    """Two files that share forty rows and a copy of the first, as a table of a workspace file."""
    folder.mkdir()
    shuffled, middle = rows.sample(frac=1, random_state=1, ignore_index=True), len(rows) // 2
    for number, part in enumerate([shuffled[: middle + 20], shuffled[max(middle - 20, 0) :]]):
        part.to_parquet(folder / f"{number}.parquet", index=False)
    shutil.copy(folder / "0.parquet", folder / "copy.parquet")
    return {"path": str(folder)}


def test_a_till_that_books_everything_on_one_customer_is_one_customer(tmp_path: Path) -> None:
    """A million anonymous lines under one id are one row beside the others, counted right."""
    minutes = pd.date_range("2022-01-01", periods=1_000_000, freq="min").astype("datetime64[us]")
    lines = pd.DataFrame({"customer_id": "cash", "occurred_at": minutes, "amount": 1.0})
    lines["transaction_id"] = [f"t{number}" for number in range(len(lines))]
    features = features_at(open_shop(tmp_path, {"transactions": lines}), date(2024, 1, 1))
    assert features["purchases"]["n_purchases"].to_dict() == {"cash": 695}
    assert features["purchases"]["spend"].to_dict() == {"cash": 1_000_000}


def test_a_category_that_is_new_is_ranked_like_any_other(tmp_path: Path) -> None:
    """What first sells after the models were taught has its features; nothing depends on having seen its name."""
    lines = make_transactions([("a", "2022-01-01", 1.0), ("b", "2023-12-30", 2.0)], product_id=["p0", "new"])
    products = pd.DataFrame({"product_id": ["p0", "new"], "category": ["tea", "novelty"]})
    workspace = open_shop(tmp_path, {"transactions": lines, "products": products})
    assert ("b", "novelty") not in features_at(workspace, date(2023, 12, 1))["product_affinity"].index
    features = features_at(workspace, date(2024, 1, 1))
    assert features["product_affinity"].loc[("b", "novelty"), "item_n_purchases"] == 1
    assert features["popularity"].loc["novelty", "item_buyers_30d"] == 1
