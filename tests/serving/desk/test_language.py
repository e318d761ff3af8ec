"""The desk's words in every language."""

from __future__ import annotations

import re
from datetime import date

import pytest
from babel.messages.extract import extract_from_dir
from babel.messages.pofile import read_po

from serving.desk import language
from serving.desk.language import CATALOGUES, LANGUAGES

ROOT = CATALOGUES.parents[1]
_ROOMS = ("desk", "own_page")
_METHODS = [
    *((f"serving/{room}/**.py", "python") for room in _ROOMS),
    *((f"pages/templates/{room}/**.html", "jinja2") for room in _ROOMS),
]
_OPTIONS = {f"pages/templates/{room}/**.html": {"trimmed": "true"} for room in _ROOMS}
_KEYWORDS = {"_": None, "say": None, "count": (1, 2), "_n": (1, 2)}
_PLACE = re.compile(r"%\(\w+\)s")


def _written() -> set[str | tuple[str, ...]]:
    """All that the desk says, as it stands in the code."""
    said = extract_from_dir(str(ROOT), _METHODS, _OPTIONS, _KEYWORDS)
    return {message for _, _, message, _, _ in said}


@pytest.mark.parametrize("code", sorted(LANGUAGES.keys() - {"en"}))
def test_a_catalogue_has_all_that_the_desk_says(code: str) -> None:
    """Each text once, translated, with the same places for values; and nothing that is said no more."""
    with (CATALOGUES / f"{code}.po").open("rb") as file:
        catalogue = {message.id: message for message in read_po(file) if message.id}
    assert set(catalogue) == _written(), "run `make catalogue`"
    for text, message in catalogue.items():
        texts = [message.string] if isinstance(message.string, str) else message.string
        originals = [text] if isinstance(text, str) else text
        assert all(texts), f"{code} has no words for {text}"
        assert not message.fuzzy
        assert all(set(_PLACE.findall(own)) == set(_PLACE.findall(originals[-1])) for own in texts), text


def test_numbers_days_and_money_are_written_as_the_language_does() -> None:
    """Money has cents below a hundred; a Chinese day is one."""
    english, chinese = language.language("en"), language.language("zh")
    assert [english.money(amount, "EUR") for amount in (1234.4, 12.344, -0.001)] == ["€1,234", "€12.34", "€0.00"]
    assert [english.percent(0.123), english.number(1234567)] == ["12%", "1,234,567"]
    assert [chinese.day(date(2025, 1, 2)), chinese.money(5, "CNY")] == ["2025年1月2日", "¥5.00"]
    assert chinese.count("%(number)s customer", "%(number)s customers", 1200) == "1,200 位客户"


@pytest.mark.parametrize(
    ("asked", "accepted", "expected"),
    [
        ("zh", "en-US,en;q=0.9", "zh"),
        (None, "zh-CN,zh;q=0.9,en;q=0.8", "zh"),
        (None, "fr-FR,fr;q=0.9", "en"),
        ("klingon", "", "en"),
        (None, "fr, zh;q=0.5", "zh"),
    ],
)
def test_the_language_is_the_one_asked_for_or_accepted(asked: str | None, accepted: str, expected: str) -> None:
    """What there is not, is English."""
    assert language.chosen(asked, accepted).code == expected
