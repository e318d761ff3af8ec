"""The metrics against scikit-learn, cases computed by hand, and the figures of docs and references on CDNOW."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pandas as pd
import pytest
from datasets import cdnow_master
from scipy.stats import spearmanr
from sklearn import metrics as sklearn_metrics
from sklearn.calibration import calibration_curve

from training.backtests import metrics
from training.learning import deciles
from training.models.bg_nbd import BGNBD
from training.models.gamma_gamma import GammaGamma
from training.models.pareto_nbd import ParetoNBD

VALUE_METRICS = [metrics.ngini, metrics.decile_wape, metrics.bias, metrics.spearman, metrics.top_decile_capture]
CHURN_METRICS = [
    metrics.auc, metrics.average_precision, metrics.brier, metrics.log_loss, metrics.ece, metrics.lift_at,
    partial(metrics.lift_at_capacity, capacity=37),
]  # fmt: skip


def make_values(rows: int = 500) -> tuple[np.ndarray, np.ndarray]:
    """Skewed values with many zeros, and predictions with many ties."""
    rng = np.random.default_rng(0)
    expected = rng.gamma(0.5, 40, rows)
    return rng.poisson(expected / 10) * 10.0, np.round(expected, -1)


def make_labels(rows: int = 500) -> tuple[np.ndarray, np.ndarray]:
    """Labels, and calibrated probabilities with many ties."""
    rng = np.random.default_rng(0)
    probabilities = rng.integers(1, 20, rows) / 20
    return (rng.random(rows) < probabilities).astype(float), probabilities


def test_ngini_is_one_for_the_true_order_and_minus_one_for_the_reverse():
    """Only the order of the predictions counts; equal predictions say nothing."""
    actual = [0.0, 0, 5, 20, 75]
    assert metrics.ngini(actual, [1, 2, 3, 4, 5]) == pytest.approx(1)
    assert metrics.ngini(actual, [-1, -1, -3, -4, -5]) == pytest.approx(-1)
    assert metrics.ngini(actual, [7, 7, 7, 7, 7]) == pytest.approx(0)


def test_ngini_by_hand():
    """Ranks -3 -1 1 3: (0 1 4 2) gives -1 + 4 + 6 = 9 where the true order gives -1 + 2 + 12 = 13."""
    assert metrics.ngini([0, 1, 4, 2], [1, 2, 3, 4]) == pytest.approx(9 / 13)


def test_ngini_of_labels_is_twice_auc_minus_one():
    """For 0 and 1 the normalised Gini is Somers' D."""
    actual, predicted = make_labels()
    assert metrics.ngini(actual, predicted) == pytest.approx(2 * sklearn_metrics.roc_auc_score(actual, predicted) - 1)


def test_decile_wape_by_hand():
    """Twenty rows in ten pairs; each pair's mean is off by 1 around a mean of 10."""
    predicted = np.arange(20.0)
    actual = predicted + np.repeat([1, -1] * 5, 2) + np.tile([3, -3], 10)
    assert metrics.decile_wape(actual, predicted) == pytest.approx(10 / actual.reshape(10, 2).mean(axis=1).sum())


def test_bias_by_hand():
    """Too much is positive."""
    assert metrics.bias([10, 0, 30], [20, 10, 20]) == pytest.approx(0.25)


def test_spearman_is_scipys():
    """With many ties on both sides."""
    actual, predicted = make_values()
    assert metrics.spearman(actual, predicted) == pytest.approx(spearmanr(actual, predicted).statistic)


def test_top_decile_capture_by_hand():
    """The best two of twenty bring 60 of 100."""
    actual = np.append(np.full(18, 40 / 18), [10, 50])
    assert metrics.top_decile_capture(actual, np.arange(20)) == pytest.approx(0.6)


@pytest.mark.parametrize("levels", [1, 2, 19, 100_000])
def test_orders_of_probabilities_are_scikit_learns(levels: int) -> None:
    """Area and precision, from all scores equal to none, but for the last bits: it rounds at every step."""
    rng = np.random.default_rng(levels)
    scores = rng.integers(levels, size=500) / levels
    actual = (rng.random(500) < 0.2 + scores / 2).astype(float)
    assert metrics.auc(actual, scores) == pytest.approx(sklearn_metrics.roc_auc_score(actual, scores), rel=1e-14)
    theirs = sklearn_metrics.average_precision_score(actual, scores)
    assert metrics.average_precision(actual, scores) == pytest.approx(theirs, rel=1e-14)


