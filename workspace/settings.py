"""A workspace file, read once into one frozen model that refuses what it does not know."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from difflib import get_close_matches
from itertools import chain
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, get_args
from zoneinfo import available_timezones

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)

from workspace import storage
from workspace.tables import CUSTOMERS

# Settings that are addresses, with their schemes. They may need a password, so they are kept as they are written, and
# filled in only where they are opened: what is stored of the settings never holds a secret.
_ADDRESSES = {"online": "redis|rediss", "registry": "postgresql|postgres", "events": "postgresql|postgres"}
_AS_WRITTEN = {*_ADDRESSES, "alerts"}


class SettingsError(ValueError):
    """A workspace file, or an override of it, that cannot be used. The command line exits with 2.

    >>> perennial.open("shop.yaml", overrides=["churn.horizn=60"])
    Traceback (most recent call last):
    workspace.settings.SettingsError: ...
    """


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def _one_or_many(value: Any) -> Any:
    return (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list) else value


_NAME = r"^[a-z][a-z0-9_]*$"
_VARIABLE = r"\$\{\w+\}"
_Name = Annotated[str, StringConstraints(pattern=_NAME)]
_Items = Annotated[tuple[str, ...], BeforeValidator(_one_or_many)]


class Table(_Model):
    """Where one canonical table comes from and how its columns map."""

    path: Annotated[tuple[str, ...] | None, BeforeValidator(_one_or_many)] = Field(
        default=None, description="a Parquet or CSV file, a glob, a folder, or a list of them"
    )
    database: SecretStr | None = Field(
        default=None,
        description="SQLAlchemy URL of a database; since it holds a password, name a variable: `${SHOP_DATABASE}`",
    )
    table: str | None = Field(
        default=None, description="the table or view to read from `database`, `schema.table` if need be"
    )
    encoding: Literal["utf-8", "latin-1", "windows-1252", "utf-16"] = Field(default="utf-8", description="of CSV files")
    skip_lines: int = Field(default=0, ge=0, description="lines of a CSV file before its header")
    fill_down: Annotated[tuple[str, ...], BeforeValidator(_one_or_many)] = Field(
        default=(),
        description="source columns that only the first line of an order has; its further lines take them over",
    )
    where: str | None = Field(default=None, description="DuckDB condition; rows it drops are filtered, not quarantined")
    group_by: str | None = Field(
        default=None, description="DuckDB expression; one row per value of it, the columns are then aggregates"
    )
    columns: dict[str, str] = Field(
        default_factory=dict, description="canonical column: source column, or a DuckDB expression; same name if absent"
    )
    duplicates: Literal["quarantine", "keep"] = Field(
        default="quarantine", description="what to do with a transaction line repeated in every mapped column"
    )
    revision: Literal["add", "replace"] = Field(
        default="add",
        description="for `transactions`: what a later source's lines of an order do, when an earlier source has others"
        " of it: `add` to them, or `replace` them, also where none of the later ones can count",
    )
    complete: bool = Field(
        default=False,
        description="for `customers`: rows of other tables that name a customer absent from it are quarantined",
    )

    @model_validator(mode="after")
    def _one_source(self) -> Table:
        if (self.path is None) == (self.database is None):
            raise ValueError("name either `path` or `database`")
        if self.path is not None and not (self.path and all(self.path)):
            raise ValueError("`path` names no file")
        if (self.database is None) != (self.table is None):
            raise ValueError("`database` and `table` go together")
        return self


class Tables(_Model):
    """The five canonical tables; only `transactions` is required."""

    transactions: Table = Field(description="purchases, one row per line")
    interactions: Table | None = Field(default=None, description="visits, complaints, e-mails, campaign contacts ...")
    customers: Table | None = Field(default=None, description="sign-up, consents and attributes, one row per customer")
    products: Table | None = Field(default=None, description="categories, one row per product")
    campaigns: Table | None = Field(default=None, description="one row per campaign")

    def given(self) -> dict[str, Table]:
        """The tables that the workspace names, dimensions first (their ids are checked against)."""
        order = ("customers", "products", "campaigns", "transactions", "interactions")
        return {name: table for name in order if (table := getattr(self, name)) is not None}


class Boosting(_Model):
    """How a model's boosters learn; `perennial train --tune` finds them. What is absent is the model's own."""

    rounds: int | None = Field(default=None, ge=1, le=5000, description="trees of a booster; the model's own if absent")
    learning_rate: float | None = Field(default=None, gt=0, le=1, description="what a tree's answer counts")
    num_leaves: int | None = Field(default=None, ge=2, le=1024, description="leaves of a tree")
    min_child_samples: int | None = Field(default=None, ge=1, description="rows in a leaf, at least")
    feature_fraction: float | None = Field(default=None, gt=0, le=1, description="share of the columns a tree may use")
    lambda_l2: float | None = Field(default=None, ge=0, description="pull of a leaf's answer towards none")

    def parameters(self) -> dict[str, float]:
        """Of LightGBM, by its names; without those that are the model's own, and without the rounds."""
        given = {
            "learning_rate": self.learning_rate, "num_leaves": self.num_leaves, "lambda_l2": self.lambda_l2,
            "min_child_samples": self.min_child_samples, "feature_fraction": self.feature_fraction,
        }  # fmt: skip
        return {name: value for name, value in given.items() if value is not None}


