"""The data check: what it counts is what the trainings find, and what it accuses deserves it."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
from builders import make_transactions, write_workspace
from markup import sound
from workspaces import AS_OF, small_workspace

from features import retrieval, snapshot
from ingest import intake
from training import pipelines
from training.check import data_check, data_report
from training.check.cohorts import Cohort, cohorts
from training.check.data_check import Bar, DataCheck
from training.check.sufficiency import Sufficiency
from training.check.table_figures import Table
from training.learning import churn, cross_sell, datasets, lifetime_value
from training.learning.leaks import LEAK_AUC
from training.models.histories import MINIMUM_REPEAT_BUYERS
from workspace import settings, storage
from workspace.settings import Workspace

NOW = datetime(2030, 1, 1, tzinfo=UTC)
FIRST, TODAY = date(2022, 1, 1), date(2023, 7, 1)
HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(2)>'


def looked_at(workspace: Workspace, as_of: date = AS_OF) -> DataCheck:
    return data_check.check(workspace, intake.ingest(workspace, NOW), as_of)


def checked(folder: Path, transactions: pd.DataFrame, as_of: date = TODAY, **keys: Any) -> DataCheck:
    """The check of a workspace with 60-day horizons made of these rows."""
    horizons = {"churn": {"horizon": 60}, "lifetime_value": {"horizon": 60}, "cross_sell": {"horizon": 60}}
    return looked_at(settings.read(write_workspace(folder, transactions, **(horizons | keys))), as_of)


def sufficiency(check: DataCheck, model: str) -> Sufficiency:
    return next(each for each in check.models if each.model == model)


def counted(check: DataCheck, model: str) -> list[int]:
    return [count.found for count in sufficiency(check, model).counts]


def sentences(check: DataCheck) -> list[str]:
    return list(map(str, check.remarks))


def names(check: DataCheck) -> list[str]:
    return [remark.name for remark in check.remarks]


def table(check: DataCheck, name: str) -> Table:
    return next(table for table in check.tables if table.name == name)


class Shop(NamedTuple):
    workspace: Workspace
    data: datasets.Dataset
    check: DataCheck


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shop of 400 customers and 84 products, with returns, purchases booked late and cancellations; of a fifth of the
    customers nothing is known before March 2023."""
    folder = tmp_path_factory.mktemp("shop")
    small_workspace(folder)
    lines = pd.read_parquet(folder / "transactions.parquet")
    fresh = lines["customer_id"].str.endswith(("3", "8"))
    lines = lines[~fresh | (lines["occurred_at"] >= "2023-03-15")].reset_index(drop=True)
    customers = pd.read_csv(folder / "customers.csv", dtype=str)
    customers[~customers["customer_id"].str.endswith(("3", "8"))].to_csv(folder / "customers.csv", index=False)
    lines["product_id"] += [f"-{number % 7}" for number in lines.index]
    products = pd.read_csv(folder / "products.csv").merge(pd.DataFrame({"kind": range(7)}), how="cross")
    products["product_id"] += "-" + products.pop("kind").astype(str)
    products.to_csv(folder / "products.csv", index=False)
    lines["amount"] = np.where(lines.index % 11 == 0, -lines["amount"], lines["amount"])
    late = lines["transaction_id"].map(len) * 7 + lines["occurred_at"].dt.dayofyear
    lines["recorded_at"] = lines["occurred_at"] + pd.to_timedelta(np.where(late % 4 == 0, 45, 0), unit="D")
    lines.to_parquet(folder / "transactions.parquet", index=False)
    leavers = lines.drop_duplicates("customer_id").iloc[::2]
    cancellations = pd.DataFrame({"interaction_id": leavers["transaction_id"], "customer_id": leavers["customer_id"],
                                  "occurred_at": leavers["occurred_at"] + pd.Timedelta(days=170),
                                  "kind": "cancellation"})  # fmt: skip
    cancellations.to_parquet(folder / "interactions.parquet", index=False)
    return folder


