"""A block: up to 20,000 customers drawn together, with all that they do but their interactions."""

from dataclasses import dataclass

import numpy as np

from simulation.baskets import Lines, draw_lines
from simulation.customers import Customers, draw_customers
from simulation.draws import random_moments
from simulation.lives import Assignments, Lives, draw_assignments, play
from simulation.parameters import APP, COUPON_SHARE, DAY, IN_STORE, STORE, WEB, Bools, Ints
from simulation.shop import Shop


@dataclass(frozen=True)
class Block:
    """Everything about the customers of one part."""

    shop: Shop
    customers: Customers
    assignments: Assignments
    lives: Lives
    lines: Lines
    signed_up_at: Ints  # per customer, in microseconds since 1970, as all moments
    ordered_at: Ints  # per order
    channel: Ints  # per order
    coupon: Bools  # per order


def draw_block(rng: np.random.Generator, shop: Shop, first: int, n: int, lines_per_purchase: float) -> Block:
    """`n` customers numbered from `first`, and their lives. The order of the draws is part of what a seed means."""
    customers = draw_customers(rng, shop, first, n, lines_per_purchase)
    assignments = draw_assignments(rng, shop, customers)
    lives = play(rng, shop, customers, assignments.contacted)
    orders = lives.orders
    ordered_at = random_moments(rng, orders.day)
    signed_up_at = random_moments(rng, customers.joined)
    first_order = orders.day == customers.joined[orders.customer]
    signed_up_at[orders.customer[first_order]] = ordered_at[first_order] - DAY // 144  # ten minutes
    by_app = rng.random(len(ordered_at)) < customers.app[orders.customer]
    in_store = rng.random(len(ordered_at)) < np.where(customers.acquisition == STORE, 0.7, 0.1)[orders.customer]
    coupon = orders.exposed & (rng.random(len(ordered_at)) < COUPON_SHARE)
    return Block(
        shop=shop,
        customers=customers,
        assignments=assignments,
        lives=lives,
        lines=draw_lines(rng, shop, customers, orders, coupon),
        signed_up_at=signed_up_at,
        ordered_at=ordered_at,
        channel=np.where(in_store, IN_STORE, np.where(by_app, APP, WEB)),
        coupon=coupon,
    )
