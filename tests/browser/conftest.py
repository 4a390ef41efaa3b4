"""A browser and pages to look at with it. Nothing is fetched from anywhere; what a page asks elsewhere is an error."""

import os
from pathlib import Path

import pytest

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["HF_HUB_OFFLINE"] = "1"

CHROMIUM = next((p for p in map(Path, ("/usr/bin/chromium", "/usr/bin/chromium-browser")) if p.exists()), None)
ARGUMENTS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


@pytest.fixture(scope="session")
def browser():
    sync = pytest.importorskip("playwright.sync_api")
    pytest.importorskip("gradio")
    if CHROMIUM is None:
        pytest.skip("there is no chromium here")
    with sync.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=str(CHROMIUM), args=list(ARGUMENTS))
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser):
    """Open an address; afterwards judge what was asked of whom, and what the page complained of."""
    opened = []

    def go(address, wait_for, viewport=DESKTOP, scheme="light"):
        context = browser.new_context(viewport=viewport, color_scheme=scheme)
        page = context.new_page()
        asked, complaints = [], []
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(address)
        page.wait_for_selector(wait_for, timeout=30_000)
        opened.append((context, address, asked, complaints))
        return page

    yield go
    for context, address, asked, complaints in opened:
        context.close()
        host = address.split("/")[2]
        elsewhere = [url for url in asked if not url.startswith(("data:", "blob:")) and url.split("/")[2] != host]
        assert not elsewhere
        assert not complaints
        assert asked
