"""The customers of an as_of as the champion sees them: what it is shown of a sample, what it says of them, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import numpy as np
import pandas as pd

from features.snapshot import CUSTOMER_FAMILIES, customer_features
from training.models.churn_model import ChurnModel
from training.models.customer_model import read_model
from training.models.value_model import ValueModel
from workspace import registry, storage
from workspace.settings import Workspace

if TYPE_CHECKING:
    from mlflow import MlflowClient

PREDICTIONS = ("churn_probability", "expected_purchases", "lifetime_value")
_EXPLAINED = 1000  # customers whose predictions are taken apart


@dataclass(frozen=True)
class Champion:
    """The models that answer, and the as_of that the customers of others are compared with.

    `reference` is the latest cutoff that the churn model learnt from; where it had none, the as_of it was trained at.
    Earlier cutoffs are left aside: histories were shorter then, so a mixture of all differs from any later date.
    """

    reference: date
    churn: ChurnModel
    value: ValueModel

    @classmethod
    def load(cls, tracker: MlflowClient, workspace: Workspace, as_of: date | None = None) -> Champion:
        """Those that answer about `as_of`, which had not seen later days.

        Raises:
            CheckFailed: nothing was promoted yet, nothing that was fits, or the files of it are gone.
        """
        reference = reference_of(tracker, workspace, as_of)
        versions = [registry.answering(tracker, workspace, kind, as_of) for kind in ("churn", "lifetime_value")]
        try:
            folders = [registry.model_folder(tracker, version) for version in versions if version is not None]
        except FileNotFoundError as problem:
            raise storage.CheckFailed(f"{problem}; train and promote again") from problem
        if len(folders) < len(versions):
            raise storage.CheckFailed(f"{workspace.name} has no lifetime_value champion; train and promote one")
        return cls(reference, read_model(ChurnModel, folders[0]), read_model(ValueModel, folders[1]))

    def predictions(self, customers: pd.DataFrame) -> pd.DataFrame:
        """`PREDICTIONS` of these rows of features; null where nothing is predicted."""
        vectors = self._vectors(customers)
        forecast = self.value.forecast(vectors)
        said = (self.churn.probability(vectors), forecast.expected_purchases, forecast.value)
        return pd.DataFrame(dict(zip(PREDICTIONS, said, strict=True)), index=customers.index)

    def importance(self, customers: pd.DataFrame) -> dict[str, float]:
        """The share of each feature in what moves the two models' predictions of some of these customers; 1 in all.

        By mean absolute SHAP values, each model's own sum to one half. A model without booster is its history, whose
        features share alike.
        """
        vectors = self._vectors(customers.head(_EXPLAINED))
        total = dict.fromkeys(self.churn.inputs.packed, 0.0)
        for names, parts in (self.churn.contributions(vectors), self.value.contributions(vectors)):
            weights = dict(zip(names, np.abs(parts).mean(axis=0).tolist(), strict=True))
            if not sum(weights.values()):
                weights = dict.fromkeys(_HISTORY, 1.0)
            for name, weight in weights.items():
                total[name] += weight / sum(weights.values()) / 2
        return total

    def _vectors(self, customers: pd.DataFrame) -> np.ndarray:
        gone = [name for name in self.churn.inputs.packed if name not in customers]
        if gone:
            raise storage.CheckFailed(
                f"the champion learnt from {', '.join(gone[:5])}, which the features have no more: train again"
            )
        return customers[list(self.churn.inputs.packed)].to_numpy(dtype=np.float32, na_value=np.nan)


_HISTORY = ("frequency", "recency", "T", "monetary_value", "days_since_last_purchase")


def reference_of(tracker: MlflowClient, workspace: Workspace, as_of: date | None = None) -> date:
    """See `Champion.reference`. Raises CheckFailed as `Champion.load` does."""
    version = registry.answering(tracker, workspace, "churn", as_of)
    if version is None or version.run_id is None:
        name = registry.model_name(workspace, "churn")
        raise storage.CheckFailed(f"{name} has no champion; run `perennial train`, then `perennial promote`")
    recorded = tracker.get_run(version.run_id).data.params
    return date.fromisoformat(max(recorded.get("cutoffs", "").split(), default=recorded["as_of"]))


def read(connection: duckdb.DuckDBPyConnection, workspace: Workspace, as_of: date) -> pd.DataFrame:
    """Every feature of a fixed sample of the customers whom the churn model predicts at `as_of`.

    Raises:
        CheckFailed: the snapshot is missing, cut off, or of other features; or it has nobody to predict.
    """
    parts = {family: storage.snapshot_part(workspace.home_path, family, as_of) for family in CUSTOMER_FAMILIES}
    again = f"run `perennial snapshot -c FILE --as-of {as_of}`"
    for part in parts.values():
        if not any(part.glob("*.parquet")):
            raise storage.CheckFailed(f"{part} {'is empty' if part.exists() else 'is missing'}; {again}")
    churn = workspace.churn
    active = f"days_since_last_purchase <= {churn.active_window}"
    runs = "(days_since_cancellation IS NULL OR days_until_contract_end IS NOT NULL)"
    stayed = f"{runs} AND days_since_contract_end IS NULL"
    predicted = stayed if churn.kind == "event" else active
    query = f"""
        SELECT {", ".join(f'"{feature.name}"' for feature in customer_features(workspace))}
        FROM {_joined(parts)} WHERE {predicted}
        ORDER BY md5(concat(customer_id, {workspace.training.seed})) LIMIT {workspace.monitoring.sample}"""
    try:
        rows = connection.execute(query).df()
    except duckdb.BinderException as problem:
        raise storage.CheckFailed(
            f"the snapshot of {as_of} has other features than these settings ask for; {again}"
        ) from problem
    except duckdb.Error as problem:
        raise storage.CheckFailed(
            f"the snapshot of {as_of} cannot be read ({str(problem).splitlines()[0]}); remove"
            f" {workspace.home_path}/snapshots/*/{as_of}, then {again}"
        ) from problem
    if rows.empty:
        raise storage.CheckFailed(f"no customer of {as_of} has {predicted}, so nobody can be compared; see churn.kind")
    return rows


def gone(workspace: Workspace, as_of: date) -> tuple[str, ...]:
    """Features that the snapshot of `as_of` has, and these settings have no more."""
    known = {feature.name for feature in customer_features(workspace)} | {"customer_id", "as_of"}
    parts = [storage.snapshot_part(workspace.home_path, family, as_of) for family in CUSTOMER_FAMILIES]
    with storage.connect(workspace.home_path) as connection:
        names = [
            row[0]
            for part in parts
            for row in connection.execute(f"DESCRIBE SELECT * FROM {storage.rows_of_part(part)}").fetchall()
        ]
    return tuple(sorted(set(names) - known))


def _joined(parts: Mapping[str, Path]) -> str:
    tables = {family: f"{storage.rows_of_part(part)} AS {family}" for family, part in parts.items()}
    everyone = tables.pop("profile")
    return " ".join([everyone, *(f"LEFT JOIN {table} USING (customer_id, as_of)" for table in tables.values())])


def days_of_history(connection: duckdb.DuckDBPyConnection, home: Path, as_of: date) -> int:
    """From the first purchase of all to `as_of`."""
    part = storage.snapshot_part(home, "purchases", as_of)
    days = connection.execute(f'SELECT max("T") FROM {storage.rows_of_part(part)}').fetchall()[0][0]
    return int(days or 0)


def attribute_values(home: Path, feature: str) -> dict[int, str] | None:
    """What the codes of a text attribute stand for; none for any other feature."""
    path = home / "tables" / "attribute_codes.json"
    if not feature.startswith("attribute_") or not path.exists():
        return None
    codes = storage.read_json(path).get(feature.removeprefix("attribute_"))
    return codes and {code: value for value, code in codes.items()}
