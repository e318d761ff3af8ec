"""The desk in a real browser: every page in both languages and at two widths, and what a marketer does there."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import bentoml
import pytest
import uvicorn
from axe_playwright_python.sync_playwright import Axe
from browser import chromium
from playwright.sync_api import Browser, Page
from redis_server import free_port

from serving.desk.sessions import Sessions

KEY = "a-secret"
LOCALES = {"en": "en-US", "zh": "zh-CN"}
PAGES = ("", "lists/churn-risk", "lists/churn-risk?band=high", "customers?id=c02", "customers/c0200", "trust",
         "trust/data", "trust/drift", "trust/models/churn", "customers/c0200/lineage", "jobs")  # fmt: skip
WIDTHS = (1280, 390)


@pytest.fixture(scope="module")
def address(app: Any, environment: pytest.MonkeyPatch) -> Iterator[str]:
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.05)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


class Looked:
    """A page with what went wrong on it, and what it asked of other machines."""

    def __init__(self, browser: Browser, address: str, locale: str = "en-US", width: int = 1280) -> None:
        context = browser.new_context(viewport={"width": width, "height": 900}, locale=locale)
        self.page, self.wrong, self.address = context.new_page(), [], address
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("console", lambda said: self.wrong.append(said.text) if said.type == "error" else None)
        self.page.on("request", self._asked)

    def _asked(self, request: Any) -> None:
        if not request.url.startswith((self.address, "data:")):
            self.wrong.append(request.url)

    def sign_in(self, path: str = "") -> Page:
        self.page.goto(f"{self.address}/desk/{path}")
        self.page.fill("#key", KEY)
        self.page.keyboard.press("Enter")
        self.page.wait_for_url(lambda url: "sign-in" not in url)
        return self.page


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("code", LOCALES)
def test_every_page_can_be_read_by_everybody(browser: Browser, address: str, code: str, width: int) -> None:
    """In the browser's language, without a fault that axe knows, without a line that is wider than the window."""
    looked = Looked(browser, address, LOCALES[code], width)
    page = looked.sign_in()
    for path in PAGES:
        page.goto(f"{address}/desk/{path}")
        page.wait_for_load_state("networkidle")
        assert page.locator("html").get_attribute("lang") == ("zh-Hans" if code == "zh" else "en")
        results = Axe().run(page)
        assert results.violations_count == 0, f"{path}: {results.generate_report()}"
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path
        if path == "customers/c0200":
            assert page.locator("[data-chart] svg").count() == 1
    assert looked.wrong == []


def test_a_list_is_filtered_opened_and_gone_back_to(browser: Browser, address: str) -> None:
    """Without loading the page anew; the address is the view, and the back button knows the one before."""
    page = Looked(browser, address).sign_in("lists/churn-risk")
    everybody = page.locator("#list .answer").inner_text()
    page.evaluate("window.same = true")
    page.select_option("select[name=band]", "high")
    page.wait_for_url("**band=high**")
    page.wait_for_function("text => document.querySelector('#list .answer').innerText !== text", arg=everybody)
    assert page.evaluate("window.same")
    someone = page.locator("#list tbody a").first.inner_text()
    page.locator("#list tbody a").first.click()
    page.wait_for_url("**/desk/customers/**")
    assert page.locator("h1").inner_text() == someone
    page.go_back()
    page.wait_for_selector("#list tbody a")
    assert "band=high" in page.url
    assert page.locator("#list tbody a").first.inner_text() == someone


def test_the_keyboard_leads_from_the_list_to_a_customer_and_to_the_file(browser: Browser, address: str) -> None:
    """Whoever uses no mouse gets as far."""
    page = Looked(browser, address).sign_in("lists/churn-risk")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.locator("select[name=band]").focus()
    page.keyboard.press("h")
    page.wait_for_url("**band=high**")
    page.locator("a[download]").focus()
    with page.expect_download() as download:
        page.keyboard.press("Enter")
    assert download.value.suggested_filename.endswith(".xlsx")
    page.locator("#list tbody a").first.focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/desk/customers/**")


def test_a_session_that_ended_in_the_middle_leads_back_to_where_it_was(browser: Browser, address: str) -> None:
    """In one of two tabs, when a filter is changed."""
    looked = Looked(browser, address)
    page = looked.sign_in("lists/churn-risk")
    second = page.context.new_page()
    second.goto(f"{address}/desk/")
    assert second.locator("h1").inner_text() == "Home"
    answers = bentoml.get_current_service().answers
    token = next(cookie["value"] for cookie in page.context.cookies() if cookie["name"] == "perennial_session")
    Sessions(answers.home, answers.gate.keys).end(token)
    page.select_option("select[name=band]", "low")
    page.wait_for_url("**/desk/sign-in**")
    page.fill("#key", KEY)
    page.keyboard.press("Enter")
    page.wait_for_url("**/desk/lists/churn-risk**")


def test_pages_are_light(browser: Browser, address: str) -> None:
    """At most 400 kB the first time, and 40 kB when the browser has been there."""
    page = Looked(browser, address).sign_in()
    session = page.context.new_cdp_session(page)
    session.send("Network.enable")
    received: list[float] = []
    session.on("Network.loadingFinished", lambda event: received.append(event["encodedDataLength"]))
    for path, most in (("customers/c0200", 400_000), ("customers/c0201", 40_000), ("lists/churn-risk", 40_000)):
        received.clear()
        page.goto(f"{address}/desk/{path}")
        page.wait_for_load_state("networkidle")
        assert 0 < sum(received) < most, path
