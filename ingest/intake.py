"""Sources to canonical tables: every row is accepted, or quarantined with a reason, and the account adds up.

An accepted row of an event table carries three columns more: `day` and `hour` of `occurred_at` in the workspace's
timezone, and `known_day`, the later of that day and the day of `recorded_at`. A row is known at an as_of exactly when
`known_day < as_of`, which makes every window a comparison of dates.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq

from ingest import checks, events, revisions, rows, sources
from ingest.revisions import Returning, Told
from ingest.rows import Mapped
from ingest.sources import Source
from workspace import storage
from workspace.money import FILTERED, NOTHING, Money, summed
from workspace.privacy import erased, key_of
from workspace.settings import Table, Workspace
from workspace.storage import CheckFailed, quoted
from workspace.tables import CONTRACTS, Contract

# Raise it when rows are judged differently: what was taken in before is then read again.
_RULES = 6

_ADVICE = {
    "is not a time": "a time in another notation needs try_strptime(column, '%d/%m/%Y'), with an offset"
    " try_strptime(column, '%d/%m/%Y %H:%M:%S %z')",
    "is not a number": f"a number with a decimal comma needs {rows.DECIMAL_COMMA}, which does not take 1,000 for 1",
    "is not true or false": "other words need a comparison such as column = 'oui'",
    "in the future": "times without a zone are taken for the workspace's `timezone`",
    "unknown customer": "bring `tables.customers` up to date, or say `complete: false` there",
    "duplicate line": "if equal lines are real purchases, say `duplicates: keep`",
    "further line": "columns that only the first line of an order has are named in `fill_down`, here probably"
    " fill_down: [{once}]",
    "no ": "rows that are not meant to be read are dropped by `where`",
    "is longer": "look at what is mapped to it: a text of that length is no id",
    "control character": "look at what is mapped to it, and at the file's `encoding`",
}


_OF_EVENTS = Table(path=("events",), duplicates="keep")


@dataclass(frozen=True)
class Account:
    """What became of the rows of one table, over all its sources: `read = accepted + quarantined`.

    `money` says the same of their amounts, where they have any: those of `transactions`. `returning` are their orders
    that a later source tells otherwise, where there are any and the lines of both count.
    """

    table: str
    read: int
    filtered: int
    accepted: int
    quarantined: Mapping[str, int]
    money: Money | None = None
    returning: Returning | None = None

    def __str__(self) -> str:
        faults = "; ".join(f"{count:,} {fault}" for fault, count in sorted(self.quarantined.items()))
        return (
            f"{self.table}: {self.read:,} read = {self.accepted:,} accepted"
            f" + {sum(self.quarantined.values()):,} quarantined"
            + (f" ({faults})" if faults else "")
            + (f"; {self.filtered:,} more filtered by `where`" if self.filtered else "")
        )


@dataclass(frozen=True)
class _Entry:
    """A source that was taken in, as the manifest keeps it. `rules` is a hash of all that its rows were judged by.

    In microseconds since 1970: `first` and `last` are when the accepted rows of an event table lie, `due` is when
    the first of its rows in the future will be past. `money` is what became of the amounts of `transactions`; there is
    none in a manifest from before money was counted. `revision` is what the lines of later sources did to its own.
    """

    origin: str
    content: str
    rules: str
    part: str
    read: int = 0
    filtered: int = 0
    accepted: int = 0
    quarantined: dict[str, int] = field(default_factory=dict)
    first: int | None = None
    last: int | None = None
    due: int | None = None
    money: Money | None = None
    revision: str = "add"

    @property
    def taken(self) -> str:
        """The name under which its rows in quarantine are; its part's name tells also which of its rows count."""
        return self.part.partition("-")[0]


def _noted(kept: Mapping[str, Any]) -> _Entry:
    """An entry from what the manifest keeps of it."""
    return _Entry(**{**kept, "money": Money.noted(kept["money"]) if kept.get("money") else None})


