"""Answers on their way into the prediction log: put aside at once, written from time to time."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import pandas as pd

from serving import telemetry
from workspace import predictions, privacy
from workspace.predictions import Via
from workspace.settings import Workspace

_log = logging.getLogger("bentoml.perennial")

FLUSH_SECONDS = 5.0
"""What a killed service loses of its log, at most."""
_MOST = 200_000  # answers that wait: a disk that does not take them must not fill the memory


class _Given(NamedTuple):
    """The answers of one request, with the columns of `scores` that they have."""

    workspace: Workspace
    via: Via
    horizon: int | None
    answers: Sequence[dict[str, Any]]


class Served:
    """The answers of one process that are not in the log yet; `clock` says when they are written."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self.clock = clock
        self._lock = threading.Lock()
        self._waiting: list[_Given] = []
        self._count = 0

    def add(
        self, workspace: Workspace, answers: Sequence[dict[str, Any]], via: Via, horizon: int | None = None
    ) -> None:
        """Puts answers aside. Those that find too many waiting are counted, and lost."""
        with self._lock:
            if self._count + len(answers) > _MOST:
                telemetry.UNLOGGED.inc(len(answers))
            else:
                self._waiting.append(_Given(workspace, via, horizon, answers))
                self._count += len(answers)

    def flush(self) -> None:
        """Writes what waits, but nothing of who was erased since; no answer fails for a log that cannot be written."""
        with self._lock:
            waiting, self._waiting, self._count = self._waiting, [], 0
        alike: dict[tuple[int, Via, int | None], list[_Given]] = {}
        for given in waiting:
            alike.setdefault((id(given.workspace), given.via, given.horizon), []).append(given)
        for (_, via, horizon), together in alike.items():
            answers, workspace = [answer for given in together for answer in given.answers], together[0].workspace
            try:
                with privacy.keeping(workspace.home_path):
                    gone = privacy.erased_among(workspace.home_path, {answer["customer_id"] for answer in answers})
                    stay = pd.DataFrame([answer for answer in answers if answer["customer_id"] not in gone])
                    predictions.log_served(workspace, stay, via, self.clock(), horizon)
            except Exception:  # a full disk, above all
                telemetry.UNLOGGED.inc(len(answers))
                _log.exception("%d predictions could not be logged", len(answers))
