"""Why a customer is at risk, as a colleague would say it: what happened, with the customer's own numbers.

Every sentence holds whatever the model thinks: it is true of the customer's own rows, and it is said only where it
speaks for what it is given as a reason of, held against the customer's own past or what is usual in the shop.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from features.families.catalogue import Feature
from features.snapshot import attribute_codes, customer_features
from serving.norms import Norms
from serving.predictor import Predictor
from training.models.churn_model import ChurnModel
from workspace.settings import Workspace

MOST = 3
# A theme's part in the log-odds counts in steps: what tiny changes of the input move is not what is told.
_STEP = 0.1
# Purchases from which there are three gaps: one or two make no habit.
_HABIT = 4
# What is less by under a tenth is as good as the same.
_CLEARLY_LESS = 0.9
# What is more by under a quarter is not rare yet.
_CLEARLY_MORE = 1.25
# Of the shop's sales of a year: with less in 90 days it was closed, or its records have a hole.
_OPEN = 0.05
# A shop whose visits fell below this share of themselves counts them otherwise than before.
_STILL_COUNTED = 0.5

For = Literal["risk", "more", "less"]
Say = Callable[["Facts"], str | None]
Side = Callable[["Facts", For], str | None]


class Facts:
    """One customer's feature values by name, null where unknown, beside what is usual in the shop.

    `money` and `attribute` put them into words.
    """

    def __init__(
        self, values: Mapping[str, float], currency: str, names: Mapping[str, Mapping[int, str]], norms: Norms
    ) -> None:
        self.values, self.currency, self.names, self.norms = values, currency, names, norms

    def __getitem__(self, name: str) -> float | None:
        value = self.values.get(name, math.nan)
        return None if math.isnan(value) else value

    def known(self, *names: str) -> tuple[float, ...] | None:
        """The values of all of these; none where one is unknown."""
        values = tuple([self.values.get(name, math.nan) for name in names])
        return None if any(map(math.isnan, values)) else values

    def usual(self, name: str) -> float:
        """The shop's median; nan, which is neither more nor less than anything, where there is none."""
        return self.norms.medians.get(name, math.nan)

    def money(self, value: float) -> str:
        exact = round(value, 2) + 0.0  # sums of goods bought and sent back are -0.0 at times
        return f"{exact:,.0f} {self.currency}" if abs(value) >= 100 else f"{exact:,.2f} {self.currency}"

    def attribute(self, name: str) -> str | None:
        value = self[name]
        if value is None:
            return None
        said = self.names[name].get(int(value)) if name in self.names else as_written(value)
        return said and f"{name.removeprefix('attribute_').replace('_', ' ')} is {said}"


def as_written(value: float) -> str:
    """A number as a person writes it down: 18, not 18.0, and a year without a comma."""
    return f"{value:.0f}" if value == round(value) else f"{value:.6g}"


def _counted(value: float, thing: str) -> str:
    return f"{value:,.0f} {thing}{'' if round(value) == 1 else 's'}"


_days = partial(_counted, thing="day")


def _times(value: float) -> str:
    return "once" if round(value) == 1 else f"{value:,.0f} times"


def _silence(facts: Facts) -> str | None:
    return _overdue(facts) or _seldom(facts)


def _overdue(facts: Facts) -> str | None:
    """Only of who has been away for longer than they usually are; of one or two gaps, longer than ever."""
    figures = facts.known("days_since_last_purchase", "gap_mean", "gap_max", "n_purchases")
    if figures is None:
        return None
    silent, usual, longest, purchases = figures
    ever = ", longer than ever" if silent > longest else ""
    if purchases >= _HABIT and silent > round(usual):
        return f"has been silent {_days(silent)}{ever}; usually returns after {_days(usual)}"
    if purchases < _HABIT and ever:
        return f"has been silent {_days(silent)}{ever}; came back within {_days(longest)} before"
    return None


