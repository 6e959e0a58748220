import numpy as np
import pandas as pd
import pytest

from cxr_helpers.evaluation import bootstrap, map_scores, tables

N = 40
RNG = np.random.default_rng(0)
BASE = RNG.random(N)
WEIGHTS = bootstrap.resamples(np.arange(N), np.zeros(N), draws=500, seed=0)


def table(**methods):
    parts = [
        pd.DataFrame({"network": "a", "method": name, "image": np.arange(N), "score": values})
        for name, values in methods.items()
    ]
    return pd.concat(parts, ignore_index=True)


def verdicts(**methods):
    found = map_scores.against_controls(
        table(**methods), "score", controls=["noise", "centre"], weights=WEIGHTS
    )
    return found.set_index("method")


def test_method_is_compared_with_the_best_control_on_the_same_images():
    found = verdicts(
        good=BASE + 0.1,
        same=BASE + RNG.normal(0, 0.2, N),
        bad=BASE - 0.1,
        noise=BASE,
        centre=BASE - 1,
    )
    assert found["verdict"].to_dict() == {
        "good": "better", "same": "no", "bad": "worse", "noise": ""
    }  # fmt: skip
    assert set(found["control"]) == {"noise"} and "centre" not in found.index
    assert np.allclose(found.loc["good", "value"], (BASE + 0.1).mean())
    assert (found["low"] <= found["value"]).all() and (found["value"] <= found["high"]).all()


def test_small_difference_on_every_image_counts_although_the_intervals_overlap():
    found = verdicts(good=BASE + 0.01, noise=BASE)
    assert found.loc["good", "low"] < found.loc["noise", "high"]
    assert found.loc["good", "verdict"] == "better"


def test_bound_is_shown_without_a_verdict():
    options = {"controls": ["noise"], "bounds": ["true outline"], "weights": WEIGHTS}
    scores = table(map=BASE + 0.1, noise=BASE, **{"true outline": BASE + 1})
    found = map_scores.against_controls(scores, "score", **options).set_index("method")
    assert found["verdict"].to_dict() == {"map": "better", "noise": "", "true outline": ""}


def test_images_without_a_value_are_left_out_and_none_at_all_gives_no_verdict():
    gaps = np.where(np.arange(N) % 2, BASE + 0.1, np.nan)
    found = verdicts(some=gaps, none=np.full(N, np.nan), noise=BASE)
    assert found.loc["some", "verdict"] == "better" and found.loc["none", "verdict"] == "–"
    assert np.isnan(found.loc["none", "value"])
    assert np.allclose(found.loc["some", "value"], np.nanmean(gaps))


def test_few_images_give_neither_an_interval_nor_a_verdict():
    """Although the score is higher on every one of them."""
    few = np.where(np.arange(N) < bootstrap.FEWEST - 1, BASE + 0.1, np.nan)
    found = verdicts(few=few, noise=BASE)
    assert found.loc["few", "verdict"] == "–" and found.loc["few", ["low", "high"]].isna().all()
    assert found.loc["few", "value"] == pytest.approx(np.nanmean(few))


def test_shortcut_is_detected_where_one_network_scores_higher():
    other = np.linspace(0, 1, N)
    (auroc, low, _), (detected, *_) = map_scores.detection(other + 2, other, weights=WEIGHTS)
    assert auroc == low == detected == 1
    (auroc, low, high), (detected, *_) = map_scores.detection(other, other, weights=WEIGHTS)
    assert low == auroc == high == 0.5  # the same images, resample by resample
    assert detected <= 0.05
    half = np.where(np.arange(N) % 2, 5.0, np.nan)  # no heat counts as 0
    assert map_scores.detection(half, other, weights=WEIGHTS)[1][0] == 0.5


@pytest.mark.parametrize(("n", "allowed"), [(6, 0), (8, 0), (20, 1), (24, 1), (40, 2)])
def test_no_more_than_five_per_cent_of_the_other_network_are_above_the_limit(
    n, allowed, monkeypatch
):
    monkeypatch.setattr(bootstrap, "FEWEST", 1)  # these resamples do not tell the patients apart
    other = np.random.default_rng(n).permutation(n).astype(float)
    weights = np.ones((2, n), dtype=int)
    for above in range(allowed + 2):  # just above the highest values of the other network
        relying = np.full(n, n - 1.5 - above + 1)
        _, (detected, low, high) = map_scores.detection(relying, other, weights=weights)
        assert detected == low == high == (above <= allowed)


def test_limit_is_found_anew_in_each_resample(monkeypatch):
    monkeypatch.setattr(bootstrap, "FEWEST", 1)
    other = np.array([0.0, 1.0, 2.0, 9.0])
    relying = np.full(4, 3.0)
    weights = np.array([[2, 1, 1, 0], [1, 1, 1, 1]])  # without the highest value, all are above
    _, (detected, low, high) = map_scores.detection(relying, other, weights=weights)
    assert detected == 0 and low == pytest.approx(0.025) and high == pytest.approx(0.975)


