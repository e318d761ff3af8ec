"""Date arithmetic: midnights in zones that change their clocks, half-open windows, closed cutoffs."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import duckdb
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from workspace.windows import Window, closed_cutoffs, days_after, midnight, outcome_window

ZONES = ("UTC", "Europe/London", "America/New_York", "Asia/Shanghai", "Asia/Kolkata", "Pacific/Apia", "Africa/Cairo")
quick = hypothesis_settings(deadline=None, database=None, derandomize=True, max_examples=60)


@pytest.mark.parametrize(
    ("as_of", "timezone", "instant"),
    [
        (date(2024, 1, 5), "UTC", datetime(2024, 1, 5, tzinfo=UTC)),
        (date(2024, 1, 5), "Asia/Shanghai", datetime(2024, 1, 4, 16, tzinfo=UTC)),
        (date(2024, 3, 31), "Europe/London", datetime(2024, 3, 31, 0, tzinfo=UTC)),  # summer time starts at one
        (date(2024, 4, 1), "Europe/London", datetime(2024, 3, 31, 23, tzinfo=UTC)),
        (date(2018, 11, 4), "America/Sao_Paulo", datetime(2018, 11, 4, 3, tzinfo=UTC)),  # has no 00:00: 01:00 follows
        (date(2024, 11, 3), "America/Havana", datetime(2024, 11, 3, 4, tzinfo=UTC)),  # has 00:00 twice: the first
    ],
)
def test_midnight_is_the_first_instant_of_the_day(as_of: date, timezone: str, instant: datetime) -> None:
    """A day begins where the zone's clocks first show it, also on days that clocks change."""
    assert midnight(as_of, timezone) == instant


@quick
@given(day=st.dates(date(1985, 1, 1), date(2036, 1, 1)), timezone=st.sampled_from(ZONES))
def test_midnight_splits_what_local_calendars_call_yesterday_and_today(day: date, timezone: str) -> None:
    """The instant itself is of the day, the microsecond before it is not."""
    start, zone = midnight(day, timezone), ZoneInfo(timezone)
    assert start.astimezone(zone).date() == day
    assert (start - timedelta(microseconds=1)).astimezone(zone).date() < day


def test_midnight_agrees_with_the_days_that_duckdb_assigns() -> None:
    """Python's time zones, which cut snapshots, and DuckDB's, which assign days, draw the same line."""
    with duckdb.connect() as connection:
        for timezone in ZONES:
            connection.execute("SET TimeZone = ?", [timezone])
            for day in (date(2019, 3, 31), date(2021, 10, 31), date(2024, 3, 10), date(2024, 6, 1), date(2026, 4, 24)):
                start = midnight(day, timezone).isoformat()
                days = "CAST(t AS DATE), CAST(t - INTERVAL 1 second AS DATE)"
                days_of = connection.execute(f"SELECT {days} FROM (SELECT TIMESTAMPTZ '{start}' AS t)").fetchall()
                assert days_of == [(day, day - timedelta(days=1))], timezone


def test_a_window_is_half_open_and_counts_its_days() -> None:
    """Start is in, end is out, and an empty window has no days."""
    assert Window(date(2024, 2, 28), date(2024, 3, 1)).days == 2
    assert Window(date(2024, 2, 28), date(2024, 2, 28)).days == 0


def test_a_window_that_ends_before_it_starts_is_refused_with_both_dates() -> None:
    """The message shows the pair that does not fit."""
    with pytest.raises(ValueError, match=r"start \(2024-02-02\) is later than end \(2024-02-01\)"):
        Window(date(2024, 2, 2), date(2024, 2, 1))


def test_an_outcome_window_starts_after_the_gap() -> None:
    """Labels use [as_of + gap, as_of + gap + horizon)."""
    assert outcome_window(date(2024, 1, 1), horizon=30, gap=7) == Window(date(2024, 1, 8), date(2024, 2, 7))
    assert outcome_window(date(2024, 1, 1), horizon=30).start == date(2024, 1, 1)


def test_days_after_counts_calendar_days() -> None:
    """A leap day counts, a change of clocks does not."""
    assert days_after(date(2024, 2, 28), 2) == date(2024, 3, 1)
    assert days_after(date(2024, 3, 30), 1) == date(2024, 3, 31)


def test_closed_cutoffs_step_back_from_the_latest_closed_one() -> None:
    """The latest outcome window ends exactly at as_of; the others lie `spacing` days before one another."""
    cutoffs = closed_cutoffs(date(2024, 7, 1), date(2023, 1, 1), outcome_days=90, spacing=30, most=3, min_history=90)
    assert cutoffs == [date(2024, 2, 2), date(2024, 3, 3), date(2024, 4, 2)]


@pytest.mark.parametrize(("min_history", "expected"), [(31, 1), (32, 0)])
def test_a_cutoff_needs_its_days_of_history(min_history: int, expected: int) -> None:
    """Exactly as many days as asked for suffice; one more and there is none."""
    cutoffs = closed_cutoffs(
        date(2024, 3, 1), date(2024, 1, 1), outcome_days=29, spacing=30, most=5, min_history=min_history
    )
    assert len(cutoffs) == expected


@quick
@given(
    as_of=st.dates(date(2000, 1, 1), date(2030, 1, 1)),
    history=st.integers(0, 900),
    outcome_days=st.integers(1, 200),
    spacing=st.integers(1, 90),
    most=st.integers(1, 20),
    min_history=st.integers(1, 200),
)
def test_every_cutoff_is_closed_and_old_enough(
    as_of: date, history: int, outcome_days: int, spacing: int, most: int, min_history: int
) -> None:
    """No label's window reaches past as_of, none has too little history, and as many are found as fit."""
    first_day = as_of - timedelta(days=history)
    cutoffs = closed_cutoffs(
        as_of, first_day, outcome_days=outcome_days, spacing=spacing, most=most, min_history=min_history
    )
    assert all(cutoff + timedelta(days=outcome_days) <= as_of for cutoff in cutoffs)
    assert all((cutoff - first_day).days >= min_history for cutoff in cutoffs)
    room = history - outcome_days - min_history
    assert len(cutoffs) == (min(most, room // spacing + 1) if room >= 0 else 0)
