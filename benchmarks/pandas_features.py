"""The same features as anyone would write them in pandas: a frame per window, a groupby per figure.

The baseline of `benchmarks.features`, which also holds its values against ours.
"""

from __future__ import annotations

from datetime import date
from typing import Any

import numpy as np
import pandas as pd

_KINDS = ("visit", "search", "cart", "review", "complaint", "inquiry", "survey", "email_open", "email_click", "call",
          "coupon_redeemed")  # fmt: skip
Tables = dict[str, pd.DataFrame]


def compute(tables: Tables, as_of: date) -> dict[str, pd.DataFrame]:
    """Every family at `as_of` from the canonical tables, indexed by its keys; attributes and consents left out.

    Who refuses profiling says nothing of items.
    """
    lines, events = (_known(tables[name], as_of) for name in ("transactions", "interactions"))
    lines = lines.merge(tables["products"][["product_id", "category", "unit_cost"]], on="product_id", how="left")
    affinity = _affinity(lines)
    customers = tables["customers"]
    refuse = customers.loc[customers["profiling_consent"].eq(False), "customer_id"]
    of_others = affinity[~affinity.index.get_level_values("customer_id").isin(refuse)]
    return {
        "purchases": _purchases(lines),
        "basket": _basket(lines),
        "engagement": _engagement(events, lines, as_of),
        "profile": _profile(customers, lines, as_of),
        "product_affinity": affinity,
        "popularity": _popularity(of_others),
        "co_purchase": _co_purchase(of_others),
    }


def _known(rows: pd.DataFrame, as_of: date) -> pd.DataFrame:
    """Rows known before as_of, with their age in days."""
    rows = rows[rows["known_day"] < pd.Timestamp(as_of)].copy()
    rows["age"] = (pd.Timestamp(as_of) - rows["day"]).dt.days
    return rows


