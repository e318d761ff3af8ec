"""Learning what customers will buy next: a booster over (customer, item) rows of several cutoffs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from features import candidates, retrieval
from perennial import storage
from perennial.settings import Workspace
from perennial.storage import CheckFailed
from perennial.windows import closed_cutoffs
from training import datasets, labels
from training.models.offer_model import OfferModel, fit

if TYPE_CHECKING:
    from feast import FeatureStore

Floats = NDArray[np.floating]

# Windows that do not overlap; the latest judges a model taught by the others.
_CUTOFFS = 3
_MOST_ROWS = 600_000
_OWNED = "item_n_purchases"

MIN_BOUGHT = 100
"""(customer, item) pairs bought in the closed windows; with fewer a ranking learns the accidents of the sample."""
MIN_ITEMS = 2


class NoCrossSell(CheckFailed):
    """Cross-selling cannot be learnt here, with the reason; the other two models can."""


@dataclass(frozen=True)
class _Pairs:
    """(customer, item) rows of one cutoff, sorted by customer and item, with what was then bought."""

    keys: pd.DataFrame
    rows: NDArray[np.float32]
    bought: Floats


@dataclass(frozen=True)
class Backtest:
    """Rankings made as at the latest closed cutoff, against what was then bought: (customer, item) rows."""

    keys: pd.DataFrame
    bought: Floats
    predicted: Floats
    naive: Floats
    owned: NDArray[np.bool_]


def cutoffs(workspace: Workspace, as_of: date) -> list[date]:
    """The dates to learn offers from, oldest first; empty without items or where no labelled window fits."""
    days = labels.purchase_days(workspace, as_of)
    if days is None or (workspace.cross_sell.level == "category" and workspace.tables.products is None):
        return []
    horizon = workspace.cross_sell.horizon
    return closed_cutoffs(
        as_of, days[0], outcome_days=horizon, spacing=horizon, most=_CUTOFFS, min_history=workspace.training.min_history
    )


def train(store: FeatureStore, workspace: Workspace, as_of: date) -> OfferModel:
    """The model for `as_of`.

    Raises:
        NoCrossSell: no products, fewer than two items, no closed window, or nothing bought in one.
    """
    if workspace.cross_sell.level == "category" and workspace.tables.products is None:
        raise NoCrossSell("cross-sell by category needs `tables.products`; add it, or set cross_sell.level to item")
    closed = cutoffs(workspace, as_of)
    if not closed:
        raise NoCrossSell(
            f"no {workspace.cross_sell.horizon}-day window has closed with {workspace.training.min_history} days of"
            f" history before it at {as_of}; nothing to learn offers from"
        )
    pairs = [_pairs(store, workspace, cutoff, as_of) for cutoff in closed]
    bought = np.concatenate([p.bought for p in pairs])
    if bought.sum() < MIN_BOUGHT or len({item for p in pairs for item in p.keys["item"].unique()}) < MIN_ITEMS:
        raise NoCrossSell(f"fewer than two items, or fewer than {MIN_BOUGHT} purchases of them, in the closed windows")
    return _fit(workspace, pairs)


def judged_at(
    store: FeatureStore, workspace: Workspace, judge: date, learnt_from: Sequence[date], known_by: date
) -> Backtest:
    """Offers made at `judge`, learnt from dates that had closed by then, against what is known since to be bought.

    Raises:
        NoCrossSell: too little was bought in the windows to learn from.
    """
    return learner(store, workspace, judge, learnt_from, known_by)(workspace)


def learner(
    store: FeatureStore, workspace: Workspace, judge: date, learnt_from: Sequence[date], known_by: date
) -> Callable[[Workspace], Backtest]:
    """`judged_at` for settings that differ in nothing but how the booster learns; the rows are loaded once."""
    pairs = [_pairs(store, workspace, cutoff, judge) for cutoff in learnt_from]
    if sum(p.bought.sum() for p in pairs) < MIN_BOUGHT:
        raise NoCrossSell(f"fewer than {MIN_BOUGHT} purchases of items in the windows closed by {judge}")
    asked = _pairs(store, workspace, judge, known_by)
    return lambda settings: _judge(_fit(settings, pairs), asked, settings)


def answered_at(store: FeatureStore, workspace: Workspace, model: OfferModel, judge: date, known_by: date) -> Backtest:
    """A model's offers of `judge` against what is known since to be bought."""
    return _judge(model, _pairs(store, workspace, judge, known_by), workspace)


def _fit(workspace: Workspace, pairs: list[_Pairs]) -> OfferModel:
    names, sell = candidates.names(workspace), workspace.cross_sell
    used = datasets.chosen(workspace, names, workspace.cross_sell.features)
    rows, bought = np.concatenate([p.rows for p in pairs]), np.concatenate([p.bought for p in pairs])
    return fit(rows, bought, names, used, sell, workspace.training.seed)


def _pairs(store: FeatureStore, workspace: Workspace, cutoff: date, known_by: date) -> _Pairs:
    customers = retrieval.customer_rows(store, workspace, [cutoff])
    customers = customers[customers["days_since_last_purchase"] <= workspace.churn.active_window]
    keys = candidates.candidates(workspace, cutoff, _sampled(workspace, cutoff, customers["customer_id"]))
    rows = candidates.design(store, workspace, keys, customers)
    happened = labels.items_bought(workspace, [cutoff], known_by).assign(bought=1.0)
    merged = keys.merge(happened.drop(columns="as_of"), on=["customer_id", "item"], how="left")
    return _Pairs(keys, rows, merged["bought"].fillna(0.0).to_numpy())


def _sampled(workspace: Workspace, cutoff: date, customer_ids: pd.Series) -> pd.Series:
    """So many customers that their pairs stay within bounds; the same ones every time, chosen by a hash of the id."""
    items = len(pd.read_parquet(storage.snapshot_part(workspace.home_path, "popularity", cutoff), columns=["item"]))
    most = max(1, _MOST_ROWS // min(max(items, 1), candidates.MOST_ITEMS))
    if len(customer_ids) <= most:
        return customer_ids
    hashed = customer_ids.map(lambda customer_id: hashlib.sha256(customer_id.encode()).hexdigest())
    return customer_ids[hashed.rank() <= most]


def _judge(model: OfferModel, pairs: _Pairs, workspace: Workspace) -> Backtest:
    """Beside the naive rule: what the customer bought most often in a year, ties by recency, then what is popular."""
    names = list(candidates.names(workspace))
    column = {name: np.nan_to_num(pairs.rows[:, names.index(name)]) for name in (
        "item_n_purchases_365d", "item_days_since_last", "item_buyers_365d", _OWNED)}  # fmt: skip
    owned = column[_OWNED] > 0
    recency = np.where(owned, 1 / (1 + column["item_days_since_last"]), 0.0)
    naive = column["item_n_purchases_365d"] + 0.5 * recency + 1e-3 * column["item_buyers_365d"]
    return Backtest(pairs.keys, pairs.bought, model.probability(pairs.rows), naive, owned)
