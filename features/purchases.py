"""How often, how recently and for how much a customer buys; grain (customer_id, as_of).

A purchase is a day with at least one line of a non-negative amount; its spend is net of what was returned on that day.
`frequency`, `recency`, `T` and `monetary_value` are in the buy-till-you-die sense: repeat purchases, last minus first,
as_of minus first, mean spend per repeat purchase.
"""

from __future__ import annotations

import ibis
import ibis.expr.types as ir

from features.catalogue import WINDOWS, Feature
from features.known import Tables, at

_DECAYS = (30, 90, 365)
_LAST_YEAR = {"30d": (335, 365), "90d": (275, 365)}

FEATURES = (
    *(Feature(f"n_purchases_{w}d", "purchases", f"purchases in the last {w} days",
              f"purchases in the last {w} days: {{}}" if w in (30, 90, 180, 365) else "") for w in WINDOWS),
    *(Feature(f"spend_{w}d", "money", f"net spend in the last {w} days") for w in WINDOWS),
    Feature("n_purchases", "purchases", "purchases ever", "purchases in all: {}"),
    Feature("spend", "money", "net spend ever"),
    Feature("frequency", "purchases", "repeat purchases"),
    Feature("recency", "days", "last purchase minus first"),
    Feature("T", "days", "as_of minus first purchase", "a customer for {} days"),
    Feature("monetary_value", "money", "mean spend per repeat purchase"),
    Feature("days_since_last_purchase", "days", "as_of minus last purchase", "last bought {} days ago"),
    Feature("gap_mean", "days", "mean days between purchases", "usually returns after {} days"),
    Feature("gap_std", "days", "standard deviation of the gaps, of two at least"),
    Feature("gap_max", "days", "longest gap", "was never away longer than {} days before"),
    Feature("gap_last", "days", "gap before the last purchase"),
    Feature("gap_cv", "ratio", "spread of the gaps over their mean: regularity"),
    Feature("silence_vs_gap", "ratio", "current gap over the mean gap", "silent for {} times the usual gap"),
    Feature("silence_vs_longest_gap", "ratio", "current gap over the longest gap"),
    Feature("spend_mean", "money", "mean spend per purchase"),
    Feature("spend_std", "money", "standard deviation of spend per purchase, of two at least"),
    Feature("spend_max", "money", "spend of the largest purchase"),
    Feature("spend_last", "money", "spend of the last purchase"),
    Feature("n_purchases_change_90d", "purchases", "purchases of the last 90 days minus the 90 before"),
    Feature("spend_change_90d", "money", "net spend of the last 90 days minus the 90 before"),
    Feature("spend_change_365d", "money", "net spend of the last 365 days minus the 365 before"),
    *(Feature(f"n_purchases_decayed_{d}d", "purchases", f"purchases, each weighted exp(-age / {d})") for d in _DECAYS),
    *(Feature(f"spend_decayed_{d}d", "money", f"net spend, each day weighted exp(-age / {d})") for d in _DECAYS),
    *(Feature(f"n_purchases_next_{s}_last_year", "purchases", f"purchases in the coming {s}, a year earlier",
              f"purchases in the same {s} of last year: {{}}") for s in _LAST_YEAR),
    *(Feature(f"spend_next_{s}_last_year", "money", f"net spend in the coming {s}, a year earlier")
      for s in _LAST_YEAR),
    Feature("n_active_months_365d", "count", "of the last twelve stretches of 30 days, those with a purchase"),
    Feature("weekend_share", "share", "purchases on Saturdays and Sundays"),
)  # fmt: skip


def purchases(tables: Tables, cutoffs: ir.Table) -> ir.Table:
    """One row per (customer_id, as_of) with a purchase before it; null where a figure needs more purchases.

    A year is 365 days; last year's figures are null for who first bought less than that ago.
    """
    days = _days(tables.customer_days, cutoffs)
    sums = days.group_by("customer_id", "as_of").agg(**_sums(days))
    return sums.mutate(**_ratios(sums))


