"""Small data folders in Kaggle's layout, of files that are not decoded."""

LAYOUT = {
    "train/NORMAL": ["IM-0115-0001.jpeg", "NORMAL2-IM-0115-0001.jpeg"],
    "train/PNEUMONIA": ["person1_bacteria_1.jpeg", "person1_virus_6.jpeg"],
    "val/NORMAL": ["NORMAL2-IM-1427-0001.jpeg"],
    "val/PNEUMONIA": ["person1946_bacteria_4874.jpeg"],
    "test/NORMAL": ["IM-0001-0001.jpeg", "IM-0003-0001-0002.jpeg"],
    "test/PNEUMONIA": ["person100_bacteria_475.jpeg", "person1_virus_7_2.jpeg"],
}


def make(root, layout=LAYOUT):
    for place, names in layout.items():
        (root / place).mkdir(parents=True)
        for name in names:
            (root / place / name).write_bytes(b"x")
    return root
