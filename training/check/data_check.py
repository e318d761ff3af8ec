"""The data check, before anything else: what the tables hold, which models they suffice for, what looks wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date

import duckdb

from ingest.intake import Account
from training.check import amounts, comers_back, concentration, identities, left_out, renumbering, selling_days
from training.check.cohorts import Cohort, Cohorts, cohorts
from training.check.remarks import Remark, listed
from training.check.sufficiency import Sufficiency, closed_cutoffs, create_purchase_days, sufficiencies
from training.check.table_figures import Coverage, Table, describe
from training.learning import labels
from training.learning.leaks import IDENTIFIES, Leaks, leaks
from workspace import storage
from workspace.money import Money
from workspace.settings import Workspace

Rows = duckdb.DuckDBPyRelation

# More lines than this are not needed to count customers against minimums of a hundred.
_MANY_LINES = 5_000_000
_STALE_DAYS = 7
_MUCH_QUARANTINED = 0.01
_MUCH_MISSING = 0.5
# From, and up to but without, so many purchases a customer.
_COUNTS = ((1, 2), (2, 3), (3, 4), (4, 6), (6, 11), (11, 21), (21, 51), (51, None))


@dataclass(frozen=True)
class Bar:
    """So many fall under a label."""

    label: str
    count: int


@dataclass(frozen=True)
class Purchases:
    """Customers with a purchase known before the as_of; several on one day count once.

    repeat_share: of these customers, with two purchases or more; without: rows of `customers` that have none (null
    without that table); last: the latest day with a purchase; by_month: purchases in each `YYYY-MM`; by_count:
    customers by their number of purchases; by_spend: purchases by net spend, in the workspace's currency.
    """

    customers: int
    repeat_buyers: int
    repeat_share: float
    without: int | None
    purchases: int
    last: date
    by_month: tuple[Bar, ...]
    by_count: tuple[Bar, ...]
    by_spend: tuple[Bar, ...]


@dataclass(frozen=True)
class DataCheck:
    """Everything that was found. Counts of purchases and of cross-sell are of one customer in `one_in`, scaled up;
    those of cohorts are of the customers that a training learns from; those of rows are of all rows.

    remarks: what to look at; money: what became of the amounts of transactions; purchases: null where none is known
    before `as_of`; leaks: null without attributes.
    """

    name: str
    as_of: date
    currency: str
    one_in: int
    models: tuple[Sufficiency, ...]
    remarks: tuple[Remark, ...]
    leaks: Leaks | None
    purchases: Purchases | None
    cohorts: tuple[Cohort, ...]
    money: Money | None
    tables: tuple[Table, ...]

    @property
    def suffices(self) -> bool:
        """Whether any model can be trained."""
        return any(each.answer != "insufficient" for each in self.models)

    def doubts(self, model: str) -> tuple[str, ...]:
        """The names of the remarks that put a model's numbers in doubt, each once."""
        return tuple(dict.fromkeys(remark.name for remark in self.remarks if model in remark.doubts))


