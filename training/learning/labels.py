"""What happened next: outcomes over windows that have closed, and nothing about those that have not."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path

import duckdb
import pandas as pd

from workspace import consents, storage
from workspace.settings import Workspace
from workspace.windows import outcome_window


def purchase_days(workspace: Workspace, known_by: date) -> tuple[date, date] | None:
    """The first and the last day with a purchase known by then; none where there is no purchase at all.

    Of whom may teach: who refuses profiling does not count.
    """
    query = f"SELECT min(day), max(day) FROM {_teaching(workspace, known_by)} WHERE amount >= 0"
    with storage.connect(workspace.home_path, workspace.timezone) as connection:
        first, last = connection.execute(query).fetchall()[0]
    return None if first is None else (first, last)


def recorded_until(workspace: Workspace, as_of: date) -> date:
    """The day by which purchases may be missing: `as_of`, or earlier where the shop has been silent as never before.

    Such a silence says that a source is missing rather than that everybody has left; it begins where the longest one
    so far, counted from the last purchase, ends. Where leaving is an event, contracts run on without purchases.
    """
    if workspace.churn.kind == "event":
        return as_of
    query = f"""
        SELECT max(day), max(day - before) FROM (
            SELECT day, coalesce(lag(day) OVER (ORDER BY day), day - 1) AS before
            FROM (SELECT DISTINCT day FROM {_teaching(workspace, as_of)} WHERE amount >= 0))"""
    with storage.connect(workspace.home_path, workspace.timezone) as connection:
        last, longest = connection.execute(query).fetchall()[0]
    return as_of if last is None else min(as_of, last + timedelta(days=longest))


def outcomes(
    workspace: Workspace, as_of_dates: Sequence[date], known_by: date, among: pd.Series | None = None
) -> pd.DataFrame:
    """Who did what in the outcome windows of `as_of_dates`; a customer who did nothing has no row.

    Of the customer_ids `among` alone, where they are given.

    Columns: customer_id, as_of, `n_purchases` and `value` (discounted, net of returns, of what
    `lifetime_value.measure` says) in the lifetime-value window, `bought` in the churn window, `returned_after` (days
    from as_of to the first purchase in it, null without one) and, for event churn, `cancelled` in it.

    Raises:
        ValueError: a window had not closed by `known_by`; its outcome does not exist yet.
    """
    churn, value = workspace.churn, workspace.lifetime_value
    _refuse_open(as_of_dates, known_by, max(churn.gap + churn.horizon, value.horizon))
    # Rounded, else what was returned in full is worth 1e-15, more or less than nothing as the sum's order has it.
    rate = f"pow(1 + {value.discount_rate}, -(day - as_of) / 365.0)"
    with storage.connect(workspace.home_path, workspace.timezone) as connection:
        _register(connection, as_of_dates)
        only = "" if among is None else "SEMI JOIN among USING (customer_id)"
        if among is not None:
            connection.register("among", pd.DataFrame({"customer_id": among}))
        bought = connection.execute(f"""
            SELECT customer_id, as_of,
                   count(DISTINCT day) FILTER (amount >= 0 AND day < as_of + {value.horizon}) AS n_purchases,
                   coalesce(round(sum(worth * {rate}) FILTER (day < as_of + {value.horizon}), 6), 0) AS value,
                   coalesce(bool_or(amount >= 0 AND day >= as_of + {churn.gap}
                                    AND day < as_of + {churn.gap + churn.horizon}), false) AS bought,
                   min(day - as_of) FILTER (amount >= 0 AND day >= as_of + {churn.gap}
                                    AND day < as_of + {churn.gap + churn.horizon}) AS returned_after
            FROM {_worth(workspace, known_by)} {only} JOIN cutoffs ON day >= as_of
             AND day < as_of + {max(churn.gap + churn.horizon, value.horizon)}
            GROUP BY ALL""").df()
        cancelled = _cancellations(connection, workspace, known_by)
    return bought.merge(cancelled, on=["customer_id", "as_of"], how="outer")


def shop_days(workspace: Workspace, known_by: date) -> pd.DataFrame:
    """What the whole shop sold to who does not refuse profiling: one row per (day, known_day), sorted by day.

    Columns: day, known_day, `value` (net of returns, of what `lifetime_value.measure` says), `n_purchases` (customers
    who bought that day).
    """
    with storage.connect(workspace.home_path, workspace.timezone) as connection:
        return connection.execute(f"""
            SELECT day, known_day, sum(worth) AS value,
                   count(DISTINCT customer_id) FILTER (amount >= 0)::DOUBLE AS n_purchases
            FROM {_worth(workspace, known_by)} WHERE {consents.may_teach(workspace)}
            GROUP BY ALL ORDER BY day""").df()


def _worth(workspace: Workspace, known_by: date) -> str:
    """SQL: the transactions known by then, with what each line is `worth`: its amount, or the margin in it.

    A line whose cost is unknown has the mean margin of those whose cost is known.

    Raises:
        CheckFailed: the margin is wanted, and no line's cost is known.
    """
    lines = _known("transactions", workspace.home_path, known_by)
    if workspace.lifetime_value.measure == "spend":
        return f"(SELECT *, amount AS worth FROM {lines})"
    priced = f"(SELECT *, cost AS known_cost FROM {lines})"
    if workspace.tables.products is not None:
        products = storage.rows_of(workspace.home_path, "products")
        priced = (
            f"(SELECT lines.*, coalesce(cost, unit_cost * quantity) AS known_cost FROM {lines} AS lines"
            f" LEFT JOIN (SELECT product_id, unit_cost FROM {products}) USING (product_id))"
        )
    teaching = f"known_cost IS NOT NULL AND {consents.may_teach(workspace)}"
    query = f"SELECT sum(known_cost) / sum(amount) FROM {priced} WHERE {teaching}"
    with storage.connect(workspace.home_path, workspace.timezone) as connection:
        share = connection.execute(query).fetchall()[0][0]
    if share is None:
        raise storage.CheckFailed(
            "lifetime_value.measure is margin, and no line's cost is known: map `cost` of transactions, or"
            " `unit_cost` of products and `quantity`, or set lifetime_value.measure to spend"
        )
    return f"(SELECT *, amount - coalesce(known_cost, amount * {share}) AS worth FROM {priced})"


def _cancellations(connection: duckdb.DuckDBPyConnection, workspace: Workspace, known_by: date) -> pd.DataFrame:
    """Per (customer_id, as_of): whether there is a cancellation in the churn window; only for event churn."""
    churn = workspace.churn
    if churn.kind != "event":
        return pd.DataFrame({"customer_id": [], "as_of": [], "cancelled": []}).astype(
            {"customer_id": object, "as_of": "datetime64[us]", "cancelled": bool}
        )
    return connection.execute(f"""
        SELECT customer_id, as_of, true AS cancelled
        FROM {cancellations(workspace, known_by)} JOIN cutoffs
          ON day >= as_of + {churn.gap} AND day < as_of + {churn.gap + churn.horizon}
        GROUP BY ALL""").df()


def cancellations(workspace: Workspace, known_by: date) -> str:
    """SQL: customer_id, day and known_day of every cancellation known by then, and of every contract's end before then.

    `back_day` is when a purchase or sign-up after it became known, `runs_until` when the contract that stands beside a
    cancellation ends; null where there is none. Several of one customer (a cancellation before the contract ends) stay
    apart: see `has_left`.
    """
    bought = f"{_known('transactions', workspace.home_path, known_by)} WHERE amount >= 0"
    back = [f"SELECT customer_id, occurred_at AS at, day, known_day FROM {bought}"]
    ends = [f"SELECT customer_id, occurred_at AS at, day, known_day FROM {bought} AND false"]
    if workspace.tables.interactions is not None:
        rows = _known("interactions", workspace.home_path, known_by)
        ends.append(f"SELECT customer_id, occurred_at, day, known_day FROM {rows} WHERE kind = 'cancellation'")
    contracts = "(SELECT NULL::VARCHAR AS customer_id, NULL::DATE AS contract_ends_day LIMIT 0)"
    if workspace.tables.customers is not None:
        contracts = storage.rows_of(workspace.home_path, "customers")
        ended = f"contract_ends_day < DATE '{known_by}'"
        ends.append(f"SELECT customer_id, NULL, contract_ends_day, contract_ends_day FROM {contracts} WHERE {ended}")
        back.append(f"SELECT customer_id, signed_up_at, signed_up_day, signed_up_day FROM {contracts}")
    return f"""(
        SELECT ends.customer_id, ends.day, ends.known_day, min(back.known_day) AS back_day,
               CASE WHEN ends.at IS NOT NULL THEN max(contract_ends_day) END AS runs_until
        FROM ({" UNION ALL ".join(ends)}) AS ends
        LEFT JOIN ({" UNION ALL ".join(back)}) AS back ON back.customer_id = ends.customer_id
         AND CASE WHEN ends.at IS NULL THEN back.day > ends.day ELSE back.at > ends.at END
        LEFT JOIN {contracts} AS contracts ON contracts.customer_id = ends.customer_id
        GROUP BY ends.customer_id, ends.day, ends.known_day, ends.at)"""


def has_left(day: date) -> str:
    """SQL over `cancellations` of a customer: whether one holds at `day`, with nothing known that came after it.

    While a contract runs, be it the old one under notice or the next one, a cancellation does not hold yet.
    """
    at = f"DATE '{day}'"
    holds = f"known_day < {at} AND coalesce(back_day >= {at}, true) AND coalesce(runs_until < {at}, true)"
    return f"coalesce(bool_or({holds}), false)"


def items_bought(workspace: Workspace, as_of_dates: Sequence[date], known_by: date) -> pd.DataFrame:
    """One row per (customer_id, as_of, item) bought in the cross-sell window of `as_of_dates`."""
    horizon = workspace.cross_sell.horizon
    _refuse_open(as_of_dates, known_by, horizon)
    with storage.connect(workspace.home_path, workspace.timezone) as connection:
        _register(connection, as_of_dates)
        lines = _known("transactions", workspace.home_path, known_by)
        if workspace.cross_sell.level == "category":
            products = f"(SELECT product_id, category AS item FROM {storage.rows_of(workspace.home_path, 'products')})"
        else:
            products = f"(SELECT DISTINCT product_id, product_id AS item FROM {lines} WHERE product_id IS NOT NULL)"
        return connection.execute(f"""
            SELECT DISTINCT customer_id, as_of, item FROM {lines} JOIN {products} USING (product_id)
            JOIN cutoffs ON day >= as_of AND day < as_of + {horizon} WHERE amount >= 0""").df()


def _known(table: str, home: Path, known_by: date) -> str:
    return f"(SELECT * FROM {storage.rows_of(home, table)} WHERE known_day < DATE '{known_by}')"


def _teaching(workspace: Workspace, known_by: date) -> str:
    """SQL: the transactions known by then, but none of who refuses profiling."""
    known = _known("transactions", workspace.home_path, known_by)
    return f"(SELECT * FROM {known} WHERE {consents.may_teach(workspace)})"


def _register(connection: duckdb.DuckDBPyConnection, as_of_dates: Sequence[date]) -> None:
    connection.execute("CREATE TEMP TABLE cutoffs AS SELECT unnest(?::DATE[]) AS as_of", [list(as_of_dates)])


def _refuse_open(as_of_dates: Sequence[date], known_by: date, days: int) -> None:
    for as_of in as_of_dates:
        end = outcome_window(as_of, days).end
        if end > known_by:
            raise ValueError(f"the outcome window of {as_of} ends on {end}, later than {known_by}: it has not closed")
