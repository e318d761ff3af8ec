"""Drift between two snapshots: what is named, what is quiet, and what is left on disk."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ks_2samp

from features.snapshot import CUSTOMER_FAMILIES, features_of
from monitoring import drift
from perennial import registry, settings, storage
from perennial.settings import Workspace

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


def names(found: drift.Drift) -> set[str]:
    return {shift.feature for shift in found.features}


def test_an_ordinary_resample_is_quiet(tmp_path: Path) -> None:
    """Of two samples of one population nothing moved."""
    workspace = make_workspace(tmp_path)
    write_snapshot(workspace, THEN, make_features(1500, seed=1))
    write_snapshot(workspace, NOW, make_features(1500, seed=2))
    found = drift.watch(workspace, NOW, THEN)
    assert not found.drifted
    assert found.features == ()
    assert found.judged == len(COMPARED)


def test_few_customers_are_not_taken_for_drift(tmp_path: Path) -> None:
    """Heavy tails in a shop of 120 customers differ by chance; the threshold grows to allow for that."""
    workspace = make_workspace(tmp_path)
    write_snapshot(workspace, THEN, make_features(120, seed=3))
    write_snapshot(workspace, NOW, make_features(120, seed=4))
    assert drift.watch(workspace, NOW, THEN).features == ()


def test_a_planted_shift_is_caught_and_named_first(tmp_path: Path) -> None:
    """Features that grew a hundredfold come before one that merely doubled, and scores are Kolmogorov-Smirnov's."""
    workspace = make_workspace(tmp_path)
    grown = VARIED[:4]
    before = write_snapshot(workspace, THEN, make_features(1500, seed=1))
    after = write_snapshot(workspace, NOW, make_features(1500, 2, dict.fromkeys(grown, 100.0) | {"gap_mean": 2.0}))
    found = drift.watch(workspace, NOW, THEN)
    assert found.drifted
    assert found.share == pytest.approx(5 / len(COMPARED))
    assert {shift.feature for shift in found.features[:4]} == set(grown)
    assert found.features[4].feature == "gap_mean"
    for shift in found.features:
        side = before[shift.feature].astype("float32"), after[shift.feature].astype("float32")
        assert shift.score == pytest.approx(ks_2samp(*side).statistic)
        assert (shift.before, shift.after) == pytest.approx([values.mean() for values in side], rel=1e-4)


@pytest.mark.parametrize("factor", [1.0, 1.7])
def test_the_verdict_does_not_depend_on_the_sample(tmp_path: Path, factor: float) -> None:
    """2,000 and 10,000 rows a side name the same features, where any significance test would find more in more rows."""
    workspace = make_workspace(tmp_path, monitoring={"sample": 2000})
    shifted = dict.fromkeys(VARIED[:5], factor) | {"weekend_share": 1.08}
    write_snapshot(workspace, THEN, make_features(12_000, seed=1))
    write_snapshot(workspace, NOW, make_features(12_000, 2, shifted))
    larger = make_workspace(tmp_path, monitoring={"sample": 10_000})
    few, many = drift.watch(workspace, NOW, THEN), drift.watch(larger, NOW, THEN)
    assert (few.current_rows, many.current_rows) == (2000, 10_000)
    assert few.drifted == many.drifted == (factor > 1)
    assert names(few) == names(many) == (set(VARIED[:5]) if factor > 1 else set())


def test_constant_and_empty_features_are_skipped_by_name(tmp_path: Path) -> None:
    """A feature that is one constant or null on both sides is listed as such and not judged."""
    workspace = make_workspace(tmp_path)
    for as_of, seed in ((THEN, 1), (NOW, 2)):
        write_snapshot(workspace, as_of, make_features(300, seed).assign(spend_max=np.nan, price_mean_365d=np.nan))
    found = drift.watch(workspace, NOW, THEN)
    assert {"n_purchases_7d", "price_mean_365d", "n_visit_30d", "satisfaction_last"} <= set(found.constant)
    assert not set(found.constant) & COMPARED


