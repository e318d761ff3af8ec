"""Every feature once more, in SQLite: one scalar subquery each, written from what the feature means.

Times are the workspace's wall clock as text, so a day is `date(occurred_at)` and what was known is `< as_of`.
"""

from __future__ import annotations

import math
import sqlite3
import statistics
from datetime import date

import numpy as np
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

    CREATE TABLE willing AS SELECT customer_id FROM customers WHERE profiling_consent;
    CREATE TABLE willing_day AS SELECT * FROM item_day WHERE customer_id IN willing;

    CREATE INDEX by_line ON line (customer_id); CREATE INDEX by_purchase ON purchase (customer_id);
    CREATE INDEX by_event ON event (customer_id);
"""


def _own(figure: str, table: str, where: str = "1") -> str:
    """A figure over the rows of a table that belong to customer `k`."""
    return f"(SELECT {figure} FROM {table} WHERE customer_id = k.customer_id AND {where})"


def _purchases() -> dict[str, str]:
    silence = _own("min(age)", "purchase")
    figures = {f"n_purchases_{w}d": _own("count(*)", "purchase", f"age <= {w}")
             for w in (7, 14, 30, 60, 90, 180, 365, 730)}  # fmt: skip
    figures |= {f"spend_{w}d": _spend(1, w) for w in (7, 14, 30, 60, 90, 180, 365, 730)}
    figures |= {
        "n_purchases": _own("count(*)", "purchase"),
        "spend": _own("sum(amount)", "line"),
        "frequency": _own("count(*) - 1", "purchase"),
        "recency": _own("max(age) - min(age)", "purchase"),
        "T": _own("max(age)", "purchase"),
        "monetary_value": _own("avg(spend)", "purchase", "nth > 1"),
        "recency_share": _own("(max(age) - min(age)) * 1.0 / max(age)", "purchase"),
        "repurchase_frequency": _own("(count(*) - 1) * 365.0 / max(age)", "purchase"),
        "loyalty_index": _own("(count(*) - 1) * 1.0 / count(*)", "purchase"),
        "days_since_last_purchase": silence,
        "gap_mean": _own("avg(gap)", "purchase"),
        "gap_std": _own("spread(gap)", "purchase"),
        "gap_max": _own("max(gap)", "purchase"),
        "gap_last": _own("gap", "purchase", "nth_from_last = 1"),
        "gap_cv": _own("spread(gap) / avg(gap)", "purchase"),
        "silence_vs_gap": _own("min(age) / avg(gap)", "purchase"),
        "silence_vs_longest_gap": _own("1.0 * min(age) / max(gap)", "purchase"),
        "silence_in_deviations": _own("(min(age) - avg(gap)) / nullif(spread(gap), 0)", "purchase"),
        "spend_mean": _own("avg(spend)", "purchase"),
        "spend_std": _own("spread(spend)", "purchase"),
        "spend_max": _own("max(spend)", "purchase"),
        "spend_first": _own("spend", "purchase", "nth = 1"),
        "spend_last": _own("spend", "purchase", "nth_from_last = 1"),
        "n_purchases_change_90d": _own("sum(age <= 90) - sum(age BETWEEN 91 AND 180)", "purchase"),
        "n_purchases_acceleration_90d": _own(
            "sum(age <= 90) - 2 * sum(age BETWEEN 91 AND 180) + sum(age BETWEEN 181 AND 270)", "purchase"
        ),
        "spend_90d_share_of_year": f"{_spend(1, 90)} / {_positive(_spend(1, 365))}",
        "spend_change_90d": f"{_spend(1, 90)} - {_spend(91, 180)}",
        "spend_change_365d": f"{_spend(1, 365)} - {_spend(366, 730)}",
        "n_active_months_365d": _own("count(DISTINCT (age - 1) / 30)", "purchase", "age <= 360"),
        "weekend_share": _own("avg(strftime('%w', day) IN ('0', '6'))", "purchase"),
    }
    for d in (30, 90, 365):
        figures[f"n_purchases_decayed_{d}d"] = _own(f"sum(exp(-age / {d}.0))", "purchase")
        figures[f"spend_decayed_{d}d"] = _own(f"sum(amount * exp(-age / {d}.0))", "line")
    for span, nearest in (("30d", 336), ("90d", 276)):
        a_year = f"{_own('max(age)', 'purchase')} >= 365"
        n = _own("count(*)", "purchase", f"age BETWEEN {nearest} AND 365")
        figures[f"n_purchases_next_{span}_last_year"] = f"CASE WHEN {a_year} THEN {n} END"
        figures[f"spend_next_{span}_last_year"] = f"CASE WHEN {a_year} THEN {_spend(nearest, 365)} END"
        share = f"{_spend(nearest, 365)} / {_positive(_spend(1, 365))}"
        figures[f"spend_share_next_{span}_last_year"] = f"CASE WHEN {a_year} THEN {share} END"
        share = f"{_shop(nearest, 365)} / {_positive(_shop(1, 365))}"
        figures[f"shop_share_next_{span}_last_year"] = f"CASE WHEN {_OPENED} >= 365 THEN {share} END"
    growth = f"{_shop(1, 90)} / {_positive(_shop(366, 455))}"
    return figures | {"shop_growth_90d": f"CASE WHEN {_OPENED} >= 455 THEN {growth} END"}


_OPENED = "(SELECT max(age) FROM purchase WHERE customer_id IN willing)"


def _shop(nearest: int, farthest: int) -> str:
    return f"(SELECT sum(amount) FROM line WHERE age BETWEEN {nearest} AND {farthest} AND customer_id IN willing)"


def _positive(figure: str) -> str:
    return f"(SELECT CASE WHEN figure > 0 THEN figure END FROM (SELECT {figure} AS figure))"


def _spend(nearest: int, farthest: int) -> str:
    return _own("coalesce(sum(amount), 0)", "line", f"age BETWEEN {nearest} AND {farthest}")


def _basket() -> dict[str, str]:
    bought, returned = "age <= 365 AND amount >= 0", "age <= 365 AND amount < 0"
    gross = _own("sum(amount)", "line", bought)
    by_category = _own("sum(amount) AS spend", "line", "age <= 365 AND amount > 0 AND category IS NOT NULL "
                       "GROUP BY category")  # fmt: skip
    price = "sum(amount) / nullif(sum(coalesce(quantity, 1)), 0)"
    return {
        "lines_per_purchase_365d": _own("1.0 * count(*) / nullif(count(DISTINCT age), 0)", "line", bought),
        "n_categories_365d": _different("category", 365),
        "n_categories_90d": f"CASE WHEN {_different('category', 365)} > 0 THEN "
        f"coalesce({_different('category', 90)}, 0) END",
        "category_entropy_365d": f"(SELECT entropy(spend) FROM {by_category})",
        "top_category_share_365d": f"(SELECT max(spend) / sum(spend) FROM {by_category})",
        "category_similarity_90d": _own("cosine(category, amount, age)", "line", f"{bought} AND category IS NOT NULL"),
        "price_mean_365d": _own(price, "line", bought),
        "price_change_90d": f"{_own(price, 'line', 'age <= 90 AND amount >= 0')} / "
        f"nullif({_own(price, 'line', bought)}, 0)",
        "discount_share_365d": _discount_share(365),
        "discount_share_90d": _discount_share(90),
        "return_share_365d": f"coalesce({_own('-sum(amount)', 'line', returned)}, 0) / nullif({gross}, 0)",
        "n_return_days_365d": _own("count(DISTINCT age)", "line", returned),
        "n_return_days_90d": _own("count(DISTINCT age)", "line", "age <= 90 AND amount < 0"),
        "margin_365d": _own("sum(margin)", "line", "age <= 365"),
        "n_channels_365d": f"(SELECT nullif(count(DISTINCT first), 0) FROM {_channel_of_the_day()})",
        "hour_mean_365d": _own("avg(CAST(strftime('%H', occurred_at) AS INTEGER))", "line", bought),
    }


def _discount_share(days: int) -> str:
    bought = f"age <= {days} AND amount >= 0"
    discount, gross = (_own(f"sum({figure})", "line", bought) for figure in ("abs(discount)", "amount"))
    return f"{discount} / nullif({discount} + {gross}, 0)"


def _channel_of_the_day() -> str:
    known_day = "max(date(occurred_at), coalesce(date(recorded_at), date(occurred_at)))"
    return _own("min(channel) AS first", "line", f"age <= 365 AND amount >= 0 GROUP BY age, {known_day}")


def _different(column: str, days: int) -> str:
    """How many of them were bought; null for a customer who bought none."""
    return _own(f"nullif(count(DISTINCT {column}), 0)", "line", f"age <= {days} AND amount >= 0")


def _engagement() -> dict[str, str]:
    back = f"({_since('e.occurred_at', 'occurred_at')})"
    last = _own("rating", "event", "rating IS NOT NULL ORDER BY occurred_at DESC, interaction_id DESC LIMIT 1")
    mean = _own("avg(rating)", "event", "age <= 365")
    sent = "kind IN ('email_sent', 'campaign_contact')"
    keeps_resolutions = "EXISTS (SELECT * FROM event WHERE kind = 'complaint' AND resolved AND customer_id IN willing)"
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
        "days_since_cancellation": _own("max(age)", "event AS e", f"kind = 'cancellation' AND NOT {back}"),
        "n_open_complaints": f"CASE WHEN {keeps_resolutions} THEN {still_open} END",
        "days_to_resolve_365d": _own(days, "event", "kind = 'complaint' AND resolved AND age <= 365"),
        "satisfaction_365d": mean,
        "satisfaction_last": last,
        "satisfaction_change": f"{last} - {mean}",
        **{
            f"{name}_{w}d": _counted(kind, w)
            for name, kind in (("n_emails_sent", "email_sent"), ("n_campaign_contacts", "campaign_contact"))
            for w in (90, 365)
        },
        "email_open_rate_365d": _rate("email_open", "email_sent"),
        "email_click_rate_365d": _rate("email_click", "email_sent"),
        "coupon_redemption_rate_365d": _rate("coupon_redeemed", "campaign_contact"),
        "days_since_contact": _own("min(age)", "event", sent),
    }


def _since(then: str, bought: str) -> str:
    """Whether customer `k` bought, or signed up, later than `then`."""
    signed_up = "SELECT * FROM customers WHERE customer_id = k.customer_id AND signed_up_at < :as_of"
    lines = f"SELECT * FROM line WHERE customer_id = k.customer_id AND amount >= 0 AND {bought} > {then}"
    return f"EXISTS ({lines}) OR EXISTS ({signed_up} AND {bought.replace('occurred_at', 'signed_up_at')} > {then})"


def _counted(kind: str, days: int) -> str:
    return _own("count(*)", "event", f"kind = '{kind}' AND age <= {days}")


def _rate(done: str, to: str) -> str:
    return f"{_counted(done, 365)} * 1.0 / nullif({_counted(to, 365)}, 0)"


def _profile() -> dict[str, str]:
    row = "customers WHERE customer_id = k.customer_id"
    signed_up = f"(SELECT julianday(:as_of) - julianday(date(signed_up_at)) FROM {row} AND signed_up_at < :as_of)"
    first = _own("max(age)", "line")
    known = f"{row} AND coalesce(signed_up_at, '') < :as_of"
    return {
        "tenure_days": f"max(coalesce({signed_up}, {first}), coalesce({first}, {signed_up}))",
        "days_to_first_transaction": f"max({signed_up} - {first}, 0)",
        "profiling_consent": f"coalesce((SELECT profiling_consent FROM {row}), 0)",
        "days_since_contract_end": f"""(SELECT julianday(:as_of) - julianday(date(contract_ends_at)) FROM {row}
            AND contract_ends_at < :as_of AND NOT ({_since("date(contract_ends_at)", "date(occurred_at)")}))""",
        "days_until_contract_end": f"""(SELECT julianday(date(contract_ends_at)) - julianday(:as_of) FROM {row}
            AND contract_ends_at >= :as_of)""",
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
        "item_n_purchases_decayed_90d": mine("sum(exp(-age / 90.0))"),
        "item_n_purchases_decayed_30d": mine("sum(exp(-age / 30.0))"),
        "item_n_purchases_next_90d_last_year": mine("count(*)", "age BETWEEN 276 AND 365"),
        "item_spend_90d": mine("coalesce(sum(spend), 0)", "age <= 90"),
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
        buyers = f"(SELECT count(DISTINCT customer_id) * 1.0 FROM willing_day WHERE age <= {days}"
        return f"{buyers} AND item = k.item) / nullif({buyers}), 0)"

    then, year = (
        f"(SELECT count(*) * 1.0 FROM willing_day WHERE item = k.item AND age BETWEEN {nearest} AND 365)"
        for nearest in (276, 1)
    )
    first = (
        "SELECT customer_id, max(age) AS first, count(*) AS n FROM willing_day WHERE item = k.item GROUP BY customer_id"
    )
    of_90 = "(SELECT count(DISTINCT customer_id) FROM willing_day WHERE age <= 90)"
    earlier, again = (f"(SELECT count(*) FROM ({first}) WHERE first > 30 AND n > {times})" for times in (0, 1))
    return {f"item_buyers_{w}d": share(w) for w in (30, 90, 365)} | {
        "item_rising": f"{share(30)} / ({share(365)})",
        "item_share_next_90d_last_year": f"{then} / {year}",
        "item_new_buyers_90d": f"(SELECT count(*) * 1.0 FROM ({first}) WHERE first <= 90) / nullif({of_90}, 0)",
        "item_rebought_share": f"CASE WHEN {earlier} > 0 THEN ({again} + 20 * 0.05) / ({earlier} + 20) END",
        "item_days_on_sale": "(SELECT max(age) FROM willing_day WHERE item = k.item)",
    }


_PAIR = """(SELECT DISTINCT a.item, b.item AS other FROM willing_day AS a JOIN willing_day AS b
    ON b.customer_id = a.customer_id AND b.item <> a.item AND a.age <= 365 AND b.age <= 365)"""


def _co_purchase() -> dict[str, str]:
    buyers = "(SELECT count(DISTINCT customer_id) * 1.0 FROM willing_day WHERE age <= 365"
    both = """(SELECT count(*) * 1.0 FROM (SELECT customer_id FROM willing_day WHERE age <= 365 AND item = k.item
        INTERSECT SELECT customer_id FROM willing_day WHERE age <= 365 AND item = k.other))"""
    share = f"{both} / {buyers} AND item = k.other)"
    sizes = [f"({buyers} AND item = k.{name}) + 10)" for name in ("item", "other")]
    return {
        "n_bought_both_365d": both,
        "co_buyers_365d": share,
        "co_purchase_lift_365d": f"{share} / ({buyers} AND item = k.item) / {buyers}))",
        "co_purchase_cosine_365d": f"{both} / sqrt({sizes[0]} * {sizes[1]})",
    }


_EVERYBODY = "(SELECT customer_id FROM line UNION SELECT customer_id FROM customers WHERE signed_up_at < :as_of)"
_FAMILIES = {
    "purchases": ("customer_id", "purchase", _purchases()),
    "basket": ("customer_id", "line WHERE age <= 365", _basket()),
    "engagement": ("customer_id", "event", _engagement()),
    "profile": ("customer_id", _EVERYBODY, _profile()),
    "product_affinity": ("customer_id, item", "item_day", _affinity()),
    "popularity": ("item", "willing_day WHERE age <= 365", _popularity()),
    "co_purchase": ("item, other", _PAIR, _co_purchase()),
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


class _Cosine:
    """Cosine of spend by category in the last 90 days with that before."""

    def __init__(self) -> None:
        self.spend: dict[str, list[float]] = {}

    def step(self, category: str, amount: float, age: int) -> None:
        self.spend.setdefault(category, [0.0, 0.0])[age <= 90] += amount

    def finalize(self) -> float | None:
        early, late = (np.array(side) for side in zip(*self.spend.values(), strict=True)) if self.spend else ([], [])
        norm = np.linalg.norm(early) * np.linalg.norm(late)
        return float(np.dot(early, late) / norm) if norm else None


class Oracle:
    """The features of one shop at one as_of, straight from its source tables."""

    def __init__(self, tables: dict[str, pd.DataFrame], as_of: date, item: str = "category") -> None:
        self._connection = sqlite3.connect(":memory:")
        self._connection.create_aggregate("spread", 1, _Spread)  # type: ignore[arg-type]
        self._connection.create_aggregate("entropy", 1, _Entropy)  # type: ignore[arg-type]
        self._connection.create_aggregate("cosine", 3, _Cosine)  # type: ignore[arg-type]
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
        rows = self._query(keys, of, figures)
        if keys == "customer_id":  # who is known has a row in every family, a null one where it knows nothing
            rows = rows.reindex(self._query(keys, _EVERYBODY, {}).index)
        return rows.astype("float64").sort_index()

    def _query(self, keys: str, of: str, figures: dict[str, str]) -> pd.DataFrame:
        columns = "".join(f', {figure} AS "{name}"' for name, figure in figures.items())
        query = f"SELECT {keys}{columns} FROM (SELECT DISTINCT {keys} FROM {of}) AS k"
        return pd.read_sql_query(query, self._connection, params=self._as_of).set_index(keys.split(", "))
