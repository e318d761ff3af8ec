"""Signing in with the company's accounts, at a provider that answers for real."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import bentoml
import httpx
import pytest
import uvicorn
from joserfc import jwt
from joserfc.jwk import RSAKey
from redis_server import free_port
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from serving.desk.sessions import Sessions
from serving.desk.visit import SESSION_COOKIE
from workspace.settings import Oidc, Service

LIST = "/desk/lists/churn-risk"


class Provider:
    """Lets everybody in as `groups` say; `wrong` changes what its tokens claim, `key` who signs them."""

    def __init__(self, port: int) -> None:
        self.issuer, self.groups, self.wrong = f"http://127.0.0.1:{port}", ["sales"], dict[str, Any]()
        self.key = self.true_key = RSAKey.generate_key(2048, {"kid": "one"})
        self.begun: dict[str, str] = {}
        routes = [
            Route("/.well-known/openid-configuration", self._described),
            Route("/authorize", self._authorize),
            Route("/token", self._token, methods=["POST"]),
            Route("/keys", lambda _: JSONResponse({"keys": [self.true_key.as_dict(private=False)]})),
        ]
        self.server = uvicorn.Server(uvicorn.Config(Starlette(routes=routes), port=port, log_level="error"))

    def _described(self, _: Request) -> JSONResponse:
        paths = {"authorization_endpoint": "authorize", "token_endpoint": "token", "jwks_uri": "keys"}
        return JSONResponse({"issuer": self.issuer} | {name: f"{self.issuer}/{path}" for name, path in paths.items()})

    def _authorize(self, request: Request) -> RedirectResponse:
        self.begun = dict(request.query_params)
        assert self.begun["code_challenge_method"] == "S256"
        return RedirectResponse(f"{self.begun['redirect_uri']}?code=c0de&state={self.begun['state']}")

    async def _token(self, request: Request) -> JSONResponse:
        form = await request.form()
        assert (form["code"], bool(form["code_verifier"])) == ("c0de", True)
        now = int(time.time())
        claims = {"iss": self.issuer, "aud": "desk", "sub": "anna", "nonce": self.begun["nonce"], "iat": now,
                  "exp": now + 60, "groups": self.groups}  # fmt: skip
        token = jwt.encode({"alg": "RS256", "kid": "one"}, claims | self.wrong, self.key)
        return JSONResponse({"access_token": "t", "token_type": "Bearer", "id_token": token})


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    provider = Provider(free_port())
    thread = threading.Thread(target=provider.server.run)
    thread.start()
    while not provider.server.started:
        time.sleep(0.02)
    yield provider
    provider.server.should_exit = True
    thread.join()


@pytest.fixture(scope="module")
def service(app: Any, environment: pytest.MonkeyPatch) -> Iterator[TestClient]:
    with TestClient(app) as client:
        yield client


@pytest.fixture
def desk(service: TestClient, provider: Provider) -> Iterator[TestClient]:
    """With the provider's accounts, nobody signed in yet."""
    answers = bentoml.get_current_service().answers
    before = answers.service
    roles = {"sales": "marketing", "it": "admin"}
    answers.service = Service(oidc=Oidc(issuer=provider.issuer, client_id="desk", roles=roles))
    service.cookies.clear()
    provider.groups, provider.wrong, provider.key = ["sales"], {}, provider.true_key
    yield service
    answers.service = before
    service.cookies.clear()


def signed_in(desk: TestClient, back: str = LIST) -> httpx.Response:
    """As a browser does it, one step after the other."""
    to_provider = desk.get("/desk/sign-in/company", params={"next": back}, follow_redirects=False)
    to_us = httpx.get(to_provider.headers["location"], follow_redirects=False)
    answer = urlsplit(to_us.headers["location"])
    return desk.get(answer.path, params=parse_qs(answer.query), follow_redirects=False)


