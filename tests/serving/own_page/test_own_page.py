"""A customer's own page: who reaches it, what is on it, what is done there, and that it is of nobody else."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import bentoml
import duckdb
import httpx
import pytest
from private_shop import NOW, answering_from, email, files_with, private_shop
from starlette.testclient import TestClient
from workspaces import NEVER_BOUGHT, NO_PROFILING, ODD_IDS

from ingest import intake
from serving import erasure
from serving.corrections import LONGEST, MOST
from serving.desk.language import LANGUAGES
from serving.http.access import Rates
from serving.http.keys import Keys
from serving.own_links import OwnLinks
from serving.own_page import link_visit
from workspace import settings, storage
from workspace.settings import Workspace

BEARER = {"Authorization": "Bearer a-secret"}
# The one who looks, one who must not be seen, and others that tests change.
OWN, OTHER, ODD = "c0200", "c0211", ODD_IDS[0]
INSULTS = ("churn", "dead", "lost", "worthless", "risk", "leave", "leaving", "bad customer")


@pytest.fixture(scope="module")
def workspace(shop: Any, environment: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return private_shop(shop.workspace, tmp_path_factory.mktemp("own") / "shop")


@pytest.fixture(scope="module")
def client(app: Any, workspace: Workspace, environment: pytest.MonkeyPatch) -> Iterator[TestClient]:
    """Nobody: without a key and without a cookie."""
    environment.setattr(link_visit, "RATES", Rates(1000))
    with TestClient(app) as client, answering_from(workspace.home_path):
        yield client


def link(client: TestClient, customer_id: str = OWN, key: str = "a-secret", **body: int) -> str:
    """The path of a new link."""
    path = f"/v1/customers/{quote(customer_id, safe='')}/own-page"
    answer = client.post(path, json=body or None, headers={"Authorization": f"Bearer {key}"})
    assert answer.status_code == 201, answer.text
    return httpx.URL(answer.json()["url"]).path


def form_token(page: httpx.Response) -> str:
    (token, *_) = re.findall(r'name="form_token" value="([\w-]+)"', page.text)
    return str(token)


def send(client: TestClient, path: str, step: str, **sent: str) -> httpx.Response:
    return client.post(f"{path}{step}", data={"form_token": form_token(client.get(path)), **sent})


def held(client: TestClient, customer_id: str) -> dict[str, Any]:
    return client.get(f"/v1/customers/{quote(customer_id, safe='')}/data", headers=BEARER).json()


def lines(workspace: Workspace) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (workspace.home_path / "audit.jsonl").read_text().splitlines()]


# The link


def test_a_link_names_nobody_and_ends_after_a_week_unless_told(client: TestClient, workspace: Workspace) -> None:
    """Its secret lies in no file but the signing key's, which only its owner may read."""
    answer = client.post(f"/v1/customers/{OWN}/own-page", headers=BEARER).json()
    assert OWN not in answer["url"]
    assert answer["url"].startswith("http://testserver/own/")
    assert answer["ends_at"] == (NOW + timedelta(days=7)).isoformat()
    assert files_with(workspace.home_path, answer["url"].rpartition("/")[2]) == set()
    for name in ("own_links.db", "own_links.key"):
        assert (workspace.home_path / name).stat().st_mode & 0o077 == 0
    assert client.get(httpx.URL(answer["url"]).path).status_code == 200


@pytest.mark.parametrize("days", [0, 31, -1, 7.5, "7"])
def test_a_link_lasts_one_to_thirty_days(client: TestClient, days: Any) -> None:
    """Anything else is malformed."""
    answer = client.post(f"/v1/customers/{OWN}/own-page", json={"days": days}, headers=BEARER)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "malformed")


def test_of_nobody_there_is_no_link(client: TestClient) -> None:
    """Neither over the API nor on the desk."""
    answer = client.post("/v1/customers/nobody/own-page", headers=BEARER)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unknown_customer")


def test_a_link_begins_as_the_settings_say(client: TestClient, workspace: Workspace) -> None:
    """Where customers reach the service otherwise than the CRM."""
    with answering_from(workspace.home_path) as answers:
        answers.service = settings.Service(own_page_address="https://my.example.com/")
        url = client.post(f"/v1/customers/{OWN}/own-page", headers=BEARER).json()["url"]
    assert url.startswith("https://my.example.com/own/")


