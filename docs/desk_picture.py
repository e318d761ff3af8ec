"""The README's picture of the desk, taken from the demonstration's: `make desk`, then in another terminal

python docs/desk_picture.py http://127.0.0.1:3000 KEY
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

PICTURE = Path(__file__).parent / "images" / "desk.png"


def main() -> None:
    address, key = sys.argv[1:]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1120, "height": 640})
        page.goto(f"{address}/desk/sign-in?next=/desk/lists/churn-risk%3Fband%3Dhigh")
        page.fill("#key", key)
        page.keyboard.press("Enter")
        page.wait_for_selector("#list tbody a")
        page.screenshot(path=PICTURE)
        browser.close()


if __name__ == "__main__":
    main()
