"""What the online store holds of a customer, and how it goes: an erased customer's rows, a publication of before."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from features import stores
from features.packing import blocks
from features.publications import (
    ANSWER,
    Publication,
    note_path,
    packed_path,
    published,
    published_path,
    read_note,
    stored,
)
from features.stores import entity_key
from ingest import events
from workspace import storage
from workspace.settings import Workspace

if TYPE_CHECKING:
    from feast import FeatureStore

_PATIENCE = 60  # seconds that an erasure waits for who writes into SQLite


def held(store: FeatureStore, workspace: Workspace, customer_ids: Sequence[str]) -> dict[str, int]:
    """How many rows the online store has of each of these customers, in all publications.

    Rows in the home's SQLite file, from before features went to Redis, count too.
    """
    counts = dict.fromkeys(customer_ids, 0)
    if stores.in_redis(store):
        with stores.reached(store):
            counts |= {one: int(_redis(store).exists(redis_name(store, one))) for one in customer_ids}
    with _embedded(workspace.home_path) as connection:
        for table in _tables_of_vectors(connection):
            query = f'SELECT count(DISTINCT entity_key) FROM "{table}" WHERE entity_key = ?'
            for one in customer_ids:
                counts[one] += connection.execute(query, (sqlite_name(store, one),)).fetchone()[0]
    return counts


def forget(store: FeatureStore, workspace: Workspace, customer_ids: Sequence[str]) -> None:
    """Takes customers out of every publication, so that those which stay answer as before.

    The notes come first: a store without its `last_customer` would be taken for an empty one. The packed files are
    left to whoever forgets about the customers in the home.
    """
    for publication in stored(workspace.home_path):
        _forget_in_notes(workspace.home_path, publication, customer_ids)
    if stores.in_redis(store):
        with stores.reached(store):
            _redis(store).delete(*(redis_name(store, customer_id) for customer_id in customer_ids))
    with _embedded(workspace.home_path) as connection:
        with connection:
            for table in _tables_of_vectors(connection):
                names = [(sqlite_name(store, customer_id),) for customer_id in customer_ids]
                connection.executemany(f'DELETE FROM "{table}" WHERE entity_key = ?', names)
        connection.execute("VACUUM")  # pages that were split keep copies of what has moved


def _forget_in_notes(home: Path, publication: Publication, customer_ids: Sequence[str]) -> None:
    packed = packed_path(home, publication.view)
    ids = pq.read_table(packed, columns=["customer_id"])["customer_id"]
    stay = pc.invert(pc.is_in(ids, pa.array(customer_ids, ids.type)))
    changes = {"customers": pc.sum(stay).as_py(), "last_customer": pc.max(ids.filter(stay)).as_py() or ""}
    written = packed.with_name("written.json")
    if written.exists():  # what is not wholly written yet is begun anew
        whole = storage.read_json(written) >= publication.customers
        storage.write_json(written, changes["customers"] if whole else 0)
    storage.write_json(note_path(home, publication.view), asdict(replace(publication, **changes)))
    answering = published(home)
    if answering is not None and answering.view == publication.view:
        storage.write_json(published_path(home), asdict(replace(answering, **changes)))


def remove_all_but(views: set[str], store: FeatureStore, workspace: Workspace) -> None:
    """Takes every other publication out of the online store, the registry and the home."""
    for folder in sorted((workspace.home_path / "online").glob("*")):
        if folder.name not in views:
            if (folder / "publication.json").exists():
                _remove(read_note(folder / "publication.json"), store, workspace)
            shutil.rmtree(folder)


def _remove(publication: Publication, store: FeatureStore, workspace: Workspace) -> None:
    is_ours = publication.store == stores.online_address(workspace)  # another one may be out of reach
    if is_ours and stores.in_redis(store):
        with stores.reached(store):
            pushed = events.held_customers(workspace)
            _remove_from_redis(publication, store, packed_path(workspace.home_path, publication.view), pushed)
    if publication.view in {view.name for view in store.list_feature_views()}:
        view: Any = store.get_feature_view(publication.view)
        store.apply([], objects_to_delete=[view, view.batch_source], partial=False)


def _remove_from_redis(
    publication: Publication, store: FeatureStore, packed: Path, more_customers: Iterable[str]
) -> None:
    """Customer by customer, in blocks: Feast 0.67 would list every key of every workspace, in one piece."""
    from feast.infra.online_stores.helpers import _mmh3, _redis_key

    client = _redis(store)
    fields = (f"_ts:{publication.view}", *(_mmh3(f"{publication.view}:{name}") for name in ("vector", ANSWER)))
    packed_ids = (block.column("customer_id").to_pylist() for block in blocks(packed, 0))
    for customer_ids in (*packed_ids, more_customers):
        with client.pipeline(transaction=False) as pipe:
            for customer_id in customer_ids:
                pipe.hdel(_redis_key(store.project, entity_key(customer_id)), *fields)
            pipe.execute()


def _redis(store: FeatureStore) -> Any:
    online: Any = store._get_provider().online_store
    return online._get_client(store.config.online_store)


@contextmanager
def _embedded(home: Path) -> Iterator[sqlite3.Connection]:
    """The home's own online store; one without a table where there is none."""
    path = stores.embedded_path(home)
    with closing(sqlite3.connect(path if path.exists() else ":memory:", timeout=_PATIENCE)) as connection:
        yield connection


def _tables_of_vectors(connection: sqlite3.Connection) -> list[str]:
    query = "SELECT m.name FROM sqlite_master m, pragma_table_info(m.name) c WHERE c.name = 'entity_key'"
    return [row[0] for row in connection.execute(query)]


def sqlite_name(store: FeatureStore, customer_id: str) -> bytes:
    """What SQLite has a customer's rows under."""
    from feast.infra.key_encoding_utils import serialize_entity_key

    return serialize_entity_key(entity_key(customer_id), store.config.entity_key_serialization_version)


def redis_name(store: FeatureStore, customer_id: str) -> bytes:
    """What Redis has a customer's row under."""
    from feast.infra.online_stores.helpers import _redis_key

    return bytes(_redis_key(store.project, entity_key(customer_id)))