def test_probability_metrics_are_scikit_learns():
    """Brier score and log loss."""
    actual, predicted = make_labels()
    assert metrics.brier(actual, predicted) == pytest.approx(sklearn_metrics.brier_score_loss(actual, predicted))
    assert metrics.log_loss(actual, predicted) == sklearn_metrics.log_loss(actual, predicted)


def test_log_loss_of_one_class_is_defined():
    """Everybody churned, as predicted with 0.8."""
    assert metrics.log_loss([1, 1], [0.8, 0.8]) == pytest.approx(-math.log(0.8))


def test_ece_takes_bins_of_equal_count():
    """Nine in ten at 0.1, one in ten at 0.9; equal-width bins would weigh the two groups alike."""
    predicted = np.repeat([0.1, 0.9], [90, 10])
    actual = np.concatenate([np.ones(18), np.zeros(72), np.ones(9), np.zeros(1)])
    assert metrics.ece(actual, predicted) == pytest.approx(0.9 * 0.1)


def test_ece_is_scikit_learns_calibration_curve_without_ties():
    """Quantile bins of a thousand distinct probabilities."""
    rng = np.random.default_rng(2)
    predicted = rng.random(1_000)
    actual = (rng.random(1_000) < predicted**2).astype(float)
    rate, mean = calibration_curve(actual, predicted, n_bins=10, strategy="quantile")
    assert metrics.ece(actual, predicted) == pytest.approx(np.abs(rate - mean).mean())


def test_lift_by_hand():
    """Two of the top two, four of twenty overall."""
    actual = np.zeros(20)
    actual[[0, 5, 18, 19]] = 1
    assert metrics.lift_at(actual, np.arange(20)) == pytest.approx(5)
    assert metrics.lift_at(actual, np.arange(20), share=1) == pytest.approx(1)
    assert metrics.lift_at_capacity(actual, np.arange(20), 4) == pytest.approx(2.5)
    assert metrics.lift_at_capacity(actual, np.arange(20), 1_000) == pytest.approx(1)


def test_ties_at_the_edge_of_a_list_count_with_their_mean():
    """One place is left for four customers with the same score, one of whom churned."""
    assert metrics.lift_at_capacity([1, 0, 0, 1, 0], [2, 1, 1, 1, 1], 2) == pytest.approx((1.25 / 2) / 0.4)


def test_expected_profit_by_hand():
    """Two churners of three: half accept and bring 90 less the 10 offered; the third takes the 10; contact costs 1."""
    profit = partial(metrics.expected_profit, acceptance=0.5, contact_cost=1, incentive_cost=10)
    assert profit([1, 1, 0], [90, 90, 500]) == pytest.approx(2 * 0.5 * 80 - 10 - 3)
    assert profit([2 / 3] * 3, [90] * 3) == pytest.approx(2 * 0.5 * 80 - 10 - 3)
    assert profit([], []) == 0


@pytest.mark.parametrize("metric", VALUE_METRICS)
def test_order_of_rows_is_irrelevant_for_values(metric):
    """Although many predictions tie."""
    actual, predicted = make_values()
    shuffle = np.random.default_rng(1).permutation(actual.size)
    assert metric(actual[shuffle], predicted[shuffle]) == pytest.approx(metric(actual, predicted), rel=1e-12)


@pytest.mark.parametrize("metric", CHURN_METRICS)
def test_order_of_rows_is_irrelevant_for_probabilities(metric):
    """Although many predictions tie."""
    actual, predicted = make_labels()
    shuffle = np.random.default_rng(1).permutation(actual.size)
    assert metric(actual[shuffle], predicted[shuffle]) == pytest.approx(metric(actual, predicted), rel=1e-12)


@pytest.mark.parametrize("metric", VALUE_METRICS)
def test_value_metrics_of_nothing_bought_are_nan(metric):
    """Nobody spent anything: no order to find, no total to compare with."""
    assert math.isnan(metric(np.zeros(20), np.arange(20.0)))


def test_churn_metrics_without_both_classes_are_nan():
    """Area with one class; precision and lift without a churner."""
    assert math.isnan(metrics.auc(np.ones(20), np.linspace(0, 1, 20)))
    assert math.isnan(metrics.average_precision(np.zeros(20), np.linspace(0, 1, 20)))
    assert math.isnan(metrics.lift_at(np.zeros(20), np.linspace(0, 1, 20)))


