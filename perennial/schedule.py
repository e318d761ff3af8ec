"""Running a workspace on its own, regularly: a line for cron, and units for systemd."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Literal

from workspace.settings import Workspace

Every = Literal["day", "week", "month"]

_CRON = {"day": "* * *", "week": "* * 1", "month": "1 * *"}
_SYSTEMD = {"day": "*-*-*", "week": "Mon *-*-*", "month": "*-*-01"}


def crontab(workspace: Workspace, command: list[str], folder: Path, every: Every, at: str) -> str:
    """Two lines of a crontab; cron takes a `%` for the end of the line unless a backslash is before it."""
    hour, minute = at.split(":")
    home = shlex.quote(str(workspace.home_path))
    line = f"cd {shlex.quote(str(folder))} && mkdir -p {home} && {shlex.join(command)} >> {home}/run.log 2>&1"
    escaped = line.replace("%", r"\%")
    return f"CRON_TZ={workspace.timezone}\n{int(minute)} {int(hour)} {_CRON[every]} {escaped}\n"


def service(name: str, command: list[str], folder: Path) -> str:
    """The systemd unit of one run; secrets are in a file that it reads, if there is one."""
    program, *words = map(_quoted, command)
    return f"""[Unit]
Description=Perennial's run of {name}
After=network-online.target
Wants=network-online.target

[Service]
Type=oneshot
WorkingDirectory={_escaped(str(folder))}
EnvironmentFile=-/etc/perennial/{name}.env
ExecStart={" ".join([program, *(word.replace("$", "$$") for word in words)])}
Nice=10
"""


def timer(workspace: Workspace, every: Every, at: str) -> str:
    """The systemd unit that says when; a run that was missed while the machine was off is made up for."""
    return f"""[Unit]
Description=Perennial's run of {workspace.name}, every {every}

[Timer]
OnCalendar={_SYSTEMD[every]} {at}:00 {workspace.timezone}
Persistent=true

[Install]
WantedBy=timers.target
"""


def _quoted(word: str) -> str:
    """A word of ExecStart: systemd splits at spaces that no quotes enclose, and expands `$` in all but the program."""
    inside = _escaped(word).replace("\\", r"\\").replace('"', r"\"")
    return f'"{inside}"'


def _escaped(text: str) -> str:
    return text.replace("%", "%%")
