"""What BG/NBD, MBG/NBD and Pareto/NBD all promise."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
from datasets import Histories, dataset, weekly_histories
from scipy.optimize import approx_fprime

from training.models import bg_nbd, pareto_nbd
from training.models.bg_nbd import BGNBD
from training.models.histories import NotIdentified
from training.models.mbg_nbd import MBGNBD
from training.models.pareto_nbd import ParetoNBD

TRUTH = [
    BGNBD(r=0.6, alpha=5.0, a=0.8, b=2.5, log_likelihood=np.nan),
    MBGNBD(r=0.9, alpha=7.0, a=0.9, b=1.6, log_likelihood=np.nan),
    ParetoNBD(r=0.7, alpha=6.0, s=0.6, beta=9.0, log_likelihood=np.nan),
]
GAP, HORIZON = 6.0, 20.0

each_truth = pytest.mark.parametrize("truth", TRUTH, ids=lambda truth: type(truth).__name__)
each_model = pytest.mark.parametrize("model", [BGNBD, MBGNBD, ParetoNBD])


class Buyers(NamedTuple):
    """Simulated customers: history up to T, and what is never seen of them at T."""

    histories: Histories
    active: np.ndarray
    purchases_at_once: np.ndarray  # in (T, T + HORIZON]
    purchases_later: np.ndarray  # in (T + GAP, T + GAP + HORIZON]


def simulate(truth, customers: int, seed: int = 1) -> Buyers:
    """Purchase by purchase, straight from the model's story; ages T between 5 and 40."""
    rng = np.random.default_rng(seed)
    T = rng.uniform(5, 40, customers)
    rate = rng.gamma(truth.r, 1 / truth.alpha, customers)
    lifetime, p = np.full(customers, np.inf), np.zeros(customers)
    if isinstance(truth, ParetoNBD):
        lifetime = rng.exponential(1 / rng.gamma(truth.s, 1 / truth.beta, customers))
    else:
        p = rng.beta(truth.a, truth.b, customers)
    if isinstance(truth, MBGNBD):
        lifetime[rng.random(customers) < p] = 0
    x, t_x, at_once, later, clock = (np.zeros(customers) for _ in range(5))
    while (lifetime > clock).any():
        clock = clock + rng.exponential(1 / rate)
        buys = (clock < lifetime) & (clock <= T + GAP + HORIZON)
        seen = buys & (clock <= T)
        x, t_x = x + seen, np.where(seen, clock, t_x)
        at_once = at_once + (buys & (clock > T) & (clock <= T + HORIZON))
        later = later + (buys & (clock > T + GAP))
        leaves = rng.random(customers) < p
        lifetime = np.where(buys & leaves, clock, lifetime)
        clock = np.where(buys, clock, np.inf)
    return Buyers(Histories(x, t_x, T), lifetime > T, at_once, later)


@cache
def small_sample(customers: int = 3_000) -> Histories:
    """Simulated histories in whole days, so that some are equal."""
    x, t_x, T = simulate(TRUTH[2], customers).histories
    T = np.ceil(T)
    x = np.minimum(x, T - 1)
    return Histories(x, np.where(x > 0, np.clip(np.round(t_x), 1, T), 0.0), T)


def assert_unbiased_in_groups(buyers: Buyers, actual: np.ndarray, predicted: np.ndarray) -> None:
    """In every group of frequency and recency the mean error is within 4.5 of its standard errors."""
    x, t_x, T = buyers.histories
    groups = np.digitize(x, [1, 2, 3, 6, 12]) * 3 + np.digitize(t_x / T, [0.4, 0.8])
    for group in np.unique(groups):
        errors = (actual - predicted)[groups == group]
        limit = 4.5 * errors.std() / np.sqrt(errors.size) + 1e-9
        assert abs(errors.mean()) <= limit, f"group {group} of {errors.size} customers"


