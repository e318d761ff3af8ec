"""The cross-sell list: to whom an item can be offered, and how likely each of them buys it."""

from __future__ import annotations

from datetime import date
from typing import Any

import pandas as pd

from serving.consent import Consents, may_be_listed
from serving.lists import filters, paging
from serving.lists.churn_risk import Page, about, choose_band, choose_category, graded, rules, with_contacts
from serving.lists.list_query import CrossSellQuery
from serving.lists.paging import Totals, Where
from serving.scope import WHOLE, Scope
from serving.terms import Terms
from workspace import storage
from workspace.settings import Workspace

COLUMNS = (
    "customer_id", "offer", "offer_kind", "offer_probability", "offer_grade", "churn_probability", "churn_band",
    "churn_grade", "lifetime_value", "lifetime_value_grade", "value_at_risk", "value_at_risk_grade", "as_of",
    "churn_period_days", "lifetime_value_period_days", "lifetime_value_measure", "currency",
)  # fmt: skip
TIES = {
    "probability": ("offer_probability", "lifetime_value"),
    "lifetime_value": ("lifetime_value", "offer_probability"),
    "value_at_risk": ("value_at_risk", "offer_probability", "lifetime_value"),
}


@storage.read_again
def page(
    workspace: Workspace, as_of: date, asked: CrossSellQuery, terms: Terms, contacts: bool = False, scope: Scope = WHOLE
) -> Page:
    """Customers who may be contacted, an offer each, as `COLUMNS`.

    The offer is the item that is asked for, or else the customer's best of the kind that is. Nobody where offers are
    not proven, unless they are asked for all the same.

    Raises:
        NoSuchFilter: a filter that no customer can pass, or a cursor of another list.
        CheckFailed: `as_of` is not scored.
    """
    ties, where = TIES[asked.sort], _where(workspace, as_of, asked, terms, scope)
    if asked.cursor is not None:
        paging.go_on(where, asked.cursor, as_of, f"cross-sell {asked.sort}", ties)
    rows = paging.read(workspace, _rows(workspace, as_of, asked), where, ties, asked.top + 1)
    listed = rows.head(asked.top)
    following = (
        paging.cursor(as_of, f"cross-sell {asked.sort}", ties, listed.iloc[-1]) if len(rows) > asked.top else None
    )
    told = listed.assign(**terms.columns())[list(COLUMNS)]
    if contacts:
        told = with_contacts(workspace, told)
    return Page(as_of, len(told), iter([told]), following, about(terms, as_of, asked.unproven_offers))


@storage.read_again
def total(workspace: Workspace, as_of: date, asked: CrossSellQuery, terms: Terms, scope: Scope = WHOLE) -> Totals:
    """How many they are, and how many of them are expected to buy."""
    where = _where(workspace, as_of, asked, terms, scope)
    return paging.total(workspace, _rows(workspace, as_of, asked), where, "offer_probability")


@storage.read_again
def items(workspace: Workspace, as_of: date, scope: Scope = WHOLE) -> list[tuple[str, int]]:
    """What is offered to customers of a scope who may be listed, each with to how many, most first."""
    query = f"""SELECT item, count(*) FROM {_offers(workspace, as_of)}
        WHERE {scope.condition(workspace)} AND {may_be_listed(workspace)} GROUP BY item ORDER BY 2 DESC, 1"""
    with paging.reader(workspace.home_path).cursor() as connection:
        Consents(workspace.home_path).tell(connection)
        return connection.execute(query).fetchall()


def _where(workspace: Workspace, as_of: date, asked: CrossSellQuery, terms: Terms, scope: Scope) -> Where:
    where = rules(workspace, as_of, asked, terms, scope)
    if terms.leaves_offers_out(asked.unproven_offers):
        where.add("false")
    if asked.band is not None:
        choose_band(where, asked.band, terms)
    if asked.category is not None:
        choose_category(where, workspace, as_of, asked.category, scope)
    if asked.item is not None:
        there = [item for item, _ in items(workspace, as_of, scope)]
        where.values["item"] = filters.chosen("item", asked.item, there, "it is offered to nobody")
    if asked.kind is not None:
        where.values["kind"] = asked.kind
    return where


def _rows(workspace: Workspace, as_of: date, asked: CrossSellQuery) -> str:
    """An offer each; `$item` and `$kind` are among the values where they are asked for."""
    wanted = [*(["item IN (SELECT unnest($item))"] if asked.item else []), *(["kind = $kind"] if asked.kind else [])]
    offers, scores = _offers(workspace, as_of), storage.scores_path(workspace.home_path, as_of)
    best = f"""
        SELECT customer_id, arg_min(item, rank) AS item, arg_min(kind, rank) AS kind,
            arg_min(probability, rank) AS probability
        FROM {offers} WHERE {" AND ".join(wanted or ["rank = 1"])} GROUP BY customer_id"""
    return f"""(
        SELECT best.customer_id, item AS offer, kind AS offer_kind, probability AS offer_probability,
            churn_probability, churn_band, lifetime_value, value_at_risk, scores.as_of
        FROM ({best}) AS best JOIN read_parquet({storage.quoted(scores)}) AS scores USING (customer_id)) AS offered"""


def _offers(workspace: Workspace, as_of: date) -> str:
    path = storage.offers_path(workspace.home_path, as_of)
    if not path.exists():
        raise storage.CheckFailed(f"{workspace.name} has no offers of {as_of}; run `perennial score --as-of {as_of}`")
    return f"read_parquet({storage.quoted(path)})"


def as_text(rows: pd.DataFrame) -> str:
    """The list for a terminal, a line a customer."""
    if rows.empty:
        return "no customer to list: nobody who may be listed is offered what was asked for"
    lines = [f"{'customer':<14}{'chance':>12}{'value':>14}{'risk':>12}  offer"]
    row: Any
    for row in rows.itertuples():
        numbers = (
            graded(row.offer_probability, ".0%", row.offer_grade, 12),
            graded(row.lifetime_value, ",.0f", row.lifetime_value_grade, 14),
            graded(row.churn_probability, ".0%", row.churn_grade, 12),
        )
        lines.append(f"{row.customer_id:<14}{''.join(numbers)}  {row.offer} ({row.offer_kind})")
    return "\n".join(lines)
