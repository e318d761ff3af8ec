"""Who a customer is: tenure, attributes and consents; one row per customer known at as_of.

Known is who has a purchase (or a return of one made earlier) or a sign-up before as_of.
"""

from __future__ import annotations

from dataclasses import replace

import ibis
import ibis.expr.types as ir

from features.families.catalogue import Feature
from features.families.known import Tables, at

CONSENTS = (
    Feature("profiling_consent", "code", "1 given, 0 refused or not recorded", null="the shop keeps no consents"),
)
CONTRACT = (
    Feature(
        "days_since_contract_end",
        "days",
        "as_of minus the end of the contract, where neither a purchase nor a sign-up has followed on a later day",
        null="no contract, one that has not ended, or came back since",
    ),
    Feature(
        "days_until_contract_end", "days", "end of the contract minus as_of", null="no contract, or one that has ended"
    ),
)
FEATURES = (
    Feature("tenure_days", "days", "as_of minus sign-up, or first transaction where that is earlier or all there is",
            risk="restless"),
    Feature("days_to_first_transaction", "days", "first transaction minus sign-up, zero if it came first",
            null="no transaction, or no sign-up recorded"),
    *CONSENTS,
    *CONTRACT,
)  # fmt: skip


def attribute_feature(attribute: str) -> Feature:
    return Feature(
        f"attribute_{attribute}", "code", f"`{attribute}` of the customer", f"{attribute.replace('_', ' ')} {{}}",
        null="not recorded, a value without a code, or signed up only after as_of",
    )  # fmt: skip


def profile(
    tables: Tables, as_of: ir.DateScalar, codes: dict[str, dict[str, int]], attributes: tuple[str, ...], consents: bool
) -> ir.Table:
    """One row per customer known at `as_of`.

    A text attribute becomes its code in `codes` (null for a value without one); a number stays as it is. Who signs up
    only after as_of had no attributes before; consents are those of today, for the past as well.
    """
    bought = at(tables.customer_days, as_of)
    first = bought.group_by("customer_id").agg(
        first_age=bought.age.max(), bought_day=bought.day.max(where=bought.n_lines > 0)
    )
    customers = tables.customers
    signed_up = customers.filter(customers.signed_up_day < as_of).select("customer_id")
    known = first.select("customer_id").union(signed_up, distinct=True)
    for more in (first, customers):
        known = known.left_join(more, "customer_id").drop("customer_id_right")
    since_sign_up = ibis.ifelse(known.signed_up_day < as_of, as_of.delta(known.signed_up_day, unit="day"), ibis.null())
    waited = since_sign_up - known.first_age
    granted = known.profiling_consent.fill_null(False).cast("float64") if consents else ibis.null("float64")
    ends, runs = known.contract_ends_day, known.contract_ends_day >= as_of
    back = ((known.bought_day > ends) | ((known.signed_up_day > ends) & (known.signed_up_day < as_of))).fill_null(False)
    described = known.signed_up_day.isnull() | (known.signed_up_day < as_of)
    return known.select(
        "customer_id",
        tenure_days=ibis.greatest(since_sign_up.fill_null(known.first_age), known.first_age.fill_null(since_sign_up)),
        days_to_first_transaction=ibis.ifelse(waited < 0, 0, waited),
        profiling_consent=granted,
        days_since_contract_end=ibis.ifelse(~runs & ~back, as_of.delta(ends, unit="day"), ibis.null()),
        days_until_contract_end=ibis.ifelse(runs, ends.delta(as_of, unit="day"), ibis.null()),
        **{
            f"attribute_{name}": ibis.ifelse(described, _coded(known[name], codes.get(name)), ibis.null("float64"))
            for name in attributes
        },
    )


def willing(rows: ir.Table, customers: ir.Table, consents: bool) -> ir.Table:
    """The rows of who does not refuse profiling; where the shop keeps such consents, who has given none refuses."""
    return rows.semi_join(customers.filter(customers.profiling_consent), "customer_id") if consents else rows


def with_shop(tables: Tables, consents: bool) -> Tables:
    """With the rows that a feature says something of the shop as a whole by: what refusers do is in nobody's features
    but their own."""
    if not consents:
        return tables
    days, opinions = (willing(rows, tables.customers, consents) for rows in (tables.customer_days, tables.opinions))
    return replace(tables, shop=replace(tables, customer_days=days, opinions=opinions))


def _coded(column: ir.Column, codes: dict[str, int] | None) -> ir.Value:
    if codes is None:
        return column
    if not codes:
        return ibis.null("float64")
    return ibis.cases(*((column == value, code) for value, code in codes.items()), else_=ibis.null("int64"))
