"""The house: which folder may import which."""

from __future__ import annotations

import ast
import graphlib
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
OURS = {"perennial", "simulation", "features", "training", "serving", "monitoring", "pages"}
MAY_IMPORT = {  # and `pages`, which any of them may
    "pages": set(),
    "perennial": {"perennial"},
    "simulation": {"simulation"},
    "features": {"perennial", "features"},
    "training": {"perennial", "features", "training"},
    "serving": {"perennial", "features", "serving", "training.models"},
    "monitoring": {"perennial", "features", "monitoring", "training.labels", "training.metrics", "training.models"},
}
# The front door, which alone puts the stages together.
FRONT = {ROOT / "perennial" / name for name in ("__init__.py", "cli.py", "models.py", "month.py", "shop.py")}
FRONT |= {*(ROOT / "perennial" / "commands").glob("*.py")}
ROLES = {"utils", "util", "helpers", "common", "base", "manager", "misc"}


def _modules(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def _imported(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.split(".")[0] in OURS}


@pytest.mark.parametrize("folder", sorted(OURS))
def test_a_folder_imports_only_what_the_design_allows(folder: str) -> None:
    """Stages depend on earlier stages alone; only the front door puts all of them together."""
    for path in _modules(folder):
        if path in FRONT:
            continue
        for name in _imported(path):
            allowed = any(name == may or name.startswith(f"{may}.") for may in {*MAY_IMPORT[folder], "pages"})
            assert allowed, f"{path.relative_to(ROOT)} imports {name}"


# Two modules of `features` and two of `serving` still import each other.
@pytest.mark.parametrize("folder", sorted(OURS - {"features", "serving"}))
def test_no_module_is_imported_by_what_it_imports(folder: str) -> None:
    """Within a folder imports run one way: a circle would fail here with its modules named."""
    names = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in _modules(folder)}
    imports = {
        name: {other for other in names if any(f"{found}.".startswith(f"{other}.") for found in _imported(path))}
        for name, path in names.items()
    }
    graphlib.TopologicalSorter(imports).prepare()


def test_one_module_reads_the_clock() -> None:
    """One module asks what time it is, for commands and Python alike; waiting and measuring a duration are no clock."""
    for folder in OURS:
        for path in _modules(folder):
            if path == ROOT / "perennial/shop.py":
                continue
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Attribute) and node.attr in {"now", "today", "utcnow"}:
                    owner = ast.unparse(node.value).split(".")[-1]
                    assert owner not in {"datetime", "date", "Timestamp"}, f"{path.relative_to(ROOT)}:{node.lineno}"


def test_nothing_imports_the_front_door() -> None:
    """Commands call the stages, and never the other way round."""
    names = {".".join(path.relative_to(ROOT).with_suffix("").parts) for path in FRONT}
    behind = [path for folder in OURS for path in _modules(folder) if path not in FRONT and path.stem != "__main__"]
    found = {path: name for path in behind for name in _imported(path) for door in names if f"{name}.".startswith(door)}
    assert not found


def test_what_is_installed_ships_its_types() -> None:
    """A type checker reads the annotations of every folder that is installed."""
    assert all((ROOT / folder / "py.typed").exists() for folder in OURS)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "py.typed" in project["tool"]["setuptools"]["package-data"]["*"]


def test_modules_are_named_after_things() -> None:
    """No module is named after a role."""
    for folder in OURS:
        assert not {path.stem for path in _modules(folder)} & ROLES


def test_the_feast_folder_holds_definitions_and_nothing_else() -> None:
    """Feast imports everything below `features/repo`, so nothing else may lie there."""
    found = {path.name for path in (ROOT / "features" / "repo").iterdir() if not path.name.startswith("__")}
    assert found == {"definitions.py", "feature_store.yaml"}


@pytest.mark.parametrize("lock", sorted(ROOT.glob("requirements*.lock")), ids=lambda path: path.name)
def test_no_file_carries_a_registry_address(lock: Path) -> None:
    """A lock names packages and hashes; where they come from is the reader's business."""
    text = lock.read_text()
    assert "://" not in text
    assert "--index-url" not in text


def test_nobody_is_told_to_install_a_strangers_package() -> None:
    """`perennial` on PyPI is somebody else's: no page, message or recorded model may fetch it."""
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["name"] == "perennial-crm"
    kinds = (".py", ".md", ".toml", ".yaml", ".yml")
    files = [path for folder in (*OURS, "docs", "examples", "configs") for path in (ROOT / folder).rglob("*")]
    for path in (*files, *ROOT.glob("*.*"), ROOT / "Makefile"):
        if path.suffix in kinds or path.name == "Makefile":
            found = re.search(
                r"install[^\n]*\bperennial(\[|'|\"|=|$)|requirements=\[\"perennial\b", path.read_text(), re.M
            )
            assert found is None, f"{path.relative_to(ROOT)}: {found and found[0]}"
