"""Which version answers: the gate that a challenger must pass, the alias `champion`, and the way back.

The challenger is held against the champion at the cutoffs that the challenger was judged at, on the same customers.
Neither has learnt from them: the challenger's answers are those of its training's backtest, and the champion's are, at
a cutoff after it was trained, what it says there, and at an earlier one what its own backtest says, or what its
settings, taught by that day, say. A version that differs from the champion only in what it learnt from is a refresh:
it need not be better, just no worse (`promotion.refresh`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from training.gate.conditions import Condition, Contest, as_the_first, costs
from training.kinds import Kind, kind_of
from training.records.versions import Version, usable, version_of
from workspace import sentences
from workspace.registry import challenger, champion, model_name, trained_as_of
from workspace.settings import Workspace
from workspace.storage import CheckFailed

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

Say = Callable[[str], None]


@dataclass(frozen=True)
class Verdict:
    """Of the gate on one version: sentences for it, and those against it, of which one is enough.

    stays: the champion that keeps its place even where the version is let in, since it was trained later; else empty.
    """

    version: str
    in_favour: tuple[str, ...]
    against: tuple[str, ...]
    stays: str = ""

    @property
    def passed(self) -> bool:
        return not self.against

    @property
    def grounds(self) -> tuple[str, ...]:
        return (*self.against, *self.in_favour)


def judge(
    tracker: MlflowClient, workspace: Workspace, kind: str, version: str | None = None, say: Say = lambda _: None
) -> Verdict:
    """Whether a version, the latest unless one is named, may take the champion's place.

    The version gets the alias `challenger` where it could take a champion's place; its tags say how it was judged.

    Raises:
        CheckFailed: there is no such version, or it could not answer here.
    """
    of = kind_of(kind)
    registered = version_of(tracker, workspace, kind, version)
    asked = Version.of(tracker, workspace, of, registered)
    reigning = champion(tracker, workspace, kind)
    if reigning is not None and reigning.version == registered.version:
        return Verdict(str(registered.version), ("it is the champion already",), ())
    verdict = _judged(tracker, workspace, of, asked, reigning, say)
    if reigning is not None and not verdict.stays:
        tracker.set_registered_model_alias(registered.name, "challenger", str(registered.version))
    for name, value in (("gate", "passed" if verdict.passed else "refused"), ("gate_reasons", _told(verdict.grounds))):
        tracker.set_model_version_tag(registered.name, str(registered.version), name, value)
    return verdict


def _told(grounds: Sequence[str]) -> str:
    """MLflow keeps 5,000 characters of a tag."""
    return sentences.joined(grounds)[:4900]


def _judged(
    tracker: MlflowClient, workspace: Workspace, kind: Kind, asked: Version, reigning: ModelVersion | None,
    say: Say,
) -> Verdict:  # fmt: skip
    conditions = costs(workspace.promotion, kind, asked)
    if "rolled_back" in asked.tags:
        conditions.append(Condition(False, f"version {asked.number} was rolled back before"))
    stays = ""
    try:
        rival = reigning and Version.of(tracker, workspace, kind, reigning, fits=False)
    except CheckFailed as problem:
        conditions += [
            Condition(True, f"the champion cannot answer: {problem}"), as_the_first(asked, "nothing compares them"),
        ]  # fmt: skip
    else:
        contest = rival and Contest(workspace, kind, asked, rival, say)
        conditions += contest.conditions() if contest else [as_the_first(asked)]
        stays = contest.rival.number if contest and contest.leaves_the_champion else ""
    met, unmet = (tuple(c.sentence for c in conditions if c.met is wanted) for wanted in (True, False))
    return Verdict(asked.number, met, unmet, stays)


def promote(
    tracker: MlflowClient, workspace: Workspace, kind: str, version: str | None = None, forced: str = ""
) -> ModelVersion:
    """Makes a version, the latest unless one is named, the champion; whether it may, `judge` says.

    The version notes whose place it took and, where the gate was passed by, the reason in `forced`.

    Raises:
        CheckFailed: there is no such version, or it could not answer here: no reason is good enough for that.
    """
    registered = version_of(tracker, workspace, kind, version)
    usable(tracker, workspace, kind_of(kind), registered)
    number, reigning = str(registered.version), champion(tracker, workspace, kind)
    if reigning is None or str(reigning.version) != number:
        _let_in(tracker, workspace, kind, registered, forced)
        if reigning is not None:
            tracker.set_model_version_tag(registered.name, number, "promoted_over", str(reigning.version))
        tracker.set_registered_model_alias(registered.name, "champion", number)
    return tracker.get_model_version(registered.name, number)


def admit(tracker: MlflowClient, workspace: Workspace, kind: str, version: str, forced: str = "") -> None:
    """Lets a version answer about days that the champion has seen more than, and leaves the champion where it is.

    Where the gate was passed by, the version notes the reason in `forced`.

    Raises:
        CheckFailed: as `promote`.
    """
    registered, reigning = version_of(tracker, workspace, kind, version), champion(tracker, workspace, kind)
    usable(tracker, workspace, kind_of(kind), registered)
    assert reigning is not None
    _let_in(tracker, workspace, kind, registered, forced)
    tracker.set_model_version_tag(registered.name, str(registered.version), "promoted_before", str(reigning.version))


def _let_in(tracker: MlflowClient, workspace: Workspace, kind: str, registered: ModelVersion, forced: str) -> None:
    """What held of a version that stayed out holds no more; by what reason it came in does."""
    number, unseen = str(registered.version), challenger(tracker, workspace, kind)
    for past in {"rolled_back", "forced"} & registered.tags.keys():
        tracker.delete_model_version_tag(registered.name, number, past)
    if forced:
        tracker.set_model_version_tag(registered.name, number, "forced", forced)
    if unseen is not None and str(unseen.version) == number:
        tracker.delete_registered_model_alias(registered.name, "challenger")


def rollback(tracker: MlflowClient, workspace: Workspace, kind: str) -> ModelVersion:
    """Makes the version that answered before the champion the champion again; the gate lets the other in no more.

    Raises:
        CheckFailed: there is no champion, none before it, or that one could not answer here; nothing has changed then.
    """
    name, reigning = model_name(workspace, kind), champion(tracker, workspace, kind)
    if reigning is None:
        raise CheckFailed(f"{name} has no champion to roll back")
    before = _before(tracker, reigning)
    if before is None:
        raise CheckFailed(
            f"{name} version {reigning.version} took no other's place: there is nothing to go back to; a version that"
            f" was trained at {trained_as_of(tracker, reigning)} or later takes its place by `perennial promote"
            f" {kind.replace('_', '-')} -c FILE --version N --force REASON`"
        )
    usable(tracker, workspace, kind_of(kind), before)
    tracker.set_model_version_tag(name, str(reigning.version), "rolled_back", "true")
    tracker.set_registered_model_alias(name, "champion", str(before.version))
    return before


def _before(tracker: MlflowClient, version: ModelVersion) -> ModelVersion | None:
    """The latest champion before a version that was not rolled back itself."""
    seen = {str(version.version)}
    while (earlier := version.tags.get("promoted_over")) is not None and earlier not in seen:
        seen.add(earlier)
        version = tracker.get_model_version(version.name, earlier)
        if "rolled_back" not in version.tags:
            return version
    return None
