"""An environment that has what some requirements ask for, out of the lock, and nothing of this project."""

from __future__ import annotations

import sys
import venv
from collections.abc import Iterable
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def environment(requirements: Iterable[str], folder: Path) -> Path:
    """The Python of a new virtual environment with these requirements and what they require, each as it is installed
    here, linked file by file's package; no index is asked.

    Raises:
        AssertionError: a version that is asked for is another than the one that is here.
    """
    venv.create(folder, symlinks=True, with_pip=False)
    site, python = next(folder.glob("lib/python*/site-packages")), folder / "bin" / Path(sys.executable).name
    for package in _required(map(Requirement, requirements)).values():
        for name in {file.parts[0] for file in package.files or ()} - {"..", "__pycache__"}:
            if not (site / name).exists():
                (site / name).symlink_to(Path(str(package.locate_file(name))))
        for script in package.entry_points.select(group="console_scripts"):
            start = python.with_name(script.name)
            start.write_text(f"#!{python}\nfrom {script.module} import {script.attr}\n\n{script.attr}()\n")
            start.chmod(0o755)
    return python


def _required(asked: Iterable[Requirement]) -> dict[str, Distribution]:
    distributions: dict[str, Distribution] = {}
    waiting, seen = list(asked), set()
    while waiting:
        one = waiting.pop()
        if str(one) in seen:
            continue
        seen.add(str(one))
        here = distribution(one.name)
        assert one.specifier.contains(here.version, prereleases=True), f"{one} is asked for, {here.version} is here"
        distributions[canonicalize_name(one.name)] = here
        for more in map(Requirement, here.requires or ()):
            if more.marker is None or any(more.marker.evaluate({"extra": extra}) for extra in ("", *one.extras)):
                waiting.append(more)
    return distributions
