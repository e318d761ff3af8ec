"""Drift between two snapshots: what is named, what is quiet, and what is left on disk."""

from __future__ import annotations

import dataclasses
import gc
import json
import re
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from registries import new_registry
from scipy.stats import ks_2samp

from features.snapshot import CUSTOMER_FAMILIES, features_of
from monitoring import drift
from workspace import registry, settings, storage
from workspace.settings import Workspace

THEN, NOW = date(2023, 3, 1), date(2023, 6, 1)
VARIED = ("n_purchases_30d", "spend_30d", "spend_90d", "spend_365d", "monetary_value", "gap_mean", "gap_cv",
          "silence_vs_gap", "spend_last", "weekend_share", "n_categories_365d", "hour_mean_365d")  # fmt: skip
COMPARED = {*VARIED, "days_since_last_purchase"}


def make_workspace(home: Path, **settings_of: object) -> Workspace:
    """A workspace without tables: drift reads nothing but snapshots."""
    tables = {"transactions": {"path": "none.csv"}, "customers": {"path": "none.csv"}}
    return settings.parse({"name": "shop", "home": str(home), "tables": tables, **settings_of}, "test")


def make_features(customers: int, seed: int, times: Mapping[str, float] | None = None) -> pd.DataFrame:
    """Heavy-tailed `VARIED` features, multiplied by `times`; days that are plausible."""
    random = np.random.default_rng(seed)
    rows = pd.DataFrame({name: random.lognormal(0, 1.5, customers) for name in VARIED})
    rows["T"] = rows["tenure_days"] = random.integers(300, 1200, customers)
    rows["days_since_last_purchase"] = random.integers(1, 300, customers)
    for name, factor in (times or {}).items():
        rows[name] *= factor
    return rows


def write_snapshot(
    workspace: Workspace, as_of: date, rows: pd.DataFrame, absent: Sequence[str] = ("engagement",)
) -> pd.DataFrame:
    """Writes a part per family, 0 where `rows` has no such column; families in `absent` have no customer at all."""
    customer_ids = [f"c{number}" for number in range(len(rows))]
    for family in CUSTOMER_FAMILIES:
        names = [feature.name for feature in features_of(family, workspace)]
        part = pd.DataFrame({name: rows.get(name, np.zeros(len(rows))) for name in names}).astype("float32")
        part = part.assign(customer_id=customer_ids, as_of=pd.Timestamp(as_of, tz="UTC"))
        path = storage.snapshot_part(workspace.home_path, family, as_of)
        path.mkdir(parents=True)
        part.head(0 if family in absent else len(part)).to_parquet(path / "part.parquet", index=False)
    return rows


def compared(workspace: Workspace, champion: drift.Champion | None = None) -> drift.Drift:
    """The verdict without the pages."""
    return drift.Comparison(workspace, NOW, THEN, champion).drift()


def names(drifted: drift.Drift) -> set[str]:
    return {shift.feature for shift in drifted.features}


def test_an_ordinary_resample_is_quiet(tmp_path: Path) -> None:
    """Of two samples of one population nothing moved."""
    workspace = make_workspace(tmp_path)
    write_snapshot(workspace, THEN, make_features(1500, seed=1))
    write_snapshot(workspace, NOW, make_features(1500, seed=2))
    result = compared(workspace)
    assert not result.drifted
    assert result.features == ()
    assert result.judged == len(COMPARED)


def test_few_customers_are_not_taken_for_drift(tmp_path: Path) -> None:
    """Heavy tails in a shop of 120 customers differ by chance; the threshold grows to allow for that."""
    workspace = make_workspace(tmp_path)
    write_snapshot(workspace, THEN, make_features(120, seed=3))
    write_snapshot(workspace, NOW, make_features(120, seed=4))
    assert compared(workspace).features == ()


def test_a_planted_shift_is_caught_and_named_first(tmp_path: Path) -> None:
    """Features that grew a hundredfold come before one that grew sixfold, and scores are Kolmogorov-Smirnov's."""
    workspace = make_workspace(tmp_path)
    grown = VARIED[:4]
    before = write_snapshot(workspace, THEN, make_features(1500, seed=1))
    after = write_snapshot(workspace, NOW, make_features(1500, 2, dict.fromkeys(grown, 100.0) | {"gap_mean": 6.0}))
    result = compared(workspace)
    assert result.drifted
    assert result.share == pytest.approx(5 / len(COMPARED))
    assert {shift.feature for shift in result.features[:4]} == set(grown)
    assert result.features[4].feature == "gap_mean"
    for shift in result.features:
        side = before[shift.feature].astype("float32"), after[shift.feature].astype("float32")
        assert shift.score == pytest.approx(ks_2samp(*side).statistic)
        assert (shift.before, shift.after) == pytest.approx([values.mean() for values in side], rel=1e-4)


