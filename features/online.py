"""Features online: one packed vector per customer, written by `publish` and read by the service.

A publication is the vectors of every customer known at one as_of: one order of features, one state of the tables. It
has a Feast view of its own, named after all of that, so a vector can be read only as what it was written as. A changed
catalogue or a half-written publication puts no other columns under the numbers, and who is no longer known has no row.
`published.json` names the publication that answers, and changes in one step when the next one is whole; until then the
old one answers. The one before stays in the store until a further one is begun, since a service may be reading it.
Events push rows of a later as_of over those of the publication.

Stale is a publication that the store does not hold (it was emptied, or is another one now), or that is older than the
scores of its as_of: what it answers would not be what the files say. Age alone is not: yesterday's answer is worth
more to a CRM than none, and every answer carries its as_of.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import date, datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from features import stores
from features.snapshot import CUSTOMER_FAMILIES, customer_features, features_hash, stamp_of
from perennial import events, storage
from perennial.settings import Workspace
from perennial.storage import CheckFailed
from perennial.windows import midnight

if TYPE_CHECKING:
    from feast import FeatureStore, FeatureView
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey

# Customers written at a time: SQLite keeps so many changes in memory, and readers out only for the instant of a commit.
_BLOCK = 2_500
_TOLD_EVERY = 100_000
_PACKING_MEMORY = 2.0  # gigabytes of the join of the families; what needs more goes to disk
_PATIENCE = 60  # seconds that an erasure waits for who writes into SQLite
_SAMPLE = 100  # customers looked up before a publication is taken for written


class FeatureMismatch(RuntimeError):
    """The online features are not the ones that the model was trained on; serving them would be wrong."""

    code = "feature_hash_mismatch"


class StaleFeatures(FeatureMismatch):
    """What was published last is not in the online store, or was scored again since."""

    code = "stale_features"


class LostFeatures(StaleFeatures):
    """The online store does not hold what was published: it was emptied, or is another one now."""


@dataclass(frozen=True)
class Publication:
    """What the online store holds under `view`: the vector of every customer known at `as_of`, `features` in order.

    `data` is the stamp of the snapshots it was packed from, `store` the online store's address, `scores` the stamp of
    the scores it was published with.
    """

    view: str
    as_of: date
    features: tuple[str, ...]
    features_hash: str
    data: str
    store: str
    customers: int
    last_customer: str
    scores: str | None = None


def published(home: Path) -> Publication | None:
    """The publication that answers; none before the first, and a note without a view is none."""
    path = published_path(home)
    return _read_note(path) if path.exists() and "view" in storage.read_json(path) else None


def publications(home: Path) -> list[Publication]:
    """Every publication that has a view: the one that answers, the one before, one that is being written."""
    return [_read_note(path) for path in sorted((home / "online").glob("*/publication.json"))]


def published_path(home: Path) -> Path:
    return home / "published.json"


def changed_at(home: Path) -> tuple[int | None, int | None]:
    """Other than before where what answers must be opened anew: another publication, or another SQLite file."""
    found = [path.stat() if path.exists() else None for path in (published_path(home), stores.embedded_path(home))]
    note, database = found
    return note and note.st_mtime_ns, database and database.st_ino


def packed_path(home: Path, view: str) -> Path:
    return home / "online" / view / "packed.parquet"


def _note_path(home: Path, view: str) -> Path:
    return packed_path(home, view).with_name("publication.json")


def _read_note(path: Path) -> Publication:
    noted = storage.read_json(path)
    return Publication(**{**noted, "as_of": date.fromisoformat(noted["as_of"]), "features": tuple(noted["features"])})


def publish(
    store: FeatureStore, workspace: Workspace, as_of: date, progress: Callable[[str], None] = lambda _: None
) -> int:
    """Puts one packed vector per customer known at `as_of` online, then answers from them; returns how many.

    Goes on where a killed one stopped. Writes nothing where all of it is online already.

    Raises:
        CheckFailed: there is no snapshot at `as_of`, nobody is known then, or the online store does not answer.
    """
    from features.repo.definitions import CUSTOMER, packed_service, packed_view

    home = workspace.home_path
    wanted = _packed(workspace, as_of)
    folder = packed_path(home, wanted.view).parent
    store.apply([CUSTOMER, packed_view(workspace, wanted)])
    written = _written(store, workspace, wanted)
    if written < wanted.customers:
        _remove_all_but({wanted.view, getattr(published(home), "view", "")}, store, workspace)
        if written:
            progress(f"{written:,} of {wanted.customers:,} customers are online already")
        told = written
        for count in _write(store, workspace, wanted, written):
            storage.write_json(folder / "written.json", count)
            if count - told >= _TOLD_EVERY:
                progress(f"{count:,} of {wanted.customers:,} customers are online")
                told = count
        events.show_again(workspace)
    if published(home) == wanted:
        lost = (
            f"the online store had lost features of {as_of}: those of {wanted.customers:,} customers are online again"
        )
        progress(lost if written < wanted.customers else f"features of {as_of} are online already")
        return wanted.customers
    store.apply([packed_service(packed_view(workspace, wanted))])
    storage.write_json(published_path(home), asdict(wanted))
    progress(f"published {wanted.customers:,} customers")
    return wanted.customers


def check(store: FeatureStore, workspace: Workspace, publication: Publication, expected: str) -> None:
    """Refuses a publication that is not of the features with hash `expected`, or is stale.

    Raises:
        FeatureMismatch: its note, or its view in Feast's registry, has another hash.
        LostFeatures: the store does not hold it.
        StaleFeatures: its as_of was scored again since.
        CheckFailed: the online store does not answer.
    """
    if publication.features_hash != expected:
        raise FeatureMismatch(
            f"the features published for {publication.as_of} have hash {publication.features_hash}, the champions"
            f" expect {expected}: {again(publication)}"
        )
    if publication.store != (address := stores.online_address(workspace)):
        raise LostFeatures(
            f"features were published to another online store ({publication.store}, not {address}): "
            + again(publication)
        )
    scored = _scores_stamp(workspace.home_path, publication.as_of)
    if scored not in (None, publication.scores):
        raise StaleFeatures(
            f"{publication.as_of} was scored again after its features were published: {again(publication)}"
        )
    refuse_if_gone(store, workspace, publication)
    if (tag := _view(store, publication.view).tags.get("features_hash")) != expected:
        raise FeatureMismatch(f"the online view has hash {tag}, the champions expect {expected}: {again(publication)}")


def again(publication: Publication) -> str:
    """What writes a publication anew, whatever the day is."""
    return f"run `perennial publish --as-of {publication.as_of}`"


class Row(NamedTuple):
    """A customer's packed vector and its as_of: the publication's, or a later one where an event came since."""

    vector: NDArray[np.float32]
    as_of: date


def push_source(publication: Publication) -> str:
    """Feast's name of the source that fresh vectors of a publication are pushed to."""
    return f"{publication.view}_push"


