"""Pictures: the same everywhere, said in words, and nothing lies over a bar or a name."""

from __future__ import annotations

import base64
from itertools import pairwise

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pages import picture


def drawn(figure: Figure) -> FigureCanvasAgg:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return canvas


def test_a_picture_is_in_the_page_itself_and_the_same_again() -> None:
    """As SVG, without a date: a page that is written again is the same page."""
    first, again = (
        picture.picture(picture.drawn(picture.bars(["a", "b"], [1, 2])), "Two bars", "a 1, b 2") for _ in range(2)
    )
    assert first == again
    assert (first.caption, first.alt) == ("Two bars", "a 1, b 2")
    kind, _, data = first.address.partition(",")
    assert kind == "data:image/svg+xml;base64"
    assert b"<svg" in base64.b64decode(data)
    assert picture.picture(picture.drawn(picture.bars(["a"], [1])), "One bar").alt == "One bar"


@pytest.mark.parametrize("count", [1, 2, 4, 12, 30])
def test_the_legend_lies_over_no_bar(count: int) -> None:
    """It stands above the axes, however many bars are as high as can be."""
    with picture.styled():
        figure = picture.beside([str(n) for n in range(count)], [1.0] * count, [1.0] * count, "share")
    canvas = drawn(figure)
    (axes,) = figure.axes
    legend = axes.get_legend()
    assert legend is not None
    assert legend.get_window_extent(canvas.get_renderer()).y0 >= axes.get_window_extent().y1
    assert legend.get_window_extent(canvas.get_renderer()).x1 <= figure.bbox.x1


@pytest.mark.parametrize("count", [1, 3, 8, 37, 120])
def test_no_name_lies_over_the_next(count: int) -> None:
    """Of many months every second, third ... is named; slanted ones are further apart than their lines are high."""
    figure = picture.bars([f"{2015 + month // 12}-{month % 12 + 1:02}" for month in range(count)], [1.0] * count)
    drawn(figure)
    (axes,) = figure.axes
    labels = axes.get_xticklabels()
    assert 1 <= len(labels) <= 12
    boxes = [label.get_window_extent() for label in labels]
    if labels[0].get_rotation():
        assert all(after.x1 - before.x1 > labels[0].get_fontsize() for before, after in pairwise(boxes))
    else:
        assert all(after.x0 > before.x1 for before, after in pairwise(boxes))
    assert all(figure.bbox.x0 <= box.x0 and box.y0 >= figure.bbox.y0 for box in boxes)
