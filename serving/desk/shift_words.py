"""What has moved, and how, in the reader's language: from what a look for drift notes of each shift."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from features.families.catalogue import Feature
from serving.desk import words
from serving.desk.language import Language


def _(text: str) -> str:
    """Marks a text for the catalogue."""
    return text


_PREDICTED = {
    "churn_probability": _("the predicted risk of leaving"),
    "expected_purchases": _("the purchases that are expected"),
    "lifetime_value": _("the value that is expected"),
}
# What is looked at in the rows of the last month, by what follows the name of a table or a column.
_OF_ROWS = (
    (r"(?P<table>\w+)", _("%(table)s: how many rows come in")),
    (r"(?P<table>\w+) since", _("%(table)s: how long ago the last row came")),
    (r"(?P<table>\w+) lines", _("%(table)s: rows that are there more than once")),
    (r"(?P<table>\w+)\.(?P<column>\w+)", _("%(table)s: what is in %(column)s")),
    (r"(?P<table>\w+)\.(?P<column>\w+) empty", _("%(table)s: rows without %(column)s")),
    (r"(?P<table>\w+)\.(?P<column>\w+) new", _("%(table)s: values of %(column)s that were never there before")),
    (r"(?P<table>\w+)\.(?P<column>\w+) tail", _("%(table)s: the largest values of %(column)s")),
)
_OTHERWISE = _("other values, or the same in other shares")
# By how it is compared; `before` and `after` are written as the second word says.
_HOW = {
    "values": (_("%(before)s on average, now %(after)s"), "number"),
    "presence": (_("known of %(before)s of the customers, now of %(after)s"), "share"),
    "missing": (_("empty in %(before)s of the rows, now in %(after)s"), "share"),
    "new": (_("new in %(before)s of the rows, now in %(after)s"), "share"),
    "repeated": (_("%(before)s of the rows, now %(after)s"), "share"),
    "tail": (_("one in a hundred was above %(before)s, now above %(after)s"), "number"),
    "volume": (_("%(before)s rows a day, now %(after)s"), "number"),
    "pause": (_("%(before)s days before the look, now %(after)s"), "days"),
}


def what(spoken: Language, name: str, features: Mapping[str, Feature]) -> str:
    """What a feature is, as its family declares it; a prediction, or something about the rows, in words."""
    if name in _PREDICTED:
        return spoken.say(_PREDICTED[name])
    if name in features:
        return features[name].meaning
    for pattern, text in _OF_ROWS:
        if (read := re.fullmatch(pattern, name)) and read["table"] in words.TABLES:
            return spoken.say(text, **read.groupdict() | {"table": spoken.say(words.TABLES[read["table"]])})
    return name


def how(spoken: Language, shift: Mapping[str, Any]) -> str:
    """From what to what it has moved."""
    if shift["before"] is None or shift["after"] is None or shift["compared"] not in _HOW:
        return spoken.say(_OTHERWISE)
    text, written = _HOW[shift["compared"]]
    return spoken.say(text, before=_figure(spoken, shift["before"], written),
                      after=_figure(spoken, shift["after"], written))  # fmt: skip


def _figure(spoken: Language, value: float, written: str) -> str:
    match written:
        case "share":
            return spoken.percent(value, 1)
        case "days":
            return spoken.number(value)
    return spoken.number(value, 0 if abs(value) >= 100 else 2)
