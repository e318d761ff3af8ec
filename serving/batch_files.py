"""What the last batch filed of some customers: scores and offers out of its Parquet files, by id.

The files are sorted by customer, so only the parts that an id can be in are read.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

from serving.lists.bought_with import meant
from serving.scope import Scope
from workspace import storage
from workspace.settings import Workspace

_MEMORY = 1.0  # gigabytes


class Filed:
    """The files of one as_of; a connection of its own for each question, so that threads can ask at once."""

    def __init__(self, workspace: Workspace, as_of: date) -> None:
        self.workspace, self.home, self.as_of = workspace, workspace.home_path, as_of
        self.connection = storage.connect(self.home, workspace.timezone, _MEMORY)
        self.connection.execute("SET parquet_metadata_cache = true")

    def scores(self, customer_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        """The row of each customer who has one, by id."""
        rows = self._of(storage.scores_path(self.home, self.as_of), customer_ids, "customer_id")
        return {row["customer_id"]: row | {"as_of": row["as_of"].isoformat()} for row in rows}

    def offers(self, customer_ids: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
        """The offers of each customer who has some, best first, by id."""
        offers: dict[str, list[dict[str, Any]]] = {}
        for row in self._of(storage.offers_path(self.home, self.as_of), customer_ids, "customer_id, rank"):
            offer = {name: row[name] for name in ("rank", "item", "probability", "kind")}
            offers.setdefault(row["customer_id"], []).append(offer)
        return offers

    def ids_beginning(self, beginning: str, most: int, scope: Scope) -> list[str]:
        """The first ids of scored and unscored customers of a scope that begin so."""
        path = storage.scores_path(self.home, self.as_of)
        low = storage.quoted(beginning)
        query = f"""SELECT customer_id FROM {storage.reader([path])}
            WHERE customer_id >= {low} AND starts_with(customer_id, {low}) AND {scope.condition(self.workspace)}
            ORDER BY customer_id LIMIT {most}"""
        return [row["customer_id"] for row in self._asked(path, query)]

    def bought_with(self, item: str) -> list[dict[str, Any]]:
        """What goes with an item, in whatever case it is written, best first.

        Raises:
            NoSuchFilter: no rule is known of such an item.
        """
        path = storage.bought_with_path(self.home, self.as_of)
        there = self._asked(path, f"SELECT DISTINCT item FROM {storage.reader([path])} ORDER BY item")
        rows = self._of(path, [meant(item, [row["item"] for row in there])], "rank", key="item")
        return [{name: row[name] for name in ("rank", "bought_with", "buyers", "share", "lift")} for row in rows]

    @storage.read_again
    def within(self, scope: Scope, customer_ids: Sequence[str]) -> list[str]:
        """Those of these customers who are in a scope, in order.

        By id first: the table is sorted so, and of a million customers little is read.

        Raises:
            CheckFailed: no customer was taken in.
        """
        query = f"""SELECT customer_id FROM {storage.rows_of(self.home, "customers")}
            WHERE customer_id IN (SELECT unnest($ids)) AND ({scope.of_rows(self.workspace)})"""
        rows = self.connection.cursor().execute(query, {"ids": list(customer_ids)}).fetchall()
        inside = {row[0] for row in rows}
        return [one for one in customer_ids if one in inside]

    @storage.read_again
    def marketing_consent(self, customer_id: str) -> bool | None:
        """What the customers' table says; null where it says nothing or there is none."""
        parts = storage.parts(storage.tables_folder(self.home, "customers"))
        if not parts:
            return None
        query = f"SELECT marketing_consent FROM {storage.reader(parts)} WHERE customer_id = ?"
        consent = self.connection.cursor().execute(query, [customer_id]).fetchone()
        return consent[0] if consent else None

    def _of(self, path: Path, wanted: Sequence[str], order: str, key: str = "customer_id") -> list[dict[str, Any]]:
        among = ", ".join(map(storage.quoted, dict.fromkeys(wanted)))
        return self._asked(path, f"SELECT * FROM {storage.reader([path])} WHERE {key} IN ({among}) ORDER BY {order}")

    @storage.read_again
    def _asked(self, path: Path, query: str) -> list[dict[str, Any]]:
        """Raises CheckFailed where the file is not there."""
        if not path.exists():
            raise storage.CheckFailed(f"there is no {path}; run `perennial score --as-of {self.as_of}`")
        answer = self.connection.cursor().execute(query)
        names = [column[0] for column in answer.description]
        return [dict(zip(names, row, strict=True)) for row in answer.fetchall()]
