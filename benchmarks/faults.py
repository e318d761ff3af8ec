"""What the service does when things fail, on the shop of `benchmarks.service`: a line for each, exit 1 if one is wrong.

    python -m benchmarks.faults                     # all but the soak
    python -m benchmarks.faults redis worker
    python -m benchmarks.faults soak --minutes 10

Nothing is simulated: Redis is a server of this script's own that is killed and stopped, processes of the service are
killed with signal 9, models are registered, promoted, scored and published while callers ask.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import httpx
import numpy as np

from benchmarks import needs, service
from ingest import events
from workspace import registry

_URL = "http://127.0.0.1:3917"
_HEADERS = {"Authorization": "Bearer bench"}
_REDIS_PORT = 6399
_HOME = Path("var/bench_service/home-sqlite").resolve()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("faults", nargs="*", help=f"of {', '.join(_FAULTS)}, soak")
    parser.add_argument("--customers", type=int, default=5_000)
    parser.add_argument("--minutes", type=float, default=10, help="of the soak")
    asked = parser.parse_args()
    soaking = asked.minutes if "soak" in asked.faults else 0
    needs.refuse_without(["wrk", "redis-server"], redis=True, minutes=round(soaking + 5))
    ids, wrong = service.shop(asked.customers), 0
    faults = _FAULTS | {"soak": lambda ids: soak(ids, asked.minutes)}
    for name in asked.faults or _FAULTS:
        for what, holds in faults[name](ids):
            print(f"{'ok   ' if holds else 'WRONG'}  {name:<9} {what}", flush=True)
            wrong += not holds
    sys.exit(bool(wrong))


Finding = tuple[str, bool]


class Callers:
    """Asks for one customer after another, in the background; what came back, and how long the longest wait was."""

    def __init__(self, ids: Sequence[str], pause: float = 0.01) -> None:
        self.ids, self.pause = ids, pause
        self.answers: list[tuple[str, float, float]] = []
        self.models: Counter[str] = Counter()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(place,)) for place in range(4)]

    def __enter__(self) -> Callers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, place: int) -> None:
        with httpx.Client(headers=_HEADERS, timeout=10) as client:
            while not self._stop.wait(self.pause):
                place += 4
                began = time.perf_counter()
                self.answers.append((self._outcome(client, place), began, time.perf_counter() - began))

    def _outcome(self, client: httpx.Client, place: int) -> str:
        try:
            answer = client.post(f"{_URL}/v1/scores", json={"customer_ids": [self.ids[place % len(self.ids)]]})
        except httpx.HTTPError as problem:
            return type(problem).__name__
        if answer.status_code != 200:
            return str(answer.status_code)
        (row,) = answer.json()["scores"]
        self.models[row["churn_model"]] += 1
        return "stale" if row["stale"] else "fresh"

    def since(self, start: float) -> Counter[str]:
        return Counter(outcome for outcome, began, _ in self.answers if began >= start)

    def slowest(self) -> float:
        return max(seconds for _, _, seconds in self.answers) * 1000


def redis(ids: Sequence[str]) -> Iterator[Finding]:
    """Redis is killed, comes back, and hangs."""
    with _on_own_redis() as (home, own), _serving(home), Callers(ids) as callers:
        time.sleep(3)
        before = callers.since(0)
        yield f"with Redis: {dict(before)}", set(before) == {"fresh"}
        own.kill()
        time.sleep(1)
        start = time.perf_counter()
        time.sleep(4)
        gone = callers.since(start)
        yield f"killed: {dict(gone)}", set(gone) == {"stale"}
        own.start()
        time.sleep(6)
        start = time.perf_counter()
        time.sleep(2)
        back = callers.since(start)
        yield f"started again: {dict(back)}", set(back) == {"fresh"}
        own.signal(signal.SIGSTOP)
        time.sleep(3)
        start = time.perf_counter()
        time.sleep(5)
        hung = callers.since(start)
        own.signal(signal.SIGCONT)
        yield f"hanging: {dict(hung)}; slowest answer {callers.slowest():,.0f} ms", set(hung) == {"stale"}


def worker(ids: Sequence[str]) -> Iterator[Finding]:
    """A process that answers is killed five times, and the one that keeps features fresh once."""
    with _serving(_HOME, "service.workers=2") as process, Callers(ids) as callers:
        for _ in range(5):
            time.sleep(2)
            os.kill(random.choice(_children(process.pid)), signal.SIGKILL)
        start = time.perf_counter() + 15
        time.sleep(17)
        broken = callers.since(0)
        yield (
            f"while killed: {dict(broken)}; slowest {callers.slowest():,.0f} ms",
            broken["fresh"] > 0.97 * broken.total(),
        )
        yield f"afterwards: {dict(callers.since(start))}", set(callers.since(start)) == {"fresh"}
        yield f"{len(_children(process.pid))} processes again", len(_children(process.pid)) == 3


def kill(ids: Sequence[str]) -> Iterator[Finding]:
    """Everything is killed while events come in; nothing that was accepted is lost or doubled."""
    accepted: list[str] = []
    buyer = ids[0]
    before = None
    for turn in range(3):
        with _serving(_HOME) as process:
            if before is None:
                before = _purchases(buyer)
            stop = threading.Timer(random.uniform(2, 4), lambda process=process: _kill_all(process))  # type: ignore[misc]
            stop.start()
            with contextlib.suppress(httpx.HTTPError):
                for number in range(10_000):
                    name = f"fault-{os.getpid()}-{turn}-{number}"
                    if _send(name, buyer, day=2 + number % 20) == 202:
                        accepted.append(name)
            stop.join()
    there = service.workspace()
    with contextlib.closing(events.open_store(there)) as store:
        kept = Counter(event.event_id for event in store.read("event_id LIKE :mine", mine=f"fault-{os.getpid()}-%"))
    lost, doubled = set(accepted) - kept.keys(), [one for one, count in kept.items() if count > 1]
    yield f"{len(accepted):,} accepted, {len(lost)} lost, {len(doubled)} doubled", not lost and not doubled
    with _serving(_HOME):
        start, expected = time.perf_counter(), (before or 0) + len({int(one.split("-")[-1]) % 20 for one in kept})
        while _purchases(buyer) != expected and time.perf_counter() - start < 30:
            time.sleep(0.2)
        counted, seconds = _purchases(buyer), time.perf_counter() - start
        yield (
            f"the card counts {counted} purchase days, {expected} expected, after {seconds:.1f} s",
            counted == expected,
        )


def fresh(ids: Sequence[str]) -> Iterator[Finding]:
    """From accepting an event to a score that shows it, twenty times, while callers ask."""
    waits = []
    with _serving(_HOME), Callers(ids[100:]), httpx.Client(headers=_HEADERS) as client:
        for number, buyer in enumerate(ids[1:21]):
            before = client.get(f"{_URL}/v1/customers/{buyer}").json()["scores"]
            start = time.perf_counter()
            _send(f"fresh-{os.getpid()}-{number}", buyer, day=25)
            while client.get(f"{_URL}/v1/customers/{buyer}").json()["scores"] == before:
                if time.perf_counter() - start > 30:
                    break
                time.sleep(0.05)
            waits.append(time.perf_counter() - start)
    yield f"shown after {np.median(waits):.1f} s, at most {max(waits):.1f} s", max(waits) < 5


def promotion(ids: Sequence[str]) -> Iterator[Finding]:
    """Another version is promoted, scored and published while callers ask."""
    tracker, there = registry.client(), service.workspace()
    name = registry.model_name(there, "churn")
    champion = registry.champion(tracker, there, "churn")
    assert champion is not None
    run = ["-c", str(service.workspace_file()), "--home", str(there.home_path)]
    with _serving(_HOME), Callers(ids) as callers:
        time.sleep(1)
        other = tracker.create_model_version(
            name, champion.source, champion.run_id, tags=dict(champion.tags), model_id=champion.model_id
        )
        service.perennial("promote", "churn", "--version", str(other.version), *run)
        for command in ("score", "publish"):
            service.perennial(command, *run, "--as-of", service.AS_OF)
        time.sleep(8)
        start = time.perf_counter()
        time.sleep(1)
        models, last = dict(callers.models), callers.since(start)
    yield f"answers by version: {models}", f"{name}/{other.version}" in models and len(models) == 2
    yield (
        f"{len(callers.answers):,} answers: {dict(callers.since(0))}",
        set(callers.since(0)) == {"fresh"} and bool(last),
    )


def overload(ids: Sequence[str]) -> Iterator[Finding]:
    """512 connections ask as fast as they can, beside callers that ask now and then."""
    with _serving(_HOME), Callers(ids, pause=0.05) as callers:
        body = [b'{"customer_ids": ["%s"]}' % one.encode() for one in ids]
        time.sleep(2)
        start = time.perf_counter()
        calm = [seconds * 1000 for outcome, _, seconds in callers.answers if outcome == "fresh"]
        flood = service.wrk(f"{_URL}/v1/scores", body, 512, 10)
        busy = [seconds * 1000 for outcome, began, seconds in callers.answers if outcome == "fresh" and began >= start]
        outcomes = callers.since(start)
        stop = time.perf_counter()
        time.sleep(2)
        after = callers.since(stop + 0.5)
    yield f"calm: p99 {np.percentile(calm, 99):.0f} ms", True
    yield (
        f"flooded: {dict(outcomes)}, p99 of accepted {np.percentile(busy, 99):.0f} ms",
        set(outcomes) <= {"fresh", "503"},
    )
    yield f"of the flood {flood['requests/s']:,.0f}/s answered, {flood['errors']:,.0f} turned away", flood["errors"] > 0
    yield f"afterwards: {dict(after)}", set(after) == {"fresh"}


def stopping(ids: Sequence[str]) -> Iterator[Finding]:
    """Stopped while callers ask, it finishes what it has begun."""
    with _serving(_HOME) as process, Callers(ids) as callers:
        time.sleep(2)
        process.send_signal(signal.SIGTERM)
        start = time.perf_counter()
        code = process.wait(20)
        seconds = time.perf_counter() - start
    outcomes = callers.since(0)
    broken = {one for one in outcomes if one not in ("fresh", "ConnectError", "RemoteProtocolError", "ReadError")}
    yield f"ended with {code} after {seconds:.1f} s; {dict(outcomes)}", code == 0 and seconds < 10 and not broken


def soak(ids: Sequence[str], minutes: float) -> Iterator[Finding]:
    """Half of what it can, for long: no error, and no more memory at the end than half way, when all was done once."""
    bodies = [b'{"customer_ids": ["%s"], "explain": true}' % one.encode() for one in ids]
    with _serving(_HOME) as process:
        most = service.wrk(f"{_URL}/v1/scores", bodies, 8, 5)["requests/s"]
        errors, memory = 0.0, []
        for _ in range(2):
            times = asyncio.run(service.open_loop(f"{_URL}/v1/scores", bodies, most / 2, minutes * 30))
            errors += times["errors"]
            memory.append(_memory(process.pid))
    yield (
        f"{most / 2:,.0f} requests/s for {minutes:g} min: {errors:.0f} errors, p99 {times['p99, ms']:.0f} ms",
        errors == 0,
    )
    yield f"memory {memory[0]:,.0f} MB half way, then {memory[1]:,.0f} MB", memory[1] < memory[0] * 1.05


_FAULTS: dict[str, Callable[[Sequence[str]], Iterator[Finding]]] = {
    "redis": redis, "worker": worker, "kill": kill, "fresh": fresh, "promotion": promotion, "overload": overload,
    "stopping": stopping,
}  # fmt: skip


@contextmanager
def _serving(home: Path, *changes: str) -> Iterator[subprocess.Popen[bytes]]:
    """`perennial serve`, ready."""
    with service.server(service.serve_command(home, *changes), "/readyz") as process:
        yield process


@contextmanager
def _on_own_redis() -> Iterator[tuple[Path, _OwnRedis]]:
    """A copy of the shop's home that is published to a Redis of its own."""
    with tempfile.TemporaryDirectory() as folder, _own_redis() as own:
        home = shutil.copytree(_HOME, Path(folder) / "home")
        run = ["-c", str(service.workspace_file()), "--home", str(home), "--as-of", service.AS_OF]
        service.perennial("publish", *run, "--set", f"online=redis://127.0.0.1:{_REDIS_PORT}/0")
        yield home, own


