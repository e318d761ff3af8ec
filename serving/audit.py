"""The audit log: a line for every read and export, saying who, when, what, by what filter and how many.

`home/audit.jsonl` is only ever appended to, and holds no personal data: a customer is a keyed mark, by which
`GET /v1/customers/{id}/data` finds who looked, and nothing where there is no privacy key to make it with. The system
can hold every process to appending (`chattr +a`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
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

    def add(self, read: Read, status: int = 200) -> None:
        """
        Raises:
            OSError: the line cannot be written; what it is about must not be answered then.
        """
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, self._line(read, status))
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
