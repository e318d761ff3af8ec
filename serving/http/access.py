"""Who may ask, how a request is refused, and what metrics and logs get to see of it."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote, unquote

from fastapi import Depends, Request, Security, params
from fastapi.security import HTTPBearer
from starlette.convertors import Convertor, register_url_convertor
from starlette.responses import JSONResponse

from serving import telemetry
from serving.http.audit import AuditLog, Read
from serving.http.keys import Caller, Keys, Role
from workspace import ids

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send


@dataclass(frozen=True)
class Refusal:
    """Why a request gets no answer: an HTTP status, a code for programs, a sentence for people."""

    status: int
    code: str
    message: str
    details: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)

    def body(self) -> dict[str, Any]:
        return {"error": {"code": self.code, "message": self.message, "details": dict(self.details)}}

    def response(self) -> JSONResponse:
        return JSONResponse(self.body(), self.status, headers=dict(self.headers))


class Refused(Exception):
    """Ends a request; the service answers with the refusal."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


class Gate:
    """Who is let into one workspace, and the note that is made of what they read. `clock` says what time it is."""

    def __init__(self, home: Path, rate_limit: float, clock: Callable[[], datetime]) -> None:
        self.keys, self.audit, self.rates, self.clock = Keys(home), AuditLog(home), Rates(rate_limit), clock

    def caller(self, authorization: bytes) -> Caller:
        """
        Raises:
            Refused: no key, a wrong or a revoked one; or more requests with it than `service.rate_limit` allows.
        """
        scheme, _, sent = authorization.partition(b" ")
        caller = self.keys.caller(sent.strip()) if scheme.lower() == b"bearer" else None
        if caller is None:
            raise Refused(_UNAUTHORIZED)
        if wait := self.rates.wait(caller.key):
            message = f"more than {self.rates.most:g} requests per second with this key"
            raise Refused(Refusal(429, "too_many_requests", message, headers={"Retry-After": str(math.ceil(wait))}))
        return caller


class Rates:
    """A bucket of tokens for each key: `most` requests at once, and as many in every second that follows."""

    def __init__(self, most: float) -> None:
        self.most = most
        self._buckets: dict[str, tuple[float, float]] = {}

    def wait(self, key: str) -> float:
        """Seconds until the next request with this key may come; 0 for one that may now, and then counts."""
        now, most = time.monotonic(), max(self.most, 1.0)
        tokens, then = self._buckets.get(key, (most, now))
        tokens = min(most, tokens + (now - then) * self.most)
        self._buckets[key] = (tokens - (tokens >= 1), now)
        return 0.0 if tokens >= 1 else (1 - tokens) / self.most


class Guard:
    """ASGI middleware: below `/v1/` only who sends `Authorization: Bearer <key>` gets through, and leaves a line.

    Health, metrics and the API's description stay open to probes and scrapers. The key is checked before the body is
    looked at, so that a stranger learns nothing from how a malformed one is answered. The line is in the audit log
    before the first byte of the answer is sent, or there is no answer.
    """

    def __init__(self, app: ASGIApp, gate: Callable[[], Gate]) -> None:
        self.app, self.gate = app, gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or not scope["path"].startswith("/v1"):
            await self.app(scope, receive, send)
            return
        gate = self.gate()
        try:
            caller = gate.caller(next((value for name, value in scope["headers"] if name == b"authorization"), b""))
        except Refused as refused:
            telemetry.REFUSED.labels(refused.refusal.code).inc()
            await refused.refusal.response()(scope, receive, send)
            return
        read = Read(caller.key, caller.role, f"{scope.get('method')} unknown path", gate.clock())
        scope.setdefault("state", {}).update(caller=caller, read=read)
        await self.app(scope, receive, _Noted(gate.audit, read, scope, receive, send))


class _Noted:
    """`send` for an answer that a line is owed for: without it a refusal is sent in the answer's place."""

    def __init__(self, audit: AuditLog, read: Read, scope: Scope, receive: Receive, send: Send) -> None:
        self.audit, self.read, self.asked, self.send = audit, read, (scope, receive), send
        self.refused = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            try:
                self.audit.add(self.read, message["status"])
            except OSError:
                self.refused = True
                await _NOT_RECORDED.response()(*self.asked, self.send)
        if not self.refused:
            await self.send(message)


def allowed(*roles: Role, of_whole_shop: bool = False) -> list[params.Depends]:
    """What a route depends on: the caller has one of these roles, or is an admin. The audit log learns the route.

    What is of the whole shop is not for who is limited to a part of it.
    """
    permission = Permission(frozenset((*roles, "admin")), of_whole_shop)
    return [Security(_bearer, scopes=[*roles, "admin"]), Depends(permission)]


# Only describes the key in the API's description: Guard has checked it before.
_bearer = HTTPBearer(auto_error=False, description="a key of the service; `security` names the roles that may ask")


