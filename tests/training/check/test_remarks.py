"""What the data check remarks: faults built into a made-up shop are told, strong and weak; a clean shop, and the real
sets, are left alone."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pytest
from builders import write_workspace
from datasets import dataset

from ingest import intake
from training.check import conversions, data_check, data_report, left_out
from training.check.remarks import Remark
from workspace import settings, storage
from workspace.settings import Workspace

NOW = datetime(2030, 1, 1, tzinfo=UTC)
FIRST, DAYS = pd.Timestamp("2021-01-01"), 900
TODAY = (FIRST + pd.Timedelta(days=DAYS)).date()
CONFIGS = Path(__file__).parents[3] / "configs"
SHOP = Workspace.model_validate(
    {"name": "shop", "tables": {"transactions": {"path": ("t.csv",), "columns": {"amount": "total"}}}}
)

Lines = pd.DataFrame
Random = np.random.Generator
Fault = Callable[[Lines, Random], Lines]


def clean(seed: int, customers: int = 900) -> Lines:
    """Canonical lines of 900 days: customers come and go, buy at rates of their own, more before Christmas, through
    three channels, sixty products; a few lines are returned."""
    random = np.random.default_rng(seed)
    start = np.where(random.random(customers) < 0.4, 0, random.integers(0, DAYS, customers))
    end = np.minimum(DAYS, start + 1 + random.exponential(500, customers))
    expected = random.gamma(0.8, 20 / 365 / 0.8, customers) * (end - start)
    customer = np.repeat(np.arange(customers), 1 + random.poisson(expected))
    day = start[customer] + random.random(len(customer)) * (end - start)[customer]
    season = 1 + 0.4 * np.sin(day * 2 * np.pi / 365) + (day % 365 > 325)
    kept = random.random(len(day)) < season / 2.4
    n_lines = random.integers(1, 4, kept.sum())
    order = np.repeat(np.arange(len(n_lines)), n_lines)
    n, product = len(order), random.integers(0, 60, len(order))
    price, quantity = np.exp(random.normal(2.5, 0.8, 60)), random.integers(1, 4, len(order))
    lines = pd.DataFrame({
        "transaction_id": [f"t{number:06}" for number in order],
        "customer_id": [f"c{number:05}" for number in customer[kept][order]],
        "occurred_at": FIRST + pd.to_timedelta(day[kept][order], unit="D"),
        "amount": np.round(price[product] * quantity * np.exp(random.normal(0, 0.05, n)), 2),
        "quantity": quantity.astype(float),
        "product_id": [f"p{number}" for number in product],
        "channel": np.array(["web", "store", "app"])[random.choice(3, len(n_lines), p=[0.6, 0.3, 0.1])][order],
    })  # fmt: skip
    return lines.assign(amount=np.where(random.random(n) < 0.03, -1, 1) * lines["amount"])


def told(lines: Lines, workspace: Workspace = SHOP) -> dict[str, Remark]:
    """Everything that is remarked of lines, by its name."""
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.register("given", lines)
        connection.execute("""
            CREATE TABLE all_lines AS
            SELECT *, CAST(occurred_at AS DATE) AS day, day AS known_day, NULL::VARCHAR AS location FROM given""")
        purchases = connection.sql("""
            SELECT customer_id, day, sum(amount) AS spend FROM all_lines WHERE amount >= 0 GROUP BY ALL""")
        ids = connection.sql("SELECT DISTINCT customer_id FROM all_lines")
        remarks = data_check.remarked(connection.table("all_lines"), purchases, ids, workspace, TODAY)
        return {remark.name: remark for remark in remarks}


def chosen(values: pd.Series, random: Random, share: float) -> pd.Series:
    """Rows of about this share of the values."""
    distinct = values.unique()
    return values.isin(distinct[random.random(len(distinct)) < share])


def since(lines: Lines, day: str) -> pd.Series:
    return lines["occurred_at"] >= pd.Timestamp(day)


def times_the_median(times: float) -> Fault:
    def spoil(lines: Lines, random: Random) -> Lines:
        amounts = lines["amount"].to_numpy().copy()
        amounts[random.integers(len(amounts))] = times * np.median(amounts[amounts > 0])
        return lines.assign(amount=amounts)

    return spoil


def one_id(share: float, name: str) -> Fault:
    def spoil(lines: Lines, random: Random) -> Lines:
        return lines.assign(customer_id=lines["customer_id"].mask(chosen(lines["transaction_id"], random, share), name))

    return spoil


def spelt(share: float, *spellings: Callable[[pd.Series], pd.Series]) -> Fault:
    """Of so many orders the customer's address is spelt in one of these ways."""

    def spoil(lines: Lines, random: Random) -> Lines:
        ids = "maria." + lines["customer_id"] + "@example.org"
        for spelling in spellings:
            ids = ids.mask(chosen(lines["transaction_id"], random, share), spelling(ids))
        return lines.assign(customer_id=ids)

    return spoil


