"""fusionreid.data.augment against a loop over images, and its statistics."""

from __future__ import annotations

import math

import pytest
import torch
from torchvision.transforms import functional as tv

from fusionreid.data import Augment, normalise
from fusionreid.data.augment import crop_at_once, crop_one


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(batch: int = 6, height: int = 24, width: int = 13, seed: int = 0) -> torch.Tensor:
    """Random images with channels last in memory, as the cache gives them."""
    shape = (batch, height, width, 3)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator(seed)).permute(0, 3, 1, 2)


def one_by_one(images, draw, padding):
    """Flip, pad, crop, normalise: torchvision's functions, image after image, with the same draws."""
    results = []
    for image, flip, top, left in zip(images, draw.flip, draw.top, draw.left, strict=True):
        image = tv.hflip(image) if flip else image
        image = tv.pad(image, [padding] * 4, fill=0)
        image = tv.crop(image, int(top), int(left), images.shape[2], images.shape[3])
        results.append(tv.normalize(tv.convert_image_dtype(image, torch.float32), [0.5] * 3, [0.5] * 3))
    return torch.stack(results)


def test_normalise_is_exact_for_every_value():
    values = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16).expand(1, 3, 16, 16)
    expected = (values.double() / 255 - 0.5) / 0.5
    assert normalise(values).dtype == torch.float32
    assert (normalise(values) - expected).abs().max() < 2e-7


@pytest.mark.parametrize("padding", [0, 1, 10, 15])
@pytest.mark.parametrize("batch", [1, 6, 70])
def test_flip_and_crop_equal_a_loop(padding, batch):
    images, augment = pictures(batch), Augment(flip=0.5, padding=padding, erasing=0)
    draw = augment.draw(batch, 24, 13, generator())
    assert torch.allclose(augment.apply(images, draw), one_by_one(images, draw, padding), atol=1e-6)
    assert torch.equal(augment(images, generator()), augment.apply(images, draw))


@pytest.mark.parametrize("padding", [0, 3, 15])
def test_both_ways_give_the_same_crops(padding):
    images, augment = pictures(9), Augment(padding=padding)
    draw = augment.draw(9, 24, 13, generator(3))
    pixels = images.permute(0, 2, 3, 1)
    cropped = torch.empty_like(pixels)
    for index, (flip, top, left) in enumerate(zip(*(part.tolist() for part in draw[:3]), strict=True)):
        image = pixels[index].flip(1) if flip else pixels[index]
        crop_one(image, top - padding, left - padding, cropped[index])
    assert torch.equal(cropped, crop_at_once(pixels, draw, padding))


@pytest.mark.parametrize("fill", ["uniform", "normal"])
def test_both_ways_give_the_same_images(fill):
    images, augment = pictures(40), Augment(fill=fill)
    draw = augment.draw(40, 24, 13, generator(3))
    at_once = torch.empty(40, 24, 13, 3)
    augment._apply_at_once(images.permute(0, 2, 3, 1), draw, generator(1), at_once)  # what an accelerator does
    assert torch.equal(augment.apply(images, draw, generator(1)), at_once.permute(0, 3, 1, 2))


@pytest.mark.parametrize("fill", ["uniform", "normal"])
@pytest.mark.parametrize("batch", [1, 40])
def test_erasing_changes_the_box_and_nothing_else(fill, batch):
    images, augment = pictures(batch), Augment(erasing=1, fill=fill)
    draw = augment.draw(batch, 24, 13, generator())
    whole = one_by_one(images, draw, augment.padding)
    erased = augment.apply(images, draw, generator(1))
    for image, expected, (top, bottom, left, right) in zip(erased, whole, draw.box.tolist(), strict=True):
        assert bottom > top and right > left
        box = torch.zeros(24, 13, dtype=torch.bool)
        box[top:bottom, left:right] = True
        assert torch.allclose(image[:, ~box], expected[:, ~box], atol=1e-6)
        assert (image[:, box] != expected[:, box]).float().mean() > 0.8  # black padding may be drawn again