@pytest.mark.parametrize("factor", [1.0, 4.0])
def test_the_verdict_does_not_depend_on_the_sample(tmp_path: Path, factor: float) -> None:
    """2,000 and 10,000 rows a side name the same features, where any significance test would find more in more rows."""
    workspace = make_workspace(tmp_path, monitoring={"sample": 2000})
    shifted = dict.fromkeys(VARIED[:5], factor) | {"weekend_share": 1.08}
    write_snapshot(workspace, THEN, make_features(12_000, seed=1))
    write_snapshot(workspace, NOW, make_features(12_000, 2, shifted))
    larger = make_workspace(tmp_path, monitoring={"sample": 10_000})
    few, many = compared(workspace), compared(larger)
    assert (few.current_rows, many.current_rows) == (2000, 10_000)
    assert few.drifted == many.drifted == (factor > 1)
    assert names(few) == names(many) == (set(VARIED[:5]) if factor > 1 else set())


def test_constant_and_empty_features_are_skipped_by_name(tmp_path: Path) -> None:
    """A feature that is one constant or null on both sides is listed as such and not judged."""
    workspace = make_workspace(tmp_path)
    for as_of, seed in ((THEN, 1), (NOW, 2)):
        write_snapshot(workspace, as_of, make_features(300, seed).assign(spend_max=np.nan, price_mean_365d=np.nan))
    result = compared(workspace)
    assert {"n_purchases_7d", "price_mean_365d", "n_visit_30d", "satisfaction_last"} <= set(result.constant)
    assert not set(result.constant) & COMPARED


def test_a_feature_that_became_constant_is_judged(tmp_path: Path) -> None:
    """One constant against another value of it, or against many, is a shift and not a reason to skip."""
    workspace = make_workspace(tmp_path)
    write_snapshot(workspace, THEN, make_features(300, 1))
    write_snapshot(workspace, NOW, make_features(300, 2).assign(gap_cv=0.0, n_purchases_14d=5.0))
    assert names(compared(workspace)) == {"gap_cv", "n_purchases_14d"}


def test_growing_with_the_calendar_is_no_drift(tmp_path: Path) -> None:
    """Tenure, totals of a whole past, windows longer than the history and the shop's season are not judged."""
    workspace = make_workspace(tmp_path)
    before, after = make_features(300, 1), make_features(300, 2)
    for rows, days in ((before, 170), (after, 260)):
        rows["T"] = rows["tenure_days"] = rows["n_purchases"] = rows["spend_365d"] = days - rows.index % 50
        rows["n_purchases_next_30d_last_year"] = rows["spend_change_90d"] = rows["spend_decayed_90d"] = days
        rows["shop_growth_90d"] = days / 170
    write_snapshot(workspace, THEN, before)
    write_snapshot(workspace, NOW, after)
    result = compared(workspace)
    assert result.features == ()
    windows = {"spend_365d", "spend_change_90d", "spend_decayed_90d", "n_purchases_next_30d_last_year"}
    assert {"T", "tenure_days", "n_purchases", "shop_growth_90d", *windows} <= set(result.growing)
    assert {"spend_30d", "spend_90d"}.isdisjoint(result.growing)


def test_a_table_that_stopped_coming_is_drift(tmp_path: Path) -> None:
    """Features that were known of everyone and now of nobody have moved, by who holds them."""
    workspace = make_workspace(tmp_path)
    visits = {f"n_visit_{days}d": np.arange(300) % days for days in (30, 90)}
    write_snapshot(workspace, THEN, make_features(300, 1).assign(**visits), absent=())
    write_snapshot(workspace, NOW, make_features(300, 2).assign(**visits))
    result = compared(workspace)
    assert [(s.feature, s.compared, s.score, s.before, s.after) for s in result.features] == [
        (name, "presence", 1.0, 1.0, 0.0) for name in visits
    ]


