"""Accuracy of a whole run on real shops beside the peers, all scored against the window that followed.

    python -m benchmarks.accuracy                                    # the three reported windows
    python -m benchmarks.accuracy online_retail 2011-03-01           # any other one

Each run is `perennial run` in a folder of its own; the peers are fitted here on the same snapshot. Nothing after the
as_of reaches a model: the outcomes are read only to print the figures.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import lightgbm as lgb
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from features import retrieval, snapshot
from perennial import settings, storage
from perennial.settings import Workspace
from training import datasets, labels, metrics
from training.models.bg_nbd import BGNBD
from training.models.gamma_gamma import GammaGamma
from training.models.pareto_nbd import ParetoNBD

Floats = NDArray[np.floating]

REPORTED = (("online_retail", "2011-06-01"), ("complete_journey", "2017-10-01"), ("cdnow", "1997-10-01"))
RESULTS = Path("benchmarks/results")
_LONG_AFTER = date(2100, 1, 1)
_RFM = (
    "frequency", "recency", "T", "monetary_value", "days_since_last_purchase", "n_purchases_30d", "n_purchases_90d",
    "n_purchases_180d", "n_purchases_365d", "n_purchases", "spend_30d", "spend_90d", "spend_180d", "spend_365d",
    "spend",
    "gap_mean", "spend_mean",
)  # fmt: skip
_PLAIN = {"learning_rate": 0.05, "num_leaves": 31, "verbose": -1, "seed": 7, "deterministic": True}


@dataclass(frozen=True)
class Answer:
    """What one contender says of every customer: probability of leaving (nan: cannot) and value."""

    name: str
    churn: Floats | None
    value: Floats | None


def main() -> None:
    asked = [tuple(sys.argv[1:3])] if len(sys.argv) > 2 else list(REPORTED)
    found = [measure(name, date.fromisoformat(as_of)) for name, as_of in asked]
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "accuracy.json").write_text(json.dumps(found, indent=1))


def measure(name: str, as_of: date) -> dict[str, object]:
    """Runs one workspace at one as_of and prints its table; returns the same figures."""
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch) / "home"
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{scratch}/mlflow.db"
        seconds, gigabytes = _run(name, as_of, home)
        workspace = settings.read(Path(f"configs/{name}.yaml"), home=home)
        scores = pd.read_parquet(storage.scores_path(home, as_of))
        truth = _truth(workspace, as_of, scores["customer_id"])
        ours = Answer("Perennial", scores["churn_probability"].to_numpy(), scores["lifetime_value"].to_numpy())
        answers = [*_peers(workspace, as_of), ours]
    print(f"\n{name} at {as_of}, {workspace.churn.horizon} days: {len(scores):,} customers")
    print(f"run: {seconds:.0f} s, {gigabytes:.1f} GB")
    can_leave = ~np.isnan(ours.churn) if ours.churn is not None else np.array([])
    print(f"{int(can_leave.sum()):,} can leave, {truth['churned'][can_leave].mean():.3f} did")
    rows = {answer.name: _figures(answer, truth, can_leave) for answer in answers}
    print(pd.DataFrame(rows).T.to_string(float_format=lambda x: f"{x:.4f}", na_rep=""))
    inside = (truth["value"] >= scores["lifetime_value_low"]) & (truth["value"] <= scores["lifetime_value_high"])
    print(f"value within its 80 % bounds: {inside.mean():.3f}")
    return {"workspace": name, "as_of": str(as_of), "seconds": seconds, "gigabytes": gigabytes, "figures": rows}


def _run(name: str, as_of: date, home: Path) -> tuple[float, float]:
    start = time.monotonic()
    command = [
        sys.executable,
        "-m",
        "perennial",
        "run",
        "-c",
        f"configs/{name}.yaml",
        "--as-of",
        str(as_of),
        "--home",
        str(home),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr[-3000:])
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024**2
    return time.monotonic() - start, peak


def _truth(workspace: Workspace, as_of: date, customer_ids: pd.Series) -> dict[str, Floats]:
    happened = labels.outcomes(workspace, [as_of], _LONG_AFTER).set_index("customer_id").reindex(customer_ids)
    return {
        "churned": 1.0 - happened["bought"].eq(True).to_numpy(dtype=float),
        "value": happened["value"].fillna(0.0).to_numpy(dtype=float),
        "count": happened["n_purchases"].fillna(0.0).to_numpy(dtype=float),
    }


def _figures(answer: Answer, truth: dict[str, Floats], can_leave: NDArray[np.bool_]) -> dict[str, float]:
    found: dict[str, float] = {}
    if answer.churn is not None:
        actual, predicted = truth["churned"][can_leave], answer.churn[can_leave]
        found |= {"auc": metrics.auc(actual, predicted)}
        if predicted.max() <= 1:
            found |= {
                "ap": metrics.average_precision(actual, predicted), "brier": metrics.brier(actual, predicted),
                "ece": metrics.ece(actual, predicted),
            }  # fmt: skip
    if answer.value is not None:
        value = np.nan_to_num(answer.value)
        for name in ("ngini", "spearman", "decile_wape", "bias"):
            found[name] = getattr(metrics, name)(truth["value"], value)
    return found


def _peers(workspace: Workspace, as_of: date) -> list[Answer]:
    rows = retrieval.customer_rows(retrieval.apply(workspace), workspace, [as_of])
    silence = rows["days_since_last_purchase"].to_numpy(dtype=float)
    rate = rows["spend_365d"].to_numpy(dtype=float) / 365
    naive = Answer(
        "silence / last year's rate", np.nan_to_num(silence, nan=1e6), rate * workspace.lifetime_value.horizon
    )
    by_history = [_history(workspace, rows, model) for model in (BGNBD, ParetoNBD)]
    return [naive, *by_history, *_plain_boosting(workspace, as_of, rows)]


def _history(workspace: Workspace, rows: pd.DataFrame, model: type[BGNBD] | type[ParetoNBD]) -> Answer:
    """Churn as the field's practice has it: exp(-expected purchases)."""
    x, t_x, T, m = (rows[name].to_numpy(dtype=float) for name in ("frequency", "recency", "T", "monetary_value"))
    bought, repeat = ~np.isnan(x), (x > 0) & (m > 0)
    try:
        fitted = model.fit(x[bought], t_x[bought], T[bought])
    except ValueError:
        return Answer(f"{model.__name__} + Gamma-Gamma (not identified)", None, None)
    spend = GammaGamma.fit(x[repeat], m[repeat]).expected_spend(np.where(repeat, x, 0.0), np.where(repeat, m, np.nan))
    days = (workspace.churn.horizon, workspace.lifetime_value.horizon)
    churn, value = (np.full(len(rows), np.nan) for _ in range(2))
    churn[bought] = np.exp(-fitted.expected_purchases(x[bought], t_x[bought], T[bought], days[0]))
    value[bought] = fitted.expected_purchases(x[bought], t_x[bought], T[bought], days[1])
    return Answer(f"{model.__name__} + Gamma-Gamma", churn, value * spend)


