"""What customers say is wrong about them: an inbox that the company reads, and takes out of what is settled.

It lies in `home/corrections.db`, in the customers' own words; nothing that is held changes by itself.
"""

from __future__ import annotations

import secrets
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from workspace import storage

LONGEST = 2_000  # characters
MOST = 20
"""Of one customer that wait at the same time."""
_SCHEMA = """
CREATE TABLE IF NOT EXISTS corrections (
    correction_id TEXT PRIMARY KEY, customer_id TEXT NOT NULL, asked_at TEXT NOT NULL, text TEXT NOT NULL
)"""


@dataclass(frozen=True)
class Correction:
    """One that waits; `asked_at` is ISO 8601."""

    correction_id: str
    customer_id: str
    asked_at: str
    text: str


class Corrections:
    """The inbox of one workspace."""

    def __init__(self, home: Path) -> None:
        self.path = home / "corrections.db"

    def put(self, customer_id: str, text: str, now: datetime) -> bool:
        """Durable when it returns; false, and nothing is kept, where `MOST` of the customer wait already."""
        row = (secrets.token_hex(8), customer_id, now.isoformat(timespec="seconds"), text)
        among = "(SELECT count(*) FROM corrections WHERE customer_id = ?)"
        with closing(storage.database(self.path, _SCHEMA)) as database, database:
            query = f"INSERT INTO corrections SELECT ?, ?, ?, ? WHERE {among} < ?"
            return database.execute(query, (*row, customer_id, MOST)).rowcount > 0

    def waiting(self, most: int) -> list[Correction]:
        """The oldest first."""
        if not storage.is_written(self.path):
            return []
        query = "SELECT correction_id, customer_id, asked_at, text FROM corrections ORDER BY asked_at, rowid LIMIT ?"
        with closing(storage.database(self.path, _SCHEMA)) as database:
            return [Correction(*row) for row in database.execute(query, (most,))]

    def count(self) -> int:
        """How many customers wait."""
        if not storage.is_written(self.path):
            return 0
        with closing(storage.database(self.path, _SCHEMA)) as database:
            return int(database.execute("SELECT count(DISTINCT customer_id) FROM corrections").fetchone()[0])

    def settled(self, correction_id: str) -> str | None:
        """Takes one out of the inbox; whose it was, none where there is no such one."""
        if not storage.is_written(self.path):
            return None
        query = "DELETE FROM corrections WHERE correction_id = ? RETURNING customer_id"
        with closing(storage.database(self.path, _SCHEMA)) as database, database:
            row = database.execute(query, (correction_id,)).fetchone()
        return row[0] if row else None
