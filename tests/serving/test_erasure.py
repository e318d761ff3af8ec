"""Showing and erasing everything that is held of a customer."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import bentoml
import pandas as pd
import pytest
from anyio.to_thread import current_default_thread_limiter
from postgres_server import ADDRESS, schema_for
from private_shop import NOW, answering_from, email, files_with, private_shop, scores_of
from redis_server import redis_for
from starlette.testclient import TestClient
from workspaces import AS_OF, CUSTOMERS, publish

from features import online, publications, retrieval, snapshot
from features.fresh import FreshFeatures
from ingest import events, intake
from perennial.commands.app import alone
from perennial.shop import Shop
from serving import erasure, erasure_queue, score_rows, scoring
from serving.erasure import UnknownCustomer
from serving.erasure_queue import ErasureQueue
from serving.freshness import Freshness
from serving.http.bodies import EventsRequest, Purchase
from serving.http.event_inbox import Inbox
from serving.lists import exports
from serving.predictor import Predictor
from training.learning import datasets
from workspace import privacy, registry, storage
from workspace.settings import Workspace
from workspace.storage import CheckFailed

BEARER = {"Authorization": "Bearer a-secret"}
# One whose id a URL must escape, an ordinary one, one to be shown.
ODD, ERASED, SHOWN = "Zoë/7 & co", "c0211", "c0212"
WALK_IN = "w0001"  # of whom only events tell
FAMILIES = ("tables/customers", "tables/transactions", "days", "snapshots/purchases", "snapshots/profile",
            "snapshots/product_affinity", "scores", "online", "online store", "quarantine", "events/events.db",
            "events/transactions", "consents.db")  # fmt: skip


@pytest.fixture(scope="module")
def workspace(shop: Any, environment: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The private shop with a bad line of each customer in quarantine, and what a service counts in."""
    workspace = private_shop(shop.workspace, tmp_path_factory.mktemp("erasures") / "shop")
    folder = workspace.home_path.parent
    lines = pd.read_parquet(folder / "transactions.parquet")
    bad = lines.drop_duplicates("customer_id").assign(customer_id=lambda rows: " " + rows["customer_id"], amount=1e12)
    pd.concat([lines, bad]).to_parquet(folder / "transactions.parquet", index=False)
    intake.ingest(workspace, NOW)
    snapshot.snapshot(workspace, [*datasets.cutoffs(workspace, AS_OF), AS_OF])
    store = retrieval.apply(workspace)
    scoring.score(Predictor.load(workspace, registry.client()), AS_OF)
    publish(store, workspace, AS_OF)
    (workspace.home_path / "bentoml").mkdir()
    (workspace.home_path / "bentoml" / "counter_1.db").write_bytes(bytes(64))  # as a running service has, no database
    return workspace


@pytest.fixture(scope="module")
def freshness(client: TestClient, workspace: Workspace) -> Freshness:
    """What shows events, after two of each of some customers: one that the next ingest was handed, one that not yet."""
    freshness = Freshness(workspace.home_path, lambda: NOW)
    for number in (1, 2):
        sent = [purchase(f"{customer_id} {number}", customer_id) for customer_id in (ODD, ERASED, SHOWN, WALK_IN)]
        assert client.post("/v1/events", json={"purchases": sent}).status_code == 202
        freshness.catch_up()
        if number == 1:
            intake.ingest(workspace, NOW)
    for customer_id in (ODD, ERASED, SHOWN):
        client.put(f"/v1/customers/{quote(customer_id, safe='')}/consent", json={"marketing": True})
    return freshness


@pytest.fixture(scope="module")
def client(app: Any, workspace: Workspace, environment: pytest.MonkeyPatch) -> Iterator[TestClient]:
    environment.setattr(erasure_queue, "SECONDS", 3600)  # who waits is looked after by the tests
    with TestClient(app, headers=BEARER) as client, answering_from(workspace.home_path):
        yield client


def purchase(transaction_id: str, customer_id: str) -> dict[str, Any]:
    line = {"product_id": "p1", "amount": 25.0}
    when = "2023-07-01T09:00:00+02:00"
    return {"transaction_id": transaction_id, "customer_id": customer_id, "occurred_at": when, "lines": [line]}


