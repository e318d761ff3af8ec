"""What a churn-risk list comes to, and by what it can be filtered: counts of those who may be listed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import date
from typing import Any

from features.snapshot import families
from ingest.rows import identifier
from serving.consent import Consents, may_be_listed
from serving.lists import filters, paging
from serving.lists.churn_risk import conditions
from serving.lists.list_query import ListQuery
from serving.lists.paging import Totals, reader
from serving.scope import Scope
from serving.terms import Terms
from workspace import storage
from workspace.settings import Workspace

MOST_VALUES = 60


@dataclass(frozen=True)
class Counts:
    """How many customers a batch knew, had scores of, and of these in the high band, null where bands are withheld."""

    customers: int
    scored: int
    high: int | None


Choices = dict[str, list[tuple[str, int]]]
"""By what a list can be filtered by, its values, each with how many of the listed have it."""


@storage.read_again
def totals(workspace: Workspace, as_of: date, asked: ListQuery, terms: Terms, scope: Scope) -> Totals:
    """Of the whole list that is asked for, within the scope, however many rows a page of it has.

    Raises:
        NoSuchFilter: a filter that no customer can pass.
    """
    path = storage.quoted(storage.risk_path(workspace.home_path, as_of, asked.sort))
    where = conditions(workspace, as_of, asked, terms, scope)
    return paging.total(workspace, f"read_parquet({path})", where, "value_at_risk")


@storage.read_again
def counts(workspace: Workspace, as_of: date, scope: Scope) -> Counts:
    """What the batch of a scored as_of came to within the scope."""
    path = storage.quoted(storage.scores_path(workspace.home_path, as_of))
    query = f"""SELECT count(*), count(*) FILTER (not_scored_reason IS NULL), count(*) FILTER (churn_band = 'high'),
        count(churn_band) FROM read_parquet({path}) WHERE {scope.condition(workspace)}"""
    with reader(workspace.home_path).cursor() as connection:
        known, scored, high, banded = connection.execute(query).fetchall()[0]
    return Counts(known, scored, high if banded else None)


@storage.read_again
def choices(workspace: Workspace, as_of: date, scope: Scope) -> Choices:
    """Of the shop's attributes that have few values, and of what was bought in the last 365 days, as `category`.

    Only what those within the scope have.
    """
    home = workspace.home_path
    path = storage.quoted(storage.risk_path(home, as_of, "value_at_risk"))
    who = f"{may_be_listed(workspace)} AND {scope.condition(workspace)}"
    listed = f"(SELECT customer_id FROM read_parquet({path}) WHERE {who}) AS listed"
    with reader(home).cursor() as connection:
        Consents(home).tell(connection)

        def counted(value: str, rows: str, condition: str = "true") -> list[tuple[str, int]]:
            query = f"""SELECT {value} AS value, count(*) FROM {listed} JOIN {rows} AS t USING (customer_id)
                WHERE value IS NOT NULL AND {condition} GROUP BY ALL ORDER BY 2 DESC, 1 LIMIT {MOST_VALUES + 1}"""
            said: Counter[str] = Counter()
            for one, count in connection.execute(query).fetchall():
                said[_as_asked(one)] += count
            return said.most_common()

        customers = storage.rows_of(home, "customers") if workspace.attributes else ""
        own = {name: counted(f"t.{identifier(name)}", customers) for name in workspace.attributes}
        few = {name: values for name, values in own.items() if len(values) <= MOST_VALUES}
        if "product_affinity" not in families(workspace):
            return few
        part = storage.rows_of_part(storage.snapshot_part(home, "product_affinity", as_of))
        return few | {"category": counted("t.item", part, "item_days_since_last <= 365")[:MOST_VALUES]}


@storage.read_again
def values_of(workspace: Workspace, as_of: date, attribute: str) -> list[str]:
    """What the listed have of an attribute, as filters take it, in order.

    Raises:
        NoSuchFilter: the shop keeps no such attribute.
    """
    name, home = filters.name("attribute", attribute, workspace.attributes), workspace.home_path
    path = storage.quoted(storage.risk_path(home, as_of, "value_at_risk"))
    with reader(home).cursor() as connection:
        Consents(home).tell(connection)
        rows = connection.execute(f"""
            SELECT DISTINCT {identifier(name)} AS value FROM {storage.rows_of(home, "customers")}
            WHERE value IS NOT NULL AND {may_be_listed(workspace)}
              AND customer_id IN (SELECT customer_id FROM read_parquet({path})) ORDER BY value""").fetchall()
    return [*dict.fromkeys(_as_asked(value) for (value,) in rows)]


def _as_asked(value: Any) -> str:
    """A value as a filter takes it."""
    if isinstance(value, bool):
        return str(value).lower()
    return filters.as_text(value) if isinstance(value, float | str) else str(value)
