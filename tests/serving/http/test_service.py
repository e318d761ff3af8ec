"""The service, in process and as a process of its own, on a workspace that went the whole line."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import bentoml
import httpx
import numpy as np
import openpyxl
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from prometheus_client import REGISTRY
from redis_server import free_port, redis_of_its_own
from starlette.testclient import TestClient
from workspaces import AS_OF, NEVER_BOUGHT, NO_PROFILING, ODD_IDS

from features import online, online_erasure, publications, retrieval, snapshot
from features.families import purchases
from perennial import month
from perennial.commands.answers import day_to_publish
from serving import scoring, service
from serving.http import processes
from serving.http.answers import RETRY_SECONDS, Answers
from serving.http.keys import Keys
from serving.lists.bought_with import RULES
from serving.predictor import SCORE_COLUMNS, Predictor
from workspace import predictions, registry, settings, storage
from workspace.settings import Service, SettingsError, Workspace

KEY = "a-secret"
BEARER = {"Authorization": f"Bearer {KEY}"}
KNOWN = "c0200"
NOW = datetime(2023, 7, 1, 18, tzinfo=UTC)
AT_ANY_PORT = Service(port=49_151)


@pytest.fixture(scope="module")
def client(app: Any, environment: pytest.MonkeyPatch) -> Iterator[TestClient]:
    with TestClient(app, headers=BEARER) as client:
        yield client


@pytest.fixture
def home(shop: Any, environment: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A copy of the shop's home, to change, without what the service of other tests logs there."""
    ignore = shutil.ignore_patterns("predictions")
    return shutil.copytree(shop.workspace.home_path, tmp_path / "home", ignore=ignore)


@contextmanager
def answering_from(home: Path, **settings: Any) -> Iterator[None]:
    """The running service as if it had been started on `home`, with these settings of `service`."""
    running = bentoml.get_current_service()
    before, running.answers = running.answers, Answers(home, lambda: NOW, Service(**settings))
    try:
        yield
    finally:
        running.answers = before


def eventually(holds: Callable[[], bool], seconds: float = 20.0) -> None:
    """Waits until the service, which looks around twice a second, has seen what changed."""
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until, "it never came to that"
        time.sleep(0.1)


def ask(client: TestClient, *customer_ids: Any, **more: Any) -> httpx.Response:
    return client.post("/v1/scores", json={"customer_ids": list(customer_ids), **more})