def _plain_boosting(workspace: Workspace, as_of: date, rows: pd.DataFrame) -> list[Answer]:
    """What a good afternoon's work gives: LightGBM, 17 RFM features, the four latest closed cutoffs, no calibration."""
    closed = datasets.cutoffs(workspace, as_of)[-4:]
    if not closed:
        return []
    snapshot.snapshot(workspace, [*closed, as_of])
    past = retrieval.customer_rows(retrieval.apply(workspace), workspace, closed)
    happened = labels.outcomes(workspace, closed, as_of)
    happened["as_of"] = pd.to_datetime(happened["as_of"])
    past["as_of"] = pd.to_datetime(past["as_of"])
    past = past.merge(happened.drop(columns="n_purchases"), on=["customer_id", "as_of"], how="left")
    able = past["days_since_last_purchase"] <= workspace.churn.active_window
    columns = list(_RFM)
    target = 1.0 - past["bought"].eq(True).astype(float)
    churn = lgb.train({**_PLAIN, "objective": "binary"}, lgb.Dataset(past.loc[able, columns], target[able]), 150)
    spent = past["value"].fillna(0).clip(lower=0)
    value = lgb.train({**_PLAIN, "objective": "tweedie"}, lgb.Dataset(past[columns], spent), 150)
    return [
        Answer("plain LightGBM", np.asarray(churn.predict(rows[columns])), np.asarray(value.predict(rows[columns])))
    ]


if __name__ == "__main__":
    main()
