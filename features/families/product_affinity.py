"""What a customer buys and how often again: a row per customer and item, item being a category or a product."""

from __future__ import annotations

import ibis
import ibis.expr.types as ir

from features.families.catalogue import Feature
from features.families.known import Tables, money, whole_days

_SPANS = (30, 90, 365)
_ONCE = "bought once"

FEATURES = (
    Feature("item_n_purchases", "purchases", "purchase days of the item, ever"),
    *(Feature(f"item_n_purchases_{w}d", "purchases", f"purchase days of the item in the last {w} days")
      for w in _SPANS),
    Feature("item_n_purchases_decayed_90d", "purchases", "purchase days of the item, each weighted exp(-age / 90)"),
    Feature("item_n_purchases_decayed_30d", "purchases", "the same, weighted exp(-age / 30)"),
    Feature("item_n_purchases_next_90d_last_year", "purchases", "purchase days in the coming 90 days, a year earlier"),
    Feature("item_spend_90d", "money", "spend on the item in the last 90 days"),
    Feature("item_spend_365d", "money", "spend on the item in the last 365 days"),
    Feature("item_days_since_last", "days", "as_of minus the last purchase of the item"),
    Feature("item_days_since_first", "days", "as_of minus the first purchase of the item"),
    Feature("item_gap_mean", "days", "mean days between purchases of the item", null=_ONCE),
    Feature("item_silence_vs_gap", "ratio", "days since the item's last purchase over its mean gap", null=_ONCE),
    Feature("item_share_365d", "share", "the item's part of the customer's purchased item-days in the last 365 days",
            null="nothing was bought in them"),
)  # fmt: skip
POPULARITY = (
    *(Feature(f"item_buyers_{w}d", "share", f"share of the buyers of any item in the last {w} days who bought this",
              null="nobody bought anything in them") for w in _SPANS),
    Feature("item_rising", "ratio", "share of buyers in the last 30 days over that in the last 365",
            null="nobody bought anything in the last 30 days"),
    Feature("item_share_next_90d_last_year", "share",
            "what part of the item's purchase days in the last 365 fell in the coming 90 days, a year earlier"),
    Feature("item_new_buyers_90d", "share",
            "share of the buyers of any item in the last 90 days who bought this for the first time in them",
            null="nobody bought anything in them"),
    Feature("item_rebought_share", "share",
            "share of the buyers of more than 30 days ago who bought it on another day as well, drawn to 5 % as by 20"
            " buyers more", null="nobody had bought it then"),
    Feature("item_days_on_sale", "days", "as_of minus the first purchase by anybody"),
)  # fmt: skip
CO_PURCHASE = (
    Feature("n_bought_both_365d", "count", "buyers of both items in 365 days"),
    Feature("co_buyers_365d", "share", "share of the buyers of the other item who bought this too, in 365 days"),
    Feature("co_purchase_lift_365d", "ratio", "that share over this item's share of all buyers of any item"),
    Feature("co_purchase_cosine_365d", "ratio",
            "buyers of both over the root of the product of each item's buyers, 10 more buyers counted with each"),
)  # fmt: skip
# Pairs are looked for among so many of the most bought items, and of each item the nearest are kept.
PAIRED = 3_000
NEIGHBOURS = 50
# An item that few have bought is neither a staple nor a one-off yet: so many buyers of this rebought share join it.
_PRIOR_BUYERS = 20
_PRIOR_REBOUGHT = 0.05
_LATELY = 30


def product_affinity(tables: Tables, as_of: ir.DateScalar) -> ir.Table:
    """One row per (customer_id, item) bought before `as_of`."""
    days = whole_days(tables.item_days, as_of, ["customer_id", "item"], ["gross"])
    sums = days.group_by("customer_id", "item").agg(
        item_n_purchases=days.count(),
        **{f"item_n_purchases_{w}d": days.count(where=days.age <= w) for w in _SPANS},
        item_n_purchases_decayed_90d=(-days.age / 90).exp().sum(),
        item_n_purchases_decayed_30d=(-days.age / 30).exp().sum(),
        item_n_purchases_next_90d_last_year=days.count(where=(days.age > 275) & (days.age <= 365)),
        item_spend_90d=money(days.gross.sum(where=days.age <= 90).fill_null(0)),
        item_spend_365d=money(days.gross.sum(where=days.age <= 365).fill_null(0)),
        item_days_since_last=days.age.min(),
        item_days_since_first=days.age.max(),
    )
    gap = (sums.item_days_since_first - sums.item_days_since_last) / (sums.item_n_purchases - 1).nullif(0)
    all_items = sums.item_n_purchases_365d.sum().over(ibis.window(group_by="customer_id"))
    return sums.mutate(
        item_gap_mean=gap,
        item_silence_vs_gap=sums.item_days_since_last / gap,
        item_share_365d=sums.item_n_purchases_365d / all_items.nullif(0),
    )


