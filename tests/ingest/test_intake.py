"""Ingest: every row accepted or quarantined with a reason, files that come, change and go, and nothing half done."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pandas as pd
import pytest
from builders import (
    NOW,
    accepted,
    make_transactions,
    many_transactions,
    quarantined,
    take_in,
    write,
    write_workspace,
)
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from ingest import checks, intake
from simulation.world import simulate
from workspace import settings, storage
from workspace.settings import SettingsError
from workspace.storage import CheckFailed
from workspace.tables import ABSURD_AMOUNT, CONTRACTS, EARLIEST

GOOD = [(f"c{number}", "2024-01-05", float(number)) for number in range(1, 10)]
PRODUCTS = pd.DataFrame({"product_id": ["p1", "p2"], "category": ["tea", "cups"]})


def digest(home: Path) -> dict[str, str]:
    """The hash of every file of a home, by its place."""
    files = sorted(path for path in home.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(home)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def committed(home: Path) -> list[str]:
    """What a table consists of: its parts and its manifest."""
    return sorted(path.name for path in (home / "tables").glob("*/*.*"))


def noise(count: int) -> list[str]:
    """Texts that do not compress."""
    return [hashlib.sha256(b"%d" % number).hexdigest() for number in range(count)]


def reasons(path: Path, table: str = "transactions") -> dict[str, int]:
    return dict(Counter(quarantined(path, table)["reason"]))


# What is wrong with a row


FAULTS = [
    ("customer_id", None, "no customer_id"),
    ("customer_id", "  ", "no customer_id"),
    ("transaction_id", "", "no transaction_id"),
    ("occurred_at", None, "no occurred_at"),
    ("occurred_at", "31/12/2023", "occurred_at is not a time"),
    ("occurred_at", "2024-02-30", "occurred_at is not a time"),
    ("occurred_at", "20240105", "occurred_at is not a time"),
    ("occurred_at", "infinity", "occurred_at is not a time"),
    ("occurred_at", "2024-01-05 23:30:00 -0500 x", "occurred_at is not a time"),
    ("occurred_at", "2024-01-05 11:30:00 PM", "occurred_at is not a time"),
    ("occurred_at", "2024-01-05 25:30:00 Z", "occurred_at is not a time"),
    ("occurred_at", "2024-07-01 12:00:01", "occurred_at is in the future"),
    ("occurred_at", "9999-12-31", "occurred_at is in the future"),
    ("occurred_at", "1970-01-01", "occurred_at is before 1980"),
    ("recorded_at", "yesterday", "recorded_at is not a time"),
    ("amount", None, "no amount"),
    ("amount", "nan", "no amount"),
    ("amount", "ten", "amount is not a number"),
    ("amount", "1,50", "amount is not a number"),
    ("amount", "inf", "amount is not a number"),
    ("amount", "1e400", "amount is not a number"),
    ("amount", "1e12", "absurd amount"),
    ("amount", "-1000000001", "absurd amount"),
    ("quantity", "two", "quantity is not a number"),
    ("cost", "inf", "cost is not a number"),
]


@pytest.mark.parametrize(("column", "value", "reason"), FAULTS)
def test_a_bad_value_sends_its_row_to_quarantine(tmp_path: Path, column: str, value: str | None, reason: str) -> None:
    """One row is out, with its reason, its line and what was written; the others are in."""
    rows = make_transactions(GOOD, quantity="1", cost="1", recorded_at="2024-01-06").astype(object)
    rows.loc[4, column] = value
    path = write_workspace(tmp_path, rows.to_csv(index=False))
    account = take_in(path)["transactions"]
    assert (account.read, account.accepted, account.quarantined) == (9, 8, {reason: 1})
    bad = quarantined(path).iloc[0]
    assert (bad["line"], bad["reason"]) == (6, reason)
    assert (bad[column] or "").strip() == (value or "").strip()
    assert bad["source"].endswith("transactions.csv")


def test_texts_in_parquet_are_judged_like_those_in_csv(tmp_path: Path) -> None:
    """Every fault at once, a row each, in the order of the rows."""
    rows = make_transactions(GOOD * 3, quantity="1", cost="1", recorded_at="2024-01-06").astype("string")
    for number, (column, value, _) in enumerate(FAULTS):
        rows.loc[number, column] = value
    path = write_workspace(tmp_path, rows, max_quarantined=1)
    take_in(path)
    kept = quarantined(path)
    assert kept["reason"].tolist() == [reason for _, _, reason in FAULTS]
    assert [kept[column].iloc[number] for number, (column, _, _) in enumerate(FAULTS)] == [
        value for _, value, _ in FAULTS
    ]


@pytest.mark.parametrize(
    ("column", "value", "kept"),
    [
        ("occurred_at", " 2024-01-05T10:00:00Z ", "2024-01-05 10:00:00+00"),
        ("occurred_at", "2024/01/05", "2024-01-05 00:00:00+00"),
        ("occurred_at", "2024-01-05 23:30:00 -0500", "2024-01-06 04:30:00+00"),
        ("occurred_at", "2024-01-05 23:30:00 UTC", "2024-01-05 23:30:00+00"),
        ("occurred_at", "2024-01-05 23:30 +0100", "2024-01-05 22:30:00+00"),
        ("occurred_at", "2024-01-05 23:30:00 +01:00", "2024-01-05 22:30:00+00"),
        ("occurred_at", "2024-01-05t23:30:00,5z", "2024-01-05 23:30:00.5+00"),
        ("occurred_at", "2024-01-05 23:30:00 Z\u00a0", "2024-01-05 23:30:00+00"),
        ("occurred_at", "2024-07-01 12:00:00", "2024-07-01 12:00:00+00"),
        ("customer_id", " c5 ", "c5"),
        ("amount", " 1e3 ", 1000.0),
        ("amount", "-1000000000", -1e9),
        ("amount", "0", 0.0),
        ("quantity", "nan", None),
        ("recorded_at", "", None),
        ("channel", "  ", None),
    ],
)
def test_an_odd_value_that_can_be_used_is(tmp_path: Path, column: str, value: str, kept: object) -> None:
    """Spaces, scientific notation, limits and absent optional values are no fault."""
    rows = make_transactions(GOOD, quantity="1", channel="web", recorded_at="2024-01-06").astype("string")
    rows.loc[4, column] = value
    path = write_workspace(tmp_path, rows)
    assert take_in(path)["transactions"].accepted == 9
    used = accepted(path)[column].iloc[4]
    assert used == kept or (kept is None and pd.isna(used))


def test_numbers_that_are_none_in_parquet_are_missing_or_refused(tmp_path: Path) -> None:
    """NaN is how numpy writes nothing; infinity is not a number; both only cost their own row."""
    nothing, endless = float("nan"), float("inf")
    rows = make_transactions(
        [("c1", "2024-01-05", nothing), ("c2", "2024-01-05", -endless), ("c3", "2024-01-05", 1e12), *GOOD],
        quantity=[1.0, 1.0, 1.0, nothing, endless, *[1.0] * 7],
    )
    path = write_workspace(tmp_path, rows, max_quarantined=0.5)
    take_in(path)
    assert reasons(path) == {
        "no amount": 1, "amount is not a number": 1, "absurd amount": 1, "quantity is not a number": 1,
    }  # fmt: skip
    assert accepted(path)["quantity"].isna().sum() == 1


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["yes", "no", None], ["true", "false", None]),
        (["Y", "n", ""], ["true", "false", None]),
        (["1", "0", "1"], ["true", "false", "true"]),
        ([True, False, None], ["true", "false", None]),
    ],
)
def test_consents_are_read_in_the_usual_words(tmp_path: Path, words: list[Any], expected: list[Any]) -> None:
    """Yes and no, one and zero; nothing said is neither."""
    customers = pd.DataFrame({"customer_id": ["a", "b", "c"], "marketing_consent": words})
    path = write_workspace(tmp_path, make_transactions(GOOD), tables={"customers": customers})
    take_in(path)
    assert accepted(path, "customers")["marketing_consent"].where(lambda s: s.notna(), None).tolist() == expected


def test_consents_in_other_words_are_quarantined_with_the_remedy(tmp_path: Path) -> None:
    """ "oui" is not guessed; the message says how to map it, and mapped it is read."""
    customers = pd.DataFrame({"customer_id": ["a", "b"], "marketing_consent": ["oui", "non"]})
    path = write_workspace(tmp_path, make_transactions(GOOD), tables={"customers": customers})
    with pytest.raises(
        CheckFailed, match=r"marketing_consent is not true or false \(row 1: oui, row 2: non\).*= 'oui'"
    ):
        take_in(path)
    take_in(path, NOW, "tables.customers.columns.marketing_consent=marketing_consent = 'oui'")
    assert accepted(path, "customers")["marketing_consent"].tolist() == ["true", "false"]


def test_a_row_has_one_reason_the_first(tmp_path: Path) -> None:
    """A row with every fault is counted once."""
    rows = make_transactions([*GOOD, (None, "never", "much")])
    path = write_workspace(tmp_path, rows.astype("string"))
    assert take_in(path)["transactions"].quarantined == {"no customer_id": 1}


# Duplicates


def test_equal_lines_are_one_purchase_unless_told_otherwise(tmp_path: Path) -> None:
    """The first of equal lines stays, the others are quarantined; with `keep` all stay."""
    rows = make_transactions([("c1", "2024-01-05", 1.0), ("c2", "2024-01-05", 2.0), ("c1", "2024-01-05", 1.0)],
                             transaction_id=["t", "u", "t"], location=None)  # fmt: skip
    path = write_workspace(tmp_path, rows, max_quarantined=0.5)
    assert take_in(path)["transactions"].quarantined == {"duplicate line": 1}
    assert quarantined(path)["line"].tolist() == [3]
    kept = take_in(path, NOW, "tables.transactions.duplicates=keep")["transactions"]
    assert (kept.accepted, kept.quarantined) == (3, {})


def test_lines_that_differ_in_one_column_are_two_purchases(tmp_path: Path) -> None:
    """Not the transaction but the whole line is compared, absent values included."""
    rows = make_transactions([("c1", "2024-01-05", 1.0)] * 3, transaction_id="t", product_id=["p1", "p2", None])
    assert take_in(write_workspace(tmp_path, rows))["transactions"].accepted == 3


def test_duplicates_are_found_across_a_large_table(tmp_path: Path) -> None:
    """Exactly the repeated rows are marked, wherever in 250,000 lines they are, and the order of lines stays."""
    rows = many_transactions(250_000)
    repeated = pd.concat([rows, rows.iloc[::50]]).sample(frac=1, random_state=7)
    path = write_workspace(tmp_path, repeated)
    account = take_in(path)["transactions"]
    assert (account.accepted, account.quarantined) == (250_000, {"duplicate line": 5_000})
    first = ~repeated.duplicated()
    expected = repeated[first]["transaction_id"].tolist()
    part = next((tmp_path / "home" / "tables" / "transactions").glob("*.parquet"))
    assert pd.read_parquet(part)["transaction_id"].tolist() == expected
    assert quarantined(path)["line"].tolist() == [number for number, one in enumerate(first, 1) if not one]


def test_an_interaction_is_identified_by_its_id(tmp_path: Path) -> None:
    """Of two interactions with one id, within a file or across files, the one taken in first stays."""
    first = pd.DataFrame({"interaction_id": ["i1", "i2", "i1"], "customer_id": "c1", "kind": ["visit", "call", "cart"],
                          "occurred_at": "2024-01-05"})  # fmt: skip
    second = first.assign(interaction_id=["i2", "i3", "i4"], occurred_at="2024-03-05")
    write(tmp_path / "in" / "a.csv", first)
    path = write_workspace(
        tmp_path, make_transactions(GOOD), tables={"interactions": {"path": str(tmp_path / "in")}}, max_quarantined=0.5
    )
    take_in(path)
    write(tmp_path / "in" / "b.csv", second)
    account = take_in(path)["interactions"]
    assert account.quarantined == {"duplicate interaction_id": 1, "already in another source": 1}
    assert accepted(path, "interactions")["kind"].tolist() == ["visit", "call", "call", "cart"]
    assert take_in(path, NOW, f"home={tmp_path / 'at once'}")["interactions"] == account


# Files that come, change and go


def folder_of(tmp_path: Path, files: Mapping[str, pd.DataFrame], **keys: Any) -> Path:
    """A workspace whose transactions are these files, or more of them, in one folder."""
    for name, rows in files.items():
        write(tmp_path / "in" / name, rows)
    return write_workspace(tmp_path, {"path": str(tmp_path / "in"), **keys})


def test_ingest_twice_changes_nothing(tmp_path: Path) -> None:
    """The second time every byte stays, and the account is the same."""
    rows = make_transactions([*GOOD, (None, "2024-01-05", 1.0)])
    path = folder_of(tmp_path, {"a.csv": rows, "b.parquet": many_transactions(50)})
    first = take_in(path)
    before = digest(tmp_path / "home")
    assert take_in(path) == first
    assert digest(tmp_path / "home") == before


def test_the_same_sources_give_the_same_bytes(tmp_path: Path) -> None:
    """Two homes filled from the same files are alike to the byte, groups and their sums included."""
    rows = many_transactions(400_000)
    rows["amount"] = (rows.index % 7) / 10 * 0.1 ** (rows.index % 9)  # whose sum depends on the order of adding
    (tmp_path / "in").mkdir()
    rows.to_parquet(tmp_path / "in" / "a.parquet", row_group_size=50_000)  # for several threads
    keys = {"group_by": "customer_id", "columns": {"transaction_id": "min(transaction_id)", "amount": "sum(amount)",
            "occurred_at": "max(occurred_at)", "channel": "mode(transaction_id)"}}  # fmt: skip
    digests = []
    for name in ("one", "two"):
        tables = {"products": PRODUCTS}
        path = write_workspace(tmp_path / name, {"path": str(tmp_path / "in" / "*"), **keys}, tables=tables)
        path.write_text(path.read_text().replace(f"/{name}/products", "/one/products"))
        take_in(path)
        digests.append(digest(tmp_path / name / "home"))
    assert digests[0] == digests[1]


def test_a_new_file_adds_a_part_and_leaves_the_others(tmp_path: Path) -> None:
    """What was read before is neither read nor written again."""
    path = folder_of(tmp_path, {"b.csv": many_transactions(10)})
    take_in(path)
    before = digest(tmp_path / "home" / "tables")
    folder_of(tmp_path, {"a.csv": make_transactions(GOOD)})
    assert take_in(path)["transactions"].accepted == 19
    after = digest(tmp_path / "home" / "tables")
    assert {name: after[name] for name in before if name.endswith("parquet")}.items() <= before.items()
    assert len(committed(tmp_path / "home")) == 3


def test_a_changed_file_replaces_its_own_part(tmp_path: Path) -> None:
    """Lines that left the file leave the table, lines that came are in it, other files' lines stay."""
    path = folder_of(tmp_path, {"a.csv": make_transactions(GOOD[:3]), "b.csv": make_transactions(GOOD[5:])})
    take_in(path)
    folder_of(tmp_path, {"a.csv": make_transactions([*GOOD[1:3], (None, "2024-01-05", 1.0)])})
    account = take_in(path, NOW, "max_quarantined=0.5")["transactions"]
    assert (account.read, account.accepted) == (7, 6)
    assert sorted(accepted(path)["customer_id"]) == ["c2", "c3", "c6", "c7", "c8", "c9"]
    folder_of(tmp_path, {"a.csv": make_transactions(GOOD[1:3])})
    assert take_in(path)["transactions"].quarantined == {}
    assert quarantined(path).empty
    assert len(committed(tmp_path / "home")) == 3


