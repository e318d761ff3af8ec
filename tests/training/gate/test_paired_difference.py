"""Two models on the same rows: kept evidence, paired differences and their intervals, comparisons in words."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.training.conftest import World
from training.backtests import metrics
from training.backtests.backtest import Bounds, Judged
from training.backtests.baselines import Answer
from training.backtests.grade import OF_OFFERS, OF_VALUE
from training.backtests.offer_backtest import JudgedOffers
from training.gate import comparison, paired_difference
from training.records import judged_windows, tracking
from workspace.storage import CheckFailed


def judged(customers: int = 400, noise: float = 0.3, seed: int = 1, day: date = date(2024, 1, 1)) -> Judged:
    """Churn of so many customers, a quarter of whom leave, as a model of some noise sees it."""
    random = np.random.default_rng(seed)
    actual = (np.arange(customers) % 4 == 0).astype(float)
    said = np.clip(0.25 + 0.3 * (actual - 0.25) + random.normal(0, noise, customers), 0.01, 0.99)
    ids = np.array([f"c{number:04}" for number in range(customers)], dtype=object)
    half = np.arange(customers) < customers // 2
    answers = (Answer("Perennial", "ours", said), Answer("silence", "naive", random.random(customers), False))
    return Judged(day, (), ids, actual, answers, {"first half": half, "second half": ~half})


def judged_of(world: World, kind: str) -> list[Any]:
    """What version 1 was judged on."""
    return judged_windows.read(world.workspace.home_path, str(world.versions[kind].run_id))


@pytest.mark.parametrize("kind", ["churn", "lifetime_value", "cross_sell"])
def test_a_run_keeps_what_it_was_judged_on(kind: str, world: World) -> None:
    """Read again, the kept answers give the very figures that the run recorded."""
    kept = judged_of(world, kind)
    recorded = world.tracker.get_run(world.versions[kind].run_id).data.metrics
    assert len(kept) == recorded["judged_cutoffs"]
    figures = [cutoff.figures(cutoff.answers[0], np.arange(len(cutoff.customer_ids))) for cutoff in kept]
    for name in figures[0]:
        each = [abs(figure[name]) if name == "bias" else figure[name] for figure in figures]
        assert np.mean(each) == pytest.approx(recorded[name], rel=1e-12), name


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    """Answers with their kinds, segments, ids that need quoting, nothing lost on the way."""
    wanted = judged()
    wanted = replace(wanted, customer_ids=np.array([f"Zoë/{i} & co" for i in range(400)], dtype=object))
    judged_windows.write(tmp_path, "a-run", [wanted])
    [read] = judged_windows.read(tmp_path, "a-run")
    assert isinstance(read, Judged)
    np.testing.assert_array_equal(read.customer_ids, wanted.customer_ids)
    np.testing.assert_array_equal(read.actual, wanted.actual)
    for mine, theirs in zip(read.answers, wanted.answers, strict=True):
        assert (mine.name, mine.side, mine.is_level) == (theirs.name, theirs.side, theirs.is_level)
        np.testing.assert_array_equal(mine.predicted, theirs.predicted)
    assert read.segments.keys() == wanted.segments.keys()
    assert judged_windows.read(tmp_path, "another-run") == []


def test_bounds_are_kept_with_what_they_are_to_hold(tmp_path: Path) -> None:
    """Whatever the workspace says later; and a file of before it was noted has the setting's default."""
    wanted = replace(valued(0.1), bounds=Bounds(np.zeros(60), np.ones(60), 0.5))
    judged_windows.write(tmp_path, "a-run", [wanted])
    [read] = judged_windows.read(tmp_path, "a-run")
    assert isinstance(read, Judged)
    assert read.bounds is not None
    assert read.bounds.interval == 0.5
    assert read.of_customers(np.arange(3)).bounds.interval == 0.5  # type: ignore[union-attr]
    [path] = (tmp_path / "judged" / "a-run").glob("*.parquet")
    table = pq.read_table(path)
    noted = json.loads(table.schema.metadata[b"perennial"])
    del noted["interval"]
    pq.write_table(table.replace_schema_metadata({"perennial": json.dumps(noted)}), path)
    [older] = judged_windows.read(tmp_path, "a-run")
    assert older.bounds.interval == 0.8  # type: ignore[union-attr]


