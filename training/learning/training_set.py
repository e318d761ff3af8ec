"""What a kind of model learns from, as a data frame: a row per example, its features and what happened next."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import TYPE_CHECKING

import pandas as pd

from features.items.candidates import names
from training.learning import cross_sell, datasets
from workspace.settings import Workspace
from workspace.storage import CheckFailed

if TYPE_CHECKING:
    from feast import FeatureStore

_HAPPENED = {"churn": ("churned",), "lifetime_value": ("value", "n_purchases")}


def training_set(store: FeatureStore, workspace: Workspace, kind: str, as_of: date) -> pd.DataFrame:
    """The examples of `as_of`, whose snapshots must be there; sorted by as_of, then customer.

    churn: who could leave, `churned` 1 or 0; lifetime_value: `value` and `n_purchases` in the window; both with the
    features of the customer. cross_sell: pairs of customer and `item`, `bought` 1 or 0. Windows are as long as the
    history leaves room for: `attrs["horizon"]` days.

    Raises:
        CheckFailed: no window has closed yet, or everybody refuses profiling.
    """
    if kind == "cross_sell":
        return _pairs(workspace, cross_sell.cutoffs(workspace, as_of), as_of)
    data = datasets.load(store, workspace, as_of)
    taught = data.taught.churn if kind == "churn" else data.taught.lifetime_value
    used = datasets.chosen(workspace, data.inputs.used, getattr(workspace, kind).features)
    rows = [_customers(cutoff, data.inputs.packed, used, _HAPPENED[kind]) for cutoff in data.closed]
    return _stacked(rows, as_of, taught.horizon)


def _customers(
    cutoff: datasets.Cutoff, packed: Sequence[str], used: Sequence[str], happened: Sequence[str]
) -> pd.DataFrame:
    features = pd.DataFrame(cutoff.vectors, columns=list(packed))[list(used)]
    features.insert(0, "customer_id", cutoff.customer_ids)
    features.insert(1, "as_of", pd.Timestamp(cutoff.as_of))
    rows = features.assign(**{name: getattr(cutoff, name) for name in happened})
    return rows[rows[happened[0]].notna()]


def _pairs(workspace: Workspace, closed: Sequence[date], as_of: date) -> pd.DataFrame:
    rows = []
    for day in closed:
        lesson = cross_sell.lesson(workspace, day, as_of)
        keys = lesson.pairs.keys
        keys.insert(1, "as_of", pd.Timestamp(day))
        features = pd.DataFrame(lesson.pairs.rows, columns=list(names(workspace)))
        rows.append(pd.concat([keys, features], axis=1).assign(bought=lesson.bought))
    return _stacked(rows, as_of, workspace.cross_sell.horizon)


def _stacked(rows: Sequence[pd.DataFrame], as_of: date, horizon: int) -> pd.DataFrame:
    if not rows:
        raise CheckFailed(f"no window has closed at {as_of} with enough history before it to learn from")
    stacked = pd.concat(rows, ignore_index=True)
    stacked.attrs["horizon"] = horizon
    return stacked
