"""Signing in with a key or the company's own account, and out again."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlencode

import bentoml
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from serving.desk.sessions import HOURS
from serving.desk.visit import HEADERS, SESSION_COOKIE, Visit, is_foreign, language_of, sessions, unsigned_page
from serving.http.audit import Read

if TYPE_CHECKING:
    from serving.desk.company import Company
    from serving.http.answers import Answers
    from workspace.settings import Oidc

_BEGUN_COOKIE, _BEGUN_SECONDS = "perennial_sign_in", 600


async def form(request: Request) -> Response:
    return _form(request, next_of(request.query_params.get("next", "")))


async def signed_in(request: Request) -> Response:
    """Where a right key is sent, a session begins; whoever tries, leaves a line in the audit log."""
    answers: Answers = bentoml.get_current_service().answers
    sent = await request.form()
    back, key = next_of(str(sent.get("next", ""))), str(sent.get("key", "")).strip()
    say = language_of(request).say
    if answers.gate.rates.wait("sign-in"):
        return _form(request, back, say("Too many tries. Wait a moment, then try again."), 429)
    if is_foreign(request):
        return _form(request, back, say("That form came from another site."), 403)
    caller = answers.gate.keys.caller(key.encode())
    read = Read(caller.key if caller else "nobody", caller.role if caller else "none", "POST /desk/sign-in",
                answers.clock())  # fmt: skip
    answers.gate.audit.add(read, 303 if caller else 401)
    token = sessions(answers).begin(key, answers.clock())
    if token is None:
        return _form(request, back, say("This key is not one of this service, or it was revoked."), 401)
    return _with_session(request, back, token)


def _with_session(request: Request, back: str, token: str) -> Response:
    response = RedirectResponse(back, 303)
    _set(request, response, SESSION_COOKIE, token, HOURS * 3600)
    return response


def _set(request: Request, response: Response, name: str, value: str, seconds: int) -> None:
    """A cookie that no script reads, and that goes over HTTPS alone where the page came so."""
    is_safe = "https" in (request.url.scheme, request.headers.get("x-forwarded-proto", ""))
    response.set_cookie(name, value, max_age=seconds, path="/desk", httponly=True, samesite="lax", secure=is_safe)


async def to_company(request: Request) -> Response:
    """Off to the provider; what its answer is held against waits in a cookie that only this browser has."""
    from serving.desk.company import NotSignedIn

    back = next_of(request.query_params.get("next", ""))
    try:
        begun = await asyncio.to_thread(_company(request).begin)
    except NotSignedIn as problem:
        return _form(request, back, str(problem), 503)
    response = RedirectResponse(begun.address, 303, headers=HEADERS)
    kept = "|".join((begun.state, begun.nonce, begun.verifier, quote(back, safe="")))
    _set(request, response, _BEGUN_COOKIE, kept, _BEGUN_SECONDS)
    return response


async def from_company(request: Request) -> Response:
    """Back from the provider: a session for who has a role; whoever tries, leaves a line in the audit log."""
    from serving.desk.company import Begun, NotSignedIn

    answers: Answers = bentoml.get_current_service().answers
    kept = request.cookies.get(_BEGUN_COOKIE, "").split("|")
    if len(kept) != 4:
        return _form(request, "/desk/", language_of(request).say("This sign-in took too long. Begin it again."), 400)
    state, nonce, verifier, back = kept
    read = Read("nobody", "none", "GET /desk/sign-in/company/back", answers.clock())
    try:
        begun = Begun("", state, nonce, verifier)
        caller = await asyncio.to_thread(_company(request).caller, begun, request.query_params)
    except NotSignedIn as problem:
        answers.gate.audit.add(read, 401)
        return _form(request, "/desk/", str(problem), 401)
    answers.gate.audit.add(replace(read, who=caller.key, role=caller.role), 303)
    token = sessions(answers).begin_for(caller, answers.clock())
    response = _with_session(request, next_of(unquote(back)), token)
    response.delete_cookie(_BEGUN_COOKIE, path="/desk")
    return response


def _company(request: Request) -> Company:
    """
    Raises:
        HTTPException: the service has none.
    """
    from serving.desk.company import Company

    oidc = _oidc()
    if oidc is None:
        raise HTTPException(404)
    own = oidc.address or f"{request.url.scheme}://{request.headers.get('host', '')}"
    return Company(oidc, f"{own.rstrip('/')}/desk/sign-in/company/back")


def _oidc() -> Oidc | None:
    answers: Answers = bentoml.get_current_service().answers
    return answers.service.oidc


async def signed_out(visit: Visit) -> Response:
    sessions(visit.answers).end(visit.request.cookies.get(SESSION_COOKIE, ""))
    response = RedirectResponse("/desk/sign-in", 303)
    response.delete_cookie(SESSION_COOKIE, path="/desk")
    return response


def next_of(asked: str) -> str:
    """Where to go afterwards: to a page of the desk and nowhere else, whatever a link says."""
    is_ours = asked.startswith("/desk/") and not any(odd in asked for odd in "\\\r\n\t")
    return asked if is_ours else "/desk/"


def _form(request: Request, back: str, problem: str = "", status: int = 200) -> Response:
    title = language_of(request).say("Sign in")
    company = f"/desk/sign-in/company?{urlencode({'next': back})}" if _oidc() else None
    return unsigned_page(request, "sign_in.html", title, status, next=back, problem=problem, company=company)
