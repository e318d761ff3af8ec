"""A backtest as a run of MLflow: every figure by day, the grades, the files and the pictures."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from training.backtests.backtest_report import Report
from training.records import tracking
from workspace.settings import Workspace

if TYPE_CHECKING:
    from mlflow import MlflowClient


def figures_by_day(report: Report) -> dict[date, dict[str, float]]:
    """Every figure of every contender at every judged cutoff: `churn/auc` is ours, `churn/auc/silence` a rival's."""
    by_day: dict[date, dict[str, float]] = {}
    for evaluation in report.models:
        for place, cutoff in enumerate(evaluation.judged):
            for contender in evaluation.board.contenders if evaluation.board else ():
                rival = "" if contender.side == "ours" else f"/{_plain(contender.name)}"
                by_day.setdefault(cutoff.as_of, {}).update(
                    {
                        f"{evaluation.kind}/{metric}{rival}": spread.each[place]
                        for metric, spread in contender.figures.items()
                    }
                )
    return by_day


def _plain(name: str) -> str:
    """MLflow allows letters, digits, underscores, dashes, periods, spaces and slashes."""
    return "".join(letter if letter.isalnum() else "_" for letter in name)


def record(tracker: MlflowClient, workspace: Workspace, report: Report, files: Sequence[Path]) -> str:
    """A run in MLflow: the figures by day, the grades as tags, the files and plots; returns its id."""

    def draw(folder: Path) -> None:
        for evaluation in report.models:
            (folder / evaluation.kind).mkdir()
            evaluation.draw(folder / evaluation.kind)

    tags = {f"grade.{evaluation.kind}": evaluation.grade.letter for evaluation in report.models}
    return tracking.record_backtest(tracker, workspace, report.as_of, tags, figures_by_day(report), draw, files)
