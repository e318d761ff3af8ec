"""Outcomes: counted in the right window, and never before it has closed."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path

import pandas as pd
import pytest
import yaml

from perennial import ingest, settings
from perennial.settings import Workspace
from perennial.windows import closed_cutoffs
from training import labels

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
    ingest.ingest(workspace, datetime(2025, 1, 1, tzinfo=UTC))
    return workspace


def _outcomes(workspace: Workspace, known_by: date = date(2025, 1, 1)) -> pd.DataFrame:
    return labels.outcomes(workspace, [AS_OF], known_by).set_index("customer_id")


def test_the_window_is_half_open(shop: Workspace) -> None:
    """The as_of's own day counts, the day on which the horizon ends does not, nor any day before."""
    found = _outcomes(shop)
    assert found["value"].to_dict() == {
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
    found = _outcomes(shop.model_copy(update={"churn": churn}))
    assert not found.loc["on the first day", "bought"]
    assert found.loc["on the last day", "bought"]
    assert found.loc["on the first day", "value"] == 10


def test_value_is_discounted_by_the_day(shop: Workspace) -> None:
    """At 10 % a year, 20 spent after 29 days are worth 20 / 1.1^(29/365)."""
    value = shop.lifetime_value.model_copy(update={"discount_rate": 0.1})
    found = _outcomes(shop.model_copy(update={"lifetime_value": value}))
    assert found.loc["on the last day", "value"] == pytest.approx(20 / 1.1 ** (29 / 365))


def test_what_was_recorded_later_is_not_known(shop: Workspace) -> None:
    """A purchase recorded in June is no outcome for a training in April."""
    assert "recorded later" not in _outcomes(shop, known_by=date(2024, 4, 1)).index


def test_an_open_window_has_no_label(shop: Workspace) -> None:
    """A window that ends a day after the training's as_of is refused, not counted as silence."""
    with pytest.raises(ValueError, match="has not closed"):
        labels.outcomes(shop, [AS_OF], date(2024, 3, 30))


def test_every_cutoff_has_closed_and_has_history() -> None:
    """No cutoff lies within the horizon of the as_of, or too near the first purchase."""
    found = closed_cutoffs(date(2024, 6, 1), date(2024, 1, 1), outcome_days=60, spacing=10, most=20, min_history=30)
    assert found == sorted(found)
    assert found[-1] == date(2024, 4, 2)
    assert found[0] >= date(2024, 1, 31)
