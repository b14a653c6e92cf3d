"""fusionreid.data.datasets: what is made of a set's files, and which version they are."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import pytest
from trees import DUKE, MARKET, make, make_msmt17

from fusionreid import paths
from fusionreid.config import DataConfig
from fusionreid.data import datasets, open_dataset
from fusionreid.data.datasets import (
    PUBLISHED,
    check_version,
    count,
    draw_people,
    find_version,
    open_data,
    table,
    verdict,
)
from fusionreid.data.layouts import find, read
from fusionreid.data.synthetic import RENDERER

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*Is the set complete", "ignore:.*identities of train"
)
MARKET1501 = DataConfig(name="market1501", size="full")


def test_training_identities_are_numbered_from_zero_and_others_are_not(tmp_path):
    dataset = open_dataset("market1501", make(tmp_path / "market1501", MARKET))
    assert [record.identity for record in dataset.train] == [0, 0, 1]
    assert [record.identity for record in dataset.gallery] == [0, 1]
    assert (dataset.num_identities, dataset.num_cameras) == (2, 12)
    duke = open_dataset("dukemtmc", make(tmp_path / "DukeMTMC-reID", DUKE).parent)
    assert [record.identity for record in duke.train] == [0, 1]
    assert duke.query[0].identity == 5


def test_msmt17s_edition_is_printed(tmp_path, capsys):
    dataset = open_dataset("msmt17", make_msmt17(tmp_path))
    assert [record.identity for record in dataset.train] == [0, 1, 0]
    assert dataset.version.startswith("V1, ") and len(dataset.version) == len("V1, 3f2a9c01")
    assert f"MSMT17 {dataset.version} in {tmp_path}" in capsys.readouterr().err


def test_an_unknown_name_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="'cuhk03' is not known.*'market1501'"):
        open_dataset("cuhk03", tmp_path)


def test_a_link_to_an_image_that_is_gone_is_named(tmp_path):
    folder = make(tmp_path, MARKET)
    (folder / "query" / "0001_c1s1_000001_00.jpg").symlink_to("0001_c1s1_000001_00.jpg")
    with pytest.raises(OSError, match="symbolic links: .*0001_c1s1_000001_00.jpg"):
        open_dataset("market1501", tmp_path)


def test_the_version_is_that_of_the_files(tmp_path):
    market, msmt17 = MARKET1501, DataConfig(name="msmt17", size="full")
    assert find_version(DataConfig(), tmp_path) == f"v{RENDERER}"
    assert find_version(market, tmp_path) == find_version(msmt17, tmp_path / "nowhere") == ""
    dataset = open_dataset("market1501", make(tmp_path / "market1501", MARKET))
    assert find_version(market, tmp_path) == dataset.version
    for folder, edition in (("a", "V1"), ("b/MSMT17_V2", "V2")):
        dataset = open_dataset("msmt17", make_msmt17(tmp_path / folder, edition))
        assert find_version(msmt17, dataset.root) == dataset.version
        assert dataset.version.startswith(f"{edition}, ")
    make_msmt17(tmp_path / "a", "V2")  # both editions in one folder: nobody knows
    assert find_version(msmt17, tmp_path / "a") == ""


def test_versions_stay_what_they_were(tmp_path):
    """Fingerprints of runs depend on them."""
    assert find_version(MARKET1501, make(tmp_path / "a", MARKET)) == "be0a4713"
    msmt17 = DataConfig(name="msmt17", size="full")
    assert find_version(msmt17, make_msmt17(tmp_path / "b")) == "V1, 578cd8b7"


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
    folder = make(tmp_path / "market1501", MARKET)
    copy = make(tmp_path / "elsewhere" / "Market-1501", MARKET)
    before = replace(MARKET1501, version=find_version(MARKET1501, tmp_path))
    assert find_version(MARKET1501, copy) == before.version  # wherever it lies
    assert open_data(before, tmp_path).version == before.version
    (folder / "query" / "Thumbs.db").touch()
    assert open_data(before, tmp_path).version == before.version  # what is not read does not count
    change(folder)
    message = f"market1501: expected market1501 {before.version}, found market1501 [0-9a-f]{{8}}: "
    with pytest.raises(ValueError, match=message):
        open_data(before, tmp_path)
    assert find_version(MARKET1501, tmp_path) not in ("", before.version)
    assert open_data(MARKET1501, tmp_path).version != before.version  # a run of any version


@pytest.fixture(scope="module")
def market(tmp_path_factory):
    """A set in Market-1501's layout: 210 training and 160 test people, a distractor and junk."""
    files = {"bounding_box_train": [], "query": [], "bounding_box_test": []}
    for person in range(1, 371):
        images = [f"{person:04d}_c{1 + image}s1_000001_00.jpg" for image in range(1 + person % 4)]
        if person <= 210:
            files["bounding_box_train"] += images
        else:
            files["query"].append(f"{person:04d}_c6s1_000001_00.jpg")
            files["bounding_box_test"] += images
    files["bounding_box_test"] += ["0000_c1s1_000001_00.jpg", "-1_c1s1_000001_00.jpg"]
    return make(tmp_path_factory.mktemp("market"), files)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_draw_has_the_people_that_one_generator_draws(market, seed):
    whole = open_dataset("market1501", market)
    draw = open_data(DataConfig(name="market1501", size="demo", seed=seed), market)
    chance = random.Random(seed)
    training = chance.sample(range(1, 211), 200)
    test = chance.sample(range(211, 371), 150)
    images = [record.path for record in whole.train if record.identity + 1 in training]
    assert [record.path for record in draw.train] == images
    assert draw.num_identities == len({record.identity for record in draw.train}) == 200
    assert draw.query == [record for record in whole.query if record.identity in test]
    assert draw.gallery == [record for record in whole.gallery if record.identity in test]
    assert 0 not in {record.identity for record in draw.gallery}


