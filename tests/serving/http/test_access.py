"""Who is let in, to what, how often, and the line that it leaves."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs

import httpx
import pytest
from fastapi.routing import APIRoute
from private_shop import NOW, answering_from, email, files_with, private_shop
from starlette.testclient import TestClient

from serving.http import access
from serving.http import routes as service_routes
from serving.http.access import Permission, Rates
from serving.http.audit import AuditLog, Read
from serving.http.bodies import LONGEST_ID
from serving.http.keys import Keys
from workspace.settings import Workspace

CUSTOMER = "c0200"
# Who may do what; whatever is not here may be done by nobody.
ROLES = {
    ("POST", "/scores"): {"crm", "admin"},
    ("GET", "/customers/{customer_id}"): {"crm", "admin"},
    ("GET", "/offers/{customer_id}"): {"crm", "admin"},
    ("GET", "/items/{item}/bought-with"): {"crm", "admin"},
    ("POST", "/events"): {"crm", "admin"},
    ("PUT", "/customers/{customer_id}/consent"): {"crm", "admin"},
    ("POST", "/customers/{customer_id}/own-page"): {"crm", "admin"},
    ("DELETE", "/customers/{customer_id}/own-page"): {"crm", "admin"},
    ("GET", "/corrections"): {"admin"},
    ("DELETE", "/corrections/{correction_id}"): {"admin"},
    ("GET", "/customers/{customer_id}/data"): {"admin"},
    ("GET", "/erasures/{erasure_id}"): {"admin"},
    ("DELETE", "/customers/{customer_id}"): {"admin"},
    ("GET", "/lists/churn-risk"): {"marketing", "admin"},
    ("GET", "/lists/win-back"): {"marketing", "admin"},
    ("GET", "/lists/cross-sell"): {"marketing", "admin"},
    ("GET", "/model"): {"crm", "marketing", "admin"},
}
PURCHASE = {
    "transaction_id": "a1", "customer_id": CUSTOMER, "occurred_at": "2023-07-01T09:00:00Z", "lines": [{"amount": 3.5}]
}  # fmt: skip
STATUS = {
    ("DELETE", "/customers/{customer_id}"): 404, ("GET", "/erasures/{erasure_id}"): 404, ("POST", "/events"): 202,
    ("GET", "/items/{item}/bought-with"): 404, ("POST", "/customers/{customer_id}/own-page"): 201,
    ("DELETE", "/corrections/{correction_id}"): 404, ("DELETE", "/customers/{customer_id}/own-page"): 404,
}  # fmt: skip
BODIES = {
    "/scores": {"customer_ids": [CUSTOMER]},
    "/events": {"purchases": [PURCHASE]},
    "/customers/{customer_id}/consent": {"marketing": True},
}


@pytest.fixture(scope="module")
def workspace(shop: Any, environment: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return private_shop(shop.workspace, tmp_path_factory.mktemp("private") / "shop")


@pytest.fixture(scope="module")
def client(app: Any, workspace: Workspace) -> Iterator[TestClient]:
    with TestClient(app) as client, answering_from(workspace.home_path):
        yield client


@pytest.fixture
def keys(workspace: Workspace) -> Keys:
    return Keys(workspace.home_path)


def with_key(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def lines(workspace: Workspace) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (workspace.home_path / "audit.jsonl").read_text().splitlines()]


def routes(of: Any) -> Iterator[APIRoute]:
    """The routes of an application or a router, and of the routers that it includes."""
    for route in of.routes:
        if isinstance(route, APIRoute):
            yield route
        elif hasattr(route, "original_router"):
            yield from routes(route.original_router)


def ask(client: TestClient, method: str, path: str, key: str) -> httpx.Response:
    real = "/v1" + path.replace("{customer_id}", "nobody" if method == "DELETE" else CUSTOMER).replace("{item}", "tea")
    return client.request(method, real, json=BODIES.get(path), headers=with_key(key))


def refused(answer: httpx.Response, status: int, code: str) -> None:
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), answer.text


# Roles


def test_every_route_says_who_may(client: TestClient) -> None:
    """No route is without a permission, and none gives it to others than this file says."""
    declared = {}
    for route in routes(service_routes.api):
        (permission,) = [d.call for d in route.dependant.dependencies if isinstance(d.call, Permission)]
        declared |= {(method, route.path_format): set(permission.roles) for method in route.methods}
    assert declared == ROLES


@pytest.mark.parametrize("role", ["crm", "marketing", "admin"])
def test_a_role_does_what_it_may_and_nothing_else(role: Any, client: TestClient, keys: Keys) -> None:
    """Every route answers the roles that it is for, and refuses the others before it does anything."""
    key = keys.add(role, NOW)
    for (method, path), roles in ROLES.items():
        answer = ask(client, method, path, key)
        if role in roles:
            assert answer.status_code == STATUS.get((method, path), 200), (method, path, answer.text)
        else:
            refused(answer, 403, "forbidden")


def test_a_revoked_key_is_out_at_once(client: TestClient, keys: Keys) -> None:
    """The request after the revocation, which another process makes, is refused; other keys go on."""
    key, other = keys.add("crm", NOW), keys.add("crm", NOW)
    assert client.get("/v1/model", headers=with_key(key)).status_code == 200
    keys.revoke(key.split("_")[1], NOW)
    refused(client.get("/v1/model", headers=with_key(key)), 401, "unauthorized")
    assert client.get("/v1/model", headers=with_key(other)).status_code == 200


def test_a_key_is_kept_as_a_hash_and_for_its_owner(workspace: Workspace, keys: Keys) -> None:
    """No file of the home holds a key or its secret, and nobody else of the machine may read the hashes."""
    key = keys.add("crm", NOW, name="agent's screen")
    assert files_with(workspace.home_path, key.split("_", 2)[2]) == set()
    assert [k.name for k in keys.listed() if k.id == key.split("_")[1]] == ["agent's screen"]
    assert os.stat(keys.path).st_mode & 0o077 == 0


@pytest.mark.parametrize(
    "header",
    [b"", b"Bearer", b"Bearer ", b"bearer  ", b"Basic a-secret", b"Bearer a-secret x", b"Bearer perennial_00000000_",
     b"Bearer perennial_00000000_" + b"A" * 43, b"Bearer " + b"x" * 60_000, "Bearer schlüssel\u2028".encode(),
     b"Bearer \xff\xfe\x00", b"Bearer perennial_' OR 1=1--_" + b"A" * 43, b"Bearer a-secret\r\nX-Role: admin"],
)  # fmt: skip
def test_odd_keys_are_refused_in_no_time(header: bytes, client: TestClient) -> None:
    """Empty, endless, not text, SQL, another header inside: 401 and nothing of it in the answer."""
    start = time.process_time()
    answer = client.get("/v1/model", headers=[(b"authorization", header)])
    assert time.process_time() - start < 1
    refused(answer, 401, "unauthorized")
    assert "x-role" not in answer.headers
    assert len(answer.content) < 300


@pytest.mark.parametrize(
    "customer_id", ["%0d%0aX-Role:%20admin", "..%2f..%2fkeys.db", "' OR ''='", "%00", "👩‍💻" * 300, "%F0%28"]
)
@pytest.mark.parametrize(("method", "tail"), [("GET", ""), ("GET", "/data"), ("PUT", "/consent"), ("DELETE", "")])
def test_odd_customers_are_unknown(method: str, tail: str, customer_id: str, client: TestClient, keys: Keys) -> None:
    """Line breaks, paths, SQL, endless: refused in the documented form, without a header of the caller's making."""
    body = {"marketing": False} if tail == "/consent" else None
    path = f"/v1/customers/{customer_id}{tail}"
    answer = client.request(method, path, json=body, headers=with_key(keys.add("admin", NOW)))
    malformed = "%0" in customer_id or len(customer_id) > LONGEST_ID
    refused(answer, *((400, "malformed") if malformed else (404, "unknown_customer")))
    assert "x-role" not in answer.headers