_Features = Annotated[tuple[str, ...], BeforeValidator(_one_or_many)]
_FEATURES = "features, or families of them, that the booster is shown; all if absent"


class Churn(_Model):
    kind: Literal["inactivity", "event"] = Field(
        default="inactivity",
        description="`inactivity`: no purchase in the horizon; `event`: a `cancellation` interaction, or the customer's"
        " `contract_ends_at`",
    )
    inactivity: Literal["fixed", "personal"] = Field(
        default="fixed",
        description="`fixed`: the same horizon for all; `personal`: `patience` times the customer's own mean gap,"
        " at most the horizon",
    )
    patience: float = Field(default=3.0, ge=1, description="usual gaps of silence that make a customer gone; personal")
    min_purchases: int = Field(
        default=1, ge=1, description="purchases from which a customer is scored; personal inactivity needs 2"
    )
    active_window: int = Field(default=365, ge=1, description="days; who bought in the last this many can still churn")
    gap: int = Field(default=0, ge=0, description="days between as_of and the start of the outcome window")
    horizon: int = Field(default=90, ge=1, description="days of the outcome window")
    allow_leaks: bool = Field(
        default=False, description="train although a column gives the outcome away; the run then says so"
    )
    features: _Features = Field(default=(), description=_FEATURES)
    boosting: Boosting = Field(default_factory=Boosting, description="how its booster learns")


class LifetimeValue(_Model):
    horizon: int = Field(default=90, ge=1, description="days of spend to predict")
    discount_rate: float = Field(default=0.0, ge=0, lt=1, description="per year")
    measure: Literal["spend", "margin"] = Field(
        default="spend",
        description="what a purchase is worth: `spend`, or `margin` (amount less cost) where cost is known",
    )
    interval: float = Field(
        default=0.8, gt=0, lt=1, description="share of outcomes that the lower and upper bound are to hold"
    )
    features: _Features = Field(default=(), description=_FEATURES)
    boosting: Boosting = Field(default_factory=Boosting, description="how its boosters learn")


class CrossSell(_Model):
    level: Literal["category", "item"] = Field(default="category", description="what to rank")
    horizon: int = Field(default=90, ge=1, description="days in which the next purchase counts")
    top: int = Field(default=5, ge=1, le=100, description="offers per customer")
    kind: Literal["both", "repeat", "new"] = Field(
        default="both", description="what to offer: what the customer bought before (`repeat`), what not (`new`)"
    )
    segment: str | None = Field(
        default=None,
        pattern=_NAME,
        description="the attribute whose value says what who has not bought yet is offered: what sells in that segment",
    )
    stock: _Items = Field(
        default=(), description="the only items to offer, or a .csv or .parquet file with them in a column `item`"
    )
    exclude: _Items = Field(default=(), description="items never to offer, or files of them, as for `stock`")
    margin_floor: float | None = Field(
        default=None,
        lt=1,
        description="least margin of an offered item: 1 - unit_cost / list_price, summed over a category's products",
    )
    one_off: float = Field(
        default=0.01,
        ge=0,
        lt=1,
        description="an item that a smaller share of its buyers bought again is not offered to who has it",
    )
    features: _Features = Field(default=(), description=_FEATURES)
    boosting: Boosting = Field(default_factory=Boosting, description="how its booster learns")


