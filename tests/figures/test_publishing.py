import base64
import io
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from PIL import Image

from cxr_helpers.figures import publishing
from report import blocks


@pytest.fixture
def shown(monkeypatch):
    """Return a function that calls another and returns the outputs it displayed."""

    def show(function, *arguments, **options):
        outputs = []

        def display(data, *, raw, metadata):
            assert raw
            outputs.append(SimpleNamespace(data=data, metadata=metadata))

        monkeypatch.setattr(publishing, "_display", display)
        function(*arguments, **options)
        return outputs

    return show


def line():
    fig, ax = plt.subplots(figsize=(3.3, 2))
    ax.plot([0, 1])
    return fig


META = {"id": "fig-a", "caption": "A line.", "alt": "A rising line"}


def test_figure_displays_vector_raster_and_metadata(shown):
    plt.close("all")  # what other tests drew in this process
    _, output, caption = shown(publishing.figure, line(), **META, synthetic=False)
    assert output.data["image/svg+xml"].startswith("<?xml")
    assert set(output.data) == {"image/svg+xml", "image/png", "text/plain"}
    assert output.metadata["cxr"] == {"kind": "figure", "width": 0.5, "title": "A line."} | META
    assert caption.metadata["cxr"]["kind"] == "caption"
    assert not plt.get_fignums()


def test_captions_state_that_images_are_synthetic(shown):
    _, output, caption = shown(publishing.figure, line(), **META, synthetic=True)
    assert output.metadata["cxr"]["caption"] == "SYNTHETIC PHANTOMS. A line."
    assert "SYNTHETIC PHANTOMS" in caption.data["text/markdown"]
    frame = pd.DataFrame({"a": [1]})
    _, output, _ = shown(publishing.table, frame, id="tab-a", caption="One.", synthetic=True)
    assert output.metadata["cxr"]["caption"] == "SYNTHETIC PHANTOMS. One."


def test_links_of_a_notebook_lead_to_its_figures_and_tables(shown):
    frame = pd.DataFrame({"a": [1]})
    drawn = shown(publishing.figure, line(), **META, synthetic=False)
    listed = shown(publishing.table, frame, id="tab-a", caption="One.", synthetic=False)
    for (anchor, output, _), id in ((drawn, "fig-a"), (listed, "tab-a")):
        assert anchor.data["text/markdown"] == f'<a id="{id}"></a>'
        assert output.metadata["cxr"]["id"] == id
        assert blocks.output_block(anchor.data, anchor.metadata["cxr"]) is None  # not in the report


def test_finding_stands_before_the_caption_and_not_in_the_title(shown):
    options = META | {"finding": "It rises."}
    _, output, _ = shown(publishing.figure, line(), **options, synthetic=True)
    published = output.metadata["cxr"]
    assert published["caption"] == "SYNTHETIC PHANTOMS. It rises. A line."
    assert published["title"] == "A line."


def test_figure_output_is_reproducible(shown):
    one, two = (shown(publishing.figure, line(), **META, synthetic=False)[1] for _ in range(2))
    assert one.data["image/svg+xml"] == two.data["image/svg+xml"]
    assert one.data["image/png"] == two.data["image/png"]


@pytest.mark.parametrize("name", ["caption", "alt"])
def test_figure_without_caption_or_alternative_text_is_refused(name):
    with pytest.raises(ValueError, match="needs a caption and an alternative text"):
        publishing.figure(line(), **(META | {name: " "}), synthetic=False)
    plt.close("all")


def test_table_content_is_text_with_numbers_right_aligned():
    frame = pd.DataFrame({"row": ["a", "b"], "value": [0.12345, np.nan], "n": [3, 4]})
    content = publishing.table_content(frame, formats={"value": ".3f"})
    assert [c["align"] for c in content["columns"]] == ["left", "right", "right"]
    assert content["rows"] == [["a", "0.123", "3"], ["b", "–", "4"]]


def test_format_for_an_unknown_column_is_refused():
    with pytest.raises(ValueError, match=r"unknown columns \['valu'\]"):
        publishing.table_content(pd.DataFrame({"value": [1]}), formats={"valu": ".3f"})


def test_caption_is_escaped(shown):
    hostile = "<img src=x onerror=alert(1)> *a* $x$"
    *_, caption = shown(publishing.figure, line(), **(META | {"caption": hostile}), synthetic=False)
    markdown = caption.data["text/markdown"]
    assert "<img" not in markdown and "\\*a\\*" in markdown and "\\$x\\$" in markdown


def test_table_cell_is_escaped(shown):
    frame = pd.DataFrame({"file": ["<script>1</script>"]})
    _, output, _ = shown(publishing.table, frame, id="tab-a", caption="One.", synthetic=False)
    assert "<script" not in output.data["text/html"]
    assert output.data[publishing.TABLE_MIME]["rows"] == [["<script>1</script>"]]


def embedded(svg):
    """Return the images in an SVG."""
    found = publishing.EMBEDDED.findall(svg)
    return [Image.open(io.BytesIO(base64.b64decode(image))) for image in found]


RAMP = np.random.default_rng(0).integers(0, 64, (40, 40, 1), dtype=np.uint8)
GREY = np.repeat(RAMP, 3, axis=2)
NOISE = np.random.default_rng(0).integers(0, 256, (20, 20, 4), dtype=np.uint8)


@pytest.mark.parametrize(
    ("image", "mode"),
    [
        (GREY, "L"),
        (GREY * np.uint8([1, 2, 3]), "P"),
        (np.dstack([GREY, 3 * GREY[..., :1]]), "P"),
        (NOISE[..., :3], "RGB"),
        (NOISE, "RGBA"),
    ],
)
def test_embedded_image_has_only_the_channels_it_needs_and_the_same_pixels(image, mode):
    def drawn():
        fig, ax = plt.subplots()
        ax.imshow(image)
        return fig

    plain, fig = io.BytesIO(), drawn()
    fig.savefig(plain, format="svg")
    plt.close(fig)
    svg, _ = publishing.pictures(drawn(), id="fig-a")
    ((before,), (after,)) = embedded(plain.getvalue().decode()), embedded(svg)
    assert before.mode == "RGBA" and after.mode == mode
    assert np.array_equal(before.convert("RGBA"), after.convert("RGBA"))
