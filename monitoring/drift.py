"""Whether today's customers still look like those that the champion learnt from: an Evidently report and a verdict."""

from __future__ import annotations

import math
import os
import re
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import duckdb
import numpy as np
import pandas as pd

from features.snapshot import CUSTOMER_FAMILIES, NOT_FOR_MODELS, customer_features
from perennial import registry, storage
from perennial.settings import Workspace

if TYPE_CHECKING:
    from mlflow import MlflowClient

Comparison = Literal["values", "categories", "presence"]

MOVED = 0.1
"""A feature has moved when a tenth of the customers would have to change for it to look as it did."""
BY_CHANCE = 1.63
"""Times sqrt(1/n + 1/m): the Kolmogorov-Smirnov distance that 1 in 100 pairs of equal samples exceeds."""

_METHOD = (
    "share of customers that moved: Kolmogorov-Smirnov distance of numbers, total variation distance of categories; "
    f"the threshold is {MOVED}, or {BY_CHANCE} * sqrt(1/n + 1/m) where fewer customers make chance larger than that"
)
# Figures of a customer's whole past: they never fall, so they differ between any two dates.
_NEVER_FALL = frozenset(
    {"tenure_days", "T", "n_purchases", "spend", "frequency", "recency", "gap_max", "spend_max"}
    | {"days_since_cancellation"}
)
_CATEGORIES = 10  # of one attribute; many rare ones would differ by chance alone
_SHOWN = 4


@dataclass(frozen=True)
class Shift:
    """One feature that moved, by `score`.

    `before` and `after` are means for `values`, shares of customers of whom it is known for `presence` (a feature that
    more than half of its holders lost, or gained), and null for `categories`.
    """

    feature: str
    compared: Comparison
    score: float
    threshold: float
    before: float | None
    after: float | None

    def __str__(self) -> str:
        if self.before is None or self.after is None:
            return f"{self.score:.2f}  other categories"
        if self.compared == "presence":
            return f"{self.score:.2f}  known of {self.before:.0%} -> {self.after:.0%} of customers"
        return f"{self.score:.2f}  mean {self.before:,.4g} -> {self.after:,.4g}"


@dataclass(frozen=True)
class Drift:
    """What moved between two snapshots, strongest first; `share` is of the `judged` features.

    The features in `growing` and `constant` were not judged. `page` is Evidently's, `record` this one as JSON.
    """

    as_of: date
    reference: date
    drifted: bool
    share: float
    limit: float
    judged: int
    features: tuple[Shift, ...]
    growing: tuple[str, ...]
    constant: tuple[str, ...]
    reference_rows: int
    current_rows: int
    page: Path
    record: Path

    def __str__(self) -> str:
        shown = self.features[:_SHOWN]
        width = max((len(shift.feature) for shift in shown), default=0)
        more = len(self.features) - len(shown)
        lines = [
            f"{'drift' if self.drifted else 'no drift'} at {self.as_of} against {self.reference}: "
            f"{len(self.features)} of {self.judged} features moved ({self.share:.0%}; {self.limit:.0%} is drift)",
            *(f"  {shift.feature:{width}}  {shift}" for shift in shown),
            *([f"  and {more} more, in {self.record}"] if more else []),
            f"not judged: {len(self.growing)} that follow the calendar, {len(self.constant)} empty or constant",
            f"page: {self.page}",
        ]
        return "\n".join(lines)


def reference_of(tracker: MlflowClient, workspace: Workspace) -> date:
    """The latest cutoff that the champion churn model learnt from; where it had none, the as_of it was trained at.

    Earlier cutoffs are left aside: histories were shorter then, so a mixture of all differs from any later date.

    Raises:
        CheckFailed: nothing was promoted yet.
    """
    version = registry.champion(tracker, workspace, "churn")
    if version is None or version.run_id is None:
        name = registry.model_name(workspace, "churn")
        raise storage.CheckFailed(f"{name} has no champion; run `perennial train`, then `perennial promote`")
    recorded = tracker.get_run(version.run_id).data.params
    return date.fromisoformat(max(recorded.get("cutoffs", "").split(), default=recorded["as_of"]))