def test_only_common_cutoffs_and_customers_are_compared() -> None:
    """Whatever else either was judged on is left out, and rows are matched by customer, not by place."""
    mine, later = judged(), judged(day=date(2024, 4, 1))
    theirs = judged().of_customers(np.arange(399, 99, -1))
    [(first, second)] = paired_difference.paired([theirs, later], [mine])
    assert first.customer_ids.tolist() == second.customer_ids.tolist() == sorted(theirs.customer_ids)
    difference = paired_difference.difference([(first, second)], "auc", 1)
    assert difference.gain == 0
    assert difference.first == pytest.approx(metrics.auc(mine.actual[100:], mine.answers[0].predicted[100:]))


def test_a_real_difference_is_beyond_noise_and_a_chance_one_is_not() -> None:
    """A much less noisy model is better, its mirror image worse; two of the same noise are neither."""
    noisy, sharp, alike = judged(noise=0.3), judged(noise=0.1), judged(noise=0.3, seed=2)
    better, worse, same = (
        paired_difference.difference(paired_difference.paired([a], [b]), "auc", 1)
        for a, b in ((noisy, sharp), (sharp, noisy), (noisy, alike))
    )
    assert better.is_better
    assert not better.is_worse()
    assert worse.is_worse()
    assert worse.is_worse(0.02)
    assert not worse.is_worse(0.9)
    assert not same.is_better
    assert not same.is_worse()
    assert better.low < better.gain < better.high


@pytest.mark.parametrize("metric", ["brier", "ece"])
def test_less_error_is_a_gain(metric: str) -> None:
    """Whichever way a figure is good, a gain is good; also beside a rival that only orders customers."""
    off = judged(noise=0.1)
    high = replace(off.answers[0], predicted=np.clip(off.answers[0].predicted + 0.3, 0, 1))
    off = replace(off, answers=(high, *off.answers[1:]))
    assert paired_difference.difference(paired_difference.paired([off], [judged(noise=0.1)]), metric, 1).is_better


def valued(bias: float, day: date = date(2024, 1, 1), customers: int = 60) -> Judged:
    """Spend as it came to be ordered, its total off by `bias` in either half too."""
    spent = np.linspace(1, 100, customers)
    said, made = spent * (1 + bias), judged(customers, day=day)
    return replace(made, actual=spent, answers=(Answer("Perennial", "ours", said),), bounds=Bounds(said, said, 0.8))


@pytest.mark.parametrize("segment", [None, "first half"])
@pytest.mark.parametrize(("before", "after", "gain"), [
    (-0.1, -0.3, -0.2), (0.1, -0.3, -0.2), (-0.1, 0.3, -0.2), (-0.3, -0.1, 0.2), (-0.3, 0.1, 0.2), (0.3, -0.3, 0.0),
])  # fmt: skip
def test_a_bias_is_compared_by_its_size(before: float, after: float, gain: float, segment: str | None) -> None:
    """-30 % is worse than -10 %, and than +10 %, of everyone, of a segment and in every draw."""
    difference = paired_difference.difference(
        paired_difference.paired([valued(before)], [valued(after)]), "bias", 1, segment
    )
    assert (difference.first, difference.second, difference.gain) == pytest.approx((abs(before), abs(after), gain))
    assert (difference.low, difference.high) == pytest.approx((gain, gain))
    assert (difference.is_worse(0.1), difference.is_better) == (gain < 0, gain > 0)
    assert str(difference).startswith(f"|bias| {abs(before):.4f} -> {abs(after):.4f} (gain ")


def test_biases_do_not_cancel_over_cutoffs() -> None:
    """Off by 30 % either way is off by 30 %; a cutoff at which nothing was spent says nothing."""
    days = [date(2024, month, 1) for month in (1, 2, 3)]
    before = [valued(-0.1, day) for day in days]
    after = [valued(0.3, days[0]), valued(-0.3, days[1]), replace(valued(0.1, days[2]), actual=np.zeros(60))]
    difference = paired_difference.difference(paired_difference.paired(before, after), "bias", 1)
    assert (difference.first, difference.second) == pytest.approx((0.1, 0.3))
    assert difference.is_worse(0.1)
    nothing = paired_difference.difference(paired_difference.paired(before[2:], after[2:]), "bias", 1)
    assert np.isnan([nothing.first, nothing.gain, nothing.low, nothing.high]).all()
    assert not nothing.is_better
    assert not nothing.is_worse()
    assert str(nothing) == "|bias| nan -> nan (gain +nan)"


