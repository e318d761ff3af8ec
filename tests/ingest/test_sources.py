"""Files and databases as sources: how they are found, what is read from them, and that it makes no difference which."""

from __future__ import annotations

import gzip
import os
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import sqlalchemy
from builders import NOW, accepted, make_transactions, quarantined, take_in, write, write_workspace
from postgres_server import ADDRESS, schema_for

from ingest import sources
from ingest.rows import DECIMAL_COMMA
from ingest.sources import Source
from workspace import settings, storage
from workspace.settings import SettingsError
from workspace.storage import CheckFailed

LINES = make_transactions([("007", "2024-01-05 10:00:00", 10.0), ("c2", "2024-02-01 09:30:00", 2.5)])
HEADER = "transaction_id,customer_id,occurred_at,amount\n"
TEXT = HEADER + "t1,007,2024-01-05 10:00:00,10.0\nt2,c2,2024-02-01 09:30:00,2.5\n"


def table_of(**keys: Any) -> settings.Table:
    return settings.parse({"name": "shop", "tables": {"transactions": keys}}, "test").tables.transactions


def origins(folder: Path, *patterns: str) -> list[str]:
    """The names, below `folder`, of the sources that these paths lead to."""
    files = sources.find("transactions", table_of(path=[str(folder / pattern) for pattern in patterns]), folder)
    return [os.path.relpath(source.origin, folder) for source in files]


# Finding


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["b.csv"], ["b.csv"]),
        (["."], ["a.parquet", "b.csv", "c.CSV.GZ"]),
        (["*.csv", "a.parquet"], ["b.csv", "a.parquet"]),
        (["b.csv", "*.csv"], ["b.csv"]),
        (["deep/**/*.csv"], ["deep/d.csv", "deep/er/e.csv"]),
        (["deep/er/../d.csv"], ["deep/d.csv"]),
        (["[x] (1).csv"], ["[x] (1).csv"]),
    ],
)
def test_files_are_found_by_name_folder_and_glob(tmp_path: Path, patterns: list[str], expected: list[str]) -> None:
    """In the order of the paths, within one in that of the names, each once; hidden and other files are left out."""
    names = ["a.parquet", "b.csv", "c.CSV.GZ", ".hidden.csv", "notes.md", "deep/d.csv", "deep/er/e.csv"]
    for name in [*names, "[x] (1).csv"] if "[x]" in patterns[0] else names:
        write(tmp_path / name, "")
    assert origins(tmp_path, *patterns) == expected


def test_a_home_folder_may_be_written_with_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`~/lines.csv` is below the user's home."""
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "lines.csv", TEXT)
    assert [s.origin for s in sources.find("transactions", table_of(path="~/lines.csv"), tmp_path)] == [
        str(tmp_path / "lines.csv")
    ]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("absent.csv", r"tables\.transactions\.path: there is no file .*/absent\.csv"),
        ("absent-*.csv", r"tables\.transactions\.path: no file matches .*/absent-\*\.csv"),
        ("empty", r"the folder .*/empty holds no Parquet or CSV file; for folders in it write .*/empty/\*\*/\*"),
        ("book.xlsx", r"book\.xlsx is neither Parquet \(.*\) nor CSV \(.*\); save it as one of them"),
    ],
)
def test_what_is_not_there_is_named(tmp_path: Path, pattern: str, message: str) -> None:
    """A path that leads to nothing readable is refused with the path in full."""
    (tmp_path / "empty" / "year=2024").mkdir(parents=True)
    write(tmp_path / "book.xlsx", b"PK")
    with pytest.raises(SettingsError, match=message):
        origins(tmp_path, pattern)


@pytest.mark.parametrize(
    ("pattern", "origin", "expected"),
    [
        ("a.csv", "a.csv", True),
        ("a.csv", "b.csv", False),
        ("*.csv", "gone.csv", True),
        ("**/*.csv", "gone.csv", True),
        ("**/*.csv", "x/y/gone.csv", True),
        (".", "gone.csv", True),
        (".", "x/gone.csv", False),
    ],
)
def test_paths_cover_files_that_are_gone(tmp_path: Path, pattern: str, origin: str, expected: bool) -> None:
    """Whether the settings still mean a file does not depend on the file."""
    assert sources.covers(table_of(path=str(tmp_path / pattern)), str(tmp_path / origin)) is expected


def test_a_fingerprint_is_of_the_content(tmp_path: Path) -> None:
    """Name and time of a file do not matter, one byte does."""
    prints = [
        Source(name, write(tmp_path / name, text), as_text=True).fingerprint()
        for name, text in (("a.csv", "x,y\n"), ("b.csv", "x,y\n"), ("c.csv", "x,z\n"))
    ]
    assert prints[0] == prints[1] != prints[2]


