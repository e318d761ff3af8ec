"""Lifetime value beside the peers fitted in the same run, with what is to be reached: four real windows, one made-up.

    python -m benchmarks.value                                   # all of it, from nothing
    python -m benchmarks.value online_retail 2011-03-01          # one shop's window, any
    python -m benchmarks.value rolling                           # totals of one shop over rolling cutoffs
    python -m benchmarks.value world --customers 20000           # the simulated shop alone, smaller

A real run of Perennial in a folder of its own answers; the outcomes are read only to print the figures. dec_wape,
ngini, bias and the rest are defined in `training/backtests/metrics.py`; count is the correlation of expected purchases
with the number of days on which the customer then bought. A figure that misses what is to be reached is marked `!`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import yaml

from benchmarks import figures, needs, tables
from benchmarks.peers import Answer, Finished, Floats, finished, peers
from features import retrieval, snapshot
from ingest import intake
from simulation.truth import truth
from simulation.world import simulate
from training.backtests import backtest, metrics
from training.learning import datasets, deciles
from workspace import settings

METRICS: dict[str, Callable[[Floats, Floats], float]] = {
    "ngini": metrics.ngini,
    "spearman": metrics.spearman,
    "dec_wape": metrics.decile_wape,
    "bias": metrics.bias,
    "capture": metrics.top_decile_capture,
}
COUNT = "count"
WORLD_ENDS, WORLD_HORIZON = date(2025, 1, 1), 90
WORLD_AS_OF = WORLD_ENDS - timedelta(days=WORLD_HORIZON)
LEAST_REGRET = 0.02
Part = dict[str, Any]
"""Figures under the name of what they are of."""
ROLLING, ROLLING_AS_OF, ROLLING_CUTOFFS = "online_retail", date(2011, 9, 1), 9
MEAN_BIAS = 0.08


@dataclass(frozen=True)
class Window:
    """A reported window and what its figures are to reach: at least, or at most where low is good; bias either way."""

    name: str
    as_of: date
    to_reach: dict[str, float]


REPORTED = (
    Window("online_retail", date(2011, 6, 1), {"ngini": 0.8538, "spearman": 0.5641, "dec_wape": 0.182, "bias": 0.10}),
    Window("online_retail", date(2011, 3, 1), {"ngini": 0.8154, "spearman": 0.5183, "dec_wape": 0.255, "bias": 0.26}),
    Window("complete_journey", date(2017, 10, 1),
           {"ngini": 0.7408, "spearman": 0.7030, "dec_wape": 0.046, "bias": 0.04}),
    Window("cdnow", date(1997, 10, 1), {"ngini": 0.70, "dec_wape": 0.12, "bias": 0.08, COUNT: 0.675}),
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", help="a workspace of configs/, `rolling` or `world`; everything if absent")
    parser.add_argument("as_of", nargs="?", type=date.fromisoformat)
    parser.add_argument("--customers", type=int, default=100_000, help="of the simulated shop")
    asked = parser.parse_args()
    shops = [window.name for window in _asked_for(asked.name, asked.as_of)]
    rolling = [ROLLING] if asked.name in (None, "rolling") else []
    needs.refuse_without(shops=[*shops, *rolling], minutes=0 if asked.name else 15)
    parts = {}
    for window in _asked_for(asked.name, asked.as_of):
        parts |= _printed(_real(window), tables.value)
    if asked.name in (None, "rolling"):
        parts |= _printed(_rolling(), tables.rolling)
    if asked.name in (None, "world"):
        parts |= _printed(_simulated(asked.customers), tables.value)
    figures.write("value", parts)


def _printed(part: Part, table: Callable[[Part, str], str]) -> Part:
    for name in part:
        print(f"\n{table(part, name)}", flush=True)
    return part


def _asked_for(name: str | None, as_of: date | None) -> list[Window]:
    known = [window for window in REPORTED if name in (None, window.name) and as_of in (None, window.as_of)]
    return known or ([Window(name, as_of, {})] if name and as_of else [])


def _real(window: Window) -> Part:
    with finished(Path(f"configs/{window.name}.yaml"), window.as_of) as run:
        return _measured(run, peers(run), window.to_reach)


def _rolling() -> Part:
    """By how much totals are off at cutoffs a month apart, each trained on what was known then, and on the mean."""
    with TemporaryDirectory() as home:
        workspace = settings.read(Path(f"configs/{ROLLING}.yaml"), home=Path(home))
        intake.ingest(workspace, datetime.now(UTC))
        closed = backtest.cutoffs(workspace, ROLLING_AS_OF, ROLLING_CUTOFFS)
        snapshot.snapshot(workspace, [*closed, ROLLING_AS_OF])
        data = datasets.load(retrieval.apply(workspace), workspace, ROLLING_AS_OF, closed)
        judged = backtest.alike(backtest.judge(backtest.value_at, data, workspace, closed[-ROLLING_CUTOFFS:]))
    table = pd.DataFrame({
        str(cutoff.as_of): {answer.name: metrics.bias(cutoff.actual, answer.predicted) for answer in cutoff.answers}
        for cutoff in judged
    })  # fmt: skip
    table = table.assign(**{"mean |bias|": table.abs().mean(axis=1), "|mean|": table.mean(axis=1).abs()})
    parts = {"horizon": workspace.lifetime_value.horizon, "mean_bias_at_most": MEAN_BIAS}
    return {ROLLING: parts | {"figures": table.to_dict("index")}}


def _simulated(customers: int) -> Part:
    """The shop whose true expected values are known: they are a contender too, and regret is counted from them."""
    with _world(customers) as (world, config), finished(config, WORLD_AS_OF) as run:
        known = truth(world, WORLD_AS_OF, WORLD_HORIZON).set_index("customer_id").loc[run.scores["customer_id"]]
        oracle = Answer("true expected value", None, known["expected_spend"].to_numpy(),
                        known["expected_purchases"].to_numpy())  # fmt: skip
        asked = run.may_be_asked
        best = metrics.ngini(run.truth.value[asked], oracle.value[asked])
        regret = best - metrics.ngini(run.truth.value[asked], np.nan_to_num(run.ours.value[asked]))
        ((name, parts),) = _measured(run, [*peers(run), oracle], {"ngini": best - LEAST_REGRET}).items()
        return {name: parts | {"regret": regret, "regret_at_most": LEAST_REGRET}}


@contextmanager
def _world(customers: int) -> Iterator[tuple[Path, Path]]:
    """The simulated shop and its workspace file."""
    with TemporaryDirectory() as folder:
        world, config = Path(folder) / "world", Path(folder) / "world.yaml"
        simulate(world, customers, 3, seed=3, ends=WORLD_ENDS)
        folders = {table: {"path": str(world / table)} for table in ("transactions", "interactions")}
        files = {table: {"path": str(world / f"{table}.parquet")} for table in ("customers", "products", "campaigns")}
        files["customers"]["complete"] = True  # some lines name customers that there are not
        settings = {"name": "world", "tables": folders | files, "lifetime_value": {"horizon": WORLD_HORIZON}}
        config.write_text(yaml.safe_dump(settings | {"attributes": ["region", "age", "acquisition_channel"]}))
        yield world, config


def _measured(run: Finished, contenders: list[Answer], to_reach: dict[str, float]) -> Part:
    answers = [replace(answer, name=answer.name.removeprefix("silence / ")) for answer in [*contenders, run.ours]]
    intervals, terms = _intervals(run), run.workspace.lifetime_value
    parts = {
        "horizon": terms.horizon, "customers": len(run.scores), "seconds": run.seconds, "gigabytes": run.gigabytes,
        "figures": {answer.name: _figures(run, answer) for answer in answers},
        "low": {name: interval.low for name, interval in intervals.items()},
        "high": {name: interval.high for name, interval in intervals.items()},
        "to_reach": to_reach, "stated": terms.interval, "coverage": _coverage(run),
    }  # fmt: skip
    return {f"{run.workspace.name} at {run.as_of}": parts}


def _figures(run: Finished, answer: Answer) -> dict[str, float]:
    asked, truth = run.may_be_asked, run.truth
    value = np.nan_to_num(answer.value[asked])
    figures = {name: metric(truth.value[asked], value) for name, metric in METRICS.items()}
    if answer.purchases is not None:
        figures[COUNT] = _correlation(truth.purchases[asked], np.nan_to_num(answer.purchases[asked]))
    return figures


def _correlation(actual: Floats, predicted: Floats) -> float:
    return float(np.corrcoef(actual, predicted)[0, 1])


def _intervals(run: Finished) -> dict[str, metrics.Interval]:
    """95 % bootstrap intervals of our own figures."""
    asked, truth = run.may_be_asked, run.truth
    value, purchases = (np.nan_to_num(column[asked]) for column in (run.ours.value, run.ours.purchases))
    intervals = {name: metrics.bootstrap_interval(metric, truth.value[asked], value, seed=7)
             for name, metric in METRICS.items()}  # fmt: skip
    return intervals | {COUNT: metrics.bootstrap_interval(_correlation, truth.purchases[asked], purchases, seed=7)}


def _coverage(run: Finished) -> list[float]:
    """The share of customers whose spend lay within the bounds: of all, then of each tenth by prediction."""
    bounded = run.scores["lifetime_value_low"].notna().to_numpy()
    low, high = (run.scores[f"lifetime_value_{end}"].to_numpy(dtype=float)[bounded] for end in ("low", "high"))
    actual, predicted = run.truth.value[bounded], run.scores["lifetime_value"].to_numpy(dtype=float)[bounded]
    inside = ((actual >= low) & (actual <= high)).astype(float)
    tenths = deciles.decile_table(inside, predicted)
    return [float(inside.mean()), *tenths.actual.tolist()]


if __name__ == "__main__":
    main()
