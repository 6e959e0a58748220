"""The command line as a user meets it: exit codes, last lines, nothing started in vain."""

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
from cxr_helpers.pipeline import command_line, currency, graph, preflight, stages

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
        (["--set", "data=images"], 2, "use --data"),
        (["--set", "run_dir=/tmp"], 2, "'run_dir' is not set this way"),
        (["--set", "precision=bfloat"], 2, "is not one of float32, mixed_bfloat16"),
        (["--set", 'x=1;open("PWNED","w").close()'], 2, "no notebook has a parameter 'x'"),
        (["--seed", "-1"], 2, "seed = -1 is out of range: 0 to 4294967295"),
        (["--only", "08"], 2, "no stage '08'"),
        (["--from", "binarry"], 2, "expected one of 01_data, 02_binary, 03_categorical"),
        (["--from", "binarry"], 2, "did you mean '02_binary'?"),
        (["--only", "07"], 2, "01_data is not current (never finished)"),
        (["--data", "no/such/folder"], 3, "'no/such/folder' does not exist"),
        (["--data", "/"], 3, "'/' is a whole disk"),
        (["--data", "kagle"], 3, "did you mean 'kaggle'?"),
    ],
)
def test_a_mistake_is_one_line_and_an_exit_code(build, capsys, arguments, code, words):
    assert run_all.main(arguments) == code
    said = capsys.readouterr().err
    last = said.strip().splitlines()[-1]
    assert last.startswith("error: ") and words in last
    assert "Traceback" not in said
    assert not Path("PWNED").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--run", "../../x"], "--run '../../x'"),
        (["--run", "/tmp/x"], "expected letters"),
        (["--preset", "fast"], "invalid choice: 'fast'"),
        (["--timeout", "0"], "expected at least 1 second"),
        (["--weights-from", "x", "--preset", "quick"], "no --preset, no --set"),
        (["--weights-from", "x", "--set", "epochs=3"], "no --preset, no --set"),
        (["--unknown"], "unrecognized arguments"),
        (["--seeds", "4-0"], "--seeds '4-0' counts down"),
        (["--seeds", "0-1", "--seed", "3"], "--seeds: not with --seed"),
        (["--only", "2", "--from", "3"], "--only: not with --from"),
    ],
)
def test_a_bad_option_is_refused(capsys, arguments, words):
    with pytest.raises(SystemExit) as error:
        run_all.main(arguments)
    assert error.value.code == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    "option",
    "--data --preset --weights-from --set --seed --seeds --only --from --run --timeout --title "
    "--author --course".split(),
)
@pytest.mark.parametrize("value", ["", " "])
def test_an_empty_value_is_refused(build, capsys, option, value):
    """As of a variable of the shell that is not set: "--weights-from $RUN" would train."""
    with pytest.raises(SystemExit) as error:
        run_all.main([option, value, "--dry-run"])
    assert error.value.code == 2
    assert f"error: argument {option}: " in capsys.readouterr().err


def test_every_option_with_a_value_is_tried_for_an_empty_one(capsys):
    with pytest.raises(SystemExit):
        run_all.main(["--help"])
    taken = set(re.findall(r"^  (--[a-z-]+) [A-Z{]", capsys.readouterr().out, re.MULTILINE))
    (tried,) = (
        mark.args[1]
        for mark in test_an_empty_value_is_refused.pytestmark
        if mark.args[0] == "option"
    )
    assert taken == set(tried)


@pytest.mark.parametrize("setting", ["epochs=", "epochs= ", "=3", "epochs"])
def test_a_setting_needs_a_name_and_a_value(capsys, setting):
    with pytest.raises(SystemExit):
        run_all.main(["--set", setting])
    assert f"argument --set: {setting!r} is not NAME=VALUE" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--title", "--author", "--course"])
def test_a_line_of_the_title_page_has_a_length(build, capsys, option):
    with pytest.raises(SystemExit):
        run_all.main([option, "x" * 10_000, "--dry-run"])
    assert f"argument {option}: 10,000 characters; at most 300" in capsys.readouterr().err
    assert run_all.main([option, "x" * 300, "--dry-run"]) == 0