def _purchases(lines: pd.DataFrame) -> pd.DataFrame:
    bought = lines[lines["amount"] >= 0]
    spend = lines.groupby(["customer_id", "age"])["amount"].sum()
    days = bought[["customer_id", "age", "day"]].drop_duplicates().sort_values(["customer_id", "age"], ascending=False)
    days = days.merge(spend.rename("spend").reset_index(), on=["customer_id", "age"])
    days = days.sort_values(["customer_id", "age"], ascending=[True, False])
    days["gap"] = days.groupby("customer_id")["age"].shift() - days["age"]
    by = days.groupby("customer_id")
    features = pd.DataFrame(index=by.size().index)
    lines = lines[lines["customer_id"].isin(features.index)]

    def n(near: int, far: int) -> pd.Series:
        return days[days["age"].between(near, far)].groupby("customer_id").size().reindex(features.index, fill_value=0)

    def total(near: int, far: int) -> pd.Series:
        rows = lines[lines["age"].between(near, far)]
        return rows.groupby("customer_id")["amount"].sum().reindex(features.index, fill_value=0.0)

    for w in (7, 14, 30, 60, 90, 180, 365, 730):
        features[f"n_purchases_{w}d"], features[f"spend_{w}d"] = n(1, w), total(1, w)
    features["n_purchases"] = by.size()
    features["spend"] = lines.groupby("customer_id")["amount"].sum()
    features["frequency"] = features["n_purchases"] - 1
    features["T"], silence = by["age"].max(), by["age"].min()
    features["recency"] = features["T"] - silence
    repeats = features["frequency"].replace(0, np.nan)
    first, last = by["spend"].first(), by["spend"].last()
    features["monetary_value"] = (by["spend"].sum() - first) / repeats
    features["recency_share"] = features["recency"] / features["T"]
    features["repurchase_frequency"] = features["frequency"] * 365 / features["T"]
    features["loyalty_index"] = features["frequency"] / features["n_purchases"]
    features["days_since_last_purchase"] = silence
    features["gap_mean"], features["gap_std"], features["gap_max"] = by["gap"].mean(), by["gap"].std(), by["gap"].max()
    features["gap_last"] = days.groupby("customer_id").tail(1).set_index("customer_id")["gap"]
    features["gap_cv"] = features["gap_std"] / features["gap_mean"]
    features["silence_vs_gap"] = silence / features["gap_mean"]
    features["silence_vs_longest_gap"] = silence / features["gap_max"]
    features["silence_in_deviations"] = (silence - features["gap_mean"]) / features["gap_std"].replace(0, np.nan)
    features["spend_mean"], features["spend_std"], features["spend_max"] = (
        by["spend"].mean(), by["spend"].std(), by["spend"].max()
    )  # fmt: skip
    features["spend_first"], features["spend_last"] = first, last
    features["n_purchases_change_90d"] = n(1, 90) - n(91, 180)
    features["n_purchases_acceleration_90d"] = n(1, 90) - 2 * n(91, 180) + n(181, 270)
    features["spend_change_90d"] = total(1, 90) - total(91, 180)
    features["spend_change_365d"] = total(1, 365) - total(366, 730)
    year = features["spend_365d"].where(features["spend_365d"] > 1e-6)
    features["spend_90d_share_of_year"] = features["spend_90d"] / year
    for d in (30, 90, 365):
        weight = np.exp(-days["age"] / d)
        features[f"n_purchases_decayed_{d}d"] = weight.groupby(days["customer_id"]).sum()
        weighted = lines["amount"] * np.exp(-lines["age"] / d)
        features[f"spend_decayed_{d}d"] = weighted.groupby(lines["customer_id"]).sum()
    months = days[days["age"] <= 360].assign(month=lambda rows: (rows["age"] - 1) // 30)
    active = months.groupby("customer_id")["month"].nunique()
    features["n_active_months_365d"] = active.reindex(features.index, fill_value=0)
    features["weekend_share"] = (days["day"].dt.dayofweek >= 5).groupby(days["customer_id"]).mean()
    return features.join(_last_year(lines, days, features["T"] >= 365))


def _last_year(lines: pd.DataFrame, days: pd.DataFrame, old: pd.Series) -> pd.DataFrame:
    """The coming days as they were a year ago, of the customers and of the shop; `old` says who was there then."""
    features = pd.DataFrame(index=old.index)
    opened, shop = days["age"].max(), lines.groupby("age")["amount"].sum()
    year = lines[lines["age"] <= 365].groupby("customer_id")["amount"].sum().reindex(old.index, fill_value=0.0)
    for span, near in (("30d", 336), ("90d", 276)):
        then = lines[lines["age"].between(near, 365)].groupby("customer_id")["amount"].sum()
        then = then.reindex(old.index, fill_value=0.0)
        n = days[days["age"].between(near, 365)].groupby("customer_id").size().reindex(old.index, fill_value=0)
        features[f"n_purchases_next_{span}_last_year"] = n.where(old)
        features[f"spend_next_{span}_last_year"] = then.where(old)
        features[f"spend_share_next_{span}_last_year"] = (then / year.where(year > 1e-6)).where(old)
        share = shop.loc[near:365].sum() / shop.loc[1:365].sum()
        features[f"shop_share_next_{span}_last_year"] = share if opened >= 365 else np.nan
    features["shop_growth_90d"] = shop.loc[1:90].sum() / shop.loc[366:455].sum() if opened >= 455 else np.nan
    return features


def _basket(lines: pd.DataFrame) -> pd.DataFrame:
    lines = lines[lines["age"] <= 365]
    bought, returned = lines[lines["amount"] >= 0], lines[lines["amount"] < 0]
    features = pd.DataFrame(index=lines.groupby("customer_id").size().index)
    by = bought.groupby("customer_id")
    gross, n_lines = by["amount"].sum(), by.size()
    features["lines_per_purchase_365d"] = n_lines / by["age"].nunique()
    recent = bought[bought["age"] <= 90]
    categories = bought.groupby("customer_id")["category"].nunique()
    features["n_categories_365d"] = categories.where(categories > 0)
    late = recent.groupby("customer_id")["category"].nunique().reindex(features.index, fill_value=0)
    features["n_categories_90d"] = late.where(features["n_categories_365d"].notna())
    spend = bought.groupby(["customer_id", "category"])["amount"].sum()
    share = spend / spend.groupby("customer_id").transform("sum")
    features["category_entropy_365d"] = -(share * np.log(share)).groupby("customer_id").sum()
    features["top_category_share_365d"] = share.groupby("customer_id").max()
    after = recent.groupby(["customer_id", "category"])["amount"].sum().reindex(spend.index, fill_value=0.0)
    before = (spend - after).where(lambda left: left > 1e-6, 0.0)
    norm = np.sqrt((after**2).groupby("customer_id").sum() * (before**2).groupby("customer_id").sum())
    features["category_similarity_90d"] = (after * before).groupby("customer_id").sum() / norm.replace(0, np.nan)
    pieces = bought["quantity"].fillna(1).groupby(bought["customer_id"]).sum()
    features["price_mean_365d"] = gross / pieces
    by_recent = recent.groupby("customer_id")
    late_price = by_recent["amount"].sum() / recent["quantity"].fillna(1).groupby(recent["customer_id"]).sum()
    features["price_change_90d"] = late_price / features["price_mean_365d"]
    for span, rows in (("365d", bought), ("90d", recent)):
        discount = rows["discount"].abs().groupby(rows["customer_id"]).sum(min_count=1)
        features[f"discount_share_{span}"] = discount / (discount + rows.groupby("customer_id")["amount"].sum())
    back = -returned.groupby("customer_id")["amount"].sum().reindex(features.index, fill_value=0.0)
    features["return_share_365d"] = back / gross.replace(0, np.nan)
    for span, days in (("365d", 365), ("90d", 90)):
        counts = returned[returned["age"] <= days].groupby("customer_id")["age"].nunique()
        features[f"n_return_days_{span}"] = counts.reindex(features.index, fill_value=0)
    margin = lines["amount"] - lines["cost"].fillna(lines["unit_cost"] * lines["quantity"])
    features["margin_365d"] = margin.groupby(lines["customer_id"]).sum(min_count=1)
    channels = bought.groupby(["customer_id", "age", "known_day"])["channel"].min()
    n_channels = channels.groupby("customer_id").nunique()
    features["n_channels_365d"] = n_channels.where(n_channels > 0)
    features["hour_mean_365d"] = by["hour"].mean()
    return features


def _engagement(events: pd.DataFrame, lines: pd.DataFrame, as_of: date) -> pd.DataFrame:
    features = pd.DataFrame(index=events.groupby("customer_id").size().index)

    def count(kind: str, days: int) -> pd.Series:
        rows = events[(events["kind"] == kind) & (events["age"] <= days)]
        return rows.groupby("customer_id").size().reindex(features.index, fill_value=0)

    for kind in _KINDS:
        for w in (30, 90, 365):
            features[f"n_{kind}_{w}d"] = count(kind, w)
    sent = ("email_sent", "campaign_contact")
    own = events[~events["kind"].isin((*sent, "campaign_control"))]
    features["days_since_interaction"] = own.groupby("customer_id")["age"].min()
    for kind in ("visit", "complaint"):
        features[f"days_since_{kind}"] = events[events["kind"] == kind].groupby("customer_id")["age"].min()
    cancelled = events[events["kind"] == "cancellation"]
    bought_at = lines[lines["amount"] >= 0].groupby("customer_id")["occurred_at"].max()
    back = cancelled["customer_id"].map(bought_at) > cancelled["occurred_at"]
    features["days_since_cancellation"] = cancelled[~back].groupby("customer_id")["age"].max()
    complaints = events[events["kind"] == "complaint"]
    resolved = complaints["resolved_day"] < pd.Timestamp(as_of)
    still_open = complaints[~resolved].groupby("customer_id").size().reindex(features.index, fill_value=0)
    features["n_open_complaints"] = still_open if resolved.any() else np.nan
    recent = complaints[resolved & (complaints["age"] <= 365)]
    features["days_to_resolve_365d"] = (
        (recent["resolved_day"] - recent["day"]).dt.days.groupby(recent["customer_id"]).mean()
    )
    rated = events[events["kind"].isin(["review", "survey"]) & events["value"].notna()]
    features["satisfaction_365d"] = rated[rated["age"] <= 365].groupby("customer_id")["value"].mean()
    rated = rated.sort_values(["customer_id", "occurred_at", "interaction_id"])
    features["satisfaction_last"] = rated.groupby("customer_id")["value"].last()
    features["satisfaction_change"] = features["satisfaction_last"] - features["satisfaction_365d"]
    for name, kind in (("n_emails_sent", "email_sent"), ("n_campaign_contacts", "campaign_contact")):
        features[f"{name}_90d"], features[f"{name}_365d"] = count(kind, 90), count(kind, 365)
    features["days_since_contact"] = events[events["kind"].isin(sent)].groupby("customer_id")["age"].min()
    mails = features["n_emails_sent_365d"].replace(0, np.nan)
    features["email_open_rate_365d"] = features["n_email_open_365d"] / mails
    features["email_click_rate_365d"] = features["n_email_click_365d"] / mails
    contacts = features["n_campaign_contacts_365d"].replace(0, np.nan)
    features["coupon_redemption_rate_365d"] = features["n_coupon_redeemed_365d"] / contacts
    return features


def _profile(customers: pd.DataFrame, lines: pd.DataFrame, as_of: date) -> pd.DataFrame:
    first = lines.groupby("customer_id")["age"].max()
    since = (pd.Timestamp(as_of) - customers.set_index("customer_id")["signed_up_day"]).dt.days
    both = pd.concat([first.rename("first"), since[since > 0].rename("since")], axis=1)
    waited = (both["since"] - both["first"]).clip(lower=0)
    return pd.DataFrame({"tenure_days": both.max(axis=1), "days_to_first_transaction": waited})


def _affinity(lines: pd.DataFrame) -> pd.DataFrame:
    bought = lines[(lines["amount"] >= 0) & lines["category"].notna()].rename(columns={"category": "item"})
    keys = ["customer_id", "item"]
    days = bought.groupby([*keys, "age"])["amount"].sum().rename("spend").reset_index()
    by = days.groupby(keys)
    features = pd.DataFrame(index=by.size().index)

    def within(near: int, far: int) -> Any:
        return days[days["age"].between(near, far)].groupby(keys)

    features["item_n_purchases"] = by.size()
    for w in (30, 90, 365):
        features[f"item_n_purchases_{w}d"] = within(1, w).size().reindex(features.index, fill_value=0)
    for w in (30, 90):
        features[f"item_n_purchases_decayed_{w}d"] = np.exp(-days["age"] / w).groupby([days[key] for key in keys]).sum()
    features["item_n_purchases_next_90d_last_year"] = within(276, 365).size().reindex(features.index, fill_value=0)
    for w in (90, 365):
        features[f"item_spend_{w}d"] = within(1, w)["spend"].sum().reindex(features.index, fill_value=0.0)
    features["item_days_since_last"], features["item_days_since_first"] = by["age"].min(), by["age"].max()
    span = features["item_days_since_first"] - features["item_days_since_last"]
    features["item_gap_mean"] = span / (features["item_n_purchases"] - 1).replace(0, np.nan)
    features["item_silence_vs_gap"] = features["item_days_since_last"] / features["item_gap_mean"]
    year = features["item_n_purchases_365d"]
    features["item_share_365d"] = year / year.groupby("customer_id").transform("sum").replace(0, np.nan)
    return features


def _popularity(affinity: pd.DataFrame) -> pd.DataFrame:
    last = affinity["item_days_since_last"]
    latest = last.groupby("customer_id").min()
    features = pd.DataFrame(index=last[last <= 365].groupby("item").size().index)
    for w in (30, 90, 365):
        own = last[last <= w].groupby("item").size().reindex(features.index, fill_value=0)
        features[f"item_buyers_{w}d"] = own / (latest <= w).sum()
    features["item_rising"] = features["item_buyers_30d"] / features["item_buyers_365d"]
    sums = affinity.groupby("item")[["item_n_purchases_next_90d_last_year", "item_n_purchases_365d"]].sum()
    features["item_share_next_90d_last_year"] = sums.iloc[:, 0] / sums.iloc[:, 1]
    first = affinity["item_days_since_first"]
    newly = first[first <= 90].groupby("item").size().reindex(features.index, fill_value=0)
    features["item_new_buyers_90d"] = newly / (latest <= 90).sum()
    earlier = affinity[first > 30]
    again = (earlier["item_n_purchases"] > 1).groupby("item").agg(["sum", "size"]).reindex(features.index)
    features["item_rebought_share"] = (again["sum"] + 1) / (again["size"] + 20)
    features["item_days_on_sale"] = first.groupby("item").max()
    return features


def _co_purchase(affinity: pd.DataFrame) -> pd.DataFrame:
    recent = affinity[affinity["item_days_since_last"] <= 365].reset_index()[["customer_id", "item"]]
    pairs = recent.merge(recent.rename(columns={"item": "other"}), on="customer_id")
    pairs = pairs[pairs["item"] != pairs["other"]]
    both = pairs.groupby(["item", "other"]).size()
    buyers, everyone = recent.groupby("item").size(), recent["customer_id"].nunique()
    n_item, n_other = (buyers.reindex(both.index.get_level_values(name)).to_numpy() for name in ("item", "other"))
    share = both / n_other
    features = pd.DataFrame(
        {
            "n_bought_both_365d": both,
            "co_buyers_365d": share,
            "co_purchase_lift_365d": share / (n_item / everyone),
            "co_purchase_cosine_365d": both / np.sqrt((n_item + 10) * (n_other + 10)),
        }
    )
    nearest = features.reset_index().sort_values(
        ["other", "co_purchase_cosine_365d", "item"], ascending=[True, False, True]
    )
    return nearest.groupby("other").head(50).set_index(["item", "other"])
