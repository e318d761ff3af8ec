"""What the desk says of how far numbers can be trusted: the data, what moved, the models and who decides about them."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import bentoml
import httpx
import pandas as pd
import pytest
from starlette.testclient import TestClient
from workspaces import NO_PROFILING, ODD_IDS

from features.snapshot import customer_features
from ingest import intake
from monitoring.shifts import Comparison
from serving.desk import fault_words, shift_words
from serving.desk.language import LANGUAGES, language
from serving.desk.visit import customer_address
from serving.http.answers import Answers
from serving.http.keys import Keys
from workspace import settings, storage
from workspace.settings import Service, Workspace

KEY = "a-secret"
PAGES = ("/desk/trust/data", "/desk/trust/drift", "/desk/trust/models/churn", "/desk/customers/c0200/lineage")
EVIL = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def service(app: Any, environment: pytest.MonkeyPatch) -> Iterator[TestClient]:
    with TestClient(app) as client:
        yield client


@pytest.fixture
def answers(shop: Any, tmp_path: Path, service: TestClient) -> Iterator[Answers]:
    """The running service as if it had been started on a copy of the shop."""
    home = tmp_path / "home"
    shutil.copytree(shop.workspace.home_path, home, ignore=shutil.ignore_patterns("predictions"))
    with answering_from(home, service) as answers:
        yield answers


@contextmanager
def answering_from(home: Path, service: TestClient) -> Iterator[Answers]:
    running = bentoml.get_current_service()
    before, clock = running.answers, running.answers.clock
    running.answers = Answers(home, lambda: clock(), Service())
    try:
        yield running.answers
    finally:
        running.answers = before
        service.cookies.clear()


def sign_in(service: TestClient, answers: Answers, role: Any = "admin") -> None:
    key = Keys(answers.home).add(role, answers.clock())
    service.cookies.clear()
    assert service.post("/desk/sign-in", data={"key": key}, follow_redirects=False).status_code == 303


def form_token(page: httpx.Response) -> str:
    return re.findall(r'name="form_token" value="(\w+)"', page.text)[0]


def send(service: TestClient, path: str, page: str = "/desk/", **sent: str) -> httpx.Response:
    return service.post(path, data={"form_token": form_token(service.get(page)), **sent}, follow_redirects=False)


def last_line(answers: Answers) -> dict[str, Any]:
    return dict(json.loads((answers.home / "audit.jsonl").read_text().splitlines()[-1]))


@pytest.mark.parametrize("code", LANGUAGES)
@pytest.mark.parametrize("role", ["admin", "marketing", "crm"])
def test_every_role_sees_the_pages_but_only_an_admin_decides(
    service: TestClient, answers: Answers, role: str, code: str
) -> None:
    """Where nothing was judged, moved or set aside yet, each page says so."""
    sign_in(service, answers, role)
    for path in PAGES:
        page = service.get(path, params={"lang": code})
        assert page.status_code == 200, path
        assert not re.findall(r"<script(?![^>]*src=)|\son\w+=|\sstyle=", page.text), path
    service.cookies.delete("perennial_language")
    assert "Nobody has looked yet" in service.get("/desk/trust/drift").text
    for path in ("promote", "leave", "rollback"):
        sent = send(service, f"/desk/trust/models/churn/{path}", version="99")
        assert (sent.status_code == 403) == (role != "admin"), path
    assert (service.get("/desk/jobs").status_code == 403) == (role != "admin")


def test_a_home_that_published_nothing_has_these_pages_too(service: TestClient, answers: Answers) -> None:
    """A first version may have to be promoted before anything can be published."""
    for gone in ("reports", "tables", "quarantine"):
        shutil.rmtree(answers.home / gone, ignore_errors=True)
    (answers.home / "published.json").unlink()
    with answering_from(answers.home, service) as empty:
        sign_in(service, empty)
        said = {
            "/desk/trust/data": "No table has been taken in yet.", "/desk/trust/drift": "Nobody has looked yet",
            "/desk/trust/models/churn": "Nothing answers yet.", "/desk/jobs": "Nothing yet.",
        }  # fmt: skip
        for path, sentence in said.items():
            page = service.get(path)
            assert (page.status_code, sentence in page.text) == (200, True), path


# The data


@pytest.fixture
def faulty(shop: Any, tmp_path: Path, answers: Answers) -> Workspace:
    """The shop with rows that cannot be used, one of which tries to be a script, in three more columns of its own."""
    rows = pd.read_parquet(Path(shop.workspace.home_path).parent / "transactions.parquet").astype(str)
    bad = rows.head(9).assign(transaction_id=[f"bad-{number}" for number in range(9)])
    bad.loc[bad.index[:4], "customer_id"] = ""
    bad.loc[bad.index[4:6], "amount"] = EVIL + "x" * 100
    bad.loc[bad.index[6:], "occurred_at"] = "2999-01-01"
    pd.concat([rows, bad]).to_csv(tmp_path / "transactions.csv", index=False)
    customers = pd.read_csv(Path(shop.workspace.home_path).parent / "customers.csv", dtype=str)
    customers["email"] = "secret@example.com"
    pd.concat([customers, customers.head(2).assign(customer_id="c0200")]).to_csv(
        tmp_path / "customers.csv", index=False
    )
    given = shop.workspace.model_dump(mode="json", exclude_none=True)
    given |= {"home": str(answers.home), "pii": ["email"]}
    for table in ("transactions", "customers"):
        given["tables"][table]["path"] = [str(tmp_path / f"{table}.csv")]
    workspace = settings.parse(given, "shop.yaml")
    intake.ingest(workspace, datetime(2030, 1, 1, tzinfo=UTC))
    settings.keep(workspace)
    return workspace


def test_each_reason_has_its_rows_its_money_and_what_to_do(
    service: TestClient, answers: Answers, faulty: Workspace
) -> None:
    """And all of it adds up; what could not be read as an amount is in no sum."""
    with answering_from(answers.home, service) as own:
        sign_in(service, own)
        page = service.get("/desk/trust/data")
    text = re.sub(r"<[^>]+>|\s+", " ", page.text)
    (account,) = [one for one in intake.ingest(faulty, datetime(2030, 1, 1, tzinfo=UTC)) if one.table == "transactions"]
    assert f"{account.read:,} rows were read: {account.accepted:,} count, 9 were set aside." in re.sub(" +", " ", text)
    assert account.money is not None
    assert account.money.read == account.money.accepted + account.money.lost
    assert f"€{account.money.read:,} were read, €{account.money.accepted:,} count" in re.sub(" +", " ", text)
    assert "Of 2 rows nobody knows the amount." in re.sub(" +", " ", text)
    for said in ("customer_id is empty", "amount is not a number", "later than the clock says", "there more than once"):
        assert said.lower() in text.lower(), said
    assert "try_strptime" not in text


def test_examples_are_texts_cut_and_without_what_says_how_to_reach_somebody(
    service: TestClient, answers: Answers, faulty: Workspace
) -> None:
    """Three a reason, for an admin alone, whose look at these customers is on record."""
    with answering_from(answers.home, service) as own:
        sign_in(service, own)
        page = service.get("/desk/trust/data")
        line = last_line(own)
        sign_in(service, own, "marketing")
        hidden = service.get("/desk/trust/data").text
    assert "&lt;script&gt;" in page.text
    assert "<script>alert" not in page.text
    assert "x" * 60 not in page.text
    assert "secret@example.com" not in page.text
    assert ">email<" not in page.text
    assert page.text.count("bad-") == 3 + 2 + 3
    assert "transactions.csv: " in page.text
    assert "bad-" not in hidden
    assert "role admin" in hidden
    assert len(line["customers"]) > 0
    assert line["rows"] == 3 + 2 + 3 + 2


@pytest.mark.parametrize("code", LANGUAGES)
def test_every_reason_that_the_docs_name_has_words(code: str) -> None:
    """With what to do about it."""
    page = (Path(__file__).parents[3] / "docs" / "tables.md").read_text()
    named = re.search(r"\| reason \| meaning .*?\n\n", page, re.S)
    assert named is not None
    reasons = [
        reason for row in named[0].strip().splitlines()[2:] for reason in re.findall(r"`([^`]+)`", row.split("|")[1])
    ]
    assert len(reasons) > 15
    for reason in reasons:
        if " " in reason:
            assert fault_words.in_words(language(code), reason).todo, reason


# What moved


def noted_drift(home: Path, **changed: Any) -> None:
    shift = {"feature": "spend_90d", "compared": "values", "score": 0.3, "threshold": 0.1, "past": 0.05,
             "before": 20.0, "after": 35.5, "importance": 0.12}  # fmt: skip
    row = {"feature": "transactions.amount empty", "compared": "missing", "score": 0.2, "threshold": 0.05, "past": None,
           "before": 0.001, "after": 0.2, "importance": None}  # fmt: skip
    noted = {
        "as_of": "2023-07-01", "reference": "2023-04-01", "last_year": None, "drifted": True, "matters": True,
        "weight": 0.4, "past": 6, "judged": 40, "predictions": [], "sources": [row], "features": [shift],
        "pages": [str(home / "reports" / "drift-2023-07-01.html"), "/etc/passwd"],
    }  # fmt: skip
    storage.write_json(home / "reports" / "drift-2023-07-01.json", noted | changed)
    (home / "reports" / "drift-2023-07-01.html").write_text("<script>document.title = 'drawn'</script>")


def test_what_moved_is_said_with_how_far_and_since_when(service: TestClient, answers: Answers) -> None:
    """By what each is, not by what it is called; Evidently's page is of no site, so it reaches no session."""
    sign_in(service, answers)
    noted_drift(answers.home)
    text = service.get("/desk/trust/drift").text
    meaning = next(one.meaning for one in customer_features(answers.workspace) if one.name == "spend_90d")
    assert "Yes, and it matters" in text
    assert meaning in text
    assert "20.00 on average, now 35.50" in text
    assert "3.0 times" in text
    assert "Purchases: rows without amount" in text
    assert "empty in 0.1% of the rows, now in 20.0%" in text
    assert "Compared is Jul 1, 2023 with Apr 1, 2023" in text
    assert "passwd" not in text
    drawn = service.get("/desk/reports/drift-2023-07-01.html")
    assert drawn.headers["content-security-policy"].startswith("sandbox allow-scripts; default-src 'none'")
    noted_drift(answers.home, drifted=False, matters=False, sources=[], features=[])
    assert "No: all is as it was" in service.get("/desk/trust/drift").text
    noted_drift(answers.home, matters=False)
    assert "hardly matters" in service.get("/desk/trust/drift").text


