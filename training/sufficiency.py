"""Which models the data suffice for: the counts that the trainings will find, against the minimums they ask for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Literal

import duckdb

from perennial import storage
from perennial.settings import Workspace
from perennial.storage import CheckFailed
from training import churn, cross_sell, datasets, labels, lifetime_value
from training.models.bg_nbd import MINIMUM_REPEAT_BUYERS

Answer = Literal["sufficient", "history only", "insufficient"]


@dataclass(frozen=True)
class Count:
    """So many were found, and so many are the minimum; `minimum` is null where none is asked for."""

    what: str
    found: int
    minimum: int | None


@dataclass(frozen=True)
class Verdict:
    """What can be learnt: all of it, from purchase history alone, or nothing; why, and what it would take."""

    model: str
    answer: Answer
    reason: str
    counts: tuple[Count, ...]
    needed: tuple[str, ...]


@dataclass(frozen=True)
class Cohort:
    """Customers known at one cutoff: who had come back by then, and what became of them in the windows that followed.

    The outcomes are 0 at the as_of of the training itself, where none is known yet.
    """

    as_of: date
    customers: int
    repeat_buyers: int
    left: int = 0
    stayed: int = 0
    buyers: int = 0

    @property
    def has_history(self) -> bool:
        """Whether purchase histories can be learnt from here, without which no model can."""
        return self.repeat_buyers >= MINIMUM_REPEAT_BUYERS


def create_purchase_days(connection: duckdb.DuckDBPyConnection, workspace: Workspace, as_of: date, one_in: int) -> None:
    """A table `purchase_days` of what was known before `as_of`, one row per (customer_id, day, known_day).

    Columns: `spend` net of returns, `bought` (false where there are only returns). Of the customers one in `one_in` is
    there, by a hash of the id; the SQL function `is_sampled` says who, for other tables.
    """
    connection.execute(f"CREATE OR REPLACE TEMP MACRO is_sampled(id) AS hash(id) % {one_in} = 0")
    connection.execute(f"""
        CREATE OR REPLACE TEMP TABLE purchase_days AS
        SELECT customer_id, day, known_day, sum(amount) AS spend, bool_or(amount >= 0) AS bought
        FROM {storage.rows_of(workspace.home_path, "transactions")}
        WHERE known_day < DATE '{as_of}' AND is_sampled(customer_id) GROUP BY ALL""")


def closed_cutoffs(workspace: Workspace, as_of: date) -> tuple[list[date], str | None]:
    """The cutoffs that churn and value learn from; none, and the reason in words, where the training would refuse."""
    try:
        return datasets.cutoffs(workspace, as_of), None
    except CheckFailed as problem:
        return [], str(problem)


def create_outcomes(
    connection: duckdb.DuckDBPyConnection, workspace: Workspace, closed: Sequence[date], as_of: date
) -> None:
    """A table `outcomes` from `purchase_days`: one row per customer, and per cutoff, numbered, `as_of` the last, what
    `training.datasets.Cutoff` holds of them, in the same words.

    `known_N`, `first_N` and `last_N` (purchase days known then); for closed cutoffs also `churned_N` (null for who
    cannot leave) and `value_N`.
    """
    cutoffs = [*closed, as_of]
    known = ", ".join(_known(number, day) for number, day in enumerate(cutoffs))
    happened = "".join(f", {_happened(workspace, number, day)}" for number, day in enumerate(closed))
    gone = "".join(f", {_cancelled(workspace, number, day)}" for number, day in enumerate(closed))
    wanted = [
        f"known_{n} OR coalesce(signed_up_day < DATE '{day}', false) AS known_{n}, first_{n}, last_{n}"
        for n, day in enumerate(cutoffs)
    ]
    wanted += [f"{_churned(workspace, n, day)} AS churned_{n}, value_{n}" for n, day in enumerate(closed)]
    connection.execute(f"""
        CREATE OR REPLACE TEMP TABLE outcomes AS
        WITH bought AS (SELECT customer_id, {known}{happened} FROM purchase_days GROUP BY customer_id),
             signed_up AS {_signed_up(workspace)},
             cancelled AS (SELECT customer_id{gone} FROM {_cancellations(workspace, as_of)} GROUP BY customer_id)
        SELECT customer_id, {", ".join(wanted)}
        FROM bought FULL JOIN signed_up USING (customer_id) LEFT JOIN cancelled USING (customer_id)""")


def _known(number: int, day: date) -> str:
    """SQL aggregates: what was known of a customer's purchases before a cutoff."""
    before = f"known_day < DATE '{day}'"
    return (
        f"bool_or({before}) AS known_{number}, min(day) FILTER (bought AND {before}) AS first_{number},"
        f" max(day) FILTER (bought AND {before}) AS last_{number}"
    )


