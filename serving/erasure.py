"""Everything that is held of a customer: showing it, and erasing it.

Whatever lies in the home and has a column `customer_id` is looked into, be it a Parquet file or a table of a SQLite
database, so that a store which comes later is not forgotten; and so are Feast's online store, which calls customers by
a key of its own, and the store of events where that is a PostgreSQL. A file is written again without the customer under
its own name and with the stamp it had: what was made from it, of everybody else, stays valid, and nothing is computed
or trained again.

What was asked to be erased is noted first, in `erased.json`, by a keyed mark: from then on no ingest takes the customer
in again, and an erasure that is cut off goes on when it is asked for again.
"""

from __future__ import annotations

import logging
import re
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from features import online, online_erasure, publications, retrieval
from features.publications import FeatureMismatch
from ingest import events
from ingest.events import Event, EventStore
from ingest.sources import fingerprint
from serving.erasure_queue import ErasureQueue
from workspace import predictions, privacy, storage
from workspace.ids import canonical
from workspace.privacy import PrivacyKey
from workspace.storage import InUse
from workspace.tables import CONTRACTS

if TYPE_CHECKING:
    from feast import FeatureStore

    from workspace.settings import Workspace

_log = logging.getLogger("bentoml.perennial")
ONLINE, EVENTS = "online store", "store of events"
Places = dict[str, int]
_PATIENCE = 60  # seconds that a database may be busy


class UnknownCustomer(LookupError):
    """Nothing is held of a customer, nor was anything erased."""


def held(workspace: Workspace, store: FeatureStore, customer_id: str) -> dict[str, list[dict[str, Any]]]:
    """Every row that is held of a customer, by place: a file's path in the home, a database's table, the online store.

    Contact data are readable.

    Raises:
        UnknownCustomer: there is none.
        SettingsError: contact data are held, and the privacy key is not there to read them.
    """
    home = workspace.home_path
    held_in = {_place(home, path): rows for path, rows in _rows_of_files(home, customer_id).items()}
    for path, table in _databases(home):
        held_in[f"{_place(home, path)}:{table}"] = _rows_of_database(path, table, customer_id)
    held_in[ONLINE] = list(_vectors(workspace, store, customer_id))
    with _events_elsewhere(workspace) as kept:
        held_in[EVENTS] = [asdict(event) for event in _of_store(kept, customer_id)]
    held_in = {place: [_readable(row, workspace.pii) for row in rows] for place, rows in held_in.items() if rows}
    if not held_in:
        raise UnknownCustomer(customer_id)
    return held_in


def _rows_of_files(home: Path, customer_id: str) -> dict[Path, list[dict[str, Any]]]:
    """Files with the same columns are read together, without Python in between: a busy service would let it wait."""
    alike: dict[str, list[Path]] = {}
    for path in _parquet_files(home):
        with suppress(FileNotFoundError):  # a command, or the prediction log, has replaced it just now
            columns = f"quarantine {path}" if _is_as_written(path) else str(pq.read_schema(path).remove_metadata())
            alike.setdefault(columns, []).append(path)
    rows_of_file: dict[Path, list[dict[str, Any]]] = {}
    for paths in alike.values():
        try:
            rows_of_file |= _rows_together(paths, customer_id)
        except FileNotFoundError:
            for path in paths:
                with suppress(FileNotFoundError):
                    rows_of_file |= _rows_together([path], customer_id)
    return rows_of_file


def _rows_together(paths: Sequence[Path], customer_id: str) -> dict[Path, list[dict[str, Any]]]:
    if len(paths) == 1:
        return {paths[0]: _rows_in(paths[0], [customer_id]).to_pylist()}
    files = ds.dataset([str(path) for path in paths], format="parquet")
    columns = [*files.schema.names, "__filename"]
    rows_of_file: dict[Path, list[dict[str, Any]]] = {}
    for row in files.to_table(columns, filter=ds.field("customer_id") == customer_id).to_pylist():
        rows_of_file.setdefault(Path(row.pop("__filename")), []).append(row)
    return rows_of_file


def _vectors(workspace: Workspace, store: FeatureStore, customer_id: str) -> Iterator[dict[str, Any]]:
    """What each publication has of a customer; one that is not whole, or no longer there, is passed over."""
    for publication in publications.stored(workspace.home_path):
        with suppress(FeatureMismatch):
            for row in online.online_rows(store, workspace, publication, [customer_id]).values():
                vector = dict(zip(publication.features, row.vector.tolist(), strict=True))
                answer = online.answers(store, publication, [customer_id]).get(customer_id, b"").decode() or None
                yield {"view": publication.view, "as_of": row.as_of, **vector, "answer": answer}


def is_known(workspace: Workspace, customer_id: str) -> bool:
    """Whether the customer is in `customers` or was in the last batch that was scored."""
    home = workspace.home_path
    files = storage.parts(storage.tables_folder(home, "customers"))
    with suppress(storage.CheckFailed):
        files.append(storage.scores_path(home, storage.latest_scored(home)))
    return any(_rows_in(file, [customer_id], ["customer_id"]).num_rows for file in files)


