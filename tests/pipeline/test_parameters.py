import json

import pytest

from cxr_helpers.pipeline import graph, parameters
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


def notebook(*sources, tag="parameters"):
    cells = [
        {"cell_type": "code", "metadata": {"tags": [tag]}, "source": s, "outputs": []}
        for s in sources
    ]
    return json.dumps({"cells": cells})


@pytest.fixture
def path(tmp_path):
    return tmp_path / "04_autoencoder.ipynb"


def test_type_range_step_choices_and_meaning_are_read(path):
    path.write_text(notebook(CELL))
    own = parameters.read(path)
    assert own["epochs"] == Parameter("epochs", "int", 12, "training epochs", 1, 500)
    assert own["size"].step == 4
    assert own["kind"].choices == ("adam", "sgd")
    assert own["rates"].default == [0.1, 0.01]
    assert own["where"].default == "a#b" and own["where"].help == "a path"


@pytest.mark.parametrize("content", ['{"cells": [}', "{}", "[]", notebook("epochs: int = = 3")])
def test_incomplete_notebook_is_named(path, content):
    path.write_text(content)
    with pytest.raises(ValueError, match=r"04_autoencoder\.ipynb"):
        parameters.read(path)


@pytest.mark.parametrize("sources", [(), (CELL, CELL)])
def test_exactly_one_tagged_cell_is_expected(path, sources):
    path.write_text(notebook(*sources))
    with pytest.raises(ValueError, match=f"has {len(sources)} cells tagged 'parameters'"):
        parameters.read(path)


@pytest.mark.parametrize("line", ["epochs = 3", "import os", "epochs: int = int(3)"])
def test_only_typed_literals_are_parameters(path, line):
    path.write_text(notebook(line))
    with pytest.raises(ValueError, match=r"ipynb, parameters cell: .* is not 'name: type"):
        parameters.read(path)


def test_unknown_type_is_refused(path):
    path.write_text(notebook("epochs: inte = 12"))
    with pytest.raises(ValueError, match=r"parameters cell: epochs has the type 'inte', not one"):
        parameters.read(path)


def test_default_out_of_range_is_refused_with_the_name_of_the_notebook(path):
    path.write_text(notebook("epochs: int = 0  # training epochs [1..500]"))
    with pytest.raises(ValueError, match=r"autoencoder\.ipynb, parameters cell: epochs = 0 is out"):
        parameters.read(path)


def test_names_of_earlier_versions_are_not_parameters_now():
    known = {n for path in graph.default().notebooks.values() for n in parameters.read(path)}
    assert not parameters.RENAMED.keys() & known
    assert set(parameters.RENAMED.values()) <= known
    for (name, old), new in parameters.RENAMED_CHOICES.items():
        (choices,) = {
            own[name].choices
            for own in map(parameters.read, graph.default().notebooks.values())
            if name in own
        }
        assert new in choices and old not in choices


def test_comment_with_a_range_that_is_none_is_refused_with_the_name_of_the_notebook(path):
    path.write_text(notebook("epochs: int = 3  # of training [see ..docs]"))
    with pytest.raises(
        ValueError, match=r"^04_autoencoder.ipynb, .*\[see \.\.docs\] is not a range"
    ):
        parameters.read(path)


def test_integer_of_any_length_is_checked():
    with pytest.raises(ValueError, match="out of range"):
        Parameter("epochs", "int", 3, low=1, high=500).parse("9" * 400)
    assert Parameter("epochs", "int", 3).parse("9" * 400) == int("9" * 400)
