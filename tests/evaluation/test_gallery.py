"""A gallery has the features of its pictures, whatever came, changed, went or was cut off."""

import copy
import os
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from fusionreid import build_model, embed
from fusionreid.config import PAPER, profile
from fusionreid.evaluation import gallery as module
from fusionreid.evaluation.distances import FeatureDistances
from fusionreid.evaluation.evaluate import retrieve
from fusionreid.evaluation.gallery import Gallery, pictures_in, write_sheet
from fusionreid.evaluation.ranking import rank_by

MODEL = profile("smoke").scale(PAPER)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return build_model(MODEL, 4, 6).eval()


@pytest.fixture
def folder(tmp_path):
    """Nine pictures, two of them in a folder below; a hidden one and a text, which are none."""
    random = np.random.default_rng(0)
    for name in [
        *(f"{number}.png" for number in range(7)),
        "below/7.jpg",
        "below/8.PNG",
        ".hidden/9.png",
    ]:
        path = tmp_path / "people" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (40, 20, 3), dtype=np.uint8)).save(path)
    (tmp_path / "people" / "notes.txt").write_text("no picture")
    return tmp_path / "people"


@pytest.fixture
def embedded(monkeypatch):
    """The numbers of pictures that each batch of a gallery embedded."""
    counts, real = [], module.embed_batches

    def counted(*arguments, **options):
        for indices, vectors in real(*arguments, **options):
            counts.append(len(indices))
            yield indices, vectors

    monkeypatch.setattr(module, "embed_batches", counted)
    return counts


def check(gallery, model, pictures):
    assert gallery.paths == pictures
    np.testing.assert_allclose(gallery.features, embed(model, gallery.paths), atol=1e-3)
    with np.load(gallery.file) as arrays:
        assert len(arrays["features"]) == len(pictures), "no vector is left over"


def opened(folder, model, **options):
    return Gallery(folder / ".fusionreid", model, pictures_in(folder), **options)


def test_features_are_those_of_embed_and_are_kept(model, folder, embedded):
    gallery = opened(folder, model)
    assert gallery.paths == pictures_in(folder) and len(gallery.paths) == 9
    check(gallery, model, gallery.paths)
    opened(folder, model)
    assert embedded == [9], "nothing is embedded twice"
    moved = folder.rename(folder.with_name("moved"))
    check(opened(moved, model), model, pictures_in(moved))
    assert embedded == [9], "features that lie in the folder move with it"


def test_pictures_come_change_and_go(model, folder, embedded):
    opened(folder, model)
    (folder / "1.png").unlink()
    (folder / "3.png").unlink()
    check(opened(folder, model), model, pictures_in(folder))
    assert embedded == [9], "forgetting embeds nothing"
    Image.new("RGB", (30, 60), "red").save(folder / "2.png")
    Image.new("RGB", (30, 60), "blue").save(folder / "new.png")
    gallery = opened(folder, model)
    check(gallery, model, pictures_in(folder))
    assert embedded == [9, 2] and gallery.embedded == 2 and gallery.seconds > 0
    for number in (0, 4, 5, 6):
        (folder / f"{number}.png").unlink()
    Image.new("RGB", (30, 60), "green").save(folder / "2.png")
    check(opened(folder, model), model, pictures_in(folder))
    assert embedded == [9, 2, 1]


def test_what_was_embedded_before_a_stop_is_kept(model, folder, embedded, monkeypatch):
    def cut(self, vectors):
        write(self, vectors)
        if len(vectors) == 8:
            raise KeyboardInterrupt

    write = Gallery._write
    monkeypatch.setattr(module, "SAVE_EVERY", 0)
    with monkeypatch.context() as patch:
        patch.setattr(Gallery, "_write", cut)
        with pytest.raises(KeyboardInterrupt):
            opened(folder, model, batch_size=4)
    check(opened(folder, model, batch_size=4), model, pictures_in(folder))
    assert embedded == [4, 4, 1], "two batches were kept"


@pytest.mark.parametrize("size", [0, 100, 5000])
def test_a_damaged_file_says_what_to_delete(size, model, folder):
    file = opened(folder, model).file
    os.truncate(file, size)
    with pytest.raises(ValueError, match=f"{file}: expected the features .* delete it"):
        opened(folder, model)


def test_another_model_has_features_of_its_own(model, folder):
    other = copy.deepcopy(model)
    with torch.no_grad():
        next(other.parameters()).add_(0.1)
    check(opened(folder, model), model, pictures_in(folder))
    check(opened(folder, other), other, pictures_in(folder))
    check(opened(folder, model), model, pictures_in(folder))


