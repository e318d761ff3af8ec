"""Which version answers about a day: one that cannot have seen what came after it, of the question that is asked."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import NamedTuple

import mlflow
import pandas as pd
import pytest
from workspaces import AS_OF

from perennial import cli, month
from perennial.month_page import Summary
from serving.http.answers import Published
from serving.predictor import Predictor
from tests.serving.conftest import NOW, Shop
from workspace import predictions, registry, settings, storage
from workspace.settings import Workspace

EARLIER, LATER = AS_OF - timedelta(days=30), AS_OF + timedelta(days=30)
Command = Callable[..., tuple[int, str]]


class Home(NamedTuple):
    """A copy of the shop that a test may change, with a registry of its own, and its workspace file."""

    workspace: Workspace
    config: Path
    tracker: mlflow.MlflowClient

    def trained(self, kind: str, version: str, as_of: date) -> None:
        self.tracker.set_model_version_tag(f"small.{kind}", version, "as_of", str(as_of))

    def another(self, kind: str, as_of: date, **tags: str) -> str:
        """The same model once more, as if it had been trained at `as_of`; returns its number."""
        first = self.tracker.get_model_version(f"small.{kind}", "1")
        tags = {**first.tags, "as_of": str(as_of), **tags}
        del tags["sales"]
        made = self.tracker.create_model_version(
            first.name, first.source, first.run_id, tags=tags, model_id=first.model_id
        )
        return str(made.version)

    def take_place(self, kind: str, earlier: str, later: str = "1") -> None:
        self.tracker.set_model_version_tag(f"small.{kind}", later, "promoted_over", earlier)


@pytest.fixture
def home(shop: Shop, tmp_path: Path) -> Iterator[Home]:
    shutil.copytree(shop.workspace.home_path, tmp_path / "home")
    shutil.copy(shop.tracking_uri.removeprefix("sqlite:///"), tmp_path / "mlflow.db")
    config = Path(shop.workspace.home_path).parent / "workspace.yaml"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
        workspace = settings.read(config, home=tmp_path / "home")
        yield Home(workspace, config, registry.client())


@pytest.fixture
def perennial(home: Home, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """Runs a command on the home; its exit code, and what it said."""

    def run(*words: object) -> tuple[int, str]:
        line = [*map(str, words), "-c", str(home.config), "--home", str(home.workspace.home_path)]
        monkeypatch.setattr(sys, "argv", ["perennial", *line])
        code: object = 0
        try:
            cli.main()
        except SystemExit as end:
            code = end.code
        return int(str(code or 0)), "".join(capfd.readouterr())

    return run


def test_the_past_is_not_scored_with_hindsight(home: Home, perennial: Command) -> None:
    """The champion knows a month that the as_of could not: nothing is written, and the sentence says what to type."""
    code, said = perennial("score", "--as-of", EARLIER)
    assert code == 1
    assert f"small.churn/1 was trained at {AS_OF}, so it knows what {EARLIER} could not" in said
    assert f"`perennial train churn -c FILE --as-of {EARLIER}` makes one" in said
    assert not storage.scores_path(home.workspace.home_path, EARLIER).exists()


def test_the_newest_that_had_not_seen_it_answers(home: Home, perennial: Command) -> None:
    """Of those that were champion once; not one that was only trained, rolled back, or is of another question. The log
    tells when each was trained, and what cannot be offered is said."""
    for kind in ("churn", "lifetime_value"):
        numbers = [home.another(kind, EARLIER - timedelta(days=days)) for days in (40, 20, 10, 5)]
        long_ago, fits, rolled_back, _only_trained = numbers
        home.take_place(kind, long_ago, fits)
        home.take_place(kind, rolled_back)
        home.take_place(kind, fits, rolled_back)
        home.tracker.set_model_version_tag(f"small.{kind}", rolled_back, "rolled_back", "true")
    code, said = perennial("score", "--as-of", EARLIER)
    assert code == 0, said
    assert "nothing is offered: small.cross_sell/1 was trained at" in said
    scores = pd.read_parquet(storage.scores_path(home.workspace.home_path, EARLIER))
    assert set(scores["churn_model"]) == {f"small.churn/{fits}"}
    assert set(scores["lifetime_value_model"]) == {f"small.lifetime_value/{fits}"}
    assert scores["cross_sell_model"].isna().all()
    logged = predictions.read(home.workspace)
    logged = logged[logged["as_of"] == pd.Timestamp(EARLIER)]
    assert set(logged["churn_trained"].dt.date) == {EARLIER - timedelta(days=20)}
    assert Predictor.load(home.workspace, home.tracker, AS_OF).versions["churn"] == "small.churn/1"


def test_a_run_for_an_earlier_day_leaves_the_champion_where_it_is(home: Home) -> None:
    """What it trains answers about that day; about today the champion still does, which knows more."""
    said: list[str] = []
    summary = Summary("small", EARLIER, NOW, home.workspace.home_path / "reports", said.append, 7)
    for kind in registry.KINDS:
        number = home.another(kind, EARLIER)
        month.decide(home.workspace, kind, number, "it is due", said.append, summary, "-c FILE")
    assert [decision.outcome for decision in summary.decisions] == ["answers about days before the champion's"] * 3
    by_day = [Predictor.load(home.workspace, home.tracker, day).versions for day in (EARLIER, AS_OF)]
    assert [{number.rpartition("/")[2] for number in versions.values()} for versions in by_day] == [{"2"}, {"1"}]
    assert registry.challenger(home.tracker, home.workspace, "churn") is None


def test_a_version_that_waits_is_named(home: Home, perennial: Command) -> None:
    """Trained for the day, but never promoted: the refusal says how it gets to answer."""
    number = home.another("churn", EARLIER)
    code, said = perennial("score", "--as-of", EARLIER)
    assert code == 1
    assert f"version {number} would, `perennial promote churn -c FILE --version {number}`" in said


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ("churn.horizon=30", "small.churn/1 answers another question than this workspace asks (churn.horizon 60, asked"
         " is 30)"),
        ("churn.kind=event", "churn.kind inactivity, asked is event"),
        ("lifetime_value.measure=margin", "small.lifetime_value/1 answers another question"),
        ("cross_sell.level=item", "cross_sell.level category, asked is item"),
    ],
)  # fmt: skip
def test_another_question_is_not_answered(changed: str, said: str, home: Home, perennial: Command) -> None:
    """Two homes share a registry by one name: a model of one's horizon says nothing of the other's."""
    for command in ("score", "publish"):
        if command == "score" or not changed.startswith("cross_sell"):
            code, told = perennial(command, "--as-of", AS_OF, "--set", changed)
            assert (code, said in told) == (1, True), told


def test_how_a_model_is_made_and_what_is_offered_are_no_question(home: Home) -> None:
    """Boosting, shown features, the number of offers and their stock change without a training."""
    more = {"churn": {"features": ("purchases",)}, "cross_sell": {"top": 3, "exclude": ("tea",), "kind": "new"}}
    groups = {name: getattr(home.workspace, name).model_copy(update=values) for name, values in more.items()}
    assert len(Predictor.load(home.workspace.model_copy(update=groups), home.tracker, AS_OF).versions) == 3


def test_another_shops_model_does_not_answer(home: Home, perennial: Command) -> None:
    """Of the same name, in the same registry, with other data: half of the lines are enough to tell."""
    (transactions,) = home.workspace.tables.transactions.path or ()
    path = home.workspace.home_path.parent / "other.parquet"
    pd.read_parquet(transactions).query("customer_id < 'c0200'").to_parquet(path)
    other = ("--set", f"tables.transactions.path={path}")
    assert perennial("ingest", *other)[0] == 0
    code, said = perennial("score", "--as-of", AS_OF, *other)
    assert code == 1
    assert f"small.churn/1 learnt from other data than {home.workspace.home_path} has: of the 90 days before" in said


def test_another_shop_of_its_size_is_told_by_its_days(home: Home, perennial: Command) -> None:
    """As many lines, customers and as much money, only that the last 90 days were the other way round."""
    (transactions,) = home.workspace.tables.transactions.path or ()
    path, lines = home.workspace.home_path.parent / "other.parquet", pd.read_parquet(transactions)
    end = pd.Timestamp(AS_OF, tz=lines["occurred_at"].dt.tz)
    lately = lines["occurred_at"].between(end - pd.Timedelta(days=90), end, inclusive="left")
    mirrored = end - pd.Timedelta(days=90) + (end - lines["occurred_at"])
    lines["occurred_at"] = lines["occurred_at"].where(~lately, mirrored)
    lines.to_parquet(path)
    other = ("--set", f"tables.transactions.path={path}")
    assert perennial("ingest", *other)[0] == 0
    code, said = perennial("score", "--as-of", AS_OF, *other)
    assert code == 1
    assert f"of the 90 days before {AS_OF} it knew as much was sold, but on other days" in said


@pytest.mark.parametrize(
    "words",
    [
        ("score", "--as-of", AS_OF), ("publish", "--as-of", AS_OF), ("list", "churn-risk"), ("churn", "segments"),
        ("export", "scores", "--out", "x.csv"), ("export", "offers", "--out", "x.csv"), ("monitor", "--as-of", AS_OF),
        ("serve", "--check"),
    ],
    ids=lambda words: " ".join(map(str, words[:2])),
)  # fmt: skip
def test_nothing_is_told_with_hindsight(
    words: tuple[object, ...], home: Home, perennial: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a champion from the future has scored before is neither listed, exported, published nor served."""
    monkeypatch.chdir(tmp_path)
    for kind in registry.KINDS:
        home.trained(kind, "1", LATER)
    code, said = perennial(*words)
    assert code == 1
    assert "small.churn/1" in said
    assert f"trained at {LATER}, so it knows what {AS_OF} could not" in said
    assert not (tmp_path / "x.csv").exists()


