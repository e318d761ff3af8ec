"""Which items may be offered at all: in stock, not excluded, above the margin floor, not owned for good."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from features.day_files import item_column
from workspace import storage
from workspace.settings import Workspace
from workspace.storage import CheckFailed

Flags = NDArray[np.bool_]

_FILES = (".csv", ".parquet")
_SHOWN = 5


@dataclass(frozen=True)
class Assortment:
    """By the item: whether it may be offered, and whether it is a one-off that its owners practically never rebuy."""

    offered: Flags
    one_off: Flags

    @classmethod
    def of(cls, workspace: Workspace, popularity: pd.DataFrame, say: Callable[[str], None] = lambda _: None) -> Self:
        """Of the items that index `popularity`, by the settings in `cross_sell`; `say` hears what is left out and why.

        Raises:
            CheckFailed: a list of items cannot be read, or nothing has the prices that a margin floor needs.
        """
        items, sell = popularity.index, workspace.cross_sell
        why_not = {"excluded": items.isin(excluded(workspace))}
        if sell.stock:
            why_not["out of stock"] = ~items.isin(in_stock(workspace))
        if sell.margin_floor is not None:
            margin = _margins(workspace).reindex(items).to_numpy(dtype=float)
            why_not["without a known margin"] = np.isnan(margin)
            why_not["below the margin floor"] = margin < sell.margin_floor
        _report(items, why_not, say)
        _report_unknown(items, excluded(workspace), say)
        left_out = np.logical_or.reduce(list(why_not.values()))
        one_off = popularity["item_rebought_share"].to_numpy(dtype=float) < sell.one_off
        return cls(~left_out, one_off)

    def may_offer(self, item: NDArray[np.int64], owned: Flags) -> Flags:
        """Of pairs: the item's position, and whether the customer has bought it."""
        return self.offered[item] & ~(owned & self.one_off[item])


def in_stock(workspace: Workspace) -> pd.Index:
    """The items that `cross_sell.stock` names; none where everything may be offered."""
    return _listed(workspace.cross_sell.stock, "stock")


def excluded(workspace: Workspace) -> pd.Index:
    """The items that `cross_sell.exclude` names."""
    return _listed(workspace.cross_sell.exclude, "exclude")


def _report(items: pd.Index, why_not: dict[str, Flags], say: Callable[[str], None]) -> None:
    counted = [f"{int(flags.sum()):,} {why}" for why, flags in why_not.items() if flags.any()]
    if counted:
        say(f"not offered, of {len(items):,} items: {', '.join(counted)}")


def _report_unknown(items: pd.Index, named: pd.Index, say: Callable[[str], None]) -> None:
    unknown = named.difference(items)
    if len(unknown):
        shown = ", ".join(unknown[:_SHOWN]) + (", ..." if len(unknown) > _SHOWN else "")
        say(f"cross_sell.exclude names {len(unknown):,} that nobody bought in the last 365 days: {shown}")


def _listed(entries: Iterable[str], setting: str) -> pd.Index:
    """The items themselves, and those in the files among the entries."""
    items = {item for entry in entries for item in (_in_file(entry, setting) if entry.endswith(_FILES) else [entry])}
    return pd.Index(sorted(items), dtype=object)


def _in_file(name: str, setting: str) -> list[str]:
    path = Path(name)
    if not path.exists():
        raise CheckFailed(f"cross_sell.{setting} names {name}, which is not there; write it, or take it out")
    rows = pd.read_csv(path, dtype=str) if path.suffix == ".csv" else pd.read_parquet(path)
    if "item" not in rows:
        raise CheckFailed(
            f"{name} (cross_sell.{setting}) has no column `item`; it has {', '.join(map(str, rows))[:200]}"
        )
    return rows["item"].dropna().astype(str).tolist()


def _margins(workspace: Workspace) -> pd.Series:
    """By item, what is left of the list prices of its products after their unit costs, as a share.

    Raises:
        CheckFailed: no product has both.
    """
    if workspace.tables.products is None:
        raise CheckFailed("cross_sell.margin_floor needs `tables.products` with unit_cost and list_price")
    with storage.connect(workspace.home_path) as connection:
        margins = connection.execute(f"""
            SELECT {item_column(workspace)} AS item, 1 - sum(unit_cost) / sum(list_price) AS margin
            FROM {storage.rows_of(workspace.home_path, "products")}
            WHERE unit_cost IS NOT NULL AND list_price > 0 AND item IS NOT NULL GROUP BY ALL""").df()
    if margins.empty:
        raise CheckFailed("cross_sell.margin_floor is set, and no product has both unit_cost and list_price; map them")
    return margins.set_index("item")["margin"]