def _seldom(facts: Facts) -> str | None:
    """What a model means that sees a risk in somebody who is not overdue: bought once, or less often than is usual."""
    figures = facts.known("n_purchases", "T", "n_purchases_365d")
    if figures is None:
        return None
    (purchases, age, year), usual, gap = figures, facts.usual("gap_mean"), facts["gap_mean"]
    rare = usual * _CLEARLY_MORE
    if purchases == 1:
        return f"bought for the first time {_days(age)} ago" if age <= usual else f"bought only once, {_days(age)} ago"
    if gap is not None and purchases >= _HABIT and gap > rare:
        return f"buys rarely: usually returns after {_days(gap)}"
    if purchases < _HABIT and age / purchases > rare:
        return f"buys rarely: {_times(purchases)} in {_days(age)}"
    if age >= 365 and year < facts.usual("n_purchases_365d"):
        return f"bought on only {_days(year)} of the last year" if year else "bought nothing in the last year"
    return None


def _frequency(facts: Facts) -> str | None:
    return _buys_less(facts) or _seldom(facts)


def _buys_less(facts: Facts) -> str | None:
    """Only of who was a customer all of both times, and fell by more than the shop's own purchases."""
    figures = facts.known("n_purchases_90d", "n_purchases_180d", "T")
    if figures is None or figures[2] < 180:
        return None
    recent, before = figures[0], figures[1] - figures[0]
    if not recent < before * facts.norms.purchases:
        return None
    if not recent:
        return f"bought nothing in the last 90 days, {_times(before)} in the 90 before"
    return f"buys less often: {_counted(recent, 'purchase')} in the last 90 days, {before:,.0f} in the 90 before"


def _spend(facts: Facts) -> str | None:
    """Only of who fell by more than season and prices explain; who buys nothing at all is told so."""
    figures = facts.known("spend_90d", "spend_180d", "n_purchases_90d", "T")
    if figures is None:
        return None
    recent, before = figures[0], figures[1] - figures[0]
    if not figures[2]:
        return _buys_less(facts)
    shop = min(facts.norms.purchases * facts.norms.prices, _CLEARLY_LESS)
    if figures[3] >= 180 and 0 <= recent < before * shop:
        return f"spends less: {facts.money(recent)} in the last 90 days, {facts.money(before)} in the 90 before"
    return _little(facts)


def _little(facts: Facts) -> str | None:
    figures, usual = facts.known("spend_365d", "n_purchases_365d", "T"), facts.usual("spend_365d")
    if figures is None or figures[2] < 365 or not figures[1]:
        return None
    shop = min(facts.norms.prices_of_year, _CLEARLY_LESS)
    if 0 <= figures[0] < usual * shop:
        return (
            f"spent only {facts.money(figures[0])} in the last year; half of the customers {facts.money(usual)} or more"
        )
    return None


def _year_ago(facts: Facts) -> str | None:
    """Where the shop sold then: nothing bought in a time that it was closed says nothing."""
    figures = facts.known("n_purchases_next_90d_last_year", "shop_share_next_90d_last_year")
    if figures is None or figures[0] or figures[1] < _OPEN:
        return None
    return "bought nothing a year ago in the 90 days that come now"


def _visits(facts: Facts) -> str | None:
    """As long as the shop counts visits as it did before, and only of who fell by more than all others.

    Who bought since the last visit was there, be it at a till that counts none: they are not said to have stayed away.
    """
    figures, shop = facts.known("n_visit_30d", "n_visit_90d", "days_since_visit"), facts.norms.visits
    if figures is None or shop < _STILL_COUNTED:
        return None
    recent, before = figures[0], figures[1] - figures[0]
    if not recent:
        bought = facts["days_since_last_purchase"]
        return f"has not visited for {_days(figures[2])}" if bought is None or bought >= figures[2] else None
    if recent < before / 2 * shop:
        return f"visits less often: {_counted(recent, 'visit')} in the last 30 days, {before:,.0f} in the 60 before"
    return None


def _complaints(facts: Facts) -> str | None:
    last, still_open = facts["days_since_complaint"], facts["n_open_complaints"] or 0
    if last is None or (last > 365 and not still_open):
        return None
    open_now = f"; {_counted(still_open, 'complaint')} {'is' if still_open == 1 else 'are'} still open"
    return f"complained {_days(last)} ago" + (open_now if still_open else "")


