"""Spark gives what DuckDB gives, and Feast joins on either."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Iterator
from datetime import date
from itertools import product
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pytest

from features import on_spark, retrieval, snapshot
from tests.features.shops import EDGES_AT, open_shop, random_tables
from workspace.settings import SettingsError, Workspace

AS_OF = [*EDGES_AT[:2]]
OF_ITEMS = ("basket", *snapshot.ITEM_FAMILIES)
# For a shop of a thousand lines, compiling what Spark generates would take most of the time.
QUICK = {
    "spark.master": "local[2]",
    "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
    "spark.sql.adaptive.enabled": "false",
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.shuffle.partitions": "2",
}
pytestmark = [
    pytest.mark.filterwarnings("ignore:The spark data source API is an experimental feature"),
    pytest.mark.filterwarnings("ignore:The spark offline store is an experimental feature"),
]


class Pair(NamedTuple):
    """The same shop on either engine, in homes of their own; both have their snapshots.

    by_spark: at which dates Spark computed each family; its other parts are DuckDB's, for planning the queries of each
    takes most of the time.
    """

    duckdb: Workspace
    spark: Workspace
    by_spark: dict[str, list[date]]


@pytest.fixture(scope="module")
def spark_defaults(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Spark's own configuration, as a company would write it; one session for the module. Without Spark: skipped."""
    java = shutil.which("java", path=f"{home}/bin" if (home := os.environ.get("JAVA_HOME")) else None)
    if importlib.util.find_spec("pyspark") is None or java is None:
        message = "pyspark or Java is not installed: pip install 'perennial-crm[spark]'"
        pytest.fail(message) if os.environ.get("CI") == "true" else pytest.skip(message)
    folder = tmp_path_factory.mktemp("conf")
    folder.joinpath("spark-defaults.conf").write_text("".join(f"{key} {value}\n" for key, value in QUICK.items()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPARK_CONF_DIR", str(folder))
        yield
    from pyspark.sql import SparkSession

    if session := SparkSession.getActiveSession():
        session.stop()


def make_pair(folder: Path, level: str, as_of: list[date], by_spark: dict[str, list[date]]) -> Pair:
    """A shop with returns, late rows and gaps, ranked by category or by item."""
    keys = {"attributes": ["city", "birth_year"], "cross_sell": {"level": level}}
    here = open_shop(folder, random_tables(11), timezone="Europe/Berlin", **keys)
    home = shutil.copytree(here.home_path, folder / "spark")
    there = here.model_copy(update={"home": str(home), "engine": "spark"})
    snapshot.snapshot(here, as_of)
    for family, day in product(snapshot.KEYS, as_of):
        if day not in by_spark.get(family, ()):
            part = snapshot.storage.snapshot_part(here.home_path, family, day)
            shutil.copytree(part, snapshot.storage.snapshot_part(home, family, day))
    snapshot.snapshot(there, as_of)
    return Pair(here, there, by_spark)


@pytest.fixture(scope="module")
def by_category(spark_defaults: None, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """Customers at two dates on a window's edge, categories at the first."""
    by_spark = dict.fromkeys(snapshot.CUSTOMER_FAMILIES, AS_OF) | dict.fromkeys(snapshot.ITEM_FAMILIES, AS_OF[:1])
    return make_pair(tmp_path_factory.mktemp("category"), "category", AS_OF, by_spark)


@pytest.fixture(scope="module")
def by_item(spark_defaults: None, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """What depends on items at the second."""
    return make_pair(tmp_path_factory.mktemp("item"), "item", AS_OF[1:], dict.fromkeys(OF_ITEMS, AS_OF[1:]))


def part(workspace: Workspace, family: str, as_of: date) -> pd.DataFrame:
    path = snapshot.storage.snapshot_part(workspace.home_path, family, as_of)
    return pd.read_parquet(path).sort_values(list(snapshot.KEYS[family]), ignore_index=True)


@pytest.mark.parametrize(
    ("shop", "family"), [*product(["by_category"], snapshot.KEYS), *product(["by_item"], OF_ITEMS)]
)
def test_spark_gives_what_duckdb_gives(shop: str, family: str, request: pytest.FixtureRequest) -> None:
    """The same rows, columns, types and nulls in every family; figures equal to the fifth digit."""
    pair: Pair = request.getfixturevalue(shop)
    for as_of in pair.by_spark[family]:
        by_spark, expected = part(pair.spark, family, as_of), part(pair.duckdb, family, as_of)
        assert len(expected) > 0
        pd.testing.assert_frame_equal(by_spark, expected, rtol=1e-5, atol=1e-6)


def test_feast_joins_on_spark_what_it_joins_on_duckdb(by_category: Pair) -> None:
    """Out of the parts that Spark wrote, either offline store makes the same rows for training."""
    rows = {}
    for engine in ("duckdb", "spark"):
        workspace = by_category.spark.model_copy(update={"engine": engine})
        rows[engine] = retrieval.customer_rows(retrieval.apply(workspace), workspace, AS_OF)
    assert rows["spark"].groupby("as_of").size().gt(20).tolist() == [True, True]
    pd.testing.assert_frame_equal(rows["spark"], rows["duckdb"])
    for as_of, joined in rows["duckdb"].groupby("as_of"):
        pd.testing.assert_frame_equal(retrieval.rows_at(by_category.spark, as_of.date()), joined.reset_index(drop=True))


def test_spark_is_configured_by_its_own_file(by_category: Pair) -> None:
    """What spark-defaults.conf says holds; what it does not say keeps Spark quiet, on this machine and in the home."""
    session = on_spark.session(by_category.spark)
    assert session.conf.get("spark.sql.shuffle.partitions") == "2"
    assert session.conf.get("spark.sql.adaptive.enabled") == "false"
    assert session.conf.get("spark.driver.bindAddress") == "127.0.0.1"
    assert session.sparkContext.uiWebUrl is None
    assert Path(session.conf.get("spark.sql.warehouse.dir").removeprefix("file:")).is_relative_to(
        by_category.spark.home_path.parents[1]
    )


def test_spark_lets_go_of_what_it_held(by_category: Pair) -> None:
    """After a snapshot nothing stays in Spark's memory, though the session goes on."""
    assert not on_spark.session(by_category.spark).sparkContext._jsc.getPersistentRDDs()


def test_before_the_first_row_parts_are_empty(by_category: Pair) -> None:
    """An as_of that knows nobody gives parts without rows, with every column."""
    paths = snapshot.snapshot(by_category.spark, [*AS_OF, date(2020, 1, 1)])
    for family in snapshot.families(by_category.spark):
        rows = part(by_category.spark, family, date(2020, 1, 1))
        assert rows.empty
        assert list(rows) == list(part(by_category.duckdb, family, AS_OF[0]))
    assert all(path.is_dir() for path in paths)


@pytest.mark.parametrize("lacking", ["pyspark", "Java"])
def test_without_spark_a_sentence_names_the_extra(
    lacking: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has not installed pyspark, or Java, is told what to install before anything is computed."""
    workspace = open_shop(tmp_path, random_tables(1), engine="spark", attributes=[])
    if lacking == "pyspark":
        monkeypatch.setitem(sys.modules, "pyspark", None)
    else:
        pytest.importorskip("pyspark")
        monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(SettingsError, match=rf"`engine: spark` .*needs {lacking}.*perennial-crm\[spark\]|"
                       rf"perennial-crm\[spark\]\) needs {lacking}"):  # fmt: skip
        snapshot.snapshot(workspace, [AS_OF[0]])
