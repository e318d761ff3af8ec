"""A short tour of the desk: a sentence on each of its pages, one leading to the next."""

from __future__ import annotations

from typing import NamedTuple

from serving.desk.language import Language
from serving.http.keys import Role


def _(text: str) -> str:
    """Marks a text for the catalogue."""
    return text


_ALL: tuple[Role, ...] = ("crm", "marketing", "admin")
_LISTS: tuple[Role, ...] = ("marketing", "admin")
_STOPS: tuple[tuple[str, tuple[Role, ...], str], ...] = (
    ("/desk/", _ALL, _("Home says what matters this week: how much money is at risk, what changed, how right earlier"
                       " predictions were, and what needs a look.")),
    ("/desk/lists/churn-risk", _LISTS, _("This is whom to contact first. Choose a region or a band: the sentence above"
                                         " the list follows, and the spreadsheet holds what the screen shows.")),
    ("/desk/lists/win-back", _LISTS, _("Who has left already, what they spent and used to buy.")),
    ("/desk/lists/cross-sell", _LISTS, _("Choose an offer, and see who most likely buys it.")),
    ("/desk/customers", _ALL, _("Before a call: find the customer here, and read why they may leave and what to say"
                                " first.")),
    ("/desk/trust", _ALL, _("How far each number can be trusted, and what came of earlier ones. That was the tour.")),
)  # fmt: skip


class Stop(NamedTuple):
    """What is said on a page, as which of how many, and the address of the next; none on the last."""

    says: str
    number: int
    of: int
    following: str | None


def begins(role: Role) -> str:
    """Where a tour begins for who has this role."""
    return f"{_stops(role)[0][0]}?tour=1"


def stop(spoken: Language, role: Role, asked: str, path: str) -> Stop | None:
    """The stop that an address asks for, if it is one of this page."""
    stops = _stops(role)
    if not asked.isascii() or not asked.isdigit() or not 1 <= int(asked) <= len(stops):
        return None
    number = int(asked)
    address, _who, says = stops[number - 1]
    if path != address:
        return None
    following = f"{stops[number][0]}?tour={number + 1}" if number < len(stops) else None
    return Stop(spoken.say(says), number, len(stops), following)


def _stops(role: Role) -> list[tuple[str, tuple[Role, ...], str]]:
    return [one for one in _STOPS if role in one[1]]
