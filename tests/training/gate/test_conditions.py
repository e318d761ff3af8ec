"""The gate's conditions one by one, on versions whose answers are made by hand: nothing is trained here."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from features.items import candidates
from training.backtests.backtest import Bounds, Judged
from training.backtests.baselines import Answer
from training.backtests.offer_backtest import JudgedOffers
from training.gate import conditions, paired_difference
from training.gate.conditions import Condition, Contest
from training.kinds import CHURN, CROSS_SELL, LIFETIME_VALUE, kind_of
from training.models.buy_till_you_die import BuyTillYouDie
from training.models.churn_model import ChurnModel
from training.models.customer_model import Inputs
from training.models.leaving import Leaving
from training.models.mbg_nbd import MBGNBD
from training.models.offer_model import OfferModel
from training.records.versions import Version
from workspace import settings
from workspace.settings import Workspace

DAYS = (date(2024, 1, 1), date(2024, 4, 1))
ROWS = 400


@pytest.fixture(autouse=True)
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is planted is plain to see in few."""
    monkeypatch.setattr(paired_difference, "_DRAWS", 20)


def workspace(promotion: dict[str, Any] | None = None, **groups: Any) -> Workspace:
    raw = {"name": "small", "tables": {"transactions": {"path": "lines.csv"}}, "promotion": promotion or {}}
    return settings.parse(raw | groups, "the tests")


def model() -> ChurnModel:
    """Of histories alone, with parameters of our own choice."""
    history = BuyTillYouDie(MBGNBD(0.6, 5.0, 0.8, 2.5, -1.0), None, 10.0, "")
    names = ("frequency", "recency", "T", "monetary_value", "spend_first", "days_since_last_purchase")
    return ChurnModel(Inputs(names, names), history, Leaving.of(workspace().churn), 90, 900)


def judged(
    said: np.ndarray | None = None, known: float = 0.3, noise: float = 0.3, seed: int = 1, day: date = DAYS[0]
) -> Judged:  # fmt: skip
    """Every fourth customer leaves; the answers are `said`, or those of a model that knows so much, with noise."""
    random, actual = np.random.default_rng(seed), (np.arange(ROWS) % 4 == 0).astype(float)
    seen = np.clip(0.25 + known * (actual - 0.25) + random.normal(0, noise, ROWS), 0.01, 0.99)
    ids = np.array([f"c{number:04}" for number in range(ROWS)], dtype=object)
    half = np.arange(ROWS) < ROWS // 2
    answers = (Answer("Perennial", "ours", seen if said is None else np.array(said)),
               Answer("silence", "naive", random.random(ROWS), False))  # fmt: skip
    return Judged(day, (DAYS[0],), ids, actual, answers, {"first half": half, "second half": ~half})


def valued(bias: float, day: date = DAYS[0]) -> Judged:
    """Spend of so many customers, ordered as it came to be and off by `bias` in total, always."""
    made, spent = judged(day=day), np.linspace(1, 100, ROWS)
    said = spent * (1 + bias)
    return replace(made, actual=spent, answers=(Answer("Perennial", "ours", said),), bounds=Bounds(said, said, 0.8))


def offered(ndcg: float, relative_error: float) -> JudgedOffers:
    """One item for everybody, which every second buys; lists of some order, probabilities off by a share of a half."""
    made, bought = judged(), (np.arange(ROWS) % 2).astype(float)
    of_customer = {"ndcg5": np.where(np.arange(ROWS) % 3 == 0, 0.5, ndcg)}
    answers = (Answer("Perennial", "ours", np.full(ROWS, 0.5 * (1 + relative_error))),)
    return JudgedOffers(DAYS[0], (), made.customer_ids, bought, answers, made.segments, {"Perennial": of_customer})


def version(
    cutoffs: Sequence[Any], number: str = "2", of: Workspace | None = None, as_of: str = "2024-07-01", **tags: str
) -> Version:
    """The champion of these tests is trained after what it was judged on, so nothing has to be asked anew."""
    own = {"grade": "B", "as_of": as_of, "recipe": f"recipe {number}", "code": "c", "features_hash": "f"} | tags
    return Version(number, own, Path(), model(), of or workspace(), tuple(cutoffs))