class Training(_Model):
    cutoffs: int = Field(default=12, ge=1, le=60, description="as_of dates to learn from, at most")
    spacing: int = Field(default=30, ge=1, description="days between them")
    min_history: int = Field(default=90, ge=1, description="days of purchases before the first of them")
    seed: int = Field(default=7, ge=0, description="of every random choice")
    backtest_cutoffs: int = Field(
        default=3, ge=1, le=60, description="closed cutoffs that a training, or `backtest`, is judged at, at most"
    )
    customers: int = Field(
        default=50_000,
        ge=1000,
        description="customers to learn from at each of them, at most; above, a sample by their ids",
    )
    backtest_customers: int = Field(
        default=20_000, ge=1000, description="customers that a backtest looks at, at most; above, a sample by their ids"
    )


class Promotion(_Model):
    refresh: Literal["no_worse", "better"] = Field(
        default="no_worse",
        description="what a version must be that differs from the champion only in what it learnt from: `no_worse`, or"
        " `better` beyond noise, as every other version must",
    )
    calibration_loss: float = Field(
        default=0.01,
        ge=0,
        le=1,
        description="how much further off probabilities may be (0.01 is one point), or the total value (1 %)",
    )
    segment_loss: float = Field(
        default=0.02, ge=0, le=1, description="how much of the main metric a segment may lose (auc, ngini, ndcg)"
    )
    latency: float = Field(
        default=20.0, gt=0, description="milliseconds of a processor that one customer's answer may take"
    )
    size: float = Field(default=50.0, gt=0, description="megabytes that the model's files may have")


class Bands(_Model):
    medium: float = Field(default=0.4, gt=0, lt=1, description="churn probability from which risk is medium")
    high: float = Field(default=0.7, gt=0, lt=1, description="churn probability from which risk is high")

    @model_validator(mode="after")
    def _ordered(self) -> Bands:
        if self.medium >= self.high:
            raise ValueError(f"medium ({self.medium}) must be below high ({self.high})")
        return self


class Monitoring(_Model):
    sample: int = Field(default=10_000, ge=100, description="rows a side that the drift report compares")
    page_columns: int = Field(
        default=20,
        ge=0,
        description="columns on Evidently's pages of customers: what is predicted, then the features that moved"
        " farthest or came nearest to it; 0 for all",
    )
    drifted_share: float = Field(
        default=0.3,
        gt=0,
        le=1,
        description="share of moved features that counts as drift; more, where the shop's own past months moved more",
    )
    matters_share: float = Field(
        default=0.3,
        gt=0,
        le=1,
        description="of what the champion decides by; more than this drifted is drift that matters",
    )
    keep_predictions: int = Field(
        default=800, ge=1, description="days before the latest as_of for which predictions stay in the log"
    )
    prediction_space: float = Field(
        default=2000.0, gt=0, description="megabytes that the log of predictions may take; the oldest as_ofs go first"
    )


class Retraining(_Model):
    max_age: int = Field(default=90, ge=1, description="days after which `run` trains a challenger of a champion anew")
    promote: Literal["gate", "person"] = Field(
        default="gate",
        description="who makes a challenger of `run` the champion: the `gate`, where it passes, or a `person`, with"
        " `perennial promote`",
    )


class Email(_Model):
    to: Annotated[tuple[str, ...], BeforeValidator(_one_or_many)] = Field(description="addresses to write to")
    sender: str = Field(description="address that the messages come from")
    host: str = Field(description="name of the SMTP server")
    port: int = Field(default=587, ge=1, le=65535, description="port of the SMTP server")
    security: Literal["starttls", "tls", "none"] = Field(
        default="starttls", description="`starttls`; `tls` from the first byte, port 465; or `none`"
    )
    user: str | None = Field(default=None, description="name to log in with; no log-in if absent")
    password: str | None = Field(
        default=None, pattern=f"^{_VARIABLE}$", description="a variable of the environment: `${SMTP_PASSWORD}`"
    )


class Alerts(_Model):
    """Kept as they are written, and filled in from the environment only when they are used."""

    file: str | None = Field(
        default=None, description="file that gets a line of JSON for each alert; `alerts.jsonl` in the home if absent"
    )
    webhook: str | None = Field(
        default=None,
        pattern=_VARIABLE,
        description="address that alerts are posted to as JSON; since it holds a secret, name a variable:"
        " `${ALERTS_WEBHOOK}`",
    )
    email: Email | None = Field(default=None, description="whom to write to")
    reports: str | None = Field(
        default=None,
        description="address at which the home's `reports` folder can be opened, for links; the file's path if absent",
    )
    repeat_after: int = Field(default=30, ge=1, description="days after which what is still so is told again")


