"""A table as a file that a spreadsheet or a program opens: CSV, XLSX, JSON; no text in it is a formula."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import pandas as pd

Format = Literal["csv", "xlsx", "json"]

_SPREADSHEET_COMMANDS = ("=", "+", "-", "@", "\t", "\r")
_ID_COLUMNS = ("customer_id", "item", "offer")
_CHUNK = 1 << 16  # bytes sent at a time
_MEASURED = 500  # rows by which a spreadsheet's columns are made wide enough
_WIDEST = 60  # characters of a spreadsheet's column


def encode(rows: pd.DataFrame, format: Format, notes: Sequence[str] = ()) -> bytes:
    """A table as a spreadsheet opens it: CSV in UTF-8 with a byte-order mark, XLSX with typed cells, or JSON records.

    `notes` are sentences about it: on a second sheet of an XLSX file, `about`; the others have no place for them.

    No text is a formula: in XLSX its cell is of type text, in CSV one that would be computed (`=`, `+`, `-`, `@` in
    front) gets an apostrophe before it. An id only gets that where computing it could do harm, and `ids.canonical`
    takes it away: an id that comes back is the same.

    Raises:
        ValueError: the format is none of these.
    """
    return b"".join(encoded([rows], format, notes))


def encoded(
    blocks: Iterable[pd.DataFrame], format: Format, notes: Sequence[str] = (), headings: Mapping[str, str] | None = None
) -> Iterator[bytes]:
    """The same of a table that comes in blocks, piece by piece; at least one block, be it empty, names the columns.

    Over a spreadsheet's columns stand their `headings`, where they have some.
    """
    match format:
        case "csv":
            return _csv(blocks)
        case "xlsx":
            return _xlsx(blocks, notes, headings or {})
        case "json":
            return _json(blocks)
    raise ValueError(f"format {format!r} is not one of csv, xlsx, json")


def _csv(blocks: Iterable[pd.DataFrame]) -> Iterator[bytes]:
    for place, rows in enumerate(blocks):
        text = _harmless(rows).to_csv(index=False, header=place == 0, lineterminator="\r\n")
        yield text.encode("utf-8-sig" if place == 0 else "utf-8")


def _json(blocks: Iterable[pd.DataFrame]) -> Iterator[bytes]:
    opened = b"["
    for rows in blocks:
        days = {str(name): rows[name].dt.strftime("%Y-%m-%d") for name in rows.select_dtypes("datetime")}
        text = rows.assign(**days).to_json(orient="records", force_ascii=False).encode()
        if len(text) > 2:
            yield opened + text[1:-1]
            opened = b","
    yield b"[]" if opened == b"[" else b"]"


def _harmless(rows: pd.DataFrame) -> pd.DataFrame:
    texts = rows.select_dtypes(["object", "string"]).columns
    return rows.assign(**{str(name): rows[name].map(partial(_guarded, str(name))) for name in texts})


def _guarded(name: str, value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and _is_computed(name, value) else value


def _is_computed(name: str, text: str) -> bool:
    """Whether a spreadsheet would compute a text of CSV; of an id, more than a number: +49 and -5 stay as they are."""
    if name in _ID_COLUMNS and re.fullmatch(r"[+-][0-9 ./()+-]*", text):
        return False
    return text.startswith(_SPREADSHEET_COMMANDS)


def _printable(text: str) -> str:
    """Without the control characters that XLSX cannot hold."""
    from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE

    return ILLEGAL_CHARACTERS_RE.sub("", text)


def _cell(sheet: Any, name: str, value: Any) -> Any:
    """A text is a text, whatever it begins with, and stays one when somebody edits the cell; a number looks short."""
    from openpyxl.cell import WriteOnlyCell

    if isinstance(value, str):
        cell = WriteOnlyCell(sheet, _printable(value))
        cell.data_type, cell.quotePrefix = "s", value.startswith(_SPREADSHEET_COMMANDS)
        return cell
    if pd.isna(value):
        return None
    if isinstance(value, float):
        cell = WriteOnlyCell(sheet, value)
        cell.number_format = "0.0%" if "probability" in name else "#,##0.00"
        return cell
    return value.date() if isinstance(value, pd.Timestamp) else value


def _head(sheet: Any, rows: pd.DataFrame, headings: Mapping[str, str]) -> None:
    """The names of the columns in bold, which stay in sight with the first column, and room for what is below them."""
    from openpyxl.styles import Font
    from openpyxl.utils import get_column_letter

    sheet.freeze_panes = "B2"
    cells = []
    for place, name in enumerate(rows.columns):
        longest = rows[name].head(_MEASURED).map(lambda value: len(str(value)) if isinstance(value, str) else 0).max()
        heading = headings.get(str(name), str(name))
        width = max(len(heading), 0 if pd.isna(longest) else int(longest))
        sheet.column_dimensions[get_column_letter(place + 1)].width = min(width, _WIDEST) + 2
        cells.append(_cell(sheet, "", heading))
        cells[-1].font = Font(bold=True)
    sheet.append(cells)


def _xlsx(blocks: Iterable[pd.DataFrame], notes: Sequence[str], headings: Mapping[str, str]) -> Iterator[bytes]:
    """Written to the disk first, since a workbook's table of contents stands at its end."""
    from openpyxl import Workbook
    from openpyxl.utils import get_column_letter

    book = Workbook(write_only=True)
    sheet = book.create_sheet("list")
    length, names = 1, []
    for place, rows in enumerate(blocks):
        names, length = list(map(str, rows.columns)), length + len(rows)
        if place == 0:
            _head(sheet, rows, headings)
        for row in rows.astype(object).itertuples(index=False):
            sheet.append([_cell(sheet, name, value) for name, value in zip(names, row, strict=True)])
    sheet.auto_filter.ref = f"A1:{get_column_letter(max(len(names), 1))}{length}"
    if notes:
        told = book.create_sheet("about")
        told.column_dimensions["A"].width = 2 * _WIDEST
        for note in notes:
            told.append([_printable(note)])
    with tempfile.TemporaryFile() as written:
        book.save(written)
        written.seek(0)
        while piece := written.read(_CHUNK):
            yield piece
