"""The routes below `/v1`, what they refuse, and their description."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Mapping, Sequence, Set
from itertools import chain
from typing import Annotated, Any, Literal

import bentoml
from fastapi import FastAPI, Path, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, TypeAdapter
from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Match

from serving.http import own_page_routes, privacy_routes
from serving.http.access import Refusal, Refused, allowed, unknown_customer
from serving.http.answers import Answers
from serving.http.audit import Read
from serving.http.bodies import (
    BoughtWithAnswer,
    Card,
    EventsAnswer,
    EventsRequest,
    Failure,
    Grade,
    ModelAnswer,
    OffersAnswer,
    ScoresAnswer,
    ScoresRequest,
)
from serving.http.event_inbox import Inbox
from serving.http.keys import Caller
from serving.http.privacy_routes import CustomerId
from serving.http.strict_json import StrictRoute
from serving.lists.churn_risk import Page, joined
from serving.lists.files import encoded
from serving.lists.filters import NoSuchFilter
from serving.lists.list_query import Band, CrossSellQuery, ListQuery, Rules, WinBackQuery
from serving.scope import Scope
from workspace import storage

_MEDIA_TYPES = {
    "json": "application/json",
    "csv": "text/csv; charset=utf-8",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
}


class ListRow(BaseModel):
    """A customer to act on; behind it, for keys that may see them, the contact data that the setting `pii` names.

    The grades say how far the numbers before them are proven; a number is null where `withheld` says why.
    """

    model_config = ConfigDict(extra="allow")

    customer_id: str
    churn_probability: float | None
    churn_percentile: float | None
    churn_band: Band | None
    churn_grade: Grade
    lifetime_value: float | None
    lifetime_value_low: float | None
    lifetime_value_high: float | None
    lifetime_value_grade: Grade
    value_at_risk: float | None
    value_at_risk_grade: Grade
    reasons: str = ""
    value_reasons: str = ""
    offer: str | None
    offer_kind: Literal["repeat", "new"] | None
    offer_probability: float | None
    offer_grade: Grade
    as_of: str
    churn_period_days: int
    lifetime_value_period_days: int
    lifetime_value_measure: Literal["revenue", "margin"]
    currency: str
    withheld: str | None


class WinBackRow(BaseModel):
    """A customer who left; behind it, for keys that may see them, the contact data that the setting `pii` names."""

    model_config = ConfigDict(extra="allow")

    customer_id: str
    last_purchase: str
    silent_days: int
    purchases: int
    spend: float
    bought_most: str | None
    lifetime_value: float | None
    lifetime_value_low: float | None
    lifetime_value_high: float | None
    lifetime_value_grade: Grade
    left_by: str
    as_of: str
    lifetime_value_period_days: int
    lifetime_value_measure: Literal["revenue", "margin"]
    currency: str


class CrossSellRow(BaseModel):
    """A customer and an offer; behind it, for keys that may see them, the contact data that the setting `pii` names."""

    model_config = ConfigDict(extra="allow")

    customer_id: str
    offer: str
    offer_kind: Literal["repeat", "new"]
    offer_probability: float | None
    offer_grade: Grade
    churn_probability: float | None
    churn_band: Band | None
    churn_grade: Grade
    lifetime_value: float | None
    lifetime_value_grade: Grade
    value_at_risk: float | None
    value_at_risk_grade: Grade
    as_of: str
    churn_period_days: int
    lifetime_value_period_days: int
    lifetime_value_measure: Literal["revenue", "margin"]
    currency: str


def _refusal(description: str, code: str, message: str, details: Mapping[str, Any] | None = None) -> dict[str, Any]:
    example = Refusal(0, code, message, details or {}).body()
    content = {"application/json": {"example": example}}
    return {"model": Failure, "description": description, "content": content}


_PROBLEM = {"where": "body.customer_ids", "problem": "Field required"}
_REFUSALS: dict[int | str, dict[str, Any]] = {
    400: _refusal(
        "malformed: the body, the path or the query is not as described here",
        "malformed", "body.customer_ids: Field required", {"problems": [_PROBLEM]},
    ),
    401: _refusal(
        "no bearer key, or a wrong or revoked one", "unauthorized", "send the header `Authorization: Bearer <key>`"
    ),
    403: _refusal(
        "a key of another role, or one that is limited to a part of the shop where this is of the whole",
        "forbidden", "this takes a key of another role: admin, crm",
    ),
    408: _refusal("the body came too slowly", "slow_body", "the body was not there within 10 s"),
    409: _refusal(
        "the published features are not those of the champions, or are stale; or an event's id has another content",
        "stale_features", "2025-01-01 was scored again after its features were published: run `perennial publish`",
    ),
    413: _refusal(
        "too many ids or events, or too large a body",
        "too_many_ids", "1,001 customer_ids in one request; at most 1,000 can be", {"asked": 1001, "most": 1000},
    ),
    429: _refusal(
        "more requests with this key than the service answers: try again after `Retry-After`",
        "too_many_requests", "more than 1000 requests per second with this key",
    ),
    500: _refusal("a defect of the service", "internal", "the service failed to answer; its log says why"),
    503: _refusal(
        "no champion, nothing published, a store that is down, or too many requests: try again after `Retry-After`",
        "overloaded", "more requests are under way than the service keeps up with; come again",
    ),
}  # fmt: skip
_NOT_FOUND: dict[int | str, dict[str, Any]] = {
    404: _refusal(
        "unknown customer",
        "unknown_customer", "no customer with this id was known at the published as_of", {"customer_id": "nobody"},
    )
}  # fmt: skip
_NO_RULE: dict[int | str, dict[str, Any]] = {
    404: _refusal(
        "no companion of this item is known",
        "unknown_item", "nothing is known to go with this item at the published as_of, more than by chance",
        {"item": "hammer", "nearest": ["hammers"]},
    )
}  # fmt: skip
_ROWS = TypeAdapter(list[ListRow]).json_schema(ref_template="#/components/schemas/{model}")


def _list_of(row: type[BaseModel]) -> dict[int | str, dict[str, Any]]:
    content = {
        _MEDIA_TYPES["json"]: {"schema": {"type": "array", "items": row.model_json_schema()}},
        "text/csv": {"schema": {"type": "string"}},
        _MEDIA_TYPES["xlsx"]: {"schema": {"type": "string", "format": "binary"}},
    }
    link = {"schema": {"type": "string"}, "description": "the next page, where there is one"}
    what = "the list in the format asked for, CSV and XLSX as a download; `Link` leads to the next page"
    return {200: {"description": what, "headers": {"Link": link}, "content": content}}


_PROBES = {
    "/livez": "the process is alive",
    "/readyz": "it can answer: there are champions and a publication; what of its answers is not as it should be",
    "/metrics": "for Prometheus: counts and times by route, age of features, lag of events, versions",
}

_READINESS = {
    "type": "object",
    "properties": {
        "status": {"enum": ["ready", "degraded", "unavailable"]},
        "problems": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "code": {"type": "string"}, "message": {"type": "string"}, "since": {"type": ["string", "null"]}
                },
            },
        },
    },
}  # fmt: skip

api = FastAPI(title="Perennial", docs_url=None, redoc_url=None, openapi_url=None)
api.router.route_class = StrictRoute
# Before the card and the erasure, whose paths would take `.../data` and `.../own-page` for ids.
api.include_router(own_page_routes.router, responses=_REFUSALS | _NOT_FOUND)
api.include_router(privacy_routes.router, responses=_REFUSALS | _NOT_FOUND)


def _read(request: Request) -> Read:
    """What the audit log will say of the request."""
    read: Read = request.state.read
    return read


def _scope(request: Request) -> Scope:
    caller: Caller = request.state.caller
    return caller.scope


def _answers() -> Answers:
    return bentoml.get_current_service().answers


def _inbox() -> Inbox:
    return bentoml.get_current_service().inbox


@api.post(
    "/scores",
    response_model=ScoresAnswer,
    responses=_REFUSALS | _NOT_FOUND,
    dependencies=allowed("crm"),
)
async def scores(asked: ScoresRequest, request: Request) -> Response:
    """The scores of some customers, in the order asked; an unknown one is marked, or a 404 where it is the only one."""
    answers = _answers()
    if len(asked.customer_ids) > (most := answers.service.max_ids):
        raise Refused(Refusal(
            413, "too_many_ids", f"{len(asked.customer_ids):,} customer_ids in one request; at most {most:,} can be",
            {"asked": len(asked.customer_ids), "most": most},
        ))  # fmt: skip
    names = answers.names(asked.customer_ids)
    rows, terms = await answers.scores(await answers.within(_scope(request), names), asked)
    _read(request).customers, _read(request).rows = names, len(rows)
    if not rows and len(names) == 1:
        raise Refused(unknown_customer(names[0]))
    scores = b",".join([rows.get(one) or to_json(_marked(one)) for one in names])
    return Response(b'{"scores":[' + scores + b"]," + terms[1:], media_type="application/json")


@api.post(
    "/events",
    status_code=202,
    response_model=EventsAnswer,
    responses=_REFUSALS,
    dependencies=allowed("crm"),
)
async def events(asked: EventsRequest, request: Request) -> Response:
    """Takes in purchases and interactions; scores show them within seconds, and the next batch ingests them."""
    outside = await _outside(_scope(request), asked.customers())
    counts = await asyncio.to_thread(_inbox().accept, asked, _answers().clock(), outside)
    _read(request).customers, _read(request).rows = asked.customers(), counts["accepted"]
    return JSONResponse(counts, 202)


async def _outside(scope: Scope, customer_ids: Sequence[str]) -> Set[str]:
    """Those of these customers who are not known to be in a scope, as the workspace names them."""
    if not scope:
        return frozenset()
    names = _answers().names(customer_ids)
    return {*names}.difference(await _answers().within(scope, names))


@api.get("/lists/churn-risk", responses=_REFUSALS | _list_of(ListRow), dependencies=allowed("marketing"))
async def churn_risk(asked: Annotated[ListQuery, Query()], request: Request) -> Response:
    """Who is about to leave, highest value at risk first: whom to contact, why, and what to offer."""
    return await _listed("churn-risk", _answers().churn_risk, asked, request)


@api.get("/lists/win-back", responses=_REFUSALS | _list_of(WinBackRow), dependencies=allowed("marketing"))
async def win_back(asked: Annotated[WinBackQuery, Query()], request: Request) -> Response:
    """Who left, highest value first: what may still be expected of each, and what they used to buy."""
    return await _listed("win-back", _answers().win_back, asked, request)


@api.get("/lists/cross-sell", responses=_REFUSALS | _list_of(CrossSellRow), dependencies=allowed("marketing"))
async def cross_sell(asked: Annotated[CrossSellQuery, Query()], request: Request) -> Response:
    """To whom an item can be offered, or each customer's best offer; likeliest first."""
    return await _listed("cross-sell", _answers().cross_sell, asked, request)


