"""Promotion: which version answers."""

from __future__ import annotations

from collections.abc import Callable

import mlflow
import pytest

from perennial import registry, settings
from perennial.settings import Workspace
from perennial.storage import CheckFailed
from training import promotion

SHOP, OTHER = (
    settings.parse({"name": name, "tables": {"transactions": {"path": "none.csv"}}}, "the tests")
    for name in ("shop", "other")
)


@pytest.fixture(scope="module")
def tracker(tmp_path_factory: pytest.TempPathFactory) -> mlflow.MlflowClient:
    """A registry with eleven versions of the shop's churn model, and one each of others."""
    found = mlflow.MlflowClient(f"sqlite:///{tmp_path_factory.mktemp('registry')}/mlflow.db")
    for name, count in (("shop.churn", 11), ("shop.lifetime_value", 1), ("other.churn", 1)):
        found.create_registered_model(name)
        for _ in range(count):
            found.create_model_version(name, source="file:///nowhere")
    return found


@pytest.fixture
def champion(tracker: mlflow.MlflowClient) -> Callable[..., str | None]:
    """The version that answers; before each test none does."""
    for name in ("shop.churn", "shop.lifetime_value", "other.churn"):
        tracker.delete_registered_model_alias(name, "champion")

    def find(workspace: Workspace = SHOP, kind: str = "churn") -> str | None:
        found = registry.champion(tracker, workspace, kind)
        return found and str(found.version)

    return find


def test_the_latest_version_becomes_champion(tracker: mlflow.MlflowClient, champion: Callable[..., str | None]) -> None:
    """The eleventh is later than the ninth, whatever their spelling says."""
    assert champion() is None
    assert str(promotion.promote(tracker, SHOP, "churn").version) == "11"
    assert champion() == "11"


def test_a_named_version_becomes_champion(tracker: mlflow.MlflowClient, champion: Callable[..., str | None]) -> None:
    """So that one can go back to what answered before."""
    promotion.promote(tracker, SHOP, "churn")
    promotion.promote(tracker, SHOP, "churn", "3")
    assert champion() == "3"


def test_promoting_touches_no_other_model(tracker: mlflow.MlflowClient, champion: Callable[..., str | None]) -> None:
    """Neither another kind of the same shop nor another shop's."""
    promotion.promote(tracker, SHOP, "churn")
    assert champion(SHOP, "lifetime_value") is None
    assert champion(OTHER, "churn") is None


@pytest.mark.parametrize("version", ["12", "0", "latest"])
def test_an_unknown_version_is_refused(
    version: str, tracker: mlflow.MlflowClient, champion: Callable[..., str | None]
) -> None:
    """The sentence names it, and the champion stays who it was."""
    promotion.promote(tracker, SHOP, "churn", "3")
    with pytest.raises(CheckFailed, match=f"shop.churn has no version {version}; `perennial train` makes one"):
        promotion.promote(tracker, SHOP, "churn", version)
    assert champion() == "3"


def test_a_model_never_trained_is_refused(tracker: mlflow.MlflowClient) -> None:
    """There is no version to promote."""
    with pytest.raises(CheckFailed, match=r"shop.cross_sell has no version"):
        promotion.promote(tracker, SHOP, "cross_sell")