# The same rows, whatever they come in


def _csv(folder: Path, text: str, **keys: Any) -> dict[str, Any]:
    encoding = keys.get("encoding", "utf-8").replace("utf-16", "utf-16-le")
    return {"path": str(write(folder / "lines.csv", text.encode(encoding))), **keys}


def _sqlite(folder: Path, rows: pd.DataFrame) -> dict[str, Any]:
    folder.mkdir(parents=True, exist_ok=True)
    engine = sqlalchemy.create_engine(f"sqlite:///{folder / 'shop.db'}")
    rows.to_sql("lines", engine, index=False)
    engine.dispose()
    return {"database": f"sqlite:///{folder / 'shop.db'}", "table": "lines"}


def _canonical(folder: Path, source: dict[str, Any] | pd.DataFrame | str, **keys: Any) -> pd.DataFrame:
    path = write_workspace(folder, source, timezone="Europe/Paris", **keys)
    take_in(path)
    return accepted(path)


QUIRKS = HEADER.replace("amount", "amount,channel") + (
    't1,007,2024-01-05 10:00:00,10.0,"été, 5€\n""x"""\nt2,c2,2024-02-01 09:30:00,2.5,\n'
)


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        (QUIRKS, {}),
        ("\ufeff" + QUIRKS, {}),
        (QUIRKS.replace("\n", "\r\n").replace("5€\r\n", "5€\n"), {}),
        (QUIRKS.replace(",", ";").replace("été;", "été,"), {}),
        (QUIRKS.replace(",", "\t").replace("été\t", "été,"), {}),
        (QUIRKS, {"encoding": "windows-1252"}),
        ("\ufeff" + QUIRKS, {"encoding": "utf-16"}),
    ],
    ids=["plain", "byte-order mark", "windows newlines", "semicolons", "tabs", "windows-1252", "utf-16"],
)
def test_every_dialect_of_csv_gives_the_rows_of_the_parquet_file(tmp_path: Path, text: str, keys: Any) -> None:
    """Delimiters, quoted newlines and quotes, marks and encodings change nothing; ids keep their leading zeros."""
    expected = _canonical(tmp_path / "parquet", LINES.assign(channel=['été, 5€\n"x"', None]))
    assert expected["customer_id"].tolist() == ["007", "c2"]
    pd.testing.assert_frame_equal(_canonical(tmp_path / "csv", _csv(tmp_path, text, **keys)), expected)


def test_a_packed_csv_file_is_unpacked(tmp_path: Path) -> None:
    """`.csv.gz` reads as the file in it."""
    packed = write(tmp_path / "lines.csv.gz", gzip.compress(TEXT.encode()))
    rows = _canonical(tmp_path / "gz", {"path": str(packed)})
    pd.testing.assert_frame_equal(rows, _canonical(tmp_path / "parquet", LINES))


def test_a_sqlite_table_gives_the_rows_of_the_parquet_file(tmp_path: Path) -> None:
    """Also ids and amounts that SQLite keeps as numbers, dates as texts, and expressions over them."""
    rows = make_transactions([(17850, "2024-01-05", 10.5), (17, "2024-02-01", 2.0)], quantity=[2, 3])
    keys = {"columns": {"amount": "amount * quantity", "transaction_id": "concat_ws('-', 'x', customer_id)"}}
    path = str(write(tmp_path / "lines.parquet", rows))
    read = _canonical(tmp_path / "sqlite", _sqlite(tmp_path / "sqlite", rows) | keys)
    assert read["amount"].tolist() == [6.0, 21.0]
    assert read["transaction_id"].tolist() == ["x-17", "x-17850"]
    pd.testing.assert_frame_equal(read, _canonical(tmp_path / "parquet", {"path": path} | keys))


@pytest.fixture
def postgres() -> Iterator[sqlalchemy.Engine]:
    """The PostgreSQL server of this machine, with a schema that the test has for itself."""
    with schema_for("perennial") as engine:
        yield engine


_POSTGRES = """
CREATE TABLE {0}."Order lines" (
    id bigint PRIMARY KEY, "Customer Nr" numeric(10, 0), sold timestamptz, booked timestamp, price numeric(10, 2),
    ref uuid, note jsonb);
INSERT INTO {0}."Order lines" VALUES
    (2, 17850, '2024-01-05 23:30:00+00', '2024-01-07 10:00', 10.10, gen_random_uuid(), '{{"a": 1}}'),
    (1, 17, '2024-07-01 09:30:00+02', NULL, 2.50, NULL, NULL);
"""


