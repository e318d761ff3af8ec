"""The desk: who gets in, what each role sees, and that it is what the API says."""

from __future__ import annotations

import io
import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import bentoml
import httpx
import openpyxl
import pytest
from private_shop import files_with
from starlette.testclient import TestClient
from workspaces import NEVER_BOUGHT, NO_MARKETING, NO_PROFILING, ODD_IDS

from serving import erasure
from serving.desk import list_page
from serving.desk.language import LANGUAGES
from serving.desk.sessions import HOURS
from serving.desk.visit import SESSION_COOKIE
from serving.http.answers import Answers
from serving.http.keys import Keys
from workspace.settings import Service

KEY = "a-secret"
LIST = "/desk/lists/churn-risk"
FURTHER_LISTS = ("/desk/lists/win-back", "/desk/lists/cross-sell")
PAGES = (
    "/desk/", LIST, f"{LIST}.xlsx", *FURTHER_LISTS, "/desk/customers", "/desk/customers/c0200", "/desk/trust",
    "/desk/trust/data", "/desk/trust/drift", "/desk/trust/models/churn", "/desk/customers/c0200/lineage",
)  # fmt: skip


@pytest.fixture(scope="module")
def service(app: Any, environment: pytest.MonkeyPatch) -> Iterator[TestClient]:
    with TestClient(app) as client:
        yield client


@pytest.fixture
def home(shop: Any, tmp_path: Path) -> Path:
    return shutil.copytree(shop.workspace.home_path, tmp_path / "home", ignore=shutil.ignore_patterns("predictions"))


@contextmanager
def answering_from(home: Path, service: TestClient) -> Iterator[Answers]:
    """The running service as if it had been started on `home`."""
    running = bentoml.get_current_service()
    before, clock = running.answers, running.answers.clock
    running.answers = Answers(home, lambda: clock(), Service())
    try:
        yield running.answers
    finally:
        running.answers = before
        service.cookies.clear()


@pytest.fixture
def answers(service: TestClient) -> Iterator[Answers]:
    """The service of all tests here, for those that change nothing."""
    yield bentoml.get_current_service().answers
    service.cookies.clear()


@pytest.fixture
def own_answers(home: Path, service: TestClient) -> Iterator[Answers]:
    with answering_from(home, service) as answers:
        yield answers


def sign_in(service: TestClient, key: str = KEY, **sent: str) -> httpx.Response:
    service.cookies.clear()
    return service.post("/desk/sign-in", data={"key": key, **sent}, follow_redirects=False)


def form_token(page: httpx.Response) -> str:
    (token, *_) = re.findall(r'name="form_token" value="(\w+)"', page.text)
    return str(token)


def listed(page: httpx.Response) -> list[str]:
    return re.findall(r'<th scope="row"><a href="/desk/customers/[^"]+"><bdi>(.*?)</bdi>', page.text)


def new_key(answers: Answers, role: Any, contacts: bool = False) -> str:
    return Keys(answers.home).add(role, answers.clock(), contacts)


# Getting in


@pytest.mark.parametrize("path", ["/", "/desk", *PAGES])
def test_whoever_has_not_signed_in_is_led_to_where_one_does(service: TestClient, answers: Answers, path: str) -> None:
    """And from there back."""
    page = service.get(path)
    assert page.url.path == "/desk/sign-in"
    assert 'type="password"' in page.text
    if path in PAGES:
        assert sign_in(service, next=page.url.params["next"]).headers["location"] == path


def test_a_key_becomes_a_session_that_scripts_and_other_sites_cannot_use(service: TestClient, answers: Answers) -> None:
    """And whose token lies nowhere."""
    answer = sign_in(service)
    assert answer.status_code == 303
    cookie = answer.headers["set-cookie"].lower()
    assert all(flag in cookie for flag in ("httponly", "samesite=lax", "path=/desk"))
    token = service.cookies[SESSION_COOKIE]
    assert service.get("/desk/").status_code == 200
    assert token.encode() not in (answers.home / "sessions.db").read_bytes()
    assert (answers.home / "sessions.db").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("key", ["", "wrong", "perennial_00000000_" + "x" * 43, "é" * 20])
