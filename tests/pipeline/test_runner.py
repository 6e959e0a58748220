"""The whole chain, as a user runs it: every artifact, both reports, in a real browser too."""

import csv
import functools
import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest
from browser import CHROMIUM, inspect
from PIL import Image
from pypdf import PdfReader

import run_all
from cxr_helpers.phantoms import rendering
from cxr_helpers.pipeline import results, stages

pytestmark = pytest.mark.slow

NO_VALIDATION = ("--set", "validation_fraction=0", "--set", "contiguous_fraction=0")
HOSTILE = "<img src=x onerror=alert(1)> $x$.txt"


def finished(build, *arguments):
    """Run the runner into ``build``; return its exit code."""
    before, run_all.BUILD = run_all.BUILD, build
    preset = [] if "--weights-from" in arguments else ["--preset", "quick"]
    try:
        return run_all.main([*preset, *arguments])
    finally:
        run_all.BUILD = before


@pytest.fixture(scope="module")
def on_phantoms(tmp_path_factory):
    build = tmp_path_factory.mktemp("ein Ordner mit ü")
    assert finished(build, "--author", "A. Student", "--course", "Course 101") == 0
    return build / "phantom-quick"


@pytest.fixture(scope="module")
def folder_of_images(tmp_path_factory):
    """Make a folder of JPEGs in Kaggle's layout."""
    root = tmp_path_factory.mktemp("data") / "chest_xray"
    drawn = rendering.render(n=90, size=64)
    cause = {"bacterial": "bacteria", "viral": "virus"}
    for i, (image, row) in enumerate(zip(drawn.images, drawn.index.itertuples(), strict=True)):
        normal = row.class_name == "normal"
        place = root / row.split / ("NORMAL" if normal else "PNEUMONIA")
        place.mkdir(parents=True, exist_ok=True)
        name = f"IM-{i:04d}-0001" if normal else f"person{i}_{cause[row.class_name]}_{i}"
        Image.fromarray(image[: 64 - i % 9]).save(place / f"{name}.jpeg")
    (place / HOSTILE).write_text("no image")
    return root.parent


@pytest.fixture(scope="module")
def on_images(folder_of_images, tmp_path_factory):
    """Run on the folder without validation, as published."""
    build = tmp_path_factory.mktemp("build")
    assert finished(build, "--data", str(folder_of_images), *NO_VALIDATION) == 0
    return build / "chest_xray-quick"


@pytest.fixture(params=["on_phantoms", "on_films"])
def run(request):
    return request.getfixturevalue(request.param)


@functools.cache
def pdf_text(run):
    pages = (page.extract_text() for page in PdfReader(run / "report.pdf").pages)
    return re.sub(r"\s+", " ", " ".join(pages))


@functools.cache
def books(run):
    folder = run / "notebooks"
    return {s: json.loads((folder / f"{s}.ipynb").read_text("utf-8")) for s in stages.STAGES}


def published_in(run, *kinds):
    """Return stage and id of the figures or tables that the notebooks show."""
    return [
        (stage, meaning["id"])
        for stage, book in books(run).items()
        for cell in book["cells"]
        for output in cell.get("outputs", [])
        if (meaning := output.get("metadata", {}).get("cxr", {})).get("kind") in kinds
    ]


def test_every_stage_declared_its_artifacts(run):
    for stage in stages.STAGES:
        declared = stages.declared(run, stage)
        assert declared["outputs"]
        assert stages.damaged_output(run, stage) is None
        assert (run / "notebooks" / f"{stage}.ipynb").is_file()
    left = [p for p in run.rglob("*") if p.name.startswith((".partial", ".running"))]
    assert left == []


