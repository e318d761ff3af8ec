"""Why a customer is at risk, as a colleague would say it: what happened, with the customer's own numbers."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from features.catalogue import Feature
from features.snapshot import attribute_codes, customer_features
from perennial.settings import Workspace
from serving.predictor import Predictor

MOST = 3
# A theme's part in the log-odds counts in steps: what tiny changes of the input move is not what is told.
_STEP = 0.1

Say = Callable[["Facts"], str | None]


class Facts:
    """One customer's feature values by name; null where unknown. `money` and `attribute` put them into words."""

    def __init__(self, values: Mapping[str, float], currency: str, names: Mapping[str, Mapping[int, str]]) -> None:
        self.values, self.currency, self.names = values, currency, names

    def __getitem__(self, name: str) -> float | None:
        value = self.values.get(name, np.nan)
        return None if np.isnan(value) else value

    def days(self, name: str) -> str | None:
        value = self[name]
        return None if value is None else _counted(value, "day")

    def money(self, value: float) -> str:
        return f"{value:,.0f} {self.currency}" if abs(value) >= 100 else f"{value:,.2f} {self.currency}"

    def attribute(self, name: str) -> str | None:
        value = self[name]
        if value is None:
            return None
        said = self.names[name].get(int(value)) if name in self.names else f"{value:,.10g}"
        return said and f"{name.removeprefix('attribute_').replace('_', ' ')} is {said}"


def _counted(value: float, thing: str) -> str:
    return f"{value:,.0f} {thing}{'' if round(value) == 1 else 's'}"


def _silence(facts: Facts) -> str | None:
    silent, usual = facts.days("days_since_last_purchase"), facts["gap_mean"]
    if silent is None:
        return None
    if usual is None:
        return f"has been silent {silent} since the only purchase"
    return f"has been silent {silent}; usually returns after {usual:,.0f}"


def _frequency(facts: Facts) -> str | None:
    recent, half_year, year = (facts[f"n_purchases_{days}d"] for days in (90, 180, 365))
    if recent is None or half_year is None or year is None:
        return None
    before = half_year - recent
    if before > recent:
        return f"buys less often: {_counted(recent, 'purchase')} in the last 90 days, {before:,.0f} in the 90 before"
    return f"bought on only {_counted(year, 'day')} of the last year"


def _spend(facts: Facts) -> str | None:
    recent, half_year = facts["spend_90d"], facts["spend_180d"]
    if recent is None or half_year is None:
        return None
    before = half_year - recent
    if before > recent:
        return f"spends less: {facts.money(recent)} in the last 90 days, {facts.money(before)} in the 90 before"
    typical = facts["spend_mean"]
    return None if typical is None else f"spends {facts.money(typical)} per purchase"


def _season(facts: Facts) -> str | None:
    then = facts["n_purchases_next_90d_last_year"]
    return None if then is None else f"bought {_counted(then, 'time')} in the same 90 days of last year"


def _visits(facts: Facts) -> str | None:
    visits, last = facts["n_visit_30d"], facts.days("days_since_visit")
    if visits is None or last is None:
        return None
    return f"{_counted(visits, 'visit')} in the last 30 days, the last {last} ago"


def _complaints(facts: Facts) -> str | None:
    still_open, last = facts["n_open_complaints"], facts.days("days_since_complaint")
    if last is None:
        return None
    return f"complained {last} ago" + (f", {still_open:,.0f} still open" if still_open else "")


def _rating(facts: Facts) -> str | None:
    last = facts["satisfaction_last"]
    return None if last is None else f"last rating was {last:.1f}"


def _returns(facts: Facts) -> str | None:
    share = facts["return_share_365d"]
    return f"returned {share:.0%} of what was bought in the last year" if share else None


def _discount(facts: Facts) -> str | None:
    share = facts["discount_share_365d"]
    return f"{share:.0%} of the last year's price was discount" if share else None


def _breadth(facts: Facts) -> str | None:
    kinds = facts["n_categories_365d"]
    return None if kinds is None else f"bought from {kinds:,.0f} categor{'y' if kinds == 1 else 'ies'} in the last year"


def _last_purchase(facts: Facts) -> str | None:
    silent = facts.days("days_since_last_purchase")
    return silent and f"last bought {silent} ago"


def _purchases(facts: Facts) -> str | None:
    year = facts["n_purchases_365d"]
    return None if year is None else f"bought on {_counted(year, 'day')} of the last year"


def _year(facts: Facts) -> str | None:
    year = facts["spend_365d"]
    return None if year is None else f"spent {facts.money(year)} in the last year"


def _quarter(facts: Facts) -> str | None:
    visits = facts["n_visit_90d"]
    return None if visits is None else f"{_counted(visits, 'visit')} in the last 90 days"


def _relation(facts: Facts) -> str | None:
    tenure = facts.days("tenure_days")
    return None if tenure is None else f"has been a customer for {tenure}"


# Which features a sentence speaks for: their parts in the risk are added up, so that not one split of one tree decides
# what is said. A feature of none is told by itself, if its family has words for it.
_THEMES: tuple[tuple[str, Say], ...] = (
    (r"days_since_last_purchase|silence_.*|recency|recency_share|gap_.*|n_active_months_365d", _silence),
    (
        r"n_purchases(_\d+d|_decayed_\d+d|_change.*|_acceler.*)?|frequency|repurchase_frequency|loyalty_index",
        _frequency,
    ),
    (r"spend(_\d+d|_decayed_\d+d|_mean|_last|_first|_max|_std|_change.*|_90d_share.*)?|monetary_value", _spend),
    (r"(n_purchases|spend|spend_share)_next_\d+d_last_year", _season),
    (r"n_(visit|search|cart)_\d+d|days_since_(visit|interaction)", _visits),
    (r"n_complaint_\d+d|n_open_complaints|days_since_complaint|days_to_resolve_365d", _complaints),
    (r"satisfaction_.*", _rating),
    (r"return_share_365d|n_return_days_\d+d", _returns),
    (r"discount_share_\d+d", _discount),
    (r"n_categories_\d+d|category_entropy_365d|top_category_share_365d", _breadth),
    (r"tenure_days|T", _relation),
)