class _OwnRedis:
    """A Redis that keeps what it holds on the disk, to be killed and started at will."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.start()

    def start(self) -> None:
        command = ["redis-server", "--port", str(_REDIS_PORT), "--appendonly", "yes", "--dir", self.folder]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        import redis as driver

        client = driver.Redis(port=_REDIS_PORT)
        for _ in range(100):
            with contextlib.suppress(driver.RedisError):
                client.ping()
                return
            time.sleep(0.1)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)


@contextmanager
def _own_redis() -> Iterator[_OwnRedis]:
    folder = tempfile.mkdtemp()
    own = _OwnRedis(folder)
    try:
        yield own
    finally:
        own.kill()
        shutil.rmtree(folder)


def _children(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _kill_all(process: subprocess.Popen[bytes]) -> None:
    for pid in (*_children(process.pid), process.pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _memory(pid: int) -> float:
    """Megabytes that the processes of the service hold for themselves alone."""
    total = 0
    for one in (pid, *_children(pid)):
        lines = Path(f"/proc/{one}/smaps_rollup").read_text().splitlines()
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))
    return total / 1024


def _send(name: str, buyer: str, day: int) -> int:
    when = datetime(2025, 1, day, 10, tzinfo=UTC).isoformat()
    purchase = {"transaction_id": name, "customer_id": buyer, "occurred_at": when, "lines": [{"amount": 10.0}]}
    return httpx.post(f"{_URL}/v1/events", json={"purchases": [purchase]}, headers=_HEADERS, timeout=10).status_code


def _purchases(buyer: str) -> int:
    answer = httpx.get(f"{_URL}/v1/customers/{buyer}", headers=_HEADERS, timeout=10)
    return int(answer.json()["history"]["purchases"])


if __name__ == "__main__":
    main()
