"""What the numbers of an as_of mean: of which days, in which money, by whom they are, and how far each is proven."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self

import pyarrow.parquet as pq

from serving.norms import Norms
from training.models.rule import BASE_RATE
from workspace import storage
from workspace.registry import KINDS
from workspace.settings import Churn, Workspace

if TYPE_CHECKING:
    from serving.predictor import Predictor

UNPROVEN = "none"
# From the best to the worst; a product is as proven as its weaker factor.
_LETTERS = ("A", "B", "C", UNPROVEN)
MEANINGS = {
    "A": "at every earlier date it was tried at, order and level were right",
    "B": "at earlier dates order and level were mostly right",
    "C": "at earlier dates it was hardly better than a simple rule, or its level was far off: use the order, not the"
    " amounts",
    UNPROVEN: "not proven: at earlier dates it was no better than a simple rule, or nobody could tell",
}
_NAMES = {"churn": "risk", "lifetime_value": "value", "cross_sell": "offers"}
_ALIKE = "the same number for everybody, so no order is claimed"
_ENTRY = b"terms"
_NORMS = b"norms"


class Standing(NamedTuple):
    """How far the numbers of one kind are proven: the grade of the model that made them (`none` where it has none),
    under which name it answers where that is not our own model, and why its numbers are withheld where they are."""

    grade: str = UNPROVEN
    answers_by: str | None = None
    withheld: str | None = None


@dataclass(frozen=True)
class Terms:
    """Of one batch of scores. Days are ahead of its as_of; `leaving` says in words what the risk is of."""

    currency: str
    measure: Literal["revenue", "margin"]
    leaving: str
    churn_days: int
    value_days: int
    standings: Mapping[str, Standing]

    @classmethod
    def of(cls, predictor: Predictor, horizon: int | None = None) -> Self:
        """What holds of the answers of these models, over `horizon` days where it is not their own.

        Over other days than they were judged on nothing is proven.
        """
        workspace, own = predictor.workspace, predictor.registered
        churn_days, value_days = horizon or workspace.churn.horizon, horizon or workspace.lifetime_value.horizon
        judged = {"churn": churn_days == workspace.churn.horizon,
                  "lifetime_value": value_days == workspace.lifetime_value.horizon}  # fmt: skip
        grades = {kind: r.grade if judged.get(kind, True) and r.grade else UNPROVEN for kind, r in own.items()}
        standings = {kind: Standing(grades[kind], r.answers_by, r.withheld) for kind, r in own.items()}
        return cls._over(churn_days, value_days, workspace, standings)

    @classmethod
    def _over(cls, churn_days: int, value_days: int, workspace: Workspace, standings: Mapping[str, Standing]) -> Self:
        measure: Literal["revenue", "margin"] = "margin" if workspace.lifetime_value.measure == "margin" else "revenue"
        return cls(workspace.currency, measure, _leaving(workspace.churn), churn_days, value_days, standings)

    @classmethod
    def filed(cls, path: Path) -> Self | None:
        """Those that a file of scores was written under; none of one that an earlier version wrote."""
        entry = _noted(path).get(_ENTRY)
        if entry is None:
            return None
        noted = json.loads(entry)
        return cls(**noted | {"standings": {kind: Standing(*own) for kind, own in noted["standings"].items()}})

    @classmethod
    def at(cls, predictor: Predictor, as_of: date) -> Self:
        """Those of the scores of `as_of`: the grades of the models that made them, whichever answer by now."""
        return cls.of_scores(predictor.workspace, as_of, predictor.registered)

    @classmethod
    def of_scores(cls, workspace: Workspace, as_of: date, kinds: Iterable[str] = KINDS) -> Self:
        """The same; of scores that an earlier version wrote, of these `kinds`, nothing is proven."""
        filed = cls.filed(storage.scores_path(workspace.home_path, as_of))
        if filed is not None:
            return filed
        days = workspace.churn.horizon, workspace.lifetime_value.horizon
        return cls._over(*days, workspace, dict.fromkeys(kinds, Standing()))

    def noted(self, norms: Norms) -> dict[str, str]:
        """What a file of scores keeps of these, and of what was usual in the shop, beside its rows."""
        return {_ENTRY.decode(): json.dumps(asdict(self)), _NORMS.decode(): json.dumps(norms.to_json())}

    def standing(self, kind: str) -> Standing:
        return self.standings.get(kind, Standing())

    @property
    def grades(self) -> dict[str, str]:
        """By number, a letter."""
        churn, value, offers = (self.standing(kind).grade for kind in _NAMES)
        at_risk = max(churn, value, key=_LETTERS.index)
        return {"churn": churn, "lifetime_value": value, "value_at_risk": at_risk, "offers": offers}

    @property
    def withheld(self) -> dict[str, str]:
        """By kind, why no amount is shown."""
        return {kind: own.withheld for kind, own in self.standings.items() if own.withheld}

    @property
    def answers_by(self) -> dict[str, str]:
        """By kind, what answers where it is not the model that was taught for it."""
        named = {kind: own.answers_by for kind, own in self.standings.items() if own.answers_by}
        return {kind: f"{name}: {_ALIKE}" if name == BASE_RATE else name for kind, name in named.items()}

    def leaves_offers_out(self, asked_for: bool) -> bool:
        """Whether there are offers that lists do not show: not proven, and not asked for all the same."""
        return not asked_for and "cross_sell" in self.standings and self.standing("cross_sell").grade == UNPROVEN

    def to_json(self) -> dict[str, Any]:
        """As it stands in answers, beside the numbers."""
        return {
            "grades": self.grades, "withheld": self.withheld, "answers_by": self.answers_by, "currency": self.currency,
            "churn_period_days": self.churn_days, "lifetime_value_period_days": self.value_days,
            "lifetime_value_measure": self.measure,
        }  # fmt: skip

    def columns(self) -> dict[str, Any]:
        """As it stands in each row of a list, which may be cut into pieces."""
        withheld = ". ".join(self._not_shown()) or None
        terms = {name: value for name, value in self.to_json().items() if not isinstance(value, dict)}
        return self.grade_columns | terms | {"withheld": withheld}

    @property
    def grade_columns(self) -> dict[str, str]:
        """By the name of its column, a letter."""
        return {f"{name.removesuffix('s')}_grade": letter for name, letter in self.grades.items()}

    def sentences(self, as_of: date, offers: bool = True) -> Iterator[str]:
        """What a reader has to know before they act on the numbers, with `offers` or without, a sentence each."""
        risk, value, offer = self.grades["churn"], self.grades["lifetime_value"], self.grades["offers"]
        yield f"risk: {self.leaving}, from {as_of} on; grade {risk}: {MEANINGS[risk]}"
        yield (
            f"value: the {self.measure} to be expected in the next {self.value_days} days, in {self.currency};"
            f" grade {value}: {MEANINGS[value]}"
        )
        yield f"at risk: risk x value, so in {self.currency} too"
        if offers and "cross_sell" in self.standings:
            yield f"offers: what the customer most likely buys next; grade {offer}: {MEANINGS[offer]}"
        for kind, name in self.answers_by.items():
            yield f"{_NAMES[kind]}: answered by {name}"
        yield from self._not_shown()

    def _not_shown(self) -> Iterator[str]:
        return (f"{_NAMES[kind]} is not shown: {why}" for kind, why in self.withheld.items())


def _leaving(churn: Churn) -> str:
    if churn.kind == "event":
        return f"the chance of a cancellation within {churn.horizon} days"
    if churn.inactivity == "personal":
        return f"the chance of no purchase for {churn.patience:g} times the usual gap, {churn.horizon} days at most"
    return f"the chance of no purchase within {churn.horizon} days"


def norms_of(home: Path, as_of: date) -> Norms:
    """What was usual in the shop when `as_of` was scored; nothing known of scores that an earlier version wrote."""
    entry = _noted(storage.scores_path(home, as_of)).get(_NORMS)
    return Norms(**json.loads(entry)) if entry is not None else Norms()


def _noted(path: Path) -> Mapping[bytes, bytes]:
    return (pq.read_metadata(path).metadata or {}) if path.exists() else {}
