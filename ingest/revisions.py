"""Orders that several sources name: whose lines count, and what it comes to where all of them do.

An order is known by a hash of its `transaction_id`: of rows that a filter dropped, or that cannot be used, nothing else
is kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import duckdb
import pyarrow.parquet as pq

from workspace.money import summed
from workspace.storage import copy_to, quoted, reader

ORDER = "CAST(md5_number(transaction_id) >> 64 AS UBIGINT)"
_EXAMPLES = 5
# SQL for no lines that another source has too.
NOTHING = "(SELECT '' AS taken, '' AS transaction_id, '' AS customer_id, '' AS amount WHERE false)"


@dataclass(frozen=True)
class Told:
    """One source's files, sources with a higher `rank` being later.

    lines: rows that count, or may; named: hashes of orders of which it has other rows; taken: the name under which its
    rows in quarantine are.
    """

    rank: int
    taken: str
    lines: Path
    named: Path | None


@dataclass(frozen=True)
class Returning:
    """Orders that a later source tells otherwise, while the lines of the earlier ones count as well.

    lines, money: of the earlier sources, without those that the later one repeats; dropped: orders of which the later
    source only has rows that are filtered or in quarantine; examples: `transaction_id`s, at most five.
    """

    orders: int
    lines: int
    money: Decimal
    dropped: int
    examples: tuple[str, ...]

    def told(self, currency: str) -> str:
        """Sentences for who decides what to do about it."""
        shown = ", ".join(self.examples) + (", ..." if self.orders > len(self.examples) else "")
        dropped = f"; of {self.dropped:,} of them the later source has only rows that do not count" * bool(self.dropped)
        return (
            f"{self.orders:,} order(s) come again in a later source with other lines ({shown}): {self.lines:,} line(s)"
            f" of the earlier sources, {self.money:,} {currency}, count as well{dropped}."
            " If a later export gives such an order anew, whole, set `tables.transactions.revision: replace`;"
            " if it gives only what is new of it, nothing is wrong"
        )


def note_named(connection: duckdb.DuckDBPyConnection, only_lost: bool) -> None:
    """A table `named`: the orders in `checked` and `dropped`, or only those of rows that do not count.

    Of the latter without orders of which nothing but returns do not count: to filter those is no amendment.
    """
    rows = f"""
        SELECT {ORDER} AS "order", amount, reason IS NULL AS counts FROM checked WHERE transaction_id IS NOT NULL
        UNION ALL SELECT "order", amount, false FROM dropped"""
    lost = "WHERE NOT counts GROUP BY 1 HAVING max(coalesce(amount, 0)) >= 0" if only_lost else ""
    connection.execute(f"""
        CREATE OR REPLACE TEMP TABLE named AS SELECT DISTINCT "order" FROM ({rows}) {lost} ORDER BY 1""")


def find_later(connection: duckdb.DuckDBPyConnection, sources: Iterable[Told], repeated: str = NOTHING) -> None:
    """A table `later`: the orders that several sources name, each with the rank of the last that does."""
    connection.execute('CREATE OR REPLACE TEMP TABLE ranked ("order" UBIGINT, rank INTEGER)')
    for source in sources:
        lines = " UNION ".join(f'SELECT "order" FROM {rows}' for rows in _told(source, repeated))
        connection.execute(f"INSERT INTO ranked SELECT DISTINCT *, {source.rank} FROM ({lines})")
    connection.execute("""
        CREATE OR REPLACE TEMP TABLE later AS
        SELECT "order", max(rank) AS last FROM ranked GROUP BY 1 HAVING min(rank) < max(rank)""")
    connection.execute("DROP TABLE ranked")


def _told(source: Told, repeated: str) -> list[str]:
    """SQL for all that a source tells of orders: rows that count, that are repeated, and that cannot count."""
    shown = f'{ORDER} AS "order", transaction_id, customer_id, TRY_CAST(amount AS DECIMAL(18, 6)) AS amount'
    rows = [
        f"(SELECT {shown}, 'counts' AS what FROM {reader([source.lines])})",
        f"(SELECT {shown}, 'repeated' AS what FROM {repeated} WHERE taken = {quoted(source.taken)})",
    ]
    if source.named is not None:
        rows.append(f"(SELECT \"order\", NULL, NULL, NULL, 'named' AS what FROM {reader([source.named])})")
    return rows


def split(source: Told) -> str:
    """SQL for the lines of a source, `replaced` where a source in `later` tells of their order."""
    orders = f'SELECT "order" FROM later WHERE last > {source.rank}'
    return f"(SELECT *, {ORDER} IN ({orders}) AS replaced FROM {reader([source.lines])})"


@dataclass(frozen=True)
class Share:
    """What counts of a source, and what later ones replace; `mark` differs where other orders are replaced.

    first, last: of what counts, in microseconds since 1970.
    """

    rows: int
    money: Decimal
    replaced: int
    replaced_money: Decimal
    mark: int
    first: int | None
    last: int | None


def share(connection: duckdb.DuckDBPyConnection, source: Told) -> Share:
    """How a source's lines divide."""
    query = f"""
        SELECT count(*), {summed("amount")}, coalesce(bit_xor(DISTINCT {ORDER}), 0), epoch_us(min(occurred_at)),
               epoch_us(max(occurred_at)) FROM {split(source)} WHERE replaced = ?"""
    rows, money, _, _, first, last = connection.execute(query, [False]).fetchall()[0]
    replaced, replaced_money, _, mark, _, _ = connection.execute(query, [True]).fetchall()[0]
    return Share(rows, money, replaced, replaced_money, mark, first, last)


