"""The panel: controls move, answers follow."""

import io
import re
from datetime import datetime

import numpy as np
import pytest
from PIL import Image

from cxr_helpers.explore import panel
from cxr_helpers.explore.session import MAPS, Session
from cxr_helpers.pipeline.store import Store

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]  # a fixture is a whole run


@pytest.fixture(scope="module")
def session(on_phantoms, tmp_path_factory):
    return Session(on_phantoms, store=Store(tmp_path_factory.mktemp("store")))


@pytest.fixture
def shown(session):
    return panel.Panel(session)


def probabilities(shown):
    """Return those of the image as it is shown, one for each network and threshold."""
    return re.findall(r'value="([\d.]+)"', shown.outputs["answers"].value)


def as_png(pixels):
    with io.BytesIO() as file:
        Image.fromarray(pixels).save(file, "PNG")
        return file.getvalue()


def upload(shown, content):
    """Set the value of the upload as ipywidgets 8 does when a file was chosen."""
    facts = {
        "name": "a.png",
        "type": "image/png",
        "size": len(content),
        "last_modified": datetime.now(),
    }
    shown.controls["upload"].value = ({**facts, "content": memoryview(content)},)


def of_tests(session, values):
    """Return a function that gives the probabilities of all images, those of test images from a dict."""

    def probability(name):
        every = np.zeros(len(session.index))
        every[session.rows("test")] = values[name]
        return every

    return probability


def test_says_what_it_is_for(shown):
    notice = shown.widget.children[0].value
    assert "Not for clinical use" in notice and "synthetic phantoms" in notice


def test_image_without_severity_is_shown(session, monkeypatch):
    """Of real images that the networks of a run of phantoms score, the field is empty."""
    monkeypatch.setattr(session, "index", session.index.assign(severity=""))
    shown = panel.Panel(session)
    shown.controls["number"].value = 1
    assert shown.controls["severity"].value == 0.0


def test_each_image_has_its_own_answers_and_label(shown, session):
    first, label = probabilities(shown), shown.outputs["what"].value
    assert len(first) == 4  # ours has two thresholds
    shown.controls["number"].value = 1
    row = session.rows("test")[1]
    assert session.index["file"][row] in shown.outputs["what"].value != label
    assert probabilities(shown) != first
    shown.controls["split"].value = "train"
    assert shown.controls["number"].value == 0
    assert session.index["file"][session.rows("train")[0]] in shown.outputs["what"].value


@pytest.mark.parametrize(
    ("control", "value"),
    [
        ("border", 0.3),
        ("lesion_contrast", 3.0),
        ("marker", 1.0),
    ],
)
def test_change_moves_picture_and_probabilities_and_can_be_undone(shown, session, control, value):
    rows = session.rows("test")
    normal = session.index["class_name"].iloc[rows] == (
        "viral" if "contrast" in control else "normal"
    )
    shown.controls["number"].value = int(np.flatnonzero(normal)[0])
    before, picture = probabilities(shown), shown.outputs["image"].value
    shown.controls[control].value = value
    assert probabilities(shown) != before and shown.outputs["image"].value != picture
    shown.controls["reset"].click()
    assert probabilities(shown) == before and shown.outputs["image"].value == picture


def test_change_of_each_probability_is_shown_while_there_is_one(shown):
    def changes():
        return re.findall(r"<td>([+-]\d\.\d{3})</td>", shown.outputs["answers"].value)

    before = [float(value) for value in probabilities(shown)]
    assert "<th>change</th>" not in shown.outputs["answers"].value and not changes()
    shown.controls["border"].value = 0.3
    after = [float(value) for value in probabilities(shown)]
    shown.controls["network"].value = "ours"  # the change stays
    expected = np.subtract(after, before)
    assert np.abs(expected).max() > 0.001  # else nothing is shown
    np.testing.assert_allclose([float(value) for value in changes()], expected, atol=0.0007)
    shown.controls["number"].value = 1
    assert not changes()
    second = [float(value) for value in probabilities(shown)]
    shown.controls["border"].value = 0.2
    expected = np.subtract([float(value) for value in probabilities(shown)], second)
    np.testing.assert_allclose([float(value) for value in changes()], expected, atol=0.0007)


def test_images_of_one_class_are_chosen(shown, session):
    for name in ("viral", "normal"):
        shown.controls["class_name"].value = name
        rows = session.rows("test", name)
        assert shown.controls["number"].max == len(rows) - 1 < len(session.rows("test")) - 1
        shown.controls["number"].value = len(rows) - 1
        row = session.index.iloc[rows[-1]]
        assert row["class_name"] == name
        assert shown.outputs["what"].value == f"test: {name}, {row['file']}"
    shown.controls["class_name"].value = "all"
    assert shown.controls["number"].max == len(session.rows("test")) - 1


