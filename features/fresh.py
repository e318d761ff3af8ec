"""The features of a few customers, computed now: by the same expressions as a snapshot's, from their days and new events.

The days are those that the last batch summed up; events that it has not seen are summed up here in the same way. What a
feature says of the shop as a whole is taken from everybody's days, which are summed by day once and kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date
from pathlib import Path

import ibis
import ibis.expr.types as ir
import numpy as np
from numpy.typing import NDArray

from features import days, product_affinity, segments
from features.known import Tables
from features.snapshot import CUSTOMER_FAMILIES, customer_family, customer_features
from perennial import events, storage, verdicts
from perennial.events import Event
from perennial.settings import Workspace
from perennial.storage import quoted
from perennial.tables import CONTRACTS

_MEMORY = 1.0  # gigabytes; the service answers beside it
_KEPT_QUERIES = 8
_SHOP = {
    # What `features.purchases` asks of the shop, and `features.engagement`.
    "customer_days": "SELECT day, known_day, sum(spend) AS spend, sum(n_lines)::INTEGER AS n_lines FROM {} GROUP BY ALL",
    "opinions": "SELECT DISTINCT kind, day, known_day, resolved_day FROM {}"
    " WHERE kind = 'complaint' AND resolved_day IS NOT NULL",
}


class FreshFeatures:
    """Features of single customers of one workspace, from its days and what `events` adds to them."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace, self.home = workspace, workspace.home_path
        self.connection = storage.connect(self.home, workspace.timezone, _MEMORY)
        self.backend = ibis.duckdb.from_connection(self.connection)
        self.connection.execute("SET TimeZone = ?", [workspace.timezone])  # ibis 12 sets it to UTC
        self.connection.execute("SET threads = 1")
        self.shop_of: list[Path] = []
        self.queries: dict[tuple[date, str], str] = {}

    def vectors(
        self, customer_ids: Sequence[str], as_of: date, new_events: Iterable[Event], files: dict[str, list[Path]]
    ) -> dict[str, NDArray[np.float32]]:
        """The packed vector at `as_of` of each customer who is known then, by id.

        `files` are the days, as `segments.days_files` gives them, and `new_events` all of the shop's that those lack.
        """
        self._hold_days(customer_ids, files)
        self._hold_events(list(new_events))
        rows = self.connection.execute(self._query(as_of)).fetchall()
        return {row[0]: np.array(row[1:], dtype=np.float32) for row in rows}

    def _query(self, as_of: date) -> str:
        """SQL for a row of each wanted customer; putting it together takes longer than running it, so it is kept."""
        described = [storage.parts(storage.tables_folder(self.home, name)) for name in ("customers", "products")]
        key = (as_of, str(described))
        if key not in self.queries:
            if len(self.queries) == _KEPT_QUERIES:
                self.queries.clear()
            self.queries[key] = self._written(as_of)
        return self.queries[key]

    def _hold_days(self, customer_ids: Sequence[str], files: dict[str, list[Path]]) -> None:
        """The customers' own days as tables `own_...`, those of the shop as `shop_...`."""
        among = ", ".join(map(quoted, customer_ids))
        self.connection.execute(f"CREATE OR REPLACE TABLE wanted AS SELECT unnest([{among}]) AS customer_id")
        for kind, paths in files.items():
            own = f"SELECT * FROM {storage.reader(paths)} WHERE customer_id IN ({among})"
            self.connection.execute(f"CREATE OR REPLACE TABLE own_{kind} AS {own}")
        if self.shop_of != (shop := [path for kind in _SHOP for path in files[kind]]):
            for kind, query in _SHOP.items():
                rows = query.format(storage.reader(files[kind]))
                self.connection.execute(f"CREATE OR REPLACE TABLE shop_{kind} AS {rows}")
            self.shop_of = shop

    def _hold_events(self, new_events: Sequence[Event]) -> None:
        """The events as canonical tables `new_...`, with the days that ingest would give them."""
        for name in events.TABLES:
            contract = CONTRACTS[name]
            self.connection.register("arrived", events.as_table(contract, new_events))
            query = f"SELECT *{verdicts.days(contract, contract.names)} FROM arrived"
            self.connection.execute(f"CREATE OR REPLACE TABLE new_{name} AS {query}")
            self.connection.unregister("arrived")

    def _written(self, as_of: date) -> str:
        """SQL for a row of each wanted customer who is known at `as_of`: the id, and every feature in order."""
        names = [feature.name for feature in customer_features(self.workspace)]
        tables = self._tables()
        affinity = product_affinity.product_affinity(tables, as_of)
        profile, *others = (
            customer_family(family, self.workspace, tables, as_of, lambda: affinity)
            for family in sorted(CUSTOMER_FAMILIES, key=lambda family: family != "profile")
        )
        rows = profile
        for family in others:
            rows = rows.left_join(family, "customer_id").drop("customer_id_right")
        return str(ibis.to_sql(rows.select("customer_id", *(rows[name].cast("float32") for name in names)), "duckdb"))

    def _tables(self) -> Tables:
        """The wanted customers' tables: their days and those of their events, which count as late: they may share a day."""
        read = self.backend.read_parquet
        canonical = {
            name: segments.canonical(lambda files: read([str(file) for file in files]), self.workspace, CONTRACTS[name])
            for name in ("customers", "products")
        }
        item = segments.item_column(self.workspace)
        lines = segments.priced(self.backend.table("new_transactions"), canonical["products"], item)
        interactions = self.backend.table("new_interactions")
        arrived = {
            "item_days": days.item_days(lines).mutate(late=True),
            "customer_days": days.customer_days(lines).mutate(late=True),
            "interaction_days": days.interaction_days(interactions),
            "opinions": days.opinions(interactions),
        }
        wanted = self.backend.table("wanted")
        own = {kind: _both(self.backend.table(f"own_{kind}"), rows.semi_join(wanted, "customer_id"))
               for kind, rows in arrived.items()}  # fmt: skip
        shop = own | {kind: _both(self.backend.table(f"shop_{kind}"), arrived[kind]) for kind in _SHOP}
        customers = canonical["customers"].semi_join(wanted, "customer_id")
        categories = segments.item_categories(canonical["products"], item)
        shop_tables = Tables(**shop, customers=customers, categories=categories)
        return Tables(**own, customers=customers, categories=categories, shop=shop_tables)


def _both(rows: ir.Table, more: ir.Table) -> ir.Table:
    """The rows of both, in the columns and types of the former."""
    return rows.union(more.select(**{name: more[name].cast(kind) for name, kind in rows.schema().items()}))
