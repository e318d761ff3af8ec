"""Branches: who is limited to a part of the shop is told of that part and of nothing else, by the API and the desk."""

from __future__ import annotations

import asyncio
import csv
import io
import os
import re
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import bentoml
import httpx
import numpy as np
import openpyxl
import pandas as pd
import pytest
from private_shop import answering_from, email
from registries import new_registry
from starlette.testclient import TestClient
from workspaces import AS_OF, run_line, small_workspace

from ingest import intake
from serving.desk import language
from serving.desk.app import desk
from serving.desk.lists import LISTS
from serving.desk.sessions import Sessions
from serving.http.answers import Answers
from serving.http.keys import Caller, Keys, Role
from serving.http.routes import described
from serving.lists import totals
from serving.lists.filters import NoSuchFilter
from serving.scope import WHOLE, Scope, checked
from tests.serving.conftest import NOW, PRIVACY_KEY, Shop
from workspace import settings, storage
from workspace.settings import Service, Workspace
from workspace.storage import CheckFailed

NORTH = "region:north"
# Of the north, of the south, without a region, and nobody's.
INSIDE, OUTSIDE, WITHOUT, NOBODY = "c0201", "c0202", "c0200", "c9999"
LIST = "/desk/lists/churn-risk"

# What a route tells who is limited: of a `customer` in the path or the body, of the `whole` shop, what is `cut` down to
# their part, or what is the `same` for everybody since it tells of no customer.
API = {
    ("POST", "/v1/scores"): "customer",
    ("POST", "/v1/events"): "customer",
    ("GET", "/v1/customers/{customer_id}"): "customer",
    ("GET", "/v1/offers/{customer_id}"): "customer",
    ("PUT", "/v1/customers/{customer_id}/consent"): "customer",
    ("GET", "/v1/customers/{customer_id}/data"): "customer",
    ("DELETE", "/v1/customers/{customer_id}"): "customer",
    ("POST", "/v1/customers/{customer_id}/own-page"): "customer",
    ("DELETE", "/v1/customers/{customer_id}/own-page"): "customer",
    ("GET", "/v1/corrections"): "whole",
    ("DELETE", "/v1/corrections/{correction_id}"): "whole",
    ("GET", "/v1/erasures/{erasure_id}"): "same",
    ("GET", "/v1/lists/churn-risk"): "cut",
    ("GET", "/v1/lists/win-back"): "cut",
    ("GET", "/v1/lists/cross-sell"): "cut",
    ("GET", "/v1/items/{item}/bought-with"): "whole",
    ("GET", "/v1/model"): "same",
}
DESK = {
    ("GET", "/sign-in"): "same",
    ("POST", "/sign-in"): "same",
    ("GET", "/sign-in/company"): "same",
    ("GET", "/sign-in/company/back"): "same",
    ("POST", "/sign-out"): "same",
    ("GET", "/files/{content}/{name}"): "same",
    ("GET", "/"): "cut",
    **{("GET", f"/lists/{name}{ending}"): "cut" for name in LISTS for ending in ("", ".xlsx")},
    **{("POST", f"/lists/{name}/{what}"): "whole" for name in LISTS for what in ("save", "remove")},
    ("GET", "/corrections"): "whole",
    ("POST", "/corrections"): "whole",
    ("GET", "/customers"): "customer",
    ("POST", "/customers"): "customer",
    ("GET", "/customers/{customer_id:escaped}/erase"): "customer",
    ("POST", "/customers/{customer_id:escaped}/erase"): "customer",
    ("GET", "/customers/{customer_id:escaped}"): "customer",
    ("POST", "/customers/{customer_id:escaped}/consent"): "customer",
    ("GET", "/customers/{customer_id:escaped}/lineage"): "customer",
    ("POST", "/customers/{customer_id:escaped}/own-page"): "customer",
    ("GET", "/trust"): "cut",
    **{("GET", f"/trust/{page}"): "whole" for page in ("data", "drift", "models/{kind}")},
    **{("POST", f"/trust/models/{{kind}}/{what}"): "whole" for what in ("promote", "leave", "rollback")},
    **{(method, "/jobs"): "whole" for method in ("GET", "POST")},
    ("GET", "/jobs/{number:int}"): "whole",
    ("GET", "/reports/{name:path}"): "whole",
}
ROLES: tuple[Role, ...] = ("crm", "marketing", "admin")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """One whose customers have a region, or none, a channel and an e-mail address."""
    folder = tmp_path_factory.mktemp("branches")
    small_workspace(folder)
    described_customers(folder).to_csv(folder / "customers.csv", index=False)
    attributes = ["attributes=[region, channel]", "pii=[email]"]
    workspace = settings.read(folder / "workspace.yaml", attributes, home=folder / "home")
    shop = Shop(workspace, new_registry(folder / "mlruns" / "mlflow.db"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", shop.tracking_uri)
        patch.setenv("PERENNIAL_PRIVACY_KEY", PRIVACY_KEY)
        run_line(workspace)
    return shop


def described_customers(folder: Path) -> pd.DataFrame:
    customers = pd.read_csv(folder / "customers.csv", dtype={"customer_id": str})
    numbers = np.arange(len(customers))
    region = np.array(["north", "south", None], dtype=object)[numbers % 3]
    channel = np.where(numbers % 2 == 0, "web", "store")
    return customers.assign(region=region, channel=channel, email=[email(one) for one in customers["customer_id"]])


@pytest.fixture(scope="module")
def service(app: Any, environment: pytest.MonkeyPatch) -> Iterator[TestClient]:
    with TestClient(app) as client:
        yield client


@pytest.fixture
def answers(service: TestClient) -> Iterator[Answers]:
    service.cookies.clear()
    yield bentoml.get_current_service().answers
    service.cookies.clear()


@pytest.fixture
def customers(shop: Shop) -> pd.DataFrame:
    return described_customers(shop.workspace.home_path.parent).set_index("customer_id")


@contextmanager
def own_shop(shop: Shop, folder: Path) -> Iterator[tuple[Workspace, Answers]]:
    """A copy of the shop, to be changed, which the service answers from."""
    shutil.copytree(shop.workspace.home_path.parent, folder / "own")
    home = folder / "own" / "home"
    tables = {name: str(folder / "own" / Path(table["path"][0]).name) for name, table in _tables(home).items()}
    raw = storage.read_json(settings.kept(home))
    raw["tables"] = {name: table | {"path": tables[name]} for name, table in raw["tables"].items()}
    workspace = settings.parse(raw | {"home": str(home)}, "own")
    settings.keep(workspace)
    with answering_from(home) as answers:
        yield workspace, answers


def _tables(home: Path) -> dict[str, Any]:
    return dict(storage.read_json(settings.kept(home))["tables"])


def key_of(answers: Answers, role: Role, *rules: str, contacts: bool = False) -> str:
    return Keys(answers.home).add(role, NOW, contacts, scope=Scope.of(rules))


def ask(service: TestClient, key: str, method: str, path: str, customer_id: str = INSIDE) -> httpx.Response:
    """A route of the API, about one customer where it is about customers."""
    filled = path.format(customer_id=customer_id, item="tea", erasure_id="0" * 16, correction_id="0")
    purchase = {
        "transaction_id": f"of-{customer_id}", "customer_id": customer_id, "lines": [{"amount": 3.5}],
        "occurred_at": (NOW - timedelta(hours=2)).isoformat(),
    }  # fmt: skip
    bodies: dict[str, Any] = {
        "/v1/scores": {"customer_ids": [customer_id]},
        "/v1/events": {"purchases": [purchase]},
        "/v1/customers/{customer_id}/consent": {"profiling": True},
    }
    return service.request(method, filled, json=bodies.get(path), headers=bearer(key))


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def sign_in(service: TestClient, key: str) -> str:
    """The token that forms of this session take."""
    service.cookies.clear()
    service.post("/desk/sign-in", data={"key": key}, follow_redirects=False)
    (token, *_) = re.findall(r'name="form_token" value="(\w+)"', service.get("/desk/").text)
    return str(token)


def view(service: TestClient, token: str, method: str, path: str, customer_id: str = INSIDE) -> httpx.Response:
    """A page of the desk, about one customer where it is about customers."""
    name = "nothing.html" if path.startswith("/reports") else "desk.css"
    filled = re.sub(r":\w+\}", "}", path).format(
        customer_id=customer_id, name=name, content="0", kind="churn", number=1
    )
    sent = {"form_token": token, "purpose": "profiling", "agreed": "yes", "name": "a list", "rules": "band=high"}
    if path == "/customers":
        sent["id"] = customer_id
    if path.endswith("/erase"):
        sent["typed"] = f"not {customer_id}"
    query = {"id": customer_id} if path == "/customers" else {}
    more: dict[str, Any] = {"data": sent} if method == "POST" else {"params": query}
    plain = {"Accept-Encoding": "identity"}  # packed, a page is as long as its id packs
    return service.request(method, f"/desk{filled}", headers=plain, follow_redirects=False, **more)


def told(answer: httpx.Response, customer_id: str) -> tuple[int, bytes, dict[str, str]]:
    """All that reaches whoever asked, whoever was asked about."""
    headers = {name: value for name, value in answer.headers.items() if name not in ("date", "x-request-id")}
    return answer.status_code, answer.content.replace(customer_id.encode(), b"X"), headers


def listed(service: TestClient, key: str, **query: Any) -> list[dict[str, Any]]:
    answer = service.get("/v1/lists/churn-risk", params={"top": 10_000, **query}, headers=bearer(key))
    assert answer.status_code == 200, answer.text
    return list(answer.json())


def of_list(service: TestClient, key: str, name: str) -> list[dict[str, Any]]:
    query = {"top": 10_000, **({"unproven_offers": "true"} if name == "cross-sell" else {})}
    return list(service.get(f"/v1/lists/{name}", params=query, headers=bearer(key)).json())


def ids_on(page: httpx.Response) -> list[str]:
    return re.findall(r'<th scope="row"><a href="/desk/customers/[^"]+"><bdi>(.*?)</bdi>', page.text)


# Every route


def test_no_route_is_forgotten(service: TestClient) -> None:
    """Whoever adds one says here what it tells those who are limited to a part of the shop."""
    paths = described("1", "")["paths"]
    assert {(method.upper(), path) for path, of in paths.items() for method in of if path.startswith("/v1")} == {*API}
    pages = {(method, route.path) for route in desk.routes for method in route.methods - {"HEAD"}}  # type: ignore[attr-defined]
    assert pages == {*DESK}


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(("method", "path"), API)
def test_a_route_tells_who_is_limited_their_part(
    service: TestClient, answers: Answers, role: Role, method: str, path: str
) -> None:
    """What a role may not do, its scope does not let it do; whoever is outside is as unknown as nobody."""
    unlimited, limited = key_of(answers, role), key_of(answers, role, NORTH)
    is_erasure = (method, path) == ("DELETE", "/v1/customers/{customer_id}")
    by_all, by_part = (
        ask(service, key, method, path, NOBODY if is_erasure else INSIDE) for key in (unlimited, limited)
    )
    if by_all.status_code == 403 or API[method, path] == "whole":
        assert by_part.status_code == 403
        assert ("whole shop" in by_part.text) == (by_all.status_code != 403)
        return
    assert by_part.status_code == by_all.status_code, by_part.text
    assert by_part.status_code < 300 or is_erasure or "erasures" in path
    if API[method, path] == "customer":
        unknown = told(ask(service, limited, method, path, NOBODY), NOBODY)
        assert unknown[0] in (400, 404)
        for other in (OUTSIDE, WITHOUT):
            assert told(ask(service, limited, method, path, other), other) == unknown
            if not is_erasure:
                assert ask(service, unlimited, method, path, other).status_code < 300


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(("method", "path"), [*DESK])
def test_a_page_shows_who_is_limited_their_part(
    service: TestClient, answers: Answers, role: Role, method: str, path: str
) -> None:
    """As the API does."""
    token = sign_in(service, key_of(answers, role))
    by_all = view(service, token, method, path)
    token = sign_in(service, key_of(answers, role, NORTH))
    by_part = view(service, token, method, path)
    if by_all.status_code == 403 or DESK[method, path] == "whole":
        assert by_part.status_code == 403
        assert ("whole shop" in by_part.text) == (by_all.status_code != 403)
        return
    assert by_part.status_code == by_all.status_code
    if DESK[method, path] == "customer":
        unknown = told(view(service, token, method, path, NOBODY), NOBODY)
        for other in (OUTSIDE, WITHOUT):
            assert told(view(service, token, method, path, other), other) == unknown
        assert told(by_part, INSIDE) != unknown


def test_nothing_is_written_down_of_who_is_outside(service: TestClient, answers: Answers) -> None:
    """Neither a consent nor an event, also beside those of somebody inside."""
    limited = key_of(answers, "admin", NORTH)
    assert ask(service, limited, "PUT", "/v1/customers/{customer_id}/consent", "c0205").status_code == 404
    sent = {"form_token": sign_in(service, limited), "purpose": "marketing", "agreed": "no"}
    assert service.post("/desk/customers/c0205/consent", data=sent).status_code == 404
    assert answers.consents.by("c0205") == {}
    purchases = [
        {"transaction_id": f"m-{one}", "customer_id": one, "lines": [{"amount": 1}], "occurred_at": "2023-06-30T09:00Z"}
        for one in (INSIDE, OUTSIDE)
    ]
    answer = service.post("/v1/events", json={"purchases": purchases}, headers=bearer(limited))
    assert (answer.status_code, answer.json()["error"]["details"]["ids"]) == (400, [OUTSIDE])
    accepted = service.post("/v1/events", json={"purchases": purchases[:1]}, headers=bearer(limited)).json()
    assert accepted == {"accepted": 1, "repeated": 0}


def test_of_several_customers_those_inside_are_scored(service: TestClient, answers: Answers) -> None:
    """In the order asked; the others are marked as who is unknown, and the terms are the same."""
    asked = {"customer_ids": [OUTSIDE, INSIDE, NOBODY, WITHOUT], "explain": True, "offers": True}
    by_all, by_part = (
        service.post("/v1/scores", json=asked, headers=bearer(key)).json()
        for key in (key_of(answers, "crm"), key_of(answers, "crm", NORTH))
    )
    outside, inside, nobody, without = by_part["scores"]
    assert inside == by_all["scores"][1]
    assert outside | {"customer_id": "", "error": ""} == nobody | {"customer_id": "", "error": ""}
    assert outside["error"]["code"] == without["error"]["code"] == nobody["error"]["code"] == "unknown_customer"
    assert {**by_part, "scores": []} == {**by_all, "scores": []}


# Lists


@pytest.mark.parametrize(
    ("rules", "inside"),
    [
        ([NORTH], "region == 'north'"),
        (["region:NORTH", "region:south"], "region.notna()"),
        (["region:south", "channel: Web "], "region == 'south' and channel == 'web'"),
        (["region:north", "region:south", "channel:store"], "region.notna() and channel == 'store'"),
    ],
)
def test_a_list_is_the_whole_one_without_the_rest(
    service: TestClient, answers: Answers, customers: pd.DataFrame, rules: list[str], inside: str
) -> None:
    """Of one attribute any value, of several all; the same rows in the same order, page by page and as files."""
    mine = set(customers.query(inside).index)
    whole = listed(service, key_of(answers, "marketing"))
    expected = [row for row in whole if row["customer_id"] in mine]
    assert 10 < len(expected) < len(whole)
    key = key_of(answers, "marketing", *rules, contacts=True)
    rows = listed(service, key)
    assert [{name: row[name] for name in row if name != "email"} for row in rows] == expected
    assert [row["email"] for row in rows] == [email(row["customer_id"]) for row in rows]

    ids, seen, address = [row["customer_id"] for row in expected], [], "/v1/lists/churn-risk?top=17"
    while address:
        page = service.get(address, headers=bearer(key))
        seen += [row["customer_id"] for row in page.json()]
        address = (re.findall(r"<(.*)>", page.headers.get("link", "")) or [""])[0]
    assert seen == ids
    text = service.get("/v1/lists/churn-risk?top=9999&format=csv", headers=bearer(key)).content.decode("utf-8-sig")
    assert [row["customer_id"] for row in csv.DictReader(io.StringIO(text))] == ids


@pytest.mark.parametrize("name", LISTS)
def test_every_list_is_the_whole_one_without_the_rest(
    service: TestClient, answers: Answers, customers: pd.DataFrame, name: str
) -> None:
    """In the API, and as a spreadsheet of the desk."""
    mine = set(customers.query("region == 'north'").index)
    whole = of_list(service, key_of(answers, "marketing"), name)
    key = key_of(answers, "marketing", NORTH)
    rows = of_list(service, key, name)
    assert rows == [row for row in whole if row["customer_id"] in mine]
    assert 0 < len(rows) < len(whole)
    sign_in(service, key)
    query = {"unproven_offers": "true"} if name == "cross-sell" else {}
    book = openpyxl.load_workbook(io.BytesIO(service.get(f"/desk/lists/{name}.xlsx", params=query).content))
    assert [row[0] for row in book["list"].iter_rows(min_row=2, values_only=True)] == [r["customer_id"] for r in rows]
    assert book["about"].cell(2, 1).value.startswith(f"{len(rows)} customers")


def test_the_desks_list_is_the_same(service: TestClient, answers: Answers, customers: pd.DataFrame) -> None:
    """Its sentence, its pages, what can be chosen and its spreadsheet, whoever looked before."""
    for rules, region in (((), None), ((NORTH,), "north"), (("region:south",), "south")):
        key = key_of(answers, "marketing", *rules)
        rows = listed(service, key)
        sign_in(service, key)
        page = service.get(LIST)
        assert f"{len(rows)} customers with" in page.text
        offered = {value for value in ("north", "south") if f'value="region:{value}"' in page.text}
        assert offered == ({region} if region else {"north", "south"})
        seen = ids_on(page)
        while following := re.search(r'href="([^"]+)" rel="next"', page.text):
            page = service.get(following[1].replace("&amp;", "&"))
            seen += ids_on(page)
        assert [one.replace("&amp;", "&") for one in seen] == [row["customer_id"] for row in rows]
        sheet = openpyxl.load_workbook(io.BytesIO(service.get(f"{LIST}.xlsx").content))["list"]
        assert [row[0] for row in sheet.iter_rows(min_row=2, values_only=True)] == [row["customer_id"] for row in rows]
        if region:
            counted = dict(totals.choices(answers.workspace, AS_OF, Scope.of(rules))["channel"])
            channels = customers.loc[[row["customer_id"] for row in rows], "channel"].value_counts()
            assert counted == channels.to_dict()


def test_the_place_where_anothers_page_ended_shows_nobody_of_theirs(service: TestClient, answers: Answers) -> None:
    """A cursor is a place in the order, and opens no list."""
    whole = [row["customer_id"] for row in listed(service, key_of(answers, "marketing"))]
    north, south = (key_of(answers, "marketing", rule) for rule in (NORTH, "region:south"))
    mine = [row["customer_id"] for row in listed(service, north)]
    page = service.get("/v1/lists/churn-risk?top=5", headers=bearer(south))
    place = whole.index(page.json()[-1]["customer_id"])
    (address,) = re.findall(r"<(.*)>", page.headers["link"])
    behind = service.get(address.replace("top=5", "top=9999"), headers=bearer(north)).json()
    assert [row["customer_id"] for row in behind] == [one for one in whole[place + 1 :] if one in mine]


@pytest.mark.parametrize("sent", ["attribute=region:{}", "attribute=region:north&attribute=region:{}"])
def test_a_value_that_nobody_inside_has_is_as_one_that_nobody_has(
    service: TestClient, answers: Answers, sent: str
) -> None:
    """And only those inside are named as the nearest."""
    key = key_of(answers, "marketing", NORTH)
    other, made_up = (
        service.get(f"/v1/lists/churn-risk?{sent.format(value)}", headers=bearer(key)) for value in ("south", "sooth")
    )
    assert told(other, "south") == told(made_up, "sooth")
    assert other.json()["error"]["details"]["nearest"] == ["north"]


def test_a_search_knows_those_inside(service: TestClient, answers: Answers, customers: pd.DataFrame) -> None:
    """By the beginning of an id."""
    sign_in(service, key_of(answers, "crm", NORTH))
    page = service.get("/desk/customers", params={"id": "c02"})
    ids = re.findall(r"<bdi>(c02\d\d)</bdi>", page.text)
    assert ids == [one for one in sorted(customers.query("region == 'north'").index) if one.startswith("c02")][:20]


def test_a_search_by_contact_data_knows_those_inside(service: TestClient, answers: Answers) -> None:
    """Whoever's address is typed, of another part or of nobody."""
    token = sign_in(service, key_of(answers, "crm", NORTH, contacts=True))
    by_address = {
        one: service.post("/desk/customers", data={"form_token": token, "id": email(one)}).text
        for one in (INSIDE, OUTSIDE, WITHOUT, NOBODY)
    }
    assert f"/desk/customers/{INSIDE}" in by_address[INSIDE]
    unknown = by_address[NOBODY].replace(NOBODY, "X")
    assert "No customer" in unknown
    assert by_address[OUTSIDE].replace(OUTSIDE, "X") == by_address[WITHOUT].replace(WITHOUT, "X") == unknown


def test_a_saved_list_is_everybodys_and_shows_each_their_part(service: TestClient, answers: Answers) -> None:
    """One of another part shows nobody."""
    token = sign_in(service, key_of(answers, "marketing"))
    for name, rules in (("high ones", "band=high"), ("the south", "attribute=region:south")):
        service.post("/desk/lists/churn-risk/save", data={"form_token": token, "name": name, "rules": rules})
    key = key_of(answers, "marketing", NORTH)
    sign_in(service, key)
    page = service.get(LIST, params={"band": "high"})
    assert "high ones" in page.text
    assert ids_on(page) == [row["customer_id"] for row in listed(service, key, band="high")][:50]
    other = service.get(LIST, params={"attribute": "region:south"})
    assert (ids_on(other), "no customer has it" in other.text) == ([], True)


# The whole shop


def test_home_and_trust_are_of_their_part(
    service: TestClient, answers: Answers, customers: pd.DataFrame, shop: Shop
) -> None:
    """Counts and money are theirs; what a run noted of the whole shop is not told."""
    scores = pd.read_parquet(storage.scores_path(shop.workspace.home_path, AS_OF))
    scores = scores[scores["customer_id"].isin(customers.query("region == 'north'").index)]
    key = key_of(answers, "admin", NORTH)
    rows = listed(service, key)
    money = sum(row["value_at_risk"] for row in rows)
    sign_in(service, key)
    page = service.get("/desk/").text
    figures = re.findall(r'<p class="figure">(.*?)</p>', page)
    high = (scores["churn_band"] == "high").sum()
    assert figures == [str(len(scores)), language.language("en").money(money, rows[0]["currency"]), str(high)]
    assert f"{scores['not_scored_reason'].isna().sum()} of them have a score" in page
    assert "You see a part of the shop: region:north." in page
    trust = service.get("/desk/trust").text
    for heading in ("What changed", "How right we were", "What needs a look", "Reports", "The model&#39;s card"):
        assert heading not in page + trust
    assert "Who leaves" in trust
    sign_in(service, key_of(answers, "admin"))
    assert "What changed" in service.get("/desk/").text
    assert "The model&#39;s card" in service.get("/desk/trust").text


def test_who_is_limited_erases_in_their_part(service: TestClient, shop: Shop, tmp_path: Path) -> None:
    """At once, or when a command has ended; of the others nothing is erased and nobody waits."""
    with own_shop(shop, tmp_path) as (workspace, answers):
        limited, path = key_of(answers, "admin", NORTH), "/v1/customers/{customer_id}"
        assert ask(service, limited, "DELETE", path, OUTSIDE).status_code == 404
        with storage.locked(workspace.home_path, "a command"):
            assert ask(service, limited, "DELETE", path, OUTSIDE).status_code == 404
            assert not answers.erasures.waiting()
            waiting = ask(service, limited, "DELETE", path, "c0204")
            assert waiting.status_code == 202
            assert service.get(waiting.headers["location"], headers=bearer(limited)).status_code == 200
        assert ask(service, limited, "DELETE", path, INSIDE).status_code == 200
        unlimited = key_of(answers, "admin")
        assert ask(service, unlimited, "GET", f"{path}/data", OUTSIDE).status_code == 200
        assert ask(service, unlimited, "GET", f"{path}/data", INSIDE).status_code == 404


# Who is inside


def test_who_moves_is_in_another_part_from_the_next_ingest_on(service: TestClient, shop: Shop, tmp_path: Path) -> None:
    """Also where the shop spells a part otherwise; a part that nobody is in any more is empty, and not the whole."""
    with own_shop(shop, tmp_path) as (workspace, answers):
        north, south = (key_of(answers, "admin", rule) for rule in (NORTH, "region:south"))
        card = "/v1/customers/{customer_id}"
        customers = described_customers(tmp_path / "own").set_index("customer_id")
        customers.loc[INSIDE, "region"], customers.loc[OUTSIDE, "region"] = "south", " North"
        customers.loc["c0204", "region"] = None
        take_in(workspace, customers)
        for key, seen in ((north, OUTSIDE), (south, INSIDE)):
            by_key = {one: ask(service, key, "GET", card, one).status_code for one in (INSIDE, OUTSIDE, "c0204")}
            assert {one for one, status in by_key.items() if status == 200} == {seen}
        sign_in(service, north)
        assert f"{len(listed(service, north))} customers with" in service.get(LIST).text
        take_in(workspace, customers.assign(region="south"))
        assert listed(service, north) == []
        assert ask(service, north, "GET", card, INSIDE).status_code == 404
        assert service.get("/desk/").status_code == 200
        assert "0 customers" in service.get(LIST).text


def take_in(workspace: Workspace, customers: pd.DataFrame) -> None:
    assert workspace.tables.customers is not None
    assert workspace.tables.customers.path is not None
    customers.reset_index().to_csv(workspace.tables.customers.path[0], index=False)
    intake.ingest(workspace, datetime(2030, 1, 1, tzinfo=UTC))


def test_of_an_attribute_that_the_shop_keeps_no_more_nobody_is_inside(shop: Shop) -> None:
    """Rather than everybody."""
    without = shop.workspace.model_copy(update={"attributes": ("channel",)})
    assert totals.counts(without, AS_OF, Scope.of([NORTH])).customers == 0
    assert totals.counts(without, AS_OF, WHOLE).customers > 300


def test_several_parts_are_each_for_itself(shop: Shop, customers: pd.DataFrame) -> None:
    """The web of the north and the stores of the south are not the stores of the north."""
    parts = Scope.of([NORTH, "channel:web"]).parts + Scope.of(["region:south", "channel:store"]).parts
    inside = "(region == 'north' and channel == 'web') or (region == 'south' and channel == 'store')"
    known = pd.read_parquet(storage.scores_path(shop.workspace.home_path, AS_OF))["customer_id"]
    counts = totals.counts(shop.workspace, AS_OF, Scope(parts))
    assert counts.customers == len(set(known) & set(customers.query(inside).index))


# Keys and sessions


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("regoin:north", "attribute 'regoin': there is none of this name; the nearest is region"),
        ("region:nort", "scope region: 'nort': no customer has it; the nearest is north"),
        ("north", "scope 'north' is not `name:value` of an attribute; there are: region, channel"),
        ("region:", "scope 'region:': who has no region is in no part of the shop; name a value, region:..."),
    ],
)
def test_a_part_that_nobody_is_in_is_refused_with_what_there_is(shop: Shop, rule: str, message: str) -> None:
    """A slip of the pen would make a key that sees nothing."""
    with pytest.raises(NoSuchFilter) as problem:
        checked(shop.workspace, [NORTH, rule])
    assert str(problem.value) == message


