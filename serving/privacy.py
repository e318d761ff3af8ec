"""The routes by which customers' own wishes come in: consent, what is held of them, erasure."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Annotated

import bentoml
from fastapi import APIRouter, Path, Request
from starlette.responses import JSONResponse, Response

from features import retrieval
from perennial import privacy, storage
from perennial.settings import SettingsError
from perennial.storage import CheckFailed, InUse
from serving import erasure
from serving.access import Refusal, Refused, allowed
from serving.bodies import ConsentAnswer, ConsentRequest, ErasedAnswer, HeldAnswer, Id
from serving.erasure import UnknownCustomer
from serving.strict_json import StrictRoute

if TYPE_CHECKING:
    from serving.answers import Answers
    from serving.audit import Read

router = APIRouter(route_class=StrictRoute)
_LOOKING = threading.Lock()  # one at a time: it reads every file of the home, and takes a thread
CustomerId = Annotated[Id, Path(description="as the shop writes it, escaped for a URL", examples=["10002"])]


@router.put("/customers/{customer_id:escaped}/consent", response_model=ConsentAnswer, dependencies=allowed("crm"))
def consent(customer_id: CustomerId, asked: ConsentRequest, request: Request) -> Response:
    """What the customer says now: it counts at once in scores, lists and offers, and in the next batch."""
    answers, name = _answers(), _name(customer_id)
    home, read = answers.workspace.home_path, _read(request)
    if not (erasure.is_known(answers.workspace, name) or name in answers.known([name])):
        raise Refused(_unknown(customer_id))
    with privacy.keeping(home):
        if privacy.erased_among(home, [name]):
            raise Refused(_unknown(customer_id))
        answers.consents.put(name, asked.said, read.at)
    read.filter, read.rows = asked.model_dump(), 1
    return JSONResponse({"customer_id": name, "recorded_at": read.at.isoformat(), **asked.model_dump()})


@router.get("/customers/{customer_id:escaped}/data", response_model=HeldAnswer, dependencies=allowed())
def data(customer_id: CustomerId, request: Request) -> Response:
    """Everything that is held of one customer, contact data in the clear."""
    answers, name = _answers(), _name(customer_id)
    try:
        with _LOOKING:
            held = erasure.held(answers.workspace, retrieval.open_store(answers.workspace), name)
    except UnknownCustomer:
        raise Refused(_unknown(customer_id)) from None
    except (CheckFailed, SettingsError) as problem:
        raise Refused(_unavailable(problem)) from problem
    _read(request).rows = sum(map(len, held.values()))
    mentions = answers.gate.audit.mentions(name)
    content = HeldAnswer(customer_id=name, held=held, audit=mentions).model_dump_json()
    return Response(content, media_type="application/json")


@router.delete("/customers/{customer_id:escaped}", response_model=ErasedAnswer, dependencies=allowed())
def erase(customer_id: CustomerId, request: Request) -> Response:
    """Erases one customer from everything, for good; repeated, it goes on where it was cut off."""
    workspace, name = _answers().workspace, _name(customer_id)
    holder = f"the service, erasing a customer, since {_read(request).at:%Y-%m-%d %H:%M:%S} UTC"
    try:
        with storage.locked(workspace.home_path, holder):
            found = erasure.erase(workspace, retrieval.open_store(workspace), [name])[name]
    except UnknownCustomer:
        raise Refused(_unknown(customer_id)) from None
    except (CheckFailed, SettingsError) as problem:
        raise Refused(_unavailable(problem)) from problem
    _read(request).rows = sum(found.values())
    return JSONResponse({"customer_id": name, "found": found})


def _answers() -> Answers:
    answers: Answers = bentoml.get_current_service().answers
    return answers


def _name(customer_id: str) -> str:
    return _answers().names([customer_id])[0]


def _read(request: Request) -> Read:
    read: Read = request.state.read
    return read


def _unknown(customer_id: str) -> Refusal:
    return Refusal(404, "unknown_customer", "nothing is held of a customer with this id", {"customer_id": customer_id})


def _unavailable(problem: Exception) -> Refusal:
    """The privacy key is not there, a command is at work in the home, or a store does not answer."""
    codes = {SettingsError: "no_privacy_key", InUse: "in_use"}
    code = codes.get(type(problem), "no_store")
    return Refusal(503, code, str(problem), headers={"Retry-After": "60"})