def check(
    workspace: Workspace, accounts: Sequence[Account], as_of: date, progress: Callable[[str], None] = lambda _: None
) -> DataCheck:
    """Looks at the ingested tables of a workspace; writes nothing but what DuckDB spills."""
    account = next(account for account in accounts if account.table == "transactions")
    one_in = -(-account.accepted // _MANY_LINES)
    with storage.connect(workspace.home_path, workspace.timezone) as connection:
        tables = []
        for each in accounts:
            tables.append(describe(connection, workspace, each, as_of))
            progress(f"looked at {each.accepted:,} rows of {each.table}")
        create_purchase_days(connection, workspace.home_path, as_of, one_in)
        closed, refused, counted = _cohorts(workspace, as_of)
        progress(f"counted who left and who stayed at {len(closed)} closed cutoffs")
        bought = purchases(connection, workspace, one_in)
        models = sufficiencies(connection, workspace, counted, refused, one_in)
        suspected = leaks(connection, workspace, closed[-1] if closed else None, counted.latest)
        progress("judged models and attributes")
        remarks = [*_of_attributes(suspected), *_of_transactions(connection, workspace, account, as_of)]
        progress("looked for what puts the numbers in doubt")
    if bought is not None:
        remarks += _about_time(bought, as_of)
    remarks += [remark for table in tables for remark in _about(table)]
    remarks.sort(key=lambda remark: not remark.doubts)
    return DataCheck(
        workspace.name, as_of, workspace.currency, one_in, models, tuple(remarks), suspected, bought, counted.each,
        account.money, tuple(tables),
    )  # fmt: skip


def _cohorts(workspace: Workspace, as_of: date) -> tuple[list[date], str | None, Cohorts]:
    """The closed cutoffs and their cohorts; none, and the reason, where the training would refuse.

    In a connection of its own: Ibis changes settings of the one that it is given.
    """
    closed, refused = closed_cutoffs(workspace, as_of)
    with storage.connect(workspace.home_path, workspace.timezone) as connection:
        try:
            return closed, refused, cohorts(connection, workspace, closed, as_of)
        except storage.CheckFailed as problem:  # nothing says what a purchase is worth
            return [], str(problem), cohorts(connection, workspace, [], as_of)


def _of_transactions(
    connection: duckdb.DuckDBPyConnection, workspace: Workspace, account: Account, as_of: date
) -> list[Remark]:
    """What transactions known before `as_of`, and money that became none, give to remark. Needs `purchases`."""
    rows = storage.rows_of(workspace.home_path, "transactions")
    lines = connection.sql(f"SELECT * FROM {rows} WHERE known_day < DATE '{as_of}'")
    until = labels.recorded_until(workspace, as_of)
    return [
        *remarked(lines, connection.table("purchases"), _ids(connection, workspace), workspace, until),
        *left_out.remarked(connection, workspace, account),
    ]


def remarked(lines: Rows, purchases: Rows, ids: Rows, workspace: Workspace, until: date) -> Iterator[Remark]:
    """What looks wrong in canonical lines, in purchases (a row per customer_id and day, with their `spend`) up to a
    day, and in ids (a row per customer_id)."""
    source = workspace.tables.transactions
    yield from amounts.outlying(lines, source, workspace.currency)
    yield from amounts.worthless(lines, source)
    yield from amounts.shifted(lines, source)
    yield from amounts.apart(lines, source)
    yield from concentration.customers(lines, source)
    yield from concentration.products(lines, source)
    yield from identities.spellings(ids, source)
    yield from identities.nobody(lines, source)
    yield from renumbering.renumbered(purchases, source)
    yield from selling_days.crowded(purchases)
    yield from selling_days.closed(purchases, workspace.churn.horizon)
    if workspace.churn.kind == "inactivity":  # fees fall due on one day, and contracts have a number
        yield from identities.of_orders(lines, source)
        yield from selling_days.few(purchases)
        yield from comers_back.beyond(purchases, workspace.churn, until)


def _ids(connection: duckdb.DuckDBPyConnection, workspace: Workspace) -> duckdb.DuckDBPyRelation:
    """A row for each customer_id, of whatever table."""
    named = [name for name in ("transactions", "interactions", "customers") if name in workspace.tables.given()]
    query = " UNION ".join(f"SELECT customer_id FROM {storage.rows_of(workspace.home_path, name)}" for name in named)
    connection.execute(f"CREATE OR REPLACE TEMP TABLE every_id AS SELECT DISTINCT customer_id FROM ({query})")
    return connection.table("every_id")


def purchases(connection: duckdb.DuckDBPyConnection, workspace: Workspace, one_in: int) -> Purchases | None:
    """From `purchase_days`; None where there is no purchase."""
    connection.execute("""
        CREATE OR REPLACE TEMP TABLE purchases AS
        SELECT customer_id, day, sum(spend) AS spend FROM purchase_days WHERE bought GROUP BY ALL""")
    per_customer = "(SELECT count(*) AS n FROM purchases GROUP BY customer_id)"
    counts = dict(connection.execute(f"SELECT n, count(*) FROM {per_customer} GROUP BY n").fetchall())
    if not counts:
        return None
    months = connection.execute(
        "SELECT strftime(day, '%Y-%m'), count(*) FROM purchases GROUP BY 1 ORDER BY 1"
    ).fetchall()
    last = connection.execute("SELECT max(day) FROM purchases").fetchall()[0][0]
    customers = sum(counts.values())
    by_count = tuple(
        Bar(_range(low, high), one_in * sum(c for n, c in counts.items() if n >= low and (high is None or n < high)))
        for low, high in _COUNTS
    )
    return Purchases(
        one_in * customers, one_in * (customers - counts.get(1, 0)), 1 - counts.get(1, 0) / customers,
        _without(connection, workspace, one_in), one_in * sum(n * c for n, c in counts.items()), last,
        tuple(Bar(month, one_in * count) for month, count in months), by_count, _by_spend(connection, one_in),
    )  # fmt: skip


def _range(low: int, high: int | None) -> str:
    if high is None:
        return f"{low} or more"
    return str(low) if high == low + 1 else f"{low} to {high - 1}"


def _without(connection: duckdb.DuckDBPyConnection, workspace: Workspace, one_in: int) -> int | None:
    if workspace.tables.customers is None:
        return None
    rows = storage.rows_of(workspace.home_path, "customers")
    query = f"SELECT count(*) FROM {rows} ANTI JOIN purchases USING (customer_id) WHERE is_sampled(customer_id)"
    return one_in * int(connection.execute(query).fetchall()[0][0])


def _by_spend(connection: duckdb.DuckDBPyConnection, one_in: int) -> tuple[Bar, ...]:
    """Purchases between the steps 1, 2, 5, 10, 20, 50 ...; those of nothing, or less, in a bar of their own."""
    step = """CASE WHEN spend <= 0 THEN NULL ELSE list_max(list_filter(
                  [m * pow(10, floor(log10(spend))) FOR m IN [1, 2, 5]], lambda edge: edge <= spend)) END"""
    counts = dict(connection.execute(f"SELECT {step} AS step, count(*) FROM purchases GROUP BY 1").fetchall())
    nothing = counts.pop(None, 0)
    bars = [Bar("0 or less", one_in * nothing)] if nothing else []
    return (*bars, *(Bar(f"{low:g} to {_next_step(low):g}", one_in * counts[low]) for low in sorted(counts)))


def _next_step(low: float) -> float:
    return low * (2.5 if f"{low:e}".startswith("2") else 2)


def _of_attributes(suspected: Leaks | None) -> list[Remark]:
    """The suspicious ones, or why none could be judged."""
    if suspected is None:
        return []
    if suspected.not_judged:
        says = f"they could not be held against the outcome: {suspected.not_judged}"
        return [Remark("attributes not judged", "attributes", says, "look again when more is known")]
    return [
        Remark(f"attribute {a.suspicion}", f"attribute {a.name}", f"{a.suspicion}: {a.figure}", f"{a.remedy}",
               ("churn",) if a.suspicion != IDENTIFIES else ())
        for a in suspected.suspects
    ]  # fmt: skip


def _about_time(bought: Purchases, as_of: date) -> list[Remark]:
    days = (as_of - bought.last).days
    if days <= _STALE_DAYS:
        return []
    says = (
        f"the last purchase known before {as_of} is of {bought.last}, {days} days earlier: if records are missing since"
        " then, customers seem to leave who did not"
    )
    do = f"bring the tables up to date, or choose an --as-of near {bought.last}"
    return [Remark("no purchase of late", "transactions", says, do)]


def _about(table: Table) -> list[Remark]:
    """What deserves a look about one table."""
    remarks = []
    bad = sum(table.quarantined.values())
    if bad > _MUCH_QUARANTINED * table.read:
        why = "; ".join(f"{count:,} {reason}" for reason, count in table.quarantined.items())
        says = f"{bad:,} of {table.read:,} rows cannot be used ({why})"
        remarks.append(Remark("rows cannot be used", table.name, says, "docs/tables.md says what to do"))
    if table.coverage is not None:
        remarks += _about_months(table.name, table.coverage)
    for orphans in table.orphans:
        says = (
            f"{orphans.ids:,} {orphans.column}s in {orphans.rows:,} rows are not in {orphans.table}"
            f" (for example {orphans.example})"
        )
        do = f"bring tables.{orphans.table} up to date, or check how ids are written"
        remarks.append(Remark("ids are not in another table", table.name, says, do))
    return remarks + _about_columns(table)


def _about_months(table: str, seen: Coverage) -> list[Remark]:
    remarks = []
    if seen.empty_months:
        says = f"no row at all in {listed(seen.empty_months)}"
        remarks.append(Remark("no row at all in a month", table, says, "see whether an export is missing"))
    if seen.jumps:
        jumps = [f"{j.month} ({j.rows_per_day:,.1f} rows a day, {j.usual:,.1f} before)" for j in seen.jumps]
        do = "see whether exports are complete, or whether the business has changed"
        remarks.append(Remark("sudden changes", table, f"sudden changes: {listed(jumps)}", do))
    return remarks


def _about_columns(table: Table) -> list[Remark]:
    """Columns that are mostly empty, or say the same of every customer."""
    if table.name == "interactions":  # its columns are for some kinds only
        return []
    shares = {column.name: column.missing / table.accepted for column in table.columns}
    remarks = [
        Remark("a column is missing", table.name, f"{name} is missing in {share:.0%} of the rows",
               "see whether it is mapped to the right column")
        for name, share in shares.items() if _MUCH_MISSING <= share < 1
    ]  # fmt: skip
    if table.name == "customers" and table.accepted > 1:
        same = [c for c in table.columns if c.distinct == 1 and not c.missing and c.type in ("text", "number")]
        remarks += [
            Remark("the same for everybody", table.name, f"{c.name} is the same for everybody",
                   "nothing can be learnt from it: leave it out")
            for c in same
        ]  # fmt: skip
    return remarks
