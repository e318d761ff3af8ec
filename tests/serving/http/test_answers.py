"""Scores, offers, the churn-risk list and exports: what a marketer and a CRM rely on."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from workspaces import AS_OF, NEVER_BOUGHT, NO_MARKETING, NO_PROFILING

from serving.http.access import Refused
from serving.http.answers import Answers
from serving.lists import churn_risk
from serving.predictor import NO_CONSENT, NO_PURCHASE, SCORE_COLUMNS, Predictor
from tests.serving.conftest import NOW, Shop
from workspace import registry, storage
from workspace.settings import Service

TEXTS = ("customer_id", "churn_band", "not_scored_reason", "churn_model", "lifetime_value_model", "cross_sell_model")


@pytest.fixture(scope="module")
def predictor(shop: Shop) -> Predictor:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", shop.tracking_uri)
        return Predictor.load(shop.workspace, registry.client())


@pytest.fixture(scope="module")
def scores(shop: Shop) -> pd.DataFrame:
    return pd.read_parquet(storage.scores_path(shop.workspace.home_path, AS_OF))


@pytest.fixture(scope="module")
def offers(shop: Shop) -> pd.DataFrame:
    return pd.read_parquet(storage.offers_path(shop.workspace.home_path, AS_OF))


def _numbered(numbers: range) -> set[str]:
    return {f"c{number:04}" for number in numbers}


def test_scores_have_the_fixed_columns_and_types(shop: Shop) -> None:
    """Other people's scripts read these names, in this order, with these types."""
    schema = pq.read_schema(storage.scores_path(shop.workspace.home_path, AS_OF))
    assert tuple(schema.names) == SCORE_COLUMNS
    for name in SCORE_COLUMNS:
        expected = "date32[day]" if name == "as_of" else "string" if name in TEXTS else "double"
        assert str(schema.field(name).type) == expected, name


def test_there_is_one_row_for_every_customer_known_at_the_as_of(scores: pd.DataFrame) -> None:
    """A purchase or a sign-up before the as_of is enough to be known; nobody is there twice."""
    assert scores["customer_id"].is_unique
    assert len(scores) == 400


def test_who_refused_profiling_gets_no_number_at_all(scores: pd.DataFrame) -> None:
    """Without consent nothing is computed about a customer, and the reason says so."""
    refused = scores[scores["customer_id"].isin(_numbered(NO_PROFILING))]
    assert (refused["not_scored_reason"] == NO_CONSENT).all()
    assert refused.select_dtypes("number").isna().all(axis=None)
    assert refused["churn_band"].isna().all()


def test_who_never_bought_is_not_scored(scores: pd.DataFrame) -> None:
    """A sign-up alone says nothing about leaving or spending."""
    never = scores[scores["customer_id"].isin(_numbered(NEVER_BOUGHT))]
    assert (never["not_scored_reason"] == NO_PURCHASE).all()
    assert never["lifetime_value"].isna().all()


def test_every_scored_customer_has_every_number(scores: pd.DataFrame) -> None:
    """No silent gap: either a reason, or all the figures, within their ranges and in order."""
    scored = scores[scores["not_scored_reason"].isna()]
    assert scored.drop(columns="not_scored_reason").notna().all(axis=None)
    assert scored["churn_probability"].between(0, 1).all()
    assert (scored["lifetime_value_low"] <= scored["lifetime_value"]).all()
    assert (scored["lifetime_value"] <= scored["lifetime_value_high"]).all()
    at_risk = scored["churn_probability"] * scored["lifetime_value"]
    np.testing.assert_allclose(scored["value_at_risk"], at_risk)


def test_percentiles_rank_as_probabilities_do(scores: pd.DataFrame) -> None:
    """The percentile runs from 0 to 100 and never falls as the probability rises."""
    ranked = scores.dropna(subset=["churn_probability"]).sort_values("churn_probability")
    assert ranked["churn_percentile"].is_monotonic_increasing
    assert ranked["churn_percentile"].min() == 0
    assert ranked["churn_percentile"].max() == 100


def test_bands_follow_the_settings(shop: Shop, scores: pd.DataFrame) -> None:
    """Low, medium and high begin where the workspace says."""
    bands, scored = shop.workspace.bands, scores.dropna(subset=["churn_probability"])
    expected = np.select([scored["churn_probability"] >= bands.high, scored["churn_probability"] >= bands.medium],
                         ["high", "medium"], "low")  # fmt: skip
    assert (scored["churn_band"] == expected).all()


def test_offers_are_ranked_and_marked(shop: Shop, scores: pd.DataFrame, offers: pd.DataFrame) -> None:
    """Ranks count from one by falling probability; `repeat` is what the customer has bought, `new` what not."""
    reason = scores["not_scored_reason"]
    asked = scores.loc[reason.isna() | (reason == "no purchase yet"), "customer_id"]
    assert set(offers["customer_id"]) == set(asked)
    for _, own in offers.groupby("customer_id"):
        assert own["rank"].tolist() == list(range(1, len(own) + 1))
        assert own["probability"].is_monotonic_decreasing
    bought = pd.read_parquet(storage.snapshot_part(shop.workspace.home_path, "product_affinity", AS_OF))
    owned = set(zip(bought["customer_id"], bought["item"], strict=True))
    pairs = zip(offers["customer_id"], offers["item"], strict=True)
    assert ["repeat" if pair in owned else "new" for pair in pairs] == offers["kind"].tolist()


def test_the_list_never_names_who_objected(predictor: Predictor) -> None:
    """Who gave no consent to marketing or to profiling is on no list, however much is at risk."""
    listed = set(churn_risk.churn_risk(predictor, AS_OF, top=10_000)["customer_id"])
    assert listed
    assert not listed & (_numbered(NO_MARKETING) | _numbered(NO_PROFILING))


def test_a_changed_champion_does_not_answer(shop: Shop, environment: pytest.MonkeyPatch) -> None:
    """A service that starts on a damaged model says so, and where it lies to its log alone; mended, it answers."""
    version = registry.champion(registry.client(), shop.workspace, "churn")
    assert version is not None
    booster = registry.model_folder(registry.client(), version) / "booster.txt"
    whole = booster.read_bytes()
    booster.write_bytes(whole[: len(whole) // 2])
    try:
        with pytest.raises(Refused) as refused:
            Answers(shop.workspace.home_path, lambda: NOW, Service()).current()
    finally:
        booster.write_bytes(whole)
    assert (refused.value.refusal.status, refused.value.refusal.code) == (503, "not_loaded")
    assert refused.value.refusal.message == "a champion is not what was registered; the service's log says more"
    assert Answers(shop.workspace.home_path, lambda: NOW, Service()).current().as_of == AS_OF
