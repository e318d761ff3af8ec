"""Consents given and withdrawn over HTTP: they count at once, in the service and in the next batch.

`customers` says what was true when it was exported. What a customer says here stands, whatever export comes next, until
`customers` brings a consent with a later `consent_recorded_at` (`catch_up`, after every ingest). An export without that
column never undoes it: a file made the day before would give back a consent that was withdrawn.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from features.snapshot import has_consent
from serving.erasure_queue import ErasureQueue
from serving.predictor import NO_CONSENT, NUMBERS
from workspace import consents, storage
from workspace.settings import Workspace

if TYPE_CHECKING:
    import duckdb

Purpose = Literal["marketing", "profiling"]

PURPOSES: tuple[Purpose, ...] = ("marketing", "profiling")
# SQL over the rows of `said`: who withdrew the consent to be scored.
REFUSED_PROFILING = "customer_id IN (SELECT customer_id FROM said WHERE kind = 'profiling' AND NOT granted)"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS consents (
    customer_id TEXT NOT NULL, kind TEXT NOT NULL, granted INTEGER NOT NULL, recorded_at TEXT NOT NULL,
    PRIMARY KEY (customer_id, kind)
) WITHOUT ROWID"""
_PUT = "INSERT OR REPLACE INTO consents VALUES (?, ?, ?, ?)"
_ALL = "SELECT customer_id, kind, granted, recorded_at FROM consents ORDER BY customer_id, kind"
_SAID = pa.schema([
    ("customer_id", pa.string()), ("kind", pa.string()), ("granted", pa.bool_()), ("recorded_at", pa.string()),
])  # fmt: skip
_NEVER_LATER = "9999-12-31T00:00:00+00:00"
_AT_ONCE = 500  # ids in one query


class Consents:
    """What the customers of one workspace have said here. Every question is put to the file."""

    def __init__(self, home: Path) -> None:
        self.path = consents.path(home)

    def put(self, customer_id: str, said: Mapping[Purpose, bool], now: datetime) -> None:
        """Durable when it returns."""
        self._write([(customer_id, purpose, granted, now.isoformat()) for purpose, granted in said.items()])

    def of(self, purpose: Purpose, customer_ids: Sequence[str]) -> dict[str, bool]:
        """Whether those of these customers who said something of this purpose gave their consent."""
        if not storage.is_written(self.path):
            return {}
        agreed: dict[str, bool] = {}
        for start in range(0, len(customer_ids), _AT_ONCE):
            block = customer_ids[start : start + _AT_ONCE]
            among = ", ".join("?" * len(block))
            query = f"SELECT customer_id, granted FROM consents WHERE kind = ? AND customer_id IN ({among})"
            agreed |= {one: bool(granted) for one, granted in self._reader.execute(query, (purpose, *block))}
        return agreed

    def by(self, customer_id: str) -> dict[Purpose, bool]:
        """What one customer said, by purpose."""
        return {purpose: said[customer_id] for purpose in PURPOSES if (said := self.of(purpose, [customer_id]))}

    def state(self) -> tuple[object, ...]:
        """Another one when somebody has said something else, or waits to be erased."""
        waiting = tuple(ErasureQueue(self.path.parent).waiting())
        if not storage.is_written(self.path):
            return waiting
        query = "SELECT count(*), max(recorded_at), sum(granted) FROM consents"
        return (*self._reader.execute(query).fetchone(), *waiting)

    def everybody(self, purpose: Purpose) -> dict[str, bool]:
        """The same of all customers, in order."""
        return {one: granted for one, kind, granted, _ in self._all() if kind == purpose}

    def catch_up(self, workspace: Workspace) -> int:
        """Takes over what `customers` says later than what was said here; returns how many consents changed."""
        if not storage.is_written(self.path) or workspace.tables.customers is None:
            return 0
        values = " ".join(f"WHEN '{purpose}' THEN {purpose}_consent" for purpose in PURPOSES)
        with storage.connect(workspace.home_path, workspace.timezone) as connection:
            self.tell(connection)
            newer = connection.execute(f"""
                SELECT customer_id, kind, CASE kind {values} END AS source_says, CAST(consent_recorded_at AS VARCHAR)
                FROM said JOIN {storage.rows_of(workspace.home_path, "customers")} USING (customer_id)
                WHERE consent_recorded_at > CAST(recorded_at AS TIMESTAMPTZ) AND source_says IS NOT NULL""").fetchall()
        self._write(newer)
        return len(newer)

    def tell(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Gives a connection a table `said`: customer_id, kind, granted, recorded_at (ISO 8601).

        Beside it one `leaving`: customer_id of those whose erasure waits, who are in no answer.
        """
        said = pa.Table.from_pylist([dict(zip(_SAID.names, row, strict=True)) for row in self._all()], _SAID)
        connection.register("said", said)
        waiting = list(ErasureQueue(self.path.parent).waiting())
        connection.register("leaving", pa.table({"customer_id": pa.array(waiting, pa.string())}))

    def _all(self) -> list[tuple[str, str, bool, str]]:
        """Rows of `said`."""
        rows: list[tuple[str, str, bool, str]] = []
        if storage.is_written(self.path):
            with closing(self._opened()) as database:
                said = database.execute(_ALL).fetchall()
            rows = [(one, kind, bool(granted), recorded_at) for one, kind, granted, recorded_at in said]
        # Behind what they said: whose erasure waits agrees to nothing any more.
        waiting = ErasureQueue(self.path.parent).waiting()
        return rows + [(one, purpose, False, _NEVER_LATER) for one in waiting for purpose in PURPOSES]

    def _write(self, rows: Sequence[Sequence[object]]) -> None:
        with closing(self._opened()) as database, database:
            database.executemany(_PUT, rows)

    def _opened(self) -> sqlite3.Connection:
        return storage.database(self.path, _SCHEMA)

    @cached_property
    def _reader(self) -> sqlite3.Connection:
        return self._opened()


def withheld(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of `scores` of a customer who withdrew the consent to be scored since it was written."""
    return {**row, **dict.fromkeys(NUMBERS), "not_scored_reason": NO_CONSENT}


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


def may_be_listed(workspace: Workspace) -> str:
    """SQL over `said`: a condition on `customer_id` that holds for who may be listed.

    Where the shop keeps marketing consents that is who has given one, else everybody; never who refuses profiling, from
    the moment that the table says so. What was said here, of both, comes first.
    """
    condition = "customer_id NOT IN (SELECT customer_id FROM said WHERE NOT granted)"
    if has_consent(workspace, "marketing"):
        customers = storage.rows_of(workspace.home_path, "customers")
        condition += f""" AND (customer_id IN (SELECT customer_id FROM {customers} WHERE marketing_consent)
            OR customer_id IN (SELECT customer_id FROM said WHERE kind = 'marketing'))"""
    if has_consent(workspace, "profiling"):
        customers = storage.rows_of(workspace.home_path, "customers")
        condition += f""" AND (customer_id NOT IN (SELECT customer_id FROM {customers} WHERE NOT profiling_consent)
            OR customer_id IN (SELECT customer_id FROM said WHERE kind = 'profiling'))"""
    return condition
