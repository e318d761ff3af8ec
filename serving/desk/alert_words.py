"""What needs a look, in the reader's language: what an alert is about, what to do about it, and where."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from serving.desk import words
from serving.desk.language import Language
from serving.desk.visit import ADMIN, EVERYBODY
from serving.http.keys import Role


def _(text: str) -> str:
    """Marks a text for the catalogue."""
    return text


@dataclass(frozen=True)
class Look:
    """One thing. `detail` is as the run noted it; `address` is the page for it, empty where there is none for the role.

    `command` is what whoever runs the service may type; empty where the page does as much.
    """

    says: str
    todo: str
    detail: str
    address: str
    command: str


# What an alert is about, as the run writes it; what it is, what to do, the page for that and who may see it.
_ALERTS: tuple[tuple[str, str, str, str, tuple[Role, ...]], ...] = (
    (r"the run broke off in (?P<stage>\w+)", _("The last run broke off."),
     _("Mend what it names, and start it again: it goes on where it stopped."), "/desk/jobs", ADMIN),
    (r"the customers could not be compared", _("Nobody could tell whether anything has moved."),
     _("See what the run said."), "/desk/trust/drift", EVERYBODY),
    (r"what the champion learnt from at .+ has moved",
     _("Customers or sources are no longer as the models learnt them."),
     _("See what moved, and whether it matters."), "/desk/trust/drift", EVERYBODY),
    (r"predictions of the week of (?P<day>[\d-]+) did not come true",
     _("What was expected in the week of %(day)s did not come true."),
     _("Trust the order more than the level until the models are trained anew."), "/desk/trust", EVERYBODY),
    (r"purchases since (?P<day>[\d-]+) are unusual", _("Unusually few or many buy since %(day)s."),
     _("See whether a source is late, or the market is another."), "/desk/trust/data", EVERYBODY),
    (r"accepted events do not reach the scores", _("Events that were accepted do not reach the scores."),
     _("Whoever runs the service looks at its log."), "", EVERYBODY),
    (r"accepted events were set aside.*",
     _("Some accepted events could not be used: their customers' scores lack them."),
     _("Whoever sends the events looks at the first one named."), "", EVERYBODY),
    (r"(?P<kind>\w[\w ]*) version (?P<version>\d+) answers without a grade",
     _("%(kind)s: version %(version)s answers, but nobody can tell how right it is."),
     _("Check what the data suffice for."), "/desk/trust/data", EVERYBODY),
    (r"(?P<kind>\w[\w ]*) version (?P<version>\d+) answers though the gate refused it",
     _("%(kind)s: version %(version)s answers though the gate refused it, since the one before cannot."),
     _("See what speaks against it."), "model", EVERYBODY),
)  # fmt: skip
_ABOUT_A_DECISION = r".+ version \d+ (waits for a person|was refused)"
_OPEN = {
    "waits for a person": _("%(kind)s: version %(version)s waits for somebody to decide whether it shall answer."),
    "refused": _("%(kind)s: the gate refused version %(version)s, so the one before answers on."),
}  # fmt: skip


def of_alerts(spoken: Language, alerts: Iterable[Mapping[str, str]], role: Role) -> list[Look]:
    """Of all but those about a decision, which are said by `of_decisions`."""
    others = [alert for alert in alerts if not re.fullmatch(_ABOUT_A_DECISION, alert["about"])]
    return [_look(spoken, alert, role) for alert in others]


def _look(spoken: Language, alert: Mapping[str, str], role: Role) -> Look:
    for pattern, says, todo, address, who in _ALERTS:
        if read := re.fullmatch(pattern, alert["about"]):
            values = read.groupdict()
            kind = values.get("kind", "").replace(" ", "_")
            if kind:
                values["kind"] = words.in_words(spoken, words.KINDS, kind)
            place = f"/desk/trust/models/{kind}" if address == "model" else address
            place = place if role in who else ""
            return Look(spoken.say(says, **values), spoken.say(todo), alert["says"], place, alert["command"])
    return Look(spoken.sentence(alert["about"]), "", alert["says"], "", alert["command"])


def of_decisions(spoken: Language, decisions: Iterable[Mapping[str, Any]]) -> list[Look]:
    """Of those that are left to a person."""
    return [
        Look(
            spoken.say(_OPEN[one["outcome"]], kind=words.in_words(spoken, words.KINDS, one["kind"]),
                       version=one["version"]),
            spoken.say("Look at both, and promote it or leave it."), "\n".join(one["reasons"]),
            f"/desk/trust/models/{one['kind']}", "",
        )
        for one in decisions if one["outcome"] in _OPEN
    ]  # fmt: skip
