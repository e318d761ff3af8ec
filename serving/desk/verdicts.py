"""How right earlier predictions were, in sentences: from what the last look at outcomes noted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serving.desk.language import Language
from workspace import storage

_MOST = 12


@dataclass(frozen=True)
class Verdicts:
    """`sentences` on all predictions whose windows have closed; by week, a row each, as written: when, of how many
    customers, who was expected to leave and who left, with what was expected and came of money."""

    sentences: list[str]
    weeks: list[list[str]]


def verdicts(spoken: Language, home: Path, currency: str) -> Verdicts:
    """Nothing is claimed of windows that are still open."""
    pages = sorted((home / "reports").glob("outcomes-*.json"))
    noted: dict[str, Any] = storage.read_json(pages[-1]) if pages else {}
    groups = [group for group in noted.get("groups", []) if group["role"] == "champion"]
    everything = [group for group in groups if group["by"] == "all"]
    weeks = sorted((group for group in groups if group["by"] == "week"), key=lambda group: str(group["name"]))
    sentences = [said for group in everything for said in _said(spoken, group, currency)]
    return Verdicts(
        sentences or [spoken.say("Not yet known: no window of an earlier prediction has closed.")],
        [_row(spoken, group, currency) for group in weeks[-_MOST:]],
    )


def _said(spoken: Language, group: dict[str, Any], currency: str) -> Iterator[str]:
    if group["expected"] is not None and group["actual"] is not None:
        low, high = group["low"] or 0.0, 1.0 if group["high"] is None else group["high"]
        figures = {
            "asked": spoken.number(group["asked"]), "expected": spoken.percent(group["expected"]),
            "actual": spoken.percent(group["actual"]),
        }  # fmt: skip
        if low <= group["expected"] <= high:
            yield spoken.say("Of %(asked)s predictions, %(expected)s were expected to leave and %(actual)s left:"
                             " as close as chance allows.", **figures)  # fmt: skip
        else:
            yield spoken.say("Of %(asked)s predictions, %(expected)s were expected to leave and %(actual)s left:"
                             " off by more than chance.", **figures)  # fmt: skip
    if group["expected_value"] is not None and group["actual_value"] is not None:
        yield spoken.say(
            "A customer was expected to bring %(expected)s, and brought %(actual)s.",
            expected=spoken.money(group["expected_value"], currency),
            actual=spoken.money(group["actual_value"], currency),
        )


def _row(spoken: Language, group: dict[str, Any], currency: str) -> list[str]:
    def shown(share: float | None) -> str:
        return "–" if share is None else spoken.percent(share)

    def amount(value: float | None) -> str:
        return "–" if value is None else spoken.money(value, currency)

    return [
        str(group["name"]), spoken.number(group["asked"]), shown(group["expected"]), shown(group["actual"]),
        amount(group["expected_value"]), amount(group["actual_value"]),
    ]  # fmt: skip
