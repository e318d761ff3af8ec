"""MLflow: what a run records, that its model is data and predicts the same, and that no training is done twice."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import mlflow
import numpy as np
import pandas as pd
import pytest
import yaml
from mlflow.exceptions import MlflowException
from registries import new_registry

from features import publications, snapshot
from tests.training import bare
from tests.training.conftest import TRAINED_AT, World
from training import pipelines
from training.backtests.grade import Grade
from training.kinds import CHURN, kind_of
from training.learning import churn, cross_sell, lifetime_value
from training.models.churn_model import ChurnModel
from training.records import carried, tracking
from workspace import registry, settings
from workspace.digests import ChangedModel
from workspace.registry import KINDS
from workspace.settings import Workspace

PLOTS = {
    "churn": {"calibration.svg", "lift.svg"},
    "lifetime_value": {"totals.svg", "deciles.svg", "lift.svg", "coverage.svg"},
    "cross_sell": {"calibration.svg", "lift.svg"},
}


ORDER = {"churn": "auc", "lifetime_value": "ngini", "cross_sell": "ndcg5"}


@pytest.fixture(autouse=True)
def loading(world: World) -> None:
    """What MLflow itself loads by name is the world's, whatever client another test made."""
    registry.turn_to(world.tracker)


def run_of(world: World, kind: str) -> Any:
    return world.tracker.get_run(world.versions[kind].run_id)


def artifacts(world: World, kind: str) -> Path:
    """The folder of a run's artifacts."""
    return Path(mlflow.artifacts.download_artifacts(run_id=world.versions[kind].run_id))


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_records_what_it_came_from(kind: str, world: World) -> None:
    """The as_of dates, windows, feature service and hash, data fingerprint, commit and seed of design section 5."""
    recorded = run_of(world, kind).data.params
    own = getattr(world.workspace, kind).model_dump(mode="json")
    assert {name: recorded[name] for name in own} == {name: str(value) for name, value in own.items()}
    cutoffs = cross_sell.cutoffs(world.workspace, TRAINED_AT) if kind == "cross_sell" else world.data.closed
    assert recorded["cutoffs"].split() == [str(getattr(cutoff, "as_of", cutoff)) for cutoff in cutoffs]
    assert (recorded["as_of"], recorded["seed"]) == ("2024-07-01", "7")
    assert recorded["feature_service"] == f"{kind}_v1"
    assert re.fullmatch("[0-9a-f]{16}", recorded["features_hash"])
    assert recorded["data_fingerprint"] == snapshot.fingerprint(world.workspace)
    assert re.fullmatch("[0-9a-f]{40}(-dirty)?|unknown", run_of(world, kind).data.tags["git_commit"])


def test_the_feature_hash_is_that_of_the_packed_vector(world: World) -> None:
    """It is what the online view carries too, so that a mismatch is seen before it answers."""
    assert run_of(world, "churn").data.params["features_hash"] == publications.expected_hash(world.workspace)
    assert world.versions["churn"].tags["features_hash"] == publications.expected_hash(world.workspace)


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_holds_settings_figures_and_pictures(kind: str, world: World) -> None:
    """All settings as resolved, the backtest's mean and worst figures, the naive rule's, and plots as images."""
    folder, run = artifacts(world, kind), run_of(world, kind)
    kept = settings.parse(yaml.safe_load((folder / "settings.json").read_text()), "settings.json")
    assert kept == world.workspace
    plots = {path.name: path.read_bytes() for path in (folder / "plots").iterdir()}
    assert plots.keys() == PLOTS[kind]
    assert all(b"<svg" in content[:1_000] and len(content) > 5_000 for content in plots.values())
    assert {"judged_cutoffs", f"{ORDER[kind]}_worst", f"naive_{ORDER[kind]}"} <= run.data.metrics.keys()
    assert run.data.metrics["judged_cutoffs"] >= 1
    assert all(np.isfinite(value) for value in run.data.metrics.values())
    assert run.info.status == "FINISHED"


def churn_rows(world: World) -> np.ndarray:
    vectors = world.data.current.vectors
    return vectors[world.data.inputs.column(vectors, "days_since_last_purchase") <= 365]


