"""The synthetic benchmark's plan and files."""

from __future__ import annotations

import hashlib
import sys
from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from fusionreid.config import DataConfig
from fusionreid.data import open_dataset
from fusionreid.data.datasets import open_data
from fusionreid.data.synthetic import build as synthetic
from fusionreid.data.synthetic.build import SIZES, build, plan


def digest(folder) -> dict[str, str]:
    """The SHA-256 of every picture, mask and table."""
    digests = {}
    for path in sorted(folder.rglob("*.*")):
        if path.suffix in (".jpg", ".png", ".csv"):
            digests[str(path.relative_to(folder))] = hashlib.sha256(path.read_bytes()).hexdigest()
    return digests


@pytest.fixture
def small(tiny, monkeypatch):
    """`build` renders the tiny set when it is asked for the size "smoke"."""
    monkeypatch.setitem(SIZES, "smoke", tiny)
    return tiny


@pytest.mark.parametrize("name", ["smoke", "demo", "pretrain", "full"])
def test_plan(name):
    size = SIZES[name]
    shots = plan(size, 0)
    assert len({shot.path for shot in shots}) == len(shots)
    cameras_by_folder = defaultdict(lambda: defaultdict(set))
    for shot in shots:
        folder, file = shot.path.split("/")
        assert file.startswith(f"{max(shot.identity, 0):04d}_c{shot.camera + 1}s1_")
        assert 0 <= shot.camera < 6
        cameras_by_folder[folder][shot.identity].add(shot.camera)
    train, query, gallery = (cameras_by_folder[folder] for folder in synthetic.FOLDERS)
    assert len(train) == size.train >= 4 and len(query) == size.test
    assert not set(train) & set(query) and set(query) <= set(gallery)
    for identity, cameras in query.items():
        # A query has matches in other cameras.
        assert len(cameras) >= 3 and gallery[identity] == cameras
    queries = [(shot.identity, shot.camera) for shot in shots if shot.folder == "query"]
    assert len(set(queries)) == len(queries)


def test_layout(rendered, tiny):
    root = rendered.parent.parent
    assert rendered == root / "synthetic" / "smoke-3"
    pictures = len(plan(tiny, 3))
    assert pictures == 2 * 6 + 6 + 2
    assert len(digest(rendered)) == 2 * pictures + 1  # a mask for each, and the attributes
    dataset = open_dataset("synthetic", root, size="smoke", seed=3)
    assert dataset.num_identities == 2
    assert [len(split) for split in (dataset.train, dataset.query, dataset.gallery)] == [12, 3, 5]
    for record in dataset.train:
        with Image.open(record.path) as image:
            assert image.size == tiny.image[::-1] and np.asarray(image).std() > 5


@pytest.mark.slow
def test_bytes_do_not_depend_on_the_number_of_processes(rendered, small, tmp_path, monkeypatch):
    monkeypatch.setattr(synthetic, "FEW", 0)
    again = build(tmp_path, "smoke", 3, processes=2, progress=False)
    assert digest(again) == digest(rendered)


@pytest.fixture
def root_and_folder(rendered, tmp_path):
    """A copy of the tiny set that a test may change: its root and its folder."""
    folder = tmp_path / "synthetic" / "smoke-3"
    for path in rendered.rglob("*"):
        if path.is_file():
            copy = folder / path.relative_to(rendered)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    return tmp_path, folder


def dates(folder) -> dict[str, int]:
    paths = [*folder.rglob("*.jpg"), *folder.rglob("*.png")]
    return {str(path): path.stat().st_mtime_ns for path in sorted(paths)}


@pytest.mark.slow
def test_resumes(root_and_folder, small):
    root, folder = root_and_folder
    files = digest(folder)
    before = dates(folder)
    build(root, "smoke", 3, progress=False)
    assert dates(folder) == before  # complete: nothing is rendered
    for shot in (plan(small, 3)[0], plan(small, 3)[5]):
        (folder / shot.path).unlink()
    build(root, "smoke", 3, processes=1, progress=False)
    assert digest(folder) == files
    after = dates(folder)
    assert sum(after[path] != before[path] for path in before) == 4  # two pictures, two masks


def test_never_mixes_versions(root_and_folder, small, monkeypatch):
    """Another version's pictures go before the first of this one is there, even if this build is
    then cut off.
    """
    root, folder = root_and_folder

    def stop(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(synthetic, "RENDERER", synthetic.RENDERER + 1)
    monkeypatch.setattr(synthetic, "_render", stop)
    with pytest.raises(KeyboardInterrupt):
        build(root, "smoke", 3, progress=False)
    assert set(digest(folder)) <= {"attributes.csv"} and not (folder / "manifest.json").exists()


def test_without_anny(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "anny", None)
    with pytest.raises(ImportError, match=r"fusionreid\[synthetic\]"):
        build(tmp_path, "smoke", progress=False)


def test_unknown_size(tmp_path):
    with pytest.raises(ValueError, match="'smoke', 'demo', 'pretrain', 'full'"):
        build(tmp_path, "huge")


def test_a_folder_of_a_set_is_taken_as_it_is(rendered):
    assert open_data(DataConfig(size="full"), rendered).root == rendered


def test_a_disk_that_fails_is_named(tiny, tmp_path, monkeypatch):
    pytest.importorskip("anny")
    one = replace(tiny, train=0, test=1, cameras=(1, 1), distractors=0)
    monkeypatch.setitem(SIZES, "smoke", one)
    folder = tmp_path / "synthetic" / "smoke-0"
    folder.mkdir(parents=True)
    (folder / "query").write_text("not a folder")
    with pytest.raises(OSError, match="query"):
        build(tmp_path, "smoke", processes=1, progress=False)
