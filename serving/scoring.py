"""Scores and offers of every customer known at an as_of, in one pass, written whole or not at all."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
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
from serving.predictor import SCORE_COLUMNS, Predictor
from serving.terms import Terms
from workspace import predictions, storage

# Rows by which files sorted by customer can be read in parts: a few customers are looked up without the others.
_ROW_GROUP = 50_000
_BYTES = 10_000  # that a customer takes while being scored
_TEXTS = ("customer_id", "churn_band", "not_scored_reason", "churn_model", "lifetime_value_model", "cross_sell_model")
_SCHEMA = pa.schema([
    (name, pa.date32() if name == "as_of" else pa.string() if name in _TEXTS else pa.float64())
    for name in SCORE_COLUMNS
])  # fmt: skip


def score(predictor: Predictor, as_of: date, progress: Callable[[str], None] = lambda _: None) -> None:
    """Writes `scores`, `offers` and what is bought with what of `as_of`; of scores a row per known customer, by id.

    Block after block of customers: beyond what the setting `memory` allows nothing grows with their number.

    Raises:
        CheckFailed: no customer is known at `as_of`.
    """
    workspace = predictor.workspace
    home, customers = workspace.home_path, retrieval.count_at(workspace, as_of)
    if not customers:
        raise storage.CheckFailed(f"nobody is known at {as_of}; choose a later --as-of, or ingest earlier purchases")
    said = Consents(home).everybody("profiling")
    stamp = _stamp(predictor, as_of, said)
    with storage.replacing(storage.scores_path(home, as_of)) as draft:
        unranked = draft.with_name("unranked.parquet")
        why_not = _write_unranked(predictor, as_of, said, unranked)
        progress(f"scored {why_not.pop(None, 0):,} of {customers:,} customers{_left_out(why_not)}")
        for remark in predictor.remarks:
            progress(remark)
        with storage.replacing(storage.offers_path(home, as_of)) as offered:
            items, reached = _write_offers(predictor, as_of, unranked, offered, progress)
        if "co_purchase" in families(workspace):
            with storage.replacing(storage.bought_with_path(home, as_of)) as companions:
                pq.write_table(rules(workspace, as_of), companions, row_group_size=_ROW_GROUP)
        noted = {"perennial": stamp, **Terms.of(predictor).noted(Norms.at(workspace, as_of))}
        edges = _write_ranked(predictor, unranked, draft, noted).percentile_edges
        storage.write_json(storage.percentiles_path(home, as_of), [] if edges is None else edges.tolist())
        churn_risk.write_risk(workspace, as_of, draft)
        storage.write_json(storage.models_path(home, as_of), predictor.trained)
        predictions.log_batch(workspace, _with_trained(predictor, draft))
    progress(f"offered {items:,} items to {reached:,} of {customers:,} customers")


def _write_unranked(
    predictor: Predictor, as_of: date, said: Mapping[str, bool], path: Path
) -> Counter[str | None]:  # fmt: skip
    """Scores without percentiles; how many were not scored for which reason, and under None how many were.

    `said` on profiling.
    """
    workspace, why_not = predictor.workspace, Counter[str | None]()
    names = [feature.name for feature in customer_features(workspace)]
    with pq.ParquetWriter(path, _SCHEMA) as written:
        for rows in retrieval.blocks_at(workspace, as_of, retrieval.at_once(workspace, _BYTES)):
            vectors = apply_profiling(said, rows["customer_id"], names, retrieval.matrix(rows, names))
            scores = predictor.score(rows["customer_id"].tolist(), as_of, vectors, withhold=False)
            why_not.update(scores["not_scored_reason"])
            table = pa.Table.from_pandas(pd.DataFrame(scores), _SCHEMA, preserve_index=False)
            written.write_table(table, row_group_size=_ROW_GROUP)
    return why_not


def _left_out(why_not: Counter[str | None]) -> str:
    return "".join(f"; {count:,} {reason}" for reason, count in why_not.most_common())


def _write_ranked(predictor: Predictor, unranked: Path, path: Path, noted: Mapping[str, str]) -> Predictor:
    """Scores with percentiles, and without what is withheld; returns the predictor that ranks among them."""
    with pq.ParquetFile(unranked) as scores, pq.ParquetWriter(path, _SCHEMA.with_metadata(noted)) as written:
        ranked = predictor.ranking_among(scores.read(["churn_probability"])["churn_probability"].to_numpy())
        for block in scores.iter_batches(_ROW_GROUP):
            probability = block["churn_probability"].to_numpy(zero_copy_only=False)
            columns = dict(zip(_SCHEMA.names, block.columns, strict=True))
            columns["churn_percentile"] = pa.array(ranked.percentile(probability), from_pandas=True)
            columns |= {name: pa.nulls(len(block), _SCHEMA.field(name).type) for name in predictor.withheld_columns}
            written.write_table(pa.table(columns, _SCHEMA))
    return ranked


def _write_offers(
    predictor: Predictor, as_of: date, scores: Path, path: Path, progress: Callable[[str], None] = lambda _: None
) -> tuple[int, int]:
    """Offers to whom `scores` are of; how many, and to how many customers.

    Without probabilities where the backtest shows that they are too far off; the ranks stay.
    """
    items, reached, workspace = 0, 0, predictor.workspace
    withheld = predictor.withheld("cross_sell") is not None
    place = offers.OFFERS.get_field_index("probability")
    with pq.ParquetWriter(path, offers.OFFERS) as written:
        if predictor.offers is None:
            return 0, 0
        for offered in offers.rank(workspace, predictor.offers, as_of, scores, progress):
            items, reached = items + len(offered), reached + len(offered["customer_id"].unique())
            if withheld:
                offered = offered.set_column(place, "probability", pa.nulls(len(offered), pa.float64()))
            written.write_table(offered, row_group_size=_ROW_GROUP)
    return items, reached


def _with_trained(predictor: Predictor, scores: Path) -> Iterator[pa.Table]:
    """Written scores in blocks, beside the days that their models were trained at."""
    with pq.ParquetFile(scores) as file:
        for block in file.iter_batches(_ROW_GROUP):
            columns = dict(zip(block.schema.names, block.columns, strict=True))
            trained = {
                name: pa.repeat(pa.scalar(day, pa.string()), len(block)) for name, day in predictor.trained.items()
            }
            yield pa.table(columns | trained)


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
    with storage.replacing(path) as draft:
        unranked = draft.with_name("unranked.parquet")
        _write_unranked(challengers, as_of, said, unranked)
        if challengers.offers is not None and challengers.is_beside(predictor, "cross_sell"):
            storage.write_json(storage.models_path(workspace.home_path, as_of, "shadow"), challengers.trained)
            with storage.replacing(storage.shadow_path(workspace.home_path, as_of, "offers")) as offered:
                _write_offers(challengers, as_of, unranked, offered)
        _write_ranked(challengers, unranked, draft, {"perennial": stamp})
        if any(challengers.is_beside(predictor, kind) for kind in ("churn", "lifetime_value")):
            predictions.log_batch(workspace, _with_trained(challengers, draft), "shadow")
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
