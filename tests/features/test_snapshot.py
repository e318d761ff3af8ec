"""Snapshots: whole, current, written once."""

from __future__ import annotations

import inspect
from datetime import date
from pathlib import Path
from types import ModuleType

import duckdb
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from builders import make_transactions

from features import days, snapshot
from features.families import catalogue, purchases
from ingest import intake
from tests.features.shops import EDGES_AT, NOW, features_at, make_interactions, open_shop, random_tables
from workspace import storage
from workspace.settings import Workspace

SPRING, SUMMER = date(2024, 4, 1), date(2024, 7, 1)
LINES = make_transactions([("a", "2024-01-01", 1.0), ("a", "2024-05-01", 1.0)])
EVENTS = make_interactions([("a", "2024-02-01", "visit")])


def shop_in(folder: Path) -> Workspace:
    return open_shop(folder, {"transactions": LINES, "interactions": EVENTS})


def written(workspace: Workspace) -> dict[str, int]:
    """When each part was written, by its family and as_of; a draft left behind would be among them."""
    files = [file for file in (workspace.home_path / "snapshots").rglob("*") if file.suffix == ".parquet"]
    return {file.relative_to(workspace.home_path / "snapshots").as_posix(): file.stat().st_mtime_ns for file in files}


def test_a_part_has_float32_features_and_the_instant_of_its_as_of(tmp_path: Path) -> None:
    """Keys, then as_of with its zone, then every feature in the order of the catalogue."""
    workspace = shop_in(tmp_path)
    for family, path in zip(snapshot.families(workspace), snapshot.snapshot(workspace, [SUMMER]), strict=True):
        schema = pq.read_schema(path / "part.parquet")
        names = [feature.name for feature in snapshot.features_of(family, workspace)]
        assert schema.names == [*snapshot.KEYS[family], "as_of", *names]
        assert {str(schema.field(name).type) for name in names} == {"float"}
        assert str(schema.field("as_of").type) == "timestamp[us, tz=UTC]"


def make_returned(count: int) -> pd.DataFrame:
    """So many customers, each with eight lines of a year that their returns take back to nothing, in any order."""
    bought = np.array([10.1, 20.2, 30.3, 40.7])
    amounts = np.concatenate([bought, -bought])
    random = np.random.default_rng(5)
    ids, size = np.repeat([f"c{number}" for number in range(count)], amounts.size), count * amounts.size
    days = pd.Timestamp("2023-07-03") + pd.to_timedelta(random.integers(0, 360, size), unit="D")
    lines = make_transactions(list(zip(ids, days, np.tile(amounts, count), strict=True)), cost=0.0)
    return lines.sample(frac=1, random_state=6)


def test_two_builds_from_the_same_rows_are_equal_to_the_bit(tmp_path: Path) -> None:
    """Though DuckDB's threads add up the rows in any order: what cancels out is 0, not 1e-15 one time and 0 another."""
    lines = make_returned(20_000)
    builds = []
    for build in ("one", "other"):
        workspace = open_shop(tmp_path / build, {"transactions": lines})
        paths = snapshot.snapshot(workspace, [SUMMER])
        builds.append([pq.read_table(path / "part.parquet") for path in paths])
    for one, other in zip(*builds, strict=True):
        assert one.equals(other)


def test_dates_computed_together_are_as_each_is_alone(tmp_path: Path) -> None:
    """The queries are put together once for all dates, whatever their order; no date is given another's features."""
    dates = [EDGES_AT[1], EDGES_AT[0], EDGES_AT[2]]
    together = open_shop(tmp_path / "together", random_tables(5))
    snapshot.snapshot(together, dates)
    for day in dates:
        alone = open_shop(tmp_path / str(day), random_tables(5))
        for path in snapshot.snapshot(alone, [day]):
            part = path.relative_to(alone.home_path) / "part.parquet"
            assert pq.read_table(together.home_path / part).equals(pq.read_table(alone.home_path / part)), part


