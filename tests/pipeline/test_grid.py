"""Which runs a command names; whole grids are in tests/test_workers.py."""

import argparse

import pandas as pd
import pytest

from cxr_helpers.pipeline import grid, results
from cxr_helpers.pipeline.parameters import Parameter
from cxr_helpers.pipeline.runs import Run

SCHEMA = {
    "02_binary": {"epochs": Parameter("epochs", "int", 3)},
    "03_categorical": {
        "epochs": Parameter("epochs", "int", 3),
        "sizes": Parameter("sizes", "list[int]", [1]),
    },
}


def variants(*axes, sources=("phantom",), settings=(), preset=None, seed=None):
    options = argparse.Namespace(
        grid=list(axes), sources=list(sources), settings=list(settings), preset=preset, seed=seed
    )
    return grid.variants(options, SCHEMA, presets=["standard", "demo"])


def test_command_without_several_values_is_one_run():
    (only,) = variants(settings=["epochs=2"])
    assert (only.suffix, only.chosen, only.options.settings) == ("", {}, ["epochs=2"])
    assert only.options.data == "phantom"


def test_every_combination_is_a_run_data_first():
    found = variants(
        "02.epochs=3,4", "03.epochs=5, 6", sources=["a/x", "b/y"], settings=["03.sizes=1"]
    )
    assert len(found) == 8 and [v.options.data for v in found] == ["a/x"] * 4 + ["b/y"] * 4
    assert found[1].chosen == {"02.epochs": "3", "03.epochs": "6"}
    assert found[1].options.settings == ["03.sizes=1", "02.epochs=3", "03.epochs=6"]
    assert found[1].suffix == "-02.epochs-3-03.epochs-6"  # both are called epochs


def test_default_preset_follows_the_data_of_each_run():
    presets = [v.options.preset for v in variants(sources=["phantom", "a/x"])]
    assert presets == ["demo", "standard"]
    assert variants(preset="quick")[0].options.preset == "quick"


@pytest.mark.parametrize(
    ("axes", "sources", "words"),
    [
        (["epochs"], ["phantom"], "'epochs' is not NAME=VALUE,VALUE"),
        (["epochs=1,,2"], ["phantom"], "is not NAME=VALUE,VALUE"),
        (["=1,2"], ["phantom"], "is not NAME=VALUE,VALUE"),
        (["epochs=1,2,1"], ["phantom"], "'epochs=1,2,1' names 1 twice"),
        (["epochs=1", "epochs=2"], ["phantom"], "--grid names epochs twice"),
        (["03.sizes=1,2"], ["phantom"], "sizes is a list: use --set"),
        (["epoch=1,2"], ["phantom"], "'epoch'; did you mean 'epochs'"),
        (["epochs=1,x"], ["phantom"], "epochs = 'x'"),
        (["02.epochs=1,2", "run_dir=a"], ["phantom"], "'run_dir' is not changed by --set"),
        ([], ["a/x", "b/x"], "--data names x twice"),
        (["epochs=" + ",".join(map(str, range(201)))], ["phantom"], "201 runs, at most 200"),
    ],
)
def test_invalid_grid_is_refused(axes, sources, words):
    with pytest.raises(ValueError, match=words):
        variants(*axes, sources=sources)


def test_seeds_and_a_grid_of_seeds_are_refused():
    with pytest.raises(ValueError, match="cannot be combined with --seed"):
        variants("02_binary.seed=1,2", seed="0")


def test_values_make_names_of_plain_characters():
    assert grid._suffix({"02.epochs": "a/b c"}) == "-epochs-a-b-c"


def test_long_names_stay_different():
    one, two = (grid.run_name("x" * 70, f"-some_parameter-{n}") for n in (1, 2))
    assert one != two and len(one) == len(two) == 80
    assert grid.run_name("x", "-epochs-1") == "x-epochs-1"


def test_overview_is_named_by_runs_and_parameters(tmp_path):
    found = variants("epochs=1,2", sources=["a/x", "b/y"])
    runs = [Run(tmp_path / f"{v.options.data[-1]}-quick{v.suffix}") for v in found]
    assert grid.overview_name(runs, found, None) == "x-quick-and-y-quick-epochs-overview"
    assert grid.overview_name(runs, found, "mine") == "mine-overview"


def test_results_of_all_runs_are_in_one_table(tmp_path, monkeypatch):
    found = variants("02.epochs=1,2")
    runs = [Run(tmp_path / name) for name in ("one", "two")]
    scores = pd.DataFrame({"row": ["r"], "metric": ["accuracy"], "value": [0.5]})
    monkeypatch.setattr(results, "collect", lambda run, seeds: scores.assign(n=len(run.name)))
    table = grid.collect(runs, found)
    assert list(table) == ["run", "data", "02.epochs", "row", "metric", "value", "n"]
    assert table["02.epochs"].tolist() == ["1", "2"] and table["run"].tolist() == ["one", "two"]


def test_parameter_of_one_stage_that_is_named_in_two_ways_is_refused():
    for axes, chosen in (
        (["2.epochs=1", "02_binary.epochs=3"], []),
        (["02_binary.epochs=6"], ["2.epochs=5"]),
    ):
        with pytest.raises(ValueError, match="give a value to the same parameter"):
            variants(*axes, settings=chosen)


def test_values_of_equal_plain_characters_make_different_names():
    suffixes = grid._suffixes([{"masks": value} for value in ("a/b", "A-b", "c")])
    assert len({suffix.casefold() for suffix in suffixes}) == 3 and suffixes[2] == "-masks-c"