def test_a_wrong_key_lets_nobody_in(service: TestClient, own_answers: Answers, key: str) -> None:
    """And is on record, without the key."""
    answer = sign_in(service, key)
    assert (answer.status_code, SESSION_COOKIE in service.cookies) == (401, False)
    line = json.loads((own_answers.home / "audit.jsonl").read_text().splitlines()[-1])
    assert (line["who"], line["what"], line["status"]) == ("nobody", "POST /desk/sign-in", 401)


@pytest.mark.parametrize(
    "address",
    ["https://evil.example", "//evil.example", "/\\evil.example", "/desk/\r\nx: y", "javascript:1", "/v1/model"],
)
def test_signing_in_leads_to_the_desk_alone(service: TestClient, answers: Answers, address: str) -> None:
    """Wherever a link says."""
    assert sign_in(service, next=address).headers["location"] == "/desk/"


def test_a_session_ends_with_its_key_with_time_and_when_asked(service: TestClient, home: Path) -> None:
    """At the next view."""
    with answering_from(home, service) as answers:
        key = new_key(answers, "marketing")
        sign_in(service, key)
        assert service.get(LIST).status_code == 200
        Keys(home).revoke(key.split("_")[1], answers.clock())
        assert service.get(LIST).url.path == "/desk/sign-in"

        sign_in(service)
        token = form_token(service.get("/desk/"))
        kept = dict(service.cookies)
        service.post("/desk/sign-out", data={"form_token": token})
        service.cookies.update(kept)
        assert service.get("/desk/").url.path == "/desk/sign-in"

        sign_in(service)
        clock = answers.clock
        answers.clock = lambda: clock() + timedelta(hours=HOURS)
        assert service.get("/desk/").url.path == "/desk/sign-in"


def test_a_part_of_a_page_that_is_asked_for_too_late_leads_to_the_sign_in(
    service: TestClient, answers: Answers
) -> None:
    """The whole page goes there, and back to where it was."""
    service.cookies.clear()
    shown = {"HX-Request": "true", "HX-Current-URL": f"http://testserver{LIST}?band=high"}
    answer = service.get(f"{LIST}?band=low", headers=shown, follow_redirects=False)
    assert answer.headers["hx-redirect"] == "/desk/sign-in?next=%2Fdesk%2Flists%2Fchurn-risk%3Fband%3Dhigh"


# Roles


@pytest.mark.parametrize(
    ("role", "refused"),
    [("admin", set()), ("marketing", set()), ("crm", {LIST, f"{LIST}.xlsx", *FURTHER_LISTS})],
)
def test_each_role_sees_its_rooms(service: TestClient, own_answers: Answers, role: str, refused: set[str]) -> None:
    """And is led to no other."""
    sign_in(service, new_key(own_answers, role))
    for path in PAGES:
        assert service.get(path).status_code == (403 if path in refused else 200), path
    assert (f'href="{LIST}"' in service.get("/desk/").text) == (LIST not in refused)


def test_every_view_is_on_record_under_its_key(service: TestClient, own_answers: Answers) -> None:
    """With what was asked and how many were shown, and no customer by name."""
    key = new_key(own_answers, "marketing")
    sign_in(service, key)
    shown = len(listed(service.get(LIST, params={"band": "high"})))
    service.get("/desk/customers/c0200")
    lines = [json.loads(line) for line in (own_answers.home / "audit.jsonl").read_text().splitlines()[-2:]]
    assert [line["what"] for line in lines] == [f"GET {LIST}", "GET /desk/customers/{customer_id:escaped}"]
    assert {line["who"] for line in lines} == {key.split("_")[1]}
    assert (lines[0]["filter"], lines[0]["rows"]) == ({"band": "high"}, shown)
    assert "c0200" not in json.dumps(lines)
    assert len(lines[1]["customers"]) == 1


