"""The service's learning as scikit-learn estimators: scikit-learn's own checks, the service's digits, and time."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.utils.estimator_checks import parametrize_with_checks

from perennial.models import ChurnClassifier, CutoffSplit, LifetimeValueRegressor
from training.models.rule import BASE_RATE, OURS

# As they are, and so that boosters learn from the few dozen rows of most checks. None is expected to fail.
CHECKED = [
    ChurnClassifier(), ChurnClassifier(min_outcomes=1, min_child_samples=1, rounds=3, learning_rate=0.5),
    LifetimeValueRegressor(), LifetimeValueRegressor(min_buyers=1, min_child_samples=1, rounds=3, learning_rate=0.5),
]  # fmt: skip
DAYS = [f"2024-{month:02}-01" for month in range(1, 11)]


@parametrize_with_checks(CHECKED)
@pytest.mark.filterwarnings("ignore:.*answers by:UserWarning")  # of too few rows, as a user is told
@pytest.mark.filterwarnings("ignore:.*column-vector y")  # what one of the checks gives
def test_scikit_learn_takes_them(estimator: BaseEstimator, check: Any) -> None:
    """Every check of scikit-learn's holds."""
    check(estimator)


def made(rows_a_day: int = 300, seed: int = 3) -> tuple[pd.DataFrame, pd.Series, pd.Series]:
    """Customers on ten days, whether they left, by their visits and plan, and what they spent."""
    rng, size = np.random.default_rng(seed), rows_a_day * len(DAYS)
    rows = pd.DataFrame({
        "customer_id": np.arange(size).astype(str), "as_of": np.repeat(DAYS, rows_a_day),
        "visits": rng.poisson(5, size), "plan": pd.Categorical(rng.choice(["basic", "plus"], size)),
    })  # fmt: skip
    left = rng.random(size) < 1 / (1 + np.exp(rows["visits"] - 5 + 2 * (rows["plan"] == "plus")))
    return rows, left.map({True: "left", False: "kept"}), rows["visits"] * rng.gamma(2, 5, size) * ~left


def test_texts_are_classes_and_categories_but_no_features() -> None:
    """The second class by order is leaving; a category that was not there is unknown; a text is refused with the way
    out; keys are never features."""
    rows, left, _ = made()
    left = left.replace({"kept": "stayed", "left": "went"})
    model = ChurnClassifier(horizon=30).fit(rows, left)
    assert model.classes_.tolist() == ["stayed", "went"]
    assert model.feature_names_in_.tolist() == ["visits", "plan"]
    asked = pd.DataFrame({"visits": [5, 5, 5], "plan": pd.Categorical(["plus", "basic", "gold"])})
    plus, basic, gold = model.predict_proba(asked)[:, 1]
    assert plus < gold < basic or gold in (plus, basic)
    assert model.predict(asked[:2]).tolist() == ["stayed", "went" if basic > 0.5 else "stayed"]
    with pytest.raises(ValueError, match=r"column plan holds texts: X\['plan'\].astype\('category'\)"):
        ChurnClassifier().fit(rows.astype({"plan": str}), left)


def test_the_latest_day_calibrates() -> None:
    """Had many more left on it: the level is the latest day's, the order of customers that of all days."""
    rows, left, _ = made()
    latest, rng = rows["as_of"] == DAYS[-1], np.random.default_rng(1)
    more = left.mask(latest & (rng.random(len(rows)) < 0.5), "left")
    before, after = (ChurnClassifier(horizon=30).fit(rows, y).predict_proba(rows[latest])[:, 1] for y in (left, more))
    for said, happened in ((before, left), (after, more)):
        assert said.mean() == pytest.approx((happened[latest] == "left").mean(), abs=0.05)
    assert roc_auc_score(left[latest], after) > 0.8


@pytest.mark.parametrize("has_days", [True, False])
def test_values_add_up_and_lie_within_their_bounds(has_days: bool) -> None:
    """On later days: the total within a tenth, and about as many outcomes within the bounds as are asked for."""
    rows, _, spent = made(600)
    rows = rows if has_days else rows.drop(columns="as_of")
    model = LifetimeValueRegressor(horizon=30, interval=0.7, rounds=100, learning_rate=0.1).fit(rows, spent)
    asked, _, came = made(600, seed=4)
    asked = asked.drop(columns="as_of")
    value, (low, high) = model.predict(asked), model.predict_bounds(asked).T
    assert value.sum() == pytest.approx(came.sum(), rel=0.1)
    assert ((low <= value) & (value <= high)).all()
    assert 0.65 < ((low <= came) & (came <= high)).mean() < 0.85


def test_rows_without_days_are_divided_by_chance() -> None:
    """In whatever order they come: sorted by outcome they teach as much."""
    rows, left, _ = made()
    order = np.argsort(left.to_numpy(), kind="stable")
    model = ChurnClassifier().fit(rows.drop(columns="as_of").iloc[order], left.iloc[order])
    asked, later, _ = made(seed=4)
    said = model.predict_proba(asked.drop(columns="as_of"))[:, 1]
    assert roc_auc_score(later, said) > 0.8
    assert said.mean() == pytest.approx((later == "left").mean(), abs=0.03)


