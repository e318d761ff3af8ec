"""The predictor: where bands and percentiles begin, who gets which number, and which champions it refuses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import mlflow
import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from workspaces import AS_OF, ODD_IDS

from features import retrieval, snapshot
from features.publications import FeatureMismatch
from serving.champions import NoChampion
from serving.predictor import SCORE_COLUMNS, Predictor
from tests.serving.conftest import Shop
from workspace import registry
from workspace.settings import Workspace


@pytest.fixture(scope="module")
def tracker(shop: Shop) -> Iterator[mlflow.MlflowClient]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", shop.tracking_uri)
        yield registry.client()


@pytest.fixture(scope="module")
def predictor(shop: Shop, tracker: mlflow.MlflowClient) -> Predictor:
    return Predictor.load(shop.workspace, tracker)


@pytest.fixture(scope="module")
def customers(shop: Shop, tracker: mlflow.MlflowClient) -> pd.DataFrame:
    """The feature rows of everyone known at the as_of."""
    return retrieval.customer_rows(retrieval.open_store(shop.workspace), shop.workspace, [AS_OF])


@pytest.fixture(scope="module")
def vectors(shop: Shop, customers: pd.DataFrame) -> NDArray[np.float32]:
    return retrieval.matrix(customers, [feature.name for feature in snapshot.customer_features(shop.workspace)])


def scored(predictor: Predictor, customers: pd.DataFrame, vectors: NDArray[np.float32]) -> pd.DataFrame:
    return pd.DataFrame(predictor.score(customers["customer_id"].tolist(), AS_OF, vectors)).set_index("customer_id")


def ranking(predictor: Predictor, customers: pd.DataFrame, vectors: NDArray[np.float32]) -> Predictor:
    return predictor.ranking_among(scored(predictor, customers, vectors)["churn_probability"].to_numpy())


def with_bands(predictor: Predictor, medium: float, high: float) -> Predictor:
    bands = predictor.workspace.bands.model_copy(update={"medium": medium, "high": high})
    return replace(predictor, workspace=predictor.workspace.model_copy(update={"bands": bands}))


@pytest.mark.parametrize(("below", "band"), [(0.0, "medium"), (1e-9, "low")])
def test_a_band_begins_exactly_at_its_edge(
    below: float, band: str, predictor: Predictor, customers: pd.DataFrame, vectors: NDArray[np.float32]
) -> None:
    """Who has the very probability of the edge is in the band above it; a billionth less is in the one below."""
    one = customers["customer_id"] == "c0200"
    probability = scored(predictor, customers[one], vectors[one])["churn_probability"].iloc[0]
    edged = with_bands(predictor, probability + below, probability + 0.1)
    assert scored(edged, customers[one], vectors[one])["churn_band"].tolist() == [band]
    higher = with_bands(predictor, probability / 2, probability + below)
    assert scored(higher, customers[one], vectors[one])["churn_band"].tolist() == ["high" if below == 0 else "medium"]


def test_bands_over_another_horizon_begin_where_the_settings_thresholds_lie_there(
    predictor: Predictor, customers: pd.DataFrame, vectors: NDArray[np.float32]
) -> None:
    """About as many customers are at high and at medium risk over a week as over a year, the likelier the higher; alone
    a customer is in the same band as among all; the models' own horizon, asked by name, has all that it has unasked."""
    ranked, ids = ranking(predictor, customers, vectors), customers["customer_id"].tolist()
    own = pd.DataFrame(ranked.score(ids, AS_OF, vectors))
    pd.testing.assert_frame_equal(pd.DataFrame(ranked.score(ids, AS_OF, vectors, 60)), own)
    shares = own["churn_band"].value_counts(normalize=True)
    for horizon in (7, 30, 180, 365):
        rows = pd.DataFrame(ranked.score(ids, AS_OF, vectors, horizon))
        pd.testing.assert_series_equal(
            rows["churn_band"].value_counts(normalize=True)[shares.index], shares, atol=0.05, rtol=0
        )
        edges = rows.groupby("churn_band")["churn_probability"].agg(["min", "max"])
        assert edges.loc["low", "max"] < edges.loc["medium", "min"]
        assert edges.loc["medium", "max"] < edges.loc["high", "min"]
        alone = [ranked.score(ids[place : place + 1], AS_OF, vectors[[place]], horizon) for place in (60, 200, 300)]
        assert [one["churn_band"][0] for one in alone] == rows.loc[[60, 200, 300], "churn_band"].tolist()


