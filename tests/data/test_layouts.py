"""fusionreid.data.layouts: where a set lies, and what its files' names say."""

from __future__ import annotations

import re
import warnings

import pytest
from trees import DUKE, LISTS, MARKET, MSMT17, make, make_msmt17, make_named

from fusionreid.data.layouts import find, msmt17_version, read


def short(records) -> list[tuple[str, int, int]]:
    return [(path.name, identity, camera) for path, identity, camera in records]


def test_market_drops_junk_keeps_distractors_and_counts_cameras_from_zero(tmp_path):
    folder = make(tmp_path / "market1501", MARKET)
    for junk in ("Thumbs.db", ".DS_Store", "._0002_c1s1_000451_03.jpg", "readme.txt"):
        (folder / "query" / junk).touch()
    splits = read("market1501", folder)
    assert short(splits["train"]) == [
        ("0002_c1s1_000451_03.jpg", 2, 0),
        ("0002_c3s1_000551_01.jpg", 2, 2),
        ("0007_c12s2_000001_00.jpg", 7, 11),
    ]
    assert short(splits["query"]) == [("0001_c1s1_001051_00.jpg", 1, 0)]
    assert short(splits["gallery"]) == [
        ("0000_c2s1_000026_01.jpg", 0, 1),
        ("0001_c5s3_001051_00.jpg", 1, 4),
    ]
    assert splits["query"][0].path == folder / "query" / "0001_c1s1_001051_00.jpg"


def test_duke(tmp_path):
    splits = read("dukemtmc", make(tmp_path, DUKE))
    assert short(splits["train"]) == [
        ("0001_c2_f0046182.jpg", 1, 1),
        ("0005_c8_f0046302.jpg", 5, 7),
    ]
    assert short(splits["query"]) == [("0005_c2_f0046985.jpg", 5, 1)]


@pytest.mark.parametrize("version", ["V1", "V2"])
def test_msmt17_joins_train_and_val_and_tells_its_version(tmp_path, version):
    folder = make_msmt17(tmp_path / "msmt17", version)
    splits = read("msmt17", folder)
    assert short(splits["train"]) == [
        ("0000_000_01_0303morning_0015_0.jpg", 0, 0),
        ("0004_002_15_0113noon_0100_1.jpg", 4, 14),
        ("0000_001_02_0303morning_0015_0.jpg", 0, 1),
    ]
    assert [record.identity for record in splits["gallery"]] == [0, 1]
    assert all(record.path.is_file() for split in splits.values() for record in split)
    assert msmt17_version(folder) == version


def test_msmt17_whose_blurred_images_lie_in_v1s_folders_is_v2_by_its_name(tmp_path):
    folder = make_msmt17(tmp_path / "MSMT17_V2", "V1")
    with pytest.warns(UserWarning, match="its name says V2"):
        assert msmt17_version(folder) == "V2"


@pytest.mark.parametrize(("folder", "version"), [("msmt17/MSMT17_V2", "V2"), ("msmt17", "")])
def test_msmt17_in_markets_layout(tmp_path, folder, version):
    make(tmp_path / folder, MSMT17)
    assert find("msmt17", tmp_path) == tmp_path / folder
    assert msmt17_version(tmp_path / folder) == version
    assert short(read("msmt17", tmp_path / folder)["query"]) == [
        ("0001_000_02_x_0015_0.jpg", 1, 1),
        ("0001_c10_0001.jpg", 1, 9),
    ]


# As code bases and archives name them; "" is the set's own folder.
FOLDERS = {
    "market1501": [
        "", "market1501", "Market-1501-v15.09.15", "Market-1501",
        "market1501/Market-1501-v15.09.15", "Market-1501-v15.09.15/Market-1501-v15.09.15",
    ],
    "dukemtmc": [
        "", "dukemtmc", "dukemtmcreid", "dukemtmc-reid", "DukeMTMC-reID",
        "dukemtmc-reid/DukeMTMC-reID",
    ],
    "msmt17": [
        "", "msmt17", "MSMT17", "MSMT17_V1", "MSMT17_V2", "msmt17/MSMT17_V1", "MSMT17/MSMT17_V2",
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "folder"), [(name, folder) for name, folders in FOLDERS.items() for folder in folders]
)
def test_every_folder_name_is_found(tmp_path, name, folder):
    if name == "msmt17":
        make_msmt17(tmp_path / folder, "V2" if folder.endswith("V2") else "V1")
    else:
        make_named(name, tmp_path / folder)
    (tmp_path / "Market-1501-attribute").mkdir()
    assert find(name, tmp_path) == tmp_path / folder


