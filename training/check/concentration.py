"""One customer or one product that stands for a large part of everything.

Every function takes lines known at an as_of, in canonical columns, and returns remarks; none where nothing stands out.
"""

from __future__ import annotations

from dataclasses import dataclass

from training.check.remarks import MODELS, Lines, Remark, asked, kept_only, percent, shown, source_of
from workspace.settings import Table
from workspace.storage import quoted

_LEAST_CUSTOMERS = 30
_MANY = 0.02
"""Of the orders; one id with so many is hardly one person's where it has this many times those of the next one, ..."""
_TIMES_NEXT = 5
_CROWD = 2.0
"""... this many times the orders a day that customers have on days on which they buy, ..."""
_DAILY, _LEAST_DAYS, _SOME, _OFTEN = 0.5, 60, 0.01, 1.3
"""... or, with fewer orders, where it is there on half of all days, with this many times the orders a day; ..."""
_MOST = 0.15
"""... or as many as this."""
_MUCH_REVENUE = 0.10
_ALL_REVENUE = 0.90


def customers(lines: Lines, table: Table) -> list[Remark]:
    """An id with so many lines that it is a till's or all guests', and a customer with much of the revenue."""
    rows = asked(lines, "lines", f"""
        WITH orders AS (
            SELECT customer_id, transaction_id, day, count(*) AS n_lines, sum(amount) AS spend,
                   max(amount) AS largest
            FROM lines GROUP BY ALL),
        customers AS (
            SELECT customer_id, count(*) AS n, sum(n_lines) AS n_lines, sum(spend) AS spend,
                   sum(spend) - max(largest) AS other_spend, count(DISTINCT day) AS n_days
            FROM orders GROUP BY customer_id),
        shares AS (
            SELECT customer_id, n, n_lines, n_days, n / sum(n) OVER () AS of_orders,
                   n_lines / sum(n_lines) OVER () AS of_lines,
                   CASE WHEN sum(spend) OVER () > 0 THEN spend / sum(spend) OVER () END AS of_spend,
                   CASE WHEN sum(spend) OVER () - spend + other_spend > 0
                   THEN other_spend / (sum(spend) OVER () - spend + other_spend) END AS of_other_spend,
                   coalesce(n / lead(n) OVER (ORDER BY n DESC, customer_id), 1) AS times_next,
                   n / n_days * sum(n_days) OVER () / sum(n) OVER () AS crowd,
                   n_days / (SELECT count(DISTINCT day) FROM orders) AS of_days, count(*) OVER () AS customers
            FROM customers)
        SELECT * EXCLUDE (customers) FROM shares WHERE customers >= {_LEAST_CUSTOMERS}
        QUALIFY row_number() OVER (ORDER BY n DESC, customer_id) = 1
             OR row_number() OVER (ORDER BY of_spend DESC NULLS LAST, customer_id) = 1
        ORDER BY n DESC, customer_id""")  # fmt: skip
    return [remark for row in rows if (remark := _judged(_Share(*row), table))]


@dataclass(frozen=True)
class _Share:
    """One customer's part of everything.

    of_spend: null where more was given back than sold; of_other_spend: of the revenue without the largest amount, which
    may be an error; crowd: orders a day of buying,
    over what is usual.
    """

    customer_id: str
    orders: int
    lines: int
    days: int
    of_orders: float
    of_lines: float
    of_spend: float | None
    of_other_spend: float | None
    times_next: float
    crowd: float
    of_days: float

    @property
    def is_of_many(self) -> bool:
        if self.of_orders >= _MANY and (self.times_next >= _TIMES_NEXT or self.crowd >= _CROWD):
            return True
        daily = self.of_days >= _DAILY and self.days >= _LEAST_DAYS
        return self.of_orders >= _MOST or (self.of_orders >= _SOME and daily and self.crowd >= _OFTEN)


def _judged(one: _Share, table: Table) -> Remark | None:
    leave_out = kept_only(table, f"{source_of(table, 'customer_id')} <> {quoted(one.customer_id)}")
    if one.is_of_many:
        says = (
            f"customer_id {shown(one.customer_id)} has {one.lines:,} lines ({percent(one.of_lines)} of all) in"
            f" {one.orders:,} orders on {one.days:,} days, and {percent(one.of_spend or 0)} of the revenue: an id of"
            " all guests, or of a till, is no customer"
        )
        return Remark("one id for many", "transactions", says, f"if it is one, leave it out: {leave_out}", MODELS)
    if min(one.of_spend or 0, one.of_other_spend or 0) < _MUCH_REVENUE:
        return None
    says = (
        f"customer {shown(one.customer_id)} brings {percent(one.of_spend or 0)} of the revenue, with"
        f" {percent(one.of_lines)} of the lines: every total and every error of value is mostly that customer's"
    )
    do = f"look after that customer by hand, and judge the others without: {leave_out}"
    return Remark("one customer with much revenue", "transactions", says, do, ("lifetime_value",))


def products(lines: Lines, table: Table) -> list[Remark]:
    """One product that is nearly all that is sold, of several."""
    rows = asked(lines, "lines", """
        SELECT product_id, sum(amount) AS spend, spend / nullif(sum(spend) OVER (), 0) AS of_spend,
               count(*) OVER () AS n
        FROM lines WHERE product_id IS NOT NULL AND amount > 0 GROUP BY product_id
        ORDER BY spend DESC, product_id LIMIT 1""")  # fmt: skip
    if not rows or rows[0][3] < 2 or rows[0][2] is None or rows[0][2] < _ALL_REVENUE:
        return []
    product_id, _, share, n = rows[0]
    says = (
        f"product {shown(product_id)} makes {percent(share)} of what the {n:,} products brought: little else can be"
        " offered"
    )
    do = (
        f"see whether tables.transactions.columns.product_id, now `{source_of(table, 'product_id')}`, tells products"
        " apart"
    )
    return [Remark("one product for all", "transactions", says, do, ("cross_sell",))]
