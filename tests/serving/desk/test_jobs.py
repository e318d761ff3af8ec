"""Long work that the desk starts: real commands, in processes of their own, on a small shop."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import bentoml
import httpx
import pytest
from starlette.testclient import TestClient

from serving.desk import jobs as module
from serving.desk.jobs import OPTIONS_VARIABLE, Job, Jobs
from serving.http.answers import Answers
from serving.http.keys import Keys
from workspace.settings import Service

DAY = "2023-07-01"
_PATIENCE = 120


@pytest.fixture(scope="module")
def service(app: Any, environment: pytest.MonkeyPatch) -> Iterator[TestClient]:
    with TestClient(app) as client:
        yield client


@pytest.fixture
def answers(shop: Any, tmp_path: Path, service: TestClient, monkeypatch: pytest.MonkeyPatch) -> Iterator[Answers]:
    """The service on a copy of the shop and of its MLflow, started by `perennial serve -c ... --home ...`."""
    home, registry = tmp_path / "home", tmp_path / "mlflow.db"
    shutil.copytree(shop.workspace.home_path, home, ignore=shutil.ignore_patterns("predictions"))
    shutil.copy(shop.tracking_uri.removeprefix("sqlite:///"), registry)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{registry}")
    config = shop.workspace.home_path.parent / "workspace.yaml"
    monkeypatch.setenv(OPTIONS_VARIABLE, json.dumps(["-c", str(config), "--home", str(home)]))
    running = bentoml.get_current_service()
    before, clock = running.answers, running.answers.clock
    running.answers = Answers(home, lambda: clock(), Service())
    try:
        sign_in(service, running.answers)
        yield running.answers
    finally:
        running.answers = before
        service.cookies.clear()


def sign_in(service: TestClient, answers: Answers, role: Any = "admin") -> None:
    service.cookies.clear()
    key = Keys(answers.home).add(role, answers.clock())
    service.post("/desk/sign-in", data={"key": key}, follow_redirects=False)


def send(service: TestClient, path: str, **sent: str) -> httpx.Response:
    (token, *_) = re.findall(r'name="form_token" value="(\w+)"', service.get("/desk/").text)
    return service.post(path, data={"form_token": token, **sent}, follow_redirects=False)


def wait_for(holds: Callable[[], bool]) -> None:
    until = time.monotonic() + _PATIENCE
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.1)


def ended(answers: Answers, number: int = 1) -> Job:
    of_home = Jobs(answers.home)
    wait_for(lambda: of_home.of(number).state != "running")
    return of_home.of(number)


@pytest.fixture
def waiting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Commands that say something and then wait until this file is there, in the place of Perennial's."""
    package, go_on = tmp_path / "instead" / "perennial", tmp_path / "go-on"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(
        "import pathlib, time\n"
        "print('  0.1 s  [3/7] monitor, about 2 minutes left <b>', flush=True)\n"
        f"while not pathlib.Path({str(go_on)!r}).exists(): time.sleep(0.05)\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{package.parent}{os.pathsep}{Path(module.__file__).parents[2]}")
    monkeypatch.chdir(tmp_path)  # which comes before all that is named
    return go_on


def test_a_promotion_is_a_command_whose_end_its_page_tells(service: TestClient, answers: Answers) -> None:
    """A real one, of the version that answers; and a rollback, to which there is nothing, fails in words."""
    started = send(service, "/desk/trust/models/churn/promote", version="1")
    assert started.headers["location"] == "/desk/jobs/1"
    assert ended(answers).words == ("promote", "churn", "--version=1")
    page = service.get("/desk/jobs/1").text
    assert "small.churn version 1 is champion" in page
    assert "It answers from the next run on" in page
    assert "it answers from the next run on" in service.get("/desk/trust/models/churn").text
    assert "hx-trigger" not in page
    send(service, "/desk/trust/models/churn/rollback")
    assert ended(answers, 2).state == "failed"
    page = service.get("/desk/jobs/2").text
    assert "there is nothing to go back to" in page
    assert "Failed: nothing was left half-done." in page
    lines = [json.loads(line) for line in (answers.home / "audit.jsonl").read_text().splitlines()]
    filters = {line["what"]: line["filter"] for line in lines}
    assert filters["POST /desk/trust/models/{kind}/promote"] == {"kind": "churn", "version": "1"}


def test_what_runs_shows_its_progress_and_is_alone(service: TestClient, answers: Answers, waiting: Path) -> None:
    """Its page asks again while it runs; a second is refused; a service that was started since sees it too."""
    assert send(service, "/desk/jobs", command="run", as_of=DAY).headers["location"] == "/desk/jobs/1"
    wait_for(lambda: Jobs(answers.home).of(1).stage is not None)
    page = service.get("/desk/jobs/1").text
    assert 'hx-trigger="every 2s"' in page
    assert "Step 3 of 7: looking for what has moved." in page
    assert "left &lt;b&gt;" in page
    assert "One is at work" in service.get("/desk/jobs").text
    second = send(service, "/desk/jobs", command="check", as_of=DAY)
    assert (second.status_code, "nother job is at work" in second.text) == (503, True)
    assert Jobs(answers.home).of(1).state == "running"
    waiting.touch()
    assert ended(answers).state == "done"
    page = service.get("/desk/jobs/1").text
    assert "Done." in page
    assert "hx-trigger" not in page


