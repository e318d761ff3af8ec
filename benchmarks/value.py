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
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import yaml

from benchmarks.peers import RESULTS, Answer, Finished, Floats, finished, peers
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
LOW_IS_GOOD = ("dec_wape", "bias")
TOLERANCE = 0.03
WORLD_ENDS, WORLD_HORIZON = date(2025, 1, 1), 90
WORLD_AS_OF = WORLD_ENDS - timedelta(days=WORLD_HORIZON)
LEAST_REGRET = 0.02
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
    measured = [_real(window) for window in _asked_for(asked.name, asked.as_of)]
    if asked.name in (None, "rolling"):
        measured.append(_rolling())
    if asked.name in (None, "world"):
        measured.append(_simulated(asked.customers))
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "value.json").write_text(json.dumps(measured, indent=1))


def _asked_for(name: str | None, as_of: date | None) -> list[Window]:
    known = [window for window in REPORTED if name in (None, window.name) and as_of in (None, window.as_of)]
    return known or ([Window(name, as_of, {})] if name and as_of else [])


def _real(window: Window) -> dict[str, object]:
    with finished(Path(f"configs/{window.name}.yaml"), window.as_of) as run:
        return _measured(run, peers(run), window.to_reach)


def _rolling() -> dict[str, object]:
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
    print(f"\n{ROLLING}, total off by, at cutoffs of 92 days (mean |bias| at most {MEAN_BIAS})")
    print(table.to_string(float_format=lambda share: f"{share:.3f}"))
    return {"workspace": ROLLING, "rolling": table.to_dict("index")}


def _simulated(customers: int) -> dict[str, object]:
    """The shop whose true expected values are known: they are a contender too, and regret is counted from them."""
    with _world(customers) as (world, config), finished(config, WORLD_AS_OF) as run:
        known = truth(world, WORLD_AS_OF, WORLD_HORIZON).set_index("customer_id").loc[run.scores["customer_id"]]
        oracle = Answer("true expected value", None, known["expected_spend"].to_numpy(),
                        known["expected_purchases"].to_numpy())  # fmt: skip
        asked = run.may_be_asked
        best = metrics.ngini(run.truth.value[asked], oracle.value[asked])
        figures = _measured(run, [*peers(run), oracle], {"ngini": best - LEAST_REGRET})
        regret = best - metrics.ngini(run.truth.value[asked], np.nan_to_num(run.ours.value[asked]))
        print(
            f"regret in ngini against the truth: {regret:.4f}{_mark(regret <= LEAST_REGRET)} (at most {LEAST_REGRET})"
        )
        return figures | {"regret": regret}


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


def _measured(run: Finished, contenders: list[Answer], to_reach: dict[str, float]) -> dict[str, object]:
    """Prints one window's table and coverage; returns the same figures."""
    print(f"\n{run.workspace.name} at {run.as_of}, {run.workspace.lifetime_value.horizon} days: "
          f"{len(run.scores):,} customers, run in {run.seconds:.0f} s, {run.gigabytes:.1f} GB")  # fmt: skip
    answers = [replace(answer, name=answer.name.removeprefix("silence / ")) for answer in [*contenders, run.ours]]
    rows = {answer.name: _figures(run, answer) for answer in answers}
    _print_table(rows, _intervals(run), to_reach)
    coverage, stated = _coverage(run), run.workspace.lifetime_value.interval
    shown = " ".join(f"{share:.2f}{_mark(abs(share - stated) <= TOLERANCE)}" for share in coverage[1:])
    print(
        f"value within its {100 * stated:g} % bounds: {coverage[0]:.3f}; from the lowest tenth of predictions to the"
        f" highest: {shown}"
    )
    return {"workspace": run.workspace.name, "as_of": str(run.as_of), "seconds": run.seconds,
            "gigabytes": run.gigabytes, "figures": rows, "to_reach": to_reach, "coverage": coverage}  # fmt: skip


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


def _print_table(
    rows: dict[str, dict[str, float]], intervals: dict[str, metrics.Interval], to_reach: dict[str, float]
) -> None:
    names = [*METRICS, COUNT]
    table = pd.DataFrame({title: {name: _shown(row.get(name)) for name in names} for title, row in rows.items()}).T
    ours = rows["Perennial"]
    table.loc["Perennial"] = [
        f"{_shown(ours[name])}{_mark(name not in to_reach or _reached(name, ours[name], to_reach[name]))}"
        for name in names
    ]
    table.loc["  95 % from"] = [_shown(intervals[name].low) for name in names]
    table.loc["  to"] = [_shown(intervals[name].high) for name in names]
    table.loc["to reach"] = [_aim(name, to_reach) for name in names]
    print(table.to_string())


def _reached(name: str, figure: float, aim: float) -> bool:
    return abs(figure) <= aim if name in LOW_IS_GOOD else figure >= aim


def _aim(name: str, to_reach: dict[str, float]) -> str:
    if name not in to_reach:
        return ""
    return f"{'±' if name == 'bias' else '<' if name in LOW_IS_GOOD else '>'}{to_reach[name]:.4f}"


def _shown(figure: float | None) -> str:
    return "" if figure is None else f"{figure:.4f}"


def _mark(reached: bool) -> str:
    return " " if reached else "!"


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
