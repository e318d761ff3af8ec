"""How far the numbers can be trusted: each model's grade in words, what came of what was expected, the reports."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from starlette.responses import HTMLResponse, Response

from serving.desk import drift_page, model_page, reports, words
from serving.desk.verdicts import verdicts
from serving.desk.visit import ADMINS, HEADERS, Visit
from serving.http.access import Refusal, Refused

# Evidently's pages are drawn by their own scripts. In a sandbox these are of no site: they reach neither the desk nor
# the session of whoever looks, and load nothing.
_DRAWN = (
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval' blob: data:;"
    " style-src 'unsafe-inline' data:; img-src data: blob:; font-src data:; frame-ancestors 'none'"
)
_STILL = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'"


async def trust(visit: Visit) -> Response:
    published, told = visit.answers.current(), visit.answers.model()
    home = published.workspace.home_path
    pages = await asyncio.to_thread(reports.latest, home)
    noted = await asyncio.to_thread(reports.noted, home, "drift")
    came = await asyncio.to_thread(verdicts, visit.language, home, told["currency"])
    return visit.page(
        "trust.html", visit.say("Trust"), as_of=published.as_of, came=came, may_decide=visit.may(ADMINS),
        models=[_model(visit, kind, told["models"][kind]) for kind in words.KINDS if kind in told["models"]],
        reports=[(visit.say(words.REPORTS[kind]), name, reports.address(name)) for kind, name in pages],
        chart=json.dumps(came.chart) if came.chart else None, moved=drift_page.answer(visit.language, noted),
    )  # fmt: skip


def _model(visit: Visit, kind: str, model: dict[str, Any]) -> dict[str, Any]:
    grade = model["grade"] or "none"
    return {
        "title": visit.say(words.KINDS.get(kind, kind)), "grade": grade, "meaning": visit.say(words.GRADES[grade]),
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