def erase(
    workspace: Workspace, store: FeatureStore, customer_ids: Sequence[str],
    progress: Callable[[str], None] = lambda _: None,
) -> dict[str, Places]:  # fmt: skip
    """Erases customers from everything in the home and from the online store; returns in which places how many rows
    were found of each, also by an attempt that was cut off. Nobody else may be writing into the home.

    Raises:
        UnknownCustomer: of one nothing is held, nor was erased; then nothing is changed.
        SettingsError: there is no privacy key to mark them with.
        CheckFailed: the online store, or that of events, does not answer.
    """
    home, key = workspace.home_path, privacy.key_of(workspace.home_path)
    marks = {customer_id: key.mark(customer_id) for customer_id in customer_ids}
    places_of = rows_of(workspace, store, list(marks))
    privacy.note_erased(home, {mark: places_of[customer_id] for customer_id, mark in marks.items()})
    with privacy.marking(home):
        predictions.sweep(workspace)  # while nobody writes into the log
    _forget(workspace, store, {place for places in places_of.values() for place in places}, list(marks), progress)
    noted = privacy.note_erased(home, {mark: {} for mark in marks.values()}, done=True)
    return {customer_id: noted[mark]["found"] for customer_id, mark in marks.items()}


def rows_of(workspace: Workspace, store: FeatureStore, customer_ids: Sequence[str]) -> dict[str, Places]:
    """How many rows there are of each customer in each place where there are any.

    Raises:
        UnknownCustomer: of one there are none, nor were there.
    """
    places_of, noted = _places(workspace, store, customer_ids), privacy.erased(workspace.home_path)
    for customer_id, places in places_of.items():
        if not places and (not noted or privacy.key_of(workspace.home_path).mark(customer_id) not in noted):
            raise UnknownCustomer(customer_id)
    return places_of


def carry_out(workspace: Workspace, clock: Callable[[], datetime]) -> None:
    """Carries out what waits, if the home is free; otherwise another time."""
    if ErasureQueue(workspace.home_path).waiting():
        holder = f"the service, erasing customers, since {clock():%Y-%m-%d %H:%M:%S} UTC"
        with suppress(InUse), storage.locked(workspace.home_path, holder):
            _log.info("%d customers who waited for it are erased", finish(workspace, clock()))


def finish(workspace: Workspace, now: datetime) -> int:
    """Carries out what waits; returns how many that were. The home is the caller's.

    Raises:
        SettingsError: there is no privacy key.
        CheckFailed: a store does not answer.
    """
    queue = ErasureQueue(workspace.home_path)
    waiting = list(queue.waiting())
    if waiting:
        queue.done(erase(workspace, retrieval.open_store(workspace), waiting), now)
    return len(waiting)


def _places(workspace: Workspace, store: FeatureStore, customer_ids: Sequence[str]) -> dict[str, Places]:
    home = workspace.home_path
    places_of: dict[str, Places] = {customer_id: {} for customer_id in customer_ids}
    for path in _parquet_files(home):
        asked = [[one] for one in customer_ids] if _is_as_written(path) else [customer_ids]
        for some in asked:
            with suppress(FileNotFoundError):  # a running service has put parts of its log together just now
                rows = _rows_in(path, some, ["customer_id"])["customer_id"].to_pylist()
                _count(places_of, _place(home, path), {some[0]: len(rows)} if _is_as_written(path) else Counter(rows))
    for path, table in _databases(home):
        counts = {one: len(_rows_of_database(path, table, one)) for one in customer_ids}
        _count(places_of, f"{_place(home, path)}:{table}", counts)
    with _events_elsewhere(workspace) as kept:
        _count(places_of, EVENTS, {one: len(_of_store(kept, one)) for one in customer_ids})
    _count(places_of, ONLINE, online_erasure.held(store, workspace, customer_ids))
    return places_of


def _count(places_of: dict[str, Places], place: str, counts: Mapping[str, int]) -> None:
    for customer_id, count in counts.items():
        if count:
            places_of[customer_id][place] = count


def _forget(
    workspace: Workspace, store: FeatureStore, places: set[str], customer_ids: Sequence[str],
    progress: Callable[[str], None],
) -> None:  # fmt: skip
    home = workspace.home_path
    with _events_elsewhere(workspace) as kept:
        if kept:
            kept.forget(customer_ids)
    online_erasure.forget(store, workspace, customer_ids)
    predictions.forget(workspace, customer_ids)  # by its own lock: a running service writes into this one
    for path in _parquet_files(home):
        if _place(home, path) in places and not predictions.is_part(home, path):
            _rewrite_without(path, customer_ids)
            _note_content(home, path)
            progress(f"erased from {_place(home, path)}")
    for path, table in _databases(home):
        _delete(path, table, customer_ids)


@contextmanager
def _events_elsewhere(workspace: Workspace) -> Iterator[EventStore | None]:
    """The store of events where it is none of the home's databases."""
    if workspace.events == "sqlite":
        yield None
        return
    with closing(events.open_store(workspace)) as store:
        yield store


def _of_store(store: EventStore | None, customer_id: str) -> list[Event]:
    return store.read("customer_id = :customer_id", customer_id=customer_id) if store else []


