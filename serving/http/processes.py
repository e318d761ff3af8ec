"""The processes of `perennial serve`: some that answer, one that keeps features fresh, and the one that starts them.

Without BentoML's supervisor: that imports everything twice before it is ready, starts a worker that cannot start again
and again, and listens on control ports where every local user may start commands. Here everything is imported once, and
each process is a fork; one that dies is followed by another within a second.
"""

from __future__ import annotations

import gc
import hashlib
import json
import logging
import multiprocessing
import os
import shutil
import signal
import socket
import ssl
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING

from serving.http.audit import Reserve
from serving.http.keys import Keys
from workspace import privacy, registry, settings, storage
from workspace.settings import Service, SettingsError
from workspace.storage import CheckFailed

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from serving.freshness import Freshness

_log = logging.getLogger("bentoml.perennial")
_SHUTDOWN_SECONDS = 5
# A process that ends sooner than this after its start, so often in a row, will not do better the next time. One that
# was killed, by hand or by a system without memory, may; so may one of a service that has been up, whose disk is full,
# say: it is started again after a pause.
_SOON, _OFTEN = 10.0, 3
_LONGEST_PAUSE = 30.0
_IN_MEMORY = Path("/dev/shm")
# A thread that writes the prediction log holds a request up for so long, several times; Python's own 5 ms are much.
_SWITCH_SECONDS = 0.0005
Clock = Callable[[], datetime]


@dataclass
class _Kept:
    """A process that is started again when it ends."""

    name: str
    target: Callable[[], None]
    process: BaseProcess
    started: float
    failures: int = 0
    start_at: float | None = None


def serve(home: Path, service: Service, clock: Clock, options: Sequence[str] = ()) -> None:
    """Runs the service until SIGINT or SIGTERM, then finishes the requests under way and returns.

    `options` are the words that name the workspace on the command line, for the commands that the desk starts.

    Raises:
        SettingsError: no key, no workspace in `home`, an unusable certificate, an address that cannot be listened on.
        CheckFailed: the workspace cannot be opened, or a process ends again and again.
    """
    home = home.resolve()
    Keys(home).refuse_if_none()
    privacy.refuse_without_key(settings.of_home(home))
    refuse_unusable_certificate(service)
    Reserve(home).take_room()
    with bound(service.host, service.port) as listener, _environment(home, service.port, options):
        _Keeper(_targets(home, service, clock, listener)).run()


def _targets(home: Path, service: Service, clock: Clock, listener: socket.socket) -> dict[str, Callable[[], None]]:
    """What each process does; everything is imported here, once for all of them."""
    import_what_takes_long()
    # Only now, since what counts for /metrics looks at the environment when it is imported.
    from serving.http import metric_files

    metric_files.take_room_first()

    from serving.freshness import Freshness
    from serving.service import application

    # isort: split
    import feast  # noqa: F401  # after `features`, which quickens it

    _log_as_json()
    _log.info("starting on %s://%s:%d", "https" if service.tls_certificate else "http", service.host, service.port)
    targets: dict[str, Callable[[], None]] = {"freshness": lambda: _keep_fresh(Freshness(home, clock))}
    for number in range(service.workers):
        targets[f"answers-{number}"] = lambda: _answer(application(clock, service), listener, service)
    return targets


def import_what_takes_long() -> None:
    """LightGBM without scikit-learn: its estimators, which no model needs, take as long to load as all the rest.

    MLflow only where its registry does not show whether it changed, and so is asked at every start.
    """
    if "sklearn" not in sys.modules:
        sys.modules["sklearn"] = None  # type: ignore[assignment]  # as where it is not installed
        import lightgbm  # noqa: F401

        del sys.modules["sklearn"]
    if registry.edition() is None:
        import mlflow  # noqa: F401


class _Keeper:
    """Starts processes, starts again those that end, and ends all of them on a signal."""

    def __init__(self, targets: dict[str, Callable[[], None]]) -> None:
        self.targets = targets
        self.stopping = self.was_up = False

    def run(self) -> None:
        for stop in (signal.SIGINT, signal.SIGTERM):
            signal.signal(stop, self._stop)
        gc.collect()
        gc.freeze()  # else each fork's collector would write to whatever is imported, and so have it twice
        kept = [_Kept(name, target, _started(name, target), time.monotonic()) for name, target in self.targets.items()]
        try:
            while not self.stopping:
                wait([one.process.sentinel for one in kept if one.start_at is None], timeout=0.5)
                now = time.monotonic()
                self.was_up = self.was_up or all(one.process.is_alive() and now - one.started > _SOON for one in kept)
                for one in kept:
                    if not one.process.is_alive() and not self.stopping:
                        self._start_again(one, now)
        finally:
            _end([one.process for one in kept])

    def _stop(self, *_: object) -> None:
        self.stopping = True

    def _start_again(self, one: _Kept, now: float) -> None:
        if one.start_at is None:
            self._note_end(one, now)
        elif now >= one.start_at:
            one.process, one.started, one.start_at = _started(one.name, one.target), now, None

    def _note_end(self, one: _Kept, now: float) -> None:
        soon, killed = now - one.started < _SOON, one.process.exitcode == -signal.SIGKILL
        one.failures = 0 if killed else one.failures + 1 if soon else 1
        _log.error("%s ended with code %s", one.name, one.process.exitcode)
        if one.failures >= _OFTEN and not self.was_up:
            raise CheckFailed(f"{one.name} ended {one.failures} times in a row; the log above says why")
        _forget_metrics(one.process.pid)
        pause = min(2.0 ** (one.failures - _OFTEN), _LONGEST_PAUSE) if one.failures >= _OFTEN else 0.0
        one.start_at = now + pause