@pytest.mark.parametrize(("rename", "name"), [(True, "a.csv"), (False, "a.csv"), (False, "c.csv")])
def test_the_same_content_under_another_name_is_not_read_again(tmp_path: Path, rename: bool, name: str) -> None:
    """A copy or a new name of a file changes neither rows nor parts."""
    path = folder_of(tmp_path, {"b.csv": make_transactions(GOOD)})
    take_in(path)
    before = digest(tmp_path / "home")
    old, new = tmp_path / "in" / "b.csv", tmp_path / "in" / name
    if rename:
        old.rename(new)
    else:
        new.write_bytes(old.read_bytes())
    assert take_in(path)["transactions"].accepted == 9
    assert {
        n: h for n, h in digest(tmp_path / "home").items() if "manifest" not in n or not rename
    }.items() <= before.items()


def test_a_file_renamed_and_then_changed_replaces_itself(tmp_path: Path) -> None:
    """The new name is remembered, so that a correction under it does not stand beside the old lines."""
    path = folder_of(tmp_path, {"a.csv": make_transactions(GOOD)})
    take_in(path)
    (tmp_path / "in" / "a.csv").rename(tmp_path / "in" / "b.csv")
    take_in(path)
    folder_of(tmp_path, {"b.csv": make_transactions(GOOD[:4])})
    assert take_in(path)["transactions"].accepted == 4


