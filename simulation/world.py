"""A shop that does not exist, whose customers' intentions are known: input tables, and beside them the truth.

`simulate` plays the shop day by day and writes the input tables of docs/tables.md; `simulation.truth.truth` answers,
from the latent parameters kept under `OUT/truth/`, what a perfect forecaster would say on any date. The process and its
equations are in docs/simulate.md. A day is a UTC day, numbered from 1970-01-01 as numpy does.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from simulation.block import draw_block
from simulation.dirt import add_dirt
from simulation.shop import Shop, day_number, draw_shop
from simulation.tables import (
    CUSTOMERS,
    TRUTH_TABLES,
    campaigns_table,
    customers_table,
    interactions_table,
    products_table,
    transactions_table,
    truth_tables,
    write_table,
)

BLOCK = 20_000  # customers drawn together and written as one part: bounds memory, and is part of what a seed means
TABLES = ("transactions", "interactions", "customers.parquet", "products.parquet", "campaigns.parquet", "truth")


def _say_nothing(_: str) -> None:
    """The default `progress`."""


def simulate(
    out: Path,
    customers: int,
    years: float,
    seed: int,
    ends: date = date(2025, 1, 1),
    lines_per_purchase: float = 3.5,
    progress: Callable[[str], None] = _say_nothing,
) -> None:
    """Write `years` of a shop with this many customers, up to the midnight (UTC) at which `ends` begins.

    `out` then holds `transactions/` and `interactions/` (one part per 20,000 customers), `customers.parquet`,
    `products.parquet`, `campaigns.parquet` and `truth/`. The same arguments give the same bytes. `lines_per_purchase`
    is the mean before a product drawn twice becomes one line. An earlier simulation in `out` is replaced; any other
    content raises a ValueError, as do arguments that make no shop. Nothing is left behind if it fails.
    """
    _check(customers, years, seed, ends, lines_per_purchase)
    starts = ends - timedelta(max(1, round(365.25 * years)))
    settings = {"customers": customers, "years": years, "seed": seed, "starts": starts.isoformat(),
                "ends": ends.isoformat(), "lines_per_purchase": lines_per_purchase}  # fmt: skip
    with _replacing(out) as folder:
        for name in ("transactions", "interactions", *(f"truth/{name}" for name in TRUTH_TABLES)):
            (folder / name).mkdir(parents=True)
        (folder / "truth/simulation.json").write_text(json.dumps(settings, indent=2) + "\n")
        shop = draw_shop(seed, day_number(starts), day_number(ends))
        write_table(folder / "products.parquet", products_table(shop))
        write_table(folder / "campaigns.parquet", campaigns_table(shop))
        _write_blocks(folder, shop, customers, seed, lines_per_purchase, progress)


def _check(customers: int, years: float, seed: int, ends: date, lines_per_purchase: float) -> None:
    if customers < 1:
        raise ValueError(f"customers is {customers}; a shop needs at least 1")
    if not 0 < years <= 50:
        raise ValueError(f"years is {years}; it must be more than 0 and at most 50")
    if not 1975 + years <= ends.year < 2100:  # sign-ups go back three years more; rows dated 2100 are in the future
        raise ValueError(f"ends is {ends}; with {years} years it must lie between {1975 + years:.0f} and 2099")
    if seed < 0:
        raise ValueError(f"seed is {seed}; it must be 0 or more")
    if not 1 <= lines_per_purchase <= 100:
        raise ValueError(f"lines_per_purchase is {lines_per_purchase}; it must be between 1 and 100")


@contextmanager
def _replacing(out: Path) -> Iterator[Path]:
    """A new sibling folder that becomes `out` when the block ends well, and disappears when it does not."""
    out = out.resolve()
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file; give a folder that is new or empty")
    present = {path.name for path in out.iterdir()} if out.exists() else set()
    ours = present <= {*TABLES} and (out / "truth/simulation.json").exists()
    if present and not ours:
        others = ", ".join(sorted(present - {*TABLES} or present)[:5])
        raise ValueError(f"{out} holds what no simulation wrote ({others}); give a new or empty folder, or clear it")
    partial, former = (out.with_name(f".{out.name}.{word}-{os.getpid()}") for word in ("partial", "former"))
    try:
        partial.mkdir(parents=True)
        yield partial
        if present:
            out.rename(former)
        partial.rename(out)
        shutil.rmtree(former, ignore_errors=True)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write_blocks(
    folder: Path, shop: Shop, customers: int, seed: int, lines_per_purchase: float, progress: Callable[[str], None]
) -> None:
    dirty: list[tuple[str, str, int]] = []
    n_lines = n_interactions = 0
    with pq.ParquetWriter(folder / "customers.parquet", CUSTOMERS, compression="zstd") as writer:
        for part, first in enumerate(range(0, customers, BLOCK)):
            rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(part,)))
            block = draw_block(rng, shop, first, min(BLOCK, customers - first), lines_per_purchase)
            writer.write_table(customers_table(block).cast(CUSTOMERS))
            transactions, dirt = add_dirt(rng, block, transactions_table(rng, block))
            dirty += [("transactions", *kind) for kind in dirt]
            interactions, dirt = add_dirt(rng, block, interactions_table(rng, block))
            dirty += [("interactions", *kind) for kind in dirt]
            tables = {"transactions": transactions, "interactions": interactions, **truth_tables(block)}
            for name, table in tables.items():
                write_table(folder / name / f"part-{part:05}.parquet", table)
            n_lines, n_interactions = n_lines + len(transactions), n_interactions + len(interactions)
            progress(f"{first + len(block.customers.joined):,} of {customers:,} customers, "
                     f"{n_lines:,} transaction lines, {n_interactions:,} interactions")  # fmt: skip
    rows = pd.DataFrame(dirty, columns=["table", "reason", "rows"]).groupby(["table", "reason"], as_index=False).sum()
    rows.to_parquet(folder / "truth/dirty_rows.parquet", index=False)
