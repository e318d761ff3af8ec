"""Spend per purchase against Gamma-Gamma, its own story and simulated customers."""

from __future__ import annotations

from dataclasses import astuple
from typing import NamedTuple

import numpy as np
import pytest
from datasets import cdnow_sample
from scipy.optimize import approx_fprime

from training.models import spend_per_purchase
from training.models.gamma_gamma import GammaGamma
from training.models.histories import NotIdentified
from training.models.spend_per_purchase import SpendPerPurchase

TRUTH = SpendPerPurchase(p=6.0, q=3.7, v=15.0, first_weight=0.4, log_likelihood=np.nan)


class Spends(NamedTuple):
    """The columns that a fit takes."""

    frequency: np.ndarray
    monetary_value: np.ndarray
    spend_first: np.ndarray


def simulate(customers: int) -> tuple[Spends, np.ndarray]:
    """What was seen of customers that are as `TRUTH` says, and the amount of one more purchase of each."""
    rng = np.random.default_rng(1)
    x, first = rng.geometric(0.3, customers).astype(float), rng.lognormal(3, 0.8, customers)
    w = TRUTH.first_weight
    nu = rng.gamma(TRUTH.q + TRUTH.p * w, size=customers) / (TRUTH.v + w * first)
    return Spends(x, rng.gamma(TRUTH.p * x) / nu / x, first), rng.gamma(TRUTH.p, 1 / nu)


def test_fit_finds_the_parameters_that_made_the_data():
    """Within 6 % with 100,000 customers, the weight of the first purchase too."""
    fitted = SpendPerPurchase.fit(*simulate(100_000)[0])
    assert astuple(fitted)[:4] == pytest.approx(astuple(TRUTH)[:4], rel=0.06)


def test_next_purchase_of_simulated_customers_is_unbiased():
    """By number of purchases seen and by a low, middling and high first one, those seen only once included."""
    seen, following = simulate(200_000)
    once = np.arange(200_000) % 4 == 0
    x, z = np.where(once, 0.0, seen.frequency), np.where(once, np.nan, seen.monetary_value)
    errors = following - TRUTH.expected(x, z, seen.spend_first)
    groups = np.minimum(x, 5) * 3 + np.digitize(seen.spend_first, [12, 30])
    for group in np.unique(groups):
        some = errors[groups == group]
        assert abs(some.mean()) < 4.5 * some.std() / np.sqrt(some.size)


def test_first_purchase_that_foretells_nothing_gets_no_weight():
    """What remains is Gamma-Gamma's own fit and expectation."""
    (x, z, first), _ = simulate(20_000)
    shuffled = np.random.default_rng(2).permutation(first)
    fitted, plain = SpendPerPurchase.fit(x, z, shuffled), GammaGamma.fit(x, z)
    assert fitted.first_weight < 0.01
    assert (fitted.p, fitted.q, fitted.v) == pytest.approx((plain.p, plain.q, plain.v), rel=0.02)
    np.testing.assert_allclose(fitted.expected(x, z, shuffled), plain.expected_spend(x, z), rtol=0.02)


def test_first_purchases_of_cdnow_foretell_the_others():
    """The likelihood of the 946 repeat customers' amounts rises by more than 60, for one more parameter."""
    until = cdnow_sample().query("date < '1997-10-01'").sort_values("date").groupby("customer_id")["amount"]
    x, first = until.count() - 1, until.first()
    z = (until.sum() - first) / x
    repeat = (x > 0) & (first > 0) & (z > 0)
    fitted = SpendPerPurchase.fit(x[repeat], z[repeat], first[repeat])
    assert fitted.log_likelihood > GammaGamma.fit(x[repeat], z[repeat]).log_likelihood + 60
    assert 0.1 < fitted.first_weight < 0.9


def test_amounts_that_say_nothing_are_left_out():
    """A missing mean, and a first purchase or a mean that returns ate up."""
    nothing = TRUTH.expected(0.0, np.nan, np.nan)
    assert nothing == pytest.approx(6.0 * 15 / 2.7)
    np.testing.assert_array_equal(TRUTH.expected([2.0, 0.0], [-5.0, np.nan], [0.0, -3.0]), [nothing, nothing])
    assert TRUTH.expected(1e6, 50.0, 3.0) == pytest.approx(50, rel=1e-4)


def test_drawn_spend_has_the_expected_mean():
    """Three purchases cost three times one; none costs nothing."""
    rng = np.random.default_rng(3)
    drawn = TRUTH.draw(
        np.full(200_000, 2.0), np.full(200_000, 40.0), np.full(200_000, 10.0), np.full(200_000, 3.0), rng
    )
    assert drawn.mean() == pytest.approx(3 * float(TRUTH.expected(2.0, 40.0, 10.0)), rel=0.01)
    assert TRUTH.draw([1.0], [5.0], [5.0], np.zeros(1), rng) == 0


def test_currency_is_the_callers():
    """Cents instead of dollars change v by 100 and nothing else but the likelihood."""
    (x, z, first), _ = simulate(3_000)
    dollars, cents = SpendPerPurchase.fit(x, z, first), SpendPerPurchase.fit(x, z * 100, first * 100)
    in_dollars = (dollars.p, dollars.q, dollars.v * 100, dollars.first_weight)
    assert astuple(cents)[:4] == pytest.approx(in_dollars, rel=1e-4)


def test_slopes_of_the_likelihood_are_its_derivatives():
    """The analytic derivatives agree with differences, for thousands of purchases too."""
    for x, z, first in ((1.0, 0.3, 2.0), (5.0, 40.0, 0.1), (8_000.0, 12.0, 9.0)):
        row = (np.array([x]), np.array([z]), np.array([first]))
        at = np.array([6.0, 3.7, 15.0, 0.8])
        numeric = approx_fprime(at, lambda values, row=row: spend_per_purchase._scores(values, *row)[0][0], 1e-5)
        np.testing.assert_allclose(spend_per_purchase._scores(at, *row)[1][:, 0], numeric, rtol=1e-4, atol=1e-3)


def test_fit_refuses_what_is_no_purchase_and_too_few_customers():
    """The error counts the rows and shows their values; 29 customers are not enough."""
    with pytest.raises(ValueError, match=r"spend_first is not a positive number in 1 of 2 rows: -1\.0"):
        SpendPerPurchase.fit([1, 2], [3.0, 4.0], [-1.0, 2.0])
    with pytest.raises(NotIdentified, match="29 of 29"):
        SpendPerPurchase.fit(np.ones(29), np.linspace(1, 9, 29), np.ones(29))
