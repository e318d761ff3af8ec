"""Scores, offers, the churn-risk list and exports: what a marketer and a CRM rely on."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import openpyxl
import pandas as pd
import pyarrow.parquet as pq
import pytest
from workspaces import AS_OF, NEVER_BOUGHT, NO_MARKETING, NO_PROFILING

from features import snapshot
from perennial import registry, storage
from perennial.settings import SettingsError
from serving import exports, lists
from serving.predictor import NO_CONSENT, NO_PURCHASE, SCORE_COLUMNS, Predictor

from .conftest import Shop

TEXTS = ("customer_id", "churn_band", "not_scored_reason", "churn_model", "lifetime_value_model", "cross_sell_model")


@pytest.fixture(scope="module")
def predictor(shop: Shop) -> Predictor:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", shop.tracking_uri)
        return Predictor.load(shop.workspace, registry.client())


@pytest.fixture(scope="module")
def scores(shop: Shop) -> pd.DataFrame:
    return pd.read_parquet(storage.scores_path(shop.workspace.home_path, AS_OF))


@pytest.fixture(scope="module")
def offers(shop: Shop) -> pd.DataFrame:
    return pd.read_parquet(storage.offers_path(shop.workspace.home_path, AS_OF))


def _numbered(numbers: range) -> set[str]:
    return {f"c{number:04}" for number in numbers}


def test_scores_have_the_fixed_columns_and_types(shop: Shop) -> None:
    """Other people's scripts read these names, in this order, with these types."""
    schema = pq.read_schema(storage.scores_path(shop.workspace.home_path, AS_OF))
    assert tuple(schema.names) == SCORE_COLUMNS
    for name in SCORE_COLUMNS:
        expected = "date32[day]" if name == "as_of" else "string" if name in TEXTS else "double"
        assert str(schema.field(name).type) == expected, name


def test_there_is_one_row_for_every_customer_known_at_the_as_of(scores: pd.DataFrame) -> None:
    """A purchase or a sign-up before the as_of is enough to be known; nobody is there twice."""
    assert scores["customer_id"].is_unique
    assert len(scores) == 400


def test_who_refused_profiling_gets_no_number_at_all(scores: pd.DataFrame) -> None:
    """Without consent nothing is computed about a customer, and the reason says so."""
    refused = scores[scores["customer_id"].isin(_numbered(NO_PROFILING))]
    assert (refused["not_scored_reason"] == NO_CONSENT).all()
    assert refused.select_dtypes("number").isna().all(axis=None)
    assert refused["churn_band"].isna().all()


def test_who_never_bought_is_not_scored(scores: pd.DataFrame) -> None:
    """A sign-up alone says nothing about leaving or spending."""
    never = scores[scores["customer_id"].isin(_numbered(NEVER_BOUGHT))]
    assert (never["not_scored_reason"] == NO_PURCHASE).all()
    assert never["lifetime_value"].isna().all()


def test_every_scored_customer_has_every_number(scores: pd.DataFrame) -> None:
    """No silent gap: either a reason, or all the figures, within their ranges and in order."""
    scored = scores[scores["not_scored_reason"].isna()]
    assert scored.drop(columns="not_scored_reason").notna().all(axis=None)
    assert scored["churn_probability"].between(0, 1).all()
    assert (scored["lifetime_value_low"] <= scored["lifetime_value"]).all()
    assert (scored["lifetime_value"] <= scored["lifetime_value_high"]).all()
    at_risk = scored["churn_probability"] * scored["lifetime_value"]
    np.testing.assert_allclose(scored["value_at_risk"], at_risk)


def test_percentiles_rank_as_probabilities_do(scores: pd.DataFrame) -> None:
    """The percentile runs from 0 to 100 and never falls as the probability rises."""
    ranked = scores.dropna(subset=["churn_probability"]).sort_values("churn_probability")
    assert ranked["churn_percentile"].is_monotonic_increasing
    assert ranked["churn_percentile"].min() == 0
    assert ranked["churn_percentile"].max() == 100


def test_bands_follow_the_settings(shop: Shop, scores: pd.DataFrame) -> None:
    """Low, medium and high begin where the workspace says."""
    bands, scored = shop.workspace.bands, scores.dropna(subset=["churn_probability"])
    expected = np.select([scored["churn_probability"] >= bands.high, scored["churn_probability"] >= bands.medium],
                         ["high", "medium"], "low")  # fmt: skip
    assert (scored["churn_band"] == expected).all()


def test_offers_are_ranked_and_marked(shop: Shop, scores: pd.DataFrame, offers: pd.DataFrame) -> None:
    """Ranks count from one by falling probability; `repeat` is what the customer has bought, `new` what not."""
    assert set(offers["customer_id"]) == set(scores.loc[scores["not_scored_reason"].isna(), "customer_id"])
    for _, own in offers.groupby("customer_id"):
        assert own["rank"].tolist() == list(range(1, len(own) + 1))
        assert own["probability"].is_monotonic_decreasing
    bought = pd.read_parquet(storage.snapshot_part(shop.workspace.home_path, "product_affinity", AS_OF))
    owned = set(zip(bought["customer_id"], bought["item"], strict=True))
    pairs = zip(offers["customer_id"], offers["item"], strict=True)
    assert ["repeat" if pair in owned else "new" for pair in pairs] == offers["kind"].tolist()


