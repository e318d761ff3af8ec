"""Where a customer's numbers come from: how many rows of theirs were counted, and which sources those came from."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from pathlib import Path

from workspace import storage
from workspace.settings import Workspace

_TABLES = ("transactions", "interactions")


@dataclass(frozen=True)
class Counted:
    """Rows of one table that are about a customer and were known at an as_of, on so many days from `first` to `last`.

    `sources` are the files, or tables of a database, that they came from; `over_http` is whether some were sent.
    """

    table: str
    rows: int
    days: int
    first: date
    last: date
    sources: tuple[str, ...]
    over_http: bool


@storage.read_again
def counted(workspace: Workspace, customer_id: str, as_of: date) -> list[Counted]:
    """Of each table that has such rows."""
    there = [_of_table(workspace, table, customer_id, as_of) for table in _TABLES if table in workspace.tables.given()]
    return [one for one in there if one is not None]


def _of_table(workspace: Workspace, table: str, customer_id: str, as_of: date) -> Counted | None:
    folder = storage.tables_folder(workspace.home_path, table)
    files = storage.parts(folder)
    if not files:
        return None
    query = f"""
        SELECT filename, day, count(*) FROM {storage.reader(files)}
        WHERE customer_id = $customer AND known_day < DATE '{as_of}' GROUP BY ALL"""
    with storage.connect(workspace.home_path, workspace.timezone, 1.0) as connection:
        rows = connection.execute(query, {"customer": customer_id}).fetchall()
    if not rows:
        return None
    parts, days = {Path(file).stem for file, *_ in rows}, {day for _, day, _ in rows}
    origins = [source["origin"] for source in storage.sources_of(folder) if source["part"] in parts]
    sent = [origin for origin in origins if _is_below(origin, workspace.home_path)]
    named = dict.fromkeys(_called(origin) for origin in origins if origin not in sent)
    total = sum(number for *_, number in rows)
    return Counted(table, total, len(days), min(days), max(days), (*named,), bool(sent))


def _is_below(origin: str, home: Path) -> bool:
    """Events that came over HTTP are handed over in files of the home."""
    return Path(origin).is_relative_to(home)


def _called(origin: str) -> str:
    """A file by its name; where it lies is for who runs the service."""
    return origin.rpartition("/")[2] or origin