def numbers_with_fractions(lines: Lines, random: Random) -> Lines:
    plain = lines["customer_id"].str[1:].str.lstrip("0").replace("", "0")
    return lines.assign(customer_id=plain.mask(chosen(lines["transaction_id"], random, 0.2), plain + ".0"))


def upper_case(share: float) -> Fault:
    return lambda lines, random: lines.assign(
        customer_id=lines["customer_id"].mask(
            chosen(lines["transaction_id"], random, share), lines["customer_id"].str.upper()
        )
    )


def numbered_anew(share: float, day: str) -> Fault:
    """In the same range of numbers, in any order."""

    def spoil(lines: Lines, random: Random) -> Lines:
        ids = lines["customer_id"].unique()
        other = dict(zip(ids, "new" + pd.Series(random.permutation(ids)), strict=True))
        there = since(lines, day) & chosen(lines["customer_id"], random, share)
        return lines.assign(customer_id=lines["customer_id"].mask(there, lines["customer_id"].map(other)))

    return spoil


def rewritten(day: str, before: str, after: str, share: float = 1) -> Fault:
    """From a day on the ids, of which `{0}` is the number, are in another form."""

    def spoil(lines: Lines, random: Random) -> Lines:
        numbers = lines["customer_id"].str[1:].astype(int)
        there = since(lines, day) & chosen(lines["customer_id"], random, share)
        return lines.assign(customer_id=numbers.map(before.format).mask(there, numbers.map(after.format)))

    return spoil


def scaled(times: float, day: str, until: str = "2100-01-01", channel: str | None = None) -> Fault:
    def spoil(lines: Lines, _: Random) -> Lines:
        there = since(lines, day) & ~since(lines, until) & ((channel is None) | (lines["channel"] == channel))
        return lines.assign(amount=lines["amount"].where(~there, lines["amount"] * times))

    return spoil


def opening_balances(share: float, day: str) -> Fault:
    """The records begin on a day on which so many of the customers have one line of everything before."""

    def spoil(lines: Lines, random: Random) -> Lines:
        first = lines[chosen(lines["customer_id"], random, share)].drop_duplicates("customer_id")
        amounts = np.round(np.exp(random.normal(5, 1, len(first))), 2)
        opening = first.assign(
            transaction_id="ob" + first["customer_id"], occurred_at=pd.Timestamp(day), amount=amounts
        )
        return pd.concat([lines[since(lines, day)], opening], ignore_index=True)

    return spoil


def one_customer(share: float) -> Fault:
    def spoil(lines: Lines, _: Random) -> Lines:
        own = lines["customer_id"] == lines["customer_id"].value_counts().index[5]
        times = share / (1 - share) * lines["amount"][~own].sum() / lines["amount"][own].sum()
        return lines.assign(amount=lines["amount"].where(~own, lines["amount"] * times))

    return spoil


def ids_of_orders(share: float, written: str = "{}") -> Fault:
    def spoil(lines: Lines, random: Random) -> Lines:
        named = lines["transaction_id"].map(written.format)
        return lines.assign(
            customer_id=lines["customer_id"].mask(chosen(lines["transaction_id"], random, share), named)
        )

    return spoil


def closed_for(days: int) -> Fault:
    return lambda lines, _: lines[~since(lines, "2022-01-10") | since(lines, str(date(2022, 1, 10) + timedelta(days)))]


def imported(share: float) -> Fault:
    """Everything before a day is booked on it."""
    day = FIRST + pd.Timedelta(days=int(DAYS * share))
    return lambda lines, _: lines.assign(occurred_at=lines["occurred_at"].clip(lower=day))


def shares_of_channel(times: float, with_products: bool) -> Fault:
    def spoil(lines: Lines, _: Random) -> Lines:
        lines = lines.assign(amount=lines["amount"].where(lines["channel"] != "store", lines["amount"] * times))
        return lines if with_products else lines.assign(product_id=None)

    return spoil


