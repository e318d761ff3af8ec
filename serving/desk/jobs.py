"""Long work beside the service: commands, each a process of its own, which no page waits for.

A job is a folder in the home: `job.json` says what was typed and by whom, `output.txt` is what the command says, and
`ended.json`, once it is over, the code that it ended with. Whoever is at work holds a lock, which the system takes away
from a process that is killed: so every process of the service, and one that was started since, sees how a job stands.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import cached_property
from pathlib import Path
from typing import Literal

from workspace import registry, storage
from workspace.storage import CheckFailed

OPTIONS_VARIABLE = "PERENNIAL_OPTIONS"
"""The words, as JSON, that name the workspace on the command line: those that the service was started with."""
DATED = ("run", "monitor", "check", "backtest")
LONGEST_REASON = 300
State = Literal["running", "done", "refused", "failed", "stopped"]
_SHOWN, _LINES = 20_000, 20  # of an output's end: bytes that are read, and lines that are shown
_TRIES, _PAUSE = 10, 0.05  # seconds: a job that has just noted its end still has the lock for a moment
_NOT_FOR_JOBS = ("PROMETHEUS_MULTIPROC_DIR", "PERENNIAL_API_KEY")


@dataclass(frozen=True)
class Job:
    """One command. `state` is `refused` where the command did what it could and says that something needs a look."""

    folder: Path
    words: tuple[str, ...]
    who: str
    started: datetime
    is_at_work: bool

    @property
    def number(self) -> int:
        return int(self.folder.name)

    @property
    def command(self) -> str:
        return self.words[0]

    def option(self, name: str) -> str:
        """What follows an option among the words; empty without it."""
        joined = [word.partition("=")[2] for word in self.words if word.startswith(f"{name}=")]
        return joined[0] if joined else ""

    @property
    def kind(self) -> str:
        """Of model, where the command is about one."""
        return self.words[1].replace("-", "_") if self.command in ("promote", "rollback") else ""

    @cached_property
    def code(self) -> int | None:
        """None of a job that is at work, or was stopped before it could say it."""
        path = self.folder / "ended.json"
        return int(storage.read_json(path)["code"]) if path.exists() else None

    @property
    def ended(self) -> datetime | None:
        path = self.folder / "ended.json"
        return datetime.fromtimestamp(path.stat().st_mtime, UTC) if path.exists() else None

    @property
    def state(self) -> State:
        if self.code is None:
            return "running" if self.is_at_work else "stopped"
        if self.code == 0:
            return "done"
        return "refused" if self.code == 1 and not self.error else "stopped" if self.code < 0 else "failed"

    @cached_property
    def output(self) -> str:
        """The end of what the command has said so far."""
        path = self.folder / "output.txt"
        if not path.exists():
            return ""
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _SHOWN))
            return file.read().decode(errors="replace")

    @property
    def last_lines(self) -> str:
        return "\n".join(self.output.rstrip().splitlines()[-_LINES:])

    @property
    def error(self) -> str:
        """The sentence that it failed with; of a defect of ours, what Python says last."""
        told = re.findall(r"^error: (.+(?:\n(?!error: ).+)*)", self.output, re.M)
        if not told and re.search(r"^Traceback \(most recent call last\):", self.output, re.M):
            told = self.output.rstrip().splitlines()[-1:]
        return str(told[-1]) if told else ""

    @property
    def stage(self) -> tuple[int, int, str] | None:
        """Of a run: the stage that it is in, how many there are, and the stage's name."""
        told = re.findall(r"\[(\d+)/(\d+)\] (\w+)", self.output)
        return (int(told[-1][0]), int(told[-1][1]), told[-1][2]) if told else None


