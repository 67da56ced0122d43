"""Takes the pictures of the page in this folder.

python docs/take_pictures.py http://127.0.0.1:8000     # of an application that runs
"""

import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

HERE = Path(__file__).parent
SIZES = {"page": (1280, 1000), "page-narrow": (390, 1400)}
LATTICE_MS = 5000  # until its steps have been shown


def main(url: str) -> None:
    """One picture a size, after a question and a walk."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        for name, (width, height) in SIZES.items():
            page = browser.new_page(viewport={"width": width, "height": height})
            page.goto(url)
            page.wait_for_selector("body[data-ready]")
            page.click("#path button")
            page.wait_for_selector("#stations li")
            page.locator("#place").fill("4")
            page.click("#ask button")
            page.wait_for_selector("#candidates li")
            page.wait_for_timeout(LATTICE_MS)
            page.screenshot(path=HERE / f"{name}.png", full_page=True)
        browser.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
