"""Events that came over HTTP: durable once they are accepted, and handed over to the next ingest as Parquet files.

A store numbers its events in the order in which they were committed, so whoever has seen number n has seen all before.
It never forgets an id: an event that comes again is known, be it after a year. Embedded, it is a SQLite file in the
home; in production a PostgreSQL database that several machines write to.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from workspace import settings, storage
from workspace.settings import SettingsError, Workspace
from workspace.storage import CheckFailed
from workspace.tables import CONTRACTS, Contract

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

TABLES = ("transactions", "interactions")
TOLD_AFTER = 60
"""Seconds that an event may wait for the scores to show it, and trouble may last, before people are told."""
_PATIENCE = 5  # seconds that a writer waits for another, and for a server to let it in
_ARROW = {"VARCHAR": pa.string(), "TIMESTAMPTZ": pa.timestamp("us", "UTC"), "DOUBLE": pa.float64()}
_HANDED_OVER_AT_ONCE = 1_000_000


class Conflict(ValueError):
    """An id that was accepted with another content. `ids` are at most five of them."""

    def __init__(self, ids: Sequence[str]) -> None:
        super().__init__(f"accepted before with another content: {', '.join(ids)}")
        self.ids = ids


@dataclass(frozen=True)
class Event:
    """A purchase with its lines, or an interaction: rows of the canonical `table`, known from `known_day` on.

    `rows` hold what JSON can, times in ISO 8601 with an offset.
    """

    table: str
    event_id: str
    customer_id: str
    known_day: date
    rows: tuple[Mapping[str, Any], ...]
    number: int = 0


@dataclass(frozen=True)
class Trouble:
    """Why scores do not show events: none of them, because of `problem`, `since` then; or those `set_aside`.

    Numbers stand for events, which may name customers.
    """

    problem: str | None = None
    since: datetime | None = None
    set_aside: Mapping[int, str] = field(default_factory=dict)


class EventStore:
    """The events of one workspace."""

    def __init__(self, engine: Engine, workspace: str) -> None:
        self.engine, self.workspace = engine, workspace

    def add(self, events: Sequence[Event], at: datetime) -> int:
        """Accepts the events, all of them or none; returns how many are new. When it returns they outlive a power cut.

        Raises:
            Conflict: an id was accepted before, or comes twice here, with another content.
            CheckFailed: the store does not answer.
        """
        wanted = {(event.table, event.event_id): event for event in events}
        different = {event.event_id for event in events if event.rows != wanted[event.table, event.event_id].rows}
        with self._begun() as connection:
            known = self._bodies(connection, wanted)
            different |= {
                event_id for (table, event_id), body in known.items() if body != _body(wanted[table, event_id])
            }
            if different:
                raise Conflict(sorted(different)[:5])
            new = [self._columns(event, at) for key, event in wanted.items() if key not in known]
            if new:
                connection.execute(_text(_INSERT), new)
        return len(new)

    def waiting_since(self, after: int) -> datetime | None:
        """When the first event behind number `after` was accepted; none where there is none."""
        query = "SELECT min(accepted_at) FROM {events} WHERE workspace = :workspace AND number > :after"
        first = self._selected(query, after=after)[0][0]
        return None if first is None else datetime.fromtimestamp(first, UTC)

    def latest_days(self, customer_ids: Iterable[str]) -> dict[str, date]:
        """The last day on which something became known of each of these customers, by id."""
        names = {f"c{place}": customer_id for place, customer_id in enumerate(sorted(set(customer_ids)))}
        if not names:
            return {}
        query = (
            "SELECT customer_id, max(known_day) FROM {events} WHERE workspace = :workspace"
            f" AND customer_id IN ({', '.join(f':{name}' for name in names)}) GROUP BY customer_id"
        )
        return {customer_id: date.fromisoformat(day) for customer_id, day in self._selected(query, **names)}

    def last_number(self) -> int:
        """The number of the last event; 0 before the first."""
        return int(self._selected("SELECT coalesce(max(number), 0) FROM {events} WHERE workspace = :workspace")[0][0])

    def count_after(self, after: int) -> int:
        query = "SELECT count(*) FROM {events} WHERE workspace = :workspace AND number > :after"
        return int(self._selected(query, after=after)[0][0])

    def read(self, where: str, **values: Any) -> list[Event]:
        """The events that a SQL condition over table_name, customer_id, known_day and number selects, in order."""
        query = (
            "SELECT table_name, event_id, customer_id, known_day, body, number FROM {events}"
            f" WHERE workspace = :workspace AND ({where}) ORDER BY number"
        )
        return [
            Event(table, event_id, customer_id, date.fromisoformat(day), tuple(json.loads(body)), number)
            for table, event_id, customer_id, day, body, number in self._selected(query, **values)
        ]

    def customers(self) -> set[str]:
        """Everybody of whom an event is held."""
        query = "SELECT DISTINCT customer_id FROM {events} WHERE workspace = :workspace"
        return {row[0] for row in self._selected(query)}

    def applied(self, view: str) -> int | None:
        """Up to which number the publication `view` shows the events; none where that was never noted."""
        query = "SELECT number FROM {applied} WHERE workspace = :workspace AND view_name = :view"
        return next((int(row[0]) for row in self._selected(query, view=view)), None)

    def forget_applied(self) -> None:
        with self._begun() as connection:
            connection.execute(_text(_FORGET), {"workspace": self.workspace})

    def note_applied(self, view: str, number: int) -> None:
        """Notes it, and forgets about former publications."""
        with self._begun() as connection:
            values = {"workspace": self.workspace, "view": view, "number": number}
            connection.execute(_text(_FORGET), values)
            connection.execute(_text("INSERT INTO {applied} VALUES (:workspace, :view, :number)"), values)

    def forget(self, customer_ids: Iterable[str]) -> None:
        """Deletes every event of these customers; their numbers are not given again."""
        with self._begun() as connection:
            for customer_id in customer_ids:
                connection.execute(_text(_ERASE), {"workspace": self.workspace, "customer_id": customer_id})

    def close(self) -> None:
        self.engine.dispose()

    def _columns(self, event: Event, at: datetime) -> dict[str, Any]:
        return {
            "workspace": self.workspace, "table_name": event.table, "event_id": event.event_id,
            "customer_id": event.customer_id, "known_day": str(event.known_day), "accepted_at": at.timestamp(),
            "body": _body(event),
        }  # fmt: skip

    def _bodies(self, connection: Connection, wanted: Iterable[tuple[str, str]]) -> dict[tuple[str, str], str]:
        bodies: dict[tuple[str, str], str] = {}
        for table in TABLES:
            names = {f"e{place}": event_id for place, (name, event_id) in enumerate(wanted) if name == table}
            if names:
                query = (
                    "SELECT event_id, body FROM {events} WHERE workspace = :workspace AND table_name = :table"
                    f" AND event_id IN ({', '.join(f':{name}' for name in names)})"
                )
                values = {"workspace": self.workspace, "table": table, **names}
                bodies |= {(table, row[0]): row[1] for row in connection.execute(_text(query), values)}
        return bodies

    def _selected(self, query: str, **values: Any) -> list[Any]:
        with self._begun() as connection:
            return list(connection.execute(_text(query), {"workspace": self.workspace, **values}))

    @contextmanager
    def _begun(self) -> Iterator[Connection]:
        """A transaction, alone of its kind: numbers are then given in the order of the commits."""
        from sqlalchemy.exc import DBAPIError

        try:
            with self.engine.begin() as connection:
                if self.engine.dialect.name == "postgresql":
                    connection.execute(_text("SELECT pg_advisory_xact_lock(hashtext('perennial_events'))"))
                yield connection
        except DBAPIError as problem:
            reason = str(problem.orig).splitlines()[0]
            raise CheckFailed(
                f"the store of events ({self.engine.dialect.name}) does not answer: {reason}; start it, or mend the"
                " setting `events`"
            ) from problem


def open_store(workspace: Workspace) -> EventStore:
    """The store that the setting `events` names, made where it is not there yet.

    Raises:
        SettingsError: the address's variable is not set, or its driver is not installed.
        CheckFailed: it does not answer.
    """
    import sqlalchemy

    address = settings.filled(workspace.events, "the setting `events`")
    if address == "sqlite":
        path = events_folder(workspace.home_path) / "events.db"
        storage.make_folder(path.parent)
        engine = sqlalchemy.create_engine(f"sqlite:///{path}")
        sqlalchemy.event.listen(engine, "connect", _durable)
        sqlalchemy.event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    else:
        engine = _postgresql(address)
    store = EventStore(engine, workspace.name)
    with store._begun() as connection:
        for statement in _SCHEMA[engine.dialect.name]:
            connection.execute(_text(statement))
    return store


def _durable(connection: Any, _: Any) -> None:
    """A commit is on the disk when it returns, readers do not wait for writers, writers wait for one another."""
    connection.isolation_level = None  # sqlite3 would begin by itself, and read before it locks
    for pragma in ("journal_mode = WAL", "synchronous = FULL", f"busy_timeout = {_PATIENCE * 1000}"):
        connection.execute(f"PRAGMA {pragma}")


def _postgresql(address: str) -> Engine:
    import sqlalchemy

    scheme, separator, place = address.partition("://")
    if scheme not in ("postgresql", "postgres") or not separator:
        raise SettingsError("`events` is neither `sqlite` nor an address such as postgresql://host/name")
    try:
        return sqlalchemy.create_engine(
            f"postgresql+psycopg://{place}", connect_args={"connect_timeout": _PATIENCE}, pool_pre_ping=True
        )
    except ImportError as problem:
        raise SettingsError(
            "`events` needs a driver that is not installed: pip install 'perennial-crm[postgres]'"
        ) from problem


_COLUMNS = (
    "workspace TEXT NOT NULL, table_name TEXT NOT NULL, event_id TEXT NOT NULL, customer_id TEXT NOT NULL,"
    " known_day TEXT NOT NULL, accepted_at DOUBLE PRECISION NOT NULL, body TEXT NOT NULL,"
    " UNIQUE (workspace, table_name, event_id)"
)
_NUMBER = {"sqlite": "INTEGER PRIMARY KEY AUTOINCREMENT", "postgresql": "BIGSERIAL PRIMARY KEY"}
_SCHEMA = {
    dialect: (
        f"CREATE TABLE IF NOT EXISTS {{events}} (number {number}, {_COLUMNS})",
        "CREATE INDEX IF NOT EXISTS perennial_events_of ON {events} (workspace, customer_id)",
        "CREATE INDEX IF NOT EXISTS perennial_events_from ON {events} (workspace, known_day)",
        "CREATE TABLE IF NOT EXISTS {applied} (workspace TEXT, view_name TEXT, number BIGINT)",
    )
    for dialect, number in _NUMBER.items()
}
_FORGET = "DELETE FROM {applied} WHERE workspace = :workspace"
_ERASE = "DELETE FROM {events} WHERE workspace = :workspace AND customer_id = :customer_id"
_INSERT = (
    "INSERT INTO {events} (workspace, table_name, event_id, customer_id, known_day, accepted_at, body)"
    " VALUES (:workspace, :table_name, :event_id, :customer_id, :known_day, :accepted_at, :body)"
)


def _text(query: str) -> Any:
    import sqlalchemy

    return sqlalchemy.text(query.format(events="perennial_events", applied="perennial_events_applied"))


def _body(event: Event) -> str:
    return json.dumps(event.rows, sort_keys=True, ensure_ascii=False)


def events_folder(home: Path) -> Path:
    return home / "events"


def trouble(home: Path) -> Trouble:
    """What the process that shows events noted last."""
    path = _trouble_path(home)
    if not path.exists():
        return Trouble()
    noted = storage.read_json(path)
    since = datetime.fromisoformat(noted["since"]) if noted["since"] else None
    return Trouble(noted["problem"], since, {int(number): why for number, why in noted["set_aside"].items()})


def note_trouble(home: Path, state: Trouble) -> None:
    if state == Trouble():
        _trouble_path(home).unlink(missing_ok=True)
    else:
        storage.write_json(_trouble_path(home), asdict(state) | {"since": state.since and state.since.isoformat()})


def _trouble_path(home: Path) -> Path:
    return events_folder(home) / "trouble.json"


def files(home: Path, table: str) -> list[Path]:
    """The files that events were handed over in, oldest first; a name says from which number to which."""
    return sorted((events_folder(home) / table).glob("[0-9]*.parquet"))


def last_in(file: Path | str) -> int:
    return int(Path(file).stem.rpartition("-")[2])


def held_customers(workspace: Workspace) -> set[str]:
    """Everybody of whom the workspace's store holds an event; nobody where it has no store."""
    if not _is_there(workspace):
        return set()
    store = open_store(workspace)
    try:
        return store.customers()
    finally:
        store.close()


