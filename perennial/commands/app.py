"""What the commands share: options, the shop they open, its sole use, the day, and their line in the audit log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import date, datetime
from enum import StrEnum
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Annotated
from zoneinfo import ZoneInfo

import typer

from perennial.shop import Shop, now
from workspace import registry, settings
from workspace.settings import Workspace

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None,
    help="Which customers are about to leave, what each will be worth, and what each will buy next.",
)  # fmt: skip
list_app = typer.Typer(no_args_is_help=True, help="Lists to act on.")
churn_app = typer.Typer(no_args_is_help=True, help="What leaving means, and who is about to.")
keys_app = typer.Typer(no_args_is_help=True, help="The keys of those who may ask the service.")

Config = Annotated[Path, typer.Option("--config", "-c", help="Workspace file, e.g. configs/online_retail.yaml.")]
Set = Annotated[list[str], typer.Option("--set", help="key.path=value over the file; may be repeated.")]
Home = Annotated[Path | None, typer.Option("--home", help="Folder for the workspace's state, over the file's.")]
AsOf = Annotated[
    datetime | None,
    typer.Option("--as-of", formats=["%Y-%m-%d"], help="What was known before this day; today if absent."),
]
Out = Annotated[Path | None, typer.Option("--out", help="File to write; the terminal if absent.")]


def _kind(name: str) -> str:
    """A kind of model, as it is typed."""
    try:
        lower = name.strip().lower()
        return registry.as_kind(lower if lower.replace("-", "_") in registry.KINDS else name)
    except ValueError as problem:
        raise typer.BadParameter(str(problem)) from problem


_SPELT = "churn|lifetime-value|cross-sell"
OneModel = Annotated[str, typer.Argument(parser=_kind, metavar=_SPELT, help="The model.")]
AnyModel = Annotated[str | None, typer.Argument(parser=_kind, metavar=_SPELT, help="One model; all if absent.")]


class Format(StrEnum):
    csv = "csv"
    xlsx = "xlsx"
    json = "json"


class Band(StrEnum):
    low = "low"
    medium = "medium"
    high = "high"


class Sort(StrEnum):
    value_at_risk = "value_at_risk"
    churn_probability = "churn_probability"
    lifetime_value = "lifetime_value"


class WinBackSort(StrEnum):
    lifetime_value = "lifetime_value"
    spend = "spend"
    last_purchase = "last_purchase"


class CrossSellSort(StrEnum):
    probability = "probability"
    lifetime_value = "lifetime_value"
    value_at_risk = "value_at_risk"


class OfferKind(StrEnum):
    repeat = "repeat"
    new = "new"


class Every(StrEnum):
    day = "day"
    week = "week"
    month = "month"


class Schedule(StrEnum):
    cron = "cron"
    service = "service"
    timer = "timer"


class For(StrEnum):
    """What a key is for."""

    crm = "crm"
    marketing = "marketing"
    admin = "admin"


class Exported(StrEnum):
    scores = "scores"
    offers = "offers"
    features = "features"


BandOption = Annotated[Band | None, typer.Option(case_sensitive=False, help="Only this band: low, medium or high.")]
UnprovenOffers = Annotated[
    bool, typer.Option("--unproven-offers", help="Also name offers of a model whose grade is none.")
]


def opened(config: Path, overrides: list[str], home: Path | None) -> Workspace:
    return settings.read(config, overrides, home)


def words_of(config: Path, overrides: Sequence[str], home: Path | None) -> list[str]:
    """The options that name a workspace, wherever they are typed."""
    words = ["-c", str(config.resolve()), *(word for override in overrides for word in ("--set", override))]
    return [*words, "--home", str(home.resolve())] if home else words


def day_of(timezone: str, as_of: datetime | None) -> date:
    if as_of is not None:
        return as_of.date()
    day = today(timezone)
    typer.echo(f"as_of is today, {day}")
    return day


def today(timezone: str) -> date:
    """Where the shop is."""
    return now().astimezone(ZoneInfo(timezone)).date()


def shop_of(workspace: Workspace, say: Callable[[str], None] | None = None, command: str = "") -> Shop:
    """The shop, held in the name of `command`, or else of the words that were typed before any option."""
    words = command or " ".join(["perennial", *takewhile(lambda word: not word.startswith("-"), sys.argv[1:])])
    return Shop(workspace, say=say or partial(typer.echo, err=True), words=words, role="command line")


def alone(workspace: Workspace, command: str = "") -> AbstractContextManager[None]:
    """Sole use of the workspace."""
    return shop_of(workspace, command=command).alone()


def note(
    workspace: Workspace, what: str, asked: Mapping[str, object], rows: int, customers: Sequence[str] = ()
) -> None:
    """Leaves a line in the audit log, as every read over HTTP does."""
    shop_of(workspace).note(what, asked, rows, customers)


def timed() -> Callable[[str], None]:
    """Progress on the terminal, each line with the seconds since the start."""
    start = time.monotonic()
    return lambda message: typer.echo(f"{time.monotonic() - start:7.1f} s  {message}", err=True)
