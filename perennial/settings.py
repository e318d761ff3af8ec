"""A workspace file, read once into one frozen model that refuses what it does not know."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

# Where the shipped configurations find the real data sets when the environment does not say.
_DEFAULT_ENVIRONMENT = {"PERENNIAL_DATASETS": str(Path(__file__).resolve().parents[2] / "shared" / "data")}


class SettingsError(ValueError):
    """A workspace file, or an override of it, that cannot be used. The command line exits with 2."""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def _one_or_many(value: Any) -> Any:
    return (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list) else value


class Table(_Model):
    """Where one canonical table comes from and how its columns map."""

    path: Annotated[tuple[str, ...] | None, BeforeValidator(_one_or_many)] = Field(
        None, description="a Parquet or CSV file, a glob, a folder, or a list of them"
    )
    database: str | None = Field(
        None, description="SQLAlchemy URL of a database (its password from the environment: `${SHOP_DATABASE}`)"
    )
    table: str | None = Field(None, description="the table to read from `database`")
    encoding: Literal["utf-8", "latin-1", "utf-16"] = Field("utf-8", description="of CSV files")
    where: str | None = Field(None, description="DuckDB condition; rows it drops are filtered, not quarantined")
    group_by: str | None = Field(
        None, description="DuckDB expression; one row per value of it, the columns are then aggregates"
    )
    columns: dict[str, str] = Field(
        default_factory=dict, description="canonical column: source column, or a DuckDB expression; same name if absent"
    )
    duplicates: Literal["quarantine", "keep"] = Field(
        "quarantine", description="what to do with a transaction line repeated in every mapped column"
    )
    complete: bool = Field(
        False, description="for `customers`: rows of other tables that name a customer absent from it are quarantined"
    )

    @model_validator(mode="after")
    def _one_source(self) -> Table:
        if (self.path is None) == (self.database is None):
            raise ValueError("name either `path` or `database`")
        if (self.database is None) != (self.table is None):
            raise ValueError("`database` and `table` go together")
        return self


class Tables(_Model):
    """The five canonical tables; only `transactions` is required."""

    transactions: Table = Field(description="purchases, one row per line")
    interactions: Table | None = Field(None, description="visits, complaints, e-mails, campaign contacts ...")
    customers: Table | None = Field(None, description="sign-up, consents and attributes, one row per customer")
    products: Table | None = Field(None, description="categories, one row per product")
    campaigns: Table | None = Field(None, description="one row per campaign")

    def given(self) -> dict[str, Table]:
        """The tables that the workspace names, dimensions first (their ids are checked against)."""
        order = ("customers", "products", "campaigns", "transactions", "interactions")
        return {name: table for name in order if (table := getattr(self, name)) is not None}


class Churn(_Model):
    kind: Literal["inactivity", "event"] = Field(
        "inactivity", description="`inactivity`: no purchase in the horizon; `event`: a `cancellation` interaction"
    )
    active_window: int = Field(365, ge=1, description="days; who bought in the last this many can still churn")
    gap: int = Field(0, ge=0, description="days between as_of and the start of the outcome window")
    horizon: int = Field(90, ge=1, description="days of the outcome window")


class LifetimeValue(_Model):
    horizon: int = Field(90, ge=1, description="days of spend to predict")
    discount_rate: float = Field(0.0, ge=0, lt=1, description="per year")


class CrossSell(_Model):
    level: Literal["category", "item"] = Field("category", description="what to rank")
    horizon: int = Field(90, ge=1, description="days in which the next purchase counts")
    top: int = Field(5, ge=1, le=100, description="offers per customer")


class Training(_Model):
    cutoffs: int = Field(12, ge=1, le=60, description="as_of dates to learn from, at most")
    spacing: int = Field(30, ge=1, description="days between them")
    min_history: int = Field(90, ge=1, description="days of purchases before the first of them")
    seed: int = Field(7, ge=0, description="of every random choice")


class Bands(_Model):
    medium: float = Field(0.4, gt=0, lt=1, description="churn probability from which risk is medium")
    high: float = Field(0.7, gt=0, lt=1, description="churn probability from which risk is high")

    @model_validator(mode="after")
    def _ordered(self) -> Bands:
        if self.medium >= self.high:
            raise ValueError(f"medium ({self.medium}) must be below high ({self.high})")
        return self


class Monitoring(_Model):
    sample: int = Field(10_000, ge=100, description="rows a side that the drift report compares")
    drifted_share: float = Field(0.3, gt=0, le=1, description="share of drifted features that counts as drift")


class Service(_Model):
    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(3000, ge=1, le=65535, description="port to listen on")
    max_ids: int = Field(1000, ge=1, description="customers in one request, at most")


class Workspace(_Model):
    """One workspace file: where the tables are, how they map, and what to predict."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$", description="lower case; also the folder and the models' prefix")
    home: str | None = Field(None, description="folder of its state; `var/<name>` if absent")
    timezone: str = Field("UTC", description="whose days count, and of times without a zone")
    currency: str = Field("EUR", min_length=3, max_length=3, description="of every amount")
    tables: Tables = Field(description="the canonical tables' sources")
    attributes: Annotated[tuple[str, ...], BeforeValidator(_one_or_many)] = Field(
        (), description="columns of `customers` that describe them, usable as features"
    )
    max_quarantined: float = Field(
        0.2, ge=0, le=1, description="share of a source's rows that may be quarantined before ingest fails"
    )
    churn: Churn = Field(default_factory=Churn, description="what leaving means")
    lifetime_value: LifetimeValue = Field(default_factory=LifetimeValue, description="what value means")
    cross_sell: CrossSell = Field(default_factory=CrossSell, description="what to offer")
    training: Training = Field(default_factory=Training, description="which past to learn from")
    bands: Bands = Field(default_factory=Bands, description="where risk becomes medium and high")
    monitoring: Monitoring = Field(default_factory=Monitoring, description="when to say that the world moved")
    service: Service = Field(default_factory=Service, description="where the HTTP service listens")

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (KeyError, ValueError, OSError) as problem:
            raise ValueError(f"{value!r} is not a time zone; use a name such as Europe/London") from problem
        return value

    @model_validator(mode="after")
    def _attributes_have_a_table(self) -> Workspace:
        if self.attributes and self.tables.customers is None:
            raise ValueError("attributes are columns of `tables.customers`, which is not given")
        return self

    @property
    def home_path(self) -> Path:
        return Path(self.home or f"var/{self.name}").resolve()

    @property
    def longest_horizon(self) -> int:
        """Days after an as_of until every model's outcome is known."""
        return max(self.churn.gap + self.churn.horizon, self.lifetime_value.horizon, self.cross_sell.horizon)


