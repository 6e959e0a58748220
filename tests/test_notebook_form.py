"""The form that readers and the runner rely on in all seven notebooks."""

import ast
import json
import os
import re
import sys
import tomllib
from pathlib import Path

import pytest
from jinja2 import meta

from cxr_helpers.figures import captions
from cxr_helpers.pipeline import graph, parameters, settings
from cxr_helpers.system import accelerators

FOLDER = Path(__file__).parent.parent / "notebooks"
NOTEBOOKS = {name: json.loads((FOLDER / f"{name}.ipynb").read_text()) for name in graph.default()}


def source(cell):
    return "".join(cell["source"])


def tags(cell):
    return cell["metadata"].get("tags", [])


@pytest.fixture(params=NOTEBOOKS)
def name(request):
    return request.param


@pytest.fixture
def cells(name):
    return NOTEBOOKS[name]["cells"]


@pytest.fixture
def code(cells):
    return [c for c in cells if c["cell_type"] == "code"]


def test_folder_contains_the_seven_stages():
    assert sorted(p.stem for p in FOLDER.glob("*.ipynb")) == [*graph.default(), "explore"]


def test_no_cell_has_stored_outputs(code):
    assert all(c["outputs"] == [] and c["execution_count"] is None for c in code)


def test_every_section_has_prose_and_all_but_the_last_have_code(cells):
    sections = []
    for cell in cells[6:]:
        if cell["cell_type"] == "markdown" and source(cell).startswith("#"):
            sections.append([])
        sections[-1].append(cell)
    *body, findings, limitations, exercises = sections
    assert [c["cell_type"] for c in limitations + exercises] == ["markdown"] * 2
    for section in [*body, findings]:
        assert "code" in {c["cell_type"] for c in section}, source(section[0])
    for section in [*body, limitations, exercises]:
        assert source(section[0]).strip().count("\n"), source(section[0])


def test_no_function_or_class_is_defined(code):
    definitions = ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef
    nodes = [node for c in code for node in ast.walk(ast.parse(source(c)))]
    assert not [node.name for node in nodes if isinstance(node, definitions)]


def test_opens_with_title_inputs_and_outputs(cells):
    assert source(cells[0]).startswith("# ")
    assert "**Reads**" in source(cells[1]) and "**Writes**" in source(cells[1])
    assert "Not for clinical use" in source(cells[1])


def test_listed_outputs_are_those_that_are_saved(cells, code):
    program = "\n".join(map(source, code))
    saved = set(re.findall(r'stage\.(?:save|copy_earlier)\(f?"([^"]+)"', program))
    for call in ast.walk(ast.parse(program)):
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "stage.train":
            own = ast.unparse(call.args[0])
            own = own.lstrip("f").strip("'\"") if own.endswith(("'", '"')) else f"{{{own}}}"
            saved |= {f"{own}_history.csv"}
            if "save_weights" not in {keyword.arg for keyword in call.keywords}:
                saved |= {f"{own}.weights.h5"}
    saved |= {f"{name}.csv" for name in ("scores", "predictions") if f"    {name}=" in program}
    outputs = source(cells[1]).split("**Writes**")[1]
    listed = {name.replace("*", "{number}") for name in re.findall(r"`([^`]+\.\w+)`", outputs)}
    of_helpers = {"images.npy", "detail.npy", "index.csv", "dataset.json"}  # dataset.save
    of_helpers |= {"lesion_masks.npy", "lung_masks.npy", "border{number}.weights.h5"}
    assert listed - of_helpers == saved


def test_colab_cell_is_identical_in_all_notebooks(cells):
    assert tags(cells[2]) == ["setup"]
    assert source(cells[2]) == source(NOTEBOOKS["01_data"]["cells"][2])
    explore = json.loads((FOLDER / "explore.ipynb").read_text(encoding="utf-8"))
    assert source(explore["cells"][2]) == source(cells[2])


def test_set_up_cell_asks_for_the_operations_that_a_run_uses(cells, monkeypatch):
    """Else a notebook opened by hand would not find the run's stored trainings, and would log errors."""
    names = list(accelerators.variables())
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])  # the cell adds to it
    for name in names:
        monkeypatch.delenv(name, raising=False)
    expected = accelerators.variables()
    exec(source(cells[2]), {})
    assert {name: os.environ[name] for name in names} == expected
    assert expected[accelerators.ONEDNN] == "1" and expected["TF_CPP_MIN_LOG_LEVEL"] in ("2", "3")


def test_parameters_are_typed_literals_with_a_comment(name, cells):
    assert tags(cells[3]) == ["parameters"]
    schema = parameters.read(FOLDER / f"{name}.ipynb")
    assert {"seed", "run_dir"} <= set(schema)
    assert all(p.help for p in schema.values())


def test_parameter_has_the_same_type_and_range_in_every_notebook():
    first = {}
    for stage in graph.default():
        for p in parameters.read(FOLDER / f"{stage}.ipynb").values():
            other = first.setdefault(p.name, p)
            assert (p.type, p.low, p.high) == (other.type, other.low, other.high), p.name


def test_all_imports_are_in_one_cell(code):
    importing = [
        c["id"]
        for c in code
        if "setup" not in tags(c)
        and any(isinstance(n, ast.Import | ast.ImportFrom) for n in ast.walk(ast.parse(source(c))))
    ]
    assert importing == [code[2]["id"]]


