"""How a customer deals with the company beside buying; one row per customer with an interaction before as_of.

What the marketer sends (`email_sent`, `campaign_contact`) is treatment: it and what answers it are counted here as
history, marked so, and never handed to a model that predicts what the customer will do.
"""

from __future__ import annotations

import ibis
import ibis.expr.types as ir

from features.families.catalogue import Feature
from features.families.known import Tables, at, is_behaviour, total
from workspace.tables import CONTACT_KINDS

_KINDS = ("visit", "search", "cart", "review", "complaint", "inquiry", "survey", "email_open", "email_click", "call",
          "coupon_redeemed")  # fmt: skip
_WORDS = {"visit": "visits", "search": "searches", "cart": "filled carts", "review": "reviews",
          "complaint": "complaints", "inquiry": "inquiries", "survey": "surveys", "email_open": "opened e-mails",
          "email_click": "clicks in e-mails", "call": "calls", "coupon_redeemed": "redeemed coupons"}  # fmt: skip
_SPANS = (30, 90, 365)
_OF_INTEREST = ("visit", "search", "cart", "email_open", "email_click", "coupon_redeemed")
# What answers a contact, over what was sent.
_RESPONSES = {
    "email_open_rate_365d": ("email_open", "email_sent"),
    "email_click_rate_365d": ("email_click", "email_sent"),
    "coupon_redemption_rate_365d": ("coupon_redeemed", "campaign_contact"),
}

TREATMENT = (
    Feature("n_emails_sent_90d", "events", "e-mails sent to the customer in the last 90 days"),
    Feature("n_emails_sent_365d", "events", "e-mails sent to the customer in the last 365 days"),
    Feature("n_campaign_contacts_90d", "events", "campaign contacts in the last 90 days"),
    Feature("n_campaign_contacts_365d", "events", "campaign contacts in the last 365 days"),
    Feature("days_since_contact", "days", "as_of minus the last e-mail or campaign contact", null="never contacted"),
    Feature("email_open_rate_365d", "ratio", "e-mails opened over e-mails sent", null="none was sent"),
    Feature("email_click_rate_365d", "ratio", "clicks in e-mails over e-mails sent", null="none was sent"),
    Feature("coupon_redemption_rate_365d", "ratio", "coupons redeemed over campaign contacts", null="no contact"),
)
FEATURES = (
    *(Feature(f"n_{kind}_{w}d", "events", f"{_WORDS[kind]} in the last {w} days",
              f"{_WORDS[kind]} in the last {w} days: {{}}",
              risk="never raises" if kind in _OF_INTEREST else "") for kind in _KINDS for w in _SPANS),
    Feature("days_since_interaction", "days", "as_of minus the customer's last own interaction",
            "last in touch {} days ago", null="none", risk="never lowers"),
    Feature("days_since_visit", "days", "as_of minus the last visit", "last visited {} days ago", null="none",
            risk="never lowers"),
    Feature("days_since_complaint", "days", "as_of minus the last complaint", "complained {} days ago", null="none"),
    Feature("days_since_cancellation", "days",
            "as_of minus the first cancellation that neither a purchase nor a sign-up has followed",
            "cancelled {} days ago", null="none, or came back since"),
    Feature("n_open_complaints", "events", "complaints not resolved before as_of", "complaints still open: {}",
            null="the shop has never recorded that a complaint was resolved"),
    Feature("days_to_resolve_365d", "days", "mean days to resolve a complaint of the last 365 days",
            "complaints took {} days to resolve", null="none was resolved"),
    Feature("satisfaction_365d", "score", "mean rating in reviews and surveys of the last 365 days",
            "average rating {}", null="no rating"),
    Feature("satisfaction_last", "score", "last rating in a review or survey", "last rating {}", null="no rating"),
    Feature("satisfaction_change", "score", "last rating minus the mean of the last 365 days", null="no rating"),
    *TREATMENT,
)  # fmt: skip


