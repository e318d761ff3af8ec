"""The desk of a shop of a million customers: how long its pages take, what they weigh, what scores suffer meanwhile.

    python -m benchmarks.desk                                   # 20,000 customers, their files fifty times over
    python -m benchmarks.desk --customers 5000 --copies 2 --seconds 5

The shop of `benchmarks.service` is run; then its tables, days, snapshots and scores are repeated under further ids, and
the service answers from that home. Pages are asked for one after the other by one client, without its browser's time;
beside them stand the sign-in page, which reads nothing, and the paint of each in Chromium. Then scores are asked for at
a steady rate alone, and while twenty people click, each every three seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from playwright.sync_api import BrowserContext, sync_playwright

from benchmarks import figures, needs, service
from serving.lists import churn_risk
from workspace import settings, storage

_VIEWS = 20
_RATE = 50  # requests for scores a second
_PEOPLE, _PAUSE = 20, 3.0  # who click, and the seconds between the clicks of one
_LIST = "/desk/lists/churn-risk"
_CHROMIUM = "/usr/bin/chromium"
Address = Callable[[int], str]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--customers", type=int, default=20_000)
    parser.add_argument("--copies", type=int, default=50)
    parser.add_argument("--seconds", type=int, default=60, help="of scores, alone and with clicks")
    asked = parser.parse_args()
    needs.refuse_without(["chromium"], minutes=round(5 + asked.customers * asked.copies / 250_000 + asked.seconds / 30))
    ids = service.shop(asked.customers)
    home, noted = Path("var/bench_desk"), Path("var/bench_desk.json")
    made = [asked.customers, asked.copies]
    if not (noted.exists() and storage.read_json(noted) == made):
        enlarge(service.workspace().home_path, home, asked.copies)
        storage.write_json(noted, made)
    with service.server(service.serve_command(home), "/readyz"):
        addresses = _addresses(ids)
        pages = _pages(addresses)
        print(pd.DataFrame(pages).to_string(index=False, float_format=lambda figure: f"{figure:,.1f}"), flush=True)
        scores = [
            {"scores": what} | asyncio.run(_scores(ids, asked.seconds, clicked))
            for what, clicked in (("alone", []), (f"with {_PEOPLE} people", [*addresses.values()]))
        ]
    print(f"\nscores at {_RATE} a second, milliseconds")
    print(pd.DataFrame(scores).to_string(index=False, float_format=lambda figure: f"{figure:,.1f}"))
    figures.write("desk", {f"{asked.customers * asked.copies:,} customers": {"pages": pages, "scores": scores}})


def enlarge(source: Path, home: Path, copies: int) -> None:
    """A home with so many times the customers: the first time under their own ids, then under further ones."""
    shutil.rmtree(home, ignore_errors=True)
    shutil.copytree(source, home, ignore=shutil.ignore_patterns("predictions", "judged", "keys.db", "audit*"))
    workspace = settings.of_home(source).model_copy(update={"home": str(home.resolve())})
    settings.keep(workspace)
    with storage.connect(home, memory=8) as connection:
        for path in _of_customers(home):
            noted = {key.decode(): value.decode() for key, value in (pq.read_metadata(path).metadata or {}).items()
                     if not key.startswith(b"ARROW")}  # fmt: skip
            who = "CASE k WHEN 0 THEN customer_id ELSE customer_id || '-' || k END AS customer_id"
            query = f"SELECT * EXCLUDE (k) REPLACE ({who}) FROM {storage.reader([path])}, range({copies}) AS copy(k)"
            storage.copy_to(connection, f"{query} ORDER BY customer_id", path, noted, row_group=32_768)
    as_of = storage.latest_scored(home)
    churn_risk.write_risk(workspace, as_of, storage.scores_path(home, as_of))


def _of_customers(home: Path) -> Iterator[Path]:
    """Parquet files with a row or more for each customer, but for the lists, which are written anew."""
    folders = ("tables/customers", "days", "snapshots", "scores")
    files = [file for folder in folders for file in (home / folder).rglob("*.parquet")]
    return (file for file in files if "customer_id" in pq.read_schema(file).names and "risk-by" not in file.name)


def _addresses(ids: Sequence[str]) -> dict[str, Address]:
    """Of each page; another one for another number, so that nothing is answered from what is kept."""
    return {
        "sign-in (reads nothing)": lambda _: "/desk/sign-in",
        "home": lambda _: "/desk/",
        "list": lambda n: f"{_LIST}?min_value={n / 1000}",
        "list of a band": lambda n: f"{_LIST}?band=high&min_value={n / 1000}",
        "list of a region": lambda n: f"{_LIST}?attribute=region:South&min_value={n / 1000}",
        "list of a category": lambda n: f"{_LIST}?category=tea&min_value={n / 1000}",
        "win back": lambda n: f"/desk/lists/win-back?min_value={n / 1000}",
        "cross-sell": lambda n: f"/desk/lists/cross-sell?item=tea&min_value={n / 1000}",
        "customer": lambda n: f"/desk/customers/{ids[n]}",
    }


def _pages(addresses: dict[str, Address]) -> list[dict[str, Any]]:
    """Milliseconds at the server of twenty views; then by a browser: kilobytes packed, with nothing kept and again,
    and milliseconds to the first paint."""
    rows = []
    with _client() as client, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=_CHROMIUM, args=["--no-sandbox"])
        for name, address in addresses.items():
            times = [_milliseconds(client, address(n)) for n in range(_VIEWS + 1)][1:]
            context = browser.new_context(base_url=_base())
            context.add_cookies(
                [{"name": key, "value": value, "url": f"{_base()}/desk"} for key, value in client.cookies.items()]
            )
            first, painted = _visit(context, address(_VIEWS + 1))
            again, _ = _visit(context, address(_VIEWS + 2))
            context.close()
            rows.append({
                "page": name, "p50": np.percentile(times, 50), "p95": np.percentile(times, 95), "painted": painted,
                "kB first": first, "kB again": again,
            })  # fmt: skip
    return rows


def _base() -> str:
    return f"http://127.0.0.1:{service.PORT}"


@contextmanager
def _client() -> Iterator[httpx.Client]:
    """Somebody who has signed in."""
    with httpx.Client(base_url=_base(), follow_redirects=True, timeout=60) as client:
        client.post("/desk/sign-in", data={"key": service.KEY}).raise_for_status()
        yield client


def _milliseconds(client: httpx.Client, address: str) -> float:
    start = time.perf_counter()
    client.get(address).raise_for_status()
    return (time.perf_counter() - start) * 1000


def _visit(context: BrowserContext, address: str) -> tuple[float, float]:
    """Kilobytes that came, and milliseconds to the first paint.

    Raises:
        RuntimeError: a request left the machine.
    """
    page, sent = context.new_page(), []
    page.on("requestfinished", lambda request: sent.append(request))
    page.goto(address)
    page.wait_for_load_state("networkidle")
    if elsewhere := [request.url for request in sent if not request.url.startswith((_base(), "data:"))]:
        raise RuntimeError(f"{address} asks {elsewhere[0]}")
    weight = sum(request.sizes()["responseBodySize"] for request in sent if not request.url.startswith("data:"))
    painted = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? 0")
    page.close()
    return weight / 1000, float(painted)


async def _scores(ids: Sequence[str], seconds: int, clicked: Sequence[Address]) -> dict[str, float]:
    """Of scores asked for at a steady rate, from when each was due, while people click these pages."""
    with _client() as signed_in:
        cookies = signed_in.cookies
    async with httpx.AsyncClient(base_url=_base(), cookies=cookies, follow_redirects=True, timeout=60) as client:
        start = time.perf_counter()
        people = [
            asyncio.create_task(_click(client, clicked, who, start + seconds)) for who in range(_PEOPLE) if clicked
        ]
        asked = [
            asyncio.create_task(_ask(client, ids[n % len(ids)], start + n / _RATE)) for n in range(seconds * _RATE)
        ]
        times, clicks = await asyncio.gather(*asked), await asyncio.gather(*people)
    of_clicks = [one for own in clicks for one in own]
    return {
        "p50": float(np.percentile(times, 50)), "p99": float(np.percentile(times, 99)), "clicks": len(of_clicks),
        "click p95": float(np.percentile(of_clicks, 95)) if of_clicks else float("nan"),
    }  # fmt: skip


async def _ask(client: httpx.AsyncClient, customer_id: str, due: float) -> float:
    await asyncio.sleep(max(0.0, due - time.perf_counter()))
    headers = {"Authorization": f"Bearer {service.KEY}"}
    (await client.post("/v1/scores", json={"customer_ids": [customer_id]}, headers=headers)).raise_for_status()
    return (time.perf_counter() - due) * 1000


async def _click(client: httpx.AsyncClient, addresses: Sequence[Address], who: int, end: float) -> list[float]:
    times, random = [], np.random.default_rng(who)
    await asyncio.sleep(random.uniform(0, _PAUSE))
    while time.perf_counter() < end:
        start = time.perf_counter()
        (await client.get(addresses[random.integers(len(addresses))](int(random.integers(500))))).raise_for_status()
        times.append((time.perf_counter() - start) * 1000)
        await asyncio.sleep(_PAUSE)
    return times


if __name__ == "__main__":
    main()
