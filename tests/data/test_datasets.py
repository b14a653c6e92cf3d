"""fusionreid.data.datasets on small trees in each layout; no picture of the real sets is here."""

from __future__ import annotations

import json
import os
import re
import warnings
from dataclasses import replace
from pathlib import Path

import pytest

from fusionreid.config import DataConfig
from fusionreid.data import datasets, open_dataset
from fusionreid.data.datasets import (
    PUBLISHED,
    RENDERER,
    Counts,
    open_data,
    read,
    table,
    verdict,
    with_version,
)

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

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*as published has", "ignore:.*more than one folder", "ignore:.*identities of train"
)


def make(folder: Path, files: dict[str, list[str]]) -> Path:
    for sub, names in files.items():
        for name in names:
            (folder / sub / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / sub / name).touch()
    return folder


def make_msmt17(folder: Path, version: str = "V1", lists: dict[str, list[str]] = LISTS) -> Path:
    train, test = {"V1": ("train", "test"), "V2": ("mask_train_v2", "mask_test_v2")}[version]
    for name, lines in lists.items():
        sub = train if name in ("list_train.txt", "list_val.txt") else test
        make(folder, {sub: [line.rpartition(" ")[0] for line in lines]})
        (folder / name).write_text("\n".join(lines) + "\n")
    return folder


def edition(dataset) -> str:
    """The version without the digest of the files, which is always there."""
    return re.fullmatch(r"(?:(V[12]), )?[0-9a-f]{8}", dataset.version)[1] or ""


def short(records) -> list[tuple[str, int, int]]:
    return [(path.name, identity, camera) for path, identity, camera in records]


def test_market_drops_junk_keeps_distractors_and_counts_cameras_from_zero(tmp_path):
    make(tmp_path / "market1501", MARKET)
    for junk in ("Thumbs.db", ".DS_Store", "._0002_c1s1_000451_03.jpg", "readme.txt"):
        (tmp_path / "market1501" / "query" / junk).touch()
    dataset = open_dataset("market1501", tmp_path)
    assert short(dataset.train) == [
        ("0002_c1s1_000451_03.jpg", 0, 0),
        ("0002_c3s1_000551_01.jpg", 0, 2),
        ("0007_c12s2_000001_00.jpg", 1, 11),
    ]
    assert short(dataset.query) == [("0001_c1s1_001051_00.jpg", 1, 0)]
    assert short(dataset.gallery) == [
        ("0000_c2s1_000026_01.jpg", 0, 1),
        ("0001_c5s3_001051_00.jpg", 1, 4),
    ]
    assert (dataset.num_identities, dataset.num_cameras, edition(dataset)) == (2, 12, "")
    assert dataset.query[0].path == tmp_path / "market1501" / "query" / "0001_c1s1_001051_00.jpg"


def test_duke(tmp_path):
    dataset = open_dataset("dukemtmc", make(tmp_path / "DukeMTMC-reID", DUKE).parent)
    assert short(dataset.train) == [("0001_c2_f0046182.jpg", 0, 1), ("0005_c8_f0046302.jpg", 1, 7)]
    assert short(dataset.query) == [("0005_c2_f0046985.jpg", 5, 1)]


@pytest.mark.parametrize("version", ["V1", "V2"])
def test_msmt17_joins_train_and_val_and_tells_its_version(tmp_path, version, capsys):
    make_msmt17(tmp_path / "msmt17", version)
    dataset = open_dataset("msmt17", tmp_path)
    assert short(dataset.train) == [
        ("0000_000_01_0303morning_0015_0.jpg", 0, 0),
        ("0004_002_15_0113noon_0100_1.jpg", 1, 14),
        ("0000_001_02_0303morning_0015_0.jpg", 0, 1),
    ]
    assert [record.identity for record in dataset.gallery] == [0, 1]
    assert (edition(dataset), dataset.num_cameras, dataset.num_identities) == (version, 15, 2)
    assert all(record.path.is_file() for split in dataset.splits.values() for record in split)
    assert f"MSMT17 {version}, " in capsys.readouterr().err