def _rating(facts: Facts) -> str | None:
    last, usual = facts["satisfaction_last"], facts.usual("satisfaction_last")
    if last is None or not last < usual:
        return None
    return f"last rating was {last:.1f}; half of those who rate gave {usual:.1f} or more"


def _returns(facts: Facts) -> str | None:
    share = facts["return_share_365d"]
    if share is None or share < 0.01 or not share > facts.usual("return_share_365d"):
        return None
    if share > 1:
        return "sent back more than was bought in the last year"
    return f"sent back goods worth {share:.0%} of the last year's purchases"


def _discount(facts: Facts) -> str | None:
    share = facts["discount_share_365d"]
    if share is None or share < 0.01 or not share > facts.usual("discount_share_365d"):
        return None
    return f"{share:.0%} of the last year's price was discount"


def _breadth(facts: Facts) -> str | None:
    kinds = facts["n_categories_365d"]
    if kinds is None or not kinds < facts.usual("n_categories_365d"):
        return None
    return f"bought from only {_categories(kinds)} in the last year"


def _categories(kinds: float) -> str:
    return "1 category" if kinds == 1 else f"{kinds:,.0f} categories"


def _relation(facts: Facts) -> str | None:
    tenure = facts["tenure_days"]
    if tenure is None or not tenure < facts.usual("tenure_days"):
        return None
    return f"has been a customer for only {_days(tenure)}"


def _cancelled(facts: Facts) -> str | None:
    days = facts["days_since_cancellation"]
    return None if days is None else f"cancelled {_days(days)} ago"


def _mails(facts: Facts) -> str | None:
    """Only of who was sent some, and opened some before."""
    figures = facts.known("n_emails_sent_90d", "n_email_open_90d", "n_email_open_365d")
    if figures is None or not figures[0] or figures[1] or not figures[2]:
        return None
    return f"opened no e-mail in the last 90 days, {figures[2]:,.0f} in the 275 before"


def _coupons(facts: Facts) -> str | None:
    """As long as the shop's customers redeem any."""
    figures = facts.known("n_coupon_redeemed_90d", "n_coupon_redeemed_365d")
    if figures is None or figures[0] or not figures[1] or facts.norms.coupons < _STILL_COUNTED:
        return None
    return f"redeemed no coupon in the last 90 days, {figures[1]:,.0f} in the 275 before"


def _against(name: str, words: Callable[[Facts, float], str | None], worth: int = 1, prices: bool = False) -> Side:
    """What is said of a value: `more` where the customer has more of this than the shop's median, `less` where less.

    `worth` is -1 where having more of it makes a customer worth less. Of money, what prices explain is no difference.
    """

    def say(facts: Facts, of: For) -> str | None:
        value, usual = facts[name], facts.usual(name)
        if value is None:
            return None
        slack = facts.norms.prices_of_year if prices else 1.0
        above, below = slack * value > usual, value < slack * usual
        return words(facts, value) if (above if (of == "more") == (worth > 0) else below) else None

    return say


def _bought_on(_: Facts, year: float) -> str:
    return f"bought on {_days(year)} of the last year" if year else "bought nothing in the last year"


def _bought_then(_: Facts, times: float) -> str:
    bought = f"bought {_times(times)}" if times else "bought nothing"
    return f"{bought} a year ago in the 90 days that come now"


def _visited(facts: Facts, visits: float) -> str | None:
    """That there was none is not said of who bought meanwhile, as `_visits` has it."""
    if visits:
        return f"{_counted(visits, 'visit')} in the last 90 days"
    return None if facts["n_purchases_90d"] else "no visit in the last 90 days"


_bought_ago = _against("days_since_last_purchase", lambda _, days: f"last bought {_days(days)} ago", worth=-1)


def _last_bought(facts: Facts, of: For) -> str | None:
    """Never for being worth more of who has been away for longer than they usually are."""
    return None if of == "more" and _overdue(facts) else _bought_ago(facts, of)


def _silent_for_long(facts: Facts) -> str | None:
    """What a rule means that knows of the silence only: longer than their own, or than is usual in the shop."""
    return _overdue(facts) or _bought_ago(facts, "less")


