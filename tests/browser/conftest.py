"""The application with its page, and a real browser that looks at it."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from cellular.bank import create_bank
from cellular.teachers import HashTeacher
from serve.app import running
from serve.settings import ServeConfig

os.environ["RAY_AUTH_MODE"] = "disabled"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PHRASES = [f"{animal} sleeps by the {place}" for animal in ("a cat", "an owl") for place in ("river", "fire")]


@pytest.fixture(scope="module")
def url(
    tmp_path_factory: pytest.TempPathFactory, ret_checkpoint: Path, lattice_checkpoint: Path
) -> Iterator[str]:
    """Where the page is."""
    bank = tmp_path_factory.mktemp("bank")
    create_bank(bank, PHRASES, HashTeacher(384))
    config = {"banks": [str(bank)], "checkpoint": str(ret_checkpoint), "lattices": [str(lattice_checkpoint)]}
    with running(ServeConfig.model_validate(config | {"engine": "torch", "fused": True}), port=0) as url:
        yield url


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Headless Chromium."""
    if CHROMIUM is None:
        pytest.skip("no browser: install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, url: str) -> Iterator[Page]:
    """The page, as soon as it knows the stages."""
    context = browser.new_context()
    page = context.new_page()
    page.set_default_timeout(60_000)
    page.goto(url)
    page.wait_for_selector("body[data-ready]")
    yield page
    context.close()