def test_no_imported_name_is_assigned(code):
    """A later cell would find the wrong thing under the name, perhaps on some datasets only."""
    tree = ast.parse("\n".join(source(cell) for cell in code[1:]))
    imported = {
        (alias.asname or alias.name).split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for alias in node.names
    }
    assigned = {
        node.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }
    assert not imported & assigned


def test_closes_with_findings_limitations_and_exercises(cells):
    headings = [source(c).splitlines()[0] for c in cells if c["cell_type"] == "markdown"]
    assert headings[-3:] == ["## What we found", "## What could be wrong", "## Predict, then run"]
    assert "**Next:**" in source(cells[-2])
    assert tags(cells[-1]) == ["notebook-only"]


def test_reads_only_declared_stages(name, code):
    calls = [n for c in code for n in ast.walk(ast.parse(source(c))) if isinstance(n, ast.Call)]
    read = {
        n.args[0].value
        for n in calls
        if isinstance(n.func, ast.Attribute)
        and n.func.attr in {"input", "facts"}
        and isinstance(n.args[0], ast.Constant)
    }
    assert read <= set(graph.default()[name].reads)


def texts(name):
    """Return the templates of a notebook's captions and sentences, by section and key."""
    path = FOLDER / "captions" / f"{name}.toml"
    entries = tomllib.loads(path.read_text("utf-8"))
    return {(id, part): text for id, entry in entries.items() for part, text in entry.items()}


def test_captions_use_only_names_of_the_notebook(name, code):
    nodes = [node for c in code for node in ast.walk(ast.parse(source(c)))]
    own = {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    own |= {n.asname or n.name for n in nodes if isinstance(n, ast.alias)}
    environment = captions.environment()
    for key, text in texts(name).items():
        used = meta.find_undeclared_variables(environment.parse(text))
        assert used <= own, (key, used - own)


def test_every_text_is_used_and_every_figure_has_a_caption(name, code):
    shown = set()
    for call in (
        n for c in code for n in ast.walk(ast.parse(source(c))) if isinstance(n, ast.Call)
    ):
        kind = ast.unparse(call.func)
        if kind in ("figure", "table", "text"):
            id = ast.unparse(call.args[-1]).lstrip("f").strip("'")
            parts = {"figure": ("caption", "alt"), "table": ("caption",), "text": ()}[kind]
            id = re.sub(r"-\{.*\}$", "", id)
            shown |= {(id, part) for part in parts} or {("text", id)}
    written = set(texts(name))
    findings = {(id, part) for id, part in written if part == "finding"}
    assert shown == written - findings
    assert findings <= {(id, "finding") for id, part in shown if part == "alt"}  # of figures only


def test_publishing_takes_at_most_a_quarter_of_the_code_lines(code):
    """Counted: lines with code of calls that display a figure, a table or a sentence."""
    total = publishing = 0
    for cell in (c for c in code if "setup" not in tags(c)):
        text = source(cell)
        lines = {
            number
            for number, line in enumerate(text.splitlines(), 1)
            if line.strip() and not line.strip().startswith("#")
        }
        total += len(lines)
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
                called = ast.unparse(node.value.func)
                if called in ("figure", "table", "text") or called.startswith("publishing."):
                    publishing += len(lines & set(range(node.lineno, node.end_lineno + 1)))
    assert publishing <= total / 4


def test_only_tagged_cells_declare_evaluation(code):
    declaring = {c["id"] for c in code if "radiographs.evaluation()" in source(c)}
    assert declaring
    assert declaring <= {c["id"] for c in code if "evaluation" in tags(c)}


@pytest.mark.parametrize(
    "pattern", [r"index\.csv", r"radiographs\._", r"\bdataset\.read\(stage\.f"]
)
def test_no_cell_reads_labels_except_through_the_dataset(code, pattern):
    assert [c["id"] for c in code if re.search(pattern, source(c))] == []


def test_finishes_its_stage_once(name, code):
    finishing = [c for c in code if "stage.finish(" in source(c)]
    assert len(finishing) == 1
    assert f'Stage("{name}"' in "".join(map(source, code))


def test_keras_progress_bars_are_off(code):
    for cell in code:
        for line in source(cell).splitlines():
            if re.search(r"(?<!training)(?<!classifier)(?<!border)\.(predict|evaluate)\(", line):
                assert "verbose=0" in line, line


def test_presets_are_valid_parameters():
    schema = {name: parameters.read(FOLDER / f"{name}.ipynb") for name in graph.default()}
    presets = graph.default().presets
    assert sorted(presets) == ["demo", "published", "quick", "standard"]
    for preset in presets.values():
        settings.resolve(schema, preset=preset)


def test_published_preset_has_the_settings_of_the_course_report():
    schema = {name: parameters.read(FOLDER / f"{name}.ipynb") for name in graph.default()}
    preset = graph.default().presets["published"]
    values = settings.resolve(schema, preset=preset)
    assert values["01_data"]["validation_fraction"] == 0
    for stage in ("02_binary", "03_categorical", "04_autoencoder"):
        assert values[stage]["batch_size"] == 16
    assert values["05_knn"]["k"] == 5 and values["04_autoencoder"]["percentile"] == 5
