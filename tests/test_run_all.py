"""The command line: exit codes, messages, and that nothing starts in vain."""

import errno
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from folders import LAYOUT, make

import run_all
from cxr_helpers.data import downloads, ingestion, sources
from cxr_helpers.pipeline import command_line, graph, prediction, stages
from cxr_helpers.pipeline.runs import Run
from cxr_helpers.system.errors import DataError

ROOT = Path(run_all.__file__).parent


@pytest.fixture
def build(tmp_path, monkeypatch):
    monkeypatch.setattr(run_all, "BUILD", tmp_path / "build")
    return tmp_path / "build"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--set", "epochs=-3"], 2, "epochs = -3 is out of range: 1 to 500"),
        (["--set", "epochs=0"], 2, "out of range"),
        (["--set", "batch_size=0"], 2, "batch_size = 0 is out of range: 1 to 1024"),
        (["--set", "learning_rate=inf"], 2, "out of range"),
        (["--set", "epoch=3"], 2, "did you mean 'epochs'?"),
        (["--set", "image_size=130"], 2, "in steps of 4"),
        (["--set", "data=images"], 2, "give the images with --data"),
        (["--set", "run_dir=/tmp"], 2, "'run_dir' is not changed by --set"),
        (["--set", "precision=bfloat"], 2, "is not one of auto, float32, mixed_bfloat16"),
        (["--set", "serial_fraction=0.1"], 2, "serial_fraction is now contiguous_fraction"),
        (["--set", "choose_by=serial"], 2, "choose_by = 'serial' is now 'contiguous'"),
        (["--set", 'x=1;open("PWNED","w").close()'], 2, "no notebook has a parameter 'x'"),
        (["--seed", "-1"], 2, "seed = -1 is out of range: 0 to 4294967295"),
        (["--only", "08"], 2, "no stage '08'"),
        (["--from", "binarry"], 2, "expected one of 01_data, 02_binary, 03_categorical"),
        (["--from", "binarry"], 2, "did you mean '02_binary'?"),
        (["--only", "07"], 2, "01_data is not up to date (never finished)"),
        (["--data", "no/such/folder"], 3, "'no/such/folder' does not exist"),
        (["--data", "/"], 3, "'/' is a whole disk"),
        (["--data", "kagle"], 3, "did you mean 'kaggle'?"),
    ],
)
def test_mistake_is_reported_in_one_line_with_an_exit_code(build, capsys, arguments, code, words):
    assert run_all.main(arguments) == code
    text = capsys.readouterr().err
    last = text.strip().splitlines()[-1]
    assert last.startswith("error: ") and words in last
    assert "Traceback" not in text
    assert not Path("PWNED").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--run", "../../x"], "--run '../../x'"),
        (["--run", "/tmp/x"], "expected letters"),
        (["--run", "con"], "Windows reserves this name"),
        (["--run", "aux.2"], "Windows reserves this name"),
        (["--preset", "fast"], "invalid choice: 'fast'"),
        (["--timeout", "0"], "expected at least 1 second"),
        (
            ["--weights-from", "x", "--preset", "quick"],
            "omit --preset, --grid, and --set but for lung_masks",
        ),
        (
            ["--weights-from", "x", "--set", "epochs=3"],
            "omit --preset, --grid, and --set but for lung_masks",
        ),
        (["--predict", "x"], "name at least one image or folder after the run"),
        (["--unknown"], "unrecognized arguments"),
        (
            ["--weights-from", "x", "--grid", "epochs=3,4"],
            "omit --preset, --grid, and --set but for lung_masks",
        ),
        (["--workers", "0"], "--workers 0: expected 1 to 1024"),
        (["--jobs", "0"], "--jobs 0: expected 1 to 1024"),
        (
            ["--jobs", "2", "--workers", "2"],
            "--jobs cannot be combined with --workers or --cluster",
        ),
        (["--threads", "-1"], "--threads -1: expected 1 to 1024"),
        (["--workers", "2", "--cluster", "x"], "--workers and --cluster cannot be combined"),
        (
            ["--workers", "2", "--plain-tcp"],
            "--tls and --plain-tcp can only be used with --cluster",
        ),
        (["--seeds", "4-0"], "--seeds '4-0' counts down"),
        (["--seeds", "0-1", "--seed", "3"], "--seeds cannot be combined with --seed"),
        (["--only", "2", "--from", "3"], "--only and --from cannot be combined"),
        (["--set", "seed=3", "--seed", "4"], "--set seed= cannot be combined with --seed"),
        (["--set", "2.epochs=3", "--grid", "epochs=1,2"], "cannot be combined with --grid epochs="),
        (["--set", "seed=3", "--seed", "4", "--grid", "epochs=1,2"], "--set seed= cannot"),
        (["--set", "epochs=3", "--set", "epochs=4"], "--set epochs= is given twice: keep one"),
        (["--list", "--clean"], "--list and --clean cannot be combined"),
        (["--clean", "--run", "x"], "--clean and --run cannot be combined"),
        (["--clean", "--data", "x"], "--clean and --data cannot be combined"),
        (["--predict", "x", "y", "--threads", "1"], "--predict and --threads cannot be combined"),
        (["--explore", "x", "--set", "k=3"], "--explore and --set cannot be combined"),
        (["--list", "--from", "2"], "--list and --from cannot be combined"),
        (["--dry-run", "--explore", "x"], "--dry-run cannot be combined with --explore"),
        (["--author", "M\udcfcller"], "is not UTF-8"),
    ],
)
def test_invalid_option_is_refused(capsys, arguments, words):
    with pytest.raises(SystemExit) as error:
        run_all.main(arguments)
    assert error.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("run_all.py: error: ") and words in line


