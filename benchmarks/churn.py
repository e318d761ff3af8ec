"""Churn on real shops at rolling cutoffs, and on contracts by folds, beside the peers fitted in the same run.

    python -m benchmarks.churn                        # the three shops, then the telephone company
    python -m benchmarks.churn online_retail          # one of them

Every shop is answered by the same configuration, its windows aside, and no model sees anything after the cutoff. The
figures of a mean over cutoffs have 95 % intervals from a bootstrap over customers. The telephone company has no dates:
there our learner is taught by four fifths of the customers, of which a fifth calibrates, and judged on the last fifth.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import lightgbm as lgb
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedKFold

from benchmarks import figures, needs, tables
from benchmarks.peers import PLAIN, RFM
from features import retrieval, snapshot
from ingest import intake
from training.backtests import backtest, metrics
from training.backtests.backtest import Judged
from training.backtests.baselines import Answer, Histories
from training.backtests.scoreboard import Contender, scoreboard
from training.learning import churn, datasets, labels
from training.learning.datasets import Cutoff, Dataset
from workspace import settings
from workspace.settings import Workspace
from workspace.storage import CheckFailed

Floats = NDArray[np.floating]

SHOPS = {
    "online_retail": ("2010-11-29", "2011-03-01", "2011-06-01"),
    "complete_journey": ("2017-08-01", "2017-09-01", "2017-10-01"),
    "cdnow": ("1997-10-01",),
}
CONTRACTS, CONTRACTS_AT = "ibm_telco", date(2019, 10, 1)
LEAKING = ("churn_label", "churn_score", "churn_reason", "cltv")
_FIGURES = ("auc", "average_precision", "brier", "ece")
_LONG_AFTER = date(2100, 1, 1)
_SEED = 7


def main() -> None:
    asked = sys.argv[1:] or [*SHOPS, CONTRACTS]
    needs.refuse_without(shops=asked)
    parts: dict[str, object] = {}
    for name in asked:
        parts |= _contracts() if name == CONTRACTS else _shop(name)
    figures.write("churn", parts)


def _shop(name: str) -> dict[str, object]:
    """One shop at its cutoffs: prints and returns the tables, and how the last cutoff's other horizons came out."""
    with tempfile.TemporaryDirectory() as home:
        workspace = _taken_in(name, home)
        judged, horizons = [], {}
        for as_of in map(date.fromisoformat, SHOPS[name]):
            data = _loaded(workspace, as_of)
            judged.append(_judged(workspace, data))
            horizons = _horizons(workspace, data)
    board = scoreboard(judged, seed=_SEED)
    parts: dict[str, object] = {}
    for place, as_of in enumerate(board.as_of):
        parts[window := f"{name} at {as_of}"] = {
            "horizon": workspace.churn.horizon, "customers": board.customers[place],
            "left": float(judged[place].actual.mean()), "cutoffs": len(board.learnt_from[place]),
            "figures": {contender.name: _at(contender, place) for contender in board.contenders},
        }  # fmt: skip
        print(f"\n{tables.churn(parts, window)}")
    if len(judged) > 1:
        parts[f"{name}, mean"] = means = {contender.name: _mean(contender) for contender in board.contenders}
        print(f"\nmean of the cutoffs, and its 95 % interval\n{pd.DataFrame(means).T.to_string(na_rep='')}")
    parts[other := f"{name}, other horizons at {board.as_of[-1]}"] = horizons
    print(f"\n{tables.horizons(parts, other)}", flush=True)
    return parts


def _taken_in(name: str, home: str) -> Workspace:
    workspace = settings.read(Path(f"configs/{name}.yaml"), home=Path(home))
    intake.ingest(workspace, datetime.now(UTC))
    return workspace


def _loaded(workspace: Workspace, as_of: date) -> Dataset:
    """What a training at `as_of` learns from; the outcomes of `as_of` itself, to be judged by, are with `current`."""
    snapshot.snapshot(workspace, [*datasets.cutoffs(workspace, as_of), as_of])
    data = datasets.load(retrieval.apply(workspace), workspace, as_of)
    happened = labels.outcomes(workspace, [as_of], _LONG_AFTER)
    return replace(data, current=datasets._labelled(data.inputs, workspace.churn, data.current, happened))


def _judged(workspace: Workspace, data: Dataset) -> Judged:
    """Ours, silence, the field's models and plain boosting on the customers who could leave."""
    then = replace(data, current=backtest._unlabelled(data.current))
    judged = backtest.churn_at(then, workspace, data.current, Histories.fit(data.inputs, data.current))
    return replace(judged, answers=(*judged.answers, *_plain_boosting(workspace, data)))


def _plain_boosting(workspace: Workspace, data: Dataset) -> list[Answer]:
    """What a good afternoon's work gives: LightGBM, 17 RFM features, the four latest closed cutoffs, no calibration."""
    if data.taught.churn.horizon != workspace.churn.horizon:
        return []
    columns = [data.inputs.packed.index(name) for name in RFM]
    taught = [cutoff for cutoff in data.closed[-4:] if not np.isnan(cutoff.churned).all()]
    rows = np.concatenate([cutoff.vectors[~np.isnan(cutoff.churned)][:, columns] for cutoff in taught])
    left = np.concatenate([cutoff.churned[~np.isnan(cutoff.churned)] for cutoff in taught])
    asked = data.current.vectors[~np.isnan(data.current.churned)][:, columns]
    return [Answer("plain LightGBM", "naive", _boosted(rows, left, asked))]


