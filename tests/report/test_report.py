"""The rendered report: contents, refusals, and that data never becomes markup."""

from __future__ import annotations

import errno
import html.parser
import re
import shutil
import subprocess
import sys

import pypdf
import pytest
from nbformat.v4 import new_output
from samples import HOSTILE, SVG, code, figure, front, notebook, table, text

from report import blocks, contents, output
from report.blocks import Figure, Prose, References, Table
from report.errors import ReportError
from report.output import render

FORMULA = """Loss $\\hat y_i = \\sigma(\\alpha)$ and

$$\\sum_{i=1}^N \\frac{a}{b} \\odot c \\otimes A \\cap \\text{B}$$"""
needs_pdftotext = pytest.mark.skipif(
    shutil.which("pdftotext") is None, reason="pdftotext (poppler-utils) is not installed"
)


class Page(html.parser.HTMLParser):
    """Collect elements, attributes and text of a page."""

    def __init__(self, source: str):
        super().__init__()
        self.elements: list[tuple[str, dict]] = []
        self.text = ""
        self.feed(source)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def page_of(rendered) -> Page:
    return Page(rendered.html.read_text(encoding="utf-8"))


def pdf_text(rendered) -> str:
    """Return the text of the PDF without white space, which depends on the line breaks."""
    run = subprocess.run(
        ["pdftotext", "-raw", rendered.pdf, "-"], capture_output=True, text=True, check=True
    )
    return without_spaces(run.stdout)


def without_spaces(text: str) -> str:
    return re.sub(r"\s", "", text)


@pytest.fixture
def notebooks(tmp_path):
    """Return two notebooks with two figures, a table, mathematics and links."""
    return [
        notebook(
            tmp_path,
            "01_data",
            "# Data\n\nSee [](#fig-b), [the table](#tab-a) and [the next chapter](02_next.ipynb).",
            code(tags=("parameters",)),
            figure("fig-a", "First caption: 3 < 4 & 5."),
            text("There are **42** images.[^1]\n\n[^1]: A foot note."),
            "## Found\n\n" + FORMULA,
        ),
        notebook(
            tmp_path,
            "02_next",
            "# Next\n\nSee [above](#fig-a).",
            table("tab-a", "Second caption."),
            figure("fig-b", "Third caption."),
            "## Found\n\nBack to [](#found).",
        ),
    ]


def test_figures_and_tables_are_numbered_in_reading_order(notebooks, tmp_path):
    opening = [
        Prose("# Abstract"),
        Table("tab-0", [{"label": "n", "align": "right"}], [["1"]], "Z"),
    ]
    closing = [Prose("# Discussion\n\nThe end."), Figure("fig-z", SVG, None, "Last.", "A line")]
    rendered = render(
        notebooks, front=front(), opening=opening, closing=closing, out=tmp_path / "out"
    )
    assert rendered.warnings == []
    page = page_of(rendered)
    body = re.sub(r"\s+", " ", page.text)
    body = body[body.index("See Figure 2") :]
    positions = [
        body.index(f"{label}. ") for label in ("Figure 1", "Table 2", "Figure 2", "Figure 3")
    ]
    assert positions == sorted(positions)
    assert "Figure 1. First caption: 3 < 4 & 5." in body
    assert "See Figure 2, the table and the next chapter." in body
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = {attributes["href"][1:] for attributes in page.all("a")}
    assert targets <= set(ids)


@needs_pdftotext
def test_references_of_a_notebook_have_the_numbers_of_the_report(tmp_path):
    """In brackets, those to what the report does not have are left out; elsewhere they are dead."""
    prose = (
        "# Data\n\nCounts ([figure below](#fig-a)), sizes ([figure below](#fig-none)), both "
        "([table\nabove](#tab-none)). [The last figure below](#fig-a) and [the\ntable above](#tab-a); "
        "[how figure and table compare](#fig-a)."
    )
    first = notebook(tmp_path, "01_data", prose, figure("fig-a"), table("tab-a"))
    rendered = render([first], front=front(), out=tmp_path / "out")
    expected = "Counts (Figure 1), sizes, both. Figure 1 and Table 1; how figure and table compare."
    assert expected in " ".join(page_of(rendered).text.split())
    assert without_spaces(expected) in pdf_text(rendered)
    dead = notebook(tmp_path, "02_next", "# Next\n\nSee [the figure below](#fig-none).")
    with pytest.raises(ReportError, match="#fig-none in 02_next"):
        render([first, dead], front=front(), out=tmp_path / "out")