@pytest.mark.parametrize(("gain", "low", "high", "by", "is_worse", "is_better"), [
    (-0.2, -0.3, -0.1, 0.0, True, False), (-0.2, -0.3, -0.1, 0.2, False, False), (-0.2, -0.3, -0.1, 0.19, True, False),
    (-0.2, -0.5, 0.0, 0.0, False, False), (-0.2, -0.5, 0.1, 0.0, False, False), (0.2, 0.0, 0.5, 0.0, False, False),
    (0.2, 0.01, 0.5, 0.0, False, True), (0.0, 0.0, 0.0, 0.0, False, False),
    (-0.2, float("nan"), float("nan"), 0.1, True, False), (0.2, float("nan"), float("nan"), 0.1, False, False),
])  # fmt: skip
def test_worse_is_by_more_than_the_bound_and_beyond_noise(
    gain: float, low: float, high: float, by: float, is_worse: bool, is_better: bool
) -> None:
    """An interval that reaches 0 is noise; where none can be drawn, the bound alone decides."""
    difference = paired_difference.Difference("auc", 0.5, 0.5 + gain, gain, low, high)
    assert (difference.is_worse(by), difference.is_better) == (is_worse, is_better)
    assert not (difference.is_worse() and gain >= 0)


def test_a_difference_is_told_with_its_interval_where_it_has_one() -> None:
    """In the order before, after, gain, interval."""
    assert str(paired_difference.Difference("auc", 0.5, 0.6, 0.1, 0.05, 0.2)) == (
        "auc 0.5000 -> 0.6000 (gain +0.1000, 95 % +0.0500 to +0.2000)"
    )
    nan = float("nan")
    assert str(paired_difference.Difference("relative_ece", 0.5, 0.6, -0.1, nan, nan)) == (
        "relative_ece 0.5000 -> 0.6000 (gain -0.1000)"
    )


def test_nobody_in_common_is_no_pair() -> None:
    """At a cutoff where other customers were judged, and at one that only one of them has."""
    mine = judged(40)
    strangers = replace(mine, customer_ids=np.array([f"x{number}" for number in range(40)], dtype=object))
    assert paired_difference.paired([strangers], [mine]) == []
    assert paired_difference.paired([judged(40, day=date(2023, 1, 1))], [mine]) == []
    [(first, second)] = paired_difference.paired([mine.of_customers(np.arange(1))], [mine])
    assert first.customer_ids.tolist() == second.customer_ids.tolist() == ["c0000"]


def test_the_level_of_offers_is_not_drawn() -> None:
    """It is one of (customer, item) pairs: what a customer's share of it is, nobody can say."""
    made = judged(40)
    said = np.full(80, 0.5)

    def offers(order: float) -> JudgedOffers:
        answers = (Answer("Perennial", "ours", said * order),)
        by_customer = {"Perennial": {"ndcg10": np.full(40, order)}}
        return JudgedOffers(made.as_of, (), made.customer_ids, np.arange(80) % 2.0, answers, made.segments, by_customer)

    pairs = paired_difference.paired([offers(0.6)], [offers(0.9)])
    assert paired_difference.measured(OF_OFFERS, pairs) == ("ndcg10", "relative_ece")
    assert paired_difference.measured(OF_VALUE, paired_difference.paired([valued(0.1)], [valued(0.1)])) == (
        "ngini",
        "bias",
    )
    level, order = (paired_difference.difference(pairs, name, 1) for name in ("relative_ece", "ndcg10"))
    assert (level.gain, np.isnan(level.low), np.isnan(level.high)) == (pytest.approx(0.3), True, True)
    assert (order.low, order.high) == pytest.approx((0.3, 0.3))


def test_a_segment_is_compared_by_itself() -> None:
    """What was planted in one half is found there alone."""
    before, after = judged(noise=0.1), judged(noise=0.1)
    said = np.where(after.segments["first half"], 1 - after.answers[0].predicted, after.answers[0].predicted)
    after = replace(after, answers=(replace(after.answers[0], predicted=said),))
    pairs = paired_difference.paired([before], [after])
    assert paired_difference.difference(pairs, "auc", 1, "first half").is_worse(0.02)
    assert paired_difference.difference(pairs, "auc", 1, "second half").gain == 0


def test_a_handful_is_not_compared() -> None:
    """Nineteen customers have no figures; that some draws have more of them makes nobody better."""
    few = {"few": np.arange(400) < 19}
    noisy, sharp = (replace(judged(noise=noise), segments=few) for noise in (0.3, 0.05))
    difference = paired_difference.difference(paired_difference.paired([noisy], [sharp]), "auc", 1, "few")
    assert np.isnan([difference.first, difference.second, difference.gain, difference.low, difference.high]).all()
    assert not difference.is_better


