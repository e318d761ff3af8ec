"""Sources to canonical tables: every row is accepted, or quarantined with a reason, and the account adds up.

An accepted row of an event table carries two columns more: `day`, the day of `occurred_at` in the workspace's
timezone, and `known_day`, the later of that and the day of `recorded_at`. A row is known at an as_of exactly when
`known_day < as_of`, which makes every window a comparison of dates.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import duckdb

from perennial import sources, storage
from perennial.settings import SettingsError, Workspace
from perennial.sources import Source
from perennial.storage import CheckFailed, quoted
from perennial.tables import ABSURD_AMOUNT, CONTRACTS, Contract

_NOT_OF_TYPE = {"TIMESTAMPTZ": "is not a time", "DOUBLE": "is not a number", "BOOLEAN": "is not true or false"}


@dataclass(frozen=True)
class Account:
    """What became of the rows of one table, over all its sources: `read = accepted + quarantined`."""

    table: str
    read: int
    filtered: int
    accepted: int
    quarantined: Mapping[str, int]

    def __str__(self) -> str:
        reasons = "; ".join(f"{count:,} {reason}" for reason, count in sorted(self.quarantined.items()))
        return (
            f"{self.table}: {self.read:,} read = {self.accepted:,} accepted"
            f" + {sum(self.quarantined.values()):,} quarantined"
            + (f" ({reasons})" if reasons else "")
            + (f"; {self.filtered:,} more filtered by `where`" if self.filtered else "")
        )


def ingest(workspace: Workspace, now: datetime, progress: Callable[[str], None] = lambda _: None) -> list[Account]:
    """Brings every table of the workspace up to date with its sources; returns an account per table.

    A source whose content was taken in before, under any name, is not read again. A new or changed source of an event
    table adds or replaces its own part; any change of a describing table rebuilds it, where the last source wins.

    Raises:
        SettingsError: a source or a mapping cannot be used.
        CheckFailed: no row of a table, or too small a share of them, can be accepted.
    """
    accounts = []
    for name in workspace.tables.given():
        accounts.append(_Intake(workspace, CONTRACTS[name], now).run())
        progress(str(accounts[-1]))
    return accounts


class _Intake:
    """Taking in the sources of one table."""

    def __init__(self, workspace: Workspace, contract: Contract, now: datetime) -> None:
        self.workspace, self.contract, self.now = workspace, contract, now
        self.table = workspace.tables.given()[contract.name]
        self.attributes = workspace.attributes if contract.name == "customers" else ()
        self.home = workspace.home_path
        self.folder = storage.tables_folder(self.home, contract.name)
        self.quarantine = self.home / "quarantine" / f"{contract.name}.parquet"
        self.manifest: dict[str, dict[str, Any]] = {}
        if (self.folder / "manifest.json").exists():
            self.manifest = storage.read_json(self.folder / "manifest.json")

    def run(self) -> Account:
        found = sources.find(self.contract.name, self.table, self.home / "tmp" / "sql")
        distinct = {self._fingerprint(source): source for source in reversed(found)}
        taken = {entry["fingerprint"] for entry in self.manifest.values()}
        fresh = [(source, print_) for print_, source in reversed(distinct.items()) if print_ not in taken]
        if self.contract.is_event:
            for source, print_ in fresh:
                self._take([(source, print_)], part=hashlib.sha256(source.origin.encode()).hexdigest()[:16])
        elif fresh or len(distinct) != len(taken):
            self.manifest = {}
            self._take([(source, print_) for print_, source in reversed(distinct.items())], part="all")
        return self._account()

    def _fingerprint(self, source: Source) -> str:
        """Of content and mapping together, so that a mended mapping is applied to what was read before."""
        mapping = f"{self.table!r} {self.attributes} {self.workspace.timezone}"
        return hashlib.sha256(f"{source.fingerprint()} {mapping}".encode()).hexdigest()

    def _account(self) -> Account:
        entries = self.manifest.values()
        reasons: dict[str, int] = {}
        for entry in entries:
            for reason, count in entry["quarantined"].items():
                reasons[reason] = reasons.get(reason, 0) + count
        read, filtered, accepted = (sum(e[key] for e in entries) for key in ("read", "filtered", "accepted"))
        return Account(self.contract.name, read, filtered, accepted, reasons)

    def _take(self, batch: Sequence[tuple[Source, str]], part: str) -> None:
        """Checks a batch of sources together and commits it: quarantine, then part, then manifest."""
        with storage.connect(self.home, self.workspace.timezone) as connection:
            connection.execute("SET preserve_insertion_order = true")  # line numbers follow the file
            entries = {}
            for index, (source, print_) in enumerate(batch):
                with _explained(self.contract.name, source):
                    columns = self._check(connection, source, index)
                    entries[source.origin] = {"fingerprint": print_, "filtered": self._filtered(connection, source)}
            self._mark_duplicates(connection, list(columns), part)
            for index, (source, _) in enumerate(batch):
                entries[source.origin] |= _verdicts(connection, index)
            self._write_quarantine(connection, [source.origin for source, _ in batch], list(columns))
            self._refuse_if_thin(entries)
            storage.copy_to(connection, self._accepted(list(columns)), self.folder / f"{part}.parquet")
        self.manifest |= entries
        storage.write_json(self.folder / "manifest.json", self.manifest)

    def _check(self, connection: duckdb.DuckDBPyConnection, source: Source, index: int) -> dict[str, str]:
        """Adds the rows of one source to the table `checked`; returns the canonical columns and their types."""
        rows = sources.relation(source, self.contract, self.table)
        found = sources.expressions(connection, self.table, self.contract, rows, self.attributes)
        columns = {c.name: c.type for c in self.contract.columns} | {a: found[a][1] for a in self.attributes}
        texts = {name: f"CAST(raw_{name} AS VARCHAR)" for name in found}
        verb = "CREATE TEMP TABLE checked AS" if index == 0 else "INSERT INTO checked"
        connection.execute(f"""
            {verb} WITH given AS (
                {sources.mapped(self.table, rows, {f"raw_{name}": text for name, (text, _) in found.items()})}
            ), typed AS (
                SELECT *, {", ".join(f"{_cast(n, t, n in found)} AS {n}" for n, t in columns.items())} FROM given
            ), judged AS (
                SELECT *, {self._reason(found.keys(), columns)} AS reason FROM typed
            )
            SELECT {index} AS source, {quoted(source.origin)} AS origin, line, {", ".join(columns)}, reason,
                   CASE WHEN reason IS NOT NULL
                        THEN struct_pack({", ".join(f"{n} := {texts.get(n, 'CAST(NULL AS VARCHAR)')}" for n in columns)})
                   END AS as_written
            FROM judged""")
        return columns

    def _filtered(self, connection: duckdb.DuckDBPyConnection, source: Source) -> int:
        if not self.table.where:
            return 0
        rows = sources.relation(source, self.contract, self.table)
        return _one(connection, f"SELECT count(*) FROM {rows} WHERE ({self.table.where}) IS NOT TRUE")

    def _reason(self, found: Iterable[str], columns: Mapping[str, str]) -> str:
        """The first thing wrong with a row, as a SQL expression over its raw and typed columns; null when nothing."""
        wrong = [(f"trim(coalesce(CAST(raw_{name} AS VARCHAR), '')) = ''", f"no {name}")
                 for name in self.contract.required]  # fmt: skip
        wrong += [
            (f"trim(CAST(raw_{name} AS VARCHAR)) <> '' AND {name} IS NULL", f"{name} {_NOT_OF_TYPE[columns[name]]}")
            for name in found
            if columns[name] in _NOT_OF_TYPE
        ]
        if self.contract.is_event:
            now = f"TIMESTAMPTZ {quoted(self.now.isoformat())}"
            wrong.append((f"occurred_at > {now}", "occurred_at is in the future"))
        if "amount" in columns:
            wrong.append((f"NOT isfinite(amount) OR abs(amount) > {ABSURD_AMOUNT:.0f}", "absurd amount"))
        customers = self.workspace.tables.customers
        if self.contract.is_event and customers is not None and customers.complete:
            known = f"SELECT customer_id FROM {storage.rows_of(self.home, 'customers')}"
            wrong.append((f"customer_id NOT IN ({known})", "unknown customer"))
        return "CASE " + " ".join(f"WHEN {condition} THEN {quoted(reason)}" for condition, reason in wrong) + " END"

    def _mark_duplicates(self, connection: duckdb.DuckDBPyConnection, columns: Sequence[str], part: str) -> None:
        """Gives every repetition of a key a reason: the first line of the last source is the one that stays."""
        if not self.contract.key and self.table.duplicates == "keep":
            return
        key = self.contract.key or tuple(columns)
        reason = quoted(f"duplicate {'line' if not self.contract.key else ', '.join(key)}")
        connection.execute(f"""
            UPDATE checked SET reason = {reason} FROM (
                SELECT rowid AS repeated FROM checked WHERE reason IS NULL
                QUALIFY row_number() OVER (PARTITION BY {", ".join(key)} ORDER BY source DESC, line) > 1
            ) WHERE checked.rowid = repeated""")
        others = [p for p in storage.parts(self.folder) if p.stem != part]
        if self.contract.is_event and others:
            same = " AND ".join(f"checked.{name} IS NOT DISTINCT FROM earlier.{name}" for name in key)
            connection.execute(f"""
                UPDATE checked SET reason = {reason} FROM (
                    SELECT DISTINCT {", ".join(key)} FROM read_parquet({[str(p) for p in others]})
                ) AS earlier WHERE checked.reason IS NULL AND {same}""")

    def _write_quarantine(
        self, connection: duckdb.DuckDBPyConnection, origins: Sequence[str], columns: Sequence[str]
    ) -> None:
        written = ", ".join(f"coalesce(as_written.{name}, CAST({name} AS VARCHAR)) AS {name}" for name in columns)
        query = f"SELECT origin AS source, line, reason, {written} FROM checked WHERE reason IS NOT NULL"
        if self.quarantine.exists():
            earlier = f"SELECT * FROM read_parquet({quoted(self.quarantine)}) WHERE source NOT IN ({_texts(origins)})"
            kept = earlier if self.contract.is_event else f"{earlier} AND false"
            query = f"{query} UNION ALL BY NAME {kept}"
        storage.copy_to(connection, f"{query} ORDER BY source, line", self.quarantine)

    def _refuse_if_thin(self, entries: Mapping[str, Mapping[str, Any]]) -> None:
        """Stops before anything is committed when what would be left is not the shop's data."""
        name = self.contract.name
        for origin, entry in entries.items():
            reasons = "; ".join(f"{count:,} {reason}" for reason, count in entry["quarantined"].items())
            if entry["read"] == 0 and len(entries) + len(self.manifest) == 1:
                dropped = f" ({entry['filtered']:,} were filtered by `where`)" if entry["filtered"] else ""
                raise CheckFailed(f"{name}: {origin} holds no rows{dropped}; nothing was changed")
            bad = sum(entry["quarantined"].values())
            if bad > self.workspace.max_quarantined * entry["read"]:
                raise CheckFailed(
                    f"{name}: {bad:,} of {entry['read']:,} rows of {origin} cannot be used: {reasons}. They are in"
                    f" {self.quarantine}; mend the rows or the column map (a time in another notation needs"
                    f" strptime(column, '%d/%m/%Y')), or raise max_quarantined ({self.workspace.max_quarantined:g})"
                )

    def _accepted(self, columns: Sequence[str]) -> str:
        days = ""
        if self.contract.is_event:
            known = (
                "greatest(CAST(occurred_at AS DATE), coalesce(CAST(recorded_at AS DATE), CAST(occurred_at AS DATE)))"
            )
            days = f", CAST(occurred_at AS DATE) AS day, {known} AS known_day"
        if "resolved_at" in columns:
            days += ", CAST(resolved_at AS DATE) AS resolved_day"
        if "signed_up_at" in columns:
            days += ", CAST(signed_up_at AS DATE) AS signed_up_day"
        return f"SELECT {', '.join(columns)}{days} FROM checked WHERE reason IS NULL ORDER BY source, line"