def test_a_feature_that_became_constant_is_judged(tmp_path: Path) -> None:
    """One constant against another value of it, or against many, is a shift and not a reason to skip."""
    workspace = make_workspace(tmp_path)
    write_snapshot(workspace, THEN, make_features(300, 1))
    write_snapshot(workspace, NOW, make_features(300, 2).assign(gap_cv=0.0, n_purchases_14d=5.0))
    assert names(drift.watch(workspace, NOW, THEN)) == {"gap_cv", "n_purchases_14d"}


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
    found = drift.watch(workspace, NOW, THEN)
    assert found.features == ()
    windows = {"spend_365d", "spend_change_90d", "spend_decayed_90d", "n_purchases_next_30d_last_year"}
    assert {"T", "tenure_days", "n_purchases", "shop_growth_90d", *windows} <= set(found.growing)
    assert {"spend_30d", "spend_90d"}.isdisjoint(found.growing)


def test_a_table_that_stopped_coming_is_drift(tmp_path: Path) -> None:
    """Features that were known of everyone and now of nobody have moved, by who holds them."""
    workspace = make_workspace(tmp_path)
    visits = {f"n_visit_{days}d": np.arange(300) % days for days in (30, 90)}
    write_snapshot(workspace, THEN, make_features(300, 1).assign(**visits), absent=())
    write_snapshot(workspace, NOW, make_features(300, 2).assign(**visits))
    found = drift.watch(workspace, NOW, THEN)
    assert [(s.feature, s.compared, s.score, s.before, s.after) for s in found.features] == [
        (name, "presence", 1.0, 1.0, 0.0) for name in visits
    ]


def test_text_attributes_are_compared_as_categories(tmp_path: Path) -> None:
    """What counts is the share of customers whose value changed; many rare values that differ by chance do not."""
    workspace = make_workspace(tmp_path, attributes=["region", "plan"])
    codes = {"region": {"north": 0, "south": 1, "east": 2}, "plan": {f"p{number}": number for number in range(40)}}
    storage.write_json(tmp_path / "tables" / "attribute_codes.json", codes)
    region, plans = np.repeat([0, 1, 2], 100), np.random.default_rng(5).integers(0, 40, (2, 300))
    write_snapshot(workspace, THEN, make_features(300, 1).assign(attribute_region=region, attribute_plan=plans[0]))
    moved = np.where(region == 0, 2, region)
    write_snapshot(workspace, NOW, make_features(300, 2).assign(attribute_region=moved, attribute_plan=plans[1]))
    (shift,) = drift.watch(workspace, NOW, THEN).features
    assert (shift.feature, shift.compared) == ("attribute_region", "categories")
    assert shift.score == pytest.approx(1 / 3)


def test_only_customers_whom_the_model_predicts_are_compared(tmp_path: Path) -> None:
    """Customers long gone pile up at every later date; they change nothing."""
    workspace = make_workspace(tmp_path)
    write_snapshot(workspace, THEN, make_features(300, 1))
    gone = make_features(300, 3, dict.fromkeys(VARIED, 100.0)).assign(days_since_last_purchase=500)
    write_snapshot(workspace, NOW, pd.concat([make_features(300, 2), gone], ignore_index=True))
    found = drift.watch(workspace, NOW, THEN)
    assert found.features == ()
    assert found.current_rows == 300


def test_nobody_to_compare_is_refused(tmp_path: Path) -> None:
    """A snapshot in which nobody is active is no empty, quiet report."""
    workspace = make_workspace(tmp_path)
    write_snapshot(workspace, THEN, make_features(300, 1))
    write_snapshot(workspace, NOW, make_features(300, 2).assign(days_since_last_purchase=500))
    with pytest.raises(storage.CheckFailed, match=r"no customer of 2023-06-01 has days_since_last_purchase <= 365"):
        drift.watch(workspace, NOW, THEN)


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
    found = drift.watch(workspace, NOW, THEN)
    page, record = found.page.read_text(encoding="utf-8"), json.loads(found.record.read_text())
    assert found.page == tmp_path / "reports" / "drift-2023-06-01.html"
    assert f"of columns (6 out of {found.judged})" in page
    assert not re.search(r"""<(script|link|img)[^>]+(src|href)=["']?https?:""", page)
    assert {field.name for field in dataclasses.fields(found)} <= record.keys()
    assert (record["drifted"], record["reference"], record["share"]) == (True, "2023-03-01", found.share)
    assert [feature["feature"] for feature in record["features"]] == [shift.feature for shift in found.features]
    lines = str(found).splitlines()
    assert len(lines) <= 8
    assert lines[0] == "drift at 2023-06-01 against 2023-03-01: 6 of 13 features moved (46%; 30% is drift)"
    assert found.features[0].feature in lines[1]


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
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
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