def allowed(affinity: ir.Table, profile: ir.Table) -> ir.Table:
    """Without whom refuses profiling: what they bought says nothing about others. `profile` is of the same as_of."""
    willing = profile.filter(profile.profiling_consent.fill_null(1.0) != 0).select("customer_id")
    return affinity.semi_join(willing, "customer_id")


def popularity(affinity: ir.Table) -> ir.Table:
    """One row per item bought in the last 365 days, from the `product_affinity` of the same as_of."""
    last, first, times = affinity.item_days_since_last, affinity.item_days_since_first, affinity.item_n_purchases
    latest = affinity.group_by("customer_id").agg(last=last.min())
    buyers = latest.agg(**{f"all_{w}d": latest.count(where=latest["last"] <= w) for w in _SPANS})
    counts = affinity.group_by("item").agg(
        **{f"own_{w}d": affinity.count(where=last <= w) for w in _SPANS},
        then=affinity.item_n_purchases_next_90d_last_year.sum(),
        year=affinity.item_n_purchases_365d.sum(),
        newly=affinity.count(where=first <= 90),
        earlier=affinity.count(where=first > _LATELY),
        again=affinity.count(where=(first > _LATELY) & (times > 1)),
        item_days_on_sale=first.max(),
    )
    both = counts.filter(counts.own_365d > 0).cross_join(buyers)
    rebought = (both.again + _PRIOR_BUYERS * _PRIOR_REBOUGHT) / (both.earlier + _PRIOR_BUYERS)
    shares = both.select(
        "item",
        "item_days_on_sale",
        **{f"item_buyers_{w}d": both[f"own_{w}d"] / both[f"all_{w}d"].nullif(0) for w in _SPANS},
        item_share_next_90d_last_year=both.then / both.year,
        item_new_buyers_90d=both.newly / both.all_90d.nullif(0),
        item_rebought_share=ibis.ifelse(both.earlier > 0, rebought, ibis.null("float64")),
    )
    return shares.mutate(item_rising=shares.item_buyers_30d / shares.item_buyers_365d)


def co_purchase(affinity: ir.Table) -> ir.Table:
    """One row per (item, other) with a common buyer in the last 365 days.

    Both are among the 3,000 most bought items, and `item` among the 50 nearest of `other` by cosine.
    """
    recent = affinity.filter(affinity.item_days_since_last <= 365).select("customer_id", "item")
    n_all = recent.agg(n_all=recent.customer_id.nunique())
    sizes = recent.group_by("item").agg(n_item=recent.count())
    sizes = sizes.order_by(sizes.n_item.desc(), sizes.item).limit(PAIRED)
    baskets = recent.join(sizes, "item").select("customer_id", "item")
    others = baskets.view().rename(other="item")
    pairs = baskets.join(others, [baskets.customer_id == others.customer_id, baskets.item != others.other])
    common = pairs.group_by("item", "other").agg(n_both=pairs.count())
    of_other = sizes.view().rename(other="item", n_other="n_item")
    sized = common.join(sizes, "item").join(of_other, "other").cross_join(n_all)
    share = sized.n_both / sized.n_other
    measured = sized.select(
        "item", "other", n_bought_both_365d=sized.n_both, co_buyers_365d=share,
        co_purchase_lift_365d=share * sized.n_all / sized.n_item,
        co_purchase_cosine_365d=sized.n_both / ((sized.n_item + 10) * (sized.n_other + 10)).cast("float64").sqrt(),
    )  # fmt: skip
    nearest = [measured.co_purchase_cosine_365d.desc(), measured.item]
    place = ibis.row_number().over(ibis.window(group_by="other", order_by=nearest))
    return measured.mutate(place=place).filter(lambda pair: pair.place < NEIGHBOURS).drop("place")
