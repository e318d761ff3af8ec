"""What is published beside the vectors: the very answers that would be computed, and none that would be others."""

from __future__ import annotations

import pickle
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import bentoml
import numpy as np
import pandas as pd
import pytest
from starlette.testclient import TestClient
from workspaces import AS_OF, NEVER_BOUGHT, NO_PROFILING, publish

from features import online, publications, retrieval, snapshot
from features.online import Row
from serving import score_rows, scoring
from serving.http.answers import Answers
from serving.norms import Norms
from serving.predictor import NO_CONSENT, Predictor
from tests.serving.conftest import KEY, NOW
from workspace import predictions, registry, settings, storage
from workspace.settings import Service, Workspace

BUYER, OTHER = "c0200", "c0201"


@pytest.fixture(scope="module")
def client(app: Any, environment: pytest.MonkeyPatch) -> Iterator[TestClient]:
    with TestClient(app, headers={"Authorization": f"Bearer {KEY}"}) as client:
        yield client


@pytest.fixture
def workspace(shop: Any, environment: pytest.MonkeyPatch, tmp_path: Path) -> Workspace:
    """The shop in a copy of its home, to change, without what other tests were answered."""
    home = shutil.copytree(shop.workspace.home_path, tmp_path / "home", ignore=shutil.ignore_patterns("predictions"))
    return settings.parse({**storage.read_json(home / "workspace.json"), "home": str(home)}, "copy")


@contextmanager
def answering(workspace: Workspace) -> Iterator[Answers]:
    """The running service as if it had been started on this home."""
    running = bentoml.get_current_service()
    before, running.answers = running.answers, Answers(workspace.home_path, lambda: NOW, Service())
    try:
        yield running.answers
    finally:
        running.answers = before


def asked(client: TestClient, customer_ids: list[str], **more: Any) -> dict[str, dict[str, Any]]:
    answer = client.post("/v1/scores", json={"customer_ids": customer_ids, **more})
    assert answer.status_code == 200, answer.text
    return {row["customer_id"]: row for row in answer.json()["scores"]}


def computing(workspace: Workspace) -> Any:
    """The same service as if nothing lay beside the vectors, as in a home that an earlier version published."""
    note = publications.published_path(workspace.home_path)
    storage.write_json(note, {**storage.read_json(note), "answers": None})
    return answering(workspace)


def everybody(workspace: Workspace) -> list[str]:
    return pd.read_parquet(storage.scores_path(workspace.home_path, AS_OF))["customer_id"].tolist()


def assert_alike(rows: dict[str, dict[str, Any]], expected: dict[str, dict[str, Any]]) -> None:
    """Names in the same order, numbers within 1e-9 of each other, everything else the same."""
    assert list(rows) == list(expected)
    for customer_id, row in rows.items():
        assert list(row) == list(expected[customer_id]), customer_id
        for name, value in row.items():
            other = expected[customer_id][name]
            assert value == (pytest.approx(other, abs=1e-9) if isinstance(other, float) else other), (customer_id, name)


@pytest.mark.parametrize("more", [{}, {"explain": True}, {"offers": True}, {"explain": True, "offers": True}])
def test_a_published_answer_is_what_would_be_computed(
    client: TestClient, workspace: Workspace, more: dict[str, bool]
) -> None:
    """Of every customer, scored or not, with reasons and offers and without."""
    customer_ids = everybody(workspace)
    with answering(workspace) as answers:
        assert answers.current().has_answers
        published = asked(client, customer_ids, **more)
    with computing(workspace) as answers:
        assert not answers.current().has_answers
        assert_alike(published, asked(client, customer_ids, **more))
    assert {row["not_scored_reason"] for row in published.values()} > {None, NO_CONSENT}


def test_the_card_is_the_same_too(client: TestClient, workspace: Workspace) -> None:
    """Of a buyer, of who refused profiling, of who never bought."""
    paths = [f"/v1/customers/{one}" for one in (BUYER, f"c{NO_PROFILING[0]:04}", f"c{NEVER_BOUGHT[0]:04}")]
    with answering(workspace):
        cards = [client.get(path).json() for path in paths]
    with computing(workspace):
        assert cards == [client.get(path).json() for path in paths]
    assert cards[0]["reasons"] or cards[0]["offers"]


