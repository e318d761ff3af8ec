"""The tools: each one question, answered by what the desk's pages are made of, in English."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from serving.assistant.tool_schemas import (
    CardAnswer,
    ChoicesAnswer,
    CustomerAsked,
    ListAnswer,
    ListAsked,
    ListedCustomer,
    Nothing,
    RightAnswer,
    TrustAnswer,
    WeekAnswer,
)
from serving.desk import customer_page, home_page, list_page, lists, trust_page, words
from serving.desk.history import History
from serving.desk.language import Language
from serving.desk.reason_words import in_language
from serving.desk.verdicts import verdicts
from serving.http.audit import Read
from serving.http.keys import Caller
from serving.lists.list_query import ListQuery
from serving.lists.saved import SavedLists, rules_of
from serving.scope import Scope

if TYPE_CHECKING:
    from serving.http.answers import Answers

_LIST = lists.LISTS["churn-risk"]
_LAST = 20  # days and events of a customer
_MONTH = ("month", "predictions", "expected_to_leave", "left", "expected_value", "value_that_came")


@dataclass(frozen=True)
class Call:
    """One call of a tool, by a caller who may. `read` becomes the line in the audit log."""

    answers: Answers
    caller: Caller
    language: Language
    read: Read

    @property
    def sees_contacts(self) -> bool:
        return self.caller.sees_contacts

    @property
    def scope(self) -> Scope:
        return self.caller.scope


async def churn_risk_list(call: Call, asked: ListAsked) -> ListAnswer:
    answers, spoken = call.answers, call.language
    query = await asyncio.to_thread(_query, SavedLists(answers.home), asked)
    call.read.filter = rules_of(query) | {"top": query.top}
    total, rows, _ = await asyncio.to_thread(list_page.looked_up, call, _LIST, query)
    call.read.rows, call.read.customers = len(rows), [row["customer_id"] for row in rows]
    published = answers.current()
    terms = published.filed_terms
    shown = published.workspace.pii if call.caller.sees_contacts else ()
    return ListAnswer(
        as_of=str(published.as_of), summary=_LIST.said(spoken, total, terms), in_all=total.customers,
        at_risk_in_all=total.amount, currency=terms.currency, customers=[_listed(spoken, row, shown) for row in rows],
        meaning=[*lists.definitions(_LIST, spoken, terms)], withheld=[*terms.withheld.values()],
    )  # fmt: skip


def _query(saved: SavedLists, asked: ListAsked) -> ListQuery:
    own = asked.model_dump(exclude={"saved"})
    return ListQuery.model_validate(own if asked.saved is None else saved.applied(asked.saved, _LIST.name, own))


def _listed(spoken: Language, row: Mapping[str, Any], contacts: tuple[str, ...] | list[str]) -> ListedCustomer:
    figures = ("customer_id", "churn_probability", "churn_band", "lifetime_value", "value_at_risk", "offer")
    return ListedCustomer(
        **{name: row[name] for name in figures}, why=lists.sentences(spoken, row["reasons"]) or _nothing(spoken),
        offer_kind=words.in_words(spoken, words.OFFER_KINDS, row["offer_kind"]) or None,
        contacts={name: row[name] for name in contacts},
    )  # fmt: skip


def _nothing(spoken: Language) -> str:
    return spoken.sentence(spoken.say("nothing stands out"))


async def list_choices(call: Call, _: Nothing) -> ChoicesAnswer:
    home, as_of = call.answers.home, call.answers.current().as_of
    there = await asyncio.to_thread(list_page.choices_of, home, as_of, call.caller.scope)
    counted = {name: [{"value": value, "customers": n} for value, n in own] for name, own in there.items()}
    categories = counted.pop("category", [])
    saved = [one.name for one in await asyncio.to_thread(SavedLists(home).all) if one.list == _LIST.name]
    return ChoicesAnswer.model_validate(
        {"as_of": str(as_of), "attributes": counted, "categories": categories, "saved": saved}
    )


async def customer_card(call: Call, asked: CustomerAsked) -> CardAnswer:
    (name,) = call.answers.names([asked.customer_id])
    call.read.rows, spoken = 0, call.language
    told = await customer_page.customer_told(call.answers, call.caller, spoken, name)
    call.read.rows, card = 1, told["card"]
    return CardAnswer.model_validate({
        **{column: value for column, value in card["scores"].items() if column in CardAnswer.model_fields},
        **{term: card[term] for term in _OF_CARD},
        "who": told["sentences"], "next_order": told["next_order"], "say_first": told["first"],
        "contacts": told["contacts"],
        "why": [spoken.sentence(in_language(spoken, one)) for one in card["reasons"]] or [_nothing(spoken)],
        "proven": {number: spoken.say(words.GRADES[grade]) for number, grade in card["grades"].items()},
        "offers": [
            offer | {"kind": words.in_words(spoken, words.OFFER_KINDS, offer["kind"])} for offer in card["offers"]
        ],
        "past": _past(spoken, told["past"]) if told["past"] else None,
        "attributes": card["profile"]["attributes"] if card["profile"] else {}, "is_of_last_batch": card["stale"],
    })  # fmt: skip


_OF_CARD = (
    "customer_id", "as_of", "churn_period_days", "lifetime_value_period_days", "currency", "withheld", "consents",
)  # fmt: skip


def _past(spoken: Language, past: History) -> dict[str, Any]:
    return {
        "purchases": [{"day": str(day), "amount": round(amount, 2)} for day, amount, _ in past.purchases[-_LAST:]],
        "events": [
            {"day": str(day), "what": words.in_words(spoken, words.EVENTS, kind), "times": count}
            for day, kind, count in past.events[-_LAST:]
        ],
        "most_spent_on": [item for item, _ in past.items],
    }


async def this_week(call: Call, _: Nothing) -> WeekAnswer:
    week = await asyncio.to_thread(home_page.this_week, call.answers, call.caller, call.language)
    total, terms, counted = week["total"], week["terms"], week["customers"] or {}
    came = week["came"].sentences if week["came"] else []
    return WeekAnswer(
        as_of=str(week["as_of"]), summary=_LIST.said(call.language, total, terms), at_risk=total.amount,
        currency=terms.currency, customers=counted.get("customers"), scored=counted.get("scored"),
        at_high_risk=counted.get("high"), changed=week["changed"], how_right=came,
        needs_a_look=[f"{look.says} {look.todo}".strip() for look in week["looks"]],
    )  # fmt: skip


async def how_right(call: Call, _: Nothing) -> RightAnswer:
    published = call.answers.current()
    currency = published.filed_terms.currency
    came = await asyncio.to_thread(verdicts, call.language, call.answers.home, currency)
    months = [dict(zip(_MONTH, row, strict=True)) for row in came.months]
    return RightAnswer.model_validate(
        {"as_of": str(published.as_of), "sentences": came.sentences, "months": months}
    )  # fmt: skip


async def model_trust(call: Call, _: Nothing) -> TrustAnswer:
    models = [
        model | {"meaning": call.language.sentence(model["meaning"])}
        for model in trust_page.models(call.answers, call.language)
    ]
    return TrustAnswer.model_validate({"as_of": str(call.answers.current().as_of), "models": models})


ANSWERS: Mapping[str, Callable[[Call, Any], Awaitable[BaseModel]]] = {
    "churn_risk_list": churn_risk_list, "list_choices": list_choices, "customer_card": customer_card,
    "this_week": this_week, "how_right": how_right, "model_trust": model_trust,
}  # fmt: skip
