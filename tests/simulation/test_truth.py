"""The truth of a simulated shop is what happens on average."""

from datetime import date, timedelta
from pathlib import Path

import duckdb
import lightgbm
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from simulation.parameters import CATEGORIES
from simulation.truth import truth
from tests.simulation.conftest import CUSTOMERS, ENDS

AS_OF, HORIZON = date(2024, 5, 1), 120  # spans five campaigns and months in which the season moves
STANDARD_ERRORS = 4.2  # some 200 means are compared below; chance alone exceeds this in one run of 200


def realised(database: duckdb.DuckDBPyConnection, customer_ids: pd.Series, as_of: date, horizon: int) -> pd.DataFrame:
    """Per customer, in the order given: what the tables say of the window, and 1 for each category bought."""
    window = f"occurred_at >= '{as_of}' AND occurred_at < '{as_of + timedelta(horizon)}'"
    shares = ", ".join(f"max((category = '{name}' AND amount > 0)::INT) AS {name}" for name in CATEGORIES)
    bought = "CASE WHEN amount > 0 THEN"
    rows = database.sql(
        f"SELECT customer_id, count(DISTINCT {bought} transaction_id END) AS purchases, "
        f"count(DISTINCT {bought} occurred_at::DATE END) AS purchase_days, sum(amount) AS spend, {shares} "
        f"FROM transactions JOIN products USING (product_id) WHERE {window} GROUP BY customer_id"
    ).df()
    return rows.set_index("customer_id").reindex(customer_ids, fill_value=0).astype(float)


def latent(shop: Path) -> pd.DataFrame:
    return pd.read_parquet(shop / "truth/customers").set_index("customer_id")


def standard_errors(expected: pd.Series, happened: pd.Series, groups: pd.Series) -> pd.Series:
    """Per group, how many standard errors the mean of what happened lies from the mean expected."""
    gap = pd.Series(happened.to_numpy() - expected.to_numpy()).groupby(groups.to_numpy())
    # Where almost nothing happens the sample's own spread may be 0; that of rare events is then the honest one.
    of_rare_events = (expected * (1 - expected)).groupby(groups.to_numpy()).mean()
    return gap.mean() / np.sqrt(np.maximum(gap.var(), of_rare_events) / gap.size())


def deciles(values: pd.Series) -> pd.Series:
    return pd.qcut(values.rank(method="first"), 10, labels=False)


@pytest.fixture(scope="module")
def forecast(shop: Path) -> pd.DataFrame:
    return truth(shop, AS_OF, HORIZON).set_index("customer_id")


@pytest.fixture(scope="module")
def happened(database: duckdb.DuckDBPyConnection, forecast: pd.DataFrame) -> pd.DataFrame:
    return realised(database, forecast.index.to_series(), AS_OF, HORIZON)


@pytest.mark.parametrize("answer", ["purchases", "spend", "no_purchase", "survival"])
def test_truth_agrees_with_what_happened_in_every_decile_and_kind_of_customer(
    shop: Path, forecast: pd.DataFrame, happened: pd.DataFrame, answer: str
) -> None:
    """Means over deciles, moods and regularity lie within standard errors of the truth."""
    latents = latent(shop).loc[forecast.index]
    left = pd.to_datetime(latents["left"]).fillna(pd.Timestamp(2100, 1, 1))
    outcome, expected = {
        "purchases": (happened["purchases"], forecast["expected_purchases"]),
        "spend": (happened["spend"], forecast["expected_spend"]),
        "no_purchase": ((happened["purchases"] == 0).astype(float), forecast["no_purchase_probability"]),
        "survival": ((left > pd.Timestamp(AS_OF + timedelta(HORIZON))).astype(float), forecast["survival_probability"]),
    }[answer]
    alive = forecast["p_alive"] == 1
    cooling = pd.to_datetime(latents["cooled"]) <= pd.Timestamp(AS_OF)
    for groups in (deciles(expected[alive]), latents["steps"][alive], cooling[alive]):
        assert standard_errors(expected[alive], outcome[alive], groups).abs().max() < STANDARD_ERRORS


