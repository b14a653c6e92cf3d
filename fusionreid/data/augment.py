"""Random flip, padded crop and random erasing of a training batch (Sec. IV.B), on the device that trains.

Each image has its own draw. The draws are made on the CPU, so the host never waits for a GPU.
"""

import math
import random
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..options import expect

# Random erasing, as in the code that gave the paper's numbers.
AREA = (0.02, 1 / 3)  # share of the image
ASPECT = (0.3, 1 / 0.3)  # height / width, log-uniform
ATTEMPTS = 10  # boxes drawn until one fits into the image


class Draw(NamedTuple):
    """The draw of one image."""

    flip: bool
    top: int  # of the crop in the padded image, 0 to 2 x padding
    left: int
    box: (
        tuple[int, int, int, int] | None
    )  # to erase: top, bottom, left and right in the crop, ends excluded


class Augment:
    """Augments and normalises a batch.

    With probability `flip` a horizontal flip; a random crop of the image's size after `padding` black pixels on each
    side; normalisation; with probability `erasing` one box of N(0, 1) noise (Zhong et al., AAAI 2020), if one fits.
    """

    def __init__(self, flip: float = 0.5, padding: int = 10, erasing: float = 0.5):
        self.flip, self.erasing = (
            expect("flip", flip, float, 0, 1),
            expect("erasing", erasing, float, 0, 1),
        )
        self.padding = expect("padding", padding, int, 0)

    def __call__(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Augments images (B, 3, H, W) uint8 to float32, normalised, on the same device, channels last in memory.

        Flips, crops and boxes depend on the generator alone, which is on the CPU (None: torch's default one). The noise
        also depends on the kind of device.
        """
        _check(images)
        seed = int(torch.randint(2**62, (), generator=generator))
        chance, noise = random.Random(seed), torch.Generator(images.device).manual_seed(seed)
        draws = [self.draw(images.shape[2], images.shape[3], chance) for _ in images]
        return self.apply(images, draws, noise)

    def draw(self, height: int, width: int, chance: random.Random) -> Draw:
        """Makes the draw of one image of height x width pixels."""
        flip = chance.random() < self.flip
        top, left = chance.randint(0, 2 * self.padding), chance.randint(0, 2 * self.padding)
        box = draw_box(height, width, chance) if chance.random() < self.erasing else None
        return Draw(flip, top, left, box)

    def apply(self, images: Tensor, draws: list[Draw], noise: torch.Generator) -> Tensor:
        """Augments images (B, 3, H, W) as their draws say; `noise` is a generator on the device of the images."""
        batch, channels, height, width = images.shape
        result = torch.empty(batch, height, width, channels, device=images.device)
        if images.device.type == "cpu":
            # Fresh memory takes half of the time. numpy's takes less than torch's: Linux gives it in large pages.
            result = torch.from_numpy(np.empty(result.shape, np.float32))
        # One padded image is used again and again: its border stays black, and it stays in the CPU's cache.
        padded = images.new_zeros(height + 2 * self.padding, width + 2 * self.padding, channels)
        inner = padded[self.padding : self.padding + height, self.padding : self.padding + width]
        for image, (flip, top, left, box), out in zip(
            images.permute(0, 2, 3, 1), draws, result, strict=True
        ):
            inner.copy_(image.flip(1) if flip else image)
            out.copy_(padded[top : top + height, left : left + width]).mul_(2 / 255).sub_(1)
            if box is not None:
                top, bottom, left, right = box
                shape = (bottom - top, right - left, channels)
                out[top:bottom, left:right] = torch.randn(shape, generator=noise, device=out.device)
        return result.permute(0, 3, 1, 2)


def draw_box(height: int, width: int, chance: random.Random) -> tuple[int, int, int, int] | None:
    """Draws a box to erase: top, bottom, left and right, ends excluded; None if no attempt fits into the image."""
    for _ in range(ATTEMPTS):
        area = height * width * chance.uniform(*AREA)
        aspect = math.exp(chance.uniform(math.log(ASPECT[0]), math.log(ASPECT[1])))
        rows, columns = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if rows < height and columns < width:
            top, left = chance.randint(0, height - rows), chance.randint(0, width - columns)
            return top, top + rows, left, left + columns
    return None


def normalise(images: Tensor) -> Tensor:
    """(x / 255 - 0.5) / 0.5 of uint8 images (B, 3, H, W): float32 in -1 to 1."""
    _check(images)
    return (images * (2 / 255)).sub_(1)


def _check(images: Tensor) -> None:
    if images.ndim != 4 or images.shape[1] != 3 or images.dtype != torch.uint8:
        found = f"{str(images.dtype).removeprefix('torch.')} {tuple(images.shape)}"
        raise ValueError(f"images: expected uint8 (B, 3, H, W), found {found}")
