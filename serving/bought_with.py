"""What goes with an item, for its product page: rules of association over the buyers of a year."""

from __future__ import annotations

from datetime import date

import numpy as np
import pandas as pd
import pyarrow as pa

from features.assortment import Assortment
from features.candidates import Shelf
from perennial import storage
from perennial.settings import Workspace
from perennial.storage import CheckFailed

# A rule that fewer buyers of both stand for is an accident, and one of few customers is almost about them.
_LEAST_BUYERS = 5
_MOST_RULES = 20

RULES = pa.schema([
    ("item", pa.string()), ("rank", pa.int32()), ("bought_with", pa.string()), ("buyers", pa.int64()),
    ("share", pa.float64()), ("lift", pa.float64()),
])  # fmt: skip


def rules(workspace: Workspace, as_of: date) -> pa.Table:
    """At most 20 companions of each item that sold in 365 days, as `RULES`; those that may not be offered are left out.

    `buyers` bought both, `share` is their part of the item's buyers, `lift` that share over the companion's among all
    buyers; only above 1, and with at least 5 buyers. The first is the nearest by the cosine of the two items' buyers.
    """
    found = pd.read_parquet(storage.snapshot_part(workspace.home_path, "co_purchase", as_of))
    shelf = Shelf.at(workspace, as_of)
    offered = shelf.items[Assortment.of(workspace, shelf.popularity).offered]
    enough = (found["n_bought_both_365d"] >= _LEAST_BUYERS) & (found["co_purchase_lift_365d"] > 1)
    found = found[enough & found["item"].isin(offered)]
    found = found.sort_values(["other", "co_purchase_cosine_365d", "item"], ascending=[True, False, True])
    found = found.assign(rank=found.groupby("other").cumcount() + 1).query(f"rank <= {_MOST_RULES}")
    columns = {
        "item": found["other"], "rank": found["rank"], "bought_with": found["item"],
        "buyers": found["n_bought_both_365d"].astype(np.int64), "share": found["co_buyers_365d"],
        "lift": found["co_purchase_lift_365d"],
    }  # fmt: skip
    return pa.Table.from_pandas(pd.DataFrame(columns), schema=RULES, preserve_index=False)


def bought_with(workspace: Workspace, as_of: date | None, item: str | None, top: int) -> pd.DataFrame:
    """The first `top` rules of one item, or of every item, as the batch of a scored as_of wrote them.

    Raises:
        CheckFailed: no rules of that as_of, or none of that item.
    """
    as_of = as_of or storage.latest_scored(workspace.home_path)
    path = storage.bought_with_path(workspace.home_path, as_of)
    if not path.exists():
        raise CheckFailed(f"there is no {path}; run `perennial score --as-of {as_of}`")
    found: pd.DataFrame = pd.read_parquet(path, filters=[("rank", "<=", top)])
    if item is not None:
        found = found[found["item"] == item]
        if found.empty:
            raise CheckFailed(
                f"nothing is known to go with {item!r} at {as_of}: it needs a companion with {_LEAST_BUYERS} buyers of"
                " both in a year that is bought with it more than by chance"
            )
    return found.reset_index(drop=True)