def in_capitals(ids: pd.Series) -> pd.Series:
    return ids.str.upper()


def with_a_blank(ids: pd.Series) -> pd.Series:
    return " " + ids.str.title()


def plus_tag(ids: pd.Series) -> pd.Series:
    return ids.str.replace("@", "+shop@")


MONTHLY: Fault = lambda lines, _: lines.assign(occurred_at=lines["occurred_at"].dt.to_period("M").dt.to_timestamp())  # noqa: E731
WEEKENDS: Fault = lambda lines, _: lines[lines["occurred_at"].dt.dayofweek >= 5]  # noqa: E731
ONE_PRODUCT: Fault = lambda lines, random: lines.assign(  # noqa: E731
    product_id=lines["product_id"].where(random.random(len(lines)) < 0.01, "p1")
)
FREE: Fault = lambda lines, random: lines.assign(  # noqa: E731
    amount=lines["amount"].where(random.random(len(lines)) < 0.6, 0.0)
)
TURNED: Fault = lambda lines, _: lines.assign(amount=-lines["amount"])  # noqa: E731

FAULTS: list[tuple[str, Fault, str]] = [
    *((f"one amount {n:,} times the median", times_the_median(n), "amount out of proportion") for n in (30_000, 600)),
    ("an amount of minus 30,000 times the median", times_the_median(-30_000), "amount out of proportion"),
    *((f"a till with {share:.0%} of the orders", one_id(share, "till-1"), "one id for many") for share in (0.4, 0.15)),
    ("guests under one word", one_id(0.01, "guest"), "ids of tests or guests"),
    *((f"addresses in three spellings, {share:.0%} each", spelt(share, in_capitals, with_a_blank),
       "one customer in several spellings") for share in (0.3, 0.02)),
    ("addresses with tags", spelt(0.1, plus_tag), "one customer in several spellings"),
    ("numbers with fractions", numbers_with_fractions, "one customer in several spellings"),
    *((f"{share:.0%} of orders in capitals", upper_case(share), "one customer in several spellings")
      for share in (0.3, 0.02)),
    *((f"{share:.0%} of customers numbered anew on {day}", numbered_anew(share, day), "ids given anew")
      for share, day in ((1, "2022-06-01"), (0.8, "2022-06-01"), (1, "2021-05-01"), (1, "2023-04-01"))),
    *((f"{share:.0%} of {before} become {after} on {day}", rewritten(day, before, after, share), "ids in another form")
      for before, after, day, share in (
          ("1{0:04}", "C1{0:04}", "2022-06-01", 1), ("1{0:04}", "C1{0:04}", "2023-04-01", 0.8),
          ("K-1{0:04}", "1{0:04}", "2021-05-01", 1), ("{0}", "{0:08}", "2022-06-01", 1),
          ("{0}", "DE{0:08}", "2022-06-01", 1), ("Ab{0}c", "AB{0}C", "2022-06-01", 1))),
    *((f"amounts times {times:.3g} from 2022-06-01", scaled(times, "2022-06-01"), "amounts change their level")
      for times in (1 / 7.5, 100, 0.01, 1 / 1.96, 1.4)),
    ("another currency three weeks before the end", scaled(1 / 7.5, "2023-06-01"), "amounts change their level"),
    ("another currency in one channel", scaled(1 / 7.5, "2022-06-01", channel="store"), "amounts change their level"),
    ("cents in one month", scaled(100, "2022-06-01", "2022-07-01"), "amounts change their level"),
    *((f"opening balances of {share:.0%} on {day}", opening_balances(share, day), "one day with too many customers")
      for share, day in ((0.3, "2021-01-01"), (0.12, "2021-09-01"))),
    *((f"one customer with {share:.0%} of the revenue", one_customer(share), "one customer with much revenue")
      for share in (0.4, 0.15)),
    *((f"{share:.0%} of ids are of orders", ids_of_orders(share), "ids of orders") for share in (1, 0.4, 0.1)),
    ("ids that hold the order's", ids_of_orders(1, "guest-{}@shop"), "ids of orders"),
    *((f"closed for {days} days", closed_for(days), "no purchase for long") for days in (90, 35)),
    *((f"{share:.0%} of the days on the day of import", imported(share), "one day with too many customers")
      for share in (0.3, 0.1)),
    ("sums of a month", MONTHLY, "purchases on few days"), ("weekends only", WEEKENDS, "purchases at weekends only"),
    ("one product for all", ONE_PRODUCT, "one product for all"), ("nothing to pay", FREE, "amounts of nothing"),
    ("signs turned", TURNED, "more returns than purchases"),
    *((f"a channel in another currency, times {times}", shares_of_channel(times, priced), "amounts in two units")
      for times, priced in ((7.5, True), (3, True), (7.5, False))),
]  # fmt: skip


