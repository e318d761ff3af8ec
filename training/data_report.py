"""The data check as text for the terminal, as plain data for JSON, and as one page of HTML that needs nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from html import escape
from typing import Any

from perennial.ingest import Account
from training.data_check import Bar, DataCheck, Purchases
from training.leaks import LEAK_AUC, Attribute, Leaks
from training.remarks import Remark
from training.sufficiency import Count, Verdict
from training.table_figures import Column, Table

_MODELS = {"churn": "churn", "lifetime_value": "lifetime value", "cross_sell": "cross-sell"}
_MARKS = {"sufficient": "✓", "history only": "◐", "base rate only": "○", "insufficient": "✗"}


def as_data(found: DataCheck) -> dict[str, Any]:
    """What JSON holds: the fields of `DataCheck` by name, `suffices`, and by model the remarks that put it in doubt."""
    doubts = {verdict.model: found.doubts(verdict.model) for verdict in found.models}
    return asdict(found) | {"suffices": found.suffices, "doubts": doubts}


def as_text(found: DataCheck) -> str:
    """The verdicts first, then what to look at, what puts numbers in doubt first, then the tables."""
    blocks = [[f"Data check of {found.name}, as known before {found.as_of}{_sampled(found)}", *_doubtful(found)]]
    blocks += [_verdict_lines(verdict, found.doubts(verdict.model)) for verdict in found.models]
    if found.remarks:
        blocks.append(["look at", *(f"  {_mark(remark)} {remark}" for remark in found.remarks)])
    if found.leaks is not None and found.leaks.attributes:
        blocks.append(_attribute_lines(found.leaks))
    if found.purchases is not None:
        blocks.append(_purchase_lines(found.purchases))
    blocks += [_table_lines(table, _money(found, table)) for table in found.tables]
    return "\n\n".join("\n".join(lines) for lines in blocks)


def _sampled(found: DataCheck) -> str:
    return "" if found.one_in == 1 else f" (customers are counted from one in {found.one_in} of them)"


def _doubtful(found: DataCheck) -> list[str]:
    """One line that says that there are remarks which put the numbers in doubt; none without any."""
    doubtful = [remark for remark in found.remarks if remark.doubts]
    if not doubtful:
        return []
    many = "1 remark puts" if len(doubtful) == 1 else f"{len(doubtful)} remarks put"
    return [f"{many} the numbers in doubt: look at what is marked ! before you train"]


def _mark(remark: Remark) -> str:
    return "!" if remark.doubts else "-"


def _answer(verdict: Verdict, doubts: Sequence[str]) -> str:
    """The verdict, which never stands alone where something puts its numbers in doubt."""
    return f"{verdict.answer}, but in doubt" if doubts and verdict.answer != "insufficient" else verdict.answer


def _verdict_lines(verdict: Verdict, doubts: Sequence[str]) -> list[str]:
    why = f" ({'; '.join(doubts)})" if doubts and verdict.answer != "insufficient" else ""
    lines = [f"{_MODELS[verdict.model]}: {_answer(verdict, doubts)}{why}: {verdict.reason}"]
    lines += [f"  {_count(count)}" for count in verdict.counts]
    return lines + ([f"  needed: {'; '.join(verdict.needed)}"] if verdict.needed else [])


def _count(count: Count) -> str:
    least = "" if count.minimum is None else f" (at least {count.minimum:,} needed)"
    return f"{count.what}: {count.found:,}{least}"


def _attribute_lines(leaks: Leaks) -> list[str]:
    rows = [["attribute", "kind", "filled", "distinct", "AUC alone", "equally silent", ""]]
    rows += [
        [a.name, a.kind, f"{a.filled:.0%}", f"{a.distinct:,}", _auc(a.auc), _auc(a.like_auc), a.suspicion or ""]
        for a in leaks.attributes
    ]
    return [_judged_at(leaks), *_aligned(rows)]


def _judged_at(leaks: Leaks) -> str:
    return (
        f"attributes, held against the {leaks.left:,} customers who left and the {leaks.stayed:,} who stayed after"
        f" {leaks.cutoff} (days since the last purchase alone: AUC {_auc(leaks.silence_auc)})"
    )


def _auc(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _purchase_lines(bought: Purchases) -> list[str]:
    without = f"; {bought.without:,} rows of customers have no purchase" if bought.without else ""
    return [
        f"purchases: {bought.purchases:,} by {bought.customers:,} customers, of whom {bought.repeat_buyers:,}"
        f" ({bought.repeat_share:.1%}) bought on two days or more{without}",
        "  customers by number of purchases: "
        + ", ".join(f"{bar.label}: {bar.count:,}" for bar in bought.by_count if bar.count),
    ]


def _table_lines(table: Table, money: Sequence[str]) -> list[str]:
    rows = [["column", "type", "missing", "distinct", "lowest", "median", "highest", "most frequent"]]
    rows += [_cells(table, column) for column in _given(table)]
    absent = [column.name for column in table.columns if column.missing == table.accepted]
    lines = [_account(table), *(f"  {line}" for line in (*money, *_about(table))), *_aligned(rows)]
    return lines + ([f"  not given: {', '.join(absent)}"] if absent else [])


def _account(table: Table) -> str:
    return str(Account(table.name, table.read, table.filtered, table.accepted, table.quarantined))


def _money(found: DataCheck, table: Table) -> list[str]:
    """What became of the amounts, as of the rows; of a table that has none, nothing."""
    if table.name != "transactions" or found.money is None:
        return []
    return [f"in {found.currency}: {found.money}"]


def _about(table: Table) -> list[str]:
    """What the account and the columns do not say, a line each."""
    lines = []
    if (seen := table.coverage) is not None:
        empty = f", nothing in {', '.join(seen.empty_months)}" if seen.empty_months else ", something in every month"
        lines.append(f"from {seen.first} to {seen.last}: {len(seen.months)} months{empty}")
        if seen.silent_after is not None:
            lines.append(f"longest stretch of days without a row: {seen.longest_silence}, after {seen.silent_after}")
        if seen.not_known_yet:
            lines.append(f"not known yet at the as_of: {seen.not_known_yet:,} rows; no model learns from them")
    lines.append(f"duplicates in quarantine: {table.duplicates:,}; equal lines kept: {table.equal_lines:,}")
    for orphans in table.orphans:
        lines.append(f"{orphans.column} not in {orphans.table}: {orphans.ids:,} ids in {orphans.rows:,} rows")
    return lines


def _given(table: Table) -> list[Column]:
    return [column for column in table.columns if column.missing < table.accepted]


def _cells(table: Table, column: Column) -> list[str]:
    distinct = f"{column.distinct:,}" if column.distinct < 100 else f"~{column.distinct:,}"
    missing = f"{column.missing / table.accepted:.1%}" if column.missing else "0"
    shown = (_value(value) for value in (column.low, column.median, column.high, column.common))
    return [column.name, column.type, missing, distinct, *shown]


def _value(value: float | str | None) -> str:
    if value is None:
        return "-"
    text = value if isinstance(value, str) else f"{value + 0.0:,.2f}".removesuffix(".00")  # no -0
    text = " ".join(text.split())
    return text if len(text) <= 24 else f"{text[:21]}..."


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return [f"  {line}".rstrip() for line in lines]


def as_html(found: DataCheck) -> str:
    """One page: the verdict, why, the pictures, the tables. Every text of the data is escaped; nothing is fetched."""
    parts = [
        f"<h1>Data check of {escape(found.name)}</h1>",
        f"<p>As known before <strong>{found.as_of}</strong>{escape(_sampled(found))}. {escape(_in_short(found))}</p>",
        '<section class="cards" aria-label="Which models the data suffice for">',
        *(_card(verdict, found.doubts(verdict.model)) for verdict in found.models),
        "</section>",
        _section("What to look at", _remarks(found.remarks)),
    ]
    if found.leaks is not None and found.leaks.attributes:
        parts.append(_section("Attributes against the outcome", _attributes(found.leaks)))
    if found.purchases is not None:
        parts.append(_section("Customers and purchases", _pictures(found.purchases, found.currency)))
    parts += [_section(f"Table: {table.name}", _table(table, _money(found, table))) for table in found.tables]
    title = f"Data check of {escape(found.name)}, {found.as_of}"
    return _PAGE.format(title=title, style=_STYLE, body="\n".join(parts))


def _in_short(found: DataCheck) -> str:
    answers = [f"{_MODELS[v.model]}: {_answer(v, found.doubts(v.model))}" for v in found.models]
    return " ".join(map(_sentence, ["; ".join(answers), *_doubtful(found)]))


def _sentence(text: str) -> str:
    return f"{_capital(text)}."


def _capital(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}"


def _section(title: str, body: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{body}</section>"


def _list(items: Iterable[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(item)}</li>' for item in items)}</ul>"


def _remarks(remarks: Sequence[Remark]) -> str:
    """A list, those first that put numbers in doubt: each with what it is called, what was found and what to do."""
    if not remarks:
        return "<p>Nothing stands out.</p>"
    return f'<ul class="remarks">{"".join(map(_remark, remarks))}</ul>'


def _remark(remark: Remark) -> str:
    doubts = ", ".join(_MODELS[model] for model in remark.doubts)
    doubtful = f' <span class="doubts">! puts {doubts} in doubt</span>' if doubts else ""
    return (
        f"<li{' class=doubtful' if doubts else ''}><p><strong>{escape(_capital(remark.name))}</strong>{doubtful}</p>"
        f"<p>{escape(remark.about)}: {escape(remark.says)}.</p>"
        f"<p><em>What to do:</em> {escape(_capital(remark.do))}</p></li>"
    )


def _card(verdict: Verdict, doubts: Sequence[str]) -> str:
    answer = _answer(verdict, doubts)
    kind, mark = ("in-doubt", "!") if answer != verdict.answer else (verdict.answer.replace(" ", "-"),
                                                                      _MARKS[verdict.answer])  # fmt: skip
    looked = f"<h4>What puts it in doubt</h4>{_list(map(_sentence, doubts))}" if kind == "in-doubt" else ""
    needed = f"<h4>What would be needed</h4>{_list(verdict.needed)}" if verdict.needed else ""
    return (
        f'<article class="card {kind}"><h3>{_MODELS[verdict.model].capitalize()}</h3>'
        f'<p class="answer"><span aria-hidden="true">{mark}</span> {answer}</p>{looked}'
        f"<p>{escape(_sentence(verdict.reason))}</p>{_counts(verdict.counts)}{needed}</article>"
    )


def _counts(counts: Sequence[Count]) -> str:
    rows = "".join(
        f"<tr><th scope=row>{escape(count.what)}</th><td>{count.found:,}</td>"
        f"<td>{'' if count.minimum is None else f'{count.minimum:,}'}</td></tr>"
        for count in counts
    )
    heads = "<thead><tr><th scope=col>Counted</th><th scope=col>Found</th><th scope=col>Least</th></tr></thead>"
    return f'<table class="counts">{heads}<tbody>{rows}</tbody></table>' if counts else ""


def _attributes(leaks: Leaks) -> str:
    heads = ("attribute", "kind", "filled", "distinct", "AUC alone", "AUC, equally silent", "verdict")
    rows = [
        [a.name, a.kind, f"{a.filled:.0%}", f"{a.distinct:,}", _auc(a.auc), _auc(a.like_auc), _accusation(a)]
        for a in leaks.attributes
    ]
    note = (
        f"An AUC of 0.5 is chance; from {LEAK_AUC} on an attribute is suspicious, unless it says nothing beyond how"
        " long customers have been silent."
    )
    return f"<p>{escape(_sentence(_judged_at(leaks)))} {note}</p>{_rows(heads, rows)}"


def _accusation(attribute: Attribute) -> str:
    if attribute.suspicion is None:
        return "nothing suspicious"
    return f"{attribute.suspicion}: {attribute.figure}; {attribute.remedy}"


def _rows(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table that scrolls sideways by itself on a narrow screen; the first cell of a row names it."""
    head = "".join(f"<th scope=col>{escape(text)}</th>" for text in heads)
    body = "".join(
        f"<tr><th scope=row>{escape(row[0])}</th>{''.join(f'<td>{escape(cell)}</td>' for cell in row[1:])}</tr>"
        for row in rows
    )
    return f'<div class="wide" tabindex="0"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _pictures(bought: Purchases, currency: str) -> str:
    without = f" {bought.without:,} rows of the customers table have no purchase." if bought.without else ""
    return (
        f"<p>{bought.customers:,} customers with {bought.purchases:,} purchases; {bought.repeat_share:.1%} of them"
        f" bought on two days or more.{without}</p>"
        + _picture("Purchases per month", bought.by_month)
        + _picture("Customers by number of purchases", bought.by_count)
        + _picture(f"Purchases by net spend, {currency}", bought.by_spend)
    )


