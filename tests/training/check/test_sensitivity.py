"""Other definitions of leaving: counted right, on closed windows only, and with advice from the shop's own gaps."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from builders import make_transactions, take_in, write_workspace

from training.backtests import plots
from training.check.sensitivity import Sensitivity, as_text, sensitivity
from workspace import settings
from workspace.settings import Workspace
from workspace.storage import CheckFailed

FIRST, AS_OF = date(2023, 1, 1), date(2024, 3, 1)


@pytest.fixture(scope="module")
def purchases() -> pd.DataFrame:
    """Of 60 customers who come back after their own 5 to 64 days, give or take, and of whom some stop."""
    random = np.random.default_rng(5)
    rows = []
    for number in range(60):
        day, stop = float(random.integers(0, 90)), random.integers(100, 900)
        while day < min(stop, (AS_OF - FIRST).days + 30):
            rows.append((f"c{number}", FIRST + timedelta(days=int(day)), 10.0))
            day += 1 + random.exponential(5 + number)
    return make_transactions(rows).drop_duplicates(["customer_id", "occurred_at"])


@pytest.fixture(scope="module")
def shop(purchases: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    path = write_workspace(tmp_path_factory.mktemp("sensitivity"), purchases, training={"cutoffs": 4})
    take_in(path)
    return settings.read(path)


@pytest.fixture(scope="module")
def measured(shop: Workspace) -> Sensitivity:
    return sensitivity(shop, AS_OF)


def by_hand(purchases: pd.DataFrame, cutoff: date, horizon: int) -> tuple[float, int, int]:
    """The share who left, how many left, and how many of those bought in the 90 days after."""
    days = purchases.groupby("customer_id")["occurred_at"].agg(list)
    days = days[[any(0 < (cutoff - day).days <= 365 for day in own) for own in days]]
    ages = [[(day - cutoff).days for day in own] for own in days]
    left = [own for own in ages if not any(0 <= age < horizon for age in own)]
    back = [own for own in left if any(horizon <= age < horizon + 90 for age in own)]
    return len(left) / len(ages), len(left), len(back)


def test_rates_and_returns_are_those_counted_by_hand(measured: Sensitivity, purchases: pd.DataFrame) -> None:
    """Of every horizon at every cutoff, on purchases known before the as_of."""
    known = purchases[purchases["occurred_at"] < AS_OF]
    assert [definition.horizon for definition in measured.definitions] == [30, 60, 90, 120, 180]
    for definition in measured.definitions:
        counted = {day: by_hand(known, day, definition.horizon) for day in definition.rates}
        assert len(counted) == 4
        assert definition.rates == pytest.approx({day: rate for day, (rate, _, _) in counted.items()})
        followed = [c for day, c in counted.items() if (AS_OF - day).days >= definition.horizon + 90]
        if not followed:
            assert definition.came_back is None
        else:
            expected = sum(back for _, _, back in followed) / sum(left for _, left, _ in followed)
            assert definition.came_back == pytest.approx(expected)


def test_the_recommendation_is_the_shortest_horizon_that_most_returns_lie_within(
    measured: Sensitivity, purchases: pd.DataFrame
) -> None:
    """Nine in ten, the gaps of each customer weighing one together."""
    known = purchases[purchases["occurred_at"] < AS_OF]
    gaps = pd.to_datetime(known["occurred_at"]).groupby(known["customer_id"]).diff().dt.days.dropna()
    weights = 1 / gaps.groupby(known["customer_id"]).transform("size")
    assert measured.gap is not None
    within = weights[gaps <= measured.gap].sum() / weights.sum()
    shorter = weights[gaps < measured.gap].sum() / weights.sum()
    assert shorter < 0.9 <= within
    assert measured.recommended == min(h for h in (30, 60, 90, 120, 180) if h >= measured.gap)
    assert f"take churn.horizon: {measured.recommended}" in as_text(measured)


def test_no_window_that_is_still_open_counts(shop: Workspace, measured: Sensitivity) -> None:
    """Every cutoff lies a horizon before the as_of, and what came later changes nothing."""
    for definition in measured.definitions:
        assert max(definition.rates) + timedelta(days=definition.horizon) <= AS_OF


def test_a_history_too_short_for_every_horizon_is_refused(shop: Workspace) -> None:
    """With what it is too short for."""
    with pytest.raises(CheckFailed, match="has room for no horizon of 30 days after 90 days of purchases"):
        sensitivity(shop, FIRST + timedelta(days=100))


def test_there_is_a_picture(measured: Sensitivity, tmp_path: Path) -> None:
    """A line per horizon over the cutoffs, and a bar for each that is known."""
    figure = plots.sensitivity(measured)
    over_time, back = figure.axes
    assert len(over_time.lines) == 5
    assert len(back.patches) == sum(d.came_back is not None for d in measured.definitions)
    figure.savefig(tmp_path / "sensitivity.png")
