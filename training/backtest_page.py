"""The backtest as one page of HTML that needs nothing else, for who decides whether to rely on the models."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from html import escape

from matplotlib.figure import Figure

from training import plots
from training.backtest import OVERLAPPING
from training.backtest_report import EVERYONE, NO_SEGMENT, Report, Total, asked, parts, segment_totals, shown, totals
from training.evaluation import Evaluation
from training.grade import ERRORS, RULES, Letter, shown_error
from training.scoreboard import Contender, Spread, worth

TITLES = {"churn": "Who will leave", "lifetime_value": "What customers will spend", "cross_sell": "What to offer"}
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


def as_html(report: Report) -> str:
    """Grades first, then each model's pictures and tables, then how to read them."""
    title = f"Backtest of {report.name}, {report.as_of}"
    body = [
        f"<h1>Can we rely on the predictions?</h1><p class=lead>{escape(_lead(report))}</p>",
        f'<section class="cards" aria-label="Grades">{"".join(map(grade_card, report.models))}</section>',
        *(section(found, report.currency) for found in _by_money(report.models) if found.judged),
        _how_to_read(report.models),
    ]
    return page(title, body, "<code>perennial backtest</code>; every figure is in the JSON file beside this page")


def page(title: str, body: Sequence[str], maker: str) -> str:
    """One page that needs nothing else; `maker` is HTML that says what made it."""
    return _PAGE.format(title=escape(title), style=_STYLE, body="\n".join(body), maker=maker)


def _by_money(models: Sequence[Evaluation]) -> list[Evaluation]:
    return sorted(models, key=lambda found: found.kind != "lifetime_value")


def _lead(report: Report) -> str:
    dates = sorted({cutoff.as_of for found in report.models for cutoff in found.judged})
    if not dates:
        return f"{report.name}, as known before {report.as_of}: no earlier prediction could be checked."
    return (
        f"{report.name}: we went back to {len(dates)} earlier dates, from {dates[0]} to {dates[-1]}, let the models"
        " learn from nothing but what was known on each of them, and compared their predictions with what customers"
        f" then did. Everything known before {report.as_of} is used; nothing here was adjusted afterwards."
    )


def grade_card(found: Evaluation) -> str:
    """A model's grade, the one thing to know of it, and why it has that grade."""
    letter = found.grade.letter
    shown_letter, is_open = ("–", " open") if letter == "none" else (letter, "")
    return (
        f'<article class="card grade-{letter}"><p class=letter aria-label="grade {letter}">{shown_letter}</p>'
        f"<h2>{TITLES[found.kind]}</h2><p><strong>{_MEANINGS[letter]}</strong></p>"
        f"<p>{escape(_headline(found))}</p><details{is_open}><summary>Why this grade</summary>"
        f"<p>{escape(_sentence(found.grade.reason))}</p></details></article>"
    )


def _headline(found: Evaluation) -> str:
    """The one thing to know of a model, in words."""
    if found.board is None:
        return _sentence(found.grade.reason)
    figures = found.board.ours.figures
    days, count = found.horizon, len(found.judged)
    if found.kind == "lifetime_value":
        bias, held, stated = (figures[name] for name in ("bias", "coverage", "coverage_stated"))
        return (
            f"Over {days} days the total was off by {bias.mean:.0%} on average over {count} dates, at the worst by"
            f" {abs(bias.worst):.0%}; {held.mean:.0%} of the customers spent within their bounds, which should hold"
            f" {100 * stated.mean:g}%."
        )
    if found.kind == "churn":
        return (
            f"Of two customers, one of whom leaves within {days} days, the right one is named"
            f" {figures['auc'].mean:.0%} of the time; probabilities are off by"
            f" {shown_error('churn', figures['ece'].mean, 0)} on average."
        )
    hit = next(name for name in figures if name.startswith("hit"))
    return (
        f"{figures[hit].mean:.0%} of those who bought, bought something on their list of {hit[3:]} within {days} days."
    )


