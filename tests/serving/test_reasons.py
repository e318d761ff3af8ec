"""Reasons: few, different, in words, and with the customer's own numbers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

import claims
import numpy as np
import pytest
from numpy.typing import NDArray
from workspaces import AS_OF

from features import retrieval
from features.snapshot import customer_features
from serving.lists import churn_risk
from serving.norms import Norms
from serving.predictor import Predictor
from serving.reasons import MOST, Explainer
from serving.terms import norms_of
from tests.serving.conftest import Shop
from training.models.churn_model import ChurnModel
from training.models.rule import Rule
from training.models.value_model import ValueModel
from workspace import registry

Vectors = NDArray[np.float32]


@pytest.fixture(scope="module")
def predictor(shop: Shop) -> Iterator[Predictor]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", shop.tracking_uri)
        yield Predictor.load(shop.workspace, registry.client())


@pytest.fixture(scope="module")
def vectors(shop: Shop, predictor: Predictor) -> Vectors:
    """Of everyone who can still leave."""
    rows = retrieval.customer_rows(retrieval.open_store(shop.workspace), shop.workspace, [AS_OF])
    matrix = retrieval.matrix(rows, predictor.churn.inputs.packed)
    return matrix[predictor.churn.can_churn(matrix)]


@pytest.fixture(scope="module")
def explainer(shop: Shop, predictor: Predictor) -> Explainer:
    return Explainer(predictor, norms_of(shop.workspace.home_path, AS_OF))


@pytest.fixture(scope="module")
def own(shop: Shop) -> claims.Shop:
    """The customers' own rows, counted."""
    return claims.shop(shop.workspace, AS_OF)


@pytest.fixture(scope="module")
def customers(shop: Shop, predictor: Predictor) -> list[str]:
    """Whose vectors they are, in order."""
    rows = retrieval.customer_rows(retrieval.open_store(shop.workspace), shop.workspace, [AS_OF])
    can_leave = predictor.churn.can_churn(retrieval.matrix(rows, predictor.churn.inputs.packed))
    return rows.loc[can_leave, "customer_id"].tolist()


def kind(sentence: str) -> str:
    """A sentence without its numbers."""
    return re.sub(r"[\d.,]+", "#", sentence)


def telling(explainer: Explainer, parts: NDArray[np.floating]) -> Explainer:
    """The explainer of a churn model with these contributions."""
    churn = Telling(**explainer.predictor.churn.__dict__, told=(explainer.predictor.churn.explained, parts))
    return Explainer(replace(explainer.predictor, churn=churn), explainer.norms)


def counting_visits(explainer: Explainer) -> Explainer:
    """The explainer of a shop that counts visits as it did before."""
    return Explainer(explainer.predictor, replace(explainer.norms, visits=1.0))


def test_the_reasons_of_the_list_hold_against_the_customers_rows(predictor: Predictor, own: claims.Shop) -> None:
    """As the list shows them: true, their own numbers, and only what speaks for a risk; most rows have some."""
    listed = churn_risk.churn_risk(predictor, AS_OF, top=100).set_index("customer_id")["reasons"]
    assert len(listed) == 100
    for customer_id, text in listed[listed != ""].items():
        assert [claims.held(own, str(customer_id), sentence) for sentence in text.split(". ")]
    assert (listed != "").mean() > 0.8


def test_no_more_than_three_and_each_another_sentence(explainer: Explainer, vectors: Vectors) -> None:
    """Not the purchases of 30, of 90 and of 365 days, which say the same thrice."""
    for told in explainer(vectors):
        assert len(told) <= MOST == 3
        assert len({kind(reason) for reason in told}) == len(told)


def test_a_sentence_speaks_for_all_its_features_strongest_first(explainer: Explainer, vectors: Vectors) -> None:
    """By the booster's own account: what is told first raises this customer's risk most, its features summed up."""
    names, contributions = explainer.predictor.churn.contributions(vectors)
    season = [i for i, name in enumerate(names) if "_next_" in name and not name.startswith("shop")]
    planted = contributions.copy()
    planted[:, season] = 9.0
    told = telling(explainer, planted)(vectors)
    bought_then = explainer.predictor.churn.inputs.column(vectors, "n_purchases_next_90d_last_year")
    assert (bought_then == 0).sum() > 3
    for reasons, times in zip(told, bought_then, strict=True):
        assert (reasons[:1] == ["bought nothing a year ago in the 90 days that come now"]) == (times == 0)


def test_tiny_changes_of_the_input_hardly_change_what_is_told(explainer: Explainer, vectors: Vectors) -> None:
    """With money a thousandth more, the same sentences for 19 of 20 customers."""
    money = [i for i, f in enumerate(customer_features(explainer.predictor.workspace)) if f.unit == "money"]
    larger = vectors.copy()
    larger[:, money] *= np.float32(1.001)
    kinds, moved = ([{kind(reason) for reason in told} for told in explainer(rows)] for rows in (vectors, larger))
    assert np.mean([one == other for one, other in zip(kinds, moved, strict=True)]) > 0.95


