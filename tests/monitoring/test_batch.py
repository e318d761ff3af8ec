"""What a batch of scores comes to, counted from files made by hand."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from monitoring import batch
from workspace import storage

THEN, NOW = date(2024, 7, 1), date(2025, 1, 1)
TERMS = {"currency": "EUR", "measure": "revenue", "leaving": "the chance of no purchase within 90 days",
         "churn_days": 90, "value_days": 90}  # fmt: skip
Row = tuple[str, str | None, float | None, float | None, str | None]
COLUMNS = ["customer_id", "churn_band", "lifetime_value", "value_at_risk", "not_scored_reason"]


def scored(home: Path, day: date, rows: list[Row], version: int = 1, **terms: Any) -> None:
    """A file of scores as a batch writes it."""
    models = {"churn_model": f"shop.churn/{version}", "lifetime_value_model": "shop.lifetime_value/1",
              "cross_sell_model": None}  # fmt: skip
    types = {name: pa.float64() if "value" in name else pa.string() for name in COLUMNS}
    types |= dict.fromkeys(models, pa.string())
    table = pa.Table.from_pandas(pd.DataFrame(rows, columns=COLUMNS).assign(**models), pa.schema(types.items()))
    path = storage.scores_path(home, day)
    path.parent.mkdir(parents=True)
    noted = TERMS | terms | {"standings": {"churn": ["A", None, None]}}
    pq.write_table(table.replace_schema_metadata({"terms": json.dumps(noted)}), path)


NO_CONSENT, LEFT = "no consent to profiling", "already churned"
BEFORE: list[Row] = [
    ("a", "high", 100.0, 80.0, None), ("b", "low", 50.0, 5.0, None), ("c", "high", 10.0, 9.0, None),
    ("d", "medium", 10.0, 4.0, None), ("e", None, None, None, NO_CONSENT), ("gone", "low", 1.0, 0.1, None),
]  # fmt: skip
AFTER: list[Row] = [
    ("a", "high", 90.0, 60.0, None), ("b", "high", 50.0, 30.0, None), ("c", "low", 10.0, 1.0, None),
    ("d", None, 7.0, None, LEFT), ("e", None, None, None, NO_CONSENT), ("new", "high", 20.0, 15.0, None),
]  # fmt: skip


def test_a_batch_counts_customers_and_money(tmp_path: Path) -> None:
    """Of the scored alone, with those who are not by their reason, and what the amounts are of."""
    scored(tmp_path, NOW, AFTER)
    counted = batch.at(tmp_path, NOW)
    assert (counted.customers, counted.scored, counted.high) == (6, 4, 3)
    assert (counted.value, counted.at_risk, counted.at_risk_high) == (170.0, 106.0, 105.0)
    assert dict(counted.not_scored) == {LEFT: 1, NO_CONSENT: 1}
    assert counted.models == ("shop.churn/1", "shop.lifetime_value/1")
    assert counted.question == TERMS


def test_what_is_withheld_from_everybody_is_not_nought(tmp_path: Path) -> None:
    """Amounts and bands that are shown of nobody are unknown, and nobody at high risk is another thing."""
    scored(tmp_path, THEN, [("a", None, None, None, None)])
    scored(tmp_path, NOW, [("a", "low", 1.0, 0.0, None)])
    hidden, calm = batch.at(tmp_path, THEN), batch.at(tmp_path, NOW)
    assert (hidden.high, hidden.value, hidden.at_risk, hidden.at_risk_high) == (None, None, None, None)
    assert (calm.high, calm.at_risk, calm.at_risk_high) == (0, 0.0, None)


def test_a_change_counts_who_came_went_and_moved(tmp_path: Path) -> None:
    """Against the as_of before, whichever came after; who is not scored has moved into no band."""
    scored(tmp_path, THEN, BEFORE)
    scored(tmp_path, NOW, AFTER, version=2)
    scored(tmp_path, date(2025, 4, 1), AFTER)
    change = batch.change(tmp_path, NOW)
    assert change is not None
    assert change.before == batch.at(tmp_path, THEN)
    assert (change.came, change.gone, change.unscored) == (1, 1, 1)
    assert (change.into_high, change.out_of_high) == (1, 1)


def test_the_first_scores_changed_nothing(tmp_path: Path) -> None:
    """Later ones are not what came before."""
    scored(tmp_path, THEN, BEFORE)
    scored(tmp_path, NOW, AFTER)
    assert batch.change(tmp_path, THEN) is None


def test_scores_that_an_earlier_version_wrote_say_nothing_of_their_question(tmp_path: Path) -> None:
    """They are counted all the same."""
    scored(tmp_path, THEN, BEFORE)
    path = storage.scores_path(tmp_path, THEN)
    pq.write_table(pq.read_table(path).replace_schema_metadata({}), path)
    counted = batch.at(tmp_path, THEN)
    assert (counted.customers, counted.question) == (6, {})
