"""Cron lines and systemd units: read by the shell, and by systemd itself."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import get_args

import pytest

from perennial import schedule
from perennial.schedule import Every
from workspace import settings
from workspace.settings import Workspace

_ODD = "a folder, 100% of $HOME"


@pytest.fixture
def shop(tmp_path: Path) -> Workspace:
    raw = {"name": "shop", "home": str(tmp_path / _ODD / "home"), "timezone": "Europe/London",
           "tables": {"transactions": {"path": "none.csv"}}}  # fmt: skip
    return settings.parse(raw, "the tests")


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """Says which words it was called with, and where."""
    path = tmp_path / _ODD / "perennial"
    path.parent.mkdir()
    path.write_text('#!/bin/sh\npwd\nprintf "%s\\n" "$@"\n')
    path.chmod(0o755)
    return path


def test_the_cron_line_runs_as_cron_would_run_it(shop: Workspace, program: Path) -> None:
    """Whatever characters the paths have; what it says is in a log in the home, which need not exist."""
    words = [str(program), "run", "-c", "it's 50%.yaml"]
    zone, line = schedule.crontab(shop, words, program.parent, "month", "04:05").splitlines()
    assert zone == "CRON_TZ=Europe/London"
    *when, command = line.split(" ", 5)
    assert when == ["5", "4", "1", "*", "*"]
    for _ in range(2):
        subprocess.run(["/bin/sh", "-c", command.replace(r"\%", "%")], check=True)
    log = (shop.home_path / "run.log").read_text().splitlines()
    assert log == [str(program.parent), "run", "-c", "it's 50%.yaml"] * 2


@pytest.mark.parametrize(("every", "when"), [("day", "0 4 * * *"), ("week", "0 4 * * 1"), ("month", "0 4 1 * *")])
def test_cron_is_told_how_often(every: Every, when: str, shop: Workspace) -> None:
    """A week begins on Monday, a month on its first."""
    assert schedule.crontab(shop, ["x"], Path("/"), every, "04:00").splitlines()[1].startswith(f"{when} cd / ")


def _systemd(*arguments: str) -> subprocess.CompletedProcess[str]:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd units: systemd-analyze is not installed")
    return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, check=False)


def test_systemd_takes_the_units(shop: Workspace, program: Path, tmp_path: Path) -> None:
    """It finds the program, the folder and the time, and has nothing to complain about."""
    units = tmp_path / "units"
    units.mkdir()
    words = [str(program), "run", "-c", str(program.parent / 'a "50%" $x.yaml')]
    (units / "perennial-shop.service").write_text(schedule.service(shop.name, words, program.parent))
    (units / "perennial-shop.timer").write_text(schedule.timer(shop, "month", "04:05"))
    done = _systemd("verify", *(str(unit) for unit in units.iterdir()))
    complaints = [line for line in done.stderr.splitlines() if "perennial-shop" in line]
    assert (done.returncode, complaints) == (0, []), done.stderr


@pytest.mark.parametrize("every", get_args(Every))
def test_systemd_understands_when(every: Every, shop: Workspace) -> None:
    """In the workspace's timezone."""
    calendar = schedule.timer(shop, every, "04:05").split("OnCalendar=")[1].splitlines()[0]
    done = _systemd("calendar", calendar)
    assert done.returncode == 0, done.stderr
    normal = {"day": "*-*-* 04:05:00", "week": "Mon *-*-* 04:05:00", "month": "*-*-01 04:05:00"}[every]
    assert f"Normalized form: {normal} Europe/London" in done.stdout