def test_a_draw_has_the_version_of_the_whole_set_with_size_and_seed(market):
    whole = open_dataset("market1501", market)
    assert open_data(DataConfig(name="market1501", size="full", seed=3), market) == whole
    first, second = (DataConfig(name="market1501", size="demo", seed=seed) for seed in (0, 1))
    assert find_version(first, market) == find_version(second, market) == whole.version
    versions = [open_data(config, market).version for config in (first, second)]
    assert versions == [f"{whole.version}, demo-0", f"{whole.version}, demo-1"]
    assert open_data(replace(first, version=whole.version), market).version == versions[0]
    with pytest.raises(ValueError, match="expected market1501 0123abcd, demo-0, found .*, demo-0"):
        open_data(replace(first, version="0123abcd"), market)


def test_a_whole_set_is_no_draw_and_no_other_set(market):
    whole = open_dataset("market1501", market)
    draw = DataConfig(name="market1501", size="demo", seed=1, version=whole.version)
    message = f"{whole.version}, demo-1, found market1501 {whole.version}: other"
    with pytest.raises(ValueError, match=message):
        check_version(whole, draw)
    with pytest.raises(ValueError, match="expected dukemtmc .*, found market1501"):
        check_version(whole, DataConfig(name="dukemtmc"))


def test_a_draw_has_no_published_numbers(market):
    draw = open_data(DataConfig(name="market1501", size="demo"), market)
    assert verdict(draw) == "" and "published" not in table(draw)
    assert verdict(open_dataset("market1501", market)).startswith("Not as published")


def test_too_few_people_for_a_draw_are_an_error(tmp_path):
    make(tmp_path, MARKET)
    with pytest.raises(ValueError, match="200 identities of train and 150 of query, found 2 and 1"):
        open_dataset("market1501", tmp_path, size="demo")


def test_draws_of_market1501_have_these_images():
    try:
        splits = read("market1501", find("market1501", paths.DATA))
    except FileNotFoundError:
        pytest.skip("Market-1501 is not there")
    images = {
        0: {"train": 3391, "query": 684, "gallery": 2624},
        1: {"train": 3547, "query": 662, "gallery": 2544},
        2: {"train": 3425, "query": 678, "gallery": 2525},
        3: {"train": 3274, "query": 675, "gallery": 2750},
    }
    for seed, expected in images.items():
        draw = draw_people(splits, seed)
        assert {split: len(records) for split, records in draw.items()} == expected


