"""The kinds of model: one object for each, which says how it is trained, judged, compared, tuned and told of.

Everything else asks the kind. Another one is an object like these, made in its own module, and a name in
`workspace.registry.KINDS`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import date
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from features import publications, retrieval
from features.items import candidates
from features.items.candidates import Shelf
from features.snapshot import customer_features, features_hash
from training import trials
from training.backtests import backtest, offer_backtest, plots
from training.backtests.backtest import Bounds, Judged
from training.backtests.baselines import Answer, Histories
from training.backtests.evaluation import EVERYONE, Evaluation, Progress, doubt, evaluated, shortage
from training.backtests.grade import OF_CHURN, OF_OFFERS, OF_VALUE, Measures
from training.backtests.offer_backtest import JudgedOffers
from training.backtests.scoreboard import JudgedCutoff
from training.learning import churn, cross_sell, datasets, lifetime_value
from training.learning.datasets import Cutoff, Dataset
from training.models import churn_model, offer_model, value_model
from training.models.churn_model import ChurnModel
from training.models.offer_model import OfferModel
from training.models.rule import HISTORIES, OURS
from training.models.value_model import ValueModel
from training.records import model_card
from training.records.tracking import Model
from training.records.versions import Version
from training.trials import Judge, Plan
from workspace import cores
from workspace.registry import as_kind
from workspace.remaining import Remaining
from workspace.settings import Workspace

if TYPE_CHECKING:
    from feast import FeatureStore

Rows = NDArray[np.float32]
_COMPARED = 500  # customers, whose offers of two models are held together


class Trained(NamedTuple):
    """A model, what it was judged by, the days that it learnt from, and how much each feature moves its answers."""

    model: Any
    evaluation: Evaluation
    closed: Sequence[date]
    drivers: model_card.Weights


class Kind(ABC):
    """What is asked of every kind of model.

    name: in the registry, in commands and files; group: the settings that ask its question; title, limits: for people;
    answer: what MLflow calls what it predicts; model: what its files are read as; boosting: how its boosters learn
    where the settings name nothing else; rows_asked: rows of input that one answer needs; cutoffs: the days to learn
    from at an as_of, oldest first.
    """

    name: str
    group: str
    title: str
    limits: Sequence[str]
    answer: str
    measures: Measures
    model: type[Model]
    boosting: Mapping[str, Any]
    rows_asked = 1
    cutoffs: Callable[[Workspace, date], list[date]]

    def settings(self, workspace: Workspace) -> Any:
        return getattr(workspace, self.group)

    @abstractmethod
    def columns(self, workspace: Workspace) -> tuple[str, ...]:
        """What a model is shown of a row, in the order of its vector."""

    @abstractmethod
    def features_hash(self, workspace: Workspace) -> str:
        """Of what a model of now is shown."""

    @abstractmethod
    def train(
        self, workspace: Workspace, as_of: date, dataset: Callable[[], Dataset], reported: Sequence[date] | None,
        progress: Progress,
    ) -> Trained:  # fmt: skip
        """The model of the contender that answers, by what all of them said at the `reported` days, or at those of an
        untuned training.

        Raises:
            CheckFailed: it cannot be learnt.
        """

    @abstractmethod
    def fit(self, store: FeatureStore, workspace: Workspace, as_of: date, contender: str) -> Model:
        """The model of a contender alone."""

    @abstractmethod
    def backtest_days(self, workspace: Workspace, as_of: date, count: int) -> Iterable[date]:
        """Days that its backtest asks of, or learns from, beside those of `backtest.cutoffs`."""

    @abstractmethod
    def backtest(
        self, workspace: Workspace, data: Dataset, dates: Sequence[date], count: int, progress: Progress
    ) -> Evaluation:
        """Judged at `dates` or, where it has windows of its own, at `count` of them; with intervals."""

    @abstractmethod
    def answered(
        self, version: Version, cutoff: JudgedCutoff, workspace: Workspace, known_by: date
    ) -> JudgedCutoff | None:
        """What a version says on the day of another one's cutoff; none where a feature that it needs is not there."""

    @abstractmethod
    def taught(
        self, workspace: Workspace, own: Workspace, as_of: date, learnt: Mapping[date, Sequence[date]]
    ) -> Iterable[JudgedCutoff]:
        """The settings `own`, taught on the days of `learnt` by what was known then, and judged."""

    @abstractmethod
    def rows(self, workspace: Workspace, model: Any, as_of: date) -> Rows:
        """What two models are asked about, to be held together."""

    def predictions(self, model: Any, rows: Rows) -> NDArray[np.floating]:
        """Of those of the rows that there is an answer for."""
        return np.asarray(model.predict(rows))

    @abstractmethod
    def plan(self, workspace: Workspace, as_of: date) -> Plan | None:
        """Where to tune and where to report; none where the history is too short."""

    @abstractmethod
    def tuning_days(self, workspace: Workspace, as_of: date) -> list[date]:
        """Every as_of whose snapshot a tuning needs beside those of the training."""

    @abstractmethod
    def judges(self, store: FeatureStore, workspace: Workspace, as_of: date, dates: Sequence[date]) -> list[Judge]:
        """For each date a function from settings to the main metric there; what all trials share is loaded once."""

    @abstractmethod
    def pictures(self, judged: Sequence[JudgedCutoff], currency: str) -> dict[str, Figure]:
        """Of a backtest, by name."""

    @abstractmethod
    def headline(self, evaluation: Evaluation) -> str:
        """The one thing to know of a backtest, in words."""

    @abstractmethod
    def shown(self, figures: Iterable[str]) -> dict[str, tuple[str, ...]]:
        """The figures of the terminal's table and of the page's, by what they are of; JSON has all."""

    @abstractmethod
    def compared(self, main: str) -> tuple[str, ...]:
        """The figures by which two runs are compared, of which `main` says how good the order is."""

    @abstractmethod
    def counted_in(self, currency: str) -> str | None:
        """What totals over customers are of; null where there is nothing to add up."""


