"""Pictures of any kind become the vectors that the model gives for their pixels."""

from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from fusionreid import build_model, embed, load
from fusionreid.config import PAPER, profile
from fusionreid.data import load_images, normalise
from fusionreid.evaluation import embedding
from fusionreid.evaluation.evaluate import evaluate
from fusionreid.models import checkpoints
from fusionreid.models.pretrained import load_weights

MODEL = profile("smoke").scale(PAPER)
DISTANCE = {"bf16": 2e-2, "fp16": 3e-3}  # bf16 keeps 8 bits of a number, fp16 keeps 11
ARRIVED_NOT = {  # what stands there instead, and what the file holds
    "the pointer of Git LFS": "version https://git-lfs.github.com/spec/v1\n"
    "oid sha256:4d7a\nsize 12345\n",
    "a web page": "\n<!DOCTYPE html>\n<html><head><title>404</title></head></html>\n",
    "an empty file": "",
}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return build_model(MODEL, 4, 6).eval()


@pytest.fixture(scope="module")
def paths(tiny_dataset):
    return [record.path for record in tiny_dataset.query[:5]]


def plainly(model, images, cameras=None):
    with torch.no_grad():
        return torch.nn.functional.normalize(model.embed(normalise(images), cameras), dim=1).numpy()


def test_paths_and_arrays_in_batches(model, tiny_dataset, paths):
    cameras = [record.camera for record in tiny_dataset.query[:5]]
    images = load_images(paths, MODEL.image_size)
    vectors = embed(model, paths, cameras, batch_size=2)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, plainly(model, images, torch.tensor(cameras)), atol=1e-5)
    np.testing.assert_allclose(embed(model, images.numpy(), cameras), vectors, atol=1e-5)
    np.testing.assert_allclose(embed(model, paths), plainly(model, images), atol=1e-5)
    assert not np.allclose(embed(model, paths), vectors, atol=1e-3), "a camera changes the vector"
    assert embed(model, []).shape == (0, vectors.shape[1])


@pytest.mark.parametrize("precision", DISTANCE)
def test_vectors_in_half_precision(model, precision):
    images = np.random.default_rng(0).integers(0, 256, (6, 3, *MODEL.image_size), dtype=np.uint8)
    full, half = embed(model, images), embed(model, images, precision=precision)
    assert half.dtype == np.float32
    distance = np.linalg.norm(full - half, axis=1)  # of vectors of length 1
    assert 0 < distance.max() < DISTANCE[precision]


def test_every_kind_of_picture_in_one_list(model, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (90, 50, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    turned, exif = tmp_path / "turned.png", Image.Exif()
    exif[0x0112] = 6  # shown after a turn by 90 degrees to the right
    image.rotate(90, expand=True).save(turned, exif=exif)
    with_alpha = image.convert("RGBA")
    same = [
        image,
        pixels,
        pixels.transpose(2, 0, 1),
        torch.from_numpy(pixels.transpose(2, 0, 1)),
        turned,
        with_alpha,
    ]
    vectors = embed(model, [*same, np.asarray(with_alpha)])
    resized = np.asarray(image.resize(MODEL.image_size[::-1], Image.Resampling.BILINEAR))
    expected = plainly(model, torch.from_numpy(resized.transpose(2, 0, 1)[None].copy()))
    np.testing.assert_allclose(vectors, np.repeat(expected, 7, axis=0), atol=1e-5)
    gray = image.convert("L")
    grays = embed(
        model,
        [
            gray,
            np.asarray(gray),
            np.asarray(gray)[:, :, None],
            gray.convert("P"),
            gray.convert("RGB"),
        ],
    )
    np.testing.assert_allclose(grays, np.repeat(grays[:1], 5, axis=0), atol=1e-5)
    assert not np.allclose(grays[0], vectors[0], atol=1e-3)


def test_wrong_pictures(model, paths, tmp_path):
    (tmp_path / "empty.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match="empty.jpg: expected an image"):
        embed(model, [tmp_path / "empty.jpg"])
    with pytest.raises(FileNotFoundError, match="nowhere.jpg"):
        embed(model, [tmp_path / "nowhere.jpg"])
    with pytest.raises(TypeError, match="expected a list of paths or images, found one"):
        embed(model, str(paths[0]))
    shapes = (64, 32), (64, 32, 1), (64, 32, 3), (3, 64, 32)
    arrays = [np.zeros(shape, np.uint8) for shape in shapes]
    for one in (*arrays, torch.zeros(3, 64, 32), {"a": 1}.keys(), 5, None, model):
        with pytest.raises(
            TypeError, match="expected a list of paths or images, found one"
        ) as error:
            embed(model, one)
        assert "\n" not in str(error.value)
    with pytest.raises(TypeError, match="expected paths, PIL images or arrays, found None"):
        embed(model, [None])
    with pytest.raises(TypeError, match="expected uint8"):
        embed(model, np.zeros((1, 3, 64, 32), np.float32))
    for shape in ((64, 32, 2), (2, 64, 32), (0, 32, 3), (64,)):
        with pytest.raises(ValueError, match=r"images: expected \(H, W\)"):
            embed(model, [np.zeros(shape, np.uint8)])
    with pytest.raises(ValueError, match="cameras: expected 2"):
        embed(model, paths[:2], [0])
    with pytest.raises(ValueError, match=r"cameras: expected 0 to 5 \(-1: unseen\), found 6"):
        embed(model, paths[:2], [0, 6])


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(batch_size=0), "batch_size=0; expected a whole number from 1"),
        (dict(batch_size=-1), "batch_size=-1; expected a whole number from 1"),
        (dict(batch_size=1.5), "batch_size=1.5; expected a whole number from 1"),
        (dict(precision="fp8"), "precision='fp8' is not known"),
        (dict(cameras=[0.5, 1]), "cameras: expected 2 whole numbers"),
        (dict(cameras=[np.nan, 1]), "cameras: expected 2 whole numbers"),
        (dict(cameras=["a", "b"]), "cameras: expected 2 whole numbers"),
        (dict(cameras=3), "cameras: expected 2 whole numbers"),
        (dict(model="demo"), "model='demo'; expected fusionreid.models.fusionreid.FusionReID"),
    ],
)
def test_wrong_options(model, paths, tiny_dataset, tmp_path, options, message):
    options = {"model": model} | options
    with pytest.raises(ValueError, match=message):
        embed(images_or_paths=paths[:2], **options)
    if "cameras" not in options:
        with pytest.raises(ValueError, match=message):
            evaluate(dataset=tiny_dataset, cache_directory=tmp_path, **options)


