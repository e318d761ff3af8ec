"""How right earlier predictions were, in sentences: from what the last look at outcomes noted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from serving.desk import reports, words
from serving.desk.language import Language

_MOST = 12
_FEWEST = 2  # months of which a picture says anything


@dataclass(frozen=True)
class Verdicts:
    """`sentences` on all predictions whose windows have closed; by month and by segment, a row each, as written: which,
    of how many customers, who was expected to leave and who left, with what was expected and came of money.

    `chart` is the same of the months as figures, none where there are fewer than two.
    """

    sentences: list[str]
    months: list[list[str]]
    segments: list[list[str]]
    chart: dict[str, Any] | None


@dataclass(frozen=True)
class _Row:
    """Means over so many predictions, null where none was told."""

    asked: int
    expected: float | None
    actual: float | None
    expected_value: float | None
    actual_value: float | None

    @classmethod
    def of(cls, groups: Sequence[Mapping[str, Any]]) -> _Row:
        """Of groups together; those of whom no figure was told count for none."""
        return cls(
            sum(group["asked"] for group in groups),
            _mean(groups, "expected", "asked"), _mean(groups, "actual", "asked"),
            _mean(groups, "expected_value", "valued"), _mean(groups, "actual_value", "valued"),
        )  # fmt: skip

    def written(self, spoken: Language, name: str, currency: str) -> list[str]:
        shares = ("–" if share is None else spoken.percent(share) for share in (self.expected, self.actual))
        amounts = (self.expected_value, self.actual_value)
        values = ("–" if value is None else spoken.money(value, currency) for value in amounts)
        return [name, spoken.number(self.asked), *shares, *values]


def _mean(groups: Sequence[Mapping[str, Any]], figure: str, count: str) -> float | None:
    told = [(group[figure], group.get(count, group["asked"])) for group in groups if group[figure] is not None]
    weight = sum(rows for _, rows in told)
    return sum(value * rows for value, rows in told) / weight if weight else None


def verdicts(spoken: Language, home: Path, currency: str) -> Verdicts:
    """Nothing is claimed of windows that are still open."""
    groups = [group for group in reports.noted(home, "outcomes").get("groups", []) if group["role"] == "champion"]
    sentences = [said for group in _by(groups, "all") for said in _said(spoken, group, currency)]
    months = _months(_by(groups, "week"))
    segments = {words.in_words(spoken, words.SEGMENTS, group["name"]): [group] for group in _by(groups, "segment")}
    return Verdicts(
        sentences or [spoken.say("Not yet known: no window of an earlier prediction has closed.")],
        [_Row.of(of_month).written(spoken, spoken.month(month), currency) for month, of_month in months.items()],
        [_Row.of(of_segment).written(spoken, name, currency) for name, of_segment in segments.items()],
        _chart(spoken, months),
    )


def _by(groups: Iterable[dict[str, Any]], by: str) -> list[dict[str, Any]]:
    return [group for group in groups if group["by"] == by]


def _months(weeks: Iterable[dict[str, Any]]) -> dict[date, list[dict[str, Any]]]:
    """The weeks by the month that they begin in, the latest last."""
    months: dict[date, list[dict[str, Any]]] = {}
    for week in sorted(weeks, key=lambda group: str(group["name"])):
        months.setdefault(date.fromisoformat(week["name"]).replace(day=1), []).append(week)
    return dict([*months.items()][-_MOST:])


def _chart(spoken: Language, months: Mapping[date, Sequence[Mapping[str, Any]]]) -> dict[str, Any] | None:
    """Shares in percent, of the months of which they are told."""
    rows = {month: _Row.of(weeks) for month, weeks in months.items()}
    told = {month: (row.expected, row.actual) for month, row in rows.items() if row.expected is not None}
    if len(told) < _FEWEST:
        return None
    names = (spoken.say("Expected to leave"), spoken.say("Left"))
    series = [
        {"name": name, "shares": [round(100 * (shares[place] or 0.0), 1) for shares in told.values()]}
        for place, name in enumerate(names)
    ]
    return {"months": [spoken.month(month) for month in told], "series": series}


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
