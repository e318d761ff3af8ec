"""Pages: what is shown is escaped, and one table does for all."""

from __future__ import annotations

import jinja2
import pytest
from markup import HOSTILE, sound, tables

from pages.page import Cell, Table, render
from pages.picture import Picture


def page(**shown: object) -> str:
    """The smallest page that has lines of text, and tables: that of offers which were judged."""
    empty = {"title": "Outcomes", "lead": "one", "notes": [], "roles": [], "offers": None}
    return render("outcomes.html", **empty | shown)


@pytest.mark.parametrize("name", HOSTILE)
def test_whatever_a_shop_calls_something_is_text(name: str) -> None:
    """In a title, a sentence, a head, a cell, what stands small under it and where a mouse rests."""
    cell = Cell(name, below=name, hint=name, is_best=True)
    table = Table(("", cell), [[name, cell]], name, name)
    shown = Picture(name, name, "data:image/svg+xml;base64,")
    html = sound(page(title=name, lead=name, notes=[name], roles=[(name, [shown], [table])]))
    (title,) = html.all("title")
    assert title.text == name
    assert tables(html) == [[["", name], [name, name]]]
    assert [tag.attributes["title"] for tag in html.all("th", "td") if "title" in tag.attributes] == [name, name]
    assert [tag.attributes["alt"] for tag in html.all("img")] == [name]
    assert [tag.text for tag in html.all("figcaption")] == [name]
    (box,) = (tag for tag in html.all("div") if tag.attributes["class"] == "wide")
    assert box.attributes["aria-label"] == name


def test_what_a_template_was_not_given_is_no_gap_on_a_page() -> None:
    """A misspelt name is an error, not an empty sentence."""
    with pytest.raises(jinja2.UndefinedError, match="lead"):
        render("outcomes.html", title="Outcomes")


@pytest.mark.parametrize(("cells", "look"), [
    (["1,234", "-5%", "~12", "–", ""], "number"), (["+0.3 (0.1 to 0.5)", "-"], "number"), (["-", "–"], "text"),
    (["2024-01-01", "2024-02-01"], "text"), (["1,234", "two"], "text"), (["3 rows", "1 row"], "text"),
    (["5 points, 10 points"], "number"), (["42.0%-51.4%", "12.3 s"], "number"),
    (["a sentence with more room " * 2], "long"),
])  # fmt: skip
def test_numbers_stand_right_and_sentences_have_room(cells: list[str], look: str) -> None:
    """By what a column holds; a date is no number, nor is a column of nothing."""
    assert Table(("", "x"), [["row", cell] for cell in cells]).looks[1] == look


def test_a_marked_row_is_marked_and_no_other() -> None:
    """Rows that need a look stand out."""
    table = Table(("", "x"), [["a", "1"], ["b", "2"]], "Both", marked=[1])
    html = sound(page(roles=[("champion", [], [table])]))
    assert [row.attributes.get("class") for row in html.all("tr")] == [None, None, "marked"]


def test_a_page_with_nothing_to_show_is_still_one() -> None:
    """One heading, a title, and how to read what will be there."""
    html = sound(page())
    assert [tag.text for tag in html.all("h1")] == ["Did the predictions come true?"]
