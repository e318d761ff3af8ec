"""What each feature family brings: the models taught without it, and with it alone.

    python -m benchmarks.ablation                               # the two real shops with labelled windows
    python -m benchmarks.ablation online_retail 2011-06-01

Churn and value are judged on the window that followed the as_of, which is shown here and chooses nothing; offers on the
latest window closed by then. "history alone" leaves the booster only what the buy-till-you-die model says.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks import figures, needs, tables
from features import retrieval, snapshot
from features.families import product_affinity
from features.items import candidates
from ingest import intake
from training import pipelines
from training.backtests import metrics
from training.backtests.offer_backtest import JudgedOffers
from training.learning import churn, cross_sell, datasets, labels, lifetime_value
from training.learning.cross_sell import Lesson
from workspace import settings
from workspace.settings import Workspace

SHOPS = (("online_retail", "2011-06-01"), ("complete_journey", "2017-10-01"))
_LONG_AFTER = date(2100, 1, 1)
_OF_CHURN = ("auc", "average_precision", "brier", "ece")
_OF_VALUE = ("ngini", "spearman", "decile_wape", "bias")
_OF_OFFERS = ("auc", "ndcg5", "ndcg5_repeat", "ndcg5_new", "naive_ndcg5", "naive_ndcg5_new")


def main() -> None:
    shops = [tuple(sys.argv[1:3])] if len(sys.argv) > 2 else list(SHOPS)
    needs.refuse_without(shops=[name for name, _ in shops])
    measured = {}
    for name, as_of in shops:
        measured[window := f"{name} at {as_of}"] = _measure(name, date.fromisoformat(as_of))
        print(f"\n{tables.ablation(measured, window)}", flush=True)
    figures.write("ablation", measured)


def _measure(name: str, as_of: date) -> dict[str, dict[str, dict[str, float]]]:
    with tempfile.TemporaryDirectory() as home:
        workspace = settings.read(Path(f"configs/{name}.yaml"), home=Path(home))
        intake.ingest(workspace, datetime.now(UTC))
        snapshot.snapshot(workspace, pipelines.cutoffs(workspace, as_of))
        store = retrieval.apply(workspace)
        measured = {"of customers": _of_customers(workspace, datasets.load(store, workspace, as_of))}
        lessons = [cross_sell.lesson(workspace, day, as_of) for day in cross_sell.cutoffs(workspace, as_of)]
        if len(lessons) > 1:
            measured["of items"] = _of_items(workspace, lessons)
    return measured


def _of_customers(workspace: Workspace, data: datasets.Dataset) -> dict[str, dict[str, float]]:
    by_family = {
        family: {feature.name for feature in snapshot.features_of(family, workspace)} & set(data.inputs.used)
        for family in snapshot.CUSTOMER_FAMILIES
    }
    everything = set(data.inputs.used)
    kept = {"all families": everything, "history alone": set()}
    kept |= {f"without {family}": everything - names for family, names in by_family.items() if names}
    kept |= {f"{family} alone": names for family, names in by_family.items() if names}
    happened = labels.outcomes(workspace, [data.current.as_of], _LONG_AFTER).set_index("customer_id")
    happened = happened.reindex(data.current.customer_ids)
    return {what: _customer_models(workspace, data, names, happened) for what, names in kept.items()}


def _customer_models(
    workspace: Workspace, data: datasets.Dataset, kept: set[str], happened: pd.DataFrame
) -> dict[str, float]:
    used = tuple(name for name in data.inputs.used if name in kept)
    data = replace(data, inputs=replace(data.inputs, used=used))
    vectors = data.current.vectors
    leaving, worth = (kind.fit(data, workspace, data.closed, data.current) for kind in (churn, lifetime_value))
    able = leaving.can_churn(vectors)
    left, value = 1.0 - happened["bought"].eq(True).to_numpy(dtype=float), happened["value"].fillna(0.0).to_numpy()
    probability, expected = leaving.probability(vectors[able]), np.nan_to_num(worth.value(vectors))
    figures = {"features": float(len(used))}
    figures |= {name: getattr(metrics, name)(left[able], probability) for name in _OF_CHURN}
    return figures | {name: getattr(metrics, name)(value, expected) for name in _OF_VALUE}


def _of_items(workspace: Workspace, lessons: Sequence[Lesson]) -> dict[str, dict[str, float]]:
    families = {
        "product_affinity": [feature.name for feature in product_affinity.FEATURES],
        "popularity": [feature.name for feature in product_affinity.POPULARITY],
        "co_purchase": list(candidates.BESIDE),
        "the customer": list(candidates.CONTEXT),
    }
    figures = {"all families": _offers(workspace, lessons, [])}
    return figures | {f"without {family}": _offers(workspace, lessons, names) for family, names in families.items()}


def _offers(workspace: Workspace, lessons: Sequence[Lesson], left_out: list[str]) -> dict[str, float]:
    """What is a repeat is not hidden."""
    hidden = np.isin(candidates.names(workspace), left_out)
    hidden[candidates.names(workspace).index(candidates.OWNED)] = False
    *earlier, latest = [_blinded(lesson, hidden) for lesson in lessons]
    model = cross_sell.learnt(workspace, earlier)
    judged = cross_sell.judged(model, lessons[-1], workspace)
    judged = replace(judged, predicted=model.probability(latest.pairs.rows))
    offers = JudgedOffers.of(judged, [], date.min, 5)
    ours, naive = (offers.figures(answer, np.arange(len(offers.customer_ids))) for answer in offers.answers[:2])
    figures = ours | {f"naive_{name}": figure for name, figure in naive.items()}
    return {"features": float((~hidden).sum())} | {name: figures[name] for name in _OF_OFFERS if name in figures}


def _blinded(lesson: Lesson, hidden: NDArray[np.bool_]) -> Lesson:
    rows = np.where(hidden, np.float32(np.nan), lesson.pairs.rows)
    return replace(lesson, pairs=replace(lesson.pairs, rows=rows))


if __name__ == "__main__":
    main()
