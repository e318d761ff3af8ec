"""Accuracy of a whole run on real shops beside the peers, all scored against the window that followed.

    python -m benchmarks.accuracy                                    # the three reported windows
    python -m benchmarks.accuracy online_retail 2011-03-01           # any other one

Each run is `perennial run` in a folder of its own; the peers are fitted here on the same snapshot. Nothing after the
as_of reaches a model: the outcomes are read only to print the figures.
"""

from __future__ import annotations

import json
import sys
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.peers import RESULTS, Answer, Finished, Truth, finished, peers
from training import metrics

REPORTED = (("online_retail", "2011-06-01"), ("complete_journey", "2017-10-01"), ("cdnow", "1997-10-01"))


def main() -> None:
    asked = [tuple(sys.argv[1:3])] if len(sys.argv) > 2 else list(REPORTED)
    found = []
    for name, as_of in asked:
        with finished(Path(f"configs/{name}.yaml"), date.fromisoformat(as_of)) as run:
            found.append(_measured(run))
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "accuracy.json").write_text(json.dumps(found, indent=1))


def _measured(run: Finished) -> dict[str, object]:
    """Prints one workspace's table and returns the same figures."""
    scores, ours, truth = run.scores, run.ours, run.truth
    print(f"\n{run.workspace.name} at {run.as_of}, {run.workspace.churn.horizon} days: {len(scores):,} customers")
    print(f"run: {run.seconds:.0f} s, {run.gigabytes:.1f} GB")
    can_leave = ~np.isnan(scores["churn_probability"].to_numpy(dtype=float))
    print(f"{int(can_leave.sum()):,} can leave, {truth.churned[can_leave].mean():.3f} did")
    rows = {answer.name: _figures(answer, truth, can_leave) for answer in [*peers(run), ours]}
    print(pd.DataFrame(rows).T.to_string(float_format=lambda x: f"{x:.4f}", na_rep=""))
    inside = (truth.value >= scores["lifetime_value_low"]) & (truth.value <= scores["lifetime_value_high"])
    print(f"value within its 80 % bounds: {inside.mean():.3f}")
    return {"workspace": run.workspace.name, "as_of": str(run.as_of), "seconds": run.seconds,
            "gigabytes": run.gigabytes, "figures": rows}  # fmt: skip


def _figures(answer: Answer, truth: Truth, can_leave: NDArray[np.bool_]) -> dict[str, float]:
    found: dict[str, float] = {}
    if answer.churn is not None:
        actual, predicted = truth.churned[can_leave], answer.churn[can_leave]
        found |= {"auc": metrics.auc(actual, predicted)}
        if predicted.max() <= 1:
            found |= {
                "ap": metrics.average_precision(actual, predicted), "brier": metrics.brier(actual, predicted),
                "ece": metrics.ece(actual, predicted),
            }  # fmt: skip
    if answer.value is not None:
        value = np.nan_to_num(answer.value)
        for name in ("ngini", "spearman", "decile_wape", "bias"):
            found[name] = getattr(metrics, name)(truth.value, value)
    return found


if __name__ == "__main__":
    main()
