"""The tools as an assistant reads of them: what each is for, what it takes, the shape of its answer, who may ask.

Texts of the shop and of its customers are in answers alone. Nothing here takes long to load: a client waits for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from serving.desk.visit import EVERYBODY, LISTS
from serving.http.keys import Role
from serving.lists.list_query import Band
from serving.lists.saved import LONGEST
from workspace import ids

MOST_ROWS = 50
Text = Annotated[str, StringConstraints(min_length=1, max_length=ids.LONGEST)]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Nothing(BaseModel):
    """No arguments."""

    model_config = ConfigDict(extra="forbid")


class ListAsked(BaseModel):
    model_config = ConfigDict(extra="forbid")

    top: int = Field(10, ge=1, le=MOST_ROWS, description="rows, at most; the totals are of the whole list")
    band: Band | None = Field(None, description="only this band of the risk of leaving")
    attribute: list[Text] = Field(
        [], max_length=10, examples=[["region:north"]],
        description="only who has this attribute, as `name:value`; of several all must hold. `list_choices` names them",
    )  # fmt: skip
    category: Text | None = Field(
        None, description="only who bought of this category in the last 365 days; `list_choices` names them"
    )
    min_value: Amount = Field(0.0, description="only customers whose lifetime value is at least this")
    max_value: Amount | None = Field(None, description="only customers whose lifetime value is at most this")
    sort: Literal["value_at_risk", "churn_probability", "lifetime_value"] = Field(
        "value_at_risk", description="highest first"
    )
    saved: Annotated[str, StringConstraints(min_length=1, max_length=LONGEST)] | None = Field(
        None, description="a list that somebody saved on the desk, by its name; its rules come in the place of these"
    )


class CustomerAsked(BaseModel):
    model_config = ConfigDict(extra="forbid")

    customer_id: Annotated[str, AfterValidator(ids.canonical)] = Field(
        min_length=1, max_length=1_000, description="as the shop writes it, or as a list has it"
    )


class ListedCustomer(BaseModel):
    """Somebody who may be contacted. A number is null where it is withheld or not known."""

    customer_id: str
    churn_probability: float | None
    churn_band: Band | None
    lifetime_value: float | None
    value_at_risk: float | None
    why: str = Field(description="why they may leave, in sentences")
    offer: str | None
    offer_kind: str | None
    contacts: dict[str, str | None] = Field(description="contact data, for keys that may see them")


class ListAnswer(BaseModel):
    """`summary` is of the whole list; `customers` are its first rows."""

    as_of: str = Field(description="what was known before this day")
    summary: str
    in_all: int = Field(description="customers on the whole list")
    at_risk_in_all: float | None = Field(description="the money that they put at risk together")
    currency: str
    customers: list[ListedCustomer]
    meaning: list[str] = Field(description="what the numbers mean, and how far each is proven")
    withheld: list[str] = Field(description="which numbers are not shown, and why")


class Choice(BaseModel):
    value: str
    customers: int = Field(description="listed customers who have it")


class ChoicesAnswer(BaseModel):
    as_of: str
    attributes: dict[str, list[Choice]] = Field(description="by name, for `attribute`")
    categories: list[Choice] = Field(description="bought in the last 365 days, for `category`")
    saved: list[str] = Field(description="lists that were saved on the desk, for `saved`")


class Offer(BaseModel):
    item: str
    probability: float
    kind: str


class Spent(BaseModel):
    day: str
    amount: float = Field(description="net; below 0 where goods were sent back")


class Happened(BaseModel):
    day: str
    what: str
    times: int


class Past(BaseModel):
    """The last of each, oldest first."""

    purchases: list[Spent]
    events: list[Happened]
    most_spent_on: list[str]


class CardAnswer(BaseModel):
    """One customer. A number is null where it is withheld, not known, or the customer objected to being profiled."""

    customer_id: str
    as_of: str
    who: list[str] = Field(description="who they are, in sentences")
    say_first: list[str] = Field(description="what may be said first; whether they may be contacted at all")
    why: list[str] = Field(description="why they may leave")
    next_order: list[str] = Field(description="when it is due, and how many are to be expected")
    churn_probability: float | None
    churn_band: Band | None
    churn_period_days: int
    lifetime_value: float | None
    lifetime_value_low: float | None
    lifetime_value_high: float | None
    lifetime_value_period_days: int
    value_at_risk: float | None
    currency: str
    not_scored_reason: str | None
    proven: dict[str, str] = Field(description="by number, how far it is proven")
    withheld: dict[str, str] = Field(description="by number, why it is not shown")
    offers: list[Offer]
    past: Past | None
    attributes: dict[str, Any] = Field(description="what the shop knows of them")
    consents: dict[str, bool | None] = Field(description="by purpose; null where nothing was said")
    contacts: dict[str, str] = Field(description="contact data, for keys that may see them")
    is_of_last_batch: bool = Field(description="whether the online store was away, so that newer events are not in it")


class WeekAnswer(BaseModel):
    as_of: str
    summary: str = Field(description="who may be contacted, and the money that they put at risk together")
    at_risk: float | None
    currency: str
    customers: int | None = Field(description="all who are known; null where no whole run has counted them")
    scored: int | None
    at_high_risk: int | None
    changed: list[str] = Field(description="who came and moved since the batch before")
    how_right: list[str]
    needs_a_look: list[str]


class Month(BaseModel):
    """The predictions of one month, against what came; amounts as they are written."""

    month: str
    predictions: str
    expected_to_leave: str
    left: str
    expected_value: str
    value_that_came: str


class RightAnswer(BaseModel):
    as_of: str
    sentences: list[str]
    months: list[Month]


class ModelTrust(BaseModel):
    title: str
    grade: Literal["A", "B", "C", "none"]
    meaning: str
    trained: str
    version: str
    answers_by: str | None = Field(description="the rule that answers in the model's place; null where the model does")
    withheld: str | None = Field(description="why its amounts are not shown")


class TrustAnswer(BaseModel):
    as_of: str
    models: list[ModelTrust]


class Tool(NamedTuple):
    """`is_of_whole_shop` is not for who is limited to a part of it."""

    title: str
    description: str
    roles: tuple[Role, ...]
    asked: type[BaseModel]
    answer: type[BaseModel]
    is_of_whole_shop: bool = False


TOOLS: Mapping[str, Tool] = {
    "churn_risk_list": Tool(
        "Whom to contact",
        "Who may leave and what is lost with them, highest money at risk first: why each may leave, what to offer, and"
        " what the whole list comes to. Only customers who may be contacted are on it. It answers: who should I call"
        " today, and why?",
        LISTS, ListAsked, ListAnswer,
    ),
    "list_choices": Tool(
        "What the list can be filtered by",
        "This shop's attributes and categories with their values, how many listed customers have each, and the lists"
        " that were saved under a name. Call it before you filter `churn_risk_list`.",
        LISTS, Nothing, ChoicesAnswer,
    ),
    "customer_card": Tool(
        "One customer",
        "One customer before a call: who they are, what to say first, why they may leave, what they are worth, offers,"
        " last purchases, and what they allow.",
        EVERYBODY, CustomerAsked, CardAnswer,
    ),
    "this_week": Tool(
        "This week",
        "How many customers there are, what is at risk, what changed since the last batch, and what needs a look.",
        EVERYBODY, Nothing, WeekAnswer,
    ),
    "how_right": Tool(
        "How right earlier predictions were",
        "What was expected of customers and what came of it, of predictions whose time is over.",
        EVERYBODY, Nothing, RightAnswer, is_of_whole_shop=True,
    ),
    "model_trust": Tool(
        "How far the numbers can be trusted",
        "The grade of each model in words, by what it would have said at earlier dates.",
        EVERYBODY, Nothing, TrustAnswer,
    ),
}  # fmt: skip
