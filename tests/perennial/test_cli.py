"""The command line itself: its help, what it loads, and how a mistake ends."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pytest
import typer
from builders import make_transactions, write_workspace
from markup import sound
from registries import new_registry
from workspaces import small_workspace

from perennial import cli
from perennial.shop import open as open_shop
from workspace import registry

COMMANDS = [
    "backtest", "campaigns", "check", "churn segments", "churn sensitivity", "compare", "customer", "demo", "erase",
    "export", "ingest", "keys add", "keys list", "keys revoke", "list bought-with", "list churn-risk",
    "list cross-sell", "list win-back", "mcp", "monitor", "promote", "publish", "reproduce", "rollback", "run",
    "schedule", "score", "serve", "simulate", "snapshot", "train",
]  # fmt: skip
HEAVY = {"bentoml", "evidently", "feast", "ibis", "lightgbm", "matplotlib", "mlflow", "pandas", "scipy", "sklearn"}


class Done(NamedTuple):
    code: int
    stdout: str
    stderr: str


@pytest.fixture
def perennial(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]):  # type: ignore[no-untyped-def]
    """Runs a command line in this process, up to its exit code."""

    def run(line: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["perennial", *shlex.split(line)])
        with warnings.catch_warnings():
            code: object = 0
            try:
                cli.main()
            except SystemExit as end:
                code = end.code
        return Done(int(str(code or 0)), *capfd.readouterr())

    return run


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workspace file of a shop with three lines."""
    rows = make_transactions([("c1", "2024-01-05", 10.0), ("c1", "2024-02-05", 12.0), ("c2", "2024-02-07", 3.0)])
    return write_workspace(tmp_path_factory.mktemp("shop"), rows)


def leaves(command: typer.core.TyperCommand | typer.core.TyperGroup, path: str = "") -> list[str]:
    """Every command below one, by the words that call it."""
    inner = getattr(command, "commands", None)
    if inner is None:
        return [path.strip()]
    return [leaf for name, sub in inner.items() for leaf in leaves(sub, f"{path} {name}")]


@pytest.mark.parametrize("command", ["customer '\u200b '", "erase c1 ''", "erase 'a\tb'"])
def test_what_means_no_customer_is_wrong_usage(command: str, shop: Path, perennial: Callable[[str], Done]) -> None:
    """A text without an id in it is told from a customer who is not there."""
    done = perennial(f"{command} -c {shop}")
    assert done.code == 2
    assert "an id has " in done.stderr


def test_these_are_the_commands() -> None:
    """A command that comes or goes changes what is promised in the design and tested below."""
    assert sorted(leaves(typer.main.get_command(cli.app))) == COMMANDS


@pytest.mark.parametrize("command", COMMANDS)
def test_help_explains_with_an_example_that_works(command: str, perennial) -> None:  # type: ignore[no-untyped-def]
    """Every page has a sentence, a word on each option, and an example whose words the command line understands."""
    done = perennial(f"{command} --help")
    assert done.code == 0
    text, options = re.split("Arguments:|Options:", done.stdout, maxsplit=1)
    example = re.search(rf"Example: ((?:\w+=\S+ )?perennial {command}\b.*)", " ".join(text.split()))
    assert example, done.stdout
    parsed, arguments = typer.main.get_command(cli.app), shlex.split(example[1].partition("perennial ")[2])
    while hasattr(parsed, "commands"):
        parsed = parsed.commands[arguments.pop(0)]
    parsed.make_context(command, arguments)
    described = [line for line in options.splitlines() if re.match(r"\s+(-\w, )?--\w", line)]
    assert all(len(re.split(r"\s{2,}", line.strip())) > 1 for line in described), done.stdout


