"""What is in an order: its lines as drawn, and what an order comes to on average."""

from dataclasses import dataclass

import numpy as np

from simulation.customers import Customers
from simulation.draws import choose, cumulative_shares
from simulation.lives import Orders
from simulation.parameters import (
    CATEGORIES,
    COMPANION_SHARE,
    COUPON,
    DISCOUNT_SHARES,
    DISCOUNTS,
    FAVOURITE_SHARE,
    FINE,
    RETURN_AFTER_FAILURE,
    RETURN_FIRST,
    RETURN_LAST,
    Bools,
    Floats,
    Ints,
)
from simulation.shop import Shop, draw_products


@dataclass(frozen=True)
class Lines:
    """One entry per order and product."""

    order: Ints  # place within the block's orders, ascending
    product: Ints
    quantity: Ints
    amount: Floats  # paid, in currency
    discount: Floats  # taken off, in currency
    returned_after: Ints  # days; 0 where it is kept


def draw_lines(rng: np.random.Generator, shop: Shop, customers: Customers, orders: Orders, coupon: Bools) -> Lines:
    """What the orders hold, and what of it will come back; `coupon` says per order whether one was redeemed."""
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
    return Lines(
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
    rng: np.random.Generator, shop: Shop, customers: Customers, customer: Ints, order: Ints, firsts: Ints
) -> Ints:
    """A product per line; `firsts` are the positions of the orders' first lines, whose companions the others may be."""
    category = choose(rng, cumulative_shares(customers.tastes), customer)
    companion = rng.random(len(customer)) < COMPANION_SHARE
    companion[firsts] = False
    opener = category[firsts][order]
    category[companion] = choose(rng, cumulative_shares(shop.companions), opener[companion])
    favourite = rng.random(len(customer)) < FAVOURITE_SHARE
    return np.where(favourite, customers.favourites[customer, category], draw_products(rng, shop, category))


def spend_per_order(shop: Shop, customers: Customers) -> Floats:
    """Per customer: expected amount of an order in currency, without a coupon, before returns."""
    product = np.minimum(shop.first_product[:, None] + np.arange(shop.popularity.shape[1]), len(shop.price) - 1)
    popular_price = (shop.popularity * shop.price[product]).sum(axis=1)
    price = (1 - FAVOURITE_SHARE) * popular_price + FAVOURITE_SHARE * shop.price[customers.favourites]
    later = COMPANION_SHARE * customers.tastes @ shop.companions + (1 - COMPANION_SHARE) * customers.tastes
    lines = customers.tastes + customers.extra_lines[:, None] * later  # expected number in each category
    off = customers.deal_share * (DISCOUNTS @ DISCOUNT_SHARES)
    return (lines * price).sum(axis=1) * (1 + customers.extra_quantity) * (1 - off)


def basket_probabilities(shop: Shop, customers: Customers) -> Floats:
    """Probability that an order holds each category: customer x category."""
    absent = np.zeros_like(customers.tastes)
    for opener in range(len(CATEGORIES)):
        later = COMPANION_SHARE * shop.companions[opener] + (1 - COMPANION_SHARE) * customers.tastes
        without = np.exp(-customers.extra_lines[:, None] * later)  # a Poisson number of later lines, none of it
        without[:, opener] = 0.0
        absent += customers.tastes[:, [opener]] * without
    return 1 - absent
