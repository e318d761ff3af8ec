"""The link to a customer's own page, made by whoever talks to them."""

from __future__ import annotations

import asyncio

from starlette.responses import Response

from serving.desk.customer_page import name_of
from serving.desk.visit import Visit, customer_address
from serving.http import own_page_routes
from serving.http.bodies import OwnPageRequest


async def make(visit: Visit) -> Response:
    """Shown once, to be copied; nothing but the answer has it."""
    name, days = name_of(visit), OwnPageRequest().days
    visit.read.customers, visit.read.filter = [name], {"days": days}
    url, ends_at = await asyncio.to_thread(
        own_page_routes.link, visit.answers, name, days, visit.read.at, visit.request
    )
    visit.read.rows = 1
    return visit.page(
        "own_link.html", visit.say("A link for %(customer)s", customer=name), url=url,
        ends_on=visit.language.day(ends_at.date()), address=customer_address(name),
    )  # fmt: skip
