"""What the churn and value models share: packed feature vectors in, a history's outlook added, a stored folder out."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol, Self, TypeVar

import lightgbm as lgb
import numpy as np
from numpy.typing import NDArray

from training.models.buy_till_you_die import BuyTillYouDie, History, Outlook
from training.models.histories import NotIdentified
from workspace import cores, digests
from workspace.settings import Boosting
from workspace.storage import CheckFailed

Floats = NDArray[np.floating]
_OUTLOOK_NAMES = (
    "btyd_p_alive",
    "btyd_expected_purchases",
    "btyd_no_purchase_logit",
    "btyd_expected_spend",
    "btyd_value",
)

HISTORY = (*History._fields, "spend_last", "spend_365d")
"""The columns of a row that purchase histories are learnt from, and last year's pace."""

_FEW_ROWS = 2_000

MOST_ROWS = 200_000
"""That a booster learns from: more of them are mostly the same customers a month later."""


@dataclass(frozen=True)
class Inputs:
    """The packed vector's feature names, in order, and which of them the booster sees.

    Only a fit needs to know the rest: `coded` are those whose numbers are codes of texts, `directions` how the risk of
    leaving by silence may move with one (1 never down, -1 never up), `restless` what a model of it is not shown.
    """

    packed: tuple[str, ...]
    used: tuple[str, ...]
    coded: tuple[str, ...] = ()
    directions: Mapping[str, int] = field(default_factory=dict)
    restless: frozenset[str] = frozenset()

    @property
    def booster_names(self) -> tuple[str, ...]:
        return (*self.used, *_OUTLOOK_NAMES)

    @cached_property
    def places(self) -> dict[str, int]:
        """Where each feature stands in the packed vector."""
        return {name: place for place, name in enumerate(self.packed)}

    @cached_property
    def used_places(self) -> NDArray[np.intp]:
        return np.array([self.places[name] for name in self.used], dtype=np.intp)

    def column(self, vectors: NDArray[np.float32], name: str) -> Floats:
        return vectors[:, self.places[name]].astype(np.float64)

    @cached_property
    def has_histories(self) -> bool:
        """Whether rows have purchase histories; those of a shop do."""
        return {*HISTORY} <= {*self.packed}

    def bought(self, vectors: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Who ever bought; everybody, where rows do not say."""
        return ~np.isnan(self.column(vectors, "T")) if "T" in self.places else np.ones(len(vectors), dtype=bool)

    def history(self, vectors: NDArray[np.float32]) -> History:
        return History(*(self.column(vectors, name) for name in History._fields))

    def history_model(self, vectors: NDArray[np.float32]) -> BuyTillYouDie | None:
        """Fitted on the histories of these rows; null where too few came back, or rows have none."""
        if not self.has_histories:
            return None
        try:
            return BuyTillYouDie.fit(self.history(vectors), self.column(vectors, "spend_last"))
        except NotIdentified:
            return None

    def outlook(
        self, model: BuyTillYouDie | None, vectors: NDArray[np.float32], days: float | Floats, gap: float = 0.0
    ) -> Outlook:
        """What a history model says of rows; nan without one."""
        if model is None:
            return Outlook(*np.full((4, len(vectors)), np.nan))
        return model.outlook(self.history(vectors), days, gap)

    def design(self, vectors: NDArray[np.float32], outlook: Outlook) -> Floats:
        """The booster's input: the used features beside what the history alone predicts."""
        chosen = vectors[:, self.used_places]
        beside = (
            outlook.p_alive,
            outlook.expected_purchases,
            logit(outlook.no_purchase),
            outlook.expected_spend,
            outlook.value,
        )
        return np.column_stack([chosen, *beside])


def logit(probability: Floats) -> Floats:
    clipped = np.clip(probability, 1e-6, 1 - 1e-6)
    return np.log(clipped) - np.log1p(-clipped)


def sigmoid(score: Floats) -> Floats:
    return 1 / (1 + np.exp(-score))


@dataclass(frozen=True)
class Stored:
    """A model as data: each booster in LightGBM's own text under its name, everything else in `model.json`.

    `digests.json` beside them tells files that were changed since.
    """

    parameters: dict[str, Any]
    boosters: dict[str, lgb.Booster]

    @classmethod
    def read(cls, folder: Path) -> Self:
        """
        Raises:
            ChangedModel: the files are not those that were written.
        """
        digests.check(folder)
        boosters = {path.stem: lgb.Booster(model_file=path) for path in sorted(folder.glob("*.txt"))}
        return cls(json.loads((folder / "model.json").read_text(encoding="utf-8")), boosters)

    def write(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "model.json").write_text(json.dumps(self.parameters, indent=1, sort_keys=True), encoding="utf-8")
        for name, booster in self.boosters.items():
            booster.save_model(folder / f"{name}.txt")
        digests.write(folder)


class _Storable(Protocol):
    @classmethod
    def load(cls, folder: Path) -> Self: ...


_Model = TypeVar("_Model", bound=_Storable)


def read_model(model: type[_Model], folder: Path) -> _Model:
    """`model.load`.

    Raises:
        CheckFailed: the files are not such as this code writes; those of a later or an earlier commit may be.
    """
    try:
        return model.load(folder)
    except (KeyError, TypeError, ValueError, lgb.basic.LightGBMError) as problem:
        raise CheckFailed(
            f"the {model.__name__} in {folder} cannot be read ({type(problem).__name__}: {problem}): it was written by"
            " another version of this code; go back to the commit in `git_commit` of its run, or train again"
        ) from problem


class PyFunc:
    """What MLflow's `pyfunc` flavour asks of a loaded model: a `predict`. Its hints would be taken for a signature."""

    def __init__(self, function: Callable[[NDArray[np.float32]], Floats]) -> None:
        self.function = function

    def predict(self, rows, params=None):  # type: ignore[no-untyped-def]
        return self.function(np.asarray(rows, dtype=np.float32))


def predicted(booster: lgb.Booster, rows: Floats, **options: bool) -> Floats:
    """The booster's answer; few rows are quicker on the caller's own thread than on a woken pool of them."""
    return np.asarray(booster.predict(rows, num_threads=1 if len(rows) < _FEW_ROWS else cores.own(), **options))


def evenly(count: int, most: int) -> NDArray[np.intp]:
    """Places of so many of `count` rows, at most, spread evenly over them; of all where there are no more."""
    return np.arange(count) if count <= most else np.linspace(0, count - 1, most).round().astype(np.intp)


@dataclass(frozen=True)
class Lessons:
    """Rows that boosters are taught on, the oldest first, cut into bins once for all of them.

    `parameters` are the boosters' own, in whose place comes what `boosting` names.
    """

    rows: lgb.Dataset
    parameters: dict[str, Any]
    boosting: Boosting
    seed: int

    @classmethod
    def of(
        cls, design: Floats, names: Sequence[str], coded: Sequence[str], parameters: dict[str, Any],
        boosting: Boosting, seed: int,
    ) -> Self:  # fmt: skip
        """`coded` names hold codes of texts."""
        # Without bundles of columns that exclude each other the trees are the same, and a fifth quicker on few columns.
        fixed = {
            "seed": seed, "deterministic": True, "force_col_wise": True, "enable_bundle": False, "verbose": -1,
            "num_threads": cores.own(),
        }  # fmt: skip
        parameters = parameters | boosting.parameters() | fixed
        places = [index for index, name in enumerate(names) if name in coded]
        rows = lgb.Dataset(design, np.zeros(len(design)), feature_name=list(names), categorical_feature=places,
                           params=parameters)  # fmt: skip
        return cls(rows.construct(), parameters, boosting, seed)

    def boosted(
        self, target: Floats, rounds: int, own: Mapping[str, Any] = MappingProxyType({}), most: int | None = None
    ) -> lgb.Booster:
        """A fit that two runs on the same machine repeat exactly, on as many rows, the oldest, as have a target.

        Of more than `most` rows it learns from so many. `own` are parameters of this booster alone.
        """
        chosen = evenly(len(target), most or len(target))
        rows = self.rows if len(chosen) == self.rows.num_data() else self.rows.subset(chosen.tolist()).construct()
        rows.set_label(target[chosen])
        own = {name: value for name, value in own.items() if name not in self.boosting.parameters()}
        rounds = self.boosting.rounds or rounds
        return lgb.train(self.parameters | own, rows, rounds, callbacks=[lambda _: cores.go_on()])
