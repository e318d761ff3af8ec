"""What a feature is, in words: the families declare theirs, everyone else looks them up here."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Unit = Literal["purchases", "lines", "events", "money", "days", "share", "ratio", "count", "hour", "score", "code"]

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

    @property
    def window(self) -> str:
        """The days before as_of that it looks at, as its name says: `90d`, or `ever`."""
        found = re.search(r"(?<!next_)(\d+d)", self.name)
        if "_last_year" in self.name:
            return "365d"
        return found.group(1) if found else "ever"
