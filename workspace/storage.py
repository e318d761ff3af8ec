"""Where the state of a workspace lies, and writing it so that a crash leaves the old or the new, never half."""

from __future__ import annotations

import fcntl
import fnmatch
import json
import os
import re
import shutil
import sqlite3
import stat
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import date
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import duckdb

# Hidden folders that `replacing` writes drafts in; a killed run leaves them behind.
_DRAFT = ".draft-"
_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_NO_ROOM = ("No space left on device", "database or disk is full", "Disk quota exceeded")
_PATIENCE = 5  # seconds that a writer of a database waits for another
_TRIES = 5
_PAUSE = 0.1  # seconds between them
_P = ParamSpec("_P")
_Read = TypeVar("_Read")


class CheckFailed(RuntimeError):
    """The data or a gate does not allow what was asked. The command line exits with 1.

    >>> perennial.open("shop.yaml").at("2020-01-01").scores()
    Traceback (most recent call last):
    workspace.storage.CheckFailed: ...
    """


def connect(home: Path, timezone: str = "UTC", memory: float | None = None) -> duckdb.DuckDBPyConnection:
    """A DuckDB connection in `timezone` that spills to `home/tmp` beyond `memory` gigabytes, or most of the machine's.

    DuckDB 2 names spilled files after the process and removes those of processes that were killed.
    """
    connection = duckdb.connect(config={"temp_directory": str(home / "tmp")})
    connection.execute("SET TimeZone = ?", [timezone])
    if memory is not None:
        connection.execute("SET memory_limit = ?", [f"{memory}GB"])
    connection.execute("SET preserve_insertion_order = false")
    # On in processes that have no main file; in Jupyter without ipywidgets it is off, and DuckDB 2.0 refuses to set it.
    if connection.execute("SELECT current_setting('enable_progress_bar')").fetchall() == [(True,)]:
        connection.execute("SET enable_progress_bar = false")
    return connection


def quoted(text: str | Path) -> str:
    """`text` as a SQL string literal."""
    return "'" + str(text).replace("'", "''") + "'"


def quoted_path(path: Path) -> str:
    """A path as a SQL string literal that DuckDB does not take for a glob."""
    return quoted(re.sub(r"[\[*?]", r"[\g<0>]", str(path)))


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside `path` for the block to write a file or a folder at; it takes that place when the block ends well.

    Only its owner may read it. Rename is atomic: a reader sees the old content or the new, also after a crash. A folder
    cannot be exchanged like that, so one that is there already is refused.
    """
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; a file is to be written there: move the folder, or name a file")
    make_folder(path.parent)
    folder = Path(tempfile.mkdtemp(prefix=_DRAFT, dir=path.parent))
    try:
        draft = folder / path.name
        yield draft
        for written in (*draft.rglob("*"), draft):
            _keep_private(written)
            _to_disk(written)
        os.replace(draft, path)
        _to_disk(path.parent)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def make_folder(path: Path) -> None:
    """Makes a folder and those above it, each for its owner alone, whatever the umask is."""
    for folder in (*reversed(path.parents), path):
        if not folder.is_dir():
            folder.mkdir(mode=0o700, exist_ok=True)


def _keep_private(path: Path) -> None:
    """Takes away what others than the owner may do with a file or a folder."""
    with suppress(FileNotFoundError, PermissionError):  # a service is at work beside; or it is somebody else's
        mode = stat.S_IMODE(path.lstat().st_mode)
        if mode & _OTHERS and not path.is_symlink():
            path.chmod(mode & ~_OTHERS)


def remove(folder: Path) -> None:
    """Removes a folder that others may be reading: at once, not file by file."""
    grave = Path(tempfile.mkdtemp(prefix=_DRAFT, dir=folder.parent))
    os.replace(folder, grave / folder.name)
    shutil.rmtree(grave)


def below(home: Path, pattern: str) -> list[Path]:
    """Files and folders anywhere in `home` whose names match a pattern, sorted.

    A folder that others remove meanwhile is passed over; `Path.rglob` would fail.
    """
    matches = (
        Path(folder, name)
        for folder, folders, files in os.walk(home)
        for name in fnmatch.filter((*folders, *files), pattern)
    )
    return sorted(matches)


def _to_disk(path: Path) -> None:
    """Flushes a file's content, or a folder's names, so that they outlive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_full(problem: BaseException) -> bool:
    """Whether the disk is full, as the system, DuckDB and Arrow say it, or SQLite."""
    return any(text in str(problem) for text in _NO_ROOM)


