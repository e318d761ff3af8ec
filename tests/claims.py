"""Every sentence that may be given as a reason, held against the customer's own rows: counted in pandas, by no feature.

A claim must be true, its numbers the customer's own, and must speak for what it is a reason of: told of a risk (or of
being worth `less`) only what is worse than the customer's own past or than the shop's half, of being worth `more` only
what is better.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date

import numpy as np
import pandas as pd

from workspace import storage
from workspace.settings import Workspace

DAYS, TIMES, MONEY = r"([\d,]+) days?", r"(once|[\d,]+ times)", r"(-?[\d,.]+) [A-Z]{3}"


@dataclass(frozen=True)
class Shop:
    """A row of facts for every customer known at an as_of, and the medians of those who bought and may be asked of."""

    facts: pd.DataFrame
    medians: pd.Series
    attributes: pd.DataFrame

    def purchases(self) -> float:
        """The whole shop's purchases of the last 90 days over those of the 90 before; 1 at most."""
        return min(self.facts["n90"].sum() / max(self.facts["n_before"].sum(), 1), 1.0)


def rows(workspace: Workspace, table: str, as_of: date) -> pd.DataFrame:
    """Rows of a table of events known before `as_of`, with their `age` in days of the workspace's timezone."""
    parts = storage.parts(storage.tables_folder(workspace.home_path, table))
    if not parts:
        none = pd.DataFrame(columns=["customer_id", "age", "kind", "value", "occurred_at", "resolved_at"])
        return none.astype({"occurred_at": "datetime64[us, UTC]", "resolved_at": "datetime64[us, UTC]"})
    lines = pd.concat([pd.read_parquet(part) for part in parts], ignore_index=True)
    day, recorded = (_days(lines, name, workspace.timezone) for name in ("occurred_at", "recorded_at"))
    known = day.where(~(recorded > day), recorded) < pd.Timestamp(as_of)
    return lines.assign(age=(pd.Timestamp(as_of) - day).dt.days)[known]


def _days(lines: pd.DataFrame, name: str, timezone: str) -> pd.Series:
    if name not in lines:
        return pd.Series(pd.NaT, index=lines.index)
    return lines[name].dt.tz_convert(timezone).dt.tz_localize(None).dt.normalize()


def shop(workspace: Workspace, as_of: date) -> Shop:
    lines, happened = rows(workspace, "transactions", as_of), rows(workspace, "interactions", as_of)
    facts = _of_purchases(lines).join(_of_baskets(workspace, lines), how="outer")
    customers = _customers(workspace)
    signed = (pd.Timestamp(as_of) - _days(customers, "signed_up_at", workspace.timezone)).dt.days
    facts = facts.join(signed[signed > 0].rename("signed"), how="outer").join(
        _of_interactions(workspace, happened, as_of)
    )
    facts["tenure"] = facts[["signed", "first_line"]].max(axis=1)
    facts["then"] = facts["then"].where(facts["T"] >= 365)
    asked = facts[(facts["n"] > 0) & _asked(customers, facts.index)]
    return Shop(facts, asked.median(numeric_only=True), customers)


def _customers(workspace: Workspace) -> pd.DataFrame:
    parts = storage.parts(storage.tables_folder(workspace.home_path, "customers"))
    if not parts:
        return pd.DataFrame({"signed_up_at": pd.Series(dtype="datetime64[us, UTC]")})
    return pd.concat([pd.read_parquet(part) for part in parts]).set_index("customer_id")


def _asked(customers: pd.DataFrame, index: pd.Index) -> pd.Series:
    if "profiling_consent" not in customers or customers["profiling_consent"].isna().all():
        return pd.Series(True, index=index)
    return customers["profiling_consent"].reindex(index).eq(True)


def _of_purchases(lines: pd.DataFrame) -> pd.DataFrame:
    """By customer, days on which something was bought; a day's returns are taken off its spend."""
    days = lines.groupby(["customer_id", "age"])["amount"].agg(spend="sum", bought=lambda own: (own >= 0).any())
    days = days.reset_index()
    facts = {}
    for customer, own in days.groupby("customer_id"):
        ages = np.sort(own.loc[own["bought"], "age"].to_numpy())[::-1]
        gaps = -np.diff(ages)
        spend = {span: own.loc[own["age"] <= span, "spend"].sum() for span in (90, 180, 365)}
        counts = {span: int((ages <= span).sum()) for span in (90, 180, 365)}
        facts[customer] = {
            "n": len(ages), "T": ages.max(initial=0), "silent": ages.min() if len(ages) else np.nan,
            "gap": gaps.mean() if len(gaps) else np.nan, "longest": gaps.max(initial=0), "n90": counts[90],
            "n_before": counts[180] - counts[90], "n365": counts[365],
            "then": int(((ages > 275) & (ages <= 365)).sum()),
            "spend90": spend[90], "spend_before": spend[180] - spend[90], "spend365": spend[365],
            "first_line": own["age"].max(),
        }  # fmt: skip
    return pd.DataFrame.from_dict(facts, orient="index").rename_axis("customer_id")


