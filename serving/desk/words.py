"""The desk's words for what the answers name by codes."""

from __future__ import annotations

from collections.abc import Mapping

from serving.desk.language import Language


def _(text: str) -> str:
    """Marks a text for the catalogue."""
    return text


GRADES: Mapping[str, str] = {
    "A": _("proven: at every earlier date it was tried at, order and level were right"),
    "B": _("mostly proven: at earlier dates order and level were mostly right"),
    "C": _("weak: at earlier dates hardly better than a simple rule, or the level was far off. Use the order, not the"
           " amounts"),
    "none": _("not proven: at earlier dates no better than a simple rule, or nobody could tell"),
}  # fmt: skip
WEAK = ("C", "none")
BANDS = {"high": _("high"), "medium": _("medium"), "low": _("low")}
SORTS = {
    "value_at_risk": _("Money at risk"),
    "churn_probability": _("Risk of leaving"),
    "lifetime_value": _("Value"),
}
OFFER_KINDS = {"repeat": _("bought before"), "new": _("new to them")}
KINDS = {
    "churn": _("Who leaves"),
    "lifetime_value": _("What customers are worth"),
    "cross_sell": _("What they buy next"),
}
EVENTS = {
    "visit": _("visit"), "search": _("search"), "cart": _("basket filled"), "review": _("review"),
    "complaint": _("complaint"), "inquiry": _("inquiry"), "survey": _("survey"), "email_sent": _("e-mail sent"),
    "email_open": _("e-mail opened"), "email_click": _("e-mail clicked"), "call": _("call"),
    "coupon_redeemed": _("coupon redeemed"), "cancellation": _("cancellation"),
    "campaign_contact": _("contacted in a campaign"), "campaign_control": _("left out of a campaign"),
}  # fmt: skip
TABLES = {
    "transactions": _("Purchases"), "interactions": _("Visits, contacts and the like"), "customers": _("Customers"),
    "products": _("Products"), "campaigns": _("Campaigns"),
}  # fmt: skip
# What a run decides about a version.
OUTCOMES = {
    "promoted": _("the run promoted it"), "refused": _("the gate refused it"),
    "waits for a person": _("somebody has to decide: runs promote nothing by themselves here"),
    "is the champion already": _("it answers already"),
    "answers about days before the champion's": _("it answers about days before the champion learnt"),
}  # fmt: skip
REPORTS = {
    "run": _("What the run did"), "backtest": _("How right it would have been"), "outcomes": _("What came of it"),
    "drift": _("What has moved"), "check": _("The data"),
}  # fmt: skip
# As the look at outcomes calls them.
SEGMENTS = {
    "customer for under 90 days": _("customers for less than 90 days"), "one purchase day": _("bought once"),
    "came back": _("came back"), "unknown": _("unknown"),
}  # fmt: skip
MEASURES = {"revenue": _("revenue"), "margin": _("margin")}


def in_words(spoken: Language, words: Mapping[str, str], code: str | None) -> str:
    return "" if code is None else spoken.say(words.get(code, code))


def attribute_name(name: str) -> str:
    """As the shop calls it: `acquisition_channel` is "Acquisition channel"."""
    text = name.replace("_", " ")
    return f"{text[:1].upper()}{text[1:]}"
