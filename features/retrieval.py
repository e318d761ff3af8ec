"""Features out of Feast: point-in-time for training and scoring, packed for the service."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from itertools import product
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import yaml
from numpy.typing import NDArray

from features.snapshot import (
    CUSTOMER_FAMILIES,
    KEYS,
    customer_features,
    families,
    features_hash,
    features_of,
    fingerprint,
)
from perennial import storage
from perennial.settings import Workspace
from perennial.storage import CheckFailed
from perennial.windows import midnight

if TYPE_CHECKING:
    from feast import FeatureStore

_REPO = Path(__file__).with_name("repo")
_PUBLISH_BLOCK = 20_000


class FeatureMismatch(RuntimeError):
    """The online features are not the ones that the model was trained on; serving them would be wrong."""


def open_store(workspace: Workspace) -> FeatureStore:
    """The workspace's Feast store, as `features/repo/feature_store.yaml` describes it."""
    from feast import FeatureStore, RepoConfig

    (workspace.home_path / "feast").mkdir(parents=True, exist_ok=True)
    filled = Template((_REPO / "feature_store.yaml").read_text()).substitute(
        PERENNIAL_HOME=workspace.home_path, PERENNIAL_WORKSPACE=workspace.name
    )
    return FeatureStore(config=RepoConfig(**yaml.safe_load(filled)))


def apply(workspace: Workspace) -> FeatureStore:
    """Registers the entities, views and services of the workspace, and keeps its settings for Feast's own tools."""
    from features.repo.definitions import definitions

    storage.write_json(workspace.home_path / "workspace.json", workspace.model_dump(mode="json", exclude_none=True))
    store = open_store(workspace)
    store.apply(definitions(workspace, families(workspace)))
    return store


def customers_at(workspace: Workspace, as_of: date) -> pd.Series:
    """The customers known at `as_of`, sorted; their profile part says who they are.

    Raises:
        CheckFailed: there is no snapshot at `as_of`.
    """
    part = _part(workspace, "profile", as_of)
    return pd.read_parquet(part, columns=["customer_id"])["customer_id"].sort_values(ignore_index=True)


def customer_rows(store: FeatureStore, workspace: Workspace, as_of_dates: Sequence[date]) -> pd.DataFrame:
    """All customer features, one row per (customer_id, as_of) known then; sorted by as_of, then customer_id.

    Raises:
        CheckFailed: there is no snapshot at one of the dates, or the point-in-time join lost or doubled a row.
    """
    asked = pd.concat(
        [pd.DataFrame({"customer_id": customers_at(workspace, a), "as_of": pd.Timestamp(a)}) for a in as_of_dates],
        ignore_index=True,
    )
    names = [f"{family}:{f.name}" for family in CUSTOMER_FAMILIES for f in features_of(family, workspace)]
    rows = _historical(store, workspace, asked, names, ["customer_id"])
    if lost := int(rows["tenure_days"].isna().sum()):
        raise CheckFailed(
            f"the feature join found no snapshot for {lost:,} of {len(asked):,} rows; run `snapshot` again"
        )
    return rows


def item_rows(store: FeatureStore, workspace: Workspace, asked: pd.DataFrame, family: str) -> pd.DataFrame:
    """A family's features for each row of `asked` (its keys and `as_of`), sorted by as_of, then key.

    Null for a pair that the family does not have: what was never bought.

    Raises:
        CheckFailed: there is no snapshot at one of the dates, or the point-in-time join lost or doubled a row.
    """
    names = [f"{family}:{feature.name}" for feature in features_of(family, workspace)]
    return _historical(store, workspace, asked, names, list(KEYS[family]))


