"""Work done side by side, and how many of the machine's cores are whose."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from typing import TypeVar

Done = TypeVar("Done")

_OWN: ContextVar[int | None] = ContextVar("_OWN", default=None)


def own() -> int:
    """The cores that the work of this thread may use: all that the process has, or its share beside others."""
    import joblib  # not needed to answer, and slow to load

    cores = _OWN.get()
    return joblib.cpu_count() if cores is None else cores


def side_by_side(tasks: Sequence[Callable[[], Done]]) -> Iterator[Done]:
    """What the tasks return, in their order, each as soon as it and those before it are done.

    As many at once as there are cores, which they share: two fits with a core each are quicker than one after the other
    with two. For work that leaves Python's lock free, as numpy's, LightGBM's and DuckDB's does.
    """
    from threadpoolctl import threadpool_limits

    cores = own()
    if (at_once := min(len(tasks), cores)) < 2:
        yield from (task() for task in tasks)
        return
    share = cores // at_once
    with threadpool_limits(share, "blas"), ThreadPoolExecutor(at_once, "fit", _OWN.set, (share,)) as pool:
        yield from pool.map(lambda task: task(), tasks)