async def _listed(name: str, page_of: Callable[..., Page], asked: Rules, request: Request) -> Response:
    contacts = request.state.caller.sees_contacts
    page, pieces = await asyncio.to_thread(_begun, page_of, asked, contacts, _scope(request))
    # Without the cursor, which holds the id that the last page ended with, and without what was searched, an id too.
    shown = asked.model_dump(exclude={"cursor", "search"}) | {
        "further_page": asked.cursor is not None, "searched": asked.search is not None, "contacts": contacts,
    }  # fmt: skip
    _read(request).filter, _read(request).rows = shown, page.rows
    headers = {}
    if asked.format != "json":
        headers["Content-Disposition"] = f'attachment; filename="{name}-{page.as_of}.{asked.format}"'
    if page.cursor is not None:
        following = request.url.include_query_params(cursor=page.cursor)
        headers["Link"] = f'<{following.path}?{following.query}>; rel="next"'
    return StreamingResponse(pieces, headers=headers, media_type=_MEDIA_TYPES[asked.format])


def _begun(page_of: Callable[..., Page], asked: Rules, contacts: bool, scope: Scope) -> tuple[Page, Any]:
    """The page, and its pieces of which the first is there: what cannot be answered is refused, not broken off."""
    page = page_of(asked, contacts, scope)
    pieces = encoded(map(joined, page.blocks), asked.format, page.about)
    return page, chain([next(pieces)], pieces)


