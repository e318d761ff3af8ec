"""The tests themselves: one that hangs ends, and says where."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).parents[1] / "pyproject.toml"

HANGS = """
import threading


def test_that_waits_for_ever() -> None:
    threading.Event().wait()
"""


def test_a_test_that_hangs_ends_and_shows_where(tmp_path: Path) -> None:
    """With the project's own settings, sooner here: pytest exits, and the last lines name the place that waits."""
    (tmp_path / "test_hanging.py").write_text(HANGS)
    command = [sys.executable, "-m", "pytest", "-c", str(PROJECT), "--rootdir", str(tmp_path), "-p", "no:cacheprovider",
               "-o", "faulthandler_timeout=1", str(tmp_path / "test_hanging.py")]  # fmt: skip
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert "in test_that_waits_for_ever" in done.stderr
