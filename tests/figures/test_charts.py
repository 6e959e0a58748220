import base64
import io
import re
from functools import partial
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from matplotlib import colormaps
from matplotlib import pyplot as plt
from matplotlib.colors import Normalize, to_hex
from PIL import Image
from scipy import ndimage

from cxr_helpers.data import dataset
from cxr_helpers.evaluation import calibration
from cxr_helpers.figures import charts, publishing, xrays

RNG = np.random.default_rng(0)
CLASSES = np.array(["normal", "bacterial", "viral"])[np.arange(60) % 3]
INDEX = pd.DataFrame(
    {
        "class_name": CLASSES,
        "split": np.array(["train", "test"])[np.arange(60) // 3 % 2],
        "width": RNG.integers(400, 2000, 60),
        "height": RNG.integers(400, 2000, 60),
    }
)
IMAGES = RNG.integers(0, 256, (60, 8, 8), dtype=np.uint8)
HISTORY = pd.DataFrame(
    {
        "epoch": [1, 2, 3],
        "loss": [0.9, 0.5, 0.4],
        "accuracy": [0.5, 0.7, 0.8],
        "val_loss": [0.8, 0.6, 0.7],
        "val_accuracy": [0.6, 0.7, 0.6],
        "best": [False, True, False],
    }
)


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def axes_of(fig):
    fig.canvas.draw()  # fails where a figure cannot be drawn
    return fig.axes


def test_class_counts_draws_bars_of_the_counted_height():
    (ax,) = axes_of(charts.class_counts(dataset.counts(INDEX)))
    assert [bar.get_height() for bar in ax.containers[0]] == [10, 10]


def test_image_sizes_draws_points_by_class():
    points, _ = axes_of(charts.image_sizes(INDEX))
    assert sorted(len(c.get_offsets()) for c in points.collections) == [20, 20, 20]


def test_intensity_draws_a_density_for_each_class():
    shares, _ = axes_of(charts.intensity(IMAGES, CLASSES))
    assert len(shares.lines) == 3
    assert sum(shares.lines[0].get_ydata()) * 4 == pytest.approx(1, abs=0.02)


def test_learning_curves_show_both_splits_and_the_best_epoch():
    loss, accuracy = axes_of(charts.learning_curves(HISTORY))
    assert [line.get_ydata()[0] for line in loss.lines[:2]] == [0.9, 0.8]
    assert loss.lines[2].get_xdata()[0] == 2 and accuracy.get_ylabel() == "accuracy"


def test_learning_curves_without_validation():
    alone = HISTORY.drop(columns=["val_loss", "val_accuracy"])
    (loss,) = axes_of(charts.learning_curves(alone, metric=None))
    assert len(loss.lines) == 1


def test_confusion_shows_counts_and_row_shares():
    fig = charts.confusion(np.array([0, 0, 1, 1, 1]), np.array([0, 1, 1, 1, 0]), ["a", "b"])
    cells = [text.get_text() for text in axes_of(fig)[0].texts]
    assert cells == ["1\n50%", "1\n50%", "1\n33%", "2\n67%"]


def test_roc_and_precision_recall_legends_show_auroc_and_average_precision():
    scores = {"x": np.array([1, 4, 3, 9]), "y": np.array([1, 2, 3, 4])}
    fig = charts.roc_and_precision_recall(np.array([0, 0, 1, 1]), scores)
    legends = [[t.get_text() for t in ax.get_legend().get_texts()] for ax in axes_of(fig)]
    # average precision of x by hand: 1/2 · 1 + 1/2 · 2/3
    assert legends == [["x, AUROC 0.750", "y, AUROC 1.000"], ["x, AP 0.833", "y, AP 1.000"]]
    assert [ax.get_xlabel() for ax in fig.axes] == ["1 − specificity", "recall (sensitivity)"]


def test_reliability_draws_bins_with_area_by_number_of_images():
    curve = calibration.reliability([0, 0, 0, 1, 1], [0.1, 0.1, 0.1, 0.9, 0.8])
    (ax,) = axes_of(charts.reliability({"x": curve, "y": curve[:1]}))
    diagonal, line, _ = ax.lines
    assert diagonal.get_linestyle() == ":" and diagonal.get_xydata().tolist() == [[0, 0], [1, 1]]
    assert line.get_xydata() == pytest.approx(np.array([[0.1, 0], [0.8, 1], [0.9, 1]]))
    bars, points = ax.collections[:2]
    assert np.array_equal(points.get_offsets(), line.get_xydata())
    ends = [segment[:, 1] for segment in bars.get_segments()]
    assert ends == pytest.approx(curve[["share low", "share high"]].to_numpy())
    sizes = points.get_sizes()
    assert sizes[0] > sizes[1] == sizes[2]
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["x", "y"]
    assert ax.get_xlabel() == "predicted probability of pneumonia"
    assert ax.get_ylabel() == "observed share of pneumonia"


def test_optimizer_study_draws_one_line_per_optimizer():
    study = pd.DataFrame(
        {
            "optimizer": ["adam", "adam", "sgd", "sgd"],
            "learning_rate": [0.1, 0.01, 0.1, 0.01],
            "val_auroc": [0.5, 0.9, 0.6, 0.7],
        }
    )
    (ax,) = axes_of(charts.optimizer_study(study))
    assert {line.get_label() for line in ax.lines} >= {"adam", "sgd"}


def test_error_histogram_marks_the_threshold():
    errors = {"normal": RNG.random(50), "pneumonia": RNG.random(50)}
    (ax,) = axes_of(charts.error_histogram(errors, threshold=0.25))
    assert ax.lines[0].get_xdata()[0] == 0.25


def test_accuracy_by_threshold_shows_the_majority_class():
    x = np.arange(1, 100)
    fig = charts.accuracy_by_threshold(x, {"a": x / 100, "b": 1 - x / 100}, chosen=5, baseline=0.6)
    assert 0.6 in [line.get_ydata()[0] for line in axes_of(fig)[0].lines]


def test_layer_by_k_keeps_the_order_of_layers():
    study = pd.DataFrame(
        [("m", layer, k, 0.5) for layer in ("z", "a") for k in (1, 5)],
        columns=["model", "layer", "k", "accuracy"],
    )
    (ax,) = axes_of(charts.layer_by_k(study))
    assert [t.get_text() for t in ax.get_yticklabels()] == ["z", "a"]


def test_scatter_by_class_draws_one_panel_per_map():
    points = INDEX.assign(x=RNG.random(60), y=RNG.random(60))
    panels = axes_of(charts.scatter_by_class({"one": points, "two": points}))
    assert [ax.get_title() for ax in panels] == ["one", "two"]
    assert sum(len(c.get_offsets()) for c in panels[0].collections) == 60


def shown(ax):
    return ax.images[0].get_array()


def test_grid_shows_images_over_the_full_grey_range():
    fig = xrays.grid([IMAGES[:3], IMAGES[3:5]], row_labels=["a", "b"], titles=[["1", "2", "3"]] * 2)
    axes = axes_of(fig)
    assert np.array_equal(shown(axes[0]), IMAGES[0])
    assert axes[0].images[0].get_clim() == (0, 255)
    assert [ax.get_visible() for ax in axes] == [True] * 5 + [False]


def title_and_panel_boxes(fig):
    """Return the boxes of each title and its panel in pixels: x0, y0, x1, y1."""
    fig.draw_without_rendering()
    drawn = [ax for ax in axes_of(fig) if ax.get_title()]
    return [(ax.title.get_window_extent().extents, ax.get_window_extent().extents) for ax in drawn]


@pytest.mark.parametrize("columns", [5, 8])
def test_titles_of_any_length_overlap_neither_each_other_nor_an_image(columns):
    long = ["P 0.99, normal NORMAL2-IM-1427\n2090 × 1858", "P 0.99, bacterial 1946\n1422 × 1152"]
    long += ["P 0.98, unknown test/IM-0115-0001 (copy of a $copy$).jpeg", f"unknown {'0a1b2c' * 6}"]
    titles = [[long[(i + j) % 4] for j in range(columns)] for i in range(2)]
    rows = [IMAGES[:columns]] * 2
    grid = xrays.grid(rows, row_labels=["false alarm", "missed"], titles=titles)
    heats = [np.ones((columns, 8, 8))] * 2
    labels = {"row_labels": ["a", "b"], "titles": titles, "label": "heat", "signed": False}
    for fig in (grid, xrays.overlays(rows, heats, **labels)):
        boxes = title_and_panel_boxes(fig)
        assert len(boxes) == 2 * columns
        assert max(label[3] for label, _ in boxes) <= fig.bbox.y1  # nothing is clipped at the top
        for row in (boxes[:columns], boxes[columns:]):
            assert all(left[2] < right[0] for (left, _), (right, _) in pairwise(row))
        above, below = (
            (image[1] for _, image in boxes[:columns]),
            (t[3] for t, _ in boxes[columns:]),
        )
        assert min(above) >= max(below)
        shown_titles = ["".join(ax.get_title().split()) for ax in fig.axes if ax.get_title()]
        assert shown_titles == ["".join(title.split()) for row in titles for title in row]


@pytest.mark.parametrize("labels", [None, ["missed"]])
@pytest.mark.parametrize("columns", [1, 3])
@pytest.mark.parametrize("title", ["a", "P 0.20, bacterial\n50\n48 × 48"])
def test_titles_of_a_single_row_are_not_clipped(title, columns, labels):
    fig = xrays.grid([IMAGES[:columns]], row_labels=labels, titles=[[title] * columns])
    assert max(label[3] for label, _ in title_and_panel_boxes(fig)) <= fig.bbox.y1


def test_grid_draws_outlines_of_nonempty_masks():
    masks = np.zeros((2, 8, 8), bool)
    masks[1, 2:5, 2:5] = True
    axes = axes_of(xrays.grid([IMAGES[:2]], outlines=[masks]))
    assert [len(ax.collections) for ax in axes] == [0, 1]


@pytest.mark.parametrize(("signed", "low", "cmap"), [(True, -2, "RdBu_r"), (False, 0, "inferno")])
def test_overlays_share_one_colour_range(signed, low, cmap):
    heats = [np.full((2, 8, 8), 1.0), np.full((1, 8, 8), -2.0)]
    fig = xrays.overlays(
        [IMAGES[:2], IMAGES[2:3]],
        heats,
        row_labels=["a", "b"],
        titles=[["1", "2"], ["3"]],
        label="heat",
        signed=signed,
    )
    maps = [ax.images[1].get_array()[0, 0] for ax in axes_of(fig) if len(ax.images) == 2]
    for colour, heat in zip(maps, (1.0, 1.0, -2.0), strict=True):
        expected = colormaps[cmap](Normalize(low, 2.0)(heat))[:3]
        np.testing.assert_allclose(colour[:3], expected)
        assert colour[3] == pytest.approx(0.15 + 0.3 * abs(heat))


def test_image_shows_through_the_map_in_vector_graphics():
    options = {"row_labels": ["a"], "titles": [["b"]], "label": "heat", "signed": True}
    fig = xrays.overlays([IMAGES[:1]], [np.array([[[0.0] * 8] * 4 + [[1.0] * 8] * 4])], **options)
    svg, _ = publishing.pictures(fig, id="fig-a")
    encoded = publishing.EMBEDDED.findall(svg)
    embedded = [
        Image.open(io.BytesIO(base64.b64decode(image))).convert("RGBA") for image in encoded
    ]
    (heat,) = [i for i in embedded if i.size == (8, 8) and i.getchannel("A").getextrema()[0] < 255]
    opacity = np.asarray(heat.getchannel("A"))
    assert set(opacity[:4].ravel()) == {38} and set(opacity[4:].ravel()) == {191}  # 0.15, 0.75
    images = re.findall("<image.*?/>", svg, re.DOTALL)
    assert len(images) >= 3  # above, below, and the map over the one below


def similarity(one, other):
    """Return the mean structural similarity (Wang et al. 2004) of two grey images, 0 to 255."""
    blurred = partial(ndimage.uniform_filter, size=7)
    one, other = one.astype(float), other.astype(float)
    means = blurred(one), blurred(other)
    spread = [blurred(x * x) - m * m for x, m in zip((one, other), means, strict=True)]
    shared = blurred(one * other) - means[0] * means[1]
    low, high = 2.55**2, 7.65**2
    found = (2 * means[0] * means[1] + low) * (2 * shared + high)
    return (found / ((means[0] ** 2 + means[1] ** 2 + low) * (sum(spread) + high))).mean()


@pytest.mark.parametrize("signed", [True, False])
def test_few_colours_of_a_heat_map_look_like_many(monkeypatch, signed):
    image = ndimage.gaussian_filter(RNG.normal(size=(64, 64)), 3)
    heat = ndimage.gaussian_filter(RNG.normal(size=(64, 64)), 6)
    image = np.uint8(np.interp(image, (image.min(), image.max()), (0, 255)))
    drawn = []
    for levels in (xrays.LEVELS, 10**6):
        monkeypatch.setattr(xrays, "LEVELS", levels)
        options = {"row_labels": ["a"], "titles": [["b"]], "label": "heat", "signed": signed}
        _, png = publishing.pictures(xrays.overlays([image[None]], [heat[None]], **options), id="x")
        drawn.append(np.asarray(Image.open(io.BytesIO(png)).convert("L")))
    assert not np.array_equal(*drawn) and similarity(*drawn) > 0.99


def test_regions_are_outlined_on_the_maps_in_their_colours():
    masks = np.zeros((2, 8, 8), bool)
    masks[0, 2:5, 2:5] = True
    fig = xrays.overlays(
        [IMAGES[:2]],
        [np.ones((2, 8, 8))],
        row_labels=["a"],
        titles=[["1", "2"]],
        label="heat",
        signed=False,
        regions={"lesion": [masks], "outer sixth": [~masks]},
    )
    drawn = [c for ax in axes_of(fig) for c in ax.collections if c.get_edgecolor().size]
    outlines = [c for c in drawn if to_hex(c.get_edgecolor()[0]).upper() == xrays.REGIONS["lesion"]]
    assert len(outlines) == 1  # the other image has no lesion
    assert [text.get_text() for text in fig.legends[0].get_texts()] == ["lesion"]


def test_a_strip_has_a_row_for_each_method_and_names_its_steps_once():
    maps = {
        m: {step: np.full((8, 8), k) for k, step in enumerate(("trained", "all"))} for m in "ab"
    }
    axes = axes_of(xrays.strip(IMAGES[0], maps))
    assert [ax.get_title() for ax in axes] == ["image", "trained", "all", "", "", ""]
    assert [ax.get_ylabel() for ax in axes] == ["", "a", "", "", "b", ""]
    assert [ax.get_visible() for ax in axes] == [True] * 3 + [False, True, True]
    assert [ax.images[0].get_clim() for ax in (axes[1], axes[2])] == [(0, 1)] * 2


def test_mean_maps_have_a_colour_range_centred_at_zero():
    fig = xrays.mean_maps(
        [np.full((8, 8), 0.5), np.full((8, 8), -1.0)],
        titles=["a", "b"],
        label="heat",
        background=IMAGES.mean(axis=0),
    )
    assert {ax.images[1].get_clim() for ax in axes_of(fig) if len(ax.images) == 2} == {(-1, 1)}


def test_steps_are_drawn_from_top_to_bottom_with_their_intervals():
    table = pd.DataFrame(
        {
            "step": ["first", "first", "second", "second"],
            "marker": ["kept", "removed"] * 2,
            "value": [0.9, 0.4, 0.8, 0.7],
            "low": [0.8, 0.3, 0.7, 0.6],
            "high": [1.0, 0.5, 0.9, 0.8],
        }
    )
    ax = charts.ablation(table).axes[0]
    bars = [[bar.get_width() for bar in container] for container in ax.containers[::2]]
    assert bars == [[0.9, 0.8], [0.4, 0.7]]  # one colour for each condition
    assert [label.get_text() for label in ax.get_yticklabels()] == ["first", "second"]
    assert ax.yaxis_inverted()
    lines = [c for c in ax.collections if len(c.get_segments()) == 2]
    ends = np.sort([segment[:, 0] for line in lines for segment in line.get_segments()], axis=None)
    assert np.allclose(ends, [0.3, 0.5, 0.6, 0.7, 0.8, 0.8, 0.9, 1.0])


def test_class_colours_are_distinct():
    assert len(set(charts.COLOURS.values())) == len(charts.COLOURS)


def test_png_has_the_size_that_was_asked_and_a_map_colours_it():
    image = np.full((8, 8), 100, np.uint8)
    plain = np.asarray(Image.open(io.BytesIO(xrays.png(image, side=40))))
    assert plain.shape == (40, 40, 3) and (plain == 100).all()
    heat = np.zeros((4, 4))
    heat[0, 0] = 1.0
    coloured = np.asarray(Image.open(io.BytesIO(xrays.png(image, side=40, heat=heat, signed=True))))
    red, _, blue = coloured[2, 2].astype(int)
    assert red > blue + 50 and (coloured[30, 30] > 80).all()


def test_maps_stand_beside_their_image():
    images = [np.zeros((2, 4, 4), np.uint8), np.zeros((1, 4, 4), np.uint8)]
    maps = {m: [np.ones((len(x), 4, 4)) for x in images] for m in ("A", "B")}
    titles = [["one", "two"], ["three"]]
    fig = xrays.beside(images, maps, row_labels=["x", "y"], titles=titles, label="share")
    shown = [ax for ax in fig.axes[:-1] if ax.get_visible()]
    assert [ax.get_title() for ax in shown] == ["one", "A", "B", "two", "A", "B", "three", "A", "B"]
    assert [len(ax.images) for ax in shown] == [1, 2, 2] * 3