def overwrite(workspace: Workspace, customer_id: str, text: bytes) -> None:
    """Puts another answer beside a customer's vector."""
    store, published = retrieval.open_store(workspace), publications.published(workspace.home_path)
    assert published is not None
    row = online.online_rows(store, workspace, published, [customer_id])[customer_id]
    frame = pd.DataFrame({"customer_id": [customer_id], "as_of": pd.Timestamp(AS_OF, tz="UTC"),
                          "vector": [row.vector.tolist()], "answer": [text]})  # fmt: skip
    store.push(publications.push_source(published), frame)


def test_nothing_is_computed_that_was_published(client: TestClient, workspace: Workspace) -> None:
    """What lies beside the vector is passed on as it is; over another horizon it is not even looked at."""
    with answering(workspace):
        before = asked(client, [BUYER], horizon=30)
        overwrite(workspace, BUYER, b'{"customer_id":"c0200","not_scored_reason":null}\n["because"]\n[]')
        assert asked(client, [BUYER], explain=True) == {
            BUYER: {"customer_id": BUYER, "not_scored_reason": None, "reasons": ["because"]}
        }
        assert asked(client, [BUYER], horizon=30) == before


def test_the_list_tells_the_reasons_that_were_published(client: TestClient, workspace: Workspace) -> None:
    """As they are, and they are what would be worked out; those of the value, which are not published, always are."""
    path = "/v1/lists/churn-risk?top=1000"
    with answering(workspace):
        published = client.get(path).json()
        told = f'{{"customer_id":"{published[0]["customer_id"]}"}}\n["because","indeed"]\n[]'
        overwrite(workspace, published[0]["customer_id"], told.encode())
        overwrite(workspace, published[1]["customer_id"], b"")
        again = client.get(path).json()
    with computing(workspace):
        assert client.get(path).json() == published
    assert any(row["reasons"] for row in published)
    assert again == [{**published[0], "reasons": "because. indeed"}, *published[1:]]


def test_after_an_event_the_customers_own_answer_is_computed(client: TestClient, workspace: Workspace) -> None:
    """From the vector that was pushed, as of its own day; the others' are as they were published."""
    store, published = retrieval.open_store(workspace), publications.published(workspace.home_path)
    assert published is not None
    with answering(workspace):
        before = asked(client, [BUYER, OTHER], explain=True)
        rows = online.online_rows(store, workspace, published, [BUYER, OTHER])
        online.push(store, workspace, published, {BUYER: Row(rows[OTHER].vector, AS_OF + timedelta(days=1))})
        after = asked(client, [BUYER, OTHER], explain=True)
    same = {**before[OTHER], "customer_id": BUYER, "as_of": str(AS_OF + timedelta(days=1))}
    assert_alike(after, {BUYER: same, OTHER: before[OTHER]})


def test_a_consent_that_is_withdrawn_or_given_counts_at_once(client: TestClient, workspace: Workspace) -> None:
    """Published or not: nothing of who withdrew it, numbers for who gives it."""
    refused = f"c{NO_PROFILING[0]:04}"
    with answering(workspace) as answers:
        before = asked(client, [BUYER, refused], explain=True, offers=True)
        answers.consents.put(BUYER, {"profiling": False}, NOW)
        answers.consents.put(refused, {"profiling": True}, NOW)
        after = asked(client, [BUYER, refused], explain=True, offers=True)
        answers.consents.put(BUYER, {"profiling": True}, NOW)
        again = asked(client, [BUYER], explain=True, offers=True)
    gone = after[BUYER]
    assert (gone["churn_probability"], gone["not_scored_reason"]) == (None, NO_CONSENT)
    assert gone["reasons"] == gone["offers"] == []
    assert before[refused]["not_scored_reason"] == NO_CONSENT
    assert after[refused]["not_scored_reason"] != NO_CONSENT
    assert after[refused]["lifetime_value"] is not None
    assert_alike(again, {BUYER: before[BUYER]})


def test_of_who_said_something_nothing_is_published(workspace: Workspace) -> None:
    """Neither numbers of who refused profiling over HTTP, nor what would hold only until they speak again."""
    score_rows.Consents(workspace.home_path).put(BUYER, {"profiling": False}, NOW)
    store = retrieval.open_store(workspace)
    predictor = Predictor.load(workspace, registry.client())
    scoring.score(predictor, AS_OF)
    publish(store, workspace, AS_OF)
    published = publications.published(workspace.home_path)
    assert published is not None
    assert set(online.answers(store, published, [BUYER, OTHER])) == {OTHER}


