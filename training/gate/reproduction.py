"""Building a recorded run again, from its commit, settings, data and seed, and holding the two models together."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from features import retrieval, snapshot
from training import pipelines
from training.kinds import kind_of
from training.models.customer_model import read_model
from training.models.rule import OURS
from training.records import tracking
from training.records.tracking import Model
from workspace import consents
from workspace.registry import model_folder
from workspace.settings import Workspace
from workspace.storage import CheckFailed

if TYPE_CHECKING:
    from mlflow import MlflowClient

Say = Callable[[str], None]

TOLERANCE = 1e-9
"""Of a prediction, relative to it where it is larger than 1."""


@dataclass(frozen=True)
class Recorded:
    """What a run was made from."""

    run_id: str
    kind: str
    as_of: date
    workspace: Workspace
    commit: str
    libraries: Mapping[str, str]
    data: Mapping[str, list[str]]
    folder: Path
    contender: str

    @classmethod
    def of(cls, tracker: MlflowClient, text: str) -> Recorded:
        """`text` is the id of a run, or a version, such as `demo.churn/3`.

        Raises:
            CheckFailed: there is no such training, its files or its version are gone.
        """
        run = tracking.training_run(tracker, text)
        run_id = str(run.info.run_id)
        kept = tracking.artifacts(tracker, run_id)
        workspace = tracking.settings_of(kept, run_id)
        try:
            libraries, data = _json(kept, "libraries.json"), _json(kept, "data.json")
        except FileNotFoundError as problem:
            raise CheckFailed(f"run {run_id} was recorded by another version of Perennial: {problem}") from problem
        versions = tracker.search_model_versions(f"run_id = '{run_id}'")
        if not versions:
            raise CheckFailed(
                f"no registered version comes from run {run_id} (any more); there is no model to hold it to"
            )
        try:
            folder = model_folder(tracker, versions[0])
        except FileNotFoundError as problem:
            raise CheckFailed(f"the model of run {run_id} is gone: {problem}") from problem
        as_of, commit = date.fromisoformat(run.data.params["as_of"]), run.data.tags.get("git_commit", "unknown")
        contender = run.data.params.get("contender", OURS)
        return cls(run_id, tracking.kind_of(run), as_of, workspace, commit, libraries, data, folder, contender)

    def differences(self, given: Workspace | None = None) -> list[str]:
        """What is no longer as it was, a sentence each: commit, settings (of a file, if given), data, libraries."""
        sentences, now = [], tracking.commit()
        if self.commit.endswith("-dirty"):
            sentences.append(
                f"commit: the run was made from changes to {self.commit.removesuffix('-dirty')} never committed"
            )
        elif self.commit != now:
            sentences.append(f"commit: {self.commit} then, {now} now")
        mine = tracking.libraries()
        sentences += [
            f"library: {name} {then} then, {mine.get(name)} now"
            for name, then in self.libraries.items()
            if mine.get(name) != then
        ]
        if given is not None:
            then, asked = (_flat(w.model_dump(mode="json")) for w in (self.workspace, given))
            keys = sorted(
                key for key in then.keys() | asked.keys() if key != "home" and then.get(key) != asked.get(key)
            )
            sentences += [f"setting: {key} {then.get(key)} then, {asked.get(key)} in the file" for key in keys]
        return [*sentences, *self.changed_data()]

    def changed_data(self) -> list[str]:
        """Of the tables, as far as known at the as_of."""
        now = snapshot.contents(self.workspace, self.as_of)
        return [
            f"data: {len({*then} - {*now.get(name, [])})} of {len(then)} parts of {name} are gone,"
            f" {len({*now.get(name, [])} - {*then})} are new, in {self.workspace.home_path}"
            for name, then in self.data.items()
            if sorted(then) != sorted(now.get(name, []))
        ]

    @property
    def can_be_checked_out(self) -> bool:
        """Whether the commit is a clean one, other than the present, that the repository knows."""
        if self.commit in ("unknown", tracking.commit()) or self.commit.endswith("-dirty"):
            return False
        return _git("cat-file", "-e", f"{self.commit}^{{commit}}").returncode == 0


def _json(folder: Path, name: str) -> Any:
    return json.loads((folder / name).read_text(encoding="utf-8"))


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat


@dataclass(frozen=True)
class Rebuilt:
    """The model made again, and what both are asked about: everyone known at the as_of, or the offers of some."""

    model: Model
    rows: NDArray[np.float32]


def rebuild(recorded: Recorded, say: Say = lambda _: None) -> Rebuilt:
    """All is made in a folder of its own, features included; the workspace lends its tables and is left as it was.

    Raises:
        CheckFailed: the tables are not those that the run learnt from.
    """
    if changed := recorded.changed_data():
        raise CheckFailed(f"run {recorded.run_id} cannot be built again: {'; '.join(changed)}")
    with tempfile.TemporaryDirectory() as scratch:
        workspace = recorded.workspace.model_copy(update={"home": scratch, "online": "sqlite", "registry": "sqlite"})
        home = recorded.workspace.home_path
        for kept in (home / "tables", consents.path(home)):
            if kept.exists():
                (Path(scratch) / kept.name).symlink_to(kept)
        snapshot.snapshot(workspace, pipelines.cutoffs(workspace, recorded.as_of, [recorded.kind]), say)
        store = retrieval.apply(workspace)
        again = pipelines.fit(store, workspace, recorded.kind, recorded.as_of, recorded.contender)
        say(f"{recorded.kind} built again")
        return Rebuilt(again, kind_of(recorded.kind).rows(workspace, again, recorded.as_of))


def apart(recorded: Recorded, rebuilt: Rebuilt) -> float:
    """The largest difference between predictions of the run's model and of the one made again, as in `TOLERANCE`."""
    kind = kind_of(recorded.kind)
    stored = read_model(kind.model, recorded.folder)
    then, now = (kind.predictions(model, rebuilt.rows) for model in (stored, rebuilt.model))
    if then.shape != now.shape or not np.array_equal(np.isnan(then), np.isnan(now)):
        return float("inf")
    return float(np.nanmax(np.abs(then - now) / np.maximum(np.abs(then), 1.0), initial=0.0))


def in_checkout(recorded: Recorded, tracking_uri: str) -> int:
    """Lets the code of the recorded commit build the run again, in a checkout of its own; its exit code."""
    with _checkout(recorded.commit) as folder:
        environment = os.environ | {"PYTHONPATH": str(folder), "MLFLOW_TRACKING_URI": tracking_uri}
        command = [sys.executable, "-P", "-W", "ignore", "-m", "perennial", "reproduce", recorded.run_id]
        return subprocess.run(command, env=environment, check=False).returncode


@contextmanager
def _checkout(commit: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "code"
        made = _git("worktree", "add", "--detach", str(folder), commit)
        if made.returncode:
            raise CheckFailed(f"{commit} cannot be checked out: {made.stderr.strip()}")
        try:
            yield folder
        finally:
            _git("worktree", "remove", "--force", str(folder))


def _git(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["git", "-C", str(tracking.ROOT), *arguments], capture_output=True, text=True, check=False)