def _picture(title: str, bars: Sequence[Bar]) -> str:
    """Columns that fill the page's width, what they say in a sentence for who cannot see them, and the numbers."""
    most = max(bars, key=lambda bar: bar.count)
    says = f"{title}: from {bars[0].label} to {bars[-1].label}; most, {most.count:,}, at {most.label}."
    heights = [100 * bar.count / max(1, most.count) for bar in bars]
    columns = "".join(
        f'<rect x="{10 * place + 1}" y="{100 - height:.2f}" width="8" height="{height:.2f}"/>'
        for place, height in enumerate(heights)
    )
    marked = {0, len(bars) - 1} if len(bars) > 10 else range(len(bars))
    labels = "".join(f"<span>{escape(bars[place].label)}</span>" for place in sorted(marked))
    return (
        f"<figure><figcaption>{escape(title)} (most: {most.count:,})</figcaption>"
        f'<svg role="img" aria-label="{escape(says)}" viewBox="0 0 {10 * len(bars)} 100" preserveAspectRatio="none">'
        f'{columns}</svg><div class="labels{" ends" if len(bars) > 10 else ""}" aria-hidden="true">{labels}</div>'
        f"<details><summary>The numbers</summary>"
        f"{_rows(('', 'count'), [[bar.label, f'{bar.count:,}'] for bar in bars])}</details></figure>"
    )


