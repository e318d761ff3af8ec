"""Rows that should be refused, added to the tables beside the true ones."""

import numpy as np
import pyarrow as pa

from simulation.block import Block
from simulation.parameters import DAY, DIRTY_SHARE
from simulation.tables import UTC_TIME, numbered_ids, utc_times

DIRT = ("no customer_id", "no occurred_at", "future occurred_at", "duplicate", "unknown customer", "absurd amount")


def add_dirt(rng: np.random.Generator, block: Block, table: pa.Table) -> tuple[pa.Table, list[tuple[str, int]]]:
    """The table with rows added that should be refused, and how many of each kind of DIRT. No true row is touched.

    `table` is the block's transactions or interactions, its key first; only the former have an amount to be absurd.
    """
    key = table.schema.names[0]
    soiled, counts = [table], []
    for kind, reason in enumerate(DIRT if "amount" in table.schema.names else DIRT[:-1]):
        picked = np.unique(rng.integers(max(len(table), 1), size=rng.binomial(len(table), DIRTY_SHARE)))
        rows = table.take(picked)
        if reason != "duplicate":
            numbers = (block.customers.first * len(DIRT) + kind) * 100_000 + np.arange(len(picked))
            rows = _with(rows, key, numbered_ids("D", numbers, 13))
        soiled.append(_spoiled(rng, rows, reason))
        counts.append((reason, len(picked)))
    return pa.concat_tables(soiled).unify_dictionaries(), counts


def _spoiled(rng: np.random.Generator, rows: pa.Table, reason: str) -> pa.Table:
    n = len(rows)
    match reason:
        case "no customer_id":
            return _with(rows, "customer_id", pa.nulls(n, pa.string()))
        case "unknown customer":
            return _with(rows, "customer_id", numbered_ids("X", rng.integers(10**8, size=n), 8))
        case "no occurred_at":
            return _with(rows, "occurred_at", pa.nulls(n, UTC_TIME))
        case "future occurred_at":
            future = np.datetime64("2100-01-01", "us").astype(np.int64) + rng.integers(50 * 365 * DAY, size=n)
            return _with(rows, "occurred_at", utc_times(future))
        case "absurd amount":
            return _with(rows, "amount", pa.array(np.round(rng.choice([-1, 1], n) * 10 ** rng.uniform(9.5, 12, n), 2)))
    return rows  # a duplicate is its own defect


def _with(table: pa.Table, name: str, values: pa.Array) -> pa.Table:
    field = table.schema.field(name)
    return table.set_column(table.schema.get_field_index(name), field, values.cast(field.type))
