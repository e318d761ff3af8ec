"""Keeps online features up with events: recomputes those of the customers they are about, and pushes them.

A process of its own beside those that answer. Which events are shown is noted only after they are; killed in between,
it shows them again, which changes nothing: features are computed from all that is known, not added to.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb

from features import online, retrieval
from features.fresh import FreshFeatures
from features.online import Publication, Row
from perennial import events, privacy, settings
from perennial.events import Event
from perennial.settings import SettingsError
from perennial.storage import CheckFailed
from perennial.windows import days_after
from serving import metrics

if TYPE_CHECKING:
    from feast import FeatureStore

_log = logging.getLogger("bentoml.perennial")
_PAUSE = 0.25  # seconds between looks at the store
_PAUSE_AFTER_TROUBLE = 2.0
_AT_ONCE = 500  # customers recomputed together
_STORE_PATIENCE = 5.0
# A batch at work, a store that is down, a privacy key that is not there.
_TROUBLE = (CheckFailed, SettingsError, duckdb.Error, OSError)


class Freshness:
    """Shows the events of one workspace in what it has published."""

    def __init__(self, home: Path, clock: Callable[[], datetime]) -> None:
        self.home, self.clock = home, clock
        self.opened: tuple[Publication, int] | None = None

    def run(self, stopping: Callable[[], bool]) -> None:
        """Catches up again and again until told to stop; trouble is logged and gone through again."""
        while not stopping():
            try:
                self.catch_up()
                time.sleep(_PAUSE)
            except _TROUBLE as problem:
                _log.warning("events wait: %s", str(problem).splitlines()[0])
                time.sleep(_PAUSE_AFTER_TROUBLE)

    def catch_up(self) -> int:
        """Shows every event that was accepted so far in the scores of the publication that answers; returns how many.

        Raises:
            CheckFailed: the days are being built, or the online store or the store of events does not answer.
            SettingsError: somebody was erased, and there is no privacy key to recognise whom.
        """
        publication = online.published(self.home)
        if publication is None:
            return 0
        if (publication, len(privacy.erased(self.home))) != self.opened:
            self._open(publication)
        self.fresh.keep_up()
        until = self.events.last_number()
        waiting = self._waiting(publication, until)
        since = self.events.waiting_since(self.events.applied(publication.view) or 0) if waiting else None
        metrics.EVENT_LAG.set((self.clock() - since).total_seconds() if since else 0)
        self._show(publication, {event.customer_id for event in waiting})
        if waiting or self.events.applied(publication.view) is None:
            self.events.note_applied(publication.view, until)
            if since is not None:
                metrics.EVENT_DELAY.observe((self.clock() - since).total_seconds())
        metrics.EVENTS.labels("shown").inc(len(waiting))
        metrics.EVENT_LAG.set(0)
        return len(waiting)

    def _open(self, publication: Publication) -> None:
        """Opens what belongs to a publication, which holds nothing of who was erased.

        Its first query is put together before an event waits for it.
        """
        erased, workspace = len(privacy.erased(self.home)), settings.of_home(self.home)
        self.workspace, self.events = workspace, events.open_store(workspace)
        self.store: FeatureStore = retrieval.open_store(workspace, _STORE_PATIENCE)
        self.fresh = FreshFeatures(workspace, self.events)
        self.fresh.keep_up()
        for as_of in (publication.as_of, days_after(publication.as_of, 1)):
            self.fresh.vectors([publication.last_customer], as_of)
        self.opened = (publication, erased)

    def _waiting(self, publication: Publication, until: int) -> list[Event]:
        """The events that the publication does not show yet.

        Of a new one these are all that became known after its as_of, and those that its days lack.
        """
        applied = self.events.applied(publication.view)
        if applied is not None:
            return self.events.read("number > :applied AND number <= :until", applied=applied, until=until)
        return self.events.read(
            "number <= :until AND (known_day >= :as_of OR (table_name = 'transactions' AND number > :transactions)"
            " OR (table_name = 'interactions' AND number > :interactions))",
            until=until, as_of=str(publication.as_of), **self.fresh.in_days,
        )  # fmt: skip

    def _show(self, publication: Publication, customer_ids: Iterable[str]) -> None:
        """Recomputes customers as of the day after the last that something became known of them, and pushes them."""
        latest = self.events.latest_days(customer_ids)
        as_of_each = sorted((max(publication.as_of, days_after(day, 1)), one) for one, day in latest.items())
        for as_of, group in groupby(as_of_each, key=lambda pair: pair[0]):
            wanted = [customer_id for _, customer_id in group]
            for start in range(0, len(wanted), _AT_ONCE):
                found = self.fresh.vectors(wanted[start : start + _AT_ONCE], as_of)
                self._push(publication, {customer_id: Row(vector, as_of) for customer_id, vector in found.items()})

    def _push(self, publication: Publication, rows: dict[str, Row]) -> None:
        """Brings nobody back who was erased since the features were computed."""
        with privacy.keeping(self.home):
            gone = privacy.erased_among(self.home, rows)
            if stay := {customer_id: row for customer_id, row in rows.items() if customer_id not in gone}:
                online.push(self.store, self.workspace, publication, stay)
