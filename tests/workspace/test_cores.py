"""Work side by side: what comes of it is as if it had been done in turn."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from functools import partial

import joblib
import pytest

from workspace import cores

MANY = pytest.mark.skipif(joblib.cpu_count() < 2, reason="needs two cores")


def test_results_come_in_the_order_of_their_tasks() -> None:
    """Also where a later task ends first."""
    ended = threading.Event()

    def first() -> str:
        return "first" if cores.own() == joblib.cpu_count() or ended.wait(20) else "waited in vain"

    def second() -> str:
        ended.set()
        return "second"

    assert list(cores.side_by_side([first, second])) == ["first", "second"]
    assert list(cores.side_by_side([partial(str, number) for number in range(9)])) == [*"012345678"]


@MANY
def test_cores_are_shared_by_those_at_work() -> None:
    """Two tasks have half of the cores each, also what they start in turn; alone, a task has all of them."""
    everything, both = cores.own(), threading.Barrier(2)

    def shares() -> list[int]:
        both.wait(20)
        return [cores.own(), *cores.side_by_side([cores.own])]

    assert list(cores.side_by_side([shares, shares])) == [[everything // 2] * 2] * 2
    assert list(cores.side_by_side([cores.own])) == [everything]
    assert cores.own() == everything


@MANY
def test_others_end_where_one_fails() -> None:
    """At their next step, however much they still had to do, and with what they had begun themselves."""
    begun, ends = threading.Event(), []

    def long(name: str) -> None:
        begun.set()
        try:
            while True:
                cores.go_on()
                time.sleep(0.01)
        except cores.BrokenOff:
            ends.append(name)
            raise

    def nested() -> None:
        list(cores.side_by_side([partial(long, "of a task"), partial(long, "of a task")]))

    def failing() -> None:
        assert begun.wait(20)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(cores.side_by_side([failing, nested]))
    assert set(ends) == {"of a task"}
    cores.go_on()


def test_a_failure_is_raised_where_its_result_would_stand() -> None:
    """What stands before it is there."""
    results: Iterator[int] = cores.side_by_side([lambda: 1, lambda: 1 // 0, lambda: 3])
    assert next(results) == 1
    with pytest.raises(ZeroDivisionError):
        next(results)


def halved(number: int) -> tuple[float, int, int]:
    """Half of it, by which process, and what cores that may use."""
    time.sleep(0.05 if number == 8 else 0)
    return 8 / number, os.getpid(), cores.own()


def test_other_processes_answer_in_order() -> None:
    """Also where an earlier question takes longer; each has one core, and none of them is this one."""
    answered = list(cores.in_processes(halved, [8, *range(1, 30)], 2))
    assert [(number, half) for number, (half, _, _) in answered] == [(n, 8 / n) for n in [8, *range(1, 30)]]
    processes = {process for _, (_, process, _) in answered}
    assert os.getpid() not in processes
    assert len(processes) <= 2
    assert {own for _, (_, _, own) in answered} == {1}


def test_no_more_is_asked_of_processes_than_is_soon_answered() -> None:
    """What is given is taken as answers are taken: of millions of customers few blocks are in memory."""
    taken: list[int] = []
    answers = cores.in_processes(halved, (taken.append(number) or number for number in range(1, 1_000)), 2)
    assert [next(answers)[0], next(answers)[0]] == [1, 2]
    assert len(taken) <= 2 * 2 + 2
    answers.close()


def test_what_fails_in_a_process_fails_here() -> None:
    """With its own error, behind the answers before it."""
    answers = cores.in_processes(halved, [1, 0, 2], 2)
    with pytest.raises(ZeroDivisionError):
        list(answers)