def _cast(name: str, kind: str, given: bool) -> str:
    if not given:
        return f"CAST(NULL AS {kind})"
    if kind == "VARCHAR":
        return f"nullif(trim(CAST(raw_{name} AS VARCHAR)), '')"
    return f"TRY_CAST(raw_{name} AS {kind})"


def _texts(values: Iterable[str]) -> str:
    return ", ".join(map(quoted, values))


def _one(connection: duckdb.DuckDBPyConnection, query: str) -> int:
    return int(connection.execute(query).fetchall()[0][0])


def _verdicts(connection: duckdb.DuckDBPyConnection, index: int) -> dict[str, Any]:
    counts = dict(
        connection.execute(
            f"SELECT reason, count(*) FROM checked WHERE source = {index} GROUP BY 1 ORDER BY 1"
        ).fetchall()
    )
    accepted = counts.pop(None, 0)
    return {"read": accepted + sum(counts.values()), "accepted": accepted, "quarantined": counts}


@contextmanager
def _explained(name: str, source: Source) -> Iterator[None]:
    """DuckDB's complaint about a file, in terms of the table and what to do."""
    try:
        yield
    except duckdb.Error as problem:
        first = str(problem).splitlines()[0]
        if "not utf-8" in str(problem) or "byte sequence" in str(problem):
            first += f"; set `tables.{name}.encoding: latin-1` or save the file as UTF-8"
        elif source.file.suffix == ".parquet":
            first += "; the file is damaged or incomplete: copy it again"
        raise SettingsError(f"{name}: {source.origin} cannot be read: {first}") from problem
