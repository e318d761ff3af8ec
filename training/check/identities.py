"""Whether one id is one person: several spellings, tests and guests, and ids of orders."""

from __future__ import annotations

import duckdb

from training.check.remarks import MODELS, Lines, Remark, asked, kept_only, listed, percent, shown, source_of
from workspace.settings import Table
from workspace.storage import quoted

_LEAST_CUSTOMERS = 100
_SPELT = 0.002
"""Of the ids; so many that are another spelling of one deserve a look ..."""
_SPELT_OFTEN = 0.01
"""... and so many make counts of purchases wrong."""
_NO_PEOPLE = 0.01
_ONE_ORDER = 0.97
_OF_ORDERS = 0.05
_SHARED = 0.01

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
MENDED = {
    "case or blanks": "lower(trim({}))",
    "how numbers are written": "regexp_replace(CAST({} AS VARCHAR), '^0+(.)', '\\1')",  # `0` itself stays
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
    mended = MENDED[how].format(source_of(table, "customer_id"))
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
