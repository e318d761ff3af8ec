"""Rolling backtests: nothing after a judged date teaches, everyone is asked the same, and the tallies add up."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from builders import write_workspace
from datasets import dataset

from features import retrieval, snapshot
from ingest import intake
from tests.training.conftest import TRAINED_AT, World
from training.backtests import backtest, metrics, scoreboard
from training.backtests.backtest import Bounds, Judged
from training.backtests.baselines import Answer
from training.kinds import CHURN, LIFETIME_VALUE
from training.learning import churn, datasets, labels, lifetime_value
from training.models.customer_model import Inputs
from workspace import settings


@pytest.fixture(scope="module")
def judged(world: World) -> dict[str, Judged]:
    """Churn and value at the latest closed cutoff."""
    last = [world.data.closed[-1].as_of]
    [left] = backtest.judge(backtest.churn_at, world.data, world.workspace, last)
    [spent] = backtest.judge(backtest.value_at, world.data, world.workspace, last)
    return {"churn": left, "value": spent}


def test_nothing_that_happened_or_was_recorded_later_teaches(
    world: World, judged: dict[str, Judged], tmp_path: Path
) -> None:
    """In a shop that closed for good on the judged date, every contender's answers are the same, the truth another."""
    last = world.data.closed[-1].as_of
    tables = {
        name: table.model_copy(update={"where": f"occurred_at < '{last}'"})
        for name in ("transactions", "interactions")
        if (table := getattr(world.workspace.tables, name))
    }
    closed = world.workspace.model_copy(
        update={"home": str(tmp_path / "home"), "tables": world.workspace.tables.model_copy(update=tables)}
    )
    intake.ingest(closed, datetime(2026, 1, 1, tzinfo=UTC))
    dates = [cutoff.as_of for cutoff in world.data.closed]
    snapshot.snapshot(closed, [*dates, TRAINED_AT])
    data = datasets.load(retrieval.apply(closed), closed, TRAINED_AT, dates)
    [left] = backtest.judge(backtest.churn_at, data, closed, [last])
    [spent] = backtest.judge(backtest.value_at, data, closed, [last])
    for mine, theirs in ((judged["churn"], left), (judged["value"], spent)):
        assert mine.customer_ids.tolist() == theirs.customer_ids.tolist()
        assert len(mine.learnt_from) == 2
        for one, other in zip(mine.answers, theirs.answers, strict=True):
            # Sums of money differ in the last digit with the order of rows; it moves a booster's split by a customer.
            close = 0.05 if one.side == "ours" else 1e-6
            np.testing.assert_allclose(one.predicted, other.predicted, rtol=close, err_msg=one.name)
        assert not np.array_equal(mine.actual, theirs.actual)


def test_the_judged_model_is_what_a_training_on_that_day_gives(world: World, judged: dict[str, Judged]) -> None:
    """Ours is `fit` on the cutoffs closed by then and no other; the judge's own outcomes are not among what it gets."""
    *earlier, last = world.data.closed
    seen = [c for c in earlier if (last.as_of - c.as_of).days >= 65]
    rows = ~np.isnan(last.churned)
    model = churn.fit(world.data, world.workspace, seen, last)
    np.testing.assert_allclose(judged["churn"].answers[0].predicted, model.probability(last.vectors[rows]), rtol=1e-9)
    assert judged["churn"].learnt_from == tuple(c.as_of for c in seen)
    np.testing.assert_array_equal(judged["churn"].actual, last.churned[rows])


def test_everyone_is_asked_the_same(judged: dict[str, Judged]) -> None:
    """Naive rules and the field's models answer for the same rows; a rule without a level says so."""
    names = {answer.name: answer for answer in judged["churn"].answers}
    assert list(names)[:3] == ["Perennial", "silence", "silence, at last window's rates"]
    assert {"BG/NBD, exp(-purchases)", "BG/NBD, no purchase"} <= names.keys()
    assert not names["silence"].is_level
    for of_kind in judged.values():
        assert all(len(answer.predicted) == len(of_kind.actual) for answer in of_kind.answers)
        assert all(np.isfinite(answer.predicted).all() for answer in of_kind.answers)
    assert [a.side for a in judged["value"].answers[:3]] == ["ours", "naive", "btyd"]