def test_a_file_overwritten_by_a_copy_of_another_loses_its_own_rows(tmp_path: Path) -> None:
    """What it held is nowhere any more, and the copy adds nothing."""
    path = folder_of(tmp_path, {"a.csv": make_transactions(GOOD[:4]), "b.csv": make_transactions(GOOD[4:])})
    take_in(path)
    (tmp_path / "in" / "a.csv").write_bytes((tmp_path / "in" / "b.csv").read_bytes())
    assert take_in(path)["transactions"].accepted == 5


def test_logs_that_are_rotated_keep_every_line(tmp_path: Path) -> None:
    """Yesterday's file moves on to another name and today's takes its place."""
    path = folder_of(tmp_path, {"log.csv": make_transactions(GOOD[:4])})
    take_in(path)
    (tmp_path / "in" / "log.csv").rename(tmp_path / "in" / "log.1.csv")
    folder_of(tmp_path, {"log.csv": make_transactions(GOOD[4:])})
    assert take_in(path)["transactions"].accepted == 9
    assert take_in(path)["transactions"].accepted == 9


@pytest.mark.parametrize("duplicates", ["quarantine", "keep"])
def test_overlapping_files_do_not_double_lines(tmp_path: Path, duplicates: str) -> None:
    """A monthly export that starts with the last days of the month before adds only what is new."""
    rows = make_transactions([*GOOD, GOOD[6]]).replace({"t10": "t7"})  # two bottles, two equal lines
    copies = 2 if duplicates == "keep" else 1
    path = folder_of(tmp_path, {"a.csv": rows.iloc[:8]}, duplicates=duplicates)
    take_in(path)
    write(tmp_path / "in" / "b.csv", rows.iloc[4:])
    account = take_in(path)["transactions"]
    assert account.accepted == 8 + copies
    assert account.quarantined["already in another source"] == 4
    assert (accepted(path)["transaction_id"] == "t7").sum() == copies


