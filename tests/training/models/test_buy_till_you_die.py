"""Purchases and spend together, on the shops whose answers are known."""

from __future__ import annotations

import json
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
from datasets import cdnow_sample, dataset

from training.models.buy_till_you_die import BuyTillYouDie, History
from training.models.histories import NotIdentified


def history_of(purchases: pd.DataFrame, as_of: str) -> tuple[History, np.ndarray]:
    """Histories in days of purchase days (customer_id, date, amount) before `as_of`, and the last purchase's amount."""
    until = pd.Timestamp(as_of)
    seen = purchases[purchases["date"] < until].groupby(["customer_id", "date"])["amount"].sum().reset_index()
    by_customer = seen.sort_values("date").groupby("customer_id")
    first, last = by_customer["date"].min(), by_customer["date"].max()
    x, spend_first = by_customer.size() - 1.0, by_customer["amount"].first()
    monetary_value = ((by_customer["amount"].sum() - spend_first) / x).where(x > 0)
    columns = (x, (last - first).dt.days, (until - first).dt.days, monetary_value, spend_first)
    return History(*(column.to_numpy(dtype=float) for column in columns)), by_customer["amount"].last().to_numpy()


def apparel(name: str) -> pd.DataFrame:
    lines = pd.read_parquet(dataset("clvtools") / f"{name}.parquet")
    return lines.rename(columns={"id": "customer_id", "price": "amount"})


class Shop(NamedTuple):
    history: History
    spend_last: np.ndarray
    model: BuyTillYouDie


@pytest.fixture(scope="module")
def cdnow() -> Shop:
    """The papers' tenth of its customers after nine months."""
    history, last = history_of(cdnow_sample(), "1997-10-01")
    return Shop(history, last, BuyTillYouDie.fit(history, last))


def stranger_added(history: History) -> History:
    """One more row: a customer who never bought."""
    return History(*(np.append(column, np.nan) for column in history))


def test_drop_out_that_the_data_do_not_determine_is_told():
    """Forty weeks of CLVTools' 600 slow buyers leave a and b open; those of its 250 frequent buyers do not."""
    slow = BuyTillYouDie.fit(*history_of(apparel("apparel_trans"), "2005-10-10"))
    assert slow.dropout_doubt.startswith("the data do not determine a, b: standard errors")
    frequent = BuyTillYouDie.fit(*history_of(apparel("apparel_trans_250_customers_2353_rows"), "2005-10-10"))
    assert frequent.dropout_doubt == ""


def test_who_never_bought_has_no_outlook(cdnow):
    """The stranger changes nobody else's, at a fit as at an outlook."""
    history, last, alone = cdnow
    beside = BuyTillYouDie.fit(stranger_added(history), np.append(last, np.nan))
    assert beside == alone
    outlook = alone.outlook(stranger_added(history), 90)
    for column, expected in zip(outlook, alone.outlook(history, 90), strict=True):
        assert np.isnan(column[-1])
        np.testing.assert_array_equal(column[:-1], expected)
    assert np.isnan(alone.draw_value(stranger_added(history), 90, np.random.default_rng(1))[-1])


def test_drawn_values_scatter_about_the_expected_one(cdnow):
    """Mean over customers and draws, and the share who spend nothing."""
    history, _, model = cdnow
    rng = np.random.default_rng(2)
    drawn = np.array([model.draw_value(history, 90, rng) for _ in range(100)])
    outlook = model.outlook(history, 90)
    assert drawn.mean() == pytest.approx(outlook.value.mean(), rel=0.03)
    assert (drawn == 0).mean() == pytest.approx(outlook.no_purchase.mean(), rel=0.01)


def test_first_purchase_tells_one_time_customers_apart(cdnow):
    """Two who bought once on the same day are worth the more, the more that purchase was."""
    once = History(*(np.array(column) for column in ([0.0, 0], [0.0, 0], [100.0, 100], [np.nan] * 2, [10.0, 200])))
    small, large = cdnow.model.outlook(once, 90).value
    assert large > 2 * small


def test_stored_as_json_it_says_the_same(cdnow):
    """Parameters, doubt and mean spend return; so does a model without enough customers for the spend's spread."""
    history, last, model = cdnow
    assert BuyTillYouDie.from_json(json.loads(json.dumps(model.to_json()))) == model
    returned = history._replace(spend_first=np.full(len(last), -1.0))
    plain = BuyTillYouDie.fit(returned, last)
    assert plain.spend is None
    assert BuyTillYouDie.from_json(json.loads(json.dumps(plain.to_json()))) == plain
    once = np.flatnonzero(history.frequency == 0)[:1]
    known = History(*(column[once] for column in returned))
    assert plain.outlook(known, 90).expected_spend == pytest.approx(last.mean())


def test_fewer_than_thirty_who_came_back_are_not_enough(cdnow):
    """The number is told."""
    history, last, _ = cdnow
    few = np.append(np.flatnonzero(history.frequency > 0)[:29], np.flatnonzero(history.frequency == 0)[:200])
    with pytest.raises(NotIdentified, match="29 of 229 customers bought again"):
        BuyTillYouDie.fit(History(*(column[few] for column in history)), last[few])
