"""Feast's view of the features: two entities, a view per family, a service per model, one packed view for online.

`feast -c features/repo ...` imports this module; PERENNIAL_HOME then names the workspace's home, which holds the
settings it was last run with.
"""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
from feast.types import Array, Float32

from features.engagement import TREATMENT
from features.profile import CONSENTS
from features.snapshot import CUSTOMER_FAMILIES, customer_features, families, features_hash, features_of
from perennial import settings, storage
from perennial.settings import Workspace

# A snapshot is stamped with the as_of it was built for; an entity row asks for exactly that instant: the one of the
# day before must not stand in for a customer whom a family no longer has. Zero would mean for ever.
_TTL = timedelta(seconds=1)
# Which features must not predict: what the marketer did, and what the customer allowed.
NOT_FOR_MODELS = frozenset(feature.name for feature in (*TREATMENT, *CONSENTS))

CUSTOMER = Entity(name="customer", join_keys=["customer_id"], value_type=ValueType.STRING)
ITEM = Entity(name="product_category", join_keys=["item"], value_type=ValueType.STRING)


def family_view(workspace: Workspace, family: str) -> FeatureView:
    """One family's features, point-in-time, from its snapshots."""
    schema = [
        Field(name=f.name, dtype=Float32, description=f.meaning, tags={"unit": f.unit})
        for f in features_of(family, workspace)
    ]
    entities = {"product_affinity": [CUSTOMER, ITEM], "popularity": [ITEM]}.get(family, [CUSTOMER])
    path = storage.snapshot_part(workspace.home_path, family, "*").as_posix()
    source = FileSource(name=f"{family}_snapshots", path=path, timestamp_field="as_of")
    return FeatureView(name=family, entities=entities, schema=schema, source=source, ttl=_TTL, online=False)


def packed_view(workspace: Workspace) -> FeatureView:
    """All customer features as one array: ten times quicker to write and read online than a column each."""
    names = [feature.name for feature in customer_features(workspace)]
    path = storage.snapshot_part(workspace.home_path, "packed", "*").as_posix()
    return FeatureView(
        name="customer_vector",
        entities=[CUSTOMER],
        schema=[Field(name="vector", dtype=Array(Float32), tags={"order": " ".join(names)})],
        source=FileSource(name="packed_snapshots", path=path, timestamp_field="as_of"),
        ttl=timedelta(0),
        tags={"features_hash": features_hash(names)},
    )


def services(views: dict[str, FeatureView]) -> list[FeatureService]:
    """What each model may see; the treatment and consent columns are left out."""
    allowed = []
    for family in CUSTOMER_FAMILIES:
        view = views[family]
        names = [field.name for field in view.features if field.name not in NOT_FOR_MODELS]
        allowed.append(view[names])
    found = [FeatureService(name=f"{model}_v1", features=allowed) for model in ("churn", "lifetime_value")]
    if "product_affinity" in views:
        found.append(FeatureService(name="cross_sell_v1", features=[views["product_affinity"], views["popularity"]]))
    return found


def definitions(workspace: Workspace, families: tuple[str, ...]) -> list[Any]:
    """Everything to apply for a workspace whose snapshots have these families."""
    views = {family: family_view(workspace, family) for family in families}
    return [CUSTOMER, ITEM, *views.values(), packed_view(workspace), *services(views)]


if home := os.environ.get("PERENNIAL_HOME"):  # only Feast's own command line sets it
    _workspace = settings.parse(storage.read_json(Path(home) / "workspace.json"), home)
    globals().update({f"applied_{i}": item for i, item in enumerate(definitions(_workspace, families(_workspace)))})
