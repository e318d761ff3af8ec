"""One customer: who they are, why they may leave, what they are worth, what to say first, what they allow."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

from starlette.responses import RedirectResponse, Response

from serving.consent import PURPOSES, Purpose
from serving.desk import words
from serving.desk.history import History, history
from serving.desk.language import Language
from serving.desk.track_record import Prediction, predictions_before
from serving.desk.visit import ADMIN, LINKS, Visit, customer_address
from serving.http import privacy_routes
from serving.http.access import Refusal, Refused
from serving.lists import churn_risk
from serving.terms import UNPROVEN
from workspace import ids
from workspace.storage import CheckFailed

if TYPE_CHECKING:
    from serving.http.answers import Answers
    from serving.http.keys import Caller

_NEAREST = 20


def _(text: str) -> str:
    """Marks a text for the catalogue."""
    return text


_ERASED = {
    "asked": _("The customer is in no answer and no list any more. What is held goes within a minute, or as soon as the"
               " command that is at work has ended."),
}  # fmt: skip


async def search(visit: Visit) -> Response:
    """By id: the customer, or those whose id begins so; for who sees contact data by name, e-mail, telephone too.

    A form sends it in its body: a name is in no address, and so in no log and no history.
    """
    form = await visit.request.form() if visit.request.method == "POST" else visit.request.query_params
    asked, there = str(form.get("id", "")).strip(), list[str]()
    if asked:
        names = visit.answers.names([ids.canonical(asked)]) if _is_id(asked) else [asked]
        inside = await visit.answers.within(visit.scope, names)
        if inside and visit.answers.known(inside):
            return RedirectResponse(customer_address(names[0]), 303)
        there = await asyncio.to_thread(_found, visit, asked)
    visit.read.filter, visit.read.rows, visit.read.customers = {"searched": bool(asked)}, len(there), there
    contacts = await asyncio.to_thread(_contacts, visit.answers, visit.session.caller, there)
    rows = [(name, customer_address(name), [*told.values()]) for name, told in zip(there, contacts, strict=True)]
    said = visit.say(_ERASED[done]) if (done := visit.request.query_params.get("erased", "")) in _ERASED else ""
    return visit.page("search.html", visit.say("Customers"), asked=asked, rows=rows, said=said,
                      by_contact=visit.sees_contacts and bool(visit.answers.workspace.pii))  # fmt: skip


def _found(visit: Visit, asked: str) -> list[str]:
    filed, spellings = visit.answers.current().filed, dict.fromkeys((asked, asked.upper(), asked.lower()))
    leaving = visit.answers.erasures.waiting()
    there = [name for spelt in spellings for name in filed.ids_beginning(spelt, _NEAREST, visit.scope)]
    there = [name for name in there if name not in leaving]
    if visit.sees_contacts and len(there) < _NEAREST:
        by_contact = churn_risk.with_contact(visit.answers.workspace, asked, _NEAREST, visit.scope)
        there += [name for name in by_contact if name not in there and name not in leaving]
    return there[:_NEAREST]


def _is_id(text: str) -> bool:
    try:
        return bool(ids.canonical(text))
    except ValueError:
        return False


async def customer(visit: Visit) -> Response:
    name = name_of(visit)
    visit.read.customers, visit.read.rows = [name], 0
    told = await customer_told(visit.answers, visit.session.caller, visit.language, name)
    visit.read.rows = 1
    spoken, card, past = visit.language, told["card"], told["past"]
    before = await asyncio.to_thread(_before, visit, name, past) if past else []
    return visit.page(
        "customer.html", name, **told, scores=card["scores"], words=words, unproven=UNPROVEN, before=before,
        chart=json.dumps(_chart(spoken, past, card["currency"])) if past else None, address=customer_address(name),
        doings=_doings(spoken, past) if past else [],
        purposes=[(purpose, card["consents"].get(purpose)) for purpose in PURPOSES],
        done=visit.request.query_params.get("done") == "1", may_erase=visit.may(ADMIN), may_link=visit.may(LINKS),
    )  # fmt: skip


async def customer_told(answers: Answers, caller: Caller, spoken: Language, name: str) -> dict[str, Any]:
    """What a caller may be told of a customer, by the names of the template: card, sentences, past, contacts.

    Raises:
        Refused: nobody of this name is known, or as `Answers.card`.
    """
    card = await answers.card(name)
    if card is None:
        raise Refused(Refusal(404, "unknown_customer", "no customer with this id was known at the published as_of"))
    past = await asyncio.to_thread(_past, answers, name, card)
    (contacts,) = await asyncio.to_thread(_contacts, answers, caller, [name])
    return {
        "card": card, "sentences": [*_who(spoken, card)], "first": [*_first(spoken, card)], "past": past,
        "contacts": contacts, "next_order": _next_order(spoken, card),
    }  # fmt: skip


def _past(answers: Answers, name: str, card: dict[str, Any]) -> History | None:
    """Nothing of who refuses profiling, or while a batch is at work on the days."""
    published = answers.current()
    if card["history"] is None:
        return None
    with suppress(CheckFailed):
        return history(published.workspace, name, published.as_of)
    return None


def _before(visit: Visit, name: str, past: History) -> list[Prediction]:
    published = visit.answers.current()
    return predictions_before(published.workspace, name, published.as_of, past.purchases)


def _next_order(spoken: Language, card: dict[str, Any]) -> list[str]:
    """When it is due by the customer's own habit, and how many are expected; nothing of who has no habit yet."""
    past, habits, scores = card["history"], card["habits"], card["scores"]
    if past is None or past["last_purchase"] is None or scores["not_scored_reason"]:
        return []
    told = []
    if habits["usual_gap_days"]:
        due = date.fromisoformat(past["last_purchase"]) + timedelta(days=round(habits["usual_gap_days"]))
        is_late = due < date.fromisoformat(card["as_of"])
        told.append(
            spoken.say("By their own habit it was due on %(day)s.", day=spoken.day(due))
            if is_late
            else spoken.say("By their own habit it is due on %(day)s.", day=spoken.day(due))
        )
    if scores["expected_purchases"] is not None:
        told.append(spoken.say("%(number)s orders are to be expected in the next %(days)s days.",
                               number=spoken.number(scores["expected_purchases"], 1),
                               days=card["lifetime_value_period_days"]))  # fmt: skip
    return told


