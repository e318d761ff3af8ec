"""Who signed up and has not bought yet, and what the buyers of their segment buy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from features.items.candidates import Shelf
from workspace import storage

Floats = NDArray[np.floating]

# A segment's shares are drawn to the shop's, as by so many buyers more.
_PRIOR_BUYERS = 50


@dataclass(frozen=True)
class Newcomers:
    """The row of `shares` that holds for each of `customer_ids`: what part of a year's buyers bought each item.

    A row of `shares` is a segment, the value of `cross_sell.segment`. Without one, or where it is not recorded,
    everybody is the segment, and the row the first.
    """

    customer_ids: pd.Index
    segment: NDArray[np.int64]
    shares: Floats

    @classmethod
    def at(cls, shelf: Shelf, customers: pd.DataFrame) -> Newcomers:
        """Of the rows of customer features who never bought; who refuses profiling is none."""
        return Segments.at(shelf).newcomers(customers)


@dataclass(frozen=True)
class Segments:
    """What each segment's buyers buy: a row of `shares` for everybody, and one for each of `values` of the attribute.

    There is no `attribute` where `cross_sell.segment` names none.
    """

    attribute: str | None
    values: pd.Index
    shares: Floats

    @classmethod
    def at(cls, shelf: Shelf) -> Self:
        everybodys = shelf.popularity["item_buyers_365d"].to_numpy(dtype=float)
        segment = shelf.workspace.cross_sell.segment
        if segment is None:
            return cls(None, pd.Index([]), everybodys[None, :])
        bought = _by_segment(shelf, f"attribute_{segment}")
        own = [_drawn(shelf, group, everybodys) for _, group in bought.groupby("segment", sort=False)]
        return cls(f"attribute_{segment}", pd.Index(bought["segment"].unique()), np.vstack([everybodys, *own]))

    def newcomers(self, customers: pd.DataFrame) -> Newcomers:
        """As `Newcomers.at`."""
        rows = customers[customers["T"].isna() & (customers["profiling_consent"] != 0)]
        of = np.zeros(len(rows), dtype=np.int64)
        if self.attribute is not None:
            own = pd.Index(rows[self.attribute].to_numpy(dtype=float, na_value=np.nan))
            of = self.values.get_indexer(own).astype(np.int64) + 1
        return Newcomers(pd.Index(rows["customer_id"]), of, self.shares)


def _drawn(shelf: Shelf, bought: pd.DataFrame, everybodys: Floats) -> Floats:
    n = np.zeros(len(shelf.items))
    n[shelf.items.get_indexer(pd.Index(bought["item"]))] = bought["n"]
    return (n + _PRIOR_BUYERS * everybodys) / (bought["buyers"].iloc[0] + _PRIOR_BUYERS)


def _by_segment(shelf: Shelf, attribute: str) -> pd.DataFrame:
    """Per segment and item: `n` buyers of it in 365 days, and `buyers` of anything; without who refuses profiling."""
    home, memory = shelf.workspace.home_path, shelf.workspace.memory
    own, profile = (
        storage.rows_of_part(storage.snapshot_part(home, family, shelf.as_of))
        for family in ("product_affinity", "profile")
    )
    with storage.connect(home, memory=memory) as connection:
        return connection.execute(f"""
            WITH bought AS (
                SELECT customer_id, item, {attribute} AS segment
                FROM {own} AS own JOIN {profile} AS profile USING (customer_id)
                WHERE item_days_since_last <= 365 AND {attribute} IS NOT NULL AND coalesce(profiling_consent, 1) <> 0),
            buyers AS (SELECT segment, count(DISTINCT customer_id) AS buyers FROM bought GROUP BY segment)
            SELECT segment, item, count(*) AS n, any_value(buyers) AS buyers FROM bought JOIN buyers USING (segment)
            GROUP BY segment, item ORDER BY segment, item""").df()
