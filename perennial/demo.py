"""The demonstration: every step a user would type, typed for them, on a made-up shop; stops what it started."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any

from workspace.settings import SettingsError

_WORLD, _CONFIG, _AS_OF = Path("var/demo_world"), "configs/demo.yaml", "2025-01-01"
_HOME, _PORT = Path("var/demo"), 3000
_PATIENCE = 60  # seconds until the service must be ready


def demo(customers: int, port: int = 0, stay: bool = False) -> None:
    """Simulates, runs the whole line, lists, serves, asks for one customer and stops.

    To `stay` is to serve until Ctrl-C, for a browser; a shop that was made and published before is not made again.
    """
    if not Path(_CONFIG).exists():
        raise SettingsError(f"{_CONFIG}: not here; the demonstration runs in a checkout of the project")
    if not (stay and (_HOME / "published.json").exists()):
        _make(customers)
        _ask(_first_of_list(), port or _free_port())
    key = _perennial("keys", "add", "--role", "admin", "--name", "demo", "-c", _CONFIG, quiet=True).split()[0]
    if stay:
        _stay(key, port or _PORT)
    else:
        page = max((_HOME / "reports").glob("run-*.html"), key=lambda path: path.stat().st_mtime)
        print(_WHERE_NEXT.format(page=page, key=key))  # noqa: T201


def _make(customers: int) -> None:
    if not (_WORLD / "customers.parquet").exists():
        _perennial("simulate", str(_WORLD), "--customers", str(customers), "--years", "3", "--seed", "7")
    _perennial("run", "-c", _CONFIG, "--as-of", _AS_OF)
    _perennial("list", "churn-risk", "-c", _CONFIG, "--top", "8")


def _first_of_list() -> str:
    listed = _perennial("list", "churn-risk", "-c", _CONFIG, "--top", "1", "--format", "json", quiet=True)
    return str(json.loads(listed)[0]["customer_id"])


def _stay(key: str, port: int) -> None:
    """Serves until Ctrl-C."""
    print(_DESK.format(port=port, key=key), flush=True)  # noqa: T201
    with suppress(KeyboardInterrupt):
        _perennial("serve", "-c", _CONFIG, "--port", str(port))


def _ask(customer_id: str, port: int) -> None:
    """Starts the service, asks for one customer's scores, and stops it cleanly."""
    key = secrets.token_urlsafe(16)
    environment = os.environ | {"PERENNIAL_API_KEY": key}
    command = [sys.executable, "-m", "perennial", "serve", "-c", _CONFIG, "--port", str(port)]
    _show(f"PERENNIAL_API_KEY=... perennial serve -c {_CONFIG} --port {port}")
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as service:
        try:
            _wait_until_ready(port, service)
            body = {"customer_ids": [customer_id], "explain": True}
            headers = "-H 'Authorization: Bearer ...' -H 'Content-Type: application/json'"
            _show(f"curl {headers} -d '{json.dumps(body)}' http://127.0.0.1:{port}/v1/scores")
            print(json.dumps(_post(port, key, body), indent=2))  # noqa: T201
        finally:
            service.send_signal(signal.SIGTERM)
            service.communicate(timeout=20)


def _post(port: int, key: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/scores", json.dumps(body).encode(),
        {"Content-Type": "application/json", "Authorization": f"Bearer {key}"},
    )  # fmt: skip
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def _wait_until_ready(port: int, service: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        if service.poll() is not None:
            problem = service.stderr.read().decode()[-2000:] if service.stderr else ""
            raise RuntimeError(f"the service ended before it was ready: {problem}")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2):
                return
        except OSError:
            time.sleep(0.3)
    raise RuntimeError(f"the service was not ready within {_PATIENCE} s")


def _perennial(*arguments: str, quiet: bool = False) -> str:
    if not quiet:
        _show("perennial " + " ".join(arguments))
    done = subprocess.run(
        [sys.executable, "-m", "perennial", *arguments],
        stdout=subprocess.PIPE if quiet else None,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(done.returncode)
    return done.stdout or ""


def _show(command: str) -> None:
    print(f"\n$ {command}", flush=True)  # noqa: T201


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


_DESK = """
The desk: http://127.0.0.1:{port}/desk
Sign in with this key: {key}
Ctrl-C ends it."""
_WHERE_NEXT = f"""
Where to look next
  runs, figures, plots   .venv/bin/mlflow ui --backend-store-uri sqlite:///mlruns/mlflow.db
  what the run did       {{page}}
  the whole list         .venv/bin/perennial list churn-risk -c {_CONFIG} --top 1000 --out risk.xlsx
  the desk               make desk, then http://127.0.0.1:{_PORT}/desk with the key {{key}}
  the HTTP service       PERENNIAL_API_KEY=secret .venv/bin/perennial serve -c {_CONFIG}   (its API: /docs.json)
  your own shop          copy configs/online_retail.yaml, map your columns, perennial run -c your.yaml"""
