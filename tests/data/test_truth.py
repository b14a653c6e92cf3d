"""What is known of rendered images: masks, the table of attributes, classes of looks."""

from __future__ import annotations

import pytest

from fusionreid.data import Record, open_dataset, truth
from fusionreid.files import read_json


@pytest.fixture
def dataset(rendered):
    return open_dataset("synthetic", rendered.parent.parent, size="smoke", seed=3)


def test_masks_and_attributes(dataset, tiny):
    table = truth.attributes(dataset.train)
    masks = truth.masks(dataset.train, tiny.image)
    assert truth.has_truth(dataset) and masks.shape == (12, *tiny.image)
    names = [f"bounding_box_train/{record.path.name}" for record in dataset.train]
    assert table["file"].tolist() == names
    assert table["camera"].tolist() == [record.camera for record in dataset.train]
    assert set(table["group"]) == {1} and table["top_colour_rgb"].nunique() == 2
    assert table["visible"].between(0.01, 1).all() and table["yaw"].between(-180, 180).all()
    # Drawn for each picture.
    assert (table["yaw"].nunique(), table["phase"].nunique()) == (12, 12)
    # The person stands in the middle of the box, and leaves its edge alone.
    assert masks[:, :, 8:-8].mean() > 2 * masks.mean() * 0.75 and 0.1 < masks.mean() < 0.6
    strangers = [record for record in dataset.gallery if record.identity == 0]
    assert set(truth.attributes(strangers)["group"]) == {0}


def test_a_person_has_the_same_attributes_in_all_images(dataset):
    table = truth.attributes([*dataset.train, *dataset.query, *dataset.gallery])
    people = table[table["identity"] > 0].groupby("identity")
    of_the_image = {"file", "camera", "yaw", "phase", "visible", "occluder", "companion"}
    of_the_image |= {"box_height", "box_right", "box_down"}
    of_the_person = set(table) - of_the_image - {"identity"}
    assert {"top", "top_colour", "build", "bag_side", "age", "length"} <= of_the_person
    assert (people[sorted(of_the_person)].nunique() == 1).all(axis=None)


def test_looks_are_the_classes_of_what_is_seen(dataset):
    looks = truth.looks(dataset)
    table = truth.attributes(dataset.train).drop_duplicates("identity")
    assert looks.shape[0] == 2 and looks.min() == 0 and looks.max() <= 1
    names = read_json(dataset.root / "manifest.json")["looks"]
    differing = [table[name].nunique() == 2 for name in names]
    # The two are of one family: most of what is seen is alike.
    assert (looks[0] != looks[1]).tolist() == differing and sum(differing) < len(names) / 2


def test_a_real_set_has_no_truth(tmp_path):
    record = Record(tmp_path / "query" / "0001_c1s1_000001_00.jpg", 1, 0)
    with pytest.raises(FileNotFoundError, match="only the synthetic set"):
        truth.attributes([record])
