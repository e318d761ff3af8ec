"""What a customer will spend over the horizon, and between which bounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

import lightgbm as lgb
import numpy as np
from numpy.typing import NDArray

from training.models import customer_model
from training.models.buy_till_you_die import BuyTillYouDie, History, Outlook
from training.models.customer_model import Inputs, Lessons, PyFunc, Stored, logit, predicted, sigmoid
from training.models.rule import HISTORIES, OURS, Rule
from workspace.settings import Boosting

Floats = NDArray[np.floating]

TREES: dict[str, Any] = {
    "learning_rate": 0.1, "num_leaves": 7, "min_child_samples": 100, "feature_fraction": 0.3,
    "bagging_fraction": 0.7, "bagging_freq": 1, "lambda_l2": 5.0,
}  # fmt: skip
OBJECTIVES: dict[str, dict[str, Any]] = {
    "spend": {"objective": "tweedie", "tweedie_variance_power": 1.3},
    "buys": {"objective": "binary"},
    "purchases": {"objective": "poisson", "learning_rate": 0.03},
}
ROUNDS = {"spend": 90, "buys": 90, "purchases": 300}
"""Counts are learnt slowly: with few large steps their order was worse on two of four windows, that of amounts not."""
MOST_ROWS = {"spend": customer_model.MOST_ROWS, "buys": customer_model.MOST_ROWS, "purchases": 60_000}
"""Counts of the made-up shop were ordered no worse by a third of its rows."""
_EDGES = (*np.linspace(0, 0.95, 20), 0.975, 0.99, 1.0)
"""Quantiles between which outcomes are averaged; few customers bring much of the total, so the top is cut finer."""
_FEWEST = 40
_SMALL = 1e-6
_SMALLEST = 1e-9  # purchases that a ratio can be taken of
_HISTORY_WEIGHT, _PACE_WEIGHT = 0.2, 0.2
"""Of the history's own value and of last year's pace in the spend: trees cannot say more than they have seen."""


class Forecast(NamedTuple):
    """One row per customer; nan for who never bought. `low` and `high` bound the stated share of outcomes."""

    p_alive: Floats
    expected_purchases: Floats
    value: Floats
    low: Floats
    high: Floats


class Growth(NamedTuple):
    """What a window brings over what the taught one does, per customer."""

    purchases: Floats
    value: Floats


class Shown(NamedTuple):
    """What a row is judged by: the boosters' design, the history's outlook over the taught window, and what the last
    365 days' spend would bring in it at an even pace."""

    design: Floats
    outlook: Outlook
    pace: Floats

    @classmethod
    def of(cls, inputs: Inputs, vectors: NDArray[np.float32], outlook: Outlook, horizon: int) -> Self:
        spent = inputs.column(vectors, "spend_365d") if inputs.has_histories else np.zeros(len(vectors))
        pace = np.maximum(np.nan_to_num(spent), 0) * horizon / 365
        return cls(inputs.design(vectors, outlook), outlook, pace)


def _bins(column: Floats) -> list[NDArray[np.intp]]:
    """Rows by ascending `column`, cut at `_EDGES`, each bin with at least `_FEWEST` rows (all in one where too few)."""
    order, bins, begin = np.argsort(column, kind="stable"), [], 0
    for end in (round(edge * len(column)) for edge in _EDGES[1:]):
        if end - begin >= _FEWEST and (len(column) - end >= _FEWEST or end == len(column)):
            bins.append(order[begin:end])
            begin = end
    return bins or [order]


def _apart(bins: Sequence[NDArray[np.intp]], column: Floats) -> list[NDArray[np.intp]]:
    """Bins of one and the same value are one: a rule says the same of many."""
    groups: list[NDArray[np.intp]] = []
    for rows in bins:
        alike = bool(groups) and column[groups[-1]].min() == column[rows].max()
        groups = [*groups[:-1], np.concatenate([groups[-1], rows])] if alike else [*groups, rows]
    return groups


@dataclass(frozen=True)
class Curve:
    """A rising line through knots: straight between them, beyond both ends in proportion to the end's knot."""

    x: tuple[float, ...]
    y: tuple[float, ...]

    @classmethod
    def of(cls, score: Floats, actual: Floats) -> Self:
        """Mean outcome by score, made to rise: bins that would fall are one (isotonic regression)."""
        from scipy.optimize import isotonic_regression  # only to fit, and slow to load

        bins = _bins(score)
        count = np.array([len(rows) for rows in bins], dtype=float)
        means = np.array([actual[rows].mean() for rows in bins])
        fit = isotonic_regression(means, weights=count)
        middle = np.array([score[rows].mean() for rows in bins])
        blocks = list(zip(fit.blocks[:-1], fit.blocks[1:], strict=True))
        x = [float(np.average(middle[a:b], weights=count[a:b])) for a, b in blocks]
        y = [max(float(fit.x[a]), _SMALL * (1 + number)) for number, (a, _) in enumerate(blocks)]
        return cls(tuple(x), tuple(y))

    def __call__(self, score: Floats) -> Floats:
        ends = np.where(score < self.x[0], score / self.x[0], np.where(score > self.x[-1], score / self.x[-1], 1.0))
        return np.interp(score, self.x, self.y) * ends


