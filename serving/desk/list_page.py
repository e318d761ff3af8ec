"""The churn-risk list: filters as rules, how many they leave and what is at risk, a page of it, all of it as a file."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from datetime import date
from functools import lru_cache, partial
from itertools import chain
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import ValidationError
from starlette.datastructures import QueryParams
from starlette.responses import RedirectResponse, Response, StreamingResponse

from serving.consent import Consents
from serving.desk import words
from serving.desk.language import Language
from serving.desk.reason_words import in_language
from serving.desk.visit import Visit, customer_address, with_query
from serving.http.access import Refusal, Refused
from serving.lists import totals
from serving.lists.churn_risk import Page
from serving.lists.files import encoded
from serving.lists.filters import NoSuchFilter
from serving.lists.list_query import ListQuery
from serving.lists.saved import LONGEST, SavedLists, rules_of
from serving.lists.totals import Choices, Totals
from serving.scope import Scope
from serving.terms import Terms
from workspace import settings, storage

PATH = "/desk/lists/churn-risk"
_ROWS = 50
_AT_ONCE = 100_000  # rows read for a file
_MOST_ROWS = 1_048_575  # of a spreadsheet, without its head
_XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"


def _(text: str) -> str:
    """Marks a text for the catalogue."""
    return text


_HEADINGS = {
    "customer_id": _("Customer"), "churn_probability": _("Risk of leaving"),
    "churn_percentile": _("Risk above this share of customers"), "churn_band": _("Risk band"),
    "churn_grade": _("How proven the risk is"), "lifetime_value": _("Value"),
    "lifetime_value_low": _("Value, low end"), "lifetime_value_high": _("Value, high end"),
    "lifetime_value_grade": _("How proven the value is"), "value_at_risk": _("Money at risk"),
    "value_at_risk_grade": _("How proven the money at risk is"), "reasons": _("Why"),
    "value_reasons": _("Why this value"), "offer": _("Offer"), "offer_kind": _("Kind of offer"),
    "offer_probability": _("Chance that they buy it"), "offer_grade": _("How proven the offer is"),
    "as_of": _("As of"), "churn_period_days": _("Days that the risk is of"),
    "lifetime_value_period_days": _("Days that the value is of"), "lifetime_value_measure": _("Value is"),
    "currency": _("Currency"), "withheld": _("What is not shown, and why"),
}  # fmt: skip
_NUMBERS = ("min_value", "max_value")


async def churn_risk(visit: Visit) -> Response:
    asked, problem = _asked(visit)
    answers = visit.answers
    published = answers.current()
    workspace, as_of, terms = published.workspace, published.as_of, published.filed_terms
    there = await asyncio.to_thread(_there, visit.answers.home, as_of, visit.scope)
    try:
        total, rows, cursor = await asyncio.to_thread(_looked_up, visit, asked, terms)
    except NoSuchFilter as no_such:
        total, rows, cursor, problem = Totals(0, None), [], None, str(no_such)
    query = rules_of(asked)
    visit.read.filter, visit.read.rows = query, len(rows)
    visit.read.customers = [row["customer_id"] for row in rows]
    return visit.page(
        "list.html", visit.say("Churn risk"), asked=asked, problem=problem, terms=terms, as_of=as_of,
        total=total, said=_said(visit.language, total, terms), rows=rows, rules=_rules(visit.language, asked, there),
        sorts=[(code, visit.say(name)) for code, name in words.SORTS.items()],
        bands=[(code, visit.say(name)) for code, name in words.BANDS.items()],
        contacts=workspace.pii if visit.sees_contacts else [], words=words, customer_address=customer_address,
        definitions=list(definitions(visit.language, terms)), spreadsheet=with_query(f"{PATH}.xlsx", query), path=PATH,
        next_page=with_query(PATH, query | {"cursor": cursor}) if cursor else None,
        saved=[(one.name, with_query(PATH, one.rules), one.rules == query) for one in _saved(visit).all()],
        longest_name=LONGEST, rules_text=with_query(PATH, query).removeprefix(PATH).removeprefix("?"),
        first_page=with_query(PATH, query) if asked.cursor else None,
    )  # fmt: skip


def _looked_up(visit: Visit, asked: ListQuery, terms: Terms) -> tuple[Totals, list[dict[str, Any]], str | None]:
    """What the list comes to, a page of it, and where the next one begins."""
    published = visit.answers.current()
    total = totals.totals(published.workspace, published.as_of, asked, terms, visit.scope)
    page = visit.answers.churn_risk(asked, visit.sees_contacts, visit.scope)
    rows = pd.concat(list(page.blocks), ignore_index=True).astype(object)
    records: list[dict[str, Any]] = rows.replace(float("nan"), None).to_dict("records")  # type: ignore[assignment]
    return total, records, page.cursor


def _there(home: Path, as_of: date, scope: Scope) -> Choices:
    path, said = storage.risk_path(home, as_of, "value_at_risk"), Consents(home).path
    files = (path, said, storage.manifest_path(home, "customers"))
    return _counted(home, as_of, scope, tuple(storage.edition(file) for file in files if file.exists()))


@lru_cache(maxsize=64)
def _counted(home: Path, as_of: date, scope: Scope, _: tuple[tuple[int, ...], ...]) -> Choices:
    """Again when another list or table of customers is there, or somebody said something of a consent."""
    return totals.choices(settings.of_home(home), as_of, scope)


def _saved(visit: Visit) -> SavedLists:
    return SavedLists(visit.answers.home)


async def save(visit: Visit) -> Response:
    """The rules of the address that the form was sent from, under a name."""
    form = await visit.request.form()
    asked, problem = _asked_of(QueryParams(str(form.get("rules", ""))))
    if problem:
        raise Refused(Refusal(400, "malformed", problem))
    try:
        saved = _saved(visit).put(str(form.get("name", "")), asked, visit.session.caller.key, visit.read.at)
    except NoSuchFilter as no_name:
        raise Refused(Refusal(400, "malformed", str(no_name))) from no_name
    visit.read.filter = {"name": saved.name, **saved.rules}
    return RedirectResponse(with_query(PATH, saved.rules), 303)


async def remove(visit: Visit) -> Response:
    form = await visit.request.form()
    name = str(form.get("name", ""))
    _saved(visit).remove(name)
    visit.read.filter = {"name": name}
    return RedirectResponse(PATH, 303)


async def spreadsheet(visit: Visit) -> Response:
    """All of the list on the screen, with headings and definitions in the reader's language."""
    asked, problem = _asked(visit)
    if problem:
        raise Refused(Refusal(400, "malformed", problem))
    published, spoken = visit.answers.current(), visit.language
    terms, whole = published.filed_terms, asked.model_copy(update={"top": _AT_ONCE, "cursor": None})
    first_page = await asyncio.to_thread(visit.answers.churn_risk, whole, visit.sees_contacts, visit.scope)
    total = await asyncio.to_thread(
        totals.totals, published.workspace, first_page.as_of, whole, terms, visit.scope
    )  # fmt: skip
    if total.customers > _MOST_ROWS:
        message = f"a spreadsheet holds {_MOST_ROWS:,} rows, and this list has {total.customers:,}: add a rule"
        raise Refused(Refusal(413, "too_many_rows", message))
    visit.read.filter, visit.read.rows = rules_of(asked) | {"format": "xlsx"}, total.customers
    blocks = (_worded(block, spoken) for block in _blocks(visit, whole, first_page))
    headings = {name: visit.say(text) for name, text in _HEADINGS.items()}
    pieces = encoded(blocks, "xlsx", [_said(spoken, total, terms), *definitions(spoken, terms)], headings)
    first = await asyncio.to_thread(next, pieces)
    headers = {"Content-Disposition": f'attachment; filename="churn-risk-{first_page.as_of}.xlsx"'}
    return StreamingResponse(chain([first], pieces), headers=headers, media_type=_XLSX)


