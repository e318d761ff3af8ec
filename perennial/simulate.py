"""A shop that does not exist, whose customers' intentions are known: input tables, and beside them the truth.

`simulate` plays the shop day by day and writes the input tables of DESIGN section 3; `truth` answers, from the latent
parameters it keeps under `OUT/truth/`, what a perfect forecaster would say on any date. The process and its equations
are in docs/simulate.md. A day is a UTC day, numbered from 1970-01-01 as numpy does.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

BLOCK = 20_000  # customers drawn together and written as one part: bounds memory, and is part of what a seed means
NEVER = 2**31 - 1  # a day that does not come
DAY = 86_400_000_000  # microseconds
TABLES = ("transactions", "interactions", "customers.parquet", "products.parquet", "campaigns.parquet", "truth")

# Moods. Engaged customers cool, cooling ones leave; nobody comes back.
ENGAGED, COOLING, GONE, ABSENT = range(4)
PACE = np.array([1.0, 0.2, 0.0, 0.0])  # of purchasing, by mood
BROWSING = (1.0, 0.5, 0.2)  # of browsing: engaged, cooling, gone
OPENING = (0.25, 0.18, 0.10)  # share of e-mails opened: engaged, cooling, gone

PURCHASE_RATE, PURCHASE_SHAPE = 14 / 365, 0.8  # per day while engaged; gamma shape of its spread
COOLING_RATE, COOLING_SHAPE = 0.35 / 365, 0.8
LEAVING_NIGHT = 1 / 200  # probability per night, once cooling
REGULAR_SHARE, REGULAR_STEPS = 0.35, 3  # regular buyers take three steps to a purchase, the others one
EXISTING_SHARE, FIRST_ORDER_SHARE = 0.40, 0.85  # signed up before the records begin; of the others, order on sign-up

OUTCOMES = ("fine", "failed, silent", "failed, resolved", "failed, resolved late", "failed, unresolved")
FINE, SILENT, RESOLVED, LATE, UNRESOLVED = range(5)
FAILED_SHARES = np.array([0.35, 0.30, 0.20, 0.15])  # of the four ways to fail
LEAVE = np.array([0.002, 0.20, 0.06, 0.35, 0.60])  # probability that an order so ended was the last

CONTACT_EVERY, CONTACT_DAYS, NEWSLETTER_EVERY = 45, 28, 60  # days; contacts never overlap
CONTACTED_SHARE, CONTROL_SHARE = 0.20, 0.05  # of the customers who may be contacted
COUPON_SHARE, COUPON = 0.35, 0.10  # of the orders under a contact, and what it takes off
DISCOUNTS, DISCOUNT_SHARES = np.array([0.1, 0.2, 0.3]), np.array([0.5, 0.3, 0.2])
RETURN_AFTER_FAILURE, RETURN_FIRST, RETURN_LAST = 0.5, 3, 30  # a line comes back 3..30 days after, each as likely
FAVOURITE_SHARE, COMPANION_SHARE = 0.35, 0.45  # of lines; of the lines after a basket's first
DIRTY_SHARE = 0.0005  # of rows, for each kind of dirt

CATEGORIES = ("bakery", "books", "clothing", "coffee", "garden", "gifts", "health", "kitchen", "pets", "sports", "tea",
              "toys")  # fmt: skip
PRODUCTS_PER_CATEGORY = (30, 60, 48, 24, 32, 40, 34, 36, 20, 28, 18, 30)
CATEGORY_PRICES = (5, 11, 28, 9, 18, 14, 12, 22, 10, 30, 8, 16)
BRANDS = ("Alder", "Birch", "Cedar", "Fern", "Hazel", "Linden", "Maple", "Rowan")
WEEK = np.array([0.85, 0.85, 0.9, 1.0, 1.2, 1.35, 0.85])  # Monday first
HOURS = np.array([0, 0, 0, 0, 0, 0, 1, 2, 4, 6, 7, 7, 8, 7, 6, 6, 7, 8, 9, 10, 9, 6, 3, 1]).cumsum() / 107

REGIONS = ("North", "South", "East", "West", "Islands")
REGION_SHARES = np.array([0.25, 0.30, 0.20, 0.18, 0.07])
REGION_RATE = np.array([0.0, 0.15, -0.1, 0.05, -0.35])  # on the log purchase rate
REGION_FAILURE = np.array([0.8, 0.7, 1.0, 1.1, 3.0])  # times the failure probability
CITIES = ("Northam", "Southbridge", "Eastley", "Westport", "Islay")
ACQUISITIONS = ("search", "referral", "social", "store", "paid_ads", "marketplace")
ACQUISITION_SHARES = np.array([0.28, 0.15, 0.17, 0.14, 0.16, 0.10])
ACQUISITION_RATE = np.array([0.0, 0.25, -0.1, 0.1, -0.25, -0.15])  # on the log purchase rate
ACQUISITION_COOLING = np.array([0.0, -0.6, 0.3, -0.3, 0.7, 0.5])  # on the log cooling rate
STORE = ACQUISITIONS.index("store")
CHANNELS = ("web", "app", "store", "email", "phone", "post")
WEB, APP, IN_STORE, EMAIL, PHONE, POST = range(6)
FIRST_NAMES = ("Ada", "Ben", "Chloe", "Dev", "Elif", "Femi", "Grace", "Hugo", "Ines", "Jun", "Kofi", "Lena", "Mara",
               "Nils", "Olga", "Priya", "Quinn", "Rosa", "Sven", "Zoë")  # fmt: skip
LAST_NAMES = ("Adeyemi", "Brown", "Costa", "Dubois", "Evans", "Fischer", "García", "Haddad", "Ito", "Jansen", "Kaya",
              "Larsen", "Moreau", "Novak", "O'Neill", "Patel", "Rossi", "Smith", "Tanaka", "Wang")  # fmt: skip
FORMULA_SIGNS = ("", "=", "+", "-", "@")  # what a spreadsheet takes for a formula

MEDIA = (EMAIL, POST, PHONE)  # of the campaigns, in turn
UTC_TIME = pa.timestamp("us", tz="UTC")
DIRT = ("no customer_id", "no occurred_at", "future occurred_at", "duplicate", "unknown customer", "absurd amount")
CUSTOMERS = pa.schema([
    ("customer_id", pa.string()), ("signed_up_at", UTC_TIME), ("marketing_consent", pa.bool_()),
    ("profiling_consent", pa.bool_()), ("consent_recorded_at", UTC_TIME), ("region", pa.string()), ("age", pa.int64()),
    ("acquisition_channel", pa.string()), ("name", pa.string()),
])  # fmt: skip
TRUTH_TABLES = ("customers", "orders", "steps", "assignments")
LATENT = ("purchase_rate", "steps", "initial_phase", "cooling", "failure", "leaving", "returning", "return_probability",
          "satisfaction", "contact_effect")  # fmt: skip


def _say_nothing(_: str) -> None:
    """The default `progress`."""


def simulate(
    out: Path,
    customers: int,
    years: float,
    seed: int,
    ends: date = date(2025, 1, 1),
    lines_per_purchase: float = 3.5,
    progress: Callable[[str], None] = _say_nothing,
) -> None:
    """Write `years` of a shop with this many customers, up to the midnight (UTC) at which `ends` begins.

    `out` then holds `transactions/` and `interactions/` (one part per 20,000 customers), `customers.parquet`,
    `products.parquet`, `campaigns.parquet` and `truth/`. The same arguments give the same bytes. `lines_per_purchase`
    is the mean before a product drawn twice becomes one line. An earlier simulation in `out` is replaced; any other
    content raises a ValueError, as do arguments that make no shop. Nothing is left behind if it fails.
    """
    _check(customers, years, seed, ends, lines_per_purchase)
    starts = ends - timedelta(max(1, round(365.25 * years)))
    settings = {"customers": customers, "years": years, "seed": seed, "starts": starts.isoformat(),
                "ends": ends.isoformat(), "lines_per_purchase": lines_per_purchase}  # fmt: skip
    with _replacing(out) as folder:
        for name in ("transactions", "interactions", *(f"truth/{name}" for name in TRUTH_TABLES)):
            (folder / name).mkdir(parents=True)
        (folder / "truth/simulation.json").write_text(json.dumps(settings, indent=2) + "\n")
        shop = _shop(seed, _number(starts), _number(ends))
        _write(folder / "products.parquet", _products_table(shop))
        _write(folder / "campaigns.parquet", _campaigns_table(shop))
        _write_blocks(folder, shop, customers, seed, lines_per_purchase, progress)


def _check(customers: int, years: float, seed: int, ends: date, lines_per_purchase: float) -> None:
    if customers < 1:
        raise ValueError(f"customers is {customers}; a shop needs at least 1")
    if not 0 < years <= 50:
        raise ValueError(f"years is {years}; it must be more than 0 and at most 50")
    if not 1975 + years <= ends.year < 2100:  # sign-ups go back three years more; rows dated 2100 are in the future
        raise ValueError(f"ends is {ends}; with {years} years it must lie between {1975 + years:.0f} and 2099")
    if seed < 0:
        raise ValueError(f"seed is {seed}; it must be 0 or more")
    if not 1 <= lines_per_purchase <= 100:
        raise ValueError(f"lines_per_purchase is {lines_per_purchase}; it must be between 1 and 100")


@contextmanager
def _replacing(out: Path) -> Iterator[Path]:
    """A new sibling folder that becomes `out` when the block ends well, and disappears when it does not."""
    out = out.resolve()
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file; give a folder that is new or empty")
    present = {path.name for path in out.iterdir()} if out.exists() else set()
    ours = present <= {*TABLES} and (out / "truth/simulation.json").exists()
    if present and not ours:
        found = ", ".join(sorted(present - {*TABLES} or present)[:5])
        raise ValueError(f"{out} holds what no simulation wrote ({found}); give a new or empty folder, or clear it")
    partial, former = (out.with_name(f".{out.name}.{word}-{os.getpid()}") for word in ("partial", "former"))
    try:
        partial.mkdir(parents=True)
        yield partial
        if present:
            out.rename(former)
        partial.rename(out)
        shutil.rmtree(former, ignore_errors=True)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write_blocks(
    folder: Path, shop: "_Shop", customers: int, seed: int, lines_per_purchase: float, progress: Callable[[str], None]
) -> None:
    dirty: list[tuple[str, str, int]] = []
    n_lines = n_interactions = 0
    with pq.ParquetWriter(folder / "customers.parquet", CUSTOMERS, compression="zstd") as writer:
        for part, first in enumerate(range(0, customers, BLOCK)):
            rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(part,)))
            block = _block(rng, shop, first, min(BLOCK, customers - first), lines_per_purchase)
            writer.write_table(_customers_table(block).cast(CUSTOMERS))
            transactions, dirt = _soil(rng, block, _transactions_table(rng, block))
            dirty += [("transactions", *kind) for kind in dirt]
            interactions, dirt = _soil(rng, block, _interactions_table(rng, block))
            dirty += [("interactions", *kind) for kind in dirt]
            tables = {"transactions": transactions, "interactions": interactions, **_truth_tables(block)}
            for name, table in tables.items():
                _write(folder / name / f"part-{part:05}.parquet", table)
            n_lines, n_interactions = n_lines + len(transactions), n_interactions + len(interactions)
            progress(f"{first + len(block.customers.joined):,} of {customers:,} customers, "
                     f"{n_lines:,} transaction lines, {n_interactions:,} interactions")  # fmt: skip
    rows = pd.DataFrame(dirty, columns=["table", "reason", "rows"]).groupby(["table", "reason"], as_index=False).sum()
    rows.to_parquet(folder / "truth/dirty_rows.parquet", index=False)


# --- The shop: its calendar, its products, its campaigns ------------------------------------------


@dataclass(frozen=True)
class _Shop:
    """What all customers share. Products are numbered category by category."""

    start: int
    end: int
    campaigns: Ints  # the days contacts are made
    newsletters: Ints  # the days they are sent
    category: Ints  # per product
    price: Floats  # per product
    unit_cost: Floats  # per product
    brand: Ints  # per product
    popularity: Floats  # category x rank within it: share of what the category sells
    first_product: Ints  # per category
    companions: Floats  # category x category: what else goes into a basket that began with the row's
    types: Floats  # latent type x category: mean tastes


def _number(day: date) -> int:
    return (day - date(1970, 1, 1)).days


def _season(days: Ints) -> Floats:
    """How busy each day is; 1 on average over a year. A winter peak around 11 December times a weekly pattern."""
    dates = days.astype("datetime64[D]")
    day_of_year = (dates - dates.astype("datetime64[Y]").astype("datetime64[D]")).astype(np.int64)
    from_peak = np.abs(day_of_year - 345)
    from_peak = np.minimum(from_peak, 365 - from_peak)
    winter = 0.9 + 0.15 * np.cos(2 * np.pi * from_peak / 365) + 1.1 * np.exp(-((from_peak / 18) ** 2))
    return winter * WEEK[(days + 3) % 7]  # 1970-01-01 was a Thursday


def _campaign_on(days: Ints, campaigns: Ints) -> Ints:
    """The campaign whose contacts are in effect on each day (the 28 days after them), or -1."""
    latest = np.searchsorted(campaigns, days) - 1
    in_effect = (latest >= 0) & (days <= campaigns[np.maximum(latest, 0)] + CONTACT_DAYS) if len(campaigns) else False
    return np.where(in_effect, latest, -1)


def _campaign_days(start: int, end: int) -> Ints:
    return np.arange(start + 40, end, CONTACT_EVERY)


def _shop(seed: int, start: int, end: int) -> _Shop:
    rng = np.random.default_rng(np.random.SeedSequence(seed))
    sizes = np.array(PRODUCTS_PER_CATEGORY)
    category = np.repeat(np.arange(len(sizes)), sizes)
    price = np.round(np.array(CATEGORY_PRICES)[category] * np.exp(0.45 * rng.standard_normal(len(category))), 2)
    ranks = np.arange(1, sizes.max() + 1)
    popularity = np.where(ranks <= sizes[:, None], ranks**-0.8, 0.0)
    return _Shop(
        start=start,
        end=end,
        campaigns=_campaign_days(start, end),
        newsletters=np.arange(start + 15, end, NEWSLETTER_EVERY),
        category=category,
        price=price,
        unit_cost=np.round(price * rng.uniform(0.45, 0.75, len(category)), 2),
        brand=rng.integers(len(BRANDS), size=len(category)),
        popularity=popularity / popularity.sum(axis=1, keepdims=True),
        first_product=np.concatenate([[0], sizes.cumsum()[:-1]]),
        companions=rng.dirichlet(np.full(len(sizes), 0.3), size=len(sizes)),
        types=rng.dirichlet(np.full(len(sizes), 0.35), size=6),
    )


def _cumulative(weights: Floats) -> Floats:
    """Row-wise cumulative probabilities, ending in exactly 1."""
    sums = weights.cumsum(axis=1)
    return sums / sums[:, -1:]


def _choose(rng: np.random.Generator, cumulative: Floats, rows: Ints) -> Ints:
    """One column per entry of `rows`, drawn from that row's cumulative probabilities."""
    height, width = cumulative.shape
    ladder = (cumulative + np.arange(height)[:, None]).ravel()  # ascending: one search serves all rows
    found = np.searchsorted(ladder, rows + rng.random(len(rows)), side="right") - width * rows
    return np.minimum(found, width - 1)


