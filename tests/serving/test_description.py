"""The service does what its description says, whatever is asked; and nothing odd in an id gets further than a 404."""

from __future__ import annotations

import base64
import json
import shutil
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import hypothesis
import pytest
import schemathesis
from hypothesis import strategies as st
from private_shop import answering_from
from schemathesis.specs.openapi.checks import positive_data_acceptance
from starlette.testclient import TestClient

from serving.http.bodies import LONGEST_ID
from serving.http.routes import ListRow, described
from serving.lists import churn_risk
from tests.serving.conftest import KEY

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
    description = described("1", "test")
    for operations in description["paths"].values():
        for operation in operations.values():
            operation.pop("security", None)
    return description


schema = schemathesis.openapi.from_dict(without_keys())


def test_the_list_is_described_column_by_column() -> None:
    """A column that is served stands in the description, in the same order."""
    assert tuple(ListRow.model_fields) == churn_risk.COLUMNS


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


@pytest.mark.parametrize("odd", ["", " \u200b\u00a0", "x\u0000", "x\r\nSet-Cookie: a=b", "a" * (LONGEST_ID + 1)])
def test_what_cannot_be_an_id_is_malformed(client: TestClient, odd: str) -> None:
    """Empty, nothing but blanks, with control characters or endless."""
    answer = client.post("/v1/scores", json={"customer_ids": [odd]})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "malformed")
    if odd:
        answer = client.get(f"/v1/customers/{quote(odd, safe='')}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "malformed")
        assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("spelled", ["c0200\u00a0", "\u200b c0200", "\ufeffc0200", "c0200\u3000"])
def test_blanks_around_an_id_are_none_of_it(client: TestClient, spelled: str) -> None:
    """In a body and in a path the same customer is meant as by the id alone, as ingest has it."""
    answer = client.post("/v1/scores", json={"customer_ids": [spelled]})
    assert [row["customer_id"] for row in answer.json()["scores"]] == ["c0200"]
    assert client.get(f"/v1/customers/{quote(spelled)}").json()["customer_id"] == "c0200"


LIST = "/v1/lists/churn-risk"
AT = ["2023-07-01", "value_at_risk"]


def cursor_of(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


LOOKS_LIKE_ONE = [
    b"[" * 1_400,
    json.dumps(AT).encode()[:-1] + b", [" + b"9" * 1_400 + b', 1, 0, 0], "c"]',
    json.dumps([*AT, [1, 1, 1, 1], "\ud800"]).encode(),
    json.dumps(["\ud800", "value_at_risk", [1, 1, 1, 1], "c"]).encode(),
    json.dumps([*AT, [float("nan"), 1, 1, 1], "c"]).encode(),
    json.dumps([*AT, [1, float("inf"), 1, 1], "c"]).encode(),
    json.dumps([*AT, [True, "1", 1, 1], "c"]).encode(),
    json.dumps([*AT, [1, 1], "c"]).encode(),
]
anything = st.binary(max_size=60) | st.lists(
    st.sampled_from([*AT, None, 1e308]) | st.integers() | st.floats() | st.text(), max_size=6
).map(lambda values: json.dumps(values).encode())


@hypothesis.given(content=anything, escaped=st.binary(max_size=60))
@hypothesis.settings(max_examples=60, deadline=None, derandomize=True, database=None)
def test_a_cursor_that_was_not_given_out_is_malformed(client: TestClient, content: bytes, escaped: bytes) -> None:
    """Whatever bytes a caller makes one of, encoded as ours are or not."""
    for cursor in (cursor_of(content), quote(escaped)):
        if cursor:
            answer = client.get(f"{LIST}?cursor={cursor}")
            assert (answer.status_code, answer.json()["error"]["code"]) == (400, "malformed")


@pytest.mark.parametrize("content", LOOKS_LIKE_ONE, ids=range(len(LOOKS_LIKE_ONE)))
def test_what_looks_like_a_cursor_is_malformed_too(client: TestClient, content: bytes) -> None:
    """Endless depth, endless digits, half a character, no number, another type: what a page's end never is."""
    answer = client.get(f"{LIST}?cursor={cursor_of(content)}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "malformed")
    assert (
        client.get(f"{LIST}?cursor={cursor_of(json.dumps([*AT, [1.5, 2, None, 1], 'c']).encode())}").status_code == 200
    )


NO_JSON = {
    "twice": b'{"customer_ids": ["c0212"], "customer_ids": ["c0213"]}',
    "nan": b'{"customer_ids": ["c0212"], "horizon": NaN}',
    "digits": b'{"customer_ids": ["c0212"], "horizon": ' + b"9" * 5_000 + b"}",
    "overflow": b'{"customer_ids": ["c0212"], "horizon": 1e999}',
    "half in a value": b'{"customer_ids": ["\\ud800"]}',
    "half in a key": b'{"customer_ids": ["c0212"], "\\udfff": 1}',
    "bytes": b'{"customer_ids": ["\xff"]}',
    "depth": b'{"customer_ids": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
}


@pytest.mark.parametrize("body", NO_JSON.values(), ids=NO_JSON)
def test_a_body_is_json_or_malformed(client: TestClient, body: bytes) -> None:
    """What readers of JSON do not agree on is refused: a key that stands twice would be a consent given and not."""
    answer = client.post("/v1/scores", content=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "malformed")


def test_a_consent_that_is_said_twice_is_not_one(client: TestClient) -> None:
    """Neither the one nor the other is kept."""
    body = b'{"marketing": true, "marketing": false}'
    headers = {"Content-Type": "application/json"}
    assert client.put("/v1/customers/c0212/consent", content=body, headers=headers).status_code == 400
    assert client.get("/v1/customers/c0212").json()["consents"]["marketing"] is True


# An id, what is asked about it, and by whom that is answered: the card, or what is held.
ADDRESSES = [
    ("x%2Fdata", "x/data", "card"), ("x/data", "x", "held"), ("x%2Fdata/data", "x/data", "held"),
    ("x%2fdata", "x/data", "card"), ("x/y", "x/y", "card"), ("x/y/data", "x/y", "held"), ("data", "data", "card"),
    ("data/data", "data", "held"), ("consent", "consent", "card"), ("x%2Fconsent", "x/consent", "card"),
    ("%2E", ".", "card"), ("%2E%2E/data", "..", "held"), ("%252F", "%2F", "card"), ("%25252F", "%252F", "card"),
    ("%2F", "/", "card"), ("%3F%23", "?#", "card"), ("100%25", "100%", "card"), ("%25zz/data", "%zz", "held"),
]  # fmt: skip
WORDS = {"card": "no customer with this id was known", "held": "nothing is held of a customer with this id"}


@pytest.mark.parametrize(("address", "customer_id", "asked"), ADDRESSES, ids=[address for address, *_ in ADDRESSES])
def test_every_id_has_a_card_and_can_be_shown(client: TestClient, address: str, customer_id: str, asked: str) -> None:
    """A slash that is escaped is the id's, one that is not may begin `/data`; both may be asked for."""
    error = client.get(f"/v1/customers/{address}").json()["error"]
    assert (error["code"], error["details"]["customer_id"]) == ("unknown_customer", customer_id)
    assert error["message"].startswith(WORDS[asked])


@pytest.mark.parametrize("address", ["", "/data", "%20"])
def test_no_id_is_malformed(client: TestClient, address: str) -> None:
    """An address without anybody in it asks for nobody."""
    assert client.get(f"/v1/customers/{address}").status_code == 400


@pytest.mark.parametrize("path", ["/customers/c0212", "//v1/customers/c0212", "/V1/customers/c0212", "/model"])
def test_there_is_nothing_beside_what_a_key_is_asked_for(client: TestClient, path: str) -> None:
    """However a path is spelt: below `/v1` a key is asked for, elsewhere nobody is answered about."""
    for headers in (BEARER, {"Authorization": ""}):
        answer = client.get(path, headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
