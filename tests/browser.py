"""A real headless browser for the tests of pages; they skip where there is none, and say so."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PHONE = {"width": 360, "height": 780}


@contextmanager
def opened(address: str, **options: Any) -> Iterator[Any]:
    """A page of the browser at `address`, with what it asked for in `page.requests` and what it complained of in
    `page.complaints`; `options` are Playwright's of a page."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("there is no chromium here")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        page = browser.new_page(**options)
        page.requests, page.complaints = [], []
        page.on("request", lambda request: page.requests.append(request.url))
        page.on("console", lambda line: page.complaints.append(line.text) if line.type != "log" else None)
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        page.goto(address)
        yield page
        browser.close()


def is_wider_than_the_screen(page: Any) -> bool:
    """Whether one must scroll sideways."""
    return page.evaluate("document.documentElement.scrollWidth > window.innerWidth")
