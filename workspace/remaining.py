"""How long a piece of work will go on, by how long its first steps took."""

from __future__ import annotations

import time

_SHORTEST = 10
"""Seconds; of less nothing is said."""


def about(seconds: float) -> str:
    """`, about 2 min left`, to stand behind a line of progress; empty where that is less than ten seconds."""
    if seconds < _SHORTEST:
        return ""
    return f", about {seconds / 60:.0f} min left" if seconds >= 120 else f", about {round(seconds, -1):.0f} s left"


class Remaining:
    """Counts the steps of one piece of work, which are about as long as each other."""

    def __init__(self, steps: int) -> None:
        self.steps, self.done, self.start = steps, 0, time.monotonic()

    def after_one(self) -> str:
        """One step more is done: what is left, as `about` says it."""
        self.done += 1
        return about((time.monotonic() - self.start) / self.done * (self.steps - self.done))
