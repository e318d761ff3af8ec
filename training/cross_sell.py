"""Learning what customers will buy next: a booster over (customer, item) rows of several cutoffs."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from features import retrieval
from features.candidates import Pairs, Shelf, names
from features.newcomers import Newcomers
from perennial.settings import Workspace
from perennial.storage import CheckFailed
from perennial.windows import closed_cutoffs
from training import labels, metrics
from training.models.offer_model import OfferModel, fit

if TYPE_CHECKING:
    from feast import FeatureStore

Floats = NDArray[np.floating]

# Windows that do not overlap; the latest calibrates a model taught by the others.
_CUTOFFS = 3
_MOST_ROWS = 1_500_000
# Newcomers' rate is drawn to everybody's, as by so many purchases expected of them.
_PRIOR_PURCHASES = 20

MIN_BOUGHT = 100
"""(customer, item) pairs bought in the closed windows; with fewer a ranking learns the accidents of the sample."""
MIN_ITEMS = 2


class NoCrossSell(CheckFailed):
    """Cross-selling cannot be learnt here, with the reason; the other two models can."""


@dataclass(frozen=True)
class Lesson:
    """The pairs of one cutoff, each item's share of the year's buyers, and 1 for each pair that was then bought.

    `n_bought` counts all purchases in the window of what sold in the year before, candidates or not; of newcomers,
    `newcomers_bought` beside the sum of `newcomer_shares`, which would be expected at a rate of 1.
    """

    pairs: Pairs
    popularity: Floats
    bought: Floats
    n_bought: int
    newcomers_bought: float
    newcomer_shares: float


@dataclass(frozen=True)
class Backtest:
    """Rankings made as at the latest closed cutoff, against what was then bought: (customer, item) rows."""

    keys: pd.DataFrame
    bought: Floats
    predicted: Floats
    naive: Floats
    owned: NDArray[np.bool_]

    def figures(self, k: int = 5) -> dict[str, float]:
        """Ranking metrics at `k` for all items, repeats and new ones, the naive rule's beside them, and calibration.

        `offers_bias` is what was predicted of the first `k` items over what was bought of them, minus 1.
        """
        found = {"auc": metrics.auc(self.bought, self.predicted), "ece": metrics.ece(self.bought, self.predicted)}
        for kind, among in (("", np.ones_like(self.owned)), ("_repeat", self.owned), ("_new", ~self.owned)):
            baskets = self._lists(among & (self.bought > 0), self.bought, None)
            for name, score in (("", self.predicted), ("naive_", self.naive)):
                ranked = self._lists(among, score, k)
                both = [(b, ranked.get(c, [])) for c, b in baskets.items()]
                if both:
                    pair = [b for b, _ in both], [r for _, r in both]
                    found[f"{name}ndcg{k}{kind}"] = metrics.ndcg_at(*pair, k)
                    found[f"{name}recall{k}{kind}"] = metrics.recall_at(*pair, k)
        return found | self._offers(k)

    def _offers(self, k: int) -> dict[str, float]:
        rows = self.keys.assign(predicted=self.predicted, bought=self.bought)
        best = rows.sort_values(["customer_id", "predicted", "item"], ascending=[True, False, True])
        best = best.groupby("customer_id").head(k)
        return {
            "offers_ece": metrics.ece(best["bought"], best["predicted"]),
            "offers_bias": metrics.bias(best["bought"], best["predicted"]),
        }

    def _lists(self, among: NDArray[np.bool_], score: Floats, most: int | None) -> dict[str, list[str]]:
        rows = self.keys[among].assign(score=score[among])
        rows = rows.sort_values(["customer_id", "score", "item"], ascending=[True, False, True])
        if most is not None:
            rows = rows.groupby("customer_id").head(most)
        return {str(customer_id): list(items) for customer_id, items in rows.groupby("customer_id")["item"]}


def cutoffs(workspace: Workspace, as_of: date) -> list[date]:
    """The dates to learn offers from, oldest first; empty without items or where no labelled window fits."""
    days = labels.purchase_days(workspace, as_of)
    if days is None or (workspace.cross_sell.level == "category" and workspace.tables.products is None):
        return []
    horizon = workspace.cross_sell.horizon
    return closed_cutoffs(
        as_of, days[0], outcome_days=horizon, spacing=horizon, most=_CUTOFFS, min_history=workspace.training.min_history
    )


def train(store: FeatureStore, workspace: Workspace, as_of: date) -> tuple[OfferModel, Backtest | None]:
    """The model for `as_of`, and its backtest where a window is left to judge it on.

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
    lessons = [lesson(store, workspace, cutoff, as_of) for cutoff in closed]
    backtest = None
    if len(lessons) > 1 and _suffice(lessons[:-1]):
        backtest = judged(learnt(workspace, lessons[:-1]), lessons[-1], workspace)
    return learnt(workspace, lessons), backtest


def judged_at(
    store: FeatureStore, workspace: Workspace, judge: date, learnt_from: Sequence[date], known_by: date
) -> Backtest:
    """Offers made at `judge`, learnt from dates that had closed by then, against what is known since to be bought.

    Raises:
        NoCrossSell: too little was bought in the windows to learn from.
    """
    model = learnt(workspace, [lesson(store, workspace, cutoff, judge) for cutoff in learnt_from])
    return judged(model, lesson(store, workspace, judge, known_by), workspace)