# --- Customers: what they are, and what they are like ---------------------------------------------


@dataclass(frozen=True)
class _Customers:
    """One entry per customer of a block. Rates are per day; probabilities are per order unless said otherwise."""

    first: int  # number of the first customer
    region: Ints
    age: Ints
    age_told: Bools
    acquisition: Ints
    name: Ints
    marketing_consent: Bools
    profiling_consent: Bools
    joined: Ints  # day of sign-up
    satisfaction: Floats  # standard normal
    purchase_rate: Floats  # while engaged, in an average season
    steps: Ints  # to a purchase: 1 buys at random, 3 more regularly
    initial_phase: Ints  # steps already made when the records begin
    cooling: Floats  # probability per night
    failure: Floats
    returning: Floats  # per line of an order that did not fail
    contact_effect: Floats  # relative change of the purchase rate under a contact
    deal_share: Floats  # of lines bought at a discount
    extra_lines: Floats  # mean lines after a basket's first
    extra_quantity: Floats  # mean units after a line's first
    browsing_rate: Floats
    app: Floats  # share of orders by app
    tastes: Floats  # customer x category
    favourites: Ints  # customer x category: a product

    @property
    def leaving(self) -> Floats:
        """Probability that an order is the last because of how it ended."""
        return (1 - self.failure) * LEAVE[FINE] + self.failure * (FAILED_SHARES @ LEAVE[SILENT:])

    @property
    def return_probability(self) -> Floats:
        return (1 - self.failure) * self.returning + self.failure * RETURN_AFTER_FAILURE