def section(found: Evaluation, currency: str) -> str:
    """A judged model's pictures and tables: totals by date, beside its rivals, by segment."""
    pictures = "".join(_picture(name, figure) for name, figure in plots.of(found.kind, found.judged, currency).items())
    told = [f'<h2>{TITLES[found.kind]}</h2><div class="pictures">{pictures}</div>']
    if found.kind != "cross_sell":
        told += _total_tables(found, "leavers" if found.kind == "churn" else currency)
    for of, names in shown(found).items():
        told += [_contender_table(found, of, names), _segment_table(found, of, names)]
    assert found.board is not None
    missing = ", ".join(found.board.missing)
    if missing:
        told.append(f"<p>Not identified by the data at every date, so not compared: {escape(missing)}.</p>")
    return f"<section>{''.join(told)}</section>"


def _total_tables(found: Evaluation, what: str) -> list[str]:
    """By date and by segment; the counts of either add up to those of everyone, which is its last row."""
    *apart, everyone = parts(found)
    all_dates = replace(everyone, name="all dates")
    inside = [total for total in segment_totals(found) if total.name in OVERLAPPING]
    of_those = [replace(total, name=f"of these, {total.name}") for total in inside]
    note = (
        "<p class=note>A customer counts once at each date. Off by: of several dates the mean of their sizes, since too"
        " much on one does not make up for too little on the next.</p>"
    )
    return [
        note, _total_table("Predicted on", [*totals(found), all_dates], what, found),
        _total_table("Segment, all dates", [*apart, everyone, *of_those], what),
    ]  # fmt: skip


def _picture(name: str, figure: Figure) -> str:
    held = io.BytesIO()
    figure.savefig(held, format="svg", metadata={"Date": None})
    data = base64.b64encode(held.getvalue()).decode()
    caption = _CAPTIONS[name]
    image = f'<img alt="{caption}" src="data:image/svg+xml;base64,{data}">'
    return f"<figure>{image}<figcaption>{caption}</figcaption></figure>"


def _total_table(first: str, rows: Sequence[Total], what: str, found: Evaluation | None = None) -> str:
    heads = [first, "customers", f"expected, {what}", f"actual, {what}", "off by"]
    figures = found.board.ours.figures if found and found.board else {}
    cells = [[t.name, f"{t.customers:,}", f"{t.expected:,.0f}", f"{t.actual:,.0f}", _off(t)] for t in rows]
    if "coverage" in figures:
        heads.append(f"within bounds, {100 * figures['coverage_stated'].mean:g}% stated")
        each = figures["coverage"].each
        at = [total.customers for total in rows]
        overall = sum(share * count for share, count in zip(each, at, strict=False)) / at[-1]
        cells = [[*row, f"{value:.1%}"] for row, value in zip(cells, (*each, overall), strict=True)]
    return table(heads, cells)


def _contender_table(found: Evaluation, of: str, names: Sequence[str]) -> str:
    """Mean over the cutoffs, the best of a column marked, the worst cutoff below it."""
    assert found.board is not None
    contenders = found.board.contenders
    best = {name: _best(contenders, name) for name in names}
    count = f"<td>{asked(found.judged, names[0]):,}</td>"
    rows = [
        [f"<th scope=row>{escape(c.name)}</th>", count]
        + [_cell(c.figures.get(name), best[name], c.ahead.get(name)) for name in names]
        for c in contenders
    ]
    note = "Mean over the dates; small: the worst of them. Bold: the best of the column."
    title = f"Beside simple rules and the field's models{_only(of)}"
    return f"<h3>{title}</h3><p class=note>{note}{_who(of)}</p>{_raw_table(['', 'customers', *names], rows)}"


def _only(of: str) -> str:
    return "" if of == EVERYONE else f": {of}"


def _who(of: str) -> str:
    return "" if of == EVERYONE else f" Of the customers who bought {of}."


def _best(contenders: Sequence[Contender], name: str) -> float:
    known = [c.figures[name].mean for c in contenders if name in c.figures and not math.isnan(c.figures[name].mean)]
    return max(known, key=lambda value: worth(name, value), default=math.nan)


def _cell(spread: Spread | None, best: float, ahead: Spread | None) -> str:
    if spread is None or math.isnan(spread.mean):
        return "<td>–</td>"
    tag = "strong" if spread.mean == best else "span"
    title = ""
    if ahead is not None and not math.isnan(ahead.low):
        title = f' title="ours minus this: {ahead.mean:+.4f} ({ahead.low:+.4f} to {ahead.high:+.4f}, 95 %)"'
    return f"<td{title}><{tag}>{spread.mean:.3f}</{tag}><small>{spread.worst:.3f}</small></td>"


