import numpy as np
import pandas as pd

from cxr_helpers.evaluation import bootstrap, map_scores

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


def test_images_without_a_value_are_left_out_and_none_at_all_gives_no_verdict():
    gaps = np.where(np.arange(N) % 2, BASE + 0.1, np.nan)
    found = verdicts(some=gaps, none=np.full(N, np.nan), noise=BASE)
    assert found.loc["some", "verdict"] == "better" and found.loc["none", "verdict"] == "–"
    assert np.isnan(found.loc["none", "value"])
    assert np.allclose(found.loc["some", "value"], np.nanmean(gaps))
