"""Feature rows of one as_of, written a Parquet part per family; a part that is there is whole and current."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from datetime import date
from functools import lru_cache, partial
from pathlib import Path
from types import ModuleType
from typing import Any

import duckdb
import ibis.expr.types as ir
import pyarrow as pa
import pyarrow.parquet as pq

from features import day_files, days, on_duckdb, on_spark
from features.families import basket, catalogue, engagement, known, product_affinity, profile, purchases
from features.families.catalogue import Feature
from features.families.known import Tables
from features.on_duckdb import OnDuckDB
from features.on_spark import OnSpark
from workspace import source_code, storage, tables
from workspace.remaining import Remaining
from workspace.settings import Workspace
from workspace.tables import CONTRACTS
from workspace.windows import midnight

_MODULES: dict[str, ModuleType] = {
    "purchases": purchases,
    "basket": basket,
    "engagement": engagement,
    "profile": profile,
    "product_affinity": product_affinity,
    "popularity": product_affinity,
    "co_purchase": product_affinity,
}
# Who computes them: the same rows, columns and nulls, to the fifth digit.
_ENGINES = {"duckdb": on_duckdb, "spark": on_spark}
# Readers of a folder of Parquet files pass over names with an underscore.
_STAMP = "_stamp"
CUSTOMER_FAMILIES = ("purchases", "basket", "engagement", "profile")
KEYS = dict.fromkeys(CUSTOMER_FAMILIES, ("customer_id",)) | {
    "product_affinity": ("customer_id", "item"),
    "popularity": ("item",),
    "co_purchase": ("item", "other"),
}
ITEM_FAMILIES = ("product_affinity", "popularity", "co_purchase")
# Which features must not predict: what the marketer did, what the customer allowed, and who has left already.
NOT_FOR_MODELS = frozenset(f.name for f in (*engagement.TREATMENT, *profile.CONSENTS, *profile.CONTRACT))


def features_of(family: str, workspace: Workspace) -> tuple[Feature, ...]:
    """The features of a family in the order of its columns; `profile` has the workspace's attributes."""
    if family == "profile":
        return (*profile.FEATURES, *map(profile.attribute_feature, workspace.attributes))
    of_items = {"popularity": product_affinity.POPULARITY, "co_purchase": product_affinity.CO_PURCHASE}
    return of_items.get(family) or _MODULES[family].FEATURES


def customer_features(workspace: Workspace) -> tuple[Feature, ...]:
    """Every feature of a customer, family after family: the order of the packed vector."""
    return tuple(feature for family in CUSTOMER_FAMILIES for feature in features_of(family, workspace))


def snapshot(
    workspace: Workspace, as_of_dates: Sequence[date], progress: Callable[[str], None] = lambda _: None
) -> list[Path]:
    """Writes the missing parts of every family for `as_of_dates`; returns the paths of all parts.

    A part names the fingerprint of the rows known at its as_of, the settings and the code it came from: one that
    differs, or that cannot be read to its end, is written anew, or removed where it is not asked for, since Feast reads
    all parts of a family together.
    """
    stamps = {as_of: fingerprint(workspace, as_of) for as_of in {*as_of_dates, *_written(workspace.home_path)}}
    for as_of in stamps:
        for family in KEYS:
            part = storage.snapshot_part(workspace.home_path, family, as_of)
            if part.exists() and (stamp_of(part) != stamps[as_of] or not _is_whole(part)):
                storage.remove(part)
    wanted = [(family, as_of) for as_of in as_of_dates for family in families(workspace)]
    paths = [storage.snapshot_part(workspace.home_path, family, as_of) for family, as_of in wanted]
    if not all(path.exists() for path in paths):
        with _ENGINES[workspace.engine].opened(workspace, progress) as engine:
            tables = profile.with_shop(engine.tables, has_consent(workspace, "profiling"))
            left = Remaining(len(as_of_dates))
            for as_of in as_of_dates:
                _Snapshot(engine, tables, workspace, as_of, stamps[as_of]).write()
                progress(f"snapshot {as_of}{left.after_one()}")
    return paths