def _segment_table(found: Evaluation, of: str, names: Sequence[str]) -> str:
    """The counts of the segments, the overlapping ones last and apart, add up to those of everyone."""
    assert found.board is not None
    whole = asked(found.judged, names[0])
    apart = [name for name in found.board.segments if name not in OVERLAPPING]
    counts = {name: asked(found.judged, names[0], name) for name in found.board.segments}
    figures = {name: contenders[0].figures for name, contenders in found.board.segments.items()}
    rows = [_segment_row(name, counts[name], figures[name], names) for name in apart]
    if rest := whole - sum(counts[name] for name in apart):
        rows.append(_segment_row(NO_SEGMENT, rest, {}, names))
    rows.append(_segment_row(EVERYONE, whole, found.board.ours.figures, names))
    rows += [
        _segment_row(f"of these, {name}", counts[name], figures[name], names) for name in counts if name in OVERLAPPING
    ]
    return f"<h3>Our model by segment{_only(of)}</h3>{_raw_table(['', 'customers', *names], rows)}"


def _segment_row(name: str, count: int, figures: Mapping[str, Spread], names: Sequence[str]) -> list[str]:
    cells = [_cell(figures.get(metric), math.nan, None) for metric in names]
    return [f"<th scope=row>{escape(name)}</th>", f"<td>{count:,}</td>", *cells]


def _raw_table(names: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    heads = "".join(f'<th scope=col title="{escape(_explained(n)[1])}">{_explained(n)[0]}</th>' for n in names)
    body = "".join(f"<tr>{''.join(row)}</tr>" for row in rows)
    return f'<div class="wide" tabindex="0"><table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>'


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """The first column of texts names the row; all are escaped."""
    head = "".join(f"<th scope=col>{escape(text)}</th>" for text in heads)
    body = "".join(
        f"<tr><th scope=row>{escape(row[0])}</th>{''.join(f'<td>{escape(cell)}</td>' for cell in row[1:])}</tr>"
        for row in rows
    )
    return f'<div class="wide" tabindex="0"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _explained(name: str) -> tuple[str, str]:
    """Heading and meaning of a figure; those of offers carry the list's length, and which items count."""
    if name in _FIGURES or not name:
        return _FIGURES.get(name, ("", ""))
    if name == "customers":
        return name, "of how many customers the row is; each counts once at each date"
    stem, _, kind = name.partition("_")
    heading, meaning = _FIGURES[stem.rstrip("0123456789")]
    part = {"repeat": "repeats", "new": "new items"}.get(kind, "")
    return (f"{heading}, {part}" if part else heading), meaning


def _off(total: Total) -> str:
    """With its sign where it is of one date."""
    return "–" if math.isnan(total.off) else f"{total.off:+.1%}" if len(total.each) == 1 else f"{total.off:.1%}"


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _how_to_read(models: Sequence[Evaluation]) -> str:
    groups = [group for found in models if found.board for group in shown(found).values()]
    names = dict.fromkeys(name for group in groups for name in group)
    figures = "".join(f"<dt>{_explained(name)[0]}</dt><dd>{_explained(name)[1]}</dd>" for name in names)
    segments = (
        "<p>Segments, by what was known on the date: <strong>new</strong> customers first bought less than 90 days"
        " before; <strong>one-time</strong> customers on one day only, longer ago; <strong>repeat</strong> customers on"
        " two days or more; the <strong>top decile</strong> is the tenth who spent most in the year before, whatever"
        " else they are.</p>"
    )
    return (
        "<section><h2>How to read this</h2>"
        "<p>A model that was right once may have been lucky, and the past it learnt from is easy to explain. So each"
        " model is trained again as if it were an earlier day, sees only windows that had ended by then, and is judged"
        " on the days that followed, more than once. Beside it stand a rule that needs no model (longest silent first;"
        " last year's spend again; the usual items again) and the models that the field has used for decades.</p>"
        f"{segments}<details><summary>The figures</summary><dl>{figures}</dl></details>"
        f"<details open><summary>The grades</summary>{_grades()}</details></section>"
    )


def _grades() -> str:
    meanings = "".join(f"<dt>{letter}</dt><dd>{words}</dd>" for letter, words in _MEANINGS.items())
    heads = (
        "asked for", "dates judged", "better order than the best simple rule", "at the worst date",
        "smaller error than it", "churn off by at most", "total spend off by at most",
        "bounds hold too few by at most",
    )  # fmt: skip
    rows = [
        [letter, str(rule.cutoffs), f"{rule.order:.0%}", f"{rule.worst_order:+.0%}", f"{rule.level:+.0%}",
         _limits("churn", letter), _limits("lifetime_value", letter), f"{100 * rule.shortfall:.0f} points"]
        for letter, rule in RULES.items()
    ]  # fmt: skip
    return (
        f"<dl>{meanings}</dl><p>A grade needs everything in its row. The order's share is of the way from the simple"
        " rule to a perfect order; limits are on average, then at the worst date. The field's models must not be"
        " clearly better either, and for an A not by any more than chance; docs/models.md has every rule.</p>"
        f"{table(heads, rows)}"
    )


def _limits(kind: str, letter: Letter) -> str:
    return ", ".join(shown_error(kind, limit, 0) for limit in ERRORS[kind][letter])


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<title>{title}</title>
<style>{style}</style>
</head>
<body><main>
{body}
<footer>Made by {maker}.</footer>
</main></body>
</html>
"""

_STYLE = """
:root { color-scheme: light; --ink: #1b2530; --soft: #56616d; --card: #fff; --line: #dde3e9; --accent: #1f5fa8; }
* { box-sizing: border-box; }
body { margin: 0; background: #f3f5f8; color: var(--ink); font: 1rem/1.5 system-ui, sans-serif; }
main { max-width: 66rem; margin: 0 auto; padding: 1.25rem 1rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: .5rem 0; }
h2 { font-size: 1.35rem; margin: 0 0 .75rem; }
h3 { font-size: 1.05rem; margin: 1.6rem 0 .2rem; }
.lead { color: var(--soft); max-width: 52rem; margin: 0 0 1.5rem; }
.note { color: var(--soft); font-size: .85rem; margin: 0 0 .4rem; }
section { background: var(--card); border: 1px solid var(--line); border-radius: .6rem; padding: 1.2rem;
  margin: 0 0 1.25rem; }
.cards { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 17rem), 1fr));
  background: none; border: 0; padding: 0; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: .6rem; padding: 1rem 1.1rem; }
