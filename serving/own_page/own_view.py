"""The page itself, and the file with everything that is held."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from starlette.responses import Response

from serving.consent import PURPOSES
from serving.http import privacy_routes
from serving.http.access import Refused
from serving.own_page import summary
from serving.own_page.link_visit import OWN_HEADERS, LinkVisit
from serving.own_page.summary import Doings
from serving.own_page.wishes import DONE
from workspace.storage import CheckFailed


async def own_page(visit: LinkVisit) -> Response:
    """All of it; what cannot be read at the moment is said to be so, and wishes can be told all the same."""
    workspace, spoken, name = visit.answers.workspace, visit.language, visit.name
    row = await asyncio.to_thread(summary.row_of, workspace, name)
    done = await asyncio.to_thread(_doings, visit)
    card, is_away = await _card(visit)
    consents = {purpose: row.get(f"{purpose}_consent") for purpose in PURPOSES} | visit.answers.consents.by(name)
    nothing = None if is_away else summary.why_nothing(spoken, card)
    visit.read.rows = 1
    return visit.page(
        "own_page.html", spoken.say("Your data"), identity=list(summary.identity(spoken, workspace, name, row)),
        purchases=list(summary.purchases(spoken, workspace, done)) if done else None,
        contacts=list(summary.contacts(spoken, done)) if done else None, is_away=is_away, nothing=nothing,
        computed=list(summary.computed(spoken, card)) if card and not nothing else [],
        reasons=card["reasons"] if card and not nothing else [], is_stale=bool(card and card["stale"]),
        offers=list(summary.offers(spoken, card, done.items if done else [])) if card else [],
        purposes=[(purpose, consents[purpose]) for purpose in PURPOSES], ends_on=spoken.day(visit.link.ends_at.date()),
        said=spoken.say(DONE[told]) if (told := visit.request.query_params.get("done", "")) in DONE else "",
    )  # fmt: skip


def _doings(visit: LinkVisit) -> Doings | None:
    """None while a batch is at work on the days."""
    with suppress(CheckFailed):
        return summary.doings(visit.answers.workspace, visit.name)
    return None


async def _card(visit: LinkVisit) -> tuple[dict[str, Any] | None, bool]:
    """The card, and whether it cannot be asked for: a store is down, or nothing is published."""
    try:
        return await visit.answers.card(visit.name), False
    except Refused:
        return None, True


async def data(visit: LinkVisit) -> Response:
    """Everything that is held, as `GET /v1/customers/{id}/data` shows it."""
    response = await privacy_routes.everything(visit.answers, visit.name, visit.read)
    response.headers.update(OWN_HEADERS | {"Content-Disposition": 'attachment; filename="my-data.json"'})
    return response
