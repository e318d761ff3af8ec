"""Which models the data suffice for: the counts that the trainings will find, against the minimums they ask for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Literal

import duckdb

from training.check.cohorts import Cohort, Cohorts
from training.learning import churn, cross_sell, datasets, labels, lifetime_value
from training.models.histories import MINIMUM_REPEAT_BUYERS
from workspace import consents, storage
from workspace.settings import Workspace
from workspace.storage import CheckFailed

_CAME_BACK = "customers with a second purchase"
Answer = Literal["sufficient", "history only", "base rate only", "insufficient"]


@dataclass(frozen=True)
class Count:
    """So many were found, and so many are the minimum; `minimum` is null where none is asked for."""

    what: str
    found: int
    minimum: int | None


@dataclass(frozen=True)
class Sufficiency:
    """What can be learnt: all of it, from purchase histories alone, one answer for everybody, or nothing.

    With the reason, and what is `needed` for more.
    """

    model: str
    answer: Answer
    reason: str
    counts: tuple[Count, ...]
    needed: tuple[str, ...]


def create_purchase_days(connection: duckdb.DuckDBPyConnection, home: Path, as_of: date, one_in: int) -> None:
    """A table `purchase_days` of what was known before `as_of`, one row per (customer_id, day, known_day).

    Columns: `spend` net of returns, `bought` (false where there are only returns). Of the customers one in `one_in` is
    there, by a hash of the id; the SQL function `is_sampled` says who, for other tables.
    """
    connection.execute(f"CREATE OR REPLACE TEMP MACRO is_sampled(id) AS hash(id) % {one_in} = 0")
    connection.execute(f"""
        CREATE OR REPLACE TEMP TABLE purchase_days AS
        SELECT customer_id, day, known_day, sum(amount) AS spend, bool_or(amount >= 0) AS bought
        FROM {storage.rows_of(home, "transactions")}
        WHERE known_day < DATE '{as_of}' AND is_sampled(customer_id) GROUP BY ALL""")


def closed_cutoffs(workspace: Workspace, as_of: date) -> tuple[list[date], str | None]:
    """The cutoffs that churn and value learn from; none, and the reason in words, where the training would refuse."""
    try:
        return datasets.cutoffs(workspace, as_of), None
    except CheckFailed as problem:
        return [], str(problem)


def sufficiencies(
    connection: duckdb.DuckDBPyConnection, workspace: Workspace, cohorts: Cohorts, refused: str | None, one_in: int,
) -> tuple[Sufficiency, ...]:  # fmt: skip
    """One per model; `refused` is why the training would not even begin. Needs the table `purchase_days`."""
    *closed, now = cohorts.each
    days = labels.purchase_days(workspace, now.as_of)
    if refused is not None or days is None:
        counts = (_repeat_buyers(now), Count("closed cutoffs", 0, None))
        why = refused or f"no purchase is known before {now.as_of}"
        return tuple(
            Sufficiency(model, "insufficient", why, counts, ()) for model in ("churn", "lifetime_value", "cross_sell")
        )
    history = (now.as_of - days[0]).days
    return (
        _churn(workspace, closed, now, history),
        _lifetime_value(workspace, closed, now, history),
        _cross_sell(connection, workspace, now.as_of, history, one_in),
    )


def _repeat_buyers(now: Cohort) -> Count:
    return Count(_CAME_BACK, now.repeat_buyers, MINIMUM_REPEAT_BUYERS)


def _churn(workspace: Workspace, closed: Sequence[Cohort], now: Cohort, history: int) -> Sufficiency:
    """As `training.learning.churn.fit` decides: the latest closed cutoff calibrates, those before it teach."""
    teaching = churn.teaching(closed, workspace.churn.kind == "event")
    left, stayed = sum(c.left for c in teaching), sum(c.stayed for c in teaching)
    event = workspace.churn.kind == "event"
    counts = (
        Count(_CAME_BACK, now.repeat_buyers, None if event else MINIMUM_REPEAT_BUYERS),
        Count("closed cutoffs", len(closed), 2),
        Count(f"{'cancellations' if event else 'customers who left'}, in those that teach", left, churn.MIN_OUTCOMES),
        Count("customers who stayed, in those that teach", stayed, churn.MIN_OUTCOMES),
    )
    came_back = _more(_CAME_BACK, _missing(counts[0]), None)
    needed = [*came_back, *_more_cutoffs(workspace, closed, history, 2)]
    if len(closed) >= 2:
        growth = _Growth(workspace, len(closed), len(teaching))
        needed += _more(
            "cancellations" if event else "customers who left", _missing(counts[-2]), growth.days(counts[-2])
        )
        needed += _more("customers who stayed", _missing(counts[-1]), growth.days(counts[-1]))
        if not (event or closed[-1].has_history):
            needed += _more(f"customers with a second purchase by {closed[-1].as_of}",
                            MINIMUM_REPEAT_BUYERS - closed[-1].repeat_buyers, None)  # fmt: skip
    if came_back:
        return _without_histories("churn", closed, now, counts, needed)
    if not needed:
        reason = f"{len(teaching)} cutoffs to learn from and a later one to calibrate on"
        return Sufficiency("churn", "sufficient", reason, counts, ())
    if event:
        why = "cancellations can only be learnt from labelled cutoffs, and there are too few"
        return Sufficiency("churn", "insufficient", why, counts, tuple(needed))
    why = "learnt from purchase histories alone: too little has happened after earlier cutoffs to learn from"
    return Sufficiency("churn", "history only", why, counts, tuple(needed))


def _lifetime_value(workspace: Workspace, closed: Sequence[Cohort], now: Cohort, history: int) -> Sufficiency:
    """As `training.learning.lifetime_value` decides: a booster where enough spent something in closed windows."""
    teaching = [cohort for cohort in closed if cohort.has_history]
    buyers = Count("customers who spent something in closed windows", sum(c.buyers for c in teaching),
                   lifetime_value.MIN_BUYERS)  # fmt: skip
    counts = (_repeat_buyers(now), Count("closed cutoffs", len(closed), 1), buyers)
    needed = [
        *_more(_CAME_BACK, _missing(counts[0]), None),
        *_more_cutoffs(workspace, closed, history, 1),
    ]
    if closed:
        growth = _Growth(workspace, len(closed), len(teaching))
        needed += _more("customers who spent something", _missing(buyers), growth.days(buyers))
    if not now.has_history:
        return _without_histories("lifetime_value", closed, now, counts, needed)
    if not needed:
        reason = f"{len(teaching)} cutoffs to learn from, beside the purchase histories"
        return Sufficiency("lifetime_value", "sufficient", reason, counts, ())
    why = "learnt from purchase histories alone: too little was spent after earlier cutoffs to learn from"
    return Sufficiency("lifetime_value", "history only", why, counts, tuple(needed))


def _without_histories(
    model: str, closed: Sequence[Cohort], now: Cohort, counts: tuple[Count, ...], needed: Sequence[str]
) -> Sufficiency:
    """The rate of the latest closed window answers for everybody, where enough customers could leave in it."""
    why = f"only {now.repeat_buyers:,} customers had come back for a second purchase by {now.as_of}"
    if not closed or closed[-1].left + closed[-1].stayed < churn.FEWEST:
        return Sufficiency(model, "insufficient", why, counts, tuple(needed))
    rate = f"{why}: everybody gets one answer, by what followed {closed[-1].as_of}"
    return Sufficiency(model, "base rate only", rate, counts, tuple(needed))


def _cross_sell(
    connection: duckdb.DuckDBPyConnection, workspace: Workspace, as_of: date, history: int, one_in: int
) -> Sufficiency:
    """As `training.learning.cross_sell.train` decides."""
    sell = workspace.cross_sell
    if (lacking := cross_sell.unmapped(workspace)) is not None:
        return Sufficiency("cross_sell", "insufficient", lacking.why, (), (lacking.do,))
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
        return Sufficiency("cross_sell", "insufficient", why, counts, tuple(needed))
    growth = math.ceil(_missing(counts[2]) * len(closed) / bought) * sell.horizon if bought else None
    short = _more(kind, _missing(counts[1]), None) + _more(f"purchases of {kind}", _missing(counts[2]), growth)
    if short:
        return Sufficiency(
            "cross_sell", "insufficient", f"too few {kind} were bought in the closed windows", counts, tuple(short)
        )
    reason = f"{len(closed)} closed window{'s' * (len(closed) > 1)} to learn from"
    return Sufficiency("cross_sell", "sufficient", reason, counts, ())


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
              AND {consents.may_teach(workspace)}
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
        SELECT customer_id FROM purchase_days WHERE bought AND {before} AND {consents.may_teach(workspace)}
        GROUP BY customer_id
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
