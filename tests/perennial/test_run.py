"""`perennial run` as a process: killed, run twice, misled and out of disk; what it says, and what it leaves behind."""

from __future__ import annotations

import atexit
import gc
import hashlib
import html
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import mlflow
import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml
from workspaces import AS_OF, small_workspace

from workspace import sentences, storage

ROOT = Path(__file__).resolve().parents[2]
KINDS = ("churn", "cross_sell", "lifetime_value")
PATIENCE = 120  # seconds for any one command on a busy machine
# What a run makes once and then keeps. Feast's registry and the drift report are written anew by every run.
KEPT = ("tables", "quarantine", "snapshots", "scores", "published.json", "feast/online.db")


class Done(NamedTuple):
    code: int
    stdout: str
    stderr: str


@dataclass(frozen=True)
class Command:
    """A command under way, what it says going to files."""

    pid: int
    folder: Path
    exit_code: Callable[[int], int]

    @property
    def said(self) -> str:
        return (self.folder / "stderr").read_text()

    def wait(self) -> Done:
        code = self.exit_code(self.pid)
        return Done(code, (self.folder / "stdout").read_text(), self.said)

    def kill_after(self, line: str, delay: float) -> Done:
        """Sends SIGKILL so many seconds after `line` was said."""
        deadline = time.monotonic() + PATIENCE
        while line not in self.said:
            ended = "/run-" in self.said or "error:" in self.said or time.monotonic() > deadline
            assert not ended, f"{line!r} was never said:\n{self.said}"
            time.sleep(0.005)
        time.sleep(delay)
        os.kill(self.pid, signal.SIGKILL)
        return self.wait()


class Launcher:
    """A process that forks itself for every command, with all imported and known that takes a new one 15 seconds."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.count = folder, 0
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-W", "ignore", __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            umask=0o022,
            env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
        )  # fmt: skip

    def _ask(self, **request: Any) -> int:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def start(self, *arguments: object, uri: str) -> Command:
        self.count += 1
        out = self.folder / str(self.count)
        out.mkdir()
        for name in ("stdout", "stderr"):
            (out / name).touch()
        pid = self._ask(arguments=[str(a) for a in arguments], uri=uri, out=str(out))
        return Command(pid, out, lambda pid: self._ask(wait=pid))

    def run(self, *arguments: object, uri: str) -> Done:
        return self.start(*arguments, uri=uri).wait()

    def stop(self) -> None:
        self.process.communicate(timeout=PATIENCE)
        assert self.process.returncode == 0


def _fork_on_request() -> None:
    """The launcher's other end: a line of JSON starts a command, or waits for one; it answers a pid, or a code."""
    import evidently.presets  # noqa: F401
    import IPython.display  # noqa: F401
    import mlflow.pyfunc
    import mlflow.store.tracking.sqlalchemy_store  # noqa: F401
    from mlflow.utils.requirements_utils import warn_dependency_requirement_mismatches

    from features.repo import definitions  # noqa: F401
    from monitoring import alerts, batch, drift, hindsight, outcomes, outcomes_page  # noqa: F401
    from perennial import cli, month_page  # noqa: F401
    from serving import scoring  # noqa: F401
    from training import pipelines  # noqa: F401
    from training.models import churn_model
    from training.records import carried
    from workspace import source_code

    source_code.hashed(file for folder in ("features", "training") for file in (ROOT / folder).rglob("*.py"))
    warn_dependency_requirement_mismatches(carried.requirements(churn_model.__name__))  # it looks up all packages
    gc.freeze()  # else the first collection of every fork copies all of it
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            answer = os.waitstatus_to_exitcode(os.waitpid(request["wait"], 0)[1])
        elif (answer := os.fork()) == 0:
            os.environ["MLFLOW_TRACKING_URI"] = request["uri"]
            for name, descriptor in (("stdout", 1), ("stderr", 2)):
                os.dup2(os.open(Path(request["out"], name), os.O_WRONLY), descriptor)
            sys.argv = ["perennial", *request["arguments"]]
            _end_as(cli.main)
        print(answer, flush=True)  # noqa: T201


def _end_as(command: Callable[[], None]) -> NoReturn:
    """Ends the process with the command's exit code; taking down 2,000 imported modules would cost 2.5 seconds."""
    code = 0
    try:
        command()
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:
        traceback.print_exc()
        code = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


