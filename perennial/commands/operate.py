"""Commands that put the others in order: a run, its monitoring, its schedule, the demonstration."""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from perennial import month
from perennial.commands.app import AsOf, Config, Every, Home, Schedule, Set, alone, day_of, opened, timed, words_of
from perennial.shop import now, options


def run(config: Config, overrides: Set = [], home: Home = None, as_of: AsOf = None) -> None:
    """All of it in order: ingest, snapshot, monitor, train, promote, score, publish. Started again, it goes on.

    Trains where there is no champion, the champion is older than retraining.max_age, or drift matters; promotes what
    passes the gate. What it did is on a page in the home's `reports` folder; what needs a look goes to `alerts`. Exit 1
    when it breaks off, the gate refuses, or there is drift and no new champion.

    Example: perennial run -c configs/online_retail.yaml --as-of 2011-06-01
    """
    workspace = opened(config, overrides, home)
    with alone(workspace):
        if month.run(workspace, day_of(workspace.timezone, as_of), options(config, overrides, home), now, timed()):
            raise typer.Exit(1)


def monitor(
    config: Config,
    ui: Annotated[bool, typer.Option("--ui", help="Look around in Evidently's own pages of the latest runs.")] = False,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Of --ui, on this machine alone.")] = 8000,
    overrides: Set = [], home: Home = None, as_of: AsOf = None,
) -> None:  # fmt: skip
    """Hold earlier predictions against what happened, and the world of as_of against the one the champion learnt from.

    Exit 1 when it has moved. Pages and JSON go to the home's `reports` folder.
    Example: perennial monitor -c configs/online_retail.yaml --as-of 2011-06-01
    """
    workspace = opened(config, overrides, home)
    if ui:
        from monitoring import report

        report.serve(workspace, port)
        return
    with alone(workspace):
        drift, _ = month.monitor(workspace, day_of(workspace.timezone, as_of), timed())
    if drift.drifted:
        raise typer.Exit(1)


def schedule(
    config: Config, every: Annotated[Every, typer.Option(help="How often; a week begins on Monday.")] = Every.month,
    at: Annotated[datetime, typer.Option(formats=["%H:%M"], help="In the workspace's timezone.")] = "04:00",  # type: ignore[assignment]
    only: Annotated[Schedule | None, typer.Option(help="One of the three, to put into a file.")] = None,
    overrides: Set = [], home: Home = None,
) -> None:  # fmt: skip
    """Print what makes `perennial run` run by itself: lines for cron, or a service and a timer for systemd.

    Example: perennial schedule -c configs/online_retail.yaml --every month --at 04:00
    """
    from perennial import schedule as schedules

    workspace, folder = opened(config, overrides, home), Path.cwd()
    command = [str(Path(sys.executable).with_name("perennial")), "run", *words_of(config, overrides, home)]
    time_of_day = f"{at:%H:%M}"
    texts = {
        Schedule.cron: schedules.crontab(workspace, command, folder, every.value, time_of_day),
        Schedule.service: schedules.service(workspace.name, command, folder),
        Schedule.timer: schedules.timer(workspace, every.value, time_of_day),
    }
    if only is not None:
        typer.echo(texts[only], nl=False)
        return
    unit = f"/etc/systemd/system/perennial-{workspace.name}"
    typer.echo(f"# Either cron: `crontab -e`, and add\n{texts[Schedule.cron]}")
    typer.echo(f"# or systemd: {unit}.service\n{texts[Schedule.service]}")
    typer.echo(
        f"# {unit}.timer, then `systemctl enable --now perennial-{workspace.name}.timer`\n{texts[Schedule.timer]}"
    )


def demo(
    customers: Annotated[int, typer.Option(min=1000)] = 20_000,
    port: Annotated[int, typer.Option(help="For the service; a free one if absent.")] = 0,
    stay: Annotated[bool, typer.Option("--stay", help="Leave the desk open in the end, until Ctrl-C.")] = False,
) -> None:
    """See it all on a made-up shop: simulate, run, list, serve, ask, stop.

    Example: perennial demo --customers 20000
    """
    from perennial.demo import demo as show

    show(customers, port, stay)