def _contacts(answers: Answers, caller: Caller, names: Sequence[str]) -> list[dict[str, str]]:
    """The contact data of each, for who may see them."""
    workspace = answers.workspace
    if not (names and caller.sees_contacts and workspace.pii):
        return [{} for _ in names]
    told = churn_risk.contacts_of(workspace, names)
    return [{field: value for field, value in own.items() if value is not None} for own in told]


def _who(spoken: Language, card: dict[str, Any]) -> Iterator[str]:
    past, habits = card["history"], card["habits"]
    if past is None:
        yield spoken.say("This customer does not agree to being profiled, so nothing is computed about them.")
        return
    if past["first_purchase"] is None:
        yield spoken.say("Has not bought anything yet.")
        return
    yield spoken.count(
        "Customer since %(first)s: %(number)s purchase for %(spend)s, the last on %(last)s.",
        "Customer since %(first)s: %(number)s purchases for %(spend)s, the last on %(last)s.", past["purchases"],
        first=_day(spoken, past["first_purchase"]), last=_day(spoken, past["last_purchase"]),
        spend=spoken.money(past["spend"], card["currency"]),
    )  # fmt: skip
    if habits["usual_gap_days"]:
        yield spoken.say("Usually comes back after %(days)s days and spends %(spend)s a time.",
                         days=spoken.number(habits["usual_gap_days"]),
                         spend=spoken.money(habits["spend_per_purchase"] or 0, card["currency"]))  # fmt: skip
    if past["open_complaints"]:
        yield spoken.count("%(number)s complaint is open.", "%(number)s complaints are open.", past["open_complaints"])