def test_before_customers_were_taken_in_no_part_can_be_named(tmp_path: Path) -> None:
    """The sentence says what to do; a key for the whole shop can be made."""
    workspace = small_workspace(tmp_path, "attributes=[region]")
    with pytest.raises(CheckFailed, match="perennial ingest"):
        checked(workspace, [NORTH])
    assert checked(workspace, []) == WHOLE


def test_a_scope_is_kept_as_the_shop_writes_it(shop: Shop, tmp_path: Path) -> None:
    """However it was typed."""
    key = Keys(tmp_path).add(
        "crm", NOW, scope=checked(shop.workspace, ["Region: NORTH ", "region:south", "channel:WEB"])
    )
    (kept,) = Keys(tmp_path).listed()
    assert str(kept.scope) == "region:north, region:south, channel:web"
    caller = Keys(tmp_path).caller(key.encode())
    assert caller is not None
    assert caller.scope == kept.scope


def test_keys_of_an_earlier_version_are_for_the_whole_shop(tmp_path: Path) -> None:
    """And limited ones stand beside them; a session of then that had no key has ended."""
    key = Keys(tmp_path).add("crm", NOW, name="old")
    sessions = Sessions(tmp_path, Keys(tmp_path))
    by_key, by_company = sessions.begin(key, NOW), sessions.begin_for(Caller("oidc:anna", "crm"), NOW)
    assert by_key is not None
    for file, table in (("keys.db", "keys"), ("sessions.db", "sessions")):
        with closing(sqlite3.connect(tmp_path / file)) as database, database:
            database.execute(f"ALTER TABLE {table} DROP COLUMN scope")
    Keys(tmp_path).add("crm", NOW, scope=Scope.of([NORTH]))
    assert sorted(str(key.scope) for key in Keys(tmp_path).listed()) == ["", NORTH]
    caller = Keys(tmp_path).caller(key.encode())
    assert caller is not None
    assert not caller.scope
    sessions = Sessions(tmp_path, Keys(tmp_path))
    assert sessions.of(by_key, NOW) is not None
    assert sessions.of(by_company, NOW) is None
    anew = sessions.of(sessions.begin_for(Caller("oidc:anna", "crm"), NOW), NOW)
    assert anew is not None
    assert anew.caller == Caller("oidc:anna", "crm")