def test_unreadable_pictures_are_named_and_left_out(model, folder):
    (folder / "3.png").write_bytes(b"no picture")
    (folder / "empty.jpg").touch()
    gallery = opened(folder, model)
    assert set(gallery.unreadable) == {folder / "3.png", folder / "empty.jpg"}
    assert all("expected an image" in why for why in gallery.unreadable.values())
    check(gallery, model, [path for path in pictures_in(folder) if path not in gallery.unreadable])
    assert gallery.embedded == len(gallery.paths)
    written = gallery.file.stat()
    again = opened(folder, model)
    assert (again.embedded, again.unreadable) == (0, gallery.unreadable)
    assert again.file.stat() == written, "nothing is written where nothing changed"
    shutil.copy(folder / "2.png", folder / "3.png")
    assert folder / "3.png" in opened(folder, model).paths
    with pytest.raises(
        ValueError,
        match="only: expected at least one picture that can .* none among 1. .*empty.jpg",
    ):
        Gallery(folder / "only", model, [folder / "empty.jpg"])


def test_search_is_the_slow_product(model, folder):
    gallery = opened(folder, model)
    queries = embed(model, [folder / "below" / "7.jpg", folder / "2.png"])
    similarities, rows = gallery.search(queries, top=5)
    expected = queries @ embed(model, gallery.paths).T
    np.testing.assert_array_equal(rows, np.argsort(-expected, axis=1)[:, :5])
    np.testing.assert_allclose(similarities, np.take_along_axis(expected, rows, axis=1), atol=1e-3)
    assert [gallery.paths[row].name for row in rows[:, 0]] == ["7.jpg", "2.png"]
    assert gallery.search(queries, top=99)[1].shape == (2, 9)


def test_the_gallery_of_a_set_is_ranked(model, tiny_dataset, tmp_path):
    retrieval = retrieve(model, tiny_dataset, cache_directory=tmp_path)
    query, features = retrieval.select()
    gallery = Gallery(tmp_path / "features", model, tiny_dataset.gallery, batch_size=5)
    np.testing.assert_allclose(gallery.features, features, atol=1e-3)
    distances = FeatureDistances(query, gallery.features)
    by_gallery = rank_by(distances, retrieval.query, retrieval.gallery)
    assert by_gallery.mAP == pytest.approx(retrieval.rank().mAP, abs=0.01)


def test_a_folder_without_pictures_is_an_error(tmp_path, folder):
    for path, message in [
        (tmp_path / "nowhere", "expected a folder of pictures, found nothing"),
        (folder / "1.png", "found a file"),
        (folder / ".hidden" / "none", "found nothing"),
    ]:
        with pytest.raises(ValueError, match=message):
            pictures_in(path)
    (tmp_path / "bare").mkdir()
    with pytest.raises(ValueError, match="bare: expected pictures .*found none"):
        pictures_in(tmp_path / "bare")


@pytest.mark.parametrize("suffix", [".gif", ".jfif", ".jpe", ".avif", ".WEBP"])
def test_every_kind_that_embed_takes_is_listed(suffix, folder):
    picture = folder / f"picture{suffix}"
    picture.touch()
    assert picture in pictures_in(folder)


def test_the_sheet_shows_queries_and_what_was_found(folder, tmp_path):
    one, two = folder / "1.png", folder / "2.png"
    write_sheet(tmp_path / "sheet.png", [one, two], [[(two, 0.5)], [(one, 0.5)]])
    with Image.open(tmp_path / "sheet.png") as sheet:
        pixels = np.asarray(sheet)
    shown = np.asarray(Image.open(one).resize((64, 128), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(pixels[4 : 4 + 128, 4 : 4 + 64], shown)
    assert pixels.shape == (2 * 150, 2 * 72, 3)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda v: (v, 0), "top=0; expected a whole number from 1"),
        (lambda v: (v, -1), "top=-1; expected a whole number from 1"),
        (lambda v: (v, 1.5), "top=1.5; expected a whole number from 1"),
        (lambda v: (v[0], 1), r"vectors: expected real numbers of shape \(images, width\)"),
        (
            lambda v: (v[:, :4], 1),
            "vectors: expected [0-9]+ numbers each, found 4: another model's",
        ),
        (lambda v: ("a", 1), "vectors: expected real numbers"),
    ],
)
def test_wrong_searches_and_options(change, message, model, folder, tmp_path):
    gallery = Gallery(tmp_path / "index", model, pictures_in(folder))
    vectors = embed(model, gallery.paths[:2])
    with pytest.raises(ValueError, match=message):
        gallery.search(*change(vectors))
    expected = gallery.search(vectors, 3)
    for same in (vectors.astype(np.float64), torch.from_numpy(vectors), vectors.tolist()):
        np.testing.assert_array_equal(gallery.search(same, np.int64(3))[1], expected[1])
    for wrong in (0, -1):
        with pytest.raises(ValueError, match=f"batch_size={wrong}; expected a whole number from 1"):
            Gallery(tmp_path / "new", model, pictures_in(folder), batch_size=wrong)
    with pytest.raises(ValueError, match="model='demo'; expected fusionreid"):
        Gallery(tmp_path / "index", "demo", pictures_in(folder))
