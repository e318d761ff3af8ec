"""Why rows are not counted, and what to do about it, in the reader's language: docs/tables.md says it at length."""

from __future__ import annotations

import re
from typing import NamedTuple

from serving.desk.language import Language


def _(text: str) -> str:
    """Marks a text for the catalogue."""
    return text


# A fault as ingest writes it, what it is, and what to do; the first that fits says it.
_FAULTS: tuple[tuple[str, str, str], ...] = (
    (r"no (?P<column>\w+)", _("%(column)s is empty"),
     _("Fill it in at the source. Drop rows that are meant to be so with `where`.")),
    (r"further line without (?P<column>\w+)", _("%(column)s is empty, but another line of the same order has it"),
     _("Name the columns that only the first line of an order has in `fill_down`.")),
    (r"(?P<column>\w+) is longer than \d+ characters", _("%(column)s is too long to be an id"),
     _("See which column of the source is mapped to it.")),
    (r"(?P<column>\w+) has a control character in it", _("%(column)s has a character in it that nobody can see"),
     _("See which column of the source is mapped to it, and the `encoding` of the file.")),
    (r"(?P<column>\w+) is not a time", _("%(column)s is not a time that can be read"),
     _("Say how the source writes it: `try_strptime(column, format)`.")),
    (r"(?P<column>\w+) is not a number", _("%(column)s is not a number"),
     _("Convert it in `columns`: a decimal comma, a unit or a currency sign makes it a text.")),
    (r"(?P<column>\w+) is not true or false", _("%(column)s is neither true nor false"),
     _("Compare it with the source's own word in `columns`, as in `column = 'oui'`.")),
    (r"(?P<column>\w+) is in the future", _("It happened later than the clock says"),
     _("Check `timezone`. A booking for a later day comes in by itself when its time has come.")),
    (r"(?P<column>\w+) is before \d+", _("Its time is the zero of some system's clock"),
     _("Mend it at the source.")),
    (r"absurd amount", _("Its amount is larger than anybody pays"), _("Mend it at the source.")),
    (r"unknown customer", _("Its customer is not in the table of customers"),
     _("Bring `customers` up to date, or say `complete: false` there.")),
    (r"duplicate line", _("The same line is there more than once"),
     _("Nothing, where it was exported twice. If equal lines are real purchases, say `duplicates: keep`.")),
    (r"duplicate (?P<column>\w+)", _("%(column)s is there more than once"),
     _("Nothing, where it was exported twice; else give each row an id of its own at the source.")),
    (r"already in another source", _("An earlier source had the line already"),
     _("Nothing: exports may overlap.")),
    (r"replaced by a later source", _("A later source gives it anew"), _("Nothing: the later one counts.")),
    (r"erased customer", _("Its customer was erased on request"), _("Nothing: it is kept nowhere.")),
)  # fmt: skip


class Fault(NamedTuple):
    """What is wrong with rows, and what to do about it; empty where nobody knows."""

    says: str
    todo: str


def in_words(spoken: Language, reason: str) -> Fault:
    """As it stands where no words for it are known."""
    for pattern, says, todo in _FAULTS:
        if read := re.fullmatch(pattern, reason):
            columns = {name: value for name, value in read.groupdict().items() if f"%({name})s" in says}
            return Fault(spoken.say(says, **columns), spoken.say(todo))
    return Fault(reason, "")
