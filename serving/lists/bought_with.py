"""What goes with an item, for its product page: rules of association over the buyers of a year, beyond chance."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from features.families.product_affinity import PAIRED
from features.items.assortment import Assortment
from features.items.candidates import Shelf
from features.snapshot import families
from serving.lists import filters
from serving.lists.chance import Chance, among
from workspace import storage
from workspace.settings import Workspace
from workspace.storage import CheckFailed

# A rule that fewer buyers of both stand for is an accident, and one of few customers is almost about them.
_LEAST_BUYERS = 5
_MOST_RULES = 20
# Of the pairs that are listed, so many may be chance, on average.
_FALSE_SHARE = 0.05

RULES = pa.schema([
    ("item", pa.string()), ("rank", pa.int32()), ("bought_with", pa.string()), ("buyers", pa.int64()),
    ("share", pa.float64()), ("lift", pa.float64()),
])  # fmt: skip


def rules(workspace: Workspace, as_of: date) -> pa.Table:
    """At most 20 companions of each item that sold in 365 days, as `RULES`; those that may not be offered are left out.

    `buyers` bought both, `share` is their part of the item's buyers, `lift` that share over the companion's among all
    buyers; only above 1, with at least 5 buyers, and more of them than chance brings. The first is the nearest by the
    cosine of the two items' buyers.
    """
    pairs = pd.read_parquet(storage.snapshot_part(workspace.home_path, "co_purchase", as_of))
    shelf = Shelf.at(workspace, as_of)
    offered = shelf.items[Assortment.of(workspace, shelf.popularity).offered]
    enough = (pairs["n_bought_both_365d"] >= _LEAST_BUYERS) & (pairs["co_purchase_lift_365d"] > 1)
    pairs = pairs[enough & _beyond_chance(workspace.home_path, as_of, pairs) & pairs["item"].isin(offered)]
    pairs = pairs.sort_values(["other", "co_purchase_cosine_365d", "item"], ascending=[True, False, True])
    pairs = pairs.assign(rank=pairs.groupby("other").cumcount() + 1).query(f"rank <= {_MOST_RULES}")
    columns = {
        "item": pairs["other"], "rank": pairs["rank"], "bought_with": pairs["item"],
        "buyers": pairs["n_bought_both_365d"].astype(np.int64), "share": pairs["co_buyers_365d"],
        "lift": pairs["co_purchase_lift_365d"],
    }  # fmt: skip
    return pa.Table.from_pandas(pd.DataFrame(columns), schema=RULES, preserve_index=False)


def _beyond_chance(home: Path, as_of: date, pairs: pd.DataFrame) -> pd.Series:
    """Which rows of `co_purchase` are pairs that share more buyers than chance brings, among all pairs there could be.

    Those that are no neighbours, and have no row, count as asked about and answered no.
    """
    if pairs.empty:
        return pd.Series(index=pairs.index, dtype=bool)
    items_each, buyers_of = _counts(home, as_of)
    names = np.sort(pairs[["item", "other"]].to_numpy(dtype=str), axis=1)
    once = pairs.assign(first=names[:, 0], second=names[:, 1]).drop_duplicates(["first", "second"])
    first, second = (buyers_of.loc[once[name]].to_numpy() for name in ("item", "other"))
    both = once["n_bought_both_365d"].to_numpy().astype(np.int64)
    p_values = Chance.of(items_each, buyers_of.to_numpy()).p_values(both, first, second)
    paired = min(len(buyers_of), PAIRED)
    holds = among(p_values, paired * (paired - 1) // 2, _FALSE_SHARE)
    together = set(zip(once.loc[holds, "first"], once.loc[holds, "second"], strict=True))
    return pd.Series([(a, b) in together for a, b in names], index=pairs.index, dtype=bool)


def _counts(home: Path, as_of: date) -> tuple[np.ndarray, pd.Series]:
    """Of 365 days: how many items each buyer bought, and by item how many buyers it had."""
    part = storage.snapshot_part(home, "product_affinity", as_of)
    bought = f"FROM {storage.rows_of_part(part)} WHERE item_days_since_last <= 365"
    with storage.connect(home) as connection:
        each = connection.execute(f"SELECT count(*) AS n {bought} GROUP BY customer_id").df()["n"].to_numpy()
        of = connection.execute(f"SELECT item, count(*) AS n {bought} GROUP BY item").df().set_index("item")["n"]
    return each, of


def bought_with(workspace: Workspace, as_of: date | None, item: str | None, top: int) -> pd.DataFrame:
    """The first `top` rules of one item, or of every item, as the batch of a scored as_of wrote them.

    Raises:
        NoSuchFilter: nobody bought such an item in the year before.
        CheckFailed: no rules of that as_of, or none of that item.
    """
    as_of = as_of or storage.latest_scored(workspace.home_path)
    path = storage.bought_with_path(workspace.home_path, as_of)
    if not path.exists():
        if "product_affinity" not in families(workspace):
            raise CheckFailed(f"{workspace.name} has no `products` table: nothing says what is bought together")
        raise CheckFailed(f"there is no {path}; run `perennial score -c FILE --as-of {as_of}`")
    companions: pd.DataFrame = pd.read_parquet(path, filters=[("rank", "<=", top)])
    if item is not None:
        wanted = meant(item, Shelf.at(workspace, as_of).items.tolist())
        companions = companions[companions["item"] == wanted]
        if companions.empty:
            raise CheckFailed(
                f"nothing is known to go with {item!r} at {as_of}: it needs a companion with {_LEAST_BUYERS} buyers of"
                " both in a year that is bought with it more than by chance"
            )
    return companions.reset_index(drop=True)


def meant(item: str, items: Sequence[str]) -> str:
    """The item of this name, in whatever case it is written.

    Raises:
        NoSuchFilter: there is none; the nearest ones are named.
    """
    alike = filters.chosen("item", item, items, "nobody bought it in the last 365 days")
    return item if item in alike else str(alike[0])