def test_truth_agrees_with_what_happened_over_a_long_horizon(shop: Path, database: duckdb.DuckDBPyConnection) -> None:
    """A year ahead, peak season and all, purchases and net spend are still expected without bias."""
    forecast = truth(shop, date(2023, 3, 15), 400).set_index("customer_id")
    happened = realised(database, forecast.index.to_series(), date(2023, 3, 15), 400)
    alive = forecast["p_alive"] == 1
    for outcome in ("purchases", "spend"):
        expected = forecast[f"expected_{outcome}"][alive]
        assert standard_errors(expected, happened[outcome][alive], deciles(expected)).abs().max() < STANDARD_ERRORS


@pytest.mark.parametrize("category", CATEGORIES)
def test_category_probabilities_agree_with_what_was_bought(
    forecast: pd.DataFrame, happened: pd.DataFrame, category: str
) -> None:
    """Among those given a probability, that share buys the category."""
    alive = forecast["p_alive"] == 1
    expected = forecast[f"purchase_probability_{category}"][alive]
    assert standard_errors(expected, happened[category][alive], deciles(expected)).abs().max() < STANDARD_ERRORS
    assert expected.between(0, 1 - forecast["no_purchase_probability"][alive] + 1e-12).all()


def test_who_has_left_buys_no_more(forecast: pd.DataFrame, happened: pd.DataFrame) -> None:
    """The gone make no purchase, though their last orders' returns still come back."""
    gone = forecast["p_alive"] == 0
    assert 0.1 < gone.mean() < 0.8
    assert happened["purchases"][gone].sum() == 0
    assert (forecast["no_purchase_probability"][gone] == 1).all()
    spend = forecast["expected_spend"][gone]
    assert spend.sum() < 0
    # Returns are few and large: compare the total with its own spread.
    returned = happened["spend"][gone]
    assert abs((returned - spend).sum()) < STANDARD_ERRORS * np.sqrt((returned**2).sum())


def test_a_contact_adds_what_the_truth_says(shop: Path, database: duckdb.DuckDBPyConnection) -> None:
    """Over a dozen campaigns, contacted less control is the mean effect, where strong and where negative."""
    assignments = pd.read_parquet(shop / "truth/assignments").set_index("customer_id")
    campaigns = database.sql("SELECT campaign_id, starts_at::DATE AS day FROM campaigns WHERE kind = 'coupon'").df()
    trials = []
    for campaign_id, day in campaigns[::2].itertuples(index=False):
        as_of = day.date()
        if as_of + timedelta(29) <= ENDS:
            drawn = assignments.loc[assignments["campaign_id"] == campaign_id, "contacted"]
            effects = truth(shop, as_of, 29).set_index("customer_id").loc[drawn.index]
            purchases = realised(database, drawn.index.to_series(), as_of, 29)["purchases"]
            trials.append(effects.assign(contacted=drawn, purchases=purchases))
    trial = pd.concat(trials).query("p_alive == 1")
    effect = latent(shop)["contact_effect"].loc[trial.index].to_numpy()
    for group in (trial[effect > 0.4], trial[effect < 0]):
        contacted, control = group[group["contacted"]], group[~group["contacted"]]
        uplift = contacted["purchases"].mean() - control["purchases"].mean()
        spread = np.sqrt(contacted["purchases"].var() / len(contacted) + control["purchases"].var() / len(control))
        assert abs(uplift - group["contact_effect_purchases"].mean()) < 3.5 * spread
    assert trial["contact_effect_purchases"][effect > 0].min() > 0
    assert trial["contact_effect_no_purchase_probability"][effect > 0].max() <= 0
    assert trial["contact_effect_purchases"][effect < 0].max() < 0


