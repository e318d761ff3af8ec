"""The offers of one as_of: each customer's best items among those that may be offered, with a probability."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from features import retrieval
from features.items import launches
from features.items.assortment import Assortment, in_stock
from features.items.candidates import Shelf, of_customers
from features.items.newcomers import Newcomers, Segments
from features.items.similar_customers import POOL
from training.models.offer_model import OfferModel
from workspace.settings import Workspace

Ints = NDArray[np.int64]
Floats = NDArray[np.floating]
Flags = NDArray[np.bool_]

_PAIR, _NEIGHBOUR = 200, 16  # bytes that a (customer, item) row takes, and who may be alike
_ROUNDING = 1e-9  # of a probability behind the number of a customer in a block
OFFERS = pa.schema([
    ("customer_id", pa.string()), ("as_of", pa.date32()), ("rank", pa.int32()), ("item", pa.string()),
    ("probability", pa.float64()), ("kind", pa.string()),
])  # fmt: skip


def rank(
    workspace: Workspace, model: OfferModel, as_of: date, scores: Path,
    progress: Callable[[str], None] = lambda _: None,
) -> Iterator[pa.Table]:  # fmt: skip
    """The best `cross_sell.top` items of each scored customer and each newcomer, by probability; as `OFFERS`.

    In blocks of customers, in order. `scores` is the file of everybody known at `as_of`, sorted by id.
    """
    ranking = _Ranking.at(workspace, model, as_of, progress)
    size = retrieval.at_once(workspace, _bytes_each(ranking.shelf))
    blocks = retrieval.blocks_at(workspace, as_of, size, of_customers(workspace))
    with pq.ParquetFile(scores) as file:
        reasons = file.iter_batches(size, columns=["not_scored_reason"])
        for rows, why_not in zip(blocks, reasons, strict=True):
            yield ranking.best(rows, why_not["not_scored_reason"].is_null().to_numpy(zero_copy_only=False))


def _bytes_each(shelf: Shelf) -> int:
    """That a customer takes while items are ranked."""
    return 1 + shelf.pairs_each * _PAIR + (0 if shelf.offers_everything else POOL * _NEIGHBOUR)


@dataclass(frozen=True)
class _Ranking:
    """What can be offered at an as_of: the shelf's `items`, then the launches, which only a stock list names."""

    workspace: Workspace
    model: OfferModel
    shelf: Shelf
    launches: pd.Index
    items: pd.Index
    assortment: Assortment
    segments: Segments

    @classmethod
    def at(cls, workspace: Workspace, model: OfferModel, as_of: date, progress: Callable[[str], None]) -> Self:
        shelf = Shelf.at(workspace, as_of)
        launches = in_stock(workspace).difference(shelf.items)
        popularity = shelf.popularity.reindex(shelf.items.append(launches))
        assortment = Assortment.of(workspace, popularity, progress)
        return cls(workspace, model, shelf, launches, popularity.index, assortment, Segments.at(shelf))

    def best(self, rows: pd.DataFrame, scored: Flags) -> pa.Table:
        """Of some customers by their rows of features, sorted by id, and whether each was scored."""
        both = self.offers(rows[scored]), self.offers_to_newcomers(self.segments.newcomers(rows))
        return pa.concat_tables(both).sort_by([("customer_id", "ascending"), ("rank", "ascending")])

    def offers(self, customers: pd.DataFrame) -> pa.Table:
        """The best `cross_sell.top` items of each customer who has bought before."""
        pairs, sell = self.shelf.pairs(customers), self.workspace.cross_sell
        launched = launches.shares(self.shelf, pairs.customer_ids, self.launches)
        customer = np.append(pairs.customer, pairs.customer_ids.get_indexer(pd.Index(launched["customer_id"])))
        item = np.append(pairs.item, self.items.get_indexer(pd.Index(launched["item"])))
        of_launches = self.model.launch_probability(launched["share"].to_numpy())
        probability = np.append(self.model.probability(pairs.rows), of_launches)
        owned = np.append(pairs.owned, np.zeros(len(launched), dtype=bool))
        wanted = self.assortment.may_offer(item, owned)
        if sell.kind != "both":
            wanted &= owned == (sell.kind == "repeat")
        among = np.flatnonzero(wanted)
        best, ranks = _best(customer[among], item[among], probability[among], sell.top)
        best = among[best]
        kind = np.where(owned[best], "repeat", "new")
        return self._table(pairs.customer_ids[customer[best]], ranks, item[best], probability[best], kind)

    def offers_to_newcomers(self, newcomers: Newcomers) -> pa.Table:
        """What sells best in the segment of each who has never bought."""
        sell, segments = self.workspace.cross_sell, len(newcomers.shares)
        if sell.kind == "repeat":
            return OFFERS.empty_table()
        items = np.flatnonzero(self.assortment.offered[: len(self.shelf.items)])
        segment, item = np.repeat(np.arange(segments), len(items)), np.tile(items, segments)
        probability = self.model.newcomer_probability(newcomers.shares[segment, item])
        best, ranks = _best(segment, item, probability, sell.top)
        offers = pd.DataFrame({"segment": segment[best], "rank": ranks, "item": item[best], "p": probability[best]})
        customers = pd.DataFrame({"customer_id": newcomers.customer_ids, "segment": newcomers.segment})
        offers = customers.merge(offers, on="segment")
        return self._table(offers["customer_id"], offers["rank"], offers["item"].to_numpy(), offers["p"], "new")

    def _table(self, customer_id: Any, ranks: Any, item: Ints, probability: Any, kind: Any) -> pa.Table:
        columns = {
            "customer_id": customer_id, "as_of": self.shelf.as_of, "rank": ranks, "item": self.items[item],
            "probability": probability, "kind": kind,
        }  # fmt: skip
        return pa.Table.from_pandas(pd.DataFrame(columns), schema=OFFERS, preserve_index=False)


def _best(group: Ints, item: Ints, probability: Floats, top: int) -> tuple[Ints, Ints]:
    """Positions of the `top` most probable items of each group, best first, and their ranks; ties go by the item."""
    near = _near_best(group, probability, top)
    order = near[np.lexsort((item[near], -probability[near], group[near]))]
    ordered = group[order]
    ranks = np.arange(len(order)) - np.searchsorted(ordered, ordered) + 1
    return order[ranks <= top], ranks[ranks <= top]


def _near_best(group: Ints, probability: Floats, top: int) -> Ints:
    """Positions of each group's `top` most probable and of whatever is as probable: one plain sort, five times as fast
    as sorting everything by three columns."""
    key = group - probability
    order = np.argsort(key)
    start = np.flatnonzero(np.diff(group[order], prepend=-1))
    size = np.diff(start, append=len(order))
    last = key[order[start + np.minimum(size, top) - 1]]
    return order[key[order] <= np.repeat(last, size) + _ROUNDING]
