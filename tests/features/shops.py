"""Shops made of rows, taken in by the real ingest: what feature tests start from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import ibis
import ibis.expr.types as ir
import numpy as np
import pandas as pd
from builders import write_workspace

from features import day_files, snapshot
from features.families.basket import basket
from features.families.product_affinity import product_affinity
from ingest import intake
from workspace import settings, storage
from workspace.settings import Workspace

NOW = datetime(2030, 1, 1, tzinfo=UTC)
TRANSACTIONS = ("transaction_id", "customer_id", "occurred_at", "amount", "quantity", "product_id", "discount", "cost",
                "channel", "location", "recorded_at")  # fmt: skip
# The day clocks went forward in Berlin, a busy day, and one past the last row.
EDGES_AT = (date(2022, 3, 27), date(2022, 12, 21), date(2024, 7, 1))
_EDGES = (0, 7, 14, 30, 60, 90, 180, 275, 335, 360, 365, 730)
_FIRST = np.datetime64("2021-01-04")
_DAYS = 1100


def make_interactions(rows: Sequence[tuple[Any, Any, str]], **columns: Any) -> pd.DataFrame:
    """One event per (customer_id, occurred_at, kind), in this order; further columns hold a value a row."""
    events = pd.DataFrame(rows, columns=["customer_id", "occurred_at", "kind"])
    return events.assign(interaction_id=[f"i{number}" for number in range(len(events))], **columns)


def open_shop(folder: Path, tables: Mapping[str, pd.DataFrame | dict[str, str]], **keys: Any) -> Workspace:
    """Takes the tables in, rows or settings of a table, below `folder`; `keys` are settings beside them."""
    others = {name: table for name, table in tables.items() if name != "transactions"}
    workspace = settings.read(write_workspace(folder, tables["transactions"], tables=others, **keys))
    intake.ingest(workspace, NOW)
    return workspace


def features_at(workspace: Workspace, as_of: date) -> dict[str, pd.DataFrame]:
    """Every family's snapshot at `as_of`, indexed and sorted by its keys."""
    paths = snapshot.snapshot(workspace, [as_of])
    parts = zip(snapshot.families(workspace), map(pd.read_parquet, paths), strict=True)
    return {family: _indexed(family, rows) for family, rows in parts}


def family_at(workspace: Workspace, family: Callable[..., ir.Table], as_of: date, **arguments: Any) -> pd.DataFrame:
    """One family alone, as its module gives it: in a fifth of a snapshot's time, and before its float32."""
    with storage.connect(workspace.home_path, workspace.timezone) as connection:
        backend = ibis.duckdb.from_connection(connection)
        tables = day_files.read(connection, workspace)
        day = ibis.literal(as_of)
        if family is basket:
            arguments["affinity"] = product_affinity(tables, day)
        rows = family(tables, as_of=day, **arguments)
        backend.create_view("rows", rows)
        features = connection.execute("SELECT * FROM rows").df()
    keys = [key for key in ("customer_id", "item") if key in features]
    return features.set_index(keys).sort_index()


def _indexed(family: str, rows: pd.DataFrame) -> pd.DataFrame:
    return rows.drop(columns="as_of").set_index(list(snapshot.KEYS[family])).sort_index()


def random_tables(seed: int) -> dict[str, pd.DataFrame]:
    """Four tables of a shop with returns, late rows, busy days, gaps in every optional column and strangers.

    A third of what happens lies on the last day in or the first day out of some feature's window at one of EDGES_AT.
    """
    random = np.random.default_rng(seed)
    return {
        "transactions": _random_transactions(random),
        "interactions": _random_interactions(random),
        "customers": _random_customers(random),
        "products": _random_products(random),
    }


def _random_transactions(random: np.random.Generator, n: int = 700) -> pd.DataFrame:
    customer = random.choice([f"c{i:02}" for i in range(30)], n, p=_uneven(random, 30))
    occurred_at = _times(random, n)
    amount = np.round(random.gamma(2.0, 15.0, n) * random.choice([1, 0, -0.6], n, p=[0.85, 0.05, 0.1]), 2)
    product = np.where(random.random(n) < 0.1, None, random.choice([f"p{i}" for i in range(12)], n))
    lines = pd.DataFrame({"customer_id": customer, "occurred_at": occurred_at, "amount": amount, "product_id": product})
    # Up to three lines share a receipt; a fifth of them are seen again on the same day under another one.
    lines = lines.loc[np.repeat(lines.index, random.integers(1, 4, n))].reset_index(drop=True)
    receipt = lines.groupby(["customer_id", "occurred_at"]).ngroup()
    lines["transaction_id"] = "t" + (receipt * 2 + (random.random(len(lines)) < 0.2)).astype(str)
    lines["amount"] = np.round(lines["amount"] * random.choice([1.0, 0.5, -0.2], len(lines), p=[0.7, 0.25, 0.05]), 2)
    lines["quantity"] = np.sign(lines["amount"]) * random.integers(1, 5, len(lines))
    lines["discount"] = -np.round(random.random(len(lines)) * 3, 2)
    lines["cost"] = np.round(lines["amount"] * 0.4, 2)
    lines["channel"] = random.choice(["web", "app", "shop"], len(lines))
    lines["location"] = random.choice(["north", "south"], len(lines))
    lines["recorded_at"] = _late(random, lines["occurred_at"], often=0.15)
    for column, missing in {"quantity": 0.15, "discount": 0.6, "cost": 0.7, "channel": 0.3, "location": 1.0}.items():
        lines[column] = lines[column].mask(random.random(len(lines)) < missing)
    return lines[list(TRANSACTIONS)].drop_duplicates(ignore_index=True)


