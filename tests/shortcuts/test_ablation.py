"""The steps from the published network to ours, on phantoms."""

from __future__ import annotations

import numpy as np

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
