"""A benchmark says what it lacks before it begins to work."""

from __future__ import annotations

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
