"""Features online: what is offline, each publication under its own view, whole or not at all; on SQLite and Redis."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import replace
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
import redis
from builders import make_transactions
from feast.infra.online_stores.redis import RedisOnlineStore
from redis_server import ADDRESS, free_port, redis_for, redis_of_its_own

from features import online, online_erasure, packing, publications, retrieval, snapshot, stores
from features.families import purchases
from features.online import Row
from features.publications import FeatureMismatch, Publication, StaleFeatures
from perennial import cli
from tests.features.shops import open_shop, random_tables
from workspace import settings, storage
from workspace.settings import SettingsError, Workspace
from workspace.storage import CheckFailed
from workspace.windows import midnight

if TYPE_CHECKING:
    from feast import FeatureStore
    from numpy.typing import NDArray

SPRING, SUMMER, WINTER = date(2022, 4, 1), date(2022, 7, 1), date(2022, 12, 21)


class Shop(NamedTuple):
    workspace: Workspace
    store: FeatureStore

    @property
    def home(self) -> Path:
        return self.workspace.home_path

    def publish(self, as_of: date, progress: Callable[[str], None] = lambda _: None) -> Publication:
        online.publish(self.store, self.workspace, as_of, progress)
        return self.published

    @property
    def published(self) -> Publication:
        publication = publications.published(self.home)
        assert publication is not None
        return publication

    def offline(self, as_of: date) -> dict[str, NDArray[np.float32]]:
        """What Feast's historical store says of every customer known then, in the order of the catalogue now."""
        rows = retrieval.customer_rows(self.store, self.workspace, [as_of])
        names = [feature.name for feature in snapshot.customer_features(self.workspace)]
        return dict(zip(rows["customer_id"], retrieval.matrix(rows, names), strict=True))

    def check(self) -> None:
        online.check(self.store, self.workspace, self.published, publications.expected_hash(self.workspace))

    def online(self, *customer_ids: str) -> dict[str, NDArray[np.float32]]:
        return self.read(self.published, customer_ids)

    def read(self, publication: Publication, customer_ids: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        rows = online.online_rows(self.store, self.workspace, publication, customer_ids)
        return {customer_id: row.vector for customer_id, row in rows.items()}


@pytest.fixture(scope="module")
def snapshots(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A shop with three snapshots and nothing online; `late` first buys after the first two."""
    tables = random_tables(5)
    rows = [("late", "2022-11-01", 5.0), ("Zoë/7 & co", "2022-01-01", 5.0)]
    lines = make_transactions(rows, product_id="p0").astype({"occurred_at": "datetime64[us]"})
    tables["transactions"] = pd.concat([tables["transactions"], lines], ignore_index=True)
    workspace = open_shop(
        tmp_path_factory.mktemp("shop"), tables, name=f"shop_{os.getpid()}", timezone="Europe/Berlin",
        attributes=["city", "birth_year"],
    )  # fmt: skip
    snapshot.snapshot(workspace, [SPRING, SUMMER, WINTER])
    return workspace


def opened(snapshots: Workspace, home: Path, **changes: str) -> Shop:
    shutil.copytree(snapshots.home_path, home)
    workspace = snapshots.model_copy(update={"home": str(home), **changes})
    return Shop(workspace, retrieval.apply(workspace))


@pytest.fixture(params=["sqlite", "redis"])
def shop(request: pytest.FixtureRequest, snapshots: Workspace, tmp_path: Path) -> Iterator[Shop]:
    """The shop with a home of its own, on either store."""
    with redis_for(snapshots.name) if request.param == "redis" else nullcontext("sqlite") as address:
        yield opened(snapshots, tmp_path / "home", online=address)


def assert_same(vectors: dict[str, NDArray[np.float32]], expected: dict[str, NDArray[np.float32]]) -> None:
    assert list(vectors) == list(expected)
    rows, expected_rows = np.stack(list(vectors.values())), np.stack(list(expected.values()))
    assert rows.dtype == np.float32
    np.testing.assert_array_equal(rows.view(np.uint32), expected_rows.view(np.uint32))


class Killed(BaseException):
    """Stands for a signal in the middle of a publication."""


def kill_after_ten(shop: Shop, as_of: date, monkeypatch: pytest.MonkeyPatch) -> None:
    """Starts to publish and stops once ten customers are online."""

    def stop(said: str) -> None:
        raise Killed(said)

    monkeypatch.setattr(packing, "_BLOCK", 5)
    monkeypatch.setattr(online, "_TOLD_EVERY", 10)
    with pytest.raises(Killed, match=r"^10 of \d\d customers are online"):
        shop.publish(as_of, stop)


def permute(monkeypatch: pytest.MonkeyPatch) -> None:
    """The catalogue of the next version: the same features, two of them in each other's place."""
    first, second, *rest = purchases.FEATURES
    monkeypatch.setattr(purchases, "FEATURES", (second, first, *rest))


def empty(shop: Shop, view: str) -> None:
    """Takes a publication out of the online store, as a restart without a disk would take everything."""
    if shop.workspace.online == "sqlite":
        with sqlite3.connect(shop.home / "feast" / "online.db") as connection:
            connection.execute(f"DELETE FROM {shop.workspace.name}_{view}")
        connection.close()
    else:
        client = redis.Redis.from_url(ADDRESS)
        for key in client.scan_iter(f"*{shop.workspace.name}"):
            client.delete(key)
        client.close()


# Writing and reading


def test_online_equals_offline_bit_for_bit(shop: Shop) -> None:
    """Every customer known at the published as_of has the historical row as one vector, nulls included."""
    shop.publish(WINTER)
    expected = shop.offline(WINTER)
    vectors = shop.online(*expected)
    assert_same(vectors, expected)
    assert np.isnan(np.stack(list(vectors.values()))).any()
    shop.check()


def test_feast_reads_it_under_a_name_that_stays(shop: Shop) -> None:
    """Any other program asks Feast for the service `customer_vector_v1` and gets the publication that answers."""
    for as_of in (WINTER, SUMMER):
        shop.publish(as_of)
        service = shop.store.get_feature_service("customer_vector_v1")
        assert service.tags["as_of"] == str(as_of)
        answer = shop.store.get_online_features(service, [{"customer_id": "c05"}]).to_dict()
        np.testing.assert_array_equal(np.float32(answer["vector"][0]), shop.offline(as_of)["c05"])


def answered(shop: Shop, features: Any, *customer_ids: str) -> pd.DataFrame:
    """What Feast itself says online, a row per customer."""
    rows = [{"customer_id": customer_id} for customer_id in customer_ids]
    answer = shop.store.get_online_features(features, rows).to_dict()
    return pd.DataFrame(answer, dtype=object).set_index("customer_id")


def test_feasts_own_names_answer_online_as_offline(shop: Shop) -> None:
    """Every feature of every family, one by one or as the service of a model, is what the point-in-time join says;
    null stays null, who is unknown has nothing."""
    shop.publish(WINTER)
    asked = ["c05", "late", "Zoë/7 & co", "c01"]
    instant = pd.Timestamp(midnight(WINTER, shop.workspace.timezone))
    entities = pd.DataFrame({"customer_id": asked, "event_timestamp": instant.as_unit("us")})
    views = [shop.store.get_feature_view(family) for family in snapshot.CUSTOMER_FAMILIES]
    for features in (
        [f"{view.name}:{field.name}" for view in views for field in view.features],
        shop.store.get_feature_service("churn_v1"),
    ):
        offline = shop.store.get_historical_features(entities, features).to_df().set_index("customer_id")
        served = answered(shop, features, *asked, "nobody")
        assert served.loc["nobody"].isna().all()
        expected = offline.drop(columns="event_timestamp").loc[asked].astype("float32")
        pd.testing.assert_frame_equal(served.loc[asked, expected.columns].astype("float32"), expected)
        assert served.loc[asked].isna().to_numpy().any()
    assert served.loc["c05", "spend_90d"] is not None
    assert answered(shop, ["purchases:spend_90d"], "c05").equals(served.loc[["c05"], ["spend_90d"]])


def test_feasts_own_names_answer_with_what_was_pushed(shop: Shop) -> None:
    """A customer whom an event concerned is answered for as of then, by whatever name the features are asked for."""
    published = shop.publish(WINTER)
    names = [feature.name for feature in snapshot.customer_features(shop.workspace)]
    vector = np.arange(len(names), dtype=np.float32)
    online.push(shop.store, shop.workspace, published, {"c05": Row(vector, WINTER + timedelta(days=1))})
    row = answered(shop, ["profile:tenure_days", "basket:margin_365d"], "c05").loc["c05"]
    assert row.to_dict() == {name: names.index(name) for name in row.index}


def test_feasts_own_names_say_what_is_not_online(shop: Shop) -> None:
    """Nothing published, a publication that is gone and features of items are a sentence, not a null."""
    with pytest.raises(CheckFailed, match="nothing is published yet; run `perennial publish`"):
        answered(shop, ["purchases:spend_90d"], "c05")
    published = shop.publish(WINTER)
    row = {"customer_id": "c05", "item": "p0"}
    with pytest.raises(CheckFailed, match="product_affinity is not online"):
        shop.store.get_online_features(["product_affinity:item_spend_90d"], [row])
    empty(shop, published.view)
    with pytest.raises(StaleFeatures, match=r"are not in .*: run `perennial publish --as-of 2022-12-21`"):
        answered(shop, ["purchases:spend_90d"], "c05")


def test_the_view_names_its_columns_and_their_hash(shop: Shop) -> None:
    """Order, hash and as_of are on the view, the hash that of the models'."""
    view = shop.store.get_feature_view(shop.publish(WINTER).view)
    names = [feature.name for feature in snapshot.customer_features(shop.workspace)]
    assert view.features[0].tags["order"].split() == names
    assert view.tags["features_hash"] == snapshot.features_hash(names) == publications.expected_hash(shop.workspace)
    assert view.tags["as_of"] == str(WINTER)


def test_who_is_not_known_is_absent(shop: Shop) -> None:
    """Who came later, or never, has no vector; those asked for with them have theirs, an id asked twice once."""
    shop.publish(SUMMER)
    assert list(shop.online("nobody", "late", "c05", "", "Zoë/7 & co", "c05")) == ["c05", "Zoë/7 & co"]
    assert shop.online() == {}


def test_settings_that_are_tried_out_change_no_answer(shop: Shop) -> None:
    """A training or a data frame with other settings leaves those that the service reads; a publication has its own."""
    shop.publish(WINTER)
    home, bands = shop.workspace.home_path, shop.workspace.bands.model_copy(update={"high": 0.9})
    tried = shop.workspace.model_copy(update={"bands": bands})
    retrieval.apply(tried)
    assert settings.of_home(home).bands == shop.workspace.bands
    online.publish(shop.store, tried, WINTER)
    assert settings.of_home(home).bands == bands
    shop.publish(WINTER)
    assert settings.of_home(home).bands == shop.workspace.bands


def test_the_next_publication_takes_over_whole(shop: Shop) -> None:
    """Published for a later or an earlier as_of, every answer is of that as_of, and who is not known then goes."""
    for as_of in (SUMMER, WINTER, SUMMER, SPRING):
        assert shop.publish(as_of).as_of == as_of
        expected = shop.offline(as_of)
        assert_same(shop.online(*expected), expected)
        assert ("late" in shop.online("late", "c05")) == (as_of == WINTER)


def test_new_figures_of_the_same_day_replace_the_old(shop: Shop) -> None:
    """A snapshot made anew for the same as_of, after a late delivery, is published over the old one."""
    before, old = shop.publish(WINTER), shop.offline(WINTER)
    part = storage.snapshot_part(shop.home, "purchases", WINTER)
    rows = pd.read_parquet(part)
    rows["spend"] += 1000
    rows.to_parquet(part / "part.parquet", index=False)
    (part / "_stamp").write_text("another delivery")
    assert shop.publish(WINTER).view != before.view
    new = shop.offline(WINTER)
    assert_same(shop.online(*new), new)
    assert_same(shop.read(before, list(old)), old)
    assert not np.array_equal(new["c05"], old["c05"])


def test_publishing_once_more_writes_nothing(shop: Shop) -> None:
    """What is online already stays as it is, and that is said."""
    shop.publish(WINTER)
    files = [publications.published_path(shop.home), *(shop.home / "online").rglob("*.*")]
    before, said = [file.stat().st_mtime_ns for file in files], []
    shop.publish(WINTER, said.append)
    assert said == ["features of 2022-12-21 are online already"]
    assert [file.stat().st_mtime_ns for file in files] == before


def test_the_last_two_publications_are_kept_and_no_more(shop: Shop) -> None:
    """A service may still read the one before; older ones leave the registry, the home and the online store."""
    views = [shop.publish(as_of).view for as_of in (SPRING, SUMMER, WINTER)]
    kept = {view.name for view in shop.store.list_feature_views() if view.name.startswith("customer_vector")}
    assert kept == set(views[1:]) == {folder.name for folder in (shop.home / "online").iterdir()}
    if shop.workspace.online == "sqlite":
        with sqlite3.connect(shop.home / "feast" / "online.db") as connection:
            tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        connection.close()
        assert {name.partition(f"{shop.workspace.name}_")[2] for name in tables if "vector" in name} == kept
    else:
        client = redis.Redis.from_url(ADDRESS)
        fields = {field for key in client.scan_iter(f"*{shop.workspace.name}") for field in client.hkeys(key)}
        client.close()
        assert {field[4:].decode() for field in fields if field.startswith(b"_ts:")} == kept
        assert len(fields) == 2 * len(kept)


# What lies beside the vectors


def praise(customers: online.Customers) -> list[bytes]:
    """Something of each customer but one, by their own vector."""
    pairs = zip(*customers, strict=True)
    return [b"" if one == "c06" else f"{one}: {np.nansum(vector):.3f}".encode() for one, vector in pairs]


@pytest.mark.parametrize("many", [online._MANY, 1])
def test_answers_lie_beside_the_vectors_of_their_customers(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, many: int
) -> None:
    """Each as it was told of the customer's own vector, whatever is in the id, and by whichever process; of who has
    none, nothing."""
    monkeypatch.setattr(online, "_MANY", many)
    monkeypatch.setattr(packing, "_BLOCK", 3)
    online.publish(shop.store, shop.workspace, WINTER, answers=online.Answers("first", praise))
    vectors, published = shop.offline(WINTER), shop.published
    asked = ["nobody", *vectors]
    expected = dict(zip(vectors, praise((list(vectors), np.stack(list(vectors.values())))), strict=True))
    del expected["c06"]
    assert online.answers(shop.store, published, asked) == expected
    assert "Zoë/7 & co" in expected
    assert_same(shop.online(*vectors), vectors)
    shop.check()


def test_an_event_takes_the_answer_of_its_customer_away(shop: Shop) -> None:
    """What was told of the vector before holds no longer; of the others it does."""
    online.publish(shop.store, shop.workspace, WINTER, answers=online.Answers("first", praise))
    row = online.online_rows(shop.store, shop.workspace, shop.published, ["c05"])["c05"]
    online.push(shop.store, shop.workspace, shop.published, {"c05": row._replace(as_of=WINTER + timedelta(days=1))})
    assert set(online.answers(shop.store, shop.published, ["c05", "c07"])) == {"c07"}
    assert_same(shop.online("c05"), {"c05": row.vector})


def test_other_answers_are_another_publication(shop: Shop) -> None:
    """The vectors are the same; whoever still reads the one before finds what it was published with."""
    published = []
    second = online.Answers("second", lambda customers: [b"no"] * len(customers[0]))
    for answers in (None, online.Answers("first", praise), second):
        online.publish(shop.store, shop.workspace, WINTER, answers=answers)
        published.append(shop.published)
    assert online.answers(shop.store, published[0], ["c05"]) == {}
    assert online.answers(shop.store, published[1], ["c05"])["c05"].startswith(b"c05: ")
    assert online.answers(shop.store, published[2], ["c05"]) == {"c05": b"no"}
    assert_same(shop.read(published[2], ["c05"]), shop.read(published[1], ["c05"]))


def test_answers_go_with_their_publication(shop: Shop) -> None:
    """Nothing of what was told is left in the online store once two others have followed."""
    for as_of in (SPRING, SUMMER, WINTER):
        online.publish(shop.store, shop.workspace, as_of, answers=online.Answers(str(as_of), praise))
    client = redis.Redis.from_url(ADDRESS)
    if stores.in_redis(shop.store):
        keys = list(client.scan_iter(f"*{shop.workspace.name}"))
        assert {client.hlen(key) for key in keys} <= {3, 6}
    client.close()
    with pytest.raises(StaleFeatures):
        shop.read(replace(shop.published, view="customer_vector_gone"), ["c05"])


# Killed, changed and lost


def test_a_killed_publication_goes_on_where_it_stopped(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until the new one is whole the old one answers; then what was written is kept and the rest follows."""
    shop.publish(SUMMER)
    kill_after_ten(shop, WINTER, monkeypatch)
    shop.check()
    assert shop.published.as_of == SUMMER
    assert_same(shop.online("c05", "c29"), {name: shop.offline(SUMMER)[name] for name in ("c05", "c29")})
    said: list[str] = []
    shop.publish(WINTER, said.append)
    assert said[:2] == ["10 of 38 customers are online already", "20 of 38 customers are online"]
    expected = shop.offline(WINTER)
    assert_same(shop.online(*expected), expected)


def test_what_the_store_has_lost_meanwhile_is_written_again(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """A killed publication does not trust its note when the store was emptied before it goes on."""
    shop.publish(SUMMER)
    kill_after_ten(shop, WINTER, monkeypatch)
    empty(shop, next(each.view for each in publications.stored(shop.home) if each.as_of == WINTER))
    shop.publish(WINTER)
    expected = shop.offline(WINTER)
    assert_same(shop.online(*expected), expected)


def test_another_order_of_the_features_is_refused_until_it_is_published(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither registering a changed catalogue nor half a publication of it puts old vectors under its hash."""
    old_vectors, before = shop.offline(WINTER), shop.publish(WINTER)
    permute(monkeypatch)
    retrieval.apply(shop.workspace)
    with pytest.raises(FeatureMismatch, match=f"have hash {before.features_hash}, the champions expect .*: run"):
        shop.check()
    kill_after_ten(shop, WINTER, monkeypatch)
    with pytest.raises(FeatureMismatch, match=f"have hash {before.features_hash}"):
        shop.check()
    new_vectors, after = shop.offline(WINTER), shop.publish(WINTER)
    shop.check()
    assert_same(shop.online(*new_vectors), new_vectors)
    assert not np.array_equal(new_vectors["c05"], old_vectors["c05"])
    assert after.features_hash != before.features_hash
    assert_same(shop.read(before, list(old_vectors)), old_vectors)


def test_an_unfinished_publication_gives_its_own_vectors_or_none(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever reads a half-written view meets a refusal or the right numbers, whatever was online before."""
    shop.publish(WINTER)
    permute(monkeypatch)
    kill_after_ten(shop, WINTER, monkeypatch)
    unfinished = next(each for each in publications.stored(shop.home) if each.view != shop.published.view)
    expected = shop.offline(WINTER)
    written, missing = sorted(expected)[:10], sorted(expected)[10:]
    assert_same(shop.read(unfinished, written), {name: expected[name] for name in written})
    for customer_id in missing:
        with pytest.raises(StaleFeatures):
            shop.read(unfinished, [customer_id])


def test_an_emptied_store_is_stale_not_unknown(shop: Shop) -> None:
    """When the store has lost what was published nobody is called unknown; publishing again mends it."""
    shop.publish(WINTER)
    empty(shop, shop.published.view)
    message = "the features published for 2022-12-21 are not in .*: run `perennial publish --as-of 2022-12-21`"
    with pytest.raises(StaleFeatures, match=message):
        shop.online("c05")
    with pytest.raises(StaleFeatures, match=message):
        shop.check()
    said: list[str] = []
    shop.publish(WINTER, said.append)
    assert re.fullmatch(r"the online store had lost features of 2022-12-21: those of \d+ customers are .* again", *said)
    shop.check()
    assert_same(shop.online("c05"), {"c05": shop.offline(WINTER)["c05"]})


def test_publishing_again_finds_one_customer_who_is_lost(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """However few the store has lost, what is told to mend it does."""
    monkeypatch.setattr(packing, "_SAMPLE", 2)
    shop.publish(WINTER)
    lose(shop, "c05")
    shop.publish(WINTER)
    assert_same(shop.online("c05"), {"c05": shop.offline(WINTER)["c05"]})


def lose(shop: Shop, customer_id: str) -> None:
    """Takes one row out of the online store."""
    if stores.in_redis(shop.store):
        with redis.Redis.from_url(ADDRESS) as client:
            assert client.delete(online_erasure.redis_name(shop.store, customer_id))
        return
    with closing(sqlite3.connect(shop.home / "feast" / "online.db")) as connection, connection:
        table, name = (
            f"{shop.workspace.name}_{shop.published.view}",
            online_erasure.sqlite_name(shop.store, customer_id),
        )
        assert connection.execute(f"DELETE FROM {table} WHERE entity_key = ?", (name,)).rowcount


def test_a_removed_publication_is_stale(shop: Shop) -> None:
    """Who still reads one that is two publications old is told so."""
    oldest = shop.publish(SPRING)
    for as_of in (SUMMER, WINTER):
        shop.publish(as_of)
    with pytest.raises(StaleFeatures, match=f"run `perennial publish --as-of {SPRING}`"):
        shop.read(oldest, ["c05"])


# What needs no store of its own


@pytest.fixture(scope="module")
def embedded(snapshots: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """The shop on SQLite, published at WINTER."""
    shop = opened(snapshots, tmp_path_factory.mktemp("embedded") / "home")
    shop.publish(WINTER)
    return shop


def test_what_was_scored_again_since_is_stale(embedded: Shop) -> None:
    """Scores newer than the publication call for another one; scores that are gone do not."""
    scores = storage.scores_path(embedded.home, WINTER)
    with storage.connect(embedded.home) as connection:
        storage.copy_to(connection, "SELECT 1 AS x", scores, metadata={"perennial": "later"})
    with pytest.raises(StaleFeatures, match="2022-12-21 was scored again after its features were published"):
        embedded.check()
    embedded.publish(WINTER)
    embedded.check()
    scores.unlink()
    embedded.check()


def test_what_lies_in_another_store_is_stale(embedded: Shop) -> None:
    """Settings that name another store than the publication lies in call for publishing to that one."""
    elsewhere = embedded.workspace.model_copy(update={"online": "redis://:${NOBODYS}@127.0.0.1:1/4"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NOBODYS", "hush")
        with pytest.raises(StaleFeatures, match=r"another online store \(sqlite, not redis://127.0.0.1:1/4\): run"):
            online.check(embedded.store, elsewhere, embedded.published, publications.expected_hash(elsewhere))


def test_a_vector_of_another_length_is_refused(embedded: Shop) -> None:
    """A row that has not one number per feature is never served."""
    shorter = replace(embedded.published, features=embedded.published.features[1:])
    with pytest.raises(FeatureMismatch, match=r"a vector in customer_vector_.* has not .* features"):
        embedded.read(shorter, ["c05"])


def test_an_as_of_without_a_snapshot_is_not_published(embedded: Shop) -> None:
    """It names the command to run first, and what was published stays."""
    with pytest.raises(CheckFailed, match="purchases has no snapshot at 2022-07-03; run `perennial snapshot"):
        embedded.publish(date(2022, 7, 3))
    embedded.check()


def test_every_definition_says_what_it_is_and_whose(embedded: Shop) -> None:
    """Entities, views, fields and services have an owner; fields a unit and a window; all a description."""
    store = embedded.store
    families = [view for view in store.list_feature_views() if view.name in snapshot.families(embedded.workspace)]
    for definition in (*store.list_entities(), *store.list_feature_views(), *store.list_feature_services()):
        assert definition.description, definition.name
        assert definition.owner == definition.tags["owner"] == "perennial", definition.name
    for field in (field for view in families for field in view.features):
        assert field.description, field.name
        assert field.tags.keys() == {"unit", "window", "owner"}, field.name


# Where things lie, by the settings


def test_a_redis_that_is_down_is_a_sentence(snapshots: Workspace, tmp_path: Path) -> None:
    """Publishing to it fails with its address and what to do."""
    shop = opened(snapshots, tmp_path / "home", online="redis://127.0.0.1:1/0")
    with pytest.raises(CheckFailed, match=r"Redis at 127.0.0.1:1, does not answer: .*; start it, or mend the setting"):
        shop.publish(WINTER)


def test_what_redis_refuses_is_told_without_a_customer(snapshots: Workspace, tmp_path: Path) -> None:
    """Whoever reads or writes, by Feast's own names too, learns what Redis said and what to do, and never the command,
    which holds ids."""
    address = f"redis://127.0.0.1:{free_port()}/0"
    with redis_of_its_own(address, tmp_path) as own, redis.Redis(port=own.port) as client:
        shop = opened(snapshots, tmp_path / "home", online=address)
        client.config_set("maxmemory", 1)
        assert told_by(lambda: shop.publish(WINTER)).endswith(
            "is full: it takes nothing in; raise its `maxmemory`, or make room in it"
        )
        client.config_set("maxmemory", 0)
        shop.publish(WINTER)
        client.set(online_erasure.redis_name(shop.store, "c05"), "a text")
        told = told_by(lambda: shop.online("c05"))
        assert "refuses: WRONGTYPE Operation against a key holding the wrong kind of value" in told
        for asked in (["purchases:spend_90d"], shop.store.get_feature_service("customer_vector_v1")):
            assert told_by(partial(answered, shop, asked, "c05")) == told
        own.stop()
        assert "does not answer: " in told_by(partial(answered, shop, ["purchases:spend_90d"], "c05"))


def told_by(act: Callable[[], object]) -> str:
    """What is said of a refusal, in which no command is, nor in its traceback."""
    with pytest.raises(CheckFailed) as refused:
        act()
    assert not re.search(r"\bc\d\d\b|customer_id|HMGET|HSET", str(refused.value))
    assert "of pipeline caused error" not in "".join(traceback.format_exception(refused.value))
    return str(refused.value)


def test_publish_to_a_redis_that_is_down_ends_with_1(
    snapshots: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command line says it without a traceback; what was published before is untouched."""
    home = shutil.copytree(snapshots.home_path, tmp_path / "home")
    config = snapshots.home_path.parent / "shop.yaml"
    options = ["-c", str(config), "--home", str(home), "--set", "online=redis://127.0.0.1:1/0", "--as-of", str(WINTER)]
    monkeypatch.setattr(sys, "argv", ["perennial", "publish", *options])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    assert "error: the online store, Redis at 127.0.0.1:1, does not answer" in capsys.readouterr().err
    assert not publications.published_path(home).exists()


@pytest.mark.parametrize(
    ("changes", "driver", "message"),
    [
        ({"online": "redis://127.0.0.1:6379/0"}, "redis", r"`online` needs a driver.*install 'perennial-crm\[redis\]'"),
        ({"registry": "postgresql://db/x"}, "psycopg", r"`registry` needs a driver.*'perennial-crm\[postgres\]'"),
    ],
)
def test_an_extra_that_is_absent_is_named(
    changes: dict[str, str], driver: str, message: str, snapshots: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without its driver, the setting's sentence says what to install."""
    monkeypatch.setitem(sys.modules, driver, None)
    with pytest.raises(SettingsError, match=message):
        stores.feast_settings(snapshots.model_copy(update=changes))


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("http://db:1", "`online` is neither `sqlite` nor an address such as redis://host:port/0"),
        ("redis://", "`online` is neither"),
        ("redis://db:many/0", "`online` is neither"),
        ("redis://db:1/first", r"`online` ends in /first: Redis numbers its databases"),
    ],
)
def test_a_variable_with_another_address_is_refused(
    address: str, message: str, snapshots: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the variable holds is checked where it is used; it is not shown, since it may hold a password."""
    monkeypatch.setenv("TEST_REDIS", address)
    with pytest.raises(SettingsError, match=message):
        stores.feast_settings(snapshots.model_copy(update={"online": "${TEST_REDIS}"}))


@pytest.mark.parametrize("password", ["plain", "12345", "a,b=c", 'q"uo\\te', "sl/ash@at:"])
def test_any_password_reaches_redis_and_no_file(
    password: str, snapshots: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Feast's own parser gives it back as it was; the files in the home name a variable instead."""
    from urllib.parse import quote

    monkeypatch.setenv("TEST_REDIS", f"rediss://crm:{quote(password, safe='')}@cache.example:6380/3")
    workspace = snapshots.model_copy(update={"home": str(tmp_path), "online": "${TEST_REDIS}"})
    online_store = stores.feast_settings(workspace)["online_store"]
    nodes, options = RedisOnlineStore._parse_connection_string(online_store["connection_string"])
    assert nodes == [{"host": "cache.example", "port": "6380"}]
    assert (options["db"], options["ssl"], options["username"], options["password"]) == (3, True, "crm", password)
    assert stores.online_address(workspace) == "redis://cache.example:6380/3"
    stores.write_for_feast(workspace)
    assert "${PERENNIAL_ONLINE_PASSWORD}" in (tmp_path / "feast" / "feature_store.yaml").read_text()
    assert password not in (tmp_path / "feast" / "feature_store.yaml").read_text()


def test_settings_are_kept_with_the_variables_name(snapshots: Workspace, tmp_path: Path) -> None:
    """What a home keeps of its settings names the variable, and can be read again without it."""
    home = shutil.copytree(snapshots.home_path, tmp_path / "home")
    config = snapshots.home_path.parent / "shop.yaml"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TEST_REDIS", "redis://:hush@127.0.0.1:1/0")
        workspace = settings.read(config, ["online=${TEST_REDIS}"], home)
        retrieval.apply(workspace)
        settings.keep(workspace)
    kept = storage.read_json(home / "workspace.json")
    assert kept["online"] == "${TEST_REDIS}"
    assert settings.parse(kept, "again").online == "${TEST_REDIS}"
    assert not [path for path in home.rglob("*") if path.is_file() and b"hush" in path.read_bytes()]
