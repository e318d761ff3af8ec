"""What goes in and out over HTTP: the bodies of requests and answers, with the examples in their description."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    model_validator,
)

from serving.lists.list_query import Band
from workspace import ids
from workspace.tables import ABSURD_AMOUNT, EARLIEST

LONGEST_ID = ids.LONGEST
MOST_EVENTS = 1_000


def _instant(value: Any) -> Any:
    """Numbers are no times: 20250101 would be taken for a day in 1970."""
    if not isinstance(value, str):
        raise ValueError("a time is a text such as 2025-01-01T09:30:00+01:00")
    return value


def _after_the_clocks_zero(value: datetime) -> datetime:
    if value.year < EARLIEST:
        raise ValueError(f"a time before {EARLIEST} is not one of a purchase")
    return value


# The same as for ingest, which finds in a text with blanks around it the id without.
_SHAPE = {"type": "string", "minLength": 1, "maxLength": LONGEST_ID, "pattern": ids.PATTERN}
Id = Annotated[str, AfterValidator(ids.canonical), WithJsonSchema(_SHAPE)]
Instant = Annotated[
    AwareDatetime, Field(strict=False), BeforeValidator(_instant), AfterValidator(_after_the_clocks_zero)
]
Money = Annotated[float, Field(ge=0, le=ABSURD_AMOUNT, allow_inf_nan=False)]
Number = Annotated[float, Field(ge=-ABSURD_AMOUNT, le=ABSURD_AMOUNT, allow_inf_nan=False)]
Quantity = Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)]


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class ScoresRequest(_Asked):
    model_config = ConfigDict(
        json_schema_extra={"examples": [{"customer_ids": ["10002", "10003"], "explain": True, "offers": True}]}
    )

    customer_ids: list[Id] = Field(min_length=1, description="at most `service.max_ids` of them")
    explain: bool = Field(False, description="add the reasons for each churn probability")
    horizon: int | None = Field(
        None, ge=1, le=1095, description="days ahead that numbers are about; the models' own if absent"
    )
    offers: bool = Field(False, description="add the offers that the last batch ranked for each customer")


class Line(_Asked):
    product_id: Id | None = None
    amount: Money = Field(description="net, in the workspace's currency; a return comes with the next batch")
    quantity: Quantity | None = None
    discount: Money | None = None
    cost: Money | None = None


class Purchase(_Asked):
    """What a customer bought in one go; known by its `transaction_id`."""

    transaction_id: Id
    customer_id: Id
    occurred_at: Instant = Field(description="with an offset or Z")
    recorded_at: Instant | None = Field(None, description="when the shop learnt of it, where that was later")
    channel: Id | None = None
    location: Id | None = None
    lines: list[Line] = Field(min_length=1, max_length=1_000)


class Interaction(_Asked):
    """Anything else that happened between a customer and the shop; known by its `interaction_id`."""

    interaction_id: Id
    customer_id: Id
    occurred_at: Instant = Field(description="with an offset or Z")
    kind: Id = Field(description="visit, search, cart, review, complaint, survey, call, cancellation ...")
    recorded_at: Instant | None = Field(None, description="when the shop learnt of it, where that was later")
    resolved_at: Instant | None = Field(None, description="of a complaint")
    channel: Id | None = None
    product_id: Id | None = None
    campaign_id: Id | None = None
    value: Number | None = Field(None, description="a rating, minutes ...")


class EventsRequest(_Asked):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "purchases": [
                        {
                            "transaction_id": "till-4-20250101-17",
                            "customer_id": "10002",
                            "occurred_at": "2025-01-01T09:30:00+00:00",
                            "lines": [{"amount": 24.9, "quantity": 2}],
                        }
                    ]
                }
            ]
        }
    )

    purchases: list[Purchase] = Field([], max_length=MOST_EVENTS)
    interactions: list[Interaction] = Field([], max_length=MOST_EVENTS)

    def customers(self) -> list[str]:
        """Whom it is about, each once."""
        return sorted({one.customer_id for one in self.purchases} | {one.customer_id for one in self.interactions})


class EventsAnswer(BaseModel):
    """Accepted for good: neither a crash nor a second delivery changes that."""

    accepted: int = Field(description="of these events, how many were not known before")
    repeated: int = Field(description="how many were, with the same content")


class Failure(BaseModel):
    """Every refusal: a code for programs, a sentence for people, details where there are any."""

    class Error(BaseModel):
        code: str
        message: str
        details: dict[str, Any]

    error: Error


Grade = Literal["A", "B", "C", "none"]


class Grades(BaseModel):
    """How far each number is proven, from A to C; `none`: no better at earlier dates than a simple rule, or unknown."""

    churn: Grade
    lifetime_value: Grade
    value_at_risk: Grade = Field(description="of a product, the worse of both")
    offers: Grade


class Terms(BaseModel):
    """What the numbers of an answer mean."""

    grades: Grades
    withheld: dict[str, str] = Field(description="by model, why its amounts are null")
    answers_by: dict[str, str] = Field(description="by model, what answers where that is not the model that was taught")
    currency: str
    churn_period_days: int = Field(description="days ahead that `churn_probability` is about")
    lifetime_value_period_days: int = Field(description="days ahead that `lifetime_value` is about")
    lifetime_value_measure: Literal["revenue", "margin"]


class Score(BaseModel):
    """The columns of `scores`; numbers are null where `not_scored_reason` or `withheld` says why."""

    customer_id: str
    as_of: date
    churn_probability: float | None
    churn_percentile: float | None
    churn_band: Band | None
    p_alive: float | None
    expected_purchases: float | None
    lifetime_value: float | None
    lifetime_value_low: float | None
    lifetime_value_high: float | None
    value_at_risk: float | None
    not_scored_reason: str | None
    churn_model: str
    lifetime_value_model: str
    cross_sell_model: str | None
    stale: bool = Field(description="true where the online store is out of reach and this is what the last batch wrote")
    horizon: int = Field(description="days that the churn probability and its band are about")
    lifetime_value_horizon: int = Field(description="days that purchases and value are about")


class Offer(BaseModel):
    rank: int
    item: str
    probability: float | None
    kind: Literal["repeat", "new"]


class AskedScore(Score):
    reasons: list[str] = Field([], description="only where `explain` was asked")
    offers: list[Offer] = Field([], description="only where `offers` was asked; of the last batch")


class UnknownCustomer(Failure):
    customer_id: str


class ScoresAnswer(Terms):
    scores: list[AskedScore | UnknownCustomer]


class OffersAnswer(Terms):
    customer_id: str
    as_of: date = Field(description="when the last batch ranked them")
    offers: list[Offer]


class Companion(BaseModel):
    rank: int
    bought_with: str
    buyers: int = Field(description="customers who bought both in the year before")
    share: float = Field(description="their part of the item's buyers")
    lift: float = Field(description="that share over the companion's among all buyers; above 1")


class BoughtWithAnswer(BaseModel):
    item: str
    as_of: date = Field(description="when the last batch counted")
    bought_with: list[Companion]


class ConsentRequest(_Asked):
    """What a customer allows from now on; what is left out stays as it is."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"marketing": False}], "minProperties": 1})

    marketing: bool | None = Field(None, description="to be listed, and so contacted")
    profiling: bool | None = Field(None, description="to be scored, and so listed or offered anything")

    @model_validator(mode="after")
    def _something_said(self) -> ConsentRequest:
        if not self.said:
            raise ValueError("say `marketing` or `profiling`, true or false")
        return self

    @property
    def said(self) -> dict[Literal["marketing", "profiling"], bool]:
        given = (("marketing", self.marketing), ("profiling", self.profiling))
        return {kind: granted for kind, granted in given if granted is not None}  # type: ignore[misc]


