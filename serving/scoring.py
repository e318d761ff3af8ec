"""Scores and offers of every customer known at an as_of, in one pass, written whole or not at all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from datetime import date
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from features import retrieval
from features.assortment import Assortment
from features.candidates import Shelf
from features.newcomers import Newcomers
from features.snapshot import customer_features, fingerprint
from perennial import storage
from serving.predictor import Predictor

if TYPE_CHECKING:
    from feast import FeatureStore

Ints = NDArray[np.int64]
Floats = NDArray[np.floating]

_OFFER_BLOCK = 2_000_000  # (customer, item) rows ranked at a time
_TEXTS = ("customer_id", "churn_band", "not_scored_reason", "churn_model", "lifetime_value_model", "cross_sell_model")
OFFERS = pa.schema([
    ("customer_id", pa.string()), ("as_of", pa.date32()), ("rank", pa.int32()), ("item", pa.string()),
    ("probability", pa.float64()), ("kind", pa.string()),
])  # fmt: skip


def score(
    predictor: Predictor, store: FeatureStore, as_of: date, progress: Callable[[str], None] = lambda _: None
) -> pd.DataFrame:
    """Writes `scores` and `offers` of `as_of`; returns the scores, one row per known customer sorted by id.

    Raises:
        CheckFailed: no customer is known at `as_of`.
    """
    workspace = predictor.workspace
    if retrieval.customers_at(workspace, as_of).empty:
        raise storage.CheckFailed(f"nobody is known at {as_of}; choose a later --as-of, or ingest earlier purchases")
    rows = retrieval.customer_rows(store, workspace, [as_of])
    vectors = retrieval.matrix(rows, [feature.name for feature in customer_features(workspace)])
    ranked = predictor.ranking_among(vectors)
    scores = pd.DataFrame(ranked.score(rows["customer_id"].tolist(), as_of, vectors))
    scored = scores["not_scored_reason"].isna()
    stamp = _stamp(predictor, as_of)
    progress(f"scored {int(scored.sum()):,} of {len(scores):,} customers")
    offers = _offers(predictor, as_of, rows, scored, progress)
    with storage.replacing(storage.offers_path(workspace.home_path, as_of)) as draft:
        pq.write_table(offers, draft)
    edges = ranked.percentile_edges
    storage.write_json(storage.percentiles_path(workspace.home_path, as_of), [] if edges is None else edges.tolist())
    with storage.replacing(storage.scores_path(workspace.home_path, as_of)) as draft:
        pq.write_table(_typed(scores).replace_schema_metadata({"perennial": stamp}), draft)
    progress(f"offered {offers.num_rows:,} items")
    return scores


def is_current(predictor: Predictor, as_of: date) -> bool:
    """Whether the scores of `as_of` are there, from these champions, tables and settings."""
    path = storage.scores_path(predictor.workspace.home_path, as_of)
    return (
        path.exists() and (pq.read_metadata(path).metadata or {}).get(b"perennial") == _stamp(predictor, as_of).encode()
    )


def _stamp(predictor: Predictor, as_of: date) -> str:
    workspace = predictor.workspace
    settings = workspace.model_dump(mode="json", include={"bands", "cross_sell", "churn", "lifetime_value"})
    parts = [str(as_of), sorted(predictor.versions.items()), fingerprint(workspace), settings]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _typed(scores: pd.DataFrame) -> pa.Table:
    fields = [
        pa.field(name, pa.date32() if name == "as_of" else pa.string() if name in _TEXTS else pa.float64())
        for name in scores.columns
    ]
    return pa.Table.from_pandas(scores, schema=pa.schema(fields), preserve_index=False)


def _offers(
    predictor: Predictor, as_of: date, rows: pd.DataFrame, scored: pd.Series, progress: Callable[[str], None]
) -> pa.Table:
    """The best `cross_sell.top` items of each scored customer and each newcomer, by probability."""
    if predictor.offers is None:
        return OFFERS.empty_table()
    shelf = Shelf.at(predictor.workspace, as_of)
    assortment = Assortment.of(predictor.workspace, shelf.popularity, progress)
    customers = rows[scored.to_numpy()]
    step = max(1, _OFFER_BLOCK // max(1, shelf.pairs_each))
    blocks = [
        _ranked(predictor, shelf, assortment, customers.iloc[start : start + step])
        for start in range(0, len(customers), step)
    ]
    blocks.append(_for_newcomers(predictor, shelf, assortment, Newcomers.at(shelf, rows)))
    table = pa.concat_tables(blocks)
    return table.sort_by([("customer_id", "ascending"), ("rank", "ascending")])


def _ranked(predictor: Predictor, shelf: Shelf, assortment: Assortment, customers: pd.DataFrame) -> pa.Table:
    assert predictor.offers is not None
    pairs, sell = shelf.pairs(customers), predictor.workspace.cross_sell
    probability = predictor.offers.probability(pairs.rows)
    wanted = assortment.may_offer(pairs.item, pairs.owned)
    if sell.kind != "both":
        wanted &= pairs.owned == (sell.kind == "repeat")
    best, rank = _best(pairs.customer, pairs.item, np.where(wanted, probability, -1.0), sell.top)
    best, rank = best[wanted[best]], rank[wanted[best]]
    kind = np.where(pairs.owned[best], "repeat", "new")
    return _table(shelf, pairs.customer_ids[pairs.customer[best]], rank, pairs.item[best], probability[best], kind)


def _for_newcomers(predictor: Predictor, shelf: Shelf, assortment: Assortment, newcomers: Newcomers) -> pa.Table:
    """What sells best in the segment of each who has never bought."""
    sell = predictor.workspace.cross_sell
    assert predictor.offers is not None
    if sell.kind == "repeat":
        return OFFERS.empty_table()
    items = np.flatnonzero(assortment.offered)
    segment, item = (grid.ravel() for grid in np.meshgrid(np.arange(len(newcomers.shares)), items, indexing="ij"))
    probability = predictor.offers.newcomer_probability(newcomers.shares[segment, item])
    best, rank = _best(segment, item, probability, sell.top)
    offers = pd.DataFrame({"segment": segment[best], "rank": rank, "item": item[best], "p": probability[best]})
    customers = pd.DataFrame({"customer_id": newcomers.customer_ids, "segment": newcomers.segment})
    offers = customers.merge(offers, on="segment")
    return _table(shelf, offers["customer_id"], offers["rank"], offers["item"].to_numpy(), offers["p"], "new")


def _best(group: Ints, item: Ints, probability: Floats, top: int) -> tuple[Ints, Ints]:
    """Positions of the `top` most probable items of each group, best first, and their ranks; ties go by the item."""
    order = np.lexsort((item, -probability, group))
    ordered = group[order]
    rank = np.arange(len(order)) - np.searchsorted(ordered, ordered) + 1
    return order[rank <= top], rank[rank <= top]


def _table(shelf: Shelf, customer_id: Any, rank: Any, item: Ints, probability: Any, kind: Any) -> pa.Table:
    columns = {
        "customer_id": customer_id, "as_of": shelf.as_of, "rank": rank, "item": shelf.items[item],
        "probability": probability, "kind": kind,
    }  # fmt: skip
    return pa.Table.from_pandas(pd.DataFrame(columns), schema=OFFERS, preserve_index=False)