BASKETS = [["bread", "milk", "tea"], ["jam"], ["salt", "rice"]]
RANKED = [["milk", "beer", "tea", "bread"], ["beer", "tea"], ["wine", "rice", "salt"]]


def test_ranking_metrics_by_hand():
    """Among the first two: one of three items, none of one, one of two."""
    assert metrics.recall_at(BASKETS, RANKED, 2) == pytest.approx((1 / 3 + 0 + 1 / 2) / 3)
    assert metrics.hit_at(BASKETS, RANKED, 2) == pytest.approx(2 / 3)
    whole = 1 / (1 + 1 / math.log2(3) + 1 / 2), (1 / math.log2(3)) / (1 + 1 / math.log2(3))
    assert metrics.ndcg_at(BASKETS, RANKED, 2) == pytest.approx(sum(whole) / 3)
    short = 1 / (1 + 1 / math.log2(3)), (1 / math.log2(3)) / (1 + 1 / math.log2(3))
    assert metrics.ndcg_at(BASKETS, RANKED, 2, ideal="top_k") == pytest.approx(sum(short) / 3)


def test_ndcg_of_the_top_is_scikit_learns():
    """With ideal top_k, on random scores of thirty items."""
    rng = np.random.default_rng(3)
    relevant, scores = rng.random((40, 30)) < 0.3, rng.random((40, 30))
    baskets = [list(np.flatnonzero(row)) for row in relevant]
    ranked = [list(np.argsort(-row)) for row in scores]
    theirs = sklearn_metrics.ndcg_score(relevant, scores, k=5)
    assert metrics.ndcg_at(baskets, ranked, 5, ideal="top_k") == pytest.approx(theirs)
    assert metrics.ndcg_at(baskets, ranked, 5, ideal="basket") < theirs


def test_ranking_metrics_refuse_what_has_no_answer():
    """An empty basket, a ranking that repeats an item, different numbers of customers."""
    with pytest.raises(ValueError, match="customer in row 1: the basket is empty"):
        metrics.recall_at([["a"], []], [["a"], ["a"]], 2)
    with pytest.raises(ValueError, match="customer in row 0"):
        metrics.recall_at([["a"]], [["a", "a"]], 2)
    with pytest.raises(ValueError, match="1 baskets, 2 rankings"):
        metrics.hit_at([["a"]], [["a"], ["b"]], 2)


def test_bootstrap_interval_covers_as_often_as_it_says():
    """Of 200 samples of the mean of 100 normal values, 90 % intervals miss 0 about 20 times."""
    rng = np.random.default_rng(4)
    missed = 0
    for seed in range(200):
        low, high = metrics.bootstrap_interval(np.mean, rng.normal(size=100), n=200, seed=seed, level=0.9)
        missed += not low <= 0 <= high
    assert 8 <= missed <= 36


def test_bootstrap_interval_resamples_rows_of_all_columns_together():
    """A perfect ranking stays perfect; the same seed gives the same interval; lists of baskets work, too."""
    actual, predicted = make_values()
    assert metrics.bootstrap_interval(metrics.ngini, actual, actual, seed=1) == pytest.approx((1, 1))
    first = metrics.bootstrap_interval(metrics.ngini, actual, predicted, seed=1)
    assert first == metrics.bootstrap_interval(metrics.ngini, actual, predicted, seed=1)
    assert first.low < metrics.ngini(actual, predicted) < first.high
    series = pd.Series(actual, index=np.arange(actual.size) + 9), pd.Series(predicted)
    assert metrics.bootstrap_interval(metrics.ngini, *series, seed=1) == first
    low, high = metrics.bootstrap_interval(partial(metrics.hit_at, k=2), BASKETS, RANKED, seed=1)
    assert (low, high) == (0, 1)


def test_bootstrap_interval_leaves_out_resamples_without_a_metric():
    """One churner in five: a third of the resamples has none."""
    labels, scores = np.array([0.0, 0, 0, 0, 1]), np.arange(5.0)
    low, high = metrics.bootstrap_interval(metrics.auc, labels, scores, seed=1)
    assert (low, high) == (1, 1)
    assert np.isnan(metrics.bootstrap_interval(metrics.auc, np.zeros(5), scores, seed=1)).all()


