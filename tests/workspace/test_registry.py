"""The registry is made where it is asked for; one shop's sales are told from another's by what was sold on each day."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from workspace import registry
from workspace.registry import Sales

DAYS = 90


def shop_of(lines_a_day: float, chance: np.random.Generator) -> pd.DataFrame:
    """Lines of 90 days with weekdays and a growing season, as all shops have them, and a day of a great sale."""
    day = np.arange(DAYS)
    expected = lines_a_day * (1 + 0.4 * np.sin(day * 2 * np.pi / 7) + day / DAYS)
    expected[60] *= 3
    lines = np.repeat(day, chance.poisson(expected))
    customers = chance.integers(0, max(20, int(lines_a_day * 40)), len(lines))
    return pd.DataFrame({"day": lines, "customer": customers, "amount": chance.lognormal(3, 1, len(lines))})


def sales_of(lines: pd.DataFrame) -> Sales:
    days = lines.groupby("day")["amount"].sum().reindex(range(DAYS), fill_value=0)
    return Sales(len(lines), lines["customer"].nunique(), days.sum(), [float(f"{day:.3g}") for day in days])


def test_a_registry_is_made_once_whoever_asks_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a file that lies where it was asked for, alone; who comes later finds what was registered."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    registry.client().create_registered_model("shop.churn")
    assert [path.name for path in tmp_path.iterdir()] == ["mlflow.db"]
    assert registry.client().get_registered_model("shop.churn").name == "shop.churn"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/other.db?timeout=9")
    assert registry.client().search_registered_models() == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mlflow.db", "other.db"]


@pytest.mark.parametrize("lines_a_day", [0.5, 2, 10, 100, 1000])
def test_a_shop_is_told_from_another_of_its_size(lines_a_day: float) -> None:
    """Whatever the seed; and it is taken for itself after an erasure, late rows and corrections."""
    for seed in range(40):
        chance = np.random.default_rng(seed)
        lines, other = shop_of(lines_a_day, chance), sales_of(shop_of(lines_a_day, chance))
        then = sales_of(lines)
        of_its_size = Sales(then.lines, then.customers, then.amount, other.days)
        assert then.apart(of_its_size) == ["as much was sold, but on other days"], seed
        everybody = lines["customer"].unique()
        gone = chance.choice(everybody, max(1, len(everybody) // 20), replace=False)
        late = lines[chance.random(len(lines)) > 0.03]
        corrected = lines.assign(amount=lines["amount"].where(chance.random(len(lines)) > 0.03, lines["amount"] / 2))
        for same in (lines[~lines["customer"].isin(gone)], late, corrected, lines):
            days = sales_of(same).days
            assert not then.apart(Sales(then.lines, then.customers, then.amount, days)), seed


def test_totals_alone_tell_of_a_version_without_days() -> None:
    """As it was registered before days were noted; and days that are all alike tell nothing."""
    old, days = Sales(1000, 100, 5000), [5000 / DAYS] * DAYS
    assert old.apart(Sales(1000, 100, 5000, days)) == []
    assert old.apart(Sales(2000, 100, 5000, days)) == ["1,000 lines, here 2,000"]
    assert Sales(1000, 100, 5000, days).apart(Sales(950, 95, 4750, [*range(DAYS)])) == []
