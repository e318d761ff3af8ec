"""Cross-sell: windows apart, pairs with what was then bought, and a reason where nothing can be learnt."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import duckdb
import numpy as np
import pandas as pd
import pytest

from features import retrieval, snapshot
from ingest import intake
from tests.training.conftest import TRAINED_AT, World
from training.backtests import metrics
from training.learning import cross_sell, labels
from training.learning.cross_sell import Backtest, NoCrossSell
from training.models.offer_model import OfferModel
from workspace import storage
from workspace.settings import Workspace


def changed(workspace: Workspace, **settings: object) -> Workspace:
    """The workspace with other cross-sell settings."""
    return workspace.model_copy(update={"cross_sell": workspace.cross_sell.model_copy(update=settings)})


def without_products(workspace: Workspace) -> Workspace:
    tables = workspace.tables.model_copy(update={"products": None, "interactions": None})
    return workspace.model_copy(update={"tables": tables})


@pytest.fixture(scope="module")
def trained(world: World) -> tuple[OfferModel, Backtest]:
    """The model of today, and offers of the latest closed cutoff, learnt from the two before it."""
    *earlier, judged = cross_sell.cutoffs(world.workspace, TRAINED_AT)
    backtest = cross_sell.judged_at(world.workspace, judged, earlier, TRAINED_AT)
    return cross_sell.train(world.workspace, TRAINED_AT), backtest


def test_windows_do_not_overlap(world: World) -> None:
    """Three windows of 60 days end to end, the last of them closed on the day of the training."""
    cutoffs = cross_sell.cutoffs(world.workspace, TRAINED_AT)
    assert cutoffs == [TRAINED_AT - timedelta(days=days) for days in (180, 120, 60)]


def test_every_pair_is_told_what_was_then_bought(world: World, trained: tuple[OfferModel, Backtest]) -> None:
    """Recomputed from lines and products: 1 where the customer bought of the category in the window, 0 elsewhere."""
    judged = cross_sell.cutoffs(world.workspace, TRAINED_AT)[-1]
    lines, products = (storage.rows_of(world.workspace.home_path, t) for t in ("transactions", "products"))
    bought = duckdb.execute(f"""
        SELECT DISTINCT customer_id, category FROM {lines} JOIN {products} USING (product_id) WHERE amount >= 0
         AND day >= DATE '{judged}' AND day < DATE '{judged + timedelta(days=60)}' AND known_day < DATE '{TRAINED_AT}'
        """).fetchall()
    _, backtest = trained
    pairs = zip(backtest.keys["customer_id"], backtest.keys["item"], strict=True)
    known = set(bought)
    assert [float(pair in known) for pair in pairs] == backtest.bought.tolist()
    assert backtest.bought.sum() > 100


def test_pairs_are_every_category_of_every_active_customer(world: World, trained: tuple[OfferModel, Backtest]) -> None:
    """Nobody silent for a year is ranked, nor who refuses profiling; `owned` marks what was bought before."""
    _, backtest = trained
    sizes = backtest.keys.groupby("customer_id").size()
    assert set(sizes) == {sizes.iloc[0]}
    judged = cross_sell.cutoffs(world.workspace, TRAINED_AT)[-1]
    last = pd.read_parquet(storage.snapshot_part(world.workspace.home_path, "purchases", judged))
    active = last.loc[last["days_since_last_purchase"] <= 365, "customer_id"]
    profile = pd.read_parquet(storage.snapshot_part(world.workspace.home_path, "profile", judged))
    refused = profile.loc[profile["profiling_consent"] == 0, "customer_id"]
    assert len(refused)
    assert set(sizes.index) == set(active) - set(refused)
    own = pd.read_parquet(storage.snapshot_part(world.workspace.home_path, "product_affinity", judged))
    owned = set(zip(own["customer_id"], own["item"], strict=True))
    pairs = zip(backtest.keys["customer_id"], backtest.keys["item"], strict=True)
    assert [pair in owned for pair in pairs] == backtest.owned.tolist()


def test_the_backtest_ranks_and_is_calibrated(trained: tuple[OfferModel, Backtest]) -> None:
    """Better than chance by far, and with probabilities that add up."""
    _, backtest = trained
    assert metrics.auc(backtest.bought, backtest.predicted) > 0.75
    assert backtest.predicted.sum() == pytest.approx(backtest.bought.sum(), rel=0.15)


def test_the_judged_window_taught_nothing_to_the_model_it_judges(
    world: World, trained: tuple[OfferModel, Backtest]
) -> None:
    """The backtest's predictions are those of a model of the two earlier windows; the final one knows all three."""
    *earlier, judged = cross_sell.cutoffs(world.workspace, TRAINED_AT)
    model, backtest = trained
    taught = cross_sell.learnt(
        world.workspace, [cross_sell.lesson(world.workspace, cutoff, judged) for cutoff in earlier]
    )
    rows = cross_sell.lesson(world.workspace, judged, TRAINED_AT).pairs.rows
    np.testing.assert_allclose(taught.probability(rows), backtest.predicted, rtol=1e-12)
    assert np.abs(model.probability(rows) - backtest.predicted).max() > 0.01


