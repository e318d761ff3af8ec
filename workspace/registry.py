"""The MLflow registry: where it is, what a workspace's models are called in it, and which version may answer what."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from workspace import digests, storage
from workspace.digests import ChangedModel
from workspace.settings import Workspace
from workspace.storage import CheckFailed

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

_log = logging.getLogger("perennial")

DIGESTS = "files"
"""The tag of a version that holds the digests of its files, as JSON."""
KINDS = ("churn", "lifetime_value", "cross_sell")
NOT_THE_QUESTION = frozenset({"features", "boosting", "allow_leaks", "interval"})
"""Settings of a model that say how it is made; the others say what it is asked."""
_OF_OFFERS = frozenset({"top", "kind", "stock", "exclude", "margin_floor", "one_off"})  # done with what it answered
_LATELY = 90  # days before a training whose sales tell one shop's data from another's
_APART = 0.2  # of them, by which corrections, erasures and late rows may move them
_FEW = 10
_WEEK = 7
_DATABASE = Path("mlruns/mlflow.db")
_SQLITE, _SQLITE_HEADER = "sqlite:///", 100
_IN_MEMORY = "/dev/shm"
# Of how each day departs from the same weekday before and after, in ranks: one shop's days that lost a twentieth of the
# customers keep more than this, and two shops of like size, season and weekdays have less.
_SAME_DAYS = 0.7


def as_kind(name: str) -> str:
    """The kind of model that a name means, written with an underscore or a dash.

    Raises:
        ValueError: there is no such kind.
    """
    kind = name.replace("-", "_")
    if kind not in KINDS:
        raise ValueError(f"{name!r} is no kind of model; there are {', '.join(KINDS)}")
    return kind


def client() -> MlflowClient:
    """The MLflow of MLFLOW_TRACKING_URI, or of `mlruns/mlflow.db` below the current folder.

    The `mlflow` module, by which runs are logged, is turned to it as well.
    """
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    import mlflow

    address = _address()
    if address == _address_of(_DATABASE):
        _DATABASE.parent.mkdir(exist_ok=True)
    # A page of migrations at the first start, a line per registered version, the trace of an error that it raises too.
    for noisy in ("alembic", "mlflow"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
    if re.fullmatch(rf"{_SQLITE}[^:?]+", address):  # a file, opened in no way of its own
        _make(Path(address.removeprefix(_SQLITE)))
    made = mlflow.MlflowClient(address)
    turn_to(made)
    return made


def _make(database: Path) -> None:
    """Where there is none yet: MLflow makes it by some sixty migrations, which each wait for the disk. So they are done
    in memory, where the system has a folder there, and the whole comes to its place at once."""
    import mlflow

    if database.exists() or not database.parent.is_dir():
        return
    with tempfile.TemporaryDirectory(dir=_IN_MEMORY if os.access(_IN_MEMORY, os.W_OK) else None) as folder:
        made = Path(folder, "mlflow.db")
        mlflow.MlflowClient(f"{_SQLITE}{made}")
        with tempfile.TemporaryDirectory(dir=database.parent) as beside, suppress(FileExistsError):
            os.link(shutil.copy(made, beside), database)  # another process may have made one meanwhile


def _address() -> str:
    return os.environ.get("MLFLOW_TRACKING_URI", _address_of(_DATABASE))


def _address_of(database: Path) -> str:
    return f"{_SQLITE}{database.resolve()}"


def edition() -> list[object] | None:
    """Another one where anything was written to the registry; none where it is no file that would show it."""
    address = _address()
    path = Path(address.removeprefix(_SQLITE))
    if not address.startswith(_SQLITE) or not path.exists():
        return None
    with path.open("rb") as file:
        changes = file.read(_SQLITE_HEADER).hex()  # SQLite counts its transactions there
    log = path.with_name(f"{path.name}-wal")
    return [address, changes, storage.edition(path), storage.edition(log) if log.exists() else None]


def turn_to(tracker: MlflowClient) -> None:
    """The `mlflow` module logs to this client's MLflow, whatever other client was made since."""
    import mlflow

    mlflow.set_tracking_uri(tracker.tracking_uri)


def model_name(workspace: Workspace, kind: str) -> str:
    """The registered model's name: one registry holds many workspaces."""
    return f"{workspace.name}.{as_kind(kind)}"


