"""What is asked of a list: how many, who, in which order, from where on."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from workspace import ids

Band = Literal["low", "medium", "high"]


def _underscored(name: Any) -> Any:
    """`Lifetime-Value` is `lifetime_value`."""
    return name.strip().replace("-", "_").lower() if isinstance(name, str) else name


def _lower(value: Any) -> Any:
    return value.strip().lower() if isinstance(value, str) else value


class Rules(BaseModel):
    """What every list can be asked for."""

    model_config = ConfigDict(extra="forbid")

    top: int = Field(100, ge=1, le=100_000, description="rows, at most; the next ones are at the header `Link`")
    min_value: float = Field(0.0, ge=0, allow_inf_nan=False, description="lifetime value from which a customer counts")
    max_value: float | None = Field(None, ge=0, allow_inf_nan=False, description="lifetime value up to which one does")
    attribute: list[Annotated[str, StringConstraints(max_length=ids.LONGEST)]] = Field(
        [], max_length=10,
        description="only who has this attribute, as `name:value`, in any case; repeated, all must hold; a value that"
        " no customer has is refused, and none, as in `region:`, is for who has no value",
        examples=[["region:north"]],
    )  # fmt: skip
    search: Annotated[str, StringConstraints(min_length=1, max_length=ids.LONGEST)] | None = Field(
        None, description="only customers whose id begins so"
    )
    cursor: Annotated[str, StringConstraints(max_length=2_000)] | None = Field(
        None, description="where the last page ended, from its header `Link`"
    )
    format: Annotated[Literal["json", "csv", "xlsx"], BeforeValidator(_lower)] = "json"


Category = Annotated[str, StringConstraints(min_length=1, max_length=ids.LONGEST)] | None
_CATEGORY = Field(
    None,
    description="only who bought of this in the last 365 days: a category, or an item where items are ranked; in any"
    " case; one that nobody bought of is refused",
)


class ListQuery(Rules):
    """Of the churn-risk list."""

    category: Category = _CATEGORY
    band: Annotated[Band | None, BeforeValidator(_lower)] = Field(None, description="only this churn band")
    sort: Annotated[Literal["value_at_risk", "churn_probability", "lifetime_value"], BeforeValidator(_underscored)] = (
        Field("value_at_risk", description="highest first")
    )
    unproven_offers: bool = Field(False, description="also name offers of a model whose grade is `none`")
    reasons: bool = Field(True, description="tell why each customer is at risk; a long list is much quicker without")


class WinBackQuery(Rules):
    """Of the customers who left."""

    sort: Annotated[Literal["lifetime_value", "spend", "last_purchase"], BeforeValidator(_underscored)] = Field(
        "lifetime_value", description="highest, or latest, first"
    )


class CrossSellQuery(Rules):
    """Of the customers to whom something can be offered."""

    item: Annotated[str, StringConstraints(min_length=1, max_length=ids.LONGEST)] | None = Field(
        None, description="only who is offered this, in any case; each customer's best offer where none is named"
    )
    kind: Annotated[Literal["repeat", "new"] | None, BeforeValidator(_lower)] = Field(
        None, description="only offers of what the customer bought before, or of what is new to them"
    )
    category: Category = _CATEGORY
    band: Annotated[Band | None, BeforeValidator(_lower)] = Field(None, description="only this churn band")
    sort: Annotated[Literal["probability", "lifetime_value", "value_at_risk"], BeforeValidator(_underscored)] = Field(
        "probability", description="highest first"
    )
    unproven_offers: bool = Field(False, description="also of a model whose grade is `none`")
