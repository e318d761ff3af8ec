"""Reasons in the reader's language."""

from __future__ import annotations

import math
import random
import re
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from workspaces import small_workspace

from features.snapshot import customer_features
from serving import reasons
from serving.desk.language import language
from serving.desk.reason_words import TEMPLATES, in_language
from serving.norms import Norms

_EXAMPLES = {
    "days": "1,200 days", "times": "once", "purchases": "1 purchase", "visits": "3 visits",
    "complaints": "2 complaints are", "money": "-1,234.50 EUR", "categories": "1 category", "number": "12%",
    "words": "acquisition channel",
}  # fmt: skip


@pytest.mark.parametrize("template", TEMPLATES)
def test_every_sentence_is_read_back_by_its_own_template(template: str) -> None:
    """And by none that is tried before; English stays as it is."""
    places = re.findall(r"%\((\w+)\)s", template)
    english = template % {place: _EXAMPLES[place.split("_")[0]] for place in places}
    chinese = in_language(language("zh"), english)
    assert in_language(language("en"), english) == english
    own_words = re.split(r"%\(\w+\)s", language("zh").say(template))
    assert all(piece in chinese for piece in own_words)
    assert not re.search(r"[a-z]{3}", chinese.replace("acquisition channel", ""))


def test_numbers_are_written_as_the_language_does() -> None:
    """With the words that it counts in."""
    reason = "has been silent 1,071 days, longer than ever; usually returns after 1 day"
    assert in_language(language("zh"), reason) == "已沉默 1,071 天，比以往都久；通常 1 天后回购"
    assert in_language(
        language("zh"), "spent only 3.50 EUR in the last year; half of the customers 1,200 EUR or more"
    ) == ("近一年只消费 €3.50；半数客户在 €1,200 以上")
    assert in_language(language("zh"), "something new") == "something new"


def test_no_reason_of_a_shop_stays_english(app: Any, environment: pytest.MonkeyPatch) -> None:
    """Of the risk and of the value, of everybody on the list."""
    with TestClient(app, headers={"Authorization": "Bearer a-secret"}) as client:
        rows = client.get("/v1/lists/churn-risk", params={"top": 1000}).json()
    told = {one for row in rows for name in ("reasons", "value_reasons") for one in row[name].split(". ") if one}
    assert len(told) > 100
    assert [one for one in told if re.search(r"[a-z]{3}", in_language(language("zh"), one))] == []


def test_whatever_is_ever_said_of_anybody_has_a_template(tmp_path: Path) -> None:
    """Of customers of every kind, in shops of every kind; and there is no template of what nobody says."""
    workspace, drawn = small_workspace(tmp_path), random.Random(0)
    names = tuple(feature.name for feature in customer_features(workspace))
    attributes = {name: {0: "a hand. St. Ives", 1: "x"} for name in names if name.startswith("attribute_")}
    themes = reasons._themes(names, workspace)
    told = set()
    for _ in range(10_000):
        values = {name: drawn.choice([0.0, 0.0, 1.0, 2.0, 3.5, 40.0, 400.0, math.nan]) for name in names}
        values["n_purchases"] = drawn.choice([1.0, 2.0, 3.0, 40.0])  # nobody else is told a reason
        values |= {name: drawn.choice([0.0, 0.2, 0.7, 1.5]) for name in names if "_share_" in name}
        usual = {name: drawn.choice([0.05, 1.0, 10.0, 1000.0]) for name in names}
        facts = reasons.Facts(values, "EUR", attributes, Norms(usual, *drawn.choices([0.0, 0.5, 1.0], k=5)))
        told |= {theme.risk(facts) for theme in themes}
        told |= {f"{of}: {said}" for theme in themes for of in ("more", "less") if (said := theme.value(facts, of))}
    kinds = {re.sub(r"[\d.,]*\d", "7", sentence): sentence for sentence in told if sentence}
    foreign = {sentence: in_language(language("zh"), sentence) for sentence in kinds.values()}
    own_words = re.compile(r"[a-z]{3}")
    assert [one for one, said in foreign.items() if own_words.search(said.replace("hand. St. Ives", ""))] == []
    unsaid = [
        text for text in TEMPLATES if not any(_is_of(language("zh").say(text), said) for said in foreign.values())
    ]
    assert unsaid == []


def _is_of(template: str, said: str) -> bool:
    pieces = map(re.escape, re.split(r"%\(\w+\)s", template))
    return re.fullmatch(".+".join(pieces), said.split("：", 1)[-1] if "价值更" in said else said) is not None


def test_a_reason_for_a_value_says_which_way_it_points() -> None:
    """In both languages."""
    assert in_language(language("en"), "more: spent 900 EUR in the last year") == (
        "worth more: spent 900 EUR in the last year"
    )
    assert in_language(language("zh"), "less: bought nothing in the last year") == "价值更低：近一年没有购买"