def champion(tracker: MlflowClient, workspace: Workspace, kind: str) -> ModelVersion | None:
    """The version that answers now; none where nothing was promoted yet."""
    return _by_alias(tracker, workspace, kind, "champion")


def challenger(tracker: MlflowClient, workspace: Workspace, kind: str) -> ModelVersion | None:
    """The version that was judged last and stayed out, which answers unseen; none where there is none."""
    return _by_alias(tracker, workspace, kind, "challenger")


class Unfit(CheckFailed):
    """There is a champion, but neither it nor one before it may answer what is asked.

    `too_late` where all that stands against it is that it was trained after the day that is asked about.
    """

    def __init__(self, message: str, too_late: bool) -> None:
        super().__init__(message)
        self.too_late = too_late


def answering(tracker: MlflowClient, workspace: Workspace, kind: str, as_of: date | None = None) -> ModelVersion | None:
    """The version that answers about `as_of`: the champion, or the newest that was one before, where only that fits.

    None where nothing was promoted yet. Without `as_of` the day is not looked at.

    Raises:
        Unfit: none of them fits; the sentence says why, and what to type.
    """
    reigning = champion(tracker, workspace, kind)
    if reigning is None:
        return None
    asked = _Asked(tracker, workspace, kind, as_of)
    why = asked.misfit(reigning)
    if not why:
        return reigning
    others = [v for v in _newest_first(tracker, workspace, kind) if v.version != reigning.version]
    promoted, alike = _ever_promoted(others, reigning), [v for v in others if _alike(v, reigning)]
    version = asked.first_that_fits(v for v in alike if str(v.version) in promoted)
    if version is not None:
        return version
    waiting = asked.first_that_fits(v for v in alike if str(v.version) not in promoted)
    title = f"{reigning.name}/{reigning.version}"
    message = f"{title} {why}, and no version that was promoted before it fits: {asked.advice(waiting)}"
    raise Unfit(message, as_of is not None and knows_more(tracker, reigning, as_of))


def misfit(
    tracker: MlflowClient, workspace: Workspace, kind: str, version: ModelVersion, as_of: date | None = None
) -> str:
    """Why a version may not answer a workspace about `as_of`, in words behind its name; "" where it may."""
    return _Asked(tracker, workspace, kind, as_of).misfit(version)


def version_called(tracker: MlflowClient, called: str) -> ModelVersion | None:
    """The version of a name such as `demo.churn/3`; none where MLflow has it no more."""
    from mlflow.exceptions import MlflowException

    name, _, number = called.rpartition("/")
    try:
        return tracker.get_model_version(name, number)
    except MlflowException as problem:
        if problem.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise


def knows_more(tracker: MlflowClient, version: ModelVersion, as_of: date) -> bool:
    """Whether a version was trained on what came after an as_of, or may have been."""
    trained = trained_as_of(tracker, version)
    return trained is None or trained > as_of


def trained_as_of(tracker: MlflowClient, version: ModelVersion) -> date | None:
    """The as_of of a version's training; null where neither it nor its run says so."""
    noted = version.tags.get("as_of") or _parameters(tracker, version).get("as_of")
    return date.fromisoformat(noted) if noted else None


def trainings(tracker: MlflowClient, workspace: Workspace) -> dict[str, date]:
    """The as_of of the training of every version of a workspace, by `name/version`."""
    versions = [v for kind in KINDS for v in _newest_first(tracker, workspace, kind)]
    return {f"{v.name}/{v.version}": date.fromisoformat(v.tags["as_of"]) for v in versions if "as_of" in v.tags}


class Sales(NamedTuple):
    """What was sold in the days before an as_of, as known then, and the amount of each of those days, from the first.

    By these one shop's data are told from another's.
    """

    lines: float
    customers: float
    amount: float
    days: Sequence[float] | None = None  # none in the tag of a version that was registered without

    def apart(self, here: Self) -> list[str]:
        """In what these differ from the sales of the same days that a home has, in words."""
        totals = {name: (getattr(self, name), getattr(here, name)) for name in ("lines", "customers", "amount")}
        moved = [f"{then:,.0f} {name}, here {now:,.0f}" for name, (then, now) in totals.items() if _apart(then, now)]
        if not moved and self.days and here.days and not _same_days(self.days, here.days):
            return ["as much was sold, but on other days"]
        return moved


