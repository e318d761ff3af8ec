"""The churn-risk list: consent as it is now, and files that spreadsheets open right."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime
from pathlib import Path
from typing import NamedTuple

import openpyxl
import pandas as pd
import pytest
from builders import accepted, take_in, write, write_workspace
from workspaces import AS_OF

from perennial import ingest, registry, storage
from perennial.settings import Workspace
from perennial.storage import CheckFailed
from serving import lists
from serving.predictor import Predictor

from .conftest import Shop

ODD = ["=1+1", "+49 30 1", "-5", "@home", "\tx", "\rx", 'says "no", then, goes', "two\nlines", "Zoë", "007", "a=b"]
DANGEROUS = 6  # the first so many of them


class Copy(NamedTuple):
    """A copy of the shop whose tables a test may change."""

    predictor: Predictor
    folder: Path

    @property
    def workspace(self) -> Workspace:
        return self.predictor.workspace

    def listed(self, **narrower: object) -> pd.DataFrame:
        return lists.churn_risk(self.predictor, AS_OF, **{"top": 10_000, **narrower})  # type: ignore[arg-type]

    def take_in(self, customers: pd.DataFrame) -> None:
        """Ingests other customers than those that were scored."""
        customers.to_csv(self.folder / "customers.csv", index=False)
        ingest.ingest(self.workspace, datetime(2030, 1, 1, tzinfo=UTC))


@pytest.fixture
def copy(shop: Shop, tmp_path: Path) -> Iterator[Copy]:
    shutil.copytree(shop.workspace.home_path, tmp_path / "home")
    tables = shop.workspace.tables
    assert tables.customers is not None
    customers = tables.customers.model_copy(update={"path": (str(tmp_path / "customers.csv"),)})
    workspace = shop.workspace.model_copy(
        update={"home": str(tmp_path / "home"), "tables": tables.model_copy(update={"customers": customers})}
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", shop.tracking_uri)
        yield Copy(Predictor.load(workspace, registry.client()), tmp_path)


@pytest.fixture
def customers(shop: Shop) -> pd.DataFrame:
    assert shop.workspace.tables.customers is not None
    assert shop.workspace.tables.customers.path is not None
    return pd.read_csv(shop.workspace.tables.customers.path[0], dtype={"customer_id": str})


def test_a_consent_withdrawn_since_the_scoring_counts_at_once(copy: Copy, customers: pd.DataFrame) -> None:
    """The list asks the customers as they are now, not as they were scored."""
    first = copy.listed()["customer_id"].iloc[0]
    customers.loc[customers["customer_id"] == first, "marketing_consent"] = False
    copy.take_in(customers)
    assert first not in set(copy.listed()["customer_id"])
    assert len(copy.listed()) > 100


def test_who_is_missing_from_the_customers_is_not_listed(copy: Copy, customers: pd.DataFrame) -> None:
    """Where consents are kept, no record is no consent; nor is an empty one."""
    first, second, *others = copy.listed()["customer_id"]
    customers = customers[customers["customer_id"] != first].astype({"marketing_consent": object})
    customers.loc[customers["customer_id"] == second, "marketing_consent"] = None
    copy.take_in(customers)
    assert copy.listed()["customer_id"].tolist() == others


def test_a_shop_that_keeps_no_consents_lists_everyone_scored(copy: Copy, customers: pd.DataFrame) -> None:
    """Without the column there is nobody to have objected."""
    copy.take_in(customers.drop(columns="marketing_consent"))
    scores = pd.read_parquet(storage.scores_path(copy.workspace.home_path, AS_OF))
    assert set(copy.listed()["customer_id"]) == set(scores.loc[scores["not_scored_reason"].isna(), "customer_id"])


def test_the_list_has_the_scores_of_its_customers(copy: Copy) -> None:
    """Each row repeats the customer's own score and names the best offer with its kind and probability."""
    listed = copy.listed(top=30).set_index("customer_id")
    scores = pd.read_parquet(storage.scores_path(copy.workspace.home_path, AS_OF)).set_index("customer_id")
    same = [name for name in lists.COLUMNS if name in scores.columns and name != "as_of"]
    pd.testing.assert_frame_equal(listed[same], scores.loc[listed.index, same], check_dtype=False)
    offers = pd.read_parquet(storage.offers_path(copy.workspace.home_path, AS_OF)).query("rank == 1")
    offers = offers.set_index("customer_id").loc[listed.index]
    assert listed["offer_kind"].tolist() == offers["kind"].tolist()
    assert listed["offer_probability"].tolist() == offers["probability"].tolist()
    assert tuple(copy.listed(top=1).columns) == lists.COLUMNS


