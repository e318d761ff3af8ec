"""The keys that callers send: shown once, kept as hashes, each with a role, revoked at once."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Literal

from serving.scope import WHOLE, Scope
from workspace import storage
from workspace.settings import SettingsError
from workspace.storage import CheckFailed

Role = Literal["crm", "marketing", "admin"]

KEY_VARIABLE = "PERENNIAL_API_KEY"
_ENVIRONMENT = "environment"
_FORM = re.compile(rb"perennial_([0-9a-f]{8})_([A-Za-z0-9_-]{43})")
_SCHEMA = """
CREATE TABLE IF NOT EXISTS keys (
    id TEXT PRIMARY KEY, hash BLOB NOT NULL, role TEXT NOT NULL, contacts INTEGER NOT NULL, name TEXT NOT NULL,
    added_at TEXT NOT NULL, revoked_at TEXT, scope TEXT
)"""


@dataclass(frozen=True)
class Caller:
    """Who asks: the key's id (`environment` for the one in PERENNIAL_API_KEY), what it is for, of whom."""

    key: str
    role: Role
    contacts: bool = False
    scope: Scope = WHOLE

    @property
    def sees_contacts(self) -> bool:
        return self.contacts or self.role == "admin"


@dataclass(frozen=True)
class Key:
    """What is kept of a key, which is not the key; times are ISO 8601."""

    id: str
    role: Role
    contacts: bool
    name: str
    added_at: str
    revoked_at: str | None
    scope: Scope


class Keys:
    """The keys of one workspace. Every question is put to the file, so that a revoked key is refused from then on."""

    def __init__(self, home: Path) -> None:
        self.path = home / "keys.db"

    def add(
        self, role: Role, now: datetime, contacts: bool = False, name: str = "", scope: Scope = WHOLE
    ) -> str:  # fmt: skip
        """Makes a key and returns it: the only time that it is seen."""
        key_id, secret = secrets.token_hex(4), secrets.token_urlsafe(32)
        row = (
            key_id, _hash(secret.encode()), role, contacts, name, now.isoformat(timespec="seconds"), scope.as_text()
        )  # fmt: skip
        with self._database as connection:
            connection.execute("INSERT INTO keys VALUES (?, ?, ?, ?, ?, ?, NULL, ?)", row)
        return f"perennial_{key_id}_{secret}"

    def revoke(self, key_id: str, now: datetime) -> None:
        """
        Raises:
            CheckFailed: there is no such key, or it was revoked before.
        """
        query = "UPDATE keys SET revoked_at = ? WHERE id = ? AND revoked_at IS NULL"
        with self._database as connection:
            if not connection.execute(query, (now.isoformat(timespec="seconds"), key_id)).rowcount:
                raise CheckFailed(f"there is no key {key_id} to revoke; `perennial keys list` shows them")

    def listed(self) -> list[Key]:
        query = "SELECT id, role, contacts, name, added_at, revoked_at, scope FROM keys ORDER BY added_at, id"
        return [
            Key(key_id, role, bool(contacts), name, added_at, revoked_at, Scope.of_text(scope))
            for key_id, role, contacts, name, added_at, revoked_at, scope in self._database.execute(query)
        ]

    def caller(self, sent: bytes) -> Caller | None:
        """Who sends this key; nobody for one that is wrong or revoked. It takes as long for either."""
        own = os.environ.get(KEY_VARIABLE, "").strip().encode()
        if own and hmac.compare_digest(sent, own):
            return Caller(_ENVIRONMENT, "admin")
        form = _FORM.fullmatch(sent)
        if form is None or not storage.is_written(self.path):
            return None
        query = "SELECT hash, role, contacts, scope FROM keys WHERE id = ? AND revoked_at IS NULL"
        row = self._database.execute(query, (form[1].decode(),)).fetchone()
        kept, *allowed = row or (bytes(32),)
        same = hmac.compare_digest(_hash(form[2]), kept)
        return _caller(form[1].decode(), *allowed) if same and allowed else None

    def still(self, key_id: str, is_same: Callable[[str], bool]) -> Caller | None:
        """Whom a key lets in that was sent before; nobody where it was revoked, or the environment has another now."""
        if key_id == _ENVIRONMENT:
            own = os.environ.get(KEY_VARIABLE, "").strip()
            return Caller(_ENVIRONMENT, "admin") if own and is_same(own) else None
        query = "SELECT role, contacts, scope FROM keys WHERE id = ? AND revoked_at IS NULL"
        row = self._database.execute(query, (key_id,)).fetchone() if storage.is_written(self.path) else None
        return _caller(key_id, *row) if row else None

    def in_use(self) -> int:
        """How many keys let somebody in, the one in the environment among them."""
        own = bool(os.environ.get(KEY_VARIABLE, "").strip())
        return own + (sum(key.revoked_at is None for key in self.listed()) if storage.is_written(self.path) else 0)

    def refuse_if_none(self) -> None:
        """
        Raises:
            SettingsError: nobody could be let in.
        """
        if not self.in_use():
            raise SettingsError(
                f"{KEY_VARIABLE} is not set and there is no other key, so nobody could be let in: export"
                f" {KEY_VARIABLE}=<a secret>, or add a key with `perennial keys add`"
            )

    @cached_property
    def _database(self) -> sqlite3.Connection:
        connection = storage.database(self.path, _SCHEMA)
        storage.add_column(connection, "keys", "scope")
        return connection


def _caller(key: str, role: Role, contacts: int, scope: str | None) -> Caller:
    return Caller(key, role, bool(contacts), Scope.of_text(scope))


def _hash(secret: bytes) -> bytes:
    """A plain hash will do: what is hashed is 256 random bits, which nobody guesses however quick the hash."""
    return hashlib.sha256(secret).digest()