def _is_whole(part: Path) -> bool:
    """Whether every file of a part can be read: a disk that was full or lost power may have left half of one."""
    try:
        return all(pq.read_metadata(file).num_columns for file in part.glob("*.parquet"))
    except (pa.ArrowInvalid, OSError):
        return False


def _written(home: Path) -> set[date]:
    parts = [part for family in KEYS for part in (home / "snapshots" / family).glob("[0-9]*")]
    return {date.fromisoformat(part.name) for part in parts}


def families(workspace: Workspace) -> tuple[str, ...]:
    """The families that the workspace's tables allow; without products there is no category to have affinity to."""
    ranked = workspace.cross_sell.level == "item" or workspace.tables.products is not None
    return (*CUSTOMER_FAMILIES, *ITEM_FAMILIES) if ranked else CUSTOMER_FAMILIES


class _Snapshot:
    """The parts of one as_of."""

    def __init__(
        self, engine: OnDuckDB | OnSpark, tables: Tables, workspace: Workspace, as_of: date, stamp: str
    ) -> None:
        self.engine, self.tables, self.workspace = engine, tables, workspace
        self.as_of, self.stamp = as_of, stamp

    def write(self) -> None:
        """Writes the families that are missing."""
        missing = [family for family in families(self.workspace) if not self._part(family).exists()]
        if missing:
            day = self.engine.set_as_of(self.as_of)
            affinity = self.engine.keep("affinity", lambda: product_affinity.product_affinity(self.tables, day))
            everybody = self.engine.keep("everybody", lambda: self._of_customers("profile", day, affinity))
            for family in missing:
                self._write(family, partial(self._computed, family, day, affinity, everybody))

    def _part(self, family: str) -> Path:
        return storage.snapshot_part(self.workspace.home_path, family, self.as_of)

    def _computed(self, family: str, day: ir.DateScalar, affinity: ir.Table, everybody: ir.Table) -> ir.Table:
        """The family's rows by its keys: of a customer family one for everybody known, null where it knows nothing."""
        match family:
            case "profile":
                return everybody
            case "product_affinity":
                return affinity
            case "popularity":
                return product_affinity.popularity(product_affinity.allowed(affinity, everybody))
            case "co_purchase":
                return product_affinity.co_purchase(product_affinity.allowed(affinity, everybody))
            case _:
                values = self._of_customers(family, day, affinity)
                return everybody.select("customer_id").left_join(values, "customer_id")

    def _of_customers(self, family: str, day: ir.DateScalar, affinity: ir.Table) -> ir.Table:
        return customer_family(family, self.workspace, self.tables, day, affinity)

    def _write(self, family: str, rows: Callable[[], ir.Table]) -> None:
        """Float32 features in catalogue order, stamped with the as_of instant, sorted by key."""
        instant = midnight(self.as_of, self.workspace.timezone)
        names = [feature.name for feature in features_of(family, self.workspace)]
        with storage.replacing(self._part(family)) as draft:
            draft.mkdir()
            self.engine.write(family, rows, KEYS[family], instant, names, draft)
            (draft / _STAMP).write_text(self.stamp, encoding="utf-8")


def customer_family(
    family: str, workspace: Workspace, tables: Tables, as_of: ir.DateScalar, affinity: ir.Table
) -> ir.Table:
    """The rows of a family of customers; `affinity` is the `product_affinity` of the same tables and as_of."""
    match family:
        case "profile":
            codes, consents = attribute_codes(workspace), has_consent(workspace, "profiling")
            return profile.profile(tables, as_of, codes, workspace.attributes, consents)
        case "purchases":
            return purchases.purchases(tables, as_of)
        case "basket":
            return basket.basket(tables, affinity, as_of)
        case _:
            return engagement.engagement(tables, as_of)


