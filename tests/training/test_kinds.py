"""Another kind of model is an object of its own: nothing else has to know of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from tests.training.conftest import TRAINED_AT, World
from training import kinds, pipelines
from training.backtests import backtest, plots
from training.backtests.backtest import Judged
from training.backtests.baselines import Answer, Histories, silence
from training.backtests.evaluation import Evaluation
from training.backtests.grade import OF_CHURN
from training.backtests.scoreboard import JudgedCutoff
from training.gate import comparison, promotion
from training.learning import churn
from training.learning.datasets import Cutoff, Dataset, NotLearnt
from training.models.churn_model import ChurnModel
from training.models.rule import BASE_RATE, OURS
from workspace import registry
from workspace.settings import Workspace


def by_rule(name: str, data: Dataset, workspace: Workspace, closed: Sequence[Cutoff], current: Cutoff) -> ChurnModel:
    return churn.simpler(data, workspace, closed, current)[name]


class Naive(kinds.OfCustomers):
    """Who will leave, by silence alone; asked by the settings of churn."""

    name, group, title, answer = "naive", "churn", "Who has been silent", "churn_probability"
    limits = ("It looks at nothing but silence.",)
    measures, model, boosting, figures = OF_CHURN, ChurnModel, {}, ("auc", "brier", "ece")
    too_few = staticmethod(churn.too_few)

    def __init__(self, rule: str = churn.SILENCE) -> None:
        self.rule = rule

    def fitted(self, data: Dataset, workspace: Workspace, closed: Sequence[Cutoff], current: Cutoff) -> ChurnModel:
        return by_rule(self.rule, data, workspace, closed, current)

    def simpler(
        self, data: Dataset, workspace: Workspace, closed: Sequence[Cutoff], current: Cutoff
    ) -> Mapping[str, Any]:
        return {BASE_RATE: by_rule(BASE_RATE, data, workspace, closed, current)}

    def judge_at(self, then: Dataset, workspace: Workspace, cutoff: Cutoff, histories: Histories | None) -> Judged:
        rows = ~np.isnan(cutoff.churned)
        vectors, learnt_from = cutoff.vectors[rows], tuple(one.as_of for one in then.closed)
        said = {OURS: self.fitted(then, workspace, then.closed, then.current)}
        said |= self.simpler(then, workspace, then.closed, then.current)
        answers = tuple(
            Answer(name, "ours" if name == OURS else "naive", model.probability(vectors), may_answer=True)
            for name, model in said.items()
        )
        return Judged(
            cutoff.as_of, learnt_from, cutoff.customer_ids[rows], cutoff.churned[rows],
            (*answers, silence(then.inputs, vectors)), backtest.segments(then.inputs, vectors),
        )  # fmt: skip

    def as_answered(self, cutoff: Judged, model: Any, name: str, vectors: np.ndarray, asked: Workspace) -> Judged:
        return replace(cutoff, answers=(Answer(name, "ours", model.predict(vectors)),))

    def pictures(self, judged: Sequence[JudgedCutoff], currency: str) -> dict[str, Figure]:
        return plots.of_probabilities(judged, "leaving", "leavers")

    def headline(self, evaluation: Evaluation) -> str:
        return "Silence says who leaves."


@pytest.fixture
def naive(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Naive]:
    """Registered, and gone from the shared registry afterwards."""
    made = Naive()
    monkeypatch.setattr(registry, "KINDS", (*registry.KINDS, made.name))
    monkeypatch.setitem(kinds.ALL, made.name, made)
    yield made
    for model in world.tracker.search_registered_models(f"name = 'world.{made.name}'"):
        world.tracker.delete_registered_model(model.name)


def test_every_name_has_its_kind() -> None:
    """In one order, by which pages and reports go; each asks by a group of settings of its own."""
    assert tuple(kinds.ALL) == registry.KINDS
    assert {kind.group for kind in kinds.ALL.values()} == {*registry.KINDS}


def test_the_naive_rule_becomes_a_kind_without_a_word_elsewhere(naive: Naive, world: World) -> None:
    """Trained, recorded with a card, let in as the first, and held against a second version that knows no order."""
    workspace, tracker = world.workspace, world.tracker
    told: list[str] = []
    first = pipelines.train(world.store, workspace, tracker, TRAINED_AT, ["naive"], told.append)["naive"]
    run = tracker.get_run(first.run_id)
    assert run.data.params["feature_service"] == "naive_v1"
    assert (first.tags["answers_by"], run.data.params["horizon"]) == (churn.SILENCE, "60")
    assert run.data.metrics["auc"] > 0.55
    page = (pipelines.card_folder(workspace.home_path, "naive", "1") / "card.html").read_text()
    for text in ("Who has been silent", "Silence says who leaves.", "It looks at nothing but silence."):
        assert text in page
    verdict = promotion.judge(tracker, workspace, "naive")
    assert verdict.passed, verdict.grounds
    promotion.promote(tracker, workspace, "naive")

    other = workspace.model_copy(update={"churn": workspace.churn.model_copy(update={"allow_leaks": True})})
    naive.rule = BASE_RATE
    pipelines.train(world.store, other, tracker, TRAINED_AT, ["naive"])
    verdict = promotion.judge(tracker, workspace, "naive")
    assert not verdict.passed
    assert any("not better beyond noise" in reason and "auc" in reason for reason in verdict.against), verdict.grounds
    compared = comparison.compare(tracker, "world.naive/1", "world.naive/2")
    assert [one.metric for one in compared.metrics] == [*naive.figures]
    assert compared.metrics[0].second == pytest.approx(0.5)
    assert compared.metrics[0].is_worse()


def test_a_kind_that_cannot_be_learnt_is_left_out_with_a_word(
    naive: Naive, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other kinds are trained all the same."""

    def too_quiet(data: Dataset, workspace: Workspace) -> ChurnModel:
        raise NotLearnt("nobody was ever silent")

    monkeypatch.setattr(naive, "learn", too_quiet)
    told: list[str] = []
    both = ["naive", "churn"]
    trained = pipelines.train(world.store, world.workspace, world.tracker, TRAINED_AT, both, told.append)
    assert [*trained] == ["churn"]
    assert told[0] == "naive: nobody was ever silent"