@each_truth
def test_simulated_customers_do_what_the_model_expects_of_their_histories(truth):
    """p_alive, purchases and silence, at once and after a gap, are unbiased for all kinds of customers."""
    buyers = simulate(truth, 150_000)
    histories = buyers.histories
    assert_unbiased_in_groups(buyers, buyers.active, truth.p_alive(*histories))
    for purchases, gap in ((buyers.purchases_at_once, 0.0), (buyers.purchases_later, GAP)):
        assert_unbiased_in_groups(buyers, purchases, truth.expected_purchases(*histories, HORIZON, gap))
        silence = truth.probability_of_no_purchase(*histories, HORIZON, gap)
        assert_unbiased_in_groups(buyers, purchases == 0, silence)


@pytest.mark.parametrize("truth", TRUTH[:2], ids=lambda truth: type(truth).__name__)
def test_drawn_purchases_are_those_the_model_expects(truth):
    """Over 200 draws of 400 customers: the mean of each, and how often none."""
    histories = simulate(truth, 400).histories
    rng = np.random.default_rng(6)
    drawn = np.array([truth.draw_purchases(*histories, HORIZON, rng) for _ in range(200)])
    for draws, expected in (
        (drawn, truth.expected_purchases(*histories, HORIZON)),
        (drawn == 0, truth.probability_of_no_purchase(*histories, HORIZON)),
    ):
        z = (draws.mean() - expected.mean()) / (draws.std(axis=0).mean() / np.sqrt(draws.size))
        assert abs(z) < 4
        assert np.corrcoef(draws.mean(axis=0), expected)[0, 1] > 0.97


@each_truth
def test_fit_finds_the_parameters_that_made_the_data(truth):
    """With 150,000 customers each parameter comes back within 10 %."""
    fitted = type(truth).fit(*simulate(truth, 150_000, seed=2).histories)
    names = [name for name in vars(truth) if name != "log_likelihood"]
    assert [getattr(fitted, name) for name in names] == pytest.approx([getattr(truth, name) for name in names], rel=0.1)


@each_model
def test_weights_stand_for_repeated_rows(model):
    """A weight of 3 is the row three times."""
    rows = small_sample()
    weights = np.random.default_rng(3).integers(1, 4, rows.T.size)
    weighted = model.fit(*rows, weights=weights)
    repeated = model.fit(*(np.repeat(column, weights) for column in rows))
    assert list(vars(weighted).values()) == pytest.approx(list(vars(repeated).values()), rel=1e-6)


@each_model
def test_order_of_rows_is_irrelevant(model):
    """Shuffled customers give the same fit, and predictions in the shuffled order."""
    rows = small_sample()
    shuffle = np.random.default_rng(4).permutation(rows.T.size)
    shuffled = Histories(*(column[shuffle] for column in rows))
    fitted, refitted = model.fit(*rows), model.fit(*shuffled)
    assert list(vars(fitted).values()) == pytest.approx(list(vars(refitted).values()), rel=1e-9)
    np.testing.assert_array_equal(fitted.expected_purchases(*rows, 9)[shuffle], fitted.expected_purchases(*shuffled, 9))


@each_model
def test_unit_of_time_is_the_callers(model):
    """Days instead of weeks change alpha and beta by 7, the likelihood by a density's factor, and no prediction."""
    weeks = small_sample()
    days = Histories(weeks.frequency, weeks.recency * 7, weeks.T * 7)
    by_week, by_day = model.fit(*weeks), model.fit(*days)
    scale = {"alpha": 7, "beta": 7}
    for name in [name for name in vars(by_week) if name != "log_likelihood"]:
        assert getattr(by_day, name) == pytest.approx(getattr(by_week, name) * scale.get(name, 1), rel=1e-5)
    shift = np.log(7) * weeks.frequency.sum()
    assert by_day.log_likelihood == pytest.approx(by_week.log_likelihood - shift, abs=1e-5)
    np.testing.assert_allclose(
        by_day.probability_of_no_purchase(*days, 63, 7), by_week.probability_of_no_purchase(*weeks, 9, 1), rtol=1e-5
    )


