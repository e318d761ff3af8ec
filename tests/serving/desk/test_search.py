"""Finding a customer by what they are called, for who may see that."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import bentoml
import pytest
from private_shop import answering_from, email, private_shop
from starlette.testclient import TestClient

from serving.corrections import Corrections
from serving.http.keys import Keys
from serving.lists.churn_risk import refuse_other_key
from tests.serving.conftest import NOW, Shop
from tests.serving.desk.test_desk import form_token, sign_in
from workspace.settings import SettingsError


@pytest.fixture(scope="module")
def service(
    app: Any, environment: pytest.MonkeyPatch, shop: Shop, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TestClient]:
    private = private_shop(shop.workspace, tmp_path_factory.mktemp("private") / "shop")
    with TestClient(app) as client, answering_from(private.home_path):
        yield client


def found(service: TestClient, asked: str) -> str:
    page = service.get("/desk/customers")
    return service.post("/desk/customers", data={"form_token": form_token(page), "id": asked}).text


def test_a_name_is_found_by_whole_words_in_whatever_case(service: TestClient) -> None:
    """An e-mail address, a telephone number however it is spaced; with what tells people apart."""
    sign_in(service)
    assert "/desk/customers/c0200" in (by_mail := found(service, email("c0200").upper()))
    assert email("c0200") in by_mail
    assert by_mail.count("/desk/customers/c0") == 1
    assert "/desk/customers/c0200" in found(service, "+4930 0000200")
    assert "/desk/customers/c0200" in found(service, "0000200")
    assert "No customer is found" in found(service, "200@example")
    assert "No customer is found" in found(service, "' OR 1=1 --")


def test_who_may_not_see_contacts_finds_nobody_by_them(service: TestClient) -> None:
    """Only by ids."""
    key = Keys(bentoml.get_current_service().answers.home).add("marketing", NOW)
    sign_in(service, key)
    assert "c0200" not in found(service, email("c0200")).replace(email("c0200"), "")
    assert "/desk/customers/c0200" in found(service, "c020")


def test_no_service_starts_with_another_key_than_the_one_of_the_contact_data(
    service: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It could read nothing, and its erasures would be marked with a key that the shop does not have."""
    workspace = bentoml.get_current_service().answers.workspace
    refuse_other_key(workspace)
    monkeypatch.setenv("PERENNIAL_PRIVACY_KEY", "another-privacy-key")
    with pytest.raises(SettingsError, match="not the key that this was encrypted with"):
        refuse_other_key(workspace)


def test_what_is_searched_is_in_no_log(service: TestClient) -> None:
    """Neither an id, nor a name."""
    sign_in(service)
    log = bentoml.get_current_service().answers.home / "audit.jsonl"
    before = log.read_text()
    service.get("/desk/lists/churn-risk", params={"search": "c0201"})
    service.get("/desk/lists/win-back.xlsx", params={"search": "c0201"})
    service.get("/v1/lists/cross-sell", params={"search": "c0201"}, headers={"Authorization": "Bearer a-secret"})
    found(service, "c0201")
    lines = log.read_text().removeprefix(before)
    assert len(lines.splitlines()) >= 4
    assert "c0201" not in lines


def test_a_correction_waits_on_the_desk_until_it_is_settled(service: TestClient) -> None:
    """As text; home says that one waits."""
    home = bentoml.get_current_service().answers.home
    Corrections(home).put("c0201", "I am <b>Anna</b>", NOW)
    sign_in(service, Keys(home).add("crm", NOW))
    assert "1 customer says that something is wrong" in service.get("/desk/").text
    page = service.get("/desk/corrections")
    assert "I am &lt;b&gt;Anna" in page.text
    (one,) = Corrections(home).waiting(5)
    sent = {"form_token": form_token(page), "correction_id": one.correction_id}
    assert "Nothing waits" in service.post("/desk/corrections", data=sent).text
    assert service.post("/desk/corrections", data=sent).status_code == 404
    sign_in(service, Keys(home).add("marketing", NOW))
    assert service.get("/desk/corrections").status_code == 403
