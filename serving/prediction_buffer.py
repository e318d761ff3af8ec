"""Answers on their way into the prediction log: put aside at once, written from time to time."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json
from pydantic_core import to_json

from serving import telemetry
from workspace import predictions, privacy
from workspace.predictions import Via
from workspace.settings import Workspace

_log = logging.getLogger("bentoml.perennial")

FLUSH_SECONDS = 5.0
"""What a killed service loses of its log, at most."""
_MOST = 200_000  # answers that wait: a disk that does not take them must not fill the memory


Answer = Mapping[str, Any] | bytes
"""With the columns of `scores` that it has, or as a JSON object of them."""


class _Given(NamedTuple):
    """The answers of one request; `trained` is the same of all of them."""

    workspace: Workspace
    via: Via
    horizon: int | None
    trained: Mapping[str, str | None]
    answers: Sequence[Answer]


class Served:
    """The answers of one process that are not in the log yet; `clock` says when they are written."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self.clock = clock
        self._lock = threading.Lock()
        self._waiting: list[_Given] = []
        self._count = 0

    def add(
        self, workspace: Workspace, answers: Sequence[Answer], via: Via, horizon: int | None = None,
        trained: Mapping[str, str | None] = MappingProxyType({}),
    ) -> None:  # fmt: skip
        """Puts answers aside. Those that find too many waiting are counted, and lost."""
        with self._lock:
            if self._count + len(answers) > _MOST:
                telemetry.UNLOGGED.inc(len(answers))
            elif answers:
                self._waiting.append(_Given(workspace, via, horizon, trained, answers))
                self._count += len(answers)

    def flush(self) -> None:
        """Writes what waits, but nothing of who was erased since; no answer fails for a log that cannot be written."""
        with self._lock:
            waiting, self._waiting, self._count = self._waiting, [], 0
        alike: dict[tuple[int, Via, int | None, tuple[Any, ...]], list[_Given]] = {}
        for given in waiting:
            of = id(given.workspace), given.via, given.horizon, tuple(given.trained.items())
            alike.setdefault(of, []).append(given)
        for together in alike.values():
            self._log(together[0], [answer for given in together for answer in given.answers])

    def _log(self, like: _Given, answers: Sequence[Answer]) -> None:
        home = like.workspace.home_path
        try:
            rows = _table(answers, like.trained)
            with privacy.keeping(home):
                gone = privacy.erased_among(home, rows["customer_id"].unique().to_pylist())
                stay = rows.filter(pc.invert(pc.is_in(rows["customer_id"], pa.array(gone, pa.string()))))
                predictions.log_served(like.workspace, stay, like.via, self.clock(), like.horizon)
        except Exception:  # a full disk, above all
            telemetry.UNLOGGED.inc(len(answers))
            _log.exception("%d predictions could not be logged", len(answers))


def _table(answers: Sequence[Answer], trained: Mapping[str, str | None]) -> pa.Table:
    """Read by Arrow, while Python answers: of tens of thousands of answers Python would make a second's work."""
    lines = b"\n".join(answer if isinstance(answer, bytes) else to_json(answer) for answer in answers)
    table = pyarrow.json.read_json(pa.BufferReader(lines), parse_options=_COLUMNS)
    days = {name: pa.repeat(pa.scalar(day, pa.string()), table.num_rows) for name, day in trained.items()}
    return pa.table({name: table[name] for name in table.column_names} | days)


# A day is read as a text.
_COLUMNS = pyarrow.json.ParseOptions(
    explicit_schema=pa.schema(
        [(field.name, pa.string() if field.type == pa.date32() else field.type) for field in predictions.ANSWERED]
    ),
    unexpected_field_behavior="ignore",
)