@pytest.mark.parametrize(
    ("page", "words"),
    [
        (
            'title = "x"\nauthor = "' + "x" * 301 + '"\ncourse = ""',
            "author: 301 characters; at most",
        ),
        ('title = "x"\nauthor = ""\ncourse = 1', "course is no text"),
        ('title = "x"\nauthor = ""', "course is no text"),
        ("title = x", "Invalid value (at line 1, column 9)"),
        (None, "No such file or directory: it holds the title page"),
        ('title = "x"\nauthor = ""\ncourse = "' + "x" * 300 + '"', ""),
    ],
)
def test_the_file_of_the_title_page_is_held_to_the_same(
    build, tmp_path, monkeypatch, capsys, page, words
):
    (tmp_path / "notebooks").symlink_to(ROOT / "notebooks")
    (tmp_path / "report").mkdir()
    if page is not None:
        (tmp_path / "report" / "report.toml").write_text(page)
    monkeypatch.setattr(run_all, "ROOT", tmp_path)
    assert run_all.main(["--dry-run"]) == (2 if words else 0)
    said = capsys.readouterr().err.splitlines()
    assert [words in line and "report.toml: " in line for line in said if "error" in line] == (
        [True] if words else []
    )


def test_a_notebook_that_is_missing_is_named(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(run_all, "NOTEBOOKS", {"01_data": tmp_path / "01_data.ipynb"})
    assert run_all.main(["--dry-run"]) == 4
    said = capsys.readouterr().err
    assert "01_data.ipynb: No such file" in said and "Errno" not in said


def test_a_stages_number_is_enough(build, capsys):
    assert run_all.main(["--from", "1", "--set", "2.epochs=3", "--dry-run"]) == 0
    assert run_all.main(["--only", "7", "--dry-run"]) == 2
    assert "01_data is not current (never finished)" in capsys.readouterr().err


def test_debug_shows_the_traceback(build, capsys):
    assert run_all.main(["--set", "epochs=0", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_dry_run_says_what_and_why_and_makes_nothing(build, capsys):
    assert run_all.main(["--dry-run"]) == 0
    said = capsys.readouterr().err
    assert all(stage in said for stage in graph.default()) and "never finished" in said
    assert not build.exists()


def test_list_shows_every_parameter_as_it_can_be_set(capsys):
    assert run_all.main(["--list"]) == 0
    said, beside = capsys.readouterr()
    assert beside == ""
    assert "  learning_rate=0.001 " in said and "float32 | mixed_bfloat16" in said
    assert "  study_rates=0.0001,0.001,0.01,0.1 " in said
    assert "run_dir" not in said and "cache_dir" not in said


def test_mistakes_are_found_before_tensorflow_is_imported():
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
        ({"NORMAL": ["IM-0200-0001.jpeg", "IM-0200-0002.jpeg"]}, [], "images of normal: train has"),
        ({"PNEUMONIA": ["person8_virus_1.jpeg"]}, [], "one kind of pneumonia: train has"),
        (
            {"NORMAL": [f"IM-020{number}-0001.jpeg" for number in range(3)]},
            ["--set", "contiguous_fraction=0.5", "--set", "validation_fraction=0.5"],
            "images of normal: train",
        ),
        (
            {"NORMAL": [f"IM-020{number}-0001.jpeg" for number in range(2)]},
            ["--set", "contiguous_fraction=0", "--set", "validation_fraction=0"],
            "images of normal: train as cut has 3 of at least 4",
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
    said = capsys.readouterr().err
    assert code == (3 if words else 0) and words in said and not build.exists()


@pytest.mark.parametrize("share", ["0.1", "0.5"])
def test_few_phantoms_are_looked_at_too(build, capsys, share):
    """Sixty, the fewest, are enough for what each preset cuts; half and half is not, for seed 28."""
    settings = ["n_phantoms=60", f"validation_fraction={share}", f"contiguous_fraction={share}"]
    settings = [word for setting in settings for word in ("--set", setting)]
    code = run_all.main(["--dry-run", "--seed", "28", *settings])
    assert code == (0 if share == "0.1" else 3), capsys.readouterr().err


def test_a_broken_data_folder_is_refused_before_anything_runs(build, tmp_path, capsys):
    (tmp_path / "images" / "train" / "NORMAL").mkdir(parents=True)
    assert run_all.main(["--data", str(tmp_path / "images")]) == 3
    assert "images': train/PNEUMONIA is missing" in capsys.readouterr().err
    assert not build.exists()


@pytest.fixture
def nowhere(monkeypatch, tmp_path):
    """Leave no copy of the published images, and fail where one is asked for."""
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path / "kagglehub"))
    for name in ("kaggle", "mendeley"):
        monkeypatch.setattr(downloads, name, None)


@pytest.mark.parametrize("data", ["kaggle", "mendeley"])
def test_a_dry_run_downloads_and_writes_nothing(build, nowhere, tmp_path, capsys, data):
    assert run_all.main(["--dry-run", "--data", data]) == 0
    said = capsys.readouterr().err
    assert f"{data}, preset standard" in said and "would download" in said
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_unpacks_nothing(build, tmp_path, capsys):
    make(tmp_path / "images", ENOUGH)
    archive = shutil.make_archive(str(tmp_path / "images"), "zip", tmp_path / "images")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert run_all.main(["--dry-run", "--data", archive]) == 0
    assert "would unpack images.zip first" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


@pytest.mark.parametrize("data", ["kaggle", "mendeley"])
def test_a_disk_without_room_for_a_download_is_refused_before_it(
    build, nowhere, monkeypatch, capsys, data
):
    free = shutil.disk_usage("/")._replace(free=10**9)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: free)
    assert run_all.main(["--data", data]) == 6
    assert "954 MiB of disk are free" in capsys.readouterr().err.strip().splitlines()[-1]
    assert not build.exists()


def test_a_run_in_use_is_refused_before_the_download(build, nowhere, capsys):
    (build / "kaggle-standard").mkdir(parents=True)
    with preflight.sole_use(build / "kaggle-standard"):
        assert run_all.main(["--data", "kaggle"]) == 5
    assert "is in use by process" in capsys.readouterr().err


@pytest.mark.parametrize("packed", [False, True])
def test_a_refusal_leaves_no_empty_run(build, tmp_path, capsys, packed):
    data = str(make(tmp_path / "images", ENOUGH))
    data = shutil.make_archive(data, "tar", data) if packed else data
    assert run_all.main(["--data", data, "--only", "07"]) == 2
    assert "01_data is not current" in capsys.readouterr().err
    assert {path.name for path in build.iterdir()} <= {".cache"}  # digests and what was unpacked


def test_an_archive_is_named_not_its_place_in_the_cache(build, tmp_path, capsys):
    (tmp_path / "images" / "train" / "NORMAL").mkdir(parents=True)
    (tmp_path / "images" / "train" / "NORMAL" / "a.jpeg").touch()
    archive = shutil.make_archive(str(tmp_path / "images"), "zip", tmp_path / "images")
    assert run_all.main(["--data", archive]) == 3
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert f"error: '{archive}': train/PNEUMONIA is missing" in last and ".cache" not in last
    assert {path.name for path in build.iterdir()} <= {".cache"}  # digests and what was unpacked


def test_two_folders_of_one_name_are_kept_apart(build, tmp_path, capsys):
    one, two, copy = (tmp_path / name / "chest_xray" for name in ("one", "two", "copy"))
    make(one, ENOUGH)
    shutil.copytree(one, copy)
    shutil.copytree(one, two)
    next((two / "train" / "NORMAL").iterdir()).write_bytes(b"another image")
    run = build / "chest_xray-standard"
    run.mkdir(parents=True)
    origin = sources.find(str(one), cache_dir=build)
    sources.record(run, origin, ingestion.identify(origin)[0])

    def dry_run(data, *more):
        code = run_all.main(["--dry-run", "--data", str(data), *more])
        return code, capsys.readouterr().err

    code, said = dry_run(two)
    assert code == 2 and f"chest_xray-standard is a run of other images ({one})" in said
    named = said.strip().split()[-2:]
    assert named == ["--run", "two-chest_xray-standard"]
    code, said = dry_run(two, *named)
    assert code == 0 and f"images: {two}\n" in said
    assert dry_run(two, "--run", run.name)[0] == 2  # nor may it be named
    assert dry_run(one)[0] == dry_run(one.parent)[0] == dry_run(copy)[0] == 0


def test_relative_paths_count_from_where_the_user_stands(tmp_path):
    """LAY-09: another working directory, a name with spaces, umlauts and a dash."""
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
    ],
)
def test_run_names_are_plain(data, name):
    assert command_line.run_name(data, "standard") == name
    assert command_line.RUN_NAME.fullmatch(name)