def test_a_defect_of_ours_is_a_failure(service: TestClient, answers: Answers, waiting: Path) -> None:
    """Though Python ends with the code of a check that failed."""
    (waiting.parent / "instead" / "perennial" / "__main__.py").write_text("raise ValueError('<b>unforeseen')\n")
    send(service, "/desk/jobs", command="run", as_of=DAY)
    assert (ended(answers).state, ended(answers).code) == ("failed", 1)
    page = service.get("/desk/jobs/1").text
    assert "ValueError: &lt;b&gt;unforeseen" in page
    assert "Start it again" in page


@pytest.mark.parametrize("group", [True, False])
def test_a_job_that_was_killed_is_seen_as_such(
    service: TestClient, answers: Answers, waiting: Path, group: bool
) -> None:
    """All of it, or the command alone; another can start then."""
    send(service, "/desk/jobs", command="monitor", as_of=DAY)
    wait_for(lambda: bool(Jobs(answers.home).of(1).output))
    keeper, command = pids(answers.home / "jobs" / "1")
    if group:
        os.killpg(os.getpgid(keeper), signal.SIGKILL)
    else:
        os.kill(command, signal.SIGKILL)
    wait_for(lambda: Jobs(answers.home).of(1).state == "stopped")
    page = service.get("/desk/jobs/1").text
    assert "Stopped before its end" in page
    assert "Start it again" in page
    assert send(service, "/desk/jobs", command="monitor", as_of=DAY).headers["location"] == "/desk/jobs/2"
    waiting.touch()
    assert ended(answers, 2).state == "done"


def test_a_job_outlives_whatever_started_it(answers: Answers, waiting: Path) -> None:
    """Its whole group of processes may go, as when a terminal is closed; who comes then sees how it stands."""
    start = f"""
import datetime, os, pathlib, signal
from serving.desk.jobs import Jobs
now = datetime.datetime(2023, 7, 1, tzinfo=datetime.UTC)
Jobs(pathlib.Path({str(answers.home)!r})).start_dated("run", now.date(), "anna", now)
os.killpg(0, signal.SIGKILL)
"""
    gone = subprocess.run([sys.executable, "-c", start], start_new_session=True, check=False)
    assert gone.returncode == -signal.SIGKILL
    assert Jobs(answers.home).of(1).state == "running"
    waiting.touch()
    assert ended(answers).state == "done"


def pids(folder: Path) -> tuple[int, int]:
    """Of the process that keeps a job, and of its command."""
    commands = {}
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            commands[int(entry.parent.name)] = entry.read_bytes().decode().split("\0")
        except OSError:
            continue
    (keeper,) = [pid for pid, words in commands.items() if str(folder) in words]
    children = Path(f"/proc/{keeper}/task/{keeper}/children").read_text().split()
    return keeper, int(children[0])


def test_what_was_refused_is_not_a_failure(service: TestClient, answers: Answers) -> None:
    """The check of data says what they suffice for; its page is there to be read."""
    send(service, "/desk/jobs", command="check", as_of="2022-01-20")
    job = ended(answers)
    assert (job.state, job.code) == ("refused", 1)
    page = service.get("/desk/jobs/1").text
    assert "the data suffice for no model yet" in page
    assert 'href="/desk/reports/check-2022-01-20.html"' in page
    assert service.get("/desk/reports/check-2022-01-20.html").status_code == 200
    assert "/desk/reports/check-2022-01-20.html" in service.get("/desk/trust/data").text


@pytest.mark.parametrize(
    "sent",
    [
        {"command": "erase", "as_of": DAY}, {"command": "run", "as_of": "2023-07-02"}, {"command": "run", "as_of": ""},
        {"command": "run", "as_of": "2023-07-01 --set=x"}, {"command": "promote", "as_of": DAY}, {},
    ],
)  # fmt: skip
def test_only_what_is_listed_can_be_started(service: TestClient, answers: Answers, sent: dict[str, str]) -> None:
    """On a day that has come."""
    assert send(service, "/desk/jobs", **sent).status_code == 400
    assert Jobs(answers.home).listed() == []


def test_nobody_but_an_admin_starts_or_sees_work(service: TestClient, answers: Answers) -> None:
    """And work that is not there is not found."""
    assert service.get("/desk/jobs/7").status_code == 404
    sign_in(service, answers, "marketing")
    assert [service.get(path).status_code for path in ("/desk/jobs", "/desk/jobs/1")] == [403, 403]
    assert send(service, "/desk/jobs", command="run", as_of=DAY).status_code == 403


def test_a_reason_is_one_word_of_the_command(answers: Answers, waiting: Path) -> None:
    """However it is written; one that is too long or hides something is none."""
    of_home, at = Jobs(answers.home), answers.clock()
    job = of_home.start_promotion("lifetime_value", 3, " --home=/  and\n more; $(x) ", "anna", at)
    assert job.words == ("promote", "lifetime-value", "--version=3", "--force=--home=/ and more; $(x)")
    assert (job.kind, job.option("--version"), job.who) == ("lifetime_value", "3", "anna")
    waiting.touch()
    ended(answers)
    for reason in ("x" * (module.LONGEST_REASON + 1), "a\u202eb"):
        with pytest.raises(ValueError, match="a reason has at most"):
            of_home.start_promotion("churn", 1, reason, "anna", at)
    with pytest.raises(ValueError, match="no kind of model"):
        of_home.start_rollback("--help", "anna", at)
    with pytest.raises(ValueError, match="none of"):
        of_home.start_dated("erase", date(2023, 7, 1), "anna", at)