@each_truth
def test_longer_horizon_means_more_purchases_and_less_silence(truth):
    """For every customer, with and without a gap, until nothing is left to change; and nothing happens in no time."""
    rows = [column[:, None] for column in small_sample(300)]
    horizons = np.array([0.0, 0.1, 1, 5, 30, 200, 5_000])
    for gap in (0.0, 3.0):
        expected = truth.expected_purchases(*rows, horizons, gap)
        silence = truth.probability_of_no_purchase(*rows, horizons, gap)
        assert expected.shape == (300, 7)
        assert (np.diff(expected) > 0).all()
        assert (np.diff(silence) <= 0).all()
        assert (np.diff(silence)[:, :3] < 0).all()
        assert (expected[:, 0] == 0).all()
        np.testing.assert_allclose(silence[:, 0], 1, rtol=1e-12)
        assert ((silence >= 0) & (silence <= 1)).all()


@each_truth
def test_windows_after_a_gap_add_up(truth):
    """Purchases in (T, T + 8] are those in (T, T + 3] and in (T + 3, T + 8]; a later window is no busier."""
    rows = small_sample(300)
    split = truth.expected_purchases(*rows, 3) + truth.expected_purchases(*rows, 5, gap=3)
    np.testing.assert_allclose(split, truth.expected_purchases(*rows, 8), rtol=1e-7)
    assert (truth.probability_of_no_purchase(*rows, 5, gap=3) > truth.probability_of_no_purchase(*rows, 5)).all()


@each_truth
def test_longer_silence_makes_a_regular_buyer_less_likely_to_be_alive(truth):
    """Ten purchases in ten weeks, then nothing."""
    T = np.array([10.0, 11, 15, 25, 60, 300])
    alive = truth.p_alive(10, 10, T)
    assert (np.diff(alive) < 0).all()
    assert alive[-1] < 1e-6


@each_truth
def test_tens_of_thousands_of_purchases_do_not_overflow(truth):
    """An active customer goes on at the observed rate; one long gone is gone."""
    x = np.array([2_000.0, 50_000])
    active = truth.expected_purchases(x, 730, 730, 1)
    np.testing.assert_allclose(active, x / 730, rtol=0.05)
    np.testing.assert_allclose(truth.p_alive(x, 100, 730), 0, atol=1e-12)
    np.testing.assert_allclose(truth.probability_of_no_purchase(x, 730, 730, 10), 0, atol=1e-3)
    np.testing.assert_allclose(truth.probability_of_no_purchase(x, 100, 730, 10, gap=2), 1, atol=1e-12)


@each_model
def test_fit_takes_customers_with_thousands_of_purchases(model):
    """A shop that buys fifty times a week among three thousand people."""
    fitted = model.fit(*(np.append(*columns) for columns in zip(small_sample(), (2_000.0, 39.9, 40.0), strict=True)))
    assert np.isfinite(list(vars(fitted).values())).all()


@pytest.mark.parametrize(
    ("scores", "columns"), [(bg_nbd._scores, 4), (pareto_nbd._scores, 3)], ids=["beta-geometric", "Pareto"]
)
def test_slopes_of_the_likelihood_are_its_derivatives(scores, columns):
    """The analytic derivatives by each parameter agree with differences, for every row."""
    x, t_x, T = (np.array(column) for column in ([0.0, 1, 3, 40, 900], [0.0, 2, 9, 10, 9.5], [5.0, 9, 9, 12, 10]))
    rows = (x, t_x, T, x + 1)[:columns]
    parameters = np.array([0.7, 2.0, 0.9, 3.0])
    for row in range(x.size):
        one = [column[row : row + 1] for column in rows]
        numeric = approx_fprime(parameters, lambda at, one=one: scores(at, *one)[0][0], 1e-7)
        np.testing.assert_allclose(scores(parameters, *one)[1][:, 0], numeric, rtol=1e-4, atol=1e-4)