@api.get("/model", response_model=ModelAnswer, responses=_REFUSALS, dependencies=allowed("crm", "marketing"))
async def model() -> Response:
    """Which versions answer, as of when, how good they are, and what their numbers mean."""
    return JSONResponse(_answers().model())


@api.get(
    "/offers/{customer_id:escaped}",
    response_model=OffersAnswer,
    responses=_REFUSALS | _NOT_FOUND,
    dependencies=allowed("crm"),
)
async def offers(customer_id: CustomerId, request: Request) -> Response:
    """What one customer will most likely buy next, as the last batch ranked it."""
    (name,) = _answers().names([customer_id])
    return _of_one(name, await _answers().offers(name), request)


@api.get(
    "/items/{item:escaped}/bought-with",
    response_model=BoughtWithAnswer,
    responses=_REFUSALS | _NO_RULE,
    dependencies=allowed("crm", of_whole_shop=True),
)
async def bought_with(
    item: Annotated[str, Path(description="a category, or a product where offers are by item", examples=["tea"])],
    top: Annotated[int, Query(ge=1, le=20, description="so many at most")] = 5,
) -> Response:
    """What the buyers of an item buy with it more than by chance, for its product page."""
    try:
        return JSONResponse(await _answers().bought_with(item, top))
    except NoSuchFilter as problem:
        message = "nothing is known to go with this item at the published as_of, more than by chance"
        raise Refused(Refusal(404, "unknown_item", message, {"item": item, "nearest": problem.nearest})) from problem


