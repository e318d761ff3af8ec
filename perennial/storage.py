"""Where the state of a workspace lies, and writing it so that a crash leaves the old or the new, never half."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import duckdb

# Hidden folders that `replacing` writes drafts in; a killed run leaves them behind.
_DRAFT = ".draft-"


class CheckFailed(RuntimeError):
    """The data or a gate does not allow what was asked. The command line exits with 1."""


def connect(home: Path, timezone: str = "UTC") -> duckdb.DuckDBPyConnection:
    """A DuckDB connection in `timezone` that spills to `home/tmp` instead of outgrowing the memory."""
    spill = home / "tmp"
    connection = duckdb.connect(config={"temp_directory": str(spill)})
    connection.execute("SET TimeZone = ?", [timezone])
    connection.execute("SET preserve_insertion_order = false")
    return connection


def quoted(text: str | Path) -> str:
    """`text` as a SQL string literal."""
    return "'" + str(text).replace("'", "''") + "'"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends well, and vanishes when it does not.

    The block may write a file or a folder. Rename is atomic: a reader sees the old content or the new.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=_DRAFT, dir=path.parent))
    try:
        draft = folder / path.name
        yield draft
        _flush(draft)
        if path.is_dir():
            os.replace(path, folder / "old")
        os.replace(draft, path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def locked(home: Path) -> Iterator[None]:
    """Sole use of a workspace's home; released by the system even when the process is killed.

    Raises:
        CheckFailed: another process is using it.
    """
    home.mkdir(parents=True, exist_ok=True)
    with (home / ".lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as problem:
            raise CheckFailed(f"{home} is in use by another perennial command; wait for it to end") from problem
        for draft in home.rglob(f"{_DRAFT}*"):
            shutil.rmtree(draft, ignore_errors=True)
        yield


def _flush(draft: Path) -> None:
    for file in draft.rglob("*") if draft.is_dir() else (draft,):
        if file.is_file():
            with file.open("rb") as handle:
                os.fsync(handle.fileno())


def write_json(path: Path, value: Any) -> None:
    with replacing(path) as draft:
        draft.write_text(json.dumps(value, indent=2, sort_keys=True, default=str) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def copy_to(
    connection: duckdb.DuckDBPyConnection, query: str, path: Path, metadata: Mapping[str, str] | None = None
) -> int:
    """Writes the rows of `query` to a Parquet file at `path`, atomically; returns how many."""
    noted = ", ".join(f"{key}: {quoted(value)}" for key, value in (metadata or {}).items())
    options = "FORMAT parquet, COMPRESSION zstd" + (f", KV_METADATA {{{noted}}}" if noted else "")
    with replacing(path) as draft:
        rows = connection.execute(f"COPY ({query}) TO {quoted(draft)} ({options})").fetchall()
    return int(rows[0][0])


def tables_folder(home: Path, table: str) -> Path:
    return home / "tables" / table


def parts(folder: Path) -> list[Path]:
    """The Parquet parts of a canonical table, in a stable order; drafts of a killed run are not among them."""
    return sorted(folder.glob("*.parquet"))


def rows_of(home: Path, table: str) -> str:
    """SQL that reads the accepted rows of a canonical table."""
    return f"read_parquet({quoted(tables_folder(home, table) / '*.parquet')})"


def snapshot_part(home: Path, family: str, as_of: date | str) -> Path:
    """The part of one family at one as_of; `*` for the glob of all of them.

    The folder is not named `as_of=...`: DuckDB would take that for a partition and overwrite the column.
    """
    return home / "snapshots" / family / str(as_of) / "part.parquet"


def scores_path(home: Path, as_of: date) -> Path:
    return home / "scores" / str(as_of) / "scores.parquet"


def offers_path(home: Path, as_of: date) -> Path:
    return home / "scores" / str(as_of) / "offers.parquet"


def percentiles_path(home: Path, as_of: date) -> Path:
    return home / "scores" / str(as_of) / "percentiles.json"


def latest_scored(home: Path) -> date:
    """The latest as_of with scores.

    Raises:
        CheckFailed: nothing was scored yet.
    """
    found = sorted(path.parent.name for path in (home / "scores").glob("*/scores.parquet"))
    if not found:
        raise CheckFailed(f"nothing is scored in {home} yet; run `perennial run -c FILE --as-of DATE`")
    return date.fromisoformat(found[-1])
