"""The whole line over combinations of the optional tables: only `transactions` is required."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import bentoml
import numpy as np
import pandas as pd
import pytest
from registries import new_registry
from starlette.testclient import TestClient
from workspaces import scored

from features import online, publications, retrieval, snapshot
from ingest import intake
from monitoring import drift
from monitoring.campaigns import response
from monitoring.outcomes import outcomes
from serving.freshness import Freshness
from serving.http.answers import Answers
from serving.http.event_inbox import Inbox
from serving.lists import churn_risk
from serving.predictor import Predictor
from tests.serving.conftest import KEY, NOW
from training import pipelines
from training.check import data_check
from training.gate import promotion
from workspace import registry, settings
from workspace.settings import Service, Workspace
from workspace.storage import CheckFailed

AS_OF = NOW.date()
TOMORROW = AS_OF + timedelta(days=1)
OPTIONAL = ("interactions", "customers", "products", "campaigns")
REQUIRED = {
    "transactions": ["transaction_id", "customer_id", "occurred_at", "amount"],
    "interactions": ["interaction_id", "customer_id", "occurred_at", "kind"],
    "customers": ["customer_id"],
    "products": ["product_id", "category"],
    "campaigns": ["campaign_id", "kind", "starts_at"],
}
# None of them, and all but one: so every pair of them is there, is not, or is by halves; all train the champions.
COMBINATIONS = [frozenset[str](), *(frozenset(OPTIONAL) - {absent} for absent in OPTIONAL)]
_CUSTOMERS, _DAYS = 120, 400
Tables = dict[str, pd.DataFrame]


@pytest.fixture(scope="module")
def tables() -> Tables:
    """Every table of a shop of 120 customers, with every column."""
    random = np.random.default_rng(3)
    first = AS_OF - timedelta(days=_DAYS)
    rows = [
        (number, day) for number in range(_CUSTOMERS)
        for day in np.cumsum(random.exponential(10 + number / 2, 60)) if day < _DAYS - number
    ]  # fmt: skip
    customer_ids = [f"c{number:03}" for number, _ in rows]
    times = [pd.Timestamp(first) + pd.Timedelta(days=int(day), hours=12) for _, day in rows]
    dated = {"customer_id": customer_ids, "occurred_at": times}
    products = [f"p{random.integers(6)}" for _ in rows]
    everybody = [f"c{number:03}" for number in range(_CUSTOMERS)]
    return {
        "transactions": pd.DataFrame({"transaction_id": [f"t{n}" for n in range(len(rows))], **dated,
                                      "amount": random.gamma(4, 5, len(rows)).round(2) + 1, "product_id": products,
                                      "quantity": 1.0, "discount": 0.5, "cost": 1.0, "channel": "shop"}),
        "interactions": pd.DataFrame({"interaction_id": [f"i{n}" for n in range(len(rows))], **dated,
                                      "kind": random.choice(["visit", "complaint", "campaign_contact"], len(rows)),
                                      "channel": "web", "campaign_id": "spring", "value": 3.0}),
        "customers": pd.DataFrame({"customer_id": everybody, "signed_up_at": pd.Timestamp(first),
                                   "marketing_consent": True, "profiling_consent": True}),
        "products": pd.DataFrame({"product_id": [f"p{n}" for n in range(6)], "category": [*"aabbcc"],
                                  "name": [*"uvwxyz"], "list_price": 9.0, "unit_cost": 2.0}),
        "campaigns": pd.DataFrame({"campaign_id": ["spring"], "kind": ["offer"], "medium": ["email"],
                                   "starts_at": [pd.Timestamp(first)], "unit_cost": [0.1]}),
    }  # fmt: skip


def opened(folder: Path, tables: Tables, given: frozenset[str], bare: bool = False) -> Workspace:
    """The shop with these tables; `bare` without any column that is not required."""
    folder.mkdir(exist_ok=True)
    named = {}
    for name in ("transactions", *sorted(given)):
        path = folder / f"{name}.parquet"
        rows = tables[name][REQUIRED[name]] if bare else tables[name]
        rows.to_parquet(path, index=False)
        named[name] = {"path": str(path)}
    rounds = {"boosting": {"rounds": 5}, "horizon": 40}
    wanted = {
        "name": "any", "home": str(folder / "home"), "timezone": "Europe/Berlin", "tables": named, "churn": rounds,
        "lifetime_value": rounds, "cross_sell": rounds, "training": {"cutoffs": 2, "backtest_cutoffs": 1},
    }  # fmt: skip
    return settings.parse(wanted, "test")


@pytest.fixture(scope="module")
def champions(tables: Tables, environment: pytest.MonkeyPatch, tmp_path_factory: Any) -> Iterator[None]:
    """Trained once, on all tables: the features are the same whatever tables there are."""
    folder = tmp_path_factory.mktemp("champions")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", new_registry(folder / "mlflow.db"))
        workspace, tracker = opened(folder, tables, frozenset(OPTIONAL)), registry.client()
        intake.ingest(workspace, NOW)
        snapshot.snapshot(workspace, pipelines.cutoffs(workspace, AS_OF))
        trained = pipelines.train(retrieval.apply(workspace), workspace, tracker, AS_OF)
        for kind, version in trained.items():
            promotion.promote(tracker, workspace, kind, str(version.version))
        yield


@pytest.fixture(scope="module")
def client(app: Any, shop: Any, environment: pytest.MonkeyPatch) -> Iterator[TestClient]:
    with TestClient(app, headers={"Authorization": f"Bearer {KEY}"}) as client:
        yield client


def everything(given: frozenset[str]) -> str:
    return "+".join(sorted(given)) or "transactions alone"


@pytest.mark.parametrize(
    ("given", "bare"),
    [*((given, False) for given in COMBINATIONS), (frozenset(), True), (frozenset(OPTIONAL), True)],
    ids=lambda value: everything(value) if isinstance(value, frozenset) else ("bare" if value else "full"),
)
def test_tables_in_any_combination_go_the_whole_line(
    given: frozenset[str], bare: bool, client: TestClient, tables: Tables, champions: None, tmp_path: Path
) -> None:
    """Check, snapshot, scores, lists, card, offers, monitor; and an event of each kind that there is a table for moves
    the score to what the next batch computes."""
    workspace, tracker = opened(tmp_path / "shop", tables, given, bare), registry.client()
    accounts = intake.ingest(workspace, NOW)
    assert {account.table for account in accounts} == {"transactions", *given}
    assert data_check.check(workspace, accounts, AS_OF).suffices
    snapshot.snapshot(workspace, [AS_OF])
    store, predictor = retrieval.apply(workspace), Predictor.load(workspace, tracker)
    scores = scored(predictor, AS_OF).set_index("customer_id")
    assert scores["churn_probability"].notna().sum() > 80
    online.publish(store, workspace, AS_OF)
    assert outcomes(workspace, TOMORROW).open
    if "interactions" in given:
        assert len(response(workspace, AS_OF).campaigns)
    else:
        with pytest.raises(CheckFailed, match=r"needs `tables.interactions`"):
            response(workspace, AS_OF)

    running = bentoml.get_current_service()
    running.answers = Answers(workspace.home_path, lambda: NOW, Service())
    running.inbox = Inbox(workspace, running.answers.known)
    freshness = Freshness(workspace.home_path, lambda: NOW)
    freshness.catch_up()
    listed = client.get("/v1/lists/churn-risk?top=5").json()
    assert len(listed) == 5
    buyer = listed[0]["customer_id"]
    card = client.get(f"/v1/customers/{buyer}").json()
    assert card["scores"]["churn_probability"] == pytest.approx(scores.loc[buyer, "churn_probability"], abs=1e-6)
    assert bool(card["offers"]) == ("products" in given and not bare)

    when = (NOW - timedelta(hours=3)).isoformat()
    line = {"amount": 20.0, "product_id": "p1", "quantity": 2}
    told: dict[str, Any] = {
        "purchases": [{"transaction_id": "e1", "customer_id": buyer, "occurred_at": when, "lines": [line]}]
    }
    visit = {"interaction_id": "e2", "customer_id": buyer, "occurred_at": when, "kind": "visit", "product_id": "p2"}
    if "interactions" in given:
        told["interactions"] = [visit]
    else:
        refused = client.post("/v1/events", json={"interactions": [visit]})
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "no_interactions")
    assert client.post("/v1/events", json=told).status_code == 202
    assert freshness.catch_up() == len(told)
    after = client.get(f"/v1/customers/{buyer}").json()["scores"]
    assert (after["as_of"], after["stale"]) == (str(TOMORROW), False)
    assert after["churn_probability"] < card["scores"]["churn_probability"]
    if "campaigns" not in given or bare:  # no feature asks for campaigns, and a snapshot takes its time
        _assert_the_next_batch_says_the_same(workspace, buyer)


def _assert_the_next_batch_says_the_same(workspace: Workspace, buyer: str) -> None:
    """The vector that is online is the one of tomorrow's snapshot, with which monitoring compares today's."""
    intake.ingest(workspace, NOW)
    snapshot.snapshot(workspace, [TOMORROW])
    published = publications.published(workspace.home_path)
    assert published is not None
    shown = online.online_rows(retrieval.open_store(workspace), workspace, published, [buyer])[buyer].vector
    np.testing.assert_allclose(shown, churn_risk.vectors(workspace, TOMORROW, [buyer])[0], rtol=1e-5, atol=1e-6)
    champion = drift.Champion.load(registry.client(), workspace)
    assert drift.Comparison(workspace, TOMORROW, AS_OF, champion).drift().features == ()
