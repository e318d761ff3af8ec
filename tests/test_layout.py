"""The house: which folder may import which."""

from __future__ import annotations

import ast
import graphlib
import re
import tomllib
from importlib.metadata import packages_distributions
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# In the order in which data flow; a folder imports only those before it.
STAGES = ("workspace", "ingest", "simulation", "features", "training", "serving", "monitoring")
OURS = (*STAGES, "pages", "perennial")
# Rooms of a stage, each importing only those before it.
ROOMS = {
    "features": ("families", "items"),
    "training": ("models", "learning", "backtests", "records", "gate"),
    "serving": ("lists", "http", "desk", "assistant", "own_page"),
    "perennial": ("commands",),
}
CLOCK = "perennial.shop"
ROLES = {"utils", "util", "helpers", "common", "base", "manager", "misc"}
FOUND_IN_JSON = {"serving.erasure_queue", "serving.http.bodies", "training.check.sufficiency"}


def _modules(folder: str) -> dict[str, Path]:
    """By dotted name."""
    paths = sorted((ROOT / folder).rglob("*.py"))
    names = (".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in paths)
    return dict(zip(names, paths, strict=True))


MODULES = {name: path for folder in OURS for name, path in _modules(folder).items()}


def _imported(path: Path) -> set[str]:
    """The modules of ours that a module imports, wherever in it, for types too."""
    modules = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            modules |= (names & {*MODULES}) or {node.module}
    return modules & {*MODULES}


IMPORTS = {name: _imported(path) for name, path in MODULES.items()}


@pytest.mark.parametrize("folder", [*STAGES, "pages"])
def test_a_folder_imports_only_those_before_it(folder: str) -> None:
    """Stages depend on earlier stages alone; any may use `pages`, which needs none, and nothing needs `perennial`."""
    allowed = {folder, "pages", *(STAGES[: STAGES.index(folder)] if folder in STAGES else ())}
    for name in _modules(folder):
        wrong = {other for other in IMPORTS[name] if other.split(".")[0] not in allowed}
        assert not wrong, f"{name} imports {', '.join(sorted(wrong))}"


@pytest.mark.parametrize(("stage", "rooms"), ROOMS.items())
def test_a_room_imports_only_those_before_it(stage: str, rooms: tuple[str, ...]) -> None:
    """Within a stage, too, imports run one way."""
    for earlier, later in pairwise(rooms):
        for name, others in IMPORTS.items():
            if name.startswith(f"{stage}.{earlier}."):
                wrong = {other for other in others if other.startswith(f"{stage}.{later}.")}
                assert not wrong, f"{name} imports {', '.join(sorted(wrong))}"


@pytest.mark.parametrize("stage", STAGES[1:])
def test_below_the_door_of_a_stage_goes_what_is_needed(stage: str) -> None:
    """A stage's own functions get a home or one group of settings, not a whole workspace to read one thing of it.

    Those that stand in a table beside others take what the others take.
    """
    for path in _modules(stage).values():
        tree = ast.parse(path.read_text())
        calls = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
        names = [node for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)]
        as_values = {node.id for node in names if id(node) not in calls}
        for function in tree.body:
            if isinstance(function, ast.FunctionDef) and function.name.startswith("_"):
                read = _read_of_workspace(function)
                assert len(read) != 1 or "" in read or function.name in as_values, (
                    f"{path.relative_to(ROOT)}: {function.name} reads only `{read.pop()}` of its workspace"
                )


def _read_of_workspace(function: ast.FunctionDef) -> set[str]:
    """What a function reads of the workspace that it is given; "" where it hands the whole of it on."""
    given = [arg.arg for arg in function.args.args if arg.annotation and ast.unparse(arg.annotation) == "Workspace"]
    nodes = [*ast.walk(function)]
    read = [n for n in nodes if isinstance(n, ast.Attribute) and isinstance(n.value, ast.Name) and n.value.id in given]
    used = [n for n in nodes if isinstance(n, ast.Name) and n.id in given]
    return {node.attr for node in read} | ({""} if len(used) > len(read) else set())


def test_no_module_is_imported_by_what_it_imports() -> None:
    """A circle would fail here with its modules named."""
    graphlib.TopologicalSorter({name: others - {name} for name, others in IMPORTS.items()}).prepare()


def test_only_the_front_door_reads_the_clock() -> None:
    """No module but the command line's asks what time it is; waiting and measuring a duration are no clock."""
    for name, path in MODULES.items():
        if name == CLOCK:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and node.attr in {"now", "today", "utcnow"}:
                owner = ast.unparse(node.value).split(".")[-1]
                assert owner not in {"datetime", "date", "Timestamp"}, f"{path.relative_to(ROOT)}:{node.lineno}"


def test_modules_are_named_after_things_and_each_name_means_one() -> None:
    """No module is named after a role, and no two of the stages are called the same.

    The made-up shop has parts, and the commands subjects, that are called as what they stand for.
    """
    assert not {path.stem for path in MODULES.values()} & ROLES
    stages = [f"{stage}." for stage in STAGES if stage != "simulation"]
    stems = [path.stem for name, path in MODULES.items() if path.stem != "__init__" and name.startswith((*stages,))]
    assert {stem for stem in stems if stems.count(stem) > 1} == set()


def test_nothing_is_called_found() -> None:
    """A name says what a thing is; only JSON counts what was `found`."""
    for path in (path for name, path in MODULES.items() if name not in FOUND_IN_JSON):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()) | ast.arg(arg=name):
                    assert name.strip("_") != "found", f"{path.relative_to(ROOT)}:{node.lineno}"


def test_every_room_says_what_it_is() -> None:
    """A folder's first line is a sentence for who has never seen it."""
    for path in MODULES.values():
        if path.stem == "__init__":
            assert ast.get_docstring(ast.parse(path.read_text())), f"{path.relative_to(ROOT)} has no docstring"


def test_no_folder_has_the_name_of_a_dependency() -> None:
    """The folders are installed under their own names, so none may be a package of somebody else."""
    installed = packages_distributions()
    assert {folder: set(installed.get(folder, ())) - {"perennial-crm"} for folder in OURS} == {f: set() for f in OURS}


def test_what_is_installed_ships_its_types() -> None:
    """A type checker reads the annotations of every folder that is installed."""
    assert all((ROOT / folder / "py.typed").exists() for folder in OURS)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "py.typed" in project["tool"]["setuptools"]["package-data"]["*"]


def test_the_feast_folder_holds_definitions_and_nothing_else() -> None:
    """Feast imports everything below `features/repo`, so nothing else may lie there."""
    names = {path.name for path in (ROOT / "features" / "repo").iterdir() if not path.name.startswith("__")}
    assert names == {"definitions.py", "feature_store.yaml"}


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
            match = re.search(
                r"install[^\n]*\bperennial(\[|'|\"|=|$)|requirements=\[\"perennial\b", path.read_text(), re.M
            )
            assert match is None, f"{path.relative_to(ROOT)}: {match and match[0]}"
