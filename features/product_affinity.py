"""What a customer buys and how often again; grain (customer_id, item, as_of), item being a category or a product."""

from __future__ import annotations

import ibis
import ibis.expr.types as ir

from features.catalogue import Feature
from features.known import Tables, at

_SPANS = (30, 90, 365)

FEATURES = (
    Feature("item_n_purchases", "purchases", "purchase days of the item, ever"),
    *(Feature(f"item_n_purchases_{w}d", "purchases", f"purchase days of the item in the last {w} days")
      for w in _SPANS),
    Feature("item_spend_365d", "money", "spend on the item in the last 365 days"),
    Feature("item_days_since_last", "days", "as_of minus the last purchase of the item"),
    Feature("item_days_since_first", "days", "as_of minus the first purchase of the item"),
    Feature("item_gap_mean", "days", "mean days between purchases of the item"),
    Feature("item_silence_vs_gap", "ratio", "days since the item's last purchase over its mean gap"),
    Feature("item_share_365d", "share", "the item's part of the customer's purchased item-days in the last 365 days"),
)  # fmt: skip
POPULARITY = (
    *(Feature(f"item_buyers_{w}d", "share", f"share of the buyers of any item in the last {w} days who bought this")
      for w in _SPANS),
    Feature("item_rising", "ratio", "share of buyers in the last 30 days over that in the last 365"),
)  # fmt: skip


def product_affinity(tables: Tables, cutoffs: ir.Table, item: str) -> ir.Table:
    """One row per (customer_id, item, as_of) bought before; `item` names the column of the lines that is ranked."""
    days = _item_days(tables, cutoffs, item)
    spans = {f"item_n_purchases_{w}d": (days.age <= w).sum() for w in _SPANS}
    sums = days.group_by("customer_id", "item", "as_of").agg(
        item_n_purchases=days.count(),
        item_spend_365d=days.spend.sum(where=days.age <= 365).fill_null(0),
        item_days_since_last=days.age.min(),
        item_days_since_first=days.age.max(),
        **spans,
    )
    repeats = (sums.item_n_purchases - 1).nullif(0)
    sums = sums.mutate(item_gap_mean=(sums.item_days_since_first - sums.item_days_since_last) / repeats)
    all_items = sums.item_n_purchases_365d.sum().over(ibis.window(group_by=["customer_id", "as_of"]))
    return sums.mutate(
        item_silence_vs_gap=sums.item_days_since_last / sums.item_gap_mean,
        item_share_365d=sums.item_n_purchases_365d / all_items.nullif(0),
    )


def popularity(tables: Tables, cutoffs: ir.Table, item: str) -> ir.Table:
    """One row per (item, as_of) bought in the last 365 days: what share of the shop's recent buyers bought it."""
    days = _item_days(tables, cutoffs, item).filter(ibis._.age <= 365)
    buyers = days.group_by("as_of").agg(**{f"all_{w}d": days.customer_id.nunique(where=days.age <= w) for w in _SPANS})
    counts = days.group_by("item", "as_of").agg(
        **{f"own_{w}d": days.customer_id.nunique(where=days.age <= w) for w in _SPANS}
    )
    both = counts.join(buyers, "as_of")
    shares = both.select(
        "item", "as_of", **{f"item_buyers_{w}d": both[f"own_{w}d"] / both[f"all_{w}d"].nullif(0) for w in _SPANS}
    )
    return shares.mutate(item_rising=shares.item_buyers_30d / shares.item_buyers_365d)


def _item_days(tables: Tables, cutoffs: ir.Table, item: str) -> ir.Table:
    lines = tables.transactions
    bought = lines.filter((lines.amount >= 0) & lines[item].notnull()).mutate(item=lines[item])
    days = bought.group_by("customer_id", "item", "day", "known_day").agg(spend=bought.amount.sum())
    return at(days, cutoffs).group_by("customer_id", "item", "as_of", "day", "age").agg(spend=ibis._.spend.sum())