@pytest.mark.parametrize(("spoil", "name"), [fault[1:] for fault in FAULTS], ids=[fault[0] for fault in FAULTS])
def test_a_fault_is_remarked(spoil: Fault, name: str) -> None:
    """By what it is called, with what to do about it."""
    remarks = told(spoil(clean(1), np.random.default_rng(1)).reset_index(drop=True))
    assert name in remarks
    assert remarks[name].do


@pytest.mark.parametrize(("times", "day", "until", "factor"), [
    (100, "2022-03-01", "2022-05-01", "/ 100"), (100, "2022-03-01", "2022-03-20", "/ 100"),
    (0.01, "2022-03-01", "2022-07-01", "* 100"), (1000, "2022-06-01", None, "/ 1000"),
])  # fmt: skip
def test_the_mend_of_another_unit_brings_amounts_back(
    tmp_path: Path, times: float, day: str, until: str | None, factor: str
) -> None:
    """For a while or for good: one remark with its first day and its last, whose expression is the settings' own."""
    lines = clean(1).assign(total=lambda rows: rows["amount"])
    spoilt = scaled(times, day, until or "2100-01-01")(lines, np.random.default_rng(1))
    remark = told(spoilt.reset_index(drop=True))["amounts change their level"]
    assert remark.says.startswith(f"from {day} " + (f"to the day before {until} " if until else ""))
    mend = remark.do.split("columns.amount: ")[1].split(" END")[0] + " END"
    assert factor in mend
    path = tmp_path / "t.csv"
    spoilt.assign(total=spoilt["amount"], sold=lines["amount"]).drop(columns="amount").to_csv(path, index=False)
    worst = duckdb.sql(f"SELECT max(abs(({mend}) - sold)) FROM read_csv('{path}', all_varchar = false)").fetchall()[0][
        0
    ]
    assert worst < 0.001


@pytest.mark.parametrize(
    ("before", "after", "mend"),
    [
        ("1{0:04}", "C1{0:04}", "regexp_replace(CAST(code AS VARCHAR), '^C', '')"),
        ("X.(1{0:04}", "1{0:04}", r"regexp_replace(CAST(code AS VARCHAR), '^X\.\(', '')"),
        ("{0}", "{0:08}", r"regexp_replace(CAST(code AS VARCHAR), '^0+(.)', '\1')"),
        ("Ab{0}c", "AB{0}C", "lower(trim(code))"),
        ("{0}", "DE{0:08}", r"regexp_replace(CAST(code AS VARCHAR), '^[^0-9]*0*([0-9])', '\1')"),
    ],
)  # fmt: skip
def test_the_mend_of_ids_in_another_form_makes_each_customer_one(
    tmp_path: Path, before: str, after: str, mend: str
) -> None:
    """With the day and one pair; read with it from an export of before and one of since, nothing is remarked."""
    lines = clean(1).rename(columns={"amount": "total"})
    spoilt = rewritten("2022-06-01", before, after)(lines, np.random.default_rng(1)).assign(amount=lines["total"])
    table = SHOP.tables.transactions.model_copy(update={"columns": {"amount": "total", "customer_id": "code"}})
    shop = SHOP.model_copy(update={"tables": SHOP.tables.model_copy(update={"transactions": table})})
    remark = told(spoilt, shop)["ids in another form"]
    number = int(re.search("[0-9]+", remark.says.split("`")[1].removeprefix("X.(1"))[0])  # type: ignore[index]
    old, new = (form.format(number % 10_000) for form in (before, after))
    assert remark.says.startswith(
        f"from 2022-06-01 on customer_ids are written in another form (`{old}` before, `{new}`"
    )
    assert remark.do.endswith(f"tables.transactions.columns.customer_id: {mend}")
    files = [str(tmp_path / f"{name}.csv") for name in ("before", "since")]
    there = since(spoilt, "2022-06-01")
    for file, rows in zip(files, (spoilt[~there], spoilt[there]), strict=True):
        rows.rename(columns={"customer_id": "code"}).to_csv(file, index=False)
    path = write_workspace(tmp_path, {"path": files, "duplicates": "keep", "columns": {"customer_id": mend}})
    workspace = settings.read(path)
    intake.ingest(workspace, NOW)
    mended = duckdb.sql(f"SELECT * FROM {storage.rows_of(workspace.home_path, 'transactions')}").df()
    assert len(mended) == len(lines)
    assert mended["customer_id"].nunique() == lines["customer_id"].nunique()
    assert told(mended.assign(occurred_at=mended["occurred_at"].dt.tz_localize(None))[list(clean(1, 9))]) == {}


