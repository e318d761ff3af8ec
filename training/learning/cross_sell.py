"""Learning what customers will buy next: a booster over (customer, item) rows of several cutoffs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from features import retrieval
from features.items import launches
from features.items.candidates import Pairs, Shelf, names, of_customers
from features.items.newcomers import Newcomers
from training.learning import datasets, labels
from training.models.offer_model import RULES, OfferModel, fit, personal_frequency
from workspace import storage
from workspace.settings import Workspace
from workspace.windows import closed_cutoffs

Floats = NDArray[np.floating]

# Windows that do not overlap.
_CUTOFFS = 3
_MOST_PAIRS = 1_500_000
# Newcomers' rate is drawn to everybody's, as by so many purchases expected of them.
_PRIOR_PURCHASES = 20
_SMALL = 1e-9

MIN_BOUGHT = 100
"""(customer, item) pairs bought in the closed windows; with fewer a ranking learns the accidents of the sample."""
MIN_ITEMS = 2


class NoCrossSell(datasets.NotLearnt):
    """Cross-selling cannot be learnt here, with the reason."""


class Unmapped(NamedTuple):
    """Why nothing says which item was bought, and what to do about it."""

    why: str
    do: str

    def __str__(self) -> str:
        return f"{self.why}; {self.do}"


class Rate(NamedTuple):
    """So much was bought, where so much is expected at a rate of 1."""

    bought: float
    expected: float

    @classmethod
    def total(cls, parts: Iterable[Rate]) -> Rate:
        return cls(*map(sum, zip(*parts, strict=True)))


@dataclass(frozen=True)
class Lesson:
    """The pairs of one cutoff, and 1 for each that was then bought.

    `missed` are purchases that were no candidates: columns customer_id and item. `n_bought` counts all purchases of
    active customers of what sold in the year before. The rates' expectations are shares of buyers (of active customers'
    pairs, and of newcomers') and of a customer's purchases by category (of launches).
    """

    pairs: Pairs
    bought: Floats
    missed: pd.DataFrame
    n_bought: int
    active: Rate
    newcomers: Rate
    launches: Rate


@dataclass(frozen=True)
class Backtest:
    """Rankings made as at the latest closed cutoff, against what was then bought: (customer, item) rows.

    `missed` are purchases of the same customers that were no candidates: columns customer_id and item. `simpler`: what
    the rules would have said, by name.
    """

    keys: pd.DataFrame
    bought: Floats
    predicted: Floats
    naive: Floats
    owned: NDArray[np.bool_]
    missed: pd.DataFrame
    simpler: Mapping[str, Floats] = field(default_factory=dict)


def unmapped(workspace: Workspace) -> Unmapped | None:
    """What the ingested tables lack, so that there is no item at all to learn about; None where there is one."""
    if workspace.cross_sell.level == "category" and workspace.tables.products is None:
        why = "there is no products table, which says what category a product is of"
        return Unmapped(why, "add tables.products, or set cross_sell.level to item")
    lines = storage.rows_of(workspace.home_path, "transactions")
    with storage.connect(workspace.home_path) as connection:
        if connection.execute(f"SELECT 1 FROM {lines} WHERE product_id IS NOT NULL LIMIT 1").fetchall():
            return None
    why = "no line says what was bought: tables.transactions.columns.product_id is not mapped, or always empty"
    return Unmapped(why, "map product_id to the column of the product")


def cutoffs(workspace: Workspace, as_of: date) -> list[date]:
    """The dates to learn offers from, oldest first; empty without items or where no labelled window fits."""
    days = labels.purchase_days(workspace, as_of)
    if days is None or unmapped(workspace) is not None:
        return []
    horizon = workspace.cross_sell.horizon
    return closed_cutoffs(
        labels.recorded_until(workspace, as_of), days[0], outcome_days=horizon, spacing=horizon, most=_CUTOFFS,
        min_history=workspace.training.min_history,
    )  # fmt: skip


def train(workspace: Workspace, as_of: date, answers_by: str | None = None) -> OfferModel:
    """The model for `as_of`, or the rule `answers_by`.

    Raises:
        NoCrossSell: no products, fewer than two items, no closed window, or nothing bought in one.
    """
    if (lacking := unmapped(workspace)) is not None:
        raise NoCrossSell(str(lacking))
    closed = cutoffs(workspace, as_of)
    if not closed:
        raise NoCrossSell(
            f"no {workspace.cross_sell.horizon}-day window has closed with {workspace.training.min_history} days of"
            f" history before it at {as_of}; nothing to learn offers from"
        )
    lessons = [lesson(workspace, cutoff, as_of) for cutoff in closed]
    return learnt(workspace, lessons) if answers_by is None else ruled(workspace, lessons, answers_by)


def judged_at(workspace: Workspace, judge: date, learnt_from: Sequence[date], known_by: date) -> Backtest:
    """Offers made at `judge`, learnt from dates that had closed by then, against what is known since to be bought.

    Raises:
        NoCrossSell: too little was bought in the windows to learn from, or nothing in the judged one.
    """
    return learner(workspace, judge, learnt_from, known_by)(workspace)


def learner(
    workspace: Workspace, judge: date, learnt_from: Sequence[date], known_by: date
) -> Callable[[Workspace], Backtest]:
    """`judged_at` for settings that differ in nothing but how the booster learns; the rows are loaded once."""
    most = workspace.training.backtest_customers
    lessons = [lesson(workspace, cutoff, judge, most_customers=most) for cutoff in learnt_from]
    asked = lesson(workspace, judge, known_by, most_customers=most)
    if not asked.bought.any():
        raise NoCrossSell(f"nothing that could be offered at {judge} was bought in the window after it")
    _check(lessons)
    rules = {name: ruled(workspace, lessons, name).probability(asked.pairs.rows) for name in RULES}
    return lambda settings: replace(judged(learnt(settings, lessons), asked, settings), simpler=rules)


def answered_at(workspace: Workspace, model: OfferModel, judge: date, known_by: date) -> Backtest:
    """A model's offers of `judge` against what is known since to be bought."""
    most = workspace.training.backtest_customers
    return judged(model, lesson(workspace, judge, known_by, most_customers=most), workspace)


