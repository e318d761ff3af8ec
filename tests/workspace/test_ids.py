"""Ids: the same text means the same id to SQL, Python, ingest and service, and some mean none, with a reason."""

from __future__ import annotations

import sys
import tempfile
import unicodedata
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from builders import NOW, accepted, make_transactions, quarantined, take_in, write_workspace
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from serving.http.bodies import Id
from workspace import ids
from workspace.privacy import KEY_VARIABLE, PrivacyKey

SAME = [
    "ann",
    "ann\u00a0",
    "\u200bann",
    "ann\t",
    " ann ",
    "\u3000ann",
    "ann\n",
    "\ufeffann",
    "\u202aann\u202c",
    "\r\nann\x85",
    "\xadann\u061c",
    "\u2061\u2064ann\u206a\u206f",
    "\ufff9ann\ufffb",
]
REFUSED = {
    "a\x00b": "has a control character in it",
    "\x00": "has a control character in it",
    "a\tb": "has a control character in it",
    "a\nb": "has a control character in it",
    "a\x9fb": "has a control character in it",
    "a\u2028b": "has a control character in it",
    "x" * 201: "is longer than 200 characters",
    "\U0001f469" * 201: "is longer than 200 characters",
}
SIGNS = ["+49123", "=1+1", "-5", "@x", "007", "1e5", "12345678901234567890"]
KEPT = [*SIGNS, "a b", "x" * 200, "\U0001f469\u200d\U0001f4bb", "\u2764\ufe0f", "O'Neil", "''=1", "'a", "Zoë/7 & co"]


def in_sql(texts: list[str]) -> list[str | None]:
    given = pa.table({"x": pa.array(texts, pa.string())})  # noqa: F841
    return [row[0] for row in duckdb.sql(f"SELECT {ids.usable('x')} FROM given").fetchall()]


def in_python(text: str) -> str | None:
    try:
        return ids.canonical(text)
    except ValueError:
        return None


# All that DuckDB's tables of Unicode and Python's both know; blanks, marks and controls often, at the ends above all.
CHARACTERS = st.characters(exclude_categories=("Cs", "Cn"))
ODD = st.sampled_from(
    [*ids.BLANKS, "\x00", "\x1f", "'", "=", "+", "\u0301", "\u0323", "\u1100", "\u1161", "a", "e", "9"]
)
TEXTS = st.text(st.one_of(ODD, CHARACTERS), max_size=12)


@hypothesis_settings(deadline=None, database=None, derandomize=True, max_examples=60)
@given(texts=st.lists(TEXTS, min_size=20, max_size=40))
def test_sql_and_python_agree_on_every_text(texts: list[str]) -> None:
    """What is an id, and which; and an id means itself."""
    read = in_sql(texts)
    assert read == list(map(in_python, texts))
    assert in_sql([one for one in read if one]) == [one for one in read if one]


def test_sql_and_python_agree_on_every_character() -> None:
    """Alone, taken apart, at either end and in the middle; of plain letters without a composition not each is tried."""
    characters = [
        c
        for c in map(chr, range(sys.maxunicode + 1))
        if unicodedata.category(c) not in ("Cs", "Cn", "Co", "Lo") or unicodedata.decomposition(c)
    ]
    texts = [text for c in characters for text in (c, unicodedata.normalize("NFD", c), f"{c}a", f"a{c}", f"a{c}b")]
    assert in_sql(texts) == list(map(in_python, texts))


@pytest.mark.parametrize("text", KEPT)
def test_an_id_without_blanks_is_what_it_is(text: str) -> None:
    """Leading zeros, signs, apostrophes, blanks and joiners inside."""
    assert ids.canonical(text) == text == in_sql([text])[0]


@pytest.mark.parametrize("text", [*SAME, *REFUSED, *KEPT, "", " \u200b", "'=1+1", "'+49123", "a\u0301nn"])
def test_ingest_and_service_take_the_same_text_for_the_same_id(text: str) -> None:
    """Either both refuse it, or both know the same customer, order and product by it."""
    with tempfile.TemporaryDirectory() as folder:
        rows = make_transactions([(text, "2024-01-05", 1.0), ("other", "2024-01-05", 2.0)], product_id=[text, "p"])
        path = write_workspace(Path(folder), rows.assign(transaction_id=[text, "t"]), max_quarantined=1)
        take_in(path)
        lines = accepted(path)[["transaction_id", "customer_id", "product_id"]].values.tolist()
        bad = quarantined(path)["reason"].tolist()
    lines.remove(["t", "other", "p"])
    try:
        served = TypeAdapter(Id).validate_python(text, strict=True)
    except ValidationError:
        assert lines == []
        assert bad == [f"transaction_id {REFUSED[text]}" if text in REFUSED else "no transaction_id"]
        return
    assert lines == [[served] * 3]


def test_blanks_of_any_kind_are_trimmed_and_letters_are_composed(tmp_path: Path) -> None:
    """Ten spellings of one customer are one, and "á" is a letter however it is written; so are orders and products."""
    spelled = [*SAME, "a\u0301nn", "\u00e1nn"]
    rows = make_transactions([(text, "2024-01-05", float(n)) for n, text in enumerate(spelled)], product_id=spelled)
    for name, source in (("csv", rows.to_csv(index=False)), ("parquet", rows)):
        path = write_workspace(tmp_path / name, source)
        take_in(path)
        for column in ("customer_id", "product_id"):
            assert accepted(path)[column].value_counts().to_dict() == {"ann": len(SAME), "\u00e1nn": 2}


def test_tabs_after_every_value_are_none_of_it(tmp_path: Path) -> None:
    """Exports put a tab after ids and numbers so that a spreadsheet leaves them alone: also in expressions."""
    text = "o,c,t,a,n\n1\t,ann\t,2024-01-05 10:00:00\t,10\t,2\t\n2\t,ann,2024-01-06 10:00:00,20\u00a0,3\n"
    columns = {"transaction_id": "o", "customer_id": "c", "occurred_at": "t", "amount": "a * n", "quantity": "n"}
    (tmp_path / "t.csv").write_text(text)
    path = write_workspace(tmp_path, {"path": str(tmp_path / "t.csv"), "columns": columns})
    take_in(path)
    rows = accepted(path)[["transaction_id", "customer_id", "amount", "quantity"]]
    assert rows.values.tolist() == [["1", "ann", 20.0, 2.0], ["2", "ann", 60.0, 3.0]]


def test_a_pseudonym_is_of_the_id_not_of_its_spelling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What SQL and Python hash is the id."""
    monkeypatch.setenv(KEY_VARIABLE, "a key that is long enough")
    rows = make_transactions(
        [(text, "2024-01-05", float(n)) for n, text in enumerate([*SAME, "\u00e1nn", "a\u0301nn"])]
    )
    path = write_workspace(tmp_path, rows, pseudonyms=True)
    take_in(path, NOW)
    key = PrivacyKey.of_environment()
    assert set(accepted(path)["customer_id"]) == {key.pseudonym("ann"), key.pseudonym("\u00e1nn")}
