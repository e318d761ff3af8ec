"""Feast's view of the features: three entities, a view per family, a service per model, a packed view per publication.

`feast -c features/repo ...` imports this module; PERENNIAL_HOME then names the workspace's home, which holds the
settings it was last run with.
"""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

from feast import Entity, FeatureService, FeatureView, Field, FileSource, PushSource, ValueType
from feast.data_source import DataSource
from feast.types import Array, Bytes, Float32

from features.publications import ANSWER, Publication, packed_path, published, push_source, stored
from features.snapshot import CUSTOMER_FAMILIES, ITEM_FAMILIES, NOT_FOR_MODELS, families, features_of
from workspace import settings, storage
from workspace.settings import Workspace

# Who answers for a definition, as Feast's UI shows it.
OWNER = "perennial"

CUSTOMER = Entity(
    name="customer", join_keys=["customer_id"], value_type=ValueType.STRING, owner=OWNER, tags={"owner": OWNER},
    description="who buys",
)  # fmt: skip
ITEM = Entity(
    name="product_category", join_keys=["item"], value_type=ValueType.STRING, owner=OWNER, tags={"owner": OWNER},
    description="what is bought: a category, or a product where `cross_sell.level` is item",
)  # fmt: skip
OTHER = Entity(
    name="other_product_category", join_keys=["other"], value_type=ValueType.STRING, owner=OWNER,
    tags={"owner": OWNER}, description="another item, bought by the same customers",
)  # fmt: skip
_ABOUT = {
    "purchases": "how often, how recently and for how much a customer buys",
    "basket": "what is in a customer's baskets",
    "engagement": "what customers do besides buying, and how they were treated",
    "profile": "who a customer is: tenure, attributes and consents",
    "product_affinity": "what a customer bought of an item",
    "popularity": "how an item sells to everyone",
    "co_purchase": "how often the buyers of one item buy another",
}


def family_view(workspace: Workspace, family: str) -> FeatureView:
    """One family's features, point-in-time, from its snapshots.

    A row answers until the day before the next cutoff that models learn from (feast 0.67 cannot join on days and
    seconds together). Whoever is known has a row in every
    snapshot of a customer family, so none is ever answered for by an older one.
    """
    schema = [
        Field(
            name=f.name, dtype=Float32, description=f.meaning,
            tags={"unit": f.unit, "window": f.window, "owner": OWNER},
        )
        for f in features_of(family, workspace)
    ]  # fmt: skip
    of_items = {"product_affinity": [CUSTOMER, ITEM], "popularity": [ITEM], "co_purchase": [ITEM, OTHER]}
    path = storage.snapshot_part(workspace.home_path, family, "*") / "*.parquet"
    source = _source(workspace.engine, f"{family}_snapshots", path)
    return FeatureView(
        name=family, entities=of_items.get(family, [CUSTOMER]), schema=schema, source=source, online=False,
        owner=OWNER, ttl=timedelta(days=max(workspace.training.spacing - 1, 1)),
        description=_ABOUT[family], tags={"owner": OWNER},
    )  # fmt: skip


def _source(engine: str, name: str, path: Path) -> DataSource:
    """Parquet files, as the engine's offline store reads them.

    Feast 0.67 cannot exchange a source for one of another kind, hence a name for each.
    """
    if engine == "duckdb":
        return FileSource(name=name, path=path.as_posix(), timestamp_field="as_of", owner=OWNER)
    from feast.infra.offline_stores.contrib.spark_offline_store.spark_source import SparkSource

    return SparkSource(
        name=f"{name}_on_spark", path=path.as_posix(), file_format="parquet", timestamp_field="as_of", owner=OWNER
    )


def packed_view(workspace: Workspace, publication: Publication) -> FeatureView:
    """All customer features as one array: thirty times quicker to write online than a column each, and smaller.

    Beside it, where there are scores, the answer about the customer that they give. What events change is pushed: a row
    of its own as_of over the published one.
    """
    packed = _source(workspace.engine, publication.view, packed_path(workspace.home_path, publication.view))
    vector = Field(name="vector", dtype=Array(Float32), tags={"order": " ".join(publication.features)})
    return FeatureView(
        name=publication.view,
        entities=[CUSTOMER],
        schema=[vector, *([Field(name=ANSWER, dtype=Bytes)] if publication.answers else [])],
        source=PushSource(name=push_source(publication), batch_source=packed, owner=OWNER),
        ttl=timedelta(0),
        owner=OWNER,
        description=f"every customer feature at {publication.as_of}, as one vector",
        tags={"owner": OWNER, "as_of": str(publication.as_of), "features_hash": publication.features_hash},
    )


def packed_service(view: FeatureView) -> FeatureService:
    """The publication that answers now, under a name that stays."""
    return FeatureService(
        name="customer_vector_v1", features=[view[["vector"]]], owner=OWNER, tags=view.tags,
        description="the published vectors; `order` of the field names their columns",
    )  # fmt: skip


def services(views: dict[str, FeatureView]) -> list[FeatureService]:
    """What each model may see; the treatment and consent columns are left out."""
    allowed = []
    for family in CUSTOMER_FAMILIES:
        view = views[family]
        names = [field.name for field in view.features if field.name not in NOT_FOR_MODELS]
        allowed.append(view[names])
    seen = {"churn": allowed, "lifetime_value": allowed}
    if "product_affinity" in views:
        seen["cross_sell"] = [views[family] for family in ITEM_FAMILIES]
    return [
        FeatureService(
            name=f"{model}_v1", features=features, owner=OWNER, tags={"owner": OWNER, "model": model},
            description=f"what the {model} models may see",
        )
        for model, features in seen.items()
    ]  # fmt: skip


def definitions(workspace: Workspace, families: tuple[str, ...]) -> list[Any]:
    """Everything to apply for a workspace whose snapshots have these families, and what it has published."""
    home = workspace.home_path
    views = {family: family_view(workspace, family) for family in families}
    packed = [packed_view(workspace, publication) for publication in stored(home)]
    answering = [packed_service(packed_view(workspace, now))] if (now := published(home)) else []
    return [CUSTOMER, ITEM, OTHER, *views.values(), *packed, *services(views), *answering]


if home := os.environ.get("PERENNIAL_HOME"):  # only Feast's own command line sets it
    _workspace = settings.parse(storage.read_json(Path(home) / "workspace.json"), home)
    globals().update({f"applied_{i}": item for i, item in enumerate(definitions(_workspace, families(_workspace)))})
