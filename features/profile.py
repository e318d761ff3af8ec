"""Who a customer is: tenure, attributes and consents; grain (customer_id, as_of).

Its rows are the customers known at as_of: a purchase (or a return of one made earlier) or a sign-up before it.
"""

from __future__ import annotations

import ibis
import ibis.expr.types as ir

from features.catalogue import Feature
from features.known import Tables, at

CONSENTS = (
    Feature("profiling_consent", "code", "1 given, 0 refused or not recorded, null where the shop keeps no consents"),
)
FEATURES = (
    Feature("tenure_days", "days", "as_of minus sign-up, or first transaction where that is earlier or all there is"),
    *CONSENTS,
)


def attribute_feature(attribute: str) -> Feature:
    return Feature(
        f"attribute_{attribute}", "code", f"`{attribute}` of the customer", f"{attribute.replace('_', ' ')} {{}}"
    )


def profile(
    tables: Tables, cutoffs: ir.Table, codes: dict[str, dict[str, int]], attributes: tuple[str, ...], consents: bool
) -> ir.Table:
    """One row per customer known at as_of.

    A text attribute becomes its code in `codes` (null for a value without one); a number stays as it is. Who signs up
    only after as_of had no attributes before; consents are those of today, for the past as well.
    """
    bought = at(tables.customer_days, cutoffs)
    first = bought.group_by("customer_id", "as_of").agg(first_age=bought.age.max())
    customers = tables.customers
    signed_up = customers.join(cutoffs, customers.signed_up_day < cutoffs.as_of).select("customer_id", "as_of")
    known = first.select("customer_id", "as_of").union(signed_up, distinct=True)
    known = known.left_join(first, ["customer_id", "as_of"]).drop("customer_id_right", "as_of_right")
    known = known.left_join(customers, "customer_id").drop("customer_id_right")
    since_sign_up = known.as_of.delta(known.signed_up_day, unit="day")
    granted = known.profiling_consent.fill_null(False).cast("float64") if consents else ibis.null("float64")
    described = known.signed_up_day.isnull() | (known.signed_up_day < known.as_of)
    return known.select(
        "customer_id",
        "as_of",
        tenure_days=ibis.greatest(since_sign_up.fill_null(known.first_age), known.first_age.fill_null(since_sign_up)),
        profiling_consent=granted,
        **{
            f"attribute_{name}": ibis.ifelse(described, _coded(known[name], codes.get(name)), ibis.null("float64"))
            for name in attributes
        },
    )


def _coded(column: ir.Column, codes: dict[str, int] | None) -> ir.Value:
    if codes is None:
        return column
    if not codes:
        return ibis.null("float64")
    return ibis.cases(*((column == value, code) for value, code in codes.items()), else_=ibis.null("int64"))