def test_percentiles_run_from_0_to_100_and_never_fall(
    predictor: Predictor, customers: pd.DataFrame, vectors: NDArray[np.float32]
) -> None:
    """Among themselves the lowest is at 0, the highest at 100, half of them at 50 or below."""
    rows = scored(ranking(predictor, customers, vectors), customers, vectors).dropna(subset=["churn_probability"])
    rows = rows.sort_values("churn_probability")
    assert rows["churn_percentile"].is_monotonic_increasing
    assert rows["churn_percentile"].iloc[[0, -1]].tolist() == [0.0, 100.0]
    assert (rows["churn_percentile"] <= 50).mean() == pytest.approx(0.5, abs=0.02)


def test_a_customer_outside_all_seen_is_at_the_end(
    predictor: Predictor, customers: pd.DataFrame, vectors: NDArray[np.float32]
) -> None:
    """Likelier to leave than anyone ranked is 100, less likely than anyone is 0."""
    alone = scored(predictor, customers, vectors)["churn_probability"].to_numpy()
    middle = alone[(alone > np.nanquantile(alone, 0.3)) & (alone < np.nanquantile(alone, 0.7))]
    percentiles = scored(predictor.ranking_among(middle), customers, vectors)["churn_percentile"].to_numpy()
    assert set(percentiles[alone <= np.nanquantile(alone, 0.25)]) == {0.0}
    assert set(percentiles[alone >= np.nanquantile(alone, 0.75)]) == {100.0}


def test_without_a_ranking_there_is_no_percentile(
    predictor: Predictor, customers: pd.DataFrame, vectors: NDArray[np.float32]
) -> None:
    """A rank among nobody is unknown, not 0."""
    assert scored(predictor, customers, vectors)["churn_percentile"].isna().all()


def test_each_customer_is_scored_alike_alone_and_in_any_company(
    predictor: Predictor, customers: pd.DataFrame, vectors: NDArray[np.float32]
) -> None:
    """One by one, all at once or in another order: the same numbers for the same customer."""
    ranked = ranking(predictor, customers, vectors)
    together, order = scored(ranked, customers, vectors), np.random.default_rng(1).permutation(len(customers))
    pd.testing.assert_frame_equal(scored(ranked, customers.iloc[order], vectors[order]).loc[together.index], together)
    for place in (*range(12), 25, 35, 395):
        alone = scored(ranked, customers.iloc[[place]], vectors[[place]])
        pd.testing.assert_frame_equal(alone, together.loc[alone.index], check_dtype=False)


def test_who_has_left_already_keeps_a_value_but_no_probability(
    predictor: Predictor, customers: pd.DataFrame, vectors: NDArray[np.float32]
) -> None:
    """Silent for longer than the active window: a reason, no risk of leaving, and what winning back is worth."""
    ranked = scored(ranking(predictor, customers, vectors), customers, vectors)
    silent = (customers["days_since_last_purchase"] > 365).to_numpy() & (customers["profiling_consent"] != 0).to_numpy()
    left = ranked[silent]
    assert len(left) > 20
    assert set(left["not_scored_reason"]) == {"already churned: no purchase in the last 365 days"}
    unknown = ["churn_probability", "churn_percentile", "churn_band", "value_at_risk"]
    assert left[unknown].isna().all(axis=None)
    assert left[["p_alive", "expected_purchases", "lifetime_value", "lifetime_value_high"]].notna().all(axis=None)


def test_the_last_day_of_the_active_window_still_counts(
    predictor: Predictor, customers: pd.DataFrame, vectors: NDArray[np.float32]
) -> None:
    """Silent for exactly 365 days can still leave; for 366 has left."""
    one = (customers["customer_id"] == "c0200").to_numpy()
    place = predictor.churn.inputs.packed.index("days_since_last_purchase")
    reasons = []
    for days in (365, 366):
        changed = vectors[one].copy()
        changed[:, place] = days
        reasons.append(scored(predictor, customers[one], changed)["not_scored_reason"].iloc[0])
    assert reasons == [None, "already churned: no purchase in the last 365 days"]