def test_predictions_that_cannot_be_written_are_refused_before_a_network_is_loaded(
    monkeypatch, capsys
):
    def refused(_):
        raise PermissionError(errno.EACCES, "Permission denied", "./.partial-1")

    monkeypatch.setattr(prediction, "find", lambda paths: paths)
    monkeypatch.setattr(command_line, "finished_run", lambda *_, **__: None)
    monkeypatch.setattr(run_all.files, "temporary_folder", refused)
    assert run_all.main(["--predict", "run", "image.png"]) == 6
    (line,) = capsys.readouterr().err.splitlines()
    assert "predicted.csv cannot be written in this folder (Permission denied)" in line


def test_stages_of_an_option_that_is_given_twice_add_up():
    arguments = ["--only", "2", "3", "--only", "05_knn"]
    options = command_line.parse(arguments, presets=["demo"], summary="")
    assert options.only == ["2", "3", "05_knn"]


@pytest.mark.parametrize(
    "option",
    "--data --preset --weights-from --set --seed --seeds --only --from --predict --explore --run --timeout "
    "--title --author --course --grid --jobs --workers --cluster --threads --tls".split(),
)
@pytest.mark.parametrize("value", ["", " "])
def test_empty_value_is_refused(build, capsys, option, value):
    """As of an unset shell variable: "--weights-from $RUN" would train."""
    with pytest.raises(SystemExit) as error:
        run_all.main([option, value, "--dry-run"])
    assert error.value.code == 2
    assert f"error: argument {option}: " in capsys.readouterr().err


def test_every_option_is_tested_for_an_empty_value(capsys):
    with pytest.raises(SystemExit):
        run_all.main(["--help"])
    options = set(re.findall(r"^  (--[a-z-]+) [A-Z{]", capsys.readouterr().out, re.MULTILINE))
    (tested,) = (
        mark.args[1] for mark in test_empty_value_is_refused.pytestmark if mark.args[0] == "option"
    )
    assert options == set(tested)


@pytest.mark.parametrize("setting", ["epochs=", "epochs= ", "=3", "epochs"])
def test_setting_without_a_name_or_a_value_is_refused(capsys, setting):
    with pytest.raises(SystemExit):
        run_all.main(["--set", setting])
    assert f"argument --set: {setting!r} is not NAME=VALUE" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--title", "--author", "--course"])
def test_long_line_of_the_title_page_is_refused(build, capsys, option):
    with pytest.raises(SystemExit):
        run_all.main([option, "x" * 10_000, "--dry-run"])
    assert (
        f"argument {option}: 10,000 characters is too long: at most 300" in capsys.readouterr().err
    )
    assert run_all.main([option, "x" * 300, "--dry-run"]) == 0