def test_exports_that_repeat_all_of_history_are_accepted(tmp_path: Path) -> None:
    """Lines that another file brought are no sign of a bad file, however many they are."""
    path = folder_of(
        tmp_path, {"a.csv": make_transactions(GOOD), "b.csv": make_transactions([*GOOD, ("c0", "2024-02-01", 1.0)])}
    )
    account = take_in(path)["transactions"]
    assert (account.accepted, account.quarantined) == (10, {"already in another source": 9})


def test_a_line_held_back_as_duplicate_returns_when_its_twin_goes(tmp_path: Path) -> None:
    """When the file that had the line first is corrected, the other file's line counts."""
    path = folder_of(tmp_path, {"a.csv": make_transactions(GOOD), "b.csv": many_transactions(5)})
    write(tmp_path / "in" / "b.csv", make_transactions(GOOD).iloc[5:])
    take_in(path)
    folder_of(tmp_path, {"a.csv": make_transactions(GOOD[:6])})
    account = take_in(path)["transactions"]
    assert sorted(accepted(path)["customer_id"]) == [f"c{number}" for number in range(1, 10)]
    assert account.quarantined == {"already in another source": 1}


def test_a_mended_map_is_applied_to_what_was_read_before(tmp_path: Path) -> None:
    """Changing an expression or the time zone re-reads the files; a setting that shapes no row does not."""
    path = folder_of(tmp_path, {"a.csv": make_transactions(GOOD), "b.csv": many_transactions(5)})
    take_in(path)
    before = digest(tmp_path / "home")
    take_in(path, NOW, "churn.horizon=5", "max_quarantined=0.1")
    assert digest(tmp_path / "home") == before
    take_in(path, NOW, "tables.transactions.columns.amount=amount * 2")
    assert accepted(path)["amount"].sum() == 2 * (45 + 10)
    assert len(committed(tmp_path / "home")) == 3
    take_in(path)
    take_in(path, NOW, "timezone=Asia/Shanghai")
    assert accepted(path)["occurred_at"].max() == "2024-04-29 16:00:00+00"


def test_a_moved_folder_is_not_read_again(tmp_path: Path) -> None:
    """Content counts, not the path in the settings."""
    path = folder_of(tmp_path, {"a.csv": make_transactions(GOOD)})
    take_in(path)
    before = digest(tmp_path / "home" / "tables" / "transactions")
    (tmp_path / "in").rename(tmp_path / "moved")
    take_in(path, NOW, f"tables.transactions.path={tmp_path / 'moved'}")
    after = digest(tmp_path / "home" / "tables" / "transactions")
    assert {name for name in before if name.endswith("parquet")} == {name for name in after if name.endswith("parquet")}


def test_rows_of_files_cleared_away_stay_and_that_is_said(tmp_path: Path) -> None:
    """A landing folder may be emptied after ingest; each later run mentions what it cannot see."""
    path = folder_of(tmp_path, {"a.csv": make_transactions(GOOD), "b.csv": many_transactions(5)})
    take_in(path)
    (tmp_path / "in" / "a.csv").unlink()
    said: list[str] = []
    intake.ingest(settings.read(path), NOW, said.append)
    assert len(accepted(path)) == 14
    assert "1 source(s) taken in before are gone; their rows stay" in said[0]


def test_rows_of_a_path_no_longer_named_go_and_that_is_said(tmp_path: Path) -> None:
    """Pointing `path` at another file means that file, not both."""
    path = folder_of(tmp_path, {"sample.csv": make_transactions(GOOD), "whole.csv": many_transactions(20)})
    take_in(path, NOW, f"tables.transactions.path={tmp_path / 'in' / 'sample.csv'}")
    said: list[str] = []
    other = settings.read(path, [f"tables.transactions.path={tmp_path / 'in' / 'whole.csv'}"])
    intake.ingest(other, NOW, said.append)
    assert len(accepted(path)) == 20
    assert "are no longer named; their rows went" in said[0]
    assert len(committed(tmp_path / "home")) == 2


def test_the_last_file_of_a_describing_table_wins(tmp_path: Path) -> None:
    """Products of an earlier file stand until a later one names them; within a file the first line stands."""
    write(tmp_path / "in" / "2.csv", pd.DataFrame({"product_id": ["p1", "p1", "p3"], "category": ["new", "no", "jam"]}))
    write(tmp_path / "in" / "1.csv", PRODUCTS)
    path = write_workspace(
        tmp_path, make_transactions(GOOD), tables={"products": {"path": str(tmp_path / "in")}}, max_quarantined=0.5
    )
    account = take_in(path)["products"]
    assert account.quarantined == {"replaced by a later source": 1, "duplicate product_id": 1}
    rows = accepted(path, "products")
    assert dict(zip(rows["product_id"], rows["category"], strict=True)) == {
        "p1": "new",
        "p2": "cups",
        "p3": "jam",
    }
    (tmp_path / "in" / "2.csv").unlink()
    take_in(path)
    assert accepted(path, "products")["category"].tolist() == ["tea", "cups"]


def test_whole_dumps_of_a_describing_table_replace_one_another(tmp_path: Path) -> None:
    """That a later dump repeats every customer is no sign of a bad file."""
    for day in (1, 2, 3):
        rows = pd.DataFrame({"customer_id": ["a", "b", "c"], "city": [f"city {day}"] * 3, "visits": [day, 2, 3]})
        write(tmp_path / "in" / f"{day}.csv", rows)
    path = write_workspace(
        tmp_path, make_transactions(GOOD), tables={"customers": {"path": str(tmp_path / "in")}},
        attributes=["city", "visits"],
    )  # fmt: skip
    assert take_in(path)["customers"].accepted == 3
    assert accepted(path, "customers")["city"].unique().tolist() == ["city 3"]
    assert accepted(path, "customers")["visits"].tolist() == [3.0, 2.0, 3.0]