_RULE = r"^[a-z][a-z0-9_]*:\s*\S"
_Rules = Annotated[
    tuple[Annotated[str, StringConstraints(pattern=_RULE)], ...], BeforeValidator(_one_or_many), Field(min_length=1)
]


class Oidc(_Model):
    """The company's own accounts. The client's secret, where it has one, is in PERENNIAL_OIDC_SECRET."""

    issuer: str = Field(pattern="^https?://", description="address of the provider, as its tokens name it")
    client_id: str = Field(description="what the provider calls this service")
    roles: dict[str, Literal["crm", "marketing", "admin"]] = Field(
        description="role of each group that may sign in; of several the highest counts"
    )
    contacts: Annotated[tuple[str, ...], BeforeValidator(_one_or_many)] = Field(
        default=(), description="groups that may see contact data"
    )
    scopes: dict[str, _Rules] = Field(
        default_factory=dict,
        description="part of the shop that each of some groups is limited to, as `region:north` of the attributes: who"
        " is in such groups sees their parts, and nothing else",
    )
    claim: str = Field(default="groups", description="claim of the token that names somebody's groups")
    scope: str = Field(default="openid profile", description="what the provider is asked for")
    address: str | None = Field(
        default=None, pattern="^https?://", description="this service's own, as browsers reach it; as asked, if absent"
    )


class Service(_Model):
    host: str = Field(default="127.0.0.1", description="address to listen on")
    port: int = Field(default=3000, ge=1, le=65535, description="port to listen on")
    tls_certificate: str | None = Field(
        default=None, description="file of the certificate chain (PEM); with `tls_key` the service speaks HTTPS only"
    )
    tls_key: str | None = Field(default=None, description="file of the certificate's private key (PEM)")
    rate_limit: float = Field(
        default=1000.0, gt=0, description="requests per second of one key that each worker answers; more get a 429"
    )
    max_ids: int = Field(default=1000, ge=1, description="customers in one request, at most")
    max_body: int = Field(default=2_000_000, ge=1000, description="bytes of a request's body, at most")
    max_requests: int = Field(
        default=64, ge=1, description="requests that a worker has under way, at most; further ones get a 503 at once"
    )
    timeout: float = Field(
        default=10.0, gt=0,
        description="seconds until a request that has no answer yet gets a 503; not where all that is held of a"
        " customer is shown or erased",
    )  # fmt: skip
    read_timeout: float = Field(
        default=10.0, gt=0, description="seconds until the headers of a request, and then its body, must be there"
    )
    workers: int = Field(default=1, ge=1, le=64, description="processes that answer; one for each core, less one")
    when_down: Literal["stale", "refuse"] = Field(
        default="stale",
        description="while the online store is out of reach: `stale` answers with what the last batch wrote, marked so;"
        " `refuse` with a 503",
    )

    own_page_address: str | None = Field(
        default=None, pattern="^https?://",
        description="what links to customers' own pages begin with, as customers reach the service; as it was asked,"
        " if absent",
    )  # fmt: skip
    other_desks: dict[str, Annotated[str, Field(pattern="^https?://")]] = Field(
        default={}, description="desks of other workspaces, by what they are called: each page of this one leads there"
    )
    oidc: Oidc | None = Field(
        default=None,
        description="signing in to the desk with the company's accounts; with keys alone if absent",
    )

    @model_validator(mode="after")
    def _certificate_has_a_key(self) -> Service:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("`tls_certificate` and `tls_key` go together")
        return self


