"""Signing in with a key, and out again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import bentoml
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from serving.desk.sessions import HOURS
from serving.desk.visit import SESSION_COOKIE, Visit, is_foreign, language_of, sessions, unsigned_page
from serving.http.audit import Read

if TYPE_CHECKING:
    from serving.http.answers import Answers


async def form(request: Request) -> Response:
    return _form(request, next_of(request.query_params.get("next", "")))


async def signed_in(request: Request) -> Response:
    """Where a right key is sent, a session begins; whoever tries, leaves a line in the audit log."""
    answers: Answers = bentoml.get_current_service().answers
    sent = await request.form()
    back, key = next_of(str(sent.get("next", ""))), str(sent.get("key", "")).strip()
    say = language_of(request).say
    address = request.client.host if request.client else ""
    if answers.gate.rates.wait(f"sign-in from {address}"):
        return _form(request, back, say("Too many tries. Wait a moment, then try again."), 429)
    if is_foreign(request):
        return _form(request, back, say("That form came from another site."), 403)
    token = sessions(answers).begin(key, answers.clock())
    caller = answers.gate.keys.caller(key.encode())
    read = Read(caller.key if caller else "nobody", caller.role if caller else "none", "POST /desk/sign-in",
                answers.clock())  # fmt: skip
    answers.gate.audit.add(read, 303 if token else 401)
    if token is None:
        return _form(request, back, say("This key is not one of this service, or it was revoked."), 401)
    response = RedirectResponse(back, 303)
    is_safe = "https" in (request.url.scheme, request.headers.get("x-forwarded-proto", ""))
    response.set_cookie(SESSION_COOKIE, token, max_age=HOURS * 3600, path="/desk", httponly=True, samesite="lax",
                        secure=is_safe)  # fmt: skip
    return response


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
    return unsigned_page(request, "sign_in.html", title, status, next=back, problem=problem)
