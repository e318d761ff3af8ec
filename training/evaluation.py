"""A model's backtest and what it comes to: judged cutoffs, scoreboard, grade, figures to record, pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np

from perennial.settings import Workspace
from perennial.storage import CheckFailed
from training import backtest, churn, datasets, labels, lifetime_value, offer_backtest, plots
from training.backtest import Judged
from training.choice import OURS_ANSWERS, Choice, chosen, no_skill
from training.datasets import Dataset
from training.grade import Grade, Outcomes, graded
from training.models.churn_model import ChurnModel
from training.models.rule import BASE_RATE, OURS
from training.models.value_model import ValueModel
from training.offer_backtest import JudgedOffers
from training.scoreboard import Scoreboard, scoreboard

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Evaluation:
    """Of one kind of model; `board` is null, and `judged` empty, where no cutoff could be judged.

    Figures, grade and pictures are of the contender that answers, by `choice`.
    """

    kind: str
    horizon: int
    judged: tuple[Judged | JudgedOffers, ...]
    board: Scoreboard | None
    grade: Grade
    choice: Choice = OURS_ANSWERS

    def figures(self) -> dict[str, float]:
        """By metric: ours (`Scoreboard.recorded`); `naive_` and `btyd_` the best of either kind, means over the
        cutoffs; and `judged_cutoffs`."""
        if self.board is None:
            return {}
        found = {"judged_cutoffs": float(len(self.judged))}
        for metric in self.board.ours.figures:
            found |= self.board.recorded(metric)
            for kind in ("naive", "btyd"):
                rival = self.board.best(kind, metric)
                found |= {f"{kind}_{metric}": rival.mean} if rival else {}
        return found

    def draw(self, folder: Path, currency: str) -> None:
        """Writes the pictures of this kind of model."""
        for name, figure in plots.of(self.kind, self.judged, currency).items():
            figure.savefig(folder / f"{name}.png", dpi=120)


def of_churn(
    model: ChurnModel | None, data: Dataset, workspace: Workspace, dates: Sequence[date], seed: int | None = None,
    progress: Progress = lambda _: None,
) -> Evaluation:  # fmt: skip
    """Judged at `dates`; `model` is our full one for `data.current`, null where only rules can be learnt.

    With a seed, with intervals.
    """
    judged = backtest.judge_churn(data, workspace, dates, progress)
    choice = _chosen("churn", judged, workspace, model is not None)
    histories = model is not None and model.booster is None and choice.name == OURS
    simpler = _shortage(data, workspace, "churned") if histories else ""
    return _evaluation("churn", workspace.churn.horizon, judged, seed, simpler, _doubt(data, workspace), choice)


def of_value(
    model: ValueModel | None, data: Dataset, workspace: Workspace, dates: Sequence[date], seed: int | None = None,
    progress: Progress = lambda _: None,
) -> Evaluation:  # fmt: skip
    """As `of_churn`."""
    judged = backtest.judge_value(data, workspace, dates, progress)
    choice = _chosen("lifetime_value", judged, workspace, model is not None)
    histories = model is not None and not model.boosters and choice.name == OURS
    simpler = _shortage(data, workspace, "value") if histories else ""
    return _evaluation(
        "lifetime_value", workspace.lifetime_value.horizon, judged, seed, simpler, _doubt(data, workspace), choice
    )


def of_offers(
    workspace: Workspace, as_of: date, dates: Mapping[date, Sequence[date]],
    seed: int | None = None, progress: Progress = lambda _: None,
) -> Evaluation:  # fmt: skip
    """Offers judged at `dates`, learnt from the cutoffs beside each."""
    judged = offer_backtest.judge_offers(workspace, as_of, dates, progress)
    choice = _chosen("cross_sell", judged, workspace, True)
    return _evaluation("cross_sell", workspace.cross_sell.horizon, judged, seed, choice=choice)


def _chosen(
    kind: str, judged: Sequence[Judged] | Sequence[JudgedOffers], workspace: Workspace, is_learnt: bool
) -> Choice:
    """Without a judged cutoff ours, where it could be learnt."""
    if judged:
        return chosen(kind, judged, workspace.training.seed)
    return OURS_ANSWERS if is_learnt else Choice(BASE_RATE, f"the {BASE_RATE} answers: too few customers came back")


def _evaluation(
    kind: str,
    horizon: int,
    judged: Sequence[Judged | JudgedOffers],
    seed: int | None,
    simpler: str = "",
    doubt: str = "",
    choice: Choice | None = None,
) -> Evaluation:
    """As judged by the choice, or, without one, by the answers that come first."""
    judged = [cutoff.answered_by(choice.name) for cutoff in judged] if choice else judged
    board = scoreboard(judged, seed) if judged else None
    choice = choice or OURS_ANSWERS
    found = graded(kind, board, Outcomes.of([cutoff.actual for cutoff in judged]), simpler, doubt)
    found = Grade("none" if choice.no_skill else found.letter, "; ".join(filter(None, (
        choice.no_skill or found.reason, choice.reason, choice.withheld))))  # fmt: skip
    return Evaluation(kind, horizon, tuple(judged), board, found, choice)


def grade(kind: str, judged: Sequence[Judged | JudgedOffers]) -> Grade:
    """By these judged cutoffs alone, of the answers that come first."""
    without = no_skill(kind, judged, 0)
    return Grade("none", without) if without else _evaluation(kind, 0, judged, None).grade


def refused(kind: str, horizon: int, problem: CheckFailed) -> Evaluation:
    """Of a model that the data cannot teach at all."""
    return Evaluation(kind, horizon, (), None, Grade("none", str(problem)))


def _doubt(data: Dataset, workspace: Workspace) -> str:
    """For event churn the purchase histories say nothing of leaving in any case."""
    history_model = data.current.history_model
    return history_model.dropout_doubt if history_model and workspace.churn.kind == "inactivity" else ""


def _shortage(data: Dataset, workspace: Workspace, target: str) -> str:
    """Why a model is learnt from purchase histories alone, in plain words."""
    return f"learnt from purchase histories alone, since {_what_is_short(data, workspace, target)}"


def _what_is_short(data: Dataset, workspace: Workspace, target: str) -> str:
    days, horizon = labels.purchase_days(workspace, data.current.as_of), datasets.outcome_days(workspace)
    if not data.closed and days is not None:
        history, least = (data.current.as_of - days[0]).days, datasets.HORIZONS * horizon
        if history < least:
            return f"the history of {history} days is shorter than {datasets.HORIZONS} horizons of {horizon}"
        return f"no window of {horizon} days has closed with {workspace.training.min_history} days of history before it"
    happened = np.concatenate([np.asarray(getattr(cutoff, target)) for cutoff in data.closed])
    yes, no = int((happened > 0).sum()), int((happened <= 0).sum())
    if target == "churned":
        return (
            f"{yes:,} left and {no:,} stayed in {len(data.closed)} closed windows, too few: at least"
            f" {churn.MIN_OUTCOMES} of either kind are needed in those that teach"
        )
    return f"{yes:,} customers spent something in closed windows; at least {lifetime_value.MIN_BUYERS} are needed"