def judged_by(
    kind: str, mine: Any, theirs: Any, promotion: dict[str, Any] | None = None, **tags: str
) -> list[Condition]:
    """Of a challenger against a champion with these judged cutoffs; `tags` are the challenger's."""
    both = [cutoffs if isinstance(cutoffs, list) else [cutoffs] for cutoffs in (mine, theirs)]
    made = Contest(workspace(promotion), kind_of(kind), version(both[0], **tags), version(both[1], "1"), lambda _: None)
    return made.conditions()


def against(asked: Sequence[Condition]) -> list[str]:
    return [condition.sentence for condition in asked if not condition.met]


SHARP, NOISY = judged(known=0.9, noise=0.1), judged()
MIRRORED = judged(1 - SHARP.answers[0].predicted)


def blind_to(segment: str) -> Judged:
    """All-knowing but of a segment, of which it is told next to nothing."""
    said = 0.05 + 0.9 * SHARP.actual
    rows = np.flatnonzero(SHARP.segments[segment])
    said[rows] = 0.1 + 0.3 * judged(noise=2.0, seed=5).answers[0].predicted[rows]
    return judged(said)


def test_a_better_version_meets_every_condition_and_says_so() -> None:
    """Figures before and after, on how many answers at which days, whichever condition it is."""
    answered = judged_by("churn", [SHARP, replace(SHARP, as_of=DAYS[1])], [NOISY, replace(NOISY, as_of=DAYS[1])])
    assert not against(answered)
    main, level, segments, grade = (condition.sentence for condition in answered)
    assert main.startswith("better beyond noise on 800 answers at 2024-01-01, 2024-04-01: auc 0.")
    assert level.startswith("calibration is no worse: ece 0.")
    assert segments == "no segment loses more than 0.02 of auc"
    assert grade == "grade B, the champion's is B"


@pytest.mark.parametrize(("kind", "mine", "theirs", "sentences"), [
    ("churn", NOISY, NOISY, ["not better beyond noise on 400 answers"]),
    ("churn", judged(NOISY.answers[0].predicted * (0.96 + 0.03 * np.sin(np.arange(ROWS)))), NOISY,
     ["not better beyond noise"]),
    ("churn", judged(SHARP.answers[0].predicted * 0.3), NOISY, ["calibration is worse: ece"]),
    ("churn", MIRRORED, NOISY, ["not better beyond noise", "calibration is worse",
                                "the segment `first half` loses more than 0.02: auc",
                                "the segment `second half` loses more than 0.02: auc"]),
    ("cross_sell", offered(0.9, 0.1), offered(0.6, 0.0), ["calibration is worse: relative_ece 0.0000 -> 0.1000"]),
    ("cross_sell", offered(0.9, 0.005), offered(0.6, 0.0), []),
    ("cross_sell", offered(0.6, 0.0), offered(0.9, 0.0), ["not better beyond noise", "the segment", "the segment"]),
])  # fmt: skip
def test_what_is_wrong_is_what_is_said(kind: str, mine: Any, theirs: Any, sentences: list[str]) -> None:
    """Each fault by its own sentence, and no other one beside it."""
    told_against = against(judged_by(kind, mine, theirs))
    assert len(told_against) == len(sentences), told_against
    for told, wanted in zip(told_against, sentences, strict=True):
        assert told.startswith(wanted)


@pytest.mark.parametrize("segment", ["first half", "second half"])
def test_one_hurt_segment_is_enough(segment: str) -> None:
    """Better on the whole and worse for some: the sentence names them, whichever they are."""
    answered = judged_by("churn", blind_to(segment), NOISY, {"calibration_loss": 1.0})
    assert [told[:30] for told in against(answered)] == [f"the segment `{segment}` loses more"[:30]]
    assert not any("no segment loses" in told.sentence for told in answered)
    assert not against(judged_by("churn", blind_to(segment), NOISY, {"calibration_loss": 1.0, "segment_loss": 1.0}))


