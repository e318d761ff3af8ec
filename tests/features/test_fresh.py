"""Features computed now for a few customers: the same as a snapshot's after the next ingest."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from workspaces import AS_OF, small_workspace

from features import snapshot
from features.fresh import FreshFeatures
from ingest import events, intake
from ingest.events import Event
from serving.lists.churn_risk import vectors as filed_vectors
from workspace import storage
from workspace.settings import Workspace
from workspace.storage import CheckFailed

NOW = datetime(2030, 1, 1, tzinfo=UTC)
TOMORROW = AS_OF + timedelta(days=1)
BUYERS, STRANGER = ["c0200", "c0201"], "who comes for the first time"


class Shop(NamedTuple):
    workspace: Workspace
    fresh: FreshFeatures
    before: dict[str, NDArray[np.float32]]


def purchase(number: int, customer_id: str, day: date, *lines: tuple[str, float]) -> Event:
    row = {"transaction_id": f"e{number}", "customer_id": customer_id, "occurred_at": f"{day}T10:00:00+00:00"}
    rows = tuple(row | {"product_id": product, "amount": amount, "quantity": 2.0} for product, amount in lines)
    return Event("transactions", f"e{number}", customer_id, day, rows)


EVENTS = [
    purchase(1, BUYERS[0], AS_OF, ("p1", 30.0), ("p2", 12.5)),
    purchase(2, BUYERS[1], AS_OF, ("p3", 99.0)),
    purchase(3, BUYERS[1], AS_OF, ("p4", 1.0)),
    purchase(4, BUYERS[1], AS_OF - timedelta(days=40), ("p4", 1.0)),
    purchase(5, STRANGER, AS_OF, ("p5", 7.0)),
    purchase(6, "c0210", AS_OF, ("p6", 70.0)),
    purchase(7, "c0025", AS_OF, ("p7", 7000.0)),  # refuses profiling
]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    workspace = small_workspace(tmp_path_factory.mktemp("fresh"))
    intake.ingest(workspace, NOW)
    snapshot.snapshot(workspace, [AS_OF])
    store = events.open_store(workspace)
    fresh = FreshFeatures(workspace, store)
    fresh.keep_up()
    before = fresh.vectors(BUYERS, AS_OF)
    store.add(EVENTS, NOW)
    return Shop(workspace, fresh, before)


def test_without_events_they_are_the_snapshot(shop: Shop) -> None:
    """What of the shop as a whole is in a customer's features comes from everybody, not from the few asked for."""
    expected = filed_vectors(shop.workspace, AS_OF, BUYERS)
    np.testing.assert_allclose([shop.before[buyer] for buyer in BUYERS], expected, rtol=1e-6)


def test_with_events_they_are_the_next_snapshot(shop: Shop) -> None:
    """Two purchases of a day, a late one, a first one ever and other customers' count as they will after an ingest."""
    shop.fresh.keep_up()
    asked = [*BUYERS, STRANGER]
    vectors = shop.fresh.vectors(asked, TOMORROW)
    intake.ingest(shop.workspace, NOW)
    snapshot.snapshot(shop.workspace, [TOMORROW])
    expected = filed_vectors(shop.workspace, TOMORROW, asked)
    names = [feature.name for feature in snapshot.customer_features(shop.workspace)]
    for customer_id, row in zip(asked, expected, strict=True):
        differing = ~np.isclose(vectors[customer_id], row, rtol=1e-5, atol=1e-6, equal_nan=True)
        assert not differing.any(), [names[place] for place in np.flatnonzero(differing)]
    assert vectors[BUYERS[0]][names.index("days_since_last_purchase")] == 1
    shop.fresh.keep_up()
    again = shop.fresh.vectors(asked, TOMORROW)
    np.testing.assert_allclose([again[one] for one in asked], expected, rtol=1e-6)


def test_who_is_not_known_yet_has_no_features(shop: Shop) -> None:
    """A customer whose first purchase is of the as_of itself is unknown at it."""
    assert STRANGER not in shop.fresh.vectors([STRANGER, *BUYERS], AS_OF)


def test_days_that_a_batch_is_about_to_replace_are_not_read(shop: Shop, tmp_path: Path) -> None:
    """Between an ingest that replaced a table and the snapshot after it nothing is recomputed: it would count twice."""
    manifest = storage.manifest_path(shop.workspace.home_path, "transactions")
    noted = storage.read_json(manifest)
    changed = [entry | {"part": "another"} for entry in noted["sources"]]
    storage.write_json(manifest, {"sources": changed})
    try:
        with pytest.raises(CheckFailed, match="the days of small are not those of its tables"):
            shop.fresh.keep_up()
    finally:
        storage.write_json(manifest, noted)
