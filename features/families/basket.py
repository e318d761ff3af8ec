"""What is in a customer's baskets over the last 365 days; one row per customer with a line in them.

Lines with a non-negative amount are bought, the others returned. A basket is all that is bought on one day.
"""

from __future__ import annotations

import ibis
import ibis.expr.types as ir

from features.families.catalogue import Feature
from features.families.known import NOTHING, Tables, at, money, times, whole_days

_YEAR = 365
_RECENT = 90
_SUMMED = ("spend", "gross", "n_lines", "quantity", "discount", "margin", "hours")
_NO_CATEGORY = "no bought line names a category"
_NOTHING = "nothing was bought"

FEATURES = (
    Feature("lines_per_purchase_365d", "lines", "lines per basket", null=_NOTHING),
    Feature("n_categories_365d", "count", "different categories bought", "categories bought from: {}",
            null=_NO_CATEGORY, risk="never raises"),
    Feature("n_categories_90d", "count", "different categories bought in the last 90 days", null=_NO_CATEGORY,
            risk="never raises"),
    Feature("category_entropy_365d", "score", "diversity: entropy of the spend shares by category, in nats",
            null="no spend in a category"),
    Feature("top_category_share_365d", "share", "share of spend in the favourite category",
            null="no spend in a category"),
    Feature("category_similarity_90d", "score",
            "cosine of the spend by category in the last 90 days with that in the 275 before: 1 is no shift",
            null="no spend in a category in either", risk="restless"),
    Feature("price_mean_365d", "money", "spend per piece; a line without a quantity is one", null=_NOTHING),
    Feature("price_change_90d", "ratio", "spend per piece in the last 90 days over that of the year",
            null="nothing was bought in them", risk="restless"),
    Feature("discount_share_365d", "share", "discount over discount plus spend", "bought {} of it on discount",
            null="no discount was recorded"),
    Feature("discount_share_90d", "share", "the same in the last 90 days", null="no discount was recorded in them",
            risk="restless"),
    Feature("return_share_365d", "share", "returned over bought amount", "returned {} of what was bought",
            null=_NOTHING),
    Feature("n_return_days_365d", "count", "days with a returned line", "days with a return in a year: {}"),
    Feature("n_return_days_90d", "count", "days with a returned line in the last 90 days", risk="restless"),
    Feature("margin_365d", "money", "margin, where cost is known", null="no line's cost is known"),
    Feature("n_channels_365d", "count", "different channels bought through, one counted a day and day of recording",
            null="no bought line names a channel"),
    Feature("hour_mean_365d", "hour", "mean hour of the day of the bought lines, in the workspace's timezone",
            null=_NOTHING),
)  # fmt: skip


def basket(tables: Tables, affinity: ir.Table, as_of: ir.DateScalar) -> ir.Table:
    """One row per customer with a line in the 365 days before `as_of`; category figures are null without products.

    `affinity` is what `product_affinity` found for the same as_of.
    """
    year = tables.customer_days.filter(as_of.delta(tables.customer_days.day, unit="day") <= _YEAR)
    days = whole_days(year, as_of, ["customer_id"], _SUMMED)
    sums = days.group_by("customer_id").agg(**_sums(days))
    rows = sums.mutate(**_shares(sums))
    for more in (_channels(at(year, as_of)), _diversity(affinity, tables.categories)):
        rows = rows.left_join(more, "customer_id").drop("customer_id_right")
    return rows


def _sums(days: ir.Table) -> dict[str, ir.Value]:
    recent = days.age <= _RECENT
    returned = days.gross - days.spend > NOTHING
    return {
        "n_baskets": times(days.n_lines > 0),
        "n_return_days_365d": times(returned),
        "n_return_days_90d": times(returned & recent),
        "margin_365d": money(days.margin.sum()),
        **{f"{name}_sum": money(days[name].sum()) for name in ("spend", "gross", "discount")},
        **{f"{name}_sum": days[name].sum() for name in ("n_lines", "quantity", "hours")},
        **{f"{name}_recent": money(days[name].sum(where=recent)) for name in ("gross", "discount")},
        "quantity_recent": days.quantity.sum(where=recent),
    }


def _shares(sums: ir.Table) -> dict[str, ir.Value]:
    price = sums.gross_sum / sums.quantity_sum.nullif(0)
    return {
        "lines_per_purchase_365d": sums.n_lines_sum / sums.n_baskets.nullif(0),
        "price_mean_365d": price,
        "price_change_90d": sums.gross_recent / sums.quantity_recent.nullif(0) / price.nullif(0),
        "discount_share_365d": sums.discount_sum / (sums.discount_sum + sums.gross_sum).nullif(0),
        "discount_share_90d": sums.discount_recent / (sums.discount_recent + sums.gross_recent).nullif(0),
        "return_share_365d": (sums.gross_sum - sums.spend_sum) / sums.gross_sum.nullif(0),
        "hour_mean_365d": sums.hours_sum / sums.n_lines_sum.nullif(0),
    }


def _channels(days: ir.Table) -> ir.Table:
    """Per customer: through how many channels. Deliveries of one day are one, whatever layers of days they lie in."""
    named = days.group_by("customer_id", "day", "known_day").agg(channel=days.channel.min())
    return named.group_by("customer_id").agg(n_channels_365d=named.channel.nunique().nullif(0))


def _diversity(affinity: ir.Table, categories: ir.Table) -> ir.Table:
    """Per customer who bought in a category: how many categories, how evenly, and whether they shift."""
    recent = affinity.filter(affinity.item_days_since_last <= _YEAR)
    items = recent.join(categories, "item")
    by_category = items.group_by("customer_id", "category").agg(
        last=items.item_days_since_last.min(), spend=items.item_spend_365d.sum(), late=items.item_spend_90d.sum()
    )
    spend, late = by_category.spend, by_category.late
    early = ibis.ifelse(spend - late > NOTHING, spend - late, 0.0)
    sums = by_category.group_by("customer_id").agg(
        n_categories_365d=by_category.count(),
        n_categories_90d=by_category.count(where=by_category["last"] <= _RECENT),
        total=spend.sum(),
        top=spend.max(),
        spend_ln=(spend * spend.ln()).sum(where=spend > 0),
        product=(late * early).sum(),
        late_squared=(late * late).sum(),
        early_squared=(early * early).sum(),
    )
    total, norm = sums.total.nullif(0), (sums.late_squared * sums.early_squared).sqrt().nullif(0)
    entropy = total.ln() - sums.spend_ln / total
    return sums.mutate(
        # With shares s/S: -sum(s/S ln(s/S)) = ln S - sum(s ln s)/S.
        category_entropy_365d=ibis.ifelse(entropy < 0, 0.0, entropy),
        top_category_share_365d=sums.top / total,
        category_similarity_90d=sums["product"] / norm,
    )