def _customers(rng: np.random.Generator, shop: _Shop, first: int, n: int, lines_per_purchase: float) -> _Customers:
    region = rng.choice(len(REGIONS), n, p=REGION_SHARES)
    acquisition = rng.choice(len(ACQUISITIONS), n, p=ACQUISITION_SHARES)
    age = np.clip(rng.normal(46, 15, n), 18, 90).astype(np.int64)
    satisfaction = rng.standard_normal(n)
    regular = rng.random(n) < REGULAR_SHARE + 0.004 * (age - 46)
    joined = _sign_up_days(rng, shop, n)
    steps = np.where(regular, REGULAR_STEPS, 1)
    appeal = REGION_RATE[region] + ACQUISITION_RATE[acquisition] - 0.15 * ((age - 48) / 15) ** 2
    unease = ACQUISITION_COOLING[acquisition] - 0.45 * satisfaction - 0.12 * (age - 46) / 15
    concentration = 3.5 * shop.types[rng.integers(len(shop.types), size=n)] + 0.06
    tastes = np.maximum(rng.standard_gamma(concentration), 1e-9)
    return _Customers(
        first=first,
        region=region,
        age=age,
        age_told=rng.random(n) < 0.93,
        acquisition=acquisition,
        name=_names(rng, first, n),
        marketing_consent=rng.random(n) < 0.78,
        profiling_consent=rng.random(n) < 0.94,
        joined=joined,
        satisfaction=satisfaction,
        purchase_rate=PURCHASE_RATE * rng.gamma(PURCHASE_SHAPE, 1 / PURCHASE_SHAPE, n) * np.exp(appeal),
        steps=steps,
        initial_phase=np.where(joined < shop.start, rng.integers(REGULAR_STEPS, size=n) % steps, 0),
        cooling=-np.expm1(-COOLING_RATE * rng.gamma(COOLING_SHAPE, 1 / COOLING_SHAPE, n) * np.exp(unease)),
        failure=np.minimum(rng.beta(2, 33, n) * REGION_FAILURE[region], 0.6),
        returning=rng.beta(1.5, 35, n),
        contact_effect=np.clip(0.35 - 0.3 * (age - 46) / 15 + 0.3 * rng.standard_normal(n), -0.6, 1.5),
        deal_share=rng.beta(1.5, 4, n),
        extra_lines=(lines_per_purchase - 1) * rng.gamma(3, 1 / 3, n),
        extra_quantity=0.4 * rng.gamma(1.0, 1.0, n),
        browsing_rate=5 / 365 * rng.gamma(1.5, 1 / 1.5, n),
        app=rng.beta(1.2, 2.5, n) * (age < 65),
        tastes=tastes / tastes.sum(axis=1, keepdims=True),
        favourites=_favourites(rng, shop, n),
    )


def _sign_up_days(rng: np.random.Generator, shop: _Shop, n: int) -> Ints:
    """Some signed up in the three years before the records begin, the others with the season."""
    before = shop.start - 1 - rng.integers(3 * 365, size=n)
    crowd = _season(np.arange(shop.start, shop.end)).cumsum()
    during = shop.start + np.searchsorted(crowd, rng.random(n) * crowd[-1], side="right")
    return np.where(rng.random(n) < EXISTING_SHARE, before, during)