def test_an_old_report_is_set_aside(tmp_path):
    (tmp_path / "report.html").write_text("old")
    command_line.retire_report(tmp_path)
    command_line.retire_report(tmp_path)
    assert not (tmp_path / "report.html").exists()
    assert (tmp_path / "previous" / "report.html").read_text() == "old"


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

    monkeypatch.setattr(run_all, "conduct", fail)
    assert run_all.main([]) == code
    said = capsys.readouterr().err
    assert said.splitlines()[-1].startswith(f"error: {type(error).__name__}: {error}")
    assert ("Traceback" in said) == (code == 1)


def test_an_output_folder_that_cannot_be_made_is_exit_code_6(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(run_all, "BUILD", tmp_path / "file" / "build")
    assert run_all.main(["--preset", "quick"]) == 6
    assert (
        "cannot be written to (Not a directory)" in capsys.readouterr().err.strip().splitlines()[-1]
    )


def test_a_notebook_without_its_parameters_cell_is_exit_code_4(
    build, tmp_path, monkeypatch, capsys
):
    """CLI-04: papermill would inject at the top, and the notebook's own values would win."""
    book = json.loads(run_all.NOTEBOOKS["05_knn"].read_text(encoding="utf-8"))
    for cell in book["cells"]:
        cell["metadata"].pop("tags", None)
    (tmp_path / "05_knn.ipynb").write_text(json.dumps(book))
    monkeypatch.setitem(run_all.NOTEBOOKS, "05_knn", tmp_path / "05_knn.ipynb")
    assert run_all.main([]) == 4
    assert capsys.readouterr().err.strip() == (
        "error: 05_knn.ipynb has 0 cells tagged 'parameters'; expected exactly one"
    )
    assert not build.exists()


@pytest.fixture
def earlier(build):
    """Return a run whose stages all ended, or seem to."""
    folder = build / "phantom-quick"
    (folder / "notebooks").mkdir(parents=True)
    for name in graph.default():
        stage = stages.Stage(name, run_dir=folder)
        stage.save("x.txt", Path.write_text, "x")
        stage.finish()
        currency.write(name, {"parameters": {}}, folder, seconds=0.0)
    return folder


@pytest.mark.parametrize("broken", [None, "declared.json", "manifest.json", "x.txt"])
def test_only_a_whole_earlier_run_lends_its_weights(earlier, capsys, broken):
    if broken:
        (earlier / "stages" / "05_knn" / broken).write_text("edited")
    code = run_all.main(["--weights-from", "phantom-quick", "--dry-run"])
    said = capsys.readouterr().err
    if broken:
        assert code == 2
        assert "--weights-from 'phantom-quick': its 05_knn is not whole, run it again" in said
    else:
        assert code == 0
        assert "phantom, models of phantom-quick → " in said and "phantom-by-phantom-quick" in said


def test_an_unknown_earlier_run_is_named_with_the_nearest(earlier, capsys):
    assert run_all.main(["--weights-from", "phantom-quik"]) == 2
    last = capsys.readouterr().err.strip()
    assert last.startswith(
        "error: --weights-from 'phantom-quik' is no run: there are phantom-quick"
    )
    assert last.endswith("did you mean 'phantom-quick'?")


@pytest.mark.parametrize("named", ["phantom-quick", "by path"])
def test_a_run_is_not_scored_by_itself(earlier, capsys, named):
    named = str(earlier) if named == "by path" else named
    assert run_all.main(["--weights-from", named, "--run", "phantom-quick"]) == 2
    assert "is the run that --weights-from names" in capsys.readouterr().err


def test_starting_up_imports_nothing_large():
    """What is refused is refused within the second."""
    code = (
        "import sys, run_all; print(*{'sklearn', 'scipy', 'papermill', 'keras'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "" and done.returncode == 0