@dataclass(frozen=True)
class Spread:
    """How outcomes scatter about predictions: bounds of the outcome at rising predicted values, all over the level."""

    predicted: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]

    @classmethod
    def of(cls, predicted: Floats, actual: Floats, interval: float) -> Self:
        """From pairs of predictions and outcomes at later cutoffs, in bins of predictions.

        Split conformal within each bin (Lei, G'Sell, Rinaldo, Tibshirani, Wasserman 2018): quantiles of n outcomes at
        (n + 1) times the level. The lower one leaves out half of what the interval may; where more customers than that
        bring the least there is (mostly nothing), the upper one is lowered so that the interval holds no more than
        stated.
        """
        bins = _apart(_bins(predicted), predicted)
        bounds = np.array([_bounds(actual[rows], interval) for rows in bins])
        middle = [float(predicted[rows].mean()) for rows in bins]
        low, high = np.maximum.accumulate(bounds, axis=0).T
        return cls(tuple(middle), tuple(low.tolist()), tuple(high.tolist()))

    def bounds(self, value: Floats) -> tuple[Floats, Floats]:
        """Between the bins in proportion, outside them as at the nearest; the value always lies within."""
        scale = np.maximum(value / max(self.predicted[-1], 1e-12), 1.0)  # beyond the last bin in proportion to it
        low, high = (np.interp(value, self.predicted, column) * scale for column in (self.low, self.high))
        return np.minimum(low, value), np.maximum(high, value)


def _bounds(actual: Floats, interval: float) -> tuple[float, float]:
    ordered, n = np.sort(actual), len(actual)
    low = ordered[max(int(np.floor((n + 1) * (1 - interval) / 2)) - 1, 0)]
    below = np.searchsorted(ordered, low, side="left") / n
    top = min(int(np.ceil((n + 1) * (below + interval))), n)
    return float(low), float(ordered[top - 1])


