"""Reasons: few, different, in words, and with the customer's own numbers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pytest
from numpy.typing import NDArray
from workspaces import AS_OF

from features import retrieval
from features.catalogue import Feature
from features.snapshot import customer_features
from perennial import registry
from serving import lists
from serving.predictor import Predictor
from serving.reasons import MOST, reasons
from training.models.churn_model import ChurnModel

from .conftest import Shop

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
    found = retrieval.matrix(rows, predictor.churn.inputs.packed)
    return found[predictor.churn.can_churn(found)]


def shown(feature: Feature, value: float, currency: str = "EUR") -> str:
    """A value as a marketer reads it: days and counts whole, shares in percent, money with its currency."""
    if feature.unit == "share":
        return f"{round(value * 100)}%"
    if feature.unit == "money":
        return f"{value:,.0f} {currency}" if abs(value) >= 100 else f"{value:,.2f} {currency}"
    return f"{value:.1f}" if feature.unit in ("ratio", "score") else f"{value:,.0f}"


def told(predictor: Predictor, vectors: Vectors) -> list[list[str]]:
    """For each vector, the names of the features that its reasons are of; a reason with another value fails."""
    features = {feature.name: feature for feature in customer_features(predictor.workspace) if feature.says}
    found = []
    for own, vector in zip(reasons(predictor, vectors), vectors, strict=True):
        values = dict(zip(predictor.churn.inputs.packed, map(float, vector), strict=True))
        known = {name: f for name, f in features.items() if not np.isnan(values[name])}
        said = {f.says.format(shown(f, values[name])): name for name, f in known.items()}
        assert set(own) <= said.keys(), (own, values)
        found.append([said[reason] for reason in own])
    return found


def test_every_reason_holds_the_customers_own_value(predictor: Predictor, vectors: Vectors) -> None:
    """Of all customers and all units: the sentence is the feature's, with the value of that customer in it."""
    names = told(predictor, vectors)
    assert len({name for own in names for name in own}) > 5
    assert all(own for own in names)


def test_no_more_than_three_and_each_of_another_kind(predictor: Predictor, vectors: Vectors) -> None:
    """Not the purchases of 30, of 90 and of 365 days, which say the same thrice."""
    for own in told(predictor, vectors):
        assert 1 <= len(own) <= MOST == 3
        assert len({re.sub(r"_\d+d", "", name) for name in own}) == len(own)


def test_reasons_are_what_raises_the_risk_strongest_first(predictor: Predictor, vectors: Vectors) -> None:
    """By the booster's own account of this customer: each told feature raises the risk, none less than the next."""
    names, contributions = predictor.churn.contributions(vectors)
    for own, row in zip(told(predictor, vectors), contributions, strict=True):
        weights = [row[names.index(name)] for name in own]
        assert min(weights) > 0
        assert weights == sorted(weights, reverse=True)


def test_what_is_unknown_is_never_told(predictor: Predictor, vectors: Vectors) -> None:
    """Who bought once has no usual gap; nothing is said of it, and nowhere is there a `nan`."""
    once = vectors[predictor.churn.inputs.column(vectors, "n_purchases") == 1]
    assert len(once) > 5
    for own in reasons(predictor, once):
        assert not [reason for reason in own if "usual" in reason or "nan" in reason]


def test_without_a_booster_the_silence_is_told(predictor: Predictor, vectors: Vectors) -> None:
    """Where no labelled window could teach one: how long, against which rhythm, how many in a year."""
    plain = replace(predictor, churn=replace(predictor.churn, booster=None))
    often = vectors[predictor.churn.inputs.column(vectors, "n_purchases") > 1][:20]
    for own in told(plain, often):
        assert own == ["days_since_last_purchase", "gap_mean", "n_purchases_365d"]


def test_nobody_has_no_reasons(predictor: Predictor, vectors: Vectors) -> None:
    """No rows in, no rows out."""
    assert reasons(predictor, vectors[:0]) == []


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
    listed = lists.churn_risk(replace(predictor, churn=counting), AS_OF, top=7)
    assert counting.asked == ([7],)
    assert listed["reasons"].str.len().min() > 10


def test_the_list_explains_each_customer_by_their_own_vector(predictor: Predictor, vectors: Vectors) -> None:
    """The reasons on the list are those of the customer's features out of Feast, row by row."""
    listed = lists.churn_risk(predictor, AS_OF, top=25)
    store = retrieval.open_store(predictor.workspace)
    rows = retrieval.customer_rows(store, predictor.workspace, [AS_OF]).set_index("customer_id")
    own = retrieval.matrix(rows.loc[listed["customer_id"]], predictor.churn.inputs.packed)
    assert listed["reasons"].tolist() == ["; ".join(found) for found in reasons(predictor, own)]


def test_no_number_is_longer_than_a_person_reads(predictor: Predictor, vectors: Vectors) -> None:
    """No float's tail and no exponent, in whatever reason."""
    every = {reason for own in reasons(predictor, vectors) for reason in own}
    assert len(every) > 50
    assert not [reason for reason in every if re.search(r"\d\.\d{3,}|\de[+-]\d|None", reason)]