def _names(rng: np.random.Generator, first: int, n: int) -> Ints:
    """Numbers of names; every fiftieth begins with a formula sign, as careless or hostile input does."""
    number = first + np.arange(n)
    sign = np.where(number % 50 == 7, 1 + number // 50 % 4, 0)
    return sign * len(FIRST_NAMES) * len(LAST_NAMES) + rng.integers(len(FIRST_NAMES) * len(LAST_NAMES), size=n)


def _favourites(rng: np.random.Generator, shop: _Shop, n: int) -> Ints:
    """Each customer's product of choice in each category."""
    categories = np.tile(np.arange(len(CATEGORIES)), n)
    return _products_of(rng, shop, categories).reshape(n, len(CATEGORIES))


def _products_of(rng: np.random.Generator, shop: _Shop, categories: Ints) -> Ints:
    """A product of each category, by popularity."""
    return shop.first_product[categories] + _choose(rng, _cumulative(shop.popularity), categories)


# --- Their lives, day by day ----------------------------------------------------------------------


@dataclass(frozen=True)
class _Assignments:
    """Who was drawn for each campaign: customer x campaign."""

    contacted: Bools
    control: Bools


def _assignments(rng: np.random.Generator, shop: _Shop, customers: _Customers) -> _Assignments:
    """Chance alone decides, among the consenting customers who had signed up."""
    draw = rng.random((len(customers.joined), len(shop.campaigns)))
    eligible = customers.marketing_consent[:, None] & (customers.joined[:, None] < shop.campaigns)
    contacted = eligible & (draw < CONTACTED_SHARE)
    return _Assignments(contacted, eligible & ~contacted & (draw < CONTACTED_SHARE + CONTROL_SHARE))


@dataclass(frozen=True)
class _Orders:
    """One entry per order, by customer and day."""

    customer: Ints
    day: Ints
    outcome: Ints
    exposed: Bools  # under the effect of a contact


@dataclass(frozen=True)
class _Lives:
    orders: _Orders
    step_customer: Ints  # steps of regular buyers: a third of them were orders
    step_day: Ints
    cooled: Ints  # first day of cooling, or NEVER (within the records)
    left: Ints  # first day gone, or NEVER


def _live(rng: np.random.Generator, shop: _Shop, customers: _Customers, contacted: Bools) -> _Lives:
    """Play every day for all customers at once."""
    days = np.arange(shop.start, shop.end)
    mood = np.where(customers.joined < shop.start, ENGAGED, ABSENT)
    phase = customers.initial_phase.copy()
    cooled, left = np.full(len(mood), NEVER), np.full(len(mood), NEVER)
    orders: list[_Orders] = []
    regular_steps: list[tuple[Ints, Ints]] = []
    for day, season, campaign in zip(days, _season(days), _campaign_on(days, shop.campaigns), strict=True):
        exposed = contacted[:, campaign] if campaign >= 0 else np.zeros(len(mood), dtype=bool)
        stepped = np.flatnonzero(rng.random(len(mood)) < _step_probability(customers, mood, season, exposed))
        phase[stepped] = (phase[stepped] + 1) % customers.steps[stepped]
        newcomers = np.flatnonzero(customers.joined == day)
        first_orders = newcomers[rng.random(len(newcomers)) < FIRST_ORDER_SHARE]
        buyers = np.concatenate([stepped[phase[stepped] == 0], first_orders])
        outcome = _outcomes(rng, customers.failure[buyers])
        orders.append(_Orders(buyers, np.full(len(buyers), day), outcome, exposed[buyers]))
        regular = stepped[customers.steps[stepped] > 1]
        regular_steps.append((regular, np.full(len(regular), day)))
        before = mood.copy()
        _overnight(rng, mood, customers.cooling)
        mood[newcomers] = ENGAGED
        mood[buyers[rng.random(len(buyers)) < LEAVE[outcome]]] = GONE
        cooled[(mood == COOLING) & (before == ENGAGED)] = day + 1
        left[(mood == GONE) & (before != GONE)] = day + 1
    return _Lives(_by_customer(orders), *_pairs(regular_steps), cooled, left)


def _step_probability(customers: _Customers, mood: Ints, season: float, exposed: Bools) -> Floats:
    """Probability that each customer takes a step today; at most one a day, so orders and purchase days agree."""
    rate = customers.purchase_rate * customers.steps * PACE[mood] * season
    return -np.expm1(-rate * np.where(exposed, 1 + customers.contact_effect, 1.0))


def _overnight(rng: np.random.Generator, mood: Ints, cooling: Floats) -> None:
    """Some of the engaged cool and some of those already cooling leave, in place."""
    draw = rng.random(len(mood))
    leave = (mood == COOLING) & (draw < LEAVING_NIGHT)
    mood[(mood == ENGAGED) & (draw < cooling)] = COOLING
    mood[leave] = GONE


def _outcomes(rng: np.random.Generator, failure: Floats) -> Ints:
    ways = 1 + np.searchsorted(FAILED_SHARES.cumsum()[:-1], rng.random(len(failure)), side="right")
    return np.where(rng.random(len(failure)) < failure, ways, FINE)


def _pairs(days: list[tuple[Ints, Ints]]) -> tuple[Ints, Ints]:
    customers, numbers = zip(*days, strict=True)
    return np.concatenate(customers), np.concatenate(numbers)


def _by_customer(days: list[_Orders]) -> _Orders:
    orders = _Orders(*(np.concatenate([getattr(day, field.name) for day in days]) for field in fields(_Orders)))
    order = np.argsort(orders.customer, kind="stable")
    return _Orders(*(getattr(orders, field.name)[order] for field in fields(_Orders)))


# --- What they put into their baskets, and what comes back ----------------------------------------


@dataclass(frozen=True)
class _Lines:
    """One entry per order and product."""

    order: Ints
    product: Ints
    quantity: Ints
    amount: Floats
    discount: Floats  # taken off, in currency
    returned_after: Ints  # days; 0 where it is kept


def _lines(rng: np.random.Generator, shop: _Shop, customers: _Customers, orders: _Orders, coupon: Bools) -> _Lines:
    extra = rng.poisson(customers.extra_lines[orders.customer])
    order = np.repeat(np.arange(len(extra)), 1 + extra)
    customer = orders.customer[order]
    product = _basket(rng, shop, customers, customer, order, np.cumsum(1 + extra) - 1 - extra)
    quantity = 1 + rng.poisson(customers.extra_quantity[customer])
    off = np.where(rng.random(len(order)) < customers.deal_share[customer],
                   rng.choice(DISCOUNTS, len(order), p=DISCOUNT_SHARES), 0.0)  # fmt: skip
    gross: Floats = quantity * shop.price[product]
    amount: Floats = np.round(gross * (1 - off) * (1 - COUPON * coupon[order]), 2)
    # The same product drawn twice becomes one line: identical lines of one order would look like an error.
    pairs, line = np.unique(order * len(shop.price) + product, return_inverse=True)
    order, product = np.divmod(pairs, len(shop.price))
    amount, gross = _sums(line, amount), _sums(line, gross)
    comes_back = np.where(orders.outcome == FINE, customers.returning[orders.customer], RETURN_AFTER_FAILURE)[order]
    delay = rng.integers(RETURN_FIRST, RETURN_LAST + 1, len(order))
    return _Lines(
        order=order,
        product=product,
        quantity=np.bincount(line, quantity).astype(np.int64),
        amount=amount,
        discount=np.round(gross - amount, 2),
        returned_after=np.where(rng.random(len(order)) < comes_back, delay, 0),
    )


def _sums(line: Ints, amounts: Floats) -> Floats:
    return np.round(np.bincount(line, amounts), 2).astype(float)


def _basket(
    rng: np.random.Generator, shop: _Shop, customers: _Customers, customer: Ints, order: Ints, firsts: Ints
) -> Ints:
    """A product per line; `firsts` are the positions of the orders' first lines, whose companions the others may be."""
    category = _choose(rng, _cumulative(customers.tastes), customer)
    companion = rng.random(len(customer)) < COMPANION_SHARE
    companion[firsts] = False
    opener = category[firsts][order]
    category[companion] = _choose(rng, _cumulative(shop.companions), opener[companion])
    favourite = rng.random(len(customer)) < FAVOURITE_SHARE
    return np.where(favourite, customers.favourites[customer, category], _products_of(rng, shop, category))


@dataclass(frozen=True)
class _Block:
    """Everything about the customers of one part."""

    shop: _Shop
    customers: _Customers
    assignments: _Assignments
    lives: _Lives
    lines: _Lines
    signed_up_at: Ints  # microseconds, as all moments
    ordered_at: Ints
    channel: Ints  # per order
    coupon: Bools  # per order


def _block(rng: np.random.Generator, shop: _Shop, first: int, n: int, lines_per_purchase: float) -> _Block:
    customers = _customers(rng, shop, first, n, lines_per_purchase)
    assignments = _assignments(rng, shop, customers)
    lives = _live(rng, shop, customers, assignments.contacted)
    orders = lives.orders
    ordered_at = _moments(rng, orders.day)
    signed_up_at = _moments(rng, customers.joined)
    first_order = orders.day == customers.joined[orders.customer]
    signed_up_at[orders.customer[first_order]] = ordered_at[first_order] - DAY // 144  # ten minutes
    by_app = rng.random(len(ordered_at)) < customers.app[orders.customer]
    in_store = rng.random(len(ordered_at)) < np.where(customers.acquisition == STORE, 0.7, 0.1)[orders.customer]
    coupon = orders.exposed & (rng.random(len(ordered_at)) < COUPON_SHARE)
    return _Block(
        shop=shop,
        customers=customers,
        assignments=assignments,
        lives=lives,
        lines=_lines(rng, shop, customers, orders, coupon),
        signed_up_at=signed_up_at,
        ordered_at=ordered_at,
        channel=np.where(in_store, IN_STORE, np.where(by_app, APP, WEB)),
        coupon=coupon,
    )


def _moments(rng: np.random.Generator, days: Ints) -> Ints:
    """A second of each day, between 06:00 and midnight."""
    hours = np.searchsorted(HOURS, rng.random(len(days)), side="right")
    return days * DAY + (hours * 3600 + rng.integers(3600, size=len(days))) * 1_000_000


# --- What else they do, and what is done to them --------------------------------------------------


@dataclass(frozen=True)
class _Events:
    """Interactions of one kind; one value may stand for all of them."""

    kind: str
    customer: Ints
    at: Ints
    channel: Ints | int = -1
    product: Ints | int = -1
    campaign: Ints | int = -1  # newsletters are numbered after the campaigns
    value: Floats | float = np.nan
    resolved_at: Ints | int = -1


def _events(rng: np.random.Generator, block: _Block) -> list[_Events]:
    return [
        *_order_events(rng, block),
        *_complaints(rng, block),
        *_browsing(rng, block),
        *_surveys_and_cancellations(rng, block),
        *_newsletters(rng, block),
        *_contacts(rng, block),
    ]


def _some(rng: np.random.Generator, share: Floats | float, n: int) -> Ints:
    """Positions drawn out of `n`, each with probability `share`."""
    return np.flatnonzero(rng.random(n) < share)


def _later(rng: np.random.Generator, at: Ints, first: float, last: float) -> Ints:
    """Between `first` and `last` days after `at`."""
    return at + (rng.uniform(first, last, len(at)) * DAY).astype(np.int64)


def _order_events(rng: np.random.Generator, block: _Block) -> Iterable[_Events]:
    orders, at, n = block.lives.orders, block.ordered_at, len(block.ordered_at)
    first_line = np.searchsorted(block.lines.order, np.arange(n))
    visit, review = _some(rng, 0.6, n), _some(rng, 0.12, n)
    inquiry, call = _some(rng, 0.03, n), _some(rng, 0.02, n)
    reviewer = orders.customer[review]
    rating = 4.0 + 0.6 * block.customers.satisfaction[reviewer] - 2.0 * (orders.outcome[review] != FINE)
    rating = np.clip(np.round(rating + 0.6 * rng.standard_normal(len(review))), 1, 5)
    minutes = np.round(rng.gamma(2, 3, len(call)), 1)
    coupon = np.flatnonzero(block.coupon)
    campaign = _campaign_on(orders.day[coupon], block.shop.campaigns)
    yield _Events("visit", orders.customer[visit], _later(rng, at[visit], -0.03, -0.002), block.channel[visit])
    yield _Events("review", reviewer, _later(rng, at[review], 2, 12), WEB, block.lines.product[first_line[review]],
                  value=rating)  # fmt: skip
    yield _Events("inquiry", orders.customer[inquiry], _later(rng, at[inquiry], -2, 4), EMAIL)
    yield _Events("call", orders.customer[call], _later(rng, at[call], 0.1, 6), PHONE, value=minutes)
    yield _Events("coupon_redeemed", orders.customer[coupon], at[coupon], block.channel[coupon], campaign=campaign)


def _complaints(rng: np.random.Generator, block: _Block) -> Iterable[_Events]:
    """Failed orders are complained about unless borne in silence; a few fine ones too."""
    outcome = block.lives.orders.outcome
    complained = np.flatnonzero((outcome >= RESOLVED) | ((outcome == FINE) & (rng.random(len(outcome)) < 0.006)))
    outcome, at = outcome[complained], _later(rng, block.ordered_at[complained], 0.2, 6)
    resolved_at = np.where(outcome == LATE, _later(rng, at, 8, 25), _later(rng, at, 0.1, 2.5))
    open_still = (outcome == UNRESOLVED) | (resolved_at >= block.shop.end * DAY)
    channel = rng.choice([WEB, EMAIL, PHONE], len(at), p=[0.4, 0.35, 0.25])
    yield _Events("complaint", block.lives.orders.customer[complained], at, channel,
                  resolved_at=np.where(open_still, -1, resolved_at))  # fmt: skip


def _scatter(rng: np.random.Generator, since: Ints, until: Ints, rate: Floats | float) -> tuple[Ints, Ints]:
    """Customers and moments of a Poisson process with a daily `rate` between two days."""
    span = np.maximum(until - since, 0)
    customer = np.repeat(np.arange(len(span)), rng.poisson(rate * span))
    return customer, _moments(rng, since[customer] + (rng.random(len(customer)) * span[customer]).astype(np.int64))


def _browsing(rng: np.random.Generator, block: _Block) -> Iterable[_Events]:
    """Visits that end in no order, with searches and carts; fewer once cooling, fewest once gone."""
    shop, customers, lives = block.shop, block.customers, block.lives
    left = np.minimum(lives.left, shop.end)
    bounds = [np.maximum(customers.joined, shop.start), np.minimum(lives.cooled, left), left,
              np.full(len(left), shop.end)]  # fmt: skip
    for since, until, pace in zip(bounds[:-1], bounds[1:], BROWSING, strict=True):
        customer, at = _scatter(rng, since, until, pace * customers.browsing_rate)
        channel = np.where(rng.random(len(at)) < customers.app[customer], APP, WEB)
        search, cart = _some(rng, 0.3, len(at)), _some(rng, 0.2, len(at))
        product = _products_of(rng, shop, _choose(rng, _cumulative(customers.tastes), customer[cart]))
        yield _Events("visit", customer, at, channel)
        yield _Events("search", customer[search], _later(rng, at[search], 0, 0.003), channel[search])
        yield _Events("cart", customer[cart], _later(rng, at[cart], 0.003, 0.01), channel[cart], product)


def _surveys_and_cancellations(rng: np.random.Generator, block: _Block) -> Iterable[_Events]:
    shop, satisfaction, left = block.shop, block.customers.satisfaction, block.lives.left
    answered, at = _scatter(rng, np.maximum(block.customers.joined, shop.start), np.minimum(left, shop.end), 0.4 / 365)
    score = 7.5 + 1.5 * satisfaction[answered] + 1.2 * rng.standard_normal(len(answered))
    cancelled = np.flatnonzero((left < NEVER) & (rng.random(len(left)) < 0.08))
    yield _Events("survey", answered, at, EMAIL, value=np.clip(np.round(score), 0, 10))
    yield _Events("cancellation", cancelled, _moments(rng, left[cancelled]), WEB)


def _newsletters(rng: np.random.Generator, block: _Block) -> Iterable[_Events]:
    """Sent to every consenting customer; opened more by those still engaged."""
    days, lives = block.shop.newsletters, block.lives
    sent = block.customers.marketing_consent[:, None] & (block.customers.joined[:, None] < days)
    customer, letter = np.nonzero(sent)
    day = days[letter]
    mood = np.where(day >= lives.left[customer], GONE, np.where(day >= lives.cooled[customer], COOLING, ENGAGED))
    at = day * DAY + 9 * DAY // 24
    opened = _some(rng, np.array(OPENING)[mood], len(at))
    opened_at = _later(rng, at[opened], 0.001, 2)
    clicked = _some(rng, 0.2, len(opened))
    campaign = len(block.shop.campaigns) + letter
    yield _Events("email_sent", customer, at, EMAIL, campaign=campaign)
    yield _Events("email_open", customer[opened], opened_at, EMAIL, campaign=campaign[opened])
    yield _Events("email_click", customer[opened][clicked], _later(rng, opened_at[clicked], 0.0001, 0.002), EMAIL,
                  campaign=campaign[opened][clicked])  # fmt: skip


def _contacts(rng: np.random.Generator, block: _Block) -> Iterable[_Events]:
    """The contacted, and as `campaign_control` those left alone by the same draw."""
    days = block.shop.campaigns
    contacted, campaign = np.nonzero(block.assignments.contacted)
    medium = np.array(MEDIA)[campaign % len(MEDIA)]
    yield _Events("campaign_contact", contacted, _moments(rng, days[campaign]), medium, campaign=campaign)
    control, campaign = np.nonzero(block.assignments.control)
    yield _Events("campaign_control", control, _moments(rng, days[campaign]), campaign=campaign)


# --- The tables -----------------------------------------------------------------------------------


def _coded(codes: npt.ArrayLike, names: Iterable[Any]) -> pa.DictionaryArray:
    """Names by number, null where the number is negative; written as plain strings."""
    codes = np.asarray(codes, dtype=np.int32)
    return pa.DictionaryArray.from_arrays(pa.array(codes, mask=codes < 0), pa.array(names))


def _times(moments: Ints) -> pa.Array:
    return pa.array(moments, mask=moments < 0).cast(UTC_TIME)


def _dates(days: Ints) -> pa.Array:
    return pa.array(days.astype(np.int32), mask=days == NEVER).cast(pa.date32())


def _ids(prefix: str, numbers: Ints, digits: int) -> pa.Array:
    padded = pc.utf8_lpad(pc.cast(pa.array(numbers), pa.string()), digits, "0")
    return pc.binary_join_element_wise(prefix, padded, "")


def _customer_ids(customers: _Customers) -> pa.Array:
    return _ids("C", customers.first + np.arange(len(customers.joined)), 8)


def _product_ids(shop: _Shop) -> pa.Array:
    return _ids("P", np.arange(len(shop.price)), 4)


def _campaign_ids(shop: _Shop) -> list[str]:
    return [f"K{n:03}" for n in range(len(shop.campaigns))] + [f"N{n:03}" for n in range(len(shop.newsletters))]


def _write(path: Path, table: pa.Table) -> None:
    # Without Arrow's own schema a reader sees strings, not dictionaries.
    pq.write_table(table, path, compression="zstd", store_schema=False)


def _products_table(shop: _Shop) -> pa.Table:
    rank = np.arange(len(shop.price)) - shop.first_product[shop.category] + 1
    brand, category = np.array(BRANDS)[shop.brand], np.array(CATEGORIES)[shop.category]
    return pa.table({
        "product_id": _product_ids(shop),
        "category": category,
        "name": [f"{b} {c} {r}" for b, c, r in zip(brand, category, rank, strict=True)],
        "brand": brand,
        "list_price": shop.price,
        "unit_cost": shop.unit_cost,
    })  # fmt: skip


def _campaigns_table(shop: _Shop) -> pa.Table:
    coupons, letters = len(shop.campaigns), len(shop.newsletters)
    medium = np.append(np.resize(MEDIA, coupons), np.full(letters, EMAIL))
    starts = np.append(shop.campaigns, shop.newsletters)
    lasts = np.repeat([CONTACT_DAYS + 1, 1], [coupons, letters])
    return pa.table({
        "campaign_id": _campaign_ids(shop),
        "kind": ["coupon"] * coupons + ["newsletter"] * letters,
        "medium": np.array(CHANNELS)[medium],
        "starts_at": _times(starts * DAY),
        "ends_at": _times((starts + lasts) * DAY),
        "fixed_cost": np.repeat([250.0, 80.0], [coupons, letters]),
        "unit_cost": np.choose(medium - EMAIL, [0.002, 1.8, 0.7]),
    })  # fmt: skip


def _customers_table(block: _Block) -> pa.Table:
    customers = block.customers
    names = [f"{sign}{first} {last}" for sign in FORMULA_SIGNS for first in FIRST_NAMES for last in LAST_NAMES]
    return pa.table({
        "customer_id": _customer_ids(customers),
        "signed_up_at": _times(block.signed_up_at),
        "marketing_consent": customers.marketing_consent,
        "profiling_consent": customers.profiling_consent,
        "consent_recorded_at": _times(block.signed_up_at),  # asked as they signed up, and not again
        "region": _coded(customers.region, REGIONS),
        "age": pa.array(customers.age, mask=~customers.age_told),
        "acquisition_channel": _coded(customers.acquisition, ACQUISITIONS),
        "name": _coded(customers.name, names),
    })  # fmt: skip


def _transactions_table(rng: np.random.Generator, block: _Block) -> pa.Table:
    """The lines bought, then the lines brought back before the records end."""
    shop, lines, orders = block.shop, block.lines, block.lives.orders
    back = np.flatnonzero(lines.returned_after)
    back = back[orders.day[lines.order[back]] + lines.returned_after[back] < shop.end]
    sign = np.repeat([1, -1], [len(lines.order), len(back)])
    line = np.append(np.arange(len(lines.order)), back)
    order, product = lines.order[line], lines.product[line]
    returned_at = _moments(rng, orders.day[order[sign < 0]] + lines.returned_after[back])
    occurred_at = np.append(block.ordered_at[lines.order], returned_at)
    numbers = block.customers.first * 10_000 + np.arange(len(orders.day))
    ids = pa.concat_arrays([_ids("T", numbers, 11), _ids("R", numbers, 11)])
    customer, channel = orders.customer[order], block.channel[order]
    quantity = sign * lines.quantity[line]
    return pa.table({
        "transaction_id": _coded(order + np.where(sign < 0, len(numbers), 0), ids),
        "customer_id": _coded(customer, _customer_ids(block.customers)),
        "occurred_at": _times(occurred_at),
        "amount": sign * lines.amount[line],
        "quantity": quantity,
        "product_id": _coded(product, _product_ids(shop)),
        "discount": sign * lines.discount[line],
        "cost": np.round(quantity * shop.unit_cost[product], 2),
        "channel": _coded(channel, CHANNELS),
        "location": _coded(np.where(channel == IN_STORE, block.customers.region[customer], -1), CITIES),
        "recorded_at": _times(_recorded(rng, occurred_at, late=0.03)),
    })  # fmt: skip


def _recorded(rng: np.random.Generator, at: Ints, late: float) -> Ints:
    """Within two minutes, save for a `late` share that took one to nine days."""
    delay = rng.integers(1, 120, len(at)) * 1_000_000
    belated = _some(rng, late, len(at))
    delay[belated] = rng.integers(DAY, 9 * DAY, len(belated))
    return at + delay


def _interactions_table(rng: np.random.Generator, block: _Block) -> pa.Table:
    """Everything that happened before the records end."""
    events = _events(rng, block)
    sizes = [len(event.customer) for event in events]
    at = np.concatenate([event.at for event in events])
    recorded = np.flatnonzero((at >= block.shop.start * DAY) & (at < block.shop.end * DAY))

    def column(name: str) -> npt.NDArray[Any]:
        pieces = (np.broadcast_to(getattr(event, name), size) for event, size in zip(events, sizes, strict=True))
        return np.concatenate(list(pieces))[recorded]

    at, value = at[recorded], column("value")
    kinds = sorted({event.kind for event in events})
    kind = np.repeat([kinds.index(event.kind) for event in events], sizes)[recorded]
    return pa.table({
        "interaction_id": _ids("I", block.customers.first * 10_000 + np.arange(len(at)), 11),
        "customer_id": _coded(column("customer"), _customer_ids(block.customers)),
        "occurred_at": _times(at),
        "kind": _coded(kind, kinds),
        "channel": _coded(column("channel"), CHANNELS),
        "product_id": _coded(column("product"), _product_ids(block.shop)),
        "campaign_id": _coded(column("campaign"), pa.array(_campaign_ids(block.shop), pa.string())),
        "value": pa.array(value, mask=np.isnan(value)),
        "resolved_at": _times(column("resolved_at")),
        "recorded_at": _times(_recorded(rng, at, late=0.01)),
    })  # fmt: skip


def _soil(rng: np.random.Generator, block: _Block, table: pa.Table) -> tuple[pa.Table, list[tuple[str, int]]]:
    """The table with rows added that should be refused, and how many of each kind. No true row is touched."""
    key = table.schema.names[0]
    soiled, counts = [table], []
    for kind, reason in enumerate(DIRT if "amount" in table.schema.names else DIRT[:-1]):
        picked = np.unique(rng.integers(max(len(table), 1), size=rng.binomial(len(table), DIRTY_SHARE)))
        rows = table.take(picked)
        if reason != "duplicate":
            numbers = (block.customers.first * len(DIRT) + kind) * 100_000 + np.arange(len(picked))
            rows = _with(rows, key, _ids("D", numbers, 13))
        soiled.append(_spoiled(rng, rows, reason))
        counts.append((reason, len(picked)))
    return pa.concat_tables(soiled).unify_dictionaries(), counts


def _spoiled(rng: np.random.Generator, rows: pa.Table, reason: str) -> pa.Table:
    n = len(rows)
    match reason:
        case "no customer_id":
            return _with(rows, "customer_id", pa.nulls(n, pa.string()))
        case "unknown customer":
            return _with(rows, "customer_id", _ids("X", rng.integers(10**8, size=n), 8))
        case "no occurred_at":
            return _with(rows, "occurred_at", pa.nulls(n, UTC_TIME))
        case "future occurred_at":
            future = np.datetime64("2100-01-01", "us").astype(np.int64) + rng.integers(50 * 365 * DAY, size=n)
            return _with(rows, "occurred_at", _times(future))
        case "absurd amount":
            return _with(rows, "amount", pa.array(np.round(rng.choice([-1, 1], n) * 10 ** rng.uniform(9.5, 12, n), 2)))
    return rows  # a duplicate is its own defect


def _with(table: pa.Table, name: str, values: pa.Array) -> pa.Table:
    field = table.schema.field(name)
    return table.set_column(table.schema.get_field_index(name), field, values.cast(field.type))


# --- The truth ------------------------------------------------------------------------------------


def _truth_tables(block: _Block) -> dict[str, pa.Table]:
    customers, lives = block.customers, block.lives
    ids = _customer_ids(customers)
    amounts = np.bincount(block.lines.order, block.lines.amount, minlength=len(lives.orders.day))
    assigned, campaign = np.nonzero(block.assignments.contacted | block.assignments.control)
    latent = {name: getattr(customers, name) for name in LATENT}
    return {
        "truth/customers": pa.table({
            "customer_id": ids,
            "joined": _dates(customers.joined),
            **latent,
            "spend_per_order": _spend_per_order(block.shop, customers),
            "cooled": _dates(lives.cooled),
            "left": _dates(lives.left),
            "tastes": _rows(customers.tastes),
            "in_basket": _rows(_in_basket(block.shop, customers)),
        }),
        "truth/orders": pa.table({
            "customer_id": _coded(lives.orders.customer, ids),
            "day": _dates(lives.orders.day),
            "outcome": _coded(lives.orders.outcome, OUTCOMES),
            "amount": np.round(amounts, 2),
        }),
        "truth/steps": pa.table({
            "customer_id": _coded(lives.step_customer, ids), "day": _dates(lives.step_day),
        }),
        "truth/assignments": pa.table({
            "customer_id": _coded(assigned, ids),
            "campaign_id": _coded(campaign, pa.array(_campaign_ids(block.shop), pa.string())),
            "contacted": block.assignments.contacted[assigned, campaign],
        }),
    }  # fmt: skip


def _rows(matrix: Floats) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(matrix.ravel()), matrix.shape[1])


