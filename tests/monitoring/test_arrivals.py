"""The rows of the last month: an ordinary month is quiet, a fault in the source is caught and named."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from builders import take_in, write_workspace

from monitoring import arrivals, drift
from workspace import settings

AS_OF, REFERENCE = date(2024, 6, 1), date(2024, 3, 3)
MONTH = "2024-05-02"
Lines = pd.DataFrame


def make_lines(seed: int = 1) -> Lines:
    """Two years of a shop with a Christmas, on three channels, some of whose lines have no location."""
    random, days = np.random.default_rng(seed), pd.date_range("2022-06-01", "2024-05-31")
    each = np.where(days.month == 12, 130, 20) + random.integers(-3, 4, len(days))
    count = int(each.sum())
    lines = pd.DataFrame({
        "customer_id": random.integers(0, 400, count).astype(str), "occurred_at": np.repeat(days, each),
        "amount": random.lognormal(3, 0.8, count).round(2), "channel": random.choice(["web", "shop", "phone"], count),
        "location": np.where(random.random(count) < 0.02, None, "north"),
    })  # fmt: skip
    return lines.assign(transaction_id=[f"t{number}" for number in range(count)])


def shifted(
    tmp_path: Path, fault: Callable[[Lines], Lines], as_of: date = AS_OF, reference: date = REFERENCE
) -> set[str]:
    """What moved in the month before `as_of`, once `fault` was done to the lines of it."""
    lines = make_lines()
    recent = lines["occurred_at"] >= MONTH
    given = pd.concat([lines[~recent], fault(lines[recent])], ignore_index=True)
    config = write_workspace(tmp_path, {"path": str(tmp_path / "lines.parquet"), "duplicates": "keep"})
    given.to_parquet(tmp_path / "lines.parquet", index=False)
    take_in(config)
    rows = drift.Rows(settings.read(config), as_of, reference)
    return {shift.feature for shift in drift.shifts.moved(rows.now, rows.past)}


@pytest.mark.parametrize("as_of", [AS_OF, date(2024, 1, 1), date(2024, 2, 1)])
def test_an_ordinary_month_is_quiet(tmp_path: Path, as_of: date) -> None:
    """So is December, in which six times as much is sold as in the reference, as it was a year before."""
    assert shifted(tmp_path, lambda lines: lines, as_of, as_of - (AS_OF - REFERENCE)) == set()


FAULTS: dict[str, tuple[Callable[[Lines], Lines], set[str]]] = {
    "another unit": (
        lambda lines: lines.assign(amount=lines["amount"] * 100),
        {"transactions.amount", "transactions.amount tail"},
    ),
    "another unit in a tenth of the lines": (
        lambda lines: lines.assign(amount=lines["amount"] * np.where(np.arange(len(lines)) % 10, 1, 100)),
        {"transactions.amount tail"},
    ),
    "dearer": (lambda lines: lines.assign(amount=lines["amount"] * 2), {"transactions.amount"}),
    "a channel missing": (lambda lines: lines[lines["channel"] != "web"], {"transactions.channel"}),
    "a new channel": (
        lambda lines: lines.assign(channel=lines["channel"].replace("phone", "app")),
        {"transactions.channel", "transactions.channel new"},
    ),
    "most of the file missing": (lambda lines: lines.iloc[::6], {"transactions"}),
    "the last ten days": (lambda lines: lines[lines["occurred_at"] < "2024-05-22"], {"transactions since"}),
    "every line twice": (lambda lines: pd.concat([lines, lines]), {"transactions lines"}),
    "no location": (lambda lines: lines.assign(location=None), {"transactions.location empty"}),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_of_the_source_is_caught_and_named(tmp_path: Path, name: str) -> None:
    """Each by the columns, the volume or the days that it shows in, and by nothing that it leaves alone."""
    fault, expected = FAULTS[name]
    drifted = shifted(tmp_path, fault)
    assert expected <= drifted
    assert drifted <= expected | {"transactions"}


def test_the_marketers_own_doing_is_no_news_of_the_world(tmp_path: Path) -> None:
    """A campaign that begins doubles the rows of `interactions`; they are not compared, the customers' own are."""
    days = pd.date_range("2023-06-01", "2024-05-31")
    visits = pd.DataFrame({"occurred_at": np.repeat(days, 5), "kind": "visit"})
    sent = pd.DataFrame({"occurred_at": pd.to_datetime([MONTH] * 900), "kind": "email_sent", "campaign_id": "k1"})
    rows = pd.concat([visits, sent], ignore_index=True)
    rows = rows.assign(interaction_id=rows.index.astype(str), customer_id="1")
    config = write_workspace(tmp_path, make_lines(), tables={"interactions": rows})
    take_in(config)
    recent = arrivals.Lately(settings.read(config)).at(AS_OF)["interactions"]
    assert recent.count == 150
    assert "campaign_id" not in recent.missing


def test_only_what_was_known_then_is_looked_at(tmp_path: Path) -> None:
    """Lines recorded later than the as_of are not there yet."""
    lines = make_lines()
    late = lines["occurred_at"] >= "2024-05-22"
    recorded = lines["occurred_at"].where(~late, pd.Timestamp("2024-06-05"))
    config = write_workspace(tmp_path, lines.assign(recorded_at=recorded))
    take_in(config)
    assert arrivals.Lately(settings.read(config)).at(AS_OF)["transactions"].pause == 10
    assert arrivals.Lately(settings.read(config)).at(date(2024, 6, 10))["transactions"].pause == 9