def test_an_attribute_with_texts_in_one_file_is_text_in_all(tmp_path: Path) -> None:
    """Numbers stay numbers only where every file has nothing else; leading zeros make texts."""
    write(tmp_path / "in" / "1.csv", pd.DataFrame({"customer_id": ["a"], "zone": ["12"], "zip": ["01234"]}))
    write(tmp_path / "in" / "2.csv", pd.DataFrame({"customer_id": ["b"], "zone": ["north"], "zip": ["94110"]}))
    tables = {"customers": {"path": str(tmp_path / "in")}}
    path = write_workspace(tmp_path, make_transactions(GOOD), tables=tables, attributes=["zone", "zip"])
    take_in(path)
    assert accepted(path, "customers")[["zone", "zip"]].values.tolist() == [["12", "01234"], ["north", "94110"]]


# Who is a customer, and what time it is


def test_a_complete_customer_table_quarantines_strangers(tmp_path: Path) -> None:
    """With `complete: true` rows of unknown customers are held back, and return when the customer is there."""
    customers = write(tmp_path / "in" / "customers.csv", pd.DataFrame({"customer_id": [f"c{n}" for n in range(1, 9)]}))
    tables = {"customers": {"path": str(customers), "complete": True}}
    path = write_workspace(tmp_path, make_transactions(GOOD), tables=tables)
    assert take_in(path)["transactions"].quarantined == {"unknown customer": 1}
    assert quarantined(path)["customer_id"].tolist() == ["c9"]
    write(customers, pd.DataFrame({"customer_id": [f"c{n}" for n in range(2, 10)]}))
    account = take_in(path)["transactions"]
    assert account.quarantined == {"unknown customer": 1}
    assert quarantined(path)["customer_id"].tolist() == ["c1"]
    assert take_in(path, NOW, "tables.customers.complete=false")["transactions"].accepted == 9


def test_a_future_row_is_accepted_once_its_time_has_come(tmp_path: Path) -> None:
    """A booking ahead is held back until then, though its file does not change."""
    path = write_workspace(tmp_path, make_transactions([*GOOD, ("c1", "2024-07-02 09:00", 5.0)]))
    assert take_in(path)["transactions"].quarantined == {"occurred_at is in the future": 1}
    before = digest(tmp_path / "home")
    take_in(path, NOW + timedelta(hours=5))
    assert digest(tmp_path / "home") == before
    assert take_in(path, NOW + timedelta(days=1))["transactions"].accepted == 10
    assert quarantined(path).empty
    parts = {name for name in digest(tmp_path / "home") if name.startswith("tables") and name.endswith("parquet")}
    assert before.keys().isdisjoint(parts)  # the old part stood until the new one counted


INSTANTS = [
    "2024-03-30T23:30:00Z", "2024-03-31T00:59:59Z", "2024-03-31T01:00:00Z", "2024-03-31T21:59:59Z",
    "2024-03-31T22:00:00Z", "2023-10-28T22:00:00Z", "2023-10-29T00:30:00Z", "2023-10-29T01:30:00Z",
    "2023-10-29T22:59:59Z", "2023-10-29T23:00:00Z", "2024-01-04T15:59:59Z", "2024-01-04T16:00:00Z",
    "2024-02-29T12:00:00+14:00",
]  # fmt: skip


@pytest.mark.parametrize("timezone", ["UTC", "Europe/Paris", "America/New_York", "Asia/Shanghai"])
@pytest.mark.parametrize("kind", ["csv", "us", "ns"])
def test_instants_fall_on_the_day_of_the_workspaces_zone(tmp_path: Path, timezone: str, kind: str) -> None:
    """Times with a zone, as texts or timestamps, across changes of clocks: `day` is what a local calendar shows."""
    rows = make_transactions([(f"c{n:02}", text, 1.0) for n, text in enumerate(INSTANTS)])
    if kind != "csv":
        times = pd.to_datetime(rows["occurred_at"], utc=True, format="ISO8601")
        rows = rows.assign(occurred_at=times.astype(f"datetime64[{kind}, UTC]"))
    path = write_workspace(tmp_path, rows.to_csv(index=False) if kind == "csv" else rows, timezone=timezone)
    take_in(path)
    expected = [datetime.fromisoformat(text).astimezone(ZoneInfo(timezone)).date() for text in INSTANTS]
    kept = accepted(path).sort_values("customer_id")
    assert kept["day"].tolist() == kept["known_day"].tolist() == [str(day) for day in expected]


@pytest.mark.parametrize("timezone", ["Europe/Paris", "Asia/Shanghai", "America/New_York"])
@pytest.mark.parametrize("kind", ["csv", "us", "ns", "date"])
def test_times_without_a_zone_are_the_workspaces(tmp_path: Path, timezone: str, kind: str) -> None:
    """A wall-clock time keeps its day and becomes the instant at which a local clock shows it."""
    texts = ["2024-03-31 00:00:00", "2024-03-31 23:59:59", "2023-10-29 00:00:00", "2024-01-05 12:00:00"]
    rows = make_transactions([(f"c{n}", text, 1.0) for n, text in enumerate(texts)])
    times = pd.to_datetime(rows["occurred_at"])
    if kind == "date":
        rows = rows.assign(occurred_at=times.dt.date)
    elif kind != "csv":
        rows = rows.assign(occurred_at=times.astype(f"datetime64[{kind}]"))
    path = write_workspace(tmp_path, rows.to_csv(index=False) if kind == "csv" else rows, timezone=timezone)
    take_in(path)
    kept = accepted(path).sort_values("customer_id")
    assert kept["day"].tolist() == [text[:10] for text in texts]
    expected = [
        datetime.fromisoformat(text[:10] if kind == "date" else text).replace(tzinfo=ZoneInfo(timezone))
        for text in texts
    ]
    given = pd.to_datetime(kept["occurred_at"], utc=True, format="ISO8601")
    assert given.tolist() == [time.astimezone(UTC) for time in expected]


