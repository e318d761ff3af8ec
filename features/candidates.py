"""The (customer, item) pairs that may be offered, and their features: the same for training and for scoring."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import csr_array

from features import retrieval
from features.snapshot import features_of
from perennial import storage
from perennial.settings import Workspace

if TYPE_CHECKING:
    from feast import FeatureStore

# Items bought by so few that nothing can be learnt of them are not offered; at item level only the most popular are,
# beside what the customer buys already.
MOST_ITEMS = 300
POPULAR_ITEMS = 50
# What of the customer as a whole helps to tell how many items, and how new, they will buy.
CONTEXT = (
    "n_purchases_90d", "n_purchases_365d", "n_purchases_decayed_90d", "days_since_last_purchase", "gap_mean", "T",
    "spend_365d", "n_categories_365d", "lines_per_purchase_365d", "category_entropy_365d",
)  # fmt: skip
LIFT = "item_co_purchase_lift"


def names(workspace: Workspace) -> tuple[str, ...]:
    """The columns of `design`, in order."""
    families = (*features_of("product_affinity", workspace), *features_of("popularity", workspace))
    return (*(feature.name for feature in families), LIFT, *CONTEXT)


def candidates(workspace: Workspace, as_of: date, customer_ids: pd.Series) -> pd.DataFrame:
    """Columns customer_id, item, as_of: every category for every customer, or, at item level, own and popular items."""
    popularity = pd.read_parquet(storage.snapshot_part(workspace.home_path, "popularity", as_of))
    popular = popularity.sort_values(["item_buyers_365d", "item"], ascending=[False, True])["item"]
    if workspace.cross_sell.level == "category":
        pairs = customer_ids.to_frame().merge(popular.head(MOST_ITEMS).to_frame(), how="cross")
    else:
        own = pd.read_parquet(
            storage.snapshot_part(workspace.home_path, "product_affinity", as_of), columns=["customer_id", "item"]
        )
        own = own[own["customer_id"].isin(customer_ids)]
        offered = customer_ids.to_frame().merge(popular.head(POPULAR_ITEMS).to_frame(), how="cross")
        pairs = pd.concat([own, offered]).drop_duplicates()
    pairs = pairs.sort_values(["customer_id", "item"], ignore_index=True)
    return pairs.assign(as_of=pd.Timestamp(as_of))


def design(
    store: FeatureStore, workspace: Workspace, pairs: pd.DataFrame, customers: pd.DataFrame
) -> NDArray[np.float32]:
    """Float32 features of each pair of one as_of, columns as `names`; null where the pair has no history.

    `pairs` are sorted by customer_id and item; `customers` holds one row of customer features per customer.
    """
    affinity = retrieval.item_rows(store, workspace, pairs, "product_affinity")
    items = pairs[["item", "as_of"]].drop_duplicates().sort_values("item", ignore_index=True)
    popularity = retrieval.item_rows(store, workspace, items, "popularity").set_index("item")
    wanted = [feature.name for feature in features_of("popularity", workspace)]
    context = customers.set_index("customer_id")[list(CONTEXT)]
    own = [feature.name for feature in features_of("product_affinity", workspace)]
    return np.column_stack(
        [
            retrieval.matrix(affinity, own),
            popularity.loc[pairs["item"], wanted].to_numpy(dtype=np.float32, na_value=np.nan),
            _lift(workspace, pairs, affinity["item_days_since_last"].to_numpy(dtype=float, na_value=np.nan) <= 365),
            context.loc[pairs["customer_id"]].to_numpy(dtype=np.float32, na_value=np.nan),
        ]
    )


def _lift(workspace: Workspace, pairs: pd.DataFrame, owned: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Of each pair, the mean lift of its item over the other paired items that the customer bought in 365 days.

    Paired are the items that `co_purchase` knows at the pairs' as_of; null for other items, and for who bought none of
    them beside the pair's own. `owned` says which pairs were bought in 365 days.
    """
    if pairs.empty:
        return np.empty(0, dtype=np.float32)
    day = pairs["as_of"].iloc[0].date()
    together = pd.read_parquet(storage.snapshot_part(workspace.home_path, "co_purchase", day))
    items = pd.Index(together["item"].unique())
    lifts = np.zeros((len(items), len(items)))
    of_item, other = (items.get_indexer(pd.Index(together[name])) for name in ("item", "other"))
    lifts[of_item, other] = together["co_purchase_lift_365d"]
    of, (customers, _) = items.get_indexer(pd.Index(pairs["item"])), pd.factorize(pairs["customer_id"])
    paired = of >= 0
    rows = paired & owned
    bought = csr_array((np.ones(rows.sum()), (customers[rows], of[rows])), (customers.max() + 1, len(items)))
    others = bought.sum(axis=1)[customers] - rows
    found = np.full(len(pairs), np.nan, dtype=np.float32)
    known = paired & (others > 0)
    found[known] = (bought @ lifts.T)[customers[known], of[known]] / others[known]
    return found