def online_ids(workspace: Workspace, customer_id: str) -> set[str]:
    publication = publications.published(workspace.home_path)
    assert publication is not None
    return set(online.online_rows(retrieval.open_store(workspace), workspace, publication, [customer_id]))


def places_of(rows_of: dict[str, Any]) -> set[str]:
    return {family for family in FAMILIES if any(place.startswith(family) for place in rows_of)}


def made_from(workspace: Workspace) -> dict[str, str | None]:
    """What snapshots and scores say that they were made from."""
    parts = {str(part): snapshot.stamp_of(part) for part in (workspace.home_path / "snapshots").glob("*/[0-9]*")}
    return parts | {"data": snapshot.fingerprint(workspace)}


def test_everything_held_is_shown(client: TestClient, freshness: Freshness, workspace: Workspace) -> None:
    """Tables with contact data in the clear, snapshots, scores, offers, vectors, events and reads; only of the one."""
    client.get(f"/v1/customers/{SHOWN}")
    answer = client.get(f"/v1/customers/{SHOWN}/data").json()
    assert places_of(answer["held"]) == set(FAMILIES)
    what = ["POST /events", "POST /events", "PUT /customers/{customer_id}/consent", "GET /customers/{customer_id}"]
    assert [line["what"] for line in answer["audit"]][-len(what) :] == what
    customers = next(rows for place, rows in answer["held"].items() if place.startswith("tables/customers"))
    assert [row["email"] for row in customers] == [email(SHOWN)]
    named = {row["customer_id"].strip() for rows in answer["held"].values() for row in rows if "customer_id" in row}
    assert named == {SHOWN}
    vector = max(answer["held"]["online store"], key=lambda row: row["as_of"])
    assert vector["as_of"] == str(AS_OF + timedelta(days=1))
    assert vector["n_purchases"] == client.get(f"/v1/customers/{SHOWN}").json()["history"]["purchases"]


def test_who_waits_for_a_search_keeps_nobody_else_waiting(client: TestClient) -> None:
    """One search for a customer goes on at a time; further ones wait without a thread, of which there are few."""
    searching, path = bentoml.get_current_service().answers.searching, "/v1/customers/c0213"
    assert client.portal is not None
    threads = client.portal.call(current_default_thread_limiter)
    before = threads.total_tokens
    client.portal.call(searching.acquire)
    client.portal.call(setattr, threads, "total_tokens", 1)
    try:
        with ThreadPoolExecutor(3) as pool:
            searches = [pool.submit(client.get, f"{path}/data") for _ in range(2)]
            try:
                time.sleep(0.5)
                said = pool.submit(client.put, f"{path}/consent", json={"marketing": True})
                assert said.result(timeout=30).status_code == 200
                assert not any(search.done() for search in searches)
            finally:
                client.portal.call(searching.release)
            assert [search.result().status_code for search in searches] == [200, 200]
    finally:
        client.portal.call(setattr, threads, "total_tokens", before)


@pytest.mark.parametrize("customer_id", [ERASED, ODD])
def test_an_erased_customer_is_nowhere(
    customer_id: str, client: TestClient, freshness: Freshness, workspace: Workspace
) -> None:
    """No file of the home and no answer has the id or the address any more, and the report says where they were."""
    others = scores_of(workspace).query("customer_id != @customer_id").reset_index(drop=True)
    stamps, filed = made_from(workspace), bentoml.get_current_service().answers.current().filed
    path = f"/v1/customers/{quote(customer_id, safe='')}"
    assert len(files_with(workspace.home_path, customer_id)) > 20
    assert filed.scores([customer_id])
    answer = client.delete(path)
    assert answer.status_code == 200, answer.text
    assert places_of(answer.json()["found"]) == set(FAMILIES)
    assert files_with(workspace.home_path, customer_id) == set()
    assert files_with(workspace.home_path, email(customer_id)) == set()
    assert [client.get(f"{path}{tail}").status_code for tail in ("", "/data")] == [404, 404]
    assert filed.scores([customer_id]) == filed.offers([customer_id]) == {}
    asked = client.post("/v1/scores", json={"customer_ids": ["c0213", "nobody"]}).json()["scores"]
    assert asked[0]["churn_model"] == others["churn_model"][0]
    # Everybody else's files are what they were, and made from the same: nothing is to be computed or trained again.
    pd.testing.assert_frame_equal(scores_of(workspace), others)
    assert made_from(workspace) == stamps
    assert client.delete(path).json() == answer.json()


