"""Which sources a table has: files by path, folder or glob, or one SQL table copied to a file."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from glob import glob, has_magic
from pathlib import Path

from ingest import databases
from workspace.settings import SettingsError, Table

NaturalOrder = tuple[tuple[tuple[str, int], ...], str]
PARQUET, CSV = (".parquet", ".pq"), (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".txt")


@dataclass(frozen=True)
class Source:
    """One file, or one SQL table copied to a file. `origin` is its stable name, `file` where its rows are.

    `as_text` says that its values are texts as they were written, whose types are still to be found out.
    """

    origin: str
    file: Path
    as_text: bool

    @property
    def is_csv(self) -> bool:
        return _is_csv(self.file)

    def fingerprint(self) -> str:
        return fingerprint(self.file)


def fingerprint(file: Path) -> str:
    """SHA-256 of the content: the same file under another name is the same source."""
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def find(name: str, table: Table, scratch: Path) -> list[Source]:
    """The sources of a canonical table, in the order of `path` and, within a folder or glob, of their names.

    Raises:
        SettingsError: a file or folder that does not exist or holds nothing readable, an unreachable database.
    """
    if table.database is not None:
        copy = scratch / f"{name}.parquet"
        databases.copy(name, table, copy)
        return [Source(databases.origin(table), copy, as_text=databases.is_sqlite(table))]
    files = [file for pattern in table.path or () for file in _matches(name, pattern)]
    return [Source(str(file), file, as_text=_is_csv(file)) for file in dict.fromkeys(files)]


def handed_over(file: Path) -> Source:
    """Events that came over HTTP; they are in Parquet."""
    return Source(str(file), file, as_text=False)


def covers(table: Table, origin: str) -> bool:
    """Whether the table's settings still name a source that was taken in before, be it there or not."""
    if table.database is not None:
        return origin == databases.origin(table)
    return any(_names(pattern, origin) for pattern in table.path or ())


def in_order(file: Path | str) -> NaturalOrder:
    """What sorts names as a person does: by their folders, and by digits as numbers; `export-9` before `export-10`."""
    pieces = tuple(re.split(r"([0-9]+)", part) for part in Path(file).parts)
    flat = [(piece, -1) if place % 2 == 0 else ("", int(piece)) for part in pieces for place, piece in enumerate(part)]
    return tuple(flat), str(file)


def place(table: Table, origin: str) -> tuple[int, NaturalOrder]:
    """What sorts sources that the settings name, be they there or not, in the order in which `find` gives them.

    Sources that they do not name, as events that came over HTTP, come before.
    """
    if table.database is not None:
        return (0 if covers(table, origin) else -1), in_order(origin)
    named = [number for number, pattern in enumerate(table.path or ()) if _names(pattern, origin)]
    return min(named, default=-1), in_order(origin)


def _names(pattern: str, origin: str) -> bool:
    absolute = _absolute(pattern)
    if absolute.is_dir():
        return Path(origin).parent == absolute
    if "**" in pattern:
        return fnmatchcase(origin, str(absolute).replace("**/", "*"))
    return origin == str(absolute) or Path(origin).match(str(absolute))


def _absolute(pattern: str) -> Path:
    """Without following links, so that a source is called what the settings call it."""
    return Path(os.path.abspath(Path(pattern).expanduser()))


def _matches(name: str, pattern: str) -> list[Path]:
    path = _absolute(pattern)
    if path.is_dir():
        readable = (file for file in path.iterdir() if _is_readable(file) and not file.name.startswith("."))
        files = sorted(readable, key=in_order)
        problem = f"the folder {path} holds no Parquet or CSV file; for folders in it write {pattern.rstrip('/')}/**/*"
    elif path.is_file() or not has_magic(pattern):
        files = [path] if path.is_file() else []
        problem = f"there is no file {path}"
    else:
        there = (Path(file) for file in glob(str(path), recursive=True) if Path(file).is_file())
        files = sorted(there, key=in_order)
        problem = f"no file matches {path}"
    if not files:
        raise SettingsError(f"tables.{name}.path: {problem}")
    _refuse_other_formats(name, files)
    return files


def _is_csv(file: Path) -> bool:
    return file.name.lower().endswith(CSV)


def _is_readable(file: Path) -> bool:
    return file.name.lower().endswith(PARQUET + CSV)


def _refuse_other_formats(name: str, files: Iterable[Path]) -> None:
    if other := next((file for file in files if not _is_readable(file)), None):
        raise SettingsError(
            f"tables.{name}.path: {other} is neither Parquet ({', '.join(PARQUET)}) nor CSV ({', '.join(CSV)});"
            " save it as one of them, or name fewer files"
        )
