"""The expected time of a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from cxr_helpers.pipeline import forecast, graph
from cxr_helpers.pipeline.graph import Graph, StageSpec

SECONDS = {"01_a": {"quick": 5, "standard": 100}, "02_b": {"standard": 200}}


@pytest.fixture
def stages():
    """Two stages with declared times."""
    return Graph(StageSpec(n, Path(f"{n}.ipynb"), seconds=s) for n, s in SECONDS.items())


def test_times_of_the_standard_preset_grow_with_the_number_of_images(stages):
    half = forecast.declared(stages, preset="standard", n_images=forecast.REFERENCE_IMAGES // 2)
    assert half == {"01_a": 50, "02_b": 100}


def test_other_presets_have_times_of_their_own_or_those_of_standard(stages):
    expected = {"01_a": 5, "02_b": 200}
    n_images = forecast.REFERENCE_IMAGES
    assert forecast.declared(stages, preset="quick", n_images=n_images) == expected
    options = {"n_images": n_images, "phantoms": False}
    assert forecast.declared(stages, preset="quick", **options) == {"02_b": 200}
    assert forecast.declared(stages, preset="standard", **options) == {"01_a": 100, "02_b": 200}


def test_times_depend_on_the_precision_where_it_is_declared():
    times = {"standard": 100, "standard mixed_bfloat16": 40, "demo": 7}
    stages = Graph(StageSpec(n, Path(f"{n}.ipynb"), seconds=times) for n in ("01_a", "02_b"))
    fast = {"n_images": forecast.REFERENCE_IMAGES, "precision": {"02_b": "mixed_bfloat16"}}
    assert forecast.declared(stages, preset="standard", **fast) == {"01_a": 100, "02_b": 40}
    assert forecast.declared(stages, preset="demo", **fast) == {"01_a": 7, "02_b": 7}


def test_time_left_follows_the_pace_of_the_stages_that_ended():
    left = forecast.Forecast({"01_a": 10, "02_b": 30, "03_c": 60})
    assert left.left(["01_a", "02_b", "03_c"]) == 100
    left.ended("01_a", 20)
    assert left.left(["02_b", "03_c"]) == 180


def test_stages_that_wait_for_each_other_take_longer_than_those_that_do_not():
    left = forecast.Forecast({"01_a": 10, "02_b": 30, "03_c": 60, "04_d": 5}).left
    names = ["01_a", "02_b", "03_c", "04_d"]
    assert left(names, at_once=2) == 70  # 01 and 03 beside 02 and 04
    chain = {"02_b": ["01_a"], "03_c": ["02_b"], "04_d": ["03_c"]}
    assert left(names, reads=chain, at_once=2) == 105
    assert left(names, reads={"03_c": ["01_a", "02_b"]}, at_once=2) == 90  # 04 beside 02
    assert left(["03_c"], running={"02_b": 10}, at_once=2) == 60
    assert left(["03_c"], running={"02_b": 10}, reads={"03_c": ["02_b"]}, at_once=2) == 80


def test_no_time_is_given_where_a_stage_declares_none():
    assert forecast.Forecast({"01_a": 10}).left(["01_a", "02_b"]) is None


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, ""),
        (10, "less than a minute left in all"),
        (50, "about 1 min left in all"),
        (610, "about 10 min left in all"),
    ],
)
def test_times_as_text(seconds, text):
    assert forecast.as_text(seconds) == text


@pytest.mark.parametrize("preset", ["demo", "quick", "standard"])
def test_every_notebook_declares_its_time(preset):
    stages = graph.default()
    assert set(forecast.declared(stages, preset=preset, n_images=5856)) == set(stages)
    assert all(preset in spec.seconds for spec in stages.values())
    faster = [
        key for spec in stages.values() for key in spec.seconds if key.startswith(f"{preset} ")
    ]
    assert set(faster) <= {f"{preset} mixed_bfloat16"} and (faster or preset == "quick")
