"""Customers who all change their ids on one day: given anew, or the same ones in another form."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta

import duckdb
import numpy as np
from numpy.typing import NDArray

from training.check.identities import MENDED
from training.check.remarks import MODELS, Purchases, Remark, asked, kept_only, percent, shown, source_of, time_of
from workspace.settings import Table
from workspace.storage import quoted

Floats = NDArray[np.floating]

_WINDOWS = (60, 30)
_NEVER = 10**6
_EXPECTED = 30
_DIP = 0.35
_LEAST_USUAL = 0.02
_BACK = 0.7
"""Of the usual share: so many come back once ids are read in one form. New numbers meet old ones by chance too."""
_MERGED = 0.01
"""Of the ids, at most, may be one with another of the same side."""
_LONGEST_PREFIX = 12
_UP_TO_THE_NUMBER = "regexp_replace(CAST({} AS VARCHAR), '^[^0-9]*0*([0-9])', '\\1')"


def renumbered(purchases: Purchases, table: Table) -> list[Remark]:
    """A day over which hardly any id comes back, where ids otherwise do. `purchases`: a row per customer_id and day."""
    turns = _turns(purchases)
    for window in _WINDOWS:
        cut = turns and _cut(turns, window)
        if cut:
            return [_rewritten(purchases, cut, table) or _anew(cut, table)]
    return []


@dataclass(frozen=True)
class _Cut:
    """A day over which `share` of the `n` who bought in the `window` days on one side come back, where `usual` do."""

    day: date
    window: int
    n: float
    share: float
    usual: float


def _anew(cut: _Cut, table: Table) -> Remark:
    says = (
        f"on {cut.day} customers seem to have been numbered anew: of {cut.n:,.0f} who bought in the {cut.window} days"
        f" on one side of it {percent(cut.share)} bought on the other side too, where {percent(cut.usual)} usually do"
    )
    begin = kept_only(table, f"{time_of(table)} >= '{cut.day}'")
    do = f"map the older ids to the newer ones, or begin with that day: {begin}"
    return Remark("ids given anew", "transactions", says, do, MODELS)


def _rewritten(purchases: Purchases, cut: _Cut, table: Table) -> Remark | None:
    """Where the ids of both sides are the same in one form: what changed, and the expression that undoes it."""
    day = f"DATE '{cut.day}'"
    ids = purchases.query("purchases", f"""
        SELECT DISTINCT customer_id AS id, day >= {day} AS later FROM purchases
        WHERE day BETWEEN {day} - {cut.window} AND {day} + {cut.window - 1}""")  # fmt: skip
    assert ids is not None
    for form in _forms(ids):
        if (pair := _as_one(ids, form, cut.usual)) is None:
            continue
        says = (
            f"from {cut.day} on customer_ids are written in another form ({shown(pair[0])} before, {shown(pair[1])}"
            " since): each customer counts as one who left, and as a new one"
        )
        mend = form.replace("{}", source_of(table, "customer_id"))
        do = f"write each id in one way, in every table: tables.transactions.columns.customer_id: {mend}"
        return Remark("ids in another form", "transactions", says, do, MODELS)
    return None


def _forms(ids: duckdb.DuckDBPyRelation) -> Iterator[str]:
    """SQL for an id without its case, its leading zeros, a prefix that one side has, or anything before its number."""
    yield MENDED["case or blanks"]
    yield MENDED["how numbers are written"]
    forms = asked(ids, "ids", f"""
        SELECT prefix FROM (
            SELECT id[:k] AS prefix, id[k + 1:] AS rest, later FROM ids, range(1, {_LONGEST_PREFIX + 1}) AS lengths(k)
            WHERE length(id) > k AND regexp_matches(id[:k], '[^0-9]')
        ) AS longer JOIN ids ON longer.rest = ids.id AND longer.later <> ids.later
        GROUP BY prefix ORDER BY count(*) DESC, prefix LIMIT 1""")  # fmt: skip
    if forms and not forms[0][0].endswith("0"):  # zeros that fill a number up are no part of it
        prefix = re.sub(r"[\\.+*?()|\[\]{}^$]", r"\\\g<0>", forms[0][0])
        yield f"regexp_replace(CAST({{}} AS VARCHAR), {quoted(f'^{prefix}')}, '')"
    yield _UP_TO_THE_NUMBER


def _as_one(ids: duckdb.DuckDBPyRelation, form: str, usual: float) -> tuple[str, str] | None:
    """An id before and the same one since, where in this form about as many come back as usual, and no two are one."""
    before, after, both, merged, pair = asked(ids, "ids", f"""
        WITH sides AS (
            SELECT {form.replace("{}", "id")} AS form, count(*) FILTER (NOT later) AS before,
                   count(*) FILTER (later) AS after, min(id) FILTER (NOT later) AS old, min(id) FILTER (later) AS new
            FROM ids GROUP BY form)
        SELECT count(old), count(new), count(*) FILTER (old IS NOT NULL AND new IS NOT NULL),
               sum(greatest(before - 1, 0) + greatest(after - 1, 0)) / sum(before + after),
               arg_min([old, new], form) FILTER (old <> new) FROM sides""")[0]  # fmt: skip
    if pair is None or both < _BACK * usual * min(before, after) or merged > _MERGED:
        return None
    return pair[0], pair[1]


@dataclass(frozen=True)
class _Returning:
    """For each day: who bought in the days before it, in those from it on, and in both."""

    before: Floats
    after: Floats
    both: Floats

    @property
    def share(self) -> Floats:
        """Of the smaller group, who is in the other one too."""
        return self.both / np.maximum(np.minimum(self.before, self.after), 1)


def _cut(turns: _Turns, window: int) -> _Cut | None:
    returning = turns.returning(window)
    n, share = np.minimum(returning.before, returning.after), returning.share
    judged = n >= _EXPECTED
    judged[:window], judged[len(judged) - window :] = False, False
    if judged.sum() < 3 * window:
        return None
    usual = float(np.median(share[judged]))
    rare = judged & (share <= _DIP * usual) & (n * usual >= _EXPECTED) & (usual >= _LEAST_USUAL)
    if not rare.any():
        return None
    place = int(np.flatnonzero(rare)[np.argmin(share[rare])])
    if not _is_sudden(share, judged, place, usual, window):
        return None
    day = turns.first + timedelta(days=place)
    return _Cut(day, window, float(n[place]), float(share[place]), usual)


def _is_sudden(share: Floats, judged: NDArray[np.bool_], place: int, usual: float, window: int) -> bool:
    """Whether ids come back as usual over days a window earlier and later: a season's end is no such cut."""
    near, far = window // 2, 2 * window
    sides = [share[side][judged[side]] for side in (slice(max(0, place - far), max(0, place - near)),
                                                    slice(place + near, place + far))]  # fmt: skip
    known = [side.max() for side in sides if len(side)]
    return bool(known) and min(known) >= 0.5 * usual