@pytest.mark.parametrize(("before", "after", "is_worse"), [
    (-0.1, -0.3, True), (0.1, -0.3, True), (-0.1, 0.3, True), (0.1, 0.3, True), (-0.3, 0.1, False), (0.3, -0.1, False),
    (-0.1, 0.1, False), (-0.1, -0.105, False), (-0.1, -0.111, True), (0.1, 0.111, True),
])  # fmt: skip
def test_a_total_is_further_off_by_its_size(before: float, after: float, is_worse: bool) -> None:
    """Too little is no better than too much: only how far the total is off counts, beyond the loss that is allowed."""
    told = [c for c in judged_by("lifetime_value", valued(after), valued(before)) if "calibration" in c.sentence]
    assert [condition.met for condition in told] == [not is_worse]
    assert f"|bias| {abs(before):.4f} -> {abs(after):.4f} (gain " in told[0].sentence


def test_totals_that_are_off_either_way_do_not_cancel() -> None:
    """30 % too much at one cutoff and 30 % too little at the next is worse than 10 % too little at both."""
    mine, theirs = (
        [valued(bias, day) for bias, day in zip(each, DAYS, strict=True)] for each in ((0.3, -0.3), (-0.1, -0.1))
    )
    [told] = [c for c in judged_by("lifetime_value", mine, theirs) if "calibration" in c.sentence]
    assert not told.met
    assert "calibration is worse: |bias| 0.1000 -> 0.3000" in told.sentence


@pytest.mark.parametrize(("refresh", "mine", "passes", "told"), [
    ("no_worse", NOISY, True, "a refresh of the champion, no worse on 400 answers"),
    ("no_worse", MIRRORED, False, "a refresh of the champion, worse on 400 answers"),
    ("better", NOISY, False, "not better beyond noise on 400 answers"),
    ("better", SHARP, True, "better beyond noise on 400 answers"),
])  # fmt: skip
def test_a_refresh_need_only_be_no_worse(refresh: str, mine: Judged, passes: bool, told: str) -> None:
    """Unless the settings ask of it what is asked of every other version."""
    made = Contest(workspace({"refresh": refresh}), CHURN, version([mine], recipe="same"),
                   version([NOISY], "1", recipe="same"), lambda _: None)  # fmt: skip
    first, *_ = made._by_figures(paired_difference.paired([NOISY], [mine]))
    assert (first.met, first.sentence.startswith(told)) == (passes, True), first


def test_versions_of_unknown_recipes_are_no_refresh_of_each_other() -> None:
    """Nothing says that they were made alike."""
    mine, theirs = version([NOISY]), version([NOISY], "1")
    for one in (mine, theirs):
        del one.tags["recipe"]
    assert not Contest(workspace(), CHURN, mine, theirs, lambda _: None).is_refresh


def test_what_nothing_compares() -> None:
    """A refresh is let in, another version is told what to do; the days of both stand in the sentence."""
    never: list[Any] = []
    [condition, _] = judged_by("churn", never, [NOISY], recipe="recipe 1", as_of="2024-08-01")
    days = "trained at 2024-08-01, the champion at 2024-07-01"
    assert condition == (
        True, f"the champion's recipe on newer data, {days}; no window since has closed to compare them on",
    )  # fmt: skip
    [strict, _] = judged_by("churn", never, [NOISY], {"refresh": "better"}, recipe="recipe 1", as_of="2024-08-01")
    [other, _] = judged_by("churn", never, [NOISY], as_of="2024-08-01")
    assert strict == other
    assert not other.met
    assert other.sentence == (
        f"no cutoff has closed at which both can be asked ({days}); train the challenger at --as-of 2024-07-01 too, or"
        " judge it when a window after that has closed"
    )


def test_a_refresh_is_not_measured_at_cutoffs_that_it_was_taught_by() -> None:
    """Before the champion's day the two are one model: its kept answers say nothing of a refresh."""
    [condition, _] = judged_by("churn", [MIRRORED], [NOISY], recipe="recipe 1")
    assert condition.met
    assert "no window since has closed" in condition.sentence


