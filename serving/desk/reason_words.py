"""Reasons, and why something is not there, in the reader's language.

Answers hold them as English sentences, as they were published. Each is read back by the template that it was made
from, and said again with its values as the language writes them.
"""

from __future__ import annotations

import re
from functools import cache, lru_cache
from typing import NamedTuple

from serving.desk.language import Language, language


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
    _("reviews in the last %(days)s: %(number)s"),
    _("inquiries in the last %(days)s: %(number)s"),
    _("surveys in the last %(days)s: %(number)s"),
    _("calls in the last %(days)s: %(number)s"),
    _("%(words)s is %(words_value)s"),
)
# Why a customer has no score, or nothing can be answered.
REFUSALS = (
    _("no consent to profiling"),
    _("no purchase yet"),
    _("already churned: cancelled"),
    _("already churned: no purchase in the last %(days)s"),
    _("already churned: silent for over %(number)s times the usual gap"),
    _("cancelled"),
    _("no purchase in the last %(days)s"),
    _("silent for over %(number)s times the usual gap"),
    _("too little history: fewer than %(purchases)s"),
    _("min_value %(number)s is above max_value %(number_max)s: nobody's value is between them"),
    _("%(words)s: no customer has it"),
    _("%(words)s: nobody bought of it in 365 days"),
    _("%(words)s: it is offered to nobody"),
    _("%(words)s: there is none of this name"),
    _("%(words)s: nobody's is shown: %(why)s"),
    _("the nearest is %(words)s"),
    _("the nearest are %(words)s"),
    _("there are none"),
    _("this takes a key of another role: %(words)s"),
    _("this is of the whole shop, and you see a part of it: ask with a key that is not limited"),
    _("this form is not of your session: open the page again, and send it"),
    _("come again in %(number)s s"),
    _("no customer with this id was known at the published as_of"),
    _("nothing is held of a customer with this id"),
    _("this is no customer's id"),
    _("a spreadsheet holds %(number)s rows, and this list has %(number_rows)s: add a rule"),
    _("there is no report %(words)s"),
    _("there is no list %(words)s"),
    _("choose a purpose, and whether the customer agrees to it"),
    _("the audit log cannot be written, and nothing is shown without it"),
    _("no amount is shown: in the backtest %(why)s at the worst cutoff, more than the %(number)s allowed, and no other"
      " contender with an order is nearer"),
    _("probabilities are off by %(number)s of their mean"),
    _("probabilities are off by %(number)s"),
    _("the total is off by %(number)s"),
)  # fmt: skip
# Of a reason for a value: whether the customer is worth more or less for it.
MARKS = {"more: ": _("worth more: %(reason)s"), "less: ": _("worth less: %(reason)s")}
_NUMBER = r"-?[\d,.]*\d%?"
# By the kind of a place, which its name begins with: how English writes it.
_WRITTEN = {
    "days": rf"{_NUMBER} days?", "times": rf"once|{_NUMBER} times", "purchases": rf"{_NUMBER} purchases?",
    "visits": rf"{_NUMBER} visits?", "complaints": rf"{_NUMBER} complaints? (?:is|are)",
    "money": rf"{_NUMBER} [A-Z]{{3}}", "categories": rf"{_NUMBER} categor(?:y|ies)", "number": _NUMBER, "words": ".+?",
    "why": ".+?",
}  # fmt: skip
_PLACE = re.compile(r"%\((\w+)\)s")


class _Template(NamedTuple):
    text: str
    pattern: re.Pattern[str]


def in_language(spoken: Language, reason: str) -> str:
    """The reason as the language says it, of a value with whether it speaks for more; as it stands where it is of no
    template."""
    return _reason(spoken.code, reason)


def refusal_in_language(spoken: Language, refusal: str) -> str:
    """Why something is not there, as the language says it; what is of no template as it stands."""
    if spoken.code == "en":
        return refusal
    return "；".join(_read_back(spoken, part, REFUSALS) for part in refusal.split("; "))


@lru_cache(maxsize=65_536)  # many customers are told the same
def _reason(code: str, reason: str) -> str:
    spoken = language(code)
    if mark := next((mark for mark in MARKS if reason.startswith(mark)), ""):
        return spoken.say(MARKS[mark], reason=_reason(code, reason.removeprefix(mark)))
    return reason if code == "en" else _read_back(spoken, reason, TEMPLATES)


def _read_back(spoken: Language, text: str, among: tuple[str, ...]) -> str:
    for template in _templates(among):
        if read := template.pattern.fullmatch(text):
            values = {place: _said(spoken, place.split("_")[0], own) for place, own in read.groupdict().items()}
            return spoken.say(template.text, **values)
    return text


@cache
def _templates(texts: tuple[str, ...]) -> tuple[_Template, ...]:
    return tuple(_Template(text, re.compile(_pattern(text))) for text in texts)


def _pattern(text: str) -> str:
    pieces = _PLACE.split(text)  # what stands between, and in every second place a name
    return "".join(
        f"(?P<{piece}>{_WRITTEN[piece.split('_')[0]]})" if place % 2 else re.escape(piece)
        for place, piece in enumerate(pieces)
    )


def _said(spoken: Language, kind: str, text: str) -> str:
    if kind == "words":
        return text
    if kind == "why":
        return _read_back(spoken, text, REFUSALS)
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