# The list


def of_api(service: TestClient, **query: Any) -> list[dict[str, Any]]:
    asked = {"top": 10_000, **query}
    return service.get("/v1/lists/churn-risk", params=asked, headers={"Authorization": f"Bearer {KEY}"}).json()


@pytest.mark.parametrize(
    "query",
    [{}, {"band": "high"}, {"category": "tea", "sort": "churn_probability"}, {"search": "c01"}, {"min_value": "30"}],
)
def test_the_list_is_the_apis_and_its_spreadsheet_all_of_it(
    service: TestClient, answers: Answers, query: dict[str, str]
) -> None:
    """In order; the sentence above says how many, the pages lead through all of them."""
    sign_in(service)
    expected = [row["customer_id"] for row in of_api(service, **query)]
    page = service.get(LIST, params=query)
    assert f"{len(expected)} customers with" in page.text
    seen = listed(page)
    while following := re.search(r'href="([^"]+)" rel="next"', page.text):
        page = service.get(following[1].replace("&amp;", "&"))
        seen += listed(page)
    assert [one.replace("&amp;", "&") for one in seen] == expected

    book = openpyxl.load_workbook(io.BytesIO(service.get(f"{LIST}.xlsx", params=query).content))
    rows = list(book["list"].iter_rows(values_only=True))
    assert [row[0] for row in rows[1:]] == expected
    assert rows[0][:2] == ("Customer", "Risk of leaving")
    assert book["list"].auto_filter.ref.endswith(str(len(rows)))
    assert len(list(book["about"].iter_rows())) > 4


def test_rules_are_saved_under_a_name_and_opened_again(service: TestClient, own_answers: Answers) -> None:
    """By everybody who may see lists, until somebody forgets them; a name is a text."""
    sign_in(service)
    page = service.get(LIST, params={"band": "high", "category": "tea"})
    (rules,) = re.findall(r'name="rules" value="([^"]*)"', page.text)
    sent = {"form_token": form_token(page), "rules": rules.replace("&amp;", "&"), "name": "tea <b>drinkers</b>"}
    saved = service.post("/desk/lists/churn-risk/save", data=sent)
    assert dict(saved.url.params) == {"band": "high", "category": "tea"}
    assert listed(saved) == listed(page)
    sign_in(service, new_key(own_answers, "marketing"))
    page = service.get(LIST)
    assert "tea &lt;b&gt;drinkers" in page.text
    assert "<b>drinkers" not in page.text
    sent = {"form_token": form_token(page), "name": "tea <b>drinkers</b>"}
    assert "drinkers" not in service.post("/desk/lists/churn-risk/remove", data=sent).text
    nameless = {"form_token": form_token(page), "rules": "", "name": "  "}
    assert service.post("/desk/lists/churn-risk/save", data=nameless).status_code == 400


@pytest.mark.parametrize("path", FURTHER_LISTS)
def test_every_list_is_that_of_the_api_on_the_screen_and_in_the_spreadsheet(
    service: TestClient, answers: Answers, path: str
) -> None:
    """Saved under a name it is opened as what it is."""
    sign_in(service)
    query = {"unproven_offers": "true"} if path.endswith("cross-sell") else {}
    header = {"Authorization": f"Bearer {KEY}"}
    api = service.get(path.replace("/desk", "/v1"), params={"top": "1000", **query}, headers=header).json()
    expected = [row["customer_id"] for row in api]
    assert len(expected) > 5
    page = service.get(path, params=query)
    assert [one.replace("&amp;", "&") for one in listed(page)] == expected[: len(listed(page))]
    book = openpyxl.load_workbook(io.BytesIO(service.get(f"{path}.xlsx", params=query).content))
    assert [row[0] for row in book["list"].iter_rows(min_row=2, values_only=True)] == expected
    sent = {"form_token": form_token(page), "rules": "min_value=1", "name": "mine"}
    saved = service.post(f"{path}/save", data=sent)
    assert (saved.url.path, dict(saved.url.params)) == (path, {"min_value": "1.0"})
    assert "mine" in service.get(LIST).text
    assert service.post(f"{LIST}/save", data=sent).status_code == 400
    assert service.post(f"{path}/save", data=sent | {"rules": "search=c00", "name": "of an id"}).status_code == 400
    service.post(f"{path}/remove", data=sent)
    assert service.get("/desk/lists/no-such-list").status_code == 404


