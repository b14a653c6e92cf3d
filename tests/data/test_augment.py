"""fusionreid.data.augment against a loop with torchvision's functions, and its statistics."""

from __future__ import annotations

import math
import random

import pytest
import torch
from torchvision.transforms import functional as tv

from fusionreid.data import Augment, normalise
from fusionreid.data.augment import draw_box

DEVICES = (
    ["cpu"] + ["cuda"] * torch.cuda.is_available() + ["mps"] * torch.backends.mps.is_available()
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(batch: int = 6, height: int = 24, width: int = 13) -> torch.Tensor:
    """Random images with channels last in memory, as the cache gives them."""
    shape = (batch, height, width, 3)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator()).permute(
        0, 3, 1, 2
    )


def draws_of(augment: Augment, images: torch.Tensor, seed: int = 0):
    chance = random.Random(seed)
    return [augment.draw(images.shape[2], images.shape[3], chance) for _ in images]


def one_by_one(images, draws, padding):
    """Flip, pad, crop and normalise by torchvision, image after image, with the same draws."""
    results = []
    for image, (flip, top, left, _) in zip(images, draws, strict=True):
        image = tv.hflip(image) if flip else image
        image = tv.pad(image, [padding] * 4, fill=0)
        image = tv.crop(image, top, left, images.shape[2], images.shape[3])
        results.append(
            tv.normalize(tv.convert_image_dtype(image, torch.float32), [0.5] * 3, [0.5] * 3)
        )
    return torch.stack(results)


def test_normalise_is_exact_for_every_value():
    values = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16).expand(1, 3, 16, 16)
    expected = (values.double() / 255 - 0.5) / 0.5
    assert normalise(values).dtype == torch.float32
    assert (normalise(values) - expected).abs().max() < 2e-7


@pytest.mark.parametrize("padding", [0, 1, 10, 15])
@pytest.mark.parametrize("batch", [1, 70])
def test_flip_and_crop_equal_a_loop(padding, batch):
    images, augment = pictures(batch), Augment(flip=0.5, padding=padding, erasing=0)
    draws = draws_of(augment, images)
    assert torch.allclose(
        augment.apply(images, draws, generator()), one_by_one(images, draws, padding), atol=1e-6
    )


@pytest.mark.parametrize("device", DEVICES)
def test_erasing_changes_the_box_and_nothing_else_on_every_device(device):
    images, augment = pictures(40), Augment(erasing=1)
    draws = draws_of(augment, images)
    erased = augment.apply(images.to(device), draws, torch.Generator(device).manual_seed(1))
    assert erased.device.type == device and erased.is_contiguous(memory_format=torch.channels_last)
    whole = one_by_one(images, draws, augment.padding)
    for image, expected, draw in zip(erased.cpu(), whole, draws, strict=True):
        box = torch.zeros(24, 13, dtype=torch.bool)
        box[draw.box] = True
        assert box.any() and torch.allclose(image[:, ~box], expected[:, ~box], atol=1e-6)
        assert (image[:, box] != expected[:, box]).all()


def test_the_noise_is_standard_normal_and_drawn_for_each_value():
    images = torch.full((64, 3, 32, 16), 77, dtype=torch.uint8)
    result = Augment(flip=0, padding=0, erasing=1)(images, generator())
    values = result[result != normalise(images)]
    assert abs(values.mean()) < 0.02 and abs(values.std() - 1) < 0.02
    assert len(values.unique()) > 0.99 * len(values)


def test_probabilities_and_ranges():
    """Random erasing as in timm: 2 % to a third of the area, log-uniform aspect 0.3 to 1 / 0.3."""
    augment, height, width = Augment(flip=0.3, padding=4, erasing=0.5), 256, 128
    chance = random.Random(0)
    flip, top, left, box = zip(
        *(augment.draw(height, width, chance) for _ in range(20_000)), strict=True
    )
    assert abs(sum(flip) / 20_000 - 0.3) < 0.015
    for shifts in (top, left):
        shares = torch.bincount(torch.tensor(shifts), minlength=9) / 20_000
        assert len(shares) == 9 and (shares - 1 / 9).abs().max() < 0.01
    sides = [(side.start, side.stop) for drawn in box if drawn for side in drawn]
    boxes = torch.tensor(sides).reshape(-1, 4)  # top, bottom, left, right
    assert abs(len(boxes) / 20_000 - 0.5) < 0.015
    rows, columns = boxes[:, 1] - boxes[:, 0], boxes[:, 3] - boxes[:, 2]
    share, aspect = rows * columns / (height * width), rows / columns
    assert 0.018 < share.min() < 0.022 and 0.32 < share.max() < 0.34
    assert 0.29 < aspect.min() < 0.32 and 3.1 < aspect.max() < 3.45
    small = aspect[share < 0.1].log()  # boxes that always fit: the logarithm is uniform
    assert (
        abs(small.mean()) < 0.04 and abs(small.std() - 2 * math.log(1 / 0.3) / math.sqrt(12)) < 0.02
    )
    assert boxes.amin(0)[[0, 2]].tolist() == [0, 0]
    assert boxes.amax(0)[[1, 3]].tolist() == [height, width]


def test_a_box_that_never_fits_leaves_the_image_whole(monkeypatch):
    monkeypatch.setattr("fusionreid.data.augment.AREA", (0.95, 1.0))
    monkeypatch.setattr("fusionreid.data.augment.ASPECT", (3.0, 3.0))
    images = pictures(3, 16, 16)
    assert draw_box(16, 16, random.Random(0)) is None
    assert torch.equal(
        Augment(flip=0, padding=0, erasing=1)(images, generator()), normalise(images)
    )


def test_each_image_has_its_own_draw_and_a_seed_repeats_it():
    images = pictures(1, 32, 16).expand(32, -1, -1, -1)
    first, again, other = (Augment(erasing=1)(images, generator(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert len({tuple(image.flatten().tolist()) for image in first}) == 32
    torch.manual_seed(5)
    default = Augment()(images)
    torch.manual_seed(5)
    assert torch.equal(Augment()(images), default)


def test_the_memory_format_does_not_matter():
    images = pictures(33)
    result = Augment()(images, generator())
    assert torch.equal(Augment()(images.contiguous(), generator()), result)
    assert result.shape == images.shape and result.dtype == torch.float32


def test_errors_name_what_is_wrong():
    with pytest.raises(ValueError, match="flip=1.5"):
        Augment(flip=1.5)
    with pytest.raises(ValueError, match="padding=-1"):
        Augment(padding=-1)
    with pytest.raises(ValueError, match="uint8.*float32"):
        Augment()(torch.zeros(1, 3, 8, 8))
    with pytest.raises(ValueError, match=r"\(2, 1, 8, 8\)"):
        normalise(torch.zeros(2, 1, 8, 8, dtype=torch.uint8))