def refused(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The `error` of an answer, which holds nothing else, once status and code are checked."""
    assert answer.status_code == status, answer.text
    (error,) = answer.json().values()
    assert set(error) == {"code", "message", "details"}
    assert error["code"] == code
    return error


def scores_file(workspace: Workspace, as_of: date = AS_OF) -> pd.DataFrame:
    return pd.read_parquet(storage.scores_path(workspace.home_path, as_of))


def assert_equal_to_file(rows: list[dict[str, Any]], expected: pd.DataFrame) -> None:
    assert len(rows) == len(expected)
    for name in SCORE_COLUMNS:
        answered, filed = [row[name] for row in rows], expected[name]
        if pd.api.types.is_float_dtype(filed):
            np.testing.assert_allclose(np.array(answered, dtype=float), filed, rtol=0, atol=1e-6, err_msg=name)
        else:
            assert answered == [None if value is None else str(value) for value in filed], name


def edited(path: Path, **changes: Any) -> None:
    storage.write_json(path, {**storage.read_json(path), **changes})


# Answers


def test_every_customer_scores_as_in_the_file(client: TestClient, shop: Any) -> None:
    """The service and the batch give the same answer to every column of every customer."""
    expected = scores_file(shop.workspace)
    rows = ask(client, *expected["customer_id"]).json()["scores"]
    assert_equal_to_file(rows, expected)
    assert expected["churn_probability"].notna().sum() > 200


def test_one_customer_scores_as_in_the_file(client: TestClient, shop: Any) -> None:
    """The card holds the row of the file, also for an id that a URL must escape."""
    for customer_id in (KNOWN, *ODD_IDS):
        answer = client.get(f"/v1/customers/{quote(customer_id, safe='')}")
        assert_equal_to_file(
            [answer.json()["scores"]], scores_file(shop.workspace).query("customer_id == @customer_id")
        )


def test_answers_come_in_the_order_asked(client: TestClient) -> None:
    """Each id gets its own object, in order, an id asked twice too."""
    asked = [KNOWN, "nobody", ODD_IDS[0], KNOWN]
    rows = ask(client, *asked).json()["scores"]
    assert [row["customer_id"] for row in rows] == asked
    assert rows[0] == rows[3]


def test_an_unknown_customer_among_others_is_marked(client: TestClient) -> None:
    """A batch is answered, the unknown one in it with an error of its own."""
    known, unknown = ask(client, KNOWN, "nobody").json()["scores"]
    assert tuple(known) == (*SCORE_COLUMNS, "stale", "horizon", "lifetime_value_horizon")
    assert unknown["customer_id"] == "nobody"
    assert unknown["error"]["code"] == "unknown_customer"


def test_explain_adds_reasons_where_there_is_a_probability(client: TestClient) -> None:
    """Reasons are the customer's own, whoever else is asked about; who refused profiling or never bought has none."""
    silent = [f"c{number:04}" for number in (NO_PROFILING[0], NEVER_BOUGHT[0])]
    *others, last = ask(client, *silent, "c0256", explain=True).json()["scores"]
    assert [other["reasons"] for other in others] == [[], []]
    assert last["reasons"]
    assert [last] == ask(client, "c0256", explain=True).json()["scores"]


def test_a_product_page_is_told_what_goes_with_an_item(client: TestClient, home: Path) -> None:
    """The batch's rules of one item, in any case and as many as asked; without one a 404 that names the nearest."""
    rules = [
        {"rank": n, "bought_with": other, "buyers": 9, "share": 0.3, "lift": 1.5}
        for n, other in ((1, "cake"), (2, "cups"))
    ]
    filed = pa.Table.from_pylist([{"item": "Tea", **rule} for rule in rules], schema=RULES)
    pq.write_table(filed, storage.bought_with_path(home, AS_OF))
    with answering_from(home):
        for item in ("Tea", "tea"):
            answer = client.get(f"/v1/items/{item}/bought-with?top=1").json()
            assert answer == {"item": item, "as_of": str(AS_OF), "bought_with": rules[:1]}
        error = refused(client.get("/v1/items/teas/bought-with"), 404, "unknown_item")
        assert error["details"] == {"item": "teas", "nearest": ["Tea"]}


def test_every_answer_says_what_its_numbers_mean(client: TestClient, shop: Any) -> None:
    """Beside scores, cards, offers and each row of a list: how far they are proven, over which days, in which money."""
    models = client.get("/v1/model").json()["models"]
    churn, value, offers = (models[kind]["grade"] for kind in ("churn", "lifetime_value", "cross_sell"))
    grades = {"churn": churn, "lifetime_value": value, "value_at_risk": max(churn, value), "offers": offers}
    terms = {"currency": "EUR", "churn_period_days": 60, "lifetime_value_period_days": 60,
             "lifetime_value_measure": "revenue"}  # fmt: skip
    paths = (f"/v1/customers/{KNOWN}", f"/v1/offers/{KNOWN}")
    for answer in (ask(client, KNOWN).json(), *(client.get(path).json() for path in paths)):
        assert {name: answer[name] for name in terms} == terms
        assert answer["grades"] == grades
        assert answer["withheld"] == {}
        said = {kind: words.partition(":")[0] for kind, words in answer["answers_by"].items()}
        assert said == {kind: of["answers_by"] for kind, of in models.items() if of["answers_by"]}
    other = ask(client, KNOWN, horizon=30).json()
    assert (other["churn_period_days"], other["lifetime_value_period_days"]) == (30, 30)
    assert other["grades"] == {"churn": "none", "lifetime_value": "none", "value_at_risk": "none", "offers": offers}
    for row in client.get("/v1/lists/churn-risk?top=2").json():
        assert {name: row[name] for name in terms} == terms
        assert (row["churn_grade"], row["lifetime_value_grade"], row["offer_grade"]) == (churn, value, offers)


def test_list_scores_and_card_give_the_same_reasons(client: TestClient) -> None:
    """Whoever looks sees the same, in whatever format."""
    rows = client.get("/v1/lists/churn-risk?top=6").json()
    table = pd.read_csv(io.BytesIO(client.get("/v1/lists/churn-risk?top=6&format=csv").content), keep_default_na=False)
    scores = ask(client, *(row["customer_id"] for row in rows), explain=True).json()["scores"]
    cards = [client.get(f"/v1/customers/{quote(row['customer_id'], safe='')}").json() for row in rows]
    expected = [". ".join(score["reasons"]) for score in scores]
    assert len(set(expected)) > 3
    assert [row["reasons"] for row in rows] == table["reasons"].tolist() == expected
    assert [". ".join(card["reasons"]) for card in cards] == expected


def test_a_list_names_unproven_offers_only_if_asked(client: TestClient, home: Path) -> None:
    """Those of a model without a grade: left out by default, there on request, with the grade beside them."""
    predictor = Predictor.load(settings.of_home(home), registry.client())
    ungraded = {kind: own._replace(grade="none") for kind, own in predictor.registered.items()}
    scoring.score(replace(predictor, registered=ungraded), AS_OF)
    with answering_from(home):
        (usual,) = client.get("/v1/lists/churn-risk?top=1").json()
        (asked,) = client.get("/v1/lists/churn-risk?top=1&unproven_offers=true").json()
        offers = client.get(f"/v1/offers/{KNOWN}").json()
    assert usual["offer"] is usual["offer_kind"] is usual["offer_probability"] is None
    assert asked["offer"]
    assert usual["offer_grade"] == asked["offer_grade"] == offers["grades"]["offers"] == "none"


def test_filters_take_any_case_and_refuse_what_nobody_has(client: TestClient) -> None:
    """Never quietly nothing: an unknown category is a 400 with the nearest, an attribute that is not kept another."""
    rows, same = (client.get(f"/v1/lists/churn-risk?category={name}&band={band}").json() for name, band in
                   (("tea", "medium"), ("%20TEA", "Medium")))  # fmt: skip
    assert rows == same != []
    error = refused(client.get("/v1/lists/churn-risk?category=coffe"), 400, "malformed")
    assert error["message"] == "category 'coffe': nobody bought of it in 365 days; the nearest is coffee"
    assert error["details"]["nearest"] == ["coffee"]
    assert "there are: none" in refused(client.get("/v1/lists/churn-risk?attribute=a:b"), 400, "malformed")["message"]


def test_model_says_what_answers(client: TestClient, shop: Any) -> None:
    """The versions are those in the scores, the hash that of the workspace's features."""
    said, row = client.get("/v1/model").json(), scores_file(shop.workspace).iloc[0]
    churn = said["models"]["churn"]
    assert f"{churn['name']}/{churn['version']}" == row["churn_model"]
    assert churn["trained_as_of"] == str(AS_OF)
    assert said["as_of"] == str(AS_OF)
    assert said["features_hash"] == publications.expected_hash(shop.workspace)
    assert said["settings"]["churn"]["horizon"] == 60


# Lists


def test_list_in_json(client: TestClient, shop: Any) -> None:
    """JSON is the default: the highest value at risk first, `top` rows of the band and value asked for."""
    answer = client.get("/v1/lists/churn-risk", params={"top": 5, "band": "high", "min_value": 10})
    assert answer.headers["content-type"] == "application/json"
    rows = pd.DataFrame(answer.json())
    assert len(rows) == 5
    assert (rows["churn_band"] == "high").all()
    assert (rows["lifetime_value"] >= 10).all()
    assert rows["value_at_risk"].is_monotonic_decreasing


def test_list_as_csv(client: TestClient) -> None:
    """CSV is a download that pandas and a spreadsheet read."""
    answer = client.get("/v1/lists/churn-risk?format=csv&top=7")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["content-disposition"] == f'attachment; filename="churn-risk-{AS_OF}.csv"'
    assert len(pd.read_csv(io.BytesIO(answer.content), dtype={"customer_id": str})) == 7


def test_list_as_xlsx(client: TestClient) -> None:
    """XLSX is a workbook of a header and the rows."""
    answer = client.get("/v1/lists/churn-risk?format=XLSX&top=7")
    assert answer.headers["content-type"] == "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
    assert openpyxl.load_workbook(io.BytesIO(answer.content)).active.max_row == 8


# Refusals


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {KEY}"}])
@pytest.mark.parametrize("path", ["/v1/model", "/v1/customers/c0200", "/v1/no-such-path"])
def test_without_the_key_nobody_is_let_in(client: TestClient, headers: dict[str, str], path: str) -> None:
    """No key, another key and another scheme are refused on every path below /v1, existing or not."""
    del client.headers["Authorization"]
    try:
        answer = client.get(path, headers=headers)
    finally:
        client.headers.update(BEARER)
    refused(answer, 401, "unauthorized")
    assert answer.headers["www-authenticate"] == "Bearer"


def test_the_key_is_checked_before_the_body(client: TestClient) -> None:
    """A stranger's malformed body is refused for the key, not for its form."""
    refused(client.post("/v1/scores", content=b"{", headers={"Authorization": "Bearer wrong"}), 401, "unauthorized")


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"{", "not JSON"),
        (b"[]", "a JSON object is expected"),
        (b"{}", "customer_ids: Field required"),
        (b'{"customer_ids": []}', "at least 1 item"),
        (b'{"customer_ids": "c0200"}', "valid list"),
        (b'{"customer_ids": [200]}', "customer_ids.0: Input should be a valid string"),
        (b'{"customer_ids": ["c0200"], "explain": "yes"}', "explain: Input should be a valid boolean"),
        (b'{"customer_ids": ["c0200"], "expain": true}', "expain: no such key"),
        (b'{"customer_ids": ["\\ud800"]}', "nor halves of characters"),
    ],
)
def test_a_malformed_body_is_refused(client: TestClient, body: bytes, problem: str) -> None:
    """Wrong types are not coerced, unknown keys not ignored, and the message says which."""
    answer = client.post("/v1/scores", content=body, headers={"Content-Type": "application/json"})
    assert problem in refused(answer, 400, "malformed")["message"]