def _spend_per_order(shop: _Shop, customers: _Customers) -> Floats:
    """Expected amount of an order without a coupon, before returns."""
    product = np.minimum(shop.first_product[:, None] + np.arange(shop.popularity.shape[1]), len(shop.price) - 1)
    popular_price = (shop.popularity * shop.price[product]).sum(axis=1)
    price = (1 - FAVOURITE_SHARE) * popular_price + FAVOURITE_SHARE * shop.price[customers.favourites]
    later = COMPANION_SHARE * customers.tastes @ shop.companions + (1 - COMPANION_SHARE) * customers.tastes
    lines = customers.tastes + customers.extra_lines[:, None] * later  # expected number in each category
    off = customers.deal_share * (DISCOUNTS @ DISCOUNT_SHARES)
    return (lines * price).sum(axis=1) * (1 + customers.extra_quantity) * (1 - off)


def _in_basket(shop: _Shop, customers: _Customers) -> Floats:
    """Probability that an order holds each category: customer x category."""
    absent = np.zeros_like(customers.tastes)
    for opener in range(len(CATEGORIES)):
        later = COMPANION_SHARE * shop.companions[opener] + (1 - COMPANION_SHARE) * customers.tastes
        without = np.exp(-customers.extra_lines[:, None] * later)  # a Poisson number of later lines, none of it
        without[:, opener] = 0.0
        absent += customers.tastes[:, [opener]] * without
    return 1 - absent


