"""How a customer deals with the company beside buying; grain (customer_id, as_of).

What the marketer sends (`email_sent`, `campaign_contact`) is treatment: counted here as history, marked so, and never
handed to a model that predicts what the customer will do.
"""

from __future__ import annotations

import ibis
import ibis.expr.types as ir

from features.catalogue import Feature
from features.known import Tables, at, is_behaviour
from perennial.tables import CONTACT_KINDS

_KINDS = ("visit", "search", "cart", "review", "complaint", "inquiry", "survey", "email_open", "email_click", "call",
          "coupon_redeemed")  # fmt: skip
_WORDS = {"visit": "visits", "search": "searches", "cart": "filled carts", "review": "reviews",
          "complaint": "complaints", "inquiry": "inquiries", "survey": "surveys", "email_open": "opened e-mails",
          "email_click": "clicks in e-mails", "call": "calls", "coupon_redeemed": "redeemed coupons"}  # fmt: skip
_SPANS = (30, 90, 365)
_SATISFACTION = ("review", "survey")

TREATMENT = (
    Feature("n_emails_sent_90d", "events", "e-mails sent to the customer in the last 90 days"),
    Feature("n_campaign_contacts_365d", "events", "campaign contacts in the last 365 days"),
    Feature("days_since_contact", "days", "as_of minus the last e-mail or campaign contact"),
)
FEATURES = (
    *(Feature(f"n_{kind}_{w}d", "events", f"{_WORDS[kind]} in the last {w} days",
              f"{_WORDS[kind]} in the last {w} days: {{}}") for kind in _KINDS for w in _SPANS),
    Feature("days_since_interaction", "days", "as_of minus the customer's last own interaction",
            "last in touch {} days ago"),
    Feature("days_since_visit", "days", "as_of minus the last visit", "last visited {} days ago"),
    Feature("days_since_complaint", "days", "as_of minus the last complaint", "complained {} days ago"),
    Feature("days_since_cancellation", "days", "as_of minus the first cancellation", "cancelled {} days ago"),
    Feature("n_open_complaints", "events", "complaints not resolved before as_of, if the shop ever resolved one",
            "complaints still open: {}"),
    Feature("days_to_resolve_365d", "days", "mean days to resolve a complaint of the last 365 days",
            "complaints took {} days to resolve"),
    Feature("satisfaction_365d", "score", "mean rating in reviews and surveys of the last 365 days",
            "average rating {}"),
    Feature("satisfaction_last", "score", "last rating in a review or survey", "last rating {}"),
    Feature("satisfaction_change", "score", "last rating minus the mean of the last 365 days"),
    *TREATMENT,
)  # fmt: skip


def engagement(tables: Tables, cutoffs: ir.Table) -> ir.Table:
    """One row per (customer_id, as_of) with any interaction known before it."""
    events = at(tables.interactions, cutoffs)
    events = events.mutate(
        behaviour=is_behaviour(events),
        rating=ibis.ifelse(events.kind.isin(_SATISFACTION), events.value, ibis.null("float64")),
        resolved=((events.kind == "complaint") & (events.resolved_day < events.as_of)).fill_null(False),
        days_to_resolve=events.resolved_day.delta(events.day, unit="day"),
    )
    sums = events.group_by("customer_id", "as_of").agg(**_sums(events))
    # A shop that has resolved no complaint does not keep track of it; its complaints are not all open.
    resolving = events.filter(events.resolved).select("as_of").distinct().mutate(keeps_track=True)
    sums = sums.left_join(resolving, "as_of").drop("as_of_right")
    return sums.mutate(
        n_open_complaints=ibis.ifelse(sums.keeps_track, sums.n_open_complaints, ibis.null("int64")),
        satisfaction_change=sums.satisfaction_last - sums.satisfaction_365d,
    )


def _sums(events: ir.Table) -> dict[str, ir.Value]:
    kind, age = events.kind, events.age
    sums: dict[str, ir.Value] = {
        f"n_{name}_{w}d": ((kind == name) & (age <= w)).sum() for name in _KINDS for w in _SPANS
    }
    complaint = kind == "complaint"
    return sums | {
        "days_since_interaction": age.min(where=events.behaviour),
        "days_since_visit": age.min(where=kind == "visit"),
        "days_since_complaint": age.min(where=complaint),
        "days_since_cancellation": age.max(where=kind == "cancellation"),
        "n_open_complaints": (complaint & ~events.resolved).sum(),
        "days_to_resolve_365d": events.days_to_resolve.mean(where=events.resolved & (age <= 365)),
        "satisfaction_365d": events.rating.mean(where=age <= 365),
        "satisfaction_last": _last_rating(events),
        "n_emails_sent_90d": ((kind == "email_sent") & (age <= 90)).sum(),
        "n_campaign_contacts_365d": ((kind == "campaign_contact") & (age <= 365)).sum(),
        "days_since_contact": age.min(where=kind.isin(CONTACT_KINDS)),
    }


def _last_rating(events: ir.Table) -> ir.Value:
    """The rating of the last rated event; of several at one time the one with the largest id."""
    order = ibis.struct({"at": events.occurred_at, "id": events.interaction_id})
    return events.rating.argmax(order, where=events.rating.notnull())