def test_the_version_is_that_of_the_files(tmp_path):
    def version(name, root):
        return with_version(DataConfig(name=name), root).version

    assert version("market1501", tmp_path) == version("msmt17", tmp_path / "nowhere") == ""
    assert version("synthetic", tmp_path) == f"v{RENDERER}"
    for folder, edition in (("a", "V1"), ("b/MSMT17_V2", "V2")):
        dataset = open_dataset("msmt17", make_msmt17(tmp_path / folder, edition))
        assert version("msmt17", dataset.root) == dataset.version and dataset.version.startswith(
            f"{edition}, "
        )
    make_msmt17(tmp_path / "a", "V2")  # both editions in one folder: nobody knows
    assert version("msmt17", tmp_path / "a") == ""
    assert with_version(DataConfig(name="msmt17", version="V1"), tmp_path / "b").version == "V1"


def remove(folder):
    (folder / "bounding_box_train" / MARKET["bounding_box_train"][0]).unlink()


def rename(folder):
    (folder / "query" / MARKET["query"][0]).rename(folder / "query" / "0001_c1s1_001051_01.jpg")


def move(folder):
    name = MARKET["bounding_box_test"][2]
    (folder / "bounding_box_test" / name).rename(folder / "query" / name)


def resize(folder):
    (folder / "query" / MARKET["query"][0]).write_bytes(b"x")


@pytest.mark.parametrize("change", [remove, rename, move, resize])
def test_other_files_are_another_version_and_not_what_a_run_wanted(tmp_path, change):
    folder, copy = (
        make(tmp_path / "market1501", MARKET),
        make(tmp_path / "elsewhere" / "Market-1501", MARKET),
    )
    before = with_version(DataConfig(name="market1501"), tmp_path)
    assert with_version(DataConfig(name="market1501"), copy) == before  # wherever it lies
    assert open_data(before, tmp_path).version == before.version
    (folder / "query" / "Thumbs.db").touch()
    assert open_data(before, tmp_path).version == before.version  # what is not read does not count
    change(folder)
    with pytest.raises(
        ValueError, match=f"market1501: expected market1501 {before.version}, found [0-9a-f]{{8}}: "
    ):
        open_data(before, tmp_path)
    os.utime(folder / "query", (1, 1))  # a new date, however fast the test is
    assert with_version(DataConfig(name="market1501"), tmp_path).version not in ("", before.version)


def test_files_are_looked_at_once_unless_a_folder_has_changed(tmp_path, monkeypatch):
    folder, looked = make(tmp_path / "market1501", MARKET), []
    monkeypatch.setattr(datasets, "read", lambda *which: looked.append(which) or read(*which))
    for _ in range(2):
        with_version(DataConfig(name="market1501"), tmp_path)
    assert len(looked) == 1
    os.utime(folder / "bounding_box_train", (1, 1))
    with_version(DataConfig(name="market1501"), tmp_path)
    assert len(looked) == 2


def test_msmt17_whose_blurred_images_lie_in_v1s_folders_is_v2_by_its_name(tmp_path):
    make_msmt17(tmp_path / "MSMT17_V2", "V1")
    with pytest.warns(UserWarning, match="its name says V2"):
        assert edition(open_dataset("msmt17", tmp_path)) == "V2"


@pytest.mark.parametrize(("folder", "version"), [("msmt17/MSMT17_V2", "V2"), ("msmt17", "")])
def test_msmt17_in_markets_layout(tmp_path, folder, version):
    names = {
        sub: [f"000{i}_c{i + 9}_0001.jpg", f"000{i}_000_0{i + 1}_x_0015_0.jpg"]
        for i, sub in enumerate(MARKET)
    }
    make(tmp_path / folder, names)
    dataset = open_dataset("msmt17", tmp_path)
    assert edition(dataset) == version
    assert short(dataset.query) == [("0001_000_02_x_0015_0.jpg", 1, 1), ("0001_c10_0001.jpg", 1, 9)]


