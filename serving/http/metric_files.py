"""The files in which processes count for `/metrics`.

prometheus_client 0.24 maps sparse files: on a full disk the first count that needs a page ends the process (SIGBUS).
Here a file's room is taken before it is mapped. Where there is none the process counts for itself: its counts are
missing from `/metrics` until it is started again, and its answers are not.
"""

from __future__ import annotations

import logging
import mmap
import os
from pathlib import Path
from typing import Any

from prometheus_client import values
from prometheus_client.mmap_dict import _INITIAL_MMAP_SIZE, MmapedDict

_log = logging.getLogger("bentoml.perennial")


def take_room_first() -> None:
    """To be called before the first metric is made."""
    values.MmapedDict = _Reserved  # type: ignore[attr-defined,assignment]


class _Reserved(MmapedDict):
    """A file of counts whose room is taken, or as much memory of the process's own."""

    def __init__(self, filename: str) -> None:
        self._path = filename
        if _reserved(filename, _INITIAL_MMAP_SIZE):
            super().__init__(filename)
        else:
            self._f: Any = None
            self._positions, self._used, self._capacity = {}, 8, _INITIAL_MMAP_SIZE
            self._m = mmap.mmap(-1, self._capacity)

    def _init_value(self, key: str) -> None:
        room = 2 * len(key.encode()) + 64  # padding, value and time
        if self._used + room > self._capacity and not (self._f and _reserved(self._path, 2 * self._capacity)):
            self._to_memory()
        super()._init_value(key)

    def _to_memory(self) -> None:
        """Goes on in memory of the process's own, twice as much of it."""
        wider = mmap.mmap(-1, 2 * self._capacity)
        wider[: self._used] = self._m[: self._used]
        self.close()
        self._m, self._capacity = wider, 2 * self._capacity


def _reserved(filename: str, size: int) -> bool:
    descriptor = os.open(filename, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError as problem:
        if not os.fstat(descriptor).st_size:
            os.unlink(filename)  # who reads all files would fail on an empty one
        _log.warning("no room for %s: this process is missing from /metrics: %s", Path(filename).name, problem)
        return False
    finally:
        os.close(descriptor)
    return True
