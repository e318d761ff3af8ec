"""Lists that somebody gave a name: the rules that make them, so that the same list can be opened and sent again."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from serving.lists.filters import NoSuchFilter
from serving.lists.filters import name as known_name
from serving.lists.list_query import Rules
from workspace import storage

LONGEST = 80
_SCHEMA = """
CREATE TABLE IF NOT EXISTS lists (
    name TEXT PRIMARY KEY, rules TEXT NOT NULL, saved_by TEXT NOT NULL, saved_at TEXT NOT NULL
)"""
_NOT_RULES = frozenset({"top", "cursor", "format", "reasons"})
_FIRST = "churn-risk"  # the list that those are of which name none


@dataclass(frozen=True)
class Saved:
    """Of which `list`; `rules` are those fields of what is asked of it that are not as they are without any."""

    name: str
    list: str
    rules: dict[str, Any]


def rules_of(asked: Rules) -> dict[str, Any]:
    """What makes a list, without which page of it was looked at."""
    return asked.model_dump(exclude=set(_NOT_RULES), exclude_defaults=True)


class SavedLists:
    """Those of one workspace, for everybody who may see lists."""

    def __init__(self, home: Path) -> None:
        self.path = home / "lists.db"

    def put(self, name: str, of: str, asked: Rules, who: str, now: datetime) -> Saved:
        """In the place of one of the same name.

        Raises:
            NoSuchFilter: the name is empty or too long.
        """
        name = " ".join(name.split())
        if not 0 < len(name) <= LONGEST or not name.isprintable():
            raise NoSuchFilter(f"name {name[:LONGEST]!r}: a list's name has 1 to {LONGEST} characters")
        if asked.search is not None:
            raise NoSuchFilter("a saved list keeps nobody's id: take out what the id begins with")
        if any(one.name == name and one.list != of for one in self.all()):
            raise NoSuchFilter(f"name {name!r}: another list is saved under it; take another name")
        saved = Saved(name, of, rules_of(asked))
        with self._database as connection:
            row = (name, json.dumps(saved.rules | {"list": of}), who, now.isoformat(timespec="seconds"))
            connection.execute("INSERT OR REPLACE INTO lists VALUES (?, ?, ?, ?)", row)
        return saved

    def all(self) -> list[Saved]:
        """By name."""
        if not storage.is_written(self.path):
            return []
        rows = self._database.execute("SELECT name, rules FROM lists ORDER BY name").fetchall()
        return [_read(name, json.loads(rules)) for name, rules in rows]

    def of(self, name: str, of: str) -> Saved:
        """One of a list, in any case.

        Raises:
            NoSuchFilter: there is none of this name; the nearest ones are named.
        """
        there = {saved.name: saved for saved in self.all() if saved.list == of}
        return there[known_name("saved list", name, list(there))]

    def applied(self, name: str, of: str, asked: Mapping[str, Any]) -> dict[str, Any]:
        """What is asked for, with the rules of a list in the place of its own; attributes must hold of both.

        Raises:
            NoSuchFilter: as `of`.
        """
        rules = self.of(name, of).rules
        return {**asked, **rules, "attribute": [*rules.get("attribute", ()), *asked["attribute"]]}

    def remove(self, name: str) -> None:
        with self._database as connection:
            connection.execute("DELETE FROM lists WHERE name = ?", (name,))

    @cached_property
    def _database(self) -> sqlite3.Connection:
        return storage.database(self.path, _SCHEMA)


def _read(name: str, rules: dict[str, Any]) -> Saved:
    return Saved(name, rules.pop("list", _FIRST), rules)