def test_calibrated_silence_has_the_rates_of_the_last_window_known(world: World, judged: dict[str, Judged]) -> None:
    """Its probabilities rise with silence and, over the window they come from, add up to who left."""
    by_name = {answer.name: answer.predicted for answer in judged["churn"].answers}
    silence, rates = by_name["silence"], by_name["silence, at last window's rates"]
    order = np.argsort(silence, kind="stable")
    assert (np.diff(rates[order]) >= 0).all()
    seen = datasets.seen_at(world.data, world.workspace, judged["churn"].as_of)[-1]
    assert rates.mean() == pytest.approx(np.nanmean(seen.churned), abs=0.1)


def days_apart(*days: int) -> list[date]:
    return [TRAINED_AT - timedelta(days=d) for d in sorted(days, reverse=True)]


@pytest.mark.parametrize(
    ("closed", "count", "expected"),
    [
        (range(65, 65 + 30 * 12, 30), 3, (65, 125, 185)),  # windows of 65 days, three spacings: as far as 4 to teach
        (range(65, 65 + 30 * 30, 30), 3, (65, 155, 245)),  # room: the windows do not overlap, and no further apart
        (range(65, 65 + 30 * 5, 30), 3, (65,)),  # only the latest has two cutoffs closed before it
        (range(65, 65 + 30 * 2, 30), 3, (65, 95)),  # nothing to teach with: judged on histories alone
        (range(65, 65 + 30 * 12, 30), 1, (65,)),
    ],
)  # fmt: skip
def test_judged_dates_leave_enough_to_learn_from(
    closed: range, count: int, expected: tuple[int, ...], world: World
) -> None:
    """The latest closed cutoff, and others as far before it as the history allows without starving their training."""
    assert backtest.judged_dates(world.workspace, days_apart(*closed), count) == days_apart(*expected)


def test_segments_by_hand() -> None:
    """Young customers are new whatever they did; older ones count their purchase days; who never bought is nowhere."""
    packed = ("T", "frequency", "spend_365d")
    rows = [[89, 5, 10], [90, 0, 20], [400, 0, 0], [90, 1, 90], [400, 9, 5], [np.nan, np.nan, np.nan]]
    segments = backtest.segments(Inputs(packed, packed), np.array(rows, dtype=np.float32))
    assert {name: np.flatnonzero(part).tolist() for name, part in segments.items()} == {
        "new": [0], "one-time": [1, 2], "repeat": [3, 4], "top decile": [3],
    }  # fmt: skip


def make_judged(as_of: date, actual: list[float], rival: list[float], ours: list[float]) -> Judged:
    answers = Answer("ours", "ours", np.array(ours)), Answer("rival", "naive", np.array(rival))
    ids = np.array([f"c{number}" for number in range(len(actual))], dtype=object)
    return Judged(as_of, (as_of,), ids, np.array(actual), answers, {"all": np.ones(len(actual), dtype=bool)})


@pytest.mark.parametrize("empty_first", [False, True])
def test_a_segment_may_have_nobody_at_one_cutoff(empty_first: bool) -> None:
    """As where nobody new came for a quarter: its figures are unknown there, and known at the other cutoff."""
    spent = np.arange(1.0, 41.0)
    bounds, counts = Bounds(spent - 1, spent + 1, 0.8), (spent, spent + 1)
    some = replace(
        make_judged(date(2024, 1, 1), spent.tolist(), [9.0] * 40, spent.tolist()), bounds=bounds, n_purchases=counts
    )
    both = [some, replace(some, segments={"all": np.zeros(40, dtype=bool)})]
    figures = scoreboard.scoreboard(both[::-1] if empty_first else both).segments["all"][0].figures
    empty = 0 if empty_first else 1
    for name, known in {"coverage": 1.0, "coverage_stated": 0.8, "count_correlation": 1.0}.items():
        assert figures[name].each[1 - empty] == pytest.approx(known)
    assert np.isnan([figures[name].each[empty] for name in ("coverage", "count_correlation")]).all()


@pytest.fixture
def two_cutoffs() -> list[Judged]:
    """40 customers, half of whom leave; ours knows, then halves; the rival says a half of everyone."""
    left, half = [1.0] * 20 + [0.0] * 20, [0.5] * 40
    unsure = [0.75] * 20 + [0.25] * 20
    return [make_judged(date(2024, 1, 1), left, half, left), make_judged(date(2024, 4, 1), left, half, unsure)]


