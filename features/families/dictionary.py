"""The feature dictionary, docs/features.md, written from the definitions."""

from __future__ import annotations

from collections.abc import Iterable

from features.families import basket, engagement, product_affinity, profile, purchases
from features.families.catalogue import Feature

_PAGE = """# Features

Every feature, from its definition in `features/`; this page is written from there:
`python -c "from features.families.dictionary import describe; print(describe(), end='')" > docs/features.md`

All are float32 and say what was known at `as_of` ([time.md](time.md)). The window is in days before `as_of`, a day that
is not in it. A feature is null where it is unknown, never 0 for "never seen": always where its family knows nothing of
the customer, and where the last column says so. `risk` is how it may move the risk of leaving by silence, all else
equal: it never lowers it, never raises it, or (`-`) either; what is restless moves both ways while a customer is only
silent, and is not shown to a model of silence. Customer features are packed in this order, family after family, the
workspace's `attributes` as `attribute_<name>` behind the profile. The tests compute every one of them a second time, in
SQLite, and, by the same expressions, on Spark.
"""
_RETAIL = """
Three of them are what the retail trade calls loyalty: the **loyalty index** (`loyalty_index`, the share of a customer's
purchases that are repeat purchases; elsewhere the repeat purchase rate), the **repurchase frequency**
(`repurchase_frequency`, repeat purchases per year since the first) and the **days between purchases** (`gap_mean`).
"""
_FAMILIES = (
    ("purchases", "a customer", "transactions", "the customer has bought nothing", purchases.FEATURES),
    ("basket", "a customer", "transactions, products", "the customer has no line in 365 days", basket.FEATURES),
    ("engagement", "a customer", "interactions, transactions, customers", "the customer has no interaction",
     engagement.FEATURES),
    ("profile", "a customer", "customers, transactions", "the customer is not known", profile.FEATURES),
    ("product_affinity", "a customer and item", "transactions, products", "never bought", product_affinity.FEATURES),
    ("popularity", "an item", "transactions, products", "not bought in 365 days", product_affinity.POPULARITY),
    ("co_purchase", "an item and another", "transactions, products",
     "without a common buyer in 365 days, or not among the 3,000 most bought items and the other's 50 nearest",
     product_affinity.CO_PURCHASE),
)  # fmt: skip


def describe() -> str:
    """The whole page, in Markdown."""
    return _PAGE + "".join(_family(*family) for family in _FAMILIES)


def _family(name: str, grain: str, source: str, unknown: str, features: tuple[Feature, ...]) -> str:
    of = [feature for feature in features if feature not in engagement.TREATMENT]
    treatment = [feature for feature in features if feature in engagement.TREATMENT]
    page = f"\n## {name}\n\nOf {grain}, from {source}: {len(features)} features. Null altogether where {unknown}.\n"
    page += (_RETAIL if name == "purchases" else "") + _table(of)
    if treatment:
        page += "\nTreatment history, kept for measuring campaigns and never an input of a model:\n" + _table(treatment)
    return page


def _table(features: Iterable[Feature]) -> str:
    rows = (
        f"| `{f.name}` | {f.unit} | {f.window} | {f.meaning} | {f.risk or '-'} | {f.null or '-'} |" for f in features
    )
    head = "| feature | unit | window | meaning | risk | null also where |\n|---|---|---|---|---|---|"
    return "\n" + "\n".join((head, *rows)) + "\n"
