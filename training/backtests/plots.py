"""Pictures of a backtest, for where people look rather than read: files of a run, and the backtest's page."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator
from numpy.typing import NDArray

from pages.picture import ACTUAL, EXPECTED, GREY, RIVAL, SIZE, axes, beside, legend, shares, styled
from training.backtests.metrics import reliability_table
from training.backtests.scoreboard import JudgedCutoff
from training.check.sensitivity import FOLLOW_UP, Sensitivity
from training.learning.deciles import decile_table

Floats = NDArray[np.floating]

_BY_CUTOFF = ("#9ec5ea", "#4f93d2", "#123f73", "#5fb3a1", "#2c7a6b", "#8a6bbf")


def of_amounts(judged: Sequence[JudgedCutoff], currency: str) -> dict[str, Figure]:
    """Of what customers spend, by name; none where nothing was judged."""
    if not judged:
        return {}
    with styled():
        return {
            "totals": _totals(judged, currency), "deciles": _deciles(judged, currency),
            "lift": _lift(judged, "spend"), "coverage": _coverage(judged),
        }  # fmt: skip


def of_probabilities(judged: Sequence[JudgedCutoff], what: str, many: str) -> dict[str, Figure]:
    """Of whether something happens, `what` it is called and `many` of it, by name; none where nothing was judged."""
    if not judged:
        return {}
    with styled():
        return {"calibration": _calibration(judged, what), "lift": _lift(judged, many)}


def _colour(place: int, count: int) -> str:
    """The latest cutoff is the darkest of the blues."""
    return _BY_CUTOFF[place + 3 - count] if count <= 3 else _BY_CUTOFF[place % len(_BY_CUTOFF)]


def _calibration(judged: Sequence[JudgedCutoff], what: str) -> Figure:
    """What happened against what was predicted, a line per cutoff, each point a tenth of the rows with its interval."""
    figure, drawn = axes(f"predicted probability of {what}", "share that did")
    highest = 0.0
    for place, cutoff in enumerate(judged):
        table, colour = reliability_table(cutoff.actual, cutoff.answers[0].predicted), _colour(place, len(judged))
        drawn.vlines(table.predicted, table.low, table.high, color=colour, linewidth=1, alpha=0.6)
        drawn.plot(table.predicted, table.actual, marker="o", markersize=4, color=colour, label=str(cutoff.as_of))
        highest = max(highest, *table.predicted, *table.high)
    drawn.plot([0, highest], [0, highest], color=RIVAL, linewidth=1, linestyle="--", label="perfect")
    shares(drawn.xaxis, drawn.yaxis)
    legend(drawn)
    return figure


def _lift(judged: Sequence[JudgedCutoff], what: str) -> Figure:
    """The share of all that happened which the best-ranked hold: ours, the first naive rule, perfect; all cutoffs."""
    figure, drawn = axes(f"{judged[0].rows}, best ranked first", f"share of all {what}")
    share = np.linspace(0, 1, 201)
    naive = next(answer.name for answer in judged[0].answers if answer.side == "naive")
    for name, style in ((judged[0].answers[0].name, {"color": EXPECTED, "linewidth": 2.2}), (naive, {"color": ACTUAL})):
        curves = [_reached(c.actual, next(a.predicted for a in c.answers if a.name == name), share) for c in judged]
        drawn.plot(share, np.mean(curves, axis=0), label=name, **style)
    perfect = np.mean([_reached(c.actual, c.actual, share) for c in judged], axis=0)
    drawn.plot(share, perfect, color=GREY, linewidth=1, label="perfect order")
    drawn.plot([0, 1], [0, 1], color=RIVAL, linewidth=1, linestyle="--", label="by chance")
    shares(drawn.xaxis, drawn.yaxis)
    legend(drawn)
    return figure


def _reached(actual: Floats, predicted: Floats, share: Floats) -> Floats:
    order = np.argsort(-predicted, kind="stable")
    held = np.concatenate([[0.0], np.cumsum(np.maximum(actual[order], 0))])
    return np.interp(share, np.linspace(0, 1, len(held)), held / max(held[-1], 1e-12))


def _totals(judged: Sequence[JudgedCutoff], currency: str) -> Figure:
    """Expected beside actual total of each cutoff."""
    expected, actual = ([float(np.sum(values)) for values in columns] for columns in (
        [cutoff.answers[0].predicted for cutoff in judged], [cutoff.actual for cutoff in judged]))  # fmt: skip
    dates = [f"from {cutoff.as_of}" for cutoff in judged]
    figure = beside(dates, expected, actual, f"spend of all customers, {currency}")
    (drawn,) = figure.axes
    for bars in drawn.containers:
        assert isinstance(bars, BarContainer)
        drawn.bar_label(bars, fmt=EngFormatter(places=2, sep=""), fontsize=9, color="#3c4650")
    drawn.margins(y=0.15)
    return figure


def _deciles(judged: Sequence[JudgedCutoff], currency: str) -> Figure:
    """Mean predicted beside mean actual value of each tenth of the customers, lowest predicted first; all cutoffs."""
    tables = [decile_table(cutoff.actual, cutoff.answers[0].predicted) for cutoff in judged]
    expected, actual = (np.mean([getattr(t, name) for t in tables], axis=0) for name in ("predicted", "actual"))
    tenths = list(map(str, range(1, 11)))
    return beside(
        tenths, expected, actual, f"mean spend, {currency}", "tenths of the customers, highest predicted last"
    )


def _coverage(judged: Sequence[JudgedCutoff]) -> Figure:
    """Share of the customers of each tenth whose spend lay within its bounds, a line per cutoff."""
    figure, drawn = axes("tenths of the customers, highest predicted last", "spent within their bounds")
    for place, cutoff in enumerate(judged):
        if cutoff.interval is None:
            continue
        held, colour = cutoff.tenths()["within_bounds"], _colour(place, len(judged))
        drawn.plot(range(1, 11), held, marker="o", markersize=4, color=colour, label=str(cutoff.as_of))
    for stated in sorted({cutoff.interval for cutoff in judged if cutoff.interval is not None}):
        drawn.axhline(stated, color=RIVAL, linewidth=1, linestyle="--", label=f"as stated, {100 * stated:g} %")
    drawn.set_ylim(0, 1.02)
    drawn.xaxis.set_major_locator(MaxNLocator(integer=True))
    shares(drawn.yaxis)
    legend(drawn)
    return figure


def sensitivity(measured: Sensitivity) -> Figure:
    """Who would have left by horizon, cutoff after cutoff; beside it who of them came back."""
    with styled():
        figure = Figure(figsize=(2 * SIZE[0], SIZE[1]), layout="constrained")
        over_time, back = figure.subplots(1, 2)
        for place, definition in enumerate(measured.definitions):
            days, rates = list(definition.rates), list(definition.rates.values())
            colour = _BY_CUTOFF[place % len(_BY_CUTOFF)]
            over_time.plot(days, rates, marker="o", markersize=4, color=colour, label=f"{definition.horizon} days")
        over_time.set(ylabel="active customers who left", ylim=(0, 1))
        over_time.tick_params(axis="x", rotation=45)
        legend(over_time, title="no purchase in")
        known = [definition for definition in measured.definitions if definition.came_back is not None]
        back.bar([str(d.horizon) for d in known], [d.came_back or 0.0 for d in known], color=EXPECTED)
        back.set(xlabel="days without a purchase", ylabel=f"came back in the {FOLLOW_UP} days after")
        shares(over_time.yaxis, back.yaxis)
    return figure
