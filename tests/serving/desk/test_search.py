"""Finding a customer by what they are called, for who may see that."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from private_shop import answering_from, email, private_shop
from starlette.testclient import TestClient

from serving.http.keys import Keys
from tests.serving.conftest import NOW, Shop
from tests.serving.desk.test_desk import form_token, sign_in


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
    import bentoml

    key = Keys(bentoml.get_current_service().answers.home).add("marketing", NOW)
    sign_in(service, key)
    assert "c0200" not in found(service, email("c0200")).replace(email("c0200"), "")
    assert "/desk/customers/c0200" in found(service, "c020")
