"""The data check as text for the terminal, as plain data for JSON, and as one page of HTML that needs nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from ingest.intake import Account
from pages.page import Table as Shown
from pages.page import render
from training.check.data_check import Bar, DataCheck, Purchases
from training.check.remarks import Remark
from training.check.sufficiency import Count, Sufficiency
from training.check.table_figures import Column, Table
from training.learning.leaks import LEAK_AUC, Attribute, Leaks

_MODELS = {"churn": "churn", "lifetime_value": "lifetime value", "cross_sell": "cross-sell"}
_MARKS = {"sufficient": "✓", "history only": "◐", "base rate only": "○", "insufficient": "✗"}


def as_data(check: DataCheck) -> dict[str, Any]:
    """What JSON holds: the fields of `DataCheck` by name, `suffices`, and by model the remarks that put it in doubt."""
    doubts = {sufficiency.model: check.doubts(sufficiency.model) for sufficiency in check.models}
    return asdict(check) | {"suffices": check.suffices, "doubts": doubts}


def as_text(check: DataCheck) -> str:
    """The answers first, then what to look at, what puts numbers in doubt first, then the tables."""
    blocks = [[f"Data check of {check.name}, as known before {check.as_of}{_sampled(check)}", *_doubtful(check)]]
    blocks += [_model_lines(sufficiency, check.doubts(sufficiency.model)) for sufficiency in check.models]
    if check.remarks:
        blocks.append(["look at", *(f"  {_mark(remark)} {remark}" for remark in check.remarks)])
    if check.leaks is not None and check.leaks.attributes:
        blocks.append(_attribute_lines(check.leaks))
    if check.purchases is not None:
        blocks.append(_purchase_lines(check.purchases))
    blocks += [_table_lines(table, _money(check, table)) for table in check.tables]
    return "\n\n".join("\n".join(lines) for lines in blocks)


def _sampled(check: DataCheck) -> str:
    return "" if check.one_in == 1 else f" (customers are counted from one in {check.one_in} of them)"


def _doubtful(check: DataCheck) -> list[str]:
    """One line that says that there are remarks which put the numbers in doubt; none without any."""
    doubtful = [remark for remark in check.remarks if remark.doubts]
    if not doubtful:
        return []
    many = "1 remark puts" if len(doubtful) == 1 else f"{len(doubtful)} remarks put"
    return [f"{many} the numbers in doubt: look at what is marked ! before you train"]


def _mark(remark: Remark) -> str:
    return "!" if remark.doubts else "-"


def _answer(sufficiency: Sufficiency, doubts: Sequence[str]) -> str:
    """The answer, which never stands alone where something puts its numbers in doubt."""
    answer = sufficiency.answer
    return f"{answer}, but in doubt" if doubts and answer != "insufficient" else answer


def _model_lines(sufficiency: Sufficiency, doubts: Sequence[str]) -> list[str]:
    why = f" ({'; '.join(doubts)})" if doubts and sufficiency.answer != "insufficient" else ""
    lines = [f"{_MODELS[sufficiency.model]}: {_answer(sufficiency, doubts)}{why}: {sufficiency.reason}"]
    lines += [f"  {_count(count)}" for count in sufficiency.counts]
    return lines + ([f"  needed: {'; '.join(sufficiency.needed)}"] if sufficiency.needed else [])


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
    lines = [_account(table), *(f"  {line}" for line in (*money, *_about(table))), *_aligned(rows)]
    return lines + ([f"  not given: {', '.join(_absent(table))}"] if _absent(table) else [])


def _account(table: Table) -> str:
    return str(Account(table.name, table.read, table.filtered, table.accepted, table.quarantined))


def _money(check: DataCheck, table: Table) -> list[str]:
    """What became of the amounts, as of the rows; of a table that has none, nothing."""
    if table.name != "transactions" or check.money is None:
        return []
    return [f"in {check.currency}: {check.money}"]


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


def _absent(table: Table) -> list[str]:
    return [column.name for column in table.columns if column.missing == table.accepted]


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


def as_html(check: DataCheck) -> str:
    """One page: the answers, what to look at, the pictures, the tables."""
    bought, leaks = check.purchases, check.leaks
    return render(
        "check.html",
        title=f"Data check of {check.name}, {check.as_of}",
        check=check,
        lead=_lead(check),
        cards=[_card(sufficiency, check.doubts(sufficiency.model)) for sufficiency in check.models],
        remarks=[(remark, ", ".join(_MODELS[model] for model in remark.doubts)) for remark in check.remarks],
        attributes=_attributes(leaks) if leaks and leaks.attributes else None,
        judged_at=_judged_at(leaks) if leaks else "",
        leak_auc=LEAK_AUC,
        pictures=_pictures(bought, check.currency) if bought else [],
        tables=[_table(table, _money(check, table)) for table in check.tables],
    )


def _lead(check: DataCheck) -> str:
    answers = [f"{_MODELS[v.model]}: {_answer(v, check.doubts(v.model))}" for v in check.models]
    said = [f"as known before {check.as_of}{_sampled(check)}", "; ".join(answers), *_doubtful(check)]
    return " ".join(f"{text[:1].upper()}{text[1:]}." for text in said)


def _card(sufficiency: Sufficiency, doubts: Sequence[str]) -> dict[str, Any]:
    """Doubts say nothing where the data do not suffice anyway."""
    answer = _answer(sufficiency, doubts)
    is_doubtful = answer != sufficiency.answer
    rows = [[c.what, f"{c.found:,}", "" if c.minimum is None else f"{c.minimum:,}"] for c in sufficiency.counts]
    return {
        "model": _MODELS[sufficiency.model], "sufficiency": sufficiency, "answer": answer,
        "doubts": doubts if is_doubtful else (),
        "look": {"sufficient": "good", "insufficient": "bad"}.get(answer, "fair"),
        "mark": "!" if is_doubtful else _MARKS[sufficiency.answer],
        "counts": Shown(("Counted", "Found", "Least"), rows) if rows else None,
    }  # fmt: skip


def _attributes(leaks: Leaks) -> Shown:
    heads = ("attribute", "kind", "filled", "distinct", "AUC alone", "AUC, equally silent", "verdict")
    rows = [
        [a.name, a.kind, f"{a.filled:.0%}", f"{a.distinct:,}", _auc(a.auc), _auc(a.like_auc), _accusation(a)]
        for a in leaks.attributes
    ]
    return Shown(heads, rows)


def _accusation(attribute: Attribute) -> str:
    if attribute.suspicion is None:
        return "nothing suspicious"
    return f"{attribute.suspicion}: {attribute.figure}; {attribute.remedy}"


def _pictures(bought: Purchases, currency: str) -> list[dict[str, Any]]:
    return [
        _counted("Purchases per month", bought.by_month),
        _counted("Customers by number of purchases", bought.by_count),
        _counted(f"Purchases by net spend, {currency}", bought.by_spend),
    ]


def _counted(title: str, bars: Sequence[Bar]) -> dict[str, Any]:
    """The picture, what it says in a sentence for who cannot see it, and its numbers."""
    from pages import picture  # half of the time that a check takes to start, and only the page needs it

    most = max(bars, key=lambda bar: bar.count)
    says = f"{title}: from {bars[0].label} to {bars[-1].label}; most, {most.count:,}, at {most.label}."
    figure = picture.bars([bar.label for bar in bars], [bar.count for bar in bars])
    return {
        "picture": picture.picture(picture.drawn(figure), f"{title} (most: {most.count:,})", says),
        "numbers": Shown(("", "count"), [[bar.label, f"{bar.count:,}"] for bar in bars]),
    }


def _table(table: Table, money: Sequence[str]) -> dict[str, Any]:
    heads = ("column", "type", "missing", "distinct", "lowest", "median", "highest", "most frequent")
    months = [Bar(month.month, month.rows) for month in table.coverage.months] if table.coverage else []
    return {
        "name": table.name, "account": _account(table), "about": [*money, *_about(table)],
        "months": _counted(f"Rows of {table.name} per month", months) if months else None,
        "columns": Shown(heads, [_cells(table, column) for column in _given(table)]),
        "absent": ", ".join(_absent(table)),
    }  # fmt: skip
