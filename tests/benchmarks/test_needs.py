"""A benchmark says what it lacks before it begins to work."""

from __future__ import annotations

import ast
import importlib
import sys
from pathlib import Path

import pytest

from benchmarks import needs


def test_everything_that_is_missing_is_said_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that is not installed, a Redis that does not answer, and data sets by the folder that lacks them."""
    monkeypatch.setenv("PERENNIAL_DATASETS", str(tmp_path))
    monkeypatch.setattr(needs, "REDIS", "redis://127.0.0.1:1/0")
    with pytest.raises(SystemExit) as refused:
        needs.refuse_without(["no-such-program"], redis=True, shops=["cdnow", "clvtools"])
    said = str(refused.value).splitlines()
    assert said[0] == "this benchmark needs the program no-such-program: apt-get install no-such-program"
    assert said[1].startswith("this benchmark needs a Redis at redis://127.0.0.1:1/0: start one")
    assert said[2] == f"this benchmark needs data sets that {tmp_path} does not have: cdnow, clvtools"


def test_without_a_folder_of_data_sets_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The setting is named, not the path that would follow from it."""
    monkeypatch.delenv("PERENNIAL_DATASETS")
    with pytest.raises(SystemExit, match="name their folder in PERENNIAL_DATASETS"):
        needs.refuse_without(shops=["cdnow"])
    needs.refuse_without()


NEEDY = {
    "ablation", "churn", "cross_sell", "desk", "drift", "faults", "online", "purchase_choice", "purchase_models",
    "replay", "service", "value",
}  # fmt: skip
NEEDS_NOTHING = {"customers", "features", "fits", "growth", "month", "results_page", "scale", "training_join"}


@pytest.mark.parametrize("name", sorted(NEEDY))
def test_a_benchmark_refuses_before_it_begins_to_work(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a machine without programs, Redis and data sets it ends in sentences, and has written nothing."""
    benchmark = importlib.import_module(f"benchmarks.{name}")
    monkeypatch.setattr(needs, "REDIS", "redis://127.0.0.1:1/0")
    monkeypatch.setattr(sys, "argv", [name])
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("PERENNIAL_DATASETS", str(tmp_path / "nowhere"))
    with pytest.raises(SystemExit) as refused:
        benchmark.main()
    said = str(refused.value).splitlines()
    assert said
    assert all(line.startswith("this benchmark needs ") for line in said)


def test_of_every_benchmark_it_is_known_whether_it_needs_anything() -> None:
    """A new one is named above."""
    commands = {
        path.stem
        for path in Path("benchmarks").glob("*.py")
        if any(isinstance(one, ast.If) and "__main__" in ast.unparse(one) for one in ast.parse(path.read_text()).body)
    }
    assert commands == NEEDY | NEEDS_NOTHING


def test_what_takes_more_than_ten_minutes_is_said_beforehand(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is said of what is shorter."""
    needs.refuse_without(minutes=10)
    assert not capsys.readouterr().err
    needs.refuse_without(minutes=20)
    assert capsys.readouterr().err == "this benchmark takes about 20 minutes on two cores\n"
