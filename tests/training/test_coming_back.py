"""Event churn: who has left, and who came back, by every place that says so: batch, fresh, labels and the check."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pytest
from builders import make_transactions, take_in, write_workspace

from features import retrieval, snapshot
from features.fresh import FreshFeatures
from ingest import events
from ingest.events import Event
from training.learning import labels
from training.models.customer_model import Inputs
from training.models.leaving import Leaving
from workspace import settings, storage
from workspace.settings import Workspace

AS_OF = date(2024, 3, 1)
LATER = date(2024, 4, 1)


class Story(NamedTuple):
    """What a customer did; whether the customer has left at AS_OF, and at LATER."""

    bought: tuple[str, ...] = ()
    cancelled: tuple[str, ...] = ()
    contract_ends_at: str | None = None
    signed_up_at: str | None = None
    has_left: tuple[bool, bool] = (False, False)


STORIES = {
    "stays": Story(bought=("2024-01-10",)),
    "cancels": Story(bought=("2024-01-10",), cancelled=("2024-02-01",), has_left=(True, True)),
    "comes back": Story(bought=("2024-01-10", "2024-02-20"), cancelled=("2024-02-01",)),
    "comes back later": Story(bought=("2024-01-10", "2024-03-20"), cancelled=("2024-02-01",), has_left=(True, False)),
    "cancels twice": Story(bought=("2024-01-10", "2024-02-01"), cancelled=("2024-01-20", "2024-02-10"),
                           has_left=(True, True)),
    "cancels twice at once": Story(bought=("2024-01-10", "2024-03-09"), cancelled=("2024-01-20", "2024-02-10"),
                                   has_left=(True, False)),
    "cancels before the first purchase": Story(bought=("2024-01-10",), cancelled=("2024-01-05",)),
    "buys on the day, before": Story(bought=("2024-02-01 09:00",), cancelled=("2024-02-01 10:00",),
                                     has_left=(True, True)),
    "buys on the day, after": Story(bought=("2024-02-01 11:00",), cancelled=("2024-02-01 10:00",)),
    "is billed on the day": Story(bought=("2024-02-01",), cancelled=("2024-02-01",), has_left=(True, True)),
    "signs up again": Story(bought=("2024-01-10",), cancelled=("2024-02-01",), signed_up_at="2024-02-15"),
    "signed up before": Story(bought=("2024-01-10",), cancelled=("2024-02-01",), signed_up_at="2024-01-01",
                              has_left=(True, True)),
    "has the next contract": Story(bought=("2024-01-10",), cancelled=("2024-02-01",), contract_ends_at="2025-01-31"),
    "is under notice": Story(bought=("2024-01-10",), cancelled=("2024-02-01",), contract_ends_at="2024-03-15",
                             has_left=(False, True)),
    "ended": Story(bought=("2024-01-10",), contract_ends_at="2024-02-10", has_left=(True, True)),
    "ended, and buys": Story(bought=("2024-01-10", "2024-03-05"), contract_ends_at="2024-02-10",
                             has_left=(True, False)),
    "ended, and buys on its last day": Story(bought=("2024-02-10 15:00",), contract_ends_at="2024-02-10",
                                             has_left=(True, True)),
    "ends with the as_of": Story(bought=("2024-01-10",), contract_ends_at="2024-03-01", has_left=(False, True)),
}  # fmt: skip


class Shop(NamedTuple):
    workspace: Workspace
    fresh: FreshFeatures


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    workspace = _taken_in(tmp_path_factory.mktemp("coming-back"))
    snapshot.snapshot(workspace, [AS_OF, LATER])
    fresh = FreshFeatures(workspace, events.open_store(workspace))
    fresh.keep_up()
    yield Shop(workspace, fresh)
    fresh.close()


def _taken_in(folder: Path) -> Workspace:
    bought = [(name, at, 9.0) for name, story in STORIES.items() for at in story.bought]
    cancelled = [(name, at) for name, story in STORIES.items() for at in story.cancelled]
    ends = pd.DataFrame(cancelled, columns=["customer_id", "occurred_at"])
    ends = ends.assign(kind="cancellation", interaction_id=[f"i{number}" for number in range(len(ends))])
    dates = [(name, story.contract_ends_at, story.signed_up_at) for name, story in STORIES.items()]
    customers = pd.DataFrame(dates, columns=["customer_id", "contract_ends_at", "signed_up_at"])
    tables = {"interactions": ends, "customers": customers,
              "products": pd.DataFrame({"product_id": ["p1"], "category": ["tea"]})}  # fmt: skip
    path = write_workspace(folder, make_transactions(bought), tables=tables, churn={"kind": "event", "horizon": 30},
                           lifetime_value={"horizon": 30})  # fmt: skip
    take_in(path)
    return settings.read(path)


def who_left(workspace: Workspace, rows: pd.DataFrame) -> dict[str, bool]:
    """By the model's own rule, from rows of features."""
    names = tuple(feature.name for feature in snapshot.customer_features(workspace))
    can_leave = Leaving.of(workspace.churn).can_leave(Inputs(names, names), retrieval.matrix(rows, names))
    return dict(zip(rows["customer_id"], (~can_leave).tolist(), strict=True))


