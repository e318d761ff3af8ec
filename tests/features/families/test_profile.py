"""Who is a customer at as_of, since when, and what was known of them."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd
from builders import make_transactions

from ingest import intake
from tests.features.shops import NOW, features_at, open_shop

AS_OF = date(2024, 7, 1)
LINES = make_transactions(
    [("buyer", "2024-06-01", 1.0), ("refunded", "2024-06-11", -1.0), ("later", "2024-07-01", 1.0)]
)


def customers_of(rows: list[tuple[Any, ...]], *columns: str) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["customer_id", *columns])


def profile_of(folder: Path, customers: pd.DataFrame | None = None, *attributes: str) -> pd.DataFrame:
    tables = {"transactions": LINES} | ({} if customers is None else {"customers": customers})
    return features_at(open_shop(folder, tables, attributes=list(attributes)), AS_OF)["profile"]


def test_without_a_customers_table_the_first_line_says_since_when(tmp_path: Path) -> None:
    """Whoever bought or returned is known from then on; consent is not."""
    profiles = profile_of(tmp_path)
    assert profiles["tenure_days"].to_dict() == {"buyer": 30, "refunded": 20}
    assert profiles["profiling_consent"].isna().all()


def test_a_customer_with_only_a_sign_up_is_known_and_has_no_purchases(tmp_path: Path) -> None:
    """There is a row from the day after the sign-up on; every family but the profile knows nothing."""
    customers = customers_of([("new", "2024-06-30"), ("tomorrow", "2024-07-01"), ("undated", None)], "signed_up_at")
    workspace = open_shop(tmp_path, {"transactions": LINES, "customers": customers})
    features = features_at(workspace, AS_OF)
    assert features["profile"]["tenure_days"].to_dict() == {"buyer": 30, "new": 1, "refunded": 20}
    assert all(features[family].loc["new"].isna().all() for family in ("purchases", "basket", "engagement"))


def test_tenure_begins_with_the_earlier_of_sign_up_and_purchase(tmp_path: Path) -> None:
    """A guest who signs up later is as old a customer as the purchase; a sign-up after as_of says nothing."""
    customers = customers_of([("buyer", "2024-06-20"), ("refunded", "2024-07-09")], "signed_up_at")
    assert profile_of(tmp_path, customers)["tenure_days"].to_dict() == {"buyer": 30, "refunded": 20}


def test_attributes_are_unknown_before_the_sign_up(tmp_path: Path) -> None:
    """What a guest will say of himself when he signs up was not known while he was a guest."""
    rows = [
        ("buyer", "2024-06-30", "Aachen", 1950),
        ("refunded", "2024-07-01", "Bonn", 1960),
        ("old", None, "Celle", 1),
    ]
    profiles = profile_of(tmp_path, customers_of(rows, "signed_up_at", "city", "birth_year"), "city", "birth_year")
    assert profiles.loc["buyer", ["attribute_city", "attribute_birth_year"]].tolist() == [0, 1950]
    assert profiles.loc["refunded", ["attribute_city", "attribute_birth_year"]].isna().all()


def test_attributes_without_a_sign_up_date_are_taken_as_known(tmp_path: Path) -> None:
    """A shop that does not date its customers describes them at any time."""
    profiles = profile_of(tmp_path, customers_of([("buyer", "Aachen"), ("refunded", None)], "city"), "city")
    assert profiles["attribute_city"].dropna().to_dict() == {"buyer": 0}


def test_an_attribute_that_nobody_has_is_null(tmp_path: Path) -> None:
    """A column without a single value neither fails nor becomes a code."""
    profiles = profile_of(tmp_path, customers_of([("buyer", None), ("refunded", None)], "city"), "city")
    assert profiles["attribute_city"].isna().all()


def test_a_code_stays_when_new_values_come(tmp_path: Path) -> None:
    """A value that sorts before the others gets the next code, not theirs."""
    tables = {"transactions": LINES, "customers": customers_of([("buyer", "Bonn"), ("refunded", "Celle")], "city")}
    workspace = open_shop(tmp_path, tables, attributes=["city"])
    before = features_at(workspace, AS_OF)["profile"]["attribute_city"]
    customers_of([("buyer", "Bonn"), ("refunded", "Aachen")], "city").to_parquet(tmp_path / "customers.parquet")
    intake.ingest(workspace, NOW)
    after = features_at(workspace, AS_OF)["profile"]["attribute_city"]
    assert before.to_dict() == {"buyer": 0, "refunded": 1}
    assert after.to_dict() == {"buyer": 0, "refunded": 2}


def test_consent_that_was_not_given_is_refused(tmp_path: Path) -> None:
    """Where consents are kept, one that is missing counts as no."""
    customers = customers_of([("buyer", True), ("silent", None)], "profiling_consent").assign(signed_up_at="2024-01-01")
    consents = profile_of(tmp_path, customers)["profiling_consent"]
    assert consents.to_dict() == {"buyer": 1, "refunded": 0, "silent": 0}
