"""Whether the world has moved since the champion learnt from it, what moved, and whether that matters to the model.

Three things are looked at: the rows that came in lately (`sources`), the customers as the champion sees them
(`customers`), and what it predicts of them. Each is held against the reference and against the same season last year,
and what is usual of it is learnt from the workspace's own past months. `report` draws Evidently's pages of it: longer
work than all else, which a month without drift can do without.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from features.snapshot import CUSTOMER_FAMILIES, NOT_FOR_MODELS
from monitoring import arrivals, customers, report, shifts
from monitoring.customers import PREDICTIONS, Champion, reference_of
from monitoring.report import Side
from monitoring.shifts import Column, Pair, Shift
from workspace import cores, storage
from workspace.settings import Workspace
from workspace.windows import days_after

__all__ = ["Champion", "Drift", "Shift", "needed", "reference_of", "watch"]

SEASON = 364
"""Days to the same season last year: whole weeks, so that weekdays match."""
STEP = 30  # days between the past months that say what is usual
_MOST_PAST = 24
_NEAR = STEP // 2  # days by which two dates may miss the distance that is wanted
# Figures of a customer's whole past: they never fall, so they differ between any two dates.
_NEVER_FALL = frozenset(
    {"tenure_days", "T", "n_purchases", "spend", "frequency", "recency", "gap_max", "spend_max"}
    | {"days_since_cancellation"}
)
_SHOWN = 4
Pairs = dict[str, Pair]


@dataclass(frozen=True)
class Drift:
    """What moved between `reference` and `as_of`, farthest beyond its own threshold first.

    `sources` moved in the rows of the last month, `features` in what the champion is shown of customers, `predictions`
    in what it says of them. `share` is the moved share of the `judged` features, `weight` their share of what the
    champion decides by; from `limit` and `weight_limit` on they count. Not judged were features that grow with the
    calendar and constant ones; `gone` are those of the reference that exist no more. `past` is from how many earlier
    months the thresholds come, `last_year` the other date compared with, null where there is none. `pages` are
    Evidently's, the first of them `page`; `problem` says why there are none. `record` is this as JSON, with the score
    and the limit of everything that was compared.

    `matters`: the champion decides by what moved, or predicts otherwise. `drifted`: that, or anything else moved.
    """

    as_of: date
    reference: date
    last_year: date | None
    drifted: bool
    matters: bool
    share: float
    limit: float
    weight: float
    weight_limit: float
    judged: int
    past: int
    sources: tuple[Shift, ...]
    features: tuple[Shift, ...]
    predictions: tuple[Shift, ...]
    growing: tuple[str, ...]
    constant: tuple[str, ...]
    gone: tuple[str, ...]
    reference_rows: int
    current_rows: int
    page: Path
    record: Path
    pages: tuple[Path, ...] = ()
    problem: str = ""

    def __str__(self) -> str:
        beside = f" and {self.last_year}" if self.last_year else ""
        usual = f"{self.past} earlier months say what is usual" if self.past else "no earlier month says what is usual"
        lines = [
            f"{'drift' if self.drifted else 'no drift'} at {self.as_of} against {self.reference}{beside}"
            f"{', and it matters to the model' if self.matters else ''}; {usual}",
            *_listed("rows of the last month", self.sources),
            *_listed("predictions", self.predictions),
            f"{len(self.features)} of {self.judged} features moved ({self.share:.0%}; {self.limit:.0%} is drift), with"
            f" {self.weight:.0%} of what the model decides by ({self.weight_limit:.0%} matters)",
            *_listed("", self.features[:_SHOWN]),
        ]
        if more := len(self.features) - _SHOWN:
            lines += [f"  and {more} more, in {self.record}"] if more > 0 else []
        lines.append(
            f"not judged: {len(self.growing)} that follow the calendar, {len(self.constant)} empty or constant"
        )
        if self.gone:
            lines.append(f"in the reference alone: {', '.join(self.gone[:5])}; no setting asks for them any more")
        return "\n".join([*lines, self.problem or f"page: {self.page}"])


def _listed(title: str, moved: Sequence[Shift]) -> list[str]:
    width = max((len(shift.feature) for shift in moved), default=0)
    return [*([f"{title}:"] if title and moved else []), *(f"  {shift.feature:{width}}  {shift}" for shift in moved)]


def needed(workspace: Workspace, as_of: date, reference: date) -> list[date]:
    """The dates whose snapshots `watch` compares: last year's too where the shop was already there."""
    last_year = days_after(as_of, -SEASON)
    first = arrivals.first_day(workspace)
    is_there = first is not None and (last_year - first).days >= workspace.training.min_history
    return [*([last_year] if is_there else []), reference, as_of]


