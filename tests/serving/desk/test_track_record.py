"""What was predicted of a customer before is held against what came, and nothing of what is still open."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pandas as pd
import pytest
from workspaces import small_workspace

from serving.desk.track_record import predictions_before
from workspace import predictions
from workspace.settings import Workspace

TODAY = date(2024, 6, 1)
PURCHASES = [(date(2024, 1, 10), 20.0, True), (date(2024, 3, 5), -4.0, False), (date(2024, 4, 1), 30.0, True)]


def logged(workspace: Workspace, day: date, version: int = 1, customer: str = "anna") -> None:
    rows = pd.DataFrame({
        "customer_id": [customer, "somebody else"], "as_of": [day] * 2, "churn_probability": [0.25, 0.9],
        "lifetime_value": [12.5, 1.0], "churn_model": f"x.churn/{version}",
        "lifetime_value_model": f"x.lifetime_value/{version}",
    })  # fmt: skip
    predictions.log_batch(workspace, rows)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """Sixty days ahead, both risk and value."""
    return small_workspace(tmp_path)


def test_each_is_held_against_its_own_window(workspace: Workspace) -> None:
    """Newest first; a return is no purchase; the first day counts, the day after the last does not."""
    for day in (date(2024, 1, 10), date(2024, 2, 1), date(2024, 4, 2), date(2024, 4, 3)):
        logged(workspace, day)
    told = predictions_before(workspace, "anna", TODAY, PURCHASES)
    assert [(one.as_of, one.left, one.brought) for one in told] == [
        (date(2024, 4, 3), None, None),
        (date(2024, 4, 2), True, 0),
        (date(2024, 2, 1), True, -4.0),
        (date(2024, 1, 10), False, 16.0),
    ]
    assert {(one.risk, one.value) for one in told} == {(0.25, 12.5)}


def test_only_what_answered_last_counts(workspace: Workspace) -> None:
    """Of a day that was scored twice, and never of the day itself, a shadow or somebody else."""
    logged(workspace, date(2024, 1, 10))
    logged(workspace, date(2024, 1, 10), version=2)
    logged(workspace, TODAY)
    assert len(predictions_before(workspace, "anna", TODAY, PURCHASES)) == 1
    assert predictions_before(workspace, "ben", TODAY, []) == []
    assert predictions_before(workspace, "anna", date(2023, 1, 1), []) == []


def test_what_the_days_do_not_tell_is_not_claimed(workspace: Workspace) -> None:
    """A cancellation, a margin."""
    settings = {"churn": {"kind": "event"}, "lifetime_value": {"measure": "margin"}}
    other = workspace.model_copy(
        update={name: getattr(workspace, name).model_copy(update=changed) for name, changed in settings.items()}
    )
    logged(other, date(2024, 1, 10))
    (told,) = predictions_before(other, "anna", TODAY, PURCHASES)
    assert (told.left, told.brought) == (None, None)
