"""The vectors of a publication in a file: packed there first, then written to the online store and removed from it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from datetime import date
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from features import stores
from features.publications import Publication, note_path, packed_path, read_note, scores_stamp
from features.snapshot import CUSTOMER_FAMILIES, customer_features, features_hash, stamp_of
from workspace import storage
from workspace.settings import Workspace
from workspace.storage import CheckFailed

# Customers written at a time: SQLite keeps so many changes in memory, and readers out only for the instant of a commit.
_BLOCK = 2_500
_PACKING_MEMORY = 2.0  # gigabytes of the join of the families; what needs more goes to disk
_SAMPLE = 100  # customers looked up before a publication is taken for written


def packed(workspace: Workspace, as_of: date, answers: str | None = None) -> Publication:
    """The publication of `as_of`, its vectors packed into a file first: they are written, and removed, from that.

    `answers` is the stamp of what is written beside the vectors.
    """
    home, names = workspace.home_path, tuple(feature.name for feature in customer_features(workspace))
    parts = {family: storage.snapshot_part(home, family, as_of) for family in CUSTOMER_FAMILIES}
    for family, part in parts.items():
        if not part.exists():
            raise CheckFailed(f"{family} has no snapshot at {as_of}; run `perennial snapshot -c FILE --as-of {as_of}`")
    data = hashlib.sha256(" ".join(stamp_of(part) or "" for part in parts.values()).encode()).hexdigest()[:16]
    store = stores.online_address(workspace)
    parts_of_name = [workspace.name, str(as_of), names, data, store, *([answers] if answers else [])]
    view = f"customer_vector_{hashlib.sha256(json.dumps(parts_of_name).encode()).hexdigest()[:12]}"
    note, scores = note_path(home, view), scores_stamp(home, as_of)
    if not note.exists():
        count, last = _pack(workspace.home_path, parts, names, packed_path(home, view))
        if not count:
            raise CheckFailed(f"nobody is known at {as_of}; choose a later --as-of, or ingest earlier purchases")
        hashed = features_hash(names)
        publication = Publication(view, as_of, names, hashed, data, store, count, last, answers=answers)
        storage.write_json(note, asdict(publication))
    return replace(read_note(note), scores=scores)


def _pack(home: Path, parts: dict[str, Path], names: Sequence[str], path: Path) -> tuple[int, str]:
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
    with storage.connect(home, memory=_PACKING_MEMORY) as connection:
        count = storage.copy_to(connection, query, path)
        last = connection.execute(f"SELECT max(customer_id) FROM {storage.reader([path])}").fetchall()[0][0]
    return count, last


def blocks(path: Path, skipped: int) -> Iterator[pa.RecordBatch]:
    """The packed rows behind the first `skipped`, in blocks."""
    with pq.ParquetFile(path) as packed:
        for batch in packed.iter_batches(batch_size=_BLOCK, columns=["customer_id", "vector"]):
            if batch.num_rows > skipped:
                yield batch.slice(skipped)
            skipped = max(0, skipped - batch.num_rows)


def sample(workspace: Workspace, publication: Publication) -> list[str]:
    """Customers whom the store must hold of a publication, to look up; nobody where its packed file is gone."""
    path = packed_path(workspace.home_path, publication.view)
    return _sample_of(path, storage.edition(path)) if path.exists() else []


@lru_cache(maxsize=4)
def _sample_of(path: Path, _: tuple[int, ...]) -> list[str]:
    """Kept until the file is another: one from which erased customers are gone."""
    return spread(path, pq.read_metadata(path).num_rows)


def spread(path: Path, count: int) -> list[str]:
    """Customers among the first `count` of a packed file, evenly spread."""
    chosen = np.linspace(0, count - 1, min(count, _SAMPLE)).astype(int)
    sample: list[str] = pq.read_table(path, columns=["customer_id"])["customer_id"].take(chosen).to_pylist()
    return sample