def watch(
    workspace: Workspace, as_of: date, reference: date, champion: Champion | None = None, draw_quiet: bool = True
) -> Drift:
    """Compares `as_of` with `reference` and last year; writes `reports/drift-<as_of>.json`, `.html` and others.

    The pages are drawn where there is drift, and without `draw_quiet` only there.

    Compared are the rows of the last month, and the customers whom the churn model predicts, `monitoring.sample` a
    side, in what it is shown of them and in what it says of them. Without a champion nothing is predicted, and every
    feature weighs alike. Not judged is what grows with the calendar by itself: figures of a whole past (`T`,
    `tenure_days`, `n_purchases` ...) and windows that reached further back than the first purchase at `reference`,
    which were still filling; nor the shop's own season (`shop_...`), one figure for all customers and another every
    day. Nor are features that are empty or one constant on both sides.

    Raises:
        CheckFailed: a snapshot is missing or cannot be read, has no customer to predict, or no feature to compare.
    """
    comparison = Comparison(workspace, as_of, reference, champion)
    drift = comparison.drift()
    if drift.drifted or draw_quiet:
        pages, problem = report.write(workspace, drift.page, comparison.sides(), comparison.limits())
        drift = replace(drift, pages=pages, problem=problem)
    else:
        drift = replace(drift, problem="no page: there is no drift; `perennial monitor` draws Evidently's pages of it")
    told = {"compared": comparison.scores(), "method": shifts.METHOD, "seed": workspace.training.seed}
    storage.write_json(drift.record, asdict(drift) | told)
    return drift


class Comparison:
    """What `watch` compares, before anything is written. Raises what `watch` does."""

    def __init__(self, workspace: Workspace, as_of: date, reference: date, champion: Champion | None) -> None:
        self.workspace, self.as_of, self.reference, self.champion = workspace, as_of, reference, champion
        self.seen = _Seen(workspace, champion)
        self.rows = Rows(workspace, as_of, reference)
        self._look([lambda: self.rows.now, *self.seen.looks([(reference, as_of)])])
        self.pairs = self.seen.against(reference, as_of)
        self.judged = [name for name in self.pairs if name not in PREDICTIONS]
        if not self.judged:
            raise storage.CheckFailed(f"{reference} and {as_of} share no feature to compare: all are constant or grow")

    @functools.cached_property
    def past(self) -> list[Pairs]:
        """The same of earlier pairs of dates, none of which is later than the reference."""
        dates = self.seen.past(self.reference, (self.as_of - self.reference).days)
        self._look([lambda: self.rows.past, *self.seen.looks(dates)])
        return [self.seen.against(*pair) for pair in dates]

    def _look(self, tasks: Sequence[Callable[[], object]]) -> None:
        """Most of it is DuckDB's and LightGBM's work, which leaves Python to the other cores."""
        for _ in cores.side_by_side(tasks):
            pass

    def limits(self) -> dict[str, float]:
        """The score from which each thing has moved, by name."""
        return shifts.limits(self.pairs, self.past) | shifts.limits(self.rows.now, self.rows.past)

    def scores(self) -> dict[str, dict[str, float]]:
        """The score and the limit of everything that was compared, by name."""
        limits = self.limits()
        pairs = self.pairs | self.rows.now
        return {name: {"score": pair.score, "limit": limits[name]} for name, pair in pairs.items()}

    def nearest(self) -> list[str]:
        """What is predicted, then the features, farthest beyond their own limit or nearest to it first."""
        limits = shifts.limits(self.pairs, self.past)
        return sorted(self.pairs, key=lambda name: (name not in PREDICTIONS, -self.pairs[name].score / limits[name]))

    def sides(self) -> report.Sides:
        """What Evidently is shown: of customers `monitoring.page_columns`, of rows every column."""
        most = self.workspace.monitoring.page_columns
        shown = self.nearest()[:most] if most else None
        return self.seen.sides(self.as_of, self.reference, shown) | self.rows.sides()

    def drift(self) -> Drift:
        monitoring, equal = self.workspace.monitoring, dict.fromkeys(self.judged, 1 / len(self.judged))
        importance = self.champion.importance(self.seen.at(self.reference)) if self.champion else equal
        shifted = shifts.moved(self.pairs, self.past, importance)
        predictions = tuple(shift for shift in shifted if shift.feature in PREDICTIONS)
        rows = tuple(shifts.moved(self.rows.now, self.rows.past))
        share, weight = _spread(shifted, self.judged, importance)
        usual = [_spread(_as_then(self.past, place), self.judged, importance) for place in range(len(self.past))]
        limit = _limit(monitoring.drifted_share, [month.share for month in usual])
        weight_limit = _limit(monitoring.matters_share, [month.weight for month in usual])
        matters = bool(predictions) or weight >= weight_limit
        page = self.workspace.home_path / "reports" / f"drift-{self.as_of}.html"
        return Drift(
            as_of=self.as_of, reference=self.reference, last_year=self.seen.last_year(self.as_of), matters=matters,
            drifted=matters or bool(rows) or share >= limit, share=share, limit=limit, weight=weight,
            weight_limit=weight_limit, judged=len(self.judged), past=len(self.past), sources=rows,
            features=tuple(shift for shift in shifted if shift.feature not in PREDICTIONS), predictions=predictions,
            growing=self.seen.growing(self.reference), constant=self.seen.constant(self.reference, self.as_of),
            gone=customers.gone(self.workspace, self.reference), reference_rows=len(self.seen.at(self.reference)),
            current_rows=len(self.seen.at(self.as_of)), page=page, record=page.with_suffix(".json"),
        )  # fmt: skip


