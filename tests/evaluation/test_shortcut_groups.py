import numpy as np
import pandas as pd
import pytest

from cxr_helpers.evaluation import bootstrap, metrics, shortcut_groups


def index_of(classes, border_normal, *, others=("bacterial", "viral")):
    """Return an index with one image per patient; the other classes share the rest evenly."""
    normal = np.asarray(border_normal, dtype=float)
    index = pd.DataFrame({"class_name": classes, "border_normal": normal})
    index["group"] = [f"{name} {i}" for i, name in enumerate(classes)]
    return index.assign(**{f"border_{name}": (1 - normal) / len(others) for name in others})


def informative(*, conflicting=0, of=40):
    """Return an index of normal, then viral images; the last few of each are conflicting."""
    border_normal = np.array([0.9] * (of - conflicting) + [0.1] * conflicting)
    return index_of(
        ["normal"] * of + ["viral"] * of, np.concatenate([border_normal, 1 - border_normal])
    )


@pytest.mark.parametrize(
    ("others", "border_normal", "expected"),
    [  # P(normal) is neutral at 1/3 with three balanced classes, at 1/2 with two
        (("bacterial", "viral"), [0.51, 0.49, 1 / 3, 0.21, 0.19], [1, 0, 0, 0, -1]),
        (("pneumonia",), [0.68, 0.66, 0.5, 0.34, 0.32], [1, 0, 0, 0, -1]),
    ],
)
def test_images_are_aligned_from_twice_the_training_odds(others, border_normal, expected):
    certain = [0.95] * 20 + [0.02] * 20
    index = index_of(
        ["normal"] * 20 + ["viral"] * 20 + ["normal"] * 5, certain + border_normal, others=others
    )
    assert shortcut_groups.alignment(index, seed=0)[40:].tolist() == expected
    index["class_name"] = ["normal"] * 20 + ["viral"] * 25
    assert shortcut_groups.alignment(index, seed=0)[40:].tolist() == [-sign for sign in expected]


def test_prior_ignores_empty_columns():
    index = index_of(["normal", "viral"], [0.6, 0.4], others=("pneumonia",))
    assert shortcut_groups.prior(index) == 1 / 2
    assert shortcut_groups.prior(index.assign(border_viral=np.nan, border_bacterial=0.0)) == 1 / 2
    assert shortcut_groups.prior(index_of(["normal"], [0.2])) == 1 / 3


def test_uninformative_border_gives_no_alignment():
    """As on the default phantoms, where P(normal) is near 1/3 in all classes."""
    for border_normal in (np.linspace(0.3, 0.4, 200), np.linspace(0, 1, 200)):
        index = index_of(["normal", "viral"] * 100, border_normal)
        _, low, high = shortcut_groups.auroc(index, seed=0)
        assert low < 0.5 < high
        assert not shortcut_groups.alignment(index, seed=0).any()


def test_border_that_ranks_backwards_gives_no_alignment():
    index = informative(conflicting=38)
    _, _, high = shortcut_groups.auroc(index, seed=0)
    assert high < 0.5 and not shortcut_groups.alignment(index, seed=0).any()


@pytest.mark.parametrize(
    "of", [shortcut_groups.MINIMUM_PATIENTS - 1, shortcut_groups.MINIMUM_PATIENTS]
)
def test_few_patients_of_a_class_give_no_interval_and_no_alignment(of):
    index = pd.concat([informative(of=of)[:of], informative()[40:]])
    value, low, high = shortcut_groups.auroc(index, seed=0)
    enough = of == shortcut_groups.MINIMUM_PATIENTS
    assert value == 1 and (low, high) == pytest.approx(
        (1, 1) if enough else (np.nan,) * 2, nan_ok=True
    )
    assert shortcut_groups.alignment(index, seed=0).any() == enough


@pytest.mark.parametrize("as_normal", [0, shortcut_groups.MINIMUM_IMAGES - 1])
def test_border_that_predicts_one_class_gives_no_alignment(as_normal):
    """Otherwise the normal images would be the conflicting ones, and pneumonia the aligned one."""
    border_normal = np.r_[np.full(as_normal, 0.9), np.full(40 - as_normal, 0.1), np.full(40, 0.05)]
    index = index_of(["normal"] * 40 + ["viral"] * 40, border_normal)
    _, low, _ = shortcut_groups.auroc(index, seed=0)
    assert low > 0.5 and not shortcut_groups.alignment(index, seed=0).any()
    assert shortcut_groups.alignment(
        index_of(index["class_name"], np.r_[np.full(5, 0.9), border_normal[5:]]), seed=0
    ).any()


def test_counts_by_alignment_and_class():
    index = pd.concat([informative(conflicting=6), informative(conflicting=3)[:40]])
    assert shortcut_groups.counts(index, seed=0) == {
        "images": 120,
        "aligned": 34 + 34 + 37,
        "normal, conflicting": 9,
        "pneumonia, conflicting": 6,
        "neither": 0,
    }


@pytest.mark.parametrize("index", [informative()[:0], informative()[:40]])
def test_missing_class_gives_no_alignment(index):
    assert np.isnan(shortcut_groups.auroc(index, seed=0)).all()
    assert not shortcut_groups.alignment(index, seed=0).any()


def test_images_without_border_predictions_have_no_alignment():
    index = informative().assign(border_normal=np.nan)
    assert not shortcut_groups.alignment(index, seed=0).any()


def grouped(index):
    """Return which images are normal, their alignment, and bootstrap weights."""
    normal = (index["class_name"] == "normal").to_numpy()
    aligned = shortcut_groups.alignment(index, seed=0)
    return normal, aligned, bootstrap.resamples(index["group"], ~normal, draws=400, seed=0)


