"""What is online: a publication, the note that names it, and what is wrong with one that may not answer.

A publication is the vectors of every customer known at one as_of: one order of features, one state of the tables, and
beside each vector, where that as_of was scored, the answer about the customer. It has a Feast view of its own, named
after all of that, so a vector can be read only as what it was written as. A changed catalogue or a half-written
publication puts no other columns under the numbers, and who is no longer known has no row.

Stale is a publication that the store does not hold (it was emptied, or is another one now), or that is older than the
scores of its as_of: what it answers would not be what the files say. Age alone is not: yesterday's answer is worth
more to a CRM than none, and every answer carries its as_of.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import pyarrow.parquet as pq

from features import stores
from features.snapshot import customer_features, features_hash
from workspace import storage
from workspace.settings import Workspace

ANSWER = "answer"
"""By which name a publication has the answers beside its vectors."""


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
    the scores it was published with, `answers` that of the answers beside the vectors; null where there are none.
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
    answers: str | None = None


def published(home: Path) -> Publication | None:
    """The publication that answers; none before the first, and a note without a view is none."""
    path = published_path(home)
    return read_note(path) if path.exists() and "view" in storage.read_json(path) else None


def stored(home: Path) -> list[Publication]:
    """Every publication that has a view: the one that answers, the one before, one that is being written."""
    return [read_note(path) for path in sorted((home / "online").glob("*/publication.json"))]


def published_path(home: Path) -> Path:
    return home / "published.json"


def changed_at(home: Path) -> tuple[tuple[int, ...] | None, int | None]:
    """Other than before where what answers must be opened anew: another publication, or another SQLite file."""
    note, database = published_path(home), stores.embedded_path(home)
    return storage.edition(note) if note.exists() else None, database.stat().st_ino if database.exists() else None


def packed_path(home: Path, view: str) -> Path:
    return home / "online" / view / "packed.parquet"


def note_path(home: Path, view: str) -> Path:
    return packed_path(home, view).with_name("publication.json")


def read_note(path: Path) -> Publication:
    noted = storage.read_json(path)
    return Publication(**{**noted, "as_of": date.fromisoformat(noted["as_of"]), "features": tuple(noted["features"])})


def push_source(publication: Publication) -> str:
    """Feast's name of the source that fresh vectors of a publication are pushed to."""
    return f"{publication.view}_push"


def again(publication: Publication) -> str:
    """What writes a publication anew, whatever the day is."""
    return f"run `perennial publish --as-of {publication.as_of}`"


def gone(publication: Publication) -> LostFeatures:
    return LostFeatures(
        f"the features published for {publication.as_of} are not in {publication.store}: {again(publication)}"
    )


@contextmanager
def without_a_table_gone(publication: Publication) -> Iterator[None]:
    """Says of a SQLite store that has no table of the publication that the publication is gone."""
    try:
        yield
    except sqlite3.OperationalError as problem:
        if "no such table" in str(problem):
            raise gone(publication) from problem
        raise


def scores_stamp(home: Path, as_of: date) -> str | None:
    path = storage.scores_path(home, as_of)
    return _made_from(path) if path.exists() else None


def expected_hash(workspace: Workspace) -> str:
    """The hash of the features that this code defines for the workspace, in their order."""
    return features_hash(feature.name for feature in customer_features(workspace))


def _made_from(path: Path) -> str | None:
    """What a Parquet file of ours says that it was made from."""
    return ((pq.read_metadata(path).metadata or {}).get(b"perennial") or b"").decode() or None
