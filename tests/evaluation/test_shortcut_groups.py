import numpy as np
import pandas as pd
import pytest

from cxr_helpers.evaluation import bootstrap, shortcut_groups


def images(classes, border_normal, *, others=("bacterial", "viral")):
    """Return images of which each is a patient; the border's other classes share what is left."""
    normal = np.asarray(border_normal, dtype=float)
    index = pd.DataFrame({"class_name": classes, "border_normal": normal})
    index["group"] = [f"{name} {i}" for i, name in enumerate(classes)]
    return index.assign(**{f"border_{name}": (1 - normal) / len(others) for name in others})


def a_frame_that_knows(*, against=0, of=40):
    """Return half normal, half viral images; the border contradicts the last few of each class."""
    said = np.array([0.9] * (of - against) + [0.1] * against)
    return images(["normal"] * of + ["viral"] * of, np.concatenate([said, 1 - said]))


@pytest.mark.parametrize(
    ("others", "said", "wanted"),
    [  # of three balanced classes P(normal) is neutral at 1/3, of two at 1/2
        (("bacterial", "viral"), [0.51, 0.49, 1 / 3, 0.21, 0.19], [1, 0, 0, 0, -1]),
        (("pneumonia",), [0.68, 0.66, 0.5, 0.34, 0.32], [1, 0, 0, 0, -1]),
    ],
)
def test_a_frame_speaks_from_twice_the_odds_of_its_networks_training(others, said, wanted):
    sure = [0.95] * 20 + [0.02] * 20
    index = images(["normal"] * 20 + ["viral"] * 20 + ["normal"] * 5, sure + said, others=others)
    assert shortcut_groups.alignment(index, seed=0)[40:].tolist() == wanted
    index["class_name"] = ["normal"] * 20 + ["viral"] * 25
    assert shortcut_groups.alignment(index, seed=0)[40:].tolist() == [-side for side in wanted]


def test_an_empty_column_is_no_class_of_the_frame():
    index = images(["normal", "viral"], [0.6, 0.4], others=("pneumonia",))
    assert shortcut_groups.prior(index) == 1 / 2
    assert shortcut_groups.prior(index.assign(border_viral=np.nan, border_bacterial=0.0)) == 1 / 2
    assert shortcut_groups.prior(images(["normal"], [0.2])) == 1 / 3


def test_a_frame_that_knows_nothing_contradicts_nothing():
    """As on default phantoms: all P(normal) near 1/3, whatever the class."""
    for said in (np.linspace(0.3, 0.4, 200), np.linspace(0, 1, 200)):
        index = images(["normal", "viral"] * 100, said)
        _, low, high = shortcut_groups.auroc(index, seed=0)
        assert low < 0.5 < high
        assert not shortcut_groups.alignment(index, seed=0).any()


def test_images_are_counted_by_side():
    index = pd.concat([a_frame_that_knows(against=6), a_frame_that_knows(against=3)[:40]])
    found = shortcut_groups.counts(index, seed=0)
    assert list(found.values()) == [120, 34 + 34 + 37, 9, 6, 0]


@pytest.mark.parametrize("index", [a_frame_that_knows()[:0], a_frame_that_knows()[:40]])
def test_no_image_or_one_class_has_no_sides(index):
    assert np.isnan(shortcut_groups.auroc(index, seed=0)).all()
    assert not shortcut_groups.alignment(index, seed=0).any()


def test_images_that_no_frame_network_judged_have_no_sides():
    index = a_frame_that_knows().assign(border_normal=np.nan)
    assert not shortcut_groups.alignment(index, seed=0).any()


def grouped(index):
    """Return what ``worst`` needs besides the predictions."""
    normal = (index["class_name"] == "normal").to_numpy()
    side = shortcut_groups.alignment(index, seed=0)
    return normal, side, bootstrap.resamples(index["group"], ~normal, draws=400, seed=0)


def test_the_worst_group_has_its_own_images_and_interval():
    index = a_frame_that_knows(against=10)
    normal, side, draws = grouped(index)
    right = np.ones(80, dtype=bool)
    right[30:35] = right[70] = False  # half of the ten contradicted normal images, one viral
    value, low, high, n = shortcut_groups.worst_group_accuracy(right, normal, side, draws)
    assert (value, n) == (0.5, 10) and 0.1 < low < 0.4 and 0.6 < high < 0.9
    worst = shortcut_groups.worst_group_accuracy(np.ones(80, dtype=bool), normal, side, draws)
    assert worst[:3] == (1, 1, 1)


def test_the_interval_is_that_of_the_lowest_accuracy_of_each_draw():
    index = a_frame_that_knows(against=10)
    normal, side, draws = grouped(index)
    right = np.random.default_rng(1).random(80) < 0.7
    each = [
        [np.average(right[rows], weights=draw[rows]) for rows in groups if draw[rows].sum()]
        for groups in [[np.r_[0:30], np.r_[30:40], np.r_[40:70], np.r_[70:80]]]
        for draw in draws
    ]
    wanted = np.percentile([min(found) for found in each], [2.5, 97.5])
    assert shortcut_groups.worst_group_accuracy(right, normal, side, draws)[1:3] == pytest.approx(
        wanted
    )


def test_without_contradicted_images_there_is_no_worst_group():
    """Else it would be the lower of sensitivity and specificity."""
    right = np.arange(80) % 2 == 0
    for against in (0, shortcut_groups.MINIMUM_IMAGES - 1):
        index = a_frame_that_knows(against=against)
        assert shortcut_groups.worst_group_accuracy(right, *grouped(index)) is None


def test_the_auroc_is_that_of_the_contradicted_images_alone():
    index = a_frame_that_knows(against=10)
    normal, side, draws = grouped(index)
    y_true, score = (~normal).astype(int), np.linspace(0, 1, 80)
    value, low, high, n = shortcut_groups.conflicting_auroc(y_true, score, side, draws)
    assert (value, low, high, n) == (1, 1, 1, 20)
    score[30:40] += 0.5  # 0.88 to 0.99 for the normal images, 0.89 to 1 for those with pneumonia
    value, low, high, n = shortcut_groups.conflicting_auroc(y_true, score, side, draws)
    assert low < value < high < 1 and n == 20
    assert (
        shortcut_groups.conflicting_auroc(y_true, score, np.where(normal, 1, side), draws) is None
    )


def test_a_caption_says_what_the_groups_are_or_why_there_are_none():
    said = shortcut_groups.note({}, ["worst_group_accuracy"])
    assert "Worst group" in said and "Contradicted" not in said and "n is the number" in said
    said = shortcut_groups.note({"test": (0.479, 0.42, 0.54)}, [])
    assert "test 0.479 [0.42, 0.54]" in said and "nothing for a label to contradict" in said
    known = {"test": (0.99, 0.98, 1.0), "contiguous": (0.6, 0.4, 0.8), "validation": (np.nan,) * 3}
    nothing, few = shortcut_groups.note(known, []).split("says. ")
    assert "(AUROC: contiguous 0.600 [0.40, 0.80])" in nothing and "nothing for a label" in nothing
    assert few.startswith("The border contradicts the class of too few images (AUROC: test 0.990")
    assert "nothing" not in shortcut_groups.note({"test": known["test"]}, [])
    assert "(AUROC" not in shortcut_groups.note({}, [])