def truth(out: Path, as_of: date, horizon: int) -> pd.DataFrame:
    """What a forecaster who knew everything up to midnight (UTC) of `as_of` would expect of `[as_of, as_of + horizon)`.

    One row per customer who signed up before `as_of`, in the order of customers.parquet:

    - `customer_id`; `p_alive`: 1 if they will still buy, 0 if they have left for good
    - `expected_purchases`: orders, at most one a day
    - `expected_spend`: net of returns; of earlier orders' returns too, so it is negative for some who have left
    - `no_purchase_probability`; `survival_probability`: not left when the window ends
    - `contact_effect_purchases`, `contact_effect_spend`, `contact_effect_no_purchase_probability`: what a contact on
      the day `as_of` would add, compared with none from then on
    - `purchase_probability_<category>`: an order in the window holds it

    Everything else takes the campaigns as they were drawn; none begins after the records end.
    """
    settings = _settings(out)
    start, end = (_number(date.fromisoformat(settings[key])) for key in ("starts", "ends"))
    if not start < _number(as_of) <= end:
        raise ValueError(f"as_of is {as_of}; {out} was played from {settings['starts']} to {settings['ends']}, so it "
                         "must be later than the first and no later than the second")  # fmt: skip
    if horizon < 1:
        raise ValueError(f"horizon is {horizon} days; it must be at least 1")
    window = np.arange(_number(as_of), _number(as_of) + horizon)
    parts = sorted(path.name for path in (out / "truth/customers").iterdir())
    answers = [_answers(out / "truth", part, window, _campaign_days(start, end)) for part in parts]
    return pd.concat(answers, ignore_index=True)