def test_mean_spread_and_worst_over_the_cutoffs(two_cutoffs: list[Judged]) -> None:
    """By hand: Brier scores of 0 and 1/16; the worst is the largest error and, of the area, the smallest."""
    board = scoreboard.scoreboard(two_cutoffs)
    brier = board.ours.figures["brier"]
    assert brier.each == pytest.approx((0, 1 / 16))
    assert (brier.mean, brier.sd, brier.worst) == pytest.approx((1 / 32, 1 / 16 / 2**0.5, 1 / 16))
    assert board.ours.figures["auc"].worst == 1
    assert board.contenders[1].ahead["brier"].each == pytest.approx((-1 / 4, -3 / 16))
    assert board.segments["all"][0].figures["brier"].mean == brier.mean


def test_a_bias_is_averaged_by_its_size() -> None:
    """Too much at one cutoff does not make up for too little at the next; the worst and each keep their signs."""
    spread = scoreboard.Spread.of("bias", [0.3, -0.3, -0.6], [0.2, 0.4])
    assert (spread.mean, spread.worst, spread.each) == (pytest.approx(0.4), -0.6, (0.3, -0.3, -0.6))
    assert spread.sd == pytest.approx(np.std([0.3, 0.3, 0.6], ddof=1))
    assert (spread.low, spread.high) == pytest.approx((0.205, 0.395))
    ahead = scoreboard.Spread.ahead("bias", [0.1, -0.2], [-0.3, 0.1])
    assert (ahead.each, ahead.mean, ahead.worst) == (
        pytest.approx((-0.2, 0.1)),
        pytest.approx(-0.05),
        pytest.approx(0.1),
    )
    assert scoreboard.Spread.ahead("auc", [0.8, 0.7], [0.7, 0.75]).worst == pytest.approx(-0.05)


NAN = float("nan")


@pytest.mark.parametrize(("metric", "rivals", "best"), [
    ("auc", ([0.7, NAN, NAN], [0.6, 0.8, NAN]), (0.7, 0.8, NAN)),
    ("brier", ([NAN, 0.3, 0.1], [0.2, 0.1, NAN]), (0.2, 0.1, 0.1)),
    ("bias", ([0.2, -0.3, NAN], [-0.1, 0.4, -0.2]), (-0.1, -0.3, -0.2)),
])  # fmt: skip
def test_the_best_rival_is_the_best_known_at_each_cutoff(
    metric: str, rivals: tuple[list[float], ...], best: tuple[float, ...]
) -> None:
    """Nearest to zero for a bias; a figure that is not defined hides no other, in whatever order they stand."""
    days = tuple(date(2024, month, 1) for month in (1, 2, 3))
    ours = scoreboard.Contender("ours", "ours", {metric: scoreboard.Spread.of(metric, [9.0, 9.0, 9.0])}, {})
    for order in (rivals, rivals[::-1]):
        others = [
            scoreboard.Contender("rule", "naive", {metric: scoreboard.Spread.of(metric, each)}, {}) for each in order
        ]
        board = scoreboard.Scoreboard(days, ((),) * 3, (10,) * 3, (ours, *others), (), {}, {})
        rival = board.best("naive", metric)
        assert rival is not None
        np.testing.assert_array_equal(rival.each, best)
        assert board.best("btyd", metric) is None


def test_a_run_records_the_size_of_a_bias_and_each_cutoffs_own() -> None:
    """Off by a third either way is off by a third; the mean with signs has another name."""
    days = (date(2024, 1, 1), date(2024, 4, 1))
    figures = {"bias": scoreboard.Spread.of("bias", [0.4, -0.2]), "ngini": scoreboard.Spread.of("ngini", [0.7, 0.8])}
    board = scoreboard.Scoreboard(
        days, ((), ()), (10, 10), (scoreboard.Contender("ours", "ours", figures, {}),), (), {}, {}
    )
    assert board.recorded("bias") == pytest.approx({
        "bias": 0.3, "bias_worst": 0.4, "bias_signed": 0.1, "bias_at_2024-01-01": 0.4, "bias_at_2024-04-01": -0.2,
    })  # fmt: skip
    assert board.recorded("ngini") == pytest.approx({"ngini": 0.75, "ngini_worst": 0.7})


