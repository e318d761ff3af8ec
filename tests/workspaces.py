"""A small shop with known quirks, and the whole line run on it: what tests of later stages start from."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import yaml

from features import online, retrieval, snapshot
from ingest import intake
from serving import score_rows, scoring
from serving.predictor import Predictor
from training import pipelines
from training.gate import promotion
from workspace import registry, settings, storage
from workspace.settings import Workspace

if TYPE_CHECKING:
    from feast import FeatureStore

AS_OF = date(2023, 7, 1)
CUSTOMERS = 400
# Whose ids a URL must escape, who refuse profiling, who refuse marketing, who signed up and never bought.
ODD_IDS = ("Zoë/7 & co", "007")
NO_PROFILING = range(20, 30)
NO_MARKETING = range(30, 50)
NEVER_BOUGHT = range(390, 400)

_FIRST_DAY = date(2022, 1, 1)
_CATEGORIES = ("coffee", "tea", "cake", "cups")
_PRODUCTS = 12


def small_workspace(folder: Path, *overrides: str) -> Workspace:
    """Writes 400 customers' tables, `workspace.yaml` and nothing else below `folder`; its home is `folder/home`."""
    folder.mkdir(parents=True, exist_ok=True)
    _customers().to_csv(folder / "customers.csv", index=False)
    _products().to_csv(folder / "products.csv", index=False)
    _transactions().to_parquet(folder / "transactions.parquet", index=False)
    wanted = {
        "name": "small",
        "timezone": "Europe/Berlin",
        "tables": {name: {"path": str(folder / file)} for name, file in _FILES.items()},
        "churn": {"horizon": 60},
        "lifetime_value": {"horizon": 60},
        "cross_sell": {"horizon": 60, "top": 2},
        "training": {"cutoffs": 3},
    }
    path = folder / "workspace.yaml"
    path.write_text(yaml.safe_dump(wanted), encoding="utf-8")
    return settings.read(path, overrides, home=folder / "home")


def run_line(workspace: Workspace, as_of: date = AS_OF) -> pd.DataFrame:
    """Ingest to publish at `as_of`, every trained model promoted, in MLFLOW_TRACKING_URI; returns the scores."""
    intake.ingest(workspace, datetime(2030, 1, 1, tzinfo=UTC))
    snapshot.snapshot(workspace, pipelines.cutoffs(workspace, as_of))
    store, tracker = retrieval.apply(workspace), registry.client()
    for kind, version in pipelines.train(store, workspace, tracker, as_of).items():
        promotion.promote(tracker, workspace, kind, str(version.version))
    scores = scored(Predictor.load(workspace, tracker, as_of), as_of)
    publish(store, workspace, as_of)
    return scores


def scored(predictor: Predictor, as_of: date, say: Callable[[str], None] = lambda _: None) -> pd.DataFrame:
    """The scores of `as_of`, written anew."""
    scoring.score(predictor, as_of, say)
    return pd.read_parquet(storage.scores_path(predictor.workspace.home_path, as_of))


def publish(store: FeatureStore, workspace: Workspace, as_of: date) -> None:
    """As `perennial publish` does: with what the scores answer beside the vectors."""
    answers = score_rows.beside_vectors_of(workspace, registry.client, as_of)
    online.publish(store, workspace, as_of, answers=answers)


_FILES = {"customers": "customers.csv", "products": "products.csv", "transactions": "transactions.parquet"}


def _ids() -> list[str]:
    return [*ODD_IDS, *(f"c{number:04}" for number in range(len(ODD_IDS), CUSTOMERS))]


def _customers() -> pd.DataFrame:
    numbers = np.arange(CUSTOMERS)
    return pd.DataFrame(
        {
            "customer_id": _ids(),
            "signed_up_at": [_FIRST_DAY + timedelta(days=int(number)) for number in numbers % 300],
            "marketing_consent": ~np.isin(numbers, NO_MARKETING),
            "profiling_consent": ~np.isin(numbers, NO_PROFILING),
        }
    )


def _products() -> pd.DataFrame:
    numbers = range(_PRODUCTS)
    return pd.DataFrame(
        {
            "product_id": [f"p{number}" for number in numbers],
            "category": [_CATEGORIES[number % len(_CATEGORIES)] for number in numbers],
        }
    )


def _transactions() -> pd.DataFrame:
    """Poisson purchases of one to three lines, at each customer's own pace, until each drops out or the data ends."""
    random = np.random.default_rng(7)
    days = (AS_OF - _FIRST_DAY).days
    lines = []
    for number, customer_id in enumerate(_ids()):
        if number in NEVER_BOUGHT:
            continue
        pace, day = random.gamma(4.0, 8.0), float(number % 300)
        while day < days:
            for _ in range(random.integers(1, 4)):
                lines.append((customer_id, int(day), random.integers(_PRODUCTS), round(random.gamma(4.0, 5.0) + 1, 2)))
            day += 1 + random.exponential(pace)
            if random.random() < 0.08:
                break
    rows = pd.DataFrame(lines, columns=["customer_id", "day", "product", "amount"])
    return pd.DataFrame(
        {
            "transaction_id": rows["customer_id"] + "-" + rows["day"].astype(str),
            "customer_id": rows["customer_id"],
            "occurred_at": pd.Timestamp(_FIRST_DAY) + pd.to_timedelta(rows["day"] * 24 + 12, unit="h"),
            "product_id": "p" + rows["product"].astype(str),
            "amount": rows["amount"],
        }
    )
