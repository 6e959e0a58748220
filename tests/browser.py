"""Inspect a report in a real headless Chromium: requests, errors, overflow."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@dataclass(frozen=True)
class Inspection:
    """The result of loading a page; for a correct page, lists are empty and ``overflow`` is 0."""

    requests: list[str]
    errors: list[str]
    broken_images: list[str]
    overflow: int
    images: int
    background: str
    violations: list[str]
    wide_tables: list[str]


def inspect(html_path: Path, *, width: int = 390, dark: bool = False) -> Inspection:
    """Load a page from disk and inspect it.

    Parameters
    ----------
    html_path : Path
        The HTML file.
    width : int
        Width of the window in CSS pixels.
    dark : bool
        Whether the reader prefers a dark colour scheme.

    Returns
    -------
    Inspection
        Requests other than for the page and ``data:``, console and script errors,
        alternative texts of images that did not load, pixels by which the page is
        wider than the window, number of images, the background colour, rules of axe-core that the
        page violates, and ids of tables that are wider than their column.
    """
    from axe_playwright_python.sync_playwright import Axe
    from playwright.sync_api import sync_playwright

    url = html_path.resolve().as_uri()
    requests: list[str] = []
    errors: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(
            viewport={"width": width, "height": 844}, color_scheme="dark" if dark else "light"
        )
        page.on("request", lambda request: requests.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on(
            "console",
            lambda message: (
                errors.append(message.text) if message.type in {"error", "warning"} else None
            ),
        )
        page.goto(url)
        page.wait_for_load_state("networkidle")
        broken = page.evaluate(
            "[...document.images].filter(i => !(i.complete && i.naturalWidth)).map(i => i.alt)"
        )
        overflow = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        images = page.evaluate("document.images.length")
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        rules = Axe().run(page).response
        assert len(rules["passes"]) > 10  # rules were applied
        violations = [rule["id"] for rule in rules["violations"]]
        wide = page.evaluate(
            "[...document.querySelectorAll('.scroll')].filter(s => s.scrollWidth > s.clientWidth)"
            ".map(s => s.id)"
        )
        browser.close()
    other = [r for r in requests if r != url and not r.startswith("data:")]
    overflow = max(0, overflow)
    return Inspection(other, errors, broken, overflow, images, background, violations, wide)