class Jobs:
    """The jobs of one workspace, one at a time."""

    def __init__(self, home: Path) -> None:
        self.home, self.folder = home, home / "jobs"

    def start_dated(self, command: str, as_of: date, who: str, now: datetime) -> Job:
        """A command about a day.

        Raises:
            ValueError: it is none of `DATED`.
            CheckFailed: as `start`.
        """
        if command not in DATED:
            raise ValueError(f"{command} is none of {', '.join(DATED)}")
        page = [f"--html={self.home / 'reports' / f'check-{as_of}.html'}"] if command == "check" else []
        return self._start([command, f"--as-of={as_of}", *page], who, now)

    def start_promotion(self, kind: str, version: int, reason: str, who: str, now: datetime) -> Job:
        """Makes a version the champion where the gate lets it, or, with a reason, whatever the gate says.

        Raises:
            ValueError: there is no such kind, or the reason is too long or has characters that nobody sees.
            CheckFailed: as `start`.
        """
        reason = " ".join(reason.split())
        if len(reason) > LONGEST_REASON or not reason.isprintable():
            raise ValueError(f"a reason has at most {LONGEST_REASON} characters, on one line")
        forced = [f"--force={reason}"] if reason else []
        return self._start(["promote", _spelt(kind), f"--version={version}", *forced], who, now)

    def start_rollback(self, kind: str, who: str, now: datetime) -> Job:
        """Lets the version that answered before answer again.

        Raises:
            ValueError: there is no such kind.
            CheckFailed: as `start`.
        """
        return self._start(["rollback", _spelt(kind)], who, now)

    def _start(self, words: Sequence[str], who: str, now: datetime) -> Job:
        """
        Raises:
            CheckFailed: another job is at work, or nobody knows what names the workspace.
        """
        options = os.environ.get(OPTIONS_VARIABLE)
        if options is None:
            raise CheckFailed("only a service that `perennial serve` has started can start work: type it instead")
        storage.make_folder(self.folder)
        with self._sole_use() as lock:
            number = max(self._numbers(), default=0) + 1
            folder = self.folder / str(number)
            storage.write_json(folder / "job.json", {"words": words, "who": who, "started": now.isoformat()})
            own = [sys.executable, "-m", "perennial", *words, *json.loads(options)]
            process = subprocess.Popen(
                [sys.executable, "-m", "serving.desk.job_keeper", str(folder), *own], stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True, pass_fds=[lock],
                env={name: value for name, value in os.environ.items() if name not in _NOT_FOR_JOBS},
            )  # fmt: skip
        threading.Thread(target=process.wait, daemon=True).start()  # else it would stay a zombie
        return self.of(number)

    @contextmanager
    def _sole_use(self) -> Iterator[int]:
        """The lock's descriptor; a process that is started meanwhile holds the lock for as long as it lives."""
        descriptor = os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            if not _locks(descriptor):
                raise CheckFailed("another job is at work: wait until it has ended")
            yield descriptor
        finally:
            os.close(descriptor)

    def is_at_work(self) -> bool:
        lock = self.folder / ".lock"
        if not lock.exists():
            return False
        with lock.open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    def listed(self, most: int = 20) -> list[Job]:
        """The latest first."""
        return [self.of(number) for number in sorted(self._numbers(), reverse=True)[:most]]

    def of(self, number: int) -> Job:
        """
        Raises:
            KeyError: there is no such job.
        """
        path = self.folder / str(number) / "job.json"
        if not path.exists():
            raise KeyError(number)
        is_at_work = number == max(self._numbers()) and self.is_at_work()  # asked before whether it has ended
        noted = storage.read_json(path)
        started = datetime.fromisoformat(noted["started"])
        return Job(path.parent, tuple(noted["words"]), noted["who"], started, is_at_work)

    def _numbers(self) -> list[int]:
        return [int(path.parent.name) for path in self.folder.glob("*/job.json") if path.parent.name.isdecimal()]


def _locks(descriptor: int) -> bool:
    """Whether the lock could be had."""
    for _ in range(_TRIES):
        with suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        time.sleep(_PAUSE)
    return False


def _spelt(kind: str) -> str:
    """As the command line has it."""
    return registry.as_kind(kind).replace("_", "-")
