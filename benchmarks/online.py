"""Publishing and reading online: our packed vectors beside Feast's own layout of a column per feature, on both stores.

    python -m benchmarks.online                        # 100,000 customers
    python -m benchmarks.online --customers 1000000    # ours at full size; Feast's layout keeps to 20,000, as it says

Every contender is a process of its own, on made-up snapshots of as many customers and 130 features. Ours are written
by `publish` and read as the service reads them, Feast's by `write_to_online_store` and `get_online_features`. Redis is
the one at PERENNIAL_BENCH_REDIS (redis://127.0.0.1:6379/8 if unset); what was written to it is removed again.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from benchmarks import figures, needs, tables
from features import online, publications, retrieval, snapshot
from workspace import settings, storage
from workspace.settings import Workspace

if TYPE_CHECKING:
    from feast import FeatureStore

AS_OF = date(2024, 1, 1)
_NAME = "perennial_bench"
_ATTRIBUTES = [f"a{number:02}" for number in range(17)]  # with the catalogue's own features, about 130
_COLUMNS_AT_MOST = 20_000
_COLUMNS_BLOCK = 5_000
_READS = {1: 1000, 100: 200}  # customers in a read: how many reads


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--customers", type=int, default=100_000)
    parser.add_argument("--contender", nargs=3, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.contender:
        print(json.dumps(_contend(*asked.contender, asked.customers)))
        return
    needs.refuse_without(redis=True)
    load = os.getloadavg()[0]
    measured = [
        _measured(layout, store, customers)
        for layout, customers in (("packed", asked.customers), ("columns", min(asked.customers, _COLUMNS_AT_MOST)))
        for store in ("sqlite", "redis")
    ]
    print(f"{measured[0]['features']} features a customer; load before: {load:.1f} on {os.cpu_count()} cores")
    print(tables.online({"figures": measured}))
    figures.write("online", {"load": load, "figures": measured})


def _measured(layout: str, store: str, customers: int) -> dict[str, Any]:
    """One contender's row, from a process that does nothing else; the snapshots are there before it starts."""
    with tempfile.TemporaryDirectory() as home:
        _snapshots(_workspace(Path(home), store), customers)
        command = [sys.executable, "-W", "ignore", "-m", "benchmarks.online", "--customers", str(customers)]
        done = subprocess.run(
            [*command, "--contender", layout, store, home], stdout=subprocess.PIPE, text=True, check=True
        )
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _contend(layout: str, kind: str, home: str, customers: int) -> dict[str, Any]:
    warnings.simplefilter("ignore")
    workspace = _workspace(Path(home), kind)
    store, before = retrieval.apply(workspace), _stored(workspace)
    try:
        seconds, read = {"packed": _packed, "columns": _columns}[layout](store, workspace)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        size = _stored(workspace) - before
        times = {count: _milliseconds(read, count, repeats, customers) for count, repeats in _READS.items()}
    finally:
        _clear(workspace)
    return {
        "layout": layout, "store": kind, "customers": customers, "seconds": seconds, "rows/s": customers / seconds,
        "MB": size / 1e6, "peak MB": peak,
        **{f"{n} p{share}, ms": float(np.percentile(times[n], share)) for n in _READS for share in (50, 99)},
        "features": len(snapshot.customer_features(workspace)),
    }  # fmt: skip


def _packed(store: FeatureStore, workspace: Workspace) -> tuple[float, Callable[[list[str]], object]]:
    start = time.perf_counter()
    online.publish(store, workspace, AS_OF, lambda message: print(message, file=sys.stderr))
    seconds = time.perf_counter() - start
    publication = publications.published(workspace.home_path)
    assert publication is not None
    return seconds, lambda ids: online.online_rows(store, workspace, publication, ids)


