"""What ingest made of each table: the rows that count, those that were set aside and why, and the money of both."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from starlette.responses import Response

from ingest.intake import Account
from serving.desk import reports, words
from serving.desk.fault_words import Fault, in_words
from serving.desk.language import Language
from serving.desk.visit import ADMIN, Visit
from workspace import ids, storage
from workspace.money import NOTHING, Money
from workspace.settings import Workspace
from workspace.tables import CONTRACTS

_EXAMPLES = 3
_LONGEST = 60  # characters of a cell


@dataclass(frozen=True)
class Faulty:
    """Rows of one table that were set aside for one reason; `money` is none where nobody knows the amount of any.

    `examples` are some of them as they were written: where each stood, then the cells of `columns`.
    """

    fault: Fault
    rows: int
    money: Decimal | None
    columns: Sequence[str] = ()
    examples: Sequence[Sequence[str]] = ()


@dataclass(frozen=True)
class Examples:
    """Rows of one quarantine by their reason, as in `Faulty`, and which customers they are about."""

    columns: Sequence[str]
    rows: Mapping[str, Sequence[Sequence[str]]]
    customers: Sequence[str]


_NONE = Examples((), {}, ())


async def data(visit: Visit) -> Response:
    workspace, may_see_rows = visit.answers.workspace, visit.may(ADMIN)
    accounts = await asyncio.to_thread(_accounts, workspace.home_path)
    examples = {
        account.table: await asyncio.to_thread(_examples, workspace, account.table) if may_see_rows else _NONE
        for account in accounts
    }
    visit.read.customers = sorted({one for shown in examples.values() for one in shown.customers})
    visit.read.rows = sum(len(rows) for shown in examples.values() for rows in shown.rows.values())
    tables = [
        (visit.say(words.TABLES[account.table]), account, _faults(visit.language, account, examples[account.table]))
        for account in accounts
    ]
    return visit.page(
        "data.html", visit.say("The data"), tables=tables, currency=workspace.currency, may_see_rows=may_see_rows,
        checked=await asyncio.to_thread(reports.newest, workspace.home_path, "check"), most=_EXAMPLES,
    )  # fmt: skip


def _accounts(home: Path) -> list[Account]:
    """Of each table that was ever taken in, from what its manifest keeps of every source."""
    sources = {name: storage.sources_of(storage.tables_folder(home, name)) for name in CONTRACTS}
    return [_account(name, of_table) for name, of_table in sources.items() if of_table]


def _account(table: str, sources: Sequence[Mapping[str, Any]]) -> Account:
    """Without money where a source was taken in before money was counted."""
    faults: Counter[str] = Counter()
    for source in sources:
        faults.update({reason: rows for reason, rows in source["quarantined"].items() if rows})
    read, filtered, accepted = (sum(source[count] for source in sources) for count in ("read", "filtered", "accepted"))
    counted = [Money.noted(source["money"]) for source in sources if source.get("money")]
    money = sum(counted, Money()) if len(counted) == len(sources) else None
    return Account(table, read, filtered, accepted, dict(faults), money)


def _faults(spoken: Language, account: Account, shown: Examples) -> list[Faulty]:
    """The most frequent first."""
    most_first = sorted(account.quarantined.items(), key=lambda fault: (-fault[1], fault[0]))
    return [
        Faulty(in_words(spoken, reason), rows, _lost(account.money, reason, rows), shown.columns,
               shown.rows.get(reason, ()))
        for reason, rows in most_first
    ]  # fmt: skip


def _lost(money: Money | None, reason: str, rows: int) -> Decimal | None:
    if money is None or money.unknown.get(reason) == rows:
        return None
    return money.quarantined.get(reason, NOTHING)


@storage.read_again
def _examples(workspace: Workspace, table: str) -> Examples:
    """Columns of ours alone, none of which says how to reach somebody, and of those only what something stands in."""
    file = workspace.home_path / "quarantine" / f"{table}.parquet"
    if not file.exists():
        return _NONE
    rows_of = storage.reader([file])
    with storage.connect(workspace.home_path, workspace.timezone, 1.0) as connection:
        there = [row[0] for row in connection.execute(f"DESCRIBE SELECT * FROM {rows_of}").fetchall()]
        ours = {*CONTRACTS[table].names, *workspace.attributes} - {*workspace.pii}
        columns = [name for name in there if name in ours]
        texts = ", ".join(f'CAST("{name}" AS VARCHAR)' for name in columns)
        rows = connection.execute(f"""
            SELECT reason, source, line, {texts} FROM {rows_of}
            QUALIFY row_number() OVER (PARTITION BY reason ORDER BY source, line) <= {_EXAMPLES}
            ORDER BY reason, source, line""").fetchall()
    filled = [place for place, _ in enumerate(columns) if any(row[3 + place] for row in rows)]
    by_reason: dict[str, list[list[str]]] = {}
    for reason, source, line, *cells in rows:
        stood = f"{Path(source).name}: {line}"
        by_reason.setdefault(reason, []).append([_cut(stood), *(_cut(cells[place] or "") for place in filled)])
    whose = 3 + columns.index("customer_id") if "customer_id" in columns else None
    about = [] if whose is None else [row[whose] for row in rows]
    return Examples([columns[place] for place in filled], by_reason, list(_customers(about)))


def _customers(written: Iterable[str | None]) -> Iterable[str]:
    """Those who are named where a customer's id should stand."""
    for text in written:
        with suppress(ValueError):
            yield ids.canonical(text or "")


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
