"""This week in sentences: how many customers, what is at risk, what changed, what needs a look."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from serving.desk.language import Language
from serving.desk.verdicts import verdicts
from serving.desk.visit import LISTS, Visit, with_query
from serving.lists import totals
from serving.lists.list_query import ListQuery
from serving.scope import Scope
from workspace import storage
from workspace.settings import Workspace

if TYPE_CHECKING:
    from serving.http.answers import Answers
    from serving.http.keys import Caller

_LIST = "/desk/lists/churn-risk"


async def home(visit: Visit) -> Response:
    week = await asyncio.to_thread(this_week, visit.answers, visit.session.caller, visit.language)
    return visit.page(
        "home.html", visit.say("Home"), **week, high=with_query(_LIST, {"band": "high"}), everybody=_LIST,
        may_list=visit.may(LISTS), stale_since=visit.answers.stale_since,
    )  # fmt: skip


def this_week(answers: Answers, caller: Caller, spoken: Language) -> dict[str, Any]:
    """What the page says to a caller, by the names of its template; of a part of the shop nothing came yet."""
    published = answers.current()
    workspace, as_of, terms, scope = published.workspace, published.as_of, published.filed_terms, caller.scope
    run = _noted(workspace, as_of, scope)
    return {
        "as_of": as_of, "terms": terms, "scope": scope,
        "total": totals.totals(workspace, as_of, ListQuery.model_validate({}), terms, scope),
        "customers": run.get("customers"), "changed": _changed(spoken, run), "alerts": run.get("alerts", []),
        "decisions": [one for one in run.get("decisions", []) if one["outcome"] not in ("promoted", "not trained")],
        "came": None if scope else verdicts(spoken, workspace.home_path, terms.currency),
    }  # fmt: skip


def _noted(workspace: Workspace, as_of: date, scope: Scope) -> dict[str, Any]:
    """What the last run of an as_of noted; of a part of the shop, how many are in it, and nothing else."""
    if scope:
        return {"customers": asdict(totals.counts(workspace, as_of, scope))}
    return _last_run(workspace.home_path, str(as_of))


def _last_run(home: Path, as_of: str) -> dict[str, Any]:
    """What the last whole run of this as_of noted; nothing where its stages were run one by one."""
    runs = sorted((home / "reports").glob(f"run-{as_of}-*.json"), reverse=True)
    noted: list[dict[str, Any]] = [storage.read_json(path) for path in runs[:5]]
    return next((run for run in noted if run["done"]), {})


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