def test_methods_are_ranked_within_their_network():
    def means(**by_network):
        lines = [
            (network, method, value)
            for network, values in by_network.items()
            for method, value in zip("abcd", values, strict=True)
        ]
        return pd.DataFrame(lines, columns=["network", "method", "value"])

    first = means(small=[1, 2, 3, 99], large=[100, 200, 300, 99])
    second = means(small=[3, 2, 1, 99], large=[100, 300, 200, 99])
    found = map_scores.rank_agreement(first, second, ["a", "b", "c"])  # d is a control
    assert found.to_dict() == {"small": pytest.approx(-1), "large": pytest.approx(0.5)}


def test_means_of_two_scores_are_of_the_images_that_have_both(monkeypatch):
    first, second = [0.5, 0.7, np.nan, 9.0], [0.1, 0.2, 0.3, np.nan]
    weights = np.array([[1, 1, 1, 1], [2, 0, 1, 1], [0, 2, 1, 1]])
    monkeypatch.setattr(bootstrap, "FEWEST", 2)
    found = map_scores.paired_means(first, second, weights=weights)
    low, high = np.quantile([0.45, 0.4, 0.5], [0.025, 0.975])
    expected = {"n": 2, "first": 0.6, "second": 0.15, "gap": 0.45, "low": low, "high": high}
    assert found == pytest.approx(expected)
    nothing = map_scores.paired_means([np.nan] * 4, second, weights=weights)
    assert nothing["n"] == 0 and np.isnan([nothing[name] for name in ("first", "gap", "low")]).all()


def test_effects_have_a_row_for_each_intervention_in_its_order():
    lines = [
        (what, name, 7, kind, value, value - 0.1, value + 0.1)
        for name, value in (("small", 0.2), ("large", -0.3))
        for what in ("second", "first")
        for kind in ("change", "flipped")
        if (what, kind) != ("first", "flipped")
    ]
    names = ["intervention", "network", "n", "measure", "value", "low", "high"]
    found = map_scores.effects_by_network(pd.DataFrame(lines, columns=names))
    assert found.columns.tolist() == [
        "intervention", "n", "small", "large", "small, flipped", "large, flipped"
    ]  # fmt: skip
    assert found["intervention"].tolist() == ["second", "first"] and found["n"].tolist() == [7, 7]
    assert found.loc[0, "small"] == "0.200 [0.10,\xa00.30]"
    assert found["large, flipped"].isna().tolist() == [False, True]
    assert found.loc[0, "large, flipped"] == "-0.300 [-0.40,\xa0-0.20]"


def test_curves_are_means_over_images_with_intervals():
    lines = [
        ("a", method, image, share, BASE[image] - share, BASE[image])
        for method in ("map", "noise", "other")
        for image in range(N)
        for share in (0.0, 1.0)
    ]
    curves = pd.DataFrame(lines, columns=["network", "method", "image", "share", "most", "least"])
    found = map_scores.mean_curves(curves, shown={"a": ("map", "noise")}, weights=WEIGHTS)
    assert set(found["method"]) == {"map", "noise"}
    assert found.set_index("method")["control"].to_dict() == {"map": False, "noise": True}
    most = found[(found["method"] == "map") & (found["order"] == "most")].set_index("share")
    np.testing.assert_allclose(most["value"], [BASE.mean(), BASE.mean() - 1])
    assert (most["low"] < most["value"]).all() and (most["value"] < most["high"]).all()


def test_gaps_of_an_exchange_by_hand():
    same, other = np.array([1.0, 1, 1, 0] * 2), np.array([0.0, 1, 0, 0] * 2)
    weights = bootstrap.resamples(np.arange(8), np.ones(8), seed=0)
    gaps = map_scores.exchange_gaps({"binary": [same, other]}, weights=weights)
    assert gaps["binary"]["gap"] == bootstrap.mean(same - other, weights=weights)
    table = map_scores.exchange_table(gaps, what="border")
    assert list(table) == ["network", "border of the same class", "of the other class", "gap"]
    (line,) = table.to_numpy()
    assert [text.split()[0] for text in line] == ["binary", "0.750", "0.250", "0.500"]
    assert line[3] == tables.with_interval(*bootstrap.mean(same - other, weights=weights))


def test_means_of_all_scores_have_their_interval_and_number_of_images():
    scores = table(map=BASE, noise=np.where(np.arange(N) < 10, BASE, np.nan))
    scores["undefined"] = np.nan
    found = map_scores.means(scores[scores["image"] != 39], weights=WEIGHTS)
    assert found["score"].tolist() == ["score", "score"] and found["n"].tolist() == [39, 10]
    expected = bootstrap.mean(np.where(np.arange(N) < 10, BASE, np.nan), weights=WEIGHTS)
    np.testing.assert_allclose(found.loc[1, ["value", "low", "high"]].astype(float), expected)
    assert found["value"][0] == pytest.approx(BASE[:39].mean())


