"""The service under load, beside three others on the same machine: how long answers take, how many a second.

    python -m benchmarks.service                          # 100,000 customers; SQLite and Redis
    python -m benchmarks.service --customers 5000 --seconds 3 --only ours-sqlite,empty

A made-up shop is run once (`var/bench_service`) and kept. Contenders, each a process of its own, started, warmed up,
measured and stopped in turn, with the client on the same cores:

- ours-sqlite, ours-redis: `perennial serve`, one worker;
- empty: BentoML with one endpoint that does nothing;
- mlflow: `mlflow models serve` for the churn model, its features by Feast's `get_online_features` in the client, as a
  CRM would have to;
- fastapi: plain FastAPI that reads the same rows and calls the same predictor.

Closed loop: wrk (`apt-get install wrk`) at 1, 8 and 64 connections. Open loop: requests at a steady rate whatever came
back, times counted from when each was due. Clients are light, since they share the cores. Redis is the one at
PERENNIAL_BENCH_REDIS (redis://127.0.0.1:6379/8).
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import numpy as np
import pandas as pd

from benchmarks import figures, needs
from workspace import settings, storage
from workspace.settings import Workspace

_SHOP = Path("var/bench_service")
_NOTED = _SHOP / "customers.json"
AS_OF = "2025-01-01"
KEY = "bench"
PORT = 3917
_CONNECTIONS = (1, 8, 64)
_HEADERS = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
_RATE = 100  # a second, of the open loop
CONTENDERS = ("ours-sqlite", "ours-redis", "empty", "fastapi", "mlflow")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--customers", type=int, default=100_000)
    parser.add_argument("--seconds", type=int, default=10, help="of each measurement")
    parser.add_argument("--listed", type=int, default=1_000_000, help="scores that list pages are taken from")
    parser.add_argument("--only", default=",".join(CONTENDERS), help="contenders, between commas")
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.contender:
        _contend(asked.contender)
        return
    needs.refuse_without(["wrk"], redis=True, minutes=_minutes(asked.customers, asked.seconds, asked.only.split(",")))
    ids = shop(asked.customers)
    load = os.getloadavg()[0]
    print(f"load before: {load:.1f} on {os.cpu_count()} cores; {asked.customers:,} customers")
    found: dict[str, Any] = {}
    for name in asked.only.split(","):
        rows = _measured(name, ids, asked.seconds)
        found[name] = _by_question(rows)
        print(pd.DataFrame(rows).to_string(index=False, float_format=lambda x: f"{x:,.1f}"), flush=True)
    pages = _pages(asked.listed)
    print(f"\na page of 100 out of {asked.listed:,} scores, without the service around it; milliseconds")
    print(pd.DataFrame(pages).to_string(index=False, float_format=lambda x: f"{x:,.1f}"))
    figures.write("service", found | {"load": load, "pages": pages})


def _minutes(customers: int, seconds: int, contenders: Sequence[str]) -> int:
    """About: making the shop, where it is not there, and asking each contender."""
    questions = {"ours-sqlite": 4, "ours-redis": 4, "empty": 1}
    asking = sum(questions.get(name, 2) for name in contenders) * (len(_CONNECTIONS) + 1) * (seconds + 1) / 60
    return round(asking + (0 if _is_there(customers) else customers / 10_000))


def workspace_file() -> Path:
    return _SHOP / "shop.yaml"


def workspace(store: str = "sqlite") -> Workspace:
    """The benchmark's shop with its features on one store or the other, each with a home of its own."""
    changes = [f"online={needs.REDIS}"] if store == "redis" else []
    return settings.read(workspace_file(), changes, _SHOP / f"home-{store}")


def shop(customers: int) -> list[str]:
    """The shop of so many customers, run to the end and published to both stores, if it is not there yet."""
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{_SHOP.resolve()}/mlflow.db"  # it goes with the shop
    if not _is_there(customers):
        shutil.rmtree(_SHOP, ignore_errors=True)
        world = _SHOP / "world"
        _SHOP.mkdir(parents=True)
        perennial("simulate", str(world), "--customers", str(customers), "--years", "3", "--seed", "7")
        demo = Path("configs/demo.yaml").read_text().replace("var/demo_world", str(world))
        workspace_file().write_text(demo.replace("name: demo", "name: bench_service"))
        run = ["-c", str(workspace_file()), "--as-of", AS_OF]
        perennial("run", *run, "--home", str(_SHOP / "home-sqlite"))
        shutil.copytree(_SHOP / "home-sqlite", _SHOP / "home-redis")
        perennial("publish", *run, "--home", str(_SHOP / "home-redis"), "--set", f"online={workspace('redis').online}")
        storage.write_json(_NOTED, customers)
    scores = pd.read_parquet(next((_SHOP / "home-sqlite" / "scores").glob("*/scores.parquet")))
    return [str(one) for one in scores[scores["not_scored_reason"].isna()]["customer_id"].sample(1000, random_state=7)]


