"""The customers' lives, day by day: whom a campaign contacts, who orders, who cools and who leaves."""

from dataclasses import dataclass, fields

import numpy as np

from simulation.customers import Customers
from simulation.parameters import (
    ABSENT,
    CONTACTED_SHARE,
    CONTROL_SHARE,
    COOLING,
    ENGAGED,
    FAILED_SHARES,
    FINE,
    FIRST_ORDER_SHARE,
    GONE,
    LEAVE,
    LEAVING_NIGHT,
    NEVER,
    PACE,
    Bools,
    Floats,
    Ints,
)
from simulation.shop import Shop, campaign_on, seasonal_factor


@dataclass(frozen=True)
class Assignments:
    """Who was drawn for each campaign: customer x campaign."""

    contacted: Bools
    control: Bools


def draw_assignments(rng: np.random.Generator, shop: Shop, customers: Customers) -> Assignments:
    """Whom each campaign contacts or keeps as control: drawn by chance alone from the consenting who had signed up."""
    draw = rng.random((len(customers.joined), len(shop.campaigns)))
    eligible = customers.marketing_consent[:, None] & (customers.joined[:, None] < shop.campaigns)
    contacted = eligible & (draw < CONTACTED_SHARE)
    return Assignments(contacted, eligible & ~contacted & (draw < CONTACTED_SHARE + CONTROL_SHARE))


@dataclass(frozen=True)
class Orders:
    """One entry per order, by customer and day."""

    customer: Ints  # place within the block
    day: Ints
    outcome: Ints  # place within OUTCOMES
    exposed: Bools  # under the effect of a contact


@dataclass(frozen=True)
class Lives:
    """What became of the customers of a block: their orders, one entry per step, one entry per customer."""

    orders: Orders
    step_customer: Ints  # steps of regular buyers: a third of them were orders
    step_day: Ints
    cooled: Ints  # first day of cooling, or NEVER (within the records)
    left: Ints  # first day gone, or NEVER


def play(rng: np.random.Generator, shop: Shop, customers: Customers, contacted: Bools) -> Lives:
    """Play every day of the records for all customers at once; `contacted` is customer x campaign."""
    days = np.arange(shop.start, shop.end)
    mood = np.where(customers.joined < shop.start, ENGAGED, ABSENT)
    phase = customers.initial_phase.copy()
    cooled, left = np.full(len(mood), NEVER), np.full(len(mood), NEVER)
    orders: list[Orders] = []
    regular_steps: list[tuple[Ints, Ints]] = []
    for day, season, campaign in zip(days, seasonal_factor(days), campaign_on(days, shop.campaigns), strict=True):
        exposed = contacted[:, campaign] if campaign >= 0 else np.zeros(len(mood), dtype=bool)
        stepped = np.flatnonzero(rng.random(len(mood)) < _step_probability(customers, mood, season, exposed))
        phase[stepped] = (phase[stepped] + 1) % customers.steps[stepped]
        newcomers = np.flatnonzero(customers.joined == day)
        first_orders = newcomers[rng.random(len(newcomers)) < FIRST_ORDER_SHARE]
        buyers = np.concatenate([stepped[phase[stepped] == 0], first_orders])
        outcome = _outcomes(rng, customers.failure[buyers])
        orders.append(Orders(buyers, np.full(len(buyers), day), outcome, exposed[buyers]))
        regular = stepped[customers.steps[stepped] > 1]
        regular_steps.append((regular, np.full(len(regular), day)))
        before = mood.copy()
        _overnight(rng, mood, customers.cooling)
        mood[newcomers] = ENGAGED
        mood[buyers[rng.random(len(buyers)) < LEAVE[outcome]]] = GONE
        cooled[(mood == COOLING) & (before == ENGAGED)] = day + 1
        left[(mood == GONE) & (before != GONE)] = day + 1
    return Lives(_by_customer(orders), *_pairs(regular_steps), cooled, left)


def _step_probability(customers: Customers, mood: Ints, season: float, exposed: Bools) -> Floats:
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


def _by_customer(days: list[Orders]) -> Orders:
    orders = Orders(*(np.concatenate([getattr(day, field.name) for day in days]) for field in fields(Orders)))
    order = np.argsort(orders.customer, kind="stable")
    return Orders(*(getattr(orders, field.name)[order] for field in fields(Orders)))
