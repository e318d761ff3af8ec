"""The routes by which customers' own wishes come in: consent, what is held of them, erasure."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import bentoml
from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field, model_validator
from starlette.responses import JSONResponse, Response

from features import retrieval
from perennial import privacy, storage
from perennial.settings import SettingsError
from perennial.storage import CheckFailed
from serving import erasure
from serving.access import Refusal, Refused, allowed
from serving.audit import Read
from serving.consent import Kind
from serving.erasure import UnknownCustomer

router = APIRouter()


class ConsentRequest(BaseModel):
    """What a customer allows from now on; what is left out stays as it is."""

    model_config = ConfigDict(extra="forbid", strict=True, json_schema_extra={"examples": [{"marketing": False}]})

    marketing: bool | None = Field(None, description="to be listed, and so contacted")
    profiling: bool | None = Field(None, description="to be scored, and so listed or offered anything")

    @model_validator(mode="after")
    def _something_said(self) -> ConsentRequest:
        if not self.said:
            raise ValueError("say `marketing` or `profiling`, true or false")
        return self

    @property
    def said(self) -> dict[Kind, bool]:
        given: dict[Kind, bool | None] = {"marketing": self.marketing, "profiling": self.profiling}
        return {kind: granted for kind, granted in given.items() if granted is not None}


class ConsentAnswer(BaseModel):
    customer_id: str
    recorded_at: datetime
    marketing: bool | None
    profiling: bool | None


class HeldAnswer(BaseModel):
    """By place - a file in the workspace's home, a table of a database, the online store - the rows found there."""

    customer_id: str
    held: dict[str, list[dict[str, Any]]]
    audit: list[dict[str, Any]] = Field(description="who read or changed something of this customer, and when")


class ErasedAnswer(BaseModel):
    """By place, how many rows there were; exported files are out of reach, and are not named."""

    customer_id: str
    found: dict[str, int]


@router.put("/customers/{customer_id:path}/consent", response_model=ConsentAnswer, dependencies=[allowed("crm")])
def consent(customer_id: str, asked: ConsentRequest, request: Request) -> Response:
    """What the customer says now: it counts at once in scores, lists and offers, and in the next batch."""
    answers, customer_id = _answers(), _known_as(customer_id)
    if not erasure.is_known(answers.workspace, customer_id):
        raise Refused(_unknown(customer_id))
    read: Read = request.state.read
    answers.consents.put(customer_id, asked.said, read.at)
    read.filter, read.rows = asked.model_dump(), 1
    return JSONResponse({"customer_id": customer_id, "recorded_at": read.at.isoformat(), **asked.model_dump()})


@router.get("/customers/{customer_id:path}/data", response_model=HeldAnswer, dependencies=[allowed()])
def data(customer_id: str, request: Request) -> Response:
    """Everything that is held of one customer, contact data in the clear."""
    answers, customer_id = _answers(), _known_as(customer_id)
    workspace = answers.workspace
    try:
        held = erasure.held(workspace, retrieval.open_store(workspace), customer_id)
    except UnknownCustomer:
        raise Refused(_unknown(customer_id)) from None
    except (CheckFailed, SettingsError) as problem:
        raise Refused(_unavailable(problem)) from problem
    request.state.read.rows = sum(map(len, held.values()))
    mentions = answers.gate.audit.mentions(customer_id)
    content = HeldAnswer(customer_id=customer_id, held=held, audit=mentions).model_dump_json()
    return Response(content, media_type="application/json")


@router.delete("/customers/{customer_id:path}", response_model=ErasedAnswer, dependencies=[allowed()])
def erase(customer_id: str, request: Request) -> Response:
    """Erases one customer from everything, for good; repeated, it goes on where it was cut off."""
    answers, customer_id = _answers(), _known_as(customer_id)
    workspace = answers.workspace
    try:
        with storage.locked(workspace.home_path):
            found = erasure.erase(workspace, retrieval.open_store(workspace), [customer_id])[customer_id]
    except UnknownCustomer:
        raise Refused(_unknown(customer_id)) from None
    except (CheckFailed, SettingsError) as problem:
        raise Refused(_unavailable(problem)) from problem
    request.state.read.rows = sum(found.values())
    return JSONResponse({"customer_id": customer_id, "found": found})


def _answers() -> Any:
    return bentoml.get_current_service().answers


def _known_as(customer_id: str) -> str:
    return privacy.known_as(_answers().workspace, customer_id)


def _unknown(customer_id: str) -> Refusal:
    return Refusal(404, "unknown_customer", "nothing is held of a customer with this id", {"customer_id": customer_id})


def _unavailable(problem: Exception) -> Refusal:
    """The home is in use by a command, the online store does not answer, or the privacy key is not there."""
    code = "no_privacy_key" if isinstance(problem, SettingsError) else "in_use"
    return Refusal(503, code, str(problem), headers={"Retry-After": "60"})
