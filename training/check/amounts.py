"""Amounts that cannot be what they are taken for: typing errors, another currency or unit, nothing at all.

Every function takes lines known at an as_of, in canonical columns, and returns remarks; none where the amounts are in
order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from training.check.remarks import (
    Lines,
    Remark,
    asked,
    kept_only,
    number_of,
    percent,
    shown,
    source_of,
    time_of,
    written_as,
)
from workspace.settings import Table
from workspace.storage import quoted

Floats = NDArray[np.floating]
Ints = NDArray[np.integer]

_LEAST_LINES = 200
_OUTLYING = 6.5
"""Standard deviations of the logarithm, as the upper half of the amounts has it: beyond them none is to be expected."""
_TIMES_MEDIAN = 100
_MUCH_REVENUE = 0.0025
# Amounts of a shop with one price spread at least so much, in logarithms.
_LEAST_SPREAD = 0.35
_NORMAL_99 = 2.326

_SHIFT = np.log(1.25)
"""A smaller step may be a rise of prices, or a tax."""
_LARGE_SHIFT = np.log(3.0)
"""No sale and no rise of prices is as large: a few days of it are enough."""
_WINDOW, _LONGEST, _SHORTEST = 28, 90, 7
_LEAST_SIDE = 60
_SURE = 5.5
_PRECISION = 0.01
_QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)
_UNEVEN = 0.12, 0.2
"""How unequally the quantiles may move: so much, or so large a part of the step. A unit moves all of them alike, a new
kind of goods does not."""
_NOISE = 2.5
"""Over the square root of the lines: how far off a quantile may be."""
_GROUPS = 12
_GROUP_LINES = 0.01
_APART = np.log(2.5)
_APART_UNPRICED = np.log(4.0)
_COMMON_PRODUCTS = 8
_NOTHING = 0.25
_RETURNS = 0.5


def outlying(lines: Lines, table: Table, currency: str) -> list[Remark]:
    """Single amounts far beyond what the others let expect, that are worth a part of the whole revenue."""
    count, middle, high, revenue = asked(lines, "lines", """
        SELECT count(*), quantile_cont(amount, 0.5), quantile_cont(amount, 0.99), sum(amount)
        FROM lines WHERE amount > 0""")[0]  # fmt: skip
    if count < _LEAST_LINES:
        return []
    spread = max(np.log(high / middle) / _NORMAL_99, _LEAST_SPREAD)
    bound = middle * max(_TIMES_MEDIAN, float(np.exp(_OUTLYING * spread)))
    beyond, sum_beyond, below = asked(lines, "lines", f"""
        SELECT count(*) FILTER (abs(amount) > {bound}), sum(abs(amount)) FILTER (abs(amount) > {bound}),
               max(abs(amount)) FILTER (abs(amount) <= {bound}) FROM lines""")[0]  # fmt: skip
    if not beyond or sum_beyond < _MUCH_REVENUE * revenue:
        return []
    who, day, order, amount = asked(lines, "lines", f"""
        SELECT customer_id, day, transaction_id, amount FROM lines WHERE abs(amount) > {bound}
        ORDER BY abs(amount) DESC, transaction_id, customer_id LIMIT 1""")[0]  # fmt: skip
    limit = _round(np.sqrt(below * bound))
    says = (
        f"{'one amount is' if beyond == 1 else f'{beyond:,} amounts are'} out of all proportion: {amount:,.2f}"
        f" {currency} by customer {shown(who)} on {day} (transaction {shown(order)}) is {abs(amount) / middle:,.0f}"
        f" times the median of {middle:,.2f}; {'it is' if beyond == 1 else 'together they are'}"
        f" {_part(sum_beyond / revenue)} all that was sold{', signs aside' if amount < 0 else ''}"
    )
    leave_out = kept_only(table, f"abs({source_of(table, 'amount')}) < {limit:.0f}")
    do = f"if it is an error, correct it in the source, or leave it out: {leave_out}"
    return [Remark("amount out of proportion", "transactions", says, do, ("lifetime_value",))]


def _part(share: float) -> str:
    return f"{percent(share)} of" if share <= 1 else f"{share:,.3g} times"


def _round(value: float) -> float:
    """To one digit."""
    size = 10 ** np.floor(np.log10(value))
    return float(np.ceil(value / size) * size)


def worthless(lines: Lines, table: Table) -> list[Remark]:
    """Amounts that are nothing, or below it, for a large part of the lines."""
    count, nothing, below = asked(
        lines, "lines", "SELECT count(*), count(*) FILTER (amount = 0), count(*) FILTER (amount < 0) FROM lines"
    )[0]
    mapped = f"tables.transactions.columns.amount, now `{source_of(table, 'amount')}`"
    remarks = []
    if count and nothing > _NOTHING * count:
        says = f"the amount is 0 in {percent(nothing / count)} of the lines, and each counts as a purchase"
        do = f"see whether {mapped}, is what was paid, or drop such lines with `where`"
        remarks.append(Remark("amounts of nothing", "transactions", says, do, ("lifetime_value",)))
    if count and below > _RETURNS * count:
        says = f"the amount is below 0 in {percent(below / count)} of the lines, and those are returns"
        do = f"see whether {mapped}, has its sign turned"
        remarks.append(Remark("more returns than purchases", "transactions", says, do, ("churn", "lifetime_value")))
    return remarks


@dataclass(frozen=True)
class _Step:
    """Amounts change on `day`, as the days from `since` to `until` show; on `back` they are as before again."""

    since: date
    day: date
    until: date
    back: date | None


@dataclass(frozen=True)
class _Days:
    """Days with positive amounts, in order: how many, and the sum of their logarithms."""

    days: NDArray[np.object_]
    n: Floats
    logs: Floats

    def step(self) -> _Step | None:
        """The surest one: the days from there on against those before; of few days only a large one counts."""
        for window, least in ((_WINDOW, _SHIFT), (_LONGEST, _SHIFT), (_SHORTEST, _LARGE_SHIFT)):
            if step := self._step(window, least):
                return step
        return None

    def _step(self, window: int, least: float) -> _Step | None:
        place = np.arange(_SHORTEST, len(self.days) - _SHORTEST + 1)
        before, after = (np.maximum(0, place - window), place), (place, np.minimum(len(self.days), place + window))
        (low, low_error, n_before), (high, high_error, n_after) = self._means(*before), self._means(*after)
        height = high - low
        surely = np.abs(height) / np.sqrt(low_error**2 + high_error**2 + _PRECISION**2)
        enough = (np.minimum(n_before, n_after) >= _LEAST_SIDE) & (surely >= _SURE) & (np.abs(height) >= least)
        for at in sorted(np.flatnonzero(enough), key=lambda at: -surely[at]):
            if self._lasts(int(place[at]), window, low[at], height[at]):
                return self._between(int(place[at]), window, low[at], high[at])
        return None

    def _between(self, place: int, window: int, low: float, high: float) -> _Step:
        """The step, or the time between it and its counterpart: the surer of the two may be the end."""
        begin, end = place, self._end(place, low, high)
        if end is None and (earlier := self._begin(place, low, high)) is not None:
            begin, end = earlier, place
        elif end is not None:
            begin = self._edge(place, _SHORTEST, low, float(self._means(np.array([place]), np.array([end]))[0][0]))
        near = max(window, 2 * _WINDOW) if end is None else window
        since, until = max(0, begin - near), min(len(self.days), (end or begin) + near) - 1
        return _Step(self.days[since], self.days[begin], self.days[until], None if end is None else self.days[end])

    def _end(self, place: int, low: float, high: float) -> int | None:
        """The first day from which amounts are as before again; none where they stay."""
        window = _least_window(low, high)
        starts = np.arange(place + 1, max(place + 1, len(self.days) - window + 1))
        means, _, n = self._means(starts, starts + window)
        back = (np.abs(means - low) < np.abs(means - high)) & (n >= _LEAST_SIDE)
        return self._edge(int(starts[np.argmax(back)]), window, high, low) if back.any() else None

    def _begin(self, place: int, low: float, high: float) -> int | None:
        """The day on which amounts left the level that they have again from `place` on; none where they never had it
        before."""
        window = _least_window(low, high)
        starts = np.arange(0, max(0, place - window))
        means, _, n = self._means(starts, starts + window)
        there = (np.abs(means - high) < np.abs(means - low)) & (n >= _LEAST_SIDE)
        begin = self._edge(int(starts[there][-1]), window, high, low) if there.any() else place
        return begin if self._is_sure(begin, place, window, low - high) else None

    def _is_sure(self, begin: int, place: int, window: int, height: float) -> bool:
        """Whether amounts differ over a day, up to another one, by most of a height, and beyond chance."""
        if begin >= place:
            return False
        (earlier, there), errors, n = self._means(np.array([max(0, begin - window), begin]), np.array([begin, place]))
        own = (there - earlier) / height
        return bool(own > 0.5 and n.min() >= _LEAST_SIDE and own * abs(height) >= _SURE * np.hypot(*errors))

    def _edge(self, start: int, window: int, before: float, after: float) -> int:
        """Of the days near a window, the one that parts amounts at one level best from those at another."""
        places = np.arange(max(1, start - window), min(len(self.days) - 1, start + 2 * window) + 1)
        n, logs = self._sums[0, places], self._sums[1, places]
        return int(places[np.argmax((logs - n * (before + after) / 2) * np.sign(before - after))])

    @cached_property
    def _sums(self) -> Floats:
        """Of the days up to each: lines, logarithms, what their variance over days needs, squares of lines."""
        rows = np.vstack([self.n, self.logs, self.logs**2 / self.n, self.n**2])
        return np.hstack([np.zeros((4, 1)), np.cumsum(rows, axis=1)])

    def _means(self, start: Ints, end: Ints) -> tuple[Floats, Floats, Floats]:
        """Of windows of days: the mean over lines, its standard error over days, and how many lines there are."""
        n, logs, squares, n_squares = self._sums[:, end] - self._sums[:, start]
        n = np.maximum(n, _PRECISION)
        mean = logs / n
        variance = np.maximum(squares / n - mean**2, 0)
        return mean, np.sqrt(variance * n_squares) / n, n

    def _lasts(self, place: int, window: int, low: float, height: float) -> bool:
        """Whether it came at once, and is there to stay; what no sale explains may pass again."""
        starts = np.array([max(0, place - 3 * window), min(len(self.days), place + _WINDOW)])
        ends = np.array([max(0, place - window), len(self.days)])
        (earlier, later), _, (n_earlier, n_later) = self._means(starts, ends)
        if n_earlier >= _LEAST_SIDE and abs(earlier - low) > abs(height) / 2:
            return False
        return abs(height) >= _LARGE_SHIFT or (n_later >= _LEAST_SIDE and (later - low) / height > 0.5)


def _least_window(low: float, high: float) -> int:
    return _SHORTEST if abs(high - low) >= _LARGE_SHIFT else _WINDOW


def shifted(lines: Lines, table: Table) -> list[Remark]:
    """A day from which all amounts, or all of a channel or location, are a multiple or a part of what they were, for
    good or until another day."""
    for column in (None, "channel", "location"):
        remarks = []
        for where, share, days in _by_day(lines, column):
            step = days.step()
            if step and (times := _all_alike(lines, where, step)):
                remarks.append(_shift_remark(table, share, column, where, step, times))
        if remarks:
            return remarks[:3]
    return []


def _by_day(lines: Lines, column: str | None) -> Iterator[tuple[str, float, _Days]]:
    """For all lines, or the most frequent values of a column: a condition, the share of the lines, and their days."""
    of = "'all'" if column is None else column
    sizes = asked(lines, "lines", f"""
        SELECT {of}, count(*) AS n, n / sum(n) OVER (), count(*) OVER () FROM lines
        WHERE amount > 0 AND {of} IS NOT NULL GROUP BY 1 ORDER BY n DESC, 1 LIMIT {_GROUPS}""")  # fmt: skip
    for value, _, share, groups in sizes:
        if share >= _GROUP_LINES and (column is None or groups > 1):
            where = "true" if column is None else f"{column} = {quoted(value)}"
            rows = asked(lines, "lines", f"""
                SELECT day, count(*)::DOUBLE, sum(ln(amount)) FROM lines WHERE amount > 0 AND {where}
                GROUP BY day ORDER BY day""")  # fmt: skip
            days, n, logs = zip(*rows, strict=True)
            yield where, share, _Days(np.array(days, dtype=object), np.array(n), np.array(logs))


def _all_alike(lines: Lines, where: str, step: _Step) -> _Times | None:
    """How many times as large all quantiles of the amounts are from a day on; none where they moved differently."""
    near = f"{where} AND day BETWEEN DATE '{step.since}' AND DATE '{step.until}'"
    there = f"day >= DATE '{step.day}'" + (f" AND day < DATE '{step.back}'" if step.back else "")
    return _multiple(lines, f"{near} AND NOT ({there})", f"{near} AND {there}")


@dataclass(frozen=True)
class _Times:
    """How many times as large amounts are; `error`: of its logarithm, two standard errors."""

    times: float
    error: float

    def __str__(self) -> str:
        return f"{self.times:,.3g} times" if self.times >= 1 else f"1/{1 / self.times:,.3g} of"

    @property
    def _size(self) -> float:
        return max(self.times, 1 / self.times)

    @property
    def _exact(self) -> float | None:
        """The power of ten within the error, of a change of unit; else the only round factor; none among several."""
        size = 10 ** np.floor(np.log10(self._size))
        tens = [
            each for each in (size, 10 * size)
            if each > 1 and abs(np.log(self._size / each)) <= (self.error if each < 100 else max(self.error, _OF_UNIT))
        ]  # fmt: skip
        near = [each * size for each in _ROUND if abs(np.log(self._size / each / size)) <= self.error]
        powers = tens or (near if len(near) == 1 and self.error <= _EXACT else [])
        return float(powers[0]) if powers else None

    def undone(self, amount: str) -> str:
        """SQL that takes it off an amount."""
        by = self._exact or float(f"{self._size:.4g}")
        return f"{amount} {'/' if self.times >= 1 else '*'} {by:g}"

    @property
    def how_sure(self) -> str:
        if self._exact is None:
            return f"{self._size:,.4g} is an estimate: put in the exact rate"
        return f"{self._size:,.4g} is the estimate, {self._exact:g} the likely exact one: see that it is"


_OF_UNIT = 0.2
"""No rate is to be expected as near to a hundred or more."""
_EXACT = 0.05
"""With a larger error there are rates beside any round one."""
_ROUND = (1, 1.2, 1.25, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 7.5, 8, 9, 10)


def _multiple(lines: Lines, of: str, are: str) -> _Times | None:
    """How many times as large amounts of one condition are as those of another; none where small and large ones differ
    in that, by more than so many lines let expect."""
    quantiles = f"quantile_cont(amount, {list(_QUANTILES)})"
    base, n_base, own, n_own = asked(lines, "lines", f"""
        SELECT {quantiles} FILTER ({of}), count(*) FILTER ({of}), {quantiles} FILTER ({are}), count(*) FILTER ({are})
        FROM lines WHERE amount > 0""")[0]  # fmt: skip
    if not n_base or not n_own:
        return None
    ratios = np.log(np.array(own) / np.array(base))
    middle = float(np.median(ratios))
    noise = _NOISE / np.sqrt(min(n_base, n_own))
    alike = np.abs(ratios - middle).max() <= max(_UNEVEN[0], _UNEVEN[1] * abs(middle)) + noise
    if not alike or abs(middle) < _SHIFT:
        return None
    spread = max(np.log(sides[3] / sides[1]) for sides in (base, own)) / _QUARTILES
    return _Times(float(np.exp(middle)), float(_MEDIANS * spread * np.sqrt(1 / n_base + 1 / n_own)))


_QUARTILES = 1.349
"""Standard deviations between them; between the outer fifths:"""
_FIFTHS = 1.683
_MEDIANS = 2 * 1.2533
"""Two standard errors of a median, in standard deviations over the square root of the count."""


def _shift_remark(table: Table, share: float, column: str | None, where: str, step: _Step, times: _Times) -> Remark:
    whose = "all amounts" if where == "true" else f"amounts with {where} ({percent(share)} of the lines)"
    until = f" to the day before {step.back}" if step.back else ""
    than = "before and after" if step.back else "before"
    says = f"from {step.day}{until} {whose} are {times} what they were {than}, small and large ones alike"
    time = time_of(table)
    when = [f"{time} >= '{step.day}'", *([f"{time} < '{step.back}'"] if step.back else [])]
    if column:
        when.append(where.replace(column, written_as(source_of(table, column)), 1))
    older = "" if step.back else f" (or, if the older ones are the wrong ones, those before {step.day} the other way)"
    do = (
        f"if they are in another unit or currency, bring them to the workspace's{older}:"
        f" {_converted(table, ' AND '.join(when), times)}"
    )
    return Remark("amounts change their level", "transactions", says, do, ("lifetime_value",))


def _converted(table: Table, when: str, times: _Times) -> str:
    """The setting that takes a multiple off the amounts of a condition."""
    amount = number_of(table, "amount")
    setting = f"tables.transactions.columns.amount: CASE WHEN {when} THEN {times.undone(amount)} ELSE {amount} END"
    return f"{setting} ({times.how_sure})"


def apart(lines: Lines, table: Table) -> list[Remark]:
    """A channel or location whose amounts are a multiple of the others': another currency or unit.

    By the prices of the same products; where products are not known, by all quantiles of the amounts.
    """
    for column in ("channel", "location"):
        for where, share, _ in _by_day(lines, column):
            if share <= 0.5 and (multiple := _multiple_of_rest(lines, where)):
                times, how = multiple
                says = f"amounts with {where} ({percent(share)} of the lines) are {times} those of the rest, {how}"
                when = where.replace(column, written_as(source_of(table, column)), 1)
                do = f"if they are in another currency or unit, convert them: {_converted(table, when, times)}"
                return [Remark("amounts in two units", "transactions", says, do, ("lifetime_value",))]
    return []


def _multiple_of_rest(lines: Lines, where: str) -> tuple[_Times, str] | None:
    """How many times as large the amounts of a condition are, and how that is known; none where they are not."""
    products, ratios = asked(lines, "lines", f"""
        WITH prices AS (
            SELECT product_id, {where} AS own, median(amount / coalesce(nullif(quantity, 0), 1)) AS price, count(*) AS n
            FROM lines WHERE amount > 0 AND product_id IS NOT NULL GROUP BY ALL),
        ratios AS (
            SELECT ln(mine.price / theirs.price) AS ratio FROM prices AS mine JOIN prices AS theirs USING (product_id)
            WHERE mine.own AND NOT theirs.own AND least(mine.n, theirs.n) >= 3 AND mine.price > 0 AND theirs.price > 0)
        SELECT count(*), quantile_cont(ratio, [0.2, 0.5, 0.8]) FROM ratios""")[0]  # fmt: skip
    if products < _COMMON_PRODUCTS:
        return _multiple_of_all(lines, where)
    low, middle, high = ratios
    if abs(middle) < _APART or high - low > max(2 * _UNEVEN[0], _UNEVEN[1] * abs(middle)):
        return None
    error = _MEDIANS * (high - low) / _FIFTHS / np.sqrt(products)
    return _Times(float(np.exp(middle)), float(error)), f"for the same {products:,} products"


def _multiple_of_all(lines: Lines, where: str) -> tuple[_Times, str] | None:
    times = _multiple(lines, f"NOT ({where})", where)
    if times is None or abs(np.log(times.times)) < _APART_UNPRICED:
        return None
    return times, "small and large ones alike"
