"""Scoring: the files it writes, when they are current, and what it refuses."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pyarrow.parquet as pq
import pytest
from workspaces import AS_OF, NEVER_BOUGHT, NO_PROFILING, scored

from features import retrieval, snapshot
from perennial import month
from serving import offers, scoring
from serving.predictor import Predictor
from tests.serving.conftest import Shop
from workspace import predictions, registry, storage
from workspace.settings import Workspace
from workspace.storage import CheckFailed


class Copy(NamedTuple):
    """A copy of the shop that a test may change, and its champions."""

    workspace: Workspace
    predictor: Predictor

    def score(self, predictor: Predictor | None = None) -> None:
        scoring.score(predictor or self.predictor, AS_OF)

    @property
    def scores(self) -> Path:
        return storage.scores_path(self.workspace.home_path, AS_OF)

    @property
    def offers(self) -> Path:
        return storage.offers_path(self.workspace.home_path, AS_OF)


@pytest.fixture
def copy(shop: Shop, tmp_path: Path) -> Iterator[Copy]:
    shutil.copytree(shop.workspace.home_path, tmp_path / "home", ignore=shutil.ignore_patterns("feast"))
    workspace = shop.workspace.model_copy(update={"home": str(tmp_path / "home")})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", shop.tracking_uri)
        yield Copy(workspace, Predictor.load(workspace, registry.client()))


def changed(predictor: Predictor, group: str, **settings: object) -> Predictor:
    workspace = predictor.workspace
    other = workspace.model_copy(update={group: getattr(workspace, group).model_copy(update=settings)})
    return replace(predictor, workspace=other)


def test_offers_have_the_fixed_columns_and_types(copy: Copy) -> None:
    """Customer, as_of, rank, item, probability, kind: in this order, with these types."""
    kinds = [(field.name, str(field.type)) for field in pq.read_schema(copy.offers)]
    assert kinds == [("customer_id", "string"), ("as_of", "date32[day]"), ("rank", "int32"), ("item", "string"),
                     ("probability", "double"), ("kind", "string")]  # fmt: skip
    assert pd.read_parquet(copy.offers)["as_of"].unique().tolist() == [AS_OF]


def test_scores_are_sorted_and_of_this_as_of(copy: Copy) -> None:
    """One file order whatever the engine's threads did."""
    scores = pd.read_parquet(copy.scores)
    assert scores["customer_id"].is_monotonic_increasing
    assert set(scores["as_of"]) == {AS_OF}


def test_who_was_not_scored_is_counted_by_reason(copy: Copy) -> None:
    """A marketer learns from the command itself how many are missing from the list, and why."""
    said: list[str] = []
    scores = scored(copy.predictor, AS_OF, said.append)
    reasons = scores["not_scored_reason"].value_counts()
    assert {"no consent to profiling", "no purchase yet"} < set(reasons.index)
    [told] = [line for line in said if line.startswith("offered ")]
    offers = pd.read_parquet(storage.offers_path(copy.workspace.home_path, AS_OF))
    reached = offers["customer_id"].nunique()
    assert told == f"offered {len(offers):,} items to {reached:,} of {len(scores):,} customers"
    [sentence] = [line for line in said if line.startswith("scored ")]
    first, *others = sentence.split("; ")
    assert first == f"scored {scores['not_scored_reason'].isna().sum()} of {len(scores)} customers"
    assert others == [f"{count} {reason}" for reason, count in reasons.items()]


def test_scoring_again_gives_the_same_files(copy: Copy) -> None:
    """The same champions on the same snapshot give the same rows."""
    before = pd.read_parquet(copy.scores), pd.read_parquet(copy.offers)
    copy.score()
    pd.testing.assert_frame_equal(pd.read_parquet(copy.scores), before[0])
    pd.testing.assert_frame_equal(pd.read_parquet(copy.offers), before[1])


