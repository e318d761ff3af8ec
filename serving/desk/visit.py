"""One view of the desk: who looks, in which language, and the line in the audit log that is owed for it."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode, urlsplit

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from pages.page import render
from serving.desk import language, tour
from serving.desk.assets import ASSETS
from serving.desk.language import LANGUAGES, Language
from serving.desk.reason_words import in_language, refusal_in_language
from serving.desk.sessions import Session, Sessions
from serving.http.access import Refusal, Refused, refuse_outside
from serving.http.audit import Read
from serving.http.keys import Role
from serving.scope import Scope
from workspace import ids
from workspace.storage import CheckFailed

if TYPE_CHECKING:
    from serving.http.answers import Answers

SESSION_COOKIE, LANGUAGE_COOKIE = "perennial_session", "perennial_language"
_YEAR = 365 * 24 * 3600
EVERYBODY: tuple[Role, ...] = ("crm", "marketing", "admin")
LISTS: tuple[Role, ...] = ("marketing", "admin")
ADMIN: tuple[Role, ...] = ("admin",)
LINKS: tuple[Role, ...] = ("crm", "admin")
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none';"
    " form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff", "Referrer-Policy": "same-origin", "Cache-Control": "no-store",
}  # fmt: skip


def _(text: str) -> str:
    """Marks a text for the catalogue."""
    return text


# The one definition of the navigation: the address, what it is called, who may go there.
ROOMS: tuple[tuple[str, str, tuple[Role, ...]], ...] = (
    ("/desk/", _("Home"), EVERYBODY),
    ("/desk/lists/churn-risk", _("Churn risk"), LISTS),
    ("/desk/lists/win-back", _("Win back"), LISTS),
    ("/desk/lists/cross-sell", _("Cross-sell"), LISTS),
    ("/desk/customers", _("Customers"), EVERYBODY),
    ("/desk/trust", _("Trust"), EVERYBODY),
)
_PROBLEMS = {
    400: _("That cannot be asked"), 403: _("This key may not see that"), 404: _("Not found"),
    429: _("Too many requests"), 503: _("Not ready yet"),
}  # fmt: skip
_DEFECT = _("Something went wrong")


@dataclass(frozen=True)
class Visit:
    """A request by somebody who has signed in. `read` becomes the line in the audit log."""

    request: Request
    answers: Answers
    session: Session
    language: Language
    read: Read

    @property
    def say(self) -> Callable[..., str]:
        return self.language.say

    @property
    def sees_contacts(self) -> bool:
        return self.session.caller.sees_contacts

    @property
    def scope(self) -> Scope:
        return self.session.caller.scope

    def may(self, roles: tuple[Role, ...]) -> bool:
        return self.session.caller.role in roles

    def page(self, template: str, title: str, status: int = 200, **shown: Any) -> Response:
        """A page of the desk, in its frame."""
        path, role = self.request.url.path, self.session.caller.role
        stop = tour.stop(self.language, role, self.request.query_params.get("tour", ""), path)
        rooms = [(address, self.say(name), _is_in(path, address)) for address, name, who in ROOMS if self.may(who)]
        return _html(
            self.request, self.language, template, status, title=title, rooms=rooms, form_token=self.session.form_token,
            workspace=self.answers.workspace.name, stop=stop, tour=tour.begins(role), part=str(self.scope),
            other_desks=self.answers.service.other_desks, **shown,
        )  # fmt: skip


Show = Callable[[Visit], Awaitable[Response]]


def route(
    path: str, show: Show, who: tuple[Role, ...] = EVERYBODY, method: str = "GET", of_whole_shop: bool = False
) -> Route:  # fmt: skip
    """A page, or with POST a form, that these roles may see, once signed in; each leaves a line in the audit log.

    What is of the whole shop is not for who is limited to a part of it.
    """

    async def answer(request: Request) -> Response:
        return await _answered(request, path, partial(_allowed, show=show, who=who, of_whole_shop=of_whole_shop))

    return Route(path, answer, methods=[method])


async def _answered(request: Request, path: str, show: Show) -> Response:
    import bentoml  # here, since assistants use the pages' sentences without the service

    answers: Answers = bentoml.get_current_service().answers
    session = sessions(answers).of(request.cookies.get(SESSION_COOKIE, ""), answers.clock())
    if session is None:
        return _to_sign_in(request)
    caller = session.caller
    read = Read(caller.key, caller.role, f"{request.method} /desk{path}", answers.clock())
    visit = Visit(request, answers, session, language_of(request), read)
    try:
        response = await show(visit)
    except Refused as refused:
        response = _refusal(visit, refused.refusal)
    except CheckFailed as problem:  # a batch is at work on the files, or they are gone
        response = _refusal(visit, Refusal(503, "not_ready", str(problem)))
    try:
        answers.gate.audit.add(read, response.status_code)
    except OSError:
        message = "the audit log cannot be written, and nothing is shown without it"
        response = _refusal(visit, Refusal(503, "no_audit", message))
    response.headers.update({name: value for name, value in HEADERS.items() if name not in response.headers})
    return response


async def _allowed(visit: Visit, show: Show, who: tuple[Role, ...], of_whole_shop: bool) -> Response:
    if wait := visit.answers.gate.rates.wait(visit.session.caller.key):
        raise Refused(Refusal(429, "too_many_requests", f"come again in {math.ceil(wait)} s"))
    if not visit.may(who):
        raise Refused(Refusal(403, "forbidden", f"this takes a key of another role: {', '.join(who)}"))
    if visit.request.method == "POST":
        form = await visit.request.form()
        if is_foreign(visit.request) or form.get("form_token") != visit.session.form_token:
            raise Refused(Refusal(403, "forged", "this form is not of your session: open the page again, and send it"))
    with suppress(KeyError, ValueError):
        visit.read.customers = [ids.canonical(visit.request.path_params["customer_id"])]
    await refuse_outside(visit.answers, visit.session.caller, visit.request.path_params, of_whole_shop)
    return await show(visit)


def is_foreign(request: Request) -> bool:
    """Whether another site's page has sent a form."""
    origin = request.headers.get("origin")
    return origin is not None and urlsplit(origin).netloc != request.headers.get("host")


