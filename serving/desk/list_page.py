"""The page of a list: filters as rules, how many they leave and what that is worth, a page, all of it as a file."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import date
from functools import lru_cache
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
from serving.desk.lists import HEADINGS, LISTS, Asking, DeskList, definitions
from serving.desk.visit import Visit, customer_address, with_query
from serving.http.access import Refusal, Refused
from serving.lists import totals
from serving.lists.files import encoded
from serving.lists.filters import NoSuchFilter
from serving.lists.list_query import Rules
from serving.lists.paging import Totals
from serving.lists.saved import LONGEST, SavedLists, rules_of
from serving.lists.totals import Choices
from serving.scope import Scope
from workspace import settings, storage

_ROWS = 50
_AT_ONCE = 100_000  # rows read for a file
_MOST_ROWS = 1_048_575  # of a spreadsheet, without its head
_XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"


async def shown(of: DeskList, visit: Visit) -> Response:
    """A page of a list, by the rules in the address."""
    asked, problem = _asked_of(of, visit.request.query_params)
    published = visit.answers.current()
    terms, as_of = published.filed_terms, published.as_of
    there = await asyncio.to_thread(choices_of, visit.answers.home, as_of, visit.scope)
    try:
        total, rows, cursor = await asyncio.to_thread(looked_up, visit, of, asked)
    except NoSuchFilter as no_such:
        total, rows, cursor, problem = Totals(0, None), [], None, str(no_such)
    except Refused:
        if asked.cursor is None:
            raise
        return RedirectResponse(with_query(of.path, rules_of(asked)), 303)  # of a batch that another one has followed
    own = await asyncio.to_thread(lambda: [*of.selections(visit, asked)])
    query = rules_of(asked)
    visit.read.filter, visit.read.rows = _noted(asked), len(rows)
    visit.read.customers = [row["customer_id"] for row in rows]
    return visit.page(
        f"{of.name.replace('-', '_')}.html", visit.say(of.title), asked=asked, problem=problem, terms=terms,
        lead=visit.say(of.lead, day=visit.language.day(as_of)), said=of.said(visit.language, total, terms), rows=rows,
        rules=_rules(visit.language, of, asked, there), selections=own, list=of.name, path=of.path, words=words,
        sorts=[(code, visit.say(name)) for code, name in of.sorts.items()],
        contacts=published.workspace.pii if visit.sees_contacts else [], customer_address=customer_address,
        definitions=list(definitions(of, visit.language, terms)), spreadsheet=with_query(f"{of.path}.xlsx", query),
        next_page=with_query(of.path, query | {"cursor": cursor}) if cursor else None,
        first_page=with_query(of.path, query) if asked.cursor else None, longest_name=LONGEST,
        saved=[(one.name, _address(one.list, one.rules), (one.list, one.rules) == (of.name, query))
               for one in SavedLists(visit.answers.home).all()],
        rules_text=with_query("", query).removeprefix("?"),
    )  # fmt: skip


def _noted(asked: Rules) -> dict[str, Any]:
    """Rules for the audit log, which holds nobody's id."""
    return rules_of(asked.model_copy(update={"search": None})) | ({"searched": True} if asked.search else {})


def _address(name: str, rules: Mapping[str, Any]) -> str:
    return with_query(LISTS[name].path, rules)


def looked_up(asking: Asking, of: DeskList, asked: Rules) -> tuple[Totals, list[dict[str, Any]], str | None]:
    """What a list comes to, a page of it, and where the next one begins.

    Raises:
        Refused, NoSuchFilter: a filter that no customer can pass.
    """
    total = of.total(asking, asked)
    page = of.page(asking, asked)
    rows = pd.concat([*page.blocks], ignore_index=True)
    known = rows.astype(object).where(rows.notna(), None)  # type: ignore[call-overload]
    records: list[dict[str, Any]] = known.to_dict("records")
    return total, records, page.cursor


def choices_of(home: Path, as_of: date, scope: Scope) -> Choices:
    """By what the list can be filtered, within a scope."""
    files = storage.risk_path(home, as_of, "value_at_risk"), storage.manifest_path(home, "customers")
    editions = tuple(storage.edition(file) for file in files if file.exists())
    return _counted(home, as_of, scope, (*editions, Consents(home).state()))


@lru_cache(maxsize=64)
def _counted(home: Path, as_of: date, scope: Scope, _: tuple[object, ...]) -> Choices:
    """Again when another list or table of customers is there, or somebody said something of a consent."""
    return totals.choices(settings.of_home(home), as_of, scope)