def test_a_postgresql_table_gives_the_rows_of_the_parquet_file(
    tmp_path: Path, postgres: sqlalchemy.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Types, schema and names with spaces come through; the password stays in the environment."""
    schema = postgres.get_execution_options()["schema"]
    with postgres.begin() as connection:
        connection.exec_driver_sql(_POSTGRES.format(schema))
    monkeypatch.setenv("SHOP_DATABASE", ADDRESS)
    columns = {"transaction_id": "id", "customer_id": "Customer Nr", "occurred_at": "sold", "recorded_at": "booked",
               "amount": "price", "channel": "length(ref)", "location": "note"}  # fmt: skip
    source = {"database": "${SHOP_DATABASE}", "table": f"{schema}.Order lines", "columns": columns}
    expected = _canonical(
        tmp_path / "parquet",
        make_transactions(
            [("17", "2024-07-01 07:30:00+00", 2.5), ("17850", "2024-01-05 23:30:00+00", 10.1)],
            transaction_id=["1", "2"], recorded_at=[None, "2024-01-07 10:00:00"], location=[None, '{"a": 1}'],
            channel=[None, "36"],
        ),
    )  # fmt: skip
    pd.testing.assert_frame_equal(_canonical(tmp_path / "sql", source), expected)
    assert expected["day"].tolist() == ["2024-07-01", "2024-01-06"]
    part = next((tmp_path / "sql" / "home" / "tables" / "transactions").glob("*.parquet"))
    assert pd.read_parquet(part)["transaction_id"].tolist() == ["1", "2"]  # in the order of the primary key
    kept = [path for path in (tmp_path / "sql").rglob("*") if path.is_file() and path.suffix != ".yaml"]
    assert not [path for path in kept if b"hush" in path.read_bytes()]
    assert not list((tmp_path / "sql").rglob("lines*"))


@pytest.mark.parametrize(
    ("database", "table", "message"),
    [
        ("sqlite:///{}/absent.db", "lines", r"absent\.db#lines cannot be read: there is no file .*/absent\.db"),
        ("sqlite:///{}/shop.db", "line", "cannot be read: there is no table line; there is lines"),
        (
            "postgresql://me:hush@127.0.0.1:1/x",
            "lines",
            r"postgresql\+psycopg://me:\*\*\*@127\.0\.0\.1:1/x#lines cannot",
        ),
        ("nosuchsql://me:hush@h/x", "lines", "cannot be read: .*nosuchsql"),
        ("me:hush@h/x", "lines", "`database` is not a SQLAlchemy URL such as postgresql://user:password@host/name"),
    ],
)
def test_a_database_that_cannot_be_read_is_explained(tmp_path: Path, database: str, table: str, message: str) -> None:
    """No file, no table, no server, no driver, no URL: each is named, the password is not, and no file is made."""
    _sqlite(tmp_path, LINES)
    source = {"database": database.format(tmp_path), "table": table}
    path = write_workspace(tmp_path, source)
    with pytest.raises(SettingsError, match=message) as problem:
        take_in(path)
    assert "hush" not in str(problem.value)
    assert not (tmp_path / "absent.db").exists()


def test_wild_values_in_sqlite_are_quarantined_not_fatal(tmp_path: Path) -> None:
    """SQLite keeps any value in any column; a text among the amounts is that row's fault."""
    with sqlite3.connect(tmp_path / "shop.db") as connection:
        connection.execute("CREATE TABLE lines (transaction_id, customer_id, occurred_at TIMESTAMP, amount REAL)")
        amounts = enumerate([5, "five", b"7", 1], 1)
        rows = [(n, 5.0 if n == 4 else "abc"[n - 1], "2024-01-05", amount) for n, amount in amounts]
        connection.executemany("INSERT INTO lines VALUES (?, ?, ?, ?)", rows)
    connection.close()
    source = {"database": f"sqlite:///{tmp_path / 'shop.db'}", "table": "lines"}
    path = write_workspace(tmp_path, source, max_quarantined=0.5)
    take_in(path)
    assert accepted(path)["customer_id"].tolist() == ["a", "c", "5"]
    assert quarantined(path)[["line", "reason", "amount"]].values.tolist() == [[2, "amount is not a number", "five"]]


# The column map


def test_names_match_whatever_their_case_and_may_hold_spaces(tmp_path: Path) -> None:
    """`CUSTOMER_ID` is `customer_id`; a mapped name with spaces and quotes is a column, not an expression."""
    text = 'TRANSACTION_ID,Kunde "Nr",Occurred_At,Betrag (EUR)\nt1,007,2024-01-05,10\n'
    quoted = text.replace('Kunde "Nr"', '"Kunde ""Nr"""')
    source = _csv(tmp_path, quoted, columns={"customer_id": 'Kunde "Nr"', "amount": "betrag (eur)"})
    rows = _canonical(tmp_path, source)
    assert rows[["transaction_id", "customer_id", "amount"]].values.tolist() == [["t1", "007", 10.0]]


def test_numbers_of_a_csv_file_can_be_computed_with(tmp_path: Path) -> None:
    """Columns in an expression are numbers where all their values are; what merely looks like one stays text."""
    text = "order,shop,day,pieces,price,code,sku\n1,01,2024-01-05,2,1.5,0012,1.10\n2,02,2024-01-06,3,,12,2.50\n"
    columns = {"transaction_id": "concat_ws('-', shop, \"order\")", "customer_id": "upper(code)", "occurred_at": "day",
               "amount": "pieces * coalesce(price, 1)", "quantity": "pieces", "product_id": "sku",
               "location": "left(sku, 3)"}  # fmt: skip
    rows = _canonical(tmp_path, _csv(tmp_path, text, columns=columns, where="pieces > 1"))
    assert rows["transaction_id"].tolist() == ["01-1", "02-2"]
    assert rows["customer_id"].tolist() == ["0012", "12"]
    assert rows["amount"].tolist() == [3.0, 3.0]
    assert rows[["product_id", "location"]].values.tolist() == [["1.10", "1.1"], ["2.50", "2.5"]]


def test_an_empty_column_fits_any_expression(tmp_path: Path) -> None:
    """A column without a value neither is a text nor hinders arithmetic."""
    text = HEADER.replace("amount", "amount,off,word") + "t1,c1,2024-01-05,10,,\n"
    columns = {"amount": "amount - coalesce(off, 0)", "channel": "lower(word)"}
    assert _canonical(tmp_path, _csv(tmp_path, text, columns=columns))["amount"].tolist() == [10.0]


def test_line_numbers_can_make_an_id(tmp_path: Path) -> None:
    """`line` counts a source's rows from 1; a source's own column of that name comes first."""
    keys = {"columns": {"transaction_id": "concat('r', line)", "channel": "line"}}
    rows = LINES.drop(columns="transaction_id")
    for folder, extra, expected in (("a", {}, ["r1", "r2"]), ("b", {"line": ["x", "y"]}, ["rx", "ry"])):
        parquet = str(write(tmp_path / folder / "lines.parquet", rows.assign(**extra)))
        csv = str(write(tmp_path / folder / "lines.csv", rows.assign(**extra)))
        for file in (parquet, csv):
            read = _canonical(tmp_path / Path(file).suffix / folder, {"path": file, **keys})
            assert read["transaction_id"].tolist() == expected
    where = {"path": parquet.replace("/b/", "/a/"), **keys, "where": "line > 1"}
    assert _canonical(tmp_path / "where", where)["transaction_id"].tolist() == ["r2"]


def test_comments_end_with_their_line(tmp_path: Path) -> None:
    """A condition or expression may carry a SQL comment."""
    keys = {"where": "amount > 5 -- not the small ones", "columns": {"amount": "amount * 2 -- in cents"}}
    assert _canonical(tmp_path, _csv(tmp_path, TEXT, **keys))["amount"].tolist() == [20.0]


def test_ids_kept_as_numbers_lose_only_their_fraction(tmp_path: Path) -> None:
    """pandas keeps whole numbers with gaps as 17850.0; the id is 17850, and a missing one is missing."""
    rows = make_transactions(
        [(17850.0, "2024-01-05", 1.0), (float("nan"), "2024-01-05", 2.0), (0.5, "2024-01-05", 3.0)]
    )
    path = write_workspace(tmp_path, rows, max_quarantined=0.5)
    take_in(path)
    assert accepted(path)["customer_id"].tolist() == ["17850", "0.5"]
    assert quarantined(path)["reason"].tolist() == ["no customer_id"]


def test_one_row_per_group(tmp_path: Path) -> None:
    """With `group_by` the columns are aggregates, and a row's line is the first of its group."""
    rows = make_transactions(
        [("c1", "2024-01-05", 1.0), ("c2", "2024-01-05", 4.0), ("c1", "2024-01-06", 2.0)],
        transaction_id=["a", "b", "a"],
    )
    keys = {"group_by": "transaction_id, customer_id", "where": "amount < 9",
            "columns": {"occurred_at": "min(occurred_at)", "amount": "sum(amount)"}}  # fmt: skip
    path = write_workspace(tmp_path, {"path": str(write(tmp_path / "l.parquet", rows)), **keys})
    account = take_in(path)["transactions"]
    assert (account.read, account.accepted) == (2, 2)
    assert accepted(path)[["transaction_id", "amount"]].values.tolist() == [["a", 3.0], ["b", 4.0]]
    assert accepted(path)["day"].tolist() == ["2024-01-05", "2024-01-05"]


def test_groups_come_in_the_order_of_their_first_lines(tmp_path: Path) -> None:
    """The part does not depend on how the groups were hashed."""
    numbers = [number * 37 % 100 for number in range(100)]
    rows = make_transactions([("c1", "2024-01-05", 1.0)] * 300, number=numbers * 3)
    columns = {name: f"min({name})" for name in ("customer_id", "occurred_at", "amount")}
    keys = {"group_by": "number", "columns": columns | {"transaction_id": "number"}}
    take_in(write_workspace(tmp_path, {"path": str(write(tmp_path / "l.parquet", rows)), **keys}))
    part = next((tmp_path / "home" / "tables" / "transactions").glob("*.parquet"))
    assert pd.read_parquet(part)["transaction_id"].astype(int).tolist() == numbers


def test_columns_in_folder_names_are_columns(tmp_path: Path) -> None:
    """Parquet in folders called `country=DE` has that column, as Spark writes it."""
    write(tmp_path / "in" / "country=DE" / "a.parquet", LINES)
    keys = {"path": str(tmp_path / "in" / "**" / "*.parquet"), "columns": {"location": "country"}}
    assert _canonical(tmp_path, keys)["location"].tolist() == ["DE", "DE"]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"columns": {"customer_id": "costomer"}}, r"tables\.transactions\.columns\.customer_id: there is no column "
         r"`costomer` \(did you mean customer_id\?\); the source has transaction_id, customer_id, occ"),
        ({"columns": {"customer_id": "Kunde Nr"}}, "there is no column `Kunde Nr`; the source has transaction_id"),
        ({"columns": {"customer": "customer_id"}}, r"columns: there is no column customer in transactions; it has tra"),
        ({"columns": {"amount": "amount *"}}, r"columns\.amount: `amount \*` does not work: Parser Error.*source has"),
        ({"columns": {"amount": "price * 2"}}, r"columns\.amount: `price \* 2` does not work: .*\"price\" not found"),
        ({"columns": {"amount": "customer_id * 2"}}, r"a text column needs TRY_CAST\(column AS DOUBLE\)"),
        ({"columns": {"amount": "sum(amount)"}}, r"columns\.amount: `sum\(amount\)` does not work: .*GROUP BY"),
        ({"where": "amount >"}, r"tables\.transactions\.where: `amount >` does not work: Parser Error"),
        ({"where": "colour = 'red'"}, r"tables\.transactions\.where: .*\"colour\" not found"),
        ({"group_by": "colour"}, r"tables\.transactions\.group_by: there is no column `colour`; the source has"),
        ({"columns": {"occurred_at": "strptime(occurred_at, '%d/%m/%Y')"}},
         "cannot be read: .*Could not parse.*; a value does not fit an expression: write TRY_CAST or try_strptime"),
        ({"where": "CAST(customer_id AS INTEGER) > 5"}, r"cannot be read: Conversion Error.*c2.*write TRY_CAST"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_wrong_map_names_the_setting(tmp_path: Path, kind: str, keys: dict[str, Any], message: str) -> None:
    """What is wrong, in which setting, what the source has instead; nothing is left of the table."""
    file = write(tmp_path / f"lines.{kind}", LINES)
    path = write_workspace(tmp_path, {"path": str(file), **keys})
    with pytest.raises(SettingsError, match=message):
        take_in(path)
    assert not list((tmp_path / "home").rglob("*.parquet"))
    assert not list((tmp_path / "home").rglob("manifest.json"))
    write_workspace(tmp_path, {"path": str(file)})
    assert take_in(path)["transactions"].accepted == 2


# Files that cannot be read


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("l.csv", b"", r"transactions: .*/l\.csv is empty: not even a header is in it"),
        ("l.csv", b"1,2,3\n4,5,6\n", "columns: transaction_id is required; the source has 1, 2, 3"),
        ("l.csv", (TEXT + "t3,é,2024-01-05,1\n").encode("latin-1"), r"to what the file is in \(utf-8, windows-1252"),
        ("l.csv", TEXT.encode("utf-16"), r"set `tables\.transactions\.encoding` to what the file is in \(utf-16\?\)"),
        ("l.csv", ("\n\n" + TEXT).encode(), r"the header of .*/l\.csv seems to be line 3: set `.*skip_lines: 2`"),
        ("l.csv", b"\nno,header\n", r"/l\.csv begins with an empty line, where a header should be"),
        ("l.csv", (TEXT + "t3,c3,2024-01-05\n").encode(), "line 4 has 3 fields, the header has 4; mend that line"),
        ("l.csv", (TEXT + "t3,c3,2024-01-05,5,6\n").encode(), "line 4 has 5 fields, the header has 4; mend that line"),
        ("l.csv", (TEXT + 't3,"c3,2024-01-05,5\n').encode(), "begins at line 4 has a quote without its pair; mend"),
        ("l.csv", (TEXT + '\nt3,"c\n\n3",2024-01-05,5\nt4\n').encode(), "line 8 has 1 field, the header has 4; mend"),
        ("l.csv", b"sep=,\n" + (TEXT + "\nt4\n").encode(), "line 6 has 1 field, the header has 4; mend"),
        ("l.parquet", b"PAR1 and no more", "the file is damaged or incomplete: copy it again"),
        ("l.parquet", b"", "the file is damaged or incomplete"),
        ("l.csv.gz", b"not packed", r"l\.csv\.gz cannot be read"),
    ],
    ids=[
        "empty", "no header", "latin-1", "utf-16", "empty lines first", "empty line first", "short line", "long line",
        "quote", "after a row of lines", "after sep", "cut", "void", "not packed",
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_read_is_explained(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    """The file, the line and what to do; nothing is left behind, and the mended file is read."""
    file = write(tmp_path / name, content)
    path = write_workspace(tmp_path, {"path": str(file)})
    with pytest.raises(SettingsError, match=message):
        take_in(path)
    assert not list((tmp_path / "home").rglob("*.*"))
    mended = gzip.compress(TEXT.encode()) if name.endswith("gz") else LINES if name.endswith("parquet") else TEXT
    write(file, mended)
    assert take_in(path)["transactions"].accepted == 2


def test_a_truncated_parquet_file_is_refused(tmp_path: Path) -> None:
    """Half of a copied file is told from a whole one, wherever the cut is."""
    whole = write(tmp_path / "lines.parquet", LINES).read_bytes()
    path = write_workspace(tmp_path, {"path": str(tmp_path / "lines.parquet")})
    for length in (len(whole) // 2, len(whole) - 1, len(whole) - 9):
        write(tmp_path / "lines.parquet", whole[:length])
        with pytest.raises(SettingsError, match="damaged or incomplete: copy it again"):
            take_in(path)


@pytest.mark.parametrize(
    ("encoding", "content", "message"),
    [
        ("utf-16", TEXT.encode(), r"it does not begin as UTF-16 does; set `tables\.transactions\.encoding`"),
        ("latin-1", (TEXT + "t3,5€,2024-01-05,1\n").encode("cp1252"), "windows-1252"),
        ("windows-1252", TEXT.encode() + b"\x81\n", "cannot be read"),
        ("latin-1", (TEXT + "t3,张三茶,2024-01-05,1\n").encode("gbk"), r"look like Chinese.*save the file as UTF-8"),
        ("windows-1252", (TEXT + "t3,김철수,2024-01-05,1\n").encode("euc-kr"), "look like Chinese or Korean"),
        ("latin-1", (TEXT + "t3,Иван Петров,2024-01-05,1\n").encode("cp1251"), "look like another script"),
        ("utf-8", (TEXT + "t3,张三茶,2024-01-05,1\n").encode("gbk"), "look like Chinese or Korean"),
        (
            "latin-1",
            (TEXT + "t3,Zoë,2024-01-05,1\n").encode(),
            "look like UTF-8: leave `tables.transactions.encoding` out",
        ),
    ],
)
def test_the_wrong_encoding_is_refused(tmp_path: Path, encoding: str, content: bytes, message: str) -> None:
    """A file is not read as garbage when its bytes show that the setting is wrong."""
    source = {"path": str(write(tmp_path / "lines.csv", content)), "encoding": encoding}
    path = write_workspace(tmp_path, source)
    with pytest.raises(SettingsError, match=message):
        take_in(path)


@pytest.mark.parametrize(
    "text", ["Zoë créée", "Promoção e ação", "PROMOÇÃO", "Ångström", "¿Qué? ¡Sí!", "Größe üöä", "plain"]
)
@pytest.mark.parametrize("encoding", ["latin-1", "windows-1252"])
def test_western_texts_are_taken_for_what_they_are(tmp_path: Path, text: str, encoding: str) -> None:
    """Accents here and there, also two in a row, are no other script."""
    source = _csv(tmp_path, HEADER + f"{text},{text},2024-01-05,1\n", encoding=encoding)
    assert _canonical(tmp_path / "shop", source)["customer_id"].tolist() == [text]


# Lines that are none, or end in two ways


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("sep=;\n" + TEXT.replace(",", ";"), {}),
        ('\ufeff"sep=;"\r\n' + TEXT.replace(",", ";").replace("\n", "\r\n"), {}),
        ("sep=\t\r\n" + TEXT.replace(",", "\t"), {}),
        ("Payments of January\n\nTill:[4],\"x\n" + TEXT, {"skip_lines": 3}),
        ("支付宝交易记录\n" + TEXT, {"skip_lines": 1, "encoding": "utf-16"}),
        (TEXT.replace("\n", "\r\n").replace("amount\r", "amount"), {}),
        (TEXT.replace("10.0\n", "10.0\r\n"), {}),
        (TEXT.replace("\n", "\r\n").replace("10.0\r", "10.0"), {}),
    ],
    ids=["sep", "sep and mark", "sep tab", "lines before", "recoded", "header", "one line", "all but one"],
)  # fmt: skip
def test_lines_before_the_header_and_mixed_line_ends_are_read(tmp_path: Path, text: str, keys: Any) -> None:
    """`sep=` as Excel writes it, lines that `skip_lines` counts, files put together from two systems: the same rows."""
    text = "\ufeff" + text if keys.get("encoding") == "utf-16" else text
    rows = _canonical(tmp_path / "csv", _csv(tmp_path, text, **keys))
    pd.testing.assert_frame_equal(rows, _canonical(tmp_path / "parquet", LINES))


def test_line_ends_that_change_far_down_are_found(tmp_path: Path) -> None:
    """A long export with another appended; a line end across two pieces that are read is one; quoted ones stay."""
    first = "".join(f"p{n},c1,2024-01-05,{n}\r\n" for n in range(60_000))
    text = HEADER.replace("\n", "\r\n") + first + 'q,"c2\r\n",2024-01-05,5\n' + "r,c3,2024-01-05,7\r\n"
    assert take_in(write_workspace(tmp_path, text))["transactions"].accepted == 60_002
    assert set(accepted(tmp_path / "shop.yaml")["customer_id"]) == {"c1", "c2", "c3"}


@pytest.mark.parametrize(
    ("text", "keys", "lines"),
    [
        (TEXT, {}, [2, 3]), (TEXT.removesuffix("\n"), {}, [2, 3]), (TEXT.replace("\n", "\r"), {}, [2, 3]),
        ("Export\nof shop 4\n" + TEXT, {"skip_lines": 2}, [4, 5]), ("sep=,\n" + TEXT, {}, [3, 4]),
        (TEXT.replace("10.0\n", "10.0\n\n\n"), {}, [2, 5]), (TEXT.replace("10.0\n", "10.0\r\n\n"), {}, [2, 4]),
        (TEXT.replace("007", '"007\n\n"'), {}, [2, 5]),
        ("\ufeffExport\n" + TEXT.replace("007", '"007\n"').replace("10.0\n", "10.0\n\n"),
         {"skip_lines": 1, "encoding": "utf-16"}, [3, 6]),
        (TEXT.replace("customer_id", '"customer_id\n"'), {}, [3, 4]),
    ],
    ids=["plain", "no last end", "old Mac", "skipped", "sep", "empty", "empty, mixed ends", "quoted", "all", "header"],
)  # fmt: skip
def test_a_line_is_the_one_that_an_editor_shows(tmp_path: Path, text: str, keys: Any, lines: list[int]) -> None:
    """Whatever comes before the header or lies between the rows; a row begins where its first character is."""
    path = write_workspace(tmp_path, _csv(tmp_path, text, **keys, columns={"amount": "'much'"}))
    with pytest.raises(CheckFailed, match=re.escape(f"(line {lines[0]}: much, line {lines[1]}: much)")):
        take_in(path)
    assert quarantined(path, refused=True)["line"].tolist() == lines


def test_lines_before_the_header_are_named(tmp_path: Path) -> None:
    """Where the columns are only found below, the setting and its value are in the message."""
    path = write_workspace(tmp_path, "Export of shop 4\nJanuary,2024\n" + TEXT)
    with pytest.raises(
        SettingsError, match=r"header of .*transactions\.csv seems to be line 3: set .*\.skip_lines: 2`"
    ):
        take_in(path)
    assert take_in(path, NOW, "tables.transactions.skip_lines=2")["transactions"].accepted == 2


# Orders whose further lines leave out what the first has


ORDERS = """Name,Email,Created at,Status,Quantity,Price
#1,ann@shop.test,2024-01-05 23:30:00 -0500,paid,1,10.00
#1,,,,2,5.00
#2,,2024-01-06 10:00:00 -0500,paid,1,7.00
#2,,,,1,3.00
#3,bob@shop.test,2024-01-07 10:00:00 -0500,draft,1,1.00
#3,,,,1,1.00
"""
OF_ORDERS = {"columns": {"transaction_id": "Name", "customer_id": "Email", "occurred_at": "Created at",
                         "amount": "Quantity * Price", "channel": "Status"}}  # fmt: skip


def test_further_lines_of_an_order_take_over_what_the_first_has(tmp_path: Path) -> None:
    """Only within the order: that of a guest stays without a customer; and before `where` looks at them."""
    keys = {"fill_down": ["Email", "created AT", "Status"], "where": "Status <> 'draft'", **OF_ORDERS}
    path = write_workspace(tmp_path, _csv(tmp_path, ORDERS, **keys), max_quarantined=1)
    account = take_in(path)["transactions"]
    assert (account.filtered, account.quarantined) == (2, {"no customer_id": 2})
    rows = accepted(path)[["transaction_id", "customer_id", "amount", "occurred_at", "channel"]]
    assert rows.values.tolist() == [["#1", "ann@shop.test", 10.0, "2024-01-06 04:30:00+00", "paid"]] * 2


def test_further_lines_are_refused_by_name(tmp_path: Path) -> None:
    """Not as lines of nobody, and with the setting that mends it."""
    path = write_workspace(tmp_path, _csv(tmp_path, ORDERS, **OF_ORDERS))
    with pytest.raises(
        CheckFailed, match=r"2 further line without customer_id \(line 3, line 7\).*`fill_down`.*\[Email, Created at\]"
    ):
        take_in(path)
    with pytest.raises(SettingsError, match=r"fill_down: there is no column `Mail` \(did you mean Email\?\)"):
        take_in(path, NOW, "tables.transactions.fill_down=[Mail]")


# Numbers with a comma


COMMAS = ["1.234,50", "12,50", "7", "1,000", "-1.234.567,5", "1.50", "x", ""]


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        (DECIMAL_COMMA.replace("column", "a"), [1234.5, 12.5, 7.0, None, -1234567.5, None, None, None]),
        ("TRY_CAST(replace(a, ',', '.') AS DOUBLE)", [None, 12.5, 7.0, None, None, 1.5, None, None]),
        ("TRY_CAST(REPLACE(\"A\", ',', '.') AS DOUBLE) -- euros", [None, 12.5, 7.0, None, None, 1.5, None, None]),
        ("TRY_CAST(replace(a, ',', '') AS DOUBLE)", [1.2345, 1250.0, 7.0, 1000.0, None, 1.5, None, None]),
    ],
)
def test_a_comma_that_may_part_thousands_is_no_decimal_comma(
    tmp_path: Path, expression: str, expected: list[float | None]
) -> None:
    """1,000 is refused as no number, with what was written, where a comma is made a point; nothing there is nothing."""
    text = "".join(f't{n},c,2024-01-05,"{value}"\n' for n, value in enumerate(COMMAS))
    keys = {"columns": {"amount": expression}}
    path = write_workspace(tmp_path, _csv(tmp_path, HEADER.replace("amount", "a") + text, **keys), max_quarantined=1)
    take_in(path)
    amounts = dict(accepted(path)[["transaction_id", "amount"]].values.tolist())
    assert [amounts.get(f"t{n}") for n in range(len(COMMAS))] == expected
    bad = quarantined(path)
    wrong = [value for value, number in zip(COMMAS, expected, strict=True) if number is None]
    assert bad["reason"].tolist() == ["amount is not a number" if value else "no amount" for value in wrong]
    assert bad["amount"].fillna("").tolist() == wrong