# Rates


def test_a_key_that_asks_too_often_waits(client: TestClient, workspace: Workspace, keys: Keys) -> None:
    """The third request at two a second is refused with the seconds to wait; another key is not."""
    with answering_from(workspace.home_path) as answers:
        answers.gate.rates = Rates(2)
        hasty, other = with_key(keys.add("crm", NOW)), with_key(keys.add("crm", NOW))
        statuses = [client.get("/v1/model", headers=hasty).status_code for _ in range(8)]
        answer = client.get("/v1/model", headers=hasty)
        assert client.get("/v1/model", headers=other).status_code == 200
    assert statuses[:2] == [200, 200]
    assert 429 in statuses
    refused(answer, 429, "too_many_requests")
    assert answer.headers["retry-after"] == "1"


def test_tokens_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a second at two a second is worth one request more, and an hour no more than two."""
    clock = iter([0, 0, 0, 0.5, 0.5, 3600, 3600, 3600])
    # Of this module alone: event loops read the clock too.
    monkeypatch.setattr(access, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    rates = Rates(2)
    assert [rates.wait("key") for _ in range(8)] == [0, 0, 0.5, 0, 0.5, 0, 0, 0.5]


# Contact data


def test_contacts_are_for_who_was_granted_them(client: TestClient, keys: Keys) -> None:
    """A marketer's list has them where the key says so, in every format; else not even the columns."""
    plain, granted = keys.add("marketing", NOW), keys.add("marketing", NOW, contacts=True)
    without = client.get("/v1/lists/churn-risk?top=5", headers=with_key(plain))
    assert "email" not in without.json()[0]
    assert "example.com" not in without.text
    rows = client.get("/v1/lists/churn-risk?top=5", headers=with_key(granted)).json()
    assert [row["email"] for row in rows] == [email(row["customer_id"]) for row in rows]
    assert "example.com" in client.get("/v1/lists/churn-risk?top=5&format=csv", headers=with_key(granted)).text


