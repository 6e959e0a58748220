"""Each notebook on a machine that has nothing else, laid out like Colab's."""

import json
import re
import shutil
import subprocess
import sys

import nbformat
import pytest
from machine import ROOT
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

pytestmark = pytest.mark.usefixtures("by_hand")
HIDES = f"import sys; sys.path[:] = [p for p in sys.path if p != {str(ROOT)!r}]; "
KERNEL = HIDES + "from ipykernel.kernelapp import launch_new_instance; launch_new_instance()"
SMALL = {
    "01_data": {"n_phantoms": 60, "image_size": 32, "border_epochs": 1, "border_folds": 2},
    "02_binary": {"epochs": 1, "study_epochs": 1, "study_images": 16, "study_rates": [0.001]},
}


@pytest.fixture
def content(tmp_path, monkeypatch):
    """Return a working folder; kernels that start there do not find the project."""
    kernel = {"argv": [sys.executable, "-c", KERNEL, "-f", "{connection_file}"]}
    spec = tmp_path / "jupyter" / "kernels" / "hosted"
    spec.mkdir(parents=True)
    names = {"display_name": "hosted", "language": "python"}
    (spec / "kernel.json").write_text(json.dumps(kernel | names))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.setenv("COLAB_RELEASE_TAG", "release-colab")
    (tmp_path / "content").mkdir()
    return tmp_path / "content"


def zipped(root, content):
    """Put a project into the folder as a zip, below one folder as Git services write it."""
    tree = content / "cxr-report-main"
    left_out = shutil.ignore_patterns("build", "__pycache__")
    for name in ("cxr_helpers", "notebooks", "report"):
        shutil.copytree(root / name, tree / name, ignore=left_out)
    for name in ("run_all.py", "pyproject.toml"):
        shutil.copy(ROOT / name if name == "pyproject.toml" else root / name, tree)
    shutil.make_archive(str(content / "cxr-report"), "zip", content, tree.name)
    shutil.rmtree(tree)


def setup_cell():
    book = nbformat.read(ROOT / "notebooks" / "01_data.ipynb", as_version=4)
    return book.cells[2].source


def execute(book, content):
    """Execute a notebook in the folder; return what its cells printed."""
    place = {"metadata": {"path": content}}
    NotebookClient(book, kernel_name="hosted", timeout=300, resources=place).execute()
    cells = [cell for cell in book.cells if cell.cell_type == "code"]
    return "".join(out.get("text", "") for cell in cells for out in cell.outputs)


def of(*sources):
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(s) for s in sources])


def test_without_address_or_zip_the_cell_says_what_to_do(content):
    with pytest.raises(CellExecutionError, match="set REPOSITORY to the address") as error:
        execute(of(setup_cell()), content)
    assert "Traceback" not in str(error.value)
    assert list(content.iterdir()) == []


def test_zip_is_unpacked_once_and_found_again(content, project):
    zipped(project.root, content)
    where = "import cxr_helpers; print(cxr_helpers.__file__); print(os.getcwd())"
    home = content / "cxr-report"
    for _ in range(2):
        printed = execute(of(setup_cell(), where), content).split()
        assert printed == [str(home / "cxr_helpers" / "__init__.py"), str(home / "notebooks")]
        (content / "cxr-report.zip").unlink(missing_ok=True)
    assert (home / "run_all.py").is_file()


def test_repository_is_cloned_at_the_release(content, project):
    shutil.copy(ROOT / "pyproject.toml", project.root)
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@example.org", "-C", project.root]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "x"], ["tag", "v9"]):
        subprocess.run([*git, *command], check=True)
    (project.root / "run_all.py").unlink()  # a later version
    subprocess.run([*git, "commit", "-qam", "y"], check=True)
    cell = setup_cell().replace('REPOSITORY = ""', f"REPOSITORY = {f'file://{project.root}'!r}")
    lines = [line if "RELEASE =" not in line else 'RELEASE = "v9"' for line in cell.splitlines()]
    execute(of("\n".join(lines)), content)
    assert (content / "cxr-report" / "run_all.py").is_file()


def test_repository_without_the_release_is_cloned_at_its_newest_version(content, project):
    shutil.copy(ROOT / "pyproject.toml", project.root)
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@example.org", "-C", project.root]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "x"]):
        subprocess.run([*git, *command], check=True)
    cell = setup_cell().replace('REPOSITORY = ""', f"REPOSITORY = {f'file://{project.root}'!r}")
    printed = execute(of(cell), content)
    assert re.search(r"Release v\S+ could not be fetched: trying the newest version\.", printed)
    assert (content / "cxr-report" / "run_all.py").is_file()


def test_address_that_git_cannot_read_is_one_line_too(content, tmp_path):
    cell = setup_cell().replace('REPOSITORY = ""', f"REPOSITORY = {str(tmp_path / 'none')!r}")
    with pytest.raises(CellExecutionError, match="set REPOSITORY to the address") as error:
        execute(of(cell), content)
    assert "CalledProcessError" not in str(error.value)
    assert f"nothing was fetched from {tmp_path / 'none'} (see above)" in str(error.value)
    assert not (content / "cxr-report").exists()


def test_interrupted_download_is_repeated(content, project):
    (content / ".cxr-report" / "half").mkdir(parents=True)
    (content / ".cxr-report" / "half" / "run_all.py").touch()
    zipped(project.root, content)
    execute(of(setup_cell()), content)
    assert (content / "cxr-report" / "cxr_helpers").is_dir()


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_notebook_runs_alone(name, content):
    zipped(ROOT, content)
    book = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    changed = "\n".join(f"{key} = {value!r}" for key, value in SMALL[name].items())
    book.cells.insert(4, nbformat.v4.new_code_cell(changed))
    printed = execute(book, content)
    scratch = content / "cxr-report" / "report" / "build" / "*" / "scratch" / "stages" / name
    assert list(content.glob(str(scratch.relative_to(content) / "declared.json")))
    if name == "02_binary":
        assert "01_data will be made at the quick setting, in less than a minute" in printed