def test_a_factor_that_is_not_round_is_told_as_an_estimate() -> None:
    """A rate such as 1/1.96 is not known from the amounts: the mend says that the exact one is to be put in."""
    remark = told(scaled(1 / 1.96, "2022-06-01")(clean(1), np.random.default_rng(1)))["amounts change their level"]
    assert "is an estimate: put in the exact rate" in remark.do


def test_returns_beyond_all_that_was_sold_are_no_part_of_the_revenue() -> None:
    """An amount of minus 700 million is told as so many times what was sold; nobody brings a part of less than none."""
    lines = clean(1)
    spoilt = lines.assign(amount=lines["amount"].mask(lines.index == 7, -7e8))
    remarks = told(spoilt)
    assert "one customer with much revenue" not in remarks
    times = 7e8 / spoilt["amount"].clip(lower=0).sum()
    assert f"it is {times:,.3g} times all that was sold, signs aside" in remarks["amount out of proportion"].says


def test_a_clean_shop_is_left_alone() -> None:
    """Twenty of them, small and large: no remark at all."""
    assert {seed: list(told(clean(seed, 150 + 60 * seed))) for seed in range(20)} == {seed: [] for seed in range(20)}


def slow_buyers(random: Random, customers: int = 400) -> Lines:
    """Customers who come back after a year or so, each more than once; 2,000 days of them."""
    gaps = random.gamma(9, 400 / 9, (customers, 8))
    days = random.integers(0, 400, customers)[:, None] + np.cumsum(gaps, axis=1)
    customer, _ = np.nonzero(days < 2000)
    at = FIRST - pd.Timedelta(days=2000 - DAYS) + pd.to_timedelta(days[days < 2000], unit="D")
    n = len(at)
    return pd.DataFrame({
        "transaction_id": [f"t{number}" for number in range(n)], "customer_id": [f"c{number}" for number in customer],
        "occurred_at": at, "amount": np.round(np.exp(random.normal(3, 0.5, n)), 2), "quantity": 1.0, "product_id": None,
        "channel": "web",
    })  # fmt: skip


def test_comers_back_beyond_the_window_are_counted_and_a_window_is_proposed() -> None:
    """How many of a year's buyers were called gone, and the window that holds 95 % of them: then nothing is said."""
    lines = slow_buyers(np.random.default_rng(5))
    remark = told(lines)["comers-back called gone"]
    start = pd.Timestamp(TODAY) - pd.Timedelta(days=365)
    before, after = lines[lines["occurred_at"] < start], lines[lines["occurred_at"] >= start]
    last = before.groupby("customer_id")["occurred_at"].max().dt.normalize()
    silence = (start - last[last.index.isin(after["customer_id"])]).dt.days
    assert f"of {len(silence):,} earlier customers" in remark.says
    assert f"{(silence > 365).sum():,} ({(silence > 365).mean():.0%}) had been silent" in remark.says
    assert remark.doubts == ("churn",)
    window = int(remark.do.split("churn.active_window: ")[1].split()[0])
    assert np.quantile(silence, 0.95) <= window <= np.quantile(silence, 0.95) + 30
    wider = SHOP.model_copy(update={"churn": SHOP.churn.model_copy(update={"active_window": window})})
    assert "comers-back called gone" not in told(lines, wider)


def test_comers_back_of_personal_windows_are_counted_by_their_own_gaps() -> None:
    """With little patience many are called gone who come back; with much, none is."""
    lines = clean(2)

    def personal(patience: float) -> dict[str, Remark]:
        churn = SHOP.churn.model_copy(update={"inactivity": "personal", "patience": patience})
        return told(lines, SHOP.model_copy(update={"churn": churn}))

    assert "churn.patience, now 1" in personal(1.0)["comers-back called gone"].do
    assert "comers-back called gone" not in personal(20.0)