def _happened(workspace: Workspace, number: int, day: date) -> str:
    """SQL aggregates: whether a customer bought in the churn window, and the discounted spend in the value window."""
    start, value = f"DATE '{day}'", workspace.lifetime_value
    rate = f"pow(1 + {value.discount_rate}, -(day - {start}) / 365.0)"
    return (
        f"coalesce(bool_or(bought AND {_in_churn_window(workspace, day)}), false) AS bought_{number},"
        f" round(sum(spend * {rate}) FILTER (day >= {start} AND day < {start} + {value.horizon}), 6) AS value_{number}"
    )


def _cancelled(workspace: Workspace, number: int, day: date) -> str:
    """SQL aggregates over cancellations: whether a customer had left, and whether the customer left in the window."""
    window = _in_churn_window(workspace, day)
    return f"{labels.has_left(day)} AS gone_{number}, bool_or({window}) AS cancelled_{number}"


def _in_churn_window(workspace: Workspace, day: date) -> str:
    start, gap = f"DATE '{day}'", workspace.churn.gap
    return f"day >= {start} + {gap} AND day < {start} + {gap + workspace.churn.horizon}"


def _churned(workspace: Workspace, number: int, day: date) -> str:
    """SQL: 1 who left, 0 who stayed, null who could not leave."""
    if workspace.churn.kind == "event":
        known = f"(known_{number} OR signed_up_day < DATE '{day}') AND NOT coalesce(gone_{number}, false)"
        return f"CASE WHEN {known} THEN coalesce(cancelled_{number}, false)::INT END"
    active = f"DATE '{day}' - last_{number} <= {workspace.churn.active_window}"
    return f"CASE WHEN {active} THEN (NOT bought_{number})::INT END"


def _signed_up(workspace: Workspace) -> str:
    if workspace.tables.customers is None:
        return "(SELECT NULL::VARCHAR AS customer_id, NULL::DATE AS signed_up_day LIMIT 0)"
    rows = storage.rows_of(workspace.home_path, "customers")
    return (
        f"(SELECT customer_id, signed_up_day FROM {rows} WHERE signed_up_day IS NOT NULL AND is_sampled(customer_id))"
    )


def _cancellations(workspace: Workspace, as_of: date) -> str:
    if workspace.churn.kind != "event":
        nothing = ("day", "known_day", "back_day", "runs_until")
        return f"(SELECT NULL::VARCHAR AS customer_id, {', '.join(f'NULL::DATE AS {n}' for n in nothing)} LIMIT 0)"
    return labels.cancellations(workspace, as_of)


def cohorts(
    connection: duckdb.DuckDBPyConnection, closed: Sequence[date], as_of: date, one_in: int
) -> tuple[Cohort, ...]:
    """Counts over `outcomes`, oldest cutoff first, `as_of` itself last; scaled up to all customers."""
    found = []
    for number, day in enumerate([*closed, as_of]):
        conditions = [f"known_{number}", f"first_{number} < last_{number}"]
        if day != as_of:
            conditions += [f"churned_{number} = 1", f"churned_{number} = 0", f"known_{number} AND value_{number} > 0"]
        counts = ", ".join(f"count(*) FILTER ({condition})" for condition in conditions)
        row = connection.execute(f"SELECT {counts} FROM outcomes").fetchall()[0]
        found.append(Cohort(day, *(count * one_in for count in row)))
    return tuple(found)


def verdicts(
    connection: duckdb.DuckDBPyConnection, workspace: Workspace, found: Sequence[Cohort], refused: str | None,
    one_in: int,
) -> tuple[Verdict, ...]:  # fmt: skip
    """One per model; `refused` is why the training would not even begin. Needs the table `purchase_days`."""
    *closed, now = found
    days = labels.purchase_days(workspace, now.as_of)
    if refused is not None or days is None:
        counts = (_repeat_buyers(now), Count("closed cutoffs", 0, None))
        why = refused or f"no purchase is known before {now.as_of}"
        return tuple(
            Verdict(model, "insufficient", why, counts, ()) for model in ("churn", "lifetime_value", "cross_sell")
        )
    history = (now.as_of - days[0]).days
    return (
        _churn(workspace, closed, now, history),
        _lifetime_value(workspace, closed, now, history),
        _cross_sell(connection, workspace, now.as_of, history, one_in),
    )


def _repeat_buyers(now: Cohort) -> Count:
    return Count("customers with a second purchase", now.repeat_buyers, MINIMUM_REPEAT_BUYERS)


