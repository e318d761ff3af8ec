"""The input contract: the five canonical tables, their columns, types and keys."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Column:
    """One canonical column. `type` is DuckDB's; `required` columns must be mapped and filled."""

    name: str
    type: str
    required: bool = False

    @property
    def is_id(self) -> bool:
        return self.name.endswith("_id")


@dataclass(frozen=True)
class Contract:
    """What one canonical table looks like. `key` identifies a row; empty means the whole line does."""

    name: str
    columns: tuple[Column, ...]
    key: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)

    @property
    def required(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns if column.required)

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns if column.is_id)

    @property
    def is_event(self) -> bool:
        """Events happen at a time and are appended; the other tables describe things and are replaced."""
        return "occurred_at" in self.names


_ID, _TIME, _TEXT, _NUMBER = "VARCHAR", "TIMESTAMPTZ", "VARCHAR", "DOUBLE"

TRANSACTIONS = Contract(
    "transactions",
    (
        Column("transaction_id", _ID, required=True),
        Column("customer_id", _ID, required=True),
        Column("occurred_at", _TIME, required=True),
        Column("amount", _NUMBER, required=True),
        Column("quantity", _NUMBER),
        Column("product_id", _ID),
        Column("discount", _NUMBER),
        Column("cost", _NUMBER),
        Column("channel", _TEXT),
        Column("location", _TEXT),
        Column("recorded_at", _TIME),
    ),
)
INTERACTIONS = Contract(
    "interactions",
    (
        Column("interaction_id", _ID, required=True),
        Column("customer_id", _ID, required=True),
        Column("occurred_at", _TIME, required=True),
        Column("kind", _TEXT, required=True),
        Column("channel", _TEXT),
        Column("product_id", _ID),
        Column("campaign_id", _ID),
        Column("value", _NUMBER),
        Column("resolved_at", _TIME),
        Column("recorded_at", _TIME),
    ),
    key=("interaction_id",),
)
CUSTOMERS = Contract(
    "customers",
    (
        Column("customer_id", _ID, required=True),
        Column("signed_up_at", _TIME),
        Column("contract_ends_at", _TIME),
        Column("marketing_consent", "BOOLEAN"),
        Column("profiling_consent", "BOOLEAN"),
        Column("consent_recorded_at", _TIME),
    ),
    key=("customer_id",),
)
PRODUCTS = Contract(
    "products",
    (
        Column("product_id", _ID, required=True),
        Column("category", _TEXT, required=True),
        Column("name", _TEXT),
        Column("brand", _TEXT),
        Column("list_price", _NUMBER),
        Column("unit_cost", _NUMBER),
    ),
    key=("product_id",),
)
CAMPAIGNS = Contract(
    "campaigns",
    (
        Column("campaign_id", _ID, required=True),
        Column("kind", _TEXT, required=True),
        Column("medium", _TEXT),
        Column("starts_at", _TIME, required=True),
        Column("ends_at", _TIME),
        Column("fixed_cost", _NUMBER),
        Column("unit_cost", _NUMBER),
    ),
    key=("campaign_id",),
)
CONTRACTS = {c.name: c for c in (TRANSACTIONS, INTERACTIONS, CUSTOMERS, PRODUCTS, CAMPAIGNS)}

# Times beside `occurred_at` whose days are asked for: ingest writes each as `..._day`.
DATED = ("resolved_at", "signed_up_at", "contract_ends_at")
# What the marketer sends is treatment, never the customer's own behaviour; nor is being held back as a control.
CONTACT_KINDS = ("email_sent", "campaign_contact")
TREATMENT_KINDS = (*CONTACT_KINDS, "campaign_control")
# Larger amounts are typing errors in any currency that people shop in.
ABSURD_AMOUNT = 1e9
# Earlier times are the zero of some system's clock (1753, 1900, 1970 ...), not a purchase.
EARLIEST = 1980
