"""The privacy key, and what ingest does with it: pseudonyms, encrypted contact data, nothing of the originals kept."""

from __future__ import annotations

import hashlib
import hmac
import os
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pytest
from builders import NOW, make_transactions, write, write_workspace
from private_shop import files_with

from ingest import intake
from workspace import privacy, settings, storage
from workspace.privacy import PrivacyKey
from workspace.settings import SettingsError, Workspace

KEY = "a-privacy-key-of-tests"
CUSTOMERS = pd.DataFrame(
    {"customer_id": ["anna 17", "ben 23"], "email": ["anna@example.com", None], "phone": ["+49 30 1", "+49 30 2"]}
)
LINES = make_transactions([("anna 17", "2024-01-05", 10.0), (" ben 23", "2024-02-05", 12.0), ("ben 23", "never", 1.0)])


@pytest.fixture
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERENNIAL_PRIVACY_KEY", KEY)


def private(folder: Path, **keys: object) -> Workspace:
    """A shop of two customers with contact data, one line of which is bad."""
    customers = {"path": str(write(folder / "customers.csv", CUSTOMERS))}
    path = write_workspace(folder, LINES, tables={"customers": customers}, max_quarantined=0.5, pii=["email", "phone"])
    changes = [f"{name}={value}" for name, value in keys.items()]
    return settings.read(path, changes, home=folder / "home")


def rows_of(workspace: Workspace, table: str) -> pd.DataFrame:
    return duckdb.execute(f"SELECT * FROM {storage.rows_of(workspace.home_path, table)}").df()


def test_duckdb_and_python_make_the_same_names_and_marks() -> None:
    """Both are HMAC-SHA256 under keys of their own, of an id and of its pseudonym alike."""
    key = PrivacyKey(KEY)
    pseudonym = key.pseudonym("Zoë/7")
    derived = hmac.digest(KEY.encode(), b"pseudonym", "sha256")
    assert pseudonym == f"pseudonym-{hmac.new(derived, 'Zoë/7'.encode(), hashlib.sha256).hexdigest()[:32]}"
    with duckdb.connect() as connection:
        key.teach(connection)
        query = "SELECT pseudonym('Zoë/7'), mark('Zoë/7'), pseudonym($name), mark($name)"
        names = connection.execute(query, {"name": pseudonym}).fetchall()[0]
    assert names == (pseudonym, key.mark("Zoë/7"), pseudonym, key.mark(pseudonym))
    assert names[1] == names[3] != PrivacyKey(f"{KEY}!").mark("Zoë/7")


@pytest.mark.usefixtures("_key")
def test_contact_data_are_kept_encrypted(tmp_path: Path) -> None:
    """No file below the home has an address; with the key each is read again, and nothing stays nothing."""
    workspace = private(tmp_path)
    intake.ingest(workspace, NOW)
    for _, row in CUSTOMERS.iterrows():
        for text in filter(None, (row["email"], row["phone"])):
            assert files_with(workspace.home_path, text) == set()
    kept, key = rows_of(workspace, "customers").sort_values("customer_id"), PrivacyKey(KEY)
    assert [key.decrypted(text) for text in kept["phone"]] == CUSTOMERS["phone"].tolist()
    assert kept["email"].isna().tolist() == [False, True]
    assert all(mark in kept["phone"].iloc[0] for mark in key.word_marks(CUSTOMERS["phone"][0]))
    anna, mueller, both = (key.word_marks(word)[0] for word in ("anna", "m\u00fcller", "annam\u00fcller"))
    assert key.word_marks("ANNA  Mu\u0308ller") == [anna, mueller, both]
    assert set(key.word_marks("anna")).isdisjoint(PrivacyKey("another-privacy-key").word_marks("anna"))
    with pytest.raises(SettingsError, match="not the key that this was encrypted with"):
        PrivacyKey("another-privacy-key").decrypted(kept["phone"].iloc[0])