@dataclass(frozen=True)
class Shop:
    """Tables, a workspace file, and the homes and registries of the runs on it."""

    folder: Path
    launcher: Launcher

    @property
    def config(self) -> Path:
        return self.folder / "workspace.yaml"

    def registry(self, name: str) -> str:
        """A new MLflow store, its tables made beforehand."""
        copy = self.folder / "registries" / name / "mlflow.db"
        copy.parent.mkdir(parents=True)
        shutil.copy(self.folder / "empty" / "mlflow.db", copy)
        return f"sqlite:///{copy}"

    def start(self, home: Path, uri: str, *more: object) -> Command:
        return self.launcher.start("run", "-c", self.config, "--home", home, "--as-of", AS_OF, *more, uri=uri)

    def run(self, home: Path, uri: str, *more: object) -> Done:
        return self.start(home, uri, *more).wait()


def rewrite(config: Path, to: Path | None = None, **settings: Any) -> Path:
    """Changes settings of a workspace file, or of a copy of it."""
    wanted = yaml.safe_load(config.read_text()) | settings
    (to or config).write_text(yaml.safe_dump(wanted))
    return to or config


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("shop")
    small_workspace(folder)
    rewrite(folder / "workspace.yaml", training={"cutoffs": 2, "spacing": 60, "min_history": 400})
    (folder / "empty").mkdir()
    launcher = Launcher(tmp_path_factory.mktemp("said"))
    empty = f"sqlite:///{folder}/empty/mlflow.db"
    refused = launcher.run("promote", "-c", folder / "workspace.yaml", "--home", folder / "none", uri=empty)
    assert refused.code == 1, refused.stderr
    yield Shop(folder, launcher)
    launcher.stop()


class Finished(NamedTuple):
    home: Path
    uri: str


@pytest.fixture(scope="module")
def undisturbed(shop: Shop) -> Finished:
    """A run from beginning to end."""
    run = Finished(shop.folder / "undisturbed", shop.registry("undisturbed"))
    done = shop.run(*run)
    assert done.code == 0, done.stderr
    return run


def digest(home: Path) -> str:
    """Of the rows of scores and offers, whatever their order."""
    hashed = hashlib.sha256()
    for path in (storage.scores_path(home, AS_OF), storage.offers_path(home, AS_OF)):
        rows = pd.read_parquet(path)
        hashed.update(rows.sort_values(["customer_id", *rows.columns[2:3]]).to_csv(index=False).encode())
    return hashed.hexdigest()


def assert_whole(home: Path) -> None:
    """Every file that has its final name can be read to the end."""
    for path in home.rglob("*"):
        if not any(part.startswith(".draft-") for part in path.parts):
            if path.suffix == ".parquet":
                pq.read_table(path)
            elif path.suffix == ".json":
                json.loads(path.read_text())


def unfinished(home: Path) -> list[Path]:
    return [path for path in home.rglob("*") if ".draft-" in path.name or path.parent == home / "tmp"]


def times(home: Path) -> dict[Path, int]:
    """Of last change, of the files that a run keeps."""
    files = [file for name in KEPT for file in (home / name, *(home / name).rglob("*")) if file.is_file()]
    return {file: file.stat().st_mtime_ns for file in files}


def versions(uri: str) -> dict[str, list[str]]:
    registered = mlflow.MlflowClient(uri).search_model_versions()
    return {kind: sorted(str(v.version) for v in registered if v.name == f"small.{kind}") for kind in KINDS}


def statuses(uri: str) -> list[str]:
    """Of the runs in MLflow."""
    client = mlflow.MlflowClient(uri)
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    return sorted(run.info.status for run in client.search_runs(experiments))


# Before it must stand a step, after it the moment: a line of the progress, and seconds later.
MOMENTS = [
    ("[1/7]", "[1/7]", 0.0),
    ("[1/7]", "[1/7]", 0.05),
    ("[1/7]", "customers:", 0.0),
    ("[1/7]", "products:", 0.02),
    ("[2/7]", "[2/7]", 0.1),
    ("[4/7]", "snapshot 2023-03-03", 0.0),
    ("[4/7]", "snapshot 2023-05-02", 0.0),
    ("[4/7]", "[4/7]", 0.2),
    ("[4/7]", "[4/7]", 1.5),
    ("[4/7]", "churn: version 1", 0.05),
    ("[4/7]", "lifetime_value: version 1", 0.4),
    ("[5/7]", "churn: version 1 promoted", 0.0),
    ("[6/7]", "[6/7]", 0.05),
    ("[6/7]", "scored ", 0.0),
    ("[7/7]", "[7/7]", 0.03),
]


