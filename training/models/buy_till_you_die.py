"""Purchases and spend together: what a customer's own history alone says about the days to come.

Of BG/NBD, MBG/NBD, Pareto/NBD, their averages and the k-Erlang variants, MBG/NBD was the one to take for any shop:
docs/decisions/0006-purchase-models.md.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from training.models.histories import MINIMUM_REPEAT_BUYERS, NotIdentified
from training.models.mbg_nbd import MBGNBD
from training.models.spend_per_purchase import SpendPerPurchase

Floats = NDArray[np.floating]


class History(NamedTuple):
    """One row per customer, in days and money; nan for who never bought, `monetary_value` nan for one-timers."""

    frequency: Floats
    recency: Floats
    T: Floats
    monetary_value: Floats
    spend_first: Floats


class Outlook(NamedTuple):
    """What the history alone predicts, one row per customer; nan for who never bought."""

    p_alive: Floats
    expected_purchases: Floats
    no_purchase: Floats
    expected_spend: Floats

    @property
    def value(self) -> Floats:
        return self.expected_purchases * self.expected_spend

    def of(self, rows: NDArray[np.bool_]) -> Outlook:
        """The same, of these rows alone."""
        return Outlook(*(column[rows] for column in self))


@dataclass(frozen=True)
class BuyTillYouDie:
    """MBG/NBD for how often, Gamma-Gamma for how much; `mean_spend` where too few came back to fit the latter.

    `dropout_doubt` says why the data do not determine how customers leave, "" if they do: in doubt, `p_alive` means
    nothing, while purchases and value hold within horizons like the history.
    """

    purchases: MBGNBD
    spend: SpendPerPurchase | None
    mean_spend: float
    dropout_doubt: str

    @classmethod
    def fit(cls, history: History, spend_last: Floats) -> Self:
        """Fitted on customers with a purchase.

        Drop-out that the data do not determine is no obstacle to predicting: the likelihood is then flat where the
        predictions agree.

        Raises:
            NotIdentified: too few customers came back to say anything about how they differ.
        """
        bought = ~np.isnan(history.frequency)
        purchases, doubt = MBGNBD.fit_regardless(*(column[bought] for column in history[:3]))
        mean_spend = float(np.nanmean(spend_last[bought]))
        return cls(purchases, _fit_spend(history), mean_spend, doubt)

    def outlook(self, history: History, horizon: float | Floats, gap: float = 0.0) -> Outlook:
        """Over `[as_of + gap, as_of + gap + horizon)`, in days; one horizon for all, or one per row."""
        bought = ~np.isnan(history.frequency)
        days = np.broadcast_to(np.asarray(horizon, dtype=float), bought.shape)[bought]
        known = History(*(column[bought] for column in history))
        columns = np.full((4, len(bought)), np.nan)
        columns[:3, bought] = self.purchases.window(*known[:3], days, gap)
        columns[3, bought] = self._expected_spend(known)
        return Outlook(*columns)

    def _expected_spend(self, history: History) -> Floats:
        """Per purchase; a mean of returns alone says nothing about the size of the next purchase."""
        if self.spend is None:
            return np.where(history.monetary_value > 0, history.monetary_value, self.mean_spend)
        expected = self.spend.expected(history.frequency, history.monetary_value, history.spend_first)
        return np.where(np.isnan(expected), self.mean_spend, expected)

    def draw_value(self, history: History, horizon: float, rng: np.random.Generator) -> Floats:
        """One possible spend over the horizon for each customer: how widely outcomes scatter about `value`.

        nan for who never bought.
        """
        bought = ~np.isnan(history.frequency)
        known = History(*(column[bought] for column in history))
        count = self.purchases.draw_purchases(*known[:3], horizon, rng)
        drawn = np.full(len(bought), np.nan)
        if self.spend is None:
            drawn[bought] = count * self._expected_spend(known)
        else:
            drawn[bought] = self.spend.draw(*known[:1], *known[3:], count, rng)
        return drawn

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> Self:
        spend = SpendPerPurchase(**stored["spend"]) if stored["spend"] else None
        return cls(MBGNBD(**stored["purchases"]), spend, stored["mean_spend"], stored["dropout_doubt"])


def _fit_spend(history: History) -> SpendPerPurchase | None:
    """None where too few customers have told what a purchase costs them."""
    x, z, first = history.frequency, history.monetary_value, history.spend_first
    told = (x > 0) & (z > 0) & (first > 0)
    if told.sum() < MINIMUM_REPEAT_BUYERS:
        return None
    try:
        return SpendPerPurchase.fit(x[told], z[told], first[told])
    except NotIdentified:
        return None
