"""The churn-risk list: consent as it is now, what its numbers mean, and its pages."""

from __future__ import annotations

import io
import json
import math
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import openpyxl
import pandas as pd
import pyarrow.parquet as pq
import pytest
from workspaces import AS_OF

from ingest import intake
from serving import scoring
from serving.consent import Consents
from serving.lists import churn_risk, totals
from serving.lists.files import encode
from serving.lists.filters import NoSuchFilter
from serving.lists.list_query import ListQuery
from serving.norms import Norms
from serving.predictor import Predictor
from serving.reasons import Explainer
from serving.scope import WHOLE
from serving.terms import Terms
from tests.serving.conftest import Shop
from workspace import registry, storage
from workspace.settings import Workspace
from workspace.storage import CheckFailed

Sort = Literal["value_at_risk", "lifetime_value"]


class Copy(NamedTuple):
    """A copy of the shop whose tables a test may change."""

    predictor: Predictor
    folder: Path

    @property
    def workspace(self) -> Workspace:
        return self.predictor.workspace

    def listed(self, **narrower: object) -> pd.DataFrame:
        return churn_risk.churn_risk(self.predictor, AS_OF, **{"top": 10_000, **narrower})  # type: ignore[arg-type]

    def take_in(self, customers: pd.DataFrame) -> None:
        """Ingests other customers than those that were scored."""
        customers.to_csv(self.folder / "customers.csv", index=False)
        intake.ingest(self.workspace, datetime(2030, 1, 1, tzinfo=UTC))


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


def test_who_refuses_profiling_since_the_scoring_is_on_no_list(copy: Copy, customers: pd.DataFrame) -> None:
    """The table's refusal counts at once, as what is said here does; what is said here comes first."""
    first, *others = copy.listed()["customer_id"]
    customers.loc[customers["customer_id"] == first, "profiling_consent"] = False
    copy.take_in(customers)
    assert copy.listed()["customer_id"].tolist() == others
    Consents(copy.workspace.home_path).put(first, {"profiling": True}, datetime(2030, 1, 2, tzinfo=UTC))
    assert copy.listed()["customer_id"].tolist() == [first, *others]


def test_values_are_offered_as_filters_take_them(copy: Copy, customers: pd.DataFrame) -> None:
    """Of numbers that a computer does not hold exactly, too."""
    workspace = copy.workspace.model_copy(update={"attributes": ("share",)})
    described = Copy(replace(copy.predictor, workspace=workspace), copy.folder)
    described.take_in(customers.assign(share=np.where(np.arange(len(customers)) % 2 == 0, 0.1 * 3, 0.3)))
    ((value, count),) = totals.choices(workspace, AS_OF, WHOLE)["share"]
    assert totals.values_of(workspace, AS_OF, "share") == [value] == ["0.3"]
    assert len(filtered(described, f"share:{value}")) == count


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
    listed = copy.listed(top=30, unproven_offers=True).set_index("customer_id")
    scores = pd.read_parquet(storage.scores_path(copy.workspace.home_path, AS_OF)).set_index("customer_id")
    same = [name for name in churn_risk.COLUMNS if name in scores.columns and name != "as_of"]
    pd.testing.assert_frame_equal(listed[same], scores.loc[listed.index, same], check_dtype=False)
    offers = pd.read_parquet(storage.offers_path(copy.workspace.home_path, AS_OF)).query("rank == 1")
    offers = offers.set_index("customer_id").loc[listed.index]
    assert listed["offer_kind"].tolist() == offers["kind"].tolist()
    assert listed["offer_probability"].tolist() == offers["probability"].tolist()
    assert tuple(copy.listed(top=1).columns) == churn_risk.COLUMNS


def test_a_minimum_value_and_a_band_hold_together_with_top(copy: Copy) -> None:
    """Filters come first, then the highest value at risk of what they leave."""
    everyone = copy.listed()
    worth = float(everyone["lifetime_value"].quantile(0.6))
    wanted = everyone[(everyone["lifetime_value"] >= worth) & (everyone["churn_band"] == "medium")]
    assert len(wanted) > 3
    rows = copy.listed(min_value=worth, band="medium", top=3)
    assert rows["customer_id"].tolist() == wanted["customer_id"].head(3).tolist()
    exact = copy.listed(min_value=float(everyone["lifetime_value"].max()))
    assert exact["lifetime_value"].tolist() == [everyone["lifetime_value"].max()]


def test_an_as_of_that_was_not_scored_is_refused(copy: Copy) -> None:
    """The sentence names the day and the command; the latest scored day is the default."""
    with pytest.raises(CheckFailed, match=r"no scores of 2023-06-01; run `perennial score --as-of 2023-06-01`"):
        churn_risk.churn_risk(copy.predictor, date(2023, 6, 1))
    assert set(churn_risk.churn_risk(copy.predictor)["as_of"]) == {pd.Timestamp(AS_OF)}


