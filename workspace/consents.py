"""Whose purchases may teach models: not those of who refuses profiling, in `customers` or in what was said since."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

from workspace import storage
from workspace.settings import Workspace

_SAID = "SELECT customer_id, granted FROM consents WHERE kind = 'profiling' ORDER BY customer_id"


def path(home: Path) -> Path:
    """The file of what customers have said over HTTP."""
    return home / "consents.db"


def said_of_profiling(home: Path) -> dict[str, bool]:
    """Whether each customer who said something of it allows profiling."""
    if not path(home).exists():
        return {}
    with closing(sqlite3.connect(path(home))) as database:
        return {customer_id: bool(granted) for customer_id, granted in database.execute(_SAID)}


def copy(home: Path, other: Path) -> None:
    """Takes what customers have said over into another home, which has heard nothing yet."""
    if path(home).exists():
        with closing(sqlite3.connect(path(home))) as said, closing(sqlite3.connect(path(other))) as heard:
            said.backup(heard)


def may_teach(workspace: Workspace) -> str:
    """SQL: a condition on `customer_id` that holds for who does not refuse profiling, by all that is known today.

    Where the shop keeps such consents, who has given none refuses; what was said over HTTP comes first.
    """
    said, home = said_of_profiling(workspace.home_path), workspace.home_path
    allowed = "true"
    if workspace.tables.customers is not None and storage.parts(storage.tables_folder(home, "customers")):
        rows = storage.rows_of(home, "customers")
        allowed = (
            f"((SELECT count(profiling_consent) = 0 FROM {rows})"
            f" OR customer_id IN (SELECT customer_id FROM {rows} WHERE profiling_consent))"
        )
    for granted, joined in ((True, " OR customer_id IN"), (False, " AND customer_id NOT IN")):
        if names := [customer_id for customer_id, own in said.items() if own == granted]:
            allowed = f"({allowed}{joined} ({_listed(names)}))"
    return allowed


def _listed(names: Iterable[str]) -> str:
    return ", ".join(storage.quoted(name) for name in names)
