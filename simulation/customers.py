"""The customers: what the shop knows of them, and what they are like, which it does not."""

from dataclasses import dataclass

import numpy as np

from simulation.parameters import (
    ACQUISITION_COOLING,
    ACQUISITION_RATE,
    ACQUISITION_SHARES,
    ACQUISITIONS,
    CATEGORIES,
    COOLING_RATE,
    COOLING_SHAPE,
    EXISTING_SHARE,
    FAILED_SHARES,
    FINE,
    FIRST_NAMES,
    LAST_NAMES,
    LEAVE,
    PURCHASE_RATE,
    PURCHASE_SHAPE,
    REGION_FAILURE,
    REGION_RATE,
    REGION_SHARES,
    REGIONS,
    REGULAR_SHARE,
    REGULAR_STEPS,
    RETURN_AFTER_FAILURE,
    SILENT,
    Bools,
    Floats,
    Ints,
)
from simulation.shop import Shop, draw_products, seasonal_factor


@dataclass(frozen=True)
class Customers:
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
        """Probability that a line comes back, however its order ended."""
        return (1 - self.failure) * self.returning + self.failure * RETURN_AFTER_FAILURE


def draw_customers(rng: np.random.Generator, shop: Shop, first: int, n: int, lines_per_purchase: float) -> Customers:
    """`n` customers, numbered from `first`; `lines_per_purchase` is the mean over all of them."""
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
    return Customers(
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


def _sign_up_days(rng: np.random.Generator, shop: Shop, n: int) -> Ints:
    """Some signed up in the three years before the records begin, the others with the season."""
    before = shop.start - 1 - rng.integers(3 * 365, size=n)
    crowd = seasonal_factor(np.arange(shop.start, shop.end)).cumsum()
    during = shop.start + np.searchsorted(crowd, rng.random(n) * crowd[-1], side="right")
    return np.where(rng.random(n) < EXISTING_SHARE, before, during)


def _names(rng: np.random.Generator, first: int, n: int) -> Ints:
    """Numbers of names; every fiftieth begins with a formula sign, as careless or hostile input does."""
    number = first + np.arange(n)
    sign = np.where(number % 50 == 7, 1 + number // 50 % 4, 0)
    return sign * len(FIRST_NAMES) * len(LAST_NAMES) + rng.integers(len(FIRST_NAMES) * len(LAST_NAMES), size=n)


def _favourites(rng: np.random.Generator, shop: Shop, n: int) -> Ints:
    """Each customer's product of choice in each category."""
    categories = np.tile(np.arange(len(CATEGORIES)), n)
    return draw_products(rng, shop, categories).reshape(n, len(CATEGORIES))
