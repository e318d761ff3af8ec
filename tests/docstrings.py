"""The examples in docstrings, run as they stand."""

from __future__ import annotations

import doctest
from typing import Any


def ran(thing: Any, **names: Any) -> doctest.TestResults:
    """Those of a class, its methods too, or of a function; they know its module, and `names`."""
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    for examples in doctest.DocTestFinder().find(thing, thing.__name__, extraglobs=names):
        runner.run(examples)
    return runner.summarize(verbose=False)
