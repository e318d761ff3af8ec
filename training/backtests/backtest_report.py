"""The rolling backtest of a whole workspace: run it, as text for the terminal, as plain data."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from features import retrieval, snapshot
from training.backtests import backtest
from training.backtests.backtest import OVERLAPPING
from training.backtests.evaluation import EVERYONE, Evaluation, Subject, refused
from training.backtests.scoreboard import Contender, JudgedCutoff, Spread
from training.learning import datasets
from workspace.settings import Workspace
from workspace.storage import CheckFailed

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Report:
    """Every model's backtest, in the order of the subjects; those that the workspace cannot learn, with the reason."""

    name: str
    as_of: date
    currency: str
    models: tuple[Evaluation, ...]


def run(
    workspace: Workspace, as_of: date, count: int, subjects: Sequence[Subject], progress: Progress = lambda _: None
) -> Report:
    """Judges each model at up to `count` closed cutoffs before `as_of`, computing the snapshots that are missing.

    Raises:
        CheckFailed: there is nothing at `as_of` to learn from, nor to judge.
    """
    closed = backtest.cutoffs(workspace, as_of, count)
    if not closed:
        raise CheckFailed(
            f"no window of {datasets.outcome_days(workspace)} days has closed by {as_of} with"
            f" {workspace.training.min_history} days of history before it, {datasets.HORIZONS} horizons in all;"
            " nothing can be judged yet"
        )
    needed = {*closed, as_of}.union(*(subject.backtest_days(workspace, as_of, count) for subject in subjects))
    snapshot.snapshot(workspace, sorted(needed), progress)
    store = retrieval.apply(workspace)
    data = datasets.load(store, workspace, as_of, closed, workspace.training.backtest_customers)
    dates = backtest.judged_dates(workspace, closed, count)
    progress(f"{len(data.current.customer_ids):,} customers; judged at {', '.join(map(str, dates))}")
    models = tuple(_evaluated(subject, workspace, data, dates, count, progress) for subject in subjects)
    return Report(workspace.name, as_of, workspace.currency, models)


def _evaluated(
    subject: Subject, workspace: Workspace, data: datasets.Dataset, dates: Sequence[date], count: int,
    progress: Progress,
) -> Evaluation:  # fmt: skip
    try:
        return subject.backtest(workspace, data, dates, count, lambda said: progress(f"{subject.name} at {said}"))
    except CheckFailed as problem:
        return refused(subject, workspace, problem)


NO_SEGMENT = "never bought"


@dataclass(frozen=True)
class Total:
    """Of some customers at some judged cutoffs: leavers or money, expected and actual, at each cutoff.

    customers: a customer counts once at each cutoff.
    """

    name: str
    customers: int
    each: tuple[tuple[float, float], ...]

    @classmethod
    def of(cls, name: str, judged: Sequence[JudgedCutoff], inside: Sequence[NDArray[np.bool_]]) -> Self:
        """Of the rows that are `inside`, by cutoff; of offers a row is a (customer, item)."""
        each = tuple(
            (float(cutoff.answers[0].predicted[rows].sum()), float(cutoff.actual[rows].sum()))
            for cutoff, rows in zip(judged, inside, strict=True)
        )
        return cls(name, sum(int(rows.sum()) for rows in inside), each)

    @property
    def expected(self) -> float:
        return sum(expected for expected, _ in self.each)

    @property
    def actual(self) -> float:
        return sum(actual for _, actual in self.each)

    @property
    def off(self) -> float:
        """Expected over actual, minus 1; of several cutoffs the mean size of theirs, since they would cancel. Nan where
        nothing happened."""
        known = [expected / actual - 1 for expected, actual in self.each if actual]
        if len(self.each) == 1:
            return known[0] if known else math.nan
        return sum(map(abs, known)) / len(known) if known else math.nan


def totals(evaluation: Evaluation) -> list[Total]:
    """One per judged cutoff."""
    whole = [Total.of(str(cutoff.as_of), [cutoff], [np.ones(len(cutoff.actual), bool)]) for cutoff in evaluation.judged]
    return [replace(total, customers=len(c.customer_ids)) for total, c in zip(whole, evaluation.judged, strict=True)]


def segment_totals(evaluation: Evaluation) -> list[Total]:
    """One per segment, over all judged cutoffs; none of offers, whose rows are not customers."""
    judged = [cutoff for cutoff in evaluation.judged if cutoff.rows == "customers"]
    names = judged[0].segments if judged else ()
    return [Total.of(name, judged, [cutoff.segments[name] for cutoff in judged]) for name in names]


def parts(evaluation: Evaluation) -> list[Total]:
    """The segments that everyone is in one of, those in none, then everyone, over all judged cutoffs."""
    judged = [cutoff for cutoff in evaluation.judged if cutoff.rows == "customers"]
    whole = [np.ones(len(cutoff.customer_ids), dtype=bool) for cutoff in judged]
    rest = [rows & ~np.any([part for name, part in cutoff.segments.items() if name not in OVERLAPPING], axis=0)
            for cutoff, rows in zip(judged, whole, strict=True)]  # fmt: skip
    outside = Total.of(NO_SEGMENT, judged, rest)
    apart = [total for total in segment_totals(evaluation) if total.name not in OVERLAPPING]
    return [*apart, *([outside] if outside.customers else []), Total.of(EVERYONE, judged, whole)]


def asked(judged: Sequence[JudgedCutoff], metric: str, segment: str | None = None) -> int:
    """Of how many customers, each counted once at each cutoff, a figure is; of offers, who bought such items."""
    return sum(int(_asked(cutoff, metric, segment).sum()) for cutoff in judged)


def _asked(cutoff: JudgedCutoff, metric: str, segment: str | None) -> NDArray[np.bool_]:
    asked = cutoff.asked(metric)
    return asked if segment is None else asked & cutoff.segments[segment]


