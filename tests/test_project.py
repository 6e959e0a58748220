"""Dependencies are listed alike everywhere, and every module has its place and its tests."""

import ast
import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGE = ROOT / "cxr_helpers"
MODULES = sorted(
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")
    for path in PACKAGE.glob("*/**/*.py")
)
ROOMS = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))
NEED_TENSORFLOW = {
    "anomaly.reconstruction",
    "explain.attributions",
    "explain.covering",
    "explain.explained",
    "explain.gradcam",
    "explain.interventions",
    "explain.measures",
    "explain.removal",
    "explain.sanity",
    "explore.panel",
    "explore.session",
    "models.adaptation",
    "models.architectures",
    "models.augmentation",
    "models.checkpoints",
    "models.embeddings",
    "models.pretrained",
    "models.recipes",
    "models.tracing",
    "models.training",
    "shortcuts.ablation",
    "shortcuts.border",
    "shortcuts.twins",
}
# Modules without a test file of their own: where they are tested instead.
TESTED_BY = dict.fromkeys(
    ["phantoms.anatomy", "phantoms.vessels", "phantoms.lesions", "phantoms.acquisition"],
    "phantoms/test_rendering.py",
) | {
    "figures.appearance": "figures/test_charts.py",
    "figures.forest": "report/test_contents.py",
    "figures.xrays": "figures/test_charts.py",
    "models.networks": "models/test_new_network.py",
    "pipeline.classifiers": "explore/test_session.py",
    "pipeline.command_line": "test_run_all.py",
    "pipeline.display": "test_run_all.py",
    "pipeline.fork_server": "pipeline/test_kernels.py",
    "pipeline.running": "pipeline/test_runner.py",
    "pipeline.worker": "test_workers.py",
}
SOURCES = [
    p
    for folder in ("cxr_helpers", "report", "notebooks")
    for p in (ROOT / folder).rglob("*")
    if p.suffix in {".py", ".ipynb"} and "build" not in p.relative_to(ROOT).parts
] + [ROOT / "run_all.py"]


def test_environment_yml_has_the_dependencies_of_pyproject():
    lines = (ROOT / "environment.yml").read_text().splitlines()
    pip = [line.strip()[2:] for line in lines if line.startswith("      - ")]
    assert pip == [*PROJECT["project"]["dependencies"], "-e ."]
    assert f"  - python{PROJECT['project']['requires-python']}" in lines


def test_binder_has_the_dependencies_without_gpu_support_and_jupyter():
    lines = (ROOT / ".binder" / "environment.yml").read_text().splitlines()
    pip = [line.strip()[2:] for line in lines if line.startswith("      - ")]
    own = [d for d in PROJECT["project"]["dependencies"] if not d.startswith("jupyter")]
    assert pip == [d.replace("tensorflow>", "tensorflow-cpu>") for d in own]


def test_constraints_are_the_same_in_both_files():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert pins == PROJECT["tool"]["uv"]["constraint-dependencies"]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+", pin) for pin in pins)


def test_every_dependency_is_pinned():
    def plain(name):
        return re.split(r"[<>=\[]", name)[0].lower().replace("_", "-")

    pinned = {plain(p) for p in PROJECT["tool"]["uv"]["constraint-dependencies"]}
    extras = PROJECT["project"]["optional-dependencies"].values()
    direct = PROJECT["project"]["dependencies"] + PROJECT["dependency-groups"]["dev"]
    assert {plain(p) for p in sum(extras, direct)} <= pinned


def test_gpu_extra_adds_the_cuda_libraries_on_linux_alone():
    (needed,) = map(Requirement, PROJECT["project"]["optional-dependencies"]["gpu"])
    (plain,) = (d for d in PROJECT["project"]["dependencies"] if d.startswith("tensorflow>"))
    assert needed.extras == {"and-cuda"} and needed.specifier == Requirement(plain).specifier
    for system, machine, expected in (
        ("linux", "x86_64", True),
        ("linux", "aarch64", False),
        ("darwin", "arm64", False),
        ("win32", "AMD64", False),
    ):
        there = {"sys_platform": system, "platform_machine": machine}
        assert needed.marker.evaluate(there) == expected


