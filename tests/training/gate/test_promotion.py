"""The gate: what a version must be to answer, each reason to stay out, and the way back."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
import yaml
from mlflow.entities.model_registry import ModelVersion

from features import retrieval
from perennial import cli
from tests.training.conftest import TRAINED_AT, World
from training import pipelines, tuning
from training.backtests.backtest import Judged
from training.backtests.offer_backtest import JudgedOffers
from training.gate import paired_difference, promotion, retraining
from training.gate.conditions import Contest
from training.gate.promotion import Verdict
from training.kinds import LIFETIME_VALUE, kind_of
from training.records import judged_windows, tracking
from training.records.versions import Version, version_of
from workspace import registry, sentences
from workspace.settings import Workspace
from workspace.storage import CheckFailed

Said = Callable[[Judged], np.ndarray]


def sharper(cutoff: Judged) -> np.ndarray:
    """What the model had said, moved a little towards what then happened."""
    return 0.85 * cutoff.answers[0].predicted + 0.15 * cutoff.actual


def unchanged(cutoff: Judged) -> np.ndarray:
    return cutoff.answers[0].predicted


def lower(cutoff: Judged) -> np.ndarray:
    """In a better order, at a level that nobody can rely on."""
    return sharper(cutoff) ** 4


def blind_to(segment: str) -> Said:
    """All-knowing of everyone else, and of a segment the same probabilities, the highest given to the lowest."""

    def said(cutoff: Judged) -> np.ndarray:
        rows, swapped = np.flatnonzero(cutoff.segments[segment]), cutoff.actual.copy()
        rising = rows[np.argsort(cutoff.answers[0].predicted[rows])]
        swapped[rising] = cutoff.answers[0].predicted[rising][::-1]
        return swapped

    return said


@dataclass
class Registry:
    """The world's registry; versions made here have the model of version 1 and whatever answers and tags they get."""

    world: World
    kind: str = "churn"
    made: list[ModelVersion] = field(default_factory=list)

    @property
    def name(self) -> str:
        return registry.model_name(self.world.workspace, self.kind)

    @property
    def champion(self) -> str | None:
        champion = registry.champion(self.world.tracker, self.world.workspace, self.kind)
        return champion and str(champion.version)

    def add(
        self, said: Said | None = sharper, experiment: str = "world", settings: Any = None, reverse: bool = False,
        **tags: str,
    ) -> str:  # fmt: skip
        """A version with a run of its own, judged where version 1 was, or nowhere; on the `reverse` of what came."""
        first, tracker = self.world.versions[self.kind], self.world.tracker
        folder = Path(mlflow.artifacts.download_artifacts(run_id=first.run_id, tracking_uri=tracker.tracking_uri))
        happened = [replace(c, actual=1 - c.actual) if reverse else c for c in self.judged]
        judged = [replace(c, answers=(replace(c.answers[0], predicted=said(c)),)) for c in happened if said]
        run = tracker.create_run(tracking.experiment(tracker, experiment), run_name="planted")
        for name, value in (tracker.get_run(first.run_id).data.params | (settings or {})).items():
            tracker.log_param(run.info.run_id, name, value)
        judged_windows.write(self.world.workspace.home_path, run.info.run_id, judged)
        raw = json.loads((folder / "settings.json").read_text())
        raw[self.kind] |= settings or {}
        tracker.log_dict(run.info.run_id, raw, "settings.json")
        own = dict(first.tags) | {"grade": "B", "recipe": f"recipe {len(self.made)}"} | tags
        made = tracker.create_model_version(self.name, first.source, run.info.run_id, tags=own, model_id=first.model_id)
        self.made.append(made)
        return str(made.version)

    @property
    def judged(self) -> list[Any]:
        first = self.world.versions[self.kind]
        return judged_windows.read(self.world.workspace.home_path, str(first.run_id))

    def judge(self, version: str, workspace: Workspace | None = None) -> Verdict:
        return promotion.judge(self.world.tracker, workspace or self.world.workspace, self.kind, version)

    def promote(self, version: str, forced: str = "") -> ModelVersion:
        return promotion.promote(self.world.tracker, self.world.workspace, self.kind, version, forced)

    def admit(self, version: str) -> None:
        promotion.admit(self.world.tracker, self.world.workspace, self.kind, version)

    def rollback(self) -> ModelVersion:
        return promotion.rollback(self.world.tracker, self.world.workspace, self.kind)

    def tags(self, version: str) -> dict[str, str]:
        return dict(self.world.tracker.get_model_version(self.name, version).tags)


