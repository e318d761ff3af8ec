"""The simulated shop: its tables obey the contract, and its truth is what happens on average."""

import filecmp
from datetime import date, timedelta
from pathlib import Path

import duckdb
import lightgbm
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from perennial import simulate as simulation
from perennial.simulate import CATEGORIES, simulate, truth
from perennial.tables import ABSURD_AMOUNT, CONTRACTS

CUSTOMERS = 10_000
ENDS = date(2025, 1, 1)
AS_OF, HORIZON = date(2024, 5, 1), 120  # spans five campaigns and months in which the season moves
STANDARD_ERRORS = 4.2  # some 200 means are compared below; chance alone exceeds this in one run of 200


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three years of 10,000 customers."""
    out = tmp_path_factory.mktemp("simulated") / "shop"
    simulate(out, customers=CUSTOMERS, years=3, seed=20)
    return out


@pytest.fixture(scope="module")
def database(shop: Path) -> duckdb.DuckDBPyConnection:
    """Its tables, cleaned by the rules of the contract alone: nothing here knows which rows were added as dirt."""
    connection = duckdb.connect()
    connection.execute("SET timezone = 'UTC'")
    for table in ("customers", "products", "campaigns"):
        connection.execute(f"CREATE VIEW {table} AS FROM '{shop}/{table}.parquet'")
    for table in ("transactions", "interactions"):
        connection.execute(f"CREATE VIEW all_{table} AS FROM '{shop}/{table}/*.parquet'")
        connection.execute(
            f"CREATE TABLE {table} AS SELECT DISTINCT * FROM all_{table} "
            f"WHERE customer_id IN (SELECT customer_id FROM customers) AND occurred_at < '{ENDS}'"
            + (f" AND abs(amount) < {ABSURD_AMOUNT}" if table == "transactions" else "")
        )
    return connection


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


# --- the truth is what happens on average ---------------------------------------------------------


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


# --- the tables obey the contract -----------------------------------------------------------------


@pytest.mark.parametrize("table", CONTRACTS)
def test_tables_have_exactly_the_canonical_columns(database: duckdb.DuckDBPyConnection, table: str) -> None:
    """Names and types are the contract's; customers have attributes and no contracts, and nothing tells the truth."""
    view = f"all_{table}" if table in ("transactions", "interactions") else table
    columns = {name: kind for name, kind, *_ in database.sql(f"DESCRIBE {view}").fetchall()}
    attributes = {"region", "age", "acquisition_channel", "name"} if table == "customers" else set()
    assert set(columns) == {*CONTRACTS[table].names} - {"contract_ends_at"} | attributes
    text = {column.name for column in CONTRACTS[table].columns if column.type == "VARCHAR"}
    times = {column.name for column in CONTRACTS[table].columns if column.type == "TIMESTAMPTZ"}
    assert {columns[name] for name in text} == {"VARCHAR"}
    assert {columns[name] for name in times & columns.keys()} <= {"TIMESTAMP WITH TIME ZONE"}


def test_dirty_rows_are_few_counted_and_all_that_cleaning_removes(
    shop: Path, database: duckdb.DuckDBPyConnection
) -> None:
    """About 0.3 % of lines are dirty, of every kind, and refusing them leaves exactly the true orders."""
    dirty = pd.read_parquet(shop / "truth/dirty_rows.parquet").groupby("table")["rows"]
    assert (dirty.min() > 0).all()
    for table, expected_share in (("transactions", 0.003), ("interactions", 0.0025)):
        total, clean = (
            database.sql(f"SELECT count(*) FROM {name}").fetchall()[0][0] for name in (f"all_{table}", table)
        )
        assert total - clean == dirty.sum()[table]
        assert dirty.sum()[table] / total == pytest.approx(expected_share, rel=0.15)
    spent = database.sql("SELECT sum(amount) FROM transactions WHERE amount > 0").fetchall()[0][0]
    assert spent == pytest.approx(pd.read_parquet(shop / "truth/orders")["amount"].sum())