def test_who_bought_once_has_no_habit(explainer: Explainer, vectors: Vectors) -> None:
    """Nothing is said of what they usually do, nor that they are silent, and nowhere is there a `nan`."""
    once = vectors[explainer.predictor.churn.inputs.column(vectors, "n_purchases") == 1]
    assert len(once) > 5
    told = [reason for own in explainer(once) for reason in own]
    assert not [reason for reason in told if re.search("usual|silent|nan", reason)]
    assert any(reason.startswith("bought ") for reason in told)


def test_not_overdue_is_rare_or_nothing(explainer: Explainer, vectors: Vectors) -> None:
    """Where the model sees a risk in a rhythm that the customer keeps, it means that they buy rarely."""
    names = explainer.predictor.churn.explained
    parts = np.zeros((len(vectors), len(names)))
    parts[:, names.index("silence_vs_gap")] = 9.0
    silent, usual, purchases = (
        explainer.predictor.churn.inputs.column(vectors, name)
        for name in ("days_since_last_purchase", "gap_mean", "n_purchases")
    )
    told = telling(explainer, parts)(vectors)
    seen = set()
    for own, keeps_it in zip(told, (silent <= usual) & (purchases > 3), strict=True):
        if keeps_it:
            assert not [reason for reason in own if "silent" in reason]
            seen |= {kind(reason) for reason in own}
    assert "buys rarely: usually returns after # days" in seen


def test_the_day_after_a_purchase_nobody_is_silent(explainer: Explainer, vectors: Vectors) -> None:
    """Whoever bought yesterday, whatever their rhythm and whatever the model: at a till that counts no visits too."""
    fresh = vectors.copy()
    for name, value in {
        "days_since_last_purchase": 1,
        "n_visit_30d": 0,
        "n_visit_90d": 1,
        "days_since_visit": 60,
    }.items():
        fresh[:, explainer.packed.index(name)] = value
    names = explainer.predictor.churn.explained
    for own in telling(counting_visits(explainer), np.ones((len(fresh), len(names))))(fresh):
        assert not [reason for reason in own if "silent" in reason or "not visited" in reason]


def test_no_visit_is_told_of_who_stayed_away_alone(explainer: Explainer, vectors: Vectors) -> None:
    """A last visit 60 days ago is a reason where the last purchase was as long ago, and none where one came later."""
    names = explainer.predictor.churn.explained
    parts = np.zeros((len(vectors), len(names)))
    parts[:, names.index("days_since_visit")] = 9.0
    rows = vectors.copy()
    for name, value in {"n_visit_30d": 0, "n_visit_90d": 1, "days_since_visit": 60}.items():
        rows[:, explainer.packed.index(name)] = value
    for bought, told in ((60, True), (59, False)):
        rows[:, explainer.packed.index("days_since_last_purchase")] = bought
        reasons = telling(counting_visits(explainer), parts)(rows)
        assert all(("has not visited for 60 days" in own) is told for own in reasons)


def test_no_money_is_less_than_none(explainer: Explainer, vectors: Vectors) -> None:
    """What was bought and all sent back comes to 0.00, not to -0.00."""
    names = explainer.predictor.churn.explained
    parts = np.zeros((len(vectors), len(names)))
    parts[:, names.index("spend_90d")] = 9.0
    rows = vectors.copy()
    for name, value in {"T": 400, "n_purchases_90d": 1, "spend_90d": -0.0, "spend_180d": 80.0}.items():
        rows[:, explainer.packed.index(name)] = value
    told = "spends less: 0.00 EUR in the last 90 days, 80.00 EUR in the 90 before"
    assert all(own == [told] for own in telling(explainer, parts)(rows))


def test_without_a_booster_the_history_is_told(explainer: Explainer, vectors: Vectors) -> None:
    """Where no labelled window could teach one: a silence that is longer than usual, or how rarely they buy."""
    plain = replace(explainer.predictor, churn=replace(explainer.predictor.churn, booster=None))
    told = Explainer(plain, explainer.norms)(vectors)
    overdue = explainer.predictor.churn.inputs.column(vectors, "silence_vs_longest_gap") > 1
    assert overdue.sum() > 20
    assert all(
        own[0].startswith("has been silent") for own, is_overdue in zip(told, overdue, strict=True) if is_overdue
    )


def test_a_rule_is_explained_by_what_it_knows(explainer: Explainer, vectors: Vectors) -> None:
    """Silence alone: nothing of how often or how much they buy, which its answer does not hang on."""
    rule = Rule("silence", "days_since_last_purchase", (5.0, 300.0), (0.1, 0.9))
    plain = replace(explainer.predictor, churn=replace(explainer.predictor.churn, booster=None, rule=rule))
    told = Explainer(plain, explainer.norms)(vectors)
    assert all(len(own) <= 1 for own in told)
    assert {kind(own[0]).partition(" # ")[0] for own in told if own} == {"has been silent", "last bought"}


