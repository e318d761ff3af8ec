"""Reasons in the reader's language."""

from __future__ import annotations

import re
from typing import Any

import pytest
from starlette.testclient import TestClient

from serving.desk.language import language
from serving.desk.reason_words import TEMPLATES, in_language

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
    reasons = {one for row in rows for name in ("reasons", "value_reasons") for one in row[name].split(". ") if one}
    assert len(reasons) > 100
    assert [one for one in reasons if re.search(r"[a-z]{3}", in_language(language("zh"), one))] == []