def test_a_minimum_value_and_a_band_hold_together_with_top(copy: Copy) -> None:
    """Filters come first, then the highest value at risk of what they leave."""
    everyone = copy.listed()
    worth = float(everyone["lifetime_value"].quantile(0.6))
    wanted = everyone[(everyone["lifetime_value"] >= worth) & (everyone["churn_band"] == "medium")]
    assert len(wanted) > 3
    found = copy.listed(min_value=worth, band="medium", top=3)
    assert found["customer_id"].tolist() == wanted["customer_id"].head(3).tolist()
    exact = copy.listed(min_value=float(everyone["lifetime_value"].max()))
    assert exact["lifetime_value"].tolist() == [everyone["lifetime_value"].max()]


def test_an_as_of_that_was_not_scored_is_refused(copy: Copy) -> None:
    """The sentence names the day and the command; the latest scored day is the default."""
    with pytest.raises(CheckFailed, match=r"no scores of 2023-06-01; run `perennial score --as-of 2023-06-01`"):
        lists.churn_risk(copy.predictor, date(2023, 6, 1))
    assert set(lists.churn_risk(copy.predictor)["as_of"]) == {pd.Timestamp(AS_OF)}


def test_nobody_to_list_is_an_empty_table_in_every_format(copy: Copy) -> None:
    """A header and no rows, an empty array, or a sentence."""
    nobody = copy.listed(min_value=1e9)
    assert nobody.empty
    assert lists.encode(nobody, "csv").decode("utf-8-sig").strip() == ",".join(lists.COLUMNS)
    assert json.loads(lists.encode(nobody, "json")) == []
    sheet = openpyxl.load_workbook(io.BytesIO(lists.encode(nobody, "xlsx"))).active
    assert [[cell.value for cell in row] for row in sheet.iter_rows()] == [list(lists.COLUMNS)]
    assert lists.as_text(nobody).startswith("no customer to list")


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
    text = lists.encode(rows, "csv").decode("utf-8-sig")
    read = list(csv.DictReader(io.StringIO(text, newline="")))
    for name in ("customer_id", "reasons", "offer", "offer_kind"):
        assert [row[name] for row in read] == [harmless(value, name) or "" for value in rows[name]]
    assert [float(row["lifetime_value"]) for row in read] == rows["lifetime_value"].tolist()
    assert read[0]["offer_probability"] == ""
    assert {row["as_of"] for row in read} == {"2023-07-01"}


def test_csv_is_utf_8_with_a_mark_and_windows_line_ends() -> None:
    """As Excel expects; a line end within a text stays as it was."""
    content = lists.encode(odd_rows(), "csv")
    assert content.startswith(b"\xef\xbb\xbf")
    assert content.endswith(b"\r\n")
    assert "Zoë".encode() in content
    assert content.count(b"\r\n") == len(ODD) + 1
    assert b'"two\nlines"' in content


