"""A model's backtest and what it comes to: judged cutoffs, scoreboard, grade, figures to record, pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from matplotlib.figure import Figure

from pages import picture
from training.backtests.choice import OURS_ANSWERS, Choice, chosen, no_skill
from training.backtests.grade import Grade, Measures, Outcomes, graded
from training.backtests.scoreboard import JudgedCutoff, Scoreboard, scoreboard
from training.learning import datasets, labels
from training.learning.datasets import Cutoff, Dataset
from training.models.rule import BASE_RATE, OURS
from workspace import sentences
from workspace.settings import Training, Workspace
from workspace.storage import CheckFailed

EVERYONE = "all"
Progress = Callable[[str], None]


class Subject(Protocol):
    """A kind of model, as far as its backtest and the pages about it are concerned; `training.kinds` says more."""

    @property
    def name(self) -> str: ...
    @property
    def title(self) -> str: ...
    @property
    def limits(self) -> Sequence[str]: ...
    @property
    def measures(self) -> Measures: ...
    def settings(self, workspace: Workspace) -> Any: ...
    def backtest_days(self, workspace: Workspace, as_of: date, count: int) -> Iterable[date]: ...
    def backtest(
        self, workspace: Workspace, data: Dataset, dates: Sequence[date], count: int, progress: Progress
    ) -> Evaluation: ...
    def pictures(self, judged: Sequence[JudgedCutoff], currency: str) -> dict[str, Figure]: ...
    def headline(self, evaluation: Evaluation) -> str: ...
    def shown(self, figures: Iterable[str]) -> dict[str, tuple[str, ...]]: ...
    def counted_in(self, currency: str) -> str | None: ...


@dataclass(frozen=True)
class Evaluation:
    """Of one kind of model; `board` is null, and `judged` empty, where no cutoff could be judged.

    Figures, grade and pictures are of the contender that answers, by `choice`.
    """

    subject: Subject
    horizon: int
    judged: tuple[JudgedCutoff, ...]
    board: Scoreboard | None
    grade: Grade
    choice: Choice = OURS_ANSWERS
    currency: str = ""

    @property
    def kind(self) -> str:
        """The subject's name."""
        return self.subject.name

    def figures(self) -> dict[str, float]:
        """By metric: ours (`Scoreboard.recorded`); `naive_` and `btyd_` the best of either side, means over the
        cutoffs; and `judged_cutoffs`."""
        if self.board is None:
            return {}
        figures = {"judged_cutoffs": float(len(self.judged))}
        for metric in self.board.ours.figures:
            figures |= self.board.recorded(metric)
            for side in ("naive", "btyd"):
                rival = self.board.best(side, metric)
                figures |= {f"{side}_{metric}": rival.mean} if rival else {}
        return figures

    @cached_property
    def pictures(self) -> dict[str, bytes]:
        """Those of this kind of model, as SVG by name; drawn once, though a page and MLflow show them."""
        figures = self.subject.pictures(self.judged, self.currency)
        return {name: picture.drawn(figure) for name, figure in figures.items()}

    def draw(self, folder: Path) -> None:
        """Writes the pictures."""
        for name, svg in self.pictures.items():
            (folder / f"{name}.svg").write_bytes(svg)


def evaluated(
    subject: Subject, workspace: Workspace, judged: Sequence[JudgedCutoff], seed: int | None = None,
    is_learnt: bool = True, simpler: str = "", doubt: str = "",
) -> Evaluation:  # fmt: skip
    """As judged by the contender that is chosen to answer; with a seed, with intervals.

    is_learnt: whether our full model could be; simpler: why that is the history alone, "" where it is not.
    """
    choice = _chosen(subject.measures, judged, workspace.training, is_learnt)
    horizon = subject.settings(workspace).horizon
    judged = [cutoff.answered_by(choice.name) for cutoff in judged]
    board = scoreboard(judged, seed) if judged else None
    because = simpler if choice.name == OURS else ""
    by_rules = graded(subject.measures, board, Outcomes.of([cutoff.actual for cutoff in judged]), because, doubt)
    told = Grade("none" if choice.no_skill else by_rules.letter, sentences.joined(filter(None, (
        choice.no_skill or by_rules.reason, choice.reason, choice.withheld))))  # fmt: skip
    return Evaluation(subject, horizon, tuple(judged), board, told, choice, workspace.currency)


def _chosen(measures: Measures, judged: Sequence[JudgedCutoff], settings: Training, is_learnt: bool) -> Choice:
    """Without a judged cutoff ours, where it could be learnt."""
    if judged:
        return chosen(measures, judged, settings.seed)
    return OURS_ANSWERS if is_learnt else Choice(BASE_RATE, f"the {BASE_RATE} answers: too few customers came back")


def grade(measures: Measures, judged: Sequence[JudgedCutoff]) -> Grade:
    """By these judged cutoffs alone, of the answers that come first."""
    if without := no_skill(measures, judged, 0):
        return Grade("none", without)
    return graded(measures, scoreboard(judged) if judged else None, Outcomes.of([one.actual for one in judged]))


def refused(subject: Subject, workspace: Workspace, problem: CheckFailed) -> Evaluation:
    """Of a model that the data cannot teach at all."""
    return Evaluation(subject, subject.settings(workspace).horizon, (), None, Grade("none", str(problem)))


def doubt(data: Dataset, workspace: Workspace) -> str:
    """For event churn the purchase histories say nothing of leaving in any case."""
    history_model = data.current.history_model
    return history_model.dropout_doubt if history_model and workspace.churn.kind == "inactivity" else ""


def shortage(data: Dataset, workspace: Workspace, too_few: Callable[[Sequence[Cutoff]], str]) -> str:
    """Why a model is learnt from purchase histories alone, in plain words."""
    return f"learnt from purchase histories alone, since {_what_is_short(data, workspace, too_few)}"


def _what_is_short(data: Dataset, workspace: Workspace, too_few: Callable[[Sequence[Cutoff]], str]) -> str:
    days, horizon = labels.purchase_days(workspace, data.current.as_of), datasets.outcome_days(workspace)
    if not data.closed and days is not None:
        history, least = (data.current.as_of - days[0]).days, datasets.HORIZONS * horizon
        if history < least:
            return f"the history of {history} days is shorter than {datasets.HORIZONS} horizons of {horizon}"
        return f"no window of {horizon} days has closed with {workspace.training.min_history} days of history before it"
    return too_few(data.closed)
