"""This week in sentences: how many customers, what is at risk, what changed, what needs a look."""

from __future__ import annotations

import asyncio
from itertools import islice
from pathlib import Path
from typing import Any

from starlette.responses import Response

from serving.desk import alert_words, reports
from serving.desk.alert_words import Look
from serving.desk.jobs import Jobs
from serving.desk.language import Language
from serving.desk.left_versions import LeftVersions
from serving.desk.verdicts import verdicts
from serving.desk.visit import ADMINS, LISTS, Visit, with_query
from serving.lists import totals
from serving.lists.list_query import ListQuery

_LIST = "/desk/lists/churn-risk"


async def home(visit: Visit) -> Response:
    published = visit.answers.current()
    asked = ListQuery.model_validate({})
    total = await asyncio.to_thread(
        totals.totals, published.workspace, published.as_of, asked, published.filed_terms
    )  # fmt: skip
    run = await asyncio.to_thread(_last_run, published.workspace.home_path, str(published.as_of))
    looks = await asyncio.to_thread(_looks, visit, run)
    spoken, terms = visit.language, published.filed_terms
    came = await asyncio.to_thread(verdicts, spoken, published.workspace.home_path, terms.currency)
    return visit.page(
        "home.html", visit.say("Home"), as_of=published.as_of, total=total, terms=terms,
        customers=run.get("customers"), changed=_changed(spoken, run), looks=looks, may_type=visit.may(ADMINS),
        came=came, high=with_query(_LIST, {"band": "high"}), everybody=_LIST, may_list=visit.may(LISTS),
        stale_since=visit.answers.stale_since,
    )  # fmt: skip


def _last_run(home: Path, as_of: str) -> dict[str, Any]:
    """What the last whole run of this as_of noted; nothing where its stages were run one by one."""
    return next((run for _, run in islice(reports.runs(home, as_of), 5) if run["done"]), {})


def _looks(visit: Visit, run: dict[str, Any]) -> list[Look]:
    """What somebody has to decide, then what else the run alerted; a later run that broke off before both."""
    home, spoken, role = visit.answers.home, visit.language, visit.session.caller.role
    (latest,) = [noted for _, noted in islice(reports.runs(home), 1)] or [run]
    broken = [] if latest.get("done", True) else latest["alerts"]
    decided = {*LeftVersions(home).all(), *_champions(visit), *_promoted(home)}
    waiting = [one for one in run.get("decisions", []) if (one["kind"], one["version"]) not in decided]
    return [
        *alert_words.of_alerts(spoken, broken, role),
        *alert_words.of_decisions(spoken, waiting),
        *alert_words.of_alerts(spoken, run.get("alerts", []), role),
    ]


def _champions(visit: Visit) -> set[tuple[str, str]]:
    return {(kind, str(model["version"])) for kind, model in visit.answers.model()["models"].items()}


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