def test_a_row_is_known_from_the_later_of_its_days(tmp_path: Path) -> None:
    """A purchase recorded days later is known from then; one recorded before it happened, from when it happened."""
    recorded = ["2024-01-05 08:00", "2024-01-09 23:30Z", "2024-01-01", None]
    rows = make_transactions([(f"c{n}", "2024-01-05 10:00", 1.0) for n in range(4)], recorded_at=recorded)
    path = write_workspace(tmp_path, rows, timezone="Europe/Paris")
    take_in(path)
    known = accepted(path).sort_values("customer_id")["known_day"].tolist()
    assert known == ["2024-01-05", "2024-01-10", "2024-01-05", "2024-01-05"]


def test_days_of_sign_up_and_resolution_are_local_too(tmp_path: Path) -> None:
    """`signed_up_day` and `resolved_day` are cut at the workspace's midnight."""
    late = "2024-01-05T20:00:00Z"
    customers = pd.DataFrame({"customer_id": ["c1"], "signed_up_at": [late]})
    interactions = pd.DataFrame({"interaction_id": ["i"], "customer_id": ["c1"], "kind": ["complaint"],
                                 "occurred_at": ["2024-01-05"], "resolved_at": [late]})  # fmt: skip
    tables = {"customers": customers, "interactions": interactions}
    path = write_workspace(tmp_path, make_transactions(GOOD), tables=tables, timezone="Asia/Shanghai")
    take_in(path)
    assert accepted(path, "customers")["signed_up_day"].tolist() == ["2024-01-06"]
    assert accepted(path, "interactions")["resolved_day"].tolist() == ["2024-01-06"]


# The account


TIMES = {"2024-01-05": "2024-01-05", "2024-01-05 00:00:00": "2024-01-05", "2024-06-30T22:30Z": "2024-07-01",
         "05/01/2024": None, "2024-13-01": None, "": None, "2031-01-01": None, "1900-01-01": None}  # fmt: skip
AMOUNTS = {"1": 1.0, "1.0": 1.0, "-2.5": -2.5, "ten": None, "": None, "1e12": None, "inf": None, "nan": None}
IDS = {"a": "a", " a": "a", "007": "007", "7": "7", "": None, " ": None}
ROWS = st.lists(st.tuples(*(st.sampled_from(list(pool)) for pool in (IDS, IDS, TIMES, AMOUNTS))), max_size=12)


def _usable(row: tuple[str, str, str, str]) -> tuple[object, ...] | None:
    """The second implementation: a row's canonical values, or none if any cannot be used."""
    values = tuple(pool[text] for pool, text in zip((IDS, IDS, TIMES, AMOUNTS), row, strict=True))
    return None if None in values else values


@hypothesis_settings(deadline=None, database=None, derandomize=True, max_examples=30)
@given(first=ROWS, second=ROWS)
def test_the_account_always_adds_up(first: list[Any], second: list[Any]) -> None:
    """Read = accepted + quarantined = rows in parts and quarantine; every different usable line is accepted once."""
    files = [
        make_transactions([row[1:] for row in rows], transaction_id=[row[0] for row in rows])
        for rows in (first, second)
    ]
    files[1]["unmapped"] = "never the same file"
    usable = {values for row in first + second if (values := _usable(row))}
    with tempfile.TemporaryDirectory() as folder:
        path = folder_of(Path(folder), {"1.csv": files[0], "2.csv": files[1]})
        path = write_workspace(Path(folder), {"path": f"{folder}/in"}, max_quarantined=1, timezone="Europe/Paris")
        if not usable:
            with pytest.raises(CheckFailed, match="nothing was changed"):
                take_in(path)
            return
        account = take_in(path)["transactions"]
        rows, bad = accepted(path), quarantined(path)
    assert account.read == len(first) + len(second) == account.accepted + sum(account.quarantined.values())
    assert (account.accepted, account.quarantined) == (len(rows), dict(Counter(bad["reason"])))
    assert account.money is not None
    written = [AMOUNTS[row[3]] for row in first + second]
    assert account.money.read == account.money.accepted + account.money.lost == sum(filter(None, written))
    assert (account.money.accepted, account.money.lost) == (
        rows["amount"].sum(), sum(AMOUNTS[text] or 0 for text in bad["amount"].fillna("")),
    )  # fmt: skip
    assert sum(account.money.unknown.values()) == written.count(None)
    keys = ["transaction_id", "customer_id", "day", "amount"]
    assert sorted(rows[keys].itertuples(index=False, name=None)) == sorted(usable, key=str)


def test_the_account_is_one_line_that_says_it_all(tmp_path: Path) -> None:
    """Numbers, reasons and what the filter dropped."""
    rows = make_transactions([*GOOD, (None, "2024-01-05", 3.0), ("c1", "2024-01-05", 99.0), ("c1", "2024-01-05", None)])
    source = {"path": str(write(tmp_path / "lines.csv", rows)), "where": "amount < 50"}
    path = write_workspace(tmp_path, source)
    line = "transactions: 10 read = 9 accepted + 1 quarantined (1 no customer_id); 2 more filtered by `where`"
    assert str(take_in(path)["transactions"]) == line


def test_the_account_says_what_became_of_the_money(tmp_path: Path) -> None:
    """By reason, to the hundredth, whatever the order of the lines; what is no number is counted, not summed."""
    rows = make_transactions(
        [*[("c1", "2024-01-05", "0.10")] * 3, (None, "2024-01-05", "7.5"), ("c1", "2024-01-06", "ten"),
         ("c1", "2024-01-06", "1e12"), ("c1", "never", "-2"), ("c2", "2024-01-07", "-0.05"),
         ("draft", "2024-01-05", "99.99"), ("draft", "2024-01-05", "n/a")],
        transaction_id=["t", "t", "u", *"vwxyzab"],
    )  # fmt: skip
    source = {"path": str(write(tmp_path / "lines.csv", rows)), "where": "coalesce(customer_id, '') <> 'draft'"}
    money = take_in(write_workspace(tmp_path, source, max_quarantined=1))["transactions"].money
    assert str(money) == (
        "5.75 read = 0.15 accepted + 5.60 quarantined (0.10 duplicate line; 7.50 no customer_id; -2.00 occurred_at is"
        " not a time); 99.99 more filtered by `where`; rows of unknown amount: 3 (1 absurd amount; 1 amount is not a"
        " number; 1 filtered by `where`)"
    )


