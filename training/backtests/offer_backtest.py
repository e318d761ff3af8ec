"""The backtest of offers: ranked lists made at earlier dates, against what the customers then bought."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import ClassVar, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from features import retrieval, snapshot
from training.backtests import backtest, metrics, scoreboard
from training.backtests.baselines import Answer
from training.backtests.scoreboard import Kept
from training.learning import cross_sell
from training.models.customer_model import Inputs
from training.models.offer_model import FREQUENCY
from training.models.rule import OURS
from workspace.remaining import Remaining
from workspace.settings import Workspace
from workspace.storage import CheckFailed
from workspace.windows import days_after

Floats = NDArray[np.floating]

NAIVE = FREQUENCY
CHANCE = "random order"


@dataclass(frozen=True)
class JudgedOffers:
    """Offers at one judged cutoff; a row per (customer, item), `customer_ids` a row per customer who bought one.

    An answer's figures are means over those customers: recall, hit rate and ndcg (with the whole basket and with its
    first `k` items as the ideal) of the first `k` items, then the same with only repeats, or only new items, in list
    and basket, over those who bought such.
    """

    as_of: date
    learnt_from: tuple[date, ...]
    customer_ids: NDArray[np.object_]
    actual: Floats
    answers: tuple[Answer, ...]
    segments: Mapping[str, NDArray[np.bool_]]
    by_customer: Mapping[str, Mapping[str, Floats]]
    refused: tuple[str, ...] = ()
    rows: ClassVar[scoreboard.Rows] = "offers"
    outcomes: ClassVar[None] = None
    interval: ClassVar[None] = None

    @property
    def has_chance(self) -> bool:
        """Not of those that were judged before a random order stood beside them."""
        return CHANCE in self.by_customer

    @classmethod
    def of(cls, offered: cross_sell.Backtest, learnt_from: Sequence[date], as_of: date, k: int) -> Self:
        """Without segments yet; they need the customers' features."""
        bought = pd.concat([offered.keys[offered.bought > 0], offered.missed])
        buyers = pd.Index(bought["customer_id"].unique()).sort_values()
        answers = (
            Answer(OURS, "ours", offered.predicted, may_answer=True),
            *(Answer(name, "naive", said, may_answer=True) for name, said in offered.simpler.items()),
            *([] if offered.simpler else [Answer(NAIVE, "naive", offered.naive, is_level=False)]),
            Answer(CHANCE, "naive", np.random.default_rng(0).random(len(offered.bought)), is_level=False),
        )
        by_customer = {answer.name: _by_customer(offered, answer.predicted, buyers, k) for answer in answers}
        ids = buyers.to_numpy(dtype=object)
        return cls(as_of, tuple(learnt_from), ids, offered.bought, answers, {}, by_customer)

    def of_customers(self, places: NDArray[np.int64]) -> JudgedOffers:
        """The same, of the customers at these places alone; figures of pairs stay those of all."""
        by_customer = {
            name: {metric: values[places] for metric, values in figures.items()}
            for name, figures in self.by_customer.items()
        }
        segments = {name: rows[places] for name, rows in self.segments.items()}
        ids = self.customer_ids[places]
        return replace(self, customer_ids=ids, segments=segments, by_customer=by_customer)

    def answered_by(self, name: str) -> JudgedOffers:
        """As `Judged.answered_by`."""
        return replace(self, answers=backtest.led_by(self.answers, name))

    def figures(self, answer: Answer, at: NDArray[np.int64], among: Iterable[str] | None = None) -> dict[str, float]:
        """Means over the customers at `at`; over all pairs, ours also has `auc`, `ece` and `relative_ece`."""
        means = {name: _mean(values[at]) for name, values in self.by_customer[answer.name].items()}
        if answer.side == "ours" and among is None and len(at) == len(self.customer_ids):
            error = metrics.ece(self.actual, answer.predicted)
            means |= {"auc": metrics.auc(self.actual, answer.predicted), "ece": error}
            means["relative_ece"] = error / float(self.actual.mean())
        return means

    def figure(self, answer: Answer, at: NDArray[np.int64], metric: str) -> float:
        return self.figures(answer, at).get(metric, math.nan)

    def asked(self, metric: str) -> NDArray[np.bool_]:
        """Who bought such items."""
        return ~np.isnan(self.scores(metric))

    def scores(self, metric: str) -> Floats:
        return self.by_customer[self.answers[0].name][metric]

    def order_over_chance(self, answer: Answer, times: Floats) -> Floats:
        """Its ndcg over that of a random order."""
        own, chance = (self.by_customer[name] for name in (answer.name, CHANCE))
        metric = next(name for name in own if name.startswith("ndcg"))
        gain = own[metric] - chance[metric]
        known = ~np.isnan(gain)
        return times[:, known] @ gain[known] / np.maximum(times[:, known].sum(axis=1), 1)

    def loss(self, answer: Answer, times: Floats) -> None:
        return None

    def level_error(self, answer: Answer) -> float:
        """As `relative_ece`."""
        return metrics.ece(self.actual, answer.predicted) / float(self.actual.mean())

    def tenths(self) -> dict[str, NDArray]:
        return vars(metrics.reliability_table(self.actual, self.answers[0].predicted))

    def beside(self, own: JudgedOffers) -> JudgedOffers:
        answers = (self.answers[0], *backtest.others(own.answers, self.answers[0]))
        return replace(self, answers=answers, by_customer={**own.by_customer, **self.by_customer})

    def kept(self) -> Kept:
        figures = {
            f"{metric} by {name}": values
            for name, of_name in self.by_customer.items()
            for metric, values in of_name.items()
        }
        said = {f"by {answer.name}": answer.predicted for answer in self.answers}
        return Kept(figures, {"actual": self.actual} | said)