def _is_there(customers: int) -> bool:
    return _NOTED.exists() and bool(storage.read_json(_NOTED) == customers)


def perennial(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "perennial", *arguments], check=True)


# The servers


@contextmanager
def server(
    command: Sequence[str], ready: str, port: int = PORT, **environment: str
) -> Iterator[subprocess.Popen[bytes]]:
    """A server as a process of its own, once it is ready."""
    start = time.perf_counter()
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # MLflow looks there for uvicorn
    env = {**os.environ, "PATH": path, "PERENNIAL_API_KEY": KEY, "BENTOML_DO_NOT_TRACK": "true", **environment}
    with tempfile.TemporaryFile() as log, subprocess.Popen(command, env=env, stdout=log, stderr=log) as process:
        try:
            while not _answers(f"http://127.0.0.1:{port}{ready}"):
                if process.poll() is not None or time.perf_counter() - start > 180:
                    log.seek(0)
                    raise RuntimeError(f"{' '.join(command)} did not start: {log.read().decode()[-2000:]}")
                time.sleep(0.1)
            yield process
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2).status_code < 500
    except httpx.HTTPError:
        return False


def serve_command(home: Path, *changes: str) -> list[str]:
    """`perennial serve` for the benchmark's shop in one of its homes, for a caller with one key and no limit."""
    command = [sys.executable, "-m", "perennial", "serve", "-c", str(workspace_file()), "--home", str(home)]
    command += ["--set", "service.rate_limit=1000000"]
    return [*command, "--port", str(PORT), *(part for change in changes for part in ("--set", change))]


def _started(name: str) -> Any:
    own = [sys.executable, "-W", "ignore", "-m", "benchmarks.service", "--contender", name]
    if name.startswith("ours"):
        return server(serve_command(workspace(name.removeprefix("ours-")).home_path), "/readyz")
    if name == "mlflow":
        uri = "models:/bench_service.churn@champion"
        command = [
            sys.executable,
            "-m",
            "mlflow",
            "models",
            "serve",
            "-m",
            uri,
            "-p",
            str(PORT),
            "--env-manager",
            "local",
        ]
        return server(command, "/ping")
    return server(own, "/readyz" if name == "empty" else "/model")


def _contend(name: str) -> None:
    """Runs a contender that is not a command of its own, until it is stopped."""
    import uvicorn

    app = _empty() if name == "empty" else _plain_fastapi()
    uvicorn.run(app, port=PORT, log_level="error")


def _empty() -> Any:
    import bentoml

    @bentoml.service(workers=1)
    class Empty:
        @bentoml.api
        async def nothing(self) -> str:
            return ""

    return Empty.to_asgi()  # type: ignore[attr-defined]


def _plain_fastapi() -> Any:
    from fastapi import Body, FastAPI

    from features import online, publications, retrieval
    from serving.predictor import Predictor
    from workspace import registry

    there = workspace()
    predictor, store = Predictor.load(there, registry.client()), retrieval.open_store(there)
    publication = publications.published(there.home_path)
    assert publication is not None
    app = FastAPI()

    @app.get("/model")
    async def model() -> dict[str, str]:
        return dict(predictor.versions)

    @app.post("/scores")
    async def scores(customer_ids: list[str] = Body(embed=True)) -> dict[str, Any]:  # noqa: B008
        rows = online.online_rows(store, there, publication, customer_ids)
        vectors = np.stack([row.vector for row in rows.values()])
        columns = predictor.score(list(rows), publication.as_of, vectors)
        return {"churn_probability": dict(zip(rows, np.nan_to_num(columns["churn_probability"]).tolist(), strict=True))}

    return app


# The client


