"""The (customer, item) pairs that may be offered, and their features: the same for training and for scoring.

The parts of an as_of are read as they lie. Feast would join them by (customer, item, instant), and every pair asked for
has the very instant that its part is stamped with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import csr_array

from features.items.similar_customers import POOL, SimilarCustomers
from features.snapshot import features_of
from workspace import storage
from workspace.settings import Workspace

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]

# So few items are all candidates, for everybody. Of more only the likely ones: what the customer buys, so many popular
# and so many rising ones, and what goes with their purchases or sells to similar customers.
ALL_ITEMS = 300
POPULAR, RISING, CO_PURCHASED, SIMILAR = 60, 40, 40, 60
# What of the customer as a whole helps to tell how many items, and how new, they will buy.
CONTEXT = (
    "n_purchases_90d", "n_purchases_365d", "n_purchases_decayed_90d", "days_since_last_purchase", "gap_mean", "T",
    "spend_365d", "n_categories_365d", "lines_per_purchase_365d", "category_entropy_365d",
)  # fmt: skip
OWNED = "item_n_purchases"
BESIDE = {
    "item_co_purchase": "how well the item goes with what the customer bought",
    "item_co_buyers": "shares of the buyers of what the customer bought who bought the item too, summed",
    "item_similar_customers": "how much customers with similar purchases bought the item",
}
"""Computed for each pair, in no snapshot."""
# As if so many customers had bought nothing but one item, for each.
_RIDGE = 200
_RECENT = "item_n_purchases_decayed_30d"
_TASTE = "item_n_purchases_decayed_90d"


def of_customers(workspace: Workspace) -> tuple[str, ...]:
    """Those features of customers that their pairs, and what newcomers are offered, are made from."""
    segment = workspace.cross_sell.segment
    return (*CONTEXT, "profiling_consent", *([f"attribute_{segment}"] if segment else []))


def names(workspace: Workspace) -> tuple[str, ...]:
    """The columns of `Pairs.rows`, in order."""
    return (*_names("product_affinity", workspace), *_names("popularity", workspace), *BESIDE, *CONTEXT)


def _names(family: str, workspace: Workspace) -> list[str]:
    return [feature.name for feature in features_of(family, workspace)]


@dataclass(frozen=True)
class Pairs:
    """(customer, item) pairs of one as_of, by customer, then item: positions in `customer_ids` and `items`.

    `rows` are float32 features, columns as `names`; null where the pair has no history.
    """

    customer_ids: pd.Index
    items: pd.Index
    customer: Ints
    item: Ints
    rows: Floats
    owned: NDArray[np.bool_]

    @property
    def keys(self) -> pd.DataFrame:
        """Columns customer_id and item."""
        return pd.DataFrame({"customer_id": self.customer_ids[self.customer], "item": self.items[self.item]})


@dataclass(frozen=True)
class Shelf:
    """What is known at an as_of of the items that sold in the 365 days before, by name, and who is like whom.

    `popularity` has a row per item; of `cosines` and `shares` a row is what was bought, a column what goes with it.
    """

    workspace: Workspace
    as_of: date
    items: pd.Index
    popularity: pd.DataFrame
    cosines: csr_array
    shares: csr_array

    @classmethod
    def at(cls, workspace: Workspace, as_of: date) -> Self:
        """The shelf of `as_of`, whose snapshot must be there.

        Raises:
            CheckFailed: there is no snapshot at `as_of`.
        """
        popularity = _read(workspace.home_path, workspace.timezone, "popularity", as_of).set_index("item").sort_index()
        items = popularity.index
        together = _read(workspace.home_path, workspace.timezone, "co_purchase", as_of)
        of, to = (items.get_indexer(pd.Index(together[name])) for name in ("other", "item"))
        shape = (len(items), len(items))
        cosines, shares = (
            csr_array((together[name].to_numpy(), (of, to)), shape)
            for name in ("co_purchase_cosine_365d", "co_buyers_365d")
        )
        return cls(workspace, as_of, items, popularity.drop(columns="as_of"), cosines, shares)

    @property
    def offers_everything(self) -> bool:
        """Whether every item is a candidate for everybody."""
        return len(self.items) <= ALL_ITEMS

    @property
    def pairs_each(self) -> int:
        """So many candidates a customer has, about."""
        return len(self.items) if self.offers_everything else 2 * (POPULAR + RISING)

    def pairs(self, customers: pd.DataFrame) -> Pairs:
        """The candidates of each of `customers`, rows of customer features sorted by id, and their features.

        None where nothing sold in a year.
        """
        customer_ids = pd.Index(customers["customer_id"])
        if self.items.empty or customers.empty:
            nothing, rows = np.empty(0, dtype=np.int64), np.empty((0, len(names(self.workspace))), dtype=np.float32)
            return Pairs(customer_ids, self.items, nothing, nothing, rows, nothing > 0)
        own = _Own.of(self, customer_ids)
        beside = (self._co_purchased(own), own.shares() @ self.shares, self._similar(own))
        keys = self._keys(own, beside)
        customer, item = np.divmod(keys, len(self.items))
        rows = np.column_stack(
            [
                _placed(own.features, own.keys, keys),
                self.popularity[_names("popularity", self.workspace)].to_numpy(dtype=np.float32)[item],
                *(_placed(matrix.data[:, None], _keys_of(matrix), keys) for matrix in beside),
                customers[list(CONTEXT)].to_numpy(dtype=np.float32, na_value=np.nan)[customer],
            ]
        )
        owned = rows[:, names(self.workspace).index(OWNED)] > 0
        return Pairs(customer_ids, self.items, customer, item, rows, owned)

    def _keys(self, own: _Own, beside: Sequence[csr_array]) -> Ints:
        """customer x number of items + item of every candidate, sorted."""
        n, everybody = len(self.items), np.arange(len(own.customer_ids))
        if self.offers_everything:
            return np.arange(len(everybody) * n)
        liked = [self.popularity[name].rank(method="first", ascending=False) for name in
                 ("item_buyers_365d", "item_buyers_30d")]  # fmt: skip
        chosen = np.flatnonzero((liked[0] <= POPULAR) | (liked[1] <= RISING))
        anyones = (everybody[:, None] * n + chosen).ravel()
        co_purchased, _, similar = beside
        return np.unique(
            np.concatenate([own.keys, anyones, _best(co_purchased, CO_PURCHASED), _best(similar, SIMILAR)])
        )

    def _co_purchased(self, own: _Own) -> csr_array:
        """How well each item goes with what the customer bought: by weights, or by cosines where items are many."""
        if self.offers_everything:
            return csr_array(own.log_counts() @ self._item_weights)
        return own.weighted(_RECENT) @ self.cosines

    @cached_property
    def _item_weights(self) -> Floats:
        """Of each item, for each other, its weight in telling who buys that one: ridge regressions in closed form.

        Steck, 'Embarrassingly Shallow Autoencoders for Sparse Data', WWW 2019, equation 8.
        """
        counts = _Own.of(self, self._pool_ids).log_counts()
        inverse = np.linalg.inv((counts.T @ counts).toarray().astype(float) + _RIDGE * np.eye(len(self.items)))
        weights = -inverse / np.diag(inverse)
        np.fill_diagonal(weights, 0)
        return weights.astype(np.float32)

    def _similar(self, own: _Own) -> csr_array:
        """Where everything is a candidate nobody is looked for: it would cost most of the time, and bring nothing."""
        if self.offers_everything:
            return csr_array((len(own.customer_ids), len(self.items)), dtype=np.float32)
        return self._pool.purchases(own.customer_ids, own.weighted(_TASTE))

    @cached_property
    def _pool(self) -> SimilarCustomers:
        return SimilarCustomers.among(self._pool_ids, _Own.of(self, self._pool_ids).weighted(_TASTE))

    @cached_property
    def _pool_ids(self) -> pd.Index:
        """Who allows profiling; of many those whose ids' hashes are smallest: the same every time."""
        own, profile = (
            storage.rows_of_part(storage.snapshot_part(self.workspace.home_path, family, self.as_of))
            for family in ("product_affinity", "profile")
        )
        query = f"""
            SELECT DISTINCT customer_id FROM {own} SEMI JOIN (
                SELECT customer_id FROM {profile} WHERE coalesce(profiling_consent, 1) <> 0) USING (customer_id)
            ORDER BY md5(customer_id), customer_id LIMIT {POOL}"""
        with storage.connect(self.workspace.home_path, memory=self.workspace.memory) as connection:
            return pd.Index(connection.execute(query).df()["customer_id"].sort_values())


