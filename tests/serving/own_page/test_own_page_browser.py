"""A customer's own page in a real browser: on a telephone and a desk, in both languages, by hand and by keyboard."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from axe_playwright_python.sync_playwright import Axe
from browser import chromium
from playwright.sync_api import Browser, Page
from private_shop import answering_from, private_shop
from redis_server import free_port
from workspaces import NO_PROFILING

from serving.http.access import Rates
from serving.own_page import link_visit

LOCALES = {"en": "en-US", "zh": "zh-CN"}
WIDTHS = (1280, 390)


@pytest.fixture(scope="module")
def address(
    app: Any, shop: Any, environment: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    environment.setattr(link_visit, "RATES", Rates(1000))
    workspace = private_shop(shop.workspace, tmp_path_factory.mktemp("own-browser") / "shop")
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.05)
    with answering_from(workspace.home_path):
        yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


def link(address: str, customer_id: str) -> str:
    headers = {"Authorization": "Bearer a-secret"}
    return str(httpx.post(f"{address}/v1/customers/{customer_id}/own-page", headers=headers).json()["url"])


def opened(browser: Browser, url: str, locale: str = "en-US", width: int = 1280) -> tuple[Page, list[str]]:
    """The page, and what went wrong on it or was asked of other sites."""
    page, wrong = browser.new_context(viewport={"width": width, "height": 900}, locale=locale).new_page(), []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
    page.on("request", lambda asked: None if asked.url.startswith((url[:20], "data:")) else wrong.append(asked.url))
    page.goto(url)
    return page, wrong


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("code", LOCALES)
def test_the_page_can_be_read_by_everybody(
    browser: Browser, address: str, code: str, width: int, tmp_path: Path
) -> None:
    """In the browser's language, without a fault that axe knows, and no wider than the window; also where profiling is
    refused, what erasure means, and a link that has ended."""
    for customer_id, steps in (("c0200", ("", "/erasure", "/nothing")), (f"c{NO_PROFILING[0]:04}", ("",))):
        url = link(address, customer_id)
        page, wrong = opened(browser, url, LOCALES[code], width)
        for number, step in enumerate(steps):
            page.goto(f"{url}{step}")
            assert page.locator("html").get_attribute("lang") == ("zh-Hans" if code == "zh" else "en")
            results = Axe().run(page)
            assert results.violations_count == 0, f"{step}: {results.generate_report()}"
            assert page.evaluate("document.documentElement.scrollWidth") <= width, step
            page.screenshot(path=tmp_path / f"{code}-{width}-{customer_id}-{number}.png", full_page=True)
        assert [one for one in wrong if "404" not in one] == []


def test_a_customer_says_what_they_want(browser: Browser, address: str) -> None:
    """As a browser sends forms from a page that keeps its address: an objection in one tab, a correction by keyboard in
    the other, the language kept, and at last everything erased, which ends both."""
    url = link(address, "c0230")
    page, wrong = opened(browser, url)
    second = page.context.new_page()
    second.goto(url)
    page.get_by_role("link", name="简体中文").click()
    page.wait_for_url("**lang=zh")
    page.locator("button[name=agreed][value=no]").last.click()
    page.wait_for_url("**done=consent")
    assert page.locator("html").get_attribute("lang") == "zh-Hans"
    second.locator("#text").focus()
    second.keyboard.type("My name is Zoë")
    second.keyboard.press("Tab")
    second.keyboard.press("Enter")
    second.wait_for_url("**done=correction")
    with second.expect_download() as download:
        second.get_by_role("link", name="Download everything").click()
    assert "My name is Zo" in Path(download.value.path()).read_text()
    second.get_by_role("link", name="What that means").click()
    second.get_by_role("button", name="Yes, erase everything").click()
    second.wait_for_selector("p[role=status]")
    assert "being erased" in second.locator("h1").inner_text()
    assert wrong == []
    page.locator("button[name=agreed]").first.click()
    page.wait_for_load_state()
    assert page.locator("form").count() == 0
    assert second.context.cookies() == []


@pytest.mark.parametrize("width", WIDTHS)
def test_a_link_is_made_on_the_desk(browser: Browser, address: str, width: int, tmp_path: Path) -> None:
    """By a button on the customer's page; the address that is shown opens the customer's own."""
    page, wrong = opened(browser, f"{address}/desk/customers/c0231", width=width)
    page.fill("#key", "a-secret")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Make a link for the customer").click()
    url = page.locator("#url").input_value()
    results = Axe().run(page)
    assert results.violations_count == 0, results.generate_report()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.screenshot(path=tmp_path / f"desk-{width}.png", full_page=True)
    page.goto(url)
    assert page.get_by_text("c0231@example.com").count() == 1
    assert wrong == []
