"""What a line of progress says of the time that is left."""

from __future__ import annotations

import pytest

from workspace import remaining
from workspace.remaining import Remaining


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, ""), (9.9, ""), (10, ", about 10 s left"), (84, ", about 80 s left"), (119, ", about 120 s left"),
        (120, ", about 2 min left"), (3_700, ", about 62 min left"),
    ],
)  # fmt: skip
def test_little_is_not_told_and_much_in_minutes(seconds: float, said: str) -> None:
    """Rounded to what anybody can foresee."""
    assert remaining.about(seconds) == said


def test_what_is_left_goes_by_the_steps_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step that is left is thought to take as long as those that are done; after the last one nothing is."""
    times = iter([100.0, 130.0, 150.0, 160.0])
    monkeypatch.setattr(remaining.time, "monotonic", lambda: next(times))
    left = Remaining(3)
    assert [left.after_one() for _ in range(3)] == [", about 60 s left", ", about 20 s left", ""]