def test_links_that_lead_nowhere_are_one_and_the_same_page(client: TestClient, workspace: Workspace) -> None:
    """Made up, tampered with at any place, ended by time, by a newer one, or taken back: byte for byte."""
    made_up = client.get("/own/" + "a" * 75)
    first = link(client)
    second = link(client)
    dead = [
        client.get(first),
        client.get("/own/x"),
        client.get("/own/"),
        client.get("/own/%2e%2e"),
        client.get("/own/é"),
    ]
    token = second.removeprefix("/own/")
    for place in (0, 31, 32, 60, len(token) - 1):
        other = "b" if token[place] != "b" else "c"
        dead.append(client.get(f"/own/{token[:place]}{other}{token[place + 1 :]}"))
    assert client.get(second).status_code == 200
    with answering_from(workspace.home_path) as answers:
        answers.clock = lambda: NOW + timedelta(days=7)
        dead.append(client.get(second))
    ended = client.delete(f"/v1/customers/{OWN}/own-page", headers=BEARER).json()
    assert ended == {"customer_id": OWN, "ended": 1}
    dead += [client.get(second), client.get(f"{second}/data"), client.put(second)]
    assert {(answer.status_code, answer.text) for answer in dead} == {(404, made_up.text)}
    forms = [client.post(f"{path}/erasure") for path in (second, first, "/own/x")]
    assert {(answer.status_code, answer.text) for answer in forms} == {(404, forms[0].text)}
    assert "does not work" in made_up.text


def test_a_link_outlives_a_restart(client: TestClient, workspace: Workspace) -> None:
    """Another service on the same home knows it, and its key."""
    path = link(client)
    with answering_from(workspace.home_path):
        assert OWN in client.get(path).text


