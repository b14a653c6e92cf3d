"""fusionreid.data.cache: the decoded cache, its validity, and what happens when it fails."""

from __future__ import annotations

import errno
import io
import multiprocessing
import os

import numpy as np
import pytest
import torch
from PIL import Image

from fusionreid import files
from fusionreid.data import ImageCache, Record, load_images, prefetch
from fusionreid.data import cache as loader

SIZE = (16, 8)


@pytest.fixture
def records(tmp_path):
    random = np.random.default_rng(0)
    made = []
    for index in range(70):
        path = tmp_path / "images" / f"{index:03d}.{'png' if index % 2 else 'jpg'}"
        path.parent.mkdir(exist_ok=True)
        shape = (*[(30, 20), (16, 8), (9, 7)][index % 3], 3)
        Image.fromarray(random.integers(0, 256, shape, np.uint8)).save(path)
        made.append(Record(path, index // 4, index % 3))
    return made


@pytest.fixture
def decoded(monkeypatch):
    """The paths that are decoded."""
    seen = []
    decode = loader.decode

    def noted(path, **how):
        seen.append(path)
        return decode(path, **how)

    monkeypatch.setattr(loader, "decode", noted)
    return seen


def expected(records, size=SIZE, how=Image.BILINEAR):
    return np.stack(
        [np.asarray(Image.open(r.path).convert("RGB").resize(size[::-1], how)) for r in records]
    )


def test_holds_every_image_resized_and_decodes_once(records, tmp_path, decoded):
    cache = ImageCache(records, SIZE, tmp_path / "cache")
    assert cache.images.shape == (70, 16, 8, 3) and cache.images.dtype == np.uint8
    assert np.array_equal(cache.images, expected(records)) and len(decoded) == 70
    assert np.array_equal(ImageCache(records, SIZE, tmp_path / "cache").images, cache.images)
    assert len(decoded) == 70
    assert not [name for name in os.listdir(tmp_path / "cache") if name.startswith(".")]
    with pytest.raises(ValueError, match="read-only"):
        cache.images[0] = 0


def test_batch_and_load_images(records, tmp_path):
    cache = ImageCache(records, SIZE, tmp_path)
    indices = [3, 69, 3, 0]
    images = cache.batch(indices)
    assert images.dtype == torch.uint8 and images.shape == (4, 3, 16, 8)
    assert torch.equal(
        images, torch.from_numpy(expected([records[i] for i in indices])).permute(0, 3, 1, 2)
    )
    assert torch.equal(images, load_images([records[i].path for i in indices], SIZE))
    assert cache.batch([5]).shape == (1, 3, 16, 8) and load_images([], SIZE).shape == (0, 3, 16, 8)
    assert images.is_contiguous(memory_format=torch.channels_last)
    images.zero_()  # a copy, not the map
    assert cache.images[3].any()
    with pytest.raises(IndexError, match="70"):
        cache.batch([70])


def test_prefetch_gives_the_batches_in_order_and_passes_errors_on(records, tmp_path):
    cache = ImageCache(records, SIZE, tmp_path)
    batches = [[1, 2], [3], [4, 5, 6]]
    for (indices, images), wanted in zip(prefetch(cache, batches), batches, strict=True):
        assert indices == wanted and torch.equal(images, cache.batch(wanted))
    assert list(prefetch(cache, [])) == []
    with pytest.raises(IndexError):
        list(prefetch(cache, [[0], [99], [1]]))
    next(prefetch(cache, batches))  # left early: no thread keeps it alive


def test_gray_and_palette_and_transparent_images_become_rgb(tmp_path):
    for mode in ("1", "L", "LA", "P", "RGBA", "CMYK"):
        path = tmp_path / f"{mode}.{'jpg' if mode == 'CMYK' else 'png'}"
        Image.new(mode, (20, 30)).save(path)
        assert load_images([path], SIZE).shape == (1, 3, 16, 8)


def test_what_is_transparent_is_black_whatever_lies_under_it(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (16, 8, 4), dtype=np.uint8)
    pixels[:8, :, 3] = 0
    pixels[8:, :, 3] = 255
    Image.fromarray(pixels).save(tmp_path / "cut-out.png")
    decoded = loader.decode(tmp_path / "cut-out.png", (16, 8))
    assert not decoded[:8].any()
    np.testing.assert_array_equal(decoded[8:], pixels[8:, :, :3])


@pytest.mark.parametrize("dtype", [np.uint16, np.float32, np.int32])
def test_more_than_8_bits_a_channel_are_refused(tmp_path, dtype):
    Image.fromarray(np.zeros((16, 8), dtype)).save(tmp_path / "a.tif")
    with pytest.raises(
        ValueError, match=r"a.tif: .*more than 8 bits a channel, mode [FI].*; save it with 8 bits"
    ):
        load_images([tmp_path / "a.tif"], SIZE)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_of_exif_is_followed(tmp_path, orientation):
    upright = np.zeros((16, 8, 3), np.uint8)
    upright[:8, :4, 0], upright[8:, 4:, 1] = 255, 255
    turn = Image.Transpose  # what was done to the upright image, so that the orientation undoes it
    done = [
        None,
        turn.FLIP_LEFT_RIGHT,
        turn.ROTATE_180,
        turn.FLIP_TOP_BOTTOM,
        turn.TRANSPOSE,
        turn.ROTATE_90,
    ]
    done = [*done, turn.TRANSVERSE, turn.ROTATE_270][orientation - 1]
    image, exif = Image.fromarray(upright), Image.Exif()
    exif[0x0112] = orientation
    (image if done is None else image.transpose(done)).save(tmp_path / "a.png", exif=exif)
    assert (load_images([tmp_path / "a.png"], SIZE)[0].permute(1, 2, 0).numpy() == upright).all()


def stale_by_content(records, cache):
    Image.new("RGB", (9, 9), "red").save(records[7].path)


def stale_by_date(records, cache):
    Image.open(records[7].path).convert("RGB").save(records[7].path)
    os.utime(records[7].path, (1, 1))


def gone(records, cache):
    cache.path.unlink()


@pytest.mark.parametrize("spoil", [stale_by_content, stale_by_date, gone])
def test_a_stale_cache_is_made_again_in_place_of_the_old_one(records, tmp_path, decoded, spoil):
    other = ImageCache(records[:9], SIZE, tmp_path / "cache")
    cache = ImageCache(records, SIZE, tmp_path / "cache")
    spoil(records, cache)
    decoded.clear()
    again = ImageCache(records, SIZE, tmp_path / "cache")
    assert len(decoded) == 70 and np.array_equal(again.images, expected(records))
    files = {path.name for path in (tmp_path / "cache").glob("*.images")}
    assert files == {again.path.name, other.path.name}


def test_images_are_in_order_whatever_the_block(records, tmp_path, monkeypatch):
    monkeypatch.setattr(loader, "BLOCK", 32)  # 70 images are two blocks and a part of one
    assert np.array_equal(ImageCache(records, SIZE, tmp_path).images, expected(records))


def test_another_size_or_list_has_a_file_of_its_own(records, tmp_path):
    caches = [
        ImageCache(records, SIZE, tmp_path),
        ImageCache(records, (8, 16), tmp_path),
        ImageCache(records[:9], SIZE, tmp_path),
        ImageCache(records[::-1], SIZE, tmp_path),
        ImageCache(records, SIZE, tmp_path, interpolation="bicubic"),
    ]
    assert len({cache.path for cache in caches}) == 5
    assert np.array_equal(caches[1].images, expected(records, (8, 16)))
    assert np.array_equal(caches[3].images, caches[0].images[::-1])
    assert np.array_equal(caches[4].images, expected(records, how=Image.BICUBIC))
    with pytest.raises(ValueError, match="interpolation='nearest'.*'bilinear', 'bicubic'"):
        ImageCache(records, SIZE, tmp_path, interpolation="nearest")


@pytest.mark.parametrize("content", [b"", b"not an image", "cut"])
def test_a_bad_image_is_named_and_nothing_is_left(records, tmp_path, content):
    bad = records[40].path
    bad.write_bytes(bad.read_bytes()[:-200] if content == "cut" else content)
    with pytest.raises(ValueError, match=f"{bad}: expected an image, found what cannot be decoded"):
        ImageCache(records, SIZE, tmp_path / "cache")
    assert all(name.endswith(".lock") for name in os.listdir(tmp_path / "cache"))
    with pytest.raises(ValueError, match=str(bad)):
        load_images([r.path for r in records], SIZE)


def test_a_missing_image_is_named(records, tmp_path):
    records[40].path.unlink()
    with pytest.raises(FileNotFoundError, match=str(records[40].path)):
        ImageCache(records, SIZE, tmp_path / "cache")
    with pytest.raises(FileNotFoundError, match=str(records[40].path)):
        load_images([records[40].path], SIZE)
    with pytest.raises(ValueError, match="at least one image"):
        ImageCache([], SIZE, tmp_path)


def test_an_image_that_may_not_be_read_is_named(records, tmp_path, monkeypatch):
    bad, opened = str(records[40].path), Image.open

    def forbidden(path, *mode):
        if str(path) == bad:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), bad)
        return open(path, *mode) if mode else opened(path)

    monkeypatch.setattr(loader.Image, "open", forbidden)
    monkeypatch.setattr(files, "open", forbidden, raising=False)
    with pytest.raises(ValueError, match=f"{bad}: .*Permission denied"):
        load_images([records[40].path], SIZE)
    with pytest.raises(ValueError, match=f"{bad}: .*Permission denied"):
        ImageCache(records, SIZE, tmp_path / "cache")


