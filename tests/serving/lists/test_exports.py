"""Exports: the same rows in either format, whole or not at all."""

from __future__ import annotations

import csv
import shutil
from dataclasses import replace
from datetime import date
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from workspaces import AS_OF

from features.snapshot import CUSTOMER_FAMILIES, customer_features, features_of
from serving.lists import exports
from serving.norms import Norms
from serving.predictor import SCORE_COLUMNS
from serving.terms import Standing, Terms
from tests.serving.conftest import Shop
from workspace import ids, storage
from workspace.settings import SettingsError, Workspace
from workspace.storage import CheckFailed

GRADES = {"scores": ("churn_grade", "lifetime_value_grade", "value_at_risk_grade"), "offers": ("offer_grade",)}


@pytest.fixture
def changed(shop: Shop, tmp_path: Path) -> Workspace:
    """A copy of the shop with a customer, and an item, that a spreadsheet would take for formulas."""
    home = shutil.copytree(shop.workspace.home_path, tmp_path / "home")
    for path, column in ((storage.scores_path, "customer_id"), (storage.offers_path, "item")):
        rows = pq.read_table(path(home, AS_OF)).to_pylist()
        rows[0][column] = "=1+1"
        schema = pq.read_schema(path(home, AS_OF))
        pq.write_table(pa.Table.from_pylist(rows, schema), path(home, AS_OF))
    return shop.workspace.model_copy(update={"home": str(home)})


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as lines:
        return list(csv.DictReader(lines))


def as_text(value: object) -> str:
    return "" if value is None or value != value else str(value)


@pytest.mark.parametrize("what", ["scores", "offers"])
def test_parquet_and_csv_hold_the_same(what: str, shop: Shop, tmp_path: Path) -> None:
    """Row by row and column by column: texts alike, days as days, numbers to the last digit."""
    count = exports.export(shop.workspace, what, AS_OF, tmp_path / "out.parquet", unproven_offers=True)
    assert exports.export(shop.workspace, what, AS_OF, tmp_path / "out.csv", unproven_offers=True) == count
    table, text = pq.read_table(tmp_path / "out.parquet").to_pylist(), read_csv(tmp_path / "out.csv")
    assert len(table) == len(text) == count > 300
    for row, written in zip(table, text, strict=True):
        assert list(row) == list(written)
        for name, value in row.items():
            same = float(written[name]) == value if isinstance(value, float) else written[name] == as_text(value)
            assert same, (name, value, written[name])


def test_scores_and_offers_are_the_scored_files(shop: Shop, tmp_path: Path) -> None:
    """Every row, by customer and rank, with the fixed columns and types; behind them the grade of each number."""
    for what, path in (("scores", storage.scores_path), ("offers", storage.offers_path)):
        exports.export(shop.workspace, what, AS_OF, tmp_path / "out.parquet", unproven_offers=True)
        scored, out = pq.read_table(path(shop.workspace.home_path, AS_OF)), pq.read_table(tmp_path / "out.parquet")
        assert out.select(scored.column_names).to_pylist() == scored.to_pylist()
        assert out.schema.types[: scored.num_columns] == scored.schema.types
        assert tuple(out.column_names[scored.num_columns :]) == GRADES[what]
    assert tuple(pq.read_schema(storage.scores_path(shop.workspace.home_path, AS_OF)).names) == SCORE_COLUMNS


@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_a_grade_stands_beside_every_number(changed: Workspace, tmp_path: Path, ending: str) -> None:
    """That of the model which made it; of a product the worse of both."""
    _grade(changed, {"churn": "B", "lifetime_value": "C", "cross_sell": "A"})
    for what, letters in (("scores", ["B", "C", "C"]), ("offers", ["A"])):
        exports.export(changed, what, AS_OF, tmp_path / f"out.{ending}")
        rows = (pd.read_parquet if ending == "parquet" else pd.read_csv)(tmp_path / f"out.{ending}")
        assert rows[[*GRADES[what]]].drop_duplicates().to_numpy().tolist() == [letters]


@pytest.mark.parametrize("ending", ["parquet", "csv"])
@pytest.mark.parametrize("is_noted", [True, False], ids=["grade none", "an earlier version's file"])
def test_unproven_offers_are_exported_only_if_asked_for(
    changed: Workspace, tmp_path: Path, ending: str, is_noted: bool
) -> None:
    """Else the file has its columns alone, and a sentence says how many were left out and how to get them."""
    if is_noted:
        _grade(changed, {"churn": "A", "lifetime_value": "A", "cross_sell": "none"})
    else:
        path = storage.scores_path(changed.home_path, AS_OF)
        pq.write_table(pq.read_table(path).replace_schema_metadata({}), path)
    said: list[str] = []
    count = pq.read_metadata(storage.offers_path(changed.home_path, AS_OF)).num_rows
    out, read = tmp_path / f"out.{ending}", pd.read_parquet if ending == "parquet" else pd.read_csv
    assert exports.export(changed, "offers", AS_OF, out, say=said.append) == len(read(out)) == 0
    assert list(read(out))[-1] == "offer_grade"
    left_out = f"{count} offers are not proven (grade none), and so not exported; `--unproven-offers` exports them"
    assert said == [left_out]
    assert exports.export(changed, "offers", AS_OF, out, unproven_offers=True, say=said.append) == count
    assert len(said) == 1
    assert set(read(out)["offer_grade"]) == {"none"}