# What is said of a value: neither good nor bad by itself, the sign of its part says which.
_NEUTRAL: Mapping[Say, Say] = {
    _silence: _last_purchase, _frequency: _purchases, _spend: _year, _visits: _quarter,
}  # fmt: skip


def reasons(predictor: Predictor, vectors: NDArray[np.float32]) -> list[list[str]]:
    """Up to three reasons per packed vector, strongest first: what raises the risk most by its SHAP contribution."""
    return Explainer(predictor)(vectors)


class Explainer:
    """Tells reasons for the risk that a predictor sees; what it knows of the features is looked up once.

    Each says what happened in the customer's own numbers; never one whose value is unknown. Where nothing raises the
    risk, or there is no booster to ask, the silence is told.
    """

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor
        self.packed, self.currency = predictor.churn.inputs.packed, predictor.workspace.currency
        self.attribute_names = _attribute_names(predictor.workspace)
        self.of_churn = _Themes.among(predictor.churn.explained, predictor.workspace)
        self.of_value = _Themes.among(predictor.value.explained, predictor.workspace)

    def __call__(self, vectors: NDArray[np.float32]) -> list[list[str]]:
        """Per packed vector, strongest first."""
        if not len(vectors):
            return []
        weights = self.of_churn.weights(self.predictor.churn.contributions(vectors)[1])
        return [
            _strongest(self.of_churn.says, row, self._facts(own)) for row, own in zip(weights, vectors, strict=True)
        ]

    def value(self, vectors: NDArray[np.float32]) -> list[list[str]]:
        """Per packed vector, what moves its lifetime value most from that of the shop's average customer.

        Up to three sentences, strongest first, each marked by whether it makes the customer worth `more` or `less`.
        None for who never bought, or where purchase histories alone say what a customer is worth.
        """
        if not len(vectors):
            return []
        weights = self.of_value.weights(self.predictor.value.contributions(vectors)[1])
        says = [_NEUTRAL.get(say, say) for say in self.of_value.says]
        return [_drivers(says, row, self._facts(own)) for row, own in zip(weights, vectors, strict=True)]

    def _facts(self, vector: NDArray[np.float32]) -> Facts:
        values = dict(zip(self.packed, vector.astype(float), strict=True))
        return Facts(values, self.currency, self.attribute_names)


class _Themes(NamedTuple):
    """The themes of one model's contributions: the columns of each, and what says it."""

    places: list[list[int]]
    says: list[Say]

    @classmethod
    def among(cls, names: tuple[str, ...], workspace: Workspace) -> Self:
        themes = _themes(names, workspace)
        return cls([[names.index(name) for name in of] for of, _ in themes], [say for _, say in themes])

    def weights(self, contributions: NDArray[np.floating]) -> NDArray[np.floating]:
        """Of every theme for each row, in steps."""
        return np.round(np.column_stack([contributions[:, own].sum(axis=1) for own in self.places]) / _STEP)


def _themes(names: tuple[str, ...], workspace: Workspace) -> list[tuple[list[str], Say]]:
    """The themes that any of these features belong to; what belongs to none but can be said is one of its own."""
    found = [([name for name in names if re.fullmatch(pattern, name)], say) for pattern, say in _THEMES]
    spoken = {name for of, _ in found for name in of}
    alone = [f for f in customer_features(workspace) if f.says and f.name in names and f.name not in spoken]
    found += [([feature.name], _by_itself(feature)) for feature in alone]
    return [(of, say) for of, say in found if of]


def _by_itself(feature: Feature) -> Say:
    def say(facts: Facts) -> str | None:
        value = facts[feature.name]
        if feature.name.startswith("attribute_"):
            return facts.attribute(feature.name)
        digits = 1 if feature.unit in ("ratio", "score") else 0
        return None if value is None else feature.says.format(f"{value:,.{digits}f}")

    return say


def _strongest(says: list[Say], weights: NDArray[np.floating], facts: Facts) -> list[str]:
    order = [int(i) for i in np.argsort(-weights, kind="stable") if weights[i] > 0]
    told = [sentence for index in order if (sentence := says[index](facts))]
    if not told:
        told = [sentence for say in (_silence, _frequency) if (sentence := say(facts))]
    return told[:MOST]


def _drivers(says: list[Say], weights: NDArray[np.floating], facts: Facts) -> list[str]:
    if facts["T"] is None:
        return []
    order = [int(i) for i in np.argsort(-np.abs(weights), kind="stable") if weights[i]]
    said = [(weights[index] > 0, sentence) for index in order if (sentence := says[index](facts))]
    return [f"{'more' if is_more else 'less'}: {sentence}" for is_more, sentence in said[:MOST]]


def _attribute_names(workspace: Workspace) -> dict[str, dict[int, str]]:
    """The values of every text attribute by code."""
    codes = attribute_codes(workspace) if workspace.attributes else {}
    return {f"attribute_{name}": {code: value for value, code in own.items()} for name, own in codes.items()}