def _of_baskets(workspace: Workspace, lines: pd.DataFrame) -> pd.DataFrame:
    year = lines[lines["age"] <= 365]
    bought, returned = year[year["amount"] >= 0], year[year["amount"] < 0]
    gross = bought.groupby("customer_id")["amount"].sum()
    facts = pd.DataFrame({"gross": gross, "returned": -returned.groupby("customer_id")["amount"].sum()})
    facts["return_share"] = facts["returned"].fillna(0) / facts["gross"].where(facts["gross"] > 0)
    if "discount" in bought and bought["discount"].notna().any():
        discount = bought["discount"].abs().groupby(bought["customer_id"]).sum(min_count=1)
        facts["discount_share"] = discount / (discount + gross).where(discount + gross > 0)
    parts = storage.parts(storage.tables_folder(workspace.home_path, "products"))
    if parts:
        products = pd.concat([pd.read_parquet(part, columns=["product_id", "category"]) for part in parts])
        named = bought.merge(products, on="product_id")
        facts["categories"] = named.groupby("customer_id")["category"].nunique()
    return facts


def _of_interactions(workspace: Workspace, happened: pd.DataFrame, as_of: date) -> pd.DataFrame:
    facts = pd.DataFrame(index=pd.Index(happened["customer_id"].unique(), name="customer_id"))
    for kind in ("visit", "email_sent", "email_open", "coupon_redeemed", "call", "inquiry", "review", "survey"):
        own = happened[happened["kind"] == kind]
        for span in (30, 90, 365):
            facts[f"{kind}{span}"] = own[own["age"] <= span].groupby("customer_id").size()
        facts[f"{kind}_last"] = own.groupby("customer_id")["age"].min()
    counts = [name for name in facts if not name.endswith("_last")]
    facts[counts] = facts[counts].fillna(0)
    cancelled = happened[happened["kind"] == "cancellation"]
    facts["cancelled"] = cancelled.groupby("customer_id")["age"].agg(set)
    complaints = happened[happened["kind"] == "complaint"]
    facts["complaint_last"] = complaints.groupby("customer_id")["age"].min()
    resolved = _days(complaints, "resolved_at", workspace.timezone) < pd.Timestamp(as_of)
    facts["open"] = complaints[~resolved].groupby("customer_id").size()
    facts["open"] = facts["open"].fillna(0) if resolved.any() else np.nan
    rated = happened[happened["kind"].isin(["review", "survey"]) & happened["value"].notna()]
    facts["rating"] = (
        rated.sort_values(["occurred_at", "interaction_id"]).groupby("customer_id")["value"].last()
        if len(rated)
        else np.nan
    )
    return facts


Holds = Callable[[pd.Series, Shop, list[float]], bool]


def _same(own: float, told: float, digits: float = 0.51) -> bool:
    return abs(own - told) <= digits


def _money(own: float, told: float) -> bool:
    return abs(own - told) <= max(0.51 if abs(own) >= 99 else 0.0051, 1e-5 * abs(own))


def _usual(shop: Shop, name: str) -> float:
    return float(shop.medians[name])


def _less(own: pd.Series, shop: Shop, told: list[float]) -> bool:
    return (
        own["T"] >= 180 and own["spend90"] < own["spend_before"] * shop.purchases() and _money(own["spend90"], told[0])
    )