@storage.read_again
def sales(workspace: Workspace, as_of: date) -> Sales | None:
    """None where nothing is ingested. A day's amount has three digits: it may be that of one customer."""
    if not storage.parts(storage.tables_folder(workspace.home_path, "transactions")):
        return None
    lines = f"""
        SELECT day, customer_id, amount FROM {storage.rows_of(workspace.home_path, "transactions")}
        WHERE amount >= 0 AND known_day < DATE '{as_of}' AND day >= DATE '{as_of}' - {_LATELY}"""
    totals = f"SELECT count(*)::DOUBLE, count(DISTINCT customer_id)::DOUBLE, coalesce(sum(amount), 0) FROM ({lines})"
    by_day = f"SELECT day - (DATE '{as_of}' - {_LATELY}), sum(amount) FROM ({lines}) GROUP BY 1"
    with storage.connect(workspace.home_path, workspace.timezone) as connection:
        count, customers, amount = connection.execute(totals).fetchall()[0]
        sold = dict(connection.execute(by_day).fetchall())
    days = [float(f"{sold.get(day, 0):.3g}") for day in range(_LATELY)]
    return Sales(count, customers, amount, days)


@dataclass(frozen=True)
class _Asked:
    """What a workspace asks a model of a kind about an as_of."""

    tracker: MlflowClient
    workspace: Workspace
    kind: str
    as_of: date | None

    def misfit(self, version: ModelVersion) -> str:
        if self.as_of is not None and knows_more(self.tracker, version, self.as_of):
            trained = trained_as_of(self.tracker, version)
            when = f"was trained at {trained}, so it knows" if trained else "may know, for nobody noted its as_of,"
            return f"{when} what {self.as_of} could not"
        if changed := self._changed(version):
            return f"answers another question than this workspace asks ({changed})"
        return self._other_data(version)

    def _changed(self, version: ModelVersion) -> str:
        recorded = _parameters(self.tracker, version)
        asked = getattr(self.workspace, self.kind).model_dump(mode="json")
        left_out = NOT_THE_QUESTION | (_OF_OFFERS if self.kind == "cross_sell" else frozenset())
        return ", ".join(
            f"{self.kind}.{name} {recorded[name]}, asked is {value}"
            for name, value in asked.items()
            if name not in left_out and recorded.get(name, str(value)) != str(value)
        )

    def _other_data(self, version: ModelVersion) -> str:
        if _owner(self.tracker, version) not in (None, self.workspace.name):
            return f"is of the workspace {_owner(self.tracker, version)}"
        trained, noted = trained_as_of(self.tracker, version), version.tags.get("sales")
        here = sales(self.workspace, trained) if trained and noted else None
        if here is None or noted is None:
            return ""
        moved = Sales(**json.loads(noted)).apart(here)
        told = f"of the {_LATELY} days before {trained} it knew {'; '.join(moved)}"
        return f"learnt from other data than {self.workspace.home_path} has: {told}" if moved else ""

    def first_that_fits(self, versions: Iterable[ModelVersion]) -> ModelVersion | None:
        return next((version for version in versions if not self.misfit(version)), None)

    def advice(self, waiting: ModelVersion | None) -> str:
        """What to type, so that there is one that answers; `waiting` would, and was never promoted."""
        kind = self.kind.replace("_", "-")
        promote = f"`perennial promote {kind} -c FILE"
        if waiting is not None:
            number = waiting.version
            return f"version {number} would, {promote} --version {number}` (--force REASON where the gate refuses it)"
        train = f"`perennial train {kind} -c FILE --as-of {self.as_of or 'DATE'}` makes one"
        return f"{train}, {promote}` lets it answer (--force REASON where the gate refuses it)"


def _newest_first(tracker: MlflowClient, workspace: Workspace, kind: str) -> list[ModelVersion]:
    """By what each learnt last, then by number; without those that were rolled back."""
    versions = tracker.search_model_versions(f"name = '{model_name(workspace, kind)}'")
    stay = [version for version in versions if "rolled_back" not in version.tags]
    return sorted(stay, key=lambda version: (version.tags.get("as_of", ""), int(version.version)), reverse=True)


