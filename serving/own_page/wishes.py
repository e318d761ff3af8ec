"""What customers can ask for on their own page: to object or agree, to have something corrected, to be erased."""

from __future__ import annotations

import asyncio

from starlette.responses import RedirectResponse, Response

from serving.consent import PURPOSES, Purpose
from serving.corrections import LONGEST, Corrections
from serving.http import privacy_routes
from serving.http.access import Refusal, Refused
from serving.own_links import OwnLinks
from serving.own_page.link_visit import OWN_HEADERS, LinkVisit


def _(text: str) -> str:
    """Marks a text for the catalogue."""
    return text


DONE = {
    "consent": _("Written down. It counts from now on."),
    "correction": _("Your correction was handed on. The company looks at it and corrects its own records."),
    "full": _("Several corrections of yours wait already, so this one was not handed on. Write to the company."),
}


async def consent(visit: LinkVisit) -> Response:
    """It counts at once."""
    form = await visit.request.form()
    purpose, agreed = str(form.get("purpose")), str(form.get("agreed"))
    if purpose not in PURPOSES or agreed not in ("yes", "no"):
        raise Refused(Refusal(400, "malformed", "choose a purpose, and whether you agree to it"))
    said: dict[Purpose, bool] = {known: agreed == "yes" for known in PURPOSES if known == purpose}
    await asyncio.to_thread(privacy_routes.record, visit.answers, visit.name, said, visit.read.at)
    visit.read.filter, visit.read.rows = {purpose: agreed}, 1
    return _back(visit, "consent")


async def correction(visit: LinkVisit) -> Response:
    """Handed on to people: nothing that is held changes by itself."""
    sent = (await visit.request.form()).get("text")
    text = "".join(c for c in sent if c.isprintable() or c in "\n\t").strip() if isinstance(sent, str) else ""
    if not text or len(text) > LONGEST:
        raise Refused(Refusal(400, "malformed", f"a correction has 1 to {LONGEST:,} characters"))
    is_kept = await asyncio.to_thread(_kept, visit, text)
    visit.read.rows = int(is_kept)
    return _back(visit, "correction" if is_kept else "full")


def _kept(visit: LinkVisit, text: str) -> bool:
    with privacy_routes.keeping(visit.answers, visit.name):
        return Corrections(visit.answers.home).put(visit.name, text, visit.read.at)


async def question(visit: LinkVisit) -> Response:
    """What erasure means, before anything is erased."""
    return visit.page("erasure.html", visit.language.say("Have everything erased?"))


async def erasure(visit: LinkVisit) -> Response:
    """Asked for for good: the customer is in no answer from now on, and the link leads nowhere."""
    await asyncio.to_thread(_queued, visit)
    visit.read.rows = 1
    return visit.page("erased.html", visit.language.say("Your data is being erased"))


def _queued(visit: LinkVisit) -> None:
    visit.answers.erasures.put(visit.name, visit.read.at)
    OwnLinks(visit.answers.home).end(visit.name)


def _back(visit: LinkVisit, done: str) -> Response:
    return RedirectResponse(visit.address(done=done), 303, headers=OWN_HEADERS)
