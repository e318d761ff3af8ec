"""Answers of shops whose backtests show little: base rates where nobody came back, no amount that is too far off."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from builders import make_transactions, write_workspace
from registries import new_registry
from typer.testing import CliRunner
from workspaces import AS_OF, run_line, scored

from features import retrieval, snapshot
from ingest import intake
from perennial import cli, month
from perennial.month_page import Summary
from serving import scoring
from serving.lists import churn_risk
from serving.lists.filters import NoSuchFilter
from serving.lists.risk_groups import risk_groups
from serving.predictor import Predictor
from serving.terms import Terms
from tests.serving.conftest import Shop
from training import pipelines
from training.gate import reproduction
from training.gate.reproduction import Recorded
from workspace import registry, settings, storage
from workspace.settings import Workspace

CUSTOMERS, CAME_BACK = 300, 4


def bought_once(folder: Path, days: int) -> Workspace:
    """So many customers over so many days until `AS_OF`, of whom a handful came back a month later."""
    first = pd.date_range(
        end=pd.Timestamp(AS_OF) - pd.Timedelta(days=1), periods=CUSTOMERS, freq=f"{days * 24 // 300}h"
    )
    rows = [(f"c{number:03}", day, 20.0 + number % 7) for number, day in enumerate(first)]
    rows += [(f"c{number:03}", first[number] + pd.Timedelta(days=30), 30.0) for number in range(260, 260 + CAME_BACK)]
    short = {"churn": {"horizon": 60}, "lifetime_value": {"horizon": 60}, "training": {"cutoffs": 3}}
    return settings.read(write_workspace(folder, make_transactions(rows), **short))


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Workspace, pd.DataFrame]]:
    folder = tmp_path_factory.mktemp("once")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", new_registry(folder / "mlflow.db"))
        workspace = bought_once(folder, 600)
        yield workspace, run_line(workspace)


def test_a_shop_where_nobody_comes_back_has_base_rates(once: tuple[Workspace, pd.DataFrame]) -> None:
    """What followed the last closed window is said of everybody, under its name, with no grade and no order."""
    workspace, scores = once
    for kind in ("churn", "lifetime_value"):
        champion = registry.champion(registry.client(), workspace, kind)
        assert champion is not None
        assert (champion.tags["answers_by"], champion.tags["grade"]) == ("base rate", "none")
    scored = scores[scores["not_scored_reason"].isna()]
    assert len(scored) > 100
    assert len(set(scored["churn_probability"])) == 1
    assert scored["churn_probability"].iloc[0] > 0.9
    assert len(set(scored["lifetime_value"])) == 1
    assert 0 < scored["lifetime_value"].iloc[0] < 5
    assert (scored["lifetime_value_low"] <= scored["lifetime_value"]).all()
    assert scored["churn_percentile"].isna().all()
    assert scored["p_alive"].isna().all()


def test_a_base_rate_gives_no_reasons_and_claims_no_order(
    once: tuple[Workspace, pd.DataFrame],
) -> None:
    """A number that is the same for all says nothing of one customer: list and terms say so, and nobody gets a why."""
    workspace = once[0]
    predictor = Predictor.load(workspace, registry.client())
    listed = churn_risk.churn_risk(predictor, AS_OF, top=1000)
    assert len(listed) > 100
    assert set(listed["reasons"]) == set(listed["value_reasons"]) == {""}
    alike = "base rate: the same number for everybody, so no order is claimed"
    terms = Terms.at(predictor, AS_OF)
    assert terms.to_json()["answers_by"] == {"churn": alike, "lifetime_value": alike}
    assert {f"risk: answered by {alike}", f"value: answered by {alike}"} <= set(terms.sentences(AS_OF))


def test_a_base_rate_is_on_its_card_and_can_be_built_again(once: tuple[Workspace, pd.DataFrame]) -> None:
    """The run, the version and the card say the same; rebuilt it says the very same of everybody."""
    workspace, tracker = once[0], registry.client()
    for kind in ("churn", "lifetime_value"):
        card = json.loads((pipelines.card_folder(workspace.home_path, kind, "1") / "card.json").read_text())
        assert card["answers_by"] == "base rate"
        recorded = Recorded.of(tracker, f"{registry.model_name(workspace, kind)}/1")
        assert tracker.get_run(recorded.run_id).data.params["answers_by"] == "base rate"
        assert reproduction.apart(recorded, reproduction.rebuild(recorded)) == 0


def test_a_run_and_a_person_let_the_first_version_answer_alike(once: tuple[Workspace, pd.DataFrame]) -> None:
    """Without a grade, by the gate and not past it; a person is told what is missing, and neither command fails."""
    workspace, tracker = once[0], registry.client()
    name = registry.model_name(workspace, "churn")
    tracker.delete_registered_model_alias(name, "champion")
    summary = Summary(workspace.name, AS_OF, datetime(2030, 1, 1, tzinfo=UTC), workspace.home_path, lambda _: None, 1)
    month.decide(workspace, "churn", "1", "there is no champion yet", lambda _: None, summary, "-c shop.yaml")
    assert [decision.outcome for decision in summary.decisions] == ["promoted"]
    assert [alert.about for alert in summary.alerts] == ["churn version 1 answers without a grade"]
    tracker.delete_registered_model_alias(name, "champion")
    path = str(workspace.home_path.parent / "shop.yaml")
    promoted = CliRunner().invoke(cli.app, ["promote", "churn", "-c", path])
    assert promoted.exit_code == 0, promoted.output
    assert "Without a grade, base rate answers" in promoted.output
    champion = registry.champion(tracker, workspace, "churn")
    assert champion is not None
    assert "forced" not in champion.tags


def test_where_no_window_has_closed_nobody_is_scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without anything that followed there is no rate either; the reason is that of before."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", new_registry(tmp_path / "mlflow.db"))
    workspace = bought_once(tmp_path, 100)
    intake.ingest(workspace, datetime(2030, 1, 1, tzinfo=UTC))
    snapshot.snapshot(workspace, pipelines.cutoffs(workspace, AS_OF))
    with pytest.raises(storage.CheckFailed, match="no window has closed that 10 customers could leave in"):
        pipelines.train(retrieval.apply(workspace), workspace, registry.client(), AS_OF)


@pytest.fixture
def withheld(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Marks champions as a training marks what is too far off; afterwards all is as it was, the scores too."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", shop.tracking_uri)
    tracker, made = registry.client(), []

    def mark(*kinds: str) -> Predictor:
        for kind in kinds:
            champion = registry.champion(tracker, shop.workspace, kind)
            assert champion is not None
            made.append((champion.name, str(champion.version)))
            tracker.set_model_version_tag(*made[-1], "withheld", f"no amount is shown: a test of {kind}")
        return Predictor.load(shop.workspace, tracker)

    yield mark
    for name, version in made:
        tracker.delete_model_version_tag(name, version, "withheld")
    scoring.score(Predictor.load(shop.workspace, tracker), AS_OF)


def kept(workspace: Workspace, as_of: date) -> Mapping[str, pd.DataFrame]:
    home = workspace.home_path
    return {
        "scores": pd.read_parquet(storage.scores_path(home, as_of)),
        "offers": pd.read_parquet(storage.offers_path(home, as_of)),
    }


AMOUNTS = {
    "churn": ["churn_probability", "churn_band", "value_at_risk"],
    "lifetime_value": [
        "lifetime_value", "lifetime_value_low", "lifetime_value_high", "expected_purchases", "value_at_risk",
    ],
}  # fmt: skip


@pytest.mark.parametrize("kind", AMOUNTS)
def test_withheld_amounts_are_null_and_the_order_stays(kind: str, shop: Shop, withheld: Any) -> None:
    """In the batch and for a single customer; nobody is any less scored, and the list goes by what is left."""
    before = kept(shop.workspace, AS_OF)["scores"]
    predictor = withheld(kind)
    after = scored(predictor, AS_OF)
    assert list(after.columns) == list(before.columns)
    assert after[AMOUNTS[kind]].isna().all(axis=None)
    untouched = [name for name in before.columns if name not in AMOUNTS[kind]]
    pd.testing.assert_frame_equal(after[untouched], before[untouched], check_dtype=False)
    single = predictor.score(["c0050"], AS_OF, churn_risk.vectors(shop.workspace, AS_OF, ["c0050"]), 30)
    assert all(single[name][0] is None or np.isnan(single[name][0]) for name in AMOUNTS[kind])
    listed = churn_risk.churn_risk(predictor, AS_OF, top=5)
    risk = after[after["customer_id"].isin(churn_risk.churn_risk(predictor, AS_OF, top=1000)["customer_id"])]
    assert listed["churn_percentile"].tolist() == risk["churn_percentile"].nlargest(5).tolist()
    assert "  -  " in churn_risk.as_text(listed).splitlines()[2]
    assert any("no amount is shown: a test" in note for note in churn_risk.about(Terms.at(predictor, AS_OF), AS_OF))


def test_offers_keep_their_ranks_without_probabilities(shop: Shop, withheld: Any) -> None:
    """The same items in the same order."""
    before = kept(shop.workspace, AS_OF)["offers"]
    scoring.score(withheld("cross_sell"), AS_OF)
    after = kept(shop.workspace, AS_OF)["offers"]
    assert after["probability"].isna().all()
    pd.testing.assert_frame_equal(after.drop(columns="probability"), before.drop(columns="probability"))


def test_nobody_is_chosen_by_what_is_withheld(shop: Shop, withheld: Any) -> None:
    """A filter by value, by band, or groups by risk are refused with the reason, rather than empty."""
    predictor = withheld("churn", "lifetime_value")
    scoring.score(predictor, AS_OF)
    with pytest.raises(NoSuchFilter, match="min_value, max_value: nobody's is shown: no amount is shown"):
        churn_risk.churn_risk(predictor, AS_OF, min_value=10)
    with pytest.raises(NoSuchFilter, match="band: nobody's is shown: no amount is shown"):
        churn_risk.churn_risk(predictor, AS_OF, band="high")
    with pytest.raises(storage.CheckFailed, match="which is not shown: no amount is shown"):
        risk_groups(predictor, AS_OF)
