"""The store of events, embedded and in PostgreSQL, and how ingest takes them up: none lost, none counted twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import duckdb
import pandas as pd
import pytest
from postgres_server import ADDRESS, schema_for

from ingest import events, intake
from ingest.events import Conflict, Event, EventStore
from workspace import settings, storage
from workspace.settings import SettingsError, Workspace
from workspace.storage import CheckFailed

NOW = datetime(2024, 5, 1, 12, tzinfo=UTC)
ROOT = Path(events.__file__).resolve().parents[1]


def workspace_at(folder: Path, **more: object) -> Workspace:
    """A shop with two sold lines, in a file that tests may write anew."""
    (folder / "sold").mkdir(parents=True, exist_ok=True)
    write_sold(folder, "first", [("t1", "anna", 10.0), ("t2", "ben", 20.0)])
    tables = {"transactions": {"path": str(folder / "sold")}}
    return settings.parse({"name": "shop", "home": str(folder / "home"), "tables": tables} | more, "test")


def write_sold(folder: Path, name: str, rows: list[tuple[str, str, float]]) -> None:
    sold = pd.DataFrame(rows, columns=["transaction_id", "customer_id", "amount"])
    sold.assign(occurred_at="2024-04-30 10:00").to_csv(folder / "sold" / f"{name}.csv", index=False)


def bought(transaction_id: str, customer_id: str = "anna", *amounts: float) -> Event:
    row = {"transaction_id": transaction_id, "customer_id": customer_id, "occurred_at": "2024-05-01T09:00:00+00:00"}
    return Event(
        "transactions", transaction_id, customer_id, date(2024, 5, 1), tuple(row | {"amount": a} for a in amounts)
    )


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[EventStore]:
    if request.param == "sqlite":
        store = events.open_store(workspace_at(tmp_path))
        yield store
        store.close()
        return
    with schema_for("events") as engine:
        schema = engine.get_execution_options()["schema"]
        store = events.open_store(
            workspace_at(tmp_path, events=f"{ADDRESS}?options=-csearch_path%3D{schema}".replace(":hush", ":${PGPASS}"))
        )
        yield store
        store.close()


@pytest.fixture(autouse=True)
def _password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASS", "hush")


def accepted(workspace: Workspace) -> list[tuple[str, float]]:
    query = f"SELECT transaction_id, amount FROM {storage.rows_of(workspace.home_path, 'transactions')} ORDER BY ALL"
    return duckdb.execute(query).fetchall()


def test_an_id_that_comes_again_is_known(store: EventStore) -> None:
    """The same event twice, in one request or two, is one event; what is new beside it is taken in."""
    assert store.add([bought("t3", "anna", 5.0), bought("t3", "anna", 5.0)], NOW) == 1
    assert store.add([bought("t3", "anna", 5.0), bought("t4", "ben", 6.0, 6.0)], NOW) == 1
    later = store.read("number > 0")
    assert [event.event_id for event in later] == ["t3", "t4"]
    assert [len(event.rows) for event in later] == [1, 2]


def test_another_content_under_a_known_id_is_a_conflict(store: EventStore) -> None:
    """Nothing of such a request is taken in, whether the other content came before or comes beside it."""
    store.add([bought("t3", "anna", 5.0)], NOW)
    with pytest.raises(Conflict, match="accepted before with another content: t3"):
        store.add([bought("t4", "anna", 1.0), bought("t3", "anna", 7.0)], NOW)
    with pytest.raises(Conflict, match="t5"):
        store.add([bought("t5", "anna", 1.0), bought("t5", "anna", 2.0)], NOW)
    assert len(store.read("number > 0")) == 1


def test_what_is_shown_is_noted_for_one_publication(store: EventStore) -> None:
    """A new publication knows of no event that it shows; what waits is told with its time."""
    store.add([bought("t3", "anna", 5.0)], NOW)
    assert store.applied("view_1") is None
    assert store.waiting_since(0) == NOW
    store.note_applied("view_1", store.last_number())
    assert store.applied("view_1") == store.last_number()
    assert store.applied("view_2") is None
    assert store.waiting_since(store.last_number()) is None


def test_a_store_that_is_down_is_said_so(tmp_path: Path) -> None:
    """No PostgreSQL is an error that names the setting; an address that is none is wrong usage."""
    with pytest.raises(CheckFailed, match=r"store of events \(postgresql\) does not answer"):
        events.open_store(workspace_at(tmp_path, events="postgresql://127.0.0.1:1/none"))
    elsewhere = workspace_at(tmp_path, events="${ELSEWHERE}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ELSEWHERE", "mysql://there/none")
        with pytest.raises(SettingsError, match="`events` is neither `sqlite` nor an address"):
            events.open_store(elsewhere)


_WRITER = """
import sys
from datetime import UTC, date, datetime
from ingest import events
from tests.ingest.test_events import bought, workspace_at
from pathlib import Path
store = events.open_store(workspace_at(Path(sys.argv[1])))
for number in range(100_000):
    store.add([bought(f"k{number}", "anna", 1.0), bought(f"l{number}", "ben", 2.0)], datetime(2024, 5, 1, tzinfo=UTC))
    print(number, flush=True)
