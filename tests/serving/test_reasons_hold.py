"""Whatever a model thinks, no reason is wrong: every sentence that could be said, of real sets and a made-up shop."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import claims
import numpy as np
import pandas as pd
import pytest
from datasets import dataset
from numpy.typing import NDArray

from features import snapshot
from features.retrieval import matrix, rows_at
from features.snapshot import NOT_FOR_MODELS, customer_features
from ingest import intake
from serving.card import card
from serving.norms import Norms
from serving.predictor import SCORE_COLUMNS, Predictor
from serving.reasons import Explainer
from simulation.world import simulate
from training.models.churn_model import ChurnModel
from training.models.customer_model import Inputs
from training.models.leaving import Leaving
from training.models.value_model import ValueModel
from workspace import settings
from workspace.settings import Workspace

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


class Set(NamedTuple):
    """A data set, its workspace, the day to stand at, and which of its customers are enough."""

    data: str
    config: str
    as_of: date
    where: str


SETS = {
    "online_retail": Set("online_retail_ii", "online_retail", date(2011, 3, 1), "hash(customer_id) % 24 = 0"),
    "complete_journey": Set(
        "completejourney_partial", "complete_journey", date(2017, 11, 1), "hash(household_id) % 10 = 0"
    ),
    "cdnow": Set("cdnow", "cdnow", date(1998, 1, 1), "hash(customer_id) % 100 = 0"),
}


@dataclass(frozen=True)
class Telling(ChurnModel):
    """A churn model with contributions of our making."""

    parts: tuple[float, ...] = ()

    def contributions(self, vectors: NDArray[np.float32]) -> tuple[tuple[str, ...], NDArray[np.floating]]:
        return self.explained, np.broadcast_to(self.parts, (len(vectors), len(self.explained)))


@dataclass(frozen=True)
class TellingOfValue(ValueModel):
    """A value model with contributions of our making."""

    parts: tuple[float, ...] = ()

    def contributions(self, vectors: NDArray[np.float32]) -> tuple[tuple[str, ...], NDArray[np.floating]]:
        return self.explained, np.broadcast_to(self.parts, (len(vectors), len(self.explained)))


@dataclass
class Case:
    """A shop's customers at an as_of, as features and as they are counted from their rows."""

    workspace: Workspace
    as_of: date
    rows: pd.DataFrame
    shop: claims.Shop

    @classmethod
    def of(cls, workspace: Workspace, as_of: date) -> Case:
        intake.ingest(workspace, datetime(2030, 1, 1, tzinfo=UTC))
        snapshot.snapshot(workspace, [as_of])
        return cls(workspace, as_of, rows_at(workspace, as_of), claims.shop(workspace, as_of))

    @property
    def explainer(self) -> Explainer:
        names = tuple(feature.name for feature in customer_features(self.workspace))
        inputs = Inputs(names, tuple(name for name in names if name not in NOT_FOR_MODELS))
        nothing: Any = None
        churn = Telling(inputs, nothing, Leaving.of(self.workspace.churn), 90, 365)
        value = TellingOfValue(inputs, nothing, 90, 0.0, 90, {})
        predictor = Predictor(self.workspace, churn, value, None, {})
        return Explainer(predictor, Norms.at(self.workspace, self.as_of))

    def told(self) -> Iterator[tuple[str, str]]:
        """Every (customer, sentence) that any model could make us say: each theme alone, for and against."""
        explainer = self.explainer
        bought = self.rows[self.rows["n_purchases"] > 0]
        vectors = matrix(bought, explainer.packed)
        for kind, ask, signs in (("churn", explainer, [1]), ("value", explainer.value, [1, -1])):
            for place, sign in product({"churn": explainer.of_churn, "value": explainer.of_value}[kind].places, signs):
                model = getattr(explainer.predictor, kind)
                parts = np.zeros(len(model.explained))
                parts[place[0]] = 9.0 * sign
                explainer.predictor = replace(explainer.predictor, **{kind: replace(model, parts=tuple(parts))})
                for customer, own in zip(bought["customer_id"], ask(vectors), strict=True):
                    yield from ((customer, sentence) for sentence in own)