def test_the_list_never_names_who_objected(predictor: Predictor) -> None:
    """Who gave no consent to marketing or to profiling is on no list, however much is at risk."""
    listed = set(lists.churn_risk(predictor, AS_OF, top=10_000)["customer_id"])
    assert listed
    assert not listed & (_numbered(NO_MARKETING) | _numbered(NO_PROFILING))


def test_the_list_ranks_by_value_at_risk_and_filters(predictor: Predictor) -> None:
    """Highest value at risk first; `top`, `band` and `min_value` narrow it."""
    listed = lists.churn_risk(predictor, AS_OF, top=10_000)
    assert listed["value_at_risk"].is_monotonic_decreasing
    assert lists.churn_risk(predictor, AS_OF, top=5)["customer_id"].tolist() == listed["customer_id"].head(5).tolist()
    assert (lists.churn_risk(predictor, AS_OF, band="low")["churn_band"] == "low").all()
    worth = listed["lifetime_value"].median()
    assert (lists.churn_risk(predictor, AS_OF, min_value=worth)["lifetime_value"] >= worth).all()


def test_each_number_in_a_reason_is_the_customers_own(shop: Shop, predictor: Predictor) -> None:
    """What a marketer tells a customer on the telephone is in that customer's features."""
    listed = lists.churn_risk(predictor, AS_OF, top=20)
    home = shop.workspace.home_path
    own = pd.read_parquet(storage.snapshot_part(home, "purchases", AS_OF)).set_index("customer_id")
    assert listed["reasons"].str.len().gt(0).all()
    told = 0
    for row in listed.itertuples():
        for feature in snapshot.customer_features(shop.workspace):
            before, _, after = feature.says.partition("{}")
            for reason in row.reasons.split("; "):
                same = feature.name in own and feature.says and reason.startswith(before) and reason.endswith(after)
                if same and reason not in (before, after) and feature.unit in ("days", "purchases"):
                    said = reason.removeprefix(before).removesuffix(after).replace(",", "")
                    if said.lstrip("-").isdigit():
                        assert int(said) == round(own.loc[row.customer_id, feature.name]), reason
                        told += 1
    assert told > 0


def test_the_offer_on_the_list_is_the_best_one(predictor: Predictor, offers: pd.DataFrame) -> None:
    """The list shows rank one of the customer's offers."""
    listed = lists.churn_risk(predictor, AS_OF, top=50).set_index("customer_id")
    best = offers[offers["rank"] == 1].set_index("customer_id")["item"]
    assert (listed["offer"] == best[listed.index]).all()


@pytest.mark.parametrize("sign", ["=", "+", "-", "@"])
def test_a_spreadsheet_is_given_no_formula(sign: str) -> None:
    """A name that begins like a formula arrives as text, in CSV and XLSX alike; numbers stay numbers."""
    rows = pd.DataFrame({"customer_id": [f"{sign}1+1"], "value": [-2.5]})
    text = lists.encode(rows, "csv").decode("utf-8-sig")
    assert text.splitlines()[1] == f"'{sign}1+1,-2.5"
    sheet = openpyxl.load_workbook(io.BytesIO(lists.encode(rows, "xlsx"))).active
    assert [cell.value for cell in sheet[2]] == [f"'{sign}1+1", -2.5]


def test_csv_opens_right_in_a_spreadsheet(predictor: Predictor) -> None:
    """A byte-order mark tells spreadsheets that it is UTF-8; lines end as they expect."""
    content = lists.encode(lists.churn_risk(predictor, AS_OF, top=10_000), "csv")
    assert content.startswith(b"\xef\xbb\xbf")
    assert content.count(b"\r\n") == content.count(b"\n")


def test_xlsx_cells_have_types(predictor: Predictor) -> None:
    """Probabilities and money are numbers, the as_of is a date, ids stay text with their leading zeros."""
    listed = lists.churn_risk(predictor, AS_OF, top=10_000)
    sheet = openpyxl.load_workbook(io.BytesIO(lists.encode(listed, "xlsx"))).active
    header = [cell.value for cell in sheet[1]]
    cells = dict(zip(header, sheet[2], strict=True))
    assert cells["churn_probability"].data_type == "n"
    assert cells["as_of"].is_date
    assert "007" in [cell.value for cell in sheet["A"]]


def test_exports_agree_whatever_the_format(shop: Shop, tmp_path: Path) -> None:
    """Parquet and CSV hold the same rows."""
    for what in ("scores", "offers", "features"):
        count = exports.export(shop.workspace, what, None, tmp_path / f"{what}.parquet")
        assert count == exports.export(shop.workspace, what, None, tmp_path / f"{what}.csv")
        parquet = pd.read_parquet(tmp_path / f"{what}.parquet")
        csv = pd.read_csv(tmp_path / f"{what}.csv", encoding="utf-8-sig", dtype={"customer_id": str})
        numbers = parquet.select_dtypes("number").columns
        np.testing.assert_allclose(parquet[numbers], csv[numbers].astype(float), rtol=1e-5)


def test_an_export_to_an_unknown_kind_of_file_is_refused(shop: Shop, tmp_path: Path) -> None:
    """The message names the two endings that work, and nothing is written."""
    with pytest.raises(SettingsError, match=r"\.parquet or \.csv"):
        exports.export(shop.workspace, "scores", None, tmp_path / "scores.doc")
    assert not list(tmp_path.iterdir())