def _blocks(visit: Visit, asked: ListQuery, page: Page) -> Iterator[pd.DataFrame]:
    """Of all pages from this one on."""
    yield from page.blocks
    while page.cursor is not None:
        following = asked.model_copy(update={"cursor": page.cursor})
        page = visit.answers.churn_risk(following, visit.sees_contacts, visit.scope)
        yield from page.blocks


def _worded(block: pd.DataFrame, spoken: Language) -> pd.DataFrame:
    """With words where the list has codes."""
    known = {"churn_band": words.BANDS, "offer_kind": words.OFFER_KINDS, "lifetime_value_measure": words.MEASURES}
    said = {name: {code: spoken.say(text) for code, text in of.items()} for name, of in known.items()}
    told = {name: block[name].map(partial(_sentences, spoken)) for name in ("reasons", "value_reasons")}
    return block.assign(**told, **{name: block[name].map(words_of) for name, words_of in said.items()})


def _sentences(spoken: Language, reasons: str) -> str:
    return " ".join(spoken.sentence(in_language(spoken, one)) for one in reasons.split(". ") if one)


def definitions(spoken: Language, terms: Terms) -> Iterator[str]:
    """What the columns mean, a sentence each."""
    grades, say = terms.grades, spoken.say
    yield (
        say("Risk of leaving: the chance of no purchase within %(days)s days.", days=terms.churn_days)
        if (terms.leaving.startswith("the chance of no purchase within"))
        else say("Risk of leaving: %(what)s.", what=terms.leaving)
    )
    yield say("Value: the %(measure)s to be expected in the next %(days)s days, in %(currency)s.",
              measure=words.in_words(spoken, words.MEASURES, terms.measure), days=terms.value_days,
              currency=terms.currency)  # fmt: skip
    yield say("Money at risk: risk times value. So a loyal customer who is worth much can stand above one who is likely"
              " to leave and worth little.")  # fmt: skip
    for name, kind in ((_("Risk of leaving"), "churn"), (_("Value"), "lifetime_value"), (_("Offer"), "offers")):
        yield f"{say(name)}: {say(words.GRADES[grades[kind]])}."


