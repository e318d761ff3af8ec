"""Response to past treatment: counted by hand, and never taken for the customer's own behaviour."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from builders import make_transactions

from features.snapshot import NOT_FOR_MODELS
from monitoring import campaigns
from tests.features.shops import features_at, make_interactions, open_shop
from workspace.settings import Workspace
from workspace.storage import CheckFailed

AS_OF = date(2024, 7, 1)
# Within 30 days of the spring campaign a came back for 20, b did not (its purchase is a day late), d was held back.
LINES = [("a", "2024-04-25", 5.0), ("a", "2024-05-02", 15.0), ("a", "2024-05-30", 5.0), ("b", "2024-05-31", 9.0),
         ("c", "2024-06-20", 7.0), ("d", "2024-05-10", 3.0), ("b", "2023-12-01", 1.0)]  # fmt: skip
EVENTS = [("a", "2024-05-01", "campaign_contact", "spring"), ("a", "2024-05-09", "campaign_contact", "spring"),
          ("b", "2024-05-01", "campaign_contact", "spring"), ("d", "2024-05-01", "campaign_control", "spring"),
          ("a", "2024-05-03", "coupon_redeemed", "spring"), ("c", "2024-06-10", "campaign_contact", "summer"),
          ("b", "2024-05-02", "email_sent", None)]  # fmt: skip


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    events = make_interactions([event[:3] for event in EVENTS], campaign_id=[event[3] for event in EVENTS])
    tables = {"transactions": make_transactions(LINES), "interactions": events}
    return open_shop(tmp_path_factory.mktemp("campaigns"), tables, cross_sell={"horizon": 30})


def test_a_campaign_is_followed_from_each_customers_first_contact(shop: Workspace) -> None:
    """Half of the two contacted bought, for 10 on average, one with a coupon; the one held back bought as well."""
    [campaign] = campaigns.response(shop, AS_OF).campaigns.to_dict("records")
    assert campaign.pop("first") == pd.Timestamp("2024-05-01")
    assert campaign == {
        "campaign_id": "spring", "contacted": 2, "bought": 0.5, "bought_before": 0.5, "spend": 10.0, "redeemed": 0.5,
        "control": 1, "control_bought": 1.0,
    }  # fmt: skip


def test_a_window_that_is_open_is_not_counted(shop: Workspace) -> None:
    """The summer campaign has run for 30 days on July 10, and not the day before."""
    assert campaigns.response(shop, date(2024, 7, 9)).campaigns["campaign_id"].tolist() == ["spring"]
    rows = campaigns.response(shop, date(2024, 7, 10)).campaigns
    assert rows["campaign_id"].tolist() == ["spring", "summer"]
    assert np.isnan(rows["control_bought"].iloc[1])


def test_customers_are_told_apart_by_past_contacts(shop: Workspace) -> None:
    """Of who had bought in the year before June 1: by contacts in 90 days, those who bought in June."""
    response = campaigns.response(shop, AS_OF)
    assert response.since == date(2024, 6, 1)
    rows = [(row.contacts, row.customers, row.bought) for row in response.history.itertuples()]
    assert rows == [("0", 1, 0.0), ("1", 1, 0.0), ("2", 1, 0.0)]


def test_the_text_lists_the_features_that_would_tell_the_treatment(shop: Workspace) -> None:
    """All of them are withheld from models; the answers to contacts are named beside them."""
    text = campaigns.as_text(campaigns.response(shop, AS_OF))
    assert "spring" in text
    assert set(campaigns.WITHHELD) <= NOT_FOR_MODELS
    assert all(name in text for name in (*campaigns.WITHHELD, "n_email_open_30d", "n_coupon_redeemed_365d"))


def test_what_the_marketer_sends_is_no_behaviour(shop: Workspace) -> None:
    """b has only been written to and d only held back: neither has ever been in touch, as a has by the coupon."""
    days = features_at(shop, AS_OF)["engagement"]["days_since_interaction"]
    assert np.isnan(days[["b", "d"]]).all()
    assert days["a"] == 59


def test_without_contacts_it_is_refused_with_what_to_do(shop: Workspace) -> None:
    """Before the first window has closed, and in a shop that keeps no interactions."""
    with pytest.raises(CheckFailed, match=r"no campaign_contact lies 30 days .* before 2024-05-15; choose a later"):
        campaigns.response(shop, date(2024, 5, 15))


def test_without_interactions_it_is_refused(tmp_path: Path) -> None:
    """The sentence names the table and the kind of row."""
    bare = open_shop(tmp_path, {"transactions": make_transactions(LINES)})
    with pytest.raises(CheckFailed, match=r"needs `tables.interactions` with rows of kind campaign_contact"):
        campaigns.response(bare, AS_OF)
