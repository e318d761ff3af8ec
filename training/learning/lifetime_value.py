"""Learning what customers will spend: boosters over what histories expect, in the order and at the level of what came.

Every cutoff's window is taught as if it had gone as the histories of its customers expect: outcomes are divided by the
window's level (`season.ClosedWindow.level`). So a winter peak teaches nothing about single customers, and what the
coming window brings in total is a question of its own, answered from the shop's calendar.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from training.learning import datasets
from training.learning.datasets import Cutoff, Dataset, TooFewReturned
from training.learning.season import YEAR, ClosedWindow, ShopDays, recent_level, seasonal_level
from training.models.buy_till_you_die import Outlook
from training.models.customer_model import Inputs, Lessons, predicted
from training.models.histories import MINIMUM_REPEAT_BUYERS
from training.models.rule import BASE_RATE, HISTORIES, Rule
from training.models.value_model import MONTH, OBJECTIVES, Curve, Shown, Spread, ValueModel, fit_boosters, lessons_of
from workspace.settings import LifetimeValue, Workspace

if TYPE_CHECKING:
    import lightgbm as lgb

Floats = NDArray[np.floating]

MIN_BUYERS = 100
"""Who spent something in the labelled windows; with fewer there is nothing for a booster to learn."""
_DRAWN_CUSTOMERS = 20_000

PACE = "last year's rate"


@dataclass(frozen=True)
class _Taught:
    """The customers of one cutoff who ever bought, a row each.

    value, purchases: what the window brought; nan where it is open. expected, happened: their totals, by `value` and
    `purchases`; of a sample of customers too, as only ratios of them count.
    """

    as_of: date
    shown: Shown
    value: Floats
    purchases: Floats
    expected: dict[str, float]
    happened: dict[str, float]

    @classmethod
    def of(cls, inputs: Inputs, cutoff: Cutoff, horizon: int) -> Self:
        bought = inputs.bought(cutoff.vectors)
        vectors, value, purchases = cutoff.vectors[bought], cutoff.value[bought], cutoff.n_purchases[bought]
        outlook = _outlook(inputs, cutoff, horizon).of(bought)
        happened = {"value": float(value.sum()), "purchases": float(purchases.sum())}
        expected = {"value": float(outlook.value.sum()), "purchases": float(outlook.expected_purchases.sum())}
        expected = expected if inputs.has_histories else happened
        return cls(cutoff.as_of, Shown.of(inputs, vectors, outlook, horizon), value, purchases, expected, happened)

    def target(self, kind: str) -> Floats:
        """What a booster learns: amounts as if the window had gone as histories expect, or whether somebody bought."""
        match kind:
            case "buys":
                return (self.purchases > 0).astype(float)
            case "purchases":
                return self.purchases * self.expected["purchases"] / self.happened["purchases"]
            case _:
                return self.value * self.expected["value"] / self.happened["value"]

    def window(self, name: str, shop: ShopDays, horizon: int) -> ClosedWindow:
        return ClosedWindow(self.as_of, self.expected[name], self.happened[name], shop.total(self.as_of, horizon))


def fit(data: Dataset, workspace: Workspace, closed: Sequence[Cutoff], current: Cutoff) -> ValueModel:
    """The model for `current`, from `closed` cutoffs alone, as `learn` says; with fewer than `MIN_BUYERS` the history
    stands alone.

    Raises:
        CheckFailed: too few customers came back to learn from.
    """
    used = datasets.chosen(workspace, data.inputs.used, workspace.lifetime_value.features)
    data = replace(data, inputs=replace(data.inputs, used=used))
    settings, seed = workspace.lifetime_value, workspace.training.seed
    alone = _history_only(data, settings, current)
    closed = usable(data.inputs, closed)
    if buyers(closed) < MIN_BUYERS:
        return drawn(alone, current, settings.interval, seed)
    return learn(alone, closed, current, data.taught.lifetime_value.horizon, settings, seed)


def usable(inputs: Inputs, closed: Sequence[Cutoff]) -> list[Cutoff]:
    """The cutoffs in whose windows something was sold to customers whose histories say what to expect."""
    told = [cutoff for cutoff in closed if cutoff.has_history or not inputs.has_histories]
    return [cutoff for cutoff in told if cutoff.value.sum() > 0 and cutoff.n_purchases.sum() > 0]


def buyers(closed: Sequence[Cutoff]) -> int:
    """Who spent something in closed windows."""
    return sum(int((cutoff.value > 0).sum()) for cutoff in closed)


def learn(
    alone: ValueModel, closed: Sequence[Cutoff], current: Cutoff, horizon: int, settings: LifetimeValue, seed: int
) -> ValueModel:
    """With boosters of the `usable` cutoffs, whose windows have `horizon` days, beside the history that stood `alone`.

    The earlier ones teach boosters that are judged on the later ones, for the curve from score to spend and for the
    bounds; then all of them teach. Of rows without histories two cutoffs are needed.
    """
    taught = [_Taught.of(alone.inputs, cutoff, horizon) for cutoff in closed]
    # Whether somebody buys at all is asked only where a later cutoff can say what the answer means for the spend.
    kinds = tuple(OBJECTIVES) if len(taught) > 1 else ("spend", "purchases")
    lessons = lessons_of(alone.inputs, np.concatenate([one.shown.design for one in taught]), settings.boosting, seed)
    model = replace(alone, taught_horizon=horizon, boosters=_boosters(lessons, taught, kinds))
    if len(taught) > 1:
        model = _judged(model, lessons, taught, settings.interval)
    if alone.inputs.has_histories:
        model = _leveled(model, taught, _Taught.of(alone.inputs, current, horizon), current)
    if model.curve is None or horizon != model.horizon:
        return drawn(model, current, settings.interval, seed)
    return model


def too_few(closed: Sequence[Cutoff]) -> str:
    """What closed windows hold, where that teaches no booster."""
    return f"{buyers(closed):,} customers spent something in closed windows; at least {MIN_BUYERS} are needed"


def _history_only(data: Dataset, lifetime_value: LifetimeValue, current: Cutoff) -> ValueModel:
    if current.history_model is None:
        raise TooFewReturned(
            f"lifetime value cannot be learnt at {current.as_of}: too few customers came back for a second purchase"
            f" (at least {MINIMUM_REPEAT_BUYERS} are needed), and for a base rate no window has closed after a first"
            " purchase; collect a longer history"
        )
    return _plain(data, lifetime_value, current)


def _plain(data: Dataset, lifetime_value: LifetimeValue, current: Cutoff) -> ValueModel:
    value = lifetime_value
    return ValueModel(
        data.inputs, current.history_model, value.horizon, value.discount_rate, value.horizon, {},
        worth=_worth(data, lifetime_value, current),
    )  # fmt: skip


def _worth(data: Dataset, lifetime_value: LifetimeValue, cutoff: Cutoff) -> float:
    """Of a unit of spend, by what the shop sold until then."""
    spent = float(np.nansum(data.inputs.column(cutoff.vectors, "spend")))
    by_margin = lifetime_value.measure == "margin" and spent > 0
    return float(cutoff.shop_value.sold.sum()) / spent if by_margin else 1.0


def simpler(data: Dataset, workspace: Workspace, closed: Sequence[Cutoff], current: Cutoff) -> dict[str, ValueModel]:
    """The simpler models for `current`, by name: purchase histories alone, and rules; each with bounds by what
    followed the closed cutoffs. The rules need one."""
    by_rule = {}
    whole = data.taught.lifetime_value.horizon == workspace.lifetime_value.horizon
    if closed:
        for name, rules in _rules(data, workspace.lifetime_value, closed[-1], current).items():
            then = [(cutoff, _ruled(data, workspace.lifetime_value, cutoff, rules)) for cutoff in closed]
            by_rule[name] = _bounded(_ruled(data, workspace.lifetime_value, current, rules), then, current, workspace)
    if current.history_model is not None:
        then = [
            (cutoff, _plain(data, workspace.lifetime_value, cutoff))
            for cutoff in closed
            if cutoff.history_model is not None
        ]
        alone = _plain(data, workspace.lifetime_value, current)
        by_rule[HISTORIES] = _bounded(alone, then if whole else [], current, workspace)
    return by_rule


def _ruled(data: Dataset, lifetime_value: LifetimeValue, cutoff: Cutoff, rules: dict[str, Rule]) -> ValueModel:
    return replace(_plain(data, lifetime_value, cutoff), taught_horizon=data.taught.lifetime_value.horizon, rules=rules)


def pace(data: Dataset, lifetime_value: LifetimeValue, current: Cutoff) -> dict[str, Rule]:
    """Everyone goes on at the daily rate of the last 365 days; known without any closed window."""
    days, worth = data.taught.lifetime_value.horizon, _worth(data, lifetime_value, current)
    return {
        "value": Rule(PACE, "spend_365d", (float(YEAR),), (days * worth,)),
        "purchases": Rule(PACE, "n_purchases_365d", (float(YEAR),), (float(days),)),
    }


def _rules(data: Dataset, lifetime_value: LifetimeValue, latest: Cutoff, current: Cutoff) -> dict[str, dict[str, Rule]]:
    """Last year's pace, and the means of who had bought by the latest closed cutoff, over the window after it."""
    bought = data.inputs.bought(latest.vectors)
    means = {
        name: Rule.for_everybody(float(column[bought].mean()))
        for name, column in (("value", latest.value), ("purchases", latest.n_purchases))
    } if bought.any() else {}  # fmt: skip
    return {PACE: pace(data, lifetime_value, current)} | ({BASE_RATE: means} if means else {})


