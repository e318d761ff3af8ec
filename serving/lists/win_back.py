"""The win-back list: customers who left, what they spent, what may still be expected of them, what they used to buy."""

from __future__ import annotations

from datetime import date
from typing import Any

import pandas as pd

from features.snapshot import families
from serving.lists import paging
from serving.lists.churn_risk import Page, graded, rules, with_contacts
from serving.lists.list_query import WinBackQuery
from serving.lists.paging import Totals
from serving.scope import WHOLE, Scope
from serving.terms import Terms
from workspace import storage
from workspace.settings import Workspace

COLUMNS = (
    "customer_id", "last_purchase", "silent_days", "purchases", "spend", "bought_most", "lifetime_value",
    "lifetime_value_low", "lifetime_value_high", "lifetime_value_grade", "left_by", "as_of",
    "lifetime_value_period_days", "lifetime_value_measure", "currency",
)  # fmt: skip
TIES = {
    "lifetime_value": ("lifetime_value", "spend"),
    "spend": ("spend", "lifetime_value"),
    "last_purchase": ("latest", "lifetime_value", "spend"),
}
_LEFT = "already churned: "  # what `not_scored_reason` of who left begins with


@storage.read_again
def page(
    workspace: Workspace, as_of: date, asked: WinBackQuery, terms: Terms, contacts: bool = False, scope: Scope = WHOLE
) -> Page:
    """The customers who left and may be contacted, as `COLUMNS`.

    `lifetime_value` is what comes of such customers without anything being done: few come back by themselves.
    `bought_most` is what they bought on the most days, null where that is not known.

    Raises:
        NoSuchFilter: a filter that no customer can pass, or a cursor of another list.
        CheckFailed: `as_of` is not scored.
    """
    ties, where = TIES[asked.sort], rules(workspace, as_of, asked, terms, scope)
    if asked.cursor is not None:
        paging.go_on(where, asked.cursor, as_of, f"win-back {asked.sort}", ties)
    rows = paging.read(workspace, _rows(workspace, as_of), where, ties, asked.top + 1)
    listed = rows.head(asked.top)
    following = paging.cursor(as_of, f"win-back {asked.sort}", ties, listed.iloc[-1]) if len(rows) > asked.top else None
    ids = listed["customer_id"].tolist()
    listed = listed.assign(bought_most=_bought_most(workspace, as_of, ids), **terms.columns())
    told = listed[list(COLUMNS)]
    if contacts:
        told = with_contacts(workspace, told)
    return Page(as_of, len(told), iter([told]), following, _about(terms, as_of))


@storage.read_again
def total(workspace: Workspace, as_of: date, asked: WinBackQuery, terms: Terms, scope: Scope = WHOLE) -> Totals:
    """How many they are, and what may still be expected of them."""
    return paging.total(
        workspace, _rows(workspace, as_of), rules(workspace, as_of, asked, terms, scope), "lifetime_value"
    )


def _rows(workspace: Workspace, as_of: date) -> str:
    home = workspace.home_path
    scores = storage.scores_path(home, as_of)
    if not scores.exists():
        raise storage.CheckFailed(f"{workspace.name} has no scores of {as_of}; run `perennial score --as-of {as_of}`")
    purchases = storage.rows_of_part(storage.snapshot_part(home, "purchases", as_of))
    return f"""(
        SELECT scores.customer_id, scores.as_of, lifetime_value, lifetime_value_low, lifetime_value_high,
            spend, CAST(n_purchases AS INTEGER) AS purchases,
            CAST(days_since_last_purchase AS INTEGER) AS silent_days, -days_since_last_purchase AS latest,
            scores.as_of - CAST(days_since_last_purchase AS INTEGER) AS last_purchase,
            not_scored_reason[{len(_LEFT) + 1}:] AS left_by
        FROM read_parquet({storage.quoted(scores)}) AS scores JOIN {purchases} AS purchases USING (customer_id)
        WHERE starts_with(not_scored_reason, {storage.quoted(_LEFT)})) AS gone"""


def _bought_most(workspace: Workspace, as_of: date, customer_ids: list[str]) -> pd.Series:
    """Of each customer, in order."""
    if not customer_ids or "product_affinity" not in families(workspace):
        return pd.Series([None] * len(customer_ids), dtype=object)
    part = storage.rows_of_part(storage.snapshot_part(workspace.home_path, "product_affinity", as_of))
    query = f"""SELECT customer_id, arg_max(item, (item_n_purchases, -item_days_since_last, item)) FROM {part}
        WHERE customer_id IN (SELECT unnest($ids)) GROUP BY customer_id"""
    with paging.reader(workspace.home_path).cursor() as connection:
        most = dict(connection.execute(query, {"ids": customer_ids}).fetchall())
    return pd.Series([most.get(one) for one in customer_ids], dtype=object)


def _about(terms: Terms, as_of: date) -> tuple[str, ...]:
    of_value = [sentence for sentence in terms.sentences(as_of, offers=False) if sentence.startswith("value")]
    return (*of_value, "who left is worth what comes without anything being done: few come back by themselves")


def as_text(rows: pd.DataFrame) -> str:
    """The list for a terminal, a line a customer."""
    if rows.empty:
        return "no customer to list: nobody who left, and may be listed, is what was asked for"
    lines = [f"{'customer':<14}{'last purchase':>14}{'purchases':>11}{'spent':>12}{'value':>14}  bought most often"]
    row: Any
    for row in rows.itertuples():
        worth = graded(row.lifetime_value, ",.0f", row.lifetime_value_grade, 14)
        lines.append(
            f"{row.customer_id:<14}{row.last_purchase:%Y-%m-%d}".ljust(28)
            + f"{row.purchases:>11,}{row.spend:>12,.0f}{worth}  {row.bought_most or ''}".rstrip()
        )
    return "\n".join(lines)
