"""This week in sentences: how many customers, what is at risk, what changed, what needs a look."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from datetime import date
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from serving.corrections import Corrections
from serving.desk import alert_words, reports
from serving.desk.alert_words import Look
from serving.desk.jobs import Jobs
from serving.desk.language import Language
from serving.desk.left_versions import LeftVersions
from serving.desk.verdicts import verdicts
from serving.desk.visit import ADMIN, LISTS, Visit, with_query
from serving.lists import totals
from serving.lists.list_query import ListQuery
from serving.scope import Scope
from workspace.settings import Workspace

if TYPE_CHECKING:
    from serving.http.answers import Answers
    from serving.http.keys import Caller

_LIST = "/desk/lists/churn-risk"


async def home(visit: Visit) -> Response:
    week = await asyncio.to_thread(this_week, visit.answers, visit.session.caller, visit.language)
    return visit.page(
        "home.html", visit.say("Home"), **week, high=with_query(_LIST, {"band": "high"}), everybody=_LIST,
        may_list=visit.may(LISTS), may_type=visit.may(ADMIN), stale_since=visit.answers.stale_since,
    )  # fmt: skip


def this_week(answers: Answers, caller: Caller, spoken: Language) -> dict[str, Any]:
    """What the page says to a caller, by the names of its template; of a part of the shop nothing came yet."""
    published = answers.current()
    workspace, as_of, terms, scope = published.workspace, published.as_of, published.filed_terms, caller.scope
    run = _noted(workspace, as_of, scope)
    return {
        "as_of": as_of, "terms": terms, "scope": scope,
        "total": totals.totals(workspace, as_of, ListQuery.model_validate({}), terms, scope),
        "customers": run.get("customers"), "changed": _changed(spoken, run),
        "looks": [] if scope else _looks(answers, caller, spoken, run),
        "came": None if scope else verdicts(spoken, workspace.home_path, terms.currency),
    }  # fmt: skip


def _noted(workspace: Workspace, as_of: date, scope: Scope) -> dict[str, Any]:
    """What the last run of an as_of noted; of a part of the shop, how many are in it, and nothing else."""
    if scope:
        return {"customers": asdict(totals.counts(workspace, as_of, scope))}
    return _last_run(workspace.home_path, str(as_of))


def _last_run(home: Path, as_of: str) -> dict[str, Any]:
    """What the last whole run of this as_of noted; nothing where its stages were run one by one."""
    return next((run for _, run in islice(reports.runs(home, as_of), 5) if run["done"]), {})


def _looks(answers: Answers, caller: Caller, spoken: Language, run: dict[str, Any]) -> list[Look]:
    """What somebody has to decide, then what else the run alerted; a later run that broke off before both."""
    home, role = answers.home, caller.role
    (latest,) = [noted for _, noted in islice(reports.runs(home), 1)] or [run]
    broken = [] if latest.get("done", True) else latest["alerts"]
    decided = {*LeftVersions(home).all(), *_champions(answers), *_promoted(home)}
    waiting = [one for one in run.get("decisions", []) if (one["kind"], one["version"]) not in decided]
    return [
        *alert_words.of_alerts(spoken, broken, role),
        *_of_corrections(answers, caller, spoken),
        *alert_words.of_decisions(spoken, waiting),
        *alert_words.of_alerts(spoken, run.get("alerts", []), role),
    ]


def _of_corrections(answers: Answers, caller: Caller, spoken: Language) -> list[Look]:
    count = Corrections(answers.home).count() if caller.role in ("crm", "admin") else 0
    if not count:
        return []
    says = spoken.count("%(number)s customer says that something is wrong.",
                        "%(number)s customers say that something is wrong.", count)  # fmt: skip
    return [Look(says, spoken.say("Put it right where the data come from."), "", "/desk/corrections", "")]


def _champions(answers: Answers) -> set[tuple[str, str]]:
    return {(kind, str(model["version"])) for kind, model in answers.model()["models"].items()}


def _promoted(home: Path) -> set[tuple[str, str]]:
    """By work that the desk has started; they answer from the next run on."""
    done = (job for job in Jobs(home).listed() if job.command == "promote" and job.state == "done")
    return {(job.kind, job.option("--version")) for job in done}


def _changed(spoken: Language, run: dict[str, Any]) -> list[str]:
    """Who came, went and moved since the batch before."""
    change = run.get("change")
    if not change:
        return []
    return [
        spoken.count("%(number)s customer is new since %(day)s.", "%(number)s customers are new since %(day)s.",
                     change["came"], day=change["before"]["as_of"]),
        spoken.count("%(number)s customer moved up into the high band.",
                     "%(number)s customers moved up into the high band.", change["into_high"]),
        spoken.count("%(number)s customer moved down out of it.", "%(number)s customers moved down out of it.",
                     change["out_of_high"]),
    ]  # fmt: skip