def ingest(workspace: Workspace, now: datetime, progress: Callable[[str], None] = lambda _: None) -> list[Account]:
    """Brings every table of the workspace up to date with its sources; returns an account per table.

    A source whose content was taken in before, under any name, is not read again. A new source of an event table adds
    a part, a changed one replaces its own; any change of a describing table rebuilds it, where the last source wins.
    A table changes as a whole or, if anything fails, not at all. Events that came over HTTP are sources too: a purchase
    that a table and an event both tell of counts once, whichever came first. Who was erased is not taken in again.
    With `revision: replace` all lines of an order are those of the last source that names it; tables come after events.

    Raises:
        SettingsError: a source or a mapping cannot be used.
        CheckFailed: no row of a table, or too small a share of them, can be accepted; the disk is full.
    """
    accounts = []
    events.hand_over(workspace)
    for name in workspace.tables.given():
        with _disk_explained(name, workspace.home_path):
            accounts.append(_Intake(workspace, CONTRACTS[name], now, progress).run())
        progress(str(accounts[-1]))
        if (money := accounts[-1].money) is not None:
            progress(f"{name}, in {workspace.currency}: {money}")
        if (returning := accounts[-1].returning) is not None:
            progress(f"{name}: {returning.told(workspace.currency)}")
    return accounts


@contextmanager
def _disk_explained(name: str, home: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, duckdb.IOException, duckdb.OutOfMemoryException) as problem:
        reason = str(problem).splitlines()[0]
        raise CheckFailed(
            f"{name}: {home} cannot be written: {reason}; free some space there and run again, {name} were not changed"
        ) from problem


@dataclass(frozen=True)
class _Plan:
    """What to do about a table: entries that stay, batches of sources to read together, entries to forget."""

    kept: Sequence[_Entry]
    batches: Sequence[Sequence[tuple[Source, str]]]
    forgotten: Sequence[_Entry] = ()