def sessions(answers: Answers) -> Sessions:
    return Sessions(answers.home, answers.gate.keys)


def language_of(request: Request) -> Language:
    asked = request.query_params.get("lang") or request.cookies.get(LANGUAGE_COOKIE)
    return language.chosen(asked, request.headers.get("accept-language", ""))


def unsigned_page(request: Request, template: str, title: str, status: int = 200, **shown: Any) -> Response:
    """A page for who has not signed in."""
    response = _html(
        request,
        language_of(request),
        template,
        status,
        title=title,
        rooms=[],
        form_token="",
        workspace="",
        stop=None,
        other_desks={},
        part="",
        **shown,
    )
    response.headers.update(HEADERS)
    return response


async def lost(request: Request, _: Exception) -> Response:
    """Where there is no page."""
    return unsigned_page(request, "problem.html", language_of(request).say(_PROBLEMS[404]), 404, message="")


async def broken(request: Request, _: Exception) -> Response:
    """A defect of ours; the service's log says which."""
    return unsigned_page(request, "problem.html", language_of(request).say(_DEFECT), 500, message="")


def _html(
    request: Request, spoken: Language, template: str, status: int, **shown: Any
) -> Response:  # fmt: skip
    here = request.url.path
    others = [(f"{here}?{_with(request, lang=code)}", name, code) for code, name in LANGUAGES.items()
              if code != spoken.code]  # fmt: skip
    words = {"_": spoken.say, "_n": spoken.count, "language": spoken, "reason": partial(in_language, spoken),
             "refusal": partial(refusal_in_language, spoken)}  # fmt: skip
    text = render(f"desk/{template}", other_languages=others, assets=ASSETS, **words, **shown)
    response = HTMLResponse(text, status)
    if request.query_params.get("lang") in LANGUAGES:
        response.set_cookie(LANGUAGE_COOKIE, spoken.code, max_age=_YEAR, path="/desk", samesite="lax")
    return response


def _with(request: Request, **changed: str) -> str:
    kept = [(name, value) for name, value in request.query_params.multi_items() if name not in changed]
    return urlencode([*kept, *changed.items()])


def with_query(path: str, query: Mapping[str, Any]) -> str:
    """The address of a view; what is not asked for is not in it."""
    asked = {name: value for name, value in query.items() if value not in (None, "", [])}
    return f"{path}?{urlencode(asked, doseq=True)}" if asked else path


def customer_address(customer_id: str) -> str:
    return f"/desk/customers/{quote(customer_id, safe='')}"


def _is_in(path: str, address: str) -> bool:
    return path == address if address == ROOMS[0][0] else path.startswith(address)


def _refusal(visit: Visit, refusal: Refusal) -> Response:
    title = visit.say(_PROBLEMS.get(refusal.status, _DEFECT))
    message = visit.language.sentence(refusal_in_language(visit.language, refusal.message))
    return visit.page("problem.html", title, refusal.status, message=message)


def _to_sign_in(request: Request) -> Response:
    """And back again; a part of a page that was asked for takes the whole of it there."""
    partial = request.headers.get("hx-request") == "true"
    back = urlsplit(request.headers.get("hx-current-url", "")) if partial else request.url
    address = f"/desk/sign-in?{urlencode({'next': f'{back.path}?{back.query}' if back.query else back.path})}"
    if request.method == "POST":
        address = "/desk/sign-in"
    if partial:
        return Response(status_code=204, headers={"HX-Redirect": address} | HEADERS)
    return RedirectResponse(address, 303, headers=HEADERS)
