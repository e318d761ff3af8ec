"""Who refuses profiling teaches nothing: not by what the shop's table says, nor by what was said since."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest
from workspaces import AS_OF, NO_PROFILING, ODD_IDS, small_workspace

from features import retrieval, snapshot
from ingest import intake
from serving.consent import Consents
from training import pipelines
from training.learning import cross_sell, datasets, labels
from training.records import tracking
from workspace import registry, storage
from workspace.settings import Workspace

NOW = datetime(2030, 1, 1, tzinfo=UTC)
REFUSERS = [f"c{number:04}" for number in NO_PROFILING]


def made(folder: Path, others: bool) -> Workspace:
    """The small shop; with `others`, one refuser buys all that its refusers buy, of each a hundred times as much."""
    workspace = small_workspace(folder)
    path = folder / "transactions.parquet"
    bought = pd.read_parquet(path)
    if others:
        theirs = bought["customer_id"].isin(REFUSERS)
        line = bought[theirs].assign(customer_id=REFUSERS[0], amount=bought["amount"] * 25)
        line = line.assign(transaction_id=[f"x{number}" for number in range(len(line))])
        lines = [line.assign(product_id=product) for product in ("p0", "p1", "p2", "p3")]
        pd.concat([bought[~theirs], *lines], ignore_index=True).to_parquet(path, index=False)
    intake.ingest(workspace, NOW)
    snapshot.snapshot(workspace, pipelines.cutoffs(workspace, AS_OF))
    retrieval.apply(workspace)
    return workspace


@pytest.fixture(scope="module")
def shops(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Workspace, Workspace]]:
    folder = tmp_path_factory.mktemp("refusers")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        yield made(folder / "plain", others=False), made(folder / "others", others=True)


@pytest.mark.parametrize("kind", registry.KINDS)
def test_what_refusers_buy_changes_no_model_file(kind: str, shops: tuple[Workspace, Workspace], tmp_path: Path) -> None:
    """Byte by byte the same models, whoever of them buys what, how often."""
    files = []
    for place, workspace in enumerate(shops):
        folder = tmp_path / str(place)
        pipelines.fit(retrieval.open_store(workspace), workspace, kind, AS_OF).save(folder)
        files.append({path.name: path.read_bytes() for path in sorted(folder.iterdir())})
    assert files[0] == files[1]


@pytest.mark.parametrize("family", snapshot.KEYS)
def test_what_refusers_buy_is_in_no_feature_of_others(family: str, shops: tuple[Workspace, Workspace]) -> None:
    """Nor in one of items, or of the shop as a whole; their own features have it."""
    snapshots = []
    for workspace in shops:
        rows = pd.read_parquet(storage.snapshot_part(workspace.home_path, family, AS_OF))
        theirs = rows["customer_id"].isin(REFUSERS) if "customer_id" in rows else pd.Series(False, rows.index)
        snapshots.append((rows[~theirs].reset_index(drop=True), rows[theirs].reset_index(drop=True)))
    (others, theirs), (others_too, theirs_too) = snapshots
    pd.testing.assert_frame_equal(others, others_too, check_exact=True)
    assert theirs.equals(theirs_too) == (family in ("engagement", "popularity", "co_purchase"))


def test_refusers_are_neither_learnt_from_nor_judged(shops: tuple[Workspace, Workspace]) -> None:
    """They are in no cutoff, and their purchases in no total of the shop."""
    data = datasets.load(retrieval.open_store(shops[0]), shops[0], AS_OF)
    for cutoff in (*data.closed, data.current):
        assert not {*REFUSERS} & {*cutoff.customer_ids}
    lesson = cross_sell.lesson(shops[0], cross_sell.cutoffs(shops[0], AS_OF)[0], AS_OF)
    assert not {*REFUSERS} & {*lesson.pairs.customer_ids}


def test_who_withdraws_over_http_teaches_no_more(shops: tuple[Workspace, Workspace]) -> None:
    """From the next training on, which is another one; who consents over HTTP teaches whatever the table says."""
    workspace = shops[1]
    before = labels.shop_days(workspace, AS_OF)["value"].sum()
    key = tracking.training_key(workspace, "churn", AS_OF, "data")
    withdrawn = ODD_IDS[1]
    said = Consents(workspace.home_path)
    said.put(withdrawn, {"profiling": False}, NOW)
    assert withdrawn not in datasets.load(retrieval.open_store(workspace), workspace, AS_OF).current.customer_ids
    assert labels.shop_days(workspace, AS_OF)["value"].sum() < before
    assert tracking.training_key(workspace, "churn", AS_OF, "data") != key
    said.put(REFUSERS[0], {"profiling": True}, NOW)
    assert REFUSERS[0] in datasets.load(retrieval.open_store(workspace), workspace, AS_OF).current.customer_ids
