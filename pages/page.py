"""Pages of HTML from the templates beside: whatever is shown is escaped, and a page needs nothing but itself."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

# A number, an interval or two, with their units; a date is none.
_NUMBER = re.compile(r"(?!\d{4}-\d\d)[~+−-]?\d(?:[\d.,:%()~+− -]|to|points|s)*")
_NOTHING = ("", "-", "–")
_LONG = 40  # characters from which a cell is a sentence, which may take several lines


@dataclass(frozen=True)
class Cell:
    """A cell, or the head of a column: `below` stands small under its text, `hint` appears where a mouse rests."""

    text: str
    below: str = ""
    hint: str = ""
    is_best: bool = False


@dataclass(frozen=True)
class Table:
    """Rows of cells under as many heads; the first cell of a row names it. The rows at `marked` stand out.

    `title` stands above the table where it has one, `note` under the title.
    """

    heads: Sequence[str | Cell]
    rows: Sequence[Sequence[str | Cell]]
    title: str = ""
    note: str = ""
    marked: Collection[int] = ()

    @property
    def looks(self) -> list[str]:
        """Of each column, how its cells stand: numbers to the right, sentences with room, all else to the left."""
        columns = range(1, len(self.heads))
        return ["text", *(_look([_text(row[place]) for row in self.rows]) for place in columns)]


def _text(cell: str | Cell) -> str:
    return cell if isinstance(cell, str) else cell.text


def _look(texts: Sequence[str]) -> str:
    if all(text in _NOTHING or _NUMBER.fullmatch(text) for text in texts) and not all(
        text in _NOTHING for text in texts
    ):
        return "number"
    return "long" if any(len(text) > _LONG for text in texts) else "text"


def render(template: str, **shown: Any) -> str:
    """The page that a template of this folder makes of what it is given.

    Raises:
        jinja2.UndefinedError: the template shows something that it was not given.
    """
    return _templates().get_template(template).render(shown)


@cache
def _templates() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"capital": _capital, "sentence": lambda text: f"{_capital(text)}."}
    return environment


def _capital(text: str) -> str:
    """With the first letter, and no other, in upper case."""
    return f"{text[:1].upper()}{text[1:]}"
