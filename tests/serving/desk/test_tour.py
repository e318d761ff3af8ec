"""The tour leads through every page that a role may see, and ends."""

from __future__ import annotations

import re
from typing import Any

import pytest
from starlette.testclient import TestClient

from serving.http.answers import Answers
from tests.serving.desk.test_desk import answering_from, home, new_key, own_answers, service, sign_in

__all__ = ["answering_from", "home", "own_answers", "service"]


@pytest.mark.parametrize(("role", "stops"), [("admin", 6), ("marketing", 6), ("crm", 3)])
def test_the_tour_leads_from_page_to_page(service: TestClient, own_answers: Answers, role: Any, stops: int) -> None:
    """Each of which this role may see; of another page, or a stop that there is not, nothing is said."""
    sign_in(service, new_key(own_answers, role))
    page = service.get("/desk/")
    (address,) = re.findall(r'href="([^"]+tour=1)"', page.text)
    seen = []
    while address:
        page = service.get(address)
        assert page.status_code == 200
        assert 'class="tour"' in page.text
        seen.append(page.url.path)
        address = (re.findall(r'class="button" href="([^"]+tour=\d+)"', page.text) or [""])[0]
    assert len(set(seen)) == len(seen) == stops
    for odd in ("/desk/trust?tour=1", "/desk/?tour=99", "/desk/?tour=0", "/desk/?tour=x", "/desk/?tour=²"):
        assert 'class="tour"' not in service.get(odd).text


def test_other_desks_are_one_click_away(service: TestClient, own_answers: Answers) -> None:
    """Under the names that the settings give them."""
    desks = {"The <north>": "https://north.example.com/desk"}
    own_answers.service = own_answers.service.model_copy(update={"other_desks": desks})
    sign_in(service)
    page = service.get("/desk/")
    assert '<a href="https://north.example.com/desk"><bdi>The &lt;north&gt;</bdi></a>' in page.text
