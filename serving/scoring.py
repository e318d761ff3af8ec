"""Scores and offers of every customer known at an as_of, in one pass, written whole or not at all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from features import retrieval
from features.items.assortment import excluded, in_stock
from features.snapshot import customer_features, families, fingerprint
from serving import offers
from serving.consent import Consents, apply_profiling
from serving.lists import churn_risk
from serving.lists.bought_with import rules
from serving.norms import Norms
from serving.predictor import Predictor
from serving.terms import Terms
from workspace import predictions, storage

# Rows by which files sorted by customer can be read in parts: a few customers are looked up without the others.
_ROW_GROUP = 50_000
# Customers at a time: what the models are shown of a million would be gigabytes.
_BLOCK = 50_000
_TEXTS = ("customer_id", "churn_band", "not_scored_reason", "churn_model", "lifetime_value_model", "cross_sell_model")


def score(predictor: Predictor, as_of: date, progress: Callable[[str], None] = lambda _: None) -> pd.DataFrame:
    """Writes `scores`, `offers` and what is bought with what of `as_of`.

    Returns the scores, one row per known customer sorted by id.

    Raises:
        CheckFailed: no customer is known at `as_of`.
    """
    workspace = predictor.workspace
    rows = retrieval.rows_at(workspace, as_of)
    if rows.empty:
        raise storage.CheckFailed(f"nobody is known at {as_of}; choose a later --as-of, or ingest earlier purchases")
    said = Consents(workspace.home_path).everybody("profiling")
    stamp = _stamp(predictor, as_of, said)
    ranked, scores = _scores(predictor, rows, as_of, said)
    scored = scores["not_scored_reason"].isna()
    why_not = scores["not_scored_reason"].value_counts()
    left_out = "".join(f"; {count:,} {reason}" for reason, count in why_not.items())
    progress(f"scored {int(scored.sum()):,} of {len(scores):,} customers{left_out}")
    for remark in predictor.remarks:
        progress(remark)
    offered = offers.OFFERS.empty_table()
    if predictor.offers is not None:
        ranked_items = offers.rank(workspace, predictor.offers, as_of, rows, scored.to_numpy(), progress)
        offered = _offered(predictor, ranked_items)
    with storage.replacing(storage.offers_path(workspace.home_path, as_of)) as draft:
        pq.write_table(offered, draft, row_group_size=_ROW_GROUP)
    if "co_purchase" in families(workspace):
        with storage.replacing(storage.bought_with_path(workspace.home_path, as_of)) as draft:
            pq.write_table(rules(workspace, as_of), draft, row_group_size=_ROW_GROUP)
    noted = {"perennial": stamp, **Terms.of(predictor).noted(Norms.at(workspace, as_of, rows))}
    edges = ranked.percentile_edges
    storage.write_json(storage.percentiles_path(workspace.home_path, as_of), [] if edges is None else edges.tolist())
    churn_risk.write_risk(workspace, as_of, scores)
    storage.write_json(storage.models_path(workspace.home_path, as_of), predictor.trained)
    predictions.log_batch(workspace, scores.assign(**predictor.trained))
    with storage.replacing(storage.scores_path(workspace.home_path, as_of)) as draft:
        pq.write_table(_typed(scores).replace_schema_metadata(noted), draft, row_group_size=_ROW_GROUP)
    reached = len(offered["customer_id"].unique())
    progress(f"offered {offered.num_rows:,} items to {reached:,} of {len(scores):,} customers")
    return scores


def _scores(
    predictor: Predictor, rows: pd.DataFrame, as_of: date, said: Mapping[str, bool]
) -> tuple[Predictor, pd.DataFrame]:
    """The predictor with the percentiles of these customers, and a row of `scores` for each; `said` on profiling."""
    names = [feature.name for feature in customer_features(predictor.workspace)]
    vectors = apply_profiling(said, rows["customer_id"], names, retrieval.matrix(rows, names))
    customer_ids, starts = rows["customer_id"].tolist(), range(0, len(rows), _BLOCK)
    blocks = [
        predictor.score(customer_ids[at : at + _BLOCK], as_of, vectors[at : at + _BLOCK], withhold=False)
        for at in starts
    ]
    scores = pd.concat(map(pd.DataFrame, blocks), ignore_index=True)
    ranked = predictor.ranking_among(scores["churn_probability"].to_numpy())
    scores = scores.assign(churn_percentile=ranked.percentile(scores["churn_probability"].to_numpy()))
    return ranked, scores.assign(**dict.fromkeys(predictor.withheld_columns))


def _offered(predictor: Predictor, offered: pa.Table) -> pa.Table:
    """Without probabilities where the backtest shows that they are too far off; the ranks stay."""
    if predictor.withheld("cross_sell") is None:
        return offered
    place = offered.schema.get_field_index("probability")
    return offered.set_column(place, offered.schema.field(place), pa.nulls(len(offered), pa.float64()))


def shadow(
    predictor: Predictor, challengers: Predictor, as_of: date, progress: Callable[[str], None] = lambda _: None
) -> None:
    """Writes and logs what the challengers say at `as_of`, apart from what answers: nobody is shown it.

    Offers only where their challenger is another version than the champion in `predictor`.
    """
    workspace, said = challengers.workspace, Consents(challengers.workspace.home_path).everybody("profiling")
    stamp = _stamp(challengers, as_of, said)
    path = storage.shadow_path(workspace.home_path, as_of, "scores")
    if _is_stamped(path, stamp):
        return
    rows = retrieval.rows_at(workspace, as_of)
    _, scores = _scores(challengers, rows, as_of, said)
    if challengers.offers is not None and challengers.is_beside(predictor, "cross_sell"):
        scored = scores["not_scored_reason"].isna().to_numpy()
        offered = _offered(challengers, offers.rank(workspace, challengers.offers, as_of, rows, scored))
        storage.write_json(storage.models_path(workspace.home_path, as_of, "shadow"), challengers.trained)
        with storage.replacing(storage.shadow_path(workspace.home_path, as_of, "offers")) as draft:
            pq.write_table(offered, draft, row_group_size=_ROW_GROUP)
    if any(challengers.is_beside(predictor, kind) for kind in ("churn", "lifetime_value")):
        predictions.log_batch(workspace, scores.assign(**challengers.trained), "shadow")
    with storage.replacing(path) as draft:
        pq.write_table(_typed(scores).replace_schema_metadata({"perennial": stamp}), draft, row_group_size=_ROW_GROUP)
    beside = [name for kind, name in challengers.versions.items() if challengers.is_beside(predictor, kind)]
    progress(f"scored unseen: {', '.join(beside)}")


def is_current(predictor: Predictor, as_of: date) -> bool:
    """Whether the scores of `as_of` are there, from these champions, tables, settings and consents."""
    home = predictor.workspace.home_path
    said = Consents(home).everybody("profiling")
    there = _is_stamped(storage.scores_path(home, as_of), _stamp(predictor, as_of, said))
    return there and storage.risk_path(home, as_of).exists()


def _is_stamped(path: Path, stamp: str) -> bool:
    return path.exists() and (pq.read_metadata(path).metadata or {}).get(b"perennial") == stamp.encode()


def _stamp(predictor: Predictor, as_of: date, said: Mapping[str, bool]) -> str:
    workspace = predictor.workspace
    settings = workspace.model_dump(mode="json", include={"bands", "cross_sell", "churn", "lifetime_value"})
    listed = [sorted(in_stock(workspace)), sorted(excluded(workspace))]
    parts = [str(as_of), sorted(predictor.versions.items()), fingerprint(workspace), settings, listed, said]
    return hashlib.sha256(json.dumps([*parts, "with terms and norms"]).encode()).hexdigest()


def _typed(scores: pd.DataFrame) -> pa.Table:
    fields = [
        pa.field(name, pa.date32() if name == "as_of" else pa.string() if name in _TEXTS else pa.float64())
        for name in scores.columns
    ]
    return pa.Table.from_pandas(scores, schema=pa.schema(fields), preserve_index=False)