def test_a_run_that_is_killed_goes_on_to_the_same_answers(shop: Shop, undisturbed: Finished) -> None:
    """Killed in every step, at fifteen moments, and started again each time, it ends with the undisturbed answers."""
    home, uri = shop.folder / "killed", shop.registry("killed")
    for step, line, delay in MOMENTS:
        killed = shop.start(home, uri).kill_after(line, delay)
        assert killed.code == -signal.SIGKILL
        assert re.findall(r"\[\d/7\]", killed.stderr)[-1] == step, killed.stderr
        assert_whole(home)
    assert not storage.scores_path(home, AS_OF).exists() or digest(home) == digest(undisturbed.home)
    done = shop.run(home, uri)
    assert done.code == 0, done.stderr
    assert digest(home) == digest(undisturbed.home)
    assert versions(uri) == versions(undisturbed.uri) == {kind: ["1"] for kind in KINDS}
    assert unfinished(home) == []


def test_a_killed_training_is_not_left_running_in_mlflow(shop: Shop, undisturbed: Finished) -> None:
    """A run that a kill cut off is marked so by the training that takes its place, which registers the one version."""
    home, uri = shutil.copytree(undisturbed.home, shop.folder / "cut_off"), shop.registry("cut_off")
    again = ("train", "churn", "-c", shop.config, "--home", home, "--as-of", AS_OF)
    command = shop.launcher.start(*again, uri=uri)
    deadline = time.monotonic() + PATIENCE
    while statuses(uri) != ["RUNNING"]:
        assert time.monotonic() < deadline, command.said
    os.kill(command.pid, signal.SIGKILL)
    assert command.wait().code == -signal.SIGKILL
    assert shop.launcher.run(*again, uri=uri).code == 0
    assert statuses(uri) == ["FINISHED", "KILLED"]
    assert versions(uri)["churn"] == ["1"]


def test_a_second_run_does_nothing_anew(shop: Shop, undisturbed: Finished) -> None:
    """Run again, it keeps every table, snapshot, score, published row and model version, and says so."""
    before, trained = times(undisturbed.home), versions(undisturbed.uri)
    done = shop.run(*undisturbed)
    assert done.code == 0, done.stderr
    assert times(undisturbed.home) == before
    assert versions(undisturbed.uri) == trained
    assert done.stderr.count("no training is due") == 3
    assert "scores of 2023-07-01 are there already" in done.stderr


def test_of_two_runs_at_once_the_second_is_refused(shop: Shop) -> None:
    """While a run has a home, every other one on it ends with a sentence and exit code 1."""
    home, uri = shop.folder / "twice", shop.registry("twice")
    first = shop.start(home, uri)
    while "[2/7]" not in first.said:
        time.sleep(0.01)
    second = shop.run(home, uri)
    first.kill_after("[2/7]", 0)
    assert second.code == 1
    holder = rf"`perennial run` \(process {first.pid} of \S+ on \S+\) since \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d UTC"
    assert re.fullmatch(f"error: {home} is in use by {holder}; wait for it to end, or stop it\n", second.stderr)


class Bad(NamedTuple):
    """A run that cannot succeed: options over the right ones, or other transactions; its exit code and sentence."""

    code: int
    says: str
    options: tuple[str, ...] = ()
    transactions: Callable[[pd.DataFrame], pd.DataFrame] | None = None


