"""Scores, offers and features as files for other tools."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from features.snapshot import CUSTOMER_FAMILIES, features_of
from serving.consent import REFUSED_PROFILING, Consents
from serving.lists.files import encoded
from serving.predictor import NO_CONSENT, NUMBERS
from serving.terms import Terms
from workspace import storage
from workspace.settings import SettingsError, Workspace
from workspace.storage import CheckFailed, quoted

if TYPE_CHECKING:
    import duckdb

_VECTORS = 16  # of 2,048 rows each, in memory at a time
_SCORE_GRADES = ("churn_grade", "lifetime_value_grade", "value_at_risk_grade")
_STAYS = "customer_id NOT IN (SELECT customer_id FROM leaving)"  # whose erasure waits is told of no more


@storage.read_again
def export(
    workspace: Workspace, what: str, as_of: date | None, out: Path, unproven_offers: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> int:  # fmt: skip
    """Writes `scores`, `offers` or `features` of a scored as_of to a .parquet or .csv file; returns the rows.

    Behind the columns of scores and offers stand the grades of their numbers. Offers that are not proven are left out
    unless asked for, and `say` tells how many.

    Raises:
        SettingsError: the file's ending is neither.
        CheckFailed: there is nothing of that as_of.
    """
    if out.suffix not in (".parquet", ".csv"):
        raise SettingsError(f"--out {out}: the name must end in .parquet or .csv")
    as_of = as_of or storage.latest_scored(workspace.home_path)
    query = _query(workspace, what, as_of)
    with storage.connect(workspace.home_path, workspace.timezone, workspace.memory) as connection:
        Consents(workspace.home_path).tell(connection)
        if what == "offers" and Terms.of_scores(workspace, as_of).leaves_offers_out(unproven_offers):
            query = _without_rows(connection, query, say)
        if out.suffix == ".parquet":
            return storage.copy_to(connection, query, out)
        ((count,),) = connection.execute(f"SELECT count(*) FROM ({query})").fetchall()
        with storage.replacing(out) as draft, draft.open("wb") as file:
            file.writelines(encoded(_blocks(connection, query), "csv"))
    return int(count)


def _blocks(connection: duckdb.DuckDBPyConnection, query: str) -> Iterator[pd.DataFrame]:
    """The rows so many at a time; at least one block, which may be empty."""
    answer = connection.execute(query)
    rows = answer.fetch_df_chunk(_VECTORS)
    yield rows
    while len(rows := answer.fetch_df_chunk(_VECTORS)):
        yield rows


def _without_rows(connection: duckdb.DuckDBPyConnection, offers: str, say: Callable[[str], None]) -> str:
    ((count,),) = connection.execute(f"SELECT count(*) FROM ({offers})").fetchall()
    if count:
        say(f"{count:,} offers are not proven (grade none), and so not exported; `--unproven-offers` exports them")
    return f"SELECT * FROM ({offers}) LIMIT 0"


def _query(workspace: Workspace, what: str, as_of: date) -> str:
    home = workspace.home_path
    if what != "features":
        path = {"scores": storage.scores_path, "offers": storage.offers_path}[what](home, as_of)
        _refuse_missing(path, as_of)
        grades = Terms.of_scores(workspace, as_of).grade_columns
        return _of_scores(path, grades) if what == "scores" else _of_offers(path, grades["offer_grade"])
    for family in CUSTOMER_FAMILIES:
        _refuse_missing(storage.snapshot_part(home, family, as_of), as_of)
    parts = {f: f"{storage.rows_of_part(storage.snapshot_part(home, f, as_of))} AS {f}" for f in CUSTOMER_FAMILIES}
    joins = " ".join(
        f"LEFT JOIN {parts[family]} USING (customer_id)" for family in CUSTOMER_FAMILIES if family != "profile"
    )
    columns = ", ".join(f'"{feature.name}"' for f in CUSTOMER_FAMILIES for feature in features_of(f, workspace))
    rows = f"{parts['profile']} {joins} WHERE {_STAYS}"
    return f"SELECT customer_id, profile.as_of, {columns} FROM {rows} ORDER BY customer_id"


def _of_scores(path: Path, grades: Mapping[str, str]) -> str:
    """As they were written, but for who withdrew the consent to be scored since."""
    numbers = ", ".join(f"CASE WHEN NOT {REFUSED_PROFILING} THEN {name} END AS {name}" for name in NUMBERS)
    reason = f"CASE WHEN {REFUSED_PROFILING} THEN {quoted(NO_CONSENT)} ELSE not_scored_reason END AS not_scored_reason"
    letters = ", ".join(f"{quoted(grades[name])} AS {name}" for name in _SCORE_GRADES)
    return (
        f"SELECT * REPLACE ({numbers}, {reason}), {letters} FROM read_parquet({quoted(path)}) WHERE {_STAYS}"
        " ORDER BY customer_id"
    )


def _of_offers(path: Path, grade: str) -> str:
    offers = f"SELECT *, {quoted(grade)} AS offer_grade FROM read_parquet({quoted(path)})"
    return f"{offers} WHERE NOT {REFUSED_PROFILING} AND {_STAYS} ORDER BY customer_id, rank"


def _refuse_missing(path: Path, as_of: date) -> None:
    if not path.exists():
        raise CheckFailed(f"nothing of {as_of} at {path}; run `perennial run --as-of {as_of}`")