def push(store: FeatureStore, workspace: Workspace, publication: Publication, rows: Mapping[str, Row]) -> None:
    """Puts rows over those that the publication has of these customers, or beside them where it has none.

    Raises:
        CheckFailed: the online store does not answer.
    """
    import pandas as pd

    frame = pd.DataFrame(
        {
            "customer_id": list(rows),
            "as_of": [pd.Timestamp(midnight(row.as_of, workspace.timezone)) for row in rows.values()],
            "vector": [row.vector.tolist() for row in rows.values()],
        }
    )
    with stores.reached(store):
        store.push(push_source(publication), frame)


def online_rows(
    store: FeatureStore, workspace: Workspace, publication: Publication, customer_ids: Sequence[str]
) -> dict[str, Row]:
    """The row of each customer whom the publication or an event knows; others are absent.

    Raises:
        LostFeatures: the store does not hold the publication (any more).
        FeatureMismatch: a vector is not as long as the publication's features.
        CheckFailed: the online store does not answer.
    """
    asked = list(dict.fromkeys(customer_ids))
    with stores.reached(store):
        found = _read(store, publication, asked)
        if len(found) < len(asked) and not _is_there(store, workspace, publication):
            raise gone(publication)
    zone = workspace.timezone
    return {customer_id: Row(vector, _day(instant, zone)) for customer_id, (vector, instant) in found.items()}


