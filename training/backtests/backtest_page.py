"""The backtest as one page of HTML that needs nothing else, for who decides whether to rely on the models."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from pages.page import Cell, Table, render
from pages.picture import Picture, picture
from training.backtests.backtest import OVERLAPPING
from training.backtests.backtest_report import NO_SEGMENT, Report, Total, asked, parts, segment_totals, shown, totals
from training.backtests.evaluation import EVERYONE, Evaluation
from training.backtests.grade import OF_CHURN, OF_VALUE, RULES, Letter, Measures
from training.backtests.scoreboard import Contender, Spread, worth

_MEANINGS: dict[Letter, str] = {
    "A": "Rely on the order and on the amounts.",
    "B": "Rely on the order; take the amounts with the margin shown here.",
    "C": "Better than guessing: use it to choose whom to contact first, quote no amount from it.",
    "none": "Not proven. Do not act on it before the reason below is dealt with.",
}
_CAPTIONS = {
    "totals": "Expected and actual spend of all customers, one pair per date at which we predicted.",
    "deciles": "Customers sorted by what we expected of them, in ten groups of equal size: the two bars should match.",
    "lift": "How much of everything the best-ranked hold: the higher the blue line, the better the order.",
    "coverage": "Of each group, the share who spent an amount between the two bounds we had given for them.",
    "calibration": "Of those given a probability, how many did: on the dashed line the probability means what it says.",
}
_FIGURES = {
    "auc": (
        "order (AUC)",
        "chance that someone who left was ranked above someone who stayed; 0.5 is a coin, 1 perfect",
    ),
    "average_precision": ("precision", "share who left on lists of every length, on average (average precision)"),
    "lift10": ("lift, top tenth", "how many times more of the tenth ranked highest left than of all customers"),
    "brier": ("error (Brier)", "mean squared difference of probability and what happened; smaller is better"),
    "log_loss": ("log loss", "as the Brier error, but harsh with confident mistakes; smaller is better"),
    "ece": ("miscalibration", "how far probabilities are from what happened, on average over tenths (ECE)"),
    "ngini": ("order (Gini)", "0 is a random order of customers by spend, 1 the perfect one (normalised Gini)"),
    "spearman": ("rank match", "agreement of the two orders, expected and actual; 1 is the same (Spearman)"),
    "top_decile_capture": ("top tenth holds", "share of all that was spent by the tenth ranked highest"),
    "decile_wape": ("group error", "how far the ten groups' means are off, as a share of what was spent"),
    "bias": (
        "total off by",
        "how far all that was expected is from all that was spent, as a share of it: the mean of the dates' sizes",
    ),
    "coverage": (
        "within bounds",
        "share of the customers who spent between their bounds; the share of `lifetime_value.interval` is meant to",
    ),
    "ndcg": ("order of the list", "1 when the list starts with what was bought (ndcg of its first items)"),
    "recall": ("found", "share of what a customer bought that was on the list (recall)"),
    "hit": ("any found", "share of customers who bought something on the list (hit rate)"),
}
_COUNTED = (
    "A customer counts once at each date. Off by: of several dates the mean of their sizes, since too much on one does"
    " not make up for too little on the next."
)


@dataclass(frozen=True)
class Card:
    """A model's grade, the one thing to know of it, and why it has that grade."""

    letter: Letter
    title: str
    meaning: str
    headline: str
    reason: str


@dataclass(frozen=True)
class Section:
    """A judged model's pictures and tables: totals by date, beside its rivals, by segment."""

    title: str
    pictures: tuple[Picture, ...]
    tables: tuple[Table, ...]
    missing: str


def as_html(report: Report) -> str:
    """Grades first, then each model's pictures and tables, then how to read them."""
    return render(
        "backtest.html",
        title=f"Backtest of {report.name}, {report.as_of}",
        lead=_lead(report),
        cards=list(map(card, report.models)),
        sections=[section(evaluation) for evaluation in _by_money(report.models) if evaluation.judged],
        figures=_figures(report.models),
        meanings=_MEANINGS,
        grades=_grades(),
    )


