"""What is in a customer's baskets; grain (customer_id, as_of), over the last 365 days where no window is named.

Lines with a non-negative amount are bought, the others returned. Kinds of something are counted among bought lines,
and null for a customer of whom a year's lines name none.
"""

from __future__ import annotations

import ibis
import ibis.expr.types as ir

from features.catalogue import Feature
from features.known import Tables, at

_YEAR = 365

FEATURES = (
    Feature("lines_per_purchase_365d", "lines", "lines per transaction"),
    Feature("quantity_per_purchase_365d", "count", "pieces per transaction, where the quantity is known"),
    Feature("n_transactions_365d", "purchases", "transactions, several a day counted apart"),
    Feature("n_products_365d", "count", "different products", "different products bought in a year: {}"),
    Feature("n_products_90d", "count", "different products in the last 90 days"),
    Feature("n_categories_365d", "count", "different categories", "categories bought from: {}"),
    Feature("n_categories_90d", "count", "different categories in the last 90 days"),
    Feature("category_entropy_365d", "score", "diversity: entropy of the spend shares by category, in nats"),
    Feature("top_category_share_365d", "share", "share of spend in the favourite category"),
    Feature("price_mean_365d", "money", "spend per piece, where the quantity is known"),
    Feature(
        "discount_share_365d",
        "share",
        "discount over discount plus spend, if any discount was recorded",
        "bought {} of it on discount",
    ),
    Feature("return_share_365d", "share", "returned over bought amount", "returned {} of what was bought"),
    Feature("n_returns_365d", "lines", "returned lines", "lines returned in a year: {}"),
    Feature("margin_share_365d", "share", "margin over net spend, where cost is known"),
    Feature("n_locations_365d", "count", "different shops or places"),
    Feature("n_channels_365d", "count", "different channels"),
    Feature("hour_mean_365d", "hour", "mean hour of the day, in the workspace's timezone"),
)


def basket(tables: Tables, cutoffs: ir.Table) -> ir.Table:
    """One row per (customer_id, as_of) with a line in the last 365 days; category figures null without products."""
    lines = at(tables.transactions, cutoffs)
    lines = lines.filter(lines.age <= _YEAR)
    sums = lines.group_by("customer_id", "as_of").agg(**_sums(lines))
    sums = sums.mutate(**_shares(sums))
    return sums.left_join(_diversity(lines), ["customer_id", "as_of"]).drop("customer_id_right", "as_of_right")


def _sums(lines: ir.Table) -> dict[str, ir.Value]:
    bought = lines.amount >= 0
    recent = bought & (lines.age <= 90)
    counted = bought & lines.quantity.notnull()
    return {
        "n_transactions_365d": lines.transaction_id.nunique(where=bought),
        "n_lines": bought.sum(),
        "n_transactions_counted": lines.transaction_id.nunique(where=counted),
        "quantity": lines.quantity.sum(where=counted),
        "gross_counted": lines.amount.sum(where=counted),
        "gross": lines.amount.sum(where=bought),
        "returned": -lines.amount.sum(where=~bought),
        "net": lines.amount.sum(where=lines.margin.notnull()),
        "margin": lines.margin.sum(),
        "discount": lines.discount.abs().sum(where=bought),
        "n_returns_365d": (~bought).sum(),
        "n_products_365d": _different(lines.product_id, bought),
        "n_products_90d": _different(lines.product_id, recent),
        "n_categories_365d": _different(lines.category, bought),
        "n_categories_90d": _different(lines.category, recent),
        "n_locations_365d": _different(lines.location, bought),
        "n_channels_365d": _different(lines.channel, bought),
        "hour_mean_365d": lines.occurred_at.hour().mean(where=bought),
    }


def _different(column: ir.Column, where: ir.BooleanValue) -> ir.Value:
    return ibis.ifelse(column.count() > 0, column.nunique(where=where), ibis.null("int64"))


def _shares(sums: ir.Table) -> dict[str, ir.Value]:
    return {
        "lines_per_purchase_365d": sums.n_lines / sums.n_transactions_365d.nullif(0),
        "quantity_per_purchase_365d": sums.quantity / sums.n_transactions_counted.nullif(0),
        "price_mean_365d": sums.gross_counted / sums.quantity.nullif(0),
        "discount_share_365d": sums.discount / (sums.discount + sums.gross).nullif(0),
        "return_share_365d": sums.returned.fill_null(0) / sums.gross.nullif(0),
        "margin_share_365d": sums.margin / sums.net.nullif(0),
    }


def _diversity(lines: ir.Table) -> ir.Table:
    """Entropy and top share of each customer's spend by category; a category bought for nothing has no share."""
    bought = lines.filter((lines.amount > 0) & lines.category.notnull())
    spend = bought.group_by("customer_id", "as_of", "category").agg(spend=bought.amount.sum())
    total = spend.spend.sum().over(ibis.window(group_by=["customer_id", "as_of"]))
    shares = spend.mutate(share=spend.spend / total)
    return shares.group_by("customer_id", "as_of").agg(
        category_entropy_365d=-(shares.share * shares.share.ln()).sum(), top_category_share_365d=shares.share.max()
    )
