"""What is turned away at the door, by a service that is too busy, too slow or asked for too much."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from starlette.responses import PlainTextResponse

from serving.http.access import ByRoute
from serving.http.limits import JsonLines, Limits
from workspace.settings import Service

LIMITS = Service(max_body=1000, max_requests=3, timeout=0.3)


async def _prompt(scope: Any, receive: Any, send: Any) -> None:
    body = (await receive())["body"]
    await PlainTextResponse(str(len(body)))(scope, receive, send)


async def _waiting(scope: Any, receive: Any, send: Any) -> None:
    await asyncio.sleep(0.1)
    await _prompt(scope, receive, send)


async def _slow(scope: Any, receive: Any, send: Any) -> None:
    await asyncio.sleep(LIMITS.timeout * 2)
    await _prompt(scope, receive, send)


async def _stuck(scope: Any, receive: Any, send: Any) -> None:
    await asyncio.sleep(60)


async def _long(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for _ in range(6):
        await asyncio.sleep(0.1)
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
    await send({"type": "http.response.body", "body": b""})


def through(app: Any, ask: Callable[[httpx.AsyncClient], Awaitable[Any]]) -> Any:
    """What `ask` gets from an app behind the limits."""

    async def asked() -> Any:
        transport = httpx.ASGITransport(Limits(app, LIMITS, ByRoute(app, ()).route))
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            return await ask(client)

    return asyncio.run(asked())


def code(answer: httpx.Response) -> str:
    return str(answer.json()["error"]["code"])


def test_a_large_body_is_refused_before_it_is_read() -> None:
    """Ten megabytes are refused by what they say of themselves, or as soon as they are too many; in milliseconds."""

    async def endless() -> Any:
        for _ in range(10_000):
            yield b"x" * 1000

    async def both(client: httpx.AsyncClient) -> list[httpx.Response]:
        return [await client.post("/", content=b"x" * 10_000_000), await client.post("/", content=endless())]

    start = time.perf_counter()
    answers = through(_prompt, both)
    assert [(answer.status_code, code(answer)) for answer in answers] == [(413, "body_too_large")] * 2
    assert time.perf_counter() - start < 5
    assert through(_prompt, lambda client: client.post("/", content=b"x" * 1000)).text == "1000"


def test_more_than_can_be_kept_up_with_are_turned_away() -> None:
    """Of many at once, as many as allowed are answered, the others told at once to come again; probes get through."""

    async def many(client: httpx.AsyncClient) -> list[httpx.Response]:
        return await asyncio.gather(*(client.get("/") for _ in range(8)), client.get("/livez"))

    *answers, probe = through(_waiting, many)
    assert [answer.status_code for answer in answers] == [200] * 3 + [503] * 5
    assert {code(answer) for answer in answers[3:]} == {"overloaded"}
    assert answers[-1].headers["retry-after"] == "1"
    assert probe.status_code == 200


def test_no_answer_in_time_is_a_503() -> None:
    """An answer that has not begun in time never will; one that has may take its time.

    So may what looks through all that is held of a customer, to show it or to erase it.
    """
    answer = through(_stuck, lambda client: client.get("/"))
    assert (answer.status_code, code(answer)) == (503, "timeout")
    assert answer.headers["retry-after"] == "1"
    assert through(_long, lambda client: client.get("/")).text == "xxxxxx"
    assert through(_slow, lambda client: client.delete("/")).text == "0"
    assert through(_slow, lambda client: client.get("/v1/customers/c1/data")).text == "0"
    assert through(_slow, lambda client: client.get("/v1/customers/c1%2Fdata")).status_code == 503


def test_a_request_has_an_id_and_a_line(caplog: pytest.LogCaptureFixture) -> None:
    """The caller's id if it is a plain one, else one of ours; the line names the route and nobody."""
    with caplog.at_level(logging.INFO, "perennial.requests"):
        named = through(_prompt, lambda client: client.get("/secret", headers={"X-Request-Id": "crm-17"}))
        odd = through(_prompt, lambda client: client.get("/secret", headers={"X-Request-Id": "two\twords"}))
    assert named.headers["x-request-id"] == "crm-17"
    assert odd.headers["x-request-id"].isalnum()
    line = JsonLines().format(caplog.records[0])
    told = json.loads(line)
    assert (told["request_id"], told["route"], told["status"], told["method"]) == ("crm-17", "/{unknown}", 200, "GET")
    assert "secret" not in line