"""


def test_no_accepted_event_is_lost_by_a_kill(tmp_path: Path) -> None:
    """Killed while it writes, a store holds every event that was reported accepted, once, and half a request never."""
    command = [sys.executable, "-W", "ignore", "-c", _WRITER, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    reported = -1
    for _ in range(2):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment) as writer:
            assert writer.stdout is not None
            for line in writer.stdout:
                reported = max(reported, int(line))
                if int(line) >= 40:
                    writer.send_signal(signal.SIGKILL)
                    break
    store = events.open_store(workspace_at(tmp_path))
    ids = [event.event_id for event in store.read("number > 0")]
    store.close()
    assert len(ids) == len(set(ids))
    assert {f"{letter}{number}" for letter in "kl" for number in range(reported + 1)} <= set(ids)
    assert sum(one.startswith("k") for one in ids) == sum(one.startswith("l") for one in ids)


def test_ingest_takes_events_up_once(tmp_path: Path) -> None:
    """What came since the last ingest is ingested, a line told twice in a purchase twice, and never again."""
    workspace = workspace_at(tmp_path)
    intake.ingest(workspace, NOW)
    store = events.open_store(workspace)
    store.add([bought("t3", "anna", 5.0, 5.0)], NOW)
    for _ in range(2):
        (account,) = intake.ingest(workspace, NOW)
        assert accepted(workspace) == [("t1", 10.0), ("t2", 20.0), ("t3", 5.0), ("t3", 5.0)]
        assert account.read == account.accepted == 4
    store.add([bought("t4", "ben", 6.0)], NOW)
    intake.ingest(workspace, NOW)
    assert accepted(workspace)[-1] == ("t4", 6.0)
    store.close()


def test_a_purchase_that_table_and_event_tell_of_counts_once(tmp_path: Path) -> None:
    """Whichever is ingested first counts, though they differ in time and columns; the account still adds up."""
    workspace = workspace_at(tmp_path)
    store = events.open_store(workspace)
    store.add([bought("t2", "ben", 20.0), bought("t3", "anna", 5.0)], NOW)
    intake.ingest(workspace, NOW)
    assert accepted(workspace) == [("t1", 10.0), ("t2", 20.0), ("t3", 5.0)]
    write_sold(tmp_path, "second", [("t3", "anna", 5.0), ("t4", "ben", 7.0)])
    (account,) = intake.ingest(workspace, NOW)
    assert accepted(workspace) == [("t1", 10.0), ("t2", 20.0), ("t3", 5.0), ("t4", 7.0)]
    assert account.quarantined == {"already in another source": 2}
    assert account.read == account.accepted + 2
    store.close()


def test_a_crash_while_handing_over_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Events whose file was not finished are handed over the next time."""
    workspace = workspace_at(tmp_path)
    store = events.open_store(workspace)
    store.add([bought("t3", "anna", 5.0)], NOW)
    store.close()
    with monkeypatch.context() as patch:
        patch.setattr(events.pq, "write_table", lambda *_, **__: (_ for _ in ()).throw(OSError("killed")))
        with pytest.raises(OSError, match="killed"):
            intake.ingest(workspace, NOW)
    intake.ingest(workspace, NOW)
    assert ("t3", 5.0) in accepted(workspace)