def show_again(workspace: Workspace) -> None:
    """Forgets which events are shown: what is online was written anew, without them."""
    if not _is_there(workspace):
        return
    store = open_store(workspace)
    try:
        store.forget_applied()
    finally:
        store.close()


def _is_there(workspace: Workspace) -> bool:
    return workspace.events != "sqlite" or (events_folder(workspace.home_path) / "events.db").exists()


def hand_over(workspace: Workspace) -> None:
    """Writes what came since the last time to a file per table, which `ingest` reads as it reads any other.

    A file is written once and whole; a crash before leaves its events for the next time.

    Raises:
        CheckFailed: the store of events does not answer.
    """
    if not _is_there(workspace):
        return
    home, store = workspace.home_path, open_store(workspace)
    try:
        until = store.last_number()
        for table in TABLES:
            after = max(map(last_in, files(home, table)), default=0)
            for start in range(after, until, _HANDED_OVER_AT_ONCE):
                end = min(start + _HANDED_OVER_AT_ONCE, until)
                events = store.read(
                    "table_name = :table AND number > :start AND number <= :end", table=table, start=start, end=end
                )
                if events:
                    path = events_folder(home) / table / f"{events[0].number:012}-{end:012}.parquet"
                    with storage.replacing(path) as draft:
                        pq.write_table(as_table(CONTRACTS[table], events), draft)
    finally:
        store.close()


def as_table(contract: Contract, events: Iterable[Event]) -> pa.Table:
    """The rows of a canonical table that these events hold, in their order."""
    rows = [row for event in events if event.table == contract.name for row in event.rows]
    columns = {column.name: [_value(row.get(column.name), column.type) for row in rows] for column in contract.columns}
    schema = pa.schema([(column.name, _ARROW[column.type]) for column in contract.columns])
    return pa.table(columns, schema=schema)


def _value(value: Any, kind: str) -> Any:
    return datetime.fromisoformat(value) if kind == "TIMESTAMPTZ" and value is not None else value
