"""The flow for Prefect, run by Prefect itself in an environment of its own: `make .venv/.prefect`."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".venv" / "prefect" / "bin" / "python"

# Both ways a run can end, in one process: to start Prefect's server takes most of the time.
_BOTH = """
import os, sys
sys.path.insert(0, "examples")
from prefect.testing.utilities import prefect_test_harness
from prefect_flow import monthly
with prefect_test_harness(server_startup_timeout=120):
    for code in ("0", "1"):
        os.environ["CODE"] = code
        state = monthly("shop.yaml", return_state=True)
        print("STATE", state.type.value, state.message)
"""


def test_a_flow_ends_as_its_run_ends(tmp_path: Path) -> None:
    """Completed or failed, with the run's last sentence; all that it says is in the flow's log."""
    if not PYTHON.exists():
        missing = "the flow for Prefect: Prefect is not there; `make .venv/.prefect` installs it"
        pytest.fail(missing) if os.environ.get("CI") == "true" else pytest.skip(missing)
    program = tmp_path / "perennial"
    program.write_text('#!/bin/sh\necho "$@"\necho "[1/7] ingest" >&2\necho "ended with $CODE" >&2\nexit $CODE\n')
    program.chmod(0o755)
    environment = os.environ | {"PERENNIAL": str(program), "PREFECT_HOME": str(tmp_path), "DO_NOT_TRACK": "1"}
    asked = [str(PYTHON), "-c", _BOTH]
    done = subprocess.run(asked, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    states = [line for line in done.stdout.splitlines() if line.startswith("STATE")]
    assert states == ["STATE COMPLETED ended with 0", "STATE FAILED ended with 1"], done.stdout + done.stderr
    for words in ("run -c shop.yaml", "[1/7] ingest"):
        assert words in done.stdout + done.stderr
