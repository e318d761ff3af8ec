"""MBG/NBD against a published fit and its own formula."""

from __future__ import annotations

import pytest
from datasets import cdnow_sample, weekly_histories

from training.models.mbg_nbd import MBGNBD


def test_fit_on_cdnow_is_the_published_one():
    """The 2,357 customers over 39 weeks, as fitted by `lifetimes` and BTYDplus."""
    fitted = MBGNBD.fit(*weekly_histories(cdnow_sample(), "1997-09-30"))
    assert (fitted.r, fitted.alpha, fitted.a, fitted.b) == pytest.approx((0.525, 6.183, 0.891, 1.614), abs=6e-4)
    assert fitted.log_likelihood == pytest.approx(-9582.1357, abs=1e-3)


def test_customers_may_have_left_after_the_first_purchase():
    """With frequency 0, too, p_alive falls with time: 1 / (1 + a / b ((alpha + T) / alpha)^r)."""
    model = MBGNBD(r=0.525, alpha=6.183, a=0.891, b=1.614, log_likelihood=0.0)
    assert model.p_alive(0, 0, 0) == pytest.approx(1.614 / (0.891 + 1.614), rel=1e-12)
    assert model.p_alive(0, 0, 39) == pytest.approx(1 / (1 + 0.891 / 1.614 * (45.183 / 6.183) ** 0.525), rel=1e-12)