def test_references_are_those_that_the_report_cites(tmp_path):
    works = "# References\n\n- Course report: numbers.\n- Guo C (2017). Calibration.\n"
    works += "- He K (2016). Residuals.\n- van der Maaten L, Hinton G (2008). Maps.\n"
    works += "- Guo C (2019). Another.\n- Yeh C (2019). Not cited: that is, by no sentence.\n"
    first = notebook(
        tmp_path,
        "01_data",
        "# Data\n\nTemperatures (Guo et\nal. 2017). In 2019 nothing.",
        figure("fig-a", "Maps (van der Maaten and Hinton 2008)."),
    )
    closing = [Prose("# Discussion\n\nHe et al. (2016)."), References(works)]
    rendered = render([first], front=front(), closing=closing, out=tmp_path / "out", pdf=False)
    listed = page_of(rendered).text.rpartition("References")[2]
    shown = [word for word in ("numbers", "Calibration", "Residuals", "Maps") if word in listed]
    assert len(shown) == 4 and "Another" not in listed and "Not cited" not in listed


@pytest.mark.parametrize(
    ("text", "cited"),
    [
        ("Guo *et al.* (2017)", True),
        ("Guo et al.'s (2017)", True),
        ("(Pleiss 2016; Guo, Pleiss, Sun and Weinberger 2017)", True),
        ("Guo et al. (2016) and He et al. (2017)", False),
        ("Guofei et al. (2017)", False),
    ],
)
def test_forms_of_citations(text, cited):
    assert blocks.is_cited("Guo", "2017", text) == cited


def test_list_of_figures_names_what_is_drawn_and_not_the_finding(notebooks, tmp_path):
    caption = "It rises by 3. A line over time; n = 2."
    drawn = Figure("fig-z", SVG, None, caption, "A line", title="A line over time; n = 2.")
    closing = [Prose("# Discussion"), drawn]
    rendered = render(notebooks, front=front(), closing=closing, out=tmp_path / "out", pdf=False)
    text = " ".join(page_of(rendered).text.split())
    assert "Figure 3 A line over time" in text and "Figure 3 It rises" not in text
    assert "Figure 3. It rises by 3. A line over time; n = 2." in text


def test_code_streams_and_repeated_captions_are_left_out(notebooks, tmp_path):
    notebooks[0] = notebook(
        tmp_path,
        "01_data",
        "# Data",
        code(new_output("execute_result", data={"text/plain": "RESULT"}, execution_count=1)),
        figure(),
        code(text("SECRET").outputs[0], tags=("notebook-only",)),
    )
    notebooks[1] = notebook(tmp_path, "02_next", "# Next")
    rendered = render(notebooks, front=front(), out=tmp_path, pdf=False)
    assert rendered.pdf is None and rendered.warnings == []
    for word in ("HIDDEN", "NOISE", "DUPLICATE", "RESULT", "SECRET"):
        assert word not in page_of(rendered).text


@needs_pdftotext
def test_captions_are_the_same_in_html_and_pdf(notebooks, tmp_path):
    rendered = render(notebooks, front=front(), out=tmp_path)
    html_text, pdf = without_spaces(page_of(rendered).text), pdf_text(rendered)
    for line in (
        "Figure 1. First caption: 3 < 4 & 5.",
        "Table 1. Second caption.",
        "Figure 2. Third caption.",
        "SYNTHETIC PHANTOMS",
        "Not for clinical use.",
        "There are 42 images.",
    ):
        assert without_spaces(line) in html_text
        assert without_spaces(line) in pdf


def test_pdf_has_metadata_outline_and_tags_and_is_reproducible(notebooks, tmp_path):
    first = render(notebooks, front=front(), out=tmp_path / "a")
    second = render(notebooks, front=front(), out=tmp_path / "b")
    assert first.pdf.read_bytes() == second.pdf.read_bytes()
    assert first.html.read_bytes() == second.html.read_bytes()
    reader = pypdf.PdfReader(first.pdf)
    assert (reader.metadata.title, reader.metadata.author) == ("A small report", "A. Student")
    assert reader.root_object["/MarkInfo"]["/Marked"]
    outline = [entry.title for entry in reader.outline if not isinstance(entry, list)]
    assert any("Data" in title for title in outline)
    assert any("Next" in title for title in outline)
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["report.html", "report.pdf"]


