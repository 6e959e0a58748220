"""The steps from the published network to ours, on phantoms."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from cxr_helpers.shortcuts import ablation


def test_every_step_predicts_the_same_test_patients_with_both_markers(monkeypatch):
    monkeypatch.setattr(ablation, "WIDTHS", (8,))  # for a shorter test
    lines = []
    table = ablation.predictions(n_images=40, epochs=1, seed=0, log=lines.append)
    by_bar = table.groupby(["step", "marker"], sort=False)
    bars = [bar for bar, _ in by_bar]
    assert bars == [(s, m) for s in ablation.STEPS for m in ablation.MARKERS]
    assert len(lines) == len(ablation.STEPS)
    columns = ["group", "y_true"]
    first = by_bar.get_group((ablation.STEPS[0], "as in training"))[columns].to_numpy()
    for _, part in by_bar:
        assert np.array_equal(part[columns].to_numpy(), first)
        assert part["y_prob"].between(0, 1).all() and part["y_prob"].nunique() > 1
    assert len(first) == 20 and set(first[:, 1]) == {0, 1}


def test_networks_compute_in_float32_and_later_ones_as_before(monkeypatch):
    class Built(Exception):
        pass

    def build(size):
        assert keras.mixed_precision.global_policy().name == "float32"
        raise Built

    before = keras.mixed_precision.global_policy()
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        monkeypatch.setattr(ablation.architectures, "binary_cnn", build)
        with pytest.raises(Built):
            ablation.predictions(n_images=40, epochs=1, seed=0)
        assert keras.mixed_precision.global_policy().name == "mixed_bfloat16"
    finally:
        keras.mixed_precision.set_global_policy(before)