def test_without_products_it_is_refused_with_what_to_do(world: World) -> None:
    """By category there is nothing to rank; the sentence names the table and the way round it."""
    with pytest.raises(NoCrossSell, match=r"no products table.*; add tables.products, or set cross_sell.level to item"):
        cross_sell.train(without_products(world.workspace), TRAINED_AT)
    assert cross_sell.cutoffs(without_products(world.workspace), TRAINED_AT) == []


def test_without_a_closed_window_it_is_refused(world: World) -> None:
    """A horizon as long as the history leaves nothing to learn from, and the sentence says how long it is."""
    with pytest.raises(NoCrossSell, match=r"no 600-day window has closed with 200 days of history before it"):
        cross_sell.train(changed(world.workspace, horizon=600), TRAINED_AT)


def test_too_few_purchases_are_refused(world: World, tmp_path_factory: pytest.TempPathFactory) -> None:
    """With one category only, there is no choice to learn."""
    products = world.workspace.tables.products
    assert products is not None
    one = products.model_copy(update={"columns": {"category": "'everything'"}})
    alike = world.workspace.model_copy(
        update={
            "home": str(tmp_path_factory.mktemp("alike")),
            "tables": world.workspace.tables.model_copy(update={"products": one, "interactions": None}),
        }
    )
    intake.ingest(alike, datetime(2026, 1, 1, tzinfo=UTC))
    few = changed(alike.model_copy(update={"training": alike.training.model_copy(update={"min_history": 600})}))
    snapshot.snapshot(few, cross_sell.cutoffs(few, TRAINED_AT))
    with pytest.raises(NoCrossSell, match="fewer than two items"):
        cross_sell.train(few, TRAINED_AT)


def test_items_can_be_ranked_without_a_products_table(world: World, tmp_path_factory: pytest.TempPathFactory) -> None:
    """At level `item` the lines' own product ids are ranked: the popular ones, and those that the customer buys."""
    home = str(tmp_path_factory.mktemp("items"))
    items = changed(without_products(world.workspace), level="item").model_copy(update={"home": home})
    items = items.model_copy(update={"training": items.training.model_copy(update={"min_history": 540})})
    intake.ingest(items, datetime(2026, 1, 1, tzinfo=UTC))
    cutoffs = cross_sell.cutoffs(items, TRAINED_AT)
    snapshot.snapshot(items, cutoffs)
    backtest = cross_sell.judged_at(items, cutoffs[-1], cutoffs[:-1], TRAINED_AT)
    assert cross_sell.train(items, TRAINED_AT).level == "item"
    assert backtest.keys["item"].str.startswith("P").all()
    assert metrics.auc(backtest.bought, backtest.predicted) > 0.7
    bought = labels.items_bought(items, [cutoffs[-1]], TRAINED_AT)
    asked = bought["customer_id"].isin(backtest.keys["customer_id"]).sum()
    assert backtest.bought.sum() + len(backtest.missed) == asked


def test_a_sample_of_many_customers_is_the_same_every_time(world: World) -> None:
    """Chosen by a hash of the id: whatever the order, an id is in or out."""
    customers = retrieval.customers_at(world.workspace, TRAINED_AT).to_frame()
    chosen = set(cross_sell._sampled(customers, 50)["customer_id"])
    assert len(chosen) == 50
    assert set(cross_sell._sampled(customers[::-1], 50)["customer_id"]) == chosen
    assert set(cross_sell._sampled(customers, 20)["customer_id"]) < chosen


def test_a_sampled_lesson_has_whole_customers(world: World) -> None:
    """About so many pairs as asked for, and each customer's all."""
    judged = cross_sell.cutoffs(world.workspace, TRAINED_AT)[-1]
    whole, part = (cross_sell.lesson(world.workspace, judged, TRAINED_AT, n) for n in (10**9, 2_000))
    ids = part.pairs.customer_ids
    assert 1_900 < len(part.bought) <= 2_000
    kept = whole.pairs.keys["customer_id"].isin(ids).to_numpy()
    np.testing.assert_array_equal(part.bought, whole.bought[kept])
    assert part.n_bought == whole.n_bought


def test_a_lesson_of_so_many_customers_has_no_more(world: World) -> None:
    """What a backtest looks at: the same customers in every one, whoever is judged."""
    judged = cross_sell.cutoffs(world.workspace, TRAINED_AT)[-1]
    lessons = [cross_sell.lesson(world.workspace, judged, TRAINED_AT, most_customers=n) for n in (50, 20)]
    ids = [set(lesson.pairs.customer_ids) for lesson in lessons]
    assert [len(one) for one in ids] == [50, 20]
    assert ids[1] < ids[0]