class Workspace(_Model):
    """One workspace file: where the tables are, how they map, and what to predict."""

    name: str = Field(pattern=_NAME, description="lower case; also the folder and the models' prefix")
    home: str | None = Field(default=None, description="folder of its state; `var/<name>` if absent")
    timezone: str = Field(default="UTC", description="whose days count, and of times without a zone")
    currency: str = Field(default="EUR", pattern="^[A-Z]{3}$", description="of every amount; its ISO code")
    tables: Tables = Field(description="the canonical tables' sources")
    attributes: Annotated[tuple[_Name, ...], BeforeValidator(_one_or_many)] = Field(
        default=(),
        description="columns of `customers` that describe them, usable as features; names in lower case",
    )
    pii: Annotated[tuple[_Name, ...], BeforeValidator(_one_or_many)] = Field(
        default=(),
        description="columns of `customers` that say how to reach them (`email`): encrypted with the key in"
        " PERENNIAL_PRIVACY_KEY, shown in lists to who may see them, never a feature",
    )
    pseudonyms: bool = Field(
        default=False,
        description="whether every customer_id is replaced by a hash of it, keyed with PERENNIAL_PRIVACY_KEY, as it is"
        " taken in",
    )
    max_quarantined: float = Field(
        default=0.2, ge=0, le=1, description="share of a source's rows that may be quarantined before ingest fails"
    )
    memory: float = Field(
        default=6.0, ge=0.1,
        description="gigabytes that ingest and features may hold before they spill to the disk; scores and offers take"
        " about a quarter of it for a block of customers at a time",
    )  # fmt: skip
    churn: Churn = Field(default_factory=Churn, description="what leaving means")
    lifetime_value: LifetimeValue = Field(default_factory=LifetimeValue, description="what value means")
    cross_sell: CrossSell = Field(default_factory=CrossSell, description="what to offer")
    training: Training = Field(default_factory=Training, description="which past to learn from")
    promotion: Promotion = Field(default_factory=Promotion, description="what a new version must reach to answer")
    bands: Bands = Field(default_factory=Bands, description="where risk becomes medium and high")
    monitoring: Monitoring = Field(default_factory=Monitoring, description="when to say that the world moved")
    retraining: Retraining = Field(default_factory=Retraining, description="when to train anew, and who decides")
    alerts: Alerts = Field(default_factory=Alerts, description="whom to tell what needs a look")
    service: Service = Field(default_factory=Service, description="where the HTTP service listens")
    engine: Literal["duckdb", "spark"] = Field(
        default="duckdb",
        description="what computes and joins features: `duckdb`, on this machine, or `spark`, where one is outgrown",
    )
    online: str = Field(
        default="sqlite",
        description="where published features lie: `sqlite`, in the home, or `redis://host:port/db`; with a password,"
        " name a variable: `${REDIS_URL}`",
    )
    registry: str = Field(
        default="sqlite",
        description="where Feast keeps its definitions: `sqlite`, in the home, or `postgresql://host/name`; with a"
        " password, name a variable: `${FEAST_REGISTRY}`",
    )
    events: str = Field(
        default="sqlite",
        description="where the service keeps the events it accepts: `sqlite`, in the home, or `postgresql://host/name`;"
        " with a password, name a variable: `${EVENTS_URL}`",
    )

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        if value not in available_timezones() - {"localtime"}:
            near = ", ".join(get_close_matches(value, available_timezones(), 2)) or "Europe/London"
            raise ValueError(f"not a time zone; use a name such as {near}")
        return value

    @model_validator(mode="after")
    def _attributes_have_a_table(self) -> Workspace:
        if self.attributes and self.tables.customers is None:
            raise ValueError("attributes are columns of `tables.customers`, which is not given")
        segment = self.cross_sell.segment
        if segment is not None and segment not in self.attributes:
            raise ValueError(f"cross_sell.segment is {segment}, which is none of the attributes")
        return self

    @model_validator(mode="after")
    def _scopes_are_of_attributes(self) -> Workspace:
        limits = self.service.oidc.scopes if self.service.oidc else {}
        names = {rule.partition(":")[0] for rules in limits.values() for rule in rules}
        if unknown := names - {*self.attributes}:
            there = ", ".join(self.attributes) or "none"
            raise ValueError(
                f"service.oidc.scopes names {min(unknown)}, which is none of the attributes; there are: {there}"
            )
        return self

    @model_validator(mode="after")
    def _pii_is_nothing_else(self) -> Workspace:
        if self.pii and self.tables.customers is None:
            raise ValueError("pii are columns of `tables.customers`, which is not given")
        if used := {*self.attributes, *CUSTOMERS.names} & {*self.pii}:
            raise ValueError(f"`{min(used)}` is under `pii` and would be used as a feature; name it once")
        return self

    @model_validator(mode="after")
    def _addresses_hold_no_password(self) -> Workspace:
        """Of the whole model, since the message about one setting would show its value."""
        for name, schemes in _ADDRESSES.items():
            address = getattr(self, name)
            if not re.match(rf"sqlite$|({schemes})://.|\$\{{\w+\}}$", address):
                raise ValueError(f"`{name}` is `sqlite`, an address {schemes.split('|')[0]}://..., or a ${{VARIABLE}}")
            if re.search(r":(?!\$\{\w+\}@)[^/@]+@", address.partition("://")[2]):
                raise ValueError(
                    f"`{name}` holds a password in the clear; put the address into a variable of the environment"
                    f" and write {name}: ${{VARIABLE}}"
                )
        return self

    @property
    def home_path(self) -> Path:
        return Path(self.home or f"var/{self.name}").resolve()

    @property
    def longest_horizon(self) -> int:
        """Days after an as_of until every model's outcome is known."""
        return max(self.churn.gap + self.churn.horizon, self.lifetime_value.horizon, self.cross_sell.horizon)