def test_nobody_to_list_is_an_empty_table_in_every_format(copy: Copy) -> None:
    """A header and no rows, an empty array, or a sentence."""
    nobody = copy.listed(min_value=1e9)
    assert nobody.empty
    assert encode(nobody, "csv").decode("utf-8-sig").strip() == ",".join(churn_risk.COLUMNS)
    assert json.loads(encode(nobody, "json")) == []
    sheet = openpyxl.load_workbook(io.BytesIO(encode(nobody, "xlsx"))).active
    assert [[cell.value for cell in row] for row in sheet.iter_rows()] == [list(churn_risk.COLUMNS)]
    assert churn_risk.as_text(nobody).startswith("no customer to list")


def test_the_text_names_each_customer_with_reasons_and_offer(copy: Copy) -> None:
    """For a terminal: one line a customer in the list's order, and no `nan` where there is no offer."""
    listed = copy.listed(top=5, unproven_offers=True).assign(offer_grade="B")
    listed.loc[4, ["offer", "offer_kind"]] = None
    _, units, *lines = churn_risk.as_text(listed).splitlines()
    assert units.split() == ["(60", "days)", "(revenue,", "60", "days,", "EUR)", "(EUR)"]
    for line, row in zip(lines, listed.itertuples(), strict=True):
        assert line.startswith(row.customer_id)
        assert row.reasons in line
    assert f"offer {listed['offer'][0]} ({listed['offer_kind'][0]})" in lines[0]
    assert "offer" not in lines[4]
    assert "nan" not in lines[4].lower()


def test_many_may_ask_for_a_list_at_once(copy: Copy) -> None:
    """DuckDB refuses a connection that another thread is using."""
    alone = copy.listed(top=3)["customer_id"].tolist()
    with ThreadPoolExecutor(8) as pool:
        pages = list(pool.map(lambda _: copy.listed(top=3)["customer_id"].tolist(), range(48)))
    assert pages == [alone] * 48


# What the numbers mean


STATED = {"churn": "B", "lifetime_value": "C", "cross_sell": "none"}


def graded(copy: Copy, grades: dict[str, str], **said: dict[str, str]) -> Copy:
    """The copy scored again by models of these grades, of which the registry says what `said` has by kind."""
    registered = {
        kind: own._replace(grade=grades[kind], **{name: of.get(kind) for name, of in said.items()})
        for kind, own in copy.predictor.registered.items()
    }
    scoring.score(replace(copy.predictor, registered=registered), AS_OF)
    return copy


def test_a_weak_grade_stands_beside_every_number_it_concerns(copy: Copy) -> None:
    """In the rows, the text and a sentence; of a product the worse of both, and a good one is not said each time."""
    listed = graded(copy, STATED).listed(top=3, unproven_offers=True)
    columns = ["churn_grade", "lifetime_value_grade", "value_at_risk_grade", "offer_grade"]
    assert listed[columns].to_numpy().tolist() == [["B", "C", "C", "none"]] * 3
    for line, row in zip(churn_risk.as_text(listed).splitlines()[2:], listed.itertuples(), strict=True):
        assert f"{row.churn_probability:.0%}  " in line
        assert f"{row.lifetime_value:,.0f} C  " in line
        assert f"{row.value_at_risk:,.0f} C  " in line
        assert f"offer {row.offer} ({row.offer_kind}, grade none)" in line
    notes = churn_risk.about(Terms.at(copy.predictor, AS_OF), AS_OF, unproven_offers=True)
    assert [note.split(": ")[0] for note in notes][:4] == ["risk", "value", "at risk", "offers"]
    assert "the revenue to be expected in the next 60 days, in EUR; grade C: " in notes[1]


def test_scores_keep_the_grade_of_the_model_that_made_them(copy: Copy) -> None:
    """A champion that is promoted later, with another grade, is not praised or blamed for them."""
    graded(copy, STATED)
    others = {kind: own._replace(grade="A") for kind, own in copy.predictor.registered.items()}
    later = replace(copy.predictor, registered=others)
    assert set(churn_risk.churn_risk(later, AS_OF, top=5)["lifetime_value_grade"]) == {"C"}


def test_scores_of_an_earlier_version_are_listed_as_unproven(copy: Copy) -> None:
    """Their file says nothing of grades: nobody can tell, whatever grade today's champion has."""
    path = storage.scores_path(copy.workspace.home_path, AS_OF)
    pq.write_table(pq.read_table(path).replace_schema_metadata({}), path)
    assert set(copy.listed(top=3)["churn_grade"]) == {"none"}
    assert copy.listed(top=3)["reasons"].str.len().max() > 0