def as_data(report: Report) -> dict[str, Any]:
    """What JSON holds; a figure that is not defined is null."""
    return {
        "name": report.name, "as_of": str(report.as_of), "currency": report.currency,
        "models": {evaluation.kind: _model(evaluation) for evaluation in report.models},
    }  # fmt: skip


def as_frame(report: Report) -> pd.DataFrame:
    """The same figures, a row per kind, contender and figure, in words and columns of the JSON; null where undefined.

    `attrs["grades"]` has the letter of each kind, `attrs["about"]` why it is that one.
    """
    rows = [
        {"kind": evaluation.kind, "contender": contender.name, "figure": figure, "mean": spread.mean, "sd": spread.sd,
         "worst": spread.worst, "low": spread.low, "high": spread.high}
        for evaluation in report.models if evaluation.board is not None
        for contender in evaluation.board.contenders for figure, spread in contender.figures.items()
    ]  # fmt: skip
    frame = pd.DataFrame(rows, columns=["kind", "contender", "figure", "mean", "sd", "worst", "low", "high"])
    frame.attrs["grades"] = {evaluation.kind: evaluation.grade.letter for evaluation in report.models}
    frame.attrs["about"] = tuple(f"{evaluation.kind}: {evaluation.grade.reason}" for evaluation in report.models)
    return frame


def _model(evaluation: Evaluation) -> dict[str, Any]:
    head = {"horizon": evaluation.horizon, "grade": evaluation.grade.letter, "grade_reason": evaluation.grade.reason}
    board = evaluation.board
    if board is None:
        return head | {"cutoffs": [], "contenders": {}, "segments": {}, "not_everywhere": []}
    of_segments = {total.name: {"expected_total": total.expected, "actual_total": total.actual}
                   for total in segment_totals(evaluation)}  # fmt: skip
    return head | {
        "cutoffs": [_cutoff(*pair) for pair in zip(totals(evaluation), evaluation.judged, strict=True)],
        "contenders": _contenders(board.contenders),
        "segments": {
            name: {"customers": board.segment_customers[name], "contenders": _contenders(contenders)}
            | of_segments.get(name, {})
            for name, contenders in board.segments.items()
        },
        "not_everywhere": board.missing,
    }


def _cutoff(total: Total, cutoff: JudgedCutoff) -> dict[str, Any]:
    """Totals and tenths of one judged cutoff."""
    return {
        "as_of": total.name, "learnt_from": list(map(str, cutoff.learnt_from)), "customers": total.customers,
        "expected_total": total.expected, "actual_total": total.actual,
        "tenths": _records(**cutoff.tenths()),
    }  # fmt: skip


def _records(**columns: Any) -> list[dict[str, float]]:
    return [dict(zip(columns, map(float, row), strict=True)) for row in zip(*columns.values(), strict=True)]


def _contenders(contenders: Sequence[Contender]) -> dict[str, Any]:
    return {
        c.name: {
            "kind": c.side,
            "figures": {metric: _spread(spread) for metric, spread in c.figures.items()},
            "ours_minus_this": {metric: _spread(spread) for metric, spread in c.ahead.items()},
        }
        for c in contenders
    }


def _spread(spread: Spread) -> dict[str, Any]:
    return {
        "mean": _known(spread.mean), "sd": _known(spread.sd), "worst": _known(spread.worst),
        "low": _known(spread.low), "high": _known(spread.high), "each": [_known(value) for value in spread.each],
    }  # fmt: skip


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def shown(evaluation: Evaluation) -> dict[str, tuple[str, ...]]:
    """The figures, by what they are of: those of a group are of the same customers; JSON has all."""
    return evaluation.subject.shown(evaluation.board.ours.figures if evaluation.board else {})


def as_text(report: Report) -> str:
    """Each model's grade, then a table: a contender's mean over the cutoffs, the worst in brackets."""
    blocks = [f"Backtest of {report.name}, known before {report.as_of}: mean over the judged cutoffs (worst)"]
    blocks += ["\n".join(_lines(evaluation)) for evaluation in report.models]
    return "\n\n".join(blocks)


def _lines(evaluation: Evaluation) -> Iterator[str]:
    yield f"{evaluation.kind.replace('_', ' ')}: grade {evaluation.grade.letter}"
    yield f"  {evaluation.grade.reason}"
    board = evaluation.board
    if board is None:
        return
    yield "  judged at " + ", ".join(
        f"{day} ({customers:,} customers)" for day, customers in zip(board.as_of, board.customers, strict=True)
    )
    for title, metrics in shown(evaluation).items():
        count = f"{asked(evaluation.judged, metrics[0]):,}"
        rows = [[_of(title), "customers", *metrics]]
        rows += [[c.name, count, *(_cell(c.figures.get(metric)) for metric in metrics)] for c in board.contenders]
        yield from _aligned(rows)
        rows = [["ours, by segment", "customers", *metrics]]
        for name, contenders in board.segments.items():
            count = f"{asked(evaluation.judged, metrics[0], name):,}"
            rows.append([name, count, *(_cell(contenders[0].figures.get(metric)) for metric in metrics)])
        yield from _aligned(rows)
    yield "  customers: each counted once at each date; who is in the top decile is in another segment too"
    if board.missing:
        yield f"  not identified at every cutoff, so not compared: {', '.join(board.missing)}"


def _of(title: str) -> str:
    return "" if title == EVERYONE else f"of {title}"


def _cell(spread: Spread | None) -> str:
    if spread is None or math.isnan(spread.mean):
        return "-"
    return f"{spread.mean:.3f} ({spread.worst:.3f})"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return [f"  {line}".rstrip() for line in lines]
