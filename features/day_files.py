"""The days of `features.days` on disk: layers sorted by customer, built once and extended by what is new.

A layer sums up some parts of the canonical tables. New parts make a layer of their own, so that a day of data
costs a day's work; when the small layers have grown to a quarter of the whole, everything is put into one again.
Sorting by customer is what makes the features of an as_of quick: a customer's rows lie together.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import duckdb
import ibis
import ibis.expr.types as ir
from ibis.backends import BaseBackend

from features import days
from features.families import known
from features.families.known import Tables
from ingest import events
from workspace import source_code, storage
from workspace.settings import Workspace
from workspace.tables import CONTRACTS, DATED, Contract

_IBIS_TYPE = {"VARCHAR": "string", "TIMESTAMPTZ": "timestamp('UTC')", "DOUBLE": "float64", "BOOLEAN": "boolean"}
_EVENTS = ("transactions", "interactions")
KINDS = ("item_days", "customer_days", "interaction_days", "opinions")
# Together the later layers may hold this share of the first one's rows.
_GROWN = 0.25


@dataclass(frozen=True)
class _Layer:
    """Which parts of which table a layer sums up; its files lie in a folder of its name."""

    name: str
    parts: dict[str, list[str]]
    rows: int


def read(
    connection: duckdb.DuckDBPyConnection, workspace: Workspace, progress: Callable[[str], None] = lambda _: None
) -> Tables:
    """The inputs of the feature families, after bringing the layers up to date with the canonical tables."""
    backend = ibis.duckdb.from_connection(connection)
    # ibis 12 sets the session to UTC; hours are the workspace's.
    connection.execute("SET TimeZone = ?", [workspace.timezone])
    return _Layers(connection, backend, workspace, progress).read()


def days_files(workspace: Workspace) -> tuple[dict[str, list[Path]], dict[str, int]]:
    """The files of each kind of days as they lie there, and up to which number they hold the events of each table.

    Raises:
        CheckFailed: there are none, or the tables have been replaced since: a batch is about to build them anew.
    """
    folder = workspace.home_path / "days"
    noted = storage.read_json(folder / "segments.json") if (folder / "segments.json").exists() else {"segments": []}
    layers = [_Layer(**layer) for layer in noted["segments"]]
    origins = {
        name: {e["part"]: e["origin"] for e in storage.sources_of(storage.tables_folder(workspace.home_path, name))}
        for name in _EVENTS
    }
    held = {name: [part for layer in layers for part in layer.parts[name]] for name in _EVENTS}
    if not layers or any(part not in origins[name] for name in _EVENTS for part in held[name]):
        raise storage.CheckFailed(f"the days of {workspace.name} are not those of its tables; run `perennial snapshot`")
    files = {kind: [folder / layer.name / f"{kind}.parquet" for layer in layers] for kind in KINDS}
    of_events = {name: {str(file) for file in events.files(workspace.home_path, name)} for name in _EVENTS}
    seen = {
        name: [origin for part in held[name] if (origin := origins[name][part]) in of_events[name]] for name in _EVENTS
    }
    return files, {name: max(map(events.last_in, seen[name]), default=0) for name in _EVENTS}


class _Layers:
    """The layers of one workspace."""

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        backend: BaseBackend,
        workspace: Workspace,
        progress: Callable[[str], None],
    ) -> None:
        self.connection, self.backend, self.workspace, self.progress = connection, backend, workspace, progress
        self.folder = workspace.home_path / "days"
        self.index = self.folder / "segments.json"
        self.products = canonical(self._read, workspace, CONTRACTS["products"])
        self.layers = self._current()

    def read(self) -> Tables:
        wanted = {name: _parts(self.workspace, name) for name in _EVENTS}
        pending = self._pending(wanted)
        if any(pending.values()) and self.layers:
            later = sum(layer.rows for layer in self.layers[1:]) + self._count_rows(pending)
            if later > _GROWN * self.layers[0].rows:
                self.layers, pending = [], wanted
        if any(pending.values()):
            self.layers.append(self._build(pending))
            storage.write_json(self.index, {"stamp": self._stamp(), "segments": list(map(asdict, self.layers))})
        self._sweep()
        return self._tables()

    def _stamp(self) -> str:
        code = source_code.hashed(str(file) for file in (known.__file__, days.__file__, __file__))
        shape = [code, self.workspace.timezone, item_column(self.workspace)]
        return hashlib.sha256(json.dumps(shape).encode()).hexdigest()

    def _current(self) -> list[_Layer]:
        """The layers that still say what the tables say; none where one of their parts has gone or changed."""
        noted = storage.read_json(self.index) if self.index.exists() else {}
        if noted.get("stamp") != self._stamp():
            return []
        layers = [_Layer(**layer) for layer in noted["segments"]]
        there = {name: set(_parts(self.workspace, name)) for name in _EVENTS}
        gone = any(not there[name].issuperset(s.parts[name]) for s in layers for name in _EVENTS)
        return [] if gone or any(map(self._has_other_products, layers)) else layers

    def _has_other_products(self, layer: _Layer) -> bool:
        """Whether a product that the layer's lines name has another category or unit cost by now."""
        used = self.backend.read_parquet(self._file(layer.name, "products"))
        both = used.left_join(self.products, "product_id")
        moved = ~both.category.identical_to(both.category_right) | ~both.unit_cost.identical_to(both.unit_cost_right)
        return bool(both.filter(moved).count().to_pyarrow().as_py())

    def _pending(self, wanted: dict[str, list[str]]) -> dict[str, list[str]]:
        covered = {name: {part for s in self.layers for part in s.parts[name]} for name in _EVENTS}
        return {name: [part for part in wanted[name] if part not in covered[name]] for name in _EVENTS}

    def _count_rows(self, parts: dict[str, list[str]]) -> int:
        files = [str(path) for name in _EVENTS for path in self._files(name, parts[name])]
        query = f"SELECT coalesce(sum(num_rows), 0) FROM parquet_file_metadata({files!r})"
        return int(self.connection.execute(query).fetchall()[0][0])

    def _files(self, table: str, parts: Sequence[str]) -> list[Path]:
        return [storage.tables_folder(self.workspace.home_path, table) / f"{part}.parquet" for part in parts]

    def _file(self, layer: str, what: str) -> Path:
        return self.folder / layer / f"{what}.parquet"

    def _build(self, parts: dict[str, list[str]]) -> _Layer:
        rows = self._count_rows(parts)
        self.progress(f"summing {rows:,} rows by customer and day")
        name = hashlib.sha256(json.dumps([parts, [s.name for s in self.layers]]).encode()).hexdigest()[:16]
        lines, interactions = (
            canonical(self._read, self.workspace, CONTRACTS[table], self._files(table, parts[table]))
            for table in _EVENTS
        )
        self._write(name, "products", _used_products(lines, self.products), "product_id")
        described = priced(lines, self.products, item_column(self.workspace))
        self._write_days(name, "item_days", days.item_days(described), ["customer_id", "item", "day"])
        self._write_days(name, "customer_days", days.customer_days(described), ["customer_id", "day"])
        self._write(name, "interaction_days", days.interaction_days(interactions), "customer_id")
        self._write(name, "opinions", days.opinions(interactions), "customer_id")
        return _Layer(name, parts, rows)

    def _write_days(self, layer: str, what: str, rows: ir.Table, key: list[str]) -> None:
        """Marks rows as `late` that may not be their day's only one: recorded later, or in an earlier layer too."""
        late = rows.known_day > rows.day
        if self.layers:
            again = rows.semi_join(self._union(what), key).select(*key, again=True).distinct()
            rows = rows.left_join(again, key).drop(*(f"{name}_right" for name in key))
            late = late | rows.again.notnull()
        rows = rows.mutate(late=late)
        self._write(layer, what, rows, "customer_id")

    def _write(self, layer: str, what: str, rows: ir.Table, order: str) -> None:
        self.backend.create_view("layer_rows", rows, overwrite=True)
        path = self._file(layer, what)
        storage.copy_to(self.connection, f"SELECT * FROM layer_rows ORDER BY {order}", path, codec="lz4")

    def _union(self, what: str) -> ir.Table:
        return self._read([self._file(layer.name, what) for layer in self.layers])

    def _read(self, files: Sequence[Path]) -> ir.Table:
        return self.backend.read_parquet([str(file) for file in files])

    def _tables(self) -> Tables:
        customers = canonical(self._read, self.workspace, CONTRACTS["customers"])
        categories = item_categories(self.products, item_column(self.workspace))
        if not self.layers:
            self.layers.append(self._build({name: [] for name in _EVENTS}))
        return Tables(**{kind: self._union(kind) for kind in KINDS}, customers=customers, categories=categories)

    def _sweep(self) -> None:
        """Removes the folders of layers that are no longer in use, or that a killed run has left behind."""
        for folder in self.folder.glob("*/"):
            if folder.name not in {layer.name for layer in self.layers}:
                shutil.rmtree(folder)


