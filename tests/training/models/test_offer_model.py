"""The offer model: calibrated apart for repeats and new items, and the same after it was stored."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from training.models import offer_model
from training.models.offer_model import OfferModel
from workspace.settings import CrossSell

NAMES = ("item_n_purchases", *offer_model.PLAIN)


def pairs(seed: int, shift: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Rows of which a third are owned, bought the likelier the more popular; `shift` moves the log-odds of new ones."""
    random = np.random.default_rng(seed)
    owned, popular = random.random(20_000) < 1 / 3, random.random(20_000)
    rows = np.column_stack(
        [np.where(owned, 1.0, np.nan), popular, random.random(20_000), random.integers(1, 9, 20_000)]
    )
    odds = np.where(owned, 1.0, -2.0 + shift) + 2 * np.log(popular)
    return rows.astype(np.float32), (random.random(20_000) < 1 / (1 + np.exp(-odds))).astype(float)


@pytest.fixture(scope="module")
def model() -> OfferModel:
    rows, bought = pairs(1)
    return offer_model.fit(rows, bought, NAMES, NAMES, CrossSell(horizon=90), 7)


def test_each_kind_is_calibrated_on_the_later_cutoff(model: OfferModel) -> None:
    """Where new items sell twice as well as they did, their probabilities follow; those of repeats stay."""
    rows, bought = pairs(2, shift=0.8)
    calibrated = model.calibrated(rows, bought)
    later, happened = pairs(3, shift=0.8)
    new = ~model.owned(later)
    said = calibrated.probability(later)
    for kind in (new, ~new):
        assert said[kind].mean() == pytest.approx(happened[kind].mean(), rel=0.06)
    assert model.probability(later)[new].mean() < 0.7 * happened[new].mean()
    np.testing.assert_allclose(said[~new], model.probability(later)[~new], atol=0.03)


def test_new_categories_lean_on_a_plain_score(model: OfferModel) -> None:
    """The booster's log-odds and the plain ones count half each; an item level has the booster alone."""
    assert model.plain is not None
    rows, bought = pairs(4)
    new = ~model.owned(rows)
    odds = np.log(model.probability(rows) / (1 - model.probability(rows)))
    alone = model.booster.predict(rows, raw_score=True)
    intercept, *weights = model.plain
    plain = np.log(rows[:, 1:] + np.array([1e-3, 1e-3, 1])) @ weights + intercept
    np.testing.assert_allclose(odds, np.where(new, (alone + plain) / 2, alone), rtol=1e-6, atol=1e-9)
    assert offer_model.fit(rows, bought, NAMES, NAMES, CrossSell(horizon=90, level="item"), 7).plain is None


def test_a_stored_model_answers_the_same(model: OfferModel, tmp_path: Path) -> None:
    """Lines, plain score and rates come back from the folder."""
    rows, bought = pairs(5)
    calibrated = model.calibrated(rows, bought)
    calibrated.save(tmp_path)
    again = OfferModel.load(tmp_path)
    np.testing.assert_array_equal(again.probability(rows), calibrated.probability(rows))
    assert (again.newcomer_rate, again.launch_rate) == (calibrated.newcomer_rate, calibrated.launch_rate)


def test_rates_are_probabilities_at_most(model: OfferModel) -> None:
    """A rate times a share may exceed 1, a probability not."""
    sure = OfferModel(NAMES, NAMES, 90, "item", model.booster, newcomer_rate=3.0, launch_rate=2.0)
    assert sure.newcomer_probability(np.array([0.1, 0.5])).tolist() == pytest.approx([0.3, 1.0])
    assert sure.launch_probability(np.array([0.1, 0.9])).tolist() == pytest.approx([0.2, 1.0])