def _table(table: Table, money: Sequence[str]) -> str:
    heads = ("column", "type", "missing", "distinct", "lowest", "median", "highest", "most frequent")
    absent = [column.name for column in table.columns if column.missing == table.accepted]
    not_given = f"<p>Not given: {escape(', '.join(absent))}.</p>" if absent else ""
    months = [Bar(month.month, month.rows) for month in table.coverage.months] if table.coverage else []
    return (
        f"<p>{escape(_account(table))}</p>{_list([*money, *_about(table)])}"
        + (_picture(f"Rows of {table.name} per month", months) if months else "")
        + _missing(table)
        + _rows(heads, [_cells(table, column) for column in _given(table)])
        + not_given
    )


def _missing(table: Table) -> str:
    """Columns that miss values, longest bar first; nothing where none does."""
    short = sorted((c for c in _given(table) if c.missing), key=lambda column: -column.missing)
    bars = "".join(
        f'<li><span class="name">{escape(column.name)}</span><span class="bar" aria-hidden="true">'
        f'<span style="width:{100 * column.missing / table.accepted:.1f}%"></span></span>'
        f"<span>{column.missing / table.accepted:.1%}</span></li>"
        for column in short
    )
    return f'<h3>Missing values</h3><ul class="bars">{bars}</ul>' if bars else ""


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title>
<style>{style}</style>
</head>
<body><main>
{body}
<footer>Made by <code>perennial check</code>; what each figure means is in docs/data_check.md.</footer>
</main></body>
</html>
"""

_STYLE = """
:root { color-scheme: light dark; --ink: #1d2329; --soft: #56616d; --paper: #fff; --card: #f4f6f8; --line: #d5dbe1;
  --accent: #2563a8; --good: #17703c; --fair: #8a5a00; --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6eaee; --soft: #a3afbb; --paper: #14181c; --card: #1f252b;
  --line: #38424c; --accent: #79b0ea; --good: #74cf96; --fair: #e8b657; --bad: #ff9d94; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 1rem/1.5 system-ui, sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 1rem; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: .5rem 0; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .5rem; border-bottom: 1px solid var(--line); padding-bottom: .25rem; }
h3 { font-size: 1.05rem; margin: 1rem 0 .25rem; }
h4 { font-size: .95rem; margin: .75rem 0 0; }
ul { padding-left: 1.2rem; margin: .5rem 0; }
li { margin: .3rem 0; }
.cards { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 17rem), 1fr)); }
.card { background: var(--card); border-radius: .5rem; border-top: .3rem solid var(--bad); padding: .75rem 1rem; }
.card h3 { margin: 0; }
.card p { margin: .4rem 0; }
.answer { font-weight: 700; font-size: 1.15rem; color: var(--bad); }
.sufficient { border-color: var(--good); } .sufficient .answer { color: var(--good); }
.in-doubt { border-color: var(--fair); } .in-doubt .answer { color: var(--fair); }
.remarks { list-style: none; padding: 0; }
.remarks li { border-left: .25rem solid var(--line); padding: .1rem 0 .1rem .75rem; margin: .8rem 0; }
.remarks p { margin: .15rem 0; }
.remarks .doubtful { border-color: var(--fair); } .doubts { color: var(--fair); font-size: .9rem; font-weight: 600; }
.history-only { border-color: var(--fair); } .history-only .answer { color: var(--fair); }
.base-rate-only { border-color: var(--fair); } .base-rate-only .answer { color: var(--fair); }
table { border-collapse: collapse; width: 100%; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; font-weight: 400; padding: .3rem .6rem .3rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; }
thead th { color: var(--soft); font-size: .8rem; }
.counts td, .counts thead th + th { text-align: right; white-space: nowrap; }
.wide { overflow-x: auto; overflow-wrap: normal; }
.wide tbody th { white-space: nowrap; font-weight: 600; }
.wide td { min-width: 4.5rem; max-width: 22rem; }
figure { margin: 1rem 0 1.5rem; }
figcaption { font-weight: 600; margin-bottom: .3rem; }
svg { display: block; width: 100%; height: 9rem; border-bottom: 1px solid var(--soft); }
rect { fill: var(--accent); }
.labels { display: flex; font-size: .75rem; color: var(--soft); }
.labels span { flex: 1; text-align: center; padding: .15rem; }
.labels.ends { justify-content: space-between; } .labels.ends span { flex: none; }
details { margin-top: .3rem; } summary { cursor: pointer; color: var(--soft); font-size: .9rem; }
.bars { list-style: none; padding: 0; }
.bars li { display: grid; grid-template-columns: minmax(6rem, 11rem) 1fr 4rem; gap: .6rem; align-items: center; }
.bar { background: var(--card); height: .8rem; border-radius: .2rem; overflow: hidden; }
.bar span { display: block; height: 100%; background: var(--accent); }
footer { margin: 3rem 0 1rem; color: var(--soft); font-size: .85rem; }
"""