def test_for_event_churn_only_customers_who_bought_are_ranked(
    predictor: Predictor, customers: pd.DataFrame, vectors: NDArray[np.float32]
) -> None:
    """Who never bought gets no number, so is no yardstick for others either; who cancelled is not scored."""
    changed = vectors.copy()
    changed[:5, predictor.churn.inputs.packed.index("days_since_cancellation")] = 9
    leaving = replace(predictor.churn.leaving, kind="event")
    event = ranking(replace(predictor, churn=replace(predictor.churn, leaving=leaving)), customers, changed)
    rows = scored(event, customers, changed)
    assert rows["not_scored_reason"].iloc[:5].tolist() == ["already churned: cancelled"] * 5
    assert (rows["not_scored_reason"] == "no purchase yet").sum() == 10
    assert rows["churn_percentile"].min() == 0
    assert rows["churn_percentile"].max() == 100
    bought = ~np.isnan(predictor.churn.inputs.column(changed, "T"))
    np.testing.assert_array_equal(
        event.percentile_edges, ranking(event, customers[bought], changed[bought]).percentile_edges
    )


def test_columns_are_the_fixed_ones_with_the_versions_that_answered(
    predictor: Predictor, customers: pd.DataFrame, vectors: NDArray[np.float32]
) -> None:
    """Every answer says by name and version which models it came from."""
    columns = predictor.score(customers["customer_id"].tolist(), AS_OF, vectors)
    assert tuple(columns) == SCORE_COLUMNS
    models = [columns[f"{kind}_model"] for kind in ("churn", "lifetime_value", "cross_sell")]
    assert models == ["small.churn/1", "small.lifetime_value/1", "small.cross_sell/1"]
    assert set(ODD_IDS) <= set(columns["customer_id"])


def test_nobody_to_score_is_no_error(predictor: Predictor) -> None:
    """No rows in, no rows out, and no edges to rank by."""
    nobody = np.empty((0, len(predictor.churn.inputs.packed)), dtype=np.float32)
    assert predictor.ranking_among(np.empty(0)).percentile_edges is None
    assert all(len(column) == 0 for column in predictor.score([], AS_OF, nobody).values() if np.ndim(column))


def test_without_champions_there_is_no_predictor(shop: Shop, tracker: mlflow.MlflowClient) -> None:
    """The sentence names the model that is missing and the commands that make one."""
    nobodys = shop.workspace.model_copy(update={"name": "nobodys"})
    with pytest.raises(NoChampion, match="nobodys has no churn champion; run `perennial train` and `promote`"):
        Predictor.load(nobodys, tracker)


def test_champions_of_other_features_are_refused(shop: Shop, tracker: mlflow.MlflowClient) -> None:
    """A workspace with an attribute more has another packed vector than the champion was trained on."""
    more = shop.workspace.model_copy(update={"attributes": ("region",)})
    says = r"the churn champion was trained on other .* \(now also attribute_region\): `perennial run .* trains another"
    with pytest.raises(FeatureMismatch, match=says):
        Predictor.load(more, tracker)


def test_offers_ranked_by_another_level_are_refused(shop: Shop, tracker: mlflow.MlflowClient) -> None:
    """A model of categories must not rank items; the sentence says what differs, and how to get another one."""
    level = shop.workspace.cross_sell.model_copy(update={"level": "item"})
    message = r"small\.cross_sell/1 .*\(cross_sell.level category, asked is item\).* `perennial train cross-sell"
    with pytest.raises(registry.Unfit, match=message):
        Predictor.load(shop.workspace.model_copy(update={"cross_sell": level}), tracker)


def test_a_workspace_without_products_has_no_offers(shop: Shop, tracker: mlflow.MlflowClient) -> None:
    """Whatever champion there is from earlier times, nothing can be ranked."""
    tables = shop.workspace.tables.model_copy(update={"products": None})
    loaded = Predictor.load(_with(shop.workspace, tables), tracker)
    assert loaded.offers is None
    assert loaded.versions.keys() == {"churn", "lifetime_value"}


def _with(workspace: Workspace, tables: object) -> Workspace:
    return workspace.model_copy(update={"tables": tables})


def test_churn_keeps_its_own_history_where_the_value_learnt_from_another(
    predictor: Predictor, customers: pd.DataFrame, vectors: NDArray[np.float32]
) -> None:
    """One outlook answers for both models only where they agree about the past."""
    history = predictor.value.history_model
    faster = replace(history, purchases=replace(history.purchases, r=2 * history.purchases.r))
    together = scored(predictor, customers, vectors)
    apart = scored(replace(predictor, value=replace(predictor.value, history_model=faster)), customers, vectors)
    bought = together["lifetime_value"].notna()
    assert (apart["expected_purchases"][bought] != together["expected_purchases"][bought]).any()
    pd.testing.assert_series_equal(apart["churn_probability"], together["churn_probability"], rtol=1e-12)
