"""What a feature is, in words: the families declare theirs, everyone else looks them up here."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Unit = Literal["purchases", "lines", "events", "money", "days", "share", "ratio", "count", "hour", "score", "code"]

# How a feature may move the risk of leaving by silence, all else equal. Empty: either way. What is `restless` moves
# both ways while a customer is only silent: with it a longer silence could lower the risk, so models of inactivity are
# not shown it. What it adds is in others: `recency` stays while T grows, the counts by window only fall.
Risk = Literal["", "never lowers", "never raises", "restless"]

# The windows, in days back from as_of, that counts and sums are taken over.
WINDOWS = (7, 14, 30, 60, 90, 180, 365, 730)


@dataclass(frozen=True)
class Feature:
    """One column of a snapshot. `null` says when it is unknown for a customer whom its family knows.

    `says` puts a customer's own value, as `{}`, into a marketer's words. Features without it are for models only: a
    person could not check them, so no reason is made of them.
    """

    name: str
    unit: Unit
    meaning: str
    says: str = ""
    null: str = ""
    risk: Risk = ""

    @property
    def window(self) -> str:
        """The days before as_of that it looks at, as its name says; `ever` where that names none."""
        if self.name.endswith("_last_year"):
            return "365 days"
        days = re.search(r"_(\d+)d(_|$)", self.name)
        return f"{days[1]} days" if days and "_decayed_" not in self.name else "ever"
