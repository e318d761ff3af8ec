"""Keeps online features up with events: recomputes those of the customers they are about, and pushes them.

A process of its own beside those that answer. Which events are shown is noted only after they are; killed in between,
it shows them again, which changes nothing: features are computed from all that is known, not added to.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import date, datetime
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb

from features import online, publications, retrieval
from features.fresh import FreshFeatures
from features.online import Row
from features.publications import Publication
from ingest import events
from ingest.events import Event, Trouble
from serving import telemetry
from workspace import privacy, settings
from workspace.storage import CheckFailed
from workspace.windows import days_after

if TYPE_CHECKING:
    import numpy as np
    from feast import FeatureStore
    from numpy.typing import NDArray

_log = logging.getLogger("bentoml.perennial")
_PAUSE = 0.25  # seconds between looks at the store
_PAUSE_AFTER_TROUBLE = 2.0
_TRY_AGAIN = 60.0  # seconds until what was set aside is tried again, and what is still wrong is logged again
_AT_ONCE = 500  # customers recomputed together
_STORE_PATIENCE = 5.0
_State = tuple[Publication, tuple[tuple[int, ...] | None, int | None], int]


class Freshness:
    """Shows the events of one workspace in what it has published."""

    def __init__(self, home: Path, clock: Callable[[], datetime]) -> None:
        self.home, self.clock = home, clock
        self.opened: _State | None = None
        self.trouble = events.trouble(home)
        self._try_again = self._log_again = 0.0

    def run(self, stopping: Callable[[], bool]) -> None:
        """Catches up again and again until told to stop; trouble is told and gone through again."""
        while not stopping():
            try:
                self.catch_up()
                time.sleep(_PAUSE)
            # A batch at work, a store that is down or full, a privacy key that is not there: none may end this.
            except Exception as problem:
                self._tell(problem)
                time.sleep(_PAUSE_AFTER_TROUBLE)

    def catch_up(self) -> int:
        """Shows every event that was accepted so far in the scores of the publication that answers; returns how many.

        Events of a customer whose features cannot be computed are set aside, told, and tried again later.

        Raises:
            CheckFailed: the days are being built, or the online store or the store of events does not answer.
            StaleFeatures: the online store has lost the publication.
            SettingsError: somebody was erased, and there is no privacy key to recognise whom.
        """
        publication = publications.published(self.home)
        if publication is None:
            return 0
        if self._state(publication) != self.opened:
            self._open(publication)
        # Before it keeps up: what is accepted in between may be in the features already, and is shown again.
        until, applied = self.events.last_number(), self.events.applied(publication.view)
        self.fresh.keep_up()
        new = self._waiting(publication, applied, until)
        since = self.events.waiting_since(new[0].number - 1) if new else None
        telemetry.EVENT_LAG.set(self._seconds_since(since))
        waiting = [*new, *self._tried_again()]
        failed = self._show(publication, {event.customer_id for event in waiting}) if waiting else {}
        self._note_set_aside(waiting, failed)
        if new or applied is None:
            self.events.note_applied(publication.view, until)
        if since is not None and applied is not None:  # else they were shown before, by the publication before
            telemetry.EVENT_DELAY.observe(self._seconds_since(since))
        shown = sum(event.number not in self.trouble.set_aside for event in waiting)
        telemetry.EVENTS.labels("shown").inc(shown)
        telemetry.EVENT_LAG.set(0)
        self._note(replace(self.trouble, problem=None, since=None))
        return shown

    def _seconds_since(self, then: datetime | None) -> float:
        return (self.clock() - then).total_seconds() if then else 0.0

    def _tell(self, problem: Exception) -> None:
        """Puts why nothing is shown where `/readyz`, the alerts and the metrics find it."""
        said, before = _in_a_line(problem), self.trouble
        self._note(replace(before, problem=said, since=before.since or self.clock()))
        telemetry.EVENT_LAG.set(self._seconds_since(self._waiting_since() or self.trouble.since))
        if said != before.problem or time.monotonic() >= self._log_again:
            self._log_again = time.monotonic() + _TRY_AGAIN
            _log.warning("events wait: %s", said)

    def _waiting_since(self) -> datetime | None:
        """When the first event was accepted that is not shown; none where that cannot be told."""
        try:
            publication = publications.published(self.home)
            applied = self.events.applied(publication.view) if publication else None
            return None if applied is None else self.events.waiting_since(applied)
        except (AttributeError, CheckFailed):  # the store of events was not opened yet, or does not answer
            return None

    def _note_set_aside(self, tried: Sequence[Event], failed: Mapping[str, str]) -> None:
        before, numbers = self.trouble.set_aside, {event.number for event in tried}
        why_not = {event.number: failed.get(event.customer_id) for event in tried} | self.fresh.refused
        aside = {number: why for number, why in why_not.items() if number in numbers and why is not None}
        for number in aside.keys() - before.keys():
            _log.error("event %d is set aside: %s", number, aside[number])
        aside |= {number: why for number, why in before.items() if number not in numbers}
        telemetry.SET_ASIDE.set(len(aside))
        self._note(replace(self.trouble, set_aside=aside))

    def _note(self, trouble: Trouble) -> None:
        """Where a full disk does not take the note, it stays as it was: `/readyz` then tells of the disk."""
        if trouble != self.trouble:
            self.trouble = trouble
            with suppress(OSError):
                events.note_trouble(self.home, trouble)

    def _tried_again(self) -> list[Event]:
        """The events that were set aside, once a minute: a later version may know how to sum them up."""
        aside = self.trouble.set_aside
        if not aside or time.monotonic() < self._try_again:
            return []
        self._try_again = time.monotonic() + _TRY_AGAIN
        again = self.events.read(f"number IN ({', '.join(map(str, sorted(aside)))})")
        self.fresh.hold([event for event in again if event.number in self.fresh.refused])
        stay = {event.number for event in again}  # the others were of customers who were erased since
        self._note(replace(self.trouble, set_aside={number: why for number, why in aside.items() if number in stay}))
        return again

    def _open(self, publication: Publication) -> None:
        """Opens what belongs to a publication, which holds nothing of who was erased.

        Its first query is put together before an event waits for it.
        """
        self._close()
        state, workspace = self._state(publication), settings.of_home(self.home)
        self.workspace, self.events = workspace, events.open_store(workspace)
        self.store: FeatureStore = retrieval.open_store(workspace, _STORE_PATIENCE)
        self.fresh = FreshFeatures(workspace, self.events)
        self.fresh.keep_up()
        self.fresh.vectors([publication.last_customer], publication.as_of)
        self.opened = state

    def _state(self, publication: Publication) -> _State:
        return publication, publications.changed_at(self.home), len(privacy.erased(self.home))

    def _close(self) -> None:
        for name in ("fresh", "events"):
            if name in vars(self):
                vars(self).pop(name).close()
        self.opened = None

    def _waiting(self, publication: Publication, applied: int | None, until: int) -> list[Event]:
        """The events that the publication does not show yet.

        Of a new one these are all that became known after its as_of, and those that its days lack.
        """
        if applied is not None:
            return self.events.read("number > :applied AND number <= :until", applied=applied, until=until)
        return self.events.read(
            "number <= :until AND (known_day >= :as_of OR (table_name = 'transactions' AND number > :transactions)"
            " OR (table_name = 'interactions' AND number > :interactions))",
            until=until, as_of=str(publication.as_of), **self.fresh.in_days,
        )  # fmt: skip

    def _show(self, publication: Publication, customer_ids: Iterable[str]) -> dict[str, str]:
        """Recomputes customers as of the day after the last that something became known of them, and pushes them.

        Why not, by id, of those whose features cannot be computed while others' can.
        """
        online.refuse_if_gone(self.store, self.workspace, publication)  # a row in an emptied store would hide the loss
        failed: dict[str, str] = {}
        latest = self.events.latest_days(customer_ids)
        as_of_each = sorted((max(publication.as_of, days_after(day, 1)), one) for one, day in latest.items())
        for as_of, group in groupby(as_of_each, key=lambda pair: pair[0]):
            wanted = [customer_id for _, customer_id in group]
            for start in range(0, len(wanted), _AT_ONCE):
                vectors, why_not = self._computed(publication, wanted[start : start + _AT_ONCE], as_of)
                self._push(publication, {customer_id: Row(vector, as_of) for customer_id, vector in vectors.items()})
                failed |= why_not
        return failed

    def _computed(
        self, publication: Publication, wanted: Sequence[str], as_of: date
    ) -> tuple[dict[str, NDArray[np.float32]], dict[str, str]]:
        """The vectors of these customers, and why there is none of some: halved until the culprits are alone."""
        try:
            return self.fresh.vectors(wanted, as_of), {}
        except (duckdb.Error, ArithmeticError, ValueError) as problem:
            if len(wanted) == 1:
                self.fresh.vectors([publication.last_customer], as_of)  # raises where it is not this customer's fault
                return {}, {wanted[0]: _in_a_line(problem)}
        halves = (wanted[: len(wanted) // 2], wanted[len(wanted) // 2 :])
        (vectors, failed), (more, more_failed) = (self._computed(publication, half, as_of) for half in halves)
        return vectors | more, failed | more_failed

    def _push(self, publication: Publication, rows: dict[str, Row]) -> None:
        """Brings nobody back who was erased since the features were computed."""
        with privacy.keeping(self.home):
            gone = privacy.erased_among(self.home, rows)
            if stay := {customer_id: row for customer_id, row in rows.items() if customer_id not in gone}:
                online.push(self.store, self.workspace, publication, stay)


def _in_a_line(problem: Exception) -> str:
    return (str(problem) or type(problem).__name__).splitlines()[0]