class OfCustomers(Kind):
    """A kind whose rows are customers: taught by closed windows of `datasets`, judged beside rules and histories.

    fitted: the full model from given cutoffs; simpler: what else may answer, by name; judge_at: what was known on a
    day, and what then followed, to how right the model would have been; too_few: why closed windows teach no booster;
    figures: those of the terminal's table and of the page's.
    """

    fitted: Callable[[Dataset, Workspace, Sequence[Cutoff], Cutoff], Model]
    simpler: Callable[[Dataset, Workspace, Sequence[Cutoff], Cutoff], Mapping[str, Model]]
    judge_at: Callable[[Dataset, Workspace, Cutoff, Histories | None], Judged]
    too_few: Callable[[Sequence[Cutoff]], str]
    figures: tuple[str, ...]
    cutoffs = staticmethod(datasets.cutoffs)

    def learn(self, data: Dataset, workspace: Workspace) -> Model:
        """The full model of a data set."""
        return self.fitted(data, workspace, data.closed, data.current)

    @abstractmethod
    def as_answered(self, cutoff: Judged, model: Any, name: str, vectors: Rows, asked: Workspace) -> Judged:
        """The cutoff with the answer of a model of the workspace `asked`, under a name, in place of all others."""

    def columns(self, workspace: Workspace) -> tuple[str, ...]:
        return tuple(feature.name for feature in customer_features(workspace))

    def features_hash(self, workspace: Workspace) -> str:
        return publications.expected_hash(workspace)

    def train(
        self, workspace: Workspace, as_of: date, dataset: Callable[[], Dataset], reported: Sequence[date] | None,
        progress: Progress,
    ) -> Trained:  # fmt: skip
        data, training = dataset(), workspace.training
        simpler = self.simpler(data, workspace, data.closed, data.current)
        closed = [cutoff.as_of for cutoff in data.closed]
        if reported is None:
            reported = backtest.judged_dates(workspace, closed, training.backtest_cutoffs)
        # Of many customers a sample, one for all models.
        some = data.sampled(datasets.share_of(workspace, as_of, training.backtest_customers))
        learning = partial(backtest.learnt, partial(self.learn, data, workspace), simpler)
        ours, evaluation = self.learnt_and_judged(learning, some, workspace, reported, progress=progress)
        model: Any = simpler.get(evaluation.choice.name, ours)
        assert model is not None
        return Trained(model, evaluation, closed, model_card.by_contributions(model, data))

    def fit(self, store: FeatureStore, workspace: Workspace, as_of: date, contender: str) -> Model:
        data = datasets.load(store, workspace, as_of)
        if contender == OURS:
            return self.learn(data, workspace)
        return self.simpler(data, workspace, data.closed, data.current)[contender]

    def learnt_and_judged(
        self, learning: Callable[[], Model | None], data: Dataset, workspace: Workspace, dates: Sequence[date],
        seed: int | None = None, progress: Progress = lambda _: None,
    ) -> tuple[Model | None, Evaluation]:  # fmt: skip
        """What `learning` returns, our full model for `data.current`, null where only rules can be learnt; beside it
        the same way to learn judged at `dates`. With a seed, with intervals.
        """
        judging = backtest.judging(self.judge_at, data, workspace, dates)
        results: Iterator[Any] = cores.side_by_side([learning, *judging])
        left = Remaining(1 + len(judging))
        model = next(results)
        left.after_one()
        judged = backtest.alike(backtest.told(results, left, progress))
        histories = model is not None and model.answers_by == HISTORIES
        simpler = shortage(data, workspace, self.too_few) if histories else ""
        return model, evaluated(self, workspace, judged, seed, model is not None, simpler, doubt(data, workspace))

    def backtest_days(self, workspace: Workspace, as_of: date, count: int) -> Iterable[date]:
        return ()

    def backtest(
        self, workspace: Workspace, data: Dataset, dates: Sequence[date], count: int, progress: Progress
    ) -> Evaluation:
        seen = datasets.seen_at(data, workspace, data.current.as_of)
        rules = self.simpler(data, workspace, seen, data.current)
        learning = partial(backtest.learnt, partial(self.fitted, data, workspace, seen, data.current), rules)
        return self.learnt_and_judged(learning, data, workspace, dates, workspace.training.seed, progress)[1]

    def answered(
        self, version: Version, cutoff: JudgedCutoff, workspace: Workspace, known_by: date
    ) -> JudgedCutoff | None:
        rows = retrieval.rows_at(workspace, cutoff.as_of).set_index("customer_id")
        if not {*version.model.columns} <= {*rows.columns}:
            return None
        assert isinstance(cutoff, Judged)
        cutoff = cutoff.of_customers(np.flatnonzero(np.isin(cutoff.customer_ids, rows.index)))  # some may be erased
        vectors = retrieval.matrix(rows.loc[list(cutoff.customer_ids)], version.model.columns)
        name = version.tags.get("contender", OURS)
        return self.as_answered(cutoff, version.model, name, vectors, version.workspace)

    def taught(
        self, workspace: Workspace, own: Workspace, as_of: date, learnt: Mapping[date, Sequence[date]]
    ) -> Iterable[JudgedCutoff]:
        most = workspace.training.backtest_customers
        data = datasets.load(retrieval.open_store(workspace), own, as_of, most=most)
        return backtest.judge(self.judge_at, data, own, [*learnt], peers=False)

    def rows(self, workspace: Workspace, model: Any, as_of: date) -> Rows:
        return retrieval.matrix(retrieval.rows_at(workspace, as_of), model.columns)

    def plan(self, workspace: Workspace, as_of: date) -> Plan | None:
        return trials.plan_of_customers(workspace, as_of)

    def tuning_days(self, workspace: Workspace, as_of: date) -> list[date]:
        return trials.days_of_customers(workspace, as_of)

    def judges(self, store: FeatureStore, workspace: Workspace, as_of: date, dates: Sequence[date]) -> list[Judge]:
        closed, most = self.tuning_days(workspace, as_of), workspace.training.backtest_customers
        data = datasets.load(store, workspace, as_of, closed, most)
        return [trials.of_customers(data, workspace, self.judge_at, self.measures.order, day) for day in dates]

    def shown(self, figures: Iterable[str]) -> dict[str, tuple[str, ...]]:
        return {EVERYONE: self.figures}

    def compared(self, main: str) -> tuple[str, ...]:
        return tuple(name for name in self.figures if name != "coverage")

    def counted_in(self, currency: str) -> str | None:
        return currency


