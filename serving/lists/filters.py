"""What a filter of a list asks for, among what there is: by its type, in any case, and never quietly nothing."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import date, datetime
from difflib import get_close_matches

from workspace.settings import SettingsError

_YES, _NO = frozenset({"true", "yes", "y", "t", "1"}), frozenset({"false", "no", "n", "f", "0"})
_SHOWN = 5

Stored = str | float
Reads = Callable[[str], object]


class NoSuchFilter(SettingsError):
    """A filter, or a cursor, that this list does not have; `nearest` are those that it has."""

    def __init__(self, message: str, nearest: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.nearest = list(nearest)


def of_attribute(what: str, asked: str, attributes: Sequence[str]) -> tuple[str, str]:
    """The attribute and the value that `name:value` asks for; the value may be empty.

    Raises:
        NoSuchFilter: it is nothing of the kind, or there is no such attribute; those that there are are named.
    """
    own_name, separator, value = asked.partition(":")
    if not separator or not attributes:
        there = ", ".join(attributes) or "none"
        raise NoSuchFilter(f"{what} {asked!r} is not `name:value` of an attribute; there are: {there}")
    return name("attribute", own_name, attributes), value.strip()


def chosen(what: str, asked: str, stored: Sequence[Stored], none: str = "no customer has it") -> list[Stored]:
    """Those of the `stored` values that `asked` means: several where the shop spells one in several ways.

    Numbers are compared as numbers, days as days, yes and no as such, and texts without regard to case, blanks around
    them and how their accents are encoded.

    Raises:
        NoSuchFilter: none is meant, which `none` puts in words; the nearest ones are named.
    """
    meant = alike(asked, stored)
    if not meant:
        raise _none_such(f"{what} {asked!r}: {none}", asked, stored)
    return meant


def alike(asked: str, stored: Sequence[Stored]) -> list[Stored]:
    """The same, empty where none is meant."""
    reads = _reading(stored)
    meant = reads(asked)
    return [] if meant is None else [value for value in stored if reads(as_text(value)) == meant]


def name(what: str, asked: str, known: Sequence[str]) -> str:
    """The one of `known` names that is meant.

    Raises:
        NoSuchFilter: there is no such name; the nearest ones are named.
    """
    own_name = next((own for own in known if _folded(own) == _folded(asked)), None)
    if own_name is None:
        raise _none_such(f"{what} {asked!r}: there is none of this name", asked, known)
    return own_name


def _none_such(problem: str, asked: str, there: Sequence[Stored]) -> NoSuchFilter:
    nearest = _near(asked, there)
    named = f"the nearest {'is' if len(nearest) == 1 else 'are'} {', '.join(nearest)}" if nearest else "there are none"
    return NoSuchFilter(f"{problem}; {named}", nearest)


def _near(asked: str, there: Sequence[Stored]) -> list[str]:
    """The nearest of what there is, at most five: numbers by their distance, texts by their letters."""
    if there and not isinstance(there[0], str):
        number, values = _number(asked), sorted(map(float, there))
        far = values if number is None else sorted(values, key=lambda value: abs(value - number))
        return [as_text(value) for value in sorted(far[:_SHOWN])]
    by_folded = {_folded(str(value)): str(value) for value in reversed(there)}
    near = get_close_matches(_folded(asked), by_folded, _SHOWN, cutoff=0.5)
    return [by_folded[text] for text in near] or sorted(by_folded.values())[:_SHOWN]


def _reading(stored: Sequence[Stored]) -> Reads:
    """How values like these are understood; what cannot be understood so is None."""
    if stored and not isinstance(stored[0], str):
        return _number
    texts = {_folded(str(value)) for value in stored}
    if texts and texts <= _YES | _NO:
        return _yes
    if texts and all(_day(text) for text in texts):
        return _day
    return _folded


def as_text(value: Stored) -> str:
    """A value as a filter takes it."""
    return value if isinstance(value, str) else f"{value:.10g}"


def _folded(text: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).strip().casefold())


def _number(text: str) -> float | None:
    """A number that can be held against others: neither nan, to which none is near, nor an infinity."""
    with suppress(ValueError):
        return number if math.isfinite(number := float(text)) else None
    return None


def _yes(text: str) -> bool | None:
    folded = _folded(text)
    return True if folded in _YES else False if folded in _NO else None


def _day(text: str) -> date | None:
    with suppress(ValueError):
        return datetime.fromisoformat(text.strip()).date()
    return None