def note_returning(
    connection: duckdb.DuckDBPyConnection, sources: Sequence[Told], repeated: str, file: Path
) -> None:  # fmt: skip
    """Writes to `file` what there is to say where the lines of all sources count; `read_returning` reads it.

    `repeated` is SQL for lines that were left out since another source has them. A source with nothing but returns of
    an order only goes on with it, and is passed over. The examples stand beside their customers, so that an erasure
    finds them.
    """
    find_later(connection, sources, repeated)
    connection.execute("""CREATE OR REPLACE TEMP TABLE told (
        "order" UBIGINT, transaction_id VARCHAR, customer_id VARCHAR, amount DECIMAL(18, 6), what VARCHAR,
        rank INTEGER)""")
    for source in sources:
        rows = " UNION ALL ".join(f"SELECT * FROM {rows}" for rows in _told(source, repeated))
        wanted = 'WHERE "order" IN (SELECT "order" FROM later)'
        connection.execute(f"INSERT INTO told SELECT *, {source.rank} FROM ({rows}) {wanted}")
    connection.execute(f"CREATE OR REPLACE TEMP TABLE compared AS {_COMPARED}")
    money = "CAST(coalesce(sum(money), 0) AS DECIMAL(38, 2))"
    total = f"SELECT count(*), coalesce(sum(lines), 0), {money}, count(*) FILTER (dropped) FROM compared"
    names = ("orders", "lines", "money", "dropped")
    figures = dict(zip(names, map(str, connection.execute(total).fetchall()[0]), strict=True))
    most = f'SELECT "order" FROM compared ORDER BY abs(money) DESC, "order" LIMIT {_EXAMPLES}'
    examples = 'SELECT DISTINCT transaction_id, customer_id FROM told WHERE "order" IN'
    copy_to(connection, f"{examples} ({most}) AND transaction_id IS NOT NULL ORDER BY ALL", file, metadata=figures)


def read_returning(file: Path) -> Returning | None:
    """None where there is nothing to say."""
    examples = pq.read_table(file, columns=["transaction_id"], partitioning=None)
    noted = {key.decode(): value.decode() for key, value in (examples.schema.metadata or {}).items()}
    if noted["orders"] == "0":
        return None
    shown = tuple(dict.fromkeys(examples["transaction_id"].to_pylist()))
    return Returning(int(noted["orders"]), int(noted["lines"]), Decimal(noted["money"]), int(noted["dropped"]), shown)


_COMPARED = """
    WITH each AS (
        SELECT "order", rank,
               count(*) FILTER (what = 'counts') AS lines, count(*) FILTER (what = 'repeated') AS repeated,
               coalesce(sum(amount) FILTER (what = 'counts'), 0) AS money,
               coalesce(sum(amount) FILTER (what = 'repeated'), 0) AS repeated_money
        FROM told GROUP BY ALL HAVING lines = 0 OR repeated > 0 OR max(amount) >= 0),
    placed AS (SELECT *, rank = max(rank) OVER (PARTITION BY "order") AS is_last FROM each)
    SELECT "order", sum(CASE WHEN is_last THEN -repeated ELSE lines END) AS lines,
           sum(CASE WHEN is_last THEN -repeated_money ELSE money END) AS money,
           bool_or(is_last AND lines + repeated = 0) AS dropped
    FROM placed GROUP BY 1 HAVING sum(CASE WHEN is_last THEN -repeated ELSE lines END) > 0"""
