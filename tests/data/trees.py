"""Small trees of empty files in the layout of each set; no picture of the real sets is here."""

from __future__ import annotations

from pathlib import Path

MARKET = {
    "bounding_box_train": [
        "0002_c1s1_000451_03.jpg",
        "0002_c3s1_000551_01.jpg",
        "0007_c12s2_000001_00.jpg",
    ],
    "query": ["0001_c1s1_001051_00.jpg"],
    "bounding_box_test": [
        "-1_c1s1_000401_03.jpg",
        "0000_c2s1_000026_01.jpg",
        "0001_c5s3_001051_00.jpg",
    ],
}
DUKE = {
    "bounding_box_train": ["0001_c2_f0046182.jpg", "0005_c8_f0046302.jpg"],
    "query": ["0005_c2_f0046985.jpg"],
    "bounding_box_test": ["0002_c1_f0044158.jpg"],
}
# MSMT17 in Market-1501's layout, as some copies have it.
MSMT17 = {
    "bounding_box_train": ["0000_c9_0001.jpg", "0000_000_01_x_0015_0.jpg"],
    "query": ["0001_c10_0001.jpg", "0001_000_02_x_0015_0.jpg"],
    "bounding_box_test": ["0002_c11_0001.jpg", "0002_000_03_x_0015_0.jpg"],
}
LISTS = {
    "list_train.txt": [
        "0000/0000_000_01_0303morning_0015_0.jpg 0",
        "0004/0004_002_15_0113noon_0100_1.jpg 4",
    ],
    "list_val.txt": ["0000/0000_001_02_0303morning_0015_0.jpg 0"],
    "list_query.txt": ["0000/0000_000_03_0303afternoon_0033_0.jpg 0"],
    "list_gallery.txt": [
        "0000/0000_001_07_0303afternoon_0033_0.jpg 0",
        "0001/0001_001_05_x_0033_0.jpg 1",
    ],
}


def make(folder: Path, files: dict[str, list[str]]) -> Path:
    """Makes empty files, by the folder that they lie in."""
    for sub, names in files.items():
        for name in names:
            (folder / sub / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / sub / name).touch()
    return folder


def make_msmt17(folder: Path, version: str = "V1", lists: dict[str, list[str]] = LISTS) -> Path:
    """Makes the lists of MSMT17 and the images that they name."""
    if version == "V1":
        train, test = "train", "test"
    else:
        train, test = "mask_train_v2", "mask_test_v2"
    for name, lines in lists.items():
        sub = train if name in ("list_train.txt", "list_val.txt") else test
        make(folder, {sub: [line.rpartition(" ")[0] for line in lines]})
        (folder / name).write_text("\n".join(lines) + "\n")
    return folder


def make_named(name: str, folder: Path) -> Path:
    """Makes a set in Market-1501's layout."""
    return make(folder, {"market1501": MARKET, "dukemtmc": DUKE, "msmt17": MSMT17}[name])