def test_a_model_is_named_with_a_dash_or_an_underscore(  # type: ignore[no-untyped-def]
    shop: Path, perennial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every command that names one understands both, in any case; any other name is explained."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", new_registry(tmp_path / "mlflow.db"))
    for kind in ("lifetime_value", "lifetime-value", "cross_sell", "CROSS-Sell"):
        name, where = kind.lower().replace("-", "_"), f"-c {shop} --home {tmp_path}/home"
        for line, told in (
            (f"promote {kind} {where}", f"shop.{name} has no version yet"),
            (f"rollback {kind} {where}", f"shop.{name} has no champion to roll back"),
            (f"train {kind} {where} --as-of 2024-03-01", "no rows of transactions are in"),
        ):
            done = perennial(line)
            assert (done.code, told in done.stderr) == (1, True), done
        wrong = perennial(f"promote {kind}s -c {shop}")
        assert (wrong.code, f"'{kind}s' is no kind of model; there are churn," in wrong.stderr) == (2, True), wrong


_ASK = """
import sys, time
from perennial import cli
sys.argv = ["perennial", *sys.argv[1:]]
try:
    cli.main()
except SystemExit:
    print("LOADED", *{name.partition(".")[0] for name in sys.modules})
"""


@pytest.mark.parametrize("command", ["", "run", "list churn-risk", "serve"])
def test_help_is_quick_and_loads_no_library_that_is_not(command: str) -> None:
    """In a process of its own: less than two seconds, none of the libraries that take seconds to import."""
    before = os.times()
    start = time.monotonic()
    asked = [sys.executable, "-c", _ASK, *command.split(), "--help"]
    done = subprocess.run(asked, capture_output=True, text=True, check=True)
    wall, after = time.monotonic() - start, os.times()
    loaded = set(done.stdout.partition("LOADED")[2].split())
    assert "perennial" in loaded
    assert not loaded & HEAVY
    # On a machine that is busy with other things the wall clock says nothing.
    busy = (after.children_user - before.children_user) + (after.children_system - before.children_system)
    assert min(wall, busy) < 2


@pytest.mark.parametrize(
    ("line", "says"),
    [("", "Usage: perennial"), ("bogus", "No such command 'bogus'"), ("list", "churn-risk"),
     ("run", r"Missing option '--config' / '-c'|Missing option '-c'"), ("run --bogus", "No such option"),
     ("train forecast -c x.yaml", "'forecast' is no kind of model; there are churn, lifetime_value, cross_sell"),
     ("export everything -c x.yaml --out x.csv", "'everything' is not one of 'scores', 'offers', 'features'"),
     ("list churn-risk -c x.yaml --band hi", "'hi' is not one of 'low', 'medium', 'high'"),
     ("list churn-risk -c x.yaml --top 0", "'--top': Input should be greater than or equal to 1"),
     ("list churn-risk -c x.yaml --format pdf", "'pdf' is not one of 'csv', 'xlsx', 'json'"),
     ("simulate out --customers many", "'--customers': Input should be a valid integer"),
     ("score -c x.yaml --as-of 01.07.2023", "does not match the format"),
     ("ingest -c x.yaml", "error: x.yaml: no such workspace file"),
     ("ingest -c README.md", "error: README.md")],
)  # fmt: skip
def test_a_mistake_in_usage_ends_with_2(line: str, says: str, perennial) -> None:  # type: ignore[no-untyped-def]
    """What is wrong is on the terminal, with the words that would be right, and no traceback."""
    done = perennial(line)
    assert done.code == 2
    shown = re.sub(r"\s*[│╭╮╰╯─]+\s*|\s+", " ", done.stdout + done.stderr)
    assert re.search(says, shown), shown
    assert "Traceback" not in shown


def test_done_ends_with_0(shop: Path, perennial) -> None:  # type: ignore[no-untyped-def]
    """The account of what was taken in is on the terminal."""
    done = perennial(f"ingest -c {shop}")
    assert done.code == 0
    assert "transactions: 3 read = 3 accepted + 0 quarantined" in done.stdout


