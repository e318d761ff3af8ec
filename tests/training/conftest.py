"""One made-up shop of a thousand customers, its features computed and its three models trained once for all tests."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, NamedTuple

import pytest
from registries import new_registry

from features import retrieval, snapshot
from ingest import intake
from simulation.world import simulate
from training import pipelines
from training.gate import promotion
from training.learning import datasets
from workspace import registry, settings
from workspace.settings import Workspace

if TYPE_CHECKING:
    from feast import FeatureStore
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

TRAINED_AT = date(2024, 7, 1)


class World(NamedTuple):
    """The shop's tables go half a year beyond the as_of it was trained at."""

    workspace: Workspace
    store: FeatureStore
    tracker: MlflowClient
    data: datasets.Dataset
    versions: dict[str, ModelVersion]


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("world")
    simulate(folder, customers=1000, years=2.5, seed=11)
    files = ("transactions", "interactions", "customers.parquet", "products.parquet")
    wanted = {
        "name": "world", "home": str(folder / "home"), "attributes": ["region", "age"],
        "tables": {file.removesuffix(".parquet"): {"path": str(folder / file)} for file in files},
        "churn": {"horizon": 60, "gap": 5}, "lifetime_value": {"horizon": 60}, "cross_sell": {"horizon": 60},
        "training": {"cutoffs": 5, "min_history": 200},
    }  # fmt: skip
    workspace = settings.parse(wanted, "the tests")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", new_registry(folder / "mlflow.db"))
        intake.ingest(workspace, datetime(2026, 1, 1, tzinfo=UTC))
        snapshot.snapshot(workspace, pipelines.cutoffs(workspace, TRAINED_AT))
        store, tracker = retrieval.apply(workspace), registry.client()
        versions = pipelines.train(store, workspace, tracker, TRAINED_AT)
        for kind, version in versions.items():
            promotion.promote(tracker, workspace, kind, str(version.version))
        yield World(workspace, store, tracker, datasets.load(store, workspace, TRAINED_AT), versions)