def _measured(name: str, ids: Sequence[str], seconds: int) -> list[dict[str, Any]]:
    start = time.perf_counter()
    with _started(name):
        until_ready = time.perf_counter() - start
        print(f"{name}: ready after {until_ready:.1f} s", file=sys.stderr)
        rows = []
        for what, url, bodies in _questions(name, ids):
            for connections in _CONNECTIONS:
                ask = wrk if name != "mlflow" else _with_feast
                ask(url, bodies, connections, 1)
                rows.append(_row(name, what, f"{connections} connections", ask(url, bodies, connections, seconds)))
            if what == "1 customer" and name != "mlflow":  # its callers fetch the features first, in threads
                time.sleep(3)  # what the 64 left behind is done
                rate = f"{_RATE}/s, open"
                rows.append(_row(name, what, rate, asyncio.run(open_loop(url, bodies, _RATE, seconds))))
        return [row | {"ready, s": until_ready} for row in rows]


def _questions(name: str, ids: Sequence[str]) -> Iterator[tuple[str, str, list[bytes]]]:
    """What is asked: its name, the address, and bodies that take turns."""
    base = f"http://127.0.0.1:{PORT}"
    if name == "empty":
        yield "1 customer", f"{base}/nothing", [b"{}"]
        return
    asks_reasons = name.startswith("ours")
    url = f"{base}/v1/scores" if asks_reasons else f"{base}/invocations" if name == "mlflow" else f"{base}/scores"
    for count in (1, 100):
        groups = [list(ids[start : start + count]) for start in range(0, len(ids) - count + 1, count)]
        what = "1 customer" if count == 1 else f"{count} customers"
        yield what, url, [json.dumps({"customer_ids": group}).encode() for group in groups]
        if asks_reasons:
            told = [json.dumps({"customer_ids": group, "explain": True}).encode() for group in groups]
            yield f"{what}, reasons", url, told


def _row(name: str, what: str, load: str, times: Times) -> dict[str, Any]:
    return {"contender": name, "asked": what, "load": load, **times}


def _by_question(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, Times]]:
    """By what was asked, then by load."""
    found: dict[str, dict[str, Times]] = {}
    for row in rows:
        times = {name: figure for name, figure in row.items() if name not in ("contender", "asked", "load")}
        found.setdefault(row["asked"], {})[row["load"]] = times
    return found


Times = dict[str, float]


