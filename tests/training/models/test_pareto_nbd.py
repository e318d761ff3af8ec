"""Pareto/NBD against published fits and the note's closed forms."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from datasets import cdnow_sample, dataset, weekly_histories
from scipy.special import hyp2f1

from training.models.pareto_nbd import ParetoNBD

BTYD = ParetoNBD(r=0.5533971, alpha=10.5801985, s=0.6060625, beta=11.6562237, log_likelihood=-9594.976)


def test_fit_on_cdnow_is_the_published_one():
    """Fader, Hardie, Lee 2005, table 2: the 2,357 customers over 39 weeks."""
    fitted = ParetoNBD.fit(*weekly_histories(cdnow_sample(), "1997-09-30"))
    assert (fitted.r, fitted.s) == pytest.approx((0.553, 0.606), abs=6e-4)
    assert (fitted.alpha, fitted.beta) == pytest.approx((10.578, 11.669), abs=2e-3)
    assert fitted.log_likelihood == pytest.approx(-9594.9762, abs=1e-3)


def test_fit_on_apparel_is_the_published_one():
    """CLVTools' README: 250 customers, 40 weeks, log likelihood -2879.4699."""
    purchases = pd.read_parquet(dataset("clvtools") / "apparel_trans_250_customers_2353_rows.parquet")
    fitted = ParetoNBD.fit(*weekly_histories(purchases.rename(columns={"id": "customer_id"}), "2005-10-10"))
    assert (fitted.r, fitted.alpha, fitted.s) == pytest.approx((0.7866, 5.3349, 0.3570), abs=2e-4)
    assert fitted.beta == pytest.approx(11.6152, abs=3e-3)
    assert fitted.log_likelihood == pytest.approx(-2879.4699, abs=1e-4)


def test_predictions_for_the_btyd_vignettes_customer():
    """x 26, t_x 30.86, T 31: alive with 0.998, 25.46 purchases in the next 52 weeks."""
    assert BTYD.expected_purchases(26, 30.86, 31, 52) == pytest.approx(25.46, abs=5e-3)
    assert BTYD.p_alive(26, 30.86, 31) == pytest.approx(0.9979, abs=5e-5)


def test_p_alive_is_the_published_formula():
    """Note 009, with the hypergeometric function: alpha above and below beta, and far apart."""
    x, t_x, T = np.array([0.0, 1, 5, 20]), np.array([0.0, 5, 20, 30]), np.array([39.0, 39, 39, 39])
    for alpha, beta in ((10.58, 11.66), (12.0, 3.0), (30.0, 0.002), (0.002, 30.0)):
        r, s = 0.55, 0.61
        model = ParetoNBD(r, alpha, s, beta, log_likelihood=np.nan)
        larger, order = max(alpha, beta), s + 1 if alpha >= beta else r + x
        total, distance = r + s + x, abs(alpha - beta)
        at_last, at_end = (
            hyp2f1(total, order, total + 1, distance / (larger + time)) / (larger + time) ** total for time in (t_x, T)
        )
        odds = s / total * (alpha + T) ** (r + x) * (beta + T) ** s * (at_last - at_end)
        np.testing.assert_allclose(model.p_alive(x, t_x, T), 1 / (1 + odds), rtol=1e-9)


@pytest.mark.parametrize("s", [0.2, 1.0, 3.0])
def test_expected_purchases_are_the_published_formula(s):
    """(r + x)(beta + T) / ((alpha + T)(s - 1)) (1 - ((beta + T) / (beta + T + t))^(s - 1)) p_alive, or its limit."""
    model = ParetoNBD(r=0.6, alpha=12.0, s=s, beta=3.0, log_likelihood=np.nan)
    x, t_x, T, t = 4.0, 20.0, 39.0, 30.0
    ratio = (3.0 + T) / (3.0 + T + t)
    span = -np.log(ratio) if s == 1 else (1 - ratio ** (s - 1)) / (s - 1)
    expected = model.p_alive(x, t_x, T) * (0.6 + x) * (3.0 + T) / (12.0 + T) * span
    assert model.expected_purchases(x, t_x, T, t) == pytest.approx(float(expected), rel=1e-12)


@pytest.mark.parametrize("gap", [0.0, 5.0])
def test_probability_of_no_purchase_is_the_mean_over_both_rates(gap):
    """Means over lambda and mu given activity at T, with nothing integrated out beforehand."""
    model = ParetoNBD(r=1.6, alpha=12.0, s=1.9, beta=30.0, log_likelihood=np.nan)
    x, t_x, T, t = 3.0, 20.0, 39.0, 26.0
    rate, rate_weight = gamma_nodes(1.6 + x, 12.0 + T)
    leaving, leaving_weight = gamma_nodes(1.9, 30.0 + T)
    rate, leaving = rate[:, None], leaving[None, :]
    purchase = np.exp(-leaving * gap) * rate / (rate + leaving) * -np.expm1(-(rate + leaving) * t)
    mean = rate_weight @ purchase @ leaving_weight
    expected = 1 - model.p_alive(x, t_x, T) * mean
    assert model.probability_of_no_purchase(x, t_x, T, t, gap) == pytest.approx(float(expected), abs=1e-9)


def gamma_nodes(shape: float, rate: float) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights for means over Gamma(shape, rate): the trapezoidal rule in the logarithm."""
    log_value = np.linspace(-40 / shape, np.log(shape + 60), 2_000)
    density = np.exp(shape * log_value - np.exp(log_value))
    return np.exp(log_value) / rate, density / density.sum()