@pytest.mark.parametrize(("fill", "deviation"), [("uniform", 1 / math.sqrt(3)), ("normal", 1.0)])
def test_the_fill_is_drawn_for_each_value(fill, deviation):
    images = torch.full((64, 3, 32, 16), 77, dtype=torch.uint8)
    result = Augment(flip=0, padding=0, erasing=1, fill=fill)(images, generator())
    values = result[(result - normalise(images)).abs() > 1e-6]
    assert abs(values.mean()) < 0.02 and abs(values.std() - deviation) < 0.02
    if fill == "uniform":
        assert values.min() == -1 and abs(values.max() - 1) < 1e-6 and len(values.unique()) == 255
    assert len({tuple(image.flatten()[:50].tolist()) for image in result}) > 1


def test_probabilities_and_ranges():
    augment, batch, height, width = Augment(flip=0.3, padding=4, erasing=0.6), 20_000, 256, 128
    draw = augment.draw(batch, height, width, generator())
    assert abs(draw.flip.float().mean() - 0.3) < 0.015
    for shift in (draw.top, draw.left):
        shares = torch.bincount(shift, minlength=9) / batch
        assert len(shares) == 9 and (shares - 1 / 9).abs().max() < 0.01
    top, bottom, left, right = draw.box.unbind(1)
    rows, columns = (bottom - top), (right - left)
    erased = rows > 0
    assert abs(erased.float().mean() - 0.6) < 0.015
    share, aspect = (rows * columns)[erased] / (height * width), (rows / columns)[erased]
    assert 0.018 < share.min() < 0.03 and 0.36 < share.max() < 0.41
    assert 0.29 < aspect.min() < 0.35 and 2.9 < aspect.max() < 3.45
    assert top.min() == 0 and left.min() == 0 and bottom.max() == height and right.max() == width
    assert (draw.box[~erased] == 0).all()


def test_boxes_that_never_fit_leave_the_image_whole():
    augment = Augment(flip=0, padding=0, erasing=1, area=(0.9, 1.0), aspect=(3.0, 3.0))
    images = pictures(3, 16, 16)
    assert torch.equal(augment(images, generator()), normalise(images))


def test_each_image_has_its_own_draw_and_a_seed_repeats_it():
    images = pictures(1, 32, 16).expand(32, -1, -1, -1)
    first, again, other = (Augment()(images, generator(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert len({tuple(image.flatten().tolist()) for image in first}) == 32


@pytest.mark.parametrize("batch", [1, 33])
def test_memory_format_does_not_matter_and_out_is_written_to(batch):
    images = pictures(batch)
    out = torch.empty(batch, 24, 13, 3).permute(0, 3, 1, 2)
    expected = Augment()(images, generator())
    assert torch.equal(Augment()(images.contiguous(), generator()), expected)
    assert Augment()(images, generator(), out=out).data_ptr() == out.data_ptr()
    assert torch.equal(out, expected) and expected.dtype == torch.float32 and expected.shape == images.shape


def test_errors_name_what_is_wrong():
    with pytest.raises(ValueError, match="flip=1.5"):
        Augment(flip=1.5)
    with pytest.raises(ValueError, match="padding=-1"):
        Augment(padding=-1)
    with pytest.raises(ValueError, match="area="):
        Augment(area=(0.4, 0.02))
    with pytest.raises(ValueError, match="'uniform', 'normal'"):
        Augment(fill="black")
    with pytest.raises(ValueError, match="uint8.*float32"):
        Augment()(torch.zeros(1, 3, 8, 8))
    with pytest.raises(ValueError, match=r"\(2, 1, 8, 8\)"):
        normalise(torch.zeros(2, 1, 8, 8, dtype=torch.uint8))
    with pytest.raises(ValueError, match="out: expected"):
        Augment()(pictures(2), generator(), out=torch.empty(1, 3, 24, 13))