.card h2 { margin: 0; padding-top: .4rem; font-size: 1.15rem; min-height: 3.4rem; }
.card p { margin: .5rem 0; }
.letter { float: right; width: 3.2rem; height: 3.2rem; line-height: 3.2rem; border-radius: 50%; text-align: center;
  font-size: 1.7rem; font-weight: 700; color: #fff; margin: 0 0 .3rem .6rem !important; background: #8a949e; }
.grade-A .letter { background: #17703c; } .grade-B .letter { background: #1f5fa8; }
.grade-C .letter { background: #b06a00; }
.pictures { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); }
figure { margin: 0; } img { width: 100%; height: auto; display: block; }
figcaption { color: var(--soft); font-size: .88rem; padding: .2rem .3rem; }
table { border-collapse: collapse; width: 100%; font-size: .92rem; font-variant-numeric: tabular-nums;
  margin-top: .8rem; }
th, td { text-align: right; font-weight: 400; padding: .4rem .6rem; border-bottom: 1px solid var(--line);
  vertical-align: top; }
thead th { color: var(--soft); font-size: .8rem; vertical-align: bottom; line-height: 1.25; }
tbody th, thead th:first-child { text-align: left; padding-left: 0; }
tbody th { font-weight: 600; white-space: nowrap; }
td small { display: block; color: var(--soft); font-size: .78rem; }
.wide { overflow-x: auto; }
details { margin: .6rem 0; } summary { cursor: pointer; color: var(--accent); }
dl { display: grid; grid-template-columns: minmax(4rem, max-content) 1fr; gap: .35rem 1rem; margin: .6rem 0; }
dt { font-weight: 600; } dd { margin: 0; }
footer { color: var(--soft); font-size: .85rem; margin: 1.5rem 0; }
@media print { body { background: #fff; } section, .card { break-inside: avoid; } }
@media (max-width: 30rem) { section { padding: .9rem; } h1 { font-size: 1.5rem; }
  dl { grid-template-columns: 1fr; gap: .1rem; } dd { margin-bottom: .5rem; } }
"""
