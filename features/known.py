"""The canonical tables as Ibis expressions, and what of them was known at each cutoff."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import ibis
import ibis.expr.types as ir
from ibis.backends import BaseBackend

from perennial import storage
from perennial.settings import Workspace
from perennial.tables import CONTRACTS, TREATMENT_KINDS, Contract

_IBIS_TYPE = {"VARCHAR": "string", "TIMESTAMPTZ": "timestamp('UTC')", "DOUBLE": "float64", "BOOLEAN": "boolean"}


@dataclass(frozen=True)
class Tables:
    """The inputs of every feature family. A table that the workspace lacks is here with no rows.

    transactions: a line with its product's `category` and its `margin` (null where cost is unknown);
    customer_days: one row per (customer_id, day, known_day) with the sums of that day's lines;
    interactions, customers: the canonical tables.
    """

    transactions: ir.Table
    customer_days: ir.Table
    interactions: ir.Table
    customers: ir.Table


def read(backend: BaseBackend, workspace: Workspace) -> Tables:
    """Opens the workspace's tables; per-customer days are computed once and kept for all cutoffs.

    Hours are the session's on every engine, and ibis 12 makes that UTC: here it becomes the workspace's zone.
    """
    backend.raw_sql(f"SET TIME ZONE {storage.quoted(workspace.timezone)}")
    tables = {name: _table(backend, workspace, CONTRACTS[name]) for name in CONTRACTS}
    products = tables["products"].select("product_id", "category", "unit_cost")
    lines = tables["transactions"].left_join(products, "product_id").drop("product_id_right")
    cost = ibis.coalesce(lines.cost, lines.unit_cost * lines.quantity)
    lines = lines.mutate(margin=lines.amount - cost).drop("cost", "unit_cost")
    days = backend.create_table("customer_days", customer_days(lines), temp=True)
    return Tables(lines, days, tables["interactions"], tables["customers"])


def _table(backend: BaseBackend, workspace: Workspace, contract: Contract) -> ir.Table:
    paths = storage.parts(storage.tables_folder(workspace.home_path, contract.name))
    if paths and contract.name in workspace.tables.given():
        return backend.read_parquet([str(path) for path in paths], table_name=f"source_{contract.name}")
    schema = {column.name: _IBIS_TYPE[column.type] for column in contract.columns}
    days = ("day", "known_day") if contract.is_event else ()
    derived = (*days, *(f"{n[:-3]}_day" for n in contract.names if n in ("resolved_at", "signed_up_at")))
    return ibis.memtable([], schema=ibis.schema(schema | dict.fromkeys(derived, "date")))


def customer_days(lines: ir.Table) -> ir.Table:
    """Lines summed to one row per (customer_id, day, known_day). A line with a negative amount is a return."""
    bought = lines.amount >= 0
    return lines.group_by("customer_id", "day", "known_day").agg(
        spend=lines.amount.sum(),
        gross=lines.amount.sum(where=bought).fill_null(0),
        n_lines=bought.sum(),
        n_return_lines=(~bought).sum(),
        quantity=lines.quantity.sum(where=bought),
        discount=lines.discount.sum(where=bought),
        margin=lines.margin.sum(),
    )


def at(rows: ir.Table, cutoffs: ir.Table) -> ir.Table:
    """Every row once per cutoff that knew of it, with `as_of` and its `age`: days from `day` to as_of, at least 1."""
    joined = rows.join(cutoffs, rows.known_day < cutoffs.as_of)
    return joined.mutate(age=joined.as_of.delta(joined.day, unit="day"))


def cutoffs_table(as_of_dates: list[date]) -> ir.Table:
    return ibis.memtable({"as_of": as_of_dates}, schema=ibis.schema({"as_of": "date"}))


def is_behaviour(interactions: ir.Table) -> ir.BooleanValue:
    """True for what customers do themselves, false for what the marketer sends them."""
    return interactions.kind.notin(TREATMENT_KINDS)
