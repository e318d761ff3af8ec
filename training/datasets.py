"""Cutoffs to learn from: who was there, what was known of them, and what they did in windows that have closed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from features import retrieval, snapshot
from perennial.settings import Workspace
from perennial.storage import CheckFailed
from perennial.windows import closed_cutoffs
from training import labels
from training.models.bg_nbd import NotIdentified
from training.models.buy_till_you_die import BuyTillYouDie
from training.models.customer_model import Inputs
from training.models.leaving import Leaving

if TYPE_CHECKING:
    from feast import FeatureStore

Floats = NDArray[np.floating]


@dataclass(frozen=True)
class Cutoff:
    """The customers known at one as_of, a row each in every array, sorted by customer_id.

    vectors: packed features; history_model: fitted on this cutoff's own histories, null where too few came back;
    churned: 1 left, 0 stayed, nan for who cannot leave or where the window is open; value: spend in the window,
    n_purchases: days with a purchase in it, both nan where it is open.
    """

    as_of: date
    customer_ids: NDArray[np.object_]
    vectors: NDArray[np.float32]
    history_model: BuyTillYouDie | None
    churned: Floats
    value: Floats
    n_purchases: Floats


@dataclass(frozen=True)
class Dataset:
    """Closed cutoffs, oldest first, and the as_of that the models are trained for.

    `shorter` are cutoffs at which only a window of `shorter_horizon` days has closed, where the churn horizon itself
    has closed nowhere; empty otherwise.
    """

    inputs: Inputs
    closed: tuple[Cutoff, ...]
    current: Cutoff
    shorter: tuple[Cutoff, ...] = ()
    shorter_horizon: int = 0

    def closed_by(self, as_of: date, outcome_days: int) -> tuple[Cutoff, ...]:
        """The cutoffs whose outcomes a training at `as_of` could have seen."""
        return tuple(c for c in self.closed if (as_of - c.as_of).days >= outcome_days)


def outcome_days(workspace: Workspace) -> int:
    """Days until both the churn and the value of a cutoff are known."""
    return max(workspace.churn.gap + workspace.churn.horizon, workspace.lifetime_value.horizon)


def cutoffs(workspace: Workspace, as_of: date) -> list[date]:
    """The dates to learn churn and value from, oldest first; empty where no labelled window fits into the history.

    Raises:
        CheckFailed: no purchase before `as_of`, none within the active window, or a horizon longer than the history.
    """
    days = labels.purchase_days(workspace, as_of)
    if days is None:
        raise CheckFailed(f"no purchase is known before {as_of}; choose a later --as-of, or ingest earlier purchases")
    first, last = days
    if (as_of - last).days > workspace.churn.active_window:
        raise CheckFailed(
            f"the last purchase known before {as_of} is of {last}: nobody bought in the last"
            f" {workspace.churn.active_window} days (churn.active_window); choose an --as-of near {last}"
        )
    if outcome_days(workspace) > (as_of - first).days:
        raise CheckFailed(
            f"a horizon of {outcome_days(workspace)} days is longer than the history of {(as_of - first).days} days"
            f" between {first} and {as_of}; shorten churn.horizon and lifetime_value.horizon, or choose a later --as-of"
        )
    training = workspace.training
    return closed_cutoffs(
        as_of, first, outcome_days=outcome_days(workspace), spacing=training.spacing, most=training.cutoffs,
        min_history=training.min_history,
    )  # fmt: skip


def shorter_horizon(workspace: Workspace) -> int:
    """Days of the window that churn learns from where its own has closed nowhere."""
    return max(workspace.churn.horizon // 3, 1)


def shorter_cutoffs(workspace: Workspace, as_of: date) -> list[date]:
    """The dates to learn a shorter churn window from, oldest first; empty where the whole one has closed somewhere."""
    days = labels.purchase_days(workspace, as_of)
    if workspace.churn.kind == "event" or days is None or cutoffs(workspace, as_of):
        return []
    training = workspace.training
    return closed_cutoffs(
        as_of, days[0], outcome_days=workspace.churn.gap + shorter_horizon(workspace), spacing=training.spacing,
        most=training.cutoffs, min_history=training.min_history,
    )  # fmt: skip


def load(store: FeatureStore, workspace: Workspace, as_of: date) -> Dataset:
    """Everything that churn and lifetime value learn from at `as_of`; its snapshots must be there."""
    closed, shorter = cutoffs(workspace, as_of), shorter_cutoffs(workspace, as_of)
    rows = retrieval.customer_rows(store, workspace, [*closed, *shorter, as_of])
    packed = tuple(feature.name for feature in snapshot.customer_features(workspace))
    used = tuple(name for name in packed if name not in snapshot.NOT_FOR_MODELS)
    coded = tuple(f"attribute_{name}" for name in snapshot.attribute_codes(workspace)) if workspace.attributes else ()
    inputs = Inputs(packed, used, coded)
    groups = dict(list(rows.groupby("as_of", sort=True)))
    found = _closed_cutoffs(inputs, workspace, closed, as_of, groups)
    open_now = _cutoff(inputs, workspace, as_of, groups[pd.Timestamp(as_of)], None)
    if not shorter:
        return Dataset(inputs, found, open_now)
    days = shorter_horizon(workspace)
    brief = workspace.model_copy(update={
        "churn": workspace.churn.model_copy(update={"horizon": days}),
        "lifetime_value": workspace.lifetime_value.model_copy(update={"horizon": days}),
    })  # fmt: skip
    return Dataset(inputs, found, open_now, _closed_cutoffs(inputs, brief, shorter, as_of, groups), days)


def _closed_cutoffs(
    inputs: Inputs, workspace: Workspace, closed: Sequence[date], known_by: date, groups: dict[Any, pd.DataFrame]
) -> tuple[Cutoff, ...]:
    happened = labels.outcomes(workspace, closed, known_by)
    happened["as_of"] = pd.to_datetime(happened["as_of"])
    return tuple(
        _cutoff(inputs, workspace, day, groups[pd.Timestamp(day)], happened[happened["as_of"] == pd.Timestamp(day)])
        for day in closed
    )


def _cutoff(
    inputs: Inputs, workspace: Workspace, as_of: date, rows: pd.DataFrame, happened: pd.DataFrame | None
) -> Cutoff:
    vectors = retrieval.matrix(rows, inputs.packed)
    customer_ids = rows["customer_id"].to_numpy(dtype=object)
    try:
        history_model = BuyTillYouDie.fit(inputs.history(vectors), inputs.column(vectors, "spend_last"))
    except NotIdentified:
        history_model = None
    churned = value = n_purchases = np.full(len(rows), np.nan)
    if happened is not None:
        happened = happened.set_index("customer_id").reindex(customer_ids)
        value = happened["value"].fillna(0.0).to_numpy(dtype=float)
        n_purchases = happened["n_purchases"].fillna(0.0).to_numpy(dtype=float)
        churned = _churned(inputs, workspace, vectors, happened)
    return Cutoff(as_of, customer_ids, vectors, history_model, churned, value, n_purchases)


def _churned(inputs: Inputs, workspace: Workspace, vectors: NDArray[np.float32], happened: pd.DataFrame) -> Floats:
    """A window that has closed without a row is one in which the customer did nothing."""
    leaving = Leaving.of(workspace.churn)
    if leaving.is_event:
        left = happened["cancelled"].eq(True).to_numpy()
    else:
        waited = happened["returned_after"].astype("float64").fillna(np.inf).to_numpy()
        left = ~(waited < leaving.gap + leaving.days(inputs, vectors))
    return np.where(leaving.can_leave(inputs, vectors), left.astype(float), np.nan)


def stacked(inputs: Inputs, among: Sequence[Cutoff], horizon: int, gap: int, target: str) -> tuple[Floats, Floats]:
    """Design and target of all rows with a known target, each with the outlook of its own cutoff's history model."""
    designs, targets = [], []
    for cutoff in among:
        wanted = np.asarray(getattr(cutoff, target))
        known = ~np.isnan(wanted)
        if cutoff.history_model is not None and known.any():
            vectors = cutoff.vectors[known]
            outlook = cutoff.history_model.outlook(inputs.history(vectors), horizon, gap)
            designs.append(inputs.design(vectors, outlook))
            targets.append(wanted[known])
    if not designs:
        return np.empty((0, len(inputs.booster_names))), np.empty(0)
    return np.concatenate(designs), np.concatenate(targets)
