"""Pictures of a page: drawn by matplotlib, in one size, with the same colours for the same things everywhere."""

from __future__ import annotations

import base64
import io
import textwrap
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, PercentFormatter

SIZE = (5.2, 3.7)  # inches
EXPECTED, ACTUAL, RIVAL, GREY = "#1f5fa8", "#e08a1e", "#7a8794", "#b8c1ca"
_STYLE: Any = {
    "font.size": 10.5, "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": "#8f9aa5",
    "axes.labelcolor": "#3c4650", "xtick.color": "#56616d", "ytick.color": "#56616d", "axes.grid": True,
    "grid.color": "#e6eaee", "axes.axisbelow": True, "legend.frameon": False, "svg.hashsalt": "perennial",
    "text.parse_math": False,
}  # fmt: skip
_NAMED = 12  # places that have their names below, at most


@dataclass(frozen=True)
class Picture:
    """`address` holds the picture itself; `alt` says what it shows to who cannot see it."""

    caption: str
    alt: str
    address: str


def styled() -> AbstractContextManager[None]:
    """In its block figures are drawn as they look everywhere."""
    return rc_context(_STYLE)


def drawn(figure: Figure) -> bytes:
    """The figure as SVG; the same figure is the same bytes."""
    held = io.BytesIO()
    with styled():
        figure.savefig(held, format="svg", transparent=True, metadata={"Date": None})
    return held.getvalue()


def picture(svg: bytes, caption: str, alt: str | None = None) -> Picture:
    """What was drawn, for a page."""
    return Picture(caption, alt or caption, f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}")


def axes(xlabel: str = "", ylabel: str = "") -> tuple[Figure, Axes]:
    figure = Figure(figsize=SIZE, layout="constrained")
    drawn = figure.subplots()
    drawn.set(xlabel=xlabel, ylabel=ylabel)
    return figure, drawn


def legend(drawn: Axes, title: str | None = None) -> None:
    """Above the axes, where no bar and no line is; three short names a row, or two."""
    longest = max(len(label) for label in drawn.get_legend_handles_labels()[1])
    columns = 3 if longest <= 8 else 2
    drawn.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=columns, title=title, borderaxespad=0.2)


def shares(*sides: Any) -> None:
    """Per cent along these sides of the axes."""
    for side in sides:
        side.set_major_formatter(PercentFormatter(1))


def beside(
    names: Sequence[str], expected: Sequence[float], actual: Sequence[float], ylabel: str, xlabel: str = ""
) -> Figure:
    """Two bars at each name: what was expected and, beside it, what happened."""
    figure, drawn = axes(xlabel, ylabel)
    place = np.arange(len(names))
    drawn.bar(place - 0.2, expected, 0.38, color=EXPECTED, label="expected")
    drawn.bar(place + 0.2, actual, 0.38, color=ACTUAL, label="actual")
    _finish(drawn, names)
    legend(drawn)
    return figure


def bars(names: Sequence[str], counts: Sequence[float]) -> Figure:
    """A bar at each name."""
    with styled():
        figure, drawn = axes()
        drawn.bar(np.arange(len(names)), counts, 0.8, color=EXPECTED)
        _finish(drawn, names)
    return figure


def _finish(drawn: Axes, names: Sequence[str]) -> None:
    """Amounts as 10k; every name below its bars, or every second, third ... so that none lies over the next."""
    every = -(-len(names) // _NAMED)
    place = range(0, len(names), every)
    slanted = sum(map(len, names)) > 40
    shown = [names[at] if slanted else textwrap.fill(names[at], 12) for at in place]
    drawn.set_xticks(place, shown, rotation=35 if slanted else 0, ha="right" if slanted else "center",
                     rotation_mode="anchor" if slanted else "default")  # fmt: skip
    beyond = 0.6 + max(0, 3 - len(names)) / 2  # one bar alone does not fill the picture
    drawn.set_xlim(-beyond, len(names) - 1 + beyond)
    drawn.yaxis.set_major_formatter(EngFormatter(sep=""))
    drawn.grid(visible=False, axis="x")
