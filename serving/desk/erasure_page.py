"""Erasing a customer, in two steps: what is held of them and would go, then their id typed once more."""

from __future__ import annotations

import asyncio

from starlette.responses import RedirectResponse, Response

from serving.desk.customer_page import name_of
from serving.desk.visit import Visit, customer_address, with_query
from serving.http import privacy_routes
from serving.http.access import Refusal, Refused


async def question(visit: Visit) -> Response:
    """What would go, before anything does."""
    return await _question(visit, name_of(visit))


async def _question(visit: Visit, name: str, problem: str = "") -> Response:
    visit.read.customers = [name]
    if name in visit.answers.erasures.waiting():
        raise Refused(Refusal(404, "unknown_customer", "nothing is held of a customer with this id"))
    places = await asyncio.to_thread(privacy_routes.places, visit.answers, name)
    visit.read.rows = sum(places.values())
    return visit.page(
        "erase.html", visit.say("Erase %(customer)s", customer=name), 400 if problem else 200, name=name,
        places=places, rows=visit.read.rows, problem=problem, address=customer_address(name),
    )  # fmt: skip


async def erase(visit: Visit) -> Response:
    """For good, if the id that was typed is the customer's: out of every answer at once, and out of all files soon."""
    name, form = name_of(visit), await visit.request.form()
    if str(form.get("typed", "")).strip() != name:
        return await _question(visit, name, visit.say("That is not the id of this customer: nothing was erased."))
    visit.read.customers = [name]
    await asyncio.to_thread(privacy_routes.queued, visit.answers, name, visit.read.at)
    visit.read.rows = 1
    return RedirectResponse(with_query("/desk/customers", {"erased": "asked"}), 303)
