import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from cxr_helpers.system import hosted

ROOT = Path(__file__).parents[2]


def frozen(path):
    """Return the versions of a kept list of a service, by canonical name."""
    lines = path.read_text().splitlines()
    pins = [line.split("==") for line in lines if "==" in line and not line.startswith("#")]
    return {hosted.canonicalize_name(name): version for name, version in pins}


@pytest.fixture
def colab(shared_data):
    return frozen(shared_data / "hosted" / "colab.txt")


@pytest.fixture
def kaggle(shared_data, colab):
    """Kaggle's image is based on Colab's."""
    return colab | frozen(shared_data / "hosted" / "kaggle.txt")


def test_missing_and_other_versions_are_told_apart():
    needed = [Requirement("Zero_Pkg>=1"), Requirement("one>=2"), Requirement("two>=2,<3")]
    versions = {"one": "2.1", "two": "3.0"}
    missing, other = hosted.lacking(needed, versions)
    assert [str(r) for r in missing] == ["Zero_Pkg>=1"]
    assert [r.name for r in other] == ["two"]


def test_tensorflow_for_processors_only_is_tensorflow():
    needed = [Requirement("tensorflow>=2.19")]
    assert hosted.lacking(needed, {"tensorflow-cpu": "2.20.0"}) == ([], [])


def test_of_what_colab_has_nothing_is_changed(colab):
    missing, other = hosted.lacking(hosted.requirements(), colab)
    assert other == []
    assert {r.name for r in missing} == {"papermill", "imagehash", "typst", "pypandoc-binary"}


def test_of_what_kaggle_has_only_nbconvert_is_changed(kaggle):
    missing, other = hosted.lacking(hosted.requirements(), kaggle)
    assert [r.name for r in other] == ["nbconvert"]
    assert {r.name for r in missing} <= {"papermill", "imagehash", "typst", "pypandoc-binary"}


@pytest.mark.parametrize(("service", "python"), [("colab", "3.13"), ("kaggle", "3.12")])
def test_what_is_missing_can_be_installed_beside_what_is_there(service, python, request, tmp_path):
    """uv resolves the missing packages with every version of the service kept."""
    versions = request.getfixturevalue(service)
    missing, other = hosted.lacking(hosted.requirements(), versions)
    wanted = [str(r) for r in [*missing, *other]]
    changed = {hosted.canonicalize_name(r.name) for r in other}
    kept = [f"{name}=={version}\n" for name, version in versions.items() if name not in changed]
    (tmp_path / "wanted.in").write_text("\n".join(wanted))
    (tmp_path / "kept.txt").write_text("".join(kept))
    uv = shutil.which("uv") or pytest.skip("uv is not on the path")
    command = [
        uv,
        "pip",
        "compile",
        "-q",
        "--python-version",
        python,
        "wanted.in",
        "-c",
        "kept.txt",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    if "Failed to fetch" in done.stderr:
        pytest.skip("no network")
    assert done.returncode == 0, done.stderr
    resolved = dict(line.split("==") for line in done.stdout.splitlines() if "==" in line)
    assert {"papermill", "imagehash"} <= set(resolved)


@pytest.mark.parametrize(("variable", "name"), [(v, k) for k, v in hosted.SERVICES.items()])
def test_service_is_recognised(variable, name, monkeypatch):
    for other in hosted.SERVICES.values():
        monkeypatch.delenv(other, raising=False)
    assert hosted.service() is None
    monkeypatch.setenv(variable, "x")
    assert hosted.service() == name


def test_nothing_happens_where_everything_is_there(monkeypatch):
    monkeypatch.setattr(subprocess, "run", None)
    hosted.install()


@pytest.fixture
def lacks(monkeypatch):
    """Plant that imagehash is missing and that another keras, which is loaded, is there."""
    versions = hosted.installed()
    del versions["imagehash"]
    versions["keras"] = "2.0"
    monkeypatch.setattr(hosted, "installed", lambda: versions)
    monkeypatch.setitem(sys.modules, "keras", object())


def test_own_kernel_is_not_changed_but_told_what_to_do(lacks, monkeypatch):
    monkeypatch.setattr(hosted, "service", lambda: None)
    monkeypatch.setattr(subprocess, "run", None)
    with pytest.raises(SystemExit, match=r"lacks imagehash.*, keras.*`uv run jupyter lab"):
        hosted.install()


def test_package_whose_module_has_another_name_is_known_as_loaded(monkeypatch):
    """Pillow is imported as PIL."""
    versions = hosted.installed() | {"pillow": "2.0"}
    monkeypatch.setattr(hosted, "installed", lambda: versions)
    monkeypatch.setitem(sys.modules, "PIL", object())
    monkeypatch.setattr(hosted, "service", lambda: "Colab")
    done = subprocess.CompletedProcess([], 0, stderr="")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)
    with pytest.raises(SystemExit, match="pillow changed after it was imported: restart"):
        hosted.install()


def test_other_packages_are_held_at_their_versions(lacks, monkeypatch, capsys):
    calls = []

    def run(command, **options):
        calls.append(
            (
                command,
                Path(command[command.index("-c") + 1]).read_text(encoding="utf-8").splitlines(),
            )
        )
        return subprocess.CompletedProcess(command, 0, stderr="")

    monkeypatch.setattr(hosted, "service", lambda: "Colab")
    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(SystemExit, match="keras changed after it was imported: restart"):
        hosted.install()
    ((command, kept),) = calls
    assert [Requirement(word).name for word in command[-2:]] == ["imagehash", "keras"]
    assert f"numpy=={metadata.version('numpy')}" in kept
    assert not [pin for pin in kept if pin.startswith(("keras==", "imagehash=="))]
    assert "No other package is changed" in capsys.readouterr().out


def test_failed_installation_is_one_line(lacks, monkeypatch):
    failed = subprocess.CompletedProcess([], 1, stderr="noise\nERROR: no matching distribution\n")
    monkeypatch.setattr(hosted, "service", lambda: "Kaggle")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(SystemExit, match=r"no matching distribution\).*internet access on") as stop:
        hosted.install()
    assert "\n" not in str(stop.value)


def test_module_imports_no_package_of_the_project():
    code = "import sys; import cxr_helpers.system.hosted; "
    code += "sys.exit(' '.join({'numpy', 'rich', 'psutil', 'filelock'} & set(sys.modules)) or 0)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
