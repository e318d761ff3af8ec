"""The page of settings: every key is there with its meaning, and every key does something."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from workspace.settings import Workspace, group_of
from workspace.settings_page import describe

ROOT = Path(__file__).resolve().parents[2]


def _fields(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, info in model.model_fields.items():
        yield f"{prefix}{name}", info
        inner = group_of(info.annotation)
        if inner is not None:
            yield from _fields(inner, f"{prefix}{name}.")


def test_every_setting_has_a_description() -> None:
    """A key without a word about it cannot be used by a newcomer."""
    assert not [key for key, info in _fields(Workspace) if not info.description]


def test_the_page_of_settings_is_current_and_complete() -> None:
    """`docs/settings.md` is what the models say now, and has every key."""
    page = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    assert page == describe(), "python -c \"from workspace.settings_page import describe; print(describe(), end='')\""
    for key, _ in _fields(Workspace):
        top, _, rest = key.partition(".")
        own = rest.partition(".")[2]
        shown = f"tables.<table>.{own}" if top == "tables" and own else key
        assert f"| `{shown}` |" in page, key


def test_every_setting_is_read_somewhere() -> None:
    """A key that no code asks for would promise what nothing does."""
    code = "".join(
        file.read_text()
        for folder in ("workspace", "ingest", "features", "training", "serving", "monitoring", "perennial")
        for file in (ROOT / folder).rglob("*.py")
    )
    for key, info in _fields(Workspace):
        if group_of(info.annotation) is None:
            group, _, name = key.rpartition(".")
            owner = "table|customers" if group.startswith("tables.") else group.rpartition(".")[2] or "workspace"
            assert re.search(rf"\b({owner}|self)\.{name}\b", code), f"nothing reads {key}"
