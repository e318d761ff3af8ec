"""Events over HTTP: kept once, refused in words, shown by the next score; in process, on a copy of the shop."""

from __future__ import annotations

import shutil
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from typing import Any

import bentoml
import httpx
import numpy as np
import pandas as pd
import pytest
from prometheus_client import REGISTRY
from starlette.testclient import TestClient
from workspaces import AS_OF, NO_PROFILING, publish, scored

from features import publications, retrieval, snapshot
from features.publications import LostFeatures
from ingest import events, intake
from ingest.events import Event, EventStore, Trouble
from monitoring import alerts
from serving.freshness import Freshness
from serving.http.answers import Answers
from serving.http.event_inbox import Inbox
from serving.http.health import Health
from serving.predictor import Predictor
from tests.serving.conftest import KEY, NOW
from workspace import registry, settings, storage
from workspace.settings import Service, Workspace

BUYER, OTHER = "c0200", "c0201"


@pytest.fixture(scope="module")
def workspace(shop: Any, environment: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    home = shutil.copytree(shop.workspace.home_path, tmp_path_factory.mktemp("events") / "home")
    return settings.parse({**storage.read_json(home / "workspace.json"), "home": str(home)}, "copy")


@pytest.fixture(scope="module")
def client(app: Any, workspace: Workspace) -> Iterator[TestClient]:
    with TestClient(app, headers={"Authorization": f"Bearer {KEY}"}) as client:
        running = bentoml.get_current_service()
        running.answers = Answers(workspace.home_path, lambda: NOW, Service())
        running.inbox = Inbox(workspace, running.answers.known)
        yield client


@pytest.fixture(scope="module")
def freshness(workspace: Workspace) -> Freshness:
    return Freshness(workspace.home_path, lambda: NOW)


def purchase(transaction_id: str, customer_id: str = BUYER, **more: Any) -> dict[str, Any]:
    """One of three hours ago, of one line."""
    line = {"product_id": "p1", "amount": 25.0, "quantity": 1} | more.pop("line", {})
    when = (NOW - timedelta(hours=3)).isoformat()
    return {
        "transaction_id": transaction_id, "customer_id": customer_id, "occurred_at": when, "lines": [line]
    } | more  # fmt: skip


def send(client: TestClient, *purchases: dict[str, Any], **more: Any) -> httpx.Response:
    return client.post("/v1/events", json={"purchases": list(purchases), **more})


def score(client: TestClient, customer_id: str) -> dict[str, Any]:
    return client.post("/v1/scores", json={"customer_ids": [customer_id]}).json()["scores"][0]


def test_an_event_is_shown_by_the_next_score(client: TestClient, freshness: Freshness, workspace: Workspace) -> None:
    """A purchase of today gives a score as of tomorrow, as the next batch will; the others' stay as they are."""
    before, other = score(client, BUYER), score(client, OTHER)
    assert send(client, purchase("e1"), purchase("e2", line={"product_id": "p2"})).json() == {
        "accepted": 2,
        "repeated": 0,
    }
    assert score(client, BUYER) == before
    assert freshness.catch_up() == 2
    after = score(client, BUYER)
    tomorrow = AS_OF + timedelta(days=1)
    assert after["as_of"] == str(tomorrow)
    assert after["churn_probability"] < before["churn_probability"]
    assert score(client, OTHER) == other
    assert freshness.catch_up() == 0

    intake.ingest(workspace, NOW)
    snapshot.snapshot(workspace, [tomorrow])
    scores = scored(Predictor.load(workspace, registry.client()), tomorrow).set_index("customer_id")
    for name in ("churn_probability", "lifetime_value", "p_alive", "expected_purchases"):
        assert after[name] == pytest.approx(scores.loc[BUYER, name], abs=1e-6), name


def test_a_new_publication_keeps_showing_events(client: TestClient, freshness: Freshness, workspace: Workspace) -> None:
    """Published again as of the same day, today's purchases are shown once more, ingested by now or not."""
    send(client, purchase("e3", OTHER))
    freshness.catch_up()
    shown = score(client, OTHER)
    (workspace.home_path / "tables" / "touched").touch()
    part = storage.snapshot_part(workspace.home_path, "purchases", AS_OF)
    (part / "_stamp").write_text("another delivery")
    publish(retrieval.apply(workspace), workspace, AS_OF)
    bentoml.get_current_service().answers.keep_up()
    assert score(client, OTHER)["as_of"] == str(AS_OF)
    freshness.catch_up()
    again = score(client, OTHER)
    assert again["as_of"] == shown["as_of"]
    assert again["churn_probability"] == pytest.approx(shown["churn_probability"], abs=1e-6)


def test_an_online_store_that_was_emptied_shows_events_again(
    client: TestClient, freshness: Freshness, workspace: Workspace
) -> None:
    """Written anew after it lost everything, a publication shows the events that it showed before."""
    send(client, purchase("e5", "c0204"))
    freshness.catch_up()
    shown, published = score(client, "c0204"), publications.published(workspace.home_path)
    assert published is not None
    with closing(sqlite3.connect(workspace.home_path / "feast" / "online.db")) as connection, connection:
        connection.execute(f"DELETE FROM small_{published.view}")
    publish(retrieval.apply(workspace), workspace, AS_OF)
    assert score(client, "c0204")["as_of"] == str(AS_OF)
    freshness.catch_up()
    assert score(client, "c0204") == shown


def test_killed_before_it_noted_what_it_showed_nothing_counts_twice(
    client: TestClient, freshness: Freshness, workspace: Workspace
) -> None:
    """Shown again by a new process, an event changes nothing."""
    send(client, purchase("e4", "c0202"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(freshness.events), "note_applied", lambda *_: (_ for _ in ()).throw(OSError("killed")))
        with pytest.raises(OSError, match="killed"):
            freshness.catch_up()
    shown = score(client, "c0202")
    assert shown["as_of"] > str(AS_OF)
    assert Freshness(workspace.home_path, lambda: NOW).catch_up() >= 1
    assert score(client, "c0202") == shown


@pytest.fixture
def strange(client: TestClient, workspace: Workspace) -> Iterator[EventStore]:
    """The store of events, from which what a test puts there past the checks of HTTP is taken again."""
    store = events.open_store(workspace)
    yield store
    store.forget(["c0210", "c0211", "c0212"])
    events.note_trouble(workspace.home_path, Trouble())
    store.close()


def _strange_event(event_id: str, customer_id: str, **line: Any) -> Event:
    row = {
        "transaction_id": event_id,
        "customer_id": customer_id,
        "occurred_at": (NOW - timedelta(hours=2)).isoformat(),
    }
    return Event("transactions", event_id, customer_id, AS_OF, ({**row, "amount": 5.0, **line},))


def test_events_that_cannot_be_summed_up_stop_no_others(
    client: TestClient, workspace: Workspace, strange: EventStore
) -> None:
    """They are set aside and told by number, in `/readyz`, the alerts and the metrics, also after a restart; the
    others are shown, and so are they once they can be."""
    wrong = [
        _strange_event("w1", "c0210", amount="much"),
        *(_strange_event(f"w{number}", "c0211", discount=3e38) for number in (2, 3)),
        _strange_event("w4", "c0212"),
    ]
    strange.add(wrong, NOW)
    send(client, purchase("w5", OTHER))
    fresh = Freshness(workspace.home_path, lambda: NOW)
    fresh.catch_up()
    assert score(client, OTHER)["as_of"] == score(client, "c0212")["as_of"] == str(AS_OF + timedelta(days=1))
    first, *_ = aside = sorted(fresh.trouble.set_aside)
    assert len(aside) in (2, 3)  # of two that are too much together one alone may count
    health = Health(workspace.home_path, lambda: NOW)
    (problem,) = health.problems(bentoml.get_current_service().answers)
    assert problem.code == "events_set_aside"
    assert f"number {first}" in problem.message
    (alert,) = alerts.of_events(workspace, NOW, "look")
    assert f"number {first}" in alert.says
    assert REGISTRY.get_sample_value("perennial_events_set_aside") == len(aside)
    again = Freshness(workspace.home_path, lambda: NOW)
    assert again.catch_up() == 0
    assert sorted(again.trouble.set_aside) == aside
    strange.forget(["c0210", "c0211"])
    again._try_again = 0.0
    again.catch_up()
    assert events.trouble(workspace.home_path) == Trouble()


def test_an_event_that_comes_while_others_are_shown_is_shown_too(
    client: TestClient, freshness: Freshness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Accepted after features were brought up to date, and before they are shown: it waits for the next look."""
    freshness.catch_up()
    keep_up = freshness.fresh.keep_up
    with monkeypatch.context() as late:
        late.setattr(freshness.fresh, "keep_up", lambda: (keep_up(), send(client, purchase("late-1", "c0214"))))
        freshness.catch_up()
    freshness.catch_up()
    card = client.get("/v1/customers/c0214").json()
    assert card["history"]["last_purchase"] == str(AS_OF)
    assert card["as_of"] == str(AS_OF + timedelta(days=1))


def test_events_that_wait_are_told(client: TestClient, workspace: Workspace) -> None:
    """What stops all events is in `/readyz` after a minute, in the metrics at once, and gone when they are shown."""
    time = NOW
    fresh = Freshness(workspace.home_path, lambda: time)
    fresh.catch_up()
    health, answers = Health(workspace.home_path, lambda: time), bentoml.get_current_service().answers
    layers = workspace.home_path / "days" / "segments.json"
    noted = layers.read_bytes()
    layers.unlink()
    try:
        send(client, purchase("v1", "c0213"))
        fresh.run(iter([False, True]).__next__)
        assert fresh.trouble.problem is not None
        assert list(health.problems(answers)) == []
        time = NOW + timedelta(seconds=61)
        fresh.run(iter([False, True]).__next__)
        health._looked_at = None
        (problem,) = health.problems(answers)
        assert (problem.code, problem.since) == ("events_wait", NOW.isoformat(timespec="seconds"))
        assert "1 accepted events yet: the days of small are not those of its tables" in problem.message
        (alert,) = alerts.of_events(workspace, time, "look")
        assert "the days of small" in alert.says
        assert REGISTRY.get_sample_value("perennial_event_lag_seconds") == 61
    finally:
        layers.write_bytes(noted)
    fresh.run(iter([False, True]).__next__)
    health._looked_at = None
    assert list(health.problems(answers)) == []
    assert score(client, "c0213")["as_of"] == str(AS_OF + timedelta(days=1))
    assert list(alerts.of_events(workspace, time, "look")) == []


def test_nothing_is_shown_in_a_store_that_was_emptied(
    client: TestClient, freshness: Freshness, workspace: Workspace
) -> None:
    """A row in it would hide that the others are gone; published again, the event is shown."""
    published = publications.published(workspace.home_path)
    assert published is not None
    freshness.catch_up()
    with closing(sqlite3.connect(workspace.home_path / "feast" / "online.db")) as connection, connection:
        connection.execute(f"DELETE FROM small_{published.view}")
    send(client, purchase("n1", published.last_customer))
    with pytest.raises(LostFeatures, match="run `perennial publish --as-of 2023-07-01`"):
        freshness.catch_up()
    assert score(client, OTHER)["stale"]
    publish(retrieval.apply(workspace), workspace, AS_OF)
    freshness.catch_up()
    bentoml.get_current_service().answers._store_down_until = 0.0
    assert score(client, published.last_customer)["as_of"] == str(AS_OF + timedelta(days=1))
    assert not score(client, OTHER)["stale"]


def test_an_id_that_comes_again_counts_once(client: TestClient) -> None:
    """The same event is accepted again and says so; another content under its id is a conflict."""
    assert send(client, purchase("r1")).status_code == 202
    again = send(client, purchase("r1"))
    assert (again.status_code, again.json()) == (202, {"accepted": 0, "repeated": 1})
    other = send(client, purchase("r1", line={"amount": 26.0}))
    assert other.status_code == 409
    assert other.json()["error"]["details"] == {"ids": ["r1"]}


def test_many_at_once_are_all_kept_once(client: TestClient, workspace: Workspace) -> None:
    """Several callers with overlapping requests lose nothing and double nothing."""
    requests = [[purchase(f"m{number}") for number in range(start, start + 20)] for start in (0, 10, 20, 0)]
    answers: list[dict[str, int]] = []
    inbox = bentoml.get_current_service().inbox

    def deliver(purchases: list[dict[str, Any]]) -> None:
        answers.append(send(client, *purchases).json())

    threads = [threading.Thread(target=deliver, args=(purchases,)) for purchases in requests]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(answer["accepted"] for answer in answers) == 40
    kept = inbox._opened().read("event_id LIKE 'm%'")
    assert len(kept) == 40


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({}, 400, "malformed"),
        ({"purchases": [purchase("x", line={"amount": -1.0})]}, 400, "malformed"),
        ({"purchases": [purchase("x", line={"amount": 2e9})]}, 400, "malformed"),
        ({"purchases": [purchase("x", line={"quantity": 0})]}, 400, "malformed"),
        ({"purchases": [purchase("x", occurred_at="2023-07-01 09:00")]}, 400, "malformed"),
        ({"purchases": [purchase("x", occurred_at=20230701)]}, 400, "malformed"),
        ({"purchases": [purchase("x", occurred_at="1970-01-01T00:00:00Z")]}, 400, "malformed"),
        ({"purchases": [purchase("")]}, 400, "malformed"),
        ({"purchases": [purchase("x\u0000y")]}, 400, "malformed"),
        ({"purchases": [purchase("x", colour="red")]}, 400, "malformed"),
        ({"purchases": [purchase("x", lines=[])]}, 400, "malformed"),
        ({"purchases": [purchase("x", occurred_at=(NOW + timedelta(minutes=1)).isoformat())]}, 400, "future_event"),
        ({"purchases": [purchase("x", line={"product_id": "nothing we sell"})]}, 400, "unknown_product"),
        (
            {
                "interactions": [
                    {"interaction_id": "i", "customer_id": BUYER, "occurred_at": NOW.isoformat(), "kind": "call"}
                ]
            },
            400,
            "no_interactions",
        ),
        ({"purchases": [purchase(f"x{number}") for number in range(1001)]}, 400, "malformed"),
    ],
)
def test_events_that_cannot_be_are_refused(client: TestClient, body: dict[str, Any], status: int, code: str) -> None:
    """Each has its code, and nothing of the request is kept."""
    answer = client.post("/v1/events", json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert bentoml.get_current_service().inbox._opened().read("event_id LIKE 'x%'") == []


def test_nan_and_infinity_are_refused(client: TestClient) -> None:
    """JSON as Python writes it may hold them; an amount may not."""
    for number in (b"NaN", b"Infinity", b"1e999"):
        body = b'{"purchases": [{"transaction_id": "x", "customer_id": "c0200", "occurred_at": "2023-07-01T09:00:00Z",'
        body += b' "lines": [{"amount": ' + number + b"}]}]}"
        answer = client.post("/v1/events", content=body, headers={"Content-Type": "application/json"})
        assert answer.json()["error"]["code"] == "malformed"


def test_an_unknown_customer_is_refused_where_the_table_is_complete(client: TestClient, workspace: Workspace) -> None:
    """As ingest would: a stranger is no customer of a shop that lists all of them; elsewhere it is a new one."""
    customers = workspace.tables.customers
    assert customers is not None
    complete = workspace.tables.model_copy(update={"customers": customers.model_copy(update={"complete": True})})
    running = bentoml.get_current_service()
    before, running.inbox = (
        running.inbox,
        Inbox(workspace.model_copy(update={"tables": complete}), running.answers.known),
    )
    try:
        answer = send(client, purchase("s1", "a stranger"))
        assert send(client, purchase("s2", BUYER)).status_code == 202
    finally:
        running.inbox = before
    assert answer.json()["error"] == {
        "code": "unknown_customer", "message": "not in the table of customers: 1", "details": {"ids": ["a stranger"]}
    }  # fmt: skip
    assert send(client, purchase("s1", "a stranger")).status_code == 202


def test_an_event_store_that_is_down_is_unavailable(client: TestClient, workspace: Workspace) -> None:
    """Without the store nothing is accepted: a 503 that says when to come back, while scores are answered."""
    running = bentoml.get_current_service()
    away = workspace.model_copy(update={"events": "postgresql://127.0.0.1:1/none"})
    before, running.inbox = running.inbox, Inbox(away, running.answers.known)
    try:
        answer = send(client, purchase("d1"))
    finally:
        running.inbox = before
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "no_event_store")
    assert answer.headers["retry-after"] == "3"
    assert score(client, BUYER)["customer_id"] == BUYER


def test_a_card_says_all_of_a_customer(client: TestClient, workspace: Workspace) -> None:
    """Its figures are the snapshot's, its offers the batch's; who refused profiling has neither habits nor history."""
    card = client.get("/v1/customers/c0203").json()
    lines = pd.read_parquet(workspace.tables.transactions.path[0])  # type: ignore[index]
    own = lines[lines["customer_id"] == "c0203"]
    assert card["history"]["purchases"] == own["transaction_id"].nunique()
    assert card["history"]["spend"] == pytest.approx(own["amount"].sum(), rel=1e-5)
    assert card["history"]["last_purchase"] == str(own["occurred_at"].max().date())
    assert card["offers"] == client.get("/v1/offers/c0203").json()["offers"]
    assert [offer["rank"] for offer in card["offers"]] == [1, 2]
    assert card["consents"] == {"profiling": True, "marketing": True}
    silent = client.get(f"/v1/customers/c{NO_PROFILING[0]:04}").json()
    assert (silent["habits"], silent["history"], silent["offers"]) == (None, None, [])
    assert silent["consents"]["profiling"] is False
    assert silent["scores"]["churn_probability"] is None


def test_another_horizon_is_answered(client: TestClient) -> None:
    """Less time to buy in is more risk and less value; the models' own horizon asked for by name is theirs."""
    asked = {"customer_ids": ["c0203", "c0204", "c0205"]}
    own, week, same = (
        client.post("/v1/scores", json=asked | more).json()["scores"] for more in ({}, {"horizon": 7}, {"horizon": 60})
    )
    for one, short, named in zip(own, week, same, strict=True):
        if one["not_scored_reason"] is None:
            assert short["churn_probability"] > one["churn_probability"]
            assert short["lifetime_value"] < one["lifetime_value"]
            assert short["churn_percentile"] is None
            assert named == one
        assert [(row["horizon"], row["lifetime_value_horizon"]) for row in (one, short, named)] == [
            (60, 60), (7, 7), (60, 60),
        ]  # fmt: skip
    assert not np.isnan(sum(one["lifetime_value"] for one in week))
    refused = client.post("/v1/scores", json=asked | {"horizon": 1095})
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "malformed")
    assert "days of history; ask for 1 to" in refused.json()["error"]["message"]
