"""What holds for all tests: how LightGBM waits, which tests run in one process, and which begin first."""

from __future__ import annotations

import functools
import gc
import os
import re
from collections import Counter
from pathlib import Path

import pytest
from xdist.scheduler import LoadFileScheduling

# Before anything imports LightGBM or numpy: two test processes on two cores must not spin while they wait.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# As the Makefile does, for who calls pytest: where the shipped configurations and `datasets.py` find the real data.
_ROOT = Path(__file__).resolve().parents[1]
_BESIDE = _ROOT.parent / "shared" / "data"
os.environ.setdefault("PERENNIAL_DATASETS", str(_BESIDE))
gc.disable()  # until all is imported: to look for what may go among so much that stays takes a fifth of the time


def pytest_collection_finish() -> None:
    """What has been imported is not looked through again."""
    gc.freeze()
    gc.enable()


# Of folders with a shop that is made once in a process: the argument by which a test asks for it.
_SHARED = {"tests/serving": "shop", "tests/simulation": "shop", "tests/training": "world"}
# What takes longest, beginning with the longest: begun last, it would keep one process while the other has ended.
_LONG = (
    "tests/training", "tests/serving", "tests/perennial/test_run.py", "tests/features/test_on_spark.py",
    "tests/training/test_models_learn.py", "tests/perennial/test_earlier_homes.py", "tests/examples/test_notebooks.py",
    "tests/training/check/test_data_check.py", "tests/perennial/test_cli.py", "tests/features/families/test_known.py",
)  # fmt: skip


@functools.cache
def _scope_of(path: str) -> str:
    """What stays in one process: a file, or those of a folder that ask for its shop."""
    for folder, shop in _SHARED.items():
        if path.startswith(f"{folder}/") and re.search(rf"\b{shop}\b\s*[:,)]", (_ROOT / path).read_text()):
            return folder
    return path


def _place(item: pytest.Item, sizes: Counter[str]) -> tuple[int, int, str]:
    scope = _scope_of(item.nodeid.split("::")[0])
    return _LONG.index(scope) if scope in _LONG else len(_LONG), -sizes[scope], scope


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first, then what has most tests."""
    sizes = Counter(_scope_of(item.nodeid.split("::")[0]) for item in items)
    items.sort(key=lambda item: _place(item, sizes))


class ByShop(LoadFileScheduling):
    """Gives a process the next scope, in the order in which tests are collected."""

    def _split_scope(self, nodeid: str) -> str:
        return _scope_of(nodeid.split("::")[0])


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> ByShop:
    config.option.loadscopereorder = False
    return ByShop(config, log)
