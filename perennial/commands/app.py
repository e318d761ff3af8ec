"""What the commands share: options, the shop they open, its sole use, the day, and their line in the audit log.

The clock is read here, and nowhere else.
"""

from __future__ import annotations

import errno
import getpass
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime
from enum import StrEnum
from itertools import takewhile
from pathlib import Path
from typing import Annotated
from zoneinfo import ZoneInfo

import typer

from perennial import registry, settings, storage
from perennial.settings import SettingsError, Workspace
from perennial.storage import CheckFailed

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


def now() -> datetime:
    return datetime.now(UTC)


def opened(config: Path, overrides: list[str], home: Path | None) -> Workspace:
    return settings.read(config, overrides, home)


def day_of(workspace: Workspace, as_of: datetime | None) -> date:
    if as_of is not None:
        return as_of.date()
    day = today(workspace)
    typer.echo(f"as_of is today, {day}")
    return day


def today(workspace: Workspace) -> date:
    """Where the shop is."""
    return now().astimezone(ZoneInfo(workspace.timezone)).date()


@contextmanager
def alone(workspace: Workspace, command: str = "") -> Iterator[None]:
    """Sole use of the workspace, in the name of `command`, or else of the words that were typed before any option."""
    words = command or " ".join(["perennial", *takewhile(lambda word: not word.startswith("-"), sys.argv[1:])])
    process = f"process {os.getpid()} of {_user()} on {platform.node()}"
    with storage.locked(workspace.home_path, f"`{words}` ({process}) since {now():%Y-%m-%d %H:%M:%S} UTC"):
        _erase_who_waits(workspace)
        yield


def _erase_who_waits(workspace: Workspace) -> None:
    """Customers whose erasure was asked of the service while another command was at work."""
    from serving.erasure_queue import ErasureQueue

    if not ErasureQueue(workspace.home_path).waiting():
        return
    from serving import erasure

    try:
        if count := erasure.finish(workspace, now()):
            typer.echo(f"{count:,} customers who waited for it are erased", err=True)
    except (SettingsError, CheckFailed) as problem:
        typer.echo(f"customers wait to be erased, who are in no answer meanwhile: {problem}", err=True)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # of a container, whose user has no name
        return f"user {os.getuid()}"


def timed() -> Callable[[str], None]:
    """Progress on the terminal, each line with the seconds since the start."""
    start = time.monotonic()
    return lambda message: typer.echo(f"{time.monotonic() - start:7.1f} s  {message}", err=True)


def note(
    workspace: Workspace, what: str, asked: Mapping[str, object], rows: int, customers: Sequence[str] = (),
    secret: bool = False,
) -> None:  # fmt: skip
    """Leaves a line in the audit log, as every read over HTTP does; without it nothing is shown that is `secret`.

    Raises:
        OSError: it cannot be written, though the home is not read-only.
        CheckFailed: it cannot be written, and contact data would be shown.
    """
    from serving.audit import AuditLog, Read

    read, log = Read(_user(), "command line", what, now(), asked, rows, customers), AuditLog(workspace.home_path)
    if secret:
        try:
            log.add(read)
        except OSError as problem:
            raise CheckFailed(
                f"{log.path} cannot be written ({problem.strerror}): contact data are not shown without a line there"
            ) from problem
    else:
        with if_read_only("no line of the audit log says who has read this"):
            log.add(read)


@contextmanager
def if_read_only(so: str) -> Iterator[None]:
    """In a home that is read-only, what should be noted there is not: that is said, and the command goes on."""
    try:
        yield
    except OSError as problem:
        if problem.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise
        typer.echo(f"the home is read-only, so {so}", err=True)