# Of a risk.
RISK: dict[str, Holds] = {
    rf"has been silent {DAYS}; usually returns after {DAYS}": lambda own, shop, told: (
        own["n"] >= 4 and own["silent"] > own["gap"] and _same(own["silent"], told[0], 0) and _same(own["gap"], told[1])
        and told[0] > told[1]
    ),
    rf"has been silent {DAYS}, longer than ever; usually returns after {DAYS}": lambda own, shop, told: (
        own["n"] >= 4 and own["silent"] > own["longest"] and _same(own["silent"], told[0], 0)
        and _same(own["gap"], told[1])
    ),
    rf"has been silent {DAYS}, longer than ever; came back within {DAYS} before": lambda own, shop, told: (
        2 <= own["n"] <= 3 and told == [own["silent"], own["longest"]] and told[0] > told[1]
    ),
    rf"bought for the first time {DAYS} ago": lambda own, shop, told: (
        own["n"] == 1 and told == [own["T"]] and own["T"] <= _usual(shop, "gap")
    ),
    rf"bought only once, {DAYS} ago": lambda own, shop, told: own["n"] == 1 and told == [own["T"]],
    rf"buys rarely: usually returns after {DAYS}": lambda own, shop, told: (
        own["n"] >= 4 and own["gap"] > 1.2 * _usual(shop, "gap") and _same(own["gap"], told[0])
    ),
    rf"buys rarely: {TIMES} in {DAYS}": lambda own, shop, told: (
        2 <= own["n"] <= 3 and told == [own["n"], own["T"]] and own["T"] / own["n"] > _usual(shop, "gap")
    ),
    rf"bought on only {DAYS} of the last year": lambda own, shop, told: (
        own["T"] >= 365 and told == [own["n365"]] and 0 < own["n365"] < _usual(shop, "n365")
    ),
    r"bought nothing in the last year": lambda own, shop, told: own["T"] >= 365 and own["n365"] == 0,
    r"buys less often: ([\d,]+) purchases? in the last 90 days, ([\d,]+) in the 90 before": lambda own, shop, told: (
        own["T"] >= 180 and told == [own["n90"], own["n_before"]]
        and 0 < own["n90"] < own["n_before"] * shop.purchases()
    ),
    rf"bought nothing in the last 90 days, {TIMES} in the 90 before": lambda own, shop, told: (
        own["T"] >= 180 and own["n90"] == 0 and told == [own["n_before"]] and told[0] > 0
    ),
    rf"spends less: {MONEY} in the last 90 days, {MONEY} in the 90 before": lambda own, shop, told: (
        _less(own, shop, told) and _money(own["spend_before"], told[1]) and own["n90"] > 0
    ),
    rf"spent only {MONEY} in the last year; half of the customers {MONEY} or more": lambda own, shop, told: (
        own["T"] >= 365 and _money(own["spend365"], told[0]) and _money(_usual(shop, "spend365"), told[1])
        and own["spend365"] < _usual(shop, "spend365") and (shop.facts["spend365"] >= told[1]).sum() > 0
    ),
    r"bought nothing a year ago in the 90 days that come now": lambda own, shop, told: (
        own["T"] >= 365 and own["then"] == 0 and shop.facts["then"].sum() > 0
    ),
    rf"has not visited for {DAYS}": lambda own, shop, told: (
        told == [own["visit_last"]] and told[0] > 30 and shop.facts["visit30"].sum() > 0
        and not own["silent"] < told[0]
    ),
    r"visits less often: ([\d,]+) visits? in the last 30 days, ([\d,]+) in the 60 before": lambda own, shop, told: (
        told == [own["visit30"], own["visit90"] - own["visit30"]] and 0 < told[0] < told[1] / 2
    ),
    rf"cancelled {DAYS} ago": lambda own, shop, told: told[0] in own["cancelled"],
    rf"complained {DAYS} ago": lambda own, shop, told: (
        told == [own["complaint_last"]] and told[0] <= 365 and not own["open"] > 0
    ),
    rf"complained {DAYS} ago; ([\d,]+) complaints? (?:is|are) still open": lambda own, shop, told: (
        told == [own["complaint_last"], own["open"]] and told[1] > 0
    ),
    r"last rating was ([\d.]+); half of those who rate gave ([\d.]+) or more": lambda own, shop, told: (
        _same(own["rating"], told[0], 0.051) and own["rating"] < _usual(shop, "rating")
        and _same(told[1], _usual(shop, "rating"), 0.051)
    ),
    r"sent back goods worth (\d+)% of the last year's purchases": lambda own, shop, told: (
        _same(100 * own["return_share"], told[0]) and own["return_share"] > max(_usual(shop, "return_share"), 0.0099)
    ),
    r"sent back more than was bought in the last year": lambda own, shop, told: own["return_share"] > 1,
    r"(\d+)% of the last year's price was discount": lambda own, shop, told: (
        _same(100 * own["discount_share"], told[0]) and own["discount_share"] > _usual(shop, "discount_share")
    ),
    r"bought from only (\d+) categor(?:y|ies) in the last year": lambda own, shop, told: (
        told == [own["categories"]] and own["categories"] < _usual(shop, "categories")
    ),
    rf"has been a customer for only {DAYS}": lambda own, shop, told: (
        told == [own["tenure"]] and own["tenure"] < _usual(shop, "tenure")
    ),
    r"opened no e-mail in the last 90 days, ([\d,]+) in the 275 before": lambda own, shop, told: (
        own["email_open90"] == 0 and told == [own["email_open365"]] and told[0] > 0 and own["email_sent90"] > 0
    ),
    r"redeemed no coupon in the last 90 days, ([\d,]+) in the 275 before": lambda own, shop, told: (
        own["coupon_redeemed90"] == 0 and told == [own["coupon_redeemed365"]] and told[0] > 0
        and shop.facts["coupon_redeemed90"].sum() > 0
    ),
}  # fmt: skip
# What is neither good nor bad by itself.
EITHER: dict[str, Holds] = {
    rf"{words} in the last (\d+) days: ([\d,]+)": lambda own, shop, told, kind=kind: (  # type: ignore[misc]
        told[1] == own[f"{kind}{told[0]:.0f}"] > 0
    )
    for kind, words in {"call": "calls", "inquiry": "inquiries", "review": "reviews", "survey": "surveys"}.items()
}  # fmt: skip