@pytest.fixture(scope="module", params=SETS)
def real(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    real_set = SETS[request.param]
    folder, home = dataset(real_set.data), tmp_path_factory.mktemp("real")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PERENNIAL_DATASETS", str(folder.parent))
        path = CONFIGS / f"{real_set.config}.yaml"
        given = settings.read(path).tables.transactions.where
        where = f"({given}) AND {real_set.where}" if given else real_set.where
        workspace = settings.read(path, [f"tables.transactions.where={json.dumps(where)}"], home)
        return Case.of(workspace, real_set.as_of)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shop whose customers visit, complain, rate, open e-mails and withdraw consents."""
    folder = tmp_path_factory.mktemp("made_up")
    simulate(folder, 300, 2.0, 7)
    return folder


def made_up(world: Path, home: Path, amount: str = "amount") -> Case:
    """The shop of the world with these amounts."""
    tables: dict[str, Any] = {name: {"path": str(world / name)} for name in ("transactions", "interactions")}
    tables |= {name: {"path": str(world / f"{name}.parquet")} for name in ("customers", "products")}
    tables["transactions"]["columns"] = {"amount": amount}
    wanted = {"name": "made_up", "home": str(home), "tables": tables, "attributes": ["region", "age"]}
    return Case.of(settings.parse(wanted, "made-up shop"), date(2024, 7, 1))


@pytest.fixture(scope="module")
def plain(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Case:
    return made_up(world, tmp_path_factory.mktemp("plain"))


def said(case: Case) -> set[str]:
    """Which kinds of sentences were said; fails at the first that does not hold."""
    return {claims.held(case.shop, customer, sentence) for customer, sentence in set(case.told())}


def test_every_reason_holds_against_the_customers_own_rows(real: Case) -> None:
    """On the real sets: true, in the customer's own numbers, and pointing the way it is used."""
    kinds = said(real)
    assert len(real.shop.facts) > 150
    assert {kind.split("(")[0] for kind in kinds} >= {"has been silent ", "buys rarely: usually returns after "}
    assert len(kinds) >= 12


def test_every_reason_of_a_made_up_shop_holds_too(plain: Case) -> None:
    """Whose customers do more than buy: visits, complaints, ratings and e-mails are told as well."""
    kinds = {kind.split("(")[0] for kind in said(plain)}
    assert kinds >= {"has not visited for ", "visits less often: ", "complained ", "last rating was ", "attribute"}


def test_nobody_spends_less_because_the_shop_counts_in_another_currency(
    plain: Case, world: Path, tmp_path: Path
) -> None:
    """All amounts divided by 7.5 from one day on: who is told to spend less spends less in the old currency too."""
    amount = "CASE WHEN occurred_at >= TIMESTAMPTZ '2024-06-01 00:00:00+00' THEN amount / 7.5 ELSE amount END"
    other, before = made_up(world, tmp_path, amount), plain.shop.facts
    seems = other.shop.facts["spend90"] < other.shop.facts["spend_before"]
    assert (seems & (before["spend90"] >= before["spend_before"])).sum() > 10
    told = {(customer, sentence) for customer, sentence in other.told() if "spend" in sentence or "spent" in sentence}
    for customer, sentence in told:
        own = before.loc[customer]
        if "spends less" in sentence:
            assert own["spend90"] < own["spend_before"], sentence
        else:
            side = -1 if sentence.startswith("more") else 1
            assert side * own["spend365"] <= side * plain.shop.medians["spend365"], sentence


def test_little_spent_is_told_where_prices_held_and_nowhere_else(plain: Case, world: Path, tmp_path: Path) -> None:
    """Half of the shop's median in a year: a reason in a shop of one currency, none where it may be that currency's."""
    amount = "CASE WHEN occurred_at >= TIMESTAMPTZ '2024-03-01 00:00:00+00' THEN amount / 7.5 ELSE amount END"
    for case, expected in ((plain, True), (made_up(world, tmp_path, amount), False)):
        half = np.where(np.arange(len(case.rows)) % 3 == 0, 100.0, 200.0)
        rows = case.rows.assign(spend_365d=half, spend_90d=1.0, spend_180d=2.0)
        told = replace(case, rows=rows).told()
        assert any(sentence.startswith("spent only 100 EUR") for _, sentence in told) == expected


def test_a_card_shows_an_age_as_a_person_writes_it(plain: Case) -> None:
    """18, not 18.0; and so do the reasons."""
    explainer = plain.explainer
    row = plain.rows[plain.rows["attribute_age"].notna()].iloc[0]
    score = dict.fromkeys((*SCORE_COLUMNS, "stale", "horizon", "lifetime_value_horizon"))
    score |= {"customer_id": row["customer_id"], "as_of": str(plain.as_of)}
    (vector,) = matrix(pd.DataFrame([row]), explainer.packed)
    shown = card(explainer, score, vector, [], {})["profile"]["attributes"]
    assert shown["age"] == plain.shop.attributes.loc[row["customer_id"], "age"]
    assert isinstance(shown["age"], int)
