"""Days that are no days of sale: opening balances, days of import, sums booked once a month, and days that are missing.

Every function takes the purchases known at an as_of, a row per customer_id and day, and returns remarks.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import pairwise

import numpy as np

from training.check.remarks import MODELS, Purchases, Remark, asked, percent

_NEAR = 30
_CROWDED = 8
"""Times the customers of the days around."""
_OF_CUSTOMERS = 0.05
_LEAST_CUSTOMERS = 30
_FIRST_TIMERS = 0.6
_LEAST_DAYS = 6
_ONE_DAY = 0.97
_FEW_DAYS, _BUSY, _SOME = 0.15, 10, 2
_WEEKEND = 0.99
_SILENT, _TIMES_NEXT = 21, 3


@dataclass(frozen=True)
class _Day:
    """Of one day: who bought, who of them for the first time, and the median spend."""

    day: date
    customers: int
    first_timers: int
    spend: float


def _days(purchases: Purchases) -> list[_Day]:
    rows = asked(purchases, "purchases", """
        WITH firsts AS (SELECT customer_id, min(day) AS first FROM purchases GROUP BY 1)
        SELECT day, count(DISTINCT customer_id), count(DISTINCT customer_id) FILTER (day = first), median(spend)
        FROM purchases JOIN firsts USING (customer_id) GROUP BY day ORDER BY day""")  # fmt: skip
    return [_Day(*row) for row in rows]


def crowded(purchases: Purchases) -> list[Remark]:
    """A day with many times the customers of the days around it: what was there before was booked, or imported."""
    days = _days(purchases)
    everybody = sum(day.first_timers for day in days)
    if len(days) < _LEAST_DAYS:
        return []
    busy = [
        (day, usual)
        for day, usual in ((day, _around(days, place)) for place, day in enumerate(days))
        if _is_crowded(day, usual, everybody)
    ]
    if not busy:
        return []
    day, usual = max(busy, key=lambda one: one[0].customers)
    opening = day.first_timers >= _FIRST_TIMERS * day.customers
    spent = float(np.median([other.spend for other in days if other is not day]))
    says = (
        f"{day.day} has purchases of {day.customers:,} customers, {percent(day.customers / everybody)} of all, where"
        f" the days around it have {usual:,.0f}; for {day.first_timers:,} it is the first purchase; the median spend is"
        f" {day.spend:,.2f}, that of other days {spent:,.2f}"
        + (f" ({len(busy) - 1:,} more such days)" if len(busy) > 1 else "")
    )
    what = "opening balances are no purchases" if opening else "a day of import is not the day of purchase"
    do = f"{what}: map the day on which was bought to occurred_at, or leave the day out: tables.transactions.where"
    return [Remark("one day with too many customers", "transactions", says, do, MODELS)]


def _around(days: list[_Day], place: int) -> float:
    near = [*days[max(0, place - _NEAR) : place], *days[place + 1 : place + 1 + _NEAR]]
    return float(np.median([day.customers for day in near]))


def _is_crowded(day: _Day, usual: float, everybody: int) -> bool:
    least = max(_LEAST_CUSTOMERS, _CROWDED * usual, _OF_CUSTOMERS * everybody)
    return day.customers >= least


def few(purchases: Purchases) -> list[Remark]:
    """Purchases on one day of each month, on few days, or at weekends only: sums or imports rather than purchases."""
    rows = asked(purchases, "purchases", "SELECT day, count(*) FROM purchases GROUP BY day ORDER BY day")
    n, days = sum(count for _, count in rows), [day for day, _ in rows]
    if len(days) < _LEAST_DAYS or n < _SOME * len(days):
        return []
    covered = (days[-1] - days[0]).days + 1
    at_end = sum(count for day, count in rows if (day + timedelta(days=1)).day == 1)
    by_number = Counter[int]()
    for day, count in rows:
        by_number[day.day] += count
    number, most = by_number.most_common(1)[0]
    if max(at_end, most) >= _ONE_DAY * n:
        which = "the last day of a month" if at_end > most else f"day {number} of a month"
        says = f"{percent(max(at_end, most) / n)} of the purchases lie on {which}"
    elif len(days) <= _FEW_DAYS * covered and n >= _BUSY * len(days):
        says = f"the purchases lie on {len(days):,} of {covered:,} days"
    elif (weekend := sum(count for day, count in rows if day.weekday() >= 5) / n) >= _WEEKEND:
        says = f"{percent(weekend)} of the purchases lie on Saturdays and Sundays"
        do = "if the shop sells on other days too, their lines are missing: see whether every export is there"
        return [Remark("purchases at weekends only", "transactions", says, do)]
    else:
        return []
    do = (
        "if these are sums, or days of import, map the time of each purchase to occurred_at: silence is counted in days"
    )
    return [Remark("purchases on few days", "transactions", says, do, MODELS)]


def closed(purchases: Purchases, horizon: int) -> list[Remark]:
    """A stretch of days without a purchase, far longer than any other: closed, or an export is missing."""
    rows = asked(purchases, "purchases", "SELECT DISTINCT day FROM purchases ORDER BY day")
    silences = sorted((((later - day).days - 1, day) for (day,), (later,) in pairwise(rows)), reverse=True)
    if len(silences) < _LEAST_DAYS or silences[0][0] < max(_SILENT, _TIMES_NEXT * silences[1][0]):
        return []
    length, after = silences[0]
    says = f"there is no purchase in the {length} days after {after}, and no more than {silences[1][0]} days elsewhere"
    do = "if an export is missing, add it; if the shop was closed, customers seem to leave in these days who did not"
    doubts = ("churn", "lifetime_value") if length >= horizon / 3 else ()
    return [Remark("no purchase for long", "transactions", says, do, doubts)]
