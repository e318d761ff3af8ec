"""How far the numbers can be trusted: each model's grade in words, its reports, and what the last run refused."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.responses import HTMLResponse, Response

from serving.desk import words
from serving.desk.language import Language
from serving.desk.verdicts import verdicts
from serving.desk.visit import HEADERS, Visit
from serving.http.access import Refusal, Refused

if TYPE_CHECKING:
    from serving.http.answers import Answers

_REPORT = re.compile(r"(run|backtest|outcomes|drift|check)[\w.-]*\.html|models/[a-z_]+-\d+/card\.html", re.ASCII)
_MOST = 12


def _(text: str) -> str:
    """Marks a text for the catalogue."""
    return text


_REPORTS = {
    "run": _("What the run did"), "backtest": _("How right it would have been"), "outcomes": _("What came of it"),
    "drift": _("What has moved"), "check": _("The data"),
}  # fmt: skip


async def trust(visit: Visit) -> Response:
    published = visit.answers.current()
    folder = published.workspace.home_path / "reports"
    reports = [] if visit.scope else await asyncio.to_thread(_reports, folder)
    named = [(visit.say(_REPORTS[kind]), name, f"/desk/reports/{name}") for kind, name in reports]
    came, currency = None, published.workspace.currency
    if not visit.scope:
        came = await asyncio.to_thread(verdicts, visit.language, published.workspace.home_path, currency)
    return visit.page(
        "trust.html", visit.say("Trust"), models=models(visit.answers, visit.language), reports=named,
        as_of=published.as_of, came=came, scope=visit.scope,
    )  # fmt: skip


def models(answers: Answers, spoken: Language) -> list[dict[str, Any]]:
    """How far the models that answer are proven, one after the other, in words."""
    told = answers.model()["models"]
    return [_model(spoken, kind, told[kind]) for kind in words.KINDS if kind in told]


def _model(spoken: Language, kind: str, model: dict[str, Any]) -> dict[str, Any]:
    grade = model["grade"] or "none"
    return {
        "title": spoken.say(words.KINDS.get(kind, kind)), "grade": grade, "meaning": spoken.say(words.GRADES[grade]),
        "trained": model["trained_at"][:10], "version": f"{model['name']} {model['version']}",
        "card": f"/desk/reports/models/{kind}-{model['version']}/card.html",
        "answers_by": model["answers_by"], "withheld": model["withheld"],
    }  # fmt: skip


def _reports(folder: Path) -> list[tuple[str, str]]:
    """The latest pages, by what they are of."""
    pages = sorted(folder.glob("*.html"), key=lambda path: path.stat().st_mtime, reverse=True)
    there = [(path.name.split("-")[0], path.name) for path in pages if _REPORT.fullmatch(path.name)]
    return [(kind, name) for kind, name in there if kind in _REPORTS][:_MOST]


async def report(visit: Visit) -> Response:
    """A page that a run has left, as it is: it holds its own style and its pictures, and no script."""
    name = visit.request.path_params["name"]
    path = visit.answers.home / "reports" / name
    if not _REPORT.fullmatch(name) or not path.is_file():
        raise Refused(Refusal(404, "not_found", f"there is no report {name}"))
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'"
    text = await asyncio.to_thread(path.read_text, encoding="utf-8")
    return HTMLResponse(text, headers=HEADERS | {"Content-Security-Policy": policy})