FOLDERS = {  # as code bases and archives name them; "" is the set's own folder
    "market1501": ["", "market1501", "Market-1501-v15.09.15", "Market-1501"],
    "dukemtmc": ["", "dukemtmc", "dukemtmcreid", "dukemtmc-reid", "DukeMTMC-reID"],
    "msmt17": ["", "msmt17", "MSMT17", "MSMT17_V1", "MSMT17_V2"],
}
NESTED = {
    "market1501": [
        "market1501/Market-1501-v15.09.15",
        "Market-1501-v15.09.15/Market-1501-v15.09.15",
    ],
    "dukemtmc": ["dukemtmc-reid/DukeMTMC-reID"],
    "msmt17": ["msmt17/MSMT17_V1", "MSMT17/MSMT17_V2"],
}


@pytest.mark.parametrize(
    ("name", "folder"),
    [(name, folder) for name in FOLDERS for folder in [*FOLDERS[name], *NESTED[name]]],
)
def test_every_folder_name_is_found(tmp_path, name, folder):
    if name == "msmt17":
        make_msmt17(tmp_path / folder, "V2" if folder.endswith("V2") else "V1")
    else:
        make(tmp_path / folder, MARKET if name == "market1501" else DUKE)
    (tmp_path / "Market-1501-attribute").mkdir()
    dataset = open_dataset(name, tmp_path)
    assert dataset.root == tmp_path / folder
    assert len(dataset.train) == {"market1501": 3, "dukemtmc": 2, "msmt17": 3}[name]


def test_two_folders_of_one_set_are_a_warning_and_a_link_is_not(tmp_path):
    make_msmt17(tmp_path / "MSMT17_V1")
    (tmp_path / "msmt17").symlink_to(tmp_path / "MSMT17_V1")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", ".*as published has")
        open_dataset("msmt17", tmp_path)
    make_msmt17(tmp_path / "MSMT17_V2", "V2")
    with pytest.warns(
        UserWarning, match="more than one folder.*MSMT17_V1 is read, not .*MSMT17_V2"
    ):
        assert edition(open_dataset("msmt17", tmp_path)) == "V1"
    assert edition(open_dataset("msmt17", tmp_path / "MSMT17_V2")) == "V2"


def test_synthetic(tmp_path):
    folder = make(tmp_path / "synthetic" / "smoke-3", MARKET)
    with pytest.raises(
        FileNotFoundError,
        match="manifest.json: .*not finished.*data synthetic --size smoke --seed 3",
    ):
        open_dataset("synthetic", tmp_path, size="smoke", seed=3)
    (folder / "manifest.json").write_text(json.dumps({"size": "smoke", "seed": 3}))
    for root in (tmp_path, folder):
        dataset = open_dataset("synthetic", root, size="smoke", seed=3)
        assert (dataset.version, len(dataset.train)) == ("smoke-3", 3)
        assert open_data(DataConfig(size="smoke", seed=3), folder) == open_dataset(
            "synthetic", folder
        )
    (folder / "manifest.json").write_text(json.dumps({"size": "smoke", "seed": 3, "version": 9}))
    assert open_dataset("synthetic", tmp_path, size="smoke", seed=3).version == "smoke-3, v9"
    with pytest.raises(FileNotFoundError, match="demo-0/manifest.json: .*not there.*make it with"):
        open_dataset("synthetic", tmp_path)


