"""The whole chain as a user runs it: every artifact, both reports, also in a real browser."""

import csv
import functools
import json
import re
import shutil
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pandas as pd
import pdfua
import pytest
from browser import CHROMIUM, inspect
from chain import SMALL, rounding, run_into
from PIL import Image
from pypdf import PdfReader

import run_all
from cxr_helpers.evaluation import bootstrap
from cxr_helpers.explain import sanity
from cxr_helpers.phantoms import rendering
from cxr_helpers.pipeline import execution, graph, stages
from cxr_helpers.pipeline.fork_server import ForkServer
from cxr_helpers.pipeline.runs import Run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]  # a fixture is a whole run

ROWS = [row for row in graph.default().rows if not row.optional]
NO_VALIDATION = {"validation_fraction": 0, "contiguous_fraction": 0}
HOSTILE = "<img src=x onerror=alert(1)> $x$.txt"


@pytest.fixture(scope="module", autouse=True)
def _one_fork_server():
    """Let all runs of this file share a server: it imports TensorFlow once."""
    with ForkServer() as server, pytest.MonkeyPatch.context() as patch:
        patch.setattr(execution, "ForkServer", lambda: nullcontext(server))
        yield


@pytest.fixture(scope="module")
def folder_of_images(tmp_path_factory):
    """Return a folder of JPEGs in Kaggle's layout, and a file with markup in its name."""
    root = tmp_path_factory.mktemp("data") / "chest_xray"
    phantoms = rendering.render(n=90, size=64)
    cause = {"bacterial": "bacteria", "viral": "virus"}
    for i, (image, row) in enumerate(
        zip(phantoms.images, phantoms.index.itertuples(), strict=True)
    ):
        normal = row.class_name == "normal"
        folder = root / row.split / ("NORMAL" if normal else "PNEUMONIA")
        folder.mkdir(parents=True, exist_ok=True)
        name = f"IM-{i:04d}-0001" if normal else f"person{i}_{cause[row.class_name]}_{i}"
        Image.fromarray(image[: 64 - i % 9]).save(folder / f"{name}.jpeg")
    (folder / HOSTILE).write_text("no image")
    return root.parent


@pytest.fixture(scope="module")
def on_images(folder_of_images, on_phantoms, tmp_path_factory):
    """Return a run on the folder without validation, as published.

    What it computes on phantoms (the ablation, the twins) is read from the other run's store.
    """
    build = tmp_path_factory.mktemp("build")
    shutil.copytree(on_phantoms.folder.parent / stages.STORE, build / stages.STORE)
    settings = SMALL | NO_VALIDATION | {"epochs": 1, "ours_epochs": 1, "study_rates": 0.001}
    assert run_into(build, "--data", str(folder_of_images), settings=settings) == 0
    return Run(build / "chest_xray-quick")


@pytest.fixture(params=["on_phantoms", "on_images"])
def run(request):
    return request.getfixturevalue(request.param)


@functools.cache
def pdf_pages(folder):
    return [page.extract_text() for page in PdfReader(folder / "report.pdf").pages]


def pdf_text(folder):
    return re.sub(r"\s+", " ", " ".join(pdf_pages(folder)))


def html_of(run):
    return (run.folder / "report.html").read_text(encoding="utf-8")


def executed(run):
    """Return the executed notebooks by stage."""
    return {stage: json.loads(run.executed(stage).read_text("utf-8")) for stage in run.graph}


def published_in(run, *kinds):
    """Return stage and id of the figures or tables that the notebooks publish."""
    return [
        (stage, metadata["id"])
        for stage, notebook in executed(run).items()
        for cell in notebook["cells"]
        for output in cell.get("outputs", [])
        if (metadata := output.get("metadata", {}).get("cxr", {})).get("kind") in kinds
    ]


def test_every_stage_declares_its_artifacts_and_leaves_no_partial_files(run):
    for stage in run.graph:
        assert run.declared(stage)["outputs"]
        assert run.damaged_output(stage) is None
        assert run.executed(stage).is_file()
    partial = [p for p in run.folder.rglob("*") if p.name.startswith((".partial", ".running"))]
    assert partial == []