@pytest.mark.parametrize("compared", get_args(Comparison))
def test_every_comparison_has_words(compared: str) -> None:
    """None is a code."""
    levels = {"before": None, "after": None} if compared == "categories" else {"before": 0.5, "after": 2.0}
    said = shift_words.how(language("en"), {"compared": compared, **levels})
    assert ("now" in said) == (compared != "categories")


# The models


def trained(answers: Answers, kind: str, outcome: str, against: list[str] | None = None) -> None:
    """A version more than there is, as a run that judged it leaves it."""
    folder = answers.home / "reports" / "models"
    shutil.copytree(folder / f"{kind}-1", folder / f"{kind}-2", dirs_exist_ok=True)
    reasons = [*(against or []), "its files are small"]
    told = {
        "kind": kind,
        "version": "2",
        "due": "old",
        "outcome": outcome,
        "reasons": reasons,
        "against": against or [],
    }
    alerts = [
        {"about": f"{kind} version 2 was refused", "says": "why", "command": "perennial promote"},
        {
            "about": "what the champion learnt from at 2023-04-01 has moved",
            "says": "drift\nat",
            "command": "perennial x",
        },
    ]
    run = {"done": True, "decisions": [told], "alerts": alerts, "customers": None, "change": None}
    storage.write_json(answers.home / "reports" / "run-2023-07-01-20230701T100000000000.json", run)