def test_text_attributes_are_compared_as_categories(tmp_path: Path) -> None:
    """What counts is the share of customers whose value changed; many rare values that differ by chance do not."""
    workspace = make_workspace(tmp_path, attributes=["region", "plan"])
    codes = {"region": {"north": 0, "south": 1, "east": 2}, "plan": {f"p{number}": number for number in range(40)}}
    storage.write_json(tmp_path / "tables" / "attribute_codes.json", codes)
    region, plans = np.repeat([0, 1, 2], 100), np.random.default_rng(5).integers(0, 40, (2, 300))
    write_snapshot(workspace, THEN, make_features(300, 1).assign(attribute_region=region, attribute_plan=plans[0]))
    moved = np.full_like(region, 2)
    write_snapshot(workspace, NOW, make_features(300, 2).assign(attribute_region=moved, attribute_plan=plans[1]))
    (shift,) = compared(workspace).features
    assert (shift.feature, shift.compared) == ("attribute_region", "categories")
    assert shift.score == pytest.approx(2 / 3)


def test_only_customers_whom_the_model_predicts_are_compared(tmp_path: Path) -> None:
    """Customers long gone pile up at every later date; they change nothing."""
    workspace = make_workspace(tmp_path)
    write_snapshot(workspace, THEN, make_features(300, 1))
    gone = make_features(300, 3, dict.fromkeys(VARIED, 100.0)).assign(days_since_last_purchase=500)
    write_snapshot(workspace, NOW, pd.concat([make_features(300, 2), gone], ignore_index=True))
    result = compared(workspace)
    assert result.features == ()
    assert result.current_rows == 300


def test_nobody_to_compare_is_refused(tmp_path: Path) -> None:
    """A snapshot in which nobody is active is no empty, quiet report."""
    workspace = make_workspace(tmp_path)
    write_snapshot(workspace, THEN, make_features(300, 1))
    write_snapshot(workspace, NOW, make_features(300, 2).assign(days_since_last_purchase=500))
    with pytest.raises(storage.CheckFailed, match=r"no customer of 2023-06-01 has days_since_last_purchase <= 365"):
        compared(workspace)


SHIFTED = dict.fromkeys(VARIED[:6], 5.0)


def test_a_season_that_comes_every_year_is_quiet(tmp_path: Path) -> None:
    """Six features that are five times as large as in the reference, as they were a year ago, have not moved."""
    workspace, last_year = make_workspace(tmp_path), date(2022, 6, 2)
    write_snapshot(workspace, last_year, make_features(1500, 3, SHIFTED))
    write_snapshot(workspace, THEN, make_features(1500, seed=1))
    write_snapshot(workspace, NOW, make_features(1500, 2, SHIFTED))
    result = drift.watch(workspace, NOW, THEN)
    assert (result.drifted, result.features, result.last_year) == (False, (), last_year)
    assert [page.name for page in result.pages] == ["drift-2023-06-01.html", "drift-2023-06-01-last-year.html"]


def test_more_than_the_season_is_caught(tmp_path: Path) -> None:
    """What differs from last year as well is no season; each is held against the nearer of the two."""
    workspace = make_workspace(tmp_path)
    write_snapshot(workspace, date(2022, 6, 2), make_features(1500, 3, SHIFTED))
    write_snapshot(workspace, THEN, make_features(1500, seed=1))
    write_snapshot(workspace, NOW, make_features(1500, 2, SHIFTED | dict.fromkeys(VARIED[:5], 100.0)))
    result = compared(workspace)
    assert result.drifted
    assert names(result) == set(VARIED[:5])


def test_what_moves_every_month_has_to_move_farther(tmp_path: Path) -> None:
    """Limits come from the workspace's own past: a feature that swings each quarter is quiet, a steady one is not."""
    workspace = make_workspace(tmp_path)
    for month in range(1, 10):
        swing = {"spend_30d": 4.0} if month % 2 else {}
        write_snapshot(workspace, date(2022, month, 1), make_features(800, month, swing))
    past_to, now = date(2022, 9, 1), date(2022, 12, 1)
    write_snapshot(workspace, now, make_features(800, 20, {"spend_90d": 4.0}))
    result = drift.Comparison(workspace, now, past_to, None).drift()
    assert result.past == 6
    (shift,) = result.features
    assert shift.feature == "spend_90d"
    assert shift.past is not None
    assert shift.past < 0.1
    assert not result.drifted


