"""What was known at an as_of: the inputs of every feature family."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import ibis
import ibis.expr.types as ir

from workspace.tables import TREATMENT_KINDS

_MONEY_DIGITS = 6
# Of money, what is below this is nothing.
NOTHING = 10**-_MONEY_DIGITS


@dataclass(frozen=True)
class Tables:
    """The inputs of every feature family, as `features.days` describes them; what a workspace lacks has no rows.

    customers: the canonical table; categories: the `category` of every item that has one. `shop` holds the rows for
    what a feature says of the shop as a whole, where they are others: those of all who do not refuse profiling.
    """

    item_days: ir.Table
    customer_days: ir.Table
    interaction_days: ir.Table
    opinions: ir.Table
    customers: ir.Table
    categories: ir.Table
    shop: Tables | None = None

    @property
    def whole(self) -> Tables:
        return self.shop or self


def at(rows: ir.Table, as_of: ir.DateScalar) -> ir.Table:
    """The rows known before `as_of`, with their `age`: whole days from `day` to as_of, at least 1."""
    known = rows.filter(rows.known_day < as_of)
    return known.mutate(age=as_of.delta(known.day, unit="day").cast("int32"))


def whole_days(rows: ir.Table, as_of: ir.DateScalar, keys: Sequence[str], sums: Sequence[str]) -> ir.Table:
    """One row per key and day known before `as_of`: `keys`, `day`, `age` and what `sums` add up to.

    Rows that are not `late` are one a day already. Only the late ones are added up, and joined to what was there.
    """
    known = at(rows, as_of).select(*keys, "day", "age", "late", *sums)
    on = [*keys, "day", "age"]
    late = known.filter(known.late)
    late = late.group_by(on).agg(**{f"late_{name}": late[name].sum() for name in sums})
    both = known.filter(~known.late).outer_join(late, on)
    merged = {key: ibis.coalesce(both[key], both[f"{key}_right"]) for key in on}
    added = {n: ibis.coalesce(both[n] + both[f"late_{n}"], both[n], both[f"late_{n}"]) for n in sums}
    return both.select(**merged, **added)


def money(total: ir.NumericValue) -> ir.NumericValue:
    """A sum of money to a millionth: threads add up rows in any order, which makes 1e-15 more or less of it."""
    return total.round(_MONEY_DIGITS)


def times(when: ir.BooleanValue) -> ir.NumericValue:
    """How many rows it holds in. Measured: DuckDB takes twice the time for as many aggregates with a FILTER."""
    return when.cast("float64").sum()


def total(value: ir.NumericValue, when: ir.BooleanValue) -> ir.NumericValue:
    """The sum of a value that no row lacks, of the rows where `when` holds; 0 where it does in none."""
    return (value * when.cast("float64")).sum()


def is_behaviour(kind: ir.StringValue) -> ir.BooleanValue:
    """True for what customers do themselves, false for what the marketer sends them."""
    return kind.notin(TREATMENT_KINDS)