def shuffled(actual: np.ndarray, swaps: int, seed: int) -> np.ndarray:
    """An order that knows everything but of so many pairs, which it has the wrong way round."""
    random = np.random.default_rng(seed)
    said = actual + random.uniform(0, 0.5, len(actual))
    left, stayed = (random.choice(np.flatnonzero(actual == label), swaps, replace=False) for label in (1, 0))
    said[left], said[stayed] = said[stayed], said[left]
    return said / 2


@pytest.mark.parametrize(("swaps", "is_drawn", "is_noise"), [((60, 20), True, False), ((20, 60), False, None),
                                                             ((21, 20), True, True)])  # fmt: skip
def test_noise_is_drawn_where_a_purchase_history_model_is_ahead(
    swaps: tuple[int, int], is_drawn: bool, is_noise: bool | None
) -> None:
    """Without a seed too: a grade asks whether its better order is chance; nobody else's is drawn."""
    left = (np.arange(600) % 3 == 0).astype(float)
    cutoffs = []
    for place in range(3):
        ours, theirs = (shuffled(left, count, seed + 10 * place) for seed, count in enumerate(swaps))
        made = make_judged(date(2024, 1 + place, 1), left.tolist(), (1 - left).tolist(), ours.tolist())
        cutoffs.append(replace(made, answers=(*made.answers, Answer("history", "btyd", theirs))))
    _, rival, history = scoreboard.scoreboard(cutoffs).contenders
    ahead = history.ahead["auc"]
    assert np.isnan(ahead.low) == (not is_drawn)
    assert np.isnan([history.ahead["brier"].low, rival.ahead["auc"].low]).all()
    if is_drawn:
        assert ahead.low < ahead.mean < ahead.high
        assert (ahead.high >= 0) is is_noise
        full = scoreboard.scoreboard(cutoffs, seed=7).contenders[2].ahead["auc"]
        assert (full.low, full.high) == (ahead.low, ahead.high)


def test_a_draw_that_knows_some_cutoffs_is_a_mean_over_those() -> None:
    """Everybody stayed at the second: its area is not defined, and the first one's interval is."""
    left = [1.0] * 20 + [0.0] * 20
    first = make_judged(date(2024, 1, 1), left, [0.5] * 40, left[::-1])
    second = make_judged(date(2024, 4, 1), [0.0] * 40, [0.5] * 40, left)
    auc = scoreboard.scoreboard([first, second], seed=1).ours.figures["auc"]
    assert (auc.mean, auc.low, auc.high) == (0, 0, 0)


def test_bias_is_worst_where_it_is_furthest_from_zero() -> None:
    """Whatever its sign; unknown figures are left out, and nothing known is no figure."""
    assert scoreboard.Spread.of("bias", [0.1, -0.4, 0.2]).worst == -0.4
    assert scoreboard.Spread.of("auc", [0.9, float("nan"), 0.7]).mean == pytest.approx(0.8)
    assert np.isnan(scoreboard.Spread.of("auc", [float("nan")]).worst)


def test_differences_are_drawn_on_the_same_customers(two_cutoffs: list[Judged]) -> None:
    """A rival who says the same is ahead by exactly nothing in every draw, although both figures scatter."""
    noisy = [replace(cutoff, actual=np.roll(cutoff.actual, 5)) for cutoff in two_cutoffs]
    twins = [replace(c, answers=(c.answers[0], replace(c.answers[0], name="twin", side="naive"))) for c in noisy]
    board = scoreboard.scoreboard(twins, seed=1)
    assert (board.contenders[1].ahead["brier"].low, board.contenders[1].ahead["brier"].high) == (0, 0)
    assert board.ours.figures["brier"].low < board.ours.figures["brier"].mean < board.ours.figures["brier"].high


def test_a_contender_missing_at_one_cutoff_is_not_compared(two_cutoffs: list[Judged]) -> None:
    """A mean over fewer cutoffs would be another question; it is named instead."""
    extra = replace(two_cutoffs[0].answers[1], name="sometimes")
    first = replace(two_cutoffs[0], answers=(*two_cutoffs[0].answers, extra), refused=("Pareto/NBD",))
    board = scoreboard.scoreboard([first, two_cutoffs[1]])
    assert [contender.name for contender in board.contenders] == ["ours", "rival"]
    assert board.missing == ("Pareto/NBD", "sometimes")