def test_two_folders_of_one_set_are_a_warning_and_a_link_is_not(tmp_path):
    make_msmt17(tmp_path / "MSMT17_V1")
    (tmp_path / "msmt17").symlink_to(tmp_path / "MSMT17_V1")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        find("msmt17", tmp_path)
    make_msmt17(tmp_path / "MSMT17_V2", "V2")
    with pytest.warns(
        UserWarning, match="more than one folder.*MSMT17_V1 is read, not .*MSMT17_V2"
    ):
        assert find("msmt17", tmp_path) == tmp_path / "MSMT17_V1"
    assert find("msmt17", tmp_path / "MSMT17_V2") == tmp_path / "MSMT17_V2"


def test_a_missing_folder_says_what_was_looked_for_what_is_there_and_the_layout(tmp_path):
    make(tmp_path / "Market-1501-v15.09.15", {"query": MARKET["query"]})
    with pytest.raises(FileNotFoundError) as error:
        find("market1501", tmp_path)
    message = str(error.value)
    assert str(tmp_path / "market1501") in message and "There is in" in message
    assert "Market-1501-v15.09.15: query\n" in message
    assert "bounding_box_train/0002_c1s1_000451_03.jpg" in message
    with pytest.raises(FileNotFoundError, match="no folder .*nowhere"):
        find("msmt17", tmp_path / "nowhere")


def test_of_a_long_folder_the_first_names_are_said(tmp_path):
    make(tmp_path, {"": [f"{number:02d}.txt" for number in range(20)]})
    with pytest.raises(FileNotFoundError, match=r"00.txt, .*, 11.txt, \.\.\.\n"):
        find("market1501", tmp_path)


@pytest.mark.parametrize(
    ("name", "file", "example"),
    [
        ("market1501", "photo.jpg", "0002_c1s1_000451_03.jpg"),
        ("market1501", "0001_c0s1_000001_00.jpg", "0002_c1s1_000451_03.jpg"),
        ("market1501", "0001_c1s1_000000_00 (1).jpg", "0002_c1s1_000451_03.jpg"),
        ("market1501", "0001_c1s1_000000_00 - Copy.jpg", "0002_c1s1_000451_03.jpg"),
        ("market1501", "0001_c1s1_.jpg", "0002_c1s1_000451_03.jpg"),
        ("dukemtmc", "0002_c1s1_000451_03.jpg", "0001_c2_f0046182.jpg"),  # Market-1501's
        ("dukemtmc", "0005_c2_f0046985 (1).jpg", "0001_c2_f0046182.jpg"),
        ("msmt17", "0001_c10_0001 (1).jpg", "0000_000_01_0303morning_0015_0.jpg"),
        ("msmt17", "0001_000_02_0303morning_0015_0 (1).jpg", "0000_000_01_0303morning_0015_0.jpg"),
        ("msmt17", "0001_c2_f0046182.jpg", "0000_000_01_0303morning_0015_0.jpg"),  # DukeMTMC-reID's
    ],
)
def test_a_name_that_is_not_like_the_sets_is_named(tmp_path, name, file, example):
    folder = make_named(name, tmp_path)
    (folder / "query" / file).touch()
    message = f"query/{re.escape(file)}: expected a name like {re.escape(example)}"
    with pytest.raises(ValueError, match=message):
        read(name, folder)


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
    folder = make_named(name, tmp_path)
    (folder / "query" / file).touch()
    assert (file, int(file[:4]), 0) in short(read(name, folder)["query"])


def test_an_empty_split_is_named(tmp_path):
    folder = make(tmp_path, MARKET)
    (folder / "query" / MARKET["query"][0]).unlink()
    with pytest.raises(ValueError, match="no image of query in market1501"):
        read("market1501", folder)


def test_an_image_listed_twice_is_named(tmp_path):
    lists = LISTS | {"list_val.txt": LISTS["list_train.txt"][:1]}
    with pytest.raises(
        ValueError,
        match=r"list_val.txt, line 1: .*0015_0.jpg is listed twice.*list_train.txt, line 1",
    ):
        read("msmt17", make_msmt17(tmp_path, lists=lists))


