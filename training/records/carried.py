"""What a logged model carries, so that it answers where nothing of this project is: code, requirements, columns.

`mlflow models serve` and `mlflow.pyfunc.load_model` need no more than the model's own folder and an environment made
from its `requirements.txt`.
"""

from __future__ import annotations

import ast
import hashlib
import shutil
import sys
from collections.abc import Iterator, Sequence
from datetime import date
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from workspace.settings import Workspace

if TYPE_CHECKING:
    from mlflow.data.dataset import Dataset
    from mlflow.models import ModelSignature

ROOT = Path(__file__).resolve().parents[2]
_BESIDE = ("pandas",)  # by which MLflow hands rows over
_DISTRIBUTIONS = {"sklearn": "scikit-learn", "yaml": "PyYAML"}  # whose names are not what is imported
_DIGITS = 32  # of a data set's digest; MLflow keeps 36


def signature(columns: Sequence[str], answer: str) -> ModelSignature:
    """Columns by name: MLflow puts them into the model's order, and refuses rows without names."""
    from mlflow.models import ModelSignature
    from mlflow.types.schema import ColSpec, DataType, Schema

    shown = Schema([ColSpec(DataType.double, name) for name in columns])
    return ModelSignature(shown, Schema([ColSpec(DataType.double, answer)]))


def example(columns: Sequence[str]) -> pd.DataFrame:
    """A row of nobody: whoever bought one thing, once again a day later, for one of the currency."""
    return pd.DataFrame(1.0, index=[0], columns=list(columns))


def training_set(
    workspace: Workspace, kind: str, as_of: date, columns: Sequence[str], made_from: Sequence[str]
) -> Dataset:
    """The rows that a model learnt from, by name, digest and columns; they stay where they are, in the home.

    `made_from` tells them from all others: the tables, the cutoffs, the features.
    """
    from mlflow.data.meta_dataset import MetaDataset
    from mlflow.data.sources import LocalArtifactDatasetSource  # type: ignore[attr-defined]
    from mlflow.types.schema import ColSpec, DataType, Schema

    shown = Schema([ColSpec(DataType.float, name) for name in columns])
    digest = hashlib.sha256("\n".join(made_from).encode()).hexdigest()[:_DIGITS]
    source = LocalArtifactDatasetSource((workspace.home_path / "snapshots").as_uri())
    return MetaDataset(source, f"{workspace.name}.{kind} {as_of}", digest, shown)  # type: ignore[abstract]


def code(module: str, folder: Path) -> list[str]:
    """Copies a module, and what it needs of this project, into a folder; returns the packages' folders."""
    for path in _needed(module.rpartition(".")[0])[0]:
        copy = folder / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    return sorted(str(package) for package in folder.iterdir())


def requirements(module: str) -> list[str]:
    """What a module, and all that it needs of this project, imports: the versions that are installed."""
    distributions = {_DISTRIBUTIONS.get(name, name) for name in (*_needed(module.rpartition(".")[0])[1], *_BESIDE)}
    return sorted(f"{name}=={version(name)}" for name in distributions)


@lru_cache(maxsize=16)
def _needed(package: str) -> tuple[tuple[Path, ...], tuple[str, ...]]:
    """The files of this project that a package is made of, packages' own among them, and what else is imported.

    A module goes with all its neighbours: of two models that one process loads, the first one's code answers for both.
    """
    files: dict[Path, None] = {}
    neighbours = (ROOT / package.replace(".", "/")).glob("*.py")
    others, waiting = set(), [f"{package}.{path.stem}" for path in sorted(neighbours)]
    while waiting:
        name = waiting.pop()
        path = _file_of(name)
        if path is None or path in files:
            continue
        files[path] = None
        for imported in _imported(ast.parse(path.read_text(encoding="utf-8"))):
            waiting += _with_packages(imported)
            others.add(imported.partition(".")[0])
        waiting += _with_packages(name)
    ours = {path.relative_to(ROOT).parts[0] for path in files}
    return tuple(files), tuple(sorted(others - ours - sys.stdlib_module_names))


def _file_of(module: str) -> Path | None:
    path = ROOT / module.replace(".", "/")
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.exists()), None)


def _with_packages(module: str) -> list[str]:
    parts = module.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts) + 1)]


def _imported(tree: ast.AST) -> Iterator[str]:
    """The modules that are imported, and the names from them, which may be modules; not what only types need."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
            yield from _imported(node)
