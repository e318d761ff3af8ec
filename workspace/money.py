"""The account of a table's amounts: in hundredths of the workspace's currency, so that it adds up exactly."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from workspace.tables import ABSURD_AMOUNT

# What became of rows that are neither accepted nor quarantined, where an account needs a word for it.
FILTERED = "filtered by `where`"
NOTHING = Decimal("0.00")


@dataclass(frozen=True)
class Money:
    """What became of the amounts of a table's rows: `read = accepted + sum(quarantined)`; `filtered` is not in it.

    unknown: rows, by what became of them, whose amount cannot be known: none was written, or what was written is no
    number, or an absurd one. They are in no sum.
    """

    accepted: Decimal = NOTHING
    filtered: Decimal = NOTHING
    quarantined: Mapping[str, Decimal] = field(default_factory=dict)
    unknown: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def noted(cls, kept: Mapping[str, Any]) -> Money:
        """What a manifest keeps: the fields, with sums as texts."""
        by_reason = {reason: Decimal(text) for reason, text in kept["quarantined"].items()}
        return cls(Decimal(kept["accepted"]), Decimal(kept["filtered"]), by_reason, kept["unknown"])

    @property
    def lost(self) -> Decimal:
        """What was quarantined, for any reason."""
        return sum(self.quarantined.values(), NOTHING)

    @property
    def read(self) -> Decimal:
        return self.accepted + self.lost

    def __add__(self, other: Money) -> Money:
        faults = dict.fromkeys((*self.quarantined, *other.quarantined))
        lost = {why: self.quarantined.get(why, NOTHING) + other.quarantined.get(why, NOTHING) for why in faults}
        unknown = dict(Counter(self.unknown) + Counter(other.unknown))
        return Money(self.accepted + other.accepted, self.filtered + other.filtered, lost, unknown)

    def __str__(self) -> str:
        faults = "; ".join(f"{amount:,} {why}" for why, amount in sorted(self.quarantined.items()) if amount)
        rows = "; ".join(f"{count:,} {why}" for why, count in sorted(self.unknown.items()))
        return (
            f"{self.read:,} read = {self.accepted:,} accepted + {self.lost:,} quarantined"
            + (f" ({faults})" if faults else "")
            + (f"; {self.filtered:,} more {FILTERED}" if self.filtered else "")
            + (f"; rows of unknown amount: {sum(self.unknown.values()):,} ({rows})" if rows else "")
        )


def summed(amount: str) -> str:
    """SQL for two columns: the sum of the usable amounts of a group of rows, and in how many of them there is none.

    Sums of decimals do not depend on the order of the rows, as those of floating-point numbers do.
    """
    usable = f"CASE WHEN abs({amount}) <= {ABSURD_AMOUNT:.0f} THEN CAST({amount} AS DECIMAL(18, 6)) END"
    return f"CAST(coalesce(sum({usable}), 0) AS DECIMAL(38, 2)), count(*) - count({usable})"
