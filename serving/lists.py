"""The churn-risk list: who is about to leave, why, what they are worth and what to offer; never who objected."""

from __future__ import annotations

import io
from collections.abc import Callable
from datetime import date
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from features.retrieval import matrix
from features.snapshot import CUSTOMER_FAMILIES, customer_features
from perennial import storage
from perennial.privacy import PrivacyKey
from perennial.settings import Workspace
from perennial.storage import quoted
from serving.consent import may_be_contacted
from serving.predictor import Predictor
from serving.reasons import reasons

COLUMNS = (
    "customer_id", "churn_probability", "churn_percentile", "churn_band", "lifetime_value", "lifetime_value_low",
    "lifetime_value_high", "value_at_risk", "reasons", "offer", "offer_kind", "offer_probability", "as_of",
)  # fmt: skip
_SPREADSHEET_COMMANDS = ("=", "+", "-", "@", "\t", "\r")


def churn_risk(
    predictor: Predictor, as_of: date | None = None, *, top: int = 100, min_value: float = 0.0, band: str | None = None,
    contacts: bool = False,
) -> pd.DataFrame:  # fmt: skip
    """The listed customers of a scored as_of (the latest unless named), highest value at risk first.

    Left out: who was not scored, and, where the shop keeps marketing consents, who has not given one. `reasons` are
    those of the listed rows only, joined by "; "; `offer` is the customer's best item. With `contacts` the columns that
    the setting `pii` names follow.

    Raises:
        CheckFailed: nothing is scored yet.
        SettingsError: contact data are asked for, and the privacy key is not there to read them.
    """
    workspace = predictor.workspace
    as_of = as_of or storage.latest_scored(workspace.home_path)
    listed = _listed(workspace, as_of, top, min_value, band)
    vectors = _vectors(workspace, as_of, listed["customer_id"])
    listed["reasons"] = ["; ".join(own) for own in reasons(predictor, vectors)]
    found = listed[list(COLUMNS)]
    return found.join(_contacts(workspace, listed["customer_id"])) if contacts and workspace.pii else found


def _contacts(workspace: Workspace, customer_ids: pd.Series) -> pd.DataFrame:
    """The columns of contact data, decrypted, in the order of `customer_ids`; null where none is kept."""
    key, customers = PrivacyKey.of_environment(), storage.rows_of(workspace.home_path, "customers")
    query = f"SELECT {', '.join(workspace.pii)} FROM wanted LEFT JOIN {customers} USING (customer_id) ORDER BY place"
    wanted = pd.DataFrame({"customer_id": customer_ids.astype(str), "place": range(len(customer_ids))})
    with storage.connect(workspace.home_path) as connection:
        connection.register("wanted", wanted)
        hidden = connection.execute(query).df()
    return hidden.map(lambda text: key.decrypted(text) if isinstance(text, str) else None)


def _listed(workspace: Workspace, as_of: date, top: int, min_value: float, band: str | None) -> pd.DataFrame:
    home = workspace.home_path
    path = storage.scores_path(home, as_of)
    if not path.exists():
        raise storage.CheckFailed(f"{workspace.name} has no scores of {as_of}; run `perennial score --as-of {as_of}`")
    with storage.connect(home, workspace.timezone) as connection:
        return connection.execute(
            f"""
            SELECT scores.*, item AS offer, kind AS offer_kind, probability AS offer_probability
            FROM read_parquet({quoted(path)}) AS scores
            LEFT JOIN (SELECT * FROM read_parquet({quoted(storage.offers_path(home, as_of))}) WHERE rank = 1)
              USING (customer_id)
            WHERE not_scored_reason IS NULL AND {may_be_contacted(workspace)}
              AND coalesce(lifetime_value, 0) >= $min_value AND ($band IS NULL OR churn_band = $band)
            ORDER BY value_at_risk DESC NULLS LAST, churn_probability DESC, customer_id LIMIT $top""",
            {"min_value": min_value, "band": band, "top": top},
        ).df()


def _vectors(workspace: Workspace, as_of: date, customer_ids: pd.Series) -> NDArray[np.float32]:
    """The packed vectors of the listed customers, straight from the snapshot that they were scored on."""
    names = [feature.name for feature in customer_features(workspace)]
    joins = " ".join(
        f"LEFT JOIN {storage.rows_of_part(storage.snapshot_part(workspace.home_path, family, as_of))} AS {family}"
        f" USING (customer_id)"
        for family in CUSTOMER_FAMILIES
    )
    columns = ", ".join(f'"{name}"' for name in names)
    wanted = pd.DataFrame({"customer_id": customer_ids.astype(str), "place": range(len(customer_ids))})
    with storage.connect(workspace.home_path) as connection:
        connection.register("wanted", wanted)
        return matrix(connection.execute(f"SELECT {columns} FROM wanted {joins} ORDER BY place").df(), names)


def as_text(rows: pd.DataFrame) -> str:
    """The list for a terminal: a line a customer, what matters most first."""
    if rows.empty:
        return "no customer to list"
    lines = [f"{'customer':<14}{'risk':>6}{'value':>12}{'at risk':>12}  why; offer"]
    for row in rows.itertuples():
        offer = f"; offer {row.offer} ({row.offer_kind})" if isinstance(row.offer, str) else ""
        lines.append(
            f"{row.customer_id:<14}{row.churn_probability:>6.0%}{row.lifetime_value:>12,.0f}{row.value_at_risk:>12,.0f}"
            f"  {row.reasons}{offer}"
        )
    return "\n".join(lines)


def encode(rows: pd.DataFrame, format: Literal["csv", "xlsx", "json"]) -> bytes:
    """A table as a spreadsheet opens it: CSV in UTF-8 with a byte-order mark, XLSX with typed cells, or JSON records.

    A text that a spreadsheet would take for a formula (`=`, `+`, `-`, `@` in front) gets an apostrophe before it.
    """
    match format:
        case "csv":
            return _harmless(rows).to_csv(index=False, lineterminator="\r\n").encode("utf-8-sig")
        case "xlsx":
            return _xlsx(_harmless(_changed(rows, _printable)))
        case "json":
            days = {str(name): rows[name].dt.strftime("%Y-%m-%d") for name in rows.select_dtypes("datetime")}
            return rows.assign(**days).to_json(orient="records", force_ascii=False).encode()
    raise ValueError(f"format {format!r} is not one of csv, xlsx, json")


def _harmless(rows: pd.DataFrame) -> pd.DataFrame:
    return _changed(rows, lambda text: f"'{text}" if text.startswith(_SPREADSHEET_COMMANDS) else text)


def _printable(text: str) -> str:
    """Without the control characters that XLSX cannot hold."""
    from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE

    return ILLEGAL_CHARACTERS_RE.sub("", text)


def _changed(rows: pd.DataFrame, change: Callable[[str], str]) -> pd.DataFrame:
    """Every text of every text column changed, anything else as it is."""
    texts = rows.select_dtypes(["object", "string"]).columns
    return rows.assign(
        **{name: rows[name].map(lambda value: change(value) if isinstance(value, str) else value) for name in texts}
    )


def _cell(value: Any) -> Any:
    if pd.isna(value):
        return None
    return value.date() if isinstance(value, pd.Timestamp) else value


def _xlsx(rows: pd.DataFrame) -> bytes:
    from openpyxl import Workbook

    book = Workbook(write_only=True)
    sheet = book.create_sheet("list")
    sheet.append(list(rows.columns))
    for row in rows.astype(object).itertuples(index=False):
        sheet.append([_cell(value) for value in row])
    buffer = io.BytesIO()
    book.save(buffer)
    return buffer.getvalue()
