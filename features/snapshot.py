"""Feature rows of one as_of, written a Parquet part per family; a part that is there is whole and current."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Iterable, Sequence
from datetime import date
from pathlib import Path
from types import ModuleType

import duckdb
import ibis
import ibis.expr.types as ir
import pyarrow.parquet as pq
from ibis.backends import BaseBackend

from features import basket, engagement, known, product_affinity, profile, purchases
from features.catalogue import Feature
from perennial import storage
from perennial.settings import Workspace
from perennial.tables import CONTRACTS
from perennial.windows import midnight

_MODULES: dict[str, ModuleType] = {
    "purchases": purchases,
    "basket": basket,
    "engagement": engagement,
    "profile": profile,
    "product_affinity": product_affinity,
    "popularity": product_affinity,
}
CUSTOMER_FAMILIES = ("purchases", "basket", "engagement", "profile")
KEYS = dict.fromkeys(CUSTOMER_FAMILIES, ("customer_id",)) | {
    "product_affinity": ("customer_id", "item"),
    "popularity": ("item",),
}


def features_of(family: str, workspace: Workspace) -> tuple[Feature, ...]:
    """The features of a family in the order of its columns; `profile` has the workspace's attributes."""
    if family == "profile":
        return (*profile.FEATURES, *map(profile.attribute_feature, workspace.attributes))
    return product_affinity.POPULARITY if family == "popularity" else _MODULES[family].FEATURES


def customer_features(workspace: Workspace) -> tuple[Feature, ...]:
    """Every feature of a customer, family after family: the order of the packed vector."""
    return tuple(feature for family in CUSTOMER_FAMILIES for feature in features_of(family, workspace))


def snapshot(
    workspace: Workspace, as_of_dates: Sequence[date], progress: Callable[[str], None] = lambda _: None
) -> list[Path]:
    """Writes the missing parts of every family for `as_of_dates`; returns the paths of all parts.

    A part names the fingerprint of the tables, settings and code it came from: one that differs is written anew, or
    removed where it is not asked for, since Feast reads all parts of a family together.
    """
    stamp = fingerprint(workspace)
    for part in (workspace.home_path / "snapshots").glob("*/*/part.parquet"):
        if part.parents[1].name != "packed" and _stamp_of(part) != stamp:
            part.unlink()
    wanted = [(family, as_of) for as_of in as_of_dates for family in families(workspace)]
    missing = [(f, a) for f, a in wanted if _stamp_of(storage.snapshot_part(workspace.home_path, f, a)) != stamp]
    if missing:
        with storage.connect(workspace.home_path, workspace.timezone) as connection:
            backend = ibis.duckdb.from_connection(connection)
            tables = known.read(backend, workspace)
            for family, as_of in missing:
                rows = _family_rows(workspace, family, tables, as_of)
                _write(connection, backend, rows, workspace, family, as_of, stamp)
                if family == families(workspace)[-1]:
                    progress(f"snapshot {as_of}")
    return [storage.snapshot_part(workspace.home_path, family, as_of) for family, as_of in wanted]


def families(workspace: Workspace) -> tuple[str, ...]:
    """The families that the workspace's tables allow; without products there is no category to have affinity to."""
    ranked = workspace.cross_sell.level == "item" or workspace.tables.products is not None
    return (*CUSTOMER_FAMILIES, "product_affinity", "popularity") if ranked else CUSTOMER_FAMILIES


def _family_rows(workspace: Workspace, family: str, tables: known.Tables, as_of: date) -> ir.Table:
    cutoffs = known.cutoffs_table([as_of])
    item = "category" if workspace.cross_sell.level == "category" else "product_id"
    match family:
        case "profile":
            return profile.profile(
                tables, cutoffs, attribute_codes(workspace), workspace.attributes, has_consent(workspace, "profiling")
            )
        case "product_affinity":
            return product_affinity.product_affinity(tables, cutoffs, item)
        case "popularity":
            return product_affinity.popularity(tables, cutoffs, item)
        case _:
            return getattr(_MODULES[family], family)(tables, cutoffs)


def _write(
    connection: duckdb.DuckDBPyConnection, backend: BaseBackend, rows: ir.Table, workspace: Workspace, family: str,
    as_of: date, stamp: str,
) -> None:  # fmt: skip
    """Float32 features in catalogue order, stamped with the as_of instant, sorted by key."""
    features = [f'CAST({f.name} AS FLOAT) AS "{f.name}"' for f in features_of(family, workspace)]
    instant = f"TIMESTAMPTZ '{midnight(as_of, workspace.timezone).isoformat()}' AS as_of"
    keys = ", ".join(KEYS[family])
    backend.create_view(f"{family}_rows", rows, overwrite=True)
    query = f"SELECT {keys}, {instant}, {', '.join(features)} FROM {family}_rows ORDER BY {keys}"
    path = storage.snapshot_part(workspace.home_path, family, as_of)
    storage.copy_to(connection, query, path, metadata={"perennial": stamp})


def has_consent(workspace: Workspace, kind: str) -> bool:
    """Whether the shop keeps consents of this kind (`profiling`, `marketing`): then who has not given it is out."""
    folder = storage.tables_folder(workspace.home_path, "customers")
    if workspace.tables.customers is None or not storage.parts(folder):
        return False
    query = f"SELECT count({kind}_consent) > 0 FROM {storage.rows_of(workspace.home_path, 'customers')}"
    return bool(duckdb.execute(query).fetchall()[0][0])


def attribute_codes(workspace: Workspace) -> dict[str, dict[str, int]]:
    """Codes of every text attribute's values; once given a value keeps its code, new ones follow behind."""
    path = workspace.home_path / "tables" / "attribute_codes.json"
    codes: dict[str, dict[str, int]] = storage.read_json(path) if path.exists() else {}
    grown = {name: dict(values) for name, values in codes.items()}
    for name in workspace.attributes:
        query = (
            f"SELECT DISTINCT {name} FROM {storage.rows_of(workspace.home_path, 'customers')} WHERE {name} IS NOT NULL"
        )
        values = [row[0] for row in duckdb.execute(query).fetchall()]
        if values and not isinstance(values[0], str):
            continue
        known_values = grown.setdefault(name, {})
        for value in sorted(set(values) - known_values.keys()):
            known_values[value] = len(known_values)
    if grown != codes:
        storage.write_json(path, grown)
    return grown


def fingerprint(workspace: Workspace) -> str:
    """What a snapshot depends on: the content of the tables, the settings that shape it, the families' code."""
    manifests = []
    for name in CONTRACTS:
        path = storage.tables_folder(workspace.home_path, name) / "manifest.json"
        manifests.append(path.read_text() if path.exists() and name in workspace.tables.given() else "")
    code = [inspect.getsource(module) for module in (known, purchases, basket, engagement, profile, product_affinity)]
    shape = [workspace.timezone, list(workspace.attributes), workspace.cross_sell.level]
    return hashlib.sha256(json.dumps([manifests, code, shape]).encode()).hexdigest()


def _stamp_of(path: Path) -> str | None:
    if not path.exists():
        return None
    stamp = (pq.read_metadata(path).metadata or {}).get(b"perennial")
    return stamp.decode() if stamp else None


def features_hash(names: Iterable[str]) -> str:
    """A short hash of feature names and their order; views, models and packed vectors carry it."""
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]
