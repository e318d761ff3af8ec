"""Whether one id is one person: several spellings, tests and guests, ids of orders, and ids that were given anew."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

import duckdb
import numpy as np
from numpy.typing import NDArray

from perennial.settings import Table
from perennial.storage import quoted
from training.remarks import MODELS, Remark, asked, kept_only, listed, percent, shown, source_of, time_of

Lines = duckdb.DuckDBPyRelation
Floats = NDArray[np.floating]

_LEAST_CUSTOMERS = 100
_SPELT = 0.002
"""Of the ids; so many that are another spelling of one deserve a look ..."""
_SPELT_OFTEN = 0.01
"""... and so many make counts of purchases wrong."""
_NO_PEOPLE = 0.01
_ONE_ORDER = 0.97
_OF_ORDERS = 0.05
_SHARED = 0.01
_WINDOWS = (60, 30)
_NEVER = 10**6
_EXPECTED = 30
_DIP = 0.35
_LEAST_USUAL = 0.02

# The most ordinary ways to write one id: case and blanks; what a number is written with; an address's tag, and the dots
# that one provider does not count.
_PLAIN = "regexp_replace(lower(customer_id), '\\s', '', 'g')"
_MAIL = "customer_id LIKE '%_@_%.__%'"
_AS_ONE_CASE = "lower(customer_id), upper(customer_id), upper(customer_id[1]) || lower(customer_id[2:])"
_ONE_PROVIDER = "regexp_matches(form, '@g(oogle)?mail[.]com$')"
_UNTAGGED = "regexp_replace(regexp_replace(form, '[+][^@]*@', '@'), '@googlemail[.]com$', '@gmail.com')"
_FORMS = {
    "case or blanks": f"CASE WHEN {_MAIL} OR customer_id IN ({_AS_ONE_CASE}) OR customer_id LIKE '% %'"
    f" THEN {_PLAIN} ELSE customer_id END",
    "how numbers are written": "CASE WHEN regexp_full_match(form, '[0-9]+([.]0+)?')"
    " THEN coalesce(nullif(ltrim(split_part(form, '.', 1), '0'), ''), '0')"
    " ELSE regexp_replace(form, '^([a-z]+)[-_.#/]+([0-9]+)$', '\\1\\2') END",
    "tags or dots of an address": f"CASE WHEN form NOT LIKE '%@%' THEN form WHEN {_ONE_PROVIDER}"
    f" THEN replace({_UNTAGGED}, '.', '') ELSE {_UNTAGGED} END",
}
_MENDED = {
    "case or blanks": "lower(trim({}))",
    "how numbers are written": "ltrim(CAST({} AS VARCHAR), '0')",
    "tags or dots of an address": "regexp_replace(lower(trim({})), '[+][^@]*@', '@')",
}
_TESTS = (
    "test|tests|tester|demo|dummy|guest|gast|invite|invitado|ospite|anonym|anonymous|anonymus|unknown|unbekannt|inconnu"
    "|none|null|nan|undefined|nobody|noone|walk-?in|cash|bar(kunde|verkauf)|pos|till|default|deleted|removed|n/?a"
)
"""Words that an id is made of when it is nobody's."""


def spellings(ids: duckdb.DuckDBPyRelation, table: Table) -> list[Remark]:
    """One person under several ids. `ids`: a row per customer_id."""
    total = asked(ids, "ids", "SELECT count(*) FROM ids")[0][0]
    query = "SELECT customer_id, customer_id AS form FROM ids"
    remarks, before = [], total
    for how, form in _FORMS.items():
        query = f"SELECT customer_id, {form} AS form FROM ({query})"
        people = asked(ids, "ids", f"SELECT count(DISTINCT form) FROM ({query})")[0][0]
        if before - people >= max(2, _SPELT * total):
            remarks.append(_spelt(ids, table, query, how, total, people, before))
        before = people
    return remarks


def _spelt(ids: Lines, table: Table, query: str, how: str, total: int, people: int, before: int) -> Remark:
    example = asked(ids, "ids", f"""
        SELECT list(customer_id ORDER BY customer_id) AS all_of_one FROM ({query}) GROUP BY form
        HAVING count(*) > 1 ORDER BY count(*) DESC, form LIMIT 1""")[0][0]  # fmt: skip
    says = (
        f"{total:,} customer_ids are {people:,} if {how} do not count (for example"
        f" {listed(list(map(shown, example)), 3)}): purchases of one person are counted as those of several"
    )
    mended = _MENDED[how].format(source_of(table, "customer_id"))
    do = f"write each id in one way, in every table: tables.transactions.columns.customer_id: {mended}"
    return Remark(
        "one customer in several spellings", "transactions", says, do,
        MODELS if before - people >= _SPELT_OFTEN * total else (),
    )  # fmt: skip