def _bounded(
    model: ValueModel, then: Sequence[tuple[Cutoff, ValueModel]], current: Cutoff, workspace: Workspace
) -> ValueModel:
    """With the spread of what followed earlier cutoffs about what the same kind of model said there; without any, the
    scatter that the history model implies."""
    if not then:
        return drawn(model, current, workspace.lifetime_value.interval, workspace.training.seed)
    bought = [one.inputs.bought(cutoff.vectors) for cutoff, one in then]
    said = [
        one.forecast(
            cutoff.vectors[rows], one.taught_horizon, _outlook(one.inputs, cutoff, one.taught_horizon).of(rows)
        ).value
        for (cutoff, one), rows in zip(then, bought, strict=True)
    ]
    actual = [cutoff.value[rows] for (cutoff, _), rows in zip(then, bought, strict=True)]
    interval = workspace.lifetime_value.interval
    return replace(model, spread=Spread.of(np.concatenate(said), np.concatenate(actual), interval))


def _outlook(inputs: Inputs, cutoff: Cutoff, horizon: int) -> Outlook:
    return cutoff.outlook(horizon, lambda model, vectors: inputs.outlook(model, vectors, horizon))


def _boosters(lessons: Lessons, taught: Sequence[_Taught], kinds: Sequence[str]) -> dict[str, lgb.Booster]:
    """Taught by the first of the lessons' cutoffs, or by all."""
    return fit_boosters(lessons, {kind: np.concatenate([one.target(kind) for one in taught]) for kind in kinds})