class _Intake:
    """Taking in the sources of one table."""

    def __init__(
        self, workspace: Workspace, contract: Contract, now: datetime, progress: Callable[[str], None]
    ) -> None:
        self.workspace, self.contract, self.now, self.progress = workspace, contract, now, progress
        self.name = contract.name
        self.table = workspace.tables.given()[self.name]
        self.attributes = workspace.attributes if self.name == "customers" else ()
        self.pii = workspace.pii if self.name == "customers" else ()
        self.has_money = "amount" in contract.names
        self.replaces = self.has_money and self.table.revision == "replace"
        self.home = workspace.home_path
        self.erased = erased(self.home) if "customer_id" in contract.names else {}
        self.pseudonyms = workspace.pseudonyms and "customer_id" in contract.names
        self.key = key_of(self.home) if self.erased or self.pseudonyms or self.pii else None
        self.scratch = self.home / "tmp" / f"sources-{self.name}"
        self.folder = storage.tables_folder(self.home, self.name)
        self.manifest = storage.manifest_path(self.home, self.name)
        self.quarantine = self.home / "quarantine" / f"{self.name}.parquet"
        self.refused = self.quarantine.with_suffix(".refused.parquet")
        self.entries = [_noted(kept) for kept in storage.sources_of(self.folder)]
        self.rules = self._rules()

    def run(self) -> Account:
        storage.make_folder(self.home)
        try:
            delivered = [
                *sources.find(self.name, self.table, self.scratch),
                *map(sources.handed_over, self._event_files()),
            ]
            here = {source.origin for source in delivered}
            plan = self._plan(self._by_content(delivered), here)
            if plan.batches or list(plan.kept) != self.entries:
                self._carry_out(plan)
        finally:
            self._sweep()
        self._tell(plan.forgotten, here)
        return self._account()

    def _event_files(self) -> list[Path]:
        return events.files(self.home, self.name)

    def _table_of(self, source: Source) -> Table:
        """How the columns of a source map; events come in canonical ones, and each line of theirs is meant."""
        return _OF_EVENTS if source.file in self._event_files() else self.table

    def _rules(self) -> str:
        """A hash of the settings that shape the rows: when they are mended, what was read before is read again."""
        mapping = self.table.model_dump(mode="json", exclude={"path", "database", "table", "complete"})
        customers = sorted(path.stem for path in self._known_customers())
        privacy = [
            self.pii,
            "found by words" if self.pii else "",
            self.pseudonyms,
            self.key.fingerprint if self.key and (self.pii or self.pseudonyms) else "",
        ]
        return _hash(_RULES, mapping, self.attributes, self.workspace.timezone, customers, privacy)

    def _known_customers(self) -> list[Path]:
        customers = self.workspace.tables.customers
        if not self.contract.is_event or customers is None or not customers.complete:
            return []
        return storage.parts(storage.tables_folder(self.home, "customers"))

    def _by_content(self, delivered: Iterable[Source]) -> dict[str, Source]:
        """One source per content, in order; of several names that which it was taken in under, or the first.

        Where later sources replace earlier ones, it is the last.
        """
        known = {(entry.content, entry.origin) for entry in self.entries}
        by_content: dict[str, Source] = {}
        for source in delivered:
            with rows.explained(self.name, source):
                content = source.fingerprint()
            if content not in by_content or (content, source.origin) in known or self.replaces:
                by_content[content] = source
        return by_content

    def _plan(self, by_content: Mapping[str, Source], here: Collection[str]) -> _Plan:
        return self._plan_events(by_content, here) if self.contract.is_event else self._plan_descriptions(by_content)

    def _plan_descriptions(self, by_content: Mapping[str, Source]) -> _Plan:
        if [entry.content for entry in self.entries] == list(by_content) and all(map(self._is_current, self.entries)):
            return _Plan(self.entries, [])
        return _Plan([], [[(source, content) for content, source in by_content.items()]])

    def _plan_events(self, by_content: Mapping[str, Source], here: Collection[str]) -> _Plan:
        """`here` are all sources that are there, `by_content` one for each different content."""
        gone = [entry for entry in self.entries if entry.content not in by_content and entry.origin not in here]
        forgotten = [entry for entry in gone if not sources.covers(self.table, entry.origin)]
        kept = [entry for entry in gone if entry not in forgotten]
        present = [
            replace(entry, origin=by_content[entry.content].origin)
            for entry in self.entries
            if entry.content in by_content and self._is_current(entry)
        ]
        if len(kept) + len(present) < len(self.entries):  # what duplicated a row that may now vanish is read again
            present = [entry for entry in present if checks.ELSEWHERE not in entry.quarantined]
        kept += present
        taken = {entry.content for entry in kept}
        fresh = [[(source, content)] for content, source in by_content.items() if content not in taken]
        return _Plan(sorted(kept, key=self._rank if self.replaces else self._place), fresh, forgotten)

    def _is_current(self, entry: _Entry) -> bool:
        """Whether its rows would be judged the same today."""
        past = entry.due is not None and entry.due <= self.now.timestamp() * 1_000_000
        return entry.rules == self.rules and not past

    def _place(self, entry: _Entry) -> int:
        return [known.content for known in self.entries].index(entry.content)

    def _rank(self, entry: _Entry) -> tuple[int, sources.NaturalOrder]:
        """What puts entries into the order of the sources as the settings name them."""
        return sources.place(self.table, entry.origin)

    def _carry_out(self, plan: _Plan) -> None:
        """Parts first, then the quarantine, and last the manifest, which makes them count."""
        entries = list(plan.kept)
        with storage.connect(self.home, self.workspace.timezone, self.workspace.memory) as connection:
            connection.execute("SET preserve_insertion_order = true")  # rows stay in the order of their lines
            if self.key:
                self.key.teach(connection)
            self._start_quarantine(connection, [entry.taken for entry in plan.kept])
            entries = [self._as_revised(connection, entry) for entry in entries]
            self._remember(connection, entries)
            for batch in plan.batches:
                entries += self._take(connection, batch, entries)
            if self.replaces:
                entries = self._settled(connection, entries)
            self._refuse_if_empty(entries)
            storage.copy_to(connection, "SELECT * FROM bad", self.quarantine)
        storage.write_json(self.manifest, {"sources": [asdict(entry) for entry in entries]})
        self.entries = entries
        self.refused.unlink(missing_ok=True)

    def _take(
        self, connection: duckdb.DuckDBPyConnection, batch: Sequence[tuple[Source, str]], others: Sequence[_Entry]
    ) -> list[_Entry]:
        """Checks a batch of sources together, against those that stay too, and writes its part."""
        part = self._part_name([content for _, content in batch], [entry.taken for entry in others])
        columns, filtered = self._check(connection, [source for source, _ in batch])
        table = self._table_of(batch[0][0])
        self._mark_repeats(connection, columns, table)
        if self.has_money:
            self._note_named(connection, part)
        if self.contract.is_event and not self.replaces:
            self._mark_elsewhere(connection, columns, others, table)
        bad = checks.quarantined([source.origin for source, _ in batch], part, columns)
        entries = []
        for number, ((source, content), dropped) in enumerate(zip(batch, filtered, strict=True)):
            entry = _Entry(
                source.origin, content, self.rules, part, filtered=dropped.rows, money=dropped.money,
                revision="replace" if self.replaces else "add",
            )  # fmt: skip
            entry = self._judged(connection, number, entry)
            self._refuse_if_thin(connection, entry, number, columns, bad, source.is_csv)
            entries.append(entry)
        connection.execute(f"INSERT INTO bad BY NAME {bad}")
        if self.replaces:
            storage.copy_to(connection, checks.accepted(self.contract, ["line", *columns]), self._whole(part))
        else:
            storage.copy_to(connection, checks.accepted(self.contract, columns), self._file(part))
        return entries

    def _judged(self, connection: duckdb.DuckDBPyConnection, number: int, entry: _Entry) -> _Entry:
        """The entry with what became of its rows."""
        counts = checks.counts(connection, number)
        accepted = counts.pop(None, 0)
        quarantined = {str(reason): count for reason, count in counts.items()}
        read = accepted + sum(quarantined.values())
        first, last, due = checks.times(connection) if self.contract.is_event else (None, None, None)
        money = None if entry.money is None else entry.money + checks.money(connection, number)
        return replace(
            entry, read=read, accepted=accepted, quarantined=quarantined, first=first, last=last, due=due, money=money
        )

    def _part_name(self, contents: Sequence[str], others: Sequence[str]) -> str:
        """A name that no part has yet, and always the same for the same sources taken in the same order."""
        name = _hash(contents, self.rules, others)
        while name in {entry.taken for entry in self.entries}:
            name = _hash(name)
        return name

    def _check(
        self, connection: duckdb.DuckDBPyConnection, batch: Sequence[Source]
    ) -> tuple[list[str], list[checks.Filtered]]:
        """Fills `checked`; returns the canonical columns, and what of each source was filtered."""
        given = []
        for source in batch:
            table = self._table_of(source)
            opened = rows.opened(connection, source, table, self.contract, self.attributes, self.scratch)
            expressions = rows.expressions(connection, table, self.contract, opened, (*self.attributes, *self.pii))
            given.append((source, opened, self._protected(expressions)))
        columns = {column.name: column.type for column in self.contract.columns} | dict.fromkeys(self.pii, "VARCHAR")
        for name in self.attributes:
            columns.setdefault(name, _common_type([expressions[name].wanted for _, _, expressions in given]))
        checks.create(connection, columns)
        filtered = []
        for number, (source, opened, expressions) in enumerate(given):
            with rows.explained(self.name, source):
                table = self._table_of(source)
                checks.add(connection, number, table, opened, expressions, columns, self._judged_by())
                filtered.append(checks.filtered(connection, table, opened, expressions, self.has_money))
        if self.has_money:
            checks.mark_further_lines(connection)
        if self.erased:
            checks.mark_erased(connection, self.erased)
        return list(columns), filtered

    def _protected(self, expressions: Mapping[str, Mapped]) -> dict[str, Mapped]:
        """Pseudonyms for ids and ciphers for contact data: nothing that is written sees the originals."""
        hidden = dict.fromkeys(self.pii, "encrypted") | ({"customer_id": "pseudonym"} if self.pseudonyms else {})
        return {name: _hidden(one, hidden[name]) if name in hidden else one for name, one in expressions.items()}

    def _judged_by(self) -> checks.Rules:
        customers = self._known_customers()
        known = f"SELECT customer_id FROM {storage.reader(customers)}" if customers else None
        return checks.Rules(self.contract, self.now, known)

    def _mark_repeats(self, connection: duckdb.DuckDBPyConnection, columns: Sequence[str], table: Table) -> None:
        if self.contract.key or table.duplicates == "quarantine":
            key = self.contract.key or tuple(columns)
            checks.mark_repeats(connection, key, ", ".join(self.contract.key) or "line")

    def _mark_elsewhere(
        self, connection: duckdb.DuckDBPyConnection, columns: Sequence[str], others: Sequence[_Entry], table: Table
    ) -> None:
        if self.contract.key:
            checks.mark_elsewhere(connection, self.contract.key, "known_keys")
            checks.remember(connection, self.contract.key)
            return
        if told := self._told_twice(others, table):
            checks.mark_taken(connection, "transaction_id", storage.reader(list(map(self._file, told))))
        if table is self.table and (overlapping := _overlapping(others, *checks.times(connection)[:2])):
            checks.mark_elsewhere(connection, tuple(columns), storage.reader(list(map(self._file, overlapping))))

    def _told_twice(self, others: Sequence[_Entry], table: Table) -> list[str]:
        """The parts that may tell of the same purchases: those of the tables for an event, of events for a table."""
        of_events = {str(file) for file in self._event_files()}
        return sorted({entry.part for entry in others if (entry.origin in of_events) != (table is _OF_EVENTS)})

    def _remember(self, connection: duckdb.DuckDBPyConnection, entries: Iterable[_Entry]) -> None:
        """A table `known_keys` of what identifies the events that stay; whole lines are looked up in the parts."""
        if self.contract.is_event and self.contract.key:
            parts = sorted({entry.part for entry in entries})
            checks.start_known(connection, self.contract.key, list(map(self._file, parts)))

    def _file(self, part: str) -> Path:
        return self.folder / f"{part}.parquet"

    def _whole(self, taken: str) -> Path:
        """The usable rows of a source, with those that a later source replaces."""
        return self.folder / "whole" / f"{taken}.parquet"

    def _named(self, taken: str) -> Path:
        """Hashes of the orders that a source names, at least of those that it has unusable or filtered rows of."""
        return self.folder / "named" / f"{taken}.parquet"

    def _note_named(self, connection: duckdb.DuckDBPyConnection, part: str) -> None:
        revisions.note_named(connection, only_lost=not self.replaces)
        if connection.execute("SELECT count(*) FROM named").fetchall()[0][0]:
            storage.copy_to(connection, "SELECT * FROM named", self._named(part))

    def _told(self, entries: Iterable[_Entry]) -> list[Told]:
        """What these sources tell of orders, in the order of the sources as the settings name them."""
        return [
            Told(rank, entry.taken, self._whole(entry.taken) if self.replaces else self._file(entry.part), named)
            for rank, entry in enumerate(sorted(entries, key=self._rank))
            for named in [self._named(entry.taken) if self._named(entry.taken).exists() else None]
        ]

    def _as_revised(self, connection: duckdb.DuckDBPyConnection, entry: _Entry) -> _Entry:
        """An entry that stays, under the present `revision`: its source is no longer there to be read again."""
        if not self.has_money or entry.revision == self.table.revision:
            return entry
        if self.replaces:
            return self._made_whole(connection, entry)
        if checks.REPLACED not in entry.quarantined:
            return replace(entry, revision="add")
        raise CheckFailed(
            f"{self.name}: {entry.origin} is gone, and was taken in with `revision: replace`, which left"
            f" {entry.quarantined[checks.REPLACED]:,} of its rows to later sources: bring it back, or set"
            f" `tables.{self.name}.revision: replace` again; nothing was changed"
        )

    def _made_whole(self, connection: duckdb.DuckDBPyConnection, entry: _Entry) -> _Entry:
        """With the rows that other sources had as well: which of them count depends on the order of the sources now."""
        taken = _hash(entry.taken, "whole")
        back = f"part = {quoted(entry.taken)} AND reason = {quoted(checks.ELSEWHERE)}"
        typed = ", ".join(f"CAST({c.name} AS {c.type}) AS {c.name}" for c in self.contract.columns)
        days = checks.days(self.contract, self.contract.names)
        returned = f"SELECT *{days} FROM (SELECT line, {typed} FROM bad WHERE {back})"
        there = f"SELECT NULL AS line, * FROM {storage.reader([self._file(entry.part)])}"
        storage.copy_to(connection, f"{there} UNION ALL BY NAME {returned}", self._whole(taken))
        connection.execute(f"DELETE FROM bad WHERE {back}")
        connection.execute(f"UPDATE bad SET part = {quoted(taken)} WHERE part = {quoted(entry.taken)}")
        named = f'SELECT {revisions.ORDER} AS "order" FROM {storage.reader([self._whole(taken)])}'
        if self._named(entry.taken).exists():
            named += f" UNION SELECT * FROM {storage.reader([self._named(entry.taken)])}"
        storage.copy_to(connection, f"SELECT DISTINCT * FROM ({named}) ORDER BY 1", self._named(taken))
        money = entry.money or self._uncounted(entry)
        lost = dict(money.quarantined)
        money = replace(money, accepted=money.accepted + lost.pop(checks.ELSEWHERE, NOTHING), quarantined=lost)
        others = {reason: count for reason, count in entry.quarantined.items() if reason != checks.ELSEWHERE}
        accepted = entry.accepted + entry.quarantined.get(checks.ELSEWHERE, 0)
        return replace(entry, part=taken, accepted=accepted, quarantined=others, money=money, revision="replace")

    def _settled(self, connection: duckdb.DuckDBPyConnection, entries: Sequence[_Entry]) -> list[_Entry]:
        """The entries in the order of their sources, each with a part of the rows that no later source replaces."""
        ranked = sorted(entries, key=self._rank)
        told = self._told(ranked)
        revisions.find_later(connection, told)
        connection.execute(f"DELETE FROM bad WHERE reason = {quoted(checks.REPLACED)}")
        return [self._divided(connection, entry, source) for entry, source in zip(ranked, told, strict=True)]

    def _divided(self, connection: duckdb.DuckDBPyConnection, entry: _Entry, source: Told) -> _Entry:
        share = revisions.share(connection, source)
        part = entry.taken + (f"-{share.mark:016x}" if share.replaced else "")
        if part not in {known.part for known in self.entries}:
            counting = f"SELECT * EXCLUDE (line, replaced) FROM {revisions.split(source)} WHERE NOT replaced"
            storage.copy_to(connection, counting, self._file(part))
        texts = ", ".join(f"CAST({name} AS VARCHAR) AS {name}" for name in self.contract.names)
        connection.execute(f"""
            INSERT INTO bad BY NAME
            SELECT {quoted(entry.origin)} AS source, line, {quoted(checks.REPLACED)} AS reason, {texts},
                   {quoted(entry.taken)} AS part FROM {revisions.split(source)} WHERE replaced ORDER BY line""")
        return _counted_again(entry, part, share)

    def _start_quarantine(self, connection: duckdb.DuckDBPyConnection, kept: Sequence[str]) -> None:
        """A table `bad` with the rows in quarantine that came with parts that stay."""
        names = dict.fromkeys((*self.contract.names, *self.attributes, *self.pii))
        texts = ", ".join(f"{rows.identifier(name)} VARCHAR" for name in names)
        connection.execute(
            f"CREATE TEMP TABLE bad (source VARCHAR, line BIGINT, reason VARCHAR, {texts}, part VARCHAR)"
        )
        if kept and self.quarantine.exists():
            wanted = ", ".join(map(quoted, kept))
            earlier = f"SELECT * FROM {storage.reader([self.quarantine])} WHERE part IN ({wanted})"
            connection.execute(f"INSERT INTO bad BY NAME {earlier}")

    def _refuse_if_thin(
        self,
        connection: duckdb.DuckDBPyConnection,
        entry: _Entry,
        number: int,
        columns: Sequence[str],
        rows_of_bad: str,
        are_lines: bool,
    ) -> None:
        """Stops before anything counts when what would be left of a source is not the shop's data."""
        former = next((known for known in self.entries if known.origin == entry.origin), None)
        of_events = entry.origin in map(str, self._event_files())  # one whose customers were all erased may be empty
        if entry.read == 0 and former is not None and former.accepted and not of_events:
            raise CheckFailed(
                f"{self.name}: {entry.origin} holds no rows{_filtered(entry.filtered)}; it held {former.read:,} before,"
                " nothing was changed"
            )
        own = Counter({why: n for why, n in entry.quarantined.items() if why not in checks.NOT_THE_SOURCES_FAULT})
        if own.total() <= self.workspace.max_quarantined * entry.read:
            return
        storage.copy_to(connection, rows_of_bad, self.refused)
        faults = "; ".join(
            f"{count:,} {why} ({checks.examples(connection, number, why, columns, are_lines)})"
            for why, count in own.most_common(5)
        )
        raise CheckFailed(
            f"{self.name}: {own.total():,} of {entry.read:,} rows of {entry.origin} cannot be used: {faults}. They are"
            f" in {self.refused}; nothing was changed. Mend the rows or the column map{self._advice(own)}; or raise"
            f" max_quarantined ({self.workspace.max_quarantined:g})"
        )

    def _advice(self, faults: Iterable[str]) -> str:
        mapped = (self.table.columns.get(name, name) for name in ("customer_id", "occurred_at"))
        once = ", ".join(text for text in mapped if re.fullmatch(r"[\w .-]+", text))
        hints = [advice for part, advice in _ADVICE.items() if any(part in fault for fault in faults)]
        return f" ({'; '.join(hints).replace('{once}', once)})" if hints else ""

    def _refuse_if_empty(self, entries: Sequence[_Entry]) -> None:
        if any(entry.accepted or checks.REPLACED in entry.quarantined for entry in entries):
            return
        read, filtered = sum(entry.read for entry in entries), sum(entry.filtered for entry in entries)
        named = ", ".join(entry.origin for entry in entries[:5]) + (" ..." if len(entries) > 5 else "")
        what = "no rows" if read == 0 else f"{read:,} rows, none of which can be used"
        raise CheckFailed(f"{self.name}: there are {what} in {named}{_filtered(filtered)}; nothing was changed")

    def _sweep(self) -> None:
        """Removes parts that do not count, be it any longer or since the run failed, and copies made for reading."""
        shutil.rmtree(self.scratch, ignore_errors=True)
        taken = {entry.taken for entry in self.entries}
        kept = {
            *(self._file(entry.part) for entry in self.entries),
            *(self._whole(entry.taken) for entry in self.entries if entry.revision == "replace"),
            *map(self._named, taken),
            self._returning_file(),
        }
        for file in self.folder.rglob("*.parquet"):
            if file not in kept:
                file.unlink()

    def _returning_file(self) -> Path:
        """Where it is noted what was found about orders that return, in just these sources in just this order."""
        return self.folder / "returning" / f"{_hash([entry.part for entry in self._of_tables()])}.parquet"

    def _of_tables(self) -> list[_Entry]:
        """The entries of all sources but events, in their order."""
        of_events = {str(file) for file in self._event_files()}
        return sorted((entry for entry in self.entries if entry.origin not in of_events), key=self._rank)

    def _returning(self) -> Returning | None:
        if not self.has_money or self.replaces or len(self._of_tables()) < 2:
            return None
        file = self._returning_file()
        if not file.exists():
            with storage.connect(self.home, self.workspace.timezone, self.workspace.memory) as connection:
                names = "part AS taken, transaction_id, customer_id, amount"
                where = f"reason = {quoted(checks.ELSEWHERE)}"
                repeated = f"(SELECT {names} FROM {storage.reader([self.quarantine])} WHERE {where})"
                revisions.note_returning(connection, self._told(self._of_tables()), repeated, file)
        return revisions.read_returning(file)

    def _tell(self, forgotten: Sequence[_Entry], here: set[str]) -> None:
        """Says what the numbers do not: rows of sources that are no longer there."""
        gone = [entry for entry in self.entries if entry.origin not in here]
        for entries, fate in ((gone, "are gone; their rows stay"), (forgotten, "are no longer named; their rows went")):
            if entries:
                shown = ", ".join(entry.origin for entry in entries[:3]) + (" ..." if len(entries) > 3 else "")
                self.progress(f"{self.name}: {len(entries)} source(s) taken in before {fate} ({shown})")

    def _account(self) -> Account:
        quarantined: Counter[str] = Counter()
        for entry in self.entries:
            quarantined.update(entry.quarantined)
        read, filtered, accepted = (
            sum(getattr(entry, count) for entry in self.entries) for count in ("read", "filtered", "accepted")
        )
        if since := accepted - sum(pq.read_metadata(part).num_rows for part in storage.parts(self.folder)):
            quarantined[checks.ERASED] += since
        money = self._money(since) if self.has_money else None
        return Account(self.name, read, filtered, accepted - since, dict(quarantined), money, self._returning())

    def _money(self, erased_since: int) -> Money:
        """The sum over the sources, less the amounts of customers who were erased after their rows were taken in."""
        total = sum((entry.money or self._uncounted(entry) for entry in self.entries), Money())
        if not erased_since:
            return total
        there = self._money_in([entry.part for entry in self.entries])
        return total + Money(there - total.accepted, quarantined={checks.ERASED: total.accepted - there})

    def _uncounted(self, entry: _Entry) -> Money:
        """Of a source that is gone and was taken in before money was counted: what its part still tells."""
        unknown = {**entry.quarantined, **({FILTERED: entry.filtered} if entry.filtered else {})}
        return Money(self._money_in([entry.part]), unknown=unknown)

    def _money_in(self, parts: Iterable[str]) -> Decimal:
        """What the rows of these parts come to."""
        with storage.connect(self.home, memory=self.workspace.memory) as connection:
            query = f"SELECT {summed('amount')} FROM {storage.reader(list(map(self._file, dict.fromkeys(parts))))}"
            return Decimal(connection.execute(query).fetchall()[0][0])