def _first(spoken: Language, card: dict[str, Any]) -> Iterator[str]:
    """What may be said first, from what is known: settle, then ask, then offer."""
    past, offers = card["history"], card["offers"]
    if past is None or card["consents"].get("marketing") is False:
        yield (
            spoken.say("Do not contact this customer for marketing.")
            if past
            else spoken.say("Nothing can be suggested without the consent to profiling.")
        )
        return
    if past["open_complaints"]:
        yield spoken.say("Ask about the open complaint before anything else.")
    if card["scores"]["churn_band"] == "high" and past["last_purchase"]:
        yield spoken.say("Ask what they have missed since their last purchase on %(day)s.",
                         day=_day(spoken, past["last_purchase"]))  # fmt: skip
    if not offers or (grade := card["grades"]["offers"]) == UNPROVEN:
        return
    item, share = offers[0]["item"], spoken.percent(offers[0]["probability"])
    if grade in words.WEAK:
        yield spoken.say("Offer %(item)s: of all there is, it is what they most likely buy next.", item=item)
    else:
        yield spoken.say("Offer %(item)s: they buy it with a chance of %(share)s.", item=item, share=share)


def _day(spoken: Language, day: str) -> str:
    return spoken.day(date.fromisoformat(day))


def _doings(spoken: Language, past: History) -> list[tuple[date, str, float | None]]:
    """Everything as (day, what, amount), the latest first."""
    bought, returned = spoken.say("purchase"), spoken.say("return")
    rows: list[tuple[date, str, float | None]] = [
        (day, bought if is_purchase else returned, amount) for day, amount, is_purchase in past.purchases
    ]
    rows += [(day, words.in_words(spoken, words.EVENTS, kind), None) for day, kind, _ in past.events]
    return sorted(rows, key=lambda row: row[0], reverse=True)


def _chart(spoken: Language, past: History, currency: str) -> dict[str, Any]:
    """Amounts over time as bars, and below them a row of points for each kind of what else happened."""
    kinds = sorted({kind for _, kind, _ in past.events})
    days = [day for day, *_ in (*past.purchases, *past.events)]
    return {
        "currency": currency,
        "from": str(min(days)) if days else "",
        "to": str(max(days)) if days else "",
        "purchases": [[str(day), round(amount, 2)] for day, amount, _ in past.purchases],
        "events": [
            {
                "name": words.in_words(spoken, words.EVENTS, kind),
                "days": [str(day) for day, own, _ in past.events if own == kind],
            }
            for kind in kinds
        ],
    }


async def consent(visit: Visit) -> Response:
    """What the customer says now, written down by whoever talks to them; it counts at once."""
    name, form = name_of(visit), await visit.request.form()
    purpose, agreed = str(form.get("purpose")), str(form.get("agreed"))
    visit.read.customers = [name]
    if purpose not in PURPOSES or agreed not in ("yes", "no"):
        raise Refused(Refusal(400, "malformed", "choose a purpose, and whether the customer agrees to it"))
    said: dict[Purpose, bool] = {known: agreed == "yes" for known in PURPOSES if known == purpose}
    await asyncio.to_thread(privacy_routes.record, visit.answers, name, said, visit.read.at)
    visit.read.filter, visit.read.rows = {purpose: agreed}, 1
    return RedirectResponse(f"{customer_address(name)}?done=1", 303)


def name_of(visit: Visit) -> str:
    """Whom the address names.

    Raises:
        Refused: it is no id.
    """
    sent = visit.request.path_params["customer_id"]
    if not _is_id(sent):
        raise Refused(Refusal(404, "unknown_customer", "this is no customer's id"))
    return visit.answers.names([ids.canonical(sent)])[0]