def test_truth_follows_the_season_day_by_day(shop: Path, database: duckdb.DuckDBPyConnection) -> None:
    """One day ahead through two weeks of December, each weekday's purchases are as expected."""
    weekdays, expected, happened = [], [], []
    for as_of in (date(2024, 12, 1) + timedelta(days) for days in range(14)):
        forecast = truth(shop, as_of, 1)
        weekdays.append(as_of.weekday())
        expected.append(forecast["expected_purchases"].sum())
        happened.append(realised(database, forecast["customer_id"], as_of, 1)["purchases"].sum())
    sums = pd.DataFrame({"expected": expected, "happened": happened}).groupby(weekdays).sum()
    gap = (sums["happened"] - sums["expected"]) / np.sqrt(sums["expected"])  # a sum of rare events is nearly Poisson
    assert gap.abs().max() < STANDARD_ERRORS


def test_orders_amount_to_what_the_truth_says(shop: Path) -> None:
    """In every decile of expected amount, orders come to it, less 3.5 % while a contact is in effect."""
    orders = pd.read_parquet(shop / "truth/orders").join(latent(shop)["spend_per_order"], on="customer_id")
    campaigns = pd.read_parquet(shop / "campaigns.parquet").set_index("campaign_id")["starts_at"].dt.tz_localize(None)
    contacts = pd.read_parquet(shop / "truth/assignments").query("contacted").join(campaigns, on="campaign_id")
    orders["day"] = pd.to_datetime(orders["day"])
    contacts["starts_at"] = contacts["starts_at"].astype(orders["day"].dtype)
    latest = pd.merge_asof(orders.sort_values("day"), contacts.sort_values("starts_at"), left_on="day",
                           right_on="starts_at", by="customer_id", allow_exact_matches=False)  # fmt: skip
    exposed = (latest["day"] - latest["starts_at"]).dt.days <= 28
    expected = latest["spend_per_order"] * np.where(exposed, 0.965, 1.0)
    gap = pd.DataFrame({"gap": latest["amount"] - expected, "decile": deciles(latest["spend_per_order"])})
    for share in (gap[exposed], gap[~exposed]):
        # Orders of one customer are alike, so it is customers' means that scatter independently.
        customers = share.groupby([latest["customer_id"], "decile"])["gap"].sum().groupby("decile")
        assert (customers.sum() / customers.std() / np.sqrt(customers.size())).abs().max() < STANDARD_ERRORS


def test_a_contact_takes_effect_for_28_days(shop: Path, database: duckdb.DuckDBPyConnection) -> None:
    """From the day after it to the 28th, an order's expected amount is 3.5 % less; coupons are redeemed then alone."""
    contacts = pd.read_parquet(shop / "truth/assignments").query("contacted and campaign_id == 'K010'")["customer_id"]
    (day,) = database.sql("SELECT starts_at::DATE FROM campaigns WHERE campaign_id = 'K010'").fetchall()[0]
    price = latent(shop)["spend_per_order"]
    for days, reduction in ((0, 1), (1, 0.965), (28, 0.965), (29, 1)):
        as_of = day + timedelta(days)
        forecast = truth(shop, as_of, 1).set_index("customer_id").query("expected_purchases > 0")
        month = f"occurred_at BETWEEN DATE '{as_of}' - 31 AND '{as_of}'"
        recent = database.sql(f"SELECT customer_id FROM transactions WHERE {month}")
        # A day's own orders are not yet returned, and without recent ones nothing else is.
        quiet = forecast.loc[forecast.index.isin(contacts) & ~forecast.index.isin(recent.df()["customer_id"])]
        amount = quiet["expected_spend"] / quiet["expected_purchases"] / price.loc[quiet.index]
        assert len(quiet) > 100
        assert amount.to_numpy() == pytest.approx(reduction)
    redeemed = database.sql(
        "SELECT min(gap), max(gap) FROM (SELECT occurred_at::DATE - starts_at::DATE AS gap FROM interactions "
        "JOIN campaigns USING (campaign_id) WHERE interactions.kind = 'coupon_redeemed')"
    )
    assert redeemed.fetchall() == [(1, 28)]


