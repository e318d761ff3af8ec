"""Callers that keep a socket: what they draw out has an end, and nobody else waits for them."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn
from starlette.responses import PlainTextResponse, StreamingResponse

from serving.http import connections
from serving.http.limits import Limits
from workspace.settings import Service

PATIENCE = 0.4
HEAD = b"GET / HTTP/1.1\r\nHost: here\r\n"
LENGTHY = HEAD.replace(b"GET", b"POST") + b"Content-Length: "


async def _app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "http" and scope["path"] == "/endless":
        await StreamingResponse(_endless())(scope, receive, send)
    elif scope["type"] == "http":
        await PlainTextResponse(str(len((await receive())["body"])))(scope, receive, send)


GIVEN_UP = threading.Event()


async def _endless() -> Any:
    try:
        while True:
            yield b"x" * 65_536
            await asyncio.sleep(0)
    finally:
        GIVEN_UP.set()


@pytest.fixture(scope="module")
def address() -> Iterator[tuple[str, int]]:
    """Where a server listens that is run as `processes` runs it, with little patience."""
    limited = Limits(_app, Service(read_timeout=PATIENCE), lambda path: path)
    config = uvicorn.Config(
        limited, lifespan="off", log_config=None, access_log=False, http=connections.patient(PATIENCE), ws="none",
        timeout_keep_alive=1, h11_max_incomplete_event_size=connections.MOST_HEADERS,
    )  # fmt: skip
    server, listener = uvicorn.Server(config), socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield listener.getsockname()
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


def answer(connection: socket.socket) -> bytes:
    """All that comes until the other side closes."""
    received = b""
    with contextlib.suppress(ConnectionError):
        while piece := connection.recv(65_536):
            received += piece
    return received


def dripped(address: tuple[str, int], first: bytes, drop: bytes) -> bytes:
    """What is answered to a caller that sends a little again and again, until it is sent away."""
    with socket.create_connection(address, timeout=20) as connection:
        connection.sendall(first)
        ended = threading.Event()

        def drip() -> None:
            with contextlib.suppress(OSError):
                while not ended.is_set():
                    connection.sendall(drop)
                    time.sleep(0.02)

        thread = threading.Thread(target=drip)
        thread.start()
        try:
            return answer(connection)
        finally:
            ended.set()
            thread.join()


DRIPS = {
    "request line": (b"GET /", b"a", [408]),
    "headers": (HEAD, b"X-A: b\r\n", [408]),
    "headers of the next request": (HEAD + b"\r\n" + HEAD, b"X-A: b\r\n", [200, 408]),
    "large headers": (HEAD, b"X-A: " + b"b" * 20_000 + b"\r\n", [431]),
    "body": (LENGTHY + b"1000000\r\n\r\n", b"b", [408]),
    "body in chunks": (HEAD.replace(b"GET", b"POST") + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nb\r\n", [408]),
}


@pytest.mark.parametrize(("first", "drop", "statuses"), DRIPS.values(), ids=DRIPS)
def test_what_never_ends_is_ended(address: tuple[str, int], first: bytes, drop: bytes, statuses: list[int]) -> None:
    """However steadily a caller goes on: when its time is up it is told so, and the socket is closed."""
    told = dripped(address, first, drop)
    assert [int(status) for status in re.findall(rb"HTTP/1\.1 (\d+)", told)] == statuses


def test_a_caller_that_says_nothing_is_left(address: tuple[str, int]) -> None:
    """An idle socket is closed, as it is after an answer."""
    with socket.create_connection(address, timeout=20) as connection:
        assert answer(connection) == b""
    with socket.create_connection(address, timeout=20) as connection:
        connection.sendall(HEAD + b"\r\n")
        assert answer(connection).startswith(b"HTTP/1.1 200")


def test_a_request_in_pieces_is_answered(address: tuple[str, int]) -> None:
    """Whoever ends in time is answered, the first time and the second."""
    with socket.create_connection(address, timeout=20) as connection:
        for _ in range(2):
            for piece in (HEAD, b"X-A: b\r\n", b"\r\n"):
                connection.sendall(piece)
                time.sleep(PATIENCE / 10)
            assert connection.recv(65_536).startswith(b"HTTP/1.1 200")


def test_a_caller_that_does_not_read_is_left(address: tuple[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that nobody takes is given up."""
    monkeypatch.setattr(connections, "_READING_SECONDS", PATIENCE)
    with socket.create_connection(address, timeout=20) as connection:
        connection.sendall(HEAD.replace(b"GET /", b"GET /endless") + b"\r\n")
        assert GIVEN_UP.wait(20)


@pytest.mark.parametrize(
    "said",
    [LENGTHY + b"9" * 5_000 + b"\r\n\r\n", LENGTHY + b"-1\r\n\r\n", "GET /ä HTTP/1.1\r\nHost: here\r\n\r\n".encode(),
     b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", b"GET / HTTP/1.1\r\nX\x00: y\r\n\r\n"],
    ids=["length", "negative", "path", "tls", "nul"],
)  # fmt: skip
def test_what_is_no_request_is_no_defect(address: tuple[str, int], said: bytes) -> None:
    """A length of thousands of digits, raw bytes in a path, another protocol: refused, and the next one is answered."""
    with socket.create_connection(address, timeout=20) as connection:
        connection.sendall(said)
        assert re.match(rb"HTTP/1\.1 4\d\d", answer(connection))
    with socket.create_connection(address, timeout=20) as connection:
        connection.sendall(HEAD + b"\r\n")
        assert connection.recv(65_536).startswith(b"HTTP/1.1 200")
