"""Lines and interactions summed once per customer and day; every as_of then reads the sums.

`item` is what is ranked: a category or a product. A row is known at an as_of when `known_day < as_of`, so lines of one
day that were recorded on different days stay apart here. Every column but `channel` sums up over any rows of a
customer; a line with a negative amount is a return, the others are bought.
"""

from __future__ import annotations

import ibis.expr.types as ir

from features.families.known import money

# What is counted per day. Of these more is asked than how many there were: they are kept one by one as well.
OPINIONS = ("complaint", "review", "survey", "cancellation")
_KNOWN = ("day", "known_day")


def item_days(lines: ir.Table) -> ir.Table:
    """One row per (customer_id, item, day, known_day) with something of the item bought: what was paid, as `gross`.

    `lines` are canonical transactions with their `item`, which may be null.
    """
    bought = lines.filter((lines.amount >= 0) & lines.item.notnull())
    return bought.group_by("customer_id", "item", *_KNOWN).agg(gross=money(bought.amount.sum()))


def customer_days(lines: ir.Table) -> ir.Table:
    """One row per (customer_id, day, known_day): net `spend`, and of bought lines `gross`, `n_lines` and the rest.

    `lines` are canonical transactions with their `margin`. `quantity` is in pieces, a line without
    one being a piece; `hours` are the hours of the day of all lines, `channel` the day's alphabetically first,
    `last_at` is when something was bought last.
    """
    bought = lines.amount >= 0
    # Measured: every sum over lines costs as much as a third of the grouping itself.
    return lines.group_by("customer_id", *_KNOWN).agg(
        spend=money(lines.amount.sum()),
        gross=money(lines.amount.sum(where=bought).fill_null(0)),
        n_lines=lines.count(where=bought).cast("int32"),
        quantity=lines.quantity.fill_null(1).sum(where=bought).cast("float32"),
        discount=lines.discount.abs().sum(where=bought).cast("float32"),
        margin=money(lines.margin.sum()),
        hours=lines.hour.cast("float64").sum(where=bought).cast("float32"),
        channel=lines.channel.min(where=bought),
        last_at=lines.occurred_at.max(where=bought),
    )


def interaction_days(interactions: ir.Table) -> ir.Table:
    """One row per (customer_id, kind, day, known_day): how many, as `n`."""
    return interactions.group_by("customer_id", "kind", *_KNOWN).agg(n=interactions.count().cast("int32"))


def opinions(interactions: ir.Table) -> ir.Table:
    """Complaints, reviews, surveys and cancellations, one row each: when, what rating (`value`), when resolved."""
    said = interactions.filter(interactions.kind.isin(OPINIONS))
    return said.select("customer_id", "kind", *_KNOWN, "occurred_at", "interaction_id", "value", "resolved_day")