def test_worst_group_accuracy_by_hand():
    index = informative(conflicting=10)
    normal, aligned, weights = grouped(index)
    right = np.ones(80, dtype=bool)
    right[30:35] = right[70] = False  # half of the ten conflicting normal images, one viral
    value, low, high, n = shortcut_groups.worst_group_accuracy(right, normal, aligned, weights)
    assert (value, n) == (0.5, 10) and 0.1 < low < 0.4 and 0.6 < high < 0.9
    perfect = shortcut_groups.worst_group_accuracy(
        np.ones(80, dtype=bool), normal, aligned, weights
    )
    assert perfect[:3] == (1, 1, 1)


def test_worst_group_interval_is_that_of_the_minimum_in_each_resample():
    index = informative(conflicting=10)
    normal, aligned, weights = grouped(index)
    right = np.random.default_rng(1).random(80) < 0.7
    groups = [np.r_[0:30], np.r_[30:40], np.r_[40:70], np.r_[70:80]]
    each = [
        [np.average(right[rows], weights=times[rows]) for rows in groups if times[rows].sum()]
        for times in weights
    ]
    expected = np.percentile([min(accuracies) for accuracies in each], [2.5, 97.5])
    _, *interval, _ = shortcut_groups.worst_group_accuracy(right, normal, aligned, weights)
    assert interval == pytest.approx(expected)


def test_worst_group_interval_of_many_weights_is_the_same(monkeypatch):
    index = informative(conflicting=10)
    right = np.random.default_rng(1).random(80) < 0.7
    expected = shortcut_groups.worst_group_accuracy(right, *grouped(index))
    monkeypatch.setattr(bootstrap, "AT_ONCE", 1000)
    monkeypatch.setattr(bootstrap, "BLOCK", 900)
    assert shortcut_groups.worst_group_accuracy(right, *grouped(index)) == expected


def test_worst_group_needs_a_conflicting_group():
    """Without one it would be the lower of sensitivity and specificity."""
    right = np.arange(80) % 2 == 0
    for conflicting in (0, shortcut_groups.MINIMUM_IMAGES - 1):
        index = informative(conflicting=conflicting)
        assert shortcut_groups.worst_group_accuracy(right, *grouped(index)) is None


def test_conflicting_auroc_uses_conflicting_images_only():
    index = informative(conflicting=10)
    normal, aligned, weights = grouped(index)
    y_true, y_score = (~normal).astype(int), np.linspace(0, 1, 80)
    value, low, high, n = shortcut_groups.conflicting_auroc(y_true, y_score, aligned, weights)
    assert (value, low, high, n) == (1, 1, 1, 20)
    y_score[30:40] += 0.5  # 0.88 to 0.99 for the normal images, 0.89 to 1 for those with pneumonia
    value, low, high, n = shortcut_groups.conflicting_auroc(y_true, y_score, aligned, weights)
    assert low < value < high < 1 and n == 20
    assert (
        shortcut_groups.conflicting_auroc(y_true, y_score, np.where(normal, 1, aligned), weights)
        is None
    )


def test_with_balancing_weights_the_border_says_nothing_about_the_class():
    """A border network that is right on 90 % of either class, two thirds of the images normal."""
    is_normal = np.arange(300) < 200
    says_normal = np.where(np.arange(300) % 10 == 0, ~is_normal, is_normal)
    border = np.where(says_normal, 0.9, 0.1)  # 9 to 1, for a prior of one half
    index = pd.DataFrame(
        {
            "class_name": np.where(is_normal, "normal", "viral"),
            "border_normal": border,
            "border_pneumonia": 1 - border,
        }
    )
    weights = shortcut_groups.balancing_weights(index)
    plain, balanced = (
        metrics.auroc(is_normal.astype(int), border, w[None])[0] for w in (np.ones(300), weights)
    )
    assert plain == pytest.approx(0.9) and balanced == pytest.approx(0.5)
    assert ((weights > 0) & (weights < 1)).all()


def test_note_defines_the_groups_or_states_why_there_are_none():
    note = shortcut_groups.note({}, ["worst_group_accuracy"])
    assert "Worst group" in note and "Conflicting AUROC" not in note and "n is the number" in note
    uninformative = "is not shown to rank images with pneumonia above normal ones here"
    note = shortcut_groups.note({"test": (0.479, 0.42, 0.54)}, [])
    assert f"{uninformative} (AUROC: test 0.479 [0.42,\N{NO-BREAK SPACE}0.54])" in note
    undefined = (np.nan,) * 3
    aurocs = {"test": (0.99, 0.98, 1.0), "contiguous": (0.6, 0.4, 0.8), "validation": undefined}
    first, second = shortcut_groups.note(aurocs, []).split("scored. ")
    assert f"{uninformative} (AUROC: contiguous 0.600 [0.40,\N{NO-BREAK SPACE}0.80])" in first
    assert second == (
        "On splits where the border is informative (AUROC: test 0.990 [0.98,\N{NO-BREAK SPACE}1.00]), it "
        "predicts normal, or pneumonia, for fewer than 5 images, or fewer than 5 are conflicting (for an "
        "AUROC: of either class): no group is scored."
    )
    assert uninformative not in shortcut_groups.note({"test": aurocs["test"]}, [])
    assert "(AUROC" not in shortcut_groups.note({}, [])
    backwards = shortcut_groups.note({"test": (0.2, 0.1, 0.3)}, [])
    assert uninformative in backwards and "fewer than" not in backwards
    few = shortcut_groups.note({"test": (1.0, np.nan, np.nan)}, [])
    assert uninformative in few
    assert few.endswith("AUROCs without an interval are of fewer than 6 patients of a class.")