def read(path: Path, overrides: Sequence[str] = (), home: Path | None = None) -> Workspace:
    """The workspace that `path` describes, `key.path=value` overrides applied over it.

    Raises:
        SettingsError: the file is missing or not YAML, a key is unknown, a value has the wrong type.
    """
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as problem:
        raise SettingsError(f"{path}: no such workspace file; `configs/` has examples") from problem
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as problem:
        raise SettingsError(f"{path} cannot be read as YAML: {problem}") from problem
    if not isinstance(raw, dict):
        raise SettingsError(f"{path} must hold `name:` and `tables:`; it holds {type(raw).__name__}")
    for override in overrides:
        _apply(raw, override)
    if home is not None:
        raw["home"] = str(home)
    return parse(raw, str(path))


def parse(raw: Mapping[str, Any], where: str) -> Workspace:
    """A workspace from plain data; environment variables in its texts are filled in."""
    try:
        return Workspace.model_validate(_expand(raw, where))
    except ValidationError as problem:
        lines = [f"  {'.'.join(map(str, e['loc'])) or '(top)'}: {_message(e)}" for e in problem.errors()[:5]]
        raise SettingsError(f"{where} has {problem.error_count()} wrong setting(s):\n" + "\n".join(lines)) from problem


def _message(error: Any) -> str:
    if error["type"] == "extra_forbidden":
        return "no such setting; docs/settings.md lists them all"
    return f"{error['msg']} (it is {error['input']!r:.60})" if error["type"] != "missing" else "required, and absent"


def _apply(raw: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise SettingsError(f"--set {override}: expected key.path=value, for example --set churn.horizon=60")
    *parents, last = key.split(".")
    node = raw
    for parent in parents:
        node = node.setdefault(parent, {})
        if not isinstance(node, dict):
            raise SettingsError(f"--set {override}: {parent} is a value, not a group of settings")
    node[last] = yaml.safe_load(text)


def _expand(value: Any, where: str) -> Any:
    if isinstance(value, Mapping):
        return {key: _expand(item, where) for key, item in value.items()}
    if isinstance(value, list):
        return [_expand(item, where) for item in value]
    if isinstance(value, str):
        return re.sub(r"\$\{(\w+)\}", lambda match: _environment(match[1], where), value)
    return value


def _environment(name: str, where: str) -> str:
    value = os.environ.get(name, _DEFAULT_ENVIRONMENT.get(name))
    if value is None:
        raise SettingsError(f"{where} uses ${{{name}}}, which is not set in the environment: export {name}=...")
    return value
