"""Challenger against champion: the conditions of the gate, each with the sentence that tells how it was met or not."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from typing import NamedTuple

import numpy as np

from features import snapshot
from training import pipelines
from training.backtests import evaluation
from training.backtests.grade import Outcomes
from training.backtests.scoreboard import JudgedCutoff
from training.gate import paired_difference
from training.kinds import Kind
from training.models.rule import OURS
from training.records.tracking import Model
from training.records.versions import LETTERS, Version
from workspace.registry import NOT_THE_QUESTION
from workspace.settings import Promotion, Workspace

Say = Callable[[str], None]

_TIMED = 30  # answers, of which the quickest counts


class Condition(NamedTuple):
    met: bool
    sentence: str


def as_the_first(challenger: Version, alone: str = "there is no champion") -> Condition:
    """Where there is no champion to be better than, its backtest's choice answers: none of its rivals is better.

    A grade says how far it may be trusted, and stands beside each number; where it has none, what is missing is told.
    """
    if challenger.grade == "none":
        why = challenger.tags.get("grade_reason", "it was never judged")
        name = challenger.tags.get("answers_by", OURS)
        return Condition(True, f"{alone}. Without a grade, {name} answers: {why}")
    return Condition(True, f"{alone}, and it has grade {challenger.grade}")


def costs(settings: Promotion, kind: Kind, challenger: Version) -> list[Condition]:
    """What it takes to hold the model and to ask it."""
    promotion, model = settings, challenger.model
    size = sum(path.stat().st_size for path in challenger.folder.iterdir()) / 1e6
    latency = _milliseconds(model, kind.rows_asked)
    return [
        Condition(latency <= promotion.latency, f"an answer takes {latency:.2f} ms; {promotion.latency:g} are allowed"),
        Condition(size <= promotion.size, f"its files have {size:.2f} MB; {promotion.size:g} are allowed"),
    ]


def _milliseconds(model: Model, rows_asked: int) -> float:
    """Of a processor, for one customer; of offers, for one customer's items. A busy machine changes nothing of it."""
    rows = np.ones((rows_asked, len(model.columns)), dtype=np.float32)
    taken = []
    for _ in range(_TIMED):
        start = time.thread_time()
        model.predict(rows)
        taken.append(time.thread_time() - start)
    return min(taken) * 1000


def changed_question(kind: Kind, before: Workspace, after: Workspace) -> str:
    """In which settings two models of a kind answer different questions, in words; "" where it is the same one."""
    then, now = (kind.settings(of).model_dump() for of in (before, after))
    return ", ".join(
        f"{kind.group}.{name} {then[name]} -> {now[name]}"
        for name in now
        if name not in NOT_THE_QUESTION and now[name] != then[name]
    )


