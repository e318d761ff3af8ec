"""What a model was judged on, kept beside it: every answer at every judged cutoff, so that two models can be compared.

In the workspace's home, so that what is erased of a customer there is erased here too: `judged/<run>/`, a Parquet file
per cutoff, a row per customer: what happened, what each contender had said, the segments. For offers there is a second
one with a row per (customer, item), without their names.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from training.backtests.backtest import Bounds, Judged
from training.backtests.baselines import Answer
from training.backtests.offer_backtest import JudgedOffers
from training.backtests.scoreboard import JudgedCutoff
from workspace import storage
from workspace.settings import LifetimeValue

_KEY = b"perennial"
_PAIRS = ".pairs"


def write(home: Path, run_id: str, judged: Sequence[JudgedCutoff]) -> None:
    """Keeps what a run was judged on: a file, or for offers two, for each cutoff."""
    with storage.replacing(_folder(home, run_id)) as draft:
        draft.mkdir()
        _write_into(draft, judged)


def _folder(home: Path, run_id: str) -> Path:
    return home / "judged" / run_id


def _write_into(folder: Path, judged: Sequence[JudgedCutoff]) -> None:
    for cutoff in judged:
        kept = cutoff.kept()
        noted: dict[str, Any] = {
            "as_of": str(cutoff.as_of), "learnt_from": [str(day) for day in cutoff.learnt_from],
            "answers": [(a.name, a.side, a.is_level) for a in cutoff.answers], "segments": list(cutoff.segments),
            "refused": cutoff.refused,
        }  # fmt: skip
        if cutoff.interval is not None:
            noted["interval"] = cutoff.interval
        columns = {"customer_id": cutoff.customer_ids, **{f"in {name}": rows for name, rows in cutoff.segments.items()}}
        _write(folder / f"{cutoff.as_of}.parquet", {**columns, **kept.by_customer}, noted)
        if kept.by_pair:
            _write(folder / f"{cutoff.as_of}{_PAIRS}.parquet", kept.by_pair, noted)


def _write(path: Path, columns: Mapping[str, Any], noted: Mapping[str, Any]) -> None:
    pq.write_table(pa.table(dict(columns)).replace_schema_metadata({_KEY: json.dumps(noted)}), path)


def read(home: Path, run_id: str) -> list[JudgedCutoff]:
    """The judged cutoffs of a run, oldest first; none where nothing could be judged, or was kept here."""
    files = sorted(path for path in _folder(home, run_id).glob("*.parquet") if _PAIRS not in path.name)
    return [_read(path) for path in files]


def _read(path: Path) -> JudgedCutoff:
    table = pq.read_table(path)
    noted = json.loads(table.schema.metadata[_KEY])
    columns = {name: table[name].to_numpy() for name in table.column_names}
    ids = columns["customer_id"].astype(object)
    segments = {name: columns[f"in {name}"] for name in noted["segments"]}
    day, refused = date.fromisoformat(noted["as_of"]), tuple(noted["refused"])
    learnt_from = tuple(map(date.fromisoformat, noted["learnt_from"]))
    if "actual" in columns:
        bounds = Bounds(columns["low"], columns["high"], _interval(noted)) if "low" in columns else None
        counts = (columns["n_purchases"], columns["expected_purchases"]) if "n_purchases" in columns else None
        answers = _answers(columns, noted)
        return Judged(day, learnt_from, ids, columns["actual"], answers, segments, refused, bounds, counts)
    pairs = pq.read_table(path.with_suffix(f"{_PAIRS}.parquet"))
    said = {name: pairs[name].to_numpy() for name in pairs.column_names}
    by_customer = {
        name: {
            column.removesuffix(f" by {name}"): values
            for column, values in columns.items()
            if column.endswith(f" by {name}")
        }
        for name, _, _ in noted["answers"]
    }
    answers = _answers(said, noted)
    return JudgedOffers(day, learnt_from, ids, said["actual"], answers, segments, by_customer, refused)


def _interval(noted: Mapping[str, Any]) -> float:
    """Files of before it was noted have the setting's default."""
    return float(noted.get("interval", LifetimeValue().interval))


def _answers(columns: Mapping[str, np.ndarray], noted: Mapping[str, Any]) -> tuple[Answer, ...]:
    return tuple(Answer(name, kind, columns[f"by {name}"], level) for name, kind, level in noted["answers"])