_MOST_NODES = 100_000  # values, keys and groups; lists of items to offer have files of their own
_MERGE = "tag:yaml.org,2002:merge"


class _Loader(yaml.SafeLoader):
    """YAML lets a key that is written twice silently win over the first, and lets a few lines with aliases stand for
    more values than a machine can hold; here both are errors."""

    def get_single_node(self) -> yaml.Node | None:
        node = super().get_single_node()
        if node is not None:
            _refuse_large(node, {})
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value if key.tag != _MERGE]
        counts = Counter(key for key in keys if isinstance(key, Hashable))  # PyYAML refuses the others
        if twice := next((key for key, count in counts.items() if count > 1), None):
            raise yaml.constructor.ConstructorError(None, None, f"`{twice}` is written twice", node.start_mark)
        return super().construct_mapping(node, deep)


def _refuse_large(node: yaml.Node, sizes: dict[int, int]) -> int:
    """How many values a node stands for, every alias counted as what it names; `sizes` are those that are known.

    Raises:
        YAMLError: too many, or one that holds itself.
    """
    size = sizes.get(id(node))
    if size is None:
        sizes[id(node)] = _MOST_NODES + 1  # for who meets it again inside itself
        inner = chain.from_iterable(node.value) if isinstance(node, yaml.MappingNode) else node.value
        size = 1 if isinstance(node, yaml.ScalarNode) else 1 + sum(_refuse_large(one, sizes) for one in inner)
        sizes[id(node)] = size
    if size > _MOST_NODES:
        said = f"this stands for more than {_MOST_NODES:,} values, its aliases written out; name files instead"
        raise yaml.constructor.ConstructorError(None, None, said, node.start_mark)
    return size


def _loaded(text: str) -> Any:
    """
    Raises:
        YAMLError: it is none, or more than is needed to describe a workspace.
    """
    try:
        return yaml.load(text, _Loader)
    except RecursionError as problem:
        raise yaml.YAMLError("it is nested too deeply") from problem
    except ValueError as problem:  # a date that no calendar has, a number of thousands of digits
        raise yaml.YAMLError(str(problem)) from problem


def read(path: Path, overrides: Sequence[str] = (), home: Path | None = None) -> Workspace:
    """The workspace that `path` describes, `key.path=value` overrides applied over it.

    Raises:
        SettingsError: the file is missing or not YAML, a key is unknown, a value has the wrong type.
    """
    try:
        raw = _loaded(path.read_text(encoding="utf-8"))
    except FileNotFoundError as problem:
        raise SettingsError(f"{path}: no such workspace file; `configs/` has examples") from problem
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as problem:
        raise SettingsError(f"{path} cannot be read as YAML: {problem}") from problem
    if not isinstance(raw, dict):
        raise SettingsError(f"{path} must hold `name:` and `tables:`; it holds {type(raw).__name__}")
    raw = _spelt(raw, str(path))
    for override in overrides:
        _apply(raw, override)
    if home is not None:
        raw["home"] = str(home)
    return parse(raw, str(path))


def kept(home: Path) -> Path:
    """Where a home keeps the settings that it was last published with."""
    return home / "workspace.json"


def keep(workspace: Workspace) -> None:
    """Keeps the settings in the home, for the service."""
    storage.write_json(kept(workspace.home_path), workspace.model_dump(mode="json", exclude_none=True))


def of_home(home: Path) -> Workspace:
    """The settings that a workspace was last published with, wherever its home has been moved to.

    Raises:
        SettingsError: nothing was run there.
    """
    path = kept(home)
    if not path.exists():
        raise SettingsError(f"{path} does not exist: run `perennial run -c FILE --as-of DATE` before serving")
    return parse({**json.loads(path.read_text(encoding="utf-8")), "home": str(home)}, str(path))


