"""How often, how recently and for how much a customer buys; one row per customer with a purchase before as_of.

A purchase is a day with at least one line of a non-negative amount; its spend is net of what was returned on that day.
`frequency`, `recency`, `T` and `monetary_value` are in the buy-till-you-die sense: repeat purchases, last minus first,
as_of minus first, mean spend per repeat purchase. A year is 365 days.
"""

from __future__ import annotations

import ibis
import ibis.expr.types as ir

from features.families.catalogue import WINDOWS, Feature
from features.families.known import NOTHING, Tables, at, money, times, total, whole_days

_DECAYS = (30, 90, 365)
# The days to come, as they were a year ago: ages from as_of.
_LAST_YEAR = {"30d": (335, 365), "90d": (275, 365)}

FEATURES = (
    *(Feature(f"n_purchases_{w}d", "purchases", f"purchases in the last {w} days",
              f"purchases in the last {w} days: {{}}" if w in (30, 90, 180, 365) else "",
              risk="never raises") for w in WINDOWS),
    *(Feature(f"spend_{w}d", "money", f"net spend in the last {w} days", risk="never raises") for w in WINDOWS),
    Feature("n_purchases", "purchases", "purchases ever", "purchases in all: {}", risk="never raises"),
    Feature("spend", "money", "net spend ever", risk="never raises"),
    Feature("frequency", "purchases", "repeat purchases", risk="never raises"),
    Feature("recency", "days", "last purchase minus first"),
    Feature("T", "days", "as_of minus first purchase", "a customer for {} days", risk="restless"),
    Feature("monetary_value", "money", "mean spend per repeat purchase", null="no repeat purchase"),
    Feature("recency_share", "share", "recency over T: how much of the relation had passed at the last purchase",
            risk="never raises"),
    Feature("repurchase_frequency", "ratio", "repeat purchases per year since the first", risk="never raises"),
    Feature("loyalty_index", "share", "repeat purchases over all purchases", risk="never raises"),
    Feature("days_since_last_purchase", "days", "as_of minus last purchase", "last bought {} days ago",
            risk="never lowers"),
    Feature("gap_mean", "days", "days between purchases, on average", "usually returns after {} days",
            null="one purchase"),
    Feature("gap_std", "days", "standard deviation of the gaps", null="fewer than two gaps"),
    Feature("gap_max", "days", "longest gap", "was never away longer than {} days before", null="one purchase"),
    Feature("gap_last", "days", "gap before the last purchase", null="one purchase"),
    Feature("gap_cv", "ratio", "spread of the gaps over their mean: regularity", null="fewer than two gaps"),
    Feature("silence_vs_gap", "ratio", "current gap over the mean gap", "silent for {} times the usual gap",
            null="one purchase", risk="never lowers"),
    Feature("silence_vs_longest_gap", "ratio", "current gap over the longest gap", null="one purchase",
            risk="never lowers"),
    Feature("silence_in_deviations", "ratio", "current gap minus the mean gap, in standard deviations of the gaps",
            null="fewer than two gaps, or all equal", risk="never lowers"),
    Feature("spend_mean", "money", "mean spend per purchase"),
    Feature("spend_std", "money", "standard deviation of spend per purchase", null="one purchase"),
    Feature("spend_max", "money", "spend of the largest purchase"),
    Feature("spend_first", "money", "spend of the first purchase"),
    Feature("spend_last", "money", "spend of the last purchase"),
    Feature("n_purchases_change_90d", "purchases", "purchases of the last 90 days minus the 90 before",
            risk="restless"),
    Feature("n_purchases_acceleration_90d", "purchases", "that change minus the change 90 days earlier",
            risk="restless"),
    Feature("spend_change_90d", "money", "net spend of the last 90 days minus the 90 before", risk="restless"),
    Feature("spend_change_365d", "money", "net spend of the last 365 days minus the 365 before", risk="restless"),
    Feature("spend_90d_share_of_year", "share", "net spend of the last 90 days over that of the last 365",
            null="no positive spend in 365 days", risk="restless"),
    *(Feature(f"n_purchases_decayed_{d}d", "purchases", f"purchases, each weighted exp(-age / {d})",
              risk="never raises") for d in _DECAYS),
    *(Feature(f"spend_decayed_{d}d", "money", f"net spend, each day weighted exp(-age / {d})",
              risk="never raises") for d in _DECAYS),
    *(Feature(f"n_purchases_next_{s}_last_year", "purchases", f"purchases in the coming {s}, a year earlier",
              f"purchases in the same {s} of last year: {{}}", null="first bought less than a year ago",
            risk="never raises")
      for s in _LAST_YEAR),
    *(Feature(f"spend_next_{s}_last_year", "money", f"net spend in the coming {s}, a year earlier",
              null="first bought less than a year ago", risk="never raises") for s in _LAST_YEAR),
    *(Feature(f"spend_share_next_{s}_last_year", "share",
              f"what share of the customer's net spend of the last 365 days fell in the coming {s}, a year earlier",
              null="first bought less than a year ago, or no positive spend since",
              risk="never raises") for s in _LAST_YEAR),
    *(Feature(f"shop_share_next_{s}_last_year", "share",
              f"what share of the shop's net spend of the last 365 days fell in the coming {s}, a year earlier",
              null="the shop's records are shorter than a year") for s in _LAST_YEAR),
    Feature("shop_growth_90d", "ratio", "the shop's net spend of the last 90 days over that a year earlier",
            null="the shop's records are shorter than 455 days"),
    Feature("n_active_months_365d", "count", "of the last twelve stretches of 30 days, those with a purchase",
            risk="never raises"),
    Feature("weekend_share", "share", "purchases on Saturdays and Sundays"),
)  # fmt: skip


