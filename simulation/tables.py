"""The tables that are written: the input tables of docs/tables.md, and those of the truth."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from simulation.baskets import basket_probabilities, spend_per_order
from simulation.block import Block
from simulation.customers import Customers
from simulation.draws import random_moments, some_of
from simulation.interactions import draw_interactions
from simulation.parameters import (
    ACQUISITIONS,
    BRANDS,
    CATEGORIES,
    CHANNELS,
    CITIES,
    CONTACT_DAYS,
    DAY,
    EMAIL,
    FIRST_NAMES,
    IN_STORE,
    LAST_NAMES,
    MEDIA,
    NEVER,
    OUTCOMES,
    REGIONS,
    Floats,
    Ints,
)
from simulation.shop import Shop

UTC_TIME = pa.timestamp("us", tz="UTC")
CUSTOMERS = pa.schema([
    ("customer_id", pa.string()), ("signed_up_at", UTC_TIME), ("marketing_consent", pa.bool_()),
    ("profiling_consent", pa.bool_()), ("consent_recorded_at", UTC_TIME), ("region", pa.string()), ("age", pa.int64()),
    ("acquisition_channel", pa.string()), ("name", pa.string()),
])  # fmt: skip
TRUTH_TABLES = ("customers", "orders", "steps", "assignments")
LATENT = ("purchase_rate", "steps", "initial_phase", "cooling", "failure", "leaving", "returning", "return_probability",
          "satisfaction", "contact_effect")  # fmt: skip
FORMULA_SIGNS = ("", "=", "+", "-", "@")  # what a spreadsheet takes for a formula


def write_table(path: Path, table: pa.Table) -> None:
    """Write one Parquet file. Without Arrow's own schema a reader sees strings, not dictionaries."""
    pq.write_table(table, path, compression="zstd", store_schema=False)


def products_table(shop: Shop) -> pa.Table:
    """One row per product; prices and costs in currency."""
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


def campaigns_table(shop: Shop) -> pa.Table:
    """One row per campaign (`K`, of coupons) and per newsletter (`N`), which lasts a day."""
    coupons, letters = len(shop.campaigns), len(shop.newsletters)
    medium = np.append(np.resize(MEDIA, coupons), np.full(letters, EMAIL))
    starts = np.append(shop.campaigns, shop.newsletters)
    lasts = np.repeat([CONTACT_DAYS + 1, 1], [coupons, letters])
    return pa.table({
        "campaign_id": _campaign_ids(shop),
        "kind": ["coupon"] * coupons + ["newsletter"] * letters,
        "medium": np.array(CHANNELS)[medium],
        "starts_at": utc_times(starts * DAY),
        "ends_at": utc_times((starts + lasts) * DAY),
        "fixed_cost": np.repeat([250.0, 80.0], [coupons, letters]),
        "unit_cost": np.choose(medium - EMAIL, [0.002, 1.8, 0.7]),
    })  # fmt: skip


def customers_table(block: Block) -> pa.Table:
    """One row per customer, in the columns of CUSTOMERS; an age that was not told is null."""
    customers = block.customers
    names = [f"{sign}{first} {last}" for sign in FORMULA_SIGNS for first in FIRST_NAMES for last in LAST_NAMES]
    return pa.table({
        "customer_id": _customer_ids(customers),
        "signed_up_at": utc_times(block.signed_up_at),
        "marketing_consent": customers.marketing_consent,
        "profiling_consent": customers.profiling_consent,
        "consent_recorded_at": utc_times(block.signed_up_at),  # asked as they signed up, and not again
        "region": _coded(customers.region, REGIONS),
        "age": pa.array(customers.age, mask=~customers.age_told),
        "acquisition_channel": _coded(customers.acquisition, ACQUISITIONS),
        "name": _coded(customers.name, names),
    })  # fmt: skip


def transactions_table(rng: np.random.Generator, block: Block) -> pa.Table:
    """One row per line bought, then one per line brought back before the records end, with negative amounts."""
    shop, lines, orders = block.shop, block.lines, block.lives.orders
    back = np.flatnonzero(lines.returned_after)
    back = back[orders.day[lines.order[back]] + lines.returned_after[back] < shop.end]
    sign = np.repeat([1, -1], [len(lines.order), len(back)])
    line = np.append(np.arange(len(lines.order)), back)
    order, product = lines.order[line], lines.product[line]
    returned_at = random_moments(rng, orders.day[order[sign < 0]] + lines.returned_after[back])
    occurred_at = np.append(block.ordered_at[lines.order], returned_at)
    numbers = block.customers.first * 10_000 + np.arange(len(orders.day))
    ids = pa.concat_arrays([numbered_ids("T", numbers, 11), numbered_ids("R", numbers, 11)])
    customer, channel = orders.customer[order], block.channel[order]
    quantity = sign * lines.quantity[line]
    return pa.table({
        "transaction_id": _coded(order + np.where(sign < 0, len(numbers), 0), ids),
        "customer_id": _coded(customer, _customer_ids(block.customers)),
        "occurred_at": utc_times(occurred_at),
        "amount": sign * lines.amount[line],
        "quantity": quantity,
        "product_id": _coded(product, _product_ids(shop)),
        "discount": sign * lines.discount[line],
        "cost": np.round(quantity * shop.unit_cost[product], 2),
        "channel": _coded(channel, CHANNELS),
        "location": _coded(np.where(channel == IN_STORE, block.customers.region[customer], -1), CITIES),
        "recorded_at": utc_times(_recorded(rng, occurred_at, late=0.03)),
    })  # fmt: skip


