"""Commands about the data: look at them, take them in, make features of them, make some up."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from perennial import month
from perennial.commands.app import AsOf, Config, Home, Set, alone, day_of, opened, shop_of, timed
from perennial.shop import now
from workspace import storage

if TYPE_CHECKING:
    pass


def check(
    config: Config,
    json: Annotated[Path | None, typer.Option("--json", help="File to write every figure to.")] = None,
    html: Annotated[Path | None, typer.Option("--html", help="File to write a page with pictures to.")] = None,
    overrides: Set = [], home: Home = None, as_of: AsOf = None,
) -> None:  # fmt: skip
    """Look at the data before anything else: what is in the tables, which models they suffice for, what looks wrong.

    Writes nothing into the workspace; exit 1 when no model can be trained.
    Example: perennial check -c configs/cdnow.yaml --as-of 1997-10-01 --html check.html
    """
    from training.check import data_report

    workspace = opened(config, overrides, home)
    day = day_of(workspace.timezone, as_of)
    checked = shop_of(workspace, timed()).at(day).check()
    typer.echo(data_report.as_text(checked))
    if json is not None:
        storage.write_json(json, data_report.as_data(checked))
        typer.echo(f"\nevery figure: {json}")
    if html is not None:
        with storage.replacing(html) as draft:
            draft.write_text(data_report.as_html(checked), encoding="utf-8")
        typer.echo(f"\nthe page: {html}")
    if not checked.suffices:
        raise typer.Exit(1)


def ingest(config: Config, overrides: Set = [], home: Home = None) -> None:
    """Bring the canonical tables up to date with their sources; bad rows go to quarantine with a reason.

    Example: perennial ingest -c configs/online_retail.yaml
    """
    workspace = opened(config, overrides, home)
    with alone(workspace):
        month.ingest(workspace, now(), typer.echo)


def snapshot(config: Config, overrides: Set = [], home: Home = None, as_of: AsOf = None) -> None:
    """Compute the features of one as_of, and of the earlier ones that training needs.

    Example: perennial snapshot -c configs/online_retail.yaml --as-of 2011-06-01
    """
    workspace = opened(config, overrides, home)
    with alone(workspace):
        month.snapshot(workspace, day_of(workspace.timezone, as_of), timed())


def campaigns(config: Config, overrides: Set = [], home: Home = None, as_of: AsOf = None) -> None:
    """What customers did after past campaign contacts, and which features would tell a model of the contacts.

    Needs the ingested tables, no model. Example: perennial campaigns -c configs/demo.yaml --as-of 2025-01-01
    """
    from monitoring.campaigns import as_text, response

    workspace = opened(config, overrides, home)
    typer.echo(as_text(response(workspace, day_of(workspace.timezone, as_of))))


def simulate(
    out: Annotated[Path, typer.Argument(help="Folder to write the tables to.")],
    customers: Annotated[int, typer.Option(min=1)] = 20_000,
    years: Annotated[float, typer.Option(min=0.1)] = 3.0,
    seed: Annotated[int, typer.Option(min=0)] = 7,
) -> None:
    """Write the five tables of a made-up shop whose truth is known.

    Example: perennial simulate var/world --customers 20000 --years 3 --seed 7
    """
    from simulation.world import simulate as make_world

    make_world(out, customers=customers, years=years, seed=seed, progress=timed())