def test_a_challenger_stands_beside_the_champion_with_what_speaks_against_it(
    service: TestClient, answers: Answers
) -> None:
    """The gate's sentences as texts; where it refused, nobody promotes without a reason."""
    sign_in(service, answers)
    assert "None: no version was trained since." in service.get("/desk/trust/models/churn").text
    trained(answers, "churn", "refused", [f"auc is lower {EVIL}"])
    page = service.get("/desk/trust/models/churn").text
    assert "The gate refused it" in page
    assert "Auc is lower &lt;script&gt;" in page
    assert "Its files are small" in page
    assert page.index("Against it") < page.index("Auc is lower") < page.index("For it") < page.index("Its files")
    assert re.search(r'name="reason"[^>]* required', page)
    refused = send(service, "/desk/trust/models/churn/promote", version="2", reason="  ")
    assert refused.status_code == 400
    for wrong in ("3", "2 --force=x", "", "../1"):
        assert send(service, "/desk/trust/models/churn/promote", version=wrong, reason="x").status_code == 400
    assert service.get("/desk/trust/models/nothing").status_code == 404


def test_what_was_left_is_not_asked_about_again(service: TestClient, answers: Answers) -> None:
    """Who left it and when is kept, and in the audit log."""
    trained(answers, "churn", "refused", ["auc is lower"])
    sign_in(service, answers)
    home = service.get("/desk/").text
    assert "the gate refused version 2" in home
    assert 'href="/desk/trust/models/churn"' in home
    assert "Customers or sources are no longer as the models learnt them." in home
    assert home.count("perennial ") == home.count("perennial x")
    left = send(service, "/desk/trust/models/churn/leave", version="2")
    assert left.headers["location"] == "/desk/trust/models/churn"
    line = last_line(answers)
    assert (line["what"], line["filter"]) == (
        "POST /desk/trust/models/{kind}/leave", {"kind": "churn", "version": "2"},
    )  # fmt: skip
    assert "the gate refused version 2" not in service.get("/desk/").text
    assert "decided on Jul 1, 2023 to leave it" in service.get("/desk/trust/models/churn").text
    sign_in(service, answers, "marketing")
    seen = service.get("/desk/").text
    assert "Customers or sources" in seen
    assert "perennial x" not in seen