def interactions_table(rng: np.random.Generator, block: Block) -> pa.Table:
    """One row per interaction within the records."""
    drawn = draw_interactions(rng, block)
    sizes = [len(some.customer) for some in drawn]
    at = np.concatenate([some.at for some in drawn])
    recorded = np.flatnonzero((at >= block.shop.start * DAY) & (at < block.shop.end * DAY))

    def column(name: str) -> npt.NDArray[Any]:
        pieces = (np.broadcast_to(getattr(some, name), size) for some, size in zip(drawn, sizes, strict=True))
        return np.concatenate(list(pieces))[recorded]

    at, value = at[recorded], column("value")
    kinds = sorted({some.kind for some in drawn})
    kind = np.repeat([kinds.index(some.kind) for some in drawn], sizes)[recorded]
    return pa.table({
        "interaction_id": numbered_ids("I", block.customers.first * 10_000 + np.arange(len(at)), 11),
        "customer_id": _coded(column("customer"), _customer_ids(block.customers)),
        "occurred_at": utc_times(at),
        "kind": _coded(kind, kinds),
        "channel": _coded(column("channel"), CHANNELS),
        "product_id": _coded(column("product"), _product_ids(block.shop)),
        "campaign_id": _coded(column("campaign"), pa.array(_campaign_ids(block.shop), pa.string())),
        "value": pa.array(value, mask=np.isnan(value)),
        "resolved_at": utc_times(column("resolved_at")),
        "recorded_at": utc_times(_recorded(rng, at, late=0.01)),
    })  # fmt: skip


def truth_tables(block: Block) -> dict[str, pa.Table]:
    """What `truth` reads, by the folder it lies in: one row per customer, order, step and assignment of the block."""
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
            "spend_per_order": spend_per_order(block.shop, customers),
            "cooled": _dates(lives.cooled),
            "left": _dates(lives.left),
            "tastes": _vectors(customers.tastes),
            "in_basket": _vectors(basket_probabilities(block.shop, customers)),
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


def _recorded(rng: np.random.Generator, at: Ints, late: float) -> Ints:
    """Within two minutes, save for a `late` share that took one to nine days."""
    delay = rng.integers(1, 120, len(at)) * 1_000_000
    belated = some_of(rng, late, len(at))
    delay[belated] = rng.integers(DAY, 9 * DAY, len(belated))
    return at + delay


def _coded(codes: npt.ArrayLike, names: Iterable[Any]) -> pa.DictionaryArray:
    """Names by number, null where the number is negative; written as plain strings."""
    codes = np.asarray(codes, dtype=np.int32)
    return pa.DictionaryArray.from_arrays(pa.array(codes, mask=codes < 0), pa.array(names))


def utc_times(moments: Ints) -> pa.Array:
    """Microseconds since 1970 as timestamps in UTC, null where negative."""
    return pa.array(moments, mask=moments < 0).cast(UTC_TIME)


def _dates(days: Ints) -> pa.Array:
    return pa.array(days.astype(np.int32), mask=days == NEVER).cast(pa.date32())


def numbered_ids(prefix: str, numbers: Ints, digits: int) -> pa.Array:
    """`prefix` and each number, with leading zeros to `digits` digits."""
    padded = pc.utf8_lpad(pc.cast(pa.array(numbers), pa.string()), digits, "0")
    return pc.binary_join_element_wise(prefix, padded, "")


def _customer_ids(customers: Customers) -> pa.Array:
    return numbered_ids("C", customers.first + np.arange(len(customers.joined)), 8)


def _product_ids(shop: Shop) -> pa.Array:
    return numbered_ids("P", np.arange(len(shop.price)), 4)


def _campaign_ids(shop: Shop) -> list[str]:
    return [f"K{n:03}" for n in range(len(shop.campaigns))] + [f"N{n:03}" for n in range(len(shop.newsletters))]


def _vectors(matrix: Floats) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(matrix.ravel()), matrix.shape[1])