def _parquet_files(home: Path) -> Iterator[Path]:
    """Those with customers in them, wherever they lie, in a stable order."""
    for path in storage.below(home, "*.parquet"):
        with suppress(FileNotFoundError):
            if "customer_id" in pq.read_schema(path).names:
                yield path


def _place(home: Path, path: Path) -> str:
    return path.relative_to(home).as_posix()


def _rows_in(path: Path, customer_ids: Sequence[str], columns: list[str] | None = None) -> pa.Table:
    """The rows of some customers; only where they may be is read."""
    if _is_as_written(path):
        rows = pq.read_table(path, columns=columns, partitioning=None)
        return rows.filter(_is_among(path, rows, customer_ids))
    chosen = [("customer_id", "in", list(customer_ids))]
    return pq.read_table(path, columns=columns, filters=chosen, partitioning=None)


def _is_as_written(path: Path) -> bool:
    """Quarantine keeps ids as a source had them: with blanks around them, or a whole number with a fraction."""
    return path.parent.name == "quarantine"


def _is_among(path: Path, rows: pa.Table, customer_ids: Sequence[str]) -> pa.ChunkedArray:
    ids, wanted = rows["customer_id"], pa.array(customer_ids, pa.string())
    if not _is_as_written(path):
        return pc.is_in(ids, wanted)
    return pc.is_in(ids, pa.array(_written(ids.unique().to_pylist(), set(customer_ids)), pa.string()))


def _written(texts: Iterable[str | None], customer_ids: Set[str]) -> list[str]:
    """Those of these texts, as a source had them, that mean one of the customers."""
    return [text for text in texts if text is not None and not customer_ids.isdisjoint(_meant(text))]


def _meant(text: str) -> Iterator[str]:
    with suppress(ValueError):
        yield canonical(text)
        yield re.sub(r"^(\d+)\.0*$", r"\1", canonical(text))


def _rewrite_without(path: Path, customer_ids: Sequence[str]) -> None:
    """Row group by row group, so that order, statistics and the file's own metadata stay what they were."""
    with pq.ParquetFile(path) as given, storage.replacing(path) as draft:
        codec = given.metadata.row_group(0).column(0).compression.lower()
        with pq.ParquetWriter(draft, given.schema_arrow, compression=codec) as out:
            for number in range(given.num_row_groups):
                rows = given.read_row_group(number)
                stay = rows.filter(pc.invert(_is_among(path, rows, customer_ids)))
                if stay.num_rows:
                    out.write_table(stay, row_group_size=stay.num_rows)


def _note_content(home: Path, path: Path) -> None:
    """A file of the home that is a table's source is known by its content, which is another one now."""
    for table in CONTRACTS:
        entries = storage.sources_of(storage.tables_folder(home, table))
        if any(entry["origin"] == str(path) for entry in entries):
            noted = [e | {"content": fingerprint(path)} if e["origin"] == str(path) else e for e in entries]
            storage.write_json(storage.manifest_path(home, table), {"sources": noted})


def _databases(home: Path) -> list[tuple[Path, str]]:
    """The SQLite tables with customers in them."""
    return [(path, name) for path in storage.below(home, "*.db") for name in _tables_of_customers(path)]


def _tables_of_customers(path: Path) -> list[str]:
    """None where it is no database: what /metrics counts in may be called `.db` too.

    Only SQLite may open the file. A process that closes a file loses all its locks on it, also those of other
    connections: SQLite knows, and waits with the closing; whoever else does it lets others write over them.
    """
    query = """SELECT m.name FROM sqlite_master m, pragma_table_info(m.name) c
        WHERE c.name = 'customer_id' AND m.type = 'table'"""
    with closing(storage.reading(path)) as connection:
        try:
            return [name for (name,) in connection.execute(query)]
        except sqlite3.DatabaseError as problem:
            if problem.sqlite_errorcode == sqlite3.SQLITE_NOTADB:
                return []
            raise


def _rows_of_database(path: Path, table: str, customer_id: str) -> list[dict[str, Any]]:
    with closing(storage.reading(path)) as connection:
        rows = connection.execute(f'SELECT * FROM "{table}" WHERE customer_id = ?', (customer_id,))
        names = [column[0] for column in rows.description]
        return [dict(zip(names, row, strict=True)) for row in rows]


def _delete(path: Path, table: str, customer_ids: Sequence[str]) -> None:
    """Nothing of them stays in the file's free places, nor in the log of writes that WAL mode keeps beside it."""
    with closing(sqlite3.connect(path, timeout=_PATIENCE)) as connection:
        with connection:
            query = f'DELETE FROM "{table}" WHERE customer_id = ?'
            connection.executemany(query, [(customer_id,) for customer_id in customer_ids])
        connection.execute("VACUUM")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _readable(row: dict[str, Any], pii: Sequence[str]) -> dict[str, Any]:
    hidden = [name for name in pii if row.get(name) is not None]
    if not hidden:
        return row
    key = PrivacyKey.of_environment()
    return row | {name: key.decrypted(row[name]) for name in hidden}