@dataclasses.dataclass(frozen=True)
class Told:
    """Stands for a champion that decides by some features alone, and predicts their sum."""

    decides_by: tuple[str, ...]

    def importance(self, customers: pd.DataFrame) -> dict[str, float]:
        return dict.fromkeys(self.decides_by, 1 / len(self.decides_by))

    def predictions(self, customers: pd.DataFrame) -> pd.DataFrame:
        return pd.DataFrame({"churn_probability": customers[list(self.decides_by)].sum(axis=1)})


@pytest.mark.parametrize(("decides_by", "matters"), [(("spend_30d", "spend_90d"), True), (("weekend_share",), False)])
def test_drift_matters_where_the_model_decides_by_what_moved(
    tmp_path: Path, decides_by: tuple[str, ...], matters: bool
) -> None:
    """The same six features move; to a model that decides by none of them it does not matter, though it is drift."""
    workspace = make_workspace(tmp_path)
    write_snapshot(workspace, THEN, make_features(800, seed=1))
    write_snapshot(workspace, NOW, make_features(800, 2, dict.fromkeys(VARIED[:6], 100.0)))
    result = compared(workspace, Told(decides_by))  # type: ignore[arg-type]
    assert (result.drifted, result.matters) == (True, matters)
    assert bool(result.predictions) is matters
    assert result.weight == pytest.approx(1.0 if matters else 0.0)


def test_a_half_written_snapshot_is_named_with_the_remedy(tmp_path: Path) -> None:
    """A part that is cut off, or empty, is no snapshot: a sentence, and no page of it."""
    workspace = make_workspace(tmp_path)
    for as_of, seed in ((THEN, 1), (NOW, 2)):
        write_snapshot(workspace, as_of, make_features(100, seed))
    part = storage.snapshot_part(tmp_path, "basket", NOW) / "part.parquet"
    part.write_bytes(part.read_bytes()[:200])
    with pytest.raises(storage.CheckFailed, match=r"the snapshot of 2023-06-01 cannot be read .*; remove .*, then run"):
        drift.watch(workspace, NOW, THEN)
    part.unlink()
    with pytest.raises(storage.CheckFailed, match=r"basket/2023-06-01 is empty; run `perennial snapshot"):
        drift.watch(workspace, NOW, THEN)
    assert not (tmp_path / "reports").exists()


def test_a_column_that_exists_no_longer_is_said(tmp_path: Path) -> None:
    """A feature of the reference that nothing asks for any more is left out by name; the rest is compared."""
    workspace = make_workspace(tmp_path)
    write_snapshot(workspace, THEN, make_features(300, 1))
    write_snapshot(workspace, NOW, make_features(300, 2))
    part = storage.snapshot_part(tmp_path, "basket", THEN) / "part.parquet"
    pd.read_parquet(part).assign(old_index=1.0).to_parquet(part, index=False)
    result = drift.watch(workspace, NOW, THEN)
    assert (result.gone, result.drifted) == (("old_index",), False)
    assert "in the reference alone: old_index" in str(result)


def test_where_evidently_cannot_draw_the_verdict_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own failure is a sentence in place of a page; what moved is known and recorded, the old page stays."""
    workspace = make_workspace(tmp_path)
    write_snapshot(workspace, THEN, make_features(300, 1))
    write_snapshot(workspace, NOW, make_features(300, 2))
    page = drift.watch(workspace, NOW, THEN).page
    before = page.read_bytes()

    def fail(run: object, page: str) -> None:
        raise ValueError("cannot bin a constant column")

    monkeypatch.setattr("evidently.core.report.Snapshot.save_html", fail)
    result = drift.watch(workspace, NOW, THEN)
    assert (result.pages, result.drifted) == ((), False)
    assert "Evidently could not draw it (cannot bin a constant column)" in str(result)
    assert json.loads(result.record.read_text())["problem"] == result.problem
    assert page.read_bytes() == before
    assert gc.isenabled(), "a failure leaves the process without its garbage collection"


def test_columns_that_are_constant_on_one_side_or_both_are_drawn(tmp_path: Path) -> None:
    """Evidently gets no column that is one constant on both sides, and draws one that became constant."""
    from monitoring import report

    before = pd.DataFrame({"steady": 1.0, "fixed": np.arange(100.0), "kind": "a", "empty": np.nan})
    after = before.assign(fixed=5.0, kind=["a", "b"] * 50)
    pages, problem = report.write(
        make_workspace(tmp_path), tmp_path / "drift.html", {"": report.Side(before, after)}, {}
    )
    assert (problem, [page.name for page in pages]) == ("", ["drift.html"])
    assert "of columns (2 out of 2)" in pages[0].read_text(encoding="utf-8")


def test_the_user_interface_has_the_latest_runs_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Evidently's own workspace holds a project of the shop's name with a run for each page; the oldest go."""
    from evidently.ui.workspace import Workspace as Runs

    from monitoring import report

    monkeypatch.setattr(report, "_KEPT", 2)
    workspace, rows = make_workspace(tmp_path), pd.DataFrame({"spend": np.arange(100.0)})
    with pytest.raises(storage.CheckFailed, match=r"nothing was compared in .* yet; run `perennial monitor"):
        report.serve(workspace, 8000)
    for number in range(4):
        report.write(workspace, tmp_path / f"drift-{number}.html", {"": report.Side(rows, rows + number)}, {})
    runs = Runs.create(str(tmp_path / "evidently"))
    (project,) = runs.list_projects()
    assert project.name == "shop"
    assert len(runs.list_runs(project.id)) == 2


