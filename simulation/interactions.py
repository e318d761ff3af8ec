"""What customers do beside ordering, and what the shop does to them."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from simulation.block import Block
from simulation.draws import choose, cumulative_shares, random_moments, some_of
from simulation.parameters import (
    APP,
    BROWSING,
    COOLING,
    DAY,
    EMAIL,
    ENGAGED,
    FINE,
    GONE,
    LATE,
    MEDIA,
    NEVER,
    OPENING,
    PHONE,
    RESOLVED,
    UNRESOLVED,
    WEB,
    Floats,
    Ints,
)
from simulation.shop import campaign_on, draw_products


@dataclass(frozen=True)
class Interactions:
    """Interactions of one kind, one entry each; a single number stands for all of them, -1 or NaN for none."""

    kind: str
    customer: Ints  # place within the block
    at: Ints  # microseconds since 1970
    channel: Ints | int = -1
    product: Ints | int = -1
    campaign: Ints | int = -1  # newsletters are numbered after the campaigns
    value: Floats | float = np.nan
    resolved_at: Ints | int = -1  # microseconds since 1970


def draw_interactions(rng: np.random.Generator, block: Block) -> list[Interactions]:
    """All interactions of a block, by kind; some lie before the records begin or after they end."""
    return [
        *_order_interactions(rng, block),
        *_complaints(rng, block),
        *_browsing(rng, block),
        *_surveys_and_cancellations(rng, block),
        *_newsletters(rng, block),
        *_contacts(rng, block),
    ]


def _order_interactions(rng: np.random.Generator, block: Block) -> Iterable[Interactions]:
    orders, at, n = block.lives.orders, block.ordered_at, len(block.ordered_at)
    first_line = np.searchsorted(block.lines.order, np.arange(n))
    visit, review = some_of(rng, 0.6, n), some_of(rng, 0.12, n)
    inquiry, call = some_of(rng, 0.03, n), some_of(rng, 0.02, n)
    reviewer = orders.customer[review]
    rating = 4.0 + 0.6 * block.customers.satisfaction[reviewer] - 2.0 * (orders.outcome[review] != FINE)
    rating = np.clip(np.round(rating + 0.6 * rng.standard_normal(len(review))), 1, 5)
    minutes = np.round(rng.gamma(2, 3, len(call)), 1)
    coupon = np.flatnonzero(block.coupon)
    campaign = campaign_on(orders.day[coupon], block.shop.campaigns)
    yield Interactions("visit", orders.customer[visit], _later(rng, at[visit], -0.03, -0.002), block.channel[visit])
    yield Interactions("review", reviewer, _later(rng, at[review], 2, 12), WEB, block.lines.product[first_line[review]],
                  value=rating)  # fmt: skip
    yield Interactions("inquiry", orders.customer[inquiry], _later(rng, at[inquiry], -2, 4), EMAIL)
    yield Interactions("call", orders.customer[call], _later(rng, at[call], 0.1, 6), PHONE, value=minutes)
    yield Interactions("coupon_redeemed", orders.customer[coupon], at[coupon], block.channel[coupon], campaign=campaign)


def _complaints(rng: np.random.Generator, block: Block) -> Iterable[Interactions]:
    """Failed orders are complained about unless borne in silence; a few fine ones too."""
    outcome = block.lives.orders.outcome
    complained = np.flatnonzero((outcome >= RESOLVED) | ((outcome == FINE) & (rng.random(len(outcome)) < 0.006)))
    outcome, at = outcome[complained], _later(rng, block.ordered_at[complained], 0.2, 6)
    resolved_at = np.where(outcome == LATE, _later(rng, at, 8, 25), _later(rng, at, 0.1, 2.5))
    open_still = (outcome == UNRESOLVED) | (resolved_at >= block.shop.end * DAY)
    channel = rng.choice([WEB, EMAIL, PHONE], len(at), p=[0.4, 0.35, 0.25])
    yield Interactions("complaint", block.lives.orders.customer[complained], at, channel,
                  resolved_at=np.where(open_still, -1, resolved_at))  # fmt: skip


def _browsing(rng: np.random.Generator, block: Block) -> Iterable[Interactions]:
    """Visits that end in no order, with searches and carts; fewer once cooling, fewest once gone."""
    shop, customers, lives = block.shop, block.customers, block.lives
    left = np.minimum(lives.left, shop.end)
    bounds = [np.maximum(customers.joined, shop.start), np.minimum(lives.cooled, left), left,
              np.full(len(left), shop.end)]  # fmt: skip
    for since, until, pace in zip(bounds[:-1], bounds[1:], BROWSING, strict=True):
        customer, at = _scatter(rng, since, until, pace * customers.browsing_rate)
        channel = np.where(rng.random(len(at)) < customers.app[customer], APP, WEB)
        search, cart = some_of(rng, 0.3, len(at)), some_of(rng, 0.2, len(at))
        product = draw_products(rng, shop, choose(rng, cumulative_shares(customers.tastes), customer[cart]))
        yield Interactions("visit", customer, at, channel)
        yield Interactions("search", customer[search], _later(rng, at[search], 0, 0.003), channel[search])
        yield Interactions("cart", customer[cart], _later(rng, at[cart], 0.003, 0.01), channel[cart], product)


def _surveys_and_cancellations(rng: np.random.Generator, block: Block) -> Iterable[Interactions]:
    shop, satisfaction, left = block.shop, block.customers.satisfaction, block.lives.left
    answered, at = _scatter(rng, np.maximum(block.customers.joined, shop.start), np.minimum(left, shop.end), 0.4 / 365)
    score = 7.5 + 1.5 * satisfaction[answered] + 1.2 * rng.standard_normal(len(answered))
    cancelled = np.flatnonzero((left < NEVER) & (rng.random(len(left)) < 0.08))
    yield Interactions("survey", answered, at, EMAIL, value=np.clip(np.round(score), 0, 10))
    yield Interactions("cancellation", cancelled, random_moments(rng, left[cancelled]), WEB)


def _newsletters(rng: np.random.Generator, block: Block) -> Iterable[Interactions]:
    """Sent to every consenting customer; opened more by those still engaged."""
    days, lives = block.shop.newsletters, block.lives
    sent = block.customers.marketing_consent[:, None] & (block.customers.joined[:, None] < days)
    customer, letter = np.nonzero(sent)
    day = days[letter]
    mood = np.where(day >= lives.left[customer], GONE, np.where(day >= lives.cooled[customer], COOLING, ENGAGED))
    at = day * DAY + 9 * DAY // 24
    opened = some_of(rng, np.array(OPENING)[mood], len(at))
    opened_at = _later(rng, at[opened], 0.001, 2)
    clicked = some_of(rng, 0.2, len(opened))
    campaign = len(block.shop.campaigns) + letter
    yield Interactions("email_sent", customer, at, EMAIL, campaign=campaign)
    yield Interactions("email_open", customer[opened], opened_at, EMAIL, campaign=campaign[opened])
    yield Interactions("email_click", customer[opened][clicked], _later(rng, opened_at[clicked], 0.0001, 0.002), EMAIL,
                  campaign=campaign[opened][clicked])  # fmt: skip


def _contacts(rng: np.random.Generator, block: Block) -> Iterable[Interactions]:
    """The contacted, and as `campaign_control` those left alone by the same draw."""
    days = block.shop.campaigns
    contacted, campaign = np.nonzero(block.assignments.contacted)
    medium = np.array(MEDIA)[campaign % len(MEDIA)]
    yield Interactions("campaign_contact", contacted, random_moments(rng, days[campaign]), medium, campaign=campaign)
    control, campaign = np.nonzero(block.assignments.control)
    yield Interactions("campaign_control", control, random_moments(rng, days[campaign]), campaign=campaign)


def _later(rng: np.random.Generator, at: Ints, first: float, last: float) -> Ints:
    """Between `first` and `last` days after `at`."""
    return at + (rng.uniform(first, last, len(at)) * DAY).astype(np.int64)


def _scatter(rng: np.random.Generator, since: Ints, until: Ints, rate: Floats | float) -> tuple[Ints, Ints]:
    """Customers and moments of a Poisson process with a daily `rate` between two days."""
    span = np.maximum(until - since, 0)
    customer = np.repeat(np.arange(len(span)), rng.poisson(rate * span))
    return customer, random_moments(
        rng, since[customer] + (rng.random(len(customer)) * span[customer]).astype(np.int64)
    )
