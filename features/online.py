"""Features online: one packed vector per customer, written by `publish` and read by the service.

`published.json` names the publication that answers, and changes in one step when the next one is whole; until then the
old one answers. The one before stays in the store until a further one is begun, since a service may be reading it.
Events push rows of a later as_of over those of the publication.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import date, datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from features import packing, stores
from features.online_erasure import remove_all_but
from features.packing import blocks, packed
from features.publications import (
    ANSWER,
    FeatureMismatch,
    LostFeatures,
    Publication,
    StaleFeatures,
    again,
    gone,
    note_path,
    packed_path,
    published,
    published_path,
    push_source,
    read_note,
    scores_stamp,
    without_a_table_gone,
)
from features.stores import entity_key
from ingest import events
from workspace import cores, settings, storage
from workspace.settings import Workspace
from workspace.windows import midnight

if TYPE_CHECKING:
    from feast import FeatureStore, FeatureView

_TOLD_EVERY = 100_000
_MANY = 30_000  # customers whose answers take longer than other processes take to start
_PROCESSES = 4  # that find answers: who writes keeps up with no more


Customers = tuple[list[str], NDArray[np.float32]]
"""Ids, and a packed vector of each."""


class Answers(NamedTuple):
    """What is published beside the vectors: `of` customers and their vectors, a text each, empty where there is none.

    `stamp` stands for all that the texts hang on beside the vectors. `of` can be sent to another process.
    """

    stamp: str
    of: Callable[[Customers], list[bytes]]


def publish(
    store: FeatureStore, workspace: Workspace, as_of: date, progress: Callable[[str], None] = lambda _: None,
    answers: Answers | None = None,
) -> int:  # fmt: skip
    """Puts one packed vector per customer known at `as_of` online, then answers from them; returns how many.

    Beside each lies what `answers` says of the customer. Goes on where a killed one stopped. Writes nothing where all
    of it is online already.

    Raises:
        CheckFailed: there is no snapshot at `as_of`, nobody is known then, or the online store does not answer.
    """
    from features.repo.definitions import CUSTOMER, packed_service, packed_view

    home = workspace.home_path
    wanted = packed(workspace, as_of, answers.stamp if answers else None)
    folder = packed_path(home, wanted.view).parent
    store.apply([CUSTOMER, packed_view(workspace, wanted)])
    written = _written(store, workspace.home_path, wanted)
    if written < wanted.customers:
        remove_all_but({wanted.view, getattr(published(home), "view", "")}, store, workspace)
        if written:
            progress(f"{written:,} of {wanted.customers:,} customers are online already")
        told = written
        for count in _write(store, workspace, wanted, written, answers):
            storage.write_json(folder / "written.json", count)
            if count - told >= _TOLD_EVERY:
                progress(f"{count:,} of {wanted.customers:,} customers are online")
                told = count
        events.show_again(workspace)
    settings.keep(workspace)
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
    scored = scores_stamp(workspace.home_path, publication.as_of)
    if scored not in (None, publication.scores):
        raise StaleFeatures(
            f"{publication.as_of} was scored again after its features were published: {again(publication)}"
        )
    refuse_if_gone(store, workspace, publication)
    if (tag := _view(store, publication.view).tags.get("features_hash")) != expected:
        raise FeatureMismatch(f"the online view has hash {tag}, the champions expect {expected}: {again(publication)}")


class Row(NamedTuple):
    """A customer's packed vector and its as_of: the publication's, or a later one where an event came since."""

    vector: NDArray[np.float32]
    as_of: date


def answers(store: FeatureStore, publication: Publication, customer_ids: Sequence[str]) -> dict[str, bytes]:
    """What was published beside the vectors of these customers.

    Absent is whom the publication does not know or has no answer about: one for whom an event came since, say.

    Raises:
        LostFeatures, CheckFailed: as for `online_rows`.
    """
    if publication.answers is None:
        return {}
    view, of_feast = _view(store, publication.view), cast(Any, store._get_provider()).online_store
    with without_a_table_gone(publication):
        texts = of_feast.answers(store.config, view, customer_ids)
    return {customer_id: text for customer_id, text in zip(customer_ids, texts, strict=True) if text}


def push(store: FeatureStore, workspace: Workspace, publication: Publication, rows: Mapping[str, Row]) -> None:
    """Puts rows over those that the publication has of these customers, or beside them where it has none.

    What was published beside a row that is put over holds no longer, and goes.

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
        | ({ANSWER: b""} if publication.answers else {})
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
        vectors = _read(store, publication, asked)
        if len(vectors) < len(asked) and not _is_there(store, workspace.home_path, publication):
            raise gone(publication)
    zone = workspace.timezone
    return {customer_id: Row(vector, _day(instant, zone)) for customer_id, (vector, instant) in vectors.items()}


