"""What one customer did, day by day, as the last batch summed it up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

from features import day_files
from workspace import storage
from workspace.settings import Workspace

_MOST = 5


@dataclass(frozen=True)
class History:
    """Purchases and returns as (day, net amount, whether anything was bought), everything else as (day, kind, how
    many), oldest first; `items` are what was spent most on, as (item, amount)."""

    purchases: list[tuple[date, float, bool]]
    events: list[tuple[date, str, int]]
    items: list[tuple[str, float]]


@storage.read_again
def history(workspace: Workspace, customer_id: str, as_of: date) -> History:
    """All known before `as_of`. The files are sorted by customer, so little of them is read.

    Raises:
        CheckFailed: a batch is at work on the days.
    """
    files, _ = day_files.days_files(workspace)
    known = f"WHERE customer_id = $customer AND known_day < DATE '{as_of}'"
    asked: Mapping[str, str] = {
        "customer_days": f"SELECT day, sum(spend), bool_or(n_lines > 0) FROM {{}} {known} GROUP BY day ORDER BY day",
        "interaction_days": f"SELECT day, kind, CAST(sum(n) AS INT) FROM {{}} {known} GROUP BY ALL ORDER BY ALL",
        "item_days": f"SELECT item, sum(gross) FROM {{}} {known} GROUP BY item ORDER BY 2 DESC, 1 LIMIT {_MOST}",
    }
    with storage.connect(workspace.home_path, workspace.timezone, 1.0) as connection:
        rows = [
            connection.execute(query.format(storage.reader(files[kind])), {"customer": customer_id}).fetchall()
            for kind, query in asked.items()
        ]
    return History(*rows)
