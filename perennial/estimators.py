"""The service's own learning as scikit-learn estimators: on any frame of features, with purchase histories or without.

`training/learning` does the learning. Given the rows, days and settings of a shop's training, the answers are the
service's, to the last digit.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Any, Literal, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils import Tags, check_random_state
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.validation import check_consistent_length, check_is_fitted, validate_data

from features.families import basket, engagement, profile, purchases
from perennial.cutoff_split import AS_OF, days_of
from training.learning import churn, lifetime_value
from training.learning.churn import MIN_OUTCOMES
from training.learning.datasets import Cutoff, inputs_of
from training.learning.lifetime_value import MIN_BUYERS
from training.learning.season import ShopDays
from training.models import churn_model
from training.models.buy_till_you_die import BuyTillYouDie
from training.models.churn_model import ChurnModel, SeasonCorrection
from training.models.customer_model import HISTORY, Inputs
from training.models.histories import MINIMUM_REPEAT_BUYERS
from training.models.leaving import Leaving
from training.models.rule import Rule
from training.models.value_model import Spread, ValueModel
from workspace import settings
from workspace.settings import Boosting

Floats = NDArray[np.floating]
Vectors = NDArray[np.float32]
Places = NDArray[np.intp]

_KEYS = ("customer_id", AS_OF)
_CATALOGUE = (*purchases.FEATURES, *basket.FEATURES, *engagement.FEATURES, *profile.FEATURES)
_ANY_DAY = date(2000, 1, 1)  # of rows without days
_JUDGES = 4  # of rows without days, one in so many is kept for the calibration
_FEW_CAME_BACK = f"too few customers came back for a second purchase (at least {MINIMUM_REPEAT_BUYERS} are needed)"


@dataclass(frozen=True)
class _Lesson:
    """Rows by cutoff, oldest first; what the histories of each day say; and who will be asked about, on which day."""

    rows: Vectors
    parts: Sequence[tuple[date, Places]]
    histories: Mapping[date, BuyTillYouDie | None]
    coming: date
    asked: Vectors
    is_dated: bool

    def closed(self, **outcomes: Floats) -> list[Cutoff]:
        """The cutoffs, with what happened next."""
        return [
            _cutoff(day, self.rows[places], self.histories[day], {name: of[places] for name, of in outcomes.items()})
            for day, places in self.parts
        ]

    def current(self, sold: ShopDays | None = None) -> Cutoff:
        return _cutoff(self.coming, self.asked, self.histories[self.coming], {}, sold)

    @property
    def spacing(self) -> int:
        """Days between the cutoffs, usually."""
        days = [day.toordinal() for day, _ in self.parts]
        return int(np.median(np.diff(days))) if len(days) > 1 else 1


def _cutoff(
    day: date, rows: Vectors, history: BuyTillYouDie | None, outcomes: Mapping[str, Floats],
    sold: ShopDays | None = None,
) -> Cutoff:  # fmt: skip
    unknown, nothing = np.full(len(rows), np.nan), ShopDays(day, np.empty(0)) if sold is None else sold
    churned, value, purchases = (outcomes.get(name, unknown) for name in ("churned", "value", "n_purchases"))
    ids = np.arange(len(rows)).astype(object)
    return Cutoff(day, ids, rows, history, churned, value, purchases, nothing, nothing)


class _OfCustomers(BaseEstimator):
    """What both are: from a frame to cutoffs, from parameters to the settings of a booster."""

    rounds: int | None
    learning_rate: float | None
    num_leaves: int | None
    min_child_samples: int | None
    feature_fraction: float | None
    lambda_l2: float | None
    random_state: Any
    horizon: int

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags

    @property
    def _boosting(self) -> Boosting:
        return Boosting(**{name: getattr(self, name) for name in Boosting.model_fields})

    @property
    def _seed(self) -> int:
        seed = self.random_state
        return int(seed) if isinstance(seed, (int, np.integer)) else check_random_state(seed).randint(2**31)

    def _learnt_from(self, X: Any, y: Any) -> tuple[Vectors, NDArray]:
        """Both as arrays; notes the names and categories of the columns."""
        self.categories_ = _categories(X)
        X, y = validate_data(self, self._numbers(X), y, dtype=np.float32, ensure_all_finite="allow-nan")
        return X, y

    def _rows(self, X: Any) -> Vectors:
        check_is_fitted(self)
        rows = validate_data(self, self._numbers(X), reset=False, dtype=np.float32, ensure_all_finite="allow-nan")
        return np.asarray(rows)

    def _numbers(self, X: Any) -> Any:
        """Without keys, and with categories as codes, unknown where `fit` had no such category.

        Raises:
            ValueError: a column holds texts.
        """
        if not isinstance(X, pd.DataFrame):
            return X
        X = X.drop(columns=[key for key in _KEYS if key in X])
        if texts := [name for name in X if name not in self.categories_ and pd.api.types.is_string_dtype(X[name])]:
            raise ValueError(f"column {texts[0]} holds texts: X['{texts[0]}'].astype('category') makes a feature of it")
        return X.assign(**{name: _codes(X[name], known) for name, known in self.categories_.items() if name in X})

    def _inputs(self) -> Inputs:
        """What the service knows of its features it knows of columns that are called like them."""
        names = getattr(self, "feature_names_in_", [f"x{place}" for place in range(self.n_features_in_)])
        return inputs_of([*names], [*self.categories_], _CATALOGUE)

    def _lesson(
        self, X: Any, rows: Vectors, happened: NDArray[np.bool_], as_of: ArrayLike | None, known: pd.DataFrame | None,
        outcome_days: int,
    ) -> _Lesson:  # fmt: skip
        """By the days of the rows; where they have none, a part of them stands for a later cutoff."""
        inputs = self._inputs()
        days = X[AS_OF] if as_of is None and isinstance(X, pd.DataFrame) and AS_OF in X else as_of
        if days is None:
            parts = [(_ANY_DAY, places) for places in _apart(happened, self._seed)]
            return _Lesson(rows, parts, {_ANY_DAY: inputs.history_model(rows)}, _ANY_DAY, rows, False)
        check_consistent_length(rows, days)
        parts = [*_by_day(days)]
        everybody = {day: rows[places] for day, places in parts}
        if known is not None:
            told = self._rows(known)
            everybody |= {day: told[places] for day, places in _by_day(known[AS_OF])}
        (latest, _), asked = parts[-1], max(everybody)
        histories = {day: inputs.history_model(of) for day, of in everybody.items()}
        coming = asked if asked > latest else latest + timedelta(days=outcome_days)
        return _Lesson(rows, parts, histories | {coming: histories[asked]}, coming, everybody[asked], True)

    def _warn(self, answers: str, reason: str) -> None:
        warnings.warn(f"{type(self).__name__} answers by {answers}: {reason}", UserWarning, stacklevel=3)


def _categories(X: Any) -> dict[str, pd.Index]:
    """Of each column that has any."""
    if not isinstance(X, pd.DataFrame):
        return {}
    return {str(name): X[name].cat.categories for name in X if isinstance(X[name].dtype, pd.CategoricalDtype)}


def _codes(column: pd.Series, categories: pd.Index) -> NDArray[np.float32]:
    codes = pd.Categorical(column, categories=categories).codes
    return np.where(codes < 0, np.nan, codes).astype(np.float32)


def _by_day(as_of: Any) -> Iterator[tuple[date, Places]]:
    days = days_of(as_of)
    for day in days.unique().sort_values():
        yield day.date(), np.flatnonzero(days == day)


def _apart(happened: NDArray[np.bool_], seed: int) -> tuple[Places, Places]:
    """Rows to teach, and a quarter of those it happened to, and of the others, to calibrate on."""
    order = np.random.default_rng(seed).permutation(len(happened))
    drawn = happened[order]
    place = np.where(drawn, np.cumsum(drawn), np.cumsum(~drawn))
    judges = place % _JUDGES == 0
    return np.sort(order[~judges]), np.sort(order[judges])


class ChurnClassifier(ClassifierMixin, _OfCustomers):
    """The service's churn model: a booster beside what purchase histories say, calibrated on later outcomes.

    `fit(X, y)` takes any numbers, nan where unknown, and `category` columns; `y` has two classes, of which the second
    by order is leaving. `customer_id` and `as_of` of a data frame are keys, never features.

    as_of: a day for each row, in a column of that name or passed to `fit`. The booster is taught by all days but the
    latest, which calibrates; then by all. The base rate is moved half way to last year's season, for the day on which
    the latest window ends. Every window must have closed: `CutoffSplit` sees to that. Rows without days are divided by
    chance, three quarters to teach and one to calibrate.

    Purchase histories are columns with the names of the service's features: `frequency`, `recency`, `T`,
    `monetary_value`, `spend_first`, `spend_last`, `spend_365d`. They are fitted on the rows of each day. `known`, a
    frame like X, names everybody who was known on a day, also who could not leave; and on a later day, whose histories
    then answer. Other columns with names of the service's features move the risk one way only, as there.

    kind: `inactivity` (with histories) or `event` (by the booster alone); by the columns if absent. horizon, gap: days
    of the outcome window. min_outcomes: who left, and who stayed, in the rows that teach; with fewer, purchase
    histories or the base rate answer, with a warning, and `answers_by_` says so. The others are those of
    `churn.boosting`; `random_state` is `training.seed`.

    >>> rng = np.random.default_rng(0)
    >>> X = pd.DataFrame({"visits": rng.poisson(5, 4000), "plan": rng.choice(["basic", "plus"], 4000)})
    >>> left = rng.random(4000) < 1 / (1 + np.exp(X["visits"] - 5 + (X["plan"] == "plus")))
    >>> model = ChurnClassifier().fit(X.astype({"plan": "category"}), left)
    >>> asked = pd.DataFrame({"visits": [3, 5, 7], "plan": pd.Categorical(["basic"] * 3)})
    >>> model.predict_proba(asked)[:, 1].round(1)
    array([0.9, 0.5, 0.1])
    >>> model.answers_by_
    'Perennial'
    """

    def __init__(
        self,
        *,
        kind: Literal["inactivity", "event"] | None = None,
        horizon: int = 90,
        gap: int = 0,
        min_outcomes: int = MIN_OUTCOMES,
        rounds: int | None = None,
        learning_rate: float | None = None,
        num_leaves: int | None = None,
        min_child_samples: int | None = None,
        feature_fraction: float | None = None,
        lambda_l2: float | None = None,
        random_state: Any = 7,
    ) -> None:
        self.kind, self.horizon, self.gap, self.min_outcomes = kind, horizon, gap, min_outcomes
        self.rounds, self.learning_rate, self.num_leaves = rounds, learning_rate, num_leaves
        self.min_child_samples, self.feature_fraction = min_child_samples, feature_fraction
        self.lambda_l2, self.random_state = lambda_l2, random_state

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        tags.classifier_tags.poor_score = True  # of 200 rows: a leaf of its trees has a hundred
        return tags

    def fit(self, X: Any, y: ArrayLike, *, as_of: ArrayLike | None = None, known: pd.DataFrame | None = None) -> Self:
        """
        Raises:
            ValueError: not two classes, no numbers, impossible histories, or rows without a purchase among histories.
        """
        rows, y = self._learnt_from(X, y)
        churned = self._outcomes(y)
        lesson = self._lesson(X, rows, churned > 0, as_of, known, self.gap + self.horizon)
        self.model_ = self._model(lesson, lesson.closed(churned=churned))
        self.answers_by_ = self.model_.answers_by
        return self

    def _outcomes(self, y: NDArray) -> Floats:
        target = type_of_target(y, input_name="y", raise_unknown=True)
        if target != "binary":
            raise ValueError(f"Only binary classification is supported. The type of the target is {target}.")
        self.classes_, places = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"y has one class, {self.classes_[0]!r}: who left and who stayed are needed")
        return places.astype(float)

    def _model(self, lesson: _Lesson, closed: Sequence[Cutoff]) -> ChurnModel:
        leaving = Leaving.of(settings.Churn(kind=self._kind(), horizon=self.horizon, gap=self.gap))
        inputs = churn_model.inputs_of(self._inputs(), leaving)
        self._check_bought(inputs, lesson.rows, leaving)
        history = lesson.current().history_model
        plain = ChurnModel(inputs, history, leaving, self.horizon, self.horizon)
        no_history = None if leaving.is_event or history is not None else _FEW_CAME_BACK
        if refused := no_history or churn.too_little(closed, leaving, self.min_outcomes):
            return self._stand_in(plain, closed, refused)
        model = churn.learn(plain, closed, self._boosting, self._seed)
        if not lesson.is_dated:
            return model
        return replace(
            model, correction=SeasonCorrection(churn.seasonal_log_odds(model, closed, lesson.coming, lesson.spacing))
        )

    def _kind(self) -> Literal["inactivity", "event"]:
        missing = [name for name in HISTORY if name not in self._inputs().packed]
        if self.kind == "inactivity" and missing:
            raise ValueError(f"kind='inactivity' needs purchase histories: there is no column {', '.join(missing)}")
        return self.kind or ("event" if missing else "inactivity")

    def _check_bought(self, inputs: Inputs, rows: Vectors, leaving: Leaving) -> None:
        never = int((~inputs.bought(rows)).sum())
        if never and not leaving.is_event:
            raise ValueError(
                f"{never} of {len(rows)} rows are of who never bought (T is missing), and cannot leave by silence:"
                " leave them out, or say kind='event'"
            )

    def _stand_in(self, plain: ChurnModel, closed: Sequence[Cutoff], reason: str) -> ChurnModel:
        """Purchase histories alone, or one rate for everybody."""
        churned = np.concatenate([cutoff.churned for cutoff in closed])
        model = replace(plain, rule=Rule.for_everybody(float((churned.sum() + 1) / (len(churned) + 2))))
        if plain.history_model is not None and not plain.leaving.is_event:
            model = churn.calibrated_history(plain, closed)
        self._warn(model.answers_by, reason)
        return model

    def predict_proba(self, X: Any) -> Floats:
        """A row each: of staying, and of leaving; nan for who never bought, where histories count."""
        rows = self._rows(X)
        left = self.model_.probability(rows)
        return np.column_stack([1 - left, left])

    def predict(self, X: Any) -> NDArray:
        """The likelier class.

        Raises:
            ValueError: some never bought, and nothing is known of them.
        """
        chances = self.predict_proba(X)
        if never := int(np.isnan(chances[:, 1]).sum()):
            raise ValueError(f"{never} of {len(chances)} rows are of who never bought: predict_proba says nan of them")
        return np.asarray(self.classes_[chances.argmax(axis=1)])


class LifetimeValueRegressor(RegressorMixin, _OfCustomers):
    """The service's value model: what a customer will spend within the horizon, and between which bounds.

    X, `as_of` and `known` are as of `ChurnClassifier`; with purchase histories, who never bought counts for nothing and
    is nan. `y` is the spend in the window. The earlier days teach boosters that the later ones judge, for the level and
    the bounds; then all of them teach. With histories and days the total is that of the coming window: `fit` takes
    `sales`, what the whole shop sold by day (a series by day; a year and four weeks of it), for its season, and
    `n_purchases`, on how many days of the window each row bought; if absent, who spent something bought.

    interval: the share of outcomes within the bounds. discount_rate: per year. min_buyers: who spent something; with
    fewer, purchase histories or the mean answer, with a warning, and `answers_by_` says so. The others are those of
    `lifetime_value.boosting`; `random_state` is `training.seed`.

    >>> rng = np.random.default_rng(0)
    >>> X = pd.DataFrame({"baskets": rng.poisson(3, 4000)})
    >>> spent = rng.poisson(X["baskets"]) * rng.gamma(4, 5, 4000)
    >>> model = LifetimeValueRegressor().fit(X, spent)
    >>> asked = pd.DataFrame({"baskets": [1, 3]})
    >>> model.predict(asked).round(-1)
    array([20., 60.])
    >>> low, high = model.predict_bounds(asked).T
    >>> bool((low <= model.predict(asked)).all() and (model.predict(asked) <= high).all())
    True
    """

    def __init__(
        self,
        *,
        horizon: int = 90,
        discount_rate: float = 0.0,
        interval: float = 0.8,
        min_buyers: int = MIN_BUYERS,
        rounds: int | None = None,
        learning_rate: float | None = None,
        num_leaves: int | None = None,
        min_child_samples: int | None = None,
        feature_fraction: float | None = None,
        lambda_l2: float | None = None,
        random_state: Any = 7,
    ) -> None:
        self.horizon, self.discount_rate, self.interval, self.min_buyers = horizon, discount_rate, interval, min_buyers
        self.rounds, self.learning_rate, self.num_leaves = rounds, learning_rate, num_leaves
        self.min_child_samples, self.feature_fraction = min_child_samples, feature_fraction
        self.lambda_l2, self.random_state = lambda_l2, random_state

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.regressor_tags.poor_score = True  # of 200 rows, half of them negative
        return tags

    def fit(
        self, X: Any, y: ArrayLike, *, as_of: ArrayLike | None = None, known: pd.DataFrame | None = None,
        n_purchases: ArrayLike | None = None, sales: pd.Series | None = None,
    ) -> Self:  # fmt: skip
        """
        Raises:
            ValueError: no numbers, or impossible histories.
        """
        rows, y = self._learnt_from(X, y)
        value = np.asarray(y, dtype=float)
        bought = (value > 0).astype(float) if n_purchases is None else np.asarray(n_purchases, dtype=float)
        check_consistent_length(value, bought)
        lesson = self._lesson(X, rows, value > 0, as_of, known, self.horizon)
        current = lesson.current(None if sales is None else _sold(sales, lesson.coming))
        self.model_ = self._model(lesson.closed(value=value, n_purchases=bought), current)
        self.answers_by_ = self.model_.answers_by
        return self

    def _model(self, closed: Sequence[Cutoff], current: Cutoff) -> ValueModel:
        inputs, history = self._inputs(), current.history_model
        asked = settings.LifetimeValue(
            horizon=self.horizon, discount_rate=self.discount_rate, interval=self.interval, boosting=self._boosting
        )
        alone = ValueModel(inputs, history, self.horizon, self.discount_rate, self.horizon, {})
        usable = lifetime_value.usable(inputs, closed)
        if refused := self._too_little(inputs, history, usable):
            return self._stand_in(alone, closed, current, refused)
        return lifetime_value.learn(alone, usable, current, self.horizon, asked, self._seed)

    def _too_little(self, inputs: Inputs, history: BuyTillYouDie | None, usable: Sequence[Cutoff]) -> str | None:
        """Why no booster can be taught; null where one can."""
        if inputs.has_histories and history is None:
            return _FEW_CAME_BACK
        if not inputs.has_histories and len(usable) < 2:
            return "there are not two cutoffs with something spent after them, one to teach and one to judge"
        buyers = lifetime_value.buyers(usable)
        return None if buyers >= self.min_buyers else f"{buyers:,} spent something, and {self.min_buyers} are needed"

    def _stand_in(self, alone: ValueModel, closed: Sequence[Cutoff], current: Cutoff, reason: str) -> ValueModel:
        """Purchase histories alone, or the mean for everybody."""
        if alone.history_model is not None:
            model = lifetime_value.drawn(alone, current, self.interval, self._seed)
        else:
            value = np.concatenate([cutoff.value for cutoff in closed])
            mean = Rule.for_everybody(float(value.mean()))
            spread = Spread.of(np.full(len(value), value.mean()), value, self.interval)
            model = replace(alone, rules={"value": mean, "purchases": mean}, spread=spread)
        self._warn(model.answers_by, reason)
        return model

    def predict(self, X: Any) -> Floats:
        """The expected spend within the horizon; nan for who never bought, where histories count."""
        rows = self._rows(X)
        return self.model_.value(rows)

    def predict_bounds(self, X: Any) -> Floats:
        """A row each: the lower and the upper bound that `interval` of the outcomes lie within."""
        rows = self._rows(X)
        forecast = self.model_.forecast(rows)
        return np.column_stack([forecast.low, forecast.high])


def _sold(sales: pd.Series, coming: date) -> ShopDays:
    """A number for every day since the first, before the day that is asked about."""
    by_day = sales.set_axis(days_of(sales.index)).groupby(level=0).sum()
    by_day = by_day[by_day.index < pd.Timestamp(coming)]
    every = pd.date_range(by_day.index.min(), pd.Timestamp(coming), inclusive="left")
    return ShopDays(every[0].date(), by_day.reindex(every, fill_value=0.0).to_numpy(dtype=float))
