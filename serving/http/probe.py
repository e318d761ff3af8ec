"""`/readyz`: whether the service can answer, and what of its answers is not as it should be.

It is 503 only while there is nothing to answer with. Answers from files, and events that no score shows, are told in a
200: taking a service out of rotation for them would leave callers with less. `status` is `degraded` then, and the
metrics and alerts say the same to people.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse

from serving.http.access import Refused
from serving.http.health import Problem

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from serving.http.answers import Answers

# What names a place, and what stands for it: of an address as `scheme://...`, as `at host:port`, or as PostgreSQL's
# driver writes it.
_PLACES = {
    r" \([^()]*\w+://[^()]*\)": "",
    r", Redis at [^\s,]+,": "",
    r"\bin \w+://\S*[^\s:;,.]": "in the online store",
    r"\w+://\S*[^\s:;,.]": "its address",
    r' (at|to) [^\s,;]+:\d+| at "[^"]+"(, port \d+)?|(?<=host name) "[^"]+"': "",
}


class Readiness:
    """ASGI middleware that answers `/readyz`; `answers` are those of the service."""

    def __init__(self, app: ASGIApp, answers: Callable[[], Answers]) -> None:
        self.app, self.answers = app, answers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == "/readyz":
            await (await asyncio.to_thread(_readiness, self.answers()))(scope, receive, send)
        else:
            await self.app(scope, receive, send)


def _readiness(answers: Answers) -> JSONResponse:
    try:
        answers.current()
    except Refused as refused:
        problems = [Problem(refused.refusal.code, refused.refusal.message)]
        return JSONResponse(_told("unavailable", problems, answers.home), 503, headers=dict(refused.refusal.headers))
    problems = answers.health.problems(answers)
    return JSONResponse(_told("degraded" if problems else "ready", problems, answers.home))


def _told(status: str, problems: Iterable[Problem], home: Path) -> dict[str, Any]:
    """Without where the home and the stores are: probes send no key. The log and the alerts say it."""
    shown = ((one, one.message.replace(str(home), "[home]")) for one in problems)
    return {"status": status, "problems": [asdict(one) | {"message": _without_places(text)} for one, text in shown]}


def _without_places(text: str) -> str:
    for place, instead in _PLACES.items():
        text = re.sub(place, instead, text)
    return text
