"""How far the numbers can be trusted: each model's grade in words, what came of what was expected, the reports."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from starlette.responses import HTMLResponse, Response

from serving.desk import drift_page, model_page, reports, words
from serving.desk.language import Language
from serving.desk.verdicts import verdicts
from serving.desk.visit import ADMIN, HEADERS, Visit
from serving.http.access import Refusal, Refused

if TYPE_CHECKING:
    from serving.http.answers import Answers

# Evidently's pages are drawn by their own scripts. In a sandbox these are of no site: they reach neither the desk nor
# the session of whoever looks, and load nothing.
_DRAWN = (
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval' blob: data:;"
    " style-src 'unsafe-inline' data:; img-src data: blob:; font-src data:; frame-ancestors 'none'"
)
_STILL = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'"


async def trust(visit: Visit) -> Response:
    """Of a part of the shop, the grades alone: all else is of the whole."""
    published = visit.answers.current()
    whole = {} if visit.scope else await asyncio.to_thread(_of_whole_shop, visit)
    return visit.page(
        "trust.html", visit.say("Trust"), models=models(visit.answers, visit.language), as_of=published.as_of,
        scope=visit.scope, may_decide=visit.may(ADMIN), **{"came": None, "chart": None} | whole,
    )  # fmt: skip


def _of_whole_shop(visit: Visit) -> dict[str, Any]:
    workspace = visit.answers.current().workspace
    home = workspace.home_path
    came = verdicts(visit.language, home, workspace.currency)
    return {
        "came": came, "chart": json.dumps(came.chart) if came.chart else None,
        "moved": drift_page.answer(visit.language, reports.noted(home, "drift")),
        "reports": [
            (visit.say(words.REPORTS[kind]), name, reports.address(name)) for kind, name in reports.latest(home)
        ],
    }  # fmt: skip


def models(answers: Answers, spoken: Language) -> list[dict[str, Any]]:
    """How far the models that answer are proven, one after the other, in words."""
    told = answers.model()["models"]
    return [_model(spoken, kind, told[kind]) for kind in words.KINDS if kind in told]


def _model(spoken: Language, kind: str, model: dict[str, Any]) -> dict[str, Any]:
    grade = model["grade"] or "none"
    return {
        "title": spoken.say(words.KINDS.get(kind, kind)), "grade": grade, "meaning": spoken.say(words.GRADES[grade]),
        "trained": model["trained_at"][:10], "version": f"{model['name']} {model['version']}",
        "card": reports.address(f"models/{kind}-{model['version']}/card.html"), "beside": model_page.address(kind),
        "answers_by": model["answers_by"], "withheld": model["withheld"],
    }  # fmt: skip


async def report(visit: Visit) -> Response:
    """A page that a run has left, as it is: it holds its own style and its pictures, and, where it is not Evidently's,
    no script."""
    name = visit.request.path_params["name"]
    path = reports.folder(visit.answers.home) / name
    if not reports.PAGE.fullmatch(name) or not path.is_file():
        raise Refused(Refusal(404, "not_found", f"there is no report {name}"))
    policy = _DRAWN if name.startswith("drift") else _STILL
    text = await asyncio.to_thread(path.read_text, encoding="utf-8")
    return HTMLResponse(text, headers=HEADERS | {"Content-Security-Policy": policy})