def test_a_customer_is_erased_in_two_steps(service: TestClient, own_answers: Answers) -> None:
    """Only by an admin, and only with the id typed once more; then nothing of them is left."""
    sign_in(service, new_key(own_answers, "marketing"))
    assert service.get("/desk/customers/c0200/erase").status_code == 403
    sign_in(service)
    page = service.get("/desk/customers/c0200/erase")
    assert "rows are held" in page.text
    sent = {"form_token": form_token(page), "typed": "c0201"}
    assert service.post("/desk/customers/c0200/erase", data=sent).status_code == 400
    assert service.get("/desk/customers/c0200").status_code == 200
    done = service.post("/desk/customers/c0200/erase", data=sent | {"typed": "c0200"})
    assert "in no answer and no list any more" in done.text
    for path in ("/desk/customers/c0200", "/desk/customers/c0200/erase", "/desk/customers/nobody/erase"):
        assert service.get(path).status_code == 404
    assert service.get("/desk/customers/c0201").status_code == 200
    assert "c0200" not in service.get("/desk/customers", params={"id": "C02"}).text
    while own_answers.erasures.waiting():  # or the running service does, which looks for such wishes too
        erasure.carry_out(own_answers.workspace, own_answers.clock)
    assert files_with(own_answers.home, "c0200") == set()


def test_what_nobody_can_be_is_said_and_not_an_empty_list(service: TestClient, answers: Answers) -> None:
    """With what was typed, as text."""
    sign_in(service)
    page = service.get(LIST, params={"category": "<script>alert(1)</script>"})
    assert page.status_code == 200
    assert "&lt;script&gt;" in page.text
    assert "<script>alert" not in page.text
    assert "min_value" in service.get(LIST, params={"min_value": "-3"}).text


def test_who_objects_is_gone_at_the_next_view(service: TestClient, own_answers: Answers) -> None:
    """An objection written down on the desk counts at once; those who never agreed were never there."""
    sign_in(service)
    before = {one for row in of_api(service) if (one := row["customer_id"])}
    assert not before & {f"c{number:04}" for number in (*NO_PROFILING, *NO_MARKETING, *NEVER_BOUGHT)}
    someone = listed(service.get(LIST))[0]
    page = service.get(f"/desk/customers/{someone}")
    sent = {"form_token": form_token(page), "purpose": "marketing", "agreed": "no"}
    done = service.post(f"/desk/customers/{someone}/consent", data=sent)
    assert "Written down" in done.text
    assert "Do not contact this customer" in done.text
    assert someone not in listed(service.get(LIST))


@pytest.mark.parametrize("forged", [{"form_token": "0"}, {}, {"origin": "https://evil.example"}])
def test_a_form_of_another_site_changes_nothing(service: TestClient, answers: Answers, forged: dict[str, str]) -> None:
    """Without the token of the session, or from elsewhere."""
    sign_in(service)
    token = form_token(service.get("/desk/customers/c0200"))
    headers = {"Origin": forged["origin"]} if "origin" in forged else {}
    sent = {"form_token": token} if headers else forged
    answer = service.post("/desk/customers/c0200/consent", headers=headers,
                          data={"purpose": "profiling", "agreed": "no", **sent})  # fmt: skip
    assert answer.status_code == 403
    assert not answers.consents.by("c0200")


# Customers and trust