def test_a_synthetic_set_must_be_the_one_of_its_manifest_and_of_the_run(tmp_path):
    folder = make(tmp_path / "synthetic" / "smoke-3", MARKET)
    about = {"size": "smoke", "seed": 3, "version": 9}
    about["counts"] = {"bounding_box_train": 3, "query": 1, "bounding_box_test": 2}
    (folder / "manifest.json").write_text(json.dumps(about))
    config = DataConfig(size="smoke", seed=3, version="v9")
    assert open_data(config, folder).version == "smoke-3, v9"
    for other in (replace(config, version="v8"), replace(config, seed=4)):
        with pytest.raises(
            ValueError, match="expected synthetic smoke-[34], v[89], found smoke-3, v9: other files"
        ):
            open_data(other, folder)
    remove(folder)
    with pytest.raises(
        ValueError,
        match="manifest.json: expected {'bounding_box_train': 3, .*'bounding_box_train': 2",
    ):
        open_data(config, folder)
    for damaged in ("[]", "3"):
        (folder / "manifest.json").write_text(damaged)
        with pytest.raises(
            ValueError, match="manifest.json: expected size, seed and version, found"
        ):
            open_data(config, folder)


@pytest.mark.filterwarnings("default:.*as published has")
def test_counts_are_a_warning(tmp_path):
    with pytest.warns(UserWarning, match="train has 3 images; market1501 as published has 12,936"):
        open_dataset("market1501", make(tmp_path, MARKET))


def test_a_missing_folder_says_what_was_looked_for_what_is_there_and_the_layout(tmp_path):
    make(tmp_path / "Market-1501-v15.09.15", {"query": MARKET["query"]})
    with pytest.raises(FileNotFoundError) as error:
        open_dataset("market1501", tmp_path)
    message = str(error.value)
    assert str(tmp_path / "market1501") in message and "There is in" in message
    assert (
        "Market-1501-v15.09.15: query\n" in message
        and "bounding_box_train/0002_c1s1_000451_03.jpg" in message
    )
    with pytest.raises(FileNotFoundError, match="no folder .*nowhere"):
        open_dataset("msmt17", tmp_path / "nowhere")


def test_names_that_do_not_parse_are_named(tmp_path):
    for name, files, bad in (
        ("market1501", MARKET, "photo.jpg"),
        ("market1501", MARKET, "0001_c0s1_000001_00.jpg"),
        ("dukemtmc", DUKE, "0002_c1s1_000451_03.jpg"),
    ):
        folder = make(tmp_path / f"{name}{bad}", files)
        (folder / "query" / bad).touch()
        with pytest.raises(ValueError, match=f"query/{bad}: expected a name like"):
            open_dataset(name, folder)
    lists = LISTS | {"list_query.txt": ["0000/0000-000.jpg 0"]}
    with pytest.raises(ValueError, match="0000-000.jpg: expected a name like 0000_000_01"):
        open_dataset("msmt17", make_msmt17(tmp_path / "a", lists=lists))