@pytest.mark.parametrize(
    ("groups", "role"), [(["sales"], "marketing"), (["x", "sales", "it"], "admin"), ("it", "admin")]
)
def test_somebody_with_a_role_is_led_to_where_they_wanted_to_go(
    desk: TestClient, provider: Provider, groups: Any, role: str
) -> None:
    """With the highest role that their groups give; on record under their subject."""
    assert "company" in desk.get("/desk/sign-in").text
    provider.groups = groups
    answer = signed_in(desk)
    assert (answer.status_code, answer.headers["location"]) == (303, LIST)
    assert desk.get(LIST).url.path == LIST
    home = bentoml.get_current_service().answers.home
    line = json.loads((home / "audit.jsonl").read_text().splitlines()[-1])
    assert (line["who"], line["role"]) == ("oidc:anna", role)


@pytest.mark.parametrize(
    "wrong",
    [{"aud": "another"}, {"iss": "http://evil.example"}, {"nonce": "0"}, {"exp": 1}, {"groups": []}, {"groups": ["x"]}],
)
def test_a_token_that_is_not_for_this_sign_in_lets_nobody_in(
    desk: TestClient, provider: Provider, wrong: dict[str, Any]
) -> None:
    """Of another audience, issuer or sign-in, ended, or of somebody without a role."""
    provider.wrong = wrong
    answer = signed_in(desk)
    assert (answer.status_code, SESSION_COOKIE in desk.cookies) == (401, False)


def test_a_token_that_somebody_else_signed_lets_nobody_in(desk: TestClient, provider: Provider) -> None:
    """Be it with a key of the same name."""
    provider.key = RSAKey.generate_key(2048, {"kid": "one"})
    assert signed_in(desk).status_code == 401


def test_an_answer_to_another_browsers_sign_in_lets_nobody_in(desk: TestClient) -> None:
    """Who sends somebody a link with their own code gets them into no account."""
    desk.get("/desk/sign-in/company", follow_redirects=False)
    assert desk.get("/desk/sign-in/company/back?code=c0de&state=theirs").status_code == 401
    desk.cookies.clear()
    assert desk.get("/desk/sign-in/company/back?code=c0de&state=theirs").status_code == 400
    assert SESSION_COOKIE not in desk.cookies


def test_a_provider_that_is_away_is_said_and_keys_still_open_the_desk(desk: TestClient) -> None:
    """Whoever has one gets in."""
    answers = bentoml.get_current_service().answers
    oidc = answers.service.oidc.model_copy(update={"issuer": f"http://127.0.0.1:{free_port()}"})
    answers.service = Service(oidc=oidc)
    page = desk.get("/desk/sign-in/company")
    assert page.status_code == 503
    assert "does not answer" in page.text
    assert desk.post("/desk/sign-in", data={"key": "a-secret"}).status_code == 200


def test_without_the_setting_there_is_no_such_way(service: TestClient) -> None:
    """Nor a button."""
    assert service.get("/desk/sign-in/company").status_code == 404
    assert "company" not in service.get("/desk/sign-in").text


@pytest.mark.parametrize(
    ("groups", "seen"),
    [
        (["sales"], ""),
        (["sales", "north"], "region:north"),
        (["it", "north", "south"], "region:north; region:south, region:west"),
    ],
)
def test_who_is_in_a_branchs_group_sees_that_branch(
    desk: TestClient, provider: Provider, groups: list[str], seen: str
) -> None:
    """Of several branches each; whatever else somebody is in, nothing more."""
    answers = bentoml.get_current_service().answers
    scopes = {"north": ("region:north",), "south": ("region:south", "region:west")}
    answers.service = Service(oidc=answers.service.oidc.model_copy(update={"scopes": scopes}))
    provider.groups = groups
    signed_in(desk)
    session = Sessions(answers.home, answers.gate.keys).of(desk.cookies[SESSION_COOKIE], answers.clock())
    assert session is not None
    assert str(session.caller.scope) == seen
    page = desk.get(LIST)
    assert page.status_code == 200
    assert ("0 customers" in page.text) == bool(seen), "this shop keeps no attributes: nobody is in a branch"
