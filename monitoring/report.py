"""Evidently's pages of what was compared, by our measures, and its own user interface over the latest of them."""

from __future__ import annotations

import contextlib
import gc
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from monitoring import customers, shifts
from monitoring.arrivals import TABLES
from monitoring.shifts import Column, Numbers, Texts
from workspace import storage
from workspace.settings import Workspace

_KEPT = 24  # runs that the user interface shows


class Side(NamedTuple):
    """The rows before and after that a page is drawn of; `left_out` columns that were compared are not on it."""

    before: pd.DataFrame
    after: pd.DataFrame
    left_out: int = 0


Sides = Mapping[str, Side]


def write(workspace: Workspace, page: Path, sides: Sides, limits: Mapping[str, float]) -> tuple[tuple[Path, ...], str]:
    """Writes a page for each of `sides`, named after `page`; returns them, or a sentence why Evidently drew none.

    A page marks what differs by `limits` between its own two sides; what moved differs from the reference and from last
    year. What Evidently cannot draw takes nothing from the verdict, and the pages of an earlier day stay.
    """
    pages: list[Path] = []
    for name, side in sides.items():
        path = page.with_stem(page.stem + name)
        try:
            with _evidently():
                run = _run(workspace, side, limits, summary=name.removeprefix("-") in TABLES)
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
    """Without its reports home, and without what importing 0.7.23 warns of: names that numpy and litestar deprecate.

    Nor is what it makes, of which little is garbage before the page is written, looked through for garbage meanwhile:
    that takes a quarter of its import.
    """
    os.environ.setdefault("DO_NOT_TRACK", "1")
    collects = gc.isenabled()
    gc.disable()
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        if collects:
            gc.enable()


def _run(workspace: Workspace, side: Side, limits: Mapping[str, float], summary: bool) -> Any:
    """Evidently's run over all columns that both sides have and that are not one constant on both, by our measure.

    A summary describes each column: empty cells, distinct values, quantiles. Where columns are left out, a sentence
    says so in place of Evidently's verdict, which is of the columns that it is shown.
    """
    from evidently import DataDefinition, Dataset, Report
    from evidently.legacy.calculations.stattests import StatTest, register_stattest
    from evidently.legacy.core import ColumnType
    from evidently.legacy.renderers.html_widgets import text_widget
    from evidently.presets import DataDriftPreset, DataSummaryPreset

    class Table(DataDriftPreset):
        """The preset without the chart per column that it also draws, never shows, and spends half its time on."""

        def generate_metrics(self, context: Any) -> Any:
            return super().generate_metrics(context)[:1]

        def render(self, context: Any, child_widgets: Any = None) -> Any:
            widgets = super().render(context, child_widgets)
            return [text_widget(text=_left_out(side)), *widgets[1:]] if side.left_out else widgets

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
    then, now = _columns(workspace.home_path, side.before, side.after)
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


def _left_out(side: Side) -> str:
    shown = len(side.before.columns)
    return (
        f"This page shows {shown} of {shown + side.left_out} columns: what is predicted, and the features that moved"
        " farthest or came nearest to it. The verdict is of all columns, and the JSON beside this page lists all that"
        " moved. With `--set monitoring.page_columns=0` the page shows all."
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
    """Adds a run to Evidently's own workspace; the oldest go.

    Evidently's `Workspace` (0.7.23) reads every run that it holds when it is opened: this is the part of it that
    writes, which reads none. The run is written at once: its own writer asks Python for every number of it.
    """
    from evidently.legacy.core import new_id
    from evidently.sdk.models import ProjectModel
    from evidently.ui.storage.local.base import SNAPSHOTS_DIR_NAME, LocalState

    _folder(workspace.home_path).mkdir(exist_ok=True)
    runs = LocalState(str(_folder(workspace.home_path)))
    named = [project for project in runs.list_projects() if runs.read_project(project).name == workspace.name]
    project = named[0] if named else runs.write_project(ProjectModel(name=workspace.name)).id
    run.set_name(name)
    kept = _folder(workspace.home_path) / str(project) / SNAPSHOTS_DIR_NAME
    kept.mkdir(exist_ok=True)
    (kept / f"{new_id()}.json").write_text(run.dumps(), encoding="utf-8")
    for old in sorted(runs.list_snapshots(project), key=str)[:-_KEPT]:
        runs.delete_snapshot(project, old)


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
