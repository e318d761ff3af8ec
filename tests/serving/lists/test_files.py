"""Tables as files: what spreadsheets and programs open is what was written, and nothing is computed."""

from __future__ import annotations

import csv
import io
import json
from datetime import datetime
from pathlib import Path

import openpyxl
import pandas as pd
import pytest
from builders import accepted, take_in, write, write_workspace
from workspaces import AS_OF

from serving.lists.files import Format, encode

ODD = ["=1+1", "+49 30 1", "-5", "@home", "\tx", "\rx", 'says "no", then, goes', "two\nlines", "Zoë", "007", "a=b"]
DANGEROUS = 6  # the first so many of them


def odd_rows() -> pd.DataFrame:
    """Every awkward text in every text column, beside numbers, a date and gaps."""
    return pd.DataFrame(
        {
            "customer_id": ODD, "lifetime_value": [-1.5, *range(1, len(ODD))], "reasons": ODD, "offer": ODD[::-1],
            "offer_kind": [None, *ODD[1:]], "offer_probability": [float("nan"), *[0.25] * (len(ODD) - 1)],
            "as_of": pd.Timestamp(AS_OF),
        }
    )  # fmt: skip


def harmless(text: str | None, name: str = "reasons") -> str | None:
    spared = ("+49 30 1", "-5") if name in ("customer_id", "offer") else ()
    return f"'{text}" if text is not None and text in ODD[:DANGEROUS] and text not in spared else text


def test_csv_defuses_every_text_column_and_nothing_else() -> None:
    """Read back by a CSV reader, texts are as they were but for the apostrophe, which ids that are mere numbers do not
    get; negative numbers stay numbers."""
    rows = odd_rows()
    text = encode(rows, "csv").decode("utf-8-sig")
    read = list(csv.DictReader(io.StringIO(text, newline="")))
    for name in ("customer_id", "reasons", "offer", "offer_kind"):
        assert [row[name] for row in read] == [harmless(value, name) or "" for value in rows[name]]
    assert [float(row["lifetime_value"]) for row in read] == rows["lifetime_value"].tolist()
    assert read[0]["offer_probability"] == ""
    assert {row["as_of"] for row in read} == {"2023-07-01"}


def test_csv_is_utf_8_with_a_mark_and_windows_line_ends() -> None:
    """As Excel expects; a line end within a text stays as it was."""
    content = encode(odd_rows(), "csv")
    assert content.startswith(b"\xef\xbb\xbf")
    assert content.endswith(b"\r\n")
    assert "Zoë".encode() in content
    assert content.count(b"\r\n") == len(ODD) + 1
    assert b'"two\nlines"' in content


def test_xlsx_keeps_types_and_defuses_every_text_column() -> None:
    """Numbers are numbers, days are days, gaps are empty, and no text is a formula."""
    rows = odd_rows()
    sheet = openpyxl.load_workbook(io.BytesIO(encode(rows, "xlsx"))).active
    header, *body = list(sheet.iter_rows())
    assert [cell.value for cell in header] == list(rows.columns)
    columns = {cell.value: [row[place] for row in body] for place, cell in enumerate(header)}
    for name in ("customer_id", "reasons", "offer", "offer_kind"):
        assert [cell.value for cell in columns[name]] == [_as_xml(value) for value in rows[name]]
        assert {cell.data_type for cell in columns[name] if cell.value is not None} == {"s"}
    assert {cell.data_type for cell in columns["lifetime_value"]} == {"n"}
    assert all(cell.is_date and cell.value == datetime(2023, 7, 1) for cell in columns["as_of"])
    assert columns["offer_probability"][0].value is None