def _said(spoken: Language, total: Totals, terms: Terms) -> str:
    customers = spoken.count("%(number)s customer", "%(number)s customers", total.customers)
    if total.at_risk is None:
        return customers
    return spoken.say("%(customers)s with %(money)s at risk", customers=customers,
                      money=spoken.money(total.at_risk, terms.currency))  # fmt: skip


def _asked(visit: Visit) -> tuple[ListQuery, str]:
    """What the address asks for, and what of it cannot be: then the whole list is asked for instead."""
    return _asked_of(visit.request.query_params)


def _asked_of(sent: QueryParams) -> tuple[ListQuery, str]:
    asked: dict[str, Any] = {name: value for name, value in sent.items() if value and name in ListQuery.model_fields}
    asked["attribute"] = [value for value in sent.getlist("attribute") if value]
    try:
        return ListQuery.model_validate(asked | {"top": _ROWS, "format": "json"}), ""
    except ValidationError as problem:
        first = problem.errors()[0]
        return ListQuery.model_validate(
            {"top": _ROWS}
        ), f"{first['loc'][0]}: {first['msg'].removeprefix('Value error, ')}"


def _rules(spoken: Language, asked: ListQuery, there: Choices) -> list[Mapping[str, Any]]:
    """By what can be filtered: each value with how many have it, the chosen one marked."""
    chosen = dict(rule.split(":", 1) for rule in asked.attribute if ":" in rule)
    rules: list[Mapping[str, Any]] = []
    for name, values in there.items():
        is_category = name == "category"
        mine = asked.category if is_category else chosen.get(name)
        options = [
            (value if is_category else f"{name}:{value}", f"{value} ({spoken.number(count)})", _same(value, mine))
            for value, count in values
        ]
        title = spoken.say("Bought in the last year") if is_category else words.attribute_name(name)
        rules.append({"name": "category" if is_category else "attribute", "title": title, "options": options})
    return rules


def _same(value: str, chosen: str | None) -> bool:
    return chosen is not None and value.casefold() == chosen.casefold()