@pytest.mark.parametrize(
    ("page", "words"),
    [
        (
            'title = "x"\nauthor = "' + "x" * 301 + '"\ncourse = ""',
            "author: 301 characters is too long",
        ),
        ('title = "x"\nauthor = ""\ncourse = 1', "course is not a string: write it in quotes"),
        ('title = "x"\nauthor = ""', "course is not a string: write it in quotes"),
        ("title = x", "Invalid value (at line 1, column 9)"),
        (None, "No such file or directory: it holds the title page"),
        ('title = "x"\nauthor = ""\ncourse = "' + "x" * 300 + '"', ""),
    ],
)
def test_file_of_the_title_page_is_checked(build, tmp_path, monkeypatch, capsys, page, words):
    (tmp_path / "notebooks").symlink_to(ROOT / "notebooks")
    (tmp_path / "report").mkdir()
    if page is not None:
        (tmp_path / "report" / "report.toml").write_text(page)
    monkeypatch.setattr(run_all, "ROOT", tmp_path)
    assert run_all.main(["--dry-run"]) == (2 if words else 0)
    text = capsys.readouterr().err.splitlines()
    assert [words in line and "report.toml: " in line for line in text if "error" in line] == (
        [True] if words else []
    )


@pytest.fixture
def notebooks(tmp_path, monkeypatch):
    """Return a copy of the folder of notebooks, which the command reads."""
    folder = tmp_path / "notebooks"
    shutil.copytree(run_all.NOTEBOOKS, folder, ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    monkeypatch.setattr(run_all, "NOTEBOOKS", folder)
    return folder


def edit(path, change):
    """Change the content of a notebook in place."""
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def refused(arguments, capsys):
    """Return the message of a command that ends with exit code 4, without ``error: ``."""
    assert run_all.main(arguments) == 4
    (line,) = capsys.readouterr().err.splitlines()
    return line.removeprefix("error: ")


def test_missing_notebook_is_named(notebooks, capsys):
    (notebooks / "03_categorical.ipynb").unlink()
    message = refused(["--dry-run"], capsys)
    assert message == "05_knn.ipynb reads '03_categorical', which is not an earlier stage"


def test_folder_without_notebooks_is_refused(notebooks, capsys):
    for path in notebooks.glob("*.ipynb"):
        path.unlink()
    assert refused(["--dry-run"], capsys).startswith("notebooks holds no notebook with a name like")


def test_notebook_that_cannot_be_read_is_named(notebooks, capsys):
    """A broken link: there is a name and no file."""
    (notebooks / "08_extra.ipynb").symlink_to(notebooks / "nowhere")
    message = refused(["--dry-run"], capsys)
    assert message.endswith("08_extra.ipynb: No such file or directory") and "Errno" not in message


def test_invalid_declaration_is_exit_code_4(notebooks, capsys, build):
    def change(content):
        content["metadata"]["cxr"]["raeds"] = []

    edit(notebooks / "06_tsne.ipynb", change)
    assert refused([], capsys) == (
        "06_tsne.ipynb: its declaration (metadata, 'cxr') is not valid: unknown key 'raeds'; "
        "did you mean 'reads'?"
    )
    assert not build.exists()


def test_invalid_preset_is_exit_code_4(notebooks, capsys, build):
    """Also where another preset is chosen."""

    def change(content):
        content["metadata"]["cxr"]["presets"]["quick"]["perplexity"] = 1.0

    edit(notebooks / "06_tsne.ipynb", change)
    assert refused([], capsys) == (
        "06_tsne.ipynb, preset 'quick': perplexity = 1.0 is out of range: 2 to 200"
    )
    assert not build.exists()


def test_number_of_a_stage_is_enough(build, capsys):
    assert run_all.main(["--from", "1", "--set", "2.epochs=3", "--dry-run"]) == 0
    assert run_all.main(["--only", "7", "--dry-run"]) == 2
    assert "01_data is not up to date (never finished)" in capsys.readouterr().err


def test_debug_shows_the_traceback(build, capsys):
    assert run_all.main(["--set", "epochs=0", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_dry_run_shows_what_would_run_and_why_and_writes_nothing(build, capsys):
    assert run_all.main(["--dry-run"]) == 0
    text = capsys.readouterr().err
    assert all(stage in text for stage in graph.default()) and "never finished" in text
    assert not build.exists()


@pytest.mark.parametrize(
    ("arguments", "preset"),
    [([], "demo"), (["--preset", "standard"], "standard"), (["--data", "kaggle"], "standard")],
)
def test_default_preset_is_a_first_look_on_phantoms_only(build, no_copy, capsys, arguments, preset):
    assert run_all.main(["--dry-run", *arguments]) == 0
    assert f", preset {preset} → " in capsys.readouterr().err


def test_list_shows_parameters_as_settings(capsys):
    assert run_all.main(["--list"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "  learning_rate=0.001 " in out and "float32 | mixed_bfloat16" in out
    assert "  study_rates=0.0001,0.001,0.01,0.1 " in out
    assert "run_dir" not in out and "cache_dir" not in out


def test_mistake_is_reported_before_tensorflow_is_imported():
    code = (
        "import sys, run_all; code = run_all.main(['--set', 'epochs=0']); "
        "sys.exit(9 if 'tensorflow' in sys.modules or 'keras' in sys.modules else code)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True)
    assert done.returncode == 2


ENOUGH = LAYOUT | {
    "train/NORMAL": [f"IM-{number:04}-0001.jpeg" for number in range(100, 140)],
    "train/PNEUMONIA": [f"person{number}_bacteria_1.jpeg" for number in range(1, 41)],
}


@pytest.mark.parametrize(
    ("changes", "arguments", "words"),
    [
        ({}, [], ""),
        (
            {"NORMAL": ["IM-0200-0001.jpeg", "IM-0200-0002.jpeg"]},
            [],
            "images of normal: train needs at least",
        ),
        (
            {"PNEUMONIA": ["person8_virus_1.jpeg"]},
            [],
            "one kind of pneumonia: train needs at least",
        ),
        (
            {"NORMAL": [f"IM-020{number}-0001.jpeg" for number in range(3)]},
            ["--set", "contiguous_fraction=0.5", "--set", "validation_fraction=0.5"],
            "images of normal: train",
        ),
        (
            {"NORMAL": [f"IM-020{number}-0001.jpeg" for number in range(2)]},
            ["--set", "contiguous_fraction=0", "--set", "validation_fraction=0"],
            "images of normal: train after splitting needs at least 4 patient groups and has 3",
        ),
        (
            {"NORMAL": [f"IM-020{number}-0001.jpeg" for number in range(3)]},
            ["--set", "contiguous_fraction=0", "--set", "validation_fraction=0"],
            "",
        ),
    ],
)
def test_too_few_patients_are_refused_before_anything_runs(
    build, tmp_path, capsys, changes, arguments, words
):
    layout = ENOUGH | {f"train/{place}": names for place, names in changes.items()}
    data = str(make(tmp_path / "images", layout))
    code = run_all.main(["--dry-run", "--data", data, *arguments])
    text = capsys.readouterr().err
    assert code == (3 if words else 0) and words in text and not build.exists()


@pytest.mark.parametrize("share", ["0.1", "0.5"])
def test_too_few_phantoms_are_refused(build, capsys, share):
    """The minimum of 60 is enough for the fractions of each preset, not for two of 0.5 (seed 28)."""
    settings = ["n_phantoms=60", f"validation_fraction={share}", f"contiguous_fraction={share}"]
    settings = [word for setting in settings for word in ("--set", setting)]
    code = run_all.main(["--dry-run", "--seed", "28", *settings])
    assert code == (0 if share == "0.1" else 3), capsys.readouterr().err


def test_incomplete_data_folder_is_refused_before_anything_runs(build, tmp_path, capsys):
    (tmp_path / "images" / "train" / "NORMAL").mkdir(parents=True)
    assert run_all.main(["--data", str(tmp_path / "images")]) == 3
    assert "images': train/PNEUMONIA is missing" in capsys.readouterr().err
    assert not build.exists()


@pytest.fixture
def no_copy(monkeypatch, tmp_path):
    """Leave no copy of the published images, and fail where one is downloaded."""
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path / "kagglehub"))
    for name in ("kaggle", "mendeley"):
        monkeypatch.setattr(downloads, name, None)


@pytest.mark.parametrize("data", ["kaggle", "mendeley"])
def test_dry_run_downloads_and_writes_nothing(build, no_copy, tmp_path, capsys, data):
    assert run_all.main(["--dry-run", "--data", data]) == 0
    text = capsys.readouterr().err
    assert f"{data}, preset standard" in text and "would download" in text
    assert list(tmp_path.iterdir()) == []


def test_dry_run_unpacks_nothing(build, tmp_path, capsys):
    make(tmp_path / "images", ENOUGH)
    archive = shutil.make_archive(str(tmp_path / "images"), "zip", tmp_path / "images")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert run_all.main(["--dry-run", "--data", archive]) == 0
    assert "would unpack images.zip first" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


@pytest.mark.parametrize(
    ("settings", "size"), [([], 192), (["detail_size=0"], 128), (["image_size=256"], 256)]
)
def test_disk_is_checked_for_the_largest_images_that_are_kept(
    build, tmp_path, monkeypatch, settings, size
):
    seen = []

    def check(folder, *, n_images, image_size, pdf):
        seen.append((n_images, image_size))
        raise OSError(errno.ENOSPC, "stop here")

    monkeypatch.setattr(run_all.preflight, "check", check)
    make(tmp_path / "images", ENOUGH)
    arguments = [word for setting in settings for word in ("--set", setting)]
    assert run_all.main(["--data", str(tmp_path / "images"), *arguments]) == 6
    assert seen == [(sum(map(len, ENOUGH.values())), size)]


@pytest.mark.parametrize("data", ["kaggle", "mendeley"])
def test_disk_without_room_for_a_download_is_refused_before_it(
    build, no_copy, monkeypatch, capsys, data
):
    free = shutil.disk_usage("/")._replace(free=10**9)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: free)
    assert run_all.main(["--data", data]) == 6
    assert "954 MiB of disk space are free" in capsys.readouterr().err.strip().splitlines()[-1]
    assert not build.exists()


def test_run_in_use_is_refused_before_the_download(build, no_copy, capsys):
    (build / "kaggle-standard").mkdir(parents=True)
    with Run(build / "kaggle-standard").locked():
        assert run_all.main(["--data", "kaggle"]) == 5
    assert "is in use by process" in capsys.readouterr().err


@pytest.mark.parametrize("packed", [False, True])
def test_refusal_leaves_no_empty_run(build, tmp_path, capsys, packed):
    data = str(make(tmp_path / "images", ENOUGH))
    data = shutil.make_archive(data, "tar", data) if packed else data
    assert run_all.main(["--data", data, "--only", "07"]) == 2
    assert "01_data is not up to date" in capsys.readouterr().err
    assert {path.name for path in build.iterdir()} <= {".cache"}  # digests and the unpacked archive


def test_archive_is_named_not_its_place_in_the_cache(build, tmp_path, capsys):
    (tmp_path / "images" / "train" / "NORMAL").mkdir(parents=True)
    (tmp_path / "images" / "train" / "NORMAL" / "a.jpeg").touch()
    archive = shutil.make_archive(str(tmp_path / "images"), "zip", tmp_path / "images")
    assert run_all.main(["--data", archive]) == 3
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert f"error: '{archive}': train/PNEUMONIA is missing" in last and ".cache" not in last
    assert {path.name for path in build.iterdir()} <= {".cache"}  # digests and the unpacked archive


def test_two_folders_of_one_name_are_distinguished(build, tmp_path, capsys):
    one, two, copy = (tmp_path / name / "chest_xray" for name in ("one", "two", "copy"))
    make(one, ENOUGH)
    shutil.copytree(one, copy)
    shutil.copytree(one, two)
    next((two / "train" / "NORMAL").iterdir()).write_bytes(b"another image")
    run = Run(build / "chest_xray-standard")
    run.folder.mkdir(parents=True)
    source = sources.find(str(one), cache_dir=build)
    run.record_source(source.location, ingestion.identify(source)[0])

    def dry_run(data, *more):
        code = run_all.main(["--dry-run", "--data", str(data), *more])
        return code, capsys.readouterr().err

    code, text = dry_run(two)
    assert code == 2 and f"chest_xray-standard is a run on other images ({one})" in text
    proposed = text.strip().split()[-2:]
    assert proposed == ["--run", "two-chest_xray-standard"]
    code, text = dry_run(two, *proposed)
    assert code == 0 and f"images: {two}\n" in text
    assert dry_run(two, "--run", run.name)[0] == 2  # nor with its name
    assert dry_run(one)[0] == dry_run(one.parent)[0] == dry_run(copy)[0] == 0


def test_relative_paths_start_at_the_working_directory(tmp_path):
    """Another working directory, a name with spaces, an umlaut and a dash (LAY-09)."""
    here = tmp_path / "Röntgen Bilder -x"
    make(here / "chest xray", ENOUGH)
    command = [sys.executable, str(ROOT / "run_all.py"), "--dry-run", "--data", "chest xray"]
    done = subprocess.run(command, cwd=here, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "chest xray, preset standard" in done.stderr
    assert sorted(p.name for p in here.iterdir()) == ["chest xray"]


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ("phantom", "phantom-standard"),
        ("my images", "my-images-standard"),
        ("../..", "data-standard"),
        ("Röntgen", "R-ntgen-standard"),
        ("con.1", "data-con.1-standard"),  # Windows reserves con with any suffix
    ],
)
def test_run_names_have_plain_characters(data, name):
    assert command_line.run_name(data, "standard") == name
    assert command_line.RUN_NAME.fullmatch(name)


def test_name_of_the_earlier_run_has_plain_characters_too():
    name = command_line.run_name("other", "by-My Run (old) {data}")
    assert name == "other-by-My-Run-old-data" and command_line.RUN_NAME.fullmatch(name)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ValueError("odd"), 1),
        (OSError("5 requested and 3 written"), 1),
        (OSError(errno.ENOSPC, "No space left on device"), 6),
    ],
)
def test_only_a_bug_is_shown_with_its_traceback(build, monkeypatch, capsys, error, code):
    def fail(*_):
        raise error

    monkeypatch.setattr(run_all, "run_stages", fail)
    assert run_all.main([]) == code
    text = capsys.readouterr().err
    assert text.splitlines()[-1].startswith(f"error: {type(error).__name__}: {error}")
    assert ("Traceback" in text) == (code == 1)