class Churn(OfCustomers):
    """Who will leave: a probability for each customer who can."""

    name = group = "churn"
    title = "Who will leave"
    limits = (
        "A high probability does not say that contacting the customer helps.",
        "It holds for groups of customers; of a single one it says how many like them would leave.",
    )
    answer = "churn_probability"
    measures = OF_CHURN
    model = ChurnModel
    boosting = churn_model.PARAMETERS | {"rounds": churn_model.ROUNDS}
    figures = ("auc", "average_precision", "lift10", "brier", "log_loss", "ece")
    fitted = staticmethod(churn.fit)
    simpler = staticmethod(churn.simpler)
    judge_at = staticmethod(backtest.churn_at)
    too_few = staticmethod(churn.too_few)

    def learn(self, data: Dataset, workspace: Workspace) -> ChurnModel:
        return churn.train(data, workspace)

    def as_answered(self, cutoff: Judged, model: Any, name: str, vectors: Rows, asked: Workspace) -> Judged:
        return replace(cutoff, answers=(Answer(name, "ours", model.probability(vectors)),))

    def predictions(self, model: Any, rows: Rows) -> NDArray[np.floating]:
        return super().predictions(model, rows[model.can_churn(rows)])

    def pictures(self, judged: Sequence[JudgedCutoff], currency: str) -> dict[str, Figure]:
        return plots.of_probabilities(judged, "leaving", "leavers")

    def headline(self, evaluation: Evaluation) -> str:
        assert evaluation.board is not None
        figures = evaluation.board.ours.figures
        return (
            f"Of two customers, one of whom leaves within {evaluation.horizon} days, the right one is named"
            f" {figures['auc'].mean:.0%} of the time; probabilities are off by"
            f" {self.measures.shown(figures['ece'].mean, 0)} on average."
        )

    def counted_in(self, currency: str) -> str:
        return "leavers"


