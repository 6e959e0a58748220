import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxr_helpers.data import class_names, ingestion, layouts
from cxr_helpers.data.layouts import nih
from cxr_helpers.data.scans import Match
from cxr_helpers.system.errors import DataError

# file, findings, patient: patient 1 has images of both classes
ROWS = [
    ("00000001_000.png", "No Finding", "1"),
    ("00000001_001.png", "Infiltration|Pneumonia", "1"),
    ("00000001_002.png", "Cardiomegaly", "1"),
    ("00000002_000.png", "No Finding", "2"),
    ("00000003_000.png", "Pneumonia", "3"),
    ("00000004_000.png", "Pneumonia", "4"),
    ("00000005_000.png", "No Finding", "5"),
    ("00000006_000.png", "Pneumonia|Edema", "6"),
    ("00000007_000.png", "No Finding", "7"),
    ("00000008_000.png", "Pleural_Thickening", "8"),
    ("00000009_000.png", "No Finding", "9"),
]
NAMES = [name for name, *_ in ROWS]
USED = [name for name, findings, _ in ROWS if "No Finding" in findings or "Pneumonia" in findings]


def make(root, *, rows=ROWS, images=NAMES, places=("",), table="Data_Entry_2017.csv"):
    """Make a folder with the table and empty files, dealt out to the places."""
    root.mkdir(parents=True, exist_ok=True)
    frame = pd.DataFrame(rows, columns=["Image Index", "Finding Labels", "Patient ID"])
    frame.insert(2, "Follow-up #", 0)
    frame.assign(**{"OriginalImage[Width": 2048}).to_csv(root / table, index=False)
    for number, name in enumerate(images):
        folder = root / places[number % len(places)]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    return root


def split(root, *, left_out=()):
    """Write the two lists, of all images but those left out."""
    test = [f"0000000{patient}_000.png" for patient in (4, 5, 6, 7)]
    train = [name for name in NAMES if name not in {*test, *left_out}]
    (root / "train_val_list.txt").write_text("\n".join(train) + "\n")
    (root / "test_list.txt").write_text("\n".join(test))
    return root


@pytest.mark.parametrize("places", [("",), ("images",), ("images_001/images", "images_012/images")])
@pytest.mark.parametrize("table", nih.TABLES)
def test_images_of_the_two_classes_are_found_wherever_nih_unpacks_them(tmp_path, places, table):
    root = make(tmp_path / "above" / "nih", places=places, table=table)
    scan = layouts.scan(tmp_path)
    assert scan.root == root and nih.recognise(root) == Match(rank=1)
    files = scan.files.set_index(scan.files["file"].str.split("/").str[-1])
    assert sorted(files.index) == USED
    assert all((root / name).is_file() for name in files["file"])
    assert (files["folder"] == "train").all()
    assert files["class_name"].value_counts().to_dict() == {"normal": 5, class_names.UNKNOWN: 4}
    assert files.loc["00000001_001.png", "class_name"] == class_names.UNKNOWN


def test_groups_are_patients_whatever_the_class(tmp_path):
    files = layouts.scan(make(tmp_path)).files
    assert files["group"].value_counts().to_dict() == {
        "patient 1": 2, **{f"patient {number}": 1 for number in (2, 3, 4, 5, 6, 7, 9)}
    }  # fmt: skip
    assert class_names.count_without_patient(files) == 0


def test_image_without_patient_is_its_own_group(tmp_path):
    rows = [
        (name, findings, "" if name == NAMES[0] else patient) for name, findings, patient in ROWS
    ]
    files = layouts.scan(make(tmp_path, rows=rows)).files
    assert files["group"].iloc[0] == "normal train/00000001_000.png"
    assert class_names.count_without_patient(files) == 1


def test_other_findings_and_strange_files_are_left_out_and_counted(tmp_path):
    root = make(tmp_path, images=[*NAMES[1:], "stray.png"], places=("images",))
    (root / "images" / "notes.txt").touch()
    (root / "README.pdf").touch()  # beside the table: not a file among the images
    ignored = layouts.scan(root).ignored
    assert ignored.to_numpy().tolist() == [
        ["00000001_000.png", "named in Data_Entry_2017.csv, but not in the folder"],
        ["images/notes.txt", "not an image name"],
        ["images/stray.png", "not in Data_Entry_2017.csv"],
        ["images/00000001_002.png", "finding is neither No Finding nor Pneumonia"],
        ["images/00000008_000.png", "finding is neither No Finding nor Pneumonia"],
    ]


def test_second_file_of_a_name_is_left_out(tmp_path):
    root = make(tmp_path, places=("images",))
    make(tmp_path, images=NAMES[:1], places=("images_001/images",))
    found = layouts.scan(root)
    assert found.files["file"].iloc[0] == "images/00000001_000.png"
    assert ["images_001/images/00000001_000.png", "second file with this name, after "
            "images/00000001_000.png"] in found.ignored.to_numpy().tolist()  # fmt: skip


