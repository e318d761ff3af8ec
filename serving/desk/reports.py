"""What runs have left in the home's `reports` folder: pages for people, and beside them the same as JSON."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from workspace import storage

PAGE = re.compile(r"(run|backtest|outcomes|drift|check)[\w.-]*\.html|models/[a-z_]+-\d+/card\.html", re.ASCII)
_MOST = 12


def folder(home: Path) -> Path:
    return home / "reports"


def address(name: str) -> str:
    """Where the desk shows a page."""
    return f"/desk/reports/{name}"


def latest(home: Path) -> list[tuple[str, str]]:
    """The latest pages, each by what it is of and its name."""
    pages = sorted(folder(home).glob("*.html"), key=lambda path: path.stat().st_mtime, reverse=True)
    return [(path.name.split("-")[0], path.name) for path in pages if PAGE.fullmatch(path.name)][:_MOST]


def newest(home: Path, kind: str) -> str | None:
    """The address of the latest page of a kind: `check`, say; none where there is none."""
    names = [path.name for path in folder(home).glob(f"{kind}*.html") if PAGE.fullmatch(path.name)]
    return address(max(names)) if names else None


def noted(home: Path, kind: str) -> dict[str, Any]:
    """What the look at the latest day noted, `drift` or `outcomes`; empty before the first."""
    notes = sorted(folder(home).glob(f"{kind}-*.json"))
    return dict(storage.read_json(notes[-1])) if notes else {}


def runs(home: Path, as_of: str = "*") -> Iterator[tuple[str, dict[str, Any]]]:
    """The address of each run's page with what it noted, of one day where that is named; the one begun last first."""
    begun = sorted(folder(home).glob(f"run-{as_of}-*.json"), key=lambda path: path.stem.rsplit("-", 1)[-1])
    for path in reversed(begun):
        with suppress(FileNotFoundError):
            yield address(path.with_suffix(".html").name), storage.read_json(path)


def card(home: Path, kind: str, version: str) -> dict[str, Any]:
    """What is noted of how a version was trained and judged; empty where its card is gone."""
    path = folder(home) / "models" / f"{kind}-{version}" / "card.json"
    return dict(storage.read_json(path)) if path.exists() else {}


def versions(home: Path, kind: str) -> list[int]:
    """The versions of a kind that were trained from this home, the newest first."""
    cards = (folder(home) / "models").glob(f"{kind}-*/card.json")
    numbers = [path.parent.name.removeprefix(f"{kind}-") for path in cards]
    return sorted((int(number) for number in numbers if number.isdecimal()), reverse=True)