def learnt(workspace: Workspace, lessons: Sequence[Lesson]) -> OfferModel:
    """The model of these cutoffs, oldest first.

    On the latest a model that the others taught is calibrated, and whether new items are better ranked by the booster
    or by a plain score is seen; then it is taught again by all of them. One cutoff alone gets the plain score.

    Raises:
        NoCrossSell: fewer than two items, or too little was bought in the windows.
    """
    if not _suffice(lessons):
        raise NoCrossSell(f"fewer than two items, or fewer than {MIN_BOUGHT} purchases of them, in the closed windows")
    model = replace(_fit(workspace, lessons), newcomer_rate=_newcomer_rate(lessons))
    if len(lessons) == 1:
        return model
    latest, tried = lessons[-1], _fit(workspace, lessons[:-1])
    boosted = replace(tried, plain=None)
    if _ranks_new(boosted, latest, workspace) > _ranks_new(tried, latest, workspace):
        tried, model = boosted, replace(model, plain=None)
    tried = tried.calibrated(latest.pairs.rows, latest.bought)
    return replace(model, repeat=tried.repeat, new=tried.new)


def _ranks_new(model: OfferModel, against: Lesson, workspace: Workspace) -> float:
    return judged(model, against, workspace).figures().get("ndcg5_new", 0.0)


def _suffice(lessons: Sequence[Lesson]) -> bool:
    items = {item for each in lessons for item in each.pairs.items}
    return len(items) >= MIN_ITEMS and sum(each.n_bought for each in lessons) >= MIN_BOUGHT


def _fit(workspace: Workspace, lessons: Sequence[Lesson]) -> OfferModel:
    sell = workspace.cross_sell
    rows = np.concatenate([each.pairs.rows for each in lessons])
    bought = np.concatenate([each.bought for each in lessons])
    model = fit(rows, bought, names(workspace), sell.horizon, sell.level, workspace.training.seed)
    return model.with_plain_score(rows, bought)


def _newcomer_rate(lessons: Sequence[Lesson]) -> float:
    """Purchases of newcomers per share of their segment; as long as few are known, near that of active customers."""
    bought = sum(each.newcomers_bought for each in lessons)
    expected = sum(each.newcomer_shares for each in lessons)
    return float((bought + _PRIOR_PURCHASES * _rate_of_the_active(lessons)) / (expected + _PRIOR_PURCHASES))


def _rate_of_the_active(lessons: Sequence[Lesson]) -> float:
    shares = sum(float(each.popularity[each.pairs.item].sum()) for each in lessons)
    return sum(float(each.bought.sum()) for each in lessons) / max(shares, 1e-9)


def lesson(store: FeatureStore, workspace: Workspace, cutoff: date, known_by: date) -> Lesson:
    """What customers active at `cutoff` could be offered and then bought, known by a day when the window has closed.

    Raises:
        ValueError: the window had not closed by `known_by`.
    """
    shelf = Shelf.at(workspace, cutoff)
    customers = retrieval.customer_rows(store, workspace, [cutoff])
    happened = labels.items_bought(workspace, [cutoff], known_by)
    happened = happened[happened["item"].isin(shelf.items)]
    active = customers[customers["days_since_last_purchase"] <= workspace.churn.active_window]
    pairs = shelf.pairs(_sampled(active, shelf.pairs_each))
    newcomers = Newcomers.at(shelf, customers)
    return Lesson(
        pairs,
        shelf.popularity["item_buyers_365d"].to_numpy(),
        _bought(pairs, happened),
        int(happened["customer_id"].isin(active["customer_id"]).sum()),
        float(happened["customer_id"].isin(newcomers.customer_ids).sum()),
        float(newcomers.shares.sum(axis=1)[newcomers.segment].sum()),
    )


def _bought(pairs: Pairs, happened: pd.DataFrame) -> Floats:
    """1 for each pair that is among the purchases of the window."""
    customer = pairs.customer_ids.get_indexer(pd.Index(happened["customer_id"]))
    item = pairs.items.get_indexer(pd.Index(happened["item"]))
    n = np.int64(max(len(pairs.items), 1))
    return np.isin(pairs.customer * n + pairs.item, (customer * n + item)[customer >= 0]).astype(float)


def _sampled(customers: pd.DataFrame, pairs_each: int) -> pd.DataFrame:
    """So many customers that their pairs stay within bounds; the same ones every time, chosen by a hash of the id."""
    most = max(1, _MOST_ROWS // max(pairs_each, 1))
    if len(customers) <= most:
        return customers
    hashed = customers["customer_id"].map(lambda customer_id: hashlib.sha256(customer_id.encode()).hexdigest())
    return customers[hashed.rank() <= most]


def judged(model: OfferModel, against: Lesson, workspace: Workspace) -> Backtest:
    """Beside the naive rule: what the customer bought most often in a year, ties by recency, then what is popular."""
    rows, all_names = against.pairs.rows, names(workspace)
    column = {name: np.nan_to_num(rows[:, all_names.index(name)]) for name in (
        "item_n_purchases_365d", "item_days_since_last", "item_buyers_365d")}  # fmt: skip
    owned = against.pairs.owned
    recency = np.where(owned, 1 / (1 + column["item_days_since_last"]), 0.0)
    naive = column["item_n_purchases_365d"] + 0.5 * recency + 1e-3 * column["item_buyers_365d"]
    return Backtest(against.pairs.keys, against.bought, model.probability(rows), naive, owned)
