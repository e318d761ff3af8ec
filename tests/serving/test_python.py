"""The shop from Python: the same words, columns and numbers as the command line, and the same consents."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import docstrings
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from click.testing import Result
from datasets import cdnow_sample
from private_shop import NOW, PII, private_shop
from typer.testing import CliRunner
from workspaces import AS_OF, NO_MARKETING, NO_PROFILING

import perennial
from features.snapshot import customer_features
from perennial import models
from perennial.cli import app as commands
from perennial.shop import Shop, ShopAt
from serving.consent import Consents
from tests.serving import conftest
from training.learning import labels
from workspace import registry, settings, storage
from workspace.storage import CheckFailed

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def config(shop: conftest.Shop, environment: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workspace file of a copy of the shop, its home and its MLflow."""
    folder = shutil.copytree(shop.workspace.home_path.parent, tmp_path_factory.mktemp("python") / "shop")
    file = folder / "workspace.yaml"
    file.write_text(
        file.read_text().replace(str(shop.workspace.home_path.parent), str(folder)) + f"home: {folder}/home\n"
    )
    return file


@pytest.fixture(scope="module")
def opened(config: Path) -> ShopAt:
    return perennial.open(config).at(AS_OF)


def typed(config: Path, *words: str) -> Result:
    result = CliRunner().invoke(commands, [*words, "-c", str(config)])
    assert result.exit_code == 0, result.output
    return result


@pytest.mark.parametrize("format", ["csv", "json"])
def test_a_list_is_the_commands_byte_by_byte(format: str, config: Path, opened: ShopAt) -> None:
    """The same customers, columns, reasons and digits; and the sentences about them."""
    line = ("list", "churn-risk", "--top", "40", "--band", "high", "--sort", "lifetime_value", "--as-of", str(AS_OF))
    rows = opened.list("churn-risk", top=40, band="high", sort="lifetime_value")
    assert 5 < len(rows) <= 40
    assert perennial.encode(rows, format) == typed(config, *line, "--format", format).stdout_bytes  # type: ignore[arg-type]
    assert typed(config, *line).stdout.endswith("\n".join(rows.attrs["about"]) + "\n")


@pytest.mark.parametrize("what", ["scores", "offers", "features"])
def test_what_is_exported_is_the_commands_byte_by_byte(what: str, config: Path, opened: ShopAt, tmp_path: Path) -> None:
    """As CSV; and as Arrow the table that the Parquet file holds."""
    for end in ("csv", "parquet"):
        typed(config, "export", what, "--as-of", str(AS_OF), "--out", str(tmp_path / f"rows.{end}"))
    rows: pd.DataFrame = getattr(opened, what)()
    assert perennial.encode(rows, "csv") == (tmp_path / "rows.csv").read_bytes()
    table, written = perennial.to_arrow(rows), pq.read_table(tmp_path / "rows.parquet")
    assert table.schema.types == written.schema.types
    assert table.equals(written.cast(table.schema))


def test_rules_and_segments_are_the_commands_byte_by_byte(config: Path, opened: ShopAt, tmp_path: Path) -> None:
    """What goes with an item, and the groups at risk, of the latest scored day."""
    latest = perennial.open(config).latest()
    assert latest.as_of == opened.as_of
    typed(config, "list", "bought-with", "--top", "3", "--out", str(tmp_path / "rules.csv"))
    assert perennial.encode(latest.list("bought-with", top=3), "csv") == (tmp_path / "rules.csv").read_bytes()
    typed(config, "churn", "segments", "--out", str(tmp_path / "segments.csv"))
    assert perennial.encode(latest.segments(), "csv") == (tmp_path / "segments.csv").read_bytes()


def test_a_customer_is_what_the_command_shows(config: Path, opened: ShopAt) -> None:
    """Every row that is held, by place; who has read them is there too, and the read itself is noted."""
    held = opened.customer("c0300")
    told = json.loads(typed(config, "customer", "c0300").stdout)
    assert json.loads(json.dumps(held["held"], default=str)) == told["held"]
    assert (told["audit"][-1]["role"], told["audit"][-1]["what"]) == ("Python", "customer")
    with pytest.raises(CheckFailed, match="nothing is held of nobody in"):
        opened.customer("nobody")


