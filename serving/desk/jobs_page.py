"""Long work: what may be started, what was, and how one of it stands. Starting it takes the role `admin`."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from datetime import date
from typing import Any
from zoneinfo import ZoneInfo

from starlette.responses import RedirectResponse, Response

from serving.desk import reports, words
from serving.desk.jobs import DATED, Job, Jobs
from serving.desk.language import Language
from serving.desk.visit import Visit
from serving.http.access import Refusal, Refused
from workspace.storage import CheckFailed


def _(text: str) -> str:
    """Marks a text for the catalogue."""
    return text


_CALLED = {
    "run": _("Bring everything up to date"), "monitor": _("See what has moved, and what came of earlier numbers"),
    "check": _("Check the data"), "backtest": _("Judge the models at earlier dates"),
}  # fmt: skip
_MEANT = {
    "run": _("Takes in what is new, trains where it is due, scores everybody and publishes. Minutes for a small shop,"
             " hours for a large one; lists and customers stay as they are until it has ended."),
    "monitor": _("Compares that day with the day the models learnt from, and closed predictions with what came."),
    "check": _("Looks at the sources: what they suffice for, and what looks wrong. Changes nothing."),
    "backtest": _("Trains the models as at earlier dates and holds them against what followed. Takes long."),
}  # fmt: skip
_STAGES = {
    "ingest": _("taking in the rows"), "snapshot": _("computing what is known of each customer"),
    "monitor": _("looking for what has moved"), "train": _("training"), "promote": _("deciding which models answer"),
    "score": _("scoring everybody"), "publish": _("publishing"),
}  # fmt: skip
_STATES = {
    "running": _("at work"), "done": _("done"), "refused": _("done, needs a look"), "failed": _("failed"),
    "stopped": _("stopped"),
}  # fmt: skip
_LOOKS = {"running": "", "done": "good", "refused": "fair", "failed": "bad", "stopped": "bad"}


def address(number: int) -> str:
    return f"/desk/jobs/{number}"


def title(spoken: Language, job: Job) -> str:
    """What a job is about."""
    if job.command == "promote":
        return spoken.say("Promote version %(version)s: %(kind)s", version=job.option("--version"),
                          kind=words.in_words(spoken, words.KINDS, job.kind))  # fmt: skip
    if job.command == "rollback":
        return spoken.say("Back to the version before: %(kind)s", kind=words.in_words(spoken, words.KINDS, job.kind))
    return words.in_words(spoken, _CALLED, job.command)


async def jobs(visit: Visit) -> Response:
    of_home = Jobs(visit.answers.home)
    listed = await asyncio.to_thread(of_home.listed)
    offered = [(command, visit.say(_CALLED[command]), visit.say(_MEANT[command])) for command in DATED]
    return visit.page(
        "jobs.html", visit.say("Long work"), rows=[_row(visit, job) for job in listed], offered=offered,
        today=_today(visit), at_work=next((address(job.number) for job in listed if job.state == "running"), None),
    )  # fmt: skip


def _row(visit: Visit, job: Job) -> dict[str, Any]:
    return {
        "title": title(visit.language, job), "address": address(job.number), "who": job.who,
        "day": _as_of(visit.language, job), "state": visit.say(_STATES[job.state]),
        "look": _LOOKS[job.state], "started": _moment(visit, job),
    }  # fmt: skip


def _as_of(spoken: Language, job: Job) -> str:
    """Empty of what is about no day."""
    day = job.option("--as-of")
    return spoken.day(date.fromisoformat(day)) if day else ""


def _moment(visit: Visit, job: Job) -> str:
    local = job.started.astimezone(ZoneInfo(visit.answers.workspace.timezone))
    return f"{visit.language.day(local.date())}, {local:%H:%M}"


def _today(visit: Visit) -> date:
    """Where the shop is."""
    return visit.answers.clock().astimezone(ZoneInfo(visit.answers.workspace.timezone)).date()


async def start(visit: Visit) -> Response:
    """A command about a day, today at the latest."""
    form = await visit.request.form()
    command, asked = str(form.get("command")), str(form.get("as_of"))
    visit.read.filter = {"command": command, "as_of": asked}
    try:
        as_of = date.fromisoformat(asked)
    except ValueError:
        raise Refused(Refusal(400, "malformed", visit.say("Choose a day."))) from None
    if command not in DATED or as_of > _today(visit):
        raise Refused(Refusal(400, "malformed", visit.say("Choose a day that has come, and work that there is.")))
    return await started(visit, Jobs(visit.answers.home).start_dated, command, as_of)


async def job(visit: Visit) -> Response:
    """How one stands. While it is at work the page asks again and again."""
    number = visit.request.path_params["number"]
    try:
        one = await asyncio.to_thread(Jobs(visit.answers.home).of, number)
    except KeyError:
        raise Refused(Refusal(404, "not_found", visit.say("There is no work of this number."))) from None
    state, output = one.state, one.output
    return visit.page(
        "job.html", title(visit.language, one), job=one, state=state, look=_LOOKS[state], output=one.last_lines,
        answer=_answer(visit.language, one, state), todo=_todo(visit.language, one, state), here=address(number),
        stage=_stage(visit.language, one) if state == "running" else None, began=_moment(visit, one),
        left=[] if state == "running" else _left(visit, output), may_start_again=state in ("failed", "stopped"),
        is_decision=bool(one.kind), day=_as_of(visit.language, one),
    )  # fmt: skip


def _stage(spoken: Language, job: Job) -> tuple[int, int, str] | None:
    if job.stage is None:
        return None
    place, of, name = job.stage
    said = words.in_words(spoken, _STAGES, name)
    return place, of, spoken.say("Step %(place)s of %(of)s: %(stage)s.", place=place, of=of, stage=said)


def _answer(spoken: Language, job: Job, state: str) -> str:
    match state:
        case "running":
            return spoken.say("At work. You may leave this page, and close the browser: it goes on.")
        case "done":
            return spoken.say("Done.")
        case "failed":
            return spoken.say("Failed: nothing was left half-done.")
        case "stopped":
            return spoken.say("Stopped before its end, by somebody or by the machine: nothing was left half-done.")
    refused = {
        "promote": spoken.say("Not promoted: the gate refused it."),
        "monitor": spoken.say("Done: something has moved."),
        "check": spoken.say("Done: the data suffice for no model yet."),
    }
    return refused.get(job.command, spoken.say("Done, and something needs a look."))


def _todo(spoken: Language, job: Job, state: str) -> str:
    """What comes next; empty where nothing does."""
    match state, job.command:
        case "running", _:
            return ""
        case (("failed" | "stopped"), "run"):
            return spoken.say("Start it again, once what it names is mended: it goes on where it stopped.")
        case (("failed" | "stopped"), _):
            return spoken.say("Start it again, once what it names is mended.")
        case "refused", "promote":
            return spoken.say("What speaks against it stands below. To promote it all the same, give a reason.")
        case "refused", "monitor":
            return spoken.say("See what moved, and whether it matters.")
        case "refused", "check":
            return spoken.say("The report says what is missing.")
        case "refused", _:
            return spoken.say("The home page says what, and what to do.")
        case "done", ("promote" | "rollback"):
            return spoken.say("It answers from the next run on: bring everything up to date when it suits you.")
        case "done", "run":
            return spoken.say("The desk shows the new numbers from now on.")
    return ""


def _left(visit: Visit, output: str) -> list[tuple[str, str]]:
    """The pages that it names and has left, each with what it is of."""
    names = dict.fromkeys(re.findall(r"reports/([\w.-]+\.html)", output))
    folder = reports.folder(visit.answers.home)
    return [
        (visit.say(words.REPORTS[name.split("-")[0]]), reports.address(name))
        for name in names if reports.PAGE.fullmatch(name) and (folder / name).exists()
    ]  # fmt: skip


async def started(visit: Visit, begin: Callable[..., Job], *given: Any) -> Response:
    """To the page of a job that `begin` starts.

    Raises:
        Refused: what was asked for cannot be.
    """
    try:
        job = await asyncio.to_thread(begin, *given, visit.session.caller.key, visit.read.at)
    except ValueError as problem:
        raise Refused(Refusal(400, "malformed", str(problem))) from problem
    except CheckFailed as problem:
        raise Refused(Refusal(503, "busy", str(problem))) from problem
    except OSError as problem:
        raise Refused(Refusal(503, "not_started", f"it cannot be started: {problem}")) from problem
    return RedirectResponse(address(job.number), 303)