def test_a_full_disk_is_a_clear_error_and_leaves_no_half_file(records, tmp_path, monkeypatch):
    class Full(io.FileIO):
        def write(self, data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def opened(path, mode):
        return Full(path, mode) if "w" in mode else open(path, mode)

    monkeypatch.setattr(loader, "open", opened, raising=False)
    message = "cannot write: No space left on device.*FUSIONREID_CACHE names another folder.*images"
    with pytest.raises(OSError, match=message) as error:
        ImageCache(records, SIZE, tmp_path / "cache")
    assert error.value.errno == errno.ENOSPC
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".lock"]


def test_a_directory_that_cannot_be_made_is_a_clear_error(records, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="FUSIONREID_CACHE names another folder.*file/cache/"):
        ImageCache(records, SIZE, tmp_path / "file" / "cache")


def test_what_a_killed_process_left_is_removed(records, tmp_path):
    cache = ImageCache(records, SIZE, tmp_path / "cache")
    leftover = cache.path.with_name(f".{cache.path.name}.abc.images")
    leftover.write_bytes(b"half")
    cache.path.unlink()
    ImageCache(records, SIZE, tmp_path / "cache")
    assert not leftover.exists()


def _open(records, directory, start, results):
    made = []
    decode = loader.decode

    def noted(path, **how):
        made.append(path)
        return decode(path, **how)

    loader.decode = noted
    start.wait()
    cache = ImageCache(records, SIZE, directory, progress=False)
    results.put((len(made), int(np.asarray(cache.images, np.int64).sum())))


def test_of_several_processes_one_decodes_and_the_others_wait(records, tmp_path):
    context = multiprocessing.get_context("fork")
    start, results = context.Event(), context.Queue()
    processes = [
        context.Process(target=_open, args=(records, tmp_path / "cache", start, results))
        for _ in range(3)
    ]
    for process in processes:
        process.start()
    start.set()
    found = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    assert sorted(made for made, _ in found) == [0, 0, 70]
    assert {total for _, total in found} == {int(expected(records).astype(np.int64).sum())}


@pytest.mark.skipif(os.name == "nt", reason="names are text there")
def test_a_folder_whose_name_is_no_utf_8(records, tmp_path):
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("this file system takes UTF-8 alone")
    copied = []
    for record in records[:3]:
        path = folder / record.path.name
        path.write_bytes(record.path.read_bytes())
        copied.append(record._replace(path=path))
    cache = ImageCache(copied, SIZE, tmp_path / "cache")
    np.testing.assert_array_equal(cache.images, ImageCache(records[:3], SIZE, tmp_path).images)
