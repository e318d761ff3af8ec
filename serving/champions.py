"""Which versions answer, by kind, what the registry says of them, and where their files are."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pyarrow.parquet as pq

from features.snapshot import families
from training.models.rule import OURS
from workspace import registry, storage
from workspace.registry import KINDS
from workspace.settings import Workspace

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion


class NoChampion(RuntimeError):
    """Nothing was promoted for this workspace yet: there is no model to answer with."""


class Registered(NamedTuple):
    """What MLflow's registry says of a version; `grade` is the backtest's, `trained_at` in seconds since 1970.

    `answers_by` names what answers where that is not the model that was taught, `withheld` says why no amount is shown.
    """

    name: str
    version: str
    grade: str | None
    trained_at: float
    trained_as_of: str | None
    answers_by: str | None = None
    withheld: str | None = None

    @property
    def title(self) -> str:
        return f"{self.name}/{self.version}"

    @classmethod
    def of(cls, tracker: MlflowClient, version: ModelVersion) -> Registered:
        tags, at, trained = version.tags, version.creation_timestamp / 1000, registry.trained_as_of(tracker, version)
        by, known = tags.get("answers_by"), str(trained) if trained else None
        other = None if by == OURS else by
        return cls(version.name, str(version.version), tags.get("grade"), at, known, other, tags.get("withheld"))


def kinds(workspace: Workspace) -> tuple[str, ...]:
    return KINDS if "product_affinity" in families(workspace) else ("churn", "lifetime_value")


def versions_answering(
    workspace: Workspace, tracker: MlflowClient, as_of: date | None
) -> tuple[dict[str, ModelVersion | None], tuple[str, ...]]:
    """The version of each kind that answers, and what is to be said of one that does not."""
    versions: dict[str, ModelVersion | None] = {}
    remarks: list[str] = []
    for kind in kinds(workspace):
        try:
            versions[kind] = registry.answering(tracker, workspace, kind, as_of)
        except registry.Unfit as problem:
            if kind != "cross_sell" or not problem.too_late:
                raise
            remarks.append(f"nothing is offered: {problem}")
    for kind in ("churn", "lifetime_value"):
        if versions[kind] is None:
            raise NoChampion(f"{workspace.name} has no {kind} champion; run `perennial train` and `promote`")
    return versions, tuple(remarks)


def refuse_without(workspace: Workspace, tracker: Callable[[], MlflowClient], as_of: date) -> None:
    """
    Raises:
        NoChampion, Unfit: as `versions_answering`. That is not asked again once it passed, until any of what
            `that_scored` goes by has changed.
    """
    key = _key(workspace, as_of, storage.scores_path(workspace.home_path, as_of))
    kept = workspace.home_path / "promoted.json"
    with suppress(OSError, ValueError):
        if key is not None and storage.read_json(kept) == key:
            return
    versions_answering(workspace, tracker(), as_of)
    with suppress(OSError):  # as in `that_scored`
        storage.write_json(kept, key)


class Answering(NamedTuple):
    """A version that answers, its files, and their digests as they were registered; null for a version without."""

    registered: Registered
    folder: Path
    digests: Mapping[str, str] | None

    @classmethod
    def of(cls, tracker: MlflowClient, version: ModelVersion) -> Answering:
        registered, noted = Registered.of(tracker, version), version.tags.get(registry.DIGESTS)
        return cls(registered, registry.model_folder(tracker, version), json.loads(noted) if noted else None)


def answering(tracker: MlflowClient, versions: Mapping[str, ModelVersion | None]) -> dict[str, Answering]:
    """By kind, of those that there are."""
    return {kind: Answering.of(tracker, version) for kind, version in versions.items() if version is not None}


def that_scored(workspace: Workspace, tracker: Callable[[], MlflowClient], as_of: date) -> dict[str, Answering]:
    """What made the scores of `as_of`, by kind, once it is sure that they may say something of it.

    What the registry says is kept in the home, and asked for again only where it, the settings, the scores or the
    ingested rows have changed since: MLflow takes seconds to load.

    Raises:
        CheckFailed: there are no such scores, MLflow knows a version no more, or it may not answer about `as_of`.
        FileNotFoundError, ChangedModel: as `registry.model_folder`.
    """
    path = storage.scores_path(workspace.home_path, as_of)
    if not path.exists():
        again = f"`perennial score -c FILE --as-of {as_of}`"
        raise storage.CheckFailed(f"{workspace.name} has no scores of {as_of}; {again} makes them")
    key, kept = _key(workspace, as_of, path), workspace.home_path / "champions.json"
    if key is not None and (known := _read(kept, key)) is not None:
        for of_kind in known.values():
            registry.refuse_changed(of_kind.registered.title, of_kind.folder, of_kind.digests)
        return known
    asked = tracker()
    scored = answering(asked, _scored_by(workspace, asked, as_of))
    if key is not None:
        with suppress(OSError):  # a home that is read-only is asked about each time
            storage.write_json(kept, {"key": key, "answering": {kind: _written(one) for kind, one in scored.items()}})
    return scored


def _key(workspace: Workspace, as_of: date, scores: Path) -> str | None:
    """Of all that the answer of `that_scored` hangs on; none where the registry does not show whether it changed."""
    registered = registry.edition()
    if registered is None or not scores.exists():
        return None
    tables = storage.tables_folder(workspace.home_path, "transactions")
    rows = [storage.edition(path) for path in (scores, *storage.parts(tables))]
    asked = workspace.model_dump(mode="json", exclude={"home"})  # that the note lies in, however it is written
    parts = [registered, str(as_of), rows, asked, sorted(Registered._fields)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _read(kept: Path, key: str) -> dict[str, Answering] | None:
    try:
        note = storage.read_json(kept)
        if note["key"] != key:
            return None
        return {
            kind: Answering(Registered(*one["registered"]), Path(one["folder"]), one["digests"])
            for kind, one in note["answering"].items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _written(one: Answering) -> dict[str, object]:
    return {"registered": [*one.registered], "folder": str(one.folder), "digests": one.digests}


def _scored_by(workspace: Workspace, tracker: MlflowClient, as_of: date) -> dict[str, ModelVersion]:
    """The versions that the scores of `as_of` name, by kind; `that_scored` says what is raised."""
    again = f"`perennial score -c FILE --as-of {as_of}`"
    with pq.ParquetFile(storage.scores_path(workspace.home_path, as_of)) as scores:
        row = next(scores.iter_batches(1, columns=[f"{kind}_model" for kind in KINDS])).to_pylist()[0]
    versions = {}
    for kind in kinds(workspace):
        if (name := row[f"{kind}_model"]) is None:
            continue
        version = registry.version_called(tracker, name)
        why = registry.misfit(tracker, workspace, kind, version, as_of) if version else "is not in MLflow any more"
        if version is None or why:
            raise storage.CheckFailed(f"the scores of {as_of} are by {name}, which {why}; {again} makes them anew")
        versions[kind] = version
    return versions
