"""A version's card: what a person must know before relying on it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from markup import HOSTILE, section, sound, tables

from features import retrieval
from tests.training.conftest import TRAINED_AT, World
from training import pipelines
from training.backtests import evaluation
from training.kinds import CHURN
from training.records import model_card
from training.records.model_card import Card, Driver
from workspace import settings
from workspace.registry import KINDS
from workspace.storage import CheckFailed

SHOP = settings.parse({"name": "shop", "tables": {"transactions": {"path": "none.parquet"}}}, "the tests")


@pytest.mark.parametrize("kind", KINDS)
def test_a_card_tells_data_windows_figures_limits_drivers_and_consent(kind: str, world: World) -> None:
    """In MLflow and in the home, as a page and as data, with the figures that the run recorded."""
    run = world.tracker.get_run(world.versions[kind].run_id)
    folder = pipelines.card_folder(world.workspace.home_path, kind, "1")
    told = json.loads((folder / "card.json").read_text())
    page = (folder / "card.html").read_text()
    html = sound(page)
    assert tables(section(html, "What drives it"))[0][1][0] == told["drivers"][0]["feature"]
    kept = Path(world.tracker.download_artifacts(run.info.run_id, "card.json"))
    assert json.loads(kept.read_text()) == told
    assert told["tables"]["transactions"] > 10_000
    assert " ".join(told["learnt_from"]) == run.data.params["cutoffs"]
    main = {"churn": "auc", "lifetime_value": "ngini", "cross_sell": "ndcg5"}[kind]
    by_cutoff = [figures[main] for figures in told["figures"].values()]
    assert sum(by_cutoff) / len(by_cutoff) == pytest.approx(run.data.metrics[main])
    assert told["segments"].keys() == {"new", "one-time", "repeat", "top decile"}
    assert told["limits"][0].startswith(f"Grade {run.data.tags['grade']}: ")
    assert 0.2 < sum(driver["share"] for driver in told["drivers"]) <= 1 + 1e-9
    assert all(driver["meaning"] for driver in told["drivers"] if not driver["feature"].startswith("attribute"))
    assert "consent" in told["consent"]
    for text in (
        f"world.{kind}",
        "Limits",
        "What drives it",
        "Consent",
        "Figures by segment",
    ):
        assert text in page


def test_a_card_counts_who_consented(world: World) -> None:
    """By the profile at the as_of; who did not is said to teach nothing."""
    consent = json.loads((pipelines.card_folder(world.workspace.home_path, "churn", "1") / "card.json").read_text())[
        "consent"
    ]
    given = retrieval.rows_at(world.workspace, TRAINED_AT)["profiling_consent"]
    assert f"{int((given == 1).sum()):,} of {len(given):,} customers known consented to profiling" in consent
    assert f"The {int((given == 0).sum()):,} who did not" in consent
    assert "nothing is learnt from what they bought" in consent


def test_a_card_names_only_the_settings_that_somebody_chose() -> None:
    """What was left as it is would be a row of nothing."""
    boosting = {"rounds": None, "num_leaves": 15}
    chosen = {"features": ["purchases", "basket"], "boosting": boosting, "seed": 7}
    assert model_card._made_by(chosen) == "features purchases, basket, num_leaves 15, seed 7"
    assert model_card._made_by(chosen | {"features": [], "boosting": {}}) == "seed 7"


@pytest.mark.parametrize("name", HOSTILE)
def test_whatever_a_shop_calls_an_attribute_is_text(name: str) -> None:
    """Names of attributes, tables, settings and models, without a judged date."""
    refused = evaluation.refused(CHURN, SHOP, CheckFailed(name))
    card = Card(
        name, TRAINED_AT, "EUR", refused, {name: 3}, name, {name: name},
        {"features": [name], "boosting": {}, "seed": 7}, (), {}, {name: {"auc": 0.5}}, [name],
        [Driver(name, name, 0.5)], name, name,
    )  # fmt: skip
    html = sound(model_card.as_html(card))
    assert html.text.count(name) >= 13
    assert tables(section(html, "What drives it")) == [[["feature", "what it is", "share"], [name, name, "50.0%"]]]
    assert name in sound(model_card.as_html(replace(card, drivers=()))).text