@pytest.fixture(scope="module", params=["inactivity", "event"])
def shop(request: pytest.FixtureRequest, folder: Path) -> Shop:
    level = "category" if request.param == "inactivity" else "item"
    workspace = settings.read(
        folder / "workspace.yaml",
        [f"tables.interactions.path={folder / 'interactions.parquet'}", f"churn.kind={request.param}",
         f"cross_sell.level={level}", "churn.gap=5", "churn.horizon=55", "churn.active_window=120",
         "training.spacing=60"],  # so that cutoffs are those of cross-sell: fewer snapshots to compute
        home=folder / request.param,
    )  # fmt: skip
    check = looked_at(workspace)
    snapshot.snapshot(workspace, pipelines.cutoffs(workspace, AS_OF))
    return Shop(workspace, datasets.load(retrieval.apply(workspace), workspace, AS_OF), check)


def counts(cohort: Cohort) -> tuple[Any, ...]:
    return (cohort.as_of, cohort.customers, cohort.repeat_buyers, cohort.left, cohort.stayed, cohort.buyers)


def trained(data: datasets.Dataset, cutoff: datasets.Cutoff) -> tuple[Any, ...]:
    """The same of a data set that models learn from."""
    back = int((data.inputs.column(cutoff.vectors, "frequency") > 0).sum())
    outcomes = (cutoff.churned == 1, cutoff.churned == 0, cutoff.value > 0)
    return (cutoff.as_of, len(cutoff.customer_ids), back, *(int(rows.sum()) for rows in outcomes))


def test_every_cutoff_is_counted_as_the_training_finds_it(shop: Shop) -> None:
    """Customers, who came back, who left, who stayed and who spent: those of the data set that models learn from."""
    known = list(map(counts, shop.check.cohorts))
    assert len(known) == 4
    assert known == [trained(shop.data, cutoff) for cutoff in (*shop.data.closed, shop.data.current)]
    assert min(known[0][1:]) > 0


OTHERWISE: list[dict[str, Any]] = [
    {"churn": {"inactivity": "personal"}}, {"churn": {"inactivity": "personal", "patience": 1.5, "min_purchases": 4}},
    {"churn": {"min_purchases": 3}}, {"churn": {"gap": 30, "horizon": 30}}, {"churn": {"active_window": 45}},
    {"training": {"customers": 150}}, {"training": {"min_history": 300}},
    {"churn": {"kind": "event", "min_purchases": 2}},
]  # fmt: skip


@pytest.mark.parametrize("shop", ["inactivity"], indirect=True)
@pytest.mark.parametrize("other", OTHERWISE, ids=str)
def test_other_settings_count_the_same_customers_too(other: dict[str, Any], shop: Shop) -> None:
    """Whatever leaving means, whoever is asked about, however many are sampled and however many cutoffs there are."""
    workspace = shop.workspace.model_copy(
        update={group: getattr(shop.workspace, group).model_copy(update=keys) for group, keys in other.items()}
    )
    data = datasets.load(retrieval.open_store(workspace), workspace, AS_OF)
    with storage.connect(workspace.home_path, workspace.timezone) as connection:
        taught = cohorts(connection, workspace, [cutoff.as_of for cutoff in data.closed], AS_OF)
    assert list(map(counts, taught.each[:-1])) == [trained(data, cutoff) for cutoff in data.closed]
    assert (taught.each[-1].customers, taught.each[-1].repeat_buyers) == trained(data, data.current)[1:3]
    if not other.get("training"):
        assert taught.share == 1
    if "customers" in other.get("training", {}):
        assert 100 < taught.each[-1].customers < 200 < taught.known


def test_offers_are_counted_as_the_training_finds_them(shop: Shop) -> None:
    """Cross-sell's closed cutoffs, the items on offer and what of them was bought, by category and by item."""
    cutoffs = cross_sell.cutoffs(shop.workspace, AS_OF)
    lessons = [cross_sell.lesson(shop.workspace, cutoff, AS_OF) for cutoff in cutoffs]
    items, bought = {item for each in lessons for item in each.pairs.items}, sum(each.n_bought for each in lessons)
    assert counted(shop.check, "cross_sell") == [len(cutoffs), len(items), bought]
    assert sufficiency(shop.check, "cross_sell").answer == "sufficient"