def one_purchase_each(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.drop_duplicates("customer_id")


def one_customer(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[rows["customer_id"] == "c0200"]


BAD = {
    "missing file": Bad(
        2, r"tables\.transactions\.path: .*nowhere\.parquet", ("--set", "tables.transactions.path=nowhere.parquet")),
    "wrong column": Bad(
        2, r"tables\.transactions\.columns\.amount: .*`price`.*; the source has .*amount",
        ("--set", "tables.transactions.columns.amount=price")),
    "unknown canonical column": Bad(
        2, r"tables\.transactions\.columns: .*amuont.* it has .*amount",
        ("--set", "tables.transactions.columns.amuont=amount")),
    "empty table": Bad(1, r"transactions: .*no rows.*nothing was changed", (), lambda rows: rows.head(0)),
    "no usable time": Bad(
        1, r"6,703 of 6,703 rows of .*transactions\.parquet cannot be used: .*is not a time.* [Mm]end the rows",
        (), lambda rows: rows.assign(occurred_at="soon")),
    "one purchase each": Bad(
        1, r"churn cannot be learnt at 2023-07-01: too few customers came back .*collect a longer history",
        ("--set", "training.cutoffs=1"), one_purchase_each),
    "one customer": Bad(
        1, r"churn cannot be learnt at 2023-07-01: too few customers came back .*collect a longer history",
        ("--set", "training.cutoffs=1"), one_customer),
    "before the first purchase": Bad(
        1, r"no purchase is known before 2021-06-01; choose a later --as-of", ("--as-of", "2021-06-01")),
    "a year after the last purchase": Bad(
        1, r"the last purchase known before 2024-07-15 is of 2023-06-30: .*choose an --as-of near 2023-06-30",
        ("--as-of", "2024-07-15")),
    "horizon longer than the history": Bad(
        1, r"a horizon of 600 days is longer than the history of 546 days .*shorten churn\.horizon",
        ("--set", "churn.horizon=600")),
    "no date": Bad(
        2, r"Invalid value for '--as-of': .*'soon' does not match the formats? '%Y-%m-%d'", ("--as-of", "soon")),
    "unknown setting": Bad(2, r"churn\.horizn: no such setting", ("--set", "churn.horizn=60")),
    "setting of the wrong type": Bad(2, r"churn\.horizon: .*(it is 'long')", ("--set", "churn.horizon=long")),
    "no setting": Bad(2, r"--set churn: expected key\.path=value", ("--set", "churn")),
    "unreadable setting": Bad(2, r"--set churn\.horizon=\[60: ", ("--set", "churn.horizon=[60")),
    "no such time zone": Bad(2, r"timezone: .*not a time zone; .*Mars", ("--set", "timezone=Mars/Base")),
    "no workspace file": Bad(2, r"nothing\.yaml: no such workspace file", ("-c", "nothing.yaml")),
}  # fmt: skip


class Battered(NamedTuple):
    """A home that saw every bad run in turn: what each said, and which files each left unfinished."""

    home: Path
    done: dict[str, Done]
    left: dict[str, list[Path]]


@pytest.fixture(scope="module")
def battered(shop: Shop, undisturbed: Finished) -> Battered:
    battered = Battered(shop.folder / "battered", {}, {})
    file, saved = shop.folder / "transactions.parquet", shop.folder / "saved.parquet"
    shutil.copy(file, saved)
    for name, bad in BAD.items():
        if bad.transactions:
            bad.transactions(pd.read_parquet(saved)).to_parquet(file)
        battered.done[name] = shop.run(battered.home, undisturbed.uri, *bad.options)
        battered.left[name] = unfinished(battered.home)
        shutil.copy(saved, file)
    return battered


@pytest.mark.parametrize("name", BAD)
def test_a_run_that_cannot_succeed_says_why(name: str, battered: Battered) -> None:
    """It says what is wrong, where, and what to do, with exit code 2 for usage and 1 for data."""
    done, bad = battered.done[name], BAD[name]
    assert re.search(bad.says, re.sub(r"\s*[│╭╮╰╯─]+\s*|\s+", " ", done.stderr)), done.stderr
    assert done.code == bad.code
    assert "Traceback" not in done.stderr
    assert battered.left[name] == []


def test_after_the_mend_a_run_answers_as_if_nothing_had_happened(
    shop: Shop, battered: Battered, undisturbed: Finished
) -> None:
    """In the home of all those failures the right run gives the same answers as the undisturbed one."""
    assert_whole(battered.home)
    done = shop.run(battered.home, undisturbed.uri)
    assert done.code == 0, done.stderr
    assert done.stderr.count("no training is due") == 3
    assert digest(battered.home) == digest(undisturbed.home)


def without_products(shop: Shop) -> Path:
    tables = yaml.safe_load(shop.config.read_text())["tables"]
    del tables["products"]
    return rewrite(shop.config, shop.folder / "without_products.yaml", tables=tables)


def test_without_products_only_cross_sell_is_left_out(shop: Shop, undisturbed: Finished) -> None:
    """A shop without a products table gets its scores, no offers, and a sentence about it."""
    home, uri = shop.folder / "no_products", shop.registry("no_products")
    done = shop.run(home, uri, "-c", without_products(shop))
    assert done.code == 0, done.stderr
    assert "cross_sell: there is no products table, which says what category a product is of; add" in done.stderr
    assert versions(uri) == {"churn": ["1"], "cross_sell": [], "lifetime_value": ["1"]}
    scores = pd.read_parquet(storage.scores_path(home, AS_OF))
    assert scores["churn_probability"].notna().sum() == 299
    assert scores["cross_sell_model"].isna().all()
    assert pd.read_parquet(storage.offers_path(home, AS_OF)).empty


def test_products_taken_away_take_the_offers_with_them(shop: Shop, undisturbed: Finished) -> None:
    """The champion of a time with products does not keep a workspace without them from its scores."""
    home = shutil.copytree(undisturbed.home, shop.folder / "products_gone")
    options = ("-c", without_products(shop), "--home", home, "--as-of", AS_OF)
    done = shop.launcher.run("score", *options, uri=undisturbed.uri)
    assert done.code == 0, done.stderr
    assert pd.read_parquet(storage.offers_path(home, AS_OF)).empty


BEFORE_ANYTHING = {
    ("snapshot",): r"no rows of transactions are in .* yet; run `perennial ingest -c FILE`",
    ("train",): r"no rows of transactions are in .* yet; run `perennial ingest -c FILE`",
    ("score",): r"small has no churn champion; run `perennial train` and `promote`",
    ("publish",): r"run `perennial snapshot -c FILE --as-of 2023-07-01`",
    ("monitor",): r"small\.churn has no champion; run `perennial train`, then `perennial promote`",
    ("list", "churn-risk"): r"small has no scores of 2023-07-01; `perennial score -c FILE --as-of",
    ("export", "scores", "--out", "x.csv"): r"nothing is scored in .* yet; run `perennial run -c FILE --as-of DATE`",
    ("export", "features", "--out", "x.csv"): r"nothing of 2023-07-01 at .*; run `perennial run --as-of 2023-07-01`",
}


@pytest.mark.parametrize("command", BEFORE_ANYTHING, ids=" ".join)
def test_a_step_before_those_it_needs_says_which(command: tuple[str, ...], shop: Shop, tmp_path: Path) -> None:
    """In an empty home with an empty registry every command names the one to run first, and leaves nothing."""
    home, as_of = tmp_path / "home", () if command[1:2] == ("scores",) else ("--as-of", AS_OF)
    empty = f"sqlite:///{shop.folder}/empty/mlflow.db"
    done = shop.launcher.run(*command, "-c", shop.config, "--home", home, *as_of, uri=empty)
    assert re.search(BEFORE_ANYTHING[command], done.stderr), done.stderr
    assert done.code == 1
    assert "Traceback" not in done.stderr
    assert not list(home.rglob("*.parquet"))
    assert not Path("x.csv").exists()


def risk(shop: Shop, undisturbed: Finished, *options: object) -> Done:
    command = ("list", "churn-risk", "-c", shop.config, "--home", undisturbed.home)
    return shop.launcher.run(*command, *options, uri=undisturbed.uri)


def test_the_list_goes_to_the_terminal_or_a_file_by_its_ending(
    shop: Shop, undisturbed: Finished, tmp_path: Path
) -> None:
    """A table to read, JSON or CSV to pipe, and a spreadsheet where the name asks for one: the same customers."""
    shown = risk(shop, undisturbed, "--top", 4)
    piped = json.loads(risk(shop, undisturbed, "--top", 4, "--format", "json").stdout)
    written = risk(shop, undisturbed, "--top", 4, "--out", tmp_path / "new" / "risk.xlsx")
    customers = [row["customer_id"] for row in piped]
    assert len(customers) == 4
    table, _, notes = shown.stdout.partition("\n\n")
    assert [line.split()[0] for line in table.splitlines()[2:]] == customers
    assert "value: the revenue to be expected in the next 60 days, in EUR; grade" in notes
    assert pd.read_excel(tmp_path / "new" / "risk.xlsx", dtype=str)["customer_id"].tolist() == customers
    assert written.stdout == f"4 customers in {tmp_path}/new/risk.xlsx\n"
    assert (shown.code, written.code) == (0, 0)


def open_to_others(folder: Path) -> list[Path]:
    """Whatever somebody else than its owner may read, write or enter."""
    return [path for path in (folder, *folder.rglob("*")) if path.stat().st_mode & 0o077]


def test_what_is_about_customers_is_for_its_owner_alone(shop: Shop, undisturbed: Finished, tmp_path: Path) -> None:
    """All that a run leaves, whoever wrote it, and what is exported; though the umask would let everybody read."""
    assert open_to_others(undisturbed.home) == []
    assert any(undisturbed.home.glob("feast/*.db"))
    out = tmp_path / "new" / "risk.csv"
    assert risk(shop, undisturbed, "--out", out).code == 0
    assert open_to_others(out.parent) == []
    scores = tmp_path / "new" / "scores.parquet"
    command = ("export", "scores", "-c", shop.config, "--home", undisturbed.home, "--out", scores)
    assert shop.launcher.run(*command, uri=undisturbed.uri).code == 0
    assert open_to_others(out.parent) == []


def test_a_filter_of_the_list_takes_any_case_or_is_refused(shop: Shop, undisturbed: Finished) -> None:
    """As over HTTP: never an empty list for a name that was misspelt."""
    answer = risk(shop, undisturbed, "--category", "TEA", "--band", "MEDIUM", "--format", "JSON")
    assert answer.code == 0, answer.stderr
    assert {row["churn_band"] for row in json.loads(answer.stdout)} == {"medium"}
    refused = risk(shop, undisturbed, "--category", "coffe")
    assert (refused.code, refused.stdout) == (2, "")
    assert "category 'coffe': nobody bought of it in 365 days; the nearest is coffee" in refused.stderr
    nothing = risk(shop, undisturbed, "--min-value", "nan")
    assert (nothing.code, nothing.stdout) == (2, "")
    assert "min_value nan: an amount is a number from 0 on" in nothing.stderr


def test_a_list_in_a_file_of_unknown_kind_is_refused(shop: Shop, undisturbed: Finished, tmp_path: Path) -> None:
    """A name that promises another content than the file would have; `--format` overrules it."""
    refused = risk(shop, undisturbed, "--out", tmp_path / "risk.xls")
    assert refused.code == 2
    assert "risk.xls: end the name in .csv, .xlsx or .json, or name a --format" in refused.stderr
    assert not list(tmp_path.iterdir())
    assert risk(shop, undisturbed, "--out", tmp_path / "risk.txt", "--format", "csv").code == 0
    assert (tmp_path / "risk.txt").read_bytes().startswith(b"\xef\xbb\xbfcustomer_id,")


def test_lists_by_value_want_a_folder_and_an_attribute(shop: Shop, undisturbed: Finished, tmp_path: Path) -> None:
    """Before anything is written."""
    assert "name their folder with --out" in risk(shop, undisturbed, "--split-by", "region").stderr
    refused = risk(shop, undisturbed, "--split-by", "region", "--out", tmp_path / "lists")
    assert (refused.code, "there is none of this name" in refused.stderr) == (2, True)
    assert not list(tmp_path.iterdir())


def test_exports_end_with_0_or_2(shop: Shop, undisturbed: Finished, tmp_path: Path) -> None:
    """The number of rows and the file are said, and what is left out; another ending than the two is a mistake."""
    command = ("export", "offers", "-c", shop.config, "--home", undisturbed.home, "--out")
    done = shop.launcher.run(*command, tmp_path / "offers.parquet", uri=undisturbed.uri)
    assert (done.code, done.stdout) == (0, f"0 rows in {tmp_path}/offers.parquet\n")
    assert "618 offers are not proven (grade none), and so not exported; `--unproven-offers` exports" in done.stderr
    whole = shop.launcher.run(*command, tmp_path / "all.parquet", "--unproven-offers", uri=undisturbed.uri)
    assert (whole.code, whole.stdout) == (0, f"618 rows in {tmp_path}/all.parquet\n")
    refused = shop.launcher.run(*command, tmp_path / "offers.doc", uri=undisturbed.uri)
    assert refused.code == 2
    assert "offers.doc: the name must end in .parquet or .csv" in refused.stderr


def test_a_champion_of_other_features_is_refused(shop: Shop, undisturbed: Finished) -> None:
    """Settings that change the features call for a training: a sentence and exit code 1, and the scores stay."""
    before = digest(undisturbed.home)
    done = risk(shop, undisturbed, "--set", "attributes=[region]")
    assert (done.code, "Traceback" in done.stderr) == (1, False)
    assert re.search(
        r"error: the churn champion was trained on other features .*attribute_region.*: `perennial run", done.stderr
    )
    assert digest(undisturbed.home) == before


def test_monitor_ends_with_1_when_the_world_has_moved(shop: Shop, undisturbed: Finished) -> None:
    """A third of a year without a purchase is drift; the same world is not."""
    home = shutil.copytree(undisturbed.home, shop.folder / "moved")
    options = ("monitor", "-c", shop.config, "--home", home, "--as-of")
    moved = shop.launcher.run(*options, "2023-11-01", uri=undisturbed.uri)
    assert moved.code == 1
    assert "drift at 2023-11-01 against" in moved.stderr


def page_of(done: Done) -> Path:
    """What a run left to read."""
    return Path(re.findall(r"page: (.+/run-.+\.html)\n", done.stderr)[-1])


def record(page: Path) -> Any:
    return json.loads(page.with_suffix(".json").read_text())


def test_a_run_leaves_a_page_of_what_it_did(shop: Shop, undisturbed: Finished) -> None:
    """Its stages in order, why it trained, what the gate said of each version, and where the scores are."""
    page = min((undisturbed.home / "reports").glob("run-*.html"))
    recorded = record(page)
    stages = ["ingest", "snapshot", "monitor", "train", "promote", "score", "publish"]
    assert [stage["name"] for stage in recorded["stages"]] == stages
    assert recorded["done"] is True
    decided = [(one["kind"], one["version"], one["due"], one["outcome"]) for one in recorded["decisions"]]
    due = "there is no champion yet"
    assert sorted(decided) == [(kind, "1", due, "promoted") for kind in KINDS]
    assert all(one["reasons"] for one in recorded["decisions"])
    assert str(storage.scores_path(undisturbed.home, AS_OF)) in page.read_text()
    scores = pd.read_parquet(storage.scores_path(undisturbed.home, AS_OF))
    assert (recorded["customers"]["customers"], recorded["change"]) == (len(scores), None)
    assert recorded["customers"]["at_risk"] == pytest.approx(scores["value_at_risk"].sum())
    assert "transactions" in {account["table"] for account in recorded["tables"]}
    assert f"First run by as_of: {AS_OF} is the earliest with scores." in page.read_text()


@pytest.mark.parametrize("name", [name for name, bad in BAD.items() if bad.code == 1])
def test_a_run_that_breaks_off_leaves_a_page_and_an_alert(name: str, battered: Battered) -> None:
    """Both say where and why, in the sentence of the terminal, and what to type next."""
    recorded = record(page_of(battered.done[name]))
    assert recorded["done"] is False
    failed = recorded["stages"][-1]
    assert f"error: {failed['failed']}\n" in battered.done[name].stderr
    alert = recorded["alerts"][-1]
    assert (alert["about"], alert["says"]) == (f"the run broke off in {failed['name']}", failed["failed"])
    typed = f"perennial run -c {battered.home.parent}/workspace.yaml --home {battered.home} "
    assert alert["command"].startswith(typed)
    told = (battered.home / "alerts.jsonl").read_text()
    assert alert["about"] in told


def test_a_locked_registry_stops_a_run_in_words(shop: Shop, undisturbed: Finished) -> None:
    """The scores stay as they were; once the database is free again, the run goes through."""
    home, uri = shutil.copytree(undisturbed.home, shop.folder / "locked"), shop.registry("locked")
    holder = sqlite3.connect(uri.removeprefix("sqlite:///"), isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    done = shop.run(home, f"{uri}?timeout=0.1")
    assert done.code == 1
    assert re.search(r"error: MLflow, or its database, .*database is locked; run again when it does", done.stderr)
    assert "Traceback" not in done.stderr
    assert record(page_of(done))["stages"][-1]["name"] == "monitor"
    assert digest(home) == digest(undisturbed.home)
    holder.execute("ROLLBACK")
    holder.close()
    assert shop.run(home, undisturbed.uri).code == 0


def test_a_registry_that_goes_away_stops_a_run_in_words(shop: Shop, undisturbed: Finished) -> None:
    """While it trains, which it has to record; the home serves the next run as before."""
    home, uri = shutil.copytree(undisturbed.home, shop.folder / "gone"), shop.registry("gone")
    folder = Path(uri.removeprefix("sqlite:///")).parent
    command = shop.start(home, uri)
    while "[4/7]" not in command.said:
        time.sleep(0.01)
    folder.rename(folder.with_name("away"))
    done = command.wait()
    assert done.code == 1
    assert re.search(r"error: MLflow, or its database, does not do as it is asked: .*; run again", done.stderr)
    assert "Traceback" not in done.stderr
    assert digest(home) == digest(undisturbed.home)
    assert shop.run(home, undisturbed.uri).code == 0


def test_targets_that_cannot_be_told_do_not_break_a_run(shop: Shop, undisturbed: Finished) -> None:
    """A webhook that is down and mail that is refused are said and on the page; the file has the alert."""
    home = shutil.copytree(undisturbed.home, shop.folder / "untold")
    email = {"to": "ann@example.org", "sender": "p@example.org", "host": "127.0.0.1", "port": 9, "security": "none"}
    config = rewrite(shop.config, shop.folder / "untold.yaml", alerts={"webhook": "${NO_HOOK}", "email": email})
    done = shop.run(home, undisturbed.uri, "-c", config, "--as-of", "2021-06-01")
    assert done.code == 1
    for sentence in (
        "alerts.webhook could not be told: alerts.webhook uses ${NO_HOOK}, which is not set in the environment",
        "alerts.email could not be told: [Errno 111] Connection refused; the next run tries again",
    ):
        assert sentence in done.stderr
        assert sentence in html.unescape(page_of(done).read_text())
    assert "the run broke off in " in (home / "alerts.jsonl").read_text()


@pytest.fixture(scope="module")
def aged(shop: Shop) -> Finished:
    """A home whose champions were trained a quarter before the others'."""
    run = Finished(shop.folder / "aged", shop.registry("aged"))
    done = shop.run(*run, *_EARLY, "--as-of", "2023-04-01")
    assert done.code == 0, done.stderr
    return run


_EARLY = ("--set", "training.min_history=200")


def test_an_old_champion_is_challenged_and_a_person_decides(shop: Shop, aged: Finished) -> None:
    """With `retraining.promote: person` the gate's verdict is told with the command, and the champion goes on."""
    home = shutil.copytree(aged.home, shop.folder / "asked")
    done = shop.run(home, aged.uri, *_EARLY, "--set", "retraining.promote=person")
    assert done.code == 0, done.stderr
    recorded = record(page_of(done))
    due = "the champion is 91 days old, more than retraining.max_age (90)"
    decided = [(one["kind"], one["version"], one["due"], one["outcome"]) for one in recorded["decisions"]]
    assert sorted(decided) == [(kind, "2", due, "waits for a person") for kind in KINDS]
    watched = json.loads((home / "reports" / f"drift-{AS_OF}.json").read_text())
    assert watched["matters"] is False  # else drift would have been the reason
    assert bool(watched["pages"]) == watched["drifted"]  # a quiet month has none
    alert = next(one for one in recorded["alerts"] if one["about"] == "churn version 2 waits for a person")
    assert alert["says"] == sentences.joined(
        next(one["reasons"] for one in recorded["decisions"] if one["kind"] == "churn")
    )
    typed = f"-c {shop.config} --home {home} --set training.min_history=200 --set retraining.promote=person"
    assert alert["command"] == f"perennial promote churn {typed} --version 2"
    assert set(pd.read_parquet(storage.scores_path(home, AS_OF))["churn_model"].dropna()) == {"small.churn/1"}


def test_an_old_champion_is_challenged_and_the_gate_decides(shop: Shop, aged: Finished) -> None:
    """What passes answers from this run on; what does not is told, with why, and ends the run with 1."""
    home = shutil.copytree(aged.home, shop.folder / "judged")
    done = shop.run(home, aged.uri, *_EARLY, "--set", "promotion.size=0.05")  # churn's files have more
    assert done.code == 1, done.stderr
    recorded = record(page_of(done))
    outcomes = {one["kind"]: one["outcome"] for one in recorded["decisions"]}
    assert (outcomes["churn"], outcomes["cross_sell"]) == ("refused", "promoted")
    scores = pd.read_parquet(storage.scores_path(home, AS_OF))
    assert set(scores["churn_model"].dropna()) == {"small.churn/1"}
    assert set(scores["cross_sell_model"].dropna()) == {"small.cross_sell/2"}
    alert = next(one for one in recorded["alerts"] if one["about"] == "churn version 2 was refused")
    assert alert["command"].endswith(" --version 2 --force REASON")
    assert alert["says"] in (home / "alerts.jsonl").read_text()


def test_a_run_after_the_question_changed_answers_the_new_one(shop: Shop, undisturbed: Finished) -> None:
    """It trains, says what changed, puts the version in the champion's place, scores and publishes."""
    home, uri = shutil.copytree(undisturbed.home, shop.folder / "asked_anew"), shop.registry("asked_anew")
    shutil.copy(undisturbed.uri.removeprefix("sqlite:///"), uri.removeprefix("sqlite:///"))
    done = shop.run(home, uri, "--set", "churn.horizon=30")
    assert done.code == 0, done.stderr
    [decision] = record(page_of(done))["decisions"]
    assert (decision["kind"], decision["version"], decision["outcome"]) == ("churn", "2", "promoted")
    assert "the question changed: churn.horizon 60 -> 30" in decision["reasons"]
    assert any("it is judged as the first of its question" in reason for reason in decision["reasons"])
    assert "churn: version 2 promoted: " in done.stderr
    scores = pd.read_parquet(storage.scores_path(home, AS_OF))
    assert set(scores["churn_model"].dropna()) == {"small.churn/2"}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of four megabytes."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("full disk: mounting a tmpfs is not permitted here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("free", [0, 20_000, 40_000])
def test_scoring_on_a_full_disk_leaves_nothing_half_written(
    free: int, shop: Shop, undisturbed: Finished, small_disk: Path
) -> None:
    """It ends with a sentence and exit code 1; with space again it gives the same answers."""
    home = small_disk / "home"
    shutil.copytree(undisturbed.home, home, ignore=shutil.ignore_patterns("scores", "reports", "evidently"))
    with (small_disk / "ballast").open("wb") as ballast:
        ballast.write(b"0" * (shutil.disk_usage(small_disk).free - free))
    options = ("-c", shop.config, "--home", home, "--as-of", AS_OF)
    done = shop.launcher.run("score", *options, uri=undisturbed.uri)
    assert done.code == 1
    assert re.search(r"error: the disk is full: .*; free some space and run again", done.stderr), done.stderr
    assert "Traceback" not in done.stderr
    assert_whole(home)
    assert unfinished(home) == []
    (small_disk / "ballast").unlink()
    assert shop.launcher.run("score", *options, uri=undisturbed.uri).code == 0
    assert digest(home) == digest(undisturbed.home)


if __name__ == "__main__":
    _fork_on_request()