class LifetimeValue(OfCustomers):
    """What customers will spend: an amount for each who has bought, with bounds."""

    name = group = "lifetime_value"
    title = "What customers will spend"
    limits = (
        "The bounds hold for customers on average, and only as well as the coming season is foreseen.",
        "Who never bought has no value here, rather than none.",
    )
    answer = "lifetime_value"
    measures = OF_VALUE
    model = ValueModel
    boosting = value_model.TREES | {"rounds": value_model.ROUNDS["spend"]}
    figures = ("ngini", "spearman", "top_decile_capture", "decile_wape", "bias", "coverage")
    fitted = staticmethod(lifetime_value.fit)
    simpler = staticmethod(lifetime_value.simpler)
    judge_at = staticmethod(backtest.value_at)
    too_few = staticmethod(lifetime_value.too_few)

    def as_answered(self, cutoff: Judged, model: Any, name: str, vectors: Rows, asked: Workspace) -> Judged:
        forecast = model.forecast(vectors)
        bounds = Bounds(forecast.low, forecast.high, asked.lifetime_value.interval)
        return replace(cutoff, answers=(Answer(name, "ours", forecast.value),), bounds=bounds)

    def pictures(self, judged: Sequence[JudgedCutoff], currency: str) -> dict[str, Figure]:
        return plots.of_amounts(judged, currency)

    def headline(self, evaluation: Evaluation) -> str:
        assert evaluation.board is not None
        dates = len(evaluation.judged)
        bias, held, stated = (evaluation.board.ours.figures[name] for name in ("bias", "coverage", "coverage_stated"))
        return (
            f"Over {evaluation.horizon} days the total was off by {bias.mean:.0%} on average over {dates} dates,"
            f" at the worst by {abs(bias.worst):.0%}; {held.mean:.0%} of the customers spent within their bounds, which"
            f" should hold {100 * stated.mean:g}%."
        )


