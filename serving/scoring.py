"""Scores and offers of every customer known at an as_of, in one pass, written whole or not at all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from features import candidates, retrieval
from features.snapshot import customer_features, fingerprint
from perennial import predictions, storage
from serving import lists
from serving.predictor import Predictor

if TYPE_CHECKING:
    from feast import FeatureStore

# Rows by which files sorted by customer can be read in parts: a few customers are looked up without the others.
_ROW_GROUP = 50_000
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
    stamp, rows = _stamp(predictor, as_of), retrieval.customer_rows(store, workspace, [as_of])
    ranked, scores = _scores(predictor, rows, as_of)
    scored = scores["not_scored_reason"].isna()
    progress(f"scored {int(scored.sum()):,} of {len(scores):,} customers")
    offers = _offers(predictor, store, as_of, rows[scored.to_numpy()])
    with storage.replacing(storage.offers_path(workspace.home_path, as_of)) as draft:
        pq.write_table(offers, draft, row_group_size=_ROW_GROUP)
    edges = ranked.percentile_edges
    storage.write_json(storage.percentiles_path(workspace.home_path, as_of), [] if edges is None else edges.tolist())
    lists.write_risk(workspace, as_of, scores)
    predictions.log_batch(workspace, scores)
    with storage.replacing(storage.scores_path(workspace.home_path, as_of)) as draft:
        pq.write_table(_typed(scores).replace_schema_metadata({"perennial": stamp}), draft, row_group_size=_ROW_GROUP)
    progress(f"offered {offers.num_rows:,} items")
    return scores


def _scores(predictor: Predictor, rows: pd.DataFrame, as_of: date) -> tuple[Predictor, pd.DataFrame]:
    """The predictor with the percentiles of these customers, and a row of `scores` for each."""
    vectors = retrieval.matrix(rows, [feature.name for feature in customer_features(predictor.workspace)])
    ranked = predictor.ranking_among(vectors)
    return ranked, pd.DataFrame(ranked.score(rows["customer_id"].tolist(), as_of, vectors))


def shadow(
    predictor: Predictor, challengers: Predictor, store: FeatureStore, as_of: date,
    progress: Callable[[str], None] = lambda _: None,
) -> None:  # fmt: skip
    """Writes and logs what the challengers say at `as_of`, apart from what answers: nobody is shown it.

    Offers only where their challenger is another version than the champion in `predictor`.
    """
    workspace, stamp = challengers.workspace, _stamp(challengers, as_of)
    path = storage.shadow_path(workspace.home_path, as_of, "scores")
    if _is_stamped(path, stamp):
        return
    rows = retrieval.customer_rows(store, workspace, [as_of])
    _, scores = _scores(challengers, rows, as_of)
    if challengers.is_beside(predictor, "cross_sell"):
        scored = scores["not_scored_reason"].isna().to_numpy()
        with storage.replacing(storage.shadow_path(workspace.home_path, as_of, "offers")) as draft:
            pq.write_table(_offers(challengers, store, as_of, rows[scored]), draft, row_group_size=_ROW_GROUP)
    if any(challengers.is_beside(predictor, kind) for kind in ("churn", "lifetime_value")):
        predictions.log_batch(workspace, scores, "shadow")
    with storage.replacing(path) as draft:
        pq.write_table(_typed(scores).replace_schema_metadata({"perennial": stamp}), draft, row_group_size=_ROW_GROUP)
    beside = [name for kind, name in challengers.versions.items() if challengers.is_beside(predictor, kind)]
    progress(f"scored unseen: {', '.join(beside)}")


def is_current(predictor: Predictor, as_of: date) -> bool:
    """Whether the scores of `as_of` are there, from these champions, tables and settings."""
    home = predictor.workspace.home_path
    there = _is_stamped(storage.scores_path(home, as_of), _stamp(predictor, as_of))
    return there and storage.risk_path(home, as_of).exists()


def _is_stamped(path: Path, stamp: str) -> bool:
    return path.exists() and (pq.read_metadata(path).metadata or {}).get(b"perennial") == stamp.encode()


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


def _offers(predictor: Predictor, store: FeatureStore, as_of: date, customers: pd.DataFrame) -> pa.Table:
    """The best `cross_sell.top` items of each customer, by probability; ties go by the item's name."""
    if predictor.offers is None or customers.empty:
        return OFFERS.empty_table()
    workspace = predictor.workspace
    pairs_each = len(candidates.candidates(workspace, as_of, customers["customer_id"].head(1)))
    step = max(1, _OFFER_BLOCK // max(1, pairs_each))
    blocks = [
        _ranked(predictor, store, as_of, customers.iloc[start : start + step])
        for start in range(0, len(customers), step)
    ]
    return pa.Table.from_pandas(pd.concat(blocks, ignore_index=True), schema=OFFERS, preserve_index=False)


def _ranked(predictor: Predictor, store: FeatureStore, as_of: date, customers: pd.DataFrame) -> pd.DataFrame:
    assert predictor.offers is not None
    workspace = predictor.workspace
    pairs = candidates.candidates(workspace, as_of, customers["customer_id"])
    rows = candidates.design(store, workspace, pairs, customers)
    owned = np.nan_to_num(rows[:, predictor.offers.names.index("item_n_purchases")]) > 0
    pairs = pairs.assign(
        as_of=as_of, probability=predictor.offers.probability(rows), kind=np.where(owned, "repeat", "new")
    )
    pairs = pairs.sort_values(["customer_id", "probability", "item"], ascending=[True, False, True])
    best = pairs.groupby("customer_id", sort=False).head(workspace.cross_sell.top)
    return best.assign(rank=best.groupby("customer_id", sort=False).cumcount() + 1)
