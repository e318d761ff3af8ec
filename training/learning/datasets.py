"""Cutoffs to learn from: who was there, what was known of them, and what they did in windows that have closed."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from features import retrieval, snapshot
from features.families.catalogue import Feature
from training.learning import labels
from training.learning.season import ShopDays
from training.models.buy_till_you_die import BuyTillYouDie, Outlook
from training.models.customer_model import Inputs
from training.models.leaving import Leaving
from workspace import cores
from workspace.consents import said_of_profiling
from workspace.settings import Churn, Workspace
from workspace.storage import CheckFailed
from workspace.windows import closed_cutoffs

if TYPE_CHECKING:
    from feast import FeatureStore

Floats = NDArray[np.floating]

HORIZONS = 2
"""Of history, at the least, to learn from what happened next: one to know customers by, one to see what they did."""

HISTORIES = 20_000
"""Customers, at most, whose histories a cutoff's history model is fitted on: it has no more than eight parameters."""


class NotLearnt(CheckFailed):
    """A kind of model cannot be learnt here, with the reason; the others can."""


class TooFewReturned(CheckFailed):
    """No purchase-history model is determined, and so no model of ours; a rule by closed windows still is."""


class _Told(NamedTuple):
    """What a history model said of some customers."""

    vectors: NDArray[np.float32]
    model: BuyTillYouDie | None
    outlook: Outlook


@dataclass(frozen=True)
class Cutoff:
    """The customers known at one as_of, or a sample of them, a row each in every array, sorted by customer_id.

    vectors: packed features; history_model: fitted on this cutoff's own histories, null where too few came back;
    churned: 1 left, 0 stayed, nan for who cannot leave or where the window is open; value: spend in the window,
    n_purchases: days with a purchase in it, both nan where it is open; shop_value, shop_purchases: what the whole shop
    sold before the as_of, in the same units; outlooks: those that were asked for, which other labels do not change.
    """

    as_of: date
    customer_ids: NDArray[np.object_]
    vectors: NDArray[np.float32]
    history_model: BuyTillYouDie | None
    churned: Floats
    value: Floats
    n_purchases: Floats
    shop_value: ShopDays
    shop_purchases: ShopDays
    outlooks: dict[Hashable, _Told] = field(default_factory=dict, repr=False, compare=False)

    @property
    def has_history(self) -> bool:
        """Whether purchase histories can be learnt from here."""
        return self.history_model is not None

    def outlook(self, asked: Hashable, find: Callable[[BuyTillYouDie | None, NDArray[np.float32]], Outlook]) -> Outlook:
        """What `find` says of every customer by this history model; once, however many trainings ask the same."""
        known = self.outlooks.get(asked)
        if known is None or known.vectors is not self.vectors or known.model is not self.history_model:
            known = _Told(self.vectors, self.history_model, find(self.history_model, self.vectors))
            self.outlooks[asked] = known
        return known.outlook

    def sampled(self, share: float) -> Self:
        """Of those customers alone whom `load` takes for this share of all; their history model stays."""
        chosen = retrieval.in_sample(self.customer_ids, share)
        return replace(
            self, customer_ids=self.customer_ids[chosen], vectors=self.vectors[chosen], churned=self.churned[chosen],
            value=self.value[chosen], n_purchases=self.n_purchases[chosen], outlooks={},
        )  # fmt: skip


@dataclass(frozen=True)
class Dataset:
    """Closed cutoffs, oldest first, and the as_of that the models are trained for.

    `taught` is the workspace with the horizons of the closed cutoffs' windows, as `taught` below says.
    """

    inputs: Inputs
    closed: tuple[Cutoff, ...]
    current: Cutoff
    taught: Workspace

    def sampled(self, share: float) -> Self:
        """As `Cutoff.sampled`, of every cutoff."""
        if share >= 1:  # nothing to copy
            return self
        closed = tuple(cutoff.sampled(share) for cutoff in self.closed)
        return replace(self, closed=closed, current=self.current.sampled(share))

    def closed_by(self, as_of: date, outcome_days: int) -> tuple[Cutoff, ...]:
        """The cutoffs whose outcomes a training at `as_of` could have seen."""
        return tuple(c for c in self.closed if (as_of - c.as_of).days >= outcome_days)


def outcome_days(workspace: Workspace) -> int:
    """Days until both the churn and the value of a cutoff are known."""
    return max(workspace.churn.gap + workspace.churn.horizon, workspace.lifetime_value.horizon)


SHORTEST_WINDOW = 28
"""Days; what a shorter window brings says little of a longer one."""
_WINDOWS_APART = 6
_DIRECTIONS = {"never lowers": 1, "never raises": -1}
"""Cutoffs that a window at least spans, where the history has room for few."""


