"""Showing and erasing everything that is held of a customer."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from private_shop import NOW, answering_from, email, files_with, private_shop, scores_of
from redis_server import redis_for
from starlette.testclient import TestClient
from workspaces import AS_OF, CUSTOMERS

from features import online, retrieval, snapshot
from perennial import ingest, privacy, registry, storage
from perennial.settings import Workspace
from serving import erasure, scoring
from serving.erasure import UnknownCustomer
from serving.predictor import Predictor
from training import datasets

BEARER = {"Authorization": "Bearer a-secret"}
# The last of the publication, by whom the service tells an empty online store; an ordinary one; one to be shown.
LAST, ERASED, SHOWN = "Zoë/7 & co", "c0211", "c0212"
FAMILIES = ("tables/customers", "tables/transactions", "days", "snapshots/purchases", "snapshots/profile",
            "snapshots/product_affinity", "scores", "online", "online store", "quarantine", "events")  # fmt: skip


@pytest.fixture(scope="module")
def workspace(
    shop: Any, environment: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Workspace]:
    """The private shop with a bad line of each customer in quarantine, and an event of each in a database."""
    environment.setenv("PERENNIAL_PRIVACY_KEY", "a-privacy-key-of-tests")
    workspace = private_shop(shop.workspace, tmp_path_factory.mktemp("erasures") / "shop")
    folder = workspace.home_path.parent
    lines = pd.read_parquet(folder / "transactions.parquet")
    bad = lines.drop_duplicates("customer_id").assign(customer_id=lambda rows: " " + rows["customer_id"], amount=1e12)
    pd.concat([lines, bad]).to_parquet(folder / "transactions.parquet", index=False)
    ingest.ingest(workspace, NOW)
    snapshot.snapshot(workspace, [*datasets.cutoffs(workspace, AS_OF), AS_OF])
    store = retrieval.apply(workspace)
    scoring.score(Predictor.load(workspace, registry.client()), store, AS_OF)
    online.publish(store, workspace, AS_OF)
    events(workspace, [(customer_id, f"bought by {customer_id}") for customer_id in (LAST, ERASED, SHOWN)])
    yield workspace
    environment.delenv("PERENNIAL_PRIVACY_KEY")


@pytest.fixture(scope="module")
def client(app: Any, workspace: Workspace) -> Iterator[TestClient]:
    with TestClient(app, headers=BEARER) as client, answering_from(workspace.home_path):
        yield client


def events(workspace: Workspace, rows: list[tuple[str, str]]) -> None:
    """A store of another kind, as a service that takes events keeps one: SQLite, its writes in a log beside it."""
    path = workspace.home_path / "events" / "events.db"
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE kept (customer_id TEXT, body TEXT)")
        connection.executemany("INSERT INTO kept VALUES (?, ?)", rows)


def places_of(found: dict[str, Any]) -> set[str]:
    return {family for family in FAMILIES if any(place.startswith(family) for place in found)}


def made_from(workspace: Workspace) -> dict[str, str | None]:
    """What snapshots and scores say that they were made from."""
    parts = {str(part): snapshot.stamp_of(part) for part in (workspace.home_path / "snapshots").glob("*/[0-9]*")}
    return parts | {"data": snapshot.fingerprint(workspace)}


def test_everything_held_is_shown(client: TestClient, workspace: Workspace) -> None:
    """Tables with contact data in the clear, snapshots, scores, offers, vectors, events and reads; only of the one."""
    client.get(f"/v1/customers/{SHOWN}")
    answer = client.get(f"/v1/customers/{SHOWN}/data").json()
    assert places_of(answer["held"]) == set(FAMILIES)
    assert [line["what"] for line in answer["audit"]] == ["GET /customers/{customer_id:path}"]
    customers = next(rows for place, rows in answer["held"].items() if place.startswith("tables/customers"))
    assert [row["email"] for row in customers] == [email(SHOWN)]
    named = {row["customer_id"].strip() for rows in answer["held"].values() for row in rows if "customer_id" in row}
    assert named == {SHOWN}
    vector = answer["held"]["online store"][0]
    assert vector["tenure_days"] == online.online_vectors(
        retrieval.open_store(workspace), online.published(workspace.home_path), [SHOWN]  # type: ignore[arg-type]
    )[SHOWN][vector_place("tenure_days", workspace)]  # fmt: skip


def vector_place(name: str, workspace: Workspace) -> int:
    return [feature.name for feature in snapshot.customer_features(workspace)].index(name)


@pytest.mark.parametrize("customer_id", [ERASED, LAST])
def test_an_erased_customer_is_nowhere(customer_id: str, client: TestClient, workspace: Workspace) -> None:
    """No file of the home and no answer has the id or the address any more, and the report says where they were."""
    others = scores_of(workspace).query("customer_id != @customer_id").reset_index(drop=True)
    stamps = made_from(workspace)
    assert len(files_with(workspace.home_path, customer_id)) > 20
    answer = client.delete(f"/v1/customers/{customer_id}")
    assert answer.status_code == 200, answer.text
    assert places_of(answer.json()["found"]) == set(FAMILIES)
    assert files_with(workspace.home_path, customer_id) == set()
    assert files_with(workspace.home_path, email(customer_id)) == set()
    assert client.get(f"/v1/customers/{customer_id}").status_code == 404
    assert client.get(f"/v1/customers/{customer_id}/data").status_code == 404
    asked = client.post("/v1/scores", json={"customer_ids": ["c0213", "nobody"]}).json()["scores"]
    assert asked[0]["churn_model"] == others["churn_model"][0]
    # Everybody else's files are what they were, and made from the same: nothing is to be computed or trained again.
    pd.testing.assert_frame_equal(scores_of(workspace), others)
    assert made_from(workspace) == stamps
    assert client.delete(f"/v1/customers/{customer_id}").json() == answer.json()


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


def test_several_are_erased_in_one_go_or_none(workspace: Workspace) -> None:
    """A misspelt id stops it before anybody is erased; both known ones are then, and each is told where."""
    store = retrieval.open_store(workspace)
    with pytest.raises(UnknownCustomer, match="nobody"):
        erasure.erase(workspace, store, ["c0241", "nobody"])
    assert files_with(workspace.home_path, "c0241")
    found = erasure.erase(workspace, store, ["c0241", "c0242"])
    assert places_of(found["c0241"]) == places_of(found["c0242"]) == {*FAMILIES} - {"events"}
    assert files_with(workspace.home_path, "c0241") | files_with(workspace.home_path, "c0242") == set()


def test_what_was_published_still_answers(workspace: Workspace) -> None:
    """The publication's notes agree with what is in the store, so publishing again writes nothing."""
    store, said = retrieval.open_store(workspace), []
    erasure.erase(workspace, store, ["c0251"])
    publication = online.published(workspace.home_path)
    assert publication is not None
    assert publication.customers == len(retrieval.customers_at(workspace, AS_OF))
    online.publish(store, workspace, AS_OF, said.append)
    assert said == [f"features of {AS_OF} are online already"]


def test_nothing_is_erased_while_a_command_is_at_work(client: TestClient, workspace: Workspace) -> None:
    """A run may be writing what is to be erased: 503, when to try again, and nothing is changed."""
    with storage.locked(workspace.home_path):
        answer = client.delete("/v1/customers/c0261")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "in_use")
    assert int(answer.headers["retry-after"]) > 0
    assert client.get("/v1/customers/c0261").status_code == 200


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
        online.publish(store, elsewhere, AS_OF)
        publication = online.published(workspace.home_path)
        assert publication is not None
        assert erasure.erase(elsewhere, store, ["c0271"])["c0271"]["online store"] == 1
        assert set(online.online_vectors(store, publication, ["c0271", "c0272"])) == {"c0272"}


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
    client.delete(f"/v1/customers/{customer_id}")
    at_once = {account.table: account for account in ingest.ingest(workspace, NOW)}
    for file in workspace.home_path.parent.glob("transactions.parquet"):
        lines = pd.read_parquet(file)
        pd.concat([lines, lines.tail(1).assign(amount=3.0)]).to_parquet(file, index=False)
    again = {account.table: account for account in ingest.ingest(workspace, NOW)}
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