def parse(raw: Mapping[str, Any], where: str) -> Workspace:
    """A workspace from plain data; environment variables in its texts are filled in, but for addresses."""
    try:
        named = _spelt(raw, where)
        expanded = {key: value if key in _AS_WRITTEN else filled(value, where) for key, value in named.items()}
        return Workspace.model_validate(expanded)
    except ValidationError as problem:
        lines = [f"  {'.'.join(map(str, e['loc'])) or '(top)'}: {_message(e)}" for e in problem.errors()[:5]]
        raise SettingsError(f"{where} has {problem.error_count()} wrong setting(s):\n" + "\n".join(lines)) from None


def _spelt(raw: Mapping[str, Any], where: str) -> dict[str, Any]:
    """With the groups by their names, which may be written with a dash: `lifetime-value`.

    Raises:
        SettingsError: a group is there in both spellings.
    """
    twice = [key for key in raw if _name_of(key) != key and _name_of(key) in raw]
    if twice:
        raise SettingsError(f"{where}: `{twice[0]}` and `{_name_of(twice[0])}` are the same group; write it once")
    return {_name_of(key): value for key, value in raw.items()}


def _name_of(key: str) -> str:
    name = str(key).replace("-", "_")
    return name if name in Workspace.model_fields else key


def _message(error: Any) -> str:
    """What is wrong with one setting. A group is not shown: it may hold the address of a database."""
    if error["type"] == "extra_forbidden":
        return f"no such setting; docs/settings.md lists them all{_meant(error['loc'])}"
    if error["type"] == "missing":
        return "required, and absent"
    text = error["msg"].removeprefix("Value error, ")
    pattern = error["ctx"]["pattern"] if error["type"] == "string_pattern_mismatch" else ""
    if _VARIABLE in pattern:
        return "holds a secret, so it must name a variable of the environment: ${VARIABLE}"
    if pattern == _NAME:
        text = "must be lower-case letters, digits and underscores, a letter first"
    if pattern == _RULE:
        text = "must be `name:value` of an attribute, such as region:north"
    return text if isinstance(error["input"], Mapping) else f"{text} (it is {error['input']!r:.60})"


def _meant(location: Sequence[str | int]) -> str:
    """The existing settings beside an unknown one that is spelt like it."""
    model: Any = Workspace
    for key in location[:-1]:
        model = group_of(model.model_fields[str(key)].annotation)
    near = get_close_matches(str(location[-1]), model.model_fields, 1)
    return f" (did you mean {near[0]}?)" if near else ""


def group_of(annotation: Any) -> type[BaseModel] | None:
    """The model of a setting that is a group of settings, by its field's annotation; none where it is a value."""
    options = get_args(annotation) if isinstance(annotation, UnionType) else (annotation,)
    return next((kind for kind in options if isinstance(kind, type) and issubclass(kind, BaseModel)), None)


def _apply(raw: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    *parents, last = key.split(".")
    parents[:1] = map(_name_of, parents[:1])
    if not separator or not all((*parents, last)):
        raise SettingsError(f"--set {override}: expected key.path=value, for example --set churn.horizon=60")
    node = raw
    for parent in parents:
        node = node.setdefault(parent, {})
        if not isinstance(node, dict):
            raise SettingsError(f"--set {override}: {parent} is a value, not a group of settings")
    try:
        node[last] = _loaded(text)
    except yaml.YAMLError as problem:
        said = str(problem).splitlines()[0]
        raise SettingsError(
            f"--set {override:.200}: the value is not YAML; quote it, as in '{key}=\"...\"' ({said})"
        ) from problem


def filled(value: Any, where: str) -> Any:
    """`value` with every `${NAME}` in its texts replaced by that variable of the environment.

    Raises:
        SettingsError: it is not set, or empty; `where` says who asked.
    """
    if isinstance(value, Mapping):
        return {key: filled(item, where) for key, item in value.items()}
    if isinstance(value, list):
        return [filled(item, where) for item in value]
    if isinstance(value, str):
        return re.sub(r"\$\{(\w+)\}", lambda match: _environment(match[1], where), value)
    return value


def _environment(name: str, where: str) -> str:
    value = os.environ.get(name)
    if not value:
        raise SettingsError(f"{where} uses ${{{name}}}, which is not set in the environment: export {name}=...")
    return value
