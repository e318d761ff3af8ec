"""What `/metrics` says beside BentoML's counts and times by route: how old, how far behind, which model, why not."""

from __future__ import annotations

from collections import Counter as Counted
from collections.abc import Iterable, Mapping

from prometheus_client import Counter, Gauge, Histogram

FEATURE_AGE = Gauge(
    "perennial_feature_age_seconds", "seconds since the published as_of", multiprocess_mode="mostrecent"
)
EVENT_LAG = Gauge(
    "perennial_event_lag_seconds", "seconds since the oldest event that scores do not show yet was accepted; 0 if none",
    multiprocess_mode="mostrecent",
)  # fmt: skip
EVENT_DELAY = Histogram(
    "perennial_event_delay_seconds", "seconds from accepting an event to scores that show it",
    buckets=(0.5, 1, 2, 3, 5, 10, 30, 60, 300),
)  # fmt: skip
EVENTS = Counter("perennial_events", "events by what became of them", ["outcome"])
SET_ASIDE = Gauge(
    "perennial_events_set_aside", "events that scores do not show because their customer's features cannot be computed",
    multiprocess_mode="mostrecent",
)  # fmt: skip
DISK_FREE = Gauge("perennial_disk_free_bytes", "room on the disk that the home lies on", multiprocess_mode="mostrecent")
MODEL = Gauge("perennial_model", "1 for the versions that answer", ["kind", "version"], multiprocess_mode="livemax")
NOT_SCORED = Counter("perennial_not_scored", "customers in answers who had no churn probability, by reason", ["reason"])
STALE = Counter("perennial_stale", "customers answered for from the last batch's files")
UNLOGGED = Counter("perennial_unlogged", "predictions that were answered and are missing from the prediction log")
REFUSED = Counter("perennial_refused", "requests turned away before they were looked at", ["code"])


def tell_models(before: Mapping[str, str], now: Mapping[str, str]) -> None:
    for kind, version in before.items():
        MODEL.labels(kind, version).set(0)
    for kind, version in now.items():
        MODEL.labels(kind, version).set(1)


def count_not_scored(reasons: Iterable[str | None]) -> None:
    """A reason for each customer answered for; none of who was scored."""
    for reason, count in Counted(reasons).items():
        if reason is not None:
            NOT_SCORED.labels(reason).inc(count)