def _churn(workspace: Workspace, closed: Sequence[Cohort], now: Cohort, history: int) -> Verdict:
    """As `training.churn.fit` decides: the latest closed cutoff calibrates, those before it teach."""
    teaching = [cohort for cohort in closed[:-1] if cohort.has_history]
    left, stayed = sum(c.left for c in teaching), sum(c.stayed for c in teaching)
    event = workspace.churn.kind == "event"
    counts = (
        _repeat_buyers(now),
        Count("closed cutoffs", len(closed), 2),
        Count(f"{'cancellations' if event else 'customers who left'}, in those that teach", left, churn.MIN_OUTCOMES),
        Count("customers who stayed, in those that teach", stayed, churn.MIN_OUTCOMES),
    )
    needed = [
        *_more("customers with a second purchase", _missing(counts[0]), None),
        *_more_cutoffs(workspace, closed, history, 2),
    ]
    if len(closed) >= 2:
        growth = _Growth(workspace, len(closed), len(teaching))
        needed += _more("cancellations" if event else "customers who left", _missing(counts[2]), growth.days(counts[2]))
        needed += _more("customers who stayed", _missing(counts[3]), growth.days(counts[3]))
        if not closed[-1].has_history:
            needed += _more(f"customers with a second purchase by {closed[-1].as_of}",
                            MINIMUM_REPEAT_BUYERS - closed[-1].repeat_buyers, None)  # fmt: skip
    if not now.has_history:
        return Verdict("churn", "insufficient", _too_few_came_back(now), counts, tuple(needed))
    if not needed:
        reason = f"{len(teaching)} cutoffs to learn from and a later one to calibrate on"
        return Verdict("churn", "sufficient", reason, counts, ())
    if event:
        why = "cancellations can only be learnt from labelled cutoffs, and there are too few"
        return Verdict("churn", "insufficient", why, counts, tuple(needed))
    why = "learnt from purchase histories alone: too little has happened after earlier cutoffs to learn from"
    return Verdict("churn", "history only", why, counts, tuple(needed))


def _lifetime_value(workspace: Workspace, closed: Sequence[Cohort], now: Cohort, history: int) -> Verdict:
    """As `training.lifetime_value` decides: a booster where enough spent something in closed windows."""
    teaching = [cohort for cohort in closed if cohort.has_history]
    buyers = Count("customers who spent something in closed windows", sum(c.buyers for c in teaching),
                   lifetime_value.MIN_BUYERS)  # fmt: skip
    counts = (_repeat_buyers(now), Count("closed cutoffs", len(closed), 1), buyers)
    needed = [
        *_more("customers with a second purchase", _missing(counts[0]), None),
        *_more_cutoffs(workspace, closed, history, 1),
    ]
    if closed:
        growth = _Growth(workspace, len(closed), len(teaching))
        needed += _more("customers who spent something", _missing(buyers), growth.days(buyers))
    if not now.has_history:
        return Verdict("lifetime_value", "insufficient", _too_few_came_back(now), counts, tuple(needed))
    if not needed:
        reason = f"{len(teaching)} cutoffs to learn from, beside the purchase histories"
        return Verdict("lifetime_value", "sufficient", reason, counts, ())
    why = "learnt from purchase histories alone: too little was spent after earlier cutoffs to learn from"
    return Verdict("lifetime_value", "history only", why, counts, tuple(needed))


def _too_few_came_back(now: Cohort) -> str:
    return f"only {now.repeat_buyers:,} customers had come back for a second purchase by {now.as_of}"


def _cross_sell(
    connection: duckdb.DuckDBPyConnection, workspace: Workspace, as_of: date, history: int, one_in: int
) -> Verdict:
    """As `training.cross_sell.train` decides."""
    sell = workspace.cross_sell
    if sell.level == "category" and workspace.tables.products is None:
        why = "there is no products table, which says what category a product is of"
        return Verdict("cross_sell", "insufficient", why, (), ("add tables.products, or set cross_sell.level to item",))
    closed = cross_sell.cutoffs(workspace, as_of)
    if closed:
        _create_item_days(connection, workspace, closed[0], as_of)
    pairs = [_pairs(connection, workspace, cutoff) for cutoff in closed]
    items, bought = len(set().union(*(items for items, _ in pairs))), sum(n for _, n in pairs) * one_in
    kind = "categories" if sell.level == "category" else "items"
    counts = (
        Count("closed cutoffs", len(closed), 1),
        Count(f"{kind} on offer at the cutoffs", items, cross_sell.MIN_ITEMS),
        Count(f"customers' purchases of {kind} in the closed windows", bought, cross_sell.MIN_BOUGHT),
    )
    if not closed:
        needed = _more_history(workspace.training.min_history + sell.horizon - history)
        why = f"no {sell.horizon}-day window has closed with {workspace.training.min_history} days of history before it"
        return Verdict("cross_sell", "insufficient", why, counts, tuple(needed))
    growth = math.ceil(_missing(counts[2]) * len(closed) / bought) * sell.horizon if bought else None
    short = _more(kind, _missing(counts[1]), None) + _more(f"purchases of {kind}", _missing(counts[2]), growth)
    if short:
        return Verdict(
            "cross_sell", "insufficient", f"too few {kind} were bought in the closed windows", counts, tuple(short)
        )
    reason = f"{len(closed)} closed window{'s' * (len(closed) > 1)} to learn from"
    return Verdict("cross_sell", "sufficient", reason, counts, ())