def test_check_and_training_draw_the_line_at_the_same_count(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the minimum at what was found churn is taught; with one more neither the check nor the training says so."""
    left, stayed = counted(shop.check, "churn")[2:]
    for minimum, answer in ((min(left, stayed), "sufficient"), (min(left, stayed) + 1, None)):
        monkeypatch.setattr(churn, "MIN_OUTCOMES", minimum)
        now = sufficiency(looked_at(shop.workspace), "churn")
        if answer == "sufficient":
            assert now.answer == "sufficient"
            assert churn.fit(shop.data, shop.workspace, shop.data.closed, shop.data.current).booster is not None
        elif shop.workspace.churn.kind == "event":
            assert now.answer == "insufficient"
            with pytest.raises(storage.CheckFailed, match="fewer"):
                churn.fit(shop.data, shop.workspace, shop.data.closed, shop.data.current)
        else:
            assert now.answer == "history only"
            assert churn.fit(shop.data, shop.workspace, shop.data.closed, shop.data.current).booster is None
    assert now.needed[0].startswith("1 more c")


def test_the_line_of_lifetime_value_is_the_trainings_too(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the minimum of buyers a booster is taught, one above it the purchase histories stand alone."""
    buyers = counted(shop.check, "lifetime_value")[2]
    for minimum, answer in ((buyers, "sufficient"), (buyers + 1, "history only")):
        monkeypatch.setattr(lifetime_value, "MIN_BUYERS", minimum)
        assert sufficiency(looked_at(shop.workspace), "lifetime_value").answer == answer
        model = lifetime_value.fit(shop.data, shop.workspace, shop.data.closed, shop.data.current)
        assert bool(model.boosters) == (answer == "sufficient")


def test_a_shop_too_small_is_told_what_is_missing(tmp_path: Path) -> None:
    """Twelve customers of whom four came back: nothing can be learnt, and it says how many more would do."""
    rows = [(f"c{n}", FIRST + timedelta(days=30 * k + n), 5.0) for n in range(12) for k in range(15 if n < 4 else 1)]
    check = checked(tmp_path, make_transactions(rows), as_of=date(2023, 4, 1))
    assert not check.suffices
    assert [v.answer for v in check.models] == ["insufficient"] * 3
    assert counted(check, "churn")[0] == 4
    assert sufficiency(check, "churn").needed[0] == "26 more customers with a second purchase"
    assert "add tables.products" in sufficiency(check, "cross_sell").needed[0]


def test_items_without_a_product_id_are_told_as_that(tmp_path: Path) -> None:
    """Where no line says what was bought, the mapping is missing, and no purchases are; the training says the same."""
    rows = [(f"c{n}", FIRST + timedelta(days=30 * k + n), 5.0) for n in range(12) for k in range(30)]
    workspace = settings.read(write_workspace(tmp_path, make_transactions(rows), cross_sell={"level": "item"}))
    told = sufficiency(looked_at(workspace, date(2023, 7, 1)), "cross_sell")
    assert "columns.product_id is not mapped" in told.reason
    with pytest.raises(cross_sell.NoCrossSell) as refused:
        cross_sell.train(workspace, date(2023, 7, 1))
    assert str(refused.value) == f"{told.reason}; {told.needed[0]}"


def test_a_shop_where_nobody_comes_back_has_a_base_rate(tmp_path: Path) -> None:
    """As the training has it: one answer for everybody, once a window has closed; before that none."""
    rows = make_transactions([(f"c{n}", FIRST + timedelta(days=n), 5.0) for n in range(220)])
    check = checked(tmp_path, rows, as_of=FIRST + timedelta(days=220))
    assert [sufficiency(check, model).answer for model in ("churn", "lifetime_value")] == ["base rate only"] * 2
    assert "only 0 customers had come back" in sufficiency(check, "churn").reason
    assert sufficiency(check, "churn").needed[0] == "30 more customers with a second purchase"
    early = checked(tmp_path, rows, as_of=FIRST + timedelta(days=100))
    assert [sufficiency(early, model).answer for model in ("churn", "lifetime_value")] == ["insufficient"] * 2


def test_a_history_too_short_asks_for_months(tmp_path: Path) -> None:
    """Four months are too few for windows of 60 days with 90 before them: histories alone, and how much is missing."""
    rows = [(f"c{n}", FIRST + timedelta(days=(7 * n) % 20 + 10 * k), 5.0) for n in range(40) for k in range(10)]
    check = checked(tmp_path, make_transactions(rows), as_of=FIRST + timedelta(days=120))
    assert check.suffices
    assert (sufficiency(check, "churn").answer, sufficiency(check, "lifetime_value").answer) == ("history only",) * 2
    assert sufficiency(check, "churn").needed == ("about 2 more months of purchases",)  # 90 + 60 + 30 days less 120
    assert sufficiency(check, "lifetime_value").needed == ("about 30 more days of purchases",)


@pytest.mark.parametrize(
    ("as_of", "why"),
    [(date(2021, 1, 1), "no purchase is known before 2021-01-01"), (date(2026, 1, 1), "choose an --as-of near 2022"),
     (FIRST + timedelta(days=50), "a horizon of 60 days is longer than the history of 50 days")],
)  # fmt: skip
def test_what_training_would_refuse_is_the_sufficiency(as_of: date, why: str, tmp_path: Path) -> None:
    """Nothing known, nobody active, a horizon beyond the history: reported for all models, not raised."""
    rows = [(f"c{n}", FIRST + timedelta(days=7 * k), 5.0) for n in range(40) for k in range(20)]
    check = checked(tmp_path, make_transactions(rows), as_of=as_of)
    assert [v.answer for v in check.models] == ["insufficient"] * 3
    assert all(why in v.reason for v in check.models)
    assert data_report.as_text(check)
    assert data_report.as_html(check)


def test_ids_that_lead_nowhere_are_counted(tmp_path: Path) -> None:
    """By id and by row, with an example; who never bought is counted the other way round."""
    lines = make_transactions(
        [("c1", FIRST, 1.0), ("c2", FIRST, 2.0), ("c2", FIRST, 3.0)], product_id=["p1", "p8", "p9"]
    )
    tables = {"customers": pd.DataFrame({"customer_id": ["c1", "c5", "c6"]}),
              "products": pd.DataFrame({"product_id": ["p1"], "category": "tea"})}  # fmt: skip
    check = checked(tmp_path, lines, as_of=FIRST + timedelta(days=9), tables=tables)
    orphans = {(o.column, o.table): (o.ids, o.rows, o.example) for o in table(check, "transactions").orphans}
    assert orphans == {("customer_id", "customers"): (1, 2, "c2"), ("product_id", "products"): (2, 2, "p8")}
    assert check.purchases is not None
    assert (check.purchases.without, check.purchases.repeat_share) == (2, 0.0)
    assert any("2 product_ids in 2 rows are not in products" in finding for finding in sentences(check))


def test_columns_are_described_as_they_are(tmp_path: Path) -> None:
    """Missing, distinct, the ends and the middle of numbers and times, the most frequent text; an oracle in pandas."""
    days = [FIRST + timedelta(days=n) for n in range(101)]
    lines = make_transactions([(f"c{n % 5}", day, float(n)) for n, day in enumerate(days)])
    lines["channel"] = np.where(lines.index % 4 == 0, None, np.where(lines.index % 3 == 0, "web", "shop"))
    columns = {c.name: c for c in table(checked(tmp_path, lines), "transactions").columns}
    amount, channel = columns["amount"], columns["channel"]
    assert (amount.low, amount.lower_quartile, amount.median, amount.upper_quartile, amount.high) == (
        0,
        25,
        50,
        75,
        100,
    )
    assert (columns["occurred_at"].low, columns["occurred_at"].median) == ("2022-01-01", "2022-02-20")
    assert (channel.missing, channel.distinct, channel.common) == (26, 2, lines["channel"].mode()[0])
    assert (columns["customer_id"].distinct, columns["cost"].missing) == (5, 101)


def test_months_without_a_line_and_sudden_changes_are_found(tmp_path: Path) -> None:
    """A month left out, one with four times the lines, and data that end long before as_of; steady months are not."""
    days = pd.date_range("2022-01-01", "2022-12-31")
    rows = [
        (f"c{n}", day + timedelta(hours=n), 1.0)
        for day in days if day.month != 5
        for n in range(16 if day.month == 9 else 4)
    ]  # fmt: skip
    check = checked(tmp_path, make_transactions(rows), as_of=date(2023, 2, 1))
    seen = table(check, "transactions").coverage
    assert seen is not None
    assert seen.empty_months == ("2022-05",)
    assert [(jump.month, jump.rows_per_day, jump.usual) for jump in seen.jumps] == [("2022-09", 16.0, 4.0)]
    assert (seen.longest_silence, seen.silent_after) == (31, date(2022, 4, 30))
    assert (len(seen.months), seen.months[4].rows, seen.months[8].rows) == (12, 0, 480)
    assert any("the last purchase known before 2023-02-01 is of 2022-12-31, 32 days" in f for f in sentences(check))
    assert any("2022-05" in finding and "whether an export is missing" in finding for finding in sentences(check))


def test_duplicates_and_quarantine_are_accounted_for(tmp_path: Path) -> None:
    """A repeated line is quarantined as such, or counted where it is kept; what was read is what became of it."""
    lines = make_transactions([("c1", FIRST, 1.0)] * 3 + [("c1", None, 1.0)] + [("c2", FIRST, 2.0)] * 20)
    lines["transaction_id"] = [*["t1"] * 3, *(f"t{n}" for n in range(2, 23))]
    one = table(checked(tmp_path / "strict", lines), "transactions")
    assert (one.read, one.accepted, one.duplicates, one.equal_lines) == (24, 21, 2, 0)
    assert one.quarantined == {"duplicate line": 2, "no occurred_at": 1}
    path = {"path": str(tmp_path / "strict" / "transactions.parquet"), "duplicates": "keep"}
    kept = table(looked_at(settings.read(write_workspace(tmp_path / "kept", path)), TODAY), "transactions")
    assert (kept.accepted, kept.duplicates, kept.equal_lines) == (23, 0, 2)


def random_shop(customers: int = 900) -> pd.DataFrame:
    """Purchases a month or so apart until, after some of them, a customer leaves."""
    random = np.random.default_rng(3)
    rows = []
    for number in range(customers):
        day = float(random.integers(0, 400))
        while day < (TODAY - FIRST).days:
            rows.append((f"c{number:04}", FIRST + timedelta(days=int(day)), round(random.gamma(4.0, 5.0) + 1, 2)))
            day += 1 + random.exponential(25)
            if random.random() < 0.12:
                break
    return make_transactions(rows)


def people(lines: pd.DataFrame, cutoff: date) -> pd.DataFrame:
    """Customers with attributes that were filled in after the cutoff, and with such as were there before."""
    random = np.random.default_rng(5)
    days = lines.assign(day=pd.to_datetime(lines["occurred_at"]))
    later = days["day"] >= pd.Timestamp(cutoff)
    last = days.groupby("customer_id")["day"].max()
    before = days[~later].groupby("customer_id")["day"].max().reindex(last.index)
    left = ~last.index.isin(days[later]["customer_id"])
    some = left & (random.random(len(last)) < 0.5)
    slips = ~left & (np.cumsum(~left) <= 2)
    return pd.DataFrame({
        "customer_id": last.index,
        "closed": left.astype(int),
        "status": np.where(some | slips, "gone", random.choice(["gold", "silver"], len(last))),
        "closed_reason": np.where(some, random.choice(["price", "moved", "other"], len(last)), None),
        "last_order_date": last.dt.strftime("%Y-%m-%d").to_numpy(),
        "region": random.choice(["north", "south", "east"], len(last)),
        "churned": random.choice(["no", "perhaps"], len(last)),  # a word that the check uses itself
        "marketing_consent": random.choice(np.array([True, False, None]), len(last)),
        "signed_up_at": pd.Timestamp("2021-06-01") + pd.to_timedelta(random.integers(0, 200, len(last)), unit="D"),
        "age": random.integers(18, 90, len(last)),
        "born_on": pd.to_datetime("1950-01-01") + pd.to_timedelta(random.integers(0, 18_000, len(last)), unit="D"),
        "silent_for": [f"{min(days // 10, 12):.0f}0 days" for days in (pd.Timestamp(cutoff) - before).dt.days],
        "e_mail": [f"{number}@example.org" for number in last.index],
        "card_number": random.permutation(len(last)) + 4_000_000,
    }).astype({"born_on": str})  # fmt: skip


@pytest.fixture(scope="module")
def accused(tmp_path_factory: pytest.TempPathFactory) -> DataCheck:
    lines = random_shop()
    customers = people(lines, TODAY - timedelta(days=60))
    names = [name for name in customers.columns if name != "customer_id"]
    return checked(tmp_path_factory.mktemp("leaks"), lines, tables={"customers": customers}, attributes=names)


@pytest.mark.parametrize(
    ("name", "suspicion"),
    [("closed", "separates who left from who stayed almost alone"), ("last_order_date", "recorded after the outcome"),
     ("closed_reason", "filled in, or left empty, according to the outcome"),
     ("status", "has a value that tells the outcome"), ("e_mail", "identifies customers"),
     ("card_number", "identifies customers"),
     ("region", None), ("age", None), ("born_on", None), ("churned", None),
     ("marketing_consent", None), ("signed_up_at", None), ("silent_for", None)],
)  # fmt: skip
def test_leaks_are_accused_and_nothing_else(name: str, suspicion: str | None, accused: DataCheck) -> None:
    """What was filled in after the cutoff is named with a reason; what was there before, however telling, is not."""
    assert accused.leaks is not None
    assert accused.leaks.cutoff == TODAY - timedelta(days=60)
    attribute = next(a for a in accused.leaks.attributes if a.name == name)
    assert attribute.suspicion == suspicion
    named = [finding for finding in sentences(accused) if finding.startswith(f"attribute {name}:")]
    assert [f"drop `{name}` from `attributes`" in finding for finding in named] == [True] * (suspicion is not None)


def test_figures_of_attributes_are_those_of_the_outcome(accused: DataCheck) -> None:
    """A copy of the outcome ranks perfectly, chance ranks by chance; what behaviour knows is gone among the equally
    silent."""
    assert accused.leaks is not None
    attributes = {attribute.name: attribute for attribute in accused.leaks.attributes}
    cohort = accused.cohorts[-2]
    assert (accused.leaks.left, accused.leaks.stayed) == (cohort.left, cohort.stayed)
    assert {attributes[name].kind for name in ("born_on", "signed_up_at", "last_order_date")} == {"time"}
    assert (attributes["closed"].auc, attributes["closed"].like_auc) == (1.0, 1.0)
    assert attributes["e_mail"].auc == pytest.approx(0.5, abs=0.01)
    assert attributes["region"].auc == pytest.approx(0.5, abs=0.1)
    assert attributes["silent_for"].auc is not None
    assert attributes["silent_for"].auc > LEAK_AUC
    assert attributes["silent_for"].like_auc == pytest.approx(0.5, abs=0.2)


def test_attributes_are_not_judged_by_a_handful(tmp_path: Path) -> None:
    """With too few outcomes nobody is accused, and it says that nobody was judged."""
    rows = [(f"c{n}", FIRST + timedelta(days=7 * k), 5.0) for n in range(40) for k in range(60)]
    customers = pd.DataFrame({"customer_id": [f"c{n}" for n in range(40)], "tier": "gold"})
    check = checked(tmp_path, make_transactions(rows), date(2023, 3, 1), tables={"customers": customers},
                    attributes=["tier"])  # fmt: skip
    assert check.leaks is not None
    assert check.leaks.suspects == ()
    assert "at least 50 of each are needed" in str(check.leaks.not_judged)
    assert any("could not be held against" in finding for finding in sentences(check))


def test_of_a_large_shop_some_customers_are_counted_for_all(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """One in three, scaled up, is near the count of all, and the report says so."""
    monkeypatch.setattr(data_check, "_MANY_LINES", table(shop.check, "transactions").accepted // 3 + 1)
    some = looked_at(shop.workspace)
    assert some.one_in == 3
    assert some.purchases is not None
    assert shop.check.purchases is not None
    assert some.purchases.customers % 3 == 0
    assert some.purchases.customers == pytest.approx(shop.check.purchases.customers, rel=0.2)
    assert counted(some, "cross_sell")[2] == pytest.approx(counted(shop.check, "cross_sell")[2], rel=0.3)
    assert "one in 3" in data_report.as_text(some)
    assert some.tables == shop.check.tables


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> DataCheck:
    """A shop whose ids, categories, columns' values and reasons are markup."""
    lines = random_shop(300).assign(
        product_id=[f"<b>{n % 3}</b>" for n in range(len(random_shop(300)))], channel=HOSTILE
    )
    customers = pd.DataFrame({"customer_id": lines["customer_id"].unique(), "tier": HOSTILE})
    tables = {"customers": customers, "products": pd.DataFrame({"product_id": ["<b>1</b>"], "category": HOSTILE})}
    return checked(tmp_path_factory.mktemp("hostile"), lines, tables=tables, attributes=["tier"])


def test_the_page_holds_no_markup_of_the_data(hostile: DataCheck) -> None:
    """It is sound; what the data say is text."""
    assert hostile.purchases is not None
    hostile = replace(hostile, purchases=replace(hostile.purchases, by_month=(Bar(HOSTILE, 1),)))
    page = sound(data_report.as_html(hostile))
    assert not list(page.all("b"))
    assert '"><script>alert(1)' in page.text
    assert "<b>0</b>" in page.text


def test_the_page_can_be_read_without_seeing_it(hostile: DataCheck) -> None:
    """The answers before all other sections, every picture in words and in numbers."""
    page = sound(data_report.as_html(hostile))
    pictures = [tag.attributes["alt"] for tag in page.all("img")]
    assert len(pictures) >= 4
    assert all("most" in alt for alt in pictures)
    assert [tag.text for tag in page.all("h1", "h2")][1:4] == ["Churn", "Lifetime value", "Cross-sell"]
    assert len([*page.all("details")]) == len(pictures)


def test_json_page_and_terminal_say_the_same(accused: DataCheck, tmp_path: Path) -> None:
    """Every count of every answer, and every finding, is in all three."""
    storage.write_json(tmp_path / "check.json", data_report.as_data(accused))
    data = json.loads((tmp_path / "check.json").read_text())
    text, page = data_report.as_text(accused), sound(data_report.as_html(accused)).text
    assert data["suffices"] is True
    assert data["as_of"] == str(TODAY)
    for model in data["models"]:
        for count in model["counts"]:
            assert f"{count['what']}: {count['found']:,}" in text
            assert f"{count['what']}{count['found']:,}{count['minimum']:,}" in page
    assert data["remarks"]
    for remark in data["remarks"]:
        assert f"{remark['about']}: {remark['says']}; {remark['do']}" in text
        assert f"{remark['about']}: {remark['says']}" in page
        assert remark["do"][1:] in page
    for each in data["tables"]:
        assert f"{each['name']}: {each['read']:,} read = {each['accepted']:,} accepted" in text


def test_a_verdict_without_numbers_is_shown_as_well(hostile: DataCheck) -> None:
    """A shop with nothing to say about purchases or attributes still has a page."""
    bare = replace(hostile, purchases=None, leaks=None, remarks=())
    assert "Nothing stands out." in sound(data_report.as_html(bare)).text
    assert "look at" not in data_report.as_text(bare)


def test_the_page_of_minimums_keeps_up_with_the_trainings() -> None:
    """What docs/data_check.md calls the least is what the trainings ask for."""
    rows = (Path(__file__).parents[3] / "docs" / "data_check.md").read_text().splitlines()
    least = [cells[3].split()[0] for cells in (row.split("|") for row in rows) if len(cells) == 6][2:]
    wanted = (MINIMUM_REPEAT_BUYERS, 2, churn.MIN_OUTCOMES, lifetime_value.MIN_BUYERS, 1, cross_sell.MIN_ITEMS,
              cross_sell.MIN_BOUGHT)  # fmt: skip
    assert least == [str(number) for number in wanted]
