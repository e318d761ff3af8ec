"""Interactions: counts, complaints and how they ended, satisfaction."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pandas as pd
from builders import make_transactions

from features.families.engagement import FEATURES, TREATMENT, engagement
from tests.features.shops import family_at, make_interactions, open_shop

AS_OF = date(2024, 7, 1)
LINES = make_transactions([("shopper", "2024-06-01", 1.0)])


def engagement_of(folder: Path, events: pd.DataFrame) -> pd.DataFrame:
    return family_at(open_shop(folder, {"transactions": LINES, "interactions": events}), engagement, AS_OF)


def test_without_interactions_nobody_has_a_row(tmp_path: Path) -> None:
    """A shop that keeps none says nothing about its customers: no row, and all columns."""
    rows = family_at(open_shop(tmp_path, {"transactions": LINES}), engagement, AS_OF)
    assert rows.empty
    assert {feature.name for feature in FEATURES} <= set(rows)


def test_the_last_rating_is_the_latest(tmp_path: Path) -> None:
    """Of one day's ratings the later counts, whatever its id; a later event without a rating does not."""
    rows = [("a", "2024-06-01 18:00", "survey"), ("a", "2024-06-01 09:00", "review"),
            ("a", "2024-06-02 09:00", "review"), ("a", "2024-06-03 09:00", "visit")]  # fmt: skip
    row = engagement_of(tmp_path, make_interactions(rows, value=[2.0, 5.0, None, 30.0])).loc["a"]
    assert row[["satisfaction_last", "satisfaction_365d", "satisfaction_change"]].tolist() == [2, 3.5, -1.5]


def test_an_old_rating_is_a_last_rating_without_a_change(tmp_path: Path) -> None:
    """Older than a year it is still the last, but there is no mean of the year to compare it with."""
    row = engagement_of(tmp_path, make_interactions([("a", "2022-06-01", "review")], value=4.0)).loc["a"]
    assert row["satisfaction_last"] == 4
    assert row[["satisfaction_365d", "satisfaction_change"]].isna().all()


def test_a_complaint_is_open_until_the_day_after_it_was_resolved(tmp_path: Path) -> None:
    """Resolved on as_of it was open before it; resolved the day before it was closed."""
    rows = [
        ("closed", "2024-06-20", "complaint"),
        ("open", "2024-06-20", "complaint"),
        ("old", "2020-01-01", "complaint"),
    ]
    by_customer = engagement_of(tmp_path, make_interactions(rows, resolved_at=["2024-06-30 23:59", "2024-07-01", None]))
    assert by_customer["n_open_complaints"].to_dict() == {"closed": 0, "open": 1, "old": 1}
    assert by_customer["days_to_resolve_365d"].dropna().to_dict() == {"closed": 10}


def test_complaints_of_a_shop_that_resolves_none_are_not_called_open(tmp_path: Path) -> None:
    """Where no complaint was ever resolved nobody keeps track: how many are open is unknown."""
    row = engagement_of(tmp_path, make_interactions([("a", "2024-06-20", "complaint")])).loc["a"]
    assert pd.isna(row["n_open_complaints"])
    assert row["n_complaint_30d"] == 1


def test_what_the_marketer_sends_is_no_interaction_of_the_customer(tmp_path: Path) -> None:
    """Who was only written to has been contacted, and was never in touch."""
    rows = [("a", "2024-06-20", "email_sent"), ("a", "2024-06-10", "campaign_contact")]
    row = engagement_of(tmp_path, make_interactions(rows)).loc["a"]
    assert row[[feature.name for feature in TREATMENT]].tolist() == [1, 1, 1, 1, 11, 0, 0, 0]
    assert pd.isna(row["days_since_interaction"])


def test_a_cancellation_is_as_old_as_the_first(tmp_path: Path) -> None:
    """Who cancels twice left the first time."""
    rows = [("a", "2024-06-20", "cancellation"), ("a", "2024-06-10", "cancellation")]
    assert engagement_of(tmp_path, make_interactions(rows)).loc["a", "days_since_cancellation"] == 21


def test_a_cancellation_holds_until_a_purchase_after_it(tmp_path: Path) -> None:
    """Who bought since came back, and left again with the next one; the value of a cancellation is no rating."""
    rows = [("shopper", "2024-05-20", "cancellation"), ("shopper", "2024-06-20", "cancellation"),
            ("back", "2024-05-20", "cancellation")]  # fmt: skip
    lines = pd.concat([LINES, make_transactions([("back", "2024-06-01", 1.0)], transaction_id="t9")])
    events = make_interactions(rows, value=[1.0, 2.0, 3.0])
    shop = open_shop(tmp_path, {"transactions": lines, "interactions": events})
    by_customer = family_at(shop, engagement, AS_OF)
    assert by_customer["days_since_cancellation"].dropna().to_dict() == {"shopper": 11}
    assert by_customer["satisfaction_last"].isna().all()


def test_an_unknown_kind_is_an_interaction(tmp_path: Path) -> None:
    """A shop's own kind of event is counted as being in touch, though not by its name."""
    row = engagement_of(tmp_path, make_interactions([("a", "2024-06-20", "forum_post")])).loc["a"]
    assert row["days_since_interaction"] == 11
    assert not row[[name for name in row.index if name.startswith("n_") and name.endswith("0d")]].any()


def test_being_held_back_as_a_control_is_neither_contact_nor_behaviour(tmp_path: Path) -> None:
    """Who was drawn into the control group did nothing and heard nothing."""
    row = engagement_of(tmp_path, make_interactions([("a", "2024-06-20", "campaign_control")])).loc["a"]
    assert row[["days_since_interaction", "days_since_contact"]].isna().all()
