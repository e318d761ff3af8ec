"""The three pipelines on a made-up shop whose truth is known: they learn and are calibrated."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, NamedTuple

import mlflow
import numpy as np
import pytest
import yaml
from registries import new_registry

from features import retrieval, snapshot
from ingest import intake
from simulation.world import simulate
from training import pipelines
from training.backtests import metrics
from training.gate import promotion
from training.learning import churn, datasets, labels, lifetime_value
from training.models.churn_model import ChurnModel
from workspace import registry, settings
from workspace.settings import Workspace
from workspace.storage import CheckFailed

AS_OF = date(2024, 7, 1)
LATER = date(2100, 1, 1)


class Trained(NamedTuple):
    workspace: Workspace
    data: datasets.Dataset
    versions: dict[str, Any]
    tracker: mlflow.MlflowClient


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trained]:
    folder = tmp_path_factory.mktemp("learn")
    simulate(folder / "world", customers=3000, years=2.5, seed=3)
    names = ("transactions", "interactions", "customers.parquet", "products.parquet", "campaigns.parquet")
    wanted = {
        "name": "learn", "tables": {n.split(".")[0]: {"path": str(folder / "world" / n)} for n in names},
        "training": {"cutoffs": 6}, "attributes": ["region", "age"],
    }  # fmt: skip
    (folder / "workspace.yaml").write_text(yaml.safe_dump(wanted))
    workspace = settings.read(folder / "workspace.yaml", home=folder / "home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", new_registry(folder / "mlflow.db"))
        intake.ingest(workspace, datetime(2026, 1, 1, tzinfo=UTC))
        snapshot.snapshot(workspace, pipelines.cutoffs(workspace, AS_OF))
        store, tracker = retrieval.apply(workspace), registry.client()
        versions = pipelines.train(store, workspace, tracker, AS_OF)
        for kind, version in versions.items():
            promotion.promote(tracker, workspace, kind, str(version.version))
        yield Trained(workspace, datasets.load(store, workspace, AS_OF), versions, tracker)


def _model(shop: Trained) -> ChurnModel:
    return ChurnModel.load(registry.model_folder(registry.client(), shop.versions["churn"]))


def test_churn_probabilities_are_right_in_the_window_that_followed(shop: Trained) -> None:
    """Ranked well above silence alone, and on average of what happened in months that no training saw."""
    model, current = _model(shop), shop.data.current
    stayed = labels.outcomes(shop.workspace, [AS_OF], LATER).set_index("customer_id")["bought"]
    able = model.can_churn(current.vectors)
    actual = 1.0 - stayed.reindex(current.customer_ids[able]).eq(True).to_numpy().astype(float)
    predicted = model.probability(current.vectors[able])
    silence = model.inputs.column(current.vectors[able], "days_since_last_purchase")
    assert metrics.auc(actual, predicted) > max(0.75, metrics.auc(actual, silence))
    assert metrics.ece(actual, predicted) < 0.1


def test_value_bounds_hold_what_was_spent(shop: Trained) -> None:
    """About 80 % of customers spend within their bounds, in months that no training saw."""
    model = lifetime_value.fit(shop.data, shop.workspace, shop.data.closed, shop.data.current)
    spent = labels.outcomes(shop.workspace, [AS_OF], LATER).set_index("customer_id")["value"]
    bought = ~np.isnan(shop.data.inputs.column(shop.data.current.vectors, "T"))
    actual = spent.reindex(shop.data.current.customer_ids[bought]).fillna(0.0).to_numpy()
    forecast = model.forecast(shop.data.current.vectors[bought])
    assert np.mean((actual >= forecast.low) & (actual <= forecast.high)) == pytest.approx(0.8, abs=0.1)
    assert metrics.ngini(actual, forecast.value) > 0.6


def test_longer_silence_does_not_lower_the_probability(shop: Trained) -> None:
    """The same customers, heard from no more for another two months, are not less likely to have left."""
    model, inputs = _model(shop), shop.data.inputs
    vectors = shop.data.current.vectors[model.can_churn(shop.data.current.vectors)][:300]
    vectors = vectors[inputs.column(vectors, "days_since_last_purchase") < 60]
    later = vectors.copy()
    for name in ("days_since_last_purchase", "T", "tenure_days", "days_since_interaction", "days_since_visit"):
        later[:, inputs.packed.index(name)] += 60
    for name in ("silence_vs_gap", "silence_vs_longest_gap"):
        gap = inputs.column(vectors, "gap_mean" if name == "silence_vs_gap" else "gap_max")
        later[:, inputs.packed.index(name)] += (60 / gap).astype(np.float32)
    change = model.probability(later) - model.probability(vectors)
    assert np.mean(change > 0) > 0.95


def test_without_enough_outcomes_the_history_stands_alone(shop: Trained) -> None:
    """Fewer than 100 who left teach nothing: no booster is fitted on them."""
    few = tuple(
        replace(c, churned=np.where(np.arange(len(c.churned)) < 20, c.churned, np.nan)) for c in shop.data.closed
    )
    model = churn.fit(shop.data, shop.workspace, few, shop.data.current)
    assert model.booster is None
    assert np.isfinite(model.probability(shop.data.current.vectors[model.can_churn(shop.data.current.vectors)])).all()


def test_promoting_an_unknown_version_is_refused(shop: Trained) -> None:
    """A version that is not there cannot answer; the message says how to make one."""
    with pytest.raises(CheckFailed, match="has no version 99"):
        promotion.promote(shop.tracker, shop.workspace, "churn", "99")


def test_event_churn_learns_from_cancellations(shop: Trained, tmp_path: Path) -> None:
    """With `kind: event` who cancelled has left; without cancellations enough the refusal says so."""
    event = shop.workspace.model_copy(update={"churn": shop.workspace.churn.model_copy(update={"kind": "event"})})
    outcomes = labels.outcomes(event, [c.as_of for c in shop.data.closed], AS_OF)
    assert outcomes["cancelled"].eq(True).any()
    none_left = tuple(replace(c, churned=np.zeros_like(c.churned)) for c in shop.data.closed)
    with pytest.raises(CheckFailed, match="cancellations"):
        churn.fit(shop.data, event, none_left, shop.data.current)