def _started(name: str, target: Callable[[], None]) -> BaseProcess:
    process = multiprocessing.get_context("fork").Process(target=target, name=name)
    process.start()
    return process


def _end(processes: list[BaseProcess]) -> None:
    """Lets all finish what they are at; kills who takes too long."""
    for process in processes:
        if process.is_alive():
            process.terminate()
    until = time.monotonic() + _SHUTDOWN_SECONDS + 2
    for process in processes:
        process.join(max(0.1, until - time.monotonic()))
        if process.is_alive():
            process.kill()


def _answer(app: ASGIApp, listener: socket.socket, service: Service) -> None:
    import uvicorn

    from serving.http.connections import MOST_HEADERS, patient

    config = uvicorn.Config(
        app, lifespan="on", log_config=None, access_log=False, server_header=False,
        timeout_graceful_shutdown=_SHUTDOWN_SECONDS, ssl_certfile=service.tls_certificate,
        ssl_keyfile=service.tls_key, h11_max_incomplete_event_size=MOST_HEADERS, http=patient(service.read_timeout),
        ws="none",
    )  # fmt: skip
    # uvicorn raises the signal that stopped it once more when it is done; that would end the process as if killed.
    for stop in (signal.SIGINT, signal.SIGTERM):
        signal.signal(stop, lambda *_: None)
    _die_with_parent()
    sys.setswitchinterval(_SWITCH_SECONDS)
    uvicorn.Server(config).run(sockets=[listener])


def _keep_fresh(freshness: Freshness) -> None:
    """Ends in the middle of whatever it is at: it begins there again, and nobody waits for it meanwhile."""
    for stop in (signal.SIGINT, signal.SIGTERM):
        signal.signal(stop, lambda *_: sys.exit(0))
    _die_with_parent()
    parent = os.getppid()
    freshness.run(lambda: os.getppid() != parent)


def _die_with_parent() -> None:
    """Asks the kernel for SIGTERM when the process that keeps this one is killed: nobody would start it again."""
    import ctypes

    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


def _forget_metrics(pid: int | None) -> None:
    from prometheus_client import multiprocess

    multiprocess.mark_process_dead(pid)


def bound(host: str, port: int) -> socket.socket:
    """A socket that has the address but does not listen yet: callers are turned away until the service is ready.

    Raises:
        SettingsError: the address cannot be had.
    """
    listening = socket.socket(
        socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP
    )
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as problem:
        listening.close()
        raise SettingsError(f"cannot listen on {host}, port {port}: {problem}; choose another with --port") from problem
    return listening


def refuse_unusable_certificate(service: Service) -> None:
    """
    Raises:
        SettingsError: the files of the certificate and its key are not there, or do not belong together.
    """
    if service.tls_certificate is None:
        return
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(service.tls_certificate, service.tls_key)
    except OSError as problem:  # as ssl.SSLError is
        raise SettingsError(
            f"service.tls_certificate {service.tls_certificate} and service.tls_key {service.tls_key} cannot be used:"
            f" {problem}"
        ) from problem


def _log_as_json() -> None:
    from serving.http.limits import JsonLines

    to_terminal = logging.StreamHandler()
    to_terminal.setFormatter(JsonLines())
    logging.basicConfig(handlers=[to_terminal], level=logging.WARNING, force=True)
    for ours in ("bentoml.perennial", "perennial"):
        logging.getLogger(ours).setLevel(logging.INFO)


@contextmanager
def _environment(home: Path, port: int, options: Sequence[str]) -> Iterator[None]:
    """Where the service and its commands find the workspace, and where BentoML and its metrics may write."""
    storage.make_folder(home / "bentoml")
    metrics = _metrics_folder(home, port)
    os.environ |= {
        "PERENNIAL_HOME": str(home),
        "PERENNIAL_OPTIONS": json.dumps([*options]),
        "BENTOML_HOME": str(home / "bentoml"),
        "BENTOML_DO_NOT_TRACK": "true",
        "PROMETHEUS_MULTIPROC_DIR": str(metrics),
    }
    try:
        yield
    finally:
        shutil.rmtree(metrics, ignore_errors=True)


def _metrics_folder(home: Path, port: int) -> Path:
    """An empty folder of this service's own, in memory where the system has a file system of it.

    What a service of the same home and port left behind is removed: counts of processes that are gone.
    """
    mark = hashlib.sha256(f"{home} {port}".encode()).hexdigest()[:12]
    place = _IN_MEMORY if os.access(_IN_MEMORY, os.W_OK) else home / "bentoml"
    for left in place.glob(f"perennial-{mark}-*"):
        shutil.rmtree(left, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"perennial-{mark}-", dir=place))