def test_who_is_not_limited_is_asked_nothing_more(answers: Answers) -> None:
    """Nothing is looked up of whom the whole shop is open to."""
    ids = [INSIDE, NOBODY]
    asked = answers.within(WHOLE, ids)
    with pytest.raises(StopIteration) as end:
        asked.send(None)
    assert end.value.value is ids


# Assistants

TOOLS = {
    "churn_risk_list": "cut", "list_choices": "cut", "customer_card": "customer", "this_week": "cut",
    "how_right": "whole", "model_trust": "same",
}  # fmt: skip


def test_an_assistant_is_told_of_the_part_and_of_nothing_else(
    service: TestClient, answers: Answers, customers: pd.DataFrame
) -> None:
    """Every tool; whoever is outside is as unknown as nobody."""
    try:
        from serving.assistant.mcp_server import Assistant
    except ModuleNotFoundError as missing:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(f"assistants: {missing.name} is not installed; the extra `mcp` brings it")
    limited = key_of(answers, "marketing", NORTH).encode()
    assistant = Assistant(answers.home, lambda: NOW, Service())

    async def asked() -> dict[str, Any]:
        inside = {name: {"customer_id": INSIDE} if told == "customer" else {} for name, told in TOOLS.items()}
        results = {name: await assistant.call(name, arguments, limited) for name, arguments in inside.items()}
        for one in (OUTSIDE, WITHOUT, NOBODY):
            results[one] = await assistant.call("customer_card", {"customer_id": one}, limited)
        results["south"] = await assistant.call("churn_risk_list", {"attribute": ["region:south"]}, limited)
        results["everybody"] = await assistant.call("churn_risk_list", {"top": 50}, limited)
        return results

    results = asyncio.run(asked())
    assert {tool.name for tool in assistant.tools(limited)} == TOOLS.keys() - {"how_right"}
    assert {name for name in TOOLS if results[name].is_error} == {"how_right"}
    assert "whole shop" in results["how_right"].content[0].text
    assert len({results[one].content[0].text for one in (OUTSIDE, WITHOUT, NOBODY)}) == 1
    told = results["everybody"].structured_content
    assert {customers.loc[row["customer_id"], "region"] for row in told["customers"]} == {"north"}
    listed_of_api = listed(service, limited.decode())
    assert told["in_all"] == len(listed_of_api)
    assert told["at_risk_in_all"] == pytest.approx(sum(row["value_at_risk"] for row in listed_of_api))
    assert results["south"].is_error or not results["south"].structured_content["customers"]
    week = results["this_week"].structured_content
    assert week["customers"] == (customers["region"] == "north").sum()
    assert (week["at_risk"], week["how_right"]) == (told["at_risk_in_all"], [])
    there = results["list_choices"].structured_content["attributes"]
    assert [choice["value"] for choice in there["region"]] == ["north"]