def test_keys_are_unique_and_lines_of_one_order_agree(database: duckdb.DuckDBPyConnection) -> None:
    """Clean interactions have their own id; a transaction_id belongs to one customer, moment and channel."""
    assert database.sql("SELECT count(*) - count(DISTINCT interaction_id) FROM interactions").fetchall() == [(0,)]
    mixed = database.sql(
        "SELECT transaction_id FROM transactions WHERE amount > 0 GROUP BY ALL "
        "HAVING count(DISTINCT (customer_id, occurred_at, channel)) > 1 OR count(DISTINCT product_id) < count(*)"
    )
    assert mixed.fetchall() == []


def test_every_kind_of_interaction_happens(database: duckdb.DuckDBPyConnection) -> None:
    """All kinds the contract lists occur, reviews carry ratings and some complaints stay open."""
    kinds = {kind for (kind,) in database.sql("SELECT DISTINCT kind FROM interactions").fetchall()}
    assert kinds == {"visit", "search", "cart", "review", "complaint", "inquiry", "survey", "email_sent", "email_open",
                     "email_click", "call", "campaign_contact", "campaign_control", "coupon_redeemed",
                     "cancellation"}  # fmt: skip
    ratings = database.sql("SELECT DISTINCT value FROM interactions WHERE kind = 'review' ORDER BY value").fetchall()
    assert ratings == [(1,), (2,), (3,), (4,), (5,)]
    opened, resolved, backwards = database.sql(
        "SELECT count(*), count(resolved_at), count(*) FILTER (resolved_at <= occurred_at) "
        "FROM interactions WHERE kind = 'complaint'"
    ).fetchall()[0]
    assert 0.6 < resolved / opened < 0.95
    assert backwards == 0


def test_returns_are_negative_and_later_than_their_order(database: duckdb.DuckDBPyConnection) -> None:
    """Each returned line undoes a line bought 3 to 30 days before."""
    returns, days_first, days_last = database.sql(
        "SELECT count(*), min(gap), max(gap) FROM (SELECT returned.occurred_at::DATE - bought.occurred_at::DATE AS gap "
        "FROM transactions AS returned JOIN transactions AS bought "
        "ON bought.transaction_id = 'T' || returned.transaction_id[2:] AND bought.product_id = returned.product_id "
        "AND bought.amount = -returned.amount AND bought.quantity = -returned.quantity WHERE returned.amount < 0)"
    ).fetchall()[0]
    assert returns == database.sql("SELECT count(*) FROM transactions WHERE amount < 0").fetchall()[0][0]
    assert (days_first, days_last) == (3, 30)


def test_a_few_rows_are_recorded_late_and_none_early(database: duckdb.DuckDBPyConnection) -> None:
    """Three per cent of lines are recorded a day or more after they occurred."""
    late, early = database.sql(
        "SELECT avg((recorded_at > occurred_at + INTERVAL 1 DAY)::INT), count(*) FILTER (recorded_at <= occurred_at) "
        "FROM transactions"
    ).fetchall()[0]
    assert late == pytest.approx(0.03, abs=0.003)
    assert early == 0


def test_customers_vary_in_consent_and_some_names_are_formulas(database: duckdb.DuckDBPyConnection) -> None:
    """Both consents are withheld by some; the four formula signs open names; nobody acts before signing up."""
    marketing, profiling, signs = database.sql(
        "SELECT avg(marketing_consent::INT), avg(profiling_consent::INT), "
        "list(DISTINCT name[1] ORDER BY name[1]) FILTER (NOT regexp_matches(name, '^[A-Z]')) FROM customers"
    ).fetchall()[0]
    assert (round(marketing, 1), round(profiling, 1)) == (0.8, 0.9)
    assert signs == ["+", "-", "=", "@"]
    before = "SELECT count(*) FROM transactions JOIN customers USING (customer_id) WHERE occurred_at < signed_up_at"
    assert database.sql(before).fetchall() == [(0,)]
    marketed = (
        "SELECT count(*) FROM interactions JOIN customers USING (customer_id) "
        "WHERE kind IN ('email_sent', 'campaign_contact') AND NOT marketing_consent"
    )
    assert database.sql(marketed).fetchall() == [(0,)]


