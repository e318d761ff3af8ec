"""Limits in front of everything: how large, how many, how long; an id for each request and a line in the log."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import secrets
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from serving import telemetry
from serving.http.access import Refusal, escaped
from workspace.settings import Service

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_log = logging.getLogger("perennial.requests")
_ID_HEADER = b"x-request-id"
_DIGITS = 20  # of a length that can be one; Python refuses to read a number of thousands
_OVERLOADED = Refusal(
    503,
    "overloaded",
    "more requests are under way than the service keeps up with; come again",
    headers={"Retry-After": "1"},
)
_ODD_PATH = Refusal(
    400, "malformed", "path: control characters are not part of an id",
    {"problems": [{"where": "path", "problem": "control characters are not part of an id"}]},
)  # fmt: skip
_TIMEOUT = Refusal(503, "timeout", "no answer in time; come again", headers={"Retry-After": "1"})
_CLOSE = {"Connection": "close"}  # the rest of the body would be taken for the next request
_PROBES = ("/livez", "/readyz", "/healthz", "/metrics")


class Limits:
    """ASGI middleware around everything else.

    A body is read here, whole and bounded, before it counts as a request under way. `route` names a path without ids.
    """

    def __init__(self, app: ASGIApp, settings: Service, route: Callable[[str], str]) -> None:
        self.app, self.settings, self.route = app, settings, route
        self.under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        answer = _Answer(scope, send)
        started = time.perf_counter()
        try:
            await self._pass(scope, receive, answer)
        finally:
            _log.info("request", extra={"told": {
                "request_id": answer.request_id, "method": scope["method"], "route": self.route(escaped(scope)),
                "status": answer.status, "milliseconds": round((time.perf_counter() - started) * 1000, 2),
            }})  # fmt: skip

    async def _pass(self, scope: Scope, receive: Receive, answer: _Answer) -> None:
        service = self.settings
        if re.search(r"[\x00-\x1f\x7f]", scope["path"]):
            await self._refuse(_ODD_PATH, scope, receive, answer)
            return
        try:
            async with asyncio.timeout(service.read_timeout):
                body = await _body(scope, receive, service.max_body)
        except TimeoutError:
            message = f"the body was not there within {service.read_timeout:g} s"
            await self._refuse(Refusal(408, "slow_body", message, headers=_CLOSE), scope, receive, answer)
            return
        if body is None:
            message = f"the body is larger than {service.max_body:,} bytes"
            refusal = Refusal(413, "body_too_large", message, {"most": service.max_body}, _CLOSE)
            await self._refuse(refusal, scope, receive, answer)
            return
        self.under_way += 1
        place = self.under_way
        try:
            await asyncio.sleep(0)  # all that have arrived are counted before the first of them is worked on
            if place > service.max_requests and scope["path"] not in _PROBES:
                await self._refuse(_OVERLOADED, scope, receive, answer)
            else:
                patience = None if self._takes_its_time(scope) else service.timeout
                await self._answered(scope, _replayed(body, receive), answer, patience)
        finally:
            self.under_way -= 1

    def _takes_its_time(self, scope: Scope) -> bool:
        """Whatever is held of a customer is looked for in every file of the home, to be shown or to be erased."""
        return scope["method"] == "DELETE" or self.route(escaped(scope)).endswith("/data")

    async def _answered(self, scope: Scope, receive: Receive, answer: _Answer, seconds: float | None) -> None:
        """Time is up when nothing was sent by then; what is on its way, a long list say, may take longer."""
        try:
            async with asyncio.timeout(seconds) as limit:
                answer.on_start = lambda: limit.reschedule(None)
                await self.app(scope, receive, answer.send)
        except TimeoutError:
            answer.on_start = lambda: None
            await self._refuse(_TIMEOUT, scope, receive, answer)

    async def _refuse(self, refusal: Refusal, scope: Scope, receive: Receive, answer: _Answer) -> None:
        telemetry.REFUSED.labels(refusal.code).inc()
        await refusal.response()(scope, receive, answer.send)


class _Answer:
    """What goes back: its status is remembered, and it carries the request's id."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self._send, self.status = send, 0
        sent = next((value for name, value in scope["headers"] if name == _ID_HEADER), b"")
        self.request_id = sent.decode() if re.fullmatch(rb"[A-Za-z0-9._-]{1,64}", sent) else secrets.token_hex(8)
        self.on_start: Callable[[], None] = lambda: None

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.on_start()
            headers = [*message.get("headers", ()), (_ID_HEADER, self.request_id.encode())]
            message = {**message, "headers": headers}
        await self._send(message)


async def _body(scope: Scope, receive: Receive, most: int) -> bytes | None:
    """The whole body; None where it is, or says that it is, larger than `most` bytes."""
    told = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
    if not told.isdigit() or len(told) > _DIGITS or int(told) > most:
        return None
    pieces, size, more = [], 0, True
    while more:
        message = await receive()
        pieces.append(message.get("body", b""))
        size += len(pieces[-1])
        if size > most:
            return None
        more = message.get("more_body", False)
    return b"".join(pieces)


def _replayed(body: bytes, receive: Receive) -> Receive:
    """`receive` of an application that is given the body in one piece, and then only hears that the caller has gone."""
    left = [body]

    async def receive_again() -> Message:
        return {"type": "http.request", "body": left.pop(), "more_body": False} if left else await receive()

    return receive_again


class JsonLines(logging.Formatter):
    """A log record as a line of JSON; `told` holds what a record says beyond its message."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "at": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"), "level": record.levelname.lower(),
            "message": record.getMessage(), **getattr(record, "told", {}),
        }  # fmt: skip
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)
