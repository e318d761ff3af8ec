"""What is usual in a shop at an as_of: what a customer is held against before anything is said of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, Self

import duckdb
import numpy as np
import pandas as pd

from features.snapshot import CUSTOMER_FAMILIES
from workspace import storage
from workspace.settings import Workspace

_MEDIANS = (
    "gap_mean", "n_purchases_365d", "spend_365d", "days_since_last_purchase", "n_purchases_next_90d_last_year",
    "n_visit_90d", "satisfaction_last", "return_share_365d", "discount_share_365d", "n_categories_365d", "tenure_days",
)  # fmt: skip
# With fewer purchases a median wanders by itself.
_ENOUGH = 50
_WIDTHS = (1, 6, 30, 90)
# So many customers tell what a purchase usually brings.
_ASKED = 200_000


@dataclass(frozen=True)
class Norms:
    """medians: by feature, over the buyers who allow profiling; none where it is known of nobody.

    The others are what the shop as a whole has become, over what it was before; at most 1, and 0 where that is unknown.
    `purchases`: of the last 90 days over those of the 90 before; `visits`: of the last 30 over 30 of the 60 before;
    `coupons`: redeemed in the last 90 days over 90 of the 275 before. `prices`: the lowest median purchase of any
    stretch of the last 90 days over the highest of the 90 before; `prices_of_year`: the lowest over the highest of any
    30 days of a year. A customer who fell by no more than that shares what happened to everybody: a season, other
    prices, another currency, a source that went dry.
    """

    medians: Mapping[str, float] = field(default_factory=dict)
    purchases: float = 0.0
    prices: float = 0.0
    prices_of_year: float = 0.0
    visits: float = 0.0
    coupons: float = 0.0

    @classmethod
    def at(cls, workspace: Workspace, as_of: date) -> Self:
        """Of everybody known at `as_of`, whose snapshot must be there."""
        with storage.connect(workspace.home_path, workspace.timezone, workspace.memory) as connection:
            _customers(connection, workspace.home_path, as_of)
            medians = {name: median for name in _MEDIANS if (median := _median(connection, name)) is not None}
            visits, coupons = (_counts(connection, f"n_{kind}", *days) for kind, days in _WATCHED.items())
            _purchases(connection, workspace.home_path, as_of)
            return cls(
                medians, _fell(*_counted(connection)), _prices(connection), _prices_of_year(connection), visits, coupons
            )

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


_WATCHED = {"visit": (30, 90), "coupon_redeemed": (90, 365)}


def _customers(connection: duckdb.DuckDBPyConnection, home: Path, as_of: date) -> None:
    """A table `customers` of what is asked of each, as doubles, and `asked`: whether it is a buyer to be looked at."""
    counted = (f"n_{kind}_{days}d" for kind, both in _WATCHED.items() for days in both)
    columns = ", ".join(f'CAST("{name}" AS DOUBLE) AS "{name}"' for name in dict.fromkeys((*_MEDIANS, *counted)))
    parts = {family: storage.rows_of_part(storage.snapshot_part(home, family, as_of)) for family in CUSTOMER_FAMILIES}
    first, *others = (f"{rows} AS {family}" for family, rows in parts.items())
    joined = " ".join(f"JOIN {other} USING (customer_id)" for other in others)
    connection.execute(f"""
        CREATE TEMP TABLE customers AS
        SELECT coalesce(n_purchases > 0 AND profiling_consent IS DISTINCT FROM 0, false) AS asked, {columns}
        FROM {first} {joined}""")


def _median(connection: duckdb.DuckDBPyConnection, name: str) -> float | None:
    """Null where nobody's is known. One after the other: each holds its column in memory."""
    query = f'SELECT CAST(median("{name}") AS FLOAT) FROM customers WHERE asked'
    median: float | None = connection.execute(query).fetchall()[0][0]
    return median


def _counts(connection: duckdb.DuckDBPyConnection, name: str, recent: int, all_days: int) -> float:
    """How often customers did something in the last `recent` days, over as many of those before."""
    sums = ", ".join(f'coalesce(sum("{name}_{days}d"), 0)' for days in (recent, all_days))
    lately, ever = connection.execute(f"SELECT {sums} FROM customers").fetchall()[0]
    return _fell(lately, (ever - lately) * recent / (all_days - recent))


def _fell(now: float, before: float) -> float:
    return min(now / before, 1.0) if before > 0 else 0.0


def _purchases(connection: duckdb.DuckDBPyConnection, home: Path, as_of: date) -> None:
    """A table `purchases` of a year: `age` in days and net `spend`; of many customers those whose hashes come first."""
    lines = storage.rows_of(home, "transactions")
    [(customers,)] = connection.execute("SELECT count(*) FROM customers").fetchall()
    connection.execute(
        f"""CREATE TEMP TABLE purchases AS
            SELECT $as_of - day AS age, sum(amount) AS spend FROM {lines}
            WHERE known_day < $as_of AND day >= $as_of - 365 AND hash(customer_id) % $one_in = 0
            GROUP BY customer_id, day HAVING count(*) FILTER (amount >= 0) > 0""",
        {"as_of": as_of, "one_in": max(1, customers // _ASKED)},
    )


def _counted(connection: duckdb.DuckDBPyConnection) -> tuple[int, int]:
    query = "SELECT count(*) FILTER (age <= 90), count(*) FILTER (age > 90) FROM purchases WHERE age <= 180"
    return connection.execute(query).fetchall()[0]  # type: ignore[return-value]


def _prices(connection: duckdb.DuckDBPyConnection) -> float:
    """In stretches as short as have enough purchases each: prices may have changed on any day."""
    each_day = sum(_counted(connection)) / 180
    width = next((width for width in _WIDTHS if width * each_day >= 2 * _ENOUGH), _WIDTHS[-1])
    stretches = _medians(connection, width, 180)
    return _lowest_over_highest(stretches[stretches.index < 90 // width], stretches[stretches.index >= 90 // width])


def _prices_of_year(connection: duckdb.DuckDBPyConnection) -> float:
    months = _medians(connection, 30, 360)
    return _lowest_over_highest(months, months)


def _medians(connection: duckdb.DuckDBPyConnection, width: int, days: int) -> pd.Series:
    """What a purchase brought, by stretch of `width` days back from as_of, of those with enough purchases to say."""
    medians = connection.execute(
        f"""SELECT (age - 1) // {width} AS stretch, median(spend) AS spend FROM purchases WHERE age <= {days}
            GROUP BY 1 HAVING count(*) >= {_ENOUGH} ORDER BY 1"""
    ).df()
    return medians.set_index("stretch")["spend"]


def _lowest_over_highest(now: pd.Series, before: pd.Series) -> float:
    if now.empty or before.empty or not np.all(np.append(now, before) > 0):
        return 0.0
    return _fell(float(now.min()), float(before.max()))
