"""Every feature once more, in SQLite: one scalar subquery each, written from what the feature means.

Times are the workspace's wall clock as text, so a day is `date(occurred_at)` and what was known is `< as_of`.
"""

from __future__ import annotations

import math
import sqlite3
import statistics
from datetime import date

import pandas as pd

KINDS = ("visit", "search", "cart", "review", "complaint", "inquiry", "survey", "email_open", "email_click", "call",
         "coupon_redeemed")  # fmt: skip

_KNOWN = """
    CREATE TABLE line AS
    SELECT t.*, p.category, t.amount - coalesce(t.cost, p.unit_cost * t.quantity) AS margin,
           CAST(julianday(:as_of) - julianday(date(t.occurred_at)) AS INTEGER) AS age
    FROM transactions AS t LEFT JOIN products AS p ON p.product_id = t.product_id
    WHERE t.occurred_at < :as_of AND coalesce(t.recorded_at, '') < :as_of;

    CREATE TABLE purchase AS
    SELECT customer_id, age, date(occurred_at) AS day, sum(amount) AS spend,
           lag(age) OVER (PARTITION BY customer_id ORDER BY age DESC) - age AS gap,
           row_number() OVER (PARTITION BY customer_id ORDER BY age DESC) AS nth,
           row_number() OVER (PARTITION BY customer_id ORDER BY age) AS nth_from_last
    FROM line GROUP BY customer_id, age HAVING max(amount) >= 0;

    CREATE TABLE event AS
    SELECT *, CAST(julianday(:as_of) - julianday(date(occurred_at)) AS INTEGER) AS age,
           coalesce(resolved_at < :as_of, 0) AS resolved,
           CASE WHEN kind IN ('review', 'survey') THEN value END AS rating
    FROM interactions WHERE occurred_at < :as_of AND coalesce(recorded_at, '') < :as_of;

    CREATE TABLE item_day AS
    SELECT customer_id, {item} AS item, age, sum(amount) AS spend
    FROM line WHERE {item} IS NOT NULL AND amount >= 0 GROUP BY customer_id, {item}, age;

    CREATE INDEX by_line ON line (customer_id); CREATE INDEX by_purchase ON purchase (customer_id);
    CREATE INDEX by_event ON event (customer_id);
"""


def _own(figure: str, table: str, where: str = "1") -> str:
    """A figure over the rows of a table that belong to customer `k`."""
    return f"(SELECT {figure} FROM {table} WHERE customer_id = k.customer_id AND {where})"


def _purchases() -> dict[str, str]:
    silence = _own("min(age)", "purchase")
    found = {f"n_purchases_{w}d": _own("count(*)", "purchase", f"age <= {w}")
             for w in (7, 14, 30, 60, 90, 180, 365, 730)}  # fmt: skip
    found |= {f"spend_{w}d": _spend(1, w) for w in (7, 14, 30, 60, 90, 180, 365, 730)}
    found |= {
        "n_purchases": _own("count(*)", "purchase"),
        "spend": _own("sum(amount)", "line"),
        "frequency": _own("count(*) - 1", "purchase"),
        "recency": _own("max(age) - min(age)", "purchase"),
        "T": _own("max(age)", "purchase"),
        "monetary_value": _own("avg(spend)", "purchase", "nth > 1"),
        "days_since_last_purchase": silence,
        "gap_mean": _own("avg(gap)", "purchase"),
        "gap_std": _own("spread(gap)", "purchase"),
        "gap_max": _own("max(gap)", "purchase"),
        "gap_last": _own("gap", "purchase", "nth_from_last = 1"),
        "gap_cv": _own("spread(gap) / avg(gap)", "purchase"),
        "silence_vs_gap": _own("min(age) / avg(gap)", "purchase"),
        "silence_vs_longest_gap": _own("1.0 * min(age) / max(gap)", "purchase"),
        "spend_mean": _own("avg(spend)", "purchase"),
        "spend_std": _own("spread(spend)", "purchase"),
        "spend_max": _own("max(spend)", "purchase"),
        "spend_last": _own("spend", "purchase", "nth_from_last = 1"),
        "n_purchases_change_90d": _own("sum(age <= 90) - sum(age BETWEEN 91 AND 180)", "purchase"),
        "spend_change_90d": f"{_spend(1, 90)} - {_spend(91, 180)}",
        "spend_change_365d": f"{_spend(1, 365)} - {_spend(366, 730)}",
        "n_active_months_365d": _own("count(DISTINCT (age - 1) / 30)", "purchase", "age <= 360"),
        "weekend_share": _own("avg(strftime('%w', day) IN ('0', '6'))", "purchase"),
    }
    for d in (30, 90, 365):
        found[f"n_purchases_decayed_{d}d"] = _own(f"sum(exp(-age / {d}.0))", "purchase")
        found[f"spend_decayed_{d}d"] = _own(f"sum(amount * exp(-age / {d}.0))", "line")
    for span, nearest in (("30d", 336), ("90d", 276)):
        a_year = f"{_own('max(age)', 'purchase')} >= 365"
        n = _own("count(*)", "purchase", f"age BETWEEN {nearest} AND 365")
        found[f"n_purchases_next_{span}_last_year"] = f"CASE WHEN {a_year} THEN {n} END"
        found[f"spend_next_{span}_last_year"] = f"CASE WHEN {a_year} THEN {_spend(nearest, 365)} END"
    return found