@api.get(
    "/customers/{customer_id:escaped}",
    response_model=Card,
    responses=_REFUSALS | _NOT_FOUND,
    dependencies=allowed("crm"),
)
async def customer(customer_id: CustomerId, request: Request) -> Response:
    """The card of one customer: profile, habits, history in figures, scores with reasons, offers and consents."""
    (name,) = _answers().names([customer_id])
    return _of_one(name, await _answers().card(name), request)


def _of_one(name: str, answer: dict[str, Any] | None, request: Request) -> Response:
    _read(request).rows = 0 if answer is None else 1
    if answer is None:
        raise Refused(unknown_customer(name))
    return JSONResponse(answer)


def _marked(customer_id: str) -> dict[str, Any]:
    return {"customer_id": customer_id, **unknown_customer(customer_id).body()}


@api.exception_handler(Refused)
async def _on_refused(_: Request, problem: Refused) -> Response:
    return problem.refusal.response()


@api.exception_handler(RequestValidationError)
async def _on_malformed(_: Request, problem: RequestValidationError) -> Response:
    wrong = [{"where": ".".join(map(str, e["loc"])), "problem": _in_words(e)} for e in problem.errors()[:5]]
    message = "; ".join(f"{w['where']}: {w['problem']}" for w in wrong)
    return Refusal(400, "malformed", message, {"problems": wrong}).response()


def _in_words(error: dict[str, Any]) -> str:
    match error["type"]:
        case "extra_forbidden":
            return "no such key"
        case "json_invalid":
            return f"not JSON: {error['ctx']['error']}"
        case "model_attributes_type":  # FastAPI parses only a body that says it is JSON
            return "a JSON object is expected, with the header `Content-Type: application/json`"
        case _:
            return str(error["msg"]).removeprefix("Value error, ")


@api.exception_handler(HTTPException)
async def _on_http(request: Request, problem: HTTPException) -> Response:
    code, headers = problem.detail.lower().replace(" ", "_"), dict(problem.headers or {})
    if problem.status_code == 405:  # Starlette 1.10 names the methods of one route, where a path may have several
        headers["Allow"] = ", ".join(_methods_at(request))
    return Refusal(problem.status_code, code, problem.detail, headers=headers).response()


def _methods_at(request: Request) -> list[str]:
    """Every method of the first path that a request matches."""
    routers = own_page_routes.router, privacy_routes.router, api
    own = [route for router in routers for route in router.routes if isinstance(route, APIRoute)]
    there = [route for route in own if route.matches(request.scope)[0] is not Match.NONE]
    return sorted({method for route in there if route.path == there[0].path for method in route.methods or ()})


@api.exception_handler(OSError)
@api.exception_handler(sqlite3.Error)
async def _on_full_disk(_: Request, problem: Exception) -> Response:
    """Whatever else it is, is a defect."""
    if not storage.is_full(problem):
        raise problem
    message = "the disk of the service is full, and nothing of this request was kept: make room, then come again"
    return Refusal(503, "disk_full", message, headers={"Retry-After": "60"}).response()


@api.exception_handler(Exception)
async def _on_defect(_: Request, __: Exception) -> Response:
    return Refusal(500, "internal", "the service failed to answer; its log says why").response()


def described(version: str, about: str) -> dict[str, Any]:
    """The OpenAPI description of everything that can be asked."""
    description = get_openapi(title="Perennial", version=version, description=about, routes=api.routes)
    paths = {f"/v1{path}": operations for path, operations in description["paths"].items()}
    for operations in paths.values():
        for operation in operations.values():
            operation["responses"].pop("422", None)  # FastAPI's own shape of a 400
    plain = {"text/plain": {"schema": {"type": "string"}}}
    for path, meaning in _PROBES.items():
        content = {"application/json": {"schema": _READINESS}} if path == "/readyz" else plain
        answers: dict[str, Any] = {"200": {"description": meaning, "content": content}}
        if path == "/readyz":
            answers["503"] = {"description": "it cannot yet", "content": content}
        paths[path] = {"get": {"summary": meaning, "responses": answers}}
    return description | {"paths": paths}
