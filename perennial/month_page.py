"""What one run did, stage by stage, as a page to read and as JSON; written also when the run broke off."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import date, datetime
from itertools import islice
from pathlib import Path
from typing import Any

from ingest.intake import Account
from monitoring.alerts import Alert
from monitoring.batch import Batch, Change
from pages.page import Table, render
from workspace import remaining, storage


@dataclass
class Stage:
    """One step: how long it took, what it said, and the sentence that it failed with."""

    name: str
    seconds: float = 0.0
    said: list[str] = field(default_factory=list)
    failed: str | None = None


@dataclass(frozen=True)
class Decision:
    """About one kind of model: why it was trained, and what the gate said of the version; `against` it are some of the
    `reasons`."""

    kind: str
    version: str | None
    due: str
    outcome: str
    reasons: tuple[str, ...] = ()
    against: tuple[str, ...] = ()


@dataclass
class Summary:
    """A run under way: its `of` stages are entered one after the other, and `write` leaves the page in `folder`.

    `accounts` are of the rows that were taken in. `batch` says what the scores come to, `change` what they changed;
    `grades` by number and the sentences `about` them say how far they are proven, and `list_command` writes the list of
    them. `notes` are texts by their titles, `links` files by what they are.
    """

    workspace: str
    as_of: date
    started: datetime
    folder: Path
    say: Callable[[str], None]
    of: int
    stages: list[Stage] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)
    notes: dict[str, str] = field(default_factory=dict)
    alerts: list[Alert] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    links: dict[str, Path] = field(default_factory=dict)
    accounts: Sequence[Account] = ()
    batch: Batch | None = None
    change: Change | None = None
    grades: Mapping[str, str] = field(default_factory=dict)
    about: Sequence[str] = ()
    list_command: str = ""

    @property
    def page(self) -> Path:
        return self.folder / f"run-{self.as_of}-{self.started:%Y%m%dT%H%M%S%f}.html"

    @property
    def failed(self) -> Stage | None:
        return next((stage for stage in self.stages if stage.failed is not None), None)

    @property
    def complete(self) -> bool:
        """Every stage was gone through."""
        return len(self.stages) == self.of and self.failed is None

    @contextmanager
    def stage(self, name: str) -> Iterator[Callable[[str], None]]:
        """Times the block, and gives it what to say its progress with: it reaches the terminal and the page."""
        stage, start = Stage(name), time.monotonic()
        self.stages.append(stage)
        self.say(f"[{len(self.stages)}/{self.of}] {name}{remaining.about(self._left())}")

        def say(line: str) -> None:
            stage.said.append(line)
            self.say(line)

        try:
            yield say
        except BaseException as problem:
            stage.failed = str(problem) or type(problem).__name__
            raise
        finally:
            stage.seconds = time.monotonic() - start

    def _left(self) -> float:
        """Seconds that the last whole run took from the stage under way to its end; 0 where there was none."""
        runs = sorted(self.folder.glob("run-*.json"), key=lambda path: path.stat().st_mtime, reverse=True)
        whole = (run for run in map(storage.read_json, runs) if run["done"] and len(run["stages"]) == self.of)
        seconds = [stage["seconds"] for run in islice(whole, 1) for stage in run["stages"]]
        return sum(seconds[len(self.stages) - 1 :])

    def write(self) -> Path:
        """Writes the page and, beside it, the same as JSON; returns the page's path."""
        storage.write_json(self.page.with_suffix(".json"), self._data())
        with storage.replacing(self.page) as draft:
            draft.write_text(_html(self), encoding="utf-8")
        return self.page

    def _data(self) -> dict[str, Any]:
        listed = {name: [asdict(item) for item in getattr(self, name)] for name in ("stages", "decisions", "alerts")}
        return {
            "workspace": self.workspace, "as_of": self.as_of, "started": self.started.isoformat(),
            "done": self.failed is None, "notes": self.notes, "told": self.told, "links": self.links,
            "tables": [asdict(account) for account in self.accounts],
            "customers": asdict(self.batch) if self.batch else None,
            "change": asdict(self.change) if self.change else None,
        } | listed  # fmt: skip


def _html(run: Summary) -> str:
    return render(
        "run.html",
        title=f"{run.workspace} at {run.as_of}",
        run=run,
        answer=_answer(run),
        look="bad" if run.failed else "fair" if run.alerts else "good",
        tiles=_tiles(run.batch, run.grades) if run.batch else [],
        changed=_changed(run.batch, run.change) if run.batch and run.change else None,
        moves=_moves(run.batch, run.change) if run.batch and run.change else [],
        not_scored=_not_scored(run.batch) if run.batch and run.batch.not_scored else None,
        refused=_refused(run.accounts),
        stages=Table(("stage", "took", "said last"), list(map(_stage, run.stages))),
        files=[(name, path.name if path.parent == run.folder else "", str(path)) for name, path in run.links.items()],
    )