def test_who_objects_is_not_listed(config: Path, opened: ShopAt) -> None:
    """By the customers' table, and from the moment on that it was said over HTTP."""
    before = opened.list("churn-risk", top=500)
    said = before["customer_id"].iloc[0]
    never = {f"c{number:04}" for number in (*NO_MARKETING, *NO_PROFILING)}
    assert not never & {*before["customer_id"]}
    Consents(opened.shop.workspace.home_path).put(said, {"marketing": False}, NOW)
    after = opened.list("churn-risk", top=500)
    assert {*before["customer_id"]} - {*after["customer_id"]} == {said}


def test_contact_data_need_a_line_in_the_audit_log(
    shop: conftest.Shop, environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """They are shown where they are asked for, by name and time; where nobody can be noted, they are not."""
    private = Shop(private_shop(shop.workspace, tmp_path / "private"), now=lambda: NOW).at(AS_OF)
    assert not {*PII} & {*private.list("churn-risk", top=3)}
    rows = private.list("churn-risk", top=3, contacts=True)
    assert rows["email"].str.endswith("@example.com").all()
    log = private.shop.workspace.home_path / "audit.jsonl"
    line = json.loads(log.read_text().splitlines()[-1])
    assert (line["role"], line["what"], line["rows"], line["at"][:10]) == ("Python", "list churn-risk", 3, "2023-07-01")
    assert line["filter"]["contacts"] is True
    log.unlink()
    log.mkdir()
    with pytest.raises(CheckFailed, match="contact data are not shown without a line there"):
        private.list("churn-risk", top=3, contacts=True)


@pytest.mark.parametrize(
    ("asked", "says"),
    [({"name": "churn"}, "list 'churn': there are churn-risk, win-back, cross-sell, bought-with"),
     ({"top": 0}, "at least one row"),
     ({"band": "hi"}, "band 'hi': there are low, medium, high"), ({"sort": "risk"}, "sort 'risk': there are value_at")],
    ids=["list", "top", "band", "sort"],
)  # fmt: skip
def test_a_word_that_means_nothing_is_refused(asked: dict[str, object], says: str, opened: ShopAt) -> None:
    """With the words that there are, and never an empty frame."""
    with pytest.raises(ValueError, match=says):
        opened.list(**({"name": "churn-risk"} | asked))  # type: ignore[arg-type]


def test_a_training_set_has_only_what_has_closed(opened: ShopAt) -> None:
    """An example's outcome is the one that the labels know, its window is over, and who refuses profiling is not in."""
    churn = opened.training_set("churn")
    assert {*churn["churned"].unique()} == {0.0, 1.0}
    assert (churn["as_of"] + pd.Timedelta(days=churn.attrs["horizon"]) <= pd.Timestamp(AS_OF)).all()
    assert not {f"c{number:04}" for number in NO_PROFILING} & {*churn["customer_id"]}
    assert {*churn.columns[2:-1]} <= {feature.name for feature in customer_features(opened.shop.workspace)}
    value = opened.training_set("lifetime-value")
    days = sorted({day.date() for day in value["as_of"]})
    happened = labels.outcomes(opened.shop.workspace, days, AS_OF).astype({"as_of": value["as_of"].dtype})
    both = value.merge(happened, on=["customer_id", "as_of"], suffixes=("", "_then"), validate="1:1")
    assert len(both) > 100
    pd.testing.assert_series_equal(both["value"], both["value_then"], check_names=False)
    pairs = opened.training_set("cross_sell")
    assert {"customer_id", "as_of", "item", "bought"} <= {*pairs}
    assert 0 < pairs["bought"].mean() < 1


def test_the_month_is_the_runs(config: Path) -> None:
    """Stage by stage, what a run made is found and kept; `run` itself says so too."""
    said: list[str] = []
    today = perennial.open(config, say=said.append).at(AS_OF)
    versions = today.train()
    assert versions == dict.fromkeys(registry.KINDS, "1")
    decided = today.promote(versions)
    assert {*decided["outcome"]} == {"is the champion already"}
    assert all(decided["reasons"])
    drift, _ = today.monitor()
    assert today.run() is not drift.drifted
    assert said[-1].startswith("page: ")
    assert said.count("churn: no training is due") == 1
    today.score()
    today.publish()
    assert f"scores of {AS_OF} are there already" in said


def test_histories_are_those_of_the_features(config: Path, opened: ShopAt) -> None:
    """What the purchase models are fitted on from a frame of transactions, and what a snapshot has, are the same."""
    transactions = pd.read_parquet(config.parent / "transactions.parquet")
    ours, features = models.histories(transactions, AS_OF), opened.features().set_index("customer_id")
    known = features[features["frequency"].notna()]
    assert len(known) == len(ours) > 300
    np.testing.assert_allclose(ours, known.loc[ours.index, ours.columns], rtol=1e-6)


def test_while_another_process_has_the_home_nothing_is_written(config: Path, opened: ShopAt) -> None:
    """The refusal names who has it."""
    holder = Shop(settings.read(config), words="a test")
    with holder.alone(), pytest.raises(storage.InUse, match=r"in use by `a test` \(process"):
        opened.score()


def test_files_are_the_owners_alone(config: Path, opened: ShopAt) -> None:
    """MLflow's, Feast's and SQLite's too, whatever the process usually lets others do."""
    before = os.umask(0o022)
    try:
        with opened.shop.alone():
            (config.parent / "made").write_text("")
        assert (config.parent / "made").stat().st_mode & 0o077 == 0
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(before)


def test_to_import_it_takes_no_time_and_no_library() -> None:
    """`import perennial` loads nothing of its own; to open a shop, none of the libraries that take seconds; the models
    come when they are asked for."""
    ask = (
        "import sys, perennial; first = {m for m in sys.modules if m.startswith('perennial')}; perennial.open\n"
        "print(*first, '|', *{m.partition('.')[0] for m in sys.modules})\n"
        "perennial.models.BGNBD, perennial.models.CutoffSplit"  # there without an import of their own
    )
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True, cwd=ROOT)
    first, loaded = (set(part.split()) for part in done.stdout.split("|"))
    assert first == {"perennial"}
    assert not loaded & {"pandas", "pyarrow", "mlflow", "feast", "lightgbm", "typer"}


