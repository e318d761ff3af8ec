"""A home and a registry that earlier code made: what was held is there, and one run brings the rest up to date.

The code of then makes them, from git, in a process of its own.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from functools import reduce
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
from workspaces import AS_OF

import perennial
from features import retrieval, snapshot
from serving.consent import Consents
from training.kinds import kind_of
from training.models.customer_model import read_model
from workspace import registry, storage
from workspace.storage import CheckFailed

ROOT = Path(__file__).resolve().parents[2]
THEN = "96d2d9d"
REFUSES, BUYER, ERASED = "c0111", "c0222", "c0333"
QUICK = ("training.cutoffs=2", "training.backtest_cutoffs=1", "churn.boosting.rounds=20",
         "lifetime_value.boosting.rounds=20", "cross_sell.boosting.rounds=20")  # fmt: skip
# Run where the code of then lies, on its own small shop: one consent withdrawn, one purchase sent, one customer erased.
MAKE = """
import sys
from datetime import UTC, date, datetime
from pathlib import Path
from features import retrieval
from perennial import events, settings
from serving import erasure
from serving.consent import Consents
from workspaces import run_line, small_workspace
folder, refuses, buyer, erased, *quick = sys.argv[1:]
workspace = small_workspace(Path(folder), *quick)
run_line(workspace)
now = datetime(2023, 7, 1, 12, tzinfo=UTC)
Consents(workspace.home_path).put(refuses, {"profiling": False}, now)
row = {"transaction_id": "till-1", "customer_id": buyer, "occurred_at": "2023-06-30T10:00:00+00:00", "amount": 12.5}
store = events.open_store(workspace)
store.add([events.Event("transactions", "till-1", buyer, date(2023, 6, 30), (row,))], now)
store.close()
erasure.erase(workspace, retrieval.open_store(workspace), [erased])
"""


class Made(NamedTuple):
    """What the code of then left: the file of the workspace, its home beside it, and the scores that it wrote."""

    config: Path
    scores: pd.DataFrame

    @property
    def shop(self) -> perennial.Shop:
        return perennial.open(self.config, QUICK, self.config.with_name("home"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    folder = tmp_path_factory.mktemp("earlier")
    code, uri, key = folder / "code", f"sqlite:///{folder}/mlflow.db", "a-privacy-key-of-tests"
    code.mkdir()
    archive = subprocess.run(["git", "archive", THEN], cwd=ROOT, capture_output=True, check=False)
    if archive.returncode:
        pytest.skip(f"{THEN} is not in this clone: {archive.stderr.decode().strip()}")
    subprocess.run(["tar", "-x", "-C", code], input=archive.stdout, check=True)
    set_then = {"PYTHONPATH": f"{code}{os.pathsep}{code}/tests", "MLFLOW_TRACKING_URI": uri,
                "PERENNIAL_PRIVACY_KEY": key}  # fmt: skip
    command = [sys.executable, "-W", "ignore", "-c", MAKE, folder / "shop", REFUSES, BUYER, ERASED, *QUICK]
    subprocess.run(command, cwd=code, env=os.environ | set_then, check=True)
    scores = pd.read_parquet(storage.scores_path(folder / "shop" / "home", AS_OF))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        patch.setenv("PERENNIAL_PRIVACY_KEY", key)
        yield Made(folder / "shop" / "workspace.yaml", scores.set_index("customer_id"))


@pytest.mark.parametrize(("kind", "column"), [("churn", "churn_probability"), ("lifetime_value", "lifetime_value")])
def test_a_model_of_then_answers_as_it_did(made: Made, kind: str, column: str) -> None:
    """Read from the registry by today's code, it says of the features of then what the scores of then say."""
    home, tracker = made.shop.workspace.home_path, registry.client()
    version = registry.champion(tracker, made.shop.workspace, kind)
    assert version is not None
    model = read_model(kind_of(kind).model, registry.model_folder(tracker, version))
    parts = [storage.snapshot_part(home, family, AS_OF) for family in snapshot.CUSTOMER_FAMILIES]
    families = (pd.read_parquet(part).drop(columns="as_of") for part in parts)
    rows = reduce(lambda one, other: one.merge(other, on="customer_id"), families).set_index("customer_id")
    said = made.scores[column].dropna()
    assert len(said) > 250
    answers = model.predict(retrieval.matrix(rows.loc[said.index], model.columns))
    np.testing.assert_allclose(answers, said, rtol=1e-6)


def test_what_is_held_of_a_customer_is_found(made: Made) -> None:
    """The purchase that was sent to the service of then, too; and who was erased then is unknown."""
    held = made.shop.customer(BUYER)["held"]
    assert any("till-1" in str(rows) for rows in held.values())
    with pytest.raises(CheckFailed, match=f"nothing is held of {ERASED}"):
        made.shop.customer(ERASED)


def test_what_was_scored_then_can_be_exported(made: Made) -> None:
    """The same customers and numbers, but for who has withdrawn the consent since."""
    found = made.shop.at(AS_OF).scores().set_index("customer_id")
    assert set(found.index) == set(made.scores.index)
    assert found["churn_probability"].drop(REFUSES).equals(made.scores["churn_probability"].drop(REFUSES))


def test_a_list_says_what_to_run(made: Made) -> None:
    """Features have come since: what the models of then would say of today's is not known, and the command is named."""
    says = (
        r"the churn champion was trained on other features .*now also days_until_contract_end.*`perennial run -c FILE"
    )
    with pytest.raises(CheckFailed, match=says):
        made.shop.at(AS_OF).list("churn-risk")


def test_one_run_brings_it_up_to_date(made: Made) -> None:
    """It trains, and scores by what can answer, whatever the gate says; what was said and erased then still counts."""
    day = AS_OF + timedelta(days=1)
    made.shop.at(day).run()
    alerts = (made.shop.workspace.home_path / "alerts.jsonl").read_text()
    assert re.search(
        r"version 2 answers though the gate refused it.* version 1 cannot answer: it learnt features", alerts
    )
    scores = made.shop.at(day).scores().set_index("customer_id")
    assert set(scores["churn_model"]) == {"small.churn/2"}
    assert scores.loc[REFUSES, "not_scored_reason"] == "no consent to profiling"
    assert ERASED not in scores.index
    assert Consents(made.shop.workspace.home_path).of("profiling", [REFUSES]) == {REFUSES: False}
    assert len(made.shop.at(day).list("churn-risk", top=10)) == 10
