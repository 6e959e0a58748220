"""What would let the set-up drift, or the house fall into disorder."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
NEED_TENSORFLOW = {
    "anomaly",
    "augmentation",
    "checkpoints",
    "frame",
    "embeddings",
    "gradcam",
    "models",
    "training",
}
MODULES = sorted(p.stem for p in (ROOT / "cxr_helpers").glob("[a-z]*.py"))
SOURCES = [
    p
    for folder in ("cxr_helpers", "report", "notebooks")
    for p in (ROOT / folder).rglob("*")
    if p.suffix in {".py", ".ipynb"} and "build" not in p.relative_to(ROOT).parts
] + [ROOT / "run_all.py"]


def test_environment_yml_lists_what_pyproject_lists():
    lines = (ROOT / "environment.yml").read_text().splitlines()
    pip = [line.strip()[2:] for line in lines if line.startswith("      - ")]
    assert pip == [*PROJECT["project"]["dependencies"], "-e ."]
    assert f"  - python{PROJECT['project']['requires-python']}" in lines


def test_the_two_lists_of_exact_versions_are_one():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert pins == PROJECT["tool"]["uv"]["constraint-dependencies"]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+", pin) for pin in pins)


def test_every_dependency_is_pinned():
    def plain(name):
        return re.split(r"[<>=]", name)[0].lower().replace("_", "-")

    pinned = {plain(p) for p in PROJECT["tool"]["uv"]["constraint-dependencies"]}
    wanted = PROJECT["project"]["dependencies"] + PROJECT["dependency-groups"]["dev"]
    assert {plain(p) for p in wanted} <= pinned


def test_no_file_records_a_download_address():
    address = re.compile(r"https?://[^ \"]+(\.whl|\.tar\.gz|/simple/?)")
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    names = [
        n for n in listed.stdout.splitlines() if (ROOT / n).suffix in {".toml", ".txt", ".yml"}
    ]
    assert names and not [n for n in names if address.search((ROOT / n).read_text())]
    assert "uv.lock" not in listed.stdout


def test_modules_that_need_no_tensorflow_never_import_it():
    plain = [name for name in MODULES if name not in NEED_TENSORFLOW and name != "execution"]
    code = f"import sys\nfor name in {plain}: __import__('cxr_helpers.' + name)\n"
    code += "import report.contents\n"
    code += (
        "sys.exit(' '.join(m for m in ('tensorflow', 'keras', 'torch') if m in sys.modules) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_module_has_its_tests():
    tested = {p.stem.removeprefix("test_") for p in (ROOT / "tests").glob("test_*.py")}
    through = dict.fromkeys(["anatomy", "strokes", "lesions", "exposure"], "phantoms")
    through |= {"images": "plots", "commands": "run_all"}
    assert {through.get(name, name) for name in MODULES} <= tested


@pytest.mark.parametrize(
    "banned", [r"\bpickle\b", r"joblib\.load", r"allow_pickle=True", r"\bload_model\b", r"\bexec\("]
)
def test_nothing_is_loaded_that_could_run_code(banned):
    assert not [p.name for p in SOURCES if re.search(banned, p.read_text(encoding="utf-8"))]


def test_no_module_is_a_drawer():
    assert {"utils", "common", "helpers", "misc"}.isdisjoint(MODULES)
