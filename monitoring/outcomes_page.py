"""Outcomes as words for a terminal and as a page of HTML that needs nothing else."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from html import escape
from typing import Any, NamedTuple

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from monitoring.offer_outcomes import Offered
from monitoring.outcomes import By, Early, Group, Open, Outcomes, as_data
from perennial import storage

_TITLES: dict[By, str] = {
    "all": "all", "model": "by model version", "value_model": "by model version", "week": "by week of the as_of",
    "segment": "by segment", "contact": "by contact in the window", "shown": "by what was done with them",
    "band": "by band of risk", "decile": "by tenth, lowest risk first",
    "horizon": "asked about other days, and in no row above",
}  # fmt: skip
_EXPECTED, _ACTUAL, _GREY = "#1f5fa8", "#e08a1e", "#7a8794"
_LOOK: Any = {
    "font.size": 10.5, "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": "#8f9aa5",
    "axes.grid": True, "grid.color": "#e6eaee", "axes.axisbelow": True, "legend.frameon": False,
    "svg.hashsalt": "perennial",
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


def write(found: Outcomes) -> None:
    """The page and the record of it, each whole or not at all."""
    storage.write_json(found.record, as_data(found))
    with storage.replacing(found.page) as draft:
        draft.write_text(as_html(found), encoding="utf-8")


def as_text(found: Outcomes) -> str:
    """What a terminal shows: judged groups, one line each, then what nobody can judge yet."""
    lines = [_lead(found)]
    for role in sorted({group.role for group in found.groups}):
        for answer in _ANSWERS:
            groups = [group for by in answer.by if by not in _NOT_IN_TEXT for group in _groups(found, answer, by, role)]
            lines.append(_line(f"{role}: {answer.name}", answer.heads, answer.heads))
            for group in groups:
                told = _line(f"  {_name(group)}", answer.heads, answer.cells(group))
                lines.append(told + ("  off" if _is_off(group, answer) else ""))
    if found.offers:
        lines.append(_line("offers", _OFFER_HEADS, _OFFER_HEADS))
        for offers in found.offers:
            own = _line(f"  {_made(offers)}", _OFFER_HEADS, _offer_cells(offers))
            lines.append(own + ("  off" if offers.is_off else ""))
    return "\n".join([*lines, *_notes(found), f"page: {found.page}"])


def _groups(found: Outcomes, answer: _Answer, by: By, role: str) -> list[Group]:
    """Those with such a prediction."""
    return [group for group in found.of(by, role) if answer.count(group)]


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


def _lead(found: Outcomes) -> str:
    if not found.groups:
        return f"outcomes at {found.as_of}: no prediction's window has closed yet"
    counted = [f"{sum(map(answer.count, found.of('all'))):,} predictions of {answer.name}" for answer in _ANSWERS]
    return f"outcomes at {found.as_of}: {' and '.join(counted)}, by the champions, whose windows have closed"


def _notes(found: Outcomes) -> list[str]:
    notes = []
    if found.groups and not found.has_control:
        notes.append("no random control (`campaign_control`) in the windows: what contact changed cannot be told apart")
    notes += [f"left out: {one}" for one in found.seen]
    notes += [f"not judged: {_open(one)}" for one in found.open]
    return notes + [_early(one) for one in found.early]


def _open(one: Open) -> str:
    asked = f" about {one.horizon} days" if one.horizon else ""
    return f"{one.customers:,} predictions of {one.as_of}{asked} by {one.model} ({one.role}): {one.why}"


def _early(one: Early) -> str:
    usual = f"; earlier windows: {one.usual[0]:.2f} to {one.usual[1]:.2f}" if one.usual else ""
    return (
        f"{'UNUSUAL so far' if one.is_unusual else 'so far'}: {one.days} days after {one.as_of} {one.actual:,.0f}"
        f" purchase days, where histories expect {one.expected:,.0f} ({one.ratio:.2f}{usual})"
    )


def as_html(found: Outcomes) -> str:
    """The same with every group and with plots, for each role."""
    title = f"Outcomes at {found.as_of}"
    parts = [f"<h1>Did the predictions come true?</h1><p class=lead>{escape(_lead(found))}.</p>"]
    parts += [f"<p>{escape(note)}</p>" for note in _notes(found)]
    for role in sorted({group.role for group in found.groups}):
        parts.append(f"<h2>{escape(role.capitalize())}</h2><div class=pictures>{_pictures(found, role)}</div>")
        parts += [_by(found, answer, by, role) for answer in _ANSWERS for by in answer.by]
    if found.offers:
        rows = [(_made(offers), _offer_cells(offers), offers.is_off) for offers in found.offers]
        parts.append(_table("Offers, by what they were", _OFFER_HEADS, rows))
    parts.append(_HOW_TO_READ)
    return _PAGE.format(title=escape(title), body="\n".join(parts))


def _by(found: Outcomes, answer: _Answer, by: By, role: str) -> str:
    """A table whose counts add up to all such predictions of the role."""
    groups = _groups(found, answer, by, role)
    rows = [(group.name, answer.cells(group), _is_off(group, answer)) for group in groups]
    return _table(f"{answer.name.capitalize()}, {_TITLES[by]}", answer.heads, rows) if rows else ""


def _table(title: str, heads: Sequence[str], rows: Sequence[tuple[str, Sequence[str], bool]]) -> str:
    """Rows of a name, cells, and whether the row is off."""
    head = "".join(f"<th>{escape(name)}</th>" for name in ("", *heads))
    body = "".join(
        f"<tr{' class=off' if is_off else ''}><td>{escape(name)}</td>"
        f"{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"
        for name, cells, is_off in rows
    )
    return f"<h3>{escape(title)}</h3><table><tr>{head}</tr>{body}</table>"


def _pictures(found: Outcomes, role: str) -> str:
    with rc_context(_LOOK):
        drawn = [
            (_calibration(found.of("decile", role)), "Tenths of the predictions: on the dashed line they were right."),
            (_rates(found.of("week", role)), "Share who left, expected and actual, by week of the as_of."),
            (_values(found.of("week", role)), "Mean value, expected and actual, by week of the as_of."),
            (_rates(found.of("contact", role)), "By contact in the window: the contacted, and the random control."),
        ]  # fmt: skip
        return "".join(_picture(figure, caption) for figure, caption in drawn if figure is not None)


def _picture(figure: Figure, caption: str) -> str:
    held = io.BytesIO()
    figure.savefig(held, format="svg", metadata={"Date": None})
    data = base64.b64encode(held.getvalue()).decode()
    image = f'<img alt="{escape(caption)}" src="data:image/svg+xml;base64,{data}">'
    return f"<figure>{image}<figcaption>{escape(caption)}</figcaption></figure>"


def _axes() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(5.2, 3.7), layout="constrained")
    return figure, figure.subplots()


def _calibration(deciles: Sequence[Group]) -> Figure | None:
    known = [group for group in deciles if group.expected is not None]
    if not known:
        return None
    figure, axes = _axes()
    expected, actual, low, high = (
        np.array([getattr(group, name) for group in known]) for name in ("expected", "actual", "low", "high")
    )
    axes.vlines(expected, low, high, color=_EXPECTED, alpha=0.6)
    axes.plot(expected, actual, marker="o", markersize=4, color=_EXPECTED)
    axes.plot([0, high.max()], [0, high.max()], color=_GREY, linestyle="--", linewidth=1)
    axes.set(xlabel="predicted probability of leaving", ylabel="share who left")
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    return figure


def _rates(groups: Sequence[Group]) -> Figure | None:
    return _beside(groups, "expected", "actual", "share who left", True)


def _values(groups: Sequence[Group]) -> Figure | None:
    return _beside(groups, "expected_value", "actual_value", "mean value", False)


def _beside(groups: Sequence[Group], expected: str, actual: str, label: str, is_share: bool) -> Figure | None:
    known = [group for group in groups if getattr(group, expected) is not None]
    if not known:
        return None
    figure, axes = _axes()
    place = np.arange(len(known))
    for left, name, colour in ((-0.2, expected, _EXPECTED), (0.2, actual, _ACTUAL)):
        axes.bar(place + left, [getattr(group, name) for group in known], 0.38, color=colour, label=name.split("_")[0])
    axes.set_xticks(
        place,
        [group.name for group in known],
        rotation=30 if len(known) > 3 else 0,
        ha="right" if len(known) > 3 else "center",
    )
    axes.set(ylabel=label)
    if is_share:
        axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.grid(visible=False, axis="x")
    axes.legend()
    return figure


_HOW_TO_READ = """<h2>How to read this</h2>
<p>Only predictions whose windows have closed are judged, and only those of models that had not seen what happened: they
were trained at the predictions' as_of or before. Those of who leaves and those of what is spent stand apart, since
who had left already was asked for a value only. A customer counts once for each as_of and model, and the counts of a
table add up to all such predictions. A row is marked where the expected rate lies outside the 95 % interval of what
happened. Contact is meant to change the answer: compare the contacted with the random control, which the same draw left
alone; who is in neither was chosen by nobody's draw. Bias is the total expected over the total spent, less one; where a
row has several as_ofs, too much at one and too little at another cancel, so look at the weeks. Of offers, the shares
are of the offers; how many customers they went to stands last.</p>"""
_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>body{{font:16px/1.5 system-ui,sans-serif;max-width:1100px;margin:2rem auto;padding:0 1rem;color:#1f2933}}
table{{border-collapse:collapse;margin-bottom:1.5rem}}td,th{{padding:.25rem .7rem;text-align:right;
border-bottom:1px solid #e6eaee}}td:first-child{{text-align:left}}.off td{{background:#fdf3e3}}
.pictures{{display:flex;flex-wrap:wrap;gap:1rem}}figure{{margin:0;width:32rem;max-width:100%}}img{{width:100%}}
figcaption{{color:#56616d;font-size:.9rem}}.lead{{font-size:1.15rem}}</style><body>
{body}
</body></html>
"""
