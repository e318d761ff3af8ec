"""The processes of the service: which are started again, and when that is given up."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from serving.http import processes
from serving.http.processes import _Keeper
from workspace.storage import CheckFailed


@pytest.fixture(autouse=True)
def quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service counts as up after some tenths of a second, and pauses as short."""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    monkeypatch.setattr(processes, "_SOON", 0.4)
    monkeypatch.setattr(processes, "_LONGEST_PAUSE", 0.2)


@pytest.fixture
def starts(tmp_path: Path) -> Path:
    """A line for each start of `flaky`, which ends at once while there is a file `full`."""
    return tmp_path / "starts"


@pytest.fixture
def flaky(starts: Path) -> Callable[[], None]:
    def work() -> None:
        with starts.open("a") as noted:
            noted.write("started\n")
        while not starts.with_name("full").exists():
            time.sleep(0.05)

    return work


@pytest.fixture
def afterwards(request: pytest.FixtureRequest) -> Iterator[Callable[[Callable[[], None]], None]]:
    """Does something beside the test."""
    threads: list[threading.Thread] = []

    def begin(work: Callable[[], None]) -> None:
        threads.append(threading.Thread(target=work))
        threads[-1].start()

    yield begin
    for thread in threads:
        thread.join()


def count(starts: Path) -> int:
    return starts.read_text().count("\n") if starts.exists() else 0


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not holds() and time.monotonic() < end:
        time.sleep(0.05)


def test_what_never_was_up_is_given_up(
    starts: Path, flaky: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that ends at once, again and again, ends the service with an error."""
    monkeypatch.setattr(processes, "_SOON", 60.0)  # a busy machine takes a while to start what ends at once
    starts.with_name("full").touch()
    with pytest.raises(CheckFailed, match="answers-0 ended 3 times in a row"):
        _Keeper({"answers-0": flaky}).run()
    assert count(starts) == 3


def test_what_has_been_up_is_started_again_until_it_can_be(
    starts: Path, flaky: Callable[[], None], afterwards: Callable[[Callable[[], None]], None]
) -> None:
    """A disk that fills up ends a process more often than would be too often at the start; with room it is back."""
    keeper = _Keeper({"answers-0": flaky})

    def fill_and_empty() -> None:
        until(lambda: keeper.was_up)
        starts.with_name("full").touch()
        until(lambda: count(starts) > 5)
        starts.with_name("full").unlink()
        seen = count(starts)
        until(lambda: count(starts) > seen)
        keeper.stopping = True

    afterwards(fill_and_empty)
    keeper.run()
    assert count(starts) > 5


def test_what_no_answer_needs_is_not_loaded(tmp_path: Path) -> None:
    """A start takes as long as its imports, and each process holds them: neither MLflow, while its registry shows
    whether it changed, nor scikit-learn, nor Evidently."""
    (tmp_path / "mlflow.db").touch()
    environment = {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db"}
    code = (
        "import sys; from pathlib import Path; from serving.http import processes\n"
        "from workspace.settings import Service\n"
        f"processes._targets(Path({str(tmp_path)!r}), Service(), None, None)\n"
        "print(*sorted({'mlflow', 'sklearn', 'scipy.stats', 'evidently', 'matplotlib', 'lightgbm'} & {*sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["lightgbm"]