@pytest.mark.parametrize("kind", ARRIVED_NOT)
def test_a_picture_that_did_not_arrive(kind, model, tmp_path):
    (tmp_path / "it.jpg").write_text(ARRIVED_NOT[kind])
    with pytest.raises(
        ValueError, match=rf"it.jpg: expected an image, found what cannot be decoded \({kind}"
    ):
        embed(model, [tmp_path / "it.jpg"])


@pytest.mark.parametrize("kind", ARRIVED_NOT)
@pytest.mark.parametrize("name", ["it.pth", "it.safetensors"])
def test_weights_that_did_not_arrive(kind, name, model, tmp_path):
    (tmp_path / name).write_text(ARRIVED_NOT[kind])
    for read in (load, checkpoints.load, lambda path: load_weights(model, cnn=path)):
        with pytest.raises(ValueError, match=f"{name}: expected .* found {kind}"):
            read(tmp_path / name)


def test_a_detectors_boxes_are_embedded_one_by_one(model, tmp_path):
    frame = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    boxes = [(10, 20, 40, 80), (-5.5, 30.2, 20.7, 99), (0, 0, 120, 90), (100.2, 3, 100.4, 50)]
    parts = [frame[20:80, 10:40], frame[30:90, :21], frame, frame[3:50, 100:101]]
    expected = embed(model, parts)
    Image.fromarray(frame).save(tmp_path / "frame.png")
    for given in (
        frame,
        Image.fromarray(frame),
        tmp_path / "frame.png",
        str(tmp_path / "frame.png"),
    ):
        np.testing.assert_array_equal(embed(model, given, boxes=boxes), expected)
    np.testing.assert_array_equal(
        embed(model, frame, boxes=torch.tensor(boxes[:1]), cameras=[2]),
        embed(model, parts[:1], cameras=[2]),
    )
    assert embed(model, frame, boxes=[]).shape == (0, expected.shape[1])
    turned = Image.fromarray(np.rot90(frame))  # lies on its side, and says so
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(embed(model, tmp_path / "turned.png", boxes=boxes), expected)


@pytest.mark.parametrize(
    "boxes, message",
    [
        ([(0, 0, 9, 9), (5, 5, 5, 9)], r"boxes\[1\]: expected x1 < x2 .* frame of 120 x 90 pixels"),
        ([(9, 0, 5, 9)], r"boxes\[0\]: .*found \[9.0, 0.0, 5.0, 9.0\]"),
        ([(0, 0, 9, 9), (1, 1, 2, 2), (120, 0, 130, 9)], r"boxes\[2\]: expected"),
        ([(-9, 0, 0, 9)], r"boxes\[0\]: expected"),
        ([(0, 0, 9)], r"boxes: expected shape \(boxes, 4\), found \(1, 3\)"),
        ((0, 0, 9, 9), r"boxes: expected shape \(boxes, 4\), found \(4,\)"),
        ([(0, 0, float("nan"), 9)], r"boxes\[0\]: .*found \[0.0, 0.0, nan, 9.0\]"),
    ],
)
def test_a_wrong_box_is_named(model, boxes, message):
    with pytest.raises(ValueError, match=message):
        embed(model, np.zeros((90, 120, 3), np.uint8), boxes=boxes)


def test_a_frame_that_cannot_be_decoded_is_named(model, tmp_path):
    (tmp_path / "frame.jpg").write_bytes(b"no picture")
    with pytest.raises(ValueError, match="frame.jpg: expected an image"):
        embed(model, tmp_path / "frame.jpg", boxes=[(0, 0, 9, 9)])
    with pytest.raises(TypeError, match="expected paths, PIL images or arrays"):
        embed(model, ["frame.jpg"], boxes=[(0, 0, 9, 9)])


def test_the_bar_counts_images(model, paths, monkeypatch, capsys):
    monkeypatch.setenv("TQDM_DISABLE", "0")
    shown = partial(embedding.tqdm, mininterval=0)
    monkeypatch.setattr(embedding, "tqdm", lambda **options: shown(**options | {"delay": 0}))
    embed(model, paths, batch_size=2)
    bar = capsys.readouterr().err
    assert "embed:" in bar and " 4/5 " in bar and "image/s]" in bar