class InUse(CheckFailed):
    """Another command is at work in a workspace's home."""


@contextmanager
def locked(home: Path, holder: str) -> Iterator[None]:
    """Sole use of a workspace's home; released by the system even when the process is killed.

    `holder` says who has it, and since when, to whoever is refused meanwhile.

    Raises:
        InUse: another process is using it.
    """
    make_folder(home)
    with (home / ".lock").open("a+", encoding="utf-8") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as problem:
            handle.seek(0)
            raise InUse(f"{home} is in use by {handle.read()}; wait for it to end, or stop it") from problem
        handle.truncate(0)
        handle.write(holder)
        handle.flush()
        for draft in below(home, f"{_DRAFT}*"):
            shutil.rmtree(draft, ignore_errors=True)
        for path in (home, *below(home, "*")):  # an earlier version let others read
            _keep_private(path)
        yield


def write_json(path: Path, value: Any) -> None:
    with replacing(path) as draft:
        draft.write_text(json.dumps(value, indent=2, sort_keys=True, default=str) + "\n", encoding="utf-8")


def edition(path: Path) -> tuple[int, ...]:
    """Another one where a file was replaced, also within one tick of the file system's clock."""
    stat = path.stat()
    return stat.st_mtime_ns, stat.st_ino, stat.st_size


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def database(path: Path, schema: str) -> sqlite3.Connection:
    """A SQLite database for its owner's eyes, made with `schema` where it is not there.

    A commit outlives a power cut, and what is deleted is overwritten, not just unlinked. Without a write-ahead log:
    whoever only reads then needs no room on the disk, and these are read far more often than they are written. In a
    read-only folder it is as it lies there, or empty.
    """
    if path.parent.exists() and not os.access(path.parent, os.W_OK):
        return _read_only(path, schema)
    make_folder(path.parent)
    path.touch(mode=0o600)
    connection = sqlite3.connect(path, timeout=_PATIENCE, check_same_thread=False)
    for pragma in ("journal_mode = DELETE", "synchronous = FULL", "secure_delete = ON"):
        connection.execute(f"PRAGMA {pragma}")
    connection.execute(schema)
    return connection


def add_column(connection: sqlite3.Connection, table: str, column: str) -> None:
    """Gives a table that an earlier version made a column of texts, all null; who may not write sees it so."""
    if _has_column(connection, table, column):
        return
    try:
        connection.execute(f"ALTER TABLE {table} ADD COLUMN {column} TEXT")
    except sqlite3.OperationalError as problem:
        if problem.sqlite_errorcode == sqlite3.SQLITE_READONLY:
            connection.execute(f"CREATE TEMP VIEW {table} AS SELECT *, NULL AS {column} FROM main.{table}")
        elif not _has_column(connection, table, column):  # as it has where another process was quicker
            raise


def _has_column(connection: sqlite3.Connection, table: str, column: str) -> bool:
    return column in {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}


def is_written(path: Path) -> bool:
    """Whether there is anything in a database: one that a full disk did not let begin is empty."""
    try:
        return path.stat().st_size > 0
    except FileNotFoundError:
        return False


def reading(path: Path) -> sqlite3.Connection:
    """A database that is there, for who only reads: in a read-only folder SQLite can lay no log of writes beside it."""
    if os.access(path.parent, os.W_OK):
        return sqlite3.connect(path, timeout=12 * _PATIENCE)  # Feast's online store has one writer at a time
    how = "mode=ro" if path.with_name(f"{path.name}-wal").exists() else "immutable=1"
    return sqlite3.connect(f"{path.resolve().as_uri()}?{how}", uri=True, check_same_thread=False)


def _read_only(path: Path, schema: str) -> sqlite3.Connection:
    if path.exists():
        return reading(path)
    connection = sqlite3.connect(":memory:", check_same_thread=False)
    connection.execute(schema)
    return connection


def copy_to(
    connection: duckdb.DuckDBPyConnection,
    query: str,
    path: Path,
    metadata: Mapping[str, str] | None = None,
    codec: str = "zstd",
    row_group: int = 122_880,
) -> int:
    """Writes the rows of `query` to a Parquet file at `path`, atomically; returns how many."""
    noted = ", ".join(f"{key}: {quoted(value)}" for key, value in (metadata or {}).items())
    options = f"FORMAT parquet, COMPRESSION {codec}, ROW_GROUP_SIZE {row_group}"
    options += f", KV_METADATA {{{noted}}}" if noted else ""
    with replacing(path) as draft:
        rows = connection.execute(f"COPY ({query}) TO {quoted(draft)} ({options})").fetchall()
    return int(rows[0][0])


