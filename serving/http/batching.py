"""Requests that wait at the same moment are answered together: one read and one prediction serve them all."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

Question = TypeVar("Question", bound=Hashable)
Rows = Mapping[str, Any]
_Asked = tuple[Sequence[str], asyncio.Future[dict[str, Any] | None]]

MOST = 1_000
"""Customers of several requests in one answer, for which the event loop stands still."""


class Together(Generic[Question]):
    """Puts together what one turn of the event loop asks; who comes alone waits for nobody.

    `answer(question, customer_ids)` returns the rows of those who are known, or None where there are none to be had.
    """

    def __init__(self, answer: Callable[[Question, list[str]], Rows | None]) -> None:
        self.answer = answer
        self._waiting: dict[Question, deque[_Asked]] = {}

    async def rows(self, question: Question, customer_ids: Sequence[str]) -> dict[str, Any] | None:
        """The rows of these customers; whatever `answer` raises is raised to all who asked with it."""
        loop = asyncio.get_running_loop()
        asked: _Asked = (customer_ids, loop.create_future())
        if question not in self._waiting:
            self._waiting[question] = deque()
            loop.call_soon(self._answer, question)
        self._waiting[question].append(asked)
        return await asked[1]

    def _answer(self, question: Question) -> None:
        together = list(self._next(question))
        everybody = list(dict.fromkeys(one for customer_ids, _ in together for one in customer_ids))
        try:
            answers = self.answer(question, everybody)
        except Exception as problem:
            for _, future in together:
                if not future.done():
                    future.set_exception(problem)
            return
        for customer_ids, future in together:
            if not future.done():  # as it is when its caller has gone
                future.set_result(
                    None if answers is None else {one: answers[one] for one in customer_ids if one in answers}
                )

    def _next(self, question: Question) -> Iterator[_Asked]:
        """Takes at least one of those who wait; what is left gets the next turn."""
        waiting = self._waiting[question]
        customers = 0
        while waiting and (not customers or customers + len(waiting[0][0]) <= MOST):
            customers += len(waiting[0][0])
            yield waiting.popleft()
        if waiting:
            asyncio.get_running_loop().call_soon(self._answer, question)
        else:
            del self._waiting[question]