def test_orders_are_the_last_as_often_as_the_truth_says(shop: Path) -> None:
    """Engaged customers leave after an order with their latent probability, mostly when it failed and was neglected."""
    orders = pd.read_parquet(shop / "truth/orders").join(latent(shop)[["cooled", "left", "leaving"]], on="customer_id")
    never = pd.Timestamp(2100, 1, 1)
    day, cooled, left = (pd.to_datetime(orders[name]).fillna(never) for name in ("day", "cooled", "left"))
    engaged = cooled > day
    was_last = (left == day + pd.Timedelta(days=1))[engaged].astype(float)
    leaving = orders["leaving"][engaged]
    assert standard_errors(leaving, was_last, pd.qcut(leaving, 4, labels=False)).abs().max() < STANDARD_ERRORS
    share = was_last.groupby(orders["outcome"][engaged]).mean()
    assert share["failed, unresolved"] == pytest.approx(0.6, abs=0.05)
    assert share["failed, resolved"] < share["failed, resolved late"] < share["failed, unresolved"]
    assert share["fine"] < 0.01


def recency_and_frequency(database: duckdb.DuckDBPyConnection, as_of: date) -> pd.DataFrame:
    """Customers who bought in the last year: what they did, and whether they were then silent for 90 days."""
    spans = ", ".join(
        f"count(DISTINCT transaction_id) FILTER (occurred_at >= DATE '{as_of}' - {days}) AS n_purchases_{days}d"
        for days in (90, 180, 365, 730)
    )
    return database.sql(
        f"WITH bought AS (SELECT * FROM transactions WHERE amount > 0), known AS (SELECT customer_id, {spans}, "
        f"date_diff('day', max(occurred_at), TIMESTAMPTZ '{as_of}') AS days_since_last_purchase, "
        f"date_diff('day', min(occurred_at), TIMESTAMPTZ '{as_of}') AS T "
        f"FROM bought WHERE occurred_at < '{as_of}' GROUP BY customer_id) "
        "SELECT known.*, customer_id NOT IN (SELECT customer_id FROM bought WHERE "
        f"occurred_at >= '{as_of}' AND occurred_at < '{as_of + timedelta(90)}') AS churned "
        "FROM known WHERE days_since_last_purchase <= 365"
    ).df()


def test_churn_is_predictable_but_not_given_away(shop: Path, database: duckdb.DuckDBPyConnection) -> None:
    """From recency and frequency alone 90-day inactivity is ranked well; knowing the truth ranks it better."""
    train = recency_and_frequency(database, date(2024, 7, 1))
    test = recency_and_frequency(database, date(2024, 10, 1))
    assert 0.40 < len(test) / CUSTOMERS < 0.60
    features = train.columns.drop(["customer_id", "churned"])
    model = lightgbm.LGBMClassifier(n_estimators=80, num_leaves=15, learning_rate=0.06, seed=1, verbose=-1, n_jobs=1)
    model.fit(train[features], train["churned"])
    learned = roc_auc_score(test["churned"], model.booster_.predict(test[features]))
    forecast = truth(shop, date(2024, 10, 1), 90).set_index("customer_id").loc[test["customer_id"]]
    assert 0.78 < learned < 0.88
    assert learned < roc_auc_score(test["churned"], forecast["no_purchase_probability"]) < 1


def test_truth_outside_the_records_is_refused(shop: Path, tmp_path: Path) -> None:
    """An as_of must lie within the days played, a horizon must be a day or more, and there must be a simulation."""
    with pytest.raises(ValueError, match=r"as_of is 2025-01-02; .* no later than the second"):
        truth(shop, date(2025, 1, 2), 90)
    with pytest.raises(ValueError, match="horizon is 0 days; it must be at least 1"):
        truth(shop, ENDS, 0)
    with pytest.raises(ValueError, match=r"holds no simulation .* write one with `perennial simulate"):
        truth(tmp_path, ENDS, 90)
