"""Who has signed in to the desk: a key once shown becomes a session, which ends by itself and with its key."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import sqlite3
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path

from serving.http.keys import Caller, Keys, Role
from serving.scope import Scope
from workspace import storage

HOURS = 12
_WHOLE = "[]"  # not null, as it is in sessions of an earlier version, which knew of no scope
_SCHEMA = """
CREATE TABLE IF NOT EXISTS sessions (
    hash BLOB PRIMARY KEY, who TEXT NOT NULL, role TEXT NOT NULL, contacts INTEGER NOT NULL, key_hash BLOB,
    began_at TEXT NOT NULL, ends_at TEXT NOT NULL, scope TEXT
)"""


@dataclass(frozen=True)
class Session:
    """One that has not ended. `form_token` goes into every form: whoever sends it back has seen a page of it."""

    caller: Caller
    form_token: str


class Sessions:
    """The sessions of one workspace, which all processes of its service share; of their tokens only hashes are kept."""

    def __init__(self, home: Path, keys: Keys) -> None:
        self.path, self.keys = home / "sessions.db", keys

    def begin(self, key: str, now: datetime) -> str | None:
        """The token of a new session of whoever has this key; none where the key lets nobody in."""
        caller = self.keys.caller(key.encode())
        return self.begin_for(caller, now, _hash(key)) if caller else None

    def begin_for(self, caller: Caller, now: datetime, key_hash: bytes | None = None) -> str:
        """The same of somebody who was let in without a key: with time alone it ends."""
        token, ends = secrets.token_urlsafe(32), now + timedelta(hours=HOURS)
        row = (
            _hash(token), caller.key, caller.role, caller.contacts, key_hash, _written(now), _written(ends),
            caller.scope.as_text() or _WHOLE,
        )  # fmt: skip
        with self._database as connection:
            connection.execute("DELETE FROM sessions WHERE ends_at <= ?", (_written(now),))
            connection.execute("INSERT INTO sessions VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
        return token

    def of(self, token: str, now: datetime) -> Session | None:
        """None where it has ended, or its key was revoked."""
        if not token or not storage.is_written(self.path):
            return None
        query = "SELECT who, role, contacts, key_hash, scope FROM sessions WHERE hash = ? AND ends_at > ?"
        row = self._database.execute(query, (_hash(token), _written(now))).fetchone()
        caller = self._caller(*row) if row else None
        return Session(caller, form_token(token)) if caller else None

    def _caller(
        self, who: str, role: Role, contacts: int, key_hash: bytes | None, scope: str | None
    ) -> Caller | None:  # fmt: skip
        """Of a key, what the key is for by now; nobody of a session that an earlier version began without one."""
        if key_hash is None:
            return Caller(who, role, bool(contacts), Scope.of_text(scope)) if scope else None
        return self.keys.still(who, lambda key: hmac.compare_digest(_hash(key), key_hash))

    def end(self, token: str) -> None:
        with self._database as connection:
            connection.execute("DELETE FROM sessions WHERE hash = ?", (_hash(token),))

    @cached_property
    def _database(self) -> sqlite3.Connection:
        connection = storage.database(self.path, _SCHEMA)
        storage.add_column(connection, "sessions", "scope")
        return connection


def form_token(token: str) -> str:
    return hashlib.sha256(f"form of {token}".encode()).hexdigest()


def _hash(secret: str) -> bytes:
    """A plain hash will do, as for keys: 256 random bits are guessed by nobody."""
    return hashlib.sha256(secret.encode()).digest()


def _written(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")
