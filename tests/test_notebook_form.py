"""The notebooks' form: what a reader and the runner rely on in all seven."""

import ast
import json
import re
from pathlib import Path

import pytest

from cxr_helpers.pipeline import graph, parameters, settings

FOLDER = Path(__file__).parent.parent / "notebooks"
BOOKS = {name: json.loads((FOLDER / f"{name}.ipynb").read_text()) for name in graph.default()}


def source(cell):
    return "".join(cell["source"])


def tags(cell):
    return cell["metadata"].get("tags", [])


@pytest.fixture(params=BOOKS)
def name(request):
    return request.param


@pytest.fixture
def cells(name):
    return BOOKS[name]["cells"]


@pytest.fixture
def code(cells):
    return [c for c in cells if c["cell_type"] == "code"]


def test_the_folder_holds_the_seven_stages():
    assert sorted(p.stem for p in FOLDER.glob("*.ipynb")) == list(graph.default())


def test_no_output_is_stored(code):
    assert all(c["outputs"] == [] and c["execution_count"] is None for c in code)


def test_every_section_has_prose_and_all_but_the_last_show_something(cells):
    sections = []
    for cell in cells[6:]:
        if cell["cell_type"] == "markdown" and source(cell).startswith("#"):
            sections.append([])
        sections[-1].append(cell)
    *body, found, doubts = sections
    assert [c["cell_type"] for c in doubts] == ["markdown"]
    for section in [*body, found]:
        assert "code" in {c["cell_type"] for c in section}, source(section[0])
    for section in [*body, doubts]:
        assert source(section[0]).strip().count("\n"), source(section[0])


def test_nothing_is_defined_that_a_helper_could_hold(code):
    definitions = ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef
    nodes = [node for c in code for node in ast.walk(ast.parse(source(c)))]
    assert not [node.name for node in nodes if isinstance(node, definitions)]


def test_it_opens_with_title_and_what_it_reads_and_writes(cells):
    assert source(cells[0]).startswith("# ")
    assert "**Reads**" in source(cells[1]) and "**Writes**" in source(cells[1])
    assert "Not for clinical use" in source(cells[1])


def test_what_it_says_to_write_is_what_it_writes(cells, code):
    whole = "\n".join(map(source, code))
    saved = set(re.findall(r'stage\.(?:save|adopt)\(f?"([^"]+)"', whole))
    saved |= {f"{name}.csv" for name in ("scores", "predictions") if f"    {name}=" in whole}
    said = source(cells[1]).split("**Writes**")[1]
    named = {name.replace("*", "{number}") for name in re.findall(r"`([^`]+\.\w+)`", said)}
    drawn = {"images.npy", "index.csv", "dataset.json", "lesion_masks.npy", "lung_masks.npy"}
    assert named - drawn == saved  # these are written by dataset.save


def test_the_colab_cell_is_the_same_everywhere(cells):
    assert tags(cells[2]) == ["setup"]
    assert source(cells[2]) == source(BOOKS["01_data"]["cells"][2])


def test_parameters_come_next_and_hold_typed_literals_with_a_comment(name, cells):
    assert tags(cells[3]) == ["parameters"]
    found = parameters.read(FOLDER / f"{name}.ipynb")
    assert {"seed", "run_dir"} <= set(found)
    assert all(p.help for p in found.values())


def test_a_parameter_means_the_same_in_every_notebook():
    seen = {}
    for stage in graph.default():
        for own in parameters.read(FOLDER / f"{stage}.ipynb").values():
            other = seen.setdefault(own.name, own)
            assert (own.type, own.low, own.high) == (other.type, other.low, other.high), own.name


def test_imports_stand_in_one_cell(code):
    importing = [
        c["id"]
        for c in code
        if "setup" not in tags(c)
        and any(isinstance(n, ast.Import | ast.ImportFrom) for n in ast.walk(ast.parse(source(c))))
    ]
    assert importing == [code[2]["id"]]


def test_it_closes_with_what_was_found_and_what_could_be_wrong(cells):
    headings = [source(c).splitlines()[0] for c in cells if c["cell_type"] == "markdown"]
    assert headings[-2:] == ["## What we found", "## What could be wrong"]
    assert "**Next:**" in source(cells[-1])


def test_it_reads_only_stages_that_it_declares(name, code):
    calls = [n for c in code for n in ast.walk(ast.parse(source(c))) if isinstance(n, ast.Call)]
    read = {
        n.args[0].value
        for n in calls
        if isinstance(n.func, ast.Attribute)
        and n.func.attr in {"input", "facts"}
        and isinstance(n.args[0], ast.Constant)
    }
    assert read <= set(graph.default()[name])


def test_only_cells_that_are_tagged_declare_evaluation(code):
    declaring = {c["id"] for c in code if "radiographs.evaluation()" in source(c)}
    assert declaring
    assert declaring <= {c["id"] for c in code if "evaluation" in tags(c)}


@pytest.mark.parametrize("way", [r"index\.csv", r"radiographs\._", r"\bdataset\.read\(stage\.f"])
def test_no_cell_goes_around_the_dataset_to_the_labels(code, way):
    assert [c["id"] for c in code if re.search(way, source(c))] == []


def test_it_finishes_its_stage_once(name, code):
    finishing = [c for c in code if "stage.finish(" in source(c)]
    assert len(finishing) == 1
    assert f'Stage("{name}"' in "".join(map(source, code))


def test_no_progress_bar_of_keras(code):
    for cell in code:
        for line in source(cell).splitlines():
            if re.search(r"(?<!training)(?<!vote)\.(predict|evaluate)\(", line):
                assert "verbose=0" in line, line


def test_presets_fit_the_notebooks():
    schema = {name: parameters.read(FOLDER / f"{name}.ipynb") for name in graph.default()}
    presets = parameters.presets(FOLDER / "presets.toml")
    assert list(presets) == ["standard", "quick", "published"]
    for preset in presets.values():
        settings.resolve(schema, preset=preset)


def test_published_is_the_course_reports_setting():
    schema = {name: parameters.read(FOLDER / f"{name}.ipynb") for name in graph.default()}
    preset = parameters.presets(FOLDER / "presets.toml")["published"]
    values = settings.resolve(schema, preset=preset)
    assert values["01_data"]["validation_fraction"] == 0
    for stage in ("02_binary", "03_categorical", "04_autoencoder"):
        assert values[stage]["batch_size"] == 16
    assert values["05_knn"]["k"] == 5 and values["04_autoencoder"]["percentile"] == 5
