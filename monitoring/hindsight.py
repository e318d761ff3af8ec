"""Predictions of models that had seen what they predict: left out of whatever looks back, and counted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date

import pandas as pd

_SAID = {"churn": ("churn_probability", "churn_band"), "lifetime_value": ("lifetime_value",)}


@dataclass(frozen=True)
class Seen:
    """Predictions of a model, of `days` as_ofs from `first` to `last`, that prove nothing: it was trained later.

    `trained` is the as_of of its training, null where nobody knows it.
    """

    role: str
    model: str
    customers: int
    days: int
    first: date
    last: date
    trained: date | None

    def __str__(self) -> str:
        span = f"{self.first}" if self.days == 1 else f"{self.days} as_ofs from {self.first} to {self.last}"
        learnt = f"it was trained at {self.trained}, and had seen what happened"
        why = learnt if self.trained else "nobody knows when it was trained"
        return f"{self.customers:,} predictions of {span} by {self.model} ({self.role}): {why}"


def is_unseen(trained: date | None, as_of: date) -> bool:
    """Whether a model can have known no more than what was known at an as_of."""
    return trained is not None and trained <= as_of


def without_hindsight(logged: pd.DataFrame, trainings: Mapping[str, date]) -> tuple[pd.DataFrame, list[Seen]]:
    """Logged predictions without what models say that were trained after their as_of, and an account of these.

    `trainings`, by `name/version`, are for rows that were logged without.
    """
    seen: list[Seen] = []
    for kind, said in _SAID.items():
        known = pd.to_datetime(logged[f"{kind}_model"].astype(object).map(trainings))
        trained = logged[f"{kind}_trained"].fillna(known)
        gone = logged[said[0]].notna() & ~(trained <= logged["as_of"])
        seen += _told(kind, logged[gone].assign(trained=trained[gone]))
        logged = logged.assign(**{name: logged[name].mask(gone) for name in said})
    return logged[logged[["churn_probability", "lifetime_value"]].notna().any(axis=1)], seen


def _told(kind: str, rows: pd.DataFrame) -> Iterator[Seen]:
    for (role, model), group in rows.groupby(["role", f"{kind}_model"], observed=True):
        trained, days = group["trained"].iloc[0], group["as_of"].dt.date
        known = None if pd.isna(trained) else trained.date()
        yield Seen(str(role), str(model), len(group), days.nunique(), days.min(), days.max(), known)


def added_up(seen: Iterable[Seen]) -> list[Seen]:
    """One account for each role and model."""
    by_model: dict[tuple[str, str], Seen] = {}
    for one in seen:
        so_far = by_model.get((one.role, one.model))
        by_model[one.role, one.model] = one if so_far is None else _both(so_far, one)
    return list(by_model.values())


def _both(one: Seen, other: Seen) -> Seen:
    customers, days = one.customers + other.customers, one.days + other.days
    span = (min(one.first, other.first), max(one.last, other.last))
    return Seen(one.role, one.model, customers, days, *span, one.trained)
