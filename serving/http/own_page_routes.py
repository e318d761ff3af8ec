"""The routes for a customer's own page: making and ending its link, and reading the corrections that come in by it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import bentoml
from fastapi import APIRouter, Path, Request
from starlette.responses import JSONResponse, Response

from serving.corrections import Corrections
from serving.http import privacy_routes
from serving.http.access import Refusal, Refused, allowed
from serving.http.bodies import CorrectionsAnswer, EndedAnswer, OwnPageAnswer, OwnPageRequest, SettledAnswer
from serving.http.privacy_routes import CustomerId
from serving.http.strict_json import StrictRoute
from serving.own_links import OwnLinks

if TYPE_CHECKING:
    from datetime import datetime

    from serving.http.answers import Answers
    from serving.http.audit import Read

router = APIRouter(route_class=StrictRoute)
_MOST = 1_000  # corrections in one answer
_PATH = "/customers/{customer_id:escaped}/own-page"


@router.post(_PATH, status_code=201, response_model=OwnPageAnswer, dependencies=allowed("crm"))
def make(customer_id: CustomerId, request: Request, asked: OwnPageRequest | None = None) -> Response:
    """Makes the link by which a customer reaches their own page; an earlier one ends."""
    answers, read = _answers(), _read(request)
    (name,), days = answers.names([customer_id]), (asked or OwnPageRequest()).days
    url, ends_at = link(answers, name, days, read.at, request)
    read.filter, read.rows = {"days": days}, 1
    return JSONResponse({"url": url, "ends_at": ends_at.isoformat()}, 201, headers={"Cache-Control": "no-store"})


def link(answers: Answers, name: str, days: int, at: datetime, request: Request) -> tuple[str, datetime]:
    """The address of a customer's own page for so many days, and when it ends; the one before has ended.

    Raises:
        Refused: nothing is held of them.
    """
    with privacy_routes.keeping(answers, name):
        token, ends_at = OwnLinks(answers.home).make(name, days, at)
    asked_at = f"{request.url.scheme}://{request.headers.get('host', '')}"
    return f"{(answers.service.own_page_address or asked_at).rstrip('/')}/own/{token}", ends_at


@router.delete(_PATH, response_model=EndedAnswer, dependencies=allowed("crm"))
def end(customer_id: CustomerId, request: Request) -> Response:
    """Ends the link to a customer's own page, if there is one."""
    (name,) = _answers().names([customer_id])
    with privacy_routes.keeping(_answers(), name):
        ended = OwnLinks(_answers().home).end(name)
    _read(request).rows = ended
    return JSONResponse({"customer_id": name, "ended": ended})


@router.get("/corrections", response_model=CorrectionsAnswer, dependencies=allowed(of_whole_shop=True))
def corrections(request: Request) -> Response:
    """What customers say is wrong about them, the oldest first; at most 1,000, until some are settled."""
    leaving = _answers().erasures.waiting()
    waiting = [one for one in Corrections(_answers().home).waiting(_MOST) if one.customer_id not in leaving]
    _read(request).customers, _read(request).rows = [one.customer_id for one in waiting], len(waiting)
    return JSONResponse({"corrections": [asdict(one) for one in waiting]})


@router.delete("/corrections/{correction_id}", response_model=SettledAnswer, dependencies=allowed(of_whole_shop=True))
def settle(
    correction_id: Annotated[str, Path(description="as `GET /v1/corrections` names it")], request: Request
) -> Response:
    """Takes a correction out of the inbox, once it was seen to where the shop keeps its customers."""
    name = Corrections(_answers().home).settled(correction_id)
    if name is None:
        raise Refused(Refusal(404, "unknown_correction", "no correction of this id waits"))
    _read(request).customers, _read(request).rows = [name], 1
    return JSONResponse({"correction_id": correction_id, "customer_id": name})


def _answers() -> Answers:
    answers: Answers = bentoml.get_current_service().answers
    return answers


def _read(request: Request) -> Read:
    read: Read = request.state.read
    return read
