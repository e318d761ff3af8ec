"""Evidently's pages of what was compared, by our measures, and its own user interface over the latest of them."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from monitoring import customers, shifts
from monitoring.arrivals import TABLES
from monitoring.shifts import Column, Numbers, Texts
from workspace import storage
from workspace.settings import Workspace

Sides = Mapping[str, tuple[pd.DataFrame, pd.DataFrame]]
_KEPT = 24  # runs that the user interface shows


def write(workspace: Workspace, page: Path, sides: Sides, limits: Mapping[str, float]) -> tuple[tuple[Path, ...], str]:
    """Writes a page for each of `sides`, named after `page`; returns them, or a sentence why Evidently drew none.

    A page marks what differs by `limits` between its own two sides; what moved differs from the reference and from last
    year. What Evidently cannot draw takes nothing from the verdict, and the pages of an earlier day stay.
    """
    pages: list[Path] = []
    for name, (before, after) in sides.items():
        path = page.with_stem(page.stem + name)
        try:
            with _evidently():
                run = _run(workspace, before, after, limits, summary=name.removeprefix("-") in TABLES)
                with storage.replacing(path) as draft:
                    run.save_html(str(draft))
                _keep(workspace, run, path.stem)
        except OSError:
            raise
        except Exception as problem:  # a library's own, of any kind
            why = str(problem).splitlines()[0] if str(problem) else type(problem).__name__
            return tuple(pages), f"no page: Evidently could not draw it ({why}); the verdict stands without it"
        pages.append(path)
    return tuple(pages), ""


@contextmanager
def _evidently() -> Iterator[None]:
    """Without its reports home, and without what importing 0.7.23 warns of: names that numpy and litestar deprecate."""
    os.environ.setdefault("DO_NOT_TRACK", "1")
    with warnings.catch_warnings(action="ignore"):
        yield


def _run(
    workspace: Workspace, before: pd.DataFrame, after: pd.DataFrame, limits: Mapping[str, float], summary: bool
) -> Any:
    """Evidently's run over all columns that both sides have and that are not one constant on both, by our measure.

    A summary describes each column: empty cells, distinct values, quantiles.
    """
    from evidently import DataDefinition, Dataset, Report
    from evidently.legacy.calculations.stattests import StatTest, register_stattest
    from evidently.legacy.core import ColumnType
    from evidently.presets import DataDriftPreset, DataSummaryPreset

    class Table(DataDriftPreset):
        """The preset without the chart per column that it also draws, never shows, and spends half its time on."""

        def generate_metrics(self, context: Any) -> Any:
            return super().generate_metrics(context)[:1]

    def moved(before: pd.Series, after: pd.Series, kind: Any, threshold: float) -> tuple[float, bool]:
        is_text = kind == ColumnType.Categorical
        pair = (
            shifts.categories(Texts(before), Texts(after))
            if is_text
            else shifts.numbers(Numbers(before.to_numpy()), Numbers(after.to_numpy()))
        )
        return pair.score, pair.score >= threshold

    kinds = [ColumnType.Numerical, ColumnType.Categorical]
    register_stattest(StatTest("moved", "share of rows that moved", kinds, shifts.MOVED), moved)
    then, now = _columns(workspace.home_path, before, after)
    texts = [name for name in then if then[name].dtype == object]
    definition = DataDefinition(
        numerical_columns=[name for name in then if name not in texts], categorical_columns=texts
    )
    table = Table(
        drift_share=workspace.monitoring.drifted_share, method="moved",
        per_column_threshold={str(name): limits.get(str(name), shifts.MOVED) for name in then},
    )  # fmt: skip
    return Report([table, *([DataSummaryPreset()] if summary else [])]).run(
        reference_data=Dataset.from_pandas(then, definition), current_data=Dataset.from_pandas(now, definition)
    )


def _columns(home: Path, before: pd.DataFrame, after: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Numbers as such, texts of codes as what they stand for; where most holders are gone or new, who holds any."""
    then, now = {}, {}
    for name in map(str, before.columns.intersection(after.columns)):
        left, right = _column(home, name, before[name], after[name])
        if len(pd.concat([left, right]).dropna().unique()) > 1:
            then[name], now[name] = left, right
    return pd.DataFrame(then), pd.DataFrame(now)


def _column(home: Path, name: str, before: pd.Series, after: pd.Series) -> tuple[pd.Series, pd.Series]:
    values = customers.attribute_values(home, name)
    if shifts.changed_hands(Column(before), Column(after)):
        known = {True: "known", False: "unknown"}
        return before.notna().map(known), after.notna().map(known)
    if values is not None:
        return shifts.lumped(before.map(values).fillna("unknown"), after.map(values).fillna("unknown"))
    if pd.api.types.is_numeric_dtype(before):
        return before.astype(float), after.astype(float)
    return shifts.lumped(before.dropna().astype(str), after.dropna().astype(str))


def _folder(home: Path) -> Path:
    return home / "evidently"


def _keep(workspace: Workspace, run: Any, name: str) -> None:
    """Adds a run to Evidently's own workspace; the oldest go."""
    from evidently.ui.workspace import Workspace as Runs

    runs = Runs.create(str(_folder(workspace.home_path)))
    project = next(iter(runs.search_project(workspace.name)), None) or runs.create_project(workspace.name)
    runs.add_run(project.id, run, name=name)
    for old in sorted(runs.list_runs(project.id), key=str)[:-_KEPT]:
        runs.delete_run(project.id, old)


def serve(workspace: Workspace, port: int) -> None:
    """Evidently's user interface over the latest runs, on this machine alone, until it is stopped.

    Raises:
        CheckFailed: nothing was compared yet.
    """
    folder = _folder(workspace.home_path)
    if not folder.exists():
        raise storage.CheckFailed(f"nothing was compared in {workspace.home_path} yet; run `perennial monitor -c FILE`")
    command = [sys.executable, "-W", "ignore", "-m", "evidently.cli", "ui", "--workspace", str(folder)]
    with contextlib.suppress(KeyboardInterrupt):
        subprocess.run([*command, "--port", str(port)], env=os.environ | {"DO_NOT_TRACK": "1"}, check=False)
