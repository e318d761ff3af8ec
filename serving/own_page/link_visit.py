"""One view by a customer's own link: whose it is, in which language, and the line in the audit log that is owed for it.

Whoever has the link is taken for the customer. One that is wrong, has ended or was taken back leads to one and the same
page, so that nobody learns which.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import bentoml
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from pages.page import render
from serving.desk.assets import ASSETS
from serving.desk.language import LANGUAGES, Language
from serving.desk.reason_words import in_language
from serving.desk.visit import HEADERS, language_of, with_query
from serving.http.access import Rates, Refused
from serving.http.audit import Read
from serving.own_links import Link, OwnLinks
from workspace import privacy, storage
from workspace.settings import SettingsError
from workspace.storage import CheckFailed

if TYPE_CHECKING:
    from serving.http.answers import Answers


def _(text: str) -> str:
    """Marks a text for the catalogue."""
    return text


RATES = Rates(10.0)  # views a second of one link; all that are nobody's share one bucket
OWN_HEADERS = HEADERS | {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src data:; base-uri 'none';"
    " form-action 'self'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",  # the address of the page is all that it takes to open it
    "X-Robots-Tag": "noindex, nofollow",
}  # fmt: skip
STYLE = ASSETS["desk.css"].replace("/desk/", "/own/", 1)
_ENDED = (
    _("This link does not work"),
    _("It may have ended, or another one was made since. Ask the company for a new one."),
)
_TROUBLE = {
    400: (_("That cannot be sent"), _("Go back to your page and try again.")),
    403: (_("This form is not of your page"), _("Nothing was changed. Open your link again, then send it.")),
    429: (_("Too many requests"), _("Wait a moment, then open your link again.")),
    500: (_("Something went wrong"), _("Nothing was changed. Try again later, or write to the company.")),
    503: (_("This cannot be answered just now"), _("Nothing was changed. Try again later, or write to the company.")),
}  # fmt: skip


@dataclass(frozen=True)
class LinkVisit:
    """A request by a link that leads somewhere. `read` becomes the line in the audit log."""

    request: Request
    answers: Answers
    link: Link
    form_token: str
    language: Language
    read: Read

    @property
    def name(self) -> str:
        """Whose page it is; no parameter of a request says that."""
        return self.link.customer_id

    def address(self, step: str = "", **query: str) -> str:
        """Of a step on this page, in the language that was asked for."""
        asked = {"lang": self.language.code} if self.request.query_params.get("lang") in LANGUAGES else {}
        return with_query(f"/own/{self.request.path_params['token']}{step}", asked | query)

    def page(self, template: str, title: str, status: int = 200, **shown: Any) -> Response:
        return _html(
            self.request, template, title, status, address=self.address, form_token=self.form_token,
            company=self.answers.workspace.name, reason=partial(in_language, self.language), **shown,
        )  # fmt: skip


Show = Callable[[LinkVisit], Awaitable[Response]]


def route(step: str, show: Show, method: str = "GET") -> Route:
    """A page, or with POST a form, of whoever has a link; each leaves a line in the audit log."""

    async def answer(request: Request) -> Response:
        return await _answered(request, step, show)

    return Route(f"/{{token}}{step}", answer, methods=[method])


async def _answered(request: Request, step: str, show: Show) -> Response:
    """Nothing is written of who has no link of ours, as of who has no key: neither is anybody."""
    answers: Answers = bentoml.get_current_service().answers
    links = OwnLinks(answers.home)
    link_id = links.signed(request.path_params["token"])
    if RATES.wait(link_id or "nobody"):
        return _trouble(request, 429)
    if link_id is None:
        return _ended(request)
    read = Read(f"link-{link_id[:8]}", "customer", f"{request.method} /own/{{token}}{step}", answers.clock())
    try:
        response = await _shown(request, answers, links, link_id, read, show)
    except Refused as refused:
        response = _ended(request) if refused.refusal.status == 404 else _trouble(request, refused.refusal.status)
    except HTTPException:  # no form at all
        response = _trouble(request, 400)
    except (CheckFailed, SettingsError):  # a batch is at work on the files, or there is no privacy key
        response = _trouble(request, 503)
    except (OSError, sqlite3.Error) as problem:
        if not storage.is_full(problem):
            raise
        response = _trouble(request, 503)
    try:
        answers.gate.audit.add(read, response.status_code)
    except OSError:
        return _trouble(request, 503)
    return response


async def _shown(
    request: Request, answers: Answers, links: OwnLinks, link_id: str, read: Read, show: Show
) -> Response:  # fmt: skip
    link = links.of(link_id, read.at)
    if link is None or _is_leaving(answers, link.customer_id):
        return _ended(request)
    read.customers = [link.customer_id]
    form_token = links.form_token(link_id)
    if request.method == "POST":
        form = await request.form()
        if _is_foreign(request) or form.get("form_token") != form_token:
            return _trouble(request, 403)
    return await show(LinkVisit(request, answers, link, form_token, language_of(request), read))


def _is_leaving(answers: Answers, name: str) -> bool:
    """Whether the customer is erased, or waits to be."""
    return name in answers.erasures.waiting() or bool(privacy.erased_among(answers.home, [name]))


def _is_foreign(request: Request) -> bool:
    """Whether another site's page has sent a form.

    Browsers say `Origin: null` from a page that keeps its address for itself, as ours does; they say from what kind of
    site it comes as well.
    """
    origin, site = request.headers.get("origin", "null"), request.headers.get("sec-fetch-site", "same-origin")
    other = origin != "null" and urlsplit(origin).netloc != request.headers.get("host")
    return other or site not in ("same-origin", "none")


def _ended(request: Request) -> Response:
    title, message = _ENDED
    return _problem(request, title, message, 404)


def _trouble(request: Request, status: int) -> Response:
    title, message = _TROUBLE.get(status, _TROUBLE[503])
    return _problem(request, title, message, status)


def _problem(request: Request, title: str, message: str, status: int) -> Response:
    say = language_of(request).say
    return _html(request, "problem.html", say(title), status, company="", message=say(message))


async def lost(request: Request, _: Exception) -> Response:
    """Where there is no page: as where a link has ended."""
    return _ended(request)


async def broken(request: Request, _: Exception) -> Response:
    """A defect of ours; the service's log says which."""
    return _trouble(request, 500)


def _html(request: Request, template: str, title: str, status: int, **shown: Any) -> Response:
    spoken = language_of(request)
    is_lasting = request.method != "POST"  # what a form is answered by is at no address
    others = [(f"?lang={code}", name, code) for code, name in LANGUAGES.items() if is_lasting and code != spoken.code]
    text = render(
        f"own_page/{template}", title=title, other_languages=others, style=STYLE, language=spoken, _=spoken.say,
        _n=spoken.count, **shown,
    )  # fmt: skip
    return HTMLResponse(text, status, headers=OWN_HEADERS)
