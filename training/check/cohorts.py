"""Whom a training will find at its cutoffs, and what became of them, before any snapshot is computed.

Features, outcomes, who may teach and the sample are the training's own functions; here only the few features are
computed that those ask for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import partial
from pathlib import Path

import duckdb
import ibis
import ibis.expr.types as ir
import pandas as pd

from features import day_files, days, retrieval, snapshot
from features.families import engagement, profile, purchases
from features.families.known import Tables
from features.on_duckdb import OnDuckDB
from training.learning import datasets, labels
from training.models.customer_model import Inputs
from training.models.histories import MINIMUM_REPEAT_BUYERS
from workspace.settings import Churn, Workspace
from workspace.tables import CONTRACTS

# What `Leaving` and the counts here ask for; of a profile everything, as it costs nothing.
_NEEDED = {
    "purchases": ("frequency", "n_purchases", "days_since_last_purchase", "gap_mean"),
    "engagement": ("days_since_cancellation",),
    "profile": tuple(feature.name for feature in profile.FEATURES),
}
_PACKED = tuple(name for names in _NEEDED.values() for name in names)


@dataclass(frozen=True)
class Cohort:
    """Customers known at one cutoff: who had come back by then, and what became of them in the windows that followed.

    The outcomes are 0 at the as_of of the training itself, where none is known yet.
    """

    as_of: date
    customers: int
    repeat_buyers: int
    left: int = 0
    stayed: int = 0
    buyers: int = 0

    @property
    def has_history(self) -> bool:
        """Whether purchase histories can be learnt from here, without which no model can."""
        return self.repeat_buyers >= MINIMUM_REPEAT_BUYERS


@dataclass(frozen=True)
class Cohorts:
    """Of each cutoff, oldest first, the as_of itself last; of the customers that a training learns from.

    known: customers known at the as_of, of whom `share` are learnt from; latest: of the latest closed cutoff's
    customers, customer_id, `churned` (1 left, 0 stayed, nan who could not leave) and `silence` (days since the last
    purchase); none where no cutoff has closed.
    """

    each: tuple[Cohort, ...]
    known: int
    share: float
    latest: pd.DataFrame | None


def cohorts(
    connection: duckdb.DuckDBPyConnection, workspace: Workspace, closed: Sequence[date], as_of: date
) -> Cohorts:
    """From the ingested tables; keeps temporary tables in the connection, and writes nothing."""
    rows = _Rows(connection, workspace, as_of)
    taught = datasets.taught(workspace, as_of)
    happened = labels.outcomes(taught, closed, known_by=as_of, among=rows.customer_ids)
    days_of = pd.to_datetime(happened["as_of"])
    each, latest = [], None
    for day in closed:
        customers = rows.at(day)
        latest = _outcomes(taught.churn, customers, happened[days_of == pd.Timestamp(day)])
        left, stayed = (int((latest["churned"] == outcome).sum()) for outcome in (1, 0))
        each.append(Cohort(*_known(day, customers), left, stayed, int((latest["value"] > 0).sum())))
    return Cohorts((*each, Cohort(*_known(as_of, rows.at(as_of)))), rows.known, rows.share, latest)


def _known(day: date, customers: pd.DataFrame) -> tuple[date, int, int]:
    return day, len(customers), int((customers["frequency"] > 0).sum())


def _outcomes(churn: Churn, customers: pd.DataFrame, happened: pd.DataFrame) -> pd.DataFrame:
    """customer_id, silence, churned and value: what a training sees of its rows."""
    inputs, vectors = Inputs(_PACKED, ()), retrieval.matrix(customers, _PACKED)
    happened = happened.set_index("customer_id").reindex(customers["customer_id"])
    return pd.DataFrame({
        "customer_id": customers["customer_id"].to_numpy(),
        "silence": inputs.column(vectors, "days_since_last_purchase"),
        "churned": datasets.churned(inputs, churn, vectors, happened),
        "value": happened["value"].fillna(0.0).to_numpy(dtype=float),
    })  # fmt: skip


class _Rows:
    """The features that are needed, of the customers that a training at `as_of` samples: `customer_ids`.

    known: how many are known at `as_of`, of whom `share` are sampled.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection, workspace: Workspace, as_of: date) -> None:
        self.workspace = workspace
        self.backend = ibis.duckdb.from_connection(connection)
        connection.execute("SET TimeZone = ?", [workspace.timezone])  # ibis 12 sets it to UTC
        tables = self._tables()
        engine = OnDuckDB(connection, tables)
        day = engine.set_as_of(as_of)
        engine.keep("everybody", lambda: self._profile(tables, day).select("customer_id"))
        known = connection.execute("FROM everybody").df()["customer_id"]
        self.known, self.share = len(known), datasets.share(workspace.training.customers, len(known))
        self.customer_ids = known[retrieval.in_sample(known.to_numpy(dtype=object), self.share)]
        if self.share < 1:
            connection.register("sampled", self.customer_ids.to_frame())
            tables = _of(tables, self.backend.table("sampled"))
        self.engine, self.tables = engine, self._kept(engine, tables)

    def at(self, as_of: date) -> pd.DataFrame:
        """One row per customer who teaches at a cutoff, sorted by customer_id."""
        day = self.engine.set_as_of(as_of)
        self.engine.keep("needed", lambda: self._needed(day))
        rows = self.engine.connection.execute("FROM needed ORDER BY customer_id").df()
        return datasets.teaching(self.workspace.home_path, rows)

    def _tables(self) -> Tables:
        def canonical(name: str) -> ir.Table:
            return day_files.canonical(self._read, self.workspace, CONTRACTS[name])

        item, products, events = day_files.item_column(self.workspace), canonical("products"), canonical("interactions")
        lines = day_files.priced(canonical("transactions"), products, item)
        customer_days = days.customer_days(lines)
        return Tables(
            days.item_days(lines), customer_days.mutate(late=customer_days.known_day > customer_days.day),
            days.interaction_days(events), days.opinions(events), canonical("customers"),
            day_files.item_categories(products, item),
        )  # fmt: skip

    def _read(self, files: Sequence[Path]) -> ir.Table:
        return self.backend.read_parquet(list(map(str, files)))

    def _kept(self, engine: OnDuckDB, tables: Tables) -> Tables:
        """With the sums over lines and interactions computed once for all cutoffs."""
        names = ("customer_days", "interaction_days", "opinions")
        return replace(tables, **{n: engine.keep(f"counted_{n}", partial(getattr, tables, n)) for n in names})

    def _profile(self, tables: Tables, day: ir.DateScalar) -> ir.Table:
        return profile.profile(tables, day, {}, (), snapshot.has_consent(self.workspace, "profiling"))

    def _needed(self, day: ir.DateScalar) -> ir.Table:
        rows = self._profile(self.tables, day).select("customer_id", *_NEEDED["profile"])
        for family, rows_of in (("purchases", purchases.purchases), ("engagement", engagement.engagement)):
            more = rows_of(self.tables, day).select("customer_id", *_NEEDED[family])
            rows = rows.left_join(more, "customer_id").drop("customer_id_right")
        return rows


def _of(tables: Tables, sampled: ir.Table) -> Tables:
    """The rows of some customers; `shop` still has those of all."""
    names = ("item_days", "customer_days", "interaction_days", "opinions", "customers")
    return replace(tables, shop=tables, **{n: getattr(tables, n).semi_join(sampled, "customer_id") for n in names})
