"""Where state lies, and that a reader, a crash or a second process never meets half of it."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import date
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from workspace import storage
from workspace.storage import CheckFailed


def test_replacing_puts_the_new_content_in_place(tmp_path: Path) -> None:
    """What the block wrote is there afterwards, folders are made, and no draft remains."""
    path = tmp_path / "a" / "b.txt"
    with storage.replacing(path) as draft:
        draft.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


def _write_half(path: Path) -> None:
    with storage.replacing(path) as draft:
        draft.write_text("half")
        raise ZeroDivisionError


def test_a_folder_that_goes_meanwhile_is_passed_over(tmp_path: Path) -> None:
    """Whoever looks through a home sees what stays, however others come and go in it."""
    (tmp_path / "stays").mkdir()
    (tmp_path / "stays" / "a.parquet").touch()
    done = threading.Event()

    def come_and_go() -> None:
        while not done.is_set():
            for number in range(20):
                (tmp_path / f"{number}").mkdir()
            for number in range(20):
                (tmp_path / f"{number}").rmdir()

    other = threading.Thread(target=come_and_go)
    other.start()
    try:
        seen = [storage.below(tmp_path, "*.parquet") for _ in range(200)]
    finally:
        done.set()
        other.join()
    assert seen == [[tmp_path / "stays" / "a.parquet"]] * 200


@pytest.fixture
def _everybody_reads() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.mark.usefixtures("_everybody_reads")
def test_what_is_written_is_for_its_owner_alone(tmp_path: Path) -> None:
    """Files, folders and what is in them, whatever the umask is."""
    with storage.replacing(tmp_path / "home" / "tables" / "part") as draft:
        draft.mkdir()
        (draft / "rows.parquet").write_text("rows")
    storage.write_json(tmp_path / "home" / "note.json", {})
    modes = {path.name: oct(path.stat().st_mode & 0o777) for path in tmp_path.rglob("*")}
    assert modes == {
        "home": "0o700", "tables": "0o700", "part": "0o700", "rows.parquet": "0o600", "note.json": "0o600",
    }  # fmt: skip


@pytest.mark.usefixtures("_everybody_reads")
def test_a_home_that_others_may_read_is_mended_by_the_next_command(tmp_path: Path) -> None:
    """An earlier version left it so; what its owner may do stays, and no link is followed out of it."""
    home, outside = tmp_path / "home", tmp_path / "outside.csv"
    (home / "scores").mkdir(parents=True)
    (home / "scores" / "scores.parquet").write_text("rows")
    (home / "run.sh").touch(mode=0o755)
    outside.touch(mode=0o644)
    (home / "link").symlink_to(outside)
    with storage.locked(home, "a test"):
        modes = {path.name: oct(path.stat().st_mode & 0o777) for path in (home, *home.rglob("*"))}
    assert modes == {
        "home": "0o700", "scores": "0o700", "scores.parquet": "0o600", "run.sh": "0o700", ".lock": "0o600",
        "link": "0o644",
    }  # fmt: skip


def test_replacing_keeps_the_old_content_when_the_block_fails(tmp_path: Path) -> None:
    """An error on the way leaves the file as it was, and no draft."""
    path = tmp_path / "b.txt"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError):
        _write_half(path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_reader_holds_either_the_old_content_or_the_new(tmp_path: Path) -> None:
    """A file opened before the exchange still reads as it was; one opened after it is new."""
    path = tmp_path / "b.txt"
    path.write_text("old")
    with path.open() as before:
        with storage.replacing(path) as draft:
            draft.write_text("new")
        assert before.read() == "old"
    assert path.read_text() == "new"


def test_what_is_replaced_while_it_is_read_is_read_again(tmp_path: Path) -> None:
    """A query meets the old rows or the new, and no error, however often a file is replaced; a damaged one is told."""
    path, stopped = tmp_path / "rows.parquet", threading.Event()

    @storage.read_again
    def rows_and_texts() -> tuple[int, int]:
        with storage.connect(tmp_path) as connection:
            (counts,) = connection.execute(
                f"SELECT count(*), count(DISTINCT t) FROM {storage.reader([path])}"
            ).fetchall()
        return counts

    def write(rows: int) -> None:
        with storage.replacing(path) as draft:
            pq.write_table(pa.table({"t": [f"{rows}-{number}" * (number % 9) for number in range(rows)]}), draft)

    def keep_replacing() -> None:
        while not stopped.wait(0.05):
            write(9_000)
            stopped.wait(0.05)
            write(18_000)

    write(9_000)
    replacing = threading.Thread(target=keep_replacing)
    replacing.start()
    try:
        assert {rows_and_texts() for _ in range(60)} == {(9_000, 8_001), (18_000, 16_001)}
    finally:
        stopped.set()
        replacing.join()
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(duckdb.Error):
        rows_and_texts()


def test_a_folder_is_not_replaced(tmp_path: Path) -> None:
    """Two folders cannot be exchanged in one step, so it is refused before anything is written."""
    (tmp_path / "b").mkdir()
    with pytest.raises(IsADirectoryError, match="b is a folder; a file is to be written there"):  # noqa: SIM117
        with storage.replacing(tmp_path / "b"):
            pass
    assert list(tmp_path.iterdir()) == [tmp_path / "b"]


_WRITES = """
import os, signal, sys
from pathlib import Path
from workspace import storage
with storage.locked(Path(sys.argv[1]), "a test"), storage.replacing(Path(sys.argv[1]) / "part.parquet") as draft:
    draft.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_writer_leaves_the_old_content_and_frees_the_lock(tmp_path: Path) -> None:
    """After kill -9 the file is the old one, the next process gets the home, and the draft is swept."""
    (tmp_path / "part.parquet").write_text("old")
    done = subprocess.run([sys.executable, "-c", _WRITES, str(tmp_path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(list(tmp_path.glob(".draft-*"))) == 1
    with storage.locked(tmp_path, "a test"):
        assert (tmp_path / "part.parquet").read_text() == "old"
        assert list(tmp_path.glob(".draft-*")) == []


def test_a_home_in_use_is_refused(tmp_path: Path) -> None:
    """Two commands on one workspace would mix their work: the second is told whom to wait for, each time it asks."""
    with storage.locked(tmp_path, "`perennial run` since noon"):
        for _ in range(2):
            with (
                pytest.raises(CheckFailed, match="is in use by `perennial run` since noon; wait for it to end, or"),
                storage.locked(tmp_path, "the second"),
            ):
                pass
    with storage.locked(tmp_path, "the third"):
        pass


def test_json_keeps_its_bytes(tmp_path: Path) -> None:
    """The same value gives the same file, whatever the order of its keys."""
    storage.write_json(tmp_path / "one.json", {"b": 1, "a": date(2024, 1, 5)})
    storage.write_json(tmp_path / "two.json", {"a": date(2024, 1, 5), "b": 1})
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()
    assert storage.read_json(tmp_path / "one.json") == {"a": "2024-01-05", "b": 1}


def test_copying_a_query_counts_rows_and_notes_metadata(tmp_path: Path) -> None:
    """The file holds the rows and the notes, quotes and all."""
    path = tmp_path / "it's" / "rows.parquet"
    with storage.connect(tmp_path) as connection:
        assert storage.copy_to(connection, "SELECT 1 AS a UNION ALL SELECT 2", path, {"stamp": "it's"}) == 2
    assert pq.read_table(path).num_rows == 2
    assert pq.read_metadata(path).metadata[b"stamp"] == b"it's"


def test_a_query_that_fails_leaves_no_file(tmp_path: Path) -> None:
    """An error half-way through the rows leaves neither file nor draft."""
    with storage.connect(tmp_path) as connection, pytest.raises(duckdb.Error):
        storage.copy_to(connection, "SELECT error('stop') FROM range(9)", tmp_path / "rows" / "a.parquet")
    assert list((tmp_path / "rows").iterdir()) == []


def test_a_connection_speaks_the_workspaces_time_and_spills_into_its_home(tmp_path: Path) -> None:
    """Days are those of the time zone, and more rows than memory go to `home/tmp`, which is emptied at the end."""
    with storage.connect(tmp_path, "Asia/Shanghai") as connection:
        day = connection.execute("SELECT CAST(TIMESTAMPTZ '2024-03-01 20:00:00+00' AS DATE)").fetchall()
        assert day == [(date(2024, 3, 2),)]
        connection.execute("SET memory_limit = '60MB'")
        connection.execute("CREATE TEMP TABLE big AS SELECT hash(i) AS h, hash(h) AS k FROM range(6_000_000) t(i)")
        assert any((tmp_path / "tmp").iterdir())
    assert not list(tmp_path.glob("tmp/*"))


def test_a_path_is_never_taken_for_a_pattern(tmp_path: Path) -> None:
    """A folder's brackets, stars and `key=value` names are names: nothing else is read, nothing is added."""
    home = tmp_path / "it's [1]*" / "as_of=2024"
    for place, value in ((home, 1), (tmp_path / "it's 1x" / "as_of=2024", 2)):
        folder = storage.tables_folder(place, "products")
        with storage.connect(place) as connection:
            storage.copy_to(connection, f"SELECT {value} AS x, 'mine' AS as_of", folder / "p.parquet")
        storage.write_json(folder / "manifest.json", {"sources": [{"part": "p"}]})
    assert duckdb.execute(f"SELECT x, as_of FROM {storage.rows_of(home, 'products')}").fetchall() == [(1, "mine")]


def test_only_parts_that_the_manifest_names_count(tmp_path: Path) -> None:
    """A part that a killed run had not committed is not read."""
    folder = storage.tables_folder(tmp_path, "products")
    assert storage.parts(folder) == []
    with storage.connect(tmp_path) as connection:
        for name in ("b", "a", "orphan"):
            storage.copy_to(connection, f"SELECT '{name}' AS x", folder / f"{name}.parquet")
    assert storage.parts(folder) == []
    storage.write_json(folder / "manifest.json", {"sources": [{"part": "b"}, {"part": "a"}, {"part": "b"}]})
    assert [path.stem for path in storage.parts(folder)] == ["a", "b"]


def test_a_table_without_rows_says_how_to_get_them(tmp_path: Path) -> None:
    """Asking for rows before ingest names the command."""
    with pytest.raises(CheckFailed, match=r"no rows of products are in .* yet; run `perennial ingest -c FILE`"):
        storage.rows_of(tmp_path, "products")


def test_the_latest_scores_are_those_of_the_latest_day(tmp_path: Path) -> None:
    """Days compare as dates; before the first scoring the message names the command."""
    with pytest.raises(CheckFailed, match=r"nothing is scored in .* yet; run `perennial run"):
        storage.latest_scored(tmp_path)
    for day in (date(2024, 2, 1), date(2024, 10, 1), date(2023, 12, 1)):
        path = storage.scores_path(tmp_path, day)
        path.parent.mkdir(parents=True)
        path.touch()
    assert storage.latest_scored(tmp_path) == date(2024, 10, 1)


def test_every_kind_of_state_has_its_own_place(tmp_path: Path) -> None:
    """Scores, offers and snapshots of one day do not overwrite one another."""
    day = date(2024, 1, 5)
    places = [
        storage.scores_path(tmp_path, day),
        storage.offers_path(tmp_path, day),
        storage.percentiles_path(tmp_path, day),
        storage.snapshot_part(tmp_path, "purchases", day),
        storage.snapshot_part(tmp_path, "basket", day),
        storage.manifest_path(tmp_path, "products"),
    ]
    assert len(set(places)) == len(places)
    assert all(os.path.commonpath([path, tmp_path]) == str(tmp_path) for path in places)


def test_a_table_of_an_earlier_version_gets_a_column(tmp_path: Path) -> None:
    """Once; who may not write reads it as empty."""
    path, schema = tmp_path / "things.db", "CREATE TABLE IF NOT EXISTS things (name TEXT)"
    with closing(storage.database(path, schema)) as written, written:
        written.execute("INSERT INTO things VALUES ('old')")
    reading = f"{path.as_uri()}?mode=ro"
    with closing(sqlite3.connect(reading, uri=True)) as reader:
        storage.add_column(reader, "things", "colour")
        assert reader.execute("SELECT name, colour FROM things").fetchall() == [("old", None)]
    for _ in range(2):
        with closing(storage.database(path, schema)) as written:
            storage.add_column(written, "things", "colour")
    with closing(sqlite3.connect(reading, uri=True)) as reader:
        assert reader.execute("SELECT * FROM things").fetchall() == [("old", None)]