def wrk(url: str, bodies: Sequence[bytes], connections: int, seconds: int) -> Times:
    """As fast as answers come back."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        headers = "".join(f'wrk.headers["{name}"] = "{value}"\n' for name, value in _HEADERS.items())
        texts = ", ".join(f"[[{body.decode()}]]" for body in bodies)
        script.write(
            f'wrk.method = "POST"\n{headers}local bodies = {{{texts}}}\nlocal turn = 0\n'
            "request = function() turn = turn % #bodies + 1; return wrk.format(nil, nil, nil, bodies[turn]) end\n"
            "done = function(summary, latency) print(string.format('FIGURES %f %f %f %f %d',"
            " latency:percentile(50) / 1000, latency:percentile(95) / 1000, latency:percentile(99) / 1000,"
            " summary.requests / summary.duration * 1e6, summary.errors.status + summary.errors.connect"
            " + summary.errors.read + summary.errors.timeout)) end\n"
        )
        script.flush()
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "-s", script.name, url]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    figures = re.search(r"FIGURES (.*)", said)
    assert figures is not None, said
    return dict(
        zip(("p50, ms", "p95, ms", "p99, ms", "requests/s", "errors"), map(float, figures[1].split()), strict=True)
    )


async def open_loop(url: str, bodies: Sequence[bytes], rate: float, seconds: float) -> Times:
    """At a steady rate, whether answers come back or not; each time counts from when its request was due."""
    times: list[float] = []
    errors = 0

    async def ask(client: aiohttp.ClientSession, body: bytes, due: float) -> None:
        nonlocal errors
        try:
            async with client.post(url, data=body, headers=_HEADERS) as answer:
                await answer.read()
                errors += answer.status != 200
        except (aiohttp.ClientError, TimeoutError):
            errors += 1
        times.append((time.perf_counter() - due) * 1000)

    limits = {"connector": aiohttp.TCPConnector(limit=500), "timeout": aiohttp.ClientTimeout(30)}
    async with aiohttp.ClientSession(**limits) as client:
        start, asked = time.perf_counter(), []
        for number in range(int(rate * seconds)):
            due = start + number / rate
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            asked.append(asyncio.create_task(ask(client, bodies[number % len(bodies)], due)))
        await asyncio.gather(*asked)
    return figures_of(times, time.perf_counter() - start, errors)


def figures_of(times: Sequence[float], seconds: float, errors: int) -> Times:
    p50, p95, p99 = np.percentile(times, (50, 95, 99))
    return {
        "p50, ms": float(p50), "p95, ms": float(p95), "p99, ms": float(p99),
        "requests/s": len(times) / seconds, "errors": float(errors),
    }  # fmt: skip


def _with_feast(_: str, bodies: Sequence[bytes], connections: int, seconds: int) -> Times:
    """Features by `get_online_features`, then `mlflow models serve`, in as many threads as connections."""
    from concurrent.futures import ThreadPoolExecutor

    from features import publications, retrieval

    there = workspace()
    store, publication = retrieval.open_store(there), publications.published(there.home_path)
    assert publication is not None
    until, start = time.perf_counter() + seconds, time.perf_counter()
    names = list(publication.features)

    def ask(first: int) -> tuple[list[float], int]:
        times, errors, turn = [], 0, first
        with closing(http.client.HTTPConnection("127.0.0.1", PORT, timeout=30)) as client:
            while time.perf_counter() < until:
                began, turn = time.perf_counter(), (turn + 1) % len(bodies)
                asked = [{"customer_id": one} for one in json.loads(bodies[turn])["customer_ids"]]
                vectors = store.get_online_features([f"{publication.view}:vector"], asked).to_dict()["vector"]
                body = json.dumps({"dataframe_split": {"columns": names, "data": vectors}})
                client.request("POST", "/invocations", body, {"Content-Type": "application/json"})
                with client.getresponse() as answer:
                    answer.read()
                    errors += answer.status != 200
                times.append((time.perf_counter() - began) * 1000)
        return times, errors

    with ThreadPoolExecutor(connections) as pool:
        done = list(pool.map(ask, range(connections)))
    times = [one for own, _ in done for one in own]
    return figures_of(times, time.perf_counter() - start, sum(errors for _, errors in done))


# Pages of a list


def _pages(customers: int) -> list[dict[str, Any]]:
    """Reading, explaining and encoding a page of 100 out of so many scores: the shop's own, repeated."""
    from features import online, publications, retrieval
    from serving import score_rows
    from serving.lists import churn_risk
    from serving.lists.files import encoded
    from serving.lists.list_query import ListQuery
    from serving.predictor import Predictor
    from serving.reasons import Explainer
    from serving.terms import norms_of
    from workspace import registry

    there = workspace()
    store, publication = retrieval.open_store(there), publications.published(there.home_path)
    assert publication is not None

    def vectors(_: date, ids: Sequence[str]) -> Any:
        rows = online.online_rows(store, there, publication, ids)
        return np.stack([rows[one].vector for one in ids])

    def reasons(ids: Sequence[str]) -> Any:
        return {one: score_rows.reasons(text) for one, text in online.answers(store, publication, ids).items()}

    with tempfile.TemporaryDirectory() as folder:
        large = _enlarged(there, Path(folder), publication.as_of, customers)
        predictor = replace(Predictor.load(there, registry.client()), workspace=large)
        explainer = Explainer(predictor, norms_of(there.home_path, publication.as_of))
        kinds = {
            "with reasons": ListQuery(),
            "without reasons": ListQuery(reasons=False),
            "by churn probability": ListQuery(sort="churn_probability"),
            "of a region": ListQuery(attribute=["region:South"]),
        }

        def page(asked: ListQuery) -> bytes:
            page = churn_risk.page(explainer, publication.as_of, asked, vectors, reasons_of=reasons)
            return b"".join(encoded(page.blocks, "json"))

        return [{"page": what} | _milliseconds(partial(page, asked)) for what, asked in kinds.items()]


def _enlarged(there: Workspace, home: Path, as_of: date, customers: int) -> Workspace:
    """The same workspace in another home, whose list is so long."""
    from serving.lists import churn_risk

    for what in ("tables", "scores"):
        shutil.copytree(there.home_path / what, home / what)
    scores = pd.read_parquet(storage.scores_path(there.home_path, as_of))
    own, random = scores[scores["not_scored_reason"].isna()], np.random.default_rng(7)
    many = pd.concat([own] * -(-customers // len(own)), ignore_index=True).head(customers)
    large = there.model_copy(update={"home": str(home)})
    many = many.assign(value_at_risk=many["value_at_risk"] * random.uniform(0.5, 1.5, len(many)))
    many.to_parquet(home / "many.parquet")
    churn_risk.write_risk(large, as_of, home / "many.parquet")
    return large


def _milliseconds(do: Any) -> Times:
    do()
    times = []
    for _ in range(20):
        start = time.perf_counter()
        do()
        times.append((time.perf_counter() - start) * 1000)
    return {"p50": float(np.percentile(times, 50)), "p95": float(np.percentile(times, 95))}


if __name__ == "__main__":
    main()