def test_output_folder_that_cannot_be_created_is_exit_code_6(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(run_all, "BUILD", tmp_path / "file" / "build")
    assert run_all.main(["--preset", "quick"]) == 6
    assert (
        "cannot be written to (Not a directory)" in capsys.readouterr().err.strip().splitlines()[-1]
    )


def test_notebook_without_its_parameters_cell_is_exit_code_4(notebooks, capsys, build):
    """papermill would inject at the top, and the notebook's own values would win (CLI-04)."""

    def change(content):
        for cell in content["cells"]:
            cell["metadata"].pop("tags", None)

    edit(notebooks / "05_knn.ipynb", change)
    message = "05_knn.ipynb has 0 cells tagged 'parameters'; expected exactly one"
    assert refused([], capsys) == message
    assert not build.exists()


@pytest.fixture
def earlier(build):
    """Return the folder of a run in which all stages seem to be finished."""
    run = Run(build / "phantom-quick")
    for name in run.graph:
        stage = stages.Stage(name, run_dir=run.folder)
        stage.save("x.txt", Path.write_text, "x")
        stage.finish()
        run.write_manifest(name, {"parameters": {}}, seconds=0.0)
    return run.folder


@pytest.mark.parametrize("broken", [None, "declared.json", "manifest.json", "x.txt"])
def test_only_a_complete_earlier_run_is_scored(earlier, capsys, broken):
    if broken:
        (earlier / "stages" / "05_knn" / broken).write_text("edited")
    code = run_all.main(["--weights-from", "phantom-quick", "--dry-run"])
    text = capsys.readouterr().err
    if broken:
        assert code == 2
        assert (
            "--weights-from 'phantom-quick': its 05_knn is not complete: run it again first" in text
        )
    else:
        assert code == 0
        assert "phantom, models of phantom-quick → " in text and "phantom-by-phantom-quick" in text


def test_earlier_run_of_another_version_is_not_scored(earlier, capsys):
    """Planted: a declaration without a format, as before the renaming."""
    path = earlier / "stages" / "01_data" / "declared.json"
    edit(path, lambda content: content.pop("format"))
    assert run_all.main(["--weights-from", "phantom-quick", "--dry-run"]) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last == (
        "error: --weights-from 'phantom-quick' was made by another version of this project: run it "
        "again first"
    )


def test_earlier_run_with_stages_of_two_generations_is_not_scored(earlier, capsys):
    """Planted: the binary network was trained again, and nothing that reads it."""
    stage = stages.Stage("02_binary", run_dir=earlier)
    stage.save("x.txt", Path.write_text, "y")
    stage.finish()
    Run(earlier).write_manifest("02_binary", {"parameters": {}}, seconds=0.0)
    assert run_all.main(["--weights-from", "phantom-quick", "--dry-run"]) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.endswith("its 03_categorical is older than its 02_binary: run it again first")


def test_outlines_of_the_earlier_images_are_not_those_of_others(earlier, capsys, tmp_path):
    masks = {"parameters": {"lung_masks": str(tmp_path / "gone")}}
    Run(earlier).write_manifest("07_explainability", masks, seconds=0.0)
    assert run_all.main(["--weights-from", "phantom-quick", "--dry-run"]) == 0
    again = ["--weights-from", "phantom-quick", "--dry-run", "--set", "lung_masks=nowhere"]
    assert run_all.main(again) == 3
    assert "nowhere is not a folder" in capsys.readouterr().err


def test_weights_that_do_not_exist_are_refused_before_anything_runs(build, capsys):
    arguments = ["--set", "pretrained=mobilenet_v2", "--set", "pretrained_weights=w.h5"]
    assert run_all.main([*arguments, "--dry-run"]) == 3
    assert "pretrained_weights=w.h5: expected an existing file" in capsys.readouterr().err


def test_sources_whose_runs_would_have_one_name_are_refused(build, tmp_path, capsys):
    for name in ("one", "two"):
        make(tmp_path / name / "chest_xray", ENOUGH)
    sources_of = [word for name in ("one", "two") for word in ("--data", str(tmp_path / name))]
    assert run_all.main([*sources_of, "--dry-run"]) == 2
    assert "are both named chest_xray: run them one after the other" in capsys.readouterr().err


@pytest.mark.parametrize("general", ["epochs=9", "03_categorical.epochs=9"])
def test_grid_of_one_stage_may_follow_a_setting_of_others(build, monkeypatch, general):
    runs = []
    monkeypatch.setattr(
        run_all.runner, "update", lambda run, **k: runs.append(k["values"]) or ([], ["x"])
    )
    arguments = ["--set", general, "--grid", "02_binary.epochs=2,3"]
    assert run_all.main([*arguments, "--dry-run"]) == 0
    found = [(run["02_binary"]["epochs"], run["03_categorical"]["epochs"]) for run in runs]
    assert found == [(2, 9), (3, 9)]


def test_help_answers_before_anything_large_is_imported():
    code = (
        "import sys, run_all\n"
        "try: run_all.main(['--help'])\n"
        "finally: print(*{'sklearn', 'papermill', 'nbformat', 'pydantic', 'keras'} & {*sys.modules},"
        " file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr.strip() == "" and "--weights-from" in done.stdout


def test_unknown_earlier_run_is_named_with_the_most_similar(earlier, capsys):
    assert run_all.main(["--weights-from", "phantom-quik"]) == 2
    last = capsys.readouterr().err.strip()
    assert last.startswith(
        "error: --weights-from 'phantom-quik' is not a run; existing runs: phantom-quick"
    )
    assert last.endswith("did you mean 'phantom-quick'?")


@pytest.mark.parametrize("name", ["phantom-quick", "path"])
def test_run_is_not_scored_by_its_own_models(earlier, capsys, name):
    name = str(earlier) if name == "path" else name
    assert run_all.main(["--weights-from", name, "--run", "phantom-quick"]) == 2
    assert "is the run that --weights-from names" in capsys.readouterr().err


def test_start_imports_nothing_large():
    """So that mistakes are reported within a second."""
    code = (
        "import sys, run_all; "
        "print(*{'sklearn', 'scipy', 'papermill', 'pydantic', 'keras'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "" and done.returncode == 0


def test_lung_masks_that_do_not_exist_are_refused_before_anything_runs(build, capsys, tmp_path):
    assert run_all.main(["--set", f"lung_masks={tmp_path / 'none'}", "--dry-run"]) == 3
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert message.startswith("error: lung_masks ") and "is not a folder" in message


def test_lung_masks_are_downloaded_before_anything_runs(build, capsys, tmp_path, monkeypatch):
    """Not by chapter 7, after half an hour; and not where it does not run, or on phantoms."""

    def offline(*, cache_dir):
        raise DataError("lung_masks=v7 could not be downloaded")

    monkeypatch.setattr(run_all.downloads, "v7_lung_masks", offline)
    data = ["--data", str(make(tmp_path / "images", ENOUGH)), "--set", "lung_masks=v7"]
    assert run_all.main(data) == 3
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert message == "error: lung_masks=v7 could not be downloaded"
    assert not list(build.rglob("*.ipynb"))
    assert run_all.main([*data, "--dry-run"]) == 0
    assert run_all.main([*data, "--only", "02"]) == 2  # 01 has not run
    assert "01_data is not up to date" in capsys.readouterr().err
    assert run_all.main(["--set", "lung_masks=v7", "--only", "07"]) == 2
    assert "01_data is not up to date" in capsys.readouterr().err


def test_card_that_tensorflow_does_not_use_is_noted_and_the_run_goes_on(build, capsys, monkeypatch):
    monkeypatch.setattr(run_all.preflight.accelerators, "advice", lambda: ["Tesla T4 is there"])
    assert run_all.main(["--dry-run"]) == 0
    text = capsys.readouterr().err
    assert "note: Tesla T4 is there" in text and "never finished" in text


def test_plug_in_that_breaks_tensorflow_is_exit_code_6(build, capsys, monkeypatch):
    reason = "tensorflow-metal 1.2.0 breaks the import"
    monkeypatch.setattr(run_all.preflight.accelerators, "broken", lambda: reason)
    assert run_all.main(["--dry-run"]) == 6
    assert capsys.readouterr().err.strip().splitlines()[-1] == f"error: {reason}"


@pytest.mark.parametrize(
    ("capability", "expected"), [((7, 5), "mixed_float16"), ((8, 0), "mixed_bfloat16")]
)
def test_precision_of_a_run_is_asked_once_and_recorded(
    build, monkeypatch, card, before_import, capability, expected
):
    """Every stage that trains gets the answer, not the question."""
    asked, runs = [], []
    answer = json.dumps({"name": "x", "capability": capability})
    monkeypatch.setattr(run_all.accelerators, "_output", lambda *a, **k: asked.append(a) or answer)
    monkeypatch.setattr(
        run_all.runner, "update", lambda run, **k: runs.append(k["values"]) or ([], ["x"])
    )
    assert run_all.main(["--dry-run"]) == 0
    found = {own["precision"] for own in runs[0].values() if "precision" in own}
    assert found == {expected} and len(asked) == 1


def test_determinism_is_switched_off_for_the_stages_of_one_command(build, monkeypatch):
    seen = []
    monkeypatch.setattr(
        run_all.runner,
        "update",
        lambda run, **k: seen.append(run_all.accelerators.is_deterministic()) or ([], ["x"]),
    )
    monkeypatch.delenv(run_all.accelerators.NONDETERMINISTIC, raising=False)
    assert run_all.main(["--dry-run", "--nondeterministic"]) == 0
    assert run_all.main(["--dry-run"]) == 0
    assert seen == [False, True]