@dataclass(frozen=True)
class _Own:
    """What customers bought of a shelf's items: sorted `keys` as in `Shelf._keys`, and `features` of each."""

    shelf: Shelf
    customer_ids: pd.Index
    keys: Ints
    features: Floats

    @classmethod
    def of(cls, shelf: Shelf, customer_ids: pd.Index) -> Self:
        home, timezone = shelf.workspace.home_path, shelf.workspace.timezone
        bought = _read(home, timezone, "product_affinity", shelf.as_of, customer_ids)
        customer = customer_ids.get_indexer(pd.Index(bought["customer_id"]))
        item = shelf.items.get_indexer(pd.Index(bought["item"]))
        there = (customer >= 0) & (item >= 0)
        keys = customer[there] * np.int64(len(shelf.items)) + item[there]
        features = bought[_names("product_affinity", shelf.workspace)].to_numpy(dtype=np.float32, na_value=np.nan)
        order = np.argsort(keys)
        return cls(shelf, customer_ids, keys[order], features[there][order])

    def weighted(self, name: str) -> csr_array:
        """Customers by items, a feature of each purchased item."""
        return self._matrix(self.features[:, _names("product_affinity", self.shelf.workspace).index(name)])

    def log_counts(self) -> csr_array:
        """Customers by items: log(1 + purchase days in 365)."""
        return self.weighted("item_n_purchases_365d").log1p()

    def shares(self) -> csr_array:
        """Customers by items: each item that the customer bought in 365 days has the same share of 1."""
        recent = self.weighted("item_n_purchases_365d") > 0
        n = recent.sum(axis=1)
        return csr_array(recent.multiply((1 / np.maximum(n, 1))[:, None]), dtype=np.float32)

    def _matrix(self, values: Floats) -> csr_array:
        n = len(self.shelf.items)
        return csr_array((values, np.divmod(self.keys, n)), (len(self.customer_ids), n))