def test_xlsx_keeps_types_and_defuses_every_text_column() -> None:
    """Numbers are numbers, days are days, gaps are empty, and no text is a formula."""
    rows = odd_rows()
    sheet = openpyxl.load_workbook(io.BytesIO(lists.encode(rows, "xlsx"))).active
    header, *body = list(sheet.iter_rows())
    assert [cell.value for cell in header] == list(rows.columns)
    columns = {cell.value: [row[place] for row in body] for place, cell in enumerate(header)}
    for name in ("customer_id", "reasons", "offer", "offer_kind"):
        assert [cell.value for cell in columns[name]] == [_as_xml(value) for value in rows[name]]
        assert {cell.data_type for cell in columns[name] if cell.value is not None} == {"s"}
    assert {cell.data_type for cell in columns["lifetime_value"]} == {"n"}
    assert all(cell.is_date and cell.value == datetime(2023, 7, 1) for cell in columns["as_of"])
    assert columns["offer_probability"][0].value is None


def _as_xml(text: str | None) -> str | None:
    """XML keeps a carriage return as a line feed."""
    return text and text.replace("\r", "\n")


def test_xlsx_drops_characters_that_it_cannot_hold() -> None:
    """A control character in a name must not cost the marketer the whole list."""
    rows = pd.DataFrame({"customer_id": ["a\x00b\x0b", "\x1f=1"], "value": [1.0, 2.0]})
    sheet = openpyxl.load_workbook(io.BytesIO(lists.encode(rows, "xlsx"))).active
    assert [cell.value for cell in sheet["A"]] == ["customer_id", "ab", "=1"]
    assert sheet["A3"].data_type == "s"


SIGNS = ["+49123", "=1+1", "-5", "@x", "007", "1e5", "12345678901234567890", "=HYPERLINK(1)", "-x|y", "+49 (0)30/1"]


@pytest.mark.parametrize("format", ["csv", "xlsx"])
def test_an_id_that_comes_back_from_a_file_is_the_same(tmp_path: Path, format: lists.Format) -> None:
    """Read with pandas and taken in again by ingest; only a formula in CSV shows pandas the apostrophe before it."""
    rows = pd.DataFrame({"customer_id": SIGNS, "item": SIGNS, "as_of": pd.Timestamp("2024-01-05"), "value": 1.0})
    file = tmp_path / f"list.{format}"
    file.write_bytes(lists.encode(rows, format))
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
    sheet = openpyxl.load_workbook(io.BytesIO(lists.encode(rows, "xlsx"))).active
    assert [bool(cell.quotePrefix) for cell in sheet["A"]] == [False, True, False]


def test_json_holds_texts_as_they_are() -> None:
    """No apostrophes for programs; gaps are null, days are days, letters are letters."""
    rows = odd_rows()
    content = lists.encode(rows, "json")
    read = json.loads(content)
    assert [row["customer_id"] for row in read] == ODD
    assert read[0]["offer_kind"] is read[0]["offer_probability"] is None
    assert {row["as_of"] for row in read} == {"2023-07-01"}
    assert read[0]["lifetime_value"] == -1.5
    assert "Zoë".encode() in content


def test_the_text_names_each_customer_with_reasons_and_offer(copy: Copy) -> None:
    """For a terminal: one line a customer in the list's order, and no `nan` where there is no offer."""
    listed = copy.listed(top=5)
    listed.loc[4, ["offer", "offer_kind"]] = None
    _, *lines = lists.as_text(listed).splitlines()
    for line, row in zip(lines, listed.itertuples(), strict=True):
        assert line.startswith(row.customer_id)
        assert row.reasons in line
    assert f"offer {listed['offer'][0]} ({listed['offer_kind'][0]})" in lines[0]
    assert "offer" not in lines[4]
    assert "nan" not in lines[4].lower()


def test_an_unknown_format_is_refused() -> None:
    """No file with another content than its name says."""
    with pytest.raises(ValueError, match="format 'pdf' is not one of csv, xlsx, json"):
        lists.encode(odd_rows(), "pdf")  # type: ignore[arg-type]


def test_many_may_ask_for_a_list_at_once(copy: Copy) -> None:
    """DuckDB refuses a connection that another thread is using."""
    alone = copy.listed(top=3)["customer_id"].tolist()
    with ThreadPoolExecutor(8) as pool:
        pages = list(pool.map(lambda _: copy.listed(top=3)["customer_id"].tolist(), range(48)))
    assert pages == [alone] * 48
