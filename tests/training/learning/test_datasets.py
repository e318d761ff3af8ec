"""Datasets: whom a cutoff holds, what became of them, and that no cutoff knows what came after it."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta

import duckdb
import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from features import retrieval
from tests.training.conftest import TRAINED_AT, World
from training.learning import datasets, labels
from training.models.buy_till_you_die import BuyTillYouDie, Outlook
from workspace import storage

OUTCOME_DAYS = 65  # a gap of 5 and a horizon of 60


@pytest.fixture(scope="module")
def lines(world: World) -> pd.DataFrame:
    """Every accepted line: customer_id, day, known_day, amount."""
    rows = storage.rows_of(world.workspace.home_path, "transactions")
    return duckdb.execute(f"SELECT customer_id, day, known_day, amount FROM {rows}").df()


def test_cutoffs_lie_spaced_before_the_last_that_has_closed(world: World) -> None:
    """The latest is 65 days before the as_of, the others 30 days apart before it, each with 200 days of history."""
    latest = TRAINED_AT - timedelta(days=OUTCOME_DAYS)
    assert latest == date(2024, 4, 27)
    expected = [latest - timedelta(days=30 * back) for back in (4, 3, 2, 1, 0)]
    assert datasets.cutoffs(world.workspace, TRAINED_AT) == expected
    assert [cutoff.as_of for cutoff in world.data.closed] == expected


def test_a_cutoff_without_history_enough_is_left_out(world: World) -> None:
    """A cutoff nearer than `min_history` to the first purchase does not count."""
    first = date(2022, 7, 3)
    training = world.workspace.training.model_copy(update={"min_history": (date(2024, 3, 28) - first).days})
    cutoffs = datasets.cutoffs(world.workspace.model_copy(update={"training": training}), TRAINED_AT)
    assert cutoffs == [date(2024, 3, 28), date(2024, 4, 27)]


def test_an_outlook_is_asked_for_once_and_of_the_rows_at_hand(world: World) -> None:
    """Other labels change nothing of it; fewer customers, or another history model, do."""
    cutoff, asked = world.data.closed[-1], []

    def find(model: BuyTillYouDie | None, vectors: NDArray[np.float32]) -> Outlook:
        asked.append(len(vectors))
        return world.data.inputs.outlook(model, vectors, 31)

    relabelled = replace(cutoff, churned=1 - cutoff.churned)
    assert relabelled.outlook("31 days", find) is cutoff.outlook("31 days", find)
    few = replace(cutoff, vectors=cutoff.vectors[:9])
    np.testing.assert_array_equal(few.outlook("31 days", find).p_alive, cutoff.outlook("31 days", find).p_alive[:9])
    nobody_knows = replace(cutoff, history_model=None).outlook("31 days", find)
    assert np.isnan(nobody_knows.p_alive).all()
    assert asked == [len(cutoff.vectors), 9, len(cutoff.vectors), len(cutoff.vectors)]


def test_no_window_closes_after_the_purchases_end(world: World) -> None:
    """Long after the last purchase nothing more has been seen than by the time at which the silence grew long."""
    until = labels.recorded_until(world.workspace, TRAINED_AT + timedelta(days=300))
    assert until < TRAINED_AT + timedelta(days=300)
    late = datasets.cutoffs(world.workspace, TRAINED_AT + timedelta(days=300))
    assert late[-1] == until - timedelta(days=datasets.outcome_days(world.workspace))


def test_churned_is_known_of_exactly_who_could_leave(world: World, lines: pd.DataFrame) -> None:
    """Recomputed from the lines: 1 no purchase in the window, 0 a purchase, unknown for who was silent for a year."""
    bought = lines[lines["amount"] >= 0]
    for cutoff in world.data.closed:
        at = pd.Timestamp(cutoff.as_of)
        last = bought[bought["known_day"] < at].groupby("customer_id")["day"].max().reindex(cutoff.customer_ids)
        start, end = at + pd.Timedelta(days=5), at + pd.Timedelta(days=65)
        within = (bought["day"] >= start) & (bought["day"] < end) & (bought["known_day"] < pd.Timestamp(TRAINED_AT))
        stayed = np.isin(cutoff.customer_ids.astype(str), bought[within]["customer_id"].unique().astype(str))
        expected = np.where((at - last).dt.days <= 365, 1.0 - stayed, np.nan)
        np.testing.assert_array_equal(cutoff.churned, expected)
        assert np.isnan(expected).any()


def test_value_is_the_net_spend_of_the_window(world: World, lines: pd.DataFrame) -> None:
    """Recomputed from the lines: everything from the as_of to 60 days later, returns taken off, silence being 0."""
    for cutoff in world.data.closed:
        at = pd.Timestamp(cutoff.as_of)
        within = (lines["day"] >= at) & (lines["day"] < at + pd.Timedelta(days=60))
        within &= lines["known_day"] < pd.Timestamp(TRAINED_AT)
        spent = lines[within].groupby("customer_id")["amount"].sum().reindex(cutoff.customer_ids).fillna(0.0)
        np.testing.assert_allclose(cutoff.value, spent, atol=1e-6)


def test_an_open_window_is_neither_zero_nor_one(world: World) -> None:
    """At the as_of of the training itself nothing is known of what follows."""
    assert np.isnan(world.data.current.churned).all()
    assert np.isnan(world.data.current.value).all()


def test_every_cutoff_has_the_history_model_of_its_own_day(world: World) -> None:
    """Fitted again on the cutoff's own vectors it is the same, and no two cutoffs share one."""
    every = (*world.data.closed, world.data.current)
    for cutoff in every:
        history = world.data.inputs.history(cutoff.vectors)
        fitted = BuyTillYouDie.fit(history, world.data.inputs.column(cutoff.vectors, "spend_last"))
        assert cutoff.history_model == fitted
    assert len({str(cutoff.history_model) for cutoff in every}) == len(every)


def test_the_customers_of_a_cutoff_are_those_known_before_it(world: World, lines: pd.DataFrame) -> None:
    """Whoever bought before it and lets the shop learn is there, once and in order of the id; later there are more."""
    for cutoff in world.data.closed:
        known = lines[lines["known_day"] < pd.Timestamp(cutoff.as_of)]["customer_id"]
        rows = retrieval.rows_at(world.workspace, cutoff.as_of)
        willing = set(rows.loc[rows["profiling_consent"] != 0, "customer_id"])
        assert set(known) & willing <= set(cutoff.customer_ids) <= willing
        assert list(cutoff.customer_ids) == sorted(set(cutoff.customer_ids))
    sizes = [len(cutoff.customer_ids) for cutoff in (*world.data.closed, world.data.current)]
    assert sizes == sorted(sizes)


@pytest.mark.parametrize(("days_later", "seen"), [(64, 0), (65, 1), (94, 1), (95, 2), (500, 5)])
def test_a_label_is_seen_from_the_day_its_window_closes(days_later: int, seen: int, world: World) -> None:
    """A training 64 days after a cutoff does not know what became of it; one day later it does."""
    as_of = world.data.closed[0].as_of + timedelta(days=days_later)
    assert world.data.closed_by(as_of, OUTCOME_DAYS) == world.data.closed[:seen]
