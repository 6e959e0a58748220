"""Inspect a report in a real headless Chromium: requests, errors, overflow."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
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
    """Load a page from disk and inspect it, see ``inspect_all``."""
    return inspect_all(html_path, [(width, dark)])[width, dark]


def inspect_all(
    html_path: Path, cases: Iterable[tuple[int, bool]]
) -> dict[tuple[int, bool], Inspection]:
    """Load a page from disk and inspect it in several windows of one browser.

    Parameters
    ----------
    html_path : Path
        The HTML file.
    cases : iterable of (int, bool)
        Width of the window in CSS pixels, and whether the reader prefers a dark colour scheme.

    Returns
    -------
    dict of case to Inspection
        Requests other than for the page and ``data:``, console and script errors,
        alternative texts of images that did not load, pixels by which the page is
        wider than the window, number of images, the background colour, rules of axe-core that the
        page violates, and ids of tables that are wider than their column.
    """
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        found = {
            (width, dark): _inspected(
                browser.new_page(
                    viewport={"width": width, "height": 844},
                    color_scheme="dark" if dark else "light",
                ),
                html_path.resolve().as_uri(),
            )
            for width, dark in cases
        }
        browser.close()
    return found


def _inspected(page, url: str) -> Inspection:
    from axe_playwright_python.sync_playwright import Axe

    requests: list[str] = []
    errors: list[str] = []
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
    page.close()
    other = [r for r in requests if r != url and not r.startswith("data:")]
    overflow = max(0, overflow)
    return Inspection(other, errors, broken, overflow, images, background, violations, wide)
