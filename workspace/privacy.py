"""The privacy key, and what is made with it: pseudonyms, marks of customers who were erased, encrypted contact data.

The key is in the environment and nowhere else. One key for each purpose is derived from it, so that a mark says nothing
about a pseudonym.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import hmac
import os
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workspace import storage
from workspace.settings import SettingsError, Workspace

if TYPE_CHECKING:
    import duckdb

KEY_VARIABLE = "PERENNIAL_PRIVACY_KEY"
_SHORTEST = 16  # characters; a keyed hash is no better than its key
_PSEUDONYM = "pseudonym-"
_MARKED_WITH = "erased_key.json"
_WORD = 13  # letters and digits of 5 bits each: of a million words no two are likely to meet
_LENGTH = 32  # hexadecimal digits of a pseudonym: among 10^15 customers two would not meet


class PrivacyKey:
    """What the key in the environment allows: the same key gives the same answers, on any machine."""

    def __init__(self, secret: str) -> None:
        from cryptography.fernet import Fernet

        self._secret = secret.encode()
        self._pseudonym, self._mark = _Keyed(self._derived("pseudonym")), _Keyed(self._derived("mark"))
        self._word = _Keyed(self._derived("word"))
        self._fernet = Fernet(base64.urlsafe_b64encode(self._derived("pii")))

    @classmethod
    def of_environment(cls) -> PrivacyKey:
        """
        Raises:
            SettingsError: there is none, or one that can be guessed.
        """
        secret = os.environ.get(KEY_VARIABLE, "").strip()
        if len(secret) < _SHORTEST:
            state = f"has {len(secret)} characters, at least {_SHORTEST} are needed" if secret else "is not set"
            raise SettingsError(f"{KEY_VARIABLE} {state}: export {KEY_VARIABLE}=<a secret that this workspace keeps>")
        return cls(secret)

    def pseudonym(self, customer_id: str) -> str:
        """What a customer of the source is called where `pseudonyms` is set; a pseudonym stays what it is."""
        if customer_id.startswith(_PSEUDONYM):
            return customer_id
        return _PSEUDONYM + self._pseudonym(customer_id)[:_LENGTH]

    def mark(self, customer_id: str) -> str:
        """By what a customer is recognised whose id may not be kept; the same for an id and for its pseudonym."""
        return self._mark(self.pseudonym(customer_id))

    def encrypted(self, text: str) -> str:
        """The cipher, and behind it a mark of each word, by which the text is found again without being read."""
        return " ".join([self._fernet.encrypt(text.encode()).decode(), *self.word_marks(text)])

    def word_marks(self, text: str) -> list[str]:
        """A keyed hash of each word, in whatever case and form, and of all together: 0170 12 is found by 017012."""
        words = unicodedata.normalize("NFKC", text).casefold().split()
        digests = (bytes.fromhex(self._word(word)) for word in dict.fromkeys([*words, "".join(words)]))
        return [base64.b32encode(digest).decode()[:_WORD] for digest in digests]

    def decrypted(self, text: str) -> str:
        """What was encrypted.

        Raises:
            SettingsError: it was encrypted with another key.
        """
        from cryptography.fernet import InvalidToken

        try:
            return self._fernet.decrypt(text.split(" ", 1)[0].encode()).decode()
        except InvalidToken:
            raise SettingsError(f"{KEY_VARIABLE} is not the key that this was encrypted with; set the former") from None

    @property
    def fingerprint(self) -> str:
        """Tells one key from another, and nothing about it."""
        return self._derived("fingerprint").hex()

    def teach(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Gives DuckDB the same functions: `pseudonym(text)`, `mark(text)` and `encrypted(text)`.

        The keys are variables of the session: no query, and so no error of DuckDB's, holds one. HMAC is written out,
        since DuckDB 2.0 has SHA-256 but not that.
        """
        for purpose in ("pseudonym", "mark"):
            inner, outer = _pads(self._derived(purpose))
            connection.execute(f"SET VARIABLE {purpose}_inner = ?::BLOB", [inner])
            connection.execute(f"SET VARIABLE {purpose}_outer = ?::BLOB", [outer])
        renamed = f"'{_PSEUDONYM}' || left({_hmac('pseudonym', 'id')}, {_LENGTH})"
        connection.execute(f"""
            CREATE OR REPLACE TEMP MACRO pseudonym(id) AS
                CASE WHEN starts_with(id, '{_PSEUDONYM}') THEN id ELSE {renamed} END;
            CREATE OR REPLACE TEMP MACRO mark(id) AS {_hmac("mark", "pseudonym(id)")}""")
        connection.create_function("encrypted", self.encrypted, ["VARCHAR"], "VARCHAR", side_effects=True)  # type: ignore[list-item, arg-type]

    def _derived(self, purpose: str) -> bytes:
        return hmac.digest(self._secret, purpose.encode(), "sha256")