class ConsentAnswer(BaseModel):
    """Kept for good. Null is what was not said."""

    customer_id: str
    recorded_at: datetime
    marketing: bool | None
    profiling: bool | None


class HeldAnswer(BaseModel):
    """By place - a file in the workspace's home, a table of a database, the online store - the rows found there."""

    customer_id: str
    held: dict[str, list[dict[str, Any]]]
    audit: list[dict[str, Any]] = Field(description="who read or changed something of this customer, and when")


class ErasedAnswer(BaseModel):
    """By place, how many rows there were; exported files are out of reach, and are not named."""

    customer_id: str
    found: dict[str, int]


class WaitingAnswer(BaseModel):
    """An erasure that is carried out when the home is free; the customer is in no answer from now on."""

    erasure_id: str
    asked_at: datetime
    erased_at: datetime | None = Field(description="null while it waits")
    found: dict[str, int] | None = Field(description="as of an erasure at once; null while it waits")


class OwnPageRequest(_Asked):
    model_config = ConfigDict(json_schema_extra={"examples": [{"days": 7}]})

    days: int = Field(default=7, ge=1, le=30, description="until the link ends")


class OwnPageAnswer(BaseModel):
    """For the customer alone: whoever has the address sees what is held of them, and may have it erased."""

    url: str
    ends_at: datetime


class EndedAnswer(BaseModel):
    customer_id: str
    ended: int = Field(description="links, one or none")


class CorrectionsAnswer(BaseModel):
    """What customers wrote on their own pages, in their words."""

    class Correction(BaseModel):
        correction_id: str
        customer_id: str
        asked_at: datetime
        text: str

    corrections: list[Correction]


class SettledAnswer(BaseModel):
    correction_id: str
    customer_id: str


class Profile(BaseModel):
    tenure_days: int | None
    attributes: dict[str, str | int | float | None]


class Habits(BaseModel):
    """How the customer usually buys; null where the history is too short to say."""

    usual_gap_days: float | None
    purchases_per_year: float | None
    spend_per_purchase: float | None
    lines_per_purchase: float | None
    categories_last_year: int | None
    favourite_category_share: float | None
    weekend_share: float | None
    usual_hour: float | None
    discount_share: float | None
    return_share: float | None


class History(BaseModel):
    first_purchase: date | None
    last_purchase: date | None
    purchases: int
    purchases_last_year: int
    spend: float
    spend_last_year: float
    last_spend: float | None
    complaints_last_year: int
    open_complaints: int | None
    last_interaction: date | None


class Consents(BaseModel):
    """Null where the shop keeps no such consent."""

    profiling: bool | None
    marketing: bool | None


class Card(Terms):
    """All that a screen shows of one customer. `habits` and `history` are null without consent to profiling."""

    customer_id: str
    as_of: date
    stale: bool
    profile: Profile | None
    habits: Habits | None
    history: History | None
    scores: Score
    reasons: list[str]
    offers: list[Offer]
    consents: Consents


class Model(BaseModel):
    name: str
    version: str
    grade: str | None = Field(description="how good the backtest found it; null where it was not graded")
    trained_at: datetime
    trained_as_of: date | None
    answers_by: str | None = Field(description="what answers where that is not the model that was taught")
    withheld: str | None = Field(description="why its amounts are null, where they are")


class ModelAnswer(BaseModel):
    workspace: str
    as_of: date
    currency: str
    features_hash: str
    models: dict[str, Model]
    settings: dict[str, dict[str, Any]]
