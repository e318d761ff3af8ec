"""The routes by which customers' own wishes come in: consent, what is held of them, erasure."""

from __future__ import annotations

import asyncio
import logging
from contextlib import contextmanager, suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Path, Request
from starlette.responses import JSONResponse, Response

from features import retrieval
from serving import erasure
from serving.erasure import Places, UnknownCustomer
from serving.erasure_queue import Job
from serving.http.access import Refusal, Refused, allowed
from serving.http.bodies import ConsentAnswer, ConsentRequest, ErasedAnswer, HeldAnswer, Id, WaitingAnswer
from serving.http.strict_json import StrictRoute
from workspace import privacy, storage
from workspace.settings import SettingsError
from workspace.storage import CheckFailed, InUse

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

    from serving.consent import Purpose
    from serving.http.answers import Answers
    from serving.http.audit import Read

router = APIRouter(route_class=StrictRoute)
_log = logging.getLogger("bentoml.perennial")
CustomerId = Annotated[Id, Path(description="as the shop writes it, escaped for a URL", examples=["10002"])]


@router.put("/customers/{customer_id:escaped}/consent", response_model=ConsentAnswer, dependencies=allowed("crm"))
def consent(customer_id: CustomerId, asked: ConsentRequest, request: Request) -> Response:
    """What the customer says now: it counts at once in scores, lists and offers, and in the next batch."""
    name, read = _name(customer_id), _read(request)
    record(_answers(), name, asked.said, read.at)
    read.filter, read.rows = asked.model_dump(), 1
    return JSONResponse({"customer_id": name, "recorded_at": read.at.isoformat(), **asked.model_dump()})


def record(answers: Answers, name: str, said: Mapping[Purpose, bool], at: datetime) -> None:
    """Writes down what a customer says; durable when it returns.

    Raises:
        Refused: nothing is held of them.
    """
    with keeping(answers, name):
        answers.consents.put(name, said, at)


@contextmanager
def keeping(answers: Answers, name: str) -> Iterator[None]:
    """While it lasts something may be written down of a customer.

    Raises:
        Refused: nothing is held of them.
    """
    home = answers.workspace.home_path
    if not (erasure.is_known(answers.workspace, name) or name in answers.known([name])):
        raise Refused(_unknown(name))
    with privacy.keeping(home):
        if privacy.erased_among(home, [name]):
            raise Refused(_unknown(name))
        yield


@router.get("/customers/{customer_id:escaped}/data", response_model=HeldAnswer, dependencies=allowed())
async def data(customer_id: CustomerId, request: Request) -> Response:
    """Everything that is held of one customer, contact data in the clear."""
    return await everything(_answers(), customer_id, _read(request))


async def everything(answers: Answers, customer_id: str, read: Read) -> Response:
    """All that is held of one customer, as JSON.

    Raises:
        Refused: nothing is, an erasure waits, or a store that they may be in does not answer.
    """
    (name,) = answers.names([customer_id])
    try:
        async with answers.searching:
            if job := answers.erasures.waiting().get(name):
                raise Refused(_waiting(customer_id, job))
            held = await asyncio.to_thread(_held, answers, name)
    except UnknownCustomer:
        raise Refused(_unknown(customer_id)) from None
    except (CheckFailed, SettingsError) as problem:
        raise Refused(_unavailable(problem)) from problem
    read.rows = sum(map(len, held.held.values()))
    return Response(await asyncio.to_thread(held.model_dump_json), media_type="application/json")


def _held(answers: Answers, name: str) -> HeldAnswer:
    held = erasure.held(answers.workspace, retrieval.open_store(answers.workspace), name)
    return HeldAnswer(customer_id=name, held=held, audit=answers.gate.audit.mentions(name))