@dataclass(frozen=True)
class ValueModel:
    """Three boosters over the history's own outlook, put in order by what came, and set to the coming season's level.

    boosters: `spend` (Tweedie), `buys` (whether at all) and `purchases` (Poisson), each of a window of `taught_horizon`
    days that goes as histories expect; none where the history stands alone. curve: from `spend` times the chance to buy
    to the spend to be expected; none where no later cutoff could show it. level, purchases_level: the coming window's
    totals over those of such a window. sold_last_year: the shop's sales a year ago over the first 1, 2, ... months from
    here, over their even share; empty without a year to look back on. worth: of a unit of spend where the history
    stands alone (the margin in it). rules: for `value` and `purchases`, of `taught_horizon` days, which answer in place
    of boosters and history; none where these do. The history model is null where too few came back.
    """

    inputs: Inputs
    history_model: BuyTillYouDie | None
    horizon: int
    discount_rate: float
    taught_horizon: int
    boosters: dict[str, lgb.Booster]
    curve: Curve | None = None
    spread: Spread | None = None
    level: float = 1.0
    purchases_level: float = 1.0
    sold_last_year: tuple[float, ...] = ()
    worth: float = 1.0
    rules: Mapping[str, Rule] = field(default_factory=dict)
    remarks: ClassVar[tuple[str, ...]] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """Of a row that it is asked about, in order."""
        return self.inputs.packed

    @property
    def answers_by(self) -> str:
        """The plain name of what it answers by."""
        rule = self.rules.get("value")
        return rule.name if rule else OURS if self.boosters else HISTORIES

    def predict(self, rows: NDArray[np.float32]) -> Floats:
        return self.value(rows)

    def value(self, vectors: NDArray[np.float32], horizon: int | None = None) -> Floats:
        """Expected discounted spend over the horizon, or over another one; nan for who never bought."""
        return self.forecast(vectors, horizon).value

    def forecast(
        self, vectors: NDArray[np.float32], horizon: int | None = None, taught: Outlook | None = None
    ) -> Forecast:
        """Over `horizon` days, those that were trained for if absent.

        `taught` is the `outlook` over `taught_horizon` days, where the caller has it.
        """
        days = horizon or self.horizon
        taught = self.outlook(vectors, self.taught_horizon) if taught is None else taught
        bounded = self.taught_horizon if self.rules else self.horizon
        own = self._growth(vectors, taught, bounded)
        asked = own if days == bounded else self._growth(vectors, taught, days)
        purchases, value = self._in_taught_window(vectors, taught)
        bounds = self._bounds(value * own.value, asked.value / own.value)
        columns = (purchases * asked.purchases, value * asked.value, *bounds)
        known = self.inputs.bought(vectors)
        return Forecast(taught.p_alive, *(np.where(known, column, np.nan) for column in columns))

    def _in_taught_window(self, vectors: NDArray[np.float32], taught: Outlook) -> tuple[Floats, Floats]:
        """Purchases and value."""
        if self.rules:
            return self.rules["purchases"](self.inputs, vectors), self.rules["value"](self.inputs, vectors)
        if not self.boosters:
            _, discounted = self._expected(vectors, taught, self.taught_horizon)
            return taught.expected_purchases, discounted * taught.expected_spend * self.worth
        shown = Shown.of(self.inputs, vectors, taught, self.taught_horizon)
        purchases = predicted(self.boosters["purchases"], shown.design) * self.purchases_level
        return purchases, self.relative(shown) * self.level

    def outlook(self, vectors: NDArray[np.float32], horizon: int) -> Outlook:
        """What the histories say; nan where too few came back to say anything."""
        return self.inputs.outlook(self.history_model, vectors, horizon)

    def relative(self, shown: Shown) -> Floats:
        """Spend in a window of `taught_horizon` days that goes as histories expect."""
        score = self.score(shown)
        return score if self.curve is None else self.curve(score)

    def score(self, shown: Shown) -> Floats:
        """What customers are ordered by: spend times the chance to buy at all, of booster and history averaged.

        The product ranks the many who will mostly not buy better than spend alone (docs/decisions/0008). Without a
        later cutoff to say what the product is worth, spend alone. Of rows without histories boosters alone.
        """
        spend = predicted(self.boosters["spend"], shown.design)
        if self.history_model is not None:
            spend = (1 - _HISTORY_WEIGHT - _PACE_WEIGHT) * spend
            spend += _HISTORY_WEIGHT * shown.outlook.value + _PACE_WEIGHT * shown.pace
        if "buys" not in self.boosters:
            return spend
        buys = logit(predicted(self.boosters["buys"], shown.design))
        return spend * sigmoid(buys if self.history_model is None else (buys - logit(shown.outlook.no_purchase)) / 2)

    @property
    def explained(self) -> tuple[str, ...]:
        """The features that `contributions` has a column of: those of the booster, and what the outlook counts for."""
        return tuple(dict.fromkeys((*self.inputs.used, "spend_365d")))

    def contributions(self, vectors: NDArray[np.float32]) -> tuple[tuple[str, ...], Floats]:
        """Names and SHAP values of the `explained` for each row, in the logarithm of spend; zeros without booster.

        What is taken from the history's outlook counts for the spend of the last year, which it stands for.
        """
        names, count = self.explained, len(self.inputs.used)
        own = np.zeros((len(vectors), len(names)))
        if not self.boosters:
            return names, own
        design = self.inputs.design(vectors, self.outlook(vectors, self.taught_horizon))
        shap = predicted(self.boosters["spend"], design, pred_contrib=True)
        own[:, :count] = shap[:, :count]
        own[:, names.index("spend_365d")] += shap[:, count:-1].sum(axis=1)
        return names, own

    def _bounds(self, value: Floats, longer: Floats) -> tuple[Floats, Floats]:
        """Bounds of `longer` times `value`, which is what the trained horizon brings; of rules, the taught one.

        How far they lie from the value grows with it, in shorter windows with its root, as a count's scatter does. So
        they never fall with the horizon. Nor does a lower bound below nothing: what may still be sent back was
        bought before.
        """
        if self.spread is None:
            return np.full_like(value, np.nan), np.full_like(value, np.nan)
        low, high = (bound * self.level for bound in self.spread.bounds(value / self.level))
        width, reached = np.maximum(longer, np.sqrt(longer)), value * longer
        above_nothing = np.maximum(reached - (value - low) * width, 0)
        low = np.where(low < 0, low, above_nothing)
        return np.minimum(low, reached), np.maximum(reached + (high - value) * width, reached)

    def _growth(self, vectors: NDArray[np.float32], taught: Outlook, days: int) -> Growth:
        """From the taught window to `days`, as each history has it, and as the shop's calendar had it a year ago."""
        even = np.full(len(vectors), days / self.taught_horizon)
        if days == self.taught_horizon:
            return Growth(even, even)
        both = zip(
            self._expected(vectors, taught, days), self._expected(vectors, taught, self.taught_horizon), strict=True
        )
        return Growth(*(np.divide(asked, own, out=even.copy(), where=own > _SMALLEST) for asked, own in both))

    def _expected(self, vectors: NDArray[np.float32], taught: Outlook, days: int) -> tuple[Floats, Floats]:
        """Purchases that histories expect in `days` days, weighed by the shop's months a year ago; and discounted.

        A sum over months, of which none takes anything away: neither ever falls with the days.
        """
        ends = self._ends(days)
        steps = np.diff(self._purchases_by(vectors, taught, ends), axis=0, prepend=0.0).clip(min=0.0)
        month = np.arange(len(ends))
        calendar = self._calendar[month % len(self._calendar)]
        discount = (1 + self.discount_rate) ** (-(month + 0.5) * MONTH / 365)
        return calendar @ steps, (calendar * discount) @ steps if self.discount_rate else calendar @ steps

    def _ends(self, days: int) -> list[int]:
        """The days on which the months end, the last with the window; one, where all months are alike."""
        alike = not self.sold_last_year and not self.discount_rate
        return [days] if alike else [*range(MONTH, days, MONTH), days]

    @cached_property
    def _calendar(self) -> Floats:
        """Each month's sales a year ago over an even share; where more came back than was sold, it is nothing."""
        if not self.sold_last_year:
            return np.ones(1)
        sold = np.arange(1, len(self.sold_last_year) + 1) * self.sold_last_year
        return np.diff(sold, prepend=0.0).clip(min=0.0)

    def _purchases_by(self, vectors: NDArray[np.float32], taught: Outlook, ends: Sequence[int]) -> Floats:
        """A row for each end of a window, a column for each customer; a rule's go on evenly."""
        if self.rules or self.history_model is None:
            return np.outer(ends, np.full(len(vectors), 1 / self.taught_horizon))
        if list(ends) == [self.taught_horizon]:
            return taught.expected_purchases[np.newaxis]
        history = History(*(np.tile(column, len(ends)) for column in self.inputs.history(vectors)))
        outlook = self.history_model.outlook(history, np.repeat(ends, len(vectors)).astype(float))
        return outlook.expected_purchases.reshape(len(ends), len(vectors))

    def save(self, folder: Path) -> None:
        parameters = {
            "packed": self.inputs.packed, "used": self.inputs.used,
            "history_model": self.history_model and self.history_model.to_json(),
            "rules": {name: rule.to_json() for name, rule in self.rules.items()}, "horizon": self.horizon,
            "discount_rate": self.discount_rate, "taught_horizon": self.taught_horizon,
            "curve": asdict(self.curve) if self.curve else None, "spread": asdict(self.spread) if self.spread else None,
            "level": self.level, "purchases_level": self.purchases_level, "seasons": self.sold_last_year,
            "worth": self.worth,
        }  # fmt: skip
        Stored(parameters, self.boosters).write(folder)

    @classmethod
    def load(cls, folder: Path) -> Self:
        stored = Stored.read(folder)
        p = stored.parameters
        history = p["history_model"] and BuyTillYouDie.from_json(p["history_model"])
        curve = Curve(**_tuples(p["curve"])) if p["curve"] else None
        spread = Spread(**_tuples(p["spread"])) if p["spread"] else None
        rules = p.get("rules", {})  # which models written before rules could answer do not name
        return cls(
            Inputs(tuple(p["packed"]), tuple(p["used"])), history, p["horizon"], p["discount_rate"],
            p["taught_horizon"], stored.boosters, curve, spread, p["level"], p["purchases_level"],
            tuple(p["seasons"]), p["worth"], {name: Rule.from_json(rule) for name, rule in rules.items()},
        )  # fmt: skip


MONTH = 30


def _tuples(columns: dict[str, list[float]]) -> dict[str, tuple[float, ...]]:
    return {name: tuple(column) for name, column in columns.items()}


def lessons_of(inputs: Inputs, design: Floats, boosting: Boosting, seed: int) -> Lessons:
    """Rows of several cutoffs, the oldest first."""
    return Lessons.of(design, inputs.booster_names, inputs.coded, TREES, boosting, seed)


def fit_boosters(lessons: Lessons, targets: Mapping[str, Floats]) -> dict[str, lgb.Booster]:
    """Of some `OBJECTIVES`, on as many of the rows as have targets; a net return counts as nothing spent (Tweedie)."""
    return {
        kind: lessons.boosted(np.maximum(target, 0), ROUNDS[kind], OBJECTIVES[kind], MOST_ROWS[kind])
        for kind, target in targets.items()
    }


def _load_pyfunc(path: str) -> PyFunc:
    """MLflow's entry: `predict` takes packed vectors."""
    return PyFunc(ValueModel.load(Path(path)).value)