def _counted_again(entry: _Entry, part: str, share: revisions.Share) -> _Entry:
    """The entry with what counts of it now; what is gone altogether was erased."""
    before = entry.accepted + entry.quarantined.get(checks.REPLACED, 0)
    gone = before - share.rows - share.replaced
    quarantined = {why: count for why, count in entry.quarantined.items() if why != checks.REPLACED}
    for why, count in ((checks.REPLACED, share.replaced), (checks.ERASED, gone)):
        if count:
            quarantined[why] = quarantined.get(why, 0) + count
    return replace(
        entry, part=part, accepted=share.rows, quarantined=quarantined, first=share.first, last=share.last,
        money=_money_again(entry.money or Money(), share, gone),
    )  # fmt: skip


def _money_again(money: Money, share: revisions.Share, gone: int) -> Money:
    before = money.accepted + money.quarantined.get(checks.REPLACED, NOTHING)
    others = {why: amount for why, amount in money.quarantined.items() if why != checks.REPLACED}
    again = replace(money, accepted=share.money, quarantined=others)
    if share.replaced:
        again += Money(quarantined={checks.REPLACED: share.replaced_money})
    if gone:
        again += Money(quarantined={checks.ERASED: before - share.money - share.replaced_money})
    return again


def _hidden(column: Mapped, function: str) -> Mapped:
    canonical = checks.as_id if function == "pseudonym" else checks.as_text
    text = canonical(f"({column.expression}\n)", column.given)
    return Mapped(f"{function}({text})", "VARCHAR", "VARCHAR")


def _overlapping(entries: Iterable[_Entry], first: int | None, last: int | None) -> list[str]:
    """The parts with rows between two times: equal lines have equal times."""
    if first is None or last is None:
        return []
    return sorted(
        entry.part
        for entry in entries
        if entry.first is not None and entry.last is not None and entry.first <= last and entry.last >= first
    )


def _common_type(types: Iterable[str]) -> str:
    return "DOUBLE" if set(types) == {"DOUBLE"} else "VARCHAR"


def _filtered(count: int) -> str:
    return f" ({count:,} were filtered by `where`)" if count else ""


def _hash(*values: object) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:16]