def _judged(model: ValueModel, lessons: Lessons, taught: Sequence[_Taught], interval: float) -> ValueModel:
    """With the curve and the spread of what boosters of earlier cutoffs say of the later ones.

    The earlier ones are those whose windows had closed by the latest cutoff; where none had, all before the latest.
    """
    ages = [(taught[-1].as_of - one.as_of).days for one in taught]
    early = sum(age >= model.taught_horizon for age in ages) or len(taught) - 1
    judged = replace(model, boosters=_boosters(lessons, taught[:early], ("spend", "buys")))
    score = np.concatenate([judged.score(one.shown) for one in taught[early:]])
    actual = np.concatenate([one.target("spend") for one in taught[early:]])
    curve = Curve.of(score, actual)
    return replace(model, curve=curve, spread=Spread.of(curve(score), actual, interval))


def _leveled(model: ValueModel, taught: Sequence[_Taught], now: _Taught, current: Cutoff) -> ValueModel:
    """With the coming window's totals over those that the boosters say of one that goes as histories expect."""
    said = {
        "value": model.relative(now.shown).mean(),
        "purchases": predicted(model.boosters["purchases"], now.shown.design).mean(),
    }
    outlook = now.shown.outlook
    by_history = {"value": outlook.value.mean(), "purchases": outlook.expected_purchases.mean()}

    def level(name: str, shop: ShopDays) -> float:
        windows = [one.window(name, shop, model.taught_horizon) for one in taught]
        seasonal = seasonal_level(windows, shop, model.taught_horizon, now.expected[name])
        times = recent_level(windows, model.taught_horizon) if seasonal is None else seasonal
        return float(times * by_history[name] / said[name])

    return replace(
        model,
        level=level("value", current.shop_value),
        purchases_level=level("purchases", current.shop_purchases),
        sold_last_year=_sold_last_year(current.shop_value),
    )


def _sold_last_year(shop: ShopDays) -> tuple[float, ...]:
    """What the shop sold a year ago in the first 1, 2, ... months from here, over an even share of that year."""
    start, year = shop.as_of - timedelta(days=YEAR), shop.total(shop.as_of - timedelta(days=YEAR), YEAR)
    if len(shop.sold) < YEAR or year <= 0:
        return ()
    months = range(MONTH, YEAR + 1, MONTH)
    return tuple(shop.total(start, days) / days * YEAR / year for days in months)


def drawn(model: ValueModel, cutoff: Cutoff, interval: float, seed: int) -> ValueModel:
    """With the scatter that the history model itself implies, where nothing has happened to measure it on.

    Its draws are moved, customer by customer, from the value that it expects to the model's.
    """
    assert model.history_model is not None
    rng, bought = np.random.default_rng(seed), np.flatnonzero(model.inputs.bought(cutoff.vectors))
    vectors = cutoff.vectors[rng.choice(bought, min(len(bought), _DRAWN_CUSTOMERS), replace=False)]
    history = model.inputs.history(vectors)
    value, expected = model.value(vectors), model.history_model.outlook(history, model.horizon).value
    outcome = model.history_model.draw_value(history, model.horizon, rng) * value / np.maximum(expected, 1e-9)
    return replace(model, spread=Spread.of(value / model.level, outcome / model.level, interval))