def _ever_promoted(versions: list[ModelVersion], reigning: ModelVersion) -> set[str]:
    """Who took another's place, whose place was taken, and who was let in for days before the champion's."""
    earlier = {str(version.version) for version in versions if "promoted_before" in version.tags}
    took = {str(v.version): v.tags["promoted_over"] for v in (*versions, reigning) if "promoted_over" in v.tags}
    return earlier | {*took, *took.values()}


def _alike(version: ModelVersion, reigning: ModelVersion) -> bool:
    """Whether both learnt the same features."""
    return version.tags.get("features_hash") == reigning.tags.get("features_hash")


def _apart(then: float, now: float) -> bool:
    return abs(then - now) > _APART * max(then, now) + _FEW


def _same_days(then: Sequence[float], now: Sequence[float]) -> bool:
    """Whether the days go up and down alike, beyond what weekday and season make shops have in common.

    Days of which each is like the weekday before and after, or of which there are not three weeks, tell nothing.
    """
    import pandas as pd  # half a second that `--help` need not wait for

    ups_and_downs = pd.DataFrame({"then": then, "now": now})
    around = (ups_and_downs.shift(_WEEK) + ups_and_downs.shift(-_WEEK)) / 2
    ranks = (ups_and_downs - around).dropna().rank()
    return ranks["then"].nunique() < 2 or ranks["then"].corr(ranks["now"]) > _SAME_DAYS


def _parameters(tracker: MlflowClient, version: ModelVersion) -> Mapping[str, Any]:
    return tracker.get_run(str(version.run_id)).data.params if version.run_id else {}


def _owner(tracker: MlflowClient, version: ModelVersion) -> str | None:
    """The workspace whose run made a version."""
    if not version.run_id:
        return None
    return str(tracker.get_experiment(tracker.get_run(version.run_id).info.experiment_id).name)


def _by_alias(tracker: MlflowClient, workspace: Workspace, kind: str, alias: str) -> ModelVersion | None:
    from mlflow.exceptions import MlflowException

    try:
        return tracker.get_model_version_by_alias(model_name(workspace, kind), alias)
    except MlflowException as problem:
        if problem.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def has_versions(tracker: MlflowClient, workspace: Workspace, kind: str) -> bool:
    """Whether anything of this kind was ever trained for the workspace."""
    return bool(tracker.search_model_versions(f"name = '{model_name(workspace, kind)}'", max_results=1))


def model_folder(tracker: MlflowClient, version: ModelVersion) -> Path:
    """Where the files of a version lie on this machine: `model.json` and, where there is one, `booster.txt`.

    Raises:
        FileNotFoundError: the registry knows the version, but its files are gone.
        ChangedModel: they are not those that were registered.
    """
    import mlflow
    from mlflow.exceptions import MlflowException

    uri = f"models:/{version.name}/{version.version}"
    try:
        # By the version's own address MLflow would write a note beside its files, which may be read-only.
        place = tracker.get_model_version_download_uri(version.name, version.version)
        folder = Path(mlflow.artifacts.download_artifacts(place, tracking_uri=tracker.tracking_uri))
    except (MlflowException, OSError) as problem:
        raise FileNotFoundError(f"the files of {uri} cannot be read: {problem}") from problem
    model_file = next(folder.rglob("model.json"), None)
    if model_file is None:
        raise FileNotFoundError(f"{uri} has no model.json below {folder}; train it again")
    noted = version.tags.get(DIGESTS)
    refuse_changed(f"{version.name}/{version.version}", model_file.parent, json.loads(noted) if noted else None)
    return model_file.parent


def refuse_changed(title: str, folder: Path, noted: Mapping[str, str] | None) -> None:
    """Holds a version's files against the digests that the registry notes. One of before there were any passes.

    Raises:
        ChangedModel: a file is missing, another one, or was not there.
    """
    if noted is None:
        _log.warning("%s was registered without digests, so its files are taken as they are", title)
        return
    if names := digests.changed(noted, digests.of(folder)):
        raise ChangedModel(
            f"{title} is not what was registered: {names} changed since, in {folder}; put a back-up's files there, let"
            " the version before answer (`perennial rollback`), or train again"
        )
