"""fusionreid.data.overlaps: what is in two splits is said, with one example."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import pytest

from fusionreid.data import open_dataset
from fusionreid.data.overlaps import overlaps

pytestmark = pytest.mark.filterwarnings("ignore:.*Is the set complete")
SOUND = {
    "bounding_box_train/0002_c1s1_000001_00.jpg": b"one",
    "bounding_box_train/0003_c1s1_000001_00.jpg": b"two",
    "query/0005_c1s1_000001_00.jpg": b"six",
    "bounding_box_test/0005_c2s1_000001_00.jpg": b"ten",
    "bounding_box_test/0000_c2s1_000001_00.jpg": b"none",
}


def said(folder: Path, files: dict[str, bytes]) -> list[str]:
    """What `open_dataset` says of a set of these files, counts aside."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        open_dataset("market1501", folder)
    messages = [str(warning.message) for warning in caught]
    return [message for message in messages if "not as published" not in message]


def test_a_sound_set_has_none(tmp_path):
    assert said(tmp_path, SOUND) == []


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "bounding_box_test/0005_c3s1_000009_00.jpg",
            b"six",
            "images of query that are in gallery too: 1, as .*query",
        ),
        (
            "bounding_box_train/0002_c3s1_000009_00.jpg",
            b"six",
            "images of query that are in train too: 1, as .*query",
        ),
        (
            "bounding_box_train/0005_c3s1_000009_00.jpg",
            b"five",
            "identities of train .* or gallery too: 1, as 5",
        ),
        (
            "bounding_box_test/0003_c3s1_000009_00.jpg",
            b"five",
            "identities of train .* or gallery too: 1, as 3",
        ),
    ],
)
def test_what_is_in_two_splits_is_said(tmp_path, name, content, message):
    (fault,) = said(tmp_path, SOUND | {name: content})
    assert fault.startswith(f"{tmp_path}: ")
    assert re.search(message, fault)


def test_empty_files_are_not_the_same_image(tmp_path):
    assert said(tmp_path, {name: b"" for name in SOUND}) == []


def test_people_of_training_and_test_may_have_numbers_of_their_own(tmp_path):
    said(tmp_path, SOUND)
    splits = open_dataset("market1501", tmp_path).splits
    splits["train"] = splits["query"]
    assert any("identities of train" in fault for fault in overlaps(splits))
    faults = overlaps(splits, same_people=False)
    assert faults and not any("identities of train" in fault for fault in faults)


def test_only_files_of_equal_size_are_read(tmp_path, monkeypatch):
    said(
        tmp_path,
        SOUND
        | {
            "bounding_box_test/0005_c3s1_000009_00.jpg": b"sixty",
            "query/0005_c4s1_000009_00.jpg": b"5",
        },
    )
    read, real = [], Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: read.append(path.name) or real(path))
    assert len(open_dataset("market1501", tmp_path).query) == 2
    assert len(read) == 4  # those of three bytes: one query and what may equal it