@dataclass(frozen=True)
class Contest:
    """Challenger against champion, at the cutoffs at which both can be asked about what neither has learnt."""

    workspace: Workspace
    kind: Kind
    challenger: Version
    rival: Version
    say: Say

    @property
    def is_refresh(self) -> bool:
        return self.challenger.tags.get("recipe") == self.rival.tags.get("recipe", "unknown")

    @property
    def leaves_the_champion(self) -> bool:
        """Whether the challenger may answer about the days before the champion's training alone.

        Not where it learnt other features than the champion: only those who learnt the same answer for each other.
        Nor where the champion does not answer what is asked now.
        """
        mine, theirs = (version.tags.get("features_hash") for version in (self.challenger, self.rival))
        return self._knows_more and mine == theirs and not self._is_asked_anew

    @property
    def _knows_more(self) -> bool:
        """Whether the champion may have learnt what the challenger is judged by."""
        return self.rival.as_of > self.challenger.as_of

    @property
    def _is_asked_anew(self) -> bool:
        """Whether the challenger answers what the workspace asks now, and the champion something else."""
        return bool(self._changed_since(self.rival.workspace)) and not self._changed_since(self.workspace)

    def conditions(self) -> list[Condition]:
        changed = self._changed_since(self.rival.workspace)
        if self._is_asked_anew:
            first = as_the_first(self.challenger, "it is judged as the first of its question")
            return [Condition(True, f"the question changed: {changed}"), first]
        if changed:
            return [
                Condition(False, f"it answers another question than the champion, so nothing compares them: {changed}")
            ]
        if self._knows_more:
            later = f"the champion was trained later, at {self.rival.as_of}, and knows what this one is judged by"
            return [Condition(True, later), as_the_first(self.challenger, "nothing compares them")]
        pairs = paired_difference.paired(self._rivals_answers(), self.challenger.judged)
        return [*self._by_figures(pairs), self._grades(pairs)]

    def _changed_since(self, asked: Workspace) -> str:
        """What the challenger answers otherwise than was asked, in words; "" where it is the same question."""
        return changed_question(self.kind, asked, self.challenger.workspace)

    def _grades(self, pairs: Sequence[paired_difference.Pair]) -> Condition:
        """A grade that windows closed since its training have taken from the champion is none to be measured by."""
        mine, theirs = self.challenger.grade, self.rival.grade
        since = [rival.beside(own) for rival, own in pairs if rival.as_of >= self.rival.as_of]
        enough = not Outcomes.of([cutoff.actual for cutoff in since]).are_too_few
        if enough and evaluation.grade(self.kind.measures, since).letter == "none":
            return Condition(True, f"grade {mine}; by the windows closed since, the champion's {theirs} would be none")
        return Condition(LETTERS.index(mine) >= LETTERS.index(theirs), f"grade {mine}, the champion's is {theirs}")

    def _by_figures(self, pairs: Sequence[paired_difference.Pair]) -> Iterator[Condition]:
        if not pairs:
            yield self._nothing_to_compare()
            return
        metric, error = paired_difference.measured(self.kind.measures, pairs)
        seed, promotion = self.workspace.training.seed, self.workspace.promotion
        days = ", ".join(str(cutoff.as_of) for cutoff, _ in pairs)
        self.say(f"{self.kind.name}: version {self.challenger.number} against {self.rival.number} at {days}")
        main = paired_difference.difference(pairs, metric, seed)
        on = f"on {sum(len(cutoff.customer_ids) for cutoff, _ in pairs):,} answers at {days}: {main}"
        if self.is_refresh and promotion.refresh == "no_worse":
            worse = main.is_worse()
            yield Condition(not worse, f"a refresh of the champion, {'worse' if worse else 'no worse'} {on}")
        else:
            yield Condition(main.is_better, f"{'better' if main.is_better else 'not better'} beyond noise {on}")
        level = paired_difference.difference(pairs, error, seed)
        worse = level.is_worse(promotion.calibration_loss)
        yield Condition(not worse, f"calibration is {'worse' if worse else 'no worse'}: {level}")
        yield from self._by_segment(pairs, metric)

    def _by_segment(self, pairs: Sequence[paired_difference.Pair], metric: str) -> Iterator[Condition]:
        limit, hurt = self.workspace.promotion.segment_loss, False
        for name in pairs[0][0].segments:
            loss = paired_difference.difference(pairs, metric, self.workspace.training.seed, name)
            if loss.is_worse(limit):
                hurt = True
                yield Condition(False, f"the segment `{name}` loses more than {limit:g}: {loss}")
        if not hurt:
            yield Condition(True, f"no segment loses more than {limit:g} of {metric}")

    def _nothing_to_compare(self) -> Condition:
        trained = f"trained at {self.challenger.as_of}, the champion at {self.rival.as_of}"
        if self.is_refresh and self.workspace.promotion.refresh == "no_worse":
            return Condition(
                True, f"the champion's recipe on newer data, {trained}; no window since has closed to compare them on"
            )
        return Condition(
            False,
            f"no cutoff has closed at which both can be asked ({trained}); train the challenger at"
            f" --as-of {self.rival.as_of} too, or judge it when a window after that has closed",
        )

    def _rivals_answers(self) -> list[JudgedCutoff]:
        """The champion's, at those cutoffs of the challenger at which it has any."""
        wanted, rival = self.challenger.judged, self.rival
        later = [self._asked(cutoff) for cutoff in wanted if cutoff.as_of >= rival.as_of]
        if self.is_refresh:
            return [cutoff for cutoff in later if cutoff is not None]
        recorded = {cutoff.as_of: cutoff for cutoff in rival.judged}
        earlier = [cutoff.as_of for cutoff in wanted if cutoff.as_of < rival.as_of]
        known = [recorded[day] for day in earlier if day in recorded]
        taught = self._taught([day for day in earlier if day not in recorded])
        return [cutoff for cutoff in (*later, *known, *taught) if cutoff is not None]

    def _asked(self, cutoff: JudgedCutoff) -> JudgedCutoff | None:
        """What the champion says on a day after its training; none where a feature that it needs is there no more."""
        snapshot.snapshot(self.workspace, [cutoff.as_of], self.say)
        return self.kind.answered(self.rival, cutoff, self.workspace, self.challenger.as_of)

    def _taught(self, days: Sequence[date]) -> Sequence[JudgedCutoff]:
        """What the champion's settings, taught by these days, say on them; none where its code or features differ."""
        mine, theirs = self.challenger.tags, self.rival.tags
        if not days or any(mine.get(name) != theirs.get(name) for name in ("code", "features_hash")):
            return []
        own, as_of = self.rival.workspace, self.challenger.as_of
        self.say(f"{self.kind.name}: teaching the champion's settings by {', '.join(map(str, days))}")
        snapshot.snapshot(self.workspace, pipelines.cutoffs(own, as_of, [self.kind.name]), self.say)
        learnt = {cutoff.as_of: cutoff.learnt_from for cutoff in self.challenger.judged if cutoff.as_of in days}
        judged = self.kind.taught(self.workspace, own, as_of, learnt)
        return [cutoff.answered_by(theirs.get("contender", OURS)) for cutoff in judged]