def _by_money(models: Sequence[Evaluation]) -> list[Evaluation]:
    return sorted(models, key=lambda evaluation: not evaluation.subject.measures.is_total)


def _lead(report: Report) -> str:
    dates = sorted({cutoff.as_of for evaluation in report.models for cutoff in evaluation.judged})
    if not dates:
        return f"{report.name}, as known before {report.as_of}: no earlier prediction could be checked."
    return (
        f"{report.name}: we went back to {len(dates)} earlier dates, from {dates[0]} to {dates[-1]}, let the models"
        " learn from nothing but what was known on each of them, and compared their predictions with what customers"
        f" then did. Everything known before {report.as_of} is used; nothing here was adjusted afterwards."
    )


def card(evaluation: Evaluation) -> Card:
    letter = evaluation.grade.letter
    reason = evaluation.grade.reason
    headline = evaluation.subject.headline(evaluation) if evaluation.board else f"{reason[:1].upper()}{reason[1:]}."
    return Card(letter, evaluation.subject.title, _MEANINGS[letter], headline, reason)


def section(evaluation: Evaluation) -> Section:
    """Of a model that was judged at one date at least."""
    assert evaluation.board is not None
    what = evaluation.subject.counted_in(evaluation.currency)
    tables = [] if what is None else _totals(evaluation, what)
    for of, names in shown(evaluation).items():
        tables += [_contenders(evaluation, of, names), _segments(evaluation, of, names)]
    pictures = tuple(picture(svg, _CAPTIONS[name]) for name, svg in evaluation.pictures.items())
    return Section(evaluation.subject.title, pictures, tuple(tables), ", ".join(evaluation.board.missing))


def _totals(evaluation: Evaluation, what: str) -> list[Table]:
    """By date and by segment; the counts of either add up to those of everyone, which is its last row."""
    *apart, everyone = parts(evaluation)
    all_dates = replace(everyone, name="all dates")
    inside = [total for total in segment_totals(evaluation) if total.name in OVERLAPPING]
    of_those = [replace(total, name=f"of these, {total.name}") for total in inside]
    heads = ("customers", f"expected, {what}", f"actual, {what}", "off by")
    by_date = _with_bounds(evaluation, ["Predicted on", *heads], _total_rows([*totals(evaluation), all_dates]))
    by_segment = ["Segment, all dates", *heads], _total_rows([*apart, everyone, *of_those])
    return [Table(*by_date, "Totals by date", _COUNTED), Table(*by_segment, "Totals by segment")]


def _total_rows(rows: Sequence[Total]) -> list[list[str]]:
    return [[t.name, f"{t.customers:,}", f"{t.expected:,.0f}", f"{t.actual:,.0f}", _off(t)] for t in rows]


def _with_bounds(evaluation: Evaluation, heads: list[str], rows: list[list[str]]) -> tuple[list[str], list[list[str]]]:
    """With a column of who spent within their bounds, where the model gives any."""
    figures = evaluation.board.ours.figures if evaluation.board else {}
    if "coverage" not in figures:
        return heads, rows
    each, at = figures["coverage"].each, [len(cutoff.customer_ids) for cutoff in evaluation.judged]
    overall = sum(share * count for share, count in zip(each, at, strict=True)) / sum(at)
    cells = [[*row, f"{value:.1%}"] for row, value in zip(rows, (*each, overall), strict=True)]
    return [*heads, f"within bounds, {100 * figures['coverage_stated'].mean:g}% stated"], cells


def _contenders(evaluation: Evaluation, of: str, names: Sequence[str]) -> Table:
    """Mean over the cutoffs, the best of a column marked, the worst cutoff below it."""
    assert evaluation.board is not None
    contenders = evaluation.board.contenders
    best = {name: _best(contenders, name) for name in names}
    count = f"{asked(evaluation.judged, names[0]):,}"
    rows: list[list[str | Cell]] = [
        [c.name, count, *(_cell(c.figures.get(name), best[name], c.ahead.get(name)) for name in names)]
        for c in contenders
    ]
    who = "" if of == EVERYONE else f" Of the customers who bought {of}."
    note = f"Mean over the dates. Small: the worst of them. Bold: the best of the column.{who}"
    return Table(_headings(names), rows, f"Beside simple rules and the field's models{_only(of)}", note)