def test_class_without_an_image_is_named(session, monkeypatch):
    lacking = session.index["class_name"].where(session.index["split"] != "test", "normal")
    monkeypatch.setattr(session, "index", session.index.assign(class_name=lacking))
    shown = panel.Panel(session)
    shown.controls["class_name"].value = "viral"
    assert shown.outputs["fault"].value == "The split test has no viral image."
    assert shown.controls["class_name"].value == "all"
    assert shown.controls["number"].max == len(session.rows("test")) - 1


def test_misclassified_images_are_shown_one_after_another(session, monkeypatch):
    """At the threshold of the matrix, by the chosen network, and from the start again."""
    rows = session.rows("test")
    y_true = (session.index["class_name"].iloc[rows] != "normal").to_numpy()
    y_prob = np.where(y_true, 0.9, 0.1)
    y_prob[[2, 5]] = 0.9 - 0.8 * y_true[[2, 5]]  # wrong at 0.5
    of = dict.fromkeys(session.networks, np.where(y_true, 0.9, 0.1)) | {"ours": y_prob}
    monkeypatch.setattr(session, "_probability", of_tests(session, of))
    shown = panel.Panel(session)
    shown.controls["misclassified"].click()
    assert shown.controls["number"].value == 0
    assert (
        shown.outputs["fault"].value
        == "At 0.50, none of these images is misclassified by published, binary."
    )
    shown.controls["network"].value = "ours"
    numbers = []
    for _ in range(3):
        shown.controls["misclassified"].click()
        numbers.append(shown.controls["number"].value)
        assert session.index["file"][rows[numbers[-1]]] in shown.outputs["what"].value
        assert not shown.outputs["fault"].value
    assert numbers == [2, 5, 2]
    shown.controls["threshold"].value = 1.0  # all are called normal
    shown.controls["misclassified"].click()
    assert shown.controls["number"].value == 2 + 1 + int(np.argmax(y_true[3:]))


def test_rectangle_is_erased(shown):
    before = shown.outputs["image"].value
    shown.controls["rows"].value = (0.2, 0.6)
    assert shown.outputs["image"].value == before  # no column yet
    shown.controls["columns"].value = (0.2, 0.6)
    assert shown.outputs["image"].value != before


def test_map_covers_the_picture_and_is_named(shown):
    plain = shown.outputs["image"].value
    for network in shown.session.networks.values():
        shown.controls["network"].value = next(
            name for name, own in shown.session.networks.items() if own is network
        )
        for name in MAPS:
            shown.controls["map"].value = name
            assert shown.outputs["map_label"].value
            heat = network.heat(shown._image, name).values
            if np.ptp(heat) > 0:  # a map of a weak network may be empty
                assert shown.outputs["image"].value != plain
    shown.controls["map"].value = "no map"
    assert shown.outputs["image"].value == plain and not shown.outputs["map_label"].value


def test_threshold_moves_the_confusion_matrix(shown):
    def counts():
        return [int(n) for n in re.findall(r"<td>(\d+)</td>", shown.outputs["confusion"].value)]

    shown.controls["threshold"].value = 0.0
    total = sum(counts())
    assert counts()[0] == counts()[2] == 0 and total == len(shown.session.rows("test"))
    shown.controls["threshold"].value = 1.0
    assert counts()[1] == counts()[3] == 0 and sum(counts()) == total
    assert re.search(r"accuracy \d\.\d+ \[\d", shown.outputs["confusion"].value)


def test_network_decides_on_neighbours_map_and_confusion(shown):
    before = shown.outputs["confusion"].value
    shown.controls["network"].value = "ours"
    assert "embedding of ours" in shown.outputs["neighbours"].value
    assert shown.outputs["confusion"].value != before


def test_upload_is_answered_like_the_image_itself(shown, session):
    shown.controls["number"].value = 3
    expected = probabilities(shown)
    shown.controls["number"].value = 0
    upload(shown, as_png(session.images[session.rows("test")[3]]))
    assert shown.outputs["what"].value == "uploaded image" and probabilities(shown) == expected
    shown.controls["marker"].value = 0.9  # nothing of an uploaded image can be drawn again
    assert probabilities(shown) == expected and shown.controls["marker"].disabled
    shown.controls["border"].value = 0.3
    assert probabilities(shown) != expected
    shown.controls["reset"].click()
    assert shown.outputs["what"].value == "uploaded image" and probabilities(shown) == expected
    shown.controls["number"].value = 1
    assert "uploaded" not in shown.outputs["what"].value
    upload(shown, as_png(session.images[session.rows("test")[3]]))  # the same file once more
    assert shown.outputs["what"].value == "uploaded image" and probabilities(shown) == expected


