"""What a benchmark needs, asked for before it begins to work: programs, a Redis, data sets, and patience."""

from __future__ import annotations

import os
import re
import shutil
import socket
import sys
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

_UNANNOUNCED = 10  # minutes
REDIS = os.environ.get("PERENNIAL_BENCH_REDIS", "redis://127.0.0.1:6379/8")


def refuse_without(
    programs: Iterable[str] = (), redis: bool = False, shops: Iterable[str] = (), minutes: int = 0
) -> None:  # fmt: skip
    """Ends the process with a sentence for each thing that is not there; else says what takes more than ten minutes.

    `shops` are workspaces of `configs/`, whose data sets are wanted, or folders of the one PERENNIAL_DATASETS names.
    `minutes` are those of two cores, about.
    """
    missing = [f"the program {name}: apt-get install {name}" for name in programs if shutil.which(name) is None]
    if redis and not _answers(urlsplit(REDIS)):
        missing.append(f"a Redis at {REDIS}: start one, or name another in PERENNIAL_BENCH_REDIS")
    folder, wanted = os.environ.get("PERENNIAL_DATASETS"), {name for shop in shops for name in _data_sets(shop)}
    if folder is None and wanted:
        missing.append("data sets: name their folder in PERENNIAL_DATASETS")
    elif gone := sorted(name for name in wanted if not Path(str(folder), name).exists()):
        missing.append(f"data sets that {folder} does not have: {', '.join(gone)}")
    if missing:
        sys.exit("\n".join(f"this benchmark needs {what}" for what in missing))
    if minutes > _UNANNOUNCED:
        print(f"this benchmark takes about {minutes} minutes on two cores", file=sys.stderr, flush=True)


def _answers(address: SplitResult) -> bool:
    try:
        with socket.create_connection((address.hostname or "127.0.0.1", address.port or 6379), timeout=2):
            return True
    except OSError:
        return False


def _data_sets(shop: str) -> list[str]:
    config = Path(f"configs/{shop}.yaml")
    return re.findall(r"\$\{PERENNIAL_DATASETS\}/(\w+)", config.read_text()) if config.exists() else [shop]