@pytest.mark.parametrize(
    "query", ["top=0", "top=many", "min_value=nan", "min_value=500&max_value=100", "band=none", "format=pdf", "limit=5"]
)
def test_a_malformed_query_is_refused(client: TestClient, query: str) -> None:
    """Values out of range and unknown parameters of the list are a 400 that names them."""
    error = refused(client.get(f"/v1/lists/churn-risk?{query}"), 400, "malformed")
    assert query.split("=")[0] in error["message"]


def test_an_unknown_customer_alone_is_not_found(client: TestClient) -> None:
    """Asked for alone, an unknown customer is a 404 of either path."""
    for answer in (ask(client, "nobody"), client.get("/v1/customers/nobody")):
        assert refused(answer, 404, "unknown_customer")["details"] == {"customer_id": "nobody"}


def test_too_many_ids_are_refused(client: TestClient, shop: Any) -> None:
    """As many ids as the settings allow are answered, one more is a 413."""
    most = shop.workspace.service.max_ids
    assert ask(client, *[KNOWN] * most).status_code == 200
    assert refused(ask(client, *[KNOWN] * (most + 1)), 413, "too_many_ids")["details"]["most"] == most


def test_other_paths_and_methods_are_refused_in_our_shape(client: TestClient) -> None:
    """BentoML's plain texts are not seen."""
    refused(client.get("/v1/no-such-path"), 404, "not_found")
    refused(client.get("/no-such-path"), 404, "not_found")
    refused(client.get("/v1/scores"), 405, "method_not_allowed")