def test_business_has_a_winter_peak_and_a_weekly_pattern(database: duckdb.DuckDBPyConnection) -> None:
    """Twice as much is bought around 11 December as six weeks before, and Saturday beats Monday."""
    december, october, saturday, monday = database.sql(
        "SELECT count(*) FILTER (occurred_at::DATE BETWEEN '2023-12-04' AND '2023-12-17'), "
        "count(*) FILTER (occurred_at::DATE BETWEEN '2023-10-16' AND '2023-10-29'), "
        "count(*) FILTER (dayofweek(occurred_at) = 6), count(*) FILTER (dayofweek(occurred_at) = 1) FROM transactions"
    ).fetchall()[0]
    assert 1.6 < december / october < 2.5
    assert 1.3 < saturday / monday < 1.9


# --- it is a shop one can learn from --------------------------------------------------------------


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


def test_volume_is_that_of_a_shop(database: duckdb.DuckDBPyConnection) -> None:
    """Customers average 13 to 20 lines a year, in orders of some three lines; no customer orders twice a day."""
    lines, orders, days = database.sql(
        "SELECT count(*), count(DISTINCT transaction_id), count(DISTINCT (customer_id, occurred_at::DATE)) "
        "FROM transactions WHERE amount > 0"
    ).fetchall()[0]
    assert 13 < lines / CUSTOMERS / 3 < 20
    assert 2.7 < lines / orders < 3.5
    assert orders == days


def test_companions_share_a_basket(database: duckdb.DuckDBPyConnection) -> None:
    """Some pairs of categories meet in one order far more often than their own frequencies explain."""
    lift = database.sql(
        "WITH held AS (SELECT DISTINCT transaction_id, category FROM transactions JOIN products USING (product_id) "
        "WHERE amount > 0 AND customer_id < 'C00004000'), shares AS (SELECT category, "
        "count(*) / (SELECT count(DISTINCT transaction_id) FROM held) AS share FROM held GROUP BY category) "
        "SELECT max(n / (SELECT count(DISTINCT transaction_id) FROM held) / a.share / b.share) FROM ("
        "SELECT x.category AS first, y.category AS second, count(*) AS n FROM held AS x JOIN held AS y "
        "USING (transaction_id) WHERE x.category < y.category GROUP BY ALL) "
        "JOIN shares AS a ON a.category = first JOIN shares AS b ON b.category = second"
    ).fetchall()[0][0]
    assert lift > 1.5


# --- it can be relied upon ------------------------------------------------------------------------


def files(folder: Path) -> list[Path]:
    return sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())


def assert_same(one: Path, other: Path, names: list[Path]) -> None:
    assert filecmp.cmpfiles(one, other, names, shallow=False) == ([str(name) for name in names], [], [])


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    """Two runs with one seed agree byte for byte; another seed does not."""
    for out, seed in (("a", 3), ("b", 3), ("c", 4)):
        simulate(tmp_path / out, customers=300, years=1, seed=seed)
    assert files(tmp_path / "a") == files(tmp_path / "b")
    assert_same(tmp_path / "a", tmp_path / "b", [str(name) for name in files(tmp_path / "a")])
    part = "transactions/part-00000.parquet"
    assert not filecmp.cmp(tmp_path / "a" / part, tmp_path / "c" / part, shallow=False)


