"""Reasons in the reader's language.

Answers hold them as English sentences, as they were published. Each is read back by the template that it was made
from, and said again with its values as the language writes them.
"""

from __future__ import annotations

import re
from functools import cache
from typing import NamedTuple

from serving.desk.language import Language


def _(text: str) -> str:
    """Marks a text for the catalogue."""
    return text


# In the order in which they are tried: what another begins with comes behind it.
TEMPLATES = (
    _("has been silent %(days)s, longer than ever; usually returns after %(days_usual)s"),
    _("has been silent %(days)s; usually returns after %(days_usual)s"),
    _("has been silent %(days)s, longer than ever; came back within %(days_usual)s before"),
    _("bought for the first time %(days)s ago"),
    _("bought only once, %(days)s ago"),
    _("buys rarely: usually returns after %(days)s"),
    _("buys rarely: %(times)s in %(days)s"),
    _("bought on only %(days)s of the last year"),
    _("bought on %(days)s of the last year"),
    _("bought nothing in the last year"),
    _("bought nothing in the last 90 days, %(times)s in the 90 before"),
    _("buys less often: %(purchases)s in the last 90 days, %(number)s in the 90 before"),
    _("spends less: %(money)s in the last 90 days, %(money_before)s in the 90 before"),
    _("spent only %(money)s in the last year; half of the customers %(money_usual)s or more"),
    _("spent %(money)s in the last year"),
    _("bought nothing a year ago in the 90 days that come now"),
    _("bought %(times)s a year ago in the 90 days that come now"),
    _("has not visited for %(days)s"),
    _("visits less often: %(visits)s in the last 30 days, %(number)s in the 60 before"),
    _("%(visits)s in the last 90 days"),
    _("no visit in the last 90 days"),
    _("complained %(days)s ago; %(complaints)s still open"),
    _("complained %(days)s ago"),
    _("last rating was %(number)s; half of those who rate gave %(number_usual)s or more"),
    _("last rating was %(number)s"),
    _("sent back more than was bought in the last year"),
    _("sent back goods worth %(number)s of the last year's purchases"),
    _("%(number)s of the last year's price was discount"),
    _("bought from only %(categories)s in the last year"),
    _("bought from %(categories)s in the last year"),
    _("has been a customer for only %(days)s"),
    _("has been a customer for %(days)s"),
    _("last bought %(days)s ago"),
    _("cancelled %(days)s ago"),
    _("opened no e-mail in the last 90 days, %(number)s in the 275 before"),
    _("redeemed no coupon in the last 90 days, %(number)s in the 275 before"),
    _("%(words)s is %(words_value)s"),
)
_NUMBER = r"-?[\d,.]*\d%?"
# By the kind of a place, which its name begins with: how English writes it.
_WRITTEN = {
    "days": rf"{_NUMBER} days?", "times": rf"once|{_NUMBER} times", "purchases": rf"{_NUMBER} purchases?",
    "visits": rf"{_NUMBER} visits?", "complaints": rf"{_NUMBER} complaints? (?:is|are)",
    "money": rf"{_NUMBER} [A-Z]{{3}}", "categories": rf"{_NUMBER} categor(?:y|ies)", "number": _NUMBER, "words": ".+?",
}  # fmt: skip
_PLACE = re.compile(r"%\((\w+)\)s")


class _Template(NamedTuple):
    text: str
    pattern: re.Pattern[str]


def in_language(spoken: Language, reason: str) -> str:
    """The reason as the language says it; as it stands where it is of no template, or English."""
    if spoken.code == "en":
        return reason
    for template in _templates():
        if read := template.pattern.fullmatch(reason):
            values = {place: _said(spoken, place.split("_")[0], text) for place, text in read.groupdict().items()}
            return spoken.say(template.text, **values)
    return reason


@cache
def _templates() -> tuple[_Template, ...]:
    return tuple(_Template(text, re.compile(_pattern(text))) for text in TEMPLATES)


def _pattern(text: str) -> str:
    pieces = _PLACE.split(text)  # what stands between, and in every second place a name
    return "".join(
        f"(?P<{piece}>{_WRITTEN[piece.split('_')[0]]})" if place % 2 else re.escape(piece)
        for place, piece in enumerate(pieces)
    )


def _said(spoken: Language, kind: str, text: str) -> str:
    if kind == "words":
        return text
    number = 1.0 if text == "once" else float(re.sub(r"[^\d.-]", "", text))
    match kind:
        case "days":
            return spoken.count("%(number)s day", "%(number)s days", round(number))
        case "times":
            return spoken.count("%(number)s time", "%(number)s times", round(number))
        case "purchases":
            return spoken.count("%(number)s purchase", "%(number)s purchases", round(number))
        case "visits":
            return spoken.count("%(number)s visit", "%(number)s visits", round(number))
        case "complaints":
            return spoken.count("%(number)s complaint", "%(number)s complaints", round(number))
        case "categories":
            return spoken.count("%(number)s category", "%(number)s categories", round(number))
        case "money":
            return spoken.money(number, text[-3:])
        case _:
            return text
