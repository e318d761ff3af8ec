"""The part of a shop that a key or somebody may be limited to: customers by what attributes say of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Self

from ingest.rows import identifier
from serving.lists import filters
from serving.lists.filters import NoSuchFilter, Stored
from workspace import storage
from workspace.settings import Workspace

Part = tuple[tuple[str, tuple[str, ...]], ...]
"""Attributes, each with the values of which a customer has one."""


@dataclass(frozen=True)
class Scope:
    """The customers of some parts of a shop, or, where there are none, of the whole.

    Inside a part is who has one of the values of every attribute that it names, as the filter `attribute` reads them.
    Who has no value of an attribute is inside none.
    """

    parts: tuple[Part, ...] = ()

    @classmethod
    def of(cls, rules: Iterable[str]) -> Self:
        """One part, by rules as `region:north`; the whole shop without any."""
        values: dict[str, tuple[str, ...]] = {}
        for name, _, value in (rule.partition(":") for rule in rules):
            values[name] = (*values.get(name, ()), value)
        return cls((tuple(values.items()),) if values else ())

    @classmethod
    def of_text(cls, text: str | None) -> Self:
        """As `as_text` wrote it."""
        parts = json.loads(text) if text is not None else []
        return cls(tuple(tuple((name, tuple(values)) for name, values in part.items()) for part in parts))

    def as_text(self) -> str | None:
        """JSON; null of the whole shop."""
        return json.dumps([dict(part) for part in self.parts]) if self.parts else None

    def __bool__(self) -> bool:
        return bool(self.parts)

    def __str__(self) -> str:
        """`region:north, region:south`; empty of the whole shop."""
        return "; ".join(", ".join(f"{name}:{one}" for name, of in part for one in of) for part in self.parts)

    def of_rows(self, workspace: Workspace) -> str:
        """SQL over rows of `customers`, which is true of those who are inside."""
        parts = [[_has(workspace, name, values) for name, values in part] for part in self.parts]
        return " OR ".join(f"({' AND '.join(part)})" for part in parts) or "true"

    def condition(self, workspace: Workspace) -> str:
        """SQL on a `customer_id`, which is true of those who are inside.

        Raises:
            CheckFailed: there is a part, and no customer was taken in.
        """
        if not self:
            return "true"
        customers = storage.rows_of(workspace.home_path, "customers")
        return f"customer_id IN (SELECT customer_id FROM {customers} WHERE {self.of_rows(workspace)})"


WHOLE = Scope()


def checked(workspace: Workspace, rules: Iterable[str]) -> Scope:
    """The scope of some rules, of which every one is about somebody.

    Raises:
        NoSuchFilter: the shop keeps no such attribute, or no customer has this value; what there is is named.
        CheckFailed: no customer was taken in yet.
    """
    return Scope.of(f"{name}:{value}" for name, value in (_checked(workspace, rule) for rule in rules))


def _checked(workspace: Workspace, rule: str) -> tuple[str, str]:
    name, value = filters.of_attribute("scope", rule, workspace.attributes)
    if not value:
        raise NoSuchFilter(f"scope {rule!r}: who has no {name} is in no part of the shop; name a value, {name}:...")
    return name, filters.as_text(filters.chosen(f"scope {name}:", value, _stored(workspace.home_path, name))[0])


def _has(workspace: Workspace, name: str, values: Sequence[str]) -> str:
    """SQL, true of whom has one of the values; of nobody where the shop keeps none of them, or no such attribute."""
    if name not in workspace.attributes:
        return "false"
    stored = _stored(workspace.home_path, name)
    meant = dict.fromkeys(own for value in values for own in filters.alike(value, stored))
    among = ", ".join(storage.quoted(own) if isinstance(own, str) else repr(own) for own in meant)
    return f"{identifier(name)} IN ({among})" if among else "false"


def _stored(home: Path, name: str) -> tuple[Stored, ...]:
    """The values that customers have of an attribute."""
    customers = storage.rows_of(home, "customers")
    parts = storage.parts(storage.tables_folder(home, "customers"))
    return _distinct(home, f"SELECT DISTINCT {identifier(name)} FROM {customers}", tuple(map(storage.edition, parts)))


@lru_cache(maxsize=64)
@storage.read_again
def _distinct(home: Path, query: str, _: tuple[tuple[int, ...], ...]) -> tuple[Stored, ...]:
    """Kept until the table is another."""
    with storage.connect(home) as connection:
        return tuple(row[0] for row in connection.execute(f"{query} ORDER BY 1").fetchall() if row[0] is not None)