@dataclass(frozen=True)
class _Turns:
    """Purchases, as days since `first`: the one before, the one after, and how many there are alike."""

    first: date
    last: NDArray[np.integer]
    day: NDArray[np.integer]
    next: NDArray[np.integer]
    n: Floats

    def returning(self, window: int) -> _Returning:
        """Exact counts: of a customer's purchases only the last before a day, and the first from it on, count."""
        until, day, n = int(self.day.max()) + 1, self.day, self.n
        before = _over(until, day + 1, np.minimum(self.next, day + window) + 1, n)
        after = _over(until, np.maximum(self.last, day - window) + 1, day + 1, n)
        both = _over(until, np.maximum(day + 1, self.next - window + 1), np.minimum(self.next, day + window) + 1, n)
        return _Returning(before, after, both)


def _turns(purchases: Purchases) -> _Turns | None:
    rows = asked(purchases, "purchases", f"""
        WITH turns AS (
            SELECT day, lag(day) OVER ours AS last, lead(day) OVER ours AS next, min(day) OVER () AS first
            FROM (SELECT DISTINCT customer_id, day FROM purchases)
            WINDOW ours AS (PARTITION BY customer_id ORDER BY day))
        SELECT first, coalesce(last - first, -{_NEVER}), day - first, coalesce(next - first, {_NEVER}), count(*)
        FROM turns GROUP BY ALL""")  # fmt: skip
    if not rows:
        return None
    firsts, last, day, following, n = zip(*rows, strict=True)
    return _Turns(firsts[0], np.array(last), np.array(day), np.array(following), np.array(n, dtype=float))


def _over(length: int, start: NDArray[np.integer], end: NDArray[np.integer], n: Floats) -> Floats:
    """For each day, how many intervals `[start, end)` it lies in."""
    there = (end > start) & (start < length)
    change = np.zeros(length + 1)
    np.add.at(change, np.clip(start[there], 0, length), n[there])
    np.add.at(change, np.clip(end[there], 0, length), -n[there])
    return np.cumsum(change)[:length]