def test_results_have_one_line_per_row_split_and_metric(run):
    with open(run.folder / "results.csv", encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    columns = ["row", "split", "metric", "value", "low", "high", "published", "n"]
    assert list(lines[0]) == columns
    accuracies = {
        line["row"]: line
        for line in lines
        if (line["split"], line["metric"]) == ("test", "accuracy")
    }
    assert set(accuracies) == {row.id for row in ROWS}
    published = {name: float(a["published"]) for name, a in accuracies.items() if a["published"]}
    assert len(published) == 6 and published["autoencoder"] == 0.33
    keys = [(line["row"], line["split"], line["metric"]) for line in lines]
    assert len(keys) == len(set(keys))
    assert all(0 <= float(line["value"]) <= 1 for line in lines if line["value"])


def test_accuracy_can_be_recomputed_from_the_artifacts(on_phantoms):
    index = pd.read_csv(on_phantoms.stage("01_data") / "index.csv")
    y_prob = np.load(on_phantoms.stage("02_binary") / "probabilities.npy")
    test = (index["split"] == "test").to_numpy()
    correct = (y_prob[test] >= 0.5) == (index["class_name"][test] != "normal")
    table = pd.read_csv(on_phantoms.folder / "results.csv").set_index(["row", "split", "metric"])
    assert table.loc[("binary_cnn", "test", "accuracy"), "value"] == pytest.approx(correct.mean())


def test_scorecard_has_every_score_of_every_map_and_control(run):
    folder = run.stage("07_explainability")
    card = pd.read_csv(folder / "scorecard.csv").set_index(["network", "method", "score"])
    keys = ["network", "method"]
    scored = pd.read_csv(folder / "map_scores.csv").drop(columns="image").set_index(keys)
    means = scored.drop(columns=scored.filter(like=" area")).groupby(keys).mean().stack().dropna()
    assert len(means) > 100
    found = card.loc[means.index, "value"]
    np.testing.assert_allclose(found, means, rtol=1e-6, atol=1e-9)
    few = card["n"] < bootstrap.FEWEST
    assert card.loc[few, ["low", "high"]].isna().all(axis=None)
    scores = set(card.index.get_level_values("score"))
    assert {*sanity.SCORES, "ms per image"} <= scores


def test_no_patient_group_is_in_two_splits(run):
    index = pd.read_csv(run.stage("01_data") / "index.csv")
    assert index.groupby("group")["split"].nunique().max() == 1


def test_training_the_categorical_network_leaves_the_binary_one_unchanged(run):
    assert run.declared("03_categorical")["facts"]["binary_unchanged"] is True


def test_pdf_contains_titles_rows_and_every_figure(run):
    text, pages = pdf_text(run.folder), pdf_pages(run.folder)
    assert all("Not for clinical use" in page for page in pages)
    assert "Contents" in pages[0] and "Results" in pages[1]  # the title page is one
    for row in ROWS:
        assert row.label in text
    numbers = set(map(int, re.findall(r"Figure (\d+)\.", text)))
    figures = published_in(run, "figure")
    assert numbers == set(range(1, 1 + len(figures) + 1))  # and that of the title page
    assert {stage for stage, _ in figures} == set(run.graph)
    outline = PdfReader(run.folder / "report.pdf").outline
    headings = [item.title for item in outline if "title" in dir(item)]
    for notebook in executed(run).values():
        title = "".join(notebook["cells"][0]["source"]).splitlines()[0].removeprefix("# ")
        assert any(title in heading for heading in headings)


def test_text_refers_to_every_figure_and_table(run):
    """They may stand pages after it in the PDF."""
    referred = set(
        re.findall(r'<a href="#((?:fig|tab)-[\w-]+)">(?:Figure|Table) \d+</a>', html_of(run))
    )
    assert {id for _, id in published_in(run, "figure", "table")} - referred == set()
    assert not re.search(r"(?:figure|table) below|\(figure above", pdf_text(run.folder))


def test_lists_name_the_page_on_which_a_figure_or_table_stands(run):
    """Floats may stand pages after the text that mentions them; and no page is empty."""
    pages = pdf_pages(run.folder)
    pattern = r"^((?:Figure|Table) \d+) .*?(?: \.)+ (\d+)$"
    listed = re.findall(pattern, "\n".join(pages), re.MULTILINE)
    assert len(listed) >= len(published_in(run, "figure", "table"))
    for name, number in listed:
        assert re.search(rf"^{name}\.", pages[int(number) - 1], re.MULTILINE), name
    assert min(map(len, pages)) > 200  # characters: head and foot have fewer


def test_pdf_passes_the_rules_of_pdfua(run):
    """The subset of PDF/UA-1 that this validator checks; Typst itself refuses what it can see."""
    found = pdfua.validate(run.folder / "report.pdf").findings
    assert [(finding.rule_id, finding.message) for finding in found] == []


def test_phantoms_are_labelled_synthetic_on_title_page_and_in_every_caption(on_phantoms):
    text = pdf_text(on_phantoms.folder)
    assert "A. Student" in text and "Course 101" in text
    assert "SYNTHETIC PHANTOMS" in pdf_pages(on_phantoms.folder)[0]
    html = html_of(on_phantoms)
    captions = re.findall(r"<(?:fig)?caption[^>]*>(.*?)</(?:fig)?caption>", html, re.S)
    assert len(captions) > len(published_in(on_phantoms, "figure", "table"))  # and the results'
    for caption in captions:
        plain = re.sub(r"<[^>]+>", "", caption)
        assert "SYNTHETIC PHANTOMS" in plain, plain


def test_images_from_a_folder_are_not_labelled_synthetic(on_images):
    """But for the study on phantoms, which every report has."""
    captions = re.findall(
        r"<(?:fig)?caption[^>]*>(.*?)</(?:fig)?caption>", html_of(on_images), re.S
    )
    synthetic = [caption for caption in captions if "SYNTHETIC" in caption]
    assert len(synthetic) == 1 and "marker reveals the class" in synthetic[0]
    assert (
        html_of(on_images).count("SYNTHETIC") == pdf_text(on_images.folder).count("SYNTHETIC") == 1
    )


def test_markup_in_a_file_name_is_escaped(on_images):
    html = html_of(on_images)
    assert "&lt;img src=x onerror=alert(1)&gt;" in html and "<img src=x" not in html
    assert HOSTILE in pdf_text(on_images.folder)


def test_reports_contain_no_paths_of_the_machine(run):
    html = html_of(run)
    assert str(run.folder.parent) not in html and str(run_all.ROOT) not in html
    assert str(run_all.ROOT) not in pdf_text(run.folder)


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
@pytest.mark.parametrize(
    ("name", "width"),
    [("on_phantoms", 390), ("on_phantoms", 1024), ("on_phantoms", 1600), ("on_images", 390)],
)
def test_html_loads_in_a_browser_without_requests_errors_or_overflow(request, name, width):
    pytest.importorskip("playwright", reason="playwright is not installed")
    run = request.getfixturevalue(name)
    inspection = inspect(run.folder / "report.html", width=width)
    assert inspection.requests == [] and inspection.errors == []
    assert inspection.broken_images == [] and inspection.overflow == 0
    assert inspection.violations == []
    assert inspection.wide_tables == [] or width < 1024
    assert inspection.images == 1 + len(published_in(run, "figure"))  # and the title page's


def test_rerun_without_changes_executes_no_notebook(on_phantoms, capsys, monkeypatch):
    monkeypatch.setattr("cxr_helpers.pipeline.notebooks.execute", None)
    assert run_into(on_phantoms.folder.parent, "--no-report") == 0
    assert "never finished" not in capsys.readouterr().err


def test_rerun_of_a_stage_reproduces_its_artifacts(on_phantoms, tmp_path):
    copy, rerun = Run(tmp_path / "copy"), ("01_data", "02_binary")
    shutil.copytree(on_phantoms.folder, copy.folder)
    before = {stage: copy.declared(stage)["outputs"] for stage in rerun}
    assert run_into(tmp_path, "--run", "copy", "--only", *rerun, "--force", "--no-report") == 0
    assert {stage: copy.declared(stage)["outputs"] for stage in rerun} == before


def test_failing_notebook_stops_the_run_and_retires_the_old_report(
    on_phantoms, tmp_path, capsys, monkeypatch
):
    shutil.copytree(on_phantoms.folder, tmp_path / "copy")
    shutil.copytree(run_all.NOTEBOOKS, tmp_path / "notebooks")
    failing = tmp_path / "notebooks" / "06_tsne.ipynb"
    notebook = json.loads(failing.read_text(encoding="utf-8"))
    notebook["cells"][-1] = {
        "cell_type": "code",
        "id": "failing",
        "metadata": {},
        "source": "raise RuntimeError('planted')",
        "outputs": [],
        "execution_count": None,
    }
    failing.write_text(json.dumps(notebook), encoding="utf-8")
    monkeypatch.setattr(run_all, "NOTEBOOKS", failing.parent)
    assert run_into(tmp_path, "--run", "copy") == 4
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert "06_tsne.ipynb, cell" in message and "planted" in message
    assert not (tmp_path / "copy" / "report.html").exists()
    assert (tmp_path / "copy" / "previous" / "report.html").exists()
    assert (tmp_path / "copy" / "notebooks" / "06_tsne.failed.ipynb").exists()


def test_images_are_predicted_as_in_the_run(on_images, folder_of_images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.png").write_bytes(b"no image")
    (tmp_path / "other.webp").write_bytes(b"RIFF")
    test = folder_of_images / "chest_xray" / "test"
    assert run_into(on_images.folder.parent, "--predict", on_images.name, str(test), ".") == 0
    table = pd.read_csv("predicted.csv", keep_default_na=False)
    broken = table[table["file"] == "broken.png"]
    assert len(broken) == 1 and "not a readable image" in broken["warning"].item()
    other = table.loc[table["file"] == "other.webp", "warning"]
    assert other.tolist() == ["not read: only JPEG and PNG files can be read: convert it"]
    index = pd.read_csv(on_images.stage("01_data") / "index.csv")
    binary = np.load(on_images.stage("02_binary") / "probabilities.npy").ravel()
    ours = 1 - np.load(on_images.stage("03_categorical") / "ours_probabilities.npy")[:, 0]
    in_test = (index["split"] == "test").to_numpy()
    names = index.loc[in_test, "file"].map(lambda file: Path(file).name)
    for network, stored in (("published, binary", binary), ("ours", ours)):
        rows = table[table["network"] == network]
        by_name = rows.assign(name=rows["file"].map(lambda file: Path(file).name))
        predicted = by_name.set_index("name")["probability"].astype(float)[names]
        np.testing.assert_allclose(predicted, stored[in_test], atol=rounding(on_images))
        is_called = rows["probability"].astype(float) >= rows["threshold"].astype(float)
        assert (is_called == (rows["prediction"] == "pneumonia")).all()
    three = table[table["network"] == "ours"][["probability", "bacterial", "viral"]].astype(float)
    np.testing.assert_allclose(three["bacterial"] + three["viral"], three["probability"], atol=1e-5)
    assert (table.loc[table["network"] == "published, binary", "viral"] == "").all()
    assert set(table["run"]) == {on_images.name}


def test_weights_from_scores_other_images_without_training(on_phantoms, folder_of_images, capfd):
    """The weights are those of the earlier run, byte for byte; only the test split is new."""
    build, name = on_phantoms.folder.parent, on_phantoms.name
    earlier_results = (on_phantoms.folder / "results.csv").read_bytes()
    assert run_into(build, "--weights-from", name, "--data", str(folder_of_images)) == 0
    progress = capfd.readouterr().err
    assert "epoch" not in progress and "optimizer study" not in progress
    run = Run(build / "chest_xray-by-phantom-quick")
    weights = sorted(on_phantoms.folder.glob("stages/*/*.weights.h5"))
    assert len(weights) == 6  # two border networks, three published ones, ours
    for path in weights:
        copy = run.folder / path.relative_to(on_phantoms.folder)
        assert copy.read_bytes() == path.read_bytes()
    indexes = [pd.read_csv(r.stage("01_data") / "index.csv") for r in (on_phantoms, run)]
    trained, copied = (i[i["split"] != "test"].reset_index(drop=True) for i in indexes)
    assert copied["file"].equals(trained["file"]) and copied["split"].equals(trained["split"])
    test = indexes[1][indexes[1]["split"] == "test"]
    assert test["file"].str.endswith(".jpeg").all() and len(test)
    scores = pd.read_csv(run.folder / "results.csv")
    accuracy = scores.query("split == 'test' and metric == 'accuracy'")
    assert set(accuracy["row"]) == {row.id for row in ROWS}
    assert accuracy.loc[accuracy["row"] == "binary_cnn", "n"].item() == len(test)
    for text in (re.sub(r"<[^>]+>|\s+", " ", html_of(run)), pdf_text(run.folder)):
        assert "chest_xray, scored by the models of phantoms" in text
        assert f"{run.name} trains none of the scored models" in re.sub(" +", " ", text)
        assert f"those of the run {name}" in re.sub(" +", " ", text)
    assert (on_phantoms.folder / "results.csv").read_bytes() == earlier_results
    assert run_into(build, "--weights-from", name, "--data", str(folder_of_images)) == 0
    assert "never finished" not in capfd.readouterr().err


def test_weights_from_refuses_test_images_that_were_used_for_training(
    on_images, folder_of_images, tmp_path, capsys
):
    """The test folder is a copy of the training images."""
    train = folder_of_images / "chest_xray" / "train"
    for split in ("train", "test"):
        shutil.copytree(train, tmp_path / "copy" / split)
    arguments = ["--weights-from", on_images.name, "--data", str(tmp_path / "copy")]
    assert run_into(on_images.folder.parent, *arguments) == 3
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert "01_data.ipynb" in message and "test has 0 normal images and 0 with" in message