def test_synthetic(tmp_path):
    folder = make(tmp_path / "synthetic" / "smoke-3", MARKET)
    with pytest.raises(
        FileNotFoundError,
        match="manifest.json: .*not finished.*data synthetic --size smoke --seed 3",
    ):
        open_dataset("synthetic", tmp_path, size="smoke", seed=3)
    (folder / "manifest.json").write_text(json.dumps({"size": "smoke", "seed": 3, "version": 9}))
    for root in (tmp_path, folder):
        dataset = open_dataset("synthetic", root, size="smoke", seed=3)
        assert (dataset.version, len(dataset.train)) == ("smoke-3, v9", 3)
    assert open_data(DataConfig(size="smoke", seed=3), folder) == dataset
    with pytest.raises(FileNotFoundError, match="demo-0/manifest.json: .*not there.*make it with"):
        open_dataset("synthetic", tmp_path)


@pytest.mark.parametrize("content", ["[]", "{}", '{"size": "smoke", "seed": 3}'])
def test_a_manifest_that_holds_something_else_is_named(tmp_path, content):
    folder = make(tmp_path / "synthetic" / "smoke-3", MARKET)
    (folder / "manifest.json").write_text(content)
    with pytest.raises(ValueError, match="manifest.json: expected size, seed and version, found"):
        open_dataset("synthetic", folder)


def test_pictures_of_ones_own_are_another_version_than_the_rendered_ones(tmp_path):
    rendered = find_version(DataConfig(), tmp_path)
    folder = make(tmp_path / "mine", MARKET)
    own = find_version(DataConfig(), folder)
    assert own not in ("", rendered)
    assert open_data(DataConfig(version=own), folder).version == own
    assert open_dataset("synthetic", folder).version == own
    with pytest.raises(ValueError, match="mine: expected synthetic demo-0, v9, found"):
        open_data(DataConfig(version="v9"), folder)
    next((folder / "query").iterdir()).write_bytes(b"another picture")
    assert find_version(DataConfig(), folder) not in ("", rendered, own)


def test_a_synthetic_set_must_be_the_one_of_its_manifest_and_of_the_run(tmp_path):
    folder = make(tmp_path / "synthetic" / "smoke-3", MARKET)
    about = {"size": "smoke", "seed": 3, "version": 9}
    about["counts"] = {"bounding_box_train": 3, "query": 1, "bounding_box_test": 2}
    (folder / "manifest.json").write_text(json.dumps(about))
    config = DataConfig(size="smoke", seed=3, version="v9")
    assert open_data(config, folder).version == "smoke-3, v9"
    for other in (replace(config, version="v8"), replace(config, seed=4)):
        with pytest.raises(
            ValueError,
            match="expected synthetic smoke-[34], v[89], found synthetic smoke-3, v9: other files",
        ):
            open_data(other, folder)
    remove(folder)
    with pytest.raises(
        ValueError,
        match="manifest.json: expected {'bounding_box_train': 3, .*'bounding_box_train': 2",
    ):
        open_data(config, folder)
    (folder / "manifest.json").write_text("{")
    with pytest.raises(ValueError, match="manifest.json: expected JSON"):
        open_data(config, folder)


@pytest.mark.filterwarnings("default:.*Is the set complete")
def test_counts_are_a_warning(tmp_path):
    with pytest.warns(UserWarning, match=r"train: images 3 \(published: 12,936\); .*complete\?"):
        open_dataset("market1501", make(tmp_path, MARKET))


def test_the_table_is_aligned(tmp_path):
    lines = table(open_dataset("market1501", make(tmp_path, MARKET))).splitlines()
    assert lines[0].split()[:3] == ["identities", "images", "cameras"]
    assert lines[0].count("(published)") == 3
    assert lines[1].split() == ["train", "2", "3", "3", "751", "12,936", "6"]
    assert len({len(line) for line in lines}) == 1
    mine = open_dataset("synthetic", tmp_path)  # nothing is published of it
    assert table(mine).splitlines()[1].split() == ["train", "2", "3", "3"]
    assert verdict(mine) == ""