@pytest.mark.usefixtures("_key")
def test_pseudonyms_replace_every_id(tmp_path: Path) -> None:
    """In both tables and in quarantine the same customer has the same name, and no file has the id."""
    workspace = private(tmp_path, pseudonyms="true")
    accounts = {account.table: account for account in intake.ingest(workspace, NOW)}
    assert accounts["transactions"].accepted == 2
    named = [privacy.naming(workspace)(one) for one in CUSTOMERS["customer_id"]]
    assert rows_of(workspace, "customers")["customer_id"].tolist() == named
    assert rows_of(workspace, "transactions")["customer_id"].tolist() == named
    assert (
        pd.read_parquet(workspace.home_path / "quarantine" / "transactions.parquet")["customer_id"].tolist()
        == named[1:]
    )
    assert files_with(workspace.home_path, "anna") | files_with(workspace.home_path, "ben 23") == set()


@pytest.mark.parametrize(("key", "problem"), [("", "is not set"), ("short", "has 5 characters, at least 16")])
def test_without_a_good_key_nothing_is_taken_in(
    key: str, problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An absent key and one that can be guessed stop ingest before it writes a row."""
    monkeypatch.setenv("PERENNIAL_PRIVACY_KEY", key)
    workspace = private(tmp_path)
    with pytest.raises(SettingsError, match=f"PERENNIAL_PRIVACY_KEY {problem}"):
        intake.ingest(workspace, NOW)
    assert list(workspace.home_path.rglob("*.parquet")) == []


def test_with_another_key_nobody_who_was_erased_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their marks would not be recognised: ingest takes nothing in, and nobody else is erased with a second key."""
    monkeypatch.setenv("PERENNIAL_PRIVACY_KEY", "the-first-key-of-tests")
    lines = make_transactions([(f"c{number:02}", "2024-01-05", 10.0) for number in range(20)])
    workspace = settings.read(write_workspace(tmp_path, lines))
    storage.make_folder(workspace.home_path)
    privacy.note_erased(workspace.home_path, {privacy.key_of(workspace.home_path).mark("c07"): {}}, done=True)
    monkeypatch.setenv("PERENNIAL_PRIVACY_KEY", "another-key-of-tests")
    with pytest.raises(SettingsError, match="were marked with: none of them would be recognised; set the former"):
        intake.ingest(workspace, NOW)
    with pytest.raises(SettingsError, match="is not the key"):
        privacy.note_erased(workspace.home_path, {"a mark": {}})
    assert list(workspace.home_path.rglob("*.parquet")) == []
    monkeypatch.setenv("PERENNIAL_PRIVACY_KEY", "the-first-key-of-tests")
    (account,) = intake.ingest(workspace, NOW)
    assert account.quarantined["erased customer"] == 1


def test_contact_data_are_no_features(tmp_path: Path) -> None:
    """A column cannot be an attribute, which models see, and contact data too."""
    path = write_workspace(
        tmp_path, LINES, tables={"customers": {"path": "x.csv"}}, pii=["email"], attributes=["email"]
    )
    with pytest.raises(SettingsError, match="`email` is under `pii` and would be used as a feature"):
        settings.read(path)


def test_who_is_erased_within_one_tick_of_the_clock_is_not_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Notes that follow each other at once have one time of writing; a later one holds the marks of all before it."""
    written = os.replace

    def at_one_time(source: Any, target: Any, **more: Any) -> None:
        os.utime(source, ns=(1, 1))
        written(source, target, **more)

    monkeypatch.setenv("PERENNIAL_PRIVACY_KEY", "a-privacy-key-of-tests")
    monkeypatch.setattr(os, "replace", at_one_time)
    for number in range(3):
        privacy.note_erased(tmp_path, {f"mark {number}": {}})
        assert f"mark {number}" in privacy.erased(tmp_path)
    assert privacy.erased(tmp_path).keys() == {"mark 0", "mark 1", "mark 2"}
