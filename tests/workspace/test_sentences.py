"""Facts told one after another."""

from __future__ import annotations

import pytest

from workspace import sentences


@pytest.mark.parametrize(
    ("facts", "told"),
    [([], ""), (["it is slow"], "it is slow"), (["it is slow", "x is 1", "Éva left"], "it is slow. X is 1. Éva left")],
)
def test_each_fact_is_a_sentence(facts: list[str], told: str) -> None:
    """The first goes on after a colon, and whoever shows the text ends it."""
    assert sentences.joined(facts) == told
