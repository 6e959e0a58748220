"""A worked example: one module adds another dataset layout."""

import json
import shutil
import subprocess
import sys

import numpy as np
from machine import ROOT
from PIL import Image

FLAT_TABLE = '''
"""Images in one folder, with their labels in ``labels.csv``: file, split, class, patient."""

import os
from pathlib import Path

import pandas as pd

from cxr_helpers.data.scans import Match, Scan
from cxr_helpers.system.errors import DataError

EXPECTED = "labels.csv beside its images"


def recognise(path: Path) -> Match | None:
    return Match() if os.path.isfile(path / "labels.csv") else None


def scan(root: Path) -> Scan:
    table = pd.read_csv(root / "labels.csv", dtype=str)
    if lacking := {"file", "split", "class", "patient"} - set(table):
        raise DataError(f"{root.name}/labels.csv lacks the columns {sorted(lacking)}")
    files = pd.DataFrame(
        {
            "file": table["file"],
            "folder": table["split"],
            "class_name": table["class"],
            "group": table["class"] + " " + table["patient"],
        }
    )
    return Scan(root, files, pd.DataFrame(columns=["file", "reason"]))
'''

PROGRAM = """
import json, sys
from cxr_helpers.data import ingestion, layouts, sources
from cxr_helpers.pipeline import dependencies

data, cache = sys.argv[1:]
source = sources.find(data, cache_dir=cache)
fingerprint, n_images = ingestion.identify(source)
read = ingestion.read(data, size=32, framing="pad", cache_dir=cache, phantom_options={})
print(json.dumps({
    "layouts": [layout.__name__ for layout in layouts.installed()],
    "name": source.name,
    "n_images": n_images,
    "groups": layouts.scan(data).files["group"].tolist(),
    "grey": read.images[:, 0, 0].tolist(),
    "splits": read.index["split"].value_counts().to_dict(),
    "notes": ingestion.notes(source.located),
    "modules": dependencies.modules_of(["from cxr_helpers.data import ingestion"]),
}))
"""


def run(project, data):
    """Run the program in a copy of the project."""
    command = [sys.executable, "-c", PROGRAM, str(data), str(project / "cache")]
    return subprocess.run(command, cwd=project, capture_output=True, text=True)


def test_one_new_module_is_all_a_layout_takes(tmp_path):
    project, data = tmp_path / "project", tmp_path / "above" / "flat"
    shutil.copytree(
        ROOT / "cxr_helpers",
        project / "cxr_helpers",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    data.mkdir(parents=True)
    lines = ["file,split,class,patient"]
    for number in range(12):
        name = f"{number}.png"
        Image.fromarray(np.full((40, 40), 10 * number, np.uint8)).save(data / name)
        split, label = ("train", "train", "test")[number // 2 % 3], ("normal", "viral")[number % 2]
        lines.append(f"{name},{split},{label},{number}")
    (data / "labels.csv").write_text("\n".join(lines))

    refused = run(project, data.parent)
    assert "no chest X-ray folder" in refused.stderr
    (project / "cxr_helpers" / "data" / "layouts" / "flat_table.py").write_text(FLAT_TABLE)
    done = run(project, data.parent)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert "cxr_helpers.data.layouts.flat_table" in found["layouts"]
    assert (found["name"], found["n_images"]) == ("flat", 12)
    assert found["groups"][:2] == ["normal 0", "viral 1"]
    assert found["grey"] == [10 * number for number in range(12)]
    assert found["splits"] == {"train": 8, "test": 4}
    assert "data.layouts.flat_table" in found["modules"]  # so that stages go stale when it changes

    (data / "labels.csv").write_text("file,class\n")
    assert "lacks the columns ['patient', 'split']" in run(project, data.parent).stderr
