"""What holds for all tests: how LightGBM waits, and which tests run in one process."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from xdist.scheduler import LoadFileScheduling

# Before anything imports LightGBM or numpy: two test processes on two cores must not spin while they wait.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# As the Makefile does, for who calls pytest: where the shipped configurations and `datasets.py` find the real data.
_BESIDE = Path(__file__).resolve().parents[2] / "shared" / "data"
os.environ.setdefault("PERENNIAL_DATASETS", str(_BESIDE))


class ByShop(LoadFileScheduling):
    """Keeps a file's tests in one process, and those of a folder whose shop is made once for all of them."""

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.split("::")[0]
        shared = ("tests/serving", "tests/simulation", "tests/training")
        return next((folder for folder in shared if path.startswith(folder)), path)


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> ByShop:
    return ByShop(config, log)
