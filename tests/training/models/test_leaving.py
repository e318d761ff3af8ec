"""What leaving means: whom each definition asks about, for how long, and why it does not ask about the others."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from training.models.customer_model import Inputs
from training.models.leaving import SHORTEST, Leaving
from workspace.settings import Churn

NAMES = ("n_purchases", "days_since_last_purchase", "gap_mean", "days_since_cancellation", "days_since_contract_end",
         "days_until_contract_end")  # fmt: skip
INPUTS = Inputs(NAMES, NAMES)
NEVER = np.nan


def customer(
    purchases: float, silence: float, gap: float = NEVER, cancelled: float = NEVER, ended: float = NEVER,
    runs: float = NEVER,
) -> NDArray[np.float32]:  # fmt: skip
    return np.array([[purchases, silence, gap, cancelled, ended, runs]], dtype=np.float32)


def refusal(churn: Churn, vector: NDArray[np.float32]) -> str | None:
    leaving = Leaving.of(churn)
    why = leaving.refusals(INPUTS, vector)[0]
    assert leaving.can_leave(INPUTS, vector)[0] == (why is None)
    return why


PERSONAL = Churn(inactivity="personal", patience=3, horizon=90)


@pytest.mark.parametrize(
    ("churn", "vector", "reason"),
    [
        (Churn(), customer(1, 365), None),
        (Churn(), customer(1, 366), "already churned: no purchase in the last 365 days"),
        (Churn(), customer(NEVER, NEVER), "no purchase yet"),
        (Churn(min_purchases=3), customer(2, 5, 9), "too little history: fewer than 3 purchases"),
        (PERSONAL, customer(2, 60, 20), None),
        (PERSONAL, customer(2, 61, 20), "already churned: silent for over 3 times the usual gap"),
        (PERSONAL, customer(2, SHORTEST, 1), None),
        (PERSONAL, customer(1, 5), "too little history: fewer than 2 purchases"),
        (PERSONAL, customer(9, 366, 200), "already churned: silent for over 3 times the usual gap"),
        (Churn(kind="event"), customer(9, 400, 20), None),
        (Churn(kind="event"), customer(9, 4, 20, cancelled=3), "already churned: cancelled"),
        (Churn(kind="event"), customer(9, 4, 20, ended=3), "already churned: cancelled"),
        # Under a contract that runs, be it the old one under notice or the next one, nobody has left yet.
        (Churn(kind="event"), customer(9, 4, 20, cancelled=30, runs=0), None),
        (Churn(kind="event"), customer(9, 4, 20, runs=90), None),
        # Cancelled, and never bought.
        (Churn(kind="event"), customer(NEVER, NEVER, cancelled=30), "already churned: cancelled"),
    ],
)  # fmt: skip
def test_who_is_not_asked_about_and_why(churn: Churn, vector: NDArray[np.float32], reason: str | None) -> None:
    """Each with its own sentence; null for who can still leave."""
    assert refusal(churn, vector) == reason


@pytest.mark.parametrize(("gap", "days"), [(1, SHORTEST), (20, 60), (50, 90)])
def test_a_personal_window_is_patience_times_the_usual_gap(gap: float, days: float) -> None:
    """At least two weeks, at most the horizon, which all cutoffs must have seen closed."""
    assert Leaving.of(PERSONAL).days(INPUTS, customer(4, 5, gap)).tolist() == [days]


def test_a_fixed_window_is_the_same_for_all() -> None:
    """Whatever their rhythm."""
    both = np.concatenate([customer(4, 5, 1), customer(1, 5)])
    assert Leaving.of(Churn(horizon=45)).days(INPUTS, both).tolist() == [45, 45]
