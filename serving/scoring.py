"""Scores and offers of every customer known at an as_of, in one pass, written whole or not at all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from datetime import date
from typing import TYPE_CHECKING

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from features import retrieval
from features.assortment import excluded, in_stock
from features.snapshot import customer_features, families, fingerprint
from perennial import storage
from serving import lists, offers
from serving.bought_with import rules
from serving.predictor import Predictor

if TYPE_CHECKING:
    from feast import FeatureStore

# Rows by which files sorted by customer can be read in parts: a few customers are looked up without the others.
_ROW_GROUP = 50_000
_TEXTS = ("customer_id", "churn_band", "not_scored_reason", "churn_model", "lifetime_value_model", "cross_sell_model")


def score(
    predictor: Predictor, store: FeatureStore, as_of: date, progress: Callable[[str], None] = lambda _: None
) -> pd.DataFrame:
    """Writes `scores`, `offers` and what is bought with what of `as_of`.

    Returns the scores, one row per known customer sorted by id.

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
    offered = offers.OFFERS.empty_table()
    if predictor.offers is not None:
        offered = offers.rank(workspace, predictor.offers, as_of, rows, scored.to_numpy(), progress)
    with storage.replacing(storage.offers_path(workspace.home_path, as_of)) as draft:
        pq.write_table(offered, draft, row_group_size=_ROW_GROUP)
    if "co_purchase" in families(workspace):
        with storage.replacing(storage.bought_with_path(workspace.home_path, as_of)) as draft:
            pq.write_table(rules(workspace, as_of), draft, row_group_size=_ROW_GROUP)
    edges = ranked.percentile_edges
    storage.write_json(storage.percentiles_path(workspace.home_path, as_of), [] if edges is None else edges.tolist())
    lists.write_risk(workspace, as_of, scores)
    with storage.replacing(storage.scores_path(workspace.home_path, as_of)) as draft:
        pq.write_table(_typed(scores).replace_schema_metadata({"perennial": stamp}), draft, row_group_size=_ROW_GROUP)
    progress(f"offered {offered.num_rows:,} items")
    return scores


def is_current(predictor: Predictor, as_of: date) -> bool:
    """Whether the scores of `as_of` are there, from these champions, tables and settings."""
    home = predictor.workspace.home_path
    path = storage.scores_path(home, as_of)
    if not path.exists() or not storage.risk_path(home, as_of).exists():
        return False
    return (pq.read_metadata(path).metadata or {}).get(b"perennial") == _stamp(predictor, as_of).encode()


def _stamp(predictor: Predictor, as_of: date) -> str:
    workspace = predictor.workspace
    settings = workspace.model_dump(mode="json", include={"bands", "cross_sell", "churn", "lifetime_value"})
    listed = [sorted(in_stock(workspace)), sorted(excluded(workspace))]
    parts = [str(as_of), sorted(predictor.versions.items()), fingerprint(workspace), settings, listed]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _typed(scores: pd.DataFrame) -> pa.Table:
    fields = [
        pa.field(name, pa.date32() if name == "as_of" else pa.string() if name in _TEXTS else pa.float64())
        for name in scores.columns
    ]
    return pa.Table.from_pandas(scores, schema=pa.schema(fields), preserve_index=False)