def _grade(workspace: Workspace, grades: dict[str, str]) -> None:
    """Notes in the file of scores that models of these grades have made it."""
    path = storage.scores_path(workspace.home_path, AS_OF)
    terms = Terms.of_scores(workspace, AS_OF)
    noted = replace(terms, standings={kind: Standing(grade) for kind, grade in grades.items()}).noted(Norms())
    pq.write_table(pq.read_table(path).replace_schema_metadata(noted), path)


def test_features_are_those_of_the_snapshot(shop: Shop, tmp_path: Path) -> None:
    """One row per customer known, every feature in catalogue order, unknown where a family has no row."""
    assert exports.export(shop.workspace, "features", AS_OF, tmp_path / "out.parquet") == 400
    exported = pd.read_parquet(tmp_path / "out.parquet").set_index("customer_id")
    assert exported.columns.tolist() == ["as_of", *(feature.name for feature in customer_features(shop.workspace))]
    for family in CUSTOMER_FAMILIES:
        part = pd.read_parquet(storage.snapshot_part(shop.workspace.home_path, family, AS_OF)).set_index("customer_id")
        names = [feature.name for feature in features_of(family, shop.workspace)]
        np.testing.assert_array_equal(exported[names], part[names].reindex(exported.index))
    assert exported["T"].isna().sum() == 10


def test_features_in_csv_are_those_in_parquet(shop: Shop, tmp_path: Path) -> None:
    """Read back as float32 they are the same numbers."""
    for ending in ("parquet", "csv"):
        exports.export(shop.workspace, "features", AS_OF, tmp_path / f"out.{ending}")
    table = pd.read_parquet(tmp_path / "out.parquet")
    names = [feature.name for feature in customer_features(shop.workspace)]
    text = pd.read_csv(tmp_path / "out.csv", encoding="utf-8-sig", dtype={"customer_id": str})
    assert text["customer_id"].tolist() == table["customer_id"].tolist()
    np.testing.assert_array_equal(text[names].astype("float32"), table[names])
    assert pd.to_datetime(text["as_of"], utc=True).tolist() == table["as_of"].dt.tz_convert("UTC").tolist()


def test_csv_defuses_what_parquet_keeps(changed: Workspace, tmp_path: Path) -> None:
    """A spreadsheet gets an apostrophe before a formula, which is none of the id; a program gets the id as it is."""
    for what, column in (("scores", "customer_id"), ("offers", "item")):
        exports.export(changed, what, AS_OF, tmp_path / "out.csv", unproven_offers=True)
        exports.export(changed, what, AS_OF, tmp_path / "out.parquet", unproven_offers=True)
        written = {row[column] for row in read_csv(tmp_path / "out.csv")}
        assert "'=1+1" in written
        assert "=1+1" in set(map(ids.canonical, written))
        assert "=1+1" in set(pd.read_parquet(tmp_path / "out.parquet")[column])


@pytest.mark.parametrize("what", ["scores", "offers", "features"])
def test_an_as_of_without_answers_is_refused(what: str, shop: Shop, tmp_path: Path) -> None:
    """The sentence names the day and the command, and the file that was there before stays."""
    out = tmp_path / "out.csv"
    out.write_text("before")
    with pytest.raises(CheckFailed, match=r"nothing of 2020-01-01 at .*; run `perennial run --as-of 2020-01-01`"):
        exports.export(shop.workspace, what, date(2020, 1, 1), out)
    assert out.read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["out.csv"]


@pytest.mark.parametrize("name", ["scores.xlsx", "scores", "scores.csv.gz"])
def test_another_ending_is_refused(name: str, shop: Shop, tmp_path: Path) -> None:
    """The sentence names the file and the two endings that there are; nothing is written."""
    with pytest.raises(SettingsError, match=rf"--out .*{name}: the name must end in \.parquet or \.csv"):
        exports.export(shop.workspace, "scores", AS_OF, tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_the_folder_of_the_file_is_made(shop: Shop, tmp_path: Path) -> None:
    """And what stood there before is replaced."""
    out = tmp_path / "deep" / "er" / "scores.csv"
    exports.export(shop.workspace, "scores", None, out)
    first = out.read_bytes()
    exports.export(shop.workspace, "offers", None, out)
    assert out.read_bytes() != first
    assert [path.name for path in out.parent.iterdir()] == ["scores.csv"]


@pytest.mark.parametrize("count", [0, 1, 100_000])
def test_rows_of_a_csv_come_in_blocks(count: int) -> None:
    """All of them, in order, few at a time; of none there is a block with the columns."""
    with duckdb.connect() as connection:
        blocks = [*exports._blocks(connection, f"SELECT range AS n FROM range({count}) ORDER BY n")]
    assert pd.concat(blocks)["n"].tolist() == list(range(count))
    assert max(map(len, blocks)) <= 16 * 2_048
