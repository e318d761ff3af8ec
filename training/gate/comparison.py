"""Two runs side by side: metrics on the same customers with intervals, by segment, and whose scores moved most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

import numpy as np

from training.gate import paired_difference
from training.gate.conditions import changed_question
from training.gate.paired_difference import Difference
from training.kinds import Kind, kind_of
from training.records import judged_windows, tracking
from workspace.storage import CheckFailed

if TYPE_CHECKING:
    from mlflow import MlflowClient

_MOVED = 10
_SEED = 7


@dataclass(frozen=True)
class Moved:
    """One customer's score in both runs, and what then happened; of offers the score is the list's ndcg."""

    customer_id: str
    first: float
    second: float
    actual: float | None


@dataclass(frozen=True)
class Comparison:
    """Of two runs of one kind, at the cutoffs that both were judged at and on the customers that both answered for."""

    kind: str
    runs: tuple[str, str]
    as_of: tuple[date, ...]
    answers: int
    metrics: Sequence[Difference]
    segments: Mapping[str, Sequence[Difference]]
    moved: Sequence[Moved]


def compare(tracker: MlflowClient, first: str, second: str) -> Comparison:
    """Either is the id of a run, or a version, such as `demo.churn/3`.

    Raises:
        CheckFailed: one is no training, they are of different workspaces or models, answer different questions, or
            share no judged cutoff.
    """
    runs = [tracking.training_run(tracker, text) for text in (first, second)]
    owners = [tracker.get_experiment(run.info.experiment_id).name for run in runs]
    kinds = [tracking.kind_of(run) for run in runs]
    for what, (one, other) in (("workspaces", owners), ("models", kinds)):
        if one != other:
            raise CheckFailed(f"{first} and {second} are of different {what}, {one} and {other}: nothing compares them")
    asked = [tracking.settings_of(tracking.artifacts(tracker, run.info.run_id), run.info.run_id) for run in runs]
    if changed := changed_question(kind_of(kinds[0]), *asked):
        raise CheckFailed(f"{first} and {second} answer different questions, so nothing compares them: {changed}")
    judged = [
        judged_windows.read(workspace.home_path, run.info.run_id) for workspace, run in zip(asked, runs, strict=True)
    ]
    pairs = paired_difference.paired(judged[0], judged[1])
    if not pairs:
        days = [", ".join(str(cutoff.as_of) for cutoff in cutoffs) or "none" for cutoffs in judged]
        raise CheckFailed(
            f"{first} and {second} were judged at no common cutoff ({days[0]}; {days[1]}): train both at one --as-of"
        )
    return _compared(kind_of(kinds[0]), (first, second), pairs)


def _compared(kind: Kind, runs: tuple[str, str], pairs: Sequence[paired_difference.Pair]) -> Comparison:
    main, _ = paired_difference.measured(kind.measures, pairs)
    metrics = [paired_difference.difference(pairs, name, _SEED) for name in kind.compared(main)]
    segments = {name: [paired_difference.difference(pairs, main, _SEED, name)] for name in pairs[0][0].segments}
    days = tuple(cutoff.as_of for cutoff, _ in pairs)
    answers = sum(len(cutoff.customer_ids) for cutoff, _ in pairs)
    return Comparison(kind.name, runs, days, answers, metrics, segments, _moved(pairs[-1], main))


def _moved(pair: paired_difference.Pair, main: str) -> list[Moved]:
    """At the latest cutoff, the largest change first; ties by id."""
    scores = [cutoff.scores(main) for cutoff in pair]
    change = np.nan_to_num(np.abs(scores[1] - scores[0]))
    order = np.lexsort((pair[1].customer_ids.astype(str), -change))[:_MOVED]
    actual = pair[1].outcomes
    return [
        Moved(
            str(pair[1].customer_ids[i]), float(scores[0][i]), float(scores[1][i]),
            None if actual is None else float(actual[i]),
        )
        for i in order if change[i] > 0
    ]  # fmt: skip


def as_text(comparison: Comparison) -> str:
    """A line per metric and segment, `+` or `-` where the second run is better or worse beyond noise."""
    lines = [
        f"{comparison.kind}: {comparison.runs[0]} -> {comparison.runs[1]}, {comparison.answers:,} answers at"
        f" {', '.join(map(str, comparison.as_of))}"
    ]
    lines += [f"{_sign(one)} {one}" for one in comparison.metrics]
    if any(_sign(one) != " " for one in comparison.metrics):
        lines.append("(+ better, - worse beyond noise)")
    lines += ["by segment"]
    lines += [f"{_sign(one)} {name}: {one}" for name, several in comparison.segments.items() for one in several]
    if not comparison.moved:
        return "\n".join([*lines, f"no score moved at {comparison.as_of[-1]}"])
    lines.append(f"whose scores moved most at {comparison.as_of[-1]}")
    lines += [f"  {one.customer_id:<14}  {one.first:.4g} -> {one.second:.4g}{_then(one)}" for one in comparison.moved]
    return "\n".join(lines)


def _sign(one: Difference) -> str:
    return "+" if one.is_better else "-" if one.is_worse() else " "


def _then(one: Moved) -> str:
    return "" if one.actual is None else f"; it came to {one.actual:.4g}"
