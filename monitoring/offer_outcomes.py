"""Offers against what was bought: did the first items of each customer sell as often as was said, shown or not."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pyarrow.parquet as pq

from features.snapshot import families
from monitoring.hindsight import Seen, added_up, is_unseen
from training.learning import labels
from workspace import storage
from workspace.settings import Workspace


@dataclass(frozen=True)
class Offered:
    """Offers of one `kind`, `repeat` or `new`, that a model made at an as_of whose window has closed.

    `expected` is their mean probability, `actual` the share that was bought, `low` to `high` its 95 % interval, a
    customer's offers being taken together.
    """

    role: str
    as_of: date
    model: str
    kind: str
    customers: int
    offers: int
    expected: float
    actual: float
    low: float
    high: float

    @property
    def is_off(self) -> bool:
        """What was expected lies outside what chance allows around what came."""
        return not self.low <= self.expected <= self.high


def offered(
    workspace: Workspace, as_of_dates: Iterable[date], known_by: date, is_closed: Callable[[date], bool],
    trainings: Mapping[str, date],
) -> tuple[list[Offered], list[Seen]]:  # fmt: skip
    """Of each as_of the champion's offers and the shadow's, where they were made and their windows have closed.

    Those of models that were trained later than the as_of are counted instead; `trainings`, by `name/version`, are for
    offers beside which none is noted. None of a workspace that has no products any more: nobody can say what the items
    were.
    """
    judged: list[Offered] = []
    seen: list[Seen] = []
    if "product_affinity" not in families(workspace):
        return judged, seen
    for as_of in filter(is_closed, sorted(as_of_dates)):
        made = _made(workspace.home_path, as_of)
        unseen = [one for one in made if is_unseen(one.trained(trainings), as_of)]
        seen += [one.seen(trainings) for one in made if one not in unseen]
        if unseen:
            bought = labels.items_bought(workspace, [as_of], known_by)
            judged += [offers for one in unseen for offers in _judged(one, bought)]
    return judged, added_up(seen)


class _Made(NamedTuple):
    """The offers of an as_of, of the champion or of a shadow."""

    role: str
    as_of: date
    model: str
    path: Path

    def trained(self, trainings: Mapping[str, date]) -> date | None:
        note = self.path.with_name("models.json")
        noted = storage.read_json(note).get("cross_sell_trained") if note.exists() else None
        return date.fromisoformat(noted) if noted else trainings.get(self.model)

    def seen(self, trainings: Mapping[str, date]) -> Seen:
        customers = pq.read_table(self.path, columns=["customer_id"])["customer_id"]
        count = len(customers.unique())
        return Seen(self.role, self.model, count, 1, self.as_of, self.as_of, self.trained(trainings))


def _made(home: Path, as_of: date) -> list[_Made]:
    champion, shadow = storage.offers_path(home, as_of), storage.shadow_path(home, as_of, "offers")
    files = [(role, path) for role, path in (("champion", champion), ("shadow", shadow)) if path.exists()]
    return [_Made(role, as_of, _model(path), path) for role, path in files if pq.read_metadata(path).num_rows]


def _model(path: Path) -> str:
    scores = pq.read_table(path.with_name("scores.parquet"), columns=["cross_sell_model"])
    return str(scores["cross_sell_model"][0])


def _judged(made: _Made, bought: pd.DataFrame) -> Iterator[Offered]:
    role, as_of, model, path = made
    offers = pq.read_table(path, columns=["customer_id", "item", "probability", "kind"]).to_pandas()
    came = offers.merge(bought.assign(came=1.0), how="left", on=["customer_id", "item"])["came"].fillna(0.0)
    for kind in sorted(offers["kind"].unique()):
        own = offers["kind"] == kind
        share, half = _interval(came[own], offers.loc[own, "customer_id"])
        yield Offered(
            role=role, as_of=as_of, model=model, kind=str(kind),
            customers=offers.loc[own, "customer_id"].nunique(), offers=int(own.sum()),
            expected=float(offers.loc[own, "probability"].mean()), actual=share, low=share - half, high=share + half,
        )  # fmt: skip


def _interval(came: pd.Series, customer_id: pd.Series) -> tuple[float, float]:
    """A share, and half its 95 % interval where a customer's rows may all go together (Liang and Zeger 1986)."""
    share = float(came.mean())
    beyond = (came - share).groupby(customer_id).sum()
    return share, 1.959964 * math.sqrt(float((beyond**2).sum())) / len(came)
