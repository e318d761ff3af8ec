"""Online Retail II, month by month as it would have been lived: take in, watch, train where it is due, score.

    python -m benchmarks.replay                          # from 2010-12 to 2011-08
    python -m benchmarks.replay --folder var/replay      # kept there; stopped and started again, it goes on
    python -m benchmarks.replay --draw                   # only the plot again, from the last replay's figures

On the first of every month the lines of the month before arrive, and `perennial run` is started on them: it decides by
itself whether to train, what to promote and whom to tell. Nothing later lies in any file that it could read. Printed
is what each run did, and what by then was known of earlier predictions; all of it goes to `benchmarks/results`, and one
plot to `docs/images`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import matplotlib.dates as mdates
import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from benchmarks import figures, needs
from monitoring import outcomes
from workspace import settings, storage

CONFIG = Path("configs/online_retail.yaml")
FIRST, LAST = "2010-12-01", "2011-08-01"
PLOT = Path("docs/images/replay.svg")
Month = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--first", default=FIRST)
    parser.add_argument("--last", default=LAST)
    parser.add_argument("--folder", type=Path, help="where the shop is kept; thrown away if absent")
    parser.add_argument("--draw", action="store_true", help="the plot alone")
    asked = parser.parse_args()
    if not asked.draw:
        needs.refuse_without(shops=[CONFIG.stem])
        with tempfile.TemporaryDirectory() as thrown_away:
            replay((asked.folder or Path(thrown_away)).absolute(), asked.first, asked.last)
    draw([*figures.read("replay").values()], PLOT)


def replay(folder: Path, first: str, last: str) -> None:
    """Prints each month as it ends, and keeps the figures of those so far."""
    folder.mkdir(parents=True, exist_ok=True)
    months: dict[str, Month] = {}
    for start in pd.date_range(first, last, freq="MS"):
        month = live(folder, start.date())
        months[month["as_of"]] = month
        figures.write("replay", months)
        print(told(month), flush=True)


def arrive(folder: Path, as_of: date) -> None:
    """Adds a file with the lines of each month before `as_of` that is not there yet; `known` has all of them."""
    source = settings.read(CONFIG).tables.transactions.path
    assert source is not None
    before = f"SELECT * FROM read_parquet({list(source)}) WHERE invoice_date < TIMESTAMP '{as_of}'"
    (folder / "lines").mkdir(exist_ok=True)
    for (month,) in duckdb.execute(f"SELECT DISTINCT date_trunc('month', invoice_date) FROM ({before})").fetchall():
        if not (file := folder / "lines" / f"{month:%Y-%m}.parquet").exists():
            wanted = f"{before} AND date_trunc('month', invoice_date) = TIMESTAMP '{month}'"
            duckdb.execute(f"COPY ({wanted}) TO {storage.quoted(file)} (FORMAT parquet)")
    duckdb.execute(f"COPY ({before}) TO {storage.quoted(folder / 'known.parquet')} (FORMAT parquet)")


def live(folder: Path, as_of: date) -> Month:
    """What the run of a month did, as its own record has it, and what is known by then of earlier predictions."""
    changed = {"transactions": folder / "lines", "products": folder / "known.parquet"}
    over = [f"tables.{table}.path={path}" for table, path in changed.items()]
    reports = folder / "home" / "reports"
    if not (run := _last_run(reports, as_of)) or not run["done"]:
        arrive(folder, as_of)
        _run(folder, over, as_of)
        run = _last_run(reports, as_of)
    drift = reports / f"drift-{as_of}.json"
    looked = outcomes.outcomes(settings.read(CONFIG, over, folder / "home"), as_of)
    return {
        "as_of": str(as_of), "run": run, "drift": storage.read_json(drift) if drift.exists() else None,
        "outcomes": [asdict(group) for group in looked.of("week")],
        "scored": _scored(storage.scores_path(folder / "home", as_of)),
    }  # fmt: skip


def _run(folder: Path, over: list[str], as_of: date) -> None:
    command = [sys.executable, "-m", "perennial", "run", "-c", str(CONFIG), "--as-of", str(as_of)]
    command += ["--home", str(folder / "home"), *(word for pair in over for word in ("--set", pair))]
    environment = os.environ | {"MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"}
    with (folder / f"{as_of}.log").open("w") as log:
        subprocess.run(command, env=environment, stderr=log, check=False)


def _last_run(reports: Path, as_of: date) -> Month | None:
    """The record that the last run of a day left."""
    pages = sorted(reports.glob(f"run-{as_of}-*.json"))
    return storage.read_json(pages[-1]) if pages else None


def _scored(path: Path) -> dict[str, float]:
    query = (
        f"SELECT count(churn_probability), avg(churn_probability), sum(lifetime_value) FROM {storage.reader([path])}"
    )
    count, risk, value = duckdb.execute(query).fetchall()[0]
    return {"customers": count, "risk": risk, "value": value}


def told(month: Month) -> str:
    """A month in a few lines."""
    run, scored, drift = month["run"], month["scored"], month["drift"]
    seconds = sum(stage["seconds"] for stage in run["stages"])
    lines = [f"{month['as_of']}  {scored['customers']:,} customers, {scored['risk']:.1%} of them expected to leave;"
             f" {seconds:.0f} s"]  # fmt: skip
    if drift:
        lines.append(
            f"{'drift' if drift['drifted'] else 'no drift'}: {len(drift['features'])} of {drift['judged']} moved"
        )
    for decision in run["decisions"]:
        lines.append(f"{decision['kind']} version {decision['version']} {decision['outcome']}: {decision['due']}")
    lines += [f"alert: {alert['about']}: {alert['says'].splitlines()[0][:150]}" for alert in run["alerts"]]
    for group in month["outcomes"][-1:]:
        lines.append(
            f"known by now of {group['asked']:,} predictions in the week of {group['name']}: {group['expected']:.1%}"
            f" expected to leave, {group['actual']:.1%} did; auc {group['auc']:.3f}; value off by {group['bias']:+.1%}"
        )
    return "\n    ".join(lines)


def draw(months: list[Month], to: Path) -> None:
    """Two charts over the as_ofs: who was expected to leave and who did; how much had moved, and what was done."""
    days = pd.to_datetime([month["as_of"] for month in months])
    known = pd.DataFrame(months[-1]["outcomes"], columns=["name", "actual", "low", "high"])
    at = _month_starts(known["name"], days)
    figure = Figure(figsize=(8.5, 5.6), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[3, 2])
    top.plot(days, [month["scored"]["risk"] for month in months], "o-", color="#1f5fa8", label="expected to leave")
    top.errorbar(at, known["actual"], yerr=[known["actual"] - known["low"], known["high"] - known["actual"]], fmt="s",
                 color="#e08a1e", capsize=3, label="left, as was known 92 days later (95 %)")  # fmt: skip
    top.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    top.set_ylim(0)
    top.set_ylabel("customers")
    top.legend(frameon=False, loc="lower right")
    share = [month["drift"]["share"] if month["drift"] else np.nan for month in months]
    bottom.bar(days, share, width=12, color="#b9c3cd", label="features that moved")
    for day, month in zip(days, months, strict=True):
        _mark(bottom, day, month)
    bottom.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    bottom.set_ylim(0, 1)
    bottom.margins(x=0.07)
    bottom.set_ylabel("features that moved")
    bottom.xaxis.set_major_formatter(mdates.DateFormatter("%Y-%m"))
    for axes in (top, bottom):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#e6eaee")
        axes.set_axisbelow(True)
    to.parent.mkdir(exist_ok=True)
    with rc_context({"svg.hashsalt": "perennial"}):  # the same figures give the same file
        figure.savefig(to, metadata={"Date": None})


def _month_starts(weeks: pd.Series, days: pd.DatetimeIndex) -> pd.DatetimeIndex:
    """The as_of that lies in each of the weeks, which are named by their Mondays."""
    return pd.DatetimeIndex([next(day for day in days if day - pd.Timedelta(days=day.weekday()) == week)
                             for week in pd.to_datetime(weeks)])  # fmt: skip


def _mark(axes: Any, day: pd.Timestamp, month: Month) -> None:
    """Above a month's bar: models promoted (▲), refused (▼), and the number of alerts."""
    outcomes_of = [decision["outcome"] for decision in month["run"]["decisions"]]
    for sign, outcome, colour in (("▲", "promoted", "#17703c"), ("▼", "refused", "#b3261e")):
        if count := outcomes_of.count(outcome):
            axes.text(day, 0.88 if outcome == "promoted" else 0.76, f"{sign} {count} {outcome}", ha="center",
                      color=colour, fontsize=8)  # fmt: skip
    if alerts := len(month["run"]["alerts"]):
        axes.text(day, 0.64, f"{alerts} alert{'s' * (alerts > 1)}", ha="center", color="#8a5a00", fontsize=8)


if __name__ == "__main__":
    main()