class _Customers:
    """The customers of one as_of: every feature of them and what is predicted, smallest, largest, and what grows."""

    def __init__(self, home: Path, rows: pd.DataFrame, growing: tuple[str, ...]) -> None:
        self.home, self.rows, self.growing = home, rows, growing
        self.low, self.high = rows.min(), rows.max()
        self._columns: dict[str, Column] = {}

    def column(self, name: str) -> Column:
        if name not in self._columns:
            self._columns[name] = Column(self.rows[name], customers.attribute_values(self.home, name))
        return self._columns[name]


class _Seen:
    """The customers at several as_ofs, read once each, and compared two by two."""

    def __init__(self, workspace: Workspace, champion: Champion | None) -> None:
        self.workspace, self.champion = workspace, champion
        self._sides: dict[date, _Customers] = {}
        self._connection = storage.connect(workspace.home_path)
        family = storage.snapshot_part(workspace.home_path, CUSTOMER_FAMILIES[0], "*").parent
        self.written = sorted(date.fromisoformat(part.name) for part in family.glob("[0-9]*"))

    def at(self, as_of: date) -> pd.DataFrame:
        return self._side(as_of).rows

    def _side(self, as_of: date) -> _Customers:
        if as_of not in self._sides:
            connection = self._connection.cursor()  # a thread needs its own
            rows = customers.read(connection, self.workspace, as_of)
            said = [self.champion.predictions(rows)] if self.champion else []
            rows = pd.concat([rows, *said], axis=1)
            home = self.workspace.home_path
            history = customers.days_of_history(connection, home, as_of)
            growing = tuple(name for name in _shown(rows) if _follows_the_calendar(name, history))
            self._sides[as_of] = _Customers(home, rows, growing)
        return self._sides[as_of]

    def looks(self, dates: Sequence[tuple[date, date]]) -> list[Callable[[], _Customers]]:
        """The reading of every as_of that these pairs of dates are compared by, apart from what was read."""
        days = {day for before, after in dates for day in (before, after, self.last_year(after)) if day}
        return [functools.partial(self._side, day) for day in sorted(days - self._sides.keys())]

    def growing(self, before: date) -> tuple[str, ...]:
        return self._side(before).growing

    def constant(self, before: date, after: date) -> tuple[str, ...]:
        then, now = self._side(before), self._side(after)
        varies: pd.Series = then.high.combine(now.high, np.fmax) > then.low.combine(now.low, np.fmin)
        return tuple(name for name in _shown(then.rows) if not varies[name])

    def compared(self, before: date, after: date) -> list[str]:
        """Every feature that is judged between two dates, and every prediction."""
        left_out = {*self.growing(before), *self.constant(before, after)}
        return [name for name in _shown(self.at(before)) if name not in left_out]

    def pairs(self, before: date, after: date) -> Pairs:
        then, now = self._side(before), self._side(after)
        return {name: shifts.compared(then.column(name), now.column(name)) for name in self.compared(before, after)}

    def against(self, reference: date, as_of: date) -> Pairs:
        """Against the reference, and against last year where a snapshot of then is there."""
        last_year = self.last_year(as_of)
        pairs = self.pairs(reference, as_of)
        return shifts.seasonal(pairs, self.pairs(last_year, as_of)) if last_year else pairs

    def last_year(self, as_of: date) -> date | None:
        return self._near(days_after(as_of, -SEASON))

    def _near(self, day: date) -> date | None:
        nearest = min(self.written, key=lambda other: abs((other - day).days), default=day)
        return nearest if abs((nearest - day).days) <= _NEAR and nearest in self.written else None

    def past(self, until: date, lag: int) -> list[tuple[date, date]]:
        """Earlier pairs of dates about `lag` days apart, the later one no later than `until`; shorter, if few are."""
        every = [(early, late) for early, late in combinations(self.written, 2) if late <= until]
        alike = [dates for dates in every if abs((dates[1] - dates[0]).days - lag) <= _NEAR]
        closer = [dates for dates in every if STEP - _NEAR <= (dates[1] - dates[0]).days <= lag + _NEAR]
        return (alike if len(alike) >= shifts.FEWEST_PAST else closer)[-_MOST_PAST:]

    def sides(self, as_of: date, reference: date, shown: Collection[str] | None) -> dict[str, Side]:
        """By the name of a page, the rows before and after; of the columns in `shown` alone where that is given."""
        last_year = self.last_year(as_of)
        dates = {"": reference} | ({"-last-year": last_year} if last_year else {})
        return {name: self._shown(day, as_of, shown) for name, day in dates.items()}

    def _shown(self, before: date, after: date, shown: Collection[str] | None) -> Side:
        every = self.compared(before, after)
        names = [name for name in every if shown is None or name in shown]
        return Side(self.at(before)[names], self.at(after)[names], len(every) - len(names))