def _only(of: str) -> str:
    return "" if of == EVERYONE else f": {of}"


def _best(contenders: Sequence[Contender], name: str) -> float:
    known = [c.figures[name].mean for c in contenders if name in c.figures and not math.isnan(c.figures[name].mean)]
    return max(known, key=lambda value: worth(name, value), default=math.nan)


def _cell(spread: Spread | None, best: float = math.nan, ahead: Spread | None = None) -> Cell:
    if spread is None or math.isnan(spread.mean):
        return Cell("–")
    hint = ""
    if ahead is not None and not math.isnan(ahead.low):
        hint = f"ours minus this: {ahead.mean:+.4f} ({ahead.low:+.4f} to {ahead.high:+.4f}, 95 %)"
    return Cell(f"{spread.mean:.3f}", f"{spread.worst:.3f}", hint, spread.mean == best)


def _segments(evaluation: Evaluation, of: str, names: Sequence[str]) -> Table:
    """The counts of the segments, the overlapping ones last and apart, add up to those of everyone."""
    assert evaluation.board is not None
    whole = asked(evaluation.judged, names[0])
    counts = {name: asked(evaluation.judged, names[0], name) for name in evaluation.board.segments}
    figures = {name: contenders[0].figures for name, contenders in evaluation.board.segments.items()}
    apart = {name: count for name, count in counts.items() if name not in OVERLAPPING}

    def row(name: str, count: int, of_segment: Mapping[str, Spread]) -> list[str | Cell]:
        return [name, f"{count:,}", *(_cell(of_segment.get(metric)) for metric in names)]

    rows = [row(name, count, figures[name]) for name, count in apart.items()]
    if rest := whole - sum(apart.values()):
        rows.append(row(NO_SEGMENT, rest, {}))
    rows.append(row(EVERYONE, whole, evaluation.board.ours.figures))
    rows += [row(f"of these, {name}", counts[name], figures[name]) for name in counts if name in OVERLAPPING]
    return Table(_headings(names), rows, f"Our model by segment{_only(of)}")


def _headings(names: Sequence[str]) -> list[str | Cell]:
    of_whom = Cell("customers", hint="of how many customers the row is; each counts once at each date")
    return ["", of_whom, *(Cell(heading, hint=meaning) for heading, meaning in map(_explained, names))]


def _explained(name: str) -> tuple[str, str]:
    """Heading and meaning of a figure; those of offers carry the list's length, and which items count."""
    if name in _FIGURES:
        return _FIGURES[name]
    stem, _, kind = name.partition("_")
    heading, meaning = _FIGURES[stem.rstrip("0123456789")]
    part = {"repeat": "repeats", "new": "new items"}.get(kind, "")
    return (f"{heading}, {part}" if part else heading), meaning


def _off(total: Total) -> str:
    """With its sign where it is of one date."""
    return "–" if math.isnan(total.off) else f"{total.off:+.1%}" if len(total.each) == 1 else f"{total.off:.1%}"


def _figures(models: Sequence[Evaluation]) -> list[tuple[str, str]]:
    """Heading and meaning of each figure that is shown."""
    groups = [group for evaluation in models if evaluation.board for group in shown(evaluation).values()]
    return [_explained(name) for name in dict.fromkeys(name for group in groups for name in group)]


def _grades() -> Table:
    heads = (
        "asked for", "dates judged", "better order than the best simple rule", "at the worst date",
        "smaller error than it", "churn off by at most", "total spend off by at most",
        "bounds hold too few by at most",
    )  # fmt: skip
    rows = [
        [letter, str(rule.cutoffs), f"{rule.order:.0%}", f"{rule.worst_order:+.0%}", f"{rule.level:+.0%}",
         _limits(OF_CHURN, letter), _limits(OF_VALUE, letter), f"{100 * rule.shortfall:.0f} points"]
        for letter, rule in RULES.items()
    ]  # fmt: skip
    return Table(heads, rows)


def _limits(measures: Measures, letter: Letter) -> str:
    return ", ".join(measures.shown(limit, 0) for limit in measures.limits[letter])