def _historical(
    store: FeatureStore, workspace: Workspace, asked: pd.DataFrame, names: list[str], keys: list[str]
) -> pd.DataFrame:
    for family, as_of in product(dict.fromkeys(name.split(":")[0] for name in names), asked["as_of"].unique()):
        _part(workspace, family, as_of.date())
    instants = {a: pd.Timestamp(midnight(a.date(), workspace.timezone)) for a in asked["as_of"].unique()}
    entities = asked[keys].assign(event_timestamp=asked["as_of"].map(instants).astype("datetime64[us, UTC]"))
    found = store.get_historical_features(entity_df=entities, features=names).to_df()
    if len(found) != len(asked):
        raise CheckFailed(
            f"the feature join returned {len(found):,} rows for {len(asked):,} asked; nothing was trained"
        )
    found["event_timestamp"] = found["event_timestamp"].astype("datetime64[us, UTC]")
    found = found.sort_values(["event_timestamp", *keys], ignore_index=True)
    order = asked.sort_values(["as_of", *keys], ignore_index=True)
    if not (found[keys].to_numpy() == order[keys].to_numpy()).all():
        raise CheckFailed("the feature join returned other customers than it was asked for; nothing was trained")
    return pd.concat([order[[*keys, "as_of"]], found.drop(columns=[*keys, "event_timestamp"])], axis=1)


def _part(workspace: Workspace, family: str, as_of: date) -> Path:
    part = storage.snapshot_part(workspace.home_path, family, as_of)
    if not part.exists():
        raise CheckFailed(f"{family} has no snapshot at {as_of}; run `perennial snapshot -c FILE --as-of {as_of}`")
    return part


def matrix(rows: pd.DataFrame, names: Sequence[str]) -> NDArray[np.float32]:
    """The named columns as float32, null as nan."""
    return rows[list(names)].to_numpy(dtype=np.float32, na_value=np.nan)


def publish(store: FeatureStore, workspace: Workspace, as_of: date) -> int:
    """Writes one packed vector per customer known at `as_of` to the online store; returns how many."""
    names = [feature.name for feature in customer_features(workspace)]
    rows = customer_rows(store, workspace, [as_of])
    packed = pd.DataFrame(
        {
            "customer_id": rows["customer_id"],
            "as_of": pd.Timestamp(midnight(as_of, workspace.timezone)).as_unit("us"),
            "vector": list(matrix(rows, names)),
        }
    )
    part = storage.snapshot_part(workspace.home_path, "packed", as_of)
    with storage.replacing(part) as draft:
        packed.to_parquet(draft, index=False, coerce_timestamps="us")
    for start in range(0, len(packed), _PUBLISH_BLOCK):
        store.write_to_online_store("customer_vector", packed.iloc[start : start + _PUBLISH_BLOCK])
    published = {"as_of": str(as_of), "features_hash": features_hash(names), "data": fingerprint(workspace)}
    storage.write_json(workspace.home_path / "published.json", published)
    return len(packed)


def is_published(workspace: Workspace, as_of: date) -> bool:
    """Whether the online store holds the features of `as_of`, from the tables and code of now, since it was scored.

    The service takes up new champions with a new publication, so scoring again calls for publishing again.
    """
    path, scores = workspace.home_path / "published.json", storage.scores_path(workspace.home_path, as_of)
    if not path.exists() or not scores.exists() or path.stat().st_mtime_ns < scores.stat().st_mtime_ns:
        return False
    published = storage.read_json(path)
    return (published["as_of"], published.get("data")) == (str(as_of), fingerprint(workspace))


def check_published(store: FeatureStore, expected_hash: str) -> None:
    """Refuses an online view whose features, or their order, are not those of the model.

    Raises:
        FeatureMismatch: the hashes differ.
    """
    published = store.get_feature_view("customer_vector").tags.get("features_hash")
    if published != expected_hash:
        raise FeatureMismatch(
            f"online features have hash {published}, the champion expects {expected_hash}: run `perennial publish`"
        )


def online_vectors(store: FeatureStore, customer_ids: Sequence[str]) -> dict[str, NDArray[np.float32]]:
    """The packed vector of each customer who has one; the others are absent."""
    asked = [{"customer_id": customer_id} for customer_id in customer_ids]
    answer: dict[str, Any] = store.get_online_features(["customer_vector:vector"], asked).to_dict()
    found = zip(answer["customer_id"], answer["vector"], strict=True)
    return {customer_id: np.asarray(v, dtype=np.float32) for customer_id, v in found if v is not None}


def expected_hash(workspace: Workspace) -> str:
    return features_hash(feature.name for feature in customer_features(workspace))
