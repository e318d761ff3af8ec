"""The service does what its description says, whatever is asked; and nothing odd in an id gets further than a 404."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import hypothesis
import pytest
import schemathesis
from private_shop import answering_from
from schemathesis.specs.openapi.checks import positive_data_acceptance
from starlette.testclient import TestClient

from serving.bodies import LONGEST_ID
from serving.routes import described

from .conftest import KEY

BEARER = {"Authorization": f"Bearer {KEY}"}
ODD = [
    "'; DROP TABLE scores; --",
    "../../etc/passwd",
    "%2e%2e",
    "Ω≈ç√",
    "\u202eabc",
    "😀",
    "a" * LONGEST_ID,
    "x' OR '1'='1",
]


def without_keys() -> dict[str, Any]:
    """The description, but for who is let in: `test_service` asks without a key and with wrong ones."""
    found = described("1", "test")
    for operations in found["paths"].values():
        for operation in operations.values():
            operation.pop("security", None)
    return found


schema = schemathesis.openapi.from_dict(without_keys())


@pytest.fixture(scope="module")
def client(
    app: Any, shop: Any, environment: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TestClient]:
    """On a copy of the shop: some of what is asked keeps events, consents or erases."""
    home = shutil.copytree(shop.workspace.home_path, tmp_path_factory.mktemp("described") / "home")
    with TestClient(app, headers=BEARER) as client, answering_from(home):
        yield client


@schema.include(path_regex="^/v1").parametrize()
@hypothesis.settings(
    max_examples=12, deadline=None, derandomize=True, database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)  # fmt: skip
def test_every_answer_is_one_that_is_described(client: TestClient, case: schemathesis.Case) -> None:
    """Whatever is asked of a route, well formed or not: no 5xx, no status, type or body beside the description."""
    wanted = case.as_transport_kwargs(base_url="http://testserver")
    wanted["content"] = wanted.pop("data", None)
    headers = {**dict(wanted.pop("headers", None) or {}), **BEARER}
    sent = {
        name: wanted[name] for name in ("method", "url", "params", "json", "content") if wanted.get(name) is not None
    }
    answer = client.request(headers=headers, **sent)
    assert answer.status_code < 500, answer.text
    # A schema cannot say which attributes, products and cursors there are.
    case.validate_response(answer, excluded_checks=[positive_data_acceptance])


@pytest.mark.parametrize("odd", ODD)
def test_odd_ids_are_unknown_and_nothing_more(client: TestClient, odd: str) -> None:
    """SQL, path characters, odd Unicode and long ids are ids that nobody has."""
    start = time.perf_counter()
    for path in ("customers", "offers"):
        answer = client.get(f"/v1/{path}/{quote(odd, safe='')}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unknown_customer")
    answer = client.post("/v1/scores", json={"customer_ids": [odd]})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unknown_customer")
    assert time.perf_counter() - start < 5


@pytest.mark.parametrize("odd", ["", " x", "x\u0000", "x\r\nSet-Cookie: a=b", "a" * (LONGEST_ID + 1)])
def test_what_cannot_be_an_id_is_malformed(client: TestClient, odd: str) -> None:
    """Empty, padded, with control characters or endless."""
    answer = client.post("/v1/scores", json={"customer_ids": [odd]})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "malformed")
    if odd:
        answer = client.get(f"/v1/customers/{quote(odd, safe='')}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "malformed")
        assert "set-cookie" not in answer.headers


def test_json_that_nests_without_end_is_malformed(client: TestClient) -> None:
    """It is neither a crash nor a defect."""
    body = b'{"customer_ids": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    answer = client.post("/v1/scores", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