def _only(say: Say) -> Side:
    """What can only make a customer worth less."""
    return lambda facts, of: say(facts) if of == "less" else None


class _Theme(NamedTuple):
    """A sentence for the risk, one for the value, and the features that both speak for.

    The features' parts are added up, so that not one split of one tree decides what is said.
    """

    features: str
    risk: Say
    value: Side


_THEMES = (
    _Theme(
        r"days_since_last_purchase|silence_.*|recency|recency_share|gap_.*|n_active_months_365d",
        _silence,
        _last_bought,
    ),
    _Theme(
        r"n_purchases(_\d+d|_decayed_\d+d|_change.*|_acceler.*)?|frequency|repurchase_frequency|loyalty_index",
        _frequency,
        _against("n_purchases_365d", _bought_on),
    ),
    _Theme(
        r"spend(_\d+d|_decayed_\d+d|_mean|_last|_first|_max|_std|_change.*|_90d_share.*)?|monetary_value",
        _spend,
        _against("spend_365d", lambda facts, spend: f"spent {facts.money(spend)} in the last year", prices=True),
    ),
    _Theme(
        r"(n_purchases|spend|spend_share)_next_\d+d_last_year",
        _year_ago,
        _against("n_purchases_next_90d_last_year", _bought_then),
    ),
    _Theme(r"n_(visit|search|cart)_\d+d|days_since_(visit|interaction)", _visits, _against("n_visit_90d", _visited)),
    _Theme(
        r"n_complaint_\d+d|n_open_complaints|days_since_complaint|days_to_resolve_365d",
        _complaints,
        _only(_complaints),
    ),
    _Theme(
        r"satisfaction_.*",
        _rating,
        _against("satisfaction_last", lambda _, rating: f"last rating was {rating:.1f}"),
    ),
    _Theme(r"return_share_365d|n_return_days_\d+d", _returns, _only(_returns)),
    _Theme(r"discount_share_\d+d", _discount, _only(_discount)),
    _Theme(
        r"n_categories_\d+d|category_entropy_365d|top_category_share_365d",
        _breadth,
        _against("n_categories_365d", lambda _, kinds: f"bought from {_categories(kinds)} in the last year"),
    ),
    _Theme(
        r"tenure_days|T",
        _relation,
        _against("tenure_days", lambda _, tenure: f"has been a customer for {_days(tenure)}"),
    ),
    _Theme("days_since_cancellation", _cancelled, _only(_cancelled)),
    _Theme(r"n_email_(open|click)_\d+d", _mails, _only(_mails)),
    _Theme(r"n_coupon_redeemed_\d+d", _coupons, _only(_coupons)),
)


class Explainer:
    """Tells reasons for the risk that a predictor sees; what it knows of the features is looked up once.

    Each says what happened in the customer's own numbers, never one whose value is unknown, and none where nothing can
    be said that is true and points to a risk. Where nothing raises the risk, or there is no booster to ask, the history
    is told if it does: of a rule's answer the silence, which is all that it knows, of one that is the same for
    everybody nothing. Without `norms`, of scores made by an earlier version, what compares with the shop is not said.
    """

    def __init__(self, predictor: Predictor, norms: Norms) -> None:
        self.predictor, self.norms = predictor, norms
        self.packed, self.currency = predictor.churn.inputs.packed, predictor.workspace.currency
        self.attribute_names = _attribute_names(predictor.workspace)
        self.by_history = _by_history(predictor.churn)
        self.of_churn = _Themes.among(predictor.churn.explained, predictor.workspace)
        self.of_value = _Themes.among(predictor.value.explained, predictor.workspace)

    def __call__(self, vectors: NDArray[np.float32]) -> list[list[str]]:
        """Per packed vector up to three, strongest first: what raises the risk most by its SHAP contribution."""
        if not len(vectors):
            return []
        weights = self.of_churn.weights(self.predictor.churn.contributions(vectors)[1])
        themes = self.of_churn.themes
        rows = zip(weights, vectors, strict=True)
        return [_strongest(themes, row, self._facts(own), self.by_history) for row, own in rows]

    def value(self, vectors: NDArray[np.float32]) -> list[list[str]]:
        """Per packed vector, what moves its lifetime value most from that of the shop's average customer.

        Up to three sentences, strongest first, each marked by whether it makes the customer worth `more` or `less`.
        None for who never bought, or where purchase histories alone say what a customer is worth.
        """
        if not len(vectors):
            return []
        weights = self.of_value.weights(self.predictor.value.contributions(vectors)[1])
        themes = self.of_value.themes
        return [_drivers(themes, row, self._facts(own)) for row, own in zip(weights, vectors, strict=True)]

    def _facts(self, vector: NDArray[np.float32]) -> Facts:
        values = dict(zip(self.packed, vector.tolist(), strict=True))
        return Facts(values, self.currency, self.attribute_names, self.norms)