def test_who_asks_too_often_waits(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """By one link, and by what is nobody's; another customer does not."""
    monkeypatch.setattr(link_visit, "RATES", Rates(2))
    path, other = link(client), link(client, OTHER)
    assert 429 in [client.get(path).status_code for _ in range(8)]
    assert 429 in [client.get("/own/nobody").status_code for _ in range(8)]
    assert client.get(other).status_code == 200


def test_the_desk_makes_a_link_for_who_talks_to_customers(client: TestClient, workspace: Workspace) -> None:
    """Marketing has no button, and is refused."""
    answers = bentoml.get_current_service().answers
    for role, status in (("crm", 200), ("marketing", 403)):
        key = Keys(workspace.home_path).add(role, NOW)
        client.post("/desk/sign-in", data={"key": key})
        page = client.get(f"/desk/customers/{OWN}")
        assert ("Make a link for the customer" in page.text) == (role == "crm")
        made = client.post(f"/desk/customers/{OWN}/own-page", data={"form_token": form_token(page)})
        assert made.status_code == status
        if role == "crm":
            (url,) = re.findall(r"<textarea[^>]*>(.*?)</textarea>", made.text)
            assert url.startswith("http://testserver/own/")
        client.cookies.clear()
    assert OwnLinks(answers.home).signed(url.rpartition("/")[2])
    assert client.get(httpx.URL(url).path).status_code == 200


# What is on it


def test_the_page_says_what_is_held_and_computed(client: TestClient, workspace: Workspace) -> None:
    """Identity, purchases as the till has them, consents, numbers and offers as the API says them."""
    page = client.get(link(client)).text
    query = "SELECT count(DISTINCT CAST(occurred_at AS DATE)), sum(amount) FROM {} WHERE customer_id = ?"
    bought = query.format(storage.rows_of(workspace.home_path, "transactions"))
    with duckdb.connect() as connection:
        days, spent = connection.execute(bought, [OWN]).fetchall()[0]
    assert f"You bought on {days} days" in page
    assert f"€{spent:,.0f}" in page
    assert email(OWN) in page
    card = client.get(f"/v1/customers/{OWN}", headers=BEARER).json()
    assert f"{card['scores']['churn_probability']:.0%}" in page
    assert f"€{card['scores']['lifetime_value']:,.0f}" in page or f"€{card['scores']['lifetime_value']:.2f}" in page
    assert all(offer["item"] in page for offer in card["offers"])
    assert "You bought it before" in page or "You have not bought it yet" in page


def test_nobody_is_insulted(client: TestClient) -> None:
    """No word of the trade, in no one's page, but what staff are shown and what is said so."""
    for customer_id in (OWN, ODD, f"c{NEVER_BOUGHT[0]:04}", f"c{NO_PROFILING[0]:04}"):
        page = client.get(link(client, customer_id)).text.partition("In the words that the company")[0].lower()
        assert [word for word in INSULTS if re.search(rf"\b{word}\b", page)] == []


def test_of_who_refuses_profiling_nothing_is_computed_but_all_that_is_held_shown(client: TestClient) -> None:
    """No number, no offer, and yet the purchases."""
    page = client.get(link(client, f"c{NO_PROFILING[0]:04}")).text
    assert "You do not agree to profiling" in page
    assert "Chance that" not in page
    assert "Why you get these offers" not in page
    assert re.search(r"You bought on \d+ day", page)


def test_a_newcomer_is_told_why(client: TestClient) -> None:
    """Who has bought nothing gets what new customers buy."""
    page = client.get(link(client, f"c{NEVER_BOUGHT[0]:04}")).text
    assert "No purchase of yours is held" in page
    assert "it is what new customers buy most" in page


def test_the_file_is_what_a_request_for_data_shows(client: TestClient) -> None:
    """Row by row, and the audit lines name nobody else."""
    path = link(client, ODD)
    client.post("/v1/scores", json={"customer_ids": [ODD, OTHER]}, headers=BEARER)
    answer = client.get(f"{path}/data")
    assert "attachment" in answer.headers["content-disposition"]
    of_api = held(client, ODD)
    told = answer.json()
    assert told["held"] == of_api["held"]
    assert told["audit"] == of_api["audit"][: len(told["audit"])]
    assert len({mark for line in told["audit"] for mark in line["customers"]}) == 1
    assert OTHER not in answer.text
    assert email(ODD) in answer.text


@pytest.mark.parametrize("step", ["", "/data", "/erasure"])
def test_no_parameter_leads_to_somebody_else(client: TestClient, step: str) -> None:
    """Whatever is added, in the address, in a header or in a form, it is the link's customer alone."""
    path = link(client)
    asked = {"customer_id": OTHER, "id": OTHER, "name": OTHER, "token": OTHER, "lang": OTHER}
    answer = client.get(f"{path}{step}", params=asked, headers={"X-Customer-Id": OTHER, "X-Original-URL": "/desk/"})
    assert answer.status_code == 200
    assert OTHER not in answer.text
    assert email(OTHER) not in answer.text
    sent = {"customer_id": OTHER, "name": OTHER, "purpose": "marketing", "agreed": "yes"}
    send(client, path, "/consent", **sent)
    assert not bentoml.get_current_service().answers.consents.by(OTHER)
    assert client.get(f"{path}/../../v1/customers/{OTHER}").status_code == 401


def test_what_somebody_else_wrote_is_text(client: TestClient, shop: Any, tmp_path: Path) -> None:
    """In an item's name, an address and an attribute."""
    evil = "<script>alert(1)</script>"
    other = private_shop(shop.workspace, tmp_path / "shop")
    for path in (other.home_path / "tables" / "customers").glob("*.parquet"):
        with duckdb.connect() as connection, storage.replacing(path) as draft:
            connection.execute(
                f"COPY (SELECT * REPLACE ('{evil}' AS email) FROM '{path}') TO '{draft}' (FORMAT parquet)"
            )
    for path in other.home_path.glob("days/*/item_days.parquet"):
        with duckdb.connect() as connection, storage.replacing(path) as draft:
            connection.execute(
                f"COPY (SELECT * REPLACE ('{evil}' AS item) FROM '{path}') TO '{draft}' (FORMAT parquet)"
            )
    plain = other.model_copy(update={"pii": (), "attributes": ("email",)})
    settings.keep(plain)
    with answering_from(other.home_path) as answers:
        answers.workspace = plain
        page = client.get(link(client)).text
    assert page.count("&lt;script&gt;") == 2
    assert "<script" not in page


@pytest.mark.parametrize("code", LANGUAGES)
def test_pages_keep_their_address_to_themselves(client: TestClient, code: str) -> None:
    """In both languages: nothing is stored, sent on, indexed, framed, set as a cookie, scripted or from elsewhere."""
    path = link(client)
    for step in ("", "/erasure"):
        page = client.get(f"{path}{step}", params={"lang": code})
        assert f'lang="{"zh-Hans" if code == "zh" else "en"}"' in page.text
        assert page.headers["referrer-policy"] == "no-referrer"
        assert page.headers["cache-control"] == "no-store"
        assert "noindex" in page.headers["x-robots-tag"]
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert "set-cookie" not in page.headers
        assert not re.findall(r'<script|\son\w+=|\sstyle=|(?:src|href)="(?:https?:)?//|"/desk/', page.text)
        (style,) = re.findall(r'href="(/own/files/[^"]+)"', page.text)
        assert client.get(style).headers["content-type"].startswith("text/css")


def test_while_a_store_is_down_wishes_can_be_told(client: TestClient, shop: Any, tmp_path: Path) -> None:
    """What cannot be computed is said to be so; what is held is shown, and an objection counts."""
    other = private_shop(shop.workspace, tmp_path / "shop")
    for name, key in (("workspace.json", "online"), ("published.json", "store")):
        path = other.home_path / name
        storage.write_json(path, storage.read_json(path) | {key: "redis://127.0.0.1:1/0"})
    with answering_from(other.home_path) as answers:
        path = link(client)
        answers.service = settings.Service(when_down="refuse")
        page = client.get(path)
        assert (page.status_code, "cannot be shown just now" in page.text) == (200, True)
        assert "You bought on" in page.text
        assert "Written down" in send(client, path, "/consent", purpose="marketing", agreed="no").text
        assert client.get(f"{path}/data").status_code == 503


# What is done there


def test_an_objection_counts_at_once_and_can_be_taken_back(client: TestClient) -> None:
    """In two tabs, each of which was open before."""
    path = link(client, "c0220")
    tabs = [client.get(path), client.get(path)]
    for tab, agreed, seen in ((tabs[0], "no", "no consent to profiling"), (tabs[1], "yes", None)):
        sent = {"form_token": form_token(tab), "purpose": "profiling", "agreed": agreed}
        assert "It counts from now on" in client.post(f"{path}/consent", data=sent).text
        card = client.get("/v1/customers/c0220", headers=BEARER).json()
        assert (card["scores"]["not_scored_reason"] or None) == seen
    assert client.post(f"{path}/consent", data=sent | {"purpose": "everything"}).status_code == 400


def test_a_correction_waits_until_the_company_has_seen_to_it(client: TestClient) -> None:
    """In the customer's words; there are not more of one customer than anybody reads."""
    path, text = link(client, "c0221"), 'My name is <b>Zoë</b>, not "Zoe"; 你好'
    assert "was handed on" in send(client, path, "/correction", text=f"  {text} ").text
    (waits,) = client.get("/v1/corrections", headers=BEARER).json()["corrections"]
    assert (waits["customer_id"], waits["text"], waits["asked_at"]) == ("c0221", text, NOW.isoformat())
    assert text in json.dumps(held(client, "c0221"), ensure_ascii=False).replace('\\"', '"')
    for sent in ("", "  ", "x" * (LONGEST + 1)):
        assert send(client, path, "/correction", text=sent).status_code == 400
    answers = [send(client, path, "/correction", text=str(number)).text for number in range(MOST)]
    assert ["wait already" in answer for answer in answers] == [False] * (MOST - 1) + [True]
    settled = client.delete(f"/v1/corrections/{waits['correction_id']}", headers=BEARER)
    assert settled.json() == {"correction_id": waits["correction_id"], "customer_id": "c0221"}
    again = client.delete(f"/v1/corrections/{waits['correction_id']}", headers=BEARER)
    assert (again.status_code, again.json()["error"]["code"]) == (404, "unknown_correction")


def test_an_erasure_takes_two_steps_and_takes_everything(client: TestClient, workspace: Workspace) -> None:
    """To ask changes nothing; once it is confirmed nobody is answered, every tab's link is dead, then all is gone."""
    path = link(client, "c0222")
    send(client, path, "/correction", text="c0222 is me")
    question = client.get(f"{path}/erasure")
    assert client.get(path).status_code == 200
    sent = {"form_token": form_token(question)}
    done = client.post(f"{path}/erasure", data=sent)
    assert (done.status_code, "is being erased" in done.text) == (200, True)
    again = [client.get(path), client.post(f"{path}/erasure", data=sent), client.post(f"{path}/consent", data=sent)]
    assert {answer.status_code for answer in again} == {404}
    assert again[0].text == client.get("/own/nobody").text
    assert client.get("/v1/customers/c0222", headers=BEARER).status_code == 404
    assert client.post("/v1/customers/c0222/own-page", headers=BEARER).status_code == 404
    erasure.carry_out(workspace, lambda: NOW)
    assert files_with(workspace.home_path, "c0222") == set()
    intake.ingest(workspace, NOW)
    assert files_with(workspace.home_path, "c0222") == set()


def test_a_link_goes_with_the_customer(client: TestClient, workspace: Workspace) -> None:
    """Whoever erases them; and from when an erasure waits on."""
    path, waits = link(client, "c0223"), link(client, "c0224")
    assert "own_links.db:own_links" in held(client, "c0223")["held"]
    erased = client.delete("/v1/customers/c0223", headers=BEARER).json()["found"]
    assert erased["own_links.db:own_links"] == 1
    with storage.locked(workspace.home_path, "a test"):
        assert client.delete("/v1/customers/c0224", headers=BEARER).status_code == 202
        assert [client.get(one).status_code for one in (path, waits)] == [404, 404]
    erasure.carry_out(workspace, lambda: NOW)
    assert files_with(workspace.home_path, "c0224") == set()


def test_without_the_privacy_key_nothing_is_promised(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody could be marked as erased: it is said, and the page is there still."""
    path = link(client, "c0225")
    sent = {"form_token": form_token(client.get(path))}
    with monkeypatch.context() as patch:
        patch.delenv("PERENNIAL_PRIVACY_KEY")
        answer = client.post(f"{path}/erasure", data=sent)
    assert (answer.status_code, "Nothing was changed" in answer.text) == (503, True)
    assert client.get(path).status_code == 200


@pytest.mark.parametrize(
    ("headers", "has_token"),
    [({}, False), ({"Origin": "https://evil.example"}, True), ({"Sec-Fetch-Site": "cross-site"}, True),
     ({"Sec-Fetch-Site": "same-site"}, True)],
)  # fmt: skip
@pytest.mark.parametrize("step", ["/consent", "/correction", "/erasure"])
def test_a_form_of_another_site_changes_nothing(
    client: TestClient, workspace: Workspace, headers: dict[str, str], has_token: bool, step: str
) -> None:
    """Without the token of the page, or from elsewhere; nor one with the token of another customer's page."""
    path = link(client, "c0226")
    odd = {"Content-Type": "multipart/form-data; boundary=x"}
    assert client.post(f"{path}{step}", content=b"--y", headers=odd).status_code in (400, 403)
    token = form_token(client.get(path)) if has_token else form_token(client.get(link(client, OTHER)))
    sent = {"form_token": token, "purpose": "marketing", "agreed": "no", "text": "x"}
    assert client.post(f"{path}{step}", data=sent, headers=headers).status_code == 403
    assert not bentoml.get_current_service().answers.consents.by("c0226")
    assert {"corrections.db:corrections", "consents.db:consents"}.isdisjoint(held(client, "c0226")["held"])
    assert client.get(path).status_code == 200


# The audit log


def test_every_view_and_step_is_on_record(client: TestClient, workspace: Workspace) -> None:
    """By the link, with no customer's id and nothing that opens the page; of what is nobody's there is none."""
    path = link(client, "c0227")
    before = len(lines(workspace))
    client.get(path)
    client.get("/own/nobody")
    send(client, path, "/consent", purpose="marketing", agreed="no")
    client.get(f"{path}/data")
    client.get(f"{path}/erasure")
    logged = lines(workspace)[before:]
    own = "GET /own/{token}"
    assert [line["what"] for line in logged] == [
        own,
        own,
        "POST /own/{token}/consent",
        own,
        f"{own}/data",
        f"{own}/erasure",
    ]
    assert {line["role"] for line in logged} == {"customer"}
    assert len({line["who"] for line in logged}) == len({mark for line in logged for mark in line["customers"]}) == 1
    assert path.removeprefix("/own/")[8:] not in json.dumps(logged)
    assert "c0227" not in json.dumps(logged)


def test_nothing_is_shown_without_a_line(client: TestClient, workspace: Workspace, tmp_path: Path) -> None:
    """Where the log cannot be written there is no page."""
    path = link(client)
    with answering_from(workspace.home_path) as answers:
        answers.gate.audit.path = tmp_path / "no-such-folder" / "audit.jsonl"
        answer = client.get(path)
    assert (answer.status_code, email(OWN) in answer.text) == (503, False)


def test_no_log_of_requests_has_a_link(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    """Nor do the metrics: the address of the page is all that it takes."""
    path = link(client)
    with caplog.at_level("INFO"):
        for step in ("", "/data", "/odd"):
            client.get(f"{path}{step}")
    ours = [record for record in caplog.records if not record.name.startswith("httpx")]  # the client's own
    told = json.dumps([getattr(record, "told", record.getMessage()) for record in ours])
    token = path.removeprefix("/own/")
    assert "/own/{token}/data" in told
    assert token[:32] not in told + client.get("/metrics").text


def test_no_answer_leads_the_link_to_another_host(client: TestClient) -> None:
    """Nor is what is held kept by a browser or a proxy."""
    path = link(client)
    for odd in (f"{path}/", f"{path}/data/"):
        answer = client.get(odd, headers={"Host": "evil.example"}, follow_redirects=False)
        assert (answer.status_code, "location" in answer.headers) == (404, False)
    held = client.get(f"{path}/data").headers
    assert (held["cache-control"], held["referrer-policy"]) == ("no-store", "no-referrer")