def refuse_if_gone(store: FeatureStore, workspace: Workspace, publication: Publication) -> None:
    """
    Raises:
        LostFeatures: the store does not hold the publication (any more), or not all of it.
        CheckFailed: the online store does not answer.
    """
    online_rows(store, workspace, publication, [publication.last_customer, ""])


def _is_there(store: FeatureStore, home: Path, publication: Publication) -> bool:
    """Told by its last customer; where that one was erased since, its note on the disk names another."""
    if _read(store, publication, [publication.last_customer]):
        return True
    note = note_path(home, publication.view)
    return note.exists() and bool(_read(store, publication, [read_note(note).last_customer]))


@lru_cache(maxsize=64)
def _day(instant: datetime, timezone: str) -> date:
    return instant.astimezone(ZoneInfo(timezone)).date()


def _read(
    store: FeatureStore, publication: Publication, customer_ids: list[str]
) -> dict[str, tuple[NDArray[np.float32], datetime]]:
    """Through Feast's provider: `get_online_features` makes the same call, and takes thrice as long around it."""
    view, keys = _view(store, publication.view), [entity_key(customer_id) for customer_id in customer_ids]
    with without_a_table_gone(publication):
        rows = store._get_provider().online_read(store.config, view, keys, ["vector"])
    vectors = {
        customer_id: (np.array(row["vector"].float_list_val.val, dtype=np.float32), instant)
        for customer_id, (instant, row) in zip(customer_ids, rows, strict=True)
        # SQLite says None, Redis an empty value
        if row is not None and instant is not None and row["vector"].HasField("float_list_val")
    }
    if any(len(vector) != len(publication.features) for vector, _ in vectors.values()):
        raise FeatureMismatch(
            f"a vector in {publication.view} has not {len(publication.features)} features: {again(publication)}"
        )
    return vectors


@lru_cache(maxsize=8)
def _view(store: FeatureStore, name: str) -> FeatureView:
    from feast.errors import FeatureViewNotFoundException

    try:
        return store.get_feature_view(name)
    except FeatureViewNotFoundException as problem:
        raise LostFeatures(f"Feast's registry has no view {name}: run `perennial publish`") from problem


def _write(
    store: FeatureStore, workspace: Workspace, publication: Publication, written: int, answers: Answers | None
) -> Iterator[int]:
    """Writes block after block from customer number `written` on; yields how many are written by then."""
    from feast.protos.feast.types.Value_pb2 import FloatList, Value

    view, provider = _view(store, publication.view), store._get_provider()
    at = midnight(publication.as_of, workspace.timezone)
    for (customer_ids, vectors), texts in _answered(workspace.home_path, publication, written, answers):
        columns = {"vector": [Value(float_list_val=FloatList(val=vector)) for vector in vectors.tolist()]}
        if answers is not None:
            columns[ANSWER] = [Value(bytes_val=text) for text in texts]
        rows: list[Any] = [
            (entity_key(customer_id), dict(zip(columns, values, strict=True)), at, None)
            for customer_id, *values in zip(customer_ids, *columns.values(), strict=True)
        ]
        with stores.reached(store):
            provider.online_write_batch(store.config, view, rows, None)
        written += len(rows)
        yield written


def _answered(
    home: Path, publication: Publication, written: int, answers: Answers | None
) -> Iterator[tuple[Customers, list[bytes]]]:
    """The customers from number `written` on in blocks, with the answers about them.

    Of many the answers take most of the time, so other processes find them while this one writes.
    """
    width = len(publication.features)
    given = (
        (block.column("customer_id").to_pylist(), block.column("vector").flatten().to_numpy().reshape(-1, width))
        for block in blocks(packed_path(home, publication.view), written)
    )
    if answers is None:
        return ((customers, []) for customers in given)
    if publication.customers - written < _MANY:
        return ((customers, answers.of(customers)) for customers in given)
    return cores.in_processes(answers.of, given, _PROCESSES)


def _written(store: FeatureStore, home: Path, publication: Publication) -> int:
    """How many customers a former attempt has written; none if the store has lost any of them.

    Of what was cut off a sample is looked up; of what is taken for whole, everybody.
    """
    path = packed_path(home, publication.view)
    note = path.with_name("written.json")
    count = int(storage.read_json(note)) if note.exists() else 0
    if not count:
        return 0
    whole = count >= publication.customers
    asked = (block["customer_id"].to_pylist() for block in blocks(path, 0)) if whole else [packing.spread(path, count)]
    with stores.reached(store):
        return count if all(len(_read(store, publication, some)) == len(some) for some in asked) else 0