def _spend(nearest: int, farthest: int) -> str:
    return _own("coalesce(sum(amount), 0)", "line", f"age BETWEEN {nearest} AND {farthest}")


def _basket() -> dict[str, str]:
    bought, returned, year = "age <= 365 AND amount >= 0", "age <= 365 AND amount < 0", "age <= 365"
    counted, quantity_known = "count(DISTINCT transaction_id)", f"{bought} AND quantity IS NOT NULL"
    gross = _own("sum(amount)", "line", bought)
    discount = _own("sum(abs(discount))", "line", bought)
    by_category = _own("sum(amount) AS spend", "line", "age <= 365 AND amount > 0 AND category IS NOT NULL "
                       "GROUP BY category")  # fmt: skip
    return {
        "lines_per_purchase_365d": _own(f"1.0 * count(*) / nullif({counted}, 0)", "line", bought),
        "quantity_per_purchase_365d": _own(f"sum(quantity) / nullif({counted}, 0)", "line", quantity_known),
        "n_transactions_365d": _own(counted, "line", bought),
        "n_products_365d": _different("product_id", 365),
        "n_products_90d": _different("product_id", 90),
        "n_categories_365d": _different("category", 365),
        "n_categories_90d": _different("category", 90),
        "category_entropy_365d": f"(SELECT entropy(spend) FROM {by_category})",
        "top_category_share_365d": f"(SELECT max(spend) / sum(spend) FROM {by_category})",
        "price_mean_365d": _own("sum(amount) / nullif(sum(quantity), 0)", "line", quantity_known),
        "discount_share_365d": f"{discount} / nullif({discount} + {gross}, 0)",
        "return_share_365d": f"coalesce({_own('-sum(amount)', 'line', returned)}, 0) / nullif({gross}, 0)",
        "n_returns_365d": _own("count(*)", "line", returned),
        "margin_share_365d": _own("sum(margin) / nullif(sum(amount), 0)", "line", f"{year} AND margin IS NOT NULL"),
        "n_locations_365d": _different("location", 365),
        "n_channels_365d": _different("channel", 365),
        "hour_mean_365d": _own("avg(CAST(strftime('%H', occurred_at) AS INTEGER))", "line", bought),
    }


def _different(column: str, days: int) -> str:
    """How many of them were bought; null for a customer of whom the shop noted none in a year."""
    noted = _own(f"count({column})", "line", "age <= 365")
    return (
        f"CASE WHEN {noted} > 0 THEN {_own(f'count(DISTINCT {column})', 'line', f'age <= {days} AND amount >= 0')} END"
    )


def _engagement() -> dict[str, str]:
    last = _own("rating", "event", "rating IS NOT NULL ORDER BY occurred_at DESC, interaction_id DESC LIMIT 1")
    mean = _own("avg(rating)", "event", "age <= 365")
    sent = "kind IN ('email_sent', 'campaign_contact')"
    keeps_resolutions = "EXISTS (SELECT * FROM event WHERE kind = 'complaint' AND resolved)"
    still_open = _own("count(*)", "event", "kind = 'complaint' AND NOT resolved")
    days = "avg(julianday(date(resolved_at)) - julianday(date(occurred_at)))"
    return {
        f"n_{kind}_{w}d": _own("count(*)", "event", f"kind = '{kind}' AND age <= {w}")
        for kind in KINDS
        for w in (30, 90, 365)
    } | {
        "days_since_interaction": _own("min(age)", "event", f"NOT {sent}"),
        "days_since_visit": _own("min(age)", "event", "kind = 'visit'"),
        "days_since_complaint": _own("min(age)", "event", "kind = 'complaint'"),
        "days_since_cancellation": _own("max(age)", "event", "kind = 'cancellation'"),
        "n_open_complaints": f"CASE WHEN {keeps_resolutions} THEN {still_open} END",
        "days_to_resolve_365d": _own(days, "event", "kind = 'complaint' AND resolved AND age <= 365"),
        "satisfaction_365d": mean,
        "satisfaction_last": last,
        "satisfaction_change": f"{last} - {mean}",
        "n_emails_sent_90d": _own("count(*)", "event", "kind = 'email_sent' AND age <= 90"),
        "n_campaign_contacts_365d": _own("count(*)", "event", "kind = 'campaign_contact' AND age <= 365"),
        "days_since_contact": _own("min(age)", "event", sent),
    }