def planted(world: World, kind: str, change: Any, experiment: str = "world", **asked: object) -> str:
    """A run like that of version 1, with other answers, or with other settings of its kind."""
    first = world.versions[kind]
    run = world.tracker.create_run(tracking.experiment(world.tracker, experiment), run_name="planted")
    for name, value in world.tracker.get_run(first.run_id).data.params.items():
        world.tracker.log_param(run.info.run_id, name, value)
    judged_windows.write(world.workspace.home_path, run.info.run_id, [change(c) for c in judged_of(world, kind)])
    kept = tracking.artifacts(world.tracker, str(first.run_id))
    settings = json.loads((kept / "settings.json").read_text())
    world.tracker.log_dict(run.info.run_id, settings | {kind: settings[kind] | asked}, "settings.json")
    return str(run.info.run_id)


def test_two_runs_are_compared_by_metric_segment_and_customer(world: World) -> None:
    """The customer whose score was planted is the one that moved most; nothing else differs beyond noise."""

    def moved(cutoff: Judged) -> Judged:
        said = cutoff.answers[0].predicted.copy()
        said[7] = 1 - said[7] / 2
        return replace(cutoff, answers=(replace(cutoff.answers[0], predicted=said),))

    [cutoff] = judged_of(world, "churn")
    compared = comparison.compare(world.tracker, "world.churn/1", planted(world, "churn", moved))
    assert [one.customer_id for one in compared.moved] == [cutoff.customer_ids[7]]
    assert [one.metric for one in compared.metrics][:2] == ["auc", "average_precision"]
    assert compared.segments.keys() == {"new", "one-time", "repeat", "top decile"}
    text = comparison.as_text(compared)
    assert f"whose scores moved most at {cutoff.as_of}\n  {cutoff.customer_ids[7]}" in text
    assert f"churn: world.churn/1 -> {compared.runs[1]}, {len(cutoff.customer_ids):,} answers at {cutoff.as_of}" in text


def test_offers_are_compared_too(world: World) -> None:
    """Against itself nothing moved."""
    compared = comparison.compare(world.tracker, "world.cross_sell/1", world.versions["cross_sell"].run_id)
    assert [one.metric for one in compared.metrics] == ["ndcg5", "recall5", "hit5", "relative_ece"]
    assert all(one.gain == 0 for one in compared.metrics)
    assert "no score moved" in comparison.as_text(compared)


def test_what_cannot_be_compared_is_said(world: World) -> None:
    """Another model, another workspace, another question, no common cutoff, no training, no run: a sentence each."""
    later = planted(world, "churn", lambda cutoff: replace(cutoff, as_of=date(2020, 1, 1)))
    foreign = planted(world, "churn", lambda cutoff: cutoff, "elsewhere")
    longer = planted(world, "churn", lambda cutoff: cutoff, horizon=61)
    for other, reason in (
        ("world.lifetime_value/1", "are of different models, churn and lifetime_value"),
        (foreign, "are of different workspaces, world and elsewhere"),
        (longer, r"answer different questions, so nothing compares them: churn\.horizon 60 -> 61"),
        (later, "were judged at no common cutoff .*: train both at one --as-of"),
        ("world.churn/99", "MLflow has no version world.churn/99"),
        ("0" * 32, "MLflow has no run 0{32}"),
    ):
        with pytest.raises(CheckFailed, match=reason):
            comparison.compare(world.tracker, "world.churn/1", other)


def test_what_is_erased_of_a_customer_in_the_home_is_erased_here(tmp_path: Path) -> None:
    """Nothing of a single customer lies in MLflow, and a file without one is read and compared like any other."""
    judged_windows.write(tmp_path, "a-run", [judged()])
    [path] = (tmp_path / "judged" / "a-run").glob("*.parquet")
    table = pq.read_table(path)
    pq.write_table(table.slice(1), path)
    [read] = judged_windows.read(tmp_path, "a-run")
    assert "c0000" not in read.customer_ids
    [(first, second)] = paired_difference.paired([judged()], [read])
    assert len(first.customer_ids) == len(second.customer_ids) == 399


def test_no_customer_is_named_in_mlflow(world: World) -> None:
    """Neither model, card, settings nor figures of a run hold an id."""
    ids = {str(customer_id) for customer_id in world.data.current.customer_ids}
    for version in world.versions.values():
        folder = tracking.artifacts(world.tracker, str(version.run_id))
        text = "".join(path.read_text() for path in folder.rglob("*") if path.suffix in {".json", ".html", ".txt"})
        assert text
        assert not any(customer_id in text for customer_id in ids)