@dataclass(frozen=True)
class Permission:
    """Checks a request against the roles of its route, and whom it is about against the caller's scope."""

    roles: frozenset[Role]
    of_whole_shop: bool = False

    async def __call__(self, request: Request) -> None:
        """
        Raises:
            Refused: the caller has another role, or is limited to a part of the shop, and this is of another.
        """
        read: Read = request.state.read
        read.what = f"{request.method} {request.scope['route'].path_format}"
        with suppress(KeyError, ValueError):
            read.customers = (ids.canonical(request.path_params["customer_id"]),)
        caller: Caller = request.state.caller
        if caller.role not in self.roles:
            names = ", ".join(sorted(self.roles))
            raise Refused(Refusal(403, "forbidden", f"this takes a key of another role: {names}"))
        import bentoml  # here, since assistants are kept out by this module too, without the service

        await refuse_outside(bentoml.get_current_service().answers, caller, request.path_params, self.of_whole_shop)


class Answering(Protocol):
    """As much of a service's answers as is asked here."""

    async def sees(self, caller: Caller, customer_id: str) -> bool: ...


async def refuse_outside(
    answers: Answering, caller: Caller, path: Mapping[str, Any], is_of_whole_shop: bool
) -> None:  # fmt: skip
    """The one place where who is limited to a part of the shop is kept from the rest.

    A `customer_id` in the path is refused as one that is unknown, whether anybody has it or not.

    Raises:
        Refused: what is asked for is of the whole shop, or of nobody who is known to be in the caller's part.
    """
    if not caller.scope:
        return
    if is_of_whole_shop:
        message = "this is of the whole shop, and you see a part of it: ask with a key that is not limited"
        raise Refused(Refusal(403, "forbidden", message))
    if "customer_id" in path and not await answers.sees(caller, path["customer_id"]):
        raise Refused(unknown_customer(path["customer_id"]))


def unknown_customer(customer_id: str) -> Refusal:
    message = "no customer with this id was known at the published as_of"
    return Refusal(404, "unknown_customer", message, {"customer_id": customer_id})


_UNAUTHORIZED = Refusal(
    401, "unauthorized", "send the header `Authorization: Bearer <key>` with a key of this service",
    headers={"WWW-Authenticate": "Bearer"},
)  # fmt: skip
_NOT_RECORDED = Refusal(
    503, "no_audit", "the audit log cannot be written, and nothing is answered without it",
    headers={"Retry-After": "60"},
)  # fmt: skip


class ByRoute:
    """ASGI middleware around BentoML's own: metrics and the access log see the route, not who was asked about.

    BentoML 1.4 labels its time series with the raw path: one for each customer, and for each path that a scanner tries,
    until the process ends. `paths` are those to keep; `AsAsked` puts the real one back for routing.
    """

    def __init__(self, app: ASGIApp, paths: Iterable[str]) -> None:
        self.app, self.paths = app, frozenset(paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope = {**scope, "path": self.route(escaped(scope)), _ASKED: escaped(scope)}
        await self.app(scope, receive, send)

    def route(self, path: str) -> str:
        """The path without whom it is about."""
        if path.startswith("/v1/erasures/"):
            return "/v1/erasures/{erasure_id}"
        if path.startswith("/v1/corrections"):
            return "/v1/corrections/{correction_id}" if path.startswith("/v1/corrections/") else "/v1/corrections"
        if path.startswith("/own/"):
            return _own_page_route(path)
        if path.startswith("/desk"):
            return _desk_route(path)
        for thing, tails in (("customers", ("/consent", "/data", "/own-page")), ("offers", ())):
            if path.startswith(f"/v1/{thing}/"):
                tail = next((tail for tail in tails if path.endswith(tail)), "")
                return f"/v1/{thing}/{{customer_id}}{tail}"
        return path if path in self.paths else "/{unknown}"


def _own_page_route(path: str) -> str:
    """A step on a customer's own page, without the link to it."""
    token, _, step = path.removeprefix("/own/").partition("/")
    if token == "files":
        return "/own/files"
    return f"/own/{{token}}/{step}" if step in ("data", "consent", "correction", "erasure") else "/own/{token}"


def _desk_route(path: str) -> str:
    """A page of the desk, without whom it is about."""
    room, _, rest = path.removeprefix("/desk").strip("/").partition("/")
    known = room in ("", "sign-in", "sign-out", "lists", "customers", "trust", "jobs", "reports", "files")
    return f"/desk/{room}{'/...' if rest else ''}".rstrip("/") if known else "/{unknown}"


class AsAsked:
    """ASGI middleware inside BentoML's own: what is below it is routed by the path that was asked for, as escaped."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app({**scope, "path": scope[_ASKED]} if _ASKED in scope else scope, receive, send)


def escaped(scope: Scope) -> str:
    """The path whose slashes and percent signs that were escaped still are: they are an id's, not the address's.

    ASGI unescapes paths, by which `x%2Fdata`, an id, and `x/data`, what is held of `x`, would be the same.
    """
    sent = scope.get("raw_path") or quote(scope["path"]).encode()
    return unquote(_KEPT_ESCAPED.sub(lambda escape: b"%25" + (escape[1] or b"25"), sent).decode("ascii", "replace"))


class _Escaped(Convertor[str]):
    """An id in a path, which may have slashes in it; one that ends like another address has them escaped."""

    regex = ".*"

    def convert(self, value: str) -> str:
        return unquote(value)

    def to_string(self, value: str) -> str:
        return quote(value, safe="")


register_url_convertor("escaped", _Escaped())
# A slash, a percent sign, or one that escapes nothing.
_KEPT_ESCAPED = re.compile(rb"%(25|2f|(?![0-9a-f]{2}))", re.IGNORECASE)
_ASKED = "perennial.asked_path"