def test_unproven_offers_are_listed_only_if_asked_for(copy: Copy) -> None:
    """Without being asked there is no offer, and a sentence says so; those of grade C are listed."""
    graded(copy, STATED)
    assert copy.listed(top=5)[["offer", "offer_kind", "offer_probability"]].isna().all(axis=None)
    assert copy.listed(top=5, unproven_offers=True)["offer"].notna().all()
    terms = Terms.at(copy.predictor, AS_OF)
    assert "--unproven-offers" in churn_risk.about(terms, AS_OF)[-1]
    assert "--unproven-offers" not in churn_risk.about(terms, AS_OF, unproven_offers=True)[-1]
    graded(copy, STATED | {"cross_sell": "C"})
    assert copy.listed(top=5)["offer"].notna().all()


def test_a_spreadsheet_says_on_its_second_sheet_what_the_numbers_mean(copy: Copy) -> None:
    """A sentence a line; the first sheet holds the rows alone."""
    notes = churn_risk.about(Terms.at(copy.predictor, AS_OF), AS_OF)
    book = openpyxl.load_workbook(io.BytesIO(encode(copy.listed(top=2), "xlsx", notes)))
    assert book.sheetnames == ["list", "about"]
    assert book["list"].max_row == 3
    assert [row[0].value for row in book["about"].iter_rows()] == list(notes)


WHY = "every contender's total was off by more than half"


def withheld(copy: Copy, kind: str, *names: str) -> Copy:
    """The copy scored by a model whose amounts, in these columns, are withheld from everybody."""
    graded(copy, STATED, withheld={kind: WHY}, answers_by={kind: "the history model"})
    path = storage.scores_path(copy.workspace.home_path, AS_OF)
    scores = pd.read_parquet(path).assign(**dict.fromkeys((*names, "value_at_risk"), np.nan))
    scores.to_parquet(path.with_name("withheld.parquet"))
    churn_risk.write_risk(copy.workspace, AS_OF, path.with_name("withheld.parquet"))
    return copy


def test_where_no_value_is_shown_the_list_says_why_and_goes_by_the_risk(copy: Copy) -> None:
    """The amounts are empty, the reason is beside them, and what answers is named."""
    before = copy.listed()
    listed = withheld(copy, "lifetime_value", "lifetime_value", "lifetime_value_low", "lifetime_value_high").listed()
    assert set(listed["customer_id"]) == set(before["customer_id"])
    assert listed[["lifetime_value", "value_at_risk"]].isna().all(axis=None)
    assert listed["churn_probability"].is_monotonic_decreasing
    assert set(listed["withheld"]) == {f"value is not shown: {WHY}"}
    notes = churn_risk.about(Terms.at(copy.predictor, AS_OF), AS_OF)
    assert {f"value is not shown: {WHY}", "value: answered by the history model"} <= set(notes)
    assert " - " in churn_risk.as_text(listed.head(1))
    with pytest.raises(NoSuchFilter, match=WHY):
        copy.listed(min_value=10)


def test_where_no_risk_is_shown_the_list_goes_by_the_percentile(copy: Copy) -> None:
    """The order may be right where the level is not; a band cannot be asked for."""
    listed = withheld(copy, "churn", "churn_probability", "churn_band").listed()
    assert listed["churn_percentile"].is_monotonic_decreasing
    with pytest.raises(NoSuchFilter, match=WHY):
        copy.listed(band="high")


@pytest.mark.parametrize(
    "nothing", [(), ("lifetime_value",), ("churn_probability",), ("churn_probability", "churn_percentile")]
)
@pytest.mark.parametrize("sort", ["value_at_risk", "lifetime_value"])
def test_pages_follow_each_other_whatever_is_withheld(copy: Copy, sort: Sort, nothing: tuple[str, ...]) -> None:
    """Nobody is missing, nobody comes twice, and the order is that of the whole list."""
    withheld(copy, "churn", *nothing) if nothing else None
    explainer, seen, cursor = Explainer(copy.predictor, Norms()), [], None
    while True:
        asked = ListQuery(top=97, sort=sort, reasons=False, cursor=cursor)
        page = churn_risk.page(explainer, AS_OF, asked, lambda *_: np.empty((0, 0)))
        seen += [customer for block in page.blocks for customer in block["customer_id"]]
        if (cursor := page.cursor) is None:
            break
    assert seen == copy.listed(sort=sort)["customer_id"].tolist()


# Filters