def retrained(world: World, kind: str) -> tuple[Callable[[np.ndarray], np.ndarray], np.ndarray]:
    """A model of this kind as it was before it was stored, and rows for it."""
    if kind == "churn":
        return churn.fit(world.data, world.workspace, world.data.closed, world.data.current).probability, churn_rows(
            world
        )
    if kind == "lifetime_value":
        model = lifetime_value.fit(world.data, world.workspace, world.data.closed, world.data.current)
        return model.value, churn_rows(world)
    offers = cross_sell.train(world.workspace, TRAINED_AT)
    random = np.random.default_rng(1)
    return offers.probability, random.gamma(1.0, 20.0, (500, len(offers.names))).astype(np.float32)


@pytest.mark.parametrize("kind", KINDS)
def test_what_mlflow_loads_predicts_the_same(kind: str, world: World) -> None:
    """Stored, registered, found by its alias and loaded again, a model gives the same answers to 1e-12.

    Columns are known by their names: in another order they are put right, without names or with others refused.
    """
    predict, rows = retrained(world, kind)
    loaded = mlflow.pyfunc.load_model(f"models:/world.{kind}@champion")
    named = pd.DataFrame(rows, columns=kind_of(kind).columns(world.workspace))
    np.testing.assert_allclose(loaded.predict(named), predict(rows), rtol=1e-12, atol=0)
    assert np.ptp(predict(rows)) > 0.01
    np.testing.assert_allclose(loaded.predict(named[named.columns[::-1]]), predict(rows), rtol=1e-12, atol=0)
    swapped = named.set_axis([*named.columns[1::-1], "another", *named.columns[3:]], axis=1)
    for unnamed in (rows, named.iloc[:, 1:], swapped):
        with pytest.raises(MlflowException, match="Failed to enforce schema"):
            loaded.predict(unnamed)


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_is_stored_as_data(kind: str, world: World) -> None:
    """JSON and LightGBM's text beside MLflow's YAML and the code that reads them; nothing runs on being opened."""
    folder = Path(mlflow.artifacts.download_artifacts(f"models:/world.{kind}@champion"))
    files = [path for path in folder.rglob("*") if path.is_file() and path.parts[len(folder.parts)] != "code"]
    assert {path.suffix for path in (folder / "code").rglob("*") if path.is_file()} <= {".py", ".pyc"}
    assert {"model.json", "MLmodel"} <= {path.name for path in files}
    assert ".txt" in {path.suffix for path in files}
    assert not {path.suffix for path in files} - {".json", ".txt", ".yaml", ".yml", ""}
    for path in files:
        path.read_text(encoding="utf-8")
    flavour = yaml.safe_load(next(path for path in files if path.name == "MLmodel").read_text())["flavors"]
    assert list(flavour) == ["python_function"]
    assert flavour["python_function"]["loader_module"].startswith("training.models.")


_ANSWER = """
import importlib.util, json, sys, mlflow
models = [mlflow.pyfunc.load_model(path) for path in sys.argv[1:4]]
answers = [model.predict(model.input_example).tolist() for model in models]
refused = []
for path in sys.argv[4:]:
    try:
        mlflow.pyfunc.load_model(path)
    except Exception as problem:
        refused.append(str(problem))
print(json.dumps([importlib.util.find_spec("serving") is None, refused, *answers]))
"""