def cutoffs(
    workspace: Workspace, as_of: date, count: int, among: Sequence[date] | None = None
) -> dict[date, list[date]]:
    """The latest `count` dates, oldest first, at which offers can be judged, each with the dates to learn from.

    Their windows just do not overlap. `among` are the only dates that there are snapshots of; all if absent.
    """
    learnt_from_of: dict[date, list[date]] = {}
    judge = days_after(as_of, -workspace.cross_sell.horizon)
    while len(learnt_from_of) < count:
        learnt_from = [day for day in cross_sell.cutoffs(workspace, judge) if among is None or day in among]
        if not learnt_from or (among is not None and judge not in among):
            break
        learnt_from_of[judge] = learnt_from
        judge = days_after(judge, -workspace.cross_sell.horizon)
    return dict(sorted(learnt_from_of.items()))


def days(workspace: Workspace, as_of: date, count: int) -> list[date]:
    """Every day that a backtest at so many dates asks of or learns from."""
    wanted = cutoffs(workspace, as_of, count)
    return sorted({*wanted, *(day for learnt_from in wanted.values() for day in learnt_from)})


def judge_offers(
    workspace: Workspace, as_of: date, dates: Mapping[date, Sequence[date]],
    progress: Callable[[str], None] = lambda _: None,
) -> list[JudgedOffers]:  # fmt: skip
    """Offers at each date, learnt from its cutoffs, against what is known at `as_of` to have been bought."""
    windows, left = [], Remaining(len(dates))
    for judge, learnt_from in dates.items():
        try:
            answered = cross_sell.judged_at(workspace, judge, learnt_from, as_of)
        except CheckFailed as problem:
            progress(f"{judge}: not judged: {problem}{left.after_one()}")
            continue
        judged = JudgedOffers.of(answered, learnt_from, judge, workspace.cross_sell.top)
        windows.append(with_segments(judged, workspace))
        learnt, customers = f"learnt from {len(learnt_from)} cutoffs", f"{len(judged.customer_ids):,} customers"
        progress(f"{judge}: {learnt}, {customers}{left.after_one()}")
    return windows


def with_segments(judged: JudgedOffers, workspace: Workspace) -> JudgedOffers:
    """With the segments that its customers were in at the cutoff."""
    rows = retrieval.rows_at(workspace, judged.as_of).set_index("customer_id")
    packed = tuple(feature.name for feature in snapshot.customer_features(workspace))
    vectors = retrieval.matrix(rows, packed)
    places = rows.index.get_indexer(pd.Index(judged.customer_ids))
    whole = backtest.segments(Inputs(packed, packed), vectors)
    return replace(judged, segments={name: part[places] for name, part in whole.items()})


def _by_customer(offered: cross_sell.Backtest, score: Floats, buyers: pd.Index, k: int) -> dict[str, Floats]:
    """Each ranking metric of each buyer, nan for who bought nothing of the kind. What was no candidate is new."""
    customer = buyers.get_indexer(pd.Index(offered.keys["customer_id"]))
    missed = np.bincount(buyers.get_indexer(pd.Index(offered.missed["customer_id"])), minlength=len(buyers))
    item = pd.factorize(offered.keys["item"], sort=True)[0]
    order = np.lexsort((item, -score, customer))
    order = order[customer[order] >= 0]
    columns: dict[str, Floats] = {}
    for kind, among in (("", np.ones_like(offered.owned)), ("_repeat", offered.owned), ("_new", ~offered.owned)):
        ranked = order[among[order]]
        hits = _hits(customer[ranked], offered.bought[ranked] > 0, len(buyers), k)
        basket = hits.basket if kind == "_repeat" else hits.basket + missed
        asked = np.flatnonzero(basket)
        if not asked.size:
            continue
        hits = metrics.Hits(hits.among[asked], basket[asked])
        for name, values in (
            (f"ndcg{k}", hits.ndcgs("top_k")), (f"ndcg{k}_basket", hits.ndcgs()),
            (f"recall{k}", hits.recalls()), (f"hit{k}", hits.any_found()),
        ):  # fmt: skip
            columns[f"{name}{kind}"] = np.full(len(buyers), np.nan)
            columns[f"{name}{kind}"][asked] = values
    return columns


def _hits(customer: NDArray[np.intp], bought: NDArray[np.bool_], n_customers: int, k: int) -> metrics.Hits:
    """Of (customer, item) rows by customer, best item first; a basket is what of a customer's rows was bought."""
    rank = np.arange(len(customer)) - np.searchsorted(customer, customer)
    among = np.zeros((n_customers, k), dtype=bool)
    top = rank < k
    among[customer[top], rank[top]] = bought[top]
    return metrics.Hits(among, np.bincount(customer[bought], minlength=n_customers))


def _mean(values: Floats) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else math.nan
