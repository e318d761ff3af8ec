"""Purchases and spend together: what a customer's own history alone says about the days to come."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from training.models.bg_nbd import BGNBD, NotIdentified
from training.models.gamma_gamma import GammaGamma

Floats = NDArray[np.floating]


class History(NamedTuple):
    """One row per customer, in days and money; nan for who never bought, `monetary_value` nan for one-timers."""

    frequency: Floats
    recency: Floats
    T: Floats
    monetary_value: Floats


class Outlook(NamedTuple):
    """What the history alone predicts, one row per customer; nan for who never bought."""

    p_alive: Floats
    expected_purchases: Floats
    no_purchase: Floats
    expected_spend: Floats

    @property
    def value(self) -> Floats:
        return self.expected_purchases * self.expected_spend


@dataclass(frozen=True)
class BuyTillYouDie:
    """BG/NBD for how often, Gamma-Gamma for how much; `mean_spend` where too few came back to fit the latter."""

    purchases: BGNBD
    spend: GammaGamma | None
    mean_spend: float

    @classmethod
    def fit(cls, history: History, spend_last: Floats) -> Self:
        """Fitted on customers with a purchase.

        Drop-out that the data do not determine is no obstacle to predicting: the likelihood is then flat where the
        predictions agree.

        Raises:
            NotIdentified: too few customers came back to say anything about how they differ.
        """
        bought = ~np.isnan(history.frequency)
        x, t_x, T = (column[bought] for column in history[:3])
        purchases = BGNBD.fit(x, t_x, T, refuse_unidentified=False)
        repeat = bought & (history.frequency > 0) & (history.monetary_value > 0)
        mean_spend = float(np.nanmean(spend_last[bought])) if bought.any() else 0.0
        try:
            spend = GammaGamma.fit(history.frequency[repeat], history.monetary_value[repeat])
        except NotIdentified:
            spend = None
        return cls(purchases, spend, mean_spend)

    def outlook(self, history: History, horizon: float | Floats, gap: float = 0.0) -> Outlook:
        """Over `[as_of + gap, as_of + gap + horizon)`, in days; one horizon for all, or one per row."""
        bought = ~np.isnan(history.frequency)
        days = np.broadcast_to(np.asarray(horizon, dtype=float), bought.shape)[bought]
        x, t_x, T = (column[bought] for column in history[:3])
        columns = np.full((4, len(bought)), np.nan)
        columns[0, bought] = self.purchases.p_alive(x, t_x, T)
        columns[1, bought] = self.purchases.expected_purchases(x, t_x, T, days, gap)
        columns[2, bought] = self.purchases.probability_of_no_purchase(x, t_x, T, days, gap)
        columns[3, bought] = self._expected_spend(x, history.monetary_value[bought])
        return Outlook(*columns)

    def _expected_spend(self, frequency: Floats, monetary_value: Floats) -> Floats:
        """Per purchase; a mean of returns alone says nothing about the size of the next purchase."""
        if self.spend is None:
            return np.where(monetary_value > 0, monetary_value, self.mean_spend)
        usable = monetary_value > 0
        return self.spend.expected_spend(np.where(usable, frequency, 0.0), np.where(usable, monetary_value, np.nan))

    def draw_value(self, history: History, horizon: float, rng: np.random.Generator) -> Floats:
        """One possible spend over the horizon for each customer: how widely outcomes scatter about `value`."""
        outlook = self.outlook(history, horizon)
        buys = rng.random(len(outlook.no_purchase)) > outlook.no_purchase
        more = outlook.expected_purchases / np.maximum(1 - outlook.no_purchase, 1e-9) - 1
        count = np.where(buys, 1 + rng.poisson(np.clip(np.nan_to_num(more), 0, 1e6)), 0)
        if self.spend is None:
            return count * outlook.expected_spend
        p, q, v = self.spend.p, self.spend.q, self.spend.v
        x = np.where(history.monetary_value > 0, history.frequency, 0.0)
        rate = rng.gamma(q + p * x) / (v + x * np.nan_to_num(history.monetary_value).clip(0))
        return rng.gamma(np.maximum(p * count, 1e-12)) / rate * (count > 0)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> Self:
        spend = GammaGamma(**stored["spend"]) if stored["spend"] else None
        return cls(BGNBD(**stored["purchases"]), spend, stored["mean_spend"])