# What there is to answer with


def test_without_a_champion_the_service_waits_for_one(client: TestClient, home: Path, shop: Any) -> None:
    """No champion is a 503 that says when to come back; once there is one it answers, without a restart."""
    name, tracker = registry.model_name(shop.workspace, "churn"), registry.client()
    version = str(tracker.get_model_version_by_alias(name, "champion").version)
    tracker.delete_registered_model_alias(name, "champion")
    try:
        with answering_from(home):
            answer = ask(client, KNOWN)
            refused(answer, 503, "no_champion")
            assert answer.headers["retry-after"] == str(RETRY_SECONDS)
            assert client.get("/livez").status_code == 200
            assert client.get("/readyz").status_code == 503
            tracker.set_registered_model_alias(name, "champion", version)
            eventually(lambda: ask(client, KNOWN).status_code == 200)
            assert client.get("/readyz").status_code == 200
    finally:
        tracker.set_registered_model_alias(name, "champion", version)


def test_without_a_publication_the_service_waits_for_one(client: TestClient, home: Path) -> None:
    """Champions without a published as_of are a 503 on every path, and an answer as soon as there is one."""
    (home / "published.json").rename(home / "later.json")
    with answering_from(home):
        for answer in (ask(client, KNOWN), client.get("/v1/model"), client.get("/v1/lists/churn-risk")):
            refused(answer, 503, "not_published")
        (home / "later.json").rename(home / "published.json")
        eventually(lambda: ask(client, KNOWN).status_code == 200)


def test_other_features_than_the_models_are_refused(client: TestClient, home: Path) -> None:
    """Features published under another hash are not scored."""
    edited(home / "published.json", features_hash="0123456789abcdef")
    with answering_from(home):
        assert "0123456789abcdef" in refused(ask(client, KNOWN), 409, "feature_hash_mismatch")["message"]