def taken_in(folder: Path, lines: Lines | str, **transactions: Any) -> tuple[Workspace, intake.Account]:
    """The workspace of lines in a file, mapped by these settings, and the account of them."""
    path = folder / ("t.csv" if isinstance(lines, str) else "t.parquet")
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(lines, str):
        path.write_text(lines)
    else:
        lines.to_parquet(path, index=False)
    workspace = settings.read(write_workspace(folder, {"path": str(path), **transactions}))
    return workspace, intake.ingest(workspace, NOW)[0]


def of_money(folder: Path, lines: Lines | str, **transactions: Any) -> dict[str, Remark]:
    """What is remarked of the money in these lines, by its name."""
    return of_account(*taken_in(folder, lines, **transactions))


def of_account(workspace: Workspace, account: intake.Account) -> dict[str, Remark]:
    with storage.connect(workspace.home_path) as connection:
        return {remark.name: remark for remark in left_out.remarked(connection, workspace, account)}


def test_amounts_lost_to_a_conversion_are_estimated_in_money(tmp_path: Path) -> None:
    """A thousand separator in a few large amounts: under 1 % of the rows, but much of the revenue; mended, no word."""
    lines = clean(3, 200)[["transaction_id", "customer_id", "occurred_at", "amount"]]
    large = np.arange(len(lines)) % 150 == 0
    lines = lines.assign(amount=np.where(large, 1234.5, lines["amount"].abs().clip(upper=900)))
    lost, revenue = 1234.5 * large.sum(), lines["amount"].sum()
    text = lines.assign(amount=lines["amount"].map("{:,.2f}".format)).to_csv(index=False)
    for number, expression in enumerate(("amount", "TRY_CAST(amount AS DOUBLE)")):
        remark = of_money(tmp_path / str(number), text, columns={"amount": expression})["amounts lost to a conversion"]
        assert f"{large.sum():,} rows ({large.mean():.1%} of them)" in remark.says
        assert f"about {lost:,.0f} EUR: {lost / revenue:.0%} of the revenue" in remark.says
        assert "1,234.50" in remark.says
        assert remark.doubts == ("lifetime_value",)
    columns = {"amount": "TRY_CAST(replace(amount, ',', '') AS DOUBLE)"}
    workspace, account = taken_in(tmp_path / "mended", text, columns=columns, duplicates="keep")
    assert of_account(workspace, account) == {}
    assert account.money is not None
    assert float(account.money.accepted) == pytest.approx(revenue)


@pytest.mark.parametrize(("written", "amounts"), [
    (["1.413,50", "12,5", "-1.234.567,89", "1.413", "1,413"], [1413.5, 12.5, -1234567.89, None, None]),
    (["1,413.50", "1,413", "-1,234,567", "1.413"], [1413.5, 1413, -1234567, 1.413]),
    (["1,413.50", "1.413,50", "12,50", "1,413", "1.413"], [1413.5, 1413.5, 12.5, None, None]),
    (["EUR 1.413,50", "12,50 €", "1 413,50", "1'413,50", "12,50 -", "12,50 kr"],
     [1413.5, 12.5, 1413.5, 1413.5, None, None]),
    (["€ 12.50", "€ 1.413", "$ 0.50"], [12.5, None, 0.5]),
])  # fmt: skip
def test_the_mend_of_a_conversion_reads_what_is_written_or_refuses_it(
    written: list[str], amounts: list[float | None]
) -> None:
    """In DuckDB: decimal commas, commas of groups, both, and the currency; plain numbers stay what they are."""
    mend = conversions.reading("price", written, "EUR")
    assert mend
    amounts_read = duckdb.sql(
        f"SELECT {mend} FROM (SELECT unnest(?) AS price)", params=[[*written, "33.54", "-7", "0.125", "12.34567"]]
    ).fetchall()
    assert [amount for (amount,) in amounts_read] == [*amounts, 33.54, -7, 0.125, 12.34567]


