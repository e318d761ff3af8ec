"""A disk that is full, a file system of its own: what can be answered is, the rest is refused, and room mends it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis_server import free_port

from serving.http import processes
from serving.http.audit import AuditLog, Read, Reserve
from serving.http.keys import Keys
from tests.serving.conftest import KEY, NOW
from tests.serving.http.test_service import _wait_until_ready
from workspace import settings, storage
from workspace.settings import Workspace

BEARER = {"Authorization": f"Bearer {KEY}"}
BUYER = "c0200"


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Path]:
    """A file system of its own; where none may be mounted the test is skipped, or fails in CI."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or (done := subprocess.run(command, capture_output=True, text=True)).returncode:
        message = "a small file system takes `mount` and the right to use it"
        pytest.fail(f"{message}: {done.stderr}") if os.environ.get("CI") == "true" else pytest.skip(message)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Takes all the room there is."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (1_000_000, 4096, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                pass
    return filler


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", 3) as folder:
        yield folder


def a_read(number: int) -> Read:
    return Read("a key", "crm", f"GET /{number}", NOW)


def audited(home: Path) -> list[str]:
    lines = [line for line in (home / "audit.jsonl").read_text().splitlines() if line.endswith("}")]
    return [json.loads(line)["what"] for line in lines]


def test_lines_of_a_full_disk_are_in_the_audit_log_when_there_is_room(
    disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None is lost, those of a process that ended neither; without room in the reserve nothing may be answered."""
    monkeypatch.setattr("serving.http.audit._RESERVED", 10_000)
    Reserve(disk).take_room()
    AuditLog(disk).add(a_read(0))
    filler = fill(disk)
    log = AuditLog(disk)
    for number in range(1, 40):
        log.add(a_read(number))
    with pytest.raises(OSError, match="No space left on device"):
        log.add(Read("a key", "crm", "x" * 10_000, NOW))
    filler.unlink()
    AuditLog(disk).add(a_read(40))
    assert sorted(audited(disk), key=lambda what: int(what[5:])) == [f"GET /{line}" for line in range(41)]
    assert not AuditLog(disk).reserve.is_used


def test_keys_are_known_on_a_full_disk_by_whoever_opens_them_anew(disk: Path) -> None:
    """As a process does that takes the place of one that ended; a revoked key stays revoked."""
    keys = Keys(disk)
    good, revoked = keys.add("crm", NOW), keys.add("crm", NOW)
    keys.revoke(revoked.split("_")[1], NOW)
    vars(keys).pop("_database").close()
    fill(disk)
    assert Keys(disk).caller(good.encode()) is not None
    assert Keys(disk).caller(revoked.encode()) is None


_COUNT = """
import os, sys
from serving.http import metric_files
metric_files.take_room_first()
from prometheus_client import CollectorRegistry, Counter, generate_latest, multiprocess
counts = Counter("asked", "how often", ["route"])
for number in range(int(sys.argv[1])):
    counts.labels(f"/{number}" * 10).inc()
print(counts.labels("/1" * 10)._value.get())
registry = CollectorRegistry()
multiprocess.MultiProcessCollector(registry)
print(generate_latest(registry).count(b"asked_total{"))
"""


def test_counting_on_a_full_disk_ends_no_process(disk: Path) -> None:
    """A new process, and one whose file has to grow, go on and count for themselves; with room all counts are seen."""

    def counted(number: int) -> list[str]:
        environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(disk)}
        command = [sys.executable, "-c", _COUNT, str(number)]
        return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.split()

    assert counted(3) == ["1.0", "3"]
    filler = fill(disk)
    assert counted(5) == ["1.0", "3"]
    filler.unlink()
    with (disk / "filler").open("wb") as file:
        file.write(bytes(3_000_000 - 65_536 * 3))
    assert counted(3_000)[0] == "1.0"


@pytest.fixture
def shop_on_a_disk(shop: Any, environment: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Workspace]:
    """The shop's home, and the database of its MLflow, on a disk of 64 MB."""
    with small_disk(tmp_path / "disk", 64) as folder, pytest.MonkeyPatch.context() as patch:
        home = shutil.copytree(shop.workspace.home_path, folder / "home")
        registry = shutil.copy(shop.tracking_uri.removeprefix("sqlite:///"), folder)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{registry}")
        yield settings.parse({**storage.read_json(home / "workspace.json"), "home": str(home)}, "copy")


def ask(client: httpx.Client) -> dict[str, Any]:
    answer = client.post("/v1/scores", json={"customer_ids": [BUYER]}, headers=BEARER)
    assert answer.status_code == 200, answer.text
    return dict(answer.json()["scores"][0])


def send(client: httpx.Client, number: int) -> httpx.Response:
    when = (NOW - timedelta(hours=3)).isoformat()
    purchase = {"transaction_id": f"d{number}", "customer_id": BUYER, "occurred_at": when, "lines": [{"amount": 25.0}]}
    return client.post("/v1/events", json={"purchases": [purchase]}, headers=BEARER)


def eventually(holds: Callable[[], bool], seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while True:
        try:
            if holds():
                return
        except httpx.TransportError:
            pass
        assert time.monotonic() < until, "it never came to that"
        time.sleep(0.2)


def test_the_service_outlives_a_full_disk(shop_on_a_disk: Workspace) -> None:
    """Scores are answered, also by the processes that follow those that end; what must be kept is refused; with room
    everything is taken and shown again, by itself, and every answer is in the audit log."""
    home, port = shop_on_a_disk.home_path, free_port()
    with _served(home, port) as process, httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        _wait_until_ready(client, process)
        before = ask(client)
        filler = fill(home.parent)
        answered = [ask(client) == before for _ in range(100)]
        refused = [
            send(client, 1),
            client.put(f"/v1/customers/{BUYER}/consent", json={"marketing": True}, headers=BEARER),
        ]
        assert client.get("/metrics").status_code == 200
        for child in _children(process.pid):
            os.kill(child, signal.SIGKILL)
        eventually(lambda: ask(client) == before)
        ready = client.get("/readyz")
        refused.append(send(client, 1))
        filler.unlink()
        eventually(lambda: send(client, 1).status_code == 202)
        eventually(lambda: ask(client)["as_of"] > before["as_of"])
        eventually(lambda: client.get("/readyz").json() == {"status": "ready", "problems": []})
        process.send_signal(signal.SIGTERM)
        log, _ = process.communicate(timeout=60)
    assert all(answered), log
    assert [answer.status_code for answer in refused] == [503, 503, 503], [answer.text for answer in refused]
    assert {answer.json()["error"]["code"] for answer in refused} <= {"no_event_store", "disk_full"}
    assert ready.status_code == 200
    assert "disk_full" in {problem["code"] for problem in ready.json()["problems"]}
    assert process.returncode == 0, log
    assert audited(home).count("POST /scores") >= 102
    assert not Reserve(home).is_used


_SERVE = """
import pathlib, sys
from datetime import UTC, datetime
from workspace.settings import Service
from serving.http.processes import serve
serve(pathlib.Path(sys.argv[1]), Service(port=int(sys.argv[2])), lambda: datetime(2023, 7, 1, 18, tzinfo=UTC))
"""


@contextmanager
def _served(home: Path, port: int) -> Iterator[subprocess.Popen[str]]:
    root = Path(processes.__file__).resolve().parents[2]
    command = [sys.executable, "-W", "ignore", "-c", _SERVE, str(home), str(port)]
    own = {**os.environ, "PYTHONPATH": str(root)}
    process = subprocess.Popen(command, env=own, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