def test_current_parts_are_not_written_again(tmp_path: Path) -> None:
    """A second call, with one as_of more, writes that one's parts and touches no other."""
    workspace = shop_in(tmp_path)
    snapshot.snapshot(workspace, [SPRING])
    before = written(workspace)
    paths = snapshot.snapshot(workspace, [SPRING, SUMMER])
    after = written(workspace)
    assert len(after) == len(paths) == 2 * len(before)
    assert {name: after[name] for name in before} == before


def test_new_rows_make_parts_stale(tmp_path: Path) -> None:
    """After another delivery the asked parts are built from all rows, and those not asked for are removed."""
    workspace = shop_in(tmp_path)
    snapshot.snapshot(workspace, [SPRING, SUMMER])
    more = make_transactions([("b", "2024-03-01", 5.0)], transaction_id="another")
    more.to_parquet(tmp_path / "transactions_2.parquet", index=False)
    wider = workspace.tables.model_copy(
        update={
            "transactions": workspace.tables.transactions.model_copy(update={"path": (f"{tmp_path}/trans*.parquet",)})
        }
    )
    workspace = workspace.model_copy(update={"tables": wider})
    intake.ingest(workspace, NOW)
    assert features_at(workspace, SUMMER)["purchases"].index.tolist() == ["a", "b"]
    assert {Path(name).parts[1] for name in written(workspace)} == {str(SUMMER)}


def test_another_timezone_makes_parts_stale(tmp_path: Path) -> None:
    """A setting that shapes features is part of what a snapshot was made from."""
    workspace = shop_in(tmp_path)
    moved = workspace.model_copy(update={"timezone": "Asia/Shanghai"})
    assert snapshot.fingerprint(moved) != snapshot.fingerprint(workspace)


def test_a_setting_that_shapes_no_feature_leaves_parts_current(tmp_path: Path) -> None:
    """Another address to listen on does not cost a rebuild."""
    workspace = shop_in(tmp_path)
    assert snapshot.fingerprint(workspace.model_copy(update={"currency": "GBP"})) == snapshot.fingerprint(workspace)


