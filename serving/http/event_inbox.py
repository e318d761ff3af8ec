"""Events over HTTP: what of them can be believed, and keeping them durably before the caller hears of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence, Set
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

import duckdb

from ingest import events
from ingest.events import Conflict, Event, EventStore
from serving import telemetry
from serving.http.access import Refusal, Refused
from serving.http.bodies import MOST_EVENTS, EventsRequest, Interaction, Purchase
from workspace import privacy, storage
from workspace.settings import SettingsError, Tables, Workspace
from workspace.storage import CheckFailed

_SHOWN = 5  # examples in a refusal
_RETRY_SECONDS = 3
_UNKNOWN = "not in the table of customers"


class Inbox:
    """Takes in the events of one workspace. `known` says who of some customers is online."""

    def __init__(self, workspace: Workspace, known: Callable[[Sequence[str]], set[str]]) -> None:
        self.workspace, self.known = workspace, known
        self._store: EventStore | None = None

    def accept(self, asked: EventsRequest, now: datetime, outside: Set[str] = frozenset()) -> dict[str, int]:
        """Keeps the events, all of them or none; how many were new, and how many were known with the same content.

        `outside` are customers whom the caller may not hear of, known or not: to them nobody of them is.

        Raises:
            Refused: too many or none, of the future, of an unknown or erased customer, of an unknown product, of a
                table that the workspace does not keep, an id that is known with another content, or a store that does
                not answer.
        """
        told: list[Purchase | Interaction] = [*asked.purchases, *asked.interactions]
        _refuse_count(len(told))
        _refuse_future(told, now)
        _refuse_interactions(self.workspace.tables, asked.interactions)
        if outside:
            raise _refused("unknown_customer", _UNKNOWN, sorted(outside))
        self._refuse_customers(told)
        _refuse_products(self.workspace, told)
        zone, named = ZoneInfo(self.workspace.timezone), privacy.naming(self.workspace)
        given = [_event(one, named(one.customer_id), zone) for one in told]
        try:
            new = self._kept(given, now)
        except Conflict as problem:
            raise Refused(Refusal(409, "conflict", str(problem), {"ids": list(problem.ids)})) from problem
        except CheckFailed as problem:
            headers = {"Retry-After": str(_RETRY_SECONDS)}
            raise Refused(Refusal(503, "no_event_store", str(problem), headers=headers)) from problem
        except SettingsError as problem:
            raise Refused(Refusal(503, "no_privacy_key", str(problem), headers={"Retry-After": "60"})) from problem
        telemetry.EVENTS.labels("accepted").inc(new)
        telemetry.EVENTS.labels("repeated").inc(len(told) - new)
        return {"accepted": new, "repeated": len(told) - new}

    def _kept(self, given: Sequence[Event], now: datetime) -> int:
        """How many are new; none of a customer who was erased is kept, nor of one who is being erased."""
        home = self.workspace.home_path
        with privacy.keeping(home):
            if gone := privacy.erased_among(home, {event.customer_id for event in given}):
                raise _refused("erased_customer", "erased on request, and not to be kept again", sorted(gone))
            return self._opened().add(given, now)

    def _opened(self) -> EventStore:
        if self._store is None:
            self._store = events.open_store(self.workspace)
        return self._store

    def _refuse_customers(self, told: Iterable[Purchase | Interaction]) -> None:
        """As ingest does: where the customers' table is complete, who is not in it is no customer."""
        customers = self.workspace.tables.customers
        if customers is None or not customers.complete:
            return
        asked = set(map(privacy.naming(self.workspace), {one.customer_id for one in told}))
        if absent := asked - self.known(sorted(asked)):
            absent -= _among(storage.rows_of(self.workspace.home_path, "customers"), sorted(absent))
        if absent:
            raise _refused("unknown_customer", _UNKNOWN, sorted(absent))


def _refuse_count(count: int) -> None:
    if not count:
        message = "there is neither a purchase nor an interaction in it"
        raise Refused(Refusal(400, "malformed", message, {"problems": []}))
    if count > MOST_EVENTS:
        message = f"{count:,} events in one request; at most {MOST_EVENTS:,} can be"
        raise Refused(Refusal(413, "too_many_events", message, {"asked": count, "most": MOST_EVENTS}))


def _refuse_future(told: Iterable[Purchase | Interaction], now: datetime) -> None:
    late = [_id(one) for one in told if max(one.occurred_at, one.recorded_at or one.occurred_at) > now]
    if late:
        raise _refused("future_event", "of a time that has not come yet", late)


def _refuse_interactions(tables: Tables, interactions: Sequence[Interaction]) -> None:
    if interactions and tables.interactions is None:
        raise _refused("no_interactions", "the workspace keeps no interactions", map(_id, interactions))


def _refuse_products(workspace: Workspace, told: Iterable[Purchase | Interaction]) -> None:
    if workspace.tables.products is None:
        return
    named = {line.product_id for one in told for line in (one.lines if isinstance(one, Purchase) else [one])}
    parts = storage.parts(storage.tables_folder(workspace.home_path, "products"))
    if absent := named - {None} - _products(storage.reader(parts)):
        raise _refused("unknown_product", "not in the table of products", sorted(map(str, absent)))


@lru_cache(maxsize=2)
def _products(rows: str) -> frozenset[str]:
    """Every product of a table, whose parts have other names when it changes."""
    with duckdb.connect() as connection:  # of its own: threads ask at once
        return frozenset(row[0] for row in connection.execute(f"SELECT product_id FROM {rows}").fetchall())


def _among(rows: str, customer_ids: Sequence[str]) -> set[str]:
    query = f"SELECT customer_id FROM {rows} WHERE customer_id IN (SELECT unnest($ids))"
    with duckdb.connect() as connection:
        return {row[0] for row in connection.execute(query, {"ids": list(customer_ids)}).fetchall()}


def _refused(code: str, why: str, which: Iterable[str]) -> Refused:
    shown = list(which)
    return Refused(Refusal(400, code, f"{why}: {len(shown):,}", {"ids": shown[:_SHOWN]}))


def _id(one: Purchase | Interaction) -> str:
    return one.transaction_id if isinstance(one, Purchase) else one.interaction_id


def _event(one: Purchase | Interaction, customer_id: str, zone: ZoneInfo) -> Event:
    """The canonical rows, under the customer's name in the workspace.

    Times are in UTC, so that the same instant is the same content however it is written.
    """
    known = max(one.occurred_at, one.recorded_at or one.occurred_at).astimezone(zone).date()
    row = {name: _plain(value) for name, value in one if name != "lines" and value is not None}
    row["customer_id"] = customer_id
    if isinstance(one, Interaction):
        return Event("interactions", one.interaction_id, customer_id, known, (row,))
    rows = tuple(row | {name: value for name, value in line if value is not None} for line in one.lines)
    return Event("transactions", one.transaction_id, customer_id, known, rows)


def _plain(value: Any) -> Any:
    return value.astimezone(UTC).isoformat() if isinstance(value, datetime) else value
