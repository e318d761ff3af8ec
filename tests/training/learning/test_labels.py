"""Outcomes: counted in the right window, and never before it has closed."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path

import pandas as pd
import pytest
import yaml
from builders import make_transactions, take_in, write_workspace

from ingest import intake
from training.learning import labels
from workspace import settings
from workspace.settings import Workspace
from workspace.windows import closed_cutoffs

AS_OF = date(2024, 3, 1)
ROWS = [  # customer, day, amount, recorded
    ("on the first day", "2024-03-01 00:00", 10.0, None),
    ("on the last day", "2024-03-30 23:59", 20.0, None),
    ("a day late", "2024-03-31 00:00", 40.0, None),
    ("the day before", "2024-02-29 23:59", 80.0, None),
    ("returns", "2024-03-10 12:00", 50.0, None),
    ("returns", "2024-03-12 12:00", -30.0, None),
    ("recorded later", "2024-03-05 12:00", 5.0, "2024-06-01 00:00"),
]


@pytest.fixture
def shop(tmp_path: Path) -> Workspace:
    columns = ["customer_id", "occurred_at", "amount", "recorded_at"]
    rows = pd.DataFrame(ROWS, columns=columns).assign(transaction_id=range(len(ROWS)))
    rows.to_csv(tmp_path / "transactions.csv", index=False)
    wanted = {
        "name": "labels", "timezone": "Europe/London",
        "tables": {"transactions": {"path": str(tmp_path / "transactions.csv")}},
        "churn": {"horizon": 30}, "lifetime_value": {"horizon": 30},
    }  # fmt: skip
    (tmp_path / "workspace.yaml").write_text(yaml.safe_dump(wanted))
    workspace = settings.read(tmp_path / "workspace.yaml", home=tmp_path / "home")
    intake.ingest(workspace, datetime(2025, 1, 1, tzinfo=UTC))
    return workspace


def _outcomes(workspace: Workspace, known_by: date = date(2025, 1, 1)) -> pd.DataFrame:
    return labels.outcomes(workspace, [AS_OF], known_by).set_index("customer_id")


def test_the_window_is_half_open(shop: Workspace) -> None:
    """The as_of's own day counts, the day on which the horizon ends does not, nor any day before."""
    outcomes = _outcomes(shop)
    assert outcomes["value"].to_dict() == {
        "on the first day": 10,
        "on the last day": 20,
        "returns": 20,
        "recorded later": 5,
    }


def test_a_return_lowers_the_value_and_is_no_purchase(shop: Workspace) -> None:
    """Net spend counts; a return alone keeps nobody."""
    assert _outcomes(shop).loc["returns", "n_purchases"] == 1


def test_a_gap_moves_the_churn_window_alone(shop: Workspace) -> None:
    """With ten days of gap a purchase on the first day no longer shows that the customer stayed."""
    churn = shop.churn.model_copy(update={"gap": 10, "horizon": 20})
    outcomes = _outcomes(shop.model_copy(update={"churn": churn}))
    assert not outcomes.loc["on the first day", "bought"]
    assert outcomes.loc["on the last day", "bought"]
    assert outcomes.loc["on the first day", "value"] == 10


def test_value_is_discounted_by_the_day(shop: Workspace) -> None:
    """At 10 % a year, 20 spent after 29 days are worth 20 / 1.1^(29/365)."""
    value = shop.lifetime_value.model_copy(update={"discount_rate": 0.1})
    outcomes = _outcomes(shop.model_copy(update={"lifetime_value": value}))
    assert outcomes.loc["on the last day", "value"] == pytest.approx(20 / 1.1 ** (29 / 365))


def test_what_was_recorded_later_is_not_known(shop: Workspace) -> None:
    """A purchase recorded in June is no outcome for a training in April."""
    assert "recorded later" not in _outcomes(shop, known_by=date(2024, 4, 1)).index


def test_an_open_window_has_no_label(shop: Workspace) -> None:
    """A window that ends a day after the training's as_of is refused, not counted as silence."""
    with pytest.raises(ValueError, match="has not closed"):
        labels.outcomes(shop, [AS_OF], date(2024, 3, 30))