def test_counts_of_a_split(tmp_path):
    counts = count(open_dataset("market1501", make(tmp_path, MARKET)).splits)
    assert list(counts.columns) == ["identities", "images", "cameras"]
    assert counts.loc["train"].tolist() == [2, 3, 3]
    assert counts.loc["gallery"].tolist() == [2, 2, 2]


@pytest.mark.parametrize(
    ("published", "line"),
    [
        (
            {"train": (2, 3, 3), "query": (1, 1, 1), "gallery": (2, 2, 2)},
            "Complete: identities, images and cameras of each split are the published ones.",
        ),
        (
            {"train": (2, 3, 3), "query": (1, 9, 1), "gallery": (2, 2, 2)},
            "Not as published. query: images 1 (published: 9).",
        ),
        (
            {"train": (3, 3, 6), "query": (1, 1, 1), "gallery": (2, 1002, 2)},
            "Not as published. train: identities 2 (published: 3); "
            "train: cameras 3 (published: 6); gallery: images 2 (published: 1,002).",
        ),
    ],
)
def test_the_verdict_says_whether_the_set_is_complete(tmp_path, monkeypatch, published, line):
    changed = PUBLISHED.copy()
    for split, numbers in published.items():
        changed.loc[("market1501", split)] = numbers
    monkeypatch.setattr(datasets, "PUBLISHED", changed)
    assert verdict(open_dataset("market1501", make(tmp_path, MARKET))) == line


def test_published_numbers_of_msmt17():
    assert PUBLISHED.loc[("msmt17", "gallery")].to_dict() == {
        "identities": 3060,
        "images": 82161,
        "cameras": 15,
    }
    assert PUBLISHED.loc["market1501", "images"].to_dict() == {
        "train": 12936,
        "query": 3368,
        "gallery": 15913,
    }


@pytest.mark.filterwarnings("error")
def test_a_set_of_ones_own_has_a_version_of_its_files(tmp_path):
    make(tmp_path / "photos", {"": ["a.jpg", "b.jpg", "c.jpg"]})
    for name in "abc":
        (tmp_path / "photos" / f"{name}.jpg").write_text(name)
    file = tmp_path / "mine.csv"
    config = DataConfig(name="mine")

    def version(*lines):
        file.write_text("\n".join(["path,identity,camera,split", *lines]))
        dataset = open_data(config, tmp_path)
        assert dataset.version == find_version(config, tmp_path) and dataset.name == "mine"
        return dataset.version

    lines = "photos/a.jpg,5,0,train", "photos/b.jpg,6,0,query", "photos/c.jpg,6,1,gallery"
    first = version(*lines)
    assert version(*lines[::-1]) == first and len(first) == 8
    assert open_dataset("mine", tmp_path, size="demo").train[0].identity == 0  # no draw
    others = {
        version(lines[0], lines[1], "photos/c.jpg,6,2,gallery"),
        version("photos/a.jpg,4,0,train", *lines[1:]),
        version(lines[0], "photos/b.jpg,6,0,gallery", "photos/c.jpg,6,1,query"),
    }
    assert len(others | {first}) == 4
    assert version(*lines) == first
    (tmp_path / "photos" / "a.jpg").write_text("another picture")
    with pytest.raises(ValueError, match="mine.csv: expected mine .*: other files"):
        open_data(replace(config, version=first), tmp_path)
    file.write_text("path,identity,split\nphotos/b.jpg,6,query\nphotos/c.jpg,6,gallery\n")
    dataset = open_data(config, tmp_path)
    assert dataset.version.startswith("no cameras, ") and dataset.num_cameras == 0
    assert count(dataset.splits).loc["query"].tolist() == [1, 1, 0]
    file.unlink()
    with pytest.raises(ValueError, match="'mine' is not known.*a file .*mine.csv"):
        find_version(config, tmp_path)