def test_blocks_do_not_show(copy: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Customers scored, and offered items, fifty at a time, and ranked seventy at a time get what one block would."""
    written = (copy.scores, copy.offers, storage.risk_path(copy.workspace.home_path, AS_OF))
    before = [pq.read_table(path) for path in written]
    logged = predictions.read(copy.workspace)
    monkeypatch.setattr(retrieval, "_MOST", 50)
    monkeypatch.setattr(scoring, "_ROW_GROUP", 70)
    copy.score()
    for path, table in zip(written, before, strict=True):
        assert pq.read_table(path).equals(table, check_metadata=True)
    pd.testing.assert_frame_equal(predictions.read(copy.workspace), logged)
    assert pq.read_metadata(copy.offers).num_row_groups >= 400 / 50
    assert pq.read_metadata(copy.scores).num_row_groups == 6


def test_as_many_offers_as_asked_for(copy: Copy) -> None:
    """`cross_sell.top` is kept, and cannot exceed what there is: four categories."""
    first = pd.read_parquet(copy.offers).query("rank == 1").drop(columns="rank")
    for top, each in ((1, 1), (3, 3), (100, 4)):
        copy.score(changed(copy.predictor, "cross_sell", top=top))
        rows = pd.read_parquet(copy.offers)
        assert set(rows.groupby("customer_id").size()) == {each}
        best = rows.query("rank == 1").drop(columns="rank")
        pd.testing.assert_frame_equal(best.reset_index(drop=True), first.reset_index(drop=True))


def test_without_a_cross_sell_champion_nothing_is_offered(copy: Copy) -> None:
    """The file is there with its columns and no rows; scores name no model for it."""
    versions = {kind: name for kind, name in copy.predictor.versions.items() if kind != "cross_sell"}
    copy.score(replace(copy.predictor, offers=None, versions=versions))
    assert pq.read_table(copy.offers).schema.equals(offers.OFFERS)
    assert pd.read_parquet(copy.offers).empty
    assert pd.read_parquet(copy.scores)["cross_sell_model"].isna().all()


def test_what_was_scored_is_current(copy: Copy) -> None:
    """As long as champions, tables and the settings that shape answers are the same."""
    assert scoring.is_current(copy.predictor, AS_OF)
    assert scoring.is_current(changed(copy.predictor, "service", port=1), AS_OF)


def test_other_champions_settings_or_dates_are_not_current(copy: Copy) -> None:
    """Another version, other bands, another number of offers or another day call for scoring again."""
    promoted = replace(copy.predictor, versions={**copy.predictor.versions, "churn": "small.churn/2"})
    assert not scoring.is_current(promoted, AS_OF)
    assert not scoring.is_current(changed(copy.predictor, "bands", high=0.9), AS_OF)
    assert not scoring.is_current(changed(copy.predictor, "cross_sell", top=3), AS_OF)
    assert not scoring.is_current(copy.predictor, date(2023, 6, 30))


def test_other_tables_are_not_current(copy: Copy) -> None:
    """What was scored before the tables changed is scored again."""
    manifest = storage.tables_folder(copy.workspace.home_path, "customers") / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"part": "', '"part": "another-'))
    assert not scoring.is_current(copy.predictor, AS_OF)


def test_a_day_before_anyone_was_known_is_refused(copy: Copy) -> None:
    """No empty file for nobody: the sentence says that nobody is known, and what to do."""
    nobody = date(2021, 6, 1)
    snapshot.snapshot(copy.workspace, [nobody])
    with pytest.raises(CheckFailed, match="nobody is known at 2021-06-01; choose a later --as-of"):
        scoring.score(copy.predictor, nobody)
    assert not storage.scores_path(copy.workspace.home_path, nobody).exists()
    assert storage.latest_scored(copy.workspace.home_path) == AS_OF


@pytest.fixture
def challenged(copy: Copy) -> Iterator[Copy]:
    """With a challenger of churn: another version of the same files."""
    tracker = registry.client()
    first = registry.champion(tracker, copy.workspace, "churn")
    assert first is not None
    second = tracker.create_model_version(first.name, first.source, first.run_id, model_id=first.model_id)
    tracker.set_registered_model_alias(first.name, "challenger", second.version)
    yield copy
    tracker.delete_registered_model_alias(first.name, "challenger")
    tracker.delete_model_version(first.name, second.version)


def test_a_challenger_scores_unseen(challenged: Copy) -> None:
    """Into files and rows of the log of its own; what lists and service read stays the champion's, byte for byte."""
    before = challenged.scores.read_bytes()
    challengers = Predictor.shadow(challenged.workspace, registry.client())
    assert challengers is not None
    said: list[str] = []
    scoring.shadow(challenged.predictor, challengers, AS_OF, said.append)
    assert challenged.scores.read_bytes() == before
    unseen = pd.read_parquet(storage.shadow_path(challenged.workspace.home_path, AS_OF, "scores"))
    shown = pd.read_parquet(challenged.scores)
    assert unseen["customer_id"].tolist() == shown["customer_id"].tolist()
    assert {*unseen["churn_model"]} == {challengers.versions["churn"]} != {*shown["churn_model"]}
    assert {*unseen["lifetime_value_model"]} == {*shown["lifetime_value_model"]}
    logged = predictions.read(challenged.workspace, "shadow")
    assert {*logged["churn_model"]} == {challengers.versions["churn"]}
    assert len(logged) == int(unseen["lifetime_value"].notna().sum())
    assert not storage.shadow_path(challenged.workspace.home_path, AS_OF, "offers").exists()
    assert said == [f"scored unseen: {challengers.versions['churn']}"]
    scoring.shadow(challenged.predictor, challengers, AS_OF, said.append)
    assert len(said) == 1


def test_without_a_challenger_nothing_is_unseen(copy: Copy) -> None:
    """Most of the time there is none."""
    assert Predictor.shadow(copy.workspace, registry.client()) is None


def test_a_challenger_without_files_keeps_nobody_from_being_scored(challenged: Copy) -> None:
    """Its files are gone: a sentence, and the champion's scores are all there is."""
    tracker = registry.client()
    gone = tracker.create_model_version("small.churn", "file:///nowhere", tags={"as_of": str(AS_OF)})
    tracker.set_registered_model_alias("small.churn", "challenger", gone.version)
    said: list[str] = []
    month.shadow(challenged.predictor, AS_OF, said.append)
    assert len(said) == 1
    assert said[0].startswith("a challenger is not scored: the files of models:/small.churn/")
    assert not storage.shadow_path(challenged.workspace.home_path, AS_OF, "scores").exists()
    tracker.delete_model_version("small.churn", gone.version)


def test_repeats_and_new_items_are_ranked_apart(copy: Copy) -> None:
    """With `kind` only that kind is offered, in the order and with the probability that it has among both."""
    copy.score(changed(copy.predictor, "cross_sell", top=100))
    both = pd.read_parquet(copy.offers)
    for kind in ("repeat", "new"):
        copy.score(changed(copy.predictor, "cross_sell", top=100, kind=kind))
        rows, expected = pd.read_parquet(copy.offers), both[both["kind"] == kind]
        columns = ["customer_id", "item", "probability", "kind"]
        pd.testing.assert_frame_equal(rows[columns], expected[columns].reset_index(drop=True))
        assert (rows.groupby("customer_id")["rank"].max() == rows.groupby("customer_id").size()).all()


def test_what_may_not_be_offered_makes_room(copy: Copy) -> None:
    """An excluded item is in nobody's offers, and in no rule; the next ones move up."""
    copy.score(changed(copy.predictor, "cross_sell", top=3))
    before = pd.read_parquet(copy.offers)
    copy.score(changed(copy.predictor, "cross_sell", exclude=("tea",)))
    rows = pd.read_parquet(copy.offers)
    expected = before[before["item"] != "tea"].groupby("customer_id").head(2)
    assert rows[["customer_id", "item"]].to_numpy().tolist() == expected[["customer_id", "item"]].to_numpy().tolist()


def test_owned_one_offs_are_not_offered_again(copy: Copy) -> None:
    """By the rule's share alone: were everything a one-off, only new items would be left."""
    copy.score(changed(copy.predictor, "cross_sell", one_off=0.99))
    assert pd.read_parquet(copy.offers)["kind"].unique().tolist() == ["new"]


def test_newcomers_are_offered_what_sells(copy: Copy) -> None:
    """Who signed up and has not bought yet gets the most popular categories, as new; who refused profiling nothing."""
    rows = pd.read_parquet(copy.offers)
    popular = pd.read_parquet(storage.snapshot_part(copy.workspace.home_path, "popularity", AS_OF))
    best = popular.sort_values("item_buyers_365d", ascending=False)["item"].head(2).tolist()
    newcomers = rows[rows["customer_id"].isin([f"c{number:04}" for number in NEVER_BOUGHT])]
    assert newcomers.groupby("customer_id")["item"].agg(list).tolist() == [best] * len(NEVER_BOUGHT)
    assert newcomers["kind"].unique().tolist() == ["new"]
    assert newcomers["probability"].between(0.01, 1).all()
    assert not rows["customer_id"].isin([f"c{number:04}" for number in NO_PROFILING]).any()


def test_another_stock_list_is_not_current(copy: Copy, tmp_path: Path) -> None:
    """The file's name stays, its items change: the offers are made again."""
    stock = tmp_path / "stock.csv"
    pd.DataFrame({"item": ["tea", "cake"]}).to_csv(stock, index=False)
    listed = changed(copy.predictor, "cross_sell", stock=(str(stock),))
    copy.score(listed)
    assert set(pd.read_parquet(copy.offers)["item"]) == {"tea", "cake"}
    assert scoring.is_current(listed, AS_OF)
    pd.DataFrame({"item": ["tea"]}).to_csv(stock, index=False)
    assert not scoring.is_current(listed, AS_OF)
