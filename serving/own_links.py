"""Links by which customers reach their own page: signed, for some days, the newest of each customer alone.

A link names nobody: it is an id and a signature. Whose it is, and until when, stands in `home/own_links.db`; what signs
is in `home/own_links.key`. So neither file alone makes a link, and an erased customer's goes with everything else.
"""

from __future__ import annotations

import base64
import hmac
import re
import secrets
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from workspace import storage

_SCHEMA = """
CREATE TABLE IF NOT EXISTS own_links (
    customer_id TEXT PRIMARY KEY, link_id TEXT UNIQUE NOT NULL, made_at TEXT NOT NULL, ends_at TEXT NOT NULL
)"""
_FORM = re.compile(r"([0-9a-f]{32})([A-Za-z0-9_-]{43})")


@dataclass(frozen=True)
class Link:
    """One that has not ended."""

    link_id: str
    customer_id: str
    ends_at: datetime


class OwnLinks:
    """The links of one workspace. Every question is put to the file, so that what was ended is refused from then on."""

    def __init__(self, home: Path) -> None:
        self.path, self._key_path = home / "own_links.db", home / "own_links.key"

    def make(self, customer_id: str, days: int, now: datetime) -> tuple[str, datetime]:
        """A token, seen here alone, and when it ends; an earlier one of the customer has ended with that."""
        link_id, ends = secrets.token_hex(16), (now + timedelta(days=days)).replace(microsecond=0)
        row = (customer_id, link_id, _written(now), _written(ends))
        with closing(storage.database(self.path, _SCHEMA)) as database, database:
            database.execute("DELETE FROM own_links WHERE ends_at <= ?", (_written(now),))
            database.execute("INSERT OR REPLACE INTO own_links VALUES (?, ?, ?, ?)", row)
            if not self._key_path.exists():  # nobody else makes one meanwhile: the database is written by one at a time
                with storage.replacing(self._key_path) as draft:
                    draft.write_bytes(secrets.token_bytes(32))
            return link_id + self._signature("link", link_id), ends

    def end(self, customer_id: str) -> int:
        """How many links of the customer there were, which lead nowhere from now on."""
        if not storage.is_written(self.path):
            return 0
        with closing(storage.database(self.path, _SCHEMA)) as database, database:
            return database.execute("DELETE FROM own_links WHERE customer_id = ?", (customer_id,)).rowcount

    def signed(self, token: str) -> str | None:
        """The id in a token, if it was made here; whether it has ended is for `of`."""
        form = _FORM.fullmatch(token)
        if form is None or not self._key_path.exists():
            return None
        return form[1] if hmac.compare_digest(form[2], self._signature("link", form[1])) else None

    def of(self, link_id: str, now: datetime) -> Link | None:
        if not storage.is_written(self.path):
            return None
        query = "SELECT link_id, customer_id, ends_at FROM own_links WHERE link_id = ? AND ends_at > ?"
        with closing(storage.database(self.path, _SCHEMA)) as database:
            row = database.execute(query, (link_id, _written(now))).fetchone()
        return Link(row[0], row[1], datetime.fromisoformat(row[2])) if row else None

    def form_token(self, link_id: str) -> str:
        """What goes into every form of a link's page: whoever sends it back has seen that page."""
        return self._signature("form", link_id)

    def _signature(self, purpose: str, link_id: str) -> str:
        digest = hmac.digest(self._key_path.read_bytes(), f"{purpose} {link_id}".encode(), "sha256")
        return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def _written(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")