@pytest.mark.parametrize("name", ["code", "features_hash"])
def test_settings_are_not_taught_by_other_code_or_features(name: str) -> None:
    """What came out would not be what the champion is: the cutoff that it was not judged at is left out."""
    mine = [SHARP, replace(SHARP, as_of=DAYS[1])]
    main, *_ = judged_by("churn", mine, [NOISY], **{name: "other"})
    assert "on 400 answers at 2024-01-01: auc" in main.sentence


def test_a_champion_that_knows_what_came_after_is_not_compared() -> None:
    """Trained a day later it may have learnt what the other is judged by, however well that does; not the same day."""

    def against_later(as_of: str, **tags: str) -> Contest:
        mine = version([MIRRORED], as_of=as_of, **tags)
        return Contest(workspace(), CHURN, mine, version([SHARP], "1"), lambda _: None)

    early = against_later("2024-06-30", grade="C")
    assert early.conditions() == [
        (True, "the champion was trained later, at 2024-07-01, and knows what this one is judged by"),
        (True, "nothing compares them, and it has grade C"),
    ]
    assert early.leaves_the_champion
    assert not against_later("2024-06-30", features_hash="other").leaves_the_champion
    same_day = against_later("2024-07-01")
    assert not same_day.leaves_the_champion
    assert any(told.startswith("not better beyond noise") for told in against(same_day.conditions()))


def test_another_question_is_not_compared() -> None:
    """Every setting that changes it is named; how a model is made, or how wide its bounds are, is none."""

    def told(asked: dict[str, Any] | None = None, **mine: Any) -> list[Condition]:
        own = version([valued(0.0)], of=workspace(lifetime_value=mine))
        there = workspace(lifetime_value=asked or {})
        return Contest(there, LIFETIME_VALUE, own, version([valued(0.0)], "1"), lambda _: None).conditions()

    made_otherwise = {"interval": 0.5, "features": ["purchases"], "boosting": {"rounds": 10}}
    changed = "lifetime_value.horizon 90 -> 61, lifetime_value.measure spend -> margin"
    for asked in ({}, {"horizon": 61}, {"horizon": 61, "measure": "margin", "discount_rate": 0.1}):
        assert told(asked, **made_otherwise, horizon=61, measure="margin") == [
            (False, f"it answers another question than the champion, so nothing compares them: {changed}")
        ]
    assert told({"horizon": 61, "measure": "margin"}, **made_otherwise, horizon=61, measure="margin") == [
        (True, f"the question changed: {changed}"),
        (True, "it is judged as the first of its question, and it has grade B"),
    ]
    assert len(told(**made_otherwise)) > 2
    assert told({"horizon": 61}) == told()


def test_who_answers_what_is_asked_now_takes_the_place_of_who_does_not() -> None:
    """However much more the champion knows: it knows it of something else."""
    asked = workspace(churn={"horizon": 30})
    for there, stays in ((asked, False), (workspace(), True)):
        mine = version([SHARP], as_of="2024-06-30", of=asked)
        made = Contest(there, CHURN, mine, version([SHARP], "1"), lambda _: None)
        assert made.leaves_the_champion is stays


@pytest.mark.parametrize(("mine", "theirs", "met"), [
    ("A", "B", True), ("B", "B", True), ("C", "B", False), ("none", "C", False), ("none", "none", True),
    ("C", "none", True),
])  # fmt: skip
def test_a_grade_is_at_least_the_champions(mine: str, theirs: str, met: bool) -> None:
    """By the letters that both were given, where nothing has closed since."""
    made = Contest(
        workspace(), CHURN, version([NOISY], grade=mine), version([NOISY], "1", grade=theirs), lambda _: None
    )
    assert made._grades(paired_difference.paired([NOISY], [NOISY])) == (
        met,
        f"grade {mine}, the champion's is {theirs}",
    )


def since(rival: Judged, as_of: str = "2024-01-01") -> Condition:
    """What becomes of a champion's B beside a challenger without a grade, when this has closed since its training."""
    made = Contest(workspace(), CHURN, version([SHARP], grade="none"), version([], "1", as_of=as_of), lambda _: None)
    return made._grades([(rival, SHARP)])