def _read(home: Path, timezone: str, family: str, as_of: date, customer_ids: pd.Index | None = None) -> pd.DataFrame:
    """A part's rows; of `customer_ids`, which are sorted, where they are given."""
    part = storage.snapshot_part(home, family, as_of)
    if not part.exists():
        raise storage.CheckFailed(
            f"{family} has no snapshot at {as_of}; run `perennial snapshot -c FILE --as-of {as_of}`"
        )
    query, bounds = f"SELECT * FROM {storage.rows_of_part(part)}", []
    with storage.connect(home, timezone) as connection:
        if customer_ids is not None:
            connection.register("asked", pd.DataFrame({"customer_id": customer_ids}))
            # The bounds spare most row groups, which are sorted by customer.
            query += " SEMI JOIN asked USING (customer_id) WHERE customer_id BETWEEN ? AND ?"
            bounds = [customer_ids.min(), customer_ids.max()]
        return connection.execute(query, bounds).df()


def _keys_of(matrix: csr_array) -> Ints:
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    return rows * np.int64(matrix.shape[1]) + matrix.indices


def _placed(values: Floats, at: Ints, keys: Ints) -> Floats:
    """The rows of `values` at those of `keys` that they are of; null elsewhere."""
    placed = np.full((len(keys), values.shape[1]), np.nan, dtype=np.float32)
    position = np.searchsorted(keys, at)
    hit = keys[np.minimum(position, len(keys) - 1)] == at
    placed[position[hit]] = values[hit]
    return placed


def _best(matrix: csr_array, k: int) -> Ints:
    """The keys of the `k` largest entries of each row; of equal ones those that come first."""
    keys = _keys_of(matrix)
    order = np.lexsort((keys, -matrix.data, keys // matrix.shape[1]))
    start = np.repeat(matrix.indptr[:-1], np.diff(matrix.indptr))
    return keys[order[np.arange(len(keys)) - start < k]]
