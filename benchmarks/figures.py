"""What benchmarks measure, as JSON: a file for each benchmark, in it named parts, such as a shop's window.

A run writes to `benchmarks/results`, which is not in git. Figures that the pages show are kept in `docs/results`, from
which `benchmarks/results_page.py` writes the pages.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

RESULTS, KEPT = Path("benchmarks/results"), Path("docs/results")
_DIGITS = 6

Parts = Mapping[str, Any]


def write(benchmark: str, parts: Parts, folder: Path = RESULTS) -> None:
    """Writes what a benchmark has measured; a date as text."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{benchmark}.json").write_text(json.dumps(parts, indent=1, default=str) + "\n")


def read(benchmark: str, folder: Path = RESULTS) -> dict[str, Any]:
    """By part; nothing where the benchmark has not been run."""
    path = folder / f"{benchmark}.json"
    return dict(json.loads(path.read_text())) if path.exists() else {}


def keep(benchmark: str, measured: Path = RESULTS, kept: Path = KEPT) -> None:
    """Puts the parts of the last run, to six digits, in the place of the kept parts of the same names.

    Raises:
        FileNotFoundError: the benchmark has not been run here.
    """
    if not (found := read(benchmark, measured)):
        raise FileNotFoundError(f"{measured}/{benchmark}.json: no figures; run python -m benchmarks.{benchmark} first")
    write(benchmark, read(benchmark, kept) | _rounded(found), kept)


def _rounded(found: Any) -> Any:
    if isinstance(found, dict):
        return {name: _rounded(one) for name, one in found.items()}
    if isinstance(found, list):
        return [_rounded(one) for one in found]
    return float(f"{found:.{_DIGITS}g}") if isinstance(found, float) else found
