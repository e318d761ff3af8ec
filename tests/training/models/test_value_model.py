"""Curve and spread of the value model: what a score is worth, and between which bounds outcomes lie."""

from __future__ import annotations

import numpy as np
import pytest

from training.models.value_model import Curve, Spread


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


def test_a_curve_finds_the_mean_at_every_score(rng: np.random.Generator) -> None:
    """Scores that mean their square, drowned in noise: the curve says the square within a few per cent."""
    score = rng.uniform(1, 10, 40_000)
    curve = Curve.of(score, rng.gamma(0.5, 2 * score**2))
    at = np.linspace(1.5, 9.5, 17)
    np.testing.assert_allclose(curve(at), at**2, rtol=0.12)


def test_a_curve_rises_and_goes_on_in_proportion(rng: np.random.Generator) -> None:
    """More score is never less spend, whatever the noise; beyond the last knot twice the score is twice the spend."""
    score = rng.uniform(1, 10, 2_000)
    curve = Curve.of(score, rng.exponential(1.0, 2_000))
    said = curve(np.linspace(0, 40, 1_000))
    assert (np.diff(said) >= 0).all()
    assert curve(np.array([80.0])) == pytest.approx(2 * curve(np.array([40.0])))


def test_few_rows_make_one_knot(rng: np.random.Generator) -> None:
    """With 30 customers there is one mean, and a line through nothing and it."""
    curve = Curve.of(np.full(30, 2.0), np.full(30, 6.0))
    np.testing.assert_allclose(curve(np.array([1.0, 2.0, 4.0])), [3.0, 6.0, 12.0])


@pytest.mark.parametrize(("interval", "nothing"), [(0.5, 0.0), (0.5, 0.05), (0.8, 0.0), (0.8, 0.3), (0.95, 0.3)])
def test_bounds_hold_the_stated_share_at_every_size(interval: float, nothing: float, rng: np.random.Generator) -> None:
    """In each tenth of the predictions, of outcomes that no one has seen, be they never, seldom or often nothing."""

    def world(n: int) -> tuple[np.ndarray, np.ndarray]:
        predicted = rng.gamma(1.0, 100.0, n) + 1
        return predicted, np.where(rng.random(n) < nothing, 0.0, predicted * rng.gamma(2.0, 0.5, n))

    spread = Spread.of(*world(60_000), interval)
    predicted, actual = world(60_000)
    low, high = spread.bounds(predicted)
    inside = (low <= actual) & (actual <= high)
    tenths = np.array_split(np.argsort(predicted), 10)
    np.testing.assert_allclose([inside[rows].mean() for rows in tenths[1:]], interval, atol=0.03)


def test_where_most_buy_nothing_the_bounds_hold_them(rng: np.random.Generator) -> None:
    """Nine in ten buy nothing: no interval around that can hold fewer than they are, and it reaches to the value."""
    spread = Spread.of(np.full(1_000, 3.0), np.where(np.arange(1_000) % 10 == 0, 30.0, 0.0), 0.8)
    low, high = spread.bounds(np.array([3.0]))
    assert (low[0], high[0]) == (0.0, 3.0)