def watch(workspace: Workspace, as_of: date, reference: date) -> Drift:
    """Compares the snapshot `as_of` with that of `reference`; writes `reports/drift-<as_of>.html` and `.json`.

    Compared are the customers whom the churn model predicts, `monitoring.sample` a side, in what it is shown of them.
    It is drift when at least `monitoring.drifted_share` of the judged features moved. Not judged is what grows with
    the calendar by itself: figures of a whole past (`T`, `tenure_days`, `n_purchases` ...) and windows that reached
    further back than the first purchase at `reference`, which were still filling; nor the shop's own season
    (`shop_...`), one figure for all customers and another every day. Nor are features that are empty or one constant on
    both sides.

    Raises:
        CheckFailed: a snapshot is missing, has no customer to predict, or has no feature to compare.
    """
    before, after = _rows(workspace, reference), _rows(workspace, as_of)
    constant = [name for name in before.columns if not _varies(before[name], after[name])]
    before, after = before.drop(columns=constant), after.drop(columns=constant)
    history = _days_of_history(workspace, reference)
    growing = [name for name in before.columns if _follows_the_calendar(name, history)]
    before, after = before.drop(columns=growing), after.drop(columns=growing)
    if before.columns.empty:
        raise storage.CheckFailed(f"{reference} and {as_of} share no feature to compare: all are constant or grow")
    pairs = {name: _pair(before[name], after[name], _attribute_values(workspace, name)) for name in before.columns}
    shifts = sorted((s for s in map(_shift, pairs.items()) if s.score >= s.threshold), key=lambda s: -s.score)
    share, limit = len(shifts) / len(pairs), workspace.monitoring.drifted_share
    page = workspace.home_path / "reports" / f"drift-{as_of}.html"
    drift = Drift(
        as_of, reference, share >= limit, share, limit, len(pairs), tuple(shifts), tuple(growing), tuple(constant),
        len(before), len(after), page, page.with_suffix(".json"),
    )  # fmt: skip
    with storage.replacing(page) as draft:
        _write_page(pairs, limit, draft)
        storage.write_json(drift.record, asdict(drift) | {"method": _METHOD, "seed": workspace.training.seed})
    return drift


def _rows(workspace: Workspace, as_of: date) -> pd.DataFrame:
    """What the churn model is shown of a fixed sample of the customers whom it predicts at `as_of`."""
    parts = {family: storage.snapshot_part(workspace.home_path, family, as_of) for family in CUSTOMER_FAMILIES}
    for part in parts.values():
        if not part.exists():
            raise storage.CheckFailed(f"{part} is missing; run `perennial snapshot -c FILE --as-of {as_of}`")
    tables = {family: f"{storage.rows_of_part(part)} AS {family}" for family, part in parts.items()}
    everyone = tables.pop("profile")
    joins = " ".join(f"LEFT JOIN {table} USING (customer_id, as_of)" for table in tables.values())
    shown = [f'"{f.name}"' for f in customer_features(workspace) if f.name not in NOT_FOR_MODELS]
    churn = workspace.churn
    active = f"days_since_last_purchase <= {churn.active_window}"
    stayed = "days_since_cancellation IS NULL AND days_since_contract_end IS NULL"
    predicted = stayed if churn.kind == "event" else active
    query = f"""
        SELECT {", ".join(shown)} FROM {everyone} {joins} WHERE {predicted}
        ORDER BY md5(concat(customer_id, {workspace.training.seed})) LIMIT {workspace.monitoring.sample}"""
    with storage.connect(workspace.home_path) as connection:
        try:
            rows = connection.execute(query).df()
        except duckdb.BinderException as problem:
            raise storage.CheckFailed(
                f"the snapshot of {as_of} has other features than these settings ask for;"
                f" run `perennial snapshot -c FILE --as-of {as_of}`"
            ) from problem
    if rows.empty:
        raise storage.CheckFailed(f"no customer of {as_of} has {predicted}, so nobody can be compared; see churn.kind")
    return rows


def _days_of_history(workspace: Workspace, as_of: date) -> int:
    """From the first purchase of all to `as_of`."""
    part = storage.snapshot_part(workspace.home_path, "purchases", as_of)
    with storage.connect(workspace.home_path) as connection:
        days = connection.execute(f'SELECT max("T") FROM {storage.rows_of_part(part)}').fetchall()[0][0]
    return int(days or 0)


def _follows_the_calendar(name: str, history: int) -> bool:
    return name in _NEVER_FALL or name.startswith("shop_") or _days_back(name) > history


def _days_back(name: str) -> int:
    """How far back a feature looks, by its name; 0 where it names no window."""
    if name.endswith("_last_year"):
        return 365
    window = re.search(r"_(\d+)d$", name)
    # A change compares two windows in a row; three time constants hold 95 % of an exponential weight.
    return int(window[1]) * (2 if "_change_" in name else 3 if "_decayed_" in name else 1) if window else 0


def _varies(before: pd.Series, after: pd.Series) -> bool:
    both = pd.concat([before, after])
    return bool(both.max() > both.min())