def test_source_date_epoch_sets_the_date_of_the_pdf(notebooks, tmp_path, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    rendered = render(notebooks, front=front(), out=tmp_path)
    assert pypdf.PdfReader(rendered.pdf).metadata.creation_date.year == 1970


def test_html_is_one_file_without_scripts_or_network_access(notebooks, tmp_path):
    rendered = render(notebooks, front=front(), out=tmp_path, pdf=False)
    page = page_of(rendered)
    policy = [meta["content"] for meta in page.all("meta") if "http-equiv" in meta]
    assert policy[0].startswith("default-src 'none'; img-src data:")
    assert not page.all("script")
    for tag, attributes in page.elements:
        for name in ("src", "href", "data", "action", "poster"):
            assert tag == "a" or not attributes.get(name, "").startswith("http")
    assert "url(http" not in rendered.html.read_text()
    for image in page.all("img"):
        assert image["src"].startswith("data:image/svg+xml,%3C") and image["alt"]
    assert all(head["scope"] in {"col", "row"} for head in page.all("th"))


def test_mathematics_is_rendered_as_mathml(notebooks, tmp_path):
    rendered = render(notebooks, front=front(), out=tmp_path)
    page = page_of(rendered)
    assert len(page.all("math")) == 2
    assert 'font-family: "Report Math"' in rendered.html.read_text()
    assert "$$" not in page.text


def test_math_font_is_embedded_only_with_mathematics(tmp_path):
    plain = notebook(tmp_path, "01_data", "# Data\n\nIt costs 3 $.")
    rendered = render([plain], front=front(), out=tmp_path, pdf=False)
    assert "@font-face" not in rendered.html.read_text()


@needs_pdftotext
def test_markup_in_data_is_escaped(tmp_path):
    hostile = notebook(
        tmp_path,
        "01_data",
        "# Data <img src=x onerror=alert(1)>\n\n<script>alert(1)</script> ![a](http://x.y/z.png) "
        '[l](javascript:alert(1)) #eval("x") <b onclick="x">bold</b>\n\n<iframe src="http://x.y">',
        figure(caption=HOSTILE, alt=HOSTILE),
        table(caption=HOSTILE, cell=HOSTILE),
    )
    column = {"label": HOSTILE, "align": "left"}
    hostile_table = Table("tab-n", [column], [[HOSTILE]], HOSTILE, ((0, HOSTILE),))
    rendered = render(
        [hostile],
        front=front(title=HOSTILE, author=HOSTILE, dataset=HOSTILE),
        opening=[hostile_table],
        out=tmp_path,
    )
    assert rendered.warnings == []
    page = page_of(rendered)
    assert not {"script", "iframe", "b", "object", "embed"} & {tag for tag, _ in page.elements}
    assert [image["alt"] for image in page.all("img")] == [HOSTILE]
    for _, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on")]
        assert not attributes.get("href", "").startswith("javascript")
    assert page.text.count(HOSTILE) >= 8
    pdf = pdf_text(rendered)
    assert without_spaces(f"Figure 1. {HOSTILE}") in pdf
    assert without_spaces(f"Table 2. {HOSTILE}") in pdf
    assert pdf.count(without_spaces(HOSTILE)) >= 8
    assert without_spaces('#eval("x") <b onclick="x">bold</b>') in pdf


@pytest.mark.parametrize("name", ["person_🫁.jpeg", "胸部.jpeg"])
def test_missing_glyphs_are_a_warning_and_the_pdf_is_written(tmp_path, name):
    path = notebook(tmp_path, "01_data", "# Data", table(cell=name))
    rendered = render([path], front=front(), out=tmp_path)
    assert rendered.pdf.read_bytes().startswith(b"%PDF")
    assert "not accessible (PDF/UA-1)" in rendered.warnings[0]
    assert name in page_of(rendered).text


@needs_pdftotext
@pytest.mark.parametrize(
    ("columns", "rows", "cell"),
    [(12, 4, ""), (30, 3, ""), (3, 45, ""), (3, 90, ""), (4, 2, "unbreakable" * 20), (1, 0, "")],
)
def test_tables_fit_the_page(tmp_path, columns, rows, cell):
    path = notebook(
        tmp_path, "01_data", "# Data", table(columns=columns, rows=rows, cell=cell), "After."
    )
    rendered = render([path], front=front(), out=tmp_path)
    assert rendered.warnings == []
    run = subprocess.run(
        ["pdftotext", "-bbox", rendered.pdf, "-"], capture_output=True, text=True, check=True
    )
    width = 0.0
    for line in run.stdout.splitlines():
        if match := re.search(r'<page width="([\d.]+)"', line):
            width = float(match[1])
        elif match := re.search(r'<word xMin="([\d.-]+)".* xMax="([\d.]+)"', line):
            assert float(match[1]) > 40 and float(match[2]) < width - 40
    if not cell:
        pdf = pdf_text(rendered)
        assert all(f"r{r}c{c}" in pdf for r in range(rows) for c in range(columns))
    if rows == 90:
        assert pdf.count("Columnnumber1") >= 2


@needs_pdftotext
def test_a_table_that_did_not_fit_comes_before_the_next_chapter(tmp_path):
    """A float of one chapter does not lie below the heading of another."""
    paths = [
        notebook(
            tmp_path,
            "01_data",
            "# Data",
            *["Filling words. " * 60] * 8,
            table(rows=20),
            "Last words.",
        ),
        notebook(tmp_path, "02_next", "# Another chapter", *["More words. " * 60] * 3),
    ]
    rendered = render(paths, front=front(), out=tmp_path)
    run = subprocess.run(
        ["pdftotext", "-layout", rendered.pdf, "-"], capture_output=True, text=True, check=True
    )
    *_, page = (p for p in run.stdout.split("\f") if "More words" in p)
    assert page.index("r19c0") < page.index("Another chapter") < page.index("More words")


def test_failed_and_unfinished_notebooks_are_refused(tmp_path):
    error = new_output("error", ename="KeyError", evalue="'x'", traceback=[])
    failed = notebook(tmp_path, "01_data", "# Data", code(error))
    with pytest.raises(ReportError, match=r"01_data\.ipynb, cell 2 holds the error KeyError: 'x'"):
        render([failed], front=front(), out=tmp_path)
    cell = code()
    cell.execution_count = None
    unfinished = notebook(tmp_path, "02_next", "# Next", code(), cell)
    with pytest.raises(ReportError, match=r"02_next\.ipynb, cell 3 was not executed"):
        render([unfinished], front=front(), out=tmp_path)
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (["# Data\n\n[x](#fig-none)"], "#fig-none in 01_data"),
        (["No title"], "01_data: expected a first Markdown cell"),
        (["# Data", figure(), figure()], "'fig-a' appears in 01_data and 01_data"),
        (["# Data", figure(id="x y")], "id 'x y'"),
        (["# Data", figure(alt=" ")], "'fig-a' needs a caption and an alternative text"),
    ],
)
def test_faults_are_reported_with_their_notebook(tmp_path, cells, message):
    with pytest.raises(ReportError, match=re.escape(message)):
        render([notebook(tmp_path, "01_data", *cells)], front=front(), out=tmp_path)


