"""Segments of risk: everybody scored is in one, and its words are true of its customers."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pandas as pd
import pytest
from workspaces import AS_OF

from features import retrieval
from serving.lists.risk_groups import COLUMNS, MOST_GROUPS, as_text, risk_groups
from serving.predictor import Predictor
from tests.serving.conftest import Shop
from workspace import registry, storage
from workspace.storage import CheckFailed


@pytest.fixture(scope="module")
def predictor(shop: Shop) -> Iterator[Predictor]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", shop.tracking_uri)
        yield Predictor.load(shop.workspace, registry.client())


@pytest.fixture(scope="module")
def groups(predictor: Predictor) -> pd.DataFrame:
    return risk_groups(predictor, AS_OF)


@pytest.fixture(scope="module")
def scored(predictor: Predictor) -> pd.DataFrame:
    scores = pd.read_parquet(storage.scores_path(predictor.workspace.home_path, AS_OF))
    rows = retrieval.customer_rows(retrieval.open_store(predictor.workspace), predictor.workspace, [AS_OF])
    return scores[scores["not_scored_reason"].isna()].merge(rows.drop(columns="as_of"), on="customer_id")


def test_everybody_scored_is_in_one_group(groups: pd.DataFrame, scored: pd.DataFrame) -> None:
    """Customers and value at risk add up to those of the scores."""
    assert tuple(groups.columns) == COLUMNS
    assert 2 <= len(groups) <= MOST_GROUPS
    assert groups["customers"].sum() == len(scored)
    assert groups["value_at_risk"].sum() == pytest.approx(scored["value_at_risk"].sum())
    assert groups["value_at_risk"].is_monotonic_decreasing


def test_the_words_of_a_group_are_true_of_as_many_as_it_counts(groups: pd.DataFrame, scored: pd.DataFrame) -> None:
    """The words, read again as conditions, select the group's customers with the group's risk."""
    words = {
        r"silent for (\d+) days or less": lambda n: scored["days_since_last_purchase"] <= n,
        r"silent for more than (\d+) days": lambda n: scored["days_since_last_purchase"] > n,
        r"(\d+) purchases or fewer": lambda n: scored["n_purchases"] <= n,
        r"more than (\d+) purchases": lambda n: scored["n_purchases"] > n,
        r"(\d+) purchases or fewer in a year": lambda n: scored["n_purchases_365d"] <= n,
        r"more than (\d+) purchases in a year": lambda n: scored["n_purchases_365d"] > n,
        r"a customer for (\d+) days or less": lambda n: scored["tenure_days"] <= n,
        r"a customer for over (\d+) days": lambda n: scored["tenure_days"] > n,
    }
    checked = 0
    for group in groups.itertuples():
        conditions = [
            (pattern, re.fullmatch(pattern, part)) for part in group.who.split(", ") for pattern in words
            if re.fullmatch(pattern, part)
        ]  # fmt: skip
        if len(conditions) < len(group.who.split(", ")):
            continue  # a bound that is rounded for reading
        chosen = scored.index == scored.index
        for pattern, match in conditions:
            assert match is not None
            chosen &= words[pattern](float(match[1]))
        assert chosen.sum() == group.customers
        assert scored.loc[chosen, "churn_probability"].mean() == pytest.approx(group.churn_probability)
        checked += 1
    assert checked


def test_a_band_narrows_them_and_too_few_are_refused(predictor: Predictor, scored: pd.DataFrame) -> None:
    """Groups of a band hold its customers; of too few there is nothing to tell."""
    for band, count in scored["churn_band"].value_counts().items():
        if count >= 40:
            assert risk_groups(predictor, AS_OF, str(band))["customers"].sum() == count
        else:
            with pytest.raises(CheckFailed, match=f"{count} customers of {AS_OF} are scored {band}; at least 40"):
                risk_groups(predictor, AS_OF, str(band))


def test_the_terminal_shows_a_line_a_group(groups: pd.DataFrame) -> None:
    """Below a heading."""
    assert len(as_text(groups).splitlines()) == len(groups) + 1


def test_beside_each_number_stands_its_grade(groups: pd.DataFrame, predictor: Predictor) -> None:
    """As in lists: a weak one in the text, all of them in the columns, with days, measure and currency."""
    assert set(groups["currency"]) == {"EUR"}
    assert set(groups["churn_period_days"]) == {60}
    assert set(groups["churn_grade"]) == {predictor.registered["churn"].grade}
    weak = as_text(groups.assign(lifetime_value_grade="C")).splitlines()[1:]
    assert [f"{value:,.0f} C " in line for value, line in zip(groups["lifetime_value"], weak, strict=True)] == [
        True
    ] * len(weak)
