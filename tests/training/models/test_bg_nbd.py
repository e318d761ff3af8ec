"""BG/NBD against published fits and the paper's closed forms."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from datasets import cdnow_master, cdnow_sample, dataset, weekly_histories
from scipy.special import hyp2f1

from training.models.bg_nbd import BGNBD
from training.models.histories import NotIdentified

PAPER = BGNBD(r=0.243, alpha=4.414, a=0.793, b=2.426, log_likelihood=-9582.4)


def test_fit_on_cdnow_is_the_published_one():
    """Fader, Hardie, Lee 2005, table 2: the 2,357 customers over 39 weeks."""
    fitted = BGNBD.fit(*weekly_histories(cdnow_sample(), "1997-09-30"))
    assert (fitted.r, fitted.alpha, fitted.a, fitted.b) == pytest.approx((0.243, 4.414, 0.793, 2.426), abs=6e-4)
    assert fitted.log_likelihood == pytest.approx(-9582.4292, abs=1e-3)


def test_fit_on_all_of_cdnow_is_the_published_one():
    """The 23,570 customers of the whole cohort."""
    fitted = BGNBD.fit(*weekly_histories(cdnow_master(), "1997-09-30"))
    assert (fitted.r, fitted.alpha, fitted.a, fitted.b) == pytest.approx((0.252, 4.789, 0.723, 2.161), abs=6e-4)
    assert fitted.log_likelihood == pytest.approx(-95368.4439, abs=1e-3)


def test_fit_leaves_the_peak_where_nobody_leaves():
    """CLVTools' apparel set of 250 customers has a second, lower peak at a = 0, b infinite (-2935.6)."""
    purchases = pd.read_parquet(dataset("clvtools") / "apparel_trans_250_customers_2353_rows.parquet")
    fitted = BGNBD.fit(*weekly_histories(purchases.rename(columns={"id": "customer_id"}), "2005-10-10"))
    assert fitted.log_likelihood == pytest.approx(-2883.1339, abs=1e-3)
    assert fitted.a == pytest.approx(0.3755, abs=1e-3)


def test_expected_purchases_of_the_papers_customer():
    """x 2, t_x 30.43, T 38.86, 39 weeks ahead: 1.226 in the authors' spreadsheet (brucehardie.com/notes/004)."""
    assert PAPER.expected_purchases(2, 30.43, 38.86, 39) == pytest.approx(1.226, abs=5e-4)


@pytest.mark.parametrize("a", [0.05, 0.793, 1.7, 6.0])
def test_expected_purchases_are_equation_10(a):
    """The closed form with the hypergeometric function, where that can be computed."""
    model = BGNBD(r=0.243, alpha=4.414, a=a, b=2.426, log_likelihood=np.nan)
    x, t_x, T = np.array([0.0, 1, 2, 7, 40]), np.array([0.0, 3, 30, 38, 30]), np.array([1.0, 38, 39, 39, 39])
    for t in (0.5, 39.0, 500.0):
        z = t / (model.alpha + T + t)
        series = hyp2f1(model.r + x, model.b + x, a + model.b + x - 1, z)
        active = (a + model.b + x - 1) / (a - 1) * (1 - (1 - z) ** (model.r + x) * series)
        np.testing.assert_allclose(
            model.expected_purchases(x, t_x, T, t), active * model.p_alive(x, t_x, T), rtol=1e-7, atol=1e-12
        )


@pytest.mark.parametrize("gap", [0.0, 4.0, 100.0])
def test_probability_of_no_purchase_is_the_closed_form(gap):
    """With lambda integrated out, the mean over p ~ Beta is again a hypergeometric function."""
    x, t_x, T = np.array([0.0, 1, 2, 7, 40]), np.array([0.0, 3, 30, 38, 30]), np.array([1.0, 38, 39, 39, 39])
    shape, rate, t = PAPER.r + x, PAPER.alpha + T, 39.0
    active_then = hyp2f1(shape, PAPER.a, PAPER.a + PAPER.b + x, -gap / rate)
    silent = (1 + t / rate) ** -shape * hyp2f1(shape, PAPER.a, PAPER.a + PAPER.b + x, -gap / (rate + t))
    expected = 1 - PAPER.p_alive(x, t_x, T) * (active_then - silent)
    np.testing.assert_allclose(PAPER.probability_of_no_purchase(x, t_x, T, t, gap), expected, rtol=1e-9)


def test_nobody_has_left_before_a_repeat_purchase():
    """p_alive is 1 for frequency 0, whatever T."""
    np.testing.assert_array_equal(PAPER.p_alive([0, 0], [0, 0], [1, 1_000]), [1, 1])


def test_p_alive_is_the_published_formula():
    """brucehardie.com/notes/021: 1 / (1 + a / (b + x - 1) ((alpha + T) / (alpha + t_x))^(r + x))."""
    assert PAPER.p_alive(2, 10, 39) == pytest.approx(1 / (1 + 0.793 / 3.426 * (43.414 / 14.414) ** 2.243), rel=1e-12)


def test_fit_without_drop_out_is_given_only_on_request():
    """On CLVTools' 600 slow buyers the predictions hardly depend on the parameters that the data leave open."""
    purchases = pd.read_parquet(dataset("clvtools") / "apparel_trans.parquet").rename(columns={"id": "customer_id"})
    rows = weekly_histories(purchases, "2005-10-09")
    with pytest.raises(NotIdentified):
        BGNBD.fit(*rows)
    fitted, doubt = BGNBD.fit_regardless(*rows)
    assert doubt.startswith("the data do not determine a, b")
    another = BGNBD(fitted.r, fitted.alpha, a=50.0, b=50.0 * fitted.b / fitted.a, log_likelihood=np.nan)
    assert fitted.a > 500
    np.testing.assert_allclose(fitted.expected_purchases(*rows, 26), another.expected_purchases(*rows, 26), rtol=0.05)