def test_header_names_are_made_distinct(tmp_path: Path) -> None:
    """A name that occurs twice, in whatever case, or not at all, still gives every column one of its own."""
    text = "id,ID,,customer_id,occurred_at,amount\nt1,x,y,c1,2024-01-05,10\n"
    columns = {"transaction_id": "id", "channel": "ID_2", "location": "column3"}
    rows = _canonical(tmp_path, _csv(tmp_path, text, columns=columns))
    assert rows[["transaction_id", "channel", "location"]].values.tolist() == [["t1", "x", "y"]]


def test_a_quote_that_comes_late_is_still_one(tmp_path: Path) -> None:
    """Dialects are not guessed from the first lines: a quoted newline after thousands of plain lines is read."""
    lines = "".join(f"p{n},c1,2024-01-05,{n}\n" for n in range(30_000))
    source = _csv(tmp_path, HEADER + lines + 'q,c2,2024-01-05,"5,\n"\n', columns={"channel": "amount", "amount": "1"})
    path = write_workspace(tmp_path, source)
    assert take_in(path)["transactions"].accepted == 30_001
    assert "5," in accepted(path)["channel"].tolist()


def test_nothing_of_a_copy_remains(tmp_path: Path) -> None:
    """Files recoded and tables copied for reading are gone when ingest ends."""
    path = write_workspace(tmp_path, _csv(tmp_path, TEXT, encoding="windows-1252"))
    take_in(path)
    assert not list(storage.tables_folder(tmp_path / "home", "x").parents[1].glob("tmp/*"))