# The audit log


def test_every_read_leaves_a_line(client: TestClient, workspace: Workspace, keys: Keys) -> None:
    """Who, when, what, by what filter, how many - of answers and of refusals; nothing of a stranger."""
    key = keys.add("admin", NOW)
    before = len(lines(workspace))
    for method, path in ROLES:
        ask(client, method, path, key)
    client.get("/v1/lists/churn-risk", params={"top": 3, "band": "high"}, headers=with_key(key))
    client.get("/v1/model", headers=with_key("wrong"))
    logged = lines(workspace)[before:]
    assert [line["what"] for line in logged[:-1]] == [f"{method} {path}" for method, path in ROLES]
    assert {line["who"] for line in logged} == {key.split("_")[1]}
    asked = {"top": 3, "band": "high", "contacts": True, "further_page": False}
    assert logged[-1]["filter"] | asked == logged[-1]["filter"]
    assert (logged[-1]["rows"], logged[-1]["status"]) == (3, 200)
    assert [line["rows"] for line in logged[:2]] == [1, 1]
    assert {line["at"] for line in logged} == {NOW.isoformat(timespec="milliseconds")}


def test_no_log_holds_personal_data(client: TestClient, workspace: Workspace, keys: Keys) -> None:
    """Neither an id nor an address, after every route was asked about a customer; yet who looked can be told."""
    key = keys.add("admin", NOW)
    for method, path in ROLES:
        ask(client, method, path, key)
    page = client.get("/v1/lists/churn-risk?top=1", headers=with_key(key))
    cursor = parse_qs(page.headers["link"])["cursor"][0].partition(">")[0]
    assert client.get(f"/v1/lists/churn-risk?top=1&cursor={cursor}", headers=with_key(key)).status_code == 200
    log = (workspace.home_path / "audit.jsonl").read_text()
    assert CUSTOMER not in log
    assert cursor not in log, "a page's cursor is the id of the customer before it"
    assert "example.com" not in log
    told = client.get(f"/v1/customers/{CUSTOMER}/data", headers=with_key(key)).json()["audit"]
    assert "POST /scores" in {line["what"] for line in told if line["who"] == key.split("_")[1]}


def test_nothing_is_answered_without_a_line(
    client: TestClient, workspace: Workspace, keys: Keys, tmp_path: Path
) -> None:
    """Where the log cannot be written the answer is a refusal, without the data."""
    with answering_from(workspace.home_path) as answers:
        answers.gate.audit.path = tmp_path / "no-such-folder" / "audit.jsonl"
        answer = client.get(f"/v1/customers/{CUSTOMER}", headers=with_key(keys.add("crm", NOW)))
    refused(answer, 503, "no_audit")
    assert "churn_probability" not in answer.text


def test_lines_at_the_same_time_are_all_written(tmp_path: Path) -> None:
    """Of writers in each other's way, each with the file open for itself, every line is there and whole."""
    audits = [AuditLog(tmp_path) for _ in range(4)]

    def note(number: int) -> None:
        audits[number % 4].add(Read("key", "crm", f"GET /{number}", NOW, rows=1))

    with ThreadPoolExecutor(4) as writers:
        list(writers.map(note, range(400)))
    whats = [json.loads(line)["what"] for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    assert sorted(whats) == sorted(f"GET /{number}" for number in range(400))
