"""Versions of models that somebody has decided to leave where they are, so that nobody is asked about them again."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path

from workspace import storage

_SCHEMA = """
CREATE TABLE IF NOT EXISTS left_versions (
    kind TEXT NOT NULL, version TEXT NOT NULL, who TEXT NOT NULL, at TEXT NOT NULL, PRIMARY KEY (kind, version)
)"""


@dataclass(frozen=True)
class Left:
    """Who has left a version, and when."""

    who: str
    at: datetime


class LeftVersions:
    """Those of one workspace."""

    def __init__(self, home: Path) -> None:
        self.path = home / "left_versions.db"

    def put(self, kind: str, version: str, who: str, now: datetime) -> None:
        """The first to leave it stays on record."""
        with self._database as connection:
            row = (kind, version, who, now.isoformat(timespec="seconds"))
            connection.execute("INSERT OR IGNORE INTO left_versions VALUES (?, ?, ?, ?)", row)

    def of(self, kind: str, version: str) -> Left | None:
        return self.all().get((kind, version))

    def all(self) -> dict[tuple[str, str], Left]:
        """By kind and version."""
        if not storage.is_written(self.path):
            return {}
        rows = self._database.execute("SELECT kind, version, who, at FROM left_versions").fetchall()
        return {(kind, version): Left(who, datetime.fromisoformat(at)) for kind, version, who, at in rows}

    @cached_property
    def _database(self) -> sqlite3.Connection:
        return storage.database(self.path, _SCHEMA)