def test_what_the_front_door_names_is_there() -> None:
    """Wherever it lives: each name of `perennial`, its errors among them, and nothing else."""
    assert {name: getattr(perennial, name).__name__ for name in perennial.__all__} == {n: n for n in perennial.__all__}
    with pytest.raises(AttributeError, match="no attribute 'close'"):
        perennial.close  # noqa: B018


@pytest.mark.parametrize("name", perennial.__all__)
def test_every_public_name_has_an_example_that_is_right(
    name: str, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    """What the docstrings show is what comes out, in the folder of a shop."""
    shutil.copy(config, config.with_name("shop.yaml"))
    monkeypatch.chdir(config.parent)
    ran = docstrings.ran(getattr(perennial, name), perennial=perennial, pd=pd)
    assert ran.attempted > 0
    assert ran.failed == 0


def test_the_page_about_python_works_as_it_stands(
    config: Path, opened: ShopAt, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    """Every block of it in order, on another shop and day; the purchase models on CDNOW, 27 years on."""
    shutil.copy(config, config.with_name("shop.yaml"))
    bought = cdnow_sample().rename(columns={"date": "occurred_at"})
    later = bought.assign(occurred_at=bought["occurred_at"] + pd.DateOffset(years=27))
    later.to_parquet(config.with_name("purchases.parquet"))
    monkeypatch.chdir(config.parent)
    page = (ROOT / "docs" / "python.md").read_text().replace("2025-01-01", str(AS_OF))
    page = page.replace("training.cutoffs=18", "training.cutoffs=6")  # what its history has room for, in few seconds
    made: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL):
        exec(block, made)
    assert len(made["at_risk"]) == 10  # type: ignore[arg-type]
    assert (made["next_quarter"]["value"] > 0).mean() > 0.9  # type: ignore[index]
    assert (made["auc"] > 0.6).all()  # type: ignore[operator]
    assert len(made["worth"]) == len(made["bounds"]) == len(opened.features())  # type: ignore[arg-type]
    assert made["enough"] == {"churn": "sufficient", "lifetime_value": "sufficient", "cross_sell": "sufficient"}
    assert (config.parent / "risk.csv").read_bytes().startswith("﻿customer_id".encode())