def _settings(out: Path) -> dict[str, Any]:
    path = out / "truth/simulation.json"
    if not path.exists():
        raise ValueError(f"{out} holds no simulation ({path} is missing); write one with `perennial simulate {out}`")
    settings: dict[str, Any] = json.loads(path.read_text())
    return settings


def _answers(folder: Path, part: str, window: Ints, campaigns: Ints) -> pd.DataFrame:
    """The rows of one part."""
    latent = pd.read_parquet(folder / "customers" / part).set_index("customer_id")
    as_of = window[0]
    latent["phase"] = (latent["initial_phase"] + _steps_before(folder, part, latent.index, as_of)) % latent["steps"]
    latent["mood"] = np.where(_day_numbers(latent["cooled"]) <= as_of, COOLING, ENGAGED)
    contacted = _contacted(folder, part, latent.index, len(campaigns))
    known = _day_numbers(latent["joined"]) < as_of
    alive = known & (_day_numbers(latent["left"]) > as_of)
    # One pass per number of steps: the state has as many phases. An empty pass gives the columns.
    groups = [alive & (latent["steps"] == steps).to_numpy() for steps in (1, REGULAR_STEPS)]
    answers = pd.concat([_forecast(latent[group], contacted[group], window, campaigns) for group in groups])
    answers = answers.reindex(latent.index[known], fill_value=0.0)
    answers.insert(0, "p_alive", alive[known].astype(float))
    answers.loc[answers["p_alive"] == 0, "no_purchase_probability"] = 1.0
    answers["expected_spend"] -= _pending_returns(folder, part, latent, window)[known]
    return answers.reset_index()