@pytest.mark.parametrize(
    ("name", "bad", "expected"),
    [
        ("market1501", "0001_c1s1_000000_00 (1).jpg", "0002_c1s1_000451_03.jpg"),
        ("market1501", "0001_c1s1_000000_00 - Copy.jpg", "0002_c1s1_000451_03.jpg"),
        ("market1501", "0001_c1s1_.jpg", "0002_c1s1_000451_03.jpg"),
        ("dukemtmc", "0005_c2_f0046985 (1).jpg", "0001_c2_f0046182.jpg"),
        ("msmt17", "0001_c10_0001 (1).jpg", "0000_000_01_0303morning_0015_0.jpg"),
        ("msmt17", "0001_000_02_0303morning_0015_0 (1).jpg", "0000_000_01_0303morning_0015_0.jpg"),
        ("msmt17", "0001_c2_f0046182.jpg", "0000_000_01_0303morning_0015_0.jpg"),  # DukeMTMC-reID's
    ],
)
def test_names_with_another_end_or_of_another_set_are_named(tmp_path, name, bad, expected):
    msmt17 = {sub: ["0001_c10_0001.jpg"] for sub in MARKET}
    folder = make(tmp_path / name, {"market1501": MARKET, "dukemtmc": DUKE, "msmt17": msmt17}[name])
    (folder / "bounding_box_train" / bad).touch()
    with pytest.raises(
        ValueError, match=f"{re.escape(bad)}: expected a name like .*{re.escape(expected)}"
    ):
        open_dataset(name, folder)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("market1501", "0001_c1s1_001051_01.jpg.jpg"),
        ("market1501", "0001_c1s1_001051_01.JPG"),
        ("market1501", "0001_c1s1_001051_01.png"),
        ("dukemtmc", "0005_c1_f0046985.Jpeg"),
        ("msmt17", "0001_c1s1_0001.jpg"),
        ("msmt17", "0023_003_01_0303morning_0164_1_ex.JPG"),
    ],
)
def test_usual_variants_of_names_are_read(tmp_path, name, file):
    msmt17 = {sub: ["0001_c10_0001.jpg"] for sub in MARKET}
    folder = make(tmp_path / name, {"market1501": MARKET, "dukemtmc": DUKE, "msmt17": msmt17}[name])
    (folder / "query" / file).touch()
    assert (file, int(file[:4]), 0) in short(open_dataset(name, folder).query)


def test_an_image_listed_twice_is_named(tmp_path):
    lists = LISTS | {"list_val.txt": LISTS["list_train.txt"][:1]}
    with pytest.raises(
        ValueError,
        match=r"list_val.txt, line 1: .*0015_0.jpg is listed twice.*list_train.txt, line 1",
    ):
        open_dataset("msmt17", make_msmt17(tmp_path / "a", lists=lists))


def test_msmt17_with_something_missing_or_malformed(tmp_path):
    folder = make_msmt17(tmp_path / "a")
    (folder / "test/0000/0000_000_03_0303afternoon_0033_0.jpg").unlink()
    with pytest.raises(
        FileNotFoundError, match="0033_0.jpg: listed in .*list_query.txt, line 1, and not there"
    ):
        open_dataset("msmt17", folder)
    folder = make_msmt17(tmp_path / "b")
    (folder / "list_val.txt").unlink()
    with pytest.raises(
        FileNotFoundError, match="list_val.txt: not there.*there is: list_gallery.txt"
    ):
        open_dataset("msmt17", folder)
    folder = make_msmt17(tmp_path / "c", lists=LISTS)
    (folder / "list_val.txt").write_text("0000/0000_001_02_0303morning_0015_0.jpg\n")
    with pytest.raises(ValueError, match="list_val.txt, line 1: expected '<image> <identity>'"):
        open_dataset("msmt17", folder)
    folder = make_msmt17(make_msmt17(tmp_path / "d"), "V2")
    with pytest.raises(ValueError, match="both train/ .V1. and mask_train_v2/ .V2."):
        open_dataset("msmt17", folder)


@pytest.mark.parametrize(
    ("encoding", "separator"),
    [("utf-8-sig", " "), ("utf-8", "\t"), ("utf-8-sig", "\t"), ("utf-8", "  ")],
)
def test_msmt17s_lists_with_a_byte_order_mark_or_tabs(tmp_path, encoding, separator):
    folder = make_msmt17(tmp_path)
    expected = open_dataset("msmt17", folder)
    for file, lines in LISTS.items():
        text = "\r\n".join(line.replace(" ", separator) for line in lines)
        (folder / file).write_text(text, encoding=encoding, newline="")
    assert open_dataset("msmt17", folder) == expected


def test_a_list_of_msmt17_that_is_not_utf8_is_named(tmp_path):
    folder = make_msmt17(tmp_path)
    (folder / "list_val.txt").write_text("\n".join(LISTS["list_val.txt"]), encoding="utf-16")
    with pytest.raises(ValueError, match="list_val.txt, line 1: expected '<image> <identity>'"):
        open_dataset("msmt17", folder)


