"""Commands about the data: look at them, take them in, make features of them, make some up."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from perennial import month, storage
from perennial.commands.app import AsOf, Config, Home, Set, alone, day_of, now, opened, timed
from perennial.settings import Workspace
from perennial.storage import CheckFailed

if TYPE_CHECKING:
    from perennial.ingest import Account


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
    import tempfile

    from training import data_check, data_report

    workspace = opened(config, overrides, home)
    day, say = day_of(workspace, as_of), timed()
    with tempfile.TemporaryDirectory() as scratch:
        trial = workspace.model_copy(update={"home": scratch})
        found = data_check.check(trial, _trial_intake(workspace, trial, say), day, say)
    typer.echo(data_report.as_text(found))
    if json is not None:
        storage.write_json(json, data_report.as_data(found))
        typer.echo(f"\nevery figure: {json}")
    if html is not None:
        with storage.replacing(html) as draft:
            draft.write_text(data_report.as_html(found), encoding="utf-8")
        typer.echo(f"\nthe page: {html}")
    if not found.suffices:
        raise typer.Exit(1)


def _trial_intake(workspace: Workspace, trial: Workspace, say: Callable[[str], None]) -> list[Account]:
    """What `ingest` would take in, taken into a scratch folder that no message names, with what customers have said."""
    from perennial import consents, privacy
    from perennial.ingest import ingest as take_in

    consents.copy(workspace.home_path, trial.home_path)
    if marks := privacy.erased(workspace.home_path):
        privacy.note_erased(trial.home_path, marks)
    try:
        return take_in(trial, now(), say)
    except CheckFailed as problem:
        kept = f"`perennial ingest` puts them in {workspace.home_path}"
        raise CheckFailed(str(problem).replace(f"They are in {trial.home_path}", kept)) from problem


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
        month.snapshot(workspace, day_of(workspace, as_of), timed())


def campaigns(config: Config, overrides: Set = [], home: Home = None, as_of: AsOf = None) -> None:
    """What customers did after past campaign contacts, and which features would tell a model of the contacts.

    Needs the ingested tables, no model. Example: perennial campaigns -c configs/demo.yaml --as-of 2025-01-01
    """
    from monitoring.campaigns import as_text, response

    workspace = opened(config, overrides, home)
    typer.echo(as_text(response(workspace, day_of(workspace, as_of))))


def simulate(
    out: Annotated[Path, typer.Argument(help="Folder to write the tables to.")],
    customers: Annotated[int, typer.Option(min=1)] = 20_000,
    years: Annotated[float, typer.Option(min=0.1)] = 3.0,
    seed: Annotated[int, typer.Option(min=0)] = 7,
) -> None:
    """Write the five tables of a made-up shop whose truth is known.

    Example: perennial simulate var/world --customers 20000 --years 3 --seed 7
    """
    from perennial.simulate import simulate as make_world

    make_world(out, customers=customers, years=years, seed=seed, progress=timed())
