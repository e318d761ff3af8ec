"""The purchase models on data frames: their examples, the numbers of `training/models`, histories of transactions."""

from __future__ import annotations

import os
import subprocess
import sys

import docstrings
import numpy as np
import pandas as pd
import pytest
from datasets import cdnow_sample

from perennial import models
from training.models.histories import NotIdentified

MODELS = [models.BGNBD, models.MBGNBD, models.ParetoNBD]


@pytest.fixture(scope="module")
def transactions() -> pd.DataFrame:
    return cdnow_sample().rename(columns={"date": "occurred_at"})


@pytest.mark.parametrize("name", models.__all__)
def test_every_public_name_has_an_example_that_is_right(name: str, transactions: pd.DataFrame) -> None:
    """What the docstrings show is what comes out; of purchases, on those that the models were published on."""
    ran = docstrings.ran(getattr(models, name), transactions=transactions, np=np, pd=pd)
    assert ran.attempted > 0
    assert ran.failed == 0


def test_what_is_not_there_is_said() -> None:
    """As by any module."""
    with pytest.raises(AttributeError, match="no attribute 'Churn'"):
        models.Churn  # noqa: B018


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_the_numbers_are_those_of_the_models_below(model: type[models.BGNBD], transactions: pd.DataFrame) -> None:
    """To the last digit, on transactions and on histories alike, by customer."""
    histories = models.histories(transactions, "1997-10-01")
    columns = [histories[name].to_numpy() for name in ("frequency", "recency", "T")]
    below = model._model.fit(*columns)
    for fitted in (model().fit(transactions, "1997-10-01"), model().fit(histories)):
        assert fitted.parameters == vars(below)
        np.testing.assert_array_equal(fitted.p_alive(), below.p_alive(*columns))
        expected = fitted.expected_purchases(90)
        np.testing.assert_array_equal(expected, below.expected_purchases(*columns, 90))
        assert expected.index.equals(histories.index)
        few = fitted.predict(90, histories.head(3))
        pd.testing.assert_series_equal(few["expected_purchases"], expected.head(3))


def test_a_day_with_several_purchases_counts_once_and_a_return_not_at_all() -> None:
    """The words' own sense; what comes at the as_of or later is not known."""
    days = ["01-05 09:00", "01-05 18:00", "01-09", "01-20", "01-20", "02-01"]
    rows = pd.DataFrame({"occurred_at": [f"2024-{day}" for day in days], "amount": [1.0, 2.0, -3.0, 9.0, -2.0, 9.0]})
    both = pd.concat([rows.assign(customer_id="c1"), rows.tail(1).assign(customer_id="c2")], ignore_index=True)
    histories = models.histories(both, "2024-02-01")
    assert histories.loc["c1"].to_dict() == {"frequency": 1.0, "recency": 15.0, "T": 27.0, "monetary_value": 7.0}
    assert histories.index.tolist() == ["c1"]


@pytest.mark.parametrize(
    ("columns", "as_of", "says"),
    [(["customer_id", "occurred_at"], None, "need a day"), (["id", "date"], "2024-01-01", "columns are id, date: nei")],
)  # fmt: skip
def test_what_is_neither_transactions_nor_histories_is_refused(
    columns: list[str], as_of: str | None, says: str
) -> None:
    """With the columns that would do, or the day that is missing."""
    with pytest.raises(ValueError, match=says):
        models.BGNBD().fit(pd.DataFrame([["c1", "2024-01-05"]], columns=columns), as_of)


def test_too_little_data_is_refused() -> None:
    """As by the models below: no numbers where nothing is determined."""
    with pytest.raises(NotIdentified, match="1 of 2 customers bought again"):
        models.BGNBD().fit(pd.DataFrame({"frequency": [0.0, 1.0], "recency": [0.0, 9.0], "T": [30.0, 30.0]}))


def test_to_load_them_changes_nothing_of_the_process() -> None:
    """No environment variable; still the threads that LightGBM brings wait quietly, as its OpenMP says when asked."""
    code = "import os; before = dict(os.environ); import training.models, lightgbm; assert dict(os.environ) == before"
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    asked = environment | {"OMP_DISPLAY_ENV": "TRUE"}
    loaded = subprocess.run([sys.executable, "-c", code], env=asked, capture_output=True, text=True, check=False)
    assert loaded.returncode == 0, loaded.stderr
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in loaded.stderr
