"""The audit log: a line for every read and export, saying who, when, what, by what filter and how many.

`home/audit.jsonl` is only ever appended to, and holds no personal data: a customer is a keyed mark, by which
`GET /v1/customers/{id}/data` finds who looked, and nothing where there is no privacy key to make it with. The system
can hold every process to appending (`chattr +a`).

On a full disk lines go into `home/audit.reserve`, whose room the service takes when it starts, and from there into the
log when there is room again. So who is answered meanwhile is on record too.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from workspace import storage
from workspace.privacy import PrivacyKey
from workspace.settings import SettingsError


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
    """The log of one workspace. Each line is one write, under a lock, so processes may share it."""

    def __init__(self, home: Path) -> None:
        self.path = home / "audit.jsonl"
        self.reserve = Reserve(home)
        self.key = _key()

    def add(self, read: Read, status: int = 200) -> None:
        """
        Raises:
            OSError: the line cannot be written; what it is about must not be answered then.
        """
        line = self._line(read, status)
        try:
            if self.reserve.is_used:
                self.reserve.empty(self._append)
            self._append(line)
        except OSError as problem:
            if problem.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            self.reserve.add(line)

    def _append(self, lines: bytes) -> None:
        """One write. What a full disk cut off of one before ends with it: a piece is no line, but spoils none.

        Alone: the end of a line that another is writing may show before the line does.
        """
        descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            end = os.fstat(descriptor).st_size
            is_cut_off = end > 0 and os.pread(descriptor, 1, end - 1) != b"\n"
            whole = b"\n" + lines if is_cut_off else lines
            if os.write(descriptor, whole) < len(whole):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
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
        """The lines that are about a customer, oldest first; whom else they are about stays out of them."""
        marks = self._marks([customer_id])
        if not marks or not self.path.exists():
            return []
        with self.path.open(encoding="utf-8") as lines:
            own = [json.loads(line) for line in lines if marks[0] in line and line.endswith("}\n")]
        return [line | {"customers": marks} for line in own]

    def _marks(self, customer_ids: Iterable[str]) -> list[str]:
        return [self.key.mark(one)[:_LENGTH] for one in customer_ids] if self.key else []


_LENGTH = 16  # hexadecimal digits
_RESERVED = 16_000_000  # bytes: some 60,000 lines


class Reserve:
    """A file of zeros that lines are written over, shared by the processes of a service: it needs no room for them."""

    def __init__(self, home: Path) -> None:
        self.path = home / "audit.reserve"
        self.is_used = self.path.exists() and _first_byte(self.path) != b"\0"

    def take_room(self) -> None:
        """Makes the file where it is not there; none where the disk is full already."""
        if not self.path.exists():
            with suppress(OSError), storage.replacing(self.path) as draft:
                draft.touch(0o600)
                draft.write_bytes(bytes(_RESERVED))

    def add(self, line: bytes) -> None:
        """
        Raises:
            OSError: there is no reserve, or it is used up.
        """
        with self._locked() as descriptor:
            end = _end(descriptor)
            if end + len(line) >= os.fstat(descriptor).st_size:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
            os.pwrite(descriptor, line, end)
        self.is_used = True

    def empty(self, append: Callable[[bytes], None]) -> None:
        """Hands all lines over, and writes zeros over them; killed in between, they are in the log twice.

        Not before there is room for all of it: each line that comes would try in vain.
        """
        free = os.statvfs(self.path)
        if free.f_bavail * free.f_frsize < _RESERVED:
            return
        with self._locked() as descriptor:
            if end := _end(descriptor):
                append(os.pread(descriptor, end, 0))
                os.pwrite(descriptor, bytes(end), 0)
        self.is_used = False

    @contextmanager
    def _locked(self) -> Iterator[int]:
        descriptor = os.open(self.path, os.O_RDWR)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield descriptor
        finally:
            os.close(descriptor)


def _end(descriptor: int) -> int:
    """Where the zeros begin: lines hold none."""
    low, high = 0, os.fstat(descriptor).st_size
    while low < high:
        middle = (low + high) // 2
        if os.pread(descriptor, 1, middle) == b"\0":
            high = middle
        else:
            low = middle + 1
    return low


def _first_byte(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(1)


def _key() -> PrivacyKey | None:
    try:
        return PrivacyKey.of_environment()
    except SettingsError:
        return None