def refuse_if_gone(store: FeatureStore, workspace: Workspace, publication: Publication) -> None:
    """
    Raises:
        LostFeatures: the store does not hold the publication (any more), or not all of it.
        CheckFailed: the online store does not answer.
    """
    online_rows(store, workspace, publication, [publication.last_customer, ""])


def sample(workspace: Workspace, publication: Publication) -> list[str]:
    """Customers whom the store must hold of a publication, to look up; nobody where its packed file is gone."""
    path = packed_path(workspace.home_path, publication.view)
    return _sample_of(path, path.stat().st_mtime_ns) if path.exists() else []


@lru_cache(maxsize=4)
def _sample_of(path: Path, _: int) -> list[str]:
    """Kept until the file is another: one from which erased customers are gone."""
    return _sample(path, pq.read_metadata(path).num_rows)


def _is_there(store: FeatureStore, workspace: Workspace, publication: Publication) -> bool:
    """Told by its last customer; where that one was erased since, its note on the disk names another."""
    if _read(store, publication, [publication.last_customer]):
        return True
    note = _note_path(workspace.home_path, publication.view)
    return note.exists() and bool(_read(store, publication, [_read_note(note).last_customer]))


@lru_cache(maxsize=64)
def _day(instant: datetime, timezone: str) -> date:
    return instant.astimezone(ZoneInfo(timezone)).date()


def expected_hash(workspace: Workspace) -> str:
    """The hash of the features that this code defines for the workspace, in their order."""
    return features_hash(feature.name for feature in customer_features(workspace))


def _read(
    store: FeatureStore, publication: Publication, customer_ids: list[str]
) -> dict[str, tuple[NDArray[np.float32], datetime]]:
    """Through Feast's provider: `get_online_features` makes the same call, and takes thrice as long around it."""
    view, keys = _view(store, publication.view), [entity_key(customer_id) for customer_id in customer_ids]
    with without_a_table_gone(publication):
        rows = store._get_provider().online_read(store.config, view, keys, ["vector"])
    found = {
        customer_id: (np.array(row["vector"].float_list_val.val, dtype=np.float32), instant)
        for customer_id, (instant, row) in zip(customer_ids, rows, strict=True)
        # SQLite says None, Redis an empty value
        if row is not None and instant is not None and row["vector"].HasField("float_list_val")
    }
    if any(len(vector) != len(publication.features) for vector, _ in found.values()):
        raise FeatureMismatch(
            f"a vector in {publication.view} has not {len(publication.features)} features: {again(publication)}"
        )
    return found


@lru_cache(maxsize=8)
def _view(store: FeatureStore, name: str) -> FeatureView:
    from feast.errors import FeatureViewNotFoundException

    try:
        return store.get_feature_view(name)
    except FeatureViewNotFoundException as problem:
        raise LostFeatures(f"Feast's registry has no view {name}: run `perennial publish`") from problem


@contextmanager
def without_a_table_gone(publication: Publication) -> Iterator[None]:
    """Says of a SQLite store that has no table of the publication that the publication is gone."""
    try:
        yield
    except sqlite3.OperationalError as problem:
        if "no such table" in str(problem):
            raise gone(publication) from problem
        raise


def gone(publication: Publication) -> LostFeatures:
    return LostFeatures(
        f"the features published for {publication.as_of} are not in {publication.store}: {again(publication)}"
    )


def _packed(workspace: Workspace, as_of: date) -> Publication:
    """The publication of `as_of`, its vectors packed into a file first: they are written, and removed, from that."""
    home, names = workspace.home_path, tuple(feature.name for feature in customer_features(workspace))
    parts = {family: storage.snapshot_part(home, family, as_of) for family in CUSTOMER_FAMILIES}
    for family, part in parts.items():
        if not part.exists():
            raise CheckFailed(f"{family} has no snapshot at {as_of}; run `perennial snapshot -c FILE --as-of {as_of}`")
    data = hashlib.sha256(" ".join(stamp_of(part) or "" for part in parts.values()).encode()).hexdigest()[:16]
    store = stores.online_address(workspace)
    identity = json.dumps([workspace.name, str(as_of), names, data, store])
    view = f"customer_vector_{hashlib.sha256(identity.encode()).hexdigest()[:12]}"
    note, scores = _note_path(home, view), _scores_stamp(home, as_of)
    if not note.exists():
        count, last = _pack(workspace, parts, names, packed_path(home, view))
        if not count:
            raise CheckFailed(f"nobody is known at {as_of}; choose a later --as-of, or ingest earlier purchases")
        found = Publication(view, as_of, names, features_hash(names), data, store, count, last)
        storage.write_json(note, asdict(found))
    return replace(_read_note(note), scores=scores)