def test_no_event_brings_an_erased_customer_back(
    client: TestClient, freshness: Freshness, workspace: Workspace
) -> None:
    """Another event of an erased customer is refused as a whole request, and those that were shown are not again."""
    assert client.delete(f"/v1/customers/{WALK_IN}").json()["found"].keys() >= {"online store"}
    answer = client.post(
        "/v1/events", json={"purchases": [purchase("refused-1", SHOWN), purchase("refused-2", WALK_IN)]}
    )
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "erased_customer")
    assert answer.json()["error"]["details"] == {"ids": [WALK_IN]}
    assert client.put(f"/v1/customers/{WALK_IN}/consent", json={"marketing": True}).status_code == 404
    events.show_again(workspace)
    freshness.catch_up()
    assert online_ids(workspace, SHOWN) == {SHOWN}
    assert online_ids(workspace, WALK_IN) == set()
    assert files_with(workspace.home_path, WALK_IN) == files_with(workspace.home_path, "refused-1") == set()


def test_who_is_erased_while_features_are_computed_stays_away(
    client: TestClient, freshness: Freshness, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A vector that was computed before the erasure is not pushed after it."""
    freshness.catch_up()  # has then opened what it computes with
    client.post("/v1/events", json={"purchases": [purchase("y1", "c0281"), purchase("y2", "c0282")]})
    compute = FreshFeatures.vectors

    def erasing(*of: Any) -> Any:
        computed = compute(*of)
        erasure.erase(workspace, retrieval.open_store(workspace), ["c0281"])
        return computed

    with monkeypatch.context() as patch:
        patch.setattr(FreshFeatures, "vectors", erasing)
        freshness.catch_up()
    assert online_ids(workspace, "c0281") == set()
    assert client.get("/v1/customers/c0282").json()["as_of"] == str(AS_OF + timedelta(days=1))


def test_events_in_postgresql_are_shown_and_erased(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kept in a database server, events are held, counted and deleted like everything else; others' stay."""
    monkeypatch.setenv("PGPASS", "hush")
    with schema_for("erasure") as engine:
        schema = engine.get_execution_options()["schema"]
        address = f"{ADDRESS}?options=-csearch_path%3D{schema}".replace(":hush", ":${PGPASS}")
        elsewhere = workspace.model_copy(update={"events": address})
        inbox = Inbox(elsewhere, set)
        inbox.accept(EventsRequest(purchases=[Purchase(**purchase(f"p{one}", one)) for one in ("c0291", "c0292")]), NOW)
        store = retrieval.open_store(elsewhere)
        (held,) = erasure.held(elsewhere, store, "c0291")["store of events"]
        assert held["event_id"] == "pc0291"
        assert erasure.erase(elsewhere, store, ["c0291"])["c0291"]["store of events"] == 1
        assert inbox._opened().customers() == {"c0292"}
        inbox._opened().close()


def test_to_look_for_customers_costs_no_other_its_lock(workspace: Workspace, tmp_path: Path) -> None:
    """A process that closes a file loses its locks on it: another one wrote over events that were just accepted."""
    path = tmp_path / "held.db"
    holder = storage.database(path, "CREATE TABLE IF NOT EXISTS held (customer_id TEXT)")
    holder.execute("INSERT INTO held VALUES ('c0001')")
    holder.commit()
    (tmp_path / "counter_1.db").write_bytes(bytes(64))
    holder.execute("BEGIN IMMEDIATE")
    there, store = workspace.model_copy(update={"home": str(tmp_path)}), retrieval.open_store(workspace)
    assert erasure.held(there, store, "c0001") == {"held.db:held": [{"customer_id": "c0001"}]}
    other = "import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=0).execute('BEGIN IMMEDIATE')"
    done = subprocess.run([sys.executable, "-c", other, str(path)], capture_output=True, text=True, check=False)
    holder.close()
    assert "database is locked" in done.stderr


def test_an_erasure_that_was_killed_goes_on(workspace: Workspace) -> None:
    """Cut off after any file, it is finished when it is asked for again, and the report is the whole one."""
    customer_id, store, left = "c0231", retrieval.open_store(workspace), 0
    everything = {place: len(rows) for place, rows in erasure.held(workspace, store, customer_id).items()}

    def kill(_: str) -> None:
        nonlocal left
        left -= 1
        if not left:
            raise KeyboardInterrupt

    for stop in (1, 5, 9):
        left = stop
        with pytest.raises(KeyboardInterrupt):
            erasure.erase(workspace, store, [customer_id], kill)
        assert files_with(workspace.home_path, customer_id)
    assert erasure.erase(workspace, store, [customer_id]) == {customer_id: everything}
    assert files_with(workspace.home_path, customer_id) == set()
    marks = privacy.erased(workspace.home_path)
    assert all(noted["done"] for noted in marks.values())


def test_a_draft_that_a_killed_service_left_goes_too(workspace: Workspace) -> None:
    """A part of the prediction log that was never finished may have the customer in it."""
    part = workspace.home_path / "predictions" / "2024-03-01" / "part.parquet"
    part.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame({"customer_id": ["c0233"]}).to_parquet(part, compression=None)
    draft = part.rename(part.with_suffix(".draft"))
    assert str(draft.relative_to(workspace.home_path)) in files_with(workspace.home_path, "c0233")
    erasure.erase(workspace, retrieval.open_store(workspace), ["c0233"])
    assert files_with(workspace.home_path, "c0233") == set()


def test_several_are_erased_in_one_go_or_none(workspace: Workspace) -> None:
    """A misspelt id stops it before anybody is erased; both known ones are then, and each is told where."""
    store = retrieval.open_store(workspace)
    with pytest.raises(UnknownCustomer, match="nobody"):
        erasure.erase(workspace, store, ["c0241", "nobody"])
    assert files_with(workspace.home_path, "c0241")
    erased = erasure.erase(workspace, store, ["c0241", "c0242"])
    said_nothing = {*FAMILIES} - {"events/events.db", "events/transactions", "consents.db"}
    assert places_of(erased["c0241"]) == places_of(erased["c0242"]) == said_nothing
    assert files_with(workspace.home_path, "c0241") | files_with(workspace.home_path, "c0242") == set()


def test_what_was_published_still_answers(workspace: Workspace) -> None:
    """The publication's notes agree with what is in the store, so publishing again writes nothing."""
    store, said = retrieval.open_store(workspace), []
    erasure.erase(workspace, store, ["c0251"])
    publication = publications.published(workspace.home_path)
    assert publication is not None
    assert publication.customers == len(retrieval.customers_at(workspace, AS_OF))
    answers = score_rows.beside_vectors_of(workspace, registry.client, AS_OF)
    online.publish(store, workspace, AS_OF, said.append, answers)
    assert said == [f"features of {AS_OF} are online already"]


def test_the_last_customer_may_be_erased(workspace: Workspace) -> None:
    """By whom an empty store is told: a service that has not heard of it yet goes on answering."""
    store, before = retrieval.open_store(workspace), publications.published(workspace.home_path)
    assert before is not None
    erasure.erase(workspace, store, [before.last_customer])
    assert online.online_rows(store, workspace, before, ["nobody"]) == {}


def listed(client: TestClient) -> set[str]:
    rows = client.get("/v1/lists/churn-risk?top=100000&reasons=false").json()
    return {row["customer_id"] for row in rows}


def test_an_erasure_waits_while_a_command_is_at_work(client: TestClient, workspace: Workspace, tmp_path: Path) -> None:
    """A run may be writing what is to be erased: 202, and a job. Who waits is at once in no answer; then it is done."""
    customer_id = next(iter(listed(client) - {SHOWN, ERASED}))
    path, privately = f"/v1/customers/{quote(customer_id, safe='')}", "/secret/place, process 4711 of root on box"
    with storage.locked(workspace.home_path, privately):
        answer = client.delete(path)
        assert (answer.status_code, answer.json()["erased_at"]) == (202, None)
        assert not [text for text in ("secret", "4711", "box", str(workspace.home_path)) if text in answer.text]
        assert client.delete(path).json() == answer.json()
        assert client.delete("/v1/customers/nobody").status_code == 404
        job = answer.headers["location"]
        assert client.get(job).json() == answer.json()
        erasure.carry_out(workspace, lambda: NOW)  # cannot yet
        assert files_with(workspace.home_path, customer_id)
        with answering_from(workspace.home_path):  # a service that is started meanwhile
            asked = [client.get(path), client.get(path.replace("customers", "offers"))]
            asked += [client.post("/v1/scores", json={"customer_ids": [customer_id]})]
            asked += [client.put(f"{path}/consent", json={"marketing": True})]
            assert [one.status_code for one in asked] == [404] * len(asked)
            held = client.get(f"{path}/data")
            assert (held.status_code, held.json()["error"]["code"]) == (409, "erasure_waits")
            assert "nothing is held" not in held.text
            assert held.json()["error"]["details"] == {"customer_id": customer_id, "erasure_id": job.split("/")[-1]}
            refused = client.post("/v1/events", json={"purchases": [purchase("waits-1", customer_id)]})
            assert refused.json()["error"]["code"] == "erased_customer"
            assert customer_id not in listed(client)
        for what in ("scores", "offers", "features"):
            exports.export(workspace, what, None, tmp_path / f"{what}.parquet", unproven_offers=True)
        assert files_with(tmp_path, customer_id) == set()
        with pytest.raises(CheckFailed, match=f"^{re.escape(customer_id)} was asked to be erased, .* nothing is shown"):
            Shop(workspace).customer(customer_id)
    erasure.carry_out(workspace, lambda: NOW)
    done = client.get(job).json()
    assert (done["erased_at"], done["erasure_id"]) == (NOW.isoformat(), answer.json()["erasure_id"])
    assert client.delete(path).json()["found"] == done["found"]
    assert sum(done["found"].values()) > 10
    assert files_with(workspace.home_path, customer_id) == set()
    assert client.get("/v1/erasures/another").json()["error"]["code"] == "unknown_erasure"


def test_the_next_command_erases_who_waits(
    workspace: Workspace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before it does anything else; without the privacy key it says who wait, and goes on."""
    queue = ErasureQueue(workspace.home_path)
    job = queue.put("c0262", NOW)
    with monkeypatch.context() as patch:
        patch.delenv("PERENNIAL_PRIVACY_KEY")
        with alone(workspace, "a test"):
            assert files_with(workspace.home_path, "c0262")
    assert (
        "customers wait to be erased, who are in no answer meanwhile: PERENNIAL_PRIVACY_KEY" in capsys.readouterr().err
    )
    with alone(workspace, "a test"):
        assert files_with(workspace.home_path, "c0262") == set()
    assert "1 customers who waited for it are erased" in capsys.readouterr().err
    done = queue.job(job.erasure_id)
    assert done is not None
    assert done.found


def test_the_service_erases_who_waits(
    client: TestClient, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By itself, once the home is free."""
    job = ErasureQueue(workspace.home_path).put("c0265", NOW)
    monkeypatch.setattr(erasure_queue, "SECONDS", 0.01)

    async def watched() -> None:
        looking = asyncio.create_task(bentoml.get_current_service()._erase())
        async with asyncio.timeout(60):
            while client.get(f"/v1/erasures/{job.erasure_id}").json()["erased_at"] is None:
                await asyncio.sleep(0.05)
        looking.cancel()

    asyncio.run(watched())
    assert files_with(workspace.home_path, "c0265") == set()


def test_what_is_asked_while_another_erasure_is_under_way_is_not_forgotten(workspace: Workspace) -> None:
    """Both are known as erased when it has ended, whoever wrote the note last."""
    queue, marks = ErasureQueue(workspace.home_path), set(privacy.erased(workspace.home_path))

    def meanwhile(_: str) -> None:
        queue.put("c0264", NOW)

    erasure.erase(workspace, retrieval.open_store(workspace), ["c0263"], meanwhile)
    assert len(set(privacy.erased(workspace.home_path)) - marks) == 2
    erasure.carry_out(workspace, lambda: NOW)
    assert files_with(workspace.home_path, "c0264") == set()


def test_without_the_privacy_key_nobody_is_erased(
    client: TestClient, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No mark could be left behind, and the next ingest would bring the customer back."""
    monkeypatch.delenv("PERENNIAL_PRIVACY_KEY")
    answer = client.delete("/v1/customers/c0261")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "no_privacy_key")
    assert files_with(workspace.home_path, "c0261")


def test_redis_forgets_too(workspace: Workspace) -> None:
    """With the features in Redis their rows are counted, shown and gone; the next customer's are there."""
    with redis_for(workspace.name) as address:
        elsewhere = workspace.model_copy(update={"online": address})
        store = retrieval.apply(elsewhere)
        publish(store, elsewhere, AS_OF)
        publication = publications.published(workspace.home_path)
        assert publication is not None
        # One in Redis, two in the SQLite file where both publications before it still lie.
        assert erasure.erase(elsewhere, store, ["c0271"])["c0271"]["online store"] == 1 + 2
        assert set(online.online_rows(store, elsewhere, publication, ["c0271", "c0272"])) == {"c0272"}
        assert set(online.answers(store, publication, ["c0271", "c0272"])) == {"c0272"}


def test_models_and_runs_never_knew_anybody(shop: Any, workspace: Workspace) -> None:
    """No artifact, parameter or tag of MLflow and no feature has an id, an address or a telephone number."""
    runs = Path(shop.tracking_uri.removeprefix("sqlite:///")).parent
    for text in ("c0212", "example.com", "+49 30"):
        assert files_with(runs, text) == set()
    names = {feature.name for family in snapshot.KEYS for feature in snapshot.features_of(family, workspace)}
    assert not names & {*workspace.pii}
    assert "example.com" not in json.dumps(storage.read_json(workspace.home_path / "workspace.json"))


def test_who_was_erased_is_not_taken_in_again(client: TestClient, workspace: Workspace) -> None:
    """The shop's files still have the customer; read again, they bring nobody back, and the account adds up. Last."""
    customer_id = "c0221"
    events.hand_over(workspace)
    client.post("/v1/events", json={"purchases": [purchase("z1", customer_id)]})
    intake.ingest(workspace, NOW)  # from a file of its own, with nobody else in it
    client.delete(f"/v1/customers/{customer_id}")
    at_once = {account.table: account for account in intake.ingest(workspace, NOW)}
    for file in workspace.home_path.parent.glob("transactions.parquet"):
        lines = pd.read_parquet(file)
        pd.concat([lines, lines.tail(1).assign(amount=3.0)]).to_parquet(file, index=False)
    again = {account.table: account for account in intake.ingest(workspace, NOW)}
    for accounts in (at_once, again):
        for account in accounts.values():
            assert account.read == account.accepted + sum(account.quarantined.values())
        assert accounts["customers"].quarantined["erased customer"] >= 1
        assert accounts["customers"].accepted < CUSTOMERS
    assert again["transactions"].accepted == at_once["transactions"].accepted + 1
    assert files_with(workspace.home_path, customer_id) == set()
    day = date(2023, 6, 30)
    snapshot.snapshot(workspace, [day])
    assert customer_id not in set(retrieval.customers_at(workspace, day))
    # Read anew by other rules, the files of events are, in which nobody may be left.
    intake.ingest(workspace.model_copy(update={"timezone": "Asia/Tokyo"}), NOW)
    assert files_with(workspace.home_path, customer_id) == set()
