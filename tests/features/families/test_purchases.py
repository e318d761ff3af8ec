"""Recency, frequency, value and rhythm, on histories small enough to count by hand."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import pandas as pd
from builders import make_transactions

from features.families.purchases import FEATURES, purchases
from tests.features.shops import family_at, open_shop

AS_OF = date(2024, 7, 1)


def days_ago(*days: int) -> list[str]:
    return [str(AS_OF - timedelta(days=day)) for day in days]


def purchases_of(folder: Path, rows: list[tuple[str, str, float]]) -> pd.DataFrame:
    return family_at(open_shop(folder, {"transactions": make_transactions(rows)}), purchases, AS_OF)


def test_lines_of_one_day_are_one_purchase(tmp_path: Path) -> None:
    """Two lines of a day count once, and the day is worth both."""
    row = purchases_of(tmp_path, [("a", "2024-06-01 09:00", 3.0), ("a", "2024-06-01 18:00", 4.0)]).loc["a"]
    assert (row["n_purchases"], row["frequency"], row["spend_mean"]) == (1, 0, 7)


def test_each_window_is_half_open(tmp_path: Path) -> None:
    """The day w days before as_of is in the window of w days, the one before it is not; as_of itself is in none."""
    windows = (7, 14, 30, 60, 90, 180, 365, 730)
    rows = [(f"in{w}", day, 1.0) for w, day in zip(windows, days_ago(*windows), strict=True)]
    rows += [(f"out{w}", day, 1.0) for w, day in zip(windows, days_ago(*(w + 1 for w in windows)), strict=True)]
    row = purchases_of(tmp_path, [*rows, ("today", str(AS_OF), 1.0)])
    assert "today" not in row.index
    for w in windows:
        assert row[f"n_purchases_{w}d"][[f"in{w}", f"out{w}"]].tolist() == [1, 0]
        assert row[f"spend_{w}d"][[f"in{w}", f"out{w}"]].tolist() == [1, 0]


def test_an_empty_window_counts_nothing(tmp_path: Path) -> None:
    """Who bought three years ago has bought nothing since: zero, not null, because that is known."""
    row = purchases_of(tmp_path, [("a", "2021-07-01", 5.0)]).loc["a"]
    windows = [name for name in row.index if name.startswith(("n_purchases_", "spend_")) and name[-2:] in ("0d", "5d")]
    counted = [name for name in windows if "decayed" not in name]
    assert len(counted) > 12
    assert not row[counted].any()
    assert row[["n_purchases_next_30d_last_year", "spend_next_90d_last_year"]].tolist() == [0, 0]


def test_a_figure_that_needs_more_purchases_is_null(tmp_path: Path) -> None:
    """One purchase has no gap and no repeat; two have one gap, whose spread is not known."""
    rows = [("once", "2024-06-01", 5.0), ("twice", "2024-05-01", 5.0), ("twice", "2024-05-11", 7.0)]
    rows_of = purchases_of(tmp_path, rows)
    once = rows_of.loc["once"]
    unknown = [name for name in once.index if name.startswith(("gap_", "silence_"))]
    assert once[[*unknown, "monetary_value", "spend_std"]].isna().all()
    assert rows_of.loc["twice", ["gap_mean", "gap_max", "gap_last", "monetary_value"]].tolist() == [10, 10, 10, 7]
    assert rows_of.loc["twice", ["gap_std", "gap_cv"]].isna().all()


def test_returns_lower_spend_and_are_no_purchases(tmp_path: Path) -> None:
    """A return on a day of its own adds no purchase; on a purchase's day it lowers what that was worth."""
    rows = [("a", "2024-05-01", 10.0), ("a", "2024-05-01", -4.0), ("a", "2024-06-01", -5.0)]
    row = purchases_of(tmp_path, rows).loc["a"]
    assert row[["n_purchases", "T", "spend_mean", "spend_max", "spend"]].tolist() == [1, 61, 6, 6, 1]


def test_who_only_returned_has_no_purchases(tmp_path: Path) -> None:
    """Without a purchase there is no row, rather than one that says zero days since the last."""
    assert purchases_of(tmp_path, [("a", "2024-05-01", 10.0), ("b", "2024-05-01", -4.0)]).index.tolist() == ["a"]


def test_a_line_that_costs_nothing_is_a_purchase(tmp_path: Path) -> None:
    """A free line was taken, not returned."""
    assert purchases_of(tmp_path, [("a", "2024-05-01", 0.0)]).loc["a", "n_purchases"] == 1


def test_active_months_are_twelve_stretches_of_thirty_days(tmp_path: Path) -> None:
    """The days 1 to 30 are one stretch, 331 to 360 the twelfth; older ones are not counted."""
    rows = [("edges", day, 1.0) for day in days_ago(1, 30, 31, 360, 361)]
    rows += [("daily", day, 1.0) for day in days_ago(*range(1, 366))]
    assert purchases_of(tmp_path, rows)["n_active_months_365d"].to_dict() == {"edges": 3, "daily": 12}


def test_last_year_is_null_for_who_was_no_customer_then(tmp_path: Path) -> None:
    """A customer of 364 days could not have bought a year ago; one of 365 days could, and did."""
    new, old, before = days_ago(364, 365, 366)
    features = purchases_of(tmp_path, [("new", new, 2.0), ("old", old, 2.0), ("before", before, 2.0)])
    last_year = features[["n_purchases_next_30d_last_year", "spend_next_30d_last_year"]]
    assert last_year.loc["new"].isna().all()
    assert last_year.loc["old"].tolist() == [1, 2]
    assert last_year.loc["before"].tolist() == [0, 0]


def test_the_coming_days_last_year_are_as_many_as_they_say(tmp_path: Path) -> None:
    """Of a purchase every day, 30 and 90 lie in the coming 30 and 90 days of last year."""
    row = purchases_of(tmp_path, [("a", day, 1.0) for day in days_ago(*range(1, 400))]).loc["a"]
    for kind in ("n_purchases", "spend"):
        assert [row[f"{kind}_next_{span}d_last_year"] for span in (30, 90)] == [30, 90]


def test_recency_never_exceeds_T(tmp_path: Path) -> None:
    """In the buy-till-you-die sense recency and the silence since add up to T."""
    rows = [("a", day, 1.0) for day in days_ago(3, 50, 51, 700)] + [("b", day, 1.0) for day in days_ago(9)]
    features = purchases_of(tmp_path, rows)
    assert (features["recency"] + features["days_since_last_purchase"] == features["T"]).all()


def test_a_weekend_is_saturday_and_sunday(tmp_path: Path) -> None:
    """Of seven days on end two are the weekend, and of Saturday and Sunday both."""
    week = [("week", f"2024-06-{day:02}", 1.0) for day in range(3, 10)]
    weekend = [("weekend", f"2024-06-{day:02}", 1.0) for day in (8, 9)]
    shares = purchases_of(tmp_path, [*week, *weekend])["weekend_share"]
    assert shares["weekend"] == 1
    assert abs(shares["week"] - 2 / 7) < 1e-6


def test_every_feature_is_said_once() -> None:
    """Names are unique; a text for people has one place for the value."""
    assert len({feature.name for feature in FEATURES}) == len(FEATURES)
    assert all(feature.says.count("{}") == 1 for feature in FEATURES if feature.says)