def test_scores_of_an_earlier_version_are_explained_by_the_customer_alone(
    predictor: Predictor, vectors: Vectors
) -> None:
    """Without a note of what is usual in the shop nothing is said that compares with it."""
    told = {kind(reason) for own in Explainer(predictor, Norms())(vectors) for reason in own}
    assert any("silent" in reason for reason in told)
    assert not [reason for reason in told if re.search("rarely|only #|less", reason)]


def test_nobody_has_no_reasons(explainer: Explainer, vectors: Vectors) -> None:
    """No rows in, no rows out."""
    assert explainer(vectors[:0]) == []


@dataclass(frozen=True)
class Telling(ChurnModel):
    """The churn model with contributions of our making."""

    told: tuple[tuple[str, ...], NDArray[np.floating]] = ((), np.empty(0))

    def contributions(self, vectors: Vectors) -> tuple[tuple[str, ...], NDArray[np.floating]]:
        return self.told


@dataclass(frozen=True)
class Counting(ChurnModel):
    """The churn model, counting the rows whose contributions it is asked for."""

    asked: tuple[list[int], ...] = ([],)

    def contributions(self, vectors: Vectors) -> tuple[tuple[str, ...], NDArray[np.floating]]:
        self.asked[0].append(len(vectors))
        return super().contributions(vectors)


def test_only_the_listed_are_explained(predictor: Predictor) -> None:
    """Reasons cost most of a list's time: those of seven rows are computed for seven rows."""
    counting = Counting(**predictor.churn.__dict__, asked=([],))
    listed = churn_risk.churn_risk(replace(predictor, churn=counting), AS_OF, top=7)
    assert counting.asked == ([7],)
    assert listed["reasons"].str.len().max() > 10


def test_the_list_explains_each_customer_by_their_own_vector(explainer: Explainer) -> None:
    """The reasons on the list are those of the customer's features out of Feast, row by row."""
    predictor = explainer.predictor
    listed = churn_risk.churn_risk(predictor, AS_OF, top=25)
    store = retrieval.open_store(predictor.workspace)
    rows = retrieval.customer_rows(store, predictor.workspace, [AS_OF]).set_index("customer_id")
    own = retrieval.matrix(rows.loc[listed["customer_id"]], predictor.churn.inputs.packed)
    assert listed["reasons"].tolist() == [". ".join(sentences) for sentences in explainer(own)]


@dataclass(frozen=True)
class TellingOfValue(ValueModel):
    """The value model with contributions of our making."""

    told: tuple[tuple[str, ...], NDArray[np.floating]] = ((), np.empty(0))

    def contributions(self, vectors: Vectors) -> tuple[tuple[str, ...], NDArray[np.floating]]:
        return self.told


def test_a_value_is_told_by_the_customers_own_numbers(
    explainer: Explainer, vectors: Vectors, customers: list[str], own: claims.Shop
) -> None:
    """Whatever the model says: what makes one worth more is more than the shop's half has, what makes one worth less is
    less."""
    names, parts = explainer.predictor.value.contributions(vectors)
    made = np.random.default_rng(3).normal(size=parts.shape)
    value = TellingOfValue(**explainer.predictor.value.__dict__, told=(names, made))
    told = Explainer(replace(explainer.predictor, value=value), explainer.norms).value(vectors)
    kinds = [
        claims.held(own, customer, sentence)
        for customer, each in zip(customers, told, strict=True)
        for sentence in each
    ]
    assert len(set(kinds)) >= 3
    assert all(len(each) <= MOST for each in told)
    assert np.mean([len(each) > 0 for each in told]) > 0.8


def test_a_value_is_told_by_its_own_models_features(explainer: Explainer, vectors: Vectors) -> None:
    """It is shown other features than the churn model, so a part is looked up in its own columns."""
    predictor = explainer.predictor
    names, parts = predictor.value.contributions(vectors)
    planted = np.zeros_like(parts)
    planted[:, names.index("days_since_last_purchase")] = 9.0
    value = TellingOfValue(**predictor.value.__dict__, told=(names, planted))
    told = Explainer(replace(predictor, value=value), explainer.norms).value(vectors)
    assert all(sentence.startswith("more: last bought ") for own in told for sentence in own)
    assert 0.1 < np.mean([len(own) for own in told]) < 0.7


def test_who_is_overdue_is_not_worth_more_for_it(explainer: Explainer, vectors: Vectors) -> None:
    """Half of the shop may have been away for longer still: it is their own rhythm that they have left."""
    names, parts = explainer.predictor.value.contributions(vectors)
    planted = np.zeros_like(parts)
    planted[:, names.index("days_since_last_purchase")] = 9.0
    value = TellingOfValue(**explainer.predictor.value.__dict__, told=(names, planted))
    rows = vectors.copy()
    for name, value_of in {"n_purchases": 10, "gap_mean": 5, "gap_max": 9, "days_since_last_purchase": 8}.items():
        rows[:, explainer.packed.index(name)] = value_of
    explained = Explainer(replace(explainer.predictor, value=value), explainer.norms)
    assert not any(explained.value(rows))
    rows[:, explainer.packed.index("days_since_last_purchase")] = 5
    assert all(own == ["more: last bought 5 days ago"] for own in explained.value(rows))
