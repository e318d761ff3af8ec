"""The features of a few customers, computed now by a snapshot's own expressions, from their days and new events.

The days are those that the last batch summed up; events that it has not seen are summed up here in the same way. What a
feature says of the shop as a whole is taken from the days of all who do not refuse profiling, which are summed by day
once and kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from pathlib import Path

import duckdb
import ibis
import ibis.expr.types as ir
import numpy as np
import pyarrow as pa
from ibis.expr.operations import InMemoryTable
from numpy.typing import NDArray

from features import day_files, days, on_duckdb
from features.families import product_affinity, profile
from features.families.known import Tables
from features.snapshot import CUSTOMER_FAMILIES, customer_family, customer_features, has_consent
from ingest import checks, events
from ingest.events import Event, EventStore
from workspace import storage
from workspace.settings import Workspace
from workspace.storage import quoted
from workspace.tables import CONTRACTS, Contract

_MEMORY = 1.0  # gigabytes; the service answers beside it
_SHOP = {
    # What `features.families.purchases` asks of the shop, and `features.families.engagement`.
    "customer_days": "SELECT day, known_day, sum(spend) AS spend, sum(n_lines)::INT AS n_lines FROM {} GROUP BY ALL",
    "opinions": "SELECT DISTINCT kind, day, known_day, resolved_day FROM {}"
    " WHERE kind = 'complaint' AND resolved_day IS NOT NULL",
}


class FreshFeatures:
    """Features of single customers of one workspace, from its days and what `events` adds to them."""

    def __init__(self, workspace: Workspace, store: EventStore) -> None:
        self.workspace, self.home, self.store = workspace, workspace.home_path, store
        self.connection = storage.connect(self.home, workspace.timezone, _MEMORY)
        self.backend = ibis.duckdb.from_connection(self.connection)
        self.connection.execute("SET TimeZone = ?", [workspace.timezone])  # ibis 12 sets it to UTC
        self.connection.execute("SET threads = 1")
        self.files: dict[str, list[Path]] = {}
        self.customers: list[Path] = []
        self.in_days: dict[str, int] = {}
        self.seen = 0
        self.refused: dict[int, str] = {}
        self.queries: dict[str, str] = {}
        self._trial_sql: str | None = None
        self.connection.execute("CREATE TABLE wanted (customer_id VARCHAR)")

    def keep_up(self) -> None:
        """Takes in the days as they lie there now, and the events that they lack, which `hold` can refuse.

        Raises:
            CheckFailed: a batch is at work on the days, or the store of events does not answer.
        """
        files, in_days = day_files.days_files(self.workspace)
        customers = storage.parts(storage.tables_folder(self.home, "customers"))
        if (files, in_days, customers) != (self.files, self.in_days, self.customers):
            for kind, query in _SHOP.items():
                rows = ibis.to_sql(self._willing(self._read(files[kind])), "duckdb")
                self.connection.execute(f"CREATE OR REPLACE TABLE shop_{kind} AS {query.format(f'({rows})')}")
            self._stage([])
            for name in events.TABLES:
                self.connection.execute(f"CREATE OR REPLACE TABLE new_{name} AS FROM arrived_{name}")
                both = f"FROM new_{name} UNION ALL FROM arrived_{name}"
                self.connection.execute(f"CREATE OR REPLACE VIEW tried_{name} AS {both}")
            self.files, self.in_days, self.customers, self.seen = files, in_days, customers, min(in_days.values())
            self.refused.clear()
        new = self.store.read("number > :seen", seen=self.seen)
        self.hold([event for event in new if event.number > self.in_days[event.table]])
        self.seen = max([event.number for event in new], default=self.seen)

    def hold(self, new: Sequence[Event]) -> None:
        """Takes in events that the days lack; those that cannot be summed up by day stay out, `refused` says why."""
        for event in new:
            self.refused.pop(event.number, None)
        if not new:
            return
        try:
            self._stage(new)
            self.connection.execute(self._trial())
        except (duckdb.Error, pa.ArrowException, ArithmeticError, LookupError, TypeError, ValueError) as problem:
            if len(new) == 1:
                self.refused[new[0].number] = str(problem).splitlines()[0]
                return
            half = len(new) // 2
            self.hold(new[:half])
            self.hold(new[half:])
        else:
            for name in events.TABLES:
                self.connection.execute(f"INSERT INTO new_{name} FROM arrived_{name}")

    def vectors(self, customer_ids: Sequence[str], as_of: date) -> dict[str, NDArray[np.float32]]:
        """The packed vector at `as_of` of each customer who is known then, by id."""
        among = ", ".join(map(quoted, customer_ids))
        self.connection.execute(f"CREATE OR REPLACE TABLE wanted AS SELECT unnest([{among}]) AS customer_id")
        for kind, paths in self.files.items():
            own = f"SELECT * FROM {storage.reader(paths)} WHERE customer_id IN ({among})"
            self.connection.execute(f"CREATE OR REPLACE TABLE own_{kind} AS {own}")
        day = on_duckdb.set_as_of(self.connection, as_of)
        rows = self.connection.execute(self._query(day)).fetchall()
        return {row[0]: np.array(row[1:], dtype=np.float32) for row in rows}

    def close(self) -> None:
        self.connection.close()

    def _stage(self, new: Sequence[Event]) -> None:
        """Puts events into tables `arrived_...`, canonical and with the days that ingest would give them."""
        for name in events.TABLES:
            contract = CONTRACTS[name]
            self.connection.register("arrived", events.as_table(contract, new))
            query = f"SELECT *{checks.days(contract, contract.names)} FROM arrived"
            self.connection.execute(f"CREATE OR REPLACE TABLE arrived_{name} AS {query}")
            self.connection.unregister("arrived")

    def _trial(self) -> str:
        """SQL that sums up what was taken in and what `_stage` has put beside it."""
        if self._trial_sql is None:
            sums = self._summed("tried", self._none_of(CONTRACTS["products"])).values()
            self._trial_sql = ";".join(
                f"CREATE OR REPLACE TEMP TABLE trial AS {ibis.to_sql(rows, 'duckdb')}" for rows in sums
            )
        return self._trial_sql

    def _query(self, day: ir.DateScalar) -> str:
        """SQL for a row of each wanted customer; putting it together takes longer than running it, so it is kept."""
        described = str([storage.parts(storage.tables_folder(self.home, name)) for name in ("customers", "products")])
        if described not in self.queries:
            self.queries = {described: self._written(day)}
        return self.queries[described]

    def _written(self, day: ir.DateScalar) -> str:
        """SQL for a row of each wanted customer who is known at `day`: the id, and every feature in order."""
        names, tables = [feature.name for feature in customer_features(self.workspace)], self._tables()
        affinity = product_affinity.product_affinity(tables, day)
        profile, *others = (
            customer_family(family, self.workspace, tables, day, affinity)
            for family in sorted(CUSTOMER_FAMILIES, key=lambda family: family != "profile")
        )
        rows = profile
        for family in others:
            rows = rows.left_join(family, "customer_id").drop("customer_id_right")
        return str(ibis.to_sql(rows.select("customer_id", *(rows[name].cast("float32") for name in names)), "duckdb"))

    def _tables(self) -> Tables:
        """The wanted customers' tables: their days and those of their events, which are late: they may share a day."""
        products = self._canonical(CONTRACTS["products"])
        arrived = self._summed("new", products)
        wanted = self.backend.table("wanted")
        own = {kind: _both(self.backend.table(f"own_{kind}"), rows.semi_join(wanted, "customer_id"))
               for kind, rows in arrived.items()}  # fmt: skip
        shop = own | {kind: _both(self.backend.table(f"shop_{kind}"), self._willing(arrived[kind])) for kind in _SHOP}
        customers = self._canonical(CONTRACTS["customers"]).semi_join(wanted, "customer_id")
        categories = day_files.item_categories(products, day_files.item_column(self.workspace))
        shop_tables = Tables(**shop, customers=customers, categories=categories)
        return Tables(**own, customers=customers, categories=categories, shop=shop_tables)

    def _summed(self, which: str, products: ir.Table) -> dict[str, ir.Table]:
        """The days of the events in the tables `<which>_...`."""
        lines = self.backend.table(f"{which}_transactions")
        lines = day_files.priced(lines, products, day_files.item_column(self.workspace))
        interactions = self.backend.table(f"{which}_interactions")
        return {
            "item_days": days.item_days(lines).mutate(late=True),
            "customer_days": days.customer_days(lines).mutate(late=True),
            "interaction_days": days.interaction_days(interactions),
            "opinions": days.opinions(interactions),
        }

    def _willing(self, rows: ir.Table) -> ir.Table:
        """The rows of customers who count in what is said of the shop as a whole, as in a snapshot."""
        return profile.willing(rows, self._canonical(CONTRACTS["customers"]), has_consent(self.workspace, "profiling"))

    def _canonical(self, contract: Contract) -> ir.Table:
        """A canonical table. What the workspace lacks is empty in SQL alone: a memtable would be gone with the
        expression that it was part of, and the SQL is kept."""
        rows = day_files.canonical(self._read, self.workspace, contract)
        if not isinstance(rows.op(), InMemoryTable):
            return rows
        return self._none_of(contract)

    def _none_of(self, contract: Contract) -> ir.Table:
        nothing = self.backend.table("wanted").filter(ibis.literal(False))
        schema = day_files.schema_of(contract)
        return nothing.select(**{name: ibis.null(kind) for name, kind in schema.items()})

    def _read(self, files: Sequence[Path]) -> ir.Table:
        return self.backend.read_parquet([str(file) for file in files])


def _both(rows: ir.Table, more: ir.Table) -> ir.Table:
    """The rows of both, in the columns and types of the former."""
    return rows.union(more.select(**{name: more[name].cast(kind) for name, kind in rows.schema().items()}))