def test_a_schedule_names_what_was_typed(shop: Path, perennial) -> None:  # type: ignore[no-untyped-def]
    """The three texts together, or one alone for a file; with the options, and paths that hold from anywhere."""
    options = "--set churn.horizon=60 --home elsewhere --every week --at 03:30"
    done = perennial(f"schedule -c {shop} {options}")
    assert done.code == 0, done.stderr
    command = f"run -c {shop} --set churn.horizon=60 --home {Path('elsewhere').resolve()}"
    assert f"30 3 * * 1 cd {Path.cwd()} && " in done.stdout
    assert f"/perennial {command} >> " in done.stdout
    for only, first in (("cron", "CRON_TZ=UTC"), ("service", "[Unit]"), ("timer", "[Unit]")):
        alone = perennial(f"schedule -c {shop} {options} --only {only}").stdout
        assert alone.startswith(first)
        assert alone in done.stdout
    assert "OnCalendar=Mon *-*-* 03:30:00 UTC" in alone


def test_options_stand_over_the_file(shop: Path, tmp_path: Path, perennial) -> None:  # type: ignore[no-untyped-def]
    """`--home` and every `--set` are heeded: another folder, and only one of the three lines."""
    where = "--set \"tables.transactions.where=customer_id = 'c2'\" --set timezone=Asia/Tokyo"
    done = perennial(f"ingest -c {shop} --home {tmp_path / 'elsewhere'} {where}")
    assert (done.code, "1 accepted" in done.stdout) == (0, True)
    assert (tmp_path / "elsewhere" / "tables" / "transactions").is_dir()


def test_check_writes_what_it_is_asked_for_and_nothing_else(tmp_path: Path, perennial) -> None:  # type: ignore[no-untyped-def]
    """The verdicts and the account on the terminal, the same numbers in JSON, a page; no home, no draft, no scratch."""
    workspace = small_workspace(tmp_path)
    before = set(tmp_path.iterdir())
    out = tmp_path / "out"
    done = perennial(f"check -c {tmp_path / 'workspace.yaml'} --home {workspace.home_path} --as-of 2023-07-01"
                     f" --json {out / 'check.json'} --html {out / 'check.html'}")  # fmt: skip
    assert done.code == 0, done.stderr
    check = json.loads((out / "check.json").read_text())
    assert [model["answer"] for model in check["models"]] == ["sufficient"] * 3
    for model in check["models"]:
        assert all(f"{count['what']}: {count['found']:,} (at least" in done.stdout for count in model["counts"])
    assert "customers: 400 read = 400 accepted + 0 quarantined" in done.stdout
    assert (out / "check.html").read_text().startswith("<!doctype html>")
    assert sorted(path.name for path in out.iterdir()) == ["check.html", "check.json"]
    assert set(tmp_path.iterdir()) - before == {out}


def test_check_of_too_little_data_ends_with_1(tmp_path: Path, perennial) -> None:  # type: ignore[no-untyped-def]
    """Nothing can be trained: it says what is missing, and still writes the page that shows it."""
    rows = [(f"c{n}", f"2024-0{1 + n % 6}-{10 + n}", 5.0) for n in range(9)]
    config = write_workspace(tmp_path, make_transactions(rows), churn={"horizon": 30}, lifetime_value={"horizon": 30})
    done = perennial(f"check -c {config} --as-of 2024-07-01 --html {tmp_path / 'check.html'}")
    assert done.code == 1
    assert "transactions: 9 read = 9 accepted" in done.stdout
    assert "needed: 30 more customers with a second purchase" in done.stdout
    assert "cross-sell: insufficient: there is no products table" in done.stdout
    assert "insufficient" in (tmp_path / "check.html").read_text()
    assert not (tmp_path / "home").exists()


