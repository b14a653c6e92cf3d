"""Random flip, padded crop and random erasing of a training batch (Sec. IV.B), on any device.

Each image has its own draw. The draws are made on the CPU, so the host never waits for a GPU.
"""

import math
import random
from typing import NamedTuple

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from ..options import expect

# Random erasing, as in the code that gave the paper's numbers.
AREA = (0.02, 1 / 3)  # share of the image
ASPECT = (0.3, 1 / 0.3)  # height / width, log-uniform
ATTEMPTS = 10  # boxes drawn until one fits into the image


class Draw(NamedTuple):
    """What is done to one image."""

    flip: bool
    top: int  # of the crop in the padded image, 0 to 2 x padding
    left: int
    box: tuple[slice, slice] | None  # rows and columns of the crop to erase


class Augment:
    """Augments and normalises a batch.

    With probability `flip` a horizontal flip; a random crop of the image's size after `padding`
    black pixels on each side; normalisation; with probability `erasing` one box of N(0, 1) noise
    (Zhong et al., AAAI 2020), if one fits.
    """

    def __init__(self, flip: float = 0.5, padding: int = 10, erasing: float = 0.5):
        self.flip = expect("flip", flip, float, 0, 1)
        self.padding = expect("padding", padding, int, 0)
        self.erasing = expect("erasing", erasing, float, 0, 1)

    def __call__(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Augments images (B, 3, H, W) uint8: float32, same device, channels last in memory.

        Flips, crops and boxes depend on the generator alone, which is on the CPU (None: torch's
        default one). The noise also depends on the kind of device.
        """
        _expect_images(images)
        height, width = images.shape[2:]
        seed = int(torch.randint(2**62, (), generator=generator))
        chance = random.Random(seed)
        noise = torch.Generator(images.device).manual_seed(seed)
        draws = [self.draw(height, width, chance) for _ in images]
        return self.apply(images, draws, noise)

    def draw(self, height: int, width: int, chance: random.Random) -> Draw:
        """Makes the draw of one image of height x width pixels."""
        flip = chance.random() < self.flip
        top = chance.randint(0, 2 * self.padding)
        left = chance.randint(0, 2 * self.padding)
        erase = chance.random() < self.erasing
        return Draw(flip, top, left, draw_box(height, width, chance) if erase else None)

    def apply(self, images: Tensor, draws: list[Draw], noise: torch.Generator) -> Tensor:
        """Augments images (B, 3, H, W) as their draws say.

        `noise` is a generator on the device of the images.
        """
        images = rearrange(images, "b c h w -> b h w c")
        batch, height, width, channels = images.shape
        if images.device.type == "cpu":
            # Fresh memory takes half of the time, and numpy's less: Linux gives it in large pages.
            results = torch.from_numpy(np.empty(images.shape, np.float32))
        else:
            results = torch.empty(images.shape, device=images.device)
        # One padded image serves all: its border stays black, and it stays in the CPU's cache.
        margin = 2 * self.padding
        padded = images.new_zeros(height + margin, width + margin, channels)
        inner = padded[self.padding : self.padding + height, self.padding : self.padding + width]
        for image, draw, result in zip(images, draws, results, strict=True):
            inner.copy_(image.flip(1) if draw.flip else image)
            crop = padded[draw.top : draw.top + height, draw.left : draw.left + width]
            result.copy_(crop).mul_(2 / 255).sub_(1)  # as `normalise`
            if draw.box:
                erased = result[draw.box]
                erased.copy_(torch.randn(erased.shape, generator=noise, device=images.device))
        return rearrange(results, "b h w c -> b c h w")


def draw_box(height: int, width: int, chance: random.Random) -> tuple[slice, slice] | None:
    """Draws rows and columns to erase; None if no attempt fits into the image."""
    for _ in range(ATTEMPTS):
        area = height * width * chance.uniform(*AREA)
        aspect = math.exp(chance.uniform(math.log(ASPECT[0]), math.log(ASPECT[1])))
        rows = round(math.sqrt(area * aspect))
        columns = round(math.sqrt(area / aspect))
        if rows < height and columns < width:
            top = chance.randint(0, height - rows)
            left = chance.randint(0, width - columns)
            return slice(top, top + rows), slice(left, left + columns)
    return None


def normalise(images: Tensor) -> Tensor:
    """(x / 255 - 0.5) / 0.5 of uint8 images (B, 3, H, W): float32 in -1 to 1."""
    _expect_images(images)
    return (images * (2 / 255)).sub_(1)


def _expect_images(images: Tensor) -> None:
    if images.ndim != 4 or images.shape[1] != 3 or images.dtype != torch.uint8:
        raise ValueError(
            f"images: expected uint8 (B, 3, H, W), found {images.dtype} {tuple(images.shape)}"
        )