def test_xlsx_can_be_read_as_it_opens() -> None:
    """Names of columns in bold, which stay in sight; room for texts, up to a width; numbers short, yet whole below."""
    rows = pd.DataFrame({
        "customer_id": ["c1"], "churn_probability": [0.18172], "lifetime_value": [12539.3594], "reasons": ["why " * 90],
        "offer": ["=1+1"],
    })  # fmt: skip
    sheet = openpyxl.load_workbook(io.BytesIO(encode(rows, "xlsx", ["about it"]))).active
    assert sheet.freeze_panes == "B2"
    assert all(cell.font.b for cell in sheet[1])
    assert not any(cell.font.b for cell in sheet[2])
    assert [sheet.column_dimensions[letter].width for letter in "ABCDE"] == [13, 19, 16, 62, 7]
    assert [(cell.value, cell.number_format) for cell in sheet[2][1:3]] == [(0.18172, "0.0%"), (12539.3594, "#,##0.00")]
    assert sheet["E2"].data_type == "s"


def _as_xml(text: str | None) -> str | None:
    """XML keeps a carriage return as a line feed."""
    return text and text.replace("\r", "\n")


def test_xlsx_drops_characters_that_it_cannot_hold() -> None:
    """A control character in a name must not cost the marketer the whole list."""
    rows = pd.DataFrame({"customer_id": ["a\x00b\x0b", "\x1f=1"], "value": [1.0, 2.0]})
    sheet = openpyxl.load_workbook(io.BytesIO(encode(rows, "xlsx"))).active
    assert [cell.value for cell in sheet["A"]] == ["customer_id", "ab", "=1"]
    assert sheet["A3"].data_type == "s"


SIGNS = ["+49123", "=1+1", "-5", "@x", "007", "1e5", "12345678901234567890", "=HYPERLINK(1)", "-x|y", "+49 (0)30/1"]


@pytest.mark.parametrize("format", ["csv", "xlsx"])
def test_an_id_that_comes_back_from_a_file_is_the_same(tmp_path: Path, format: Format) -> None:
    """Read with pandas and taken in again by ingest; only a formula in CSV shows pandas the apostrophe before it."""
    rows = pd.DataFrame({"customer_id": SIGNS, "item": SIGNS, "as_of": pd.Timestamp("2024-01-05"), "value": 1.0})
    file = tmp_path / f"list.{format}"
    file.write_bytes(encode(rows, format))
    read = (pd.read_csv if format == "csv" else pd.read_excel)(file, dtype={"customer_id": str, "item": str})
    formulas = {"=1+1", "@x", "=HYPERLINK(1)", "-x|y"} if format == "csv" else set()
    for column in ("customer_id", "item"):
        assert read[column].tolist() == [f"'{one}" if one in formulas else one for one in SIGNS]
    columns = {"transaction_id": "customer_id", "product_id": "item", "occurred_at": "as_of", "amount": "value"}
    again = write(tmp_path / "again.csv", file.read_bytes() if format == "csv" else read)
    workspace = write_workspace(tmp_path, {"path": str(again), "columns": columns})
    take_in(workspace)
    for column in ("transaction_id", "customer_id", "product_id"):
        assert set(accepted(workspace)[column]) == set(SIGNS)


def test_a_text_of_xlsx_stays_one_when_it_is_edited() -> None:
    """The cell says so: a spreadsheet then does not compute what somebody leaves with the enter key."""
    rows = pd.DataFrame({"customer_id": ["=1+1", "a=b"]})
    sheet = openpyxl.load_workbook(io.BytesIO(encode(rows, "xlsx"))).active
    assert [bool(cell.quotePrefix) for cell in sheet["A"]] == [False, True, False]


def test_json_holds_texts_as_they_are() -> None:
    """No apostrophes for programs; gaps are null, days are days, letters are letters."""
    rows = odd_rows()
    content = encode(rows, "json")
    read = json.loads(content)
    assert [row["customer_id"] for row in read] == ODD
    assert read[0]["offer_kind"] is read[0]["offer_probability"] is None
    assert {row["as_of"] for row in read} == {"2023-07-01"}
    assert read[0]["lifetime_value"] == -1.5
    assert "Zoë".encode() in content


def test_an_unknown_format_is_refused() -> None:
    """No file with another content than its name says."""
    with pytest.raises(ValueError, match="format 'pdf' is not one of csv, xlsx, json"):
        encode(odd_rows(), "pdf")  # type: ignore[arg-type]
