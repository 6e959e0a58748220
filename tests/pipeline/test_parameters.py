import json

import pytest

from cxr_helpers.pipeline import parameters
from cxr_helpers.pipeline.parameters import Parameter

CELL = """\
epochs: int = 12  # training epochs [1..500]
size: int = 128  # pixels [32..512 by 4]
rate: float = 0.001  # of Adam [0.0000001..1]
rates: list[float] = [0.1, 0.01]  # tried [0..1]
flip: bool = True  # mirrored
kind: str = "adam"  # optimizer [adam | sgd]
where: str = "a#b"  # a path
"""


@pytest.fixture
def schema(tmp_path):
    path = tmp_path / "01_data.ipynb"
    path.write_text(notebook(CELL))
    return {"01_data": parameters.read(path), "02_binary": parameters.read(path)}


def notebook(*sources, tag="parameters"):
    cells = [
        {"cell_type": "code", "metadata": {"tags": [tag]}, "source": s, "outputs": []}
        for s in sources
    ]
    return json.dumps({"cells": cells})


def test_reads_types_ranges_steps_choices_and_help(schema):
    own = schema["01_data"]
    assert own["epochs"] == Parameter("epochs", "int", 12, "training epochs", 1, 500)
    assert own["size"].step == 4
    assert own["kind"].choices == ("adam", "sgd")
    assert own["rates"].default == [0.1, 0.01]
    assert own["where"].default == "a#b" and own["where"].help == "a path"


@pytest.mark.parametrize("content", ['{"cells": [}', "{}", "[]", notebook("epochs: int = = 3")])
def test_a_broken_notebook_is_named(tmp_path, content):
    path = tmp_path / "04_autoencoder.ipynb"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"04_autoencoder\.ipynb"):
        parameters.read(path)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("epochs=3", 3),
        ("rate=1e-2", 0.01),
        ("rate=1", 1.0),
        ("rates=0.5, 0.25", [0.5, 0.25]),
        ("flip=false", False),
        ("kind=sgd", "sgd"),
        ("where=x=y", "x=y"),
        ("size=64", 64),
    ],
)
def test_good_settings(schema, setting, value):
    values = parameters.resolve(schema, preset={}, settings=[setting])
    name = setting.split("=")[0]
    assert values["01_data"][name] == value and values["02_binary"][name] == value
    assert type(values["01_data"][name]) is type(value)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("epochs=-3", "epochs = -3 is out of range: 1 to 500"),
        ("epochs=0", "out of range"),
        ("epochs=7.5", "'7.5' is not of type int"),
        ("epochs=seven", "not of type int"),
        ("size=130", "32 to 512 in steps of 4"),
        ("rate=inf", "out of range"),
        ("rate=nan", "out of range"),
        ("rates=0.1,x", "not of type float"),
        ("flip=maybe", "not of type bool"),
        ("rates=0.1,0.1", "names a value twice"),
        ("where=x", "'where' is not set this way"),
        ("kind=adm", "did you mean 'adam'"),
        ("epoch=3", "did you mean 'epochs'"),
        ("03_x.epochs=3", "no stage '03_x': expected one of 01_data, 02_binary"),
        ("2.epoch=3", "02_binary has no parameter 'epoch'; did you mean 'epochs'?"),
        ("epochs", "is not NAME=VALUE"),
        ('x=1;open("PWNED","w")', "no notebook has a parameter 'x'"),
    ],
)
def test_bad_settings_name_the_option_and_the_fix(schema, setting, message):
    with pytest.raises(ValueError) as error:
        parameters.resolve(schema, preset={}, settings=[setting], reserved=["where"])
    assert message in str(error.value)


@pytest.mark.parametrize("stage", ["02_binary", "02", "2", "binary"])
def test_one_stage_can_be_set_alone(schema, stage):
    values = parameters.resolve(schema, preset={}, settings=[f"{stage}.epochs=3"])
    assert values["01_data"]["epochs"] == 12 and values["02_binary"]["epochs"] == 3


def test_settings_win_over_the_preset_and_the_preset_over_defaults(schema):
    preset = {"01_data": {"epochs": 2, "flip": False}}
    values = parameters.resolve(schema, preset=preset, settings=["epochs=9"])
    assert values["01_data"]["epochs"] == 9 and values["01_data"]["flip"] is False


def test_a_preset_is_checked_too(schema):
    with pytest.raises(ValueError, match="epochs = 0 is out of range"):
        parameters.resolve(schema, preset={"01_data": {"epochs": 0}})


def test_a_preset_with_an_unknown_name_is_refused(schema):
    with pytest.raises(ValueError, match="preset: 01_data has no parameter 'epoch'"):
        parameters.resolve(schema, preset={"01_data": {"epoch": 1}})


@pytest.mark.parametrize("sources", [(), (CELL, CELL)])
def test_exactly_one_tagged_cell_is_wanted(tmp_path, sources):
    path = tmp_path / "n.ipynb"
    path.write_text(notebook(*sources))
    with pytest.raises(ValueError, match=f"has {len(sources)} cells tagged 'parameters'"):
        parameters.read(path)


@pytest.mark.parametrize("line", ["epochs = 3", "import os", "epochs: int = int(3)"])
def test_only_typed_literals_are_parameters(tmp_path, line):
    path = tmp_path / "n.ipynb"
    path.write_text(notebook(line))
    with pytest.raises(ValueError, match=r"n\.ipynb, parameters cell: .* is not 'name: type"):
        parameters.read(path)


@pytest.mark.parametrize(
    ("text", "found"),
    [("0-4", [0, 1, 2, 3, 4]), ("0,7, 9", [0, 7, 9]), ("3", [3]), ("1-2,8", [1, 2, 8])],
)
def test_seeds_are_read(text, found):
    assert parameters.seeds(text) == found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        *((text, "is not like 0-4 or 0,7,9") for text in ("", "a", "-1", "1.5", "0,", "1-2-3")),
        ("4-0", "'4-0' counts down: did you mean 0-4?"),
        ("1,0,1", "'1,0,1' names 1 twice"),
        ("0-3,2", "names 2 twice"),
        ("0-100", "stands for more than 100 seeds"),
        ("0-98,200-201", "stands for more than 100 seeds"),
        ("0-4000000000", "stands for more than 100 seeds"),
        ("4294967296", "4294967296 is too large, seeds are below 2**32"),
    ],
)
def test_seeds_that_make_no_sense_are_refused(text, message):
    with pytest.raises(ValueError) as error:
        parameters.seeds(text)
    assert message in str(error.value)


def test_as_many_seeds_as_are_allowed():
    assert parameters.seeds("0-98,200") == [*range(99), 200]


def test_a_type_that_there_is_not_is_refused(tmp_path):
    (tmp_path / "01_data.ipynb").write_text(notebook("epochs: inte = 12"))
    with pytest.raises(ValueError, match=r"01_data\.ipynb, parameters cell: epochs has the type"):
        parameters.read(tmp_path / "01_data.ipynb")


def test_a_preset_of_no_stage_and_a_broken_file_of_presets_are_named(schema, tmp_path):
    with pytest.raises(ValueError, match=r"no stage '01_dat'; did you mean '01_data'"):
        parameters.resolve(schema, preset={"01_dat": {"epochs": 3}})
    (tmp_path / "presets.toml").write_text("quick")
    with pytest.raises(ValueError, match=r"presets\.toml: Expected '='"):
        parameters.presets(tmp_path / "presets.toml")