def _profile() -> dict[str, str]:
    row = "customers WHERE customer_id = k.customer_id"
    signed_up = f"(SELECT julianday(:as_of) - julianday(date(signed_up_at)) FROM {row} AND signed_up_at < :as_of)"
    first = _own("max(age)", "line")
    known = f"{row} AND coalesce(signed_up_at, '') < :as_of"
    return {
        "tenure_days": f"max(coalesce({signed_up}, {first}), coalesce({first}, {signed_up}))",
        "profiling_consent": f"coalesce((SELECT profiling_consent FROM {row}), 0)",
        "attribute_city": """(SELECT CASE WHEN city IS NOT NULL THEN
            (SELECT count(DISTINCT city) FROM customers AS other WHERE other.city < mine.city) END
            FROM customers AS mine WHERE customer_id = k.customer_id AND coalesce(signed_up_at, '') < :as_of)""",
        "attribute_birth_year": f"(SELECT birth_year FROM {known})",
    }


def _affinity() -> dict[str, str]:
    def mine(figure: str, where: str = "1") -> str:
        return _own(figure, "item_day", f"item = k.item AND {where}")

    gap = "(max(age) - min(age)) * 1.0 / nullif(count(*) - 1, 0)"
    return {
        "item_n_purchases": mine("count(*)"),
        **{f"item_n_purchases_{w}d": mine("count(*)", f"age <= {w}") for w in (30, 90, 365)},
        "item_spend_365d": mine("coalesce(sum(spend), 0)", "age <= 365"),
        "item_days_since_last": mine("min(age)"),
        "item_days_since_first": mine("max(age)"),
        "item_gap_mean": mine(gap),
        "item_silence_vs_gap": mine(f"min(age) / ({gap})"),
        "item_share_365d": f"{mine('count(*)', 'age <= 365')} * 1.0 / "
        f"nullif({_own('count(*)', 'item_day', 'age <= 365')}, 0)",
    }


def _popularity() -> dict[str, str]:
    def share(days: int) -> str:
        buyers = f"(SELECT count(DISTINCT customer_id) * 1.0 FROM item_day WHERE age <= {days}"
        return f"{buyers} AND item = k.item) / nullif({buyers}), 0)"

    return {f"item_buyers_{w}d": share(w) for w in (30, 90, 365)} | {"item_rising": f"{share(30)} / ({share(365)})"}


_FAMILIES = {
    "purchases": ("customer_id", "purchase", _purchases()),
    "basket": ("customer_id", "line WHERE age <= 365", _basket()),
    "engagement": ("customer_id", "event", _engagement()),
    "profile": (
        "customer_id",
        "(SELECT customer_id FROM line UNION SELECT customer_id FROM customers WHERE signed_up_at < :as_of)",
        _profile(),
    ),
    "product_affinity": ("customer_id, item", "item_day", _affinity()),
    "popularity": ("item", "item_day WHERE age <= 365", _popularity()),
}


class _Spread:
    """The standard deviation of a sample; null of fewer than two."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def step(self, value: float | None) -> None:
        if value is not None:
            self.values.append(value)

    def finalize(self) -> float | None:
        return statistics.stdev(self.values) if len(self.values) > 1 else None


class _Entropy(_Spread):
    """Entropy, in nats, of amounts as shares of their sum."""

    def finalize(self) -> float | None:
        total = sum(self.values)
        return -sum(v / total * math.log(v / total) for v in self.values) if self.values else None


class Oracle:
    """The features of one shop at one as_of, straight from its source tables."""

    def __init__(self, tables: dict[str, pd.DataFrame], as_of: date, item: str = "category") -> None:
        self._connection = sqlite3.connect(":memory:")
        self._connection.create_aggregate("spread", 1, _Spread)  # type: ignore[arg-type]
        self._connection.create_aggregate("entropy", 1, _Entropy)  # type: ignore[arg-type]
        self._connection.create_function("exp", 1, math.exp, deterministic=True)
        for name, rows in tables.items():
            rows.to_sql(name, self._connection, index=False)
        self._as_of = {"as_of": as_of.isoformat()}
        for statement in _KNOWN.format(item=item).split(";"):
            self._connection.execute(statement, self._as_of if ":as_of" in statement else {})

    def __enter__(self) -> Oracle:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def rows(self, family: str) -> pd.DataFrame:
        """Every feature of the family, indexed and sorted by its keys."""
        keys, of, figures = _FAMILIES[family]
        columns = ", ".join(f'{figure} AS "{name}"' for name, figure in figures.items())
        query = f"SELECT {keys}, {columns} FROM (SELECT DISTINCT {keys} FROM {of}) AS k"
        found = pd.read_sql_query(query, self._connection, params=self._as_of)
        return found.set_index(keys.split(", ")).astype("float64").sort_index()