def test_check_names_an_attribute_that_leaks(tmp_path: Path, perennial) -> None:  # type: ignore[no-untyped-def]
    """A column filled in when a customer had left is named, with what to do about it."""
    small_workspace(tmp_path)
    lines = pd.read_parquet(tmp_path / "transactions.parquet")
    stayed = set(lines.loc[lines["occurred_at"] >= "2023-05-02", "customer_id"])
    customers = pd.read_csv(tmp_path / "customers.csv", dtype=str)
    customers.assign(closed=~customers["customer_id"].isin(stayed)).to_csv(tmp_path / "customers.csv", index=False)
    done = perennial(f"check -c {tmp_path / 'workspace.yaml'} --set attributes=closed --as-of 2023-07-01")
    assert done.code == 0, done.stderr
    assert "attribute closed: separates who left from who stayed almost alone: AUC 1.00" in done.stdout
    assert "drop `closed` from `attributes`" in done.stdout


def test_check_that_fails_ends_with_1(tmp_path: Path, perennial) -> None:  # type: ignore[no-untyped-def]
    """It says what is wrong, and names no file of the scratch folder that is gone when the sentence is read."""
    config = write_workspace(tmp_path, make_transactions([("c1", "soon", 1.0), ("c2", "later", 1.0)]))
    done = perennial(f"check -c {config}")
    assert done.code == 1
    assert "2 of 2 rows" in done.stderr
    assert "not a time" in done.stderr
    assert f"`perennial ingest` puts them in {tmp_path}/home/quarantine/" in done.stderr
    named = [Path(word.rstrip(";.,")) for word in done.stderr.split() if word.startswith("/")]
    assert [path for path in named if tmp_path not in path.parents] == []


def test_who_holds_a_workspace_is_told_where_no_user_has_a_name(
    shop: Path, monkeypatch: pytest.MonkeyPatch, perennial: Callable[[str], Done]
) -> None:
    """A container runs as a number that no list of users knows; its commands work, and the lock names the number."""
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 54321)
    assert perennial(f"ingest -c {shop}").code == 0
    assert "of user 54321 on" in (shop.parent / "home" / ".lock").read_text()


def test_without_a_date_today_is_said(tmp_path: Path, perennial) -> None:  # type: ignore[no-untyped-def]
    """Nothing takes today for granted without a word."""
    config = write_workspace(tmp_path, make_transactions([("c1", "2020-01-05", 10.0)]))
    done = perennial(f"check -c {config}")
    assert re.search(r"as_of is today, 20\d\d-\d\d-\d\d", done.stdout)
    assert done.code == 1
    assert "choose an --as-of near 2020-01-05" in done.stdout


def test_a_file_that_cannot_be_written_is_named(shop: Path, tmp_path: Path, perennial) -> None:  # type: ignore[no-untyped-def]
    """A home that is a file: which one, and exit code 1."""
    (tmp_path / "file").write_text("")
    done = perennial(f"ingest -c {shop} --home {tmp_path / 'file'}")
    assert done.code == 1
    assert f"error: File exists: {tmp_path / 'file'}; nothing was left half-written" in done.stderr