@pytest.mark.parametrize(("there", "absent"), [(THEN, NOW), (NOW, THEN)])
def test_a_missing_snapshot_is_named_with_the_remedy(tmp_path: Path, there: date, absent: date) -> None:
    """Either side may be missing; the error says which, and how to make it."""
    workspace = make_workspace(tmp_path)
    write_snapshot(workspace, there, make_features(100, 1))
    with pytest.raises(storage.CheckFailed, match=f"run `perennial snapshot -c FILE --as-of {absent}`"):
        drift.watch(workspace, NOW, THEN)


def test_a_snapshot_of_other_settings_is_named_with_the_remedy(tmp_path: Path) -> None:
    """A snapshot from before an attribute was added lacks its column."""
    for as_of in (THEN, NOW):
        write_snapshot(make_workspace(tmp_path), as_of, make_features(100, 1))
    with pytest.raises(storage.CheckFailed, match="other features than these settings ask for; run"):
        drift.watch(make_workspace(tmp_path, attributes=["region"]), NOW, THEN)


def test_page_and_record_agree_with_the_answer(tmp_path: Path) -> None:
    """Evidently counts what we count, its page needs no network, and the record holds every field of the answer."""
    workspace = make_workspace(tmp_path)
    write_snapshot(workspace, THEN, make_features(300, 1))
    write_snapshot(workspace, NOW, make_features(300, 2, dict.fromkeys(VARIED[:6], 100.0)))
    result = drift.watch(workspace, NOW, THEN)
    page, record = result.page.read_text(encoding="utf-8"), json.loads(result.record.read_text())
    assert result.page == tmp_path / "reports" / "drift-2023-06-01.html"
    assert f"of columns (6 out of {result.judged})" in page
    assert not re.search(r"""<(script|link|img)[^>]+(src|href)=["']?https?:""", page)
    assert {field.name for field in dataclasses.fields(result)} <= record.keys()
    assert (record["drifted"], record["reference"], record["share"]) == (True, "2023-03-01", result.share)
    assert [feature["feature"] for feature in record["features"]] == [shift.feature for shift in result.features]
    lines = str(result).splitlines()
    assert len(lines) <= 9
    assert lines[0] == (
        "drift at 2023-06-01 against 2023-03-01, and it matters to the model; no earlier month says what is usual"
    )
    assert lines[1].startswith("6 of 13 features moved (46%; 30% is drift), with 46% of what the model decides by")
    assert result.features[0].feature in lines[2]


@pytest.mark.parametrize(("factor", "drifts"), [(1.0, False), (100.0, True)])
def test_a_quiet_month_is_recorded_whole_and_drawn_where_asked_for(tmp_path: Path, factor: float, drifts: bool) -> None:
    """Without `draw_quiet` Evidently draws where there is drift alone; the record has every score and limit anyway."""
    workspace = make_workspace(tmp_path)
    write_snapshot(workspace, THEN, make_features(300, 1))
    write_snapshot(workspace, NOW, make_features(300, 2, dict.fromkeys(VARIED[:6], factor)))
    result = drift.watch(workspace, NOW, THEN, draw_quiet=False)
    record = json.loads(result.record.read_text())
    assert result.drifted == drifts
    assert result.page.exists() == bool(result.pages) == drifts
    assert ("`perennial monitor` draws Evidently's pages" in str(result)) is not drifts
    assert record["compared"].keys() == COMPARED
    beyond = {name for name, of in record["compared"].items() if of["score"] >= of["limit"]}
    assert beyond == names(result) == (set(VARIED[:6]) if drifts else set())