def tables_folder(home: Path, table: str) -> Path:
    return home / "tables" / table


def manifest_path(home: Path, table: str) -> Path:
    return tables_folder(home, table) / "manifest.json"


def sources_of(folder: Path) -> list[dict[str, Any]]:
    """What the manifest of a canonical table says of each source that was taken in; empty before the first."""
    manifest = folder / "manifest.json"
    return list(read_json(manifest)["sources"]) if manifest.exists() else []


def parts(folder: Path) -> list[Path]:
    """The Parquet parts of a canonical table, in a stable order: those that its manifest names.

    A part that the manifest does not name is one that a killed run had not committed.
    """
    return [folder / f"{part}.parquet" for part in sorted({source["part"] for source in sources_of(folder)})]


def rows_of(home: Path, table: str) -> str:
    """SQL that reads the accepted rows of a canonical table.

    Raises:
        CheckFailed: no row of it was ingested yet.
    """
    files = parts(tables_folder(home, table))
    if not files:
        raise CheckFailed(f"no rows of {table} are in {home} yet; run `perennial ingest -c FILE`")
    return reader(files)


def read_again(read: Callable[_P, _Read]) -> Callable[_P, _Read]:
    """`read`, tried again where DuckDB fails: for who reads outside the home's lock, beside an erasure.

    DuckDB opens a file once for its columns and once for its rows, and another may take its place in between. What
    fails every time is damaged.
    """

    @wraps(read)
    def patient(*args: _P.args, **kwargs: _P.kwargs) -> _Read:
        for _ in range(_TRIES - 1):
            try:
                return read(*args, **kwargs)
            except duckdb.Error:
                time.sleep(_PAUSE)
        return read(*args, **kwargs)

    return patient


def reader(files: Sequence[Path]) -> str:
    """SQL that reads Parquet files of ours, taking nothing from the folders' names."""
    return f"read_parquet([{', '.join(map(quoted_path, files))}], hive_partitioning=false)"


def snapshot_part(home: Path, family: str, as_of: date | str) -> Path:
    """The part of one family at one as_of, a folder of Parquet files; `*` for the glob of all of them.

    The folder is not named `as_of=...`: DuckDB would take that for a partition and overwrite the column.
    """
    return home / "snapshots" / family / str(as_of)


def rows_of_part(part: Path) -> str:
    """SQL that reads the rows of a snapshot's part."""
    return reader([*part.glob("*.parquet")])


def scores_path(home: Path, as_of: date) -> Path:
    return home / "scores" / str(as_of) / "scores.parquet"


def offers_path(home: Path, as_of: date) -> Path:
    return home / "scores" / str(as_of) / "offers.parquet"


def shadow_path(home: Path, as_of: date, what: str) -> Path:
    """What the challengers say at an as_of, `scores` or `offers`, where no list and no service looks."""
    return home / "shadow" / str(as_of) / f"{what}.parquet"


def models_path(home: Path, as_of: date, folder: str = "scores") -> Path:
    """When the models behind the scores and offers of an as_of were trained, of `scores` or of `shadow`."""
    return home / folder / str(as_of) / "models.json"


def bought_with_path(home: Path, as_of: date) -> Path:
    return home / "scores" / str(as_of) / "bought_with.parquet"


def risk_path(home: Path, as_of: date, sort: str = "value_at_risk") -> Path:
    """Who may be at risk at an as_of with their best offer, highest `sort` first."""
    return home / "scores" / str(as_of) / f"risk-by-{sort}.parquet"


def percentiles_path(home: Path, as_of: date) -> Path:
    return home / "scores" / str(as_of) / "percentiles.json"


def latest_scored(home: Path) -> date:
    """The latest as_of with scores.

    Raises:
        CheckFailed: nothing was scored yet.
    """
    dates = scored(home)
    if not dates:
        raise CheckFailed(f"nothing is scored in {home} yet; run `perennial run -c FILE --as-of DATE`")
    return dates[-1]


def scored(home: Path) -> list[date]:
    """Every as_of with scores, the latest one last."""
    return sorted(date.fromisoformat(path.parent.name) for path in (home / "scores").glob("*/scores.parquet"))