def test_backtest_shows_the_same_figures_everywhere(
    perennial: Callable[[str], Done], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a small shop: a table, a JSON file, a page that needs nothing else, a run with a step per judged date, and a
    data frame."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", new_registry(tmp_path / "mlflow.db"))
    small_workspace(tmp_path)
    where = f"-c {tmp_path}/workspace.yaml --home {tmp_path}/home"
    assert perennial(f"ingest {where}").code == 0
    done = perennial(f"backtest {where} --as-of 2023-07-01 --cutoffs 2")
    assert done.code == 0, done.stderr
    folder = tmp_path / "home" / "reports"
    models = json.loads((folder / "backtest-2023-07-01.json").read_text())["models"]
    page = sound((folder / "backtest-2023-07-01.html").read_text()).text
    assert set(models) == {"churn", "lifetime_value", "cross_sell"}
    for kind, model in models.items():
        assert f"{kind.replace('_', ' ')}: grade {model['grade']}" in done.stdout
        assert model["grade_reason"][1:] in page
        assert len(model["cutoffs"]) == 2
        for name, contender in model["contenders"].items():
            assert name in page
            wanted = {"churn": "auc", "lifetime_value": "ngini", "cross_sell": r"ndcg\d+"}[kind]
            order = next(figure for metric, figure in contender["figures"].items() if re.fullmatch(wanted, metric))
            assert f"{order['mean']:.3f}" in page
            assert f"{order['mean']:.3f} ({order['worst']:.3f})" in done.stdout
    for cutoff in models["lifetime_value"]["cutoffs"]:
        assert f"{cutoff['expected_total']:,.0f}" in page
        assert f"{cutoff['actual_total']:,.0f}" in page
    tracker = registry.client()
    [run] = tracker.search_runs([tracker.get_experiment_by_name("small").experiment_id])
    history = tracker.get_metric_history(run.info.run_id, "churn/auc")
    each = models["churn"]["contenders"]["Perennial"]["figures"]["auc"]["each"]
    assert sorted(m.value for m in history) == pytest.approx(sorted(each))
    days = [date.fromisoformat(cutoff["as_of"]).toordinal() for cutoff in models["churn"]["cutoffs"]]
    assert sorted(m.step for m in history) == [day - date(1970, 1, 1).toordinal() for day in days]
    assert run.data.tags["grade.churn"] == models["churn"]["grade"]
    assert {f.path for f in tracker.list_artifacts(run.info.run_id)} >= {"plots", "settings.json", page_name(folder)}
    frame = open_shop(tmp_path / "workspace.yaml", home=tmp_path / "home").at("2023-07-01").backtest("churn", cutoffs=2)
    assert {*frame["kind"]} == {"churn"}
    ours = frame[frame["contender"] == "Perennial"].set_index("figure")["mean"].to_dict()
    for name, figure in models["churn"]["contenders"]["Perennial"]["figures"].items():
        assert ours[name] == pytest.approx(figure["mean"], rel=1e-12)


def page_name(folder: Path) -> str:
    return next(path.name for path in folder.glob("*.html"))


def test_a_backtest_without_a_closed_window_says_so(perennial: Callable[[str], Done], tmp_path: Path) -> None:
    """Too short a history ends with exit code 1 and what would have been needed."""
    small_workspace(tmp_path)
    where = f"-c {tmp_path}/workspace.yaml --home {tmp_path}/home"
    assert perennial(f"ingest {where}").code == 0
    done = perennial(f"backtest {where} --as-of 2022-04-15")
    assert done.code == 1
    assert "no window of 60 days has closed by 2022-04-15 with 90 days of history before it" in done.stderr


def test_a_key_may_be_for_a_part_of_the_shop(tmp_path: Path, perennial) -> None:  # type: ignore[no-untyped-def]
    """As the shop spells it; `keys list` shows which, and a part that nobody is in is refused with what there is."""
    small_workspace(tmp_path)
    customers = pd.read_csv(tmp_path / "customers.csv", dtype=str)
    customers.assign(region=["north", "south"] * (len(customers) // 2)).to_csv(tmp_path / "customers.csv", index=False)
    config = f"-c {tmp_path / 'workspace.yaml'} --set attributes=region --home {tmp_path / 'home'}"
    early = perennial(f"keys add --role crm --scope region:north {config}")
    assert (early.code, "perennial ingest" in early.stderr) == (1, True)
    assert perennial(f"ingest {config}").code == 0
    wrong = perennial(f"keys add --role crm --scope region:nort {config}")
    assert (wrong.code, "the nearest is north" in wrong.stderr) == (2, True)
    assert perennial(f"keys add --role crm --scope region:NORTH --scope Region:south {config}").code == 0
    assert perennial(f"keys add --role admin --contacts {config}").code == 0
    first, second = sorted(perennial(f"keys list {config}").stdout.splitlines(), key=lambda line: "admin" in line)
    assert "crm, region:north, region:south  added" in first
    assert re.search(r"admin, contacts\s+added", second)