def _days(customer_days: ir.Table, cutoffs: ir.Table) -> ir.Table:
    """One row per (customer_id, as_of, purchase day), with the gap before it and whether it is the first or last."""
    known = at(customer_days, cutoffs).group_by("customer_id", "as_of", "day", "age")
    days = known.agg(spend=ibis._.spend.sum(), bought=ibis._.n_lines.sum() > 0)
    days = days.mutate(purchase_age=ibis.ifelse(days.bought, days.age, ibis.null("int64")))
    window = ibis.window(group_by=["customer_id", "as_of", "bought"], order_by="day")
    return days.mutate(
        gap=ibis.ifelse(days.bought, days.age.lag().over(window) - days.age, ibis.null("int64")),
        first_age=days.purchase_age.max().over(ibis.window(group_by=["customer_id", "as_of"])),
        last_age=days.purchase_age.min().over(ibis.window(group_by=["customer_id", "as_of"])),
    ).filter(ibis._.first_age.notnull())


def _sums(days: ir.Table) -> dict[str, ir.Value]:
    bought, age = days.bought, days.age
    repeat = bought & (age < days.first_age)
    sums: dict[str, ir.Value] = {f"n_purchases_{w}d": (bought & (age <= w)).sum() for w in WINDOWS}
    sums |= {f"spend_{w}d": days.spend.sum(where=age <= w).fill_null(0) for w in WINDOWS}
    sums |= {
        "n_purchases": bought.sum(),
        "spend": days.spend.sum(),
        "frequency": repeat.sum(),
        "recency": (days.first_age - days.last_age).max(),
        "T": days.first_age.max(),
        "monetary_value": days.spend.mean(where=repeat),
        "days_since_last_purchase": days.last_age.max(),
        "gap_mean": days.gap.mean(),
        "gap_std": days.gap.std(how="sample"),
        "gap_max": days.gap.max(),
        "gap_last": days.gap.max(where=age == days.last_age),
        "spend_mean": days.spend.mean(where=bought),
        "spend_std": days.spend.std(where=bought, how="sample"),
        "spend_max": days.spend.max(where=bought),
        "spend_last": days.spend.sum(where=bought & (age == days.last_age)),
        "n_purchases_before_90d": (bought & (age > 90) & (age <= 180)).sum(),
        "spend_before_90d": days.spend.sum(where=(age > 90) & (age <= 180)).fill_null(0),
        "spend_before_365d": days.spend.sum(where=(age > 365) & (age <= 730)).fill_null(0),
        "n_active_months_365d": ((age - 1) / 30).floor().nunique(where=bought & (age <= 360)),
        "weekend_share": (days.day.day_of_week.index() >= 5).cast("float64").mean(where=bought),
    }
    for d in _DECAYS:
        weight = (-age / float(d)).exp()
        sums[f"n_purchases_decayed_{d}d"] = weight.sum(where=bought)
        sums[f"spend_decayed_{d}d"] = (weight * days.spend).sum()
    for season, (near, far) in _LAST_YEAR.items():
        then = (age > near) & (age <= far)
        sums[f"n_purchases_next_{season}_last_year"] = (bought & then).sum()
        sums[f"spend_next_{season}_last_year"] = days.spend.sum(where=then).fill_null(0)
    return sums


def _ratios(sums: ir.Table) -> dict[str, ir.Value]:
    last_year = {
        name: ibis.ifelse(sums["T"] >= 365, sums[name], ibis.null("float64"))
        for season in _LAST_YEAR
        for name in (f"n_purchases_next_{season}_last_year", f"spend_next_{season}_last_year")
    }
    return last_year | {
        "gap_cv": sums.gap_std / sums.gap_mean,
        "silence_vs_gap": sums.days_since_last_purchase / sums.gap_mean,
        "silence_vs_longest_gap": sums.days_since_last_purchase / sums.gap_max,
        "n_purchases_change_90d": sums.n_purchases_90d - sums.n_purchases_before_90d,
        "spend_change_90d": sums.spend_90d - sums.spend_before_90d,
        "spend_change_365d": sums.spend_365d - sums.spend_before_365d,
    }