def test_results_have_a_line_a_row_and_metric(run):
    with open(run / "results.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    columns = ["row", "split", "metric", "value", "low", "high", "published", "n"]
    assert list(lines[0]) == columns
    accuracies = {
        line["row"]: line
        for line in lines
        if (line["split"], line["metric"]) == ("test", "accuracy")
    }
    assert set(accuracies) == {row.id for row in results.ROWS}
    published = {name: float(a["published"]) for name, a in accuracies.items() if a["published"]}
    assert len(published) == 6 and published["autoencoder"] == 0.33
    keys = [(line["row"], line["split"], line["metric"]) for line in lines]
    assert len(keys) == len(set(keys))
    assert all(0 <= float(line["value"]) <= 1 for line in lines if line["value"])


def test_scores_can_be_recomputed_from_the_artifacts(on_phantoms):
    folder = on_phantoms / "stages"
    index = pd.read_csv(folder / "01_data" / "index.csv")
    chance = np.load(folder / "02_binary" / "probabilities.npy")
    test = (index["split"] == "test").to_numpy()
    right = (chance[test] >= 0.5) == (index["class_name"][test] != "normal")
    table = pd.read_csv(on_phantoms / "results.csv").set_index(["row", "split", "metric"])
    assert table.loc[("binary_cnn", "test", "accuracy"), "value"] == pytest.approx(right.mean())


def test_no_group_is_in_two_splits(run):
    index = pd.read_csv(run / "stages" / "01_data" / "index.csv")
    assert index.groupby("group")["split"].nunique().max() == 1


def test_the_binary_network_was_left_alone_by_the_second(run):
    assert stages.declared(run, "03_categorical")["facts"]["binary_unchanged"] is True


def test_the_pdf_holds_title_table_and_every_figure(run):
    text = pdf_text(run)
    assert "Not for clinical use" in text
    for row in results.ROWS:
        assert row.label in text
    numbers = set(map(int, re.findall(r"Figure (\d+)\.", text)))
    shown = published_in(run, "figure")
    assert numbers == set(range(1, len(shown) + 1))
    assert {stage for stage, _ in shown} == set(stages.STAGES)
    headings = [
        item.title for item in PdfReader(run / "report.pdf").outline if "title" in dir(item)
    ]
    for stage in stages.STAGES:
        title = books(run)[stage]["cells"][0]["source"]
        assert any("".join(title).splitlines()[0].removeprefix("# ") in h for h in headings)


def test_phantoms_are_called_synthetic_everywhere(on_phantoms):
    text = pdf_text(on_phantoms)
    assert "A. Student" in text and "Course 101" in text
    first = PdfReader(on_phantoms / "report.pdf").pages[0].extract_text()
    assert "SYNTHETIC PHANTOMS" in first
    html = (on_phantoms / "report.html").read_text(encoding="utf-8")
    captions = re.findall(r"<(?:fig)?caption[^>]*>(.*?)</(?:fig)?caption>", html, re.S)
    assert len(captions) > len(published_in(on_phantoms, "figure", "table"))  # and the results'
    for caption in captions:
        plain = re.sub(r"<[^>]+>", "", caption)
        assert "SYNTHETIC PHANTOMS" in plain, plain


def test_images_are_not_called_synthetic(on_images):
    assert "SYNTHETIC" not in pdf_text(on_images)
    assert "SYNTHETIC" not in (on_images / "report.html").read_text(encoding="utf-8")


def test_a_hostile_file_name_is_only_text(on_images):
    html = (on_images / "report.html").read_text(encoding="utf-8")
    assert "&lt;img src=x onerror=alert(1)&gt;" in html and "<img src=x" not in html
    assert HOSTILE in pdf_text(on_images)


def test_no_path_of_the_machine_is_in_the_reports(run):
    html = (run / "report.html").read_text(encoding="utf-8")
    assert str(run.parent) not in html and str(run_all.ROOT) not in html
    assert str(run_all.ROOT) not in pdf_text(run)


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_is_whole_in_a_browser(run, width):
    pytest.importorskip("playwright", reason="playwright is not installed")
    seen = inspect(run / "report.html", width=width)
    assert seen.requests == [] and seen.errors == [] and seen.broken_images == []
    assert seen.images == len(published_in(run, "figure")) and seen.overflow == 0


def test_an_unchanged_rerun_runs_no_notebook(on_phantoms, capsys, monkeypatch):
    monkeypatch.setattr("cxr_helpers.pipeline.notebooks.run", None)
    assert finished(on_phantoms.parent, "--no-pdf") == 0
    assert "never finished" not in capsys.readouterr().err


def test_the_same_stage_again_gives_the_same_artifacts(on_phantoms, tmp_path):
    shutil.copytree(on_phantoms, tmp_path / "again")
    for stage in ("01_data", "02_binary"):
        before = stages.declared(tmp_path / "again", stage)["outputs"]
        assert finished(tmp_path, "--run", "again", "--only", stage, "--force", "--no-pdf") == 0
        assert stages.declared(tmp_path / "again", stage)["outputs"] == before


def test_a_failing_notebook_stops_the_run_and_hides_the_old_report(
    on_phantoms, tmp_path, capsys, monkeypatch
):
    shutil.copytree(on_phantoms, tmp_path / "again")
    broken = tmp_path / "06_tsne.ipynb"
    book = json.loads(run_all.NOTEBOOKS["06_tsne"].read_text())
    book["cells"][-1] = {
        "cell_type": "code",
        "id": "broken",
        "metadata": {},
        "source": "raise RuntimeError('planted')",
        "outputs": [],
        "execution_count": None,
    }
    broken.write_text(json.dumps(book))
    monkeypatch.setitem(run_all.NOTEBOOKS, "06_tsne", broken)
    assert finished(tmp_path, "--run", "again") == 4
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert "06_tsne.ipynb, cell" in last and "planted" in last
    assert not (tmp_path / "again" / "report.html").exists()
    assert (tmp_path / "again" / "previous" / "report.html").exists()
    assert (tmp_path / "again" / "notebooks" / "06_tsne.failed.ipynb").exists()


def test_other_images_are_scored_by_a_finished_run_without_training(
    on_phantoms, folder_of_images, capfd
):
    """The weights stay those of the earlier run, byte for byte; only test is new."""
    build, name = on_phantoms.parent, on_phantoms.name
    earlier = (on_phantoms / "results.csv").read_bytes()
    assert finished(build, "--weights-from", name, "--data", str(folder_of_images)) == 0
    said = capfd.readouterr().err
    assert "epoch" not in said and "optimizer study" not in said
    run = build / "chest_xray-by-phantom-quick"
    weights = sorted(on_phantoms.glob("stages/*/*.weights.h5"))
    assert len(weights) == 6  # two for frames, three of the report's, ours
    for path in weights:
        assert (run / path.relative_to(on_phantoms)).read_bytes() == path.read_bytes()
    both = [pd.read_csv(r / "stages" / "01_data" / "index.csv") for r in (on_phantoms, run)]
    learnt, scored = (index[index["split"] != "test"].reset_index(drop=True) for index in both)
    assert scored["file"].equals(learnt["file"]) and scored["split"].equals(learnt["split"])
    test = both[1][both[1]["split"] == "test"]
    assert test["file"].str.endswith(".jpeg").all() and len(test)
    accuracy = pd.read_csv(run / "results.csv").query("split == 'test' and metric == 'accuracy'")
    assert set(accuracy["row"]) == {row.id for row in results.ROWS}
    assert accuracy.loc[accuracy["row"] == "binary_cnn", "n"].item() == len(test)
    html = (run / "report.html").read_text(encoding="utf-8")
    for text in (re.sub(r"<[^>]+>|\s+", " ", html), pdf_text(run)):
        assert "chest_xray, scored by the models of phantoms" in text
        assert f"{run.name} trains no model" in re.sub(" +", " ", text)
        assert f"those of the run {name}" in re.sub(" +", " ", text)
    assert (on_phantoms / "results.csv").read_bytes() == earlier
    assert finished(build, "--weights-from", name, "--data", str(folder_of_images)) == 0
    assert "never finished" not in capfd.readouterr().err


def test_a_run_is_not_scored_on_the_images_that_it_learnt_from(
    on_images, folder_of_images, tmp_path, capsys
):
    """Planted: the training images again, this time as test."""
    learnt = folder_of_images / "chest_xray" / "train"
    for split in ("train", "test"):
        shutil.copytree(learnt, tmp_path / "again" / split)
    arguments = ["--weights-from", on_images.name, "--data", str(tmp_path / "again")]
    assert finished(on_images.parent, *arguments) == 3
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert "01_data.ipynb" in last and "training has all that were given" in last
