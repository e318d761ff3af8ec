"""A home that nobody may write into: a back-up, a share, a disk that the system has shut."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from perennial.cli import app
from serving.consent import Consents
from serving.http.keys import Keys
from workspace import storage

NOW = datetime(2023, 7, 1, 18, tzinfo=UTC)


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """For root, who may write whatever its rights are, by a mount."""
    if os.geteuid():
        for path in (folder, *folder.rglob("*")):
            path.chmod(path.stat().st_mode & ~0o222)
        yield
        return
    mounts = (["mount", "--bind", folder, folder], ["mount", "-o", "remount,ro,bind", folder])
    if any(subprocess.run(mount, capture_output=True, check=False).returncode for mount in mounts):
        pytest.skip("root writes everywhere, and may not mount here")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.fixture(scope="module")
def home(shop: Any, environment: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A copy of the shop's, in which a consent was withdrawn, with MLflow's folder, both read-only."""
    copied = shutil.copytree(shop.workspace.home_path, tmp_path_factory.mktemp("read_only") / "home")
    Consents(copied).put("c0147", {"marketing": False}, NOW)
    Keys(copied).add("crm", NOW, name="call centre")
    mlruns = Path(shop.tracking_uri.removeprefix("sqlite:///")).parent
    with read_only(copied), read_only(mlruns):
        yield copied


def said(shop: Any, home: Path, *command: str) -> Result:
    config = shop.workspace.home_path.parent / "workspace.yaml"
    return CliRunner().invoke(app, [*command, "-c", str(config), "--home", str(home)])


def test_a_list_is_shown_and_what_is_not_noted_is_said(shop: Any, home: Path) -> None:
    """Who withdrew a consent is not on it; neither log has it, and that is told."""
    result = said(shop, home, "list", "churn-risk", "--top", "500", "--format", "json")
    assert result.exit_code == 0, result.output
    listed = {row["customer_id"] for row in json.loads(result.stdout)}
    assert len(listed) > 100
    assert "c0147" not in listed
    assert "the home is read-only, so no line of the audit log says who has read this" in result.stderr
    assert "the home is read-only, so what is listed is not in the prediction log" in result.stderr


@pytest.mark.parametrize(
    "command",
    [("export", "scores"), ("export", "features"), ("churn", "segments"), ("keys", "list"), ("list", "bought-with"),
     ("check", "--as-of", "2023-07-01"), ("churn", "sensitivity", "--as-of", "2023-07-01")],
    ids=" ".join,
)  # fmt: skip
def test_what_only_reads_goes_on(command: tuple[str, ...], shop: Any, home: Path, tmp_path: Path) -> None:
    """Exports, groups, keys, the look at the data: none of them needs to write into the home."""
    out = ("--out", str(tmp_path / "rows.csv")) if "export" in command or "bought-with" in command else ()
    result = said(shop, home, *command, *out)
    assert result.exit_code == 0, (result.output, result.exception)
    assert not out or (tmp_path / "rows.csv").stat().st_size > 40
    assert "call centre" in result.output or command != ("keys", "list")


@pytest.mark.parametrize("command", [("list", "churn-risk", "--contacts"), ("customer", "c0212")], ids=" ".join)
def test_nobody_is_reached_without_a_line(command: tuple[str, ...], shop: Any, home: Path) -> None:
    """Contact data, and all that is held of one customer, are shown only where the audit log says to whom."""
    result = said(shop, home, *command)
    assert isinstance(result.exception, storage.CheckFailed)
    assert "contact data are not shown without a line there" in str(result.exception)
    assert "c0" not in result.output