def _day_numbers(dates: pd.Series) -> Ints:
    """Days since 1970, NEVER for null."""
    days = pd.to_datetime(dates).to_numpy("datetime64[D]")
    return np.where(np.isnat(days), NEVER, days.astype(np.int64))


def _steps_before(folder: Path, part: str, customer_ids: pd.Index, as_of: int) -> Ints:
    before = [("day", "<", date(1970, 1, 1) + timedelta(int(as_of)))]
    steps = pd.read_parquet(folder / "steps" / part, columns=["customer_id"], filters=before)
    return np.bincount(customer_ids.get_indexer(pd.Index(steps["customer_id"])), minlength=len(customer_ids))


def _contacted(folder: Path, part: str, customer_ids: pd.Index, n_campaigns: int) -> Bools:
    """Customer x campaign."""
    contacts = pd.read_parquet(folder / "assignments" / part, filters=[("contacted", "==", True)])
    contacted = np.zeros((len(customer_ids), n_campaigns), dtype=bool)
    campaign = contacts["campaign_id"].str[1:].astype(np.int64)
    contacted[customer_ids.get_indexer(pd.Index(contacts["customer_id"])), campaign] = True
    return contacted


def _forecast(latent: pd.DataFrame, contacted: Bools, window: Ints, campaigns: Ints) -> pd.DataFrame:
    """Customers who are alive and share a number of steps."""
    earlier = _exposed(contacted & (campaigns < window[0]), window, campaigns)
    under_contact = (window > window[0]) & (window <= window[0] + CONTACT_DAYS)
    effect = _expected(latent, earlier | under_contact[:, None], window) - _expected(latent, earlier, window)
    exposed = _exposed(contacted, window, campaigns)
    answers = _expected(latent, exposed, window)
    answers = answers.join(effect.drop(columns="survival_probability").rename(columns=_CONTACT_EFFECTS))
    steps = _step_probabilities(latent, exposed, window)
    in_basket = np.array(latent["in_basket"].to_list()).reshape(len(latent), len(CATEGORIES))
    for category, name in enumerate(CATEGORIES):
        answers[f"purchase_probability_{name}"] = 1 - _outlook(latent, steps, 1 - in_basket[:, category]).missed
    return answers


_CONTACT_EFFECTS = {
    "expected_purchases": "contact_effect_purchases",
    "expected_spend": "contact_effect_spend",
    "no_purchase_probability": "contact_effect_no_purchase_probability",
}


def _exposed(contacted: Bools, window: Ints, campaigns: Ints) -> Bools:
    """Day x customer: is a contact in effect?"""
    campaign = _campaign_on(window, campaigns)
    return np.array([contacted[:, c] if c >= 0 else np.zeros(len(contacted), dtype=bool) for c in campaign])


def _expected(latent: pd.DataFrame, exposed: Bools, window: Ints) -> pd.DataFrame:
    steps = _step_probabilities(latent, exposed, window)
    outlook = _outlook(latent, steps, 1.0)
    returned = np.outer(_returned_by(window[-1] - window), latent["return_probability"])
    spend = outlook.orders * (1 - COUPON_SHARE * COUPON * exposed) * (1 - returned)
    return pd.DataFrame({
        "expected_purchases": outlook.orders.sum(axis=0),
        "expected_spend": spend.sum(axis=0) * latent["spend_per_order"],
        "no_purchase_probability": _outlook(latent, steps, 0.0).missed,
        "survival_probability": outlook.survival,
    }, index=latent.index)  # fmt: skip


def _returned_by(days: Ints) -> Floats:
    """Share of the lines that come back which have done so within this many days."""
    return np.clip((days - RETURN_FIRST + 1.0) / (RETURN_LAST - RETURN_FIRST + 1), 0.0, 1.0)


def _step_probabilities(latent: pd.DataFrame, exposed: Bools, window: Ints) -> Floats:
    """Day x mood (engaged, cooling) x customer."""
    rate = (latent["purchase_rate"] * latent["steps"]).to_numpy()
    rate = rate * np.where(exposed, 1 + latent["contact_effect"].to_numpy(), 1.0) * _season(window)[:, None]
    return -np.expm1(-rate[:, None, :] * PACE[:GONE, None])


@dataclass(frozen=True)
class _Outlook:
    orders: Floats  # day x customer: expected
    survival: Floats
    missed: Floats  # probability that no order was noticed


def _outlook(latent: pd.DataFrame, step_probabilities: Floats, unnoticed: Floats | float) -> _Outlook:
    """Carry the distribution over (mood, phase) through the window, as `_live` carries one customer.

    An order is noticed with probability 1 - `unnoticed`, and then drops out: what remains is E[unnoticed ** orders].
    """
    phases = int(latent["steps"].max()) if len(latent) else 1
    state = np.zeros((GONE, phases, len(latent)))
    state[latent["mood"], latent["phase"], np.arange(len(latent))] = 1.0
    gone = np.zeros(len(latent))
    orders = np.empty((len(step_probabilities), len(latent)))
    leaving, cooling = latent["leaving"].to_numpy(), latent["cooling"].to_numpy()
    for day, probability in enumerate(step_probabilities):
        stepped = state * probability[:, None]
        state -= stepped
        state[:, 1:] += stepped[:, :-1]
        ordered = stepped[:, -1]
        orders[day] = ordered.sum(axis=0)
        ordered = ordered * unnoticed
        state[:, 0] += ordered * (1 - leaving)
        cooled, left = state[ENGAGED] * cooling, state[COOLING] * LEAVING_NIGHT
        state[ENGAGED] -= cooled
        state[COOLING] += cooled - left
        gone += (ordered * leaving).sum(axis=0) + left.sum(axis=0)
    survival = state.sum(axis=(0, 1))
    return _Outlook(orders, survival, np.minimum(survival + gone, 1.0))  # rounding may exceed 1 by an ulp


def _pending_returns(folder: Path, part: str, latent: pd.DataFrame, window: Ints) -> Floats:
    """Expected amount that earlier orders bring back in the window, whatever came back of them before."""
    since = date(1970, 1, 1) + timedelta(int(window[0]) - RETURN_LAST)
    until = date(1970, 1, 1) + timedelta(int(window[0]))
    orders = pd.read_parquet(folder / "orders" / part, filters=[("day", ">=", since), ("day", "<", until)])
    customer, day = latent.index.get_indexer(pd.Index(orders["customer_id"])), _day_numbers(orders["day"])
    fine = (orders["outcome"] == OUTCOMES[FINE]).to_numpy()
    comes_back = np.where(fine, latent["returning"].to_numpy()[customer], RETURN_AFTER_FAILURE)
    in_window = _returned_by(window[-1] - day) - _returned_by(window[0] - 1 - day)
    expected = orders["amount"].to_numpy() * comes_back * in_window
    return np.bincount(customer, expected, minlength=len(latent)).astype(float)
