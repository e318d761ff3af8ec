"""The digests of a model's files, and the refusal of other files before anything reads them.

LightGBM ends the whole process at a text that is not whole.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from workspace.storage import CheckFailed

_BESIDE = "digests.json"


class ChangedModel(CheckFailed):
    """The files of a model are not those that were written."""


def of(folder: Path) -> dict[str, str]:
    """The SHA-256 of every file in a folder, by its path in there."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def changed(noted: Mapping[str, str], now: Mapping[str, str]) -> str:
    """The files, at most five, that are missing, others than noted, or were not there then; "" where there are none."""
    return ", ".join(sorted(name for name in {*noted, *now} if noted.get(name) != now.get(name))[:5])


def write(folder: Path) -> None:
    """Notes those of a model's files beside them."""
    path = folder / _BESIDE
    path.unlink(missing_ok=True)
    path.write_text(json.dumps(of(folder), indent=1), encoding="utf-8")


def check(folder: Path) -> None:
    """Holds a model's files against the digests beside them; without digests, as of an earlier version, it passes.

    Raises:
        ChangedModel: a file is missing, another one, or was not there.
    """
    if (folder / _BESIDE).exists() and (names := _changed_beside(folder)):
        raise ChangedModel(
            f"the model in {folder} is not what was written: {names} changed since; put a back-up's files there, load"
            " another version, or train again"
        )


def _changed_beside(folder: Path) -> str:
    now = of(folder)
    del now[_BESIDE]
    try:
        return changed(json.loads((folder / _BESIDE).read_text(encoding="utf-8")), now)
    except (ValueError, TypeError, AttributeError):
        return _BESIDE
