"""Consents said over HTTP: at once in the service, in the next batch, and until the shop's table knows better."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from private_shop import NOW, answering_from, private_shop, scores_of
from starlette.testclient import TestClient
from workspaces import AS_OF, NO_MARKETING, NO_PROFILING, scored

from features import online, retrieval
from ingest import intake
from serving import scoring
from serving.consent import Consents
from serving.lists import churn_risk, exports
from serving.predictor import NO_CONSENT, Predictor
from workspace import registry, storage
from workspace.settings import Workspace

BEARER = {"Authorization": "Bearer a-secret"}


@pytest.fixture(scope="module")
def workspace(shop: Any, environment: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return private_shop(shop.workspace, tmp_path_factory.mktemp("consents") / "shop")


@pytest.fixture(scope="module")
def client(app: Any, workspace: Workspace) -> Iterator[TestClient]:
    with TestClient(app, headers=BEARER) as client, answering_from(workspace.home_path):
        yield client


@pytest.fixture(autouse=True)
def nothing_said(workspace: Workspace) -> None:
    path = workspace.home_path / "consents.db"
    if path.exists():
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("DELETE FROM consents")


def say(client: TestClient, customer_id: str, **said: Any) -> Any:
    return client.put(f"/v1/customers/{customer_id}/consent", json=said)


def score(client: TestClient, customer_id: str) -> dict[str, Any]:
    (row,) = client.post("/v1/scores", json={"customer_ids": [customer_id], "offers": True}).json()["scores"]
    return dict(row)


def listed(client: TestClient) -> set[str]:
    return {row["customer_id"] for row in client.get("/v1/lists/churn-risk?top=1000").json()}


def first_listed(client: TestClient) -> str:
    return str(client.get("/v1/lists/churn-risk?top=1").json()[0]["customer_id"])


def test_withdrawn_profiling_counts_at_once(client: TestClient, workspace: Workspace, tmp_path: Path) -> None:
    """The next score has no number and says why; card, offers, lists and exports are without the customer."""
    customer_id = first_listed(client)
    assert score(client, customer_id)["offers"] == client.get(f"/v1/offers/{customer_id}").json()["offers"] != []
    answer = say(client, customer_id, profiling=False)
    assert answer.status_code == 200
    row = score(client, customer_id)
    assert (row["not_scored_reason"], row["churn_probability"], row["lifetime_value"]) == (NO_CONSENT, None, None)
    assert row["offers"] == client.get(f"/v1/offers/{customer_id}").json()["offers"] == []
    card = client.get(f"/v1/customers/{customer_id}").json()
    assert (card["habits"], card["history"], card["reasons"], card["offers"]) == (None, None, [], [])
    assert card["consents"]["profiling"] is False
    assert customer_id not in listed(client)
    exports.export(workspace, "offers", AS_OF, tmp_path / "offers.parquet", unproven_offers=True)
    exports.export(workspace, "scores", AS_OF, tmp_path / "scores.parquet")
    assert customer_id not in set(pd.read_parquet(tmp_path / "offers.parquet")["customer_id"])
    scores = pd.read_parquet(tmp_path / "scores.parquet").set_index("customer_id")
    assert scores.loc[customer_id, "not_scored_reason"] == NO_CONSENT
    assert scores.loc[customer_id, ["churn_probability", "churn_band", "value_at_risk"]].isna().all()
    others = scores_of(workspace).set_index("customer_id").drop(customer_id)
    pd.testing.assert_frame_equal(scores.drop(customer_id)[others.columns], others)


def test_it_counts_while_the_online_store_is_away(client: TestClient, workspace: Workspace) -> None:
    """What the last batch wrote is not shown of who withdrew the consent since."""
    customer_id, other = first_listed(client), "c0203"
    say(client, customer_id, profiling=False)
    with answering_from(workspace.home_path) as answers, pytest.MonkeyPatch.context() as patch:
        patch.setattr(answers, "_store_down_until", float("inf"))
        row, shown = score(client, customer_id), score(client, other)
        card = client.get(f"/v1/customers/{customer_id}").json()
    assert (row["stale"], row["not_scored_reason"], row["lifetime_value"], row["offers"]) == (
        True,
        NO_CONSENT,
        None,
        [],
    )
    assert (card["scores"]["churn_probability"], card["consents"]["profiling"]) == (None, False)
    assert shown["stale"]
    assert shown["lifetime_value"] is not None


def test_given_profiling_counts_at_once(client: TestClient) -> None:
    """Who had refused and now agrees is scored by the next request."""
    customer_id = f"c{NO_PROFILING[3]:04}"
    assert score(client, customer_id)["not_scored_reason"] == NO_CONSENT
    say(client, customer_id, profiling=True)
    assert score(client, customer_id)["not_scored_reason"] != NO_CONSENT


def test_marketing_counts_at_once_in_lists_alone(client: TestClient, workspace: Workspace) -> None:
    """Withdrawn, the customer leaves the list and is scored as before; given, one who was never listed is."""
    customer_id = first_listed(client)
    before = score(client, customer_id)
    say(client, customer_id, marketing=False)
    assert customer_id not in listed(client)
    assert score(client, customer_id) == before
    assert client.get(f"/v1/customers/{customer_id}").json()["consents"] == {"profiling": True, "marketing": False}
    scores = scores_of(workspace)
    refused = {f"c{number:04}" for number in NO_MARKETING}
    other = scores[scores["customer_id"].isin(refused) & scores["not_scored_reason"].isna()]["customer_id"].iloc[0]
    say(client, other, marketing=True)
    assert other in listed(client)


def test_the_next_batch_heeds_it(client: TestClient, workspace: Workspace) -> None:
    """Scores that were there are not current any more; written again they lack the customer, and so do the offers."""
    predictor = Predictor.load(workspace, registry.client())
    scoring.score(predictor, AS_OF)
    assert scoring.is_current(predictor, AS_OF)
    customer_id = first_listed(client)
    Consents(workspace.home_path).put(customer_id, {"profiling": False}, NOW)
    assert not scoring.is_current(predictor, AS_OF)
    scores = scored(predictor, AS_OF).set_index("customer_id")
    assert scores.loc[customer_id, "not_scored_reason"] == NO_CONSENT
    assert np.isnan(scores.loc[customer_id, "lifetime_value"])
    assert customer_id not in set(pd.read_parquet(storage.offers_path(workspace.home_path, AS_OF))["customer_id"])
    online.publish(retrieval.open_store(workspace), workspace, AS_OF)


@pytest.mark.parametrize(
    ("recorded_at", "granted"), [(None, False), ("2025-03-01", False), ("2025-03-03", True)],
    ids=["the table does not say when", "the table is older", "the table is later"],
)  # fmt: skip
def test_the_later_word_counts(recorded_at: str | None, granted: bool, workspace: Workspace, tmp_path: Path) -> None:
    """What was said on 2 March stands against any export but one that says when, and says later."""
    consents = Consents(workspace.home_path)
    consents.put("c0100", {"marketing": False}, datetime(2025, 3, 2, tzinfo=UTC))
    path = Path((workspace.tables.customers.path or ("",))[0])  # type: ignore[union-attr]
    customers = pd.read_csv(path, dtype=str).assign(consent_recorded_at=recorded_at)
    customers.to_csv(path, index=False)
    intake.ingest(workspace, NOW)
    assert consents.catch_up(workspace) == int(granted)
    assert consents.of("marketing", ["c0100"]) == {"c0100": granted}


def test_it_outlives_the_service(client: TestClient, workspace: Workspace) -> None:
    """Another service on the same home, and the command line's list, know what was said."""
    customer_id = first_listed(client)
    say(client, customer_id, profiling=False)
    with answering_from(workspace.home_path):
        assert score(client, customer_id)["not_scored_reason"] == NO_CONSENT
    rows = churn_risk.churn_risk(Predictor.load(workspace, registry.client()), AS_OF, top=1000)
    assert customer_id not in set(rows["customer_id"])


@pytest.mark.parametrize(
    ("body", "problem"),
    [({}, "say `marketing` or `profiling`"), ({"marketing": None}, "say `marketing`"), ({"profiling": "no"}, "boolean"),
     ({"marketing": 1}, "boolean"), ({"phone": False}, "no such key"), ([], "object")],
)  # fmt: skip
def test_half_a_word_is_refused(body: Any, problem: str, client: TestClient, workspace: Workspace) -> None:
    """Nothing said, not a boolean, another key: 400 with the reason, and nothing is kept."""
    answer = client.put("/v1/customers/c0200/consent", json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "malformed")
    assert problem in answer.json()["error"]["message"]
    said = Consents(workspace.home_path)
    assert said.everybody("marketing") == said.everybody("profiling") == {}
