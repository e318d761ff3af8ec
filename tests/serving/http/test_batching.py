from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from serving.http import batching
from serving.http.batching import Together


class _Answering:
    """Rows of whoever's name is a number, and what was asked for together."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, list[str]]] = []

    def __call__(self, question: str, customer_ids: list[str]) -> dict[str, dict[str, Any]]:
        self.asked.append((question, customer_ids))
        return {one: {"customer_id": one, "question": question} for one in customer_ids if one.isdigit()}


def _answered(answering: Any, *requests: tuple[str, Sequence[str]]) -> list[Any]:
    async def ask() -> list[Any]:
        waiting = Together(answering)
        asked = (waiting.rows(question, customer_ids) for question, customer_ids in requests)
        return await asyncio.gather(*asked, return_exceptions=True)

    return asyncio.run(ask())


def test_who_asks_at_once_is_answered_by_one_prediction_and_each_with_its_own() -> None:
    answering = _Answering()
    first, second, third = _answered(answering, ("plain", ["1", "2"]), ("plain", ["2", "nobody"]), ("plain", ["3"]))
    assert answering.asked == [("plain", ["1", "2", "nobody", "3"])]
    assert list(first) == ["1", "2"]
    assert list(second) == ["2"]
    assert third == {"3": {"customer_id": "3", "question": "plain"}}


def test_other_questions_are_answered_apart() -> None:
    answering = _Answering()
    plain, explained = _answered(answering, ("plain", ["1"]), ("explain", ["1"]))
    assert plain["1"]["question"] == "plain"
    assert explained["1"]["question"] == "explain"


def test_what_stands_still_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "MOST", 3)
    answering = _Answering()
    batches = _answered(
        answering, ("plain", ["1", "2"]), ("plain", ["3", "4"]), ("plain", ["5"]), ("plain", ["6789"] * 9)
    )
    assert [len(asked) for _, asked in answering.asked] == [2, 3, 1]
    assert [list(rows) for rows in batches] == [["1", "2"], ["3", "4"], ["5"], ["6789"]]


def test_a_failure_is_everybodys_and_the_next_are_answered() -> None:
    answering = _Answering()

    def failing(question: str, customer_ids: list[str]) -> dict[str, dict[str, Any]]:
        if "bad" in customer_ids:
            raise ValueError("no")
        return answering(question, customer_ids)

    first, second = _answered(failing, ("plain", ["1"]), ("plain", ["bad"]))
    assert isinstance(first, ValueError)
    assert isinstance(second, ValueError)

    async def twice() -> Any:
        waiting = Together(failing)
        with pytest.raises(ValueError, match="no"):
            await waiting.rows("plain", ["bad"])
        return await waiting.rows("plain", ["1"])

    assert list(asyncio.run(twice())) == ["1"]


def test_a_caller_who_has_gone_holds_up_nobody() -> None:
    async def one_leaves() -> Any:
        waiting = Together(_Answering())
        gone = asyncio.create_task(waiting.rows("plain", ["1"]))
        stays = asyncio.create_task(waiting.rows("plain", ["2"]))
        await asyncio.sleep(0)
        gone.cancel()
        return await stays

    assert list(asyncio.run(one_leaves())) == ["2"]


def test_nothing_to_be_had_is_told_to_everybody() -> None:
    assert _answered(lambda question, customer_ids: None, ("plain", ["1"]), ("plain", ["2"])) == [None, None]