def _sided(name: str, worth: int = 1, digits: float = 0.0) -> dict[str, Holds]:
    """Told of being worth more or less: the value is the customer's own, and on that side of the shop's half."""
    return {
        side: lambda own, shop, told, sign=sign: (  # type: ignore[misc, dict-item]
            _same(own[name], told[0], digits) and sign * worth * (own[name] - _usual(shop, name)) > 0
        )
        for side, sign in (("more", 1), ("less", -1))
    }


VALUE: dict[str, dict[str, Holds]] = {
    rf"last bought {DAYS} ago": _sided("silent", worth=-1)
    | {
        "more": lambda own, shop, told: (
            told == [own["silent"]] and own["silent"] < _usual(shop, "silent")
            and not (own["n"] >= 4 and own["silent"] > round(own["gap"]))
            and not (2 <= own["n"] <= 3 and own["silent"] > own["longest"])
        )
    },
    rf"bought on {DAYS} of the last year": _sided("n365"),
    rf"spent {MONEY} in the last year": _sided("spend365", digits=0.51),
    rf"bought {TIMES} a year ago in the 90 days that come now": _sided("then"),
    r"([\d,]+) visits? in the last 90 days": _sided("visit90"),
    r"last rating was ([\d.]+)": _sided("rating", digits=0.051),
    r"bought from (\d+) categor(?:y|ies) in the last year": _sided("categories"),
    rf"has been a customer for {DAYS}": _sided("tenure"),
    r"no visit in the last 90 days": {
        "less": lambda own, shop, told: own["visit90"] == 0 == own["n90"] and _usual(shop, "visit90") > 0
    },
    r"bought nothing in the last year": {
        "less": lambda own, shop, told: own["n365"] == 0 and _usual(shop, "n365") > 0
    },
    r"bought nothing a year ago in the 90 days that come now": {"less": lambda own, shop, told: own["then"] == 0},
}  # fmt: skip


def held(shop: Shop, customer_id: str, sentence: str) -> str:
    """The kind of sentence that this is; fails where it does not hold of the customer.

    A driver of the value has `more: ` or `less: ` in front.
    """
    side, words = (sentence[:4], sentence[6:]) if sentence.startswith(("more: ", "less: ")) else ("", sentence)
    own = shop.facts.loc[customer_id]
    if (named := re.fullmatch(r"([a-z ]+) is (.+)", words)) and named[1].replace(" ", "_") in shop.attributes:
        value = shop.attributes.loc[customer_id, named[1].replace(" ", "_")]
        assert str(value) == named[2] or float(value) == float(named[2]), (customer_id, sentence, value)
        assert not named[2].endswith(".0")
        return "attribute"
    known = RISK | EITHER if not side else {p: v[side] for p, v in VALUE.items() if side in v} | EITHER
    if side == "less":
        known = known | {pattern: holds for pattern, holds in RISK.items() if pattern not in known}
    fitting = [pattern for pattern in known if re.fullmatch(pattern, words)]
    assert fitting, f"nobody says {sentence!r}"
    match = re.fullmatch(fitting[0], words)
    assert match is not None
    told = [1.0 if text == "once" else float(text.replace(",", "").removesuffix(" times")) for text in match.groups()]
    assert known[fitting[0]](own, shop, told), (customer_id, sentence, own.dropna().to_dict())
    assert not re.search(
        r"\b1 (days|visits|times|purchases|complaints|categories)\b|(?<![\d.,])0 |nan|\d\.\d{3}", words
    ), sentence
    return fitting[0]