async def save(of: DeskList, visit: Visit) -> Response:
    """The rules of the address that the form was sent from, under a name."""
    form = await visit.request.form()
    asked, problem = _asked_of(of, QueryParams(str(form.get("rules", ""))))
    if problem:
        raise Refused(Refusal(400, "malformed", problem))
    try:
        saved = SavedLists(visit.answers.home).put(
            str(form.get("name", "")), of.name, asked, visit.session.caller.key, visit.read.at
        )
    except NoSuchFilter as no_name:
        raise Refused(Refusal(400, "malformed", str(no_name))) from no_name
    visit.read.filter = {"name": saved.name, **saved.rules}
    return RedirectResponse(_address(saved.list, saved.rules), 303)


async def remove(of: DeskList, visit: Visit) -> Response:
    form = await visit.request.form()
    name = str(form.get("name", ""))
    SavedLists(visit.answers.home).remove(name)
    visit.read.filter = {"name": name}
    return RedirectResponse(of.path, 303)


async def spreadsheet(of: DeskList, visit: Visit) -> Response:
    """All of the list on the screen, with headings and definitions in the reader's language."""
    spoken = visit.language
    asked, problem = _asked_of(of, visit.request.query_params)
    if problem:
        raise Refused(Refusal(400, "malformed", problem))
    published = visit.answers.current()
    whole, terms = asked.model_copy(update={"top": _AT_ONCE, "cursor": None}), published.filed_terms
    try:
        total = await asyncio.to_thread(of.total, visit, whole)
    except NoSuchFilter as no_such:
        raise Refused(Refusal(400, "malformed", str(no_such))) from no_such
    if total.customers > _MOST_ROWS:
        message = f"a spreadsheet holds {_MOST_ROWS:,} rows, and this list has {total.customers:,}: add a rule"
        raise Refused(Refusal(413, "too_many_rows", message))
    visit.read.filter, visit.read.rows = _noted(asked) | {"format": "xlsx"}, total.customers
    headings = {name: visit.say(text) for name, text in HEADINGS.items()}
    notes = [
        spoken.say("As of %(day)s", day=spoken.day(published.as_of)), of.said(spoken, total, terms),
        *([spoken.say("Rules: %(rules)s", rules=with_query("", rules_of(asked))[1:])] if rules_of(asked) else []),
        *definitions(of, spoken, terms),
    ]  # fmt: skip
    pieces = encoded(of.blocks(visit, whole), "xlsx", notes, headings)
    first = await asyncio.to_thread(next, pieces)
    headers = {"Content-Disposition": f'attachment; filename="{of.name}-{published.as_of}.xlsx"'}
    return StreamingResponse(chain([first], pieces), headers=headers, media_type=_XLSX)


def _asked_of(of: DeskList, sent: QueryParams) -> tuple[Any, str]:
    """What the address asks for, and what of it cannot be: then the whole list is asked for instead."""
    asked: dict[str, Any] = {name: value for name, value in sent.items() if value and name in of.query.model_fields}
    asked["attribute"] = [value for value in sent.getlist("attribute") if value]
    try:
        return of.query.model_validate(asked | {"top": _ROWS, "format": "json"}), ""
    except ValidationError as problem:
        first = problem.errors()[0]
        said = f"{first['loc'][0]}: {first['msg'].removeprefix('Value error, ')}"
        return of.query.model_validate({"top": _ROWS}), said


def _rules(spoken: Language, of: DeskList, asked: Any, there: Choices) -> list[Mapping[str, Any]]:
    """By what can be filtered: each value, where they are counted with how many have it, the chosen one marked."""
    chosen = dict(rule.split(":", 1) for rule in asked.attribute if ":" in rule)
    rules: list[Mapping[str, Any]] = []
    for name, values in there.items():
        if name == "category" and "category" not in of.query.model_fields:
            continue
        is_category = name == "category"
        mine = asked.category if is_category else chosen.get(name)
        options = [
            (
                value if is_category else f"{name}:{value}",
                f"{value} ({spoken.number(count)})" if of.is_counted else value,
                _same(value, mine),
            )
            for value, count in values
        ]
        title = spoken.say("Bought in the last year") if is_category else words.attribute_name(name)
        rules.append({"name": "category" if is_category else "attribute", "title": title, "options": options})
    return rules


def _same(value: str, chosen: str | None) -> bool:
    return chosen is not None and value.casefold() == chosen.casefold()