def _random_interactions(random: np.random.Generator, n: int = 600) -> pd.DataFrame:
    kinds = ("visit", "search", "cart", "review", "complaint", "inquiry", "survey", "email_open", "email_click", "call",
             "coupon_redeemed", "cancellation", "email_sent", "campaign_contact", "forum_post")  # fmt: skip
    # Five of them only ever get in touch, thirty buy as well.
    customer = random.choice([f"c{i:02}" for i in range(5, 35)], n, p=_uneven(random, 30))
    occurred_at = _times(random, n)
    busy = random.random(n) < 0.3
    occurred_at[busy] = np.datetime64("2022-12-20T08") + random.integers(0, 40, busy.sum()).astype("timedelta64[h]")
    kind = np.where(random.random(n) < 0.4, random.choice(["review", "complaint"], n), random.choice(kinds, n))
    resolved = occurred_at + random.integers(0, 24 * 200, n).astype("timedelta64[h]")
    events = pd.DataFrame({"customer_id": customer, "occurred_at": occurred_at, "kind": kind})
    events["interaction_id"] = [f"i{i}" for i in random.permutation(n)]
    events["value"] = pd.Series(random.integers(1, 6, n) * 1.0).mask(random.random(n) < 0.3)
    events["resolved_at"] = pd.Series(resolved).where((kind == "complaint") & (random.random(n) < 0.7))
    events["recorded_at"] = _late(random, events["occurred_at"], often=0.15)
    return events


def _random_customers(random: np.random.Generator, n: int = 45) -> pd.DataFrame:
    """Of c00 to c44: some buy, some only ever signed up, some have no date, many sign up after they first bought."""
    return pd.DataFrame(
        {
            "customer_id": [f"c{i:02}" for i in range(n)],
            "signed_up_at": pd.Series(_times(random, n)).mask(random.random(n) < 0.2),
            "profiling_consent": random.choice(np.array([True, False, None], dtype=object), n),
            "city": random.choice(np.array(["Aachen", "Bonn", "Celle", None], dtype=object), n),
            "birth_year": pd.Series(random.integers(1940, 2005, n) * 1.0).mask(random.random(n) < 0.3),
            "contract_ends_at": pd.Series(_times(random, n)).mask(random.random(n) < 0.5),
        }
    ).iloc[3:]


def _random_products(random: np.random.Generator) -> pd.DataFrame:
    """Ten of the twelve products that are sold; the unit cost of three is not known."""
    costs = np.round(random.gamma(2.0, 2.0, 10), 2)
    costs[:3] = np.nan
    categories = random.permutation(["tea", "coffee", "cake", "cups", "tea", "coffee", "cake", "tea", "coffee", "tea"])
    return pd.DataFrame({"product_id": [f"p{i}" for i in range(10)], "category": categories, "unit_cost": costs})


def _times(random: np.random.Generator, n: int) -> np.ndarray:
    """Whole minutes over three years, half of them close to midnight; never between 2 and 3, which spring skips."""
    days = _FIRST + random.integers(0, _DAYS, n).astype("timedelta64[D]")
    back = random.choice([edge + out for edge in _EDGES for out in (0, 1)], n).astype("timedelta64[D]")
    days = np.where(random.random(n) < 0.33, random.choice(np.array(EDGES_AT, dtype="datetime64[D]"), n) - back, days)
    hours = np.where(random.random(n) < 0.5, random.choice([0, 23], n), random.integers(4, 23, n))
    minutes = hours * 60 + random.choice([0, 1, 30, 59], n)
    return (days.astype("datetime64[m]") + minutes.astype("timedelta64[m]")).astype("datetime64[us]")


def _late(random: np.random.Generator, occurred_at: pd.Series, often: float) -> pd.Series:
    """When a row arrived: mostly not noted, often weeks after it happened, sometimes to the minute at midnight."""
    delay = pd.to_timedelta(random.integers(0, 60 * 24 * 60, len(occurred_at)), unit="min")
    at = occurred_at + delay
    at = at.where(random.random(len(at)) < 0.5, at.dt.normalize() + pd.Timedelta(days=1))
    # Clocks go forward between 2 and 3.
    at = at.where(at.dt.hour != 2, at + pd.Timedelta(hours=1))
    return at.where(random.random(len(at)) < often)


def _uneven(random: np.random.Generator, n: int) -> np.ndarray:
    """Shares of a few who do a lot and many who do little."""
    weights = random.gamma(0.5, 1.0, n) + 0.01
    return weights / weights.sum()
