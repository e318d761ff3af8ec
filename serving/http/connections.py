"""How long a caller may take to say what it wants, and to take what it is given, before its socket is closed.

uvicorn waits for ever for headers that do not end, and for a caller that does not read; a few hundred such callers
would leave no socket to anybody else. What a request may take once it is understood is for `limits`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

from uvicorn.protocols.http.auto import AutoHTTPProtocol

if TYPE_CHECKING:
    from asyncio import TimerHandle, Transport

MOST_HEADERS = 65_536  # bytes, with the request line
_READING_SECONDS = 60  # until a caller must have read some of an answer that the system keeps for it
_SLOW = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


class Connection(AutoHTTPProtocol):  # type: ignore[valid-type, misc]
    """uvicorn's, with an end to everything that a caller can draw out. `patience`: seconds for a request's headers."""

    patience: float
    transport: Transport

    def __init__(self, *of: Any, **named: Any) -> None:
        super().__init__(*of, **named)
        self._unread = 0  # bytes of headers that do not end yet
        self._hearing: TimerHandle | None = None
        self._reading: TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._hear()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._is_answering():
            self._understood()
            return
        self._unread += len(data)
        if self._unread > MOST_HEADERS:
            self._refuse(_LARGE)
        else:
            self._hear()

    def connection_lost(self, exc: Exception | None) -> None:
        self._understood()
        self._taken()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._reading = self._reading or self._later(_READING_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._taken()

    def _is_answering(self) -> bool:
        """Whether a request's headers are there, and its answer is not yet."""
        cycle = cast(Any, self).cycle
        return cycle is not None and not cycle.response_complete

    def _hear(self) -> None:
        """Counts from the first byte, or from the beginning; more bytes do not begin it anew."""
        self._hearing = self._hearing or self._later(self.patience, self._too_slow)

    def _too_slow(self) -> None:
        if not self._is_answering():
            self._refuse(_SLOW if self._unread else b"")

    def _refuse(self, answer: bytes) -> None:
        """What the system has not sent by then is nobody's; a caller that does not read is not waited for."""
        if not self.transport.is_closing():
            self.transport.write(answer)
        self.transport.close()
        self._later(1, self.transport.abort)

    def _understood(self) -> None:
        self._unread = 0
        if self._hearing is not None:
            self._hearing.cancel()
            self._hearing = None

    def _taken(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None

    def _later(self, seconds: float, do: Any) -> TimerHandle:
        return asyncio.get_running_loop().call_later(seconds, do)


def patient(seconds: float) -> type[asyncio.Protocol]:
    """The class of connections whose requests must have been said within so many seconds."""
    return cast(type[asyncio.Protocol], type("Connection", (Connection,), {"patience": seconds}))