def test_mean_of_few_images_has_no_interval():
    few = np.where(np.arange(N) < bootstrap.FEWEST - 1, BASE, np.nan)
    found = map_scores.means(table(few=few), weights=WEIGHTS).iloc[0]
    assert found["value"] == pytest.approx(np.nanmean(few))
    assert np.isnan(found["low"]) and np.isnan(found["high"])


@pytest.mark.parametrize(("patients", "known"), [(5, False), (6, True)])
def test_detection_has_no_interval_from_few_patients_whatever_their_images(patients, known):
    groups = np.repeat(np.arange(patients), 4)
    weights = bootstrap.resamples(groups, np.ones(len(groups)), seed=0)
    relying, other = np.random.default_rng(0).normal(size=(2, len(groups)))
    for value, low, high in map_scores.detection(relying, other, weights=weights):
        assert np.isfinite(value)
        assert np.isfinite([low, high]).tolist() == [known, known]


@pytest.mark.parametrize("n", [6, 8, 24, 40])
def test_detection_by_chance_is_that_of_scores_that_are_alike(n):
    rng = np.random.default_rng(0)
    once = np.ones((1, n), dtype=int)
    found = [map_scores.detection(*rng.random((2, n)), weights=once)[1][0] for _ in range(2000)]
    assert np.mean(found) == pytest.approx(map_scores.detected_by_chance(n), abs=0.01)


def test_heat_and_effect_by_area_by_hand():
    scores = pd.DataFrame(
        [
            ("binary", "occlusion", 0.2, 0.1, 0.1, 0.3),
            ("binary", "occlusion", 0.4, 0.3, 0.1, 0.2),
            ("binary", "occlusion", np.nan, np.nan, 0.7, 0.6),
            ("binary", "noise", 0.9, 0.1, 0.1, 0.25),
            ("ours", "empty", np.nan, np.nan, 0.1, 0.2),
        ],
        columns=["network", "method", "lesion heat", "marker heat", "lesion area", "marker area"],
    )
    effect_of = {("binary", "lesion"): 2.0, ("binary", "marker"): 5.0, ("ours", "lesion"): 1.0}
    areas = {"lesion": 0.1, "marker": 0.25}
    table = map_scores.heat_and_effect(scores, effect_of, areas)
    lines = [
        ("binary", "occlusion", "lesion", 3.0, 0.2),
        ("binary", "occlusion", "marker", 0.8, 0.2),
        ("binary", "noise", "lesion", 9.0, 0.2),
        ("binary", "noise", "marker", 0.4, 0.2),
    ]
    pd.testing.assert_frame_equal(table, pd.DataFrame(lines, columns=table.columns))


def test_heat_follows_the_effect_where_the_part_that_does_more_is_hotter():
    names = ["network", "method", "part", "gain", "effect"]
    lines = [
        ("a", "right", "lesion", 3.0, 0.9),
        ("a", "right", "marker", 1.0, 0.1),
        ("a", "wrong", "lesion", 1.0, 0.9),
        ("a", "wrong", "marker", 3.0, 0.1),
        ("a", "half", "lesion", 3.0, 0.9),  # of the other part it has no heat
    ]
    found = map_scores.heat_follows_effect(pd.DataFrame(lines, columns=names))
    assert found.to_dict() == {("a", "right"): True, ("a", "wrong"): False}


def test_intervention_is_given_beside_its_placebo():
    names = ["intervention", "measure", "network", "n", "value", "low", "high"]
    lines = [
        ("erased", "change", "a", 9, -0.5, -0.7, -0.3),
        ("erased", "flipped", "a", 9, 0.2, 0.1, 0.3),
        ("elsewhere", "change", "a", 9, 0.1, 0.0, 0.2),
        ("elsewhere", "flipped", "a", 9, 0.0, 0.0, 0.0),
        ("gap", "change", "a", 9, -0.6, -0.8, -0.4),
        ("gap", "flipped", "a", 9, 0.2, 0.1, 0.3),
        ("another", "change", "a", 9, 5.0, 5.0, 5.0),
    ]
    effects = pd.DataFrame(lines, columns=names)
    found = map_scores.against_placebo(effects, "erased", "elsewhere", difference="gap")
    assert found.to_dict("index") == {
        "a": {"n": 9, "value": -0.6, "low": -0.8, "high": -0.4}
        | {"erased": -0.5, "elsewhere": 0.1, "flipped": 0.2, "flipped_elsewhere": 0.0}
    }