def test_the_page_shows_what_moved_and_how_to_see_the_rest(tmp_path: Path) -> None:
    """Columns beyond `monitoring.page_columns` are left out, which it says; 0 shows all; what moved is the same."""
    results, pages = [], []
    for most in (8, 0):
        workspace = make_workspace(tmp_path / str(most), monitoring={"page_columns": most})
        write_snapshot(workspace, THEN, make_features(300, 1))
        write_snapshot(workspace, NOW, make_features(300, 2, dict.fromkeys(VARIED[:6], 100.0)))
        results.append(drift.watch(workspace, NOW, THEN))
        pages.append(results[-1].page.read_text(encoding="utf-8"))
    assert results[0].features == results[1].features
    assert "This page shows 8 of 13 columns" in pages[0]
    assert "of columns (6 out of 8)" in pages[0]
    assert all(f'"{name}"' in pages[0] for name in VARIED[:6])
    assert "Dataset Drift is" not in pages[0]
    assert "of columns (6 out of 13)" in pages[1]
    assert "This page shows" not in pages[1]
    assert "Dataset Drift is detected" in pages[1]


def test_what_is_predicted_has_the_first_place_on_the_page(tmp_path: Path) -> None:
    """Then what moved farthest beyond its limit: of two places beside it, none is for what moved less or not at all."""
    workspace = make_workspace(tmp_path, monitoring={"page_columns": 3})
    write_snapshot(workspace, THEN, make_features(800, seed=1))
    moved = {"gap_mean": 100.0, "spend_30d": 100.0, "spend_90d": 3.0}
    write_snapshot(workspace, NOW, make_features(800, 2, moved))
    side = drift.Comparison(workspace, NOW, THEN, Told(("weekend_share",))).sides()[""]  # type: ignore[arg-type]
    assert {*side.before} == {*side.after} == {"churn_probability", "gap_mean", "spend_30d"}
    assert side.left_out == len(COMPARED) + 1 - 3


def test_a_failing_report_leaves_the_last_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where Evidently breaks while it writes, yesterday's page and record stay, and nothing else."""
    workspace = make_workspace(tmp_path)
    for as_of, seed in ((THEN, 1), (NOW, 2)):
        write_snapshot(workspace, as_of, make_features(300, seed))
    drift.watch(workspace, NOW, THEN)
    left = {path: path.read_bytes() for path in (tmp_path / "reports").iterdir()}

    def break_off(run: object, page: str) -> None:
        Path(page).write_text("<html><body>half a")
        raise OSError("disk full")

    monkeypatch.setattr("evidently.core.report.Snapshot.save_html", break_off)
    with pytest.raises(OSError, match="disk full"):
        drift.watch(workspace, NOW, THEN)
    assert {path: path.read_bytes() for path in (tmp_path / "reports").iterdir()} == left
    assert len(left) == 2


def test_the_reference_is_the_latest_cutoff_of_the_champion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the champion's own as_of where it learnt from no cutoff, and an error where there is no champion."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", new_registry(tmp_path / "mlflow.db"))
    workspace, tracker = make_workspace(tmp_path), registry.client()
    name = registry.model_name(workspace, "churn")
    with pytest.raises(storage.CheckFailed, match=r"shop\.churn has no champion; run `perennial train`"):
        drift.reference_of(tracker, workspace)
    tracker.create_registered_model(name)
    experiment = tracker.create_experiment("shop", artifact_location=(tmp_path / "artifacts").as_uri())
    for cutoffs, expected in (("2023-01-30 2023-03-01", THEN), ("", NOW)):
        run = tracker.create_run(experiment).info.run_id
        tracker.log_param(run, "cutoffs", cutoffs)
        tracker.log_param(run, "as_of", str(NOW))
        version = tracker.create_model_version(name, (tmp_path / "artifacts").as_uri(), run)
        tracker.set_registered_model_alias(name, "champion", version.version)
        assert drift.reference_of(tracker, workspace) == expected