@pytest.fixture
def described(copy: Copy, customers: pd.DataFrame) -> Copy:
    """The copy whose customers have a region, an age, a club card and a day of birth."""
    numbers = np.arange(len(customers))
    copy.folder.joinpath("customers.csv").unlink(missing_ok=True)
    workspace = copy.workspace.model_copy(update={"attributes": ("region", "age", "club", "born")})
    described = Copy(replace(copy.predictor, workspace=workspace), copy.folder)
    described.take_in(customers.assign(
        region=np.where(numbers % 3 == 0, "North", "Su\u0308d"), age=18.0 + numbers % 2, club=numbers % 5 == 0,
        born=np.where(numbers % 4 == 0, "2001-05-06", "1990-01-02"),
    ))  # fmt: skip
    return described


def filtered(described: Copy, *attributes: str) -> set[str]:
    asked = ListQuery(top=1000, attribute=list(attributes), reasons=False)
    page = churn_risk.page(Explainer(described.predictor, Norms()), AS_OF, asked, lambda *_: np.empty((0, 0)))
    return {customer for block in page.blocks for customer in block["customer_id"]}


@pytest.mark.parametrize(
    ("stored", "asked"),
    [
        ("region:North", ["region:NORTH", "Region: north "]),
        ("region:Su\u0308d", ["region:S\u00fcd", "region:S\u00dcD"]),
        ("age:18", ["age:18.0", "AGE:18", "age: 18"]),
        ("club:true", ["club:True", "club:yes", "club:1", "club:Y"]),
        ("born:2001-05-06", ["born:2001-05-06 00:00:00"]),
    ],
)
def test_an_attribute_is_compared_by_its_type_in_any_case(described: Copy, stored: str, asked: list[str]) -> None:
    """Numbers as numbers, days as days, yes and no as such, texts without regard to case or how accents are encoded."""
    wanted = filtered(described, stored)
    assert 20 < len(wanted) < 350
    for other in asked:
        assert filtered(described, other) == wanted


def test_the_lists_of_all_values_are_the_whole_list(described: Copy, customers: pd.DataFrame) -> None:
    """Each customer stands in one of them, who has no value in the one of those."""
    region = np.where(np.arange(len(customers)) % 3 == 0, "North", None)
    described.take_in(customers.assign(region=region, age=18.0, club=True, born="1990-01-02"))
    assert totals.values_of(described.workspace, AS_OF, "Region") == ["North"]
    with_one, without = filtered(described, "region:North"), filtered(described, "region:")
    assert len(with_one) > 20
    assert not with_one & without
    assert with_one | without == filtered(described)
    with pytest.raises(NoSuchFilter, match="the nearest is region"):
        totals.values_of(described.workspace, AS_OF, "regoin")


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("region:nort", "attribute region: 'nort': no customer has it; the nearest is North"),
        ("age:180", "attribute age: '180': no customer has it; the nearest are 18, 19"),
        ("age:young", "attribute age: 'young': no customer has it; the nearest are 18, 19"),
        ("age:NaN", "attribute age: 'NaN': no customer has it; the nearest are 18, 19"),
        ("age:-inf", "attribute age: '-inf': no customer has it; the nearest are 18, 19"),
        ("club:maybe", "attribute club: 'maybe': no customer has it; the nearest are False, True"),
        ("regoin:North", "attribute 'regoin': there is none of this name; the nearest is region"),
        ("region", "attribute 'region' is not `name:value` of an attribute; there are: region, age, club, born"),
    ],
)
def test_what_no_customer_has_is_refused_with_the_nearest(described: Copy, asked: str, message: str) -> None:
    """An empty list would be taken for an answer."""
    with pytest.raises(NoSuchFilter) as problem:
        filtered(described, asked)
    assert str(problem.value) == message


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ({"min_value": math.nan}, "min_value nan: an amount"),
        ({"min_value": math.inf}, "min_value inf: an amount"),
        ({"max_value": math.nan}, "max_value nan: an amount"),
        ({"max_value": -1.0}, "max_value -1: an amount"),
        ({"min_value": 500.0, "max_value": 100.0}, "min_value 500 is above max_value 100: nobody's value"),
    ],
)
def test_bounds_between_which_nobody_can_be_are_refused(copy: Copy, bounds: dict[str, float], message: str) -> None:
    """An empty list would be taken for an answer."""
    with pytest.raises(NoSuchFilter, match=message):
        copy.listed(**bounds)


def test_a_category_that_nobody_bought_of_is_refused(copy: Copy) -> None:
    """And one in capitals is the same."""
    assert copy.listed(category="TEA")["customer_id"].tolist() == copy.listed(category="tea")["customer_id"].tolist()
    with pytest.raises(NoSuchFilter, match="category 'cakes': nobody bought of it in 365 days; the nearest is cake"):
        copy.listed(category="cakes")
