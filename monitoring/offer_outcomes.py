"""Offers against what was bought: did the first items of each customer sell as often as was said, shown or not."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq

from features.snapshot import families
from perennial import storage
from perennial.settings import Workspace
from training import labels


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
    workspace: Workspace, as_of_dates: Iterable[date], known_by: date, is_closed: Callable[[date], bool]
) -> Iterator[Offered]:
    """Of each as_of the champion's offers and the shadow's, where they were made and their windows have closed.

    None of a workspace that has no products any more: nobody can say what the items were.
    """
    if "product_affinity" not in families(workspace):
        return
    home = workspace.home_path
    for as_of in sorted(as_of_dates):
        champion, shadow = storage.offers_path(home, as_of), storage.shadow_path(home, as_of, "offers")
        made = [(role, path) for role, path in (("champion", champion), ("shadow", shadow)) if path.exists()]
        if made and is_closed(as_of):
            bought = labels.items_bought(workspace, [as_of], known_by)
            for role, path in made:
                yield from _judged(role, as_of, path, bought)


def _judged(role: str, as_of: date, path: Path, bought: pd.DataFrame) -> Iterator[Offered]:
    offers = pq.read_table(path, columns=["customer_id", "item", "probability", "kind"]).to_pandas()
    came = offers.merge(bought.assign(came=1.0), how="left", on=["customer_id", "item"])["came"].fillna(0.0)
    versions = pq.read_table(path.with_name("scores.parquet"), columns=["cross_sell_model"])["cross_sell_model"]
    for kind in sorted(offers["kind"].unique()):
        own = offers["kind"] == kind
        share, half = _interval(came[own], offers.loc[own, "customer_id"])
        yield Offered(
            role=role, as_of=as_of, model=str(versions[0]), kind=str(kind),
            customers=offers.loc[own, "customer_id"].nunique(), offers=int(own.sum()),
            expected=float(offers.loc[own, "probability"].mean()), actual=share, low=share - half, high=share + half,
        )  # fmt: skip


def _interval(came: pd.Series, customer_id: pd.Series) -> tuple[float, float]:
    """A share, and half its 95 % interval where a customer's rows may all go together (Liang and Zeger 1986)."""
    share = float(came.mean())
    beyond = (came - share).groupby(customer_id).sum()
    return share, 1.959964 * math.sqrt(float((beyond**2).sum())) / len(came)