def _attribute_values(workspace: Workspace, feature: str) -> dict[int, str] | None:
    """What the codes of a text attribute stand for; none for any other feature."""
    path = workspace.home_path / "tables" / "attribute_codes.json"
    if not feature.startswith("attribute_") or not path.exists():
        return None
    codes = storage.read_json(path).get(feature.removeprefix("attribute_"))
    return codes and {code: value for value, code in codes.items()}


@dataclass(frozen=True)
class _Pair:
    """One feature on both sides, as it is compared; `levels` are a shift's `before` and `after`."""

    compared: Comparison
    before: pd.Series
    after: pd.Series
    levels: tuple[float, float] | tuple[None, None]

    @property
    def threshold(self) -> float:
        return max(MOVED, BY_CHANCE * math.sqrt(1 / self.before.count() + 1 / self.after.count()))


def _pair(before: pd.Series, after: pd.Series, values: Mapping[int, str] | None) -> _Pair:
    """Numbers as they are, codes as the values they stand for; where most holders are gone or new, who holds any."""
    levels = float(before.notna().mean()), float(after.notna().mean())
    if min(levels) < max(levels) / 2:
        known = {True: "known", False: "unknown"}
        return _Pair("presence", before.notna().map(known), after.notna().map(known), levels)
    if values is None:
        return _Pair("values", before.astype(float), after.astype(float), (float(before.mean()), float(after.mean())))
    before, after = before.map(values).fillna("unknown"), after.map(values).fillna("unknown")
    common = before.value_counts().index[:_CATEGORIES]
    before, after = before.where(before.isin(common), "other"), after.where(after.isin(common), "other")
    return _Pair("categories", before, after, (None, None))


def _shift(named: tuple[str, _Pair]) -> Shift:
    name, pair = named
    score = _moved(pair.before.dropna(), pair.after.dropna())
    return Shift(name, pair.compared, score, pair.threshold, *pair.levels)


def _moved(before: pd.Series, after: pd.Series) -> float:
    """The least share of customers that would have to change for one side to look like the other.

    It is free of units, of outliers and, but for chance, of the number of rows. Evidently's own choice is not: with
    Wasserstein distance over the standard deviation, and its threshold of 0.1, two thirds of the features of two
    samples of 200 customers from one population (Online Retail II) differ, since the few largest customers decide.
    """
    if pd.api.types.is_numeric_dtype(before):
        every = np.concatenate([before, after])
        below = [np.searchsorted(np.sort(side), every, side="right") / len(side) for side in (before, after)]
        return float(np.abs(below[0] - below[1]).max())
    shares = before.value_counts(normalize=True).sub(after.value_counts(normalize=True), fill_value=0.0)
    return float(shares.abs().sum() / 2)


def _write_page(pairs: Mapping[str, _Pair], limit: float, page: Path) -> None:
    """Evidently's page of all pairs, by our measure."""
    os.environ.setdefault("DO_NOT_TRACK", "1")  # its user interface reports home; a report does not, nor shall it
    # Importing Evidently 0.7.23 uses names that numpy and litestar deprecate.
    with warnings.catch_warnings(action="ignore"):
        from evidently import DataDefinition, Dataset, Report
        from evidently.legacy.calculations.stattests import StatTest, register_stattest
        from evidently.legacy.core import ColumnType
        from evidently.presets import DataDriftPreset

        class Table(DataDriftPreset):
            """The preset without the chart per column that it also draws, never shows, and spends half its time on."""

            def generate_metrics(self, context: Any) -> Any:
                return super().generate_metrics(context)[:1]

        def moved(before: pd.Series, after: pd.Series, kind: Any, threshold: float) -> tuple[float, bool]:
            score = _moved(before, after)
            return score, score >= threshold

        kinds = [ColumnType.Numerical, ColumnType.Categorical]
        register_stattest(StatTest("moved", "share of customers that moved", kinds, MOVED), moved)
        numbers = [name for name, pair in pairs.items() if pair.compared == "values"]
        others = [name for name in pairs if name not in numbers]
        definition = DataDefinition(numerical_columns=numbers, categorical_columns=others)
        thresholds = {name: pair.threshold for name, pair in pairs.items()}
        run = Report([Table(drift_share=limit, method="moved", per_column_threshold=thresholds)]).run(
            reference_data=Dataset.from_pandas(pd.DataFrame({n: p.before for n, p in pairs.items()}), definition),
            current_data=Dataset.from_pandas(pd.DataFrame({n: p.after for n, p in pairs.items()}), definition),
        )
        run.save_html(str(page))