def test_amounts_that_can_be_read_in_two_ways_get_no_mend_that_guesses(tmp_path: Path) -> None:
    """`1,234` alone is a thousand or one: the remark leads to the page that tells how to say which."""
    lines = clean(3, 200)[["transaction_id", "customer_id", "occurred_at", "amount"]]
    large = np.arange(len(lines)) % 50 == 0
    text = lines.assign(amount=lines["amount"].astype(str).mask(large, "1,234")).to_csv(index=False)
    remark = of_money(tmp_path, text)["amounts lost to a conversion"]
    assert "can be read in two ways" in remark.do
    assert "docs/tables.md" in remark.do
    assert "CAST" not in remark.do


def test_the_mend_of_decimal_commas_brings_back_what_was_lost(tmp_path: Path) -> None:
    """As an amount that is a column, is cast, or is a price times a quantity: the sum is what was sold."""
    lines = clean(3, 200)[["transaction_id", "customer_id", "occurred_at", "amount"]].assign(n=2)
    large = np.arange(len(lines)) % 150 == 0
    lines["amount"] = lines["amount"].abs().clip(upper=900).mask(large, 1413.5)
    text = lines.assign(amount=lines["amount"].astype(str).mask(large, "1.413,50")).to_csv(index=False)
    for number, (expression, times) in enumerate(
        [("amount", 1), ("TRY_CAST(amount AS DOUBLE)", 1), ("TRY_CAST(amount AS DOUBLE) * n", 2)]
    ):
        remark = of_money(tmp_path / f"{number}", text, columns={"amount": expression})["amounts lost to a conversion"]
        mend = remark.do.split("`: ")[1] + " * n" * (times - 1)
        workspace, account = taken_in(tmp_path / f"{number}m", text, columns={"amount": mend}, duplicates="keep")
        assert of_account(workspace, account) == {}
        assert account.money is not None
        assert float(account.money.accepted) == pytest.approx(times * lines["amount"].sum())


def test_discounts_and_refunds_that_nothing_reads_are_told(tmp_path: Path) -> None:
    """Of a column that is repeated on each line of an order, and of one on the first line; not once they are read."""
    lines = clean(4, 200)
    first = ~lines["transaction_id"].duplicated()
    per_order = lines["transaction_id"].map(lines[first].set_index("transaction_id")["amount"].abs() * 0.1)
    lines = lines.assign(
        order_discount=per_order.round(2), refunded_amount=np.where(first & (lines.index % 9 == 0), 7.5, 0.0),
        discount_code="SPRING", discount_pct=0.1, tax_amount=3.0,
    )  # fmt: skip
    remark = of_money(tmp_path / "unread", lines)["discounts or refunds not read"]
    given = lines["order_discount"][first].sum(), lines["refunded_amount"].sum()
    assert f"`order_discount` {given[0]:,.2f}, `refunded_amount` {given[1]:,.2f}" in remark.says
    assert "discount_code" not in str(remark)
    net = "amount - order_discount / count(*) OVER (PARTITION BY transaction_id)"
    assert of_money(tmp_path / "read", lines, columns={"amount": net, "discount": "refunded_amount"}) == {}


def test_returns_that_the_filter_drops_are_told_in_money(tmp_path: Path) -> None:
    """Where rows below 0 are not read, value is of what was sold, not of what was kept."""
    lines = clean(5, 200)
    remark = of_money(tmp_path, lines, where="amount > 0")["returns left out"]
    dropped = lines["amount"][lines["amount"] <= 0].sum()
    assert f"{dropped:,.2f} EUR, {-dropped / lines['amount'].clip(lower=0).sum():.1%} of the revenue" in remark.says


def test_revenue_in_quarantine_is_told_where_rows_are_few(tmp_path: Path) -> None:
    """Half a per cent of the rows, without a time, is a tenth of the revenue; rows that are there twice are no loss."""
    lines = clean(6, 200)
    lines = lines[lines["amount"] > 0].reset_index(drop=True)
    lost = lines.index % 200 == 0
    lines["amount"] = lines["amount"].mask(lost, 0.1 / 0.9 * lines["amount"][~lost].sum() / lost.sum())
    lines["occurred_at"] = lines["occurred_at"].mask(lost)
    twice = pd.concat([lines, lines[~lost].head(1000)], ignore_index=True)
    remark = of_money(tmp_path, twice)["revenue in quarantine"]
    assert "10% of the revenue, cannot be used" in remark.says
    assert "duplicate" not in remark.says


