"""The audit log: a line for every read and export, saying who, when, what, by what filter and how many.

`home/audit.jsonl` is only ever appended to, and holds no personal data: a customer is a keyed mark, by which
`GET /v1/customers/{id}/data` finds who looked, and nothing where there is no privacy key to make it with. The system
can hold every process to appending (`chattr +a`).
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from perennial.privacy import PrivacyKey
from perennial.settings import SettingsError


@dataclass
class Read:
    """One read under way. A route adds what only it knows: its `filter`, how many `rows`, and about which customers."""

    who: str
    role: str
    what: str
    at: datetime
    filter: Mapping[str, Any] = field(default_factory=dict)
    rows: int | None = None
    customers: Sequence[str] = ()


class AuditLog:
    """The log of one workspace. Lines are one write to a file opened for appending, so processes may share it."""

    def __init__(self, home: Path) -> None:
        self.path = home / "audit.jsonl"
        self.key = _key()
        self._owed: list[tuple[Read, int]] = []
        self._writing: asyncio.Task[None] | None = None
        self._writer = ThreadPoolExecutor(1, "audit")

    def add(self, read: Read, status: int = 200) -> None:
        """
        Raises:
            OSError: the line cannot be written; what it is about must not be answered then.
        """
        self._append([(read, status)])

    async def note(self, read: Read, status: int) -> None:
        """`add` beside the event loop, the lines of requests at the same time in one write; returns when it is done."""
        self._owed.append((read, status))
        if self._writing is None:
            self._writing = asyncio.create_task(self._write())
        await asyncio.shield(self._writing)  # who gives up waiting does not stop it for the others

    async def _write(self) -> None:
        owed, self._owed, self._writing = self._owed, [], None
        await asyncio.get_running_loop().run_in_executor(self._writer, self._append, owed)

    def _append(self, reads: Iterable[tuple[Read, int]]) -> None:
        lines = b"".join(self._line(read, status) for read, status in reads)
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, lines)
        finally:
            os.close(descriptor)

    def _line(self, read: Read, status: int) -> bytes:
        line = {
            "at": read.at.isoformat(timespec="milliseconds"), "who": read.who, "role": read.role,
            "what": read.what, "status": status, "filter": {k: v for k, v in read.filter.items() if v is not None},
            "rows": read.rows, "customers": self._marks(read.customers),
        }  # fmt: skip
        return json.dumps(line, default=str).encode() + b"\n"

    def mentions(self, customer_id: str) -> list[dict[str, Any]]:
        """The lines that are about a customer, oldest first."""
        marks = self._marks([customer_id])
        if not marks or not self.path.exists():
            return []
        with self.path.open(encoding="utf-8") as lines:
            return [json.loads(line) for line in lines if marks[0] in line]

    def _marks(self, customer_ids: Iterable[str]) -> list[str]:
        return [self.key.mark(one)[:_LENGTH] for one in customer_ids] if self.key else []


_LENGTH = 16  # hexadecimal digits


def _key() -> PrivacyKey | None:
    try:
        return PrivacyKey.of_environment()
    except SettingsError:
        return None
