"""The data check, before anything else: what the tables hold, which models they suffice for, what looks wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date

import duckdb

from perennial import storage
from perennial.ingest import Account
from perennial.settings import Workspace
from training import datasets
from training.leaks import Leaks, leaks
from training.sufficiency import (
    Cohort,
    Verdict,
    closed_cutoffs,
    cohorts,
    create_outcomes,
    create_purchase_days,
    verdicts,
)
from training.table_figures import Table, describe

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
    """Everything that was found. Counts of customers, cutoffs and purchases are of one customer in `one_in`, scaled
    up; those of rows are of all rows.

    findings: what to look at, in sentences; purchases: null where none is known before `as_of`; leaks: null without
    attributes.
    """

    name: str
    as_of: date
    currency: str
    one_in: int
    models: tuple[Verdict, ...]
    findings: tuple[str, ...]
    leaks: Leaks | None
    purchases: Purchases | None
    cohorts: tuple[Cohort, ...]
    tables: tuple[Table, ...]

    @property
    def suffices(self) -> bool:
        """Whether any model can be trained."""
        return any(verdict.answer != "insufficient" for verdict in self.models)


def check(
    workspace: Workspace, accounts: Sequence[Account], as_of: date, progress: Callable[[str], None] = lambda _: None
) -> DataCheck:
    """Looks at the ingested tables of a workspace; writes nothing but what DuckDB spills."""
    lines = next(account.accepted for account in accounts if account.table == "transactions")
    one_in = -(-lines // _MANY_LINES)
    with storage.connect(workspace.home_path, workspace.timezone) as connection:
        tables = []
        for account in accounts:
            tables.append(describe(connection, workspace, account, as_of))
            progress(f"looked at {account.accepted:,} rows of {account.table}")
        create_purchase_days(connection, workspace, as_of, one_in)
        closed, refused = closed_cutoffs(workspace, as_of)
        create_outcomes(connection, datasets.taught(workspace, as_of), closed, as_of)
        bought = purchases(connection, workspace, one_in)
        found = cohorts(connection, closed, as_of, one_in)
        progress(f"counted who left and who stayed at {len(closed)} closed cutoffs")
        models = verdicts(connection, workspace, found, refused, one_in)
        suspected = leaks(connection, workspace, closed)
        progress("judged models and attributes")
    remarks = _findings(workspace, tables, bought, suspected, as_of)
    return DataCheck(
        workspace.name, as_of, workspace.currency, one_in, models, remarks, suspected, bought, found, tuple(tables)
    )


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
    found = dict(connection.execute(f"SELECT {step} AS step, count(*) FROM purchases GROUP BY 1").fetchall())
    nothing = found.pop(None, 0)
    bars = [Bar("0 or less", one_in * nothing)] if nothing else []
    return (*bars, *(Bar(f"{low:g} to {_next_step(low):g}", one_in * found[low]) for low in sorted(found)))


def _next_step(low: float) -> float:
    return low * (2.5 if f"{low:e}".startswith("2") else 2)


def _findings(
    workspace: Workspace, tables: Sequence[Table], bought: Purchases | None, suspected: Leaks | None, as_of: date
) -> tuple[str, ...]:
    """What deserves a look, in sentences that say what to do; the suspicious attributes first."""
    found = [] if suspected is None else [
        f"attribute {a.name}: {a.suspicion}: {a.figure}; {a.remedy}" for a in suspected.suspects
    ]  # fmt: skip
    if suspected is not None and suspected.not_judged:
        found.append(f"attributes could not be held against the outcome: {suspected.not_judged}")
    if bought is not None:
        found += _about_time(bought, as_of)
    for table in tables:
        found += [f"{table.name}: {remark}" for remark in _about(table)]
    return tuple(found)


def _about_time(bought: Purchases, as_of: date) -> list[str]:
    days = (as_of - bought.last).days
    if days <= _STALE_DAYS:
        return []
    return [
        f"the last purchase known before {as_of} is of {bought.last}, {days} days earlier: if records are missing since"
        " then, customers seem to leave who did not; bring the tables up to date, or choose an --as-of near"
        f" {bought.last}"
    ]


def _about(table: Table) -> list[str]:
    """What deserves a look about one table."""
    remarks = []
    bad = sum(table.quarantined.values())
    if bad > _MUCH_QUARANTINED * table.read:
        why = "; ".join(f"{count:,} {reason}" for reason, count in table.quarantined.items())
        remarks.append(f"{bad:,} of {table.read:,} rows cannot be used ({why}); docs/tables.md says what to do")
    if table.coverage is not None:
        seen = table.coverage
        if seen.empty_months:
            remarks.append(f"no row at all in {_listed(seen.empty_months)}: are exports missing?")
        if seen.jumps:
            jumps = [f"{j.month} ({j.rows_per_day:,.1f} rows a day, {j.usual:,.1f} before)" for j in seen.jumps]
            remarks.append(f"sudden changes: {_listed(jumps)}: are exports complete, or has the business changed?")
    for orphans in table.orphans:
        remarks.append(
            f"{orphans.ids:,} {orphans.column}s in {orphans.rows:,} rows are not in {orphans.table}"
            f" (for example {orphans.example}); bring tables.{orphans.table} up to date, or check how ids are written"
        )
    return remarks + _about_columns(table)


def _about_columns(table: Table) -> list[str]:
    """Columns that are mostly empty, or say the same of every customer."""
    if table.name == "interactions":  # its columns are for some kinds only
        return []
    shares = {column.name: column.missing / table.accepted for column in table.columns}
    remarks = [
        f"{name} is missing in {share:.0%} of the rows" for name, share in shares.items() if _MUCH_MISSING <= share < 1
    ]
    if table.name == "customers" and table.accepted > 1:
        same = [c for c in table.columns if c.distinct == 1 and not c.missing and c.type in ("text", "number")]
        remarks += [f"{c.name} is the same for everybody, so nothing can be learnt from it" for c in same]
    return remarks


def _listed(items: Sequence[str]) -> str:
    return ", ".join(items[:5]) + (f" and {len(items) - 5} more" if len(items) > 5 else "")