def _boosted(rows: Floats, left: Floats, asked: Floats) -> Floats:
    model = lgb.train({**PLAIN, "objective": "binary"}, lgb.Dataset(rows, left), 150)
    return np.asarray(model.predict(asked))


def _horizons(workspace: Workspace, data: Dataset) -> dict[str, dict[str, float]]:
    """Said and happened within other horizons, of the customers who could leave; as far as the data go on."""
    model = churn.fit(data, workspace, data.closed, data.current)
    able = model.can_churn(data.current.vectors)
    days = labels.purchase_days(workspace, _LONG_AFTER)
    known = 0 if days is None else (days[1] - data.current.as_of).days + 1
    rows = {}
    for horizon in sorted({30, 60, workspace.churn.horizon, 120, 180}):
        if horizon > min(known, model.longest):
            continue
        other = workspace.model_copy(update={"churn": workspace.churn.model_copy(update={"horizon": horizon})})
        happened = labels.outcomes(other, [data.current.as_of], _LONG_AFTER).set_index("customer_id")
        bought = happened["bought"].reindex(data.current.customer_ids[able]).eq(True).to_numpy(dtype=float)
        said = model.probability(data.current.vectors[able], horizon)
        rows[f"{horizon} days"] = {"left": float(1 - bought.mean()), "said": float(said.mean())} | _figures(
            1 - bought, said
        )
    return rows


def _figures(left: Floats, said: Floats) -> dict[str, float]:
    return {name: float(getattr(metrics, name)(left, said)) for name in _FIGURES}


def _at(contender: Contender, place: int) -> dict[str, float]:
    return {name: contender.figures[name].each[place] for name in _FIGURES if name in contender.figures}


def _mean(contender: Contender) -> dict[str, str]:
    spreads = {name: contender.figures[name] for name in _FIGURES if name in contender.figures}
    return {name: f"{one.mean:.4f} ({one.low:.4f} to {one.high:.4f})" for name, one in spreads.items()}


def _contracts() -> dict[str, object]:
    """The telephone company: which columns training refuses, then five stratified folds."""
    with tempfile.TemporaryDirectory() as home:
        workspace = _taken_in(CONTRACTS, f"{home}/leaking")
        refused = _refused(workspace.model_copy(update={"attributes": (*workspace.attributes, *LEAKING)}))
        workspace = _taken_in(CONTRACTS, f"{home}/clean")
        data = _loaded(workspace, CONTRACTS_AT)
        folds = [_fold(workspace, data, *places) for places in _split(data.closed[-1].churned)]
    rows = {name: pd.DataFrame([fold[name] for fold in folds]).mean().to_dict() for name in folds[0]}
    parts = {"leaking": LEAKING, "refused": refused, "contracts": len(data.closed[-1].churned), "mean": rows}
    print(f"\n{tables.contracts({CONTRACTS: parts}, CONTRACTS)}", flush=True)
    return {CONTRACTS: parts}


def _refused(workspace: Workspace) -> list[str]:
    """Which of the columns that know the answer training refuses."""
    intake.ingest(workspace, datetime.now(UTC))
    try:
        churn.train(_loaded(workspace, CONTRACTS_AT), workspace)
    except CheckFailed as problem:
        return [name for name in LEAKING if f"`{name}` " in str(problem)]
    return []


def _split(churned: Floats) -> Sequence[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    folds = StratifiedKFold(5, shuffle=True, random_state=_SEED)
    return list(folds.split(churned, churned))


def _fold(
    workspace: Workspace, data: Dataset, learnt: NDArray[np.intp], judged: NDArray[np.intp]
) -> dict[str, dict[str, float]]:
    """Ours and plain boosting on the attributes, on one fold; a fifth of the rest takes the later cutoff's place."""
    everyone = data.closed[-1]
    teaching, calibrating = _split(everyone.churned[learnt])[0]
    closed = (_among(everyone, learnt[teaching]), _among(everyone, learnt[calibrating]))
    model = churn.fit(data, workspace, closed, _among(everyone, judged))
    seen = [place for place, name in enumerate(data.inputs.packed) if name.startswith("attribute_")]
    plain = _boosted(everyone.vectors[learnt][:, seen], everyone.churned[learnt], everyone.vectors[judged][:, seen])
    left = everyone.churned[judged]
    return {
        "plain LightGBM": _figures(left, plain),
        "Perennial": _figures(left, model.probability(everyone.vectors[judged])),
    }


def _among(cutoff: Cutoff, places: NDArray[np.intp]) -> Cutoff:
    columns = ("customer_ids", "vectors", "churned", "value", "n_purchases")
    return replace(cutoff, **{name: getattr(cutoff, name)[places] for name in columns})


if __name__ == "__main__":
    main()