def _shown(rows: pd.DataFrame) -> list[str]:
    return [str(name) for name in rows if name not in NOT_FOR_MODELS]


class _Spread(NamedTuple):
    """How much moved: the share of the features, and of what the champion decides by."""

    share: float
    weight: float


def _spread(moved: Sequence[Shift], judged: Sequence[str], importance: Mapping[str, float]) -> _Spread:
    names = {shift.feature for shift in moved} & set(judged)
    whole = sum(importance.get(name, 0.0) for name in judged)
    return _Spread(len(names) / len(judged), sum(importance.get(name, 0.0) for name in names) / max(whole, 1e-9))


def _as_then(past: Sequence[Pairs], place: int) -> list[Shift]:
    """What moved in a past month, by what was usual in the others."""
    return shifts.moved(past[place], [*past[:place], *past[place + 1 :]])


def _limit(floor: float, usual: Sequence[float]) -> float:
    return max(floor, shifts.MARGIN * max(usual)) if len(usual) >= shifts.FEWEST_PAST else floor


class Rows:
    """The rows of the last month, against those before the reference and last year's, and what was usual of them."""

    def __init__(self, workspace: Workspace, as_of: date, reference: date) -> None:
        self.as_of, self.lag = as_of, (as_of - reference).days
        self.first = arrivals.first_day(workspace)
        self.recent = arrivals.Lately(workspace).at
        self.room = -1 if self.first is None else ((as_of - self.first).days - self.lag - arrivals.DAYS) // STEP

    @functools.cached_property
    def now(self) -> Pairs:
        return self._against(self.as_of) if self.room >= 0 else {}

    @functools.cached_property
    def past(self) -> list[Pairs]:
        months = range(1, min(self.room, _MOST_PAST) + 1)
        return [self._against(days_after(self.as_of, -STEP * month)) for month in months]

    def _against(self, day: date) -> Pairs:
        assert self.first is not None
        pairs = arrivals.pairs(self.recent(days_after(day, -self.lag)), self.recent(day))
        last_year = days_after(day, -SEASON)
        if (last_year - self.first).days < arrivals.DAYS:
            return pairs
        return shifts.seasonal(pairs, arrivals.pairs(self.recent(last_year), self.recent(day)))

    def sides(self) -> dict[str, Side]:
        """By table, the sampled rows before the reference and before the as_of, as Evidently's pages name them."""
        if not self.now:
            return {}
        before, after = self.recent(days_after(self.as_of, -self.lag)), self.recent(self.as_of)
        return {
            f"-{table}": Side(then.rows.add_prefix(f"{table}."), now.rows.add_prefix(f"{table}."))
            for table, now in after.items()
            if (then := before.get(table)) and not then.rows.empty and not now.rows.empty
        }


def _follows_the_calendar(name: str, history: int) -> bool:
    return name in _NEVER_FALL or name.startswith("shop_") or _days_back(name) > history


def _days_back(name: str) -> int:
    """How far back a feature looks, by its name; 0 where it names no window."""
    if name.endswith("_last_year"):
        return 365
    window = re.search(r"_(\d+)d$", name)
    # A change compares two windows in a row; three time constants hold 95 % of an exponential weight.
    return int(window[1]) * (2 if "_change_" in name else 3 if "_decayed_" in name else 1) if window else 0
