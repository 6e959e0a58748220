from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from cxr_helpers.anomaly import novelty
from cxr_helpers.data import dataset
from cxr_helpers.models import sampling
from cxr_helpers.pipeline import classifiers


@pytest.mark.parametrize("many", [False, True])
def test_one_class_detector_has_the_references_of_chapter_4(tmp_path, monkeypatch, many):
    monkeypatch.setattr(sampling, "MANY", 50 if many else 60)
    monkeypatch.setattr(sampling, "REFERENCES", 5)
    index = pd.DataFrame({"split": np.repeat(["train", "validation", "test"], 20)})
    index["class_name"] = np.where(np.arange(60) % 3, "viral", "normal")
    index["group"] = [f"{name} {i}" for i, name in enumerate(index["class_name"])]
    index["file"], index["cluster"] = index["group"], np.arange(60)
    images = np.random.default_rng(0).integers(0, 256, (60, 32, 32), dtype=np.uint8)
    written = SimpleNamespace(
        folder=tmp_path, save=lambda name, f, *a, **k: f(tmp_path / name, *a, **k)
    )
    dataset.save(written, images, index, {"synthetic": True})
    fitted = []
    for name in ("nearest_normals", "mahalanobis"):
        fit = getattr(novelty, name)
        monkeypatch.setattr(novelty, name, lambda x, fit=fit: fitted.append(len(x)) or fit(x))
    parameters = {"recipe": {"parameters": {"seed": 0}}}
    run = SimpleNamespace(stage=lambda _: tmp_path, manifest=lambda _: parameters)
    store = SimpleNamespace(call=lambda function, *arguments: function(*arguments))
    found = classifiers.likeness_to_training(run, store)
    n_normal = int((index["class_name"][:20] == "normal").sum())
    assert fitted == [5 if many else n_normal] * 2 and n_normal > 5
    assert np.isfinite(found.anomaly_score(images)).all() and np.isfinite(found.anomaly_limit)