def _pack(workspace: Workspace, parts: dict[str, Path], names: Sequence[str], path: Path) -> tuple[int, str]:
    """Writes customer_id, as_of and vector, sorted by id, to `path`; returns how many and the last id."""
    vector = ", ".join(f"coalesce(\"{name}\", 'nan'::FLOAT)" for name in names)
    tables = " ".join(
        f"LEFT JOIN {storage.rows_of_part(part)} AS {family} USING (customer_id)"
        for family, part in parts.items()
        if family != "profile"
    )
    query = (
        f"SELECT profile.customer_id, profile.as_of, [{vector}] AS vector"
        f" FROM {storage.rows_of_part(parts['profile'])} AS profile {tables} ORDER BY customer_id"
    )
    with storage.connect(workspace.home_path, memory=_PACKING_MEMORY) as connection:
        count = storage.copy_to(connection, query, path)
        last = connection.execute(f"SELECT max(customer_id) FROM {storage.reader([path])}").fetchall()[0][0]
    return count, last


def _write(store: FeatureStore, workspace: Workspace, publication: Publication, written: int) -> Iterator[int]:
    """Writes block after block from customer number `written` on; yields how many are written by then."""
    from feast.protos.feast.types.Value_pb2 import FloatList, Value

    view, provider = _view(store, publication.view), store._get_provider()
    at, width = midnight(publication.as_of, workspace.timezone), len(publication.features)
    for block in _blocks(packed_path(workspace.home_path, publication.view), written):
        vectors = block.column("vector").flatten().to_numpy().reshape(-1, width).tolist()
        rows: list[Any] = [
            (entity_key(customer_id), {"vector": Value(float_list_val=FloatList(val=vector))}, at, None)
            for customer_id, vector in zip(block.column("customer_id").to_pylist(), vectors, strict=True)
        ]
        with stores.reached(store):
            provider.online_write_batch(store.config, view, rows, None)
        written += len(rows)
        yield written


def _blocks(path: Path, skipped: int) -> Iterator[pa.RecordBatch]:
    """The packed rows behind the first `skipped`, in blocks."""
    with pq.ParquetFile(path) as packed:
        for batch in packed.iter_batches(batch_size=_BLOCK, columns=["customer_id", "vector"]):
            if batch.num_rows > skipped:
                yield batch.slice(skipped)
            skipped = max(0, skipped - batch.num_rows)


def _written(store: FeatureStore, workspace: Workspace, publication: Publication) -> int:
    """How many customers a former attempt has written; none if the store has lost any of them.

    Of what was cut off a sample is looked up; of what is taken for whole, everybody.
    """
    path = packed_path(workspace.home_path, publication.view)
    note = path.with_name("written.json")
    count = int(storage.read_json(note)) if note.exists() else 0
    if not count:
        return 0
    whole = count >= publication.customers
    asked = (block["customer_id"].to_pylist() for block in _blocks(path, 0)) if whole else [_sample(path, count)]
    with stores.reached(store):
        return count if all(len(_read(store, publication, some)) == len(some) for some in asked) else 0


def _sample(path: Path, count: int) -> list[str]:
    """Customers among the first `count` of a packed file, evenly spread."""
    chosen = np.linspace(0, count - 1, min(count, _SAMPLE)).astype(int)
    sample: list[str] = pq.read_table(path, columns=["customer_id"])["customer_id"].take(chosen).to_pylist()
    return sample


