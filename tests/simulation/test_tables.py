"""The simulated shop's tables obey the contract, and look like those of a shop."""

from pathlib import Path

import duckdb
import pandas as pd
import pytest

from tests.simulation.conftest import CUSTOMERS
from workspace.tables import CONTRACTS


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