def learnt(workspace: Workspace, lessons: Sequence[Lesson]) -> OfferModel:
    """The model of these cutoffs, calibrated over all of their windows: the level of the latest alone is its season's.

    Raises:
        NoCrossSell: fewer than two items, or too little was bought in the windows.
    """
    _check(lessons)
    rows, bought = _stacked(lessons)
    used = datasets.chosen(workspace, names(workspace), workspace.cross_sell.features)
    model = fit(rows, bought, names(workspace), used, workspace.cross_sell, workspace.training.seed)
    return _with_rates(model.calibrated(rows, bought), lessons)


def ruled(workspace: Workspace, lessons: Sequence[Lesson], name: str) -> OfferModel:
    """One of `RULES` in the model's place, at the level of what was bought in the windows.

    Raises:
        NoCrossSell: as in `learnt`.
    """
    _check(lessons)
    sell, all_names = workspace.cross_sell, names(workspace)
    rule = OfferModel(all_names, all_names, sell.horizon, sell.level, None, rule=name)
    return _with_rates(rule.calibrated(*_stacked(lessons)), lessons)


def _stacked(lessons: Sequence[Lesson]) -> tuple[NDArray[np.float32], Floats]:
    return np.concatenate([each.pairs.rows for each in lessons]), np.concatenate([each.bought for each in lessons])


def _with_rates(model: OfferModel, lessons: Sequence[Lesson]) -> OfferModel:
    return replace(model, newcomer_rate=_newcomer_rate(lessons), launch_rate=_launch_rate(lessons))


def _check(lessons: Sequence[Lesson]) -> None:
    items = {item for each in lessons for item in each.pairs.items}
    if len(items) < MIN_ITEMS or sum(each.n_bought for each in lessons) < MIN_BOUGHT:
        raise NoCrossSell(f"fewer than two items, or fewer than {MIN_BOUGHT} purchases of them, in the closed windows")