def test_every_cutoff_has_closed_and_has_history() -> None:
    """No cutoff lies within the horizon of the as_of, or too near the first purchase."""
    cutoffs = closed_cutoffs(date(2024, 6, 1), date(2024, 1, 1), outcome_days=60, spacing=10, most=20, min_history=30)
    assert cutoffs == sorted(cutoffs)
    assert cutoffs[-1] == date(2024, 4, 2)
    assert cutoffs[0] >= date(2024, 1, 31)


def test_a_window_that_ends_on_the_day_of_the_training_has_closed(shop: Workspace) -> None:
    """Thirty days from 1 March end with the 30th, so a training on the 31st knows all of it."""
    assert _outcomes(shop, known_by=date(2024, 3, 31)).loc["on the last day", "bought"]


def test_the_churn_window_with_its_gap_must_have_closed_too(shop: Workspace) -> None:
    """A gap of ten days puts the end off by ten; the sentence names the window and the day."""
    late = shop.model_copy(update={"churn": shop.churn.model_copy(update={"gap": 10})})
    message = "outcome window of 2024-03-01 ends on 2024-04-10, later than 2024-04-09: it has not closed"
    with pytest.raises(ValueError, match=message):
        labels.outcomes(late, [AS_OF], date(2024, 4, 9))
    assert len(labels.outcomes(late, [AS_OF], date(2024, 4, 10)))


def test_of_several_windows_one_open_is_enough_to_refuse(shop: Workspace) -> None:
    """Nothing is answered about the closed ones either: who asks has made a mistake."""
    with pytest.raises(ValueError, match="window of 2024-05-01"):
        labels.outcomes(shop, [AS_OF, date(2024, 5, 1)], date(2024, 5, 15))


def _bought(folder: Path, rows: list[tuple[str, str, float]], **keys: object) -> Workspace:
    """A shop of these lines, taken in; both windows are 30 days unless `keys` say otherwise."""
    windows = {"churn": {"horizon": 30}, "lifetime_value": {"horizon": 30}}
    path = write_workspace(folder, make_transactions(rows), **(windows | keys))
    take_in(path)
    return settings.read(path)


def test_each_as_of_has_a_window_of_its_own(tmp_path: Path) -> None:
    """One purchase lies in the windows of two as_ofs, and is told of each."""
    shop = _bought(tmp_path, [("c1", "2024-03-10", 7.0)])
    dates = [date(2024, 2, 1), date(2024, 2, 20), date(2024, 3, 1), date(2024, 3, 11)]
    outcomes = labels.outcomes(shop, dates, date(2024, 6, 1))
    assert [day.date() for day in pd.to_datetime(outcomes["as_of"])] == [date(2024, 2, 20), date(2024, 3, 1)]


def test_days_are_those_of_the_workspace(tmp_path: Path) -> None:
    """Half past eleven at night in London is the next day in Berlin, and there too late."""
    rows = [("c1", "2024-03-30 23:30:00+00:00", 7.0)]
    london = _bought(tmp_path / "london", rows, timezone="Europe/London")
    berlin = _bought(tmp_path / "berlin", rows, timezone="Europe/Berlin")
    assert len(labels.outcomes(london, [AS_OF], date(2024, 6, 1))) == 1
    assert len(labels.outcomes(berlin, [AS_OF], date(2024, 6, 1))) == 0


def test_purchases_of_a_day_are_one(tmp_path: Path) -> None:
    """Two baskets on one day and one on the next are two purchases, and all they cost."""
    rows = [("c1", "2024-03-10 09:00", 7.0), ("c1", "2024-03-10 18:00", 3.0), ("c1", "2024-03-11 09:00", 5.0)]
    outcomes = labels.outcomes(_bought(tmp_path, rows), [AS_OF], date(2024, 6, 1))
    assert outcomes[["n_purchases", "value"]].to_numpy().tolist() == [[2, 15.0]]


def test_what_is_returned_in_full_is_worth_nothing(tmp_path: Path) -> None:
    """10.10 and 20.20 less 30.30 are 0, not a quadrillionth more or less."""
    rows = [("c1", "2024-03-10", 10.1), ("c1", "2024-03-11", 20.2), ("c1", "2024-03-12", -30.3)]
    assert labels.outcomes(_bought(tmp_path, rows), [AS_OF], date(2024, 6, 1))["value"].tolist() == [0.0]


