"""How right earlier predictions were, as the desk says it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from serving.desk.language import language
from serving.desk.verdicts import verdicts
from workspace import storage

_GROUP = {
    "role": "champion", "by": "all", "name": "all", "asked": 1200, "expected": 0.37, "actual": 0.66, "low": 0.6,
    "high": 0.7, "expected_value": 120.0, "actual_value": 98.5,
}  # fmt: skip


def noted(home: Path, *groups: dict[str, Any]) -> None:
    storage.write_json(home / "reports" / "outcomes-2025-01-01.json", {"groups": list(groups)})


@pytest.mark.parametrize(
    ("actual", "verdict"), [(0.66, "off by more than chance"), (0.37, "as close as chance allows")]
)
def test_what_came_is_held_against_what_was_expected(tmp_path: Path, actual: float, verdict: str) -> None:
    """Within its interval or not; a challenger's predictions are nobody's list."""
    interval = {"actual": actual, "low": actual - 0.04, "high": actual + 0.04}
    noted(tmp_path, _GROUP | interval, _GROUP | {"role": "challenger"}, _GROUP | {"by": "week", "name": "2024-09-02"})
    told = verdicts(language("en"), tmp_path, "EUR")
    assert len(told.sentences) == 2
    assert verdict in told.sentences[0]
    assert told.sentences[1] == "A customer was expected to bring €120, and brought €98.50."
    assert told.months == [["Sep 2024", "1,200", "37%", "66%", "€120", "€98.50"]]


def test_weeks_are_months_together_and_segments_have_names(tmp_path: Path) -> None:
    """A mean weighs each week by its customers, and leaves out those of whom nothing was told; two months are drawn."""
    weeks = [
        _GROUP | {"by": "week", "name": "2024-09-02", "asked": 300, "expected": 0.2, "actual": 0.1},
        _GROUP | {"by": "week", "name": "2024-09-09", "asked": 100, "expected": 0.6, "actual": 0.5},
        _GROUP | {"by": "week", "name": "2024-09-16", "asked": 5, "expected": None, "actual": None},
    ]
    noted(tmp_path, *weeks, _GROUP | {"by": "segment", "name": "one purchase day"})
    told = verdicts(language("en"), tmp_path, "EUR")
    assert [row[:4] for row in told.months] == [["Sep 2024", "405", "30%", "20%"]]
    assert [row[0] for row in told.segments] == ["bought once"]
    assert told.chart is None
    noted(tmp_path, *weeks, _GROUP | {"by": "week", "name": "2024-10-07"})
    drawn = verdicts(language("en"), tmp_path, "EUR").chart
    assert drawn is not None
    assert drawn["months"] == ["Sep 2024", "Oct 2024"]
    assert [one["shares"] for one in drawn["series"]] == [[30.0, 37.0], [20.0, 66.0]]


def test_of_open_windows_nothing_is_claimed(tmp_path: Path) -> None:
    """Neither where nobody looked yet, nor where the look saw nothing closed."""
    assert verdicts(language("en"), tmp_path, "EUR").sentences[0].startswith("Not yet known")
    noted(tmp_path)
    assert verdicts(language("en"), tmp_path, "EUR").sentences[0].startswith("Not yet known")
