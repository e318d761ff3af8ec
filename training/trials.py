"""Where the trials of a tuning are judged: dates that closed before any reported one, and the main metric there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np

from training.backtests import backtest, offer_backtest
from training.backtests.offer_backtest import JudgedOffers
from training.backtests.scoreboard import JudgedCutoff
from training.learning import cross_sell, datasets
from training.learning.datasets import Cutoff, Dataset
from workspace.settings import Workspace

Judge = Callable[[Workspace], float]

DATES = 3
_ENOUGH = 2  # cutoffs before a date that a trial is judged at: one to teach, one to calibrate


@dataclass(frozen=True)
class Plan:
    """Where to tune and where to report, oldest first; every window of the former has ended by the latter's first."""

    tuned: tuple[date, ...]
    reported: tuple[date, ...]


def plan_of_customers(workspace: Workspace, as_of: date) -> Plan | None:
    """As many reported dates as an untuned training has, or the latest of them where the history has room for few."""
    count, days = workspace.training.backtest_cutoffs, datasets.outcome_days(workspace)
    if datasets.outcome_days(datasets.taught(workspace, as_of)) != days:
        return None
    closed = days_of_customers(workspace, as_of)
    reported = backtest.judged_dates(workspace, closed[-workspace.training.cutoffs :], count)
    while reported:
        before = [day for day in closed if (reported[0] - day).days >= days]
        able = [d for d in backtest.judged_dates(workspace, before, DATES) if _learnt(d, before, days) >= _ENOUGH]
        if able:
            return Plan(tuple(able), tuple(reported))
        del reported[0]
    return None


def _learnt(day: date, closed: Sequence[date], days: int) -> int:
    return sum((day - cutoff).days >= days for cutoff in closed)


def plan_of_offers(workspace: Workspace, as_of: date) -> Plan | None:
    """As `plan_of_customers`."""
    closed, count = cross_sell.cutoffs(workspace, as_of), workspace.training.backtest_cutoffs
    reported = [*offer_backtest.cutoffs(workspace, as_of, count, among=closed)]
    able = [*offer_backtest.cutoffs(workspace, as_of, count + DATES)]
    while reported:
        before = [day for day in able if day < reported[0]][-DATES:]
        if before:
            return Plan(tuple(before), tuple(reported))
        del reported[0]
    return None


def days_of_customers(workspace: Workspace, as_of: date) -> list[date]:
    """Every day that a tuning asks of or learns from."""
    return backtest.cutoffs(workspace, as_of, workspace.training.backtest_cutoffs + DATES)


def of_customers(data: Dataset, workspace: Workspace, judge_at: backtest.JudgeAt, metric: str, day: date) -> Judge:
    """From settings to the metric at a day; `data` holds it among its closed cutoffs."""
    cutoff: Cutoff = next(cutoff for cutoff in data.closed if cutoff.as_of == day)
    then = backtest.known_at(data, workspace, cutoff)
    return lambda trial: _main(judge_at(then, trial, cutoff, None), metric)


def of_offers(workspace: Workspace, as_of: date, dates: Sequence[date]) -> list[Judge]:
    """For each day, from settings to the order of the lists there; the rows are loaded once."""
    learnt = offer_backtest.cutoffs(workspace, as_of, workspace.training.backtest_cutoffs + DATES)
    return [_of_offers(workspace, day, learnt[day], as_of) for day in dates]


def _of_offers(workspace: Workspace, day: date, learnt_from: Sequence[date], known_by: date) -> Judge:
    answered, top = cross_sell.learner(workspace, day, learnt_from, known_by), workspace.cross_sell.top
    return lambda trial: _main(JudgedOffers.of(answered(trial), learnt_from, day, top), f"ndcg{top}")


def _main(judged: JudgedCutoff, metric: str) -> float:
    return judged.figure(judged.answers[0], np.arange(len(judged.customer_ids)), metric)