def test_tests_have_the_packages_of_the_extra_for_workers():
    extra = PROJECT["project"]["optional-dependencies"]["cluster"]
    assert set(extra) <= set(PROJECT["dependency-groups"]["dev"])


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


def test_modules_that_need_no_tensorflow_do_not_import_it():
    plain = [
        name
        for name in MODULES
        if not any(name == needs or name.startswith(f"{needs}.") for needs in NEED_TENSORFLOW)
    ]
    code = f"import sys\nfor name in {plain}: __import__('cxr_helpers.' + name)\n"
    code += "import report.contents\n"
    code += (
        "sys.exit(' '.join(m for m in ('tensorflow', 'keras', 'torch') if m in sys.modules) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", [name for name in MODULES if name not in ROOMS])
def test_module_has_its_tests(name):
    *folders, module = name.split(".")
    place = TESTED_BY.get(name, "/".join([*folders, f"test_{module}.py"]))
    assert (ROOT / "tests" / place).is_file()


@pytest.mark.parametrize("room", ROOMS)
def test_room_docstring_states_purpose_and_allowed_imports(room):
    text = ast.get_docstring(ast.parse((PACKAGE / room / "__init__.py").read_text("utf-8")))
    assert len(re.findall(r"\.(?=\s|$)", text)) == 2 and "import" in text


@pytest.mark.parametrize(
    "banned", [r"\bpickle\b", r"joblib\.load", r"allow_pickle=True", r"\bload_model\b", r"\bexec\("]
)
def test_no_file_is_loaded_that_could_run_code(banned):
    # the fork server executes what its runner sends it through a socket, no file
    sources = [p for p in SOURCES if p.name != "fork_server.py" or "exec" not in banned]
    assert not [p.name for p in sources if re.search(banned, p.read_text(encoding="utf-8"))]


# What Windows has not: calls of ``os``, and modules.
POSIX_CALLS = (
    *("fork", "forkpty", "killpg", "setsid", "getpgid", "getsid", "getuid", "geteuid", "chown"),
    *("mkfifo", "nice", "pidfd_open", "posix_fallocate", "sched_getaffinity", "statvfs", "wait"),
)
POSIX_MODULES = ("fcntl", "grp", "pty", "pwd", "resource", "syslog", "termios")


def test_calls_that_windows_has_not_are_asked_for_first():
    """The fork server is used on Linux alone; in a kernel, what has forked may call setsid."""
    unasked = set()
    for path in SOURCES:
        text = path.read_text(encoding="utf-8")
        for name in POSIX_CALLS:
            asked = re.search(rf'(has|get)attr\(os, \\?"{name}', text)
            if re.search(rf"\bos\.{name}\(", text) and not asked:
                unasked.add((path.name, name))
        for name in POSIX_MODULES:
            if re.search(rf"^(import|from) {name}\b", text, re.M):
                unasked.add((path.name, name))
    assert {u for u in unasked if u[0] != "fork_server.py"} == {("kernels.py", "setsid")}


def test_what_the_benchmark_of_reruns_changes_is_there():
    specification = importlib.util.spec_from_file_location(
        "rerun", ROOT / "benchmarks" / "rerun.py"
    )
    rerun = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(rerun)
    for name, old, new in rerun.CHANGES:
        assert old in (ROOT / name).read_text(encoding="utf-8") and old != new


def test_arrays_are_mapped_in_one_place_only():
    """Where Windows, which locks mapped files, reads them instead."""
    mapping = re.compile(r"mmap_mode=(?!None if WINDOWS)")
    found = [p.name for p in PACKAGE.rglob("*.py") if mapping.search(p.read_text("utf-8"))]
    assert found == []


def test_no_module_has_an_uninformative_name():
    names = {part for name in MODULES for part in name.split(".")}
    assert {"utils", "common", "helpers", "misc"}.isdisjoint(names)
