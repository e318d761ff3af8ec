"""Consents given and withdrawn over HTTP: they count at once, in the service and in the next batch.

`customers` says what was true when it was exported. What a customer says here stands, whatever export comes next, until
`customers` brings a consent with a later `consent_recorded_at` (`catch_up`, after every ingest). An export without that
column never undoes it: a file made the day before would give back a consent that was withdrawn.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from features.snapshot import has_consent
from perennial import storage
from perennial.settings import Workspace

Kind = Literal["marketing", "profiling"]

KINDS: tuple[Kind, ...] = ("marketing", "profiling")
_SCHEMA = """
CREATE TABLE IF NOT EXISTS consents (
    customer_id TEXT NOT NULL, kind TEXT NOT NULL, granted INTEGER NOT NULL, recorded_at TEXT NOT NULL,
    PRIMARY KEY (customer_id, kind)
) WITHOUT ROWID"""
_PUT = "INSERT OR REPLACE INTO consents VALUES (?, ?, ?, ?)"
_AT_ONCE = 500  # ids in one query


class Consents:
    """What the customers of one workspace have said here. Every question is put to the file."""

    def __init__(self, home: Path) -> None:
        self.path = home / "consents.db"

    def put(self, customer_id: str, said: Mapping[Kind, bool], now: datetime) -> None:
        """Durable when it returns."""
        rows = [(customer_id, kind, granted, now.isoformat()) for kind, granted in said.items()]
        with self._database as connection:
            connection.executemany(_PUT, rows)

    def of(self, kind: Kind, customer_ids: Sequence[str]) -> dict[str, bool]:
        """Whether those of these customers who said something of this kind gave their consent."""
        if not self.path.exists():
            return {}
        found: dict[str, bool] = {}
        for start in range(0, len(customer_ids), _AT_ONCE):
            block = customer_ids[start : start + _AT_ONCE]
            query = f"SELECT customer_id, granted FROM consents WHERE kind = ? AND customer_id IN ({_marks(block)})"
            found |= {one: bool(granted) for one, granted in self._database.execute(query, (kind, *block))}
        return found

    def everybody(self, kind: Kind) -> dict[str, bool]:
        """The same of all customers."""
        if not self.path.exists():
            return {}
        query = "SELECT customer_id, granted FROM consents WHERE kind = ? ORDER BY customer_id"
        return {one: bool(granted) for one, granted in self._database.execute(query, (kind,))}

    def catch_up(self, workspace: Workspace) -> int:
        """Takes over what `customers` says later than what was said here; returns how many consents changed."""
        if not self.path.exists() or workspace.tables.customers is None:
            return 0
        said = pd.read_sql_query("SELECT * FROM consents", self._database)
        values = " ".join(f"WHEN '{kind}' THEN {kind}_consent" for kind in KINDS)
        with storage.connect(workspace.home_path, workspace.timezone) as connection:
            connection.register("said", said)
            newer = connection.execute(f"""
                SELECT customer_id, kind, CASE kind {values} END AS source_says, CAST(consent_recorded_at AS VARCHAR)
                FROM said JOIN {storage.rows_of(workspace.home_path, "customers")} USING (customer_id)
                WHERE consent_recorded_at > CAST(recorded_at AS TIMESTAMPTZ) AND source_says IS NOT NULL""").fetchall()
        with self._database as database:
            database.executemany(_PUT, newer)
        return len(newer)

    @cached_property
    def _database(self) -> sqlite3.Connection:
        return storage.database(self.path, _SCHEMA)


def apply_profiling(
    said: Mapping[str, bool], customer_ids: Iterable[str], packed: Sequence[str], vectors: NDArray[np.float32]
) -> NDArray[np.float32]:
    """The vectors of customers (a row each, `packed` their columns) with the profiling consents that were said here."""
    if not said:
        return vectors
    changed, column = vectors.copy(), packed.index("profiling_consent")
    for row, customer_id in enumerate(customer_ids):
        if customer_id in said:
            changed[row, column] = said[customer_id]
    return changed


def may_be_contacted(workspace: Workspace) -> str:
    """SQL: a condition on `customer_id` that holds for who may be listed.

    Where the shop keeps marketing consents that is who has given one, else everybody; what was said here, of marketing
    and of profiling, comes first.
    """
    consents = Consents(workspace.home_path)
    marketing, profiling = consents.everybody("marketing"), consents.everybody("profiling")
    refused = [one for said in (marketing, profiling) for one, granted in said.items() if not granted]
    allowed = "true"
    if has_consent(workspace, "marketing"):
        granted = f"SELECT customer_id FROM {storage.rows_of(workspace.home_path, 'customers')} WHERE marketing_consent"
        given = [one for one, granted in marketing.items() if granted]
        allowed = f"(customer_id IN ({granted}) OR {_among(given)})"
    return f"{allowed} AND NOT {_among(refused)}"


def refused_profiling(workspace: Workspace) -> str:
    """SQL: a condition on `customer_id` that holds for who withdrew the consent to be scored here."""
    said = Consents(workspace.home_path).everybody("profiling")
    return _among([one for one, granted in said.items() if not granted])


def _among(customer_ids: Sequence[str]) -> str:
    return f"customer_id IN ({', '.join(map(storage.quoted, customer_ids))})" if customer_ids else "false"


def _marks(values: Sequence[object]) -> str:
    return ", ".join("?" * len(values))