def canonical(
    read: Callable[[Sequence[Path]], ir.Table],
    workspace: Workspace,
    contract: Contract,
    files: Sequence[Path] | None = None,
) -> ir.Table:
    """A canonical table, or some of its parts, as `read` reads Parquet; without rows where the workspace has none."""
    paths = storage.parts(storage.tables_folder(workspace.home_path, contract.name)) if files is None else files
    if paths and contract.name in workspace.tables.given():
        return read(paths)
    return ibis.memtable([], schema=schema_of(contract))


def schema_of(contract: Contract) -> ibis.Schema:
    """The columns of a canonical table and their types."""
    schema = {column.name: _IBIS_TYPE[column.type] for column in contract.columns}
    derived = ("day", "known_day") if contract.is_event else ()
    derived = (*derived, *(f"{n[:-3]}_day" for n in contract.names if n in DATED))
    return ibis.schema(schema | dict.fromkeys(derived, "date"))


def _parts(workspace: Workspace, table: str) -> list[str]:
    if table not in workspace.tables.given():
        return []
    return [path.stem for path in storage.parts(storage.tables_folder(workspace.home_path, table))]


def _used_products(lines: ir.Table, products: ir.Table) -> ir.Table:
    used = lines.filter(lines.product_id.notnull()).select("product_id").distinct()
    return used.left_join(products, "product_id").select("product_id", "category", "unit_cost")


def item_column(workspace: Workspace) -> str:
    """The column of lines and products that names what is ranked."""
    return "category" if workspace.cross_sell.level == "category" else "product_id"


def item_categories(products: ir.Table, item: str) -> ir.Table:
    """The `category` of every item that has one."""
    known = products.filter(products.category.notnull())
    return known.select(item=known[item], category=known.category).distinct()


def priced(lines: ir.Table, products: ir.Table, item: str) -> ir.Table:
    """Lines with what is ranked as `item`, and with their `margin`: null where cost is unknown."""
    both = lines.left_join(products.select("product_id", "category", "unit_cost"), "product_id")
    cost = ibis.coalesce(both.cost, both.unit_cost * both.quantity)
    return both.mutate(item=both[item], margin=both.amount - cost)
