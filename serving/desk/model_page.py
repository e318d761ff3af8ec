"""One model: the version that answers beside the newest one that waits, what speaks for it and against it, and what an
admin decides about it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from starlette.responses import RedirectResponse, Response

from serving.desk import jobs_page, reports, words
from serving.desk.jobs import LONGEST_REASON, Job, Jobs
from serving.desk.language import Language
from serving.desk.left_versions import LeftVersions
from serving.desk.visit import ADMIN, Visit
from serving.http.access import Refusal, Refused

_PLACE = "/desk/trust/models"


@dataclass(frozen=True)
class Version:
    """A version as the page shows it. `learnt` is the day before which it learnt from; empty where nobody knows."""

    number: str
    grade: str
    meaning: str
    reason: str
    learnt: str
    card: str


@dataclass(frozen=True)
class Verdict:
    """What the last run that judged a version said of it. Sentences of which nobody noted whether they speak for it or
    against it are `grounds`."""

    outcome: str = ""
    against: Sequence[str] = ()
    in_favour: Sequence[str] = ()
    grounds: Sequence[str] = ()
    run: str = ""

    @property
    def is_refused(self) -> bool:
        return self.outcome == "refused" or bool(self.against)


def address(kind: str) -> str:
    return f"{_PLACE}/{kind}"


async def model(visit: Visit) -> Response:
    kind, home = _kind(visit), visit.answers.home
    answers = _answering(visit, kind)
    champion = str(answers["version"]) if answers else ""
    number = await asyncio.to_thread(challenger, home, kind, champion)
    verdict = await asyncio.to_thread(_verdict, home, kind, number) if number else Verdict()
    done = await asyncio.to_thread(_decided, home, kind)
    left = await asyncio.to_thread(LeftVersions(home).of, kind, number)
    return visit.page(
        "model.html", visit.say(words.KINDS[kind]), place=address(kind), verdict=verdict,
        outcome=words.in_words(visit.language, words.OUTCOMES, verdict.outcome),
        champion=_version(visit.language, home, kind, champion, answers) if champion else None,
        challenger=_version(visit.language, home, kind, number) if number else None,
        left=left, left_on=visit.language.day(left.at.astimezone(_zone(visit)).date()) if left else "",
        may_decide=visit.may(ADMIN), longest=LONGEST_REASON, answers_by=answers["answers_by"] if answers else None,
        withheld=answers["withheld"] if answers else None, done=done and jobs_page.title(visit.language, done),
        done_at=done and jobs_page.address(done.number), is_open=bool(number) and not _is_about(done, number),
    )  # fmt: skip


def _answering(visit: Visit, kind: str) -> dict[str, Any] | None:
    """What is known of the version that answers; none before anything was published, when one may be promoted too."""
    with suppress(Refused):
        known: dict[str, Any] | None = visit.answers.model()["models"].get(kind)
        return known
    return None


def _zone(visit: Visit) -> ZoneInfo:
    return ZoneInfo(visit.answers.workspace.timezone)


def challenger(home: Path, kind: str, champion: str) -> str:
    """The newest version, where it was trained after the one that answers; empty where there is none."""
    newest = next(iter(reports.versions(home, kind)), 0)
    return str(newest) if newest > int(champion or 0) else ""


def _version(spoken: Language, home: Path, kind: str, number: str, answers: Mapping[str, Any] | None = None) -> Version:
    """By its card; where that is gone, by what the registry said of the one that answers."""
    card, known = reports.card(home, kind, number), answers or {}
    grade, learnt = known.get("grade") or "none", known.get("trained_as_of")
    if card:
        grade, learnt = card["grade"]["letter"], card["as_of"]
    return Version(
        number, grade, spoken.say(words.GRADES[grade]), card["grade"]["reason"] if card else "",
        spoken.day(date.fromisoformat(learnt)) if learnt else "",
        reports.address(f"models/{kind}-{number}/card.html") if card else "",
    )  # fmt: skip


def _verdict(home: Path, kind: str, number: str) -> Verdict:
    for page, run in reports.runs(home):
        for decision in run["decisions"]:
            if (decision["kind"], decision["version"]) == (kind, number):
                return _read(decision, page)
    return Verdict()


def _read(decision: Mapping[str, Any], page: str) -> Verdict:
    against, reasons = decision.get("against"), decision["reasons"]
    if against is None:  # of a run before those were told apart
        return Verdict(decision["outcome"], grounds=reasons, run=page)
    return Verdict(decision["outcome"], against, [reason for reason in reasons if reason not in against], (), page)


def _decided(home: Path, kind: str) -> Job | None:
    """The last decision that was carried out from here since the scores were made: it answers from the next run on."""
    scored = home / "published.json"
    since = scored.stat().st_mtime if scored.exists() else 0.0
    done = (job for job in Jobs(home).listed() if job.kind == kind and job.state == "done")
    return next((job for job in done if job.ended and job.ended.timestamp() > since), None)


def _is_about(done: Job | None, number: str) -> bool:
    """Whether it has let this version in."""
    return done is not None and done.command == "promote" and done.option("--version") == number


async def promote(visit: Visit) -> Response:
    kind, number, form = *await _asked(visit), await visit.request.form()
    reason, home = str(form.get("reason", "")).strip(), visit.answers.home
    visit.read.filter = {**visit.read.filter, "forced": bool(reason) or None}
    verdict = await asyncio.to_thread(_verdict, home, kind, str(number))
    if verdict.is_refused and not reason:
        raise Refused(Refusal(400, "malformed", visit.say("The gate refused this version: say why it is to answer.")))
    return await jobs_page.started(visit, Jobs(home).start_promotion, kind, number, reason)


async def leave(visit: Visit) -> Response:
    """Writes down that the version stays where it is: nobody is asked about it again."""
    kind, number = await _asked(visit)
    await asyncio.to_thread(
        LeftVersions(visit.answers.home).put, kind, str(number), visit.session.caller.key, visit.read.at
    )  # fmt: skip
    return RedirectResponse(address(kind), 303)


async def roll_back(visit: Visit) -> Response:
    kind = _kind(visit)
    visit.read.filter = {"kind": kind}
    return await jobs_page.started(visit, Jobs(visit.answers.home).start_rollback, kind)


def _kind(visit: Visit) -> str:
    """
    Raises:
        Refused: there is no such kind of model.
    """
    kind = str(visit.request.path_params["kind"])
    if kind not in words.KINDS:
        raise Refused(Refusal(404, "not_found", visit.say("There is no such model.")))
    return kind


async def _asked(visit: Visit) -> tuple[str, int]:
    """The kind and the version that a form is about.

    Raises:
        Refused: there is no such version.
    """
    kind, form = _kind(visit), await visit.request.form()
    sent = str(form.get("version", ""))
    visit.read.filter = {"kind": kind, "version": sent[:20]}
    known = await asyncio.to_thread(reports.versions, visit.answers.home, kind)
    number = next((version for version in known if str(version) == sent), None)
    if number is None:
        raise Refused(Refusal(400, "malformed", visit.say("There is no such version.")))
    return kind, number
