"""Who may ask, how a request is refused, and what metrics and logs get to see of it."""

from __future__ import annotations

import hmac
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse

from perennial.settings import SettingsError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

KEY_VARIABLE = "PERENNIAL_API_KEY"


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


def required_key() -> str:
    """The key that callers must send.

    Raises:
        SettingsError: the environment does not hold one.
    """
    key = os.environ.get(KEY_VARIABLE, "").strip()
    if not key:
        raise SettingsError(
            f"{KEY_VARIABLE} is not set, and nobody is let in without it: export {KEY_VARIABLE}=<a secret>"
        )
    return key


class BearerKey:
    """ASGI middleware: below `/v1/` only who sends `Authorization: Bearer <key>` gets through.

    Health, metrics and the API's description stay open to probes and scrapers. The key is checked before the body is
    read, so that a stranger learns nothing from how a malformed one is answered.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.key = os.environ.get(KEY_VARIABLE, "").strip().encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        guarded = scope["type"] != "lifespan" and scope["path"].startswith("/v1")
        app = _UNAUTHORIZED.response() if guarded and not self._admits(scope) else self.app
        await app(scope, receive, send)

    def _admits(self, scope: Scope) -> bool:
        sent = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        scheme, _, key = sent.partition(b" ")
        same = hmac.compare_digest(key.strip(), self.key)
        return same and bool(self.key) and scheme.lower() == b"bearer"


_UNAUTHORIZED = Refusal(
    401, "unauthorized", "send the header `Authorization: Bearer <key>` with the key of this service",
    headers={"WWW-Authenticate": "Bearer"},
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
            scope = {**scope, "path": self.route(scope["path"]), _ASKED: scope["path"]}
        await self.app(scope, receive, send)

    def route(self, path: str) -> str:
        """The path without whom it is about."""
        for thing in ("customers", "offers"):
            if path.startswith(f"/v1/{thing}/"):
                return f"/v1/{thing}/{{customer_id}}"
        return path if path in self.paths else "/{unknown}"


class AsAsked:
    """ASGI middleware inside BentoML's own: what is below it is routed by the path that was asked for."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app({**scope, "path": scope[_ASKED]} if _ASKED in scope else scope, receive, send)


_ASKED = "perennial.asked_path"