@pytest.mark.parametrize("customer_id", [*ODD_IDS, "c0200"])
def test_a_customer_is_what_the_api_says(service: TestClient, answers: Answers, customer_id: str) -> None:
    """Whatever characters are in the id."""
    sign_in(service)
    card = service.get(
        f"/v1/customers/{quote(customer_id, safe='')}", headers={"Authorization": f"Bearer {KEY}"}
    ).json()
    page = service.get("/desk/customers", params={"id": customer_id})
    assert page.status_code == 200
    if (risk := card["scores"]["churn_probability"]) is not None:
        assert f"{risk:.0%}" in page.text
    assert all(reason[1:] in page.text.replace("&#39;", "'") for reason in card["reasons"])


def test_of_who_refuses_profiling_nothing_is_shown(service: TestClient, answers: Answers) -> None:
    """Neither numbers nor history."""
    sign_in(service)
    page = service.get(f"/desk/customers/c{NO_PROFILING[0]:04}")
    assert "does not agree to being profiled" in page.text
    assert "data-chart" not in page.text


def test_an_unknown_customer_and_the_beginning_of_an_id(service: TestClient, answers: Answers) -> None:
    """The one is said to be unknown, the other shows whose it is."""
    sign_in(service)
    assert service.get("/desk/customers/nobody").status_code == 404
    assert "c0201" in service.get("/desk/customers", params={"id": "c020"}).text
    assert "No customer" in service.get("/desk/customers", params={"id": "'; DROP TABLE x"}).text


def test_trust_shows_each_model_and_only_reports(service: TestClient, answers: Answers) -> None:
    """A name that leads elsewhere leads nowhere."""
    sign_in(service)
    page = service.get("/desk/trust")
    assert all(title in page.text for title in ("Who leaves", "What customers are worth", "What they buy next"))
    cards = re.findall(r'href="(/desk/reports/models/[^"]+)"', page.text)
    assert len(cards) == 3
    assert {service.get(card).status_code for card in cards} == {200}
    for name in ("../keys.db", "..%2Fkeys.db", "run-..%2F..%2Fkeys.db.html", "models/../../keys.db", "alerts.jsonl"):
        assert service.get(f"/desk/reports/{name}").status_code == 404, name


def test_a_list_longer_than_one_reading_is_in_its_spreadsheet_to_the_end(
    service: TestClient, answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In order; what no spreadsheet can hold is said."""
    sign_in(service)
    expected = [row["customer_id"] for row in of_api(service)]
    monkeypatch.setattr(list_page, "_AT_ONCE", 50)
    book = openpyxl.load_workbook(io.BytesIO(service.get(f"{LIST}.xlsx").content))
    assert [row[0] for row in book["list"].iter_rows(min_row=2, values_only=True)] == expected
    monkeypatch.setattr(list_page, "_MOST_ROWS", 50)
    assert "A spreadsheet holds 50 rows" in service.get(f"{LIST}.xlsx").text


def test_where_there_is_no_page_is_one_that_says_so(service: TestClient, answers: Answers) -> None:
    """With what was asked as text, if at all."""
    page = service.get("/desk/<b>nowhere")
    assert (page.status_code, "Not found" in page.text, "<b>" in page.text) == (404, True, False)


@pytest.mark.parametrize("code", LANGUAGES)
@pytest.mark.parametrize("path", [*PAGES[:2], *PAGES[3:]])
def test_pages_speak_the_language_and_load_nothing_from_elsewhere(
    service: TestClient, answers: Answers, code: str, path: str
) -> None:
    """Nor a script of their own; and each may be read by nothing but its own site."""
    sign_in(service)
    page = service.get(path, params={"lang": code})
    assert f'lang="{"zh-Hans" if code == "zh" else "en"}"' in page.text
    assert not re.findall(r'(?:src|href)="(?:https?:)?//', page.text)
    assert not re.findall(r"<script(?![^>]*src=)|\son\w+=|\sstyle=", page.text)
    assert page.headers["content-security-policy"].startswith("default-src 'self'")
    assert page.headers["cache-control"] == "no-store"
    for file in re.findall(r'(?:src|href)="(/desk/files/[^"]+)"', page.text):
        assert service.get(file).headers["cache-control"].endswith("immutable")
    service.cookies.clear()