def test_from_an_upload_there_is_a_way_back_to_the_selected_image(shown, session):
    before, what = probabilities(shown), shown.outputs["what"].value
    assert shown.controls["back"].disabled
    upload(shown, as_png(session.images[session.rows("test")[3]]))
    assert shown.outputs["what"].value == "uploaded image"
    shown.controls["back"].click()
    assert shown.outputs["what"].value == what and probabilities(shown) == before
    assert shown.controls["back"].disabled and not shown.controls["marker"].disabled


def test_networks_at_chance_are_named(session, monkeypatch):
    rows = session.rows("test")
    right = (session.index["class_name"].iloc[rows] != "normal").to_numpy(dtype=float)
    first, *others = session.networks
    of = dict.fromkeys(others, np.full(len(rows), 0.5)) | {first: right}
    monkeypatch.setattr(session, "_probability", of_tests(session, of))
    notice = panel.Panel(session).widget.children[0].value
    said = f"On the test images, {', '.join(others)} are not shown to be better than chance"
    assert said in notice
    few = session.index["group"].where(session.index["class_name"] != "normal", "one")
    with monkeypatch.context() as patch:  # of which nothing is concluded
        patch.setattr(session, "index", session.index.assign(group=few))
        assert session.at_chance() == []
    assert session.at_chance() == others
    monkeypatch.setattr(session, "_probability", of_tests(session, dict.fromkeys(of, right)))
    assert "better than chance" not in panel.Panel(session).widget.children[0].value


def test_redrawn_phantom_is_said_to_be_one(shown):
    assert "drawn again" not in shown.outputs["what"].value
    for name in ("severity", "lesion_contrast", "marker"):  # as a browser rounds what it is sent
        value = shown.controls[name].value
        assert value == round(value, 2)
        shown.controls[name].value = value * (1 - 1e-16) - 1e-16
    assert "drawn again" not in shown.outputs["what"].value
    height = shown.controls["marker"].value
    shown.controls["marker"].value = 1.0
    assert shown.outputs["what"].value.endswith("; drawn again, with changes")
    shown.controls["marker"].value = height
    assert "drawn again" not in shown.outputs["what"].value


def test_inverted_upload_is_said_to_be_unlike_the_training_images(shown, session):
    image = session.images[session.rows("train")[0]]
    upload(shown, as_png(image))
    assert "Unlike" not in shown.outputs["answers"].value
    upload(shown, as_png(255 - image))
    assert "Unlike the training images in" in shown.outputs["answers"].value
    assert "layout" in shown.outputs["answers"].value


def test_lesion_is_as_severe_as_the_slider_says(shown, session):
    normal = session.index["class_name"].iloc[session.rows("test")] == "normal"
    shown.controls["number"].value = int(np.flatnonzero(normal)[0])
    before = probabilities(shown)
    shown.controls["lesion"].value = "bacterial"
    assert shown.controls["severity"].value == 0 and probabilities(shown) == before
    shown.controls["severity"].value = 1.0
    assert probabilities(shown) != before


def test_neighbours_of_a_training_image_are_others(shown, session):
    shown.controls["split"].value = "train"
    own = shown._pictures[0].value
    assert "trained on this image" in shown.outputs["answers"].value
    assert own != panel.xrays.png(session.images[session.rows("train")[0]], side=panel.SMALL)


def test_run_whose_stages_do_not_fit_is_refused(on_phantoms, monkeypatch):
    monkeypatch.setattr(panel.Run, "newer_input", lambda run, stage: "01_data")
    with pytest.raises(panel.Refused, match=r"01_data of .* is older than its 01_data"):
        panel.show(on_phantoms.folder)


def test_upload_that_is_no_image_is_named_and_changes_nothing(shown):
    before = probabilities(shown)
    upload(shown, b"<script>alert(1)</script>")
    assert shown.outputs["fault"].value == "a.png is not a readable JPEG or PNG."
    assert "test: " in shown.outputs["what"].value and probabilities(shown) == before
    shown.controls["number"].value = 1
    assert shown.outputs["fault"].value == ""


def test_names_from_outside_are_escaped(session, monkeypatch):
    hostile = session.index.assign(file='<img src=x onerror=alert(1)>&"')
    monkeypatch.setattr(session, "index", hostile)
    assert "<img" not in panel.Panel(session).outputs["what"].value


@pytest.mark.parametrize(
    "value",
    [
        ({"name": "a.png", "content": memoryview(b"abc")},),  # ipywidgets 8
        {"a.png": {"metadata": {"name": "a.png"}, "content": b"abc"}},  # ipywidgets 7
    ],
)
def test_content_of_an_upload_of_either_version(value):
    assert panel.uploaded(value) == ("a.png", b"abc")
    assert panel.uploaded(type(value)()) is None