def test_parts_are_independent_of_how_many_follow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first part of a large shop is the small shop of that size, and ids differ across parts."""
    monkeypatch.setattr(simulation, "BLOCK", 100)
    simulate(tmp_path / "small", customers=100, years=1, seed=3)
    simulate(tmp_path / "large", customers=250, years=1, seed=3)
    parts = ["transactions/part-00000.parquet", "interactions/part-00000.parquet", "products.parquet"]
    assert_same(tmp_path / "small", tmp_path / "large", parts)
    assert len(truth(tmp_path / "large", ENDS, 30)) == 250
    for table, key in (("transactions", "transaction_id"), ("interactions", "interaction_id")):
        rows = [pd.read_parquet(path)[[key, "customer_id"]] for path in sorted((tmp_path / "large" / table).iterdir())]
        assert len(rows) == 3
        ids = [set(part[key]) for part in rows]
        assert not ids[0] & ids[1] | ids[0] & ids[2] | ids[1] & ids[2]
    assert pd.read_parquet(tmp_path / "large/customers.parquet")["customer_id"].is_unique


def test_the_shortest_shops_can_be_played(tmp_path: Path) -> None:
    """A day of one customer, and a month without campaigns, give tables and truth."""
    for seed in range(6):
        simulate(tmp_path / "shop", customers=1, years=0.001, seed=seed)
        assert len(truth(tmp_path / "shop", ENDS, 1)) == 1
    simulate(tmp_path / "shop", customers=50, years=0.08, seed=1)
    assert pd.read_parquet(tmp_path / "shop/campaigns.parquet")["kind"].tolist() == ["newsletter"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"customers": 0}, "customers is 0; a shop needs at least 1"),
        ({"years": 0}, "years is 0; it must be more than 0"),
        ({"years": float("nan")}, "years is nan; it must be more than 0"),
        ({"seed": -1}, "seed is -1; it must be 0 or more"),
        ({"ends": date(1970, 1, 1)}, "ends is 1970-01-01; with 1 years it must lie between 1976 and 2099"),
        ({"lines_per_purchase": 0.5}, "lines_per_purchase is 0.5; it must be between 1 and 100"),
    ],
)
def test_arguments_that_make_no_shop_are_refused(tmp_path: Path, arguments: dict, message: str) -> None:
    """The error names the argument, its value and what it may be; nothing is written."""
    with pytest.raises(ValueError, match=message):
        simulate(tmp_path / "shop", **{"customers": 10, "years": 1, "seed": 1, **arguments})
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_other_content_is_refused_untouched(tmp_path: Path) -> None:
    """Only an empty folder or an earlier simulation is written over."""
    (tmp_path / "thesis.txt").write_text("irreplaceable")
    with pytest.raises(ValueError, match=r"what no simulation wrote \(thesis.txt\); give a new or empty folder"):
        simulate(tmp_path, customers=10, years=1, seed=1)
    assert files(tmp_path) == [Path("thesis.txt")]


def test_an_earlier_simulation_is_replaced_whole(tmp_path: Path) -> None:
    """A second run leaves nothing of the first, whatever their sizes."""
    simulate(tmp_path / "shop", customers=60, years=1, seed=1)
    simulate(tmp_path / "shop", customers=40, years=1, seed=2)
    assert len(pd.read_parquet(tmp_path / "shop/customers.parquet")) == 40
    assert [path.name for path in tmp_path.iterdir()] == ["shop"]


def test_a_run_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    """Interrupted, it removes its half-written folder and keeps the earlier simulation."""

    def interrupt(_: str) -> None:
        raise KeyboardInterrupt

    simulate(tmp_path / "shop", customers=60, years=1, seed=1)
    with pytest.raises(KeyboardInterrupt):
        simulate(tmp_path / "shop", customers=40, years=1, seed=2, progress=interrupt)
    assert len(pd.read_parquet(tmp_path / "shop/customers.parquet")) == 60
    assert [path.name for path in tmp_path.iterdir()] == ["shop"]


def test_truth_outside_the_records_is_refused(shop: Path, tmp_path: Path) -> None:
    """An as_of must lie within the days played, a horizon must be a day or more, and there must be a simulation."""
    with pytest.raises(ValueError, match=r"as_of is 2025-01-02; .* no later than the second"):
        truth(shop, date(2025, 1, 2), 90)
    with pytest.raises(ValueError, match="horizon is 0 days; it must be at least 1"):
        truth(shop, ENDS, 0)
    with pytest.raises(ValueError, match=r"holds no simulation .* write one with `perennial simulate"):
        truth(tmp_path, ENDS, 90)