@pytest.fixture
def shop(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    """A champion of grade B; afterwards everything is as it was. What is planted is plain to see in few draws."""
    monkeypatch.setattr(paired_difference, "_DRAWS", 40)
    made = Registry(world)
    made.promote(made.add(unchanged))
    yield made
    for alias in ("champion", "challenger"):
        world.tracker.delete_registered_model_alias(made.name, alias)
    for version in made.made:
        world.tracker.delete_model_version(made.name, str(version.version))
    made.promote("1")


@pytest.fixture
def perennial(
    shop: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[str], tuple[int, str]]:
    """Runs a command on the shop; its exit code, and what it said."""
    path = tmp_path / "world.yaml"
    path.write_text(yaml.safe_dump(shop.world.workspace.model_dump(mode="json", exclude_none=True)))

    def run(line: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["perennial", *shlex.split(line), "-c", str(path)])
        code: object = 0
        try:
            cli.main()
        except SystemExit as end:
            code = end.code
        return int(str(code or 0)), "".join(capsys.readouterr())

    return run


def limited(shop: Registry, **limits: Any) -> Workspace:
    workspace = shop.world.workspace
    return workspace.model_copy(update={"promotion": workspace.promotion.model_copy(update=limits)})


def test_a_better_version_may_answer(shop: Registry) -> None:
    """Better beyond noise, as well calibrated, no segment hurt, as good a grade, quick and small; its tags say so."""
    version = shop.add()
    verdict = shop.judge(version)
    assert verdict.passed
    assert verdict.against == ()
    wanted = ["ms; 20 are allowed", "MB; 50 are allowed", "better beyond noise on", "calibration is no worse: ece",
              "no segment loses more than 0.02 of auc", "grade B, the champion's is B"]  # fmt: skip
    assert all(any(text in reason for reason in verdict.grounds) for text in wanted), verdict.grounds
    tags = shop.tags(version)
    assert tags["gate"] == "passed"
    assert tags["gate_reasons"] == sentences.joined(verdict.grounds)


@pytest.mark.parametrize(
    ("version", "limits", "reason"),
    [
        ({"said": unchanged}, {}, r"not better beyond noise on \d+ answers at 2024-04-27: auc .* \(gain \+0.0000"),
        ({"said": lower}, {}, r"calibration is worse: ece"),
        ({"said": blind_to("new")}, {}, r"the segment `new` loses more than 0.02: auc"),
        ({"grade": "C"}, {}, "grade C, the champion's is B"),
        ({}, {"latency": 1e-6}, "an answer takes .* ms; 1e-06 are allowed"),
        ({}, {"size": 1e-6}, "its files have .* MB; 1e-06 are allowed"),
        ({"settings": {"horizon": 61}}, {}, "it answers another question .*: churn.horizon 60 -> 61"),
        ({"rolled_back": "true"}, {}, r"version \d+ was rolled back before"),
    ],
)  # fmt: skip
def test_each_reason_keeps_a_version_out(
    version: dict[str, Any], limits: dict[str, float], reason: str, shop: Registry
) -> None:
    """With that one thing wrong and all else right, that is the one sentence against it, and its tags have it."""
    number = shop.add(**version)
    verdict = shop.judge(number, limited(shop, **limits))
    assert not verdict.passed
    assert len(verdict.against) == 1
    assert re.search(reason, verdict.against[0]), verdict.against
    assert shop.tags(number)["gate"] == "refused"
    assert verdict.against[0] in shop.tags(number)["gate_reasons"]


def test_a_champion_is_not_measured_by_a_grade_that_later_windows_took(shop: Registry) -> None:
    """Where it would get none by what happened since its training, a better version without a grade takes its place."""
    shop.promote(shop.add(unchanged, as_of="2024-04-01"), "a test")
    verdict = shop.judge(shop.add(grade="none"))
    assert verdict.against[-1] == "grade none, the champion's is B"
    verdict = shop.judge(shop.add(grade="none", reverse=True))
    assert verdict.passed, verdict.against
    assert "grade none; by the windows closed since, the champion's B would be none" in verdict.grounds


def test_who_stays_out_is_the_challenger_until_promoted(shop: Registry) -> None:
    """So that it can be scored unseen; once it answers, nobody is."""
    version = shop.add(unchanged)
    assert not shop.judge(version).passed
    challenger = registry.challenger(shop.world.tracker, shop.world.workspace, "churn")
    assert challenger is not None
    assert str(challenger.version) == version
    shop.promote(version, "a test")
    assert registry.challenger(shop.world.tracker, shop.world.workspace, "churn") is None


@pytest.mark.parametrize(
    ("grade", "told"),
    [
        ("none", "there is no champion. Without a grade, Perennial answers: for a reason"),
        ("C", "there is no champion, and it has grade C"),
    ],
)
def test_a_first_version_answers_and_says_its_grade(grade: str, told: str, shop: Registry) -> None:
    """Its training chose who answers; where nothing grades it, the gate says what is missing. It challenges nobody."""
    shop.world.tracker.delete_registered_model_alias(shop.name, "champion")
    verdict = shop.judge(shop.add(grade=grade, grade_reason="for a reason", answers_by="Perennial"))
    assert verdict.passed
    assert told in verdict.grounds
    assert registry.challenger(shop.world.tracker, shop.world.workspace, "churn") is None


def test_the_champion_itself_may_answer(shop: Registry) -> None:
    """Judged again, nothing is computed and nothing changes."""
    assert shop.judge(str(shop.champion)) == Verdict(str(shop.champion), ("it is the champion already",), ())


def test_a_refresh_need_not_be_better(shop: Registry) -> None:
    """The champion's recipe, taught later, is asked at a cutoff after the champion's day; the champion is asked too."""
    champion = shop.add(unchanged, as_of="2024-04-01", recipe="same")
    shop.promote(champion)
    verdict = shop.judge(shop.add(lambda cutoff: cutoff.actual, recipe="same"))
    assert verdict.passed
    assert any("a refresh of the champion, no worse on" in reason for reason in verdict.grounds)
    worse = shop.add(lambda cutoff: 1 - unchanged(cutoff), recipe="same")
    assert any("a refresh of the champion, worse on" in reason for reason in shop.judge(worse).against)
    strict = shop.judge(worse, limited(shop, refresh="better"))
    assert any("not better beyond noise" in reason for reason in strict.against)


def test_a_refresh_before_any_window_has_closed_is_let_in(shop: Registry) -> None:
    """It is the champion's recipe, and nothing tells them apart before the champion's own future can be judged."""
    champion = shop.add(unchanged, as_of="2024-06-01", recipe="same")
    shop.promote(champion)
    verdict = shop.judge(shop.add(unchanged, recipe="same"))
    assert verdict.passed
    assert any("no window since has closed to compare them on" in reason for reason in verdict.grounds)


def test_what_nothing_compares_stays_out(shop: Registry) -> None:
    """Other code at another day: no cutoff at which both can be asked, and the sentence says what to do."""
    shop.promote(shop.add(None, as_of="2024-06-01", code="older"))
    verdict = shop.judge(shop.add())
    assert len(verdict.against) == 1
    assert "no cutoff has closed at which both can be asked" in verdict.against[0]
    assert "train the challenger at --as-of 2024-06-01 too" in verdict.against[0]


def test_the_champions_settings_are_taught_where_it_has_no_answers(shop: Registry) -> None:
    """At a cutoff before its day that it was never judged at: with the same settings, the same answers come out."""
    shop.promote(shop.add(None))
    verdict = shop.judge(shop.add(unchanged))
    assert any("not better beyond noise on 574 answers at 2024-04-27" in reason for reason in verdict.against)
    assert any("(gain +0.0000, 95 % +0.0000 to +0.0000)" in reason for reason in verdict.against)


def test_a_champion_is_asked_from_the_day_it_was_trained_at(shop: Registry) -> None:
    """On that day it had seen nothing of the window, whatever code it was made with; a day later it is too late."""
    shop.promote(shop.add(None, as_of="2024-04-27", code="older"))
    assert any("beyond noise on 574 answers at 2024-04-27" in reason for reason in shop.judge(shop.add()).grounds)
    shop.promote(shop.add(None, as_of="2024-04-28", code="older"), "a test")
    assert "no cutoff has closed at which both can be asked" in shop.judge(shop.add()).against[0]


def test_a_champions_bounds_are_held_to_its_own_interval(world: World) -> None:
    """Asked anew, it states what its own settings say, not the challenger's."""
    made = Version.of(world.tracker, world.workspace, LIFETIME_VALUE, world.versions["lifetime_value"])
    own = made.workspace.lifetime_value.model_copy(update={"interval": 0.5})
    champion = replace(made, workspace=made.workspace.model_copy(update={"lifetime_value": own}))
    asked = Contest(world.workspace, LIFETIME_VALUE, made, champion, lambda _: None)._asked(made.judged[0])
    assert isinstance(asked, Judged)
    assert asked.bounds is not None
    assert asked.bounds.interval == 0.5
    figures = asked.figures(asked.answers[0], np.arange(len(asked.customer_ids)))
    assert (figures["coverage_stated"], 0 < figures["coverage"] <= 1) == (0.5, True)


def contest(world: World, kind: str, rival: Any = None, **tags: str) -> Contest:
    """Version 1 against itself, with these tags, and another model if one is given."""
    made = Version.of(world.tracker, world.workspace, kind_of(kind), world.versions[kind])
    against = replace(made, model=rival or made.model, tags=made.tags | tags)
    return Contest(world.workspace, kind_of(kind), made, against, lambda _: None)


def test_a_champion_is_asked_about_who_is_still_there(world: World) -> None:
    """Somebody was erased since; the answer has its contender's name, and takes every feature that was learnt."""
    made = contest(world, "churn", contender="silence")
    [cutoff] = made.challenger.judged
    asked = made._asked(replace(cutoff, customer_ids=np.array(["erased", *cutoff.customer_ids[1:]], dtype=object)))
    assert isinstance(asked, Judged)
    assert asked.customer_ids.tolist() == cutoff.customer_ids[1:].tolist()
    rows = retrieval.rows_at(world.workspace, cutoff.as_of).set_index("customer_id").loc[list(asked.customer_ids)]
    inputs = made.rival.model.inputs  # type: ignore[union-attr]
    [answer] = asked.answers
    assert answer.name == "silence"
    said = made.rival.model.probability(retrieval.matrix(rows, inputs.packed))  # type: ignore[union-attr]
    np.testing.assert_array_equal(answer.predicted, said)


def test_a_champion_of_features_that_are_gone_is_not_asked(world: World) -> None:
    """Neither as a refresh nor as another one, of customers or of offers."""
    for kind in ("churn", "cross_sell"):
        made = contest(world, kind)
        day, model = str(made.challenger.judged[0].as_of), made.rival.model
        if kind == "churn":
            inputs = model.inputs  # type: ignore[union-attr]
            gone = replace(model, inputs=replace(inputs, packed=(*inputs.packed, "gone")))  # type: ignore[type-var]
        else:
            gone = replace(model, names=(*model.names, "gone"))  # type: ignore[type-var,union-attr]
        for recipe in ("other", made.challenger.tags["recipe"]):
            assert contest(world, kind, gone, as_of=day, recipe=recipe)._rivals_answers() == []


def test_a_champion_is_asked_anew_from_its_day_and_quoted_before(world: World) -> None:
    """What it was judged by at its day's cutoff is an older model's; before that day it has nothing else."""
    made = contest(world, "churn")
    [cutoff] = made.challenger.judged
    [kept] = contest(world, "churn", recipe="other")._rivals_answers()
    assert np.array_equal(kept.answers[0].predicted, cutoff.answers[0].predicted)
    quoted = replace(cutoff, as_of=cutoff.as_of - timedelta(days=1))
    of_both = replace(made.challenger, judged=(quoted, cutoff))
    rival = replace(of_both, tags=of_both.tags | {"as_of": str(cutoff.as_of), "recipe": "other"})
    asked, before = replace(made, challenger=of_both, rival=rival)._rivals_answers()
    assert before is quoted
    assert (asked.as_of, len(asked.answers)) == (cutoff.as_of, 1)


def test_a_champion_of_offers_is_asked_and_taught(world: World) -> None:
    """Asked about who is known to have bought; its settings, taught as on that day, say what they said before."""
    made = contest(world, "cross_sell")
    *_, cutoff = made.challenger.judged
    asked, [taught] = made._asked(cutoff), made._taught([cutoff.as_of])
    for offers in (asked, taught):
        assert isinstance(offers, JudgedOffers)
        assert (offers.as_of, offers.segments.keys()) == (cutoff.as_of, cutoff.segments.keys())
        assert offers.customer_ids.tolist() == cutoff.customer_ids.tolist()
        assert "ndcg5" in offers.by_customer[offers.answers[0].name]
    np.testing.assert_array_equal(taught.answers[0].predicted, cutoff.answers[0].predicted)
    assert not np.array_equal(asked.answers[0].predicted, cutoff.answers[0].predicted)  # type: ignore[union-attr]


def test_a_version_whose_files_are_gone_is_refused_whatever_the_reason(shop: Registry) -> None:
    """Judged or forced, a sentence; the champion stays."""
    champion, source = shop.champion, shop.world.versions["churn"]
    gone = shop.world.tracker.create_model_version(shop.name, "file:///nowhere", source.run_id, tags=dict(source.tags))
    shop.made.append(gone)
    for attempt in (shop.judge, shop.admit, lambda version: shop.promote(version, "because")):
        with pytest.raises(
            CheckFailed, match=r"world.churn version \d+ cannot answer: the files of .*`perennial train`"
        ):
            attempt(str(gone.version))
    assert shop.champion == champion


def test_a_run_of_another_workspace_is_refused(shop: Registry) -> None:
    """A version registered under this name from a run of another one is not this shop's."""
    champion, foreign = shop.champion, shop.add(experiment="elsewhere")
    for attempt in (shop.judge, lambda version: shop.promote(version, "because")):
        with pytest.raises(CheckFailed, match=r"version \d+: run \w+ is of the workspace elsewhere, not of world"):
            attempt(foreign)
    assert shop.champion == champion


def test_other_features_are_refused(shop: Registry) -> None:
    """The service could not ask it."""
    champion, other = shop.champion, shop.add(features_hash="0123456789abcdef")
    for attempt in (shop.judge, lambda version: shop.promote(version, "because")):
        with pytest.raises(
            CheckFailed,
            match=r"it learnt features 0123456789abcdef, this workspace has \w+; go back to the code .* or train again",
        ):
            attempt(other)
    assert shop.champion == champion


def test_a_version_whose_run_is_gone_is_refused(shop: Registry) -> None:
    """Nothing says any more what it was made from."""
    first = shop.world.versions["churn"]
    lost = shop.world.tracker.create_model_version(shop.name, first.source, "0" * 32, tags=dict(first.tags))
    shop.made.append(lost)
    with pytest.raises(CheckFailed, match=r"version \d+: MLflow has no run 0{32} \(any more\)"):
        shop.judge(str(lost.version))


def test_a_champion_that_cannot_answer_keeps_nobody_out(shop: Registry) -> None:
    """Its files are gone; a graded version takes the place, and the verdict says why it was not compared."""
    first = shop.world.versions["churn"]
    broken = shop.world.tracker.create_model_version(shop.name, "file:///nowhere", first.run_id, tags=dict(first.tags))
    shop.made.append(broken)
    shop.world.tracker.set_registered_model_alias(shop.name, "champion", broken.version)
    verdict = shop.judge(shop.add())
    assert (verdict.passed, verdict.stays) == (True, "")
    assert any("the champion cannot answer: world.churn version" in reason for reason in verdict.in_favour)
    assert "nothing compares them, and it has grade B" in verdict.in_favour


def test_a_champion_of_other_features_is_compared(shop: Registry) -> None:
    """The service could not ask it any more, but what it was judged by is kept."""
    other = shop.add(unchanged, features_hash="0123456789abcdef")
    shop.world.tracker.set_registered_model_alias(shop.name, "champion", other)
    verdict = shop.judge(shop.add())
    assert verdict.passed, verdict.against
    assert any("better beyond noise on" in reason for reason in verdict.in_favour)


def test_a_version_keeps_the_reason_that_it_came_in_by_last(shop: Registry) -> None:
    """Let in by the gate, it has none, whatever it once had."""
    first, second = str(shop.champion), shop.add()
    shop.promote(second, "we know better")
    shop.promote(first)
    assert shop.tags(second)["forced"] == "we know better"
    promotion.promote(shop.world.tracker, shop.world.workspace, "churn", second)
    assert "forced" not in shop.tags(second)


def test_rollback_goes_back_step_by_step(shop: Registry) -> None:
    """To the champion before, and to the one before that; who was rolled back is let in by no gate again."""
    first, second, third = str(shop.champion), shop.add(), shop.add()
    shop.promote(second)
    shop.promote(third)
    assert str(shop.rollback().version) == shop.champion == second
    assert shop.tags(third)["rolled_back"] == "true"
    assert "rolled back before" in shop.judge(third).against[0]
    assert str(shop.rollback().version) == shop.champion == first
    shop.promote(third, "we looked again")
    assert "rolled_back" not in shop.tags(third)
    assert shop.tags(third)["forced"] == "we looked again"
    assert str(shop.rollback().version) == shop.champion == first


def test_reasons_fit_into_a_tag_of_mlflow() -> None:
    """Which keeps 5,000 characters; each reason is a sentence."""
    assert promotion._told(["It is slow", "It is large"]) == "It is slow. It is large"
    assert promotion._told(["x" * 5000, "y"]) == "x" * 4900


def test_rollback_of_versions_that_took_each_others_place_ends(shop: Registry) -> None:
    """Forced, taken back and forced again, none of them is what was before."""
    first, second = shop.add(rolled_back="true"), shop.add(rolled_back="true")
    for version, other in ((first, second), (second, first)):
        shop.world.tracker.set_model_version_tag(shop.name, version, "promoted_over", other)
    for champion in (second, shop.add(promoted_over=first)):
        shop.world.tracker.set_registered_model_alias(shop.name, "champion", champion)
        with pytest.raises(CheckFailed, match=f"version {champion} took no other's place: there is nothing to go back"):
            shop.rollback()
    third, fourth = shop.add(), shop.add()
    for version in (third, fourth, third):
        shop.promote(version)
    assert str(shop.rollback().version) == fourth
    with pytest.raises(CheckFailed, match=f"version {fourth} took no other's place"):
        shop.rollback()
    assert "rolled_back" not in shop.tags(fourth)


def test_rollback_to_what_cannot_answer_is_refused(shop: Registry) -> None:
    """The one before has lost its files, or there is none before: the champion stays."""
    first = shop.world.versions["churn"]
    broken = shop.world.tracker.create_model_version(shop.name, "file:///nowhere", first.run_id, tags=dict(first.tags))
    shop.made.append(broken)
    champion = shop.add(promoted_over=str(broken.version))
    shop.world.tracker.set_registered_model_alias(shop.name, "champion", champion)
    with pytest.raises(CheckFailed, match="cannot answer"):
        shop.rollback()
    assert shop.champion == champion
    alone = shop.add()
    shop.world.tracker.set_registered_model_alias(shop.name, "champion", alone)
    told = (
        f"version {alone} took no other's place: there is nothing to go back to; a version that was trained at"
        " 2024-07-01 or later takes its place by `perennial promote churn -c FILE --version N --force REASON`"
    )
    with pytest.raises(CheckFailed, match=told):
        shop.rollback()


def test_a_kind_may_be_written_with_a_dash(world: World) -> None:
    """Every entry from Python takes `lifetime-value` for `lifetime_value`; what is no kind of model is refused."""
    tracker, workspace = world.tracker, world.workspace
    assert registry.model_name(workspace, "cross-sell") == "world.cross_sell"
    reigning = registry.champion(tracker, workspace, "lifetime-value")
    assert reigning is not None
    number = str(reigning.version)
    assert promotion.judge(tracker, workspace, "lifetime-value").in_favour == ("it is the champion already",)
    assert str(promotion.promote(tracker, workspace, "lifetime-value", number).version) == number
    assert tracking.training_run(tracker, f"world.lifetime-value/{number}").info.run_id == reigning.run_id
    with pytest.raises(CheckFailed, match="takes its place by `perennial promote lifetime-value -c FILE"):
        promotion.rollback(tracker, workspace, "lifetime_value")
    for kinds in (["cross_sell"], ["lifetime_value"]):
        dashed = [kind.replace("_", "-") for kind in kinds]
        assert pipelines.cutoffs(workspace, TRAINED_AT, dashed) == pipelines.cutoffs(workspace, TRAINED_AT, kinds)
        assert retraining.due(tracker, workspace, dashed[0], TRAINED_AT, False) is None
        assert tuning.cutoffs(workspace, dashed[0], TRAINED_AT) == tuning.cutoffs(workspace, kinds[0], TRAINED_AT)
    with pytest.raises(ValueError, match="'value' is no kind of model; there are churn, lifetime_value, cross_sell"):
        registry.model_name(workspace, "value")


def test_an_unknown_version_is_refused(shop: Registry) -> None:
    """The latest is the eleventh, not the ninth; what is not there is named."""
    for version in ("99", "0", "latest"):
        with pytest.raises(CheckFailed, match=f"world.churn has no version {version}; there are 1"):
            shop.promote(version)
    while len(shop.made) < 11:
        shop.made.append(shop.world.tracker.create_model_version(shop.name, "file:///nowhere"))
    latest = version_of(shop.world.tracker, shop.world.workspace, "churn", None)
    assert str(latest.version) == str(shop.made[-1].version)


def test_the_command_says_why_and_ends_with_1(shop: Registry, perennial: Callable[[str], tuple[int, str]]) -> None:
    """Refused: both sides and exit 1. Forced: in, with the reason kept, also when asked again. Taken back: the one
    before, and that of the first is nobody."""
    before, version = shop.champion, shop.add(unchanged)
    code, said = perennial("promote churn")
    assert (code, shop.champion) == (1, before)
    assert f"world.churn version {version} stays out" in said
    assert "  against   not better beyond noise" in said
    assert "  for       calibration is no worse" in said
    code, said = perennial("promote churn --force 'we know better'")
    assert (code, shop.champion) == (0, version)
    assert "forced    we know better" in said
    assert perennial("promote churn")[0] == 0
    assert shop.tags(version)["forced"] == "we know better"
    assert perennial("promote churn --force ''")[0] == 2
    code, said = perennial("rollback churn")
    assert (code, shop.champion) == (0, before)
    assert f"world.churn version {before} is champion again" in said


def test_a_version_of_before_the_champion_answers_about_the_days_before(
    shop: Registry, perennial: Callable[[str], tuple[int, str]]
) -> None:
    """By hand as in a run: the champion stays, and so does the challenger; a reason is kept as ever."""
    champion, challenger = shop.champion, shop.add(unchanged)
    shop.judge(challenger)
    early, rolled_back = (shop.add(unchanged, as_of="2024-06-30", **tags) for tags in ({}, {"rolled_back": "true"}))
    code, said = perennial(f"promote churn --version {early}")
    admitted = f"answers about days before the champion's (version {champion} stays champion)"
    assert (code, f"world.churn version {early} {admitted}\n" in said) == (0, True), said
    assert "the champion was trained later, at 2024-07-01, and knows what this one is judged by" in said
    assert "nothing compares them, and it has grade B" in said
    assert perennial(f"promote churn --version {rolled_back}")[0] == 1
    assert "promoted_before" not in shop.tags(rolled_back)
    code, said = perennial(f"promote churn --version {rolled_back} --force 'we looked again'")
    assert (code, f"world.churn version {rolled_back} {admitted}\n" in said) == (0, True), said
    tags = shop.tags(rolled_back)
    assert (tags["promoted_before"], tags["forced"], "rolled_back" in tags) == (champion, "we looked again", False)
    assert shop.tags(early)["promoted_before"] == shop.champion == champion
    unseen = registry.challenger(shop.world.tracker, shop.world.workspace, "churn")
    assert unseen is not None
    assert str(unseen.version) == challenger


def test_a_version_of_the_question_that_is_asked_now_takes_the_champions_place(
    shop: Registry, perennial: Callable[[str], tuple[int, str]]
) -> None:
    """By the bar of a first version, and it answers from then on, also where the champion was trained later."""
    asked = "--set churn.horizon=30"
    made: dict[str, Any] = {"settings": {"horizon": 30}, "as_of": "2024-06-30", "sales": "", "grade": "C"}
    slow, version = (shop.add(None, **made) for _ in range(2))
    code, said = perennial(f"promote churn --version {slow} {asked} --set promotion.latency=0.000001")
    assert (code, said.count("  against ")) == (1, 1)
    code, said = perennial(f"promote churn --version {version} {asked}")
    assert (code, f"world.churn version {version} is champion\n" in said) == (0, True), said
    assert "  for       the question changed: churn.horizon 60 -> 30\n" in said
    assert "  for       it is judged as the first of its question, and it has grade C\n" in said
    churn = shop.world.workspace.churn.model_copy(update={"horizon": 30})
    workspace = shop.world.workspace.model_copy(update={"churn": churn})
    answers = registry.answering(shop.world.tracker, workspace, "churn", TRAINED_AT)
    assert answers is not None
    assert str(answers.version) == shop.champion == version


def test_a_challenger_that_is_let_in_for_earlier_days_is_none_any_more(shop: Registry) -> None:
    """It was judged before the champion of now was trained."""
    early = shop.add(unchanged, as_of="2024-06-30")
    shop.world.tracker.set_registered_model_alias(shop.name, "challenger", early)
    shop.admit(early)
    assert "forced" not in shop.tags(early)
    assert registry.challenger(shop.world.tracker, shop.world.workspace, "churn") is None
