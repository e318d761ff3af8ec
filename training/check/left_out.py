"""Money that the tables do not tell of: in rows that are lost or filtered, in columns that nothing reads."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import duckdb

from ingest import rows, sources
from ingest.checks import NOT_THE_SOURCES_FAULT
from ingest.intake import Account
from ingest.rows import Rows, identifier
from training.check import conversions
from training.check.remarks import Remark, listed, percent, source_of, written_as
from workspace import storage
from workspace.money import Money
from workspace.settings import SettingsError, Table, Tables, Workspace
from workspace.storage import quoted
from workspace.tables import TRANSACTIONS

_MUCH = 0.01
"""Of the revenue."""
_RETURNS = 0.02
_NUMBERS = 0.8
# A column of money given back, in the words of shop systems; not one that says how, when or by what rate.
_GIVEN_BACK = re.compile(
    r"discount|rebate|refund|rabatt|nachlass|gutschrift|erstattung|remise|rembours|avoir|descuento|reembolso|sconto"
    r"|rimborso|korting|voucher|coupon|chargeback|credit.?note|store.?credit|returned.?amount"
)
_NOT_MONEY = re.compile(
    r"pct|percent|prozent|rate|ratio|share|code|name|type|kind|reason|status|date|time|_at$|_on$|_by$|flag|\bis_"
    r"|(^|[_ ])(count|id|no|nr|key|qty|quantity|upc)($|[_ ])"
)


def remarked(connection: duckdb.DuckDBPyConnection, workspace: Workspace, account: Account) -> list[Remark]:
    """What the account of transactions, and their sources, give to remark about money."""
    return [
        *lost(account, workspace.currency),
        *amended(account, workspace.currency),
        *filtered(account, workspace.tables.transactions, workspace.currency),
        *unread(connection, workspace, account),
        *unmapped(connection, workspace, account.money),
    ]


def lost(account: Account, currency: str) -> list[Remark]:
    """What the rows in quarantine were worth, but for those that are there twice."""
    money = account.money
    if money is None or money.accepted <= 0:
        return []
    amounts = {why: amount for why, amount in money.quarantined.items() if amount and not _is_repeated(why)}
    total = sum(map(abs, amounts.values()))
    if total < _MUCH * float(money.accepted):
        return []
    said = [f"{amount:,} {why}" for why, amount in sorted(amounts.items(), key=lambda one: -abs(one[1]))]
    says = (
        f"rows worth {total:,} {currency}, {percent(float(total / (money.accepted + total)))} of the revenue, cannot be"
        f" used ({listed(said, 3)})"
    )
    return [Remark("revenue in quarantine", account.table, says, _READ_ON, ("lifetime_value",))]


_READ_ON = "docs/tables.md says what to do about each reason"


def _is_repeated(reason: str) -> bool:
    return reason in NOT_THE_SOURCES_FAULT or reason.startswith("duplicate ")


def amended(account: Account, currency: str) -> list[Remark]:
    """Orders that a later source tells otherwise, of which the lines of both count."""
    returning, money = account.returning, account.money
    if returning is None or money is None:
        return []
    says = (
        f"{returning.orders:,} transaction_ids come again in a later source with other lines (for example"
        f" {listed(returning.examples, 2)}): {returning.lines:,} lines of the earlier sources, {returning.money:,}"
        f" {currency}, count as well"
    )
    do = (
        "if a later export gives such an order anew, whole: tables.transactions.revision: replace; if it gives only"
        " what is new of it, nothing is wrong"
    )
    much = abs(returning.money) >= _MUCH * float(money.accepted)
    doubts = ("churn", "lifetime_value") if much else ()
    return [Remark("orders that come again", account.table, says, do, doubts)]


def filtered(account: Account, table: Table, currency: str) -> list[Remark]:
    """Returns and refunds that the filter drops: what is left is more than was paid."""
    money = account.money
    if money is None or money.accepted <= 0 or money.filtered > -_RETURNS * float(money.accepted):
        return []
    says = (
        f"the rows that `where` drops add up to {money.filtered:,} {currency},"
        f" {percent(float(-money.filtered / money.accepted))} of the revenue: returns or refunds, which value then"
        " ignores"
    )
    do = "let rows with amounts below 0 in, which count as returns: tables.transactions.where, now"
    return [Remark("returns left out", account.table, says, f"{do} `{' '.join((table.where or '').split())}`")]


def unread(connection: duckdb.DuckDBPyConnection, workspace: Workspace, account: Account) -> list[Remark]:
    """What amounts were about, of rows whose amount is no number as the settings read it."""
    money, table = account.money, workspace.tables.transactions
    if money is None or money.accepted <= 0 or not money.unknown or table.group_by:
        return []
    unreadable = list(_unreadable(connection, workspace, list(money.unknown)))
    about, texts = sum(one.about for one in unreadable), [" * ".join(one.texts.values()) for one in unreadable]
    if about < _MUCH * float(money.accepted):
        return []
    share, of_rows = about / (float(money.accepted) + about), len(unreadable) / max(1, account.read)
    says = (
        f"{len(unreadable):,} rows ({percent(of_rows)} of them) are lost because their amount is no number as it is"
        f" read, but look like about {about:,.0f} {workspace.currency}: {percent(share)} of the revenue (for example"
        f" {listed([f'`{text}`' for text in sorted(texts, key=len, reverse=True)[:2]])})"
    )
    do = _conversions(source_of(table, "amount"), unreadable, workspace.currency)
    return [Remark("amounts lost to a conversion", "transactions", says, do, ("lifetime_value",))]


class _Unread(NamedTuple):
    """An amount that is no number as it is read: about how much it is, and what is written, by column."""

    about: float
    texts: dict[str, str]


def _conversions(expression: str, unreadable: Sequence[_Unread], currency: str) -> str:
    """What to write for each column with texts that are no number."""
    texts: dict[str, list[str]] = {}
    for one in unreadable:
        for column, text in one.texts.items():
            texts.setdefault(column, []).append(text)
    return ". ".join(
        _mend(expression, column, conversion)
        for column, written in texts.items()
        if (conversion := conversions.reading(written_as(column), written, currency)) != conversions.NOT_NEEDED
    )


def _mend(expression: str, column: str, conversion: str | None) -> str:
    """Where a conversion goes; without one, where it is told how to write it."""
    of = f"tables.transactions.columns.amount, now `{expression}`"
    if conversion is None:
        return (
            f"its texts can be read in two ways (`1,000` is a thousand to some and one to others): see what they mean,"
            f" and mend the conversion in {of}, as docs/tables.md shows below CSV, so that it refuses the others"
        )
    alone = re.fullmatch(rf"(?:(?:try_)?cast\(\s*)?\"?{re.escape(column)}\"?(?:\s+as\s+[\w() ,]+\))?", expression, re.I)
    place = "mend the conversion" if alone else f"in place of what makes `{column}` a number"
    return f"{place} in {of}: {conversion}"


def _unreadable(
    connection: duckdb.DuckDBPyConnection, workspace: Workspace, faults: Sequence[str]
) -> Iterator[_Unread]:
    """Each row without a usable amount that looks like one."""
    quarantine = storage.quoted_path(workspace.home_path / "quarantine" / "transactions.parquet")
    expression = source_of(workspace.tables.transactions, "amount")
    of_column = re.fullmatch(r"\w+( \w+)*", expression) is not None
    wanted = f"(SELECT source, line, amount FROM {quarantine} WHERE reason IN ({', '.join(map(quoted, faults))}))"
    if of_column:
        written = connection.execute(f"""
            SELECT abs({_about("amount")}), amount FROM {wanted} WHERE {_about("amount")} IS NOT NULL""").fetchall()
        yield from (_Unread(value, {expression: text}) for value, text in written if value < _ABSURD)
        wanted += " WHERE amount IS NULL"
    blank = connection.execute(f"SELECT source, list(line) FROM {wanted} GROUP BY 1").fetchall()
    lines = dict(blank)
    if not lines:
        return
    with _opened(connection, workspace.tables, set(lines)) as opened:
        for origin, source in opened:
            columns = [name for name in source.types if _uses(expression, name) and name != rows.LINE]
            if not columns:
                continue
            about = [_about(f"CAST({identifier(name)} AS VARCHAR)") for name in columns]
            value = " * ".join(about) if "*" in expression else about[0]
            texts = ", ".join(f"CAST({identifier(name)} AS VARCHAR)" for name in columns)
            query = (
                f"SELECT abs({value}), {texts} FROM {source.sql}"
                f" WHERE {rows.LINE} IN (SELECT unnest(?)) AND {value} > 0"
            )
            for about_row, *written_row in connection.execute(query, [lines[origin]]).fetchall():
                if about_row < _ABSURD:
                    yield _Unread(about_row, dict(zip(columns, written_row, strict=True)))


_ABSURD = 1e9


def _about(text: str) -> str:
    """SQL: the number that a text looks like, whatever its separators and signs of currency; null where it is none."""
    plain = f"regexp_replace({text}, '[^0-9.,]', '', 'g')"
    whole = f"regexp_replace(regexp_replace({plain}, '[.,][0-9]{{1,2}}$', ''), '[.,]', '', 'g')"
    return f"TRY_CAST({whole} || '.' || regexp_extract({plain}, '[.,]([0-9]{{1,2}})$', 1) AS DOUBLE)"


def _uses(expression: str, column: str) -> bool:
    """Whether an expression of the settings names a column."""
    return re.search(rf"(?<!\w){re.escape(column)}(?!\w)", expression, re.IGNORECASE) is not None


@contextmanager
def _opened(
    connection: duckdb.DuckDBPyConnection, tables: Tables, origins: set[str] | None = None
) -> Iterator[Iterator[tuple[str, Rows]]]:
    """The sources of transactions by their names, all or some, open for as long as the block lasts."""
    table = tables.transactions
    with TemporaryDirectory() as scratch:
        files = sources.find("transactions", table, Path(scratch))
        yield (
            (source.origin, rows.opened(connection, source, table, TRANSACTIONS, (), Path(scratch)))
            for source in files
            if origins is None or source.origin in origins
        )


def unmapped(connection: duckdb.DuckDBPyConnection, workspace: Workspace, money: Money | None) -> list[Remark]:
    """Columns of discounts and refunds in the files that no setting reads, where they hold money."""
    table = workspace.tables.transactions
    if money is None or money.accepted <= 0 or table.group_by or table.path is None:
        return []
    told: dict[str, float] = {}
    try:
        with _opened(connection, workspace.tables) as opened:
            for _, source in opened:
                for column in filter(lambda name: _is_unread(name, table), source.types):
                    told[column] = told.get(column, 0.0) + _given_back(connection, table, source, column)
    except SettingsError:  # a source that has gone since it was taken in
        return []
    much = {column: amount for column, amount in told.items() if amount >= _MUCH * float(money.accepted)}
    if not much:
        return []
    said = [f"`{column}` {amount:,.2f}" for column, amount in sorted(much.items(), key=lambda one: -one[1])]
    share = sum(much.values()) / float(money.accepted)
    says = (
        f"columns of the source that nothing reads hold money given back, in {workspace.currency}: {listed(said)};"
        f" together {percent(share)} of the revenue"
    )
    do = (
        "amounts are net: if these are not in them yet, take them off, an order's once:"
        f" tables.transactions.columns.amount, now `{source_of(table, 'amount')}`; if they are, map the column to"
        " discount"
    )
    return [Remark("discounts or refunds not read", "transactions", says, do, ("lifetime_value",))]


def _is_unread(column: str, table: Table) -> bool:
    name = column.lower()
    if name == "discount" and "discount" not in table.columns:  # read by its own name
        return False
    texts = [text for text in (*table.columns.values(), table.where) if text]
    told = _GIVEN_BACK.search(name) and not _NOT_MONEY.search(name)
    return bool(told) and not any(_uses(text, column) for text in texts)


def _given_back(connection: duckdb.DuckDBPyConnection, table: Table, source: Rows, column: str) -> float:
    """The sum of a column over the rows that are read; what is repeated on every line of an order counts once."""
    order = source_of(table, "transaction_id")
    known = source.column(order)
    value = _about(f"CAST({identifier(column)} AS VARCHAR)")
    where = f"WHERE ({table.where}\n)" if table.where else ""
    try:
        filled, numbers, largest, total = connection.execute(f"""
            WITH lines AS (
                SELECT {identifier(known) if known else order} AS of, {value} AS value,
                       nullif(trim(CAST({identifier(column)} AS VARCHAR)), '') AS text FROM {source.sql} {where}),
            orders AS (
                SELECT count(text) AS filled, count(value) AS numbers, max(value) AS largest,
                       CASE WHEN min(value) = max(value) AND count(value) = count(*) THEN max(value) ELSE sum(value)
                       END AS value FROM lines GROUP BY of)
            SELECT sum(filled), sum(numbers), max(largest), sum(value) FROM orders""").fetchall()[0]
    except duckdb.Error:  # an expression that only works row by row of another source
        return 0.0
    if not filled or numbers < _NUMBERS * filled or largest <= 1:  # texts; shares of the price
        return 0.0
    return float(total)