def test_the_service_does_not_answer_with_hindsight(home: Home) -> None:
    """About the published as_of; it says so as it says that there is no champion."""
    for kind in registry.KINDS:
        home.trained(kind, "1", LATER)
    with pytest.raises(registry.Unfit, match=f"trained at {LATER}, so it knows what {AS_OF} could not"):
        Published.of(home.workspace, "stale")


def test_a_service_that_starts_again_answers_as_before(home: Home) -> None:
    """A version promoted since answers from the next publication on: lists and percentiles are not of it."""
    home.tracker.set_registered_model_alias("small.churn", "champion", home.another("churn", AS_OF))
    assert Published.of(home.workspace, "stale").predictor.versions["churn"] == "small.churn/1"


def test_a_challenger_from_the_future_is_not_scored(home: Home) -> None:
    """It is told, and keeps nobody from being scored; one of another kind still scores unseen."""
    said: list[str] = []
    number = home.another("churn", LATER)
    home.tracker.set_registered_model_alias("small.churn", "challenger", number)
    assert Predictor.shadow(home.workspace, home.tracker, AS_OF, said.append) is None
    assert said == [
        f"a challenger is not scored: small.churn/{number} was trained at {LATER}, so it knows what {AS_OF} could not"
    ]
    home.tracker.set_registered_model_alias("small.lifetime_value", "challenger", home.another("lifetime_value", AS_OF))
    shadow = Predictor.shadow(home.workspace, home.tracker, AS_OF, said.append)
    assert shadow is not None
    assert (shadow.versions["churn"], shadow.versions["lifetime_value"]) == ("small.churn/1", "small.lifetime_value/2")


def test_a_list_is_of_the_models_that_scored(home: Home, perennial: Command) -> None:
    """Promoted since, a version has made none of the numbers: neither reasons nor the log are in its name."""
    number = home.another("churn", AS_OF)
    home.tracker.set_registered_model_alias("small.churn", "champion", number)
    code, said = perennial("list", "churn-risk", "--top", 3)
    assert code == 0, said
    logged = predictions.read(home.workspace).query("via == 'list'")
    assert set(logged["churn_model"]) == {"small.churn/1"}
    assert set(logged["churn_trained"].dt.date) == {AS_OF}
