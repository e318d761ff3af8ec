"""Erasures that were asked for while a command was at work in the home: kept, and carried out when it is free.

Whoever waits here is at once known as erased - no event, consent or ingest brings them anything new - and is in no
answer, list or export, though files still have them. The service looks every few seconds whether the home is free;
every command that takes it begins with them. `home/erasures.db` has the customer's id until then, and afterwards that
it was done.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path

from workspace import privacy, storage

SECONDS = 5.0
"""How often a service looks whether it may carry out what waits."""
_SCHEMA = """
CREATE TABLE IF NOT EXISTS erasures (
    erasure_id TEXT PRIMARY KEY, who TEXT UNIQUE, asked_at TEXT NOT NULL, erased_at TEXT, found TEXT
)"""


@dataclass(frozen=True)
class Job:
    """An erasure; `erased_at` and `found`, how many rows in which place, are null while it waits."""

    erasure_id: str
    asked_at: str
    erased_at: str | None
    found: dict[str, int] | None


class ErasureQueue:
    """The erasures of one workspace. Every question is put to the file."""

    def __init__(self, home: Path) -> None:
        self.home, self.path = home, home / "erasures.db"

    def put(self, customer_id: str, now: datetime) -> Job:
        """Durable when it returns; of who waits already, the job that there is.

        Raises:
            SettingsError: there is no privacy key to mark the customer with.
        """
        privacy.note_erased(self.home, {privacy.key_of(self.home).mark(customer_id): {}})
        row = (secrets.token_hex(8), customer_id, now.isoformat())
        with closing(self._opened()) as database, database:
            database.execute("INSERT OR IGNORE INTO erasures VALUES (?, ?, ?, NULL, NULL)", row)
            (erasure_id,) = database.execute("SELECT erasure_id FROM erasures WHERE who = ?", row[1:2]).fetchone()
        job = self.job(erasure_id)
        assert job is not None
        return job

    def job(self, erasure_id: str) -> Job | None:
        if not self.path.exists():
            return None
        query = "SELECT erasure_id, asked_at, erased_at, found FROM erasures WHERE erasure_id = ?"
        row = self._reader.execute(query, (erasure_id,)).fetchone()
        return Job(row[0], row[1], row[2], json.loads(row[3]) if row[3] else None) if row else None

    def waiting(self) -> dict[str, str]:
        """The jobs of those who wait, by customer. Every answer asks: however many are done, it takes microseconds."""
        if not self.path.exists():
            return {}
        query = "SELECT who, erasure_id FROM erasures WHERE who > '' ORDER BY asked_at"  # IS NOT NULL takes no index
        return dict(self._reader.execute(query).fetchall())

    def done(self, places_of: dict[str, dict[str, int]], now: datetime) -> None:
        """Notes what was found of whom, and forgets who it was."""
        rows = [(now.isoformat(), json.dumps(places), customer_id) for customer_id, places in places_of.items()]
        with closing(self._opened()) as database, database:
            database.executemany("UPDATE erasures SET who = NULL, erased_at = ?, found = ? WHERE who = ?", rows)

    def _opened(self) -> sqlite3.Connection:
        return storage.database(self.path, _SCHEMA)

    @cached_property
    def _reader(self) -> sqlite3.Connection:
        return self._opened()