def test_without_offers_the_vectors_are_published_alone(workspace: Workspace) -> None:
    """Or without scores: there is nothing to answer with beside them."""
    for path in (storage.offers_path, storage.scores_path):
        path(workspace.home_path, AS_OF).unlink()
        assert score_rows.beside_vectors_of(workspace, registry.client, AS_OF) is None


def test_a_promotion_without_a_publication_changes_no_answer(client: TestClient, workspace: Workspace) -> None:
    """What answers is what scored the published day, by the registry or by what the home has kept of it."""
    tracker, name = registry.client(), registry.model_name(workspace, "churn")
    version = str(tracker.get_model_version_by_alias(name, "champion").version)
    for _ in range(2):
        with answering(workspace) as answers:
            assert answers.current().has_answers
            before = asked(client, [BUYER], explain=True)
    tracker.delete_registered_model_alias(name, "champion")
    tracker.set_registered_model_alias(name, "champion", version)
    with answering(workspace) as answers:
        assert answers.current().has_answers
        assert asked(client, [BUYER], explain=True) == before


def test_published_answers_are_logged_as_they_were_given(client: TestClient, workspace: Workspace) -> None:
    """With the days of the models' trainings, each customer once, beside what was computed."""
    with answering(workspace) as answers:
        given = asked(client, [BUYER, OTHER, f"c{NO_PROFILING[0]:04}"], explain=True)
        answers.consents.put(OTHER, {"profiling": True}, NOW)
        asked(client, [OTHER])
        answers.served.flush()
    logged = predictions.read(workspace).query("via == 'scores'").set_index("customer_id")
    assert sorted(logged.index) == [BUYER, OTHER, OTHER]
    for name in ("churn_probability", "lifetime_value", "churn_band", "churn_model"):
        assert set(logged.loc[BUYER:BUYER, name]) == {given[BUYER][name]}
    assert set(logged["churn_trained"].dt.date) == set(logged["lifetime_value_trained"].dt.date) == {AS_OF}
    assert set(logged["as_of"].dt.date) == {AS_OF}


@pytest.mark.parametrize("what", ["settings", "code", "norms", "percentiles"])
def test_what_answers_hang_on_is_looked_at(
    client: TestClient, workspace: Workspace, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Published under other settings, by other code or of other norms they are not used: all is computed."""
    home = workspace.home_path
    if what == "settings":
        kept = storage.read_json(settings.kept(home))
        storage.write_json(settings.kept(home), {**kept, "bands": {"medium": 0.001, "high": 0.002}})
    elif what == "code":
        monkeypatch.setattr(score_rows, "_code", lambda: "the next version")
    elif what == "norms":
        monkeypatch.setattr(score_rows, "norms_of", lambda *_: Norms())
    else:
        storage.write_json(storage.percentiles_path(home, AS_OF), np.linspace(0, 1, 1001).tolist())
    with answering(workspace) as answers:
        assert not answers.current().has_answers
        row = asked(client, [BUYER])[BUYER]
    assert row["churn_probability"] is not None
    assert row["churn_band"] == "high" or what != "settings"


def test_who_is_gone_from_the_store_alone_is_answered_from_the_files(client: TestClient, workspace: Workspace) -> None:
    """Of the others what was published, of the lost one what the last batch wrote, marked so."""
    published = publications.published(workspace.home_path)
    assert published is not None
    with closing(sqlite3.connect(workspace.home_path / "feast" / "online.db")) as connection, connection:
        key = f"%{BUYER}"
        gone = connection.execute(
            f"DELETE FROM small_{published.view} WHERE CAST(entity_key AS TEXT) LIKE ? OR instr(entity_key, ?)",
            (key, BUYER.encode()),
        )
        assert gone.rowcount == 2
    with answering(workspace):
        rows = asked(client, [BUYER, OTHER], offers=True)
    assert {one: row["stale"] for one, row in rows.items()} == {BUYER: True, OTHER: False}
    assert rows[BUYER]["offers"]


def test_another_process_tells_the_same(workspace: Workspace) -> None:
    """What is sent to the processes that answer about many customers makes the very texts, of whom there are any."""
    answers = score_rows.beside_vectors_of(workspace, registry.client, AS_OF)
    assert answers is not None
    rows = retrieval.rows_at(workspace, AS_OF)
    names = [feature.name for feature in snapshot.customer_features(workspace)]
    customers = rows["customer_id"].tolist(), retrieval.matrix(rows, names)
    texts = answers.of(customers)
    assert pickle.loads(pickle.dumps(answers.of))(customers) == texts
    assert sum(map(bool, texts)) == len(rows)