class _Keyed:
    """HMAC-SHA256 (RFC 2104) of texts with one key, in a quarter of the time that `hmac` takes for each."""

    def __init__(self, key: bytes) -> None:
        self._inner, self._outer = map(hashlib.sha256, _pads(key))

    def __call__(self, text: str) -> str:
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(text.encode())
        outer.update(inner.digest())
        return outer.hexdigest()


def _pads(key: bytes) -> tuple[bytes, bytes]:
    padded = key.ljust(64, b"\0")
    return bytes(byte ^ 0x36 for byte in padded), bytes(byte ^ 0x5C for byte in padded)


def _hmac(purpose: str, text: str) -> str:
    """RFC 2104 in SQL."""
    inner, outer = (f"getvariable('{purpose}_{side}')" for side in ("inner", "outer"))
    return f"sha256({outer} || unhex(sha256({inner} || encode({text}))))"


def naming(workspace: Workspace) -> Callable[[str], str]:
    """What gives the name by which the workspace knows a customer: the id itself, or its pseudonym.

    Raises:
        SettingsError: it takes the privacy key, and there is none.
    """
    return PrivacyKey.of_environment().pseudonym if workspace.pseudonyms else str


def refuse_without_key(workspace: Workspace) -> None:
    """
    Raises:
        SettingsError: the workspace has pseudonyms, contact data or erased customers, and the environment no privacy
            key to recognise them by, or another one.
    """
    if workspace.pseudonyms or workspace.pii or erased(workspace.home_path):
        key_of(workspace.home_path)


def key_of(home: Path) -> PrivacyKey:
    """The key by which a home's erased customers are recognised.

    Raises:
        SettingsError: the environment has none, or not the one that they were marked with.
    """
    key, noted = PrivacyKey.of_environment(), home / _MARKED_WITH
    if noted.exists() and storage.read_json(noted) != key.fingerprint:
        raise SettingsError(
            f"{KEY_VARIABLE} is not the key that the customers erased from {home} were marked with: none of them would"
            " be recognised; set the former"
        )
    return key


def erased_path(home: Path) -> Path:
    return home / "erased.json"


def erased(home: Path) -> dict[str, Any]:
    """What was erased, by the customers' marks: in which places how many rows were found, and whether all are gone."""
    path = erased_path(home)
    return dict(_noted(path, storage.edition(path))) if path.exists() else {}


@lru_cache(maxsize=2)
def _noted(path: Path, _: tuple[int, ...]) -> dict[str, Any]:
    """The note as it was; every event that comes in asks for it."""
    return dict(storage.read_json(path))


def erased_among(home: Path, customer_ids: Iterable[str]) -> set[str]:
    """Those of these customers who were erased.

    Raises:
        SettingsError: somebody was, and the privacy key is not there to recognise whom.
    """
    marks = erased(home)
    if not marks:
        return set()
    key = key_of(home)
    return {customer_id for customer_id in customer_ids if key.mark(customer_id) in marks}


def note_erased(home: Path, places_of: Mapping[str, Mapping[str, int]], done: bool = False) -> dict[str, Any]:
    """Notes customers, by their marks, as erased, with what was found of them beside what was found before.

    Whoever is `keeping` something is waited for; from then on nothing is kept of them. Returns all that is noted.
    """
    key = key_of(home)
    with marking(home):
        path = erased_path(home)
        noted = storage.read_json(path) if path.exists() else {}
        for mark, places in places_of.items():
            noted[mark] = {"found": {**noted.get(mark, {}).get("found", {}), **places}, "done": done}
        storage.write_json(path, noted)
        storage.write_json(home / _MARKED_WITH, key.fingerprint)
    return noted


@contextmanager
def keeping(home: Path) -> Iterator[None]:
    """While it lasts nobody more is marked as erased.

    What is kept meanwhile, of customers who are not erased by then, an erasure that begins later will find.
    """
    with _erasures_locked(home, fcntl.LOCK_SH):
        yield


@contextmanager
def marking(home: Path) -> Iterator[None]:
    """Waits until nobody is `keeping` anything; who is marked meanwhile is known as erased to all that follow."""
    with _erasures_locked(home, fcntl.LOCK_EX):
        yield


@contextmanager
def _erasures_locked(home: Path, how: int) -> Iterator[None]:
    path, shared = home / ".erasures", how == fcntl.LOCK_SH
    reading = shared and not os.access(home, os.W_OK)  # a home that is read-only, where nothing is kept
    if reading and not path.exists():
        yield
        return
    with path.open("r" if reading else "w") as handle:
        fcntl.flock(handle, how)
        yield
