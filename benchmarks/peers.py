"""What accuracy is measured on: a run of Perennial in a folder of its own, what then happened, and what the peers say.

The peers are fitted here, on the same snapshots, by purchases before the as_of only.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory

import lightgbm as lgb
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from features import retrieval, snapshot
from serving.predictor import NO_CONSENT
from training.learning import datasets, labels
from training.models.bg_nbd import BGNBD
from training.models.gamma_gamma import GammaGamma
from training.models.pareto_nbd import ParetoNBD
from workspace import settings, storage
from workspace.settings import Workspace

Floats = NDArray[np.floating]

_LONG_AFTER = date(2100, 1, 1)
RFM = (
    "frequency", "recency", "T", "monetary_value", "days_since_last_purchase", "n_purchases_30d", "n_purchases_90d",
    "n_purchases_180d", "n_purchases_365d", "n_purchases", "spend_30d", "spend_90d", "spend_180d", "spend_365d",
    "spend",
    "gap_mean", "spend_mean",
)  # fmt: skip
PLAIN = {"learning_rate": 0.05, "num_leaves": 31, "verbose": -1, "seed": 7, "deterministic": True}
_ROUNDS = 150


@dataclass(frozen=True)
class Answer:
    """What one contender says of every customer; None where it says nothing."""

    name: str
    churn: Floats | None = None
    value: Floats | None = None
    purchases: Floats | None = None


@dataclass(frozen=True)
class Truth:
    """What then happened, a row per scored customer: 1 if nothing was bought, net spend, days with a purchase."""

    churned: Floats
    value: Floats
    purchases: Floats


@dataclass(frozen=True)
class Finished:
    """A run that has ended: what it answered, and what it took."""

    workspace: Workspace
    as_of: date
    scores: pd.DataFrame
    seconds: float
    gigabytes: float

    @property
    def ours(self) -> Answer:
        names = ("churn_probability", "lifetime_value", "expected_purchases")
        return Answer("Perennial", *(self.scores[name].to_numpy(dtype=float) for name in names))

    @property
    def may_be_asked(self) -> NDArray[np.bool_]:
        """Of whom contenders are compared: about who refused profiling we say nothing."""
        return (self.scores["not_scored_reason"] != NO_CONSENT).to_numpy()

    @property
    def truth(self) -> Truth:
        happened = labels.outcomes(self.workspace, [self.as_of], _LONG_AFTER).set_index("customer_id")
        happened = happened.reindex(self.scores["customer_id"])
        return Truth(
            1.0 - happened["bought"].eq(True).to_numpy(dtype=float),
            happened["value"].fillna(0.0).to_numpy(dtype=float),
            happened["n_purchases"].fillna(0.0).to_numpy(dtype=float),
        )


@contextmanager
def finished(config: Path, as_of: date) -> Iterator[Finished]:
    """`perennial run` of a workspace file, in a folder that is gone afterwards."""
    with TemporaryDirectory() as scratch:
        home = Path(scratch) / "home"
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{scratch}/mlflow.db"
        start = time.monotonic()
        command = [sys.executable, "-m", "perennial", "run", "-c", str(config), "--as-of", str(as_of)]
        done = subprocess.run([*command, "--home", str(home)], capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(done.stderr[-3000:])
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024**2
        workspace = settings.read(config, home=home)
        scores = pd.read_parquet(storage.scores_path(home, as_of))
        yield Finished(workspace, as_of, scores, time.monotonic() - start, peak)


def peers(run: Finished) -> list[Answer]:
    """In the order of the scores' rows."""
    rows = _customers(run.workspace, [run.as_of]).set_index("customer_id").loc[run.scores["customer_id"]]
    by_history = [_history(run.workspace, rows, model) for model in (BGNBD, ParetoNBD)]
    return [_naive(run.workspace, rows), *by_history, *_plain_boosting(run.workspace, run.as_of, rows)]


def _customers(workspace: Workspace, days: list[date]) -> pd.DataFrame:
    return retrieval.customer_rows(retrieval.apply(workspace), workspace, days)


def _naive(workspace: Workspace, rows: pd.DataFrame) -> Answer:
    """Who has been silent longest leaves; everyone goes on at the daily rate of the last 365 days."""
    silence = np.nan_to_num(rows["days_since_last_purchase"].to_numpy(dtype=float), nan=1e6)
    spend, purchases = (np.nan_to_num(rows[f"{name}_365d"].to_numpy(dtype=float)) for name in ("spend", "n_purchases"))
    share = workspace.lifetime_value.horizon / 365
    return Answer("silence / last year's rate", silence, spend * share, purchases * share)


def _history(workspace: Workspace, rows: pd.DataFrame, model: type[BGNBD] | type[ParetoNBD]) -> Answer:
    """Churn as the field's practice has it: exp(-expected purchases). Drop-out may be left open by the data."""
    x, t_x, T, m = (rows[name].to_numpy(dtype=float) for name in ("frequency", "recency", "T", "monetary_value"))
    bought, repeat = ~np.isnan(x), (x > 0) & (m > 0)
    fitted, _ = model.fit_regardless(x[bought], t_x[bought], T[bought])
    spend = GammaGamma.fit(x[repeat], m[repeat]).expected_spend(np.where(repeat, x, 0.0), np.where(repeat, m, np.nan))
    churn, purchases = (np.full(len(rows), np.nan) for _ in range(2))
    churn[bought] = np.exp(-fitted.expected_purchases(x[bought], t_x[bought], T[bought], workspace.churn.horizon))
    purchases[bought] = fitted.expected_purchases(x[bought], t_x[bought], T[bought], workspace.lifetime_value.horizon)
    return Answer(f"{model.__name__} + Gamma-Gamma", churn, purchases * spend, purchases)


def _plain_boosting(workspace: Workspace, as_of: date, rows: pd.DataFrame) -> list[Answer]:
    """What a good afternoon's work gives: LightGBM, 17 RFM features, the four latest closed cutoffs, no calibration."""
    if datasets.taught(workspace, as_of) != workspace:
        return []  # no window as long as the horizon has closed
    closed = datasets.cutoffs(workspace, as_of)[-4:]
    if not closed:
        return []
    snapshot.snapshot(workspace, [*closed, as_of])
    past = _customers(workspace, closed)
    happened = labels.outcomes(workspace, closed, as_of)
    happened["as_of"] = pd.to_datetime(happened["as_of"])
    past["as_of"] = pd.to_datetime(past["as_of"])
    past = past.merge(happened.drop(columns="n_purchases"), on=["customer_id", "as_of"], how="left")
    able = past["days_since_last_purchase"] <= workspace.churn.active_window
    left, spent = 1.0 - past["bought"].eq(True).astype(float), past["value"].fillna(0).clip(lower=0)
    churn = _boosted(past[able], left[able], "binary", rows)
    return [
        Answer("plain LightGBM, tweedie", churn, _boosted(past, spent, "tweedie", rows)),
        Answer("plain LightGBM, log1p", None, np.expm1(_boosted(past, np.log1p(spent), "regression", rows))),
    ]


def _boosted(past: pd.DataFrame, target: pd.Series, objective: str, rows: pd.DataFrame) -> Floats:
    columns = list(RFM)
    model = lgb.train({**PLAIN, "objective": objective}, lgb.Dataset(past[columns], target), _ROUNDS)
    return np.asarray(model.predict(rows[columns]))
