"""The lineage of a customer's numbers, in sentences: which model, learnt from what, which batch, which rows."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from datetime import date
from typing import Any

from starlette.responses import Response

from serving.desk import model_page, reports, words
from serving.desk.customer_page import name_of
from serving.desk.language import Language
from serving.desk.lineage import Counted, counted
from serving.desk.visit import Visit, customer_address
from serving.http.access import Refusal, Refused

_MOST = 5  # sources that are named


async def lineage(visit: Visit) -> Response:
    """Nothing was counted of who refuses profiling."""
    name = name_of(visit)
    visit.read.customers, visit.read.rows = [name], 0
    card = await visit.answers.card(name)
    if card is None:
        raise Refused(Refusal(404, "unknown_customer", "no customer with this id was known at the published as_of"))
    visit.read.rows = 1
    published, refuses = visit.answers.current(), card["consents"].get("profiling") is False
    as_of = date.fromisoformat(card["as_of"])
    rows = [] if refuses else await asyncio.to_thread(counted, published.workspace, name, as_of)
    models = visit.answers.model()["models"]
    run = await asyncio.to_thread(next, reports.runs(visit.answers.home, str(published.as_of)), None)
    return visit.page(
        "lineage.html", visit.say("Where the numbers come from"), name=name, customer=customer_address(name),
        refuses=refuses, batch=_batch(visit.language, published.as_of, as_of), run=run and run[0], scope=visit.scope,
        models=[_model(visit.language, kind, models[kind]) for kind in words.KINDS if kind in models],
        rows=[said for one in rows for said in _counted(visit.language, one)],
    )  # fmt: skip


def _batch(spoken: Language, batch: date, as_of: date) -> list[str]:
    said = [spoken.say("The numbers are of the batch of %(day)s: they say what was known before that day.",
                       day=spoken.day(batch))]  # fmt: skip
    if as_of != batch:
        said.append(spoken.say("This customer's were computed anew with what had come in before %(day)s.",
                               day=spoken.day(as_of)))  # fmt: skip
    return said


def _model(spoken: Language, kind: str, model: Mapping[str, Any]) -> tuple[str, str, str]:
    """What it is of, the sentence, and the page of the model."""
    trained = spoken.day(date.fromisoformat(model["trained_at"][:10]))
    learnt = model["trained_as_of"]
    if learnt is None:
        said = spoken.say("%(version)s, trained on %(trained)s.", version=_called(model), trained=trained)
    else:
        said = spoken.say(
            "%(version)s, trained on %(trained)s from what was known before %(learnt)s.", version=_called(model),
            trained=trained, learnt=spoken.day(date.fromisoformat(learnt)),
        )  # fmt: skip
    return spoken.say(words.KINDS[kind]), said, model_page.address(kind)


def _called(model: Mapping[str, Any]) -> str:
    return f"{model['name']} {model['version']}"


def _counted(spoken: Language, one: Counted) -> Iterator[str]:
    first, last = spoken.day(one.first), spoken.day(one.last)
    days = spoken.count("%(number)s day", "%(number)s days", one.days)
    if one.table == "transactions":
        yield spoken.count("%(number)s line of purchases was counted, of %(days)s from %(first)s to %(last)s.",
                           "%(number)s lines of purchases were counted, of %(days)s from %(first)s to %(last)s.",
                           one.rows, days=days, first=first, last=last)  # fmt: skip
    else:
        yield spoken.count("%(number)s visit, contact or the like was counted, of %(days)s from %(first)s to %(last)s.",
                           "%(number)s visits, contacts and the like were counted, of %(days)s from %(first)s to"
                           " %(last)s.", one.rows, days=days, first=first, last=last)  # fmt: skip
    if one.sources:
        yield spoken.say("They came from %(sources)s.", sources=spoken.listed(one.sources[:_MOST]))
    if more := len(one.sources[_MOST:]):
        yield spoken.count("And from %(number)s more source.", "And from %(number)s more sources.", more)
    if one.over_http:
        yield spoken.say("Some were sent to the service as they happened.")