def test_a_listed_name_that_is_not_msmt17s_is_named(tmp_path):
    lists = LISTS | {"list_query.txt": ["0000/0000-000.jpg 0"]}
    with pytest.raises(ValueError, match="0000-000.jpg: expected a name like 0000_000_01"):
        read("msmt17", make_msmt17(tmp_path, lists=lists))


def test_a_listed_image_that_is_missing_is_named(tmp_path):
    folder = make_msmt17(tmp_path)
    (folder / "test/0000/0000_000_03_0303afternoon_0033_0.jpg").unlink()
    with pytest.raises(
        FileNotFoundError, match="list_query.txt, line 1: no such file: .*0033_0.jpg"
    ):
        read("msmt17", folder)


def test_a_missing_list_is_named(tmp_path):
    folder = make_msmt17(tmp_path)
    (folder / "list_val.txt").unlink()
    with pytest.raises(
        FileNotFoundError, match="list_val.txt: not there.*there is: list_gallery.txt"
    ):
        read("msmt17", folder)


def test_a_line_without_an_identity_is_named(tmp_path):
    folder = make_msmt17(tmp_path)
    (folder / "list_val.txt").write_text("0000/0000_001_02_0303morning_0015_0.jpg\n")
    with pytest.raises(ValueError, match="list_val.txt, line 1: expected '<image> <identity>'"):
        read("msmt17", folder)


def test_both_editions_in_one_folder_are_refused(tmp_path):
    folder = make_msmt17(make_msmt17(tmp_path), "V2")
    with pytest.raises(ValueError, match="both train/ .V1. and mask_train_v2/ .V2."):
        read("msmt17", folder)


@pytest.mark.parametrize(
    ("encoding", "separator"),
    [("utf-8-sig", " "), ("utf-8", "\t"), ("utf-8-sig", "\t"), ("utf-8", "  ")],
)
def test_msmt17s_lists_with_a_byte_order_mark_or_tabs(tmp_path, encoding, separator):
    folder = make_msmt17(tmp_path)
    expected = read("msmt17", folder)
    for file, lines in LISTS.items():
        text = "\r\n".join(line.replace(" ", separator) for line in lines)
        (folder / file).write_text(text, encoding=encoding, newline="")
    assert read("msmt17", folder) == expected


def test_a_list_of_msmt17_that_is_not_utf8_is_named(tmp_path):
    folder = make_msmt17(tmp_path)
    (folder / "list_val.txt").write_text("\n".join(LISTS["list_val.txt"]), encoding="utf-16")
    with pytest.raises(ValueError, match="list_val.txt, line 1: expected '<image> <identity>'"):
        read("msmt17", folder)


def test_a_link_that_leads_nowhere_is_named(tmp_path):
    (tmp_path / "market1501").symlink_to(tmp_path / "unmounted")
    with pytest.raises(FileNotFoundError, match=r"market1501 \(a link to nowhere: .*/unmounted\)"):
        find("market1501", tmp_path)
    with pytest.raises(FileNotFoundError, match="there is no folder .*/unmounted"):
        find("market1501", tmp_path / "market1501")
    folder = make_msmt17(tmp_path / "msmt17")
    (folder / "list_val.txt").unlink()
    (folder / "list_val.txt").symlink_to("list.txt")
    with pytest.raises(FileNotFoundError, match=r"list_val.txt \(a link to nowhere: list.txt\)"):
        read("msmt17", folder)


def test_links_that_loop_are_passed_over(tmp_path):
    (tmp_path / "market1501").symlink_to("market1501")
    with pytest.raises(FileNotFoundError, match="market1501: no folder of it"):
        find("market1501", tmp_path)
    with pytest.raises(FileNotFoundError, match="nothing, as there is no folder .*/market1501"):
        find("market1501", tmp_path / "market1501")
    folder = make(tmp_path / "Market-1501", MARKET)
    (folder / "market1501").symlink_to("..")  # to a folder above: the set is found once
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert find("market1501", tmp_path) == folder


LINES = [
    "path,identity,camera,split",
    "photos/a.jpg,7,1,train",
    '"photos/b, c.jpg",7,0,train',
    "photos/d.jpg,12,2,query",
    "photos/e.jpg,12,3,gallery",
]


def make_csv(folder, lines=LINES):
    make(folder / "photos", {"": ["a.jpg", "b, c.jpg", "d.jpg", "e.jpg"]})
    (folder / "mine.csv").write_text("\n".join(lines) + "\n")
    return folder / "mine.csv"