class CrossSell(Kind):
    """What to offer: a probability for each customer and item, taught by windows of its own."""

    name = group = "cross_sell"
    title = "What to offer"
    limits = (
        "Items that fewer than a handful have bought are not offered.",
        "A probability says what is bought anyway, not what an offer adds.",
    )
    answer = "probability"
    measures = OF_OFFERS
    model = OfferModel
    boosting = offer_model.PARAMETERS | {"rounds": offer_model.ROUNDS}
    rows_asked = candidates.ALL_ITEMS
    cutoffs = staticmethod(cross_sell.cutoffs)

    def columns(self, workspace: Workspace) -> tuple[str, ...]:
        return tuple(candidates.names(workspace))

    def features_hash(self, workspace: Workspace) -> str:
        return features_hash(candidates.names(workspace))

    def train(
        self, workspace: Workspace, as_of: date, dataset: Callable[[], Dataset], reported: Sequence[date] | None,
        progress: Progress,
    ) -> Trained:  # fmt: skip
        """Judged only where the snapshots that it learns from are enough: `perennial backtest` computes others."""
        model = cross_sell.train(workspace, as_of)
        closed, count = cross_sell.cutoffs(workspace, as_of), workspace.training.backtest_cutoffs
        dates = offer_backtest.cutoffs(workspace, as_of, count, among=closed)
        dates = {day: learnt_from for day, learnt_from in dates.items() if reported is None or day in reported}
        evaluation = evaluated(self, workspace, offer_backtest.judge_offers(workspace, as_of, dates, progress))
        if evaluation.choice.name != OURS:
            model = cross_sell.train(workspace, as_of, evaluation.choice.name)
        return Trained(model, evaluation, closed, model_card.by_gain(model.used, model.booster))

    def fit(self, store: FeatureStore, workspace: Workspace, as_of: date, contender: str) -> OfferModel:
        return cross_sell.train(workspace, as_of, None if contender == OURS else contender)

    def backtest_days(self, workspace: Workspace, as_of: date, count: int) -> Iterable[date]:
        return offer_backtest.days(workspace, as_of, count)

    def backtest(
        self, workspace: Workspace, data: Dataset, dates: Sequence[date], count: int, progress: Progress
    ) -> Evaluation:
        as_of = data.current.as_of
        learnt = offer_backtest.cutoffs(workspace, as_of, count)
        judged = offer_backtest.judge_offers(workspace, as_of, learnt, progress)
        return evaluated(self, workspace, judged, workspace.training.seed)

    def answered(
        self, version: Version, cutoff: JudgedCutoff, workspace: Workspace, known_by: date
    ) -> JudgedOffers | None:
        if version.model.columns != self.columns(workspace):
            return None
        model: Any = version.model
        said = cross_sell.answered_at(workspace, model, cutoff.as_of, known_by)
        judged = JudgedOffers.of(said, (), cutoff.as_of, workspace.cross_sell.top)
        return offer_backtest.with_segments(judged, workspace)

    def taught(
        self, workspace: Workspace, own: Workspace, as_of: date, learnt: Mapping[date, Sequence[date]]
    ) -> Iterable[JudgedCutoff]:
        return offer_backtest.judge_offers(own, as_of, learnt)

    def rows(self, workspace: Workspace, model: Any, as_of: date) -> Rows:
        customers = retrieval.rows_at(workspace, as_of)
        bought = customers[customers["days_since_last_purchase"] <= workspace.churn.active_window].head(_COMPARED)
        return Shelf.at(workspace, as_of).pairs(bought).rows

    def plan(self, workspace: Workspace, as_of: date) -> Plan | None:
        return trials.plan_of_offers(workspace, as_of)

    def tuning_days(self, workspace: Workspace, as_of: date) -> list[date]:
        return offer_backtest.days(workspace, as_of, workspace.training.backtest_cutoffs + trials.DATES)

    def judges(self, store: FeatureStore, workspace: Workspace, as_of: date, dates: Sequence[date]) -> list[Judge]:
        return trials.of_offers(workspace, as_of, dates)

    def pictures(self, judged: Sequence[JudgedCutoff], currency: str) -> dict[str, Figure]:
        return plots.of_probabilities(judged, "purchase", "purchases")

    def headline(self, evaluation: Evaluation) -> str:
        assert evaluation.board is not None
        figures = evaluation.board.ours.figures
        hit = next(name for name in figures if name.startswith("hit"))
        return (
            f"{figures[hit].mean:.0%} of those who bought, bought something on their list of {hit[3:]} within"
            f" {evaluation.horizon} days."
        )

    def shown(self, figures: Iterable[str]) -> dict[str, tuple[str, ...]]:
        """Three of all items, of repeats and of new ones; they carry the length of the list."""
        names = [name for name in figures if "basket" not in name and name.startswith(("ndcg", "recall", "hit"))]
        of_kind = {title: tuple(name for name in names if name.partition("_")[2] == part) for title, part in (
            (EVERYONE, ""), ("repeats", "repeat"), ("new items", "new"))}  # fmt: skip
        return {title: own for title, own in of_kind.items() if own}

    def compared(self, main: str) -> tuple[str, ...]:
        length = main.removeprefix(self.measures.order)
        return (main, f"recall{length}", f"hit{length}", self.measures.error)

    def counted_in(self, currency: str) -> None:
        return None


CHURN, LIFETIME_VALUE, CROSS_SELL = Churn(), LifetimeValue(), CrossSell()
ALL: dict[str, Kind] = {kind.name: kind for kind in (CHURN, LIFETIME_VALUE, CROSS_SELL)}
"""By name, in the order of `workspace.registry.KINDS`."""


def kind_of(name: str) -> Kind:
    """The kind that a name means, written with an underscore or a dash.

    Raises:
        ValueError: there is no such kind.
    """
    return ALL[as_kind(name)]
