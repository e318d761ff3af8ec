"""Reasons: few, different, in words, and with the customer's own numbers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import pytest
from numpy.typing import NDArray
from workspaces import AS_OF

from features import retrieval
from perennial import registry
from serving import lists
from serving.predictor import Predictor
from serving.reasons import MOST, Explainer, reasons
from training.models.churn_model import ChurnModel
from training.models.value_model import ValueModel

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


DAYS = r"([\d,]+) days?"
PURCHASES = r"([\d,]+) purchases?"
MONEY = r"(-?[\d,.]+) EUR"
# Every sentence that may be said, and the values in it, in order: of the customer and nobody else.
SENTENCES: dict[str, Callable[[dict[str, float]], tuple[float, ...]]] = {
    rf"has been silent {DAYS}; usually returns after ([\d,]+)":
        lambda v: (v["days_since_last_purchase"], v["gap_mean"]),
    rf"has been silent {DAYS} since the only purchase": lambda v: (v["days_since_last_purchase"],),
    rf"buys less often: {PURCHASES} in the last 90 days, ([\d,]+) in the 90 before":
        lambda v: (v["n_purchases_90d"], v["n_purchases_180d"] - v["n_purchases_90d"]),
    rf"bought on only {DAYS} of the last year": lambda v: (v["n_purchases_365d"],),
    rf"spends less: {MONEY} in the last 90 days, {MONEY} in the 90 before":
        lambda v: (v["spend_90d"], v["spend_180d"] - v["spend_90d"]),
    rf"spends {MONEY} per purchase": lambda v: (v["spend_mean"],),
    r"bought ([\d,]+) times? in the same 90 days of last year": lambda v: (v["n_purchases_next_90d_last_year"],),
    r"bought from ([\d,]+) categor(?:y|ies) in the last year": lambda v: (v["n_categories_365d"],),
    rf"has been a customer for {DAYS}": lambda v: (v["tenure_days"],),
    rf"complained {DAYS} ago": lambda v: (v["days_since_complaint"],),
    rf"complained {DAYS} ago, ([\d,]+) still open": lambda v: (v["days_since_complaint"], v["n_open_complaints"]),
    rf"([\d,]+) visits? in the last 30 days, the last {DAYS} ago": lambda v: (v["n_visit_30d"], v["days_since_visit"]),
    r"last rating was ([\d.]+)": lambda v: (v["satisfaction_last"],),
    r"returned (\d+)% of what was bought in the last year": lambda v: (100 * v["return_share_365d"],),
    r"(\d+)% of the last year's price was discount": lambda v: (100 * v["discount_share_365d"],),
}  # fmt: skip


def read(reason: str) -> tuple[str, list[float]]:
    """The one sentence that a reason is, and the numbers in it."""
    (pattern,) = [pattern for pattern in SENTENCES if re.fullmatch(pattern, reason)]
    found = re.fullmatch(pattern, reason)
    assert found is not None
    return pattern, [float(text.replace(",", "")) for text in found.groups()]


def check(predictor: Predictor, told: list[list[str]], vectors: Vectors) -> set[str]:
    """Fails at a number that is not the customer's own; returns which sentences were said."""
    said = set()
    for own, vector in zip(told, vectors, strict=True):
        values = dict(zip(predictor.churn.inputs.packed, map(float, vector), strict=True))
        for reason in own:
            pattern, numbers = read(reason)
            expected = SENTENCES[pattern](values)
            assert numbers == pytest.approx(expected, abs=0.5001), (reason, expected)
            said.add(pattern)
    return said


def test_each_number_in_the_reasons_of_ten_listed_customers_is_their_own(predictor: Predictor) -> None:
    """As the list shows them, against the features out of Feast."""
    listed = lists.churn_risk(predictor, AS_OF, top=10)
    rows = retrieval.customer_rows(retrieval.open_store(predictor.workspace), predictor.workspace, [AS_OF])
    own = retrieval.matrix(rows.set_index("customer_id").loc[listed["customer_id"]], predictor.churn.inputs.packed)
    assert len(listed) == 10
    assert check(predictor, [text.split(". ") for text in listed["reasons"]], own)


def test_each_number_in_every_reason_is_the_customers_own(predictor: Predictor, vectors: Vectors) -> None:
    """Of everyone who can leave, in several different sentences."""
    assert len(check(predictor, reasons(predictor, vectors), vectors)) >= 4


def test_no_more_than_three_and_each_another_sentence(predictor: Predictor, vectors: Vectors) -> None:
    """Not the purchases of 30, of 90 and of 365 days, which say the same thrice."""
    for own in reasons(predictor, vectors):
        assert 1 <= len(own) <= MOST == 3
        assert len({read(reason)[0] for reason in own}) == len(own)


def test_a_sentence_speaks_for_all_its_features_strongest_first(predictor: Predictor, vectors: Vectors) -> None:
    """By the booster's own account: what is told first raises this customer's risk most, its features summed up."""
    names, contributions = predictor.churn.contributions(vectors)
    season = [i for i, name in enumerate(names) if "_next_" in name and not name.startswith("shop")]
    planted = contributions.copy()
    planted[:, season] = 9.0
    told = reasons(replace(predictor, churn=Telling(**predictor.churn.__dict__, told=(names, planted))), vectors)
    known = ~np.isnan(predictor.churn.inputs.column(vectors, "n_purchases_next_90d_last_year"))
    assert known.any()
    assert {"same 90 days of last year" in own[0] for own, is_known in zip(told, known, strict=True) if is_known} == {
        True
    }
    assert not any("last year" in own[0] and "same" in own[0] for own, k in zip(told, known, strict=True) if not k)


