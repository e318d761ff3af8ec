"""Work done side by side, and how many of the machine's cores are whose."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any, NamedTuple, TypeVar

Given = TypeVar("Given")
Done = TypeVar("Done")


class BrokenOff(Exception):
    """What stands beside this work failed, or nobody waits for it any more."""


class _Share(NamedTuple):
    """What one piece of work has: so many cores, and until one of these is set."""

    cores: int
    stops: tuple[threading.Event, ...]


_OWN: ContextVar[_Share | None] = ContextVar("_OWN", default=None)


def own() -> int:
    """The cores that the work of this thread may use: all that the process has, or its share beside others."""
    import joblib  # not needed to answer, and slow to load

    share = _OWN.get()
    return joblib.cpu_count() if share is None else share.cores


def go_on() -> None:
    """For long work to call between its steps.

    Raises:
        BrokenOff: it is to end here.
    """
    share = _OWN.get()
    if share is not None and any(stop.is_set() for stop in share.stops):
        raise BrokenOff


def side_by_side(tasks: Sequence[Callable[[], Done]]) -> Iterator[Done]:
    """What the tasks return, in their order, each as soon as it and those before it are done.

    As many at once as there are cores, which they share: two fits with a core each are quicker than one after the other
    with two. For work that leaves Python's lock free, as numpy's, LightGBM's and DuckDB's does. Where one fails, or who
    asked is interrupted, the others end at their next `go_on`.
    """
    from threadpoolctl import threadpool_limits

    cores = own()
    if (at_once := min(len(tasks), cores)) < 2:
        yield from (task() for task in tasks)
        return
    above, stop = _OWN.get(), threading.Event()
    share = _Share(cores // at_once, (stop, *(above.stops if above else ())))
    with threadpool_limits(share.cores, "blas"), ThreadPoolExecutor(at_once, "beside", _OWN.set, (share,)) as pool:
        try:
            yield from pool.map(lambda task: task(), tasks)
        finally:
            stop.set()


def in_processes(work: Callable[[Given], Done], given: Iterable[Given], most: int) -> Iterator[tuple[Given, Done]]:
    """Each of `given` with what `work` returns of it, in their order; for work that keeps Python's lock.

    Every core, of so many at `most`, has a process with a copy of `work`, which takes some seconds to start. They are a
    few of `given` ahead of who asks. Unlike those of `multiprocessing` they leave a caller's script alone.
    """
    from joblib.externals.loky import ProcessPoolExecutor

    processes = min(own(), most)
    waiting: deque[tuple[Given, Any]] = deque()
    pool = ProcessPoolExecutor(processes, initializer=_take, initargs=(work,))
    try:
        for one in given:
            waiting.append((one, pool.submit(_do, one)))
            if len(waiting) > 2 * processes:
                first, done = waiting.popleft()
                yield first, done.result()
        for first, done in waiting:
            yield first, done.result()
    finally:
        pool.shutdown(kill_workers=True)


_WORK: list[Callable[[Any], Any]] = []
"""What this process does for another one."""


def _take(work: Callable[[Any], Any]) -> None:
    _WORK.append(work)
    _OWN.set(_Share(1, ()))


def _do(given: Any) -> Any:
    return _WORK[-1](given)
