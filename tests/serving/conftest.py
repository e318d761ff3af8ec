"""One small shop, run end to end once for all tests of answers."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple

import pytest
from registries import new_registry
from workspaces import run_line, small_workspace

from workspace.settings import Service, Workspace

KEY = "a-secret"
PRIVACY_KEY = "a-privacy-key-of-tests"
# What the service takes for the time: some hours into the day that was published.
NOW = datetime(2023, 7, 1, 18, tzinfo=UTC)


class Shop(NamedTuple):
    """A workspace that published, and the MLflow with its champions."""

    workspace: Workspace
    tracking_uri: str


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    folder = tmp_path_factory.mktemp("shop")
    shop = Shop(small_workspace(folder), new_registry(folder / "mlruns" / "mlflow.db"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", shop.tracking_uri)
        run_line(shop.workspace)
    return shop


@pytest.fixture(scope="module")
def environment(shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[pytest.MonkeyPatch]:
    """What `perennial serve` finds set: the shop's home, its MLflow and its keys."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PERENNIAL_HOME", str(shop.workspace.home_path))
        patch.setenv("PERENNIAL_API_KEY", KEY)
        patch.setenv("PERENNIAL_PRIVACY_KEY", PRIVACY_KEY)
        patch.setenv("MLFLOW_TRACKING_URI", shop.tracking_uri)
        patch.setenv("BENTOML_HOME", str(tmp_path_factory.mktemp("bentoml")))
        patch.setenv("BENTOML_DO_NOT_TRACK", "true")
        yield patch


@pytest.fixture(scope="session")
def app() -> Any:
    """The service's ASGI app. One for all: BentoML registers its metrics once in a process."""
    from serving import service

    return service.application(lambda: NOW, Service())