def test_a_draw_takes_a_customer_equally_often_at_every_cutoff() -> None:
    """Who is there twice is there twice everywhere they were known; who was not known is not invented."""
    ids = [np.array(["a", "b", "c"]), np.array(["b", "c", "d"])]
    for first, second in metrics.customer_draws(ids, 20, seed=3):
        for name in ("b", "c"):
            assert (ids[0][first] == name).sum() == (ids[1][second] == name).sum()
    sizes = [len(first) for first, _ in metrics.customer_draws(ids, 400, seed=3)]
    assert np.mean(sizes) == pytest.approx(3, abs=0.2)


def test_a_sample_of_customers_is_the_same_at_every_cutoff(world: World) -> None:
    """Half of them, near enough, by a hash of the id: who is in at one cutoff is in at all."""
    few = datasets.load(world.store, world.workspace, TRAINED_AT, most=500)
    whole, part = set(world.data.current.customer_ids), set(few.current.customer_ids)
    assert len(part) == pytest.approx(500 * len(whole) / 1000, abs=70)
    for mine, theirs in zip(world.data.closed, few.closed, strict=True):
        assert set(theirs.customer_ids) == set(mine.customer_ids) & part
    share = datasets.share_of(world.workspace, TRAINED_AT, 500)
    for mine, theirs in zip(world.data.sampled(share).closed, few.closed, strict=True):
        for name in ("customer_ids", "vectors", "churned", "value", "n_purchases"):
            np.testing.assert_array_equal(getattr(mine, name), getattr(theirs, name))


def test_a_history_shorter_than_two_horizons_teaches_histories_alone(world: World) -> None:
    """Half of the history is the longest horizon that can be learnt from; beyond, shorter windows teach, and where none
    does the reason says so in days."""
    days = labels.purchase_days(world.workspace, TRAINED_AT)
    assert days is not None
    history = (TRAINED_AT - days[0]).days
    half = world.workspace.lifetime_value.model_copy(update={"horizon": history // 2})
    fits = world.workspace.model_copy(update={"lifetime_value": half})
    longer = half.model_copy(update={"horizon": history // 2 + 1})
    short = world.workspace.model_copy(update={"lifetime_value": longer})
    assert datasets.taught(fits, TRAINED_AT) == fits
    assert datasets.outcome_days(datasets.taught(short, TRAINED_AT)) < history // 2
    data = replace(world.data, closed=())
    model = churn.fit(data, short, (), data.current)
    grade = CHURN.learnt_and_judged(lambda: model, data, short, [])[1].grade
    assert grade.letter == "none"
    assert f"history of {history} days is shorter than 2 horizons of {history // 2 + 1}" in grade.reason


def test_too_few_outcomes_are_counted_in_the_reason(world: World) -> None:
    """Twenty who left in each cutoff leave histories alone, and the sentence says how many there were."""
    few = tuple(replace(c, churned=np.where(np.cumsum(c.churned == 1) <= 9, c.churned, 0.0)) for c in world.data.closed)
    data = replace(world.data, closed=few)
    model = churn.fit(data, world.workspace, few, data.current)
    grade = CHURN.learnt_and_judged(lambda: model, data, world.workspace, [])[1].grade
    assert "45 left and" in grade.reason
    assert "too few: at least 100 of either kind" in grade.reason


def test_unidentified_drop_out_is_said(tmp_path: Path) -> None:
    """CLVTools' 600 apparel customers at 40 weeks: whether any has left cannot be known, and the reason says so."""
    lines = pd.read_parquet(dataset("clvtools") / "apparel_trans.parquet")
    lines = lines.rename(columns={"id": "customer_id", "date": "occurred_at", "price": "amount"})
    lines.insert(0, "transaction_id", [f"t{number}" for number in range(len(lines))])
    as_of, horizons = date(2005, 10, 10), {"churn": {"horizon": 273}, "lifetime_value": {"horizon": 273}}
    workspace = settings.read(write_workspace(tmp_path, lines, **horizons), home=tmp_path / "home")
    intake.ingest(workspace, datetime(2026, 1, 1, tzinfo=UTC))
    snapshot.snapshot(workspace, [*datasets.cutoffs(workspace, as_of), as_of])
    data = datasets.load(retrieval.apply(workspace), workspace, as_of)
    model = lifetime_value.fit(data, workspace, data.closed, data.current)
    grade = LIFETIME_VALUE.learnt_and_judged(lambda: model, data, workspace, [])[1].grade
    assert grade.letter == "none"
    assert "no earlier date could be judged" in grade.reason
    assert "Nothing can be said of p_alive here: the data do not determine" in grade.reason