def test_a_csv_file_is_a_set(tmp_path):
    file = make_csv(tmp_path)
    assert find("mine", tmp_path) == find("mine.csv", tmp_path) == file
    splits = read("mine", file)
    assert short(splits["train"]) == [("a.jpg", 7, 1), ("b, c.jpg", 7, 0)]
    assert short(splits["query"]) == [("d.jpg", 12, 2)]
    assert short(splits["gallery"]) == [("e.jpg", 12, 3)]
    assert all(record.path.is_file() for split in splits.values() for record in split)
    file.write_text(
        "\ufeffsplit,note,path,identity\ngallery,x,photos/e.jpg,0\nquery,,photos/d.jpg,0"
    )
    assert read("mine", file) == {
        "train": [],  # a set may be there to test on alone
        "query": [(tmp_path / "photos/d.jpg", 0, -1)],
        "gallery": [(tmp_path / "photos/e.jpg", 0, -1)],
    }


@pytest.mark.parametrize(
    "number, line, message",
    [
        (
            1,
            "path,person,split",
            "line 1: expected the columns path, identity, split .* found path",
        ),
        (1, "", "line 1: expected the columns .* found nothing"),
        (2, "photos/a.jpg,anna,1,train", "line 2, column identity: expected .* found 'anna'"),
        (3, "photos/a.jpg,-1,1,train", "line 3, column identity: expected .* found '-1'"),
        (
            3,
            "photos/a.jpg,1,20261129,train",
            "line 3, column camera: .* from 0 to 9999, found '2026",
        ),
        (2, f"photos/a.jpg,{2**63},1,train", "line 2, column identity: expected a whole number"),
        (
            2,
            f"photos/a.jpg,{'9' * 5000},1,train",
            "line 2, column identity: expected a whole number",
        ),
        (3, "photos/a.jpg,1,,train", "line 3, column camera: expected a whole number.* found ''"),
        (
            4,
            "photos/d.jpg,1,1,test",
            "line 4, column split: expected train, query, gallery, .*test",
        ),
        (5, "photos/no.jpg,1,1,query", "line 5, column path: no such file: .*photos/no.jpg"),
        (5, "photos/a.jpg,1,1,query", "line 5, column path: .* twice, first in .*mine.csv, line 2"),
        (5, "photos/d.jpg,1,1", "line 5: expected 4 values"),
        (5, "photos/d.jpg,1,1,query,x", "line 5: expected 4 values"),
        (5, "photos/e.jpg,1,1,query", "no image of gallery in mine; expected lines of the split"),
    ],
)
def test_a_wrong_line_of_a_csv_file_is_named_with_its_column(tmp_path, number, line, message):
    lines = [*LINES]
    lines[number - 1] = line
    with pytest.raises((ValueError, FileNotFoundError), match=f"mine.csv.*({message})"):
        read("mine", make_csv(tmp_path, lines))


def test_a_file_that_is_no_csv_is_named(tmp_path):
    file = make_csv(tmp_path)
    file.write_text("path,identity,split\n" + 200_000 * "x")
    with pytest.raises(ValueError, match="mine.csv: expected a CSV file.*larger than field limit"):
        read("mine", file)


def test_a_folder_of_ones_own_has_its_own_name(tmp_path):
    folder = make(tmp_path / "mine", MARKET)
    make_csv(tmp_path / "mine")
    assert find("mine", tmp_path) == find("anything", folder) == folder
    assert find("mine.csv", folder) == folder / "mine.csv"
    assert short(read("mine", folder)["query"]) == [("0001_c1s1_001051_00.jpg", 1, 0)]


def test_an_unknown_name_says_what_is_known_and_how_a_set_of_ones_own_is_given(tmp_path):
    make(tmp_path / "other", {"query": ["0001_c1s1_001051_00.jpg"]})
    with pytest.raises(ValueError) as error:
        find("mine", tmp_path)
    message = str(error.value)
    assert "'mine' is not known; it is one of: 'market1501', 'dukemtmc', 'msmt17'" in message
    assert f"a folder {tmp_path / 'mine'} with bounding_box_train, query" in message
    assert f"a file {tmp_path / 'mine.csv'} with the columns path, identity, split" in message
    assert message.endswith(f"There is in {tmp_path}: other")