def _answer(run: Summary) -> str:
    if run.failed:
        return f"Broke off in {run.failed.name}: {run.failed.failed}"
    looks = {0: "Nothing needs", 1: "1 thing needs"}.get(len(run.alerts), f"{len(run.alerts)} things need")
    return f"Done in {sum(stage.seconds for stage in run.stages):,.0f} s. {looks} a look."


def _tiles(batch: Batch, grades: Mapping[str, str]) -> list[tuple[str, str, list[str]]]:
    """What is counted, the figure, and sentences on it."""
    unscored = batch.customers - batch.scored
    return [
        ("Customers", f"{batch.customers:,}", [f"{batch.scored:,} are scored, {unscored:,} are not."]),
        ("Money at risk", *_at_risk(batch, grades.get("value_at_risk", "none"))),
        ("At high risk", *_at_high_risk(batch, grades.get("churn", "none"))),
    ]


_WITHHELD = "not shown", ["Why stands under “What the numbers mean”."]


def _at_risk(batch: Batch, grade: str) -> tuple[str, list[str]]:
    if batch.at_risk is None or batch.value is None:
        return _WITHHELD
    asked = batch.question
    within = f" as {asked['measure']} in the next {asked['value_days']} days" if asked else ""
    expected = f"The scored customers are expected to bring {_money(batch, batch.value)}{within}."
    return _money(batch, batch.at_risk), [
        expected,
        "At risk is that amount times the risk, customer by customer.",
        _graded(grade),
    ]


def _at_high_risk(batch: Batch, grade: str) -> tuple[str, list[str]]:
    if batch.high is None:
        return _WITHHELD
    theirs = batch.at_risk_high
    money = [] if theirs is None else [f"{_money(batch, theirs)} of the money at risk is theirs."]
    return f"{batch.high:,} customers", ["Their risk is in the high band.", *money, _graded(grade)]


def _money(batch: Batch, amount: float) -> str:
    return f"{amount:,.0f} {batch.question.get('currency', '')}".strip()


def _graded(grade: str) -> str:
    return "Not proven: grade none." if grade == "none" else f"Grade {grade}."


def _changed(batch: Batch, change: Change) -> Table:
    """The same figures of both; amounts and bands only where both are of the same question, and shown."""
    before = change.before
    pairs: list[tuple[str, float | None, float | None]] = [
        ("customers known", before.customers, batch.customers),
        ("scored", before.scored, batch.scored),
        ("not scored", before.customers - before.scored, batch.customers - batch.scored),
    ]
    if before.question == batch.question:
        currency = batch.question.get("currency", "")
        pairs += [
            ("at high risk", before.high, batch.high),
            (f"money at risk, {currency}".rstrip(", "), before.at_risk, batch.at_risk),
        ]
    rows = [[what, f"{then:,.0f}", f"{now:,.0f}", f"{now - then:+,.0f}"]
            for what, then, now in pairs if then is not None and now is not None]  # fmt: skip
    return Table(("", "then", "now", "change"), rows)


def _moves(batch: Batch, change: Change) -> list[str]:
    """Who came, went and moved; and what else is not as it was, so that the numbers are of something else."""
    before = change.before
    moves = [
        f"{change.came:,} customers are new since {before.as_of}.",
        f"{change.gone:,} customers known then are not known any more.",
        f"{change.unscored:,} customers scored then are not scored now, though they are known.",
    ]
    if before.question != batch.question:
        return [*moves, "Then the scores answered another question, so risk and money are not compared."]
    if batch.high is not None and before.high is not None:
        moves += [f"{change.into_high:,} customers moved up into the high band.",
                  f"{change.out_of_high:,} customers moved down out of it."]  # fmt: skip
    if new := [name for name in batch.models if name not in before.models]:
        moves.append(f"Another model answers now: {', '.join(new)}. That alone changes numbers.")
    return moves


def _not_scored(batch: Batch) -> Table:
    rows = [[reason, f"{count:,}"] for reason, count in batch.not_scored.items()]
    return Table(("reason", "customers"), rows, "Customers who are not scored")


def _refused(accounts: Sequence[Account]) -> Table | None:
    """Tables of which rows were refused; none where none were."""
    rows = [_refused_of(account) for account in accounts if any(account.quarantined.values())]
    heads = ("table", "rows read", "refused", "amount refused", "why")
    return Table(heads, rows, "Rows that were refused") if rows else None


def _refused_of(account: Account) -> list[str]:
    why = "; ".join(f"{count:,} {reason}" for reason, count in sorted(account.quarantined.items()))
    lost = "" if account.money is None else f"{account.money.lost:,}"
    return [account.table, f"{account.read:,}", f"{sum(account.quarantined.values()):,}", lost, why]


def _stage(stage: Stage) -> list[str]:
    said = f"failed: {stage.failed}" if stage.failed else (stage.said or [""])[-1]
    return [stage.name, f"{stage.seconds:,.1f} s", said]