def test_a_model_answers_where_nothing_of_this_project_is(world: World, tmp_path: Path) -> None:
    """All three in one process, and one served by MLflow's own server, in an environment of their requirements alone.

    With half a booster each is refused in a sentence: LightGBM would end the process. The environment is made of the
    packages that are installed here, those that the requirements and they in turn ask for.
    """
    logged = {kind: mlflow.artifacts.download_artifacts(f"models:/world.{kind}@champion") for kind in KINDS}
    folders = [shutil.copytree(folder, tmp_path / kind) for kind, folder in logged.items()]
    asked = {line for folder in folders for line in (folder / "requirements.txt").read_text().split()}
    python = bare.environment(asked, tmp_path / "bare")
    expected = [
        mlflow.pyfunc.load_model(folder).predict(carried.example(kind_of(kind).columns(world.workspace))).tolist()
        for kind, folder in logged.items()
    ]
    clean = {"PATH": f"{python.parent}:{os.environ['PATH']}", "HOME": str(tmp_path)}
    command = [python, "-I", "-W", "ignore"]
    halves = [_with_half_a_booster(folder) for folder in folders]
    ask = [*command, "-c", _ANSWER, *folders, *halves]
    done = subprocess.run(ask, cwd=tmp_path, env=clean, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    is_bare, refused, *answers = json.loads(done.stdout.splitlines()[-1])
    assert (is_bare, answers) == (True, expected)
    for half, said in zip(halves, refused, strict=True):
        assert re.match(rf"the model in {half}/data/model is not what was written: \w+\.txt changed since; put", said)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    serve = ["-m", "mlflow", "models", "serve", "-m", folders[0], "-p", str(port), "--env-manager", "local"]
    with subprocess.Popen([*command, *serve], cwd=tmp_path, env=clean, start_new_session=True) as process:
        try:
            body = json.loads((folders[0] / "serving_input_example.json").read_text())
            assert asked_for(f"http://127.0.0.1:{port}/invocations", body, process) == {"predictions": expected[0]}
        finally:
            os.killpg(process.pid, signal.SIGKILL)


def _with_half_a_booster(model: Path) -> Path:
    """A copy of a logged model in which one of LightGBM's texts breaks off."""
    copy = shutil.copytree(model, model.with_name(f"{model.name}-half"))
    booster = next(copy.glob("data/model/*.txt"))
    booster.write_text(booster.read_text()[: booster.stat().st_size // 2])
    return copy


def asked_for(address: str, body: Any, process: subprocess.Popen[Any]) -> Any:
    """What a server answers once it is there."""
    for _ in range(600):
        assert process.poll() is None
        with suppress(httpx.ConnectError):
            return httpx.post(address, json=body, timeout=60).json()
        time.sleep(0.2)
    pytest.fail("not there within two minutes")


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_names_what_it_was_made_with(kind: str, world: World) -> None:
    """Requirements are the versions that are installed, none of them this project; a data set by name and digest."""
    folder = Path(mlflow.artifacts.download_artifacts(f"models:/world.{kind}@champion"))
    pins = dict(line.split("==") for line in (folder / "requirements.txt").read_text().split())
    assert {"lightgbm", "numpy", "scipy", "pandas", "mlflow"} <= pins.keys()
    assert {name: version(name) for name in pins} == pins
    assert not {name for name in pins if name.startswith("perennial")}
    (learnt,) = run_of(world, kind).inputs.dataset_inputs
    assert (learnt.dataset.name, learnt.tags[0].value) == (f"world.{kind} 2024-07-01", "training")
    assert re.fullmatch("[0-9a-f]{32}", learnt.dataset.digest)
    named = [column["name"] for column in json.loads(learnt.dataset.schema)["mlflow_colspec"]]
    assert named == list(kind_of(kind).columns(world.workspace))


def test_a_changed_model_is_refused_before_it_is_read(world: World, tmp_path: Path) -> None:
    """LightGBM would end the process at half a file; what was not registered is named, and answers nothing."""
    model = ChurnModel.load(registry.model_folder(world.tracker, world.versions["churn"]))
    elsewhere, grade = world.workspace.model_copy(update={"name": "changed"}), Grade("none", "a test")
    training = tracking.Training(CHURN, TRAINED_AT, [], "hash", "data", {}, lambda folder: None, grade)
    made = tracking.record(world.tracker, elsewhere, training, model, "key")
    folder = registry.model_folder(world.tracker, made)
    kept, booster = folder.rename(tmp_path / "kept"), (folder / "booster.txt")
    text = (kept / "booster.txt").read_text()
    changes: dict[str, Callable[[], Any]] = {
        "booster.txt changed since": lambda: booster.write_text(text[: len(text) // 2]),
        "booster.txt, digests.json, model.json changed": lambda: [path.write_text("{}") for path in folder.iterdir()],
        "another.txt changed": lambda: (folder / "another.txt").write_text(text),
        "booster.txt changed since, in": booster.unlink,
    }
    for said, change in changes.items():
        shutil.copytree(kept, folder)
        change()
        with pytest.raises(ChangedModel, match=f"changed.churn/1 is not what was registered: {said}"):
            registry.model_folder(world.tracker, made)
        shutil.rmtree(folder)
    shutil.copytree(kept, folder)
    assert registry.model_folder(world.tracker, made) == folder


def test_a_version_of_before_there_were_digests_still_answers(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """It cannot be told from what it was; the log says so."""
    earlier = world.tracker.get_model_version("world.churn", world.versions["churn"].version)
    del earlier.tags[registry.DIGESTS]
    with caplog.at_level(logging.WARNING, "perennial"):
        assert (registry.model_folder(world.tracker, earlier) / "model.json").exists()
    assert "registered without digests" in caplog.text


def test_the_same_training_is_not_done_twice(world: World) -> None:
    """Asked again, the registry answers with the versions it has, and each kind has still one."""
    said: list[str] = []
    again = pipelines.train(world.store, world.workspace, world.tracker, TRAINED_AT, progress=said.append)
    assert {kind: v.version for kind, v in again.items()} == {kind: v.version for kind, v in world.versions.items()}
    assert all("was trained on the same data and settings before" in line for line in said)
    for kind in KINDS:
        assert len(world.tracker.search_model_versions(f"name = 'world.{kind}'")) == 1


def key(workspace: Workspace, kind: str = "churn", as_of: date = TRAINED_AT, data: str = "data") -> str:
    return tracking.training_key(workspace, kind, as_of, data)


@pytest.mark.parametrize(
    ("group", "change"),
    [("churn", {"horizon": 61}), ("churn", {"active_window": 300}), ("lifetime_value", {"discount_rate": 0.1}),
     ("cross_sell", {"level": "item"}), ("training", {"seed": 8}), ("training", {"cutoffs": 4})],
)  # fmt: skip
def test_a_setting_that_shapes_the_models_calls_for_another_training(
    group: str, change: dict[str, Any], world: World
) -> None:
    """Another horizon, seed or number of cutoffs would give another model."""
    other = world.workspace.model_copy(update={group: getattr(world.workspace, group).model_copy(update=change)})
    assert key(other) != key(world.workspace)


def test_data_date_and_kind_belong_to_the_key(world: World) -> None:
    """Other tables, another as_of or another kind are another training."""
    keys = {key(world.workspace), key(world.workspace, data="other"), key(world.workspace, as_of=date(2024, 7, 2))}
    assert len({*keys, key(world.workspace, kind="lifetime_value")}) == 4


def test_a_remark_in_the_code_calls_for_no_other_training(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A comment or a docstring makes no other model; a number in a pipeline or in the mathematics does."""
    for folder in ("features", "training"):
        shutil.copytree(tracking.ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    keys, codes = [key(world.workspace)], [tracking.code()]
    monkeypatch.setattr(tracking, "ROOT", tmp_path)
    for more in ('\n\n# A remark.\n"""And more."""\n', "\n\n_MORE = 1\n"):
        path = tmp_path / "training" / "models" / "churn_model.py"
        path.write_text(path.read_text() + more)
        keys, codes = [*keys, key(world.workspace)], [*codes, tracking.code()]
    assert keys[0] == keys[1] != keys[2]
    assert codes[0] == codes[1] != codes[2]


@pytest.mark.parametrize(
    "file", ["models/value_model.py", "learning/churn.py", "learning/labels.py", "backtests/choice.py"]
)
def test_what_a_model_comes_from_is_its_recipe(file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever a module lies that learns or chooses: another one makes another model."""
    shutil.copytree(tracking.ROOT / "training", tmp_path / "training", ignore=shutil.ignore_patterns("__pycache__"))
    before = tracking.code()
    monkeypatch.setattr(tracking, "ROOT", tmp_path)
    assert tracking.code() == before
    path = tmp_path / "training" / file
    path.write_text(path.read_text() + "\n\n_MORE = 1\n")
    assert tracking.code() != before


def test_what_no_model_depends_on_calls_for_no_other_training(world: World) -> None:
    """Bands, the service's port, the home folder and the drift limit leave the key as it is."""
    same = world.workspace.model_copy(
        update={
            "home": "elsewhere",
            "bands": world.workspace.bands.model_copy(update={"high": 0.9}),
            "service": world.workspace.service.model_copy(update={"port": 1}),
            "monitoring": world.workspace.monitoring.model_copy(update={"drifted_share": 0.9}),
        }
    )
    assert key(same) == key(world.workspace)


def test_what_is_logged_goes_to_the_client_that_is_given(world: World, tmp_path: Path) -> None:
    """Two registries in one process: a client made later, for another one, turns nothing away from the first."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", new_registry(tmp_path / "other.db"))
        other = registry.client()
    grade, elsewhere = Grade("none", "a test"), world.workspace.model_copy(update={"name": "twofold"})
    model = ChurnModel.load(registry.model_folder(world.tracker, world.versions["churn"]))
    training = tracking.Training(CHURN, TRAINED_AT, [], "hash", "data", {}, lambda folder: None, grade)
    version = tracking.record(world.tracker, elsewhere, training, model, "key")
    assert tracking.artifacts(world.tracker, str(version.run_id)).is_dir()
    assert not other.search_registered_models()
    assert other.get_experiment_by_name("twofold") is None


def test_no_secret_gets_into_a_run(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The password of a source database is in the environment, and in no file, parameter or tag of MLflow."""
    monkeypatch.setenv("SHOP_DATABASE", "postgresql://shop:hunter2@db/shop")
    lines = {"database": "${SHOP_DATABASE}", "table": "lines"}
    workspace = settings.parse({"name": "secretive", "tables": {"transactions": lines}}, "the tests")
    model = churn.fit(world.data, world.workspace, (), world.data.current)
    grade, nan = Grade("none", "a test"), float("nan")
    training = tracking.Training(CHURN, TRAINED_AT, [], "hash", "data", {"auc": nan}, lambda folder: None, grade)
    version = tracking.record(world.tracker, workspace, training, model, "key")
    run = world.tracker.get_run(version.run_id)
    folder = Path(mlflow.artifacts.download_artifacts(run_id=version.run_id))
    kept = [path.read_text() for path in folder.rglob("*") if path.is_file()]
    assert kept
    assert not [text for text in (*kept, str(run.to_dictionary())) if "hunter2" in text]
    assert run.data.metrics == {}


@pytest.mark.parametrize("kind", KINDS)
def test_a_version_carries_its_grade_and_why(kind: str, world: World) -> None:
    """The service and the promotion read both from the version; the run has the same."""
    version, run = world.versions[kind], run_of(world, kind)
    assert version.tags["grade"] in {"A", "B", "C", "none"}
    assert f"({ORDER[kind]}) is {run.data.metrics[ORDER[kind]]:.3f}" in version.tags["grade_reason"]
    assert {name: run.data.tags[name] for name in ("grade", "grade_reason")} == {
        name: version.tags[name] for name in ("grade", "grade_reason")
    }


def test_a_model_without_outcomes_says_so(world: World) -> None:
    """A run that nothing could judge has no figures and no pictures; its grade is none, and the reason says why."""
    early = date(2023, 1, 10)
    snapshot.snapshot(world.workspace, [early])
    said: list[str] = []
    version = pipelines.train(world.store, world.workspace, world.tracker, early, ["churn"], said.append)["churn"]
    run = world.tracker.get_run(version.run_id)
    assert version.tags["grade"] == "none"
    assert "no earlier date could be judged. Learnt from purchase histories alone" in version.tags["grade_reason"]
    assert "no window of 65 days has closed with 200 days of history before it" in version.tags["grade_reason"]
    assert any("grade none: no earlier date" in line for line in said)
    assert run.data.metrics == {}
    assert run.data.params["cutoffs"] == ""
    assert ChurnModel.load(registry.model_folder(world.tracker, version)).booster is None
