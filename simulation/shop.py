"""The shop that all its customers share: products and their prices, days of campaigns, the season."""

from dataclasses import dataclass
from datetime import date

import numpy as np

from simulation.draws import choose, cumulative_shares
from simulation.parameters import (
    BRANDS,
    CATEGORY_PRICES,
    CONTACT_DAYS,
    CONTACT_EVERY,
    NEWSLETTER_EVERY,
    PRODUCTS_PER_CATEGORY,
    WEEK,
    Floats,
    Ints,
)


@dataclass(frozen=True)
class Shop:
    """What all customers share. Days are numbers; products are numbered category by category."""

    start: int  # first day of the records
    end: int  # the day after their last
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


def day_number(day: date) -> int:
    """Days since 1970-01-01, negative before it."""
    return (day - date(1970, 1, 1)).days


def draw_shop(seed: int, start: int, end: int) -> Shop:
    """The shop of a seed, whose records run over the days `[start, end)`. A short one may have no campaigns."""
    rng = np.random.default_rng(np.random.SeedSequence(seed))
    sizes = np.array(PRODUCTS_PER_CATEGORY)
    category = np.repeat(np.arange(len(sizes)), sizes)
    price = np.round(np.array(CATEGORY_PRICES)[category] * np.exp(0.45 * rng.standard_normal(len(category))), 2)
    ranks = np.arange(1, sizes.max() + 1)
    popularity = np.where(ranks <= sizes[:, None], ranks**-0.8, 0.0)
    return Shop(
        start=start,
        end=end,
        campaigns=campaign_days(start, end),
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


def seasonal_factor(days: Ints) -> Floats:
    """How busy each day is: 1 on average over a year, a winter peak around 11 December times a weekly pattern.

    One entry per day, a factor of the purchase rate; the equation of s(d) is in docs/simulate.md.
    """
    dates = days.astype("datetime64[D]")
    day_of_year = (dates - dates.astype("datetime64[Y]").astype("datetime64[D]")).astype(np.int64)
    from_peak = np.abs(day_of_year - 345)
    from_peak = np.minimum(from_peak, 365 - from_peak)
    winter = 0.9 + 0.15 * np.cos(2 * np.pi * from_peak / 365) + 1.1 * np.exp(-((from_peak / 18) ** 2))
    return winter * WEEK[(days + 3) % 7]  # 1970-01-01 was a Thursday


def campaign_days(start: int, end: int) -> Ints:
    """The days in `[start, end)` on which contacts are made, ascending; a campaign's number is its place here."""
    return np.arange(start + 40, end, CONTACT_EVERY)


def campaign_on(days: Ints, campaigns: Ints) -> Ints:
    """The campaign whose contacts are in effect on each day (the 28 days after them), or -1."""
    latest = np.searchsorted(campaigns, days) - 1
    in_effect = (latest >= 0) & (days <= campaigns[np.maximum(latest, 0)] + CONTACT_DAYS) if len(campaigns) else False
    return np.where(in_effect, latest, -1)


def draw_products(rng: np.random.Generator, shop: Shop, categories: Ints) -> Ints:
    """One product per entry of `categories`, of that category, as likely as it is popular there."""
    return shop.first_product[categories] + choose(rng, cumulative_shares(shop.popularity), categories)