def _create_item_days(connection: duckdb.DuckDBPyConnection, workspace: Workspace, first: date, as_of: date) -> None:
    """A table `item_days`: what was bought, one row per (customer_id, item, day, known_day), known before `as_of`.

    It begins a year before the first cutoff.
    """
    by_category = workspace.cross_sell.level == "category"
    lines, home = storage.rows_of(workspace.home_path, "transactions"), workspace.home_path
    products = f"(SELECT product_id, category AS item FROM {storage.rows_of(home, 'products')})" if by_category else ""
    connection.execute(f"""
        CREATE OR REPLACE TEMP TABLE item_days AS
        SELECT DISTINCT customer_id, {"item" if by_category else "product_id AS item"}, day, known_day
        FROM {lines} {f"JOIN {products} USING (product_id)" if by_category else ""}
        WHERE amount >= 0 AND known_day < DATE '{as_of}' AND product_id IS NOT NULL AND is_sampled(customer_id)
              AND day >= DATE '{first}' - 365""")


def _pairs(connection: duckdb.DuckDBPyConnection, workspace: Workspace, cutoff: date) -> tuple[set[str], int]:
    """Items on offer at a cutoff, and how many (customer, item) pairs of them were bought in the window after it.

    On offer is what sold in the year before.
    """
    before, start = f"known_day < DATE '{cutoff}'", f"DATE '{cutoff}'"
    connection.execute(f"""
        CREATE OR REPLACE TEMP TABLE sold AS
        SELECT DISTINCT item FROM item_days WHERE {before} AND day >= {start} - 365;
        CREATE OR REPLACE TEMP TABLE active AS
        SELECT customer_id FROM purchase_days WHERE bought AND {before} GROUP BY customer_id
        HAVING {start} - max(day) <= {workspace.churn.active_window}""")
    items = connection.execute("SELECT item FROM sold").fetchall()
    bought = connection.execute(f"""
        SELECT count(*) FROM (
            SELECT DISTINCT customer_id, item FROM item_days SEMI JOIN active USING (customer_id)
            WHERE day >= {start} AND day < {start} + {workspace.cross_sell.horizon}) SEMI JOIN sold USING (item)""")
    return {item for (item,) in items}, int(bought.fetchall()[0][0])


def _missing(count: Count) -> int:
    return max(0, (count.minimum or 0) - count.found)


def _more(what: str, missing: int, days: int | None) -> list[str]:
    """What is missing, in words, with the days of further data that would bring it at the pace so far."""
    if missing <= 0:
        return []
    return [f"{missing:,} more {what}" + (f", or about {_span(days)}" if days is not None else "")]


def _span(days: int) -> str:
    return f"{days} more days" if days < 60 else f"{math.ceil(days / 30.4)} more months"


def _more_history(days: int) -> list[str]:
    return [f"about {_span(days)} of purchases"] if days > 0 else []


def _more_cutoffs(workspace: Workspace, closed: Sequence[Cohort], history: int, wanted: int) -> list[str]:
    """The history that would make room for so many closed cutoffs."""
    if len(closed) >= wanted:
        return []
    if workspace.training.cutoffs < wanted:
        return [f"training.cutoffs of {wanted} or more"]
    training = workspace.training
    outcome = datasets.outcome_days(workspace)
    return _more_history(training.min_history + outcome + training.spacing * (wanted - 1) - history)


@dataclass(frozen=True)
class _Growth:
    """How counts grow with time: every `spacing` days add a cutoff, up to the most that are learnt from."""

    workspace: Workspace
    closed: int
    teaching: int

    def days(self, count: Count) -> int | None:
        """Until a count reaches its minimum at the pace so far; none where more time brings no more cutoffs."""
        if not self.teaching or not count.found:
            return None
        cutoffs = math.ceil(_missing(count) * self.teaching / count.found)
        training = self.workspace.training
        return cutoffs * training.spacing if self.closed + cutoffs <= training.cutoffs else None