def _remove_all_but(views: set[str], store: FeatureStore, workspace: Workspace) -> None:
    """Takes every other publication out of the online store, the registry and the home."""
    for folder in sorted((workspace.home_path / "online").glob("*")):
        if folder.name not in views:
            if (folder / "publication.json").exists():
                _remove(_read_note(folder / "publication.json"), store, workspace)
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
    fields = (f"_ts:{publication.view}", _mmh3(f"{publication.view}:vector"))
    packed_ids = (block.column("customer_id").to_pylist() for block in _blocks(packed, 0))
    for customer_ids in (*packed_ids, more_customers):
        with client.pipeline(transaction=False) as pipe:
            for customer_id in customer_ids:
                pipe.hdel(_redis_key(store.project, entity_key(customer_id)), *fields)
            pipe.execute()


def held(store: FeatureStore, workspace: Workspace, customer_ids: Sequence[str]) -> dict[str, int]:
    """How many rows the online store has of each of these customers, in all publications.

    Rows in the home's SQLite file, from before features went to Redis, count too.
    """
    counts = dict.fromkeys(customer_ids, 0)
    if stores.in_redis(store):
        with stores.reached(store):
            counts |= {one: int(_redis(store).exists(_redis_name(store, one))) for one in customer_ids}
    with _embedded(workspace) as connection:
        for table in _tables_of_vectors(connection):
            query = f'SELECT count(*) FROM "{table}" WHERE entity_key = ?'
            for one in customer_ids:
                counts[one] += connection.execute(query, (_sqlite_name(store, one),)).fetchone()[0]
    return counts


def forget(store: FeatureStore, workspace: Workspace, customer_ids: Sequence[str]) -> None:
    """Takes customers out of every publication, so that those which stay answer as before.

    The notes come first: a store without its `last_customer` would be taken for an empty one. The packed files are
    left to whoever forgets about the customers in the home.
    """
    for publication in publications(workspace.home_path):
        _forget_in_notes(workspace.home_path, publication, customer_ids)
    if stores.in_redis(store):
        with stores.reached(store):
            _redis(store).delete(*(_redis_name(store, customer_id) for customer_id in customer_ids))
    with _embedded(workspace) as connection:
        with connection:
            for table in _tables_of_vectors(connection):
                names = [(_sqlite_name(store, customer_id),) for customer_id in customer_ids]
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
    storage.write_json(_note_path(home, publication.view), asdict(replace(publication, **changes)))
    answering = published(home)
    if answering is not None and answering.view == publication.view:
        storage.write_json(published_path(home), asdict(replace(answering, **changes)))


def _redis(store: FeatureStore) -> Any:
    online: Any = store._get_provider().online_store
    return online._get_client(store.config.online_store)


@contextmanager
def _embedded(workspace: Workspace) -> Iterator[sqlite3.Connection]:
    """The home's own online store; one without a table where there is none."""
    path = stores.embedded_path(workspace.home_path)
    with closing(sqlite3.connect(path if path.exists() else ":memory:", timeout=_PATIENCE)) as connection:
        yield connection


def _tables_of_vectors(connection: sqlite3.Connection) -> list[str]:
    query = "SELECT m.name FROM sqlite_master m, pragma_table_info(m.name) c WHERE c.name = 'entity_key'"
    return [row[0] for row in connection.execute(query)]


def _sqlite_name(store: FeatureStore, customer_id: str) -> bytes:
    from feast.infra.key_encoding_utils import serialize_entity_key

    return serialize_entity_key(entity_key(customer_id), store.config.entity_key_serialization_version)


def _redis_name(store: FeatureStore, customer_id: str) -> bytes:
    from feast.infra.online_stores.helpers import _redis_key

    return bytes(_redis_key(store.project, entity_key(customer_id)))


def entity_key(customer_id: str) -> EntityKey:
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value

    return EntityKey(join_keys=["customer_id"], entity_values=[Value(string_val=customer_id)])


def _scores_stamp(home: Path, as_of: date) -> str | None:
    path = storage.scores_path(home, as_of)
    return _stamp(path) if path.exists() else None


def _stamp(path: Path) -> str | None:
    """What a Parquet file of ours says that it was made from."""
    return ((pq.read_metadata(path).metadata or {}).get(b"perennial") or b"").decode() or None