def test_only_a_cancellation_in_the_window_is_one(tmp_path: Path) -> None:
    """With a gap of five days: not the day before the window, its first and last day, not the day after it."""
    days = {"early": "2024-03-05", "first": "2024-03-06", "last": "2024-04-04", "late": "2024-04-05"}
    events = pd.DataFrame({
        "interaction_id": range(5), "customer_id": [*days, "first"], "occurred_at": [*days.values(), "2024-03-07"],
        "kind": ["cancellation"] * 4 + ["complaint"],
    })  # fmt: skip
    churn = {"kind": "event", "gap": 5, "horizon": 30}
    path = write_workspace(tmp_path, make_transactions([("c1", "2024-01-10", 7.0)]), churn=churn,
                           lifetime_value={"horizon": 30}, tables={"interactions": events})  # fmt: skip
    take_in(path)
    outcomes = labels.outcomes(settings.read(path), [AS_OF], date(2024, 6, 1)).set_index("customer_id")
    assert outcomes["cancelled"].to_dict() == {"first": True, "last": True}


@pytest.mark.parametrize(
    ("level", "expected"), [("category", {("c1", "tea"), ("c2", "tea")}), ("item", {("c1", "p1"), ("c2", "p2")})]
)
def test_items_bought_are_those_of_the_window(level: str, expected: set[tuple[str, str]], tmp_path: Path) -> None:
    """By category or by product, each once; a return is no purchase, and the window is half open."""
    rows = [("c1", "2024-03-01", 1.0), ("c1", "2024-03-02", 1.0), ("c2", "2024-03-30 23:00", 1.0),
            ("c3", "2024-03-31", 1.0), ("c4", "2024-03-05", -1.0)]  # fmt: skip
    lines = make_transactions(rows, product_id=["p1", "p1", "p2", "p1", "p1"])
    products = pd.DataFrame({"product_id": ["p1", "p2"], "category": ["tea", "tea"]})
    path = write_workspace(tmp_path, lines, tables={"products": products},
                           cross_sell={"horizon": 30, "level": level})  # fmt: skip
    take_in(path)
    shop = settings.read(path)
    bought = labels.items_bought(shop, [AS_OF], date(2024, 6, 1))
    assert sorted(zip(bought["customer_id"], bought["item"], strict=True)) == sorted(expected)
    with pytest.raises(ValueError, match="has not closed"):
        labels.items_bought(shop, [AS_OF], date(2024, 3, 30))


def test_the_days_of_the_shop_are_those_known_by_then(tmp_path: Path) -> None:
    """First and last purchase day before the as_of; a return is no purchase, and before all of it there is none."""
    rows = [("c1", "2024-01-10", 7.0), ("c1", "2024-02-10", 7.0), ("c1", "2024-03-10", -7.0), ("c2", "2024-04-10", 1.0)]
    shop = _bought(tmp_path, rows)
    assert labels.purchase_days(shop, date(2024, 4, 10)) == (date(2024, 1, 10), date(2024, 2, 10))
    assert labels.purchase_days(shop, date(2024, 4, 11)) == (date(2024, 1, 10), date(2024, 4, 10))
    assert labels.purchase_days(shop, date(2024, 1, 10)) is None


def test_a_silence_as_never_before_is_a_missing_source(shop: Workspace) -> None:
    """The shop was silent for 20 days at most: from 20 days after its last purchase on, purchases may be missing."""
    assert labels.recorded_until(shop, date(2024, 4, 19)) == date(2024, 4, 19)
    assert labels.recorded_until(shop, date(2024, 12, 1)) == date(2024, 4, 20)


def test_contracts_run_on_without_purchases(shop: Workspace) -> None:
    """Where leaving is a cancellation, nobody having bought for long says nothing about what was recorded."""
    contractual = shop.model_copy(update={"churn": shop.churn.model_copy(update={"kind": "event"})})
    assert labels.recorded_until(contractual, date(2024, 12, 1)) == date(2024, 12, 1)
