"""What customers say is wrong about them, for whoever can put it right where it comes from."""

from __future__ import annotations

import asyncio

from starlette.responses import RedirectResponse, Response

from serving.corrections import Corrections
from serving.desk.visit import Visit, customer_address
from serving.http.access import Refusal, Refused

_MOST = 200


async def waiting(visit: Visit) -> Response:
    """The oldest first."""
    leaving = visit.answers.erasures.waiting()
    written = await asyncio.to_thread(Corrections(visit.answers.home).waiting, _MOST)
    there = [one for one in written if one.customer_id not in leaving]
    visit.read.customers, visit.read.rows = [one.customer_id for one in there], len(there)
    rows = [(one, customer_address(one.customer_id)) for one in there]
    return visit.page("corrections.html", visit.say("What customers say is wrong"), rows=rows)


async def settle(visit: Visit) -> Response:
    """Takes one out of the inbox: it was put right, or answered."""
    form = await visit.request.form()
    whose = await asyncio.to_thread(Corrections(visit.answers.home).settled, str(form.get("correction_id", "")))
    if whose is None:
        raise Refused(Refusal(404, "unknown_correction", "this correction waits no more"))
    visit.read.customers, visit.read.rows = [whose], 1
    return RedirectResponse("/desk/corrections", 303)