def nobody(lines: Lines, table: Table) -> list[Remark]:
    """Ids that say that they are a test's, a guest's or nobody's."""
    kind = "[-_ .]?(user|customer|kunde|account|order|shop)"
    word = f"regexp_full_match(lower(trim(customer_id)), '({_TESTS})({kind})?[-_ .#]?[0-9]*(@.*)?')"
    named, ids, n_lines, of_lines, of_spend = asked(lines, "lines", f"""
        WITH customers AS (SELECT customer_id, count(*) AS n, sum(amount) AS spend FROM lines GROUP BY 1)
        SELECT list(customer_id ORDER BY n DESC, customer_id) FILTER ({word}), count(*), sum(n) FILTER ({word}),
               sum(n) FILTER ({word}) / sum(n), sum(spend) FILTER ({word}) / nullif(sum(spend), 0)
        FROM customers""")[0]  # fmt: skip
    if not named or len(named) > ids / 2:
        return []
    examples = listed(list(map(shown, named)), 3)
    says = (
        f"{'an id looks' if len(named) == 1 else f'{len(named):,} ids look'} like nobody's ({examples}):"
        f" {n_lines:,} lines, {percent(of_lines)} of all, {percent(of_spend or 0)} of the revenue"
    )
    none_of = ", ".join([*map(quoted, named[:3]), *(["..."] if len(named) > 3 else [])])
    leave_out = kept_only(table, f"{source_of(table, 'customer_id')} NOT IN ({none_of})")
    much = max(of_lines, abs(of_spend or 0)) >= _NO_PEOPLE
    return [
        Remark("ids of tests or guests", "transactions", says, f"if so, leave them out: {leave_out}",
               MODELS if much else ())
    ]  # fmt: skip


def of_orders(lines: Lines, table: Table) -> list[Remark]:
    """Ids that name an order rather than who gave it, and orders of several customers."""
    customers, single, named, orders, shared = asked(lines, "lines", """
        WITH orders AS (
            SELECT transaction_id, customer_id, count(*) OVER (PARTITION BY transaction_id) AS sharing
            FROM lines GROUP BY transaction_id, customer_id),
        customers AS (
            SELECT customer_id, count(*) AS n, bool_or(transaction_id = customer_id OR (
                       length(transaction_id) >= 4 AND (contains(customer_id, transaction_id)
                           OR (length(customer_id) >= 4 AND transaction_id LIKE '%' || customer_id)))) AS named
            FROM orders GROUP BY customer_id)
        SELECT (SELECT count(*) FROM customers), (SELECT count(*) FROM customers WHERE n = 1),
               (SELECT count(*) FROM customers WHERE n = 1 AND named),
               (SELECT count(DISTINCT transaction_id) FROM orders),
               (SELECT count(DISTINCT transaction_id) FROM orders WHERE sharing > 1)""")[0]  # fmt: skip
    mapped = f"tables.transactions.columns.customer_id, now `{source_of(table, 'customer_id')}`"
    remarks = []
    if customers >= _LEAST_CUSTOMERS and named >= _OF_ORDERS * customers:
        says = (
            f"{named:,} of {customers:,} customer_ids ({percent(named / customers)}) hold the id of their only order:"
            " whoever orders twice is two customers"
        )
        do = f"see whether {mapped}, names the person who ordered (an account, an e-mail address)"
        remarks.append(Remark("ids of orders", "transactions", says, do, MODELS))
    elif customers >= _LEAST_CUSTOMERS and single >= _ONE_ORDER * customers:
        says = f"{single:,} of {customers:,} customer_ids ({percent(single / customers)}) have a single transaction"
        do = f"see whether {mapped}, names the person who ordered rather than the order"
        remarks.append(Remark("ids of orders", "transactions", says, do, MODELS))
    if orders >= _LEAST_CUSTOMERS and shared >= _SHARED * orders:
        says = f"{shared:,} of {orders:,} transaction_ids ({percent(shared / orders)}) are of several customers"
        do = (
            "an order has one customer: see whether tables.transactions.columns.transaction_id, now"
            f" `{source_of(table, 'transaction_id')}`, is unique over all tills and years"
        )
        remarks.append(Remark("orders of several customers", "transactions", says, do))
    return remarks


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


def renumbered(purchases: Lines, table: Table) -> list[Remark]:
    """A day over which hardly any id comes back, where ids otherwise do. `purchases`: a row per customer_id and day."""
    turns = _turns(purchases)
    for window in _WINDOWS:
        found = turns and _cut(turns, window, table)
        if found:
            return [found]
    return []


def _cut(turns: _Turns, window: int, table: Table) -> Remark | None:
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
    says = (
        f"on {day} customers seem to have been numbered anew: of {n[place]:,.0f} who bought in the {window} days on one"
        f" side of it {percent(float(share[place]))} bought on the other side too, where {percent(usual)} usually do"
    )
    begin = kept_only(table, f"{time_of(table)} >= '{day}'")
    do = f"map the older ids to the newer ones, or begin with that day: {begin}"
    return Remark("ids given anew", "transactions", says, do, MODELS)


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


def _turns(purchases: Lines) -> _Turns | None:
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
