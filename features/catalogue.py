"""What a feature is, in words: the families declare theirs, everyone else looks them up here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Unit = Literal["purchases", "lines", "events", "money", "days", "share", "ratio", "count", "hour", "score", "code"]


@dataclass(frozen=True)
class Feature:
    """One column of a snapshot. `says` puts a customer's own value, as `{}`, into a marketer's words.

    Features without `says` are for models only: a person could not check them, so no reason is made of them.
    """

    name: str
    unit: Unit
    meaning: str
    says: str = ""


# The windows, in days back from as_of, that counts and sums are taken over.
WINDOWS = (7, 14, 30, 60, 90, 180, 365, 730)