@router.delete(
    "/customers/{customer_id:escaped}", response_model=ErasedAnswer,
    responses={202: {"model": WaitingAnswer, "description": "a command is at work in the home: it waits for that"}},
    dependencies=allowed(),
)  # fmt: skip
def erase(customer_id: CustomerId, request: Request) -> Response:
    """Erases one customer from everything, for good; repeated, it goes on where it was cut off."""
    name = _name(customer_id)
    done = erased(_answers(), name, _read(request).at)
    if isinstance(done, Job):
        return JSONResponse(asdict(done), 202, headers={"Location": f"/v1/erasures/{done.erasure_id}"})
    _read(request).rows = sum(done.values())
    return JSONResponse({"customer_id": name, "found": done})


def erased(answers: Answers, name: str, at: datetime) -> Places | Job:
    """Erases a customer from everything; the rows that were found, by place, or the job that waits.

    It waits for the command that is at work in the home: a run may take minutes, and the customer need not come again.

    Raises:
        Refused: nothing is held of them, or a store that they may be in does not answer.
    """
    workspace = answers.workspace
    holder = f"the service, erasing a customer, since {at:%Y-%m-%d %H:%M:%S} UTC"
    with _refusing(name):
        with suppress(InUse), storage.locked(workspace.home_path, holder):
            return erasure.erase(workspace, retrieval.open_store(workspace), [name])[name]
        erasure.rows_of(workspace, retrieval.open_store(workspace), [name])
        return answers.erasures.put(name, at)


def queued(answers: Answers, name: str, at: datetime) -> Job:
    """Erases a customer within seconds, or when the command at work has ended; no answer has them from now on.

    Raises:
        Refused: the privacy key is not there to mark them with.
    """
    with _refusing(name):
        return answers.erasures.put(name, at)


def places(answers: Answers, name: str) -> Places:
    """Where rows are held of a customer, and how many.

    Raises:
        Refused: as `erased`, and without the privacy key that erasing takes.
    """
    with _refusing(name):
        privacy.key_of(answers.workspace.home_path)
        return erasure.rows_of(answers.workspace, retrieval.open_store(answers.workspace), [name])[name]


@contextmanager
def _refusing(name: str) -> Iterator[None]:
    try:
        yield
    except UnknownCustomer:
        raise Refused(_unknown(name)) from None
    except (CheckFailed, SettingsError) as problem:
        raise Refused(_unavailable(problem)) from problem


@router.get("/erasures/{erasure_id}", response_model=WaitingAnswer, dependencies=allowed())
def waiting(erasure_id: Annotated[str, Path(description="as the answer to `DELETE` named it")]) -> Response:
    """Whether an erasure that had to wait was carried out."""
    job = _answers().erasures.job(erasure_id)
    if job is None:
        raise Refused(Refusal(404, "unknown_erasure", "no erasure of this id waits or waited"))
    return JSONResponse(asdict(job))


def _answers() -> Answers:
    import bentoml  # here: pages whose sentences assistants use import this module

    answers: Answers = bentoml.get_current_service().answers
    return answers


def _name(customer_id: str) -> str:
    return _answers().names([customer_id])[0]


def _read(request: Request) -> Read:
    read: Read = request.state.read
    return read


def _unknown(customer_id: str) -> Refusal:
    return Refusal(404, "unknown_customer", "nothing is held of a customer with this id", {"customer_id": customer_id})


def _waiting(customer_id: str, job: str) -> Refusal:
    message = (
        "this customer was asked to be erased, and the erasure waits until the command that is at work has ended:"
        f" nothing is shown any more, though it is held until then; GET /v1/erasures/{job} says when it is done"
    )
    return Refusal(409, "erasure_waits", message, {"customer_id": customer_id, "erasure_id": job})


def _unavailable(problem: Exception) -> Refusal:
    """The privacy key is not there, or a store does not answer; which one, and where it is, is for the log."""
    if isinstance(problem, SettingsError):
        return Refusal(503, "no_privacy_key", str(problem), headers={"Retry-After": "60"})
    _log.error("%s", problem)
    message = "a store that the customer may be in does not answer; the service's log says which"
    return Refusal(503, "no_store", message, headers={"Retry-After": "60"})
