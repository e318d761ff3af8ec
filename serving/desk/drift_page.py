"""What has moved since the models learnt, and whether it matters to them: from the newest look for drift."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Any

from starlette.responses import Response

from features.families.catalogue import Feature
from features.snapshot import customer_features
from serving.desk import reports, shift_words
from serving.desk.language import Language
from serving.desk.visit import Visit


async def drift(visit: Visit) -> Response:
    workspace = visit.answers.workspace
    noted = await asyncio.to_thread(reports.noted, workspace.home_path, "drift")
    features = {feature.name: feature for feature in customer_features(workspace)}
    moved = list(_moved(visit.language, noted, features)) if noted else []
    return visit.page(
        "drift.html", visit.say("What has moved"), noted=noted, answer=answer(visit.language, noted), moved=moved,
        compared=_compared(visit.language, noted) if noted else [], pages=_pages(visit, noted),
    )  # fmt: skip


def answer(spoken: Language, noted: Mapping[str, Any]) -> str:
    """Whether anything moved, and whether it matters, in one sentence."""
    if not noted:
        return spoken.say("Nobody has looked yet: every run looks, once there is a model.")
    if noted["matters"]:
        return spoken.say("Yes, and it matters: the models decide by what moved, or predict otherwise. Their numbers"
                          " may be off until they are trained anew, which the next run does.")  # fmt: skip
    if noted["drifted"]:
        return spoken.say("Yes, but it hardly matters to the models: they decide by other things. See whether a source"
                          " has changed.")  # fmt: skip
    if noted["features"]:
        return spoken.say("No more than usual: what moved is little, and matters little to the models.")
    return spoken.say("No: all is as it was when the models learnt, within what is usual.")


def _compared(spoken: Language, noted: Mapping[str, Any]) -> list[str]:
    """With when, and by what it is told what is usual."""
    at, reference = (_day(spoken, noted[name]) for name in ("as_of", "reference"))
    said = [
        spoken.say("Compared is %(at)s with %(reference)s, which the models learnt from.", at=at, reference=reference)
    ]
    if noted["last_year"]:
        said.append(spoken.say("It counts as moved only if it also differs from the same season a year before, around"
                               " %(day)s.", day=_day(spoken, noted["last_year"])))  # fmt: skip
    if noted["past"]:
        said.append(spoken.count("%(number)s earlier month says what is usual.",
                                 "%(number)s earlier months say what is usual.", noted["past"]))  # fmt: skip
    else:
        said.append(spoken.say("No earlier month says yet what is usual, so only large differences count."))
    said.append(spoken.say(
        "%(moved)s of %(judged)s features of the customers moved; by them the models decide %(weight)s.",
        moved=spoken.number(len(noted["features"])), judged=spoken.number(noted["judged"]),
        weight=spoken.percent(noted["weight"]),
    ))  # fmt: skip
    return said


def _day(spoken: Language, day: str) -> str:
    return spoken.day(date.fromisoformat(day))


def _moved(spoken: Language, noted: Mapping[str, Any], features: Mapping[str, Feature]) -> Iterator[dict[str, str]]:
    """What is predicted first, then the rows, then features, each farthest beyond its usual first."""
    for shift in (*noted["predictions"], *noted["sources"], *noted["features"]):
        weight = shift["importance"]
        yield {
            "name": shift["feature"],
            "what": shift_words.what(spoken, shift["feature"], features),
            "how": shift_words.how(spoken, shift),
            "beyond": spoken.say("%(times)s times", times=spoken.number(shift["score"] / shift["threshold"], 1)),
            "weight": "–" if not weight else spoken.percent(weight, 1),
        }


def _pages(visit: Visit, noted: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Evidently's, with what each is called."""
    folder = reports.folder(visit.answers.home)
    names = [Path(page).name for page in noted.get("pages", [])]
    return [
        (name, reports.address(name)) for name in names if reports.PAGE.fullmatch(name) and (folder / name).exists()
    ]