def test_lists_give_the_splits(tmp_path):
    root = split(make(tmp_path), left_out=["00000002_000.png"])
    assert nih.recognise(root) == Match(rank=0)
    scan = layouts.scan(root)
    assert scan.files["file"][scan.files["folder"] == "test"].tolist() == [
        "00000004_000.png", "00000005_000.png", "00000006_000.png", "00000007_000.png"
    ]  # fmt: skip
    assert set(scan.files["folder"]) == {"train", "test"} and len(scan.files) == 8
    reason = "in neither train_val_list.txt nor test_list.txt"
    assert ["00000002_000.png", reason] in scan.ignored.to_numpy().tolist()


def test_newer_table_is_read_where_both_are_there(tmp_path):
    make(tmp_path, rows=[(name, "No Finding", patient) for name, _, patient in ROWS])
    make(tmp_path, table="Data_Entry_2017_v2020.csv")
    assert (layouts.scan(tmp_path).files["class_name"] == "normal").sum() == 5


@pytest.mark.parametrize("column", ["Image Index", "Finding Labels", "Patient ID"])
def test_table_without_a_column_is_refused(tmp_path, column):
    path = make(tmp_path) / "Data_Entry_2017.csv"
    pd.read_csv(path).drop(columns=column).to_csv(path, index=False)
    with pytest.raises(DataError, match=f"Data_Entry_2017.csv lacks the column '{column}': take"):
        layouts.scan(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b'Image Index,"\n'])
def test_what_is_not_a_table_is_refused(tmp_path, content):
    (make(tmp_path) / "Data_Entry_2017.csv").write_bytes(content)
    with pytest.raises(DataError, match=r"^Data_Entry_2017\.csv (is not a table|lacks)"):
        layouts.scan(tmp_path)


def test_image_that_is_named_twice_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"lists '00000001_000\.png' twice"):
        layouts.scan(make(tmp_path, rows=[*ROWS, ROWS[0]]))


def test_more_than_a_few_missing_images_are_refused(tmp_path):
    make(tmp_path, images=NAMES[9:])
    with pytest.raises(DataError, match=r"8 of the 9 images .* missing, first 00000001_000\.png"):
        layouts.scan(tmp_path)


def test_missing_images_of_other_findings_are_tolerated(tmp_path):
    others = [(f"9{number:07}_000.png", "Hernia", "9") for number in range(20)]
    scan = layouts.scan(make(tmp_path, rows=ROWS + others))
    assert len(scan.files) == 9 and len(scan.ignored) == 22


@pytest.mark.parametrize(
    ("findings", "message"),
    [
        ("Hernia", "no image whose 'Finding Labels' are 'No Finding' or include 'Pneumonia'"),
        ("No Finding", "train has 0 images of pneumonia; at least 2"),
        ("Pneumonia", "train has 0 images of normal; at least 2"),
    ],
)
def test_data_without_one_of_the_classes_are_refused(tmp_path, findings, message):
    rows = [(name, findings, patient) for name, _, patient in ROWS]
    with pytest.raises(DataError, match=message):
        layouts.scan(make(tmp_path, rows=rows))


def test_one_list_without_the_other_is_refused(tmp_path):
    (split(make(tmp_path)) / "test_list.txt").unlink()
    with pytest.raises(
        DataError,
        match=r"train_val_list\.txt without test_list\.txt: add test_list\.txt, or remove train_val_list\.txt to",
    ):
        layouts.scan(tmp_path)


def test_image_in_both_lists_is_refused(tmp_path):
    root = split(make(tmp_path))
    (root / "train_val_list.txt").write_text("\n".join(NAMES))
    with pytest.raises(DataError, match=r"'00000004_000\.png' is in both train_val_list\.txt and"):
        layouts.scan(root)


def test_list_that_is_not_text_is_refused(tmp_path):
    (split(make(tmp_path)) / "test_list.txt").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(DataError, match=r"^test_list\.txt cannot be read as text"):
        layouts.scan(tmp_path)


def test_names_of_the_table_cannot_lead_outside_the_folder(tmp_path):
    outside = make(tmp_path / "nih", rows=[*ROWS, ("../secret.png", "Pneumonia", "9")])
    (tmp_path / "secret.png").write_bytes(b"x")
    scan = layouts.scan(outside)
    assert not scan.files["file"].str.contains("secret").any()
    assert "../secret.png" in scan.ignored["file"].tolist()


def test_images_are_decoded_with_two_classes(tmp_path):
    root = split(make(tmp_path / "nih", places=("images_001/images",)))
    for number, path in enumerate(sorted(root.rglob("*.png"))):
        Image.fromarray(np.full((40, 40), 10 * number, np.uint8)).save(path)
    options = {"framing": "squeeze", "cache_dir": tmp_path / "c", "phantom_options": {}}
    source = ingestion.read(str(tmp_path / "nih"), size=16, **options)
    assert source.name == "nih" and not source.test_from_train
    assert source.index["split"].value_counts().to_dict() == {"train": 5, "test": 4}
    assert source.images[:, 0, 0].tolist() == [0, 10, 30, 40, 50, 60, 70, 80, 100]
    assert class_names.distinguishable(source.index)[0] == class_names.BINARY_CLASSES
