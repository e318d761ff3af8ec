"""The month: its seven stages in the order of a run, each of which can also be had alone.

The command line, Python (`perennial.open`) and a scheduler call the same functions. None of them reads the clock, takes
the lock of a workspace or prints: the time is given, the caller has sole use, and `say` is told the progress. What a
stage leaves lies in the workspace's home and in MLflow, so a month that broke off goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date, datetime
from typing import TYPE_CHECKING

from perennial import problems
from workspace import registry, sentences, storage
from workspace.settings import Workspace
from workspace.storage import CheckFailed

if TYPE_CHECKING:
    from feast import FeatureStore
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

    from ingest.intake import Account
    from monitoring.drift import Drift
    from monitoring.outcomes import Outcomes
    from perennial.month_page import Summary
    from serving.predictor import Predictor

Say = Callable[[str], None]
Now = Callable[[], datetime]

STAGES = ("ingest", "snapshot", "monitor", "train", "promote", "score", "publish")


def run(workspace: Workspace, day: date, typed: str, now: Now, say: Say) -> bool:
    """Every stage in order; True when drift or the gate failed, and nothing was done about it.

    `typed` are the options that name the workspace on the command line: an alert ends in the command to type. What the
    run did is on a page in the home's `reports` folder, also when it breaks off, and what needs a look is alerted.

    Raises:
        SettingsError, CheckFailed: of the stage that it broke off in.
    """
    from monitoring import alerts
    from perennial.month_page import Summary

    summary = Summary(workspace.name, day, now(), workspace.home_path / "reports", say, len(STAGES))
    try:
        return in_order(workspace, day, summary, typed, now)
    except Exception as problem:
        if (broken := summary.failed) is not None:
            broken.failed, _ = problems.in_words(problem) or (f"{type(problem).__name__}: {problem}", 1)
            again = f"perennial run {typed} --as-of {day}"
            summary.alerts.append(alerts.Alert(f"the run broke off in {broken.name}", broken.failed, again))
        raise
    finally:
        told = alerts.tell(workspace, summary.alerts, day, now(), summary.page, complete=summary.complete)
        summary.told += told
        for line in (*told, f"page: {summary.write()}"):
            summary.say(line)


def in_order(workspace: Workspace, day: date, summary: Summary, typed: str, now: Now) -> bool:
    """The stages of a run, each noted in `summary`; True as in `run`."""
    from features.snapshot import snapshot as compute
    from serving import champions

    with summary.stage("ingest") as say:
        summary.accounts = ingest(workspace, now(), say)
    with summary.stage("snapshot") as say:
        compute(workspace, [day], say)
    with summary.stage("monitor") as say:
        look_at_events(workspace, now(), say, summary, f"perennial serve {typed} --check")
        drift = watch(workspace, day, say, summary, f"perennial monitor {typed} --as-of {day}")
    with summary.stage("train") as say:
        due, versions = retrain(workspace, day, say, drift is not None and drift.matters)
    with summary.stage("promote") as say:
        for kind, version in versions.items():
            decide(workspace, kind, version, due[kind], say, summary, typed)
    with summary.stage("score") as say:
        answering = predictor(workspace, day)
        score_by(answering, day, say)
        sum_up(answering, day, summary, typed)
    with summary.stage("publish") as say:
        publish(workspace, day, say)
        champions.that_scored(workspace, _tracker, day)  # noted now, so that lists need not wait for MLflow
    decided = {decision.outcome for decision in summary.decisions}
    unanswered = drift is not None and drift.drifted and (bool(drift.sources) or "promoted" not in decided)
    return "refused" in decided or unanswered


def sum_up(predictor: Predictor, day: date, summary: Summary, typed: str) -> None:
    """What the scores of `day` come to, for the page."""
    from monitoring import batch
    from serving.lists import churn_risk
    from serving.terms import Terms

    home, terms = predictor.workspace.home_path, Terms.at(predictor, day)
    summary.batch, summary.change = batch.at(home, day), batch.change(home, day)
    summary.grades, summary.about = terms.grades, churn_risk.about(terms, day)
    summary.list_command = f"perennial list churn-risk {typed} --as-of {day} --top 100 --out churn-risk-{day}.xlsx"
    summary.links["scores"] = storage.scores_path(home, day)


def ingest(workspace: Workspace, at: datetime, say: Say) -> list[Account]:
    """Brings the canonical tables up to date with their sources; returns an account of each table.

    Needs the sources alone. A row without a time of its own counts as known from `at` on.

    Raises:
        SettingsError: a source is not as the workspace describes it.
        CheckFailed: too few rows of a table can be used; then nothing was changed.
    """
    from ingest.intake import ingest as take_in
    from serving.consent import Consents

    accounts = take_in(workspace, at, say)
    if changed := Consents(workspace.home_path).catch_up(workspace):
        say(f"customers: {changed:,} consents are later than what was said over HTTP")
    return accounts


def snapshot(
    workspace: Workspace, day: date, say: Say, kinds: Sequence[str] = registry.KINDS, tuned: Sequence[str] = ()
) -> None:
    """Features of `day`, and of the earlier days that these kinds learn from, and are tuned on.

    Needs the ingested tables. A snapshot that is there already, of these tables and settings, is left as it is.

    Raises:
        CheckFailed: no purchase is known before `day`, or nothing can be learnt there.
    """
    from features.snapshot import snapshot as compute
    from training import pipelines, tuning

    days = {*pipelines.cutoffs(workspace, day, kinds)}.union(*(tuning.cutoffs(workspace, kind, day) for kind in tuned))
    compute(workspace, sorted(days), say)


def monitor(workspace: Workspace, day: date, say: Say, draw_quiet: bool = True) -> tuple[Drift, Outcomes]:
    """What has moved since the champion learnt, and how earlier predictions came true; pages lie in `reports`.

    Without `draw_quiet` a month without drift gets no page of it.

    Needs the ingested tables and a churn champion; makes the snapshots that it compares.

    Raises:
        CheckFailed: there is no champion, or the customers cannot be compared.
    """
    from features.snapshot import snapshot as compute
    from monitoring import drift, outcomes_page
    from monitoring.outcomes import outcomes

    tracker = _tracker()
    champion = drift.Champion.load(tracker, workspace, day)
    compute(workspace, drift.needed(workspace, day, champion.reference), say)
    happened = outcomes(workspace, day, registry.trainings(tracker, workspace))
    outcomes_page.write(happened)
    say(outcomes_page.as_text(happened))
    compared = drift.watch(workspace, day, champion.reference, champion, draw_quiet)
    say(str(compared))
    return compared, happened


def look_at_events(workspace: Workspace, at: datetime, say: Say, summary: Summary, again: str) -> None:
    """Alerts where events that the service accepted by `at` do not reach the scores; `again` shows them."""
    from monitoring import alerts

    alerted = list(alerts.of_events(workspace, at, again))
    for alert in alerted:
        say(f"{alert.about}: {alert.says}")
    summary.alerts += alerted


def watch(workspace: Workspace, day: date, say: Say, summary: Summary, again: str) -> Drift | None:
    """What has moved since the champion learnt; None where nobody can say, which stops no scores."""
    from monitoring import alerts, outcomes_page

    if registry.champion(_tracker(), workspace, "churn") is None:
        say("there is no champion yet to compare with")
        return None
    try:
        drift, happened = monitor(workspace, day, say, draw_quiet=False)
    except CheckFailed as problem:
        say(str(problem))
        summary.alerts.append(alerts.Alert("the customers could not be compared", str(problem), again))
        return None
    summary.notes |= {"Drift": str(drift), "Outcomes": outcomes_page.as_text(happened)}
    summary.links |= {"drift": drift.record if drift.problem else drift.page, "outcomes": happened.page}
    summary.alerts += [*alerts.of_drift(drift, again), *alerts.of_outcomes(happened, again)]
    return drift


def train(
    workspace: Workspace, day: date, say: Say, kinds: Sequence[str] = registry.KINDS, tune: int = 0
) -> dict[str, str]:
    """Fits the models of these kinds on what was known at `day`; returns the registered version of each.

    Needs the ingested tables; makes the snapshots that are missing. `tune` ways to learn are tried where it is not 0.
    Leaves a version each in MLflow, which answers nothing before it is promoted. One that was trained on the same
    before is found again.

    Raises:
        CheckFailed: a kind cannot be learnt at `day`; those before it stay registered.
    """
    from training import pipelines

    snapshot(workspace, day, say, kinds, kinds if tune else ())
    versions = pipelines.train(_store(workspace), workspace, _tracker(), day, kinds, say, tune)
    return {kind: str(version.version) for kind, version in versions.items()}


def retrain(workspace: Workspace, day: date, say: Say, matters: bool) -> tuple[dict[str, str], dict[str, str]]:
    """Trains what is due, which drift that `matters` makes of every kind: why, and the version that is there now."""
    from training.gate import retraining

    tracker = _tracker()
    said = {kind: retraining.due(tracker, workspace, kind, day, matters) for kind in registry.KINDS}
    for kind, why in said.items():
        say(f"{kind}: {why or 'no training is due'}")
    due = {kind: why for kind, why in said.items() if why}
    return due, train(workspace, day, say, list(due)) if due else {}


def decide(
    workspace: Workspace, kind: str, version: str, due: str, say: Callable[[str], None], summary: Summary, typed: str
) -> None:
    """Promotes a version where the gate, and the settings, let it; what is left for a person is alerted."""
    from monitoring.alerts import Alert
    from perennial.month_page import Decision
    from training.gate import promotion

    tracker = _tracker()
    reigning = registry.champion(tracker, workspace, kind)
    verdict = promotion.judge(tracker, workspace, kind, version, say)
    grounds = sentences.joined(verdict.grounds)
    called = f"{kind.replace('_', ' ')} version {version}"
    by_hand = f"perennial promote {kind.replace('_', '-')} {typed} --version {version}"
    if reigning is not None and str(reigning.version) == version:
        outcome = "is the champion already"
    elif workspace.retraining.promote == "person":
        outcome = "waits for a person"
        summary.alerts.append(Alert(f"{called} {outcome}", grounds, by_hand))
    elif verdict.passed and verdict.stays:
        outcome = "answers about days before the champion's"
        promotion.admit(tracker, workspace, kind, version)
    elif verdict.passed:
        outcome = "promoted"
        promoted = promotion.promote(tracker, workspace, kind, version)
        if promoted.tags.get("grade") == "none" and (reigning is None or reigning.tags.get("grade") != "none"):
            why = promoted.tags["grade_reason"]
            summary.alerts.append(Alert(f"{called} answers without a grade", why, f"perennial check {typed}"))
    elif reigning is not None and (unable := _unable(tracker, workspace, kind, reigning)):
        outcome = "promoted"
        promotion.promote(tracker, workspace, kind, version, unable)
        answers = f"{called} answers though the gate refused it"
        both = f"perennial compare {reigning.name}/{reigning.version} {reigning.name}/{version}"
        summary.alerts.append(Alert(answers, sentences.joined([unable, *verdict.grounds]), both))
    else:
        outcome = "refused"
        summary.alerts.append(Alert(f"{called} was refused", grounds, f"{by_hand} --force REASON"))
    say(f"{kind}: version {version} {outcome}: {grounds}")
    summary.decisions.append(Decision(kind, version, due, outcome, verdict.grounds, verdict.against))


def _unable(tracker: MlflowClient, workspace: Workspace, kind: str, reigning: ModelVersion) -> str:
    """Why the champion cannot answer here, whatever it would win: it learnt other features, say; "" where it can."""
    from training.kinds import kind_of
    from training.records.versions import usable

    try:
        usable(tracker, workspace, kind_of(kind), reigning)
    except CheckFailed as problem:
        return str(problem)
    return ""


def predictor(workspace: Workspace, day: date) -> Predictor:
    """What answers about `day`.

    Raises:
        CheckFailed: nothing was promoted that may, or it was trained on other features than the workspace has.
    """
    from features.publications import FeatureMismatch
    from serving.champions import NoChampion
    from serving.predictor import Predictor

    try:
        return Predictor.load(workspace, _tracker(), day)
    except (NoChampion, FeatureMismatch) as problem:
        raise CheckFailed(str(problem)) from problem


def score(workspace: Workspace, day: date, say: Say) -> None:
    """Scores every customer known at `day` and ranks offers for them, with the champions.

    Needs the ingested tables and champions; makes the snapshot of `day`. Leaves scores, offers and lists in the home.
    Scores by the same champions, of the same tables and consents, are left as they are.

    Raises:
        CheckFailed: nothing may answer about `day`, or nobody is known then.
    """
    from features.snapshot import snapshot as compute

    answering = predictor(workspace, day)
    compute(workspace, [day], say)
    score_by(answering, day, say)


def score_by(predictor: Predictor, day: date, say: Say) -> None:
    """`score` with what answers at hand, and the snapshot of `day` made."""
    from serving import scoring

    if scoring.is_current(predictor, day):
        say(f"scores of {day} are there already")
    else:
        scoring.score(predictor, day, say)
    shadow(predictor, day, say)


def shadow(predictor: Predictor, day: date, say: Say) -> None:
    """What challengers would say; that one of them cannot answer keeps nobody from being scored."""
    from features.publications import FeatureMismatch
    from serving import scoring
    from serving.predictor import Predictor

    try:
        challengers = Predictor.shadow(predictor.workspace, _tracker(), day, say)
    except (CheckFailed, FileNotFoundError, FeatureMismatch) as problem:
        say(f"a challenger is not scored: {problem}")
        return
    if challengers is not None:
        scoring.shadow(predictor, challengers, day, say)


def publish(workspace: Workspace, day: date, say: Say) -> None:
    """Puts the features of `day` into the online store, where the service reads them, and what their scores answer.

    Needs the snapshot of `day` and champions. What is online already is not written again.

    Raises:
        CheckFailed: nothing may answer about `day`, there is no snapshot of it, or the online store does not answer.
    """
    from features import online
    from serving import score_rows

    tracker = _tracker()
    for kind in ("churn", "lifetime_value"):
        registry.answering(tracker, workspace, kind, day)  # else the service would have nothing to answer with
    answers = score_rows.beside_vectors_of(workspace, lambda: tracker, day)
    online.publish(_store(workspace), workspace, day, say, answers)


def _store(workspace: Workspace) -> FeatureStore:
    from features import retrieval

    return retrieval.apply(workspace)


def _tracker() -> MlflowClient:
    return registry.client()