@pytest.mark.parametrize(
    ("keys", "filtered", "unknown"),
    [
        ({"columns": {"amount": "CAST(amount AS DOUBLE) * 2"}}, "10.00", 1),
        ({"columns": {"amount": "CAST(amount AS DOUBLE) + 0 * random()"}}, "0.00", 2),
        ({"columns": {"amount": "sum(CAST(amount AS DOUBLE))", "customer_id": "min(customer_id)",
                      "occurred_at": "min(occurred_at)"}, "group_by": "transaction_id"}, "0.00", 2),
    ],
)  # fmt: skip
def test_a_map_that_fails_on_filtered_rows_costs_only_their_money(
    tmp_path: Path, keys: dict[str, Any], filtered: str, unknown: int
) -> None:
    """Rows that are not meant to be read need no amount: where it cannot be computed it is unknown."""
    text = "transaction_id,customer_id,occurred_at,amount\nt1,c1,2024-01-05,3\nt2,void,-,5\nt3,void,-,five\n"
    source = {"path": str(write(tmp_path / "lines.csv", text)), "where": "customer_id <> 'void'", **keys}
    account = take_in(write_workspace(tmp_path, source))["transactions"]
    assert (account.accepted, account.filtered) == (1, 2)
    assert account.money is not None
    assert (str(account.money.filtered), dict(account.money.unknown)) == (filtered, {"filtered by `where`": unknown})


def test_money_of_a_manifest_from_before_is_what_its_parts_tell(tmp_path: Path) -> None:
    """A source taken in before money was counted, and gone since: its accepted rows are summed, others are unknown."""
    path = folder_of(tmp_path, {"a.csv": make_transactions([*GOOD, (None, "2024-01-05", 1.0)])})
    take_in(path)
    manifest = storage.manifest_path(tmp_path / "home", "transactions")
    noted = storage.read_json(manifest)
    del noted["sources"][0]["money"]
    storage.write_json(manifest, noted)
    (tmp_path / "in" / "a.csv").unlink()
    folder_of(tmp_path, {"b.csv": many_transactions(5)})
    account = take_in(path)["transactions"]
    assert (account.read, account.accepted) == (15, 14)
    assert (
        str(account.money)
        == "55.00 read = 55.00 accepted + 0.00 quarantined; rows of unknown amount: 1 (1 no customer_id)"
    )


def test_every_table_of_a_made_up_shop_is_accounted_for(tmp_path: Path) -> None:
    """The simulator's dirt, planted and counted by it, is exactly what ingest finds."""
    simulate(tmp_path / "world", customers=300, years=2, seed=5)
    tables = {name: {"path": str(tmp_path / "world" / place)} for name, place in
              {"customers": "customers.parquet", "interactions": "interactions"}.items()}  # fmt: skip
    tables["customers"]["complete"] = True
    path = write_workspace(tmp_path, {"path": str(tmp_path / "world" / "transactions")}, tables=tables)
    accounts = take_in(path, datetime(2030, 1, 1, tzinfo=UTC))
    planted = pd.read_parquet(tmp_path / "world" / "truth" / "dirty_rows.parquet").groupby("table")["rows"].sum()
    for name in ("transactions", "interactions"):
        assert sum(accounts[name].quarantined.values()) == planted[name] > 0


# Refusals, after which nothing has changed


BAD = {
    "no customers": (make_transactions([(None, "2024-01-05", n) for n in range(9)]),
                     r"9 of 9 rows of .*lines\.csv cannot be used: 9 no customer_id \(line 2, line 3, .*`where`"),
    "dates": (make_transactions([("c1", f"{n}/12/2023", n) for n in range(13, 22)]),
              r"occurred_at is not a time \(line 2: 13/12/2023, .*try_strptime\(column, '%d/%m/%Y'\)"),
    "amounts": (make_transactions([(f"c{n}", "2024-01-05", f"{n},50 EUR") for n in range(9)]),
                r"amount is not a number \(line 2: 0,50 EUR.*a decimal comma needs CASE WHEN .*not take 1,000 for 1"),
    "repeated": (make_transactions([("c1", "2024-01-05", 1.0)] * 9, transaction_id="t"),
                 r"8 of 9 rows .*8 duplicate line \(line 3, .*`duplicates: keep`"),
    "empty": (make_transactions([]), r"there are no rows in .*lines\.csv; nothing was changed"),
}  # fmt: skip


@pytest.mark.parametrize("fault", BAD)
@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_table_that_cannot_be_used_is_refused_whole(tmp_path: Path, fault: str, ending: str) -> None:
    """What is wrong, in which line or row, and what to do; no part and no manifest; the mended file is taken in."""
    rows, message = BAD[fault]
    if ending == "parquet":
        message = re.sub(r"\bline (\d)", lambda line: f"row {int(line[1]) - 1}", message)
    file = write(tmp_path / f"lines.{ending}", rows)
    path = write_workspace(tmp_path, {"path": str(file)})
    with pytest.raises(CheckFailed, match=message.replace("csv", ending)):
        take_in(path)
    assert committed(tmp_path / "home") == []
    write(file, make_transactions(GOOD))
    assert take_in(path)["transactions"].accepted == 9
    assert not list((tmp_path / "home").rglob("*refused*"))


def test_refused_rows_can_be_looked_at_and_the_quarantine_stays(tmp_path: Path) -> None:
    """The rows of a refused file are in a file of their own, which the message names."""
    path = folder_of(tmp_path, {"a.csv": make_transactions([*GOOD, (None, "2024-01-05", 1.0)])})
    take_in(path)
    before = digest(tmp_path / "home")
    folder_of(tmp_path, {"b.csv": make_transactions([(None, "2024-02-05", 1.0), ("c1", "2024-02-05", 2.0)])})
    with pytest.raises(CheckFailed, match=r"1 of 2 rows .*They are in .*quarantine/transactions\.refused\.parquet"):
        take_in(path)
    assert quarantined(path, refused=True)["line"].tolist() == [2]
    assert before.items() <= digest(tmp_path / "home").items()
    assert take_in(path, NOW, "max_quarantined=0.5")["transactions"].quarantined == {"no customer_id": 2}
    assert len(quarantined(path)) == 2