def test_amended_orders_are_told(tmp_path: Path) -> None:
    """An order that a later export tells with another amount counts twice, in rows and money; replaced, once."""
    lines = clean(7, 200)[["transaction_id", "customer_id", "occurred_at", "amount"]]
    lines = lines[lines["amount"] > 0]
    again = lines[lines["transaction_id"].isin(lines["transaction_id"].unique()[:200])].copy()
    for name, rows in (("a", lines), ("b", again.assign(amount=again["amount"] + 1000))):
        rows.to_csv(tmp_path / f"{name}.csv", index=False)
    table = {"path": [str(tmp_path / "a.csv"), str(tmp_path / "b.csv")]}

    def of(folder: str, **more: Any) -> dict[str, Remark]:
        workspace = settings.read(write_workspace(tmp_path / folder, table | more))
        return of_account(workspace, intake.ingest(workspace, NOW)[0])

    remark = of("adds")["orders that come again"]
    assert "200 transaction_ids come again in a later source with other lines" in remark.says
    assert f" lines of the earlier sources, {again['amount'].sum():,.2f} EUR, count as well" in remark.says
    assert "orders that come again" not in of("replaces", revision="replace")


def test_sufficient_never_stands_alone_where_numbers_are_in_doubt(tmp_path: Path) -> None:
    """The head line of text, page and JSON names what puts each model in doubt; money is in both, as rows are."""
    spoilt = one_customer(0.4)(clean(8), np.random.default_rng(8))
    workspace, account = taken_in(tmp_path, spoilt.drop(columns="product_id"))
    checked = data_check.check(workspace, [account], TODAY)
    assert checked.suffices
    text, page, data = data_report.as_text(checked), data_report.as_html(checked), data_report.as_data(checked)
    assert "1 remark puts the numbers in doubt" in text
    assert "lifetime value: sufficient, but in doubt (one customer with much revenue): " in text
    assert "churn: sufficient: " in text
    assert "  ! transactions: customer `c" in text
    assert "Churn: sufficient; lifetime value: sufficient, but in doubt; cross-sell: insufficient." in page
    assert f"in EUR: {account.money}" in text
    assert f"in EUR: {account.money}" in page
    assert data["doubts"] == {"churn": (), "lifetime_value": ("one customer with much revenue",), "cross_sell": ()}


def test_the_page_of_remarks_lists_every_one() -> None:
    """docs/data_check.md has a line for each remark that the code can make."""
    told = (CONFIGS.parent / "docs" / "data_check.md").read_text()
    code = "".join(path.read_text() for path in (CONFIGS.parent / "training").rglob("*.py"))
    names = set(re.findall(r'Remark\(\s*"([^"]+)"', code))
    assert len(names) > 25
    assert {name for name in names if f"| {name} |" not in told} == set()


REAL: dict[str, tuple[date, set[str]]] = {
    # Who buys a bicycle comes back for the next one after a year or two; from 2013 on it sells more than bicycles.
    "adventure_works": (date(2014, 1, 29), {"comers-back called gone", "sudden changes"}),
    # New customers in its first three months only: the lines fall off when they stop coming.
    "cdnow": (date(1998, 7, 1), {"sudden changes"}),
    # Demographics are of a third of the households; coupons come with campaigns.
    "complete_journey": (date(2018, 1, 1), {"ids are not in another table", "sudden changes"}),
    # A contract has one line, its first; what is known of when is its month.
    "ibm_telco": (date(2019, 10, 1), {"no purchase of late", "sudden changes"}),
    # Two orders of 77,184 and 38,970 GBP, each cancelled within minutes, where the median line is 12.50.
    "online_retail": (date(2011, 9, 1), {"amount out of proportion"}),
}


@pytest.mark.parametrize("name", REAL)
def test_the_real_sets_get_the_remarks_that_are_true(name: str, tmp_path: Path) -> None:
    """Each was held against the data; any other is a false alarm."""
    folder = {"adventure_works": "adventureworks_dw", "complete_journey": "completejourney_partial",
              "ibm_telco": "ibm_telco_churn", "online_retail": "online_retail_ii"}.get(name, name)  # fmt: skip
    dataset(folder)
    as_of, expected = REAL[name]
    workspace = settings.read(CONFIGS / f"{name}.yaml", home=tmp_path)
    checked = data_check.check(workspace, intake.ingest(workspace, NOW), as_of)
    assert {remark.name for remark in checked.remarks} == expected