@pytest.mark.parametrize(("place", "as_of"), [(0, AS_OF), (1, LATER)])
def test_a_cancellation_ends_with_what_comes_after_it(place: int, as_of: date, shop: Shop) -> None:
    """A purchase, a sign-up or a contract that runs, each as far as it is known at the as_of; in batches and fresh."""
    expected = {name: story.has_left[place] for name, story in STORIES.items()}
    assert who_left(shop.workspace, retrieval.rows_at(shop.workspace, as_of)) == expected
    names = [feature.name for feature in snapshot.customer_features(shop.workspace)]
    vectors = shop.fresh.vectors([*STORIES], as_of)
    fresh = pd.DataFrame(vectors.values(), columns=names).assign(customer_id=[*vectors])
    assert who_left(shop.workspace, fresh) == expected


@pytest.mark.parametrize(("place", "as_of"), [(0, AS_OF), (1, LATER)])
def test_labels_and_the_data_check_say_the_same(place: int, as_of: date, shop: Shop) -> None:
    """From what was known at the cutoff alone, though more is known by now."""
    ends = labels.cancellations(shop.workspace, date(2024, 6, 1))
    query = f"SELECT customer_id, {labels.has_left(as_of)} AS has_left FROM {ends} GROUP BY customer_id"
    with storage.connect(shop.workspace.home_path, shop.workspace.timezone) as connection:
        has_left = dict(connection.execute(query).fetchall())
    assert {name: has_left.get(name, False) for name in STORIES} == {n: s.has_left[place] for n, s in STORIES.items()}


def test_who_comes_back_can_leave_again(shop: Shop) -> None:
    """The second cancellation of who came back is an outcome of its own, in the window in which it lies."""
    outcomes = labels.outcomes(shop.workspace, [date(2024, 2, 5)], date(2024, 6, 1)).set_index("customer_id")
    assert outcomes["cancelled"].eq(True).to_dict().get("cancels twice")


def test_a_purchase_that_just_came_in_ends_a_cancellation(tmp_path: Path) -> None:
    """As soon as it is known, by its time on the day of the cancellation, as the next batch will say."""
    workspace, day, tomorrow = _taken_in(tmp_path), date(2024, 3, 1), date(2024, 3, 2)
    snapshot.snapshot(workspace, [AS_OF])
    store = events.open_store(workspace)
    fresh = FreshFeatures(workspace, store)
    for customer_id, at in (("stays", "09:00"), ("comes back", "11:00")):
        row: dict[str, Any] = {"customer_id": customer_id, "occurred_at": f"{day}T10:00:00+00:00"}
        left = row | {"kind": "cancellation", "interaction_id": f"i-{at}"}
        bought = row | {"occurred_at": f"{day}T{at}:00+00:00", "transaction_id": f"t-{at}", "amount": 5.0}
        both = [Event("interactions", f"i-{at}", customer_id, day, (left,)),
                Event("transactions", f"t-{at}", customer_id, day, (bought,))]  # fmt: skip
        store.add(both, datetime(2024, 3, 1, 12, tzinfo=UTC))
    fresh.keep_up()
    names = [feature.name for feature in snapshot.customer_features(workspace)]
    vectors = fresh.vectors(["stays", "comes back"], tomorrow)
    fresh.close()
    take_in(tmp_path / "shop.yaml")
    snapshot.snapshot(workspace, [tomorrow])
    batch = who_left(workspace, retrieval.rows_at(workspace, tomorrow))
    now = who_left(workspace, pd.DataFrame(vectors.values(), columns=names).assign(customer_id=[*vectors]))
    assert now == {"stays": True, "comes back": False} == {name: batch[name] for name in now}
