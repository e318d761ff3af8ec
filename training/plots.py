"""Pictures of a backtest, for where people look rather than read."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
from numpy.typing import NDArray

from training.metrics import decile_table, reliability_table
from training.sensitivity import Sensitivity

matplotlib.use("Agg")  # no screen is needed, and none is looked for

from matplotlib import pyplot as plt

Floats = NDArray[np.floating]
_SIZE = (5.5, 4.2)


def calibration(actual: Floats, predicted: Floats, path: Path, what: str) -> None:
    """Actual rate against predicted probability, in ten bins of equally many."""
    table = reliability_table(actual, predicted)
    figure, axes = plt.subplots(figsize=_SIZE, layout="constrained")
    axes.plot([0, 1], [0, 1], color="grey", linewidth=1, linestyle="--", label="perfectly calibrated")
    axes.plot(table.predicted, table.actual, marker="o", label="tenths of the customers")
    axes.set(xlabel=f"predicted probability of {what}", ylabel="what happened", title="Calibration on the backtest")
    axes.legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def lift(actual: Floats, predicted: Floats, path: Path, what: str) -> None:
    """Share of all that happened which the best-ranked customers hold."""
    order = np.argsort(-predicted, kind="stable")
    reached = np.concatenate([[0], np.cumsum(actual[order]) / max(actual.sum(), 1e-12)])
    figure, axes = plt.subplots(figsize=_SIZE, layout="constrained")
    share = np.linspace(0, 1, len(reached))
    axes.plot(share, reached, label="ranked by the model")
    axes.plot([0, 1], [0, 1], color="grey", linewidth=1, linestyle="--", label="ranked by chance")
    axes.set(
        xlabel="share of customers, best ranked first", ylabel=f"share of all {what}", title="Lift on the backtest"
    )
    axes.legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def deciles(actual: Floats, predicted: Floats, path: Path, what: str) -> None:
    """Mean predicted beside mean actual, by tenth of the prediction."""
    table = decile_table(actual, predicted)
    tenth = np.arange(1, len(table.predicted) + 1)
    figure, axes = plt.subplots(figsize=_SIZE, layout="constrained")
    axes.bar(tenth - 0.2, table.predicted, width=0.4, label="predicted")
    axes.bar(tenth + 0.2, table.actual, width=0.4, label="actual")
    axes.set(
        xlabel="tenth of customers, highest predicted first", ylabel=f"mean {what}", title="Tenths on the backtest"
    )
    axes.legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def sensitivity(found: Sensitivity, path: Path) -> None:
    """Who would have left by horizon, cutoff after cutoff; beside it who of them came back."""
    figure, (over_time, back) = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
    for definition in found.definitions:
        over_time.plot(
            list(definition.rates), list(definition.rates.values()), marker="o", label=f"{definition.horizon} days"
        )
    over_time.set(ylabel="share of active customers who left", title="By cutoff", ylim=(0, 1))
    over_time.tick_params(axis="x", rotation=45)
    over_time.legend(title="no purchase in")
    known = [definition for definition in found.definitions if definition.came_back is not None]
    back.bar([f"{d.horizon}" for d in known], [d.came_back or 0.0 for d in known])
    back.set(xlabel="days without a purchase", ylabel="share who bought in the 90 days after", title="Came back")
    figure.savefig(path, dpi=120)
    plt.close(figure)