def test_tiny_changes_of_the_input_hardly_change_what_is_told(predictor: Predictor, vectors: Vectors) -> None:
    """With every figure but the count of purchases a thousandth larger, the same sentences for 19 of 20 customers."""
    larger = vectors * np.float32(1.001)
    frequency = predictor.churn.inputs.packed.index("frequency")
    larger[:, frequency] = vectors[:, frequency]
    kinds, moved = (
        [{read(reason)[0] for reason in own} for own in reasons(predictor, rows)] for rows in (vectors, larger)
    )
    assert np.mean([one == other for one, other in zip(kinds, moved, strict=True)]) > 0.95


def test_what_is_unknown_is_never_told(predictor: Predictor, vectors: Vectors) -> None:
    """Who bought once has no usual gap; nothing is said of it, and nowhere is there a `nan`."""
    once = vectors[predictor.churn.inputs.column(vectors, "n_purchases") == 1]
    assert len(once) > 5
    for own in reasons(predictor, once):
        assert not [reason for reason in own if "usual" in reason or "nan" in reason]


def test_without_a_booster_the_silence_is_told(predictor: Predictor, vectors: Vectors) -> None:
    """Where no labelled window could teach one: how long, against which rhythm, how often in a year."""
    plain = replace(predictor, churn=replace(predictor.churn, booster=None))
    often = vectors[predictor.churn.inputs.column(vectors, "n_purchases") > 1][:20]
    for own in reasons(plain, often):
        assert own[0].startswith("has been silent")
        assert own[1].startswith(("buys less often", "bought on only"))


def test_nobody_has_no_reasons(predictor: Predictor, vectors: Vectors) -> None:
    """No rows in, no rows out."""
    assert reasons(predictor, vectors[:0]) == []


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
    listed = lists.churn_risk(replace(predictor, churn=counting), AS_OF, top=7)
    assert counting.asked == ([7],)
    assert listed["reasons"].str.len().min() > 10


def test_the_list_explains_each_customer_by_their_own_vector(predictor: Predictor, vectors: Vectors) -> None:
    """The reasons on the list are those of the customer's features out of Feast, row by row."""
    listed = lists.churn_risk(predictor, AS_OF, top=25)
    store = retrieval.open_store(predictor.workspace)
    rows = retrieval.customer_rows(store, predictor.workspace, [AS_OF]).set_index("customer_id")
    own = retrieval.matrix(rows.loc[listed["customer_id"]], predictor.churn.inputs.packed)
    assert listed["reasons"].tolist() == [". ".join(found) for found in reasons(predictor, own)]


def test_a_value_is_told_by_the_customers_own_spend(predictor: Predictor, vectors: Vectors) -> None:
    """Who spent much is worth more for it and who spent little less, each told their own year's spend."""
    told = Explainer(predictor).value(vectors)
    spend = predictor.churn.inputs.column(vectors, "spend_365d")
    said = [
        (own_spend, sentence.partition(": "))
        for own_spend, own in zip(spend, told, strict=True)
        for sentence in own
        if "spent" in sentence
    ]
    assert len(said) > 20
    for own_spend, (_, _, sentence) in said:
        amount = float(re.sub(r"[^\d.]", "", sentence.partition(" in the")[0]))
        assert amount == pytest.approx(own_spend, abs=0.51)
    by_sign = {sign: [own_spend for own_spend, (word, *_) in said if word == sign] for sign in ("more", "less")}
    assert np.median(by_sign["more"]) > np.median(by_sign["less"])
    assert all(1 <= len(own) <= 3 for own, bought in zip(told, spend, strict=True) if not np.isnan(bought))


@dataclass(frozen=True)
class TellingOfValue(ValueModel):
    """The value model with contributions of our making."""

    told: tuple[tuple[str, ...], NDArray[np.floating]] = ((), np.empty(0))

    def contributions(self, vectors: Vectors) -> tuple[tuple[str, ...], NDArray[np.floating]]:
        return self.told


def test_a_value_is_told_by_its_own_models_features(predictor: Predictor, vectors: Vectors) -> None:
    """It is shown other features than the churn model, so a part is looked up in its own columns."""
    names, parts = predictor.value.contributions(vectors)
    planted = np.zeros_like(parts)
    planted[:, names.index("n_categories_365d")] = 9.0
    value = TellingOfValue(**predictor.value.__dict__, told=(names, planted))
    told = Explainer(replace(predictor, value=value)).value(vectors)
    assert {len(own) for own in told} == {1}
    assert all(own[0].startswith("more: bought from ") for own in told)


def test_no_number_is_longer_than_a_person_reads(predictor: Predictor, vectors: Vectors) -> None:
    """No float's tail and no exponent, in whatever reason."""
    every = {reason for own in reasons(predictor, vectors) for reason in own}
    assert len(every) > 50
    assert not [reason for reason in every if re.search(r"\d\.\d{3,}|\de[+-]\d|None", reason)]