def rewritten(module: ModuleType, folder: Path, changes: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the code of a module be as it is but for some passages."""
    text = Path(inspect.getsourcefile(module) or "").read_text()
    for before, after in changes.items():
        assert before in text
        text = text.replace(before, after)
    (folder / f"{module.__name__}.py").write_text(text)
    monkeypatch.setattr(module, "__file__", str(folder / f"{module.__name__}.py"))


REMARKS = {
    (purchases, "\ndef "): "\n# A remark.\ndef ",
    (purchases, "_DECAYS = (30, 90, 365)"): '_DECAYS = (\n    30,  # days\n    90,\n    365,\n)\n"""Of days."""',
    (days, "from __future__"): '"""More to be said."""\nfrom __future__',
}
NUMBERS = {(purchases, "_DECAYS = (30,"): "_DECAYS = (31,", (catalogue, "WINDOWS = (7,"): "WINDOWS = (8,"}


@pytest.mark.parametrize(("where", "after"), REMARKS.items(), ids=["comment", "formatting", "docstring"])
def test_what_is_said_about_features_leaves_parts_current(
    where: tuple[ModuleType, str], after: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Comments, line breaks and docstrings compute nothing, so nothing is computed again for them."""
    workspace = shop_in(tmp_path)
    before = snapshot.fingerprint(workspace)
    rewritten(where[0], tmp_path, {where[1]: after}, monkeypatch)
    assert snapshot.fingerprint(workspace) == before


@pytest.mark.parametrize(("where", "after"), NUMBERS.items(), ids=["decay", "window"])
def test_a_changed_number_makes_parts_stale(
    where: tuple[ModuleType, str], after: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it stands in what features are computed by."""
    workspace = shop_in(tmp_path)
    before = snapshot.fingerprint(workspace)
    rewritten(where[0], tmp_path, {where[1]: after}, monkeypatch)
    assert snapshot.fingerprint(workspace) != before


def test_a_part_without_a_fingerprint_is_written_anew(tmp_path: Path) -> None:
    """A file that something else put there is not trusted."""
    workspace = shop_in(tmp_path)
    part = snapshot.snapshot(workspace, [SUMMER])[0]
    good = pd.read_parquet(part)
    good.assign(n_purchases=99).to_parquet(part / "part.parquet")
    (part / "_stamp").unlink()
    assert pd.read_parquet(snapshot.snapshot(workspace, [SUMMER])[0]).equals(good)


def test_a_part_that_is_half_written_is_written_anew(tmp_path: Path) -> None:
    """A disk that lost power kept the first half of a file: nobody reads it, and the others are left as they are."""
    workspace = shop_in(tmp_path)
    whole = snapshot.snapshot(workspace, [SUMMER])
    before, broken = written(workspace), whole[0] / "part.parquet"
    content = broken.read_bytes()
    broken.write_bytes(content[: len(content) // 2])
    assert snapshot.snapshot(workspace, [SUMMER]) == whole
    assert broken.read_bytes() == content
    name = broken.relative_to(workspace.home_path / "snapshots").as_posix()
    assert [part for part, at in written(workspace).items() if at != before[part]] == [name]


def test_a_snapshot_that_fails_leaves_no_half_part(tmp_path: Path) -> None:
    """A table that breaks while it is read leaves no part, no draft and no layer of days that counts."""
    workspace = shop_in(tmp_path)
    interactions = storage.parts(storage.tables_folder(workspace.home_path, "interactions"))[0]
    content = interactions.read_bytes()
    # The footer stays, so that the file opens; its rows do not.
    interactions.write_bytes(b"PAR1" + b"\x00" * 200 + content[204:])
    with pytest.raises(duckdb.Error):
        snapshot.snapshot(workspace, [SUMMER])
    whole = written(workspace)
    assert not whole
    assert not (workspace.home_path / "days" / "segments.json").exists()
    interactions.write_bytes(content)
    snapshot.snapshot(workspace, [SUMMER])
    assert len(written(workspace)) == len(snapshot.CUSTOMER_FAMILIES)


def test_a_killed_snapshot_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """What was whole when the work was interrupted is kept."""
    workspace = shop_in(tmp_path)

    def stop(message: str) -> None:
        if message.startswith("snapshot"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        snapshot.snapshot(workspace, [SPRING, SUMMER], stop)
    whole = written(workspace)
    assert {Path(name).parts[1] for name in whole} == {str(SPRING)}
    snapshot.snapshot(workspace, [SPRING, SUMMER])
    assert {name: written(workspace)[name] for name in whole} == whole


def test_an_absurd_amount_reaches_no_feature(tmp_path: Path) -> None:
    """A typing error of a million millions is quarantined; the customer's other purchases count."""
    lines = make_transactions([("a", "2024-01-01", 5.0), ("a", "2024-02-01", 1e12), ("b", "2024-02-01", -1e12)])
    workspace = open_shop(tmp_path, {"transactions": lines}, max_quarantined=0.7)
    features = features_at(workspace, SUMMER)
    assert features["purchases"][["n_purchases", "spend"]].to_numpy().tolist() == [[1, 5]]
    assert features["profile"].index.tolist() == ["a"]
    quarantined = pd.read_parquet(workspace.home_path / "quarantine" / "transactions.parquet")
    assert quarantined["reason"].tolist() == ["absurd amount"] * 2


def test_before_the_first_row_every_family_is_empty(tmp_path: Path) -> None:
    """An as_of that knows nobody gives parts without rows, not an error."""
    assert all(rows.empty for rows in features_at(shop_in(tmp_path), date(2020, 1, 1)).values())


def test_a_hash_depends_on_names_and_their_order() -> None:
    """Two features swapped are other features."""
    hashes = {snapshot.features_hash(names) for names in (["a", "b"], ["b", "a"], ["a"], ["ab"])}
    assert len(hashes) == 4


def test_consents_that_a_later_export_brings_are_noticed(tmp_path: Path) -> None:
    """Whether the shop keeps any is not asked again while its customers are the same, and is once they are others."""
    tables = random_tables(5)
    customers = tables["customers"].assign(marketing_consent=pd.Series(dtype="boolean"))
    shop = open_shop(tmp_path, tables | {"customers": customers})
    assert [snapshot.has_consent(shop, "marketing") for _ in range(2)] == [False, False]
    shop = open_shop(tmp_path, tables | {"customers": customers.assign(marketing_consent=True)})
    assert snapshot.has_consent(shop, "marketing")