def has_consent(workspace: Workspace, kind: str) -> bool:
    """Whether the shop keeps consents of this kind (`profiling`, `marketing`): then who has not given it is out."""
    parts = storage.parts(storage.tables_folder(workspace.home_path, "customers"))
    if workspace.tables.customers is None or not parts:
        return False
    return _any_said(workspace.home_path, kind, tuple(map(storage.edition, parts)))


@lru_cache(maxsize=8)
def _any_said(home: Path, kind: str, _: tuple[tuple[int, ...], ...]) -> bool:
    """Kept until the table is another: every page of a list asks, and opening a database was half of its time."""
    return bool(_asked(f"SELECT count({kind}_consent) > 0 FROM {storage.rows_of(home, 'customers')}")[0][0])


def _asked(query: str) -> list[tuple[Any, ...]]:
    """By a connection of its own: the service's threads ask at once, and DuckDB's shared one refuses the second."""
    with duckdb.connect() as connection:
        return connection.execute(query).fetchall()


def attribute_codes(workspace: Workspace) -> dict[str, dict[str, int]]:
    """Codes of every text attribute's values; once given a value keeps its code, new ones follow behind."""
    path = workspace.home_path / "tables" / "attribute_codes.json"
    codes: dict[str, dict[str, int]] = storage.read_json(path) if path.exists() else {}
    grown = {name: dict(values) for name, values in codes.items()}
    for name in workspace.attributes:
        query = (
            f"SELECT DISTINCT {name} FROM {storage.rows_of(workspace.home_path, 'customers')} WHERE {name} IS NOT NULL"
        )
        values = [row[0] for row in _asked(query)]
        if values and not isinstance(values[0], str):
            continue
        known_values = grown.setdefault(name, {})
        for value in sorted(set(values) - known_values.keys()):
            known_values[value] = len(known_values)
    if grown != codes:
        storage.write_json(path, grown)
    return grown


def fingerprint(workspace: Workspace, as_of: date | None = None) -> str:
    """What a snapshot depends on: the tables, as far as known at `as_of`; the settings that shape it; what the code
    does, whatever its comments say.

    A file of events that all happened at `as_of` or later says nothing of that day: a new day of data leaves the
    snapshots before it as they are.
    """
    rows = contents(workspace, as_of)
    computed = (purchases, basket, engagement, profile, product_affinity)
    modules = (tables, catalogue, known, days, day_files, on_duckdb, on_spark, *computed)
    shape = [workspace.timezone, list(workspace.attributes), workspace.cross_sell.level]
    code = source_code.hashed(str(module.__file__) for module in modules)
    return hashlib.sha256(json.dumps([rows, code, shape]).encode()).hexdigest()


def contents(workspace: Workspace, as_of: date | None = None) -> dict[str, list[str]]:
    """The parts of every table, as far as they can hold rows known at `as_of`."""
    return {
        name: _content(workspace.home_path, workspace.timezone, name, as_of)
        for name in CONTRACTS
        if name in workspace.tables.given()
    }


def _content(home: Path, timezone: str, table: str, as_of: date | None) -> list[str]:
    """The parts of a table that can hold rows known at `as_of`."""
    entries = storage.sources_of(storage.tables_folder(home, table))
    if as_of is None or not CONTRACTS[table].is_event:
        return [entry["part"] for entry in entries]
    until = midnight(as_of, timezone).timestamp() * 1_000_000
    return [entry["part"] for entry in entries if entry["first"] is not None and entry["first"] < until]


def stamp_of(part: Path) -> str | None:
    """What a part says that it was made from; None for a folder that is none of ours."""
    stamp = part / _STAMP
    return stamp.read_text(encoding="utf-8") if stamp.exists() else None


def features_hash(names: Iterable[str]) -> str:
    """A short hash of feature names and their order; views, models and packed vectors carry it."""
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]