BAD_ROWS = [
    ([1.0, 2.0, 1.0], [3.0, 9.0, 1.0], [4.0, 8.0, 4.0], r"recency exceeds T.* in 1 of 3 rows: \(9\.0, 8\.0\)"),
    ([1.0, -2.0, -1.0], [3.0, 3.0, 1.0], [4.0, 8.0, 4.0], r"frequency is .*negative in 2 of 3 rows: -2\.0, -1\.0"),
    ([1.0, 2.0, 1.0], [3.0, np.nan, 1.0], [4.0, 8.0, 4.0], "recency is missing.* in 1 of 3 rows: nan"),
    ([1.0, 2.0, 1.0], [3.0, 3.0, 1.0], [4.0, np.inf, 4.0], "T is missing, infinite.* in 1 of 3 rows: inf"),
    ([1.0, 2.5, 1.0], [3.0, 3.0, 1.0], [4.0, 8.0, 4.0], r"frequency is not a whole number in 1 of 3 rows: 2\.5"),
    ([1.0, 0.0, 1.0], [3.0, 3.0, 1.0], [4.0, 8.0, 4.0], r"frequency is 0 but recency.* in 1 of 3 rows: 3\.0"),
]


@each_model
@pytest.mark.parametrize(("frequency", "recency", "T", "message"), BAD_ROWS)
def test_fit_refuses_impossible_rows_by_value(model, frequency, recency, T, message):
    """The error counts the rows and shows their values."""
    with pytest.raises(ValueError, match=message):
        model.fit(frequency, recency, T)


@each_truth
@pytest.mark.parametrize(("frequency", "recency", "T", "message"), BAD_ROWS)
def test_predictions_refuse_impossible_rows_by_value(truth, frequency, recency, T, message):
    """As at fitting."""
    with pytest.raises(ValueError, match=message):
        truth.expected_purchases(frequency, recency, T, 4)


@each_truth
def test_predictions_refuse_negative_windows(truth):
    """Horizon and gap are durations."""
    with pytest.raises(ValueError, match=r"horizon is missing, infinite or negative in 1 of 1 rows: -1\.0"):
        truth.expected_purchases(1, 2, 3, -1)
    with pytest.raises(ValueError, match="gap is missing, infinite or negative in 1 of 2 rows: nan"):
        truth.probability_of_no_purchase(1, 2, 3, 4, gap=[0, np.nan])


@each_model
def test_fit_refuses_columns_that_do_not_match(model):
    """No rows, different lengths, weights that are not positive."""
    with pytest.raises(ValueError, match="no customers: frequency, recency, T are empty"):
        model.fit([], [], [])
    with pytest.raises(ValueError, match="columns differ in shape"):
        model.fit([1, 2], [1], [2])
    with pytest.raises(ValueError, match=r"weight is not a positive number in 1 of 2 rows: 0\.0"):
        model.fit([1, 2], [1, 1], [2, 3], weights=[1, 0])
    with pytest.raises(ValueError, match="one for each row"):
        model.fit([1, 2], [1, 1], [2, 3], weights=[1])


@each_model
def test_customers_who_bought_once_do_not_identify_a_model(model):
    """A thousand customers, no repeat purchase; nor are 29 repeat buyers enough."""
    with pytest.raises(NotIdentified, match="0 of 1000 customers bought again, at least 30"):
        model.fit(np.zeros(1_000), np.zeros(1_000), np.linspace(1, 50, 1_000))
    with pytest.raises(NotIdentified, match="29 of 100 customers"):
        model.fit(np.repeat([0.0, 1], [71, 29]), np.repeat([0.0, 3], [71, 29]), np.full(100, 9.0))


@each_model
def test_customers_who_never_leave_do_not_identify_drop_out(model):
    """Poisson buyers of different rates, none of whom stops: the drop-out parameters run off."""
    rng = np.random.default_rng(5)
    x = rng.poisson(rng.gamma(2, 2, 2_000)).astype(float)
    recency = np.where(x > 0, 20 * rng.random(2_000) ** (1 / np.maximum(x, 1)), 0)
    with pytest.raises(NotIdentified, match="the data do not determine"):
        model.fit(x, recency, np.full(2_000, 20.0))


@each_model
def test_forty_weeks_of_slow_buyers_do_not_identify_drop_out(model):
    """CLVTools' apparel set of 600 customers: the likelihood keeps rising as drop-out gets equal for all customers."""
    purchases = pd.read_parquet(dataset("clvtools") / "apparel_trans.parquet").rename(columns={"id": "customer_id"})
    with pytest.raises(NotIdentified, match="standard errors of the parameters' logarithms"):
        model.fit(*weekly_histories(purchases, "2005-10-09"))
