"""What of a service's answers is not as it should be, since when, and why."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from features import publications
from ingest import events
from ingest.events import EventStore
from serving import telemetry
from workspace.settings import SettingsError, Workspace
from workspace.storage import CheckFailed

ROOM = 16_000_000
"""Bytes that must be free on the home's disk: what is written at a time takes less."""
_LOOK_SECONDS = 1.0
_SHOWN = 5  # events


@dataclass(frozen=True)
class Problem:
    """One thing that is not as it should be; `since` is when it began, where that is known."""

    code: str
    message: str
    since: str | None = None


class Answering(Protocol):
    """As much of a service's answers as is looked at here."""

    workspace: Workspace
    stale_since: datetime | None

    def why_stale(self) -> str | None: ...


class Health:
    """What is wrong with a service that answers; `clock` says what time it is."""

    def __init__(self, home: Path, clock: Callable[[], datetime]) -> None:
        self.home, self.clock = home, clock
        self._store: tuple[Workspace, EventStore] | None = None
        self._looked_at: tuple[float, list[Problem]] | None = None

    def problems(self, answers: Answering) -> list[Problem]:
        """Looked up at most once a second, however often probes come."""
        if self._looked_at is None or time.monotonic() - self._looked_at[0] > _LOOK_SECONDS:
            self._looked_at = time.monotonic(), list(self._problems(answers))
        return self._looked_at[1]

    def _problems(self, answers: Answering) -> Iterator[Problem]:
        if why := answers.why_stale():
            yield Problem("stale", f"answers come from the last batch's files: {why}", _iso(answers.stale_since))
        yield from self._events(answers.workspace)
        free = os.statvfs(self.home)
        room = free.f_bavail * free.f_frsize
        telemetry.DISK_FREE.set(room)
        if room < ROOM:
            told = f"{room:,} bytes are free on the home's disk: events and consents may be refused; make room"
            yield Problem("disk_full", told)

    def _events(self, workspace: Workspace) -> Iterator[Problem]:
        trouble = events.trouble(self.home)
        because = f": {trouble.problem}" if trouble.problem else ""
        try:
            count, since = self._waiting(workspace)
        except (CheckFailed, SettingsError) as problem:
            yield Problem("no_event_store", str(problem))
            return
        if since is not None and self._is_long(since):
            yield Problem("events_wait", f"scores do not show {count:,} accepted events yet{because}", _iso(since))
        elif trouble.since is not None and self._is_long(trouble.since):
            yield Problem("events_wait", f"scores will not show what happens now{because}", _iso(trouble.since))
        if aside := trouble.set_aside:
            numbers = ", ".join(map(str, sorted(aside)[:_SHOWN]))
            told = f"{len(aside):,} events are set aside (number {numbers}): {aside[min(aside)]}"
            yield Problem("events_set_aside", told)

    def _is_long(self, since: datetime) -> bool:
        return (self.clock() - since).total_seconds() > events.TOLD_AFTER

    def _waiting(self, workspace: Workspace) -> tuple[int, datetime | None]:
        """How many events the publication that answers does not show yet, and when the first of them was accepted."""
        publication = publications.published(self.home)
        if publication is None:
            return 0, None
        if self._store is None or self._store[0] != workspace:
            self._store = workspace, events.open_store(workspace)
        store = self._store[1]
        applied = store.applied(publication.view)
        return (0, None) if applied is None else (store.count_after(applied), store.waiting_since(applied))


def _iso(since: datetime | None) -> str | None:
    return None if since is None else since.isoformat(timespec="seconds")