def test_tables_hold_all_rows_from_lowest_to_highest():
    """Means weighted by count are the totals; 503 rows make bins of 50 and 51."""
    actual, predicted = make_values(503)
    tenths = deciles.decile_table(actual, predicted)
    assert set(tenths.count) == {50, 51}
    assert (np.diff(tenths.predicted) >= 0).all()
    assert tenths.count @ tenths.actual == pytest.approx(actual.sum())
    assert tenths.count @ tenths.predicted == pytest.approx(predicted.sum())


def test_reliability_table_has_the_wilson_interval():
    """10 of 50: 0.112 to 0.330."""
    predicted = np.linspace(0, 1, 500)
    actual = np.zeros(500)
    actual[:10] = 1
    table = metrics.reliability_table(actual, predicted)
    assert (table.actual[0], table.low[0], table.high[0]) == pytest.approx((0.2, 0.1124, 0.3304), abs=1e-4)
    assert (table.actual[5], table.low[5]) == pytest.approx((0, 0), abs=1e-12)
    assert table.high[5] > 0


@pytest.mark.parametrize(
    ("metric", "actual", "predicted", "message"),
    [
        (metrics.ngini, [1, 2], [1], r"actual has shape \(2,\), predicted \(1,\)"),
        (metrics.ngini, [], [], "expected one row per customer"),
        (metrics.bias, [1, np.nan], [1, 2], "actual is missing or infinite in 1 of 2 rows"),
        (metrics.auc, [0, 2], [0.5, 0.5], r"labels other than 0 and 1: \[2\.0\]"),
        (metrics.brier, [0, 1], [0.5, 1.5], r"predicted is outside 0\.\.1 in 1 of 2 rows: \[1\.5\]"),
        (metrics.ece, [0, 1], [0.5, 0.5], "2 rows do not fill 10 bins"),
        (partial(metrics.lift_at, share=0), [0, 1], [0.5, 0.5], "share is 0"),
        (partial(metrics.lift_at_capacity, capacity=0), [0, 1], [0.5, 0.5], "capacity is 0"),
    ],
)
def test_wrong_input_is_refused_by_value(metric, actual, predicted, message):
    """The error says what was found."""
    with pytest.raises(ValueError, match=message):
        metric(actual, predicted)


CDNOW_ROWS = [
    (BGNBD, [0.7626, 0.1627, 0.4202, 0.6716], [0.186, -0.186]),
    (ParetoNBD, [0.7686, 0.1628, 0.4416, 0.6842], [0.176, -0.176]),
]


@pytest.mark.parametrize(("model", "ranks", "totals"), CDNOW_ROWS, ids=["BG/NBD", "Pareto/NBD"])
def test_reference_figures_on_cdnow(model, ranks, totals):
    """39 weeks of 23,570 customers predict the next 39: auc, Brier score, Spearman, Gini; decile error, bias.

    T runs to as_of. The references' churn score is exp(-expected purchases), not the probability of no purchase.
    """
    purchases, as_of = cdnow_master(), pd.Timestamp("1997-10-01")
    before, after = purchases[purchases["date"] < as_of], purchases[purchases["date"] >= as_of]
    days = before.groupby("customer_id")["date"].agg(["min", "max", "count"])
    history = days["count"] - 1, (days["max"] - days["min"]).dt.days / 7, (as_of - days["min"]).dt.days / 7
    repeats = before[before["date"] > before.groupby("customer_id")["date"].transform("min")]
    spend = repeats.groupby("customer_id")["amount"].mean().reindex(days.index)
    outcome = after.groupby("customer_id")["amount"].agg(["count", "sum"]).reindex(days.index, fill_value=0)
    gamma_gamma = GammaGamma.fit(history[0][spend > 0], spend[spend > 0])
    expected = model.fit(*history).expected_purchases(*history, 39)
    value, silence = expected * gamma_gamma.expected_spend(history[0], spend), np.exp(-expected)
    churned, spent = outcome["count"] == 0, outcome["sum"]
    figures = metrics.auc(churned, silence), metrics.brier(churned, silence)
    figures += metrics.spearman(spent, value), metrics.ngini(spent, value)
    assert figures == pytest.approx(tuple(ranks), abs=1.5e-4)
    assert (metrics.decile_wape(spent, value), metrics.bias(spent, value)) == pytest.approx(tuple(totals), abs=1e-3)