def test_missing_typst_leaves_html_and_installation_advice(notebooks, tmp_path, monkeypatch):
    (tmp_path / "report.pdf").write_bytes(b"old")
    monkeypatch.setitem(sys.modules, "typst", None)
    rendered = render(notebooks, front=front(), out=tmp_path)
    assert rendered.pdf is None and rendered.html.exists()
    assert not (tmp_path / "report.pdf").exists()
    assert rendered.warnings[0].startswith("PDF skipped: ")
    assert "pip install typst" in rendered.warnings[0]


def test_full_disk_during_typesetting_is_an_error(notebooks, tmp_path, monkeypatch):
    def disk_full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    render(notebooks, front=front(), out=tmp_path, pdf=False)
    monkeypatch.setattr(output, "typeset", disk_full)
    with pytest.raises(OSError, match="No space left"):
        render(notebooks, front=front(title="Another"), out=tmp_path)
    assert "Another" not in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_undefined_name_in_prose_is_reported_with_file_and_line(tmp_path, monkeypatch):
    monkeypatch.setattr(contents, "HERE", tmp_path)
    for line, message in (
        ("{{ tset.accuracy }}", "'tset' is undefined"),
        ("{% if %}", "Expected an expression"),
    ):
        (tmp_path / "abstract.md").write_text(f"# Abstract\n\n{line}\n")
        with pytest.raises(ReportError, match=rf"report/abstract\.md, line 3: {message}"):
            contents._prose("abstract.md", {})


def test_unclosed_code_fence_ends_with_its_cell(tmp_path):
    path = notebook(tmp_path, "01_data", "# Data\n\n```\nopen", "## After\n\n- [ ] point")
    page = page_of(render([path], front=front(), out=tmp_path))
    assert {"id": "data-after"} in page.all("h3")
    assert not page.all("input")


def test_skipped_heading_levels_are_filled(tmp_path):
    path = notebook(tmp_path, "01_data", "# Data", "### Deep", "###### Deeper")
    rendered = render([path], front=front(), out=tmp_path)
    assert rendered.warnings == []
    assert page_of(rendered).all("h3") and page_of(rendered).all("h4")