def test_too_little_is_said_and_answered_by_the_base_rate() -> None:
    """One rate for everybody, under its own name."""
    rows, left, spent = made(20)
    with pytest.warns(UserWarning, match="ChurnClassifier answers by base rate: .* fewer than 100 of either"):
        model = ChurnClassifier().fit(rows, left)
    assert model.answers_by_ == BASE_RATE
    assert np.ptp(model.predict_proba(rows)[:, 1]) == 0
    with pytest.warns(UserWarning, match="LifetimeValueRegressor answers by base rate: there are not two cutoffs"):
        value = LifetimeValueRegressor().fit(rows[:20], spent[:20])
    np.testing.assert_allclose(value.predict(rows), spent[:20].mean())


HISTORY = {
    "frequency": 1.0, "recency": 40.0, "T": 100.0, "monetary_value": 5.0, "spend_first": 5.0, "spend_last": 5.0,
    "spend_365d": 10.0,
}  # fmt: skip


def test_who_never_bought_cannot_leave_by_silence() -> None:
    """Such rows are refused as lessons, unless leaving is an event; half a history is none."""
    rows = pd.DataFrame([HISTORY] * 9 + [dict.fromkeys(HISTORY, np.nan)])
    left = np.arange(10) % 2
    with pytest.raises(ValueError, match=r"1 of 10 rows are of who never bought \(T is missing\)"):
        ChurnClassifier().fit(rows, left)
    with pytest.raises(ValueError, match="there is no column spend_last, spend_365d"):
        ChurnClassifier(kind="inactivity").fit(rows.drop(columns=["spend_last", "spend_365d"]), left)
    with pytest.warns(UserWarning, match="too few customers came back"):
        model = ChurnClassifier().fit(rows[:9], left[:9])
    assert np.isnan(model.predict_proba(rows)[:, 1]).tolist() == [False] * 9 + [True]
    with pytest.raises(ValueError, match="1 of 10 rows are of who never bought: predict_proba says nan"):
        model.predict(rows)


@pytest.mark.parametrize(("horizon", "gap"), [(30, 0), (31, 0), (60, 7)])
def test_a_split_trains_on_windows_that_had_closed(horizon: int, gap: int) -> None:
    """By the judged day, to the day; rows of other days are in neither, and the latest day is judged last."""
    rows, _, _ = made(2)
    days = pd.to_datetime(rows["as_of"])
    splits = [*CutoffSplit(n_splits=2, horizon=horizon, gap=gap).split(rows)]
    assert len(splits) == 2
    for train, test in splits:
        judged = days.iloc[test].unique()
        assert len(judged) == 1
        assert len(test) == 2
        closed = days + pd.Timedelta(days=gap + horizon) <= judged[0]
        assert train.tolist() == np.flatnonzero(closed).tolist()
    assert {*rows["as_of"].iloc[splits[-1][1]]} == {DAYS[-1]}
    few = [train for train, _ in CutoffSplit(n_splits=2, horizon=horizon, gap=gap, max_cutoffs=2).split(rows)]
    assert all(rows["as_of"].iloc[train].nunique() == 2 for train in few)


def test_days_are_groups_or_a_column() -> None:
    """As texts, dates or time stamps; without any, or as numbers or times, they are refused."""
    rows, _, _ = made(2)
    split = CutoffSplit(horizon=30)
    expected = [train.tolist() for train, _ in split.split(rows)]
    days = pd.to_datetime(rows["as_of"])
    for groups in (rows["as_of"].tolist(), days, days.dt.date.to_numpy()):
        assert [train.tolist() for train, _ in split.split(rows[["visits"]], groups=groups)] == expected
    for wrong, says in ((None, "pass groups="), (np.arange(20), "numbers"), (days + pd.Timedelta("1h"), "a time")):
        with pytest.raises(ValueError, match=says):
            next(split.split(rows[["visits"]], groups=wrong))


def test_scikit_learn_validates_over_time() -> None:
    """`cross_val_score` and a search: a column or groups, the same scores."""
    rows, left, spent = made(120)
    model, split = ChurnClassifier(horizon=30, rounds=20), CutoffSplit(n_splits=2, horizon=30)
    by_column = cross_val_score(model, rows, left, cv=split, scoring="roc_auc")
    features, days = rows[["visits", "plan"]], rows["as_of"].to_numpy()
    by_groups = cross_val_score(model, features, left, groups=days, cv=split, scoring="roc_auc", params={"as_of": days})
    assert by_column.tolist() == by_groups.tolist()
    assert (by_column > 0.7).all()
    value = LifetimeValueRegressor(horizon=30)
    search = GridSearchCV(value, {"rounds": [1, 40]}, cv=split, scoring="neg_mean_absolute_error").fit(rows, spent)
    assert search.best_params_ == {"rounds": 40}
    assert search.best_estimator_.answers_by_ == OURS


def test_a_fitted_one_is_kept_in_a_file() -> None:
    """Pickled and read again it says the same, to the last digit."""
    rows, left, _ = made(120)
    model = ChurnClassifier(rounds=5).fit(rows, left)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict_proba(rows), model.predict_proba(rows))
