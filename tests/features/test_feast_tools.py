"""Feast's own tools on a workspace: its command line, its UI, a registry in PostgreSQL."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import httpx
import numpy as np
import pytest
from click.testing import CliRunner
from feast import FeatureStore
from feast.cli.cli import cli
from feast.repo_config import load_repo_config
from postgres_server import ADDRESS, schema_for
from redis_server import redis_for

from features import online, publications, retrieval, snapshot, stores
from tests.features.shops import open_shop, random_tables
from workspace.settings import Workspace
from workspace.storage import CheckFailed

ROOT = Path(__file__).resolve().parents[2]
AS_OF = date(2022, 12, 21)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A shop that published to SQLite."""
    workspace = open_shop(tmp_path_factory.mktemp("shop"), random_tables(5), name=f"tools_{os.getpid()}")
    snapshot.snapshot(workspace, [AS_OF])
    online.publish(retrieval.apply(workspace), workspace, AS_OF)
    return workspace


def moved(workspace: Workspace, home: Path, **changes: str) -> Workspace:
    shutil.copytree(workspace.home_path, home)
    return workspace.model_copy(update={"home": str(home), **changes})


def feast(workspace: Workspace, *arguments: object) -> subprocess.Popen[str]:
    """Feast's command line as the notes in `feature_store.yaml` say to call it."""
    command = [Path(sys.executable).with_name("feast"), "-c", "features/repo", *map(str, arguments)]
    environment = {"PERENNIAL_HOME": str(workspace.home_path), "PERENNIAL_WORKSPACE": workspace.name}
    return subprocess.Popen(
        command, env={**os.environ, **environment}, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def test_the_command_line_lists_what_a_workspace_has(workspace: Workspace) -> None:
    """Two variables suffice for the embedded profile: it lists a view per family and the one that is published."""
    published = publications.published(workspace.home_path)
    assert published is not None
    out, problems = (process := feast(workspace, "feature-views", "list")).communicate(timeout=120)
    assert process.returncode == 0, problems
    assert {line.split()[0] for line in out.splitlines()[1:]} == {*snapshot.families(workspace), published.view}


def test_feast_apply_keeps_what_is_published(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """It removes what the definitions lack, and these have all that the registry has, the published view too."""
    monkeypatch.setenv("PERENNIAL_HOME", str(workspace.home_path))
    definitions = runpy.run_path(str(ROOT / "features" / "repo" / "definitions.py"))
    names = {item.name for name, item in definitions.items() if name.startswith("applied_")}
    store = retrieval.open_store(workspace)
    assert {item.name for item in (*store.list_feature_views(), *store.list_feature_services())} <= names


def test_the_command_line_reads_from_redis(workspace: Workspace, tmp_path: Path) -> None:
    """With the configuration that the home holds, Feast answers from the store that the settings name."""
    with redis_for(workspace.name) as address:
        there = moved(workspace, tmp_path / "home", online=address)
        store = retrieval.apply(there)
        online.publish(store, there, AS_OF)
        published = publications.published(there.home_path)
        assert published is not None
        features = ["-f", f"{published.view}:vector", "-f", "profile:tenure_days"]
        asked = ["get-online-features", *features, "-e", "customer_id=c05"]
        configuration = str(there.home_path / "feast" / "feature_store.yaml")
        done = CliRunner().invoke(cli, ["-c", str(ROOT / "features" / "repo"), "-f", configuration, *asked])
        expected = online.online_rows(store, there, published, ["c05"])["c05"].vector
    assert done.exit_code == 0, done.output
    answer = json.loads(done.output)
    np.testing.assert_array_equal(np.float32(answer["vector"][0]), expected)
    assert answer["tenure_days"] == [expected[published.features.index("tenure_days")]]


def test_the_ui_shows_the_workspace(workspace: Workspace) -> None:
    """`feast ui` serves its page, and the registry behind it, with every feature's unit, window and owner."""
    try:
        import grpc  # noqa: F401
    except ImportError as problem:
        message = f"feast ui: {problem}; it comes with feast[grpcio], which `make lock` puts into the lock"
        pytest.fail(message) if os.environ.get("CI") == "true" else pytest.skip(message)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = feast(workspace, "ui", "--host", "127.0.0.1", "--port", port)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
            _wait_for(client, process)
            page = client.get("/")
            projects = client.get("/projects-list.json").json()["projects"]
            views = client.get("/api/v1/feature_views", params={"project": workspace.name}).json()["featureViews"]
    finally:
        process.terminate()
        process.communicate(timeout=30)
    assert "<!doctype html>" in page.text
    assert [project["id"] for project in projects] == [workspace.name]
    features = {feature["name"]: feature for view in views for feature in view["spec"]["features"]}
    assert features["spend_90d"]["tags"] == {"unit": "money", "window": "90 days", "owner": "perennial"}
    assert features["spend_90d"]["description"] == "net spend in the last 90 days"


def _wait_for(client: httpx.Client, process: subprocess.Popen[str]) -> None:
    for _ in range(600):
        assert process.poll() is None, process.communicate()[1]
        try:
            client.get("/")
        except httpx.ConnectError:
            time.sleep(0.1)
        else:
            return
    pytest.fail("feast ui did not answer within a minute")


@pytest.fixture
def schema() -> Iterator[str]:
    """A schema of the PostgreSQL server of this machine that the test has for itself."""
    with schema_for("feast") as engine:
        yield engine.get_execution_options()["schema"]


def test_a_registry_in_postgresql(
    workspace: Workspace, schema: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Definitions lie there, answers come by them, and Feast's tools find it once they are told the password."""
    monkeypatch.setenv("TEST_REGISTRY", f"{ADDRESS}?options=-csearch_path%3D{schema}")
    there = moved(workspace, tmp_path / "home", registry="${TEST_REGISTRY}")
    (there.home_path / "feast" / "registry.db").unlink()
    store = retrieval.apply(there)
    online.publish(store, there, AS_OF)
    published = publications.published(there.home_path)
    assert published is not None
    online.check(store, there, published, publications.expected_hash(there))
    monkeypatch.setenv("PERENNIAL_REGISTRY_PASSWORD", "hush")
    configuration = load_repo_config(ROOT, there.home_path / "feast" / "feature_store.yaml")
    theirs = FeatureStore(config=configuration)
    assert {view.name for view in theirs.list_feature_views()} == {*snapshot.families(there), published.view}
    for registry in (store.registry, theirs.registry):
        registry.write_engine.dispose()
        registry.read_engine.dispose()
    assert not (there.home_path / "feast" / "registry.db").exists()
    assert not [path for path in there.home_path.rglob("*") if path.is_file() and b"hush" in path.read_bytes()]


def test_a_registry_that_is_down_is_a_sentence(workspace: Workspace, tmp_path: Path) -> None:
    """It says which, why and what to do, and shows no password."""
    there = moved(workspace, tmp_path / "home", registry="postgresql://127.0.0.1:1/feast")
    with pytest.raises(CheckFailed, match=r"Feast's registry in PostgreSQL does not answer: .*; start it, or mend"):
        retrieval.apply(there)
    assert stores.online_address(there) == "sqlite"