def test_windows_closed_since_may_take_a_champions_grade() -> None:
    """On the day it was trained at or later, with enough outcomes, and only where it would have none by them."""
    told = "grade none; by the windows closed since, the champion's B would be none"
    assert since(MIRRORED) == (True, told)
    assert since(MIRRORED, "2024-01-02") == (False, "grade none, the champion's is B")
    assert not since(judged(0.02 + 0.96 * SHARP.actual)).met
    few = MIRRORED.of_customers(np.arange(396))
    assert (few.actual.sum(), len(few.actual)) == (99, 396)
    assert not since(few).met


def test_the_champion_is_graded_beside_the_challengers_rivals() -> None:
    """Its answers since were kept without any: the naive rule that stood beside the challenger's counts."""
    knowing = replace(SHARP, answers=(SHARP.answers[0], Answer("silence", "naive", SHARP.actual, False)))
    fair = judged(np.where(SHARP.actual == 1, 0.3, np.where(np.arange(ROWS) % 2 == 1, 0.3, 0.15)))
    alone = replace(fair, answers=fair.answers[:1])
    placed = alone.beside(knowing)
    assert [answer.name for answer in placed.answers] == ["Perennial", "silence"]
    assert placed.answers[0] is alone.answers[0]
    assert [answer.name for answer in fair.beside(knowing).answers] == ["Perennial", "silence"]
    by_the_rule = replace(fair, answers=fair.answers[1:])
    assert by_the_rule.beside(knowing).answers == by_the_rule.answers  # no rival of itself
    offers, others = offered(0.5, 0.0), offered(0.9, 0.0)
    own = replace(others, answers=(*others.answers, Answer("usual", "naive", others.actual)),
                  by_customer={**others.by_customer, "usual": {"ndcg5": np.ones(ROWS)}})  # fmt: skip
    beside = offers.beside(own)
    assert beside.by_customer["Perennial"] is offers.by_customer["Perennial"]
    assert [answer.name for answer in beside.answers] == ["Perennial", "usual"]
    assert "usual" in beside.by_customer


def test_a_version_costs_its_files_and_the_quickest_of_its_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files of 3 MB and 2^-9 s of a processor are allowed where the limits say just that, and not a hair less."""
    for number in range(2):
        (tmp_path / f"{number}.txt").write_bytes(b"x" * 1_500_000)
    asked = replace(version([]), folder=tmp_path)

    def clock() -> Iterator[float]:
        for taken in [2**-8] * 15 + [2**-9] + [2**-8] * 14:
            yield from (1.0, 1.0 + taken)

    for size, latency, met in ((3.0, 1.953125, [True, True]), (2.999998, 1.953, [False, False])):
        ticks = clock()
        monkeypatch.setattr(time, "thread_time", lambda ticks=ticks: next(ticks))
        costs = conditions.costs(workspace({"size": size, "latency": latency}).promotion, CHURN, asked)
        assert [condition.met for condition in costs] == met
        assert next(ticks, None) is None
    assert [condition.sentence for condition in costs] == [
        "an answer takes 1.95 ms; 1.953 are allowed", "its files have 3.00 MB; 3 are allowed",
    ]  # fmt: skip


def test_an_answer_is_a_customers_row_or_those_of_all_items() -> None:
    """As the service asks for one customer."""
    assert [kind.rows_asked for kind in (CHURN, LIFETIME_VALUE, CROSS_SELL)] == [1, 1, candidates.ALL_ITEMS]
    assert len(OfferModel(("price", "owned"), ("price",), 90, "category", None).columns) == 2
    assert len(model().columns) == 6


def test_the_first_version_answers_and_says_why_it_has_no_grade() -> None:
    """What is missing is told, also where it was never judged."""
    assert conditions.as_the_first(version([], grade="C")) == (True, "there is no champion, and it has grade C")
    told = "there is no champion. Without a grade, Perennial answers"
    assert conditions.as_the_first(version([], grade="none", grade_reason="x")) == (True, f"{told}: x")
    ungraded = version([])
    del ungraded.tags["grade"]
    assert conditions.as_the_first(ungraded) == (True, f"{told}: it was never judged")