def purchases(tables: Tables, as_of: ir.DateScalar) -> ir.Table:
    """One row per customer with a purchase before `as_of`; null where a figure needs more purchases."""
    days = _days(tables.customer_days, as_of)
    sums = days.group_by("customer_id").agg(**_sums(days))
    sums = sums.filter(sums.n_purchases > 0)
    both = sums.cross_join(_shop(tables.whole.customer_days, as_of))
    return both.mutate(**_ratios(both))


def _days(customer_days: ir.Table, as_of: ir.DateScalar) -> ir.Table:
    """One row per (customer_id, day): net spend, whether something was bought; and of a purchase the gap before it."""
    days = whole_days(customer_days, as_of, ["customer_id"], ["spend", "n_lines"])
    days = days.mutate(spend=money(days.spend), bought=days.n_lines > 0)
    before = days.age.lag().over(ibis.window(group_by=["customer_id", "bought"], order_by="day"))
    days = days.mutate(before=ibis.ifelse(days.bought, before, ibis.null("int32")))
    return days.mutate(
        gap=days.before - days.age,
        opens_month=days.bought & (days.before.isnull() | (_month(days.before) > _month(days.age))),
    )


def _month(age: ir.NumericValue) -> ir.NumericValue:
    """Which stretch of 30 days before as_of an age lies in; the last one is 0."""
    return ((age - 1) / 30).floor()


def _sums(days: ir.Table) -> dict[str, ir.Value]:
    bought, age = days.bought, days.age
    sums: dict[str, ir.Value] = {f"n_purchases_{w}d": times(bought & (age <= w)) for w in WINDOWS}
    sums |= {f"spend_{w}d": money(total(days.spend, age <= w)) for w in WINDOWS}
    sums |= {
        "n_purchases": times(bought),
        "spend": money(days.spend.sum()),
        "spend_bought": money(total(days.spend, bought)),
        "T": age.max(where=bought),
        "days_since_last_purchase": age.min(where=bought),
        "gap_std": days.gap.std(how="sample"),
        "gap_max": days.gap.max(),
        "gap_last": days.gap.argmin(age, where=bought),
        "spend_std": days.spend.std(where=bought, how="sample"),
        "spend_max": days.spend.max(where=bought),
        "spend_first": days.spend.argmax(age, where=bought),
        "spend_last": days.spend.argmin(age, where=bought),
        "n_purchases_180d_to_270d": times(bought & (age > 180) & (age <= 270)),
        "n_active_months_365d": times(days.opens_month & (age <= 360)),
        "n_weekend": times(bought & (days.day.day_of_week.index() >= 5)),
    }
    for d in _DECAYS:
        weight = (-age / d).exp()
        sums[f"n_purchases_decayed_{d}d"] = total(weight, bought)
        sums[f"spend_decayed_{d}d"] = (weight * days.spend).sum()
    for span, (near, far) in _LAST_YEAR.items():
        then = (age > near) & (age <= far)
        sums[f"n_then_{span}"] = times(bought & then)
        sums[f"spend_then_{span}"] = money(total(days.spend, then))
    return sums


