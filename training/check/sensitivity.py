"""What other definitions of leaving would mean: how many would have left, how steadily, and how many came back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import duckdb
import numpy as np

from training.learning import labels
from workspace import storage
from workspace.settings import Workspace
from workspace.storage import CheckFailed
from workspace.windows import closed_cutoffs

HORIZONS = (30, 60, 90, 120, 180)
FOLLOW_UP = 90
"""Days after the window in which who was called gone may come back."""
PATIENT = 0.9
"""Of the returns, so many lie within the recommended horizon; a customer's gaps count together as one."""


@dataclass(frozen=True)
class Definition:
    """One horizon, over the cutoffs at which it has closed.

    rates: share of the active customers without a purchase in the horizon, by cutoff; came_back: of these, who bought
    in the `FOLLOW_UP` days after it, null where no cutoff lies that far back.
    """

    horizon: int
    rates: dict[date, float]
    came_back: float | None

    @property
    def rate(self) -> float:
        return float(np.mean(list(self.rates.values())))

    @property
    def spread(self) -> float:
        """Between the lowest and the highest rate."""
        return max(self.rates.values()) - min(self.rates.values())


@dataclass(frozen=True)
class Sensitivity:
    """gap: days within which `PATIENT` of the returns fall, null where nobody came back."""

    as_of: date
    definitions: tuple[Definition, ...]
    gap: float | None

    @property
    def recommended(self) -> int | None:
        """The shortest horizon that most returns lie within; the longest, if none is long enough."""
        if self.gap is None or not self.definitions:
            return None
        horizons = [definition.horizon for definition in self.definitions]
        return min((h for h in horizons if h >= self.gap), default=max(horizons))


def sensitivity(workspace: Workspace, as_of: date, horizons: Sequence[int] = HORIZONS) -> Sensitivity:
    """From the ingested purchases known before `as_of`; needs no snapshot and no model.

    Raises:
        CheckFailed: the history is shorter than every horizon.
    """
    days = labels.purchase_days(workspace, as_of)
    if days is None:
        raise CheckFailed(f"no purchase is known before {as_of}; choose a later --as-of, or ingest earlier purchases")
    with storage.connect(workspace.home_path, workspace.timezone) as connection:
        connection.execute(f"""
            CREATE TEMP TABLE purchases AS SELECT DISTINCT customer_id, day
            FROM {storage.rows_of(workspace.home_path, "transactions")}
            WHERE amount >= 0 AND known_day < DATE '{as_of}'""")
        tried = [_definition(connection, workspace, as_of, days[0], horizon) for horizon in horizons]
        gap = _usual_gap(connection)
    definitions = tuple(definition for definition in tried if definition is not None)
    if not definitions:
        raise CheckFailed(
            f"the history of {(as_of - days[0]).days} days before {as_of} has room for no horizon of"
            f" {min(horizons)} days after {workspace.training.min_history} days of purchases (training.min_history)"
        )
    return Sensitivity(as_of, definitions, gap)


def _definition(
    connection: duckdb.DuckDBPyConnection, workspace: Workspace, as_of: date, first: date, horizon: int
) -> Definition | None:
    training, churn = workspace.training, workspace.churn
    cutoffs = closed_cutoffs(
        labels.recorded_until(workspace, as_of), first, outcome_days=churn.gap + horizon, spacing=training.spacing,
        most=training.cutoffs, min_history=training.min_history,
    )  # fmt: skip
    start, end = f"as_of + {churn.gap}", f"as_of + {churn.gap + horizon}"
    rows = connection.execute(
        f"""
        WITH customers AS (
            SELECT as_of, bool_or(day >= {start} AND day < {end}) AS stayed,
                   bool_or(day >= {end} AND day < {end} + {FOLLOW_UP}) AS returned
            FROM purchases CROSS JOIN (SELECT unnest(?::DATE[]) AS as_of)
            GROUP BY as_of, customer_id HAVING as_of - max(day) FILTER (day < as_of) <= {churn.active_window})
        SELECT as_of, avg((NOT stayed)::INT), count(*) FILTER (NOT stayed),
               count(*) FILTER (NOT stayed AND returned), {end} + {FOLLOW_UP} <= DATE '{as_of}'
        FROM customers GROUP BY as_of ORDER BY as_of""",
        [cutoffs],
    ).fetchall()
    if not rows:
        return None
    followed = [(left, back) for _, _, left, back, is_followed in rows if is_followed]
    left = sum(left for left, _ in followed)
    return Definition(
        horizon, {day: rate for day, rate, *_ in rows}, sum(back for _, back in followed) / left if left else None
    )


def _usual_gap(connection: duckdb.DuckDBPyConnection) -> float | None:
    """Days that `PATIENT` of the returning customers' gaps do not exceed, every customer's gaps weighing one in all."""
    rows = connection.execute("""
        WITH gaps AS (
            SELECT customer_id, day - lag(day) OVER (PARTITION BY customer_id ORDER BY day) AS gap FROM purchases),
        weighed AS (SELECT gap, 1 / count(*) OVER (PARTITION BY customer_id) AS weight FROM gaps WHERE gap IS NOT NULL)
        SELECT gap, sum(weight) FROM weighed GROUP BY gap ORDER BY gap""").fetchnumpy()
    gaps, weights = (np.asarray(column, dtype=float) for column in rows.values())
    if not len(gaps):
        return None
    return float(gaps[np.searchsorted(np.cumsum(weights), PATIENT * weights.sum())])


def as_text(measured: Sensitivity) -> str:
    """A line per horizon, and what the shop's own gaps recommend."""
    lines = [f"{'horizon':>8}{'left':>8}{'lowest':>9}{'highest':>9}{'cutoffs':>9}   came back within {FOLLOW_UP} days"]
    for definition in measured.definitions:
        rates = definition.rates.values()
        back = "not known yet" if definition.came_back is None else f"{definition.came_back:.0%}"
        figures = f"{definition.rate:>8.0%}{min(rates):>9.0%}{max(rates):>9.0%}{len(rates):>9}"
        lines.append(f"{definition.horizon:>7}d{figures}   {back}")
    return "\n".join([*lines, "", _advice(measured)])


def _advice(measured: Sensitivity) -> str:
    if measured.gap is None:
        return "no recommendation: no customer has come back for a second purchase"
    longest = measured.definitions[-1].horizon
    gaps = f"{PATIENT:.0%} of the returns come within {measured.gap:,.0f} days"
    if measured.gap > longest:
        return f"{gaps}: none of these is long enough; of them take churn.horizon: {longest}"
    return f"{gaps}: take churn.horizon: {measured.recommended}"