def _columns(store: FeatureStore, workspace: Workspace) -> tuple[float, Callable[[list[str]], object]]:
    """Feast's layout. The snapshots are read beforehand, outside the time; ours are read within it."""
    from feast import FeatureView, Field, FileSource
    from feast.types import Float32

    from features.repo.definitions import CUSTOMER

    names = [feature.name for feature in snapshot.customer_features(workspace)]
    parts = [storage.snapshot_part(workspace.home_path, family, AS_OF) for family in snapshot.CUSTOMER_FAMILIES]
    rows = pd.concat(
        [pd.read_parquet(part).set_index(["customer_id", "as_of"]) for part in parts], axis=1
    ).reset_index()
    path = (parts[0] / "*.parquet").as_posix()
    view = FeatureView(
        name="columns", entities=[CUSTOMER], schema=[Field(name=name, dtype=Float32) for name in names],
        source=FileSource(name="columns", path=path, timestamp_field="as_of"), ttl=timedelta(0),
    )  # fmt: skip
    store.apply([CUSTOMER, view])
    start = time.perf_counter()
    for first in range(0, len(rows), _COLUMNS_BLOCK):
        store.write_to_online_store("columns", rows.iloc[first : first + _COLUMNS_BLOCK])
    seconds = time.perf_counter() - start
    refs = [f"columns:{name}" for name in names]
    return seconds, lambda ids: store.get_online_features(refs, [{"customer_id": i} for i in ids]).to_dict()


def _milliseconds(read: Callable[[list[str]], object], count: int, repeats: int, customers: int) -> list[float]:
    """How long reads of so many customers take, others every time; the first ten warm up."""
    random, times = np.random.default_rng(7), []
    for _ in range(repeats + 10):
        ids = [_id(int(number)) for number in random.integers(0, customers, count)]
        start = time.perf_counter()
        read(ids)
        times.append((time.perf_counter() - start) * 1000)
    return times[10:]


def _workspace(folder: Path, kind: str) -> Workspace:
    tables = {name: {"path": "nowhere.parquet"} for name in ("transactions", "customers")}
    wanted = {"name": _NAME, "home": str(folder), "tables": tables, "attributes": _ATTRIBUTES}
    return settings.parse(wanted | {"online": needs.REDIS if kind == "redis" else "sqlite"}, "the benchmark")


def _id(number: int) -> str:
    return f"customer-{number:08}"


def _snapshots(workspace: Workspace, customers: int) -> None:
    """A part per family with random figures, a fifth of them null."""
    figure = "CASE WHEN hash(range, '{0}') % 5 > 0 THEN (random() * 1000)::FLOAT END AS \"{0}\""
    with storage.connect(workspace.home_path) as connection:
        for family in snapshot.CUSTOMER_FAMILIES:
            columns = ", ".join(figure.format(feature.name) for feature in snapshot.features_of(family, workspace))
            query = (
                f"SELECT printf('customer-%08d', range) AS customer_id, TIMESTAMPTZ '{AS_OF} 00:00+00' AS as_of,"
                f" {columns} FROM range({customers}) ORDER BY customer_id"
            )
            part = storage.snapshot_part(workspace.home_path, family, AS_OF)
            storage.copy_to(connection, query, part / "part.parquet")


def _stored(workspace: Workspace) -> int:
    """Bytes that the online store takes."""
    if workspace.online == "sqlite":
        return (workspace.home_path / "feast" / "online.db").stat().st_size
    return int(_redis(workspace).info("memory")["used_memory"])


def _clear(workspace: Workspace) -> None:
    if workspace.online != "sqlite":
        client = _redis(workspace)
        with client.pipeline(transaction=False) as pipe:
            for number, key in enumerate(client.scan_iter(f"*{_NAME}", count=10_000)):
                pipe.unlink(key)
                if number % 10_000 == 0:
                    pipe.execute()
            pipe.execute()


def _redis(workspace: Workspace) -> Any:
    import redis

    return redis.Redis.from_url(workspace.online)


if __name__ == "__main__":
    main()