def _newcomer_rate(lessons: Sequence[Lesson]) -> float:
    """Purchases of newcomers per share of their segment; as long as few are known, near that of active customers."""
    newcomers, active = (Rate.total(getattr(each, name) for each in lessons) for name in ("newcomers", "active"))
    of_active = active.bought / max(active.expected, _SMALL)
    return (newcomers.bought + _PRIOR_PURCHASES * of_active) / (newcomers.expected + _PRIOR_PURCHASES)


def _launch_rate(lessons: Sequence[Lesson]) -> float:
    """Purchases of earlier launches per share of the customer's purchases in their category; 0 without any."""
    rate = Rate.total(each.launches for each in lessons)
    return rate.bought / max(rate.expected, _SMALL)


def lesson(
    workspace: Workspace, cutoff: date, known_by: date, most_pairs: int = _MOST_PAIRS,
    most_customers: int | None = None,
) -> Lesson:  # fmt: skip
    """What customers active at `cutoff` could be offered and then bought, known by a day when the window has closed.

    Of more than `most_customers`, or where they would have more than `most_pairs`, about, of a sample of them.

    Raises:
        ValueError: the window had not closed by `known_by`.
    """
    shelf = Shelf.at(workspace, cutoff)
    customers = datasets.teaching(workspace.home_path, retrieval.rows_at(workspace, cutoff, of_customers(workspace)))
    active = customers[customers["days_since_last_purchase"] <= workspace.churn.active_window]
    most = min(most_customers or len(active), most_pairs // max(shelf.pairs_each, 1))
    pairs = shelf.pairs(_sampled(active, most))
    happened = labels.items_bought(workspace, [cutoff], known_by).drop(columns="as_of")
    on_shelf = happened["item"].isin(shelf.items)
    bought, missed = _bought(pairs, happened[on_shelf])
    shares = shelf.popularity["item_buyers_365d"].to_numpy(dtype=float)
    return Lesson(
        pairs,
        bought,
        missed,
        int(happened.loc[on_shelf, "customer_id"].isin(active["customer_id"]).sum()),
        Rate(float(bought.sum()), float(shares[pairs.item].sum())),
        _by_newcomers(Newcomers.at(shelf, customers), happened[on_shelf]),
        _of_launches(shelf, pairs.customer_ids, happened[~on_shelf]),
    )


def _bought(pairs: Pairs, happened: pd.DataFrame) -> tuple[Floats, pd.DataFrame]:
    """1 for each pair that is among the purchases of the window, and those of its customers that no pair is."""
    customer = pairs.customer_ids.get_indexer(pd.Index(happened["customer_id"]))
    happened, customer = happened[customer >= 0], customer[customer >= 0]
    n = np.int64(max(len(pairs.items), 1))
    asked, answer = pairs.customer * n + pairs.item, customer * n + pairs.items.get_indexer(pd.Index(happened["item"]))
    return np.isin(asked, answer).astype(float), happened[~np.isin(answer, asked)]


def _by_newcomers(newcomers: Newcomers, happened: pd.DataFrame) -> Rate:
    bought = happened["customer_id"].isin(newcomers.customer_ids).sum()
    return Rate(float(bought), float(newcomers.shares.sum(axis=1)[newcomers.segment].sum()))


def _of_launches(shelf: Shelf, customer_ids: pd.Index, happened: pd.DataFrame) -> Rate:
    shares = launches.shares(shelf, customer_ids, pd.Index(happened["item"].unique()))
    return Rate(float(len(shares.merge(happened, on=["customer_id", "item"]))), float(shares["share"].sum()))


def _sampled(customers: pd.DataFrame, most: int) -> pd.DataFrame:
    """So many customers at most; the same ones every time, chosen by a hash of the id."""
    if len(customers) <= most:
        return customers
    hashed = customers["customer_id"].map(lambda customer_id: hashlib.sha256(customer_id.encode()).hexdigest())
    return customers[hashed.rank() <= max(most, 1)]


def judged(model: OfferModel, against: Lesson, workspace: Workspace) -> Backtest:
    """Beside the naive rule: what the customer bought most often in a year, ties by recency, then what is popular."""
    rows, owned = against.pairs.rows, against.pairs.owned
    naive = personal_frequency(rows, names(workspace))
    return Backtest(against.pairs.keys, against.bought, model.probability(rows), naive, owned, against.missed)