def _shop(customer_days: ir.Table, as_of: ir.DateScalar) -> ir.Table:
    """One row: the shop's calendar. Null as long as its first purchase is too recent to compare with."""
    days = at(customer_days, as_of)
    begun = days.age.max(where=days.n_lines > 0)

    def sold(when: ir.BooleanValue) -> ir.NumericValue:
        return money(days.spend.sum(where=when))

    year, recent = sold(days.age <= 365), sold(days.age <= 90)
    then = sold((days.age > 365) & (days.age <= 455))
    shares = {
        f"shop_share_next_{span}_last_year": _since(
            begun, 365, sold((days.age > near) & (days.age <= far)) / _positive(year)
        )
        for span, (near, far) in _LAST_YEAR.items()
    }
    return days.agg(**shares, shop_growth_90d=_since(begun, 455, recent / _positive(then)))


def _since(begun: ir.Value, days: int, value: ir.Value) -> ir.Value:
    return ibis.ifelse(begun >= days, value, ibis.null("float64"))


def _positive(value: ir.Value) -> ir.Value:
    return ibis.ifelse(value > NOTHING, value, ibis.null("float64"))


def _ratios(sums: ir.Table) -> dict[str, ir.Value]:
    frequency = sums.n_purchases - 1
    recency = sums["T"] - sums.days_since_last_purchase
    gap_mean = recency / frequency.nullif(0)
    silence = sums.days_since_last_purchase
    ratios: dict[str, ir.Value] = {
        "frequency": frequency,
        "recency": recency,
        "monetary_value": (sums.spend_bought - sums.spend_first) / frequency.nullif(0),
        "recency_share": recency / sums["T"],
        "repurchase_frequency": frequency / sums["T"] * 365,
        "loyalty_index": frequency / sums.n_purchases,
        "gap_mean": gap_mean,
        "gap_cv": sums.gap_std / gap_mean,
        "silence_vs_gap": silence / gap_mean,
        "silence_vs_longest_gap": silence / sums.gap_max,
        "silence_in_deviations": (silence - gap_mean) / sums.gap_std.nullif(0),
        "spend_mean": sums.spend_bought / sums.n_purchases,
        "n_purchases_change_90d": 2 * sums.n_purchases_90d - sums.n_purchases_180d,
        # (n1 - n2) - (n2 - n3) of the last three times 90 days
        "n_purchases_acceleration_90d": 3 * sums.n_purchases_90d
        - 2 * sums.n_purchases_180d
        + sums.n_purchases_180d_to_270d,
        "spend_change_90d": 2 * sums.spend_90d - sums.spend_180d,
        "spend_change_365d": 2 * sums.spend_365d - sums.spend_730d,
        "spend_90d_share_of_year": sums.spend_90d / _positive(sums.spend_365d),
        "weekend_share": sums.n_weekend / sums.n_purchases,
    }
    for span in _LAST_YEAR:
        n, spend = sums[f"n_then_{span}"], sums[f"spend_then_{span}"]
        ratios[f"n_purchases_next_{span}_last_year"] = _since(sums["T"], 365, n)
        ratios[f"spend_next_{span}_last_year"] = _since(sums["T"], 365, spend)
        ratios[f"spend_share_next_{span}_last_year"] = _since(sums["T"], 365, spend / _positive(sums.spend_365d))
    return ratios