def taught(workspace: Workspace, as_of: date) -> Workspace:
    """The workspace with horizons that leave room to learn: its own, or shorter ones.

    A history shorter than `HORIZONS` horizons, or with room for no closed window as long as one, is taught on windows
    of half of the room there is; the models carry what they learn over to the horizon. Where not even that is
    `SHORTEST_WINDOW` days, nothing changes.
    """
    days = labels.purchase_days(workspace, as_of)
    if days is None:
        return workspace
    churn, value, training = workspace.churn, workspace.lifetime_value, workspace.training
    room = (as_of - days[0]).days - training.min_history
    short = room // 2
    enough = room >= outcome_days(workspace) and (as_of - days[0]).days >= HORIZONS * outcome_days(workspace)
    if enough or short < SHORTEST_WINDOW + churn.gap:
        return workspace
    return workspace.model_copy(
        update={
            "churn": churn.model_copy(update={"horizon": min(churn.horizon, short - churn.gap)}),
            "lifetime_value": value.model_copy(update={"horizon": min(value.horizon, short)}),
            "training": training.model_copy(update={"spacing": min(training.spacing, short // _WINDOWS_APART)}),
        }
    )


def cutoffs(workspace: Workspace, as_of: date, most: int | None = None) -> list[date]:
    """The dates to learn churn and value from, oldest first, `training.cutoffs` of them unless `most` says otherwise.

    Empty where no labelled window fits into the history, or the history is shorter than `HORIZONS` horizons.

    Where none of the workspace's horizon does, those of the shorter windows of `taught`.

    Raises:
        CheckFailed: no purchase before `as_of`, none within the active window, or a horizon longer than the history.
    """
    days = labels.purchase_days(workspace, as_of)
    if days is None:
        raise CheckFailed(f"no purchase is known before {as_of}; choose a later --as-of, or ingest earlier purchases")
    first, last = days
    if (as_of - last).days > workspace.churn.active_window:
        raise CheckFailed(
            f"the last purchase known before {as_of} is of {last}: nobody bought in the last"
            f" {workspace.churn.active_window} days (churn.active_window); choose an --as-of near {last}"
        )
    if outcome_days(workspace) > (as_of - first).days:
        raise CheckFailed(
            f"a horizon of {outcome_days(workspace)} days is longer than the history of {(as_of - first).days} days"
            f" between {first} and {as_of}; shorten churn.horizon and lifetime_value.horizon, or choose a later --as-of"
        )
    short = taught(workspace, as_of)
    training = short.training
    if (as_of - first).days < HORIZONS * outcome_days(short):
        return []
    return closed_cutoffs(
        labels.recorded_until(workspace, as_of), first, outcome_days=outcome_days(short), spacing=training.spacing,
        most=most or training.cutoffs, min_history=training.min_history,
    )  # fmt: skip


def load(
    store: FeatureStore,
    workspace: Workspace,
    as_of: date,
    closed: Sequence[date] | None = None,
    most: int | None = None,
) -> Dataset:
    """Everything that churn and lifetime value learn from at `as_of`; the snapshots must be there.

    `closed` are the cutoffs to load, those of `cutoffs` if absent; of more than `most` customers, `training.customers`
    if absent, a sample chosen by a hash of the id: the same ones at every cutoff. Who refuses profiling is not there.

    Raises:
        CheckFailed: everybody refuses.
    """
    closed = cutoffs(workspace, as_of) if closed is None else closed
    share = share_of(workspace, as_of, most or workspace.training.customers)
    rows = teaching(workspace.home_path, retrieval.customer_rows(store, workspace, [*closed, as_of], share))
    features = snapshot.customer_features(workspace)
    packed = tuple(feature.name for feature in features)
    coded = tuple(f"attribute_{name}" for name in snapshot.attribute_codes(workspace)) if workspace.attributes else ()
    inputs = inputs_of(packed, coded, features)
    short = taught(workspace, as_of)
    happened = labels.outcomes(short, closed, known_by=as_of)
    sold = labels.shop_days(workspace, known_by=as_of)
    sold = sold.assign(**{name: pd.to_datetime(sold[name]) for name in ("day", "known_day")})
    happened["as_of"] = pd.to_datetime(happened["as_of"])
    groups = dict(list(rows.groupby("as_of", sort=True)))
    if pd.Timestamp(as_of) not in groups:
        raise CheckFailed(f"everybody known at {as_of} refuses profiling: there is nobody to learn from")
    closed = [day for day in closed if pd.Timestamp(day) in groups]
    histories = share_of(workspace, as_of, HISTORIES)
    reading = [partial(_cutoff, inputs, day, groups[pd.Timestamp(day)], sold, histories) for day in [*closed, as_of]]
    *past, current = cores.side_by_side(reading)
    labelled = (
        _labelled(inputs, short.churn, one, happened[happened["as_of"] == pd.Timestamp(one.as_of)]) for one in past
    )
    return Dataset(inputs, tuple(labelled), current, short)


def inputs_of(packed: Sequence[str], coded: Sequence[str], features: Iterable[Feature]) -> Inputs:
    """Rows with the columns `packed`, of which `features` says what is known of some."""
    features = [feature for feature in features if feature.name in packed]
    used = tuple(name for name in packed if name not in snapshot.NOT_FOR_MODELS)
    directions = {f.name: _DIRECTIONS[f.risk] for f in features if f.risk in _DIRECTIONS}
    restless = frozenset(f.name for f in features if f.risk == "restless")
    return Inputs(tuple(packed), used, tuple(coded), directions, restless)


def teaching(home: Path, customers: pd.DataFrame) -> pd.DataFrame:
    """Those rows of customer features whose customer does not refuse profiling, by all that is known today."""
    said = customers["customer_id"].map(said_of_profiling(home))
    return customers[said.eq(True) | (said.isna() & customers["profiling_consent"].ne(0))].reset_index(drop=True)


def share_of(workspace: Workspace, as_of: date, customers: int) -> float:
    """Of the customers known at `as_of`, the share that so many are; 1 where there are no more."""
    return share(customers, retrieval.count_at(workspace, as_of))


def share(customers: int, known: int) -> float:
    """What part of those known so many customers are, at most all."""
    return min(1.0, customers / max(1, known))


def chosen(workspace: Workspace, names: Sequence[str], features: Sequence[str]) -> tuple[str, ...]:
    """Those of `names` that `features` lists, by themselves or by their family; all where it lists none.

    Raises:
        CheckFailed: one of `features` is neither a family nor among `names`.
    """
    if not features:
        return tuple(names)
    families = {family: {f.name for f in snapshot.features_of(family, workspace)} for family in snapshot.KEYS}
    for wanted in features:
        if wanted not in families and wanted not in names:
            near = get_close_matches(wanted, (*families, *names), 1)
            meant = f" (did you mean {near[0]}?)" if near else ""
            raise CheckFailed(f"the model can be shown no feature {wanted}{meant}; docs/features.md lists them")
    kept = {*features}.union(*(families.get(wanted, ()) for wanted in features))
    return tuple(name for name in names if name in kept)


def _cutoff(inputs: Inputs, as_of: date, rows: pd.DataFrame, sold: pd.DataFrame, histories: float) -> Cutoff:
    """Without what happened next; its history model is fitted on a share of its customers."""
    vectors = retrieval.matrix(rows, inputs.packed)
    customer_ids = rows["customer_id"].to_numpy(dtype=object)
    history_model = inputs.history_model(vectors[retrieval.in_sample(customer_ids, histories)])
    unknown = np.full(len(rows), np.nan)
    shop_value, shop_purchases = (_shop_days(sold, as_of, name) for name in ("value", "n_purchases"))
    return Cutoff(as_of, customer_ids, vectors, history_model, unknown, unknown, unknown, shop_value, shop_purchases)


def _shop_days(sold: pd.DataFrame, as_of: date, name: str) -> ShopDays:
    """A number for every day since the first with a sale, of what was known at `as_of`."""
    known = sold[sold["known_day"] < pd.Timestamp(as_of)]
    by_day = known.groupby("day")[name].sum()
    first = by_day.index.min() if len(by_day) else pd.Timestamp(as_of)
    every = pd.date_range(first, pd.Timestamp(as_of), inclusive="left")
    return ShopDays(first.date(), by_day.reindex(every, fill_value=0.0).to_numpy(dtype=float))


def seen_at(data: Dataset, workspace: Workspace, as_of: date) -> tuple[Cutoff, ...]:
    """The cutoffs closed by `as_of`, with outcomes as they were known then: what was recorded later is not among them.

    As many, the latest, as a training at `as_of` learns from.
    """
    closed = data.closed_by(as_of, outcome_days(data.taught))[-workspace.training.cutoffs :]
    happened = labels.outcomes(data.taught, [cutoff.as_of for cutoff in closed], known_by=as_of)
    days = pd.to_datetime(happened["as_of"])
    return tuple(
        _labelled(data.inputs, workspace.churn, cutoff, happened[days == pd.Timestamp(cutoff.as_of)])
        for cutoff in closed
    )


def _labelled(inputs: Inputs, churn: Churn, cutoff: Cutoff, happened: pd.DataFrame) -> Cutoff:
    """A window that has closed without a row is one in which the customer did nothing."""
    happened = happened.set_index("customer_id").reindex(cutoff.customer_ids)
    return replace(
        cutoff,
        churned=churned(inputs, churn, cutoff.vectors, happened),
        value=happened["value"].fillna(0.0).to_numpy(dtype=float),
        n_purchases=happened["n_purchases"].fillna(0.0).to_numpy(dtype=float),
    )


def churned(inputs: Inputs, churn: Churn, vectors: NDArray[np.float32], happened: pd.DataFrame) -> Floats:
    """1 who left, 0 who stayed, nan for who could not leave any more."""
    leaving = Leaving.of(churn)
    if leaving.is_event:
        left = happened["cancelled"].eq(True).to_numpy()
    else:
        waited = happened["returned_after"].astype("float64").fillna(np.inf).to_numpy()
        left = ~(waited < leaving.gap + leaving.days(inputs, vectors))
    return np.where(leaving.can_leave(inputs, vectors), left.astype(float), np.nan)
