"""Outcomes as words for a terminal and as a page of HTML that needs nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from monitoring.offer_outcomes import Offered
from monitoring.outcomes import By, Early, Group, Open, Outcomes, as_data
from pages import picture
from pages.page import Table, render
from pages.picture import Picture
from workspace import storage

_TITLES: dict[By, str] = {
    "all": "all", "model": "by model version", "value_model": "by model version", "week": "by week of the as_of",
    "segment": "by segment", "contact": "by contact in the window", "shown": "by what was done with them",
    "band": "by band of risk", "decile": "by tenth, lowest risk first",
    "horizon": "asked about other days, and in no row above",
}  # fmt: skip
_OFFER_HEADS = ("offers", "expected", "bought", "95 %", "customers")


class _Answer(NamedTuple):
    """One of the two things that are predicted: its own predictions are what its rows are of.

    `by`: groupings that every one of its predictions is in one group of, those asked about other days in `horizon`
    alone; the terminal leaves `shown` and tenths out.
    """

    name: str
    heads: tuple[str, ...]
    by: tuple[By, ...]
    count: Callable[[Group], int]
    cells: Callable[[Group], tuple[str, ...]]


def _of_leaving(group: Group) -> tuple[str, ...]:
    within = "-" if group.low is None or group.high is None else f"{group.low:.1%}-{group.high:.1%}"
    return (
        f"{group.asked:,}", _shown(group.expected, ".1%"), _shown(group.actual, ".1%"), within,
        _shown(group.auc, ".3f"), _shown(group.brier, ".3f"),
    )  # fmt: skip


def _of_value(group: Group) -> tuple[str, ...]:
    return (
        f"{group.valued:,}", _shown(group.expected_value, ",.2f"), _shown(group.actual_value, ",.2f"),
        _shown(group.bias, "+.1%"),
    )  # fmt: skip


def _shown(figure: float | None, form: str) -> str:
    return "-" if figure is None else format(figure, form)


_LEAVING = _Answer(
    "who leaves", ("predictions", "expected", "left", "95 %", "auc", "brier"),
    ("all", "model", "week", "segment", "contact", "shown", "band", "decile", "horizon"),
    lambda group: group.asked, _of_leaving,
)  # fmt: skip
_VALUE = _Answer(
    "what is spent", ("predictions", "value", "spent", "bias"),
    ("all", "value_model", "week", "segment", "contact", "shown", "horizon"), lambda group: group.valued, _of_value,
)  # fmt: skip
_ANSWERS = (_LEAVING, _VALUE)
_NOT_IN_TEXT = ("shown", "decile")


def write(outcomes: Outcomes) -> None:
    """The page and the record of it, each whole or not at all."""
    storage.write_json(outcomes.record, as_data(outcomes))
    with storage.replacing(outcomes.page) as draft:
        draft.write_text(as_html(outcomes), encoding="utf-8")


def as_text(outcomes: Outcomes) -> str:
    """What a terminal shows: judged groups, one line each, then what nobody can judge yet."""
    lines = [_lead(outcomes)]
    for role in sorted({group.role for group in outcomes.groups}):
        for answer in _ANSWERS:
            groups = [
                group for by in answer.by if by not in _NOT_IN_TEXT for group in _groups(outcomes, answer, by, role)
            ]
            lines.append(_line(f"{role}: {answer.name}", answer.heads, answer.heads))
            for group in groups:
                told = _line(f"  {_name(group)}", answer.heads, answer.cells(group))
                lines.append(told + ("  off" if _is_off(group, answer) else ""))
    if outcomes.offers:
        lines.append(_line("offers", _OFFER_HEADS, _OFFER_HEADS))
        for offers in outcomes.offers:
            own = _line(f"  {_made(offers)}", _OFFER_HEADS, _offer_cells(offers))
            lines.append(own + ("  off" if offers.is_off else ""))
    return "\n".join([*lines, *_notes(outcomes), f"page: {outcomes.page}"])


def _groups(outcomes: Outcomes, answer: _Answer, by: By, role: str) -> list[Group]:
    """Those with such a prediction."""
    return [group for group in outcomes.of(by, role) if answer.count(group)]


def _is_off(group: Group, answer: _Answer) -> bool:
    return answer is _LEAVING and group.is_off


def _line(name: str, heads: Sequence[str], cells: Sequence[str]) -> str:
    return f"{name:<30}{''.join(f'{cell:>{_width(head)}}' for head, cell in zip(heads, cells, strict=True))}"


def _width(head: str) -> int:
    return {"predictions": 13, "customers": 11, "95 %": 14, "value": 12, "spent": 12}.get(head, 9)


def _made(offers: Offered) -> str:
    return f"{offers.as_of} {offers.model.rpartition('.')[2]} {offers.kind}, {offers.role}"


def _offer_cells(offers: Offered) -> tuple[str, ...]:
    within = f"{offers.low:.1%}-{offers.high:.1%}"
    return (f"{offers.offers:,}", f"{offers.expected:.1%}", f"{offers.actual:.1%}", within, f"{offers.customers:,}")


def _name(group: Group) -> str:
    return group.name if group.by in ("all", "model", "value_model", "segment") else f"{group.by}: {group.name}"


def _lead(outcomes: Outcomes) -> str:
    if not outcomes.groups:
        return f"outcomes at {outcomes.as_of}: no prediction's window has closed yet"
    counted = [f"{sum(map(answer.count, outcomes.of('all'))):,} predictions of {answer.name}" for answer in _ANSWERS]
    return f"outcomes at {outcomes.as_of}: {' and '.join(counted)}, by the champions, whose windows have closed"


def _notes(outcomes: Outcomes) -> list[str]:
    notes = []
    if outcomes.groups and not outcomes.has_control:
        notes.append("no random control (`campaign_control`) in the windows: what contact changed cannot be told apart")
    notes += [f"left out: {one}" for one in outcomes.seen]
    notes += [f"not judged: {_open(one)}" for one in outcomes.open]
    return notes + [_early(one) for one in outcomes.early]


def _open(one: Open) -> str:
    asked = f" about {one.horizon} days" if one.horizon else ""
    return f"{one.customers:,} predictions of {one.as_of}{asked} by {one.model} ({one.role}): {one.why}"


def _early(one: Early) -> str:
    usual = f"; earlier windows: {one.usual[0]:.2f} to {one.usual[1]:.2f}" if one.usual else ""
    return (
        f"{'UNUSUAL so far' if one.is_unusual else 'so far'}: {one.days} days after {one.as_of} {one.actual:,.0f}"
        f" purchase days, where histories expect {one.expected:,.0f} ({one.ratio:.2f}{usual})"
    )


def as_html(outcomes: Outcomes) -> str:
    """The same with every group and with plots, for each role."""
    roles = sorted({group.role for group in outcomes.groups})
    return render(
        "outcomes.html",
        title=f"Outcomes at {outcomes.as_of}",
        lead=_lead(outcomes),
        notes=_notes(outcomes),
        roles=[(role, _pictures(outcomes, role), _tables(outcomes, role)) for role in roles],
        offers=_offers(outcomes.offers) if outcomes.offers else None,
    )


def _tables(outcomes: Outcomes, role: str) -> list[Table]:
    """By answer and grouping; the counts of each add up to all such predictions of the role."""
    wanted = [(answer, by, _groups(outcomes, answer, by, role)) for answer in _ANSWERS for by in answer.by]
    return [_table(answer, by, groups) for answer, by, groups in wanted if groups]


def _table(answer: _Answer, by: By, groups: Sequence[Group]) -> Table:
    rows = [[group.name, *answer.cells(group)] for group in groups]
    off = [place for place, group in enumerate(groups) if _is_off(group, answer)]
    return Table(("", *answer.heads), rows, f"{answer.name.capitalize()}, {_TITLES[by]}", marked=off)


def _offers(offers: Sequence[Offered]) -> Table:
    rows = [[_made(each), *_offer_cells(each)] for each in offers]
    return Table(("", *_OFFER_HEADS), rows, marked=[place for place, each in enumerate(offers) if each.is_off])


def _pictures(outcomes: Outcomes, role: str) -> list[Picture]:
    with picture.styled():
        tenths = outcomes.of("decile", role)
        drawn = [
            (_calibration(tenths), "Tenths of the predictions: on the dashed line they were right."),
            (_rates(outcomes.of("week", role)), "Share who left, expected and actual, by week of the as_of."),
            (_values(outcomes.of("week", role)), "Mean value, expected and actual, by week of the as_of."),
            (_rates(outcomes.of("contact", role)), "By contact in the window: the contacted, and the random control."),
        ]  # fmt: skip
    return [picture.picture(picture.drawn(figure), caption) for figure, caption in drawn if figure is not None]


def _calibration(deciles: Sequence[Group]) -> Figure | None:
    known = [group for group in deciles if group.expected is not None]
    if not known:
        return None
    figure, axes = picture.axes("predicted probability of leaving", "share who left")
    expected, actual, low, high = (
        np.array([getattr(group, name) for group in known]) for name in ("expected", "actual", "low", "high")
    )
    axes.vlines(expected, low, high, color=picture.EXPECTED, alpha=0.6)
    axes.plot(expected, actual, marker="o", markersize=4, color=picture.EXPECTED)
    axes.plot([0, high.max()], [0, high.max()], color=picture.RIVAL, linestyle="--", linewidth=1)
    picture.shares(axes.xaxis, axes.yaxis)
    return figure


def _rates(groups: Sequence[Group]) -> Figure | None:
    known = [group for group in groups if group.expected is not None]
    if not known:
        return None
    figure = _beside(known, "expected", "actual", "share who left")
    picture.shares(figure.axes[0].yaxis)
    return figure


def _values(groups: Sequence[Group]) -> Figure | None:
    known = [group for group in groups if group.expected_value is not None]
    return _beside(known, "expected_value", "actual_value", "mean value") if known else None


def _beside(groups: Sequence[Group], expected: str, actual: str, label: str) -> Figure:
    first, second = ([getattr(group, name) for group in groups] for name in (expected, actual))
    return picture.beside([group.name for group in groups], first, second, label)
