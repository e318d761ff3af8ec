"""What leaving means: who can still leave, for how long a silence is asked about, and why someone is not scored."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from training.models.customer_model import Inputs
from workspace.settings import Churn

Floats = NDArray[np.floating]
Vectors = NDArray[np.float32]

SHORTEST = 14
"""Days that a personal window has at least: two purchases on one weekend make no rhythm of a day."""

NO_PURCHASE = "no purchase yet"


@dataclass(frozen=True)
class Leaving:
    """The `churn` settings as the model needs them; days.

    `patience` is null where one window of `horizon` days holds for all; else a customer is asked about for `patience`
    times their own mean gap, at least `SHORTEST` and at most `horizon` days.
    """

    kind: str
    horizon: int
    gap: int
    active_window: int
    patience: float | None
    min_purchases: int

    @classmethod
    def of(cls, churn: Churn) -> Self:
        personal = churn.kind == "inactivity" and churn.inactivity == "personal"
        least = max(churn.min_purchases, 2) if personal else churn.min_purchases
        patience = churn.patience if personal else None
        return cls(churn.kind, churn.horizon, churn.gap, churn.active_window, patience, least)

    def within(self, horizon: int) -> Self:
        """The same question about another number of days."""
        return replace(self, horizon=horizon)

    @property
    def is_event(self) -> bool:
        return self.kind == "event"

    def days(self, inputs: Inputs, vectors: Vectors) -> Floats:
        """Days of the outcome window, per row."""
        if self.patience is None:
            return np.full(len(vectors), float(self.horizon))
        return np.minimum(self._limit(inputs, vectors), self.horizon)

    def can_leave(self, inputs: Inputs, vectors: Vectors) -> NDArray[np.bool_]:
        """Who has not left already, and has bought often enough to be asked about."""
        return np.array([refusal is None for refusal in self.refusals(inputs, vectors)], dtype=bool)

    def refusals(self, inputs: Inputs, vectors: Vectors) -> NDArray[np.object_]:
        """Per row why there is no probability of leaving; null where there is one."""
        bought = np.nan_to_num(inputs.column(vectors, "n_purchases"))
        refusals = np.full(len(vectors), None, dtype=object)
        gone, sentence = self._gone(inputs, vectors)
        refusals[gone] = sentence
        if self.is_event and self.min_purchases <= 1:
            return refusals
        few = bought < self.min_purchases
        refusals[few] = f"too little history: fewer than {self.min_purchases} purchases"
        refusals[bought == 0] = NO_PURCHASE
        return refusals

    def _gone(self, inputs: Inputs, vectors: Vectors) -> tuple[NDArray[np.bool_], str]:
        if self.is_event:
            cancelled, ended, runs = (
                ~np.isnan(inputs.column(vectors, name))
                for name in ("days_since_cancellation", "days_since_contract_end", "days_until_contract_end")
            )
            return (cancelled & ~runs) | ended, "already churned: cancelled"
        silence = np.nan_to_num(inputs.column(vectors, "days_since_last_purchase"), nan=np.inf)
        if self.patience is None:
            return silence > self.active_window, f"already churned: no purchase in the last {self.active_window} days"
        limit = np.minimum(np.nan_to_num(self._limit(inputs, vectors), nan=np.inf), self.active_window)
        return silence > limit, f"already churned: silent for over {self.patience:g} times the usual gap"

    def _limit(self, inputs: Inputs, vectors: Vectors) -> Floats:
        assert self.patience is not None
        return np.maximum(self.patience * inputs.column(vectors, "gap_mean"), SHORTEST)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)