def test_a_link_that_leads_nowhere_is_named(tmp_path):
    (tmp_path / "market1501").symlink_to(tmp_path / "unmounted")
    with pytest.raises(FileNotFoundError, match=r"market1501 \(a link to nowhere: .*/unmounted\)"):
        open_dataset("market1501", tmp_path)
    with pytest.raises(FileNotFoundError, match="there is no folder .*/unmounted"):
        open_dataset("market1501", tmp_path / "market1501")
    folder = make_msmt17(tmp_path / "msmt17")
    (folder / "list_val.txt").unlink()
    (folder / "list_val.txt").symlink_to("list.txt")
    with pytest.raises(FileNotFoundError, match=r"list_val.txt \(a link to nowhere: list.txt\)"):
        open_dataset("msmt17", tmp_path)


def test_a_link_that_leads_to_itself_is_passed_over(tmp_path):
    (tmp_path / "market1501").symlink_to("market1501")
    with pytest.raises(FileNotFoundError, match="market1501: no folder of it"):
        open_dataset("market1501", tmp_path)


def test_links_that_loop_are_named(tmp_path):
    (tmp_path / "market1501").symlink_to("market1501")
    with pytest.raises(FileNotFoundError, match="nothing, as there is no folder .*/market1501"):
        open_dataset("market1501", tmp_path / "market1501")
    folder = make(tmp_path / "Market-1501", MARKET)
    (folder / "market1501").symlink_to("..")  # to a folder above: found once
    assert len(open_dataset("market1501", tmp_path).train) == 3
    (folder / "query" / "0001_c1s1_000001_00.jpg").symlink_to("0001_c1s1_000001_00.jpg")
    with pytest.raises(OSError, match="symbolic links: .*0001_c1s1_000001_00.jpg"):
        open_dataset("market1501", tmp_path)


def test_an_empty_split_and_an_unknown_name(tmp_path):
    folder = make(tmp_path, MARKET)
    (folder / "query" / MARKET["query"][0]).unlink()
    with pytest.raises(ValueError, match="no image of query in market1501"):
        open_dataset("market1501", folder)
    with pytest.raises(ValueError, match="'cuhk03' is not known.*'market1501'"):
        open_dataset("cuhk03", folder)


def test_the_table_is_aligned(tmp_path):
    lines = table(open_dataset("market1501", make(tmp_path, MARKET))).splitlines()
    assert lines[0].split() == [
        "identities",
        "published",
        "images",
        "published",
        "cameras",
        "published",
    ]
    assert lines[1].split() == ["train", "2", "751", "3", "12,936", "3", "6"]
    assert len({len(line) for line in lines}) == 1
    synthetic = table(open_dataset("synthetic", tmp_path)).splitlines()
    assert synthetic[1].split() == ["train", "2", "-", "3", "-", "3", "-"]
    assert verdict(open_dataset("synthetic", tmp_path)) == ""


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({}, "Complete: identities, images and cameras of each split are the published ones."),
        ({"query": (0, 8, 0)}, "Not as published. query: images 1 (published: 9)."),
        (
            {"train": (1, 0, 3), "gallery": (0, 1000, 0)},
            "Not as published. train: identities 2 (published: 3); train: cameras 3 (published: 6); "
            "gallery: images 2 (published: 1,002).",
        ),
    ],
)
def test_the_verdict_says_whether_the_set_is_complete(tmp_path, monkeypatch, change, line):
    here = {"train": (2, 3, 3), "query": (1, 1, 1), "gallery": (2, 2, 2)}
    published = {
        split: Counts(
            *(a + b for a, b in zip(here[split], change.get(split, (0, 0, 0)), strict=True))
        )
        for split in here
    }
    monkeypatch.setitem(PUBLISHED, "market1501", published)
    assert verdict(open_dataset("market1501", make(tmp_path, MARKET))) == line