def test_a_catalogue_in_another_order_is_refused(
    client: TestClient, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two features that changed places are a 409, also when the new catalogue is registered but not published."""
    first, second, *rest = purchases.FEATURES
    monkeypatch.setattr(purchases, "FEATURES", (second, first, *rest))
    retrieval.apply(settings.parse({**storage.read_json(home / "workspace.json"), "home": str(home)}, "copy"))
    with answering_from(home):
        refused(ask(client, KNOWN), 409, "feature_hash_mismatch")


def ready(client: TestClient) -> tuple[int, str, list[str]]:
    """What `/readyz` says: the HTTP status, its own, and the codes of the problems."""
    answer = client.get("/readyz")
    said = answer.json()
    return answer.status_code, said["status"], [problem["code"] for problem in said["problems"]]


def test_features_that_the_store_has_lost_are_refused_where_told_so(client: TestClient, home: Path) -> None:
    """Nobody is called unknown because the online store was emptied, while the service runs or before it starts."""
    published = publications.published(home)
    assert published is not None
    with answering_from(home, when_down="refuse"):
        assert ask(client, KNOWN).status_code == 200
        with closing(sqlite3.connect(home / "feast" / "online.db")) as connection, connection:
            connection.execute(f"DELETE FROM small_{published.view}")
        refused(ask(client, KNOWN), 409, "stale_features")
        refused(ask(client, KNOWN, "nobody"), 409, "stale_features")
    with answering_from(home, when_down="refuse"):
        assert (
            f"run `perennial publish --as-of {AS_OF}`" in refused(ask(client, KNOWN), 409, "stale_features")["message"]
        )
        assert ready(client) == (503, "unavailable", ["stale_features"])


@pytest.mark.parametrize("lost", ["rows", "table", "file"])
def test_what_a_sqlite_store_has_lost_the_files_answer(
    client: TestClient, home: Path, lost: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Running, and started anew, until it is published again; `/readyz` says so, and what to do."""
    published = publications.published(home)
    assert published is not None
    with answering_from(home):
        assert ready(client) == (200, "ready", [])
        _lose(home / "feast" / "online.db", f"small_{published.view}", lost)
        eventually(lambda: ask(client, KNOWN).json()["scores"][0]["stale"])
    with answering_from(home):
        assert ask(client, KNOWN).json()["scores"][0]["stale"]
        assert ready(client) == (200, "degraded", ["stale"])
        (problem,) = client.get("/readyz").json()["problems"]
        assert problem["message"].endswith(f"run `perennial publish --as-of {AS_OF}`")
        assert problem["since"] == NOW.isoformat()
        workspace = settings.parse({**storage.read_json(home / "workspace.json"), "home": str(home)}, "copy")
        day, said = day_to_publish(workspace, None), list[str]()  # as for the command without a day
        assert f"has no scores: as_of is the latest day that has, {AS_OF}" in capsys.readouterr().out
        month.publish(workspace, day, said.append)
        assert re.fullmatch(f"the online store had lost features of {AS_OF}: those of .* are online again", said[-1])
        eventually(lambda: not ask(client, KNOWN).json()["scores"][0]["stale"])
        eventually(lambda: ready(client) == (200, "ready", []))


def _lose(database: Path, table: str, lost: str) -> None:
    if lost == "file":
        database.unlink()
    with closing(sqlite3.connect(database)) as connection, connection:
        if lost == "rows":
            connection.execute(f"DELETE FROM {table}")
        elif lost == "table":
            connection.execute(f"DROP TABLE {table}")


def test_an_online_store_that_is_down_is_unavailable(client: TestClient, home: Path) -> None:
    """Where `when_down` is refuse, no Redis is a 503 that says where it should be and when to come back."""
    edited(home / "workspace.json", online="redis://127.0.0.1:1/0")
    edited(home / "published.json", store="redis://127.0.0.1:1/0")
    with answering_from(home, when_down="refuse"):
        answer = ask(client, KNOWN)
    assert "Redis at 127.0.0.1:1, does not answer" in refused(answer, 503, "no_online_store")["message"]
    assert answer.headers["retry-after"] == str(RETRY_SECONDS)


def test_while_redis_is_down_or_empty_the_last_scores_answer_marked_stale(
    client: TestClient, home: Path, shop: Any, tmp_path: Path
) -> None:
    """A Redis that is killed, or has lost what it held, leaves what the last batch wrote, reasons aside; once it is
    back, or published to again, so are fresh answers."""
    address = f"redis://127.0.0.1:{free_port()}/0"
    edited(home / "workspace.json", online=address)
    workspace = settings.of_home(home)
    expected = scores_file(shop.workspace)
    asked = expected["customer_id"].tolist()[:50]
    with redis_of_its_own(address, tmp_path) as redis:
        online.publish(retrieval.apply(workspace), workspace, AS_OF)
        with answering_from(home):
            assert not ask(client, KNOWN).json()["scores"][0]["stale"]
            redis.stop()
            rows = ask(client, *asked, "nobody", explain=True, offers=True).json()["scores"]
            card = client.get(f"/v1/customers/{KNOWN}").json()
            listed = client.get("/v1/lists/churn-risk?top=3")
            assert ready(client) == (200, "degraded", ["stale"])
            (problem,) = client.get("/readyz").json()["problems"]
            assert "files: the online store does not answer: Error 111 connecting. Conn" in problem["message"]
            assert "does not answer: " in refused(ask(client, KNOWN, horizon=30), 503, "no_online_store")["message"]
            redis.start()
            eventually(lambda: not ask(client, KNOWN).json()["scores"][0]["stale"])
            _emptied_and_half_filled(client, workspace, redis.port)
    assert_equal_to_file(rows[:-1], expected.head(50))
    assert {(row["stale"], row["horizon"]) for row in rows[:-1]} == {(True, 60)}
    assert rows[-1]["error"]["code"] == "unknown_customer"
    assert (card["stale"], card["history"], card["scores"]["as_of"]) == (True, None, str(AS_OF))
    assert len(listed.json()) == 3


def _emptied_and_half_filled(client: TestClient, workspace: Workspace, port: int) -> None:
    """Emptied, the files answer; published again, it does; of whom it has lost alone, again the files."""
    import redis

    store, published = retrieval.open_store(workspace), publications.published(workspace.home_path)
    assert published is not None
    row = online.online_rows(store, workspace, published, [KNOWN])[KNOWN]
    with redis.Redis(port=port) as held:
        held.flushall()
        online.push(store, workspace, published, {KNOWN: row})  # another program, or another workspace's of this name
        eventually(lambda: [one["stale"] for one in ask(client, KNOWN, "c0201").json()["scores"]] == [True, True])
        assert ready(client) == (200, "degraded", ["stale"])
        told = f"2023-07-01 are not in the online store: run `perennial publish --as-of {AS_OF}`"
        assert client.get("/readyz").json()["problems"][0]["message"].endswith(told)
        message = refused(ask(client, KNOWN, horizon=30), 503, "no_online_store")["message"]
        assert "out of reach" not in message
        assert message.endswith(f"run `perennial publish --as-of {AS_OF}`")
        online.publish(store, workspace, AS_OF)
        eventually(lambda: not ask(client, "c0201").json()["scores"][0]["stale"])
        eventually(lambda: ready(client) == (200, "ready", []))
        assert held.delete(online_erasure.redis_name(store, "c0201"))
    one, other, nobody = ask(client, KNOWN, "c0201", "nobody").json()["scores"]
    assert (one["stale"], other["stale"], nobody["error"]["code"]) == (False, True, "unknown_customer")
    assert client.get("/v1/customers/c0201").json()["stale"]
    answers = bentoml.get_current_service().answers
    answers.health._looked_at = None
    assert ready(client) == (200, "degraded", ["stale"])
    online.publish(store, workspace, AS_OF)
    answers.health._looked_at = None
    assert ready(client) == (200, "ready", [])


def test_a_store_that_lost_many_rows_is_told_before_anybody_asks(client: TestClient, home: Path) -> None:
    """`/readyz` looks a sample of the published customers up; one row of them that is gone degrades it."""
    published = publications.published(home)
    assert published is not None
    with answering_from(home):
        assert ready(client) == (200, "ready", [])
        with closing(sqlite3.connect(home / "feast" / "online.db")) as connection, connection:
            table = f"small_{published.view}"
            store = retrieval.open_store(settings.of_home(home))
            last = online_erasure.sqlite_name(store, published.last_customer)
            every_other = f"SELECT entity_key FROM {table} WHERE feature_name = 'vector' AND rowid % 4 = 1"
            connection.execute(f"DELETE FROM {table} WHERE entity_key IN ({every_other}) AND entity_key <> ?", (last,))
        bentoml.get_current_service().answers.health._looked_at = None
        assert ready(client) == (200, "degraded", ["stale"])
        (problem,) = client.get("/readyz").json()["problems"]
        told = rf"lost the features of \d\d of 100 customers looked up: run `perennial publish --as-of {AS_OF}`$"
        assert re.search(told, problem["message"])


def test_a_broken_registry_is_unavailable_not_fatal(client: TestClient, home: Path) -> None:
    """What cannot be loaded is a 503, and the log has the reason."""
    storage.percentiles_path(home, AS_OF).unlink()
    with answering_from(home):
        refused(ask(client, KNOWN), 503, "not_loaded")


def test_a_list_without_scores_is_unavailable(client: TestClient, home: Path) -> None:
    """A published as_of whose list is gone answers customers, but has no list."""
    storage.risk_path(home, AS_OF).unlink()
    with answering_from(home):
        refused(client.get("/v1/lists/churn-risk"), 503, "not_scored")
        assert ask(client, KNOWN).status_code == 200


def test_a_new_publication_is_answered_from(client: TestClient, home: Path) -> None:
    """Published a week later, answers soon are those of the new as_of, percentiles too, without a restart."""
    workspace = settings.parse({**storage.read_json(home / "workspace.json"), "home": str(home)}, "copy")
    later = AS_OF + timedelta(days=7)
    with answering_from(home):
        before = ask(client, KNOWN).json()["scores"][0]
        snapshot.snapshot(workspace, [AS_OF, later])
        store = retrieval.apply(workspace)
        scoring.score(Predictor.load(workspace, registry.client()), later)
        online.publish(store, workspace, later)
        eventually(lambda: ask(client, KNOWN).json()["scores"][0]["as_of"] == str(later))
        expected = scores_file(workspace, later)
        rows = ask(client, *expected["customer_id"]).json()["scores"]
    assert before["as_of"] == str(AS_OF)
    assert_equal_to_file(rows, expected)


def test_answers_and_lists_are_logged_as_they_were_given(client: TestClient, home: Path) -> None:
    """Scores, cards and listed rows lie in the prediction log with what they answered; who got no number does not."""
    with answering_from(home):
        answers = bentoml.get_current_service().answers
        row = ask(client, KNOWN, f"c{NO_PROFILING[0]:04}", "nobody", horizon=30).json()["scores"][0]
        client.get(f"/v1/customers/{KNOWN}")
        listed = client.get("/v1/lists/churn-risk", params={"top": 3}).json()
        answers.served.flush()
    logged = predictions.read(answers.workspace).query("via != 'batch'").set_index("via")
    assert logged["customer_id"].to_dict() == {"scores": KNOWN, "card": KNOWN, "list": listed[-1]["customer_id"]}
    assert logged.loc["list", "customer_id"].tolist() == [entry["customer_id"] for entry in listed]
    assert logged.loc["scores", "churn_probability"] == row["churn_probability"]
    assert predictions.as_asked(answers.workspace, logged.loc["scores", "question"]).churn.horizon == 30
    assert predictions.as_asked(answers.workspace, logged.loc["card", "question"]).churn.horizon == 60
    assert set(logged["churn_model"]) == {row["churn_model"]}
    assert logged.loc["scores", "horizon"] == 30
    assert logged.loc[["card", "list"], "horizon"].isna().all()
    assert set(logged["churn_trained"].dt.date) == {AS_OF}
    assert set(logged["served_at"]) == {NOW}


def test_a_log_that_cannot_be_written_fails_no_answer(client: TestClient, home: Path) -> None:
    """It is counted instead, and what waits for the disk does not grow without end."""
    (home / "predictions").write_text("a file where a folder should be")
    with answering_from(home):
        served = bentoml.get_current_service().answers.served
        lost = REGISTRY.get_sample_value("perennial_unlogged_total")
        assert ask(client, KNOWN).status_code == 200
        served.flush()
        assert REGISTRY.get_sample_value("perennial_unlogged_total") == lost + 1
        served.add(settings.of_home(home), [{}] * 150_000, "scores")
        served.add(settings.of_home(home), [{}] * 60_000, "scores")
        assert REGISTRY.get_sample_value("perennial_unlogged_total") == lost + 60_001


# BentoML's own paths


def test_probes_and_description_are_open(client: TestClient) -> None:
    """Probes and the API's description need no key."""
    for path in ("/livez", "/readyz", "/docs.json", "/"):
        assert client.get(path, headers={"Authorization": ""}).status_code == 200


def test_the_description_is_true(client: TestClient) -> None:
    """docs.json names every path and refusal, every reference in it leads somewhere, and answers have its columns."""
    described = client.get("/docs.json").json()
    paths = {"/v1/scores", "/v1/customers/{customer_id}", "/v1/lists/churn-risk", "/v1/model", "/livez", "/metrics"}
    assert paths <= described["paths"].keys()
    assert {"400", "401", "404", "409", "413", "503"} <= described["paths"]["/v1/scores"]["post"]["responses"].keys()
    schemas = described["components"]["schemas"]
    for name in re.findall(r"#/components/schemas/(\w+)", json.dumps(described)):
        assert name in schemas
    assert tuple(schemas["Score"]["properties"]) == (*SCORE_COLUMNS, "stale", "horizon", "lifetime_value_horizon")
    assert set(schemas["ModelAnswer"]["properties"]) == set(client.get("/v1/model").json())


# Starting and stopping


def test_without_a_key_it_does_not_start(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither `serve` nor BentoML starts a service that nobody could be let into."""
    monkeypatch.delenv("PERENNIAL_API_KEY")
    with pytest.raises(SettingsError, match="PERENNIAL_API_KEY is not set"):
        processes.serve(home, AT_ANY_PORT, lambda: NOW, [])
    with pytest.raises(SettingsError, match="PERENNIAL_API_KEY is not set"):
        service.Perennial()


def test_without_a_workspace_it_does_not_start(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A home that nothing was run in is named, with the command that fills it."""
    with pytest.raises(SettingsError, match=r"workspace\.json does not exist: run `perennial run"):
        processes.serve(tmp_path, AT_ANY_PORT, lambda: NOW, [])


def test_a_taken_port_is_said_at_once(home: Path) -> None:
    """A port in use is an error before anything is loaded."""
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(SettingsError, match="cannot listen on"):
        processes.serve(home, Service(port=other.getsockname()[1]), lambda: NOW, [])


def test_an_unusable_certificate_stops_the_start(home: Path, tmp_path: Path) -> None:
    """A certificate that is not there, or not of its key, is an error before anything is loaded."""
    mine, other = _certificate(tmp_path), tmp_path / "other"
    other.mkdir()
    _certificate(other)
    for certificate, key in ((tmp_path / "none.pem", tmp_path / "key.pem"), (mine, other / "key.pem")):
        own = Service(port=49_151, tls_certificate=str(certificate), tls_key=str(key))
        with pytest.raises(SettingsError, match=r"service.tls_certificate .* cannot be used"):
            processes.serve(home, own, lambda: NOW, [])


def test_a_process_serves_and_stops(home: Path, shop: Any, tmp_path: Path) -> None:
    """Started as a command it answers as the file says, in TLS alone, names no customer in metrics or log, ends on
    SIGTERM; a key counts from the moment that it is made to that in which it is revoked. BentoML ends no request."""
    outside, port, keys = tmp_path / "outside", free_port(), Keys(home)
    outside.mkdir()
    log_of_reads = home / "audit.jsonl"
    earlier = log_of_reads.read_text() if log_of_reads.exists() else ""
    trusted = ssl.create_default_context(cafile=_certificate(tmp_path))
    here = f"https://127.0.0.1:{port}"
    with _process(home, port, outside) as process, httpx.Client(base_url=here, verify=trusted) as client:
        _wait_until_ready(client, process)
        with pytest.raises(httpx.RemoteProtocolError):
            httpx.get(f"http://127.0.0.1:{port}/livez")
        key = keys.add("crm", NOW)
        headers = {"Authorization": f"Bearer {key}"}
        assert client.get("/v1/model", headers=headers).status_code == 200
        assert client.get("/v1/lists/churn-risk", headers=headers).status_code == 403
        keys.revoke(key.split("_")[1], NOW)
        assert client.get("/v1/model", headers=headers).status_code == 401
        rows = [client.get(f"/v1/customers/{KNOWN}", headers=BEARER).json()["scores"]]
        assert_equal_to_file(rows, scores_file(shop.workspace).query("customer_id == @KNOWN"))
        assert client.get("/v1/model").status_code == 401
        client.get("/wp-login.php")
        metrics = client.get("/metrics").text
        process.send_signal(signal.SIGTERM)
        log, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert 'endpoint="/v1/customers/{customer_id}",http_response_code="200"' in metrics
    audited = log_of_reads.read_text().removeprefix(earlier)
    assert [json.loads(line)["status"] for line in audited.splitlines()] == [200, 403, 200]
    for text in (metrics, log, audited):
        assert KNOWN not in text
        assert "wp-login" not in text
        assert KEY not in text
        assert key not in text
    assert list(outside.iterdir()) == []
    assert predictions.read(settings.of_home(home)).query("via == 'card'")["customer_id"].tolist() == [KNOWN]


_SERVE = """
import pathlib, sys
from datetime import UTC, datetime
from workspace.settings import Service
from serving.http.processes import serve
now = datetime(2023, 7, 1, 18, tzinfo=UTC)
home, port = pathlib.Path(sys.argv[1]), int(sys.argv[2])
own = {"tls_certificate": str(home.parent / "certificate.pem"), "tls_key": str(home.parent / "key.pem")}
serve(home, Service(port=port, **own), lambda: now)
"""


def _certificate(folder: Path) -> Path:
    """One of this machine's own, for two days, and its key beside it."""
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=perennial",
               "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key.pem", "-out", "certificate.pem"]  # fmt: skip
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return folder / "certificate.pem"


@contextmanager
def _process(home: Path, port: int, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A server whose current and home folder is `folder`, to see that it writes there nothing."""
    root = Path(service.__file__).resolve().parents[1]
    environment = {**os.environ, "HOME": str(folder), "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}
    environment["BENTOML_CONFIG_OPTIONS"] = "services.Perennial.traffic.timeout=0.001"  # by a 504 of its own, 60 s else
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", _SERVE, str(home), str(port)], cwd=folder, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _wait_until_ready(client: httpx.Client, process: subprocess.Popen[str]) -> None:
    for _ in range(1200):  # 10 s of imports, five times that beside busy neighbours
        assert process.poll() is None, process.stdout and process.stdout.read()
        try:
            if client.get("/readyz").status_code == 200:
                return
        except httpx.ConnectError:
            pass
        time.sleep(0.1)
    pytest.fail("not ready within two minutes")
