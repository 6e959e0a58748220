"""The report in a real browser: no network requests, no errors, no overflow on a phone."""

from __future__ import annotations

import itertools

import pytest
from browser import CHROMIUM, FLAGS, inspect_all
from samples import HOSTILE, figure, front, notebook, table

from report.output import render

pytest.importorskip("playwright", reason="playwright is not installed")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")


WIDTHS = (390, 1024, 1280, 1600)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    path = notebook(
        folder,
        "01_data",
        "# Data\n\n$$\\sum_{i=1}^{N} " + " + ".join(f"\\alpha_{{{i}}}" for i in range(30)) + "$$",
        "`" + "long" * 60 + "`\n\n```\n" + "code " * 60 + "\n```\n\n" + "word" * 60,
        figure(caption=HOSTILE, alt=HOSTILE),
        table(columns=12, rows=4),
        table("tab-b", columns=3, rows=45, cell="unbreakable" * 8),
        "| a | b | c |\n|---|---|---|\n| " + " | ".join(["unbreakable" * 4] * 3) + " |",
    )
    return render([path], front=front(title="Word" * 30), out=folder, pdf=False).html


@pytest.fixture(scope="module")
def inspections(page):
    return inspect_all(page, itertools.product(WIDTHS, (False, True)))


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", WIDTHS)
def test_page_loads_without_requests_errors_or_overflow(inspections, width, dark):
    inspection = inspections[width, dark]
    assert inspection.requests == []
    assert inspection.errors == []
    assert inspection.images == 1 and inspection.broken_images == []
    assert inspection.overflow == 0
    assert inspection.violations == []


def test_dark_colour_scheme_is_followed(inspections):
    light, dark = (inspections[390, dark].background for dark in (False, True))
    assert light == "rgb(252, 252, 251)"
    assert dark == "rgb(20, 24, 29)"


def test_figure_is_enlarged_and_closed_with_the_keyboard(page):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        opened = browser.new_page(viewport={"width": 1280, "height": 900})
        opened.goto(page.resolve().as_uri())
        card, close = opened.locator(".card"), opened.locator(".close")
        assert card.bounding_box()["width"] < 800 and not close.is_visible()
        opened.locator(".enlarge").press("Enter")
        assert card.bounding_box() == {"x": 0, "y": 0, "width": 1280, "height": 900}
        close.press("Enter")
        assert card.bounding_box()["width"] < 800 and not close.is_visible()
        browser.close()