class _Themes(NamedTuple):
    """The themes of one model's contributions, and the columns of each."""

    places: list[list[int]]
    themes: list[_Theme]

    @classmethod
    def among(cls, names: tuple[str, ...], workspace: Workspace) -> Self:
        features_of = [
            (theme, [n for n in names if re.fullmatch(theme.features, n)]) for theme in _themes(names, workspace)
        ]
        there = [(theme, of) for theme, of in features_of if of]
        return cls([[names.index(name) for name in of] for _, of in there], [theme for theme, _ in there])

    def weights(self, contributions: NDArray[np.floating]) -> NDArray[np.floating]:
        """Of every theme for each row, in steps."""
        return np.round(np.column_stack([contributions[:, own].sum(axis=1) for own in self.places]) / _STEP)


def _themes(names: tuple[str, ...], workspace: Workspace) -> list[_Theme]:
    """Those above; what belongs to none of them but can be said is one of its own."""
    spoken = {name for name in names for theme in _THEMES if re.fullmatch(theme.features, name)}
    alone = [f for f in customer_features(workspace) if f.says and f.name in names and f.name not in spoken]
    return [*_THEMES, *(_by_itself(feature) for feature in alone)]


def _by_itself(feature: Feature) -> _Theme:
    """What is neither good nor bad by itself: who or where a customer is, or that something happened at all."""

    def say(facts: Facts) -> str | None:
        value = facts[feature.name]
        if feature.name.startswith("attribute_"):
            return facts.attribute(feature.name)
        if not value:
            return None
        said = feature.says.format(f"{value:,.{1 if feature.unit in ('ratio', 'score') else 0}f}")
        return said.replace(" 1 days", " 1 day")

    return _Theme(re.escape(feature.name), say, lambda facts, _: say(facts))


def _by_history(churn: ChurnModel) -> tuple[Say, ...]:
    """What may be told of an answer without a booster: only what the answer is made of."""
    if not churn.has_order:
        return ()
    return (_silent_for_long,) if churn.rule else (_silence, _frequency)


def _strongest(
    themes: list[_Theme], weights: NDArray[np.floating], facts: Facts, by_history: tuple[Say, ...]
) -> list[str]:
    order = [int(i) for i in np.argsort(-weights, kind="stable") if weights[i] > 0]
    told = [sentence for index in order if (sentence := themes[index].risk(facts))]
    if not told:
        told = [sentence for say in by_history if (sentence := say(facts))]
    return list(dict.fromkeys(told))[:MOST]


def _drivers(themes: list[_Theme], weights: NDArray[np.floating], facts: Facts) -> list[str]:
    if facts["T"] is None:
        return []
    said = []
    for index in (int(i) for i in np.argsort(-np.abs(weights), kind="stable") if weights[i]):
        of: For = "more" if weights[index] > 0 else "less"
        if sentence := themes[index].value(facts, of):
            said.append(f"{of}: {sentence}")
    return said[:MOST]


def _attribute_names(workspace: Workspace) -> dict[str, dict[int, str]]:
    """The values of every text attribute by code."""
    codes = attribute_codes(workspace) if workspace.attributes else {}
    return {f"attribute_{name}": {code: value for value, code in own.items()} for name, own in codes.items()}