def engagement(tables: Tables, as_of: ir.DateScalar) -> ir.Table:
    """One row per customer with any interaction known before `as_of`."""
    counts = _counts(at(tables.interaction_days, as_of))
    more = _opinions(at(tables.opinions, as_of), as_of)
    rows = counts.left_join(more, "customer_id").drop("customer_id_right")
    rows = rows.left_join(_cancellations(tables, as_of), "customer_id").drop("customer_id_right")
    rows = rows.cross_join(_shop(at(tables.whole.opinions, as_of), as_of))
    return rows.mutate(
        # A shop that has resolved no complaint does not keep track of it; its complaints are not all open.
        n_open_complaints=ibis.ifelse(rows.tracks_complaints, rows.n_open_complaints.fill_null(0), ibis.null("int64")),
        satisfaction_change=rows.satisfaction_last - rows.satisfaction_365d,
    )


def _counts(days: ir.Table) -> ir.Table:
    """Per customer: how many of each kind and span, and how long ago. By kind first: it shrinks the rows tenfold."""
    by_kind = days.group_by("customer_id", "kind").agg(
        **{f"n_{w}d": total(days.n, days.age <= w) for w in _SPANS},
        last=days.age.min(),
    )
    kind = by_kind.kind
    sums = {
        f"n_{name}_{w}d": total(by_kind[f"n_{w}d"], kind == name) for name in (*_KINDS, *CONTACT_KINDS) for w in _SPANS
    }
    sums = {name.replace("email_sent", "emails_sent").replace("contact", "contacts"): n for name, n in sums.items()}
    counts = by_kind.group_by("customer_id").agg(
        **sums,
        days_since_interaction=by_kind["last"].min(where=is_behaviour(kind)),
        days_since_visit=by_kind["last"].min(where=kind == "visit"),
        days_since_complaint=by_kind["last"].min(where=kind == "complaint"),
        days_since_contact=by_kind["last"].min(where=kind.isin(CONTACT_KINDS)),
    )
    sent = {"email_sent": counts.n_emails_sent_365d, "campaign_contact": counts.n_campaign_contacts_365d}
    return counts.mutate(
        **{rate: counts[f"n_{done}_365d"] / sent[to].nullif(0) for rate, (done, to) in _RESPONSES.items()}
    )


def _cancellations(tables: Tables, as_of: ir.DateScalar) -> ir.Table:
    """Per customer whom a cancellation holds for: how long ago it was, by the first since they came back last.

    What came at the very time of a cancellation, such as a final bill where times are days, did not come after it.
    """
    events, customers = at(tables.opinions, as_of), tables.customers
    cancelled = events.filter(events.kind == "cancellation").select("customer_id", "age", "occurred_at")
    days = at(tables.customer_days, as_of).semi_join(cancelled, "customer_id")
    bought = days.group_by("customer_id").agg(bought_at=days.last_at.max())
    signed_up = customers.filter(customers.signed_up_day < as_of).select("customer_id", "signed_up_at")
    for later in (bought, signed_up):
        cancelled = cancelled.left_join(later, "customer_id").drop("customer_id_right")
    back = (cancelled.bought_at > cancelled.occurred_at) | (cancelled.signed_up_at > cancelled.occurred_at)
    holds = cancelled.filter(~back.fill_null(False))
    return holds.group_by("customer_id").agg(days_since_cancellation=holds.age.max())


def _shop(opinions: ir.Table, as_of: ir.DateScalar) -> ir.Table:
    """One row: whether the shop has ever recorded that a complaint was resolved."""
    return opinions.agg(tracks_complaints=_resolved(opinions, as_of).any())


def _resolved(opinions: ir.Table, as_of: ir.DateScalar) -> ir.BooleanValue:
    return ((opinions.kind == "complaint") & (opinions.resolved_day < as_of)).fill_null(False)


def _opinions(events: ir.Table, as_of: ir.DateScalar) -> ir.Table:
    """Per customer who complained or rated: what became of it and how content they are."""
    complaint, resolved = events.kind == "complaint", _resolved(events, as_of)
    rating = ibis.ifelse(events.kind.isin(("review", "survey")), events.value, ibis.null("float64"))
    # Of several at one time the one with the largest id is the last.
    order = ibis.struct({"at": events.occurred_at, "id": events.interaction_id})
    return events.group_by("customer_id").agg(
        n_open_complaints=events.count(where=complaint & ~resolved),
        days_to_resolve_365d=events.resolved_day.delta(events.day, unit="day").mean(
            where=resolved & (events.age <= 365)
        ),
        satisfaction_365d=rating.mean(where=events.age <= 365),
        satisfaction_last=rating.argmax(order, where=rating.notnull()),
    )
