"""Gamma-Gamma against the note's fit and its own story."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from datasets import cdnow_sample
from scipy.optimize import approx_fprime

from training.models import gamma_gamma
from training.models.gamma_gamma import GammaGamma
from training.models.histories import NotIdentified

NOTE = GammaGamma(p=6.25, q=3.74, v=15.44, log_likelihood=np.nan)


def cdnow_spends() -> pd.DataFrame:
    """Number and mean amount of each customer's repeat purchase days up to 1997-09-30."""
    purchases = cdnow_sample()
    calibration = purchases[purchases["date"] < "1997-10-01"]
    repeats = calibration[calibration["date"] > calibration.groupby("customer_id")["date"].transform("min")]
    return repeats.groupby("customer_id")["amount"].agg(["count", "mean"])


def simulate(truth: GammaGamma, customers: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Frequency, mean amount seen, and the amount of one more purchase."""
    rng = np.random.default_rng(1)
    x = rng.geometric(0.3, customers).astype(float)
    nu = rng.gamma(truth.q, 1 / truth.v, customers)
    return x, rng.gamma(truth.p * x) / nu / x, rng.gamma(truth.p, 1 / nu)


def test_fit_on_cdnow_is_the_published_one():
    """Fader, Hardie 2013: 946 repeat customers."""
    spends = cdnow_spends()
    fitted = GammaGamma.fit(spends["count"], spends["mean"])
    assert len(spends) == 946
    assert (fitted.p, fitted.q, fitted.v) == pytest.approx((6.25, 3.74, 15.44), abs=6e-3)


def test_expected_spend_shrinks_towards_the_population():
    """The note's own examples: 35.17 for nobody in particular, 24.65 after two purchases of 22.35 on average."""
    expected = NOTE.expected_spend([0, 2, 1], [np.nan, 22.35, 11.77])
    np.testing.assert_allclose(expected, [35.2, 24.65, 18.9], atol=0.05)
    assert NOTE.expected_spend(3, np.nan) == NOTE.population_mean
    assert NOTE.expected_spend(1e6, 50.0) == pytest.approx(50, rel=1e-4)


def test_next_purchase_of_simulated_customers_is_unbiased():
    """By number of purchases seen and by low, middling and high spend."""
    x, z, following = simulate(NOTE, 200_000)
    errors = following - NOTE.expected_spend(x, z)
    groups = np.minimum(x, 5) * 3 + np.digitize(z, [20, 40])
    for group in np.unique(groups):
        some = errors[groups == group]
        assert abs(some.mean()) < 4.5 * some.std() / np.sqrt(some.size)


def test_fit_finds_the_parameters_that_made_the_data():
    """Within 5 % with 100,000 customers."""
    fitted = GammaGamma.fit(*simulate(NOTE, 100_000)[:2])
    assert (fitted.p, fitted.q, fitted.v) == pytest.approx((6.25, 3.74, 15.44), rel=0.05)


def test_weights_stand_for_repeated_rows_and_order_is_irrelevant():
    """A weight of 2 is the row twice, wherever."""
    x, z, _ = simulate(NOTE, 2_000)
    weighted = GammaGamma.fit(x, z, weights=np.full(2_000, 2))
    repeated = GammaGamma.fit(np.concatenate([x[::-1], x]), np.concatenate([z[::-1], z]))
    assert list(vars(weighted).values()) == pytest.approx(list(vars(repeated).values()), rel=1e-6)


def test_currency_is_the_callers():
    """Cents instead of dollars change v by 100 and the likelihood by a density's factor."""
    x, z, _ = simulate(NOTE, 2_000)
    dollars, cents = GammaGamma.fit(x, z), GammaGamma.fit(x, z * 100)
    assert (cents.p, cents.q, cents.v) == pytest.approx((dollars.p, dollars.q, dollars.v * 100), rel=1e-5)
    assert cents.log_likelihood == pytest.approx(dollars.log_likelihood - 2_000 * np.log(100), abs=1e-5)


def test_slopes_of_the_likelihood_are_its_derivatives():
    """The analytic derivatives agree with differences, for thousands of purchases too."""
    for x, z in ((1.0, 0.3), (5.0, 40.0), (8_000.0, 12.0)):
        row = (np.array([x]), np.array([z]))
        at = np.array([6.0, 3.7, 15.0])
        numeric = approx_fprime(at, lambda values, row=row: gamma_gamma.scores(values, *row)[0][0], 1e-7)
        np.testing.assert_allclose(gamma_gamma.scores(at, *row)[1][:, 0], numeric, rtol=1e-4, atol=1e-3)


def test_mean_that_does_not_exist_is_nan():
    """q <= 1: infinite for the population, finite again once enough purchases were seen."""
    heavy = GammaGamma(p=2.0, q=0.8, v=10.0, log_likelihood=np.nan)
    assert np.isnan(heavy.population_mean)
    np.testing.assert_array_equal(np.isnan(heavy.expected_spend([0, 5], [np.nan, 20.0])), [True, False])


@pytest.mark.parametrize(
    ("frequency", "monetary_value", "message"),
    [
        ([1, 0, 2], [5.0, 5, 5], r"frequency is not a positive number in 1 of 3 rows: 0\.0"),
        ([1, 1, 2], [5.0, 0, -3], r"monetary_value is not a positive number in 2 of 3 rows: 0\.0, -3\.0"),
        ([], [], "no customers"),
    ],
)
def test_fit_refuses_rows_without_spend(frequency, monetary_value, message):
    """The error counts the rows and shows their values."""
    with pytest.raises(ValueError, match=message):
        GammaGamma.fit(frequency, monetary_value)


def test_expected_spend_refuses_negative_values():
    """A customer whose returns exceed the purchases is the caller's to decide on."""
    with pytest.raises(ValueError, match=r"monetary_value is infinite or negative in 1 of 2 rows: -4\.0"):
        NOTE.expected_spend([1, 1], [-4.0, 3.0])


def test_customers_who_all_spend_the_same_do_not_identify_the_model():
    """No spread within or between customers; nor are 29 customers enough."""
    with pytest.raises(NotIdentified, match="the data do not determine"):
        GammaGamma.fit(np.tile([1.0, 2, 3], 50), np.full(150, 20.0))
    with pytest.raises(NotIdentified, match="29 of 29"):
        GammaGamma.fit(np.ones(29), np.linspace(1, 9, 29))