def test_a_run_that_broke_off_later_is_what_needs_a_look(service: TestClient, answers: Answers) -> None:
    """With what it broke off with, as text."""
    sign_in(service, answers)
    alerts = [{"about": "the run broke off in ingest", "says": f"no file {EVIL}", "command": "perennial run"}]
    run = {"done": False, "decisions": [], "alerts": alerts}
    storage.write_json(answers.home / "reports" / "run-2023-08-01-20230801T100000000000.json", run)
    page = service.get("/desk/").text
    assert "The last run broke off." in page
    assert "no file &lt;script&gt;" in page


# Where numbers come from


@pytest.mark.parametrize("customer_id", ["c0200", ODD_IDS[0]])
def test_the_rows_that_a_customers_numbers_come_from_are_counted(
    service: TestClient, answers: Answers, shop: Any, customer_id: str
) -> None:
    """With their days, their source by its name, the versions and what those learnt from."""
    sign_in(service, answers)
    page = service.get(f"{customer_address(customer_id)}/lineage")
    rows = pd.read_parquet(Path(shop.workspace.home_path).parent / "transactions.parquet")
    own = rows[rows["customer_id"] == customer_id]
    assert f"{len(own):,} lines of purchases were counted, of {own['occurred_at'].nunique()} days" in page.text
    assert "They came from transactions.parquet." in page.text
    assert str(Path(shop.workspace.home_path).parent) not in page.text
    assert "small.churn 1, trained on" in page.text
    assert "from what was known before Jul 1, 2023" in page.text
    assert len(last_line(answers)["customers"]) == 1


def test_of_who_refuses_profiling_nothing_was_counted(service: TestClient, answers: Answers) -> None:
    """Nor of whom nobody knows."""
    sign_in(service, answers)
    page = service.get(f"/desk/customers/c{NO_PROFILING[0]:04}/lineage").text
    assert "does not agree to being profiled" in page
    assert "were counted" not in page
    assert service.get("/desk/customers/nobody/lineage").status_code == 404