def test_a_filter_that_drops_everything_is_refused(tmp_path: Path) -> None:
    """The message counts what the filter dropped."""
    path = folder_of(tmp_path, {"a.csv": make_transactions(GOOD)}, where="amount > 1000")
    with pytest.raises(CheckFailed, match=r"there are no rows in .*a\.csv \(9 were filtered by `where`\); nothing was"):
        take_in(path)
    assert committed(tmp_path / "home") == []


def test_an_empty_file_among_others_is_no_fault(tmp_path: Path) -> None:
    """A day without sales has a file without lines, be it the first."""
    path = folder_of(tmp_path, {"a.csv": make_transactions([]), "b.csv": make_transactions(GOOD)})
    assert take_in(path)["transactions"].accepted == 9
    before = digest(tmp_path / "home")
    take_in(path)
    assert digest(tmp_path / "home") == before


def test_a_file_that_lost_all_its_rows_is_refused(tmp_path: Path) -> None:
    """A failed export must not empty what it exported before."""
    path = folder_of(tmp_path, {"a.csv": make_transactions(GOOD), "b.csv": many_transactions(5)})
    take_in(path)
    before = digest(tmp_path / "home")
    folder_of(tmp_path, {"a.csv": make_transactions([])})
    with pytest.raises(CheckFailed, match=r"a\.csv holds no rows; it held 9 before, nothing was changed"):
        take_in(path)
    assert digest(tmp_path / "home") == before


def test_one_bad_file_keeps_all_new_files_out(tmp_path: Path) -> None:
    """A table changes as a whole: the good file waits for the bad one."""
    path = folder_of(
        tmp_path, {"a.csv": make_transactions(GOOD), "b.csv": make_transactions([(None, "2024-01-05", 1.0)])}
    )
    with pytest.raises(CheckFailed, match="no customer_id"):
        take_in(path)
    assert not list((tmp_path / "home").rglob("manifest.json"))
    assert storage.parts(storage.tables_folder(tmp_path / "home", "transactions")) == []


def test_the_page_of_tables_is_complete() -> None:
    """`docs/tables.md` names every column, in bold where it is required, and every reason."""
    page = (Path(__file__).resolve().parents[2] / "docs" / "tables.md").read_text(encoding="utf-8")
    rows = {line.split("`")[1]: line for line in page.splitlines() if line.startswith("| `")}
    for name, contract in CONTRACTS.items():
        shown = ", ".join(f"**`{c.name}`**" if c.required else f"`{c.name}`" for c in contract.columns)
        assert shown in rows[name], name
    for reason in (checks.FUTURE, checks.ELSEWHERE, checks.REPLACED, f"occurred_at is before {EARLIEST}"):
        assert reason in rows
    assert f"{ABSURD_AMOUNT:,.0f}" in rows["absurd amount"]


# Crashes


def _environment() -> dict[str, str]:
    """For a Python process that imports what this one does."""
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def test_a_killed_ingest_is_made_good_by_the_next(tmp_path: Path) -> None:
    """kill -9 with some parts written leaves no table; run again, everything is as if undisturbed."""
    files = {f"{n}.csv": many_transactions(1000, channel=f"shop {n}") for n in range(30)}
    path = folder_of(tmp_path, files)
    home, table = tmp_path / "home", tmp_path / "home" / "tables" / "transactions"
    code = "import sys; from builders import take_in; from pathlib import Path; take_in(Path(sys.argv[1]))"
    with subprocess.Popen([sys.executable, "-c", code, str(path)], env=_environment()) as process:
        deadline = time.monotonic() + 60
        while not list(table.glob("*.parquet")) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert list(table.glob("*.parquet"))
    assert storage.parts(table) == []
    with storage.locked(home, "a test"):
        take_in(path)
    undisturbed = tmp_path / "undisturbed"
    take_in(path, NOW, f"home={undisturbed}")
    assert digest(home) == digest(undisturbed)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte; where that cannot be had the test is skipped by name."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root can mount a small disk")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_is_said_and_leaves_nothing_half_written(tmp_path: Path, small_disk: Path) -> None:
    """The table is as it was before, no draft is left, and with room the same command succeeds."""
    home = f"home={small_disk / 'home'}"
    path = folder_of(tmp_path, {"a.parquet": many_transactions(100)})
    take_in(path, NOW, home)
    before = digest(small_disk / "home")
    folder_of(tmp_path, {"b.parquet": many_transactions(200_000, channel=noise(200_000))})
    with pytest.raises(
        CheckFailed, match=r"disk/home cannot be written: .*No space left.*free some space there and run again"
    ):
        take_in(path, NOW, home)
    left = digest(small_disk / "home")
    assert {name: left[name] for name in before} == before
    assert not list(small_disk.rglob(".draft-*"))
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    assert take_in(path, NOW, home)["transactions"].accepted == 200_100


_WITH_SMALL_FILES = """
import resource, signal, sys
from builders import take_in
from pathlib import Path
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
take_in(Path(sys.argv[1]))
"""


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    """Where no file may grow beyond 200 kB there is neither part nor manifest nor draft, and a sentence."""
    rows = many_transactions(50_000, channel=noise(50_000))
    path = folder_of(tmp_path, {"a.parquet": rows})
    done = subprocess.run(
        [sys.executable, "-c", _WITH_SMALL_FILES, str(path)], env=_environment(), stderr=subprocess.PIPE, text=True,
        check=False,
    )  # fmt: skip
    assert re.search(r"CheckFailed: .* cannot be written: .*; free some space there and run again", done.stderr)
    assert not [file for file in (tmp_path / "home").rglob("*") if file.is_file()]
    assert take_in(path)["transactions"].accepted == 50_000


def test_a_missing_file_changes_nothing_that_is_there(tmp_path: Path) -> None:
    """A table whose source cannot be found is as it was; the others before it are up to date."""
    path = write_workspace(tmp_path, make_transactions(GOOD), tables={"products": PRODUCTS})
    take_in(path)
    before = digest(tmp_path / "home")
    (tmp_path / "transactions.parquet").unlink()
    with pytest.raises(SettingsError, match=r"tables\.transactions\.path: there is no file .*transactions\.parquet"):
        take_in(path)
    assert digest(tmp_path / "home") == before
    write(tmp_path / "transactions.parquet", make_transactions(GOOD[:5]))
    assert take_in(path)["transactions"].accepted == 5
